/* Operations on extended attributes. */
#include "fs/acl.h"
#include "fs/ops_parts.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#define NAMES_MAX 65536u /* bytes that listxattr can give: the kernel's limit */

enum namespace { NAMESPACE_NONE, NAMESPACE_USER, NAMESPACE_TRUSTED, NAMESPACE_SECURITY, NAMESPACE_ACL };

static bool begins(const char *name, size_t length, const char *prefix) {
    size_t n = strlen(prefix);
    return length > n && memcmp(name, prefix, n) == 0;
}

static enum namespace namespace_of(const char *name, size_t length) {
    if (begins(name, length, "user."))
        return NAMESPACE_USER;
    if (begins(name, length, "trusted."))
        return NAMESPACE_TRUSTED;
    if (begins(name, length, "security."))
        return NAMESPACE_SECURITY;
    if (length == strlen(XATTR_ACL_ACCESS) && memcmp(name, XATTR_ACL_ACCESS, length) == 0)
        return NAMESPACE_ACL;
    if (length == strlen(XATTR_ACL_DEFAULT) && memcmp(name, XATTR_ACL_DEFAULT, length) == 0)
        return NAMESPACE_ACL;
    return NAMESPACE_NONE;
}

static int check_name(const char *name, enum namespace *namespace) {
    size_t length = strlen(name);
    if (length == 0 || length > BATON_NAME_MAX)
        return -ERANGE;
    if (strcmp(name, "user.") == 0 || strcmp(name, "trusted.") == 0 || strcmp(name, "security.") == 0)
        return -EINVAL;
    *namespace = namespace_of(name, length);
    return *namespace == NAMESPACE_NONE ? -EOPNOTSUPP : 0;
}

static bool is_default_acl(const char *name) {
    return strcmp(name, XATTR_ACL_DEFAULT) == 0;
}

/* Gives `value` to a caller with `room` bytes, none if he only asks for the length. */
static int give(struct span value, void *buffer, size_t room) {
    if (room == 0)
        return (int)value.length;
    if (value.length > room)
        return -ERANGE;
    if (value.length)
        memcpy(buffer, value.data, value.length);
    return (int)value.length;
}

/* What an inode without attributes, or without this one, can say without a look at the table. */
static bool surely_absent(const struct inode_row *row, const char *name) {
    return row->xattrs == 0 || (!(row->flags & INODE_CAPABILITY) && strcmp(name, XATTR_CAPABILITY) == 0) ||
           (!(row->flags & INODE_ACL) && strcmp(name, XATTR_ACL_ACCESS) == 0);
}

int op_getxattr(struct store *store, uint64_t ino, const char *name, void *buffer, size_t room) {
    enum namespace namespace;
    struct inode_row row;
    struct span value;
    int result = check_name(name, &namespace);
    if (result)
        return result;
    struct key key = key_u64_name(ino, name, strlen(name));
    store_lock(store);
    result = op_inode(store, ino, &row);
    if (!result)
        result = surely_absent(&row, name) ? -ENOENT : table_get(store, TABLE_XATTR, &key, &value);
    if (!result)
        result = give(value, buffer, room);
    store_unlock(store);
    return result == -ENOENT ? -ENODATA : result;
}

/* Calls `each` with the name of each attribute; it returns 0 to go on. Lock held. */
static int each_name(struct store *store, uint64_t ino, int (*each)(void *context, struct span name), void *context) {
    struct cursor cursor;
    struct key key = key_u64(ino);
    int error = cursor_open(&cursor, store, NULL, TABLE_XATTR);
    if (error)
        return error;
    for (error = cursor_seek(&cursor, &key); !error; error = cursor_next(&cursor)) {
        if (cursor.key.length <= 8 || be64_get(cursor.key.data) != ino)
            break;
        error = each(context, (struct span){cursor.key.data + 8, cursor.key.length - 8});
        if (error)
            break;
    }
    cursor_close(&cursor);
    return error == -ENOENT ? 0 : error;
}

struct listing {
    char *buffer;
    size_t room, used;
    bool trusted;
};

static int list_name(void *context, struct span name) {
    struct listing *listing = context;
    if (!listing->trusted && begins((const char *)name.data, name.length, "trusted."))
        return 0;
    if (listing->room && name.length + 1 > listing->room - listing->used)
        return -ERANGE;
    if (listing->room) {
        memcpy(listing->buffer + listing->used, name.data, name.length);
        listing->buffer[listing->used + name.length] = 0;
    }
    listing->used += name.length + 1;
    return 0;
}

int op_listxattr(struct store *store, uint64_t ino, bool trusted, void *buffer, size_t room) {
    struct listing listing = {buffer, room, 0, trusted};
    struct inode_row row;
    store_lock(store);
    int error = op_inode(store, ino, &row);
    if (!error && row.xattrs)
        error = each_name(store, ino, list_name, &listing);
    store_unlock(store);
    return error ? error : (int)listing.used;
}

/* ---- Setting ---- */

static int add_length(void *context, struct span name) {
    *(size_t *)context += name.length + 1;
    return 0;
}

