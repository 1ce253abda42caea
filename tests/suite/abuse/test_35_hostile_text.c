/*
 * Security page, test 35, the command line: what a model, a tool or a file's name contains is shown
 * as text. No escape sequence, control, bidirectional or invisible character reaches the terminal,
 * in any command that prints what came from them, with and without --json.
 */
#include "tests/suite/agent_run.h"

#include "common/base/fsx.h"

/* JSON escapes, ' for ". A title, a clear screen, C1 CSI, a backspace over, bidi, zero width, tags,
 * variation selectors, a soft hyphen, a filler. */
#define NASTY                                                                                     \
    "\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\rover\\b\\b\\u007f\\u202etxt\\u202c\\u2066x"     \
    "\\u2069\\u200b\\u200d\\u00ad\\ufeff\\u061c\\u3164\\udb40\\udc41\\udb40\\udd01\\u2028\\u034f" \
    "\\u0085"

/* As bytes, what a command line and a file name can hold. */
#define NASTY_BYTES       \
    "\x1b[2J\xc2\x9b"     \
    "31m\r\b\xe2\x80\xae" \
    "txt\xe2\x80\x8b\xf3\xa0\x81\x81"

static const char script[] =
    "{'rules':[{'match':{'tool_result':false},'text':'Look: " NASTY
    "','tools':[{'name':'fs/write','input':{'path':'/users/admin/workspace/n" NASTY
    "','content':'" NASTY "'}},{'name':'fs/read','input':{'path':'/users/admin/workspace/" NASTY
    "'}}]}],'default':{'text':'Done " NASTY " end.'}}";

static uint32_t next_char(const unsigned char **p)
{
    uint32_t c = *(*p)++;
    int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;

    if (c >= 0x80 && c < 0xc0)
        return 0x1b; /* not UTF-8: as bad */
    c &= more ? 0x3fU >> more : 0x7f;
    while (more--)
        c = c << 6 | (*(*p)++ & 0x3f);
    return c;
}

static bool drives_or_hides(uint32_t c)
{
    static const uint32_t ranges[][2] = {
        { 0, 8 },           { 0xb, 0x1f },      { 0x7f, 0x9f },       { 0xad, 0xad },
        { 0x34f, 0x34f },   { 0x61c, 0x61c },   { 0x115f, 0x1160 },   { 0x180b, 0x180f },
        { 0x200b, 0x200f }, { 0x2028, 0x202e }, { 0x2060, 0x206f },   { 0x3164, 0x3164 },
        { 0xfeff, 0xfeff }, { 0xfff9, 0xfffb }, { 0xe0000, 0xe01ef },
    };

    for (size_t i = 0; i < N_ELEMS(ranges); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

static void harmless(const char *what, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    while (*p) {
        const unsigned char *at = p;
        uint32_t c = next_char(&p);

        if (drives_or_hides(c))
            fail_msg("%s: U+%04X at byte %td, after '%.*s'", what, c, (const char *)at - text, 40,
                     (const char *)at - text > 40 ? (const char *)at - 40 : text);
    }
}

/* Runs it, checks both outputs; the standard one is yours. */
static char *shown(struct rig *g, int exit, const char *a1, const char *a2, const char *a3,
                   const char *a4, const char *a5, const char *a6, const char *a7)
{
    char *out = NULL;
    cleanup(freep) char *err = NULL, *what = xasprintf("%s %s %s", a1, a2, a3 ? a3 : "");
    int r = rig_avix(g, &out, &err, a1, a2, a3, a4, a5, a6, a7, NULL);

    if (exit >= 0 && r != exit)
        fail_msg("%s: exit %d\n%s%s", what, r, out, err);
    harmless(what, out);
    harmless(what, err);
    return out;
}

static void as_text(char *out, const char *contains)
{
    if (!strstr(out, contains))
        fail_msg("no '%s' in:\n%s", contains, out);
    free(out);
}

static void everything_is_text(void **state)
{
    struct arun *a = arun_new("anthropic", script, NULL);
    struct rig *g = a->g;
    cleanup(freep) char *path = NULL;

    (void)state;
    as_text(shown(g, 0, "client", "agent", "spawn", "researcher", "--goal=go" NASTY_BYTES,
                  "--title=t" NASTY_BYTES, "--follow"),
            "Done \\x1b]0;owned\\x07");
    as_text(
        shown(g, 0, "client", "agent", "spawn", "researcher", "--goal=again", "--follow", "--json"),
        "\\u001b]0;owned");
    cleanup(json_putp) json_object *rows = NULL;
    char *text = shown(g, 0, "client", "agent", "history", "--live", "--json", NULL, NULL);

    assert_int_equal(json_parse(text, strlen(text), &rows), 0); /* still a document */
    free(text);
    const char *inv = json_str(json_object_array_get_idx(rows, 0), "id", "");

    assert_true(*inv);
    as_text(shown(g, 0, "client", "agent", "show", inv, NULL, NULL, NULL), "\\x1b]0;owned");
    as_text(shown(g, 0, "client", "agent", "show", inv, "--full", NULL, NULL), "\\x1b]0;owned");
    as_text(shown(g, 0, "client", "agent", "show", inv, "--json", NULL, NULL), "\\u009b31m");
    as_text(shown(g, 0, "client", "agent", "history", "--live", NULL, NULL, NULL), "researcher");
    as_text(shown(g, 0, "client", "agent", "list", NULL, NULL, NULL, NULL), "researcher");
    as_text(shown(g, 0, "client", "agent", "list", "--json", NULL, NULL, NULL), "researcher");
    as_text(shown(g, 0, "client", "session", "list", NULL, NULL, NULL, NULL), "\\x1b[2J");
    as_text(shown(g, 0, "client", "session", "list", "--json", NULL, NULL, NULL), "\\u001b[2J");
    as_text(
        shown(g, 0, "client", "events", "agent.output", "--since-seq=0", "--count=2", NULL, NULL),
        "\\u001b]0;owned");
    as_text(shown(g, 0, "client", "events", "agent.output", "--since-seq=0", "--count=2", "--json",
                  NULL),
            "\\u009b31m");

    /* a name of a file that lies there, and names that do not exist, in an error */
    path = xasprintf("%s/data/users/admin/workspace/planted" NASTY_BYTES, g->root);
    assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
    free(shown(g, -1, "client", "fs", "ls", "/users/admin/workspace", NULL, NULL, NULL));
    free(shown(g, -1, "client", "fs", "ls", "/users/admin/workspace", "--json", NULL, NULL));
    free(shown(g, -1, "client", "fs", "ls", "/none" NASTY_BYTES, NULL, NULL, NULL));
    free(shown(g, -1, "client", "agent", "spawn", "x" NASTY_BYTES, "--goal=x", NULL, NULL));
    free(shown(g, -1, "client", "agent", "show", "x" NASTY_BYTES, NULL, NULL, NULL));
    free(shown(g, -1, "client", "fs", "cat", "/none" NASTY_BYTES, "--json", NULL, NULL));
    free(shown(g, 0, "server", "logs", "gateway", NULL, NULL, NULL, NULL));
    free(shown(g, 0, "server", "logs", "kernel", NULL, NULL, NULL, NULL));
    free(shown(g, 0, "server", "status", NULL, NULL, NULL, NULL, NULL));
    arun_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(everything_is_text) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
