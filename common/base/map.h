#pragma once
/*
 * Hash table from text keys to borrowed pointers. Keys are copied. Look-up allocates nothing.
 * Open addressing; no removal during map_each except of the current key.
 */
#include "common/base/util.h"

struct map {
    struct map_slot *slots;
    size_t n, cap;
    size_t used; /* slots that are not free: keys and removal marks */
};

void map_init(struct map *m);
void map_done(struct map *m); /* frees the table, not the values */
void *map_get(const struct map *m, const char *key);
void *map_getn(const struct map *m, const char *key,
               size_t len); /* key need not be NUL-terminated */
/* Sets key to value (not NULL); returns the value it replaces, or NULL. */
void *map_put(struct map *m, const char *key, void *value);
/* Removes; returns the value, or NULL. */
void *map_del(struct map *m, const char *key);
/* Iterates: size_t i = 0; while (map_each(m, &i, &key, &value)) … ; order is unspecified. */
bool map_each(const struct map *m, size_t *pos, const char **key, void **value);
