/* One operation of each kind after the other, each then undone: the tables are bit for bit as they were before it, also
 * when the store was closed and opened in between. Every record type is among them. */
#include "fs/ops_parts.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>

#define STEPS_MAX 64

static struct store *store;
static struct step {
    const char *what;
    uint64_t lsn;
    struct tables *before;
} list[STEPS_MAX];
static int count;
static bool types[RECORD_TYPE_END];
static struct attributes out;
static uint64_t lsn, ino;
static uint32_t left;
static uint8_t bytes[200000];

static void before(const char *what) {
    struct position position;
    store_position(store, &position);
    list[count++] = (struct step){what, position.lsn, tables_take(store, TABLES_EXACT)};
}

static void after(int error) {
    struct position position;
    if (error)
        bail("%s: %d", list[count - 1].what, error);
    store_position(store, &position);
    for (uint64_t at = list[count - 1].lsn + 1; at <= position.lsn; at++) {
        struct entry *entry;
        struct record_head head;
        if (store_read(store, at, &entry) != 0)
            bail("store_read");
        memcpy(&head, entry->bytes, sizeof head);
        types[head.type] = true;
        entry_put(entry);
    }
}

#define STEP(what, call)                                                                                               \
    do {                                                                                                               \
        before(what);                                                                                                  \
        after(call);                                                                                                   \
    } while (0)

static int create(const char *name, uint32_t mode) {
    return op_create(store, &root_caller, ROOT_INO, name, mode, 0, "target", &out, &lsn);
}

static void names(void) {
    STEP("create", create("a", S_IFREG | 0644));
    STEP("mkdir", create("d", S_IFDIR | 0755));
    STEP("symlink", create("l", S_IFLNK));
    STEP("a file without a name", op_tmpfile(store, &root_caller, ROOT_INO, 0600, &out, &lsn));
    STEP("its first link", op_link(store, out.ino, ROOT_INO, "t", &out, &lsn));
    STEP("a second link", op_link(store, out.ino, ROOT_INO, "t2", &out, &lsn));
    STEP("unlink of one of two", op_unlink(store, ROOT_INO, "t2", &ino, &left, &lsn));
    STEP("rename", op_rename(store, &root_caller, ROOT_INO, "t", ROOT_INO, "u", 0, &ino, &left, &lsn));
    STEP("exchange", op_rename(store, &root_caller, ROOT_INO, "d", ROOT_INO, "u", 2, &ino, &left, &lsn));
    STEP("rename with a whiteout", op_rename(store, &root_caller, ROOT_INO, "l", ROOT_INO, "w", 4, &ino, &left, &lsn));
    STEP("over a whiteout, with another",
         op_rename(store, &root_caller, ROOT_INO, "w", ROOT_INO, "l", 4, &ino, &left, &lsn));
    STEP("reclaim of the first", op_reclaim(store, &ino, 1));
    STEP("rename over a file", op_rename(store, &root_caller, ROOT_INO, "l", ROOT_INO, "d", 0, &ino, &left, &lsn));
    STEP("reclaim of that file", op_reclaim(store, &ino, 1));
    STEP("rmdir", op_rmdir(store, ROOT_INO, "u", &ino, &lsn));
}

