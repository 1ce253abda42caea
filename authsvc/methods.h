#pragma once
/* The surface of authsvc. */
#include "common/svc/svc.h"

extern const struct method auth_methods[];
extern const size_t auth_n_methods;
