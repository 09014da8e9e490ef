/* Appending and receiving: one record becomes LSN, rows, journal row, tail entry and an entry in memory, or nothing. */
#include "fs/apply.h"
#include "fs/store_internal.h"

/* ---- entries ---- */

struct entry *entry_make(const void *bytes, uint32_t length, const void *payload, uint32_t payload_length,
                         const struct place *places, uint32_t place_count) {
    struct record_head head;
    struct entry *entry = malloc(sizeof *entry + length + payload_length);
    if (!entry)
        return NULL;
    memcpy(&head, bytes, sizeof head);
    memset(entry, 0, sizeof *entry);
    entry->lsn = head.lsn;
    entry->references = 1;
    entry->length = length;
    entry->bytes = (uint8_t *)(entry + 1);
    memcpy(entry->bytes, bytes, length);
    if (payload) {
        if (payload_length)
            memcpy(entry->bytes + length, payload, payload_length);
        entry->payload = entry->bytes + length;
    }
    PROMISE(place_count <= STORE_PLACES_MAX);
    entry->place_count = place_count;
    if (place_count)
        memcpy(entry->places, places, place_count * sizeof *places);
    return entry;
}

struct entry *entry_get(struct entry *entry) {
    __atomic_add_fetch(&entry->references, 1, __ATOMIC_RELAXED);
    return entry;
}

void entry_put(struct entry *entry) {
    if (entry && __atomic_sub_fetch(&entry->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(entry);
}

int entry_payload(struct store *store, const struct entry *entry, void *buffer) {
    struct record_head head;
    memcpy(&head, entry->bytes, sizeof head);
    if (head.payload == 0)
        return 0;
    if (entry->payload) {
        memcpy(buffer, entry->payload, head.payload);
        return 0;
    }
    uint8_t *at = buffer;
    uint32_t left = head.payload;
    for (uint32_t i = 0; i < entry->place_count && left > 0; i++) {
        struct place place = entry->places[i];
        uint32_t whole = MIN(place.count, left / BATON_BLOCK);
        int rc = 0;
        if (whole) {
            place.count = whole;
            rc = store_read_blocks(store, place, at);
            at += whole * BATON_BLOCK;
            left -= whole * BATON_BLOCK;
        }
        if (rc == 0 && left > 0 && whole < entry->places[i].count) { /* the last block, cut off before its zeros */
            uint8_t block[BATON_BLOCK];
            place = (struct place){place.segment, entry->places[i].position + whole, 1};
            rc = store_read_blocks(store, place, block);
            memcpy(at, block, left);
            left = 0;
        }
        if (rc)
            return rc;
    }
    struct record record;
    int rc = record_decode(entry->bytes, entry->length, &record, NULL);
    if (rc)
        return rc;
    rc = record_check_payload(&record, buffer, head.payload);
    record_release(&record);
    if (rc) {
        if (!store->replaying) /* there it is data that a power cut kept from the disk */
            log_error("store %s: data of record %llu fails its checksum", store->path, (unsigned long long)entry->lsn);
        return -EBADMSG;
    }
    return 0;
}

/* ---- the ring of recent entries ---- */

static uint64_t entry_bytes(const struct entry *entry) {
    struct record_head head;
    memcpy(&head, entry->bytes, sizeof head);
    return sizeof *entry + entry->length + (entry->payload ? head.payload : 0);
}

static void recent_drop_first(struct store *store) {
    struct entry **slot = &store->recent[store->recent_first % RECENT_ENTRIES];
    if (*slot) { /* undone, if not, and there again after a refused commit */
        store->recent_bytes -= entry_bytes(*slot);
        entry_put(*slot);
        *slot = NULL;
    }
    store->recent_first++;
}

void recent_evict(struct store *store) {
    uint64_t lsn = store->position.lsn;
    while (store->recent_first <= store->committed && store->recent_first <= lsn &&
           (store->recent_bytes > RECENT_BYTES || lsn - store->recent_first >= RECENT_ENTRIES / 2))
        recent_drop_first(store);
}

void recent_add(struct store *store, struct entry *entry) {
    if (store->recent_first > entry->lsn || store->recent[store->recent_first % RECENT_ENTRIES] == NULL)
        store->recent_first = entry->lsn;
    PROMISE(entry->lsn - store->recent_first < RECENT_ENTRIES);
    struct entry **slot = &store->recent[entry->lsn % RECENT_ENTRIES];
    PROMISE(*slot == NULL);
    *slot = entry;
    store->recent_bytes += entry_bytes(entry);
    recent_evict(store);
}

struct entry *recent_get(struct store *store, uint64_t lsn) {
    struct entry *entry = store->recent[lsn % RECENT_ENTRIES];
    return entry && entry->lsn == lsn ? entry : NULL;
}

void recent_cut(struct store *store, uint64_t lsn) {
    for (uint64_t at = store->position.lsn; at > lsn && at >= store->recent_first; at--) {
        struct entry **slot = &store->recent[at % RECENT_ENTRIES];
        if (*slot && (*slot)->lsn == at) {
            store->recent_bytes -= entry_bytes(*slot);
            entry_put(*slot);
            *slot = NULL;
        }
    }
}

/* ---- one record ---- */

static uint64_t journal_row_length(const struct store *store, const struct entry *entry) {
    return sizeof(struct journal_head) + entry->length + store->change.undo_length +
           (entry->place_count + store->change.dropped_count) * sizeof(struct place);
}

static uint32_t inodes_freed(const struct record *record) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < record->step_count; i++)
        count += record->steps[i].kind == RECLAIM_INODE;
    return count;
}

