/* avix client fs …: the VFS over ATP, long files in pieces of 1 MiB. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/client/cmd.h"
#include "common/base/b64.h"
#include "common/base/fsx.h"

#define PIECE (1 << 20)

int cmd_fs_ls(struct cli *c)
{
    static const struct column cols[] = {
        { "KIND", false }, { "SIZE", true }, { "MODIFIED", false }, { "NAME", false }
    };
    int exit = 0;
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    if (!a)
        return exit;
    json_object *all = json_new_arr();
    char cursor[4200] = "";
    do {
        json_object *body = json_make("path:s details:b", c->args[0], 1), *page = NULL;
        if (*cursor)
            json_add_str(body, "cursor", cursor);
        exit = atp_cmd(a, "fs", "list", body, &page);
        json_object *items = json_arr(page, "items");
        for (size_t i = 0; items && i < json_object_array_length(items); i++)
            json_push(all, json_object_get(json_object_array_get_idx(items, i)));
        str_copy(cursor, sizeof cursor, json_str(page, "next_cursor", ""));
        json_put(page);
    } while (!exit && *cursor);
    if (exit || c->json)
        return show(c, all, exit);
    struct table t;
    table_init(&t, cols, N_ELEMS(cols));
    for (size_t i = 0; i < json_object_array_length(all); i++) {
        json_object *o = json_object_array_get_idx(all, i);
        char size[32], at[40];
        snprintf(size, sizeof size, "%" PRId64, json_int(o, "size", 0));
        table_row(&t, (const char *[]){ json_str(o, "kind", ""),
                                        str_eq(json_str(o, "kind", ""), "dir") ? "-" : size,
                                        when_text(json_str(o, "modifiedAt", ""), at, sizeof at),
                                        json_str(o, "name", "") });
    }
    table_print(c, &t, "No entries.");
    table_done(&t);
    json_put(all);
    return EX_DONE;
}

/* Reads a file piece by piece into fd; the etag must stay the same. */
static int download(struct cli *c, struct atp *a, const char *path, int fd, int64_t *total)
{
    char etag[160] = "";
    *total = 0;
    for (;;) {
        json_object *o = NULL;
        int r = atp_cmd(a, "fs", "read",
                        json_make("path:s offset:i length:i encoding:s", path, *total,
                                  (int64_t)PIECE, "base64"),
                        &o);
        if (r)
            return r;
        const char *b64 = json_str(o, "content", ""), *tag = json_str(o, "etag", "");
        size_t len = 0;
        cleanup(freep) void *data = b64_decode_new(b64, strlen(b64), &len);
        bool eof = json_flag(o, "eof", true), changed = *etag && !str_eq(etag, tag);
        str_copy(etag, sizeof etag, tag);
        json_put(o);
        if (!data || changed)
            return cli_fail(c, EX_CONFLICT, "ECONFLICT", NULL, "%s: %s", path,
                            changed ? "changed while it was read; try again"
                                    : "the server sent no base64");
        r = write_all(fd, data, len);
        if (r)
            return r == -EPIPE ? EX_PIPE
                               : cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "write: %s", strerror(-r));
        *total += (int64_t)len;
        if (eof || len == 0)
            return EX_DONE;
    }
}

int cmd_fs_cat(struct cli *c)
{
    int exit = 0;
    int64_t n;
    if (c->json) {
        json_object *o = NULL;
        exit = simple(c, "fs", "read", json_make("path:s", c->args[0]), &o);
        return show(c, o, exit);
    }
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    return a ? download(c, a, c->args[0], 1, &n) : exit;
}

int cmd_fs_get(struct cli *c)
{
    int exit = 0;
    int64_t n = 0;
    const char *to = c->args[1];
    struct stat st;
    char tmp[4200];
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    if (!a)
        return exit;
    if ((stat(to, &st) == 0 && S_ISDIR(st.st_mode)) ||
        path_fmt(tmp, sizeof tmp, "%s.part-%d", to, (int)getpid()))
        return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: not a file name", to);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", tmp, strerror(errno));
    exit = download(c, a, c->args[0], fd, &n);
    if (fsync(fd) < 0 && !exit)
        exit = cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", to, strerror(errno));
    close(fd);
    if (!exit && rename(tmp, to) < 0)
        exit = cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", to, strerror(errno));
    if (exit)
        unlink(tmp);
    else if (c->json)
        printf("{\"path\":%s,\"bytes\":%" PRId64 "}\n",
               json_object_to_json_string(json_object_new_string(to)), n);
    else
        printf("%" PRId64 " bytes to %s\n", n, to);
    return exit;
}

int cmd_fs_put(struct cli *c)
{
    int exit = 0;
    const char *from = c->args[0], *path = c->args[1];
    cleanup(closep) int fd = strcmp(from, "-") == 0 ? dup(0) : open(from, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || S_ISDIR(st.st_mode))
        return cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", from,
                        fd < 0 ? strerror(errno) : "is a directory");
    cleanup(atp_closep) struct atp *a = atp_open(c, false, &exit);
    if (!a)
        return exit;
    cleanup(freep) char *piece = xmalloc(PIECE);
    json_object *last = NULL;
    int64_t total = 0;
    for (bool first = true;; first = false) {
        size_t have = 0;
        ssize_t n = 1;
        while (have < PIECE && (n = read(fd, piece + have, PIECE - have)) > 0)
            have += (size_t)n;
        if (n < 0) {
            exit = cli_fail(c, EX_LOCAL, "ELOCAL", NULL, "%s: %s", from, strerror(errno));
            break;
        }
        if (have == 0 && !first)
            break;
        cleanup(freep) char *b64 = b64_encode_new(piece, have);
        json_put(last);
        exit = atp_cmd(a, "fs", "write",
                       json_make("path:s content:s encoding:s mode:s", path, b64, "base64",
                                 first ? "overwrite" : "append"),
                       &last);
        if (exit)
            break;
        total += (int64_t)have;
        if (have < PIECE)
            break;
    }
    if (!exit && json_int(last, "size", -1) != total)
        exit = cli_fail(c, EX_CONFLICT, "ECONFLICT", NULL,
                        "%s: %" PRId64 " bytes sent, but the file has %" PRId64, path, total,
                        json_int(last, "size", -1));
    if (exit || c->json)
        return show(c, last, exit);
    printf("%" PRId64 " bytes to %s\n", total, path);
    json_put(last);
    return EX_DONE;
}

int cmd_fs_rm(struct cli *c)
{
    json_object *o = NULL;
    int exit =
        simple(c, "fs", "delete", json_make("path:s recursive:b", c->args[0], cli_has(c, "r")), &o);
    if (exit || c->json)
        return show(c, o, exit);
    printf("Deleted %s\n", c->args[0]);
    json_put(o);
    return EX_DONE;
}
