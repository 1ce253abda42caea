/*
 * The replay provider in a call: a hit plays its line; in the modes record and auto the call goes
 * on to the provider that is wrapped, and what comes back is written down.
 */
#include "common/base/clock.h"
#include "llmsvc/core.h"

struct tape_rec {
    struct tape *tape;
    char key[65];
    json_object *request, *chunks;
    int64_t began;
    char model[192];
};

void tape_rec_free(struct tape_rec *r)
{
    json_put(r->request);
    json_put(r->chunks);
    free(r);
}

void tape_rec_chunk(struct tape_rec *r, const char *json, size_t len)
{
    json_object *o = NULL;

    if (!json_parse(json, len, &o) && json_object_array_length(r->chunks) < 200000)
        json_push(r->chunks, json_make("ms:i chunk:o", mono_ms() - r->began, o));
    else
        json_put(o);
}

/* Strings that look like keys, and members named in redact, are masked. */
static void scrub(json_object *o, json_object *redact)
{
    if (json_object_is_type(o, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(o); i++)
            scrub(json_object_array_get_idx(o, i), redact);
    } else if (json_object_is_type(o, json_type_object)) {
        json_object_object_foreach (o, k, v) {
            if (redact && json_arr_has(redact, k) && json_object_is_type(v, json_type_string))
                json_object_set_string(v, "***");
            else
                scrub(v, redact);
        }
    } else if (json_object_is_type(o, json_type_string)) {
        size_t n = strlen(json_object_get_string(o)) + 16;
        cleanup(freep) char *out = xmalloc(n);

        mask_secrets(out, n, json_object_get_string(o));
        if (!str_eq(out, json_object_get_string(o)))
            json_object_set_string(o, out);
    }
}

void tape_rec_end(struct lcall *l, json_object *result, const struct fault *f)
{
    struct tape_rec *r = TAKE(l->rec);
    static int64_t n;
    char at[RFC3339_LEN];
    json_object *line = json_make("v:i key:s n:i at:s provider:s model:s tool:s request:o chunks:o",
                                  (int64_t)1, r->key, ++n, rfc3339(now_ms(), at), l->conf->name,
                                  r->model, l->stream ? "llm/stream_complete" : "llm/complete",
                                  TAKE(r->request), TAKE(r->chunks));

    if (result)
        json_add(line, "result", json_dup(result));
    if (f)
        json_add(line, "error",
                 json_make("code:i errno:s message:s data:o", (int64_t)err_code(f->err),
                           err_name(f->err), f->message,
                           fault_data(f, l->conf->name, l->attempts)));
    static const char *const parts[] = { "request", "chunks", "result", "error" };
    for (size_t i = 0; i < N_ELEMS(parts); i++)
        scrub(json_get(line, parts[i]), l->gen->conf->provs[l->tape_prov].replay.redact);
    int e = tape_append(r->tape, r->key, line);
    if (e)
        log_error("cassette: %s", strerror(-e));
    tape_rec_free(r);
}

static void play(struct lcall *l, json_object *line)
{
    json_object *e = json_obj(line, "error"), *result = json_obj(line, "result");

    if (e) {
        l->fault.err = err_from_name(json_str(e, "errno", ""));
        if (!l->fault.err)
            l->fault.err = err_from_code((int)json_int(e, "code", 0));
        str_copy(l->fault.message, sizeof l->fault.message, json_str(e, "message", ""));
        json_object *d = json_obj(e, "data");
        l->fault.status = (int)json_int(d, "status", 0);
        str_copy(l->fault.type, sizeof l->fault.type, json_str(d, "type", ""));
        if (json_get(d, "retry_after"))
            l->fault.retry_after_ms = json_int(d, "retry_after", 0) * 1000;
    } else {
        const char *stop = json_str(result, "stop_reason", "end_turn");

        for (int s = STOP_END; s <= STOP_SEQUENCE; s++)
            if (str_eq(stop, stop_name((enum stop)s)))
                l->ans.stop = (enum stop)s;
        l->ans.in = json_int(result, "input_tokens", 0);
        l->ans.out = json_int(result, "output_tokens", 0);
        l->ans.have_in = l->ans.have_out = true;
    }
    canned_start(l, json_get(line, "chunks") ? json_dup(json_get(line, "chunks")) : NULL,
                 result ? json_dup(result) : NULL, e != NULL, l->conf->replay.timing);
}

static void record(struct lcall *l, struct tape *t, const char *key, json_object *request)
{
    const struct prov_conf *w = conf_prov(l->gen->conf, l->conf->replay.wraps);
    const char *model = NULL;
    struct tape_rec *r = xcalloc(1, sizeof *r);

    r->tape = t;
    str_copy(r->key, sizeof r->key, key);
    str_copy(r->model, sizeof r->model, l->target.model);
    r->request = json_object_get(request);
    r->chunks = json_new_arr();
    r->began = mono_ms();
    l->rec = r;
    l->tape_prov = (size_t)(l->conf - l->gen->conf->provs);
    /* from here on the call is the wrapped provider's */
    l->conf = w;
    l->prov = l->gen->provs[w - l->gen->conf->provs];
    model = conf_model(w, l->target.model) || !w->n_models ? l->target.model
                                                           : conf_default_model(w, MOD_TEXT);
    l->target.p = w;
    l->target.m = model ? conf_model(w, model) : NULL;
    if (model && model != l->target.model)
        str_copy(l->target.model, sizeof l->target.model, model);
    l->tries--;
    l->attempts--;
    call_attempt(l);
}

void replay_attempt(struct lcall *l)
{
    const struct replay_conf *c = &l->conf->replay;
    cleanup(json_putp) json_object *normal = NULL;
    const char *why = "";
    char key[65];
    struct tape *t = tape_open(svc.root, c, &why);

    if (!t) {
        fault_set(&l->fault, ERR_REPLAY, "%s: %s", l->conf->name, why);
        canned_start(l, NULL, NULL, true, 0);
        return;
    }
    replay_key(&l->req, l->target.model, l->stream ? "llm/stream_complete" : "llm/complete", c, key,
               &normal);
    json_object *line = c->mode == REPLAY_RECORD ? NULL : tape_next(t, key);
    if (line) {
        play(l, line);
    } else if (c->mode != REPLAY_REPLAY) {
        record(l, t, key, normal);
    } else {
        fault_set(&l->fault, ERR_REPLAY, "%s: the cassette has no such request", l->conf->name);
        l->fault.extra = json_make("key:s nearest:o", key, tape_nearest(t, normal));
        canned_start(l, NULL, NULL, true, 0);
    }
}
