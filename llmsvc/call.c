/*
 * One completion on its way out: parse, route, admit, reserve, attempt. Every step may wait, and
 * the caller may hang up at any point: then what is under way is cancelled and what was used is
 * recorded.
 */
#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "llmsvc/answers.h"
#include "llmsvc/builtin.h"
#include "llmsvc/core.h"

#define DEADLINE_MS    600000
#define MAX_TOKENS     4096
#define REQUEST_TOP    (32 * 1024 * 1024)
#define RATE_WAIT_LONG 10000

void call_chunk(const char *json, size_t len, void *arg)
{
    struct lcall *l = arg;
    cleanup(buf_done) struct buf b = BUF_INIT(2 * ANSWER_MAX);
    const char *id = l->c ? call_id(l->c) : "";

    if (l->rec)
        tape_rec_chunk(l->rec, json, len);
    if (!l->c || !l->stream)
        return;
    buf_adds(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"llm.stream.chunk\",\"params\":{\"stream_id\":");
    buf_add_json_str(&b, id, strlen(id));
    buf_adds(&b, ",\"chunk\":");
    buf_add(&b, json, len);
    buf_adds(&b, "}}");
    if (call_note_text(l->c, b.data, b.len))
        l->slow = true;
}

bool prov_up(size_t i, void *gen)
{
    const struct gen *g = gen;

    return strcmp(prov_status(g->provs[i], &g->conf->provs[i], mono_ms()), "unavailable") != 0;
}

int64_t cost_micro(const struct model_conf *m, int64_t in, int64_t out, int64_t cache_read,
                   int64_t cache_write)
{
    if (!m || !m->priced)
        return -1;
    double plain = (double)(in - cache_read - cache_write);

    return (int64_t)((plain > 0 ? plain : 0) * m->price_in + (double)out * m->price_out +
                     (double)cache_read * m->price_cache_read +
                     (double)cache_write * m->price_cache_write + 0.5);
}

static void on_drain(void *arg)
{
    struct lcall *l = arg;

    l->slow = false;
    if (l->http)
        http_pause(l->http, false);
    else if (l->canned)
        canned_pause(l->canned, false);
}

void call_flush(struct lcall *l)
{
    answer_flush(&l->ans);
    if (!l->slow)
        return;
    if (l->http)
        http_pause(l->http, true);
    else if (l->canned)
        canned_pause(l->canned, true);
    call_on_drain(l->c, on_drain, l);
}

/* --- an attempt over HTTP --- */

static int on_event(const char *event, const char *data, size_t len, void *arg)
{
    struct lcall *l = arg;

    return wire_of(l->conf->kind)->event(&l->dec, event, data, len);
}

static bool streams(const struct lcall *l, const struct http_head *h)
{
    return l->stream && h->status == 200 && !str_starts(h->content_type, "application/json");
}

static int on_body(const struct http_head *h, const char *data, size_t len, void *arg)
{
    struct lcall *l = arg;

    if (streams(l, h))
        return sse_feed(l->sse, data, len);
    return buf_add(&l->whole, data, len) ? wire_bad(&l->dec, "the answer is too long") : 0;
}

static void on_extended(int err, int weight, const struct rpc_error *e, void *arg)
{
    struct lcall *l = arg;

    (void)weight;
    l->reserve = NULL;
    if (err != ERR_QUOTA)
        return;
    fault_set(&l->fault, ERR_QUOTA, "%s", e ? e->message : "the budget is spent");
    l->fault.scope = "user";
    l->fault.partial = answer_partial(&l->ans);
    l->cut = true;
    if (l->http)
        http_cancel(TAKE(l->http));
    call_bad(l);
}

static void usage_row(const struct lcall *l, struct usage_row *r)
{
    memset(r, 0, sizeof *r);
    str_copy(r->call_id, sizeof r->call_id, l->call_id);
    str_copy(r->username, sizeof r->username, l->user);
    str_copy(r->provider, sizeof r->provider, l->conf->name);
    str_copy(r->model, sizeof r->model, l->target.model);
    r->modality = modality_names[MOD_TEXT];
    r->pid = l->pid;
    r->cost_micro = -1;
}

