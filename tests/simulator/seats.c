/* The voters' disks (membership/voter_store.h), the witness, and what happens to voters, to the lines between them, and to
 * clocks.
 *
 * A disk keeps what was saved, whatever becomes of the process: of a save that it did not live to see the end of, nothing or
 * all. A save may fail, and be there all the same. A disk that is lost takes its voter's id along, and is lost only while
 * all other voters of the list have theirs, and when the volume has its first value.
 */
#include "membership/voter_host.h"
#include "membership/voter_store.h"
#include "replication/parts.h"
#include "tests/simulator/voting.h"

#include <stdio.h>

#define EDIT (15000 * SIM_MS) /* that is done by then, in one way or another */

struct voter_store {
    unsigned place;
};

struct seat {
    bool there, had_one, slow, fails;
    unsigned life; /* of its process */
    struct voter_state state;
};
static struct seat seats[SIM_PLACES];
static bool witness_up;
static int64_t edited; /* a person has begun to change the list; 0: never */

/* That its disk has; NULL: it has none. */
static const struct voter_state *seat_state(unsigned place) {
    return seats[place].there ? &seats[place].state : NULL;
}

static unsigned place_named(const char *name) {
    for (unsigned i = 0; i < world->node_count; i++)
        if (strcmp(world->config.nodes[i].name, name) == 0)
            return i;
    return SIM_WITNESS;
}

/* ---- membership/voter_store.h ---------------------------------------------------------------------------------------- */

int voter_store_open(const char *directory, struct voter_store **store, char *why, size_t room) {
    (void)directory, (void)why, (void)room;
    *store = sim_alloc(sizeof **store);
    (*store)->place = sim_node_here();
    seats[(*store)->place].life++;
    return 0;
}

void voter_store_close(struct voter_store *store) {
    sim_free(store);
}

int voter_store_load(struct voter_store *store, const uint8_t volume[16], struct voter_state *state, char *why,
                     size_t room) {
    struct seat *seat = &seats[store->place];
    (void)volume, (void)why, (void)room;
    if (!seat->there) {
        uint64_t id[2] = {sim_random(), sim_random()};
        if (mistake == MISTAKE_LOST_DISK && seat->had_one)
            memcpy(id, seat->state.id, sizeof id);
        seat->state = (struct voter_state){.lease_ms = 0};
        memcpy(seat->state.id, id, sizeof id);
        seat->there = seat->had_one = true;
    }
    *state = seat->state;
    chosen_saved(store->place, state);
    return 0;
}

struct late_save {
    unsigned place, life;
    struct voter_state state;
};

static void save_late(void *argument, uint64_t nothing) {
    const struct late_save *late = argument;
    (void)nothing;
    if (seats[late->place].life == late->life)
        seats[late->place].state = late->state;
}

/* The mistake: it says that it is saved. */
static int pretend(unsigned place, const struct voter_state *state) {
    struct late_save *late = sim_alloc(sizeof *late);
    *late = (struct late_save){place, seats[place].life, *state};
    sim_at(sim_now() + sim_between(1 * SIM_MS, 4000 * SIM_MS), save_late, late, 0);
    chosen_saved(place, state);
    return 0;
}

int voter_store_save(struct voter_store *store, const uint8_t volume[16], const struct voter_state *state) {
    struct seat *seat = &seats[store->place];
    bool trouble = !world->calm;
    (void)volume;
    if (mistake == MISTAKE_UNSAVED)
        return pretend(store->place, state);
    int64_t takes = trouble && seat->slow ? sim_between(5 * SIM_MS, 2000 * SIM_MS) : sim_between(50 * US, 2 * SIM_MS);
    int64_t before = 1 + (int64_t)sim_below((uint64_t)takes);
    sim_sleep(before);
    bool failed = trouble && seat->fails && state->value.version && sim_chance(3);
    if (!failed || sim_chance(2))
        seat->state = *state;
    sim_sleep(takes - before + 1);
    if (!failed)
        chosen_saved(store->place, state);
    return failed ? -EIO : 0;
}

int voter_store_save_all(struct voter_store *store, const struct voter_store_row *rows, unsigned count) {
    PROMISE(count == 1);
    return voter_store_save(store, rows[0].volume, &rows[0].state);
}

int voter_store_forget(struct voter_store *store, const uint8_t volume[16]) {
    (void)volume;
    seats[store->place].there = false;
    return 0;
}

/* ---- The witness ----------------------------------------------------------------------------------------------------- */

static void *witness_thread(void *nothing) {
    struct voter_host_options options = {.address = world->config.witness.address, .transport = TRANSPORT_CLEAR,
                                         .secret = "", .directory = "witness"};
    struct voter_host *host;
    char why[300];
    PROMISE(voter_host_open(&options, &host, why, sizeof why) == 0);
    PROMISE(voter_host_serve(host, &world->config, world->config.witness.name, NULL, why, sizeof why) == 0);
    return nothing;
}

