/* Records: what changed, as results. The only form in which a change exists, in memory, in the tail, in the journal
 * and on the wire.
 *
 * A record in encoded form is a `struct record_head` and a body, little-endian, `length` bytes in all. Data (of writes
 * and of a truncate's last block) is the record's *payload*: it follows separately, `payload` bytes, whole blocks but
 * for trailing zeros that are cut off (the blocks number `blocks`); its checksums are part of the body, so the chain
 * covers it. Where the blocks lie is a node's own business and no part of a record.
 *
 * chain = XXH3-128 (canonical, big-endian form) over the 16 bytes of the chain of the record before it and the encoded
 * record with its own chain field zeroed.
 *
 * Pure functions; any thread. record_decode() is the one place that looks at bytes from outside, and checks all.
 */
#ifndef BATON_FS_RECORD_H
#define BATON_FS_RECORD_H

#include "fs/base.h"

enum record_type {
    RECORD_CREATE = 1,  /* a new inode under a name, or (parent 0) without one: O_TMPFILE */
    RECORD_LINK = 2,
    RECORD_UNLINK = 3,  /* also rmdir */
    RECORD_RENAME = 4,  /* also with EXCHANGE or WHITEOUT */
    RECORD_SETATTR = 5, /* mode, owner, times; the access ACL that chmod changed */
    RECORD_WRITE = 6,
    RECORD_TRUNCATE = 7,
    RECORD_ALLOCATE = 8, /* holes in a range become unwritten blocks (fallocate) */
    RECORD_PUNCH = 9,    /* whole blocks become holes */
    RECORD_XATTR = 10,   /* set or removed */
    RECORD_RECLAIM = 11, /* bounded freeing of what is no longer reachable */
    RECORD_EPOCH = 12,   /* a node starts as primary */
    RECORD_TYPE_END
};

#define CHAIN_SIZE 16
#define RECORD_LENGTH_MAX (256u << 10)       /* encoded record without payload */
#define RECORD_PAYLOAD_MAX (1024u * BATON_BLOCK) /* 4 MiB */
#define RECORD_BLOCKS_MAX 1024u
#define FILE_SIZE_MAX (1ull << 60)
#define FILE_BLOCKS(size) (((size) + BATON_BLOCK - 1) / BATON_BLOCK)
#define FILE_BLOCKS_MAX FILE_BLOCKS(FILE_SIZE_MAX)
#define RECORD_RECLAIM_MAX 256u /* steps of one RECLAIM */
#define RECORD_ROWS_MAX 512u    /* extent rows that one record may touch; what has more is cut up by its maker */

/* Epochs grow with every start as primary. counter in the high 48 bits, node in the low 16. */
typedef uint64_t epoch_t;
#define EPOCH_MAKE(counter, node) (((uint64_t)(counter) << 16) | (uint16_t)(node))
#define EPOCH_COUNTER(epoch) ((epoch) >> 16)
#define EPOCH_NODE(epoch) ((uint16_t)(epoch))
#define EPOCH_COUNTER_MAX ((1u << 23) - 1) /* inode numbers carry it above bit 40 */

struct record_head {
    uint32_t length;
    uint16_t type;
    uint16_t flags;   /* none defined: 0 */
    uint64_t lsn;
    epoch_t epoch;
    int64_t time;     /* nanoseconds since 1970, settled by the primary: ctime of all that the record touches */
    uint32_t payload; /* bytes of payload that follow elsewhere; at most blocks × 4096 */
    uint32_t blocks;  /* data blocks that this record puts into the store */
    uint64_t ino;     /* the inode that it is mostly about */
    uint8_t chain[CHAIN_SIZE];
} __attribute__((packed));

struct span { /* bytes inside somebody else's buffer */
    const uint8_t *data;
    uint32_t length;
};

struct file_time {
    int64_t seconds;
    uint32_t nanoseconds;
} __attribute__((packed)); /* 12 bytes, in rows and records alike */

static inline struct file_time file_time_of(int64_t nanoseconds) { /* since 1970, not negative */
    return (struct file_time){nanoseconds / 1000000000, (uint32_t)(nanoseconds % 1000000000)};
}
/* < 0, 0, > 0 */
static inline int file_time_compare(struct file_time a, struct file_time b) {
    if (a.seconds != b.seconds)
        return a.seconds < b.seconds ? -1 : 1;
    return a.nanoseconds < b.nanoseconds ? -1 : a.nanoseconds > b.nanoseconds;
}

/* SETATTR: which fields are set. ctime is always head.time unless SET_KEEP_CTIME. */
#define SET_MODE 1u
#define SET_UID 2u
#define SET_GID 4u
#define SET_ATIME 8u
#define SET_MTIME 16u
#define SET_KEEP_CTIME 32u /* an access time noted by a read changes nothing else */
#define SET_ACL 64u        /* system.posix_acl_access becomes `value` (empty: removed) */
#define SET_NO_CAPABILITY 128u /* security.capability is removed (chown) */

#define WRITE_SET_MODE 1u      /* set-id bits went: mode holds the new one */
#define WRITE_NO_CAPABILITY 2u /* security.capability is removed */

#define XATTR_REMOVE 1u
#define XATTR_SET_MODE 2u /* an access ACL changed the mode bits */

#define UNLINK_RMDIR 1u
#define RENAME_EXCHANGED 1u
#define RENAME_LEFT_WHITEOUT 2u /* a new character device 0:0 without permissions takes the old name */

