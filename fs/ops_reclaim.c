/* Freeing what nobody reaches any more: orphan inodes, orphan data, pending trims. In records of bounded size. */
#include "fs/ops_parts.h"

#include <sys/stat.h>

/* The RECLAIM record in the making. One hold of the lock, one record. */
struct reclaiming {
    struct store *store;
    struct reclaim_step steps[RECORD_RECLAIM_MAX];
    uint32_t count;
    uint32_t rows; /* extent rows that the steps touch so far */
};

static void add_step(struct reclaiming *reclaiming, struct reclaim_step step) {
    PROMISE(reclaiming->count < RECORD_RECLAIM_MAX);
    reclaiming->steps[reclaiming->count++] = step;
}

static int flush(struct reclaiming *reclaiming) {
    uint64_t lsn;
    struct record record = {.head.type = RECORD_RECLAIM, .steps = reclaiming->steps, .step_count = reclaiming->count};
    if (reclaiming->count == 0)
        return 0;
    record.head.time = store_next_time(reclaiming->store, (struct file_time){0, 0});
    return op_append(reclaiming->store, &record, NULL, NULL, 0, &lsn);
}

/* Adds the step that frees blocks from `from` on, as far as the record has room. 1: something is left. */
static int add_drop(struct reclaiming *reclaiming, uint64_t data, uint64_t ino, uint64_t from) {
    uint32_t rows;
    uint64_t bound;
    int error = extent_bound(reclaiming->store, data, from, ops_rows_max - reclaiming->rows, &bound, &rows);
    if (error)
        return error;
    if (rows)
        add_step(reclaiming, (struct reclaim_step){RECLAIM_DROP, data, ino, from, bound});
    reclaiming->rows += rows;
    return bound != UINT64_MAX;
}

/* ---- Orphan inodes ---- */

/* An inode with many attributes loses them one by one first. 1: did one. */
static int drop_xattr(struct store *store, uint64_t ino, const struct inode_row *row) {
    struct record record = {.head.type = RECORD_XATTR, .head.ino = ino, .flags = XATTR_REMOVE};
    uint8_t name[BATON_NAME_MAX];
    struct key key = key_u64(ino);
    struct cursor cursor;
    uint64_t lsn;
    int error = cursor_open(&cursor, store, NULL, TABLE_XATTR);
    if (error)
        return error;
    error = cursor_seek(&cursor, &key);
    if (!error &&
        (cursor.key.length <= 8 || cursor.key.length > 8 + BATON_NAME_MAX || be64_get(cursor.key.data) != ino))
        error = -EIO;
    if (!error) {
        record.name = (struct span){name, cursor.key.length - 8};
        memcpy(name, cursor.key.data + 8, record.name.length);
    }
    cursor_close(&cursor);
    if (error)
        return error == -ENOENT ? -EIO : error;
    record.head.time = store_next_time(store, row->ctime);
    error = op_append(store, &record, NULL, NULL, 0, &lsn);
    return error ? error : 1;
}

/* Adds what frees the inode. 1: more to do for it after this record; 2: a record was made here, start anew. */
static int add_inode(struct reclaiming *reclaiming, uint64_t ino) {
    struct inode_row row;
    int error = inode_get(reclaiming->store, ino, &row);
    if (error == -ENOENT || (!error && row.nlink != 0))
        return 0;
    if (error)
        return error;
    if (row.xattrs > RECLAIM_XATTRS_MAX) {
        if (reclaiming->count)
            return 1;
        error = drop_xattr(reclaiming->store, ino, &row);
        return error == 1 ? 2 : error;
    }
    if (S_ISREG(row.mode) && row.blocks) {
        error = add_drop(reclaiming, row.data, ino, 0);
        if (error)
            return error;
    }
    reclaiming->rows += row.xattrs;
    add_step(reclaiming, (struct reclaim_step){.kind = RECLAIM_INODE, .id = ino});
    return 0;
}

/* One record's worth of the list: *done inodes of it are finished. */
static int reclaim_batch(struct store *store, const uint64_t *inos, size_t count, size_t *done) {
    struct reclaiming reclaiming = {.store = store};
    int more = 0;
    int error = op_begin(store, SPACE_FREE);
    if (error)
        return error;
    *done = 0;
    while (*done < count && reclaiming.count + 2 <= RECORD_RECLAIM_MAX && reclaiming.rows < ops_rows_max) {
        more = add_inode(&reclaiming, inos[*done]);
        if (more)
            break;
        ++*done;
    }
    error = more < 0 ? more : more == 2 ? 0 : flush(&reclaiming);
    store_unlock(store);
    return error;
}

