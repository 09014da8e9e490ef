/* A store: a process's view of a disk, with an engine lock, a thread that makes records durable, and epochs, as fs/store.h
 * promises them.
 */
#include "fs/apply.h"
#include "fs/store_internal.h"
#include "fs/undone.h"
#include "tests/simulator/sim.h"

#include <stdio.h>

#define RECORD_ROOM 512u
#define BIG_ONE_IN 8u

/* The engine lock guards the disk, too. Of the real structure only what import*.c reads, and what is meant the same here. */
struct played {
    struct store store;
    struct disk *disk;
    unsigned node;
    char path[32];
    uint64_t wanted;
    struct sim_builder *builder;
    struct sim_past *past, *pasts;
};

static struct played *played(const struct store *store) {
    return (struct played *)(uintptr_t)store;
}
struct disk *store_disk(const struct store *store) {
    return played(store)->disk;
}
unsigned store_node(const struct store *store) {
    return played(store)->node;
}
struct sim_builder **store_builder(struct store *store) {
    return &played(store)->builder;
}
struct sim_past **store_pasts(struct store *store) {
    return &played(store)->pasts;
}
struct sim_past **store_past(struct store *store) {
    return &played(store)->past;
}

/* ---- A store --------------------------------------------------------------------------------------------------------- */

void store_lock(struct store *store) {
    PROMISE(pthread_mutex_lock(&store->lock) == 0);
    if (store->txn_broken)
        built_wait_mended(store);
}
void store_unlock(struct store *store) {
    PROMISE(pthread_mutex_unlock(&store->lock) == 0);
}
void store_set_watch(struct store *store, const struct store_watch *watch) {
    store->watch = *watch;
}
const uint8_t *store_incarnation(const struct store *store) {
    return played(store)->disk->incarnation;
}
const char *store_path(const struct store *store) {
    return played(store)->path;
}
void store_put_note(struct store *store, const void *bytes, size_t length) {
    struct disk *disk = played(store)->disk;
    PROMISE(length <= sizeof disk->note);
    sim_point();
    if (length)
        memcpy(disk->note, bytes, length);
    disk->note_length = length;
}
size_t store_get_note(const struct store *store, void *bytes, size_t room) {
    const struct disk *disk = played(store)->disk;
    memcpy(bytes, disk->note, MIN(disk->note_length, room));
    return disk->note_length;
}
uint64_t store_durable(const struct store *store) {
    uint64_t durable = played(store)->disk->durable;
    if (world->stalls && sim_chance(30)) /* a word that is old when it is used */
        sim_sleep(sim_between(100 * US, 64 * SIM_MS));
    else
        sim_point();
    return durable;
}

bool store_stalled(const struct store *store, int64_t patience) {
    (void)store, (void)patience;
    return false;
}

static void position_of(const struct store *store, struct position *position) {
    const struct disk *disk = played(store)->disk;
    if (played(store)->builder) {
        const struct position_row *row = &store->position;
        *position = (struct position){.lsn = row->lsn, .epoch = row->epoch, .time = row->time, .first = row->first};
        memcpy(position->chain, row->chain, CHAIN_SIZE);
        return;
    }
    const struct sim_record *last = disk_last(disk);
    *position = (struct position){
        .lsn = disk->lsn, .committed = disk->lsn, .durable = disk->durable, .first = disk->first};
    if (last) {
        position->epoch = last->epoch;
        position->time = last->time;
        memcpy(position->chain, last->chain, CHAIN_SIZE);
    }
}

void store_position(struct store *store, struct position *position) {
    store_lock(store);
    position_of(store, position);
    store_unlock(store);
}

/* ---- Making durable: one thread, as slow as the disk ------------------------------------------------------------------ */

int64_t store_sync_time(const struct disk *disk) {
    return disk->slow ? sim_between(20 * SIM_MS, 600 * SIM_MS) : sim_between(50 * US, 3 * SIM_MS);
}

