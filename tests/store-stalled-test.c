/* A disk that takes its time over a checkpoint, while others go on writing: they wait before tail and memory are full, and
 * who waits hears at once when the epoch has ended. */
#include "tests/disk-fault.h"
#include "tests/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define PATIENCE 60000000000
#define STILL 1000000000 /* ns without progress: it waits */

static struct store *store;
static atomic_bool stall, stalled, waits;
static uint64_t ino;

static int hold(enum disk_call call, const char *path, size_t length) {
    (void)length;
    while (atomic_load(&stall) && call == DISK_SYNC && strstr(path, "/meta/data.mdb")) {
        atomic_store(&stalled, true);
        usleep(1000); /* poll interval */
    }
    return 0;
}

/* Until the committer is in the middle of a checkpoint, where it does not hold the lock. */
static void stall_disk(void) {
    uint64_t lsn;
    int64_t deadline = clock_boot() + PATIENCE;
    atomic_store(&stalled, false);
    atomic_store(&stall, true);
    disk_fault_set(hold);
    while (!atomic_load(&stalled) && clock_boot() < deadline) {
        op_write(store, ino, "x", 1, 0, 0, &lsn);
        usleep(1000); /* poll interval */
    }
    ok(atomic_load(&stalled), "a checkpoint waits for the disk");
}

static void go_on(void) {
    atomic_store(&stall, false);
    disk_fault_set(NULL);
}

static void *write_on(void *context) {
    static uint8_t data[STORE_INLINE_MAX];
    uint64_t lsn;
    int rc = 0;
    memset(data, 'x', sizeof data);
    while (rc == 0)
        rc = op_write(store, ino, data, sizeof data, 0, 0, &lsn);
    *(int *)context = rc;
    return NULL;
}

static void *admit(void *context) {
    store_lock(store);
    atomic_store(&waits, true); /* so it does when the lock is free again */
    *(int *)context = store_admit(store, SPACE_FREE);
    store_unlock(store);
    return NULL;
}

/* The position when nobody gets any further. */
static struct position standstill(void) {
    struct position position, before = {0};
    int64_t since = clock_boot(), deadline = since + PATIENCE;
    do {
        usleep(10000); /* poll interval */
        store_position(store, &position);
        if (position.lsn != before.lsn)
            since = clock_boot();
        before = position;
    } while (clock_boot() - since < STILL && clock_boot() < deadline);
    return position;
}

static bool join(pthread_t thread) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

/* The epoch ends while one thread waits in an operation, another in store_admit, and the disk does not move at all. */
static void test_epoch_ends(void) {
    pthread_t writer, waiter;
    int wrote = 1, admitted = 1;
    struct position after;
    fixture_options.tail_size = 1u << 20;
    fixture_options.checkpoint_ms = 50;
    store = fixture_store("epoch", 1);
    ino = make(store, ROOT_INO, "f", S_IFREG | 0600);
    stall_disk();
    pthread_create(&writer, NULL, write_on, &wrote);
    struct position before = standstill();
    is_int(1, wrote, "the tail is full: a writer waits");
    pthread_create(&waiter, NULL, admit, &admitted);
    while (!atomic_load(&waits))
        usleep(1000); /* poll interval */
    store_stop_epoch(store);
    bool joined = join(writer);
    joined = join(waiter) && joined;
    ok(joined, "the epoch ends: nobody waits any longer");
    if (!joined) {
        go_on();
        pthread_join(writer, NULL);
        pthread_join(waiter, NULL);
    }
    is_int(-EROFS, wrote, "the write is refused");
    is_int(-EROFS, admitted, "nobody is admitted");
    store_position(store, &after);
    is_int((int64_t)before.lsn, (int64_t)after.lsn, "nothing was appended");
    go_on();
    is_int(0, store_checkpoint(store), "the disk moves again: a checkpoint succeeds");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "the next epoch starts");
    store_close(store);
}

/* Thousands of records with 32 KiB each would fit into the tail: memory is the bound. */
static void test_batch(void) {
    pthread_t writer;
    int wrote = 1;
    fixture_options.tail_size = 96u << 20;
    store = fixture_store("batch", 1);
    ino = make(store, ROOT_INO, "f", S_IFREG | 0600);
    stall_disk();
    pthread_create(&writer, NULL, write_on, &wrote);
    struct position at = standstill();
    uint64_t bytes = (at.lsn - at.committed) * STORE_INLINE_MAX;
    is_int(1, wrote, "nothing can be committed: a writer waits");
    ok(bytes > 8u << 20 && bytes <= (32u << 20) + STORE_INLINE_MAX, "%llu records, %llu MiB, wait in memory",
       (unsigned long long)(at.lsn - at.committed), (unsigned long long)(bytes >> 20));
    go_on();
    int64_t deadline = clock_boot() + PATIENCE;
    struct position later = at;
    while (later.lsn <= at.lsn + 100 && clock_boot() < deadline) {
        usleep(1000); /* poll interval */
        store_position(store, &later);
    }
    ok(later.lsn > at.lsn + 100, "the disk moves again: writing goes on");
    store_stop_epoch(store);
    pthread_join(writer, NULL);
    is_int(-EROFS, wrote, "until the epoch ends");
    store_close(store);
}

int main(void) {
    plan_lazy();
    test_epoch_ends();
    test_batch();
    return 0;
}
