#include "fs/import.h"

#include "fs/extent.h"
#include "fs/generation.h"
#include "fs/store_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define IMPORT_FORMAT 1u
#define WANTED (UINT32_MAX - 2u) /* instead of a segment in an extent row: its blocks are to come */
#define DEAD_STEP 1024u          /* rows under one hold of the lock */
#define SCAN_STEP 4096u

/* Row "import" of table meta, while the import is under way. */
struct import_row {
    uint32_t format;
    uint32_t reuse;
    struct import_state state;
    struct import_progress progress;
    uint64_t live, inodes;
    uint32_t step; /* in `order`; TABLE_SHARED_END: all rows are here */
    uint16_t key_length;
    uint8_t key[KEY_MAX];
} __attribute__((packed));

/* The epochs first: they say what the old store has that the provider's history has not. */
static const enum table order[TABLE_SHARED_END] = {TABLE_EPOCH, TABLE_INODE,  TABLE_DIRENT, TABLE_DIRCOOKIE,
                                                   TABLE_XATTR, TABLE_EXTENT, TABLE_ORPHAN};

/* Row "import.segments": segments of the old store, and their numbers here. */
struct adopted {
    uint32_t from, to;
} __attribute__((packed));

struct import {
    struct store *old, *store;
    int data_fd; /* the old store's segments */
    unsigned generation;
    struct import_row row; /* as it was last seen */
    bool begun, complete;
};

/* ---- The import's own rows ---- */

static struct key meta_key(const char *name) {
    struct key key = {.length = (uint16_t)strlen(name)};
    memcpy(key.bytes, name, key.length);
    return key;
}

static struct key want_key(uint64_t data, uint64_t first) {
    struct key key = {.length = 17};
    key.bytes[0] = 'w';
    be64_put(key.bytes + 1, data);
    be64_put(key.bytes + 9, first);
    return key;
}

/* What a refused commit took back is asked for again: so the row is looked at each time. Lock held. */
static int row_load(struct import *import) {
    struct key key = meta_key("import");
    struct span value;
    int rc = table_get(import->store, TABLE_META, &key, &value);
    import->begun = rc == 0;
    import->complete = rc == -ENOENT && import->store->position.lsn > 0;
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && value.length != sizeof import->row)
        rc = -EIO;
    if (rc == 0)
        memcpy(&import->row, value.data, sizeof import->row);
    if (rc == 0 && (import->row.format != IMPORT_FORMAT || import->row.step > TABLE_SHARED_END ||
                    import->row.key_length > KEY_MAX))
        rc = -EIO;
    return rc;
}

static int row_save(struct import *import) {
    struct key key = meta_key("import");
    return table_put_raw(import->store, TABLE_META, &key, &import->row, sizeof import->row);
}

static int adopted_load(struct import *import, struct adopted **list, uint32_t *count) {
    struct key key = meta_key("import.segments");
    struct span value = {0};
    int rc = table_get(import->store, TABLE_META, &key, &value);
    if (rc && rc != -ENOENT)
        return rc;
    *count = rc ? 0 : value.length / sizeof **list;
    *list = malloc((*count + 1) * sizeof **list);
    if (!*list)
        return -ENOMEM;
    if (*count)
        memcpy(*list, value.data, *count * sizeof **list);
    return 0;
}

/* The number that a segment of the old store has here; makes it one of ours at the first time. */
static int adopt(struct import *import, uint32_t from, uint32_t *to) {
    struct adopted *list;
    uint32_t count;
    int rc = adopted_load(import, &list, &count);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < count; i++)
        if (list[i].from == from) {
            *to = list[i].to;
            free(list);
            return 0;
        }
    rc = segment_adopt(import->store, import->data_fd, from, to);
    if (rc == 0) {
        struct key key = meta_key("import.segments");
        list[count] = (struct adopted){from, *to};
        rc = table_put_raw(import->store, TABLE_META, &key, list, (count + 1) * sizeof *list);
    }
    free(list);
    return rc;
}

/* ---- Opening ---- */

