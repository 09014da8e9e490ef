/* What happens in a schedule. Each draws what it is made of: how many nodes, which troubles, how often, how fast the
 * network and how eager the users are. At the end all is mended, and then it must come to rest: one primary, all others
 * in sync with it, all stores equal.
 */
#include "replication/parts.h"
#include "tests/simulator/sim.h"

#include <stdio.h>

#define PATIENCE (20000 * SIM_MS) /* without a primary, until somebody promotes one … */
#define REST (60000 * SIM_MS)     /* … and all in all, until all is well */
#define ELECTION (9000 * SIM_MS)  /* where voters decide, somebody becomes primary unasked before */

static unsigned any_node(void) {
    return (unsigned)sim_below(world->node_count);
}

static int a_primary(void) {
    unsigned start = any_node();
    for (unsigned i = 0; i < world->node_count; i++)
        if (node_is_primary((start + i) % world->node_count))
            return (int)((start + i) % world->node_count);
    return -1;
}

static unsigned another_than(unsigned node) {
    return (node + 1 + (unsigned)sim_below(world->node_count - 1)) % world->node_count;
}

static void two_nodes(unsigned *a, unsigned *b) {
    *a = any_node();
    *b = another_than(*a);
}

/* ---- Troubles -------------------------------------------------------------------------------------------------------- */

static void cut_line(void) {
    unsigned a, b;
    two_nodes(&a, &b);
    bool both = !sim_chance(3);
    sim_trace(both ? "the line between nodes %u and %u is cut" : "the line from node %u to node %u is cut", a, b);
    world->quiet = SIM_FOREVER;
    network_cut(a, b);
    if (both)
        network_cut(b, a);
}

static void mend_lines(void) {
    sim_trace("all lines are mended");
    world->quiet = sim_now() + 1000 * SIM_MS;
    for (unsigned a = 0; a < SIM_NODES; a++)
        for (unsigned b = 0; b < SIM_NODES; b++) {
            network_mend(a, b);
            network_slow(a, b, 0);
        }
}

static void slow_line(void) {
    unsigned a, b;
    two_nodes(&a, &b);
    int64_t delay = sim_between(5 * SIM_MS, 800 * SIM_MS);
    sim_trace("the line from node %u to node %u is slow: %lld ms", a, b, (long long)(delay / SIM_MS));
    network_slow(a, b, delay);
    world->quiet = SIM_FOREVER;
}

static void kill_one(void) {
    unsigned node = any_node();
    if (sim_chance(2) && a_primary() >= 0)
        node = (unsigned)a_primary();
    node_kill(node, false);
}

static void cut_power(void) {
    if (sim_chance(6)) {
        for (unsigned i = 0; i < world->node_count; i++)
            node_kill(i, true);
        return;
    }
    node_kill(any_node(), true);
}

static void start_one(void) {
    unsigned start = any_node();
    for (unsigned i = 0; i < world->node_count; i++)
        if (world->nodes[(start + i) % world->node_count].state == NODE_DOWN) {
            node_start((start + i) % world->node_count);
            return;
        }
}

static void stop_one(void) {
    node_stop(any_node());
}

/* One is away while others go on, then they are away, and it is to be primary. */
static void return_alone(void) {
    unsigned node = any_node();
    if (sim_chance(2))
        node_stop(node);
    else
        node_kill(node, sim_chance(4));
    sim_sleep(sim_between(100 * SIM_MS, 3000 * SIM_MS));
    for (unsigned i = 0; i < world->node_count; i++)
        if (i != node)
            node_kill(i, sim_chance(8));
    node_start(node);
    sim_sleep(sim_between(50 * SIM_MS, 1000 * SIM_MS));
    node_promote(node, false);
}

static void promote_one(void) {
    node_promote(any_node(), false);
}

/* Not a store that is empty yet: histories without a common record stay apart for good, by intention. */
static void force_one(void) {
    for (unsigned i = 0; i < world->node_count; i++)
        if (!disk_last(&world->nodes[i].disk))
            return;
    node_promote(any_node(), true);
}

static void switch_over(void) {
    if (a_primary() < 0)
        return;
    unsigned from = (unsigned)a_primary();
    node_switchover(from, another_than(from));
}

