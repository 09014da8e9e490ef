/* Stores that are being built beside the one in use: what the real fs/import*.c needs below it (transactions, checkpoints,
 * segments), and fs/generation.h. A process that ends takes everything back that came since the last checkpoint, as LMDB
 * without syncing does; a commit that a full disk refuses takes back what came since the one before.
 */
#include "fs/generation.h"
#include "fs/import_internal.h"
#include "tests/simulator/sim.h"

#include <stdio.h>

#define COMMIT_EVERY (100 * SIM_MS)
#define CHECKPOINT_LOW (20 * SIM_MS)
#define CHECKPOINT_HIGH (500 * SIM_MS)

struct sim_builder {
    struct disk *disk;
    struct sim_image now, committed;
    pthread_t thread;
    bool dirty, unsaved;
    struct segment found; /* segment_find's answer */
};

/* ---- Paths ----------------------------------------------------------------------------------------------------------- */

void disk_path(unsigned node, char path[32]) {
    snprintf(path, 32, "/played/%u", node);
}

static unsigned node_of(const char *path) {
    unsigned node = SIM_NODES;
    if (sscanf(path, "/played/%u", &node) != 1 || node >= world->node_count)
        sim_fail("a store in %s is not played", path);
    return node;
}

struct disk *disk_of(const char *path) {
    return &world->nodes[node_of(path)].disk;
}

/* ---- How much work lies in it ---------------------------------------------------------------------------------------- */

static void count_work(const struct sim_image *image, uint64_t *rows, uint64_t *blocks) {
    *rows = *blocks = 0;
    for (unsigned i = 0; i < image->rows.count; i++) {
        const struct sim_row *row = image->rows.list[i];
        struct extent_row extent;
        bool kept = row->table == TABLE_META && row->key_length == 17 && row->key[0] == 'k'; /* fs/import_again.c */
        *rows += row->table == TABLE_INODE || row->table == TABLE_EPOCH;
        if (row->table != TABLE_EXTENT && !kept)
            continue;
        memcpy(&extent, row->value, sizeof extent);
        const struct sim_segment *segment = space_find(&image->space, extent.segment);
        if (segment && !segment->adopted)
            *blocks += extent.count;
    }
}

/* What there was goes back to `to`: work that is done again is not a mistake. */
static void note_lost(struct disk *disk, const struct sim_image *now, const struct sim_image *to) {
    uint64_t rows, blocks, rows_left, blocks_left;
    count_work(now, &rows, &blocks);
    count_work(to, &rows_left, &blocks_left);
    disk->built.lost_rows += rows - MIN(rows, rows_left);
    disk->built.lost_blocks += blocks - MIN(blocks, blocks_left) + STORE_PLACES_MAX;
}

/* ---- Transactions ---------------------------------------------------------------------------------------------------- */

struct sim_rows *built_rows(struct sim_builder *builder) {
    return &builder->now.rows;
}

struct sim_space *built_space(struct sim_builder *builder) {
    return &builder->now.space;
}

int built_change(struct store *store) {
    struct sim_builder *b = *store_builder(store);
    if (store->txn_broken || (b->disk->full && sim_chance(4)) || (!world->calm && sim_chance(world->refusals))) {
        store->txn_broken = true;
        return -ENOSPC;
    }
    store->batch_rows++;
    b->dirty = true;
    return 0;
}

/* Nothing is read in a broken transaction. */
void built_wait_mended(struct store *store) {
    while (store->txn_broken) {
        pthread_cond_signal(&store->work);
        pthread_cond_wait(&store->committed_cond, &store->lock);
    }
}

static void image_copy(struct sim_image *to, const struct sim_image *from) {
    *to = *from;
    rows_copy(&to->rows, &from->rows);
    space_copy(&to->space, &from->space);
}

static void note_position(struct sim_image *image, const struct store *store) {
    const struct position_row *row = &store->position;
    image->position = (struct position){.lsn = row->lsn, .epoch = row->epoch, .time = row->time, .first = row->first};
    memcpy(image->position.chain, row->chain, CHAIN_SIZE);
    image->live_blocks = row->live_blocks;
    image->inodes = row->inodes;
}

