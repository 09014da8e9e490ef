#include "fs/journal_view.h"

#include "fs/journal_text.h"

#include <inttypes.h>
#include <stdio.h>

#define CHUNK 256u            /* records whose names are searched for together */
#define LEARN_MAX 500000u     /* records before the first shown one that are read for the names in them */
#define FOLLOW_POLL_MS 50

struct filter {
    uint64_t from, to;
    int64_t since, until;
    uint64_t inode;
    uint16_t type;    /* 0: all */
    const char *path; /* escaped, without slashes at its ends; NULL: all */
    uint64_t last;
};

struct view {
    struct store *store;
    const struct config *config;
    const struct journal_sink *sink;
    struct filter filter;
    struct names *names;
    uint64_t shown;
    bool closed; /* nobody listens */
    char *why;
    size_t why_room;
};

static int fail(struct view *view, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct view *view, int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(view->why, view->why_room, format, arguments);
    va_end(arguments);
    return error;
}

static void emit(struct view *view, json_t *line) {
    if (view->closed)
        json_decref(line);
    else if (line == NULL || view->sink->send(view->sink->context, line) != 0)
        view->closed = true;
}

/* ---- the request ------------------------------------------------------------------------------------------------------- */

static int take_number(struct view *view, const json_t *request, const char *key, int64_t *value) {
    const json_t *given = json_object_get(request, key);
    if (given == NULL)
        return 0;
    if (!json_is_integer(given) || json_integer_value(given) < 0)
        return fail(view, -EINVAL, "\"%s\" must be a number that is not negative", key);
    *value = json_integer_value(given);
    return 0;
}

static int take_type(struct view *view, const char *name) {
    if (name == NULL)
        return 0;
    for (uint16_t type = 1; type < RECORD_TYPE_END; type++) {
        if (strcmp(record_type_name(type), name) == 0) {
            view->filter.type = type;
            return 0;
        }
    }
    char known[256] = "";
    for (uint16_t type = 1; type < RECORD_TYPE_END; type++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", type > 1 ? ", " : "", record_type_name(type));
    }
    return fail(view, -EINVAL, "there is no type of record \"%.40s\"; types are %s", name, known);
}

