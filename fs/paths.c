#include "fs/paths.h"

#include "fs/apply.h"
#include "fs/history.h"
#include "fs/ops.h"
#include "fs/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define PORTION 4096u /* rows in one look */
#define NAMES_MAX 8u  /* of an inode */
#define DEPTH_MAX 2048u

struct link_name {
    uint64_t ino, directory;
    char *text; /* escaped */
    bool told;
};

struct owner {
    uint64_t data, ino;
};

struct paths {
    struct store *state;
    struct link_name *links;
    size_t link_count, link_room;
    uint64_t *wanted; /* sorted */
    size_t wanted_count;
    struct owner *owners; /* sorted by data */
    size_t owner_count;
    paths_pause *pause;
    void *pause_context;
    unsigned rows; /* that were read since it was called */
    bool given_up;
};

struct paths *paths_create(struct store *state) {
    struct paths *paths = calloc(1, sizeof *paths);
    if (paths)
        paths->state = state;
    return paths;
}

void paths_free(struct paths *paths) {
    if (!paths)
        return;
    for (size_t i = 0; i < paths->link_count; i++)
        free(paths->links[i].text);
    free(paths->links);
    free(paths->wanted);
    free(paths->owners);
    free(paths);
}

static int add(struct paths *paths, uint64_t ino, uint64_t directory, struct span name, bool told) {
    char text[4 * BATON_NAME_MAX + 1];
    if (paths->link_count == paths->link_room) {
        size_t room = paths->link_room * 2 + 64;
        struct link_name *bigger = realloc(paths->links, room * sizeof *bigger);
        if (!bigger)
            return -ENOMEM;
        paths->links = bigger;
        paths->link_room = room;
    }
    text_escape(name.data, name.length, text, sizeof text);
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    paths->links[paths->link_count++] = (struct link_name){ino, directory, copy, told};
    return 0;
}

int paths_tell(struct paths *paths, uint64_t ino, uint64_t directory, struct span name) {
    return add(paths, ino, directory, name, true);
}

static const struct link_name *find_in(const struct paths *paths, uint64_t ino, unsigned which, bool told, bool *any) {
    for (size_t i = 0; i < paths->link_count; i++) {
        if (paths->links[i].ino != ino || paths->links[i].told != told)
            continue;
        *any = true;
        if (which-- == 0)
            return &paths->links[i];
    }
    return NULL;
}

/* The which-th name. */
static const struct link_name *find(const struct paths *paths, uint64_t ino, unsigned which) {
    bool any = false;
    const struct link_name *name = find_in(paths, ino, which, false, &any);
    return name || any ? name : find_in(paths, ino, which, true, &any);
}

static unsigned names_of(const struct paths *paths, uint64_t ino) {
    unsigned count = 0;
    while (count < NAMES_MAX && find(paths, ino, count))
        count++;
    return count;
}

/* ---- Searching ---- */

/* Rows of a table, `row` each, in looks of PORTION, within [from, to) as keys of 8 bytes go. */
static int scan(struct paths *paths, enum table table, struct key at, const struct key *to,
                int (*row)(struct paths *paths, void *context, const struct cursor *cursor), void *context) {
    struct cursor cursor;
    char why[8];
    int rc = paths->given_up ? -ECANCELED : 0;
    while (rc == 0) {
        store_lock(paths->state);
        rc = cursor_open(&cursor, paths->state, NULL, table);
        bool opened = rc == 0;
        if (opened)
            rc = cursor_seek(&cursor, &at);
        for (; rc == 0 && paths->rows < PORTION; paths->rows++) {
            if (to && memcmp(cursor.key.data, to->bytes, MIN(cursor.key.length, to->length)) >= 0)
                rc = -ENOENT;
            else
                rc = row(paths, context, &cursor);
            if (rc)
                break;
            at.length = (uint16_t)MIN(cursor.key.length + 1, KEY_MAX); /* behind it */
            memcpy(at.bytes, cursor.key.data, MIN(cursor.key.length, KEY_MAX));
            at.bytes[at.length - 1] = 0;
            rc = cursor_next(&cursor);
        }
        if (opened)
            cursor_close(&cursor);
        if (history_error(paths->state, why, sizeof why))
            rc = -ESTALE;
        store_unlock(paths->state);
        if (rc)
            break;
        paths->rows = 0;
        paths->given_up = paths->pause && paths->pause(paths->pause_context);
        rc = paths->given_up ? -ECANCELED : 0;
    }
    return rc == -ENOENT ? 0 : rc;
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int note_owner(struct paths *paths, void *context, const struct cursor *cursor) {
    struct inode_row row;
    (void)context;
    if (cursor->key.length != 8 || cursor->value.length < sizeof row)
        return -EIO;
    memcpy(&row, cursor->value.data, sizeof row);
    struct owner *owner = paths->owner_count ? bsearch(&row.data, paths->owners, paths->owner_count, sizeof *owner, compare_u64)
                                             : NULL;
    if (owner && owner->ino == 0)
        owner->ino = be64_get(cursor->key.data);
    return 0;
}

static int note_name(struct paths *paths, void *context, const struct cursor *cursor) {
    struct dirent_row row;
    (void)context;
    if (cursor->key.length <= 8 || cursor->value.length != sizeof row)
        return -EIO;
    memcpy(&row, cursor->value.data, sizeof row);
    if (!bsearch(&row.ino, paths->wanted, paths->wanted_count, sizeof row.ino, compare_u64) ||
        names_of(paths, row.ino) == NAMES_MAX)
        return 0;
    struct span name = {cursor->key.data + 8, cursor->key.length - 8};
    return add(paths, row.ino, be64_get(cursor->key.data), name, false);
}

static int search_owners(struct paths *paths, const uint64_t *datas, size_t count) {
    struct key start = {.length = 0};
    paths->owners = calloc(count + 1, sizeof *paths->owners);
    if (!paths->owners)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        if (datas[i])
            paths->owners[paths->owner_count++].data = datas[i];
    if (paths->owner_count == 0)
        return 0;
    qsort(paths->owners, paths->owner_count, sizeof *paths->owners, compare_u64);
    return scan(paths, TABLE_INODE, start, NULL, note_owner, NULL);
}

uint64_t paths_owner(const struct paths *paths, uint64_t data) {
    for (size_t i = 0; i < paths->owner_count; i++) /* one of several equal ones has it */
        if (paths->owners[i].data == data && paths->owners[i].ino)
            return paths->owners[i].ino;
    return 0;
}

int paths_search(struct paths *paths, const uint64_t *inos, const uint64_t *datas, size_t count, paths_pause *pause,
                 void *context) {
    struct key start = {.length = 0};
    paths->pause = pause;
    paths->pause_context = context;
    int rc = search_owners(paths, datas, count);
    paths->wanted = calloc(2 * count + 1, sizeof *paths->wanted);
    if (rc == 0 && !paths->wanted)
        rc = -ENOMEM;
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++)
        paths->wanted[paths->wanted_count++] = inos[i] ? inos[i] : paths_owner(paths, datas[i]);
    qsort(paths->wanted, paths->wanted_count, sizeof *paths->wanted, compare_u64);
    return scan(paths, TABLE_DIRENT, start, NULL, note_name, NULL);
}

