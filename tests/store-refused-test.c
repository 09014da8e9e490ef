/* The database's commits, or single changes in it, are refused for a while, as by a full disk. Whatever was under way
 * goes on when there is space, nothing is lost, nothing is there twice. */
#include "fs/check.h"
#include "tests/churn.h"
#include "tests/disk-fault.h"

#include <dlfcn.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PATIENCE 60000000000

static atomic_int refuse_commits, refused, refuse_changes;
static struct store *store;

static int full(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (call != DISK_WRITE || !strstr(path, "/meta/data.mdb") || atomic_fetch_sub(&refuse_commits, 1) <= 0)
        return 0;
    atomic_fetch_add(&refused, 1);
    return ENOSPC;
}

/* So many writes of the database fail from now on. */
static void refuse(int count) {
    atomic_store(&refused, 0);
    atomic_store(&refuse_commits, count);
    disk_fault_set(full);
}

static bool refuse_change(void) {
    return atomic_load(&refuse_changes) > 0 && atomic_fetch_sub(&refuse_changes, 1) == 1;
}

/* liblmdb's, but the refuse_changes-th from now fails. */
int mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data, unsigned flags) {
    static int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *, unsigned);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "mdb_put");
    return refuse_change() ? MDB_MAP_FULL : real(txn, dbi, key, data, flags);
}

int mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *data) {
    static int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "mdb_del");
    return refuse_change() ? MDB_MAP_FULL : real(txn, dbi, key, data);
}

static void wait_refused(int count) {
    int64_t deadline = clock_boot() + PATIENCE;
    while (atomic_load(&refused) < count && clock_boot() < deadline)
        usleep(1000); /* poll interval */
    ok(atomic_load(&refused) >= count, "commits were refused");
}

static void close_and_check(const char *name) {
    char path[600];
    disk_fault_set(NULL);
    store_close(store);
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "%s: check has nothing to say", name);
}

static void test_local_value(void) {
    uint64_t value = 0, first = 7, second = 8;
    size_t length = 0;
    store = fixture_store("local", 1);
    store_checkpoint(store);
    refuse(1);
    store_lock(store);
    int rc = store_meta_put(store, "note", &first, sizeof first);
    rc = rc ? rc : store_meta_put(store, "note", &second, sizeof second);
    store_unlock(store);
    is_int(0, rc, "a local value is put");
    wait_refused(1);
    store_checkpoint(store);
    store_lock(store);
    is_int(0, store_meta_get(store, "note", &value, sizeof value, &length), "it is there after a refused commit");
    store_unlock(store);
    is_int(8, (int64_t)value, "as it was put last");
    close_and_check("local");
    store = fixture_open("local");
    store_lock(store);
    is_int(0, store_meta_get(store, "note", &value, sizeof value, &length), "and when the store is opened again");
    store_unlock(store);
    store_close(store);
}

/* Threads that unlink and reclaim files of their own. */
#define THREADS 3
#define FILES 2000

static atomic_int unlinked, refused_unlinks, working;

static void *unlink_all(void *context) {
    unsigned mine = (unsigned)(uintptr_t)context;
    for (unsigned i = 0; i < FILES; i++) {
        char name[32];
        uint64_t ino, lsn;
        uint32_t left;
        int rc, tries = 0;
        snprintf(name, sizeof name, "%u-%u", mine, i);
        do {
            rc = op_unlink(store, ROOT_INO, name, &ino, &left, &lsn);
            refused_unlinks += rc == -ENOSPC;
        } while (rc == -ENOSPC && tries++ < 100);
        if (rc == 0)
            do
                rc = op_reclaim(store, &ino, 1);
            while (rc == -ENOSPC && tries++ < 100);
        unlinked += rc == 0;
    }
    working--;
    return NULL;
}

