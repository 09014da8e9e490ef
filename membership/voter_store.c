#include "membership/voter_store.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define MAP_SIZE (64u << 20) /* thousands of volumes */
#define STATE_FORMAT 1u
#define PROBE_SECONDS 30u
#define REHEARSALS 32u /* commits: more than there are lists of free pages */
#define STATE_BYTES (64u + 2 * REGISTER_BYTES)
static const char place_name[] = "place"; /* no volume's id has five bytes */

struct voter_store {
    MDB_env *env;
    MDB_dbi dbi;
    int directory_fd; /* holds the lock */
};

struct state_head {
    uint32_t format;
    uint16_t value_length, known_length;
    uint8_t id[16];
    uint64_t promised, accepted; /* counters */
    uint16_t promised_node, accepted_node;
    uint32_t lease_ms;
    uint64_t check; /* XXH3-64 of all, with this field zero */
} __attribute__((packed));

/* LMDB's own codes are negative, too, and say more than an errno would. */
static int error_of(int rc) {
    return rc == 0 ? 0 : rc > 0 ? -rc : rc == MDB_NOTFOUND ? -ENOENT : rc == MDB_MAP_FULL ? -ENOSPC : -EIO;
}

static uint64_t check_of(const uint8_t *bytes, size_t length) {
    uint8_t copy[STATE_BYTES];
    memcpy(copy, bytes, length);
    memset(copy + offsetof(struct state_head, check), 0, sizeof(uint64_t));
    return XXH3_64bits(copy, length);
}

static size_t encode(const struct voter_state *state, uint8_t bytes[STATE_BYTES]) {
    _Static_assert(sizeof(struct state_head) <= 64, "a state fits");
    struct state_head head = {.format = STATE_FORMAT, .promised = state->promised.counter, .accepted = state->accepted.counter,
                              .promised_node = state->promised.node, .accepted_node = state->accepted.node,
                              .lease_ms = state->lease_ms};
    memcpy(head.id, state->id, sizeof head.id);
    uint8_t *at = bytes + sizeof head;
    head.value_length = (uint16_t)register_encode(&state->value, at);
    head.known_length = (uint16_t)register_encode(&state->known, at + head.value_length);
    size_t length = sizeof head + head.value_length + head.known_length;
    memcpy(bytes, &head, sizeof head);
    head.check = check_of(bytes, length);
    memcpy(bytes, &head, sizeof head);
    return length;
}

static int decode(const uint8_t *bytes, size_t length, struct voter_state *state) {
    struct state_head head;
    memset(state, 0, sizeof *state);
    if (length < sizeof head || length > STATE_BYTES)
        return -EBADMSG;
    memcpy(&head, bytes, sizeof head);
    if (head.format != STATE_FORMAT || length != sizeof head + head.value_length + head.known_length ||
        head.check != check_of(bytes, length))
        return -EBADMSG;
    memcpy(state->id, head.id, sizeof state->id);
    state->promised = (struct ballot){head.promised, head.promised_node};
    state->accepted = (struct ballot){head.accepted, head.accepted_node};
    state->lease_ms = head.lease_ms;
    int rc = register_decode(bytes + sizeof head, head.value_length, &state->value);
    return rc ? rc : register_decode(bytes + sizeof head + head.value_length, head.known_length, &state->known);
}

static int environment_open(struct voter_store *store);

/* After a write that failed LMDB may refuse to go on with this environment, and what the page cache holds of it need not be on
 * the disk. So it is opened anew: what counts is what the meta pages name, and the next commit writes all that it names. */
static int usable(struct voter_store *store) {
    return store->env ? 0 : environment_open(store);
}

static int spoilt(struct voter_store *store, int rc) {
    mdb_env_close(store->env);
    store->env = NULL;
    return error_of(rc);
}

static int commit(struct voter_store *store, MDB_txn *txn, int rc) {
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = mdb_txn_commit(txn);
    return rc ? spoilt(store, rc) : 0;
}

static int begin(struct voter_store *store, unsigned flags, MDB_txn **txn) {
    int rc = usable(store);
    if (rc)
        return rc;
    rc = mdb_txn_begin(store->env, NULL, flags, txn);
    return rc ? spoilt(store, rc) : 0;
}

static int put_in(struct voter_store *store, MDB_txn *txn, const void *key, size_t key_length, const void *bytes, size_t length) {
    MDB_val name = {key_length, (void *)(uintptr_t)key}, value = {length, (void *)(uintptr_t)bytes};
    return mdb_put(txn, store->dbi, &name, &value, 0);
}

static int put(struct voter_store *store, const void *key, size_t key_length, const void *bytes, size_t length) {
    MDB_txn *txn;
    int rc = begin(store, 0, &txn);
    return rc ? rc : commit(store, txn, put_in(store, txn, key, key_length, bytes, length));
}

