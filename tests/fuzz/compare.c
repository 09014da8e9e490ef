/* Rows of another node's, compared with the own ones (baton verify): changed, missing, in any order, impossible.
 *
 * An input: a byte of flags, then edits of rows. IN_ORDER: they are given in the order of their keys. RANGES: the rest is
 * ranges that somebody asks for, of this store.
 */
#include "fs/compare.h"
#include "fs/store.h"
#include "tests/fuzz/edit.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#define IN_ORDER 1u
#define RANGES 2u
#define RANGES_MAX 16u

static struct given_rows here, there;
static struct store *store;

static void start(void) {
    struct store_options options = fuzz_options();
    char folder[600], why[600];
    snprintf(folder, sizeof folder, "%s/compare", fuzz_directory());
    image_write(fuzz_template(), folder);
    PROMISE(store_open(folder, fuzz_volume, &options, &store, why, sizeof why) == 0);
    given_load(&here, store);
}

struct giving {
    const struct given_rows *rows;
    enum table table;
    unsigned at;
};

static int next_row(void *context, struct span *key, struct span *value) {
    struct giving *giving = context;
    while (giving->at < giving->rows->count) {
        const struct given_row *row = &giving->rows->rows[giving->at++];
        if (row->table != giving->table)
            continue;
        *key = (struct span){row->key.bytes, row->key.length};
        *value = (struct span){row->value, row->length};
        return 1;
    }
    return 0;
}

static int difference_found(void *context, const struct difference *difference) {
    unsigned *count = context;
    FUZZ_MUST(strnlen(difference->text, sizeof difference->text) < sizeof difference->text);
    FUZZ_MUST(difference->entry.length <= KEY_MAX && difference->table < TABLE_SHARED_END);
    return ++*count > 1000;
}

/* How many rows differ; -1: some cannot be. */
static int compare(enum table table) {
    struct giving own = {&here, table, 0}, other = {&there, table, 0};
    const struct row_source ours = {next_row, &own, "a"}, theirs = {next_row, &other, "b"};
    unsigned count = 0;
    int rc = rows_compare(table, &ours, &theirs, difference_found, &count);
    FUZZ_MUST(rc == 0 || rc == 1 || rc == -EBADMSG);
    for (unsigned i = 0; i < there.count; i++) {
        const struct given_row *row = &there.rows[i];
        struct key behind;
        if (table == TABLE_DIRENT && row->table == table && row->length != sizeof(struct dirent_row))
            FUZZ_MUST(rc == -EBADMSG); /* else what lies behind it has been read */
        if (row->table == table)
            range_behind(table, (struct span){row->key.bytes, row->key.length}, (struct span){row->value, row->length}, &behind);
    }
    return rc < 0 ? -1 : (int)count;
}

static int count_row(void *context, struct span key, struct span value) {
    unsigned *count = context;
    FUZZ_MUST(key.length <= KEY_MAX && value.length <= BATON_XATTR_VALUE_MAX + 1024);
    return ++*count > 10000;
}

static struct key key_of(struct script *script) {
    struct key key = {.length = 0};
    switch (script_below(script, 4)) {
    case 0:
        break;
    case 1:
        return key_u64(script_number(script));
    case 2:
        return key_u64_u64((1ull << 40) + script_u8(script), script_number(script));
    default: {
        struct span bytes = script_bytes(script, script_below(script, KEY_MAX));
        key.length = (uint16_t)bytes.length;
        if (bytes.length)
            memcpy(key.bytes, bytes.data, bytes.length);
    }
    }
    return key;
}

static void ask_range(struct script *script) {
    static struct range parts[8];
    uint8_t hash[RANGE_HASH], cut[RANGE_HASH];
    uint32_t rows = 0, bytes = 0, most = 1 + script_u16(script), cut_rows;
    unsigned count = 0;
    struct range range = {.table = script_below(script, TABLE_SHARED_END + 1), .from = key_of(script), .to = key_of(script)};
    if (!range_valid(&range))
        return;
    store_lock(store);
    int rc = range_hash(store, &range, most, hash, &rows);
    FUZZ_MUST(rc == 0 || rc == -E2BIG);
    FUZZ_MUST(range_rows(store, &range, count_row, &count) == 0);
    FUZZ_MUST(rc || (count == rows && rows <= most));
    struct range first = range;
    int cut_rc = range_cut(store, &first, most, 1u << 20, cut, &cut_rows, &bytes);
    FUZZ_MUST(cut_rc == 0 || cut_rc == -ENOENT);
    FUZZ_MUST(rc || cut_rc != -ENOENT || memcmp(cut, hash, sizeof hash) == 0);
    int made = range_split(store, &range, most, parts, 8);
    FUZZ_MUST(made >= 0 && made <= 8);
    store_unlock(store);
}

static bool one(const uint8_t *input, size_t length) {
    struct script script = {input, length};
    uint8_t flags = script_u8(&script);
    int differ = 0;
    there.count = here.count;
    memcpy(there.rows, here.rows, here.count * sizeof *here.rows);
    if (flags & RANGES) {
        for (unsigned i = 0; i < RANGES_MAX && script.left > 0; i++)
            ask_range(&script);
        return true;
    }
    bool edited = false;
    for (unsigned i = 0; i < GIVEN_EDITS_MAX && script_u8(&script) != 0; i++) {
        given_edit(&there, &script, i);
        edited = true;
    }
    if (flags & IN_ORDER)
        given_sort(&there);
    for (enum table table = 0; table < TABLE_SHARED_END && differ >= 0; table++) {
        int found = compare(table);
        differ = found < 0 ? found : differ + found;
    }
    FUZZ_MUST(edited || differ == 0);
    return differ == 0;
}

static void seeds(void) {
    static const uint8_t equal[] = {IN_ORDER}, ranges[] = {RANGES, 9, 0, TABLE_INODE, 0, 0, 5, 0, TABLE_EXTENT, 0, 0};
    fuzz_give("equal", equal, sizeof equal);
    fuzz_give("ranges", ranges, sizeof ranges);
}

const struct fuzz_harness fuzz_compare = {.name = "compare", .start = start, .one = one, .seeds = seeds};
