#include "fs/ops_parts.h"

#include "fs/mend.h"

#include <sys/stat.h>

uint32_t ops_rows_max = 256;

int op_begin(struct store *store, enum space_class class) {
    store_lock(store);
    int error = store_admit(store, class);
    if (error)
        store_unlock(store);
    return error;
}

int op_inode(struct store *store, uint64_t ino, struct inode_row *row) {
    int error = inode_get(store, ino, row);
    return error == -ENOENT ? -ESTALE : error;
}

int op_append(struct store *store, struct record *record, const void *payload, const struct place *places,
              uint32_t place_count, uint64_t *lsn) {
    int error = store_append(store, record, payload, places, place_count);
    if (error == 0) {
        *lsn = record->head.lsn;
    } else if (error == -EBADMSG || error == -EINVAL) {
        log_error("a record of type %s for inode %llu does not fit the tables; run baton check on this store",
                  record_type_name(record->head.type), (unsigned long long)record->head.ino);
        error = -EIO;
    }
    return error;
}

struct file_time later_time(struct file_time a, struct file_time b) {
    return file_time_compare(a, b) < 0 ? b : a;
}

uint32_t mode_without_set_id(uint32_t mode) {
    mode &= ~(uint32_t)S_ISUID;
    return mode & S_IXGRP ? mode & ~(uint32_t)S_ISGID : mode; /* set-gid without execute once meant locking */
}

void record_kill_priv(struct record *record, const struct inode_row *row) {
    uint32_t mode = mode_without_set_id(row->mode);
    if (mode != row->mode) {
        record->flags |= WRITE_SET_MODE;
        record->mode = mode & 07777;
    }
    if (row->flags & INODE_CAPABILITY)
        record->flags |= WRITE_NO_CAPABILITY;
}

struct bounding {
    uint32_t rows, limit;
    uint64_t bound;
};

static int bound_row(void *context, const struct extent_part *part) {
    struct bounding *bounding = context;
    if (bounding->rows == bounding->limit) {
        bounding->bound = part->first;
        return 1;
    }
    bounding->rows++;
    return 0;
}

int extent_bound(struct store *store, uint64_t data, uint64_t first, uint32_t limit, uint64_t *bound, uint32_t *rows) {
    struct bounding bounding = {0, limit, UINT64_MAX};
    int error = extent_walk(store, data, first, UINT64_MAX, bound_row, &bounding);
    *bound = bounding.bound;
    *rows = bounding.rows;
    return error < 0 ? error : 0;
}

static int edge_take(void *context, const struct extent_part *part) {
    struct edge *edge = context;
    if (part->checksums) {
        edge->written = true;
        edge->place = part->place;
        memcpy(&edge->checksum, part->checksums, 8);
    }
    return 0;
}

int edge_look(struct store *store, uint64_t data, uint64_t block, struct edge *edge) {
    *edge = (struct edge){.block = block};
    return extent_walk(store, data, block, 1, edge_take, edge);
}

bool edge_is_same(const struct edge *a, const struct edge *b) {
    if (a->block != b->block || a->written != b->written)
        return false;
    return !a->written || (a->place.segment == b->place.segment && a->place.position == b->place.position &&
                           a->checksum == b->checksum);
}

int edge_read(struct store *store, const struct edge *edge, uint8_t block[BATON_BLOCK]) {
    if (!edge->written) {
        memset(block, 0, BATON_BLOCK);
        return 0;
    }
    int error = store_read_blocks(store, edge->place, block);
    return !error && block_checksum(block) != edge->checksum ? -EIO : error;
}

int edge_read_mended(struct store *store, uint64_t ino, uint64_t data, const struct edge *edge, uint8_t block[BATON_BLOCK]) {
    int error = edge_read(store, edge, block);
    if (error == -EIO || error == -ENOENT)
        error = mend_read(store, ino, data, edge->block, edge->place, edge->checksum, block, NULL);
    return error;
}

size_t length_without_zeros(const uint8_t *bytes, size_t length) {
    while (length % 8 && bytes[length - 1] == 0)
        length--;
    if (length % 8)
        return length;
    for (; length >= 8; length -= 8) {
        uint64_t word;
        memcpy(&word, bytes + length - 8, 8);
        if (word)
            break;
    }
    while (length > 0 && bytes[length - 1] == 0)
        length--;
    return length;
}

void payload_checksums(const uint8_t *payload, size_t length, uint32_t blocks, uint64_t *checksums) {
    size_t at = 0;
    for (uint32_t i = 0; i < blocks; i++) {
        size_t here = MIN(length - at, BATON_BLOCK);
        checksums[i] = block_checksum_part(payload + at, here);
        at += here;
    }
}
