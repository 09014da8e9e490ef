/* Bad blocks are had from somewhere else before an answer is given: in a read, under a write of a part, where a file is cut.
 * What does not fit the checksum is never used, and nothing is written when the map has changed meanwhile. */
#include "fs/mend.h"
#include "fs/ops_parts.h"
#include "tests/disk-fault.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#define BLOCKS 8u

static struct store *store;
static uint64_t lsn, ino;
static uint8_t buffer[BLOCKS * BATON_BLOCK], pattern[BLOCKS * BATON_BLOCK], other[BLOCKS * BATON_BLOCK];

/* ---- What the other node says ---- */

static enum { GOOD, WRONG, AWAY, OVERWRITTEN, OVERWRITTEN_AND_AWAY, SLOW } way;
static atomic_uint fetched, readers;

static int fetch(void *context, uint64_t data, uint64_t block, uint64_t checksum, uint8_t bytes[BATON_BLOCK]) {
    uint64_t unused;
    (void)context, (void)checksum;
    atomic_fetch_add(&fetched, 1);
    if (data != row_of(store, ino).data || block >= BLOCKS)
        bail("block %llu of data %llu is asked for", (unsigned long long)block, (unsigned long long)data);
    memcpy(bytes, pattern + block * BATON_BLOCK, BATON_BLOCK);
    if (way == WRONG)
        bytes[BATON_BLOCK - 1] ^= 1;
    if ((way == OVERWRITTEN || way == OVERWRITTEN_AND_AWAY) &&
        op_write(store, ino, other, sizeof other, 0, 0, &unused) != 0)
        bail("overwriting meanwhile");
    for (int i = 0; way == SLOW && i < 60000 && atomic_load(&readers) < 2; i++)
        usleep(1000);
    if (way == SLOW)
        usleep(100000); /* the second one has met the bad block, too */
    return way == AWAY || way == OVERWRITTEN_AND_AWAY ? -ENOTCONN : 0;
}

static const struct store_watch watch = {.fetch = fetch};

/* ---- Damage ---- */

static struct edge edge_of(uint64_t block) {
    struct inode_row row = row_of(store, ino);
    struct edge edge;
    store_lock(store);
    edge_look(store, row.data, block, &edge);
    store_unlock(store);
    return edge;
}

static int segment_of(const struct edge *edge) {
    char path[600];
    snprintf(path, sizeof path, "%s/data/%08x.seg", store_path(store), edge->place.segment);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        bail("%s", path);
    return fd;
}

static void damage(uint64_t block) {
    struct edge edge = edge_of(block);
    int fd = segment_of(&edge);
    if (pwrite(fd, "damaged", 7, (off_t)edge.place.position * BATON_BLOCK + 77) != 7)
        bail("pwrite");
    close(fd);
}

/* Does the place hold what the map says it does? */
static bool on_disk(const struct edge *edge) {
    uint8_t bytes[BATON_BLOCK];
    int fd = segment_of(edge);
    ssize_t length = pread(fd, bytes, sizeof bytes, (off_t)edge->place.position * BATON_BLOCK);
    close(fd);
    return length == (ssize_t)sizeof bytes && block_checksum(bytes) == edge->checksum;
}

/* A file with the pattern, all of it on disk. */
static void fresh(const char *name) {
    ino = make(store, ROOT_INO, name, S_IFREG | 0644);
    if (op_write(store, ino, pattern, sizeof pattern, 0, 0, &lsn) || store_checkpoint(store))
        bail("%s", name);
    atomic_store(&fetched, 0);
    way = GOOD;
}

static void is_pattern(size_t length, uint64_t offset, const char *what) {
    memset(buffer, 0, sizeof buffer);
    is_int(length, op_read(store, ino, buffer, length, offset), "%s: read", what);
    is_blob(pattern + offset, buffer, length, "%s: as it was", what);
}

/* ---- Tests ---- */

static void test_read(void) {
    fresh("read");
    damage(2);
    damage(3);
    damage(7);
    is_pattern(sizeof pattern - 1000, 500, "three bad blocks, odd ends");
    is_int(3, atomic_load(&fetched), "each was fetched once");
    for (uint64_t block = 0; block < BLOCKS; block++) {
        struct edge edge = edge_of(block);
        ok(on_disk(&edge), "block %llu is right on disk", (unsigned long long)block);
    }
    is_pattern(sizeof pattern, 0, "again");
    is_int(3, atomic_load(&fetched), "from the own disk");
    struct mend_counts counts;
    mend_counts(store, &counts);
    is_int(3, counts.found, "three found");
    is_int(3, counts.mended, "three mended");
    is_int(0, counts.unmended, "none left");
}

