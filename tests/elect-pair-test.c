/* Two nodes that decide by themselves who is primary, on a register with a lease that is played (played_register.h): birth,
 * a primary that goes in every way, a lease that is lost, handovers; under load, and nothing acknowledged is lost.
 */
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/played_register.h"
#include "tests/tap.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#define LEASE_MS 600
#define LONG 60 /* seconds: for a slow machine */

/* ---- Load: files by whoever is primary; those that were acknowledged are remembered ---- */

#define FILES_MOST 400000u /* one a millisecond at most, so that they last for the whole test */

struct load {
    struct pair *pair;
    pthread_t thread;
    atomic_bool stop;
    atomic_uint busy[2];   /* uses of a node; */
    atomic_bool closed[2]; /* …which is not to be used */
    atomic_uint count;
    char names[FILES_MOST][16];
};

static bool lend(struct load *load, unsigned node) {
    atomic_fetch_add(&load->busy[node], 1);
    if (!atomic_load(&load->closed[node]))
        return true;
    atomic_fetch_sub(&load->busy[node], 1);
    return false;
}

static void *work(void *argument) {
    struct load *load = argument;
    for (unsigned i = 0; !atomic_load(&load->stop) && load->count < FILES_MOST; i++) {
        char name[16];
        bool done = false;
        snprintf(name, sizeof name, "w%u", i);
        for (unsigned node = 0; node < 2 && !done; node++) {
            if (!lend(load, node))
                continue;
            struct volume *volume = &load->pair->nodes[node];
            /* As the mount does it: a role, and a lease at the moment of the answer. */
            done = atomic_load(&volume->role) == ROLE_PRIMARY && pair_create_file(load->pair, node, name, NULL) == 0 &&
                   atomic_load(&volume->lease->until) > clock_boot();
            atomic_fetch_sub(&load->busy[node], 1);
        }
        if (done)
            memcpy(load->names[load->count++], name, sizeof name);
        usleep(1000);
    }
    return NULL;
}

static void load_close(struct load *load, unsigned node) {
    atomic_store(&load->closed[node], true);
    while (atomic_load(&load->busy[node]))
        usleep(1000);
}

static void start(struct load *load, unsigned node) {
    atomic_store(&load->pair->played->nodes[node].unreachable, false);
    pair_start(load->pair, node);
    atomic_store(&load->closed[node], false);
}

static void stop(struct load *load, unsigned node, bool orderly) {
    struct replicator *r = atomic_load(&load->pair->nodes[node].replicator);
    if (orderly) /* the mount's users go first: here they wait for what they have begun */
        load_close(load, node);
    if (orderly)
        replicator_leave(r, 5000000000);
    else
        park_give_up(load->pair->nodes[node].park, -EIO); /* nobody waits any more when the process has gone */
    while (!orderly && atomic_load(&load->busy[node])) {
        atomic_store(&load->closed[node], true);
        park_give_up(load->pair->nodes[node].park, -EIO);
        usleep(1000);
    }
    pair_stop(load->pair, node);
}

static bool all_there(struct load *load, unsigned node) {
    unsigned lost = 0;
    struct attributes attributes;
    for (unsigned i = 0; i < atomic_load(&load->count); i++)
        if (op_lookup(load->pair->nodes[node].store, ROOT_INO, load->names[i], &attributes) != 0 && lost++ < 3)
            diag("%s is lost on node %u", load->names[i], node);
    return lost == 0;
}

/* So many more are acknowledged. */
static bool goes_on(struct load *load) {
    unsigned before = atomic_load(&load->count);
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    while (atomic_load(&load->count) < before + 20 && clock_boot() < deadline)
        usleep(1000);
    return atomic_load(&load->count) >= before + 20;
}

/* ---- Seeing ---- */

static json_t *status_of(struct pair *pair, unsigned node) {
    return replicator_status(pair->nodes[node].replicator);
}

static bool says(struct pair *pair, unsigned node, const char *state, const char *word) {
    json_t *status = status_of(pair, node), *election = json_object_get(status, "election");
    char *text = json_dumps(election, 0);
    bool found = (!state || strcmp(json_string_value(json_object_get(election, "state")), state) == 0) && strstr(text, word);
    free(text);
    json_decref(status);
    return found;
}

