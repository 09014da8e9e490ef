/* A process that keeps the mount's descriptors while servers run, and ends them if nobody else is left to.
 *
 * When all of batond's processes are killed at about one moment, the kernel ends servers, which are the runner's children, at the
 * runner's death, but not what they have forked; and the mount fails when the last of its descriptors is closed, which is earlier
 * where the supervisor dies first, or dies faster. Servers would hand that failure to their clients. This process, a child of the
 * runner's, outlives both: it stops the exporters, and only with its end the mount fails.
 */
#ifndef BATON_EXPORTERS_KEEP_H
#define BATON_EXPORTERS_KEEP_H

#include "membership/supervisor.h"

/* The runner's, when exporters are to be started. `last` is called, in that process, when the runner and the supervisor have died.
 * The process, or 0: there is none, and the log says why. */
pid_t keep_start(const struct supervision *supervision, pid_t supervisor, void (*last)(void *), void *context);
/* Its end, when nothing serves any more. 0: none. */
void keep_end(pid_t keeper);

#endif
