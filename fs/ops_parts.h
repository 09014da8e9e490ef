/* What the files of operations share. */
#ifndef BATON_FS_OPS_PARTS_H
#define BATON_FS_OPS_PARTS_H

#include "fs/apply_parts.h"
#include "fs/ops.h"

/* Extent rows that an operation puts into one record, and that a truncate frees in place. Well below
 * RECORD_ROWS_MAX: the lock is held meanwhile. */
extern uint32_t ops_rows_max; /* 256; tests make it small, so that small files are cut up as huge ones are */

/* Takes the lock and asks for room; on error the lock is not held. Before anything is looked at: it may wait. */
int op_begin(struct store *store, enum space_class class);
/* inode_get for a number that a caller holds: -ESTALE if it is gone. */
int op_inode(struct store *store, uint64_t ino, struct inode_row *row);
/* store_append of a settled record; *lsn becomes its LSN. Lock held. */
int op_append(struct store *store, struct record *record, const void *payload, const struct place *places,
              uint32_t place_count, uint64_t *lsn);
struct file_time later_time(struct file_time a, struct file_time b);

/* The mode without set-id bits, as a write by another or a chown leaves it. */
uint32_t mode_without_set_id(uint32_t mode);
/* What WRITE_SET_MODE and WRITE_NO_CAPABILITY must say so that the file loses its privileges. */
void record_kill_priv(struct record *record, const struct inode_row *row);

static inline struct span span_of(const char *text) {
    return (struct span){(const uint8_t *)text, (uint32_t)strlen(text)};
}

/* The first `limit` extent rows from block `first` on end before block *bound; UINT64_MAX: that is all. *rows: how
 * many. Lock held. */
int extent_bound(struct store *store, uint64_t data, uint64_t first, uint32_t limit, uint64_t *bound, uint32_t *rows);

/* Blocks beyond a file's end that an earlier truncate left: frees them, in bounded records. Takes the lock. */
int finish_trim(struct store *store, uint64_t ino);

/* Zeros what is written of [offset, offset + length), inside one block, within the file. Takes the lock. */
int zero_part(struct store *store, uint64_t ino, uint64_t offset, uint64_t length, uint64_t *lsn);

/* One block of the map as it was looked at under the lock: is it still the same? */
struct edge {
    uint64_t block;
    bool written;
    struct place place; /* of the block */
    uint64_t checksum;
};
int edge_look(struct store *store, uint64_t data, uint64_t block, struct edge *edge);
bool edge_is_same(const struct edge *a, const struct edge *b);
/* The block's bytes, checked; zeros if it is not written. Without the lock. -EIO, -ENOENT: look again. */
int edge_read(struct store *store, const struct edge *edge, uint8_t block[BATON_BLOCK]);
/* The same, and a bad block is mended from another node, which takes its time (fs/mend.h). Without the lock. -ESTALE: look
 * again; -EIO: it is bad, and that has been told. */
int edge_read_mended(struct store *store, uint64_t ino, uint64_t data, const struct edge *edge, uint8_t block[BATON_BLOCK]);
/* How often a data operation that lost against another one looks again before it holds the lock over its input. */
#define DATA_TRIES 8u
/* What one attempt of a data operation may say besides an error. */
#define TRY_AGAIN 1
#define TRY_TRIM 2    /* a pending trim is in the way: finish_trim first */
#define TRY_NOTHING 3 /* there is nothing to do */

/* Blocks [.., end) are to come into use: is a pending trim in the way? */
static inline bool trim_in_the_way(const struct inode_row *row, uint64_t end) {
    return row->trim && end > row->trim;
}

/* `bytes` up to its last one that is not zero. */
size_t length_without_zeros(const uint8_t *bytes, size_t length);
/* The checksums of a payload's blocks, the zeros behind its end implied. */
void payload_checksums(const uint8_t *payload, size_t length, uint32_t blocks, uint64_t *checksums);

#endif