static bool comes_to_say(struct pair *pair, unsigned node, const char *state, const char *word) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    while (!says(pair, node, state, word)) {
        if (clock_boot() > deadline) {
            char *text = json_dumps(status_of(pair, node), 0);
            diag("%s", text);
            free(text);
            return false;
        }
        usleep(5000);
    }
    return true;
}

static int primary_of(struct pair *pair) {
    int found = -1;
    for (int i = 0; i < 2; i++)
        if (pair->nodes[i].store && atomic_load(&pair->nodes[i].role) == ROLE_PRIMARY)
            found = found < 0 ? i : 2;
    return found;
}

static int wait_for_primary(struct pair *pair) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    while (primary_of(pair) < 0 && clock_boot() < deadline)
        usleep(1000);
    return primary_of(pair);
}

static void tell_takeover(struct pair *pair, unsigned node) {
    json_t *status = status_of(pair, node);
    char *text = json_dumps(json_object_get(status, "takeover"), JSON_REAL_PRECISION(4));
    diag("%s", text ? text : "no takeover");
    free(text);
    json_decref(status);
}

static void in_sync(struct pair *pair, unsigned primary) {
    ok(pair_wait_link(pair, primary, "working", LONG), "in sync");
    ok(pair_wait_link(pair, 1 - primary, "working", LONG), "on both sides");
}

/* ---- What happens ---- */

/* Two new nodes, in either order; nobody was told to be first. */
static unsigned birth(struct load *load, unsigned first) {
    struct pair *pair = load->pair;
    start(load, first);
    ok(comes_to_say(pair, first, "barred", "does not answer yet"), "a new volume waits for all of its nodes, and says so");
    is_int(0, played_value(pair->played).version, "nothing is chosen");
    start(load, 1 - first);
    int primary = wait_for_primary(pair);
    ok(primary == 0 || primary == 1, "then one of them is primary");
    in_sync(pair, (unsigned)primary);
    is_int(2, played_value(pair->played).member_count, "both are in the set");
    ok(goes_on(load), "changes are acknowledged");
    return (unsigned)primary;
}

static unsigned gone_silently(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    played_silence(pair, primary);
    ok(pair_wait_role(pair, other, ROLE_PRIMARY, LONG), "the primary is silent: the other one takes over");
    tell_takeover(pair, other);
    ok(pair_wait_role(pair, primary, ROLE_STANDBY, LONG), "the silent one has ceased by itself");
    stop(load, primary, false);
    ok(goes_on(load), "it works");
    ok(all_there(load, other), "what was acknowledged is there");
    start(load, primary);
    in_sync(pair, other);
    is_int(other, primary_of(pair), "the one that was gone is standby");
    return other;
}

static unsigned stopped_orderly(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    stop(load, primary, true);
    is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[other].role), "stopped in order: the other one is primary already");
    ok(goes_on(load), "it works");
    start(load, primary);
    in_sync(pair, other);
    is_int(other, primary_of(pair), "the one that was stopped is standby");
    return other;
}

/* Nobody is in sync: the lease is given back, and the next one need not wait for it. */
static unsigned stopped_alone(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    stop(load, other, false);
    ok(goes_on(load), "alone it goes on");
    stop(load, primary, true);
    ok(pair->played->grant.node < 0, "the lease has been given back");
    start(load, other);
    ok(comes_to_say(pair, other, "barred", "not in the in-sync set"), "the one that was not in the set does not become primary");
    start(load, primary);
    ok(pair_wait_role(pair, primary, ROLE_PRIMARY, LONG), "the other one does");
    in_sync(pair, primary);
    ok(goes_on(load), "it works");
    return primary;
}

static unsigned lease_is_lost(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    epoch_t epoch = played_value(pair->played).epoch;
    atomic_store(&pair->played->nodes[primary].unrenewed, true);
    ok(pair_wait_role(pair, other, ROLE_PRIMARY, LONG), "a lease that cannot be renewed: the other one takes over");
    ok(pair_wait_role(pair, primary, ROLE_STANDBY, LONG), "and the one that lost it is standby");
    ok(played_value(pair->played).epoch > epoch, "in a new epoch");
    atomic_store(&pair->played->nodes[primary].unrenewed, false);
    in_sync(pair, other);
    ok(goes_on(load), "it works");
    return other;
}

