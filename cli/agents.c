/* The built-in agents, compiled into the command so that a new root needs nothing else. Sources:
 * packaging/agents. */
#include "cli/agents.h"

#include "common/base/util.h"

#define EMBED(symbol, file)                                                    \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"packaging/agents/" file \
            "\"\n.byte 0\n.previous\n");                                       \
    extern const char symbol[] __asm__(#symbol)

EMBED(kernel_agent_manifest, "kernel.agent/manifest.yaml");
EMBED(kernel_agent_prompt, "kernel.agent/prompt.md");
EMBED(researcher_manifest, "researcher/manifest.yaml");
EMBED(researcher_prompt, "researcher/prompt.md");
EMBED(planner_manifest, "planner/manifest.yaml");
EMBED(planner_prompt, "planner/prompt.md");
EMBED(executor_manifest, "executor/manifest.yaml");
EMBED(executor_prompt, "executor/prompt.md");
EMBED(observer_manifest, "observer/manifest.yaml");
EMBED(observer_prompt, "observer/prompt.md");

const struct builtin_agent builtin_agents[] = {
    { "kernel.agent", kernel_agent_manifest, kernel_agent_prompt },
    { "researcher", researcher_manifest, researcher_prompt },
    { "planner", planner_manifest, planner_prompt },
    { "executor", executor_manifest, executor_prompt },
    { "observer", observer_manifest, observer_prompt },
};
const size_t n_builtin_agents = N_ELEMS(builtin_agents);
