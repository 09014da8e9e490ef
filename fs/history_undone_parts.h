/* What the files about undone tails share. The past's lock is held by the callers of all of these. */
#ifndef BATON_FS_HISTORY_UNDONE_PARTS_H
#define BATON_FS_HISTORY_UNDONE_PARTS_H

#include "fs/history_internal.h"
#include "fs/history_undone.h"

/* Tables of the overlay that hold no rows of the past. */
#define TAIL_SELECTED TABLE_META    /* ino → u32 */
#define TAIL_BLOCKS TABLE_SEGMENT   /* first position (big-endian) → struct tail_blocks */
#define TAIL_REMOVED TABLE_DEAD     /* number → line */
#define TAIL_NAMES TABLE_JOURNAL    /* directory → struct directory_name; 's' and directory: its entries were read */

#define SELECTED_TOUCHED 1u
#define SELECTED_ABOVE 2u
#define SELECTED_MADE 4u /* by the tail */
#define SELECTED_STUB 8u
#define SELECTED_NAMED 16u /* the one name that a stub was made with is known */

struct tail_blocks {
    uint64_t offset; /* of the payload, in the file */
    uint32_t blocks, payload;
};

struct undone_tail {
    int fd;
    uint32_t position; /* of the next block */
    uint64_t removed;  /* lines */
    uint64_t cookies;  /* given to entries of stubs */
};

int tail_select(struct store *past, uint64_t ino, uint32_t flags);
uint32_t tail_selection(struct store *past, uint64_t ino);

/* history_stubs.c: a blank past. Where the directory is in the store today, if it is; `name` is a key of dirent. */
int stubs_directory_today(struct store *past, uint64_t ino, uint64_t *parent, struct key *name);
/* Before the record is applied: makes what it takes for granted. */
int stubs_before(struct store *past, const struct record *record);
/* After the last one: names for stubs that no record named. */
int stubs_place(struct store *past);

#endif