static void trim(struct store *store) { /* lock held */
    struct disk *disk = played(store)->disk;
    struct sim_past *pasts = played(store)->pasts;
    uint64_t fed = MIN(store->hold, disk->durable), to = MIN(MIN(store->hold_absent, fed), pasts_lowest(pasts, false));
    uint64_t limit = world->journal_limit, has = disk->lsn + 1 - disk->first;
    if (!world->trims || store->hold == UINT64_MAX || store->undoing)
        return;
    if (limit && has > limit + 1 && (!world->calm || world->limited)) { /* who is away and who copies has to see how he gets on */
        to = MAX(to, MIN(fed, disk->lsn - limit));
        if (has <= limit + limit / 4)
            to = MIN(to, pasts_lowest(pasts, true));
    }
    if (to < disk->first)
        return;
    disk_trim(disk, world->limited ? to + 1 : disk->first + sim_below(to - disk->first + 2));
    world->counts.trimmed++;
    sim_trace("node %u trims its journal up to LSN %llu", played(store)->node, (unsigned long long)disk->first - 1);
}

static void sync_once(struct store *store) { /* lock held */
    struct disk *disk = played(store)->disk;
    uint64_t target = disk->lsn, undos = store->undone, hold = disk->hold;
    store_unlock(store);
    do
        sim_sleep(store_sync_time(disk));
    while (disk->hangs && !store->stop);
    if (disk->dies) {
        sim_trace("an fsync of node %u fails: its process ends", played(store)->node);
        node_kill(played(store)->node, false);
    }
    store_lock(store);
    if (undos != store->undone || store->undoing)
        return; /* what it made durable may be undone by now */
    disk->durable = MAX(disk->durable, target);
    disk->hold_synced = hold;
    trim(store);
    pthread_cond_broadcast(&store->sync_done);
    store_unlock(store);
    if (store->watch.durable)
        store->watch.durable(store->watch.context, target);
    store_lock(store);
}

static void *sync_thread(void *argument) {
    struct store *store = argument;
    store_lock(store);
    while (!store->stop) {
        /* A checkpoint comes anyway; where the limit counts, the journal is trimmed as often as by fs/store_commit.c. */
        int64_t next = sim_now() + (world->limited ? 100 * SIM_MS : sim_between(100 * SIM_MS, 2000 * SIM_MS));
        while (!store->stop && (played(store)->wanted <= played(store)->disk->durable || store->undoing) && sim_now() < next)
            sim_wait(&store->work, &store->lock, next);
        if (!store->stop)
            sync_once(store);
    }
    store_unlock(store);
    return NULL;
}

void store_want_durable(struct store *store, uint64_t lsn) {
    store_lock(store);
    if (lsn > played(store)->wanted) {
        played(store)->wanted = lsn;
        pthread_cond_signal(&store->work);
    }
    store_unlock(store);
}

int store_sync(struct store *store, uint64_t lsn) {
    store_lock(store);
    lsn = MIN(lsn, played(store)->disk->lsn);
    played(store)->wanted = MAX(played(store)->wanted, lsn);
    pthread_cond_signal(&store->work);
    while (played(store)->disk->durable < lsn && !store->stop && played(store)->wanted >= lsn)
        pthread_cond_wait(&store->sync_done, &store->lock);
    int rc = played(store)->disk->durable >= lsn ? 0 : -EIO;
    store_unlock(store);
    return rc;
}

struct store *store_model_make(struct disk *disk, unsigned node) {
    struct played *made = sim_alloc(sizeof *made);
    made->disk = disk;
    made->node = node;
    disk_path(node, made->path);
    made->store.path = made->store.base = made->path;
    made->store.segments.blocks = SIM_SEGMENT_BLOCKS;
    return &made->store;
}

/* What the new store did not take over of shared segments. */
static void punch(struct disk *disk) {
    for (unsigned i = 0; i < disk->dead.count; i++) {
        const struct sim_row *row = disk->dead.list[i];
        struct dead_row dead;
        memcpy(&dead, row->value, sizeof dead);
        struct place place = {be32_get(row->key), be32_get(row->key + 4), dead.count};
        struct sim_block **block = space_block(&disk->space, place);
        for (uint32_t k = 0; block && k < place.count; k++)
            block[k] = NULL;
    }
    disk->dead.count = 0;
}

