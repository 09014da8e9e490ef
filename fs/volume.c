#include "fs/volume.h"

#include "exporters/exports.h"
#include "fs/front.h"
#include "membership/supervisor.h"
#include "replication/replicator.h"

#include <stdio.h>

/* Plain writes do not wait, but what is on its way to the peer lies in memory: a reply waits once the set is so many
 * records behind. A record holds 32 KiB at most there (larger data is read from the segments). */
#define WRITE_LAG_MAX 1024u
#define NEVER_LAG_MAX 8192u /* acknowledge = never: of everything, names too */

/* What an operation waits for: a line of a park, and how far. lsn 0: nothing. */
struct need {
    struct park *park;
    enum park_line line;
    uint64_t lsn;
};

static struct need lagging(struct volume *volume, uint64_t lsn, uint64_t lag) {
    return (struct need){volume->park, PARK_RECEIVED, lsn > lag ? lsn - lag : 0};
}

static struct need needed(struct volume *volume, enum volume_wait kind, uint64_t lsn) {
    const struct config *config = &volume->config;
    struct need all = {volume->park, PARK_RECEIVED, lsn};

    if (kind == WAIT_FSYNC) {
        if (config->acknowledge == ACKNOWLEDGE_NEVER)
            return (struct need){volume->local, PARK_DURABLE, lsn};
        if (config->fsync == FSYNC_DISK)
            all.line = PARK_DURABLE;
        return all;
    }
    if (config->acknowledge == ACKNOWLEDGE_NEVER)
        return lagging(volume, lsn, NEVER_LAG_MAX);
    if (config->acknowledge == ACKNOWLEDGE_CLOSE && kind == WAIT_WRITE)
        return lagging(volume, lsn, WRITE_LAG_MAX);
    return all;
}

/* Not a close: what it waits for has been waited for by those who made it. */
static bool may_be_slowed(enum volume_wait kind) {
    return kind != WAIT_CLOSE;
}

/* While the answer to a change of a name waits, the kernel keeps the directory locked, for who looks into it, too. What it
 * does not wait for, others that make something do. */
static int64_t due_of(struct replicator *replicator, enum volume_wait kind) {
    int64_t due = may_be_slowed(kind) ? replicator_due(replicator) : 0;
    return kind == WAIT_CHANGE ? MIN(due, clock_boot() + VOLUME_NAMES_SLOWED) : due;
}

bool volume_settled(struct volume *volume, enum volume_wait kind, uint64_t lsn) {
    struct need need = needed(volume, kind, lsn);
    struct replicator *replicator = atomic_load(&volume->replicator);
    if (replicator && may_be_slowed(kind) && replicator_slows(replicator))
        return false;
    return park_position(need.park, need.line) >= need.lsn;
}

void volume_wait(struct volume *volume, enum volume_wait kind, uint64_t lsn, struct parked *parked) {
    struct need need = needed(volume, kind, lsn);
    struct replicator *replicator = atomic_load(&volume->replicator);

    parked->lsn = need.lsn;
    if (park_position(need.park, need.line) < need.lsn) {
        if (replicator && need.park == volume->park)
            replicator_need(replicator, need.line, need.lsn);
        else
            store_want_durable(volume->store, need.lsn);
    }
    int64_t due = replicator ? due_of(replicator, kind) : 0;
    if (due)
        park_wait_until(need.park, need.line, parked, due);
    else
        park_wait(need.park, need.line, parked);
}

bool volume_lease_holds(const struct volume *volume) {
    return !volume->lease || clock_boot() < atomic_load(&volume->lease->until);
}

bool volume_may_answer(const struct volume *volume) {
    return atomic_load(&volume->role) == ROLE_STANDBY || volume_lease_holds(volume);
}

/* For the note of whoever finds this process dead. */
static void tell_position(struct volume *volume, uint64_t lsn, epoch_t epoch) {
    if (!volume->supervision)
        return;
    atomic_store_explicit(&volume->supervision->lsn, lsn, memory_order_relaxed);
    atomic_store_explicit(&volume->supervision->epoch, epoch, memory_order_relaxed);
}

void volume_applied(void *context, const struct record *record, struct entry *entry) {
    struct volume *volume = context;
    struct replicator *replicator = atomic_load(&volume->replicator);

    tell_position(volume, record->head.lsn, record->head.epoch);
    if (replicator) /* first: while it travels, there is time for the rest */
        replicator_applied(replicator, entry);
    if (volume->front)
        front_applied(volume->front, record);
}

void volume_undone(void *context, const struct record *record) {
    struct volume *volume = context;

    tell_position(volume, record->head.lsn - 1, record->head.epoch);
    if (volume->front)
        front_undone(volume->front, record);
}

void volume_durable(void *context, uint64_t lsn) {
    struct volume *volume = context;
    struct replicator *replicator = atomic_load(&volume->replicator);
    struct position position;

    store_position(volume->store, &position); /* records may have been undone since it was told */
    park_advance(volume->local, PARK_DURABLE, MIN(lsn, position.durable));
    if (replicator) {
        replicator_durable(replicator);
    } else if (volume->config.node_count == 1) { /* else nobody speaks for the others: at a start, and at the end */
        park_advance(volume->park, PARK_RECEIVED, lsn);
        park_advance(volume->park, PARK_DURABLE, lsn);
    }
}

int volume_fetch(void *context, uint64_t data, uint64_t block, uint64_t checksum, uint8_t bytes[BATON_BLOCK]) {
    struct volume *volume = context;
    struct replicator *replicator = atomic_load(&volume->replicator);

    if (volume->config.node_count == 1)
        return -ENOTSUP;
    return replicator ? replicator_fetch(replicator, data, block, checksum, bytes) : -ENOTCONN;
}

void volume_watch(struct volume *volume) {
    struct store_watch watch = {.applied = volume_applied,
                                .durable = volume_durable,
                                .undone = volume_undone,
                                .fetch = volume_fetch,
                                .context = volume};
    struct position position;
    store_set_watch(volume->store, &watch);
    store_position(volume->store, &position);
    tell_position(volume, position.lsn, position.epoch);
}

bool volume_renewal_holds(struct volume *volume) {
    struct position now;
    store_position(volume->store, &now);
    return atomic_load(&volume->role) == ROLE_STANDBY && now.lsn == volume->renewal.lsn &&
           now.epoch == volume->renewal.epoch && memcmp(now.chain, volume->renewal.chain, sizeof now.chain) == 0;
}

int volume_serve_alone(struct volume *volume, char *why, size_t why_room) {
    struct position position;

    store_position(volume->store, &position);
    uint64_t counter = EPOCH_COUNTER(position.epoch) + 1;
    int error = store_start_epoch(volume->store, EPOCH_MAKE(counter, volume->self->number), volume->self->name);
    if (error) {
        snprintf(why, why_room, "the store %s does not let epoch %llu begin: %s", volume->self->store,
                 (unsigned long long)counter, strerror(-error));
        return error;
    }
    atomic_store(&volume->role, ROLE_PRIMARY);
    if (volume->front)
        front_become_primary(volume->front);
    exports_begin(volume, EPOCH_MAKE(counter, volume->self->number));
    return 0;
}