static void test_write(void) {
    fresh("write");
    damage(1);
    damage(4);
    is_int(0, op_write(store, ino, other, 3 * BATON_BLOCK, BATON_BLOCK + 9, 0, &lsn), "both ends lie in bad blocks");
    is_int(2, atomic_load(&fetched), "which are fetched");
    is_int(sizeof buffer, op_read(store, ino, buffer, sizeof buffer, 0), "read");
    is_blob(pattern, buffer, BATON_BLOCK + 9, "what lies before is as it was");
    is_blob(other, buffer + BATON_BLOCK + 9, 3 * BATON_BLOCK, "then what was written");
    is_blob(pattern + 4 * BATON_BLOCK + 9, buffer + 4 * BATON_BLOCK + 9, sizeof buffer - 4 * BATON_BLOCK - 9, "then as it was");
}

static void test_truncate(void) {
    fresh("truncate");
    damage(3);
    is_int(0, op_truncate(store, ino, 3 * BATON_BLOCK + 5, false, &lsn), "the end lies in a bad block");
    is_int(1, atomic_load(&fetched), "which is fetched");
    is_pattern(3 * BATON_BLOCK + 5, 0, "what stays");
}

static void test_wrong(void) {
    struct mend_counts before, after;
    fresh("wrong");
    damage(0);
    struct edge edge = edge_of(0);
    mend_counts(store, &before);
    way = WRONG;
    is_int(-EIO, op_read(store, ino, buffer, 10, 0), "bytes that do not fit: an error");
    ok(!on_disk(&edge), "nor are they written");
    is_int(-EIO, op_write(store, ino, "x", 1, 5, 0, &lsn), "nor is a part of it written");
    is_int(-EIO, op_truncate(store, ino, 5, false, &lsn), "nor is a part of it kept");
    is_int(3, atomic_load(&fetched), "each asked once");
    uint8_t bytes[BATON_BLOCK] = "wrong";
    is_int(-EINVAL, store_mend(store, row_of(store, ino).data, 0, edge.place, edge.checksum, bytes), "store_mend refuses them");
    mend_counts(store, &after);
    is_int(before.found + 1, after.found, "it counts once");
    is_int(before.unmended + 1, after.unmended, "as not mended");
    is_int(ino, after.notes[after.count - 1].ino, "with its file");
    way = AWAY;
    is_int(-EIO, op_read(store, ino, buffer, 10, 0), "nobody there: an error");
    is_int(10, op_read(store, ino, buffer, 10, BATON_BLOCK), "not for another block");
    way = GOOD;
    is_pattern(10, 0, "somebody is back");
    mend_counts(store, &after);
    is_int(before.unmended, after.unmended, "mended now");
    is_int(before.mended + 1, after.mended, "counts as that");
    is_int(before.count, after.count, "and is no longer noted");
}

static void test_map_changes(void) {
    for (way = OVERWRITTEN; way <= OVERWRITTEN_AND_AWAY; way++) {
        int now = (int)way;
        fresh(way == OVERWRITTEN ? "changed" : "changed-away");
        way = now;
        damage(2);
        struct edge edge = edge_of(2);
        memset(buffer, 0, sizeof buffer);
        is_int(sizeof buffer, op_read(store, ino, buffer, sizeof buffer, 0), "overwritten while it is fetched: read");
        is_blob(other, buffer, sizeof buffer, "what is there by now");
        ok(!on_disk(&edge), "the old place is left alone");
        is_int(1, atomic_load(&fetched), "fetched once");
        is_int(-ESTALE, store_mend(store, row_of(store, ino).data, 2, edge.place, edge.checksum, pattern + 2 * BATON_BLOCK),
               "store_mend refuses it");
    }
}

static void *reader(void *result) {
    uint8_t bytes[BATON_BLOCK];
    atomic_fetch_add(&readers, 1);
    ssize_t length = op_read(store, ino, bytes, sizeof bytes, 5 * BATON_BLOCK);
    *(bool *)result = length == (ssize_t)sizeof bytes && memcmp(bytes, pattern + 5 * BATON_BLOCK, sizeof bytes) == 0;
    return NULL;
}

