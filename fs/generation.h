/* Generations: where a store's files lie. A store that was formatted has meta/, data/, tail/ and checkpoint in its folder;
 * one that was built by a full synchronization has them in STORE/generation.N, and the file STORE/current names that.
 * Replacing that file is the one step in which a store is replaced: before it the old generation is the store, after it
 * the new one. Lock, control socket and undone/ are the folder's own and stay.
 *
 * A generation that is being built has a file `building` until it is complete. What is neither current nor being built
 * is left over and may be swept.
 */
#ifndef BATON_FS_GENERATION_H
#define BATON_FS_GENERATION_H

#include "fs/base.h"

#include <limits.h>

#define GENERATION_BUILDING "building" /* holds a line that says beside which store it is built */
#define GENERATION_COMPLETE "complete" /* that file's name when it may become current */
#define GENERATION_ASIDE "aside." /* how the names of stores that are kept begin */

/* The folder of the current generation, and its number (0: the store's own folder; may be NULL). 0, -ENAMETOOLONG, -EIO
 * if `current` is none of ours. A store that is not there has its own folder. */
int generation_current(const char *store, char base[PATH_MAX], unsigned *number);
void generation_base(const char *store, unsigned number, char base[PATH_MAX]);
/* The one being built, or complete but not current yet: its number, and the line that generation_begin wrote. -ENOENT: none. */
int generation_building(const char *store, unsigned *number, char line[NAME_MAX]);
/* Makes the folder of a generation to be built, with that line. */
int generation_begin(const char *store, unsigned number, const char *line);
/* All of it is on disk, and it may become the current one. May be said again. */
int generation_complete(const char *store, unsigned number);
/* Makes the complete generation the current one; durable on return. -ENOENT: none is complete. */
int generation_switch(const char *store);
/* The current generation is to be kept when another one has become current, as the store STORE/NAME (with a lock of its own,
 * for the tools), or, without a name, is not. Durable on return; generation_sweep does it then. */
int generation_keep(const char *store, const char *name);
/* Calls `each` with the name of every store that was kept so. */
int generation_kept(const char *store, void (*each)(void *context, const char *name), void *context);
/* The lock of a store that is not open: a descriptor, to be closed. -EBUSY: somebody has it. */
int generation_lock(const char *store);
/* Removes what is neither the current generation nor, if `keep_building`, one being built. The store's lock is held. */
int generation_sweep(const char *store, bool keep_building);

#endif
