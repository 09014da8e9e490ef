/* Threads change everything at random; the process is killed at a random moment; the store opens again, and check has
 * nothing to say, neither of what the killed process left nor of what the open made of it. BATON_ROUNDS: 15. */
#include "fs/check.h"
#include "tests/churn.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define THREADS 3

static struct store *store;
static uint64_t directories[2];

static void *work(void *context) {
    uint64_t seed = (uint64_t)(uintptr_t)context;
    for (;;)
        churn(store, directories, &seed);
    return NULL;
}

static void child(unsigned round, uint64_t seed) __attribute__((noreturn));
static void child(unsigned round, uint64_t seed) {
    pthread_t threads[THREADS];
    store = fixture_open("store");
    if (store_start_epoch(store, EPOCH_MAKE(round + 2, 7), "a") != 0)
        _exit(1);
    directories[0] = ROOT_INO;
    struct attributes out;
    if (op_lookup(store, ROOT_INO, "sub", &out) != 0)
        _exit(1);
    directories[1] = out.ino;
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(seed + i));
    pause();
    _exit(1);
}

int main(void) {
    const char *text = getenv("BATON_ROUNDS");
    unsigned rounds = text ? (unsigned)atoi(text) : 15;
    char path[600];
    struct position position;
    uint64_t before = 0;

    plan_lazy();
    uint64_t seed = test_seed();
    churn_prepare(&seed);
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
