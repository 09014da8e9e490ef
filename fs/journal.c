/* The journal table: rows of records with their local part, trimming, and the blocks that trimming sets free. */
#include "fs/store_internal.h"

#include <fcntl.h>

#define PUNCH_ROWS 4096u              /* at most in one pass… */
#define PUNCH_ROWS_SEEN (4 * PUNCH_ROWS) /* …found among so many, with those that are too young */

static struct key journal_key(uint64_t lsn) {
    return key_u64(lsn);
}

int journal_put(struct store *store, const struct entry *entry, const struct change *change,
                const struct position_row *previous) {
    struct journal_head head = {.record_length = entry->length,
                                .undo_length = (uint32_t)change->undo_length,
                                .place_count = entry->place_count,
                                .dropped_count = change->dropped_count,
                                .previous_epoch = previous->epoch,
                                .previous_time = previous->time};
    memcpy(head.previous_chain, previous->chain, CHAIN_SIZE);
    size_t places = entry->place_count * sizeof(struct place), dropped = change->dropped_count * sizeof(struct place);
    size_t length = sizeof head + entry->length + change->undo_length + places + dropped;
    uint8_t small[4096];
    uint8_t *row = length <= sizeof small ? small : malloc(length);
    if (!row)
        return -ENOMEM;
    uint8_t *at = row;
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    memcpy(at, entry->bytes, entry->length);
    at += entry->length;
    if (change->undo_length)
        memcpy(at, change->undo, change->undo_length);
    at += change->undo_length;
    memcpy(at, entry->places, places);
    at += places;
    if (dropped)
        memcpy(at, change->dropped, dropped);
    struct key key = journal_key(entry->lsn);
    int rc = table_put_raw(store, TABLE_JOURNAL, &key, row, length);
    if (row != small)
        free(row);
    return rc;
}

int journal_row_parse(struct span value, struct journal_row *row) {
    struct journal_head head;
    struct record_head record;
    if (value.length < sizeof head)
        return -EBADMSG;
    memcpy(&head, value.data, sizeof head);
    uint64_t need = (uint64_t)sizeof head + head.record_length + head.undo_length +
                    ((uint64_t)head.place_count + head.dropped_count) * sizeof(struct place);
    if (need != value.length || head.place_count > STORE_PLACES_MAX || head.record_length < sizeof record ||
        head.record_length > RECORD_LENGTH_MAX)
        return -EBADMSG;
    const uint8_t *at = value.data + sizeof head;
    memcpy(&record, at, sizeof record);
    if (record.length != head.record_length || record.payload > RECORD_PAYLOAD_MAX)
        return -EBADMSG;
    row->record = (struct span){at, head.record_length};
    at += head.record_length;
    row->undo = (struct span){at, head.undo_length};
    at += head.undo_length;
    row->places = (const struct place *)at;
    row->place_count = head.place_count;
    at += head.place_count * sizeof(struct place);
    row->dropped = (const struct place *)at;
    row->dropped_count = head.dropped_count;
    return 0;
}

int dead_add(struct store *store, struct place place) {
    struct key key = {.length = 8};
    be32_put(key.bytes, place.segment);
    be32_put(key.bytes + 4, place.position);
    struct dead_row row = {place.count, mdb_txn_id(store->txn)};
    return table_put_raw(store, TABLE_DEAD, &key, &row, sizeof row);
}

uint64_t journal_horizon(struct store *store) {
    uint64_t horizon = MIN(store->hold, MIN(store->committed, atomic_load(&store->durable)));
    uint64_t bytes = store->position.journal_bytes + store->position.kept_blocks * BATON_BLOCK;
    uint64_t limit = store->options.limit_bytes;
    bool within = bytes <= limit;
    if (!space_low(store)) {
        if (within)
            horizon = MIN(horizon, store->hold_absent);
        for (const struct history_hold *hold = store->history_holds; hold; hold = hold->next)
            if (within || (hold->firm && bytes - limit <= limit / 4))
                horizon = MIN(horizon, hold->lsn);
    }
    if (store->undoing)
        horizon = MIN(horizon, store->undo_target);
    return MIN(horizon, store->position.lsn);
}

