#include "fs/history_undone_parts.h"

#include "fs/apply.h"
#include "fs/journal_text.h"
#include "fs/ops.h"
#include "fs/tree.h"
#include "fs/undone.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define SCAN_ROWS 20000u /* under one hold of the lock */
#define DEPTH_MAX 2048u
#define PATH_ROOM 4500u
#define UNKNOWN_ROOM sizeof "(directory 18446744073709551615)"
#define PROGRESS_RECORDS 256u

/* ---- what is selected ---- */

uint32_t tail_selection(struct store *past, uint64_t ino) {
    struct key key = key_u64(ino);
    uint32_t flags = 0;
    MDB_val k = {key.length, key.bytes}, data;
    if (past->history->error == 0 && mdb_get(past->history->txn, past->history->dbi[TAIL_SELECTED], &k, &data) == 0 &&
        data.mv_size == 1 + sizeof flags)
        memcpy(&flags, (const uint8_t *)data.mv_data + 1, sizeof flags);
    return flags;
}

int tail_select(struct store *past, uint64_t ino, uint32_t flags) {
    struct key key = key_u64(ino);
    uint32_t before = tail_selection(past, ino), after = before | flags;
    return after == before ? 0 : history_put(past, TAIL_SELECTED, &key, &after, sizeof after);
}

bool history_selected(struct store *past, uint64_t ino, uint32_t *flags) {
    *flags = 0;
    if (!past->history || !past->history->tail)
        return true;
    uint32_t selected = tail_selection(past, ino);
    *flags = selected & SELECTED_STUB ? TREE_PARTIAL : 0;
    return (selected & (SELECTED_TOUCHED | SELECTED_ABOVE)) != 0;
}

static int select_record(struct store *past, const struct record *record) {
    const uint32_t touched = SELECTED_TOUCHED, made = SELECTED_TOUCHED | SELECTED_MADE;
    uint64_t ino = record->head.ino;
    int error = 0;
    switch (record->head.type) {
    case RECORD_CREATE:
        return tail_select(past, ino, made);
    case RECORD_RENAME:
        error = tail_select(past, ino, touched);
        if (!error && record->flags & RENAME_EXCHANGED)
            error = tail_select(past, record->victim, touched);
        if (!error && record->flags & RENAME_LEFT_WHITEOUT)
            error = tail_select(past, record_new_inode(record), made);
        return error;
    case RECORD_SETATTR:
        return record->flags & SET_KEEP_CTIME ? 0 : tail_select(past, ino, touched);
    case RECORD_LINK:
    case RECORD_WRITE:
    case RECORD_TRUNCATE:
    case RECORD_ALLOCATE:
    case RECORD_PUNCH:
    case RECORD_XATTR:
        return tail_select(past, ino, touched);
    default:
        return 0;
    }
}

/* ---- paths ---- */

struct directory_name {
    uint64_t parent;
    uint8_t length;
    uint8_t name[BATON_NAME_MAX];
} __attribute__((packed));

static int name_put(struct store *past, uint64_t ino, uint64_t parent, struct span name) {
    struct directory_name row = {.parent = parent, .length = (uint8_t)name.length};
    struct key key = key_u64(ino);
    memcpy(row.name, name.data, name.length);
    return history_put(past, TAIL_NAMES, &key, &row, offsetof(struct directory_name, name) + name.length);
}

static bool overlay_has(struct store *past, enum table table, const struct key *key, struct span *value) {
    struct history *history = past->history;
    MDB_val k = {key->length, (void *)key->bytes}, data;
    if (history->error || mdb_get(history->txn, history->dbi[table], &k, &data) != 0)
        return false;
    *value = (struct span){(const uint8_t *)data.mv_data + 1, (uint32_t)data.mv_size - 1};
    return true;
}