/* A stream that outgrew its reservation asks for more; a refusal cuts it. */
static void extend(struct lcall *l)
{
    int64_t used =
        (l->ans.have_in ? l->ans.in : lreq_estimate(&l->req)) + (int64_t)l->ans.bytes / 4;
    struct usage_row row;

    if (!l->reserved || l->reserve || used <= l->reserved_tokens)
        return;
    l->reserved_tokens = used * 2;
    usage_row(l, &row);
    l->reserve =
        account_extend(&row, l->reserved_tokens,
                       cost_micro(l->target.m, lreq_estimate(&l->req), l->reserved_tokens, 0, 0),
                       l->deadline - mono_ms(), on_extended, l);
}

static void on_batch(void *arg)
{
    struct lcall *l = arg;

    call_flush(l);
    extend(l);
}

static void transport_fault(struct lcall *l, enum http_end end, const char *why)
{
    struct fault *f = &l->fault;

    if (end == HTTP_STOPPED && f->err)
        return;
    if (end == HTTP_TIMEOUT)
        fault_set(f, ERR_PROVTIMEOUT, "%s: %s", l->conf->name, why);
    else if (end == HTTP_BROKEN && l->ans.n)
        fault_set(f, ERR_PROVPROTO, "%s: the stream was cut off (%s)", l->conf->name, why);
    else
        fault_set(f, ERR_PROVDOWN, "%s: %s", l->conf->name, why);
    f->retry = end == HTTP_CONNECT || end == HTTP_BROKEN;
}

static void take_whole(struct lcall *l)
{
    cleanup(json_putp) json_object *body = NULL;

    if (!l->whole.len || json_parse(l->whole.data, l->whole.len, &body) ||
        !json_object_is_type(body, json_type_object))
        wire_bad(&l->dec, "the answer is no JSON");
    else
        (void)wire_of(l->conf->kind)->whole(&l->dec, body);
}

static void on_done(enum http_end end, const struct http_head *h, const char *why, void *arg)
{
    struct lcall *l = arg;
    struct fault_head fh = { h->retry_after, h->retry_after_ms, h->request_id, h->should_retry };

    l->http = NULL;
    if (end != HTTP_OK) {
        transport_fault(l, end, why);
    } else if (h->status >= 300 || h->status < 200) {
        fault_from_http(&l->fault, l->conf, h->status, &fh, l->whole.data ? l->whole.data : "",
                        l->whole.len, now_ms());
        if (l->fault.err == ERR_MODEL && !l->conf->n_models)
            str_copy(l->fault.type, sizeof l->fault.type, "not_found");
    } else if (streams(l, h)) {
        (void)wire_of(l->conf->kind)->end(&l->dec);
    } else {
        take_whole(l);
    }
    if (*h->request_id)
        str_copy(l->ans.request_id, sizeof l->ans.request_id, h->request_id);
    if (!*l->fault.request_id)
        str_copy(l->fault.request_id, sizeof l->fault.request_id, l->ans.request_id);
    if (l->fault.err)
        call_bad(l);
    else
        call_good(l);
}

static void add_header(struct lcall *l, char *line_give)
{
    if (l->n_head_extra < N_ELEMS(l->head_extra))
        l->head_extra[l->n_head_extra++] = line_give;
    else
        free(line_give);
}

static void make_headers(struct lcall *l)
{
    while (l->n_head_extra)
        free(l->head_extra[--l->n_head_extra]);
    add_header(l, xstrdup("content-type: application/json"));
    if (l->stream)
        add_header(l, xstrdup("accept: text/event-stream"));
    if (l->conf->kind == KIND_ANTHROPIC)
        add_header(l, xstrdup("anthropic-version: 2023-06-01"));
    if (l->conf->headers) {
        json_object_object_foreach (l->conf->headers, key, value) {
            const char *v = json_object_get_string(value);
            if (!strpbrk(key, ": \r\n") && v && !strpbrk(v, "\r\n"))
                add_header(l, xasprintf("%s: %s", key, v));
        }
    }
}

