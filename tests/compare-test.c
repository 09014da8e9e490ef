/* Ranges of two stores that have the same history, but lie otherwise on their disks: hashes are equal, whatever the cut; a
 * change of any row changes the hash of each range that has it, and of no other; what differs is told row by row.
 */
#include "fs/apply.h"
#include "fs/compare.h"
#include "fs/paths.h"
#include "fs/extent.h"
#include "fs/history_internal.h"
#include "tests/churn.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define PARTS 40u

static uint64_t seed;

static uint32_t hash_of(struct store *store, const struct range *range, uint8_t hash[RANGE_HASH]) {
    uint32_t rows = 0;
    store_lock(store);
    int rc = range_hash(store, range, UINT32_MAX, hash, &rows);
    store_unlock(store);
    if (rc)
        bail("hash of table %s: %s", table_names[range->table], strerror(-rc));
    return rows;
}

static bool same_hash(struct store *a, struct store *b, const struct range *range) {
    uint8_t x[RANGE_HASH], y[RANGE_HASH];
    hash_of(a, range, x);
    hash_of(b, range, y);
    return memcmp(x, y, RANGE_HASH) == 0;
}

static struct range whole(int table) {
    return (struct range){.table = (enum table)table};
}

/* ---- Equal stores ---------------------------------------------------------------------------------------------------- */

static void hashes_are_equal(struct store *a, struct store *b) {
    uint64_t parts = 0, equal = 0;
    for (int table = 0; table < TABLE_SHARED_END; table++) {
        struct range range = whole(table), cut[PARTS];
        uint8_t hash[RANGE_HASH];
        ok(same_hash(a, b, &range), "table %s: equal", table_names[table]);
        uint32_t rows = hash_of(a, &range, hash), sum = 0;
        uint32_t each = MAX(1, rows / (PARTS - 2));
        store_lock(a);
        int count = range_split(a, &range, each, cut, PARTS);
        store_unlock(a);
        if (count < 1)
            bail("range_split: %d", count);
        for (int i = 0; i < count; i++) {
            sum += hash_of(a, &cut[i], hash);
            parts++;
            equal += same_hash(a, b, &cut[i]);
            if (i > 0 && (cut[i].from.length != cut[i - 1].to.length ||
                          memcmp(cut[i].from.bytes, cut[i - 1].to.bytes, cut[i].from.length) != 0))
                ok(false, "part %d of table %s does not begin where the one before ends", i, table_names[table]);
        }
        ok(cut[0].from.length == 0 && cut[count - 1].to.length == 0, "table %s: the parts are all of it", table_names[table]);
        is_int(rows, sum, "table %s: and have all of its %u rows", table_names[table], rows);
    }
    ok(equal == parts, "all of %llu parts are equal", (unsigned long long)parts);
}

/* Ranges of the map that begin and end anywhere, also inside of rows. */
static void map_is_cut_anywhere(struct store *a, struct store *b) {
    struct cursor cursor;
    uint64_t data[300];
    unsigned count = 0, equal = 0;
    struct key start = {.length = 0};
    store_lock(a);
    if (cursor_open(&cursor, a, NULL, TABLE_EXTENT))
        bail("no cursor");
    for (int rc = cursor_seek(&cursor, &start); rc == 0 && count < 300; rc = cursor_next(&cursor))
        data[count++] = be64_get(cursor.key.data);
    cursor_close(&cursor);
    store_unlock(a);
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t x = data[test_random(&seed) % count], y = data[test_random(&seed) % count];
        struct range range = {.table = TABLE_EXTENT, .from = key_u64_u64(x, test_random(&seed) % 300),
                              .to = key_u64_u64(y, test_random(&seed) % 300)};
        if (range_valid(&range))
            equal += same_hash(a, b, &range);
        else
            equal++;
    }
    is_int(2000, equal, "2000 ranges of the map with any edges are equal");
}

