/* How far a store has got in this boot, kept where it outlives the process but not the boot: a small file in /run/baton
 * (or where BATON_RUN says), one for each store's folder, mapped. What a killed process had acknowledged is in the page
 * cache of its disk; if the disk was detached meanwhile, or an older copy put in its place, the store ends before its mark:
 * it lacks something.
 *
 * A mark is set by one thread at a time; setting it is one store to memory.
 */
#ifndef BATON_FS_MARK_H
#define BATON_FS_MARK_H

#include <stdint.h>
#include <sys/stat.h>

#define MARK_ID_SIZE 16

struct mark_page;
struct mark {
    struct mark_page *page; /* NULL: could not be made; setting it does nothing */
};

/* The LSN to which the store in `folder` had got as this incarnation. -ENOENT: none in this boot, or of another
 * incarnation, or none that this user wrote; another negative errno. */
int mark_read(const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t *lsn);
/* Makes it, or takes the one that is there, and sets it. */
int mark_open(struct mark *mark, const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn);
void mark_set(struct mark *mark, uint64_t lsn);
void mark_close(struct mark *mark); /* it stays, for the next process */

#endif
