/* Small data is put away to be written later, its place is given up and, after a refused commit, handed out again to
 * other data: that is what is read, and what is on the disk in the end. */
#include "fs/check.h"
#include "fs/store_internal.h"
#include "tests/disk-fault.h"
#include "tests/fixture.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_int refuse_commits, refused;
static int how;

static int full(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (call != DISK_WRITE || !strstr(path, "/meta/data.mdb") || atomic_fetch_sub(&refuse_commits, 1) <= 0)
        return 0;
    atomic_fetch_add(&refused, 1);
    return how;
}

static void run(const char *name, int error) {
    static uint8_t small[16384], big[65536], back[65536];
    char path[600];
    uint64_t lsn;
    how = error;
    fixture_options.commit_ms = 20;
    fixture_options.checkpoint_ms = 3600000;
    struct store *store = fixture_store(name, 1);
    uint64_t ino = make(store, ROOT_INO, "f", S_IFREG | 0600);
    store_checkpoint(store);
    memset(small, 'a', sizeof small);
    memset(big, 'B', sizeof big);
    struct place places[STORE_PLACES_MAX];
    uint32_t count = 0;
    atomic_store(&refused, 0);
    atomic_store(&refuse_commits, 1);
    disk_fault_set(full);
    /* What op_write does when it finds that somebody was faster (TRY_AGAIN), or meets ENOSPC, after it has written. */
    store_lock(store);
    int rc = store_allocate(store, 4, places, &count);
    store_unlock(store);
    rc = rc ? rc : store_write_blocks(store, places, count, small, sizeof small);
    store_lock(store);
    store_release(store, places, count);
    pthread_cond_signal(&store->work);
    store_unlock(store);
    is_int(0, rc, "a small write is begun and given up");
    for (int i = 0; i < 60000 && atomic_load(&refused) < 1; i++)
        usleep(1000);
    is_int(1, atomic_load(&refused), "a commit is refused");
    store_checkpoint(store); /* what was refused is made up for */
    disk_fault_set(NULL);
    rc = op_write(store, ino, big, sizeof big, 0, 0, &lsn);
    is_int(0, rc, "64 KiB are written");
    is_int(0, store_sync(store, lsn), "and synced");
    memset(back, 0, sizeof back);
    is_int(sizeof back, op_read(store, ino, back, sizeof back, 0), "%s: they can be read", name);
    ok(memcmp(back, big, sizeof big) == 0, "as written");
    store_checkpoint(store);
    is_int(sizeof back, op_read(store, ino, back, sizeof back, 0), "after a checkpoint, too");
    store_close(store);
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say");
}

int main(void) {
    plan_lazy();
    run("enospc", ENOSPC);
    run("eio", EIO);
    return 0;
}