static void witness_start(void) {
    if (witness_up)
        return;
    witness_up = true;
    sim_trace("the witness starts");
    sim_spawn(SIM_WITNESS, "witness", witness_thread, NULL);
}

static void witness_kill(void) {
    sim_trace("the witness is killed");
    witness_up = false;
    world->counts.kills++;
    voting_killed(SIM_WITNESS);
    sim_discard(SIM_WITNESS);
}

void voting_killed(unsigned place) {
    if (!world->voting)
        return;
    seats[place].life++;
    ballots_kill(place);
}

/* ---- The supervisor -------------------------------------------------------------------------------------------------- */

struct left { /* by a process that is dead */
    unsigned node, life;
    epoch_t epoch;
    uint64_t session;
};

static void *supervisor_thread(void *argument) {
    const struct left *left = argument;
    const struct config *config = &world->config;
    int rc = register_voters_release(config, &config->nodes[left->node], "", left->epoch, left->session,
                                     (int64_t)config->lease_ms * SIM_MS);
    world->counts.released += rc == 0;
    sim_trace("the lease of the dead process of node %u is given back: %d", left->node, rc);
    return NULL;
}

static void supervise(void *argument, uint64_t nothing) {
    struct left *left = argument;
    (void)nothing;
    if (seats[left->node].life == left->life)
        sim_spawn(left->node, "supervisor", supervisor_thread, left);
}

void voting_supervise(unsigned node) {
    const struct volume *volume = world->nodes[node].volume;
    if (!world->voting || !volume || !volume->lease || atomic_load(&volume->lease->epoch) == 0 || sim_chance(2))
        return;
    struct left *left = sim_alloc(sizeof *left);
    *left = (struct left){.node = node, .life = seats[node].life + 1};
    left->epoch = atomic_load(&volume->lease->epoch);
    left->session = atomic_load(&volume->lease->session);
    sim_at(sim_now() + sim_between(10 * US, 20 * SIM_MS), supervise, left, 0);
}

/* ---- The voting ------------------------------------------------------------------------------------------------------ */

static void place_node(struct node_config *node, unsigned place) {
    snprintf(node->address, sizeof node->address, "tcp://10.0.0.%u:7400", place + 1);
}

void voting_begin(void) {
    struct config *config = &world->config;
    config->transport = TRANSPORT_CLEAR;
    config->has_witness = true;
    snprintf(config->witness.name, sizeof config->witness.name, "witness");
    place_node(&config->witness, SIM_WITNESS);
    for (unsigned i = 0; i < config->node_count; i++)
        place_node(&config->nodes[i], i);
    world->shared = true;
    world->counts.voting = 1;
    clocks_begin(true);
    ballots_begin();
    chosen_begin();
    witness_start();
}

void voting_start(void) {
    if (world->voting)
        witness_start();
}

static bool listed_here(const struct register_voter *voter) {
    const struct voter_state *state = seat_state(place_named(voter->name));
    return state && memcmp(state->id, voter->id, sizeof state->id) == 0;
}

bool voting_is_whole(char *why, size_t room) {
    const struct register_value *value = chosen_newest();
    for (unsigned i = 0; i < value->voter_count; i++)
        if (!listed_here(&value->voters[i])) {
            snprintf(why, room, "the voter %s has not been let in again", value->voters[i].name);
            return false;
        }
    return true;
}

bool voting_must_elect(void) {
    const struct register_value *value = chosen_newest();
    unsigned voters = 0, members = 0, busy = 0;
    for (unsigned i = 0; i < value->voter_count; i++)
        voters += listed_here(&value->voters[i]);
    for (unsigned i = 0; i < world->node_count; i++) {
        busy += world->nodes[i].state != NODE_UP;
        members += world->nodes[i].state == NODE_UP &&
                   register_is_member(value, world->config.nodes[i].name, world->nodes[i].disk.incarnation);
    }
    return busy == 0 && value->version > 0 && voters > value->voter_count / 2 && members > 0;
}

/* ---- What happens ---------------------------------------------------------------------------------------------------- */

static unsigned any_place(void) {
    unsigned place = (unsigned)sim_below(world->node_count + 1);
    return place == world->node_count ? SIM_WITNESS : place;
}

static int the_primary(void) {
    for (unsigned i = 0; i < world->node_count; i++)
        if (node_is_primary(i))
            return (int)i;
    return -1;
}

/* The voters' alone, or the nodes' with it. */
static void cut(unsigned from, unsigned to, bool all) {
    if (from == to)
        return;
    ballots_cut(from, to, true);
    if (all && from < SIM_NODES && to < SIM_NODES)
        network_cut(from, to);
}