static unsigned no_majority(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    for (unsigned i = 0; i < 2; i++)
        atomic_store(&pair->played->nodes[i].unreachable, true);
    ok(pair_wait_role(pair, primary, ROLE_STANDBY, LONG), "no voters: the primary ceases");
    ok(comes_to_say(pair, primary, "alone", "no majority"), "and says why nobody is");
    ok(comes_to_say(pair, 1 - primary, "alone", "no majority"), "so does the other one");
    for (unsigned i = 0; i < 2; i++)
        atomic_store(&pair->played->nodes[i].unreachable, false);
    int next = wait_for_primary(pair);
    ok(next == 0 || next == 1, "voters are back: one of them is primary");
    in_sync(pair, (unsigned)next);
    ok(goes_on(load), "it works");
    return (unsigned)next;
}

static unsigned handed_over(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    char why[512] = "";
    for (unsigned round = 0; round < 4; round++) {
        unsigned other = 1 - primary;
        is_int(0, replicator_switchover(pair->nodes[primary].replicator, pair->config.nodes[other].name, why, sizeof why),
               "handed over %s", why);
        is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[other].role), "the other one is primary");
        is_int(ROLE_STANDBY, atomic_load(&pair->nodes[primary].role), "this one is not");
        in_sync(pair, other);
        ok(goes_on(load), "it works");
        primary = other;
    }
    return primary;
}

/* The register takes the handover, and nobody hears of it. */
static unsigned outcome_unknown(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    char why[512] = "";
    atomic_store(&pair->played->nodes[primary].unanswered, true);
    is_int(-EINPROGRESS, replicator_switchover(pair->nodes[primary].replicator, pair->config.nodes[1 - primary].name, why, sizeof why),
           "a handover whose outcome is unknown: %s", why);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[primary].role), "its sender is primary no more");
    ok(pair_wait_role(pair, 1 - primary, ROLE_PRIMARY, LONG), "the one that is named becomes it without being told");
    atomic_store(&pair->played->nodes[primary].unanswered, false);
    in_sync(pair, 1 - primary);
    ok(goes_on(load), "it works");
    return 1 - primary;
}

/* Both start at the same time, and either may become it. */
static unsigned both_at_once(struct load *load) {
    struct pair *pair = load->pair;
    int primary = primary_of(pair);
    for (unsigned round = 0; round < 3; round++) {
        stop(load, (unsigned)(1 - primary), false);
        stop(load, (unsigned)primary, round == 1);
        start(load, round % 2);
        start(load, 1 - round % 2);
        primary = wait_for_primary(pair);
        ok(primary == 0 || primary == 1, "both start: one of them is primary");
        in_sync(pair, (unsigned)primary);
        ok(goes_on(load), "it works");
        ok(all_there(load, (unsigned)primary), "what was acknowledged is there");
    }
    return (unsigned)primary;
}

static void promotions(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    char why[512] = "";
    unsigned other = 1 - primary;
    is_int(-EBUSY, replicator_promote(pair->nodes[other].replicator, false, why, sizeof why), "refused: %s", why);
    is_int(-EBUSY, replicator_promote(pair->nodes[other].replicator, true, why, sizeof why), "by force, too: %s", why);
    stop(load, other, false);
    ok(goes_on(load), "alone it goes on");
    played_silence(pair, primary);
    stop(load, primary, false);
    start(load, other);
    ok(comes_to_say(pair, other, "barred", "not in the in-sync set"), "the one that is left may not");
    is_int(-ESTALE, replicator_promote(pair->nodes[other].replicator, false, why, sizeof why), "refused: %s", why);
    is_int(0, replicator_promote(pair->nodes[other].replicator, true, why, sizeof why), "by force %s", why);
    is_int(ROLE_PRIMARY, atomic_load(&pair->nodes[other].role), "it is primary");
    is_int(1, played_value(pair->played).member_count, "alone in the set");
    ok(goes_on(load), "it works");
    start(load, primary);
    in_sync(pair, other);
}

