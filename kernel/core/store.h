#pragma once
/*
 * The one SQLite file, <root>/data/avix.db. Two connections to it: DB_FULL (synchronous=FULL) for
 * what must outlive the machine before it is acknowledged, DB_NORMAL for the rest, which outlives
 * any crash of ours. Statements are cached by the address of their text, so sql must be a literal.
 *
 * Writing is sticky: db_begin, any number of db_run, then db_commit, which rolls back and gives the
 * first error if there was one. No transaction stays open across the event loop.
 *
 * Formats of bound values, one letter each: i int64_t, s const char * (NULL binds null), b const
 * void * and size_t, j json_object * as text (NULL binds null), I int64_t with 0 as null.
 */
#include <sqlite3.h>

#include "common/base/json.h"

enum db_conn { DB_FULL, DB_NORMAL };

/* One script per user_version, from 0 up. */
extern const char *const schema_scripts[];
extern const int schema_version;

/* Takes data/avix.lock, opens and migrates. 0, or an exit status after logging why. */
int store_open(const char *root);
void store_close(void);
/* PRAGMA quick_check; 0, or -EIO after logging what it said. */
int store_check(void);

void db_begin(enum db_conn c);
/* Runs one statement to its end. Outside a transaction it is one by itself. 0, ERR_NOSPC (disk
 * full), or -EIO after logging. */
int db_run(enum db_conn c, const char *sql, const char *fmt, ...);
/* Rows changed by the last db_run of this connection. */
int db_changed(enum db_conn c);
int db_commit(enum db_conn c);
void db_rollback(enum db_conn c);

/* Reading (on the NORMAL connection unless a transaction of the other is open): a bound statement
 * to step with db_row and to end with db_end, always. */
sqlite3_stmt *db_query(enum db_conn c, const char *sql, const char *fmt, ...);
bool db_row(sqlite3_stmt *q);
void db_end(sqlite3_stmt *q);
/* Column values; text is borrowed until the next step. NULL and 0 for null. */
const char *db_text(sqlite3_stmt *q, int col);
int64_t db_int(sqlite3_stmt *q, int col);
bool db_null(sqlite3_stmt *q, int col);
/* Parsed JSON text of a column, yours; NULL if null or unreadable. */
json_object *db_json(sqlite3_stmt *q, int col);
/* First column of the first row, dflt without one. */
int64_t db_int_of(const char *sql, int64_t dflt, const char *fmt, ...);