static int take_filter(struct view *view, const json_t *request) {
    int64_t from = 0, to = INT64_MAX, since = 0, until = INT64_MAX, inode = 0, last = 0;
    int error = take_number(view, request, "from", &from);
    if (error == 0)
        error = take_number(view, request, "to", &to);
    if (error == 0)
        error = take_number(view, request, "since", &since);
    if (error == 0)
        error = take_number(view, request, "until", &until);
    if (error == 0)
        error = take_number(view, request, "inode", &inode);
    if (error == 0)
        error = take_number(view, request, "last", &last);
    if (error)
        return error;
    view->filter = (struct filter){.from = (uint64_t)from, .to = (uint64_t)to, .since = since, .until = until,
                                   .inode = (uint64_t)inode, .last = (uint64_t)last};
    view->filter.path = json_string_value(json_object_get(request, "path"));
    return take_type(view, json_string_value(json_object_get(request, "type")));
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

/* 0 with a decoded record (release it, put the entry), or -ENOENT, or another error with a sentence. */
static int read_record(struct view *view, uint64_t lsn, struct entry **entry, struct record *record) {
    const char *reason = NULL;
    int error = store_read(view->store, lsn, entry);
    if (error == -ENOENT)
        return error;
    if (error)
        return fail(view, error, "record %" PRIu64 " cannot be read: %s; run \"baton check\"", lsn, strerror(-error));
    error = record_decode((*entry)->bytes, (*entry)->length, record, &reason);
    if (error) {
        entry_put(*entry);
        return fail(view, error, "record %" PRIu64 " is damaged (%s); run \"baton check\"", lsn,
                    reason != NULL ? reason : "it cannot be decoded");
    }
    return 0;
}

static int read_time(struct view *view, uint64_t lsn, int64_t *time) {
    struct entry *entry;
    struct record record;
    int error = read_record(view, lsn, &entry, &record);
    if (error)
        return error;
    *time = record.head.time;
    record_release(&record);
    entry_put(entry);
    return 0;
}

/* The first LSN in [low, high] whose record is not older than `time`; high + 1 if none. Times never go back. */
static uint64_t first_since(struct view *view, uint64_t low, uint64_t high, int64_t time) {
    uint64_t end = high + 1;
    while (low < end) {
        uint64_t middle = low + (end - low) / 2;
        int64_t seen;
        if (read_time(view, middle, &seen) == 0 && seen >= time)
            end = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/' || path[length] == ' ');
}

static bool path_matches(struct view *view, const struct record *record) {
    const char *wanted = view->filter.path;
    static const uint16_t about_inode[] = {RECORD_SETATTR, RECORD_WRITE, RECORD_TRUNCATE, RECORD_ALLOCATE,
                                           RECORD_PUNCH,   RECORD_XATTR, RECORD_LINK};
    char path[4500];

    if (wanted == NULL || *wanted == '\0')
        return true;
    if (record->parent != 0 && names_path_in(view->names, record->parent, record->name, path, sizeof path) &&
        below(path, wanted))
        return true;
    if (record->new_parent != 0 &&
        names_path_in(view->names, record->new_parent, record->new_name, path, sizeof path) && below(path, wanted))
        return true;
    for (size_t i = 0; i < sizeof about_inode / sizeof *about_inode; i++) {
        if (record->head.type == about_inode[i])
            return names_path(view->names, record->head.ino, path, sizeof path) && below(path, wanted);
    }
    return false;
}

static bool matches(struct view *view, const struct record *record) {
    const struct filter *filter = &view->filter;
    uint64_t inos[RECORD_INODES_MAX];

    if (record->head.time < filter->since || record->head.time > filter->until)
        return false;
    if (filter->type != 0 && record->head.type != filter->type)
        return false;
    if (filter->inode != 0) {
        unsigned count = record_inodes(record, inos), i = 0;
        while (i < count && inos[i] != filter->inode)
            i++;
        if (i == count)
            return false;
    }
    return path_matches(view, record);
}

/* Shows those of up to CHUNK records from *lsn on that match; moves *lsn behind them. 0, or an error; -ENOENT: the next
 * record is not there. */
static int show_chunk(struct view *view, uint64_t *lsn, uint64_t to, bool silent) {
    struct entry *entries[CHUNK];
    struct record *records = calloc(CHUNK, sizeof *records);
    uint64_t inos[RECORD_INODES_MAX * CHUNK];
    size_t wanted = 0;
    unsigned count = 0;
    int error = 0;

    if (records == NULL)
        return fail(view, -ENOMEM, "out of memory");
    for (; count < CHUNK && *lsn + count <= to; count++) {
        error = read_record(view, *lsn + count, &entries[count], &records[count]);
        if (error)
            break;
        if (!silent)
            wanted += record_inodes(&records[count], inos + wanted);
    }
    if (!silent && count > 0) {
        /* What these records create needs no search. */
        for (unsigned i = 0; i < count; i++)
            names_learn_new(view->names, &records[i]);
        names_search(view->names, inos, wanted);
    }
    for (unsigned i = 0; i < count; i++) {
        if (!silent && !view->closed && matches(view, &records[i])) {
            emit(view, json_pack("{s:o}", "record", record_json(&records[i], view->names, view->config)));
            view->shown++;
        }
        names_learn(view->names, &records[i]);
        record_release(&records[i]);
        entry_put(entries[i]);
    }
    free(records);
    *lsn += count;
    return count > 0 && error == -ENOENT ? 0 : error;
}

/* Shows [from, to]. Records before are read for the names in them. What the journal loses meanwhile is skipped. */
static int show_range(struct view *view, uint64_t from, uint64_t to) {
    struct position position;
    store_position(view->store, &position);
    uint64_t lsn = MAX(position.first, from > LEARN_MAX ? from - LEARN_MAX : 1);

    while (lsn <= to && !view->closed) {
        bool silent = lsn < from;
        int error = show_chunk(view, &lsn, silent ? from - 1 : to, silent);
        if (error == -ENOENT) {
            store_position(view->store, &position);
            if (position.first <= lsn)
                break;
            lsn = position.first;
        } else if (error) {
            return error;
        }
        if (view->sink->gone(view->sink->context, 0))
            view->closed = true;
    }
    return 0;
}

/* The range that the filter means, in what the journal has. */
static void settle_range(struct view *view, uint64_t *from, uint64_t *to) {
    const struct filter *filter = &view->filter;
    struct position position;

    store_position(view->store, &position);
    *from = MAX(filter->from, MAX(position.first, (uint64_t)1));
    *to = MIN(filter->to, position.lsn);
    if (filter->since > 0 && *from <= *to)
        *from = first_since(view, *from, *to, filter->since);
    if (filter->until < INT64_MAX && *from <= *to)
        *to = first_since(view, *from, *to, filter->until + 1) - 1;
    if (filter->last > 0 && *to + 1 > filter->last)
        *from = MAX(*from, *to + 1 - filter->last);
}

/* ---- actions ------------------------------------------------------------------------------------------------------------ */

static int list(struct view *view) {
    uint64_t from, to;
    settle_range(view, &from, &to);
    int error = show_range(view, from, to);
    if (error == 0)
        emit(view, json_pack("{s:b, s:I}", "end", 1, "records", (json_int_t)view->shown));
    return error;
}

static int show(struct view *view, const json_t *request) {
    struct position position;
    int64_t lsn = 0;
    int error = take_number(view, request, "lsn", &lsn);

    if (error)
        return error;
    store_position(view->store, &position);
    if ((uint64_t)lsn < position.first || (uint64_t)lsn > position.lsn || lsn == 0) {
        if (position.first > position.lsn)
            return fail(view, -ENOENT, "the journal is empty");
        return fail(view, -ENOENT, "there is no record %" PRId64 "; the journal has %" PRIu64 " to %" PRIu64, lsn,
                    position.first, position.lsn);
    }
    error = show_range(view, (uint64_t)lsn, (uint64_t)lsn);
    if (error == 0)
        emit(view, json_pack("{s:b, s:I}", "end", 1, "records", (json_int_t)view->shown));
    return error;
}

static int follow(struct view *view) {
    uint64_t from, to;
    uint8_t chain[CHAIN_SIZE], now[CHAIN_SIZE];
    bool have_chain = false;

    settle_range(view, &from, &to);
    int error = show_range(view, from, to);
    uint64_t next = to + 1;
    while (error == 0 && !view->closed) {
        struct position position;
        store_position(view->store, &position);
        int known = next > 1 ? store_chain_at(view->store, next - 1, now) : -ENOENT;
        bool replaced = have_chain && known == 0 && memcmp(chain, now, CHAIN_SIZE) != 0;
        if (position.lsn + 1 < next || replaced) {
            next = MIN(position.lsn + 1, next - 1);
            emit(view, json_pack("{s:I}", "undone", (json_int_t)(next - 1)));
            have_chain = false;
            continue;
        }
        if (position.first > next) {
            next = position.first;
            emit(view, json_pack("{s:I}", "trimmed", (json_int_t)(next - 1)));
        }
        if (next <= MIN(position.lsn, view->filter.to)) {
            error = show_chunk(view, &next, MIN(position.lsn, view->filter.to), false);
            error = error == -ENOENT ? 0 : error;
            have_chain = store_chain_at(view->store, next - 1, chain) == 0;
        } else {
            have_chain = have_chain || (next > 1 && store_chain_at(view->store, next - 1, chain) == 0);
            view->closed |= next > view->filter.to || view->sink->gone(view->sink->context, FOLLOW_POLL_MS);
        }
    }
    return error;
}

/* One record against its chain and checksums. `previous` moves on to the record's own chain value. */
static bool verify_record(struct view *view, const struct entry *entry, bool have_previous, uint8_t previous[CHAIN_SIZE],
                          bool data, const char **what) {
    struct record record;
    uint8_t chain[CHAIN_SIZE];
    bool good = true;

    if (entry->length < sizeof record.head || record_decode(entry->bytes, entry->length, &record, what) != 0)
        return false;
    record_chain(previous, entry->bytes, entry->length, chain);
    if (have_previous && memcmp(chain, record.head.chain, CHAIN_SIZE) != 0) {
        *what = "its chain value does not follow from the record before it";
        good = false;
    }
    memcpy(previous, record.head.chain, CHAIN_SIZE);
    if (good && record.head.lsn != entry->lsn) {
        *what = "it carries another LSN than its place in the journal";
        good = false;
    }
    if (good && data && record.head.payload > 0) {
        AUTO_FREE uint8_t *payload = malloc(record.head.payload);
        if (payload == NULL || entry_payload(view->store, entry, payload) != 0 ||
            record_check_payload(&record, payload, record.head.payload) != 0) {
            *what = payload == NULL ? "out of memory" : "its data cannot be read or does not fit its checksums";
            good = false;
        }
    }
    record_release(&record);
    return good;
}

static int verify(struct view *view, const json_t *request) {
    bool data = !json_is_false(json_object_get(request, "data"));
    uint8_t previous[CHAIN_SIZE] = {0};
    char hex[2 * CHAIN_SIZE + 1] = "";
    uint64_t from, to, checked = 0, bad = 0;

    settle_range(view, &from, &to);
    bool have_previous = from == 1 || store_chain_at(view->store, from - 1, previous) == 0;
    for (uint64_t lsn = from; lsn <= to && !view->closed; lsn++) {
        const char *what = "it cannot be decoded";
        struct entry *entry = NULL;
        int error = store_read(view->store, lsn, &entry);
        if (error == -ENOENT) { /* trimmed meanwhile, or a hole */
            struct position position;
            store_position(view->store, &position);
            if (position.first > lsn || position.lsn < lsn) {
                have_previous = false;
                lsn = MAX(position.first, lsn + 1) - 1;
                continue;
            }
        }
        if (error)
            what = error == -ENOENT ? "it is missing" : "it cannot be read";
        bool good = error == 0 && verify_record(view, entry, have_previous, previous, data, &what);
        have_previous = error == 0;
        if (entry != NULL)
            entry_put(entry);
        checked++;
        if (!good) {
            bad++;
            emit(view, json_pack("{s:{s:I, s:s}}", "bad", "lsn", (json_int_t)lsn, "what", what));
        }
        if (checked % CHUNK == 0 && view->sink->gone(view->sink->context, 0))
            view->closed = true;
    }
    for (unsigned i = 0; checked > 0 && i < CHAIN_SIZE; i++)
        snprintf(hex + 2 * (size_t)i, 3, "%02x", previous[i]);
    emit(view, json_pack("{s:b, s:I, s:I, s:I, s:I, s:b, s:s}", "end", 1, "records", (json_int_t)checked, "bad",
                         (json_int_t)bad, "from", (json_int_t)from, "to", (json_int_t)to, "data", data, "chain", hex));
    return 0;
}

static int stat_journal(struct view *view) {
    uint64_t counts[RECORD_TYPE_END] = {0}, payload = 0, bytes = 0, from, to;
    int64_t first_time = 0, last_time = 0;
    epoch_t epoch = 0;
    json_t *epochs = json_array(), *types = json_object();
    char text[96];

    settle_range(view, &from, &to);
    for (uint64_t lsn = from; lsn <= to && !view->closed; lsn++) {
        struct entry *entry;
        struct record_head head;
        int error = store_read(view->store, lsn, &entry);
        if (error == -ENOENT)
            continue; /* trimmed meanwhile */
        if (error) {
            json_decref(epochs);
            json_decref(types);
            return fail(view, error, "record %" PRIu64 " cannot be read: %s; run \"baton check\"", lsn, strerror(-error));
        }
        memcpy(&head, entry->bytes, sizeof head);
        bytes += entry->length;
        entry_put(entry);
        if (head.type < RECORD_TYPE_END)
            counts[head.type]++;
        payload += head.payload;
        first_time = first_time == 0 ? head.time : first_time;
        last_time = head.time;
        if (head.epoch != epoch) {
            epoch = head.epoch;
            epoch_text(view->config, epoch, text, sizeof text);
            json_array_append_new(epochs, json_pack("{s:s, s:I}", "epoch", text, "from", (json_int_t)lsn));
        }
        if (lsn % 4096 == 0 && view->sink->gone(view->sink->context, 0))
            view->closed = true;
    }
    for (uint16_t type = 1; type < RECORD_TYPE_END; type++)
        json_object_set_new(types, record_type_name(type), json_integer((json_int_t)counts[type]));
    json_t *end = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "end", 1, "from", (json_int_t)from, "to",
                            (json_int_t)to, "first_time", (json_int_t)first_time, "last_time", (json_int_t)last_time,
                            "bytes", (json_int_t)bytes, "payload", (json_int_t)payload, "types", types, "epochs", epochs);
    emit(view, end);
    return 0;
}

int journal_view(struct store *store, const struct config *config, const json_t *request, const struct journal_sink *sink,
                 char *why, size_t why_room) {
    struct view view = {.store = store, .config = config, .sink = sink, .why = why, .why_room = why_room};
    const char *action = json_string_value(json_object_get(request, "action"));
    int error = take_filter(&view, request);

    if (error)
        return error;
    view.names = names_create(store);
    if (view.names == NULL)
        return fail(&view, -ENOMEM, "out of memory");
    if (action != NULL && strcmp(action, "list") == 0)
        error = list(&view);
    else if (action != NULL && strcmp(action, "show") == 0)
        error = show(&view, request);
    else if (action != NULL && strcmp(action, "follow") == 0)
        error = follow(&view);
    else if (action != NULL && strcmp(action, "verify") == 0)
        error = verify(&view, request);
    else if (action != NULL && strcmp(action, "stat") == 0)
        error = stat_journal(&view);
    else
        error = fail(&view, -EINVAL, "the journal can be asked to list, show, follow, verify and stat");
    names_free(view.names);
    return error;
}
