/* The replicator of a volume: on the primary it feeds every peer from the store and gathers their acknowledgements, on
 * a standby it dials the primary and hands what arrives to store_receive. It sees the volume only through fs/store.h,
 * fs/park.h and membership/register.h.
 */
#ifndef BATON_REPLICATION_REPLICATOR_H
#define BATON_REPLICATION_REPLICATOR_H

#include "fs/park.h"
#include "fs/store.h"
#include "membership/register.h"

#include <jansson.h>

struct volume;
struct replicator;

/* Opens the volume's register, if the config has one that decides by itself: volume->reg, and volume->lease if that is NULL still.
 * Before replicator_start, and open until after the last replicator_stop. Else nothing. 0 or a negative errno with a sentence. */
int replicator_open_register(struct volume *volume, char *why, size_t why_room);
void replicator_close_register(struct volume *volume);

/* Sets volume->replicator, takes this node's role, starts the threads. Called when store, park and front are there; front may be
 * NULL. Without a register in volume->reg it opens the file (STORE.register), which replicator_stop closes again: then it asks the
 * peers who is primary, and calls front_become_primary if this node is to be that. With a register whose engine has a lease
 * (volume->reg and volume->lease are set, and stay) it returns with a standby, which stands for primary as any other. */
int replicator_start(struct volume *volume, char *why, size_t why_room);
/* Before replicator_stop: a primary hands over to a member of the set that is in sync, else its lease is given back; it stands no
 * more. If the volume is stopping, the mount has gone. Within `patience` ns, if the disk answers. Without a lease: nothing. */
void replicator_leave(struct replicator *replicator, int64_t patience);
void replicator_stop(struct replicator *replicator);

/* What an engine with a lease is opened with: it is told to the replicator that the volume has just then. */
struct register_watch replicator_watch(struct volume *volume);

/* New record (lock held): be quick. */
void replicator_applied(struct replicator *replicator, struct entry *entry);
void replicator_durable(struct replicator *replicator);

/* An operation is about to wait for `lsn` on `line`: asks whoever has to act for it. A node alone in the set asks its own
 * disk on either line (it acknowledges only what is on its disk), PARK_DURABLE asks this disk and the peers'. Called by
 * volume_wait for every operation that waits, just before park_wait. Quick, never blocks, no locks held. */
void replicator_need(struct replicator *replicator, enum park_line line, uint64_t lsn);

/* New work is being slowed, because a peer would not catch up with it (replication/catchup.h). Quick, without locks. */
bool replicator_slows(struct replicator *replicator);
/* When the answer to whoever has just made a record may go; 0: now. The replicator calls park_pass of both parks then. Quick,
 * no locks held. */
int64_t replicator_due(struct replicator *replicator);

/* A block that is bad here, from another node: the store's `fetch` (fs/store.h). Waits up to the lease time. Any thread, no
 * locks held. */
int replicator_fetch(struct replicator *replicator, uint64_t data, uint64_t block, uint64_t checksum,
                     uint8_t bytes[BATON_BLOCK]);

/* Role changes; each returns when done, or a negative errno with a sentence. */
/* Becomes primary. Refused (-EBUSY) without force while the primary answers; -ESTALE without force if this store is
 * not in the in-sync set, or has not heard from a primary since the process started: the set that it knows may be an old
 * one. (A standby that runs but is cut off from a primary that goes on without it cannot tell, either.) */
int replicator_promote(struct replicator *replicator, bool force, char *why, size_t why_room);
/* On the primary: hands over to `node` under load: stops new changes, drains, makes everything durable there, writes
 * the register, lets the peer start its epoch, becomes its standby. On any failure before the register is written this
 * node goes on as primary. */
int replicator_switchover(struct replicator *replicator, const char *node, char *why, size_t why_room);

/* This node stays standby from now on, also after a restart, as long as another one can be primary; as primary it hands over.
 * `end`: no more. -ENOTSUP without a lease. */
int replicator_standby(struct replicator *replicator, bool end, bool *handed_over, char *why, size_t why_room);
/* {"ready": bool, "why": [sentences], "end": true}: may this node be stopped? New reference; asks nobody. */
json_t *replicator_ready_to_stop(struct replicator *replicator);
/* On the primary: changes the list of voters by one (lease_engine.edit). */
int replicator_voters(struct replicator *replicator, enum voters_edit edit, const char *name, bool even, char *why,
                      size_t why_room);

/* Registers the control commands "promote" {"force": bool} and "switchover" {"node": name}; before control_start. The
 * answer is {"end": true, "role": …, "epoch": "counter.node"} or an error. */
void replicator_control(void);

/* What status shows: link state (working, synchronizing, pending, failed), peers with received and durable LSN, lag in
 * records and bytes, rate, time of last contact. New reference. Never waits for the engine lock. */
json_t *replicator_status(struct replicator *replicator);

#endif
