#include "fs/history_internal.h"
#include "fs/journal_text.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define OVERLAY_MAP (64ull << 30)
#define OVERLAY_PUTS 4096u          /* in one transaction of the overlay: its dirty pages are memory */
#define OVERLAY_BYTES (16ull << 20) /* likewise */
#define LAPS 64u     /* steps that a look may take… */
#define LAPS_PER_STEP 4u /* …and for each step's worth of records that were there when it began */

uint32_t history_step = 8192;

int history_fail(struct history *history, int error, const char *format, ...) {
    va_list arguments;
    if (history->error)
        return history->error;
    history->error = error;
    va_start(arguments, format);
    vsnprintf(history->why, sizeof history->why, format, arguments);
    va_end(arguments);
    return error;
}

int history_error(const struct store *past, char *why, size_t why_room) {
    const struct history *history = past->history;
    if (!history)
        return 0;
    if (history->error)
        snprintf(why, why_room, "%s", history->why);
    return history->error;
}

bool history_is(const struct store *store) {
    return store->history != NULL;
}

uint64_t history_lsn(const struct store *past) {
    return past->history->lsn;
}

/* ---- the overlay's environment ---- */

static int overlay_begin(struct history *history) {
    int rc = mdb_txn_begin(history->env, NULL, 0, &history->txn);
    if (rc == 0)
        return 0;
    history->txn = NULL;
    return history_fail(history, rc == ENOSPC ? -ENOSPC : -EIO, "the overlay of the history failed: %s",
                        mdb_strerror(rc));
}

int history_settle(struct history *history) {
    if (history->error || (history->puts < OVERLAY_PUTS && history->put_bytes < OVERLAY_BYTES))
        return history->error;
    int rc = mdb_txn_commit(history->txn);
    history->txn = NULL;
    history->puts = 0;
    history->put_bytes = 0;
    if (rc)
        return history_fail(history, rc == ENOSPC ? -ENOSPC : -EIO, "the overlay of the history cannot be written: %s",
                            mdb_strerror(rc));
    return overlay_begin(history);
}

