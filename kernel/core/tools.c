/*
 * An agent registers names only; what a name means is compiled in here, so no agent can point a
 * tool at another method or describe it to its model in other words.
 */
#include "kernel/core/tools.h"

#include "common/base/log.h"
#include "common/base/util.h"

const struct agent_tool agent_tools[] = {
    { "agent/spawn", "kernel/agent/spawn",
      "Starts a child agent on a goal and, if asked, waits for its result.",
      "{\"agent\":{\"type\":\"string\",\"required\":true},"
      "\"goal\":{\"type\":\"string\",\"required\":true},"
      "\"capabilities\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
      "\"waitForResult\":{\"type\":\"bool\",\"default\":false},"
      "\"keepAlive\":{\"type\":\"bool\",\"default\":false},"
      "\"timeoutSec\":{\"type\":\"int\",\"default\":300},"
      "\"budget\":{\"type\":\"object\"}}",
      600, true, false },
    { "agent/kill", "kernel/agent/kill", "Ends a child agent and everything it started.",
      "{\"pid\":{\"type\":\"int\",\"required\":true},\"reason\":{\"type\":\"string\"}}", 30, false,
      false },
    { "agent/list", "kernel/agent/list", "Lists the agents of this session.",
      "{\"status\":{\"type\":\"string\",\"enum\":[\"running\",\"paused\",\"waiting\",\"all\"],"
      "\"default\":\"running\"}}",
      30, false, true },
    { "agent/wait", "kernel/agent/wait", "Waits for a child agent to end and gives its result.",
      "{\"pid\":{\"type\":\"int\",\"required\":true},"
      "\"timeoutSec\":{\"type\":\"int\",\"default\":300,\"desc\":\"0 = no limit\"}}",
      600, true, false },
    { "agent/send-message", "kernel/agent/send-message",
      "Sends a text message to another agent of this session.",
      "{\"pid\":{\"type\":\"int\",\"required\":true},"
      "\"message\":{\"type\":\"string\",\"required\":true}}",
      30, false, false },
    { "cap/request-tool", "kernel/resource/request", "Asks for a tool that is not granted.",
      "{\"tool\":{\"type\":\"string\",\"required\":true},"
      "\"reason\":{\"type\":\"string\",\"required\":true},"
      "\"urgency\":{\"type\":\"string\",\"enum\":[\"low\",\"normal\",\"high\"],"
      "\"default\":\"normal\"}}",
      30, false, false },
    { "cap/escalate", "kernel/agent/signal", "Asks a person for a decision or guidance.",
      "{\"reason\":{\"type\":\"string\",\"required\":true},"
      "\"context\":{\"type\":\"string\",\"default\":\"\"},"
      "\"options\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}",
      30, false, false },
    { "cap/list", "kernel/agent/caps", "Lists the tools this agent holds and its limits.", "{}", 30,
      false, true },
};
const size_t agent_tools_n = N_ELEMS(agent_tools);

const char *const syscall_names[] = {
#define SYSCALL(name, flags, role, timeout, fn, desc, input) name,
#define SYSCALL_OF(name, owner)                              name,
#include "kernel/core/syscalls.def"
#undef SYSCALL
#undef SYSCALL_OF
};
const size_t syscall_names_n = N_ELEMS(syscall_names);

const struct agent_tool *agent_tool_find(const char *name)
{
    for (size_t i = 0; i < agent_tools_n; i++)
        if (str_eq(agent_tools[i].name, name))
            return &agent_tools[i];
    return NULL;
}

json_object *agent_tool_descriptor(const struct agent_tool *t, const char *endpoint)
{
    json_object *input = NULL;
    if (json_parse(t->input, strlen(t->input), &input))
        die(70, "%s: its input is not JSON", t->name);
    json_object *ipc =
        json_make("transport:s endpoint:s method:s", "local-ipc", endpoint, t->method);
    json_object *d = json_make("name:s description:s owner:s ipc:o input:o timeout:i", t->name,
                               t->desc, "kernel", ipc, input, (int64_t)t->timeout_s);
    if (t->blocking)
        json_add_bool(d, "blocking", true);
    if (t->read_only)
        json_add_bool(d, "readOnly", true);
    return d;
}
