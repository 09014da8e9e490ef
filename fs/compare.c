#include "fs/compare.h"

#include "fs/extent.h"
#include "fs/history.h"

#include <xxhash.h>

static int compare(struct span a, struct span b) {
    int order = memcmp(a.data, b.data, MIN(a.length, b.length));
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

static struct span span_of(const struct key *key) {
    return (struct span){key->bytes, key->length};
}

/* ---- Walking ---- */

struct walk {
    struct store *state;
    const struct range *range;
    struct cursor cursor;
    struct span key, value; /* of the present row, cut to the range */
    uint8_t cut_key[16];
    uint8_t cut_value[sizeof(struct extent_row) + EXTENT_BLOCKS_MAX * 8];
};

static uint64_t block_of(const struct key *position) {
    return position->length == 16 ? be64_get(position->bytes + 8) : 0;
}

/* The row of the map that reaches into the range, or the first one in it. */
static int seek_map(struct walk *walk) {
    const struct key *from = &walk->range->from;
    struct extent extent;
    uint64_t block = block_of(from);
    if (from->length == 16 && block > 0) {
        struct key key = key_u64_u64(be64_get(from->bytes), block);
        int rc = cursor_seek_before(&walk->cursor, &key);
        if (rc == 0)
            rc = extent_parse(walk->cursor.key, walk->cursor.value, &extent);
        if (rc == 0 && extent.data == be64_get(from->bytes) && extent.first + extent.place.count > block)
            return 0;
        if (rc && rc != -ENOENT)
            return rc;
    }
    return cursor_seek(&walk->cursor, from);
}

/* What the map's row says inside the range. */
static int cut_row(struct walk *walk) {
    const struct range *range = walk->range;
    struct extent extent;
    int rc = extent_parse(walk->cursor.key, walk->cursor.value, &extent);
    if (rc)
        return rc;
    uint64_t first = extent.first, end = extent.first + extent.place.count;
    if (range->from.length && extent.data == be64_get(range->from.bytes))
        first = MAX(first, block_of(&range->from));
    if (range->to.length && extent.data == be64_get(range->to.bytes))
        end = MIN(end, block_of(&range->to));
    if (first >= end)
        return -ENOENT;
    struct extent_row row = {.segment = extent.checksums ? 0 : SEGMENT_NONE, .count = (uint32_t)(end - first)};
    be64_put(walk->cut_key, extent.data);
    be64_put(walk->cut_key + 8, first);
    memcpy(walk->cut_value, &row, sizeof row);
    if (extent.checksums)
        memcpy(walk->cut_value + sizeof row, extent.checksums + (first - extent.first) * 8, row.count * 8ull);
    walk->key = (struct span){walk->cut_key, sizeof walk->cut_key};
    walk->value = (struct span){walk->cut_value, (uint32_t)(sizeof row + (extent.checksums ? row.count * 8ull : 0))};
    return 0;
}

/* A state of the past that is over says -ENOENT, too: that is no end of a table. */
static int end_or_error(const struct store *state, int rc) {
    char why[8];
    return rc == -ENOENT && history_error(state, why, sizeof why) ? -ESTALE : rc;
}

static int take(struct walk *walk, int rc) {
    if (rc)
        return end_or_error(walk->state, rc);
    if (walk->range->to.length && compare(walk->cursor.key, span_of(&walk->range->to)) >= 0)
        return -ENOENT;
    if (walk->range->table == TABLE_EXTENT)
        return cut_row(walk);
    walk->key = walk->cursor.key;
    walk->value = walk->cursor.value;
    return 0;
}

/* 0, -ENOENT at the end, or an error. To be closed if it is not an error. */
static int walk_open(struct walk *walk, struct store *state, const struct range *range) {
    walk->state = state;
    walk->range = range;
    int rc = cursor_open(&walk->cursor, state, NULL, range->table);
    if (rc)
        return end_or_error(state, rc);
    rc = take(walk, range->table == TABLE_EXTENT ? seek_map(walk) : cursor_seek(&walk->cursor, &range->from));
    if (rc && rc != -ENOENT)
        cursor_close(&walk->cursor);
    return rc;
}

static int walk_next(struct walk *walk) {
    return take(walk, cursor_next(&walk->cursor));
}

static void walk_close(struct walk *walk) {
    cursor_close(&walk->cursor);
}

int range_rows(struct store *state, const struct range *range,
               int (*row)(void *context, struct span key, struct span value), void *context) {
    struct walk walk;
    int rc = walk_open(&walk, state, range), said = 0;
    if (rc && rc != -ENOENT)
        return rc;
    for (; rc == 0 && said == 0; rc = said ? 0 : walk_next(&walk))
        said = row(context, walk.key, walk.value);
    walk_close(&walk);
    return said ? said : rc == -ENOENT ? 0 : rc;
}

int range_behind(enum table table, struct span key, struct span value, struct key *behind) {
    struct extent extent;
    if (key.length == 0 || key.length >= KEY_MAX)
        return -EBADMSG;
    if (table == TABLE_EXTENT) {
        if (extent_parse(key, value, &extent))
            return -EBADMSG;
        *behind = key_u64_u64(extent.data, extent.first + extent.place.count);
        return 0;
    }
    behind->length = (uint16_t)(key.length + 1); /* nothing lies between */
    memcpy(behind->bytes, key.data, key.length);
    behind->bytes[key.length] = 0;
    return 0;
}

/* ---- Hashes ---- */

struct run { /* of blocks side by side in a file; how many rows they have does not matter */
    uint64_t data, first, count;
    uint64_t written;
};

struct hashing {
    XXH3_state_t *state;
    struct run run;
};

static int hash_begin(struct hashing *hashing) {
    *hashing = (struct hashing){.state = XXH3_createState()};
    if (!hashing->state)
        return -ENOMEM;
    return XXH3_128bits_reset(hashing->state) == XXH_OK ? 0 : -EIO;
}

static void add(struct hashing *hashing, const void *bytes, size_t length) {
    PROMISE(XXH3_128bits_update(hashing->state, bytes, length) == XXH_OK);
}

static void end_run(struct hashing *hashing) {
    if (hashing->run.count)
        add(hashing, &hashing->run, sizeof hashing->run);
    hashing->run.count = 0;
}

/* A row as the walk gives it. */
static void hash_row(struct hashing *hashing, enum table table, struct span key, struct span value) {
    struct extent_row row;
    if (table != TABLE_EXTENT) {
        uint32_t lengths[2] = {key.length, value.length};
        add(hashing, lengths, sizeof lengths);
        add(hashing, key.data, key.length);
        add(hashing, value.data, value.length);
        return;
    }
    memcpy(&row, value.data, sizeof row);
    struct run *run = &hashing->run;
    uint64_t data = be64_get(key.data), first = be64_get(key.data + 8), written = row.segment != SEGMENT_NONE;
    if (run->count == 0 || run->data != data || run->first + run->count != first || run->written != written) {
        end_run(hashing);
        *run = (struct run){data, first, 0, written};
    }
    run->count += row.count;
    add(hashing, value.data + sizeof row, value.length - sizeof row);
}

static void hash_end(struct hashing *hashing, uint8_t hash[RANGE_HASH]) {
    XXH128_canonical_t canonical;
    _Static_assert(sizeof canonical == RANGE_HASH, "XXH3-128");
    end_run(hashing);
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hashing->state));
    memcpy(hash, &canonical, RANGE_HASH);
}

