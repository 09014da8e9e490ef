/* Fencing: the program that powers another node off, and two nodes that are alone with it: who goes on, and who does not. */
#include "membership/fence.h"
#include "replication/parts.h"
#include "tests/disk-fault.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <stdio.h>
#include <sys/stat.h>

#define LONG 60

static char program[1000];

static atomic_bool hangs[2]; /* the node's whole disk; of the primary's only what makes durable */
static char sick[2][1100];

static int fault(enum disk_call call, const char *path, size_t length) {
    (void)length;
    while (call != DISK_READ && atomic_load(&hangs[0]) && strncmp(path, sick[0], strlen(sick[0])) == 0)
        usleep(5000);
    while (call == DISK_SYNC && atomic_load(&hangs[1]) && strncmp(path, sick[1], strlen(sick[1])) == 0)
        usleep(5000);
    return 0;
}

static void write_program(const char *text) {
    char next[1200];
    snprintf(program, sizeof program, "%s/fence", test_directory());
    snprintf(next, sizeof next, "%s.next", program);
    FILE *file = fopen(next, "we");
    if (!file || fprintf(file, "#!/bin/sh\n%s\n", text) < 0 || fclose(file) != 0 || chmod(next, 0755) < 0 || rename(next, program) < 0)
        bail("the program cannot be written");
}

static int run(int64_t timeout, char *why, size_t room) {
    why[0] = 0;
    return fence_run(program, "projects", "b", timeout, NULL, why, room);
}

static void programs(void) {
    char why[400], text[1200];
    write_program("[ \"$1 $2 $BATON_VOLUME $BATON_NODE\" = 'projects b projects b' ] || exit 9");
    is_int(0, run(LONG * 1000000000ll, why, sizeof why), "it is told which node of which volume %s", why);
    write_program("exit 3");
    is_int(-EIO, run(LONG * 1000000000ll, why, sizeof why), "another status is a failure");
    ok(strstr(why, "by status 3 that node b is not off") != NULL, "and told: %s", why);
    write_program("kill -9 $$");
    is_int(-EIO, run(LONG * 1000000000ll, why, sizeof why), "so is a signal: %s", why);
    snprintf(text, sizeof text, "sleep 600 & echo $! >%s/child; wait", test_directory());
    write_program(text);
    is_int(-ETIMEDOUT, run(500000000, why, sizeof why), "one that does not end is killed: %s", why);
    snprintf(text, sizeof text, "%s/child", test_directory());
    FILE *file = fopen(text, "re");
    int child = 0;
    ok(file && fscanf(file, "%d", &child) == 1 && child > 0, "it had a child");
    if (file)
        fclose(file);
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    char state[64];
    bool gone = false;
    while (!gone && clock_boot() < deadline) { /* init, or whoever takes its place here, may leave it as a zombie */
        snprintf(state, sizeof state, "/proc/%d/stat", child);
        file = fopen(state, "re");
        char letter = 'X';
        gone = !file || fscanf(file, "%*d (%*[^)]) %c", &letter) != 1 || letter == 'Z';
        if (file)
            fclose(file);
        usleep(10000);
    }
    ok(gone, "which is killed with it");
    unlink(program);
    is_int(-ENOENT, run(LONG * 1000000000ll, why, sizeof why), "one that is not there: %s", why);
    atomic_bool cancelled = true;
    write_program("sleep 600");
    is_int(-ETIMEDOUT, fence_run(program, "projects", "b", LONG * 1000000000ll, &cancelled, why, sizeof why), "one that nobody waits for any more");
}

/* NULL: for none. */
static bool wait_for_trouble(struct pair *pair, unsigned node, const char *word) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    for (;;) {
        json_t *status = replicator_status(pair->nodes[node].replicator);
        const char *trouble = json_string_value(json_object_get(status, "trouble"));
        bool found = word ? trouble && strstr(trouble, word) : !trouble || !trouble[0];
        json_decref(status);
        if (found || clock_boot() > deadline)
            return found;
        usleep(5000);
    }
}