static void data(uint64_t file) {
    STEP("write", op_write(store, file, bytes, 150000, 0, 0, &lsn));
    STEP("an overwrite within", op_write(store, file, bytes + 7, 10000, 50000, 0, &lsn));
    STEP("an append", op_write(store, file, bytes + 9, 5000, 0, WRITE_APPEND, &lsn));
    STEP("truncate within a block", op_truncate(store, file, 100001, false, &lsn));
    STEP("truncate upwards", op_truncate(store, file, 1000001, false, &lsn));
    STEP("fallocate", op_fallocate(store, file, 0, 500000, 700000, &lsn));
    STEP("a write into it", op_write(store, file, bytes, 5000, 600000, 0, &lsn));
    STEP("punch", op_fallocate(store, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 30000, 600000, &lsn));
    STEP("zero range", op_fallocate(store, file, FALLOC_FL_ZERO_RANGE, 10000, 20000, &lsn));
    ops_rows_max = 2;
    for (int i = 0; i < 10; i++)
        op_write(store, file, bytes, 100, (uint64_t)i * 10000, 0, &lsn);
    STEP("a truncate that leaves a pending trim", op_truncate(store, file, 5000, false, &lsn));
    STEP("a step of the trim", op_reclaim_some(store) < 0);
    STEP("a write that finishes it", op_write(store, file, bytes, 100, 900000, 0, &lsn));
    for (int i = 0; i < 10; i++)
        op_write(store, file, bytes, 100, (uint64_t)i * 10000, 0, &lsn);
    STEP("a truncate to another data id", op_truncate(store, file, 0, false, &lsn));
    STEP("a step of freeing the old one", op_reclaim_some(store) < 0);
    STEP("another", op_reclaim_some(store) < 0);
    ops_rows_max = 256;
}

static void attributes(uint64_t file) {
    static const uint8_t acl[] = {2, 0, 0,   0,   1,   0,   6,  0, 255, 255, 255, 255, 2,   0,  4,
                                  0, 5, 0,   0,   0,   4,   0,  4, 0,   255, 255, 255, 255, 16, 0,
                                  7, 0, 255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};
    struct set_attributes mode = {.mask = SET_MODE, .mode = 04711}, owner = {.mask = SET_UID, .uid = 7},
                          times = {.mask = SET_ATIME | SET_MTIME, .atime_now = true};
    STEP("setxattr", op_setxattr(store, &root_caller, file, "user.a", "value", 5, 0, false, &lsn));
    STEP("of another value", op_setxattr(store, &root_caller, file, "user.a", "v", 1, 0, false, &lsn));
    STEP("a capability", op_setxattr(store, &root_caller, file, "security.capability", "c", 1, 0, false, &lsn));
    STEP("an access list",
         op_setxattr(store, &root_caller, file, "system.posix_acl_access", acl, sizeof acl, 0, false, &lsn));
    STEP("chmod", op_setattr(store, &root_caller, file, &mode, &out, &lsn));
    STEP("chown", op_setattr(store, &root_caller, file, &owner, &out, &lsn));
    STEP("utimens", op_setattr(store, &root_caller, file, &times, &out, &lsn));
    STEP("removexattr", op_removexattr(store, file, "user.a", &lsn));
    STEP("unlink", op_unlink(store, ROOT_INO, "a", &ino, &left, &lsn));
    STEP("reclaim", op_reclaim(store, &ino, 1));
}

static void undo_all(void) {
    char why[1200];
    store_stop_epoch(store);
    while (count > 0) {
        struct step *step = &list[--count];
        int error = store_undo(store, step->lsn);
        struct tables *tables = tables_take(store, TABLES_EXACT);
        bool equal = !error && tables_equal(step->before, tables, why, sizeof why);
        ok(equal, "%s is undone", step->what);
        if (!equal)
            diag("%d: %s", error, why);
        tables_free(tables);
        tables_free(step->before);
        if (count % 10 == 5) { /* images come from the disk then */
            store_close(store);
            store = fixture_open("store");
        }
    }
}

int main(void) {
    plan_lazy();
    uint64_t seed = test_seed();
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)test_random(&seed);
    store = fixture_store("store", 0);
    STEP("the start of an epoch", store_start_epoch(store, EPOCH_MAKE(1, 7), "a"));
    names();
    op_lookup(store, ROOT_INO, "a", &out);
    uint64_t file = out.ino;
    data(file);
    attributes(file);
    for (uint16_t type = 1; type < RECORD_TYPE_END; type++)
        ok(types[type], "%s was among them", record_type_name(type));
    undo_all();
    store_close(store);
    return 0;
}
