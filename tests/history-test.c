/* The past of a store (fs/history.h): its blocks stay while it is open, however short the history; it yields when the
 * journal exceeds its limit; a full disk ends it and nothing else; times find their record; and it shows the tables of then to the bit while other threads
 * change the store. */
#include "fs/history_internal.h"
#include "tests/churn.h"
#include "tests/disk-fault.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#define SIZE (300u * 1024)

static char why[400];
static uint8_t bytes[SIZE], seen[SIZE];

static uint64_t last_lsn(struct store *store) {
    struct position position;
    store_position(store, &position);
    return position.lsn;
}

static void fill(struct store *store, uint64_t ino, int value) {
    uint64_t lsn;
    memset(bytes, value, sizeof bytes);
    is_int(0, op_write(store, ino, bytes, sizeof bytes, 0, 0, &lsn), "%u bytes are written", SIZE);
}

static struct store *open_at(struct store *store, uint64_t lsn) {
    struct store *past = NULL;
    why[0] = '\0';
    is_int(0, history_open(store, lsn, NULL, NULL, NULL, &past, why, sizeof why), "the past at %llu opens (%s)",
           (unsigned long long)lsn, why);
    if (!past)
        bail("no past");
    return past;
}

static void reads(struct store *past, uint64_t ino, int value, const char *what) {
    memset(bytes, value, sizeof bytes);
    memset(seen, 0, sizeof seen);
    is_int(SIZE, op_read(past, ino, seen, sizeof seen, 0), "%s is read", what);
    is_blob(bytes, seen, SIZE, "%s is what it was", what);
}

/* No history is wanted, so that every checkpoint trims and punches what is not held. */
static void held(void) {
    struct attributes found;
    struct position position;
    struct store_space space;
    uint64_t lsn, ino, gone;
    uint32_t left;

    fixture_options.no_history = true;
    struct store *store = fixture_store("held", 1);
    ino = make(store, ROOT_INO, "file", S_IFREG | 0640);
    fill(store, ino, 'z');
    fill(store, ino, 'a'); /* what is replaced here is not of that past */
    uint64_t then = last_lsn(store);
    struct store *past = open_at(store, then);
    is_int(0, op_lookup(past, ROOT_INO, "file", &found), "it is looked at once");
    fill(store, ino, 'b');
    is_int(0, op_truncate(store, ino, 0, false, &lsn), "truncated");
    is_int(0, op_unlink(store, ROOT_INO, "file", &gone, &left, &lsn), "unlinked");
    is_int(0, op_reclaim(store, &ino, 1), "reclaimed");
    while (op_reclaim_some(store) == 1)
        ;
    for (int i = 0; i < 4; i++) {
        make(store, ROOT_INO, (char[]){'n', (char)('0' + i), 0}, S_IFREG | 0600);
        store_checkpoint(store);
    }
    store_position(store, &position);
    is_int(0, store_space(store, &space), "space");
    is_int(0, (int64_t)space.dead, "blocks of before are free: no reading transaction is open while nobody looks");
    is_int((int64_t)then + 1, (int64_t)position.first, "the journal is trimmed up to the past and no further");
    is_int(0, op_lookup(past, ROOT_INO, "file", &found), "the past has the name");
    is_int(-ENOENT, op_lookup(past, ROOT_INO, "n0", &found), "... and none that came later");
    is_int(-ENOENT, op_lookup(store, ROOT_INO, "file", &found), "the store does not");
    reads(past, ino, 'a', "the file of then");
    history_close(past);
    for (int i = 4; i < 8; i++) {
        make(store, ROOT_INO, (char[]){'n', (char)('0' + i), 0}, S_IFREG | 0600);
        store_checkpoint(store);
    }
    store_position(store, &position);
    ok(position.first > then + 1, "afterwards the journal is trimmed");
    is_int(-ENOENT, history_open(store, then, NULL, NULL, NULL, &past, why, sizeof why), "and that past is over");
    ok(strstr(why, "reaches back to record") != NULL, "... with a sentence: %s", why);
    is_int(-ENOENT, history_open(store, position.lsn + 1, NULL, NULL, NULL, &past, why, sizeof why),
           "none of the future");
    ok(strstr(why, "the last one is") != NULL, "... with a sentence: %s", why);
    store_close(store);
    fixture_options.no_history = false;
}

static void yields(void) {
    struct attributes found;

    fixture_options.no_history = true;
    fixture_options.limit_bytes = 1u << 20;
    struct store *store = fixture_store("yields", 1);
    uint64_t ino = make(store, ROOT_INO, "file", S_IFREG | 0640);
    fill(store, ino, 'a');
    struct store *past = open_at(store, last_lsn(store));
    is_int(0, op_getattr(past, ino, &found), "it shows the file");
    for (int i = 0; i < 8; i++)
        fill(store, ino, 'b' + i);
    for (int i = 0; i < 3; i++)
        store_checkpoint(store);
    ok(op_getattr(past, ino, &found) < 0, "beyond the limit the journal is trimmed all the same, and the past is over");
    why[0] = '\0';
    is_int(-ENOENT, history_error(past, why, sizeof why), "it says so");
    ok(strstr(why, "given up") != NULL, "... with a sentence: %s", why);
    ok(op_read(past, ino, seen, sizeof seen, 0) < 0, "and gives no data");
    history_close(past);
    store_close(store);
    fixture_options.no_history = false;
    fixture_options.limit_bytes = 0;
}

