/* Comparing what lies below some paths: the names themselves, and all rows of each inode below. */
#include "replication/verify_internal.h"

#include "fs/apply.h"
#include "fs/history.h"
#include "fs/ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define DIRECTORIES_MAX (4u << 20) /* that wait for their turn */
#define CHILDREN 512u              /* looked at in one portion */
#define BATCH_BYTES (1u << 20)     /* at the slowest rate less than COMPARE_IDLE, for which the other node keeps its state */

struct batch { /* small ranges, compared together */
    unsigned count;
    uint32_t bytes; /* of rows */
    struct range ranges[COPY_RANGES_MAX];
    uint8_t hashes[COPY_RANGES_MAX][RANGE_HASH];
    uint32_t rows[COPY_RANGES_MAX];
    enum verify_hash seen[COPY_RANGES_MAX];
};

struct tree_walk {
    struct verifying *v;
    struct batch batch;
    uint64_t *directories;
    uint32_t directory_count, directory_room;
    struct { /* a portion of a directory */
        uint64_t ino;
        bool directory;
    } children[CHILDREN];
    unsigned child_count;
    struct key behind; /* the portion */
};

static int flush(struct tree_walk *walk) {
    struct verifying *v = walk->v;
    struct batch *batch = &walk->batch;
    int rc = batch->count ? verify_hashes(v, batch->ranges, batch->hashes, batch->count, batch->seen) : 0;
    for (unsigned i = 0; rc == 0 && i < batch->count; i++)
        rc = verify_narrow(v, &batch->ranges[i], batch->rows[i], batch->seen[i]);
    verify_pace(v, batch->bytes);
    batch->count = batch->bytes = 0;
    return rc == 0 && !verify_goes_on(v) ? -ECANCELED : rc;
}

static int add(struct tree_walk *walk, const struct range *range) {
    struct verifying *v = walk->v;
    struct batch *batch = &walk->batch;
    struct range part = *range;
    uint32_t bytes;
    store_lock(v->past);
    int rc = range_cut(v->past, &part, COMPARE_ROWS, BATCH_BYTES, batch->hashes[batch->count], &batch->rows[batch->count], &bytes);
    store_unlock(v->past);
    if (rc == 0) /* too large for here */
        return verify_range(v, range);
    if (rc != -ENOENT)
        return verify_own_error(v, rc);
    v->result.rows += batch->rows[batch->count];
    v->result.bytes += bytes;
    batch->bytes += bytes;
    batch->ranges[batch->count++] = part;
    return batch->count == COPY_RANGES_MAX || batch->bytes >= BATCH_BYTES ? flush(walk) : 0;
}

/* What single rows said: -ENOENT is no error, but that the state is over is. */
static int looked(struct verifying *v, int rc) {
    char why[8];
    if (rc == 0 || (rc == -ENOENT && !history_error(v->past, why, sizeof why)))
        return 0;
    return verify_own_error(v, rc == -ENOENT ? -ESTALE : rc);
}

static int look_inode(struct verifying *v, uint64_t ino, struct inode_row *row, bool *there) {
    *row = (struct inode_row){0};
    store_lock(v->past);
    int rc = inode_get(v->past, ino, row);
    store_unlock(v->past);
    *there = rc == 0;
    return looked(v, rc);
}

static int add_inode(struct tree_walk *walk, uint64_t ino) {
    struct verifying *v = walk->v;
    struct inode_row row;
    bool there;
    int rc = look_inode(v, ino, &row, &there);
    if (rc)
        return rc;
    const struct range ranges[] = {range_of(TABLE_INODE, ino), range_of(TABLE_XATTR, ino), range_of(TABLE_EXTENT, row.data),
                                   range_of(TABLE_DIRENT, ino), range_of(TABLE_DIRCOOKIE, ino)};
    rc = add(walk, &ranges[0]);
    if (rc == 0)
        rc = add(walk, &ranges[1]);
    if (rc == 0 && row.data)
        rc = add(walk, &ranges[2]);
    for (unsigned i = 3; rc == 0 && S_ISDIR(row.mode) && i < 5; i++)
        rc = add(walk, &ranges[i]);
    return rc;
}

