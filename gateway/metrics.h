#pragma once
/*
 * Counters of the gateway in Prometheus text form. Labels are fixed words of our own, never what a
 * user sent.
 */
#include "common/base/buf.h"
#include "gateway/kinds.h"

/* name without the prefix; labels as they are printed, e.g. result="ok", or NULL. */
void metric_add(const char *name, const char *labels, double n);
double metric_get(const char *name, const char *labels);
/* A histogram with buckets from 10 µs to 10 s. */
void metric_time(const char *name, const char *labels, int64_t us);
extern uint64_t metric_published[KIND_COUNT], metric_sent[KIND_COUNT];
/* Everything, appended to b. */
void metrics_write(struct buf *b);
void metrics_fini(void);
