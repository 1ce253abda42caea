#pragma once
/* kernel.yaml (kernel page, section 17; gateway section: atp page, section 1) as one struct, from
 * one table. */
#include "common/base/yaml.h"

struct kernel_config {
    /* scheduler */
    int max_concurrent_agents, hibernate_after_sec, archive_after_days;
    /* agents */
    int memory_max_mib, open_files, cpu_sec, stop_grace_sec, ready_timeout_sec, max_restarts;
    char seccomp[16], jail[16]; /* enforce log off; auto require off */
    /* isolation */
    char uids[16], services[16];
    /* memory */
    int default_context_limit;
    /* ipc */
    int max_message_bytes, per_caller_agent, per_caller_service, per_caller_user;
    char socket_group[64];
    /* gateway */
    char mode[16], bind[64], admin_addr[64], tls_mode[16], tls_min[8], tls_cert[256], tls_key[256],
        web_root[256];
    int port;
    bool tls_allow_plain, web_enabled;
    json_object *allowed_hosts, *allowed_origins, *trusted_proxies; /* arrays */
    /* safety */
    bool policy_engine, hil_on_escalation, cap_upgrade_hil;
    int max_tool_chain, hil_timeout_sec;
    json_object *hil_required_tools, *blocked_tool_chains;
    char taint_policy[8];
    /* models */
    char model_default[128], model_kernel[128], model_fallback[128];
    double temperature;
    /* observability */
    char log_level[8];
    bool metrics_enabled, trace_enabled;
    /* secrets */
    char master_source[16], master_env[64], master_file[256];
    json_object *master; /* the whole masterKey section, NULL if absent */
    char service_get[8];
    char legacy[256]; /* keys that are read but have no effect any more, blank-separated: to warn */
    json_object *root; /* the whole file, owns every pointer above */
};

/* Reads <root>/etc/kernel.yaml. 0, ERR_CONFIG with *e (an unknown key names line and key), or
 * -errno. */
int kernel_config_load(const char *root, struct kernel_config **ret, struct yaml_err *e);
int kernel_config_parse(const char *text, size_t len, struct kernel_config **ret,
                        struct yaml_err *e);
void kernel_config_free(struct kernel_config *c);
/* Reads and checks the head of any Avix file: apiVersion avix/v1, this kind; gives its spec
 * (borrowed) or NULL with *e. */
json_object *config_spec(json_object *doc, const char *kind, struct yaml_err *e);
