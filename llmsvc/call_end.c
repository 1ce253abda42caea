/*
 * What becomes of an attempt: the answer goes out, or the fault is tried again, negotiated, passed
 * to the next provider, or told to the caller. Whatever happens the kernel gets its record.
 */
#include "common/base/clock.h"
#include "common/base/rnd.h"
#include "llmsvc/answers.h"
#include "llmsvc/core.h"
#include "llmsvc/sse.h"

#define BACKOFF_MAX    30000
#define RETRY_MAX      60000
#define RATE_WAIT_LONG 10000

void call_free(struct lcall *l)
{
    if (l->http)
        http_cancel(l->http);
    if (l->reserve)
        account_cancel(l->reserve);
    if (l->canned)
        canned_free(l->canned);
    if (l->rec)
        tape_rec_free(l->rec);
    json_put(l->canned_result);
    if (l->ticket)
        queue_leave(l->ticket, l->ans.have_out ? l->ans.in + l->ans.out : -1);
    timer_done(&l->timer);
    if (l->sse) {
        sse_done(l->sse);
        free(l->sse);
    }
    lreq_done(&l->req);
    answer_done(&l->ans);
    fault_done(&l->fault);
    fault_done(&l->first);
    buf_done(&l->body);
    buf_done(&l->whole);
    secret_unref(l->key);
    while (l->n_head_extra)
        free(l->head_extra[--l->n_head_extra]);
    gen_unref(l->gen);
    free(l);
    core.n_calls--;
}

void call_record(struct lcall *l)
{
    struct usage_row r = { .pid = l->pid, .modality = modality_names[MOD_TEXT] };
    bool any = l->ans.n || l->ans.have_in;

    if (!*l->call_id)
        return;
    if (any)
        (void)usage_estimate(&l->ans, &l->req);
    str_copy(r.call_id, sizeof r.call_id, l->call_id);
    str_copy(r.username, sizeof r.username, l->user);
    str_copy(r.provider, sizeof r.provider, l->conf->name);
    str_copy(r.model, sizeof r.model, l->target.model);
    r.in = any ? l->ans.in : 0;
    r.out = any ? l->ans.out : 0;
    r.cache_read = l->ans.cache_read;
    r.cache_write = l->ans.cache_write;
    r.reasoning = l->ans.reasoning;
    r.cost_micro = cost_micro(l->target.m, r.in, r.out, r.cache_read, r.cache_write);
    account_record(&r);
    prov_count(l->prov, mono_ms(), r.in, r.out, l->fault.err != 0);
    usage_count(&r, l->fault.err != 0);
    *l->call_id = '\0';
    l->reserved = false;
}

static json_object *usage_json(struct lcall *l, bool estimated)
{
    const struct answer *a = &l->ans;
    int64_t micro = cost_micro(l->target.m, a->in, a->out, a->cache_read, a->cache_write);
    json_object *u = json_make(
        "input_tokens:i output_tokens:i cache_read_tokens:i cache_write_tokens:i reasoning_tokens:i",
        a->in, a->out, a->cache_read, a->cache_write, a->reasoning);

    json_add(u, "cost_usd", micro < 0 ? NULL : json_object_new_double((double)micro / 1e6));
    if (estimated)
        json_add_bool(u, "estimated", true);
    return u;
}

json_object *call_result(struct lcall *l)
{
    bool estimated = usage_estimate(&l->ans, &l->req);
    json_object *o = l->stream ? json_make("done:b", 1) : json_new();

    json_add_str(o, "provider", l->conf->name);
    json_add_str(o, "model", l->target.model);
    json_add(o, "content", answer_content(&l->ans));
    json_add_str(o, "stop_reason", stop_name(l->ans.stop));
    json_add_str(o, "stop_detail", *l->ans.stop_detail ? l->ans.stop_detail : NULL);
    json_add_int(o, "input_tokens", l->ans.in);
    json_add_int(o, "output_tokens", l->ans.out);
    json_add_int(o, "total_tokens", l->ans.in + l->ans.out);
    json_add(o, "usage", usage_json(l, estimated));
    json_add_int(o, "latency_ms", mono_ms() - l->started);
    json_add_int(o, "attempts", l->attempts);
    json_add_str(o, "request_id", *l->ans.request_id ? l->ans.request_id : NULL);
    if (l->queue_ms > 0)
        json_add_int(o, "queue_ms", l->queue_ms);
    if (l->route.c[l->at].prov != l->route.first)
        json_add_str(o, "fallback_from", l->gen->conf->provs[l->route.first].name);
    return o;
}