static void test_unlinks(void) {
    static uint8_t data[20000];
    uint64_t seed = test_seed();
    pthread_t threads[THREADS];
    unsigned changes = 0;
    struct position before, after;
    struct store_space space;
    uint64_t lsn;
    fixture_options.commit_ms = 10;
    fixture_options.checkpoint_ms = 20;
    fixture_options.history_bytes = 1; /* what is unlinked is trimmed and punched at once */
    store = fixture_store("unlinks", 1);
    memset(data, 'x', sizeof data);
    for (unsigned i = 0; i < THREADS * FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%u-%u", i / FILES, i % FILES);
        uint64_t ino = make(store, ROOT_INO, name, S_IFREG | 0600);
        if (op_write(store, ino, data, sizeof data, 0, 0, &lsn) != 0)
            bail("op_write");
    }
    uint64_t kept = make(store, ROOT_INO, "kept", S_IFREG | 0600);
    if (op_write(store, kept, data, sizeof data, 0, 0, &lsn) != 0)
        bail("op_write");
    store_checkpoint(store);
    refuse(1 << 30);
    working = THREADS;
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, unlink_all, (void *)i);
    wait_refused(20);
    atomic_store(&refuse_commits, 0);
    int64_t deadline = clock_boot() + PATIENCE;
    while (working > 0 && clock_boot() < deadline) { /* and single changes: of records, of trimming, of punching */
        usleep(1000); /* poll interval */
        if (refuse_changes > 0)
            continue;
        store_position(store, &before); /* when the batch has been applied again: a refusal in that ends the process */
        atomic_store(&refuse_changes, 1 + (int)(test_random(&seed) % 300));
        changes++;
    }
    atomic_store(&refuse_changes, 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    is_int(THREADS * FILES, unlinked, "all are unlinked and reclaimed, %d of them after an ENOSPC", refused_unlinks);
    ok(changes > 5, "%u changes were refused", changes);
    is_int(0, store_checkpoint(store), "a checkpoint succeeds");
    store_space(store, &space);
    is_int(5 * BATON_BLOCK, (int64_t)space.live, "the space is free, but for the file that was kept");
    store_position(store, &before);
    close_and_check("unlinks");
    store = fixture_open("unlinks");
    store_position(store, &after);
    is_int((int64_t)before.lsn, (int64_t)after.lsn, "all is there when it is opened again");
    is_blob(before.chain, after.chain, CHAIN_SIZE, "with the same chain");
    store_close(store);
}

/* Undo, of changes of every kind, to a state that another store has. */
static void undo(const char *name, const char *mirror_name, int commits, int changes) {
    uint64_t seed = test_seed(), directories[2] = {ROOT_INO, ROOT_INO};
    struct position middle, end, at;
    fixture_options.checkpoint_ms = 0;
    fixture_options.history_bytes = 4ull << 30;
    store = fixture_store(name, 1);
    struct store *mirror = fixture_store(mirror_name, 0);
    churn_prepare(&seed);
    for (int i = 0; i < 300; i++)
        churn(store, directories, &seed);
    store_position(store, &middle);
    ok(fixture_feed(store, mirror), "another store is fed");
    for (end = middle; end.lsn < middle.lsn + 1500; store_position(store, &end))
        if (churn(store, directories, &seed) != 0)
            bail("churn");
    store_stop_epoch(store);
    store_checkpoint(store);
    refuse(commits);
    atomic_store(&refuse_changes, changes);
    is_int(0, store_undo(store, middle.lsn), "%s: undone", name);
    if (commits)
        ok(atomic_load(&refuse_commits) <= 0, "while commits were refused");
    if (changes)
        is_int(0, atomic_load(&refuse_changes), "while a change was refused");
    store_position(store, &at);
    is_int((int64_t)middle.lsn, (int64_t)at.lsn, "back at the LSN");
    is_blob(middle.chain, at.chain, CHAIN_SIZE, "and its chain");
    fixture_same(store, mirror, "and all says what it said then");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "a new epoch starts");
    make(store, ROOT_INO, "later", S_IFREG | 0600);
    store_close(mirror);
    close_and_check(name);
    store = fixture_open(name);
    store_position(store, &at);
    is_int((int64_t)middle.lsn + 2, (int64_t)at.lsn, "opened again: the new history is there");
    store_close(store);
}

/* The process dies when a few commits of an undo have been refused, the first after `allowed` writes. */
static int allowed;

static int full_then_die(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (call != DISK_WRITE || !strstr(path, "/meta/data.mdb") || atomic_fetch_add(&refused, 1) < allowed)
        return 0;
    if (atomic_load(&refused) > allowed + 5)
        _exit(9);
    return ENOSPC;
}

