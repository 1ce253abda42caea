/*
 * Which model providers this machine can use: by the names of variables in the environment and by
 * asking a local Ollama. The result is llm.yaml; what was not found is in it as a comment.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include "cli/init.h"
#include "common/base/args.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"

static int connect_deadline(const char *host, int port, int timeout_ms)
{
    char service[8];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV },
                    *list = NULL;
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return -1;
    int fd = -1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            continue;
        int err = 0;
        socklen_t n = sizeof err;
        struct pollfd p = { .fd = fd, .events = POLLOUT };
        if (connect(fd, a->ai_addr, a->ai_addrlen) < 0 &&
            (errno != EINPROGRESS || poll(&p, 1, timeout_ms) != 1 ||
             getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) || err))
            closep(&fd), fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

int detect_http_get(const char *host, int port, const char *path, int timeout_ms, struct buf *out)
{
    cleanup(closep) int fd = connect_deadline(host, port, timeout_ms);
    if (fd < 0)
        return -ECONNREFUSED;
    char req[512];
    int n = snprintf(req, sizeof req,
                     "GET %s HTTP/1.0\r\nHost: %s\r\nAccept: application/json\r\n\r\n", path, host);
    if (n < 0 || (size_t)n >= sizeof req || send(fd, req, (size_t)n, MSG_NOSIGNAL) != n)
        return -EIO;
    int64_t end = mono_ms() + timeout_ms;
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int64_t left = end - mono_ms();
        if (left <= 0 || poll(&p, 1, (int)left) != 1)
            return -ETIMEDOUT;
        char chunk[8192];
        ssize_t got = recv(fd, chunk, sizeof chunk, 0);
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        if (buf_add(out, chunk, (size_t)got))
            return ERR_TOOBIG;
    }
    char *body = out->len ? strstr(out->data, "\r\n\r\n") : NULL;
    if (!body || !(str_starts(out->data, "HTTP/1.1 200") || str_starts(out->data, "HTTP/1.0 200")))
        return -EPROTO;
    buf_shift(out, (size_t)(body + 4 - out->data));
    return 0;
}

struct known {
    const char *env, *name, *kind, *base, *modalities;
    const char *models; /* blank-separated "id:modality" */
};
static const struct known known[] = {
    { "ANTHROPIC_API_KEY", "anthropic", "anthropic", "https://api.anthropic.com", "text",
      "claude-sonnet-4-6:text claude-opus-4-6:text claude-haiku-4-5-20251001:text" },
    { "OPENAI_API_KEY", "openai", "openai", "https://api.openai.com",
      "text, image, speech, transcription, embedding",
      "gpt-4o:text gpt-4o-mini:text gpt-image-1:image tts-1:speech tts-1-hd:speech whisper-1:transcription "
      "text-embedding-3-small:embedding text-embedding-3-large:embedding" },
    { "XAI_API_KEY", "xai", "openai", "https://api.x.ai/v1", "text",
      "grok-3:text grok-3-mini:text" },
    { "STABILITY_API_KEY", "stability-ai", "stability-ai", "https://api.stability.ai", "image",
      "stable-image-core:image stable-image-ultra:image" },
    { "ELEVENLABS_API_KEY", "elevenlabs", "elevenlabs", "https://api.elevenlabs.io", "speech",
      "eleven_multilingual_v2:speech eleven_turbo_v2:speech" },
};

