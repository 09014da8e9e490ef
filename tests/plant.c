/* Makes a store at rest say something else than its node's history: for tests of what compares copies. Each row that it
 * changes has a right checksum afterwards, as if a program had done it, but for a rotten one.
 *
 *   plant STORE mode INODE OCTAL            plant STORE name DIRECTORY NAME INODE (the entry names that inode)
 *   plant STORE value INODE ATTRIBUTE TEXT  plant STORE block INODE BLOCK         (another checksum)
 *   plant STORE hole INODE BLOCK            plant STORE drop-name DIRECTORY NAME
 *   plant STORE drop-inode INODE            plant STORE add-name DIRECTORY NAME INODE
 *   plant STORE many FROM COUNT             (inodes that nobody has)
 *   plant STORE rotten INODE                (its row fails its checksum)
 */
#include "fs/apply.h"
#include "fs/extent.h"
#include "fs/store_internal.h"

#include <inttypes.h>
#include <stdio.h>

static struct store *store;

static void give_up(const char *what, int rc) __attribute__((noreturn));
static void give_up(const char *what, int rc) {
    fprintf(stderr, "plant: %s: %s\n", what, strerror(-rc));
    exit(1);
}

static uint64_t number(const char *text) {
    return strtoull(text, NULL, 10);
}

static void put(enum table table, const struct key *key, const void *value, size_t length) {
    int rc = table_put_raw(store, table, key, value, length);
    if (rc)
        give_up("a row cannot be written", rc);
}

static void drop(enum table table, const struct key *key) {
    int rc = table_remove_raw(store, table, key);
    if (rc)
        give_up("a row cannot be removed", rc);
}

static struct inode_row inode(uint64_t ino) {
    struct inode_row row;
    int rc = inode_get(store, ino, &row);
    if (rc)
        give_up("no such inode", rc);
    return row;
}

static void change_mode(uint64_t ino, const char *octal) {
    struct inode_row row = inode(ino);
    struct key key = key_u64(ino);
    row.mode = (row.mode & ~07777u) | (uint32_t)strtoul(octal, NULL, 8);
    put(TABLE_INODE, &key, &row, sizeof row);
}

static void change_name(uint64_t directory, const char *name, uint64_t ino) {
    struct key key = key_u64_name(directory, name, strlen(name));
    struct dirent_row row;
    int rc = dirent_get(store, directory, name, strlen(name), &row);
    if (rc)
        row = (struct dirent_row){.cookie = 1ull << 50, .type = inode(ino).mode & 0170000};
    row.ino = ino;
    put(TABLE_DIRENT, &key, &row, sizeof row);
}

/* The row that has the block; a copy. */
static struct key row_of_block(uint64_t ino, uint64_t block, struct extent *extent, uint8_t *value) {
    struct cursor cursor;
    struct key key = key_u64_u64(inode(ino).data, block + 1);
    int rc = cursor_open(&cursor, store, NULL, TABLE_EXTENT);
    if (rc == 0)
        rc = cursor_seek_before(&cursor, &key);
    if (rc == 0)
        rc = extent_parse(cursor.key, cursor.value, extent);
    if (rc || extent->first + extent->place.count <= block)
        give_up("no such block", rc ? rc : -ENOENT);
    memcpy(value, cursor.value.data, cursor.value.length);
    key = key_u64_u64(extent->data, extent->first);
    cursor_close(&cursor);
    return key;
}

static void change_block(uint64_t ino, uint64_t block) {
    struct extent extent;
    static uint8_t value[sizeof(struct extent_row) + 8 * EXTENT_BLOCKS_MAX];
    struct key key = row_of_block(ino, block, &extent, value);
    value[sizeof(struct extent_row) + 8 * (block - extent.first)] ^= 1;
    put(TABLE_EXTENT, &key, value, sizeof(struct extent_row) + 8ull * extent.place.count);
}

/* And what follows it in its row. */
static void make_hole(uint64_t ino, uint64_t block) {
    struct extent extent;
    struct extent_row row;
    static uint8_t value[sizeof row + 8 * EXTENT_BLOCKS_MAX];
    struct key key = row_of_block(ino, block, &extent, value);
    memcpy(&row, value, sizeof row);
    row.count = (uint32_t)(block - extent.first);
    memcpy(value, &row, sizeof row);
    if (row.count)
        put(TABLE_EXTENT, &key, value, sizeof row + 8ull * row.count);
    else
        drop(TABLE_EXTENT, &key);
}

static void make_many(uint64_t from, uint64_t count) {
    for (uint64_t ino = from; ino < from + count; ino++) {
        struct inode_row row = inode(1);
        struct key key = key_u64(ino);
        put(TABLE_INODE, &key, &row, sizeof row);
    }
}

/* Past table_put_raw, which would make a right checksum. */
static void make_rotten(uint64_t ino) {
    struct key key = key_u64(ino);
    MDB_val k = {key.length, key.bytes}, row;
    uint8_t copy[4096];
    int rc = mdb_get(store->txn, store->dbi[TABLE_INODE], &k, &row);
    if (rc || row.mv_size > sizeof copy)
        give_up("no such row", -ENOENT);
    memcpy(copy, row.mv_data, row.mv_size);
    copy[0] ^= 1;
    row.mv_data = copy;
    rc = mdb_put(store->txn, store->dbi[TABLE_INODE], &k, &row, 0);
    if (rc)
        give_up("the row cannot be written", -EIO);
}

static bool work(int argc, char **argv) {
    const char *what = argv[2];
    uint64_t ino = number(argv[3]);
    struct key key;
    if (argc == 5 && strcmp(what, "mode") == 0) {
        change_mode(ino, argv[4]);
    } else if (argc == 6 && (strcmp(what, "name") == 0 || strcmp(what, "add-name") == 0)) {
        change_name(ino, argv[4], number(argv[5]));
    } else if (argc == 6 && strcmp(what, "value") == 0) {
        key = key_u64_name(ino, argv[4], strlen(argv[4]));
        put(TABLE_XATTR, &key, argv[5], strlen(argv[5]));
    } else if (argc == 5 && strcmp(what, "block") == 0) {
        change_block(ino, number(argv[4]));
    } else if (argc == 5 && strcmp(what, "hole") == 0) {
        make_hole(ino, number(argv[4]));
    } else if (argc == 5 && strcmp(what, "drop-name") == 0) {
        key = key_u64_name(ino, argv[4], strlen(argv[4]));
        drop(TABLE_DIRENT, &key);
    } else if (argc == 4 && strcmp(what, "drop-inode") == 0) {
        key = key_u64(ino);
        drop(TABLE_INODE, &key);
    } else if (argc == 4 && strcmp(what, "rotten") == 0) {
        make_rotten(ino);
    } else if (argc == 5 && strcmp(what, "many") == 0) {
        make_many(ino, number(argv[4]));
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    char why[512];
    const struct store_options options = {.hold_all = true};
    if (argc < 4) {
        fputs("usage: plant STORE WHAT INODE …; see the source\n", stderr);
        return 2;
    }
    if (store_open(argv[1], NULL, &options, &store, why, sizeof why) != 0) {
        fprintf(stderr, "plant: %s\n", why);
        return 1;
    }
    store_lock(store);
    bool done = work(argc, argv);
    store->unsaved = true;
    store_unlock(store);
    int rc = store_checkpoint(store);
    store_close(store);
    if (!done)
        fputs("usage: plant STORE WHAT INODE …; see the source\n", stderr);
    return !done ? 2 : rc != 0;
}
