/* Two threads of the store tell how far it is durable, and the one that was first is heard last: what is known of this
 * node's disk does not go back. */
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#define PATIENCE 60000000000

static struct pair pair;
static struct position older, newer;
static atomic_int teller;

static void say_nothing(void *context, uint64_t lsn) {
    (void)context;
    (void)lsn;
}

static void *tell_older(void *context) {
    atomic_store(&teller, gettid());
    volume_durable(&pair.nodes[0], older.lsn);
    return context;
}

static bool waits(pid_t thread) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 0;
        fclose(file);
    }
    return state == 'S';
}

static void change(const char *name, struct position *after) {
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn;
    struct store *store = pair.nodes[0].store;
    is_int(0, op_create(store, &caller, ROOT_INO, name, S_IFREG | 0644, 0, NULL, &attributes, &lsn), "a change");
    store_position(store, after);
}

int main(void) {
    plan_lazy();
    pair_make(&pair, TRANSPORT_CLEAR);
    pair_start(&pair, 0);
    struct volume *volume = &pair.nodes[0];
    struct replicator *r = atomic_load(&volume->replicator);
    struct store_watch watch = {
        .applied = volume_applied, .durable = say_nothing, .undone = volume_undone, .context = volume};
    store_set_watch(volume->store, &watch); /* what the store's own threads would tell is told here */
    change("older", &older);
    is_int(0, store_sync(volume->store, older.lsn), "is durable");
    change("newer", &newer);

    pthread_t thread;
    repl_lock(r);
    pthread_create(&thread, NULL, tell_older, NULL);
    int64_t deadline = clock_boot() + PATIENCE;
    while ((!atomic_load(&teller) || !waits(atomic_load(&teller))) && clock_boot() < deadline)
        usleep(1000); /* poll interval */
    ok(waits(atomic_load(&teller)), "one thread is about to tell of the first, and has to wait");
    is_int(0, store_sync(volume->store, newer.lsn), "meanwhile the second is durable too");
    repl_unlock(r);
    pthread_join(thread, NULL);
    is_int(newer.lsn, atomic_load(&r->durable), "what is told is the second");
    ok(volume_settled(volume, WAIT_FSYNC, newer.lsn), "and who waits for it is answered");
    volume_durable(volume, older.lsn);
    is_int(newer.lsn, atomic_load(&r->durable), "also when the first is told once more");
    pair_stop(&pair, 0);
    return 0;
}
