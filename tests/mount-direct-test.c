/* Direct writes (O_DIRECT, asynchronous) beside buffered readers of the same file: what is read after a write has been
 * answered is what was written, although readers bring pages into the cache all the time. And writes while another
 * thread switches O_DIRECT on and off: the kernel's way is not always the one that the flags of the request tell. */
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

enum { SIZE = 640 * 1024, CHUNK = 16 * 1024, ROUNDS = 300, READERS = 3, SWITCHED = 20000 };
static atomic_bool done;

static void *read_always(void *unused) {
    static _Thread_local char buffer[SIZE];
    int fd = open(rig_path("file"), O_RDONLY);

    while (fd >= 0 && !atomic_load(&done))
        if (pread(fd, buffer, sizeof buffer, 0) < 0)
            break;
    close(fd);
    return unused;
}

/* Writes the whole file in chunks, all at once. Returns how many failed. */
static int write_direct(struct io_uring *ring, int fd, char *buffer) {
    int failed = 0;

    for (int at = 0; at < SIZE; at += CHUNK)
        io_uring_prep_write(io_uring_get_sqe(ring), fd, buffer + at, CHUNK, (uint64_t)at);
    io_uring_submit(ring);
    for (int at = 0; at < SIZE; at += CHUNK) {
        struct io_uring_cqe *cqe;
        if (io_uring_wait_cqe(ring, &cqe) < 0)
            bail("io_uring does not complete");
        failed += cqe->res != CHUNK;
        io_uring_cqe_seen(ring, cqe);
    }
    return failed;
}

static int switched;
static atomic_int ended;

static void *switch_always(void *unused) {
    int flags = fcntl(switched, F_GETFL);

    while (!atomic_load(&done)) {
        fcntl(switched, F_SETFL, flags | O_DIRECT);
        fcntl(switched, F_SETFL, flags & ~O_DIRECT);
    }
    return unused;
}

/* Parts of a page: the kernel holds that page, if it has not read it, until the write is answered. */
static void *write_switched(void *block) {
    for (int i = 0; i < SWITCHED && pwrite(switched, block, 512, 512) == 512; i++)
        atomic_fetch_add(&ended, 1);
    return block;
}

static bool all_ended(void *unused) {
    (void)unused;
    return atomic_load(&ended) == 2 * SWITCHED;
}

static void test_switched(char *block) {
    pthread_t switcher, writers[2];

    atomic_store(&done, false);
    switched = open(rig_path("switched"), O_CREAT | O_RDWR, 0644);
    pthread_create(&switcher, NULL, switch_always, NULL);
    for (int i = 0; i < 2; i++)
        pthread_create(&writers[i], NULL, write_switched, block + (size_t)i * 4096);
    if (!ok(rig_until(60, all_ended, NULL), "writes end while O_DIRECT comes and goes")) {
        umount2(rig_outside(RIG_MOUNT), MNT_FORCE); /* not even SIGKILL ends a daemon that waits for such a page */
        bail("%d of %d", atomic_load(&ended), 2 * SWITCHED);
    }
    atomic_store(&done, true);
    pthread_join(switcher, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(writers[i], NULL);
    close(switched);
}

int main(void) {
    pthread_t readers[READERS];
    struct io_uring ring;
    char *buffer = aligned_alloc(4096, SIZE), *seen = malloc(SIZE);
    int failed = 0, stale = 0;

    plan_lazy();
    rig_create("acknowledge = close");
    if (!rig_start(""))
        bail("batond does not start");
    if (io_uring_queue_init(64, &ring, 0) < 0)
        skip_all("io_uring is not available");
    int fd = open(rig_path("file"), O_CREAT | O_RDWR, 0644);
    int direct = open(rig_path("file"), O_RDWR | O_DIRECT);
    memset(buffer, '.', SIZE);
    if (!ok(fd >= 0 && direct >= 0 && pwrite(fd, buffer, SIZE, 0) == SIZE, "a file is open both ways"))
        return 1;
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, read_always, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        memset(buffer, 'a' + round % 26, SIZE);
        failed += write_direct(&ring, direct, buffer);
        stale += pread(fd, seen, SIZE, 0) != SIZE || memcmp(seen, buffer, SIZE) != 0;
    }
    atomic_store(&done, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    is_int(0, failed, "all direct writes succeed");
    is_int(0, stale, "nothing old is read after a write was answered");
    close(fd);
    close(direct);
    test_switched(buffer);
    io_uring_queue_exit(&ring);
    is_int(0, rig_stop(SIGTERM), "batond ends cleanly");
    free(buffer);
    free(seen);
    return 0;
}
