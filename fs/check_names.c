/* Inodes, entries, cookies, attributes and orphans: do they say the same of each other? */
#include "fs/acl.h"
#include "fs/apply_parts.h"
#include "fs/check_parts.h"

#include <sys/stat.h>

typedef unsigned long long ull;

struct check_inode *check_inode_find(struct check *check, uint64_t ino) {
    size_t low = 0, high = check->inode_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (check->inodes[middle].ino < ino)
            low = middle + 1;
        else
            high = middle;
    }
    return low < check->inode_count && check->inodes[low].ino == ino ? &check->inodes[low] : NULL;
}

struct check_data *check_data_find(struct check *check, uint64_t id) {
    size_t low = 0, high = check->data_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (check->data[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < check->data_count && check->data[low].id == id ? &check->data[low] : NULL;
}

static void add_data(struct check *check, uint64_t id, size_t inode) {
    check->data = check_grow(check->data, check->data_count, &check->data_room, sizeof *check->data);
    check->data[check->data_count++] = (struct check_data){id, inode};
}

static int by_id(const void *a, const void *b) {
    const struct check_data *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool kind_is_known(uint32_t mode) {
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) ||
           S_ISSOCK(mode);
}

static bool time_is_sound(struct file_time time) {
    return time.nanoseconds < 1000000000u;
}

static void take_inode(struct check *check, struct span key, struct span value) {
    struct inode_row row;
    uint64_t ino = key.length == 8 ? be64_get(key.data) : 0;

    if (ino == 0 || value.length < sizeof row) {
        found(check, "inode %llu: its row has a wrong length: the file is lost", (ull)ino);
        return;
    }
    memcpy(&row, value.data, sizeof row);
    if (!kind_is_known(row.mode) || value.length - sizeof row != (S_ISLNK(row.mode) ? row.size : 0))
        found(check, "inode %llu: its row does not fit its kind (mode %o): the file cannot be used", (ull)ino,
              row.mode);
    if (!time_is_sound(row.atime) || !time_is_sound(row.mtime) || !time_is_sound(row.ctime) ||
        !time_is_sound(row.btime))
        found(check, "inode %llu has a time with more than a second of nanoseconds", (ull)ino);
    if (!S_ISREG(row.mode) && (row.blocks || row.trim))
        found(check, "inode %llu is no regular file but counts data blocks", (ull)ino);
    if (S_ISREG(row.mode) && row.size > FILE_SIZE_MAX)
        found(check, "inode %llu has a size of %llu bytes, above the limit", (ull)ino, (ull)row.size);
    check->inodes = check_grow(check->inodes, check->inode_count, &check->inode_room, sizeof *check->inodes);
    struct check_inode *inode = &check->inodes[check->inode_count++];
    *inode = (struct check_inode){.ino = ino,
                                  .parent = row.parent,
                                  .data = row.data,
                                  .size = row.size,
                                  .blocks = row.blocks,
                                  .trim = row.trim,
                                  .mode = row.mode,
                                  .nlink = row.nlink,
                                  .xattrs = row.xattrs,
                                  .flags = row.flags};
    if (S_ISREG(row.mode))
        add_data(check, row.data, check->inode_count - 1);
}

/* ---- Entries and cookies ---- */

static void compare_cookie(struct check *check, uint64_t parent, struct span name, const struct dirent_row *entry) {
    struct key key = key_u64_u64(parent, entry->cookie);
    struct dircookie_row row;
    struct span value;
    if (get(check, TABLE_DIRCOOKIE, &key, &value) != 0 || value.length < sizeof row) {
        found(check, "directory %llu: the entry \"%s\" is missing in the order of reading: ls does not show it",
              (ull)parent, printable(name));
        return;
    }
    memcpy(&row, value.data, sizeof row);
    if (row.ino != entry->ino || row.type != entry->type || value.length - sizeof row != name.length ||
        memcmp(value.data + sizeof row, name.data, name.length) != 0)
        found(check, "directory %llu: the entry \"%s\" is another one in the order of reading: ls shows a wrong name",
              (ull)parent, printable(name));
}

static void take_dirent(struct check *check, struct span key, struct span value) {
    struct dirent_row entry;
    if (key.length <= 8 || key.length - 8 > BATON_NAME_MAX || value.length != sizeof entry) {
        found(check, "an entry of a directory has a row of a wrong length: a name is lost");
        return;
    }
    uint64_t parent = be64_get(key.data);
    struct span name = {key.data + 8, key.length - 8};
    memcpy(&entry, value.data, sizeof entry);
    struct check_inode *directory = check_inode_find(check, parent), *inode = check_inode_find(check, entry.ino);
    if (!entry_name_is_valid(name))
        found(check, "directory %llu has an entry with an impossible name, \"%s\"", (ull)parent, printable(name));
    if (!directory || !S_ISDIR(directory->mode) || directory->nlink == 0)
        found(check, "the entry \"%s\" stands in inode %llu, which is no directory: nobody can reach it",
              printable(name), (ull)parent);
    else
        directory->entries_seen++;
    compare_cookie(check, parent, name, &entry);
    if (!inode) {
        found(check, "directory %llu: the entry \"%s\" names inode %llu, which does not exist: the file is lost",
              (ull)parent, printable(name), (ull)entry.ino);
        return;
    }
    inode->links_seen++;
    if ((inode->mode & S_IFMT) != entry.type)
        found(check, "directory %llu: the entry \"%s\" says another kind of file than inode %llu is", (ull)parent,
              printable(name), (ull)entry.ino);
    if (!S_ISDIR(inode->mode))
        return;
    if (directory)
        directory->subdirs_seen++;
    if (inode->parent != parent)
        found(check, "directory %llu stands in directory %llu, but its \"..\" is %llu", (ull)entry.ino, (ull)parent,
              (ull)inode->parent);
}

static void take_cookie(struct check *check, struct span key, struct span value) {
    struct dircookie_row row;
    struct dirent_row entry;
    struct span found_value;
    if (key.length != 16 || value.length <= sizeof row || value.length - sizeof row > BATON_NAME_MAX) {
        found(check, "a row of the order of reading directories has a wrong length");
        return;
    }
    memcpy(&row, value.data, sizeof row);
    struct span name = {value.data + sizeof row, value.length - (uint32_t)sizeof row};
    struct key by_name = key_u64_name(be64_get(key.data), name.data, name.length);
    int rc = get(check, TABLE_DIRENT, &by_name, &found_value);
    if (rc == 0 && found_value.length == sizeof entry) {
        memcpy(&entry, found_value.data, sizeof entry);
        if (entry.cookie == be64_get(key.data + 8))
            return;
    }
    found(check, "directory %llu shows \"%s\" when it is read, but has no such entry: ls shows what cannot be opened",
          (ull)be64_get(key.data), printable(name));
}

/* ---- Attributes ---- */

static void take_xattr(struct check *check, struct span key, struct span value) {
    if (key.length <= 8 || key.length > 8 + BATON_NAME_MAX || value.length > BATON_XATTR_VALUE_MAX) {
        found(check, "an extended attribute has a row of a wrong length");
        return;
    }
    uint64_t ino = be64_get(key.data);
    struct span name = {key.data + 8, key.length - 8};
    struct check_inode *inode = check_inode_find(check, ino);
    if (!inode) {
        found(check, "the attribute \"%s\" belongs to inode %llu, which does not exist", printable(name), (ull)ino);
        return;
    }
    inode->xattrs_seen++;
    const char *text = printable(name);
    bool access = strcmp(text, XATTR_ACL_ACCESS) == 0, inherited = strcmp(text, XATTR_ACL_DEFAULT) == 0;
    inode->flags_seen |= access ? INODE_ACL : inherited ? INODE_DEFAULT_ACL : 0;
    if (strcmp(text, XATTR_CAPABILITY) == 0)
        inode->flags_seen |= INODE_CAPABILITY;
    if ((access || inherited) && acl_check(value.data, value.length) != 0)
        found(check, "inode %llu: its access control list \"%s\" is malformed: permissions may be wrong", (ull)ino,
              text);
}

/* ---- Orphans ---- */

static void take_orphan(struct check *check, struct span key, struct span value) {
    if (key.length != 9 || value.length != sizeof(struct orphan_row)) {
        found(check, "a row of orphans has a wrong length: space may stay occupied");
        return;
    }
    uint64_t id = be64_get(key.data + 1);
    struct check_inode *inode = check_inode_find(check, id);
    switch (key.data[0]) {
    case ORPHAN_INODE:
        if (!inode || inode->nlink != 0)
            found(check, "inode %llu is listed as unlinked, but %s: it would be freed while it is in use", (ull)id,
                  inode ? "has names" : "does not exist");
        else
            inode->orphan = true;
        break;
    case ORPHAN_TRIM:
        if (!inode || inode->trim == 0)
            found(check, "inode %llu is listed with blocks to free behind its end, but has none", (ull)id);
        else
            inode->orphan_trim = true;
        break;
    case ORPHAN_DATA:
        add_data(check, id, SIZE_MAX);
        break;
    default:
        found(check, "a row of orphans has an unknown kind");
    }
}

static void check_data_ids(struct check *check) {
    if (check->data_count)
        qsort(check->data, check->data_count, sizeof *check->data, by_id);
    for (size_t i = 1; i < check->data_count; i++)
        if (check->data[i].id == check->data[i - 1].id)
            found(check, "data id %llu belongs to two files: what is written to one appears in the other",
                  (ull)check->data[i].id);
}

/* ---- Inodes, once all was seen ---- */

/* Does the directory lie below the root? Each one is asked once. */
static bool reaches_root(struct check *check, struct check_inode *inode) {
    struct check_inode *at = inode;
    while (at->reach == 0 && at->ino != 1) {
        at->reach = 1;
        struct check_inode *up = check_inode_find(check, at->parent);
        if (!up || !S_ISDIR(up->mode))
            break;
        at = up;
    }
    bool reaches = at->ino == 1 || at->reach == 2;
    for (at = inode; at && at->reach == 1; at = check_inode_find(check, at->parent))
        at->reach = reaches ? 2 : 3;
    return reaches;
}

static void check_directory(struct check *check, struct check_inode *inode) {
    bool removed = inode->nlink == 0;
    if (inode->entries_seen != inode->size)
        found(check, "directory %llu counts %llu entries and has %llu: rmdir will be refused, or loses files",
              (ull)inode->ino, (ull)inode->size, (ull)inode->entries_seen);
    if (!removed && inode->nlink != 2 + inode->subdirs_seen)
        found(check, "directory %llu counts %u links and should have %u", (ull)inode->ino, inode->nlink,
              2 + inode->subdirs_seen);
    if (inode->ino == 1)
        return;
    if (inode->links_seen != (removed ? 0u : 1u))
        found(check, "directory %llu has %u names and should have %u", (ull)inode->ino, inode->links_seen,
              removed ? 0u : 1u);
    if (!removed && !reaches_root(check, inode))
        found(check, "directory %llu does not lie below the root: it and what is in it cannot be reached",
              (ull)inode->ino);
}

static void check_inode(struct check *check, struct check_inode *inode) {
    if (S_ISDIR(inode->mode))
        check_directory(check, inode);
    else if (inode->links_seen != inode->nlink)
        found(
            check, "inode %llu counts %u links and has %u names: %s", (ull)inode->ino, inode->nlink, inode->links_seen,
            inode->links_seen < inode->nlink ? "its space will never be freed" : "it may be freed while it has names");
    if ((inode->nlink == 0) != inode->orphan)
        found(check, "inode %llu has no name and is not listed as unlinked: its space will never be freed",
              (ull)inode->ino);
    if ((inode->trim != 0) != inode->orphan_trim)
        found(check, "inode %llu has blocks to free behind its end and is not listed for that", (ull)inode->ino);
    if (inode->xattrs != inode->xattrs_seen)
        found(check, "inode %llu counts %u extended attributes and has %u", (ull)inode->ino, inode->xattrs,
              inode->xattrs_seen);
    if ((inode->flags & (INODE_ACL | INODE_DEFAULT_ACL | INODE_CAPABILITY)) != inode->flags_seen)
        found(check,
              "inode %llu: its flags do not say which access lists and capabilities it has: permissions may be "
              "wrong",
              (ull)inode->ino);
}

void check_names(struct check *check) {
    walk(check, TABLE_INODE, take_inode);
    struct check_inode *root = check_inode_find(check, 1);
    if (!root || !S_ISDIR(root->mode))
        found(check, "the root directory is missing: nothing can be reached");
    walk(check, TABLE_DIRENT, take_dirent);
    walk(check, TABLE_DIRCOOKIE, take_cookie);
    walk(check, TABLE_XATTR, take_xattr);
    walk(check, TABLE_ORPHAN, take_orphan);
    check_data_ids(check);
    for (size_t i = 0; i < check->inode_count; i++)
        check_inode(check, &check->inodes[i]);
}