static void account(struct store *store, const struct record *record, const struct entry *entry) {
    struct position_row *position = &store->position;
    struct record_head head;
    memcpy(&head, entry->bytes, sizeof head);
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < store->change.dropped_count; i++)
        dropped += store->change.dropped[i].count;
    position->lsn = head.lsn;
    position->epoch = head.epoch;
    position->time = head.time;
    memcpy(position->chain, head.chain, CHAIN_SIZE);
    uint64_t row = journal_row_length(store, entry);
    position->journal_bytes += row;
    store->journal_made += row + dropped * BATON_BLOCK;
    position->kept_blocks += dropped;
    position->live_blocks += head.blocks - MIN(dropped, position->live_blocks + head.blocks);
    if (record_new_inode(record) != 0)
        position->inodes++;
    else if (head.type == RECORD_RECLAIM)
        position->inodes -= MIN(inodes_freed(record), position->inodes);
}

int store_apply_entry(struct store *store, const struct record *record, struct entry *entry, bool again) {
    struct change *change = &store->change;
    struct position_row previous = store->position;
    change_reset(change, store);
    change->places = entry->places;
    change->place_count = entry->place_count;
    int rc = record_apply(change, record);
    if (rc == 0)
        rc = journal_put(store, entry, change, &previous);
    if (rc) {
        if (!store->txn_broken && undo_restore(store, change->undo, (uint32_t)change->undo_length) != 0)
            store->txn_broken = true;
        return rc;
    }
    for (uint32_t i = 0; i < entry->place_count; i++) {
        rc = segment_claim(store, entry->places[i]);
        if (rc)
            store_fail(store, "the places of record %llu are not its own", (unsigned long long)entry->lsn);
        segment_mark(store, entry->places[i], entry->payload == NULL);
    }
    account(store, record, entry);
    if (!again)
        store->batch_bytes += (uint32_t)entry_bytes(entry) + (uint32_t)change->undo_length;
    return 0;
}

/* Applied already: into the tail, into memory, to whoever watches. */
static void publish(struct store *store, const struct record *record, struct entry *entry) {
    struct record_head head;
    memcpy(&head, entry->bytes, sizeof head);
    uint32_t inlined = entry->payload ? head.payload : 0;
    int rc = 0;
    if (!tail_fits(&store->tail, tail_need(entry->length, inlined, entry->place_count))) {
        uint8_t chain[CHAIN_SIZE];
        if (chain_at(store, head.lsn - 1, chain) != 0)
            store_fail(store, "the chain before record %llu is not known", (unsigned long long)head.lsn);
        rc = tail_rotate(&store->tail, head.lsn - 1, chain, false);
    }
    if (rc == 0) {
        disk_begin(store, DISK_TAIL);
        rc = tail_write(&store->tail, entry, entry->payload, inlined);
        disk_end(store, DISK_TAIL);
    }
    if (rc)
        store_fail(store, "writing the tail failed: %s", strerror(-rc));
    mark_set(&store->mark, head.lsn); /* before anybody can acknowledge it */
    recent_add(store, entry);
    if (store->watch.applied)
        store->watch.applied(store->watch.context, record, entry);
    if (store->batch_rows >= BATCH_ROWS || store->batch_bytes >= BATCH_BYTES) {
        store->commit_wanted = true;
        pthread_cond_signal(&store->work);
    } else if (behind_pressed(&store->segments.behind)) {
        pthread_cond_signal(&store->work);
    }
}

