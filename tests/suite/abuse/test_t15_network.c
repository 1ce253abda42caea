/*
 * Security page, test 15: a sandbox reaches neither our ports, nor a metadata service, nor the
 * host's abstract sockets; network without pasta is refused, and so is one without its grant.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/suite/fs_calls.h"

static void allow(struct rig *g, const char *value)
{
    cleanup(freep) char *text = xasprintf("apiVersion: avix/v1\nkind: ExecConfig\nspec:\n"
                                          "  network: {allow: %s}\n",
                                          value);

    rig_write(g, "etc/exec.yaml", text);
}

static void allow_pasta(struct rig *g)
{
    allow(g, "true");
}

static void allow_host(struct rig *g)
{
    allow(g, "host");
}

static void begin(void (*before)(struct rig *g))
{
    struct rig_opts o = { .before = before };

    rig = rig_new(&o);
    token = rig_token(rig, FS_TOOLS, NULL);
}

static bool sandboxed(void)
{
    json_object *o = ok("exec/runtimes", "{}");
    bool yes = str_eq(json_str(json_obj(o, "sandbox"), "tier", ""), "bwrap");

    json_put(o);
    if (!yes)
        print_message("SKIPPED: no sandbox here\n");
    return yes;
}

static void end(void)
{
    free(token);
    rig_stop(rig);
}

static void nothing_is_reachable(void **state)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                                (size_t)snprintf(a.sun_path + 1, 60, "avix-t15-%d", getpid()));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    begin(NULL);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    if (sandboxed()) {
        cleanup(freep) char *code = xasprintf("import socket\n"
                                              "def t(f, a):\n"
                                              "  s = socket.socket(f, socket.SOCK_STREAM)\n"
                                              "  s.settimeout(2)\n"
                                              "  try: s.connect(a); print('REACHED', a)\n"
                                              "  except OSError: pass\n"
                                              "t(socket.AF_INET, ('127.0.0.1', %d))\n"
                                              "t(socket.AF_INET, ('127.0.0.1', 7701))\n"
                                              "t(socket.AF_INET, ('169.254.169.254', 80))\n"
                                              "t(socket.AF_UNIX, '\\0avix-t15-%d')\n"
                                              "print('done')\n",
                                              rig->port, getpid());
        json_object *p = json_make("code:s", code);
        json_object *o = ok("exec/python", json_text(p));

        assert_string_equal(json_str(o, "stderr", ""), "");
        assert_string_equal(json_str(o, "stdout", ""), "done\n");
        json_put(o);
        json_put(p);
        assert_int_equal(refused("exec/shell", "{\"code\":\":\",\"network\":true}"), ERR_PERM);
    }
    close(fd);
    end();
}

static void without_pasta_there_is_no_network(void **state)
{
    (void)state;
    begin(allow_pasta);
    if (sandboxed())
        assert_int_equal(refused("exec/shell", "{\"code\":\":\",\"network\":true}"), ERR_SANDBOX);
    end();
}

static void the_hosts_network_needs_the_grant(void **state)
{
    cleanup(freep) char *granted = NULL;
    struct ipc_reply r;

    (void)state;
    begin(allow_host);
    if (sandboxed()) {
        assert_int_equal(refused("exec/shell", "{\"code\":\":\",\"network\":true}"), ERR_PERM);
        granted = rig_token(rig, "exec/shell exec/network", NULL);
        if (rig_call(rig, granted, "exec/shell",
                     "{\"code\":\"ls /sys/class/net 2>/dev/null; cat /proc/net/dev | wc -l\","
                     "\"network\":true}",
                     &r))
            fail_msg("%s", r.error.message);
        assert_int_equal(json_int(r.result, "exit_code", -1), 0);
        ipc_reply_done(&r);
    }
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_reachable),
        cmocka_unit_test(without_pasta_there_is_no_network),
        cmocka_unit_test(the_hosts_network_needs_the_grant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
