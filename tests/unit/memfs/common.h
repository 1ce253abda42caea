#pragma once
/* A private AVIX_ROOT for the tests of memfs, and callers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fsx.h"
#include "memfs/ns.h"
#include "memfs/perm.h"

static char root[128];

__attribute__((unused)) static void host_path(char out[512], const char *rel)
{
    assert_int_equal(path_fmt(out, 512, "%s/%s", root, rel), 0);
}

__attribute__((unused)) static void host_write(const char *rel, const char *text)
{
    char path[512], *slash;

    host_path(path, rel);
    slash = strrchr(path, '/');
    *slash = '\0';
    assert_int_equal(mkdir_p(path, 0700), 0);
    *slash = '/';
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

__attribute__((unused)) static char *host_read(const char *rel)
{
    char path[512], *text = NULL;
    size_t n;

    host_path(path, rel);
    return file_read(path, 1 << 20, &text, &n) ? NULL : text;
}

__attribute__((unused)) static void host_mkdir(const char *rel)
{
    char path[512];

    host_path(path, rel);
    assert_int_equal(mkdir_p(path, 0700), 0);
}

__attribute__((unused)) static void host_link(const char *to, const char *rel)
{
    char path[512];

    host_path(path, rel);
    unlink(path);
    assert_int_equal(symlink(to, path), 0);
}

__attribute__((unused)) static int root_setup(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "%s/memfs-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(root))
        return -1;
    host_mkdir("data/users/alice/workspace");
    host_mkdir("data/users/bob/workspace");
    host_mkdir("data/crews/lab/shared/open");
    host_write("etc/crews.yaml", "apiVersion: avix/v1\nkind: Crews\nspec:\n  crews:\n"
                                 "    - name: lab\n      sharedPaths: [/crews/lab/shared/open]\n"
                                 "    - name: all\n");
    perm_init(root);
    return ns_init(root);
}

__attribute__((unused)) static int root_teardown(void **state)
{
    (void)state;
    ns_done();
    return rm_rf(root);
}

__attribute__((unused)) static struct caller who_is(enum caller_kind kind, const char *name,
                                                    enum role role, int64_t pid)
{
    return (struct caller){ .kind = kind,
                            .pid = pid,
                            .user = kind == CALLER_SERVICE ? "" : name,
                            .service = kind == CALLER_SERVICE ? name : "",
                            .role = role,
                            .agent = "",
                            .session_id = "",
                            .atp_session = "",
                            .tool = "",
                            .call_id = "",
                            .token = "" };
}

/* A place; from a static ring, because it points into itself. */
__attribute__((unused)) static const struct loc *at(const char *path)
{
    static struct loc ring[8];
    static unsigned next;
    struct loc *l = &ring[next++ % 8];

    assert_int_equal(ns_locate(path, strlen(path), l), 0);
    return l;
}
