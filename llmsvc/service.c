/*
 * Life of the service: the file and the credentials at start, a new generation on SIGHUP. authsvc
 * is asked in a thread once the loop runs, and the answer comes back over a pipe; an invalid file
 * is refused and the old generation goes on.
 */
#include "llmsvc/service.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "common/base/clock.h"
#include "llmsvc/answers.h"
#include "llmsvc/core.h"

#define REFRESH_GAP_MS 3000
#define SWEEP_MS       600000

struct core core;

/* One question to authsvc at a time. */
static struct {
    pthread_t thread;
    bool running, again;
    int pipe[2];
    struct watch watch;
    struct llm_conf *conf; /* for the thread: a reference */
    struct creds *creds;   /* its answer */
    int64_t last;
    struct timer retry, sweep;
} ask = { .pipe = { -1, -1 } };

static void conf_path(char out[320])
{
    snprintf(out, 320, "%s/etc/llm.yaml", svc.root);
}

static int conf_read(struct llm_conf **ret)
{
    struct yaml_err e = { 0 };
    char path[320];

    conf_path(path);
    int r = llm_conf_load(path, ret, &e);
    if (r > 0)
        log_error("%s:%d: %s", path, e.line, e.msg);
    else if (r < 0)
        log_error("%s: %s", path, strerror(-r));
    return r;
}

/* AVIX_LLM_REPLAY=<file>[,record|auto]: a replay provider before all others, for one run. */
static int add_replay(struct llm_conf **conf)
{
    const char *v = getenv("AVIX_LLM_REPLAY");
    struct yaml_err e = { 0 };
    struct llm_conf *c = NULL;

    if (str_empty(v))
        return 0;
    cleanup(freep) char *file = xstrdup(v);
    char *comma = strrchr(file, ','), *mode = comma ? comma + 1 : NULL;
    if (mode && !str_eq(mode, "record") && !str_eq(mode, "auto"))
        mode = NULL;
    if (mode)
        *comma = '\0';
    cleanup(json_putp) json_object *root = json_dup((*conf)->root);
    json_object *spec = json_obj(root, "spec"), *list = json_arr(spec, "providers");
    if (!list || json_arr((*conf)->root, "providers"))
        return 0;
    int d = (*conf)->default_prov[MOD_TEXT];
    json_object *tape = json_make("name:s kind:s mode:s cassette:s", "tape", "replay",
                                  mode ? mode : "replay", file);
    if (mode && d >= 0)
        json_add_str(tape, "wraps", (*conf)->provs[d].name);
    const char *model = d >= 0 ? conf_default_model(&(*conf)->provs[d], MOD_TEXT) : NULL;
    if (model) /* for requests that name none */
        json_add_str(tape, "defaultModel", model);
    json_push(list, tape);
    json_add(spec, "defaultProviders", json_make("text:s", "tape"));
    json_object_object_del(spec, "fallback");
    cleanup(freep) char *text = yaml_dump(root);
    if (llm_conf_parse(text, strlen(text), &c, &e)) {
        log_error("AVIX_LLM_REPLAY: line %d: %s", e.line, e.msg);
        return ERR_CONFIG;
    }
    c->force_default = true;
    llm_conf_unref(*conf);
    *conf = c;
    return 0;
}

int llm_init(void)
{
    struct llm_conf *conf = NULL;
    char dir[128];
    int r = conf_read(&conf);

    if (r || add_replay(&conf))
        return 78;
    snprintf(dir, sizeof dir, "%s/llmsvc", svc.run_dir);
    if ((r = answers_init(dir))) {
        log_error("%s: %s", dir, strerror(-r));
        return 1;
    }
    core.gen = gen_new(conf, creds_load(conf), NULL);
    if (!creds_locked(core.gen->creds))
        svc_degraded("locked memory");
    core.since = now_ms();
    return 0;
}

static void *ask_main(void *arg)
{
    (void)arg;
    ask.creds = creds_load(ask.conf);
    (void)!write(ask.pipe[1], "x", 1);
    return NULL;
}