/* Learns the names of all directories in `parent`, once. */
static int names_scan(struct store *past, uint64_t parent) {
    struct key begin = key_u64(parent), mark = key_orphan('s', parent);
    struct cursor cursor;
    struct span value;
    if (overlay_has(past, TAIL_NAMES, &mark, &value))
        return 0;
    int error = cursor_open(&cursor, past, NULL, TABLE_DIRENT);
    if (error)
        return error;
    for (error = cursor_seek(&cursor, &begin); !error; error = cursor_next(&cursor)) {
        struct dirent_row row;
        if (cursor.key.length <= 8 || be64_get(cursor.key.data) != parent)
            break;
        if (cursor.value.length != sizeof row)
            continue;
        memcpy(&row, cursor.value.data, sizeof row);
        struct key key = key_u64(row.ino);
        if (row.type == S_IFDIR && !overlay_has(past, TAIL_NAMES, &key, &value))
            error = name_put(past, row.ino, parent, (struct span){cursor.key.data + 8, cursor.key.length - 8});
        if (error)
            break;
    }
    cursor_close(&cursor);
    return error && error != -ENOENT ? error : history_put(past, TAIL_NAMES, &mark, "", 0);
}

static bool name_get(struct store *past, uint64_t ino, struct directory_name *row) {
    struct key key = key_u64(ino), today;
    struct inode_row inode;
    struct span value;
    uint64_t parent;
    memset(row, 0, sizeof *row);
    if (!overlay_has(past, TAIL_NAMES, &key, &value)) {
        if (inode_get(past, ino, &inode) == 0 && inode.parent != 0) {
            if (names_scan(past, inode.parent) != 0)
                return false;
        } else if (!past->history->blank || stubs_directory_today(past, ino, &parent, &today) != 0 ||
                   name_put(past, ino, parent, (struct span){today.bytes + 8, today.length - 8u}) != 0) {
            return false;
        }
        if (!overlay_has(past, TAIL_NAMES, &key, &value))
            return false;
    }
    memcpy(row, value.data, MIN(value.length, sizeof *row));
    return true;
}

/* As text_escape() shows it, without a slash at the beginning; "(directory N)/…" where the way up is not known. */
static void path_text(struct store *past, uint64_t directory, struct span name, char *text, size_t room) {
    char part[4 * BATON_NAME_MAX + 1], *path = malloc(PATH_ROOM);
    size_t at = PATH_ROOM - 1;
    struct directory_name row;

    text_escape(name.data, name.length, part, sizeof part);
    if (!path) {
        snprintf(text, room, "%s", part);
        return;
    }
    path[at] = '\0';
    for (unsigned depth = 0;; depth++) {
        size_t length = strlen(part);
        if (length + 1 + UNKNOWN_ROOM > at)
            break; /* the end of a very long path is what counts */
        at -= length;
        memcpy(path + at, part, length);
        if (directory == ROOT_INO)
            break;
        path[--at] = '/';
        if (depth == DEPTH_MAX || !name_get(past, directory, &row)) {
            length = (size_t)snprintf(part, sizeof part, "(directory %" PRIu64 ")", directory);
            at -= length;
            memcpy(path + at, part, length);
            break;
        }
        text_escape(row.name, row.length, part, sizeof part);
        directory = row.parent;
    }
    snprintf(text, room, "%s", path + at);
    free(path);
}

/* ---- what is removed ---- */

static int tell_removed(struct store *past, const struct record *record, const char *what, const char *text) {
    char time[64], line[2 * PATH_ROOM + 200];
    struct undone_tail *tail = past->history->tail;
    struct key key = key_u64(++tail->removed);
    time_text(file_time_of(record->head.time), time, sizeof time);
    int length = snprintf(line, sizeof line, "%s  %s  %s", what, time, text);
    return history_put(past, TAIL_REMOVED, &key, line, MIN((size_t)length, sizeof line - 1));
}

/* Before the record is applied: afterwards the names are no longer there. */
static int note_names(struct store *past, const struct record *record, struct undone_report *report) {
    char from[PATH_ROOM], to[PATH_ROOM], both[2 * PATH_ROOM + 8];
    bool unlink = record->head.type == RECORD_UNLINK;
    uint64_t gone = unlink ? record->head.ino : record->victim;
    int error = 0;

    if (!unlink && record->head.type != RECORD_RENAME)
        return 0;
    if (gone && !(record->flags & RENAME_EXCHANGED && !unlink)) {
        if (tail_selection(past, gone) & SELECTED_MADE) {
            report->passing++;
        } else {
            path_text(past, unlink ? record->parent : record->new_parent, unlink ? record->name : record->new_name,
                      from, sizeof from);
            error = tell_removed(past, record, unlink ? "removed " : "replaced", from);
        }
    }
    if (!error && !unlink && !(tail_selection(past, record->head.ino) & SELECTED_MADE)) {
        path_text(past, record->parent, record->name, from, sizeof from);
        path_text(past, record->new_parent, record->new_name, to, sizeof to);
        snprintf(both, sizeof both, "%s -> %s", from, to);
        error = tell_removed(past, record, record->flags & RENAME_EXCHANGED ? "swapped " : "renamed ", both);
    }
    return error;
}