static void http_attempt(struct lcall *l)
{
    static const struct http_cb cb = { .body = on_body, .batch = on_batch, .done = on_done };
    const struct wire *w = wire_of(l->conf->kind);
    const char *headers[N_ELEMS(l->head_extra) + 1], *why = "";
    char path[128], url[700];
    int64_t left = l->deadline - mono_ms();

    buf_clear(&l->body);
    int e = w->build(&l->req, &l->target, l->stream, &l->body, &why);
    if (e) {
        fault_set(&l->fault, e, "%s: %s", l->conf->name,
                  e == ERR_TOOBIG ? "the request is too large" : why);
        call_bad(l);
        return;
    }
    w->path(l->conf, path, sizeof path);
    wire_url(l->conf, path, url, sizeof url);
    make_headers(l);
    size_t n = 0;
    for (; n < l->n_head_extra; n++)
        headers[n] = l->head_extra[n];
    secret_unref(l->key);
    l->key = secret_ref(l->prov->header);
    if (l->key)
        headers[n++] = l->key->text;
    struct http_req q = { .url = url,
                          .post = l->body.data,
                          .post_len = l->body.len,
                          .headers = headers,
                          .n_headers = n,
                          .connect_ms = l->conf->connect_ms,
                          .first_byte_ms = l->conf->first_byte_ms,
                          .read_ms = l->conf->read_ms,
                          .total_ms = left < l->conf->total_ms ? (left > 1 ? left : 1)
                                                               : l->conf->total_ms };
    if (l->sse)
        sse_reset(l->sse);
    else
        sse_init(l->sse = xcalloc(1, sizeof *l->sse), on_event, l);
    l->http = http_start(&q, &cb, l);
}

void call_attempt(struct lcall *l)
{
    fault_done(&l->fault);
    l->fault = (struct fault)FAULT_NONE;
    answer_reset(&l->ans);
    buf_clear(&l->whole);
    decoder_init(&l->dec, &l->ans, &l->req.names, l->conf, &l->fault);
    l->attempts++;
    l->tries++;
    l->started = mono_ms();
    if (l->conf->kind == KIND_BUILTIN)
        builtin_attempt(l);
    else if (l->conf->kind == KIND_REPLAY)
        replay_attempt(l);
    else
        http_attempt(l);
}

/* --- before the attempt --- */

static void on_reserved(int err, int weight, const struct rpc_error *e, void *arg)
{
    struct lcall *l = arg;

    l->reserve = NULL;
    if (l->ticket)
        queue_weight(l->ticket, weight);
    if (!err) {
        l->reserved = true;
        call_attempt(l);
        return;
    }
    fault_set(&l->fault, err == ERR_QUOTA ? ERR_QUOTA : ERR_UNAVAIL, "%s",
              err == ERR_QUOTA && e ? e->message
                                    : "the kernel does not answer for the accounting of this call");
    if (err == ERR_QUOTA) {
        l->fault.scope = "user";
        str_copy(l->fault.node, sizeof l->fault.node,
                 e ? json_str(e->data, "node", json_str(e->data, "limit", "")) : "");
        int64_t ms = e ? json_int(e->data, "retry_after_ms", -1) : -1;
        l->fault.retry_after_ms = ms;
    }
    call_record(l);
    call_fail_now(l, &l->fault);
}

static void do_reserve(void *arg)
{
    struct lcall *l = arg;
    int64_t estimate = lreq_estimate(&l->req), left = l->deadline - mono_ms();
    struct usage_row row;

    timer_stop(&l->timer);
    l->queue_ms = mono_ms() - l->first_started;
    uuid4(l->call_id);
    usage_row(l, &row);
    l->reserved_tokens = estimate + l->target.max_tokens;
    l->reserve = account_reserve(&row, l->reserved_tokens, estimate,
                                 cost_micro(l->target.m, estimate, l->target.max_tokens, 0, 0),
                                 left > 0 ? left : 1, on_reserved, l);
}