/* Only a is off, says the program, when it is asked for a. */
static void primary_is_silent(struct pair *pair) {
    write_program("[ $2 = a ]");
    pair_start(pair, 0);
    pair_start(pair, 1);
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    is_int(0, pair_create_file(pair, 0, "acknowledged", NULL), "a change is acknowledged");
    pair_silence(pair, 0);
    ok(pair_wait_role(pair, 1, ROLE_PRIMARY, LONG), "the primary is silent, and off by the program: the standby takes over");
    struct attributes attributes;
    is_int(0, op_lookup(pair->nodes[1].store, ROOT_INO, "acknowledged", &attributes), "what was acknowledged is there");
    is_int(0, pair_create_file(pair, 1, "on b", NULL), "it works");
    struct caller caller = {0};
    uint64_t lsn;
    is_int(0, op_create(pair->nodes[0].store, &caller, ROOT_INO, "on a", S_IFREG | 0644, 0, NULL, &attributes, &lsn), "the one that is cut off makes a change");
    is_int(-ETIMEDOUT, pair_wait_for(pair, 0, WAIT_CHANGE, lsn, 2), "but does not acknowledge it: b is not off");
    ok(wait_for_trouble(pair, 0, "nobody goes on without node b"), "and says why");
    park_give_up(pair->nodes[0].park, -EIO);
    pair_stop(pair, 0);
    pair_start(pair, 0);
    ok(pair_wait_link(pair, 1, "working", LONG), "it comes back");
    is_int(-ENOENT, op_lookup(pair->nodes[0].store, ROOT_INO, "on a", &attributes), "without that change");
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[0].role), "as standby");
}

/* b is primary now. */
static void standby_is_silent(struct pair *pair) {
    write_program("[ $2 = a ]");
    pair_silence(pair, 0);
    is_int(0, pair_create_file(pair, 1, "alone", NULL), "the standby is silent, and off by the program: the primary goes on alone");
    pair_stop(pair, 0);
    pair_start(pair, 0);
    ok(pair_wait_link(pair, 1, "working", LONG), "it comes back");
}

static void stopped_by_a_person(struct pair *pair) {
    char text[1200];
    snprintf(text, sizeof text, "touch %s/ran", test_directory());
    write_program(text);
    ok(pair_wait_link(pair, 0, "working", LONG), "both are in sync, and a knows it");
    pair_stop(pair, 1);
    usleep(3000000); /* three lease times: what is not to happen has had its time */
    snprintf(text, sizeof text, "%s/ran", test_directory());
    ok(access(text, F_OK) < 0, "a primary that was stopped in order is not powered off");
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[0].role), "a person decides");
    pair_start(pair, 1);
    ok(pair_wait_link(pair, 1, "working", LONG), "it comes back");
}

static bool has_run(void) {
    char text[1200];
    snprintf(text, sizeof text, "%s/ran", test_directory());
    return access(text, F_OK) == 0;
}

/* b is primary; the standby's store hangs, but it is heard, and its disk is not what hangs. */
static void standby_is_stuck(struct pair *pair) {
    char text[1200];
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn;
    snprintf(text, sizeof text, "touch %s/ran", test_directory());
    write_program(text);
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    store_lock(pair->nodes[0].store);
    is_int(0, op_create(pair->nodes[1].store, &caller, ROOT_INO, "held up", S_IFREG | 0644, 0, NULL, &attributes, &lsn),
           "a change, and the standby's store is stuck");
    ok(wait_for_trouble(pair, 1, "node a acknowledges nothing: it lives"), "the primary says that it is held up, and what is to be done");
    ok(!has_run(), "who lives is not powered off");
    store_unlock(pair->nodes[0].store);
    is_int(0, pair_wait_for(pair, 1, WAIT_CHANGE, lsn, LONG), "it goes on: the change is acknowledged");
    ok(wait_for_trouble(pair, 1, NULL), "and that is said no more");
}

static void hang(struct pair *pair, unsigned node, bool on) {
    snprintf(sick[node], sizeof sick[node], "%s/", pair->config.nodes[node].store);
    disk_fault_set(fault);
    atomic_store(&hangs[node], on);
}

static bool believes(struct pair *pair, unsigned node) {
    struct replicator *r = atomic_load(&pair->nodes[node].replicator);
    repl_lock(r);
    bool heard = r->set_heard;
    repl_unlock(r);
    return heard;
}

/* It hears so in a heartbeat. */
static bool believes_soon(struct pair *pair, unsigned node) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    while (!believes(pair, node) && clock_boot() < deadline)
        usleep(500);
    return believes(pair, node);
}

/* b is primary; all of the standby's disk hangs, but the standby is heard. */
static void standby_is_sick(struct pair *pair) {
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    ok(believes(pair, 0), "the standby takes itself for a member");
    hang(pair, 0, true);
    is_int(0, pair_create_file(pair, 1, "without the sick one", NULL),
           "the standby's disk hangs: it leaves, and the primary goes on alone");
    ok(!believes(pair, 0), "it knows that it is none any more");
    ok(wait_for_trouble(pair, 0, "the disk of this store does not answer"), "and says why");
    is_int(0, pair_create_file(pair, 1, "and on", NULL), "on and on");
    ok(!has_run(), "nobody is powered off");
    hang(pair, 0, false);
    ok(pair_wait_link(pair, 1, "working", LONG) && pair_wait_link(pair, 0, "working", LONG),
       "the disk answers again: it comes back");
    ok(pair_wait_equal(pair, LONG) && believes_soon(pair, 0), "as a member");
    ok(wait_for_trouble(pair, 0, NULL), "and says so no more");
}

