#include "fs/journal_names.h"

#include "fs/ops.h"

#include <stdio.h>
#include <sys/stat.h>

#define NAMES_MAX (1u << 17)
#define SLOTS (NAMES_MAX * 2)
#define DEPTH_MAX 2048
#define SNAPSHOT_ROWS 20000u /* read in one snapshot, which pins pages */
#define SEARCH_SHARE 10      /* of the time, at most one part in so many goes into searching… */
#define SEARCH_FREE 50000000 /* …after one that took longer than this, in ns */

struct name {
    uint64_t ino; /* 0: an empty slot */
    uint64_t parent;
    char *text; /* escaped; NULL: searched for and not found */
    bool removed;
};

struct names {
    struct store *store;
    struct name *slots;
    unsigned used;
    int64_t next_search;    /* of all entries: not before then, clock_boot() */
    int64_t next_directory; /* of one directory's */
};

/* ---- the table --------------------------------------------------------------------------------------------------------- */

static struct name *slot_of(struct names *names, uint64_t ino) {
    uint64_t at = (ino * 0x9e3779b97f4a7c15u) >> 40;
    for (;; at++) {
        struct name *slot = &names->slots[at % SLOTS];
        if (slot->ino == ino || slot->ino == 0)
            return slot;
    }
}

static void forget_all(struct names *names) {
    for (unsigned i = 0; i < SLOTS; i++)
        free(names->slots[i].text);
    memset(names->slots, 0, SLOTS * sizeof *names->slots);
    names->used = 0;
}

static void put(struct names *names, uint64_t ino, uint64_t parent, struct span name) {
    char text[4 * BATON_NAME_MAX + 1];

    if (ino == 0)
        return;
    if (names->used >= NAMES_MAX)
        forget_all(names);
    struct name *slot = slot_of(names, ino);
    if (slot->ino == 0)
        names->used++;
    free(slot->text);
    *slot = (struct name){.ino = ino, .parent = parent};
    if (name.data != NULL) {
        text_escape(name.data, name.length, text, sizeof text);
        slot->text = strdup(text);
    }
}

static void mark_removed(struct names *names, uint64_t ino, uint64_t parent, struct span name) {
    char text[4 * BATON_NAME_MAX + 1];
    struct name *slot = slot_of(names, ino);

    if (slot->ino == 0) {
        put(names, ino, parent, name);
        slot = slot_of(names, ino);
    }
    text_escape(name.data, name.length, text, sizeof text);
    if (slot->text != NULL && slot->parent == parent && strcmp(slot->text, text) == 0)
        slot->removed = true;
}

struct names *names_create(struct store *store) {
    struct names *names = calloc(1, sizeof *names);
    if (names == NULL)
        return NULL;
    names->store = store;
    names->slots = calloc(SLOTS, sizeof *names->slots);
    if (names->slots == NULL) {
        free(names);
        return NULL;
    }
    return names;
}

void names_free(struct names *names) {
    if (names == NULL)
        return;
    forget_all(names);
    free(names->slots);
    free(names);
}

void names_learn_new(struct names *names, const struct record *record) {
    if (record->parent != 0)
        put(names, record_new_inode(record), record->parent, record->name);
}

void names_learn(struct names *names, const struct record *record) {
    names_learn_new(names, record);
    switch (record->head.type) {
    case RECORD_LINK:
        put(names, record->head.ino, record->parent, record->name);
        break;
    case RECORD_UNLINK:
        mark_removed(names, record->head.ino, record->parent, record->name);
        break;
    case RECORD_RENAME:
        if (record->victim != 0 && (record->flags & RENAME_EXCHANGED))
            put(names, record->victim, record->parent, record->name);
        else if (record->victim != 0)
            mark_removed(names, record->victim, record->new_parent, record->new_name);
        put(names, record->head.ino, record->new_parent, record->new_name);
        break;
    default:
        break;
    }
}

/* ---- the state --------------------------------------------------------------------------------------------------------- */

/* Rows of `dirent` from `begin` on, as long as their keys begin with its first `prefix` bytes; `each` returns false to
 * end. */
static void scan_entries(struct names *names, struct key begin, size_t prefix,
                         bool (*each)(struct names *names, void *context, struct span key, const struct dirent_row *row),
                         void *context) {
    struct key at = begin;
    bool more = true, again = false;

    while (more) {
        struct snapshot *snapshot;
        struct cursor cursor;
        if (!names->store || store_snapshot(names->store, &snapshot) != 0)
            return;
        int error = cursor_open(&cursor, names->store, snapshot, TABLE_DIRENT);
        if (error) {
            snapshot_close(snapshot);
            return;
        }
        error = cursor_seek(&cursor, &at);
        for (unsigned rows = 0; more && error == 0 && rows < SNAPSHOT_ROWS; rows++, error = cursor_next(&cursor)) {
            struct dirent_row row;
            bool seen = again && cursor.key.length == at.length && memcmp(cursor.key.data, at.bytes, at.length) == 0;
            again = false;
            if (cursor.key.length < 8 || cursor.key.length > KEY_MAX || cursor.value.length != sizeof row ||
                memcmp(cursor.key.data, begin.bytes, prefix) != 0) {
                more = false;
                break;
            }
            at.length = (uint16_t)cursor.key.length;
            memcpy(at.bytes, cursor.key.data, cursor.key.length);
            if (seen)
                continue;
            memcpy(&row, cursor.value.data, sizeof row);
            more = each(names, context, cursor.key, &row);
        }
        if (error)
            more = false;
        again = true;
        cursor_close(&cursor);
        snapshot_close(snapshot);
    }
}

