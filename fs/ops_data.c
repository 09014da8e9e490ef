/* op_read, op_seek, op_copy: what a file's map says, and the blocks behind it. Writing is in ops_write.c, sizes and
 * ranges in ops_size.c. */
#include "fs/history.h"
#include "fs/mend.h"
#include "fs/ops_parts.h"

#include <stdio.h>
#include <sys/stat.h>

/* ---- Read ---- */

#define READ_TRIES 8u

struct piece { /* written blocks that lie side by side */
    uint64_t first;
    struct place place;
};

struct reading {
    struct store *store;
    uint64_t ino;
    uint8_t *buffer;
    size_t room;   /* of the buffer */
    size_t length; /* to be given: within the file */
    uint64_t offset;
    struct piece *pieces; /* one for each block at most */
    uint32_t count;
    uint64_t *checksums; /* one for each block from the first on; holes unset */
    uint64_t data;
    bool mends; /* block by block, and those that are bad are mended */
};

static uint64_t first_block(const struct reading *r) {
    return r->offset / BATON_BLOCK;
}

static uint64_t block_count(const struct reading *r) {
    return FILE_BLOCKS(r->offset + r->length) - first_block(r);
}

static int note_part(void *context, const struct extent_part *part) {
    struct reading *r = context;
    if (!part->checksums)
        return 0;
    memcpy(&r->checksums[part->first - first_block(r)], part->checksums, part->place.count * 8ull);
    if (r->count > 0) {
        struct piece *last = &r->pieces[r->count - 1];
        if (last->first + last->place.count == part->first && last->place.segment == part->place.segment &&
            last->place.position + last->place.count == part->place.position) {
            last->place.count += part->place.count;
            return 0;
        }
    }
    r->pieces[r->count++] = (struct piece){part->first, part->place};
    return 0;
}

/* Collects what there is to read. The lists are kept from try to try: the length does not grow. */
static int collect(struct reading *r) {
    struct inode_row row;
    store_lock(r->store);
    int error = op_inode(r->store, r->ino, &row);
    if (!error && !S_ISREG(row.mode))
        error = S_ISDIR(row.mode) ? -EISDIR : -EINVAL;
    if (!error) {
        r->data = row.data;
        r->length = r->offset < row.size ? MIN(r->length, row.size - r->offset) : 0;
        r->count = 0;
        if (r->length)
            error = extent_walk(r->store, row.data, first_block(r), block_count(r), note_part, r);
    }
    store_unlock(r->store);
    return error;
}

/* Where a block's bytes begin in the buffer; negative for a first block that begins before it. */
static int64_t buffer_at(const struct reading *r, uint64_t block) {
    return (int64_t)(block * BATON_BLOCK) - (int64_t)r->offset;
}

static uint64_t checksum_of(const struct reading *r, uint64_t block) {
    return r->checksums[block - first_block(r)];
}

static int check_blocks(const struct reading *r, const uint8_t *bytes, uint64_t block, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (block_checksum(bytes + (size_t)i * BATON_BLOCK) != checksum_of(r, block + i))
            return -EIO;
    return 0;
}

/* One block that does not fit into the buffer as a whole. */
static int read_bounced(struct reading *r, uint64_t block, struct place place) {
    uint8_t bytes[BATON_BLOCK];
    int error = store_read_blocks(r->store, place, bytes);
    if (!error)
        error = check_blocks(r, bytes, block, 1);
    if (r->mends && (error == -EIO || error == -ENOENT))
        error = mend_read(r->store, r->ino, r->data, block, place, checksum_of(r, block), bytes, NULL);
    if (error)
        return error;
    int64_t at = buffer_at(r, block);
    size_t skip = at < 0 ? (size_t)-at : 0, to = at < 0 ? 0 : (size_t)at;
    memcpy(r->buffer + to, bytes + skip, MIN(BATON_BLOCK - skip, r->length - to));
    return 0;
}

static int read_singly(struct reading *r, struct piece piece) {
    int error = 0;
    for (uint32_t i = 0; i < piece.place.count && !error; i++)
        error = read_bounced(r, piece.first + i, (struct place){piece.place.segment, piece.place.position + i, 1});
    return error;
}

static int read_piece(struct reading *r, struct piece piece) {
    int error = 0;
    if (r->mends)
        return read_singly(r, piece);
    if (buffer_at(r, piece.first) < 0) {
        error = read_bounced(r, piece.first, (struct place){piece.place.segment, piece.place.position, 1});
        piece.first++;
        piece.place.position++;
        piece.place.count--;
    }
    if (error || piece.place.count == 0)
        return error;
    uint64_t last = piece.first + piece.place.count - 1;
    bool cut = (uint64_t)buffer_at(r, last) + BATON_BLOCK > r->room;
    if (cut) {
        struct place place = {piece.place.segment, piece.place.position + piece.place.count - 1, 1};
        error = read_bounced(r, last, place);
        piece.place.count--;
    }
    if (error || piece.place.count == 0)
        return error;
    uint8_t *to = r->buffer + buffer_at(r, piece.first);
    error = store_read_blocks(r->store, piece.place, to);
    return error ? error : check_blocks(r, to, piece.first, piece.place.count);
}

