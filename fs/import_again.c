/* An import that begins anew with another state: the blocks that it has fetched stay, as rows of its own in table meta, under
 * their data id and number, and are looked for there when the new state's rows come. What is not needed in the end is dead.
 */
#include "fs/import_internal.h"

#define CLEAR_STEP 1024u /* rows under one hold of the lock */

static struct key kept_key(uint64_t data, uint64_t first) {
    struct key key = import_want_key(data, first);
    key.bytes[0] = 'k';
    return key;
}

static bool is_kept(const struct cursor *cursor) {
    return cursor->key.length == 17 && cursor->key.data[0] == 'k';
}

static int parse(const struct cursor *cursor, struct extent *extent) {
    return extent_parse((struct span){cursor->key.data + 1, 16}, cursor->value, extent);
}

bool import_has_kept(struct import *import) {
    struct cursor cursor;
    struct key first = kept_key(0, 0);
    if (cursor_open(&cursor, import->store, NULL, TABLE_META) != 0)
        return false;
    bool has = cursor_seek(&cursor, &first) == 0 && is_kept(&cursor);
    cursor_close(&cursor);
    return has;
}

/* ---- Clearing what has been built ---- */

static int keep(struct import *import, uint64_t data, uint64_t first, struct place place, const uint8_t *checksums) {
    struct {
        struct extent_row row;
        uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    } __attribute__((packed)) value = {.row = {place.segment, place.position, place.count}};
    struct key key = kept_key(data, first);
    struct span other;
    memcpy(value.checksums, checksums, place.count * 8ull);
    /* What is kept there from before, and was not needed since, is needed less. */
    int rc = table_get(import->store, TABLE_META, &key, &other);
    if (rc == 0 && other.length >= sizeof value.row) {
        struct extent_row row;
        memcpy(&row, other.data, sizeof row);
        rc = dead_add(import->store, (struct place){row.segment, row.position, row.count});
    }
    if (rc && rc != -ENOENT)
        return rc;
    return table_put_raw(import->store, TABLE_META, &key, &value, sizeof value.row + place.count * 8ull);
}

static bool is_adopted(const struct import *import, uint32_t segment) {
    const struct import_segments *segments = &import->segments;
    uint32_t low = 0, high = segments->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (segments->list[middle].to < segment)
            low = middle + 1;
        else
            high = middle;
    }
    return low < segments->count && segments->list[low].to == segment;
}

/* The row goes; a block that was fetched is kept, one that the old store has is found there again. */
static int clear_row(struct import *import, enum table table, const struct key *key, struct span value) {
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    struct extent extent;
    int rc = 0;
    if (table == TABLE_EXTENT) {
        rc = extent_parse((struct span){key->bytes, key->length}, value, &extent);
        if (rc == 0 && extent.checksums && extent.place.segment != IMPORT_WANTED && !is_adopted(import, extent.place.segment)) {
            memcpy(checksums, extent.checksums, extent.place.count * 8ull);
            rc = keep(import, extent.data, extent.first, extent.place, checksums);
        }
    }
    return rc ? rc : table_remove_raw(import->store, table, key);
}

/* Some rows of a table, of meta those of what is wanted. -ENOENT: there were no more. */
static int clear_some(struct import *import, enum table table) {
    struct store *store = import->store;
    struct key first = {0};
    if (table == TABLE_META)
        first = import_want_key(0, 0);
    for (unsigned i = 0; i < CLEAR_STEP; i++) {
        struct cursor cursor;
        struct key key;
        int rc = cursor_open(&cursor, store, NULL, table);
        if (rc)
            return rc;
        rc = cursor_seek(&cursor, &first);
        if (rc == 0 && table == TABLE_META && (cursor.key.length != 17 || cursor.key.data[0] != 'w'))
            rc = -ENOENT;
        if (rc == 0) {
            key.length = (uint16_t)cursor.key.length;
            memcpy(key.bytes, cursor.key.data, cursor.key.length);
        }
        cursor_close(&cursor);
        if (rc == 0)
            rc = clear_row(import, table, &key, cursor.value);
        if (rc)
            return rc;
    }
    return 0;
}

static const enum table cleared[] = {TABLE_EPOCH, TABLE_INODE,  TABLE_DIRENT, TABLE_DIRCOOKIE,
                                     TABLE_XATTR, TABLE_EXTENT, TABLE_ORPHAN, TABLE_META};

