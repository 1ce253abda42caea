/* The command line parser: commands, flags in any place, settings in their order, what it refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "common/base/fsx.h"

/* The table that main.c has in the program. */
const struct command commands[] = {
#define CMD(path, args, flags, help, fn) { path, args, flags, help, fn },
#include "cli/commands.def"
#undef CMD
};
const size_t n_commands = N_ELEMS(commands);

static struct cli parsed;

static int forget(void **state)
{
    (void)state;
    json_put(parsed.config);
    return 0;
}

static int parse(const char *line)
{
    static char words[512];
    char *argv[32], *save = NULL;
    int argc = 0;
    str_copy(words, sizeof words, line);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    argv[argc] = NULL;
    json_put(parsed.config);
    parsed = (struct cli){ .argv0 = "avix" };
    return cli_parse(&parsed, argc, argv);
}

static void flags_may_stand_anywhere(void **state)
{
    (void)state;
    assert_int_equal(parse("avix --json client agent kill 157 --force 158"), 0);
    assert_string_equal(parsed.cmd->path, "client agent kill");
    assert_true(parsed.json);
    assert_true(cli_has(&parsed, "force"));
    assert_int_equal(parsed.n_args, 2);
    assert_string_equal(parsed.args[1], "158");
}

static void a_value_may_follow_or_be_joined(void **state)
{
    (void)state;
    assert_int_equal(parse("avix client agent spawn researcher --goal=x --title y"), 0);
    assert_string_equal(cli_flag(&parsed, "goal"), "x");
    assert_string_equal(cli_flag(&parsed, "title"), "y");
    assert_string_equal(parsed.args[0], "researcher");
}

static void two_dashes_end_flags(void **state)
{
    (void)state;
    assert_int_equal(parse("avix client agent send 157 -- --json"), 0);
    assert_string_equal(parsed.args[1], "--json");
    assert_false(parsed.json);
}

static void usage_errors_exit_2(void **state)
{
    (void)state;
    assert_int_equal(parse("avix client agent lst"), EX_USE);
    assert_int_equal(parse("avix client agent list --nope"), EX_USE);
    assert_int_equal(parse("avix client agent stat"), EX_USE);
    assert_int_equal(parse("avix client agent stat 1 2"), EX_USE);
    assert_int_equal(parse("avix client agent spawn x --goal"), EX_USE);
    assert_int_equal(parse("avix"), EX_USE);
    assert_int_equal(parse("avix client"), EX_USE);
}

static void help_and_version_exit_0(void **state)
{
    (void)state;
    assert_int_equal(parse("avix --help"), 0);
    assert_null(parsed.cmd);
    assert_int_equal(parse("avix client agent spawn --help"), 0);
    assert_null(parsed.cmd);
    assert_int_equal(parse("avix help server"), 0);
    assert_int_equal(parse("avix --version"), 0);
}

static void settings_follow_their_order(void **state)
{
    (void)state;
    char path[] = "/tmp/avix-test-client.XXXXXX", line[200];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    const char *text =
        "server_url: http://top:1\nprofiles:\n  p: {server_url: 'http://profile:1'}\n";
    assert_int_equal(write_all(fd, text, strlen(text)), 0);
    close(fd);
    unsetenv("AVIX_URL");
    unsetenv("AVIX_PROFILE");
    snprintf(line, sizeof line, "avix client whoami --config %s", path);
    assert_int_equal(parse(line), 0);
    assert_string_equal(cli_setting(&parsed, "url", "AVIX_URL", NULL, "server_url", "d"),
                        "http://top:1");
    assert_string_equal(cli_setting(&parsed, "ca", "AVIX_CA", NULL, "ca_file", "d"), "d");
    snprintf(line, sizeof line, "avix client whoami --config %s --profile p", path);
    assert_int_equal(parse(line), 0);
    assert_string_equal(cli_setting(&parsed, "url", "AVIX_URL", NULL, "server_url", "d"),
                        "http://profile:1");
    setenv("AVIX_URL", "http://env:1", 1);
    assert_string_equal(cli_setting(&parsed, "url", "AVIX_URL", NULL, "server_url", "d"),
                        "http://env:1");
    snprintf(line, sizeof line, "avix client whoami --config %s --url http://flag:1", path);
    assert_int_equal(parse(line), 0);
    assert_string_equal(cli_setting(&parsed, "url", "AVIX_URL", NULL, "server_url", "d"),
                        "http://flag:1");
    unsetenv("AVIX_URL");
    unlink(path);
}

static void a_readable_credential_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/avix-test-client.XXXXXX", line[200];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write_all(fd, "credential: x\n", 14), 0);
    assert_int_equal(fchmod(fd, 0644), 0);
    close(fd);
    snprintf(line, sizeof line, "avix client whoami --config %s", path);
    assert_int_equal(parse(line), EX_LOCAL);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_may_stand_anywhere),
        cmocka_unit_test(a_value_may_follow_or_be_joined),
        cmocka_unit_test(two_dashes_end_flags),
        cmocka_unit_test(usage_errors_exit_2),
        cmocka_unit_test(help_and_version_exit_0),
        cmocka_unit_test(settings_follow_their_order),
        cmocka_unit_test(a_readable_credential_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, forget);
}
