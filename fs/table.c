#include "fs/history_internal.h"

#include <stdio.h>
#include <xxhash.h>

const char *const table_names[TABLE_END] = {"inode", "dirent", "dircookie", "xattr",   "extent", "orphan",
                                            "epoch", "meta",   "journal",   "segment", "dead"};

struct image_head {
    uint8_t table;
    uint8_t existed;
    uint16_t key_length;
    uint32_t value_length;
} __attribute__((packed));

size_t table_row_max(enum table table) {
    static const uint32_t most[TABLE_END] = {
        [TABLE_INODE] = sizeof(struct inode_row) + BATON_SYMLINK_MAX,
        [TABLE_DIRENT] = sizeof(struct dirent_row),
        [TABLE_DIRCOOKIE] = sizeof(struct dircookie_row) + BATON_NAME_MAX,
        [TABLE_XATTR] = BATON_XATTR_VALUE_MAX,
        [TABLE_EXTENT] = sizeof(struct extent_row) + EXTENT_BLOCKS_MAX * 8,
        [TABLE_ORPHAN] = sizeof(struct orphan_row),
        [TABLE_EPOCH] = sizeof(struct epoch_row),
        [TABLE_META] = ROW_BYTES_MAX, /* lists of segments and of reserved blocks */
        [TABLE_JOURNAL] = ROW_BYTES_MAX,
        [TABLE_SEGMENT] = sizeof(struct segment_row),
        [TABLE_DEAD] = sizeof(struct dead_row),
    };
    return most[table];
}

uint64_t table_row_check(enum table table, const struct key *key, const void *value, size_t length) {
    uint64_t seed = XXH3_64bits_withSeed(key->bytes, key->length, (uint64_t)table + 1);
    return XXH3_64bits_withSeed(value, length, seed);
}

/* LMDB's own errors are negative numbers outside errno's range. */
static int from_mdb(struct store *store, int rc, enum table table, const char *doing) {
    if (rc == 0)
        return 0;
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    log_error("store %s: %s table \"%s\" failed: %s", store->path, doing, table_names[table], mdb_strerror(rc));
    if (rc == MDB_MAP_FULL || rc == ENOSPC || rc == MDB_TXN_FULL)
        return -ENOSPC;
    if (rc == ENOMEM)
        return -ENOMEM;
    return -EIO;
}

int table_open_all(struct store *store, MDB_txn *txn, bool create) {
    for (int table = 0; table < TABLE_END; table++) {
        int rc = mdb_dbi_open(txn, table_names[table], create ? MDB_CREATE : 0, &store->dbi[table]);
        if (rc)
            return from_mdb(store, rc, (enum table)table, "opening");
    }
    return 0;
}

static int row_verify(struct store *store, enum table table, const struct key *key, const MDB_val *data,
                      struct span *value) {
    uint64_t check;
    if (data->mv_size < sizeof check) {
        log_error("store %s: a row of table \"%s\" is cut off; run \"baton check\"", store->path, table_names[table]);
        return -EIO;
    }
    size_t length = data->mv_size - sizeof check;
    if (length > table_row_max(table)) {
        log_error("store %s: a row of table \"%s\" claims %zu bytes, more than it can have; run \"baton check\"", store->path,
                  table_names[table], length);
        return -EIO;
    }
    memcpy(&check, (const uint8_t *)data->mv_data + length, sizeof check);
    if (check != table_row_check(table, key, data->mv_data, length)) {
        log_error("store %s: a row of table \"%s\" fails its checksum; run \"baton check\"", store->path,
                  table_names[table]);
        return -EIO;
    }
    value->data = data->mv_data;
    value->length = (uint32_t)length;
    return 0;
}

static int get_in(struct store *store, MDB_txn *txn, enum table table, const struct key *key, struct span *value) {
    MDB_val k = {key->length, (void *)key->bytes}, data;
    int rc = mdb_get(txn, store->dbi[table], &k, &data);
    if (rc)
        return from_mdb(store, rc, table, "reading");
    return row_verify(store, table, key, &data, value);
}