static void note_position(struct store *store) { /* import*.c looks at it */
    const struct disk *disk = played(store)->disk;
    const struct sim_record *last = disk_last(disk);
    store->position.lsn = disk->lsn;
    store->position.epoch = last ? last->epoch : 0;
}

int store_model_open(struct disk *disk, unsigned node, struct store **out) {
    struct store *store = store_model_make(disk, node);
    memcpy(store->incarnation, disk->incarnation, STORE_ID_SIZE);
    store->hold = store->hold_absent = UINT64_MAX;
    note_position(store);
    punch(disk);
    PROMISE(pthread_create(&store->syncer, NULL, sync_thread, store) == 0);
    pthread_setname_np(store->syncer, "store");
    *out = store;
    return 0;
}

void store_model_close(struct store *store) {
    store_lock(store);
    store->stop = true;
    pthread_cond_broadcast(&store->work);
    pthread_cond_broadcast(&store->sync_done);
    store_unlock(store);
    pthread_join(store->syncer, NULL);
    played(store)->disk->durable = played(store)->disk->lsn;
    played(store)->disk->hold_synced = played(store)->disk->hold;
}

/* ---- Appending and receiving ----------------------------------------------------------------------------------------- */

struct entry *entry_get(struct entry *entry) {
    entry->references++;
    return entry;
}
void entry_put(struct entry *entry) {
    if (entry && --entry->references == 0)
        free(entry);
}

static struct entry *make_entry(const struct sim_record *record) {
    struct entry *entry = calloc(1, sizeof *entry);
    PROMISE(entry);
    entry->lsn = record->lsn;
    entry->references = 1;
    entry->length = record->length;
    entry->bytes = record->bytes;
    entry->payload = record->big ? NULL : record->payload;
    return entry;
}

int entry_payload(struct store *store, const struct entry *entry, void *buffer) {
    store_lock(store);
    const struct sim_record *record = entry->lsn <= played(store)->disk->lsn ? played(store)->disk->records[entry->lsn - 1] : NULL;
    int rc = record && record->bytes == entry->bytes ? 0 : -EIO;
    if (rc == 0 && record->payload_length)
        memcpy(buffer, record->payload, record->payload_length);
    store_unlock(store);
    if (entry->payload == NULL)
        sim_sleep(sim_between(10 * US, 1 * SIM_MS)); /* from a segment */
    return rc;
}

static void publish(struct store *store, struct sim_record *record) { /* lock held */
    struct record decoded;
    disk_add(played(store)->disk, record);
    note_position(store);
    if (!store->watch.applied)
        return;
    PROMISE(record_decode(record->bytes, record->length, &decoded, NULL) == 0);
    struct entry *entry = make_entry(record);
    store->watch.applied(store->watch.context, &decoded, entry);
    entry_put(entry);
    record_release(&decoded);
}

static int append(struct store *store, epoch_t epoch, struct record *record, const void *payload, bool big,
                  struct sim_record **out) { /* lock held */
    static const uint8_t none[CHAIN_SIZE];
    uint8_t buffer[RECORD_ROOM];
    struct sim_record *last = disk_last(played(store)->disk);
    const uint8_t *previous = last ? last->chain : none;
    record->head.lsn = played(store)->disk->lsn + 1;
    record->head.epoch = epoch;
    record->head.time = clock_now();
    int length = record_encode(record, previous, buffer, sizeof buffer);
    PROMISE(length > 0);
    *out = disk_record(buffer, (size_t)length, last, payload, record->head.payload, big);
    publish(store, *out);
    return 0;
}

