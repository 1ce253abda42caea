/*
 * Two connections in one thread: a commit on one is seen by the next statement on the other, and no
 * transaction lives longer than a callback, so they never wait for each other. Migrations run under
 * the lock file before anything else reads the database; a copy by VACUUM INTO is made first, so an
 * older program can be put back.
 */
#include "kernel/core/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/log.h"

#define STMT_MAX 256

struct conn {
    sqlite3 *db;
    bool txn;
    int err; /* first failure of the open transaction */
    struct {
        const char *sql;
        sqlite3_stmt *q;
    } cache[STMT_MAX];
    int n_cached;
};

static struct conn conns[2];
static int lock_fd = -1;

static int result(sqlite3 *db, int rc, const char *what)
{
    if (rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE)
        return 0;
    log_error("database: %s: %s", what, sqlite3_errmsg(db));
    return rc == SQLITE_FULL || (rc & 0xff) == SQLITE_FULL ? ERR_NOSPC : -EIO;
}

static int plain(sqlite3 *db, const char *sql)
{
    return result(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3_stmt *prepared(struct conn *c, const char *sql)
{
    for (int i = 0; i < c->n_cached; i++)
        if (c->cache[i].sql == sql)
            return c->cache[i].q;
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q, NULL) != SQLITE_OK)
        die(70, "database: %s: %s", sql, sqlite3_errmsg(c->db));
    if (c->n_cached == STMT_MAX)
        die(70, "database: too many statements");
    c->cache[c->n_cached].sql = sql;
    c->cache[c->n_cached++].q = q;
    return q;
}

static void bind_all(sqlite3_stmt *q, const char *fmt, va_list ap)
{
    int n = 1;
    for (; fmt && *fmt; fmt++, n++) {
        if (*fmt == 'i') {
            sqlite3_bind_int64(q, n, va_arg(ap, int64_t));
        } else if (*fmt == 'I') {
            int64_t v = va_arg(ap, int64_t);
            if (v)
                sqlite3_bind_int64(q, n, v);
            else
                sqlite3_bind_null(q, n);
        } else if (*fmt == 's') {
            const char *s = va_arg(ap, const char *);
            sqlite3_bind_text(q, n, s, -1, SQLITE_TRANSIENT);
        } else if (*fmt == 'j') {
            json_object *o = va_arg(ap, json_object *);
            sqlite3_bind_text(q, n, o ? json_text(o) : NULL, -1, SQLITE_TRANSIENT);
        } else if (*fmt == 'b') {
            const void *p = va_arg(ap, const void *);
            size_t len = va_arg(ap, size_t);
            sqlite3_bind_blob(q, n, p, (int)len, SQLITE_TRANSIENT);
        }
    }
}

void db_begin(enum db_conn c)
{
    conns[c].err = plain(conns[c].db, "BEGIN IMMEDIATE");
    conns[c].txn = conns[c].err == 0;
}

int db_run(enum db_conn c, const char *sql, const char *fmt, ...)
{
    struct conn *k = &conns[c];
    if (k->err)
        return k->err;
    sqlite3_stmt *q = prepared(k, sql);
    va_list ap;
    va_start(ap, fmt);
    bind_all(q, fmt, ap);
    va_end(ap);
    int rc;
    while ((rc = sqlite3_step(q)) == SQLITE_ROW)
        ;
    int r = result(k->db, rc, sql);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    if (r && k->txn)
        k->err = r;
    return r;
}

int db_changed(enum db_conn c)
{
    return sqlite3_changes(conns[c].db);
}

int db_commit(enum db_conn c)
{
    struct conn *k = &conns[c];
    int r = k->err;
    if (!r)
        r = plain(k->db, "COMMIT");
    if (r && k->txn && !sqlite3_get_autocommit(k->db))
        (void)sqlite3_exec(k->db, "ROLLBACK", NULL, NULL, NULL);
    k->txn = false;
    k->err = 0;
    return r;
}

void db_rollback(enum db_conn c)
{
    struct conn *k = &conns[c];
    if (k->txn && !sqlite3_get_autocommit(k->db))
        (void)sqlite3_exec(k->db, "ROLLBACK", NULL, NULL, NULL);
    k->txn = false;
    k->err = 0;
}

sqlite3_stmt *db_query(enum db_conn c, const char *sql, const char *fmt, ...)
{
    sqlite3_stmt *q = prepared(&conns[c], sql);
    va_list ap;
    va_start(ap, fmt);
    bind_all(q, fmt, ap);
    va_end(ap);
    return q;
}

bool db_row(sqlite3_stmt *q)
{
    int rc = sqlite3_step(q);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        (void)result(sqlite3_db_handle(q), rc, sqlite3_sql(q));
    return rc == SQLITE_ROW;
}

void db_end(sqlite3_stmt *q)
{
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
}

const char *db_text(sqlite3_stmt *q, int col)
{
    return (const char *)sqlite3_column_text(q, col);
}

int64_t db_int(sqlite3_stmt *q, int col)
{
    return sqlite3_column_int64(q, col);
}

