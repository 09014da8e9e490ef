/* What must hold where voters keep the register. A value is chosen when, in one ballot, a majority of its voters and one of
 * the voters of the value before it have it on their disks (the first value: all of them); whoever proposed it may not know
 * that yet.
 *
 * - Each version has one value, and follows the one before it.
 * - No two nodes hold the lease at one time.
 * - Nobody says what only a primary may say while another one holds the lease, or after a newer epoch has begun; what is
 *   read there has all that was acknowledged.
 *
 * Acknowledged operations are checks.c's, for which the newest value that is chosen is the register's.
 */
#include "tests/simulator/voting.h"

#include <stdio.h>

#define BALLOTS 512u /* that are remembered */

struct proposed { /* a value, in one ballot */
    struct ballot ballot;
    struct register_value value;
    bool forced;
    unsigned count; /* who has it on its disk */
    struct register_voter by[SIM_PLACES * 2];
};

static struct proposed *proposals; /* a ring */
static unsigned proposed_count;
static struct register_value *values; /* that are chosen, by version - 1 */
static unsigned value_count, value_room;
static struct register_value none;

void chosen_begin(void) {
    proposals = sim_alloc(BALLOTS * sizeof *proposals);
}

const struct register_value *chosen_newest(void) {
    return value_count ? &values[value_count - 1] : &none;
}

/* ---- Values ---------------------------------------------------------------------------------------------------------- */

static bool same(const struct register_value *a, const struct register_value *b) {
    uint8_t bytes_a[REGISTER_BYTES], bytes_b[REGISTER_BYTES];
    size_t length = register_encode(a, bytes_a);
    return length == register_encode(b, bytes_b) && memcmp(bytes_a, bytes_b, length) == 0;
}

static void tell(const char *what, const struct register_value *value) {
    char text[500] = "";
    for (unsigned i = 0; sim_tells() && i < value->member_count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %s", value->members[i].node);
    for (unsigned i = 0; sim_tells() && i < value->voter_count; i++) {
        const struct register_voter *voter = &value->voters[i];
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s:%02x%02x", i ? " " : ", voters ", voter->name,
                 voter->id[0], voter->id[1]);
    }
    sim_trace("%s: version %llu, epoch %llu.%u, primary %s, set%s", what, (unsigned long long)value->version,
              (unsigned long long)EPOCH_COUNTER(value->epoch), EPOCH_NODE(value->epoch), value->primary, text);
}

static void choose(const struct register_value *value, bool forced) {
    const struct register_value *before = chosen_newest();
    if (value->version <= value_count) {
        if (!same(value, &values[value->version - 1])) {
            tell("chosen before", &values[value->version - 1]);
            tell("chosen now", value);
            sim_fail("two values of version %llu are chosen", (unsigned long long)value->version);
        }
        return;
    }
    if (value->version != before->version + 1)
        sim_fail("version %llu is chosen after version %llu", (unsigned long long)value->version,
                 (unsigned long long)before->version);
    if (value->epoch < before->epoch || (value->epoch == before->epoch && strcmp(value->primary, before->primary) != 0))
        sim_fail("the register goes back, or names two primaries of one epoch");
    if (value_count == value_room) {
        unsigned room = MAX(64u, 2 * value_room);
        struct register_value *more = sim_alloc(room * sizeof *more);
        if (value_count)
            memcpy(more, values, value_count * sizeof *more);
        values = more;
        value_room = room;
    }
    world->counts.chosen++;
    for (unsigned i = 0; i < world->node_count && value->epoch != before->epoch; i++)
        world->nodes[i].forced_open = false;
    if (value->epoch == before->epoch) {
        world->counts.shrunk += value->member_count < before->member_count;
        world->counts.grown += value->member_count > before->member_count;
    }
    for (unsigned i = 0; i < value->voter_count; i++)
        world->counts.let_in += before->version && register_voter_of(before, value->voters[i].name, value->voters[i].id) < 0;
    values[value_count++] = *value;
    tell("the register", value);
    check_registered(value, forced);
}

/* ---- Who has accepted what ------------------------------------------------------------------------------------------- */

static unsigned of_list(const struct proposed *proposed, const struct register_value *list) {
    unsigned count = 0;
    for (unsigned i = 0; i < proposed->count; i++)
        count += register_voter_of(list, proposed->by[i].name, proposed->by[i].id) >= 0;
    return count;
}

