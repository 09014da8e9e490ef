/* Two nodes: the stream, a peer that goes and comes back, promotion after a loss, the handover under load. */
#include "fs/undone.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static void write_some(struct pair *pair, unsigned node, uint64_t ino, size_t length, uint8_t fill) {
    uint8_t *data = malloc(length);
    uint64_t lsn;
    memset(data, fill, length);
    is_int(0, op_write(pair->nodes[node].store, ino, data, length, 0, 0, &lsn), "a write of %zu bytes", length);
    is_int(0, pair_wait_for(pair, node, WAIT_FSYNC, lsn, 60), "is on both disks");
    free(data);
}

static void same_state(struct pair *pair, const char *when) {
    ok(pair_wait_equal(pair, 60), "the same last record %s", when);
    ok(pair_state(pair->nodes[0].store) == pair_state(pair->nodes[1].store), "the same state %s", when);
}

static void streams(struct pair *pair) {
    uint64_t ino;
    pair_start(pair, 0);
    is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[0].role), "a starts as primary");
    is_int(0, pair_create_file(pair, 0, "alone", &ino), "alone it works");
    pair_start(pair, 1);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[1].role), "b starts as standby");
    ok(pair_wait_link(pair, 0, "working", 60), "a: working");
    ok(pair_wait_link(pair, 1, "working", 60), "b: working");
    for (unsigned i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%u", i);
        if (pair_create_file(pair, 0, name, &ino))
            bail("create %u", i);
    }
    write_some(pair, 0, ino, 5000, 1);
    write_some(pair, 0, ino, 3 << 20, 2);
    same_state(pair, "after 200 files and two writes");
    is_int(-EROFS, pair_create_file(pair, 1, "no", NULL), "b takes no changes");
}

static void peer_away_and_back(struct pair *pair) {
    uint64_t ino;
    pair_stop(pair, 1);
    int64_t before = clock_boot();
    is_int(0, pair_create_file(pair, 0, "while b is away", &ino), "b is away: a goes on");
    ok(clock_boot() - before < 5000000000ll, "soon");
    ok(pair_wait_link(pair, 0, "failed", 60), "and says so");
    write_some(pair, 0, ino, 1 << 20, 3);
    pair_start(pair, 1);
    ok(pair_wait_link(pair, 0, "working", 60), "b is back in sync");
    ok(pair_wait_link(pair, 1, "working", 60), "and knows it");
    same_state(pair, "after b came back");
}

static void promotion(struct pair *pair) {
    char why[512] = "";
    is_int(-EBUSY, replicator_promote(pair->nodes[1].replicator, false, why, sizeof why), "refused: %s", why);
    is_int(0, pair_create_file(pair, 0, "acknowledged", NULL), "a file is acknowledged");
    pair_stop(pair, 0);
    is_int(0, replicator_promote(pair->nodes[1].replicator, false, why, sizeof why), "a is gone: b is promoted %s", why);
    struct attributes attributes;
    is_int(0, op_lookup(pair->nodes[1].store, ROOT_INO, "acknowledged", &attributes), "the file is there");
    is_int(0, pair_create_file(pair, 1, "on b", NULL), "b takes changes");
    pair_start(pair, 0);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[0].role), "a comes back as standby");
    ok(pair_wait_link(pair, 1, "working", 60), "in sync with b");
    same_state(pair, "after the promotion");
}

struct load {
    struct pair *pair;
    atomic_uint primary;
    atomic_bool stop;
    unsigned acknowledged;
    char names[100000][16];
};

static void *work(void *argument) {
    struct load *load = argument;
    for (unsigned i = 0; !atomic_load(&load->stop) && load->acknowledged < 100000; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%u", i);
        if (pair_create_file(load->pair, atomic_load(&load->primary), name, NULL) == 0)
            memcpy(load->names[load->acknowledged++], name, sizeof name);
        else
            usleep(1000);
    }
    return NULL;
}

static void switchover_under_load(struct pair *pair) {
    struct load *load = calloc(1, sizeof *load);
    pthread_t thread;
    char why[512] = "";
    load->pair = pair;
    load->primary = 1;
    is_int(-EINVAL, replicator_switchover(pair->nodes[1].replicator, "c", why, sizeof why), "there is no c: %s", why);
    is_int(-EROFS, replicator_switchover(pair->nodes[0].replicator, "b", why, sizeof why), "not the primary: %s", why);
    pthread_create(&thread, NULL, work, load);
    for (unsigned round = 0; round < 6; round++) {
        unsigned from = 1 - round % 2, to = 1 - from;
        usleep(200000);
        int64_t before = clock_boot();
        is_int(0, replicator_switchover(pair->nodes[from].replicator, pair->config.nodes[to].name, why, sizeof why),
               "switchover %u %s", round, why);
        diag("it took %lld ms", (long long)(clock_boot() - before) / 1000000);
        is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[to].role), "%s is primary", pair->config.nodes[to].name);
        is_int(ROLE_STANDBY, atomic_load(&pair->nodes[from].role), "%s is not", pair->config.nodes[from].name);
        load->primary = to;
        ok(pair_wait_link(pair, to, "working", 60), "in sync again");
    }
    atomic_store(&load->stop, true);
    pthread_join(thread, NULL);
    same_state(pair, "after six switchovers");
    unsigned lost = 0;
    struct attributes attributes;
    for (unsigned i = 0; i < load->acknowledged; i++)
        lost += op_lookup(pair->nodes[0].store, ROOT_INO, load->names[i], &attributes) != 0;
    is_int(0, lost, "of %u acknowledged files none is lost", load->acknowledged);
    ok(load->acknowledged > 100, "and there was load");
    free(load);
}