/* Does the window still want the record at the journal's beginning? */
static bool window_keeps(struct store *store, const struct record_head *oldest) {
    const struct store_options *options = &store->options;
    if (options->no_history || space_low(store))
        return false;
    uint64_t bytes = store->position.journal_bytes + store->position.kept_blocks * BATON_BLOCK;
    if (bytes > options->history_bytes)
        return false;
    return options->history_seconds == 0 ||
           clock_now() - oldest->time < (int64_t)options->history_seconds * 1000000000;
}

int journal_trim_some(struct store *store, uint64_t horizon, unsigned limit) {
    unsigned trimmed = 0;
    while (trimmed < limit && store->position.first <= horizon) {
        struct key key = journal_key(store->position.first);
        struct span value;
        struct journal_row row;
        struct record_head head;
        int rc = table_get(store, TABLE_JOURNAL, &key, &value);
        if (rc == 0)
            rc = journal_row_parse(value, &row);
        if (rc)
            return rc == -ENOENT ? -EIO : rc;
        memcpy(&head, row.record.data, sizeof head);
        if (window_keeps(store, &head))
            break;
        AUTO_FREE struct place *dropped = malloc((row.dropped_count + 1) * sizeof *dropped);
        if (!dropped)
            return -ENOMEM;
        uint32_t count = row.dropped_count, length = value.length;
        memcpy(dropped, row.dropped, count * sizeof *dropped);
        for (uint32_t i = 0; rc == 0 && i < count; i++)
            rc = dead_add(store, dropped[i]);
        if (rc == 0)
            rc = table_remove_raw(store, TABLE_JOURNAL, &key);
        if (rc)
            return rc;
        for (uint32_t i = 0; i < count; i++)
            store->position.kept_blocks -= MIN(dropped[i].count, store->position.kept_blocks);
        store->position.journal_bytes -= MIN(length, store->position.journal_bytes);
        store->position.first++;
        trimmed++;
    }
    return (int)trimmed;
}

/* ---- punching ----
 *
 * What is dead goes when both checkpoints have it: if the newest one's slot rots, an open goes back to the one before, whose
 * state still names what died between the two. */

struct dead_range {
    struct place place;
    uint32_t rows; /* that it was made of, consecutive in the table */
};

/* Rows that both checkpoints hold and no snapshot can see, neighbours joined. */
static int dead_collect(struct store *store, struct dead_range **ranges, unsigned *count) {
    uint64_t limit = store->previous_txnid;
    for (struct snapshot *s = store->snapshots; s; s = s->next)
        limit = MIN(limit, s->txnid);
    struct cursor cursor;
    struct key start = {.length = 0};
    unsigned n = 0, rows = 0, seen = 0;
    struct dead_range *list = malloc(PUNCH_ROWS * sizeof *list);
    if (!list)
        return -ENOMEM;
    int rc = cursor_open(&cursor, store, NULL, TABLE_DEAD);
    if (rc) {
        free(list);
        return rc;
    }
    for (rc = cursor_seek(&cursor, &start); rc == 0 && rows < PUNCH_ROWS && seen < PUNCH_ROWS_SEEN;
         rc = cursor_next(&cursor), seen++) {
        struct dead_row row;
        if (cursor.key.length != 8 || cursor.value.length != sizeof row) {
            rc = -EIO;
            break;
        }
        memcpy(&row, cursor.value.data, sizeof row);
        store->dead_waits = store->dead_waits || row.txnid > store->previous_txnid;
        if (row.txnid > limit)
            continue;
        rows++;
        struct place place = {be32_get(cursor.key.data), be32_get(cursor.key.data + 4), row.count};
        struct dead_range *last = n ? &list[n - 1] : NULL;
        if (last && last->place.segment == place.segment &&
            last->place.position + last->place.count == place.position) {
            last->place.count += place.count;
            last->rows++;
        } else
            list[n++] = (struct dead_range){place, 1};
    }
    cursor_close(&cursor);
    if (rc && rc != -ENOENT) {
        free(list);
        return rc;
    }
    *ranges = list;
    *count = n;
    return 0;
}

static int range_punch(struct store *store, struct place place) {
    int fd = segment_fd_get(&store->segments, place.segment, false);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return fd;
    int rc = 0;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)place.position * BATON_BLOCK,
                  (off_t)place.count * BATON_BLOCK) < 0 &&
        errno != EOPNOTSUPP)
        rc = errno == ENOSPC || errno == EINTR ? -EAGAIN : -errno; /* tried again in the next pass */
    segment_fd_put(&store->segments, fd);
    return rc;
}

