/* Rows. Those of a store that is being built are kept as such; those of a state are made from the records that lead to it:
 * an inode's row names the record that set it, so that rows of two states never look alike.
 */
#include "fs/apply.h"
#include "fs/import_internal.h"
#include "tests/simulator/sim.h"

#include <sys/stat.h>

/* ---- Lists of rows --------------------------------------------------------------------------------------------------- */

static int compare(const struct sim_row *row, unsigned table, const void *key, size_t length) {
    if (row->table != table)
        return row->table < table ? -1 : 1;
    int rc = memcmp(row->key, key, MIN((size_t)row->key_length, length));
    return rc ? rc : row->key_length < length ? -1 : row->key_length > length;
}

unsigned rows_seek(const struct sim_rows *rows, unsigned table, const void *key, size_t length) {
    unsigned low = 0, high = rows->count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (compare(rows->list[middle], table, key, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct sim_row *rows_get(const struct sim_rows *rows, unsigned table, const void *key, size_t length) {
    unsigned at = rows_seek(rows, table, key, length);
    return at < rows->count && compare(rows->list[at], table, key, length) == 0 ? rows->list[at] : NULL;
}

void rows_put(struct sim_rows *rows, unsigned table, const void *key, size_t key_length, const void *value, size_t length) {
    struct sim_row *row = sim_alloc(sizeof *row + length);
    unsigned at = rows_seek(rows, table, key, key_length);
    if (key_length > sizeof row->key)
        sim_fail("a key of %zu bytes is not played", key_length);
    row->table = (uint8_t)table;
    row->key_length = (uint8_t)key_length;
    row->length = (uint32_t)length;
    memcpy(row->key, key, key_length);
    memcpy(row->value, value, length);
    if (at < rows->count && compare(rows->list[at], table, key, key_length) == 0) {
        rows->list[at] = row;
        return;
    }
    if (rows->count == rows->room) {
        unsigned room = MAX(64u, rows->room * 2);
        struct sim_row **larger = sim_alloc(room * sizeof *larger);
        if (rows->count)
            memcpy(larger, rows->list, rows->count * sizeof *larger);
        if (rows->list)
            sim_free(rows->list);
        rows->list = larger;
        rows->room = room;
    }
    memmove(rows->list + at + 1, rows->list + at, (rows->count++ - at) * sizeof *rows->list);
    rows->list[at] = row;
}

bool rows_remove(struct sim_rows *rows, unsigned table, const void *key, size_t length) {
    unsigned at = rows_seek(rows, table, key, length);
    if (at == rows->count || compare(rows->list[at], table, key, length) != 0)
        return false;
    memmove(rows->list + at, rows->list + at + 1, (--rows->count - at) * sizeof *rows->list);
    return true;
}

void rows_copy(struct sim_rows *to, const struct sim_rows *from) {
    *to = *from;
    to->list = sim_alloc((from->room + 1) * sizeof *to->list);
    if (from->count)
        memcpy(to->list, from->list, from->count * sizeof *to->list);
}

/* ---- The rows of a state --------------------------------------------------------------------------------------------- */

static void put_epochs(const struct sim_state *state, struct sim_rows *rows) {
    for (const struct sim_record *at = state->last ? state->last->begins : NULL; at;
         at = at->before ? at->before->begins : NULL) {
        struct key key = key_u64(at->epoch);
        struct epoch_row row = {.first = at->lsn};
        memcpy(row.chain, at->previous, CHAIN_SIZE);
        rows_put(rows, TABLE_EPOCH, key.bytes, key.length, &row, sizeof row);
    }
}

static void put_inodes(const struct sim_state *state, struct sim_rows *rows) {
    for (unsigned i = 0; i < SIM_INODES; i++) {
        const struct sim_record *record = state->slots[i];
        struct key key = key_u64(i + 1);
        struct inode_row row = {.mode = S_IFREG | 0600};
        if (!record)
            continue;
        _Static_assert(sizeof row.data + sizeof row.parent == CHAIN_SIZE, "the record's name fits");
        memcpy(&row.data, record->chain, sizeof row.data);
        memcpy(&row.parent, record->chain + sizeof row.data, sizeof row.parent);
        rows_put(rows, TABLE_INODE, key.bytes, key.length, &row, sizeof row);
    }
}

#define EXTENT_MOST 5u /* blocks: some lie in rows with others, some do not */

static void put_extents(const struct sim_state *state, const struct place *places, unsigned file, struct sim_rows *rows) {
    struct sim_record *const *blocks = state->slots + SIM_INODES + file * SIM_FILE_BLOCKS;
    for (unsigned first = 0, end; first < SIM_FILE_BLOCKS; first = end) {
        struct {
            struct extent_row row;
            uint64_t checksums[EXTENT_MOST];
        } __attribute__((packed)) value = {0};
        end = first + 1;
        if (!blocks[first])
            continue;
        struct place place = places[blocks[first]->lsn - 1];
        value.checksums[0] = blocks[first]->checksum;
        while (end < SIM_FILE_BLOCKS && end - first < EXTENT_MOST && blocks[end]) {
            struct place next = places[blocks[end]->lsn - 1];
            if (next.segment != place.segment || next.position != place.position + (end - first))
                break;
            value.checksums[end - first] = blocks[end]->checksum;
            end++;
        }
        value.row = (struct extent_row){place.segment, place.position, end - first};
        struct key key = key_u64_u64(file + 1, first);
        rows_put(rows, TABLE_EXTENT, key.bytes, key.length, &value, sizeof value.row + (end - first) * 8);
    }
}

void rows_of_state(const struct sim_state *state, const struct place *places, unsigned tables, struct sim_rows *rows) {
    *rows = (struct sim_rows){0};
    if (tables & SIM_TABLE(TABLE_EPOCH))
        put_epochs(state, rows);
    if (tables & SIM_TABLE(TABLE_INODE))
        put_inodes(state, rows);
    if (tables & SIM_TABLE(TABLE_EXTENT))
        for (unsigned file = 0; file < SIM_FILES; file++)
            put_extents(state, places, file, rows);
}

/* ---- Cursors (fs/table.h) -------------------------------------------------------------------------------------------- */

struct walk {
    const struct sim_rows *rows;
    struct sim_rows own; /* of a store in use: made for this cursor */
    unsigned at;
};

int cursor_open(struct cursor *cursor, struct store *store, struct snapshot *snapshot, enum table table) {
    struct disk *disk = store_disk(store);
    struct sim_state state = {0};
    int error = 0;
    (void)snapshot; /* nothing is read of a store that moves on meanwhile */
    struct walk *walk = sim_alloc(sizeof *walk);
    *cursor = (struct cursor){.mdb = walk, .store = store, .table = table};
    if (*store_past(store)) {
        walk->rows = past_rows(*store_past(store), &error);
    } else if (*store_builder(store)) {
        walk->rows = built_rows(*store_builder(store));
    } else if (table == TABLE_EPOCH || table == TABLE_EXTENT) {
        walk->rows = &walk->own;
        if (table == TABLE_EXTENT)
            state_at(disk_last(disk), &state);
        else
            state.last = disk_last(disk);
        rows_of_state(&state, disk->places, SIM_TABLE(table), &walk->own);
    } else {
        sim_fail("a table is read that is not played");
    }
    if (error)
        cursor_close(cursor);
    return error;
}

static int show(struct cursor *cursor, struct walk *walk, bool there) {
    const struct sim_row *row = there ? walk->rows->list[walk->at] : NULL;
    if (!row || row->table != cursor->table)
        return -ENOENT;
    cursor->key = (struct span){row->key, row->key_length};
    cursor->value = (struct span){row->value, row->length};
    return 0;
}

int cursor_seek(struct cursor *cursor, const struct key *key) {
    struct walk *walk = cursor->mdb;
    walk->at = rows_seek(walk->rows, cursor->table, key->bytes, key->length);
    return show(cursor, walk, walk->at < walk->rows->count);
}

static int step_back(struct cursor *cursor, struct walk *walk) {
    if (walk->at == 0)
        return -ENOENT;
    walk->at--;
    return show(cursor, walk, true);
}

int cursor_seek_before(struct cursor *cursor, const struct key *key) {
    struct walk *walk = cursor->mdb;
    walk->at = rows_seek(walk->rows, cursor->table, key->bytes, key->length);
    return step_back(cursor, walk);
}

int cursor_next(struct cursor *cursor) {
    struct walk *walk = cursor->mdb;
    return show(cursor, walk, ++walk->at < walk->rows->count);
}

int cursor_previous(struct cursor *cursor) {
    return step_back(cursor, cursor->mdb);
}

void cursor_close(struct cursor *cursor) {
    sim_free(cursor->mdb);
    cursor->mdb = NULL;
}

int store_snapshot(struct store *store, struct snapshot **snapshot) {
    *snapshot = sim_alloc(sizeof **snapshot);
    (*snapshot)->store = store;
    return 0;
}

void snapshot_close(struct snapshot *snapshot) {
    if (snapshot)
        sim_free(snapshot);
}

/* ---- Rows of a store that is being built (fs/table.h, fs/store_internal.h) ------------------------------------------- */

static struct sim_rows *rows_of(struct store *store) {
    if (!*store_builder(store))
        sim_fail("rows are changed that are not played");
    return built_rows(*store_builder(store));
}

int table_get(struct store *store, enum table table, const struct key *key, struct span *value) {
    const struct sim_row *row = rows_get(rows_of(store), table, key->bytes, key->length);
    if (row)
        *value = (struct span){row->value, row->length};
    return row ? 0 : -ENOENT;
}

int table_put_raw(struct store *store, enum table table, const struct key *key, const void *value, size_t length) {
    int rc = built_change(store);
    store_disk(store)->built.rows += rc == 0 && (table == TABLE_INODE || table == TABLE_EPOCH);
    world->counts.kept_blocks += table == TABLE_META && key->length == 17 && key->bytes[0] == 'k';
    if (rc == 0)
        rows_put(rows_of(store), table, key->bytes, key->length, value, length);
    return rc;
}

int table_remove_raw(struct store *store, enum table table, const struct key *key) {
    struct sim_built *built = &store_disk(store)->built;
    const struct sim_row *import = table == TABLE_META ? rows_get(rows_of(store), table, "import", 6) : NULL;
    bool anew = import && key->length == 6 && ((const struct import_row *)import->value)->clearing;
    int rc = built_change(store);
    if (rc == 0 && !rows_remove(rows_of(store), table, key->bytes, key->length))
        return -ENOENT;
    built->lost_rows += rc == 0 && (table == TABLE_INODE || table == TABLE_EPOCH);
    if (rc == 0 && anew)
        check_begun_anew(store_node(store));
    return rc;
}

/* Of changes by records, which are not played. */
int table_put(struct change *change, enum table table, const struct key *key, const void *value, size_t length) {
    (void)change, (void)table, (void)key, (void)value, (void)length;
    sim_fail("table_put is not played");
}
int table_remove(struct change *change, enum table table, const struct key *key) {
    (void)change, (void)table, (void)key;
    sim_fail("table_remove is not played");
}
int change_drop(struct change *change, struct place place) {
    (void)change, (void)place;
    sim_fail("change_drop is not played");
}
