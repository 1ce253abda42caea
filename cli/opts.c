/*
 * Parsing of the command line from the command table. The longest run of leading words that names a
 * command is the command; flags may stand anywhere; what is unknown names its nearest match.
 */
#include <errno.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "common/base/buf.h"
#include "common/base/fsx.h"
#include "common/base/yaml.h"

static const char global_flags[] =
    "json url=URL server-url=URL admin-url=URL identity=NAME credential-file=FILE token=T profile=P "
    "config=FILE ca=FILE fingerprint=SHA256 timeout=S retry=S color=auto|always|never quiet q log=LEVEL "
    "wide no-header columns=A,B help h version V";

int cmd_version(struct cli *c)
{
    if (c->json)
        printf("{\"version\":\"%s\"}\n", AVIX_VERSION);
    else
        printf("avix %s\n", AVIX_VERSION);
    return EX_DONE;
}

/* Finds name in a flag list: 0 absent, 1 switch, 2 takes a value. */
static int flag_kind(const char *list, const char *name, size_t len)
{
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, " "), k = strcspn(p, "= ");
        if (k == len && memcmp(p, name, len) == 0)
            return k < n ? 2 : 1;
        p += n;
        p += strspn(p, " ");
    }
    return 0;
}

static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= N_ELEMS(row) || strlen(a) >= N_ELEMS(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t up = row[j], best = diag + (a[i - 1] != b[j - 1]);
            if (up + 1 < best)
                best = up + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diag = up;
            row[j] = best;
        }
    }
    return row[n];
}

static void nearest_flag(const char *list, const char *name, char *best, size_t size, size_t *score)
{
    for (const char *p = list; *p;) {
        char word[40];
        size_t n = strcspn(p, " "), k = strcspn(p, "= ");
        if (k > 1 && k < sizeof word) {
            memcpy(word, p, k);
            word[k] = 0;
            size_t d = distance(name, word);
            if (d < *score) {
                *score = d;
                str_copy(best, size, word);
            }
        }
        p += n;
        p += strspn(p, " ");
    }
}

static int bad_flag(const struct cli *c, const char *name)
{
    char best[40] = "";
    size_t score = 4;
    nearest_flag(global_flags, name, best, sizeof best, &score);
    if (c->cmd)
        nearest_flag(c->cmd->flags, name, best, sizeof best, &score);
    fprintf(stderr, "avix: unknown flag --%s%s%s\n", name, *best ? "; did you mean --" : "", best);
    return EX_USE;
}

static int bad_command(const char *words)
{
    const char *best = NULL;
    size_t score = 8;
    for (size_t i = 0; i < n_commands; i++) {
        size_t d = distance(words, commands[i].path);
        if (d < score) {
            score = d;
            best = commands[i].path;
        }
    }
    fprintf(stderr, "avix: unknown command '%s'%s%s%s\n", words,
            best ? "; did you mean 'avix " : "", best ? best : "",
            best ? "'" : "; see 'avix help'");
    return EX_USE;
}

static void print_flags(const char *list, FILE *out)
{
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, " "), k = strcspn(p, "= ");
        fprintf(out, "      %s%.*s%s%.*s\n", k == 1 ? "-" : "--", (int)k, p, k < n ? " " : "",
                (int)(k < n ? n - k - 1 : 0), p + (k < n ? k + 1 : 0));
        p += n;
        p += strspn(p, " ");
    }
}

int cli_help(const char *prefix, FILE *out)
{
    size_t shown = 0, len = strlen(prefix);
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *m = &commands[i];
        if (!str_starts(m->path, prefix) || (len && m->path[len] && m->path[len] != ' '))
            continue;
        if (shown++ == 0)
            fprintf(out, "usage: avix <group> <command> [arguments] [flags]\n\n");
        fprintf(out, "  avix %s%s%s\n      %s\n", m->path, *m->args ? " " : "", m->args, m->help);
        if (len)
            print_flags(m->flags, out);
    }
    if (shown && len == 0)
        fprintf(
            out,
            "\nMore: avix <group> <command> --help; global flags: --json --url --identity --credential-file "
            "--token --profile --config --ca --fingerprint --timeout --retry --color --quiet --wide\n");
    return shown ? EX_DONE : bad_command(prefix);
}

