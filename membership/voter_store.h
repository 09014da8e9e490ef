/* What voters have promised and accepted, on disk: a small LMDB environment in a directory of its own, outside every store, so
 * that no rollback, synchronization or replacement of a store ever takes a promise back. One directory serves any number of
 * volumes.
 *
 * Every commit is flushed before voter_store_save() returns. An id is drawn when a volume's state is made, and anew for all
 * volumes when the directory is found to be a copy (another inode): what a copy has forgotten since then, nobody knows, so it
 * is another voter. It cannot tell when a whole disk was set back to an earlier image; do not do that to a voter.
 */
#ifndef BATON_MEMBERSHIP_VOTER_STORE_H
#define BATON_MEMBERSHIP_VOTER_STORE_H

#include "membership/voter.h"

struct voter_store;

/* Made if it is not there. -EBUSY: another process has it. -EBADMSG: it is damaged (a child process looks at it first, for
 * liblmdb dies of that). Errors have a sentence. One thread at a time. */
int voter_store_open(const char *directory, struct voter_store **store, char *why, size_t why_room);
void voter_store_close(struct voter_store *store);
/* The voter's state for this volume; made, with a new id and without a value, if there is none. -EBADMSG: it is damaged. */
int voter_store_load(struct voter_store *store, const uint8_t volume[16], struct voter_state *state, char *why, size_t why_room);
/* Durable when it returns 0. After an error nothing may be answered that rests on `state`. */
int voter_store_save(struct voter_store *store, const uint8_t volume[16], const struct voter_state *state);
/* Of several volumes, with one flush; all of them or, after an error, nobody knows which. The next save may succeed again. */
struct voter_store_row {
    uint8_t volume[16];
    struct voter_state state;
};
int voter_store_save_all(struct voter_store *store, const struct voter_store_row *rows, unsigned count);
/* The volume is served here no more: its promises go, and a new state will have a new id. */
int voter_store_forget(struct voter_store *store, const uint8_t volume[16]);

#endif
