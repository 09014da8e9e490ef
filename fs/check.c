#include "fs/check_parts.h"
#include "fs/generation.h"
#include "fs/lmdb_pages.h"
#include "fs/row.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- Findings ---- */

static void send_line(struct check *check, char mark, const char *text) {
    char line[2048];
    int n = snprintf(line, sizeof line - 1, "%c%s", mark, text);
    size_t length = MIN((size_t)n, sizeof line - 2);
    for (size_t i = 0; i < length; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[length++] = '\n';
    for (size_t done = 0; done < length;) {
        ssize_t wrote = write(check->out, line + done, length - done);
        if (wrote < 0 && errno != EINTR)
            _exit(1); /* nobody listens */
        done += wrote > 0 ? (size_t)wrote : 0;
    }
}

void looking_at(struct check *check, const char *what) {
    send_line(check, '@', what);
}

void found(struct check *check, const char *format, ...) {
    char text[2000];
    va_list arguments;
    unsigned kind = 0;

    while (kind < check->kind_count && check->kinds[kind].format != format)
        kind++;
    if (kind == check->kind_count) {
        PROMISE(kind < CHECK_KINDS);
        check->kinds[kind].format = format;
        check->kind_count++;
    }
    if (++check->kinds[kind].count > CHECK_KIND_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    send_line(check, '!', text);
}

/* What was counted only. */
static void found_more(struct check *check) {
    for (unsigned kind = 0; kind < check->kind_count; kind++) {
        uint64_t count = check->kinds[kind].count;
        char text[400];
        if (count <= CHECK_KIND_MAX)
            continue;
        snprintf(text, sizeof text, "… and %llu more of this kind: \"%.200s\"",
                 (unsigned long long)(count - CHECK_KIND_MAX), check->kinds[kind].format);
        send_line(check, '!', text);
    }
}

const char *printable(struct span name) {
    static char texts[4][300];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    uint32_t length = MIN(name.length, 255u);
    for (uint32_t i = 0; i < length; i++)
        text[i] = (char)(name.data[i] < 32 || name.data[i] == 127 ? '?' : name.data[i]);
    text[length] = 0;
    return text;
}

void *check_grow(void *list, size_t count, size_t *room, size_t size) {
    if (count < *room)
        return list;
    *room = *room * 2 + 1024;
    void *bigger = realloc(list, *room * size);
    PROMISE(bigger != NULL);
    return bigger;
}

/* ---- Rows ---- */

static bool row_take(enum table table, const MDB_val *k, const MDB_val *data, struct span *value) {
    struct key key;
    uint64_t sum;
    if (k->mv_size > KEY_MAX || data->mv_size < sizeof sum || data->mv_size - sizeof sum > table_row_max(table))
        return false;
    key.length = (uint16_t)k->mv_size;
    memcpy(key.bytes, k->mv_data, k->mv_size);
    size_t length = data->mv_size - sizeof sum;
    memcpy(&sum, (const uint8_t *)data->mv_data + length, sizeof sum);
    if (sum != table_row_check(table, &key, data->mv_data, length))
        return false;
    *value = (struct span){data->mv_data, (uint32_t)length};
    return true;
}

int get(struct check *check, enum table table, const struct key *key, struct span *value) {
    MDB_val k = {key->length, (void *)key->bytes}, data;
    int rc = mdb_get(check->store->txn, check->store->dbi[table], &k, &data);
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    return rc || !row_take(table, &k, &data, value) ? -EIO : 0;
}

static bool ascends(const struct key *last, const MDB_val *k) {
    int order = memcmp(last->bytes, k->mv_data, MIN((size_t)last->length, k->mv_size));
    return order < 0 || (order == 0 && last->length < k->mv_size);
}

void walk(struct check *check, enum table table,
          void (*each)(struct check *check, struct span key, struct span value)) {
    const char *name = table_names[table];
    struct key last = {.length = 0};
    MDB_val k, data;
    MDB_cursor *cursor;
    MDB_stat st;
    uint64_t rows = 0;
    char what[80];

    snprintf(what, sizeof what, "table \"%s\" in meta/data.mdb", name);
    looking_at(check, what);
    if (mdb_stat(check->store->txn, check->store->dbi[table], &st) != 0 ||
        mdb_cursor_open(check->store->txn, check->store->dbi[table], &cursor) != 0) {
        found(check, "table \"%s\" cannot be opened: the store is damaged; make it anew from the peer", name);
        return;
    }
    int rc = mdb_cursor_get(cursor, &k, &data, MDB_FIRST);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &k, &data, MDB_NEXT), rows++) {
        struct span value;
        if (k.mv_size > KEY_MAX || (rows > 0 && !ascends(&last, &k))) {
            found(check,
                  "table \"%s\": keys are out of order after row %llu: pages of the database are damaged, what follows "
                  "cannot be read",
                  name, (unsigned long long)rows);
            goto out; /* going on might never end */
        }
        last.length = (uint16_t)k.mv_size;
        memcpy(last.bytes, k.mv_data, k.mv_size);
        if (row_take(table, &k, &data, &value)) {
            struct span key = {k.mv_data, (uint32_t)k.mv_size};
            if (table < TABLE_SHARED_END && !row_is_possible(table, key, value))
                found(check, "table \"%s\": row %llu says what none can say: it is as it was written, by a defect", name,
                      (unsigned long long)rows + 1);
            each(check, key, value);
        } else {
            found(check, "table \"%s\": row %llu fails its checksum: what it said is lost on this node", name,
                  (unsigned long long)rows + 1);
        }
    }
    if (rc != MDB_NOTFOUND)
        found(check, "table \"%s\": reading stops after row %llu (%s): pages of the database are damaged", name,
              (unsigned long long)rows, mdb_strerror(rc));
    else if (rows != st.ms_entries)
        found(check, "table \"%s\" has %llu rows, but counts %llu: pages of the database are damaged or lost", name,
              (unsigned long long)rows, (unsigned long long)st.ms_entries);
out:
    mdb_cursor_close(cursor);
}