static bool is_chosen(const struct proposed *proposed) {
    const struct register_value *value = &proposed->value;
    if (value->version == 1)
        return of_list(proposed, value) == value->voter_count;
    if (value->version - 1 > value_count) /* what comes before it is not chosen */
        return false;
    const struct register_value *before = &values[value->version - 2];
    return of_list(proposed, value) > value->voter_count / 2 && of_list(proposed, before) > before->voter_count / 2;
}

static unsigned proposer(struct ballot ballot) {
    unsigned node = 0;
    while (node < world->node_count && world->config.nodes[node].number != ballot.node)
        node++;
    return node;
}

/* A person's decision, or one's that was left half done and is completed by whoever met it. */
static bool is_forced(const struct proposed *proposed) {
    unsigned node = proposer(proposed->ballot);
    epoch_t epoch = proposed->value.epoch;
    if (node < world->node_count && (world->nodes[node].forcing || world->nodes[node].forced_open) && EPOCH_NODE(epoch) == proposed->ballot.node &&
        epoch != chosen_newest()->epoch)
        return true;
    for (unsigned i = 0; i < MIN(proposed_count, BALLOTS); i++)
        if (proposals[i].forced && same(&proposals[i].value, &proposed->value))
            return true;
    return false;
}

static struct proposed *find(const struct voter_state *state) {
    for (unsigned i = 0; i < MIN(proposed_count, BALLOTS); i++)
        if (ballot_compare(proposals[i].ballot, state->accepted) == 0)
            return &proposals[i];
    struct proposed new = {.ballot = state->accepted, .value = state->value};
    new.forced = is_forced(&new);
    struct proposed *proposed = &proposals[proposed_count++ % BALLOTS];
    *proposed = new;
    return proposed;
}

void chosen_saved(unsigned place, const struct voter_state *state) {
    if (state->value.version == 0)
        return;
    struct proposed *proposed = find(state);
    const char *name = place == SIM_WITNESS ? world->config.witness.name : world->config.nodes[place].name;
    if (!same(&proposed->value, &state->value))
        sim_fail("two values in one ballot");
    for (unsigned i = 0; i < proposed->count; i++)
        if (strcmp(proposed->by[i].name, name) == 0 && memcmp(proposed->by[i].id, state->id, sizeof state->id) == 0)
            return;
    if (proposed->count == sizeof proposed->by / sizeof proposed->by[0])
        return;
    struct register_voter *by = &proposed->by[proposed->count++];
    snprintf(by->name, sizeof by->name, "%s", name);
    memcpy(by->id, state->id, sizeof by->id);
    if (is_chosen(proposed))
        choose(&proposed->value, proposed->forced);
}

/* ---- Leases ---------------------------------------------------------------------------------------------------------- */

static bool holds(unsigned node) {
    const struct volume *volume = world->nodes[node].volume;
    return volume && volume->lease && atomic_load(&volume->lease->until) > clock_of(node, false);
}

void chosen_look(void) {
    unsigned holder = SIM_NODES;
    for (unsigned i = 0; i < world->node_count; i++) {
        if (!holds(i))
            continue;
        if (holder < SIM_NODES)
            sim_fail("nodes %u and %u hold the lease at one time", holder, i);
        holder = i;
    }
}

void check_answered(unsigned node) {
    if (!world->voting)
        return;
    chosen_look();
    for (unsigned i = 0; i < world->node_count; i++) {
        if (i != node && holds(i))
            sim_fail("node %u answers, and node %u holds the lease", node, i);
        if (world->begun[i] > world->begun[node])
            sim_fail("node %u answers as the primary of epoch %llu, and node %u has begun epoch %llu", node,
                     (unsigned long long)EPOCH_COUNTER(world->begun[node]), i,
                     (unsigned long long)EPOCH_COUNTER(world->begun[i]));
    }
    const struct sim_record *last = world->acknowledged_count ? world->acknowledged[world->acknowledged_count - 1] : NULL;
    if (last && !last->excused && !disk_has(&world->nodes[node].disk, last))
        sim_fail("node %u answers as the primary and lacks record %llu, which was acknowledged", node,
                 (unsigned long long)last->lsn);
}
