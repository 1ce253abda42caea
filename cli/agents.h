#pragma once
/* The built-in agents that `config init` installs into data/bin (agents page, section 19). */
#include <stddef.h>

#define BUILTIN_AGENT_VERSION "1.0.0"
struct builtin_agent {
    const char *name, *manifest, *prompt; /* texts of manifest.yaml and prompt.md */
};
extern const struct builtin_agent builtin_agents[];
extern const size_t n_builtin_agents;