static void on_queue_deadline(void *arg)
{
    struct lcall *l = arg;

    fault_set(&l->fault, ERR_PROVRATE, "%s: no place before the deadline", l->conf->name);
    call_fail_now(l, &l->fault);
}

static void admit(struct lcall *l)
{
    struct queue_limits lim = { l->conf->rpm, l->conf->tpm, l->conf->max_concurrent };
    struct queue_ask ask = { .user = l->user,
                             .agent = l->pid,
                             .guest = l->guest,
                             .tokens = lreq_estimate(&l->req) + l->target.max_tokens / 4 };
    int64_t left = l->deadline - mono_ms();
    bool now = false;
    int err = 0;

    if (!l->prov->queue)
        l->prov->queue = queue_new(svc.loop);
    int64_t wait = queue_wait_ms(l->prov->queue, &lim, ask.tokens);
    if (wait > left || (wait > RATE_WAIT_LONG && l->at + 1 < l->route.n)) {
        fault_set(&l->fault, ERR_PROVRATE, "%s: the limit of requests or tokens is reached",
                  l->conf->name);
        l->fault.retry_after_ms = wait;
        call_bad(l);
        return;
    }
    l->ticket = queue_enter(l->prov->queue, &lim, &ask, do_reserve, l, &now, &err);
    if (err) {
        fault_set(&l->fault, err, "%s: too many calls of this user are waiting", l->conf->name);
        l->fault.retry_after_ms = 1000;
        call_fail_now(l, &l->fault);
    } else if (now) {
        do_reserve(l);
    } else {
        timer_init(&l->timer, svc.loop, on_queue_deadline, l);
        timer_set(&l->timer, left > 0 ? left : 0);
    }
}

static bool has_source(json_object *content, const char *type)
{
    size_t n =
        json_object_is_type(content, json_type_array) ? json_object_array_length(content) : 0;

    for (size_t i = 0; i < n; i++) {
        json_object *b = json_object_array_get_idx(content, i), *s = json_obj(b, "source");

        if ((s && str_eq(json_str(s, "type", json_get(s, "url") ? "url" : ""), type)) ||
            has_source(json_get(b, "content"), type))
            return true;
    }
    return false;
}

static bool any_source(const struct lreq *r, const char *type)
{
    for (size_t i = 0; i < json_object_array_length(r->messages); i++)
        if (has_source(json_get(json_object_array_get_idx(r->messages, i), "content"), type))
            return true;
    return false;
}

/* Input the provider or the model cannot take. */
static bool input_fits(struct lcall *l)
{
    static const char *const kinds[] = { "image", "document" };
    json_object *input = l->target.m ? l->target.m->input : NULL;

    for (size_t i = 0; i < N_ELEMS(kinds); i++)
        if (lreq_has_block(&l->req, kinds[i]) &&
            (l->conf->kind == KIND_BUILTIN || (input && !json_arr_has(input, kinds[i])))) {
            fault_set(&l->fault, ERR_MODALITY, "%s/%s takes no %s input", l->conf->name,
                      l->target.model, kinds[i]);
            return false;
        }
    if (any_source(&l->req, "url") && *l->conf->base_url && url_is_private(l->conf->base_url)) {
        fault_set(&l->fault, ERR_MODALITY,
                  "%s runs on a private address: it is given no URLs to fetch", l->conf->name);
        return false;
    }
    if (any_source(&l->req, "vfs")) {
        fault_set(&l->fault, ERR_MODALITY,
                  "a source of type vfs is not accepted here: send the bytes as base64");
        return false;
    }
    return true;
}

