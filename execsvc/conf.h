#pragma once
/* exec.yaml (kind ExecConfig; services page, sections 6 and 7). */
#include "common/base/json.h"
#include "common/base/yaml.h"

enum net_allow { NET_NO, NET_PASTA, NET_HOST };

/* What one execution may use; zero fields of a request take the default. */
struct limits {
    int64_t timeout_ms, memory_mb, file_mb, open_files, processes, output_bytes;
};

struct exec_conf {
    bool bwrap; /* sandbox.tiers has it (default) */
    enum net_allow network;
    struct limits dflt, max;
    json_object
        *runtimes; /* map name -> path, or {path, aliases}; borrowed from doc; may be NULL */
    json_object *doc;
};

/* Reads <root>/etc/exec.yaml; absent: the defaults. 0, ERR_CONFIG with *e, -errno. */
int exec_conf_load(const char *path, struct exec_conf *ret, struct yaml_err *e);
int exec_conf_parse(const char *text, size_t len, struct exec_conf *ret, struct yaml_err *e);
void exec_conf_done(struct exec_conf *c);
