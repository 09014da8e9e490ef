/* A primary is lost, and with it the last of what it did; the node that goes on does not use again the inode numbers
 * and cookies that the lost files had, and times only grow, although its clock is an hour behind. */
#include "tests/fixture.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define FILES 20

static _Atomic int64_t clock_error; /* seconds, of the clock that gives times */

int clock_gettime(clockid_t id, struct timespec *now) {
    int rc = (int)syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += clock_error;
    return rc;
}

struct used {
    uint64_t numbers[2 * FILES + 10];
    int count;
};

static int take_numbers(void *context, const struct directory_entry *entry) {
    struct used *used = context;
    used->numbers[used->count++] = entry->ino;
    used->numbers[used->count++] = entry->cookie;
    return 0;
}

/* Makes files in a new directory; gives their numbers and cookies. */
static void make_files(struct store *store, const char *name, struct used *used) {
    uint64_t dir = make(store, ROOT_INO, name, S_IFDIR | 0755);
    char file[20];
    for (int i = 0; i < FILES; i++) {
        snprintf(file, sizeof file, "f%d", i);
        make(store, dir, file, S_IFREG | 0600);
    }
    if (op_readdir(store, dir, 0, false, take_numbers, used) != 0)
        bail("op_readdir");
}

static void test_numbers(void) {
    struct store *a = fixture_store("a", 1), *b = fixture_store("b", 0);
    struct position common;
    struct used lost = {.count = 0}, later = {.count = 0};
    int again = 0;

    make(a, ROOT_INO, "shared", S_IFREG | 0600);
    ok(fixture_feed(a, b), "b has what a has");
    store_position(b, &common);
    make_files(a, "lost", &lost);
    if (store_start_epoch(b, EPOCH_MAKE(2, 8), "b") != 0)
        bail("store_start_epoch");
    make_files(b, "later", &later);
    is_int(2 * FILES, lost.count, "a goes on and makes files");
    is_int(2 * FILES, later.count, "b, without them, makes others");
    for (int i = 0; i < lost.count; i++)
        for (int j = 0; j < later.count; j++)
            again += lost.numbers[i] == later.numbers[j];
    is_int(0, again, "no number and no cookie is used a second time");
    store_stop_epoch(a);
    is_int(0, store_undo(a, common.lsn), "a takes back what was lost");
    ok(fixture_feed(b, a), "and follows b");
    fixture_same(a, b, "both say the same");
    store_close(a);
    store_close(b);
}

static struct file_time changed(struct store *store, uint64_t ino, uint32_t mode) {
    struct set_attributes set = {.mask = SET_MODE, .mode = mode};
    struct attributes out;
    uint64_t lsn;
    is_int(0, op_setattr(store, &root_caller, ino, &set, &out, &lsn), "a change");
    return out.row.ctime;
}

static void test_times(void) {
    clock_error = 3600;
    struct store *a = fixture_store("fast", 1), *b = fixture_store("slow", 0);
    uint64_t ino = make(a, ROOT_INO, "file", S_IFREG | 0600), lsn;
    struct file_time last = changed(a, ino, 0640);
    ok(fixture_feed(a, b), "b has what a has");
    clock_error = 0;
    if (store_start_epoch(b, EPOCH_MAKE(2, 8), "b") != 0)
        bail("store_start_epoch");
    for (uint32_t i = 0; i < 3; i++) {
        struct file_time now = changed(b, ino, 0600 | i);
        ok(file_time_compare(now, last) > 0, "its ctime is later than the last that was seen");
        last = now;
    }
    is_int(0, op_write(b, ino, "x", 1, 0, 0, &lsn), "a write");
    ok(file_time_compare(row_of(b, ino).ctime, last) > 0, "sets a later one, too");
    ok(file_time_compare(row_of(b, ino).mtime, last) > 0, "and the mtime with it");
    uint64_t other = make(b, ROOT_INO, "other", S_IFREG | 0600);
    ok(file_time_compare(row_of(b, other).ctime, last) > 0, "a new file is not older than what was there before");
    last = row_of(b, ino).ctime;
    store_close(b);
    b = fixture_open("slow");
    if (store_start_epoch(b, EPOCH_MAKE(3, 8), "b") != 0)
        bail("store_start_epoch");
    ok(file_time_compare(changed(b, ino, 0644), last) > 0, "also after it was closed and opened");
    store_close(a);
    store_close(b);
}

int main(void) {
    plan_lazy();
    test_numbers();
    test_times();
    return 0;
}
