/* A blank past: the journal no longer reaches back to where an undone tail began. What its records take for granted is
 * made up, as little as possible: inodes without content, and the entries that are renamed or removed. */
#include "fs/history_undone_parts.h"

#include "fs/apply.h"
#include "fs/ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define STUB_COOKIES (1ull << 62) /* above those of records */
#define DEPTH_MAX 2048u
#define SCAN_ROWS 20000u

static int base_get(struct store *past, enum table table, const struct key *key, uint8_t *value, size_t room,
                    uint32_t *length) {
    struct store *base = past->history->base;
    struct span found;
    store_lock(base);
    int error = table_get(base, table, key, &found);
    if (!error && found.length > room)
        error = -EIO;
    if (!error) {
        *length = found.length;
        memcpy(value, found.data, found.length);
    }
    store_unlock(base);
    return error;
}

/* `mode`: S_IFDIR or S_IFREG, if the store does not know the inode. */
static int need_inode(struct store *past, uint64_t ino, uint32_t mode) {
    uint8_t value[sizeof(struct inode_row) + BATON_SYMLINK_MAX];
    struct key key = key_u64(ino);
    struct inode_row row;
    uint32_t length = 0;
    int error = inode_get(past, ino, &row);
    if (error != -ENOENT)
        return error;
    error = base_get(past, TABLE_INODE, &key, value, sizeof value, &length);
    if (error && error != -ENOENT)
        return error;
    if (error || length < sizeof row) {
        memset(&row, 0, sizeof row);
        row.mode = mode | (mode == S_IFDIR ? 0700 : 0600);
        row.data = ino;
        length = sizeof row;
    } else {
        memcpy(&row, value, sizeof row);
    }
    row.nlink = S_ISDIR(row.mode) ? 2 : 1;
    row.size = S_ISLNK(row.mode) ? row.size : 0;
    row.blocks = row.trim = 0;
    row.parent = ino == ROOT_INO ? ROOT_INO : 0;
    row.xattrs = row.flags = 0;
    row.ctime = (struct file_time){0, 0}; /* every record's is above */
    memcpy(value, &row, sizeof row);
    error = history_put(past, TABLE_INODE, &key, value, length);
    return error ? error : tail_select(past, ino, SELECTED_STUB);
}

/* A symlink keeps its target. */
static int put_inode(struct store *past, uint64_t ino, const struct inode_row *row) {
    uint8_t value[sizeof *row + BATON_SYMLINK_MAX];
    struct key key = key_u64(ino);
    struct inode_row old;
    struct span target;
    int error = inode_get_target(past, ino, &old, &target);
    if (error)
        return error;
    memcpy(value, row, sizeof *row);
    memcpy(value + sizeof *row, target.data, target.length);
    return history_put(past, TABLE_INODE, &key, value, sizeof *row + target.length);
}

/* An inode that is made up has one link: whichever of its names is met first is that one. Each other name that must have been
 * there is a link more, also where it comes up when the names before it have gone. */
static int count_name(struct store *past, uint64_t ino, struct inode_row *inode) {
    struct key orphan = key_orphan(ORPHAN_INODE, ino);
    if ((tail_selection(past, ino) & (SELECTED_STUB | SELECTED_NAMED)) == SELECTED_STUB)
        return tail_select(past, ino, SELECTED_NAMED);
    int error = inode->nlink == 0 ? history_remove(past, TABLE_ORPHAN, &orphan) : 0;
    inode->nlink++;
    return error ? error : put_inode(past, ino, inode);
}

static int put_entry(struct store *past, uint64_t parent, struct span name, uint64_t ino) {
    struct {
        struct dircookie_row row;
        uint8_t name[BATON_NAME_MAX];
    } __attribute__((packed)) value;
    struct inode_row directory, inode;
    int error = inode_get(past, ino, &inode);
    if (!error)
        error = inode_get(past, parent, &directory);
    if (error)
        return error;
    uint32_t type = inode.mode & S_IFMT;
    struct dirent_row entry = {ino, STUB_COOKIES + past->history->tail->cookies++, type};
    if (type == S_IFDIR) {
        inode.parent = parent;
        error = put_inode(past, ino, &inode);
        directory.nlink++;
    } else {
        error = count_name(past, ino, &inode);
    }
    directory.size++;
    if (!error)
        error = put_inode(past, parent, &directory);
    struct key key = key_u64_name(parent, name.data, name.length);
    if (!error)
        error = history_put(past, TABLE_DIRENT, &key, &entry, sizeof entry);
    value.row = (struct dircookie_row){ino, type};
    memcpy(value.name, name.data, name.length);
    key = key_u64_u64(parent, entry.cookie);
    return error ? error : history_put(past, TABLE_DIRCOOKIE, &key, &value, sizeof value.row + name.length);
}

