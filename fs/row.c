#include "fs/row.h"

#include "fs/extent.h"

#include <sys/stat.h>

static bool kind_is_known(uint32_t kind) {
    return S_ISREG(kind) || S_ISDIR(kind) || S_ISLNK(kind) || S_ISCHR(kind) || S_ISBLK(kind) || S_ISFIFO(kind) ||
           S_ISSOCK(kind);
}

static bool time_is_possible(struct file_time time) {
    return time.nanoseconds < 1000000000u;
}

static bool inode_is_possible(struct span key, struct span value) {
    struct inode_row row;
    if (key.length != 8 || be64_get(key.data) == 0 || value.length < sizeof row)
        return false;
    memcpy(&row, value.data, sizeof row);
    struct span target = {value.data + sizeof row, value.length - (uint32_t)sizeof row};
    if (row.mode & ~(uint32_t)(S_IFMT | 07777) || !kind_is_known(row.mode) || !time_is_possible(row.atime) ||
        !time_is_possible(row.mtime) || !time_is_possible(row.ctime) || !time_is_possible(row.btime))
        return false;
    if (!S_ISREG(row.mode) && (row.blocks || row.trim))
        return false;
    if (S_ISLNK(row.mode))
        return target.length > 0 && target.length == row.size && target.length <= BATON_SYMLINK_MAX &&
               !memchr(target.data, 0, target.length);
    return target.length == 0 && (!S_ISREG(row.mode) || row.size <= FILE_SIZE_MAX);
}

static bool dirent_is_possible(struct span key, struct span value) {
    struct dirent_row row;
    if (key.length <= 8 || value.length != sizeof row)
        return false;
    memcpy(&row, value.data, sizeof row);
    return row.ino != 0 && row.cookie != 0 && (row.type & ~(uint32_t)S_IFMT) == 0 && kind_is_known(row.type) &&
           entry_name_is_valid((struct span){key.data + 8, key.length - 8});
}

static bool dircookie_is_possible(struct span key, struct span value) {
    struct dircookie_row row;
    if (key.length != 16 || value.length <= sizeof row)
        return false;
    memcpy(&row, value.data, sizeof row);
    return row.ino != 0 && (row.type & ~(uint32_t)S_IFMT) == 0 && kind_is_known(row.type) &&
           entry_name_is_valid((struct span){value.data + sizeof row, value.length - (uint32_t)sizeof row});
}

static bool xattr_is_possible(struct span key, struct span value) {
    return key.length > 8 && value.length <= BATON_XATTR_VALUE_MAX &&
           xattr_name_is_valid((struct span){key.data + 8, key.length - 8});
}

static bool orphan_is_possible(struct span key, struct span value) {
    return key.length == 9 && value.length == sizeof(struct orphan_row) &&
           (key.data[0] == ORPHAN_INODE || key.data[0] == ORPHAN_DATA || key.data[0] == ORPHAN_TRIM);
}

static bool epoch_is_possible(struct span key, struct span value) {
    struct epoch_row row;
    if (key.length != 8 || value.length != sizeof row)
        return false;
    epoch_t epoch = be64_get(key.data);
    memcpy(&row, value.data, sizeof row);
    return EPOCH_COUNTER(epoch) > 0 && EPOCH_COUNTER(epoch) <= EPOCH_COUNTER_MAX && row.first > 0 &&
           row.first < UINT64_MAX / 2;
}

bool row_is_possible(enum table table, struct span key, struct span value) {
    struct extent extent;
    switch (table) {
    case TABLE_INODE:
        return inode_is_possible(key, value);
    case TABLE_DIRENT:
        return dirent_is_possible(key, value);
    case TABLE_DIRCOOKIE:
        return dircookie_is_possible(key, value);
    case TABLE_XATTR:
        return xattr_is_possible(key, value);
    case TABLE_EXTENT:
        return extent_parse(key, value, &extent) == 0;
    case TABLE_ORPHAN:
        return orphan_is_possible(key, value);
    case TABLE_EPOCH:
        return epoch_is_possible(key, value);
    default:
        return false;
    }
}