int table_get(struct store *store, enum table table, const struct key *key, struct span *value) {
    if (store->history)
        return history_get(store, table, key, value);
    return get_in(store, store->txn, table, key, value);
}

int table_get_at(struct snapshot *snapshot, enum table table, const struct key *key, struct span *value) {
    return get_in(snapshot->store, snapshot->txn, table, key, value);
}

/* `old`: the row's value, NULL if there is none. */
static int image_add(struct change *change, enum table table, const struct key *key, const struct span *old) {
    size_t value_length = old ? old->length : 0;
    struct image_head head = {(uint8_t)table, old != NULL, key->length, (uint32_t)value_length};
    size_t need = change->undo_length + sizeof head + key->length + value_length;
    if (need > UNDO_BYTES_MAX)
        return -EBADMSG; /* no record of ours: its maker counts rows */
    if (need > change->undo_room) {
        size_t room = MAX(need, change->undo_room * 2 + 4096);
        uint8_t *bigger = realloc(change->undo, room);
        if (!bigger)
            return -ENOMEM;
        change->undo = bigger;
        change->undo_room = room;
    }
    uint8_t *at = change->undo + change->undo_length;
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, key->bytes, key->length);
    if (value_length)
        memcpy(at + sizeof head + key->length, old->data, value_length);
    change->undo_length = need;
    change->undo_count++;
    return 0;
}

/* Reserves the row with its checksum; `flags` may be MDB_NOOVERWRITE, then rc is MDB_KEYEXIST and *old what is there. */
static int put_row(struct store *store, enum table table, const struct key *key, const void *value, size_t length,
                   unsigned flags, MDB_val *old) {
    MDB_val k = {key->length, (void *)key->bytes}, data = {length + 8, NULL};
    if (length > table_row_max(table))
        return EINVAL;
    int rc = mdb_put(store->txn, store->dbi[table], &k, &data, MDB_RESERVE | flags);
    if (rc == MDB_KEYEXIST && old) {
        *old = data;
        return rc;
    }
    if (rc)
        return rc;
    uint64_t check = table_row_check(table, key, value, length);
    memcpy(data.mv_data, value, length);
    memcpy((uint8_t *)data.mv_data + length, &check, sizeof check);
    store->batch_rows++;
    return 0;
}

static int broken(struct store *store, int rc, enum table table) {
    store->txn_broken = true;
    return from_mdb(store, rc, table, "changing");
}

int table_put_raw(struct store *store, enum table table, const struct key *key, const void *value, size_t length) {
    if (store->history)
        return history_put(store, table, key, value, length);
    int rc = put_row(store, table, key, value, length, 0, NULL);
    return rc ? broken(store, rc, table) : 0;
}

int table_remove_raw(struct store *store, enum table table, const struct key *key) {
    if (store->history)
        return history_remove(store, table, key);
    MDB_val k = {key->length, (void *)key->bytes};
    int rc = mdb_del(store->txn, store->dbi[table], &k, NULL);
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    store->batch_rows++;
    return rc ? broken(store, rc, table) : 0;
}

static int past_change(struct change *change, enum table table, const struct key *key, const struct span *value) {
    struct span old;
    int rc = history_get(change->store, table, key, &old);
    if (rc && (rc != -ENOENT || !value))
        return rc;
    rc = image_add(change, table, key, rc == 0 ? &old : NULL);
    if (rc)
        return rc;
    return value ? history_put(change->store, table, key, value->data, value->length)
                 : history_remove(change->store, table, key);
}

