#pragma once
/* The handlers of the tool table (memfs.c). */
#include "common/svc/svc.h"

void tool_read(struct call *c, const struct caller *who);
void tool_list(struct call *c, const struct caller *who);
void tool_stat(struct call *c, const struct caller *who);
void tool_exists(struct call *c, const struct caller *who);
void tool_glob(struct call *c, const struct caller *who);
void tool_search(struct call *c, const struct caller *who);

void tool_write(struct call *c, const struct caller *who);
void tool_edit(struct call *c, const struct caller *who);
void tool_delete(struct call *c, const struct caller *who);
void tool_mkdir(struct call *c, const struct caller *who);
void tool_move(struct call *c, const struct caller *who);
void tool_copy(struct call *c, const struct caller *who);

void tool_export(struct call *c, const struct caller *who);
void tool_metrics(struct call *c, const struct caller *who);
void tool_mem_list(struct call *c, const struct caller *who);
void tool_mem_stat(struct call *c, const struct caller *who);
void tool_mem_sync(struct call *c, const struct caller *who);

/* Counts for fs/metrics. */
void metrics_read(bool hit, int64_t ns);
