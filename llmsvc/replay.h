#pragma once
/*
 * Answers that come from no network: canned chunks, from the builtin rules or from a cassette
 * (llm page, section 15), and the cassettes themselves.
 */
#include "llmsvc/conf.h"
#include "llmsvc/fault.h"
#include "llmsvc/shape.h"

struct lcall;
struct canned;

/* Plays chunks ({ms, chunk} rows, taken) into the call's answer, then ends it: with a recorded
 * result (taken, may be NULL) or the call's fault. timing: 0 at once, else a factor. */
void canned_start(struct lcall *l, json_object *chunks, json_object *result, bool failed,
                  double timing);
void canned_pause(struct canned *c, bool paused);
void canned_free(struct canned *c);

/* Key of a request: hex SHA-256 of its canonical form. normal (may be NULL) receives that form
 * (owned by the caller). */
void replay_key(const struct lreq *q, const char *model, const char *tool,
                const struct replay_conf *c, char key[65], json_object **normal);

/* A cassette, loaded once per file and kept. NULL with *why (static) when it cannot be read. */
struct tape;
struct tape *tape_open(const char *root, const struct replay_conf *c, const char **why);
void tapes_close(void);
/* The line to play for a key: the next in order, the last again and again; borrowed. NULL: none. */
json_object *tape_next(struct tape *t, const char *key);
/* {n, differs:[paths]} of the line nearest to the request, owned; NULL for an empty tape. */
json_object *tape_nearest(struct tape *t, json_object *normal);
/* Appends a line (taken) with fdatasync. 0 or -errno. */
int tape_append(struct tape *t, const char *key, json_object *line);
/* Starts the attempt of a call whose provider is of kind replay: plays, or goes on to record. */
void replay_attempt(struct lcall *l);
/* A recording under way: chunks and the end. */
struct tape_rec;
void tape_rec_chunk(struct tape_rec *r, const char *json, size_t len);
void tape_rec_end(struct lcall *l, json_object *result, const struct fault *f);
void tape_rec_free(struct tape_rec *r);
