/* What else happens while a tail is rolled back. */
#include "fs/undone.h"
#include "replication/parts.h"
#include "tests/disk-fault.h"
#include "tests/fixture.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- Records that come while the tail is written down ---------------------------------------------------------------- */

static struct store *store;
static struct entry *coming;
static int taken;

static int at_sync(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (call == DISK_SYNC && coming && strstr(path, "/undone/")) {
        struct entry *entry = coming;
        coming = NULL;
        taken = store_receive(store, entry->bytes, entry->length, NULL, 0);
        entry_put(entry);
    }
    return 0;
}

/* What is undone is in the file. */
static void records_that_come(void) {
    struct store *from = fixture_store("from", 1);
    struct position at;
    char path[1400], why[300];
    struct undone *undone;
    struct span record, payload;
    uint64_t kept = 0;
    make(from, ROOT_INO, "one", S_IFREG | 0600);
    make(from, ROOT_INO, "two", S_IFREG | 0600);
    store = fixture_store("to", 0);
    ok(fixture_feed(from, store), "a store is fed");
    make(from, ROOT_INO, "three", S_IFREG | 0600);
    store_position(from, &at);
    PROMISE(store_read(from, at.lsn, &coming) == 0);
    disk_fault_set(at_sync);
    is_int(0, store_rollback(store, at.lsn - 2, path, sizeof path), "its tail is rolled back");
    disk_fault_set(NULL);
    ok(coming == NULL, "a record came meanwhile");
    PROMISE(undone_open(path, &undone, why, sizeof why) == 0);
    while (undone_next(undone, &record, &payload) == 1)
        kept++;
    undone_close(undone);
    is_int(1 + (taken == 0), (int64_t)kept, "what was taken back is kept");
    is_int(-EROFS, taken, "nothing is taken in meanwhile");
    store_position(store, &at);
    ok(fixture_feed(from, store), "it is afterwards");
    store_close(store);
    store_close(from);
}

/* ---- Another primary while the fork is looked for ---------------------------------------------------------------------- */

static struct replicator *_Atomic looking; /* whose keeper asks where the histories part */
static atomic_uint asked;

/* The session of a question is about to be drawn: by then somebody feeds this store. */
ssize_t getrandom(void *buffer, size_t length, unsigned flags) {
    struct replicator *r = atomic_load(&looking);
    if (r && pthread_equal(pthread_self(), r->keeper)) {
        int64_t deadline = clock_boot() + 60000 * MS;
        repl_lock(r);
        while ((r->follow.state != FOLLOW_STREAMING || r->receiving == 0) &&
               repl_wait(r, &r->news, MIN(deadline, clock_boot() + 10 * MS)))
            ;
        r->hold_told = 0; /* as if there were a node that lacks all of it */
        repl_unlock(r);
        atomic_fetch_add(&asked, 1);
    }
    return syscall(SYS_getrandom, buffer, length, flags);
}

static void count(void *context, const char *name, uint64_t bytes) {
    (void)name, (void)bytes;
    ++*(unsigned *)context;
}

/* What one primary lacks is said as long as no other one feeds this store. */
static void given_up(struct pair *pair) {
    struct replicator *r = atomic_load(&pair->nodes[1].replicator);
    repl_lock(r);
    r->sync.given_up = true;
    snprintf(r->sync.why, sizeof r->sync.why, "it lacks records of this store");
    json_t *shown = sync_status(r);
    ok(shown != NULL, "a synchronization that was given up is shown");
    json_decref(shown);
    follow_end(&r->follow, clock_boot(), "a test");
    repl_unlock(r);
    ok(pair_wait_link(pair, 1, "failed", 60) && pair_wait_link(pair, 1, "working", 60), "the store is fed");
    repl_lock(r);
    shown = sync_status(r);
    ok(shown == NULL, "then there is nothing to decide");
    json_decref(shown);
    r->follow.epoch++;
    r->sync.given_up = true;
    snprintf(r->sync.why, sizeof r->sync.why, "it lacks records of this store");
    sync_want(r, 0);
    ok(r->sync.wanted && !r->sync.given_up && !r->sync.why[0], "nor is a primary of another epoch judged by what an older one lacked");
    sync_unwant(r);
    r->sync.given_up = true;
    sync_want(r, 0);
    ok(!r->sync.wanted && r->sync.given_up, "but the same one is");
    r->sync.given_up = false;
    r->follow.epoch--;
    repl_unlock(r);
}

static void refuse(struct replicator *r) { /* by one that has gone since, say */
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    repl_lock(r);
    follow_end(&r->follow, clock_boot(), "a test");
    r->follow.state = FOLLOW_REFUSED;
    r->follow.verdict = VERDICT_DIVERGED;
    r->follow.fork = UINT64_MAX;
    r->follow.epoch = EPOCH_MAKE(1000, 7);
    while (r->receiving)
        repl_wait(r, &r->news, clock_boot() + 100 * MS);
    r->follow.since = clock_boot();
}

