/* The operation table: every row against every role and listener, paths, signals, bodies. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/ops.h"

static json_object *parse(const char *text)
{
    json_object *o = NULL;

    assert_int_equal(json_parse(text, strlen(text), &o), 0);
    return o;
}

struct result {
    enum atp_code code;
    char detail[160], method[80], body[512];
};

static struct result try(enum role role, bool admin, const char *domain, const char *op,
                         const char *body)
{
    struct op_who who = { .identity = "alice", .role = role, .admin_listener = admin };
    struct atp_err e = { .detail = NULL };
    json_object *o = parse(body);
    const struct op *row = NULL;
    const char *method = "";
    struct result r = { .code = op_admit(&who, domain, op, o, &row, &method, &e) };

    snprintf(r.detail, sizeof(r.detail), "%s", e.detail ? json_text(e.detail) : "");
    snprintf(r.method, sizeof(r.method), "%s", method);
    snprintf(r.body, sizeof(r.body), "%s", json_text(o));
    atp_err_done(&e);
    json_put(o);
    return r;
}

/* A body that every operation takes. */
#define GOOD                                                                              \
    "{\"path\":\"/users/alice/x\",\"from\":\"/users/alice/a\",\"to\":\"/users/alice/b\"," \
    "\"pid\":157,\"signal\":\"SIGPAUSE\"}"

static void each_row_by_role_and_listener(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_ops; i++)
        for (int role = ROLE_GUEST; role <= ROLE_ADMIN; role++)
            for (int admin = 0; admin < 2; admin++) {
                const struct op *o = &ops[i];
                struct result r = try((enum role)role, admin, o->domain, o->op, GOOD);

                if (role < (int)o->min) {
                    assert_int_equal(r.code, ATP_EPERM);
                    assert_non_null(strstr(r.detail, "required_role"));
                } else if (o->flags & OP_ADMIN && !admin) {
                    assert_int_equal(r.code, ATP_EPERM);
                    assert_non_null(strstr(r.detail, "admin_listener"));
                } else {
                    assert_int_equal(r.code, ATP_OK);
                }
            }
}

static void each_row_is_found_once_and_names_a_method(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_ops; i++) {
        assert_ptr_equal(op_find(ops[i].domain, ops[i].op), &ops[i]);
        if (ops[i].gw != GW_WHOAMI && ops[i].gw != GW_READY)
            assert_true(strchr(ops[i].method, '/') != NULL);
    }
}

static void unknown_names(void **state)
{
    (void)state;
    assert_int_equal(try(ROLE_ADMIN, true, "proc", "nope", "{}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_ADMIN, true, "nope", "list", "{}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_ADMIN, true, "proc", "LIST", "{}").code, ATP_EPARSE);
    assert_non_null(strstr(try(ROLE_USER, true, "proc", "message-list", "{}").detail, "retired"));
    assert_non_null(strstr(try(ROLE_USER, true, "proc", "part-add", "{}").detail, "retired"));
}

static void identity_members_are_removed(void **state)
{
    struct result r = try(ROLE_USER, false, "proc", "spawn",
                          "{\"agent\":\"x\",\"_user\":{\"name\":\"root\"},\"_caller\":1,\"_\":2,"
                          "\"caller\":1,\"caller_identity\":1,\"is_privileged\":true,"
                          "\"atp_session_id\":\"x\",\"goal\":\"g\"}");

    (void)state;
    assert_int_equal(r.code, ATP_OK);
    assert_string_equal(r.body, "{\"agent\":\"x\",\"goal\":\"g\"}");
}

static void paths(void **state)
{
    static const struct {
        const char *path;
        bool change;
        enum atp_code want;
    } cases[] = {
        { "/users/alice/x", false, ATP_OK },
        { "/users/alice/x", true, ATP_OK },
        { "//users///alice/./x/", false, ATP_OK },
        { "/secrets", false, ATP_EPERM },
        { "/secrets/alice/key", false, ATP_EPERM },
        { "//secrets/./x", false, ATP_EPERM },
        { "/secrets/x", true, ATP_EPERM },
        { "/secretsx", false, ATP_OK },
        { "/proc/157/status.yaml", false, ATP_OK },
        { "/proc/157/status.yaml", true, ATP_EPERM },
        { "/./proc", true, ATP_EPERM },
        { "/users/../secrets/x", false, ATP_EPARSE },
        { "/users/..", true, ATP_EPARSE },
        { "/..", false, ATP_EPARSE },
        { "relative", false, ATP_EPARSE },
        { "", false, ATP_EPARSE },
        { "/a\nb", false, ATP_EPARSE },
        { "/a\xff", false, ATP_EPARSE },
        { "/users/..hidden", false, ATP_OK },
    };
    struct atp_err e = { .detail = NULL };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        assert_int_equal(op_path_check(cases[i].path, strlen(cases[i].path), cases[i].change, &e),
                         cases[i].want);
        atp_err_done(&e);
    }
    assert_int_equal(op_path_check("/a\0/../b", 8, false, &e), ATP_EPARSE);
    atp_err_done(&e);
}