/* First and last-resort text model of a known provider: the smallest by its name. */
static void text_models(const struct known *k, char *first, char *small, size_t size)
{
    const char *p = k->models;
    *first = *small = 0;
    for (char word[96]; *p;) {
        size_t n = strcspn(p, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        p += n;
        p += strspn(p, " ");
        char *colon = strrchr(word, ':');
        if (!colon || strcmp(colon, ":text") != 0)
            continue;
        *colon = 0;
        if (!*first)
            str_copy(first, size, word);
        if (!*small || strstr(word, "mini") || strstr(word, "haiku"))
            str_copy(small, size, word);
    }
}

static void write_known(const struct known *k, const char *indent, struct buf *out)
{
    buf_printf(
        out,
        "%s- name: %s\n%s  kind: %s\n%s  baseUrl: %s\n%s  modalities: [%s]\n%s  auth: {type: api_key, secretName: %s}\n%s  models:\n",
        indent, k->name, indent, k->kind, indent, k->base, indent, k->modalities, indent, k->env,
        indent);
    for (const char *p = k->models; *p;) {
        size_t n = strcspn(p, " ");
        const char *colon = memrchr(p, ':', n);
        size_t id = (size_t)(colon - p);
        bool text = n - id == 5;
        buf_printf(
            out, "%s    - {id: %.*s, modality: %.*s%s}\n", indent, (int)id, p, (int)(n - id - 1),
            colon + 1,
            !text ? ""
            : str_eq(k->kind, "anthropic")
                ? ", contextWindow: 200000, maxOutput: 32000, input: [text, image, document], capabilities: [tool_use]"
                : ", contextWindow: 128000, maxOutput: 16000, input: [text, image], capabilities: [tool_use]");
        p += n;
        p += strspn(p, " ");
    }
}

/* Models of an Ollama that answers; NULL if none does. */
static json_object *ollama_models(char *base, size_t size)
{
    char host[128] = "127.0.0.1";
    int64_t port = 11434;
    const char *env = getenv("OLLAMA_HOST");
    if (!str_empty(env)) {
        const char *scheme = strstr(env, "://"), *h = scheme ? scheme + 3 : env;
        str_copy(host, sizeof host, h);
        char *colon = strrchr(host, ':');
        if (colon) {
            *colon = 0;
            if (!parse_i64(colon + 1, 1, 65535, &port))
                return NULL;
        }
        if (str_eq(host, "0.0.0.0"))
            str_copy(host, sizeof host, "127.0.0.1");
    }
    struct buf body = BUF_INIT(1 << 20);
    json_object *o = NULL, *list = NULL;
    if (detect_http_get(host, (int)port, "/api/tags", 300, &body) == 0 &&
        json_parse(body.data, body.len, &o) == 0 && json_arr(o, "models")) {
        list = json_new_arr();
        json_object *models = json_arr(o, "models");
        for (size_t i = 0; i < json_object_array_length(models); i++) {
            const char *name = json_str(json_object_array_get_idx(models, i), "name", NULL);
            if (name)
                json_push_str(list, name);
        }
        snprintf(base, size, "http://%s:%d", host, (int)port);
    }
    buf_done(&body);
    json_put(o);
    return list;
}

void detect_llm(bool detect, struct buf *out, char *model, char *small_model, size_t size)
{
    char base[192] = "", first[96], small[96];
    struct buf list = BUF_INIT(65536), off = BUF_INIT(65536);
    const char *text = NULL, *embed = NULL;

    str_copy(model, size, "builtin/rules-1");
    str_copy(small_model, size, "builtin/rules-1");
    for (size_t i = 0; i < N_ELEMS(known); i++) {
        const struct known *k = &known[i];
        bool here = detect && !str_empty(getenv(k->env));
        if (!here) {
            write_known(k, "    # ", &off);
            continue;
        }
        write_known(k, "    ", &list);
        text_models(k, first, small, sizeof first);
        if (!text && *first) {
            text = k->name;
            str_copy(model, size, first);
            str_copy(small_model, size, small);
        }
        if (!embed && strstr(k->modalities, "embedding"))
            embed = k->name;
    }
    json_object *models = detect ? ollama_models(base, sizeof base) : NULL;
    if (models) {
        buf_printf(
            &list,
            "    - name: ollama\n      kind: ollama\n      baseUrl: %s\n      modalities: [text, embedding]\n      auth: {type: none}\n",
            base);
        if (*base && !str_starts(base, "http://127.") && !str_starts(base, "http://localhost"))
            buf_adds(&list, "      insecure: true\n");
        if (json_object_array_length(models))
            buf_adds(&list, "      models:\n");
        for (size_t i = 0; i < json_object_array_length(models); i++) {
            const char *id = json_object_get_string(json_object_array_get_idx(models, i));
            buf_adds(&list, "        - {id: ");
            buf_add_json_str(&list, id, strlen(id));
            buf_adds(&list, ", modality: text, capabilities: [tool_use]}\n");
            if (!text) {
                text = "ollama";
                str_copy(model, size, id);
                str_copy(small_model, size, id);
            }
        }
    }
    buf_printf(
        out,
        "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n  defaultProviders: {text: %s, embedding: %s}\n  fallback: {text: []}\n  providers:\n",
        text ? text : "builtin", embed ? embed : "builtin");
    if (list.len)
        buf_add(out, list.data, list.len);
    buf_adds(
        out,
        "    - name: builtin\n      kind: builtin\n      modalities: [text, embedding]\n      auth: {type: none}\n");
    if (off.len) {
        buf_adds(
            out,
            "    # Not found in the environment. Set the variable (or store the secret for service:llm) and uncomment:\n");
        buf_add(out, off.data, off.len);
    }
    json_put(models);
    buf_done(&list);
    buf_done(&off);
}
