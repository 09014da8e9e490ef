/* The register in etcd when members die, stop and come back, when a holder is stuck and etcd drops its key, when answers are lost
 * or come late. */
#include "membership/register_etcd.h"
#include "tests/etcd_cluster.h"
#include "tests/etcd_proxy.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static struct etcd_cluster cluster = {0};
static uint8_t volume = 1;

static void open_node(struct etcd_node *node, const char *name, uint32_t lease_ms) {
    etcd_node_config(node, &cluster, name, lease_ms);
    memset(node->config.volume_id, volume, sizeof node->config.volume_id);
    if (etcd_node_open_as(node) != 0)
        bail("the register cannot be opened: %s", node->why);
}

static struct register_value begin(struct etcd_node *node) {
    struct register_value none = {0}, value = etcd_next(&none, node->self->name, true);
    is_int(0, register_settle(node->reg, &none, &value), "%s is the first primary", node->self->name);
    is_int(0, node->reg->engine->lease->take(node->reg, &value), "it takes the lease");
    ok(AWAIT(etcd_holds(node)), "and has it");
    return value;
}

static bool is_free(struct etcd_node *node) {
    char holder[64];
    int64_t wait;
    return node->reg->engine->lease->free(node->reg, holder, &wait) == 0;
}

static bool reads(struct etcd_node *node, uint64_t version) {
    struct register_value value;
    return node->reg->engine->read(node->reg, &value) == 0 && value.version == version;
}

/* ---- A holder that is stuck ------------------------------------------------------------------------------------------ */

struct holder { /* a process of its own, begun before there are threads here */
    struct lease_shared shared;
    atomic_bool go, holds;
    pid_t pid;
    uint32_t lease_ms;
} *holder;

static void be_holder(void) {
    static struct etcd_node a;
    while (!atomic_load(&holder->go))
        usleep(1000);
    etcd_node_config(&a, &cluster, "a", holder->lease_ms);
    memset(a.config.volume_id, 0x77, sizeof a.config.volume_id);
    a.shared = &holder->shared;
    struct register_value none = {0}, value = etcd_next(&none, "a", true);
    if (etcd_node_open_as(&a) != 0 || register_settle(a.reg, &none, &value) != 0 ||
        a.reg->engine->lease->take(a.reg, &value) != 0)
        _exit(1);
    for (;;) {
        atomic_store(&holder->holds, etcd_holds(&a));
        usleep(1000);
    }
}

