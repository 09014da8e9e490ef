/* The committer: LMDB's write transaction begins and ends in its thread (the writer lock belongs to a thread), while
 * all others change rows inside it under the engine lock. It also makes checkpoints, trims and punches. The syncer makes
 * the tail durable for those who wait in fsync.
 */
#include "fs/apply.h"
#include "fs/store_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define TRIM_ROWS 512
#define TELL_REFUSED 10000000000 /* ns between two sentences about refused commits */

void store_fail(const struct store *store, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_error("store %s: %s; stopping here, the next start recovers everything that was durable", store->path, text);
    _exit(70);
}

/* ---- does the disk answer? ---- */

void disk_begin(struct store *store, enum disk_work work) {
    atomic_store_explicit(&store->disk_since[work], clock_boot(), memory_order_relaxed);
}

void disk_end(struct store *store, enum disk_work work) {
    atomic_store_explicit(&store->disk_since[work], 0, memory_order_relaxed);
    if (work == DISK_CHECKPOINT || work == DISK_SYNCER)
        atomic_store_explicit(&store->disk_flushed, clock_boot(), memory_order_relaxed);
}

bool store_stalled(const struct store *store, int64_t patience) {
    int64_t limit = clock_boot() - patience;
    for (enum disk_work work = 0; work < DISK_WORKS; work++) {
        int64_t since = atomic_load_explicit(&store->disk_since[work], memory_order_relaxed);
        bool flush = work == DISK_CHECKPOINT || work == DISK_SYNCER;
        if (since && since < limit && (!flush || atomic_load_explicit(&store->disk_flushed, memory_order_relaxed) < limit))
            return true;
    }
    return false;
}

/* Flushes a file. 0 or -1 with errno. */
static int flush_file(struct store *store, int fd, enum disk_work work) {
    disk_begin(store, work);
    int rc = fdatasync(fd);
    disk_end(store, work);
    return rc;
}

/* ---- transactions ---- */

static int accounting_save(struct store *store) {
    struct segments *segments = &store->segments;
    free(store->saved_segments);
    free(store->saved_reserved);
    store->saved_segments = malloc((segments->count + 1) * sizeof *store->saved_segments);
    store->saved_reserved = malloc((segments->reserved_count + 1) * sizeof *store->saved_reserved);
    if (!store->saved_segments || !store->saved_reserved)
        return -ENOMEM;
    if (segments->count)
        memcpy(store->saved_segments, segments->list, segments->count * sizeof *segments->list);
    if (segments->reserved_count)
        memcpy(store->saved_reserved, segments->reserved, segments->reserved_count * sizeof *segments->reserved);
    store->saved_segment_count = segments->count;
    store->saved_reserved_count = segments->reserved_count;
    store->saved_current = segments->current;
    store->saved_position = store->position;
    return 0;
}

int store_begin_txn(struct store *store) {
    int rc = mdb_txn_begin(store->env, NULL, 0, &store->txn);
    if (rc) {
        store->txn = NULL;
        log_error("store %s: cannot begin a transaction: %s", store->path, mdb_strerror(rc));
        return -EIO;
    }
    store->batch_rows = 0;
    store->batch_bytes = 0;
    return accounting_save(store);
}

static int position_save(struct store *store) {
    struct key key = {.length = 8};
    memcpy(key.bytes, "position", 8);
    return table_put_raw(store, TABLE_META, &key, &store->position, sizeof store->position);
}

int store_commit_txn(struct store *store) {
    int rc = store->txn_broken ? -EIO : segments_save(store);
    if (rc == 0)
        rc = position_save(store);
    if (rc || store->txn_broken) {
        mdb_txn_abort(store->txn);
        store->txn = NULL;
        return rc ? rc : -EIO;
    }
    disk_begin(store, DISK_COMMIT);
    rc = mdb_txn_commit(store->txn);
    disk_end(store, DISK_COMMIT);
    store->txn = NULL;
    if (rc) {
        if (clock_boot() - store->refused_told > TELL_REFUSED)
            log_warning("store %s: a commit failed: %s", store->path, mdb_strerror(rc));
        return rc == ENOSPC || rc == MDB_MAP_FULL ? -ENOSPC : -EIO;
    }
    for (uint32_t i = 0; i < store->segments.count; i++)
        store->segments.list[i].row_dirty = false;
    local_values_forget(store);
    store->committed = store->position.lsn;
    store->settled++;
    store->commit_refused = false;
    store->unsaved = true;
    store->last_commit = clock_boot();
    recent_evict(store);
    return 0;
}

