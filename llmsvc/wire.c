/* What the adapters share. */
#include "llmsvc/wire.h"

const struct wire *wire_of(enum kind k)
{
    switch (k) {
    case KIND_ANTHROPIC:
        return &wire_anthropic;
    case KIND_OPENAI:
    case KIND_OLLAMA:
        return &wire_openai;
    case KIND_STABILITY:
    case KIND_ELEVENLABS:
    case KIND_BUILTIN:
    case KIND_REPLAY:
    case KIND_COUNT:
        break;
    }
    return NULL;
}

void wire_url(const struct prov_conf *p, const char *path, char *out, size_t size)
{
    const char *base = p->base_url;
    size_t n = strlen(base);

    if (str_ends(base, "/v1") && str_starts(path, "/v1/"))
        path += 3;
    else if (str_ends(base, "/v1") && str_starts(path, "/api/"))
        n -= 3;
    snprintf(out, size, "%.*s%s", (int)n, base, path);
}

int wire_bad(struct decoder *d, const char *why)
{
    if (!d->fault->err)
        fault_set(d->fault, ERR_PROVPROTO, "%s: %s", d->p->name, why);
    return d->fault->err;
}

void decoder_init(struct decoder *d, struct answer *a, const struct names *names,
                  const struct prov_conf *p, struct fault *f)
{
    memset(d, 0, sizeof *d);
    d->a = a;
    d->names = names;
    d->p = p;
    d->fault = f;
    d->forced_index = -1;
}

bool usage_estimate(struct answer *a, const struct lreq *r)
{
    bool est = !a->have_in || !a->have_out;

    if (!a->have_in)
        a->in = lreq_estimate(r);
    if (!a->have_out)
        a->out = (int64_t)(a->bytes + 3) / 4;
    return est;
}