static void fill_some(struct store *store, uint64_t ino, int times) {
    for (int i = 0; i < times; i++)
        fill(store, ino, 'b' + i);
    for (int i = 0; i < 3; i++)
        store_checkpoint(store);
}

static void keeps_a_quarter_more(void) {
    struct attributes found;
    struct store_journal journal, before;

    fixture_options.no_history = true;
    fixture_options.limit_bytes = 1u << 20;
    struct store *store = fixture_store("keeps", 1);
    uint64_t ino = make(store, ROOT_INO, "file", S_IFREG | 0640);
    fill(store, ino, 'a');
    struct store *past = open_at(store, last_lsn(store));
    history_keep(past);
    store_journal(store, &before);
    fill_some(store, ino, 4);
    store_journal(store, &journal);
    ok(journal.bytes > journal.limit && journal.limit == 1u << 20, "the journal is beyond its limit: %llu bytes",
       (unsigned long long)journal.bytes);
    ok(journal.made - before.made >= 4 * SIZE && journal.made - before.made < 5 * SIZE, "what it has got is counted");
    is_int(0, op_getattr(past, ino, &found), "for a past that others rely on it is kept a quarter longer");
    reads(past, ino, 'a', "the file of then");
    fill_some(store, ino, 2);
    ok(op_getattr(past, ino, &found) < 0, "but no longer");
    is_int(-ENOENT, history_error(past, why, sizeof why), "it says so: %s", why);
    history_close(past);
    store_journal(store, &journal);
    ok(journal.bytes <= journal.limit, "the journal is within its limit: %llu bytes", (unsigned long long)journal.bytes);
    store_close(store);
    fixture_options.no_history = false;
    fixture_options.limit_bytes = 0;
}

/* The overlay's file has no name any more, so it shows as "…/history-XXXXXX (deleted)". */
static int overlay_is_full(enum disk_call call, const char *path, size_t length) {
    (void)length;
    return call == DISK_WRITE && strstr(path, "/history-") ? ENOSPC : 0;
}

static void full_disk(void) {
    struct attributes found;
    struct store *store = fixture_store("full", 1), *past = NULL;
    char name[32];

    uint64_t ino = make(store, ROOT_INO, "file", S_IFREG | 0640);
    uint64_t then = last_lsn(store);
    for (int i = 0; i < 4000; i++) {
        snprintf(name, sizeof name, "name-%d", i);
        make(store, ROOT_INO, name, S_IFREG | 0600);
    }
    disk_fault_set(overlay_is_full);
    is_int(-ENOSPC, history_open(store, then, NULL, NULL, NULL, &past, why, sizeof why), "no room for the overlay");
    ok(strstr(why, "No space left") != NULL, "... is told: %s", why);
    disk_fault_set(NULL);
    past = open_at(store, then);
    disk_fault_set(overlay_is_full);
    for (int i = 0; i < 4000; i++) {
        snprintf(name, sizeof name, "other-%d", i);
        make(store, ROOT_INO, name, S_IFREG | 0600);
    }
    store_checkpoint(store);
    ok(op_getattr(past, ino, &found) < 0, "likewise when it fills up later");
    is_int(-ENOSPC, history_error(past, why, sizeof why), "... which is told: %s", why);
    disk_fault_set(NULL);
    ok(op_getattr(past, ino, &found) < 0, "that past stays over");
    history_close(past);
    fill(store, ino, 'c');
    reads(store, ino, 'c', "the store's file");
    past = open_at(store, then);
    is_int(-ENOENT, op_lookup(past, ROOT_INO, "name-0", &found), "another one is as it should be");
    history_close(past);
    store_close(store);
}

static void times(void) {
    struct store *store = fixture_store("times", 1);
    uint64_t lsn, lsns[20];
    int64_t at[20];

    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", i);
        struct file_time time = row_of(store, make(store, ROOT_INO, name, S_IFREG | 0600)).ctime;
        at[i] = time.seconds * 1000000000 + time.nanoseconds;
        lsns[i] = last_lsn(store);
    }
    for (int i = 0; i < 20; i++) {
        is_int(0, history_find(store, at[i], &lsn, why, sizeof why), "the time of a record");
        is_int((int64_t)lsns[i], (int64_t)lsn, "... finds it");
        is_int(0, history_find(store, at[i] - 1, &lsn, why, sizeof why), "a moment before");
        ok(lsn < lsns[i], "... it was not there");
    }
    is_int(0, history_find(store, INT64_MAX, &lsn, why, sizeof why), "the end of time");
    is_int((int64_t)lsns[19], (int64_t)lsn, "... finds the last one");
    is_int(-ENOENT, history_find(store, 1600000000ll * 1000000000, &lsn, why, sizeof why),
           "before the volume was made");
    ok(strstr(why, "reaches back to 20") != NULL, "... with a sentence: %s", why);
    store_close(store);
}