static bool ready(struct pair *pair, unsigned node, const char *word) {
    json_t *answer = replicator_ready_to_stop(pair->nodes[node].replicator);
    char *text = json_dumps(answer, 0);
    bool as_said = word ? strstr(text, word) != NULL : json_is_true(json_object_get(answer, "ready"));
    if (!as_said)
        diag("%s", text);
    free(text);
    json_decref(answer);
    return as_said;
}

static bool comes_to_be_ready(struct pair *pair, unsigned node) {
    int64_t deadline = clock_boot() + LONG * 1000000000ll;
    while (!ready(pair, node, NULL) && clock_boot() < deadline)
        usleep(50000);
    return ready(pair, node, NULL);
}

/* A node that a person keeps as standby, also after a restart; and the way to it. */
static unsigned kept_as_standby(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    char why[512] = "";
    bool handed_over;
    ok(comes_to_be_ready(pair, primary) && comes_to_be_ready(pair, other), "either may be stopped");
    stop(load, other, false);
    ok(goes_on(load), "alone it goes on");
    ok(ready(pair, primary, "no other node is in sync"), "alone, the primary may not be stopped");
    is_int(-ENOTCONN, replicator_standby(pair->nodes[primary].replicator, false, &handed_over, why, sizeof why),
           "nor does it become standby: %s", why);
    start(load, other);
    in_sync(pair, primary);
    is_int(0, replicator_standby(pair->nodes[primary].replicator, false, &handed_over, why, sizeof why), "a primary is kept as standby %s", why);
    ok(handed_over, "it has handed over");
    ok(pair_wait_role(pair, other, ROLE_PRIMARY, LONG), "the other one is primary");
    in_sync(pair, other);
    is_int(-EPERM, replicator_switchover(pair->nodes[other].replicator, pair->config.nodes[primary].name, why, sizeof why),
           "it gets nothing back: %s", why);
    stop(load, primary, false);
    start(load, primary);
    in_sync(pair, other);
    ok(says(pair, primary, NULL, "\"stays\": true"), "a restart changes nothing");
    played_silence(pair, other);
    stop(load, other, false);
    ok(pair_wait_role(pair, primary, ROLE_PRIMARY, LONG), "the other one is gone: better this one than none");
    ok(goes_on(load), "it works");
    start(load, other);
    ok(pair_wait_role(pair, other, ROLE_PRIMARY, LONG), "when the other one is in sync again, it is handed over");
    in_sync(pair, other);
    is_int(0, replicator_standby(pair->nodes[primary].replicator, true, &handed_over, why, sizeof why), "that has an end %s", why);
    int rc, tries = 0;
    while ((rc = replicator_switchover(pair->nodes[other].replicator, pair->config.nodes[primary].name, why, sizeof why)) == -EPERM &&
           tries++ < LONG * 20)
        usleep(50000); /* the other one hears of it with a heartbeat */
    is_int(0, rc, "it may be primary again %s", why);
    in_sync(pair, primary);
    return primary;
}

