/* Threads change everything at random; the process is killed at a random moment; the store opens again, and check has
 * nothing to say, neither of what the killed process left nor of what the open made of it. BATON_ROUNDS: 15. */
#include "fs/check.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define THREADS 3
#define FILES 40

static struct store *store;
static uint8_t bytes[1u << 20];
static uint64_t directories[2];

static uint64_t lookup(uint64_t dir, const char *name) {
    struct attributes out;
    return op_lookup(store, dir, name, &out) == 0 ? out.ino : 0;
}

static void change(uint64_t *seed) {
    char name[40], other[40];
    struct attributes out;
    uint64_t ino, lsn, victim, dir = directories[test_random(seed) % 2], to = directories[test_random(seed) % 2];
    uint64_t offset = test_random(seed) % 400000,
             length = 1 + test_random(seed) % (test_random(seed) % 8 ? 9000 : 900000);
    uint32_t left;
    snprintf(name, sizeof name, "f%llu", (unsigned long long)(test_random(seed) % FILES));
    snprintf(other, sizeof other, "f%llu", (unsigned long long)(test_random(seed) % FILES));
    ino = lookup(dir, name);
    if (!ino) {
        op_create(store, &root_caller, dir, name, test_random(seed) % 8 ? S_IFREG | 0600 : S_IFDIR | 0700, 0, NULL,
                  &out, &lsn);
        return;
    }
    switch (test_random(seed) % 10) {
    case 0:
        if (op_unlink(store, dir, name, &victim, &left, &lsn) == 0 && left == 0 && test_random(seed) % 2)
            op_reclaim(store, &victim, 1);
        else
            op_rmdir(store, dir, name, &victim, &lsn);
        break;
    case 1:
        op_rename(store, dir, name, to, other, (unsigned)(test_random(seed) % 3), &victim, &left, &lsn);
        break;
    case 2:
        op_link(store, ino, to, other, &out, &lsn);
        break;
    case 3:
        op_truncate(store, ino, test_random(seed) % 3 ? offset : 0, false, &lsn);
        break;
    case 4:
        op_fallocate(store, ino, test_random(seed) % 2 ? 0 : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length,
                     &lsn);
        break;
    case 5:
        op_setxattr(store, &root_caller, ino, "user.x", bytes, length % 3000, 0, false, &lsn);
        break;
    case 6:
        op_reclaim_some(store);
        if (op_getattr(store, ino, &out) == 0 && test_random(seed) % 10 == 0)
            store_sync(store, lsn = UINT64_MAX);
        break;
    default:
        op_write(store, ino, bytes + length % 1000, MIN(length, sizeof bytes - 1000), offset, 0, &lsn);
    }
}

static void *work(void *context) {
    uint64_t seed = (uint64_t)(uintptr_t)context;
    for (;;)
        change(&seed);
    return NULL;
}

static void child(unsigned round, uint64_t seed) __attribute__((noreturn));
static void child(unsigned round, uint64_t seed) {
    pthread_t threads[THREADS];
    store = fixture_open("store");
    if (store_start_epoch(store, EPOCH_MAKE(round + 2, 7), "a") != 0)
        _exit(1);
    directories[0] = ROOT_INO;
    directories[1] = lookup(ROOT_INO, "sub");
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(seed + i));
    pause();
    _exit(1);
}

static void tell(void *context, const char *sentence) {
    (void)context;
    diag("%s", sentence);
}

int main(void) {
    const char *text = getenv("BATON_ROUNDS");
    unsigned rounds = text ? (unsigned)atoi(text) : 15;
    char path[600];
    struct position position;
    uint64_t before = 0;

    plan_lazy();
    uint64_t seed = test_seed();
    for (size_t i = 0; i < sizeof bytes; i += 8) {
        uint64_t word = test_random(&seed);
        memcpy(bytes + i, &word, 8);
    }
    fixture_options.history_bytes = 64u << 20;
    store = fixture_store("store", 1);
    make(store, ROOT_INO, "sub", S_IFDIR | 0755);
    store_close(store);
    snprintf(path, sizeof path, "%s/store", test_directory());
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t ms = 5 + test_random(&seed) % 1500, mine = test_random(&seed);
        int status;
        pid_t pid = fork();
        if (pid == 0)
            child(round, mine);
        usleep((useconds_t)ms * 1000);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "round %u: killed after %llu ms", round,
           (unsigned long long)ms);
        is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say of what is left");
        store = fixture_open("store");
        store_position(store, &position);
        ok(position.lsn >= before, "it opens, at LSN %llu", (unsigned long long)position.lsn);
        before = position.lsn;
        store_close(store);
        is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say of that");
    }
    return 0;
}
