/* The register and the lease in a real etcd of three members: what register.h promises, without faults. */
#include "tests/etcd_cluster.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdio.h>

static struct etcd_cluster cluster = {0};

static int read_value(struct etcd_node *node, struct register_value *value) {
    return node->reg->engine->read(node->reg, value);
}

static int change(struct etcd_node *node, struct register_value *expected, const struct register_value *next) {
    return node->reg->engine->change(node->reg, expected, next);
}

static int free_for(struct etcd_node *node, char holder[64], int64_t *wait) {
    return node->reg->engine->lease->free(node->reg, holder, wait);
}

static bool is_free(struct etcd_node *node) {
    char holder[64];
    int64_t wait;
    return free_for(node, holder, &wait) == 0;
}

/* Each test has a volume of its own. */
static void new_volume(struct etcd_node *a, struct etcd_node *b, uint32_t lease_ms) {
    static uint8_t number = 1;
    struct etcd_node *nodes[] = {a, b};
    for (unsigned i = 0; i < 2; i++) {
        etcd_node_config(nodes[i], &cluster, i ? "b" : "a", lease_ms);
        memset(nodes[i]->config.volume_id, number, sizeof nodes[i]->config.volume_id);
        if (etcd_node_open_as(nodes[i]) != 0)
            bail("the register cannot be opened: %s", nodes[i]->why);
    }
    number++;
}

/* Births the volume with that primary, which takes the lease. */
static struct register_value begin(struct etcd_node *node) {
    struct register_value none = {0}, value = etcd_next(&none, node->self->name, true);
    is_int(0, change(node, &none, &value), "%s is the first primary", node->self->name);
    is_int(0, node->reg->engine->lease->take(node->reg, &value), "it takes the lease");
    ok(AWAIT(etcd_holds(node)), "and has it");
    return value;
}

struct proposer {
    struct etcd_node *node;
    struct register_value expected, next;
    pthread_barrier_t *barrier;
    int rc;
};

static void *propose(void *context) {
    struct proposer *proposer = context;
    pthread_barrier_wait(proposer->barrier);
    proposer->rc = register_settle(proposer->node->reg, &proposer->expected, &proposer->next);
    return NULL;
}

/* Both propose upon the same value at the same time. Returns what is chosen. */
static struct register_value both_propose(struct etcd_node *a, struct etcd_node *b, const struct register_value *expected,
                                          bool reign) {
    pthread_barrier_t barrier;
    struct proposer proposers[2] = {{a, *expected, etcd_next(expected, "a", reign), &barrier, 1},
                                    {b, *expected, etcd_next(expected, "b", reign), &barrier, 1}};
    pthread_t threads[2];
    pthread_barrier_init(&barrier, NULL, 2);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, propose, &proposers[i]);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    unsigned winner = proposers[0].rc == 0 ? 0 : 1;
    is_int(0, proposers[winner].rc, "one of two proposers has its value chosen");
    is_int(-ESTALE, proposers[!winner].rc, "the other one has not");
    is_string(proposers[winner].next.primary, proposers[!winner].expected.primary, "and is told whose was");
    return proposers[winner].next;
}

