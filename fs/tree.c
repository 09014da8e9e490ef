#include "fs/tree.h"

#include "fs/apply.h"
#include "fs/history_undone.h"
#include "fs/row.h"

#include <fcntl.h>

static void entry_of(struct tree_entry *entry, const struct attributes *from, const char *name, size_t length) {
    entry->ino = from->ino;
    entry->row = from->row;
    entry->flags = 0;
    length = MIN(length, BATON_NAME_MAX);
    memcpy(entry->name, name, length);
    entry->name[length] = '\0';
}

static int look(void *context, uint64_t directory, const char *name, struct tree_entry *entry) {
    struct attributes found;
    int error = *name ? op_lookup(context, directory, name, &found) : op_getattr(context, ROOT_INO, &found);
    if (error)
        return error;
    entry_of(entry, &found, name, strlen(name));
    entry->cookie = 0;
    return history_selected(context, found.ino, &entry->flags) ? 0 : -ENOENT;
}

struct listing {
    struct tree_entry *entries;
    unsigned count;
};

static int take_entry(void *context, const struct directory_entry *from) {
    struct listing *listing = context;
    if (listing->count == TREE_LIST_MAX)
        return 1;
    struct tree_entry *entry = &listing->entries[listing->count++];
    entry_of(entry, from->attributes, from->name, from->name_length);
    entry->cookie = from->cookie;
    return 0;
}

static int list(void *context, uint64_t directory, uint64_t cookie, struct tree_entry entries[TREE_LIST_MAX],
                unsigned *count) {
    unsigned kept = 0, seen;
    do { /* until there is one to give, or the directory ends */
        struct listing listing = {.entries = entries};
        int error = op_readdir(context, directory, cookie, true, take_entry, &listing);
        if (error)
            return error;
        seen = listing.count;
        if (seen > 0)
            cookie = entries[seen - 1].cookie;
        for (unsigned i = 0; i < seen; i++) {
            if (!history_selected(context, entries[i].ino, &entries[i].flags))
                continue;
            if (kept != i)
                entries[kept] = entries[i];
            kept++;
        }
    } while (kept == 0 && seen == TREE_LIST_MAX);
    *count = kept;
    return 0;
}

struct run { /* of written blocks */
    uint64_t next;
    bool begun;
};

static int extend(void *context, const struct extent_part *part) {
    struct run *run = context;
    if (!part->checksums || (run->begun && part->first != run->next))
        return run->begun;
    run->begun = true;
    run->next = part->first + part->place.count;
    return 0;
}

/* Where the written blocks that begin at `from` end, looking no further than an answer is long. */
static int run_end(struct store *store, uint64_t ino, uint64_t from, uint64_t *end) {
    struct inode_row row;
    struct run run = {0};
    store_lock(store);
    int error = inode_get(store, ino, &row);
    if (!error)
        error = extent_walk(store, row.data, from / BATON_BLOCK, TREE_DATA_MAX / BATON_BLOCK, extend, &run);
    store_unlock(store);
    *end = MIN(run.next * BATON_BLOCK, error < 0 ? 0 : row.size);
    return MIN(error, 0);
}

/* A stretch that cannot be read as a whole is given block by block, so that one bad block costs no good one. */
static int data(void *context, uint64_t ino, uint64_t offset, uint8_t buffer[TREE_DATA_MAX], struct tree_data *data) {
    uint64_t end;
    *data = (struct tree_data){.from = offset};
    int64_t from = op_seek(context, ino, offset, SEEK_DATA);
    if (from < 0)
        return from == -ENXIO ? 0 : (int)from;
    int error = run_end(context, ino, (uint64_t)from, &end);
    if (error || end <= (uint64_t)from)
        return error; /* what was there a moment ago is gone: only in a store that is changed meanwhile */
    size_t want = (size_t)MIN(end - (uint64_t)from, (uint64_t)TREE_DATA_MAX);
    ssize_t length = op_read(context, ino, buffer, want, (uint64_t)from);
    if (length == -EIO && want > BATON_BLOCK) {
        want = BATON_BLOCK - (size_t)((uint64_t)from % BATON_BLOCK);
        length = op_read(context, ino, buffer, want, (uint64_t)from);
    }
    if (length < 0 && length != -EIO)
        return (int)length;
    data->from = (uint64_t)from;
    data->bad = length == -EIO;
    data->length = (uint32_t)(data->bad ? want : (size_t)length);
    return 0;
}

static int target(void *context, uint64_t ino, char target[BATON_SYMLINK_MAX + 1]) {
    int length = op_readlink(context, ino, target, BATON_SYMLINK_MAX);
    if (length < 0)
        return length;
    target[length] = '\0';
    return 0;
}

static int xattr(void *context, uint64_t ino, char name[BATON_NAME_MAX + 1], uint8_t value[BATON_XATTR_VALUE_MAX],
                 uint32_t *length) {
    struct cursor cursor;
    struct key after = key_u64_name(ino, name, strlen(name));
    store_lock(context);
    int error = cursor_open(&cursor, context, NULL, TABLE_XATTR);
    if (!error) {
        error = cursor_seek(&cursor, &after);
        if (!error && cursor.key.length == after.length && memcmp(cursor.key.data, after.bytes, after.length) == 0)
            error = cursor_next(&cursor);
        if (!error && (cursor.key.length <= 8 || be64_get(cursor.key.data) != ino))
            error = -ENOENT;
        if (!error && !row_is_possible(TABLE_XATTR, cursor.key, cursor.value))
            error = -EIO;
        if (!error) {
            memcpy(name, cursor.key.data + 8, cursor.key.length - 8);
            name[cursor.key.length - 8] = '\0';
            *length = cursor.value.length;
            if (*length)
                memcpy(value, cursor.value.data, *length);
        }
        cursor_close(&cursor);
    }
    store_unlock(context);
    return error;
}

static int removed(void *context, uint64_t *at, char line[TREE_LINE_MAX]) {
    return history_removed(context, at, line, TREE_LINE_MAX);
}

static bool ended(void *context, char *why, size_t why_room) {
    return history_error(context, why, why_room) != 0;
}

struct tree tree_of_store(struct store *store) {
    return (struct tree){store, look, list, data, target, xattr, removed, ended};
}
