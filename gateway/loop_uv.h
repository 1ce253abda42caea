#pragma once
/*
 * The back end of common/ipc/loop.h on libuv, so that libwebsockets and everything of common/ipc
 * share one loop. Handles live on the heap: libuv closes them a turn later than their owners go.
 */
#include "common/ipc/loop.h"

struct uv_loop_s;
struct loop *loop_uv_new(void);
/* The libuv loop beneath, for lws's foreign_loops. */
struct uv_loop_s *loop_uv_raw(struct loop *l);