static void test_register(void) {
    struct etcd_node a, b;
    struct register_value none = {0}, value, seen, stale;
    new_volume(&a, &b, 2000);
    is_string("etcd", a.reg->engine->name, "the engine's name");
    is_int(0, read_value(&a, &seen), "an unborn volume's register is read");
    is_int(0, seen.version, "and has no value");
    ok(is_free(&a), "nobody holds its lease");
    value = both_propose(&a, &b, &none, true);
    is_int(0, read_value(&b, &seen), "the other node reads");
    ok(seen.version == 1 && seen.epoch == value.epoch && seen.member_count == 2 && seen.start_lsn == value.start_lsn &&
       memcmp(seen.start_chain, value.start_chain, CHAIN_SIZE) == 0 && seen.voter_count == 0 &&
       register_is_member(&seen, "b", value.members[1].incarnation), "every field is there");

    struct etcd_node *primary = value.primary[0] == 'a' ? &a : &b, *other = primary == &a ? &b : &a;
    struct register_value next = etcd_next(&value, value.primary, false);
    next.voter_count = 1;
    snprintf(next.voters[0].name, sizeof next.voters[0].name, "x");
    is_int(0, change(primary, &value, &next), "the primary changes the set");
    ok(AWAIT(atomic_load(&other->news_version) == 2), "the other node is told");
    stale = value;
    is_int(0, change(primary, &stale, &next), "the same change again is no other one");
    stale = value;
    struct register_value third = etcd_next(&next, value.primary, false);
    is_int(-ESTALE, change(primary, &stale, &third), "a change upon an old value is refused");
    ok(stale.version == 2 && stale.voter_count == 0, "the present one is told, without voters");
    is_int(-EINVAL, change(primary, &stale, &value), "a change to an older value is refused");
    stale = none;
    is_int(-ESTALE, change(other, &stale, &value), "a born volume is not born again");
    is_int(2, stale.version, "the present value is told");
    etcd_node_close(&a);
    etcd_node_close(&b);
    etcd_node_open(&a, &cluster, "a", 2000);
    etcd_node_close(&a);
}

static void test_lease(void) {
    struct etcd_node a, b;
    char holder[64];
    int64_t wait;
    struct lease_view view;
    new_volume(&a, &b, 2000);
    struct register_value value = begin(&a), next = etcd_next(&value, "b", true), expected = value;
    is_int(-EALREADY, a.reg->engine->lease->take(a.reg, &value), "it is taken once in an epoch");
    is_int(-EINVAL, b.reg->engine->lease->take(b.reg, &value), "a node that the register does not name takes none");
    is_int(-EBUSY, free_for(&b, holder, &wait), "it is not free");
    is_string("a", holder, "a has it");
    ok(wait > 0, "for a while");
    ok(is_free(&a), "it does not stand in its holder's own way");
    is_int(-EBUSY, register_settle(b.reg, &expected, &next), "b may not become primary");
    is_int(value.version, expected.version, "the value is the same");
    int64_t until = atomic_load(&a.shared->until);
    ok(AWAIT(atomic_load(&a.shared->until) > until + SECOND), "the lease is renewed");
    next = etcd_next(&value, "a", false);
    is_int(0, change(&a, &value, &next), "its holder changes the set");
    value = next;
    ok(etcd_holds(&a), "and still has it");
    a.reg->engine->lease->view(a.reg, &view);
    ok(view.asked && view.held && view.left > 0 && view.count == 3 && view.needed == 2, "status says so");
    ok(AWAIT((a.reg->engine->lease->view(a.reg, &view), view.voters[0].answers && view.voters[1].answers &&
                                                            view.voters[2].answers)), "each member is asked how it is");
    is_int(0, atomic_load(&b.freed), "nobody was told that it is free");

    a.reg->engine->lease->give_up(a.reg);
    ok(atomic_load(&a.shared->until) == INT64_MIN, "given up, it is over at once");
    ok(AWAIT(atomic_load(&b.freed) == 1), "b is told");
    ok(is_free(&b), "it is free");
    next = etcd_next(&value, "b", true);
    is_int(0, change(&b, &value, &next), "b becomes primary");
    value = next;
    is_int(0, b.reg->engine->lease->take(b.reg, &value), "takes the lease");
    ok(AWAIT(etcd_holds(&b)), "and has it");
    is_int(0, atomic_load(&a.lost), "who gives up is not told that it has lost");
    ok(AWAIT(atomic_load(&a.shared->epoch) == 0), "who has given back says that it asks for nothing");

    next = etcd_next(&value, "a", true);
    is_int(0, change(&b, &value, &next), "b hands over");
    ok(atomic_load(&b.shared->until) == INT64_MIN, "and answers nothing any more");
    ok(AWAIT(atomic_load(&a.news_version) == next.version), "a is told");
    is_int(0, a.reg->engine->lease->take(a.reg, &next), "a takes the lease");
    ok(AWAIT(etcd_holds(&a)), "and has it");
    is_int(0, atomic_load(&b.lost), "who hands over is not told that it has lost");
    value = next;
    next = etcd_next(&value, "a", true);
    is_int(0, change(&a, &value, &next), "a holder begins a new epoch itself");
    ok(!etcd_holds(&a), "in which it has no lease yet");
    is_int(0, a.reg->engine->lease->take(a.reg, &next), "it takes it");
    ok(AWAIT(etcd_holds(&a)), "and has it");
    etcd_node_close(&a);
    ok(AWAIT(is_free(&b)), "an engine that is closed has given it back");
    etcd_node_close(&b);
}

