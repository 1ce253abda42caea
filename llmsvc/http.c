/*
 * libcurl tells us which sockets to watch and when to wake it; we tell it what happened and then
 * look what that finished. Callbacks of curl only collect bytes: everything that may start, stop
 * or cancel a transfer happens after curl_multi_socket_action has returned.
 */
#include "llmsvc/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <strings.h>
#include <sys/queue.h>
#include <unistd.h>

#include "common/base/clock.h"

struct http {
    CURL *easy;
    struct http_cb cb;
    void *arg;
    struct http_head head;
    struct curl_slist *headers; /* nodes ours, texts borrowed */
    char error[CURL_ERROR_SIZE];
    struct timer timer; /* first byte, then gaps between bytes */
    int64_t read_ms, last_ms;
    bool first_seen, dirty, stopped, timed_out;
    TAILQ_ENTRY(http) dirty_link;
};
TAILQ_HEAD(http_list, http);

struct sock {
    struct watch w;
};

static struct {
    CURLM *multi;
    struct loop *loop;
    struct timer timer;
    struct http_list dirty;
    bool inside; /* inside curl_multi_socket_action */
} g;

static void settle(void);

static void act(curl_socket_t fd, int what)
{
    int running = 0;

    g.inside = true;
    curl_multi_socket_action(g.multi, fd, what, &running);
    g.inside = false;
    settle();
}

static void on_socket(int fd, unsigned events, void *arg)
{
    (void)arg;
    act(fd,
        (events & LOOP_READ ? CURL_CSELECT_IN : 0) | (events & LOOP_WRITE ? CURL_CSELECT_OUT : 0));
}

static int socket_fn(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
    struct sock *s = sockp;

    (void)easy;
    (void)arg;
    if (what == CURL_POLL_REMOVE) {
        if (s) {
            watch_done(&s->w);
            curl_multi_assign(g.multi, fd, NULL);
            free(s);
        }
        return 0;
    }
    if (!s) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC); /* curl leaves its sockets open over exec */
        s = xcalloc(1, sizeof *s);
        watch_init(&s->w, g.loop, fd, on_socket, NULL);
        curl_multi_assign(g.multi, fd, s);
    }
    watch_set(&s->w,
              (what & CURL_POLL_IN ? LOOP_READ : 0) | (what & CURL_POLL_OUT ? LOOP_WRITE : 0));
    return 0;
}

static void on_timer(void *arg)
{
    (void)arg;
    act(CURL_SOCKET_TIMEOUT, 0);
}

static int timer_fn(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    (void)arg;
    if (ms < 0)
        timer_stop(&g.timer);
    else
        timer_set(&g.timer, ms);
    return 0;
}

int http_init(struct loop *l)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return -ENOMEM;
    g.loop = l;
    g.multi = curl_multi_init();
    if (!g.multi)
        return -ENOMEM;
    (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC); /* curl's pair for waking up */
    TAILQ_INIT(&g.dirty);
    timer_init(&g.timer, l, on_timer, NULL);
    curl_multi_setopt(g.multi, CURLMOPT_SOCKETFUNCTION, socket_fn);
    curl_multi_setopt(g.multi, CURLMOPT_TIMERFUNCTION, timer_fn);
    curl_multi_setopt(g.multi, CURLMOPT_MAXCONNECTS, 64L);
    return 0;
}

void http_fini(void)
{
    if (!g.multi)
        return;
    curl_multi_cleanup(g.multi);
    timer_done(&g.timer);
    curl_global_cleanup();
    g.multi = NULL;
}

