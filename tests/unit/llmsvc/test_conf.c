/* llm.yaml: defaults, every kind of mistake with its line and key, and routing on top of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/err.h"
#include "llmsvc/conf.h"
#include "llmsvc/route.h"

#define HEAD "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n"

static struct llm_conf *good(const char *body)
{
    cleanup(freep) char *text = xasprintf("%s%s", HEAD, body);
    struct llm_conf *c = NULL;
    struct yaml_err e = { 0 };

    if (llm_conf_parse(text, strlen(text), &c, &e))
        fail_msg("line %d: %s", e.line, e.msg);
    return c;
}

static void bad(const char *body, int line, const char *word)
{
    cleanup(freep) char *text = xasprintf("%s%s", HEAD, body);
    struct llm_conf *c = NULL;
    struct yaml_err e = { 0 };

    if (llm_conf_parse(text, strlen(text), &c, &e) != ERR_CONFIG)
        fail_msg("accepted: %s", body);
    if (line && e.line != line)
        fail_msg("line %d, not %d: %s", e.line, line, e.msg);
    if (!strstr(e.msg, word))
        fail_msg("\"%s\" does not name %s", e.msg, word);
}

static void defaults(void **state)
{
    struct llm_conf *c = good(
        "  defaultProviders: {text: anthropic, embedding: builtin}\n  providers:\n    - name: anthropic\n"
        "      models: [{id: a}, {id: b, pricing: {inputPerMTok: 3}}]\n    - name: builtin\n    - name: ollama\n"
        "    - {name: local, baseUrl: 'http://localhost:8000/v1/', auth: {type: none}}\n");
    const struct prov_conf *p = conf_prov(c, "anthropic");

    (void)state;
    assert_int_equal(p->kind, KIND_ANTHROPIC);
    assert_string_equal(p->base_url, "https://api.anthropic.com");
    assert_string_equal(p->auth.secret, "ANTHROPIC_API_KEY");
    assert_string_equal(p->auth.header, "x-api-key");
    assert_string_equal(p->auth.prefix, "");
    assert_int_equal(p->connect_ms, 3000);
    assert_int_equal(p->first_byte_ms, 60000);
    assert_int_equal(p->read_ms, 120000);
    assert_int_equal(p->total_ms, 600000);
    assert_int_equal(p->max_attempts, 3);
    assert_int_equal(p->n_retry_on, 8);
    assert_false(p->models[0].priced);
    assert_true(p->models[1].priced);
    assert_string_equal(conf_default_model(p, MOD_TEXT), "a");
    p = conf_prov(c, "builtin");
    assert_int_equal(p->n_models, 2);
    assert_string_equal(conf_default_model(p, MOD_EMBEDDING), "hash-256");
    p = conf_prov(c, "ollama");
    assert_int_equal(p->first_byte_ms, 300000);
    assert_int_equal(p->auth.type, AUTH_NONE);
    p = conf_prov(c, "local");
    assert_int_equal(p->kind, KIND_OPENAI);
    assert_string_equal(p->base_url, "http://localhost:8000/v1");
    assert_true(c->cache_auto);
    assert_false(c->scoped);
    llm_conf_unref(c);
}

static void map_form_and_words(void **state)
{
    struct llm_conf *c = good(
        "  providers:\n    xai: {base_url: 'https://api.x.ai/v1', credential: {type: api_key, key_env: XAI_KEY}, modalities: [vision]}\n"
        "    openai: {auth: {secretName: K, prefix: Bearer}}\n");

    (void)state;
    assert_string_equal(conf_prov(c, "xai")->auth.secret, "XAI_KEY");
    assert_string_equal(conf_prov(c, "xai")->auth.prefix, "Bearer ");
    assert_int_equal(conf_prov(c, "xai")->modalities, 1U << MOD_TEXT);
    assert_string_equal(conf_prov(c, "openai")->auth.prefix, "Bearer ");
    llm_conf_unref(c);
}

static void mistakes(void **state)
{
    (void)state;
    bad("  providers: []\n  defaultProviders: {text: nobody}\n", 5, "text");
    bad("  providers: [{name: builtin}]\n  defaultProviders: {image: builtin}\n", 5, "image");
    bad("  providers: [{name: builtin}]\n  fallback: {text: [other/x]}\n", 5, "fallback");
    bad("  providers:\n    - name: builtin\n      kind: magic\n", 6, "kind");
    bad("  providers:\n    - name: builtin\n      knid: magic\n", 6, "knid");
    bad("  providers:\n    - kind: openai\n", 5, "name");
    bad("  providers:\n    - {name: a/b}\n", 5, "name");
    bad("  providers:\n    - {name: a}\n    - {name: a}\n", 6, "name");
    bad("  providers:\n    - {name: a, baseUrl: 'http://example.com'}\n", 5, "baseUrl");
    bad("  providers:\n    - {name: a, baseUrl: 'ftp://example.com'}\n", 5, "baseUrl");
    bad("  providers:\n    - {name: a, modalities: [smell]}\n", 5, "modalities");
    bad("  providers:\n    - {name: a, timeout: {connectMs: 0}}\n", 5, "connectMs");
    bad("  providers:\n    - {name: a, retryPolicy: {retryOn: [7]}}\n", 5, "retryOn");
    bad("  providers:\n    - {name: a, models: [{modality: text}]}\n", 5, "id");
    bad("  providers:\n    - {name: a, models: [{id: x}, {id: x}]}\n", 5, "id");
    bad("  providers:\n    - {name: a, models: [{id: x, unsupported: [colour]}]}\n", 5,
        "unsupported");
    bad("  providers:\n    - {name: a, models: [{id: x, thinking: hard}]}\n", 5, "thinking");
    bad("  providers:\n    - {name: a, models: [{id: x}], defaultModel: y}\n", 5, "defaultModel");
    bad("  providers:\n    - {name: a, auth: {type: token}}\n", 5, "type");
    bad("  providers:\n    - {name: a, auth: {header: 'X: y'}}\n", 5, "header");
    bad("  providers:\n    - {name: t, kind: replay}\n", 5, "cassette");
    bad("  providers:\n    - {name: t, kind: replay, cassette: x, wraps: nobody}\n", 0, "wraps");
    bad("  providers:\n    - {name: t, kind: replay, cassette: x, mode: record}\n", 0, "wraps");
    bad("  providers: []\n  providerChoice: all\n", 5, "providerChoice");
    bad("  providers: []\n  surprise: 1\n", 5, "surprise");
    bad("  providers: 7\n", 0, "providers");
    bad("  aliases: {a: 7}\n  providers: []\n", 4, "a");
}

static void insecure_and_private(void **state)
{
    (void)state;
    llm_conf_unref(
        good("  providers:\n    - {name: a, baseUrl: 'http://10.0.0.1', insecure: true}\n"));
    assert_true(url_is_loopback("http://localhost:1/x"));
    assert_true(url_is_loopback("http://[::1]:1"));
    assert_true(url_is_loopback("http://127.0.0.9"));
    assert_false(url_is_loopback("http://localhost.example.com"));
    assert_false(url_is_loopback("https://user@127.0.0.1@example.com/"));
    assert_true(url_is_private("http://192.168.1.1:80"));
    assert_true(url_is_private("http://172.20.0.1"));
    assert_false(url_is_private("http://172.40.0.1"));
    assert_false(url_is_private("https://api.openai.com/v1"));
}

/* --- routing --- */