/* For long enough that others may be elected, often. */
static void let_it_last(void) {
    if (sim_chance(2))
        sim_sleep((int64_t)world->config.lease_ms * SIM_MS * (int64_t)(1 + sim_below(4)));
}

static void cut_lines(void) {
    static const char *const shapes[] = {"one line, one way", "one line", "all from", "all to", "all of", "all but one of",
                                         "every line"};
    unsigned shape = (unsigned)sim_below(7), one = any_place(), other = any_place();
    bool all = !sim_chance(4);
    if (shape > 1 && shape < 6 && !sim_chance(3) && the_primary() >= 0)
        one = (unsigned)the_primary();
    sim_trace("cut: %s place %u%s", shapes[shape], one, all ? "" : ", of voters alone");
    world->quiet = SIM_FOREVER;
    for (unsigned i = 0; i < SIM_PLACES; i++)
        for (unsigned j = 0; j < SIM_PLACES; j++) {
            bool there = i == one && j == other, back = i == other && j == one, from = i == one, to = j == one;
            const bool cuts[] = {there, there || back, from, to, from || to, (from || to) && !there && !back, true};
            if (cuts[shape])
                cut(i, j, all);
        }
    let_it_last();
}

/* Their messages, in one direction, to or from one. */
static void slow_lines(void) {
    unsigned one = any_place();
    bool to = sim_chance(2);
    int64_t ns = sim_between(20 * SIM_MS, 2000 * SIM_MS);
    sim_trace("what goes %s place %u takes %lld ms", to ? "to" : "from", one, (long long)(ns / SIM_MS));
    for (unsigned i = 0; i < SIM_PLACES; i++)
        ballots_slow(to ? i : one, to ? one : i, ns);
    let_it_last();
}

static void mend_lines(void) {
    for (unsigned i = 0; i < SIM_PLACES; i++)
        for (unsigned j = 0; j < SIM_PLACES; j++) {
            ballots_cut(i, j, false);
            ballots_slow(i, j, 0);
            if (i < SIM_NODES && j < SIM_NODES)
                network_mend(i, j);
        }
    sim_trace("all lines between places are mended");
}

static void kill_voter(void) {
    unsigned place = sim_chance(2) ? SIM_WITNESS : any_place();
    if (place == SIM_WITNESS)
        witness_kill();
    else
        node_kill(place, sim_chance(4));
    if (sim_chance(2))
        sim_sleep(sim_between(1 * SIM_MS, 500 * SIM_MS));
    if (place == SIM_WITNESS)
        witness_start();
    else
        node_start(place);
}

static void stand_still(void) {
    unsigned place = any_place();
    int64_t until = sim_now() + sim_between(10 * SIM_MS, 5000 * SIM_MS);
    bool sleeps = sim_chance(2);
    sim_trace("place %u %s for %lld ms", place, sleeps ? "sleeps" : "is stopped", (long long)((until - sim_now()) / SIM_MS));
    world->counts.slept += sleeps;
    if (sleeps)
        sim_suspend(place, until);
    else
        sim_pause(place, until);
}

static bool same_list(const struct register_value *a, const struct register_value *b) {
    bool same = a->voter_count == b->voter_count;
    for (unsigned i = 0; same && i < a->voter_count; i++)
        same = register_voter_of(b, a->voters[i].name, a->voters[i].id) >= 0;
    return same;
}

/* A majority of the list, and of one that somebody may still be proposing, has to be left, and has to know that it is the list: of
 * one that was chosen a moment ago the proof may go with that disk. Else the volume has no register any more, and that is another
 * story. */
static bool may_lose_disk(unsigned place) {
    const struct register_value *value = chosen_newest();
    unsigned know = 0;
    char why[100];
    for (unsigned i = 0; i < SIM_PLACES; i++)
        know += i != place && seats[i].there && same_list(&seats[i].state.known, value);
    if (know <= value->voter_count / 2)
        return false;
    for (unsigned i = 0; i < SIM_PLACES; i++)
        if (seats[i].there && seats[i].state.value.version > value->version) /* half done, it may be another list's */
            return false;
    return value->version > 0 && seats[place].there && value->voter_count - 1 > value->voter_count / 2 &&
           voting_is_whole(why, sizeof why) && (!edited || sim_now() - edited > EDIT);
}

static void lose_disk_of(unsigned place) {
    if (!may_lose_disk(place))
        return;
    if (place == SIM_WITNESS)
        witness_kill();
    else
        node_kill(place, true);
    sim_trace("the voter of place %u loses its disk", place);
    world->counts.lost_voters++;
    seats[place].there = false;
    if (sim_chance(2))
        sim_sleep(sim_between(10 * SIM_MS, 2000 * SIM_MS));
    if (place == SIM_WITNESS)
        witness_start();
    else
        node_start(place);
}

