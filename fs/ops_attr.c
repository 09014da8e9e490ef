/* Operations on attributes; the extended ones are in ops_xattr.c. */
#include "fs/acl.h"
#include "fs/ops_parts.h"

#include <sys/stat.h>

#define DAY 86400

int op_getattr(struct store *store, uint64_t ino, struct attributes *out) {
    store_lock(store);
    out->ino = ino;
    int error = op_inode(store, ino, &out->row);
    store_unlock(store);
    return error;
}

/* chmod of a file with an access list: the list follows. `acl` has room for the largest. */
static int settle_acl(struct store *store, uint64_t ino, struct record *record, uint8_t **acl) {
    struct key key = key_u64_name(ino, XATTR_ACL_ACCESS, strlen(XATTR_ACL_ACCESS));
    struct span value;
    int error = table_get(store, TABLE_XATTR, &key, &value);
    if (error || acl_check(value.data, value.length) != 0) {
        log_error("the access control list of inode %llu is unusable; run baton check on this store",
                  (unsigned long long)ino);
        return -EIO;
    }
    *acl = malloc(value.length);
    if (!*acl)
        return -ENOMEM;
    memcpy(*acl, value.data, value.length);
    acl_chmod(*acl, value.length, record->mode);
    record->flags |= SET_ACL;
    record->value = (struct span){*acl, value.length};
    return 0;
}

/* chown and SET_KILL_PRIV take set-id bits and the capability away, unless the same call sets the mode. So does a call
 * that sets nothing: that is chown(-1, -1), or the kernel before a fallocate or a copy by one who may not keep them. */
static void settle_mode(const struct inode_row *row, const struct set_attributes *set, struct record *record) {
    bool owner = (set->mask & (SET_UID | SET_GID)) != 0;
    bool kill = (set->mask & ~SET_KILL_SGID) == 0 || set->mask & SET_KILL_PRIV;
    uint32_t mode = mode_without_set_id(row->mode) & ~(set->mask & SET_KILL_SGID ? (uint32_t)S_ISGID : 0u);

    if (set->mask & SET_MODE) {
        record->flags |= SET_MODE;
        record->mode = set->mode & 07777;
    } else if ((owner || kill) && !S_ISDIR(row->mode) && mode != row->mode) {
        record->flags |= SET_MODE;
        record->mode = mode & 07777;
    }
    if ((owner || kill) && S_ISREG(row->mode) && row->flags & INODE_CAPABILITY)
        record->flags |= SET_NO_CAPABILITY;
}

static void settle(const struct inode_row *row, const struct set_attributes *set, struct record *record) {
    struct file_time now = file_time_of(record->head.time);

    settle_mode(row, set, record);
    if (set->mask & SET_UID) {
        record->flags |= SET_UID;
        record->uid = set->uid;
    }
    if (set->mask & SET_GID) {
        record->flags |= SET_GID;
        record->gid = set->gid;
    }
    if (set->mask & SET_ATIME) {
        record->flags |= SET_ATIME;
        record->atime = set->atime_now ? now : set->atime;
    }
    if (set->mask & SET_MTIME) {
        record->flags |= SET_MTIME;
        record->mtime = set->mtime_now ? now : set->mtime;
    }
}

static int change_attributes(struct store *store, uint64_t ino, const struct set_attributes *set, uint64_t *lsn) {
    struct record record = {.head.type = RECORD_SETATTR, .head.ino = ino};
    AUTO_FREE uint8_t *acl = NULL;
    struct inode_row row;
    int error = op_begin(store, SPACE_FREE);
    if (error)
        return error;
    error = op_inode(store, ino, &row);
    if (error)
        goto out;
    if ((set->mask & SET_UID && set->uid == UINT32_MAX) || (set->mask & SET_GID && set->gid == UINT32_MAX)) {
        error = -EINVAL;
        goto out;
    }
    record.head.time = store_next_time(store, row.ctime);
    settle(&row, set, &record);
    if (set->mask == SET_KILL_PRIV && record.flags == 0)
        goto out; /* nothing to take away */
    if (set->mask & SET_MODE && row.flags & INODE_ACL)
        error = settle_acl(store, ino, &record, &acl);
    if (!error)
        error = op_append(store, &record, NULL, NULL, 0, lsn);
out:
    store_unlock(store);
    return error;
}

int op_setattr(struct store *store, const struct caller *caller, uint64_t ino, const struct set_attributes *set,
               struct attributes *out, uint64_t *lsn) {
    struct set_attributes rest = *set;
    int error = 0;

    (void)caller; /* the kernel has checked the permission */
    *lsn = 0;
    rest.mask &= SET_MODE | SET_UID | SET_GID | SET_ATIME | SET_MTIME | SET_KILL_PRIV | SET_KILL_SGID;
    if (set->mask & SET_ATIME && !set->atime_now && set->atime.nanoseconds >= 1000000000u)
        return -EINVAL;
    if (set->mask & SET_MTIME && !set->mtime_now && set->mtime.nanoseconds >= 1000000000u)
        return -EINVAL;
    if (set->mask & SET_SIZE) {
        error = op_truncate(store, ino, set->size, (set->mask & SET_KILL_PRIV) != 0, lsn);
        rest.mask &= ~SET_KILL_PRIV;
    }
    if (!error && (rest.mask || !(set->mask & SET_SIZE)))
        error = change_attributes(store, ino, &rest, lsn);
    return error ? error : op_getattr(store, ino, out);
}

int op_touch_atime(struct store *store, uint64_t ino, bool always) {
    struct record record = {.head.type = RECORD_SETATTR, .head.ino = ino, .flags = SET_ATIME | SET_KEEP_CTIME};
    struct inode_row row;
    uint64_t lsn;
    int64_t day_ago = clock_now() / 1000000000 - DAY;

    store_lock(store);
    int error = op_inode(store, ino, &row);
    bool stale = !error && (always || file_time_compare(row.atime, row.mtime) <= 0 ||
                            file_time_compare(row.atime, row.ctime) <= 0 || row.atime.seconds < day_ago);
    store_unlock(store);
    if (!stale)
        return error;
    error = op_begin(store, SPACE_FREE);
    if (error) /* not the primary, no room: a read does not fail for its time */
        return error == -EROFS || error == -ENOSPC ? 0 : error;
    error = op_inode(store, ino, &row);
    if (!error) {
        record.head.time = store_next_time(store, (struct file_time){0, 0});
        record.atime = file_time_of(record.head.time);
        error = op_append(store, &record, NULL, NULL, 0, &lsn);
    }
    store_unlock(store);
    return error;
}
