/*
 * The web UI's files. Read into a table at start; only exact names of the table are served, so no
 * path leaves the folder, and nothing on disk is touched later.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/base/b64.h"
#include "common/base/fsx.h"
#include "common/base/map.h"
#include "common/svc/token.h"
#include "gateway/http.h"

#define FILES_MAX (32U << 20)
#define DEPTH_MAX 8

struct file {
    char *data;
    size_t len;
    char etag[40];
    bool hashed; /* the name holds a hash of the content */
};

static struct map table;
static size_t total;

static const char *type_of(const char *path)
{
    static const struct {
        const char *end, *type;
    } types[] = {
        { ".html", "text/html; charset=utf-8" },
        { ".css", "text/css; charset=utf-8" },
        { ".js", "text/javascript; charset=utf-8" },
        { ".mjs", "text/javascript; charset=utf-8" },
        { ".svg", "image/svg+xml" },
        { ".png", "image/png" },
        { ".ico", "image/x-icon" },
        { ".woff2", "font/woff2" },
        { ".json", "application/json" },
        { ".webmanifest", "application/manifest+json" },
        { ".txt", "text/plain; charset=utf-8" },
    };

    for (size_t i = 0; i < N_ELEMS(types); i++)
        if (str_ends(path, types[i].end))
            return types[i].type;
    return "application/octet-stream";
}

/* "app.3f9a1c2b.js": a part of eight or more hex digits before the ending. */
static bool is_hashed(const char *path)
{
    const char *dot = strrchr(path, '.'), *p = dot;
    size_t n = 0;

    if (!dot)
        return false;
    while (p > path && p[-1] != '.' && p[-1] != '-' && p[-1] != '/')
        p--;
    for (const char *c = p; c < dot; c++, n++)
        if (!strchr("0123456789abcdef", *c))
            return false;
    return n >= 8 && p > path && p[-1] != '/';
}

static int add_file(int dir, const char *name, const char *path)
{
    struct file *f = xcalloc(1, sizeof(*f));
    uint8_t sum[32];
    char hex[65];
    int r = file_readat(dir, name, FILES_MAX - total, &f->data, &f->len);

    if (r) {
        free(f);
        return r;
    }
    total += f->len;
    sha256(f->data, f->len, sum);
    hex_encode(sum, sizeof(sum), hex);
    snprintf(f->etag, sizeof(f->etag), "\"%.32s\"", hex);
    f->hashed = is_hashed(path);
    map_put(&table, path, f);
    return 0;
}

static int add_dir(int fd, const char *prefix, int depth)
{
    DIR *d = fdopendir(fd);
    struct dirent *e;
    int r = 0;

    if (!d) {
        r = -errno;
        close(fd);
        return r;
    }
    while (!r && (e = readdir(d))) {
        char path[1024];
        struct stat st;

        if (e->d_name[0] == '.' || path_fmt(path, sizeof(path), "%s/%s", prefix, e->d_name) ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (S_ISREG(st.st_mode)) {
            r = add_file(dirfd(d), e->d_name, path);
        } else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

            r = sub < 0 ? -errno : add_dir(sub, path, depth + 1);
        }
    }
    closedir(d);
    return r;
}

int files_load(const char *root)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    return add_dir(fd, "", 0);
}

void files_serve(struct req *r)
{
    const char *path = r->path;
    const struct file *f, *gz = NULL;
    char extra[256], twin[1040];

    if (!strchr(path, '.'))
        path = "/index.html";
    f = map_get(&table, path);
    if (!f) {
        http_fail(r, 404, ATP_ENOTFOUND, NULL, "not found");
        return;
    }
    snprintf(twin, sizeof(twin), "%s.gz", path);
    if (r->gzip)
        gz = map_get(&table, twin);
    snprintf(extra, sizeof(extra), "ETag: %s\r\nCache-Control: %s\r\nVary: Accept-Encoding\r\n%s",
             f->etag, f->hashed ? "max-age=31536000, immutable" : "no-cache",
             gz ? "Content-Encoding: gzip\r\n" : "");
    if (str_eq(r->if_none_match, f->etag))
        http_answer_static(r, 304, "", extra, NULL, 0);
    else
        http_answer_static(r, 200, type_of(path), extra, gz ? gz->data : f->data,
                           gz ? gz->len : f->len);
}

void files_fini(void)
{
    size_t pos = 0;
    const char *key;
    void *v;

    while (map_each(&table, &pos, &key, &v)) {
        free(((struct file *)v)->data);
        free(v);
    }
    map_done(&table);
}
