/* A proposal whose outcome stays unknown: some voters may have accepted it, and while they may, another one holds the lease
 * on the value before. The node that made it, and its next process, acknowledge nothing to that one, and take over from
 * nobody, before a newer value is chosen.
 */
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/played_register.h"
#include "tests/tap.h"

#include <stdio.h>
#include <sys/stat.h>

#define LEASE_MS 4000 /* nobody is put out of the set while a node starts again */
#define LONG 60       /* seconds: for a slow machine */

static struct replicator *replicator(struct pair *pair, unsigned node) {
    return atomic_load(&pair->nodes[node].replicator);
}

static bool unsure(struct pair *pair, unsigned node) {
    struct replicator *r = replicator(pair, node);
    repl_lock(r);
    bool is = r->unsure;
    repl_unlock(r);
    return is;
}

static bool follows(struct pair *pair, unsigned node) {
    struct replicator *r = replicator(pair, node);
    repl_lock(r);
    bool does = r->follow.state == FOLLOW_LOGIN || r->follow.state == FOLLOW_STREAMING;
    repl_unlock(r);
    return does;
}

static struct register_value known(struct pair *pair, unsigned node) {
    struct replicator *r = replicator(pair, node);
    repl_lock(r);
    struct register_value value = r->value;
    repl_unlock(r);
    return value;
}

static bool wait_for(bool (*is)(struct pair *pair, unsigned node), bool wanted, struct pair *pair, unsigned node) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    while (is(pair, node) != wanted && clock_boot() < deadline)
        usleep(1000);
    return is(pair, node) == wanted;
}

static int primary_of(struct pair *pair) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    for (;;) {
        for (int i = 0; i < 2; i++)
            if (atomic_load(&pair->nodes[i].role) == ROLE_PRIMARY)
                return i;
        if (clock_boot() > deadline)
            bail("nobody is primary");
        usleep(1000);
    }
}

static void in_sync(struct pair *pair, unsigned primary) {
    ok(pair_wait_link(pair, primary, "working", LONG) && pair_wait_link(pair, 1 - primary, "working", LONG),
       "both are in sync");
    is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[primary].role), "node %u is primary", primary);
}

static unsigned born(struct pair *pair) {
    pair_start(pair, 0);
    pair_start(pair, 1);
    unsigned primary = (unsigned)primary_of(pair);
    in_sync(pair, primary);
    return primary;
}

static void change(struct pair *pair, unsigned node) {
    static unsigned count;
    char name[32];
    snprintf(name, sizeof name, "f%u", count++);
    is_int(0, pair_create_file(pair, node, name, NULL), "a change is acknowledged");
}

/* As if the lease had been free for a moment: it proposes itself, alone in the set; some voters accept that. */
static void stand(struct pair *pair, unsigned node) {
    struct replicator *r = replicator(pair, node);
    char why[512] = "";
    struct register_value before = played_value(pair->played);
    atomic_store(&pair->played->nodes[node].half, true);
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    int rc = roles_become_primary(r, &(struct beginning){.start = START_ELECTED}, why, sizeof why);
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    is_int(-EINPROGRESS, rc, "node %u proposes itself, and does not know what comes of it: %s", node, why);
    ok(unsure(pair, node), "it is unsure");
    is_int((int64_t)before.version, (int64_t)played_value(pair->played).version, "the register shows the value before");
}

/* The voters tell it nothing, so that nothing is settled yet. */
static void keep_unsure(struct pair *pair, unsigned node) {
    atomic_store(&pair->played->nodes[node].unreachable, true);
}

/* Nobody writes the register meanwhile. */
static void hold_still(struct pair *pair, unsigned node, bool still) {
    struct replicator *r = replicator(pair, node);
    repl_lock(r);
    r->reassure_again = still ? INT64_MAX : 0;
    repl_unlock(r);
}

/* ---- A read is no answer --------------------------------------------------------------------------------------------- */

