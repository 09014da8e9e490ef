/* op_write: whole blocks into free places, then the map is changed. Large data is written without the lock; what was
 * read of the old state then, the blocks at the edges and the size, is looked at again before the record is made. */
#include "fs/ops_parts.h"

#include <stdio.h>
#include <sys/stat.h>

#define WRITE_ZERO 256u /* of this file: zeros, only where the block is written, only within the file */

struct writing {
    struct store *store;
    uint64_t ino;
    const uint8_t *bytes; /* NULL: zeros */
    size_t length;
    uint64_t offset;
    unsigned flags;

    /* Looked at under the lock. */
    struct inode_row row;
    uint64_t first;
    uint32_t blocks;
    bool has_head, has_tail; /* the first, the last block is not written in full; one block has its head only */
    struct edge head, tail;

    /* Made of it. */
    uint8_t *buffer; /* our own copy, if the caller's bytes do not do */
    const uint8_t *payload;
    size_t payload_length; /* without zeros at the end */
    struct place places[STORE_PLACES_MAX];
    uint32_t place_count;
    uint64_t *checksums; /* room for RECORD_BLOCKS_MAX */
};

static uint64_t end_of(const struct writing *w) {
    return w->offset + w->length;
}

/* Of the file itself: kind, limits, where an append goes. */
static int look_at_file(struct writing *w) {
    int error = op_inode(w->store, w->ino, &w->row);
    if (error)
        return error;
    if (!S_ISREG(w->row.mode))
        return S_ISDIR(w->row.mode) ? -EISDIR : -EINVAL;
    if (w->flags & WRITE_APPEND)
        w->offset = w->row.size;
    if (w->flags & WRITE_ZERO) {
        if (w->offset >= w->row.size)
            return TRY_NOTHING;
        w->length = MIN(w->length, w->row.size - w->offset);
    }
    if (w->offset > FILE_SIZE_MAX || w->length > FILE_SIZE_MAX - w->offset)
        return -EFBIG;
    return trim_in_the_way(&w->row, FILE_BLOCKS(end_of(w))) ? TRY_TRIM : 0;
}

static int look(struct writing *w) {
    int error = look_at_file(w);
    if (error)
        return error;
    uint64_t last = (end_of(w) - 1) / BATON_BLOCK;
    w->first = w->offset / BATON_BLOCK;
    w->blocks = (uint32_t)(last - w->first + 1);
    bool tail_cut = end_of(w) % BATON_BLOCK != 0;
    w->has_head = w->offset % BATON_BLOCK != 0 || (tail_cut && w->blocks == 1);
    w->has_tail = tail_cut && w->blocks > 1;
    if (w->has_head)
        error = edge_look(w->store, w->row.data, w->first, &w->head);
    if (!error && w->has_tail)
        error = edge_look(w->store, w->row.data, last, &w->tail);
    if (!error && w->flags & WRITE_ZERO && w->has_head && !w->head.written)
        error = TRY_NOTHING;
    return error;
}

/* Must the old block be read? What lies beyond the file's end is zero on disk, so a write that ends there need not. */
static bool must_read_head(const struct writing *w) {
    if (!w->has_head || !w->head.written)
        return false;
    bool before = w->offset % BATON_BLOCK != 0 && w->first * BATON_BLOCK < w->row.size;
    bool behind = w->blocks == 1 && end_of(w) < w->row.size;
    return before || behind;
}

static bool must_read_tail(const struct writing *w) {
    return w->has_tail && w->tail.written && end_of(w) < w->row.size;
}

static int read_edge(struct writing *w, const struct edge *edge, bool hold, uint8_t *block) {
    return hold ? edge_read(w->store, edge, block) : edge_read_mended(w->store, w->ino, w->row.data, edge, block);
}

/* The payload and its checksums. */
static int prepare(struct writing *w, bool hold) {
    size_t whole = (size_t)w->blocks * BATON_BLOCK;
    bool tail = must_read_tail(w);

    w->payload = w->bytes;
    w->payload_length = w->length;
    if (!w->bytes || w->offset % BATON_BLOCK || must_read_head(w) || tail) {
        size_t at = w->offset % BATON_BLOCK;
        int error = 0;
        if (!w->buffer)
            w->buffer = malloc(whole);
        if (!w->buffer)
            return -ENOMEM;
        if (must_read_head(w))
            error = read_edge(w, &w->head, hold, w->buffer);
        else
            memset(w->buffer, 0, BATON_BLOCK);
        if (!error && w->blocks > 1 && tail)
            error = read_edge(w, &w->tail, hold, w->buffer + whole - BATON_BLOCK);
        else if (w->blocks > 1)
            memset(w->buffer + whole - BATON_BLOCK, 0, BATON_BLOCK);
        if (error)
            return error;
        if (w->bytes)
            memcpy(w->buffer + at, w->bytes, w->length);
        else
            memset(w->buffer + at, 0, w->length);
        w->payload = w->buffer;
        w->payload_length = whole;
    }
    w->payload_length = length_without_zeros(w->payload, w->payload_length);
    payload_checksums(w->payload, w->payload_length, w->blocks, w->checksums);
    return 0;
}

