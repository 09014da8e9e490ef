/* batond as two processes: the parent, which supervises (membership/supervisor.h says what it decides), and its child, which
 * serves. The parent opens no store, no mount and no socket; what may take long it does in a third process: after a death
 * that gives the lease back and leaves the note.
 *
 * The order after a death, always: the child is reaped, so nobody answers any more; `giving_up`; then its mount is taken
 * away, and something in its place gives errors until the next child mounts there; then `after`; then the next start.
 */
#ifndef BATON_FS_LAUNCH_H
#define BATON_FS_LAUNCH_H

#include "membership/died.h"
#include "membership/supervisor.h"

#include <sys/types.h>

struct launch {
    void *context;
    struct supervision *shared; /* launch_share() */
    int64_t patience;           /* see supervisor_begin */
    const char *source;         /* of the mount: the volume's name */
    /* In the child: serves until its end. It says that it is ready with launch_ready(ready). SIGTERM, SIGINT and SIGHUP are
     * blocked. Returns its exit status. */
    int (*serve)(void *context, int ready);
    /* In the parent, once: the first child is ready. */
    void (*ready)(void *context);
    /* In a process of its own that lives as long as the parent and is started again when it dies; NULL: none. SIGTERM, SIGINT,
     * SIGHUP and SIGCHLD are blocked; SIGTERM ends it. Returns its exit status. */
    int (*companion)(void *context, pid_t parent);
    /* In the parent, the child is dead and others may still use its mount, whose requests fail: exporters' servers are ended
     * here, address first. Bounded; called again it does nothing. NULL: there is nothing to end. */
    void (*giving_up)(void *context);
    /* In a process of its own that may take LAUNCH_AFTER_SECONDS. The dead one has asked for the lease in that epoch (0: none)
     * and session, and may have held it; `shared` may be the next child's by then. */
    void (*after)(void *context, const struct died *died, epoch_t epoch, uint64_t session);
};
#define LAUNCH_AFTER_SECONDS 20u

/* Memory that the processes to come share with this one; NULL: there is none. */
struct supervision *launch_share(void);
/* Runs the supervisor, in a process with one thread. Returns its exit status, or in the child what `serve` returned. */
int launch(const struct launch *launch);
void launch_ready(int ready);

#endif
