/* The register in etcd, for those who run many volumes: the engine behind register_etcd_open() (register.h).
 *
 * Two keys for each volume, PREFIX/ID/register and PREFIX/ID/holder; etcd_rules.h says who may write them when. Three clients
 * (etcd_client.h), each with connections of its own: of the keeper, a thread that takes, renews and gives back this node's
 * lease, and waits for no disk; of the watcher, a thread that sees what others change and says so (struct register_watch); and
 * of whoever calls the engine, one at a time.
 *
 * etcd's answers are believed as far as they are linearizable and of one cluster whose revisions only grow. An etcd that was
 * restored from a backup is another one for a process that has seen more: it is refused, with a sentence.
 */
#ifndef BATON_MEMBERSHIP_REGISTER_ETCD_H
#define BATON_MEMBERSHIP_REGISTER_ETCD_H

#include "fs/config.h"
#include "membership/etcd_client.h"
#include "membership/etcd_stream.h"

#include <pthread.h>

struct reg_etcd {
    struct reg reg;
    const struct config *config;
    const struct node_config *self;
    struct register_watch watch;
    struct lease_shared *shared;
    int64_t lease; /* ns */
    struct etcd_keys keys;
    struct etcd_access *access;

    pthread_mutex_t lock; /* of what follows, down to the next lock; never held while anything is waited for */
    struct etcd_seen seen; /* the newest; revision 0: nothing yet */
    int64_t seen_at;       /* CLOCK_BOOTTIME; INT64_MIN: never */
    struct etcd_absence absence;
    struct register_value told; /* to watch.news, or by this node's own change */
    bool looking;               /* the watcher is to look at once */
    bool closing;
    struct { /* a write whose outcome is unknown: it may still be made, while both keys are as it wants them */
        bool is;
        int64_t register_mod, holder_mod;
    } pending;
    struct {
        bool asked, held;
        epoch_t epoch;
        uint64_t session;
        epoch_t taken;  /* the highest epoch in which it was taken */
        int64_t id, ttl; /* etcd's lease; 0: none */
        int64_t kept;   /* when a keep-alive was last answered */
    } mine;
    struct {            /* of a lease that has ended: others need not wait for what they know to be over */
        bool is;        /* false, with an epoch: after the change that is being made */
        epoch_t epoch;
        uint64_t session;
        int64_t id;
        int64_t until;  /* it is not tried for longer */
    } giving_back;
    pthread_cond_t keeper_wake, keeper_gone; /* CLOCK_MONOTONIC */
    bool keeper_ended;

    pthread_mutex_t call_lock;
    struct etcd_client *caller;

    struct etcd_client *keeper_client, *watcher_client;
    struct etcd_stream *stream;
    pthread_t keeper, watcher;
};

/* ---- Shared by register_etcd.c (the engine), register_etcd_lease.c (the keeper) and register_etcd_watch.c ---- */

struct etcd_limit { /* ns */
    int64_t attempt, all;
};

/* Looks at both keys, or writes them; `*seen`: after that. 0, or what etcd_client_ask() returns; errors have a sentence.
 * `sent`: CLOCK_BOOTTIME from before it was asked; `maybe`: a write may have been or may yet be made, although this says
 * otherwise. Either may be NULL. */
int etcd_look(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, struct etcd_seen *seen, int64_t *sent,
              char *why, size_t why_room);
int etcd_write_keys(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, const struct etcd_write *write,
                    bool *written, struct etcd_seen *seen, int64_t *sent, bool *maybe, char *why, size_t why_room);
/* For the register's reign of that epoch and session, which nobody lives in any more: says so in the holder's key, if that still
 * says otherwise. 0: done, or there was nothing to do; else it is to be tried again. */
int etcd_give_back(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, epoch_t epoch, uint64_t session,
                   int64_t id, char *why, size_t why_room);

/* Each member is asked how it is once in this time at least; ns. */
#define ETCD_PROBE_ALL INT64_C(20000000000)
#define ETCD_HEARD_LASTS (3 * ETCD_PROBE_ALL)

void *etcd_keeper(void *reg_etcd);
void *etcd_watcher(void *reg_etcd);

/* Ends this node's lease, which was asked for, with the lock held: nothing is answered any more. The keeper tells etcd. */
void etcd_lease_end(struct reg_etcd *etcd, bool give_back);
int etcd_lease_take(struct reg *reg, const struct register_value *value);
void etcd_lease_give_up(struct reg *reg);
void etcd_wake_watcher(struct reg_etcd *etcd); /* with the lock held */

#endif