static void flush_behind(struct store *store);

/* Goes back to the accounting of the transaction's beginning, but keeps what is reserved now. */
static void accounting_restore(struct store *store) {
    struct segments *segments = &store->segments;
    struct place *now = segments->reserved;
    uint32_t now_count = segments->reserved_count;

    struct segment *list = malloc((store->saved_segment_count + 1) * sizeof *list);
    struct place *reserved = malloc((store->saved_reserved_count + 1) * sizeof *reserved);
    if (!list || !reserved)
        store_fail(store, "out of memory");
    if (store->saved_segment_count)
        memcpy(list, store->saved_segments, store->saved_segment_count * sizeof *list);
    memcpy(reserved, store->saved_reserved, store->saved_reserved_count * sizeof *reserved);
    free(segments->list);
    segments->list = list;
    segments->count = segments->room = store->saved_segment_count;
    segments->current = store->saved_current;
    segments->reserved = reserved;
    segments->reserved_count = segments->reserved_room = store->saved_reserved_count;
    uint64_t lsn = store->importing ? store->saved_position.lsn : store->position.lsn; /* else it has entries of them */
    store->position = store->saved_position;

    store->restoring = true; /* heads move up again, gaps become reservations */
    for (uint64_t at = store->position.lsn + 1; at <= lsn; at++) {
        struct entry *entry = recent_get(store, at);
        struct record record;
        PROMISE(entry != NULL);
        if (record_decode(entry->bytes, entry->length, &record, NULL) != 0 ||
            store_apply_entry(store, &record, entry, true) != 0)
            store_fail(store, "record %llu could not be applied again after a failed commit", (unsigned long long)at);
        record_release(&record);
    }
    /* What threads hold reserved must be below the heads and in the list. */
    for (uint32_t i = 0; i < now_count; i++)
        if (segment_reserve_again(store, now[i]) != 0)
            store_fail(store, "reserved blocks are lost after a failed commit");
    store->restoring = false;
    free(now);
    for (uint32_t i = 0; i < segments->count; i++)
        segments->list[i].row_dirty = segments->list[i].unsynced = segments->list[i].unsynced_big = true;
}

/* After a failed commit or a refused change: a new transaction, and the batch in it again. Lock held. */
static void transaction_mend(struct store *store) {
    if (store->txn) {
        mdb_txn_abort(store->txn);
        store->txn = NULL;
    }
    store->txn_broken = false;
    store->mends++;
    store->space_short = true; /* the usual reason: new work waits, history is trimmed */
    int rc = mdb_txn_begin(store->env, NULL, 0, &store->txn);
    if (rc)
        store_fail(store, "cannot begin a transaction: %s", mdb_strerror(rc));
    store->batch_rows = store->batch_bytes = 0;
    /* Places that were given up since go back below the heads and may be given out again: nothing of them may be left in
     * memory to be written later. */
    flush_behind(store);
    accounting_restore(store); /* what was undone is there again, without entries in memory: all of it was committed */
    if (local_values_put_again(store) != 0)
        store->txn_broken = true;
    store->committed = store->saved_position.lsn;
    store->settled++;
    pthread_cond_broadcast(&store->committed_cond); /* who waits for room may have to hear that there is none */
    if (store->txn_broken)
        store_fail(store, "the store's database refuses the changes of the last %u ms a second time",
                   store->options.commit_ms);
    if (clock_boot() - store->refused_told > TELL_REFUSED) {
        store->refused_told = clock_boot();
        log_warning("store %s: a commit failed, its changes are kept in memory and in the tail and tried again",
                    store->path);
    }
}

void store_wait_mended(struct store *store) {
    while (store->txn_broken) {
        PROMISE(store->threads_running);
        pthread_cond_signal(&store->work);
        pthread_cond_wait(&store->committed_cond, &store->lock);
    }
}

