/*
 * The rows of the table, first match first, and the ones that work on files. Every row is a plain
 * function that runs from its start on each request: bi_call gives a result that is already there,
 * or notes the call and NULL, and the row returns.
 */
#include <ctype.h>

#include "llmsvc/bi.h"

#define SHOW_MAX  4096
#define FILES_MAX 8

#define WORDS(...)        \
    (const char *const[]) \
    {                     \
        __VA_ARGS__, NULL \
    }
#define SUMMARY                                                                                   \
    WORDS("summarise", "summarize", "summary", "key points", "main points", "report", "research", \
          "analyse", "analyze", "explain", "tl", "gist", "takeaways")

static json_object *parsed(const char *text)
{
    json_object *o = NULL;

    if (!text || (*text != '{' && *text != '[') || json_parse(text, strlen(text), &o))
        return NULL;
    return o;
}

void bi_error_text(const char *result, char out[300])
{
    cleanup(json_putp) json_object *o = parsed(result);
    json_object *e = json_obj(o, "error");

    snprintf(out, 300, "%.40s%s%.240s", json_str(e, "code", ""), e ? ": " : "",
             e        ? json_str(e, "message", "")
             : result ? result
                      : "");
}

static bool is_folder_path(const char *p)
{
    const char *name = strrchr(p, '/');

    return str_ends(p, "/") || !name || !strchr(name, '.');
}

static void workspace(const struct bi *b, char out[256])
{
    snprintf(out, 256, "/users/%s/workspace", *b->user ? b->user : "admin");
}

/* The folder a clause is about: its path, or the workspace. */
static void folder_of(const struct bi *b, const struct clause *c, char out[1100])
{
    if (c->n_paths) {
        snprintf(out, 1100, "%s", c->paths[0]);
        for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--)
            out[n - 1] = '\0';
    } else {
        workspace(b, out);
    }
}

/* --- calls on files --- */

/* Text of a file (borrowed), NULL while it waits or failed (*err). */
static const char *read_file(struct bi *b, const char *path, bool *err, size_t *len)
{
    const char *s =
        bi_call(b, "fs/read", json_make("path:s length:i", path, (int64_t)FILE_MAX), err);

    *len = s ? strlen(s) : 0;
    return *err ? NULL : s;
}

static void note_error(const char *path, const char *result, struct buf *out)
{
    char text[300];

    bi_error_text(result, text);
    buf_printf(out, "%s: %s\n", path, text);
}

static void table_of(const char *result, struct buf *out)
{
    cleanup(json_putp) json_object *o = parsed(result);
    json_object *items = json_arr(o, "items"), *names = json_arr(o, "entries");
    size_t n = items   ? json_object_array_length(items)
               : names ? json_object_array_length(names)
                       : 0;

    if (!n) {
        buf_adds(out, "(empty)\n");
        return;
    }
    if (!items) {
        for (size_t i = 0; i < n; i++)
            buf_printf(out, "- %s\n", json_object_get_string(json_object_array_get_idx(names, i)));
        return;
    }
    buf_adds(out, "| name | kind | bytes |\n|---|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        json_object *e = json_object_array_get_idx(items, i);

        buf_printf(out, "| %s | %s | %lld |\n", json_str(e, "name", ""), json_str(e, "kind", ""),
                   (long long)json_int(e, "size", 0));
    }
}

static const char *list_call(struct bi *b, const char *path, bool *err)
{
    return bi_call(b, "fs/list", json_make("path:s details:b", path, 1), err);
}

static void row_list(struct bi *b, const struct clause *c, struct buf *out)
{
    char path[1100];
    bool err = false;

    folder_of(b, c, path);
    if (!bi_has(b, "fs/list")) {
        bi_missing(b, "fs/list", out);
        return;
    }
    const char *s = list_call(b, path, &err);
    if (!s)
        return;
    if (err) {
        note_error(path, s, out);
        return;
    }
    buf_printf(out, "%s:\n", path);
    table_of(s, out);
}

