/* Operations on names. */
#include "fs/acl.h"
#include "fs/ops_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#define RENAME_WHITEOUT 4u
#endif

static int check_name(const char *name) {
    size_t length = strlen(name);
    if (length == 0)
        return -ENOENT;
    if (length > BATON_NAME_MAX)
        return -ENAMETOOLONG;
    return memchr(name, '/', length) ? -EINVAL : 0;
}

static bool is_dot(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int directory_row(struct store *store, uint64_t ino, struct inode_row *row) {
    int error = op_inode(store, ino, row);
    return !error && !S_ISDIR(row->mode) ? -ENOTDIR : error;
}

/* A directory that entries are to come to: not one that is removed. */
static int directory_to_fill(struct store *store, uint64_t ino, struct inode_row *row) {
    int error = directory_row(store, ino, row);
    return !error && row->nlink == 0 ? -ENOENT : error;
}

static int attributes_get(struct store *store, uint64_t ino, struct attributes *out) {
    out->ino = ino;
    return op_inode(store, ino, &out->row);
}

/* The inode that an entry names. Damage if it is missing. */
static int entry_inode(struct store *store, uint64_t parent, const char *name, struct attributes *out) {
    struct dirent_row entry;
    int error = dirent_get(store, parent, name, strlen(name), &entry);
    if (error)
        return error;
    out->ino = entry.ino;
    error = inode_get(store, entry.ino, &out->row);
    if (error == -ENOENT) {
        log_error("an entry of directory %llu names inode %llu, which does not exist; run baton check on this store",
                  (unsigned long long)parent, (unsigned long long)entry.ino);
        error = -EIO;
    }
    return error;
}

int op_lookup(struct store *store, uint64_t parent, const char *name, struct attributes *out) {
    int error = check_name(name);
    if (error)
        return error;
    if (strcmp(name, "..") == 0)
        return op_lookup_parent(store, parent, out);
    store_lock(store);
    if (strcmp(name, ".") == 0) {
        error = attributes_get(store, parent, out);
    } else {
        error = entry_inode(store, parent, name, out);
        if (error == -ENOENT) { /* of the directory itself only now: a hit needs no second look */
            struct inode_row row;
            int why = directory_row(store, parent, &row);
            error = why ? why : -ENOENT;
        }
    }
    store_unlock(store);
    return error;
}

int op_lookup_parent(struct store *store, uint64_t directory, struct attributes *out) {
    struct inode_row row;
    store_lock(store);
    int error = directory_row(store, directory, &row);
    if (!error)
        error = attributes_get(store, directory == ROOT_INO ? ROOT_INO : row.parent, out);
    store_unlock(store);
    return error;
}

/* ---- Create ---- */

/* The attributes that a new file gets from its directory's default ACL, and the mode that is left by it. */
static int inherit_acl(struct store *store, uint64_t parent, uint32_t *mode, uint8_t **packed, struct span *xattrs) {
    struct key key = key_u64_name(parent, XATTR_ACL_DEFAULT, strlen(XATTR_ACL_DEFAULT));
    struct span value;
    int error = table_get(store, TABLE_XATTR, &key, &value);
    if (error || acl_check(value.data, value.length) != 0) {
        log_error("the default access control list of directory %llu is unusable; run baton check on this store",
                  (unsigned long long)parent);
        return -EIO;
    }
    AUTO_FREE uint8_t *acl = malloc(value.length);
    size_t room = 2 * (value.length + 64u), used = 0;
    *packed = malloc(room);
    if (!acl || !*packed)
        return -ENOMEM;
    memcpy(acl, value.data, value.length);
    if (S_ISDIR(*mode))
        used = xattr_pack(*packed, room, XATTR_ACL_DEFAULT, acl, value.length);
    if (!acl_inherit(acl, value.length, mode))
        used += xattr_pack(*packed + used, room - used, XATTR_ACL_ACCESS, acl, value.length);
    *xattrs = (struct span){*packed, (uint32_t)used};
    return 0;
}

/* The owner of what is created in a directory. */
static void settle_owner(const struct caller *caller, const struct inode_row *directory, struct record *record) {
    record->uid = caller->uid;
    record->gid = directory->mode & S_ISGID ? directory->gid : caller->gid;
}

/* Mode, owner and inherited attributes of it. */
static int settle_new(struct store *store, const struct caller *caller, uint64_t parent, const struct inode_row *row,
                      uint32_t mode, struct record *record, uint8_t **packed) {
    int error = 0;

    if (row->flags & INODE_DEFAULT_ACL && !S_ISLNK(mode))
        error = inherit_acl(store, parent, &mode, packed, &record->xattrs);
    else if (!S_ISLNK(mode))
        mode &= ~(caller->umask & 0777);
    settle_owner(caller, row, record);
    if (row->mode & S_ISGID && S_ISDIR(mode))
        mode |= S_ISGID;
    record->mode = mode & (S_IFMT | 07777);
    return error;
}

static int create(struct store *store, const struct caller *caller, uint64_t parent, const char *name, uint32_t mode,
                  uint64_t rdev, const char *target, struct attributes *out, uint64_t *lsn) {
    AUTO_FREE uint8_t *packed = NULL;
    struct record record = {.head.type = RECORD_CREATE, .rdev = rdev};
    struct dirent_row entry;
    struct inode_row row;
    uint64_t id;
    int error = op_begin(store, SPACE_GROW);
    if (error)
        return error;
    error = directory_to_fill(store, parent, &row);
    if (!error && name) {
        error = dirent_get(store, parent, name, strlen(name), &entry);
        error = error == -ENOENT ? 0 : error ? error : -EEXIST;
    }
    if (!error)
        error = settle_new(store, caller, parent, &row, mode, &record, &packed);
    if (error)
        goto out;
    id = store_next_id(store, 0);
    record.head.ino = id;
    record.head.time = store_next_time(store, row.ctime);
    record.new_data = S_ISREG(mode) ? id : 0;
    if (name) {
        record.parent = parent;
        record.name = span_of(name);
        record.cookie = id;
    }
    if (target)
        record.value = span_of(target);
    error = op_append(store, &record, NULL, NULL, 0, lsn);
    if (!error)
        error = attributes_get(store, id, out);
out:
    store_unlock(store);
    return error;
}

int op_create(struct store *store, const struct caller *caller, uint64_t parent, const char *name, uint32_t mode,
              uint64_t rdev, const char *target, struct attributes *out, uint64_t *lsn) {
    uint32_t kind = mode & S_IFMT;
    int error = check_name(name);

    *lsn = 0;
    if (error)
        return error;
    if (is_dot(name))
        return -EEXIST;
    if (kind == 0)
        mode |= S_IFREG;
    if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode) && !S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode) &&
        !S_ISSOCK(mode))
        return -EINVAL;
    if (S_ISLNK(mode)) {
        if (!target || !*target)
            return -ENOENT;
        if (strlen(target) > BATON_SYMLINK_MAX)
            return -ENAMETOOLONG;
        mode = S_IFLNK | 0777;
    }
    if (!S_ISCHR(mode) && !S_ISBLK(mode))
        rdev = 0;
    return create(store, caller, parent, name, mode, rdev, S_ISLNK(mode) ? target : NULL, out, lsn);
}

