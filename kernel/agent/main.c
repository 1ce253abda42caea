/*
 * avix-agent: one agent. Reads what it was started with, shuts itself in, then asks the kernel for
 * its token and works until it is told to stop or its goal is reached.
 */
#include "kernel/agent/boot.h"
#include "kernel/agent/goal.h"
#include "kernel/agent/life.h"

int main(int argc, char **argv)
{
    int code = boot(argc, argv);

    if (code)
        return code;
    code = life_begin();
    if (code > 0)
        return life_end(code, "failed",
                        code == EXIT_UNREACHABLE ? "kernel_unreachable" : "bad_start", NULL);
    return goal_loop();
}
