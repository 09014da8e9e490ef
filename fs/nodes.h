/* The inodes that the kernel knows through this mount: how often each was looked up (the kernel says so many times
 * "forget"), and the last record that concerned it.
 *
 * Opens are not counted: a file that is open holds its inode in the kernel, so it is not forgotten before its last
 * close. Any thread; each call takes one of several locks, and no other one while it holds it.
 */
#ifndef BATON_FS_NODES_H
#define BATON_FS_NODES_H

#include "fs/base.h"

struct nodes;

struct nodes *nodes_create(void);
void nodes_free(struct nodes *nodes);

/* One more reply names the inode. 0 or -ENOMEM. */
int nodes_look(struct nodes *nodes, uint64_t ino);
/* The kernel forgot `count` of them, or a reply that named it did not arrive. True: nobody here uses it any more and
 * it is an orphan: its time to be reclaimed. */
bool nodes_forget(struct nodes *nodes, uint64_t ino, uint64_t count);
/* It has lost its last name. True: and nobody here uses it. */
bool nodes_orphan(struct nodes *nodes, uint64_t ino);
/* It has a name again (linkat of an O_TMPFILE). */
void nodes_adopt(struct nodes *nodes, uint64_t ino);
bool nodes_known(struct nodes *nodes, uint64_t ino);

/* Record `lsn` changed the inode. */
void nodes_change(struct nodes *nodes, uint64_t ino, uint64_t lsn);
/* The last record that changed it, or a later one. */
uint64_t nodes_changed(struct nodes *nodes, uint64_t ino);
/* A new term as primary begins after record `lsn`: any inode may have been changed by any record up to there, and none
 * by a later one (those of an earlier term have been undone). */
void nodes_restart(struct nodes *nodes, uint64_t lsn);

/* A term as primary has ended. What records beyond `received` changed may be lost; what those beyond `durable` changed
 * may be on too few disks. Terms are counted from 1. */
void nodes_doubt(struct nodes *nodes, uint64_t received, uint64_t durable, unsigned term);
/* True if a file opened in term `opened` may have lost what was written through it; `durable`: or not have it on all
 * disks. It stays so for that open file; one that is opened later is not concerned. */
bool nodes_doubtful(struct nodes *nodes, uint64_t ino, uint64_t opened, bool durable);

/* True if its access time may have to be brought up to date: the first read since it was looked up or changed. */
bool nodes_first_read(struct nodes *nodes, uint64_t ino);

/* Files that are being made: the process (or thread) `maker` has created the file and has it open for writing, so its
 * close will wait for all that it did to it. The table is small and forgets: then each change waits by itself. */
void nodes_made(struct nodes *nodes, uint64_t ino, uint32_t maker);
bool nodes_made_by(struct nodes *nodes, uint64_t ino, uint32_t maker); /* …and has not closed it yet */
void nodes_closed(struct nodes *nodes, uint64_t ino); /* somebody has closed it */

/* The kernel's page cache gets (or may have) data of it. */
void nodes_cached(struct nodes *nodes, uint64_t ino);
bool nodes_is_cached(struct nodes *nodes, uint64_t ino);

/* All that are known, the root among them. Allocated; NULL and -ENOMEM in *count if there is no memory. */
uint64_t *nodes_list(struct nodes *nodes, int64_t *count);

#endif