/* ---- while others change it ---- */

static struct {
    struct store *store;
    uint64_t directories[2];
    atomic_bool stop;
    pthread_mutex_t mutex; /* held over one change */
    uint64_t seed;
    atomic_uint changes;
} busy = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *change(void *unused) {
    (void)unused;
    while (!atomic_load(&busy.stop)) {
        pthread_mutex_lock(&busy.mutex);
        int error = churn(busy.store, busy.directories, &busy.seed);
        if (error)
            bail("churn: %s", strerror(-error));
        if (atomic_fetch_add(&busy.changes, 1) % 64 == 0)
            op_reclaim_some(busy.store);
        pthread_mutex_unlock(&busy.mutex);
    }
    return NULL;
}

static void wait_changes(unsigned count) {
    for (unsigned until = atomic_load(&busy.changes) + count; atomic_load(&busy.changes) < until;)
        usleep(1000);
}

static void while_busy(void) {
    unsigned wrong = 0, looks = 0;
    pthread_t thread;

    busy.store = fixture_store("busy", 1);
    busy.seed = test_seed();
    churn_prepare(&busy.seed);
    busy.directories[0] = make(busy.store, ROOT_INO, "one", S_IFDIR | 0755);
    busy.directories[1] = make(busy.store, ROOT_INO, "two", S_IFDIR | 0755);
    if (pthread_create(&thread, NULL, change, NULL) != 0)
        bail("no thread");
    for (int round = 0; round < 15; round++) {
        wait_changes(500);
        pthread_mutex_lock(&busy.mutex);
        uint64_t lsn = last_lsn(busy.store);
        struct tables *then = tables_take(busy.store, TABLES_EXACT);
        pthread_mutex_unlock(&busy.mutex);
        struct store *past = NULL;
        if (history_open(busy.store, lsn, NULL, NULL, NULL, &past, why, sizeof why) != 0)
            bail("history_open: %s", why);
        for (int look = 0; look < 4; look++, looks++) {
            struct tables *tables = tables_take(past, TABLES_EXACT);
            if (!tables_equal(then, tables, why, sizeof why) && wrong++ < 5)
                diag("LSN %llu: %s", (unsigned long long)lsn, why);
            tables_free(tables);
            wait_changes(200);
        }
        history_close(past);
        tables_free(then);
    }
    atomic_store(&busy.stop, true);
    pthread_join(thread, NULL);
    is_int(0, wrong, "%u looks at 15 pasts while the store was changed: all rows as they were then", looks);
    store_close(busy.store);
}

/* ---- A look that does not catch up ------------------------------------------------------------------------------------ */

static struct {
    struct store *store; /* NULL: nothing is done */
    uint64_t ino;
    unsigned laps, stop_at;
} faster;

int __real_store_snapshot(struct store *store, struct snapshot **snapshot);
int __wrap_store_snapshot(struct store *store, struct snapshot **snapshot);

/* Before each step there is more than a step's worth of new records. */
int __wrap_store_snapshot(struct store *store, struct snapshot **snapshot) {
    if (store == faster.store) {
        struct store *base = store;
        uint64_t lsn;
        if (++faster.laps > 2000)
            bail("it goes on without an end");
        if (faster.laps == faster.stop_at)
            history_end_all(base, true);
        for (uint32_t i = 0; i <= history_step; i++)
            if (op_write(base, faster.ino, "x", 1, i, 0, &lsn))
                bail("a write fails");
        if (store_checkpoint(base))
            bail("no checkpoint");
    }
    return __real_store_snapshot(store, snapshot);
}

static void records_come_faster(void) {
    struct store *store = fixture_store("faster", 1);
    struct attributes found;
    history_step = 8;
    faster.ino = make(store, ROOT_INO, "file", S_IFREG | 0600);
    struct store *past = open_at(store, last_lsn(store));
    faster.store = store;
    is_int(-EBUSY, op_lookup(past, ROOT_INO, "file", &found), "a look that cannot catch up ends");
    is_int(-EBUSY, history_error(past, why, sizeof why), "for good: %s", why);
    history_close(past);
    diag("%u steps", faster.laps);

    faster.store = NULL;
    past = open_at(store, last_lsn(store));
    faster.store = store;
    faster.laps = 0;
    faster.stop_at = 5;
    is_int(-ECANCELED, op_lookup(past, ROOT_INO, "file", &found), "and one of a store that is about to be closed");
    is_int(5, faster.laps, "at once");
    history_close(past);
    faster.store = NULL;
    struct store *none = NULL;
    is_int(-ECANCELED, history_open(store, last_lsn(store), NULL, NULL, NULL, &none, why, sizeof why), "nor is a past opened: %s",
           why);
    history_end_all(store, false);
    past = open_at(store, last_lsn(store));
    is_int(0, op_lookup(past, ROOT_INO, "file", &found), "but when the store goes on");
    history_close(past);
    store_close(store);
    history_step = 8192;
}

int main(void) {
    plan_lazy();
    held();
    yields();
    keeps_a_quarter_more();
    full_disk();
    times();
    while_busy();
    records_come_faster();
    return 0;
}