static int need_entry(struct store *past, uint64_t parent, struct span name, uint64_t ino, uint32_t mode) {
    struct dirent_row row;
    int error = need_inode(past, parent, S_IFDIR);
    if (!error)
        error = need_inode(past, ino, mode);
    if (!error)
        error = dirent_get(past, parent, name.data, name.length, &row);
    return error == -ENOENT ? put_entry(past, parent, name, ino) : error;
}

/* Numbers are checked against the epoch that gave them. The store knows it, or the tail began it. */
static int need_epoch(struct store *past, const struct record *record) {
    struct key key = key_u64(record->head.epoch);
    struct epoch_row row = {.first = record->head.lsn};
    struct span value;
    uint32_t length = 0;
    int error = table_get(past, TABLE_EPOCH, &key, &value);
    if (error != -ENOENT || record->head.type == RECORD_EPOCH)
        return error == -ENOENT ? 0 : error;
    error = base_get(past, TABLE_EPOCH, &key, (uint8_t *)&row, sizeof row, &length);
    return error ? (error == -ENOENT ? 0 : error) : history_put(past, TABLE_EPOCH, &key, &row, sizeof row);
}

/* What the record says of the size before it, where it says so. */
static int need_size(struct store *past, const struct record *record) {
    struct key key = key_u64(record->head.ino);
    struct inode_row row;
    uint64_t size;
    int error = inode_get(past, record->head.ino, &row);
    if (error || !S_ISREG(row.mode) || !(tail_selection(past, record->head.ino) & SELECTED_STUB))
        return error;
    size = row.size;
    switch (record->head.type) {
    case RECORD_WRITE: /* it grows the file only if it ends there */
        size = record->first + record->head.blocks != FILE_BLOCKS(record->size) ? record->size : size;
        break;
    case RECORD_ALLOCATE:
        size = FILE_BLOCKS(record->size) > record->first + record->count ? record->size : size;
        break;
    case RECORD_PUNCH:
        size = record->size;
        break;
    case RECORD_TRUNCATE: /* what grows it frees nothing */
        size = record->head.blocks || record->new_data || record->last != record->first ? record->size : size;
        break;
    default:
        return 0;
    }
    if (size <= row.size)
        return 0;
    row.size = size;
    return history_put(past, TABLE_INODE, &key, &row, sizeof row);
}

static int need_xattr(struct store *past, const struct record *record) {
    struct key inode = key_u64(record->head.ino), key;
    struct inode_row row;
    struct span value;
    if (record->head.type != RECORD_XATTR || !(record->flags & XATTR_REMOVE))
        return 0;
    int error = inode_get(past, record->head.ino, &row);
    if (error || !(tail_selection(past, record->head.ino) & SELECTED_STUB))
        return error;
    key = key_u64_name(record->head.ino, record->name.data, record->name.length);
    error = table_get(past, TABLE_XATTR, &key, &value);
    if (error != -ENOENT || S_ISLNK(row.mode))
        return error == -ENOENT ? 0 : error;
    row.xattrs++;
    error = history_put(past, TABLE_INODE, &inode, &row, sizeof row);
    return error ? error : history_put(past, TABLE_XATTR, &key, "", 0);
}

