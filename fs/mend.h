/* Bad blocks: what cannot be read, or does not fit its checksum, is had from another node and written where it lies.
 *
 * That overwrites nothing that was ever right, and changes no row: the place holds again what the map says it holds. fs/
 * knows nothing of the network: the store's watch has a function that fetches a block (fs/store.h).
 *
 * Any thread; no locks held unless said otherwise. Who reads a bad block waits for the fetching, which is bounded; several
 * readers of one block wait for the same answer.
 */
#ifndef BATON_FS_MEND_H
#define BATON_FS_MEND_H

#include "fs/table.h"

#include <pthread.h>

struct store;

#define MEND_NOTED 16u
struct mend_note { /* a block that is bad still, as far as is known */
    uint64_t ino; /* of the file through which it was met; 0: not known */
    uint64_t data, block;
    struct place place;
    uint64_t checksum;
    int64_t time; /* clock_now() */
} __attribute__((packed));

struct mend_counts { /* kept over restarts, as a local value */
    uint64_t found;    /* blocks that were found bad; one that stays bad counts once while it is among the notes */
    uint64_t mended;
    uint64_t unmended; /* of those found: not mended so far */
    uint32_t count;    /* of notes, the oldest first; the oldest goes when there are too many */
    struct mend_note notes[MEND_NOTED];
} __attribute__((packed));

#define MEND_AT_ONCE 8u
struct mending { /* a block that is being fetched */
    bool used, done;
    uint64_t data, block, checksum;
    unsigned waiting; /* for the result */
    int result;
    uint8_t bytes[BATON_BLOCK];
};

struct mend { /* a store's; its own lock comes after the engine lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct mending under_way[MEND_AT_ONCE];
    struct mend_counts counts;
    int64_t told_since; /* lines in the log, so many since then */
    unsigned told;
};

void mend_open(struct mend *mend);
void mend_close(struct mend *mend);
void mend_load(struct store *store); /* counts of earlier times; engine lock held */

enum mend_found { FOUND_RIGHT, FOUND_MENDED, FOUND_BAD };
/* A block that was read wrong: `place` (one block) and `checksum` are what the map said of it. 0: `bytes` are right, the
 * block is mended, or was wrong for a moment only; -ESTALE: the map says something else by now, look again; -EIO: it is
 * bad and nobody has a good copy, with a sentence in the log. *found (may be NULL): what this call counted it as. */
int mend_read(struct store *store, uint64_t ino, uint64_t data, uint64_t block, struct place place, uint64_t checksum,
              uint8_t bytes[BATON_BLOCK], enum mend_found *found);

/* All blocks have been looked at and so many stayed bad: what was found before and is none of them has gone meanwhile. */
void mend_settle(struct store *store, uint64_t unmended);

/* A copy of what has been counted. What is no longer in any file, or was overwritten, is no longer noted as bad. */
void mend_counts_now(struct store *store, struct mend_counts *counts);
/* The same without the engine lock, and without looking. */
void mend_counts(struct store *store, struct mend_counts *counts);

#endif