/* Beside which store, and where that was: if it moves on meanwhile (promoted, fed, rolled back), what was taken over from it
 * may be punched, and what it has beyond the common point is something else. */
static void beside(struct store *old, char line[NAME_MAX]) {
    struct position position;
    store_position(old, &position);
    int at = snprintf(line, NAME_MAX, "%llu.%llu.", (unsigned long long)position.lsn, (unsigned long long)position.epoch);
    for (unsigned i = 0; i < CHAIN_SIZE; i++)
        at += snprintf(line + at, (size_t)(NAME_MAX - at), "%02x", position.chain[i]);
}

static int make_generation(struct import *import, char *why, size_t why_room) {
    char base[PATH_MAX], line[NAME_MAX];
    struct store *old = import->old;
    int rc = generation_current(old->path, base, &import->generation);
    if (rc == 0)
        rc = generation_sweep(old->path, false);
    if (rc) {
        snprintf(why, why_room, "%s cannot be cleared of what an earlier synchronization left: %s", old->path, strerror(-rc));
        return rc;
    }
    generation_base(old->path, ++import->generation, base);
    beside(old, line);
    rc = generation_begin(old->path, import->generation, line);
    if (rc) {
        snprintf(why, why_room, "no new store can be made in %s: %s", base, strerror(-rc));
        return rc;
    }
    return store_format_generation(old->path, base, old->volume, old->name, &old->options, why, why_room);
}

static int open_generation(struct import *import, char *why, size_t why_room) {
    char base[PATH_MAX];
    generation_base(import->old->path, import->generation, base);
    int rc = store_open_generation(import->old->path, base, &import->old->options, &import->store, why, why_room);
    if (rc)
        return rc;
    store_lock(import->store);
    rc = row_load(import);
    store_unlock(import->store);
    if (rc)
        snprintf(why, why_room, "what has been built in %s cannot be read", base);
    return rc;
}

static void shut(struct import *import) {
    if (import->store)
        store_close(import->store);
    import->store = NULL;
}

static int resume(struct import *import, char *why, size_t why_room) {
    char line[NAME_MAX], now[NAME_MAX];
    int rc = generation_building(import->old->path, &import->generation, line);
    if (rc) {
        if (rc != -ENOENT)
            snprintf(why, why_room, "%s cannot be read: %s", import->old->path, strerror(-rc));
        return rc == -ENOENT ? 0 : rc;
    }
    beside(import->old, now);
    if (strcmp(line, now) != 0)
        return 0;
    rc = open_generation(import, why, why_room);
    if (rc)
        shut(import);
    bool damaged = rc == -EIO || rc == -ENOENT || rc == -EBADMSG || rc == -ENODATA || rc == -EPROTONOSUPPORT;
    return damaged ? 0 : rc;
}