static bool down[8];
static bool up(size_t i, void *arg)
{
    (void)arg;
    return !down[i];
}

static int pick(const struct llm_conf *c, const char *provider, const char *model, bool fallback,
                struct route *r)
{
    struct route_ask q = {
        .provider = provider, .model = model, .modality = MOD_TEXT, .allow_fallback = fallback
    };
    char msg[256] = "";
    int e = route_pick(c, &q, up, NULL, r, msg);

    if (e)
        assert_true(*msg != '\0');
    return e;
}

static const char *at(const struct llm_conf *c, const struct route *r, size_t i)
{
    static char out[300];

    assert_true(i < r->n);
    snprintf(out, sizeof out, "%s/%s", c->provs[r->c[i].prov].name, r->c[i].model);
    return out;
}

static void routes(void **state)
{
    struct llm_conf *c = good(
        "  defaultProviders: {text: a}\n  fallback: {text: [b/b2, builtin]}\n  aliases: {short: a2, far: b/b1}\n  providers:\n"
        "    - {name: a, models: [{id: a1}, {id: a2}, {id: both}], auth: {type: none}}\n"
        "    - {name: b, models: [{id: b1}, {id: b2}, {id: both}, {id: x/y}], auth: {type: none}}\n"
        "    - {name: open, auth: {type: none}}\n    - {name: img, kind: stability-ai, models: [{id: i1, modality: image}]}\n    - {name: builtin}\n");
    struct route r;

    (void)state;
    memset(down, 0, sizeof down);
    assert_int_equal(pick(c, "", "", false, &r), 0);
    assert_string_equal(at(c, &r, 0), "a/a1");
    assert_string_equal(at(c, &r, 1), "b/b2");
    assert_string_equal(at(c, &r, 2), "builtin/rules-1");
    assert_int_equal(pick(c, "", "short", false, &r), 0);
    assert_string_equal(at(c, &r, 0), "a/a2");
    assert_int_equal(pick(c, "", "far", false, &r), 0);
    assert_string_equal(at(c, &r, 0), "b/b1");
    assert_int_equal(r.n, 1); /* a named provider has no fallback */
    assert_int_equal(pick(c, "b", "", true, &r), 0);
    assert_int_equal(r.n, 3);
    assert_int_equal(pick(c, "", "b1", false, &r), 0); /* listed once: selects its provider */
    assert_string_equal(at(c, &r, 0), "b/b1");
    assert_int_equal(pick(c, "", "both", false, &r), 0); /* listed twice: the default */
    assert_string_equal(at(c, &r, 0), "a/both");
    assert_int_equal(pick(c, "", "x/y", false, &r), 0); /* an id with a slash */
    assert_string_equal(at(c, &r, 0), "b/x/y");
    assert_int_equal(pick(c, "open", "anything", false, &r), 0);
    assert_string_equal(at(c, &r, 0), "open/anything");
    assert_int_equal(pick(c, "nobody", "", false, &r), ERR_PROVNOTFOUND);
    assert_int_equal(pick(c, "img", "", false, &r), ERR_MODALITY);
    assert_int_equal(pick(c, "a", "b1", false, &r), ERR_MODEL);
    assert_int_equal(pick(c, "", "nothing", false, &r), ERR_MODEL);
    assert_int_equal(pick(c, "open", "", false, &r), ERR_MODEL);
    down[0] = true; /* the default is down: the next one goes first */
    assert_int_equal(pick(c, "", "", false, &r), 0);
    assert_string_equal(at(c, &r, 0), "b/b2");
    assert_int_equal(r.first, 0);
    memset(down, true, sizeof down);
    assert_int_equal(pick(c, "", "", false, &r), 0);
    assert_string_equal(at(c, &r, 0), "a/a1");
    memset(down, 0, sizeof down);
    c->scoped = true;
    assert_int_equal(pick(c, "b", "b1", false, &r), ERR_PROVPERM);
    assert_int_equal(pick(c, "a", "a1", false, &r), 0);
    llm_conf_unref(c);
    c = good("  providers: [{name: builtin}]\n");
    assert_int_equal(pick(c, "", "", false, &r), ERR_NOPROVIDER);
    llm_conf_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults), cmocka_unit_test(map_form_and_words),
        cmocka_unit_test(mistakes), cmocka_unit_test(insecure_and_private),
        cmocka_unit_test(routes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