static void path_members(void **state)
{
    (void)state;
    assert_int_equal(try(ROLE_USER, false, "fs", "read", "{}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_USER, false, "fs", "read", "{\"path\":1}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_USER, false, "fs", "write", "{\"path\":\"/proc/1/x\"}").code,
                     ATP_EPERM);
    assert_int_equal(
        try(ROLE_USER, false, "fs", "move", "{\"from\":\"/users/a\",\"to\":\"/secrets/x\"}").code,
        ATP_EPERM);
    assert_int_equal(
        try(ROLE_USER, false, "fs", "move", "{\"from\":\"/secrets/x\",\"to\":\"/users/a\"}").code,
        ATP_EPERM);
    assert_non_null(
        strstr(try(ROLE_USER, false, "fs", "move", "{\"from\":\"/users/a\"}").detail, "\"to\""));
}

static void pids_as_number_or_text(void **state)
{
    (void)state;
    assert_string_equal(try(ROLE_USER, false, "proc", "stat", "{\"pid\":\"157\"}").body,
                        "{\"pid\":157}");
    assert_string_equal(try(ROLE_USER, false, "proc", "kill", "{\"id\":157}").body,
                        "{\"pid\":157}");
    assert_int_equal(try(ROLE_USER, false, "proc", "kill", "{}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_USER, false, "proc", "kill", "{\"pid\":-1}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_USER, false, "proc", "kill", "{\"pid\":\"1x\"}").code, ATP_EPARSE);
    assert_int_equal(try(ROLE_USER, false, "proc", "kill", "{\"pid\":9007199254740992}").code,
                     ATP_EPARSE);
}

static void foreign_username_needs_operator(void **state)
{
    (void)state;
    assert_int_equal(try(ROLE_USER, false, "proc", "list", "{\"username\":\"bob\"}").code,
                     ATP_EPERM);
    assert_int_equal(try(ROLE_USER, false, "proc", "list", "{\"username\":\"alice\"}").code,
                     ATP_OK);
    assert_int_equal(try(ROLE_OPERATOR, false, "proc", "list", "{\"username\":\"bob\"}").code,
                     ATP_OK);
    assert_string_equal(try(ROLE_USER, false, "proc", "list", "{\"username\":\"\"}").body, "{}");
    assert_int_equal(try(ROLE_USER, false, "proc", "list-installed", "{\"username\":\"bob\"}").code,
                     ATP_OK);
}

static void waits_are_bounded(void **state)
{
    (void)state;
    assert_string_equal(try(ROLE_USER, false, "proc", "wait", "{\"pid\":1}").body,
                        "{\"pid\":1,\"timeout\":25}");
    assert_string_equal(try(ROLE_USER, false, "proc", "wait", "{\"pid\":1,\"timeout\":0}").body,
                        "{\"pid\":1,\"timeout\":1}");
    assert_int_equal(try(ROLE_USER, false, "proc", "wait", "{\"pid\":1,\"timeout\":26}").code,
                     ATP_EPARSE);
}

static void hard_pause_needs_operator(void **state)
{
    (void)state;
    assert_int_equal(try(ROLE_USER, false, "proc", "pause", "{\"pid\":1,\"hard\":true}").code,
                     ATP_EPERM);
    assert_int_equal(try(ROLE_OPERATOR, false, "proc", "pause", "{\"pid\":1,\"hard\":true}").code,
                     ATP_OK);
}

static void signals(void **state)
{
    static const struct {
        const char *body;
        enum atp_code want;
    } cases[] = {
        { "{\"signal\":\"SIGKILL\",\"pid\":\"5\"}", ATP_OK },
        { "{\"signal\":\"SIGKILL\",\"target\":5}", ATP_OK },
        { "{\"signal\":\"SIGKILL\",\"target\":\"broadcast\"}", ATP_OK },
        { "{\"signal\":\"SIGKILL\"}", ATP_EPARSE },
        { "{\"signal\":\"SIGKILL\",\"target\":\"everyone\"}", ATP_EPARSE },
        { "{\"signal\":\"SIGESCALATE\",\"pid\":5}", ATP_EPERM },
        { "{\"signal\":\"SIGUSR1\",\"pid\":5}", ATP_EPARSE },
        { "{\"signal\":\"SIGSTART\",\"pid\":5}", ATP_EPARSE },
        { "{\"signal\":\"SIGSTART\",\"pid\":5,\"payload\":{\"goal\":\"g\"}}", ATP_OK },
        { "{\"signal\":\"SIGSTART\",\"pid\":5,\"payload\":7}", ATP_EPARSE },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{}}", ATP_EPARSE },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"text\":\"hi\"}}", ATP_OK },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"attachments\":[{\"type\":\"inline\","
          "\"content_type\":\"text/plain\",\"encoding\":\"base64\",\"data\":\"aGk=\"}]}}",
          ATP_OK },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"attachments\":[{\"type\":\"inline\","
          "\"encoding\":\"base64\",\"data\":\"a\"}]}}",
          ATP_EPARSE },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"attachments\":[{\"type\":\"vfs_ref\","
          "\"path\":\"/secrets/x\"}]}}",
          ATP_EPARSE },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"attachments\":[{\"type\":\"vfs_ref\","
          "\"path\":\"rel\"}]}}",
          ATP_EPARSE },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"attachments\":[{\"type\":\"vfs_ref\","
          "\"path\":\"/users/a\"}]}}",
          ATP_OK },
        { "{\"signal\":\"SIGPIPE\",\"pid\":5,\"payload\":{\"attachments\":[7]}}", ATP_EPARSE },
        { "{\"signal\":\"SIGRESUME\",\"pid\":5}", ATP_OK },
        { "{\"signal\":\"SIGRESUME\",\"pid\":5,\"payload\":null}", ATP_OK },
        { "{\"signal\":\"SIGRESUME\",\"pid\":5,\"payload\":{\"hilId\":\"h\"}}", ATP_EPARSE },
        { "{\"signal\":\"SIGRESUME\",\"pid\":5,\"payload\":{\"hilId\":\"h\",\"approvalToken\":\"t\","
          "\"decision\":\"maybe\"}}",
          ATP_EPARSE },
        { "{\"signal\":\"SIGRESUME\",\"pid\":5,\"payload\":{\"hilId\":\"h\",\"approvalToken\":\"t\","
          "\"decision\":\"denied\"}}",
          ATP_OK },
    };

    (void)state;
    for (size_t i = 0; i < N_ELEMS(cases); i++)
        assert_int_equal(try(ROLE_USER, false, "signal", "send", cases[i].body).code,
                         cases[i].want);
    assert_int_equal(
        try(ROLE_USER, false, "signal", "send", "{\"signal\":\"SIGTERM\",\"name\":\"x\"}").code,
        ATP_EPERM);
    assert_string_equal(
        try(ROLE_OPERATOR, false, "signal", "send", "{\"signal\":\"SIGTERM\",\"name\":\"x\"}")
            .method,
        "kernel/sys/service-signal");
}