int import_open(struct store *old, struct import **out, char *why, size_t why_room) {
    struct import *import = calloc(1, sizeof *import);
    if (!import) {
        snprintf(why, why_room, "out of memory");
        return -ENOMEM;
    }
    import->old = old;
    import->data_fd = openat(old->directory_fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = import->data_fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = store_checkpoint(old); /* what its map names is in its segments' files then, and stays so */
    if (rc)
        snprintf(why, why_room, "the store %s cannot be read: %s", old->base, strerror(-rc));
    /* One that is no longer fit is begun anew: half made, damaged, or beside a store that has moved on. */
    if (rc == 0)
        rc = resume(import, why, why_room);
    if (rc == 0 && !import->store)
        rc = make_generation(import, why, why_room);
    if (rc == 0 && !import->store)
        rc = open_generation(import, why, why_room);
    if (rc) {
        import_close(import);
        return rc;
    }
    *out = import;
    return 0;
}

void import_close(struct import *import) {
    if (!import)
        return;
    shut(import);
    if (import->data_fd >= 0)
        close(import->data_fd);
    free(import);
}

int import_discard(struct import *import) {
    struct store *old = import->old;
    import_close(import);
    return generation_sweep(old->path, false);
}

int import_switch(const char *store_path, const char *aside) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", store_path);
    AUTO_CLOSE int lock = open(path, O_RDWR | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    int rc = generation_keep(store_path, aside);
    return rc ? rc : generation_switch(store_path);
}

/* ---- What it has ---- */

enum import_phase import_phase(const struct import *import) {
    if (import->complete)
        return IMPORT_COMPLETE;
    return import->begun && import->row.step == TABLE_SHARED_END ? IMPORT_BLOCKS : IMPORT_ROWS;
}

bool import_state(const struct import *import, struct import_state *state) {
    if (import->begun)
        *state = import->row.state;
    return import->begun;
}

struct import_progress import_progress(const struct import *import) {
    return import->row.progress;
}

void import_position(const struct import *import, struct position *position) {
    store_position(import->store, position);
}

int import_begin(struct import *import, const struct import_state *state) {
    store_lock(import->store);
    int rc = row_load(import);
    if (rc == 0 && (import->begun || import->complete))
        rc = -EEXIST;
    if (rc == 0) {
        import->row = (struct import_row){.format = IMPORT_FORMAT, .reuse = true, .state = *state};
        rc = row_save(import);
        import->begun = rc == 0;
    }
    store_unlock(import->store);
    return rc;
}

/* ---- The last common point ---- */

/* Where the epoch ends: at the record before the next one, or at `last`. (Sought, not stepped to: a cursor of LMDB 0.9.24
 * that has been at the end and gone back finds no next row.) */
static uint64_t epoch_end(struct cursor *cursor, struct key epoch, uint64_t last) {
    struct epoch_row row;
    epoch.bytes[epoch.length++] = 0;
    if (cursor_seek(cursor, &epoch) != 0 || cursor->value.length != sizeof row)
        return last;
    memcpy(&row, cursor->value.data, sizeof row);
    return MIN(row.first - 1, last);
}

/* The newest epoch that both stores have, with the same beginning: up to where it ends in the one that ends it first both
 * histories are one. Both locks held. */
static int common_point(struct import *import, uint64_t new_last, uint64_t *lsn) {
    struct cursor old, new;
    struct epoch_row mine, theirs;
    struct key end = key_u64(UINT64_MAX);
    uint64_t old_last = import->old->position.lsn;
    int rc = cursor_open(&old, import->old, NULL, TABLE_EPOCH);
    if (rc)
        return rc;
    rc = cursor_open(&new, import->store, NULL, TABLE_EPOCH);
    if (rc) {
        cursor_close(&old);
        return rc;
    }
    *lsn = 0;
    for (rc = cursor_seek_before(&old, &end); rc == 0; rc = cursor_previous(&old)) {
        struct key epoch = {.length = (uint16_t)MIN(old.key.length, KEY_MAX - 1)};
        if (old.value.length != sizeof mine) {
            rc = -EIO;
            break;
        }
        memcpy(epoch.bytes, old.key.data, epoch.length);
        memcpy(&mine, old.value.data, sizeof mine);
        int found = cursor_seek(&new, &epoch);
        if (found && found != -ENOENT) {
            rc = found;
            break;
        }
        if (found || new.key.length != epoch.length || memcmp(new.key.data, epoch.bytes, epoch.length) != 0 ||
            new.value.length != sizeof theirs)
            continue;
        memcpy(&theirs, new.value.data, sizeof theirs);
        if (memcmp(&mine, &theirs, sizeof mine) != 0)
            continue;
        *lsn = MIN(epoch_end(&old, epoch, old_last), epoch_end(&new, epoch, new_last));
        break;
    }
    cursor_close(&new);
    cursor_close(&old);
    return rc == -ENOENT ? 0 : rc;
}

int import_common_point(struct import *import, uint64_t *lsn) {
    store_lock(import->old);
    store_lock(import->store);
    int rc = row_load(import);
    if (rc == 0 && !import->complete && (!import->begun || import->row.step == 0))
        rc = -EAGAIN;
    if (rc == 0)
        rc = common_point(import, import->complete ? import->store->position.lsn : import->row.state.lsn, lsn);
    store_unlock(import->store);
    store_unlock(import->old);
    return rc;
}

static bool shares_segments(const struct store *store) {
    for (uint32_t i = 0; i < store->segments.count; i++) {
        char name[16];
        struct stat st;
        segment_name(store->segments.list[i].number, name);
        if (fstatat(store->segments.directory_fd, name, &st, 0) == 0 && st.st_nlink > 1)
            return true;
    }
    return false;
}

int import_keep_old(struct import *import) {
    store_lock(import->store);
    int rc = row_load(import);
    if (rc == 0 && !import->complete) {
        rc = import->begun && (import->row.step <= 1 || !import->row.reuse) ? 0 : -EBUSY;
        import->row.reuse = false;
        rc = rc ? rc : row_save(import);
    } else if (rc == 0 && shares_segments(import->store)) {
        rc = -EBUSY;
    }
    store_unlock(import->store);
    return rc;
}

/* ---- Rows ---- */

int import_next_rows(const struct import *import, enum table *table, struct key *after) {
    if (!import->begun || import->row.step == TABLE_SHARED_END)
        return -ENOENT;
    *table = order[import->row.step];
    after->length = import->row.key_length;
    memcpy(after->bytes, import->row.key, after->length);
    return 0;
}

/* A part of an extent that goes into one row. */
struct part {
    uint64_t data, first;
    struct place place; /* WANTED: `there` says where it is */
    struct place there;
    const uint8_t *checksums;
};

static int part_put(struct import *import, const struct part *part) {
    struct {
        struct extent_row row;
        uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    } __attribute__((packed)) value;
    uint32_t count = part->place.count;
    PROMISE(count > 0 && count <= EXTENT_BLOCKS_MAX);
    value.row = (struct extent_row){part->place.segment, part->place.position, count};
    memcpy(value.checksums, part->checksums, count * 8);
    struct key key = key_u64_u64(part->data, part->first);
    int rc = table_put_raw(import->store, TABLE_EXTENT, &key, &value, sizeof value.row + count * 8);
    if (rc == 0 && part->place.segment == WANTED) {
        key = want_key(part->data, part->first);
        rc = table_put_raw(import->store, TABLE_META, &key, &part->there, sizeof part->there);
        import->row.progress.wanted += count;
    } else {
        import->row.progress.reused += count;
    }
    return rc;
}

/* How many blocks of [first, …) of the extent the old store has in one place with the same checksums, and where; if none,
 * how many it has not. */
static uint32_t match(struct cursor *old, const struct extent *extent, uint32_t skip, struct place *place) {
    uint64_t at = extent->first + skip;
    uint32_t left = extent->place.count - skip;
    struct extent here;
    struct key key = key_u64_u64(extent->data, at + 1);
    *place = (struct place){.segment = WANTED, .count = left};
    int rc = old->mdb ? cursor_seek_before(old, &key) : -ENOENT;
    if (rc == 0 && extent_parse(old->key, old->value, &here) == 0 && here.data == extent->data && here.checksums &&
        here.first + here.place.count > at) {
        uint32_t from = (uint32_t)(at - here.first), most = MIN(here.place.count - from, left), same = 0;
        const uint8_t *theirs = extent->checksums + skip * 8ull, *ours = here.checksums + from * 8ull;
        while (same < most && memcmp(theirs + same * 8ull, ours + same * 8ull, 8) == 0)
            same++;
        if (same > 0) {
            *place = (struct place){here.place.segment, here.place.position + from, same};
            return same;
        }
        uint32_t other = 1;
        while (other < most && memcmp(theirs + other * 8ull, ours + other * 8ull, 8) != 0)
            other++;
        place->count = other;
        return other;
    }
    /* Nothing here: up to where the old store's next row begins. */
    rc = old->mdb ? cursor_seek(old, &key) : -ENOENT;
    if (rc == 0 && extent_parse(old->key, old->value, &here) == 0 && here.data == extent->data &&
        here.first < at + left)
        place->count = (uint32_t)(here.first - at);
    return place->count;
}

static int extent_import(struct import *import, struct cursor *old, struct span key, struct span value) {
    struct extent extent;
    if (extent_parse(key, value, &extent) != 0)
        return -EBADMSG;
    if (!extent.checksums) { /* unwritten */
        struct key at = key_u64_u64(extent.data, extent.first);
        return table_put_raw(import->store, TABLE_EXTENT, &at, value.data, value.length);
    }
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8]; /* `value` may be a network message's: aligned to nothing, but whole */
    memcpy(checksums, extent.checksums, extent.place.count * 8ull);
    extent.checksums = checksums;
    import->row.live += extent.place.count;
    for (uint32_t done = 0; done < extent.place.count;) {
        struct part part = {.data = extent.data, .first = extent.first + done, .checksums = checksums + done * 8ull};
        uint32_t count = match(old, &extent, done, &part.place);
        if (part.place.segment != WANTED) {
            uint32_t to;
            int rc = adopt(import, part.place.segment, &to);
            if (rc == -EXDEV || rc == -EPERM || rc == -EMLINK || rc == -ENOENT)
                part.place.segment = WANTED; /* no link to it: it is fetched */
            else if (rc)
                return rc;
            else
                part.place.segment = to;
        }
        if (part.place.segment == WANTED)
            part.there = (struct place){extent.place.segment, extent.place.position + done, count};
        int rc = part_put(import, &part);
        if (rc)
            return rc;
        done += count;
    }
    return 0;
}

