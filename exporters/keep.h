/* A process that keeps the mount's descriptors while servers run.
 *
 * When all of batond's processes are killed at about one moment, the kernel ends the servers, which are the runner's children, at the
 * runner's death. The mount fails when the last of its descriptors is closed, which is earlier where the supervisor dies first, or
 * dies faster: servers would hand that failure to their clients. This process ends half a second after the runner, and only then the
 * mount fails.
 */
#ifndef BATON_EXPORTERS_KEEP_H
#define BATON_EXPORTERS_KEEP_H

#include "membership/supervisor.h"

/* The runner's, when exporters are to be started. The process, or 0: there is none, and the log says why. */
pid_t keep_start(const struct supervision *supervision);
/* Its end, when nothing serves any more. 0: none. */
void keep_end(pid_t keeper);

#endif
