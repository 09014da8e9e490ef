#include "fs/extent.h"
#include "fs/apply.h"

int extent_parse(struct span key, struct span value, struct extent *extent) {
    struct extent_row row;

    if (key.length != 16 || value.length < sizeof row)
        goto damaged;
    memcpy(&row, value.data, sizeof row);
    bool written = row.segment != SEGMENT_NONE;
    uint32_t limit = written ? EXTENT_BLOCKS_MAX : EXTENT_UNWRITTEN_MAX;
    uint64_t sums = value.length - sizeof row;
    extent->data = be64_get(key.data);
    extent->first = be64_get(key.data + 8);
    extent->place = (struct place){row.segment, row.position, row.count};
    extent->checksums = written ? value.data + sizeof row : NULL;
    if (row.count == 0 || row.count > limit || sums != (written ? row.count * 8ull : 0))
        goto damaged;
    if (extent->first > FILE_BLOCKS_MAX || row.count > FILE_BLOCKS_MAX - extent->first)
        goto damaged;
    return 0;
damaged:
    log_error("a row of the block map has an impossible form; run baton check on this store");
    return -EIO;
}

/* Moves the cursor to the first extent of `data` that ends behind `block`. 0, -ENOENT, -EIO. */
static int find(struct cursor *cursor, uint64_t data, uint64_t block, struct extent *extent) {
    struct key key = key_u64_u64(data, block + 1);
    int error = cursor_seek_before(cursor, &key);
    if (!error)
        error = extent_parse(cursor->key, cursor->value, extent);
    if (!error && extent->data == data && extent->first + extent->place.count > block)
        return 0;
    if (error && error != -ENOENT)
        return error;
    error = cursor_seek(cursor, &key);
    if (!error)
        error = extent_parse(cursor->key, cursor->value, extent);
    return !error && extent->data != data ? -ENOENT : error;
}

static int next(struct cursor *cursor, uint64_t data, struct extent *extent) {
    int error = cursor_next(cursor);
    if (!error)
        error = extent_parse(cursor->key, cursor->value, extent);
    return !error && extent->data != data ? -ENOENT : error;
}

/* Cuts the extent to what lies in [first, to), which it overlaps. */
static void clip(struct extent *extent, uint64_t first, uint64_t to) {
    struct place *place = &extent->place;
    uint64_t end = extent->first + place->count;

    if (extent->first < first) {
        uint32_t skip = (uint32_t)(first - extent->first);
        extent->first = first;
        place->count -= skip;
        if (extent->checksums) {
            place->position += skip;
            extent->checksums += skip * 8ull;
        }
    }
    if (end > to)
        place->count = (uint32_t)(to - extent->first);
}

int extent_walk(struct store *store, uint64_t data, uint64_t first, uint64_t count,
                int (*each)(void *context, const struct extent_part *part), void *context) {
    struct cursor cursor;
    struct extent extent;
    uint64_t to = count > FILE_BLOCKS_MAX - MIN(first, FILE_BLOCKS_MAX) ? FILE_BLOCKS_MAX : first + count;
    int error = cursor_open(&cursor, store, NULL, TABLE_EXTENT);
    if (error)
        return error;
    for (error = find(&cursor, data, first, &extent); !error && extent.first < to;
         error = next(&cursor, data, &extent)) {
        clip(&extent, first, to);
        struct extent_part part = {extent.first, extent.place, extent.checksums};
        error = each(context, &part);
        if (error)
            goto out;
    }
    if (error == -ENOENT)
        error = 0;
out:
    cursor_close(&cursor);
    return error;
}

struct counting {
    uint32_t rows, limit;
};

static int count_row(void *context, const struct extent_part *part) {
    struct counting *counting = context;
    (void)part;
    return ++counting->rows >= counting->limit;
}

int extent_rows(struct store *store, uint64_t data, uint64_t first, uint64_t count, uint32_t limit, uint32_t *rows) {
    struct counting counting = {0, limit};
    *rows = 0;
    if (limit == 0)
        return 0;
    int error = extent_walk(store, data, first, count, count_row, &counting);
    *rows = counting.rows;
    return error < 0 ? error : 0;
}

static int put_row(struct change *change, const struct extent *extent) {
    struct {
        struct extent_row row;
        uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    } __attribute__((packed)) value;
    const struct place *place = &extent->place;
    size_t sums = 0;

    value.row = (struct extent_row){place->segment, place->position, place->count};
    if (extent->checksums) {
        PROMISE(place->count <= EXTENT_BLOCKS_MAX);
        sums = place->count * 8;
        memcpy(value.checksums, extent->checksums, sums);
    }
    struct key key = key_u64_u64(extent->data, extent->first);
    return table_put(change, TABLE_EXTENT, &key, &value, sizeof value.row + sums);
}