static int row_import(struct import *import, enum table table, struct cursor *old, struct span key, struct span value) {
    struct key at = {.length = (uint16_t)key.length};
    if (key.length == 0 || key.length > KEY_MAX || value.length > BATON_XATTR_VALUE_MAX + 64)
        return -EBADMSG;
    struct span last = {import->row.key, import->row.key_length};
    int compared = memcmp(last.data, key.data, MIN(last.length, key.length));
    if (compared > 0 || (compared == 0 && last.length >= key.length))
        return -EBADMSG;
    memcpy(at.bytes, key.data, key.length);
    int rc = table == TABLE_EXTENT ? extent_import(import, old, key, value)
                                   : table_put_raw(import->store, table, &at, value.data, value.length);
    if (rc)
        return rc;
    import->row.inodes += table == TABLE_INODE;
    import->row.progress.rows++;
    import->row.key_length = at.length;
    memcpy(import->row.key, at.bytes, at.length);
    return 0;
}

static void commit_soon(struct store *store) {
    if (store->batch_rows >= BATCH_ROWS) {
        store->commit_wanted = true;
        pthread_cond_signal(&store->work);
    }
}

/* Room in the batch and on the disk. */
static int admit(struct import *import) {
    int rc = admit_space(import->store, SPACE_GROW);
    return rc ? rc : row_load(import);
}