static void row_read(struct bi *b, const struct clause *c, struct buf *out)
{
    bool err = false;
    size_t len = 0;
    const char *path = c->paths[0];

    if (!bi_has(b, "fs/read")) {
        bi_missing(b, "fs/read", out);
        return;
    }
    const char *s =
        bi_call(b, "fs/read", json_make("path:s length:i", path, (int64_t)FILE_MAX), &err);
    if (!s)
        return;
    free(b->prev_path);
    b->prev_path = xstrdup(path);
    if (err) {
        char text[300];
        bi_error_text(s, text);
        if ((strstr(text, "EISDIR") || strstr(text, "directory")) && bi_has(b, "fs/list")) {
            row_list(b, c, out); /* the one alternative: a folder where a file was expected */
            return;
        }
        note_error(path, s, out);
        return;
    }
    len = strlen(s);
    buf_printf(out, "%s:\n\n", path);
    buf_add(out, s, len > SHOW_MAX ? utf8_floor(s, SHOW_MAX) : len);
    buf_adds(out, len > SHOW_MAX              ? "\n… (cut after 4 KiB)\n"
                  : len && s[len - 1] == '\n' ? ""
                                              : "\n");
}

/* Text after "with the text", "containing", "saying"; NULL if there is none. */
static const char *plain_content(const struct clause *c)
{
    static const char *const marks[] = { "with the text ", "with the content ", "with content ",
                                         "containing ",    "saying ",           "that says " };

    for (size_t i = 0; i < N_ELEMS(marks); i++) {
        const char *p = strcasestr(c->text, marks[i]);

        if (p && p[strlen(marks[i])])
            return p + strlen(marks[i]);
    }
    return NULL;
}

static void row_summary(struct bi *b, const struct clause *c, size_t n_paths, struct buf *out);

static void write_file(struct bi *b, const char *path, const char *content, bool append,
                       struct buf *out)
{
    bool err = false;
    json_object *in = json_make("path:s content:s", path, content);

    if (append)
        json_add_str(in, "mode", "append");
    const char *s = bi_call(b, "fs/write", in, &err);
    if (!s)
        return;
    if (err) {
        note_error(path, s, out);
        return;
    }
    cleanup(json_putp) json_object *o = parsed(s);
    buf_printf(out, "%s %s (%lld bytes).\n", append ? "Appended to" : "Saved", path,
               (long long)json_int(o, "bytes_written", (int64_t)strlen(content)));
}

static void row_write(struct bi *b, const struct clause *c, struct buf *out)
{
    cleanup(buf_done) struct buf made = BUF_INIT(TEXT_MAX);
    const char *path = c->paths[c->n_paths - 1], *content = c->n_quotes ? c->quotes[0] : c->code;

    if (!bi_has(b, "fs/write")) {
        bi_missing(b, "fs/write", out);
        return;
    }
    if (!content && has_any(c, SUMMARY) && c->n_paths > 1) { /* "write a summary of A to B" */
        row_summary(b, c, c->n_paths - 1, &made);
        if (bi_waits(b))
            return;
        buf_add(out, made.data ? made.data : "", made.len);
        content = made.data;
    }
    if (!content)
        content = plain_content(c);
    if (!content && b->prev.len)
        content = b->prev.data;
    if (!content && has_word(c, "create") && has_any(c, WORDS("empty", "new")))
        content = "";
    if (!content) {
        buf_printf(
            out,
            "I do not know what to write to %s: give the text in quotes, or first a step whose answer is to be saved.\n",
            path);
        return;
    }
    write_file(b, path, content, has_word(c, "append"), out);
}

static void row_find(struct bi *b, const struct clause *c, struct buf *out)
{
    char dir[1100], pattern[600];
    bool err = false;

    if (!bi_has(b, "fs/glob")) {
        bi_missing(b, "fs/glob", out);
        return;
    }
    const char *name = c->glob ? c->glob : c->n_quotes ? c->quotes[0] : NULL;
    workspace(b, dir);
    if (!name && c->n_paths) {
        const char *base = strrchr(c->paths[0], '/');
        name = base ? base + 1 : c->paths[0];
    } else if (c->n_paths) {
        folder_of(b, c, dir);
    }
    if (!name)
        name = "*";
    snprintf(pattern, sizeof pattern, "%s%.500s", strchr(name, '/') ? "" : "**/", name);
    const char *s = bi_call(b, "fs/glob", json_make("pattern:s path:s", pattern, dir), &err);
    if (!s)
        return;
    if (err) {
        note_error(dir, s, out);
        return;
    }
    cleanup(json_putp) json_object *o = parsed(s);
    json_object *paths = json_arr(o, "paths");
    size_t n = paths ? json_object_array_length(paths) : 0;
    buf_printf(out, "%zu file%s match %s below %s%s\n", n, n == 1 ? "" : "s", pattern, dir,
               n ? ":" : ".");
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "- %s\n", json_object_get_string(json_object_array_get_idx(paths, i)));
}