static void limits(struct store *a) {
    struct range range = whole(TABLE_INODE);
    uint8_t hash[RANGE_HASH], again[RANGE_HASH];
    uint32_t rows, bytes, all = hash_of(a, &range, hash);
    store_lock(a);
    is_int(-E2BIG, range_hash(a, &range, all - 1, again, &rows), "a row too many is said");
    is_int(0, range_hash(a, &range, all, again, &rows), "as many as may be are not");
    struct range first = range;
    is_int(0, range_cut(a, &first, 10, UINT32_MAX, again, &rows, &bytes), "the first rows");
    is_int(10, rows, "are ten");
    is_int(0, range_hash(a, &first, 10, hash, &rows), "their range");
    ok(rows == 10 && memcmp(hash, again, RANGE_HASH) == 0, "has just those");
    first = range;
    is_int(0, range_cut(a, &first, 1000, 1, again, &rows, &bytes), "however few bytes");
    is_int(1, rows, "there is one row");
    store_unlock(a);
    struct range file = range_of(TABLE_INODE, 1);
    is_int(1, hash_of(a, &file, hash), "what belongs to an inode is its row");
    ok(!range_valid(&(struct range){.table = TABLE_META}) &&
           !range_valid(&(struct range){.table = TABLE_EXTENT, .from = key_u64_name(1, "x", 1)}) &&
           !range_valid(&(struct range){.table = TABLE_INODE, .from = key_u64(2), .to = key_u64(1)}),
       "ranges that cannot be are no ranges");
}

/* ---- Differences ----------------------------------------------------------------------------------------------------- */

struct packed { /* rows of a range */
    uint8_t bytes[1 << 20];
    size_t used, at;
};
static struct packed here, there;

static int pack(void *context, struct span key, struct span value) {
    struct packed *packed = context;
    if (packed->used + 8 + key.length + value.length > sizeof packed->bytes)
        bail("too many rows");
    memcpy(packed->bytes + packed->used, &key.length, 4);
    memcpy(packed->bytes + packed->used + 4, &value.length, 4);
    memcpy(packed->bytes + packed->used + 8, key.data, key.length);
    memcpy(packed->bytes + packed->used + 8 + key.length, value.data, value.length);
    packed->used += 8 + key.length + value.length;
    return 0;
}

static int unpack(void *context, struct span *key, struct span *value) {
    struct packed *packed = context;
    if (packed->at == packed->used)
        return 0;
    memcpy(&key->length, packed->bytes + packed->at, 4);
    memcpy(&value->length, packed->bytes + packed->at + 4, 4);
    key->data = packed->bytes + packed->at + 8;
    value->data = key->data + key->length;
    packed->at += 8 + key->length + value->length;
    return 1;
}

static struct difference found[64];
static unsigned found_count;
static int note(void *context, const struct difference *difference) {
    (void)context;
    if (found_count < 64)
        found[found_count] = *difference;
    found_count++;
    return 0;
}

/* What of this range differs. */
static unsigned compare(struct store *a, struct store *b, const struct range *range) {
    here.used = here.at = there.used = there.at = found_count = 0;
    store_lock(a);
    int rc = range_rows(a, range, pack, &here);
    store_unlock(a);
    store_lock(b);
    rc = rc ? rc : range_rows(b, range, pack, &there);
    store_unlock(b);
    struct row_source x = {unpack, &here, "a"}, y = {unpack, &there, "b"};
    rc = rc ? rc : rows_compare(range->table, &x, &y, note, NULL);
    if (rc)
        bail("comparing: %s", strerror(-rc));
    return found_count;
}

static void put(struct store *store, enum table table, const struct key *key, const void *value, size_t length) {
    store_lock(store);
    int rc = value ? table_put_raw(store, table, key, value, length) : table_remove_raw(store, table, key);
    store_unlock(store);
    if (rc)
        bail("a row is not changed: %s", strerror(-rc));
}

