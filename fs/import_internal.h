/* What the files of an import share: its own rows in the store that is being built, and when they may change. */
#ifndef BATON_FS_IMPORT_INTERNAL_H
#define BATON_FS_IMPORT_INTERNAL_H

#include "fs/extent.h"
#include "fs/import.h"
#include "fs/store_internal.h"

#define IMPORT_WANTED (UINT32_MAX - 2u) /* instead of a segment in an extent row: its blocks are to come */

/* Row "import" of table meta, while the import is under way. */
struct import_row {
    uint32_t format;
    uint16_t reuse;
    uint8_t clearing; /* it is to begin anew with another state (import_again.c) */
    uint8_t kept;     /* blocks of an earlier one are there */
    struct import_state state;
    struct import_progress progress;
    uint64_t live, inodes;
    uint32_t step; /* in `import_order`; TABLE_SHARED_END: all rows are here */
    uint16_t key_length;
    uint8_t key[KEY_MAX];
} __attribute__((packed));

/* The epochs first: they say what the old store has that the provider's history has not. */
extern const enum table import_order[TABLE_SHARED_END];

/* Row "import.segments": segments of the old store, and their numbers here. */
struct adopted {
    uint32_t from, to;
} __attribute__((packed));

struct import {
    struct store *old, *store;
    unsigned generation;
    struct import_row row; /* as it was last seen */
    bool begun, complete;
    struct position beside;  /* where the old store was when this was opened */
    struct import_segments {  /* row "import.segments", as long as no commit is refused */
        struct adopted *list; /* `to` ascending */
        uint32_t count;
        uint32_t *to; /* by `from`; 0: none */
        uint32_t to_count;
        bool loaded;
        uint64_t mends;
    } segments;
    uint64_t mends; /* refused commits when the clearing began */
};

struct key import_meta_key(const char *name);
struct key import_want_key(uint64_t data, uint64_t first);
/* What a refused commit took back is asked for again: so the row is looked at each time. Lock held, as for all below. */
int import_row_load(struct import *import);
int import_row_save(struct import *import);
int import_segments_load(struct import *import);
/* The number that a segment of the old store has here; makes it one of ours at the first time. */
int import_adopt(struct import *import, uint32_t from, uint32_t *to);
/* import_again.c: blocks that were fetched for a state that is not to be had any more. */
int import_clear(struct import *import); /* without the lock */
bool import_has_kept(struct import *import);
/* How many blocks from extent->first + skip on, *count at most, lie in one place of those: they are used now. Without any
 * place->segment stays, and *count says for how many that is known. */
int import_kept(struct import *import, const struct extent *extent, uint32_t skip, uint32_t *count, struct place *place);
int import_free_kept(struct import *import); /* those that are not used; without the lock */
/* Waits for room in the batch and on the disk, then looks at the row. */
int import_admit(struct import *import);
void import_commit_soon(struct store *store); /* if the batch is full */

#endif
