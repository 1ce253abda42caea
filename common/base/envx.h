#pragma once
/* The environment as a hiding place: what stands in /proc/<pid>/environ, and what getenv sees. */

/* Moves every variable's value to the heap and overwrites it where the kernel put it, so that
 * /proc/<pid>/environ shows names at most. getenv goes on working. Call it first in main, before
 * any thread and any pointer from getenv. */
void env_hide(void);