/* Records and bytes of data in a file of undone records; -EBADMSG. */
static int count_undone(const char *path, uint64_t seen[2]) {
    struct undone *undone;
    struct span record, payload;
    char why[1600];
    int rc = undone_open(path, &undone, why, sizeof why);
    if (rc)
        return rc;
    while ((rc = undone_next(undone, &record, &payload)) == 1) {
        seen[0]++;
        seen[1] += payload.length;
    }
    undone_close(undone);
    return rc;
}

static void take_path(void *context, const char *name, uint64_t bytes) {
    (void)bytes;
    snprintf(context, 2200, "%s", name);
}

/* Who is primary now works on alone; the other one is promoted by force without what that did. The first one's tail is
 * kept in a file, undone, and it becomes equal. */
static void rollback_of_a_lost_tail(struct pair *pair) {
    char why[1400] = "", path[2200] = "";
    unsigned old = (unsigned)(atomic_load(&pair->nodes[1].role) == ROLE_PRIMARY), other = 1 - old;
    struct position before, after;
    uint64_t ino, seen[2] = {0};
    pair_stop(pair, other);
    store_position(pair->nodes[old].store, &before);
    for (unsigned i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "lost-%u", i);
        if (pair_create_file(pair, old, name, &ino))
            bail("create");
    }
    write_some(pair, old, ino, 300000, 7);
    store_position(pair->nodes[old].store, &after);
    pair_stop(pair, old);
    pair_start(pair, other);
    is_int(0, replicator_promote(pair->nodes[other].replicator, true, why, sizeof why), "promoted by force %s", why);
    is_int(0, pair_create_file(pair, other, "after the loss", NULL), "works");
    pair_start(pair, old);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[old].role), "the first one comes back as standby");
    ok(pair_wait_link(pair, other, "working", 60), "in sync");
    same_state(pair, "after its tail was undone");
    struct attributes attributes;
    is_int(-ENOENT, op_lookup(pair->nodes[old].store, ROOT_INO, "lost-1", &attributes), "what it did alone is gone");
    undone_list(pair->config.nodes[old].store, take_path, path);
    is_int(0, count_undone(path, seen), "but kept in a file");
    is_int(after.lsn - before.lsn, seen[0], "all records");
    is_int(300000, seen[1], "with their data");
}

/* Promoted by force while the primary lives: that one hears of the higher epoch and becomes a standby by itself. */
static void stepping_down(struct pair *pair) {
    char why[512] = "";
    unsigned old = (unsigned)(atomic_load(&pair->nodes[1].role) == ROLE_PRIMARY), other = 1 - old;
    is_int(0, replicator_promote(pair->nodes[other].replicator, true, why, sizeof why), "promoted by force %s", why);
    ok(pair_wait_role(pair, old, ROLE_STANDBY, 60), "the old one has become a standby");
    is_int(-EROFS, pair_create_file(pair, old, "no", NULL), "it takes no changes");
    ok(pair_wait_link(pair, other, "working", 60), "in sync");
    is_int(0, pair_create_file(pair, other, "under the new one", NULL), "the new one takes changes");
    same_state(pair, "after stepping down");
}

/* A primary that starts again knows its own disk only: what its last moments made is not acknowledged before the other
 * member has told that it has it, or is out of the set. */
static void nothing_is_known_of_the_set(struct pair *pair) {
    unsigned primary = (unsigned)(atomic_load(&pair->nodes[1].role) == ROLE_PRIMARY), other = 1 - primary;
    struct position last;
    is_int(0, pair_create_file(pair, primary, "the last one", NULL), "a last change");
    store_position(pair->nodes[primary].store, &last);
    pair_stop(pair, primary);
    pair_stop(pair, other);
    pair_start(pair, primary);
    is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[primary].role), "primary again");
    ok(!volume_settled(&pair->nodes[primary], WAIT_FSYNC, last.lsn), "that the set has it on disk is not known");
    is_int(0, pair_wait_for(pair, primary, WAIT_FSYNC, last.lsn, 60), "when the other one is out of the set, it is");
    pair_start(pair, other);
    ok(pair_wait_link(pair, primary, "working", 60), "in sync");
}

/* Both stop and start, in either order: the role stays where it was. */
static void both_start_again(struct pair *pair) {
    unsigned primary = (unsigned)(atomic_load(&pair->nodes[1].role) == ROLE_PRIMARY);
    for (unsigned round = 0; round < 2; round++) {
        pair_stop(pair, round);
        pair_stop(pair, 1 - round);
        pair_start(pair, round);
        pair_start(pair, 1 - round);
        is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[primary].role), "primary again");
        is_int(ROLE_STANDBY, atomic_load(&pair->nodes[1 - primary].role), "standby again");
        ok(pair_wait_link(pair, primary, "working", 60), "in sync");
        is_int(0, pair_create_file(pair, primary, round ? "again 1" : "again 0", NULL), "changes are taken");
        same_state(pair, "after both started again");
    }
}

static void all(enum transport transport) {
    struct pair *pair = calloc(1, sizeof *pair);
    pair_make(pair, transport);
    streams(pair);
    peer_away_and_back(pair);
    promotion(pair);
    switchover_under_load(pair);
    rollback_of_a_lost_tail(pair);
    stepping_down(pair);
    both_start_again(pair);
    nothing_is_known_of_the_set(pair);
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    free(pair);
}

int main(void) {
    plan_lazy();
    diag("transport = clear");
    all(TRANSPORT_CLEAR);
    diag("transport = curve");
    all(TRANSPORT_CURVE);
    return 0;
}
