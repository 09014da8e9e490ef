#include "tests/register-contract.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define CHILDREN 12u
#define LONG_LEASE 120000u /* longer than anything here waits */
#define SHORT_LEASE 2000u
#define LEAST_LEASE 100u /* where nobody holds it: voters that are new keep silent towards others for that long */

/* ---- Nodes ----------------------------------------------------------------------------------------------------------- */

static bool fit(void *context) {
    struct contract_node *n = context;
    return !atomic_load(&n->unfit);
}

static void news(void *context, const struct register_value *value) {
    struct contract_node *n = context;
    atomic_fetch_add(&n->news, 1);
    atomic_store(&n->news_version, value->version);
}

static void lost(void *context, epoch_t epoch) {
    struct contract_node *n = context;
    atomic_store(&n->lost_epoch, epoch);
    atomic_fetch_add(&n->lost, 1);
}

static int open_engine(struct contract_node *n, const struct contract *contract, unsigned node) {
    memset(n, 0, sizeof *n);
    n->contract = contract;
    n->node = node;
    struct register_watch watch = {.context = n, .fit = fit, .news = news, .lost = lost};
    int rc = contract->open(contract->context, node, &watch, &n->shared, &n->reg);
    if (rc)
        return rc;
    n->engine = n->reg->engine;
    n->lease = n->engine->lease;
    return n->lease ? 0 : -EINVAL;
}

void node_open(struct contract_node *n, const struct contract *contract, unsigned node) {
    int rc = open_engine(n, contract, node);
    if (rc)
        bail("no engine for node %s: %s", contract->node(contract->context, node), strerror(-rc));
}

void node_close(struct contract_node *n) {
    n->engine->close(n->reg);
}

bool node_holds(struct contract_node *n) {
    return clock_boot() < atomic_load(&n->shared.until);
}

struct register_value value_after(const struct contract_node *n, int to, uint64_t mark) {
    const struct contract *contract = n->contract;
    struct register_value next = n->value;
    next.version++;
    if (to >= 0) {
        const char *name = contract->node(contract->context, (unsigned)to);
        next.epoch = EPOCH_MAKE(EPOCH_COUNTER(next.epoch) + 1, contract->number(contract->context, (unsigned)to));
        snprintf(next.primary, sizeof next.primary, "%s", name);
        memset(next.members, 0, sizeof next.members);
        next.member_count = 1;
        snprintf(next.members[0].node, sizeof next.members[0].node, "%s", name);
        memset(next.members[0].incarnation, 0x5c, 16);
    }
    next.start_lsn = mark;
    return next;
}

/* One try. */
static int rise(struct contract_node *n, uint64_t mark) {
    if (n->engine->read(n->reg, &n->value) != 0)
        return -ENOTCONN;
    struct register_value next = value_after(n, (int)n->node, mark);
    int rc = register_settle(n->reg, &n->value, &next);
    if (rc)
        return rc;
    n->value = next;
    return n->lease->take(n->reg, &n->value);
}

bool node_rises(struct contract_node *n) {
    static atomic_uint_fast64_t marks = 1000000;
    int rc = 0;
    bool risen = WITHIN(60, (rc = rise(n, atomic_fetch_add(&marks, 1))) == 0) && WITHIN(60, node_holds(n));
    return ok(risen, "%s becomes primary, and holds the lease (%s)", n->contract->node(n->contract->context, n->node),
              rc ? strerror(-rc) : "taken");
}

/* ---- Children -------------------------------------------------------------------------------------------------------- */

static struct contract_child *children;
static unsigned children_used;

static void live(struct contract_child *child, const struct contract *contract) {
    static uint64_t mark = 1;
    while (!atomic_load(&child->hold))
        usleep(2000);
    if (open_engine(&child->n, contract, child->node) != 0)
        _exit(1);
    while (rise(&child->n, (uint64_t)getpid() * 1000 + mark++) != 0)
        usleep(5000);
    for (;;) {
        if (node_holds(&child->n))
            atomic_store(&child->answered, clock_boot());
        usleep(200);
    }
}