/* ---- checkpoints ---- */

struct sync_list {
    uint32_t *segments;
    uint32_t count;
};

static struct sync_list segments_unsynced(struct store *store, bool big_only) {
    struct sync_list list = {malloc((store->segments.count + 1) * sizeof(uint32_t)), 0};
    if (!list.segments)
        store_fail(store, "out of memory");
    for (uint32_t i = 0; i < store->segments.count; i++) {
        struct segment *segment = &store->segments.list[i];
        if (big_only ? segment->unsynced_big : segment->unsynced)
            list.segments[list.count++] = segment->number;
        if (big_only)
            segment->unsynced_big = false;
        else
            segment->unsynced = false;
    }
    return list;
}

static void segments_sync(struct store *store, struct sync_list *list, enum disk_work work) {
    for (uint32_t i = 0; i < list->count; i++) {
        int fd = segment_fd_get(&store->segments, list->segments[i], false);
        if (fd == -ENOENT)
            continue; /* freed and unlinked meanwhile */
        if (fd < 0 || flush_file(store, fd, work) < 0)
            store_fail(store, "data could not be written to disk: %s", strerror(fd < 0 ? -fd : errno));
        segment_fd_put(&store->segments, fd);
    }
    free(list->segments);
}

static void flush_behind(struct store *store) {
    int rc = segments_flush(store);
    if (rc)
        store_fail(store, "data could not be written into its segment: %s", strerror(-rc));
}

/* What was the history up to `lsn` when `undone` records had been undone is durable. Under the engine lock too: an undo may
 * have taken it back meanwhile, and other records may have its numbers, which this sync knew nothing of. */
static void durable_advance(struct store *store, uint64_t lsn, uint64_t undone) {
    store_lock(store);
    pthread_mutex_lock(&store->sync_lock);
    bool news = store->undone == undone && lsn > atomic_load(&store->durable);
    if (news)
        atomic_store(&store->durable, lsn);
    pthread_cond_broadcast(&store->sync_done);
    pthread_mutex_unlock(&store->sync_lock);
    struct store_watch watch = store->watch;
    store_unlock(store);
    if (news && watch.durable)
        watch.durable(watch.context, lsn);
}

/* True when committed: then no transaction is open. False after a full disk: the batch has been applied again in a new
 * transaction, and the next try comes with the next round, when space may have been freed. */
static bool commit_or_mend(struct store *store) {
    for (int tries = 0;; tries++) {
        int rc = store_commit_txn(store);
        if (rc == 0)
            return true;
        if (!store->threads_running || (rc != -ENOSPC && tries == 2))
            store_fail(store, "commits keep failing");
        store->commit_refused = rc == -ENOSPC;
        transaction_mend(store);
        if (rc == -ENOSPC)
            return false;
    }
}