int range_cut(struct store *state, struct range *range, uint32_t rows_max, uint32_t bytes_max, uint8_t hash[RANGE_HASH],
              uint32_t *rows, uint32_t *bytes) {
    struct hashing hashing;
    struct walk walk;
    *rows = *bytes = 0;
    int rc = hash_begin(&hashing);
    if (rc == 0)
        rc = walk_open(&walk, state, range);
    if (rc == 0 || rc == -ENOENT) {
        for (; rc == 0; rc = walk_next(&walk)) {
            if (*rows && (*rows >= rows_max || *bytes + walk.key.length + walk.value.length > bytes_max))
                break;
            hash_row(&hashing, range->table, walk.key, walk.value);
            ++*rows;
            *bytes += walk.key.length + walk.value.length;
        }
        hash_end(&hashing, hash);
        if (rc == 0) {
            range->to.length = (uint16_t)walk.key.length;
            memcpy(range->to.bytes, walk.key.data, walk.key.length);
        }
        walk_close(&walk);
    }
    XXH3_freeState(hashing.state);
    return rc;
}

int range_hash(struct store *state, const struct range *range, uint32_t rows_max, uint8_t hash[RANGE_HASH], uint32_t *rows) {
    struct range first = *range;
    uint32_t bytes;
    if (rows_max == 0)
        return -E2BIG;
    int rc = range_cut(state, &first, rows_max, RANGE_BYTES_MAX, hash, rows, &bytes);
    return rc == -ENOENT ? 0 : rc ? rc : -E2BIG;
}

int range_split(struct store *state, const struct range *range, uint32_t each, struct range *parts, unsigned room) {
    struct walk walk;
    unsigned count = 1;
    uint32_t row = 0;
    int rc = walk_open(&walk, state, range);
    if (rc && rc != -ENOENT)
        return rc;
    parts[0] = *range;
    for (; rc == 0 && count < room; rc = walk_next(&walk), row++) {
        if (row == 0 || row % each)
            continue;
        struct key *edge = &parts[count - 1].to;
        edge->length = (uint16_t)walk.key.length;
        memcpy(edge->bytes, walk.key.data, walk.key.length);
        parts[count] = (struct range){.table = range->table, .from = *edge, .to = range->to};
        count++;
    }
    walk_close(&walk);
    return rc && rc != -ENOENT ? rc : (int)count;
}