bool db_null(sqlite3_stmt *q, int col)
{
    return sqlite3_column_type(q, col) == SQLITE_NULL;
}

json_object *db_json(sqlite3_stmt *q, int col)
{
    const char *s = db_text(q, col);
    json_object *o = NULL;
    if (!s || json_parse(s, strlen(s), &o))
        return NULL;
    return o;
}

int64_t db_int_of(const char *sql, int64_t dflt, const char *fmt, ...)
{
    sqlite3_stmt *q = prepared(&conns[DB_NORMAL], sql);
    va_list ap;
    va_start(ap, fmt);
    bind_all(q, fmt, ap);
    va_end(ap);
    int64_t v = db_row(q) ? db_int(q, 0) : dflt;
    db_end(q);
    return v;
}

static int user_version(sqlite3 *db)
{
    sqlite3_stmt *q = NULL;
    int v = -1;
    if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &q, NULL) == SQLITE_OK &&
        sqlite3_step(q) == SQLITE_ROW)
        v = sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    return v;
}

/* The copy gets its name by rename, so a half-made one is never taken for whole. */
static int keep_copy(sqlite3 *db, const char *path, int version)
{
    char to[512], part[520];
    if (path_fmt(to, sizeof to, "%s.v%d", path, version) ||
        path_fmt(part, sizeof part, "%s.part", to))
        return -ENAMETOOLONG;
    (void)unlink(part);
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(db, "VACUUM INTO ?", -1, &q, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_text(q, 1, part, -1, SQLITE_STATIC);
        rc = sqlite3_step(q);
    }
    sqlite3_finalize(q);
    int r = result(db, rc, "VACUUM INTO");
    if (!r && rename(part, to) < 0)
        r = -errno;
    if (!r)
        (void)chmod(to, 0600);
    return r;
}

static int migrate(sqlite3 *db, const char *path)
{
    int at = user_version(db);
    if (at < 0)
        return result(db, sqlite3_errcode(db), "reading user_version");
    if (at > schema_version) {
        log_error("%s was written by a newer Avix (version %d, this program knows %d)", path, at,
                  schema_version);
        return ERR_CONFIG;
    }
    if (at > 0 && at < schema_version) {
        int r = keep_copy(db, path, at);
        if (r)
            return r;
    }
    for (; at < schema_version; at++) {
        char set[48];
        snprintf(set, sizeof set, "PRAGMA user_version=%d", at + 1);
        int r = plain(db, "BEGIN IMMEDIATE");
        if (!r)
            r = plain(db, schema_scripts[at]);
        if (!r)
            r = plain(db, set);
        if (!r)
            r = plain(db, "COMMIT");
        if (r)
            return r;
    }
    return 0;
}

static int open_one(struct conn *c, const char *path, const char *sync)
{
    int rc = sqlite3_open_v2(path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (rc != SQLITE_OK)
        return result(c->db, rc, path);
    sqlite3_extended_result_codes(c->db, 0);
    int r = plain(c->db, "PRAGMA journal_mode=WAL");
    if (!r)
        r = plain(c->db, sync);
    if (!r)
        r = plain(c->db, "PRAGMA foreign_keys=ON");
    if (!r)
        r = plain(c->db, "PRAGMA busy_timeout=5000");
    return r;
}

int store_open(const char *root)
{
    char path[512], lock[512];
    if (path_fmt(path, sizeof path, "%s/data/avix.db", root) ||
        path_fmt(lock, sizeof lock, "%s/data/avix.lock", root)) {
        log_error("%s: path too long", root);
        return 78;
    }
    lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock_fd < 0 || flock(lock_fd, LOCK_EX | LOCK_NB) < 0) {
        log_error("%s: %s", lock,
                  errno == EWOULDBLOCK ? "held by another kernel" : strerror(errno));
        return 75;
    }
    int r = open_one(&conns[DB_FULL], path, "PRAGMA synchronous=FULL");
    if (!r)
        r = migrate(conns[DB_FULL].db, path);
    if (!r)
        r = open_one(&conns[DB_NORMAL], path, "PRAGMA synchronous=NORMAL");
    if (r) {
        log_error("%s cannot be used: %s", path, r > 0 ? err_text(r) : strerror(-r));
        store_close();
        return r == ERR_CONFIG ? 78 : 74;
    }
    return 0;
}

void store_close(void)
{
    for (int i = 0; i < 2; i++) {
        struct conn *c = &conns[i];
        for (int k = 0; k < c->n_cached; k++)
            sqlite3_finalize(c->cache[k].q);
        sqlite3_close(c->db);
        memset(c, 0, sizeof *c);
    }
    closep(&lock_fd);
    lock_fd = -1;
}

int store_check(void)
{
    sqlite3_stmt *q = db_query(DB_NORMAL, "PRAGMA quick_check(10)", "");
    int r = 0;
    while (db_row(q)) {
        const char *s = db_text(q, 0);
        if (!str_eq(s, "ok")) {
            log_error("database: %s", s ? s : "?");
            r = -EIO;
        }
    }
    db_end(q);
    return r;
}
