/* Undo while others work on the same history: the journal is trimmed up to the target and no further, snapshots say of
 * which record they are, duplicates of what was trimmed long ago are known as such. */
#include "tests/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#define ROUNDS 10
#define RECORDS 3000

static struct store *store;
static atomic_bool done;
static unsigned snapshots, wrong;

static void change(uint64_t ino, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct set_attributes set = {.mask = SET_MODE, .mode = 0600 + i % 7};
        struct attributes out;
        uint64_t lsn;
        if (op_setattr(store, &root_caller, ino, &set, &out, &lsn) != 0)
            bail("op_setattr");
    }
}

/* The row of the position, which every commit writes, begins with the LSN. */
static void *take_snapshots(void *context) {
    (void)context;
    while (!atomic_load(&done)) {
        struct snapshot *snapshot;
        struct key key = {.length = 8};
        struct span value;
        uint64_t lsn = 0;
        if (store_snapshot(store, &snapshot) != 0)
            continue;
        memcpy(key.bytes, "position", 8);
        if (table_get_at(snapshot, TABLE_META, &key, &value) == 0 && value.length >= sizeof lsn)
            memcpy(&lsn, value.data, sizeof lsn);
        wrong += lsn != snapshot_lsn(snapshot);
        snapshots++;
        snapshot_close(snapshot);
    }
    return NULL;
}

/* All of history may go from the moment on when undo is called: the undo of the newest records still succeeds. */
static void test_trimming(void) {
    int failed = 0;
    pthread_t thread;
    fixture_options.no_history = true;
    fixture_options.checkpoint_ms = 3600000; /* so the first trimming comes with undo's own checkpoint */
    store = fixture_store("trimming", 0);
    uint64_t ino = 0;
    done = false;
    pthread_create(&thread, NULL, take_snapshots, NULL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct position target, at;
        store_position(store, &target);
        store_set_hold(store, target.lsn, target.lsn);
        is_int(0, store_start_epoch(store, EPOCH_MAKE(round + 1, 7), "a"), "epoch %u", round + 1);
        if (round == 0)
            ino = make(store, ROOT_INO, "f", S_IFREG | 0600);
        change(ino, 10);
        store_position(store, &target);
        change(ino, RECORDS);
        store_stop_epoch(store);
        store_set_hold(store, UINT64_MAX, UINT64_MAX);
        int rc = store_undo(store, target.lsn);
        store_position(store, &at);
        failed += rc != 0 || at.lsn != target.lsn || memcmp(at.chain, target.chain, CHAIN_SIZE) != 0;
    }
    done = true;
    pthread_join(thread, NULL);
    is_int(0, failed, "each undo came to its target, while the journal was trimmed");
    ok(snapshots > 0, "%u snapshots were taken meanwhile", snapshots);
    is_int(0, wrong, "each is of the record that it names");
    store_close(store);
}

static int offer(struct store *to, struct entry *entry) {
    return store_receive(to, entry->bytes, entry->length, NULL, 0);
}

/* A record of each number is kept while the journal of who received it is trimmed. */
static void test_duplicates(void) {
    enum { KEPT = 6 };
    struct entry *entries[KEPT], *stranger;
    struct position position;
    fixture_options.no_history = false;
    fixture_options.checkpoint_ms = 20;
    store = fixture_store("from", 1);
    uint64_t ino = make(store, ROOT_INO, "f", S_IFREG | 0600);
    change(ino, 2 * KEPT);
    fixture_options.no_history = true;
    struct store *to = fixture_store("to", 0), *from = store;
    ok(fixture_feed(from, to), "a store is fed");
    for (unsigned i = 0; i < KEPT; i++)
        if (store_read(from, i + 1, &entries[i]) != 0)
            bail("store_read");
    int64_t deadline = clock_boot() + 20000000000;
    do {
        store_checkpoint(to);
        store_position(to, &position);
    } while (position.first <= KEPT + 1 && clock_boot() < deadline);
    ok(position.first > KEPT + 1, "its journal begins at %llu", (unsigned long long)position.first);
    store_close(to); /* so that nothing is in memory either */
    to = fixture_open("to");
    int refused = 0;
    for (unsigned i = 0; i < KEPT; i++)
        refused += offer(to, entries[i]) != -EEXIST;
    is_int(0, refused, "what it had is a duplicate, trimmed or not");
    store = fixture_store("stranger", 2);
    change(make(store, ROOT_INO, "g", S_IFREG | 0600), KEPT);
    if (store_read(store, 3, &stranger) != 0)
        bail("store_read");
    is_int(-ESTALE, offer(to, stranger), "a record of another history is none");
    entry_put(stranger);
    for (unsigned i = 0; i < KEPT; i++)
        entry_put(entries[i]);
    store_close(store);
    store_close(to);
    store_close(from);
}

int main(void) {
    plan_lazy();
    test_trimming();
    test_duplicates();
    return 0;
}