static void undo_and_die(const char *name, int said) {
    uint64_t seed = test_seed(), directories[2] = {ROOT_INO, ROOT_INO};
    struct position middle;
    store = fixture_open(name);
    if (store_start_epoch(store, EPOCH_MAKE(1, 7), "a") != 0)
        _exit(1);
    churn_prepare(&seed);
    for (int i = 0; i < 300; i++)
        churn(store, directories, &seed);
    store_position(store, &middle);
    for (int i = 0; i < 2000; i++)
        churn(store, directories, &seed);
    store_stop_epoch(store);
    store_checkpoint(store);
    if (write(said, &middle, sizeof middle) != sizeof middle)
        _exit(1);
    disk_fault_set(full_then_die);
    store_undo(store, middle.lsn);
    _exit(1);
}

static void undo_killed(const char *name, int writes_allowed) {
    struct position middle = {0}, at;
    int pipes[2], status;
    char path[600];
    allowed = writes_allowed;
    atomic_store(&refused, 0);
    store_close(fixture_store(name, 0));
    if (pipe(pipes) != 0)
        bail("pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        undo_and_die(name, pipes[1]);
    waitpid(child, &status, 0);
    close(pipes[1]);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 9, "%s: died in an undo whose commits are refused (%x)", name,
       (unsigned)status);
    if (read(pipes[0], &middle, sizeof middle) != sizeof middle)
        bail("the child said nothing");
    close(pipes[0]);
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say");
    store = fixture_open(name);
    store_position(store, &at);
    ok(at.lsn > middle.lsn, "opened at LSN %llu", (unsigned long long)at.lsn);
    is_int(0, store_undo(store, middle.lsn), "undone now");
    store_position(store, &at);
    is_int((int64_t)middle.lsn, (int64_t)at.lsn, "back at LSN %llu", (unsigned long long)middle.lsn);
    is_blob(middle.chain, at.chain, CHAIN_SIZE, "and its chain");
    close_and_check(name);
}

/* An epoch's beginning is refused, while another thread has changes ready for when there is one. */
static atomic_bool done;
static uint64_t touched;

static void *touch(void *context) {
    (void)context;
    while (!atomic_load(&done)) {
        struct set_attributes set = {.mask = SET_MODE, .mode = 0640};
        struct attributes out;
        uint64_t lsn;
        op_setattr(store, &root_caller, touched, &set, &out, &lsn);
    }
    return NULL;
}

static void test_start_epoch(void) {
    pthread_t thread;
    unsigned wrong = 0, failed = 0;
    store = fixture_store("epoch", 1);
    touched = make(store, ROOT_INO, "f", S_IFREG | 0600);
    store_stop_epoch(store);
    done = false;
    pthread_create(&thread, NULL, touch, NULL);
    for (unsigned counter = 2; counter < 100; counter += 2) {
        store_checkpoint(store); /* so that few other changes take the failure for themselves */
        for (int change = 1; change < 3; change++) {
            struct position before, after;
            store_position(store, &before);
            atomic_store(&refuse_changes, change);
            int rc = store_start_epoch(store, EPOCH_MAKE(counter, 7), "a");
            atomic_store(&refuse_changes, 0);
            failed += rc == -ENOSPC;
            store_position(store, &after);
            wrong += rc != 0 && after.lsn != before.lsn;
            store_stop_epoch(store);
            counter += rc == 0;
        }
    }
    ok(failed > 0, "an epoch's beginning was refused %u times", failed);
    is_int(0, wrong, "nobody was first in an epoch that had not begun");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(50, 7), "a"), "then one starts");
    done = true;
    pthread_join(thread, NULL);
    make(store, ROOT_INO, "later", S_IFREG | 0600);
    close_and_check("epoch");
}

int main(void) {
    plan_lazy();
    test_local_value();
    test_unlinks();
    undo("undo", "undo-mirror", 3, 0);
    undo("undo-changes", "undo-changes-mirror", 0, 700);
    undo_killed("undo-killed", 0);
    undo_killed("undo-killed-later", 40);
    test_start_epoch();
    return 0;
}
