/*
 * The token is opaque where it counts: the router decides. Its claims are read only for what the
 * model is told (grants, budgets, limits), and a token in another form would only make that poorer.
 */
#include "kernel/agent/token.h"

#include "common/base/b64.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernel/agent/ids.h"
#include "kernel/agent/life.h"
#include "kernel/agent/rt.h"

static json_object *claims_of(const char *token)
{
    const char *dot = strchr(token, '.');
    json_object *claims = NULL;

    if (!dot)
        return NULL;
    size_t len = (size_t)(dot - token);
    cleanup(freep) char *text = xmalloc(len + 1);
    ssize_t n = b64url_decode(token, len, text, len);
    if (n < 0 || json_parse(text, (size_t)n, &claims))
        return NULL;
    if (!json_object_is_type(claims, json_type_object))
        json_putp(&claims);
    return claims;
}

void token_wipe(void)
{
    if (self.token) {
        explicit_bzero(self.token, strlen(self.token));
        free(self.token);
        self.token = NULL;
    }
}

void token_set(const char *token, const char *expires)
{
    if (str_empty(token))
        return;
    json_object *claims = claims_of(token);
    char *copy = xstrdup(token);
    int64_t at = 0;
    token_wipe();
    self.token = copy;
    json_put(self.claims);
    self.claims = claims;
    json_put(self.budgets);
    self.budgets = json_obj(claims, "budgets") ? json_dup(json_obj(claims, "budgets")) : NULL;
    if (!expires)
        expires = json_str(claims, "expiresAt", "");
    self.expires_ms = rfc3339_parse(expires, &at) ? at : 0;
}

bool token_due(void)
{
    return self.expires_ms && self.expires_ms - now_ms() <= RENEW_BEFORE_MS;
}

bool token_grants(const char *tool)
{
    json_object *granted = json_arr(self.claims, "granted");

    return granted && json_arr_has(granted, tool);
}

bool token_offers(const char *tool)
{
    json_object *runtime = json_arr(self.claims, "runtime");

    return !runtime || !json_arr_has(runtime, tool); /* granted by name or not */
}

bool token_spend(const char *tool)
{
    json_object *left = json_get(self.budgets, tool);

    if (!left)
        return true;
    if (json_object_get_int64(left) <= 0)
        return false;
    json_add_int(self.budgets, tool, json_object_get_int64(left) - 1);
    return true;
}

void token_give_back(const char *tool)
{
    json_object *left = json_get(self.budgets, tool);

    if (left)
        json_add_int(self.budgets, tool, json_object_get_int64(left) + 1);
}

static json_object *renewal(const char *reason)
{
    char id[UUID_LEN];
    json_object *list = json_new_arr();

    json_push(list, json_make("resource:s reason:s", "token_renewal", reason));
    cleanup(freep) char *rid = xasprintf("req-%s", uuid4(id));
    return json_make("requestId:s requests:o", rid, list);
}

int token_renew(const char *reason)
{
    cleanup(json_putp) json_object *params = renewal(reason);
    struct rt_call c = {
        .method = "kernel/resource/request", .params = params, .repeatable = true, .brk = BRK_STOP
    };
    struct ipc_reply r;
    int err = rt_call(&c, &r);

    if (!err) {
        json_object *g = json_object_array_get_idx(json_arr(r.result, "grants"), 0);
        const char *token = json_str(g, "new_token", "");
        if (*token)
            token_set(token, json_str(g, "expiresAt", NULL));
        else
            err = ERR_DENIED;
    }
    if (err == ERR_EXPIRED || err == ERR_AUTH) {
        /* too late for the router; the kernel still knows this process by its signal key */
        ipc_reply_done(&r);
        return life_ready(BRK_STOP);
    }
    if (err > 0)
        log_warn("token renewal: %s", r.error.message);
    ipc_reply_done(&r);
    return err;
}