static void test_two_readers(void) {
    pthread_t threads[2];
    bool right[2] = {false, false};
    fresh("two");
    way = SLOW;
    damage(5);
    for (unsigned i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, reader, &right[i]) != 0)
            bail("pthread_create");
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ok(right[0] && right[1], "two readers at once read right");
    is_int(1, atomic_load(&fetched), "and it is fetched once");
}

static atomic_bool sector_bad, stays_bad;
static int bad_sector(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (!strstr(path, ".seg") || !atomic_load(&sector_bad))
        return 0;
    if (call == DISK_WRITE && !atomic_load(&stays_bad))
        atomic_store(&sector_bad, false); /* the disk takes another sector for it */
    return call == DISK_READ || (call == DISK_WRITE && atomic_load(&stays_bad)) ? EIO : 0;
}

static void test_unreadable(void) {
    struct mend_counts before, after;
    fresh("sector");
    disk_fault_set(bad_sector);
    atomic_store(&sector_bad, true);
    is_pattern(100, 3 * BATON_BLOCK, "a block that the disk does not give");
    is_int(1, atomic_load(&fetched), "is fetched");
    ok(!atomic_load(&sector_bad), "and written");
    is_pattern(100, 3 * BATON_BLOCK, "the disk gives it");
    is_int(1, atomic_load(&fetched), "from now on");
    mend_counts(store, &before);
    atomic_store(&stays_bad, true);
    atomic_store(&sector_bad, true);
    is_pattern(100, 3 * BATON_BLOCK, "a disk that does not take it back either");
    atomic_store(&sector_bad, false);
    disk_fault_set(NULL);
    mend_counts(store, &after);
    is_int(before.mended, after.mended, "that does not count as mended");
    is_int(before.unmended + 1, after.unmended, "but as bad");
    mend_counts_now(store, &after);
    is_int(before.unmended + 1, after.unmended, "it still is");
    is_int(0, op_write(store, ino, other, sizeof other, 0, 0, &lsn), "overwritten");
    mend_counts_now(store, &after);
    is_int(before.unmended, after.unmended, "it is not");
}

/* More than are noted stay bad, and are right later: who looks at all of them says how many are left. */
static void test_settled(void) {
    struct mend_counts before, after;
    uint64_t inos[3];
    mend_counts_now(store, &before);
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "many%u", i);
        fresh(name);
        inos[i] = ino;
        way = AWAY;
        for (uint64_t block = 0; block < BLOCKS; block++) {
            damage(block);
            if (op_read(store, ino, buffer, 1, block * BATON_BLOCK) != -EIO)
                bail("a damaged block is read");
        }
    }
    mend_counts(store, &after);
    is_int(before.unmended + 3 * BLOCKS, after.unmended, "more bad blocks");
    is_int(MEND_NOTED, after.count, "than are noted");
    way = GOOD;
    for (unsigned i = 0; i < 3; i++) {
        ino = inos[i];
        is_pattern(sizeof pattern, 0, "all are had");
    }
    mend_counts(store, &after);
    is_int(0, after.count, "none is noted");
    ok(after.unmended > 0, "but those that were not noted count as bad");
    mend_settle(store, 0);
    mend_counts(store, &after);
    is_int(0, after.unmended, "until somebody has looked at all");
}

static void test_kept(void) {
    struct mend_counts before, after;
    fresh("kept");
    damage(0);
    is_pattern(10, 0, "one more");
    mend_counts(store, &before);
    store_close(store);
    store = fixture_open("store");
    mend_counts(store, &after);
    ok(before.found > 0 && before.mended > 0, "something was counted");
    is_blob(&before, &after, sizeof before, "the counts are there after a restart");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "without another node");
    fresh("alone");
    damage(0);
    is_int(-EIO, op_read(store, ino, buffer, 10, 0), "a bad block is an error");
}

int main(void) {
    uint64_t seed;
    plan_lazy();
    seed = test_seed();
    for (size_t i = 0; i < sizeof pattern; i += 8) {
        uint64_t word = test_random(&seed);
        memcpy(pattern + i, &word, 8);
        word = ~word;
        memcpy(other + i, &word, 8);
    }
    store = fixture_store("store", 0);
    store_set_watch(store, &watch);
    if (store_start_epoch(store, EPOCH_MAKE(1, 7), "a"))
        bail("store_start_epoch");
    test_read();
    test_write();
    test_truncate();
    test_wrong();
    test_map_changes();
    test_two_readers();
    test_unreadable();
    test_settled();
    test_kept();
    store_close(store);
    return 0;
}