/* The rows of a punched range go; a segment without live blocks goes whole, its file when no checkpoint knows it any more
 * (segments_trim_files unlinks what a crash leaves). */
static int range_forget(struct store *store, const struct dead_range *range) {
    struct key key = {.length = 8};
    uint32_t position = range->place.position;
    be32_put(key.bytes, range->place.segment);
    for (uint32_t i = 0; i < range->rows; i++) {
        struct span value;
        struct dead_row row;
        be32_put(key.bytes + 4, position);
        int rc = table_get(store, TABLE_DEAD, &key, &value);
        if (rc || value.length != sizeof row)
            return rc && rc != -ENOENT ? rc : -EIO;
        memcpy(&row, value.data, sizeof row);
        position += row.count;
        rc = table_remove_raw(store, TABLE_DEAD, &key);
        if (rc)
            return rc;
    }
    return segment_freed(store, range->place);
}

static int segments_unlink_empty(struct store *store) {
    struct segments *segments = &store->segments;
    for (uint32_t i = 0; i < segments->count;) {
        struct segment *segment = &segments->list[i];
        if (segment->live > 0 || segment->number == segments->current) {
            i++;
            continue;
        }
        struct key key = {.length = 4};
        uint32_t number = segment->number;
        be32_put(key.bytes, number);
        int rc = table_remove_raw(store, TABLE_SEGMENT, &key);
        if (rc && rc != -ENOENT)
            return rc;
        /* Emptied by punching: the file has no blocks on disk any more. An open that finds the segment's row misses the
         * file: so its name stays until neither checkpoint has the row. */
        segment_remove(store, number);
        struct key doomed = {.length = 4 + 6};
        memcpy(doomed.bytes, "unlink", 6);
        be32_put(doomed.bytes + 6, number);
        uint64_t txnid = mdb_txn_id(store->txn);
        rc = table_put_raw(store, TABLE_META, &doomed, &txnid, sizeof txnid);
        if (rc)
            return rc;
    }
    return 0;
}

/* Files of segments whose rows are gone in both checkpoints. Lock held. */
static int files_unlink(struct store *store) {
    struct key start = {.length = 6};
    memcpy(start.bytes, "unlink", 6);
    for (;;) {
        struct cursor cursor;
        uint32_t number = 0;
        uint64_t txnid = 0;
        int rc = cursor_open(&cursor, store, NULL, TABLE_META);
        if (rc)
            return rc;
        rc = cursor_seek(&cursor, &start);
        bool ours = rc == 0 && cursor.key.length == 10 && memcmp(cursor.key.data, "unlink", 6) == 0 &&
                    cursor.value.length == sizeof txnid;
        if (ours) {
            number = be32_get(cursor.key.data + 6);
            memcpy(&txnid, cursor.value.data, sizeof txnid);
        }
        cursor_close(&cursor);
        if (rc && rc != -ENOENT)
            return rc;
        if (!ours)
            return 0;
        if (txnid > store->previous_txnid) {
            store->dead_waits = true;
            return 0;
        }
        rc = segment_unlink(&store->segments, number);
        if (rc)
            return rc;
        struct key doomed = {.length = 10};
        memcpy(doomed.bytes, "unlink", 6);
        be32_put(doomed.bytes + 6, number);
        rc = table_remove_raw(store, TABLE_META, &doomed);
        if (rc)
            return rc;
    }
}

int dead_punch(struct store *store) {
    struct dead_range *ranges = NULL;
    unsigned count = 0;
    store_lock(store);
    store->dead_waits = false;
    int rc = store->txn_broken ? -EAGAIN : dead_collect(store, &ranges, &count); /* broken: the committer mends first */
    store_unlock(store);
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        rc = range_punch(store, ranges[i].place);
        if (rc)
            break;
        store_lock(store);
        rc = store->txn_broken ? -EAGAIN : range_forget(store, &ranges[i]);
        if (store->txn_broken)
            rc = -EAGAIN;
        store_unlock(store);
    }
    free(ranges);
    if (rc)
        return rc == -EAGAIN ? 0 : rc;
    store_lock(store);
    rc = store->txn_broken ? -EAGAIN : segments_unlink_empty(store);
    if (rc == 0)
        rc = files_unlink(store);
    if (store->txn_broken)
        rc = -EAGAIN;
    store_unlock(store);
    return rc == -EAGAIN ? 0 : (rc ? rc : (int)count);
}
