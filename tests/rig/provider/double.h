#pragma once
/*
 * The model provider double: a real HTTP/1.1 server that speaks the wire formats of Anthropic
 * (Messages), OpenAI (chat completions, embeddings) and Ollama, answering from a script. See
 * README.md for the script. One thread per connection: everything in here may block.
 */
#include "common/base/buf.h"
#include "common/base/json.h"

#define REQUEST_MAX (64 * 1024 * 1024)

enum wire { WIRE_NONE, WIRE_ANTHROPIC, WIRE_OPENAI };

struct http_req {
    char method[8], path[512];
    json_object *headers; /* owned; names in lower case */
    char *body;           /* owned, NUL-terminated */
    size_t body_len;
    json_object *json; /* owned, NULL if the body is no JSON */
    bool keep_alive;
};

/* One answer on its way out. */
struct reply {
    int fd;
    long n;            /* number of the request */
    json_object *step; /* owned copy of the script's step */
    bool chunked;
    size_t sent;        /* body bytes written */
    long events;        /* stream events written */
    int64_t next_us;    /* when the next event is due, by mono_us */
    bool stop;          /* cut, or the client has gone: write nothing more */
    const char *result; /* for the log: "complete", "cut", "hangup", … */
    struct buf burst;   /* events held back when the step says burst */
};

/* script.c: the script, its state, and the request log. */
bool script_load(const char *path);
void script_reset(void); /* steps, match counters and gates start again */
bool script_log_open(const char *path);
/* The step for this request (owned copy, NULL: nothing matches) and its name for the log. */
json_object *script_pick(const struct http_req *q, char name[64]);
/* Number for the request; logged with what was received. */
long script_log_request(const struct http_req *q, const char *rule);
void script_log_end(const struct reply *r, int status);
/* A member of the script's top level, as an owned copy. */
json_object *script_get(const char *key);
/* Opens a gate by name. */
void script_release(const char *name);
/* Waits for the gate; false if the client hangs up meanwhile. */
bool script_wait(const char *name, int client_fd);

/* http.c: one connection from its first byte to its last. */
void http_serve(int fd);
/* Head of an answer. length < 0: chunked. extra: the step's headers, may be NULL. */
void http_head(struct reply *r, int status, const char *type, ssize_t length, json_object *extra);
/* Body bytes, honouring cut_bytes, chunked or not. */
void http_body(struct reply *r, const char *data, size_t len);
void http_end(struct reply *r);
/* One stream event (name NULL: data only), honouring gaps, gates and cuts. */
void http_event(struct reply *r, const char *name, const char *data);
/* A whole answer. */
void http_whole(struct reply *r, int status, const char *type, const char *body);

/* wire.c: what both formats share. */
/* Pieces of the step's text, an array of strings (owned). */
json_object *step_pieces(json_object *step);
/* Tool calls of the step with wire names and ids filled in (owned array). */
json_object *step_tools(json_object *step, long n, const char *prefix);
/* Argument text of a call, and its pieces. */
const char *tool_args(json_object *tool);
json_object *tool_pieces(json_object *tool);
/* A count of the step's usage; dflt when it has none. */
int64_t step_usage(json_object *step, const char *key, int64_t dflt);
bool step_has_usage(json_object *step);

/* anthropic.c, openai.c */
void anthropic_answer(struct reply *r, const struct http_req *q);
void anthropic_error(struct reply *r, int status, const char *type, const char *message);
void openai_answer(struct reply *r, const struct http_req *q);
void openai_error(struct reply *r, int status, const char *type, const char *code,
                  const char *message);
void openai_embeddings(struct reply *r, const struct http_req *q);

/* strict.c: refuses what the real servers refuse. NULL, or a static text (out is used for it). */
const char *strict_anthropic(const struct http_req *q, char out[256]);
const char *strict_openai(const struct http_req *q, char out[256]);
