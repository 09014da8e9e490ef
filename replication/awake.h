/* Processors kept awake while there is much to do.
 *
 * A request that waits passes from thread to thread: to this daemon and back, to the disk, and through six threads on two
 * nodes where it waits for the peer. A processor that has gone to sleep between two of them takes longer to wake than
 * each of them works: on virtual machines the sleep is an exit to the host. So while records and requests come at a rate,
 * the kernel is asked, by PM QoS (/dev/cpu_dma_latency, 0 µs; see the kernel's
 * Documentation/power/pm_qos_interface.rst), to let idle processors poll. That is let go as soon as the rate falls; a
 * quiet volume costs nothing. What it brings: ARCHITECTURE.md, Speed. */
#ifndef BATON_REPLICATION_AWAKE_H
#define BATON_REPLICATION_AWAKE_H

#include "fs/base.h"

#define AWAKE_RATE 500u /* records and requests a second */
#define AWAKE_CALM 10   /* ticks below it until it is let go */

struct awake {
    int fd; /* open while asked for; -1 */
    bool given_up; /* the kernel does not offer it */
    uint64_t last;
    int64_t last_at;
    int calm;
};

void awake_start(struct awake *awake);
/* To be called regularly, with the number of them so far and the time (ns, monotonic). True while it is asked for. */
bool awake_tick(struct awake *awake, uint64_t work, int64_t now);
void awake_stop(struct awake *awake);

#endif