static void start_holder(uint32_t lease_ms) {
    holder = mmap(NULL, sizeof *holder, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PROMISE(holder != MAP_FAILED);
    holder->lease_ms = lease_ms;
    pid_t parent = getpid(), pid = fork();
    PROMISE(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            be_holder();
        _exit(1);
    }
    holder->pid = pid;
}

static void revoke_all(void) {
    char answer[8192];
    is_int(200, etcd_post(cluster.members[0].url, "/v3/lease/leases", "{}", NULL, answer, sizeof answer),
           "etcd lists its leases");
    for (char *at = answer; (at = strstr(at, "\"ID\":\"")) != NULL; at += 6) {
        char body[64], revoked[512];
        snprintf(body, sizeof body, "{\"ID\":\"%lld\"}", strtoll(at + 6, NULL, 10));
        etcd_post(cluster.members[0].url, "/v3/lease/revoke", body, NULL, revoked, sizeof revoked);
    }
}

/* TRAPS 35, and etcd issue 15247: a leader that was stuck revokes a lease that its holder has renewed at the new one. The holder
 * counts on; nobody may be let in before it has stopped to. It is stopped here, so that it cannot find out. */
static void test_key_dropped_early(void) {
    static struct etcd_node b;
    volume = 0x77;
    atomic_store(&holder->go, true);
    ok(AWAIT(atomic_load(&holder->holds)), "a is primary in a process of its own, with a lease of 8 s");
    open_node(&b, "b", 8000);
    ok(AWAIT(reads(&b, 1)), "b reads");
    kill(holder->pid, SIGSTOP);
    usleep(10000);
    int64_t until = atomic_load(&holder->shared.until);
    revoke_all();
    ok(clock_boot() < until, "etcd has dropped the holder's key while it counts on");
    unsigned early = 0, asked = 0;
    struct register_value value, next;
    b.reg->engine->read(b.reg, &value);
    next = etcd_next(&value, "b", true);
    while (clock_boot() < until) {
        bool is = is_free(&b), chosen = register_settle(b.reg, &value, &next) == 0;
        early += (is || chosen) && clock_boot() < until;
        asked++;
        usleep(20000);
    }
    ok(asked > 0 && early == 0, "b is not let in before the holder has stopped counting (%u times asked)", asked);
    ok(AWAIT(atomic_load(&b.freed) == 1), "then it is told that it may look");
    ok(AWAIT(is_free(&b)), "it is free");
    is_int(0, register_settle(b.reg, &value, &next), "and b becomes primary");
    is_int(0, b.reg->engine->lease->take(b.reg, &next), "takes the lease");
    ok(AWAIT(etcd_holds(&b)), "and has it");
    kill(holder->pid, SIGCONT);
    ok(AWAIT(atomic_load(&holder->shared.until) == INT64_MIN), "the former holder finds out");
    ok(etcd_holds(&b), "b holds on");
    kill(holder->pid, SIGKILL);
    waitpid(holder->pid, NULL, 0);
    etcd_node_close(&b);
}

/* ---- Members --------------------------------------------------------------------------------------------------------- */

static void test_one_killed(void) {
    static struct etcd_node a, b;
    volume = 1;
    open_node(&a, "a", 30000);
    open_node(&b, "b", 30000);
    struct register_value value = begin(&a), next;
    int leader = -1;
    ok(AWAIT((leader = etcd_cluster_leader(&cluster)) >= 0), "one member leads");
    etcd_member_kill(&cluster, (unsigned)leader);
    int64_t until = clock_boot() + 30 * SECOND;
    ok(AWAIT(atomic_load(&a.shared->until) > until), "it is killed, and the lease is renewed");
    next = etcd_next(&value, "a", false);
    ok(AWAIT(register_settle(a.reg, &value, &next) == 0), "the register can be changed");
    ok(AWAIT(atomic_load(&b.news_version) == 2), "the other node is told");
    struct lease_view view;
    ok(AWAIT((a.reg->engine->lease->view(a.reg, &view), !view.voters[leader].answers && view.voters[leader].why[0])),
       "status tells of the member that does not answer");
    diag("%s: %s", view.voters[leader].name, view.voters[leader].why);
    is_int(0, atomic_load(&a.lost), "nothing is lost");
    etcd_member_start(&cluster, (unsigned)leader);
    ok(AWAIT((a.reg->engine->lease->view(a.reg, &view), view.voters[leader].answers)), "it comes back, and status says so");
    etcd_node_close(&a);
    etcd_node_close(&b);
}

static void test_majority_stopped(void) {
    static struct etcd_node a, b;
    struct register_value value, expected, next, seen;
    volume = 2;
    open_node(&a, "a", 2000);
    open_node(&b, "b", 2000);
    value = begin(&a);
    ok(AWAIT(reads(&b, 1)), "b reads");
    for (unsigned i = 0; i < 2; i++)
        etcd_member_signal(&cluster, i, SIGSTOP);
    ok(AWAIT(atomic_load(&a.lost) == 1), "without a majority of etcd's members the lease runs out");
    ok(!etcd_holds(&a) && atomic_load(&a.shared->until) == INT64_MIN, "and nothing is answered");
    is_int(-ENOTCONN, b.reg->engine->read(b.reg, &seen), "the register cannot be read");
    is_int(1, seen.version, "but what was known is told");
    char name[64];
    int64_t wait;
    is_int(-ENOTCONN, b.reg->engine->lease->free(b.reg, name, &wait), "nobody can say whether the lease is free");
    expected = value;
    next = etcd_next(&value, "a", false);
    is_int(-EINPROGRESS, register_settle(a.reg, &expected, &next), "what becomes of a change is unknown");
    for (unsigned i = 0; i < 2; i++)
        etcd_member_signal(&cluster, i, SIGCONT);
    int rc = -EINPROGRESS;
    ok(AWAIT((rc = register_settle(a.reg, &expected, &next)) == 0 || rc == -ESTALE), "when they go on, it is settled");
    is_int(0, rc, "and made");
    ok(AWAIT(atomic_load(&b.news_version) == 2), "the other node is told");
    is_int(-EALREADY, a.reg->engine->lease->take(a.reg, &next), "the lease does not come back in its epoch");
    expected = next;
    next = etcd_next(&expected, "a", true);
    ok(AWAIT(register_settle(a.reg, &expected, &next) == 0), "its node is primary in the next epoch");
    is_int(0, a.reg->engine->lease->take(a.reg, &next), "and takes it");
    ok(AWAIT(etcd_holds(&a)), "and has it");
    etcd_node_close(&a);
    etcd_node_close(&b);
}

/* Closing waits for nobody who does not answer. */
static void test_close_without_etcd(void) {
    static struct etcd_node a;
    volume = 3;
    open_node(&a, "a", 20000);
    begin(&a);
    for (unsigned i = 0; i < 3; i++)
        etcd_member_signal(&cluster, i, SIGSTOP);
    etcd_node_close(&a);
    ok(true, "an engine is closed while etcd is silent");
    ok(register_etcd_release(&a.config, a.self, EPOCH_MAKE(1, 1), 1, SECOND) != 0, "a release that reaches nobody says so");
    for (unsigned i = 0; i < 3; i++)
        etcd_member_signal(&cluster, i, SIGCONT);
}

/* ---- Answers that are lost or late ----------------------------------------------------------------------------------- */

static void open_through(struct etcd_node *node, struct etcd_proxy *proxy, const char *name, uint32_t lease_ms) {
    etcd_node_config(node, &cluster, name, lease_ms);
    memset(node->config.volume_id, volume, sizeof node->config.volume_id);
    node->config.etcd.endpoint_count = 1;
    snprintf(node->config.etcd.endpoints[0], sizeof node->config.etcd.endpoints[0], "%s", proxy->url);
    if (etcd_node_open_as(node) != 0)
        bail("the register cannot be opened: %s", node->why);
}

/* The requests of a change have this in them, those of a look do not. */
#define OF_A_WRITE "\"compare\""

static void test_answer_lost(void) {
    static struct etcd_node a;
    struct etcd_proxy proxy;
    volume = 4;
    etcd_proxy_start(&proxy, cluster.members[0].url);
    open_through(&a, &proxy, "a", 30000);
    struct register_value value = begin(&a), expected = value, next = etcd_next(&value, "a", false);
    proxy.only = OF_A_WRITE;
    atomic_store(&proxy.mode, PROXY_LOSE_ANSWER);
    is_int(0, register_settle(a.reg, &expected, &next), "a change whose answer is lost is found to be made");
    ok(atomic_load(&proxy.done) > 0, "(it was lost)");
    atomic_store(&proxy.mode, PROXY_PASS);
    ok(AWAIT(reads(&a, 2)), "it is the value");
    ok(etcd_holds(&a), "the lease is held");
    etcd_node_close(&a);
    etcd_proxy_end(&proxy);
}

/* A change is on its way for long. Once it is said that it is not made, it never is (TRAPS 24). */
static void test_request_late(void) {
    static struct etcd_node a, b;
    struct etcd_proxy proxy;
    volume = 5;
    etcd_proxy_start(&proxy, cluster.members[0].url);
    open_node(&b, "b", 30000);
    open_through(&a, &proxy, "a", 30000);
    struct register_value value = begin(&a), expected = value, next = etcd_next(&value, "a", false);
    proxy.only = OF_A_WRITE;
    atomic_store(&proxy.mode, PROXY_HOLD);
    int rc = a.reg->engine->change(a.reg, &expected, &next);
    ok(rc != 0 && rc != -ESTALE, "the outcome of a change that is on its way is unknown (%s)", strerror(-rc));
    unsigned held = atomic_load(&proxy.requests);
    ok(held > 0, "(it is on its way)");
    atomic_store(&proxy.mode, PROXY_PASS);
    struct register_value seen;
    is_int(0, a.reg->engine->read(a.reg, &seen), "read after that");
    is_int(1, seen.version, "the register has its old value");
    atomic_store(&proxy.send_held, true);
    ok(AWAIT(atomic_load(&proxy.done) == held), "then the change arrives");
    is_int(0, b.reg->engine->read(b.reg, &seen), "b reads");
    is_int(1, seen.version, "it was not made");
    is_int(0, a.reg->engine->read(a.reg, &seen), "a reads again");
    is_int(1, seen.version, "nor later");
    ok(etcd_holds(&a), "the lease is held");
    expected = value;
    is_int(0, register_settle(a.reg, &expected, &next), "a new try makes it");
    etcd_node_close(&a);
    etcd_node_close(&b);
    etcd_proxy_end(&proxy);
}

/* One member has the change on its way, and another one refuses it for good: that says nothing of the first. */
static void test_request_late_and_refused(void) {
    static struct etcd_node a;
    struct etcd_proxy proxy, other;
    volume = 8;
    etcd_proxy_start(&proxy, cluster.members[0].url);
    etcd_proxy_start(&other, cluster.members[1].url);
    etcd_node_config(&a, &cluster, "a", 30000);
    memset(a.config.volume_id, volume, sizeof a.config.volume_id);
    a.config.etcd.endpoint_count = 2;
    snprintf(a.config.etcd.endpoints[0], sizeof a.config.etcd.endpoints[0], "%s", proxy.url);
    snprintf(a.config.etcd.endpoints[1], sizeof a.config.etcd.endpoints[1], "%s", other.url);
    if (etcd_node_open_as(&a) != 0)
        bail("the register cannot be opened: %s", a.why);
    struct register_value value = begin(&a), expected = value, next = etcd_next(&value, "a", false);
    proxy.only = other.only = OF_A_WRITE;
    atomic_store(&other.mode, PROXY_UNWILLING);
    atomic_store(&proxy.mode, PROXY_HOLD);
    is_int(-EINPROGRESS, register_settle(a.reg, &expected, &next), "the outcome of a change that one member holds and another refuses is unknown");
    ok(atomic_load(&proxy.requests) > 0 && atomic_load(&other.requests) > 0, "(one has it, the other has said no)");
    atomic_store(&other.mode, PROXY_PASS);
    atomic_store(&proxy.mode, PROXY_PASS);
    atomic_store(&proxy.send_held, true);
    expected = value;
    is_int(0, register_settle(a.reg, &expected, &next), "a new try makes it, or finds it made");
    etcd_node_close(&a);
    etcd_proxy_end(&proxy);
    etcd_proxy_end(&other);
}

/* The same with the first value, which is upon nothing that could be changed. */
static void test_birth_late(void) {
    static struct etcd_node a, b;
    struct etcd_proxy proxy;
    volume = 6;
    etcd_proxy_start(&proxy, cluster.members[0].url);
    open_node(&b, "b", 30000);
    open_through(&a, &proxy, "a", 30000);
    struct register_value none = {0}, expected = none, next = etcd_next(&none, "a", true), seen;
    proxy.only = OF_A_WRITE;
    atomic_store(&proxy.mode, PROXY_HOLD);
    ok(a.reg->engine->change(a.reg, &expected, &next) != 0, "the outcome of a birth that is on its way is unknown");
    unsigned held = atomic_load(&proxy.requests);
    atomic_store(&proxy.mode, PROXY_PASS);
    is_int(0, a.reg->engine->read(a.reg, &seen), "read after that");
    is_int(0, seen.version, "the volume is not born");
    atomic_store(&proxy.send_held, true);
    ok(AWAIT(atomic_load(&proxy.done) == held), "then the birth arrives");
    ok(reads(&b, 0), "too late");
    expected = none;
    next = etcd_next(&none, "b", true);
    is_int(0, register_settle(b.reg, &expected, &next), "another node gives birth");
    etcd_node_close(&a);
    etcd_node_close(&b);
    etcd_proxy_end(&proxy);
}

/* The key's writing is on its way while the lease is given up; when it arrives, nobody is the holder. */
static void test_take_late(void) {
    static struct etcd_node a, b;
    struct etcd_proxy proxy;
    volume = 7;
    etcd_proxy_start(&proxy, cluster.members[0].url);
    open_node(&b, "b", 30000);
    open_through(&a, &proxy, "a", 30000);
    struct register_value none = {0}, value = etcd_next(&none, "a", true), next = etcd_next(&value, "b", true);
    is_int(0, register_settle(a.reg, &none, &value), "a is primary");
    proxy.only = OF_A_WRITE;
    atomic_store(&proxy.mode, PROXY_HOLD);
    is_int(0, a.reg->engine->lease->take(a.reg, &value), "it takes the lease");
    ok(AWAIT(atomic_load(&proxy.requests) > 0), "which is on its way");
    a.reg->engine->lease->give_up(a.reg);
    atomic_store(&proxy.mode, PROXY_PASS);
    ok(AWAIT(is_free(&b)), "and given back");
    unsigned held = atomic_load(&proxy.requests);
    atomic_store(&proxy.send_held, true);
    ok(AWAIT(atomic_load(&proxy.done) == held), "then it arrives");
    ok(is_free(&b), "too late: the lease is free");
    ok(!etcd_holds(&a), "and not held");
    is_int(0, register_settle(b.reg, &value, &next), "b becomes primary");
    etcd_node_close(&a);
    etcd_node_close(&b);
    etcd_proxy_end(&proxy);
}

int main(void) {
    plan_lazy();
    etcd_cluster_start(&cluster, "three", 3, true);
    start_holder(8000);
    test_key_dropped_early();
    test_one_killed();
    test_majority_stopped();
    test_close_without_etcd();
    test_answer_lost();
    test_request_late();
    test_request_late_and_refused();
    test_birth_late();
    test_take_late();
    etcd_cluster_end(&cluster);
    return 0;
}