/* One change of a row of b's: its range differs, and it is told so. The row is put back. */
static void differs(struct store *a, struct store *b, enum table table, const struct key *key, const void *value,
                    size_t length, unsigned count, const char *text) {
    struct range range = whole(table), before = range, behind = range;
    struct span old;
    uint8_t kept[70000];
    store_lock(b);
    int rc = table_get(b, table, key, &old);
    if (rc == 0)
        memcpy(kept, old.data, old.length);
    store_unlock(b);
    put(b, table, key, value, length);
    ok(!same_hash(a, b, &range), "%s: another hash", text);
    before.to = *key;
    behind.from = *key;
    if (table == TABLE_EXTENT)
        be64_put(behind.from.bytes + 8, be64_get(key->bytes + 8) + EXTENT_BLOCKS_MAX);
    else
        behind.from.bytes[behind.from.length++] = 0;
    ok(same_hash(a, b, &before) && same_hash(a, b, &behind), "%s: what lies beside has the same", text);
    is_int(count, compare(a, b, &range), "%s: that many differences", text);
    if (!ok(found_count > 0 && strstr(found[0].text, text), "%s: it is told", text))
        diag("it is: %s", found_count ? found[0].text : "nothing");
    put(b, table, key, rc == 0 ? kept : NULL, old.length);
    ok(same_hash(a, b, &range), "%s: put back, it is equal again", text);
}

static void inodes_differ(struct store *a, struct store *b, uint64_t ino) {
    struct inode_row row = row_of(a, ino), changed = row;
    struct key key = key_u64(ino), other = key_u64(ino + 1);
    changed.mode = S_IFREG | 0600;
    differs(a, b, TABLE_INODE, &key, &changed, sizeof changed, 1, "mode 100644 on a, 100600 on b");
    changed = row;
    changed.uid = 7;
    changed.size += 1;
    differs(a, b, TABLE_INODE, &key, &changed, sizeof changed, 1, "owner 0 on a, 7 on b; size 600000 on a, 600001 on b");
    changed = row;
    changed.mtime.seconds -= 86400;
    differs(a, b, TABLE_INODE, &key, &changed, sizeof changed, 1, "mtime ");
    differs(a, b, TABLE_INODE, &key, NULL, 0, 1, "only on a");
    differs(a, b, TABLE_INODE, &other, &row, sizeof row, 1, "only on b");
    is_int((int64_t)(ino + 1), (int64_t)found[0].ino, "with its number");
}

static void names_differ(struct store *a, struct store *b, uint64_t ino) {
    struct key key = key_u64_name(ROOT_INO, "file", 4), attribute = key_u64_name(ino, "user.note", 9);
    struct dirent_row row;
    store_lock(a);
    int rc = dirent_get(a, ROOT_INO, "file", 4, &row);
    store_unlock(a);
    if (rc)
        bail("no entry");
    struct key cookie = key_u64_u64(ROOT_INO, row.cookie);
    row.ino = 5;
    differs(a, b, TABLE_DIRENT, &key, &row, sizeof row, 1, "the name's inode");
    ok(found[0].ino == ROOT_INO && found[0].there == 5 && found[0].entry.length == key.length &&
           memcmp(found[0].entry.bytes, key.bytes, key.length) == 0,
       "with directory and name");
    differs(a, b, TABLE_DIRENT, &key, NULL, 0, 1, "the name is only on a");
    differs(a, b, TABLE_DIRCOOKIE, &cookie, NULL, 0, 1, "in its directory is only on a");
    ok(found[0].entry.length == key.length && memcmp(found[0].entry.bytes, key.bytes, key.length) == 0, "with the name");
    differs(a, b, TABLE_XATTR, &attribute, "no", 2, 1, "attribute user.note: 3 bytes on a, 2 bytes on b");
    differs(a, b, TABLE_XATTR, &attribute, NULL, 0, 1, "attribute user.note is only on a");
}

/* A row of the map that lies in the file, with at least so many blocks. */
static struct key map_row(struct store *store, uint64_t data, uint32_t blocks, uint8_t *value, size_t *length) {
    struct cursor cursor;
    struct key key = key_u64_u64(data, 0);
    store_lock(store);
    int rc = cursor_open(&cursor, store, NULL, TABLE_EXTENT);
    for (rc = rc ? rc : cursor_seek(&cursor, &key); rc == 0; rc = cursor_next(&cursor)) {
        struct extent extent;
        if (extent_parse(cursor.key, cursor.value, &extent) || extent.data != data)
            bail("no such row of the map");
        if (!extent.checksums || extent.place.count < blocks)
            continue;
        memcpy(value, cursor.value.data, cursor.value.length);
        *length = cursor.value.length;
        key = key_u64_u64(extent.data, extent.first);
        break;
    }
    cursor_close(&cursor);
    store_unlock(store);
    return key;
}