/* The term of a search: quoted, or what follows "for". */
static void term_of(const struct clause *c, char out[200])
{
    const char *p = c->n_quotes ? NULL : strstr(c->words, " for ");

    *out = '\0';
    if (c->n_quotes) {
        snprintf(out, 200, "%.190s", c->quotes[0]);
        return;
    }
    if (!p && (p = strstr(c->words, " grep ")))
        p++;
    if (!p)
        return;
    snprintf(out, 200, "%.190s", p + 5);
    char *in = strstr(out, " in ");
    if (in)
        *in = '\0';
    for (size_t n = strlen(out); n > 0 && out[n - 1] == ' '; n--)
        out[n - 1] = '\0';
}

static void hits_of(const char *result, struct buf *out)
{
    cleanup(json_putp) json_object *o = parsed(result);
    json_object *m = json_arr(o, "matches");
    size_t n = m ? json_object_array_length(m) : 0;
    const char *last = "";

    for (size_t i = 0; i < n && i < 100; i++) {
        json_object *e = json_object_array_get_idx(m, i);
        const char *path = json_str(e, "path", "");

        if (!str_eq(path, last))
            buf_printf(out, "%s:\n", path);
        last = path;
        buf_printf(out, "- line %lld: %.200s\n", (long long)json_int(e, "line", 0),
                   json_str(e, "text", ""));
    }
    if (!n)
        buf_adds(out, "No hits.\n");
}

static void row_search(struct bi *b, const struct clause *c, struct buf *out)
{
    char dir[1100], term[200];
    bool err = false;

    term_of(c, term);
    folder_of(b, c, dir);
    if (!bi_has(b, "fs/search")) {
        bi_missing(b, "fs/search", out);
        return;
    }
    if (!*term) {
        buf_adds(out, "I do not know what to search for: put the term in quotes.\n");
        return;
    }
    const char *s =
        bi_call(b, "fs/search", json_make("query:s path:s ignore_case:b", term, dir, 1), &err);
    if (!s)
        return;
    if (err) {
        note_error(dir, s, out);
        return;
    }
    buf_printf(out, "\"%s\" below %s:\n", term, dir);
    hits_of(s, out);
}

static void count_text(const struct clause *c, const char *path, const char *s, struct buf *out)
{
    size_t lines = 0, words = 0, chars = 0;
    bool in = false;

    for (const char *p = s; *p; p++) {
        lines += *p == '\n';
        chars += (*p & 0xc0) != 0x80;
        if (isspace((unsigned char)*p))
            in = false;
        else if (!in) {
            in = true;
            words++;
        }
    }
    lines += *s && s[strlen(s) - 1] != '\n';
    if (c->n_quotes) {
        size_t hits = 0;
        for (const char *p = s; (p = strstr(p, c->quotes[0])); p += strlen(c->quotes[0]))
            hits++;
        buf_printf(out, "\"%s\" occurs %zu times in %s.\n", c->quotes[0], hits, path);
        return;
    }
    buf_printf(out, "%s: %zu lines, %zu words, %zu characters.\n", path, lines, words, chars);
}