static void trouble_disk(void) {
    unsigned node = any_node();
    struct disk *disk = &world->nodes[node].disk;
    switch (sim_below(5)) {
    case 0:
        disk->full = true;
        break;
    case 1:
        disk->dies = world->nodes[node].state != NODE_DOWN;
        break;
    case 2:
        disk->hangs = true;
        disk->hangs_all = sim_chance(2);
        break;
    default:
        disk->slow = true;
    }
    sim_trace("the disk of node %u: full %d, slow %d, fsync fails %d, hangs %d", node, disk->full, disk->slow, disk->dies,
              disk->hangs + disk->hangs_all);
}

static void mend_disks(void) {
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct disk *disk = &world->nodes[i].disk;
        disk->full = disk->slow = disk->hangs = disk->hangs_all = false;
    }
    sim_trace("all disks are well");
}

static void pause_one(void) {
    unsigned node = any_node();
    int64_t until = sim_now() + sim_between(5 * SIM_MS, 3000 * SIM_MS);
    sim_trace("node %u stands still for %lld ms", node, (long long)((until - sim_now()) / SIM_MS));
    sim_pause(node, until);
    if (world->quiet < SIM_FOREVER)
        world->quiet = MAX(world->quiet, until + 1000 * SIM_MS);
}

static void trouble_register(void) {
    unsigned node = any_node();
    if (world->voting)
        return; /* voting_happens() */
    world->register_fails[node] = !world->register_fails[node];
    sim_trace("node %u %s the register", node, world->register_fails[node] ? "does not reach" : "reaches");
}

static void break_one(void) {
    network_break();
    if (world->quiet < SIM_FOREVER)
        world->quiet = MAX(world->quiet, sim_now() + 3000 * SIM_MS);
}

static void lose_records(void) {
    for (unsigned tries = 0; tries < 2000 && !network_lose_records(); tries++)
        sim_sleep(1 + (int64_t)sim_below((uint64_t)(400 * US)));
    if (world->quiet < SIM_FOREVER)
        world->quiet = MAX(world->quiet, sim_now() + 3000 * SIM_MS);
}

static void other_pace(void) {
    world->think_low = sim_between(300 * US, 30 * SIM_MS);
    world->think_high = world->think_low * (int64_t)(1 + sim_below(64));
}

/* One is away until the journals of the others do not reach it any more, if they have a limit. */
static void leave_for_long(void) {
    unsigned node = any_node();
    if (sim_chance(2))
        node_stop(node);
    else
        node_kill(node, sim_chance(3));
    sim_sleep(sim_between(300 * SIM_MS, 6000 * SIM_MS));
    node_start(node);
}

/* Does another node have durably all that this one has? */
static bool dispensable(unsigned node) {
    const struct disk *disk = &world->nodes[node].disk;
    const struct register_value *value = registry_of(node);
    if (strcmp(value->primary, world->config.nodes[node].name) == 0)
        return false; /* a primary that has lost its store: that is another story */
    for (unsigned i = 0; i < world->node_count; i++)
        if (i != node && world->nodes[i].disk.lsn && (!disk->lsn || disk_has(&world->nodes[i].disk, disk_last(disk))) &&
            world->nodes[i].disk.durable >= disk->lsn)
            return true;
    return false;
}

static void format_anew(unsigned node) {
    struct disk *disk = &world->nodes[node].disk;
    node_kill(node, false);
    disk_make(disk);
    disk->drawn = sim_now();
    world->replaced = true;
    world->counts.replaced++;
    registry_forget(node);
    sim_trace("node %u has an empty store", node);
    check_power_cut();
}

/* Somebody may want it to be the one that counts: the others have what every node had, and do not believe that. */
static void put_back(unsigned node, const struct disk *copy) {
    node_kill(node, false);
    sim_trace("node %u has its store of before, with LSN %llu", node, (unsigned long long)copy->lsn);
    disk_copy(&world->nodes[node].disk, copy);
    world->replaced = true;
    world->counts.replaced++;
    check_power_cut();
    if (!copy->lsn || !sim_chance(3))
        return;
    for (unsigned i = 0; i < world->node_count; i++)
        if (i != node)
            node_kill(i, false);
    node_start(node);
    sim_sleep(sim_between(50 * SIM_MS, 2000 * SIM_MS));
    node_promote(node, true);
}

