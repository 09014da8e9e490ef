/* The lease, as its holder counts it: it lasts for the lease time from before that renewal was sent which the last voter of
 * a majority has granted. Held again it must be asked for in a new epoch: what has run out, or was given up, stays so.
 *
 * Pure: the caller locks and gives the time (CLOCK_BOOTTIME, which goes on while a machine sleeps). lease_holds() is asked
 * after every waiting, just before something is answered.
 */
#ifndef BATON_MEMBERSHIP_LEASE_H
#define BATON_MEMBERSHIP_LEASE_H

#include "membership/register.h"

struct lease {
    bool held;  /* false for ever once it has been found out of time */
    epoch_t epoch;
    uint64_t session;
    int64_t duration;
    unsigned voter_count;
    struct register_voter voters[REGISTER_VOTERS_MAX];
    int64_t sent[REGISTER_VOTERS_MAX]; /* when the newest renewal that each has granted was sent; INT64_MIN: none */
};

/* `value` is chosen, and names this node in this epoch. Nothing is held before a majority has granted. */
void lease_begin(struct lease *lease, const struct register_value *value, uint64_t session, int64_t duration);
/* The list of voters has changed, by a value of the same epoch that is chosen: grants of those who stay count on. */
void lease_voters(struct lease *lease, const struct register_value *value);
/* That voter has granted the renewal that was sent at `sent`. */
void lease_granted(struct lease *lease, const char *voter, const uint8_t id[16], int64_t sent);
/* Until when, INT64_MIN: not at all (yet). */
int64_t lease_until(const struct lease *lease);
/* Whether it lasts. The first time that it has run out ends it. */
bool lease_holds(struct lease *lease, int64_t now);
void lease_give_up(struct lease *lease);

#endif