int op_tmpfile(struct store *store, const struct caller *caller, uint64_t parent, uint32_t mode, struct attributes *out,
               uint64_t *lsn) {
    *lsn = 0;
    return create(store, caller, parent, NULL, S_IFREG | (mode & 07777), 0, NULL, out, lsn);
}

/* ---- Link, unlink ---- */

int op_link(struct store *store, uint64_t ino, uint64_t parent, const char *name, struct attributes *out,
            uint64_t *lsn) {
    struct record record = {.head.type = RECORD_LINK, .head.ino = ino, .parent = parent, .name = span_of(name)};
    struct dirent_row entry;
    struct inode_row directory, row;
    int error = check_name(name);

    *lsn = 0;
    if (!error && is_dot(name))
        error = -EEXIST;
    if (!error)
        error = op_begin(store, SPACE_GROW);
    if (error)
        return error;
    error = op_inode(store, ino, &row);
    if (!error && S_ISDIR(row.mode))
        error = -EPERM;
    if (!error)
        error = directory_to_fill(store, parent, &directory);
    if (!error) {
        error = dirent_get(store, parent, name, strlen(name), &entry);
        error = error == -ENOENT ? 0 : error ? error : -EEXIST;
    }
    if (!error && row.nlink >= BATON_LINK_MAX)
        error = -EMLINK;
    if (!error) {
        record.head.time = store_next_time(store, later_time(row.ctime, directory.ctime));
        record.cookie = store_next_id(store, 0);
        error = op_append(store, &record, NULL, NULL, 0, lsn);
    }
    if (!error)
        error = attributes_get(store, ino, out);
    store_unlock(store);
    return error;
}

