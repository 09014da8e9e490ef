/* Parked replies: what must not be answered before an LSN is acknowledged waits here, not in a thread.
 *
 * Two lines: PARK_RECEIVED (every store of the in-sync set has the record) and PARK_DURABLE (on every one's disk).
 * Any thread. Callbacks run without any lock of the park, in the thread that advanced it (or in park_wait's caller, if
 * there is nothing to wait for), in order of LSN.
 */
#ifndef BATON_FS_PARK_H
#define BATON_FS_PARK_H

#include "fs/base.h"

enum park_line { PARK_RECEIVED = 0, PARK_DURABLE = 1, PARK_LINES = 2 };

struct park;
struct parked { /* embedded in the waiter's own structure, which it owns again when `done` is called */
    uint64_t lsn;
    void (*done)(struct parked *parked, int error); /* error: 0, or a negative errno: the wait was given up */
    struct parked *next;
    int64_t due;         /* the park's: see park_wait_until */
    enum park_line line;
};

struct park *park_create(void);
void park_free(struct park *park); /* gives up what waits with -EIO */
void park_wait(struct park *park, enum park_line line, struct parked *parked);
/* The same, but not before `due` (clock_boot), whatever the line says: park_pass lets it go then. */
void park_wait_until(struct park *park, enum park_line line, struct parked *parked, int64_t due);
/* Those that are due wait for their lines from now on. When the next one is due; INT64_MAX: there is none. */
int64_t park_pass(struct park *park, int64_t now);
void park_advance(struct park *park, enum park_line line, uint64_t lsn); /* never goes back but by park_reset */
void park_reset(struct park *park, uint64_t lsn); /* a new role: both lines stand at lsn; gives up what waits, -EIO */
void park_give_up(struct park *park, int error);  /* answers all that waits */
/* Waits in this thread until `lsn` is reached. 0, or -ETIMEDOUT, or the error of a give-up. */
int park_sync(struct park *park, enum park_line line, uint64_t lsn, int64_t timeout_ns);
uint64_t park_position(struct park *park, enum park_line line);
size_t park_count(struct park *park); /* waiting now, for whatever */

#endif