/* The length, -ENOENT, or another error. */
static int64_t get(struct voter_store *store, const void *key, size_t key_length, void *bytes, size_t room) {
    MDB_txn *txn;
    MDB_val name = {key_length, (void *)(uintptr_t)key}, value;
    int rc = begin(store, MDB_RDONLY, &txn);
    if (rc)
        return rc;
    rc = mdb_get(txn, store->dbi, &name, &value);
    if (rc == 0)
        memcpy(bytes, value.mv_data, MIN(value.mv_size, room));
    int64_t length = rc == 0 ? (int64_t)value.mv_size : error_of(rc);
    mdb_txn_abort(txn);
    return length;
}

/* The states of a copy go: whoever they were, this is somebody else. */
static int forget_all(struct voter_store *store) {
    MDB_txn *txn;
    int rc = begin(store, 0, &txn);
    return rc ? rc : commit(store, txn, mdb_drop(txn, store->dbi, 0));
}

static int look_at_place(struct voter_store *store, const char *directory) {
    struct stat st;
    uint64_t noted, place;
    if (fstat(store->directory_fd, &st) < 0)
        return -errno;
    place = st.st_ino;
    int64_t length = get(store, place_name, sizeof place_name - 1, &noted, sizeof noted);
    if (length == sizeof noted && noted == place)
        return 0;
    if (length < 0 && length != -ENOENT)
        return (int)length;
    if (length >= 0) {
        log_warning("%s is a copy: its voters count as new ones, and have to be let in again", directory);
        int rc = forget_all(store);
        if (rc)
            return rc;
    }
    return put(store, place_name, sizeof place_name - 1, &place, sizeof place);
}

/* By its descriptor, so that it stays the one whose lock is held, wherever it is moved. */
static int environment_open(struct voter_store *store) {
    char path[64];
    MDB_txn *txn;
    snprintf(path, sizeof path, "/proc/self/fd/%d", store->directory_fd);
    int rc = mdb_env_create(&store->env);
    if (rc)
        return error_of(rc);
    rc = mdb_env_set_mapsize(store->env, MAP_SIZE);
    if (rc == 0)
        rc = mdb_env_open(store->env, path, MDB_NOTLS, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (rc)
        return spoilt(store, rc);
    return commit(store, txn, mdb_dbi_open(txn, NULL, 0, &store->dbi));
}

/* ---- Damage: liblmdb dies of it, so a child process looks first ---- */

static bool walk(MDB_txn *txn, MDB_dbi dbi, uint64_t last_page) {
    MDB_cursor *cursor;
    MDB_val key, value;
    volatile uint8_t sum = 0;
    if (mdb_cursor_open(txn, dbi, &cursor))
        return false;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        for (size_t i = 0; i < value.mv_size; i++)
            sum = (uint8_t)(sum + ((const uint8_t *)value.mv_data)[i]);
        for (size_t i = 0; dbi == 0 && i + 8 <= value.mv_size; i += 8) { /* of free pages: their count, and they */
            uint64_t page;
            memcpy(&page, (const uint8_t *)value.mv_data + i, sizeof page);
            if (i ? page < 2 || page > last_page : page != value.mv_size / 8 - 1)
                return false;
        }
    }
    return rc == MDB_NOTFOUND;
}

static bool reads_well(int directory_fd) {
    char path[64];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_envinfo info;
    snprintf(path, sizeof path, "/proc/self/fd/%d", directory_fd);
    return mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, MAP_SIZE) == 0 &&
           mdb_env_open(env, path, MDB_RDONLY | MDB_NOLOCK, 0600) == 0 && mdb_env_info(env, &info) == 0 &&
           mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &dbi) == 0 &&
           walk(txn, dbi, info.me_last_pgno) && walk(txn, 0, info.me_last_pgno);
}

/* Every row written again as it is. */
static bool rewrite(MDB_txn *txn, MDB_dbi dbi) {
    uint8_t bytes[STATE_BYTES];
    MDB_cursor *cursor;
    MDB_val key, value;
    if (mdb_cursor_open(txn, dbi, &cursor))
        return false;
    int rc;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (value.mv_size > sizeof bytes)
            return false;
        memcpy(bytes, value.mv_data, value.mv_size);
        value.mv_data = bytes;
        if (mdb_cursor_put(cursor, &key, &value, MDB_CURRENT))
            return false;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND;
}

/* liblmdb's asserts about free pages are met in commits: so these are rehearsed, in a copy in memory. */
static bool writes_well(int copy_fd) {
    char path[64];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    snprintf(path, sizeof path, "/proc/self/fd/%d", copy_fd);
    bool well = mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, MAP_SIZE) == 0 &&
                mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0600) == 0;
    for (unsigned i = 0; well && i < REHEARSALS; i++)
        well = mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &dbi) == 0 && rewrite(txn, dbi) &&
               mdb_txn_commit(txn) == 0;
    return well;
}

static int copy_in_memory(int directory_fd) {
    char bytes[64 << 10];
    ssize_t length;
    int from = openat(directory_fd, "data.mdb", O_RDONLY | O_CLOEXEC), to = memfd_create("voters", MFD_CLOEXEC);
    while (from >= 0 && to >= 0 && (length = read(from, bytes, sizeof bytes)) > 0)
        if (write(to, bytes, (size_t)length) != length)
            return -1;
    return from >= 0 && to >= 0 && length == 0 ? to : -1;
}