/* A copy of a store of before, which may have gone another way, or an empty one. */
static void put_another_store(void) {
    unsigned node = any_node();
    static struct disk copy;
    static int of = -1;
    if (of >= 0 && sim_chance(2) && dispensable((unsigned)of)) {
        put_back((unsigned)of, &copy);
        of = -1;
    } else if (of < 0 && sim_chance(2)) {
        node_kill(node, false);
        disk_copy(&copy, &world->nodes[node].disk);
        of = (int)node;
        node_start(node);
    } else if (dispensable(node)) {
        format_anew(node);
    }
}

static void damage_block(void) {
    struct disk *disk = &world->nodes[any_node()].disk;
    struct sim_state state;
    state_at(disk_last(disk), &state);
    struct sim_record *record = state.slots[SIM_INODES + sim_below(SIM_SLOTS - SIM_INODES)];
    struct sim_block **block = record && world->damages ? space_block(&disk->space, disk->places[record->lsn - 1]) : NULL;
    if (!block || !*block)
        return;
    sim_trace("the block of record %llu goes bad", (unsigned long long)record->lsn);
    *block = NULL;
    record->damaged = true;
}

static int a_builder(void) {
    unsigned start = any_node();
    for (unsigned i = 0; i < world->node_count; i++)
        if (world->nodes[(start + i) % world->node_count].disk.built.there)
            return (int)((start + i) % world->node_count);
    return -1;
}

/* In the middle of a full synchronization something happens to the node that builds, to another, or to both. */
static void disturb_building(void) {
    for (unsigned tries = 0; a_builder() < 0 && tries < 20; tries++)
        sim_sleep(100 * SIM_MS);
    int builder = a_builder();
    if (builder < 0)
        return;
    bool late = sim_chance(3); /* when it is about to be the store */
    for (unsigned tries = 0; late && !world->nodes[builder].disk.built.complete && tries < 2000; tries++)
        sim_sleep(1 * SIM_MS);
    if (late)
        sim_sleep((int64_t)sim_below((uint64_t)(30 * SIM_MS)) + 1);
    else
        sim_sleep(sim_chance(2) ? sim_between(100 * US, 500 * SIM_MS) : (int64_t)sim_below((uint64_t)(1500 * SIM_MS)));
    unsigned node = (unsigned)builder, other = another_than(node);
    switch (sim_below(10)) {
    case 0:
    case 1:
        node_kill(node, sim_chance(2));
        break;
    case 2:
        node_kill(other, sim_chance(2));
        break;
    case 3:
        node_kill(node, sim_chance(2));
        node_kill(other, sim_chance(2));
        node_start(other);
        break;
    case 4:
        node_promote(node, world->nodes[node].disk.lsn > 0 && sim_chance(2));
        break;
    case 5:
        node_promote(other, world->nodes[other].disk.lsn > 0 && sim_chance(2));
        break;
    case 6:
        node_stop(sim_chance(2) ? node : other);
        break;
    case 7:
        sim_pause(sim_chance(2) ? node : other, sim_now() + sim_between(5 * SIM_MS, 3000 * SIM_MS));
        break;
    case 8:
        world->nodes[sim_chance(2) ? node : other].disk.full = true;
        break;
    default:
        network_cut(node, other);
        network_cut(other, node);
        world->quiet = SIM_FOREVER;
    }
    sim_trace("…which builds its store anew, or feeds that: nodes %u, %u", node, other);
    node_start(node);
}

static const struct {
    void (*happen)(void);
    unsigned weight;
    bool always; /* else drawn for each schedule */
    bool copying; /* more often where full synchronization is the theme */
} events[] = {
    {cut_line, 4, false, false},
    {mend_lines, 4, true, false},
    {slow_line, 3, false, false},
    {break_one, 3, false, false},
    {lose_records, 3, false, false},
    {kill_one, 4, false, false},
    {cut_power, 2, false, false},
    {start_one, 8, true, false},
    {stop_one, 2, false, false},
    {promote_one, 4, false, false},
    {return_alone, 1, false, false},
    {force_one, 2, false, false},
    {switch_over, 4, false, false},
    {trouble_disk, 2, false, false},
    {mend_disks, 2, true, false},
    {trouble_register, 1, false, false},
    {pause_one, 3, false, false},
    {other_pace, 2, true, false},
    {leave_for_long, 3, false, true},
    {put_another_store, 3, false, true},
    {damage_block, 3, false, false},
    {disturb_building, 4, false, true},
};
#define EVENTS (sizeof events / sizeof *events)