/* After it was: where directories are now. */
static int learn_names(struct store *past, const struct record *record) {
    int error = 0;
    if (record->head.type == RECORD_CREATE && record->parent && S_ISDIR(record->mode))
        error = name_put(past, record->head.ino, record->parent, record->name);
    if (record->head.type != RECORD_RENAME)
        return error;
    error = name_put(past, record->head.ino, record->new_parent, record->new_name);
    if (!error && record->flags & RENAME_EXCHANGED)
        error = name_put(past, record->victim, record->parent, record->name);
    return error;
}

int history_removed(struct store *past, uint64_t *at, char *line, size_t room) {
    struct key key = key_u64(*at + 1);
    struct span value;
    if (!past->history || !past->history->tail || !overlay_has(past, TAIL_REMOVED, &key, &value))
        return -ENOENT;
    snprintf(line, room, "%.*s", (int)value.length, (const char *)value.data);
    ++*at;
    return 0;
}

/* ---- data ---- */

/* The record's blocks get places: where they lie in the file is noted under the first one. */
static int give_places(struct store *past, const struct record *record, uint64_t offset, struct place *place) {
    struct undone_tail *tail = past->history->tail;
    struct tail_blocks row = {offset, record->head.blocks, record->head.payload};
    struct key key = {.length = 4};
    if (row.blocks == 0)
        return 0;
    uint32_t next;
    if (ADD_OVERFLOWS(tail->position, row.blocks, &next))
        return -EFBIG;
    *place = (struct place){SEGMENT_UNDONE, tail->position, row.blocks};
    be32_put(key.bytes, tail->position);
    tail->position = next;
    return history_put(past, TAIL_BLOCKS, &key, &row, sizeof row);
}

/* The row that holds the position. */
static int blocks_find(struct history *history, uint32_t position, uint32_t *first, struct tail_blocks *row) {
    uint8_t bytes[4];
    MDB_val k = {sizeof bytes, bytes}, data;
    MDB_cursor *cursor;
    be32_put(bytes, position);
    if (mdb_cursor_open(history->txn, history->dbi[TAIL_BLOCKS], &cursor) != 0)
        return -EIO;
    int rc = mdb_cursor_get(cursor, &k, &data, MDB_SET_RANGE);
    if (rc == MDB_NOTFOUND)
        rc = mdb_cursor_get(cursor, &k, &data, MDB_LAST);
    else if (rc == 0 && be32_get(k.mv_data) != position)
        rc = mdb_cursor_get(cursor, &k, &data, MDB_PREV);
    if (rc == 0) {
        *first = be32_get(k.mv_data);
        memcpy(row, (const uint8_t *)data.mv_data + 1, sizeof *row);
    }
    mdb_cursor_close(cursor);
    return rc || position < *first || position - *first >= row->blocks ? -EIO : 0;
}

int undone_tail_read(struct history *history, struct place place, uint8_t *to) {
    for (uint32_t i = 0; i < place.count; i++, to += BATON_BLOCK) {
        struct tail_blocks row;
        uint32_t first;
        int error = blocks_find(history, place.position + i, &first, &row);
        if (error)
            return error;
        uint64_t at = (uint64_t)(place.position + i - first) * BATON_BLOCK;
        size_t have = at < row.payload ? (size_t)MIN(row.payload - at, (uint64_t)BATON_BLOCK) : 0;
        if (have)
            error = pread_all(history->tail->fd, to, have, row.offset + at);
        if (error)
            return error;
        memset(to + have, 0, BATON_BLOCK - have);
    }
    return 0;
}

void undone_tail_free(struct undone_tail *tail) {
    if (!tail)
        return;
    if (tail->fd >= 0)
        close(tail->fd);
    free(tail);
}

/* ---- the records ---- */

