/* What others ask a store: positions, epochs, ids, times, durability, snapshots, local values. */
#include "fs/history_internal.h"

void store_lock(struct store *store) {
    PROMISE(pthread_mutex_lock(&store->lock) == 0);
    if (store->history)
        history_enter(store);
    /* In a broken transaction nothing can be read either: wait until the committer has made it anew. */
    if (store->txn_broken && store->threads_running && !pthread_equal(pthread_self(), store->committer))
        store_wait_mended(store);
}

void store_unlock(struct store *store) {
    if (store->history)
        history_leave(store);
    PROMISE(pthread_mutex_unlock(&store->lock) == 0);
}

const uint8_t *store_volume(const struct store *store) {
    return store->volume;
}

const uint8_t *store_incarnation(const struct store *store) {
    return store->incarnation;
}

const char *store_path(const struct store *store) {
    return store->path;
}

void store_put_note(struct store *store, const void *bytes, size_t length) {
    mark_put_note(&store->mark, bytes, length);
}

size_t store_get_note(const struct store *store, void *bytes, size_t room) {
    return mark_get_note(&store->mark, bytes, room);
}

void store_set_watch(struct store *store, const struct store_watch *watch) {
    store_lock(store);
    store->watch = *watch;
    store_unlock(store);
}

void store_set_hold(struct store *store, uint64_t fed, uint64_t absent) {
    store_lock(store);
    store->hold = fed;
    store->hold_absent = absent;
    store_unlock(store);
}

void store_hold_history(struct store *store, struct history_hold *hold, uint64_t lsn) {
    hold->lsn = lsn;
    hold->next = store->history_holds;
    store->history_holds = hold;
}

void store_release_history(struct store *store, struct history_hold *hold) {
    store_lock(store);
    struct history_hold **at = &store->history_holds;
    while (*at && *at != hold)
        at = &(*at)->next;
    if (*at)
        *at = hold->next;
    store_unlock(store);
}

void store_position_locked(struct store *store, struct position *position) {
    *position = (struct position){.lsn = store->position.lsn,
                                  .epoch = store->position.epoch,
                                  .committed = store->committed,
                                  .durable = atomic_load(&store->durable),
                                  .first = store->position.first,
                                  .time = store->position.time};
    memcpy(position->chain, store->position.chain, CHAIN_SIZE);
}

void store_position(struct store *store, struct position *position) {
    store_lock(store);
    store_position_locked(store, position);
    store_unlock(store);
}

/* ---- epochs, times, ids ---- */

static int epoch_newest(struct store *store, epoch_t *newest) {
    struct cursor cursor;
    struct key end = key_u64(UINT64_MAX);
    *newest = 0;
    int rc = cursor_open(&cursor, store, NULL, TABLE_EPOCH);
    if (rc)
        return rc;
    rc = cursor_seek_before(&cursor, &end);
    if (rc == 0 && cursor.key.length == 8)
        *newest = be64_get(cursor.key.data);
    cursor_close(&cursor);
    return rc == -ENOENT ? 0 : rc;
}

int epoch_at(struct store *store, uint64_t lsn, epoch_t *epoch) {
    struct cursor cursor;
    struct key end = key_u64(UINT64_MAX);
    int rc = cursor_open(&cursor, store, NULL, TABLE_EPOCH);
    if (rc)
        return rc;
    for (rc = cursor_seek_before(&cursor, &end); rc == 0; rc = cursor_previous(&cursor)) {
        struct epoch_row row;
        if (cursor.key.length != 8 || cursor.value.length != sizeof row)
            rc = -EIO;
        else
            memcpy(&row, cursor.value.data, sizeof row);
        if (rc || row.first <= lsn)
            break;
    }
    if (rc == 0)
        *epoch = be64_get(cursor.key.data);
    cursor_close(&cursor);
    return rc;
}

int store_start_epoch(struct store *store, epoch_t epoch, const char *node) {
    epoch_t newest;
    store_lock(store);
    int rc = admit_space(store, SPACE_FREE);
    if (rc == 0)
        rc = epoch_newest(store, &newest);
    if (rc == 0 && (epoch <= newest || EPOCH_COUNTER(epoch) == EPOCH_COUNTER(newest) ||
                    EPOCH_COUNTER(epoch) > EPOCH_COUNTER_MAX || store->undoing))
        rc = store->undoing ? -EBUSY : -ERANGE;
    if (rc == 0) {
        struct record record = {
            .head = {.type = RECORD_EPOCH, .time = store_next_time(store, (struct file_time){0, 0})},
            .name = {(const uint8_t *)node, (uint32_t)strlen(node)}};
        rc = append_in_epoch(store, epoch, &record, NULL, NULL, 0);
        if (rc == 0) { /* not before: a refused append gives up the lock, and others must not be first in the epoch */
            store->epoch = epoch;
            store->epoch_first = record.head.lsn;
        }
    }
    store_unlock(store);
    return rc;
}

void store_stop_epoch(struct store *store) {
    store_lock(store);
    store->epoch = 0;
    pthread_cond_broadcast(&store->committed_cond); /* who waits in store_admit need not wait any longer */
    store_unlock(store);
}

int64_t store_next_time(struct store *store, struct file_time floor) {
    int64_t now = clock_now(), above;
    if (MUL_OVERFLOWS(floor.seconds, (int64_t)1000000000, &above) ||
        ADD_OVERFLOWS(above, (int64_t)floor.nanoseconds + 1, &above))
        above = floor.seconds < 0 ? INT64_MIN : now; /* beyond what a clock shows: nothing to stay ahead of */
    now = MAX(now, store->position.time);
    return MAX(now, above);
}