/* ---- Directories above ---- */

/* Directories of the names that are known, which have no name themselves yet. */
static uint64_t *nameless(const struct paths *paths, size_t *count) {
    uint64_t *inos = calloc(paths->link_count + 1, sizeof *inos);
    *count = 0;
    for (size_t i = 0; inos && i < paths->link_count; i++) {
        const struct link_name *name = find(paths, paths->links[i].directory, 0);
        if (paths->links[i].directory != ROOT_INO && (!name || name->told))
            inos[(*count)++] = paths->links[i].directory;
    }
    if (inos)
        qsort(inos, *count, sizeof *inos, compare_u64);
    return inos;
}

struct directories {
    const uint64_t *inos; /* sorted */
    size_t count;
};

static int note_directory(struct paths *paths, void *context, const struct cursor *cursor) {
    const struct directories *wanted = context;
    struct dirent_row row;
    if (cursor->key.length <= 8 || cursor->value.length != sizeof row)
        return -EIO;
    memcpy(&row, cursor->value.data, sizeof row);
    if (!bsearch(&row.ino, wanted->inos, wanted->count, sizeof row.ino, compare_u64))
        return 0;
    struct span name = {cursor->key.data + 8, cursor->key.length - 8};
    return add(paths, row.ino, be64_get(cursor->key.data), name, false);
}

/* A directory knows its parent, so only that one is searched, once for all of its directories that are wanted. */
static const struct link_name *directory_name(struct paths *paths, uint64_t ino) {
    const struct link_name *name = find(paths, ino, 0);
    struct inode_row row;
    size_t count;
    if (name && !name->told)
        return name;
    store_lock(paths->state);
    int rc = inode_get(paths->state, ino, &row);
    store_unlock(paths->state);
    if (rc || !S_ISDIR(row.mode) || row.parent == 0)
        return name;
    uint64_t *inos = nameless(paths, &count);
    struct key to = key_u64(row.parent + 1);
    if (inos)
        scan(paths, TABLE_DIRENT, key_u64(row.parent), &to, note_directory, &(struct directories){inos, count});
    free(inos);
    return find(paths, ino, 0);
}

/* ---- Text ---- */

static void text_of(struct paths *paths, uint64_t directory, const char *last, char *path, size_t room) {
    const char **parts = calloc(DEPTH_MAX, sizeof *parts);
    unsigned depth = 0;
    size_t used = 0;
    path[0] = '\0';
    if (!parts)
        return;
    while (directory != ROOT_INO && depth < DEPTH_MAX) {
        const struct link_name *name = directory_name(paths, directory);
        if (!name)
            break;
        parts[depth++] = name->text;
        directory = name->directory;
    }
    if (directory != ROOT_INO)
        snprintf(path, room, "(directory %" PRIu64 ")/", directory);
    for (used = strlen(path); depth > 0 && used < room; used = strlen(path))
        snprintf(path + used, room - used, "%s/", parts[--depth]);
    snprintf(path + used, room - used, "%s", last);
    free(parts);
}

bool paths_text(struct paths *paths, uint64_t ino, unsigned which, char *path, size_t room) {
    if (ino == ROOT_INO) {
        snprintf(path, room, "/");
        return which == 0;
    }
    const struct link_name *name = which < NAMES_MAX ? find(paths, ino, which) : NULL;
    if (!name) {
        if (which == 0)
            snprintf(path, room, "inode %" PRIu64, ino);
        return false;
    }
    text_of(paths, name->directory, name->text, path, room);
    return true;
}

void paths_entry(struct paths *paths, uint64_t directory, struct span name, char *path, size_t room) {
    char text[4 * BATON_NAME_MAX + 1];
    text_escape(name.data, name.length, text, sizeof text);
    text_of(paths, directory, text, path, room);
}