int stubs_before(struct store *past, const struct record *record) {
    uint64_t ino = record->head.ino;
    int error = need_epoch(past, record);
    if (error)
        return error;
    switch (record->head.type) {
    case RECORD_CREATE:
        return record->parent ? need_inode(past, record->parent, S_IFDIR) : 0;
    case RECORD_LINK:
        error = need_inode(past, record->parent, S_IFDIR);
        return error ? error : need_inode(past, ino, S_IFREG);
    case RECORD_UNLINK:
        return need_entry(past, record->parent, record->name, ino, record->flags & UNLINK_RMDIR ? S_IFDIR : S_IFREG);
    case RECORD_RENAME:
        error = need_inode(past, record->new_parent, S_IFDIR);
        if (!error)
            error = need_entry(past, record->parent, record->name, ino, S_IFREG);
        if (!error && record->victim)
            error = need_entry(past, record->new_parent, record->new_name, record->victim, S_IFREG);
        return error;
    case RECORD_RECLAIM:
    case RECORD_EPOCH:
        return 0;
    default:
        error = need_inode(past, ino, S_IFREG);
        if (!error)
            error = need_size(past, record);
        return error ? error : need_xattr(past, record);
    }
}

/* ---- names ---- */

/* The name of a directory in its parent, as the store has it. */
static int base_directory_name(struct store *past, uint64_t parent, uint64_t ino, struct key *found) {
    struct store *base = past->history->base;
    struct key begin = key_u64(parent);
    struct snapshot *snapshot;
    struct cursor cursor;
    int error = store_snapshot(base, &snapshot);
    if (error)
        return error;
    error = cursor_open(&cursor, base, snapshot, TABLE_DIRENT);
    if (!error) {
        for (error = cursor_seek(&cursor, &begin); !error; error = cursor_next(&cursor)) {
            struct dirent_row row;
            if (cursor.key.length <= 8 || be64_get(cursor.key.data) != parent)
                error = -ENOENT;
            if (error || cursor.value.length != sizeof row)
                break;
            memcpy(&row, cursor.value.data, sizeof row);
            if (row.ino != ino)
                continue;
            found->length = (uint16_t)cursor.key.length;
            memcpy(found->bytes, cursor.key.data, cursor.key.length);
            break;
        }
        cursor_close(&cursor);
    }
    snapshot_close(snapshot);
    return error;
}

int stubs_directory_today(struct store *past, uint64_t ino, uint64_t *parent, struct key *name) {
    uint8_t value[sizeof(struct inode_row) + BATON_SYMLINK_MAX];
    struct key key = key_u64(ino);
    struct inode_row row = {0};
    uint32_t length = 0;
    int error = base_get(past, TABLE_INODE, &key, value, sizeof value, &length);
    if (error)
        return error;
    if (length >= sizeof row)
        memcpy(&row, value, sizeof row);
    *parent = row.parent;
    return row.parent == 0 ? -ENOENT : base_directory_name(past, row.parent, ino, name);
}

static int place_at(struct store *past, uint64_t parent, struct span name, uint64_t ino, bool *placed) {
    struct dirent_row row;
    int error = dirent_get(past, parent, name.data, name.length, &row);
    *placed = error == -ENOENT;
    return *placed ? put_entry(past, parent, name, ino) : error;
}

static int place_as_number(struct store *past, uint64_t ino) {
    char text[40];
    bool placed;
    int length = snprintf(text, sizeof text, "inode-%" PRIu64, ino);
    int error = need_inode(past, ROOT_INO, S_IFDIR);
    return error ? error : place_at(past, ROOT_INO, (struct span){(uint8_t *)text, (uint32_t)length}, ino, &placed);
}

/* The directory, and those above it, get the places that they have in the store, if it has them and they are free. */
static int place_directory(struct store *past, uint64_t ino) {
    for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
        struct key name;
        struct inode_row now;
        uint64_t parent;
        bool placed = false;
        int error = inode_get(past, ino, &now);
        if (error || now.parent != 0)
            return error;
        error = stubs_directory_today(past, ino, &parent, &name);
        if (!error)
            error = need_inode(past, parent, S_IFDIR);
        if (!error)
            error = place_at(past, parent, (struct span){name.bytes + 8, name.length - 8u}, ino, &placed);
        if (error && error != -ENOENT)
            return error;
        if (!placed)
            return place_as_number(past, ino);
        ino = parent;
    }
    return 0;
}

#define HAS_NAME 32u /* a selection's flag, of stubs that are no directories */

