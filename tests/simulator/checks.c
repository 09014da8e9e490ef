/* What must hold (DESIGN.md, "Invariants"), as far as replication answers for it. */
#include "replication/parts.h"
#include "tests/simulator/sim.h"

#include <stdio.h>

static void name_of(const struct sim_record *record, char text[80]) {
    snprintf(text, 80, "record %llu of epoch %llu.%u", (unsigned long long)record->lsn,
             (unsigned long long)EPOCH_COUNTER(record->epoch), EPOCH_NODE(record->epoch));
}

/* ---- Acknowledgements ------------------------------------------------------------------------------------------------ */

static void excuse(struct sim_record *record) {
    if (!record->excused)
        world->counts.excused++;
    record->excused = true;
}

static const struct register_member *member_named(const struct register_value *value, const char *name) {
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, name) == 0)
            return &value->members[i];
    return NULL;
}

/* The first node that counts in that set and does not have the record as it should; -1: none. A member that is another
 * incarnation by now counts no more, but for records that are newer than that. */
static int lacking(const struct register_value *value, const struct sim_record *record, bool durable) {
    for (unsigned i = 0; i < world->node_count; i++) {
        const struct disk *disk = &world->nodes[i].disk;
        const struct register_member *member = member_named(value, world->config.nodes[i].name);
        if (!member)
            continue;
        if (memcmp(member->incarnation, disk->incarnation, sizeof disk->incarnation) != 0
                ? record->made > disk->drawn
                : !disk_has(disk, record) || (durable && disk->durable < record->lsn && !disk->undoing))
            return (int)i;
    }
    return -1;
}

static bool alone(const struct register_value *value) {
    return value->member_count == 1;
}

static void note(struct sim_record *record) {
    if (world->acknowledged_count == world->acknowledged_room) {
        unsigned room = MAX(256u, world->acknowledged_room * 2);
        struct sim_record **larger = sim_alloc(room * sizeof *larger);
        if (world->acknowledged_count)
            memcpy(larger, world->acknowledged, world->acknowledged_count * sizeof *larger);
        world->acknowledged = larger;
        world->acknowledged_room = room;
    }
    world->acknowledged[world->acknowledged_count++] = record;
}

/* A user is told that its record is safe. */
void check_acknowledged(unsigned node, struct sim_record *record, bool durable) {
    const struct register_value *value = registry_of(node);
    const struct disk *disk = &world->nodes[node].disk;
    char name[80];
    name_of(record, name);
    if (!record->acknowledged) {
        note(record);
        record->told = sim_now();
    }
    world->counts.acknowledged++;
    world->counts.durable += durable;
    record->acknowledged = true;
    record->durable |= durable;
    sim_trace("%s is acknowledged%s by node %u", name, durable ? " as durable" : "", node);
    if (EPOCH_NODE(record->epoch) != world->config.nodes[node].number)
        sim_fail("node %u acknowledges %s, of another node's epoch", node, name);
    if (!disk_has(disk, record))
        sim_fail("node %u acknowledges %s, which it does not have", node, name);
    if (world->forced > record->epoch) { /* a primary that somebody overrode, and that has not heard of it */
        for (unsigned i = 0; i < world->node_count; i++)
            if (!disk_has(&world->nodes[i].disk, record))
                excuse(record);
        return;
    }
    int without = lacking(value, record, durable || alone(value));
    if (without >= 0)
        sim_fail("node %u acknowledges %s%s; node %d is in the set and lacks it", node, name, durable ? " as durable" : "",
                 without);
}

/* A set has been chosen. */
void check_registered(const struct register_value *value, bool forced) {
    char name[80];
    if (forced)
        world->forced = MAX(world->forced, value->epoch);
    for (unsigned i = 0; i < world->acknowledged_count; i++) {
        struct sim_record *record = world->acknowledged[i];
        int without = record->excused ? -1 : lacking(value, record, record->durable || alone(value));
        if (without < 0)
            continue;
        name_of(record, name);
        if (!forced)
            sim_fail("%s was acknowledged; node %d is in the set and lacks it", name, without);
        excuse(record);
    }
}

/* A file on each node lets two nodes be primary, but not when they hear of each other. */
static void check_started_by_file(unsigned node, epoch_t epoch) {
    const struct sim_node *played = &world->nodes[node];
    if (played->state != NODE_STARTING || world->quiet > played->since || sim_now() - played->since < 400 * SIM_MS)
        return;
    for (unsigned i = 0; i < world->node_count; i++)
        if (i != node && node_is_primary(i) && world->nodes[i].since < played->since - 1000 * SIM_MS)
            sim_fail("node %u begins epoch %llu by itself, and node %u is primary", node,
                     (unsigned long long)EPOCH_COUNTER(epoch), i);
}

/* A node is about to begin an epoch: the register says so, and it has all that was acknowledged, or else somebody took
 * the loss upon himself. */
