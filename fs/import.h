/* Building a store anew from another node's: the receiving end of a full synchronization (replication/sync.c).
 *
 * The new store is a further generation of the same folder (fs/generation.h), so that the old one stays what it is until
 * the new one is complete. First come the rows of the shared tables as they were at one LSN of the provider's history, in
 * the order of their keys. Blocks that the old store has with the same checksum are taken over with it: their segments
 * become the new store's too, by a further link, without copying. The others are noted as wanted, with their place in the
 * provider's segments; then they are asked for by that. When none is wanted any more the new store has the provider's
 * position at that LSN, is on disk as a whole, and may become the current one: import_finish(), then, when both are closed,
 * import_switch().
 *
 * How far it has got is in the new store itself, committed with what it speaks of: after a kill or a power cut it goes on
 * from the last checkpoint, at most a second back. Nothing of the old store's files is changed, cut or punched meanwhile.
 *
 * One thread at a time uses an import.
 */
#ifndef BATON_FS_IMPORT_H
#define BATON_FS_IMPORT_H

#include "fs/store.h"

/* Whose rows they are, and of when. */
struct import_state {
    uint8_t incarnation[STORE_ID_SIZE]; /* of the provider's store: places are its own */
    uint64_t lsn;
    epoch_t epoch;
    uint8_t chain[CHAIN_SIZE];
    int64_t time; /* of the record at lsn */
};

struct import_progress {
    uint64_t rows;    /* that are here */
    uint64_t reused;  /* blocks taken over from the old store */
    uint64_t fetched; /* that came from the provider */
    uint64_t wanted;  /* that are still to come */
    uint64_t bad;     /* that the provider cannot read either: they stay unreadable here, and can be mended like there */
};

enum import_phase { IMPORT_ROWS, IMPORT_BLOCKS, IMPORT_COMPLETE };

struct import;

/* Goes on with the one that is there, if the old store is where it was then, or begins a new one. `old` stays open and is not
 * written to, undone or closed before import_close. With a sentence in `why`. */
int import_open(struct store *old, struct import **import, char *why, size_t why_room);
void import_close(struct import *import);
/* Closes it and removes what has been built. */
int import_discard(struct import *import);

/* The provider cannot show the state any more: what has been built goes, but for the blocks, which are used for the next
 * state's where they fit. Then there is no state. -EBUSY: that cannot be, import_discard. */
int import_again(struct import *import);

enum import_phase import_phase(const struct import *import);
/* False: nothing has been begun. */
bool import_state(const struct import *import, struct import_state *state);
struct import_progress import_progress(const struct import *import);

/* Before the first rows. Only if there is no state yet: -EEXIST. It is on disk then. -EAGAIN, -ENOSPC: a commit was refused; what
 * there is now is this state, none, or the one that there was before import_again: import_state. */
int import_begin(struct import *import, const struct import_state *state);

/* The rows that are wanted next: of `table`, behind the key `after` (length 0: from the first). -ENOENT: all are here. */
int import_next_rows(const struct import *import, enum table *table, struct key *after);
/* The last record that the old store's history and the provider's share, by their epochs, of which the rows come first.
 * -EAGAIN: they are not here yet. */
int import_common_point(struct import *import, uint64_t *lsn);
/* The old store is to be kept (import_switch): nothing is taken over from it, for what is punched in a shared segment is gone
 * in both. -EBUSY: too late, something has been, or may have been: import_discard, and again. */
int import_keep_old(struct import *import);

/* Rows as they were asked for, in order: each(context, key, value) gives the next one, 1; 0 at the end; or an error, which
 * is returned and undoes none of those before. `done`: the table has no more. -EBADMSG: they do not follow, or have an
 * impossible form. -ENOSPC: ask again later. -EAGAIN: these are not what is wanted now (a commit was refused since they were
 * asked for): ask again. */
int import_rows(struct import *import, enum table table, const struct key *after, int (*each)(void *context, struct span *key, struct span *value),
                void *context, bool done);

/* A piece of the map whose blocks are to come. */
struct import_want {
    uint64_t data, first;
    struct place place; /* the provider's; up to EXTENT_BLOCKS_MAX blocks */
};
/* Wanted pieces behind `after` (NULL: from the first), at most `max` of them. *count 0: none behind it. */
int import_wanted(struct import *import, const struct import_want *after, struct import_want *wants, unsigned max,
                  unsigned *count);
/* The blocks of a piece; NULL: the provider has none that fit their checksums. -EBADMSG: these do not; -ENOENT: not wanted
 * (any more). */
int import_blocks(struct import *import, const struct import_want *want, const uint8_t *bytes);

/* A piece that cannot be had as a whole: its blocks are wanted one by one from now on. */
int import_split(struct import *import, const struct import_want *want);

/* When no rows and no blocks are wanted, by the map itself: the position, and all of it on disk. Then the phase is
 * IMPORT_COMPLETE. May take a while; may be called again after an error or a kill. -EBUSY: something is wanted, rows if
 * import_phase says so, or blocks; -EAGAIN: a commit was refused meanwhile; -ESTALE: the old store is not where it was when this
 * was opened, import_close and import_open, which begins anew. */
int import_finish(struct import *import);
/* Is the old store where it was when this was opened? What has moved on may have punched what was taken over from it. */
bool import_is_beside(const struct import *import);
/* Of a complete one: its position. */
void import_position(const struct import *import, struct position *position);
/* After import_close, and store_close of the old store: the generation that was complete becomes the current one. The old
 * one's files go with generation_sweep, or, with a name, become a store of their own then, STORE/NAME. Files of undone
 * records stay where they are. -ENOENT: none is complete; -EBUSY: somebody has the store's lock. */
int import_switch(const char *store_path, const char *aside);

#endif
