/* Tables: rows of the LMDB environment, each with a checksum, and each change remembered so that it can be undone.
 *
 * A row's value in LMDB is the value as seen here and 8 bytes XXH3-64 over table number, key and value. A row that
 * fails its check is -EIO, with a sentence in the log: wrong rows are never used.
 *
 * All calls need the engine lock (store_lock) and an open write transaction, but for those that take a `struct
 * snapshot`. Values returned point into LMDB's pages and are valid until the next change: copy what you keep.
 *
 * Changes go through a `struct change`, the work of one record: it collects the images of the rows as they were (for
 * undo, in the journal's local part), the places of new blocks, and the places that lost their last use in the map.
 */
#ifndef BATON_FS_TABLE_H
#define BATON_FS_TABLE_H

#include "fs/record.h"

enum table {
    TABLE_INODE = 0,     /* ino → struct inode_row */
    TABLE_DIRENT = 1,    /* parent, name → struct dirent_row */
    TABLE_DIRCOOKIE = 2, /* parent, cookie → struct dircookie_row */
    TABLE_XATTR = 3,     /* ino, name → value */
    TABLE_EXTENT = 4,    /* data id, first block → struct extent_row */
    TABLE_ORPHAN = 5,    /* kind, id → struct orphan_row */
    TABLE_EPOCH = 6,     /* epoch → struct epoch_row; never trimmed */
    TABLE_SHARED_END = 7, /* those above are the replicated state: captured for undo, compared between nodes */
    TABLE_META = 7,      /* name → value: position, format, volume id, … */
    TABLE_JOURNAL = 8,   /* LSN → record and local part */
    TABLE_SEGMENT = 9,   /* segment → struct segment_row */
    TABLE_DEAD = 10,     /* segment, position → struct dead_row */
    TABLE_END = 11
};

extern const char *const table_names[TABLE_END];

/* Bytes of the longest row, and of the longest list of images for undo, which is part of a row of the journal: a RECLAIM
 * may take away some hundred attributes of 64 KiB. */
#define ROW_BYTES_MAX (32u << 20)
#define UNDO_BYTES_MAX (ROW_BYTES_MAX - (2u << 20))
/* Bytes that the value of a row of this table may have. A damaged page of LMDB's may claim 4 GiB for a row, which would be
 * read far behind what is mapped: what claims more than this is not looked at (-EIO). */
size_t table_row_max(enum table table);

struct inode_row {
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint32_t nlink;
    uint64_t rdev;
    uint64_t size;   /* bytes; a directory: number of entries; a symlink: length of its target */
    uint64_t blocks; /* mapped data blocks of 4 KiB, unwritten ones included */
    uint64_t data;   /* data id */
    uint64_t parent; /* a directory's parent; 0 otherwise */
    uint64_t trim;   /* a trim is pending: blocks from here on are garbage beyond the end (see RECORD_TRUNCATE); 0: none */
    struct file_time atime, mtime, ctime, btime; /* each 12 bytes here: packed */
    uint32_t flags;  /* INODE_… */
    uint32_t xattrs; /* number of extended attributes */
    /* a symlink's target follows */
} __attribute__((packed));

#define INODE_ACL 1u        /* has system.posix_acl_access */
#define INODE_DEFAULT_ACL 2u
#define INODE_CAPABILITY 4u /* has security.capability */

struct dirent_row {
    uint64_t ino;
    uint64_t cookie;
    uint32_t type; /* mode & S_IFMT */
} __attribute__((packed));

struct dircookie_row {
    uint64_t ino;
    uint32_t type;
    /* the name follows */
} __attribute__((packed));

#define EXTENT_BLOCKS_MAX 128u    /* of a written extent, so that a row stays on an LMDB leaf page */
#define EXTENT_UNWRITTEN_MAX (1u << 30)
#define SEGMENT_NONE UINT32_MAX   /* unwritten: allocated, reads as zeros, has no place and no checksums */
struct extent_row {
    uint32_t segment;
    uint32_t position; /* block number in the segment */
    uint32_t count;
    /* `count` checksums of 8 bytes follow, unless unwritten */
} __attribute__((packed));

enum orphan_kind { ORPHAN_INODE = 'i', ORPHAN_DATA = 'd', ORPHAN_TRIM = 't' };
struct orphan_row {
    uint64_t ino;  /* ORPHAN_TRIM and ORPHAN_DATA: the file it came from */
    int64_t time;
} __attribute__((packed));

struct epoch_row {
    uint64_t first; /* LSN of its EPOCH record */
    uint8_t chain[CHAIN_SIZE]; /* of the record before */
} __attribute__((packed));

struct place { /* consecutive blocks in a segment */
    uint32_t segment;
    uint32_t position;
    uint32_t count;
} __attribute__((packed));

#define KEY_MAX 280u
struct key {
    uint16_t length;
    uint8_t bytes[KEY_MAX];
};
static inline struct key key_u64(uint64_t a) {
    struct key key;
    key.length = 8;
    be64_put(key.bytes, a);
    return key;
}
static inline struct key key_u64_u64(uint64_t a, uint64_t b) {
    struct key key;
    key.length = 16;
    be64_put(key.bytes, a);
    be64_put(key.bytes + 8, b);
    return key;
}
/* The caller has checked that the name has at most 255 bytes. */
static inline struct key key_u64_name(uint64_t a, const void *name, size_t length) {
    struct key key;
    PROMISE(length <= BATON_NAME_MAX + 1);
    key.length = (uint16_t)(8 + length);
    be64_put(key.bytes, a);
    memcpy(key.bytes + 8, name, length);
    return key;
}
static inline struct key key_orphan(enum orphan_kind kind, uint64_t id) {
    struct key key;
    key.length = 9;
    key.bytes[0] = (uint8_t)kind;
    be64_put(key.bytes + 1, id);
    return key;
}

struct store;
struct snapshot; /* a read transaction, see store.h */

/* The work of one record while it is applied. */
struct change {
    struct store *store;
    uint8_t *undo; /* row images, newest last */
    size_t undo_length, undo_room;
    uint32_t undo_count;
    struct place *places; /* given: where the record's blocks are (they are written already) */
    uint32_t place_count;
    struct place *dropped; /* blocks that left the map through this record */
    uint32_t dropped_count, dropped_room;
};

/* 0, -ENOENT or -EIO. */
int table_get(struct store *store, enum table table, const struct key *key, struct span *value);
int table_get_at(struct snapshot *snapshot, enum table table, const struct key *key, struct span *value);
/* Insert or replace; remove (-ENOENT if absent). 0 or a negative errno. */
int table_put(struct change *change, enum table table, const struct key *key, const void *value, size_t length);
int table_remove(struct change *change, enum table table, const struct key *key);
/* Notes that the blocks left the map. 0 or -ENOMEM. */
int change_drop(struct change *change, struct place place);

/* A cursor for ordered reading. Open, seek, step, close; after any change of the table seek again. */
struct cursor {
    void *mdb;
    struct history_cursor *past; /* instead, of a past: history_rows.c */
    struct store *store;
    enum table table;
    struct span key;
    struct span value;
};
int cursor_open(struct cursor *cursor, struct store *store, struct snapshot *snapshot_or_null, enum table table);
int cursor_seek(struct cursor *cursor, const struct key *at_or_after); /* 0, -ENOENT at the end, -EIO */
int cursor_seek_before(struct cursor *cursor, const struct key *key);  /* the last row < key */
int cursor_next(struct cursor *cursor);
int cursor_previous(struct cursor *cursor);
void cursor_close(struct cursor *cursor);

#endif