static void row_count(struct bi *b, const struct clause *c, struct buf *out)
{
    bool err = false, folder = !c->n_paths || is_folder_path(c->paths[0]) ||
                               has_any(c, WORDS("files", "entries", "folders"));
    const char *tool = folder ? "fs/list" : "fs/read";
    char dir[1100];
    size_t len = 0;

    if (!bi_has(b, tool)) {
        bi_missing(b, tool, out);
        return;
    }
    if (!folder) {
        const char *s = read_file(b, c->paths[0], &err, &len);
        if (s)
            count_text(c, c->paths[0], s, out);
        else if (err)
            buf_printf(out, "%s cannot be read.\n", c->paths[0]);
        return;
    }
    folder_of(b, c, dir);
    const char *s = list_call(b, dir, &err);
    if (!s)
        return;
    if (err) {
        note_error(dir, s, out);
        return;
    }
    cleanup(json_putp) json_object *o = parsed(s);
    json_object *items = json_arr(o, "items"), *names = json_arr(o, "entries");
    size_t n = names   ? json_object_array_length(names)
               : items ? json_object_array_length(items)
                       : 0,
           files = 0;
    for (size_t i = 0; items && i < json_object_array_length(items); i++)
        files += str_eq(json_str(json_object_array_get_idx(items, i), "kind", ""), "file");
    buf_printf(out, "%s holds %zu entries", dir, n);
    if (items)
        buf_printf(out, ": %zu files and %zu folders", files, n - files);
    buf_adds(out, ".\n");
}

/* --- summaries --- */

/* Reads up to FILES_MAX files at once; those that answered become sources. */
static size_t read_all(struct bi *b, json_object *paths, struct source *src, struct buf *errors)
{
    size_t n = paths ? json_object_array_length(paths) : 0, out = 0;

    for (size_t i = 0; i < n && i < FILES_MAX; i++) {
        const char *path = json_object_get_string(json_object_array_get_idx(paths, i));
        bool err = false;
        const char *s =
            bi_call(b, "fs/read", json_make("path:s length:i", path, (int64_t)FILE_MAX), &err);

        if (s && err)
            note_error(path, s, errors);
        else if (s)
            src[out++] = (struct source){ path, s, strlen(s) };
    }
    return out;
}

static void say_summary(struct bi *b, const struct clause *c, const struct source *src, size_t n,
                        const char *what, struct buf *out)
{
    cleanup(buf_done) struct buf text = BUF_INIT(TEXT_MAX);

    if (n == 1 && bi_data(src, &text)) {
        buf_printf(out, "Summary of %s:\n\n%s", what, text.data);
        return;
    }
    if (n && bi_summary(src, n, b->goal, c->count, &text))
        buf_printf(out, "Summary of %s:\n\n%s", what, text.data);
    else
        buf_printf(out, "%s holds no text to summarise.\n", what);
}

static void summary_folder(struct bi *b, const struct clause *c, const char *dir, struct buf *out)
{
    struct source src[FILES_MAX];
    bool err = false;

    const char *s =
        bi_call(b, "fs/glob",
                json_make("pattern:s path:s limit:i", "**/*.{md,txt,csv,json,log,rst,org}", dir,
                          (int64_t)FILES_MAX),
                &err);
    if (!s)
        return;
    if (err) {
        note_error(dir, s, out);
        return;
    }
    cleanup(json_putp) json_object *o = parsed(s);
    size_t n = read_all(b, json_arr(o, "paths"), src, out);
    if (bi_waits(b))
        return;
    if (n)
        say_summary(b, c, src, n, dir, out);
    else
        buf_printf(out, "No source was found below %s.\n", dir);
}

static void summary_file(struct bi *b, const struct clause *c, const char *path, struct buf *out)
{
    bool err = false;
    char text[300];

    const char *s =
        bi_call(b, "fs/read", json_make("path:s length:i", path, (int64_t)FILE_MAX), &err);
    if (!s)
        return;
    free(b->prev_path);
    b->prev_path = xstrdup(path);
    if (!err) {
        struct source src = { path, s, strlen(s) };
        say_summary(b, c, &src, 1, path, out);
        return;
    }
    bi_error_text(s, text);
    if ((strstr(text, "EISDIR") || strstr(text, "directory")) && !strstr(text, "ENOENT") &&
        bi_has(b, "fs/glob"))
        summary_folder(b, c, path, out);
    else
        buf_printf(out, "%s: %s\n", path, text);
}

