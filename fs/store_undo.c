/* Undo: the newest records go, one after the other, by the row images that their journal rows kept. */
#include "fs/store_internal.h"

#define UNDO_STEPS 256u
#define BROKEN_MAX 5u

static uint32_t places_blocks(const struct place *places, uint32_t count) {
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < count; i++)
        blocks += places[i].count;
    return blocks;
}

static void account_back(struct store *store, const struct record *record, const struct journal_row *row,
                         const struct journal_head *head, uint32_t row_length) {
    struct position_row *position = &store->position;
    uint32_t dropped = places_blocks(row->dropped, row->dropped_count);
    position->lsn--;
    position->epoch = head->previous_epoch;
    position->time = head->previous_time;
    memcpy(position->chain, head->previous_chain, CHAIN_SIZE);
    position->journal_bytes -= MIN(row_length, position->journal_bytes);
    position->kept_blocks -= MIN(dropped, position->kept_blocks);
    position->live_blocks += dropped;
    position->live_blocks -= MIN(record->head.blocks, position->live_blocks);
    if (record_new_inode(record) != 0)
        position->inodes--;
    for (uint32_t i = 0; i < record->step_count; i++)
        position->inodes += record->steps[i].kind == RECLAIM_INODE;
}

/* The newest record. The row is copied first: it lies in pages that the restoring moves. */
static int undo_last(struct store *store) {
    struct key key = key_u64(store->position.lsn);
    struct span value;
    int rc = table_get(store, TABLE_JOURNAL, &key, &value);
    if (rc)
        return rc;
    AUTO_FREE uint8_t *copy = malloc(value.length);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, value.data, value.length);
    struct journal_row row;
    struct journal_head head;
    struct record record;
    rc = journal_row_parse((struct span){copy, value.length}, &row);
    if (rc == 0)
        rc = record_decode(row.record.data, row.record.length, &record, NULL);
    if (rc)
        return -EIO;
    memcpy(&head, copy, sizeof head);
    rc = undo_restore(store, row.undo.data, row.undo.length);
    for (uint32_t i = 0; rc == 0 && i < row.place_count; i++) {
        struct place place;
        memcpy(&place, &row.places[i], sizeof place);
        rc = dead_add(store, place);
    }
    if (rc == 0)
        rc = table_remove_raw(store, TABLE_JOURNAL, &key);
    if (rc == 0) {
        recent_cut(store, store->position.lsn - 1);
        account_back(store, &record, &row, &head, value.length);
        store->undone++;
        if (store->watch.undone)
            store->watch.undone(store->watch.context, &record);
    }
    record_release(&record);
    return rc;
}

static void durable_limit(struct store *store) {
    pthread_mutex_lock(&store->sync_lock);
    if (atomic_load(&store->durable) > store->position.lsn)
        atomic_store(&store->durable, store->position.lsn);
    if (atomic_load(&store->sync_wanted) > store->position.lsn)
        atomic_store(&store->sync_wanted, store->position.lsn);
    pthread_mutex_unlock(&store->sync_lock);
}

/* Undoes some records, and waits until that is committed, or taken back by a commit which the disk refused. */
static int undo_some(struct store *store, uint64_t lsn) {
    uint64_t settled = store->settled;
    int rc = 0;
    for (uint32_t steps = 0; rc == 0 && store->position.lsn > lsn && steps < UNDO_STEPS && store->batch_rows < BATCH_ROWS;
         steps++) {
        rc = undo_last(store);
        if (rc)
            break;
        durable_limit(store);
        store->committed = MIN(store->committed, store->position.lsn);
    }
    if (rc && !store->txn_broken)
        return rc;
    while (store->settled == settled) {
        store->commit_wanted = true;
        pthread_cond_signal(&store->work);
        pthread_cond_wait(&store->committed_cond, &store->lock);
    }
    return rc;
}

static int undo_to(struct store *store, uint64_t lsn) {
    /* Everything committed first: what is undone then has its row in the journal and is in no batch. */
    int rc = store_checkpoint(store);
    if (rc)
        return rc;
    store_lock(store);
    if (lsn > store->position.lsn)
        rc = -EINVAL;
    else if (lsn + 1 < store->position.first)
        rc = -ENOENT;
    if (rc || lsn == store->position.lsn || store->committed != store->position.lsn) {
        store_unlock(store);
        return rc ? rc : (lsn == store->position.lsn ? 0 : -EBUSY);
    }
    mark_set(&store->mark, lsn); /* it may end there now, and lacks nothing */
    /* A full disk: as with any commit, it is tried until there is space; history before the target yields. A database
     * that refuses single changes does so again and again. */
    for (unsigned broken = 0; store->position.lsn > lsn && broken < BROKEN_MAX; broken = rc ? broken + 1 : 0) {
        rc = undo_some(store, lsn);
        if (rc && rc != -ENOSPC && rc != -ENOMEM)
            break;
    }
    if (rc)
        store_fail(store, "record %llu cannot be undone: %s", (unsigned long long)store->position.lsn, strerror(-rc));
    store->recent_first = MIN(store->recent_first, store->position.lsn + 1);
    store_unlock(store);
    /* Until this is on disk a crash brings the undone records back; then undo is simply called again. */
    return store_checkpoint(store);
}

int store_undo(struct store *store, uint64_t lsn) {
    return store_undo_after(store, lsn, NULL, NULL);
}

int store_undo_after(struct store *store, uint64_t lsn, int (*before)(void *context, struct store *store), void *context) {
    store_lock(store);
    int rc = store->undoing || store->epoch ? -EBUSY : 0;
    if (rc == 0) { /* from now on nobody appends, and nothing above the target is trimmed */
        store->undoing = true;
        store->undo_target = lsn;
    }
    store_unlock(store);
    if (rc)
        return rc;
    rc = before ? before(context, store) : 0;
    rc = rc ? rc : undo_to(store, lsn);
    store_lock(store);
    store->undoing = false;
    store_unlock(store);
    return rc;
}
