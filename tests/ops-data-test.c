/* Data: writes at every kind of edge, truncate, fallocate, seek, sparse and large files, records that stay bounded,
 * blocks that are damaged. */
#include "fs/ops_parts.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>

static struct store *store;
static struct attributes out;
static uint64_t lsn;
static uint8_t buffer[8u << 20], pattern[8u << 20];

static uint64_t file_of(const char *name, uint64_t length) {
    uint64_t ino = make(store, ROOT_INO, name, S_IFREG | 0644);
    if (length)
        is_int(0, op_write(store, ino, pattern, length, 0, 0, &lsn), "%s: %llu bytes", name,
               (unsigned long long)length);
    return ino;
}

static bool all_zero(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

static uint64_t lsn_now(void) {
    struct position position;
    store_position(store, &position);
    return position.lsn;
}

static void test_write(void) {
    uint64_t ino = file_of("w", 0);
    is_int(0, op_write(store, ino, "abc", 3, 10000, 0, &lsn), "a write behind the end");
    is_int(10003, row_of(store, ino).size, "sets the size");
    is_int(1, row_of(store, ino).blocks, "maps one block");
    memset(buffer, 1, 20000);
    is_int(10003, op_read(store, ino, buffer, 20000, 0), "read all");
    ok(all_zero(buffer, 10000), "a hole reads as zeros");
    is_blob("abc", buffer + 10000, 3, "data as data");
    is_int(0, op_read(store, ino, buffer, 5, 10003), "nothing behind the end");
    is_int(0, op_write(store, ino, "Z", 1, 10001, 0, &lsn), "one byte within a block");
    is_int(3, op_read(store, ino, buffer, 3, 10000), "read");
    is_blob("aZc", buffer, 3, "its neighbours stay");
    is_int(0, op_write(store, ino, "+", 1, 0, WRITE_APPEND, &lsn), "append");
    is_int(10004, row_of(store, ino).size, "goes to the end");
    is_int(0, op_write(store, ino, NULL, 0, 0, 0, &lsn), "nothing to write");
    ok(lsn == 0, "is no record");
    is_int(-EISDIR, op_write(store, ROOT_INO, "x", 1, 0, 0, &lsn), "not into a directory");
    is_int(-ESTALE, op_write(store, 999999, "x", 1, 0, 0, &lsn), "nor into nothing");
    is_int(0, op_write(store, ino, pattern, 6u << 20, 123, 0, &lsn), "6 MiB at an odd place");
    is_int(6 << 20, op_read(store, ino, buffer, 6u << 20, 123), "read");
    is_blob(pattern, buffer, 6u << 20, "as written");
    uint64_t before = lsn_now();
    is_int(0, op_write(store, ino, pattern, 4u << 20, 8u << 20, 0, &lsn), "4 MiB");
    is_int(before + 1, lsn_now(), "are one record");
}

static void test_zeros(void) {
    uint64_t ino = file_of("z", 0);
    memset(buffer, 0, 40960);
    is_int(0, op_write(store, ino, buffer, 40960, 0, 0, &lsn), "zeros");
    struct entry *entry = NULL;
    struct record_head head;
    is_int(0, store_read(store, lsn, &entry), "their record");
    memcpy(&head, entry->bytes, sizeof head);
    is_int(0, head.payload, "has no payload");
    is_int(10, head.blocks, "but blocks");
    entry_put(entry);
    memset(buffer, 1, 40960);
    is_int(40960, op_read(store, ino, buffer, 40960, 0), "they are read");
    ok(all_zero(buffer, 40960), "as zeros");
}

static int count_part(void *context, const struct extent_part *part) {
    (void)part;
    ++*(unsigned *)context;
    return 0;
}

static unsigned rows_of(uint64_t ino) {
    unsigned rows = 0;
    struct inode_row row = row_of(store, ino);
    store_lock(store);
    extent_walk(store, row.data, 0, UINT64_MAX, count_part, &rows);
    store_unlock(store);
    return rows;
}

static void test_appends_join(void) {
    uint64_t ino = file_of("joined", 0);
    for (int i = 0; i < 256; i++)
        op_write(store, ino, pattern + (size_t)i * BATON_BLOCK, BATON_BLOCK, (uint64_t)i * BATON_BLOCK, 0, &lsn);
    is_int(2, rows_of(ino), "256 appended blocks are two rows");
    is_int(256, row_of(store, ino).blocks, "of 256 blocks");
    is_int(256 * 4096, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    is_blob(pattern, buffer, 256 * 4096, "as written");
}

static void test_truncate(void) {
    uint64_t ino = file_of("t", 100000);
    is_int(0, op_truncate(store, ino, 5000, false, &lsn), "truncate");
    is_int(5000, row_of(store, ino).size, "sets the size");
    is_int(2, row_of(store, ino).blocks, "frees the blocks");
    is_int(0, op_truncate(store, ino, 50000, false, &lsn), "and grow");
    is_int(50000, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    is_blob(pattern, buffer, 5000, "what was kept is there");
    ok(all_zero(buffer + 5000, 45000), "the rest is zero");
    is_int(-EFBIG, op_truncate(store, ino, FILE_SIZE_MAX + 1, false, &lsn), "there is a limit");
    is_int(0, op_truncate(store, ino, FILE_SIZE_MAX, false, &lsn), "of 2^60 bytes");
    is_int(-EISDIR, op_truncate(store, ROOT_INO, 0, false, &lsn), "not of a directory");
    is_int(-EFBIG, op_write(store, ino, "x", 1, FILE_SIZE_MAX, 0, &lsn), "no byte behind the limit");
    is_int(0, op_write(store, ino, "x", 1, FILE_SIZE_MAX - 1, 0, &lsn), "but one before it");
    is_int(1, op_read(store, ino, buffer, 10, FILE_SIZE_MAX - 1), "which is read");
    ok(buffer[0] == 'x', "as written");
    is_int(0, op_write(store, ino, "y", 1, 5ull << 40, 0, &lsn), "one at 5 TiB");
    ok(op_seek(store, ino, 1ull << 40, SEEK_DATA) == 5ll << 40, "SEEK_DATA finds it");
    is_int(0, op_truncate(store, ino, 0, false, &lsn), "truncate to nothing");
    is_int(0, row_of(store, ino).blocks, "frees all");
}

static void test_fallocate(void) {
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    uint64_t ino = file_of("f", 40000);
    is_int(0, op_fallocate(store, ino, 0, 30000, 30000, &lsn), "fallocate");
    is_int(60000, row_of(store, ino).size, "grows the file");
    is_int(15, row_of(store, ino).blocks, "maps blocks");
    is_int(0, op_fallocate(store, ino, FALLOC_FL_KEEP_SIZE, 60000, 40000, &lsn), "with KEEP_SIZE");
    is_int(60000, row_of(store, ino).size, "not");
    is_int(25, row_of(store, ino).blocks, "but maps");
    is_int(60000, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    is_blob(pattern, buffer, 40000, "data stays");
    ok(all_zero(buffer + 40000, 20000), "the rest is zero");
    ok(op_seek(store, ino, 0, SEEK_HOLE) == 40960, "unwritten counts as a hole");
    is_int(0, op_fallocate(store, ino, punch, 5000, 10000, &lsn), "punch");
    is_int(60000, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    is_blob(pattern, buffer, 5000, "before it data");
    ok(all_zero(buffer + 5000, 10000), "in it zeros");
    is_blob(pattern + 15000, buffer + 15000, 25000, "behind it data");
    is_int(24, row_of(store, ino).blocks, "a whole block is freed");
    ok(op_seek(store, ino, 0, SEEK_HOLE) == 8192 && op_seek(store, ino, 8192, SEEK_DATA) == 12288, "seek sees it");
    is_int(0, op_fallocate(store, ino, FALLOC_FL_ZERO_RANGE, 20000, 100000, &lsn), "zero range");
    is_int(120000, row_of(store, ino).size, "grows");
    is_int(120000, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    ok(all_zero(buffer + 20000, 100000), "zeros");
    is_blob(pattern + 15000, buffer + 15000, 5000, "before it data");
    is_int(-EOPNOTSUPP, op_fallocate(store, ino, FALLOC_FL_COLLAPSE_RANGE, 0, 4096, &lsn), "no collapse");
    is_int(-EOPNOTSUPP, op_fallocate(store, ino, FALLOC_FL_PUNCH_HOLE, 0, 4096, &lsn), "no punch that may grow");
    is_int(-EINVAL, op_fallocate(store, ino, 0, 0, 0, &lsn), "no empty range");
    is_int(-EFBIG, op_fallocate(store, ino, 0, FILE_SIZE_MAX, 1, &lsn), "not behind the limit");
    is_int(-ENOSPC, op_fallocate(store, ino, 0, 0, 1ull << 50, &lsn), "not more than the disk has");
    uint64_t empty = file_of("f2", 10000);
    is_int(0, op_fallocate(store, empty, punch, 0, 10000, &lsn), "punch up to the end");
    is_int(0, row_of(store, empty).blocks, "frees the last block too");
    is_int(-ENXIO, op_seek(store, empty, 0, SEEK_DATA), "no data");
    is_int(0, op_seek(store, empty, 0, SEEK_HOLE), "all hole");
    is_int(-ENXIO, op_seek(store, empty, 10000, SEEK_HOLE), "none at the end");
}

/* Every second block written: a row each. */
static uint64_t fragmented(const char *name, uint64_t blocks) {
    uint64_t ino = file_of(name, 0);
    for (uint64_t i = 0; i < blocks; i++)
        if (op_write(store, ino, pattern, 100, i * 2 * BATON_BLOCK, 0, &lsn) != 0)
            bail("write");
    return ino;
}

static unsigned orphans(enum orphan_kind kind) {
    struct cursor cursor;
    struct key key = key_orphan(kind, 0);
    unsigned count = 0;
    store_lock(store);
    cursor_open(&cursor, store, NULL, TABLE_ORPHAN);
    for (int error = cursor_seek(&cursor, &key); !error && cursor.key.data[0] == kind; error = cursor_next(&cursor))
        count++;
    cursor_close(&cursor);
    store_unlock(store);
    return count;
}

static void drain(void) {
    int more = 1;
    while ((more = op_reclaim_some(store)) == 1)
        ;
    is_int(0, more, "what is left is reclaimed");
}

static void test_bounded(void) {
    uint64_t ino = fragmented("frag", 1000), before = lsn_now(), old = row_of(store, ino).data;
    is_int(1000, rows_of(ino), "a file of a thousand rows");
    is_int(0, op_truncate(store, ino, 4096, false, &lsn), "truncated");
    is_int(before + 1, lsn_now(), "by one record");
    is_int(1, orphans(ORPHAN_TRIM), "leaves a pending trim");
    ok(rows_of(ino) > 500, "with the rest");
    is_int(0, op_write(store, ino, pattern, 10, 7u << 20, 0, &lsn), "a write behind it");
    is_int(0, orphans(ORPHAN_TRIM), "finishes it first");
    memset(buffer, 1, 7u << 20);
    is_int((7 << 20) + 10, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    ok(all_zero(buffer + 100, (7u << 20) - 100), "nothing of it comes back");
    is_int(2, rows_of(ino), "nothing is left in the map");
    is_int(2, row_of(store, ino).blocks, "nor counted");
    uint64_t other = fragmented("frag2", 600);
    is_int(0, op_truncate(store, other, 0, false, &lsn), "truncate of many rows to nothing");
    ok(row_of(store, other).data != old && row_of(store, other).blocks == 0, "gives it another data id");
    is_int(1, orphans(ORPHAN_DATA), "the old one is an orphan");
    drain();
    is_int(0, orphans(ORPHAN_DATA), "no longer");
    uint64_t third = fragmented("frag3", 700), gone;
    uint32_t left;
    op_truncate(store, third, 8192, false, &lsn);
    before = lsn_now();
    is_int(0, op_unlink(store, ROOT_INO, "frag3", &gone, &left, &lsn), "unlink of a file with a pending trim");
    is_int(before + 1, lsn_now(), "is one record");
    is_int(0, op_reclaim(store, &gone, 1), "reclaimed");
    ok(lsn_now() - before <= 6, "in few");
    is_int(0, orphans(ORPHAN_INODE) + orphans(ORPHAN_TRIM), "no orphan is left");
    drain();
}

static void test_reclaim_many(void) {
    uint64_t inos[100], before;
    uint32_t left;
    char name[20];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "r%d", i);
        make(store, ROOT_INO, name, S_IFREG | 0600);
        op_lookup(store, ROOT_INO, name, &out);
        op_write(store, out.ino, pattern, 5000, 0, 0, &lsn);
        op_unlink(store, ROOT_INO, name, &inos[i], &left, &lsn);
    }
    before = lsn_now();
    is_int(0, op_reclaim(store, inos, 100), "a hundred orphans");
    is_int(before + 1, lsn_now(), "share one record");
    is_int(0, op_orphans(store, 0, inos, 100), "all gone");
}

/* Changes a byte of the file's first block on the disk. */
static void damage(uint64_t ino) {
    struct inode_row row = row_of(store, ino);
    struct edge edge;
    char path[600];
    if (store_checkpoint(store)) /* till then it may be in memory and in the tail only */
        bail("no checkpoint");
    store_lock(store);
    edge_look(store, row.data, 0, &edge);
    store_unlock(store);
    snprintf(path, sizeof path, "%s/data/%08x.seg", store_path(store), edge.place.segment);
    int fd = open(path, O_RDWR);
    off_t at = (off_t)edge.place.position * BATON_BLOCK + 7;
    uint8_t byte;
    if (fd < 0 || pread(fd, &byte, 1, at) != 1)
        bail("%s", path);
    byte ^= 1;
    if (pwrite(fd, &byte, 1, at) != 1)
        bail("%s", path);
    close(fd);
}

static void test_damage(void) {
    uint64_t ino = file_of("bad", 20000);
    damage(ino);
    is_int(-EIO, op_read(store, ino, buffer, 10, 0), "a damaged block is an error");
    is_int(-EIO, op_read(store, ino, buffer, 20000, 0), "in a long read too");
    is_int(10, op_read(store, ino, buffer, 10, 8192), "another block is not");
    is_int(-EIO, op_write(store, ino, "x", 1, 5, 0, &lsn), "a part of it cannot be written");
    is_int(-EIO, op_truncate(store, ino, 5, false, &lsn), "nor kept");
    is_int(0, op_write(store, ino, pattern, 4096, 0, 0, &lsn), "all of it can be written");
    is_int(4096, op_read(store, ino, buffer, 4096, 0), "and read then");
}

static void test_copy(void) {
    uint64_t from = file_of("c1", 3000000), to = file_of("c2", 0);
    is_int(2900000, op_copy(store, from, 100000, to, 5, 10000000, &lsn), "copy up to the end");
    is_int(2900000, op_read(store, to, buffer, sizeof buffer, 5), "read");
    is_blob(pattern + 100000, buffer, 2900000, "as it was");
}

int main(void) {
    uint64_t seed;
    plan_lazy();
    seed = test_seed();
    for (size_t i = 0; i < sizeof pattern; i += 8) {
        uint64_t word = test_random(&seed);
        memcpy(pattern + i, &word, 8);
    }
    store = fixture_store("store", 1);
    test_write();
    test_zeros();
    test_appends_join();
    test_truncate();
    test_fallocate();
    test_bounded();
    test_reclaim_many();
    test_damage();
    test_copy();
    store_close(store);
    return 0;
}
