/* Log lines. A line is built in memory and goes out in one write(2), so lines of several processes
 * on one pipe do not mix. */
#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>

#include "common/base/buf.h"
#include "common/base/clock.h"

#define LINE_MAX_BYTES 16000 /* init splits lines over 16 KiB */

static struct {
    const char *unit;
    bool json;
    enum log_level level;
} conf = { "avix", false, LOG_INFO };
static const char *const names[] = { "error", "warn", "info", "debug" };

void log_init(const char *unit, bool json, enum log_level level)
{
    conf.unit = unit;
    conf.json = json;
    conf.level = level;
}

void log_set_level(enum log_level level)
{
    conf.level = level;
}

enum log_level log_level(void)
{
    return conf.level;
}

bool log_level_parse(const char *s, enum log_level *ret)
{
    for (size_t i = 0; s && i < N_ELEMS(names); i++)
        if (strcmp(s, names[i]) == 0) {
            *ret = (enum log_level)i;
            return true;
        }
    return false;
}

__attribute__((format(printf, 3, 0))) static void emit(enum log_level level, const char *fields,
                                                       const char *fmt, va_list ap)
{
    struct buf b;
    char ts[RFC3339_LEN], msg[8192];
    int saved = errno;

    if (level > conf.level)
        return;
    buf_init(&b, LINE_MAX_BYTES * 8);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    rfc3339(now_ms(), ts);
    if (conf.json) {
        buf_printf(&b, "{\"ts\":\"%s\",\"level\":\"%s\",\"unit\":", ts, names[level]);
        buf_add_json_str(&b, conf.unit, strlen(conf.unit));
        buf_adds(&b, ",\"msg\":");
        buf_add_json_str(&b, msg, strlen(msg));
        if (fields && strlen(fields) < LINE_MAX_BYTES / 2)
            buf_printf(&b, ",\"fields\":%s", fields);
        buf_adds(&b, "}\n");
    } else {
        /* text goes to a terminal: nothing in a message may start a new line or an escape */
        for (char *p = msg; *p; p++)
            if ((unsigned char)*p < 0x20 || *p == 0x7F)
                *p = ' ';
        buf_printf(&b, "%s: %s%s%s\n", conf.unit, msg, fields ? " " : "", fields ? fields : "");
    }
    ssize_t n;
    do
        n = write(STDERR_FILENO, b.data, b.len);
    while (n < 0 && errno == EINTR);
    buf_done(&b);
    errno = saved;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    emit(level, NULL, fmt, ap);
    va_end(ap);
}

void log_fields(enum log_level level, const char *fields_json, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    emit(level, fields_json, fmt, ap);
    va_end(ap);
}

void die(int status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    emit(LOG_ERROR, NULL, fmt, ap);
    va_end(ap);
    exit(status);
}