int table_put(struct change *change, enum table table, const struct key *key, const void *value, size_t length) {
    struct store *store = change->store;
    PROMISE(table < TABLE_SHARED_END);
    if (store->history)
        return past_change(change, table, key, &(struct span){value, (uint32_t)length});
    MDB_val old;
    /* `value` may point into a page that this very put would move: the callers' rows are on their stacks. */
    int rc = put_row(store, table, key, value, length, MDB_NOOVERWRITE, &old);
    if (rc == 0) {
        rc = image_add(change, table, key, NULL);
        if (rc)
            store->txn_broken = true;
        return rc;
    }
    if (rc != MDB_KEYEXIST)
        return broken(store, rc, table);
    struct span checked;
    rc = row_verify(store, table, key, &old, &checked);
    if (rc)
        return rc;
    rc = image_add(change, table, key, &checked);
    if (rc)
        return rc;
    rc = put_row(store, table, key, value, length, 0, NULL);
    return rc ? broken(store, rc, table) : 0;
}

int table_remove(struct change *change, enum table table, const struct key *key) {
    struct store *store = change->store;
    PROMISE(table < TABLE_SHARED_END);
    if (store->history)
        return past_change(change, table, key, NULL);
    MDB_val k = {key->length, (void *)key->bytes}, old;
    int rc = mdb_get(store->txn, store->dbi[table], &k, &old);
    if (rc)
        return from_mdb(store, rc, table, "reading");
    struct span checked;
    rc = row_verify(store, table, key, &old, &checked);
    if (rc == 0)
        rc = image_add(change, table, key, &checked);
    if (rc)
        return rc;
    rc = mdb_del(store->txn, store->dbi[table], &k, NULL);
    store->batch_rows++;
    return rc ? broken(store, rc, table) : 0;
}

int change_drop(struct change *change, struct place place) {
    if (place.segment == SEGMENT_NONE)
        return 0;
    if (change->dropped_count > 0) { /* neighbours become one */
        struct place *last = &change->dropped[change->dropped_count - 1];
        if (last->segment == place.segment && last->position + last->count == place.position) {
            last->count += place.count;
            return 0;
        }
    }
    if (change->dropped_count == change->dropped_room) {
        uint32_t room = change->dropped_room * 2 + 64;
        struct place *bigger = realloc(change->dropped, room * sizeof *bigger);
        if (!bigger)
            return -ENOMEM;
        change->dropped = bigger;
        change->dropped_room = room;
    }
    change->dropped[change->dropped_count++] = place;
    return 0;
}

void change_reset(struct change *change, struct store *store) {
    change->store = store;
    change->undo_length = 0;
    change->undo_count = 0;
    change->places = NULL;
    change->place_count = 0;
    change->dropped_count = 0;
}

int undo_next(const struct span *undo, uint32_t *at, struct undo_image *image) {
    struct image_head head;
    if (*at == undo->length)
        return 0;
    if (*at > undo->length || undo->length - *at < sizeof head)
        return -EBADMSG;
    memcpy(&head, undo->data + *at, sizeof head);
    uint64_t need = (uint64_t)sizeof head + head.key_length + head.value_length;
    if (need > undo->length - *at || head.table >= TABLE_SHARED_END || head.key_length > KEY_MAX)
        return -EBADMSG;
    const uint8_t *body = undo->data + *at + sizeof head;
    image->table = head.table;
    image->existed = head.existed != 0;
    image->key = (struct span){body, head.key_length};
    image->value = (struct span){body + head.key_length, head.value_length};
    *at += (uint32_t)need;
    return 1;
}

