/* How far a store has got in this boot, kept where it outlives the process but not the boot: a small file in /run/baton
 * (or where BATON_RUN says), one for each store's folder, mapped. What a killed process had acknowledged is in the page
 * cache of its disk; if the disk was detached meanwhile, or an older copy put in its place, the store ends before its mark:
 * it lacks something.
 *
 * A mark is set by one thread at a time; setting it is one store to memory.
 *
 * Beside it, for the replicator, a note: what the next process has to know if the store is the same incarnation to it.
 */
#ifndef BATON_FS_MARK_H
#define BATON_FS_MARK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define MARK_ID_SIZE 16
#define MARK_NOTE_MAX 4096u

struct mark_page;
struct mark {
    struct mark_page *page; /* NULL: could not be made; setting it does nothing */
};

/* The LSN to which the store in `folder` had got as this incarnation. -ENOENT: none in this boot, or of another
 * incarnation, or none that this user wrote; another negative errno. */
int mark_read(const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t *lsn);
/* Makes it, or takes the one that is there, and sets it. If it cannot, there is none. */
int mark_open(struct mark *mark, const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn);
void mark_set(struct mark *mark, uint64_t lsn);
/* Another note in place of the one before; length 0: none. A process that is killed in the middle leaves the one or the
 * other. Where no mark could be made nothing is noted: this process has another incarnation, and the next one as well. One thread
 * at a time. */
void mark_put_note(struct mark *mark, const void *bytes, size_t length);
/* Its length; 0: there is none, or it is longer than `room`. */
size_t mark_get_note(const struct mark *mark, void *bytes, size_t room);
void mark_close(struct mark *mark); /* it stays, for the next process */

#endif