/* ---- The child ---- */

/* The newest checkpoint, and LMDB's meta pages as it says. */
static bool restore(struct check *check, struct checkpoint *checkpoint) {
    struct store *store = check->store;
    struct checkpoint older;
    bool suspect;
    char why[600];
    uint8_t page[META_PAGE];

    looking_at(check, "the file checkpoint");
    store->checkpoint_fd = openat(store->directory_fd, "checkpoint", O_RDONLY | O_CLOEXEC);
    if (store->checkpoint_fd < 0) {
        found(check, "the file checkpoint cannot be opened (%s): without it the store cannot be used", strerror(errno));
        return false;
    }
    if (checkpoint_read(store, checkpoint, &older, &suspect, why, sizeof why) != 0) {
        found(check, "%s", why);
        return false;
    }
    if (suspect)
        found(check, "one of the two slots of the file checkpoint is unreadable: torn in a power cut, then the next "
                     "open mends it, or rotten, then what was durable last is lost");
    store->meta_fd = openat(store->directory_fd, "meta/data.mdb", O_RDONLY | O_CLOEXEC);
    if (store->meta_fd < 0) {
        found(check, "meta/data.mdb cannot be opened (%s): without it the store cannot be used", strerror(errno));
        return false;
    }
    uint64_t other = checkpoint->txnid - 1, seen = 0;
    bool as_saved = checkpoint_fits(store, checkpoint) &&
                    pread_all(store->meta_fd, page, META_PAGE, (checkpoint->txnid & 1) * META_PAGE) == 0 &&
                    memcmp(page, checkpoint->page, META_PAGE) == 0 &&
                    pread_all(store->meta_fd, &seen, 8, (other & 1) * META_PAGE + 144) == 0 && seen == other;
    if (as_saved)
        return true;
    int fd = openat(store->directory_fd, "meta/data.mdb", O_RDWR | O_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;
    if (fd >= 0) {
        close(store->meta_fd);
        store->meta_fd = fd;
        rc = checkpoint_restore_pages(store, checkpoint, why, sizeof why);
    } else {
        snprintf(why, sizeof why, "meta/data.mdb is not as the checkpoint left it and cannot be written (%s)",
                 strerror(-rc));
    }
    if (rc)
        found(check, "%s", why);
    return rc == 0;
}

/* Before liblmdb reads them. What it dies of is told once more, with the table. */
static void check_pages(struct check *check, const struct checkpoint *checkpoint) {
    char why[400];
    looking_at(check, "the pages of meta/data.mdb");
    int rc = lmdb_pages_verify(check->store->meta_fd, checkpoint->page, why, sizeof why);
    if (rc && rc != -EBADMSG && rc != -EIO)
        found(check, "the pages of meta/data.mdb could not be looked at: %s", why);
    else if (rc)
        found(check,
              "the database meta/data.mdb is damaged (%s): batond may die of it; set the store aside and make it anew "
              "from the peer",
              why);
}

static bool database_open(struct check *check, const struct checkpoint *checkpoint) {
    struct store *store = check->store;
    char path[4096];
    MDB_envinfo info;

    looking_at(check, "the database meta/data.mdb");
    snprintf(path, sizeof path, "%s/meta", store->base);
    int rc = mdb_env_create(&store->env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(store->env, TABLE_END);
    if (rc == 0)
        rc = mdb_env_open(store->env, path, MDB_RDONLY | MDB_NOLOCK | MDB_NORDAHEAD, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &store->txn);
    if (rc == 0)
        rc = mdb_env_info(store->env, &info);
    if (rc) {
        found(check, "LMDB cannot open meta/data.mdb (%s): the store is damaged; make it anew from the peer",
              mdb_strerror(rc));
        return false;
    }
    if (mdb_txn_id(store->txn) != checkpoint->txnid)
        found(check,
              "the database is at transaction %llu, but the checkpoint at %llu: it was opened by another "
              "program",
              (unsigned long long)mdb_txn_id(store->txn), (unsigned long long)checkpoint->txnid);
    for (int table = 0; table < TABLE_END; table++)
        if (mdb_dbi_open(store->txn, table_names[table], 0, &store->dbi[table]) != 0) {
            found(check, "table \"%s\" is missing: the store is damaged; make it anew from the peer",
                  table_names[table]);
            return false;
        }
    return true;
}

static void take_meta(struct check *check, struct span key, struct span value) {
    if (key.length != 8 || memcmp(key.data, "position", 8) != 0)
        return;
    if (value.length != sizeof check->position) {
        found(check, "the row \"position\" has a wrong length: the store cannot be opened");
        return;
    }
    memcpy(&check->position, value.data, sizeof check->position);
    check->has_position = true;
}

static void compare_position(struct check *check) {
    const struct position_row *position = &check->position;
    if (position->inodes != check->inode_count)
        found(check, "%llu inodes are counted, %zu are there: statfs shows a wrong number",
              (unsigned long long)position->inodes, check->inode_count);
    if (position->live_blocks != check->mapped_blocks)
        found(check, "%llu blocks of data are counted, the map has %llu: statfs shows a wrong number",
              (unsigned long long)position->live_blocks, (unsigned long long)check->mapped_blocks);
    if (position->kept_blocks != check->kept_blocks)
        found(check,
              "%llu blocks are counted as kept by history, the journal names %llu: history is trimmed too "
              "early or too late",
              (unsigned long long)position->kept_blocks, (unsigned long long)check->kept_blocks);
    if (position->journal_bytes != check->journal_bytes)
        found(check, "%llu bytes of journal are counted, its rows have %llu: history is trimmed too early or too late",
              (unsigned long long)position->journal_bytes, (unsigned long long)check->journal_bytes);
}

static void look_at_all(struct check *check) {
    struct checkpoint checkpoint;

    if (!restore(check, &checkpoint))
        return;
    check_pages(check, &checkpoint);
    if (!database_open(check, &checkpoint))
        return;
    check->store->segments.blocks = checkpoint.segment_blocks;
    walk(check, TABLE_META, take_meta);
    if (!check->has_position)
        found(check, "the row \"position\" is missing: the store cannot be opened");
    check_names(check);
    check_segments(check);
    check_journal(check);
    check_blocks(check);
    check_journal_places(check);
    if (check->has_position) {
        if (check->position.lsn != checkpoint.lsn)
            found(check, "the checkpoint says LSN %llu, the tables LSN %llu: one of them is not of this store",
                  (unsigned long long)checkpoint.lsn, (unsigned long long)check->position.lsn);
        compare_position(check);
        check_undo(check);
        check_tail(check, &checkpoint);
    }
}

static void child(const char *path, const char *base, int directory_fd, unsigned flags, int out) __attribute__((noreturn));
static void child(const char *path, const char *base, int directory_fd, unsigned flags, int out) {
    struct check check = {.flags = flags, .out = out, .data_fd = -1};
    signal(SIGPIPE, SIG_IGN);
    check.store = calloc(1, sizeof *check.store);
    PROMISE(check.store != NULL);
    check.store->path = (char *)path;
    check.store->base = (char *)base;
    check.store->directory_fd = directory_fd;
    look_at_all(&check);
    found_more(&check);
    send_line(&check, '.', "");
    _exit(0);
}

/* ---- The parent ---- */

struct listening {
    void (*finding)(void *context, const char *sentence);
    void *context;
    int count;
    bool ended; /* the child said that it has seen all */
    char at[200];
};

static void tell(struct listening *listening, const char *sentence) {
    listening->count++;
    listening->finding(listening->context, sentence);
}

static void listen_to(struct listening *listening, int in) {
    char *line = NULL;
    size_t room = 0;
    FILE *lines = fdopen(in, "r");
    PROMISE(lines != NULL);
    for (;;) {
        if (getline(&line, &room, lines) <= 0) {
            if (!ferror(lines) || errno != EINTR)
                break;
            clearerr(lines); /* a signal that this program handles is not the child's end */
            continue;
        }
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '!')
            tell(listening, line + 1);
        else if (line[0] == '@')
            snprintf(listening->at, sizeof listening->at, "%s", line + 1);
        else
            listening->ended = true;
    }
    free(line);
    fclose(lines);
}

static int run_child(const char *path, const char *base, int directory_fd, unsigned flags, struct listening *listening) {
    int pipes[2], status;
    char text[600];

    if (pipe2(pipes, O_CLOEXEC) < 0)
        return -errno;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(pipes[0]);
        child(path, base, directory_fd, flags, pipes[1]);
    }
    close(pipes[1]);
    if (pid < 0) {
        close(pipes[0]);
        return -EAGAIN;
    }
    listen_to(listening, pipes[0]);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && listening->ended)
        return 0;
    snprintf(text, sizeof text,
             "the database library died (%s) while it read %s: its pages are damaged, and batond would die of them "
             "too; what follows was not looked at. Set the store aside and make it anew from the peer",
             WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "with an error", listening->at);
    tell(listening, text);
    return 0;
}

