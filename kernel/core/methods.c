/* Everything this program answers, in one table: system calls, service methods, frames. */
#include "kernel/core/calls.h"

#define NONE "{}"
#define AGENT(n, fn, flags, t)                                    \
    {                                                             \
        n, M_HIDDEN | (flags), 0, ROLE_NONE, t, 0, NULL, NULL, fn \
    }
#define FRAME(n, from, fn)                                \
    {                                                     \
        n, M_FRAME, from, ROLE_NONE, 0, 0, NULL, NULL, fn \
    }
#define SERVICE(n, flags, role, fn, desc)       \
    {                                           \
        n, flags, 0, role, 0, 0, desc, NONE, fn \
    }

const struct method kernel_methods[] = {
#define SYSCALL(name, flags, role, timeout, fn, desc, input) \
    { name, flags, 0, role, timeout, 0, desc, input, fn },
#define SYSCALL_OF(name, owner)
#include "kernel/core/syscalls.def"
#undef SYSCALL
#undef SYSCALL_OF
    SERVICE("kernel/proc/list-installed", M_READONLY, ROLE_USER, sys_list_installed,
            "Lists the agents that can be started."),
    SERVICE("kernel/proc/session/list", M_READONLY, ROLE_USER, sess_list, "Lists sessions."),
    SERVICE("kernel/proc/session/get", M_READONLY, ROLE_USER, sess_get, "Shows one session."),
    SERVICE("kernel/proc/session/pause", 0, ROLE_USER, sess_pause, "Pauses a session's agents."),
    { "kernel/proc/session/resume", M_BLOCKING, 0, ROLE_USER, 120, 0,
      "Resumes a session, with new input if given.", NONE, sess_resume },
    SERVICE("kernel/proc/session/delete", 0, ROLE_USER, sess_delete, "Deletes a session."),
    SERVICE("kernel/proc/invocation-list", M_READONLY, ROLE_USER, inv_list, "Lists invocations."),
    SERVICE("kernel/proc/invocation-get", M_READONLY, ROLE_USER, inv_get, "Shows one invocation."),
    SERVICE("kernel/proc/invocation-conversation", M_READONLY, ROLE_USER, inv_conversation,
            "Reads a conversation."),
    SERVICE("kernel/sys/status", M_READONLY, ROLE_USER, sys_status, "State of the system."),
    SERVICE("kernel/metrics", M_READONLY | M_INTERNAL, ROLE_NONE, kernel_metrics,
            "Counters of the kernel."),
    SERVICE("kernel/agent/report", M_IDEMPOTENT, ROLE_NONE, agent_report, "Report of an agent."),
    SERVICE("kernel/agent/signal", 0, ROLE_NONE, agent_signal, "Signal of an agent."),
    { "kernel/resource/request", 0, 0, ROLE_NONE, 60, 0, "Asks for a resource.", NONE,
      resource_request },
    SERVICE("kernel/usage/reserve", M_IDEMPOTENT | M_INTERNAL, ROLE_NONE, usage_reserve,
            "Reserves budget for a provider call."),
    SERVICE("kernel/usage/record", M_IDEMPOTENT | M_INTERNAL, ROLE_NONE, usage_record,
            "Books a provider call."),
    SERVICE("kernel/proc/view", M_READONLY | M_INTERNAL, ROLE_NONE, proc_view,
            "Content of /proc and /kernel."),
    { "job/watch", M_READONLY | M_BLOCKING, 0, ROLE_NONE, 600, 0, "Waits for a job to end.",
      "{\"jobId\":{\"type\":\"string\",\"required\":true},"
      "\"timeoutSec\":{\"type\":\"int\",\"default\":300}}",
      job_watch },
    AGENT("kernel/agent/spawn", agent_spawn, M_BLOCKING, 120),
    AGENT("kernel/agent/kill", agent_kill, 0, 30),
    AGENT("kernel/agent/list", agent_list, M_READONLY, 30),
    AGENT("kernel/agent/wait", agent_wait, M_BLOCKING, 600),
    AGENT("kernel/agent/send-message", agent_send_message, 0, 30),
    AGENT("kernel/agent/caps", agent_caps, M_READONLY, 30),
    FRAME("agent.ready", FROM_AGENT, frame_agent_ready),
    FRAME("ipc.tool-add", FROM_AGENT, frame_tool_add),
    FRAME("init/exited", FROM_INIT, frame_init_exited),
    FRAME("init/unit", FROM_INIT, frame_init_unit),
    FRAME("init/stopping", FROM_INIT, frame_init_stopping),
    FRAME("auth.revoked", FROM(UNIT_AUTHSVC), frame_auth_revoked),
};
const size_t kernel_methods_n = N_ELEMS(kernel_methods);
