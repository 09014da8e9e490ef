/* A random workload on a store, and what it must have led to: each world is one directory of the volume, changed by one
 * thread, whose every step follows from its seed alone. So the same steps, taken again without a store, say what any
 * recovered store has to show.
 *
 * One thread a world. Every step makes at most one record that can be seen (reclaiming what was unlinked makes more).
 */
#ifndef BATON_POWERCUT_WORLD_H
#define BATON_POWERCUT_WORLD_H

#include "fs/ops.h"

struct world;

struct world *world_create(uint64_t seed, const char *name);
void world_free(struct world *world);

/* The next step. With a store: done there too, *lsn is its record (0: none), and the answer must be the expected one: a
 * sentence in `why` and false if not. The first step makes the world's directory. */
bool world_step(struct world *world, struct store *store, uint64_t *lsn, char *why, size_t room);

/* Does the store show the world as it is after the steps taken so far? */
bool world_compare(const struct world *world, struct store *store, char *why, size_t room);

#endif
