/* The past: the state of a store as it was at an LSN, to be read through the operations (fs/ops.h) as if it were a store
 * of its own. The store itself is not touched.
 *
 * The state at LSN n is the present one with the row images of the records above n laid over it; of several images of a
 * row the oldest counts. They are put into a private LMDB environment, the *overlay*, an unlinked file in the store's
 * directory: memory stays bounded however much was changed since. A look takes the past's lock, and with it a read
 * transaction of the store; what was committed since the last look joins the overlay first. So no read transaction is
 * longer than one look, or than `history_step` records, and the engine lock is only taken for their begin and end.
 *
 * While a past is open the journal is not trimmed beyond it, so that its blocks stay readable. That yields like
 * everything that is kept: when the disk is nearly full, or journal and kept data exceed the volume's limit. Then all
 * that is asked of the past fails, and history_error() says why. The same if the record at n is itself undone.
 *
 * A look has a bound: where records come nearly as fast as they are taken in, it fails for good (-EBUSY), as when the store is
 * about to be closed (history_end_all: -ECANCELED).
 *
 * A past is closed before its store is. One thread at a time uses a past. Only what reads may be called with it (and record_apply, see history_undone.c): it
 * has no committer, no tail and no segments of its own.
 */
#ifndef BATON_FS_HISTORY_H
#define BATON_FS_HISTORY_H

#include "fs/store.h"

/* Called now and then with how many of so many records have been read. True: give up (-ECANCELED). */
typedef bool history_progress(void *context, uint64_t done, uint64_t of);

/* The state at `lsn`; `chain`, if not NULL, is the chain value that it must have there (-ESTALE if not). -ENOENT: the
 * journal does not reach back so far, or not so far ahead. With a sentence in `why`. */
int history_open(struct store *store, uint64_t lsn, const uint8_t *chain, history_progress *progress, void *context,
                 struct store **past, char *why, size_t why_room);
void history_close(struct store *past);

/* The journal is kept for this past until it is a quarter beyond its limit: what others rely on, and slow new work for. */
void history_keep(struct store *past);

/* The store is about to be closed: its pasts, also those that are being opened, fail at their next step. Or not any more. */
void history_end_all(struct store *store, bool end);

bool history_is(const struct store *store); /* a past, not a store? */
uint64_t history_lsn(const struct store *past);
/* Of a state as it was: lsn, epoch and chain, and the time of that record; the rest is 0. */
void history_position(const struct store *past, struct position *position);
/* 0, or what made this past unreadable for ever, with a sentence in `why`. Of a store that is no past: 0. */
int history_error(const struct store *past, char *why, size_t why_room);

/* The newest state that is not younger than `time` (nanoseconds since 1970). -ENOENT with a sentence if the journal does
 * not reach back so far. */
int history_find(struct store *store, int64_t time, uint64_t *lsn, char *why, size_t why_room);

#endif
