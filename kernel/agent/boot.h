#pragma once
/* From exec to the sealed process. */
#include "kernel/agent/agent.h"

/* 0, or an exit code after logging why. */
int boot(int argc, char **argv);
