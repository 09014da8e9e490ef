/* Unlinked files live as long as they are open, over caches dropped and a restart's grace time, and then give back
 * their space; the kernel's forgets are counted right while caches are dropped, files unlinked and renamed, and large
 * directories listed. */
#include "tests/rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static uint64_t inodes_used(void) {
    struct statvfs space;
    return statvfs(rig_path("."), &space) < 0 ? 0 : space.f_files - space.f_ffree;
}

static bool uses(void *inodes) {
    return inodes_used() == *(uint64_t *)inodes;
}

static int put(const char *name, const char *content) {
    int fd = open(rig_path(name), O_CREAT | O_RDWR | O_TRUNC, 0644);
    if (fd < 0 || write(fd, content, strlen(content)) < 0)
        bail("%s: %s", name, strerror(errno));
    return fd;
}

static void test_open(void) {
    char seen[16] = "";
    struct stat about;
    uint64_t before = inodes_used();
    int fd = put("open", "here"), replaced = put("target", "old");

    close(put("source", "new"));
    unlink(rig_path("open"));
    rename(rig_path("source"), rig_path("target"));
    rig_drop_caches();
    usleep(200000); /* time enough for a wrong reclaim */
    is_int(4, pread(fd, seen, sizeof seen, 0), "an unlinked open file is read");
    is_string("here", seen, "and right");
    is_int(3, pread(replaced, seen, sizeof seen, 0), "a replaced open file, too");
    is_int(5, pwrite(fd, "there", 5, 4), "it is written");
    is_int(0, fstat(fd, &about), "and has attributes");
    is_int(9, about.st_size, "with its new size");
    is_int(0, about.st_nlink, "and no links");
    close(fd);
    close(replaced);
    uint64_t after = before + 1; /* target */
    ok(rig_until(60, uses, &after), "closed, they are gone");
}

/* In earlier epochs unlinked: their number, and that it falls only after the grace time. */
static void test_restart(void) {
    uint64_t before = inodes_used();
    int fd = put("crash", "x");

    unlink(rig_path("crash"));
    fsync(fd);
    rig_stop(SIGKILL);
    close(fd);
    ok(rig_start("--orphan-grace 3s"), "killed and started");
    is_int(before + 1, inodes_used(), "the orphan is kept for a while");
    ok(rig_until(60, uses, &before), "and then goes");
}

enum { NAMES = 300, ROUNDS = 4000 };
static atomic_bool done;

static void *drop_always(void *unused) {
    while (!atomic_load(&done)) {
        rig_drop_caches();
        usleep(1000);
    }
    return unused;
}

static void *list_always(void *unused) {
    while (!atomic_load(&done)) {
        DIR *directory = opendir(rig_path("many"));
        struct dirent *entry;
        struct stat about;
        while (directory && (entry = readdir(directory)))
            fstatat(dirfd(directory), entry->d_name, &about, 0);
        if (directory)
            closedir(directory);
    }
    return unused;
}

static void *change_always(void *context) {
    uint64_t random = (uint64_t)(uintptr_t)context;
    char a[64], b[64];

    for (int i = 0; i < ROUNDS; i++) {
        snprintf(a, sizeof a, "many/%d", (int)(test_random(&random) % NAMES));
        snprintf(b, sizeof b, "many/%d", (int)(test_random(&random) % NAMES));
        int fd;
        switch (test_random(&random) % 5) {
        case 0:
        case 1:
            fd = open(rig_path(a), O_CREAT | O_RDWR, 0644);
            if (fd >= 0)
                close(fd);
            break;
        case 2:
            unlink(rig_path(a));
            break;
        case 3:
            rename(rig_path(a), rig_path(b));
            break;
        default:
            link(rig_path(a), rig_path(b));
            break;
        }
    }
    return NULL;
}

static void test_forgets(void) {
    pthread_t dropper, lister, changers[3];
    uint64_t seed = test_seed(), before = inodes_used(), name_count = 0;

    mkdir(rig_path("many"), 0755);
    pthread_create(&dropper, NULL, drop_always, NULL);
    pthread_create(&lister, NULL, list_always, NULL);
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&changers[i], NULL, change_always, (void *)(uintptr_t)(seed + i));
    for (int i = 0; i < 3; i++)
        pthread_join(changers[i], NULL);
    atomic_store(&done, true);
    pthread_join(dropper, NULL);
    pthread_join(lister, NULL);
    ok(!rig_logged("forgets inode"), "the kernel never forgets more than it was told");
    DIR *directory = opendir(rig_path("many"));
    struct dirent *entry;
    static char doomed[NAMES][32];
    while (directory && (entry = readdir(directory)))
        if (entry->d_name[0] != '.' && name_count < NAMES)
            snprintf(doomed[name_count++], sizeof doomed[0], "many/%.20s", entry->d_name);
    closedir(directory);
    for (uint64_t i = 0; i < name_count; i++)
        unlink(rig_path(doomed[i]));
    is_int(0, rmdir(rig_path("many")), "all names can be removed");
    rig_drop_caches();
    ok(rig_until(60, uses, &before), "and nothing is left");
    diag("inodes in use: %llu before, %llu now", (unsigned long long)before, (unsigned long long)inodes_used());
}

int main(void) {
    plan_lazy();
    rig_create("acknowledge = never");
    if (!rig_start("--orphan-grace 0s"))
        bail("batond does not start");
    test_open();
    test_restart();
    test_forgets();
    is_int(0, rig_stop(SIGTERM), "batond ends cleanly");
    return 0;
}
