/* A volume being served by this process: what batond's parts share. Made by batond's main, in this order: config, store,
 * park, front (FUSE), replicator, control; taken down in the reverse.
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
struct control;    /* fs/control.h: the socket that tools ask */
struct reg;        /* membership/register.h */

struct volume {
    struct config config;
    const struct node_config *self;
    char secret[KEY_TEXT];
    struct store *store;
    struct park *park;
    struct front *front; /* NULL: no mount */
    struct replicator *replicator;
    struct control *control;
    struct reg *reg;
    _Atomic int role; /* enum role */
    atomic_bool stopping;
};

/* When may the reply to an operation that made record `lsn` be sent? By the volume's settings. */
enum volume_wait { WAIT_CHANGE, WAIT_WRITE, WAIT_CLOSE, WAIT_FSYNC };
/* Calls parked->done(…, 0) at once or later. Asks the store to sync where the settings need it. */
void volume_wait(struct volume *volume, enum volume_wait kind, uint64_t lsn, struct parked *parked);

/* Called by the replicator and the store's watch. */
void volume_applied(void *volume, const struct record *record, struct entry *entry);

#endif