int undo_restore(struct store *store, const uint8_t *undo, uint32_t length) {
    struct span span = {undo, length};
    struct undo_image image;
    uint32_t count = 0, at = 0;
    int rc;
    while ((rc = undo_next(&span, &at, &image)) == 1)
        count++;
    if (rc < 0)
        return rc;
    AUTO_FREE uint32_t *starts = malloc((count + 1) * sizeof *starts);
    if (!starts)
        return -ENOMEM;
    at = 0;
    for (uint32_t i = 0; i < count; i++) {
        starts[i] = at;
        undo_next(&span, &at, &image);
    }
    for (uint32_t i = count; i-- > 0;) {
        at = starts[i];
        undo_next(&span, &at, &image);
        struct key key = {.length = (uint16_t)image.key.length};
        memcpy(key.bytes, image.key.data, image.key.length);
        if (image.existed)
            rc = table_put_raw(store, image.table, &key, image.value.data, image.value.length);
        else
            rc = table_remove_raw(store, image.table, &key);
        if (rc)
            return rc == -ENOENT ? -EIO : rc;
    }
    return 0;
}

/* ---- cursors ---- */

int cursor_open(struct cursor *cursor, struct store *store, struct snapshot *snapshot, enum table table) {
    MDB_cursor *mdb;
    if (store->history && !snapshot)
        return history_cursor_open(cursor, store, table);
    int rc = mdb_cursor_open(snapshot ? snapshot->txn : store->txn, store->dbi[table], &mdb);
    cursor->mdb = NULL;
    cursor->past = NULL;
    if (rc)
        return from_mdb(store, rc, table, "reading");
    *cursor = (struct cursor){.mdb = mdb, .store = store, .table = table};
    return 0;
}

static int cursor_take(struct cursor *cursor, int rc, const MDB_val *k, const MDB_val *data) {
    if (rc)
        return from_mdb(cursor->store, rc, cursor->table, "reading");
    struct key key;
    if (k->mv_size > KEY_MAX) {
        log_error("store %s: a key of table \"%s\" is too long; run \"baton check\"", cursor->store->path,
                  table_names[cursor->table]);
        return -EIO;
    }
    key.length = (uint16_t)k->mv_size;
    memcpy(key.bytes, k->mv_data, k->mv_size);
    rc = row_verify(cursor->store, cursor->table, &key, data, &cursor->value);
    if (rc)
        return rc;
    cursor->key = (struct span){k->mv_data, (uint32_t)k->mv_size};
    return 0;
}

int cursor_seek(struct cursor *cursor, const struct key *key) {
    if (cursor->past)
        return history_cursor_seek(cursor, key);
    MDB_val k = {key->length, (void *)key->bytes}, data;
    int rc = mdb_cursor_get(cursor->mdb, &k, &data, key->length ? MDB_SET_RANGE : MDB_FIRST);
    return cursor_take(cursor, rc, &k, &data);
}

int cursor_seek_before(struct cursor *cursor, const struct key *key) {
    if (cursor->past)
        return history_cursor_seek_before(cursor, key);
    MDB_val k = {key->length, (void *)key->bytes}, data;
    int rc = mdb_cursor_get(cursor->mdb, &k, &data, MDB_SET_RANGE);
    if (rc == 0)
        rc = mdb_cursor_get(cursor->mdb, &k, &data, MDB_PREV);
    else if (rc == MDB_NOTFOUND)
        rc = mdb_cursor_get(cursor->mdb, &k, &data, MDB_LAST);
    return cursor_take(cursor, rc, &k, &data);
}

int cursor_next(struct cursor *cursor) {
    if (cursor->past)
        return history_cursor_next(cursor);
    MDB_val k, data;
    int rc = mdb_cursor_get(cursor->mdb, &k, &data, MDB_NEXT);
    return cursor_take(cursor, rc, &k, &data);
}

int cursor_previous(struct cursor *cursor) {
    if (cursor->past)
        return history_cursor_previous(cursor);
    MDB_val k, data;
    int rc = mdb_cursor_get(cursor->mdb, &k, &data, MDB_PREV);
    return cursor_take(cursor, rc, &k, &data);
}

void cursor_close(struct cursor *cursor) {
    if (cursor->past)
        history_cursor_close(cursor);
    if (cursor->mdb)
        mdb_cursor_close(cursor->mdb);
    cursor->mdb = NULL;
}