static void maps_differ(struct store *a, struct store *b, uint64_t ino) {
    uint8_t value[sizeof(struct extent_row) + 8 * EXTENT_BLOCKS_MAX];
    size_t length;
    struct extent_row row;
    struct key key = map_row(b, row_of(b, ino).data, 20, value, &length);
    uint64_t first = be64_get(key.bytes + 8);
    char text[200];

    value[sizeof row + 3 * 8] ^= 1;
    snprintf(text, sizeof text, "block %llu: other content", (unsigned long long)first + 3);
    differs(a, b, TABLE_EXTENT, &key, value, length, 1, text);
    value[sizeof row + 5 * 8] ^= 1;
    value[sizeof row + 6 * 8] ^= 1;
    differs(a, b, TABLE_EXTENT, &key, value, length, 2, text);
    snprintf(text, sizeof text, "blocks %llu to %llu: other content", (unsigned long long)first + 5,
             (unsigned long long)first + 6);
    ok(strncmp(text, found[1].text, strlen(text)) == 0, "two side by side are one difference");
    value[sizeof row + 3 * 8] ^= 1;
    value[sizeof row + 5 * 8] ^= 1;
    value[sizeof row + 6 * 8] ^= 1;

    memcpy(&row, value, sizeof row);
    uint32_t count = row.count;
    row.position += 1000; /* where it lies does not matter */
    memcpy(value, &row, sizeof row);
    put(b, TABLE_EXTENT, &key, value, length);
    ok(same_hash(a, b, &(struct range){.table = TABLE_EXTENT}), "another place is no difference");
    row.position -= 1000;
    row.count = 7;
    memcpy(value, &row, sizeof row);
    snprintf(text, sizeof text, "blocks %llu to %llu: data on a, a hole on b", (unsigned long long)first + 7,
             (unsigned long long)first + count - 1);
    row.count = count;
    differs(a, b, TABLE_EXTENT, &key, value, sizeof row + 7 * 8, 1, text);
    row = (struct extent_row){.segment = SEGMENT_NONE, .count = count};
    snprintf(text, sizeof text, "blocks %llu to %llu: data on a, unwritten on b", (unsigned long long)first,
             (unsigned long long)first + count - 1);
    differs(a, b, TABLE_EXTENT, &key, &row, sizeof row, 1, text);
    differs(a, b, TABLE_EXTENT, &key, NULL, 0, 1, "data on a, a hole on b");
}

/* The same rows cut in pieces: no difference. */
static void cuts_do_not_differ(struct store *a, struct store *b, uint64_t ino) {
    uint8_t value[sizeof(struct extent_row) + 8 * EXTENT_BLOCKS_MAX], part[sizeof value];
    size_t length;
    struct extent_row row, piece;
    struct key key = map_row(b, row_of(b, ino).data, 20, value, &length);
    uint64_t first = be64_get(key.bytes + 8);
    memcpy(&row, value, sizeof row);
    for (uint32_t at = 0, count; at < row.count; at += count) {
        count = 1 + (uint32_t)(test_random(&seed) % 7);
        count = MIN(count, row.count - at);
        piece = (struct extent_row){row.segment, row.position + at, count};
        memcpy(part, &piece, sizeof piece);
        memcpy(part + sizeof piece, value + sizeof row + at * 8, count * 8);
        struct key cut = key_u64_u64(be64_get(key.bytes), first + at);
        put(b, TABLE_EXTENT, &cut, part, sizeof piece + count * 8);
    }
    struct range range = whole(TABLE_EXTENT);
    ok(same_hash(a, b, &range), "a row in pieces has the same hash");
    range = range_of(TABLE_EXTENT, be64_get(key.bytes));
    is_int(0, compare(a, b, &range), "and no difference");
    range.from = key_u64_u64(be64_get(key.bytes), first + 3);
    range.to = key_u64_u64(be64_get(key.bytes), first + 11);
    ok(same_hash(a, b, &range), "a part of it, too");
    is_int(0, compare(a, b, &range), "as rows, too");
}

