/* One voter of one volume's register, and of its lease.
 *
 * The register is CASPaxos (Rystsov, "CASPaxos: Replicated State Machines without logs", 2018): one value, a prepare and an
 * accept for each change; the list of voters is part of the value (change.h has the proposer's side and how lists change).
 * The lease is a promise of the same voters, kept in memory: while it lasts, nobody else's prepare or accept is let in
 * (DESIGN.md, Membership). What binds:
 *
 * - A grant needs the holder's epoch and name in the value that this voter has durably accepted, and no later value of another
 *   epoch that it was told is chosen.
 * - It lasts for the lease time and a margin, by this voter's own CLOCK_BOOTTIME from the moment of the grant; the holder
 *   counts from before it asked. Nobody compares clocks.
 * - Grants are forgotten by a process that ends. So a voter that has just started, and one that was just made a voter of the
 *   volume, lets nobody in for as long as a grant could last, but the primary that its value names; unless it is told that a
 *   value of a newer epoch is chosen: then the leases that it may have granted, which were of its value's epoch, have ended.
 * - Its id was drawn when its state was made. One that has lost its disk has another id, which is in no list, and no answer of
 *   it counts until a majority of the others has let it in by a value that names it. One with a listed id and without a value
 *   has never accepted anything. One that is no longer in its own value's list still answers: those who know only an old
 *   list find the way to the newest one through it.
 *
 * Pure: the caller locks and gives the time. When an answer says `durable`, the state has to be on the disk before that
 * answer is sent.
 */
#ifndef BATON_MEMBERSHIP_VOTER_H
#define BATON_MEMBERSHIP_VOTER_H

#include "membership/register.h"

struct ballot {
    uint64_t counter; /* 0: none */
    uint16_t node;    /* of the proposer (config.h), so that no two propose with one ballot */
};
int ballot_compare(struct ballot a, struct ballot b);

enum voter_verdict {
    VOTER_YES = 1,
    VOTER_STALE,    /* it has promised to, or accepted from, a higher ballot; a renewal: its value names another holder */
    VOTER_HELD,     /* somebody else's lease lasts for `wait` more */
    VOTER_QUIET,    /* it cannot know yet whether one lasts; for `wait` more at most */
    VOTER_VERDICT_END
};

struct voter_state { /* durable */
    uint8_t id[16];
    struct ballot promised, accepted;
    struct register_value value; /* accepted, chosen or not; version 0: none */
    struct register_value known; /* the newest that it was told is chosen: for those who know an older one, or none */
    uint32_t lease_ms; /* the longest lease time that it may have granted for: whose process has ended keeps silent for that long */
};

struct voter {
    char name[64];
    struct voter_state state;
    int64_t lease, margin; /* nanoseconds: of the longest lease that this voter grants */
    int64_t quiet_until;
    struct {
        char node[64]; /* empty: none */
        epoch_t epoch;
        uint64_t session;
        int64_t until;
    } grant;
    epoch_t released; /* a renewal of that epoch and session that comes late grants nothing… */
    uint64_t released_session;
};

struct voter_answer {
    enum voter_verdict verdict;
    bool durable;           /* the state has changed */
    uint8_t id[16];
    struct ballot promised, accepted;
    struct register_value value; /* that it has accepted */
    struct register_value known;
    char holder[64];        /* HELD: who */
    int64_t wait;           /* HELD, QUIET: nanoseconds */
};

/* A process that has begun at `now` with this state, as its disk has it. */
void voter_start(struct voter *voter, const char *name, const struct voter_state *state, int64_t lease, int64_t margin, int64_t now);

/* `birth`: the volume has no value yet, as far as the proposer knows; then only a voter says yes that has none, or the first
 * one, which may have been left half done. */
void voter_prepare(struct voter *voter, const char *from, struct ballot ballot, bool birth, int64_t now, struct voter_answer *answer);
/* `known`: the newest value that the proposer knows to be chosen. */
void voter_accept(struct voter *voter, const char *from, struct ballot ballot, const struct register_value *value,
                  const struct register_value *known, int64_t now, struct voter_answer *answer);
/* The lease for `from`, or again. `session` is drawn by the holder when it takes the lease, which it does once in an epoch. */
void voter_renew(struct voter *voter, const char *from, epoch_t epoch, uint64_t session, int64_t now, struct voter_answer *answer);
/* The holder has stopped, and what it held up can go on; nobody else's, and no earlier session's, release counts. */
void voter_release(struct voter *voter, const char *from, epoch_t epoch, uint64_t session, int64_t now, struct voter_answer *answer);
/* `value` is chosen. Whoever had it chosen tells every voter of it, until a majority has noted it: so that who comes later, and
 * knows an older list of which too many are gone, finds the newest one. */
void voter_learn(struct voter *voter, const struct register_value *value, struct voter_answer *answer);
/* Only looks: YES: nobody holds it up. */
void voter_query(const struct voter *voter, const char *from, int64_t now, struct voter_answer *answer);

#endif
