/* Operations on a file's size and on ranges of its map: truncate, fallocate. */
#include "fs/ops_parts.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

static int file_row(struct store *store, uint64_t ino, struct inode_row *row) {
    int error = op_inode(store, ino, row);
    if (!error && !S_ISREG(row->mode))
        error = S_ISDIR(row->mode) ? -EISDIR : -EINVAL;
    return error;
}

/* ---- Truncate ---- */

struct truncating {
    struct store *store;
    uint64_t ino;
    uint64_t size;
    bool kill_priv;
    struct inode_row row;
    bool has_edge; /* the last block that stays loses its end */
    struct edge edge;
    uint8_t block[BATON_BLOCK];
    bool has_block; /* it has to be written anew, so much of it: */
    size_t block_length;
};

static int look(struct truncating *t) {
    int error = file_row(t->store, t->ino, &t->row);
    if (error)
        return error;
    t->has_edge = false;
    if (t->size > t->row.size)
        return trim_in_the_way(&t->row, FILE_BLOCKS(t->size)) ? TRY_TRIM : 0;
    if (t->size % BATON_BLOCK && t->size < t->row.size) {
        error = edge_look(t->store, t->row.data, t->size / BATON_BLOCK, &t->edge);
        t->has_edge = t->edge.written;
    }
    return error;
}

/* Zeros behind the new end; often there are already. */
static int read_edge(struct truncating *t, bool hold) {
    size_t keep = t->size % BATON_BLOCK;
    int error = hold ? edge_read(t->store, &t->edge, t->block)
                     : edge_read_mended(t->store, t->ino, t->row.data, &t->edge, t->block);
    if (error)
        return error;
    size_t used = length_without_zeros(t->block, BATON_BLOCK);
    t->has_block = used > keep;
    t->block_length = length_without_zeros(t->block, MIN(used, keep));
    memset(t->block + keep, 0, BATON_BLOCK - keep);
    return 0;
}

static int append_truncate(struct truncating *t, struct record *record, uint64_t *lsn) {
    struct place places[STORE_PLACES_MAX];
    uint32_t place_count = 0;
    uint64_t checksum;
    int error = 0;

    if (t->kill_priv)
        record_kill_priv(record, &t->row);
    record->head.time = store_next_time(t->store, t->row.ctime);
    if (t->has_edge && t->has_block) {
        checksum = block_checksum(t->block);
        record->head.blocks = 1;
        record->head.payload = (uint32_t)t->block_length;
        record->checksums = (struct span){(const uint8_t *)&checksum, 8};
        error = store_allocate(t->store, 1, places, &place_count);
        if (!error)
            error = store_write_blocks(t->store, places, place_count, t->block, t->block_length);
    }
    if (!error)
        error = op_append(t->store, record, t->block, places, place_count, lsn);
    if (error && place_count)
        store_release(t->store, places, place_count);
    return error;
}

static int shrink_or_grow(struct truncating *t, uint64_t *lsn) {
    struct record record = {.head.type = RECORD_TRUNCATE, .head.ino = t->ino, .size = t->size};
    uint32_t rows;

    record.first = FILE_BLOCKS(t->size);
    record.last = record.first;
    if (t->size <= t->row.size) {
        int error = extent_bound(t->store, t->row.data, record.first, ops_rows_max, &record.last, &rows);
        if (error)
            return error;
        if (t->size == 0 && record.last != UINT64_MAX) {
            record.new_data = store_next_id(t->store, 0);
            record.last = UINT64_MAX;
        }
    }
    return append_truncate(t, &record, lsn);
}

/* Reads the last block that stays; without the lock, if that is not to be held. */
static int fetch_edge(struct truncating *t, bool hold) {
    struct edge seen = t->edge;
    int admitted = 0;

    if (!hold)
        store_unlock(t->store);
    int error = read_edge(t, hold);
    if (!hold) {
        store_lock(t->store);
        admitted = store_admit(t->store, SPACE_FREE); /* meanwhile others may have filled tail and batch */
    }
    if (admitted)
        return admitted;
    if (error == 0) {
        error = look(t);
        return error || (t->has_edge && edge_is_same(&seen, &t->edge)) ? error : TRY_AGAIN;
    }
    if (!hold)
        return error == -ESTALE ? TRY_AGAIN : error; /* it has moved */
    if (error != -EIO && error != -ENOENT)
        return error;
    log_error("inode %llu: the block at %llu, where the file is to end, cannot be read or fails its checksum; run "
              "baton scrub",
              (unsigned long long)t->ino, (unsigned long long)t->size);
    return -EIO;
}

static int attempt_truncate(struct truncating *t, bool hold, uint64_t *lsn) {
    int error = op_begin(t->store, SPACE_FREE);
    if (error)
        return error;
    error = look(t);
    if (!error && t->has_edge)
        error = fetch_edge(t, hold);
    if (!error)
        error = shrink_or_grow(t, lsn);
    store_unlock(t->store);
    return error;
}

int op_truncate(struct store *store, uint64_t ino, uint64_t size, bool kill_priv, uint64_t *lsn) {
    struct truncating t = {.store = store, .ino = ino, .size = size, .kill_priv = kill_priv};
    int error = TRY_AGAIN;

    *lsn = 0;
    if (size > FILE_SIZE_MAX)
        return -EFBIG;
    for (unsigned tries = 0; error == TRY_AGAIN || error == TRY_TRIM; tries++) {
        if (error == TRY_TRIM) {
            error = finish_trim(store, ino);
            if (error)
                break;
        }
        error = attempt_truncate(&t, tries >= DATA_TRIES, lsn);
    }
    return error;
}

