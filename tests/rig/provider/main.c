/*
 * test-provider [--script FILE] [--port N] [--log FILE]
 * Prints "port N" when it listens. Ends on SIGTERM, or when its standard input closes; lines on
 * standard input open gates ("release NAME") or start the script again ("reset").
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "tests/rig/provider/double.h"

static void *conn_main(void *arg)
{
    http_serve((int)(intptr_t)arg);
    return NULL;
}

static void *accept_main(void *arg)
{
    int fd = (int)(intptr_t)arg, one = 1;
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_t t;

        if (c < 0)
            continue;
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&t, &attr, conn_main, (void *)(intptr_t)c))
            close(c);
    }
    return NULL;
}

static int listen_on(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    socklen_t len = sizeof a;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 256) ||
        getsockname(fd, (struct sockaddr *)&a, &len)) {
        perror("test-provider: listen");
        return -1;
    }
    printf("port %d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static void on_term(int signo)
{
    (void)signo;
    _exit(0);
}

static void control_loop(void)
{
    char line[256];

    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (str_starts(line, "release "))
            script_release(line + 8);
        else if (str_eq(line, "reset"))
            script_reset();
    }
}

int main(int argc, char **argv)
{
    static const struct option opts[] = { { "script", required_argument, NULL, 's' },
                                          { "port", required_argument, NULL, 'p' },
                                          { "log", required_argument, NULL, 'l' },
                                          { NULL, 0, NULL, 0 } };
    const char *script = NULL, *log = NULL;
    int64_t port = 0;
    pthread_t t;

    for (int o; (o = getopt_long(argc, argv, "", opts, NULL)) != -1;) {
        if (o == 's')
            script = optarg;
        else if (o == 'l')
            log = optarg;
        else if (o != 'p' || !parse_i64(optarg, 0, 65535, &port))
            return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_term);
    if (!script_load(script) || (log && !script_log_open(log)))
        return 1;
    int fd = listen_on((int)port);
    if (fd < 0 || pthread_create(&t, NULL, accept_main, (void *)(intptr_t)fd))
        return 1;
    control_loop();
    _exit(0); /* connection threads are left as they are */
}
