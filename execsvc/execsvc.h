#pragma once
/* The unit's table for svc_main. */
#include "common/svc/svc.h"

extern const struct svc_spec execsvc_spec;