static int remove_entry(struct store *store, uint64_t parent, const char *name, bool directory, uint64_t *ino,
                        uint32_t *left, uint64_t *lsn) {
    struct record record = {
        .head.type = RECORD_UNLINK, .parent = parent, .name = span_of(name), .flags = directory ? UNLINK_RMDIR : 0};
    struct attributes victim;
    struct inode_row row;
    int error = check_name(name);

    *lsn = 0;
    if (!error && is_dot(name))
        error = strcmp(name, ".") == 0 ? -EINVAL : -ENOTEMPTY;
    if (!error)
        error = op_begin(store, SPACE_FREE);
    if (error)
        return error;
    error = directory_row(store, parent, &row);
    if (!error)
        error = entry_inode(store, parent, name, &victim);
    if (!error && directory)
        error = !S_ISDIR(victim.row.mode) ? -ENOTDIR : victim.row.size ? -ENOTEMPTY : 0;
    else if (!error)
        error = S_ISDIR(victim.row.mode) ? -EISDIR : 0;
    if (!error) {
        record.head.ino = victim.ino;
        record.head.time = store_next_time(store, later_time(row.ctime, victim.row.ctime));
        error = op_append(store, &record, NULL, NULL, 0, lsn);
    }
    if (!error) {
        *ino = victim.ino;
        *left = directory ? 0 : victim.row.nlink - 1;
    }
    store_unlock(store);
    return error;
}

int op_unlink(struct store *store, uint64_t parent, const char *name, uint64_t *ino, uint32_t *left, uint64_t *lsn) {
    return remove_entry(store, parent, name, false, ino, left, lsn);
}

int op_rmdir(struct store *store, uint64_t parent, const char *name, uint64_t *ino, uint64_t *lsn) {
    uint32_t left;
    return remove_entry(store, parent, name, true, ino, &left, lsn);
}

/* ---- Rename ---- */

struct renaming {
    uint64_t parent, new_parent;
    const char *name, *new_name;
    unsigned flags;
    struct inode_row directory, new_directory;
    struct attributes subject, victim; /* victim.ino 0: none */
};

static int rename_gather(struct store *store, struct renaming *n) {
    int error = directory_row(store, n->parent, &n->directory);
    if (!error)
        error = directory_to_fill(store, n->new_parent, &n->new_directory);
    if (!error)
        error = entry_inode(store, n->parent, n->name, &n->subject);
    if (error)
        return error;
    error = entry_inode(store, n->new_parent, n->new_name, &n->victim);
    if (error != -ENOENT)
        return error;
    n->victim.ino = 0;
    return n->flags & RENAME_EXCHANGE ? -ENOENT : 0;
}

/* Would a directory come to lie inside itself? */
static int rename_check_loop(struct store *store, const struct renaming *n) {
    int inside = 0;
    if (n->parent == n->new_parent)
        return 0;
    if (S_ISDIR(n->subject.row.mode))
        inside = directory_is_inside(store, n->new_parent, n->subject.ino);
    if (inside == 0 && n->flags & RENAME_EXCHANGE && S_ISDIR(n->victim.row.mode))
        inside = directory_is_inside(store, n->parent, n->victim.ino);
    return inside == 1 ? -EINVAL : inside;
}

/* 0: go on; 1: nothing to do. */
static int rename_check(struct store *store, const struct renaming *n) {
    if (n->victim.ino && n->flags & RENAME_NOREPLACE)
        return -EEXIST;
    int error = rename_check_loop(store, n);
    if (error || !n->victim.ino)
        return error;
    if (n->victim.ino == n->subject.ino)
        return 1;
    if (n->flags & RENAME_EXCHANGE)
        return 0;
    if (S_ISDIR(n->subject.row.mode) && !S_ISDIR(n->victim.row.mode))
        return -ENOTDIR;
    if (!S_ISDIR(n->subject.row.mode) && S_ISDIR(n->victim.row.mode))
        return -EISDIR;
    return S_ISDIR(n->victim.row.mode) && n->victim.row.size ? -ENOTEMPTY : 0;
}

