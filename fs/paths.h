/* Paths of inodes in a state, for a few among many: all names are read once, some at a time; so memory is bounded by what
 * is asked for. One thread.
 */
#ifndef BATON_FS_PATHS_H
#define BATON_FS_PATHS_H

#include "fs/store.h"

struct paths;

/* Called between portions, without locks. True: give up (-ECANCELED). */
typedef bool paths_pause(void *context);

/* -ENOMEM: NULL. The state stays the caller's. */
struct paths *paths_create(struct store *state);
void paths_free(struct paths *paths);

/* A name that the state may lack: it counts when nothing else is found. */
int paths_tell(struct paths *paths, uint64_t ino, uint64_t directory, struct span name);
/* Those will be asked for. Files that have these data ids are found with `owner`. `pause` is called later, too, while
 * directories above are looked for: who has given up finds no more of them. */
int paths_search(struct paths *paths, const uint64_t *inos, const uint64_t *datas, size_t count, paths_pause *pause,
                 void *context);
uint64_t paths_owner(const struct paths *paths, uint64_t data); /* 0: none */

/* The which-th path (0, 1, … up to 7), as text_escape() shows bytes, without a slash at its beginning; "/": the root. False:
 * it has no further one; then, of the first, "inode N". */
bool paths_text(struct paths *paths, uint64_t ino, unsigned which, char *path, size_t room);
/* A name in a directory. */
void paths_entry(struct paths *paths, uint64_t directory, struct span name, char *path, size_t room);

#endif