static int old_cursor(struct import *import, enum table table, struct snapshot **snapshot, struct cursor *cursor) {
    *snapshot = NULL;
    *cursor = (struct cursor){0};
    if (!import->row.reuse || table != TABLE_EXTENT)
        return 0;
    int rc = store_snapshot(import->old, snapshot);
    return rc ? rc : cursor_open(cursor, import->old, *snapshot, TABLE_EXTENT);
}

/* Is that what is wanted? */
static bool follows(const struct import *import, enum table table, const struct key *after) {
    const struct import_row *row = &import->row;
    return row->step < TABLE_SHARED_END && order[row->step] == table && row->key_length == after->length &&
           memcmp(row->key, after->bytes, after->length) == 0;
}

int import_rows(struct import *import, enum table table, const struct key *after, int (*each)(void *context, struct span *key, struct span *value),
                void *context, bool done) {
    struct store *store = import->store;
    struct snapshot *snapshot;
    struct cursor old;
    struct span key, value;
    int rc = old_cursor(import, table, &snapshot, &old);
    store_lock(store);
    if (rc == 0)
        rc = admit(import);
    bool admitted = rc == 0 && import->begun;
    if (rc == 0 && !import->begun)
        rc = -EBADMSG;
    else if (rc == 0 && !follows(import, table, after))
        rc = -EAGAIN;
    while (rc == 0 && (rc = each(context, &key, &value)) == 1) {
        struct import_row before = import->row;
        rc = row_import(import, table, &old, key, value);
        if (rc)
            import->row = before; /* a part of it may be there; it comes again */
    }
    if (rc == 0 && done) {
        import->row.step++;
        import->row.key_length = 0;
    }
    if (admitted && !store->txn_broken) { /* what is in memory is what is in the table, and what came now */
        int saved = row_save(import);
        rc = rc ? rc : saved;
    }
    if (store->txn_broken)
        rc = -ENOSPC; /* the batch is gone: what was asked for is asked for again */
    commit_soon(store);
    store_unlock(store);
    if (old.mdb)
        cursor_close(&old);
    snapshot_close(snapshot);
    return rc;
}

