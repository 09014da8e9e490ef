/* What the kernel has cached and must forget: one thread tells it so, holding no lock, because the kernel may make it
 * wait for pages and directories that are in use.
 *
 * Queueing never blocks; when the queue is full, everything is invalidated instead. Any thread may queue, also under
 * the engine lock.
 */
#ifndef BATON_FS_NOTIFY_H
#define BATON_FS_NOTIFY_H

#include "fs/nodes.h"

struct notify;

/* `fd`: the FUSE device, which stays the caller's. */
int notify_start(int fd, struct nodes *nodes, struct notify **notify);
/* When the connection has ended: nothing blocks any more. */
void notify_stop(struct notify *notify);

/* The attributes of an inode, and its data from `offset` for `length` bytes (0: to the end). Ignored for inodes that
 * the kernel does not know. */
void notify_data(struct notify *notify, uint64_t ino, uint64_t offset, uint64_t length);
/* The same, and `told` is called when the kernel has dropped it, in the notifier's thread or, if it cannot be queued,
 * at once. The caller owns `told` again then. */
struct told {
    void (*done)(struct told *told);
};
void notify_data_then(struct notify *notify, uint64_t ino, uint64_t offset, uint64_t length, struct told *told);
void notify_attributes(struct notify *notify, uint64_t ino);
/* All entries, then the attributes and data of all inodes. */
void notify_everything(struct notify *notify);
/* Waits until what was queued before has been told. */
void notify_drain(struct notify *notify);

/* Can this kernel drop all entries at once (FUSE_NOTIFY_INC_EPOCH, Linux 6.16)? Otherwise entries must not live long.
 */
bool notify_drops_entries(int fd);

#endif