int op_reclaim(struct store *store, const uint64_t *inos, size_t count) {
    while (count > 0) {
        size_t done;
        int error = reclaim_batch(store, inos, count, &done);
        if (error)
            return error;
        inos += done;
        count -= done;
    }
    return 0;
}

int op_orphans(struct store *store, uint64_t after, uint64_t *inos, size_t room) {
    struct key key = key_orphan(ORPHAN_INODE, after);
    struct cursor cursor;
    size_t count = 0;

    store_lock(store);
    int error = cursor_open(&cursor, store, NULL, TABLE_ORPHAN);
    if (!error) {
        for (error = cursor_seek(&cursor, &key); !error && count < room; error = cursor_next(&cursor)) {
            if (cursor.key.length != 9 || cursor.key.data[0] != ORPHAN_INODE)
                break;
            uint64_t ino = be64_get(cursor.key.data + 1);
            if (ino > after)
                inos[count++] = ino;
        }
        cursor_close(&cursor);
    }
    store_unlock(store);
    return error && error != -ENOENT ? error : (int)count;
}

/* ---- Orphan data, pending trims ---- */

/* One record on the way to finish the trim of a file. 1: more to do. Lock held. */
static int trim_step(struct store *store, uint64_t ino) {
    struct reclaiming reclaiming = {.store = store};
    struct inode_row row;
    int error = inode_get(store, ino, &row);
    if (error == -ENOENT || (!error && row.trim == 0))
        return 0;
    if (error)
        return error;
    int more = add_drop(&reclaiming, row.data, ino, row.trim);
    if (more < 0)
        return more;
    if (!more)
        add_step(&reclaiming, (struct reclaim_step){.kind = RECLAIM_TRIM, .id = ino});
    error = flush(&reclaiming);
    return error ? error : more;
}

static int data_step(struct store *store, uint64_t data) {
    struct reclaiming reclaiming = {.store = store};
    int more = add_drop(&reclaiming, data, 0, 0);
    if (more < 0)
        return more;
    if (!more)
        add_step(&reclaiming, (struct reclaim_step){.kind = RECLAIM_DATA, .id = data});
    int error = flush(&reclaiming);
    return error ? error : more;
}

int finish_trim(struct store *store, uint64_t ino) {
    int more = 1;
    while (more == 1) {
        int error = op_begin(store, SPACE_FREE);
        if (error)
            return error;
        more = trim_step(store, ino);
        store_unlock(store);
    }
    return more;
}

/* The first orphan of a kind. */
static int first_orphan(struct store *store, enum orphan_kind kind, uint64_t *id) {
    struct key key = key_orphan(kind, 0);
    struct cursor cursor;
    int error = cursor_open(&cursor, store, NULL, TABLE_ORPHAN);
    if (error)
        return error;
    error = cursor_seek(&cursor, &key);
    if (!error && (cursor.key.length != 9 || cursor.key.data[0] != (uint8_t)kind))
        error = -ENOENT;
    if (!error)
        *id = be64_get(cursor.key.data + 1);
    cursor_close(&cursor);
    return error;
}

int op_reclaim_some(struct store *store) {
    uint64_t id;
    store_lock(store); /* a look first: most of the time there is nothing, and asking for room may wait */
    int error = first_orphan(store, ORPHAN_DATA, &id);
    if (error == -ENOENT)
        error = first_orphan(store, ORPHAN_TRIM, &id);
    store_unlock(store);
    if (error)
        return error == -ENOENT ? 0 : error;
    error = op_begin(store, SPACE_FREE);
    if (error)
        return error;
    error = first_orphan(store, ORPHAN_DATA, &id);
    if (!error) {
        error = data_step(store, id);
    } else if (error == -ENOENT) {
        error = first_orphan(store, ORPHAN_TRIM, &id);
        if (!error)
            error = trim_step(store, id);
    }
    store_unlock(store);
    if (error == -ENOENT)
        return 0;
    return error < 0 ? error : 1;
}