static void refused(struct replicator *r) {
    atomic_store(&looking, r);
    repl_unlock(r);
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
}

/* It was asked where the histories part, and a full synchronization was found to be needed: it is not asked over and over. */
static void asked_once(struct pair *pair) {
    struct replicator *r = atomic_load(&pair->nodes[1].replicator);
    atomic_store(&asked, 0);
    refuse(r);
    r->sync.given_up = true;
    r->sync.node = r->follow.primary;
    r->sync.epoch = r->follow.epoch;
    refused(r);
    ok(pair_wait_link(pair, 1, "working", 60), "the store is fed in the end");
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    atomic_store(&looking, NULL);
    is_int(0, atomic_load(&asked), "until then nobody is asked where the histories part");
}

/* ---- Another epoch while a login is looked at --------------------------------------------------------------------------- */

static bool let_in(struct replicator *r, struct link_message *message, const struct login_ground *ground) {
    message->frame.head.session++;
    primary_answer_login(r, message, ground);
    repl_lock(r);
    bool in = r->peers[message->node].feed.session == message->frame.head.session;
    repl_unlock(r);
    return in;
}

/* What was read before this node became primary, or in an earlier epoch, is of a history that may have been taken back since. */
static void looked_at_before(struct pair *pair) {
    char why[WIRE_TEXT];
    struct replicator *a = atomic_load(&pair->nodes[0].replicator), *b = atomic_load(&pair->nodes[1].replicator);
    struct link_message *message = calloc(1, sizeof *message);
    struct login_ground as_standby, as_primary, now;
    PROMISE(message);
    message->frame.head.session = 1000;
    repl_lock(b);
    message->node = 0;
    message->frame.login = (struct wire_login){.position = b->position, .window = FEED_WINDOW_BYTES};
    repl_unlock(b);
    primary_look_for_login(b, &message->frame.login, &as_standby);
    primary_look_for_login(a, &message->frame.login, &as_primary);
    is_int(0, replicator_switchover(a, pair->config.nodes[1].name, why, sizeof why), "b becomes primary");
    ok(pair_wait_link(pair, 1, "working", 60) && pair_wait_link(pair, 0, "working", 60), "and feeds a");
    ok(!let_in(b, message, &as_standby), "a login that was looked at before is not accepted");
    is_int(0, replicator_switchover(b, pair->config.nodes[0].name, why, sizeof why), "a becomes primary again");
    ok(pair_wait_link(pair, 0, "working", 60) && pair_wait_link(pair, 1, "working", 60), "and feeds b");
    message->node = 1;
    ok(!let_in(a, message, &as_primary), "nor one of its epoch before");
    primary_look_for_login(a, &message->frame.login, &now);
    ok(let_in(a, message, &now), "one of this epoch is");
    ok(pair_wait_link(pair, 0, "working", 60) && pair_wait_link(pair, 1, "working", 60), "b logs in anew");
    free(message);
}

static void another_primary(void) {
    static struct pair pair;
    struct position before, after;
    unsigned undone = 0;
    pair_make(&pair, TRANSPORT_CLEAR);
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    ok(pair_wait_link(&pair, 1, "working", 60), "b is in sync");
    for (char name[] = "a"; name[0] < 'i'; name[0]++)
        PROMISE(pair_create_file(&pair, 0, name, NULL) == 0);
    ok(pair_wait_equal(&pair, 60), "and has all that was acknowledged");
    store_position(pair.nodes[1].store, &before);
    struct replicator *r = atomic_load(&pair.nodes[1].replicator);
    refuse(r);
    refused(r);
    for (int64_t deadline = clock_boot() + 120000 * MS; atomic_load(&asked) == 0 && clock_boot() < deadline;)
        usleep(1000);
    ok(atomic_load(&asked) > 0, "it asks where the histories part, and is fed meanwhile");
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0); /* the keeper is through */
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    atomic_store(&looking, NULL);
    store_position(pair.nodes[1].store, &after);
    is_int((int64_t)before.lsn, (int64_t)after.lsn, "nothing is taken back by the word of the one that has gone");
    PROMISE(undone_list(store_path(pair.nodes[1].store), count, &undone) == 0);
    is_int(0, undone, "there are no undone records");
    ok(pair_wait_link(&pair, 1, "working", 60), "and b is in sync");
    asked_once(&pair);
    given_up(&pair);
    looked_at_before(&pair);
    pair_stop(&pair, 1);
    pair_stop(&pair, 0);
}

int main(void) {
    plan_lazy();
    records_that_come();
    another_primary();
    return 0;
}
