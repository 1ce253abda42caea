#pragma once
/* Calls as an agent of a rig, for the tests of files and executions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"
#include "tests/rig/rig.h"
#include "tests/rig/ws.h"

#define FS_TOOLS                                                                             \
    "fs/read fs/write fs/edit fs/list fs/stat fs/exists fs/delete fs/mkdir fs/move fs/copy " \
    "fs/glob fs/search kernel/fs/read kernel/fs/write exec/run exec/shell exec/python "      \
    "exec/js exec/runtimes sys/tools"

static struct rig *rig;
static char *token; /* an agent of admin, pid 5000 */

__attribute__((unused)) static int start(void **state)
{
    (void)state;
    rig = rig_new(NULL);
    token = rig_token(rig, FS_TOOLS, NULL);
    return 0;
}

__attribute__((unused)) static int stop(void **state)
{
    (void)state;
    free(token);
    rig_stop(rig);
    return 0;
}

/* The result, yours; a failure ends the test. */
__attribute__((unused)) static json_object *ok(const char *method, const char *params)
{
    struct ipc_reply r;
    json_object *o;

    if (rig_call(rig, token, method, params, &r))
        fail_msg("%s %.200s: %s", method, params, r.error.message);
    o = r.result;
    r.result = NULL;
    ipc_reply_done(&r);
    return o;
}

__attribute__((unused)) static void fine(const char *method, const char *params)
{
    json_put(ok(method, params));
}

/* The error; data goes to *data if that is not NULL (yours). */
__attribute__((unused)) static int refused_with(const char *method, const char *params,
                                                json_object **data)
{
    struct ipc_reply r;
    int err = rig_call(rig, token, method, params, &r);

    if (data)
        *data = json_object_get(r.error.data);
    ipc_reply_done(&r);
    return err;
}

__attribute__((unused)) static int refused(const char *method, const char *params)
{
    return refused_with(method, params, NULL);
}

/* The text of a file as the agent reads it; yours. */
__attribute__((unused)) static char *text_at(const char *path)
{
    cleanup(freep) char *p = xasprintf("{\"path\":\"%s\"}", path);
    json_object *o = ok("fs/read", p);
    char *s = xstrdup(json_str(o, "content", ""));

    json_put(o);
    return s;
}

__attribute__((unused)) static void assert_text(const char *path, const char *want)
{
    cleanup(freep) char *s = text_at(path);

    assert_string_equal(s, want);
}