/* What it proposed is void in the end, as the holder's next ballot did not meet it; or is chosen, as that met it. */
static unsigned holder_goes_on(struct pair *pair, unsigned primary, bool met) {
    unsigned other = 1 - primary;
    struct register_value before = played_value(pair->played);
    hold_still(pair, primary, true);
    atomic_store(&pair->played->half.seen, met);
    stand(pair, other);
    for (int64_t until = clock_boot() + LEASE_MS * 1000000ll / 2; clock_boot() < until; usleep(1000))
        if (follows(pair, other) || !unsure(pair, other))
            break;
    ok(unsure(pair, other) && !follows(pair, other), "a register that shows the value before settles nothing");
    is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[primary].role), "the other one holds the lease on");
    is_int((int64_t)before.version, (int64_t)known(pair, primary).version, "on the value before");
    hold_still(pair, primary, false);
    ok(wait_for(unsure, false, pair, other), "the holder is told of it, and writes its value once more");
    ok(known(pair, other).version > before.version, "what settles it is a newer value");
    if (!met)
        is_int(2, known(pair, other).member_count, "and nobody was put out of the set for that");
    unsigned next = met ? other : primary;
    ok(pair_wait_role(pair, next, ROLE_PRIMARY, LONG),
       met ? "that met what was half done: it is chosen" : "what was half done is void");
    in_sync(pair, next);
    change(pair, next);
    return next;
}

/* ---- Nobody holds the lease ------------------------------------------------------------------------------------------ */

static unsigned nobody_holds(struct pair *pair, unsigned primary) {
    unsigned other = 1 - primary;
    struct register_value before = played_value(pair->played);
    hold_still(pair, primary, true);
    atomic_store(&pair->played->half.seen, true);
    played_silence(pair, primary);
    stand(pair, other);
    ok(unsure(pair, other), "as long as the lease of the one before lasts");
    ok(pair_wait_role(pair, other, ROLE_PRIMARY, LONG), "then a ballot of its own settles it, and it is primary");
    ok(known(pair, other).version > before.version + 1, "in another epoch than the one that it had proposed");
    pair_stop(pair, primary);
    atomic_store(&pair->played->nodes[primary].unreachable, false);
    pair_start(pair, primary);
    in_sync(pair, other);
    change(pair, other);
    return other;
}

/* ---- The next process ------------------------------------------------------------------------------------------------ */

static void process_ends(struct pair *pair, unsigned primary) {
    unsigned other = 1 - primary;
    struct register_value before = played_value(pair->played);
    hold_still(pair, primary, true);
    atomic_store(&pair->played->half.seen, false);
    stand(pair, other);
    pair_silence(pair, other);
    pair_stop(pair, other);
    pair_start(pair, other);
    is_int((int64_t)before.version, (int64_t)played_value(pair->played).version,
           "it starts again, and nothing newer was chosen");
    ok(unsure(pair, other) && !follows(pair, other), "its next process is unsure, too, and follows nobody");
    hold_still(pair, primary, false);
    ok(wait_for(unsure, false, pair, other), "until there is a newer value");
    ok(known(pair, other).version > before.version, "than the one before");
    in_sync(pair, primary);
    change(pair, primary);
    before = played_value(pair->played);
    pair_silence(pair, other);
    pair_stop(pair, other);
    pair_start(pair, other);
    ok(!unsure(pair, other), "the process after that knows of nothing that is open");
    in_sync(pair, primary);
}

/* A power cut: another incarnation, whose acknowledgements count when a newer value has it in its set. */
static void power_fails(struct pair *pair, unsigned primary) {
    unsigned other = 1 - primary;
    char run[1100], command[1300];
    uint8_t incarnation[16];
    struct register_value before = played_value(pair->played);
    memcpy(incarnation, replicator(pair, other)->incarnation, sizeof incarnation);
    hold_still(pair, primary, true);
    stand(pair, other);
    pair_silence(pair, other);
    pair_stop(pair, other);
    snprintf(run, sizeof run, "%s/run", test_directory());
    snprintf(command, sizeof command, "rm -f '%s'/*", run);
    if (system(command) != 0)
        bail("the marks cannot be removed");
    pair_start(pair, other);
    ok(memcmp(incarnation, replicator(pair, other)->incarnation, sizeof incarnation) != 0,
       "after a power cut it is another incarnation");
    ok(!unsure(pair, other), "which has nothing open");
    ok(!register_is_member(&before, roles_own_name(replicator(pair, other)), replicator(pair, other)->incarnation),
       "and nobody waits for its acknowledgements");
    hold_still(pair, primary, false);
    in_sync(pair, primary);
    ok(played_value(pair->played).version > before.version, "before a newer value is chosen");
    change(pair, primary);
}

