/* Records that change the map: write, truncate, allocate, punch, reclaim. */
#include "fs/apply_parts.h"

#include <sys/stat.h>

/* Rows that one record may touch, on any node: its maker counts RECORD_ROWS_MAX of its own, but where rows are joined
 * depends on where blocks lie, so another node's may be as many more as an extent has blocks. */
#define ROWS_BOUND (RECORD_ROWS_MAX * EXTENT_BLOCKS_MAX)

static int rows_are_bounded(struct change *change, uint64_t data, uint64_t first, uint64_t to) {
    uint32_t rows;
    if (first >= to)
        return 0;
    int error = extent_rows(change->store, data, first, to - first, ROWS_BOUND + 1, &rows);
    return !error && rows > ROWS_BOUND ? -EBADMSG : error;
}

static int no_rows(struct change *change, uint64_t data, uint64_t from) {
    uint32_t rows;
    int error = extent_rows(change->store, data, from, UINT64_MAX, 1, &rows);
    return !error && rows ? -EBADMSG : error;
}

/* The file, with the times and mode that every change of data sets. */
static int file_get(struct change *change, const struct record *r, struct inode_row *row) {
    const struct span nothing = {NULL, 0};
    int error = contradiction(inode_get(change->store, r->head.ino, row));
    if (error)
        return error;
    if (!S_ISREG(row->mode))
        return -EBADMSG;
    error = inode_touch(row, r);
    row->mtime = row->ctime;
    if (r->flags & WRITE_SET_MODE)
        row->mode = S_IFREG | r->mode;
    if (!error && r->flags & WRITE_NO_CAPABILITY)
        error = xattr_change_named(change, r->head.ino, row, XATTR_CAPABILITY, nothing, true);
    return error;
}

/* Blocks up to `end` come into use: they must be free of a pending trim's leavings. */
static bool reaches_trim(const struct inode_row *row, uint64_t end) {
    return row->trim && end > row->trim;
}

static int count_blocks(struct inode_row *row, uint64_t added, uint64_t freed) {
    if (freed > row->blocks) {
        log_error("a file maps more blocks than it counts; run baton check on this store");
        return -EIO;
    }
    row->blocks = row->blocks - freed + added;
    return 0;
}

/* The record's blocks take the place of what was at `first`. */
static int replace(struct change *change, const struct record *r, struct inode_row *row, uint64_t first) {
    uint64_t freed;
    int error = extent_clear(change, row->data, first, first + r->head.blocks, &freed);
    if (!error)
        error = extent_put(change, row->data, first, change->places, change->place_count, r->checksums.data);
    return error ? error : count_blocks(row, r->head.blocks, freed);
}

int apply_write(struct change *change, const struct record *r) {
    struct inode_row row;
    int error = file_get(change, r, &row);
    if (error)
        return error;
    uint64_t end = r->first + r->head.blocks;
    if (r->size < row.size || (r->size > row.size && end != FILE_BLOCKS(r->size)) || reaches_trim(&row, end))
        return -EBADMSG;
    error = replace(change, r, &row, r->first);
    row.size = r->size;
    return error ? error : inode_put(change, r->head.ino, &row);
}

static int set_trim(struct change *change, const struct record *r, struct inode_row *row, uint64_t trim) {
    int error = 0;
    if (trim)
        error = orphan_put(change, ORPHAN_TRIM, r->head.ino, r->head.ino, r->head.time);
    else if (row->trim)
        error = orphan_remove(change, ORPHAN_TRIM, r->head.ino);
    row->trim = trim;
    return error;
}

/* Truncated to nothing: the whole map goes aside under its data id. */
static int swap_data(struct change *change, const struct record *r, struct inode_row *row) {
    int error = id_is_new(change, r, r->new_data);
    if (!error)
        error = orphan_put(change, ORPHAN_DATA, row->data, r->head.ino, r->head.time);
    if (!error)
        error = set_trim(change, r, row, 0);
    row->data = r->new_data;
    row->blocks = 0;
    return error;
}

static int shrink(struct change *change, const struct record *r, struct inode_row *row) {
    uint64_t to = MIN(r->last, FILE_BLOCKS_MAX), freed;
    int error = rows_are_bounded(change, row->data, r->first, to);
    if (!error)
        error = extent_clear(change, row->data, r->first, to, &freed);
    if (!error)
        error = count_blocks(row, 0, freed);
    if (!error && r->head.blocks)
        error = replace(change, r, row, r->first - 1);
    return error ? error : set_trim(change, r, row, r->last == UINT64_MAX ? 0 : r->last);
}

int apply_truncate(struct change *change, const struct record *r) {
    struct inode_row row;
    int error = file_get(change, r, &row);
    if (error)
        return error;
    if (r->size > row.size) {
        if (r->head.blocks || r->new_data || r->last != r->first || reaches_trim(&row, r->first))
            return -EBADMSG;
    } else {
        /* `last` 0 could not be told from no trim. */
        if (r->last == 0 || r->new_data == row.data)
            return -EBADMSG;
        error = r->new_data ? swap_data(change, r, &row) : shrink(change, r, &row);
    }
    row.size = r->size;
    return error ? error : inode_put(change, r->head.ino, &row);
}