static void draw_world(void) {
    struct config *config = &world->config;
    world->node_count = sim_chance(4) ? 3 : 2;
    world->shared = !sim_chance(4);
    world->copying = sim_chance(3);
    world->calls = 2u << sim_below(7);
    world->stalls = sim_chance(2) ? 10u << sim_below(8) : 0;
    world->trims = sim_chance(3);
    world->journal_limit = !world->copying && sim_chance(2) ? 0 : (uint64_t)sim_between(4, world->copying ? 200 : 1000);
    world->trims = world->trims || world->journal_limit;
    world->refusals = world->copying && sim_chance(2) ? (unsigned)sim_between(16, 256) : 0;
    world->links = !sim_chance(6);
    world->damages = sim_chance(6);
    world->copy_bytes = (uint32_t)sim_between(32, world->copying ? 200 : 2048);
    world->sync_blocks = (uint32_t)sim_between(1, world->copying ? 3 : 16);
    world->copy_idle = sim_between(300 * SIM_MS, 600000 * SIM_MS);
    world->reclaims = sim_chance(3);
    world->repeats = sim_chance(3) ? 10u << sim_below(8) : 0;
    world->users = 1 + (unsigned)sim_below(3);
    world->network_low = sim_between(10 * US, world->copying ? 6000 * US : 400 * US);
    world->network_high = world->network_low * (int64_t)(1 + sim_below(16));
    world->network_limit = sim_chance(4) ? 4 + (unsigned)sim_below(30) : 4096;
    world->register_trouble = sim_chance(3) ? 2 + (unsigned)sim_below(6) : 0;
    other_pace();
    snprintf(config->volume, sizeof config->volume, "played");
    memcpy(config->volume_id, "the played one's", 16);
    config->acknowledge = sim_chance(2) ? ACKNOWLEDGE_WRITE : ACKNOWLEDGE_CLOSE;
    config->fsync = sim_chance(4) ? FSYNC_MEMORY : FSYNC_DISK;
    config->cpu_idle = CPU_IDLE_SLEEP;
    config->catchup_share = 30 + (unsigned)sim_below(61);
    config->catchup_floor = 256;
    if (sim_chance(2)) { /* else everybody is near: few records are made here, and they are small */
        world->join_records = 1 + sim_below(64);
        world->join_bytes = 100u << sim_below(8);
    }
    config->lease_ms = 200u << sim_below(4);
    config->node_count = world->node_count;
    for (unsigned i = 0; i < world->node_count; i++) {
        snprintf(config->nodes[i].name, sizeof config->nodes[i].name, "%c", 'a' + (int)i);
        config->nodes[i].number = (uint16_t)(100 + i);
        disk_make(&world->nodes[i].disk);
    }
    if (world->voting)
        voting_begin();
    registry_make();
    sim_trace("%u nodes, %s, acknowledge = %s, fsync = %s, lease %u ms", world->node_count,
              world->voting ? "voters" : world->shared ? "one register" : "a register on each",
              config->acknowledge == ACKNOWLEDGE_WRITE ? "write" : "close", config->fsync == FSYNC_DISK ? "disk" : "memory",
              config->lease_ms);
}

static void look_around(void) {
    for (unsigned i = 0; i < world->node_count; i++)
        check_bounds(i);
}

static void trouble(void) {
    unsigned weights[EVENTS], sum = 0;
    bool elections = world->voting && sim_chance(2); /* the theme */
    for (unsigned i = 0; i < EVENTS; i++) {
        weights[i] = events[i].always || sim_chance(2) ? events[i].weight : 0;
        if (world->copying && events[i].copying)
            weights[i] = 4 * events[i].weight;
        sum += weights[i];
    }
    for (unsigned i = 0; i < world->node_count; i++)
        node_start(i);
    sim_sleep(sim_between(10 * SIM_MS, 1500 * SIM_MS));
    for (uint64_t left = 3 + sim_below(20); left > 0; left--) {
        if (world->voting && (elections || sim_chance(2))) {
            voting_happens();
        } else {
            unsigned chosen = (unsigned)sim_below(sum), i = 0;
            for (; chosen >= weights[i]; i++)
                chosen -= weights[i];
            events[i].happen();
        }
        look_around();
        sim_sleep(sim_between(100 * US, 1000 * SIM_MS));
    }
}

/* ---- The end --------------------------------------------------------------------------------------------------------- */

static bool newer(const struct disk *a, const struct disk *b) {
    const struct sim_record *x = disk_last(a), *y = disk_last(b);
    if (!x || !y)
        return x && !y;
    return x->epoch != y->epoch ? x->epoch > y->epoch : x->lsn > y->lsn;
}