static int overlay_open(struct history *history) {
    char path[4200];
    snprintf(path, sizeof path, "%s/history-XXXXXX", history->base->path);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    close(fd);
    int rc = mdb_env_create(&history->env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(history->env, TABLE_END);
    if (rc == 0)
        rc = mdb_env_set_mapsize(history->env, OVERLAY_MAP);
    if (rc == 0)
        rc = mdb_env_open(history->env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
    unlink(path);
    if (rc == 0)
        rc = mdb_txn_begin(history->env, NULL, 0, &history->txn);
    for (int table = 0; rc == 0 && table < TABLE_END; table++)
        rc = mdb_dbi_open(history->txn, table_names[table], MDB_CREATE, &history->dbi[table]);
    return rc > 0 ? -rc : rc ? -EIO : 0;
}

/* ---- what the base holds ---- */

static int position_in(struct snapshot *snapshot, struct position_row *position) {
    struct key key = {.length = 8};
    struct span value;
    memcpy(key.bytes, "position", 8);
    int rc = table_get_at(snapshot, TABLE_META, &key, &value);
    if (rc == 0 && value.length != sizeof *position)
        rc = -EIO;
    if (rc == 0)
        memcpy(position, value.data, sizeof *position);
    return rc == -ENOENT ? -EIO : rc;
}

/* The chain value at `lsn`, which the journal reaches. */
static int chain_in(struct snapshot *snapshot, const struct position_row *position, uint64_t lsn,
                    uint8_t chain[CHAIN_SIZE]) {
    struct key key = key_u64(lsn + 1);
    struct journal_head head;
    struct span value;
    if (lsn == position->lsn) {
        memcpy(chain, position->chain, CHAIN_SIZE);
        return 0;
    }
    int rc = table_get_at(snapshot, TABLE_JOURNAL, &key, &value);
    if (rc || value.length < sizeof head)
        return rc && rc != -ENOENT ? rc : -EIO;
    memcpy(&head, value.data, sizeof head);
    memcpy(chain, head.previous_chain, CHAIN_SIZE);
    return 0;
}

/* Is what was taken so far still the history? What an undo took back and others replaced is read again, from `lsn` on:
 * the images that are there stay right, for an undo put just those rows back. */
static int check_chain(struct history *history, const struct position_row *position) {
    uint8_t chain[CHAIN_SIZE];
    if (position->first > history->lsn + 1)
        return history_fail(history, -ENOENT,
                            "the history up to record %" PRIu64
                            " was given up meanwhile, because the disk is nearly full or "
                            "the journal has reached its limit",
                            position->first - 1);
    int rc = -ENOENT;
    if (history->taken <= position->lsn) {
        rc = chain_in(history->snapshot, position, history->taken, chain);
        if (rc == 0 && memcmp(chain, history->taken_chain, CHAIN_SIZE) == 0)
            return 0;
    }
    if (rc == 0 || rc == -ENOENT)
        rc = history->lsn <= position->lsn ? chain_in(history->snapshot, position, history->lsn, chain) : -ESTALE;
    if (rc && rc != -ESTALE)
        return history_fail(history, rc, "the journal cannot be read; run baton check on this store");
    if (rc || memcmp(chain, history->chain, CHAIN_SIZE) != 0)
        return history_fail(history, -ESTALE, "record %" PRIu64 " was taken back meanwhile by a rollback",
                            history->lsn);
    history->taken = history->lsn;
    memcpy(history->taken_chain, chain, CHAIN_SIZE);
    return 0;
}

static int take_row(struct history *history, uint64_t lsn) {
    struct key key = key_u64(lsn);
    struct record_head head;
    struct journal_row row;
    struct undo_image image;
    struct span value;
    uint32_t at = 0;
    int rc = table_get_at(history->snapshot, TABLE_JOURNAL, &key, &value);
    if (rc == 0)
        rc = journal_row_parse(value, &row);
    if (rc == 0) {
        memcpy(&head, row.record.data, sizeof head);
        while ((rc = undo_next(&row.undo, &at, &image)) == 1) {
            int error = history_put_image(history, &image);
            if (error)
                return error;
        }
    }
    if (rc)
        return history_fail(history, -EIO,
                            "record %" PRIu64 " of the journal cannot be read; run baton check on this store", lsn);
    history->taken = lsn;
    memcpy(history->taken_chain, head.chain, CHAIN_SIZE);
    return 0;
}

/* Takes a step's worth of images. 1: there are more; 0: none, and the snapshot is still open. */
static int take_some(struct history *history) {
    struct position_row position = {0};
    if (atomic_load(&history->base->pasts_end))
        return history_fail(history, -ECANCELED, "this node is stopping or replaces its store");
    int rc = history_settle(history);
    if (rc)
        return rc;
    rc = store_snapshot(history->base, &history->snapshot);
    if (rc)
        return history_fail(history, rc, "the store cannot be read: %s", strerror(-rc));
    rc = position_in(history->snapshot, &position);
    if (rc)
        history_fail(history, rc, "the store's position cannot be read; run baton check on this store");
    else
        rc = check_chain(history, &position);
    history->newest = position.lsn;
    for (unsigned steps = 0; rc == 0 && steps < history_step && history->taken < position.lsn; steps++) {
        rc = take_row(history, history->taken + 1);
        if (rc == 0)
            rc = history_settle(history);
    }
    if (rc == 0 && history->taken == position.lsn)
        return 0;
    snapshot_close(history->snapshot);
    history->snapshot = NULL;
    return rc ? rc : 1;
}

void history_enter(struct store *past) {
    struct history *history = past->history;
    uint64_t laps = 0, most = 0;
    while (!history->blank && !history->error && take_some(history) == 1) {
        if (laps == 0)
            most = LAPS + LAPS_PER_STEP * ((history->newest - history->taken) / history_step);
        if (laps++ >= most)
            history_fail(history, -EBUSY,
                         "records come faster than the history up to record %" PRIu64 " takes them in; try again when there is "
                         "less to do", history->lsn);
    }
    if (history->blank)
        history_settle(history);
}

void history_end_all(struct store *store, bool end) {
    atomic_store(&store->pasts_end, end);
}

void history_leave(struct store *past) {
    struct history *history = past->history;
    snapshot_close(history->snapshot);
    history->snapshot = NULL;
}

int history_read_blocks(struct store *past, struct place place, void *buffer) {
    struct history *history = past->history;
    if (history->error)
        return history->error;
    if (history->tail && place.segment == SEGMENT_UNDONE)
        return undone_tail_read(history, place, buffer);
    return history->blank ? -EIO : store_read_blocks(history->base, place, buffer);
}

/* ---- opening, closing ---- */

int history_make(struct store *base, bool blank, struct store **out, char *why, size_t why_room) {
    struct store *past = calloc(1, sizeof *past);
    struct history *history = calloc(1, sizeof *history);
    if (!past || !history) {
        free(past);
        free(history);
        snprintf(why, why_room, "out of memory");
        return -ENOMEM;
    }
    pthread_mutex_init(&past->lock, NULL);
    past->path = base->path;
    past->history = history;
    history->base = base;
    history->blank = blank;
    int rc = overlay_open(history);
    if (rc) {
        snprintf(why, why_room, "no file for the history can be made in %s: %s", base->path, strerror(-rc));
        history_close(past);
        return rc;
    }
    *out = past;
    return 0;
}

/* Under the lock of the base: what is held from now on is there. */
static int hold_begin(struct history *history, const uint8_t *chain, char *why, size_t why_room) {
    struct store *base = history->base;
    uint64_t lsn = history->lsn;
    int rc = 0;
    store_lock(base);
    uint64_t first = base->position.first, last = base->position.lsn;
    if (lsn > last)
        rc = -ENOENT;
    else if (lsn + 1 < first)
        rc = -ENOENT;
    else
        rc = chain_at(base, lsn, history->chain);
    if (rc == 0 && chain && memcmp(chain, history->chain, CHAIN_SIZE) != 0)
        rc = -ESTALE;
    if (rc == 0)
        store_hold_history(base, &history->hold, lsn);
    store_unlock(base);
    memcpy(history->taken_chain, history->chain, CHAIN_SIZE);
    if (rc == -ESTALE)
        snprintf(why, why_room, "record %" PRIu64 " of this store is another one", lsn);
    else if (rc && lsn > last)
        snprintf(why, why_room, "there is no record %" PRIu64 " yet; the last one is %" PRIu64, lsn, last);
    else if (rc)
        snprintf(why, why_room,
                 "the history reaches back to record %" PRIu64 "; [journal] in the config file says how much is kept",
                 first - 1);
    return rc;
}

static int time_at(struct store *store, uint64_t lsn, int64_t *time);

/* What the position row of then said; nothing above it is trimmed meanwhile. */
static int find_position(struct store *past) {
    struct history *history = past->history;
    epoch_t epoch = 0;
    int64_t time = 0;
    store_lock(history->base);
    int rc = history->lsn ? epoch_at(history->base, history->lsn, &epoch) : 0;
    store_unlock(history->base);
    if (rc == 0 || rc == -ENOENT)
        rc = time_at(history->base, history->lsn, &time);
    if (rc)
        return history_fail(history, rc, "the journal cannot be read: %s", strerror(-rc));
    past->position.lsn = history->lsn;
    past->position.epoch = epoch;
    past->position.time = time;
    memcpy(past->position.chain, history->chain, CHAIN_SIZE);
    return 0;
}

int history_open(struct store *store, uint64_t lsn, const uint8_t *chain, history_progress *progress, void *context,
                 struct store **out, char *why, size_t why_room) {
    struct store *past = NULL;
    int rc = history_make(store, false, &past, why, why_room);
    if (rc)
        return rc;
    struct history *history = past->history;
    history->lsn = history->taken = lsn;
    rc = hold_begin(history, chain, why, why_room);
    if (rc)
        goto failed;
    /* Snapshots show what is committed: that has to include the record. */
    struct position position;
    store_position(store, &position);
    if (position.committed < lsn && store_checkpoint(store) != 0)
        history_fail(history, -EIO, "the store cannot be read");
    while ((rc = history->error) == 0 && (rc = take_some(history)) == 1) {
        if (progress && progress(context, history->taken - lsn, history->newest - lsn)) {
            rc = -ECANCELED;
            snprintf(why, why_room, "given up");
            goto failed;
        }
    }
    history_leave(past);
    if (rc == 0)
        rc = find_position(past);
    if (rc == 0) {
        *out = past;
        return 0;
    }
    history_error(past, why, why_room);
failed:
    history_close(past);
    return rc;
}

void history_keep(struct store *past) {
    struct history *history = past->history;
    store_lock(history->base);
    history->hold.firm = true;
    store_unlock(history->base);
}

void history_close(struct store *past) {
    if (!past)
        return;
    struct history *history = past->history;
    history_leave(past);
    store_release_history(history->base, &history->hold);
    undone_tail_free(history->tail);
    if (history->txn)
        mdb_txn_abort(history->txn);
    if (history->env)
        mdb_env_close(history->env);
    pthread_mutex_destroy(&past->lock);
    free(past->change.undo);
    free(past->change.dropped);
    free(history);
    free(past);
}

void history_position(const struct store *past, struct position *position) {
    *position = (struct position){
        .lsn = past->position.lsn, .epoch = past->position.epoch, .time = past->position.time};
    memcpy(position->chain, past->position.chain, CHAIN_SIZE);
}

/* ---- times ---- */

/* The time of the record, 0 of number 0. The oldest state of the journal has its time in the row of the record after.
 */
static int time_at(struct store *store, uint64_t lsn, int64_t *time) {
    struct position position;
    struct record_head head;
    struct journal_head row;
    struct entry *entry;
    struct span value;
    struct key key = key_u64(lsn + 1);
    int rc = store_read(store, lsn, &entry);
    if (rc == 0) {
        memcpy(&head, entry->bytes, sizeof head);
        entry_put(entry);
        *time = head.time;
        return 0;
    }
    store_lock(store);
    store_position_locked(store, &position);
    rc = lsn == position.lsn ? 0 : table_get(store, TABLE_JOURNAL, &key, &value);
    *time = position.time;
    if (rc == 0 && lsn != position.lsn) {
        rc = value.length < sizeof row ? -EIO : 0;
        if (rc == 0) {
            memcpy(&row, value.data, sizeof row);
            *time = row.previous_time;
        }
    }
    store_unlock(store);
    return rc;
}

int history_find(struct store *store, int64_t time, uint64_t *lsn, char *why, size_t why_room) {
    struct position position;
    char text[64];
    int64_t seen = 0;

    store_position(store, &position);
    uint64_t low = position.first - 1, high = position.lsn; /* the wanted one is among these */
    int rc = time_at(store, low, &seen);
    if (rc == 0 && seen > time)
        rc = -ENOENT;
    if (rc == 0 && low == 0 && high > 0) { /* before the first record there is nothing to be found */
        rc = time_at(store, 1, &seen);
        if (rc == 0 && seen > time)
            rc = -ENOENT;
        low = 1;
    }
    if (rc == -ENOENT) {
        time_text(file_time_of(seen), text, sizeof text);
        snprintf(why, why_room,
                 "the history reaches back to %s (record %" PRIu64
                 "); [journal] in the config file says how much is kept",
                 text, low);
        return rc;
    }
    while (rc == 0 && low < high) {
        uint64_t middle = high - (high - low) / 2;
        rc = time_at(store, middle, &seen);
        if (seen <= time)
            low = middle;
        else
            high = middle - 1;
    }
    if (rc) /* -ENOENT: trimmed since its position was looked at */
        snprintf(why, why_room, "the journal cannot be read: %s",
                 rc == -ENOENT ? "it was trimmed just now" : strerror(-rc));
    *lsn = low;
    return rc;
}
