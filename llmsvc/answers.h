#pragma once
/*
 * Answers kept for a repeat of the same turn: one file per (agent, turn_id) in <run>/llmsvc/
 * llm-answers, written before the answer is sent. The last 8 of an agent, 1 h.
 */
#include "common/base/json.h"

int answers_init(const char *run_dir); /* the unit's; 0 or -errno */
void answers_fini(void);
/* The stored result (owned by the caller), NULL if there is none. */
json_object *answers_get(int64_t pid, const char *turn_id, int64_t now);
void answers_put(int64_t pid, const char *turn_id, json_object *result, int64_t now);
/* Drops what is older than its time; called now and then. */
void answers_sweep(int64_t now);