/* The command named by leading words; *used words belong to it. */
static const struct command *find_command(char *const *words, size_t n, size_t *used)
{
    const struct command *hit = NULL;
    char path[128] = "";
    for (size_t i = 0; i < n && i < 4; i++) {
        size_t l = strlen(path);
        snprintf(path + l, sizeof path - l, "%s%s", l ? " " : "", words[i]);
        for (size_t k = 0; k < n_commands; k++)
            if (strcmp(commands[k].path, path) == 0) {
                hit = &commands[k];
                *used = i + 1;
            }
    }
    return hit;
}

static bool is_group(const char *words)
{
    size_t n = strlen(words);
    for (size_t i = 0; i < n_commands; i++)
        if (str_starts(commands[i].path, words) && (commands[i].path[n] == ' ' || n == 0))
            return true;
    return false;
}

static int add_flag(struct cli *c, const char *name, const char *value)
{
    if (c->n_flags == CLI_FLAGS_MAX) {
        fprintf(stderr, "avix: too many flags\n");
        return EX_USE;
    }
    c->flags[c->n_flags].name = name;
    c->flags[c->n_flags++].value = value;
    return 0;
}

/* Splits argv into words and flags; a flag's kind needs the command, so words come first. */
static int parse_flags(struct cli *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (strcmp(a, "--") == 0)
            break;
        if (a[0] != '-' || !a[1])
            continue;
        char *name = a + 1 + (a[1] == '-');
        char *eq = strchr(name, '=');
        size_t len = eq ? (size_t)(eq - name) : strlen(name);
        int kind = flag_kind(global_flags, name, len);
        if (!kind && c->cmd)
            kind = flag_kind(c->cmd->flags, name, len);
        if (eq)
            *eq = '\0'; /* argv is ours: name and value are two texts from here on */
        if (!kind)
            return bad_flag(c, name);
        const char *value = "";
        if (kind == 2) {
            value = eq ? eq + 1 : i + 1 < argc ? argv[++i] : NULL;
            if (!value) {
                fprintf(stderr, "avix: --%s needs a value\n", name);
                return EX_USE;
            }
        }
        int r = add_flag(c, name, value);
        if (r)
            return r;
    }
    return 0;
}

/* Words that are no flag and no flag's value, in order. A flag's value is skipped by its kind in
 * any command. */
static size_t collect_words(const struct cli *c, int argc, char **argv, char **words, size_t max)
{
    size_t n = 0;
    bool rest = false;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (!rest && strcmp(a, "--") == 0) {
            rest = true;
            continue;
        }
        if (!rest && a[0] == '-' && a[1]) {
            char *name = a + 1 + (a[1] == '-');
            int kind = flag_kind(global_flags, name, strlen(name));
            for (size_t k = 0; !kind && k < n_commands; k++)
                if (!c->cmd || c->cmd == &commands[k])
                    kind = flag_kind(commands[k].flags, name, strlen(name));
            if (kind == 2)
                i++;
            continue;
        }
        if (n < max)
            words[n++] = a;
    }
    return n;
}

