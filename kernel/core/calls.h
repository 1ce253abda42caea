#pragma once
/* Handlers of the method table, and what they share. */
#include "kernel/core/life.h"

#define HANDLER(fn) void fn(struct call *c, const struct caller *w)
HANDLER(sys_proc_spawn);
HANDLER(sys_proc_kill);
HANDLER(sys_proc_pause);
HANDLER(sys_proc_resume);
HANDLER(sys_proc_list);
HANDLER(sys_proc_stat);
HANDLER(sys_proc_wait);
HANDLER(sys_proc_setcap);
HANDLER(sys_signal_send);
HANDLER(sys_signal_subscribe);
HANDLER(sys_signal_unsubscribe);
HANDLER(sys_signal_list);
HANDLER(sys_sys_info);
HANDLER(sys_list_installed);
HANDLER(sess_list);
HANDLER(sess_get);
HANDLER(sess_pause);
HANDLER(sess_resume);
HANDLER(sess_delete);
HANDLER(inv_list);
HANDLER(inv_get);
HANDLER(inv_conversation);
HANDLER(sys_status);
HANDLER(agent_spawn);
HANDLER(agent_kill);
HANDLER(agent_list);
HANDLER(agent_wait);
HANDLER(agent_send_message);
HANDLER(agent_report);
HANDLER(agent_signal);
HANDLER(agent_caps);
HANDLER(resource_request);
HANDLER(job_watch);
HANDLER(usage_reserve);
HANDLER(usage_record);
HANDLER(proc_view);
HANDLER(kernel_metrics);
/* frames */
HANDLER(frame_agent_ready);
HANDLER(frame_tool_add);
HANDLER(frame_init_exited);
HANDLER(frame_init_unit);
HANDLER(frame_init_stopping);
HANDLER(frame_auth_revoked);
void door_other(struct call *c); /* relays to the router with the sender's identity */

void kill_and_wait(struct call *c, struct proc *p, const char *reason);
int proc_pause(struct proc *p, bool hard, const char *reason);
int proc_resume(struct proc *p);
/* A message in an agent's context. agent: the sender if it is one, else NULL. */
int proc_message(struct proc *p, const char *text, json_object *attachments, const char *from,
                 const struct proc *agent);
/* SIGRESUME to every paused process of a session; ERR_CONFLICT if none is. */
int session_resume_all(const char *session_id);
/* Re-adoption; says READY when the table is whole. */
void boot_start(void);
int boot_init(void);

extern const struct method kernel_methods[];
extern const size_t kernel_methods_n;
