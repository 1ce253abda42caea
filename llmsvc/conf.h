#pragma once
/*
 * etc/llm.yaml as structs (llm page, section 1). A configuration is read whole, checked whole and
 * then never changes; calls in flight hold a reference to the one they started with.
 */
#include "common/base/json.h"
#include "common/base/yaml.h"

enum kind {
    KIND_ANTHROPIC,
    KIND_OPENAI,
    KIND_OLLAMA,
    KIND_STABILITY,
    KIND_ELEVENLABS,
    KIND_BUILTIN,
    KIND_REPLAY,
    KIND_COUNT
};
enum modality { MOD_TEXT, MOD_IMAGE, MOD_SPEECH, MOD_TRANSCRIPTION, MOD_EMBEDDING, MOD_COUNT };
enum auth_type { AUTH_API_KEY, AUTH_OAUTH2, AUTH_NONE };
enum thinking_mode { THINK_NONE, THINK_ADAPTIVE, THINK_BUDGET };
enum replay_mode { REPLAY_REPLAY, REPLAY_RECORD, REPLAY_AUTO };

/* Optional request parameters that a model may refuse (section 10, parameter negotiation). */
enum {
    PARAM_TEMPERATURE = 1U << 0,
    PARAM_TOP_P = 1U << 1,
    PARAM_SEED = 1U << 2,
    PARAM_STOP = 1U << 3,
    PARAM_EFFORT = 1U << 4,
    PARAM_MAX_TOKENS = 1U << 5, /* means: use the other spelling of the field */
    PARAM_THINKING = 1U << 6,
};
#define PARAM_COUNT 7
extern const char *const param_names[PARAM_COUNT];
extern const char *const kind_names[KIND_COUNT];
extern const char *const modality_names[MOD_COUNT];
extern const char *const auth_names[3];

#define PROVS_MAX    32
#define MODELS_MAX   256
#define FALLBACK_MAX 8
#define RETRY_ON_MAX 24

struct model_conf {
    char id[128], tier[16], description[256];
    enum modality modality;
    int64_t context_window, max_output; /* 0: unknown */
    json_object *input, *capabilities;  /* arrays, borrowed from the file, or NULL */
    unsigned unsupported;               /* PARAM_ bits */
    enum thinking_mode thinking;
    bool priced;
    double price_in, price_out, price_cache_read, price_cache_write; /* dollars per million */
};

struct auth_conf {
    enum auth_type type;
    char secret[64], header[64], prefix[32];
    /* oauth2 */
    char token_url[512], client_id[256], client_secret[64], scopes[512];
    int64_t refresh_before_min;
};

struct replay_conf {
    enum replay_mode mode;
    bool wire;
    char cassette[512], wraps[64];
    double timing;                   /* 0: none; 1: as recorded */
    json_object *normalize, *redact; /* arrays, borrowed, or NULL */
};

struct prov_conf {
    char name[64];
    enum kind kind;
    char base_url[512]; /* no slash at the end */
    bool insecure, discover, request_tools, enabled;
    unsigned modalities; /* 1 << enum modality */
    struct auth_conf auth;
    struct model_conf *models;
    size_t n_models;
    char default_model[128], max_tokens_field[32];
    int64_t rpm, tpm, max_concurrent;
    json_object *headers, *extra_body; /* borrowed, or NULL */
    int64_t connect_ms, first_byte_ms, read_ms, total_ms;
    int64_t max_attempts, backoff_ms;
    int retry_on[RETRY_ON_MAX];
    size_t n_retry_on;
    bool health;
    int64_t health_sec;
    char health_endpoint[128];
    struct replay_conf replay;
    char *source; /* canonical text of the section: tells whether a reload changed it */
};

struct fallback_conf {
    char provider[64], model[128];
};

struct llm_conf {
    int refs;
    json_object *root; /* the file, owns what is borrowed above */
    struct prov_conf provs[PROVS_MAX];
    size_t n_provs;
    int default_prov[MOD_COUNT]; /* index, -1: none */
    struct fallback_conf fallback[MOD_COUNT][FALLBACK_MAX];
    size_t n_fallback[MOD_COUNT];
    json_object *aliases; /* borrowed, or NULL */
    bool force_default;   /* AVIX_LLM_REPLAY: every text request goes to the default */
    bool scoped;          /* providerChoice: scoped */
    bool cache_auto;      /* promptCache */
    int64_t scratch_ttl_ms;
};

/* 0, or ERR_CONFIG with *e: msg names the key. -errno if the file cannot be read. */
int llm_conf_load(const char *path, struct llm_conf **ret, struct yaml_err *e);
int llm_conf_parse(const char *text, size_t len, struct llm_conf **ret, struct yaml_err *e);
struct llm_conf *llm_conf_ref(struct llm_conf *c);
void llm_conf_unref(struct llm_conf *c); /* NULL is fine */
void llm_conf_unrefp(struct llm_conf **c);

const struct prov_conf *conf_prov(const struct llm_conf *c, const char *name);
/* The entry of the model in the provider's list, NULL if it is not listed. */
const struct model_conf *conf_model(const struct prov_conf *p, const char *id);
/* Id used when a request names no model: defaultModel, the first of the modality, or NULL. */
const char *conf_default_model(const struct prov_conf *p, enum modality m);
/* True if the host of an http(s) URL is a loopback name or address; *private also for private
 * ones. */
bool url_is_loopback(const char *url);
bool url_is_private(const char *url);
/* ENUM modality by name; "vision" and "document" are text. -1 if unknown. */
int modality_parse(const char *s);
