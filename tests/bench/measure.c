/* Clocks, cores, quantiles, and the interleaving that makes two programs comparable. */
#include "tests/bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 20
#define WARM   30
#define TIMED  150
#define TRIES  3

static int last_cpu = -1;
static cpu_set_t all_cpus;

int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void find_cpu(void)
{
    if (last_cpu >= 0)
        return;
    sched_getaffinity(0, sizeof(all_cpus), &all_cpus);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all_cpus))
            last_cpu = i;
}

void pin_to_last_cpu(pid_t pid)
{
    cpu_set_t one;

    find_cpu();
    CPU_ZERO(&one);
    CPU_SET(last_cpu, &one);
    sched_setaffinity(pid, sizeof(one), &one);
}

void unpin(pid_t pid)
{
    find_cpu();
    sched_setaffinity(pid, sizeof(all_cpus), &all_cpus);
}

bool pinned(void)
{
    cpu_set_t now;

    return sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_COUNT(&now) == 1;
}

static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double quantile(double *v, size_t n, double q)
{
    if (!n)
        return NAN;
    qsort(v, n, sizeof(*v), cmp);
    return v[(size_t)(q * (double)(n - 1) + 0.5)];
}

double median(double *v, size_t n)
{
    return quantile(v, n, 0.5);
}

double cpu_ns(pid_t pid)
{
    char path[64];
    DIR *d;
    struct dirent *e;
    double sum = 0;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        char p[128];
        unsigned long long ns = 0;
        FILE *f;

        if (e->d_name[0] == '.')
            continue;
        snprintf(p, sizeof(p), "/proc/%d/task/%.20s/schedstat", (int)pid, e->d_name);
        f = fopen(p, "re");
        if (f) {
            if (fscanf(f, "%llu", &ns) == 1)
                sum += (double)ns;
            fclose(f);
        }
    }
    if (d)
        closedir(d);
    return sum;
}

pid_t child_start(void (*fn)(void *), void *arg, bool pin)
{
    pid_t parent = getpid(), pid;

    fflush(stdout);
    pid = fork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    signal(SIGPIPE, SIG_IGN);
    if (pin)
        pin_to_last_cpu(0);
    fn(arg);
    _exit(0);
}

void child_stop(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* --- counting system calls ----------------------------------------------------------------------
 */

struct tracer {
    pid_t pid;
    int ready, stop;
    long n;
};

/* Traces until `stop` has a byte; runs in its own process, which reports the count. */
static void trace(const struct tracer *t)
{
    int status, sig;
    long entries = 0;

    if (ptrace(PTRACE_SEIZE, t->pid, NULL, (void *)(uintptr_t)PTRACE_O_TRACESYSGOOD) ||
        ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL)) {
        entries = -1;
        if (write(t->ready, &entries, sizeof(entries)) < 0)
            _exit(1);
        _exit(0);
    }
    waitpid(t->pid, &status, 0);
    ptrace(PTRACE_SYSCALL, t->pid, NULL, NULL);
    if (write(t->ready, &entries, sizeof(entries)) < 0)
        _exit(1);
    for (bool in = false;;) {
        char c;

        if (waitpid(t->pid, &status, 0) < 0 || !WIFSTOPPED(status))
            break;
        sig = WSTOPSIG(status);
        if (sig == (SIGTRAP | 0x80)) {
            in = !in;
            entries += in;
            sig = 0;
        } else if (status >> 16) {
            sig = 0;
        }
        if (read(t->stop, &c, 1) == 1)
            break;
        ptrace(PTRACE_SYSCALL, t->pid, NULL, (void *)(intptr_t)sig);
    }
    ptrace(PTRACE_DETACH, t->pid, NULL, NULL);
    if (write(t->ready, &entries, sizeof(entries)) < 0)
        _exit(1);
}

long count_syscalls(pid_t pid, void (*fn)(void *), void *arg)
{
    int ready[2], stop[2];
    long n = -1;
    pid_t tracer;

    if (pipe(ready) || pipe(stop))
        return -1;
    tracer = fork();
    if (!tracer) {
        struct tracer t = { pid, ready[1], stop[0], 0 };

        close(stop[1]);
        if (fcntl(stop[0], F_SETFL, O_NONBLOCK))
            _exit(1);
        trace(&t);
        _exit(0);
    }
    close(ready[1]);
    close(stop[0]);
    if (read(ready[0], &n, sizeof(n)) == (ssize_t)sizeof(n) && n == 0) {
        fn(arg);
        if (write(stop[1], "x", 1) != 1)
            n = -1;
        fn(arg); /* one more round of calls: the tracer looks at the pipe at each stop */
        if (n < 0 || read(ready[0], &n, sizeof(n)) != (ssize_t)sizeof(n))
            n = -1;
    } else {
        n = -1;
    }
    close(ready[0]);
    close(stop[1]);
    waitpid(tracer, NULL, 0);
    return n;
}

/* --- interleaving -------------------------------------------------------------------------------
 */

static double cpu_of(const struct target *t)
{
    double sum = cpu_ns(getpid());

    for (size_t i = 0; i < N_ELEMS(t->pids) && t->pids[i]; i++)
        sum += cpu_ns(t->pids[i]);
    return sum;
}

static void one_run(struct target *t, size_t n)
{
    static double all[8][ROUNDS * TIMED], p50[8][ROUNDS], cpu[8][ROUNDS];

    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t k = 0; k < n; k++) {
            double *at = &all[k][round * TIMED], before;

            for (size_t i = 0; i < WARM; i++)
                t[k].call(t[k].arg);
            before = cpu_of(&t[k]);
            for (size_t i = 0; i < TIMED; i++) {
                int64_t t0 = now_ns();

                t[k].call(t[k].arg);
                at[i] = (double)(now_ns() - t0) / 1000;
            }
            cpu[k][round] = (cpu_of(&t[k]) - before) / TIMED / 1000;
            double copy[TIMED];

            memcpy(copy, at, sizeof(copy));
            p50[k][round] = median(copy, TIMED);
        }
    }
    for (size_t k = 0; k < n; k++) {
        double r[ROUNDS], c[ROUNDS];

        for (size_t i = 0; i < ROUNDS; i++) {
            r[i] = p50[k][i] / p50[0][i];
            c[i] = cpu[k][i] / cpu[0][i];
        }
        double ratio = median(r, ROUNDS);

        if (t[k].ratio > 0 && ratio >= t[k].ratio)
            continue;
        t[k].ratio = ratio;
        t[k].lo = r[0];
        t[k].hi = r[ROUNDS - 1];
        t[k].cpu_ratio = median(c, ROUNDS);
        t[k].cpu = median(cpu[k], ROUNDS);
        t[k].p50 = quantile(all[k], ROUNDS * TIMED, 0.5);
        t[k].p99 = quantile(all[k], ROUNDS * TIMED, 0.99);
    }
}

void interleave(struct target *t, size_t n, size_t judged, double goal)
{
    pin_to_last_cpu(0);
    for (size_t k = 0; k < n; k++)
        t[k].ratio = 0;
    for (int try = 0; try < TRIES; try++) {
        one_run(t, n);
        if (t[judged].ratio <= goal)
            break;
    }
    unpin(0);
}
