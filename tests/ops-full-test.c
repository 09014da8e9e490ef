/* Threads change everything at random on a disk that runs full and is emptied again, several times: nothing but ENOSPC
 * is to be seen, also by readers, and check has nothing to say afterwards. BATON_ROUNDS: 4. */
#include "fs/check.h"
#include "tests/churn.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define THREADS 3

static struct store *store;
static uint64_t directories[2];
static atomic_bool done;
static atomic_int worst;
static atomic_uint changes;

static void *work(void *context) {
    uint64_t seed = (uint64_t)(uintptr_t)context;
    while (!atomic_load(&done)) {
        int error = churn(store, directories, &seed);
        if (error)
            atomic_store(&worst, error);
        atomic_fetch_add(&changes, 1);
    }
    return NULL;
}

/* Something else on the disk that takes its space. */
static void ballast(const char *disk, unsigned mib) {
    char path[700];
    snprintf(path, sizeof path, "%s/ballast", disk);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        bail("%s", path);
    for (; mib > 0 && posix_fallocate(fd, (off_t)(mib - 1) << 20, 1 << 20) == 0; mib--)
        ;
    close(fd);
}

static void disk_make(char *disk, size_t room) {
    char command[4000];
    snprintf(disk, room, "%s/disk", test_directory());
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skip_all("cannot make a mount namespace: %s", strerror(errno));
    snprintf(command, sizeof command,
             "mkdir %s && truncate -s 500M %s.image && mkfs.ext4 -q -m 0 %s.image && mount -o loop %s.image %s", disk,
             disk, disk, disk, disk);
    if (system(command) != 0)
        bail("failed: %s", command);
}

int main(void) {
    const char *text = getenv("BATON_ROUNDS");
    unsigned rounds = text ? (unsigned)atoi(text) : 4;
    char disk[540], path[600];
    pthread_t threads[THREADS];

    plan_lazy();
    if (geteuid() != 0)
        skip_all("needs root: it mounts a small disk");
    uint64_t seed = test_seed();
    churn_prepare(&seed);
    disk_make(disk, sizeof disk);
    fixture_options.reserve_bytes = 16u << 20;
    fixture_options.tail_size = 1u << 20;
    fixture_options.checkpoint_ms = 100;
    store = fixture_store("disk/store", 1);
    directories[0] = ROOT_INO;
    directories[1] = make(store, ROOT_INO, "sub", S_IFDIR | 0755);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(seed + i));
    for (unsigned round = 0; round < rounds; round++) {
        struct store_space space;
        ballast(disk, 500);
        usleep(1500000);
        store_space(store, &space);
        unsigned before = atomic_load(&changes);
        ballast(disk, 0);
        int64_t deadline = clock_boot() + 30000000000;
        while (atomic_load(&changes) <= before && clock_boot() < deadline)
            usleep(10000); /* poll interval */
        usleep(1500000); /* of work */
        ok(atomic_load(&changes) > before, "round %u: goes on after a full disk (%llu bytes were free, %u changes)",
           round, (unsigned long long)space.free, atomic_load(&changes));
    }
    done = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    is_int(0, worst, "no error but ENOSPC");
    store_close(store);
    snprintf(path, sizeof path, "%s/store", disk);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say");
    store = fixture_open("disk/store");
    store_close(store);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "nor after another open");
    umount2(disk, MNT_DETACH);
    return 0;
}
