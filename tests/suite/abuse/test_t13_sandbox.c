/*
 * Security page, test 13: code in a sandbox reads what is ours, touches what is outside, makes
 * namespaces, outlives its caller: refused.
 */
#include <dirent.h>

#include "tests/suite/fs_calls.h"

static bool no_sandbox;

static int start_exec(void **state)
{
    int r = start(state);
    json_object *o = ok("exec/runtimes", "{}");

    no_sandbox = !str_eq(json_str(json_obj(o, "sandbox"), "tier", ""), "bwrap");
    if (no_sandbox)
        print_message("SKIPPED: no sandbox here\n");
    json_put(o);
    return r;
}

#define NEEDS_SANDBOX() \
    do {                \
        (void)state;    \
        if (no_sandbox) \
            skip();     \
    } while (0)

static json_object *python(const char *code)
{
    json_object *p = json_make("code:s", code);
    json_object *o = ok("exec/python", json_text(p));

    json_put(p);
    return o;
}

static void nothing_of_ours_is_in_sight(void **state)
{
    NEEDS_SANDBOX();
    cleanup(freep) char *code = xasprintf(
        "import os\n"
        "for p in ['%s', '%s', '/root', '/home', '/sys', '/run', '/var', '/proc/%d', '/srv']:\n"
        "  if os.path.exists(p): print('SEEN', p)\n"
        "for p in os.listdir('/proc'):\n"
        "  if p.isdigit():\n"
        "    try:\n"
        "      e = open('/proc/%%s/environ' %% p).read()\n"
        "      if 'AVIX' in e: print('ENV', p)\n"
        "    except OSError: pass\n"
        "    c = open('/proc/%%s/cmdline' %% p).read()\n"
        "    if 'avix-' in c: print('PROC', p)\n"
        "for f in os.listdir('/proc/self/fd'):\n"
        "  try: t = os.readlink('/proc/self/fd/' + f)\n"
        "  except OSError: continue\n"
        "  if t.startswith('/') and not t.startswith(('/dev/null', '/proc', '/box')):"
        " print('FD', f, t)\n"
        "print('done')\n",
        rig->root, rig->run_dir, (int)rig->init_pid);
    json_object *o = python(code);

    assert_string_equal(json_str(o, "stderr", ""), "");
    assert_string_equal(json_str(o, "stdout", ""), "done\n");
    json_put(o);
}

/* Each line prints a name and whether the call went through. */
static void system_calls_are_refused(void **state)
{
    static const char code[] =
        "import ctypes, os, fcntl, errno, socket, termios\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def sc(name, want, n, *a):\n"
        "  r = libc.syscall(n, *[ctypes.c_long(x) for x in a])\n"
        "  e = ctypes.get_errno()\n"
        "  if r != -1 or errno.errorcode[e] not in want: print(name, r, errno.errorcode.get(e))\n"
        "P = ('EPERM',)\n"
        "sc('ptrace', P, 101, 16, 1, 0, 0)\n"
        "sc('process_vm_readv', P, 310, 1, 0, 0, 0, 0, 0)\n"
        "sc('mount', P, 165, 0, 0, 0, 0, 0)\n"
        "sc('unshare user', P, 272, 0x10000000)\n"
        "sc('clone newuser', P, 56, 0x10000000 | 17, 0, 0, 0, 0)\n"
        "sc('clone newns', P, 56, 0x00020000 | 17, 0, 0, 0, 0)\n"
        "sc('clone3', ('ENOSYS',), 435, 0, 0)\n"
        "sc('setns', P, 308, 0, 0)\n"
        "sc('chroot', P, 161, 0)\n"
        "sc('bpf', P, 321, 0, 0, 0)\n"
        "sc('perf_event_open', P, 298, 0, 0, 0, 0, 0)\n"
        "sc('userfaultfd', P, 323, 0)\n"
        "sc('keyctl', P, 250, 0, 0, 0, 0, 0)\n"
        "sc('io_uring_setup', ('ENOSYS',), 425, 1, 0)\n"
        "sc('name_to_handle_at', P, 303, 0, 0, 0, 0, 0)\n"
        "sc('open_by_handle_at', P, 304, 0, 0, 0)\n"
        "sc('open_tree', P, 428, 0, 0, 0)\n"
        "sc('TIOCSTI', P, 16, 0, 0x5412, 0)\n"
        "sc('TIOCSTI high', P, 16, 0, 0x5412 | (1 << 40), 0)\n"
        "sc('netlink', P, 41, 16, 3, 0)\n"
        "sc('packet', P, 41, 17, 3, 0)\n"
        "sc('vsock', P, 41, 40, 1, 0)\n"
        "sc('unix high', P + ('EAFNOSUPPORT',), 41, 1 | (1 << 40), 1, 0)\n"
        "HOST = %d\n"
        "sc('kill host', ('ESRCH',), 62, HOST, 0)\n"
        "sc('tgkill host', ('ESRCH',), 234, HOST, HOST, 0)\n"
        "sc('prlimit64 host', ('ESRCH',), 302, HOST, 7, 0, 0)\n"
        "sc('setpriority host', ('ESRCH',), 141, 0, HOST, 19)\n"
        "r, w = os.pipe()\n"
        "try:\n"
        "  fcntl.fcntl(r, fcntl.F_SETOWN, HOST); print('setown')\n"
        "except OSError as e: assert e.errno == errno.ESRCH\n"
        "try: os.setuid(0); print('setuid')\n"
        "except OSError: pass\n"
        "print('done')\n";

    NEEDS_SANDBOX();
#ifdef __x86_64__
    cleanup(freep) char *text = xasprintf(code, (int)rig_unit_pid(rig, "memfs") + 1000000);
    json_object *o = python(text);

    assert_string_equal(json_str(o, "stderr", ""), "");
    assert_string_equal(json_str(o, "stdout", ""), "done\n");
    json_put(o);
#else
    print_message("SKIPPED: the numbers of the calls are those of x86_64\n");
    skip();
#endif
}

static int n_sleepers(const char *text)
{
    DIR *d = opendir("/proc");
    int n = 0;

    for (struct dirent *e; (e = readdir(d));) {
        cleanup(freep) char *line = NULL;
        char path[300];
        size_t len;

        snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9' && !file_read(path, 65536, &line, &len) &&
            len > 6 && str_eq(line, "sleep") && str_eq(line + 6, text))
            n++;
    }
    closedir(d);
    return n;
}

static bool gone(void *arg)
{
    return n_sleepers(arg) == 0;
}

static void no_one_outlives_the_program(void **state)
{
    static char name[] = "34561";

    NEEDS_SANDBOX();
    json_object *o = python("import os, time\n"
                            "if os.fork() == 0:\n"
                            "  os.setsid()\n"
                            "  if os.fork() == 0:\n"
                            "    for f in range(3): os.close(f)\n"
                            "    os.execvp('sleep', ['sleep', '34561'])\n"
                            "  os._exit(0)\n"
                            "time.sleep(0.3)\n");

    json_put(o);
    int64_t start_ms = mono_ms();

    assert_true(rig_until(gone, name));
    assert_true(mono_ms() - start_ms < 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_of_ours_is_in_sight),
        cmocka_unit_test(system_calls_are_refused),
        cmocka_unit_test(no_one_outlives_the_program),
    };

    return cmocka_run_group_tests(tests, start_exec, stop);
}
