#pragma once
/* What `config init` finds out before it writes (detect.c) and what it writes (init.c). */
#include "common/base/buf.h"
#include "common/base/json.h"

/* The text of llm.yaml for the providers that this environment has, and the model names for
 * kernel.yaml. detect: look at the environment and at a local Ollama; else builtin alone. Names of
 * variables only, never keys. */
void detect_llm(bool detect, struct buf *out, char *model, char *small_model, size_t size);
/* A loopback or configured HTTP GET with a deadline; body into out. 0 for status 200. */
int detect_http_get(const char *host, int port, const char *path, int timeout_ms, struct buf *out);