/* Words of the topic, best first by length; "" if none. */
static void topic_of(const struct clause *c, char out[200])
{
    static const char skip[] =
        " summarise summarize summary key points main report research analyse analyze explain the a an of on "
        "about what we know to me in for and give please write make do does is are you can my our this that all "
        "tell how why with from gist takeaways short brief ";
    size_t best = 0;

    *out = '\0';
    if (c->n_quotes) {
        snprintf(out, 200, "%.190s", c->quotes[0]);
        return;
    }
    for (const char *p = c->words; *p;) {
        size_t blank = strspn(p, " "), n = strcspn(p + blank, " ");
        char key[80];

        p += blank;
        if (n && n < 70) {
            snprintf(key, sizeof key, " %.*s ", (int)n, p);
            if (!strstr(skip, key) && n > best) {
                snprintf(out, 200, "%.*s", (int)n, p);
                best = n;
            }
        }
        p += n;
    }
}

static void summary_topic(struct bi *b, const struct clause *c, struct buf *out)
{
    cleanup(json_putp) json_object *files = json_new_arr();
    struct source src[FILES_MAX];
    char dir[256], term[200];
    bool err = false;

    workspace(b, dir);
    topic_of(c, term);
    if (!*term) {
        buf_adds(out, "I do not know what to summarise: name a file, a folder or a topic.\n");
        return;
    }
    if (!bi_has(b, "fs/search")) {
        bi_missing(b, "fs/search", out);
        return;
    }
    const char *s =
        bi_call(b, "fs/search", json_make("query:s path:s ignore_case:b", term, dir, 1), &err);
    if (!s)
        return;
    if (err) {
        note_error(dir, s, out);
        return;
    }
    cleanup(json_putp) json_object *o = parsed(s);
    json_object *m = json_arr(o, "matches");
    for (size_t i = 0; m && i < json_object_array_length(m) && json_object_array_length(files) < 5;
         i++) {
        const char *path = json_str(json_object_array_get_idx(m, i), "path", "");
        if (!json_arr_has(files, path))
            json_push_str(files, path);
    }
    if (!json_object_array_length(files)) {
        buf_printf(out, "No source was found: I searched for \"%s\" below %s.\n", term, dir);
        return;
    }
    if (!bi_has(b, "fs/read")) {
        bi_missing(b, "fs/read", out);
        return;
    }
    size_t n = read_all(b, files, src, out);
    if (bi_waits(b))
        return;
    say_summary(b, c, src, n, term, out);
}

/* Text that came with the goal: what follows a colon or the first line, when it is long. */
static const char *inline_text(const struct bi *b)
{
    const char *nl = strchr(b->goal, '\n'), *colon = strchr(b->goal, ':');
    const char *at = colon && (!nl || colon < nl) ? colon + 1 : nl;

    return at && strlen(at) > 400 ? at : NULL;
}

static void row_summary(struct bi *b, const struct clause *c, size_t n_paths, struct buf *out)
{
    const char *text = n_paths ? NULL : inline_text(b);

    if (text) {
        struct source src = { NULL, text, strlen(text) };
        say_summary(b, c, &src, 1, "the text", out);
        return;
    }
    if (!n_paths && b->prev_path && bi_has(b, "fs/read")) {
        cleanup(freep) char *path = xstrdup(b->prev_path);
        summary_file(b, c, path, out);
        return;
    }
    if (!n_paths && !has_any(c, WORDS("workspace", "folder", "directory"))) {
        summary_topic(b, c, out);
        return;
    }
    if (!bi_has(b, "fs/read")) {
        bi_missing(b, "fs/read", out);
        return;
    }
    if (!n_paths || (n_paths == 1 && is_folder_path(c->paths[0]))) {
        char dir[1100];

        folder_of(b, c, dir);
        if (bi_has(b, "fs/glob"))
            summary_folder(b, c, dir, out);
        else
            bi_missing(b, "fs/glob", out);
        return;
    }
    if (n_paths == 1) {
        summary_file(b, c, c->paths[0], out);
        return;
    }
    cleanup(json_putp) json_object *paths = json_new_arr();
    struct source src[FILES_MAX];
    for (size_t i = 0; i < n_paths; i++)
        json_push_str(paths, c->paths[i]);
    size_t n = read_all(b, paths, src, out);
    if (!bi_waits(b) && n)
        say_summary(b, c, src, n, "the files", out);
}