enum { PROBE_WELL, PROBE_DAMAGED, PROBE_UNKNOWN };

static int probe(int directory_fd) {
    if (!reads_well(directory_fd))
        return PROBE_DAMAGED;
    int copy_fd = copy_in_memory(directory_fd);
    return copy_fd < 0 ? PROBE_UNKNOWN : writes_well(copy_fd) ? PROBE_WELL : PROBE_DAMAGED;
}

/* Damaged is what liblmdb refuses, or dies of. That the probe had no memory or no time says nothing about the file, which nobody is
 * to be told to remove for that. */
static int verdict_of(int how) {
    if (WIFEXITED(how) && WEXITSTATUS(how) != PROBE_UNKNOWN)
        return WEXITSTATUS(how) == PROBE_WELL ? 0 : -EBADMSG;
    if (WIFEXITED(how))
        return -ENOMEM;
    return WTERMSIG(how) == SIGKILL ? -ENOMEM : WTERMSIG(how) == SIGALRM ? -ETIMEDOUT : -EBADMSG;
}

static int look_for_damage(int directory_fd) {
    struct stat status;
    int how;
    if (fstatat(directory_fd, "data.mdb", &status, 0) < 0 || status.st_size == 0)
        return errno == ENOENT || status.st_size == 0 ? 0 : -errno;
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        for (int number = 1; number < NSIG; number++)
            signal(number, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        alarm(PROBE_SECONDS);
        _exit(probe(directory_fd));
    }
    while (waitpid(child, &how, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return verdict_of(how);
}

int voter_store_open(const char *directory, struct voter_store **out, char *why, size_t why_room) {
    struct voter_store *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    store->directory_fd = -1;
    int rc = mkdir(directory, 0700) < 0 && errno != EEXIST ? -errno : 0;
    if (rc == 0 && (store->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = -errno;
    if (rc == 0 && flock(store->directory_fd, LOCK_EX | LOCK_NB) < 0)
        rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (rc == 0)
        rc = look_for_damage(store->directory_fd);
    if (rc == 0)
        rc = environment_open(store);
    if (rc == 0)
        rc = look_at_place(store, directory);
    if (rc == 0 && fsync(store->directory_fd) < 0)
        rc = -errno;
    if (rc) {
        snprintf(why, why_room, rc == -EBUSY     ? "the voters' state in %s is in use by another process"
                                : rc == -EBADMSG ? "the voters' state in %s is damaged; remove it: they are other voters then, and "
                                                   "vote when \"baton voters replace\" has let them in"
                                                 : "the voters' state in %s cannot be opened: %s", directory, strerror(-rc));
        voter_store_close(store);
        return rc;
    }
    *out = store;
    return 0;
}

void voter_store_close(struct voter_store *store) {
    if (store->env)
        mdb_env_close(store->env);
    if (store->directory_fd >= 0)
        close(store->directory_fd);
    free(store);
}

int voter_store_load(struct voter_store *store, const uint8_t volume[16], struct voter_state *state, char *why, size_t why_room) {
    uint8_t bytes[STATE_BYTES];
    int64_t length = get(store, volume, 16, bytes, sizeof bytes);
    int rc = 0;
    if (length == -ENOENT) {
        memset(state, 0, sizeof *state);
        if (getrandom(state->id, sizeof state->id, 0) != sizeof state->id)
            rc = -EIO;
    } else {
        rc = length < 0 ? (int)length : (size_t)length > sizeof bytes ? -EBADMSG : decode(bytes, (size_t)length, state);
    }
    /* Also what is there: a process that was killed while it flushed this may have left it in the page cache alone. */
    if (rc == 0)
        rc = voter_store_save(store, volume, state);
    if (rc)
        snprintf(why, why_room, rc == -EBADMSG ? "what this voter has promised is damaged: it has to be made anew, and let in again"
                                                   : "what this voter has promised cannot be read or written: %s", strerror(-rc));
    return rc;
}

int voter_store_save(struct voter_store *store, const uint8_t volume[16], const struct voter_state *state) {
    uint8_t bytes[STATE_BYTES];
    return put(store, volume, 16, bytes, encode(state, bytes));
}

int voter_store_save_all(struct voter_store *store, const struct voter_store_row *rows, unsigned count) {
    uint8_t bytes[STATE_BYTES];
    MDB_txn *txn;
    int rc = begin(store, 0, &txn);
    if (rc)
        return rc;
    for (unsigned i = 0; rc == 0 && i < count; i++)
        rc = put_in(store, txn, rows[i].volume, 16, bytes, encode(&rows[i].state, bytes));
    return commit(store, txn, rc);
}

int voter_store_forget(struct voter_store *store, const uint8_t volume[16]) {
    MDB_txn *txn;
    MDB_val name = {16, (void *)(uintptr_t)volume};
    int rc = begin(store, 0, &txn);
    if (rc)
        return rc;
    rc = mdb_del(txn, store->dbi, &name, NULL);
    if (rc == MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return 0;
    }
    return commit(store, txn, rc);
}
