/* Undone tails: what a rollback takes back is first written, data included, to STORE/undone/FIRST-LAST.records, and
 * stays there until a person removes it.
 *
 * The file: a head (magic, volume, first and last LSN, the chain before the first), then for each record its length, its
 * payload's length, a checksum over both, and the two. It is on disk, names too, before the first record is undone.
 */
#ifndef BATON_FS_UNDONE_H
#define BATON_FS_UNDONE_H

#include "fs/store.h"

/* Writes the records above `lsn`. No appends meanwhile. The file's path into `path`. 0; -ENOENT: the journal does not reach
 * back so far; -EBADMSG: a record or its data cannot be read, and there is no file: keep the whole store; -ENOSPC, … */
int undone_save(struct store *store, uint64_t lsn, char *path, size_t room);
/* Reads what undone_save would have to. 0 or -EBADMSG, -ENOMEM, … */
int undone_check(struct store *store, uint64_t lsn);

/* undone_save, then store_undo; all that is undone is in the file, for nobody appends meanwhile. Interrupted anywhere, it is
 * simply called again. -EBADMSG: as undone_save, nothing has been undone. */
int store_rollback(struct store *store, uint64_t lsn, char *path, size_t room);

struct undone; /* such a file, being read */
int undone_open(const char *path, struct undone **undone, char *why, size_t why_room);
/* The next record, valid until the next call: 1; 0 at the end; -EBADMSG if the file is damaged here. */
int undone_next(struct undone *undone, struct span *record, struct span *payload);
/* Where the payload of that record begins in the file. */
uint64_t undone_payload_at(const struct undone *undone);
const uint8_t *undone_volume(const struct undone *undone);
/* First and last LSN, and the chain value before the first. */
void undone_range(const struct undone *undone, uint64_t *first, uint64_t *last, uint8_t chain[CHAIN_SIZE]);
void undone_close(struct undone *undone);

/* Calls `each` with the name and the size of every such file of a store, in the order of their names. */
int undone_list(const char *store_path, void (*each)(void *context, const char *name, uint64_t bytes), void *context);

#endif
