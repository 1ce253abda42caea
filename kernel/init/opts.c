/* Command line of avix-init. It is normally exec'd by `avix server start`, which passes its own
 * options through. */
#include <getopt.h>
#include <stdio.h>

#include "kernel/init/init.h"

static const struct option longs[] = {
    { "root", required_argument, NULL, 'r' },
    { "port", required_argument, NULL, 'p' },
    { "bind", required_argument, NULL, 'b' },
    { "admin-addr", required_argument, NULL, 'a' },
    { "log", required_argument, NULL, 'l' },
    { "log-stdout", no_argument, NULL, 'L' },
    { "json", no_argument, NULL, 'j' },
    { "verbose", no_argument, NULL, 'v' },
    { "one-shot", no_argument, NULL, 'o' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static int usage(const char *why)
{
    fprintf(stderr,
            "avix-init: %s\nusage: avix-init --root DIR [--port N] [--bind ADDR] [--admin-addr "
            "ADDR:PORT|none] [--log LEVEL] [--log-stdout] [--json] [-v] [--one-shot]\n",
            why);
    return 2;
}

int opts_parse(int argc, char **argv, struct opts *o, bool *done)
{
    enum log_level level;
    int64_t port;
    int c;

    *o = (struct opts){ .port = -1, .log_stdout = getpid() == 1 };
    *done = false;
    while ((c = getopt_long(argc, argv, "v", longs, NULL)) != -1) {
        switch (c) {
        case 'r':
            o->root = optarg;
            break;
        case 'p':
            if (!parse_i64(optarg, 0, 65535, &port))
                return usage("--port needs a number from 0 to 65535");
            o->port = (int)port;
            break;
        case 'b':
            o->bind = optarg;
            break;
        case 'a':
            o->admin_addr = optarg;
            break;
        case 'l':
            if (!log_level_parse(optarg, &level))
                return usage("--log needs error, warn, info or debug");
            o->log_level = optarg;
            break;
        case 'L':
            o->log_stdout = true;
            break;
        case 'j':
            o->json = true;
            break;
        case 'v':
            o->verbose = true;
            break;
        case 'o':
            o->one_shot = true;
            break;
        case 'V':
            printf("avix-init %s\n", AVIX_VERSION);
            *done = true;
            return 0;
        default:
            return usage("unknown option");
        }
    }
    if (optind < argc)
        return usage("takes no arguments");
    if (!o->root)
        o->root = getenv("AVIX_ROOT");
    return str_empty(o->root) ? usage("--root is missing") : 0;
}
