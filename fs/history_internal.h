/* What the files of history share with fs/table.c and each other. */
#ifndef BATON_FS_HISTORY_INTERNAL_H
#define BATON_FS_HISTORY_INTERNAL_H

#include "fs/history.h"
#include "fs/store_internal.h"

#define SEGMENT_UNDONE (UINT32_MAX - 1) /* a place in a file of undone records */
extern uint32_t history_step; /* records whose images are taken in one read transaction; tests have fewer */

struct history {
    struct store *base;
    bool blank;                /* nothing of the store shows through: see history_undone.c */
    struct snapshot *snapshot; /* of the base; while the past's lock is held */
    struct history_hold hold;
    uint64_t lsn;
    uint8_t chain[CHAIN_SIZE]; /* of that record */
    uint64_t taken;            /* the images of the records up to here are in the overlay */
    uint8_t taken_chain[CHAIN_SIZE];
    uint64_t newest;           /* of the base, when it was looked at last */

    MDB_env *env; /* the overlay: a table's rows are a byte, 1 or 0 (there was none), and the value */
    MDB_txn *txn;
    MDB_dbi dbi[TABLE_END]; /* those of shared tables are the overlay's; the rest as fs/history_undone.c says */
    uint32_t puts;
    uint64_t put_bytes; /* since the overlay's last commit */

    int error;
    char why[256];
    struct undone_tail *tail; /* history_undone.c; NULL: a state as it was */
};

/* A past without images: the overlay is empty, and nothing is held if `blank`. */
int history_make(struct store *base, bool blank, struct store **past, char *why, size_t why_room);
int history_fail(struct history *history, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Commits the overlay if much was put since the last time. No cursor may be open. */
int history_settle(struct history *history);

/* store_lock and store_unlock of a past. */
void history_enter(struct store *past);
void history_leave(struct store *past);

/* Rows of the past. Puts go to the overlay. As in fs/table.h. */
int history_get(struct store *past, enum table table, const struct key *key, struct span *value);
int history_put(struct store *past, enum table table, const struct key *key, const void *value, size_t length);
int history_remove(struct store *past, enum table table, const struct key *key);
/* A row that stays as it is if it is there. */
int history_put_image(struct history *history, const struct undo_image *image);
int history_cursor_open(struct cursor *cursor, struct store *past, enum table table);
int history_cursor_seek(struct cursor *cursor, const struct key *key);
int history_cursor_seek_before(struct cursor *cursor, const struct key *key);
int history_cursor_next(struct cursor *cursor);
int history_cursor_previous(struct cursor *cursor);
void history_cursor_close(struct cursor *cursor);

/* store_read_blocks of a past. */
int history_read_blocks(struct store *past, struct place place, void *buffer);

/* history_undone.c */
int undone_tail_read(struct history *history, struct place place, uint8_t *to);
void undone_tail_free(struct undone_tail *tail);

#endif
