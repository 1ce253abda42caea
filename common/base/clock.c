/* Time: the two clocks of the host, and RFC 3339 without the C library's time zones. */
#include "common/base/clock.h"

static int64_t read_clock(clockid_t id, int64_t per_second)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * per_second + ts.tv_nsec / (1000000000 / per_second);
}

int64_t now_ms(void)
{
#ifdef AVIX_TEST_CLOCK
    static int64_t offset, known;

    if (!known) {
        if (!parse_i64(getenv("AVIX_TEST_CLOCK_OFFSET_MS"), INT64_MIN / 2, INT64_MAX / 2, &offset))
            offset = 0;
        known = 1;
    }
    return read_clock(CLOCK_REALTIME, 1000) + offset;
#else
    return read_clock(CLOCK_REALTIME, 1000);
#endif
}

int64_t mono_ms(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000);
}

int64_t mono_us(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000000);
}

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar, and back. */
static int64_t days_from_date(int64_t y, int m, int d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
    int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static void date_from_days(int64_t z, int64_t *y, int *m, int *d)
{
    z += 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

    *d = (int)(doy - (153 * mp + 2) / 5 + 1);
    *m = (int)(mp < 10 ? mp + 3 : mp - 9);
    *y = yoe + era * 400 + (*m <= 2);
}

char *rfc3339(int64_t ms, char out[RFC3339_LEN])
{
    int64_t days = ms / 86400000, rest = ms % 86400000, y;
    int m, d;

    if (rest < 0) {
        rest += 86400000;
        days--;
    }
    date_from_days(days, &y, &m, &d);
    if (y < 0 || y > 9999) {
        memcpy(out, "9999-12-31T23:59:59.999Z", RFC3339_LEN);
        return out;
    }
    char text[64];
    snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", (int)y, m, d,
             (int)(rest / 3600000), (int)(rest / 60000 % 60), (int)(rest / 1000 % 60),
             (int)(rest % 1000));
    memcpy(out, text, RFC3339_LEN);
    return out;
}

static bool digits(const char **s, int n, int min, int max, int *ret)
{
    int v = 0;

    for (int i = 0; i < n; i++, (*s)++) {
        if (**s < '0' || **s > '9')
            return false;
        v = v * 10 + (**s - '0');
    }
    *ret = v;
    return v >= min && v <= max;
}

static bool literal(const char **s, char a, char b)
{
    if (**s != a && **s != b)
        return false;
    (*s)++;
    return true;
}

static int month_days(int y, int m)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

    return m == 2 && leap ? 29 : days[m - 1];
}

bool rfc3339_parse(const char *s, int64_t *ret_ms)
{
    int y, mo, d, h, mi, sec, oh = 0, om = 0, sign = 0;
    int64_t frac = 0;

    if (!s || !digits(&s, 4, 0, 9999, &y) || !literal(&s, '-', '-') || !digits(&s, 2, 1, 12, &mo) ||
        !literal(&s, '-', '-') || !digits(&s, 2, 1, month_days(y, mo), &d) ||
        !literal(&s, 'T', 't') || !digits(&s, 2, 0, 23, &h) || !literal(&s, ':', ':') ||
        !digits(&s, 2, 0, 59, &mi) || !literal(&s, ':', ':') || !digits(&s, 2, 0, 60, &sec))
        return false;
    if (*s == '.') {
        size_t n = strspn(++s, "0123456789");

        if (!n || n > 9)
            return false;
        for (size_t i = 0; i < 3; i++)
            frac = frac * 10 + (i < n ? s[i] - '0' : 0);
        s += n;
    }
    if (*s == '+' || *s == '-') {
        sign = *s++ == '+' ? 1 : -1;
        if (!digits(&s, 2, 0, 23, &oh) || !literal(&s, ':', ':') || !digits(&s, 2, 0, 59, &om))
            return false;
    } else if (!literal(&s, 'Z', 'z')) {
        return false;
    }
    if (*s)
        return false;
    *ret_ms = (days_from_date(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec -
               sign * (oh * 3600 + om * 60)) *
                  1000 +
              frac;
    return true;
}