static int load_config(struct cli *c)
{
    char path[512];
    const char *given = cli_flag(c, "config");
    if (!given)
        given = getenv("AVIX_CONFIG");
    if (given) {
        str_copy(path, sizeof path, given);
    } else {
        const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
        int n = str_empty(xdg)
                    ? snprintf(path, sizeof path, "%s/.config/avix/client.yaml", home ? home : "")
                    : snprintf(path, sizeof path, "%s/avix/client.yaml", xdg);
        if (n < 0 || (size_t)n >= sizeof path)
            return 0;
    }
    struct stat st;
    if (stat(path, &st) < 0) {
        if (given && errno == ENOENT) {
            fprintf(stderr, "avix: %s: no such file\n", path);
            return EX_LOCAL;
        }
        return 0;
    }
    struct yaml_err e = { 0 };
    int r = yaml_load(path, &c->config, &e);
    if (r) {
        fprintf(stderr, "avix: %s:%d: %s\n", path, e.line, r < 0 ? strerror(-r) : e.msg);
        return EX_LOCAL;
    }
    if (json_get(c->config, "credential") && (st.st_mode & 077)) {
        fprintf(stderr, "avix: %s holds a credential and others can read it\nhint: chmod 600 %s\n",
                path, path);
        return EX_LOCAL;
    }
    return 0;
}

int cli_parse(struct cli *c, int argc, char **argv)
{
    char *words[CLI_ARGS_MAX];
    size_t used = 0, n = collect_words(c, argc, argv, words, N_ELEMS(words));
    bool help = false;
    for (int i = 1; i < argc; i++)
        help = help || strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
        return cmd_version(c);
    if (n && strcmp(words[0], "help") == 0) {
        help = true;
        memmove(words, words + 1, --n * sizeof *words);
    }
    c->cmd = find_command(words, n, &used);
    if (c->cmd)
        n = collect_words(c, argc, argv, words,
                          N_ELEMS(words)); /* with the command's own flags this time */
    cleanup(freep) char *all = NULL;
    struct buf b = BUF_INIT(4096);
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "%s%s", i ? " " : "", words[i]);
    all = buf_take(&b);
    if (help || !c->cmd) {
        bool group = n == 0 || is_group(all);
        int r = help    ? cli_help(c->cmd ? c->cmd->path : all, stdout)
                : group ? (cli_help(all, stderr), EX_USE)
                        : bad_command(all);
        c->cmd = NULL;
        return r;
    }
    for (size_t i = used; i < n; i++)
        c->args[c->n_args++] = words[i];
    int r = parse_flags(c, argc, argv);
    if (r)
        return r;
    c->json = cli_has(c, "json");
    c->quiet = cli_has(c, "quiet") || cli_has(c, "q");
    c->wide = cli_has(c, "wide");
    c->no_header = cli_has(c, "no-header");
    size_t need = 0;
    for (const char *p = c->cmd->args; *p; p++)
        need += *p != '[' && (p == c->cmd->args || p[-1] == ' ') ? 1 : 0;
    if (c->n_args < need) {
        fprintf(stderr, "avix: %s needs %s\n", c->cmd->path, c->cmd->args);
        return EX_USE;
    }
    if (c->n_args > need && !strstr(c->cmd->args, "…") && !strchr(c->cmd->args, '[')) {
        fprintf(stderr, "avix: %s: unexpected argument '%s'\n", c->cmd->path, c->args[need]);
        return EX_USE;
    }
    return load_config(c);
}

const char *cli_flag(const struct cli *c, const char *name)
{
    for (size_t i = c->n_flags; i-- > 0;)
        if (strcmp(c->flags[i].name, name) == 0)
            return c->flags[i].value;
    return NULL;
}

bool cli_has(const struct cli *c, const char *name)
{
    return cli_flag(c, name) != NULL;
}

const char *cli_setting(const struct cli *c, const char *flag, const char *env, const char *env2,
                        const char *key, const char *dflt)
{
    const char *v = flag ? cli_flag(c, flag) : NULL;
    if (!v && env && !str_empty(getenv(env)))
        v = getenv(env);
    if (!v && env2 && !str_empty(getenv(env2)))
        v = getenv(env2);
    const char *profile = cli_flag(c, "profile");
    if (!profile)
        profile = getenv("AVIX_PROFILE");
    if (!v && key && profile)
        v = json_str(json_obj(json_obj(c->config, "profiles"), profile), key, NULL);
    if (!v && key)
        v = json_str(c->config, key, NULL);
    return v ? v : dflt;
}
