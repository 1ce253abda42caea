#pragma once
/* Synthetic places: /proc, /kernel and /tools are made by their owners when they are read. */
#include "memfs/op.h"

/* run functions (LANE_HERE); they end in op_finish by themselves. */
void synth_read(struct op *op);
void synth_list(struct op *op);
void synth_stat(struct op *op);
