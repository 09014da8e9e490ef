/* Who has what: positions of every node, and the two lines up to which the whole in-sync set has them. What waits below
 * a line may be answered.
 *
 * The rules are DESIGN.md's invariant 5. While a change of the set is proposed and its outcome unknown, a line is where
 * both sets stand. A set of this node alone acknowledges only what is on its disk, on either line. A position counts
 * only while acks_peer() has told it in the peer's present session (acks_forget() when that ends). Lines never go back.
 *
 * Pure; the caller locks. Nodes are numbered as in the config.
 */
#ifndef BATON_REPLICATION_ACKS_H
#define BATON_REPLICATION_ACKS_H

#include "fs/config.h"
#include "fs/park.h"

struct acks {
    bool active; /* this node is primary; when it is not, no line moves */
    unsigned self;
    uint32_t set;      /* bits: the in-sync set as the register has it */
    uint32_t proposed; /* if `pending`: the set that was proposed */
    bool pending;
    uint64_t received[CONFIG_NODES_MAX]; /* own: the last record */
    uint64_t durable[CONFIG_NODES_MAX];
    uint64_t lines[PARK_LINES];
};

/* A new epoch of this node begins after `lsn`, with this set (which has this node in it). */
void acks_start(struct acks *acks, unsigned self, uint32_t set, uint64_t lsn);
/* No line moves from now on. */
void acks_stop(struct acks *acks);

void acks_own_received(struct acks *acks, uint64_t lsn);
void acks_own_durable(struct acks *acks, uint64_t lsn);
void acks_peer(struct acks *acks, unsigned node, uint64_t received, uint64_t durable);
void acks_forget(struct acks *acks, unsigned node);

/* A change of the set: proposed before it is written, settled when the outcome is known. */
void acks_propose(struct acks *acks, uint32_t set);
void acks_settle(struct acks *acks, bool chosen);
/* The register turned out to have this set, which this node had not proposed or had given up. */
void acks_adopt(struct acks *acks, uint32_t set);

/* Moves the lines as far as the positions allow, and returns the one that is asked for. */
uint64_t acks_line(struct acks *acks, enum park_line line);
/* This node alone answers for what is acknowledged (in the set or in one of two). */
bool acks_alone(const struct acks *acks);

#endif