/* What is over is not empty. */
static void past_is_over(struct store *store) {
    struct range range = whole(TABLE_INODE), part[2];
    struct store *past;
    struct position position;
    uint8_t hash[RANGE_HASH];
    uint32_t rows, bytes;
    char why[300];
    store_checkpoint(store);
    store_position(store, &position);
    if (history_open(store, position.lsn, NULL, NULL, NULL, &past, why, sizeof why))
        bail("no past: %s", why);
    ok(hash_of(past, &range, hash) > 100, "a past has rows");
    history_fail(past->history, -ENOENT, "the history was given up meanwhile");
    store_lock(past);
    is_int(-ESTALE, range_hash(past, &range, UINT32_MAX, hash, &rows), "one that is over is not empty");
    is_int(-ESTALE, range_cut(past, &range, 10, 1000, hash, &rows, &bytes), "has no first rows");
    is_int(-ESTALE, range_rows(past, &range, pack, &here), "and no others");
    is_int(-ESTALE, range_split(past, &range, 5, part, 2), "and no parts");
    store_unlock(past);
    history_close(past);
}

static unsigned pauses;
static bool gives_up;

static bool pause_here(void *context) {
    (void)context;
    pauses++;
    return gives_up;
}

/* Each of some files in a directory of its own, all of these in one: that is read once for all, and not by who has given up. */
static void directories_above(struct store *store) {
    uint64_t top = make(store, ROOT_INO, "above", S_IFDIR | 0755), files[30], none[30] = {0};
    char name[32], path[100];
    for (unsigned i = 0; i < 5000; i++) { /* more than are read at a time */
        snprintf(name, sizeof name, "before-%u", i);
        make(store, top, name, S_IFREG | 0644);
    }
    for (unsigned i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "directory-%u", i);
        files[i] = make(store, make(store, top, name, S_IFDIR | 0755), "file", S_IFREG | 0644);
    }
    for (unsigned round = 0; round < 2; round++) {
        struct paths *paths = paths_create(store);
        unsigned right = 0;
        gives_up = false;
        is_int(0, paths_search(paths, files, none, 30, pause_here, NULL), "names are found");
        pauses = 0;
        gives_up = round == 1;
        for (unsigned i = 0; i < 30; i++) {
            char expected[100];
            snprintf(expected, sizeof expected, "above/directory-%u/file", i);
            right += paths_text(paths, files[i], 0, path, sizeof path) && strcmp(path, expected) == 0;
        }
        is_int(round ? 0 : 30, right, round ? "and no directories by who has given up" : "and their directories");
        ok(pauses <= 3, "with %u looks", pauses);
        paths_free(paths);
    }
}

static void store_end(struct store *store) {
    store_checkpoint(store);
    store_close(store);
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    churn_prepare(&seed);
    struct store *a = fixture_store("a", 1), *b = fixture_store("b", 0);
    uint64_t directories[2] = {make(a, ROOT_INO, "one", S_IFDIR | 0755), make(a, ROOT_INO, "two", S_IFDIR | 0755)}, lsn;
    static uint8_t content[600000];
    uint64_t ino = make(a, ROOT_INO, "file", S_IFREG | 0644);
    memset(content, 1, sizeof content);
    for (size_t i = 0; i < sizeof content; i += BATON_BLOCK)
        content[i] = (uint8_t)(i / BATON_BLOCK);
    if (op_setxattr(a, &root_caller, ino, "user.note", "yes", 3, 0, false, &lsn))
        bail("no attribute");
    for (unsigned i = 0; i < 3000; i++) {
        if (i == 1000 && op_write(a, ino, content, sizeof content, 0, 0, &lsn))
            bail("no write");
        if (churn(a, directories, &seed))
            bail("churn");
        if (i % 100 == 0)
            fixture_feed(a, b); /* in other portions, so that places differ */
    }
    ok(fixture_feed(a, b), "the second store has the same history");
    hashes_are_equal(a, b);
    map_is_cut_anywhere(a, b);
    limits(a);
    inodes_differ(a, b, ino);
    names_differ(a, b, ino);
    maps_differ(a, b, ino);
    cuts_do_not_differ(a, b, ino);
    past_is_over(a);
    directories_above(a);
    store_end(a);
    store_end(b);
    return 0;
}
