/* What the files of check share. All of it runs in check's child process, in one thread. */
#ifndef BATON_FS_CHECK_PARTS_H
#define BATON_FS_CHECK_PARTS_H

#include "fs/check.h"
#include "fs/extent.h"
#include "fs/store_internal.h"

struct check_inode { /* what the row says, and what was seen elsewhere */
    uint64_t ino, parent, data, size, blocks, trim;
    uint32_t mode, nlink, xattrs, flags;
    uint64_t entries_seen, blocks_seen;
    uint32_t links_seen, subdirs_seen, xattrs_seen, flags_seen;
    bool orphan, orphan_trim;
    uint8_t reach; /* a directory: 0 not asked yet, 1 being asked, 2 reaches the root, 3 does not */
};

struct check_data { /* sorted by id: whose map it is */
    uint64_t id;
    size_t inode; /* SIZE_MAX: an orphan map */
};

struct check_segment {
    uint32_t number, head, live;
    uint32_t counted; /* blocks that somebody names */
    uint64_t file_bytes;
    uint8_t *used; /* a bit a block */
};

#define CHECK_KINDS 128u
#define CHECK_KIND_MAX 20u /* findings of one kind that are told one by one */

struct check {
    unsigned flags;
    int out;             /* findings, a line each */
    struct store *store; /* a shell: path, descriptors, database */
    struct position_row position;
    bool has_position;
    struct {
        const char *format;
        uint64_t count;
    } kinds[CHECK_KINDS];
    unsigned kind_count;

    struct check_inode *inodes;
    size_t inode_count, inode_room;
    struct check_data *data;
    size_t data_count, data_room;
    struct check_segment *segments;
    size_t segment_count, segment_room;
    uint64_t mapped_blocks, kept_blocks, journal_bytes;
    struct extent last_extent;
    uint64_t last_epoch, last_first;
    uint64_t next_lsn; /* the journal row that should come */
    uint8_t chain[CHAIN_SIZE];
    bool second_walk;
    uint32_t data_fd_segment;
    int data_fd;
};

/* One finding. The format tells its kind; after CHECK_KIND_MAX of a kind they are only counted. */
void found(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Says what is looked at now, for the sentence if this process dies of it. */
void looking_at(struct check *check, const char *what);
/* Every whole row of a table, in order; rows that are not whole are findings. */
void walk(struct check *check, enum table table, void (*each)(struct check *check, struct span key, struct span value));
/* 0, -ENOENT, -EIO (not whole: a finding of the walk). */
int get(struct check *check, enum table table, const struct key *key, struct span *value);
/* A name fit to be printed, in one of four buffers taken in turn. */
const char *printable(struct span name);
void *check_grow(void *list, size_t count, size_t *room, size_t size);

struct check_inode *check_inode_find(struct check *check, uint64_t ino);
struct check_data *check_data_find(struct check *check, uint64_t id);

/* check_names.c: inodes, names, cookies, attributes, orphans. First: others look inodes up. */
void check_names(struct check *check);
/* check_blocks.c: segments, map, dead and reserved blocks; after check_journal, which marks what history keeps. */
void check_segments(struct check *check);
void check_blocks(struct check *check);
/* Somebody names these blocks: they exist and nobody else does. */
void check_mark(struct check *check, struct place place, const char *owner);
/* check_journal.c: rows, chain, epochs, the tail. */
void check_journal(struct check *check);
void check_journal_places(struct check *check); /* after all blocks are marked */
void check_tail(struct check *check, const struct checkpoint *checkpoint);
/* check_undo.c: back through the journal, as undo would go. */
void check_undo(struct check *check);
bool check_is_marked(struct check *check, struct place place);

#endif
