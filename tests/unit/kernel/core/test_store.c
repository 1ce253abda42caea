/* The database: schema, sticky transactions, migrations, the lock, a newer file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/fsx.h"
#include "common/base/log.h"
#include "kernel/core/store.h"

static char root[64];

static int setup(void **state)
{
    char data[96];
    (void)state;
    log_init("test", false, LOG_ERROR);
    snprintf(root, sizeof root, "/tmp/kernel-store-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(data, sizeof data, "%s/data", root);
    return mkdir(data, 0700);
}

static int teardown(void **state)
{
    (void)state;
    store_close();
    return rm_rf(root);
}

static void add_session(enum db_conn c, const char *id)
{
    (void)db_run(c,
                 "INSERT INTO sessions(id, title, goal, username, spawned_at, last_updated, status,"
                 " origin_agent, primary_agent, participants, owner_pid) "
                 "VALUES(?,'t','g','alice',1,1,'running','a','a','[]',100)",
                 "s", id);
}

static void opens_and_migrates(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    assert_int_equal(db_int_of("PRAGMA user_version", -1, ""), schema_version);
    assert_int_equal(db_int_of("SELECT CAST(v AS INTEGER) FROM meta WHERE k='next_pid'", 0, ""),
                     100);
    assert_int_equal(store_check(), 0);
    store_close();
    assert_int_equal(store_open(root), 0);
}

/* A database of the first version keeps its rows, and a copy of it stays. */
static void the_first_version_is_migrated(void **state)
{
    char copy[96];
    (void)state;
    assert_int_equal(store_open(root), 0);
    add_session(DB_FULL, "s1");
    assert_int_equal(db_run(DB_FULL, "DROP TABLE inputs", ""), 0);
    assert_int_equal(db_run(DB_FULL, "ALTER TABLE processes DROP COLUMN restart_log", ""), 0);
    assert_int_equal(db_run(DB_FULL, "PRAGMA user_version=1", ""), 0);
    store_close();
    assert_int_equal(store_open(root), 0);
    assert_int_equal(db_int_of("PRAGMA user_version", -1, ""), schema_version);
    assert_int_equal(db_int_of("SELECT count(*) FROM inputs", -1, ""), 0);
    assert_int_equal(db_int_of("SELECT count(restart_log) FROM processes", -1, ""), 0);
    assert_int_equal(db_int_of("SELECT count(*) FROM sessions", -1, ""), 1);
    snprintf(copy, sizeof copy, "%s/data/avix.db.v1", root);
    assert_int_equal(access(copy, F_OK), 0);
}

static void first_error_sticks(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    db_begin(DB_FULL);
    add_session(DB_FULL, "s1");
    assert_int_equal(db_run(DB_FULL, "UPDATE sessions SET status='nonsense' WHERE id='s1'", ""),
                     -5);
    add_session(DB_FULL, "s2");
    assert_int_equal(db_commit(DB_FULL), -5);
    assert_int_equal(db_int_of("SELECT count(*) FROM sessions", -1, ""), 0);
    db_begin(DB_FULL);
    add_session(DB_FULL, "s3");
    assert_int_equal(db_commit(DB_FULL), 0);
    assert_int_equal(db_int_of("SELECT count(*) FROM sessions", -1, ""), 1);
}

static void both_connections_see_commits(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    db_begin(DB_FULL);
    add_session(DB_FULL, "s1");
    assert_int_equal(db_commit(DB_FULL), 0);
    assert_int_equal(db_run(DB_NORMAL, "UPDATE sessions SET title='x' WHERE id='s1'", ""), 0);
    sqlite3_stmt *q = db_query(DB_FULL, "SELECT title FROM sessions WHERE id=?", "s", "s1");
    assert_true(db_row(q));
    assert_string_equal(db_text(q, 0), "x");
    db_end(q);
}

static void binds_every_kind(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    cleanup(json_putp) json_object *o = json_make("a:i", (int64_t)7);
    sqlite3_stmt *q = db_query(DB_NORMAL, "SELECT ?, ?, ?, ?, ?, length(?)", "iIIsjb", (int64_t)5,
                               (int64_t)0, (int64_t)6, NULL, o, "abc", (size_t)3);
    assert_true(db_row(q));
    assert_int_equal(db_int(q, 0), 5);
    assert_true(db_null(q, 1));
    assert_int_equal(db_int(q, 2), 6);
    assert_true(db_null(q, 3));
    cleanup(json_putp) json_object *back = db_json(q, 4);
    assert_int_equal(json_int(back, "a", 0), 7);
    assert_int_equal(db_int(q, 5), 3);
    db_end(q);
}

static void newer_file_is_refused(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    assert_int_equal(db_run(DB_FULL, "PRAGMA user_version=99", ""), 0);
    store_close();
    assert_int_equal(store_open(root), 78);
}

static void second_kernel_is_refused(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    pid_t pid = fork();
    if (pid == 0) {
        /* a fresh open of the lock file: flock is per open file */
        char lock[128];
        snprintf(lock, sizeof lock, "flock -n %s/data/avix.lock true", root);
        execl("/bin/sh", "sh", "-c", lock, (char *)NULL);
        _exit(99);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 1);
}

static void session_delete_cascades(void **state)
{
    (void)state;
    assert_int_equal(store_open(root), 0);
    db_begin(DB_FULL);
    add_session(DB_FULL, "s1");
    (void)db_run(DB_FULL,
                 "INSERT INTO invocations(id, session_id, pid, agent_name, username, goal, model, "
                 "one_shot, spawned_at, status) VALUES('i1','s1',100,'a','alice','g','m',0,1,"
                 "'running')",
                 "");
    assert_int_equal(db_commit(DB_FULL), 0);
    assert_int_equal(db_run(DB_FULL, "DELETE FROM sessions WHERE id='s1'", ""), 0);
    assert_int_equal(db_int_of("SELECT count(*) FROM invocations", -1, ""), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_first_version_is_migrated), T(opens_and_migrates),      T(first_error_sticks),
        T(both_connections_see_commits),  T(binds_every_kind),        T(newer_file_is_refused),
        T(second_kernel_is_refused),      T(session_delete_cascades),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