/* A holder's store makes no progress. */
static void test_unfit(void) {
    struct etcd_node a, b;
    new_volume(&a, &b, 1000);
    struct register_value value = begin(&a);
    atomic_store(&a.unfit, true);
    ok(AWAIT(atomic_load(&a.lost) == 1), "a lease that is not renewed is lost");
    ok(atomic_load(&a.lost_epoch) == value.epoch, "that of this epoch");
    ok(!etcd_holds(&a), "nothing is answered");
    ok(AWAIT(atomic_load(&b.freed) == 1), "another node is told that it may look");
    atomic_store(&a.unfit, false);
    is_int(-EALREADY, a.reg->engine->lease->take(a.reg, &value), "it does not come back in this epoch");
    etcd_node_close(&a);
    etcd_node_close(&b);
}

/* With a lease of a minute nobody has to wait for, if the supervisor gives it back. */
static void test_release(void) {
    struct etcd_node a, b;
    new_volume(&a, &b, 60000);
    struct register_value value = begin(&a), next = etcd_next(&value, "b", true);
    uint64_t session = atomic_load(&a.shared->session);
    is_int(0, register_etcd_release(&a.config, a.self, value.epoch, session + 1, 5 * SECOND),
           "another session's release changes nothing");
    is_int(0, register_etcd_release(&a.config, a.self, value.epoch + (1 << 16), session, 5 * SECOND), "nor another epoch's");
    ok(!is_free(&b), "the lease is held still");
    int64_t until = atomic_load(&a.shared->until);
    is_int(0, register_etcd_release(&a.config, a.self, value.epoch, session, 5 * SECOND), "the supervisor gives it back");
    ok(is_free(&b), "it is free");
    ok(clock_boot() < until, "although it would have lasted");
    is_int(0, change(&b, &value, &next), "b becomes primary");
    ok(AWAIT(atomic_load(&a.lost) == 1), "had the holder lived, it would have found out");
    etcd_node_close(&a);
    etcd_node_close(&b);
}

/* etcd has dropped the key of a holder that has renewed it: a leader that was stuck does so; here the test revokes it. How others
 * wait for a holder that does not find out is in etcd-faults-test. */
static void test_key_gone(void) {
    struct etcd_node a, b;
    struct register_value seen;
    char answer[4096];
    new_volume(&a, &b, 6000);
    struct register_value value = begin(&a), next = etcd_next(&value, "b", true);
    is_int(200, etcd_post(cluster.members[0].url, "/v3/lease/leases", "{}", NULL, answer, sizeof answer),
           "etcd lists its leases");
    for (char *at = answer; (at = strstr(at, "\"ID\":\"")) != NULL; at += 6) {
        char body[64], revoked[512];
        snprintf(body, sizeof body, "{\"ID\":\"%lld\"}", strtoll(at + 6, NULL, 10));
        etcd_post(cluster.members[0].url, "/v3/lease/revoke", body, NULL, revoked, sizeof revoked);
    }
    ok(AWAIT(atomic_load(&a.lost) == 1), "the holder finds out");
    ok(!etcd_holds(&a), "and answers nothing");
    ok(AWAIT(is_free(&b)), "then it is free");
    is_int(0, read_value(&b, &seen), "b reads");
    is_int(0, change(&b, &seen, &next), "and becomes primary");
    etcd_node_close(&a);
    etcd_node_close(&b);
}

int main(void) {
    plan_lazy();
    etcd_cluster_start(&cluster, "three", 3, true);
    test_register();
    test_lease();
    test_unfit();
    test_release();
    test_key_gone();
    etcd_cluster_end(&cluster);
    return 0;
}