int store_model_append(struct store *store, bool big, struct sim_record **out) {
    uint8_t payload[64], checksum[8];
    struct disk *disk = played(store)->disk;
    struct record record = {
        .head = {.type = RECORD_SETATTR, .ino = 1 + sim_below(SIM_INODES)}, .flags = SET_MODE, .mode = 0644};
    if (big || sim_chance(3)) {
        uint32_t length = 8 * (1 + (uint32_t)sim_below(sizeof payload / 8));
        for (uint32_t i = 0; i < length; i++)
            payload[i] = (uint8_t)sim_random();
        uint64_t sum = block_checksum_part(payload, length);
        memcpy(checksum, &sum, sizeof checksum);
        unsigned block = sim_chance(2) ? disk->last_block + 1 : (unsigned)sim_random();
        block = disk->last_block = block % (SIM_FILES * SIM_FILE_BLOCKS);
        uint64_t first = block % SIM_FILE_BLOCKS;
        record = (struct record){.head = {.type = RECORD_WRITE, .ino = 1 + block / SIM_FILE_BLOCKS, .payload = length,
                                          .blocks = 1},
                                 .first = first,
                                 .size = first * BATON_BLOCK + length,
                                 .checksums = {checksum, sizeof checksum}};
    }
    store_lock(store);
    int rc = store->epoch == 0 ? -EROFS : played(store)->disk->full ? -ENOSPC : 0;
    if (rc == 0)
        rc = append(store, store->epoch, &record, payload, big, out);
    store_unlock(store);
    return rc;
}

static epoch_t newest_epoch(const struct disk *disk) {
    const struct sim_record *last = disk_last(disk);
    return last ? last->epoch : 0; /* epochs grow along a history */
}

int store_start_epoch(struct store *store, epoch_t epoch, const char *node) {
    struct record record = {.head = {.type = RECORD_EPOCH}, .name = {(const uint8_t *)node, (uint32_t)strlen(node)}};
    struct sim_record *made;
    store_lock(store);
    epoch_t newest = newest_epoch(played(store)->disk);
    int rc = played(store)->disk->full ? -ENOSPC : 0;
    if (rc == 0 && (epoch <= newest || EPOCH_COUNTER(epoch) == EPOCH_COUNTER(newest) || store->undoing))
        rc = store->undoing ? -EBUSY : -ERANGE;
    if (rc == 0) {
        check_started(played(store)->node, epoch);
        rc = append(store, epoch, &record, NULL, false, &made);
        store->epoch = epoch;
    }
    store_unlock(store);
    return rc;
}

void store_stop_epoch(struct store *store) {
    store_lock(store);
    store->epoch = 0;
    store_unlock(store);
}

/* Of fs/store_append.c, where nothing has been trimmed. */
static int receive_check(const struct store *store, const struct record_head *head, const uint8_t *bytes, size_t length) {
    static const uint8_t none[CHAIN_SIZE];
    const struct disk *disk = played(store)->disk;
    const struct sim_record *last = disk_last(disk);
    uint8_t chain[CHAIN_SIZE];
    if (store->epoch || store->undoing)
        return -EROFS;
    if (head->lsn <= disk->lsn)
        return memcmp(disk->records[head->lsn - 1]->chain, head->chain, CHAIN_SIZE) == 0 ? -EEXIST : -ESTALE;
    record_chain(last ? last->chain : none, bytes, length, chain);
    epoch_t epoch = last ? last->epoch : 0;
    if (head->type == RECORD_EPOCH ? head->epoch <= epoch : head->epoch != epoch)
        return -ESTALE;
    return head->lsn == disk->lsn + 1 && memcmp(chain, head->chain, CHAIN_SIZE) == 0 ? 0 : -ESTALE;
}

int store_receive(struct store *store, const void *bytes, size_t length, const void *payload, size_t payload_length) {
    struct record record;
    int rc = record_decode(bytes, length, &record, NULL);
    if (rc == 0)
        rc = payload_length == record.head.payload ? record_check_payload(&record, payload, payload_length) : -EBADMSG;
    if (rc)
        sim_fail("node %u receives a record that cannot be", played(store)->node);
    if (world->takes[played(store)->node])
        sim_sleep(world->takes[played(store)->node]);
    while (played(store)->disk->hangs_all)
        sim_sleep(10 * SIM_MS);
    store_lock(store);
    rc = played(store)->disk->full ? -ENOSPC : receive_check(store, &record.head, bytes, length);
    if (rc == 0) {
        struct sim_record *last = disk_last(played(store)->disk);
        publish(store, disk_record(bytes, length, last, payload, payload_length, sim_chance(BIG_ONE_IN)));
    }
    store_unlock(store);
    record_release(&record);
    return rc;
}

/* ---- Reading history ------------------------------------------------------------------------------------------------- */

