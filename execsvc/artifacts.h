#pragma once
/* Files that an execution leaves behind: found in /box, copied through memfs. */
#include "common/svc/svc.h"

#define ARTIFACT_FILES 32
#define ARTIFACT_BYTES (64LL << 20)

struct artifacts;
/* Finds what matches the patterns below the folder box (a descriptor, borrowed until the end), but
 * for `skip`, and writes it below the VFS folder `to`. as: handle of the caller for the writes, or
 * NULL to write as execsvc. done(rows, arg): the array is the receiver's. */
typedef void (*artifacts_fn)(json_object *rows, void *arg);
struct artifacts *artifacts_save(int box, json_object *patterns, const char *skip, const char *to,
                                 const char *as, artifacts_fn done, void *arg);
void artifacts_cancel(struct artifacts *a);