/* ---- Blocks ---- */

int import_wanted(struct import *import, const struct import_want *after, struct import_want *wants, unsigned max,
                  unsigned *count) {
    struct cursor cursor;
    struct key key = after ? want_key(after->data, after->first + 1) : want_key(0, 0);
    *count = 0;
    store_lock(import->store);
    int rc = row_load(import);
    if (rc == 0)
        rc = cursor_open(&cursor, import->store, NULL, TABLE_META);
    if (rc) {
        store_unlock(import->store);
        return rc;
    }
    for (rc = cursor_seek(&cursor, &key); rc == 0 && *count < max; rc = cursor_next(&cursor)) {
        struct import_want *want = &wants[*count];
        if (cursor.key.length != 17 || cursor.key.data[0] != 'w' || cursor.value.length != sizeof want->place)
            break;
        want->data = be64_get(cursor.key.data + 1);
        want->first = be64_get(cursor.key.data + 9);
        memcpy(&want->place, cursor.value.data, sizeof want->place);
        ++*count;
    }
    cursor_close(&cursor);
    store_unlock(import->store);
    return rc == -ENOENT ? 0 : rc;
}

/* Is it wanted? Its checksums. Lock held. */
static int want_check(struct import *import, const struct import_want *want, uint8_t checksums[EXTENT_BLOCKS_MAX * 8]) {
    struct key key = want_key(want->data, want->first), at = key_u64_u64(want->data, want->first);
    struct extent extent;
    struct span value;
    int rc = table_get(import->store, TABLE_META, &key, &value);
    if (rc == 0)
        rc = table_get(import->store, TABLE_EXTENT, &at, &value);
    if (rc == 0 && extent_parse((struct span){at.bytes, at.length}, value, &extent) != 0)
        rc = -EIO;
    if (rc == 0 && (!extent.checksums || extent.place.segment != WANTED || extent.place.count != want->place.count))
        rc = -EIO;
    if (rc == 0)
        memcpy(checksums, extent.checksums, extent.place.count * 8ull);
    return rc;
}

static bool blocks_fit(const uint8_t *bytes, const uint8_t *checksums, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint64_t sum;
        memcpy(&sum, checksums + i * 8ull, sizeof sum);
        if (block_checksum(bytes + (size_t)i * BATON_BLOCK) != sum)
            return false;
    }
    return true;
}

/* The piece is in these places now. Lock held. */
static int want_settle(struct import *import, const struct import_want *want, const uint8_t *checksums,
                       const struct place *places, uint32_t place_count, bool bad) {
    struct key key = want_key(want->data, want->first);
    uint32_t done = 0;
    int rc = table_remove_raw(import->store, TABLE_META, &key);
    for (uint32_t i = 0; rc == 0 && i < place_count; i++) {
        struct {
            struct extent_row row;
            uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
        } __attribute__((packed)) value;
        uint32_t count = places[i].count;
        value.row = (struct extent_row){places[i].segment, places[i].position, count};
        memcpy(value.checksums, checksums + done * 8ull, count * 8ull);
        struct key at = key_u64_u64(want->data, want->first + done);
        rc = table_put_raw(import->store, TABLE_EXTENT, &at, &value, sizeof value.row + count * 8ull);
        done += count;
    }
    import->row.progress.wanted -= done;
    if (bad)
        import->row.progress.bad += done;
    else
        import->row.progress.fetched += done;
    return rc ? rc : row_save(import);
}