static void zero_gap(struct reading *r, size_t from, int64_t to) {
    if (to > (int64_t)from)
        memset(r->buffer + from, 0, (size_t)to - from);
}

/* All pieces, and zeros between them. */
static int fill(struct reading *r) {
    size_t done = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        struct piece piece = r->pieces[i];
        zero_gap(r, done, buffer_at(r, piece.first));
        int error = read_piece(r, piece);
        if (error)
            return error;
        done = (size_t)MIN(buffer_at(r, piece.first + piece.place.count), (int64_t)r->length);
    }
    zero_gap(r, done, (int64_t)r->length);
    return 0;
}

ssize_t op_read(struct store *store, uint64_t ino, void *buffer, size_t length, uint64_t offset) {
    struct reading r = {.store = store, .ino = ino, .buffer = buffer, .room = length, .offset = offset};
    int error = 0;

    if (offset >= FILE_SIZE_MAX || length == 0)
        return 0;
    r.length = MIN(length, FILE_SIZE_MAX - offset);
    uint64_t blocks = block_count(&r);
    AUTO_FREE struct piece *pieces = malloc(blocks * (sizeof *pieces + sizeof *r.checksums));
    if (!pieces)
        return -ENOMEM;
    r.checksums = (uint64_t *)pieces; /* these first: they are the ones that care for alignment */
    r.pieces = (struct piece *)(r.checksums + blocks);
    /* A block that reads wrong may have moved and been punched since the map was read: look again. */
    for (unsigned tries = 0; tries < READ_TRIES; tries++) {
        r.mends = tries > 0 && !history_is(store);
        error = collect(&r);
        if (error)
            return error;
        error = fill(&r);
        if (!error)
            return (ssize_t)r.length;
        if (error != (r.mends ? -ESTALE : -EIO) && error != -ENOENT)
            return error;
    }
    if (!history_is(store)) /* else whoever asked tells it */
        log_error("inode %llu: the map from byte %llu on changes each time it is read", (unsigned long long)ino,
                  (unsigned long long)offset);
    return -EIO;
}

/* ---- Seek ---- */

#define SEEK_ROWS 4096u /* looked at under one hold of the lock */

struct seeking {
    bool data;      /* for the first written block; else for the first that is not */
    uint64_t block; /* not yet decided from here on */
    uint32_t rows;
};

/* 1: found, it is `block`; 2: enough for one hold. */
static int seek_part(void *context, const struct extent_part *part) {
    struct seeking *s = context;
    if (s->data && part->checksums) {
        s->block = part->first;
        return 1;
    }
    if (!s->data && (!part->checksums || part->first > s->block))
        return 1;
    s->block = part->first + part->place.count;
    return ++s->rows >= SEEK_ROWS ? 2 : 0;
}

int64_t op_seek(struct store *store, uint64_t ino, uint64_t offset, int whence) {
    struct seeking s = {.data = whence == SEEK_DATA, .block = offset / BATON_BLOCK};
    struct inode_row row;
    int found = 2;

    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    while (found == 2) {
        store_lock(store);
        int error = op_inode(store, ino, &row);
        if (!error && !S_ISREG(row.mode))
            error = -EINVAL;
        if (!error && offset >= row.size)
            error = -ENXIO;
        s.rows = 0;
        if (!error)
            error = found = extent_walk(store, row.data, s.block,
                                        FILE_BLOCKS(row.size) - MIN(s.block, FILE_BLOCKS(row.size)), seek_part, &s);
        store_unlock(store);
        if (error < 0)
            return error;
    }
    if (found == 0 && s.data)
        return -ENXIO;
    uint64_t at = MAX(offset, s.block * BATON_BLOCK);
    if (at < row.size)
        return (int64_t)at;
    return s.data ? -ENXIO : (int64_t)row.size;
}

/* ---- Copy ---- */

#define COPY_BYTES (1u << 20)

int64_t op_copy(struct store *store, uint64_t from, uint64_t from_offset, uint64_t to, uint64_t to_offset,
                uint64_t length, uint64_t *lsn) {
    AUTO_FREE uint8_t *buffer = malloc(COPY_BYTES);
    uint64_t done = 0, unused, one = 0;

    *lsn = 0;
    if (!buffer)
        return -ENOMEM;
    if (ADD_OVERFLOWS(from_offset, length, &unused) || ADD_OVERFLOWS(to_offset, length, &unused))
        return -EINVAL;
    while (done < length) {
        ssize_t n = op_read(store, from, buffer, (size_t)MIN(length - done, COPY_BYTES), from_offset + done);
        int error = n < 0 ? (int)n : 0;
        if (n > 0)
            error = op_write(store, to, buffer, (size_t)n, to_offset + done, 0, &one);
        if (error)
            return done ? (int64_t)done : error;
        if (n == 0)
            break;
        *lsn = one;
        done += (uint64_t)n;
    }
    return (int64_t)done;
}
