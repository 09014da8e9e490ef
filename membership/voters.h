/* The built-in register and its lease, as the node that asks sees them: the engine behind register_voters_open(). It proposes
 * with change.h, looks with queries, and counts its lease with lease.h; who answers is voter.h, behind voter_host.h.
 *
 * Threads: each call of the engine waits in its caller's thread, for a moment that is bounded (the constants below); one
 * thread of the engine's own has the sockets, sends what is due and takes answers in; it waits for no disk, and for no lock
 * under which anybody does. Another one tells the watch, so that a watch that takes its time delays no renewal.
 */
#ifndef BATON_MEMBERSHIP_VOTERS_H
#define BATON_MEMBERSHIP_VOTERS_H

#include "fs/config.h"
#include "membership/register.h"

#define VOTERS_READ_PATIENCE INT64_C(1000000000)   /* ns: read() waits no longer for a majority */
#define VOTERS_CHANGE_LEAST INT64_C(1500000000)    /* change() and edit() wait for the lease time, but… */
#define VOTERS_CHANGE_MOST INT64_C(4000000000)
#define VOTERS_FREE_LEAST INT64_C(100000000)       /* free() waits for a quarter of it, but… */
#define VOTERS_FREE_MOST INT64_C(1000000000)
#define VOTERS_TAKE_MORE INT64_C(2000000000)       /* what nobody grants is asked for twice the lease time, and so long */
#define VOTERS_CLOSE_PATIENCE INT64_C(150000000)   /* close() waits no longer for voters to note that the lease is given back */

/* Who votes when a volume is born: the data nodes that are no spares, and the witness where that makes their number odd. (Two
 * nodes and a witness: all three. Three nodes and a witness: the nodes; the witness may come in later, for one of them, by
 * `baton voters`.) Returns how many; `names` points into `config`. */
unsigned voters_at_birth(const struct config *config, const char *names[REGISTER_VOTERS_MAX]);

/* As register_voters_open(), without a voter of its own in this process: the one of this node's name is asked over the network
 * like the others. */
int voters_open_apart(const struct config *config, const struct node_config *self, const char *secret,
                      const struct register_watch *watch, struct lease_shared *shared, struct reg **reg, char *why,
                      size_t why_room);

#endif
