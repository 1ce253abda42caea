/* avix-execsvc: sandboxed code execution. */
#include "execsvc/execsvc.h"

int main(int argc, char **argv)
{
    return svc_main(&execsvc_spec, argc, argv);
}