int import_clear(struct import *import) {
    struct store *store = import->store;
    struct key row = import_meta_key("import");
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < sizeof cleared / sizeof *cleared;) {
        store_lock(store);
        rc = import_admit(import);
        if (rc == 0)
            rc = import_segments_load(import);
        if (rc == 0)
            rc = clear_some(import, cleared[i]);
        if (store->txn_broken)
            rc = -ENOSPC;
        import_commit_soon(store);
        store_unlock(store);
        if (rc == -ENOENT) {
            rc = 0;
            i++;
        }
    }
    if (rc)
        return rc;
    store_lock(store);
    rc = import_admit(import);
    /* A commit that was refused meanwhile may have brought rows back: then all of it again. */
    if (rc == 0)
        rc = store->mends == import->mends ? table_remove_raw(store, TABLE_META, &row) : -EAGAIN;
    if (rc == 0)
        rc = import_row_load(import);
    if (store->txn_broken)
        rc = -ENOSPC;
    store_unlock(store);
    return rc;
}

int import_again(struct import *import) {
    struct store *store = import->store;
    store_lock(store);
    int rc = import_admit(import);
    if (rc == 0 && (import->complete || (import->begun && import->row.progress.bad > 0)))
        rc = -EBUSY;
    bool begun = rc == 0 && import->begun;
    import->mends = store->mends;
    if (begun) {
        import->row.clearing = true;
        rc = import_row_save(import);
    }
    store_unlock(store);
    return begun && rc == 0 ? import_clear(import) : rc;
}

/* ---- Using it ---- */

/* Of a kept piece the blocks [from, from + count) are used: the rest stays. */
static int take(struct import *import, const struct extent *kept, const uint8_t *checksums, uint32_t from, uint32_t count) {
    struct key key = kept_key(kept->data, kept->first);
    uint32_t behind = from + count, rest = kept->place.count - behind;
    struct place left = {kept->place.segment, kept->place.position, from};
    struct place right = {kept->place.segment, kept->place.position + behind, rest};
    int rc = table_remove_raw(import->store, TABLE_META, &key);
    if (rc == 0 && from > 0)
        rc = keep(import, kept->data, kept->first, left, checksums);
    if (rc == 0 && rest > 0)
        rc = keep(import, kept->data, kept->first + behind, right, checksums + behind * 8ull);
    return rc;
}

int import_kept(struct import *import, const struct extent *extent, uint32_t skip, uint32_t *count, struct place *place) {
    uint64_t at = extent->first + skip;
    struct key key = kept_key(extent->data, at + 1);
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    struct extent kept;
    struct cursor cursor;
    int rc = cursor_open(&cursor, import->store, NULL, TABLE_META);
    if (rc)
        return rc;
    rc = cursor_seek_before(&cursor, &key);
    bool here = rc == 0 && is_kept(&cursor) && parse(&cursor, &kept) == 0 && kept.data == extent->data &&
                kept.first + kept.place.count > at;
    if (here) {
        memcpy(checksums, kept.checksums, kept.place.count * 8ull);
    } else { /* up to where the next one begins */
        rc = cursor_seek(&cursor, &key);
        if (rc == 0 && is_kept(&cursor) && parse(&cursor, &kept) == 0 && kept.data == extent->data && kept.first < at + *count)
            *count = (uint32_t)(kept.first - at);
    }
    cursor_close(&cursor);
    if (!here)
        return rc == -ENOENT ? 0 : rc;
    uint32_t from = (uint32_t)(at - kept.first), most = MIN(kept.place.count - from, *count), same = 0;
    const uint8_t *theirs = extent->checksums + skip * 8ull;
    while (same < most && memcmp(theirs + same * 8ull, checksums + (from + same) * 8ull, 8) == 0)
        same++;
    if (same == 0) {
        *count = 1;
        return 0;
    }
    *count = same;
    *place = (struct place){kept.place.segment, kept.place.position + from, same};
    return take(import, &kept, checksums, from, same);
}

/* What was not needed. -ENOENT: there is none. */
static int free_some(struct import *import) {
    struct key first = kept_key(0, 0);
    for (unsigned i = 0; i < CLEAR_STEP; i++) {
        struct extent kept;
        struct cursor cursor;
        struct key key;
        int rc = cursor_open(&cursor, import->store, NULL, TABLE_META);
        if (rc)
            return rc;
        rc = cursor_seek(&cursor, &first);
        if (rc == 0)
            rc = is_kept(&cursor) ? parse(&cursor, &kept) : -ENOENT;
        if (rc == 0)
            key = kept_key(kept.data, kept.first);
        cursor_close(&cursor);
        if (rc == 0)
            rc = dead_add(import->store, kept.place);
        if (rc == 0)
            rc = table_remove_raw(import->store, TABLE_META, &key);
        if (rc)
            return rc;
    }
    return 0;
}

int import_free_kept(struct import *import) {
    struct store *store = import->store;
    int rc = 0;
    while (rc == 0) {
        store_lock(store);
        rc = admit_space(store, SPACE_FREE);
        if (rc == 0)
            rc = free_some(import);
        if (store->txn_broken)
            rc = -ENOSPC;
        import_commit_soon(store);
        store_unlock(store);
    }
    return rc == -ENOENT ? 0 : rc;
}
