#include "common/base/envx.h"
#include "kernel/init/init.h"

int main(int argc, char **argv)
{
    env_hide(); /* keys for others are in it */
    return init_main(argc, argv);
}
