/* avix-memfs: the VFS namespace and its storage drivers. */
#include "memfs/memfs.h"

int main(int argc, char **argv)
{
    return svc_main(&memfs_spec, argc, argv);
}
