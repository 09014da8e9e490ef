/* A store: a process's view of a disk, with an engine lock, a thread that makes records durable, and epochs, as fs/store.h
 * promises them.
 */
#include "fs/apply.h"
#include "fs/history.h"
#include "fs/table.h"
#include "fs/undone.h"
#include "tests/simulator/sim.h"

#include <pthread.h>
#include <stdio.h>

#define RECORD_ROOM 512u
#define BIG_ONE_IN 8u

struct store {
    struct disk *disk;
    unsigned node;
    struct store_watch watch;
    pthread_mutex_t lock; /* the engine lock; it guards the disk, too */
    pthread_cond_t work, synced;
    pthread_t syncer;
    epoch_t epoch; /* that records are appended in; 0: none */
    uint64_t wanted;
    uint64_t undos;
    bool undoing, stop;
    uint64_t hold_fed, hold_absent;
};

struct snapshot;

/* ---- A store --------------------------------------------------------------------------------------------------------- */

void store_lock(struct store *store) {
    PROMISE(pthread_mutex_lock(&store->lock) == 0);
}
void store_unlock(struct store *store) {
    PROMISE(pthread_mutex_unlock(&store->lock) == 0);
}
void store_set_watch(struct store *store, const struct store_watch *watch) {
    store->watch = *watch;
}
const uint8_t *store_incarnation(const struct store *store) {
    return store->disk->incarnation;
}
const char *store_path(const struct store *store) {
    (void)store;
    return "/nowhere";
}
uint64_t store_durable(const struct store *store) {
    uint64_t durable = store->disk->durable;
    if (world->stalls && sim_chance(30)) /* a word that is old when it is used */
        sim_sleep(sim_between(100 * US, 64 * SIM_MS));
    else
        sim_point();
    return durable;
}