void check_started(unsigned node, epoch_t epoch) {
    const struct disk *disk = &world->nodes[node].disk;
    const struct register_value *value = registry_of(node);
    bool forced = world->nodes[node].forcing || !world->shared; /* files on each node let two nodes be primary */
    char name[80];
    sim_trace("node %u begins epoch %llu at LSN %llu", node, (unsigned long long)EPOCH_COUNTER(epoch),
              (unsigned long long)disk->lsn + 1);
    if (EPOCH_NODE(epoch) != world->config.nodes[node].number)
        sim_fail("node %u begins an epoch that is not its own", node);
    if (value->epoch < epoch)
        sim_fail("node %u begins an epoch that the register has not chosen", node);
    world->counts.forced += world->nodes[node].forcing;
    if (!world->shared)
        check_started_by_file(node, epoch);
    if (forced)
        world->forced = MAX(world->forced, epoch);
    for (unsigned i = 0; i < world->acknowledged_count; i++) {
        struct sim_record *record = world->acknowledged[i];
        if (record->excused || disk_has(disk, record) || record->epoch > epoch) /* a late start, overridden meanwhile */
            continue;
        name_of(record, name);
        bool knowable = world->nodes[node].promoting && record->told < world->nodes[node].since;
        if ((!forced && world->forced <= record->epoch) || (!world->nodes[node].forcing && knowable))
            sim_fail("node %u becomes primary and lacks %s, which was acknowledged", node, name);
        excuse(record);
    }
    world->nodes[node].forcing = false; /* what comes later is not forced */
}

void check_undone(unsigned node, const struct sim_record *record) {
    char name[80];
    name_of(record, name);
    if (record->acknowledged && !record->excused)
        sim_fail("node %u undoes %s, which was acknowledged", node, name);
}

/* What was only received may be lost where all that had it lost power; nothing else. */
void check_power_cut(void) {
    char name[80];
    for (unsigned i = 0; i < world->acknowledged_count; i++) {
        struct sim_record *record = world->acknowledged[i];
        bool somewhere = record->excused;
        for (unsigned node = 0; node < world->node_count; node++)
            somewhere = somewhere || disk_has(&world->nodes[node].disk, record);
        if (somewhere)
            continue;
        name_of(record, name);
        if (record->durable)
            sim_fail("%s was acknowledged as durable and is nowhere", name);
        excuse(record);
    }
}

void check_ack_frame(unsigned node, uint64_t received, uint64_t durable) {
    const struct disk *disk = &world->nodes[node].disk;
    if (received > disk->lsn || durable > disk->durable)
        sim_fail("node %u tells received %llu, durable %llu; it has %llu, %llu", node, (unsigned long long)received,
                 (unsigned long long)durable, (unsigned long long)disk->lsn, (unsigned long long)disk->durable);
}

/* ---- Bounds ---------------------------------------------------------------------------------------------------------- */

void check_bounds(unsigned node) {
    const struct sim_node *played = &world->nodes[node];
    const struct replicator *r = played->state == NODE_UP ? atomic_load(&played->volume->replicator) : NULL;
    if (!r)
        return;
    if (r->ring_bytes > RING_BYTES || r->position.lsn + 1 - MIN(r->ring_first, r->position.lsn + 1) > RING_ENTRIES ||
        r->outbox_count > OUTBOX)
        sim_fail("node %u keeps too much in memory", node);
    for (unsigned i = 0; i < r->count; i++) {
        const struct feed *feed = &r->peers[i].feed;
        if (feed->sent_count > FEED_WINDOW_FRAMES || (feed->sent_count > 1 && feed->in_flight > feed->window))
            sim_fail("node %u has too much under way to node %u", node, i);
    }
}

/* ---- The end --------------------------------------------------------------------------------------------------------- */

bool check_equal(char *why, size_t room) {
    const struct sim_record *last = disk_last(&world->nodes[0].disk);
    for (unsigned i = 1; i < world->node_count; i++)
        if (disk_last(&world->nodes[i].disk) != last) {
            snprintf(why, room, "node 0 is at LSN %llu, node %u at %llu", (unsigned long long)world->nodes[0].disk.lsn, i,
                     (unsigned long long)world->nodes[i].disk.lsn);
            return false;
        }
    return true;
}

void check_end(void) {
    for (unsigned i = 0; i < world->node_count; i++)
        for (uint64_t lsn = 1; lsn <= world->nodes[i].disk.lsn; lsn++)
            if (world->nodes[i].disk.records[lsn - 1] != world->nodes[0].disk.records[lsn - 1])
                sim_fail("record %llu of node %u is another one than node 0's", (unsigned long long)lsn, i);
    for (unsigned i = 0; i < world->acknowledged_count; i++) {
        char name[80];
        const struct sim_record *record = world->acknowledged[i];
        name_of(record, name);
        if (!record->excused && !disk_has(&world->nodes[0].disk, record))
            sim_fail("%s was acknowledged and is gone", name);
    }
}
