/* Segments: append-only files of data blocks, data/XXXXXXXX.seg.
 *
 * Accounting (heads, live blocks, reservations) is in memory under the engine lock and goes into table `segment` with
 * each commit. Blocks are read and written without it.
 */
#ifndef BATON_FS_SEGMENT_H
#define BATON_FS_SEGMENT_H

#include "fs/behind.h"
#include "fs/table.h"
#include "fs/writeback.h"

#include <pthread.h>

struct segment_row { /* table segment: number → */
    uint32_t head; /* blocks handed out */
    uint32_t live; /* of them not free again: in the map, kept by the journal, reserved, or waiting to be punched */
} __attribute__((packed));

struct segment {
    uint32_t number;
    uint32_t head, live;
    bool row_dirty;
    bool unsynced;     /* data since the last fdatasync */
    bool unsynced_big; /* data that the tail does not carry, since the last fdatasync */
    uint32_t allocated; /* blocks with disk space behind them */
};

#define SEGMENT_FDS 256u
struct segment_fd {
    uint32_t number;
    int fd; /* -1: free */
    uint32_t users;
    uint64_t used; /* for choosing the oldest */
    uint32_t next; /* hash chain not needed at this size: linear by hash bucket */
};

struct segments {
    int directory_fd; /* data/ */
    uint32_t blocks;  /* of a segment */
    struct segment *list; /* by number, ascending */
    uint32_t count, room;
    uint32_t current; /* number of the one being filled; 0: none yet */
    struct place *reserved; /* handed out, not in a record yet */
    uint32_t reserved_count, reserved_room;
    pthread_mutex_t fd_lock;
    struct segment_fd fds[SEGMENT_FDS];
    uint64_t fd_clock;
    struct behind behind;
    struct writeback writeback;
    atomic_bool unbacked; /* disk space cannot be allocated ahead */
};

struct store;

int segments_open(struct segments *segments, int store_directory_fd, uint32_t blocks);
void segments_close(struct segments *segments);
int segments_load(struct store *store); /* rows and reservations of the checkpoint */
int segments_save(struct store *store); /* dirty rows and reservations, before a commit */
/* After replay: cuts what lies beyond the heads, unlinks files that no row names, gives reservations back. */
int segments_trim_files(struct store *store);

struct segment *segment_find(struct segments *segments, uint32_t number);
/* Replay and append: the place belongs to a record now. Extends heads; gaps become reservations. */
int segment_claim(struct store *store, struct place place);
/* After a failed commit: the place is reserved again, whatever the heads of the transaction's beginning say. */
int segment_reserve_again(struct store *store, struct place place);
void segment_mark(struct store *store, struct place place, bool big);
/* One block's bytes, into the file at once. The file is flushed with the next checkpoint if segment_mark was called. */
int segment_overwrite(struct store *store, struct place place, const uint8_t bytes[BATON_BLOCK]);
int segment_freed(struct store *store, struct place place); /* live shrinks; lock held */
void segment_remove(struct store *store, uint32_t number); /* forgets an empty one; lock held */
/* A segment of another store of this disk becomes one of this store too, as a further link to its file, under a number of
 * its own, all of it in use. Nothing is written into it while the store is being imported. Lock held. 0, or a negative errno (-EXDEV, -EPERM,
 * … where no link can be made). */
int segment_adopt(struct store *store, const struct segments *others, uint32_t from, uint32_t *number);
/* Is one of them another store's, too? Lock held. */
bool segments_shared(const struct segments *segments);
void segment_prepare_next(struct store *store); /* committer: creates the next file in time */

/* A descriptor that stays open until segment_fd_put. Negative errno. */
int segment_fd_get(struct segments *segments, uint32_t number, bool create);
void segment_fd_put(struct segments *segments, int fd);
void segment_fd_drop(struct segments *segments, uint32_t number); /* before unlink */
int segment_unlink(struct segments *segments, uint32_t number);
/* What the tail carries and the files do not have yet goes into them. 0 or a negative errno. */
int segments_flush(struct store *store);
void segment_name(uint32_t number, char name[16]);

#endif
