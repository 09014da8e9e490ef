/* Threads that write to the same blocks, append, truncate and read at once: no byte of a finished write is lost, no
 * reader sees damage (two writes to one block both read the old block; the later one must not undo the earlier). */
#include "tests/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#define THREADS 4
#define ROUNDS 3000

static struct store *store;
static uint64_t shared, appended, churned;
static atomic_int failures;
static atomic_bool done;

/* Each thread owns every THREADS-th group of 100 bytes: all share all blocks. */
static void *overwrite(void *context) {
    uint64_t mine = (uint64_t)(uintptr_t)context, seed = mine + 1, lsn;
    uint8_t counters[10] = {0}, bytes[100];
    for (int i = 0; i < ROUNDS; i++) {
        unsigned at = (unsigned)(test_random(&seed) % 10);
        memset(bytes, ++counters[at], sizeof bytes);
        if (op_write(store, shared, bytes, sizeof bytes, (at * THREADS + mine) * 100, 0, &lsn) != 0)
            failures++;
    }
    for (unsigned at = 0; at < 10; at++) {
        uint8_t seen[100];
        if (counters[at] == 0)
            continue;
        memset(bytes, counters[at], sizeof bytes);
        if (op_read(store, shared, seen, sizeof seen, (at * THREADS + mine) * 100) != 100 ||
            memcmp(seen, bytes, 100) != 0)
            failures++;
    }
    return NULL;
}

static void *append(void *context) {
    uint64_t mine = (uint64_t)(uintptr_t)context, lsn;
    uint8_t line[37];
    memset(line, 'a' + (int)mine, sizeof line);
    for (int i = 0; i < ROUNDS; i++)
        if (op_write(store, appended, line, sizeof line, 0, WRITE_APPEND, &lsn) != 0)
            failures++;
    return NULL;
}

static void *churn(void *context) {
    uint64_t seed = (uint64_t)(uintptr_t)context + 77, lsn;
    static uint8_t bytes[200000];
    for (int i = 0; i < ROUNDS / 3; i++) {
        uint64_t at = test_random(&seed) % 100000;
        int error = test_random(&seed) % 3 ? op_write(store, churned, bytes, 1 + at, at, 0, &lsn)
                                           : op_truncate(store, churned, at, false, &lsn);
        if (error)
            failures++;
    }
    return NULL;
}

static void *look(void *context) {
    static __thread uint8_t seen[250000];
    (void)context;
    while (!atomic_load(&done))
        if (op_read(store, churned, seen, sizeof seen, 0) < 0 || op_read(store, shared, seen, sizeof seen, 0) < 0)
            failures++;
    return NULL;
}

static void run(void *(*work)(void *), const char *what) {
    pthread_t threads[THREADS], reader;
    failures = 0;
    done = false;
    pthread_create(&reader, NULL, look, NULL);
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    done = true;
    pthread_join(reader, NULL);
    is_int(0, failures, "%s: no failure, no byte lost", what);
}

int main(void) {
    static uint8_t all[THREADS * ROUNDS * 37 + 1];
    unsigned counts[THREADS] = {0}, torn = 0;

    plan_lazy();
    fixture_options.no_history = true; /* dropped blocks are punched while readers hold their places */
    store = fixture_store("store", 1);
    shared = make(store, ROOT_INO, "shared", S_IFREG | 0600);
    appended = make(store, ROOT_INO, "appended", S_IFREG | 0600);
    churned = make(store, ROOT_INO, "churned", S_IFREG | 0600);
    run(overwrite, "parts of shared blocks");
    run(append, "appends");
    is_int(sizeof all - 1, op_read(store, appended, all, sizeof all, 0), "every append is there");
    for (size_t i = 0; i + 37 < sizeof all; i += 37) {
        counts[(all[i] - 'a') & 3]++;
        for (size_t j = 1; j < 37; j++)
            torn += all[i + j] != all[i];
    }
    is_int(0, torn, "none is torn");
    is_int(ROUNDS, counts[0], "each thread's are complete");
    is_int(ROUNDS, counts[3], "the last one's too");
    run(churn, "writes and truncates");
    store_close(store);
    return 0;
}