int import_blocks(struct import *import, const struct import_want *want, const uint8_t *bytes) {
    struct store *store = import->store;
    uint8_t checksums[EXTENT_BLOCKS_MAX * 8];
    struct place places[STORE_PLACES_MAX];
    uint32_t place_count = 0;
    size_t length = bytes ? (size_t)want->place.count * BATON_BLOCK : 0;
    store_lock(store);
    int rc = admit(import);
    if (rc == 0)
        rc = want_check(import, want, checksums);
    if (rc == 0 && bytes && !blocks_fit(bytes, checksums, want->place.count))
        rc = -EBADMSG;
    if (rc == 0)
        rc = store_allocate(store, want->place.count, places, &place_count);
    if (rc) {
        store_unlock(store);
        return rc;
    }
    store_unlock(store);
    rc = store_write_blocks(store, places, place_count, bytes, length);
    store_lock(store);
    if (rc == 0)
        rc = row_load(import);
    if (rc == 0)
        rc = want_check(import, want, checksums);
    if (rc == 0)
        rc = want_settle(import, want, checksums, places, place_count, bytes == NULL);
    for (uint32_t i = 0; rc == 0 && i < place_count; i++) {
        rc = segment_claim(store, places[i]);
        segment_mark(store, places[i], true);
    }
    if (rc && !store->txn_broken)
        store_release(store, places, place_count);
    else if (store->txn_broken)
        rc = -ENOSPC;
    commit_soon(store);
    store_unlock(store);
    return rc;
}

/* ---- The end ---- */

struct used {
    uint32_t segment;
    uint8_t *blocks; /* a bit each */
};

struct scan {
    struct used *list;
    uint32_t count;
    struct key at;
};

static struct used *used_find(const struct scan *scan, uint32_t segment) {
    for (uint32_t i = 0; i < scan->count; i++)
        if (scan->list[i].segment == segment)
            return &scan->list[i];
    return NULL;
}

/* Marks what a step's worth of extents uses of the adopted segments. 1: there is more. Lock held. */
static int scan_some(struct import *import, struct scan *scan) {
    struct cursor cursor;
    uint32_t steps = 0;
    int rc = cursor_open(&cursor, import->store, NULL, TABLE_EXTENT);
    if (rc)
        return rc;
    for (rc = cursor_seek(&cursor, &scan->at); rc == 0 && steps < SCAN_STEP; rc = cursor_next(&cursor), steps++) {
        struct extent extent;
        rc = extent_parse(cursor.key, cursor.value, &extent);
        if (rc)
            break;
        struct used *used = extent.checksums ? used_find(scan, extent.place.segment) : NULL;
        for (uint32_t i = 0; used && i < extent.place.count; i++)
            used->blocks[(extent.place.position + i) / 8] |= (uint8_t)(1u << (extent.place.position + i) % 8);
        scan->at.length = (uint16_t)cursor.key.length;
        memcpy(scan->at.bytes, cursor.key.data, cursor.key.length);
        /* behind this key, at the next step */
        scan->at.bytes[scan->at.length++] = 0;
    }
    cursor_close(&cursor);
    return rc == -ENOENT ? 0 : rc ? rc : 1;
}

/* What the new store does not use of a segment that it took over is dead: it is punched when the store serves. */
static int declare_dead(struct import *import, const struct used *used) {
    struct store *store = import->store;
    const struct segment *segment = segment_find(&store->segments, used->segment);
    uint32_t blocks = segment ? segment->head : 0, rows = 0;
    int rc = segment ? 0 : -EIO;
    for (uint32_t at = 0; rc == 0 && at < blocks;) {
        uint32_t end = at;
        bool in_use = used->blocks[at / 8] >> (at % 8) & 1;
        while (end < blocks && (bool)(used->blocks[end / 8] >> (end % 8) & 1) == in_use)
            end++;
        if (!in_use) {
            rc = dead_add(store, (struct place){used->segment, at, end - at});
            if (rc == 0 && ++rows % DEAD_STEP == 0) {
                commit_soon(store);
                rc = admit_space(store, SPACE_FREE);
            }
        }
        at = end;
    }
    commit_soon(store);
    return rc;
}

