/* The lease, as its holder counts it: it lasts for the lease time from before that renewal was sent which the last voter of
 * a majority has granted. Held again it must be asked for in a new epoch: what has run out, or was given up, stays so.
 *
 * While the list of voters changes, two lists count: from before the first accept that carries the new one is sent until it is
 * known whether that was chosen, the lease grows by what majorities of both have granted. What it had reached before stays good:
 * of a majority of the new list, who is in the old one, too, and has granted, holds challengers up; who has just become a voter
 * is silent towards them for longer than that; and all others together are too few, as lists differ by one voter, and the next
 * list is proposed only when the present one has granted all that was reached (lease_backed).
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
/* A value of the same epoch, perhaps with other voters, is going to be sent for acceptance. */
void lease_proposed(struct lease *lease, const struct register_value *value);
/* A value of the same epoch is chosen; grants of those who stay count on. */
void lease_voters(struct lease *lease, const struct register_value *value);
/* That voter has granted the renewal that was sent at `sent`. */
void lease_granted(struct lease *lease, const char *voter, const uint8_t id[16], int64_t sent);
/* Until when, INT64_MIN: not at all (yet). It grows until it ends. */
int64_t lease_until(const struct lease *lease);
/* Whether it lasts. The first time that it has run out ends it. */
bool lease_holds(struct lease *lease, int64_t now);
/* Whether the list that is known to be chosen has granted all that was reached, and it lasts. */
bool lease_backed(const struct lease *lease, int64_t now);
void lease_give_up(struct lease *lease);

#endif