static int append_entry(struct store *store, const struct record *record, struct entry *entry) {
    int rc = store_apply_entry(store, record, entry, false);
    if (rc) {
        entry_put(entry);
        if (store->txn_broken)
            store_wait_mended(store);
        return rc;
    }
    publish(store, record, entry);
    return 0;
}

int store_append(struct store *store, struct record *record, const void *payload, const struct place *places,
                 uint32_t place_count) {
    return store->epoch ? append_in_epoch(store, store->epoch, record, payload, places, place_count) : -EROFS;
}

int append_in_epoch(struct store *store, epoch_t epoch, struct record *record, const void *payload,
                    const struct place *places, uint32_t place_count) {
    if (!tail_fits(&store->tail, RECORD_LENGTH_MAX + STORE_INLINE_MAX + 4096) && !tail_can_rotate(&store->tail))
        return -ENOSPC; /* store_admit waits for room; a caller that appends many times in one hold gets here */
    record->head.lsn = store->position.lsn + 1;
    record->head.epoch = epoch;
    record->head.flags = 0;
    int length = record_encode(record, store->position.chain, store->record_buffer, RECORD_LENGTH_MAX);
    if (length < 0)
        return length;
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < place_count; i++)
        blocks += places[i].count;
    PROMISE(blocks == record->head.blocks);
    bool inlined = record->head.blocks > 0 && record->head.payload <= STORE_INLINE_MAX;
    PROMISE(!inlined || payload || record->head.payload == 0);
    static const uint8_t nothing[1];
    struct entry *entry = entry_make(store->record_buffer, (uint32_t)length,
                                     inlined ? (payload ? payload : nothing) : NULL,
                                     inlined ? record->head.payload : 0, places, place_count);
    if (!entry)
        return -ENOMEM;
    return append_entry(store, record, entry);
}

/* ---- records made elsewhere ---- */

/* The year 2200: times only grow, so one from far beyond would stop all of them. */
#define TIME_MAX (INT64_C(7258118400) * 1000000000)

static int receive_check(struct store *store, const struct record_head *head, const void *bytes, size_t length) {
    uint8_t chain[CHAIN_SIZE];
    if (store->epoch || store->undoing)
        return -EROFS;
    if (head->lsn <= store->position.lsn) {
        epoch_t epoch;
        int rc = chain_at(store, head->lsn, chain);
        if (rc == -ENOENT) /* trimmed, so every node had it; an epoch has one record of each number */
            return epoch_at(store, head->lsn, &epoch) == 0 && epoch == head->epoch ? -EEXIST : -ESTALE;
        return rc == 0 && memcmp(chain, head->chain, CHAIN_SIZE) == 0 ? -EEXIST : -ESTALE;
    }
    record_chain(store->position.chain, bytes, length, chain);
    /* A new epoch begins with its EPOCH record, or its beginning could not be found again. */
    if (head->type == RECORD_EPOCH ? head->epoch <= store->position.epoch : head->epoch != store->position.epoch)
        return -ESTALE;
    if (head->time > TIME_MAX)
        return -EBADMSG;
    if (head->lsn != store->position.lsn + 1 ||
        memcmp(chain, head->chain, CHAIN_SIZE) != 0)
        return -ESTALE;
    return 0;
}