/* ---- A handover ------------------------------------------------------------------------------------------------------ */

/* Word of a handover, of a value that is older than what may be chosen. */
static unsigned word_of_a_handover(struct pair *pair, unsigned primary) {
    unsigned other = 1 - primary;
    struct replicator *r = replicator(pair, other);
    struct position position;
    struct wire_switch asked = {.value = played_value(pair->played)};
    hold_still(pair, primary, true);
    atomic_store(&pair->played->half.seen, false);
    stand(pair, other);
    keep_unsure(pair, other);
    store_position(r->store, &position);
    repl_lock(r);
    roles_next_epoch(r, &position, other, false, &asked.value);
    asked.lsn = position.lsn;
    memcpy(asked.chain, position.chain, CHAIN_SIZE);
    r->switch_asked = asked;
    r->switch_from = primary;
    r->switch_heard = true;
    pthread_cond_signal(&r->keep_work);
    repl_unlock(r);
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    bool refused = false;
    while (!refused && pair->played->nodes[other].taken < asked.value.epoch && clock_boot() < deadline) {
        repl_lock(r);
        refused = r->switch_refused >= asked.value.epoch;
        repl_unlock(r);
        usleep(1000);
    }
    ok(refused, "word of a handover comes while it is unsure: it says no");
    ok(pair->played->nodes[other].taken < asked.value.epoch, "and does not ask for the lease");
    atomic_store(&pair->played->nodes[other].unreachable, false);
    hold_still(pair, primary, false);
    in_sync(pair, primary);
    change(pair, primary);
    return primary;
}

/* The one who hands over does not know what came of it: what it proposed is chosen in the end, by whoever comes first. */
static unsigned handover_half_done(struct pair *pair, unsigned primary, bool met) {
    unsigned other = 1 - primary;
    struct register_value before = played_value(pair->played);
    char why[512] = "";
    atomic_store(&pair->played->half.seen, met);
    atomic_store(&pair->played->nodes[primary].half, true);
    is_int(-EINPROGRESS, replicator_switchover(replicator(pair, primary), pair->config.nodes[other].name, why, sizeof why),
           "a handover whose outcome is unknown: %s", why);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[primary].role), "its sender is primary no more");
    unsigned next = (unsigned)primary_of(pair);
    ok(wait_for(unsure, false, pair, primary), "it is settled");
    ok(played_value(pair->played).epoch > before.epoch, "and there is a primary in a new epoch: node %u", next);
    in_sync(pair, next);
    change(pair, next);
    return next;
}

int main(void) {
    plan_lazy();
    struct pair *pair = calloc(1, sizeof *pair);
    char run[1100], path[1100], why[512];
    snprintf(run, sizeof run, "%s/run", test_directory());
    if (mkdir(run, 0700) < 0)
        bail("no directory for marks");
    setenv("BATON_RUN", run, 1);
    pair_make(pair, TRANSPORT_CLEAR);
    pair->config.lease_ms = LEASE_MS;
    played_pair(pair, LEASE_MS * 1000000ll);
    for (unsigned i = 0; i < 2; i++) {
        register_file_path(pair->config.nodes[i].store, path, sizeof path);
        if (register_file_first(path, NULL, why, sizeof why))
            bail("%s", why);
    }
    unsigned primary = born(pair);
    primary = holder_goes_on(pair, primary, false);
    primary = holder_goes_on(pair, primary, true);
    primary = nobody_holds(pair, primary);
    process_ends(pair, primary);
    power_fails(pair, primary);
    primary = word_of_a_handover(pair, primary);
    primary = handover_half_done(pair, primary, false);
    primary = handover_half_done(pair, primary, true);
    ok(pair_wait_equal(pair, LONG), "the same last record at the end");
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    played_free(pair->played);
    free(pair);
    return 0;
}
