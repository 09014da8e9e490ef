/* A primary whose disk does not answer any more: it does not throw its healthy peer out of the set, its lease ends, and that one
 * takes over (trap 34). Waiting for a peer is not that.
 */
#include "replication/parts.h"
#include "tests/disk-fault.h"
#include "tests/pair.h"
#include "tests/played_register.h"
#include "tests/tap.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define LONG 60

static atomic_bool hangs, slow;
static char sick[1100];

/* It comes back when the disk answers again, as a kernel's call does. */
static int fault(enum disk_call call, const char *path, size_t length) {
    (void)length;
    while (call == DISK_SYNC && atomic_load(&hangs) && strncmp(path, sick, strlen(sick)) == 0)
        usleep(5000);
    if (call == DISK_SYNC && atomic_load(&slow) && strncmp(path, sick, strlen(sick)) == 0)
        usleep(1000000);
    return 0;
}

static bool register_has(struct pair *pair, unsigned primary, unsigned members) {
    struct register_value value = played_value(pair->played);
    return strcmp(value.primary, pair->config.nodes[primary].name) == 0 && value.member_count == members;
}

/* b is primary and loses its lease, but answers: it stays in the set of a, whose disk is slow. Should both lose power then, the
 * value would be found to begin beyond what either has, and nobody could be primary. */
static void begins_on_disk(struct pair *pair) {
    struct register_value value;
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    atomic_store(&slow, true);
    for (unsigned i = 0; i < 200000 && clock_boot() < deadline; i++) {
        char name[16];
        snprintf(name, sizeof name, "s%u", i);
        if (i == 20)
            atomic_store(&pair->played->nodes[1].unrenewed, true);
        if (pair_create_file(pair, 1, name, NULL) != 0)
            break;
    }
    do {
        value = played_value(pair->played);
        usleep(500);
    } while (strcmp(value.primary, pair->config.nodes[0].name) != 0 && clock_boot() < deadline);
    uint64_t durable = store_durable(pair->nodes[0].store);
    ok(strcmp(value.primary, pair->config.nodes[0].name) == 0 && value.member_count == 2, "the other one is named, and both are the set");
    ok(durable >= value.start_lsn, "the epoch begins on its disk: at LSN %llu, of which it has %llu", (unsigned long long)value.start_lsn,
       (unsigned long long)durable);
    atomic_store(&slow, false);
    atomic_store(&pair->played->nodes[1].unrenewed, false);
    ok(pair_wait_role(pair, 0, ROLE_PRIMARY, LONG), "it serves");
}

static bool kept_as_standby(struct pair *pair, unsigned node) {
    char path[1100];
    struct replicator *r = atomic_load(&pair->nodes[node].replicator);
    snprintf(path, sizeof path, "%s.standby", pair->config.nodes[node].store);
    repl_lock(r);
    bool stays = r->stays;
    repl_unlock(r);
    return stays || access(path, F_OK) == 0;
}

/* a is primary, and to be kept as standby, but b's disk hangs: the command says that a goes on as primary, and that is so. */
static void not_handed_over(struct pair *pair) {
    char why[WIRE_TEXT] = "";
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn;
    bool handed_over;
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    snprintf(sick, sizeof sick, "%s", pair->config.nodes[1].store);
    atomic_store(&hangs, true);
    is_int(0, op_create(pair->nodes[0].store, &caller, ROOT_INO, "not drained", S_IFREG | 0644, 0, NULL, &attributes, &lsn),
           "a change, and the standby's disk hangs");
    is_int(-ETIMEDOUT, replicator_standby(pair->nodes[0].replicator, false, &handed_over, why, sizeof why),
           "it is not handed over: %s", why);
    ok(strstr(why, "goes on as primary") != NULL && !handed_over, "it says so");
    ok(!kept_as_standby(pair, 0), "nor is it to be, later, by itself");
    atomic_store(&hangs, false);
    ok(pair_wait_link(pair, 0, "working", LONG), "in sync again");
}

int main(void) {
    plan_lazy();
    struct pair *pair = calloc(1, sizeof *pair);
    pair_make(pair, TRANSPORT_CLEAR);
    pair->config.lease_ms = 1000;
    played_pair(pair, 1000000000);
    pair_start(pair, 0);
    pair_start(pair, 1);
    ok(pair_wait_role(pair, 0, ROLE_PRIMARY, LONG), "a is primary: a person has said --first");
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    is_int(0, pair_create_file(pair, 0, "before", NULL), "a change is acknowledged");

    /* The peer is away: what is not acknowledged is no sign of a sick disk. */
    epoch_t epoch = played_value(pair->played).epoch;
    played_silence(pair, 1);
    is_int(0, pair_create_file(pair, 0, "b is away", NULL), "without its peer it goes on");
    ok(played_value(pair->played).epoch == epoch && register_has(pair, 0, 1), "in its epoch, alone in the set");
    pair_stop(pair, 1);
    atomic_store(&pair->played->nodes[1].unreachable, false);
    pair_start(pair, 1);
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync again");

    snprintf(sick, sizeof sick, "%s", pair->config.nodes[0].store);
    disk_fault_set(fault);
    atomic_store(&hangs, true);
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn;
    is_int(0, op_create(pair->nodes[0].store, &caller, ROOT_INO, "while it hangs", S_IFREG | 0644, 0, NULL, &attributes, &lsn),
           "a change, and its disk does not answer");
    store_want_durable(pair->nodes[0].store, lsn);
    ok(pair_wait_role(pair, 1, ROLE_PRIMARY, LONG), "the other one takes over");
    ok(register_has(pair, 1, 1) || register_has(pair, 1, 2), "which had not been put out of the set");
    is_int(0, op_lookup(pair->nodes[1].store, ROOT_INO, "before", &attributes), "what was acknowledged is there");
    is_int(0, pair_create_file(pair, 1, "after", NULL), "it works");
    ok(atomic_load(&pair->nodes[0].lease->until) <= clock_boot(), "the sick one has no lease");

    atomic_store(&hangs, false);
    ok(pair_wait_role(pair, 0, ROLE_STANDBY, LONG), "its disk answers again: it is standby");
    ok(pair_wait_link(pair, 1, "working", LONG), "and in sync");
    ok(pair_wait_equal(pair, LONG), "with the same last record");
    ok(pair_wait_link(pair, 0, "working", LONG), "as it knows");
    begins_on_disk(pair);
    not_handed_over(pair);
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    played_free(pair->played);
    free(pair);
    return 0;
}