static void mark_dirty(struct http *h)
{
    if (!h->dirty) {
        h->dirty = true;
        TAILQ_INSERT_TAIL(&g.dirty, h, dirty_link);
    }
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct http *h = arg;
    long status = 0;

    h->last_ms = mono_ms();
    h->first_seen = true;
    if (!h->head.status) {
        curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
        h->head.status = (int)status;
    }
    mark_dirty(h);
    if (h->cb.body(&h->head, data, size * n, h->arg)) {
        h->stopped = true;
        return 0;
    }
    return size * n;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct http *h = arg;
    struct http_head *d = &h->head;
    const struct {
        const char *name;
        char *out;
        size_t size;
    } kept[] = { { "content-type:", d->content_type, sizeof d->content_type },
                 { "retry-after:", d->retry_after, sizeof d->retry_after },
                 { "retry-after-ms:", d->retry_after_ms, sizeof d->retry_after_ms },
                 { "request-id:", d->request_id, sizeof d->request_id },
                 { "x-request-id:", d->request_id, sizeof d->request_id },
                 { "x-should-retry:", d->should_retry, sizeof d->should_retry } };
    size_t len = size * n;

    h->last_ms = mono_ms();
    h->first_seen = true;
    if (len > 5 && !strncasecmp(line, "HTTP/", 5))
        memset(d, 0, sizeof *d); /* a new head: after 100 Continue */
    for (size_t i = 0; i < N_ELEMS(kept); i++) {
        size_t k = strlen(kept[i].name);

        if (len <= k || strncasecmp(line, kept[i].name, k) != 0)
            continue;
        const char *v = line + k, *end = line + len;
        while (v < end && (*v == ' ' || *v == '\t'))
            v++;
        while (end > v && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
            end--;
        snprintf(kept[i].out, kept[i].size, "%.*s", (int)(end - v), v);
    }
    return len;
}

static void http_free(struct http *h)
{
    if (h->dirty)
        TAILQ_REMOVE(&g.dirty, h, dirty_link);
    timer_done(&h->timer);
    curl_easy_cleanup(h->easy);
    while (h->headers) {
        struct curl_slist *next = h->headers->next;
        free(h->headers);
        h->headers = next;
    }
    free(h);
}

static void finish(struct http *h, enum http_end end, const char *why)
{
    struct http_cb cb = h->cb;
    struct http_head head = h->head;
    void *arg = h->arg;
    char text[CURL_ERROR_SIZE];
    long status = 0;

    curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
    head.status = (int)status;
    str_copy(text, sizeof text, *h->error ? h->error : why);
    curl_multi_remove_handle(g.multi, h->easy);
    http_free(h);
    cb.done(end, &head, text, arg);
}

static enum http_end end_of(const struct http *h, CURLcode r)
{
    long sent = 0;

    if (h->timed_out || r == CURLE_OPERATION_TIMEDOUT)
        return HTTP_TIMEOUT;
    if (h->stopped)
        return HTTP_STOPPED;
    curl_easy_getinfo(h->easy, CURLINFO_REQUEST_SIZE, &sent);
    switch ((int)r) {
    case CURLE_OK:
        return HTTP_OK;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return HTTP_CONNECT;
    default:
        return sent && h->first_seen ? HTTP_BROKEN : HTTP_CONNECT;
    }
}

/* Batches first, then ends: a last batch is seen before its transfer is done. */
static void settle(void)
{
    struct http *h = NULL;
    CURLMsg *m = NULL;
    int left = 0;

    while ((h = TAILQ_FIRST(&g.dirty))) {
        TAILQ_REMOVE(&g.dirty, h, dirty_link);
        h->dirty = false;
        if (h->cb.batch)
            h->cb.batch(h->arg);
    }
    while ((m = curl_multi_info_read(g.multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode r = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&h);
        finish(h, end_of(h, r), curl_easy_strerror(r));
    }
}

static void on_idle(void *arg)
{
    struct http *h = arg;
    int64_t left = h->last_ms + h->read_ms - mono_ms();

    if (h->first_seen && left > 0) {
        timer_set(&h->timer, left);
        return;
    }
    h->timed_out = true;
    snprintf(h->error, sizeof h->error,
             h->first_seen ? "no byte for %lld ms" : "no answer within %lld ms",
             (long long)h->read_ms);
    finish(h, HTTP_TIMEOUT, "timed out");
}

static void add_header(struct http *h, const char *text)
{
    struct curl_slist *n = xcalloc(1, sizeof *n), **at = &h->headers;

    n->data = (char *)(uintptr_t)text;
    while (*at)
        at = &(*at)->next;
    *at = n;
}

static void set_options(struct http *h, const struct http_req *q)
{
    CURL *e = h->easy;

    curl_easy_setopt(e, CURLOPT_URL, q->url);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(e, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
    curl_easy_setopt(e, CURLOPT_USERAGENT, "avix/" AVIX_VERSION);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)q->connect_ms);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)q->total_ms);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 65536L);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, h->headers);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, h->error);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, h);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(e, CURLOPT_PRIVATE, (char *)h);
    if (q->post) {
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, q->post);
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->post_len);
    }
}

struct http *http_start(const struct http_req *q, const struct http_cb *cb, void *arg)
{
    struct http *h = xcalloc(1, sizeof *h);

    h->easy = curl_easy_init();
    if (!h->easy)
        abort();
    h->cb = *cb;
    h->arg = arg;
    h->read_ms = q->first_byte_ms;
    h->last_ms = mono_ms();
    for (size_t i = 0; i < q->n_headers; i++)
        add_header(h, q->headers[i]);
    add_header(h, "Expect:");
    set_options(h, q);
    timer_init(&h->timer, g.loop, on_idle, h);
    timer_set(&h->timer, q->first_byte_ms);
    h->read_ms = q->read_ms;
    curl_multi_add_handle(g.multi, h->easy);
    return h;
}

void http_cancel(struct http *h)
{
    curl_multi_remove_handle(g.multi, h->easy);
    http_free(h);
}

void http_pause(struct http *h, bool paused)
{
    h->last_ms = mono_ms();
    curl_easy_pause(h->easy, paused ? CURLPAUSE_RECV : CURLPAUSE_CONT);
    if (!paused && !g.inside)
        settle();
}
