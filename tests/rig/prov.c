/* See prov.h. */
#include "tests/rig/prov.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/fsx.h"
#include "tests/rig/rig.h"

struct prov *prov_start(const char *script)
{
    struct prov *p = xcalloc(1, sizeof *p);
    const char *tmp = getenv("TMPDIR");
    char file[240];
    int in[2], out[2];
    snprintf(p->dir, sizeof p->dir, "%s/prov.XXXXXX", str_empty(tmp) ? "/tmp" : tmp);
    if (!mkdtemp(p->dir) || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
        fprintf(stderr, "rig: cannot set up a provider\n");
        exit(1);
    }
    snprintf(file, sizeof file, "%s/script.json", p->dir);
    snprintf(p->log, sizeof p->log, "%s/log.jsonl", p->dir);
    if (file_write_atomic(file, script, strlen(script), 0600))
        exit(1);
    p->pid = fork();
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl(rig_bin("test-provider"), "test-provider", "--script", file, "--log", p->log,
              (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    p->in = in[1];
    char *line = rig_read_line(out[0], RIG_WAIT_MS);
    close(out[0]);
    if (!line || !str_starts(line, "port ")) {
        fprintf(stderr, "rig: the provider double did not start: %s\n", line ? line : "no line");
        exit(1);
    }
    p->port = (int)strtol(line + 5, NULL, 10);
    free(line);
    return p;
}

void prov_release(struct prov *p, const char *gate)
{
    char line[128];
    int n = snprintf(line, sizeof line, "release %s\n", gate);
    if (write(p->in, line, (size_t)n) != n)
        exit(1);
}

json_object *prov_log(struct prov *p)
{
    char *text = NULL, *save = NULL;
    size_t len = 0;
    json_object *list = json_new_arr();
    if (file_read(p->log, 64 << 20, &text, &len) == 0)
        for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
            json_object *o = NULL;
            if (json_parse(l, strlen(l), &o) == 0)
                json_push(list, o);
        }
    free(text);
    return list;
}

int prov_requests(struct prov *p)
{
    json_object *list = prov_log(p);
    int n = 0;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *o = json_object_array_get_idx(list, i);
        n += str_eq(json_str(o, "method", ""), "POST");
    }
    json_put(list);
    return n;
}

struct want {
    struct prov *p;
    int n;
};
static bool have(void *arg)
{
    struct want *w = arg;
    return prov_requests(w->p) >= w->n;
}

bool prov_wait(struct prov *p, int n)
{
    struct want w = { p, n };
    return rig_until(have, &w);
}

void prov_stop(struct prov *p)
{
    if (!p)
        return;
    close(p->in);
    kill(p->pid, SIGTERM);
    waitpid(p->pid, NULL, 0);
    rm_rf(p->dir);
    free(p);
}

void prov_stopp(struct prov **p)
{
    prov_stop(*p);
    *p = NULL;
}

void prov_configure(struct rig *g, const struct prov *p, const char *kind)
{
    struct buf b = BUF_INIT(65536);
    buf_printf(
        &b,
        "apiVersion: avix/v1\nkind: LlmConfig\nspec:\n  defaultProviders: {text: double, embedding: builtin}\n  providers:\n"
        "    - name: double\n      kind: %s\n      baseUrl: http://127.0.0.1:%d\n      modalities: [text]\n      auth: {type: none}\n"
        "      retryPolicy: {maxAttempts: 3, backoffMs: 50}\n"
        "      models:\n        - {id: test-model, modality: text, contextWindow: 100000, maxOutput: 8000, capabilities: [tool_use]}\n"
        "    - name: builtin\n      kind: builtin\n      modalities: [text, embedding]\n      auth: {type: none}\n",
        kind, p->port);
    rig_write(g, "etc/llm.yaml", b.data);
    buf_done(&b);
    char *k = rig_read(g, "etc/kernel.yaml"), *at = k ? strstr(k, "  models:") : NULL;
    if (!at)
        exit(1);
    char *end = strchr(at, '\n');
    buf_init(&b, 65536);
    buf_add(&b, k, (size_t)(at - k));
    buf_adds(
        &b,
        "  models: {default: test-model, kernel: test-model, fallback: test-model, temperature: 0.7}");
    buf_adds(&b, end);
    rig_write(g, "etc/kernel.yaml", b.data);
    buf_done(&b);
    free(k);
}