void contract_children(const struct contract *contract) {
    children = mmap(NULL, CHILDREN * sizeof *children, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (children == MAP_FAILED)
        bail("mmap");
    pid_t parent = getpid();
    for (unsigned i = 0; i < CHILDREN; i++) {
        atomic_store(&children[i].n.shared.until, INT64_MIN);
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0)
            bail("fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(1);
            live(&children[i], contract);
        }
        children[i].pid = pid;
    }
}

struct contract_child *child_holds(const struct contract *contract, unsigned node) {
    if (children_used == CHILDREN)
        bail("more children are needed");
    struct contract_child *child = &children[children_used++];
    child->node = node;
    atomic_store(&child->hold, true);
    bool holds = WITHIN(60, atomic_load(&child->answered) != 0);
    ok(holds, "%s is primary in a process of its own", contract->node(contract->context, node));
    return holds ? child : NULL;
}

void child_kill(struct contract_child *child) {
    kill(child->pid, SIGKILL);
    kill(child->pid, SIGCONT);
    waitpid(child->pid, NULL, 0);
}

/* ---- The register ---------------------------------------------------------------------------------------------------- */

static void one_value_after_the_other(const struct contract *contract) {
    struct contract_node a, b;
    contract->fresh(contract->context, LEAST_LEASE);
    node_open(&a, contract, 0);
    node_open(&b, contract, 1);
    is_int(0, a.engine->read(a.reg, &a.value), "a volume without a value is read");
    is_int(0, a.value.version, "as version 0");
    struct register_value nothing = a.value, first = value_after(&a, 0, 77);
    is_int(0, a.engine->change(a.reg, &a.value, &first), "the first value is chosen");
    is_int(0, b.engine->read(b.reg, &b.value), "another node reads it");
    ok(b.value.version == 1 && b.value.epoch == first.epoch && strcmp(b.value.primary, first.primary) == 0 &&
       b.value.start_lsn == 77 && b.value.member_count == 1 && register_is_member(&b.value, first.primary, first.members[0].incarnation),
       "as it was written");
    struct register_value other = first;
    other.start_lsn = 76;
    is_int(-ESTALE, b.engine->change(b.reg, &nothing, &other), "there is one first value alone");
    is_int(1, nothing.version, "and who comes later gets the one that there is");
    struct register_value second = value_after(&b, -1, 78), wrong = b.value, expected = b.value, back;
    is_int(-EINVAL, b.engine->change(b.reg, &expected, &wrong), "a value has to be above the one before");
    ok(WITHIN(60, register_settle(b.reg, &expected, &second) == 0), "the other node changes it");
    is_int(0, a.engine->read(a.reg, &a.value), "what a reads");
    ok(a.value.version == 2 && a.value.start_lsn == 78, "is the newest, though it has not been told");
    struct register_value third = value_after(&a, -1, 79);
    expected = b.value; /* version 1 */
    third.version = 2;
    is_int(-ESTALE, a.engine->change(a.reg, &expected, &third), "a proposal over an older value is refused");
    ok(expected.version == 2 && expected.start_lsn == 78, "and told the newest");
    expected = b.value;
    is_int(0, register_settle(b.reg, &expected, &second), "who asks again for what is chosen gets it");
    is_int(0, a.engine->read(a.reg, &back), "read once more");
    is_int(2, back.version, "it is not chosen twice");
    node_close(&a);
    node_close(&b);
}

#define RACES 60u
#define VERSIONS 1000u
struct racer {
    struct contract_node n;
    unsigned races;
    unsigned won;
    uint64_t marks[VERSIONS]; /* by version */
    bool overtaken[VERSIONS]; /* the other's answer was quicker: it may have been chosen, and another one after it */
};

static void *race(void *argument) {
    struct racer *racer = argument;
    struct contract_node *n = &racer->n;
    int64_t deadline = clock_boot() + 240000 * MS;
    uint64_t mark = 1000000 * (n->node + 1);
    while (n->engine->read(n->reg, &n->value) != 0 && clock_boot() < deadline)
        ;
    while (racer->won < racer->races && clock_boot() < deadline) {
        struct register_value next = value_after(n, -1, ++mark), wanted = next;
        int rc;
        while ((rc = register_settle(n->reg, &n->value, &next)) != 0 && rc != -ESTALE && clock_boot() < deadline)
            ;
        if (rc == -ESTALE && n->value.version > wanted.version && n->value.version < VERSIONS)
            racer->overtaken[wanted.version] = true;
        if (rc == -ESTALE)
            continue;
        if (rc != 0 || wanted.version >= VERSIONS)
            break;
        racer->marks[wanted.version] = mark;
        racer->won++;
        n->value = next;
    }
    return NULL;
}