static void position_of(const struct store *store, struct position *position) {
    const struct disk *disk = store->disk;
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

static int64_t sync_time(const struct disk *disk) {
    return disk->slow ? sim_between(20 * SIM_MS, 600 * SIM_MS) : sim_between(50 * US, 3 * SIM_MS);
}

static void trim(struct store *store) { /* lock held */
    struct disk *disk = store->disk;
    uint64_t to = MIN(MIN(store->hold_absent, store->hold_fed), disk->durable);
    if (!world->trims || store->hold_fed == UINT64_MAX || store->undoing || to < disk->first)
        return;
    disk->first += sim_below(to - disk->first + 2);
    world->counts.trimmed++;
    sim_trace("node %u trims its journal up to LSN %llu", store->node, (unsigned long long)disk->first - 1);
}

static void sync_once(struct store *store) { /* lock held */
    struct disk *disk = store->disk;
    uint64_t target = disk->lsn, undos = store->undos, hold = disk->hold;
    store_unlock(store);
    sim_sleep(sync_time(disk));
    if (disk->dies) {
        sim_trace("an fsync of node %u fails: its process ends", store->node);
        node_kill(store->node, false);
    }
    store_lock(store);
    if (undos != store->undos || store->undoing)
        return; /* what it made durable may be undone by now */
    disk->durable = MAX(disk->durable, target);
    disk->hold_synced = hold;
    trim(store);
    pthread_cond_broadcast(&store->synced);
    store_unlock(store);
    if (store->watch.durable)
        store->watch.durable(store->watch.context, target);
    store_lock(store);
}

static void *sync_thread(void *argument) {
    struct store *store = argument;
    store_lock(store);
    while (!store->stop) {
        int64_t next = sim_now() + sim_between(100 * SIM_MS, 2000 * SIM_MS); /* a checkpoint comes anyway */
        while (!store->stop && (store->wanted <= store->disk->durable || store->undoing) && sim_now() < next) {
            struct timespec until = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
            pthread_cond_timedwait(&store->work, &store->lock, &until);
        }
        if (!store->stop)
            sync_once(store);
    }
    store_unlock(store);
    return NULL;
}

void store_want_durable(struct store *store, uint64_t lsn) {
    store_lock(store);
    if (lsn > store->wanted) {
        store->wanted = lsn;
        pthread_cond_signal(&store->work);
    }
    store_unlock(store);
}

int store_sync(struct store *store, uint64_t lsn) {
    store_lock(store);
    lsn = MIN(lsn, store->disk->lsn);
    store->wanted = MAX(store->wanted, lsn);
    pthread_cond_signal(&store->work);
    while (store->disk->durable < lsn && !store->stop && store->wanted >= lsn)
        pthread_cond_wait(&store->synced, &store->lock);
    int rc = store->disk->durable >= lsn ? 0 : -EIO;
    store_unlock(store);
    return rc;
}

int store_model_open(struct disk *disk, unsigned node, struct store **out) {
    struct store *store = sim_alloc(sizeof *store);
    store->disk = disk;
    store->node = node;
    store->hold_fed = store->hold_absent = UINT64_MAX;
    PROMISE(pthread_create(&store->syncer, NULL, sync_thread, store) == 0);
    pthread_setname_np(store->syncer, "store");
    *out = store;
    return 0;
}

void store_model_close(struct store *store) {
    store_lock(store);
    store->stop = true;
    pthread_cond_broadcast(&store->work);
    pthread_cond_broadcast(&store->synced);
    store_unlock(store);
    pthread_join(store->syncer, NULL);
    store->disk->durable = store->disk->lsn;
    store->disk->hold_synced = store->disk->hold;
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
    const struct sim_record *record = entry->lsn <= store->disk->lsn ? store->disk->records[entry->lsn - 1] : NULL;
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
    disk_add(store->disk, record);
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
    const struct sim_record *last = disk_last(store->disk);
    const uint8_t *previous = last ? last->chain : none;
    record->head.lsn = store->disk->lsn + 1;
    record->head.epoch = epoch;
    record->head.time = clock_now();
    int length = record_encode(record, previous, buffer, sizeof buffer);
    PROMISE(length > 0);
    *out = disk_record(buffer, (size_t)length, previous, payload, record->head.payload, big);
    publish(store, *out);
    return 0;
}

int store_model_append(struct store *store, bool big, struct sim_record **out) {
    uint8_t payload[64], checksum[8];
    struct record record = {.head = {.type = RECORD_SETATTR, .ino = 1}, .flags = SET_MODE, .mode = 0644};
    if (big || sim_chance(3)) {
        uint32_t length = 8 * (1 + (uint32_t)sim_below(sizeof payload / 8));
        for (uint32_t i = 0; i < length; i++)
            payload[i] = (uint8_t)sim_random();
        uint64_t sum = block_checksum_part(payload, length);
        memcpy(checksum, &sum, sizeof checksum);
        record = (struct record){.head = {.type = RECORD_WRITE, .ino = 2, .payload = length, .blocks = 1},
                                 .size = length,
                                 .checksums = {checksum, sizeof checksum}};
    }
    store_lock(store);
    int rc = store->epoch == 0 ? -EROFS : store->disk->full ? -ENOSPC : 0;
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
    epoch_t newest = newest_epoch(store->disk);
    int rc = store->disk->full ? -ENOSPC : 0;
    if (rc == 0 && (epoch <= newest || EPOCH_COUNTER(epoch) == EPOCH_COUNTER(newest) || store->undoing))
        rc = store->undoing ? -EBUSY : -ERANGE;
    if (rc == 0) {
        check_started(store->node, epoch);
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
    const struct disk *disk = store->disk;
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
    static const uint8_t none[CHAIN_SIZE];
    struct record record;
    int rc = record_decode(bytes, length, &record, NULL);
    if (rc == 0)
        rc = payload_length == record.head.payload ? record_check_payload(&record, payload, payload_length) : -EBADMSG;
    if (rc)
        sim_fail("node %u receives a record that cannot be", store->node);
    store_lock(store);
    rc = store->disk->full ? -ENOSPC : receive_check(store, &record.head, bytes, length);
    if (rc == 0) {
        const struct sim_record *last = disk_last(store->disk);
        const uint8_t *previous = last ? last->chain : none;
        publish(store, disk_record(bytes, length, previous, payload, payload_length, sim_chance(BIG_ONE_IN)));
    }
    store_unlock(store);
    record_release(&record);
    return rc;
}

/* ---- Reading history ------------------------------------------------------------------------------------------------- */

int store_read(struct store *store, uint64_t lsn, struct entry **entry) {
    store_lock(store);
    const struct disk *disk = store->disk;
    int rc = lsn >= disk->first && lsn <= disk->lsn && lsn > 0 ? 0 : -ENOENT;
    if (rc == 0)
        *entry = make_entry(disk->records[lsn - 1]);
    store_unlock(store);
    return rc;
}

int store_chain_at(struct store *store, uint64_t lsn, uint8_t chain[CHAIN_SIZE]) {
    store_lock(store);
    const struct disk *disk = store->disk;
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

/* The epoch table, as far as primary.c asks it: the first epoch at or after a key. */
int cursor_open(struct cursor *cursor, struct store *store, struct snapshot *snapshot, enum table table) {
    if (snapshot || table != TABLE_EPOCH)
        sim_fail("a table is read that is not played");
    *cursor = (struct cursor){.store = store, .table = table};
    return 0;
}

int cursor_seek(struct cursor *cursor, const struct key *from) {
    static struct epoch_row row;
    const struct disk *disk = cursor->store->disk;
    epoch_t epoch = be64_get(from->bytes);
    for (uint64_t lsn = 1; lsn <= disk->lsn; lsn++) {
        const struct sim_record *record = disk->records[lsn - 1];
        if (!record->starts || record->epoch < epoch)
            continue;
        row.first = lsn;
        memcpy(row.chain, record->previous, CHAIN_SIZE);
        cursor->value = (struct span){(const uint8_t *)&row, sizeof row};
        return 0;
    }
    return -ENOENT;
}

void cursor_close(struct cursor *cursor) {
    (void)cursor;
}

/* What provide.c calls when it is asked, which nobody does here. */
static void not_played(const char *what) {
    sim_fail("%s is not played", what);
}
int cursor_next(struct cursor *cursor) {
    (void)cursor;
    not_played("cursor_next");
    return -ENOENT;
}
int history_open(struct store *store, uint64_t lsn, const uint8_t *chain, history_progress *progress, void *context,
                 struct store **past, char *why, size_t room) {
    (void)store, (void)lsn, (void)chain, (void)progress, (void)context, (void)past, (void)why, (void)room;
    not_played("history_open");
    return -ENOENT;
}
void history_close(struct store *past) {
    (void)past;
    not_played("history_close");
}
int history_error(const struct store *past, char *why, size_t room) {
    (void)past, (void)why, (void)room;
    not_played("history_error");
    return 0;
}
void history_position(const struct store *past, struct position *position) {
    (void)past, (void)position;
    not_played("history_position");
}
int store_space(struct store *store, struct store_space *space) {
    (void)store, (void)space;
    not_played("store_space");
    return 0;
}
bool store_place_valid(const struct store *store, struct place place) {
    (void)store, (void)place;
    not_played("store_place_valid");
    return false;
}
int store_read_blocks(struct store *store, struct place place, void *buffer) {
    (void)store, (void)place, (void)buffer;
    not_played("store_read_blocks");
    return -EIO;
}
int extent_walk(struct store *store, uint64_t data, uint64_t first, uint64_t count,
                int (*each)(void *context, const struct extent_part *part), void *context) {
    (void)store, (void)data, (void)first, (void)count, (void)each, (void)context;
    not_played("extent_walk");
    return 0;
}

void store_set_hold(struct store *store, uint64_t fed, uint64_t absent) {
    store_lock(store);
    if (absent > fed)
        sim_fail("node %u holds more for nodes that are away than for all", store->node);
    store->hold_fed = fed;
    store->hold_absent = absent;
    store_unlock(store);
}

int store_meta_get(struct store *store, const char *name, void *value, size_t room, size_t *length) {
    if (strcmp(name, "verify") == 0)
        return -ENOENT;
    if (strcmp(name, "hold") != 0 || room < sizeof store->disk->hold)
        sim_fail("meta %s is not played", name);
    *length = sizeof store->disk->hold;
    memcpy(value, &store->disk->hold, *length);
    return store->disk->hold ? 0 : -ENOENT;
}

int store_meta_put(struct store *store, const char *name, const void *value, size_t length) {
    if (strcmp(name, "hold") != 0 || length != sizeof store->disk->hold)
        sim_fail("meta %s is not played", name);
    if (store->disk->full)
        return -ENOSPC;
    memcpy(&store->disk->hold, value, length);
    return 0;
}

/* ---- Undo ------------------------------------------------------------------------------------------------------------ */

static int save(struct store *store, uint64_t lsn) {
    struct disk *disk = store->disk;
    struct position position;
    store_position(store, &position);
    if (lsn >= position.lsn)
        return -EINVAL;
    if (lsn + 1 < position.first)
        return -ENOENT;
    if (disk->full)
        return -ENOSPC;
    sim_sleep(sync_time(disk));
    if (disk->lsn != position.lsn)
        sim_fail("node %u gets records while it writes down what it will undo", store->node);
    for (uint64_t at = lsn + 1; at <= position.lsn; at++)
        disk_keep(disk, disk->records[at - 1]);
    return 0;
}

static void undo_last(struct store *store) { /* lock held */
    struct disk *disk = store->disk;
    struct sim_record *record = disk_last(disk);
    struct record decoded;
    if (!disk_keeps(disk, record))
        sim_fail("node %u undoes record %llu, which is kept nowhere", store->node, (unsigned long long)record->lsn);
    check_undone(store->node, record);
    disk_cut(disk, disk->lsn - 1);
    store->wanted = MIN(store->wanted, disk->lsn);
    store->undos++;
    world->counts.undone++;
    PROMISE(record_decode(record->bytes, record->length, &decoded, NULL) == 0);
    if (store->watch.undone)
        store->watch.undone(store->watch.context, &decoded);
    record_release(&decoded);
}

int store_undo(struct store *store, uint64_t lsn) {
    struct disk *disk = store->disk;
    store_lock(store);
    int rc = store->undoing || store->epoch ? -EBUSY : 0;
    if (rc == 0)
        store->undoing = true;
    store_unlock(store);
    if (rc)
        return rc;
    sim_sleep(sync_time(disk));
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
        pthread_cond_broadcast(&store->synced);
        store_unlock(store);
        do /* a full disk: until there is space */
            sim_sleep(sync_time(disk));
        while (disk->full);
        store_lock(store);
    }
    store_unlock(store);
    sim_sleep(sync_time(disk));
    store_lock(store);
    disk->undoing = store->undoing = false;
    store->undos++;
    store_unlock(store);
    return rc;
}

int store_rollback(struct store *store, uint64_t lsn, char *path, size_t room) {
    snprintf(path, room, "/nowhere/undone");
    int rc = save(store, lsn);
    return rc ? rc : store_undo(store, lsn);
}
