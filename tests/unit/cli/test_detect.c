/*
 * What `config init` finds: keys by the names of their variables, an Ollama by asking it. The
 * server is a real one on loopback that gives each connection the next answer of a list.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/init.h"
#include "common/base/err.h"
#include "common/base/yaml.h"

const struct command commands[] = { { "x", "", "", "", NULL } };
const size_t n_commands = 1;

static struct {
    int fd, port;
    const char *answer; /* NULL: accept and say nothing until the client goes */
    char asked[512];
    pthread_t thread;
} server;

static void *serve(void *arg)
{
    (void)arg;
    for (int c; (c = accept4(server.fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(c)) {
        ssize_t n = recv(c, server.asked, sizeof server.asked - 1, 0);

        server.asked[n > 0 ? n : 0] = '\0';
        if (server.answer)
            (void)!send(c, server.answer, strlen(server.answer), MSG_NOSIGNAL);
        else
            (void)recv(c, (char[1]){ 0 }, 1, 0);
    }
    return NULL;
}

static const char *const vars[] = { "ANTHROPIC_API_KEY", "OPENAI_API_KEY",     "XAI_API_KEY",
                                    "STABILITY_API_KEY", "ELEVENLABS_API_KEY", "OLLAMA_HOST" };

static int up(void **state)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;

    (void)state;
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.fd, (struct sockaddr *)&a, len) || listen(server.fd, 16) ||
        getsockname(server.fd, (struct sockaddr *)&a, &len))
        return -1;
    server.port = ntohs(a.sin_port);
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int down(void **state)
{
    (void)state;
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    return 0;
}

/* No variable set but OLLAMA_HOST, at a port where nobody listens. */
static int clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ELEMS(vars); i++)
        unsetenv(vars[i]);
    return setenv("OLLAMA_HOST", "127.0.0.1:1", 1);
}

static void ollama_at(const char *host_name)
{
    char host[64];

    snprintf(host, sizeof host, "%s:%d", host_name, server.port);
    setenv("OLLAMA_HOST", host, 1);
}

struct found {
    char model[96], small[96];
    json_object *doc;
    char *text;
};

static struct found detect(bool look)
{
    struct found f = { .doc = NULL };
    struct buf out = BUF_INIT(1 << 20);
    struct yaml_err e = { 0 };

    detect_llm(look, &out, f.model, f.small, sizeof f.model);
    if (yaml_parse(out.data, out.len, &f.doc, &e))
        fail_msg("line %d: %s in\n%s", e.line, e.msg, out.data);
    f.text = buf_take(&out);
    return f;
}

static void found_done(struct found *f)
{
    json_put(f->doc);
    free(f->text);
}

static json_object *provider(const struct found *f, const char *name)
{
    json_object *list = json_arr(json_obj(f->doc, "spec"), "providers");

    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (str_eq(json_str(json_object_array_get_idx(list, i), "name", ""), name))
            return json_object_array_get_idx(list, i);
    return NULL;
}

static const char *dflt(const struct found *f, const char *what)
{
    return json_str(json_obj(json_obj(f->doc, "spec"), "defaultProviders"), what, "");
}

static void nothing_there_is_builtin(void **state)
{
    cleanup(found_done) struct found f = detect(true);

    (void)state;
    assert_string_equal(f.model, "builtin/rules-1");
    assert_string_equal(f.small, "builtin/rules-1");
    assert_string_equal(dflt(&f, "text"), "builtin");
    assert_string_equal(dflt(&f, "embedding"), "builtin");
    assert_non_null(provider(&f, "builtin"));
    assert_null(provider(&f, "anthropic"));
    /* what was not found is there to be uncommented */
    assert_non_null(strstr(f.text, "# - name: anthropic"));
    assert_non_null(strstr(f.text, "# - name: elevenlabs"));
}

static void keys_are_named_and_never_copied(void **state)
{
    (void)state;
    setenv("ANTHROPIC_API_KEY", "sk-the-secret-itself", 1);
    setenv("OPENAI_API_KEY", "sk-another-secret", 1);
    setenv("XAI_API_KEY", "", 1); /* empty is not set */
    cleanup(found_done) struct found f = detect(true);
    assert_null(strstr(f.text, "secret-itself"));
    assert_null(strstr(f.text, "another-secret"));
    assert_string_equal(dflt(&f, "text"), "anthropic"); /* the first of the table */
    assert_string_equal(dflt(&f, "embedding"), "openai");
    assert_string_equal(f.model, "claude-sonnet-4-6");
    assert_non_null(strstr(f.small, "haiku"));
    assert_string_equal(json_str(json_obj(provider(&f, "anthropic"), "auth"), "secretName", ""),
                        "ANTHROPIC_API_KEY");
    assert_int_equal(json_object_array_length(json_arr(provider(&f, "openai"), "models")), 8);
    assert_null(provider(&f, "xai"));
    assert_non_null(strstr(f.text, "# - name: xai"));
}

static void a_key_without_a_text_model_sets_no_default(void **state)
{
    (void)state;
    setenv("STABILITY_API_KEY", "x", 1);
    cleanup(found_done) struct found f = detect(true);
    assert_non_null(provider(&f, "stability-ai"));
    assert_string_equal(dflt(&f, "text"), "builtin");
    assert_string_equal(f.model, "builtin/rules-1");
}

