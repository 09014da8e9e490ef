/* Making, opening and closing a store. Every open is the same, after a crash or not: put the newest checkpoint's state
 * back, pin it, apply the tail's records after it, make a checkpoint.
 */
#include "fs/apply.h"
#include "fs/generation.h"
#include "fs/lmdb_pages.h"
#include "fs/store_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MAP_SIZE (64ull << 30)
#else
#define MAP_SIZE (1ull << 40)
#endif

static void options_default(struct store_options *to, const struct store_options *from) {
    if (from)
        *to = *from;
    else
        memset(to, 0, sizeof *to);
    to->map_size = to->map_size ? to->map_size : MAP_SIZE;
    to->segment_blocks = to->segment_blocks ? to->segment_blocks : 65536;
    to->tail_size = MAX(to->tail_size ? to->tail_size : 16u << 20, 1u << 20);
    to->commit_ms = to->commit_ms ? to->commit_ms : 100;
    to->checkpoint_ms = to->checkpoint_ms ? to->checkpoint_ms : 1000;
    to->history_bytes = to->history_bytes ? to->history_bytes : 1ull << 30;
    to->limit_bytes = to->limit_bytes ? to->limit_bytes : 8ull << 30;
    to->reserve_bytes = to->reserve_bytes ? to->reserve_bytes : 64ull << 20;
}

#define SAY(...) snprintf(why, why_room, __VA_ARGS__)

/* ---- parts of opening ---- */

static struct store *store_new(const char *path, const char *base, const struct store_options *options) {
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    options_default(&store->options, options);
    store->path = strdup(path);
    store->base = strdup(base);
    store->record_buffer = malloc(RECORD_LENGTH_MAX);
    store->recent = calloc(RECENT_ENTRIES, sizeof(struct entry *));
    store->directory_fd = store->lock_fd = store->meta_fd = store->checkpoint_fd = -1;
    store->segments.directory_fd = -1;
    store->hold = store->hold_absent = store->options.hold_all ? 0 : UINT64_MAX;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->sync_lock, NULL);
    pthread_cond_init(&store->work, &monotonic);
    pthread_cond_init(&store->committed_cond, &monotonic);
    pthread_cond_init(&store->sync_work, NULL);
    pthread_cond_init(&store->sync_done, NULL);
    pthread_condattr_destroy(&monotonic);
    mend_open(&store->mend);
    if (!store->path || !store->base || !store->record_buffer || !store->recent) {
        free(store->path);
        free(store->base);
        free(store->record_buffer);
        free(store->recent);
        free(store);
        return NULL;
    }
    return store;
}

static void close_fd(int fd) {
    if (fd >= 0)
        close(fd);
}

static void store_free(struct store *store) {
    if (store->pin)
        mdb_txn_abort(store->pin);
    if (store->txn)
        mdb_txn_abort(store->txn);
    if (store->env)
        mdb_env_close(store->env);
    if (store->tail.buffer)
        tail_close(&store->tail);
    mark_close(&store->mark);
    if (store->segments.blocks)
        segments_close(&store->segments);
    for (uint32_t i = 0; i < RECENT_ENTRIES; i++)
        entry_put(store->recent[i]);
    free(store->recent);
    free(store->record_buffer);
    free(store->change.undo);
    free(store->change.dropped);
    free(store->saved_segments);
    free(store->saved_reserved);
    local_values_forget(store);
    close_fd(store->meta_fd);
    close_fd(store->checkpoint_fd);
    close_fd(store->directory_fd);
    close_fd(store->lock_fd); /* last: only now may somebody else open it */
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->sync_lock);
    pthread_cond_destroy(&store->work);
    pthread_cond_destroy(&store->committed_cond);
    pthread_cond_destroy(&store->sync_work);
    pthread_cond_destroy(&store->sync_done);
    mend_close(&store->mend);
    free(store->path);
    free(store->base);
    free(store);
}

static int base_open(struct store *store, char *why, size_t why_room) {
    store->directory_fd = open(store->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->directory_fd >= 0)
        return 0;
    int rc = -errno;
    SAY("cannot open the store %s: %s%s", store->base, strerror(-rc),
        rc == -ENOENT ? "; make it with \"baton format\"" : "");
    return rc;
}