static unsigned best_node(void) {
    unsigned best = 0;
    for (unsigned i = 1; i < world->node_count; i++)
        if (newer(&world->nodes[i].disk, &world->nodes[best].disk))
            best = i;
    return best;
}

/* Two copies of which neither may be replaced without a person: he keeps the primary's. */
static bool waits_for_a_person(unsigned node) {
    const struct sim_node *played = &world->nodes[node];
    struct replicator *r = played->state == NODE_UP ? atomic_load(&played->volume->replicator) : NULL;
    return r && !node_is_primary(node) && (r->sync.given_up || strstr(r->trouble, "nothing is taken back") ||
                                           strstr(r->trouble, "nothing was taken back"));
}

static bool decide(void) {
    bool decided = false;
    for (unsigned i = 0; a_primary() >= 0 && i < world->node_count; i++)
        if (waits_for_a_person(i)) {
            world->counts.decided++;
            format_anew(i);
            decided = true;
        }
    return decided;
}

static bool at_rest(char *why, size_t room) {
    unsigned primaries = 0;
    for (unsigned i = 0; i < world->node_count; i++)
        primaries += node_is_primary(i);
    if (primaries != 1) {
        snprintf(why, room, "there are %u primaries", primaries);
        return false;
    }
    for (unsigned i = 0; i < world->node_count; i++)
        if (world->nodes[i].operators || !node_works(i, why, room))
            return false;
    return check_equal(why, room) && (!world->voting || voting_is_whole(why, room));
}

static void mend_all(void) {
    world->calm = true;
    voting_mend();
    world->stalls = 0;
    mend_lines();
    mend_disks();
    for (unsigned i = 0; i < world->node_count; i++) {
        world->nodes[i].disk.dies = false;
        sim_pause(i, 0);
    }
    world->network_limit = 4096;
    world->network_low = MIN(world->network_low, 400 * US);
    world->network_high = MIN(world->network_high, 16 * world->network_low);
}

static void come_to_rest(void) {
    char why[1200] = "";
    unsigned decisions = 0; /* each copy may have a tail of its own that a person has to decide about */
    world->idle = true;
    int64_t start = sim_now(), lonely = start, able = start;
    while (!at_rest(why, sizeof why)) {
        for (unsigned i = 0; i < world->node_count; i++)
            node_start(i);
        voting_start();
        if (a_primary() >= 0)
            lonely = sim_now();
        if (!voting_must_elect())
            able = sim_now();
        if (world->voting && sim_now() - MAX(lonely, able) > ELECTION)
            sim_fail("a majority votes and a node of the set is there, and nobody becomes primary");
        /* Nobody is primary: a person tries without force first. */
        if (sim_now() - lonely > PATIENCE / 2) {
            node_promote(sim_now() - lonely > PATIENCE ? best_node() : any_node(), false);
            sim_sleep(2000 * SIM_MS);
        }
        if (sim_now() - lonely > PATIENCE) {
            world->counts.last_resort++;
            node_promote(best_node(), true);
            sim_sleep(5000 * SIM_MS);
        }
        if (sim_now() - start > REST / 2 && decisions < world->node_count && decide()) {
            decisions++;
            start = sim_now();
        }
        if (sim_now() - start > REST + (world->shared ? 0 : REST))
            sim_fail("it does not come to rest: %.500s", why);
        look_around();
        sim_sleep(50 * SIM_MS);
    }
    check_end();
}

/* When all is well, a handover under load succeeds. */
static void hand_over_well(void) {
    unsigned from = (unsigned)a_primary(), to = another_than(from);
    world->idle = false;
    sim_sleep(100 * SIM_MS);
    for (unsigned tries = 0; tries == 0 || (world->nodes[from].switched == -ENOTCONN && tries < 50); tries++) {
        world->nodes[from].switched = -ENOTCONN; /* it may be starting again, for a store that it had built before it was promoted */
        node_switchover(from, to); /* a session may just be ending, of what was wrong before */
        while (world->nodes[from].operators)
            sim_sleep(10 * SIM_MS);
        sim_sleep(200 * SIM_MS);
    }
    if (world->nodes[from].switched == -ESTALE) /* a promotion before, of which nobody heard, had been chosen */
        return;
    if (world->nodes[from].switched)
        sim_fail("all is well, and node %u does not hand over to node %u: %d", from, to, world->nodes[from].switched);
    if (!node_is_primary(to))
        sim_fail("node %u took over and is not primary", to);
}

