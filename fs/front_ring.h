/* FUSE over io_uring (Linux 6.14 and later, once the module's parameter enable_uring says Y): one queue a processor, each
 * served by a thread bound to that processor, so that a request and its answer cross no processor boundary. Measured on
 * two cores with a server that does nothing: create, write and close in 14 µs instead of 25 µs.
 *
 * It takes the requests that want an answer; FORGET, INTERRUPT and INIT keep coming through /dev/fuse. A request's place
 * for its answer is handed around as a descriptor number from RING_FD on (note.fd, reply.fd), which raw_writev knows.
 */
#ifndef BATON_FS_FRONT_RING_H
#define BATON_FS_FRONT_RING_H

#include "fs/base.h"

#include <sys/uio.h>

#define RING_FD (1 << 24)

struct front;
struct rings;

/* How many processors a list of the kernel's names ("0-3,8"); 0 if it is no such list. */
unsigned processors_listed(const char *list);
/* Is this kernel (6.18 at least) one on which the tests run? Then it is switched on without being asked for. */
bool rings_tried_out(void);
/* Is it there, and enabled in the kernel? `enable`: switches it on (root). */
bool rings_possible(bool enable);
/* Before INIT: makes the rings. */
int rings_create(struct front *front, struct rings **rings);
/* After the reply to INIT: the queues register and their threads start. Until all have registered the kernel holds every
 * request back; so if one cannot, and if one is lost later, the connection is ended. */
void rings_start(struct rings *rings);
/* Why that happened: a negative errno, or 0. */
int rings_error(const struct rings *rings);
/* After the connection has ended. */
void rings_stop(struct rings *rings);
void rings_free(struct rings *rings);

/* Answers the request that came in at `place` (a number from RING_FD on). Any thread. Bytes sent, or -1 with errno. */
ssize_t ring_answer(struct rings *rings, int place, const struct iovec *parts, int count);

#endif
