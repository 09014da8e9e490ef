/* Segments and the map: every block handed out has one owner, in the map, in history, reserved or dead. */
#include "fs/check_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

typedef unsigned long long ull;

static struct check_segment *segment_of(struct check *check, uint32_t number) {
    size_t low = 0, high = check->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (check->segments[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < check->segment_count && check->segments[low].number == number ? &check->segments[low] : NULL;
}

static void take_segment(struct check *check, struct span key, struct span value) {
    struct segment_row row;
    struct stat st = {0};
    char name[16], path[32];

    if (key.length != 4 || value.length != sizeof row) {
        found(check, "a row of table \"segment\" has a wrong length: the store cannot be opened");
        return;
    }
    uint32_t number = be32_get(key.data);
    memcpy(&row, value.data, sizeof row);
    segment_name(number, name);
    snprintf(path, sizeof path, "data/%s", name);
    if (row.head > check->store->segments.blocks || row.live > row.head) {
        found(check, "data/%s: impossible numbers of blocks (%u handed out, %u live): the store cannot be opened", name,
              row.head, row.live);
        return;
    }
    if (fstatat(check->store->directory_fd, path, &st, 0) < 0)
        found(check, "data/%s is missing: %u blocks of data are lost on this node", name, row.live);
    check->segments = check_grow(check->segments, check->segment_count, &check->segment_room, sizeof *check->segments);
    struct check_segment *segment = &check->segments[check->segment_count++];
    *segment = (struct check_segment){.number = number,
                                      .head = row.head,
                                      .live = row.live,
                                      .file_bytes = (uint64_t)st.st_size,
                                      .used = calloc(row.head / 8 + 1, 1)};
    PROMISE(segment->used != NULL);
}

void check_segments(struct check *check) {
    walk(check, TABLE_SEGMENT, take_segment);
}

static bool exists(const struct check_segment *segment, struct place place) {
    return segment && place.count > 0 && place.position < segment->head &&
           place.count <= segment->head - place.position;
}

bool check_is_marked(struct check *check, struct place place) {
    struct check_segment *segment = segment_of(check, place.segment);
    if (!exists(segment, place))
        return false;
    for (uint32_t at = place.position; at < place.position + place.count; at++)
        if (!(segment->used[at / 8] & 1u << at % 8))
            return false;
    return true;
}

void check_mark(struct check *check, struct place place, const char *owner) {
    struct check_segment *segment = segment_of(check, place.segment);
    uint32_t twice = 0;
    if (!exists(segment, place)) {
        found(check, "%s names blocks %u to %llu of segment %u, which were never handed out: that data is lost", owner,
              place.position, (ull)place.position + place.count - 1, place.segment);
        return;
    }
    for (uint32_t at = place.position; at < place.position + place.count; at++) {
        uint8_t bit = (uint8_t)(1u << at % 8);
        twice += (segment->used[at / 8] & bit) != 0;
        segment->used[at / 8] |= bit;
    }
    segment->counted += place.count;
    if (twice)
        found(check,
              "%u of the blocks %u to %llu of segment %u, which %s names, are also named elsewhere: freeing one "
              "would destroy the other",
              twice, place.position, (ull)place.position + place.count - 1, place.segment, owner);
}

/* ---- The map ---- */

static void scan_data(struct check *check, const struct extent *extent, uint64_t ino) {
    static uint8_t bytes[EXTENT_BLOCKS_MAX * BATON_BLOCK];
    char name[16], path[32];

    if (check->data_fd < 0 || check->data_fd_segment != extent->place.segment) {
        if (check->data_fd >= 0)
            close(check->data_fd);
        segment_name(extent->place.segment, name);
        snprintf(path, sizeof path, "data/%s", name);
        check->data_fd = openat(check->store->directory_fd, path, O_RDONLY | O_CLOEXEC);
        check->data_fd_segment = extent->place.segment;
    }
    int rc = check->data_fd < 0 ? -ENOENT
                                : pread_all(check->data_fd, bytes, (size_t)extent->place.count * BATON_BLOCK,
                                            (uint64_t)extent->place.position * BATON_BLOCK);
    if (rc) {
        found(check,
              "inode %llu: blocks %llu to %llu cannot be read (%s): mend them from the peer with \"baton scrub\"",
              (ull)ino, (ull)extent->first, (ull)extent->first + extent->place.count - 1, strerror(-rc));
        return;
    }
    for (uint32_t i = 0; i < extent->place.count; i++) {
        uint64_t sum;
        memcpy(&sum, extent->checksums + i * 8, 8);
        if (block_checksum(bytes + (size_t)i * BATON_BLOCK) != sum)
            found(check,
                  "inode %llu: block %llu (segment %u, block %u) fails its checksum: mend it from the peer with "
                  "\"baton scrub\"",
                  (ull)ino, (ull)extent->first + i, extent->place.segment, extent->place.position + i);
    }
}

/* Written blocks behind the end of a file must be a pending trim's. */
static void check_end(struct check *check, const struct extent *extent, const struct check_inode *inode) {
    uint64_t end = extent->first + extent->place.count, file_end = FILE_BLOCKS(inode->size);
    if (!extent->checksums || end <= file_end)
        return;
    if (inode->nlink == 0 || (inode->trim && MAX(extent->first, file_end) >= inode->trim))
        return;
    found(check, "inode %llu has data behind its end (block %llu): it would come back when the file grows",
          (ull)inode->ino, (ull)extent->first);
}

static void take_extent(struct check *check, struct span key, struct span value) {
    const struct extent *last = &check->last_extent;
    struct extent extent;
    char owner[64];

    if (extent_parse(key, value, &extent) != 0) {
        found(check, "a row of the block map has an impossible form: data of a file is lost");
        return;
    }
    if (last->data == extent.data && last->first + last->place.count > extent.first)
        found(check, "data id %llu: block %llu is mapped twice: either content may be shown", (ull)extent.data,
              (ull)extent.first);
    check->last_extent = extent;
    struct check_data *data = check_data_find(check, extent.data);
    struct check_inode *inode = data && data->inode != SIZE_MAX ? &check->inodes[data->inode] : NULL;
    if (!data)
        found(check, "data id %llu has blocks but belongs to no file: its space will never be freed", (ull)extent.data);
    if (inode) {
        inode->blocks_seen += extent.place.count;
        check_end(check, &extent, inode);
    }
    if (!extent.checksums)
        return;
    check->mapped_blocks += extent.place.count;
    snprintf(owner, sizeof owner, "the map of inode %llu", inode ? (ull)inode->ino : (ull)extent.data);
    check_mark(check, extent.place, owner);
    if (check->flags & CHECK_DATA)
        scan_data(check, &extent, inode ? inode->ino : extent.data);
}

/* ---- Dead, reserved ---- */

static void take_dead(struct check *check, struct span key, struct span value) {
    struct dead_row row;
    if (key.length != 8 || value.length != sizeof row) {
        found(check, "a row of table \"dead\" has a wrong length: space stays occupied");
        return;
    }
    memcpy(&row, value.data, sizeof row);
    check_mark(check, (struct place){be32_get(key.data), be32_get(key.data + 4), row.count},
               "the list of blocks to be freed");
}

static void check_reserved(struct check *check) {
    struct key key = {.length = 8};
    struct span value;
    memcpy(key.bytes, "reserved", 8);
    int rc = get(check, TABLE_META, &key, &value);
    if (rc == -ENOENT)
        return;
    if (rc || value.length % sizeof(struct place)) {
        found(check, "the row \"reserved\" is damaged: space stays occupied");
        return;
    }
    for (uint32_t at = 0; at < value.length; at += (uint32_t)sizeof(struct place)) {
        struct place place;
        memcpy(&place, value.data + at, sizeof place);
        check_mark(check, place, "the list of reserved blocks");
    }
}

void check_blocks(struct check *check) {
    walk(check, TABLE_EXTENT, take_extent);
    walk(check, TABLE_DEAD, take_dead);
    check_reserved(check);
    for (size_t i = 0; i < check->inode_count; i++) {
        const struct check_inode *inode = &check->inodes[i];
        if (inode->blocks != inode->blocks_seen)
            found(check, "inode %llu counts %llu blocks and maps %llu: du shows a wrong number", (ull)inode->ino,
                  (ull)inode->blocks, (ull)inode->blocks_seen);
    }
    for (size_t i = 0; i < check->segment_count; i++) {
        const struct check_segment *segment = &check->segments[i];
        if (segment->counted != segment->live)
            found(check, "segment %u counts %u live blocks, %u are named: %s", segment->number, segment->live,
                  segment->counted,
                  segment->live > segment->counted ? "its space will never be freed"
                                                   : "it may be removed while it holds data");
    }
}
