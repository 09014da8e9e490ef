/* A member whose disk hangs: it lives, heartbeats come, and nothing that it lacks gets to it, or to its disk. It leaves the
 * in-sync set after the lease time, users go on, and when the disk is back it is in the set again. One that is only slow stays;
 * and a primary whose own disk hangs throws nobody out.
 */
#include "replication/parts.h"
#include "tests/disk-fault.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define LEASE_MS 2000
#define SECONDS 60 /* for anything that has to happen */
#define SLOW_US 150000
#define SLOW_RECORDS 40u /* take it three lease times */

static struct pair *pair;
static atomic_bool flush_hangs[2], write_hangs[2], slow;

static bool is_of(const char *path, unsigned node) {
    return strstr(path, node == 0 ? ".a/" : ".b/") != NULL;
}

static int ask(enum disk_call call, const char *path, size_t length) {
    (void)length;
    for (unsigned node = 0; node < 2; node++)
        while ((call == DISK_SYNC && atomic_load(&flush_hangs[node]) && is_of(path, node)) ||
               (call == DISK_WRITE && atomic_load(&write_hangs[node]) && is_of(path, node)))
            usleep(1000); /* poll interval */
    if (call == DISK_WRITE && atomic_load(&slow) && is_of(path, 1) && strstr(path, "/tail/"))
        usleep(SLOW_US);
    return 0;
}

static uint64_t shown(unsigned node, unsigned *members, bool *connected) {
    json_t *status = replicator_status(pair->nodes[node].replicator), *set = json_object_get(status, "register");
    uint64_t version = (uint64_t)json_integer_value(json_object_get(set, "version"));
    *members = (unsigned)json_array_size(json_object_get(set, "members"));
    *connected = json_is_true(json_object_get(json_array_get(json_object_get(status, "peers"), 0), "connected"));
    json_decref(status);
    return version;
}

static uint64_t version_of(unsigned node) {
    unsigned members;
    bool connected;
    return shown(node, &members, &connected);
}

static uint64_t make(const char *name) {
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn = 0;
    if (op_create(pair->nodes[0].store, &caller, ROOT_INO, name, S_IFREG | 0644, 0, NULL, &attributes, &lsn) != 0)
        bail("file %s cannot be made", name);
    return lsn;
}

/* Somebody writes all the time, without waiting: the standby receives more and more. */
static atomic_bool write_on;
static void *writer(void *nothing) {
    char name[32];
    for (unsigned i = 0; atomic_load(&write_on); i++) {
        snprintf(name, sizeof name, "w%u", i);
        make(name);
        usleep(20000);
    }
    return nothing;
}

static void after_it_left(const char *what) {
    unsigned members;
    bool connected;
    shown(0, &members, &connected);
    is_int(1, members, "%s: it has left the set", what);
    ok(connected, "it lives, and is connected");
}

static void back_again(const char *what) {
    ok(pair_wait_link(pair, 0, "working", SECONDS), "%s: when the disk is back, it is in sync again", what);
    ok(pair_wait_equal(pair, SECONDS), "equal");
}

static void flushes_hang(void) {
    pthread_t thread;
    atomic_store(&write_on, true);
    pthread_create(&thread, NULL, writer, NULL);
    atomic_store(&flush_hangs[1], true);
    is_int(0, pair_wait_for(pair, 0, WAIT_FSYNC, make("fsync 1"), SECONDS), "no flush returns there: an fsync here does");
    after_it_left("no flush returns");
    is_int(0, pair_wait_for(pair, 0, WAIT_FSYNC, make("fsync 2"), SECONDS), "the next one likewise");
    atomic_store(&write_on, false);
    pthread_join(thread, NULL);
    atomic_store(&flush_hangs[1], false);
    back_again("no flush returned");
}

static void writes_hang(void) {
    atomic_store(&flush_hangs[1], true);
    atomic_store(&write_hangs[1], true);
    is_int(0, pair_create_file(pair, 0, "change", NULL), "nothing can be written there: a change here is answered");
    after_it_left("nothing can be written");
    atomic_store(&flush_hangs[1], false);
    atomic_store(&write_hangs[1], false);
    back_again("nothing could be written");
}

static bool stays_while_slow(unsigned round) {
    char name[64];
    uint64_t version = version_of(0), lsn = 0;
    atomic_store(&slow, true);
    for (unsigned i = 0; i < SLOW_RECORDS; i++) {
        snprintf(name, sizeof name, "slow %u.%u", round, i);
        lsn = make(name);
    }
    is_int(0, pair_wait_for(pair, 0, WAIT_CHANGE, lsn, SECONDS), "changes are answered when it has them");
    atomic_store(&slow, false);
    return version_of(0) == version;
}

static void slow_stays(void) {
    bool stays = false;
    for (unsigned round = 0; round < 3 && !stays; round++) { /* the machine may stand still for a lease time, too */
        pair_wait_link(pair, 0, "working", SECONDS);
        stays = stays_while_slow(round);
    }
    ok(stays, "who takes three lease times for what he got at once stays in the set");
    back_again("slow");
}

static void both_hang(void) {
    uint64_t version = version_of(0);
    atomic_store(&flush_hangs[0], true);
    atomic_store(&flush_hangs[1], true);
    uint64_t lsn = make("both");
    is_int(-ETIMEDOUT, pair_wait_for(pair, 0, WAIT_FSYNC, lsn, 3 * LEASE_MS / 1000), "both disks hang: an fsync waits");
    atomic_store(&flush_hangs[1], false);
    ok(pair_wait_equal(pair, SECONDS), "the standby's is back first");
    for (unsigned i = 0; i < SECONDS * 100; i++) { /* until the primary has heard of it */
        json_t *status = replicator_status(pair->nodes[0].replicator);
        json_t *peer = json_array_get(json_object_get(status, "peers"), 0);
        bool has = json_integer_value(json_object_get(peer, "durable")) >= (json_int_t)lsn;
        json_decref(status);
        if (has)
            break;
        usleep(10000);
    }
    atomic_store(&flush_hangs[0], false);
    is_int(0, pair_wait_for(pair, 0, WAIT_FSYNC, make("both 2"), SECONDS), "then the primary's");
    int64_t until = clock_boot() + LEASE_MS * 1000000ll; /* a decision would be carried out now */
    while (clock_boot() < until && version_of(0) == version)
        usleep(10000);
    is_int(version, version_of(0), "a primary whose own disk hangs has thrown nobody out");
}

int main(void) {
    plan_lazy();
    pair = calloc(1, sizeof *pair);
    pair_make(pair, TRANSPORT_CLEAR);
    pair->config.lease_ms = LEASE_MS;
    disk_fault_set(ask);
    pair_start(pair, 0);
    pair_start(pair, 1);
    ok(pair_wait_link(pair, 0, "working", SECONDS), "in sync");
    flushes_hang();
    writes_hang();
    slow_stays();
    both_hang();
    ok(pair_wait_link(pair, 0, "working", SECONDS), "in sync at the end");
    pair_stop(pair, 1);
    pair_stop(pair, 0);
    free(pair);
    return 0;
}
