#include "fs/acl.h"
#include "fs/apply_parts.h"
#include "fs/store.h"

#include <sys/stat.h>

/* ---- Rows ---- */

int inode_get_target(struct store *store, uint64_t ino, struct inode_row *row, struct span *target) {
    struct key key = key_u64(ino);
    struct span value;
    int error = table_get(store, TABLE_INODE, &key, &value);
    if (error)
        return error;
    if (value.length < sizeof *row) {
        log_error("inode %llu has a row that is too short; run baton check on this store", (unsigned long long)ino);
        return -EIO;
    }
    memcpy(row, value.data, sizeof *row);
    *target = (struct span){value.data + sizeof *row, value.length - (uint32_t)sizeof *row};
    if (target->length != (S_ISLNK(row->mode) ? row->size : 0) || target->length > BATON_SYMLINK_MAX) {
        log_error("inode %llu has a row of a wrong length; run baton check on this store", (unsigned long long)ino);
        return -EIO;
    }
    return 0;
}

int inode_get(struct store *store, uint64_t ino, struct inode_row *row) {
    struct span target;
    return inode_get_target(store, ino, row, &target);
}

int dirent_get(struct store *store, uint64_t parent, const void *name, size_t length, struct dirent_row *row) {
    struct key key = key_u64_name(parent, name, length);
    struct span value;
    int error = table_get(store, TABLE_DIRENT, &key, &value);
    if (error)
        return error;
    if (value.length != sizeof *row) {
        log_error("an entry of directory %llu has a row of a wrong length; run baton check on this store",
                  (unsigned long long)parent);
        return -EIO;
    }
    memcpy(row, value.data, sizeof *row);
    return 0;
}

int inode_put(struct change *change, uint64_t ino, const struct inode_row *row) {
    uint8_t buffer[sizeof *row + BATON_SYMLINK_MAX];
    struct span target = {NULL, 0};

    if (S_ISLNK(row->mode)) {
        struct inode_row old;
        int error = inode_get_target(change->store, ino, &old, &target);
        if (error)
            return error;
    }
    memcpy(buffer, row, sizeof *row);
    if (target.length)
        memcpy(buffer + sizeof *row, target.data, target.length);
    struct key key = key_u64(ino);
    return table_put(change, TABLE_INODE, &key, buffer, sizeof *row + target.length);
}

int inode_touch(struct inode_row *row, const struct record *r) {
    struct file_time time = file_time_of(r->head.time);
    if (file_time_compare(time, row->ctime) <= 0)
        return -EBADMSG;
    row->ctime = time;
    return 0;
}

int orphan_put(struct change *change, enum orphan_kind kind, uint64_t id, uint64_t ino, int64_t time) {
    struct orphan_row row = {ino, time};
    struct key key = key_orphan(kind, id);
    return table_put(change, TABLE_ORPHAN, &key, &row, sizeof row);
}

int orphan_remove(struct change *change, enum orphan_kind kind, uint64_t id) {
    struct key key = key_orphan(kind, id);
    return contradiction(table_remove(change, TABLE_ORPHAN, &key));
}

/* ---- Extended attributes ---- */

static bool span_is(struct span span, const char *text) {
    return span.length == strlen(text) && memcmp(span.data, text, span.length) == 0;
}

static uint32_t xattr_flag(struct span name) {
    if (span_is(name, XATTR_ACL_ACCESS))
        return INODE_ACL;
    if (span_is(name, XATTR_ACL_DEFAULT))
        return INODE_DEFAULT_ACL;
    return span_is(name, XATTR_CAPABILITY) ? INODE_CAPABILITY : 0;
}

int xattr_change(struct change *change, uint64_t ino, struct inode_row *row, struct span name, struct span value,
                 bool remove) {
    struct key key = key_u64_name(ino, name.data, name.length);
    struct span old;
    int error = table_get(change->store, TABLE_XATTR, &key, &old);

    if (error && error != -ENOENT)
        return error;
    bool existed = error == 0;
    if (!remove && xattr_flag(name) & (INODE_ACL | INODE_DEFAULT_ACL) && acl_check(value.data, value.length) != 0)
        return -EBADMSG;
    if (remove) {
        if (!existed)
            return -ENOENT;
        row->xattrs--;
        row->flags &= ~xattr_flag(name);
        return table_remove(change, TABLE_XATTR, &key);
    }
    row->xattrs += !existed;
    row->flags |= xattr_flag(name);
    return table_put(change, TABLE_XATTR, &key, value.data, value.length);
}

int xattr_change_named(struct change *change, uint64_t ino, struct inode_row *row, const char *name, struct span value,
                       bool remove) {
    struct span span = {(const uint8_t *)name, (uint32_t)strlen(name)};
    int error = xattr_change(change, ino, row, span, value, remove);
    return remove && error == -ENOENT ? 0 : error;
}