void store_checkpoint_now(struct store *store) {
    struct checkpoint *next = calloc(1, sizeof *next);
    MDB_txn *pin = NULL;
    if (!next)
        store_fail(store, "out of memory");
    if (!commit_or_mend(store)) {
        free(next);
        return;
    }
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &pin);
    if (rc)
        store_fail(store, "cannot pin a state for the checkpoint: %s", mdb_strerror(rc));
    *next = store->last_checkpoint;
    next->number++;
    next->txnid = mdb_txn_id(pin);
    next->lsn = store->position.lsn;
    memcpy(next->incarnation, store->incarnation, STORE_ID_SIZE);
    memcpy(next->boot, store->boot, STORE_ID_SIZE);
    if (checkpoint_copy_page(store, next->txnid, next->page) != 0)
        store_fail(store, "LMDB's meta page is not the one that was just committed");
    rc = checkpoint_stretch(store, next);
    if (rc)
        store_fail(store, "the database cannot be made as long as it says that it is: %s", strerror(-rc));
    rc = tail_rotate(&store->tail, store->position.lsn, store->position.chain, true);
    if (rc)
        store_fail(store, "no tail file for a checkpoint: %s", strerror(-rc));
    next->tail_seq = store->tail.seq;
    int tail_fd = store->tail.files[store->tail.current].fd;
    struct sync_list segments = segments_unsynced(store, false);
    store->unsaved = false;
    uint64_t undone = store->undone;
    uint64_t ticket = store->checkpoint_wanted;
    space_meta_headroom(store);
    if (store_begin_txn(store) != 0)
        store_fail(store, "cannot begin the next transaction");
    pthread_cond_broadcast(&store->committed_cond);
    store_unlock(store);

    flush_behind(store); /* the tail that carries it may go after this */
    segments_sync(store, &segments, DISK_CHECKPOINT);
    if (flush_file(store, store->meta_fd, DISK_CHECKPOINT) < 0)
        store_fail(store, "the database could not be written to disk: %s", strerror(errno));
    /* The checkpoint names this file: without its first page nobody could tell a tail that holds nothing from one that
     * is lost. */
    if (flush_file(store, tail_fd, DISK_CHECKPOINT) < 0)
        store_fail(store, "the tail could not be written to disk: %s", strerror(errno));
    disk_begin(store, DISK_CHECKPOINT);
    rc = checkpoint_write(store, next);
    disk_end(store, DISK_CHECKPOINT);
    if (rc)
        store_fail(store, "the checkpoint could not be written: %s", strerror(-rc));

    store_lock(store);
    if (store->pin)
        mdb_txn_abort(store->pin);
    store->pin = pin;
    store->previous_txnid = store->last_checkpoint.txnid;
    store->last_checkpoint = *next;
    store->tail.oldest_needed = next->tail_seq;
    store->checkpoint_done = MAX(store->checkpoint_done, ticket);
    store->last_checkpoint_time = clock_boot();
    pthread_cond_broadcast(&store->committed_cond);
    store_unlock(store);
    durable_advance(store, next->lsn, undone);
    free(next);
    store_lock(store);
}

/* ---- the committer's life ---- */

static void trim_and_punch(struct store *store) {
    int trimmed;
    do {
        trimmed = journal_trim_some(store, journal_horizon(store), TRIM_ROWS);
        if (trimmed < 0 && !store->txn_broken)
            store_fail(store, "trimming the journal failed: %s", strerror(-trimmed));
        if (store->txn_broken)
            transaction_mend(store);
        else if (store->batch_rows >= BATCH_ROWS && commit_or_mend(store) && store_begin_txn(store) != 0)
            store_fail(store, "cannot begin the next transaction");
        store_unlock(store); /* others go on between the steps */
        store_lock(store);
        if (store->txn_broken)
            transaction_mend(store);
    } while (trimmed == TRIM_ROWS && !store->stop);
    store_unlock(store);
    int rc = store->importing ? 0 : dead_punch(store); /* segments are shared with the store that this one will replace */
    if (rc < 0)
        store_fail(store, "freeing blocks failed: %s", strerror(-rc));
    segment_prepare_next(store);
    store_lock(store);
    space_refresh(store, true);
    store->passes++;
    pthread_cond_broadcast(&store->committed_cond);
}

static bool checkpoint_due(const struct store *store, int64_t now) {
    if (store->checkpoint_wanted > store->checkpoint_done)
        return true;
    if (!store->unsaved && store->batch_rows == 0 && !store->dead_waits)
        return false;
    int64_t interval = (int64_t)store->options.checkpoint_ms * 1000000;
    return now - store->last_checkpoint_time >= (space_low(store) ? interval / 4 : interval) ||
           tail_used(&store->tail) > 2ull * store->tail.size;
}

static void wait_until_work(struct store *store, int64_t wait) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t at = (int64_t)until.tv_sec * 1000000000 + until.tv_nsec + wait;
    until.tv_sec = at / 1000000000;
    until.tv_nsec = at % 1000000000;
    pthread_cond_timedwait(&store->work, &store->lock, &until);
}

static void wait_for_work(struct store *store) {
    bool idle = store->batch_rows == 0 && !store->unsaved;
    wait_until_work(store, (int64_t)(idle ? store->options.checkpoint_ms : store->options.commit_ms) * 1000000);
}

