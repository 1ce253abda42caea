/*
 * One call from accept to handler: find the row, check who may send it, hand over. The row decides,
 * never the handler: tools come from the router alone, frames from the peers named in `from`,
 * signals from init and the kernel.
 */
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/svc/svc_internal.h"

/* Row numbers, +1: the map holds pointers that are not NULL. */
static struct map by_name;

void svc_dispatch_init(const struct svc_spec *spec)
{
    map_init(&by_name);
    for (size_t i = 0; i < spec->n_methods; i++)
        map_put(&by_name, spec->methods[i].name, (void *)(i + 1));
}

static const struct method *method_find(const char *name)
{
    size_t i = (size_t)map_get(&by_name, name);

    return i ? &svc.spec->methods[i - 1] : NULL;
}

static bool frame_allowed(struct call *c, unsigned from)
{
    enum unit_id u = svc_call_unit(c);

    if (u == UNIT_INIT)
        return from & FROM_INIT;
    if (u == UNIT_NONE)
        return (from & FROM_AGENT) && c->peer.uid == getuid();
    return from & FROM(u);
}

/* Signals of section 9: believed by the peer, anything unknown is ignored. */
static void on_signal(struct call *c)
{
    enum unit_id u = svc_call_unit(c);
    bool ours = u == UNIT_INIT || u == UNIT_KERNEL;
    const char *name = json_str(c->params, "signal", "");
    bool term = ours && str_eq(name, "SIGTERM"), hup = ours && str_eq(name, "SIGHUP");

    call_end(c);
    if (term)
        svc_stop();
    else if (hup && svc.spec->reload)
        svc.spec->reload();
}

static void refuse(struct call *c, const struct method *m)
{
    if (svc.spec->other)
        svc.spec->other(c);
    else if (m)
        call_fail(c, ERR_PERM, "%s: not accepted from this process", m->name);
    else
        call_fail(c, ERR_METHOD, "%s: no such method", c->method);
}

static void serve_tool(struct call *c, const struct method *m)
{
    struct caller who;

    if (!caller_parse(c->params, &who))
        call_fail(c, ERR_REQUEST, "%s: _caller is missing", m->name);
    else
        m->fn(c, &who);
}

void svc_dispatch(struct call *c, void *arg)
{
    const struct method *m = method_find(c->method);

    (void)arg;
    if (m && !(m->flags & M_FRAME) && m->from && !json_obj(c->params, "_caller") &&
        frame_allowed(c, m->from)) {
        m->fn(c, NULL);
    } else if (m && !(m->flags & M_FRAME)) {
        if (svc_from_router(c))
            serve_tool(c, m);
        else
            refuse(c, m);
    } else if (m && frame_allowed(c, m->from)) {
        m->fn(c, NULL);
    } else if (!m && str_eq(c->method, "signal")) {
        on_signal(c);
    } else {
        refuse(c, m);
    }
}