enum reclaim_kind {
    RECLAIM_DROP = 1,  /* blocks [from, to) of data id `id` go; `ino`, if not 0, is their file, its block count shrinks */
    RECLAIM_INODE = 2, /* orphan inode `id`, which has no blocks left, goes with its attributes */
    RECLAIM_DATA = 3,  /* orphan data id `id`, which has no blocks left, goes */
    RECLAIM_TRIM = 4   /* inode `id`: its pending trim (see TRUNCATE) is done */
};

struct reclaim_step {
    uint32_t kind;
    uint64_t id;
    uint64_t ino;
    uint64_t from;
    uint64_t to;
};

/* A record, decoded: fields a type does not use are 0. Spans point into the encoded record or the maker's buffers. */
struct record {
    struct record_head head;

    uint64_t parent;      /* CREATE, LINK, UNLINK; RENAME: the old one */
    struct span name;     /* likewise; XATTR: the attribute's full name; EPOCH: the node's name */
    uint64_t cookie;      /* directory cookie of the new entry: CREATE, LINK, RENAME (at the new place) */
    uint64_t new_parent;  /* RENAME */
    struct span new_name; /* RENAME */
    uint64_t old_cookie;  /* RENAME with EXCHANGE or WHITEOUT: cookie of the entry at the old place; the whiteout's inode
                             number, too */
    uint64_t victim;      /* RENAME: the inode that the new name named (replaced or exchanged), 0 for none */

    uint32_t flags;  /* of the type, see above */
    uint32_t mode;   /* CREATE: with type bits; SETATTR, WRITE, TRUNCATE, ALLOCATE, PUNCH, XATTR: new mode if flagged */
    uint32_t uid;    /* CREATE, SETATTR; RENAME with WHITEOUT: the whiteout's */
    uint32_t gid;
    uint64_t rdev;   /* CREATE */
    struct file_time atime; /* SETATTR */
    struct file_time mtime; /* SETATTR */
    struct span value;      /* CREATE: symlink target; XATTR: value; SETATTR: ACL */
    struct span xattrs;     /* CREATE: inherited attributes, packed by xattr_pack() */

    uint64_t first;    /* WRITE, ALLOCATE, PUNCH: first block; TRUNCATE: first block that goes */
    uint64_t count;    /* ALLOCATE, PUNCH: blocks (WRITE: head.blocks) */
    uint64_t size;     /* file size afterwards: WRITE, TRUNCATE, ALLOCATE, PUNCH */
    uint64_t new_data; /* TRUNCATE: the file gets this data id and the old one becomes an orphan; 0: keeps its own.
                          CREATE: the new file's data id */
    uint64_t last;     /* TRUNCATE that does not grow the file: blocks [first, last) go now; `last` < UINT64_MAX: those
                          from `last` on are a pending trim. One that grows it: equal to `first`, nothing goes. */
    struct span checksums; /* WRITE, TRUNCATE: 8 bytes (XXH3-64, little-endian) a block, head.blocks of them.
                              TRUNCATE has 0 or 1 block: the new last one, zeroed behind the end, at block first - 1 */
    const struct reclaim_step *steps; /* RECLAIM; decode keeps them in `step_room` (free with record_release) */
    uint32_t step_count;
    struct reclaim_step *step_room;
};

/* Encodes into `buffer`. head.length is computed; head.chain is computed from `chain`, the one of the record before.
 * Returns the length, or -E2BIG if it does not fit into `room`, -EINVAL for a record that breaks a limit. */
int record_encode(struct record *record, const uint8_t chain[CHAIN_SIZE], uint8_t *buffer, size_t room);

/* Decodes and checks every length, name (no '/', no NUL, not "." or "..", 1..255 bytes), range, type, flag and limit;
 * no trailing bytes. 0, -EBADMSG, or -EPROTONOSUPPORT: a type that this program does not know. `*why`, if not NULL, gets a
 * static text. Does not look at the chain. */
int record_decode(const void *bytes, size_t length, struct record *record, const char **why);
void record_release(struct record *record);

/* The chain value that `bytes` should have when it follows `previous`. */
void record_chain(const uint8_t previous[CHAIN_SIZE], const void *bytes, size_t length, uint8_t chain[CHAIN_SIZE]);

/* Compares payload with the record's checksums, block by block (trailing zeros implied). 0 or -EBADMSG. */
int record_check_payload(const struct record *record, const void *payload, size_t length);

uint64_t block_checksum(const void *block); /* XXH3-64 of 4096 bytes */
uint64_t block_checksum_part(const void *bytes, size_t length); /* the same of a block whose rest is zero */

/* The inode that comes into being by it (CREATE, RENAME with WHITEOUT), 0 if none does. */
uint64_t record_new_inode(const struct record *record);

/* May a directory's entry have this name, and an extended attribute? 1..255 bytes, no NUL; an entry's no '/', not "." or "..". */
bool entry_name_is_valid(struct span name);
bool xattr_name_is_valid(struct span name);

const char *record_type_name(uint16_t type); /* "create", … ; "unknown" */

/* Inherited attributes: u16 name length, u32 value length, name, value; repeated. */
size_t xattr_pack(uint8_t *to, size_t room, const char *name, const void *value, size_t length); /* 0: no room */
/* Walks: *at moves on; 1 with name and value, 0 at the end, -EBADMSG. */
int xattr_unpack(const struct span *packed, uint32_t *at, struct span *name, struct span *value);

#endif