uint64_t store_next_id(struct store *store, unsigned which) {
    PROMISE(store->epoch != 0 && which < 2);
    uint64_t step = store->position.lsn + 1 - store->epoch_first;
    PROMISE(step < 1ull << 39);
    return EPOCH_COUNTER(store->epoch) << 40 | (step * 2 + which);
}

uint64_t store_ids_end(struct store *store) {
    store_lock(store);
    uint64_t end = store->epoch != 0 ? store_next_id(store, 0) : UINT64_MAX;
    store_unlock(store);
    return end;
}

/* ---- durability ---- */

uint64_t store_durable(const struct store *store) {
    return atomic_load(&store->durable);
}

void store_want_durable(struct store *store, uint64_t lsn) {
    if (lsn <= atomic_load(&store->durable) || lsn <= atomic_load(&store->sync_wanted))
        return;
    pthread_mutex_lock(&store->sync_lock);
    if (lsn > atomic_load(&store->sync_wanted)) {
        atomic_store(&store->sync_wanted, lsn);
        pthread_cond_signal(&store->sync_work);
    }
    pthread_mutex_unlock(&store->sync_lock);
}

int store_sync(struct store *store, uint64_t lsn) {
    struct position position;
    store_position(store, &position);
    lsn = MIN(lsn, position.lsn);
    store_want_durable(store, lsn);
    pthread_mutex_lock(&store->sync_lock);
    while (atomic_load(&store->durable) < lsn && !store->sync_stop && atomic_load(&store->sync_wanted) >= lsn)
        pthread_cond_wait(&store->sync_done, &store->sync_lock);
    int rc = atomic_load(&store->durable) >= lsn ? 0 : -EIO;
    pthread_mutex_unlock(&store->sync_lock);
    return rc;
}

int store_checkpoint(struct store *store) {
    store_lock(store);
    uint64_t ticket = ++store->checkpoint_wanted;
    pthread_cond_signal(&store->work);
    while (store->checkpoint_done < ticket && !store->stop)
        pthread_cond_wait(&store->committed_cond, &store->lock);
    int rc = store->checkpoint_done >= ticket ? 0 : -EIO;
    store_unlock(store);
    return rc;
}

/* ---- snapshots ---- */

int store_snapshot(struct store *store, struct snapshot **out) {
    struct snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        return -ENOMEM;
    snapshot->store = store;
    store_lock(store);
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &snapshot->txn) ? -EAGAIN : 0;
    if (rc == 0) {
        snapshot->txnid = mdb_txn_id(snapshot->txn);
        snapshot->lsn = store->saved_position.lsn; /* while undoing, `committed` is ahead of the last commit */
        snapshot->next = store->snapshots;
        if (snapshot->next)
            snapshot->next->previous = snapshot;
        store->snapshots = snapshot;
    }
    store_unlock(store);
    if (rc) {
        free(snapshot);
        return rc;
    }
    *out = snapshot;
    return 0;
}

void snapshot_close(struct snapshot *snapshot) {
    if (!snapshot)
        return;
    struct store *store = snapshot->store;
    store_lock(store);
    mdb_txn_abort(snapshot->txn);
    if (snapshot->previous)
        snapshot->previous->next = snapshot->next;
    else
        store->snapshots = snapshot->next;
    if (snapshot->next)
        snapshot->next->previous = snapshot->previous;
    store_unlock(store);
    free(snapshot);
}

uint64_t snapshot_lsn(const struct snapshot *snapshot) {
    return snapshot->lsn;
}

/* ---- local values ---- */

static int local_key(const char *name, struct key *key) {
    size_t length = strlen(name);
    if (length == 0 || length > 60)
        return -EINVAL;
    memcpy(key->bytes, "local.", 6);
    memcpy(key->bytes + 6, name, length);
    key->length = (uint16_t)(6 + length);
    return 0;
}

int store_meta_get(struct store *store, const char *name, void *value, size_t room, size_t *length) {
    struct key key;
    struct span span;
    int rc = local_key(name, &key);
    if (rc == 0)
        rc = table_get(store, TABLE_META, &key, &span);
    if (rc)
        return rc;
    if (span.length > room)
        return -ERANGE;
    memcpy(value, span.data, span.length);
    *length = span.length;
    return 0;
}

int store_meta_put(struct store *store, const char *name, const void *value, size_t length) {
    struct local_value *local = malloc(sizeof *local + length);
    if (!local)
        return -ENOMEM;
    int rc = local_key(name, &local->key);
    if (rc == 0)
        rc = table_put_raw(store, TABLE_META, &local->key, value, length);
    if (rc) {
        free(local);
        return rc;
    }
    local->length = length;
    memcpy(local->value, value, length);
    struct local_value **at = &store->local_values;
    while (*at && ((*at)->key.length != local->key.length ||
                   memcmp((*at)->key.bytes, local->key.bytes, local->key.length) != 0))
        at = &(*at)->next;
    local->next = *at ? (*at)->next : NULL;
    free(*at);
    *at = local;
    return 0;
}

int local_values_put_again(struct store *store) {
    int rc = 0;
    for (struct local_value *local = store->local_values; rc == 0 && local; local = local->next)
        rc = table_put_raw(store, TABLE_META, &local->key, local->value, local->length);
    return rc;
}

void local_values_forget(struct store *store) {
    while (store->local_values) {
        struct local_value *local = store->local_values;
        store->local_values = local->next;
        free(local);
    }
}
