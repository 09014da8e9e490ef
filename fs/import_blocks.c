#include "fs/import_internal.h"

int import_wanted(struct import *import, const struct import_want *after, struct import_want *wants, unsigned max,
                  unsigned *count) {
    struct cursor cursor;
    struct key key = after ? import_want_key(after->data, after->first + 1) : import_want_key(0, 0);
    *count = 0;
    store_lock(import->store);
    int rc = import_row_load(import);
    if (rc == 0)
        rc = cursor_open(&cursor, import->store, NULL, TABLE_META);
    if (rc) {
        store_unlock(import->store);
        return rc;
    }
    for (rc = cursor_seek(&cursor, &key); rc == 0 && *count < max; rc = cursor_next(&cursor)) {
        struct import_want *want = &wants[*count];
        if (cursor.key.length != 17 || cursor.key.data[0] != 'w' || cursor.value.length != sizeof want->place)
            break;
        want->data = be64_get(cursor.key.data + 1);
        want->first = be64_get(cursor.key.data + 9);
        memcpy(&want->place, cursor.value.data, sizeof want->place);
        ++*count;
    }
    cursor_close(&cursor);
    store_unlock(import->store);
    return rc == -ENOENT ? 0 : rc;
}

/* Is it wanted? Its checksums. Lock held. */
static int want_check(struct import *import, const struct import_want *want, uint8_t checksums[EXTENT_BLOCKS_MAX * 8]) {
    struct key key = import_want_key(want->data, want->first), at = key_u64_u64(want->data, want->first);
    struct extent extent;
    struct span value;
    int rc = table_get(import->store, TABLE_META, &key, &value);
    if (rc == 0 && (value.length != sizeof want->place || memcmp(value.data, &want->place, sizeof want->place) != 0))
        rc = -ENOENT; /* asked for when it was one of several pieces, or of one, which a refused commit took back */
    if (rc == 0)
        rc = table_get(import->store, TABLE_EXTENT, &at, &value);
    if (rc == 0 && extent_parse((struct span){at.bytes, at.length}, value, &extent) != 0)
        rc = -EIO;
    if (rc == 0 && (!extent.checksums || extent.place.segment != IMPORT_WANTED || extent.place.count != want->place.count))
        rc = -EIO;
    if (rc == 0)
        memcpy(checksums, extent.checksums, extent.place.count * 8ull);
    return rc;
}

static bool blocks_fit(const uint8_t *bytes, const uint8_t *checksums, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint64_t sum;
        memcpy(&sum, checksums + i * 8ull, sizeof sum);
        if (block_checksum(bytes + (size_t)i * BATON_BLOCK) != sum)
            return false;
    }
    return true;
}

/* The piece is in these places now. Lock held. */
static int want_settle(struct import *import, const struct import_want *want, const uint8_t *checksums,
                       const struct place *places, uint32_t place_count, bool bad) {
    struct key key = import_want_key(want->data, want->first);
    uint32_t done = 0;
    int rc = table_remove_raw(import->store, TABLE_META, &key);
    for (uint32_t i = 0; rc == 0 && i < place_count; i++) {
        struct {
            struct extent_row row;
            uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
        } __attribute__((packed)) value;
        uint32_t count = places[i].count;
        value.row = (struct extent_row){places[i].segment, places[i].position, count};
        memcpy(value.checksums, checksums + done * 8ull, count * 8ull);
        struct key at = key_u64_u64(want->data, want->first + done);
        rc = table_put_raw(import->store, TABLE_EXTENT, &at, &value, sizeof value.row + count * 8ull);
        done += count;
    }
    import->row.progress.wanted -= done;
    if (bad)
        import->row.progress.bad += done;
    else
        import->row.progress.fetched += done;
    return rc ? rc : import_row_save(import);
}

/* One block of a piece as a piece of its own. Lock held. */
static int put_single(struct import *import, const struct import_want *want, uint32_t at, const uint8_t *checksum) {
    struct place there = {want->place.segment, want->place.position + at, 1};
    struct key key = import_want_key(want->data, want->first + at), map = key_u64_u64(want->data, want->first + at);
    struct {
        struct extent_row row;
        uint8_t checksum[8];
    } __attribute__((packed)) value = {.row = {IMPORT_WANTED, 0, 1}};
    memcpy(value.checksum, checksum, sizeof value.checksum);
    int rc = table_put_raw(import->store, TABLE_EXTENT, &map, &value, sizeof value);
    return rc ? rc : table_put_raw(import->store, TABLE_META, &key, &there, sizeof there);
}

int import_split(struct import *import, const struct import_want *want) {
    struct store *store = import->store;
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    store_lock(store);
    int rc = import_admit(import);
    if (rc == 0)
        rc = want_check(import, want, checksums);
    for (uint32_t i = 0; rc == 0 && i < want->place.count; i++)
        rc = put_single(import, want, i, checksums + i * 8ull);
    if (store->txn_broken)
        rc = -ENOSPC;
    import_commit_soon(store);
    store_unlock(store);
    return rc;
}

int import_blocks(struct import *import, const struct import_want *want, const uint8_t *bytes) {
    struct store *store = import->store;
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    struct place places[STORE_PLACES_MAX];
    uint32_t place_count = 0;
    size_t length = bytes ? (size_t)want->place.count * BATON_BLOCK : 0;
    store_lock(store);
    int rc = import_admit(import);
    if (rc == 0)
        rc = want_check(import, want, checksums);
    if (rc == 0 && bytes && !blocks_fit(bytes, checksums, want->place.count))
        rc = -EBADMSG;
    if (rc == 0)
        rc = store_allocate(store, want->place.count, places, &place_count);
    if (rc) {
        store_unlock(store);
        return rc;
    }
    store_unlock(store);
    rc = store_write_blocks(store, places, place_count, bytes, length);
    store_lock(store);
    if (rc == 0)
        rc = import_row_load(import);
    if (rc == 0)
        rc = want_check(import, want, checksums);
    if (rc == 0)
        rc = want_settle(import, want, checksums, places, place_count, bytes == NULL);
    for (uint32_t i = 0; rc == 0 && i < place_count; i++) {
        rc = segment_claim(store, places[i]);
        segment_mark(store, places[i], true);
    }
    if (rc && !store->txn_broken)
        store_release(store, places, place_count);
    else if (store->txn_broken)
        rc = -ENOSPC;
    import_commit_soon(store);
    store_unlock(store);
    return rc;
}
