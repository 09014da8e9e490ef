/* The end of an import: what is not used of shared segments is dead, the position, all of it on disk. */
#include "fs/import_internal.h"

#include "fs/generation.h"

#include <inttypes.h>

#define DEAD_STEP 1024u /* rows under one hold of the lock */
#define SCAN_STEP 4096u

struct used {
    uint32_t segment;
    uint8_t *blocks; /* a bit each */
};

struct scan {
    struct used *list; /* by segment */
    uint32_t count;
    uint64_t wanted; /* blocks that the map says are to come */
    struct key at;
};

static struct used *used_find(const struct scan *scan, uint32_t segment) {
    uint32_t low = 0, high = scan->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (scan->list[middle].segment < segment)
            low = middle + 1;
        else
            high = middle;
    }
    return low < scan->count && scan->list[low].segment == segment ? &scan->list[low] : NULL;
}

/* Marks what a step's worth of extents uses of the adopted segments, and counts what is wanted. 1: there is more. Lock held. */
static int scan_some(struct import *import, struct scan *scan) {
    struct cursor cursor;
    uint32_t steps = 0;
    int rc = cursor_open(&cursor, import->store, NULL, TABLE_EXTENT);
    if (rc)
        return rc;
    for (rc = cursor_seek(&cursor, &scan->at); rc == 0 && steps < SCAN_STEP; rc = cursor_next(&cursor), steps++) {
        struct extent extent;
        rc = extent_parse(cursor.key, cursor.value, &extent);
        if (rc)
            break;
        struct used *used = extent.checksums ? used_find(scan, extent.place.segment) : NULL;
        for (uint32_t i = 0; used && i < extent.place.count; i++)
            used->blocks[(extent.place.position + i) / 8] |= (uint8_t)(1u << (extent.place.position + i) % 8);
        if (extent.checksums && extent.place.segment == IMPORT_WANTED)
            scan->wanted += extent.place.count;
        scan->at.length = (uint16_t)cursor.key.length;
        memcpy(scan->at.bytes, cursor.key.data, cursor.key.length);
        /* behind this key, at the next step */
        scan->at.bytes[scan->at.length++] = 0;
    }
    cursor_close(&cursor);
    return rc == -ENOENT ? 0 : rc ? rc : 1;
}

/* Waits for room. -EAGAIN: a commit was refused meanwhile, and what was seen before is not there any more. */
static int admit_same(struct store *store, uint64_t mends) {
    int rc = admit_space(store, SPACE_FREE);
    return rc ? rc : store->mends == mends ? 0 : -EAGAIN;
}

/* -ENOENT: nothing of the segment is dead. */
static int first_dead(struct store *store, uint32_t segment, struct key *key) {
    struct cursor cursor;
    *key = (struct key){.length = 8};
    be32_put(key->bytes, segment);
    int rc = cursor_open(&cursor, store, NULL, TABLE_DEAD);
    if (rc)
        return rc;
    rc = cursor_seek(&cursor, key);
    if (rc == 0 && (cursor.key.length != 8 || be32_get(cursor.key.data) != segment))
        rc = -ENOENT;
    if (rc == 0)
        memcpy(key->bytes, cursor.key.data, 8);
    cursor_close(&cursor);
    return rc;
}

/* What was dead of a segment that was taken over when another state was nearly complete (import_again) may be in use now. */
static int forget_dead(struct store *store, uint32_t segment, uint64_t mends) {
    struct key key;
    uint32_t rows = 0;
    int rc;
    while ((rc = first_dead(store, segment, &key)) == 0) {
        rc = table_remove_raw(store, TABLE_DEAD, &key);
        if (rc == 0 && ++rows % DEAD_STEP == 0) {
            import_commit_soon(store);
            rc = admit_same(store, mends);
        }
        if (rc)
            return rc;
    }
    return rc == -ENOENT ? 0 : rc;
}

/* What the new store does not use of a segment that it took over is dead: it is punched when the store serves. */
static int declare_dead(struct import *import, const struct used *used, uint64_t mends) {
    struct store *store = import->store;
    const struct segment *segment = segment_find(&store->segments, used->segment);
    uint32_t blocks = segment ? segment->head : 0, rows = 0;
    int rc = segment ? forget_dead(store, used->segment, mends) : -EIO;
    for (uint32_t at = 0; rc == 0 && at < blocks;) {
        uint32_t end = at;
        bool in_use = used->blocks[at / 8] >> (at % 8) & 1;
        while (end < blocks && (bool)(used->blocks[end / 8] >> (end % 8) & 1) == in_use)
            end++;
        if (!in_use) {
            rc = dead_add(store, (struct place){used->segment, at, end - at});
            if (rc == 0 && ++rows % DEAD_STEP == 0) {
                import_commit_soon(store);
                rc = admit_same(store, mends);
            }
        }
        at = end;
    }
    import_commit_soon(store);
    return rc;
}

