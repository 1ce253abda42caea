/* avix: the command line. See commands.def for what it can do. */
#include <signal.h>

#include "cli/cli.h"
#include "common/base/log.h"

const struct command commands[] = {
#define CMD(path, args, flags, help, fn) { path, args, flags, help, fn },
#include "cli/commands.def"
#undef CMD
};
const size_t n_commands = N_ELEMS(commands);

int main(int argc, char **argv)
{
    struct cli c = { .argv0 = argv[0] };

    signal(SIGPIPE, SIG_IGN); /* a reader that closed shows as EPIPE and ends us with 141 */
    log_init("avix", false, LOG_WARN);
    int r = cli_parse(&c, argc, argv);
    if (r == 0 && c.cmd)
        r = c.cmd->fn(&c);
    if (fflush(stdout) != 0 || ferror(stdout))
        r = EX_PIPE;
    json_put(c.config);
    return r;
}
