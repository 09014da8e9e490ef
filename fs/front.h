/* The mount: a FUSE session over a volume. Mounted once; promotion and demotion change what it lets through, not the
 * mount.
 */
#ifndef BATON_FS_FRONT_H
#define BATON_FS_FRONT_H

#include "fs/record.h"

struct volume;
struct front;

/* Mounts at volume->self->mount (clears a dead daemon's mount there first; refuses a mount point inside the store and a
 * store inside the mount), starts worker threads; returns when the mount answers. */
int front_start(struct volume *volume, struct front **front, char *why, size_t why_room);
/* Unmounts while replies can still be acknowledged; what is busy is cut off. Then front_stop, after the replicator has
 * stopped: answers what is held, joins the threads. */
void front_unmount(struct front *front);
void front_stop(struct front *front);
/* Where it is mounted. */
const char *front_path(const struct front *front);
/* What is mounted there last, if it is a Baton's: its device as the kernel writes it ("0:45"), else "". Returns how many of
 * Baton's are mounted there, one above the other. */
unsigned front_device(const char *path, char device[24]);
/* For another process than the one that served, which is dead. Takes its mount away, if it is still the one that is seen there:
 * callers get errors, and who comes sees none of what the kernel had cached of it (who has a file open there may). In its
 * place comes one that gives errors too, and whose device then stands in `device`, so that nobody takes the empty directory
 * below for the volume; the next front_start() takes that away. Waits for nobody. */
void front_replace_dead(const char *path, char device[24], const char *source);
void front_clear_dead(const char *path, const char *device);
/* The session has ended, for instance because somebody unmounted from outside. The descriptor becomes readable then. */
bool front_ended(const struct front *front);
/* The device and its clones: as long as somebody has copies of all of them, callers wait when this process dies, instead of getting an
 * error. At most `room`; how many. Only where requests come through the device (not by io_uring: their places go with the process). */
unsigned front_descriptors(const struct front *front, int *descriptors, unsigned room);
int front_ended_fd(const struct front *front);

/* A record was applied (lock held): on a standby, queue the kernel invalidations that it needs. Never blocks. */
void front_applied(struct front *front, const struct record *record);
/* How many requests of the kernel have come so far. Any thread. */
uint64_t front_requests(const struct front *front);
/* A record was undone (lock held): likewise. */
void front_undone(struct front *front, const struct record *record);

/* Role changes, called without locks, in this order: becoming primary: drop all entries and invalidate known inodes,
 * then let changes in. Ceasing: changes answer -EROFS from now on; waits for running ones. */
/* A switchover is under way: changes that arrive now are held, not failed; waits for running ones (an operation whose
 * reply is parked is not running). The next front_become_… ends it: held changes go on, or answer -EROFS. Becoming
 * primary again after a hold only lets them go on. */
/* On a standby: another store takes the place of the volume's. Requests wait meanwhile. replace(context) closes the old one
 * and opens the new one, volume->store; 0 or an error, which is returned: then there is no store any more. The kernel
 * forgets what it knew. */
int front_replace_store(struct front *front, int (*replace)(void *context), void *context);
void front_hold(struct front *front);
void front_become_primary(struct front *front);
void front_become_standby(struct front *front);

#endif