/* Takes [first, to) out of one extent, which it overlaps. The extent is a copy. */
static int cut(struct change *change, const struct extent *extent, uint64_t first, uint64_t to, uint64_t *freed) {
    uint64_t end = extent->first + extent->place.count;
    struct extent gone = *extent, left = *extent, right = *extent;
    int error = 0;

    if (extent->first < first) {
        clip(&left, 0, first);
        error = put_row(change, &left);
    } else {
        struct key key = key_u64_u64(extent->data, extent->first);
        error = table_remove(change, TABLE_EXTENT, &key);
    }
    if (!error && end > to) {
        clip(&right, to, end);
        error = put_row(change, &right);
    }
    if (error)
        return error;
    clip(&gone, first, to);
    *freed += gone.place.count;
    return gone.checksums ? change_drop(change, gone.place) : 0;
}

int extent_clear(struct change *change, uint64_t data, uint64_t first, uint64_t to, uint64_t *freed) {
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    struct cursor cursor;
    struct extent extent;

    *freed = 0;
    int error = cursor_open(&cursor, change->store, NULL, TABLE_EXTENT);
    if (error)
        return error;
    for (uint64_t at = first; !error && at < to; at = extent.first + extent.place.count) {
        error = find(&cursor, data, at, &extent);
        if (error || extent.first >= to)
            break;
        if (extent.checksums) { /* the row moves when it is changed */
            memcpy(checksums, extent.checksums, extent.place.count * 8);
            extent.checksums = checksums;
        }
        error = cut(change, &extent, first, to, freed);
    }
    cursor_close(&cursor);
    return error == -ENOENT ? 0 : error;
}

/* The extent that ends just before `first`, if this one continues it and both fit into one row: so that small appends
 * do not make a row each. Its checksums are copied to `room`. */
static int find_continued(struct change *change, const struct extent *extent, struct extent *before, uint8_t *room) {
    struct cursor cursor;
    int error = cursor_open(&cursor, change->store, NULL, TABLE_EXTENT);
    if (error)
        return error;
    struct key key = key_u64_u64(extent->data, extent->first);
    error = cursor_seek_before(&cursor, &key);
    if (!error)
        error = extent_parse(cursor.key, cursor.value, before);
    if (!error) {
        const struct place *a = &before->place, *b = &extent->place;
        bool written = extent->checksums != NULL;
        uint32_t limit = written ? EXTENT_BLOCKS_MAX : EXTENT_UNWRITTEN_MAX;
        if (before->data != extent->data || before->first + a->count != extent->first || a->segment != b->segment ||
            (written && a->position + a->count != b->position) || a->count >= limit)
            error = -ENOENT;
        else if (written)
            memcpy(room, before->checksums, a->count * 8);
    }
    cursor_close(&cursor);
    return error;
}

/* Puts an extent of any length: joined to the one before as far as that has room, the rest in rows of its own. */
static int put_extent(struct change *change, struct extent extent) {
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    const uint32_t limit = extent.checksums ? EXTENT_BLOCKS_MAX : EXTENT_UNWRITTEN_MAX;
    struct extent row;
    int error = find_continued(change, &extent, &row, checksums);

    if (error && error != -ENOENT)
        return error;
    bool joined = error == 0;
    while (extent.place.count > 0) {
        uint32_t had = joined ? row.place.count : 0;
        uint32_t take = MIN(extent.place.count, limit - had);
        if (joined && extent.checksums) {
            memcpy(checksums + had * 8, extent.checksums, take * 8);
            row.checksums = checksums;
        }
        if (!joined)
            row = extent;
        row.place.count = had + take;
        joined = false;
        error = put_row(change, &row);
        if (error)
            return error;
        uint64_t end = extent.first + extent.place.count;
        if (take == extent.place.count)
            return 0;
        clip(&extent, extent.first + take, end);
    }
    return 0;
}

int extent_put(struct change *change, uint64_t data, uint64_t first, const struct place *places, uint32_t place_count,
               const uint8_t *checksums) {
    for (uint32_t i = 0; i < place_count; i++) {
        struct extent extent = {data, first, places[i], checksums};
        int error = put_extent(change, extent);
        if (error)
            return error;
        first += places[i].count;
        checksums += places[i].count * 8ull;
    }
    return 0;
}

int extent_fill(struct change *change, uint64_t data, uint64_t first, uint64_t to, uint64_t *added) {
    struct cursor cursor;
    *added = 0;
    int error = cursor_open(&cursor, change->store, NULL, TABLE_EXTENT);
    if (error)
        return error;
    while (!error && first < to) {
        struct extent extent;
        error = find(&cursor, data, first, &extent);
        if (error && error != -ENOENT)
            break;
        uint64_t hole_end = error ? to : MIN(to, MAX(extent.first, first));
        uint64_t resume = error ? to : extent.first + extent.place.count;
        error = 0;
        while (!error && first < hole_end) {
            uint32_t count = (uint32_t)MIN(hole_end - first, EXTENT_UNWRITTEN_MAX);
            error = put_extent(change, (struct extent){data, first, {SEGMENT_NONE, 0, count}, NULL});
            *added += count;
            first += count;
        }
        first = MAX(first, resume);
    }
    cursor_close(&cursor);
    return error;
}