static void show_catch_up(unsigned primary, unsigned node, char *text, size_t room) {
    json_t *status = replicator_status(atomic_load(&world->nodes[primary].volume->replicator));
    json_t *peer = json_array_get(json_object_get(status, "peers"), node < primary ? node : node - 1);
    char *catch_up = json_dumps(json_object_get(peer, "catch_up"), 0);
    char *slowing = json_dumps(json_object_get(status, "slowing"), 0);
    snprintf(text, room, "%s %s", catch_up ? catch_up : "not fed", slowing ? slowing : "not slowed");
    free(catch_up);
    free(slowing);
    json_decref(status);
}

#define CATCH_UP (120000 * SIM_MS)
#define CATCH_UP_ONE_IN 32 /* it takes long */

/* When all is well, a node that takes less than is made gets there all the same. */
static void catch_up_well(void) {
    unsigned primary = (unsigned)a_primary(), slow = another_than(primary);
    char why[1200] = "";
    /* No answer waits longer than PACE_LONGEST: a record in this time is made however little may be. */
    int64_t passes = PACE_LONGEST / (int64_t)(world->users * SIM_USER_WAITS), slowly = world->think_high;
    world->idle = false;
    world->join_records = 16;
    world->join_bytes = 1000;
    world->think_low = sim_between(2 * SIM_MS, 20 * SIM_MS);
    world->think_high = 2 * world->think_low;
    node_stop(slow);
    sim_sleep(2000 * SIM_MS + slowly); /* long enough for the set to shrink, and for users to know the new pace */
    uint64_t lsn = world->nodes[primary].disk.lsn;
    sim_sleep(3000 * SIM_MS);
    uint64_t made = world->nodes[primary].disk.lsn - lsn;
    if (world->nodes[slow].state != NODE_DOWN || !node_is_primary(primary) || made < 30)
        return;
    world->takes[slow] = MIN(3000 * SIM_MS / (int64_t)made * (int64_t)(110 + sim_below(90)) / 100, passes / 4);
    sim_trace("node %u takes a record in %lld us, %llu are made in 3 s", slow, (long long)(world->takes[slow] / US),
              (unsigned long long)made);
    node_start(slow);
    bool slowed = false;
    uint64_t behind = UINT64_MAX; /* after half of the time */
    int64_t start = sim_now();
    do {
        sim_sleep(20 * SIM_MS);
        slowed = slowed || replicator_slows(atomic_load(&world->nodes[primary].volume->replicator));
        look_around();
        if (sim_now() - start > CATCH_UP / 2 && behind == UINT64_MAX)
            behind = world->nodes[primary].disk.lsn - MIN(world->nodes[slow].disk.lsn, world->nodes[primary].disk.lsn);
        bool closer = world->nodes[primary].disk.lsn - MIN(world->nodes[slow].disk.lsn, world->nodes[primary].disk.lsn) < behind;
        if (sim_now() - start > (closer ? 3 : 1) * CATCH_UP) { /* a heavy record takes it no longer than a light one: slowing counts bytes */
            show_catch_up(primary, slow, why, sizeof why);
            sim_fail("node %u never catches up with what is being done: %.500s", slow, why);
        }
    } while (world->nodes[slow].state != NODE_UP || !node_works(primary, why, sizeof why));
    world->counts.slowed += slowed;
    world->takes[slow] = 0;
}

#define COPY_ONE_IN 16
#define COPY (60000 * SIM_MS)

/* When all is well, a node with an empty store is built anew and in sync, though users make more than the journal may keep in
 * the time that it takes, and go on. */