/* Existence against the flags, and room in the list for a new name. */
static int check_present(struct store *store, uint64_t ino, const char *name, int flags, bool *existed) {
    struct key key = key_u64_name(ino, name, strlen(name));
    struct span value;
    size_t names = strlen(name) + 1;
    int error = table_get(store, TABLE_XATTR, &key, &value);
    *existed = !error;
    if (!error)
        return flags & XATTR_CREATE ? -EEXIST : 0;
    if (error != -ENOENT)
        return error;
    if (flags & XATTR_REPLACE)
        return -ENODATA;
    error = each_name(store, ino, add_length, &names);
    return !error && names > NAMES_MAX ? -ENOSPC : error;
}

static int check_kind(enum namespace namespace, const char *name, const struct inode_row *row) {
    if (namespace == NAMESPACE_USER && !S_ISREG(row->mode) && !S_ISDIR(row->mode))
        return -EPERM;
    if (namespace == NAMESPACE_ACL && S_ISLNK(row->mode))
        return -EOPNOTSUPP;
    if (namespace == NAMESPACE_ACL && is_default_acl(name) && !S_ISDIR(row->mode))
        return -EACCES;
    return 0;
}

/* An access list that says no more than the mode is the mode. */
static int append_mode(struct store *store, uint64_t ino, const struct inode_row *row, uint32_t mode, uint64_t *lsn) {
    struct record record = {
        .head.type = RECORD_SETATTR, .head.ino = ino, .flags = SET_MODE | SET_ACL, .mode = mode & 07777};
    record.head.time = store_next_time(store, row->ctime);
    return op_append(store, &record, NULL, NULL, 0, lsn);
}

static int append_xattr(struct store *store, uint64_t ino, const struct inode_row *row, const char *name,
                        struct span value, uint32_t flags, uint32_t mode, uint64_t *lsn) {
    struct record record = {.head.type = RECORD_XATTR,
                            .head.ino = ino,
                            .flags = flags,
                            .name = span_of(name),
                            .value = value,
                            .mode = flags & XATTR_SET_MODE ? mode & 07777 : 0};
    record.head.time = store_next_time(store, row->ctime);
    return op_append(store, &record, NULL, NULL, 0, lsn);
}

static int set_locked(struct store *store, uint64_t ino, const char *name, struct span value, int flags, bool kill_sgid,
                      enum namespace namespace, uint64_t *lsn) {
    struct inode_row row;
    bool existed;
    int error = op_inode(store, ino, &row);
    if (!error)
        error = check_kind(namespace, name, &row);
    if (!error)
        error = check_present(store, ino, name, flags, &existed);
    if (error)
        return error;
    if (namespace != NAMESPACE_ACL || is_default_acl(name))
        return append_xattr(store, ino, &row, name, value, 0, 0, lsn);
    uint32_t mode = row.mode;
    bool plain = acl_mode(value.data, value.length, &mode);
    if (kill_sgid)
        mode &= ~(uint32_t)S_ISGID;
    if (plain)
        return append_mode(store, ino, &row, mode, lsn);
    return append_xattr(store, ino, &row, name, value, mode != row.mode ? XATTR_SET_MODE : 0, mode, lsn);
}

int op_setxattr(struct store *store, const struct caller *caller, uint64_t ino, const char *name, const void *value,
                size_t length, int flags, bool kill_sgid, uint64_t *lsn) {
    enum namespace namespace;
    int error = check_name(name, &namespace);

    (void)caller; /* the kernel has checked the permission */
    *lsn = 0;
    if (error)
        return error;
    if (flags & ~(XATTR_CREATE | XATTR_REPLACE) || flags == (XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (length > BATON_XATTR_VALUE_MAX)
        return -E2BIG;
    if (namespace == NAMESPACE_ACL && length == 4) /* a list without entries takes the list away */
        return op_removexattr(store, ino, name, lsn);
    if (namespace == NAMESPACE_ACL && acl_check(value, length) != 0)
        return -EINVAL;
    error = op_begin(store, SPACE_GROW);
    if (error)
        return error;
    struct span span = {length ? value : (const void *)"", (uint32_t)length};
    error = set_locked(store, ino, name, span, flags, kill_sgid, namespace, lsn);
    store_unlock(store);
    return error;
}

int op_removexattr(struct store *store, uint64_t ino, const char *name, uint64_t *lsn) {
    enum namespace namespace;
    struct inode_row row;
    bool existed = false;
    int error = check_name(name, &namespace);

    *lsn = 0;
    if (!error)
        error = op_begin(store, SPACE_FREE);
    if (error)
        return error;
    error = op_inode(store, ino, &row);
    if (!error)
        error = check_present(store, ino, name, XATTR_REPLACE, &existed);
    if (!error)
        error = append_xattr(store, ino, &row, name, (struct span){NULL, 0}, XATTR_REMOVE, 0, lsn);
    else if (error == -ENODATA && namespace == NAMESPACE_ACL)
        error = 0; /* a file without a list has none to lose */
    store_unlock(store);
    return error;
}