/* --- the table --- */

enum row {
    ROW_HELP,
    ROW_RUN,
    ROW_COMPUTE,
    ROW_WRITE,
    ROW_LIST,
    ROW_FIND,
    ROW_SEARCH,
    ROW_READ,
    ROW_COUNT,
    ROW_REMEMBER,
    ROW_RECALL,
    ROW_DELEGATE,
    ROW_CALL,
    ROW_SUMMARY,
    ROW_NONE
};

static bool greeting(const struct clause *c)
{
    static const char *const hello[] = { " hello ", " hi ", " hey ", " good morning ",
                                         " good evening " };

    if (c->n_paths || c->n_quotes)
        return false;
    for (size_t i = 0; i < N_ELEMS(hello); i++)
        if (str_starts(c->words, hello[i]) && strlen(c->words) < 40)
            return true;
    return has_any(c, WORDS("what can you do", "list tools", "list your tools", "help",
                            "who are you", "which tools"));
}

static enum row row_of(const struct clause *c)
{
    bool folder = c->n_paths || has_any(c, WORDS("folder", "directory", "workspace", "files"));
    bool summary = has_any(c, SUMMARY);

    if (greeting(c))
        return ROW_HELP;
    if (c->code && has_any(c, WORDS("run", "execute")))
        return ROW_RUN;
    if (c->expr &&
        has_any(c, WORDS("calculate", "compute", "what is", "what's", "how much is", "evaluate")))
        return ROW_COMPUTE;
    if (c->n_paths && has_any(c, WORDS("write", "save", "append", "create", "store", "put")))
        return ROW_WRITE;
    if (folder && !summary &&
        has_any(c, WORDS("list", "what is in", "what's in", "contents of", "ls")))
        return ROW_LIST;
    if ((c->glob || c->n_paths || c->n_quotes) && has_any(c, WORDS("find", "locate")))
        return ROW_FIND;
    if (has_any(c, WORDS("search", "grep", "look for")))
        return ROW_SEARCH;
    if (c->n_paths && !summary &&
        has_any(c, WORDS("read", "show", "print", "cat", "open", "display")))
        return ROW_READ;
    if (has_any(c, WORDS("count", "how many")))
        return ROW_COUNT;
    if (has_any(c, WORDS("recall", "what do you know", "what do you remember")))
        return ROW_RECALL;
    if (has_word(c, "remember"))
        return ROW_REMEMBER;
    if (has_any(c, WORDS("spawn", "delegate to", "ask agent", "ask the agent")))
        return ROW_DELEGATE;
    if (has_word(c, "use") && c->json && strchr(c->text, '/'))
        return ROW_CALL;
    if (summary)
        return ROW_SUMMARY;
    return c->expr ? ROW_COMPUTE : ROW_NONE;
}

void bi_clause(struct bi *b, const struct clause *c, struct buf *out)
{
    switch (row_of(c)) {
    case ROW_HELP:
        bi_help(b, out);
        break;
    case ROW_RUN:
        bi_run_code(b, c, out);
        break;
    case ROW_COMPUTE:
        bi_compute(b, c, out);
        break;
    case ROW_WRITE:
        row_write(b, c, out);
        break;
    case ROW_LIST:
        row_list(b, c, out);
        break;
    case ROW_FIND:
        row_find(b, c, out);
        break;
    case ROW_SEARCH:
        row_search(b, c, out);
        break;
    case ROW_READ:
        row_read(b, c, out);
        break;
    case ROW_COUNT:
        row_count(b, c, out);
        break;
    case ROW_REMEMBER:
    case ROW_RECALL:
        bi_memory(b, c, row_of(c) == ROW_REMEMBER, out);
        break;
    case ROW_DELEGATE:
        bi_delegate(b, c, out);
        break;
    case ROW_CALL:
        bi_use(b, c, out);
        break;
    case ROW_SUMMARY:
        row_summary(b, c, c->n_paths, out);
        break;
    case ROW_NONE:
        bi_refuse(c, out);
        break;
    }
}