static void take_position_back(struct store *store, const struct sim_image *image) {
    store->position = (struct position_row){.lsn = image->position.lsn,
                                            .epoch = image->position.epoch,
                                            .time = image->position.time,
                                            .first = image->position.first,
                                            .live_blocks = image->live_blocks,
                                            .inodes = image->inodes};
    memcpy(store->position.chain, image->position.chain, CHAIN_SIZE);
}

/* Blocks that were handed out stay so; further links that no row knows go. */
static void take_back(struct store *store) {
    struct sim_builder *b = *store_builder(store);
    struct sim_space handed_out = b->now.space;
    uint32_t kept = 0;
    sim_trace("a commit is refused");
    world->counts.taken_back++;
    note_lost(b->disk, &b->now, &b->committed);
    image_copy(&b->now, &b->committed);
    b->now.space = handed_out;
    for (uint32_t i = 0; i < handed_out.count; i++)
        if (!handed_out.list[i].adopted || space_find(&b->committed.space, handed_out.list[i].number))
            handed_out.list[kept++] = handed_out.list[i];
    b->now.space.count = kept;
    take_position_back(store, &b->committed);
    store->mends++;
}

static void commit(struct store *store) { /* lock held */
    struct sim_builder *b = *store_builder(store);
    if (store->txn_broken || (b->dirty && b->disk->full && sim_chance(2)) ||
        (b->dirty && !world->calm && sim_chance(world->refusals / 8))) {
        take_back(store);
    } else if (b->dirty) {
        image_copy(&b->committed, &b->now);
        note_position(&b->committed, store);
        b->unsaved = true;
    }
    b->dirty = store->txn_broken = store->commit_wanted = false;
    store->batch_rows = 0;
    pthread_cond_broadcast(&store->committed_cond);
}

static void note_synced(const struct sim_space *space, const struct sim_space *before) {
    for (uint32_t i = 0; i < before->count; i++) {
        struct sim_file *file = space->list[i].file;
        for (unsigned block = 0; block < SIM_SEGMENT_BLOCKS; block++)
            file->synced[block] = file->synced[block] || file->blocks[block] == before->list[i].file->blocks[block];
    }
}

static void checkpoint(struct store *store) { /* lock held */
    struct sim_builder *b = *store_builder(store);
    struct sim_image saved;
    struct sim_space before;
    uint64_t ticket = store->checkpoint_wanted;
    image_copy(&saved, &b->committed);
    space_copy(&before, &saved.space);
    space_own(&before);
    store_unlock(store);
    sim_sleep(store_sync_time(b->disk));
    if (b->disk->dies) {
        sim_trace("an fsync of node %u fails: its process ends", store_node(store));
        node_kill(store_node(store), false);
    }
    PROMISE(pthread_mutex_lock(&store->lock) == 0); /* whatever was broken meanwhile: it is mended here */
    note_synced(&saved.space, &before);
    b->disk->built.saved = saved;
    b->unsaved = false;
    store->checkpoint_done = MAX(store->checkpoint_done, ticket);
    pthread_cond_broadcast(&store->committed_cond);
}

static void *builder_thread(void *argument) {
    struct store *store = argument;
    struct sim_builder *b = *store_builder(store);
    int64_t due = sim_now() + sim_between(CHECKPOINT_LOW, CHECKPOINT_HIGH);
    store_lock(store);
    while (!store->stop) {
        if (!store->commit_wanted && !store->txn_broken && store->checkpoint_wanted == store->checkpoint_done)
            sim_wait(&store->work, &store->lock, sim_now() + COMMIT_EVERY);
        bool wanted = store->checkpoint_wanted > store->checkpoint_done;
        commit(store);
        if (wanted || (sim_now() >= due && b->unsaved)) {
            checkpoint(store);
            due = sim_now() + sim_between(CHECKPOINT_LOW, CHECKPOINT_HIGH);
        }
    }
    commit(store);
    checkpoint(store);
    store_unlock(store);
    return NULL;
}