void call_candidate(struct lcall *l)
{
    const struct cand *k = &l->route.c[l->at];
    struct target *t = &l->target;

    fault_done(&l->fault);
    l->fault = (struct fault)FAULT_NONE;
    l->prov = l->gen->provs[k->prov];
    l->conf = &l->gen->conf->provs[k->prov];
    l->tries = 0;
    l->negotiated = l->reserved = false;
    *l->call_id = '\0';
    t->p = l->conf;
    t->m = conf_model(l->conf, k->model);
    str_copy(t->model, sizeof t->model, k->model);
    t->drop = (t->m ? t->m->unsupported : 0) | prov_dropped(l->prov, k->model);
    t->cache_auto = l->gen->conf->cache_auto;
    t->max_tokens = l->req.max_tokens ? l->req.max_tokens : MAX_TOKENS;
    if (t->m && t->m->max_output && t->max_tokens > t->m->max_output)
        t->max_tokens = t->m->max_output;
    if (l->conf->kind <= KIND_OLLAMA && l->prov->no_credential) {
        fault_set(&l->fault, ERR_PROVAUTH,
                  "%s: no credential: set the secret %s for service llm, or the variable",
                  l->conf->name, l->conf->auth.secret);
        creds_refresh();
    } else if (!l->conf->enabled) {
        fault_set(&l->fault, ERR_PROVDOWN, "%s is switched off in llm.yaml", l->conf->name);
    } else if (!breaker_try(l->prov, mono_ms())) {
        fault_set(&l->fault, ERR_PROVDOWN, "%s failed repeatedly and is left alone for a while",
                  l->conf->name);
        l->fault.retry_after_ms = l->prov->breaker.open_until - mono_ms();
    } else if (input_fits(l)) {
        admit(l);
        return;
    }
    call_bad(l);
}

/* --- begin --- */

static void on_gone(void *arg)
{
    struct lcall *l = arg;

    l->gone = true;
    if (l->reserved || *l->call_id)
        call_record(l);
    call_end(TAKE(l->c));
    call_free(l);
}

/* A stored answer of this turn, if there is one. */
static bool give_stored(struct lcall *l)
{
    json_object *o =
        l->agent && *l->req.turn_id ? answers_get(l->pid, l->req.turn_id, now_ms()) : NULL;

    if (!o)
        return false;
    if (l->stream)
        answer_replay(o, call_chunk, l);
    call_reply(TAKE(l->c), o);
    return true;
}

static void identify(struct lcall *l, const struct caller *w)
{
    if (*w->user)
        str_copy(l->user, sizeof l->user, w->user);
    else
        snprintf(l->user, sizeof l->user, "service:%s", w->service);
    l->pid = w->pid;
    l->agent = w->kind == CALLER_AGENT;
    l->guest = w->role == ROLE_GUEST;
}

void call_begin(struct call *c, const struct caller *w, bool stream)
{
    struct lcall *l = xcalloc(1, sizeof *l);
    struct args bad;
    char msg[256] = "";

    l->c = c;
    l->stream = stream;
    identify(l, w);
    buf_init(&l->body, REQUEST_TOP);
    buf_init(&l->whole, REQUEST_TOP);
    timer_init(&l->timer, svc.loop, NULL, NULL);
    core.n_calls++;
    l->gen = gen_ref(core.gen);
    if (lreq_parse(c->params, &l->req, &bad)) {
        call_bad_args(TAKE(l->c), &bad);
        call_free(l);
        return;
    }
    answer_init(&l->ans, call_chunk, l, l->req.want_thinking);
    if (give_stored(l)) {
        call_free(l);
        return;
    }
    struct route_ask ask = { .provider = l->req.provider,
                             .model = l->req.model,
                             .modality = MOD_TEXT,
                             .allow_fallback = l->req.allow_fallback,
                             .may_choose = false };
    int e = route_pick(l->gen->conf, &ask, prov_up, l->gen, &l->route, msg);
    if (e) {
        call_fail_data(TAKE(l->c), e,
                       json_make("provider:s attempts:i", l->req.provider, (int64_t)0), "%s", msg);
        call_free(l);
        return;
    }
    l->first_started = mono_ms();
    l->deadline = l->first_started + (l->req.timeout_ms ? l->req.timeout_ms : DEADLINE_MS);
    call_on_gone(c, on_gone, l);
    call_candidate(l);
}