int apply_xattr(struct change *change, const struct record *r) {
    struct inode_row row;
    int error = contradiction(inode_get(change->store, r->head.ino, &row));
    if (!error)
        error = inode_touch(&row, r);
    if (error)
        return error;
    if (xattr_flag(r->name) == INODE_DEFAULT_ACL && !S_ISDIR(row.mode) && !(r->flags & XATTR_REMOVE))
        return -EBADMSG;
    if (r->flags & XATTR_SET_MODE)
        row.mode = (row.mode & S_IFMT) | r->mode;
    error = contradiction(xattr_change(change, r->head.ino, &row, r->name, r->value, (r->flags & XATTR_REMOVE) != 0));
    return error ? error : inode_put(change, r->head.ino, &row);
}

/* ---- Attributes and epochs ---- */

int apply_setattr(struct change *change, const struct record *r) {
    const struct span nothing = {NULL, 0};
    struct inode_row row;
    int error = contradiction(inode_get(change->store, r->head.ino, &row));
    if (error)
        return error;
    if (r->flags & SET_MODE)
        row.mode = (row.mode & S_IFMT) | r->mode;
    if (r->flags & SET_UID)
        row.uid = r->uid;
    if (r->flags & SET_GID)
        row.gid = r->gid;
    if (r->flags & SET_ATIME)
        row.atime = r->atime;
    if (r->flags & SET_MTIME)
        row.mtime = r->mtime;
    if (!(r->flags & SET_KEEP_CTIME))
        error = inode_touch(&row, r);
    else if (r->flags & ~(SET_ATIME | SET_KEEP_CTIME))
        error = -EBADMSG;
    if (!error && r->flags & SET_ACL)
        error = xattr_change_named(change, r->head.ino, &row, XATTR_ACL_ACCESS, r->value, r->value.length == 0);
    if (!error && r->flags & SET_NO_CAPABILITY)
        error = xattr_change_named(change, r->head.ino, &row, XATTR_CAPABILITY, nothing, true);
    return error ? error : inode_put(change, r->head.ino, &row);
}

/* The store's position is still the one before this record. */
static int apply_epoch(struct change *change, const struct record *r) {
    struct epoch_row row = {.first = r->head.lsn};
    struct position position;
    struct cursor cursor;
    struct key end = key_u64(UINT64_MAX), key = key_u64(r->head.epoch);
    int error = cursor_open(&cursor, change->store, NULL, TABLE_EPOCH);
    if (error)
        return error;
    error = cursor_seek_before(&cursor, &end);
    if (!error && (cursor.key.length != 8 || be64_get(cursor.key.data) >= r->head.epoch))
        error = -EBADMSG;
    cursor_close(&cursor);
    if (error && error != -ENOENT)
        return error;
    store_position_locked(change->store, &position);
    if (position.lsn + 1 != r->head.lsn)
        return -EBADMSG;
    memcpy(row.chain, position.chain, CHAIN_SIZE);
    return table_put(change, TABLE_EPOCH, &key, &row, sizeof row);
}

int id_is_new(struct change *change, const struct record *r, uint64_t id) {
    struct key key = key_u64(r->head.epoch);
    struct epoch_row row;
    struct span value;
    int error = contradiction(table_get(change->store, TABLE_EPOCH, &key, &value));
    if (error)
        return error;
    if (value.length != sizeof row)
        return -EIO;
    memcpy(&row, value.data, sizeof row);
    uint64_t step = r->head.lsn - row.first;
    return r->head.lsn > row.first && id >> 1 == (EPOCH_COUNTER(r->head.epoch) << 39 | step) ? 0 : -EBADMSG;
}

int record_apply(struct change *change, const struct record *record) {
    static int (*const apply[RECORD_TYPE_END])(struct change *, const struct record *) = {
        [RECORD_CREATE] = apply_create,     [RECORD_LINK] = apply_link,         [RECORD_UNLINK] = apply_unlink,
        [RECORD_RENAME] = apply_rename,     [RECORD_SETATTR] = apply_setattr,   [RECORD_WRITE] = apply_write,
        [RECORD_TRUNCATE] = apply_truncate, [RECORD_ALLOCATE] = apply_allocate, [RECORD_PUNCH] = apply_punch,
        [RECORD_XATTR] = apply_xattr,       [RECORD_RECLAIM] = apply_reclaim,   [RECORD_EPOCH] = apply_epoch,
    };
    uint64_t blocks = 0;

    for (uint32_t i = 0; i < change->place_count; i++)
        blocks += change->places[i].count;
    if (record->head.type == 0 || record->head.type >= RECORD_TYPE_END || blocks != record->head.blocks)
        return -EBADMSG;
    return apply[record->head.type](change, record);
}