/* ---- fallocate ---- */

struct range {
    struct store *store;
    uint64_t ino;
    uint16_t type;      /* RECORD_ALLOCATE, RECORD_PUNCH */
    uint64_t first, to; /* blocks; first moves on */
    uint64_t size;      /* ALLOCATE: the file reaches at least here afterwards; 0: keeps its size */
    uint64_t limit;     /* PUNCH: TRY_AGAIN if the file is longer than this by now; 0: no matter */
};

/* One record's worth of the range. */
static int range_step(struct range *range, uint64_t *lsn) {
    struct record record = {.head.type = range->type, .head.ino = range->ino, .first = range->first};
    struct inode_row row;
    uint64_t bound;
    uint32_t rows;
    int error = file_row(range->store, range->ino, &row);
    if (error)
        return error;
    uint64_t end = MIN(range->to, range->first + EXTENT_UNWRITTEN_MAX);
    if (range->limit && row.size > range->limit)
        return TRY_AGAIN;
    if (range->type == RECORD_PUNCH) { /* holes take no rows, so any length will do */
        end = row.trim ? MIN(range->to, row.trim) : range->to;
        if (end <= range->first)
            return TRY_NOTHING;
    } else if (trim_in_the_way(&row, end)) {
        return TRY_TRIM;
    }
    error = extent_bound(range->store, row.data, range->first, ops_rows_max, &bound, &rows);
    if (error)
        return error;
    end = MIN(end, bound);
    record.count = end - range->first;
    record.size = row.size;
    if (range->size > row.size)
        record.size = MAX(row.size, MIN(range->size, end * BATON_BLOCK));
    record.head.time = store_next_time(range->store, row.ctime);
    error = op_append(range->store, &record, NULL, NULL, 0, lsn);
    if (!error)
        range->first = end;
    return error;
}

static int change_range(struct range range, uint64_t *lsn) {
    int error = 0;
    while (!error && range.first < range.to) {
        error = op_begin(range.store, range.type == RECORD_PUNCH ? SPACE_FREE : SPACE_GROW);
        if (error)
            return error;
        error = range_step(&range, lsn);
        store_unlock(range.store);
        if (error == TRY_TRIM)
            error = finish_trim(range.store, range.ino);
    }
    return error == TRY_NOTHING ? 0 : error;
}

/* Zeros [offset, end), the whole blocks in it by giving them back. A range that reaches the file's end takes the last
 * block as a whole, behind the end are zeros anyway; unless a write has made the file longer when the record is made:
 * TRY_AGAIN. */
static int zero_range(struct store *store, uint64_t ino, uint64_t size, uint64_t offset, uint64_t end, uint64_t *lsn) {
    bool over_end = end >= size && end % BATON_BLOCK;
    struct range range = {.store = store,
                          .ino = ino,
                          .type = RECORD_PUNCH,
                          .first = FILE_BLOCKS(offset),
                          .to = over_end ? FILE_BLOCKS(end) : end / BATON_BLOCK,
                          .limit = over_end ? end : 0};
    int error = 0;
    if (offset % BATON_BLOCK)
        error = zero_part(store, ino, offset, MIN(end, range.first * BATON_BLOCK) - offset, lsn);
    if (!error && !over_end && end % BATON_BLOCK && range.to >= range.first)
        error = zero_part(store, ino, range.to * BATON_BLOCK, end % BATON_BLOCK, lsn);
    if (!error && range.first < range.to)
        error = change_range(range, lsn);
    return error;
}

/* Would so many blocks find room on the disk? Those that the file has already need none. */
static int check_room(struct store *store, uint64_t ino, uint64_t blocks) {
    struct attributes attributes;
    struct store_space space;
    int error = op_getattr(store, ino, &attributes);
    if (!error)
        error = store_space(store, &space);
    if (error)
        return error;
    uint64_t had = attributes.row.blocks;
    return blocks > had && blocks - had > space.free / BATON_BLOCK ? -ENOSPC : 0;
}

int op_fallocate(struct store *store, uint64_t ino, int mode, uint64_t offset, uint64_t length, uint64_t *lsn) {
    bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
    int kind = mode & ~FALLOC_FL_KEEP_SIZE;
    struct inode_row row;
    uint64_t end;

    *lsn = 0;
    if ((kind != 0 && kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE) ||
        (kind == FALLOC_FL_PUNCH_HOLE && !keep))
        return -EOPNOTSUPP;
    if (length == 0)
        return -EINVAL;
    if (ADD_OVERFLOWS(offset, length, &end) || end > FILE_SIZE_MAX)
        return -EFBIG;
    store_lock(store);
    int error = file_row(store, ino, &row);
    store_unlock(store);
    struct range all = {store, ino, RECORD_ALLOCATE, offset / BATON_BLOCK, FILE_BLOCKS(end), keep ? 0 : end, 0};
    if (!error && kind != FALLOC_FL_PUNCH_HOLE)
        error = check_room(store, ino, all.to - all.first);
    if (!error && kind != 0) {
        error = zero_range(store, ino, row.size, offset, end, lsn);
        if (error == TRY_AGAIN) /* not over the end any more, whatever its length is now */
            error = zero_range(store, ino, UINT64_MAX, offset, end, lsn);
    }
    if (!error && kind != FALLOC_FL_PUNCH_HOLE)
        error = change_range(all, lsn);
    return error;
}