static int mark_named(struct store *past) {
    struct key begin = {.length = 0};
    struct cursor cursor;
    int error = cursor_open(&cursor, past, NULL, TABLE_DIRENT);
    if (error)
        return error;
    for (error = cursor_seek(&cursor, &begin); !error; error = cursor_next(&cursor)) {
        struct dirent_row row;
        if (cursor.value.length != sizeof row)
            continue;
        memcpy(&row, cursor.value.data, sizeof row);
        error = tail_select(past, row.ino, HAS_NAME);
        if (error)
            break;
    }
    cursor_close(&cursor);
    return error == -ENOENT ? 0 : error;
}

static bool wants_name(struct store *past, uint64_t ino) {
    uint32_t flags = tail_selection(past, ino);
    return (flags & SELECTED_STUB) && (flags & SELECTED_TOUCHED) && !(flags & HAS_NAME);
}

/* Files get the first name that the store has for them. Its names are looked through in steps. */
static int place_files(struct store *past) {
    struct store *base = past->history->base;
    struct key at = {.length = 0};
    int error = 0;
    while (!error) {
        struct snapshot *snapshot;
        struct cursor cursor;
        uint64_t found = 0;
        error = store_snapshot(base, &snapshot);
        if (error)
            return error;
        error = cursor_open(&cursor, base, snapshot, TABLE_DIRENT);
        if (!error) {
            error = cursor_seek(&cursor, &at);
            if (!error && at.length && cursor.key.length == at.length &&
                memcmp(cursor.key.data, at.bytes, at.length) == 0)
                error = cursor_next(&cursor);
            for (unsigned rows = 0; !error && !found && rows < SCAN_ROWS; rows++) {
                struct dirent_row row = {0};
                at.length = (uint16_t)cursor.key.length;
                memcpy(at.bytes, cursor.key.data, cursor.key.length);
                if (cursor.value.length == sizeof row)
                    memcpy(&row, cursor.value.data, sizeof row);
                if (row.type != S_IFDIR && at.length > 8 && wants_name(past, row.ino))
                    found = row.ino;
                else
                    error = cursor_next(&cursor);
            }
            cursor_close(&cursor);
        }
        snapshot_close(snapshot);
        if (!error && found) {
            bool placed;
            error = need_inode(past, be64_get(at.bytes), S_IFDIR);
            if (!error)
                error = place_at(past, be64_get(at.bytes), (struct span){at.bytes + 8, at.length - 8u}, found, &placed);
            if (!error && placed)
                error = tail_select(past, found, HAS_NAME);
        }
    }
    return error == -ENOENT ? 0 : error;
}

/* Every stub that is left: directories upwards, files as numbers. Puts move the overlay's rows, so each step seeks. */
static int place_rest(struct store *past, bool directories) {
    struct key at = key_u64(0);
    int error = 0;
    for (;;) {
        struct cursor cursor;
        struct inode_row row = {0};
        error = cursor_open(&cursor, past, NULL, TABLE_INODE);
        if (error)
            return error;
        error = cursor_seek(&cursor, &at);
        if (!error && (cursor.key.length != 8 || cursor.value.length < sizeof row))
            error = -EIO;
        uint64_t ino = error ? 0 : be64_get(cursor.key.data);
        if (!error)
            memcpy(&row, cursor.value.data, sizeof row);
        cursor_close(&cursor);
        if (error)
            return error == -ENOENT ? 0 : error;
        if (directories && S_ISDIR(row.mode) && row.nlink > 0)
            error = place_directory(past, ino);
        else if (!directories && !S_ISDIR(row.mode) && row.nlink > 0 && wants_name(past, ino))
            error = place_as_number(past, ino);
        if (error)
            return error;
        at = key_u64(ino + 1);
    }
}

int stubs_place(struct store *past) {
    store_lock(past);
    int error = need_inode(past, ROOT_INO, S_IFDIR);
    if (!error)
        error = mark_named(past);
    if (!error)
        error = place_files(past);
    if (!error)
        error = place_rest(past, false);
    if (!error)
        error = place_rest(past, true);
    store_unlock(past);
    return error;
}
