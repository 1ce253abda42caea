#pragma once
/*
 * What an agent is started with (agents page, section 6): argv, descriptors 3 to 7 and the start
 * document on descriptor 5. Read once, before the process seals itself.
 *
 * The start document is one JSON object. Members read here:
 *   pid, invocationId, sessionId, signalKey         required
 *   parentPid, depth, user, uid, role, crews[], goal, goalId, oneShot, resume, systemPrompt,
 *   memoryContext, model, contextLimit, denied[], atpSession, lastSeq
 *   agent{name, version, dir}
 *   resolved{entrypoint{maxToolChain, maxTurnsPerGoal}, environment{temperature, topP, timeoutSec},
 *            tools{required[]}, memory{workingContext}}
 *   limits{maxToolChainLength, maxTokensPerTurn, stopGraceSec, modelFallback,
 *          seccomp: enforce|log|off, jail: auto|require|off}
 *   hil{requiredTools[], blockedChains[], taintPolicy}
 *   lastSeq > 0: the history is that of this invocation, else of earlier ones in the session
 *   fds[]: "history", "secrets": which of the optional descriptors came, in order from 6 up
 */
#include "common/base/json.h"

enum {
    FD_LISTEN = 3, /* agents/<pid>.sock, listening */
    FD_CONVERSATION,
    FD_START,
    FD_OPTIONAL,
};

enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_BAD_START = 64,
    EXIT_UNREACHABLE = 69,
    EXIT_INTERNAL = 70,
};

struct start {
    json_object *doc; /* owns every text below */
    int64_t pid, parent_pid, depth, last_seq, context_limit;
    const char *invocation, *session, *user, *name, *dir, *goal, *goal_id, *system_prompt,
        *memory_context, *model, *model_fallback, *signal_key, *atp_session;
    bool one_shot, resume, fixed_context;
    int max_tool_chain, max_turns, max_output, stop_grace_sec, timeout_sec;
    double temperature, top_p;
    const char *seccomp, *jail, *taint_policy;
    json_object *required_tools, *denied; /* arrays or NULL */
    int fd_history, fd_secrets;           /* -1: not given */
};

/* "--pid N" and nothing else: the number, or -1. */
int64_t start_argv(int argc, char **argv);
/* Reads and checks the document in fd; pid must match. 0, or ERR_INVAL with the reason in why. */
int start_read(int fd, int64_t pid, struct start *ret, char *why, size_t size);
/* The same from text. */
int start_parse(const char *text, size_t len, int64_t pid, struct start *ret, char *why,
                size_t size);
void start_done(struct start *s);
/* The whole of a memfd, at most max bytes, NUL-terminated, yours to free(); NULL if unreadable. */
char *start_slurp(int fd, size_t max, size_t *ret_len);