int apply_allocate(struct change *change, const struct record *r) {
    struct inode_row row;
    uint64_t added, end = r->first + r->count;
    int error = file_get(change, r, &row);
    if (error)
        return error;
    if (r->size < row.size || (r->size > row.size && FILE_BLOCKS(r->size) > end) || reaches_trim(&row, end) ||
        r->count > (uint64_t)RECORD_ROWS_MAX * EXTENT_UNWRITTEN_MAX)
        return -EBADMSG;
    error = rows_are_bounded(change, row.data, r->first, end);
    if (!error)
        error = extent_fill(change, row.data, r->first, end, &added);
    if (!error)
        error = count_blocks(&row, added, 0);
    row.size = r->size;
    return error ? error : inode_put(change, r->head.ino, &row);
}

int apply_punch(struct change *change, const struct record *r) {
    struct inode_row row;
    uint64_t freed, end = r->first + r->count;
    int error = file_get(change, r, &row);
    if (error)
        return error;
    if (r->size != row.size || reaches_trim(&row, end))
        return -EBADMSG;
    error = rows_are_bounded(change, row.data, r->first, end);
    if (!error)
        error = extent_clear(change, row.data, r->first, end, &freed);
    if (!error)
        error = count_blocks(&row, 0, freed);
    return error ? error : inode_put(change, r->head.ino, &row);
}

/* ---- Reclaim ---- */

static int reclaim_drop(struct change *change, const struct reclaim_step *step) {
    uint64_t to = MIN(step->to, FILE_BLOCKS_MAX), freed;
    struct inode_row row;
    struct span value;
    int error;

    if (step->ino) {
        error = contradiction(inode_get(change->store, step->ino, &row));
        if (!error &&
            (!S_ISREG(row.mode) || row.data != step->id || !(row.nlink == 0 || (row.trim && step->from >= row.trim))))
            error = -EBADMSG;
    } else {
        struct key key = key_orphan(ORPHAN_DATA, step->id);
        error = contradiction(table_get(change->store, TABLE_ORPHAN, &key, &value));
    }
    if (!error)
        error = rows_are_bounded(change, step->id, step->from, to);
    if (!error)
        error = extent_clear(change, step->id, step->from, to, &freed);
    if (error || !step->ino)
        return error;
    error = count_blocks(&row, 0, freed);
    return error ? error : inode_put(change, step->ino, &row);
}

static int remove_xattrs(struct change *change, uint64_t ino, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        struct cursor cursor;
        struct key key = key_u64(ino);
        int error = cursor_open(&cursor, change->store, NULL, TABLE_XATTR);
        if (error)
            return error;
        error = cursor_seek(&cursor, &key);
        if (!error && (cursor.key.length <= 8 || cursor.key.length > KEY_MAX || be64_get(cursor.key.data) != ino))
            error = -ENOENT;
        if (!error) {
            key.length = (uint16_t)cursor.key.length;
            memcpy(key.bytes, cursor.key.data, cursor.key.length);
        }
        cursor_close(&cursor);
        if (!error)
            error = table_remove(change, TABLE_XATTR, &key);
        if (error == -ENOENT) {
            log_error("inode %llu has fewer attributes than it counts; run baton check on this store",
                      (unsigned long long)ino);
            error = -EIO;
        }
        if (error)
            return error;
    }
    return 0;
}

static int reclaim_inode(struct change *change, const struct reclaim_step *step) {
    struct key key = key_u64(step->id);
    struct inode_row row;
    int error = contradiction(inode_get(change->store, step->id, &row));
    if (error)
        return error;
    if (row.nlink != 0 || row.blocks != 0 || row.xattrs > RECLAIM_XATTRS_MAX)
        return -EBADMSG;
    error = orphan_remove(change, ORPHAN_INODE, step->id);
    if (!error && row.trim)
        error = orphan_remove(change, ORPHAN_TRIM, step->id);
    if (!error)
        error = remove_xattrs(change, step->id, row.xattrs);
    return error ? error : table_remove(change, TABLE_INODE, &key);
}

static int reclaim_data(struct change *change, const struct reclaim_step *step) {
    int error = no_rows(change, step->id, 0);
    return error ? error : orphan_remove(change, ORPHAN_DATA, step->id);
}

static int reclaim_trim(struct change *change, const struct reclaim_step *step) {
    struct inode_row row;
    int error = contradiction(inode_get(change->store, step->id, &row));
    if (!error && !row.trim)
        error = -EBADMSG;
    if (!error)
        error = no_rows(change, row.data, row.trim);
    if (!error)
        error = orphan_remove(change, ORPHAN_TRIM, step->id);
    row.trim = 0;
    return error ? error : inode_put(change, step->id, &row);
}

int apply_reclaim(struct change *change, const struct record *r) {
    int error = 0;

    for (uint32_t i = 0; i < r->step_count && !error; i++) {
        const struct reclaim_step *step = &r->steps[i];
        switch (step->kind) {
        case RECLAIM_DROP:
            error = reclaim_drop(change, step);
            break;
        case RECLAIM_INODE:
            error = reclaim_inode(change, step);
            break;
        case RECLAIM_DATA:
            error = reclaim_data(change, step);
            break;
        case RECLAIM_TRIM:
            error = reclaim_trim(change, step);
            break;
        default:
            error = -EBADMSG;
        }
    }
    return error;
}