static struct span name_of_key(struct span key) {
    return (struct span){key.data + 8, key.length - 8};
}

static bool take_if_wanted(struct names *names, void *context, struct span key, const struct dirent_row *row) {
    size_t *missing = context;
    struct name *slot = slot_of(names, row->ino);
    if (slot->ino != 0 && slot->text == NULL) {
        put(names, row->ino, be64_get(key.data), name_of_key(key));
        --*missing;
    }
    return *missing > 0;
}

static bool state_inode(struct names *names, uint64_t ino, struct inode_row *row) {
    struct snapshot *snapshot;
    struct key key = key_u64(ino);
    struct span value;
    bool found = false;

    if (!names->store || store_snapshot(names->store, &snapshot) != 0)
        return false;
    if (table_get_at(snapshot, TABLE_INODE, &key, &value) == 0 && value.length >= sizeof *row) {
        memcpy(row, value.data, sizeof *row);
        found = true;
    }
    snapshot_close(snapshot);
    return found;
}

/* A directory knows its parent, so only that one is searched. */
/* Not before which time the next search may begin, when one that began at `start` has ended. */
static int64_t pause_after(int64_t start) {
    int64_t now = clock_boot(), spent = now - start;
    return spent > SEARCH_FREE ? now + spent * SEARCH_SHARE : 0;
}

static void search_directory(struct names *names, uint64_t ino, uint64_t parent) {
    size_t missing = 1;
    int64_t start = clock_boot();
    if (parent == 0 || start < names->next_directory)
        return;
    put(names, ino, 0, (struct span){NULL, 0});
    scan_entries(names, key_u64(parent), 8, take_if_wanted, &missing);
    names->next_directory = pause_after(start);
}

void names_search(struct names *names, const uint64_t *inos, size_t count) {
    struct key begin = {.length = 0};
    size_t missing = 0;
    int64_t start = clock_boot();

    if (start < names->next_search)
        return;
    for (size_t i = 0; i < count; i++) {
        struct inode_row row;
        if (inos[i] == 0 || inos[i] == ROOT_INO || slot_of(names, inos[i])->ino != 0)
            continue;
        bool exists = state_inode(names, inos[i], &row);
        if (exists && S_ISDIR(row.mode)) {
            search_directory(names, inos[i], row.parent);
            continue;
        }
        put(names, inos[i], 0, (struct span){NULL, 0});
        if (exists && row.nlink > 0)
            missing++;
    }
    if (missing > 0)
        scan_entries(names, begin, 0, take_if_wanted, &missing);
    names->next_search = pause_after(start);
}

/* ---- paths ------------------------------------------------------------------------------------------------------------- */

static const struct name *known(struct names *names, uint64_t ino) {
    struct name *slot = slot_of(names, ino);
    struct inode_row row;

    if (slot->ino == 0 && state_inode(names, ino, &row) && S_ISDIR(row.mode)) {
        search_directory(names, ino, row.parent);
        slot = slot_of(names, ino);
    }
    return slot->ino != 0 && slot->text != NULL ? slot : NULL;
}

bool names_path(struct names *names, uint64_t ino, char *path, size_t room) {
    const char *parts[DEPTH_MAX];
    unsigned depth = 0;
    bool removed = false;
    uint64_t at = ino;
    size_t used = 0;

    if (ino == ROOT_INO) {
        snprintf(path, room, "/");
        return true;
    }
    while (at != ROOT_INO) {
        const struct name *name = depth < DEPTH_MAX ? known(names, at) : NULL;
        if (name == NULL)
            break;
        removed |= depth == 0 && name->removed;
        parts[depth++] = name->text;
        at = name->parent;
    }
    path[0] = '\0';
    if (at != ROOT_INO) {
        int head = depth == 0 ? snprintf(path, room, "inode %llu", (unsigned long long)ino)
                              : snprintf(path, room, "(directory %llu)/", (unsigned long long)at);
        used = MIN((size_t)MAX(head, 0), room - 1);
    }
    while (depth > 0) {
        depth--;
        int more = snprintf(path + used, room - used, "%s%s", parts[depth], depth > 0 ? "/" : removed ? " (removed)" : "");
        used = MIN(used + (size_t)MAX(more, 0), room - 1);
    }
    return at == ROOT_INO;
}

bool names_path_in(struct names *names, uint64_t directory, struct span name, char *path, size_t room) {
    char text[4 * BATON_NAME_MAX + 1];
    bool whole = true;

    text_escape(name.data, name.length, text, sizeof text);
    if (directory == ROOT_INO) {
        snprintf(path, room, "%s", text);
        return true;
    }
    whole = names_path(names, directory, path, room);
    size_t used = strlen(path);
    if (!whole && strncmp(path, "inode ", 6) == 0)
        snprintf(path, room, "(directory %llu)/%s", (unsigned long long)directory, text);
    else
        snprintf(path + used, room - used, "/%s", text);
    return whole;
}