static int queue(struct tree_walk *walk, uint64_t ino) {
    if (walk->directory_count == walk->directory_room) {
        uint32_t room = walk->directory_room * 2 + 1024;
        uint64_t *bigger = room > DIRECTORIES_MAX ? NULL : realloc(walk->directories, room * sizeof *bigger);
        if (!bigger)
            return verify_say(walk->v, -ENOMEM, "too many directories below these paths; verify without a path");
        walk->directories = bigger;
        walk->directory_room = room;
    }
    walk->directories[walk->directory_count++] = ino;
    return 0;
}

/* 1: the portion is full. */
static int take_child(void *context, struct span key, struct span value) {
    struct tree_walk *walk = context;
    struct dirent_row row;
    if (walk->child_count == CHILDREN)
        return 1;
    if (value.length != sizeof row)
        return -EIO;
    memcpy(&row, value.data, sizeof row);
    walk->children[walk->child_count].ino = row.ino;
    walk->children[walk->child_count++].directory = S_ISDIR(row.type);
    return range_behind(TABLE_DIRENT, key, value, &walk->behind) ? -EIO : 0;
}

static int add_children(struct tree_walk *walk, uint64_t directory) {
    struct verifying *v = walk->v;
    struct range range = range_of(TABLE_DIRENT, directory);
    int more = 1, rc = 0;
    while (rc == 0 && more == 1) {
        walk->child_count = 0;
        store_lock(v->past);
        more = range_rows(v->past, &range, take_child, walk);
        store_unlock(v->past);
        if (more < 0)
            return verify_own_error(v, more);
        range.from = walk->behind;
        for (unsigned i = 0; rc == 0 && i < walk->child_count; i++) {
            rc = add_inode(walk, walk->children[i].ino);
            if (rc == 0 && walk->children[i].directory)
                rc = queue(walk, walk->children[i].ino);
        }
    }
    return rc;
}

#define NOT_HERE 2
/* One component further down, comparing the name. 0, NOT_HERE, 1 or an error. */
static int step_down(struct tree_walk *walk, uint64_t *ino, const char *name, size_t length) {
    struct verifying *v = walk->v;
    struct dirent_row row;
    struct range range = {.table = TABLE_DIRENT};
    if (length > BATON_NAME_MAX)
        return verify_say(v, -ENAMETOOLONG, "a name in this path is too long: %.*s", (int)MIN(length, 300), name);
    range.from = range.to = key_u64_name(*ino, name, length);
    range.to.bytes[range.to.length++] = 0;
    int rc = add(walk, &range);
    if (rc)
        return rc;
    store_lock(v->past);
    rc = dirent_get(v->past, *ino, name, length, &row);
    store_unlock(v->past);
    int error = looked(v, rc);
    if (error)
        return error;
    if (rc == 0)
        *ino = row.ino;
    return rc ? NOT_HERE : 0;
}

static int add_path(struct tree_walk *walk, const char *path) {
    struct verifying *v = walk->v;
    uint64_t ino = ROOT_INO;
    struct inode_row row;
    bool there;
    int rc = 0;
    for (const char *at = path; rc == 0;) {
        at += strspn(at, "/");
        size_t length = strcspn(at, "/");
        if (length == 0)
            break;
        rc = step_down(walk, &ino, at, length);
        at += length;
    }
    if (rc == NOT_HERE) { /* is it there, at least? */
        uint64_t before = v->result.differences;
        rc = flush(walk);
        if (rc == 0 && v->result.differences == before)
            rc = verify_say(v, -ENOENT, "there is no \"%.300s\" on either node (at record %" PRIu64 ")", path, v->state.lsn);
        return rc;
    }
    if (rc == 0)
        rc = add_inode(walk, ino);
    if (rc == 0)
        rc = look_inode(v, ino, &row, &there);
    return rc == 0 && S_ISDIR(row.mode) ? queue(walk, ino) : rc;
}

int verify_paths(struct verifying *v) {
    struct tree_walk *walk = calloc(1, sizeof *walk);
    int rc = 0;
    if (!walk)
        return verify_say(v, -ENOMEM, "out of memory");
    walk->v = v;
    for (unsigned i = 0; rc == 0 && i < v->request.path_count; i++)
        rc = add_path(walk, v->request.paths[i]);
    for (uint32_t i = 0; rc == 0 && i < walk->directory_count; i++)
        rc = add_children(walk, walk->directories[i]);
    if (rc == 0)
        rc = flush(walk);
    free(walk->directories);
    free(walk);
    return rc;
}
