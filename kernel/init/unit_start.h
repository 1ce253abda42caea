#pragma once
struct iunit;
/* Forks and execs the unit's program with its descriptors, keys, token and environment. Fills pid
 * and start, publishes units.json before the exec. 0 or -errno. */
int unit_start(struct iunit *u);
