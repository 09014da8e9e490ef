/* Registers. Shared: one value for all, as a majority of voters would keep it; an answer may stay away, and then the change
 * may have happened, or happen later, unless somebody looks or changes something before (a ballot of theirs ends it). Else:
 * one on each node, as the file engine keeps it. Where voters keep it (voting.h), it is theirs that is opened here.
 */
#include "tests/simulator/voting.h"

#include <stdio.h>

struct late_change {
    bool there, forced;
    struct register_value expected, next;
};

struct registry {
    struct register_value values[SIM_NODES]; /* [0] alone, if it is shared */
    struct late_change late;
};
static struct registry registry;

struct played {
    struct reg reg;
    unsigned node;
};

static struct register_value *value_of(unsigned node) {
    return &registry.values[world->shared ? 0 : node];
}

const struct register_value *registry_of(unsigned node) {
    return world->voting ? chosen_newest() : value_of(node);
}

void registry_make(void) {
    registry = (struct registry){0};
    for (unsigned i = 0; i < SIM_NODES; i++) {
        registry.values[i].version = 1;
        if (world->shared || i == 0) /* baton format --first */
            snprintf(registry.values[i].primary, sizeof registry.values[i].primary, "%s", world->config.nodes[0].name);
    }
}

void registry_forget(unsigned node) {
    if (!world->shared)
        registry.values[node] = (struct register_value){.version = 1};
}

static void tell(const struct register_value *value) {
    char members[300] = "";
    for (unsigned i = 0; sim_tells() && i < value->member_count; i++)
        snprintf(members + strlen(members), sizeof members - strlen(members), " %s", value->members[i].node);
    sim_trace("the register: version %llu, epoch %llu.%u, primary %s, set%s", (unsigned long long)value->version,
              (unsigned long long)EPOCH_COUNTER(value->epoch), EPOCH_NODE(value->epoch), value->primary, members);
}

static void set(unsigned node, const struct register_value *next, bool forced) {
    struct register_value *value = value_of(node);
    if (register_compare(next, value) <= 0)
        sim_fail("the register goes back");
    if (next->epoch == value->epoch) {
        world->counts.shrunk += next->member_count < value->member_count;
        world->counts.grown += next->member_count > value->member_count;
    }
    *value = *next;
    tell(value);
    if (world->shared || forced) /* a file on one node is no promise of others */
        check_registered(value, forced);
}

static void settle_late(bool may_happen) {
    if (!registry.late.there)
        return;
    registry.late.there = false;
    if (may_happen && register_compare(value_of(0), &registry.late.expected) == 0) {
        sim_trace("a change of the register that was not answered happens");
        set(0, &registry.late.next, registry.late.forced);
    }
}

static void happen_late(void *argument, uint64_t number) {
    (void)argument, (void)number;
    settle_late(true);
}

static void travel(void) {
    sim_sleep(sim_between(50 * US, 10 * SIM_MS));
}

/* Nobody answers. */
static int unreachable(unsigned node) {
    if (!world->register_fails[node] || world->calm)
        return 0;
    sim_sleep(sim_between(20 * SIM_MS, 500 * SIM_MS));
    return -ETIMEDOUT;
}

static int played_read(struct reg *reg, struct register_value *value) {
    unsigned node = ((struct played *)reg)->node;
    travel();
    if (unreachable(node) || (!world->calm && sim_chance(2 * world->register_trouble)))
        return -ETIMEDOUT;
    if (world->shared)
        settle_late(sim_chance(2));
    *value = *value_of(node);
    travel();
    return 0;
}

static int compare_and_set(unsigned node, struct register_value *expected, const struct register_value *next) {
    const struct register_value *value = value_of(node);
    if (world->shared)
        settle_late(sim_chance(2));
    if (register_compare(value, expected) != 0) {
        *expected = *value;
        return -ESTALE;
    }
    if (register_compare(next, expected) <= 0)
        return -EINVAL;
    set(node, next, world->nodes[node].forcing);
    return 0;
}

static int played_change(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    unsigned node = ((struct played *)reg)->node;
    travel();
    if (unreachable(node))
        return -ETIMEDOUT;
    bool answered = world->calm || !sim_chance(world->register_trouble);
    struct register_value seen = *expected;
    if (answered) {
        int rc = compare_and_set(node, expected, next);
        travel();
        return rc;
    }
    world->counts.unknown++;
    if (!world->shared || sim_chance(3)) {
        if (sim_chance(2))
            compare_and_set(node, &seen, next);
    } else {
        settle_late(sim_chance(2));
        registry.late = (struct late_change){true, world->nodes[node].forcing, *expected, *next};
        sim_at(sim_now() + sim_between(1 * SIM_MS, 3000 * SIM_MS), happen_late, NULL, 0);
    }
    sim_trace("the register's answer to node %u stays away", node);
    travel();
    return -ETIMEDOUT;
}

static void played_close(struct reg *reg) {
    free(reg);
}

static const struct register_engine engine = {
    .name = "played", .read = played_read, .change = played_change, .close = played_close};

static struct reg *voters_open(struct volume *volume) {
    struct register_watch watch = replicator_watch(volume);
    struct reg *reg;
    char why[300] = "";
    int rc = register_voters_open(&volume->config, volume->self, volume->secret, &watch, volume->lease, &reg, why,
                                  sizeof why);
    if (rc)
        sim_fail("the register of voters is not opened: %d %s", rc, why);
    return reg;
}

struct reg *registry_open(struct volume *volume) {
    if (world->voting)
        return voters_open(volume);
    struct played *played = calloc(1, sizeof *played);
    PROMISE(played);
    played->reg.engine = &engine;
    played->node = (unsigned)(volume->self - volume->config.nodes);
    return &played->reg;
}