/* Is all as it was when the payload was made? */
static int look_again(struct writing *w) {
    struct inode_row row;
    struct edge edge;
    int error = op_inode(w->store, w->ino, &row);
    if (error)
        return error;
    if ((w->flags & WRITE_APPEND && row.size != w->row.size) || (w->flags & WRITE_ZERO && row.size < end_of(w)))
        return TRY_AGAIN;
    if (trim_in_the_way(&row, FILE_BLOCKS(end_of(w))))
        return TRY_TRIM;
    w->row = row;
    if (w->has_head) {
        error = edge_look(w->store, row.data, w->head.block, &edge);
        if (!error && !edge_is_same(&edge, &w->head))
            error = TRY_AGAIN;
    }
    if (!error && w->has_tail) {
        error = edge_look(w->store, row.data, w->tail.block, &edge);
        if (!error && !edge_is_same(&edge, &w->tail))
            error = TRY_AGAIN;
    }
    return error;
}

static int append(struct writing *w, uint64_t *lsn) {
    struct record record = {.head.type = RECORD_WRITE,
                            .head.ino = w->ino,
                            .head.blocks = w->blocks,
                            .head.payload = (uint32_t)w->payload_length,
                            .first = w->first,
                            .size = MAX(w->row.size, end_of(w)),
                            .checksums = {(const uint8_t *)w->checksums, w->blocks * 8}};
    if (w->flags & WRITE_KILL_PRIV)
        record_kill_priv(&record, &w->row);
    record.head.time = store_next_time(w->store, w->row.ctime);
    return op_append(w->store, &record, w->payload, w->places, w->place_count, lsn);
}

/* While the lock was not held an edge may have moved; else it has not, and nothing can be mended either. */
static int explain_read(const struct writing *w, int error, bool hold) {
    if (!hold)
        return error == -ESTALE ? TRY_AGAIN : error;
    if (error != -EIO && error != -ENOENT)
        return error;
    log_error("inode %llu: a block at %llu, of which a part is to be overwritten, cannot be read or fails its "
              "checksum; run baton scrub",
              (unsigned long long)w->ino, (unsigned long long)w->offset);
    return -EIO;
}

/* hold: the lock is not given up meanwhile. */
static int attempt(struct writing *w, bool hold, uint64_t *lsn) {
    enum space_class class = w->flags & WRITE_ZERO ? SPACE_FREE : SPACE_GROW;
    int error = op_begin(w->store, class);
    if (error)
        return error;
    w->place_count = 0;
    error = look(w);
    if (!error)
        error = store_allocate(w->store, w->blocks, w->places, &w->place_count);
    if (error)
        goto out;
    /* Small and nothing to read: writing into the page cache takes less than coming back would. */
    bool small = w->blocks * BATON_BLOCK <= STORE_INLINE_MAX && !must_read_head(w) && !must_read_tail(w);
    bool leave = !hold && !small;
    if (leave)
        store_unlock(w->store);
    error = prepare(w, hold);
    if (error)
        error = explain_read(w, error, hold);
    else
        error = store_write_blocks(w->store, w->places, w->place_count, w->payload, w->payload_length);
    if (leave) {
        store_lock(w->store);
        if (!error)
            error = store_admit(w->store, class); /* meanwhile others may have filled tail and batch */
        if (!error)
            error = look_again(w);
    }
    if (!error)
        error = append(w, lsn);
    if (error)
        store_release(w->store, w->places, w->place_count);
out:
    store_unlock(w->store);
    return error;
}

static int write_chunk(struct writing *w, uint64_t *lsn) {
    bool waited = false;
    int error = TRY_AGAIN;
    for (unsigned tries = 0; error == TRY_AGAIN || error == TRY_TRIM; tries++) {
        if (error == TRY_TRIM) {
            error = finish_trim(w->store, w->ino);
            if (error)
                break;
        }
        error = attempt(w, tries >= DATA_TRIES, lsn);
        free(w->buffer);
        w->buffer = NULL;
        if (error == -ENOSPC && !waited) { /* the next attempt first waits for history to yield */
            waited = true;
            error = TRY_AGAIN;
        }
    }
    return error;
}

int op_write(struct store *store, uint64_t ino, const void *bytes, size_t length, uint64_t offset, unsigned flags,
             uint64_t *lsn) {
    struct writing w = {.store = store, .ino = ino, .flags = flags & (WRITE_APPEND | WRITE_KILL_PRIV)};
    uint64_t checksums[RECORD_BLOCKS_MAX];
    const uint8_t *at = bytes;

    *lsn = 0;
    w.checksums = checksums;
    while (length > 0) {
        /* An append's place in its block is not known yet: one block less then. */
        uint64_t room = flags & WRITE_APPEND ? (RECORD_BLOCKS_MAX - 1) * (uint64_t)BATON_BLOCK
                                             : RECORD_BLOCKS_MAX * (uint64_t)BATON_BLOCK - offset % BATON_BLOCK;
        w.bytes = at;
        w.offset = offset;
        w.length = MIN(length, room);
        int error = write_chunk(&w, lsn);
        if (error)
            return error;
        at += w.length;
        offset += w.length;
        length -= w.length;
    }
    return 0;
}

int zero_part(struct store *store, uint64_t ino, uint64_t offset, uint64_t length, uint64_t *lsn) {
    struct writing w = {.store = store, .ino = ino, .flags = WRITE_ZERO, .offset = offset, .length = length};
    uint64_t checksum;
    w.checksums = &checksum; /* one block */
    PROMISE(length > 0 && offset / BATON_BLOCK == (offset + length - 1) / BATON_BLOCK);
    int error = write_chunk(&w, lsn);
    return error == TRY_NOTHING ? 0 : error;
}
