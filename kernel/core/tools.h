#pragma once
/* Compiled tables: the tools behind an agent's own (category 2; agents page, section 9), and the
 * names of all system calls (syscalls.def). */
#include "common/base/json.h"

struct agent_tool {
    const char *name, *method; /* what the model calls; the kernel method behind it */
    const char *desc;
    const char *input; /* short form, JSON text */
    int timeout_s;
    bool blocking, read_only;
};
extern const struct agent_tool agent_tools[];
extern const size_t agent_tools_n;
const struct agent_tool *agent_tool_find(const char *name);
/* Descriptor as the router wants it; owned. endpoint: the kernel's socket. */
json_object *agent_tool_descriptor(const struct agent_tool *t, const char *endpoint);

extern const char *const syscall_names[];
extern const size_t syscall_names_n;