static void ask_start(struct llm_conf *conf)
{
    if (ask.running) {
        ask.again = true;
        return;
    }
    ask.conf = llm_conf_ref(conf);
    ask.last = mono_ms();
    ask.running = !pthread_create(&ask.thread, NULL, ask_main, NULL);
    if (!ask.running)
        llm_conf_unref(TAKE(ask.conf));
}

/* The generation that waits for its credentials, NULL: only the credentials are renewed. */
static struct llm_conf *next_conf;

static void on_creds(int fd, unsigned events, void *arg)
{
    char byte[8];

    (void)events;
    (void)arg;
    if (read(fd, byte, sizeof byte) <= 0)
        return;
    pthread_join(ask.thread, NULL);
    ask.running = false;
    struct creds *creds = TAKE(ask.creds);
    struct llm_conf *conf = TAKE(ask.conf);
    if (next_conf && conf == next_conf) {
        struct gen *old = core.gen;

        core.gen = gen_new(TAKE(next_conf), creds, old);
        gen_unref(old);
        log_info("llm.yaml is in use: %zu providers", core.gen->conf->n_provs);
    } else if (conf == core.gen->conf) {
        gen_set_creds(core.gen, creds);
    } else {
        creds_free(creds);
    }
    if (!creds_reachable(core.gen->creds))
        timer_set(&ask.retry, REFRESH_GAP_MS);
    llm_conf_unref(conf);
    if (ask.again) {
        ask.again = false;
        ask_start(next_conf ? next_conf : core.gen->conf);
    }
}

void creds_refresh(void)
{
    if (!ask.running && mono_ms() - ask.last >= REFRESH_GAP_MS)
        ask_start(core.gen->conf);
}

static void on_retry(void *arg)
{
    (void)arg;
    ask_start(core.gen->conf);
}

static void on_sweep(void *arg)
{
    (void)arg;
    answers_sweep(now_ms());
    timer_set(&ask.sweep, SWEEP_MS);
}

void llm_reload(void)
{
    struct llm_conf *conf = NULL;

    if (conf_read(&conf) || add_replay(&conf)) {
        llm_conf_unref(conf);
        log_error("llm.yaml is refused; the old one stays in use");
        return;
    }
    llm_conf_unref(next_conf);
    next_conf = conf;
    ask_start(conf);
}

int llm_start(void)
{
    char dir[128];
    int r = 0;

    snprintf(dir, sizeof dir, "%s/llmsvc", svc.run_dir);
    if ((r = account_init(svc.loop, dir)) || (r = http_init(svc.loop))) {
        log_error("%s: %s", dir, strerror(-r));
        return 1;
    }
    if (pipe2(ask.pipe, O_CLOEXEC | O_NONBLOCK)) {
        log_error("pipe: %s", strerror(errno));
        return 1;
    }
    watch_init(&ask.watch, svc.loop, ask.pipe[0], on_creds, NULL);
    watch_set(&ask.watch, LOOP_READ);
    timer_init(&ask.retry, svc.loop, on_retry, NULL);
    timer_init(&ask.sweep, svc.loop, on_sweep, NULL);
    timer_set(&ask.sweep, SWEEP_MS);
    if (!creds_reachable(core.gen->creds))
        timer_set(&ask.retry, REFRESH_GAP_MS);
    return 0;
}

void llm_ready(void)
{
    account_start();
}

void llm_stop(void)
{
    core.stopping = true;
}

void llm_fini(void)
{
    if (ask.running)
        pthread_join(ask.thread, NULL);
    creds_free(ask.creds);
    llm_conf_unref(ask.conf);
    llm_conf_unref(next_conf);
    watch_done(&ask.watch);
    timer_done(&ask.retry);
    timer_done(&ask.sweep);
    http_fini();
    account_fini();
    answers_fini();
    usage_fini();
    tapes_close();
    gen_unref(core.gen);
    core.gen = NULL;
}
