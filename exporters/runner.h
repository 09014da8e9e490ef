/* The runner: the process, a child of batond's supervisor, that starts a volume's exporters when the node is primary, looks
 * whether they serve, and stops them before another node may be primary. It opens no store and no socket and never looks into
 * the mount, so it acts also when the process that serves is stopped, stuck or dead.
 *
 *   wanted            start, in the order of the config, the address last; a start that fails is tried once more
 *   not wanted, or    the address off, then each exporter's stop in reverse order; then nothing answers clients (`on` = 0);
 *   the lease over    then it waits, for a while, until their servers are gone; an address that comes again is taken off
 *   served            each exporter's monitor at its times (the address's also when its link goes), and a second after a restart: one
 *                     that fails is started again, once; if that does not help, it is
 *                     FAILED and `broken` says so (the serving process hands over, if another node can), and is tried again
 *                     after RUNNER_AGAIN, for as long as this node stays primary
 *
 * The addresses live in the kernel as long as the lease has left, in whole seconds, from each look at them: one that a person has removed is put back, and when
 * nobody looks any more, they go by themselves. That goes on while an exporter's action runs.
 *
 * What an earlier runner, or an earlier boot, has left behind is stopped first. The runner ends when its parent does, after
 * having stopped everything.
 */
#ifndef BATON_EXPORTERS_RUNNER_H
#define BATON_EXPORTERS_RUNNER_H

#include "exporters/exports.h"
#include "membership/supervisor.h"

#define RUNNER_AGAIN (INT64_C(10) * 1000000000)
#define RUNNER_ADDRESS_EVERY (INT64_C(500) * 1000000) /* the addresses are looked at, and their lifetime renewed */

/* Each exporter's `check`, before anything is served. 0, or -EINVAL with the first sentence. */
int runner_check(const struct config *config, const struct node_config *self, char *why, size_t why_room);

/* In a process of its own with one thread, in which SIGTERM, SIGINT, SIGHUP and SIGCHLD are blocked; `parent`: its parent.
 * Returns its exit status when it has been told to end by SIGTERM, or its parent has died. */
int runner_run(const struct config *config, const struct node_config *self, struct supervision *shared, pid_t parent);

#endif