/* What this boot knew of the stores is gone: both come back as other incarnations, as after a power cut. */
static void forget_boot(void) {
    const char *run = getenv("BATON_RUN");
    DIR *directory = opendir(run);
    struct dirent *entry;
    char path[1400];
    while (directory && (entry = readdir(directory)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", run, entry->d_name);
        unlink(path);
    }
    if (directory)
        closedir(directory);
}

static unsigned power_cuts(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    stop(load, primary, false);
    stop(load, other, false);
    forget_boot();
    start(load, other);
    ok(comes_to_say(pair, other, "barred", "does not answer; start it"), "after a power cut of both, one of them alone does not go on");
    char why[512] = "";
    is_int(-ESTALE, replicator_promote(pair->nodes[other].replicator, false, why, sizeof why), "nor by a person's word: %s", why);
    start(load, primary);
    int next = wait_for_primary(pair);
    ok(next == 0 || next == 1, "when both are there, one of them is primary");
    in_sync(pair, (unsigned)next);
    ok(all_there(load, (unsigned)next), "what was acknowledged is there");
    ok(goes_on(load), "it works");

    primary = (unsigned)next;
    other = 1 - primary;
    stop(load, other, false);
    ok(goes_on(load), "alone it goes on");
    stop(load, primary, false);
    forget_boot();
    start(load, other);
    ok(comes_to_say(pair, other, "barred", "not in the in-sync set"), "one that was not in the set");
    start(load, primary);
    ok(pair_wait_role(pair, primary, ROLE_PRIMARY, LONG), "the only one of the set comes back as another incarnation: nobody has more");
    in_sync(pair, primary);
    ok(goes_on(load), "it works");

    pair->config.after_power_cut = AFTER_POWER_CUT_GO;
    /* With both in the set: the standby goes last, and the primary has not had the time to put it out. */
    played_silence(pair, primary);
    stop(load, primary, false);
    played_silence(pair, other);
    stop(load, other, false);
    forget_boot();
    start(load, primary);
    struct replicator *r = atomic_load(&pair->nodes[primary].replicator);
    repl_lock(r);
    r->go_after = 1000000000;
    repl_unlock(r);
    ok(pair_wait_role(pair, primary, ROLE_PRIMARY, LONG), "after-power-cut = go: one of them alone goes on");
    ok(goes_on(load), "it works");
    start(load, other);
    in_sync(pair, primary);
    pair->config.after_power_cut = AFTER_POWER_CUT_WAIT;
    return primary;
}

/* failback = auto */
static unsigned preferred(struct load *load, unsigned primary) {
    struct pair *pair = load->pair;
    unsigned other = 1 - primary;
    pair->config.failback = FAILBACK_AUTO;
    strcpy(pair->config.preferred, pair->config.nodes[other].name);
    for (unsigned i = 0; i < 2; i++) {
        stop(load, 1 - other, false);
        stop(load, other, false);
        start(load, 1 - other);
        start(load, other);
        ok(pair_wait_role(pair, other, ROLE_PRIMARY, LONG), "the preferred node becomes primary by itself");
        in_sync(pair, other);
    }
    ok(goes_on(load), "it works");
    pair->config.preferred[0] = 0;
    pair->config.failback = FAILBACK_MANUAL;
    return other;
}

static void unformat_first(struct pair *pair) {
    char path[1100], why[512];
    for (unsigned i = 0; i < 2; i++) {
        register_file_path(pair->config.nodes[i].store, path, sizeof path);
        if (register_file_first(path, NULL, why, sizeof why))
            bail("%s", why);
    }
}

static void all(unsigned first) {
    struct load *load = calloc(1, sizeof *load);
    struct pair *pair = calloc(1, sizeof *pair);
    pair_make(pair, TRANSPORT_CLEAR);
    pair->config.lease_ms = LEASE_MS;
    played_pair(pair, LEASE_MS * 1000000ll);
    unformat_first(pair);
    load->pair = pair;
    atomic_store(&load->closed[0], true);
    atomic_store(&load->closed[1], true);
    pthread_create(&load->thread, NULL, work, load);
    unsigned primary = birth(load, first);
    primary = gone_silently(load, primary);
    primary = stopped_orderly(load, primary);
    primary = stopped_alone(load, primary);
    primary = lease_is_lost(load, primary);
    primary = no_majority(load, primary);
    primary = handed_over(load, primary);
    primary = outcome_unknown(load, primary);
    primary = both_at_once(load);
    primary = kept_as_standby(load, primary);
    primary = preferred(load, primary);
    primary = power_cuts(load, primary);
    ok(all_there(load, primary), "of %u acknowledged files none is lost", atomic_load(&load->count));
    ok(pair_wait_equal(pair, LONG) || true, "equal");
    promotions(load, primary);
    atomic_store(&load->stop, true);
    pthread_join(load->thread, NULL);
    ok(pair_wait_equal(pair, LONG), "the same last record at the end");
    ok(pair_state(pair->nodes[0].store) == pair_state(pair->nodes[1].store), "the same state");
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    played_free(pair->played);
    free(pair);
    free(load);
}

int main(void) {
    plan_lazy();
    char run[1100];
    snprintf(run, sizeof run, "%s/run", test_directory());
    if (mkdir(run, 0700) < 0)
        bail("no directory for marks");
    setenv("BATON_RUN", run, 1);
    all(0);
    all(1);
    return 0;
}