/* After a refused commit: the whole interval, however many ask. */
static void wait_out(struct store *store) {
    int64_t until = clock_boot() + (int64_t)store->options.commit_ms * 1000000, left;
    while ((left = until - clock_boot()) > 0 && !store->stop)
        wait_until_work(store, left);
}

/* A tail file in time, without the lock: writing its zeros takes a while. */
static void prepare_tail(struct store *store) {
    if (!tail_wants_file(&store->tail))
        return;
    unsigned index = store->tail.count;
    store_unlock(store);
    int fd = tail_make_file(&store->tail, index);
    store_lock(store);
    if (fd >= 0)
        tail_add_file(&store->tail, fd);
    else if (fd != -ENOSPC && fd != -EDQUOT)
        store_fail(store, "making a tail file failed: %s", strerror(-fd));
}

void *store_committer(void *context) {
    struct store *store = context;
    store_lock(store);
    if (store_begin_txn(store) != 0)
        store_fail(store, "cannot begin the first transaction");
    store->begun = true;
    pthread_cond_broadcast(&store->committed_cond);
    while (!store->stop) {
        bool wanted = store->commit_wanted || store->checkpoint_wanted > store->checkpoint_done ||
                      behind_pressed(&store->segments.behind);
        if (store->commit_refused)
            wait_out(store);
        else if (!store->txn_broken && !wanted)
            wait_for_work(store);
        prepare_tail(store);
        if (behind_pressed(&store->segments.behind)) {
            store_unlock(store);
            flush_behind(store);
            store_lock(store);
        }
        store->commit_wanted = false;
        if (store->txn_broken) {
            transaction_mend(store);
            pthread_cond_broadcast(&store->committed_cond);
        }
        int64_t now = clock_boot();
        if (checkpoint_due(store, now)) {
            store_checkpoint_now(store);
            trim_and_punch(store);
        } else if (store->batch_rows > 0 && commit_or_mend(store)) {
            space_meta_headroom(store);
            if (store_begin_txn(store) != 0)
                store_fail(store, "cannot begin the next transaction");
            pthread_cond_broadcast(&store->committed_cond);
        }
    }
    for (int tries = 0; store->batch_rows > 0 || store->unsaved; tries++) {
        if (tries == 50)
            store_fail(store, "the disk is full: the last changes stay in the tail");
        store_checkpoint_now(store);
        if (store->batch_rows > 0)
            wait_for_work(store);
    }
    mdb_txn_abort(store->txn);
    store->txn = NULL;
    store_unlock(store);
    return NULL;
}

/* ---- the syncer ---- */

/* Everything appended so far becomes durable: the tail's files, and segments with data that is not in the tail. */
static void sync_pass(struct store *store) {
    int fds[TAIL_FILES_MAX];
    unsigned count = 0;
    uint64_t wanted = atomic_load(&store->sync_wanted);
    store_lock(store);
    uint64_t target = store->position.lsn, undone = store->undone;
    if (wanted > target) /* undone meanwhile: what does not exist cannot be synced */
        atomic_compare_exchange_strong(&store->sync_wanted, &wanted, target);
    struct sync_list segments = segments_unsynced(store, true);
    for (unsigned i = 0; i < store->tail.count; i++)
        if (store->tail.files[i].unsynced) {
            fds[count++] = store->tail.files[i].fd;
            store->tail.files[i].unsynced = false;
        }
    store_unlock(store);
    segments_sync(store, &segments, DISK_SYNCER);
    for (unsigned i = 0; i < count; i++)
        if (flush_file(store, fds[i], DISK_SYNCER) < 0)
            store_fail(store, "the tail could not be written to disk: %s", strerror(errno));
    durable_advance(store, target, undone);
}

void *store_syncer(void *context) {
    struct store *store = context;
    pthread_mutex_lock(&store->sync_lock);
    for (;;) {
        while (!store->sync_stop && atomic_load(&store->sync_wanted) <= atomic_load(&store->durable))
            pthread_cond_wait(&store->sync_work, &store->sync_lock);
        if (store->sync_stop)
            break;
        pthread_mutex_unlock(&store->sync_lock);
        sync_pass(store);
        pthread_mutex_lock(&store->sync_lock);
    }
    pthread_mutex_unlock(&store->sync_lock);
    return NULL;
}