static void without_looking_nothing_is_found(void **state)
{
    (void)state;
    setenv("OPENAI_API_KEY", "x", 1);
    ollama_at("127.0.0.1");
    server.answer = "HTTP/1.0 200 OK\r\n\r\n{\"models\":[{\"name\":\"m\"}]}";
    cleanup(found_done) struct found f = detect(false);
    assert_null(provider(&f, "openai"));
    assert_null(provider(&f, "ollama"));
    assert_string_equal(f.model, "builtin/rules-1");
}

static void a_local_ollama_is_used(void **state)
{
    static const char *const forms[] = { "127.0.0.1", "http://127.0.0.1", "0.0.0.0" };

    (void)state;
    server.answer =
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        "{\"models\":[{\"name\":\"llama3:8b\"},{\"size\":1},{\"name\":\"q \\\"2\\\"\"}]}";
    for (size_t i = 0; i < N_ELEMS(forms); i++) {
        char base[64];

        ollama_at(forms[i]);
        snprintf(base, sizeof base, "http://127.0.0.1:%d", server.port);
        cleanup(found_done) struct found f = detect(true);
        json_object *p = provider(&f, "ollama"), *models = json_arr(p, "models");
        assert_string_equal(json_str(p, "baseUrl", ""), base);
        assert_null(json_get(p, "insecure"));
        assert_string_equal(dflt(&f, "text"), "ollama");
        assert_string_equal(f.model, "llama3:8b");
        assert_string_equal(f.small, "llama3:8b");
        assert_int_equal(json_object_array_length(models), 2); /* one has no name */
        assert_string_equal(json_str(json_object_array_get_idx(models, 1), "id", ""), "q \"2\"");
        assert_non_null(strstr(server.asked, "GET /api/tags HTTP/1.0\r\n"));
    }
    /* a key comes before it */
    setenv("OPENAI_API_KEY", "x", 1);
    cleanup(found_done) struct found f = detect(true);
    assert_string_equal(dflt(&f, "text"), "openai");
    assert_non_null(provider(&f, "ollama"));
}

static void an_ollama_without_models_is_listed_only(void **state)
{
    (void)state;
    ollama_at("127.0.0.1");
    server.answer = "HTTP/1.0 200 OK\r\n\r\n{\"models\":[]}";
    cleanup(found_done) struct found f = detect(true);
    assert_non_null(provider(&f, "ollama"));
    assert_null(json_get(provider(&f, "ollama"), "models"));
    assert_string_equal(dflt(&f, "text"), "builtin");
}

static void other_answers_are_no_ollama(void **state)
{
    static const char *const answers[] = {
        "HTTP/1.0 404 Not Found\r\n\r\n{\"models\":[]}",
        "HTTP/1.0 200 OK\r\n\r\nnot json",
        "HTTP/1.0 200 OK\r\n\r\n{\"other\":1}",
        "SSH-2.0-OpenSSH\r\n",
        "",
    };

    (void)state;
    ollama_at("127.0.0.1");
    for (size_t i = 0; i < N_ELEMS(answers); i++) {
        server.answer = answers[i];
        cleanup(found_done) struct found f = detect(true);
        assert_null(provider(&f, "ollama"));
    }
    setenv("OLLAMA_HOST", "127.0.0.1:99999", 1); /* no port */
    cleanup(found_done) struct found f = detect(true);
    assert_null(provider(&f, "ollama"));
}

static void get_has_a_deadline_and_a_limit(void **state)
{
    struct buf out = BUF_INIT(1 << 20), small = BUF_INIT(64);
    char path[600];

    (void)state;
    server.answer = NULL;
    assert_int_equal(detect_http_get("127.0.0.1", server.port, "/", 50, &out), -ETIMEDOUT);
    server.answer = "HTTP/1.0 200 OK\r\nX: 1234567890\r\nY: 1234567890\r\n\r\n0123456789012345";
    assert_int_equal(detect_http_get("127.0.0.1", server.port, "/", 1000, &small), ERR_TOOBIG);
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(detect_http_get("127.0.0.1", server.port, path, 1000, &out), -EIO);
    assert_int_equal(detect_http_get("127.0.0.1", 1, "/", 1000, &out), -ECONNREFUSED);
    assert_int_equal(detect_http_get("no host here", 80, "/", 1000, &out), -ECONNREFUSED);
    assert_int_equal(detect_http_get("127.0.0.1", server.port, "/x", 1000, &out), 0);
    assert_string_equal(out.data, "0123456789012345");
    buf_done(&out);
    buf_done(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_there_is_builtin, clean),
        cmocka_unit_test_setup(keys_are_named_and_never_copied, clean),
        cmocka_unit_test_setup(a_key_without_a_text_model_sets_no_default, clean),
        cmocka_unit_test_setup(without_looking_nothing_is_found, clean),
        cmocka_unit_test_setup(a_local_ollama_is_used, clean),
        cmocka_unit_test_setup(an_ollama_without_models_is_listed_only, clean),
        cmocka_unit_test_setup(other_answers_are_no_ollama, clean),
        cmocka_unit_test_setup(get_has_a_deadline_and_a_limit, clean),
    };

    return cmocka_run_group_tests(tests, up, down);
}
