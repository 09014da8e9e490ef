#include "fs/import_internal.h"

#include "fs/row.h"

int import_next_rows(const struct import *import, enum table *table, struct key *after) {
    if (!import->begun || import->row.step == TABLE_SHARED_END)
        return -ENOENT;
    *table = import_order[import->row.step];
    after->length = import->row.key_length;
    memcpy(after->bytes, import->row.key, after->length);
    return 0;
}

/* A part of an extent that goes into one row. */
struct part {
    uint64_t data, first;
    struct place place; /* IMPORT_WANTED: `there` says where it is */
    struct place there;
    const uint8_t *checksums;
};

static int part_put(struct import *import, const struct part *part) {
    struct {
        struct extent_row row;
        uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    } __attribute__((packed)) value;
    uint32_t count = part->place.count;
    PROMISE(count > 0 && count <= EXTENT_BLOCKS_MAX);
    value.row = (struct extent_row){part->place.segment, part->place.position, count};
    memcpy(value.checksums, part->checksums, count * 8);
    struct key key = key_u64_u64(part->data, part->first);
    int rc = table_put_raw(import->store, TABLE_EXTENT, &key, &value, sizeof value.row + count * 8);
    if (rc == 0 && part->place.segment == IMPORT_WANTED) {
        key = import_want_key(part->data, part->first);
        rc = table_put_raw(import->store, TABLE_META, &key, &part->there, sizeof part->there);
        import->row.progress.wanted += count;
    } else {
        import->row.progress.reused += count;
    }
    return rc;
}

/* How many blocks of [first, …) of the extent the old store has in one place with the same checksums, and where; if none,
 * how many it has not. */
static uint32_t match(struct cursor *old, const struct extent *extent, uint32_t skip, struct place *place) {
    uint64_t at = extent->first + skip;
    uint32_t left = extent->place.count - skip;
    struct extent here;
    struct key key = key_u64_u64(extent->data, at + 1);
    *place = (struct place){.segment = IMPORT_WANTED, .count = left};
    int rc = old->mdb ? cursor_seek_before(old, &key) : -ENOENT;
    if (rc == 0 && extent_parse(old->key, old->value, &here) == 0 && here.data == extent->data && here.checksums &&
        here.first + here.place.count > at) {
        uint32_t from = (uint32_t)(at - here.first), most = MIN(here.place.count - from, left), same = 0;
        const uint8_t *theirs = extent->checksums + skip * 8ull, *ours = here.checksums + from * 8ull;
        while (same < most && memcmp(theirs + same * 8ull, ours + same * 8ull, 8) == 0)
            same++;
        if (same > 0) {
            *place = (struct place){here.place.segment, here.place.position + from, same};
            return same;
        }
        uint32_t other = 1;
        while (other < most && memcmp(theirs + other * 8ull, ours + other * 8ull, 8) != 0)
            other++;
        place->count = other;
        return other;
    }
    /* Nothing here: up to where the old store's next row begins. */
    rc = old->mdb ? cursor_seek(old, &key) : -ENOENT;
    if (rc == 0 && extent_parse(old->key, old->value, &here) == 0 && here.data == extent->data &&
        here.first < at + left)
        place->count = (uint32_t)(here.first - at);
    return place->count;
}

static int extent_import(struct import *import, struct cursor *old, struct span key, struct span value) {
    struct extent extent;
    if (extent_parse(key, value, &extent) != 0)
        return -EBADMSG;
    if (!extent.checksums) { /* unwritten */
        struct key at = key_u64_u64(extent.data, extent.first);
        return table_put_raw(import->store, TABLE_EXTENT, &at, value.data, value.length);
    }
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8]; /* `value` may be a network message's: aligned to nothing, but whole */
    memcpy(checksums, extent.checksums, extent.place.count * 8ull);
    extent.checksums = checksums;
    import->row.live += extent.place.count;
    for (uint32_t done = 0; done < extent.place.count;) {
        struct part part = {.data = extent.data, .first = extent.first + done, .checksums = checksums + done * 8ull};
        uint32_t count = match(old, &extent, done, &part.place);
        if (part.place.segment != IMPORT_WANTED) {
            uint32_t to;
            int rc = import_adopt(import, part.place.segment, &to);
            if (rc == -EXDEV || rc == -EPERM || rc == -EMLINK || rc == -ENOENT)
                part.place.segment = IMPORT_WANTED; /* no link to it: it is fetched */
            else if (rc)
                return rc;
            else
                part.place.segment = to;
        }
        if (part.place.segment == IMPORT_WANTED && import->row.kept) {
            int rc = import_kept(import, &extent, done, &count, &part.place);
            if (rc)
                return rc;
            part.place.count = count;
        }
        if (part.place.segment == IMPORT_WANTED)
            part.there = (struct place){extent.place.segment, extent.place.position + done, count};
        int rc = part_put(import, &part);
        if (rc)
            return rc;
        done += count;
    }
    return 0;
}

