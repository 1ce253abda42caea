#pragma once
/* What every test of this room begins with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/json.h"

/* JSON text with ' for ", parsed; yours. */
static inline json_object *js(const char *text)
{
    char *t = xstrdup(text);
    json_object *o = NULL;

    for (char *p = t; *p; p++)
        if (*p == '\'')
            *p = '"';
    assert_int_equal(json_parse(t, strlen(t), &o), 0);
    free(t);
    return o;
}