int store_read(struct store *store, uint64_t lsn, struct entry **entry) {
    store_lock(store);
    const struct disk *disk = played(store)->disk;
    int rc = lsn >= disk->first && lsn <= disk->lsn && lsn > 0 ? 0 : -ENOENT;
    if (rc == 0)
        *entry = make_entry(disk->records[lsn - 1]);
    store_unlock(store);
    return rc;
}

int store_chain_at(struct store *store, uint64_t lsn, uint8_t chain[CHAIN_SIZE]) {
    store_lock(store);
    const struct disk *disk = played(store)->disk;
    int rc = 0;
    if (lsn > disk->lsn)
        rc = -ENOENT;
    else if (lsn + 1 < disk->first && !disk->records[lsn]->starts) /* the epoch table knows where epochs begin */
        rc = -ENOENT;
    else if (lsn == 0)
        memset(chain, 0, CHAIN_SIZE);
    else
        memcpy(chain, disk->records[lsn - 1]->chain, CHAIN_SIZE);
    store_unlock(store);
    return rc;
}

/* ---- Blocks of the store in use ---- */

/* A record counts as SIM_RECORD bytes of the journal. */
#define SIM_RECORD 150u
void store_journal(struct store *store, struct store_journal *journal) {
    store_lock(store);
    const struct disk *disk = played(store)->disk;
    *journal = (struct store_journal){.bytes = SIM_RECORD * (disk->lsn + 1 - disk->first),
                                      .limit = world->journal_limit ? SIM_RECORD * world->journal_limit : 1ull << 40,
                                      .made = SIM_RECORD * disk->lsn,
                                      .first = disk->first,
                                      .last = disk->lsn};
    store_unlock(store);
}

int store_space(struct store *store, struct store_space *space) {
    struct sim_state state;
    *space = (struct store_space){0};
    store_lock(store);
    state_at(disk_last(played(store)->disk), &state);
    for (unsigned i = 0; i < SIM_SLOTS; i++) {
        space->inodes += i < SIM_INODES && state.slots[i];
        space->live += i >= SIM_INODES && state.slots[i] ? BATON_BLOCK : 0;
    }
    space->rows[TABLE_INODE] = space->inodes;
    space->free = played(store)->disk->full ? 0 : 1u << 30;
    store_unlock(store);
    return 0;
}

bool store_place_valid(const struct store *store, struct place place) {
    (void)store;
    return place.segment > 0 && place.position < SIM_SEGMENT_BLOCKS && place.count <= SIM_SEGMENT_BLOCKS - place.position;
}

int store_read_blocks(struct store *store, struct place place, void *buffer) {
    struct sim_block **block = space_block(&played(store)->disk->space, place);
    if (!block)
        return -ENOENT;
    memset(buffer, 0, (size_t)place.count * BATON_BLOCK);
    for (uint32_t i = 0; i < place.count; i++)
        if (block[i])
            memcpy((uint8_t *)buffer + (size_t)i * BATON_BLOCK, block[i]->bytes, block[i]->length);
    sim_point();
    return 0;
}

int store_checkpoint(struct store *store) {
    if (played(store)->builder)
        return built_checkpoint(store);
    return store_sync(store, UINT64_MAX);
}

void store_set_hold(struct store *store, uint64_t fed, uint64_t absent) {
    store_lock(store);
    if (absent > fed)
        sim_fail("node %u holds more for nodes that are away than for all", played(store)->node);
    store->hold = fed;
    store->hold_absent = absent;
    store_unlock(store);
}

int store_meta_get(struct store *store, const char *name, void *value, size_t room, size_t *length) {
    if (strcmp(name, "verify") == 0)
        return -ENOENT;
    if (strcmp(name, "hold") != 0 || room < sizeof played(store)->disk->hold)
        sim_fail("meta %s is not played", name);
    *length = sizeof played(store)->disk->hold;
    memcpy(value, &played(store)->disk->hold, *length);
    return played(store)->disk->hold ? 0 : -ENOENT;
}

