/* An import: opening, going on or beginning anew, where both histories part, and the change of stores. Rows are in
 * import_rows.c, blocks in import_blocks.c, what makes it complete in import_end.c, what stays for another state in import_again.c. */
#include "fs/import_internal.h"

#include "fs/generation.h"

#include <stdio.h>

#define IMPORT_FORMAT 2u

const enum table import_order[TABLE_SHARED_END] = {TABLE_EPOCH, TABLE_INODE,  TABLE_DIRENT, TABLE_DIRCOOKIE,
                                                   TABLE_XATTR, TABLE_EXTENT, TABLE_ORPHAN};

/* ---- The import's own rows ---- */

struct key import_meta_key(const char *name) {
    struct key key = {.length = (uint16_t)strlen(name)};
    memcpy(key.bytes, name, key.length);
    return key;
}

struct key import_want_key(uint64_t data, uint64_t first) {
    struct key key = {.length = 17};
    key.bytes[0] = 'w';
    be64_put(key.bytes + 1, data);
    be64_put(key.bytes + 9, first);
    return key;
}

int import_row_load(struct import *import) {
    struct key key = import_meta_key("import");
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

int import_row_save(struct import *import) {
    struct key key = import_meta_key("import");
    return table_put_raw(import->store, TABLE_META, &key, &import->row, sizeof import->row);
}

static void segments_forget(struct import *import) {
    free(import->segments.list);
    free(import->segments.to);
    import->segments = (struct import_segments){0};
}

static int note_adopted(struct import_segments *segments, struct adopted adopted) {
    if (adopted.from >= segments->to_count) {
        uint32_t count = MAX(adopted.from + 1, 2 * segments->to_count);
        uint32_t *larger = realloc(segments->to, count * sizeof *larger);
        if (!larger)
            return -ENOMEM;
        memset(larger + segments->to_count, 0, (count - segments->to_count) * sizeof *larger);
        segments->to = larger;
        segments->to_count = count;
    }
    segments->to[adopted.from] = adopted.to;
    return 0;
}

int import_segments_load(struct import *import) {
    struct key key = import_meta_key("import.segments");
    struct import_segments *segments = &import->segments;
    struct span value = {0};
    if (segments->loaded && segments->mends == import->store->mends)
        return 0;
    segments_forget(import);
    int rc = table_get(import->store, TABLE_META, &key, &value);
    if (rc && rc != -ENOENT)
        return rc;
    segments->count = rc ? 0 : value.length / sizeof *segments->list;
    segments->list = malloc((segments->count + 1) * sizeof *segments->list);
    rc = segments->list ? 0 : -ENOMEM;
    if (rc == 0 && segments->count)
        memcpy(segments->list, value.data, segments->count * sizeof *segments->list);
    for (uint32_t i = 0; rc == 0 && i < segments->count; i++)
        rc = segments->list[i].from < SEGMENT_NONE - 1 ? note_adopted(segments, segments->list[i]) : -EIO;
    if (rc == 0) {
        segments->loaded = true;
        segments->mends = import->store->mends;
    } else {
        segments_forget(import);
    }
    return rc;
}

int import_adopt(struct import *import, uint32_t from, uint32_t *to) {
    struct key key = import_meta_key("import.segments");
    struct import_segments *segments = &import->segments;
    int rc = import_segments_load(import);
    if (rc)
        return rc;
    if (from < segments->to_count && segments->to[from]) {
        *to = segments->to[from];
        return 0;
    }
    rc = segment_adopt(import->store, &import->old->segments, from, to);
    if (rc)
        return rc;
    struct adopted *longer = realloc(segments->list, (segments->count + 1) * sizeof *longer);
    if (!longer)
        return -ENOMEM;
    segments->list = longer;
    longer[segments->count++] = (struct adopted){from, *to};
    rc = note_adopted(segments, longer[segments->count - 1]);
    if (rc == 0)
        rc = table_put_raw(import->store, TABLE_META, &key, longer, segments->count * sizeof *longer);
    if (rc)
        segments_forget(import); /* as the row has it */
    return rc;
}

void import_commit_soon(struct store *store) {
    if (store->batch_rows >= BATCH_ROWS) {
        store->commit_wanted = true;
        pthread_cond_signal(&store->work);
    }
}

int import_admit(struct import *import) {
    int rc = admit_space(import->store, SPACE_GROW);
    return rc ? rc : import_row_load(import);
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
    rc = import_row_load(import);
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
    store_position(old, &import->beside);
    int rc = store_checkpoint(old); /* what its map names is in its segments' files then, and stays so */
    if (rc)
        snprintf(why, why_room, "the store %s cannot be read: %s", old->base, strerror(-rc));
    /* One that is no longer fit is begun anew: half made, damaged, or beside a store that has moved on. */
    if (rc == 0)
        rc = resume(import, why, why_room);
    if (rc == 0 && !import->store)
        rc = make_generation(import, why, why_room);
    if (rc == 0 && !import->store)
        rc = open_generation(import, why, why_room);
    if (rc == 0 && import->begun && import->row.clearing && (rc = import_again(import)) != 0)
        snprintf(why, why_room, "what has been built beside the store cannot be cleared: %s", strerror(-rc));
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
    segments_forget(import);
    free(import);
}

bool import_is_beside(const struct import *import) {
    struct position now;
    store_position(import->old, &now);
    return now.lsn == import->beside.lsn && now.epoch == import->beside.epoch &&
           memcmp(now.chain, import->beside.chain, CHAIN_SIZE) == 0;
}

int import_discard(struct import *import) {
    struct store *old = import->old;
    import_close(import);
    return generation_sweep(old->path, false);
}

int import_switch(const char *store_path, const char *aside) {
    AUTO_CLOSE int lock = generation_lock(store_path);
    if (lock < 0)
        return lock;
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
    struct store *store = import->store;
    store_lock(store);
    uint64_t mends = store->mends;
    int rc = import_row_load(import);
    if (rc == 0 && (import->begun || import->complete))
        rc = -EEXIST;
    if (rc == 0) {
        import->row = (struct import_row){
            .format = IMPORT_FORMAT, .reuse = true, .kept = import_has_kept(import), .state = *state};
        rc = import_row_save(import);
    }
    if (store->txn_broken)
        rc = -ENOSPC;
    store_unlock(store);
    if (rc)
        return rc;
    /* The state before, with some of its rows, must not come back when rows of this one have been asked for. */
    rc = store_checkpoint(store);
    store_lock(store);
    int loaded = import_row_load(import);
    if (rc == 0)
        rc = loaded ? loaded : store->mends != mends ? -EAGAIN : 0;
    store_unlock(store);
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
    int rc = import_row_load(import);
    if (rc == 0 && !import->complete && (!import->begun || import->row.step == 0))
        rc = -EAGAIN;
    if (rc == 0)
        rc = common_point(import, import->complete ? import->store->position.lsn : import->row.state.lsn, lsn);
    store_unlock(import->store);
    store_unlock(import->old);
    return rc;
}

int import_keep_old(struct import *import) {
    store_lock(import->store);
    int rc = import_row_load(import);
    if (rc == 0 && !import->complete)
        rc = import_segments_load(import);
    if (rc == 0 && !import->complete) {
        bool taken = import->segments.count > 0 || (import->row.step > 1 && import->row.reuse);
        rc = import->begun && !taken ? 0 : -EBUSY;
        import->row.reuse = false;
        rc = rc ? rc : import_row_save(import);
    } else if (rc == 0 && segments_shared(&import->store->segments)) {
        rc = -EBUSY;
    }
    store_unlock(import->store);
    return rc;
}
