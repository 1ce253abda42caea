/*
 * `avix server run`: the command that started init is the gateway of this run. It gets the
 * gateway's service token and the listening gateway.sock over a socket pair whose end it named in
 * AVIX_ONE_SHOT_FD; when it goes away, the suite ends.
 */
#include <fcntl.h>
#include <unistd.h>

#include "common/ipc/frame.h"
#include "common/ipc/peer.h"
#include "kernel/init/init.h"

static int channel = -1;
static struct watch channel_watch;

static void on_channel(int fd, unsigned events, void *arg)
{
    char byte;

    (void)events;
    (void)arg;
    if (read(fd, &byte, 1) > 0)
        return; /* nothing is expected from there */
    watch_done(&channel_watch);
    shutdown_begin("the command that started this run is gone", 5, false);
}

void oneshot_open(void)
{
    const char *text = getenv("AVIX_ONE_SHOT_FD");
    int64_t fd = -1;

    if (!text || !parse_i64(text, 3, 1023, &fd) || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
        boot_fail(1, "--one-shot is for 'avix server run'");
    unsetenv("AVIX_ONE_SHOT_FD");
    channel = (int)fd;
    watch_init(&channel_watch, init.loop, channel, on_channel, NULL);
    watch_set(&channel_watch, LOOP_READ);
}

void oneshot_hand_over(void)
{
    const struct unit_row *row = &unit_rows[UNIT_GATEWAY];
    pid_t parent = getppid();
    int sock = socket_of(UNIT_GATEWAY);
    cleanup(freep) char *token = token_mint(row, parent, proc_start_time(parent));
    cleanup(json_putp) json_object *o = json_make("token:s run_dir:s", token, init.run_dir);
    const char *text = json_text(o);

    if (frame_write_fds(channel, text, strlen(text), &sock, 1))
        shutdown_begin("the command that started this run is gone", 5, false);
    explicit_bzero(token, strlen(token));
}