void call_good(struct lcall *l)
{
    int64_t now = mono_ms();

    l->fault.err = 0;
    if (l->ans.stop == STOP_NONE)
        l->ans.stop = answer_has_tools(&l->ans) ? STOP_TOOL : STOP_END;
    json_object *result = l->canned_result ? TAKE(l->canned_result) : call_result(l);
    prov_result(l->prov, NULL, now, now - l->started);
    call_record(l);
    answer_finish(&l->ans);
    if (l->rec)
        tape_rec_end(l, result, NULL);
    if (l->agent && *l->req.turn_id)
        answers_put(l->pid, l->req.turn_id, result, now_ms());
    if (l->c)
        call_reply(TAKE(l->c), result);
    else
        json_put(result);
    call_free(l);
}

void call_fail_now(struct lcall *l, const struct fault *f)
{
    json_object *data = fault_data(f, l->conf ? l->conf->name : "", l->attempts);

    if (l->queue_ms > 0)
        json_add_int(data, "queue_ms", l->queue_ms);
    if (l->rec)
        tape_rec_end(l, NULL, f);
    if (f->err == ERR_PROVPROTO || f->err == ERR_PROVAUTH || f->err == ERR_PROVDOWN)
        log_warn("%s: %s", err_name(f->err), f->message);
    if (l->c)
        call_fail_data(TAKE(l->c), f->err, data, "%s", f->message);
    else
        json_put(data);
    call_free(l);
}

static void on_backoff(void *arg)
{
    call_attempt(arg);
}

static void wait_then_attempt(struct lcall *l, int64_t ms)
{
    timer_done(&l->timer);
    timer_init(&l->timer, svc.loop, on_backoff, l);
    timer_set(&l->timer, ms);
}

/* Full jitter below backoffMs doubled with each try; what the provider says wins. */
static int64_t backoff(const struct lcall *l)
{
    int64_t top = l->conf->backoff_ms;
    uint32_t r = 0;

    if (l->fault.retry_after_ms >= 0)
        return l->fault.retry_after_ms < RETRY_MAX ? l->fault.retry_after_ms : RETRY_MAX;
    for (int i = 1; i < l->tries && top < BACKOFF_MAX; i++)
        top *= 2;
    if (top > BACKOFF_MAX)
        top = BACKOFF_MAX;
    rnd_bytes(&r, sizeof r);
    return top ? (int64_t)(r % (uint64_t)(top + 1)) : 0;
}

static bool may_fall_back(const struct lcall *l, int64_t wait)
{
    if (l->at + 1 >= l->route.n)
        return false;
    return l->fault.err == ERR_PROVTIMEOUT || l->fault.err == ERR_PROVDOWN ||
           (l->fault.err == ERR_PROVRATE && wait > RATE_WAIT_LONG);
}

/* True if the attempt starts again without the parameter the provider refuses. */
static bool negotiate(struct lcall *l)
{
    unsigned bit = l->fault.drop & ~l->target.drop;

    if (l->fault.err != ERR_BADREQ || !bit || l->negotiated)
        return false;
    l->negotiated = true;
    l->target.drop |= bit;
    prov_drop(l->prov, l->target.model, bit);
    log_info("%s/%s refuses a parameter; it is left out from now on", l->conf->name,
             l->target.model);
    return true;
}

static void next_candidate(struct lcall *l)
{
    call_record(l);
    if (l->ticket)
        queue_leave(TAKE(l->ticket), -1);
    if (!l->first.err) {
        l->first = l->fault;
        l->fault = (struct fault)FAULT_NONE;
    }
    l->at++;
    call_candidate(l);
}

void call_bad(struct lcall *l)
{
    struct fault *f = &l->fault;
    int64_t now = mono_ms(), wait = backoff(l);
    bool sent = l->ans.sent;

    if (l->tries || f->err == ERR_PROVAUTH)
        prov_result(l->prov, f, now, 0);
    if (f->err == ERR_PROVRATE && l->prov->queue && l->tries)
        queue_block(l->prov->queue, f->retry_after_ms >= 0 ? wait : 1000);
    if (!sent && !l->cut) {
        if (negotiate(l)) {
            call_attempt(l);
            return;
        }
        if (may_fall_back(l, f->retry_after_ms) &&
            (!f->retry || l->tries >= l->conf->max_attempts || wait > RATE_WAIT_LONG)) {
            next_candidate(l);
            return;
        }
        if (f->retry && l->tries > 0 && l->tries < l->conf->max_attempts) {
            if (now + wait < l->deadline) {
                wait_then_attempt(l, wait);
                return;
            }
            if (f->retry_after_ms < 0)
                f->retry_after_ms = wait;
        }
    }
    if (sent && f->err != ERR_CONTENT && !f->partial)
        f->partial = NULL; /* what was delivered stays delivered */
    call_record(l);
    call_fail_now(l, l->first.err ? &l->first : f);
}