int store_meta_put(struct store *store, const char *name, const void *value, size_t length) {
    if (played(store)->builder) {
        struct key key = {.length = (uint16_t)strlen(name)};
        memcpy(key.bytes, name, key.length);
        return table_put_raw(store, TABLE_META, &key, value, length);
    }
    if (strcmp(name, "hold") != 0 || length != sizeof played(store)->disk->hold)
        sim_fail("meta %s is not played", name);
    if (played(store)->disk->full)
        return -ENOSPC;
    memcpy(&played(store)->disk->hold, value, length);
    return 0;
}

/* ---- Undo ------------------------------------------------------------------------------------------------------------ */

/* A record of the tail, or its data, cannot be read: now and then, where stores are built anew. */
static bool tail_unreadable(struct disk *disk) {
    bool now = world->copying && sim_chance(4);
    disk->unreadable = disk->unreadable || now;
    return now;
}

int undone_save(struct store *store, uint64_t lsn, char *path, size_t room) {
    struct disk *disk = played(store)->disk;
    struct position position;
    snprintf(path, room, "/played/undone");
    store_position(store, &position);
    if (lsn >= position.lsn)
        return -EINVAL;
    if (lsn + 1 < position.first)
        return -ENOENT;
    if (disk->full)
        return -ENOSPC;
    if (tail_unreadable(disk))
        return -EBADMSG;
    sim_sleep(store_sync_time(disk));
    if (disk->lsn != position.lsn)
        sim_fail("node %u gets records while it writes down what it will undo", played(store)->node);
    for (uint64_t at = lsn + 1; at <= position.lsn; at++)
        disk_keep(disk, disk->records[at - 1]);
    return 0;
}

int undone_check(struct store *store, uint64_t lsn) {
    struct disk *disk = played(store)->disk;
    return disk->lsn > lsn && tail_unreadable(disk) ? -EBADMSG : 0; /* what is not there is not read */
}

static void undo_last(struct store *store) { /* lock held */
    struct disk *disk = played(store)->disk;
    struct sim_record *record = disk_last(disk);
    struct record decoded;
    if (!disk_keeps(disk, record))
        sim_fail("node %u undoes record %llu, which is kept nowhere", played(store)->node, (unsigned long long)record->lsn);
    check_undone(played(store)->node, record, disk->hold);
    disk_cut(disk, disk->lsn - 1);
    note_position(store);
    played(store)->wanted = MIN(played(store)->wanted, disk->lsn);
    store->undone++;
    world->counts.undone++;
    PROMISE(record_decode(record->bytes, record->length, &decoded, NULL) == 0);
    if (store->watch.undone)
        store->watch.undone(store->watch.context, &decoded);
    record_release(&decoded);
}

int store_undo(struct store *store, uint64_t lsn) {
    struct disk *disk = played(store)->disk;
    store_lock(store);
    int rc = store->undoing || store->epoch ? -EBUSY : 0;
    if (rc == 0)
        store->undoing = true;
    store_unlock(store);
    if (rc)
        return rc;
    sim_sleep(store_sync_time(disk));
    store_lock(store);
    if (lsn > disk->lsn || lsn + 1 < disk->first)
        rc = lsn > disk->lsn ? -EINVAL : -ENOENT;
    disk->durable = disk->lsn;
    disk->undo_synced = disk->lsn;
    disk->undoing = rc == 0;
    while (rc == 0 && disk->lsn > lsn) {
        for (uint64_t steps = 1 + sim_below(8); steps > 0 && disk->lsn > lsn; steps--)
            undo_last(store);
        if (sim_chance(4))
            disk->undo_synced = disk->lsn;
        pthread_cond_broadcast(&store->sync_done);
        store_unlock(store);
        do /* a full disk: until there is space */
            sim_sleep(store_sync_time(disk));
        while (disk->full);
        store_lock(store);
    }
    store_unlock(store);
    sim_sleep(store_sync_time(disk));
    store_lock(store);
    disk->undoing = store->undoing = false;
    store->undone++;
    store_unlock(store);
    return rc;
}

int store_rollback(struct store *store, uint64_t lsn, char *path, size_t room) {
    int rc = undone_save(store, lsn, path, room);
    return rc ? rc : store_undo(store, lsn);
}
