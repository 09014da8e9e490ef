/* Write-behind: blocks whose data the tail carries reach their segments later, many at once.
 *
 * Such a block is durable through the tail until a checkpoint covers it, so its segment needs it only then. Written one
 * by one, each costs a system call and the kernel's work for a new page, nearly as much as everything else that a small
 * write does; in a row, about a tenth of that (measured: 5 µs and 0.5 µs a block).
 *
 * Blocks lie in windows, each of which covers a stretch of one segment. A block is in a window until it is in the
 * segment's file: who reads looks here first. Blocks are never overwritten in place and places are never given out
 * twice, so a block in a window is the only one that there is. Everything here may be called by any thread, with or
 * without the engine lock.
 */
#ifndef BATON_FS_BEHIND_H
#define BATON_FS_BEHIND_H

#include "fs/base.h"

#include <pthread.h>
#include <stdatomic.h>

#define BEHIND_WINDOWS 16u
#define BEHIND_BLOCKS 256u /* of a window */

enum window_state { WINDOW_FREE, WINDOW_FILLING, WINDOW_WRITING };

struct window {
    enum window_state state;
    uint32_t segment, first;
    uint64_t there[BEHIND_BLOCKS / 64]; /* a bit a block */
    uint8_t *bytes;                     /* made when it is first used, kept */
};

struct behind {
    pthread_mutex_t lock;
    pthread_mutex_t flush_lock; /* one at a time writes; taken first */
    struct window windows[BEHIND_WINDOWS];
    atomic_uint used; /* windows that are not free */
};

void behind_open(struct behind *behind);
void behind_close(struct behind *behind); /* what is still in it is lost: the tail has it */

/* Takes blocks position … position + count - 1 of a segment, of which `length` bytes are given and the rest is zeros.
 * Returns how many of them, from the first on, it has taken; the others must be written by the caller. */
uint32_t behind_put(struct behind *behind, uint32_t segment, uint32_t position, uint32_t count, const uint8_t *bytes,
                    size_t length);
/* Reads a stretch of blocks that starts at `position`: if the first one is here, it and those that follow; returns how
 * many. Else returns 0, and *until is how many blocks from the first on are not here and can be read from the file. */
uint32_t behind_get(struct behind *behind, uint32_t segment, uint32_t position, uint32_t count, uint8_t *bytes,
                    uint32_t *until);
/* Few windows are left: it is time to write. */
bool behind_pressed(const struct behind *behind);
/* Writes all blocks that were put before the call, by write(context, segment, first block, count, bytes), which returns
 * 0 or a negative errno. What failed stays. */
int behind_flush(struct behind *behind,
                 int (*write)(void *context, uint32_t segment, uint32_t first, uint32_t count, const uint8_t *bytes),
                 void *context);

#endif