static void copy_well(void) {
    unsigned primary = (unsigned)a_primary(), empty = another_than(primary);
    const struct disk *disk = &world->nodes[primary].disk;
    struct replicator *r = atomic_load(&world->nodes[primary].volume->replicator);
    uint64_t limit = world->journal_limit;
    char why[1200] = "";
    bool slowed = false;
    if (!dispensable(empty))
        return;
    world->idle = false;
    world->think_low = sim_between(2 * SIM_MS, 10 * SIM_MS);
    world->think_high = 2 * world->think_low;
    world->trims = world->limited = true;
    world->journal_limit = 300 + sim_below(300); /* a second or two */
    world->sync_blocks = 1;
    r->copy_bytes = world->copy_bytes = 32; /* a row in each answer */
    format_anew(empty);
    sim_trace("the journal may have %llu records", (unsigned long long)world->journal_limit);
    int64_t start = sim_now();
    /* It reaches back no more, and has given up what it kept while it had no limit. */
    while (node_is_primary(primary) && sim_now() - start < COPY &&
           (disk->first < world->journal_limit ||
            disk->lsn + 1 - disk->first > world->journal_limit + world->journal_limit / 4))
        sim_sleep(20 * SIM_MS);
    if (!node_is_primary(primary))
        return;
    node_start(empty);
    start = sim_now();
    do {
        sim_sleep(20 * SIM_MS);
        slowed = slowed || replicator_slows(r);
        look_around();
        if (disk->lsn + 1 - disk->first > 2 * world->journal_limit)
            sim_fail("node %u's journal may have %llu records, and has %llu", primary,
                     (unsigned long long)world->journal_limit, (unsigned long long)(disk->lsn + 1 - disk->first));
        if (sim_now() - start > COPY) {
            show_catch_up(primary, empty, why, sizeof why);
            sim_fail("node %u is never built anew, while others go on: %.500s", empty, why);
        }
    } while (world->nodes[empty].state != NODE_UP || !node_works(primary, why, sizeof why));
    world->counts.reached += slowed;
    world->limited = false;
    world->journal_limit = limit;
}

#define LEAVES (20000 * SIM_MS)
#define LOST_ONE_IN 6

static bool in_set(unsigned primary, unsigned node) {
    const struct register_value *value = registry_of(primary);
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, world->config.nodes[node].name) == 0)
            return true;
    return false;
}

static bool somebody_waits(unsigned primary) {
    return node_is_primary(primary) && park_count(world->nodes[primary].volume->park) > 0;
}

/* When all is well but a standby's disk, which is full, or hangs: the others go on without it. */
static void lose_disk_well(bool hangs) {
    unsigned primary = (unsigned)a_primary(), lost = another_than(primary);
    struct disk *disk = &world->nodes[lost].disk;
    int64_t slowly = world->think_high;
    world->idle = false;
    world->think_low = sim_between(2 * SIM_MS, 20 * SIM_MS); /* else a second may pass without a question */
    world->think_high = 2 * world->think_low;
    sim_sleep(slowly);
    disk->full = !hangs;
    disk->hangs = hangs;
    disk->hangs_all = hangs && (world->config.fsync == FSYNC_MEMORY || sim_chance(2)); /* else nobody asks for its disk */
    sim_trace("the disk of node %u %s, and all is well else", lost, hangs ? "hangs" : "is full");
    int64_t start = sim_now();
    while (in_set(primary, lost)) {
        sim_sleep(50 * SIM_MS);
        if (sim_now() - start > LEAVES)
            sim_fail("the disk of node %u %s, and it does not leave the set", lost, hangs ? "hangs" : "is full");
    }
    for (unsigned i = 0; i < 5; i++) { /* users may all still sleep, of a node that stood still before all was well */
        uint64_t answered = world->counts.acknowledged;
        bool wait = somebody_waits(primary);
        sim_sleep(1000 * SIM_MS);
        if (wait && somebody_waits(primary) && world->counts.acknowledged == answered)
            sim_fail("the disk of node %u %s, and nobody is answered", lost, hangs ? "hangs" : "is full");
    }
    mend_disks();
}

void *schedule_run(void *nothing) {
    draw_world();
    trouble();
    mend_all();
    sim_trace("from now on all is well");
    if (world->awake > sim_now())
        sim_sleep(world->awake - sim_now());
    come_to_rest();
    if (world->voting) { /* a lease that runs out just then, of what was wrong before */
        sim_sleep(3 * (int64_t)world->config.lease_ms * SIM_MS);
        come_to_rest();
    }
    hand_over_well();
    come_to_rest();
    if (sim_chance(LOST_ONE_IN)) {
        lose_disk_well(sim_chance(2));
        come_to_rest();
    }
    if (sim_chance(COPY_ONE_IN)) {
        copy_well();
        come_to_rest();
    }
    if (sim_chance(CATCH_UP_ONE_IN)) {
        catch_up_well();
        come_to_rest();
    }
    world->counts.virtual_ns = (uint64_t)sim_now();
    world->over = true;
    return nothing;
}