/* What node 0 was told at its login, if that was this; or that it takes itself for a member again. */
static bool is_told_to_wait(struct pair *pair) {
    struct replicator *r = atomic_load(&pair->nodes[0].replicator);
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    for (;;) {
        repl_lock(r);
        bool told = strstr(r->follow.why, "is being put out of the set") != NULL, believes_again = r->set_heard;
        repl_unlock(r);
        if (told || believes_again || clock_boot() > deadline)
            return told && !believes_again;
        usleep(500);
    }
}

/* The standby has left, and the primary is writing the set without it (which takes long: its own disk has to have everything
 * first). It comes back: what it hears of the set now is over in a moment, and it is not to rest on that. */
static void comes_back_too_soon(struct pair *pair) {
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn;
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    hang(pair, 0, true);
    hang(pair, 1, true);
    is_int(0, op_create(pair->nodes[1].store, &caller, ROOT_INO, "soon", S_IFREG | 0644, 0, NULL, &attributes, &lsn),
           "a change, and both disks hang");
    struct replicator *r = atomic_load(&pair->nodes[1].replicator);
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    bool writing = false;
    while (!writing && clock_boot() < deadline) {
        repl_lock(r);
        writing = r->writing;
        repl_unlock(r);
        usleep(500);
    }
    ok(writing && !believes(pair, 0), "the standby has left, and the primary is to write that down");
    hang(pair, 0, false);
    ok(is_told_to_wait(pair), "it comes back, and is told to wait: it does not take itself for a member");
    hang(pair, 1, false);
    is_int(0, pair_wait_for(pair, 1, WAIT_CHANGE, lsn, LONG), "the primary's disk answers again");
    ok(pair_wait_link(pair, 1, "working", LONG) && pair_wait_link(pair, 0, "working", LONG) && believes_soon(pair, 0),
       "and it becomes a member anew");
}

/* a, the standby, refuses a record: the primary goes on without it, unfenced. Nothing of that reaches a any more, which still has
 * itself in the set: it is not to have the primary powered off, and take its place. */
static void refused_and_cut_off(struct pair *pair) {
    char text[1200];
    struct attributes attributes;
    snprintf(text, sizeof text, "touch %s/ran", test_directory());
    write_program(text);
    ok(pair_wait_link(pair, 0, "working", LONG) && pair_wait_link(pair, 1, "working", LONG), "in sync");
    struct replicator *r = atomic_load(&pair->nodes[0].replicator);
    pthread_mutex_lock(&r->role_lock); /* whatever a hears stays unread */
    is_int(0, store_start_epoch(pair->nodes[0].store, EPOCH_MAKE(1000, pair->config.nodes[0].number), "a"), "a has a record of its own");
    store_stop_epoch(pair->nodes[0].store);
    is_int(0, pair_create_file(pair, 1, "without a", NULL), "a refuses the next one, and the primary goes on alone");
    ok(wait_for_trouble(pair, 0, "was not taken"), "(it does)");
    pair_silence(pair, 1);
    repl_lock(r);
    r->value_heard = false; /* it was on its way */
    repl_unlock(r);
    pthread_mutex_unlock(&r->role_lock);
    usleep(3000000); /* three lease times, again */
    snprintf(text, sizeof text, "%s/ran", test_directory());
    ok(access(text, F_OK) < 0, "a has nobody powered off");
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[0].role), "and takes nobody's place");
    is_int(0, op_lookup(pair->nodes[1].store, ROOT_INO, "without a", &attributes), "what was acknowledged is with the primary");
}

int main(void) {
    plan_lazy();
    programs();
    struct pair *pair = calloc(1, sizeof *pair);
    pair_make(pair, TRANSPORT_CLEAR);
    snprintf(pair->config.fence, sizeof pair->config.fence, "%s", program);
    pair->config.fence_ms = 20000;
    primary_is_silent(pair);
    standby_is_silent(pair);
    stopped_by_a_person(pair);
    standby_is_stuck(pair);
    standby_is_sick(pair);
    comes_back_too_soon(pair);
    refused_and_cut_off(pair);
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    free(pair);
    return 0;
}
