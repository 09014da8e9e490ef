/* Who may change the register that lies in etcd, and when: the decisions of the etcd engine (register_etcd.h), free of I/O.
 *
 * Two keys: the register, which belongs to no etcd lease and stays, and the holder, which lives by the holder's etcd lease.
 * Every write compares the modification revisions of both with what its maker has seen, so it is made upon that state or not
 * at all. And every write that makes somebody the holder also writes the register (its value as it is), so that the register's
 * modification revision changes: while it is the same, nobody has become the holder.
 *
 * A holder counts its lease from before a linearizable read that saw its key, the register naming it in its epoch. How long
 * etcd keeps a key of a lease is no part of that: leaders that are cut off or stuck answer keep-alives that nobody else hears
 * of, and revoke leases that others have renewed (etcd issue 15247; 3.4.23 does). So a key that has vanished proves only
 * that its holder counts no longer than the lease time from now on. A challenger waits for that long, and a margin, after it
 * has seen the key gone. A holder that gives its lease back says so in the key, and nobody waits.
 */
#ifndef BATON_MEMBERSHIP_ETCD_RULES_H
#define BATON_MEMBERSHIP_ETCD_RULES_H

#include "membership/register.h"

enum etcd_holder_state {
    ETCD_HOLDER_ABSENT = 0, /* gone with its etcd lease, or never there */
    ETCD_HOLDER_HELD,
    ETCD_HOLDER_FREE,       /* given back: that session answers nothing any more */
};

struct etcd_holder {
    enum etcd_holder_state state;
    char node[64];
    epoch_t epoch;
    uint64_t session;
};

/* Both keys at one revision of etcd. A modification revision of 0: the key is not there. */
struct etcd_seen {
    uint64_t cluster;
    int64_t revision;
    struct register_value value; /* version 0: none */
    int64_t register_mod;
    struct etcd_holder holder;
    int64_t holder_mod;
    int64_t holder_lease; /* etcd's lease of the holder's key; 0: none */
};

/* Since when the holder's key is known to be gone, with the register unchanged. */
struct etcd_absence {
    bool gone;
    int64_t register_mod;
    int64_t since; /* CLOCK_BOOTTIME, after the answer came that showed it */
};

/* As it stands in the key, for programs and people: "held NODE COUNTER.NUMBER SESSION". At most ETCD_HOLDER_TEXT with NUL. */
#define ETCD_HOLDER_TEXT 160
void etcd_holder_print(const struct etcd_holder *holder, char text[ETCD_HOLDER_TEXT]);
/* 0, or -EBADMSG: it is nothing that etcd_holder_print() writes. */
int etcd_holder_parse(const char *text, size_t length, struct etcd_holder *holder);

void etcd_absence_note(struct etcd_absence *absence, const struct etcd_seen *seen, int64_t now);
/* How long a challenger waits with that lease time after it has seen the key gone, ns. */
int64_t etcd_absence_wait(int64_t lease);

/* Whether node `self` may end the present reign: nobody's lease lasts, but its own. 0, or -EBUSY: `holder` (empty: not known)
 * has it, or may have for `wait` more. */
int etcd_let_in(const struct etcd_seen *seen, const struct etcd_absence *absence, const char *self, int64_t lease, int64_t now,
                char holder[64], int64_t *wait);
/* Whether node `self` may write `next` upon what it has seen. 0 or -EBUSY. */
int etcd_may_change(const struct etcd_seen *seen, const struct etcd_absence *absence, const char *self,
                    const struct register_value *next, int64_t lease, int64_t now);
/* The register names another primary, or an epoch other than that. */
bool etcd_ends_reign(const struct register_value *value, const char *primary, epoch_t epoch);

/* etcd's lease for the holder's key, in whole seconds: half the lease time, at least 2 (etcd grants no shorter one). */
int64_t etcd_ttl(int64_t lease);
/* ns from one renewal to the next. */
int64_t etcd_interval(int64_t lease);

#endif
