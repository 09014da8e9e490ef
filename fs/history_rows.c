/* Rows of a past: the overlay's, and where it has none the base's. */
#include "fs/history_internal.h"

static int overlay_error(struct history *history, int rc) {
    if (rc == 0)
        return 0;
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    return history_fail(history, rc == ENOSPC || rc == MDB_MAP_FULL ? -ENOSPC : -EIO,
                        "the overlay of the history failed: %s", mdb_strerror(rc));
}

/* ---- single rows ---- */

int history_get(struct store *past, enum table table, const struct key *key, struct span *value) {
    struct history *history = past->history;
    if (history->error)
        return history->error;
    MDB_val k = {key->length, (void *)key->bytes}, data;
    int rc = overlay_error(history, mdb_get(history->txn, history->dbi[table], &k, &data));
    if (rc == 0) {
        *value = (struct span){(const uint8_t *)data.mv_data + 1, (uint32_t)data.mv_size - 1};
        return *(const uint8_t *)data.mv_data ? 0 : -ENOENT;
    }
    if (rc != -ENOENT || history->blank)
        return rc;
    return history->snapshot ? table_get_at(history->snapshot, table, key, value) : -EIO;
}

static int put(struct history *history, enum table table, const struct span *key, bool exists, const void *value,
               size_t length, unsigned flags) {
    if (history->error)
        return history->error;
    MDB_val k = {key->length, (void *)key->data}, data = {length + 1, NULL};
    int rc = mdb_put(history->txn, history->dbi[table], &k, &data, flags | MDB_RESERVE);
    if (rc == MDB_KEYEXIST)
        return 0;
    if (rc)
        return overlay_error(history, rc);
    *(uint8_t *)data.mv_data = exists;
    if (length)
        memcpy((uint8_t *)data.mv_data + 1, value, length);
    history->puts++;
    history->put_bytes += length;
    return 0;
}

int history_put(struct store *past, enum table table, const struct key *key, const void *value, size_t length) {
    return put(past->history, table, &(struct span){key->bytes, key->length}, true, value, length, 0);
}

int history_remove(struct store *past, enum table table, const struct key *key) {
    return put(past->history, table, &(struct span){key->bytes, key->length}, false, NULL, 0, 0);
}

int history_put_image(struct history *history, const struct undo_image *image) {
    return put(history, image->table, &image->key, image->existed, image->value.data, image->value.length,
               MDB_NOOVERWRITE);
}

/* ---- cursors: each step seeks on both sides from the key where the last one ended ---- */

struct history_cursor {
    struct history *history;
    MDB_cursor *overlay;
    struct cursor base;
    bool has_base;
    struct key at;
};

int history_cursor_open(struct cursor *cursor, struct store *past, enum table table) {
    struct history *history = past->history;
    cursor->mdb = NULL;
    cursor->past = NULL;
    if (history->error)
        return history->error;
    struct history_cursor *both = calloc(1, sizeof *both);
    if (!both)
        return -ENOMEM;
    both->history = history;
    both->has_base = !history->blank;
    int rc = overlay_error(history, mdb_cursor_open(history->txn, history->dbi[table], &both->overlay));
    if (rc == 0 && both->has_base)
        rc = history->snapshot ? cursor_open(&both->base, history->base, history->snapshot, table) : -EIO;
    if (rc) {
        if (both->overlay)
            mdb_cursor_close(both->overlay);
        free(both);
        return rc;
    }
    *cursor = (struct cursor){.past = both, .store = past, .table = table};
    return 0;
}

void history_cursor_close(struct cursor *cursor) {
    struct history_cursor *both = cursor->past;
    mdb_cursor_close(both->overlay);
    if (both->has_base)
        cursor_close(&both->base);
    free(both);
    cursor->past = NULL;
}

static int compare(const struct span *a, const struct span *b) {
    int order = memcmp(a->data, b->data, MIN(a->length, b->length));
    return order ? order : (int)a->length - (int)b->length;
}

static int overlay_seek(struct history_cursor *both, const struct key *key, bool after, bool backwards,
                        struct span *found, struct span *value) {
    MDB_val k = {key->length, (void *)key->bytes}, data;
    int rc = mdb_cursor_get(both->overlay, &k, &data, key->length || backwards ? MDB_SET_RANGE : MDB_FIRST);
    if (backwards)
        rc = rc == MDB_NOTFOUND ? mdb_cursor_get(both->overlay, &k, &data, MDB_LAST)
             : rc == 0          ? mdb_cursor_get(both->overlay, &k, &data, MDB_PREV)
                                : rc;
    else if (rc == 0 && after && k.mv_size == key->length && memcmp(k.mv_data, key->bytes, key->length) == 0)
        rc = mdb_cursor_get(both->overlay, &k, &data, MDB_NEXT);
    *found = (struct span){k.mv_data, (uint32_t)k.mv_size};
    *value = (struct span){data.mv_data, (uint32_t)data.mv_size};
    return overlay_error(both->history, rc);
}

static int base_seek(struct history_cursor *both, const struct key *key, bool after, bool backwards) {
    struct cursor *base = &both->base;
    if (!both->has_base)
        return -ENOENT;
    int rc = backwards ? cursor_seek_before(base, key) : cursor_seek(base, key);
    if (rc == 0 && after && base->key.length == key->length && memcmp(base->key.data, key->bytes, key->length) == 0)
        rc = cursor_next(base);
    return rc;
}

/* The nearest row at or after the key (after it, if `after`), or before it. */
static int seek(struct cursor *cursor, struct key key, bool after, bool backwards) {
    struct history_cursor *both = cursor->past;
    for (;;) {
        struct span found, value;
        if (both->history->error)
            return both->history->error;
        int over = overlay_seek(both, &key, after, backwards, &found, &value),
            base = base_seek(both, &key, after, backwards);
        if ((over && over != -ENOENT) || (base && base != -ENOENT))
            return over && over != -ENOENT ? over : base;
        if (over && base)
            return -ENOENT;
        int order = over ? 1 : base ? -1 : compare(&found, &both->base.key);
        bool takes_base = over || (!base && (backwards ? order < 0 : order > 0));
        if (takes_base) {
            found = both->base.key;
            value = both->base.value;
        }
        if (found.length > KEY_MAX)
            return -EIO;
        key.length = (uint16_t)found.length;
        memcpy(key.bytes, found.data, found.length);
        if (!takes_base && value.data[0] == 0) { /* removed */
            after = true;
            continue;
        }
        both->at = key;
        cursor->key = (struct span){both->at.bytes, both->at.length};
        cursor->value = takes_base ? value : (struct span){value.data + 1, value.length - 1};
        return 0;
    }
}

int history_cursor_seek(struct cursor *cursor, const struct key *key) {
    return seek(cursor, *key, false, false);
}

int history_cursor_seek_before(struct cursor *cursor, const struct key *key) {
    return seek(cursor, *key, false, true);
}

int history_cursor_next(struct cursor *cursor) {
    return seek(cursor, cursor->past->at, true, false);
}

int history_cursor_previous(struct cursor *cursor) {
    return seek(cursor, cursor->past->at, false, true);
}
