/* token_verify and token_kind on any bytes; a token that verifies is one that we signed. */
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/svc/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hmac *h;
    json_object *claims = NULL;
    char kind[32];

    if (!h)
        h = hmac_new((const uint8_t *)"fuzz", 4);
    if (token_verify(h, (const char *)data, size, &claims) == 0)
        json_put(claims);
    token_kind((const char *)data, size, kind, sizeof(kind));

    /* signed by us: verifies exactly if the input is a JSON object */
    char *token = token_sign(h, (const char *)data, size);
    json_object *o = NULL;
    bool object =
        json_parse((const char *)data, size, &o) == 0 && json_object_is_type(o, json_type_object);
    int r = token_verify(h, token, strlen(token), &claims);

    if (strlen(token) <= TOKEN_MAX && (r == 0) != object)
        abort();
    if (r == 0)
        json_put(claims);
    json_put(o);
    free(token);
    return 0;
}