static int lock_take(struct store *store, int flags, char *why, size_t why_room) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", store->path);
    store->lock_fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (store->lock_fd < 0) {
        int rc = -errno;
        if (rc == -ENOENT && access(store->path, F_OK) < 0)
            SAY("cannot open the store %s: %s; make it with \"baton format\"", store->path, strerror(-rc));
        else if (rc == -ENOENT)
            SAY("%s is not a store (it has no file \"lock\"); make one with \"baton format\"", store->path);
        else
            SAY("cannot open %s: %s", path, strerror(-rc));
        return rc;
    }
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        int rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
        SAY("the store %s is in use by another process; stop that first, or ask it through its control socket",
            store->path);
        return rc;
    }
    return 0;
}

static int env_open(struct store *store, char *why, size_t why_room) {
    char path[4096];
    snprintf(path, sizeof path, "%s/meta", store->base);
    int rc = mdb_env_create(&store->env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(store->env, TABLE_END);
    if (rc == 0)
        rc = mdb_env_set_mapsize(store->env, store->options.map_size);
    if (rc == 0)
        rc = mdb_env_open(store->env, path, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
    MDB_stat st;
    if (rc == 0 && (mdb_env_stat(store->env, &st) || st.ms_psize != META_PAGE))
        rc = MDB_INVALID;
    if (rc) {
        SAY("cannot open the database in %s: %s", path, mdb_strerror(rc));
        return rc > 0 ? -rc : -EIO;
    }
    snprintf(path, sizeof path, "%s/meta/data.mdb", store->base);
    if (store->meta_fd < 0)
        store->meta_fd = open(path, O_RDWR | O_CLOEXEC);
    return store->meta_fd < 0 ? -errno : 0;
}

static void boot_read(uint8_t boot[STORE_ID_SIZE]) {
    char text[64] = "";
    AUTO_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    memset(boot, 0, STORE_ID_SIZE);
    for (ssize_t i = 0, digit = 0; i < n && digit < 2 * STORE_ID_SIZE; i++) {
        if (text[i] == '-' || text[i] == '\n')
            continue;
        unsigned value = (unsigned)(text[i] <= '9' ? text[i] - '0' : (text[i] | 32) - 'a' + 10) & 15u;
        boot[digit / 2] = (uint8_t)(boot[digit / 2] << 4 | value);
        digit++;
    }
}

static int random_id(uint8_t id[STORE_ID_SIZE]) {
    return getrandom(id, STORE_ID_SIZE, 0) == STORE_ID_SIZE ? 0 : -EIO;
}

/* Why it may lack something that it acknowledged from memory, or be a copy; NULL: it does not and is not. */
static const char *doubt(const struct store *store, const struct stat *st) {
    const struct checkpoint *saved = &store->last_checkpoint;
    uint64_t mark;
    if (memcmp(saved->boot, store->boot, STORE_ID_SIZE) != 0 || saved->device != st->st_dev ||
        saved->directory != st->st_ino)
        return "another boot, disk or folder than before";
    if (mark_read(st, saved->incarnation, &mark) != 0)
        return "nothing says how far it was in this boot";
    return store->position.lsn < mark ? "it ends before the last record that it had in this boot" : NULL;
}

/* The tail has been applied. In doubt whether it has all that it acknowledged this store is a new incarnation. */
static int incarnation_settle(struct store *store) {
    struct stat st;
    boot_read(store->boot);
    if (fstat(store->directory_fd, &st) < 0)
        return -errno;
    memcpy(store->incarnation, store->last_checkpoint.incarnation, STORE_ID_SIZE);
    const char *why = doubt(store, &st);
    if (why) {
        log_info("store %s: %s; it counts as a new incarnation", store->path, why);
        if (random_id(store->incarnation) != 0)
            return -EIO;
    }
    store->last_checkpoint.device = st.st_dev;
    store->last_checkpoint.directory = st.st_ino;
    int rc = mark_open(&store->mark, &st, store->incarnation, store->position.lsn);
    if (rc)
        log_warning("store %s: how far it is cannot be noted for the time after a crash (%s): it counts as a new incarnation, "
                    "and at its next start again", store->path, strerror(-rc));
    /* What the process before has noted there cannot be told either, and binds this incarnation. */
    if (rc && !why && random_id(store->incarnation) != 0)
        return -EIO;
    return 0;
}

static int position_load(struct store *store) {
    struct key key = {.length = 8};
    struct span value;
    memcpy(key.bytes, "position", 8);
    int rc = table_get(store, TABLE_META, &key, &value);
    if (rc)
        return rc;
    if (value.length != sizeof store->position)
        return -EIO;
    memcpy(&store->position, value.data, sizeof store->position);
    store->committed = store->position.lsn;
    store->recent_first = store->position.lsn + 1;
    return 0;
}

/* ---- replay ---- */

/* -EBADMSG: the segment's file, or its end, is not there. Any real error of the disk is another one. */
static int places_reached_disk(struct store *store, const struct entry *entry) {
    for (uint32_t i = 0; i < entry->place_count; i++) {
        struct stat st;
        char name[16];
        segment_name(entry->places[i].segment, name);
        if (fstatat(store->segments.directory_fd, name, &st, 0) < 0)
            return errno == ENOENT ? -EBADMSG : -errno;
        if ((uint64_t)st.st_size < ((uint64_t)entry->places[i].position + entry->places[i].count) * BATON_BLOCK)
            return -EBADMSG;
    }
    return 0;
}

static int replay_data(struct store *store, const struct record *record, const struct tail_entry *from,
                       struct entry *entry) {
    if (record->head.blocks == 0)
        return 0;
    if (from->payload || record->head.payload == 0) {
        int rc = from->payload_length == record->head.payload
                     ? record_check_payload(record, from->payload, from->payload_length)
                     : -EBADMSG;
        return rc ? rc : store_write_blocks(store, entry->places, entry->place_count, from->payload,
                                            from->payload_length);
    }
    /* What the page cache shows may have failed to reach the disk before the last process ended (a failed fsync is
     * told once): written again, it is part of the checkpoint that ends this open. */
    AUTO_FREE uint8_t *data = malloc(record->head.payload);
    int rc = data ? places_reached_disk(store, entry) : -ENOMEM;
    rc = rc ? rc : entry_payload(store, entry, data);
    return rc ? rc : store_write_blocks(store, entry->places, entry->place_count, data, record->head.payload);
}

static int replay_one(void *context, const struct tail_entry *from) {
    struct store *store = context;
    struct record record;
    uint8_t chain[CHAIN_SIZE];
    if (record_decode(from->record, from->record_length, &record, NULL) != 0)
        return 1;
    record_chain(store->position.chain, from->record, from->record_length, chain);
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < from->place_count; i++)
        blocks += from->places[i].count;
    int rc = record.head.lsn != store->position.lsn + 1 || memcmp(chain, record.head.chain, CHAIN_SIZE) != 0 ||
                     blocks != record.head.blocks
                 ? 1
                 : 0;
    struct entry *entry = NULL;
    if (rc == 0) {
        bool inlined = record.head.blocks > 0 && record.head.payload <= STORE_INLINE_MAX;
        entry = entry_make(from->record, from->record_length,
                           inlined ? (from->payload ? from->payload : (const uint8_t *)"") : NULL,
                           inlined ? from->payload_length : 0, from->places, from->place_count);
        rc = entry ? replay_data(store, &record, from, entry) : -ENOMEM;
        if (rc == -EBADMSG)
            rc = 1; /* data that had not reached the disk: the history ends before it */
    }
    if (rc == 0)
        rc = store_apply_entry(store, &record, entry, false);
    if (rc == 0) {
        recent_add(store, entry);
        entry = NULL;
        if (store->batch_rows >= BATCH_ROWS || store->batch_bytes >= BATCH_BYTES) {
            rc = store_commit_txn(store);
            space_meta_headroom(store);
            if (rc == 0)
                rc = store_begin_txn(store);
        }
    }
    entry_put(entry);
    record_release(&record);
    return rc;
}

/* Rows whole, keys ascending, as many as the tree's root says: a page that was used again shows in one of them. */
static int table_verify(struct store *store, enum table table) {
    struct cursor cursor;
    struct key last = {.length = 0};
    MDB_stat st;
    uint64_t rows = 0;
    if (mdb_stat(store->txn, store->dbi[table], &st) != 0)
        return -EIO;
    int rc = cursor_open(&cursor, store, NULL, table);
    if (rc)
        return rc;
    for (rc = cursor_seek(&cursor, &last); rc == 0; rc = cursor_next(&cursor), rows++) {
        size_t common = MIN((size_t)last.length, (size_t)cursor.key.length);
        int order = memcmp(last.bytes, cursor.key.data, common);
        if (rows > 0 && (order > 0 || (order == 0 && last.length >= cursor.key.length))) {
            rc = -EIO;
            break;
        }
        last.length = (uint16_t)cursor.key.length;
        memcpy(last.bytes, cursor.key.data, last.length);
    }
    cursor_close(&cursor);
    return rc == -ENOENT && rows == st.ms_entries ? 0 : -EIO;
}

/* Walks every page and row of a state whose checkpoint is in doubt; rows in a child: liblmdb dies on damaged pages,
 * should one have been overlooked. */
static int state_verify(struct store *store, char *why, size_t why_room) {
    char damage[400];
    int rc = lmdb_pages_verify(store->meta_fd, store->last_checkpoint.page, damage, sizeof damage);
    if (rc && rc != -EBADMSG && rc != -EIO) {
        SAY("the newest checkpoint of %s is unreadable, and the one before could not be looked at: %s", store->path, damage);
        return rc;
    }
    if (rc) {
        SAY("the newest checkpoint of %s is unreadable, and the one before is no longer whole (%s): the store is damaged; "
            "move the folder away and make a new store with \"baton format\": it is built anew from the other node",
            store->path, damage);
        return -EIO;
    }
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        rc = env_open(store, why, why_room);
        if (rc == 0 && mdb_txn_begin(store->env, NULL, 0, &store->txn) != 0)
            rc = -EIO;
        if (rc == 0)
            rc = table_open_all(store, store->txn, false);
        for (int table = 0; rc == 0 && table < TABLE_END; table++)
            rc = table_verify(store, (enum table)table);
        _exit(rc ? 1 : 0);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    SAY("the newest checkpoint of %s is unreadable, and rows of the one before are no longer whole: the store is damaged; "
        "move the folder away and make a new store with \"baton format\": it is built anew from the other node",
        store->path);
    return -EIO;
}

static int state_restore(struct store *store, const uint8_t *volume, char *why, size_t why_room) {
    struct checkpoint older;
    bool suspect;
    char path[4096];
    snprintf(path, sizeof path, "%s/checkpoint", store->base);
    store->checkpoint_fd = open(path, O_RDWR | O_CLOEXEC);
    if (store->checkpoint_fd < 0) {
        int rc = -errno;
        SAY("cannot open %s: %s", path, strerror(-rc));
        return rc;
    }
    int rc = checkpoint_read(store, &store->last_checkpoint, &older, &suspect, why, why_room);
    if (rc)
        return rc;
    const struct checkpoint *saved = &store->last_checkpoint;
    if (volume && memcmp(volume, saved->volume, STORE_ID_SIZE) != 0) {
        SAY("the store %s belongs to another volume (\"%s\"); check \"store\" in the config file", store->path,
            saved->name);
        return -EXDEV;
    }
    memcpy(store->volume, saved->volume, STORE_ID_SIZE);
    memcpy(store->name, saved->name, sizeof store->name);
    store->options.segment_blocks = saved->segment_blocks;
    store->options.tail_size = saved->tail_size;
    snprintf(path, sizeof path, "%s/meta/data.mdb", store->base);
    store->meta_fd = open(path, O_RDWR | O_CLOEXEC);
    if (store->meta_fd < 0) {
        rc = -errno;
        SAY("cannot open %s: %s", path, strerror(-rc));
        return rc;
    }
    rc = checkpoint_restore_pages(store, saved, why, why_room);
    /* The slot may be in the page cache only, if the flush that followed it failed: the next one will overwrite the
     * other slot, so this one has to be on disk. */
    if (rc == 0) {
        struct checkpoint again = *saved;
        rc = checkpoint_write(store, &again);
        if (rc)
            SAY("cannot write %s/checkpoint: %s", store->path, strerror(-rc));
    }
    snprintf(path, sizeof path, "%s/meta/lock.mdb", store->base);
    if (rc == 0 && unlink(path) < 0 && errno != ENOENT)
        rc = -errno;
    if (rc == 0 && suspect) {
        rc = state_verify(store, why, why_room);
        unlink(path);
    }
    return rc;
}

static int state_open(struct store *store, char *why, size_t why_room) {
    int rc = env_open(store, why, why_room);
    if (rc)
        return rc;
    /* The pin comes before the first write transaction, or that would use the state's free pages. */
    if (mdb_txn_begin(store->env, NULL, MDB_RDONLY, &store->pin) != 0 ||
        mdb_txn_id(store->pin) != store->last_checkpoint.txnid) {
        SAY("the database of %s did not open at its checkpoint; run \"baton check\"", store->path);
        return -EIO;
    }
    MDB_txn *txn;
    if (mdb_txn_begin(store->env, NULL, 0, &txn) != 0)
        rc = -EIO;
    if (rc == 0) {
        store->txn = txn;
        rc = table_open_all(store, txn, false);
    }
    if (rc == 0)
        rc = position_load(store);
    if (rc == 0 && (store->position.lsn != store->last_checkpoint.lsn || store->position.first == 0 ||
                    store->position.first > store->position.lsn + 1))
        rc = -EIO;
    if (rc == 0)
        rc = segments_open(&store->segments, store->directory_fd, store->options.segment_blocks);
    if (rc == 0)
        rc = segments_load(store);
    if (store->txn) {
        mdb_txn_commit(store->txn); /* nothing changed; it keeps the table handles */
        store->txn = NULL;
    }
    if (rc == 0)
        rc = tail_open(&store->tail, store->directory_fd, store->options.tail_size);
    if (rc)
        SAY("the store %s cannot be read: %s; run \"baton check\"", store->path, strerror(-rc));
    return rc;
}

/* The checkpoint before the newest one has more tail files behind it: there may be none left for the one to come. */
static int tail_make_room(struct store *store) {
    if (!tail_used_up(&store->tail))
        return 0;
    if (store->tail.count == TAIL_FILES_MAX)
        return -ENOSPC;
    int fd = tail_make_file(&store->tail, store->tail.count);
    if (fd < 0)
        return fd;
    tail_add_file(&store->tail, fd);
    return 0;
}

static int state_replay(struct store *store, char *why, size_t why_room) {
    struct stat st;
    if (fstat(store->meta_fd, &st) == 0)
        store->meta_allocated = (uint64_t)MIN(st.st_size, (off_t)st.st_blocks * 512);
    space_meta_headroom(store);
    space_refresh(store, true);
    int rc = store_begin_txn(store);
    uint64_t before = store->position.lsn;
    store->replaying = true;
    if (rc == 0)
        rc = tail_replay(&store->tail, store->last_checkpoint.tail_seq, store->position.lsn, store->position.chain,
                         replay_one, store);
    store->replaying = false;
    if (rc == 0)
        rc = segments_trim_files(store);
    store->tail.oldest_needed = store->last_checkpoint.tail_seq;
    if (rc == 0)
        rc = tail_make_room(store);
    if (rc == 0)
        rc = incarnation_settle(store);
    if (rc) {
        SAY("recovering the store %s failed after record %llu: %s", store->path,
            (unsigned long long)store->position.lsn, strerror(-rc));
        return rc;
    }
    if (store->position.lsn > before)
        log_info("store %s: recovered records %llu to %llu from the tail", store->path,
                 (unsigned long long)before + 1, (unsigned long long)store->position.lsn);
    store_lock(store);
    store_checkpoint_now(store);
    mdb_txn_abort(store->txn); /* the committer begins its own */
    store->txn = NULL;
    store_unlock(store);
    return 0;
}

static int threads_start(struct store *store) {
    store->threads_running = true;
    if (pthread_create(&store->committer, NULL, store_committer, store) != 0) {
        store->threads_running = false;
        return -EAGAIN;
    }
    if (pthread_create(&store->syncer, NULL, store_syncer, store) != 0)
        store_fail(store, "cannot start a thread");
    store_lock(store);
    while (!store->begun)
        pthread_cond_wait(&store->committed_cond, &store->lock);
    mend_load(store);
    store_unlock(store);
    return 0;
}

/* ---- public ---- */

static int base_find(struct store *store, char *why, size_t why_room) {
    char base[PATH_MAX];
    int rc = generation_current(store->path, base, NULL);
    if (rc) {
        SAY("the store %s cannot be opened: its file \"current\" is not what a full synchronization makes (%s)", store->path,
            strerror(-rc));
        return rc;
    }
    free(store->base);
    store->base = strdup(base);
    return store->base ? 0 : -ENOMEM;
}

/* base NULL: the current generation, under the store's lock. */
static int open_at(const char *path, const char *base, const uint8_t *volume,
                   const struct store_options *options, struct store **out, char *why, size_t why_room) {
    struct store *store = store_new(path, base ? base : path, options);
    if (!store) {
        SAY("out of memory");
        return -ENOMEM;
    }
    store->importing = base != NULL;
    int rc = base ? 0 : lock_take(store, 0, why, why_room);
    if (rc == 0 && !base)
        rc = base_find(store, why, why_room); /* with the lock: nobody changes which one it is */
    if (rc == 0)
        rc = base_open(store, why, why_room);
    if (rc == 0)
        rc = state_restore(store, volume, why, why_room);
    if (rc == 0)
        rc = state_open(store, why, why_room);
    if (rc == 0 && store->importing)
        store->segments.current = 0; /* it may be one that is shared: new blocks go into a new one */
    if (rc == 0)
        rc = state_replay(store, why, why_room);
    if (rc == 0)
        rc = threads_start(store);
    if (rc) {
        store_free(store);
        return rc;
    }
    *out = store;
    return 0;
}

int store_open(const char *path, const uint8_t *volume, const struct store_options *options, struct store **out,
               char *why, size_t why_room) {
    return open_at(path, NULL, volume, options, out, why, why_room);
}

int store_open_generation(const char *path, const char *base, const struct store_options *options, struct store **store,
                          char *why, size_t why_room) {
    return open_at(path, base, NULL, options, store, why, why_room);
}

void store_close(struct store *store) {
    pthread_mutex_lock(&store->sync_lock);
    store->sync_stop = true;
    pthread_cond_broadcast(&store->sync_work);
    pthread_mutex_unlock(&store->sync_lock);
    pthread_join(store->syncer, NULL);
    store_lock(store);
    store->stop = true;
    pthread_cond_broadcast(&store->work);
    store_unlock(store);
    pthread_join(store->committer, NULL);
    store_free(store);
}

static int directory_is_empty(int store_directory_fd) {
    int fd = openat(store_directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        int rc = -errno;
        close_fd(fd);
        return rc;
    }
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = -ENOTEMPTY;
    closedir(directory);
    return rc;
}

static int root_make(struct store *store, int64_t time) {
    struct inode_row root = {.mode = 0040755, .nlink = 2, .data = 1, .parent = 1};
    struct file_time at = {time / 1000000000, (uint32_t)(time % 1000000000)};
    root.atime = root.mtime = root.ctime = root.btime = at;
    struct key key = key_u64(1);
    store->position = (struct position_row){.first = 1, .inodes = 1};
    return table_put_raw(store, TABLE_INODE, &key, &root, sizeof root);
}

static int format_files(struct store *store, char *why, size_t why_room) {
    int rc = 0;
    if (mkdirat(store->directory_fd, "meta", 0700) < 0 || mkdirat(store->directory_fd, "data", 0700) < 0 ||
        mkdirat(store->directory_fd, "tail", 0700) < 0)
        rc = -errno;
    if (rc == 0)
        rc = tail_format(store->directory_fd, store->options.tail_size);
    if (rc == 0) {
        store->checkpoint_fd = openat(store->directory_fd, "checkpoint", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        rc = store->checkpoint_fd < 0 ? -errno : 0;
    }
    if (rc) {
        SAY("cannot make the store %s: %s", store->path, strerror(-rc));
        return rc;
    }
    return env_open(store, why, why_room);
}

static int format_at(struct store *store, const uint8_t volume[STORE_ID_SIZE], const char *name, int64_t time, char *why,
                     size_t why_room) {
    int rc = format_files(store, why, why_room);
    if (rc)
        return rc;
    memcpy(store->last_checkpoint.volume, volume, STORE_ID_SIZE);
    snprintf(store->last_checkpoint.name, sizeof store->last_checkpoint.name, "%s", name);
    store->last_checkpoint.segment_blocks = store->options.segment_blocks;
    store->last_checkpoint.tail_size = store->options.tail_size;
    rc = random_id(store->last_checkpoint.incarnation);
    if (rc == 0)
        rc = segments_open(&store->segments, store->directory_fd, store->options.segment_blocks);
    if (rc == 0)
        rc = tail_open(&store->tail, store->directory_fd, store->options.tail_size);
    struct stat st;
    if (rc == 0 && fstat(store->directory_fd, &st) == 0) {
        boot_read(store->boot);
        memcpy(store->incarnation, store->last_checkpoint.incarnation, STORE_ID_SIZE);
        store->last_checkpoint.device = st.st_dev;
        store->last_checkpoint.directory = st.st_ino;
        mark_open(&store->mark, &st, store->incarnation, 0); /* without it the first open draws a new incarnation */
    }
    rc = rc ? rc : space_meta_headroom(store);
    rc = rc ? rc : store_begin_txn(store);
    rc = rc ? rc : table_open_all(store, store->txn, true);
    rc = rc ? rc : root_make(store, time);
    if (rc) {
        SAY("cannot make the store %s: %s", store->base, strerror(-rc));
        return rc;
    }
    store_lock(store);
    store_checkpoint_now(store);
    store_checkpoint_now(store); /* both slots are good from the start */
    mdb_txn_abort(store->txn);
    store->txn = NULL;
    store_unlock(store);
    static const char *const folders[] = {"/tail", "/meta", "", "/.."};
    for (unsigned i = 0; rc == 0 && i < sizeof folders / sizeof *folders; i++) {
        char folder[PATH_MAX + 8];
        snprintf(folder, sizeof folder, "%s%s", store->base, folders[i]);
        rc = fsync_dir(folder);
    }
    if (rc)
        SAY("cannot make the store %s durable: %s", store->base, strerror(-rc));
    return rc;
}

int store_format(const char *path, const uint8_t volume[STORE_ID_SIZE], const char *name, int64_t time,
                 const struct store_options *options, char *why, size_t why_room) {
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        int rc = -errno;
        SAY("cannot make the folder %s: %s", path, strerror(-rc));
        return rc;
    }
    struct store *store = store_new(path, path, options);
    if (!store)
        return -ENOMEM;
    int rc = base_open(store, why, why_room);
    if (rc == 0) {
        rc = directory_is_empty(store->directory_fd);
        if (rc)
            SAY("%s cannot become a store: %s", path,
                rc == -ENOTEMPTY ? "it is not empty; give an empty or new folder" : strerror(-rc));
    }
    if (rc == 0)
        rc = lock_take(store, O_CREAT, why, why_room);
    if (rc == 0)
        rc = format_at(store, volume, name, time, why, why_room);
    store_free(store);
    return rc;
}

int store_format_generation(const char *path, const char *base, const uint8_t volume[STORE_ID_SIZE], const char *name,
                            const struct store_options *options, char *why, size_t why_room) {
    struct store *store = store_new(path, base, options);
    if (!store)
        return -ENOMEM;
    int rc = base_open(store, why, why_room);
    if (rc == 0)
        rc = format_at(store, volume, name, 0, why, why_room);
    store_free(store);
    return rc;
}
