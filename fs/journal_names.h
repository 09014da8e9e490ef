/* Names for inode numbers, as a reader of the journal needs them: records mostly carry numbers.
 *
 * What the records read so far have told counts first; else the state as it is now is searched (in short snapshots,
 * without the engine lock), and how often that happens is limited. Memory is bounded. One thread.
 */
#ifndef BATON_FS_JOURNAL_NAMES_H
#define BATON_FS_JOURNAL_NAMES_H

#include "fs/store.h"
#include "fs/text.h"

struct names;
/* Without a store (NULL) only what the records tell. NULL: no memory. */
struct names *names_create(struct store *store);
void names_free(struct names *names);

/* Takes over what a record says about names. Call it after describing the record. */
void names_learn(struct names *names, const struct record *record);
/* Only the name of the inode that it makes, if it makes one. Before describing the record. */
void names_learn_new(struct names *names, const struct record *record);

/* Searches the state for those of the inodes that are not known, all in one pass. */
void names_search(struct names *names, const uint64_t *inos, size_t count);

/* Writes the path of the inode, or of `name` in the directory, without a slash at its beginning ("/": the root), as
 * text_escape() shows bytes. Returns false, and writes "inode N" or "(directory N)/name", if it is not known. */
bool names_path(struct names *names, uint64_t ino, char *path, size_t room);
bool names_path_in(struct names *names, uint64_t directory, struct span name, char *path, size_t room);

#endif
