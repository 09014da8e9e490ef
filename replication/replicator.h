/* The replicator of a volume: on the primary it feeds every peer from the store and gathers their acknowledgements, on
 * a standby it dials the primary and hands what arrives to store_receive. It sees the volume only through fs/store.h,
 * fs/park.h and membership/register.h.
 */
#ifndef BATON_REPLICATION_REPLICATOR_H
#define BATON_REPLICATION_REPLICATOR_H

#include "fs/store.h"

#include <jansson.h>

struct volume;
struct replicator;

int replicator_start(struct volume *volume, struct replicator **replicator, char *why, size_t why_room);
void replicator_stop(struct replicator *replicator);

/* New record (lock held): be quick. */
void replicator_applied(struct replicator *replicator, struct entry *entry);
void replicator_durable(struct replicator *replicator, uint64_t lsn);

/* Role changes; each returns when done, or a negative errno with a sentence. */
/* Becomes primary. Refused (-EBUSY) without force while the primary answers; -ESTALE without force if this store is
 * not in the in-sync set. */
int replicator_promote(struct replicator *replicator, bool force, char *why, size_t why_room);
/* On the primary: hands over to `node` under load: stops new changes, drains, makes everything durable there, writes
 * the register, lets the peer start its epoch, becomes its standby. On any failure before the register is written this
 * node goes on as primary. */
int replicator_switchover(struct replicator *replicator, const char *node, char *why, size_t why_room);

/* What status shows: link state (working, synchronizing, pending, failed), peers with received and durable LSN, lag in
 * records and bytes, rate, time of last contact. New reference. Never waits for the engine lock. */
json_t *replicator_status(struct replicator *replicator);

#endif