static int apply_one(struct store *past, const struct record *record, const struct place *place) {
    struct change *change = &past->change;
    struct place copy = *place;
    change_reset(change, past);
    change->places = &copy;
    change->place_count = copy.count ? 1 : 0;
    int error = record_apply(change, record);
    if (error && undo_restore(past, change->undo, (uint32_t)change->undo_length) != 0)
        history_fail(past->history, -EIO, "a record that makes no sense could not be taken back");
    return error;
}

/* Without what lies below, what a RECLAIM frees is known in part. */
static int apply_steps(struct store *past, const struct record *record) {
    for (uint32_t i = 0; i < record->step_count; i++) {
        struct record one = *record;
        struct place none = {0};
        one.steps = &record->steps[i];
        one.step_count = 1;
        int error = apply_one(past, &one, &none);
        if (error && error != -EBADMSG)
            return error;
    }
    return 0;
}

static int lay_record(struct store *past, const struct record *record, uint64_t offset, struct undone_report *report) {
    struct history *history = past->history;
    struct place place = {0};
    int error = history->blank ? stubs_before(past, record) : 0;
    if (!error)
        error = note_names(past, record, report);
    if (!error)
        error = give_places(past, record, offset, &place);
    if (!error)
        error = history->blank && record->head.type == RECORD_RECLAIM ? apply_steps(past, record)
                                                                      : apply_one(past, record, &place);
    if (!error)
        error = learn_names(past, record);
    if (!error)
        error = select_record(past, record);
    if (history->error)
        return history->error;
    if (error == -EBADMSG && history->blank) {
        report->refused++;
        error = 0;
    }
    past->position.lsn = record->head.lsn;
    past->position.epoch = record->head.epoch;
    memcpy(past->position.chain, record->head.chain, CHAIN_SIZE);
    return error;
}

/* The next record is decoded and fits its chain. Damage goes into the report. */
static bool next_record(struct undone *undone, struct store *past, struct record *record,
                        struct undone_report *report) {
    uint8_t chain[CHAIN_SIZE];
    struct span bytes, payload;
    const char *what = NULL;
    int more = undone_next(undone, &bytes, &payload);
    if (more == 0 && past->position.lsn < report->last)
        what = "it ends there";
    else if (more < 0)
        what = "what follows is damaged";
    if (more != 1) {
        if (what)
            snprintf(report->damage, sizeof report->damage, "after record %" PRIu64 ": %s", past->position.lsn, what);
        return false;
    }
    if (record_decode(bytes.data, bytes.length, record, &what) != 0) {
        snprintf(report->damage, sizeof report->damage, "after record %" PRIu64 ": %s", past->position.lsn,
                 what ? what : "what follows is no record");
        return false;
    }
    record_chain(past->position.chain, bytes.data, bytes.length, chain);
    if (record->head.lsn != past->position.lsn + 1 || memcmp(chain, record->head.chain, CHAIN_SIZE) != 0 ||
        record->head.payload != payload.length || record->head.lsn > report->last)
        what = "what follows does not fit it";
    else if (record_check_payload(record, payload.data, payload.length) != 0)
        what = "the next one's data does not fit its checksums";
    else
        return true;
    snprintf(report->damage, sizeof report->damage, "after record %" PRIu64 ": %s", past->position.lsn, what);
    record_release(record);
    return false;
}

static int lay_records(struct store *past, struct undone *undone, history_progress *progress, void *context,
                       struct undone_report *report) {
    struct history *history = past->history;
    struct record record;
    int error = 0;
    while (!error && next_record(undone, past, &record, report)) {
        uint64_t done = record.head.lsn - report->first;
        store_lock(past);
        error = history->error ? history->error : lay_record(past, &record, undone_payload_at(undone), report);
        store_unlock(past);
        if (error && !history->error)
            snprintf(report->damage, sizeof report->damage, "record %" PRIu64 " makes no sense: %s", record.head.lsn,
                     strerror(-error));
        else
            report->reached = record.head.lsn;
        record_release(&record);
        if (progress && done % PROGRESS_RECORDS == 0 && progress(context, done, report->last - report->first + 1))
            return -ECANCELED;
    }
    return history->error; /* what makes no sense is told in the report */
}

/* ---- directories above ---- */