/* The row's count is kept up to date by many hands: a block that is missing must not depend on it. -EBUSY: blocks are wanted. */
static int check_wanted(struct import *import, const struct scan *scan, uint64_t mends) {
    struct store *store = import->store;
    store_lock(store);
    int rc = store->mends == mends ? import_row_load(import) : -EAGAIN; /* not all that was counted is there any more */
    uint64_t noted = import->row.progress.wanted;
    if (rc == 0 && noted != scan->wanted) {
        log_error("the new store %s: %" PRIu64 " blocks are wanted, not %" PRIu64, store->base, scan->wanted, noted);
        import->row.progress.wanted = scan->wanted;
        rc = import_row_save(import);
    }
    if (store->txn_broken)
        rc = -ENOSPC;
    store_unlock(store);
    return rc ? rc : scan->wanted ? -EBUSY : 0;
}

static int free_unused(struct import *import, uint64_t mends) {
    struct store *store = import->store;
    struct scan scan = {0};
    store_lock(store);
    int rc = import_segments_load(import);
    store_unlock(store);
    const struct adopted *list = import->segments.list;
    uint32_t count = import->segments.count;
    scan.list = rc ? NULL : calloc(count + 1, sizeof *scan.list);
    rc = rc ? rc : scan.list ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        scan.list[i] = (struct used){list[i].to, calloc(1, store->segments.blocks / 8 + 1)};
        rc = scan.list[i].blocks ? 0 : -ENOMEM;
        scan.count++;
    }
    for (int more = 1; rc == 0 && more > 0;) {
        store_lock(store);
        more = scan_some(import, &scan);
        store_unlock(store);
        rc = more < 0 ? more : 0;
    }
    rc = rc ? rc : check_wanted(import, &scan, mends);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        store_lock(store);
        rc = admit_same(store, mends);
        if (rc == 0)
            rc = declare_dead(import, &scan.list[i], mends);
        if (store->txn_broken)
            rc = -ENOSPC;
        store_unlock(store);
    }
    for (uint32_t i = 0; i < scan.count; i++)
        free(scan.list[i].blocks);
    free(scan.list);
    return rc;
}

static uint64_t hold_of(struct store *store) {
    uint64_t hold = 0;
    size_t length = 0;
    store_lock(store);
    if (store_meta_get(store, "hold", &hold, sizeof hold, &length) != 0 || length != sizeof hold)
        hold = 0;
    store_unlock(store);
    return hold;
}

static int take_position(struct import *import, uint64_t hold) {
    struct store *store = import->store;
    struct import_state state = import->row.state;
    struct key row = import_meta_key("import"), segments = import_meta_key("import.segments");
    int rc = table_remove_raw(store, TABLE_META, &row);
    if (rc == 0)
        rc = table_remove_raw(store, TABLE_META, &segments);
    if (rc && rc != -ENOENT)
        return rc;
    store->position = (struct position_row){.lsn = state.lsn,
                                            .epoch = state.epoch,
                                            .time = state.time,
                                            .first = state.lsn + 1,
                                            .live_blocks = import->row.live,
                                            .inodes = import->row.inodes};
    memcpy(store->position.chain, state.chain, CHAIN_SIZE);
    store->recent_first = state.lsn + 1;
    mark_set(&store->mark, state.lsn);
    /* What every node had once is not forgotten with the old store. */
    return hold ? store_meta_put(store, "hold", &hold, sizeof hold) : 0;
}

int import_finish(struct import *import) {
    struct store *store = import->store;
    if (!import_is_beside(import))
        return -ESTALE;
    if (import->complete)
        return generation_complete(import->old->path, import->generation);
    uint64_t hold = hold_of(import->old);
    store_lock(store);
    uint64_t mends = store->mends;
    int rc = import_row_load(import);
    if (rc == 0 && (!import->begun || import->row.step != TABLE_SHARED_END))
        rc = -EBUSY;
    store_unlock(store);
    if (rc == 0)
        rc = free_unused(import, mends);
    if (rc == 0)
        rc = import_free_kept(import);
    /* All of it first: what is committed with the position is small then. */
    if (rc == 0)
        rc = store_checkpoint(store);
    if (rc)
        return rc;
    store_lock(store);
    rc = store->mends == mends ? import_row_load(import) : -EAGAIN; /* a refused commit has taken something back */
    if (rc == 0 && (!import->begun || import->row.step != TABLE_SHARED_END || import->row.progress.wanted != 0))
        rc = -EAGAIN;
    if (rc == 0)
        rc = take_position(import, hold);
    if (store->txn_broken)
        rc = -ENOSPC;
    store_unlock(store);
    if (rc == 0)
        rc = store_checkpoint(store);
    store_lock(store);
    int loaded = import_row_load(import);
    store_unlock(store);
    rc = rc ? rc : loaded;
    if (rc == 0 && !import->complete)
        rc = -EAGAIN;
    if (rc == 0 && !import_is_beside(import))
        rc = -ESTALE;
    return rc ? rc : generation_complete(import->old->path, import->generation);
}