static void lose_disk(void) {
    lose_disk_of(any_place());
}

static void trouble_disk(void) {
    struct seat *seat = &seats[any_place()];
    seat->slow = sim_chance(2);
    seat->fails = sim_chance(3);
}

static void trouble_messages(void) {
    ballots_trouble(sim_chance(3) ? 0 : 2u << sim_below(6), sim_chance(3) ? 0 : 2u << sim_below(6));
}

static void hand_over(void) {
    int primary = the_primary();
    unsigned step = 1 + (unsigned)sim_below(world->node_count - 1);
    if (primary >= 0)
        node_switchover((unsigned)primary, ((unsigned)primary + step) % world->node_count);
}

static void hand_over_and_cut(void) {
    hand_over();
    sim_sleep(sim_between(100 * US, 100 * SIM_MS));
    cut_lines();
}

/* ---- Histories: what seldom comes together by chance */

static void cut_off(unsigned place, unsigned but) {
    sim_trace("cut: all of place %u but place %u", place, but);
    world->quiet = SIM_FOREVER;
    for (unsigned i = 0; i < SIM_PLACES; i++)
        if (i != but) {
            cut(place, i, true);
            cut(i, place, true);
        }
}

static void some_leases(unsigned most) {
    sim_sleep((int64_t)world->config.lease_ms * SIM_MS * (int64_t)(8 + sim_below(8 * most)) / 8);
}

/* The witness alone grants, starts again, and does not hear the holder any more. */
static void restart_a_granter(void) {
    if (the_primary() < 0)
        return;
    unsigned primary = (unsigned)the_primary();
    cut_off(primary, SIM_WITNESS);
    some_leases(2);
    cut_off(primary, SIM_NOBODY);
    witness_kill();
    witness_start();
    some_leases(3);
}

/* Grants are late, and the holder is not heard any more. */
static void answer_late(void) {
    if (the_primary() < 0)
        return;
    unsigned primary = (unsigned)the_primary();
    int64_t lease = (int64_t)world->config.lease_ms * SIM_MS, ns = lease / 4 + (int64_t)sim_below((uint64_t)lease / 2);
    sim_trace("what voters answer place %u takes %lld ms, then it is not heard", primary, (long long)(ns / SIM_MS));
    for (unsigned i = 0; i < SIM_PLACES; i++)
        ballots_slow(i, primary, ns);
    some_leases(2);
    for (unsigned i = 0; i < SIM_PLACES; i++)
        cut(primary, i, true);
    some_leases(3);
}

/* The set shrinks by the votes of the primary and the witness; the one is cut off, the other loses its disk. */
static void lose_a_vote(void) {
    if (the_primary() < 0)
        return;
    unsigned primary = (unsigned)the_primary(), other = (primary + 1) % world->node_count;
    cut_off(other, SIM_NOBODY);
    some_leases(4);
    cut_off(primary, SIM_NOBODY);
    lose_disk_of(SIM_WITNESS);
    for (unsigned i = 0; i < SIM_PLACES; i++)
        if (i != primary) {
            ballots_cut(i, other, false);
            ballots_cut(other, i, false);
        }
    some_leases(8);
}

/* A person changes the list. */
static void edit_list(void) {
    int primary = the_primary();
    unsigned place = any_place();
    const char *name = place == SIM_WITNESS ? world->config.witness.name : world->config.nodes[place].name;
    const struct register_value *value = chosen_newest();
    char why[100];
    bool listed = false;
    for (unsigned i = 0; i < value->voter_count; i++)
        listed = listed || strcmp(value->voters[i].name, name) == 0;
    if (primary < 0 || !voting_is_whole(why, sizeof why) || (listed && value->voter_count == 2))
        return;
    edited = sim_now();
    node_voters((unsigned)primary, listed ? VOTERS_REMOVE : VOTERS_ADD, name);
}

void voting_happens(void) {
    static void (*const events[])(void) = {
        cut_lines, cut_lines, cut_lines, cut_lines, mend_lines, mend_lines, mend_lines, slow_lines, slow_lines, kill_voter,
        kill_voter, kill_voter, stand_still, stand_still, lose_disk, trouble_disk, trouble_messages, hand_over, hand_over_and_cut,
        edit_list, restart_a_granter, answer_late, lose_a_vote};
    events[sim_below(sizeof events / sizeof *events)]();
}

void voting_mend(void) {
    if (!world->voting)
        return;
    mend_lines();
    ballots_trouble(0, 0);
    for (unsigned i = 0; i < SIM_PLACES; i++)
        seats[i].slow = seats[i].fails = false;
    sim_pause(SIM_WITNESS, 0);
    witness_start();
}
