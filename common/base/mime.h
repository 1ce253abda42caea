#pragma once
/* Media types. */
#include "common/base/util.h"

/* By the name, and by the first n bytes if the name says nothing. Static text. */
const char *mime_of(const char *name, const char *head, size_t n);
