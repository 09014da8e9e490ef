/* Operations: requests of a local file system, settled into records (on the primary) or answered from the state.
 *
 * Each takes the engine lock itself, checks what POSIX and Linux ask for, settles inode number, times, ids and cookie,
 * and appends one record (long ones: several). Permission bits are the kernel's work (default_permissions); ops do
 * what the kernel leaves to a file system: set-gid inheritance, default ACLs, set-id clearing where asked, limits.
 *
 * Return 0 or a negative errno. `*lsn` is the record whose acknowledgement the caller's reply may have to wait for (0:
 * nothing changed). Any thread. Reads work in either role; changes give -EROFS when the store has no epoch.
 */
#ifndef BATON_FS_OPS_H
#define BATON_FS_OPS_H

#include "fs/store.h"

#define ROOT_INO 1ull

struct attributes { /* of one inode, as stat shows it */
    uint64_t ino;
    struct inode_row row;
};

struct caller {
    uint32_t uid, gid, pid;
    uint32_t umask; /* to be applied unless the directory has a default ACL (FUSE_CAP_DONT_MASK) */
};

/* --- names: ops_name.c --- */
int op_lookup(struct store *store, uint64_t parent, const char *name, struct attributes *out);
int op_lookup_parent(struct store *store, uint64_t directory, struct attributes *out); /* LOOKUP ".." */
/* mkdir, mknod, create, symlink (mode S_IFLNK, target). */
int op_create(struct store *store, const struct caller *caller, uint64_t parent, const char *name, uint32_t mode,
              uint64_t rdev, const char *target, struct attributes *out, uint64_t *lsn);
int op_tmpfile(struct store *store, const struct caller *caller, uint64_t parent, uint32_t mode,
               struct attributes *out, uint64_t *lsn);
int op_link(struct store *store, uint64_t ino, uint64_t parent, const char *name, struct attributes *out,
            uint64_t *lsn);
/* *ino: the inode that lost a link; *left: its links now (0: it is an orphan, reclaim it when nobody uses it). */
int op_unlink(struct store *store, uint64_t parent, const char *name, uint64_t *ino, uint32_t *left, uint64_t *lsn);
int op_rmdir(struct store *store, uint64_t parent, const char *name, uint64_t *ino, uint64_t *lsn);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT (the whiteout is the caller's). *victim: replaced inode or
 * 0; *left: its links now. */
int op_rename(struct store *store, const struct caller *caller, uint64_t parent, const char *name, uint64_t new_parent,
              const char *new_name, unsigned flags, uint64_t *victim, uint32_t *left, uint64_t *lsn);
int op_readlink(struct store *store, uint64_t ino, char *buffer, size_t room); /* length, or error; not terminated */

/* Entries after `cookie` (0: from the start), in cookie order, without "." and "..". `each` returns 0 to go on, 1 to
 * stop (its buffer is full). with_attributes: fills `attributes` too (readdirplus). Lock held while it runs. */
struct directory_entry {
    uint64_t cookie; /* give this as the entry's d_off */
    uint64_t ino;
    uint32_t type;
    const char *name; /* not terminated */
    uint32_t name_length;
    const struct attributes *attributes;
};
int op_readdir(struct store *store, uint64_t directory, uint64_t cookie, bool with_attributes,
               int (*each)(void *context, const struct directory_entry *entry), void *context);

/* --- attributes: ops_attr.c --- */
int op_getattr(struct store *store, uint64_t ino, struct attributes *out);
struct set_attributes {
    unsigned mask; /* SET_MODE … SET_MTIME, SET_SIZE; SET_KILL_PRIV: clear set-id bits and capability as write does */
    uint32_t mode, uid, gid;
    struct file_time atime, mtime;
    bool atime_now, mtime_now;
    uint64_t size;
};
#define SET_SIZE (1u << 16)
#define SET_KILL_PRIV (1u << 17)
#define SET_KILL_SGID (1u << 18) /* with what clears set-id bits: set-gid also without group execution, because the
                                    caller is not in the file's group */
int op_setattr(struct store *store, const struct caller *caller, uint64_t ino, const struct set_attributes *set,
               struct attributes *out, uint64_t *lsn);
/* A read: sets the access time, by the relatime rule (nothing if it need not change) unless `always` (strictatime). */
int op_touch_atime(struct store *store, uint64_t ino, bool always);
int op_getxattr(struct store *store, uint64_t ino, const char *name, void *buffer, size_t room); /* length; room 0: ask */
int op_listxattr(struct store *store, uint64_t ino, bool trusted, void *buffer, size_t room);
int op_setxattr(struct store *store, const struct caller *caller, uint64_t ino, const char *name, const void *value,
                size_t length, int flags, bool kill_sgid, uint64_t *lsn);
int op_removexattr(struct store *store, uint64_t ino, const char *name, uint64_t *lsn);

/* --- data: ops_data.c --- */
#define WRITE_APPEND 1u    /* at the end of the file, wherever that is now */
#define WRITE_KILL_PRIV 2u /* clear set-id bits and capability */
int op_write(struct store *store, uint64_t ino, const void *bytes, size_t length, uint64_t offset, unsigned flags,
             uint64_t *lsn);
/* Bytes read (0 at the end), checked against checksums. */
ssize_t op_read(struct store *store, uint64_t ino, void *buffer, size_t length, uint64_t offset);
int op_truncate(struct store *store, uint64_t ino, uint64_t size, bool kill_priv, uint64_t *lsn);
int op_fallocate(struct store *store, uint64_t ino, int mode, uint64_t offset, uint64_t length, uint64_t *lsn);
int64_t op_seek(struct store *store, uint64_t ino, uint64_t offset, int whence); /* SEEK_DATA, SEEK_HOLE */
int64_t op_copy(struct store *store, uint64_t from, uint64_t from_offset, uint64_t to, uint64_t to_offset,
                uint64_t length, uint64_t *lsn); /* bytes copied */

/* --- orphans: ops_reclaim.c --- */
/* Frees the orphan inode and its data by bounded records; 0 also when it is gone already or not an orphan. */
int op_reclaim(struct store *store, const uint64_t *inos, size_t count);
/* One bounded step of background work: orphan data ids, pending trims. 1: more to do, 0: nothing. */
int op_reclaim_some(struct store *store);
/* Orphan inodes, for a new primary: up to `room` after `from`. */
int op_orphans(struct store *store, uint64_t after, uint64_t *inos, size_t room);

#endif