static int select_above(struct store *past, uint64_t directory) {
    struct inode_row row;
    for (unsigned depth = 0; depth < DEPTH_MAX && directory != 0; depth++) {
        if (tail_selection(past, directory) & SELECTED_ABOVE)
            return 0;
        int error = tail_select(past, directory, SELECTED_ABOVE);
        if (error || directory == ROOT_INO)
            return error;
        error = inode_get(past, directory, &row);
        if (error)
            return error == -ENOENT ? 0 : error;
        directory = row.parent;
    }
    return 0;
}

/* A file does not know where its names are: all names are looked through, some under each hold of the lock. */
static int select_parents(struct store *past) {
    struct key at = {.length = 0};
    int error = 0;
    bool again = false;
    while (!error) {
        struct cursor cursor;
        store_lock(past);
        error = cursor_open(&cursor, past, NULL, TABLE_DIRENT);
        if (!error) {
            error = cursor_seek(&cursor, &at);
            if (!error && again && cursor.key.length == at.length && memcmp(cursor.key.data, at.bytes, at.length) == 0)
                error = cursor_next(&cursor);
            for (unsigned rows = 0; !error && rows < SCAN_ROWS; rows++, error = error ? error : cursor_next(&cursor)) {
                struct dirent_row row;
                at.length = (uint16_t)cursor.key.length;
                memcpy(at.bytes, cursor.key.data, cursor.key.length);
                if (cursor.key.length <= 8 || cursor.value.length != sizeof row)
                    continue;
                memcpy(&row, cursor.value.data, sizeof row);
                if (tail_selection(past, row.ino) & SELECTED_TOUCHED)
                    error = select_above(past, be64_get(at.bytes));
            }
            cursor_close(&cursor);
        }
        again = true;
        store_unlock(past);
    }
    return error == -ENOENT ? 0 : error;
}

/* ---- opening ---- */

static int open_below(struct store *store, struct undone *undone, history_progress *progress, void *context,
                      struct store **past, struct undone_report *report, char *why, size_t why_room) {
    uint8_t chain[CHAIN_SIZE];
    undone_range(undone, &report->first, &report->last, chain);
    report->reached = report->first - 1;
    int error = history_open(store, report->first - 1, chain, progress, context, past, why, why_room);
    if (error != -ENOENT && error != -ESTALE)
        return error;
    report->blank = true;
    error = history_make(store, true, past, why, why_room);
    if (error)
        return error;
    (*past)->history->lsn = (*past)->position.lsn = report->first - 1;
    memcpy((*past)->position.chain, chain, CHAIN_SIZE);
    return 0;
}

static int lay_all(struct store *past, struct undone *undone, const char *path, history_progress *progress,
                   void *context, struct undone_report *report) {
    struct history *history = past->history;
    history->tail = calloc(1, sizeof *history->tail);
    if (!history->tail)
        return history_fail(history, -ENOMEM, "out of memory");
    history->tail->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (history->tail->fd < 0)
        return history_fail(history, -errno, "%s cannot be opened: %s", path, strerror(errno));
    int error = lay_records(past, undone, progress, context, report);
    if (!error && history->blank)
        error = stubs_place(past);
    if (!error)
        error = select_parents(past);
    store_lock(past);
    if (!error)
        error = tail_select(past, ROOT_INO, SELECTED_ABOVE);
    store_unlock(past);
    report->removed = history->tail->removed;
    return error;
}

int history_open_undone(struct store *store, const char *path, history_progress *progress, void *context,
                        struct store **out, struct undone_report *report, char *why, size_t why_room) {
    struct undone *undone = NULL;
    struct store *past = NULL;

    memset(report, 0, sizeof *report);
    int error = undone_open(path, &undone, why, why_room);
    if (error)
        return error;
    if (memcmp(undone_volume(undone), store_volume(store), STORE_ID_SIZE) != 0) {
        snprintf(why, why_room, "%s is of another volume", path);
        error = -EXDEV;
    }
    if (!error)
        error = open_below(store, undone, progress, context, &past, report, why, why_room);
    if (!error) {
        error = lay_all(past, undone, path, progress, context, report);
        if (error == -ECANCELED)
            snprintf(why, why_room, "given up");
        else if (error && !history_error(past, why, why_room))
            snprintf(why, why_room, "%s cannot be read: %s", path, strerror(-error));
    }
    undone_close(undone);
    if (error)
        history_close(past);
    else
        *out = past;
    return error;
}
