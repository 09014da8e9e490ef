/* The lease, as its holder counts it: it lasts for the lease time from before that renewal was sent which the last voter of
 * a majority has granted. Held again it must be asked for in a new epoch: what has run out, or was given up, stays so.
 *
 * The list of voters changes by one rule: in each list that may decide who is next, every majority has somebody whose grant
 * lasts for as long as the lease. So a list is guarded before an accept that carries it is sent (lease_may_propose): enough of
 * its voters have granted all that was reached. From then on until it is known whether it was chosen, the lease grows by what
 * majorities of both lists have granted; and a third list waits for that. A voter that has granted nothing is not counted on:
 * who has just become one may have missed the accept, and lets a challenger in, together with one that missed the renewals.
 *
 * Pure: the caller locks and gives the time (CLOCK_BOOTTIME, which goes on while a machine sleeps). lease_holds() is asked
 * after every waiting, just before something is answered.
 */
#ifndef BATON_MEMBERSHIP_LEASE_H
#define BATON_MEMBERSHIP_LEASE_H

#include "membership/register.h"

struct lease_list {
    unsigned count;
    struct register_voter voters[REGISTER_VOTERS_MAX];
    int64_t sent[REGISTER_VOTERS_MAX]; /* when the newest renewal that each has granted was sent; INT64_MIN: none */
};

struct lease {
    bool held;  /* false for ever once it has been found out of time */
    epoch_t epoch;
    uint64_t session;
    int64_t duration;
    int64_t until;               /* reached so far; INT64_MIN: nothing yet */
    struct lease_list list;
    uint64_t proposed_version;   /* of the value with another list, of which nobody knows whether it is chosen; 0: none */
    struct lease_list proposed;
};

/* `value` is chosen, and names this node in this epoch. Nothing is held before a majority has granted. */
void lease_begin(struct lease *lease, const struct register_value *value, uint64_t session, int64_t duration);
/* Whether a value of the same epoch, perhaps with other voters, may be sent for acceptance: its list is guarded, and no third
 * one. */
bool lease_may_propose(const struct lease *lease, const struct register_value *value);
/* It is going to be sent now; it may be. */
void lease_proposed(struct lease *lease, const struct register_value *value);
/* Whether it is unknown which of two lists of voters is the chosen one. */
bool lease_unsettled(const struct lease *lease);
/* A value of the same epoch is chosen; grants of those who stay count on. */
void lease_voters(struct lease *lease, const struct register_value *value);
/* That voter has granted the renewal that was sent at `sent`. */
void lease_granted(struct lease *lease, const char *voter, const uint8_t id[16], int64_t sent);
/* Until when, INT64_MIN: not at all (yet). It grows until it ends. */
int64_t lease_until(const struct lease *lease);
/* Whether it lasts. The first time that it has run out ends it. */
bool lease_holds(struct lease *lease, int64_t now);
/* Whether a majority of the list that is known to be chosen has granted all that was reached, and it lasts. */
bool lease_backed(const struct lease *lease, int64_t now);
void lease_give_up(struct lease *lease);

#endif
