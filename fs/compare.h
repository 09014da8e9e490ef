/* Comparing the shared tables of two stores: hashes over ranges of their rows, and what differs, in words.
 *
 * Compared is what rows say. How the rows of the map are cut, and where blocks lie, is a node's own business (fs/extent.h):
 * of the map, runs of blocks are hashed with their checksums, and a range of it is one of positions (data id, block), at
 * whose edges rows are cut. Rows of the other tables are compared byte by byte.
 *
 * Nothing of the network here: replication/verify.c. All calls need the state's lock (store_lock); a state of the past
 * (fs/history.h) does as well as a store.
 */
#ifndef BATON_FS_COMPARE_H
#define BATON_FS_COMPARE_H

#include "fs/table.h"

struct range { /* of a shared table: rows with from <= key < to */
    enum table table;
    struct key from; /* length 0: from the first row on */
    struct key to;   /* length 0: to the last one */
};
#define RANGE_HASH 16

/* Is it one of a shared table, with keys as that has them? For ranges that somebody else names. */
bool range_valid(const struct range *range);
/* Of all keys that begin with this number: what belongs to an inode, a directory, a data id. */
struct range range_of(enum table table, uint64_t prefix);

#define RANGE_BYTES_MAX (32u << 20)
/* What all rows of the range say. *rows: how many there are here. -E2BIG: more than `rows_max`, or than RANGE_BYTES_MAX; else
 * an error of reading. */
int range_hash(struct store *state, const struct range *range, uint32_t rows_max, uint8_t hash[RANGE_HASH], uint32_t *rows);
/* The same of its first rows, so many or so many bytes (one at least): range->to becomes the key behind them. 0, or -ENOENT:
 * these were all; range->to is what it was. */
int range_cut(struct store *state, struct range *range, uint32_t rows_max, uint32_t bytes_max, uint8_t hash[RANGE_HASH],
              uint32_t *rows, uint32_t *bytes);
/* Cuts a range of so many rows into parts of `each`, at most `room`. The number of parts, or an error. */
int range_split(struct store *state, const struct range *range, uint32_t each, struct range *parts, unsigned room);
/* Each row in order, until `row` returns something else than 0, which is returned. Of the map: pieces within the range,
 * their place 0, or SEGMENT_NONE if unwritten. */
int range_rows(struct store *state, const struct range *range,
               int (*row)(void *context, struct span key, struct span value), void *context);
/* The first key behind a row that range_rows gave (or one made elsewhere of the same form). -EBADMSG: it is no row. */
int range_behind(enum table table, struct span key, struct span value, struct key *behind);

/* ---- What differs ---- */

enum differs { DIFFERS_HERE, DIFFERS_THERE, DIFFERS_BOTH }; /* there is a row here only, there only, on both */
#define DIFFERENCE_TEXT 320u
struct difference {
    enum table table;
    enum differs differs;
    uint64_t ino;     /* of the file or directory; 0: not known, or none (an epoch) */
    uint64_t data;    /* of the map: whose blocks; 0: none */
    uint64_t first, count; /* of the map: these blocks */
    struct key entry; /* of a directory's entry: directory and name; else length 0 */
    uint64_t there;   /* …the inode that it names at the other node; 0: none */
    char text[DIFFERENCE_TEXT]; /* "mode 100644 on a, 100600 on b" */
};

/* Rows one after the other, as range_rows gives them: 1, 0 at the end, or an error. */
struct row_source {
    int (*next)(void *context, struct span *key, struct span *value);
    void *context;
    const char *node; /* whose they are */
};
/* Both sides of one range, each in order of keys. Calls `found` for each difference until it returns something else than 0,
 * which is returned. -EBADMSG: a row that cannot be. */
int rows_compare(enum table table, const struct row_source *here, const struct row_source *there,
                 int (*found)(void *context, const struct difference *difference), void *context);

#endif
