/* What a rollback took back (fs/undone.h), as a past: the state at the end of the undone tail.
 *
 * If the journal still reaches back to where the tail left the common history, that state lies below, and the tail's
 * records are applied to it, in the overlay only. If not, the past is *blank*: nothing lies below but stubs for what the
 * records name, and of files that were older only what the records hold is known (TREE_PARTIAL; zeros elsewhere); a stub has
 * the owner, mode and name that the store knows for it today, if it does.
 *
 * Only what the records created or changed is selected, with the directories above.
 */
#ifndef BATON_FS_HISTORY_UNDONE_H
#define BATON_FS_HISTORY_UNDONE_H

#include "fs/history.h"

struct undone_report {
    uint64_t first, last;   /* records of the file */
    uint64_t reached;       /* the last one that could be read; below `last` if the file is damaged */
    uint64_t refused;       /* that made no sense on what is known; only without what lies below */
    uint64_t removed;       /* names that are told by history_removed() */
    uint64_t passing;       /* names that were both made and removed */
    bool blank;
    char damage[200];       /* what is wrong with the file; empty: nothing */
};

/* As history_open(). -EXDEV: the file is of another volume. */
int history_open_undone(struct store *store, const char *path, history_progress *progress, void *context,
                        struct store **past, struct undone_report *report, char *why, size_t why_room);

/* Is the inode among what this past wants to show? `flags` becomes TREE_…. True for every past of a time. */
bool history_selected(struct store *past, uint64_t ino, uint32_t *flags);

/* What the tail removed and renamed, one line each, in its order: the one after *at, which moves on. -ENOENT: no more. */
int history_removed(struct store *past, uint64_t *at, char *line, size_t room);

#endif
