#pragma once
/*
 * Accounting (llm page, section 11): a reservation before each provider call, a record after it,
 * and a spool in the run dir so that no record is lost when llmsvc or the kernel dies between.
 */
#include "common/ipc/client.h"

struct usage_row {
    char call_id[37], username[80], provider[64], model[192];
    const char *modality; /* static */
    int64_t pid, in, out, cache_read, cache_write, reasoning, units;
    int64_t cost_micro; /* -1: unpriced */
};

int account_init(struct loop *l, const char *dir); /* the unit's run dir; 0 or -errno */
/* Once the router takes calls: sends what the spool still holds. */
void account_start(void);
void account_fini(void);

struct reservation;
/* err: 0, ERR_QUOTA (refused; reply's data tells the node), or ERR_UNAVAIL after a minute. */
typedef void (*reserve_fn)(int err, int weight, const struct rpc_error *e, void *arg);
/* Notes the call as open in the spool and asks kernel/usage/reserve; while the kernel restarts the
 * call waits, wait_ms at most. estimate: input tokens. */
struct reservation *account_reserve(const struct usage_row *row, int64_t tokens, int64_t estimate,
                                    int64_t cost_micro, int64_t timeout_ms, reserve_fn fn,
                                    void *arg);
/* Asks for a larger reservation of the same call. */
struct reservation *account_extend(const struct usage_row *row, int64_t tokens, int64_t cost_micro,
                                   int64_t timeout_ms, reserve_fn fn, void *arg);
void account_cancel(struct reservation *r);
/* After the call, whatever became of it; copies row. */
void account_record(const struct usage_row *row);