int store_receive(struct store *store, const void *bytes, size_t length, const void *payload, size_t payload_length) {
    struct record record;
    int rc = record_decode(bytes, length, &record, NULL);
    if (rc)
        return rc;
    struct place places[STORE_PLACES_MAX];
    uint32_t place_count = 0;
    rc = payload_length == record.head.payload ? record_check_payload(&record, payload, payload_length) : -EBADMSG;
    store_lock(store);
    /* What the primary could do with its disk this node has to follow: all records may use the reserve. */
    if (rc == 0)
        rc = admit_space(store, SPACE_FREE);
    if (rc == 0)
        rc = receive_check(store, &record.head, bytes, length);
    if (rc == 0 && record.head.blocks > 0)
        rc = store_allocate(store, record.head.blocks, places, &place_count);
    if (rc == 0 && record.head.blocks > 0) {
        bool big = payload_length > STORE_INLINE_MAX;
        if (big)
            store_unlock(store);
        rc = store_write_blocks(store, places, place_count, payload, payload_length);
        if (big) {
            store_lock(store);
            if (rc == 0)
                rc = receive_check(store, &record.head, bytes, length); /* an undo may have come between */
        }
        if (rc)
            store_release(store, places, place_count);
    }
    if (rc == 0) {
        bool inlined = record.head.blocks > 0 && payload_length <= STORE_INLINE_MAX;
        struct entry *entry =
            entry_make(bytes, (uint32_t)length, inlined ? (payload ? payload : (const void *)"") : NULL,
                       inlined ? (uint32_t)payload_length : 0, places, place_count);
        rc = entry ? append_entry(store, &record, entry) : -ENOMEM;
        if (rc)
            store_release(store, places, place_count);
    }
    store_unlock(store);
    record_release(&record);
    return rc;
}

/* ---- reading history ---- */

int chain_at(struct store *store, uint64_t lsn, uint8_t chain[CHAIN_SIZE]) {
    struct record_head head;
    if (lsn == store->position.lsn) {
        memcpy(chain, store->position.chain, CHAIN_SIZE);
        return 0;
    }
    if (lsn > store->position.lsn)
        return -ENOENT;
    struct entry *entry = recent_get(store, lsn);
    if (entry) {
        memcpy(&head, entry->bytes, sizeof head);
        memcpy(chain, head.chain, CHAIN_SIZE);
        return 0;
    }
    struct key key = key_u64(lsn + 1); /* each row also has the position before it */
    struct span value;
    struct journal_head row;
    int rc = table_get(store, TABLE_JOURNAL, &key, &value);
    if (rc == 0 && value.length >= sizeof row) {
        memcpy(&row, value.data, sizeof row);
        memcpy(chain, row.previous_chain, CHAIN_SIZE);
        return 0;
    }
    if (rc != -ENOENT)
        return rc ? rc : -EIO;
    struct cursor cursor;
    struct key start = {.length = 0};
    rc = cursor_open(&cursor, store, NULL, TABLE_EPOCH);
    if (rc)
        return rc;
    for (rc = cursor_seek(&cursor, &start); rc == 0; rc = cursor_next(&cursor)) {
        struct epoch_row epoch;
        if (cursor.value.length != sizeof epoch)
            continue;
        memcpy(&epoch, cursor.value.data, sizeof epoch);
        if (epoch.first == lsn + 1) {
            memcpy(chain, epoch.chain, CHAIN_SIZE);
            break;
        }
    }
    cursor_close(&cursor);
    return rc;
}

int store_chain_at(struct store *store, uint64_t lsn, uint8_t chain[CHAIN_SIZE]) {
    store_lock(store);
    int rc = chain_at(store, lsn, chain);
    store_unlock(store);
    return rc;
}

int store_read(struct store *store, uint64_t lsn, struct entry **out) {
    store_lock(store);
    struct entry *entry = recent_get(store, lsn);
    int rc = 0;
    if (entry && lsn <= store->position.lsn) {
        *out = entry_get(entry);
    } else {
        struct key key = key_u64(lsn);
        struct span value;
        struct journal_row row;
        rc = lsn == 0 || lsn > store->position.lsn ? -ENOENT : table_get(store, TABLE_JOURNAL, &key, &value);
        if (rc == 0)
            rc = journal_row_parse(value, &row) ? -EIO : 0;
        if (rc == 0) {
            *out = entry_make(row.record.data, row.record.length, NULL, 0, row.places, row.place_count);
            rc = *out ? 0 : -ENOMEM;
        }
    }
    store_unlock(store);
    return rc;
}
