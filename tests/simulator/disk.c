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
    disk->dies = false;
}

void disk_power_cut(struct disk *disk) {
    disk_kill(disk);
    if (disk->lsn > disk->durable && !sim_chance(4))
        disk_cut(disk, disk->durable + sim_below(disk->lsn - disk->durable + 1));
    disk->durable = disk->lsn; /* what the next open finds it puts into its first checkpoint */
    disk->hold = disk->hold_synced;
    disk->drawn = sim_now();
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

/* The record that these bytes are. Two records of one LSN and epoch are one record, on every node. */
struct sim_record *disk_record(const void *bytes, size_t length, const uint8_t previous[CHAIN_SIZE],
                                    const void *payload, size_t payload_length, bool big) {
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
    return record;
}

void disk_add(struct disk *disk, struct sim_record *record) {
    if (disk->lsn == disk->room) {
        uint64_t room = MAX(256u, disk->room * 2);
        struct sim_record **larger = sim_alloc(room * sizeof *larger);
        if (disk->lsn)
            memcpy(larger, disk->records, disk->lsn * sizeof *larger);
        disk->records = larger;
        disk->room = room;
    }
    if (record->lsn != disk->lsn + 1)
        sim_fail("record %llu comes after record %llu", (unsigned long long)record->lsn, (unsigned long long)disk->lsn);
    disk->records[disk->lsn++] = record;
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
