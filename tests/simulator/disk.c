/* What is on a disk: a list of records of which a prefix is durable. They are real ones, chained, encoded and checked as
 * fs/ does it; what they would do to files is not played.
 *
 * A killed process loses nothing that was appended or received. A power cut keeps the durable records and any number of
 * those after them, and then the store counts as a new incarnation.
 */
#include "tests/simulator/sim.h"

/* ---- Disks ----------------------------------------------------------------------------------------------------------- */

static void draw(uint8_t id[STORE_ID_SIZE]) {
    for (unsigned i = 0; i < STORE_ID_SIZE; i++)
        id[i] = (uint8_t)sim_random();
}

void disk_make(struct disk *disk) {
    *disk = (struct disk){.first = 1};
    draw(disk->incarnation);
}

bool disk_has(const struct disk *disk, const struct sim_record *record) {
    return record->lsn <= disk->lsn && disk->records[record->lsn - 1] == record;
}

struct sim_record *disk_last(const struct disk *disk) {
    return disk->lsn ? disk->records[disk->lsn - 1] : NULL;
}

/* What was handed out behind a power cut's records is handed out again. */
static void cut_space(struct disk *disk) {
    struct sim_space *space = &disk->space;
    struct sim_segment *current = space_find(space, space->current);
    if (!current)
        return;
    uint32_t head = 0;
    for (uint64_t lsn = 1; lsn <= disk->lsn; lsn++)
        if (disk->places[lsn - 1].segment == space->current && disk->records[lsn - 1]->slot >= SIM_INODES)
            head = MAX(head, disk->places[lsn - 1].position + 1);
    if (!current->adopted)
        current->head = MAX(head, current->imported);
}

void disk_cut(struct disk *disk, uint64_t lsn) {
    disk->lsn = lsn;
    disk->durable = MIN(disk->durable, lsn);
    disk->first = MIN(disk->first, lsn + 1);
}

/* What an undo had not brought to the disk comes back. */
static void end_undo(struct disk *disk) {
    if (disk->undoing)
        disk->lsn = disk->durable = disk->undo_synced;
    disk->undoing = false;
}

void disk_kill(struct disk *disk) {
    end_undo(disk);
    built_kill(disk);
    disk->dies = false;
}

static void lose_unsynced(const struct sim_space *space) {
    for (uint32_t i = 0; i < space->count; i++)
        for (uint32_t block = 0; block < SIM_SEGMENT_BLOCKS; block++)
            if (!space->list[i].file->synced[block] && sim_chance(2))
                space->list[i].file->blocks[block] = NULL;
}

void disk_power_cut(struct disk *disk) {
    disk_kill(disk);
    if (disk->lsn > disk->durable && !sim_chance(4)) {
        disk_cut(disk, disk->durable + sim_below(disk->lsn - disk->durable + 1));
        cut_space(disk);
    }
    lose_unsynced(&disk->built.saved.space);
    disk->durable = disk->lsn; /* what the next open finds it puts into its first checkpoint */
    disk->hold = disk->hold_synced;
    disk->drawn = sim_now();
    disk->note_length = 0; /* it lies where the mark does, in memory */
    draw(disk->incarnation);
}

/* ---- Records: one object for all stores that have the record --------------------------------------------------------- */

struct known {
    struct sim_record **slots;
    size_t room, count;
};
static struct known known; /* of this schedule: static variables go back to empty with its end */

static size_t slot_of(uint64_t lsn, epoch_t epoch) {
    return (size_t)((lsn * 0x9e3779b97f4a7c15u ^ epoch * 0xc2b2ae3d27d4eb4fu) >> 20) & (known.room - 1);
}

static struct sim_record **find(uint64_t lsn, epoch_t epoch) {
    size_t at = slot_of(lsn, epoch);
    while (known.slots[at] && (known.slots[at]->lsn != lsn || known.slots[at]->epoch != epoch))
        at = (at + 1) & (known.room - 1);
    return &known.slots[at];
}

static void make_room(void) {
    if (known.count * 2 < known.room)
        return;
    struct known old = known;
    known.room = MAX(1024u, old.room * 2);
    known.slots = sim_alloc(known.room * sizeof *known.slots);
    for (size_t i = 0; i < old.room; i++)
        if (old.slots[i])
            *find(old.slots[i]->lsn, old.slots[i]->epoch) = old.slots[i];
}

static void *copy(const void *bytes, size_t length) {
    return memcpy(sim_alloc(length), bytes, length);
}

struct sim_record *disk_known(uint64_t lsn, epoch_t epoch) {
    return known.room ? *find(lsn, epoch) : NULL;
}

/* What it does: it sets one inode, or one block of a file. */
static void note_effect(struct sim_record *record, const struct record_head *head) {
    struct record decoded;
    record->begins = record->starts ? record : record->before ? record->before->begins : NULL;
    record->slot = SIM_SLOTS;
    if (record->starts)
        return;
    PROMISE(record_decode(record->bytes, record->length, &decoded, NULL) == 0);
    record->slot = (unsigned)(head->ino - 1);
    if (head->type == RECORD_WRITE) {
        record->slot = SIM_INODES + (unsigned)((head->ino - 1) * SIM_FILE_BLOCKS + decoded.first);
        memcpy(&record->checksum, decoded.checksums.data, sizeof record->checksum);
    }
    record_release(&decoded);
    record->replaced = record->before;
    while (record->replaced && record->replaced->slot != record->slot)
        record->replaced = record->replaced->before;
}

