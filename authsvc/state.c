/*
 * Start, reload, end. A reload reads both sets of files into new values first: either all of them
 * are good and take over together, or the running ones stay. Then it compares identities: who is
 * gone, locked, or has another role or credential, loses the ATP sessions, and who is gone or
 * locked the tokens of his agents too.
 */
#include "authsvc/state.h"

#include <sys/stat.h>

#include "authsvc/cap.h"
#include "authsvc/push.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/fsx.h"

#define EX_CONFIG    78
#define DISK_WAITING 1024

struct auth auth;

static bool conf_path(char *out, size_t size)
{
    return path_fmt(out, size, "%s/etc/auth.conf", svc.root) == 0;
}

static void say(const char *path, const struct yaml_err *e)
{
    if (e->line)
        log_error("%s:%d: %s", path, e->line, e->msg);
    else
        log_error("%s: %s", path, e->msg);
}

static void warn_about(const struct auth_conf *c, const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0 && (st.st_mode & 077))
        log_warn("%s: readable by others (mode %03o); it should be 0600", path,
                 (unsigned)st.st_mode & 0777);
    for (size_t i = 0; i < c->n_ids; i++)
        if (c->ids[i].type == CRED_API_KEY && c->ids[i].key.form == KEY_LEGACY)
            log_warn("%s:%d: '%s' has a key hash of the older form; it is rewritten at the next "
                     "login",
                     path, c->ids[i].line, c->ids[i].name);
}

/* Both sets of files, or nothing. 0, or an error that has been logged. */
static int read_all(struct auth_conf **conf, struct directory **dir)
{
    char path[300], other[320];
    const char *file;
    struct yaml_err e;

    if (!conf_path(path, sizeof(path)))
        return ERR_CONFIG;
    int r = auth_conf_load(path, conf, &e);
    if (r) {
        say(path, &e);
        return r;
    }
    r = directory_load(svc.root, *conf, dir, &file, &e);
    if (r) {
        snprintf(other, sizeof(other), "%s/etc/%s", svc.root, file);
        say(other, &e);
        auth_conf_free(*conf);
        return r;
    }
    warn_about(*conf, path);
    return 0;
}

int auth_init(void)
{
    const uint8_t *cap = svc_key(KEY_CAP), *atp = svc_key(KEY_ATP);

    if (!cap || !atp) {
        log_error("sub-keys cap and atp were not handed down");
        return EX_CONFIG;
    }
    if (read_all(&auth.conf, &auth.dir))
        return EX_CONFIG;
    auth.cap_key = hmac_new(cap, KEY_LEN);
    auth.atp_key = hmac_new(atp, KEY_LEN);
    return 0;
}

int auth_start(void)
{
    char path[400];
    int64_t now = now_ms();
    int err;

    auth.disk = work_pool_new(svc.loop, 1, DISK_WAITING);
    auth.passwords = passwords_new(svc.loop);
    snprintf(path, sizeof(path), "%s/data/revoked.json", svc.root);
    auth.revoked = revoked_new(path, auth.disk, now, &err);
    if (!auth.revoked) {
        log_error("%s: %s", path, err < 0 ? strerror(-err) : "not readable as JSON");
        return EX_CONFIG;
    }
    snprintf(path, sizeof(path), "%s/data/sessions.json", svc.root);
    auth.sessions = sessions_new(path, auth.disk, now);
    snprintf(path, sizeof(path), "%s/authsvc/tokens.log", svc.run_dir);
    auth.caps = cap_tokens_new(path, now);
    snprintf(path, sizeof(path), "%s/authsvc/lockout.log", svc.run_dir);
    auth.lockout = lockout_new(path, &auth.conf->policy, now);
    if (!conf_path(path, sizeof(path)))
        return EX_CONFIG;
    auth.conf_file = store_new(auth.disk, path, 0600);
    push_init();
    return 0;
}

/* Tokens say the role of their login: what changed in auth.conf while we were down ends them. */
static void end_stale_sessions(void)
{
    const struct session *s;
    int n = 0;

    for (size_t i = 0; (s = sessions_each(auth.sessions, &i));) {
        const struct identity *id = auth_conf_find(auth.conf, s->identity);
        char sid[UUID_LEN];

        if (id && !id->locked && id->role == s->role)
            continue;
        memcpy(sid, s->id, sizeof(sid));
        n += session_revoke(sid, s->expires_at);
    }
    if (n)
        revoke_commit(NULL, NULL);
}

/* What was revoked just before a crash may not have been pushed. */
void auth_ready(void)
{
    end_stale_sessions();
    push_revoked(revoked_since(auth.revoked, 0, now_ms()));
}

static bool same_credential(const struct identity *a, const struct identity *b)
{
    if (a->type != b->type)
        return false;
    return a->type == CRED_API_KEY ? str_eq(a->key_text, b->key_text)
                                   : str_eq(a->password, b->password);
}

static void compare(const struct auth_conf *old, const struct auth_conf *new)
{
    for (size_t i = 0; i < old->n_ids; i++) {
        const struct identity *was = &old->ids[i], *is = auth_conf_find(new, was->name);
        bool out = !is || is->locked;

        if (out && !was->locked)
            cap_revoke_user(was->name);
        if ((out && !was->locked) || (is && is->role != was->role) || (is && is->uid != was->uid) ||
            (is && !same_credential(was, is)))
            session_revoke_user(was->name);
    }
}

static void reread(bool end_sessions)
{
    struct auth_conf *conf = NULL;
    struct directory *dir = NULL;

    if (read_all(&conf, &dir)) {
        log_error("configuration refused; the running one stays");
        return;
    }
    struct auth_conf *old_conf = auth.conf;
    struct directory *old_dir = auth.dir;
    auth.conf = conf;
    auth.dir = dir;
    lockout_policy(auth.lockout, &conf->policy);
    if (end_sessions) {
        compare(old_conf, conf);
        revoke_commit(NULL, NULL);
        log_info("configuration read again: %zu identities, %zu users, %zu crews", conf->n_ids,
                 dir->n_users, dir->n_crews);
    }
    auth_conf_free(old_conf);
    directory_free(old_dir);
}

void auth_reload(void)
{
    reread(true);
}

void auth_reread(void)
{
    reread(false);
}

void auth_fini(void)
{
    push_done();
    passwords_free(auth.passwords);
    work_pool_free(auth.disk);
    store_free(auth.conf_file);
    revoked_free(auth.revoked);
    sessions_free(auth.sessions);
    cap_tokens_free(auth.caps);
    lockout_free(auth.lockout);
    hmac_free(auth.cap_key);
    hmac_free(auth.atp_key);
    auth_conf_free(auth.conf);
    directory_free(auth.dir);
    memset(&auth, 0, sizeof(auth));
}
