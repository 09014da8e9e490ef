/* A file with thousands of extents: whatever is done to all of it is cut into records that change a few hundred rows
 * each, so that none holds the engine lock for long and none makes a batch too large. */
#include "tests/fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>

#define EXTENTS 2000u
#define ROWS_MAX 300u /* ops_rows_max, and a few for inodes and orphans */

static struct store *store;
static uint64_t lsn;
static uint32_t left;

/* Every second block is written. */
static uint64_t scattered(const char *name) {
    uint64_t ino = make(store, ROOT_INO, name, S_IFREG | 0600);
    for (uint64_t i = 0; i < EXTENTS; i++)
        if (op_write(store, ino, "x", 1, i * 2 * BATON_BLOCK, 0, &lsn) != 0)
            bail("op_write");
    return ino;
}

/* Rows of the map that the largest record after `from` changed. */
static uint32_t largest(uint64_t from) {
    struct position position;
    uint32_t most = 0;
    store_position(store, &position);
    store_lock(store);
    for (uint64_t at = from + 1; at <= position.lsn; at++) {
        struct key key = key_u64(at);
        struct span value;
        struct journal_row row;
        struct undo_image image;
        uint32_t rows = 0, offset = 0;
        if (table_get(store, TABLE_JOURNAL, &key, &value) != 0 || journal_row_parse(value, &row) != 0)
            bail("record %llu", (unsigned long long)at);
        while (undo_next(&row.undo, &offset, &image) == 1)
            rows += image.table == TABLE_EXTENT;
        most = MAX(most, rows);
    }
    store_unlock(store);
    return most;
}

/* What an operation left for the background. */
static int finish(void) {
    int more;
    while ((more = op_reclaim_some(store)) > 0)
        ;
    return more;
}

static void judge(const char *what, uint64_t from, uint64_t live) {
    struct store_space space;
    is_int(0, finish(), "%s: the rest is freed", what);
    uint32_t most = largest(from);
    ok(most > 100 && most <= ROWS_MAX, "%s: at most %u rows in one record", what, most);
    store_space(store, &space);
    is_int(live * BATON_BLOCK, space.live, "%s: and nothing of it is left", what);
}

static uint64_t now(void) {
    struct position position;
    store_position(store, &position);
    return position.lsn;
}

int main(void) {
    plan_lazy();
    store = fixture_store("store", 1);
    uint64_t ino = scattered("truncated"), from = now();
    is_int(0, op_truncate(store, ino, BATON_BLOCK, false, &lsn), "truncate to a block");
    judge("truncate", from, 1);
    is_int(0, op_truncate(store, ino, 0, false, &lsn), "to nothing");

    ino = scattered("emptied");
    from = now();
    is_int(0, op_truncate(store, ino, 0, false, &lsn), "truncate to nothing");
    judge("truncate to nothing", from, 0);

    ino = scattered("punched");
    from = now();
    is_int(0, op_fallocate(store, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * EXTENTS * BATON_BLOCK, &lsn),
           "punch all");
    judge("punch", from, 0);

    ino = scattered("unlinked");
    from = now();
    is_int(0, op_unlink(store, ROOT_INO, "unlinked", &ino, &left, &lsn), "unlink");
    is_int(from + 1, lsn, "is one record");
    is_int(0, op_reclaim(store, &ino, 1), "reclaim");
    judge("unlink", from, 0);

    scattered("replaced");
    make(store, ROOT_INO, "new", S_IFREG | 0600);
    from = now();
    is_int(0, op_rename(store, &root_caller, ROOT_INO, "new", ROOT_INO, "replaced", 0, &ino, &left, &lsn), "rename over it");
    is_int(from + 1, lsn, "is one record");
    is_int(0, op_reclaim(store, &ino, 1), "reclaim");
    judge("rename", from, 0);
    store_close(store);
    return 0;
}
