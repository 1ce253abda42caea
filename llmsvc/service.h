#pragma once
/* The unit: its table of tools and its life. */
#include "common/svc/svc.h"

#define LLM_METHODS 9
extern const struct method llm_methods[LLM_METHODS];

int llm_init(void);
int llm_start(void);
void llm_ready(void);
void llm_reload(void);
void llm_stop(void);
void llm_fini(void);

/* llm/view (view.c) */
void llm_view(struct call *c, const struct caller *w);
/* Rows of llm/status, owned; name NULL: all. detail: with window, queue and latency. */
json_object *status_rows(const char *name, bool detail);
json_object *models_rows(const char *modality, const char *provider);
