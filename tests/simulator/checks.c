/* What must hold (DESIGN.md, "Invariants"), as far as replication answers for it. */
#include "fs/import_internal.h"
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

static int who_has(const struct sim_record *record) {
    for (unsigned i = 0; i < world->node_count; i++)
        if (disk_has(&world->nodes[i].disk, record))
            return (int)i;
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
    check_answered(node);
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
            sim_fail("%s was acknowledged; node %d is in the set and lacks it, node %d has it", name, without, who_has(record));
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
    world->counts.elected += world->voting;
    world->begun[node] = MAX(world->begun[node], epoch);
    if (!world->shared)
        check_started_by_file(node, epoch);
    struct replicator *r = atomic_load(&world->nodes[node].volume->replicator);
    if (world->voting && r->value.voter_count == 0)
        sim_fail("node %u begins an epoch and does not know who votes", node);
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

void check_undone(unsigned node, const struct sim_record *record, uint64_t hold) {
    char name[80];
    name_of(record, name);
    if (record->lsn <= hold)
        sim_fail("node %u takes back %s, which every node had", node, name);
    if (record->acknowledged && !record->excused)
        sim_fail("node %u undoes %s, which was acknowledged", node, name);
}

/* What was only received may be lost where all that had it lost power; nothing else. */
/* What was promised to be in the memory of the set may be on another node still: that helps nobody, it may be anybody's past. */
static bool counts(unsigned node) {
    return !world->voting || member_named(registry_of(node), world->config.nodes[node].name);
}

void check_power_cut(void) {
    char name[80];
    for (unsigned i = 0; i < world->acknowledged_count; i++) {
        struct sim_record *record = world->acknowledged[i];
        bool somewhere = record->excused;
        for (unsigned node = 0; node < world->node_count; node++)
            somewhere = somewhere || ((record->durable || counts(node)) && disk_has(&world->nodes[node].disk, record));
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

/* ---- Stores that are built anew -------------------------------------------------------------------------------------- */

static bool same_row(const struct sim_row *a, const struct sim_row *b) {
    return a->table == b->table && a->key_length == b->key_length && a->length == b->length &&
           memcmp(a->key, b->key, a->key_length) == 0 && memcmp(a->value, b->value, a->length) == 0;
}

/* Rows of the same tables, but for the map, which is cut in another way. */
static void check_rows(unsigned node, const struct sim_rows *built, const struct sim_state *state) {
    struct sim_rows wanted;
    unsigned count = 0;
    rows_of_state(state, NULL, SIM_TABLE(TABLE_EPOCH) | SIM_TABLE(TABLE_INODE), &wanted);
    for (unsigned i = 0; i < built->count; i++) {
        const struct sim_row *row = built->list[i];
        if (row->table >= TABLE_SHARED_END || row->table == TABLE_EXTENT)
            continue;
        if (count >= wanted.count || !same_row(row, wanted.list[count]))
            sim_fail("node %u's new store has a row that its state at LSN %llu has not", node,
                     (unsigned long long)state->last->lsn);
        count++;
    }
    if (count < wanted.count)
        sim_fail("node %u's new store lacks %u rows", node, wanted.count - count);
}

static bool all_synced(const struct sim_space *space, struct place place) {
    const struct sim_segment *segment = space_find(space, place.segment);
    for (uint32_t i = 0; segment && i < place.count; i++)
        if (!segment->file->synced[place.position + i])
            return false;
    return segment != NULL;
}

/* The map says block by block what the state does, and they are on the disk. Counts them; marks their places. */
static uint64_t check_map(unsigned node, const struct sim_image *image, const struct sim_state *state,
                          struct sim_rows *used) {
    uint64_t count = 0;
    for (unsigned i = rows_seek(&image->rows, TABLE_EXTENT, "", 0);
         i < image->rows.count && image->rows.list[i]->table == TABLE_EXTENT; i++) {
        const struct sim_row *row = image->rows.list[i];
        struct extent extent;
        if (extent_parse((struct span){row->key, row->key_length}, (struct span){row->value, row->length}, &extent))
            sim_fail("node %u's new store has a row of the map that cannot be", node);
        for (uint32_t k = 0; k < extent.place.count; k++, count++) {
            struct place place = {extent.place.segment, extent.place.position + k, 1};
            uint64_t slot = SIM_INODES + (extent.data - 1) * SIM_FILE_BLOCKS + extent.first + k, checksum;
            const struct sim_record *record = slot < SIM_SLOTS ? state->slots[slot] : NULL;
            memcpy(&checksum, extent.checksums + k * 8ull, sizeof checksum);
            if (!record || record->checksum != checksum)
                sim_fail("node %u's new store has a block in its map that its state has not", node);
            if (!record->damaged && (!space_holds(&image->space, place, checksum) || !all_synced(&image->space, place)))
                sim_fail("node %u's new store lacks the block of record %llu", node, (unsigned long long)record->lsn);
            struct key key = key_u64_u64(place.segment, place.position);
            rows_put(used, 0, key.bytes, key.length, "", 0);
        }
    }
    for (unsigned slot = SIM_INODES; slot < SIM_SLOTS; slot++)
        count -= state->slots[slot] != NULL;
    if (count)
        sim_fail("node %u's new store has a map of another state", node);
    return used->count;
}

/* Of a segment that was taken over each block is used or dead. */
static void check_dead(unsigned node, const struct sim_image *image, struct sim_rows *used) {
    for (unsigned i = rows_seek(&image->rows, TABLE_DEAD, "", 0);
         i < image->rows.count && image->rows.list[i]->table == TABLE_DEAD; i++) {
        const struct sim_row *row = image->rows.list[i];
        struct dead_row dead;
        memcpy(&dead, row->value, sizeof dead);
        for (uint32_t k = 0; k < dead.count; k++) {
            struct key key = key_u64_u64(be32_get(row->key), be32_get(row->key + 4) + k);
            if (rows_get(used, 0, key.bytes, key.length))
                sim_fail("node %u's new store counts a block as dead and uses it", node);
            rows_put(used, 0, key.bytes, key.length, "", 0);
        }
    }
    for (uint32_t i = 0; i < image->space.count; i++)
        for (uint32_t k = 0; image->space.list[i].adopted && k < image->space.list[i].head; k++) {
            struct key key = key_u64_u64(image->space.list[i].number, k);
            if (!rows_get(used, 0, key.bytes, key.length))
                sim_fail("node %u's new store has a block that is neither used nor dead", node);
        }
}

/* Nothing was built twice, but for what a crash took back. */
static void check_work(unsigned node, const struct sim_built *built) {
    uint64_t rows = 0, blocks = 0;
    for (unsigned i = 0; i < built->saved.rows.count; i++) {
        const struct sim_row *row = built->saved.rows.list[i];
        struct extent_row extent;
        rows += row->table == TABLE_INODE || row->table == TABLE_EPOCH;
        if (row->table != TABLE_EXTENT)
            continue;
        memcpy(&extent, row->value, sizeof extent);
        const struct sim_segment *segment = space_find(&built->saved.space, extent.segment);
        blocks += segment && !segment->adopted ? extent.count : 0;
    }
    world->counts.rows += rows;
    world->counts.fetched += blocks;
    if (built->rows > rows + built->lost_rows + 4 || built->blocks > blocks + built->lost_blocks + STORE_PLACES_MAX)
        sim_fail("node %u put %llu rows and %llu blocks into its new store; it has %llu and %llu, and lost %llu and %llu", node,
                 (unsigned long long)built->rows, (unsigned long long)built->blocks, (unsigned long long)rows,
                 (unsigned long long)blocks, (unsigned long long)built->lost_rows, (unsigned long long)built->lost_blocks);
}

/* What a power cut would leave of it is one state of a history, all of it. */
void check_built(unsigned node, const struct sim_built *built) {
    const struct sim_image *image = &built->saved;
    const struct position *position = &image->position;
    struct sim_record *last = disk_known(position->lsn, position->epoch);
    struct sim_state state;
    struct sim_rows used = {0};
    if (rows_get(&image->rows, TABLE_META, "import", 6) || position->lsn == 0)
        sim_fail("node %u's new store is not complete", node);
    for (unsigned i = rows_seek(&image->rows, TABLE_META, "", 0); i < image->rows.count; i++)
        if (image->rows.list[i]->table == TABLE_META && image->rows.list[i]->key_length == 17)
            sim_fail("node %u's new store has rows left of how it was built", node);
    if (!last || memcmp(last->chain, position->chain, CHAIN_SIZE) != 0 || last->time != position->time)
        sim_fail("node %u's new store is at a position that no store was at", node);
    state_at(last, &state);
    check_rows(node, &image->rows, &state);
    uint64_t live = check_map(node, image, &state, &used), inodes = 0;
    for (unsigned i = 0; i < SIM_INODES; i++)
        inodes += state.slots[i] != NULL;
    if (position->first != position->lsn + 1 || image->live_blocks != live || image->inodes != inodes)
        sim_fail("node %u's new store counts in another way than it should", node);
    check_dead(node, image, &used);
    check_work(node, built);
}

static int node_with_store(const uint8_t incarnation[STORE_ID_SIZE]) {
    for (unsigned i = 0; i < world->node_count; i++)
        if (memcmp(world->nodes[i].disk.incarnation, incarnation, STORE_ID_SIZE) == 0)
            return (int)i;
    return -1;
}

/* Journals are kept for who is away: up to a limit, and as long as nobody overrides anything. */
void check_needed(unsigned node) {
    if (!world->journal_limit && !world->forced && !world->replaced)
        sim_fail("node %u needs a full synchronization, and nobody has given up what it needs", node);
}

/* What has been built so far is thrown away. There has to be a reason. */
void check_begun_anew(unsigned node) {
    const struct disk *disk = &world->nodes[node].disk;
    const struct sim_row *row = rows_get(&disk->built.saved.rows, TABLE_META, "import", 6);
    const struct sim_record *own = disk_last(disk);
    struct replicator *r = world->nodes[node].volume ? atomic_load(&world->nodes[node].volume->replicator) : NULL;
    struct import_row import;
    unsigned long long lsn, epoch;
    if (!row || !r || r->role == ROLE_PRIMARY)
        return;
    memcpy(&import, row->value, sizeof import);
    int provider = node_with_store(import.state.incarnation);
    if (provider < 0 || provider != (int)r->sync.node) /* the primary's store is another one */
        return;
    const struct disk *theirs = &world->nodes[provider].disk;
    if (theirs->lsn < import.state.lsn || theirs->first > import.state.lsn + 1 ||
        memcmp(theirs->records[import.state.lsn - 1]->chain, import.state.chain, CHAIN_SIZE) != 0)
        return; /* it cannot show the state any more */
    if (sscanf(disk->built.line, "%llu.%llu", &lsn, &epoch) != 2 || lsn != disk->lsn || epoch != (own ? own->epoch : 0))
        return; /* the old store has moved on */
    if (disk->lsn > 0 && (disk->first > 1 || disk->unreadable) && import.reuse && !disk_has(theirs, own))
        return; /* it is to be kept, and may have been taken from */
    sim_fail("node %u begins to build its store anew, and could have gone on", node);
}

/* Its journal may not reach back far enough, but all that it alone has is kept: as records, or with its blocks. */
void check_replaced(unsigned node, const struct sim_former *former, bool kept) {
    struct disk *disk = &world->nodes[node].disk;
    for (struct sim_record *at = former->last; at && !disk_has(disk, at); at = at->before) {
        if (kept)
            disk_keep(disk, at);
        if (!disk_keeps(disk, at))
            sim_fail("node %u's old store goes with record %llu, which is kept nowhere", node, (unsigned long long)at->lsn);
        check_undone(node, at, former->hold);
    }
}

static void check_aside(unsigned node) {
    for (const struct sim_former *aside = world->nodes[node].disk.aside; aside; aside = aside->next)
        disk_check_blocks(aside->last, aside->places, &aside->space, node);
}

/* A follower waits for the record behind its last one, and for no other. */
void check_follow(unsigned node) {
    const struct sim_node *played = &world->nodes[node];
    const struct replicator *r = played->state == NODE_UP ? atomic_load(&played->volume->replicator) : NULL;
    bool follows = r && (r->follow.state == FOLLOW_LOGIN || r->follow.state == FOLLOW_STREAMING);
    if (follows && r->follow.next > r->position.lsn + 1)
        sim_fail("node %u waits for record %llu, and lacks those from %llu on", node, (unsigned long long)r->follow.next,
                 (unsigned long long)r->position.lsn + 1);
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
    for (unsigned i = 0; i < world->node_count; i++) {
        const struct disk *disk = &world->nodes[i].disk;
        disk_check_blocks(disk_last(disk), disk->places, &disk->space, i);
        check_aside(i);
    }
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
