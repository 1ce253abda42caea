#pragma once
/* The life of the unit: what svc_main calls. */
#include "common/svc/svc.h"

extern const struct method gateway_methods[];
extern const size_t gateway_n_methods;

struct loop *gateway_loop(void);
int gateway_init(void);
const struct sandbox_path *gateway_paths(void);
int gateway_start(void);
void gateway_reload(void);
void gateway_stop(void);
void gateway_fini(void);
