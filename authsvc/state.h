#pragma once
/* What the program holds while it runs: configuration, tables, keys, counters. One of it. */
#include "authsvc/captokens.h"
#include "authsvc/lockout.h"
#include "authsvc/password.h"
#include "authsvc/revoked.h"
#include "authsvc/sessions.h"
#include "authsvc/users.h"
#include "common/svc/token.h"

struct auth {
    struct auth_conf *conf;
    struct directory *dir;
    struct lockout *lockout;
    struct passwords *passwords;
    struct work_pool *disk;
    struct store *conf_file;
    struct revoked *revoked;
    struct sessions *sessions;
    struct cap_tokens *caps;
    struct hmac *cap_key, *atp_key;
    struct {
        int64_t logins, refused, limited, alerts, minted, renewed, refreshed;
    } n;
};
extern struct auth auth;

/* svc_spec's functions. */
int auth_init(void);
int auth_start(void);
void auth_ready(void);
void auth_reload(void);
void auth_fini(void);
/* Reads the files again without ending anyone's session (after our own change of auth.conf). */
void auth_reread(void);