static int free_unused(struct import *import) {
    struct store *store = import->store;
    struct adopted *list = NULL;
    struct scan scan = {0};
    uint32_t count = 0;
    store_lock(store);
    int rc = adopted_load(import, &list, &count);
    store_unlock(store);
    scan.list = rc ? NULL : calloc(count + 1, sizeof *scan.list);
    rc = rc ? rc : scan.list ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        scan.list[i] = (struct used){list[i].to, calloc(1, store->segments.blocks / 8 + 1)};
        rc = scan.list[i].blocks ? 0 : -ENOMEM;
        scan.count++;
    }
    for (int more = count > 0; rc == 0 && more > 0;) {
        store_lock(store);
        more = scan_some(import, &scan);
        store_unlock(store);
        rc = more < 0 ? more : 0;
    }
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        store_lock(store);
        rc = admit_space(store, SPACE_FREE);
        if (rc == 0)
            rc = declare_dead(import, &scan.list[i]);
        store_unlock(store);
    }
    for (uint32_t i = 0; i < scan.count; i++)
        free(scan.list[i].blocks);
    free(scan.list);
    free(list);
    return rc;
}

static uint64_t hold_of(struct store *store) {
    uint64_t hold = 0;
    size_t length = 0;
    store_lock(store);
    if (store_meta_get(store, "hold", &hold, sizeof hold, &length) != 0 || length != sizeof hold)
        hold = 0;
    store_unlock(store);
    return hold;
}

static int take_position(struct import *import, uint64_t hold) {
    struct store *store = import->store;
    struct import_state state = import->row.state;
    struct key row = meta_key("import"), segments = meta_key("import.segments");
    int rc = table_remove_raw(store, TABLE_META, &row);
    if (rc == 0)
        rc = table_remove_raw(store, TABLE_META, &segments);
    if (rc && rc != -ENOENT)
        return rc;
    store->position = (struct position_row){.lsn = state.lsn,
                                            .epoch = state.epoch,
                                            .time = state.time,
                                            .first = state.lsn + 1,
                                            .live_blocks = import->row.live,
                                            .inodes = import->row.inodes};
    memcpy(store->position.chain, state.chain, CHAIN_SIZE);
    store->recent_first = state.lsn + 1;
    mark_set(&store->mark, state.lsn);
    /* What every node had once is not forgotten with the old store. */
    return hold ? store_meta_put(store, "hold", &hold, sizeof hold) : 0;
}

int import_finish(struct import *import) {
    struct store *store = import->store;
    if (import->complete)
        return generation_complete(import->old->path, import->generation);
    uint64_t hold = hold_of(import->old);
    store_lock(store);
    uint64_t mends = store->mends;
    int rc = row_load(import);
    if (rc == 0 && (!import->begun || import->row.step != TABLE_SHARED_END || import->row.progress.wanted != 0))
        rc = -EBUSY;
    store_unlock(store);
    if (rc == 0)
        rc = free_unused(import);
    /* All of it first: what is committed with the position is small then. */
    if (rc == 0)
        rc = store_checkpoint(store);
    if (rc)
        return rc;
    store_lock(store);
    rc = store->mends == mends ? row_load(import) : -EAGAIN; /* a refused commit has taken something back */
    if (rc == 0 && (!import->begun || import->row.step != TABLE_SHARED_END || import->row.progress.wanted != 0))
        rc = -EAGAIN;
    if (rc == 0)
        rc = take_position(import, hold);
    if (store->txn_broken)
        rc = -ENOSPC;
    store_unlock(store);
    if (rc == 0)
        rc = store_checkpoint(store);
    store_lock(store);
    int loaded = row_load(import);
    store_unlock(store);
    rc = rc ? rc : loaded;
    if (rc == 0 && !import->complete)
        rc = -EAGAIN;
    return rc ? rc : generation_complete(import->old->path, import->generation);
}