/* The record that these bytes are. Two records of one LSN and epoch are one record, on every node. */
struct sim_record *disk_record(const void *bytes, size_t length, struct sim_record *before, const void *payload,
                               size_t payload_length, bool big) {
    static const uint8_t none[CHAIN_SIZE];
    const uint8_t *previous = before ? before->chain : none;
    struct record_head head;
    memcpy(&head, bytes, sizeof head);
    make_room();
    struct sim_record **slot = find(head.lsn, head.epoch);
    if (*slot) {
        if (memcmp((*slot)->chain, head.chain, CHAIN_SIZE) != 0 || memcmp((*slot)->previous, previous, CHAIN_SIZE) != 0)
            sim_fail("two records have LSN %llu and epoch %llu.%u", (unsigned long long)head.lsn,
                     (unsigned long long)EPOCH_COUNTER(head.epoch), EPOCH_NODE(head.epoch));
        return *slot;
    }
    struct sim_record *record = *slot = sim_alloc(sizeof *record);
    known.count++;
    world->counts.records++;
    record->lsn = head.lsn;
    record->epoch = head.epoch;
    record->time = head.time;
    record->length = (uint32_t)length;
    record->payload_length = (uint32_t)payload_length;
    record->bytes = copy(bytes, length);
    record->payload = payload_length ? copy(payload, payload_length) : NULL;
    record->big = big;
    record->starts = head.type == RECORD_EPOCH;
    record->made = sim_now();
    memcpy(record->chain, head.chain, CHAIN_SIZE);
    memcpy(record->previous, previous, CHAIN_SIZE);
    record->before = before;
    note_effect(record, &head);
    return record;
}

void state_at(struct sim_record *last, struct sim_state *state) {
    unsigned found = 0;
    *state = (struct sim_state){.last = last};
    for (struct sim_record *at = last; at && found < SIM_SLOTS; at = at->before)
        if (at->slot < SIM_SLOTS && !state->slots[at->slot]) {
            state->slots[at->slot] = at;
            found++;
        }
}

static void grow(struct disk *disk, uint64_t room) {
    struct sim_record **larger = sim_alloc(room * sizeof *larger);
    struct place *places = sim_alloc(room * sizeof *places);
    if (disk->lsn) {
        memcpy(larger, disk->records, disk->lsn * sizeof *larger);
        memcpy(places, disk->places, disk->lsn * sizeof *places);
    }
    disk->records = larger;
    disk->places = places;
    disk->room = room;
}

void disk_add(struct disk *disk, struct sim_record *record) {
    if (disk->lsn == disk->room)
        grow(disk, MAX(256u, disk->room * 2));
    if (record->lsn != disk->lsn + 1)
        sim_fail("record %llu comes after record %llu", (unsigned long long)record->lsn, (unsigned long long)disk->lsn);
    struct place *place = &disk->places[disk->lsn];
    *place = (struct place){0};
    if (record->slot >= SIM_INODES && record->slot < SIM_SLOTS) {
        *place = space_take(&disk->space, 1);
        space_write(&disk->space, *place, record->payload, record->payload_length, true); /* the tail carries it */
    }
    disk->records[disk->lsn++] = record;
}

/* ---- What the journal gives up --------------------------------------------------------------------------------------- */

void disk_trim(struct disk *disk, uint64_t first) {
    for (; disk->first < first; disk->first++) {
        const struct sim_record *replaced = disk->records[disk->first - 1]->replaced;
        struct sim_block **block = NULL;
        if (replaced && replaced->slot >= SIM_INODES)
            block = space_block(&disk->space, disk->places[replaced->lsn - 1]);
        if (block)
            *block = NULL; /* punched */
    }
}

void disk_check_blocks(struct sim_record *last, const struct place *places, const struct sim_space *space, unsigned node) {
    struct sim_state state;
    state_at(last, &state);
    for (unsigned i = SIM_INODES; i < SIM_SLOTS; i++) {
        const struct sim_record *record = state.slots[i];
        if (record && !record->damaged && !space_holds(space, places[record->lsn - 1], record->checksum))
            sim_fail("node %u has lost the block of record %llu", node, (unsigned long long)record->lsn);
    }
}

/* ---- Copies ---------------------------------------------------------------------------------------------------------- */

void disk_copy(struct disk *to, const struct disk *from) {
    *to = *from;
    grow(to, MAX(from->room, 1u));
    space_copy(&to->space, &from->space);
    space_own(&to->space);
    to->kept = sim_alloc((from->kept_room + 1) * sizeof *to->kept);
    if (from->kept_count)
        memcpy(to->kept, from->kept, from->kept_count * sizeof *to->kept);
    to->built = (struct sim_built){0};
    to->former = NULL;
    to->keep = to->full = to->slow = to->dies = to->hangs = to->hangs_all = false;
    to->drawn = sim_now();
    to->note_length = 0;
    draw(to->incarnation);
}

/* ---- Undone records, kept ------------------------------------------------------------------------------------------ */

bool disk_keeps(const struct disk *disk, const struct sim_record *record) {
    for (unsigned i = disk->kept_count; i > 0; i--)
        if (disk->kept[i - 1] == record)
            return true;
    return false;
}

void disk_keep(struct disk *disk, struct sim_record *record) {
    if (disk->kept_count == disk->kept_room) {
        unsigned room = MAX(64u, disk->kept_room * 2);
        struct sim_record **larger = sim_alloc(room * sizeof *larger);
        if (disk->kept_count)
            memcpy(larger, disk->kept, disk->kept_count * sizeof *larger);
        disk->kept = larger;
        disk->kept_room = room;
    }
    if (!disk_keeps(disk, record))
        disk->kept[disk->kept_count++] = record;
}
