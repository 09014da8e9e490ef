/* Write-back of large data: it goes to the disk as soon as it is in its segment, and leaves the page cache a while later.
 *
 * Else all of it waits for the next flush, which then takes as long as the disk needs for it, with everybody who waits for
 * that flush; and the page cache holds it twice on a primary (the mount has a copy of its own) and once on a standby, where
 * nobody reads it: new pages for all of it cost more than the copy (measured: 1 GiB written with a standby took
 * 100 + 80 ticks of processor time in pages used again, 310 + 280 in new ones).
 *
 * What left the cache is read from the disk, so it stays until the feeder has had the time to send it: WRITEBACK_KEPT bytes
 * are written after it, more than may be on its way to a peer.
 */
#ifndef BATON_FS_WRITEBACK_H
#define BATON_FS_WRITEBACK_H

#include "fs/table.h"

#include <pthread.h>

#define WRITEBACK_MIN (128u << 10) /* bytes in one write; smaller ones are left to the kernel */
#define WRITEBACK_KEPT (64u << 20)
#define WRITEBACK_PLACES (WRITEBACK_KEPT / WRITEBACK_MIN)

struct writeback {
    pthread_mutex_t lock;
    struct place places[WRITEBACK_PLACES]; /* in the order in which they were written */
    uint32_t first, count;
    uint64_t blocks; /* of all of them */
};

void writeback_open(struct writeback *writeback);
void writeback_close(struct writeback *writeback);
/* Tells the kernel to begin to write [place), just written through fd. A hint: what fails fails again in the flush. */
void writeback_begin(int fd, struct place place);
/* [place), of WRITEBACK_MIN bytes at least, has been written. Any thread. */
void writeback_add(struct writeback *writeback, struct place place);
/* The oldest place, if more than WRITEBACK_KEPT bytes or WRITEBACK_PLACES places are kept: its pages may go. */
bool writeback_take(struct writeback *writeback, struct place *oldest);
/* Its pages leave the cache, those at least that the disk has. */
void writeback_drop(int fd, struct place place);

#endif
