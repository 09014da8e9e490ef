/* The one door: what a record does to the tables. The same on the primary and on the standby.
 *
 * Called by the store under the engine lock. First everything is checked against the state (entries exist or do not,
 * kinds fit, numbers are new, limits hold), then rows are changed; so an error leaves a state that change_revert() in
 * the store brings back row by row, and a hostile record gets -EBADMSG, never a crash.
 *
 * change->places hold the record's blocks; they are written already.
 */
#ifndef BATON_FS_APPLY_H
#define BATON_FS_APPLY_H

#include "fs/table.h"

int record_apply(struct change *change, const struct record *record);

/* Helpers on rows that apply and operations share (lock held). 0, -ENOENT, -EIO. */
int inode_get(struct store *store, uint64_t ino, struct inode_row *row);
/* With the symlink target behind it, which keeps valid until the next change. */
int inode_get_target(struct store *store, uint64_t ino, struct inode_row *row, struct span *target);
int dirent_get(struct store *store, uint64_t parent, const void *name, size_t length, struct dirent_row *row);
/* Does `directory` lie below `top`, or is it the same? 1, 0, or an error. */
int directory_is_inside(struct store *store, uint64_t directory, uint64_t top);

/* The map: extents of a data id that overlap [first, first + count), in order. Calls `each` with the part inside the
 * range (checksums NULL if unwritten); holes are not reported. `each` returns 0 to go on, else its value is returned. */
struct extent_part {
    uint64_t first;
    struct place place; /* segment SEGMENT_NONE: unwritten */
    const uint8_t *checksums; /* place.count × 8 bytes, in LMDB's page */
};
int extent_walk(struct store *store, uint64_t data, uint64_t first, uint64_t count,
                int (*each)(void *context, const struct extent_part *part), void *context);
/* Number of extent rows that overlap the range, counted up to `limit`. */
int extent_rows(struct store *store, uint64_t data, uint64_t first, uint64_t count, uint32_t limit, uint32_t *rows);

#endif