static int row_import(struct import *import, enum table table, struct cursor *old, struct span key, struct span value) {
    struct key at = {.length = (uint16_t)key.length};
    if (key.length == 0 || key.length > KEY_MAX || !row_is_possible(table, key, value))
        return -EBADMSG;
    struct span last = {import->row.key, import->row.key_length};
    int compared = memcmp(last.data, key.data, MIN(last.length, key.length));
    if (compared > 0 || (compared == 0 && last.length >= key.length))
        return -EBADMSG;
    memcpy(at.bytes, key.data, key.length);
    int rc = table == TABLE_EXTENT ? extent_import(import, old, key, value)
                                   : table_put_raw(import->store, table, &at, value.data, value.length);
    if (rc)
        return rc;
    import->row.inodes += table == TABLE_INODE;
    import->row.progress.rows++;
    import->row.key_length = at.length;
    memcpy(import->row.key, at.bytes, at.length);
    return 0;
}

static int old_cursor(struct import *import, enum table table, struct snapshot **snapshot, struct cursor *cursor) {
    *snapshot = NULL;
    *cursor = (struct cursor){0};
    if (!import->row.reuse || table != TABLE_EXTENT)
        return 0;
    int rc = store_snapshot(import->old, snapshot);
    return rc ? rc : cursor_open(cursor, import->old, *snapshot, TABLE_EXTENT);
}

/* Is that what is wanted? */
static bool follows(const struct import *import, enum table table, const struct key *after) {
    const struct import_row *row = &import->row;
    return row->step < TABLE_SHARED_END && import_order[row->step] == table && row->key_length == after->length &&
           memcmp(row->key, after->bytes, after->length) == 0;
}

int import_rows(struct import *import, enum table table, const struct key *after, int (*each)(void *context, struct span *key, struct span *value),
                void *context, bool done) {
    struct store *store = import->store;
    struct snapshot *snapshot;
    struct cursor old;
    struct span key, value;
    int rc = old_cursor(import, table, &snapshot, &old);
    store_lock(store);
    if (rc == 0)
        rc = import_admit(import);
    bool admitted = rc == 0 && import->begun, taken_back = false;
    if (rc == 0 && !import->begun)
        rc = -EBADMSG;
    else if (rc == 0 && !follows(import, table, after))
        rc = -EAGAIN;
    while (rc == 0 && (rc = each(context, &key, &value)) == 1) {
        struct import_row before = import->row;
        rc = row_import(import, table, &old, key, value);
        if (rc)
            import->row = before;
        if (rc && rc != -EBADMSG && !store->txn_broken) /* a part of it may be there, which may be cut otherwise next time */
            store->txn_broken = taken_back = true;
    }
    if (rc == 0 && done) {
        import->row.step++;
        import->row.key_length = 0;
    }
    if (admitted && !store->txn_broken) { /* what is in memory is what is in the table, and what came now */
        int saved = import_row_save(import);
        rc = rc ? rc : saved;
    }
    if (store->txn_broken && !taken_back)
        rc = -ENOSPC; /* the batch is gone: what was asked for is asked for again */
    import_commit_soon(store);
    store_unlock(store);
    if (old.mdb)
        cursor_close(&old);
    snapshot_close(snapshot);
    return rc;
}
