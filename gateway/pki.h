#pragma once
/* Certificates of the TLS modes "self-signed" and "files". */
#include <libwebsockets.h>
#include <stdbool.h>

/* Finds or makes what spec.gateway.tls asks for. addr: the bind address, named in a self-signed
 * certificate. 0, or an exit status after logging why. */
int pki_load(const char *addr);
/* Fills in the TLS part of a vhost. */
void pki_vhost(struct lws_context_creation_info *info);
/* Reads the files again. */
void pki_reload(struct lws_context *context);
bool pki_is_files(void);