int built_checkpoint(struct store *store) {
    store_lock(store);
    uint64_t ticket = ++store->checkpoint_wanted;
    pthread_cond_signal(&store->work);
    while (store->checkpoint_done < ticket && !store->stop)
        pthread_cond_wait(&store->committed_cond, &store->lock);
    int rc = store->checkpoint_done >= ticket ? 0 : -EIO;
    store_unlock(store);
    return rc;
}

int admit_space(struct store *store, enum space_class class) {
    struct sim_builder *b = *store_builder(store);
    built_wait_mended(store);
    return b->disk->full && class == SPACE_GROW && sim_chance(2) ? -ENOSPC : 0;
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------------- */

int segment_adopt(struct store *store, const struct segments *others, uint32_t from, uint32_t *number) {
    struct sim_builder *b = *store_builder(store);
    struct sim_space *space = &b->now.space;
    const struct sim_segment *there = space_find(&b->disk->space, from);
    (void)others;
    if (!world->links)
        return -EXDEV;
    if (!there)
        return -ENOENT;
    *number = space->count ? space->list[space->count - 1].number + 1 : 1;
    struct sim_segment *segment = space_add(space, *number, there->file);
    segment->head = there->head;
    segment->adopted = true;
    b->dirty = true;
    world->counts.adopted++;
    return 0;
}

bool segments_shared(const struct segments *segments) {
    struct store *store = (struct store *)((uintptr_t)segments - offsetof(struct store, segments));
    const struct sim_builder *b = *store_builder(store);
    for (uint32_t i = 0; i < b->now.space.count; i++)
        for (uint32_t k = 0; k < b->disk->space.count; k++)
            if (b->now.space.list[i].file == b->disk->space.list[k].file)
                return true;
    return false;
}

struct segment *segment_find(struct segments *segments, uint32_t number) {
    struct store *store = (struct store *)((uintptr_t)segments - offsetof(struct store, segments));
    struct sim_builder *b = *store_builder(store);
    const struct sim_segment *segment = space_find(&b->now.space, number);
    b->found = (struct segment){.number = number, .head = segment ? segment->head : 0};
    return segment ? &b->found : NULL;
}

int store_allocate(struct store *store, uint32_t blocks, struct place places[STORE_PLACES_MAX], uint32_t *count) {
    struct sim_builder *b = *store_builder(store);
    if (b->disk->full && sim_chance(2))
        return -ENOSPC;
    for (*count = 0; blocks > 0 && *count < STORE_PLACES_MAX; ++*count) {
        places[*count] = space_take(&b->now.space, sim_chance(8) ? 1 : blocks);
        blocks -= places[*count].count;
    }
    b->dirty = true;
    return blocks ? -ENOSPC : 0;
}

int dead_add(struct store *store, struct place place) {
    struct key key = {.length = 8};
    be32_put(key.bytes, place.segment);
    be32_put(key.bytes + 4, place.position);
    struct dead_row row = {.count = place.count};
    store_disk(store)->built.lost_blocks += place.count;
    return table_put_raw(store, TABLE_DEAD, &key, &row, sizeof row);
}

void store_release(struct store *store, const struct place *places, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        dead_add(store, places[i]);
}

int segment_claim(struct store *store, struct place place) {
    return space_find(built_space(*store_builder(store)), place.segment) ? 0 : -EBADMSG;
}

void segment_mark(struct store *store, struct place place, bool big) {
    (void)store, (void)place, (void)big;
}

int store_write_blocks(struct store *store, const struct place *places, uint32_t count, const void *payload,
                       size_t length) {
    struct sim_builder *b = *store_builder(store);
    const uint8_t *at = payload;
    sim_sleep(sim_between(10 * US, 2 * SIM_MS));
    for (uint32_t i = 0; i < count; i++) {
        size_t take = MIN(length, (size_t)places[i].count * BATON_BLOCK);
        space_write(&b->now.space, places[i], at, take, false);
        b->disk->built.blocks += places[i].count;
        at += take;
        length -= take;
    }
    return 0;
}

/* ---- Opening and closing --------------------------------------------------------------------------------------------- */

int store_format_generation(const char *path, const char *base, const uint8_t volume[STORE_ID_SIZE], const char *name,
                            const struct store_options *options, char *why, size_t why_room) {
    struct disk *disk = disk_of(path);
    (void)base, (void)volume, (void)name, (void)options;
    sim_sleep(store_sync_time(disk));
    if (disk->full && sim_chance(2)) {
        snprintf(why, why_room, "the disk is full");
        return -ENOSPC;
    }
    disk->built.formatted = true;
    for (unsigned i = 0; i < STORE_ID_SIZE; i++)
        disk->built.incarnation[i] = (uint8_t)sim_random();
    return 0;
}

int store_open_generation(const char *path, const char *base, const struct store_options *options, struct store **out,
                          char *why, size_t why_room) {
    struct disk *disk = disk_of(path);
    (void)base, (void)options;
    if (!disk->built.there || !disk->built.formatted) {
        snprintf(why, why_room, "there is no store");
        return -ENOENT;
    }
    struct sim_builder *b = sim_alloc(sizeof *b);
    b->disk = disk;
    image_copy(&b->now, &disk->built.saved);
    image_copy(&b->committed, &b->now);
    struct store *store = store_model_make(disk, node_of(path));
    *store_builder(store) = b;
    take_position_back(store, &b->now);
    PROMISE(pthread_create(&b->thread, NULL, builder_thread, store) == 0);
    pthread_setname_np(b->thread, "builder");
    world->counts.resumed += b->now.rows.count > 0;
    disk->building = *out = store;
    return 0;
}

void store_close(struct store *store) {
    struct sim_builder *b = *store_builder(store);
    store_lock(store);
    store->stop = true;
    pthread_cond_broadcast(&store->work);
    store_unlock(store);
    pthread_join(b->thread, NULL);
    b->disk->building = NULL;
    sim_free(store);
    sim_free(b);
}

void built_kill(struct disk *disk) {
    if (disk->building)
        note_lost(disk, &(*store_builder(disk->building))->now, &disk->built.saved);
    disk->building = NULL;
}

/* ---- Generations (fs/generation.h) ----------------------------------------------------------------------------------- */

static void flush(const struct disk *disk) {
    sim_sleep(store_sync_time(disk) / 2);
}

void generation_base(const char *store, unsigned number, char base[PATH_MAX]) {
    snprintf(base, PATH_MAX, "%s/generation.%u", store, number);
}

int generation_current(const char *store, char base[PATH_MAX], unsigned *number) {
    const struct disk *disk = disk_of(store);
    generation_base(store, disk->generation, base);
    if (number)
        *number = disk->generation;
    return 0;
}

int generation_building(const char *store, unsigned *number, char line[NAME_MAX]) {
    const struct disk *disk = disk_of(store);
    if (!disk->built.there)
        return -ENOENT;
    *number = disk->built.number;
    snprintf(line, NAME_MAX, "%s", disk->built.line);
    return 0;
}

int generation_begin(const char *store, unsigned number, const char *line) {
    struct disk *disk = disk_of(store);
    if (disk->built.there)
        return -EEXIST;
    check_needed(node_of(store));
    flush(disk);
    disk->built = (struct sim_built){.there = true, .number = number};
    disk->built.saved.position.first = 1;
    flush(disk);
    snprintf(disk->built.line, sizeof disk->built.line, "%s", line);
    world->counts.begun++;
    sim_trace("node %u begins to build its store anew", node_of(store));
    return 0;
}

int generation_complete(const char *store, unsigned number) {
    struct disk *disk = disk_of(store);
    if (!disk->built.there || disk->built.number != number)
        return -ENOENT;
    flush(disk);
    disk->built.complete = true;
    flush(disk);
    return 0;
}

int generation_keep(const char *store, const char *name) {
    struct disk *disk = disk_of(store);
    flush(disk);
    disk->keep = name != NULL;
    disk->keep_number = disk->generation;
    flush(disk);
    return 0;
}

static void take_places(struct disk *disk, const struct sim_rows *rows, const struct sim_state *state) {
    for (unsigned i = rows_seek(rows, TABLE_EXTENT, "", 0); i < rows->count && rows->list[i]->table == TABLE_EXTENT; i++) {
        const struct sim_row *row = rows->list[i];
        struct extent_row extent;
        memcpy(&extent, row->value, sizeof extent);
        uint64_t slot = SIM_INODES + (be64_get(row->key) - 1) * SIM_FILE_BLOCKS + be64_get(row->key + 8);
        for (uint32_t k = 0; k < extent.count; k++)
            disk->places[state->slots[slot + k]->lsn - 1] = (struct place){extent.segment, extent.position + k, 1};
    }
}

static void punch_later(struct disk *disk, const struct sim_rows *rows) {
    disk->dead = (struct sim_rows){0};
    for (unsigned i = rows_seek(rows, TABLE_DEAD, "", 0); i < rows->count && rows->list[i]->table == TABLE_DEAD; i++)
        rows_put(&disk->dead, TABLE_DEAD, rows->list[i]->key, rows->list[i]->key_length, rows->list[i]->value,
                 rows->list[i]->length);
}

/* The new store is the one that there is. */
static void replace(struct disk *disk) {
    const struct sim_built *built = &disk->built;
    const struct position *position = &built->saved.position;
    struct sim_former *former = sim_alloc(sizeof *former);
    struct sim_state state;
    *former = (struct sim_former){.next = disk->former,
                                  .number = disk->generation,
                                  .last = disk_last(disk),
                                  .first = disk->first,
                                  .hold = disk->hold,
                                  .places = disk->places,
                                  .space = disk->space};
    state_at(disk_known(position->lsn, position->epoch), &state);
    struct disk new = *disk;
    memcpy(new.incarnation, built->incarnation, STORE_ID_SIZE);
    new.former = former;
    new.generation = built->number;
    new.lsn = new.durable = new.undo_synced = position->lsn;
    new.first = position->first;
    new.room = position->lsn + 256;
    new.records = sim_alloc(new.room * sizeof *new.records);
    new.places = sim_alloc(new.room * sizeof *new.places);
    for (struct sim_record *at = state.last; at; at = at->before)
        new.records[at->lsn - 1] = at;
    take_places(&new, &built->saved.rows, &state);
    punch_later(&new, &built->saved.rows);
    new.space = built->saved.space;
    for (uint32_t i = 0; i < new.space.count; i++)
        new.space.list[i].imported = new.space.list[i].head;
    const struct sim_row *hold = rows_get(&built->saved.rows, TABLE_META, "hold", 4);
    new.hold = new.hold_synced = 0;
    if (hold)
        memcpy(&new.hold, hold->value, sizeof new.hold);
    new.hold_synced = new.hold;
    new.drawn = sim_now();
    new.note_length = 0; /* another incarnation has another mark */
    new.built = (struct sim_built){0};
    *disk = new;
}

int generation_switch(const char *store) {
    struct disk *disk = disk_of(store);
    unsigned node = node_of(store);
    if (!disk->built.there || !disk->built.complete)
        return -ENOENT;
    flush(disk);
    check_built(node, &disk->built);
    sim_trace("node %u has another store now, at LSN %llu, instead of one at LSN %llu", node,
              (unsigned long long)disk->built.saved.position.lsn, (unsigned long long)disk->lsn);
    world->counts.rebuilt++;
    replace(disk);
    flush(disk);
    return 0;
}

int generation_lock(const char *store) {
    (void)store;
    return SIM_LOCK;
}

int generation_sweep(const char *store, bool keep_building) {
    struct disk *disk = disk_of(store);
    unsigned node = node_of(store);
    flush(disk);
    while (disk->former) {
        struct sim_former *former = disk->former;
        bool kept = disk->keep && disk->keep_number == former->number;
        check_replaced(node, former, kept);
        disk->former = former->next;
        if (kept) {
            former->next = disk->aside;
            disk->aside = former;
            disk->keep = false;
            world->counts.aside++;
        }
    }
    flush(disk);
    if (disk->built.there && !keep_building) {
        check_begun_anew(node);
        disk->built = (struct sim_built){0};
    }
    return 0;
}
