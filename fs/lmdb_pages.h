/* Is a state of an LMDB environment whole, as far as pages go? liblmdb trusts what it reads: it aborts, or runs away,
 * on a page that is damaged, reading or writing. This reads the file itself (the format of LMDB 0.9, as its mdb.c has
 * it) and believes nothing of it.
 *
 * What rows say is not looked at: they have checksums of their own (fs/table.h).
 */
#ifndef BATON_FS_LMDB_PAGES_H
#define BATON_FS_LMDB_PAGES_H

#include "fs/base.h"

#define LMDB_PAGE 4096u

/* Walks every page that the meta page `meta` names in the data file `fd`: each tree's pages, once each, with headers,
 * nodes, key order, depth and counts as liblmdb takes them for granted, and the list of free pages, none of which is in
 * use. Nothing is changed, and what others change meanwhile in other pages does not matter.
 *
 * 0; -EBADMSG: damaged, and `why` says what is (no newline); -ENOMEM; or the error of a read, with a sentence in `why`.
 * Time: every page of the state is read; of a value on overflow pages the first one. Memory: a bit for each page. */
int lmdb_pages_verify(int fd, const uint8_t meta[LMDB_PAGE], char *why, size_t why_room);

#endif
