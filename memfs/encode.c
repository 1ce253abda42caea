/* Text stays text: a slice is cut at a character's border, and only what is no UTF-8 at all goes
 * out as base64. */
#include "memfs/encode.h"

#include "common/base/b64.h"
#include "common/base/err.h"

const char *const encoding_names[ENC_COUNT + 1] = { "auto", "utf-8", "base64", NULL };

int encode_choose(const char *data, size_t *n, bool eof, enum encoding want, enum encoding *ret)
{
    size_t whole = eof ? *n : utf8_floor(data, *n);

    *ret = ENC_BASE64;
    if (want == ENC_BASE64)
        return 0;
    if (utf8_valid(data, whole) && (whole || !*n)) {
        *n = whole;
        *ret = ENC_UTF8;
        return 0;
    }
    return want == ENC_AUTO ? 0 : ERR_INVAL;
}

int encode_add(struct buf *b, const char *data, size_t n, enum encoding e)
{
    if (e == ENC_UTF8)
        return buf_add_json_str(b, data, n);
    cleanup(freep) char *text = b64_encode_new(data, n);
    int r = buf_addc(b, '"');

    if (!r)
        r = buf_adds(b, text);
    return r ? r : buf_addc(b, '"');
}

int decode_content(const char *text, size_t len, enum encoding e, char **ret, size_t *ret_len)
{
    if (e == ENC_BASE64) {
        *ret = b64_decode_new(text, len, ret_len);
        return *ret ? 0 : ERR_INVAL;
    }
    *ret = xmalloc(len + 1);
    memcpy(*ret, text, len);
    (*ret)[len] = '\0';
    *ret_len = len;
    return 0;
}