void contract_two_at_once(const struct contract *contract, unsigned races) {
    static struct racer racers[2];
    pthread_t threads[2];
    memset(racers, 0, sizeof racers);
    node_open(&racers[0].n, contract, 0);
    node_open(&racers[1].n, contract, 1);
    struct register_value first = value_after(&racers[0].n, 0, 1);
    ok(WITHIN(60, register_settle(racers[0].n.reg, &racers[0].n.value, &first) == 0), "there is a first value");
    for (unsigned i = 0; i < 2; i++) {
        racers[i].races = races;
        pthread_create(&threads[i], NULL, race, &racers[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    is_int(2 * races, racers[0].won + racers[1].won, "two nodes propose at once, each until %u of its values are chosen", races);
    ok(WITHIN(60, racers[0].n.engine->read(racers[0].n.reg, &first) == 0), "in the end it is read");
    unsigned twice = 0, missing = 0, overtaken = 0;
    for (unsigned version = 2; version <= first.version && version < VERSIONS; version++) {
        bool told = racers[0].marks[version] || racers[1].marks[version];
        bool over = racers[0].overtaken[version] || racers[1].overtaken[version];
        twice += racers[0].marks[version] && racers[1].marks[version];
        missing += !told && !over;
        overtaken += !told && over;
    }
    is_int(0, twice, "no version is both's");
    is_int(0, missing, "none is nobody's: what was chosen was told to who proposed it, or to who has overtaken it");
    is_int(2 * races + 1 + overtaken, first.version, "there are as many versions as were chosen (%u overtaken)", overtaken);
    node_close(&racers[0].n);
    node_close(&racers[1].n);
}

static void *be_born(void *argument) {
    struct racer *racer = argument;
    struct contract_node *n = &racer->n;
    int64_t deadline = clock_boot() + 60000 * MS;
    struct register_value next = value_after(n, (int)n->node, 500 + n->node);
    int rc;
    while ((rc = register_settle(n->reg, &n->value, &next)) != 0 && rc != -ESTALE && clock_boot() < deadline)
        ;
    racer->won = rc == 0;
    n->value = rc == 0 ? next : n->value;
    return NULL;
}

static void one_birth(const struct contract *contract) {
    static struct racer racers[2];
    unsigned good = 0, rounds = 15;
    for (unsigned i = 0; i < rounds; i++) {
        pthread_t threads[2];
        contract->fresh(contract->context, LEAST_LEASE);
        memset(racers, 0, sizeof racers);
        for (unsigned j = 0; j < 2; j++)
            node_open(&racers[j].n, contract, j);
        for (unsigned j = 0; j < 2; j++)
            pthread_create(&threads[j], NULL, be_born, &racers[j]);
        for (unsigned j = 0; j < 2; j++)
            pthread_join(threads[j], NULL);
        struct register_value seen;
        int rc = racers[0].n.engine->read(racers[0].n.reg, &seen);
        unsigned winner = racers[0].won ? 0 : 1;
        bool same = racers[0].won + racers[1].won == 1 && rc == 0 && seen.version == 1 && seen.start_lsn == 500 + winner &&
                    racers[0].n.value.start_lsn == seen.start_lsn && racers[1].n.value.start_lsn == seen.start_lsn;
        good += same;
        if (!same)
            diag("round %u: %u and %u won, read %s gives version %llu of %s", i, racers[0].won, racers[1].won, strerror(-rc),
                 (unsigned long long)seen.version, seen.primary);
        for (unsigned j = 0; j < 2; j++)
            node_close(&racers[j].n);
    }
    is_int(rounds, good, "of two nodes that begin a volume at once one does, and the other hears of it");
}

/* ---- The lease ------------------------------------------------------------------------------------------------------- */

static bool is_free(struct contract_node *n) {
    char holder[64];
    int64_t wait;
    return n->lease->free(n->reg, holder, &wait) == 0;
}

static void held_and_given_up(const struct contract *contract) {
    struct contract_node a, b;
    char holder[64] = "";
    int64_t wait = 0;
    struct lease_view view;
    contract->fresh(contract->context, LONG_LEASE);
    node_open(&a, contract, 0);
    node_open(&b, contract, 1);
    ok(!node_holds(&a) && atomic_load(&a.shared.epoch) == 0, "nothing is held at first");
    if (!node_rises(&a))
        return;
    const char *name = contract->node(contract->context, 0);
    epoch_t epoch = a.value.epoch;
    uint64_t session = atomic_load(&a.shared.session);
    ok(atomic_load(&a.shared.epoch) == epoch && session != 0, "the supervisor can see of which epoch and session");
    is_int(-EALREADY, a.lease->take(a.reg, &a.value), "it is taken once in an epoch");
    a.lease->view(a.reg, &view);
    ok(view.asked && view.held && view.left > 0 && view.needed * 2 > view.count, "the view says so (%u of %u)", view.needed, view.count);
    ok(WITHIN(30, b.lease->free(b.reg, holder, &wait) == -EBUSY && strcmp(holder, name) == 0), "others are told who holds it (%s)", holder);
    ok(wait > 0, "and how long at most");
    is_int(0, b.engine->read(b.reg, &b.value), "b reads");
    struct register_value next = value_after(&b, 1, 5), expected = b.value;
    int rc = b.engine->change(b.reg, &expected, &next);
    ok(rc != 0 && rc != -ESTALE, "b cannot make itself primary (%s)", strerror(-rc));
    is_int(-EINVAL, b.lease->take(b.reg, &b.value), "nor take a lease that is not its own");
    next = value_after(&a, -1, 6);
    expected = a.value;
    is_int(0, register_settle(a.reg, &expected, &next), "the holder changes the set");
    a.value = next;
    ok(node_holds(&a) && atomic_load(&a.shared.session) == session, "and goes on holding");
    a.lease->give_up(a.reg);
    ok(atomic_load(&a.shared.until) == INT64_MIN, "given up, nothing is held at once");
    ok(WITHIN(60, is_free(&b)), "and others are let in long before its time");
    is_int(-EALREADY, a.lease->take(a.reg, &a.value), "for ever in its epoch");
    if (!node_rises(&b))
        return;
    contract->release(contract->context, 0, epoch, session, 5000 * MS);
    int64_t until = atomic_load(&b.shared.until);
    ok(WITHIN(60, atomic_load(&b.shared.until) > until), "a late release of the lease before it does not end the new one");
    is_int(-EBUSY, a.lease->free(a.reg, holder, &wait), "nor lets anybody in");
    ok(WITHIN(30, atomic_load(&a.news_version) >= b.value.version), "the former holder hears of the new value");
    is_int(0, atomic_load(&a.lost), "and is told of no loss, for it had given up");
    is_int(-EALREADY, a.lease->take(a.reg, &a.value), "and takes nothing in its old epoch");
    node_close(&b);
    ok(WITHIN(60, is_free(&a)), "closing gives the lease back, too");
    ok(node_rises(&a), "and who was primary before may be it again, in a new epoch");
    node_close(&a);
}

static void handed_over(const struct contract *contract) {
    struct contract_node a, b;
    contract->fresh(contract->context, LONG_LEASE);
    node_open(&a, contract, 0);
    node_open(&b, contract, 1);
    if (!node_rises(&a))
        return;
    struct register_value old = a.value, next = value_after(&a, 1, 9);
    is_int(0, register_settle(a.reg, &a.value, &next), "the holder names another primary");
    ok(atomic_load(&a.shared.until) == INT64_MIN, "and holds nothing any more");
    is_int(-EALREADY, a.lease->take(a.reg, &old), "for ever in its epoch");
    is_int(0, b.engine->read(b.reg, &b.value), "the other one reads it");
    is_int(0, b.lease->take(b.reg, &b.value), "and takes the lease");
    ok(WITHIN(60, node_holds(&b)), "at once");
    is_int(0, atomic_load(&a.lost), "the one before is told of no loss: it was its own doing");
    node_close(&a);
    node_close(&b);
}

static void not_renewed_when_unfit(const struct contract *contract) {
    struct contract_node a, b;
    contract->fresh(contract->context, SHORT_LEASE);
    node_open(&a, contract, 0);
    node_open(&b, contract, 1);
    if (!node_rises(&a))
        return;
    int64_t until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + SHORT_LEASE * MS), "as long as the node is fit, the lease goes on");
    atomic_store(&a.unfit, true);
    ok(WITHIN(60, atomic_load(&a.lost) == 1), "when it is not, the lease is lost, and told");
    ok(atomic_load(&a.lost_epoch) == a.value.epoch && atomic_load(&a.shared.until) == INT64_MIN, "of its epoch, with nothing held");
    atomic_store(&a.unfit, false);
    is_int(-EALREADY, a.lease->take(a.reg, &a.value), "it does not come back in its epoch");
    ok(node_rises(&b), "the other node is let in");
    ok(!node_holds(&a) && atomic_load(&a.lost) == 1, "and told once");
    node_close(&a);
    node_close(&b);
}

/* ---- Holders that are killed, and stopped ---------------------------------------------------------------------------- */

static bool rises_after(struct contract_node *n, struct contract_child *child, const char *how) {
    int64_t until = atomic_load(&child->n.shared.until);
    bool risen = node_rises(n);
    return ok(risen && clock_boot() >= until && atomic_load(&child->answered) < until,
              "not before the lease of the one that was %s has run out", how);
}

static void killed(const struct contract *contract) {
    struct contract_node b;
    contract->fresh(contract->context, SHORT_LEASE);
    node_open(&b, contract, 1);
    struct contract_child *child = child_holds(contract, 0);
    if (!child)
        return;
    ok(!is_free(&b), "it holds others up");
    child_kill(child);
    int64_t until = atomic_load(&child->n.shared.until);
    unsigned early = 0;
    while (clock_boot() < until) {
        bool is = is_free(&b);
        early += is && clock_boot() < until;
    }
    is_int(0, early, "nobody is let in before its lease has run out");
    rises_after(&b, child, "killed");
    node_close(&b);
}

static void stopped(const struct contract *contract) {
    struct contract_node b;
    contract->fresh(contract->context, SHORT_LEASE);
    node_open(&b, contract, 1);
    struct contract_child *child = child_holds(contract, 0);
    if (!child)
        return;
    kill(child->pid, SIGSTOP);
    usleep(1000);
    if (!rises_after(&b, child, "stopped"))
        return;
    int64_t risen = clock_boot(), answered = atomic_load(&child->answered);
    kill(child->pid, SIGCONT);
    ok(WITHIN(60, atomic_load(&child->n.lost) == 1), "when it goes on, it finds out");
    ok(atomic_load(&child->n.shared.until) == INT64_MIN, "and holds nothing");
    ok(WITHIN(60, atomic_load(&child->n.news_version) >= b.value.version || clock_boot() > risen + 3 * SHORT_LEASE * MS), "a while later");
    is_int(answered, atomic_load(&child->answered), "it has answered nothing since before it was stopped");
    ok(node_holds(&b), "the new one holds on");
    child_kill(child);
    node_close(&b);
}

static void released_by_the_supervisor(const struct contract *contract) {
    struct contract_node b;
    contract->fresh(contract->context, LONG_LEASE);
    node_open(&b, contract, 1);
    struct contract_child *child = child_holds(contract, 0);
    if (!child)
        return;
    child_kill(child);
    ok(!is_free(&b), "a holder that was killed holds others up");
    is_int(0, contract->release(contract->context, 0, atomic_load(&child->n.shared.epoch), atomic_load(&child->n.shared.session), 60000 * MS),
           "until its supervisor gives the lease back");
    ok(node_rises(&b), "long before its time");
    node_close(&b);
}

void register_contract(const struct contract *contract) {
    one_value_after_the_other(contract);
    one_birth(contract);
    contract->fresh(contract->context, LEAST_LEASE);
    contract_two_at_once(contract, RACES);
    held_and_given_up(contract);
    handed_over(contract);
    not_renewed_when_unfit(contract);
    killed(contract);
    stopped(contract);
    released_by_the_supervisor(contract);
}
