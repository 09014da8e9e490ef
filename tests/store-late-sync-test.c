/* A sync that takes long, while the history that it is to make durable is undone and another one of the same numbers is
 * written: none of that is called durable, for nobody has flushed it. */
#include "fs/store_internal.h"
#include "tests/disk-fault.h"
#include "tests/fixture.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct store *store;
static atomic_int hold, held;
static uint64_t durable_before; /* the last flush of a tail file by the syncer: all that went before it is accounted for */

static int slow(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (call != DISK_SYNC || !pthread_equal(pthread_self(), store->syncer) || !strstr(path, "/tail/"))
        return 0;
    durable_before = store_durable(store);
    while (atomic_load(&hold)) {
        atomic_store(&held, 1);
        usleep(1000); /* poll interval */
    }
    return 0;
}

static void make_files(int from, int to) {
    for (int i = from; i < to; i++) {
        char name[12];
        snprintf(name, sizeof name, "%d", i);
        make(store, ROOT_INO, name, S_IFREG | 0600);
    }
}

int main(void) {
    struct position middle, end, at;
    plan_lazy();
    fixture_options.checkpoint_ms = 3600000;
    store = fixture_store("a", 1);
    make_files(0, 10);
    store_position(store, &middle);
    store_checkpoint(store);
    make_files(10, 20);
    store_position(store, &end);
    atomic_store(&hold, 1);
    disk_fault_set(slow);
    store_want_durable(store, end.lsn);
    while (!atomic_load(&held))
        usleep(1000); /* poll interval */
    store_stop_epoch(store);
    is_int(0, store_undo(store, middle.lsn), "what is being made durable is undone");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "another history begins");
    make_files(10, 25);
    store_position(store, &at);
    ok(at.lsn > end.lsn, "and is longer");
    is_int(middle.lsn, at.durable, "durable is what both have");
    atomic_store(&hold, 0);
    is_int(0, store_sync(store, at.lsn), "the new one is made durable when that is asked for");
    is_int(middle.lsn, durable_before, "until then, when the flush of the old one had returned, it was still what both have");
    store_position(store, &at);
    ok(at.durable >= at.lsn, "and the new one is called so");
    disk_fault_set(NULL);
    store_close(store);
    return 0;
}