static void bodies_that_change_shape(void **state)
{
    struct result r;

    (void)state;
    assert_string_equal(try(ROLE_ADMIN, true, "sys", "shutdown", "{}").body, "{\"confirm\":true}");
    assert_string_equal(try(ROLE_ADMIN, true, "cap", "policy/get", "{}").body,
                        "{\"action\":\"get\"}");
    r = try(ROLE_ADMIN, true, "cap", "revoke", "{\"pid\":5,\"tools\":[\"fs/read\"]}");
    assert_string_equal(r.method, "kernel/proc/setcap");
    assert_non_null(strstr(r.body, "\"revoke\":[\"fs/read\"]"));
    r = try(ROLE_ADMIN, true, "cap", "revoke", "{\"token_id\":\"t\"}");
    assert_string_equal(r.method, "kernel/cap/revoke");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_by_role_and_listener),
        cmocka_unit_test(each_row_is_found_once_and_names_a_method),
        cmocka_unit_test(unknown_names),
        cmocka_unit_test(identity_members_are_removed),
        cmocka_unit_test(paths),
        cmocka_unit_test(path_members),
        cmocka_unit_test(pids_as_number_or_text),
        cmocka_unit_test(foreign_username_needs_operator),
        cmocka_unit_test(waits_are_bounded),
        cmocka_unit_test(hard_pause_needs_operator),
        cmocka_unit_test(signals),
        cmocka_unit_test(bodies_that_change_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