int check_store(const char *path, unsigned flags, void (*finding)(void *context, const char *sentence), void *context) {
    struct listening listening = {.finding = finding, .context = context, .at = "the store"};
    char text[600], base[PATH_MAX], lock[PATH_MAX];
    AUTO_CLOSE int lock_fd = -1;
    AUTO_CLOSE int directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = directory_fd < 0 ? -errno : 0;
    if (rc) {
        snprintf(text, sizeof text, "%s cannot be opened: %s", path, strerror(-rc));
    } else {
        snprintf(lock, sizeof lock, "%s/lock", path);
        lock_fd = open(lock, O_RDWR | O_CLOEXEC);
        if (lock_fd < 0 && errno == EROFS)
            lock_fd = open(lock, O_RDONLY | O_CLOEXEC);
        if (lock_fd < 0) {
            rc = -errno;
            snprintf(text, sizeof text, "%s is not a store (its file \"lock\" cannot be opened: %s)", path,
                     strerror(-rc));
        } else if (flock(lock_fd, LOCK_EX | LOCK_NB) < 0) {
            rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
            snprintf(text, sizeof text, "the store %s is in use: stop its batond first, or use \"baton scrub\"", path);
        }
    }
    if (!rc) { /* with the lock: nobody changes which generation it is */
        rc = generation_current(path, base, NULL);
        close(directory_fd);
        directory_fd = rc ? -1 : open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory_fd < 0) {
            rc = rc ? rc : -errno;
            snprintf(text, sizeof text, "%s cannot be opened: %s", path, strerror(-rc));
        }
    }
    if (!rc) {
        rc = run_child(path, base, directory_fd, flags, &listening);
        if (rc)
            snprintf(text, sizeof text, "the check of %s cannot be started: %s", path, strerror(-rc));
    }
    if (!rc)
        return listening.count;
    finding(context, text);
    return rc;
}
