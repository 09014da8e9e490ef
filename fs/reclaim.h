/* Unlinked files that nobody uses any more are freed here, in a thread of its own and in batches.
 *
 * Only on the primary. Orphans that this epoch did not make are left alone for a grace time: a client of the primary
 * before may come back to a file that it holds open.
 */
#ifndef BATON_FS_RECLAIM_H
#define BATON_FS_RECLAIM_H

#include "fs/nodes.h"

struct store;
struct reclaim;

int reclaim_start(struct store *store, struct nodes *nodes, struct reclaim **reclaim);
void reclaim_stop(struct reclaim *reclaim);

/* The store takes records from now on; orphans that it holds already wait for the grace time. */
void reclaim_resume(struct reclaim *reclaim, int64_t grace_ns);
/* Returns when no reclaiming is under way, and none begins. */
void reclaim_pause(struct reclaim *reclaim);
/* The same, and for good: whoever resumes it does so in vain. The structure stays until reclaim_stop. */
void reclaim_close(struct reclaim *reclaim);
/* Nobody here uses the orphan `ino`. Any thread, never blocks long. */
void reclaim_queue(struct reclaim *reclaim, uint64_t ino);
/* The grace time is over: orphans that nobody here uses may be gone any moment. */
bool reclaim_grace_over(struct reclaim *reclaim);

#endif