static int rename_append(struct store *store, const struct caller *caller, const struct renaming *n, uint64_t *lsn) {
    bool exchange = (n->flags & RENAME_EXCHANGE) != 0, whiteout = (n->flags & RENAME_WHITEOUT) != 0;
    struct record record = {.head.type = RECORD_RENAME,
                            .head.ino = n->subject.ino,
                            .parent = n->parent,
                            .new_parent = n->new_parent,
                            .name = span_of(n->name),
                            .new_name = span_of(n->new_name),
                            .victim = n->victim.ino};
    struct file_time floor = later_time(n->directory.ctime, n->new_directory.ctime);
    floor = later_time(floor, n->subject.row.ctime);
    if (n->victim.ino)
        floor = later_time(floor, n->victim.row.ctime);
    record.head.time = store_next_time(store, floor);
    record.cookie = store_next_id(store, 0);
    record.old_cookie = exchange || whiteout ? store_next_id(store, 1) : 0;
    if (exchange)
        record.flags = RENAME_EXCHANGED;
    if (whiteout) {
        record.flags = RENAME_LEFT_WHITEOUT;
        settle_owner(caller, &n->directory, &record);
    }
    return op_append(store, &record, NULL, NULL, 0, lsn);
}

int op_rename(struct store *store, const struct caller *caller, uint64_t parent, const char *name, uint64_t new_parent,
              const char *new_name, unsigned flags, uint64_t *victim, uint32_t *left, uint64_t *lsn) {
    struct renaming n = {
        .parent = parent, .new_parent = new_parent, .name = name, .new_name = new_name, .flags = flags};
    int error = check_name(name);

    *lsn = 0;
    *victim = 0;
    *left = 0;
    if (!error)
        error = check_name(new_name);
    if (error)
        return error;
    if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) ||
        (flags & RENAME_EXCHANGE && flags != RENAME_EXCHANGE))
        return -EINVAL;
    if (is_dot(name) || is_dot(new_name))
        return -EBUSY;
    error = op_begin(store, SPACE_GROW);
    if (error)
        return error;
    error = rename_gather(store, &n);
    if (!error)
        error = rename_check(store, &n);
    if (!error)
        error = rename_append(store, caller, &n, lsn);
    if (!error && n.victim.ino && !(flags & RENAME_EXCHANGE)) {
        *victim = n.victim.ino;
        *left = S_ISDIR(n.victim.row.mode) ? 0 : n.victim.row.nlink - 1;
    }
    store_unlock(store);
    return error == 1 ? 0 : error;
}

/* ---- Reading ---- */

int op_readlink(struct store *store, uint64_t ino, char *buffer, size_t room) {
    struct inode_row row;
    struct span target;
    store_lock(store);
    int result = inode_get_target(store, ino, &row, &target);
    if (result == -ENOENT)
        result = -ESTALE;
    else if (result == 0 && !S_ISLNK(row.mode))
        result = -EINVAL;
    else if (result == 0) {
        result = (int)MIN(target.length, room);
        memcpy(buffer, target.data, (size_t)result);
    }
    store_unlock(store);
    return result;
}

/* 0: go on, 1: enough, or an error. */
static int give_entry(struct store *store, const struct cursor *cursor, bool with_attributes,
                      int (*each)(void *context, const struct directory_entry *entry), void *context) {
    struct dircookie_row row;
    struct attributes attributes;
    if (cursor->key.length != 16 || cursor->value.length <= sizeof row ||
        cursor->value.length - sizeof row > BATON_NAME_MAX) {
        log_error("a directory has a row of a wrong length; run baton check on this store");
        return -EIO;
    }
    memcpy(&row, cursor->value.data, sizeof row);
    struct directory_entry entry = {
        .cookie = be64_get(cursor->key.data + 8),
        .ino = row.ino,
        .type = row.type,
        .name = (const char *)cursor->value.data + sizeof row,
        .name_length = cursor->value.length - (uint32_t)sizeof row,
    };
    if (with_attributes) {
        int error = attributes_get(store, row.ino, &attributes);
        if (error)
            return error == -ESTALE ? -EIO : error;
        entry.attributes = &attributes;
    }
    return each(context, &entry) != 0;
}

int op_readdir(struct store *store, uint64_t directory, uint64_t cookie, bool with_attributes,
               int (*each)(void *context, const struct directory_entry *entry), void *context) {
    struct cursor cursor;
    struct inode_row row;

    if (cookie == UINT64_MAX)
        return 0;
    store_lock(store);
    int error = directory_row(store, directory, &row);
    if (!error)
        error = cursor_open(&cursor, store, NULL, TABLE_DIRCOOKIE);
    if (!error) {
        struct key key = key_u64_u64(directory, cookie + 1);
        for (error = cursor_seek(&cursor, &key); !error; error = cursor_next(&cursor)) {
            if (cursor.key.length >= 8 && be64_get(cursor.key.data) != directory)
                break;
            error = give_entry(store, &cursor, with_attributes, each, context);
            if (error)
                break;
        }
        cursor_close(&cursor);
    }
    store_unlock(store);
    return error == -ENOENT || error == 1 ? 0 : error;
}
