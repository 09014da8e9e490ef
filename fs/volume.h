/* A volume being served by this process: what batond's parts share. Made by batond's main, in this order: config,
 * store, park, front (FUSE), replicator, control; taken down in the reverse.
 */
#ifndef BATON_FS_VOLUME_H
#define BATON_FS_VOLUME_H

#include "fs/config.h"
#include "fs/park.h"
#include "fs/store.h"

#include <stdatomic.h>

enum role { ROLE_STANDBY = 0, ROLE_PRIMARY = 1 };

struct front;      /* fs/front.h: the FUSE session */
struct replicator; /* replication/replicator.h */
struct scrub;      /* fs/scrub.h */
struct control;    /* fs/control.h: the socket that tools ask */
struct reg;        /* membership/register.h */
struct lease_shared;
struct events;     /* fs/events.h */
struct supervision; /* membership/supervisor.h */

/* A new store has been built beside this one (replication/sync.c): it is to take its place. */
struct volume_renewal {
    int fd;          /* eventfd that says so; 0: nobody listens */
    atomic_bool due;
    uint64_t lsn;    /* where the old one was when it was judged: if it has moved on since, nothing is replaced */
    uint64_t epoch;
    uint8_t chain[16];
    char aside[64];  /* what the old one is kept as; empty: it goes */
    unsigned from;   /* 1 + index of the node from which it was built, to be told when it is being fed; 0: none */
};

struct volume {
    struct config config;
    const struct node_config *self;
    char secret[KEY_TEXT];
    struct store *store;
    struct park *park;   /* over the in-sync set: the replicator advances it, or volume.c if there is no replicator */
    struct park *local;  /* PARK_DURABLE: this node's own disk; volume.c advances it */
    struct front *front; /* NULL: no mount */
    struct replicator *_Atomic replicator; /* NULL: the only node of its volume, or none runs */
    struct scrub *scrub;
    struct control *control;
    struct reg *reg;
    struct events *events;
    struct lease_shared *lease; /* what may be answered until when; NULL: nobody else can be primary */
    struct supervision *supervision; /* what the parent sees of this process; NULL: a test's volume */
    int64_t orphan_grace; /* ns: orphans of earlier epochs are kept so long */
    _Atomic int role;     /* enum role */
    atomic_bool stopping;
    struct volume_renewal renewal;
};

/* When may the reply to an operation that made record `lsn` be sent? By the volume's settings. */
enum volume_wait { WAIT_CHANGE, WAIT_WRITE, WAIT_CLOSE, WAIT_FSYNC };
#define VOLUME_NAMES_SLOWED INT64_C(100000000) /* ns: so long at most is a change of a name slowed */
/* Calls parked->done(…, 0) at once or later. Asks the store to sync where the settings need it. New work is answered later
 * while the replicator slows it (replication/catchup.h). */
void volume_wait(struct volume *volume, enum volume_wait kind, uint64_t lsn, struct parked *parked);
/* True if volume_wait would answer at once: the caller may then do without it. */
bool volume_settled(struct volume *volume, enum volume_wait kind, uint64_t lsn);

/* May anything be answered that only a primary may say, now? The lease is held, or none is needed. Asked after all waiting,
 * just before the answer (the mount does: fs/front_lease.c). Any thread, takes no lock. */
bool volume_lease_holds(const struct volume *volume);
/* The same, or this node is a standby and says what a standby sees. */
bool volume_may_answer(const struct volume *volume);

/* The store's watch: hands on to front and replicator. `volume` is a struct volume. */
void volume_applied(void *volume, const struct record *record, struct entry *entry);
void volume_undone(void *volume, const struct record *record);
void volume_durable(void *volume, uint64_t lsn);
int volume_fetch(void *volume, uint64_t data, uint64_t block, uint64_t checksum, uint8_t bytes[BATON_BLOCK]);
void volume_watch(struct volume *volume); /* sets the watch; before other threads use the store */

/* Is the old store where it was when it was judged? Else it may have something by now that the new one has not. When the
 * replicator has stopped. */
bool volume_renewal_holds(struct volume *volume);

/* The only node of its volume becomes primary in a new epoch. 0 or a negative errno with a sentence. */
int volume_serve_alone(struct volume *volume, char *why, size_t why_room);

#endif
