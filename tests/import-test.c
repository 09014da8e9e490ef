/* Building a store anew from another one's rows (fs/import.h): it says what the other one said at that LSN, whatever the
 * old store had; what the old store has is taken over without copying and not hurt; killed at any moment, it goes on. */
#include "fs/generation.h"
#include "fs/history.h"
#include "fs/import_internal.h"
#include "fs/check.h"
#include "tests/churn.h"
#include "tests/disk-fault.h"
#include "tests/importing.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define WANTS 64u

static char why[600];

static struct import *open_import(struct store *old) {
    struct import *import;
    if (import_open(old, &import, why, sizeof why) != 0)
        bail("import_open: %s", why);
    return import;
}

/* Replaces the old store; the new one, open. */
static const struct key none = {0};
static const char *aside; /* the next old store is kept as that */
static struct store *replace(struct import *import, struct store *old, const char *name) {
    import_close(import);
    char path[512];
    snprintf(path, sizeof path, "%s", store_path(old));
    store_close(old);
    is_int(0, import_switch(path, aside), "the new store takes the old one's place");
    PROMISE(generation_sweep(path, true) == 0);
    return fixture_open(name);
}

static void is_then(struct store *store, const struct source *source, const char *what) {
    struct position position;
    struct tables *now = tables_take(store, TABLES_LOGICAL);
    store_position(store, &position);
    if (!ok(tables_equal(source->then, now, why, sizeof why), "%s: the tables are those of then", what))
        diag("%s", why);
    tables_free(now);
    is_int((int64_t)source->state.lsn, (int64_t)position.lsn, "%s: at its LSN", what);
    is_blob(source->state.chain, position.chain, CHAIN_SIZE, "%s: with its chain", what);
    is_int((int64_t)source->state.lsn + 1, (int64_t)position.first, "%s: the journal begins behind it", what);
}

static void is_in_order(struct store *store, const char *what) {
    char path[512];
    snprintf(path, sizeof path, "%s", store_path(store));
    store_close(store);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "%s: check finds nothing", what);
}

/* ---- Content ---- */

struct working {
    struct store *store;
    atomic_bool stop;
    pthread_t thread;
};
static void *work_on(void *context) {
    struct working *working = context;
    while (!atomic_load(&working->stop))
        work(working->store, 10);
    return NULL;
}

/* ---- Tests ---- */

static void empty_and_under_load(void) {
    struct store *provider = busy_store("empty-provider"), *old = fixture_store("empty", 0);
    work(provider, 3000);
    struct source source = source_at_end(provider);
    struct working working = {.store = provider};
    PROMISE(pthread_create(&working.thread, NULL, work_on, &working) == 0);
    struct import *import = open_import(old);
    is_int(0, import_begin(import, &source.state), "an import begins");
    is_int(0, import_all(import, &source), "all is fetched while the provider goes on");
    atomic_store(&working.stop, true);
    pthread_join(working.thread, NULL);
    struct import_progress progress = import_progress(import);
    ok(progress.reused == 0 && progress.fetched > 100 && progress.wanted == 0 && progress.rows > 100,
       "%llu rows, %llu blocks fetched", (unsigned long long)progress.rows, (unsigned long long)progress.fetched);
    struct store *new = replace(import, old, "empty");
    is_then(new, &source, "an empty store");
    ok(fixture_feed(provider, new), "it takes what came after");
    fixture_same(provider, new, "then both are equal");
    is_in_order(new, "an empty store");
    source_done(&source);
    is_in_order(provider, "its provider");
}

static uint64_t bytes_in(const char *path) {
    char command[700];
    unsigned long long bytes = 0;
    snprintf(command, sizeof command, "du -s -B1 %s", path);
    FILE *du = popen(command, "r");
    PROMISE(du && fscanf(du, "%llu", &bytes) == 1);
    pclose(du);
    return bytes;
}

static void reuse(void) {
    struct store *provider = busy_store("reuse-provider"), *old = fixture_store("reuse", 0);
    work(provider, 3000);
    PROMISE(fixture_feed(provider, old));
    struct tables *before = tables_take(old, TABLES_EXACT);
    work(provider, 600);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0);
    is_int(0, import_all(import, &source), "a store that lacks a little is built anew");
    struct import_progress progress = import_progress(import);
    ok(progress.reused > progress.fetched, "%llu blocks taken over, %llu fetched", (unsigned long long)progress.reused,
       (unsigned long long)progress.fetched);
    struct tables *after = tables_take(old, TABLES_EXACT);
    ok(tables_equal(before, after, why, sizeof why), "the old store is what it was");
    tables_free(after);
    /* … and so it stays if the new one is given up. */
    is_int(0, import_discard(import), "given up");
    is_in_order(old, "the old store");
    old = fixture_open("reuse");

    import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && import_all(import, &source) == 0);
    struct store *new = replace(import, old, "reuse");
    is_then(new, &source, "the new store");
    for (int i = 0; i < 5; i++)
        store_checkpoint(new);
    uint64_t mine = bytes_in(store_path(new)), theirs = bytes_in(store_path(provider));
    ok(mine < theirs + (24u << 20), "what it does not use is given back: %llu KiB, the provider has %llu KiB",
       (unsigned long long)mine >> 10, (unsigned long long)theirs >> 10);
    ok(fixture_feed(provider, new), "it takes what came after");
    is_in_order(new, "the new store");

    /* A second time: of a generation. */
    old = fixture_open("reuse");
    work(provider, 300);
    struct source later = source_at_end(provider);
    import = open_import(old);
    PROMISE(import_begin(import, &later.state) == 0 && import_all(import, &later) == 0);
    ok(import_progress(import).reused > 0, "blocks of a generation are taken over, too");
    new = replace(import, old, "reuse");
    is_then(new, &later, "the third generation");
    is_in_order(new, "the third generation");
    source_done(&later);
    source_done(&source);
    tables_free(before);
    store_close(provider);
}

/* The provider cannot show the state any more, several times: what was fetched is used for the next one's. */
static void another_state(void) {
    struct store *provider = busy_store("another-provider"), *old = fixture_store("another", 0);
    struct import_progress progress;
    struct import_state state;
    uint64_t fetched = 0;
    work(provider, 1000);
    PROMISE(fixture_feed(provider, old));
    work(provider, 2000);
    struct import *import = open_import(old);
    for (unsigned round = 0; round < 3; round++) {
        struct source source = source_at_end(provider);
        PROMISE(import_begin(import, &source.state) == 0);
        PROMISE(fetch_rows(import, &source) == 0 && (round == 1 || fetch_blocks(import, &source, 0) == 0));
        progress = import_progress(import);
        fetched += progress.fetched;
        if (round == 1) /* with a look at it from its checkpoint */
            import_close(import), import = open_import(old);
        is_int(0, import_again(import), "it is to be built of another state");
        ok(!import_state(import, &state), "there is no state");
        source_done(&source);
        work(provider, 40);
    }
    struct source source = source_at_end(provider);
    PROMISE(import_begin(import, &source.state) == 0);
    is_int(0, import_all(import, &source), "it is built of that");
    progress = import_progress(import);
    ok(progress.reused > progress.fetched, "%llu blocks fetched at last, %llu before, %llu used again or the old store's",
       (unsigned long long)progress.fetched, (unsigned long long)fetched, (unsigned long long)progress.reused);
    is_int(-EBUSY, import_again(import), "one that is complete is not cleared");
    struct store *new = replace(import, old, "another");
    is_then(new, &source, "of the last state");
    for (int i = 0; i < 3; i++)
        store_checkpoint(new);
    ok(fixture_feed(provider, new), "it takes what came after");
    is_in_order(new, "of the last state");
    source_done(&source);
    store_close(provider);
}

/* Killed at any moment, again and again. */
static void killed(void) {
    struct store *provider = busy_store("killed-provider"), *old = fixture_store("killed", 0);
    work(provider, 2000);
    PROMISE(fixture_feed(provider, old));
    work(provider, 2000);
    struct source source = source_at_end(provider);
    store_close(old);
    history_close(source.past); /* each life opens the provider for itself */
    source.past = NULL;
    store_close(provider);
    unsigned kills = 0, kept = 0;
    uint64_t rows_then = 0;
    bool complete = false;
    for (unsigned life = 0; !complete && life < 60; life++) {
        pid_t child = fork();
        PROMISE(child >= 0);
        if (child == 0) {
            pace = 60000; /* so that most lives end before the import does */
            struct store *own = fixture_open("killed");
            source.store = fixture_open("killed-provider");
            if (history_open(source.store, source.state.lsn, source.state.chain, NULL, NULL, &source.past, why,
                             sizeof why) != 0)
                _exit(6);
            struct import *import = open_import(own);
            struct import_state state;
            if (import_phase(import) == IMPORT_COMPLETE)
                _exit(3);
            if (!import_state(import, &state) && import_begin(import, &source.state) != 0)
                _exit(4);
            int rc = import_all(import, &source);
            _exit(rc ? 5 : 3);
        }
        usleep(20000 + (useconds_t)(test_random(&work_seed) % 1500) * 1000);
        kill(child, SIGKILL);
        int status;
        PROMISE(waitpid(child, &status, 0) == child);
        complete = WIFEXITED(status) && WEXITSTATUS(status) == 3;
        if (WIFEXITED(status) && !complete)
            bail("the import failed in its life %u: %d", life, WEXITSTATUS(status));
        kills += WIFSIGNALED(status);
        old = fixture_open("killed");
        struct import *import = open_import(old);
        uint64_t rows = import_progress(import).rows;
        kept += rows > 0 && rows >= rows_then;
        rows_then = rows;
        complete = import_phase(import) == IMPORT_COMPLETE;
        import_close(import);
        store_close(old);
    }
    ok(complete && kills > 0, "killed %u times, it comes to its end (%u times it went on from where it was)", kills, kept);
    old = fixture_open("killed");
    struct import *import = open_import(old);
    struct store *new = replace(import, old, "killed");
    is_then(new, &source, "a store that was built between kills");
    is_in_order(new, "a store that was built between kills");
    tables_free(source.then);
}

static atomic_int refuse;
static int refuse_commits(enum disk_call call, const char *path, size_t length) {
    (void)length;
    if (call != DISK_WRITE || !strstr(path, "/generation.1/meta/data.mdb") || atomic_load(&refuse) == 0)
        return 0;
    return atomic_fetch_sub(&refuse, 1) > 0 ? ENOSPC : 0;
}

static void refused(void) {
    struct store *provider = busy_store("refused-provider"), *old = fixture_store("refused", 0);
    work(provider, 2500);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0);
    disk_fault_set(refuse_commits);
    enum table table;
    struct key after;
    unsigned refusals = 0;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && import_next_rows(import, &table, &after) == 0; i++) {
        if (i % 4 == 1) {
            atomic_store(&refuse, 1);
            refusals++;
        }
        answer_rows(&source, table, &after, &last_answer);
        rc = import_rows(import, table, &after, answer_next, &last_answer, last_answer.done);
        if (rc == -ENOSPC || rc == -EAGAIN) /* asked for before the batch was taken back */
            rc = 0;
        if (i % 4 >= 2)
            usleep(150000); /* the commit interval: one that is refused, and takes everything since the last one back, and one that is not */
    }
    atomic_store(&refuse, 0);
    is_int(0, rc, "rows through %u refused commits", refusals);
    is_int(0, import_all(import, &source), "and the rest");
    disk_fault_set(NULL);
    struct store *new = replace(import, old, "refused");
    is_then(new, &source, "after refused commits");
    is_in_order(new, "after refused commits");
    source_done(&source);
    store_close(provider);
}

/* One refused commit between an answer and the next question: what was asked for behind rows that were taken back with
 * it does not fit. And a disk that stays full then: what was in memory of them is not written down. */
static atomic_int full;
int fstatvfs(int fd, struct statvfs *fs) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int rc = statvfs(name, fs);
    if (atomic_load(&full))
        fs->f_bavail = 0;
    return rc;
}

static void wait_for_refusal(void) {
    for (int i = 0; i < 500 && atomic_load(&refuse) > 0; i++)
        usleep(10000);
    is_int(0, atomic_load(&refuse), "a commit is refused");
}

static void gaps(bool stays_full) {
    const char *name = stays_full ? "full" : "gap";
    struct store *provider = busy_store(stays_full ? "full-provider" : "gap-provider"), *old = fixture_store(name, 0);
    enum table table;
    struct key after;
    unsigned answers = 0;
    int rc = 0;
    work(provider, 2500);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0);
    disk_fault_set(refuse_commits);
    rows_bytes = 1024;
    while (rc == 0 && import_next_rows(import, &table, &after) == 0) {
        answers++;
        if (answers == 11)
            usleep(2500000); /* so that what came before is in a checkpoint */
        answer_rows(&source, table, &after, &last_answer);
        if (answers == 13 && !stays_full) { /* the rows of the 12th question go, those of the 13th are on their way */
            atomic_store(&refuse, 1);
            wait_for_refusal();
            usleep(300000);
        }
        rc = import_rows(import, table, &after, answer_next, &last_answer, last_answer.done);
        if (answers == 13 && !stays_full)
            is_int(-EAGAIN, rc, "rows that do not fit any more");
        if (answers == 13 && stays_full)
            is_int(-ENOSPC, rc, "no rows on a full disk");
        if (rc == -ENOSPC || rc == -EAGAIN)
            rc = 0;
        if (answers == 12 && stays_full) {
            atomic_store(&full, 1);
            atomic_store(&refuse, 1);
            wait_for_refusal();
            usleep(300000);
        }
        if (answers == 13 && stays_full) {
            atomic_store(&full, 0);
            usleep(500000);
            import_close(import); /* what is in memory goes */
            import = open_import(old);
        }
    }
    rows_bytes = ROWS_BYTES;
    is_int(0, rc, "rows");
    is_int(0, import_all(import, &source), "and the rest");
    disk_fault_set(NULL);
    struct store *new = replace(import, old, name);
    is_then(new, &source, stays_full ? "a disk that was full for a while" : "a commit refused between question and answer");
    is_in_order(new, name);
    source_done(&source);
    store_close(provider);
}

/* The old store goes on between two attempts: nothing of it is cut, and what was built beside it is of no use. */
static void old_goes_on(bool complete) {
    static uint8_t bytes[1 << 20], again[1 << 20];
    const char *name = complete ? "goes" : "goes-half";
    uint64_t lsn;
    struct store *provider = busy_store(complete ? "goes-provider" : "goes-half-provider"), *old = fixture_store(name, 0);
    fixture_options.history_bytes = 1;
    work(provider, 300);
    uint64_t ino = make(provider, ROOT_INO, "file", S_IFREG | 0644);
    memset(bytes, 'p', sizeof bytes);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    PROMISE(fixture_feed(provider, old));
    work(provider, 100);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0);
    ok(import_progress(import).reused > 0, "segments are shared");
    if (complete)
        PROMISE(import_all(import, &source) == 0);
    import_close(import); /* killed here, say */
    PROMISE(store_start_epoch(old, EPOCH_MAKE(2, 2), "b") == 0); /* promoted by force */
    memset(bytes, 'q', sizeof bytes);
    PROMISE(op_write(old, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    store_sync(old, lsn);
    for (int i = 0; i < 8; i++)
        store_checkpoint(old);
    store_stop_epoch(old);
    import = open_import(old);
    is_int(IMPORT_ROWS, import_phase(import), "what was built beside what it was is begun anew");
    is_int(sizeof bytes, op_read(old, ino, again, sizeof again, 0), "the old store's new data is read");
    is_blob(bytes, again, sizeof bytes, "and is what was written");
    PROMISE(import_discard(import) == 0);
    is_in_order(old, "the old store");
    source_done(&source);
    store_close(provider);
    fixture_options.history_bytes = 64u << 20;
}

static void incomplete(void) {
    struct store *provider = busy_store("incomplete-provider"), *old = fixture_store("incomplete", 0);
    struct position before, now;
    char path[512];
    work(provider, 300);
    PROMISE(fixture_feed(provider, old));
    store_position(old, &before);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0);
    import_close(import);
    snprintf(path, sizeof path, "%s", store_path(old));
    is_int(-EBUSY, import_switch(path, NULL), "nothing is switched while the store is in use");
    store_close(old);
    is_int(-ENOENT, import_switch(path, NULL), "nor to what is not complete");
    old = fixture_open("incomplete");
    store_position(old, &now);
    is_int((int64_t)before.lsn, (int64_t)now.lsn, "the old store is what it was");
    store_close(old);
    source_done(&source);
    store_close(provider);
}

static void refused_at_the_end(void) {
    struct store *provider = busy_store("leak-provider"), *old = fixture_store("leak", 0);
    fixture_options.history_bytes = 1;
    work(provider, 1500);
    PROMISE(fixture_feed(provider, old));
    work(provider, 1500);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0 &&
            fetch_blocks(import, &source, 0) == 0);
    disk_fault_set(refuse_commits);
    usleep(1500000);
    atomic_store(&refuse, 1);
    int rc = import_finish(import);
    disk_fault_set(NULL);
    diag("import_finish: %d", rc);
    is_int(0, rc ? import_all(import, &source) : 0, "the end, after a refused commit");
    struct store *new = replace(import, old, "leak");
    for (int i = 0; i < 6; i++)
        store_checkpoint(new);
    is_in_order(new, "nothing leaks");
    source_done(&source);
    store_close(provider);
    fixture_options.history_bytes = 64u << 20;
}

/* ---- A commit refused at each place ---- */

/* What the map says is wanted, what may be asked for, and the count: always the same. */
static void is_counted(struct import *import, bool told, const char *what) {
    struct store *store = import->store;
    struct cursor cursor;
    struct key key = {0};
    uint64_t map = 0, rows = 0;
    store_lock(store);
    PROMISE(import_row_load(import) == 0 && cursor_open(&cursor, store, NULL, TABLE_EXTENT) == 0);
    for (int rc = cursor_seek(&cursor, &key); rc == 0; rc = cursor_next(&cursor)) {
        struct extent extent;
        PROMISE(extent_parse(cursor.key, cursor.value, &extent) == 0);
        map += extent.checksums && extent.place.segment == IMPORT_WANTED ? extent.place.count : 0;
    }
    cursor_close(&cursor);
    key = import_want_key(0, 0);
    PROMISE(cursor_open(&cursor, store, NULL, TABLE_META) == 0);
    for (int rc = cursor_seek(&cursor, &key); rc == 0 && cursor.key.length == 17 && cursor.key.data[0] == 'w';
         rc = cursor_next(&cursor)) {
        struct place place;
        memcpy(&place, cursor.value.data, sizeof place);
        rows += place.count;
    }
    cursor_close(&cursor);
    uint64_t noted = import->begun ? import->row.progress.wanted : 0;
    store_unlock(store);
    if (told || map != rows || map != noted)
        ok(map == rows && map == noted, "%s: %llu blocks are wanted, %llu can be asked for, %llu are counted", what,
           (unsigned long long)map, (unsigned long long)rows, (unsigned long long)noted);
}

static unsigned places, refusals;
/* Behind a step: each second time what it did, and nothing else, is taken back; the step comes again. */
static void end_step(struct import *import, const char *what) {
    bool now = places++ % 2 == 0;
    struct store *store = import->store;
    store_lock(store);
    atomic_store(&refuse, now && store->batch_rows > 0);
    refusals += now && store->batch_rows > 0;
    store_unlock(store);
    store_checkpoint(store);
    atomic_store(&refuse, 0);
    is_counted(import, false, what);
}

static int rows_in_steps(struct import *import, struct source *source) {
    enum table table;
    struct key after;
    int rc = 0;
    while (rc == 0 && import_next_rows(import, &table, &after) == 0) {
        answer_rows(source, table, &after, &last_answer);
        rc = import_rows(import, table, &after, answer_next, &last_answer, last_answer.done);
        end_step(import, "rows");
        if (rc == -ENOSPC || rc == -EAGAIN)
            rc = 0;
    }
    return rc;
}

static int blocks_in_steps(struct import *import, struct source *source) {
    static uint8_t bytes[EXTENT_BLOCKS_MAX * BATON_BLOCK];
    struct import_want want;
    unsigned count;
    int rc;
    while ((rc = import_wanted(import, NULL, &want, 1, &count)) == 0 && count > 0) {
        PROMISE(store_read_blocks(source->store, want.place, bytes) == 0);
        rc = places % 5 == 0 && want.place.count > 1 ? import_split(import, &want) : import_blocks(import, &want, bytes);
        end_step(import, "blocks");
        if (rc && rc != -ENOSPC && rc != -ENOENT)
            return rc;
    }
    return rc;
}

static int begin_in_steps(struct import *import, struct source *source) {
    struct import_state state;
    unsigned refused = 0;
    for (int tries = 0; tries < 9; tries++) {
        atomic_store(&refuse, tries < 2);
        int rc = import_begin(import, &source->state);
        atomic_store(&refuse, 0);
        if (rc == 0 && import_state(import, &state) && state.lsn == source->state.lsn)
            return ok(refused == 2, "a state begins when its commit is not refused") ? 0 : -EINVAL;
        if (rc != -EAGAIN)
            return rc ? rc : -EINVAL;
        refused++;
        for (rc = -EAGAIN; rc == -EAGAIN || rc == -ENOSPC;) /* the one before is there again, perhaps with its rows */
            rc = import_again(import);
        if (rc)
            return rc;
    }
    return -EAGAIN;
}

/* Two states, of which the first has some of its rows and blocks, and is then not to be had any more. */
static void refused_everywhere(void) {
    struct store *provider = busy_store("each-provider"), *old = fixture_store("each", 0);
    work(provider, 150);
    PROMISE(fixture_feed(provider, old));
    work(provider, 250);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    places = refusals = 0;
    rows_bytes = 8192;
    disk_fault_set(refuse_commits);
    is_int(0, begin_in_steps(import, &source), "the first state");
    is_int(0, rows_in_steps(import, &source), "its rows");
    is_counted(import, true, "then");
    PROMISE(fetch_blocks(import, &source, 0) == 0 && store_checkpoint(import->store) == 0);
    source_done(&source);
    work(provider, 100);
    source = source_at_end(provider);
    is_int(0, import_again(import), "it is not to be had any more");
    is_int(0, begin_in_steps(import, &source), "the second state");
    int rc;
    do {
        rc = rows_in_steps(import, &source);
        if (rc == 0)
            rc = blocks_in_steps(import, &source);
        atomic_store(&refuse, places++ % 2);
        if (rc == 0)
            rc = import_finish(import);
        atomic_store(&refuse, 0);
    } while (rc == -EBUSY || rc == -EAGAIN || rc == -ENOSPC);
    is_int(0, rc, "its rows and blocks, and the end");
    ok(refusals > 10, "through %u refused commits at %u places", refusals, places);
    disk_fault_set(NULL);
    rows_bytes = ROWS_BYTES;
    struct store *new = replace(import, old, "each");
    is_then(new, &source, "a commit refused at each place");
    is_in_order(new, "a commit refused at each place");
    source_done(&source);
    store_close(provider);
}

static void count_as(struct import *import, uint64_t wanted) {
    store_lock(import->store);
    PROMISE(import_row_load(import) == 0);
    import->row.progress.wanted = wanted;
    PROMISE(import_row_save(import) == 0);
    store_unlock(import->store);
}

/* What is missing is seen in the map, whatever the count says. */
static void miscounted(void) {
    struct store *provider = busy_store("count-provider"), *old = fixture_store("count", 0);
    work(provider, 200);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0);
    uint64_t wanted = import_progress(import).wanted;
    PROMISE(wanted > 0);
    count_as(import, 0);
    is_int(-EBUSY, import_finish(import), "blocks are missing, and none is counted");
    is_int((int64_t)wanted, (int64_t)import_progress(import).wanted, "they are then");
    PROMISE(fetch_blocks(import, &source, 0) == 0);
    count_as(import, 3);
    is_int(0, import_all(import, &source), "none is missing, and some are counted");
    struct store *new = replace(import, old, "count");
    is_then(new, &source, "miscounted");
    is_in_order(new, "miscounted");
    source_done(&source);
    store_close(provider);
}

/* The state before comes back with the refused commit that was to begin the next one: rows of that are not put behind its. */
static void begun_in_vain(void) {
    struct store *provider = busy_store("vain-provider"), *old = fixture_store("vain", 0);
    struct import_state state;
    enum table table;
    struct key after;
    work(provider, 600);
    struct source first = source_at_end(provider);
    work(provider, 600);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    rows_bytes = 1024;
    PROMISE(import_begin(import, &first.state) == 0);
    for (unsigned i = 0; i < 6 && import_next_rows(import, &table, &after) == 0; i++) {
        answer_rows(&first, table, &after, &last_answer);
        PROMISE(import_rows(import, table, &after, answer_next, &last_answer, last_answer.done) == 0);
    }
    PROMISE(import_progress(import).rows > 0 && store_checkpoint(import->store) == 0);
    disk_fault_set(refuse_commits);
    PROMISE(import_again(import) == 0);
    atomic_store(&refuse, 1);
    int rc = import_begin(import, &source.state);
    is_int(-EAGAIN, rc, "the next state does not begin when its commit is refused");
    wait_for_refusal();
    usleep(300000);
    disk_fault_set(NULL);
    if (rc == -EAGAIN) {
        ok(import_state(import, &state) && state.lsn == first.state.lsn, "the state before is there again");
        is_int(-EEXIST, import_begin(import, &source.state), "which has to go first");
        is_int(0, import_again(import), "it goes");
        is_int(0, import_begin(import, &source.state), "the next one begins");
    }
    rows_bytes = ROWS_BYTES;
    is_int(0, import_all(import, &source), "and is built");
    struct store *new = replace(import, old, "vain");
    is_then(new, &source, "after a beginning in vain");
    is_in_order(new, "after a beginning in vain");
    source_done(&first);
    source_done(&source);
    store_close(provider);
}

/* A piece is cut into blocks, and a refused commit makes it one piece again: an answer for its first block comes too late. */
static void split_in_vain(void) {
    static uint8_t bytes[EXTENT_BLOCKS_MAX * BATON_BLOCK];
    struct store *provider = busy_store("split-provider"), *old = fixture_store("split", 0);
    struct import_want want, single;
    unsigned count;
    uint64_t lsn, ino = make(provider, ROOT_INO, "file", S_IFREG | 0644);
    memset(bytes, 'p', sizeof bytes);
    PROMISE(op_write(provider, ino, bytes, 8 * BATON_BLOCK, 0, 0, &lsn) == 0);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0);
    PROMISE(import_wanted(import, NULL, &want, 1, &count) == 0 && count == 1 && want.place.count == 8);
    PROMISE(store_checkpoint(import->store) == 0);
    disk_fault_set(refuse_commits);
    is_int(0, import_split(import, &want), "a piece is cut");
    is_counted(import, true, "cut");
    PROMISE(import_wanted(import, NULL, &single, 1, &count) == 0 && count == 1 && single.place.count == 1);
    atomic_store(&refuse, 1);
    store_checkpoint(import->store);
    wait_for_refusal();
    disk_fault_set(NULL);
    for (int rc = -ENOSPC; rc == -ENOSPC; usleep(10000)) { /* until there is space again */
        rc = import_blocks(import, &single, bytes);
        if (rc != -ENOSPC)
            is_int(-ENOENT, rc, "a block of a piece that is whole again is not wanted");
    }
    is_counted(import, true, "whole again");
    is_int(0, import_all(import, &source), "the piece is had");
    struct store *new = replace(import, old, "split");
    is_then(new, &source, "a piece cut in vain");
    source_done(&source);
    store_close(new);
    store_close(provider);
}

static atomic_int refuse_links;
int linkat(int from, const char *name, int to, const char *name_there, int flags) {
    if (atomic_load(&refuse_links) > 0 && atomic_fetch_sub(&refuse_links, 1) > 0) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_linkat, from, name, to, name_there, flags);
}

/* One row of which some blocks are wanted and some are the old store's, whose segment cannot be linked to for want of space:
 * nothing of the row stays. */
static void half_a_row(void) {
    static uint8_t bytes[8 * BATON_BLOCK];
    struct store *provider = busy_store("half-provider"), *old = fixture_store("half", 0);
    uint64_t lsn, ino = make(provider, ROOT_INO, "file", S_IFREG | 0644);
    enum table table;
    struct key after;
    memset(bytes, 'p', sizeof bytes);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    PROMISE(fixture_feed(provider, old));
    memset(bytes, 'q', 3 * BATON_BLOCK);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0);
    while (import_next_rows(import, &table, &after) == 0 && table != TABLE_EXTENT) {
        answer_rows(&source, table, &after, &last_answer);
        PROMISE(import_rows(import, table, &after, answer_next, &last_answer, last_answer.done) == 0);
    }
    atomic_store(&refuse_links, 1);
    answer_rows(&source, table, &after, &last_answer);
    is_int(-ENOSPC, import_rows(import, table, &after, answer_next, &last_answer, last_answer.done), "a row fails half-way");
    is_int(0, atomic_load(&refuse_links), "at a link");
    is_counted(import, true, "after half a row");
    is_int(0, import_all(import, &source), "it comes again");
    ok(import_progress(import).reused == 5 && import_progress(import).fetched == 3, "and both parts are had");
    struct store *new = replace(import, old, "half");
    is_then(new, &source, "after half a row");
    is_in_order(new, "after half a row");
    source_done(&source);
    store_close(provider);
}

/* A state is nearly complete when it is not to be had any more, and what it did not use of the old store's blocks is dead
 * already: the next state uses them. */
static atomic_int refuse_next; /* the commit behind the next checkpoint */
static int refuse_behind_checkpoint(enum disk_call call, const char *path, size_t length) {
    if (call == DISK_SYNC && strstr(path, "/generation.1/meta/data.mdb") && atomic_exchange(&refuse_next, 0))
        atomic_store(&refuse, 1);
    return refuse_commits(call, path, length);
}

static unsigned dead_rows(struct store *store) {
    struct cursor cursor;
    unsigned count = 0;
    store_lock(store);
    PROMISE(cursor_open(&cursor, store, NULL, TABLE_DEAD) == 0);
    for (int rc = cursor_seek(&cursor, &none); rc == 0; rc = cursor_next(&cursor))
        count++;
    cursor_close(&cursor);
    store_unlock(store);
    return count;
}

static void dead_and_used(void) {
    static uint8_t bytes[8 * BATON_BLOCK], again[8 * BATON_BLOCK];
    struct store *provider = busy_store("dead-provider"), *old = fixture_store("dead", 0);
    uint64_t lsn, ino = make(provider, ROOT_INO, "file", S_IFREG | 0644);
    fixture_options.history_bytes = 1;
    memset(bytes, 'p', sizeof bytes);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0 && fixture_feed(provider, old));
    memset(bytes, 'q', 3 * BATON_BLOCK);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0 &&
            fetch_blocks(import, &source, 0) == 0);
    disk_fault_set(refuse_behind_checkpoint);
    for (int rc = -EAGAIN; rc == -EAGAIN && dead_rows(import->store) == 0;) {
        atomic_store(&refuse_next, 1);
        rc = import_finish(import);
        is_int(-EAGAIN, rc, "the commit of the position is refused");
    }
    disk_fault_set(NULL);
    ok(dead_rows(import->store) > 0, "the old store's blocks that are not used are dead");
    source_done(&source);
    memset(bytes, 'p', sizeof bytes);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    source = source_at_end(provider);
    is_int(0, import_again(import), "another state");
    is_int(0, import_begin(import, &source.state), "begins");
    is_int(0, import_all(import, &source), "and is built");
    ok(import_progress(import).reused == 8, "it uses them");
    struct store *new = replace(import, old, "dead");
    is_then(new, &source, "with blocks that were dead");
    for (int i = 0; i < 8; i++)
        store_checkpoint(new);
    is_int(sizeof again, op_read(new, ino, again, sizeof again, 0), "they are read");
    is_blob(bytes, again, sizeof bytes, "and are what they were");
    is_in_order(new, "with blocks that were dead");
    fixture_options.history_bytes = 64u << 20;
    source_done(&source);
    store_close(provider);
}

static int one_row(void *context, struct span *key, struct span *value) {
    static const uint8_t nothing[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    unsigned *left = context;
    if ((*left)-- == 0)
        return 0;
    *key = *value = (struct span){nothing, sizeof nothing};
    return 1;
}

/* ---- Rows that cannot be ---- */

struct odd {
    struct key key;
    uint8_t value[400];
    uint32_t length;
    bool given;
};

static int odd_row(void *context, struct span *key, struct span *value) {
    struct odd *odd = context;
    if (odd->given)
        return 0;
    odd->given = true;
    *key = (struct span){odd->key.bytes, odd->key.length};
    *value = (struct span){odd->value, odd->length};
    return 1;
}

static void odd_value(struct odd *odd, const void *value, size_t length, const char *behind, size_t behind_length) {
    memcpy(odd->value, value, length);
    memcpy(odd->value + length, behind, behind_length);
    odd->length = (uint32_t)(length + behind_length);
}

static const char *make_odd(enum table table, struct odd *odd) {
    const struct inode_row inode = {.mode = S_IFREG | 0644, .nlink = 1};
    const struct dirent_row entry = {.ino = 2, .cookie = 2, .type = S_IFREG};
    const struct dircookie_row cookie = {.ino = 2, .type = S_IFREG};
    const struct orphan_row orphan = {.ino = 2};
    *odd = (struct odd){.key = key_u64(2)};
    switch (table) {
    case TABLE_INODE:
        odd_value(odd, &inode, sizeof inode, "x", 1);
        return "an inode with a byte too many";
    case TABLE_DIRENT:
        odd->key = key_u64_name(1, "a/b", 3);
        odd_value(odd, &entry, sizeof entry, "", 0);
        return "a name with a slash";
    case TABLE_DIRCOOKIE:
        odd->key = key_u64_u64(1, 2);
        odd_value(odd, &cookie, sizeof cookie, "..", 2);
        return "a directory that shows \"..\"";
    case TABLE_XATTR:
        odd->key = key_u64_name(2, "user.\0x", 7);
        return "an attribute with a NUL in its name";
    case TABLE_ORPHAN:
        odd->key = key_orphan('x', 2);
        odd_value(odd, &orphan, sizeof orphan, "", 0);
        return "an orphan of an unknown kind";
    case TABLE_EPOCH:
        odd_value(odd, "short", 5, "", 0);
        return "an epoch that is cut off";
    default:
        odd_value(odd, "short", 5, "", 0);
        return "a row of the map that is cut off";
    }
}

static void impossible(void) {
    struct store *provider = busy_store("impossible-provider"), *old = fixture_store("impossible", 0);
    work(provider, 200);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    enum table table, last = TABLE_END;
    struct key after;
    struct odd odd;
    int rc = 0;
    PROMISE(import_begin(import, &source.state) == 0);
    while (rc == 0 && import_next_rows(import, &table, &after) == 0) {
        if (table != last) {
            const char *what = make_odd(table, &odd);
            is_int(-EBADMSG, import_rows(import, table, &after, odd_row, &odd, false), "%s is refused", what);
        }
        last = table;
        answer_rows(&source, table, &after, &last_answer);
        rc = import_rows(import, table, &after, answer_next, &last_answer, last_answer.done);
    }
    is_int(0, rc, "the rest is taken");
    is_int(0, import_all(import, &source), "to its end");
    struct store *new = replace(import, old, "impossible");
    is_then(new, &source, "with rows that were refused first");
    source_done(&source);
    store_close(new);
    store_close(provider);
}

static void hostile(void) {
    struct store *provider = busy_store("hostile-provider"), *old = fixture_store("hostile", 0);
    static uint8_t bytes[EXTENT_BLOCKS_MAX * BATON_BLOCK];
    struct import_want wants[WANTS];
    unsigned count, twice = 2, once = 1;
    work(provider, 500);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    is_int(-EBADMSG, import_rows(import, TABLE_EPOCH, &none, one_row, &once, false), "rows before the beginning");
    PROMISE(import_begin(import, &source.state) == 0);
    is_int(-EEXIST, import_begin(import, &source.state), "it begins once");
    is_int(-EBUSY, import_finish(import), "and does not end before all is there");
    once = 1;
    is_int(-EAGAIN, import_rows(import, TABLE_DIRENT, &none, one_row, &once, false), "rows of another table than was asked for");
    is_int(-EBADMSG, import_rows(import, TABLE_EPOCH, &none, one_row, &twice, false), "a key twice");
    is_int(0, import_discard(import), "given up");
    import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0);
    PROMISE(import_wanted(import, NULL, wants, WANTS, &count) == 0 && count > 1);
    memset(bytes, 'x', sizeof bytes);
    is_int(-EBADMSG, import_blocks(import, &wants[0], bytes), "blocks that do not fit their checksums");
    struct import_want other = wants[0];
    other.data ^= 1ull << 50;
    is_int(-ENOENT, import_blocks(import, &other, bytes), "blocks that nobody asked for");
    is_int(-EBUSY, import_finish(import), "and does not end before all is there");
    uint32_t lost = wants[0].place.count;
    is_int(0, fetch_blocks(import, &source, 1), "a piece that the provider cannot read");
    is_int((int64_t)lost, (int64_t)import_progress(import).bad, "is counted");
    is_int(0, import_finish(import), "and does not stop the rest");
    struct store *new = replace(import, old, "hostile");
    is_then(new, &source, "with a piece that cannot be read");
    char path[512];
    snprintf(path, sizeof path, "%s", store_path(new));
    store_close(new);
    ok(check_store(path, CHECK_DATA, tell, NULL) > 0, "... which a check finds");
    source_done(&source);
    store_close(provider);
}

/* Two histories that part: the old store's tail is found, and the old store is kept whole. */
static void kept(void) {
    struct store *provider = busy_store("kept-provider"), *old = fixture_store("kept", 0);
    struct position fork, end;
    uint64_t common = 0;
    work(provider, 500);
    PROMISE(fixture_feed(provider, old));
    store_position(old, &fork);
    PROMISE(store_start_epoch(old, EPOCH_MAKE(2, 2), "b") == 0); /* it was promoted, and worked alone */
    work(old, 200);
    store_stop_epoch(old);
    store_position(old, &end);
    struct tables *before = tables_take(old, TABLES_EXACT);
    work(provider, 50); /* the first one goes on meanwhile */
    PROMISE(store_start_epoch(provider, EPOCH_MAKE(3, 1), "a") == 0);
    work(provider, 400);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    is_int(-EAGAIN, import_common_point(import, &common), "no common point before there are epochs");
    PROMISE(import_begin(import, &source.state) == 0);
    answer_rows(&source, TABLE_EPOCH, &(struct key){0}, &last_answer);
    is_int(0, import_rows(import, TABLE_EPOCH, &none, answer_next, &last_answer, last_answer.done), "epochs come first");
    is_int(0, import_common_point(import, &common), "then there is one");
    is_int((int64_t)fork.lsn, (int64_t)common, "it is where they parted");
    ok(common < end.lsn, "the old store has a tail");
    is_int(0, import_keep_old(import), "which is to be kept");
    is_int(0, import_all(import, &source), "the new store is built");
    is_int(0, (int64_t)import_progress(import).reused, "nothing is taken over");
    char path[600];
    snprintf(path, sizeof path, "%s/aside.%llu", store_path(old), (unsigned long long)end.lsn);
    aside = strrchr(path, '/') + 1;
    struct store *new = replace(import, old, "kept");
    aside = NULL;
    is_then(new, &source, "beside a store that is kept");
    work(provider, 100);
    ok(fixture_feed(provider, new), "it takes what came after");
    for (int i = 0; i < 5; i++)
        store_checkpoint(new);
    is_in_order(new, "beside a store that is kept");
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "the old store is whole, as a store of its own");
    is_int(0, store_open(path, fixture_volume, &fixture_options, &old, why, sizeof why), "it opens (%s)", why);
    struct tables *after = tables_take(old, TABLES_EXACT);
    ok(tables_equal(before, after, why, sizeof why), "and has what it had");
    tables_free(after);
    tables_free(before);
    store_close(old);
    source_done(&source);
    store_close(provider);
}

int main(void) {
    fixture_options.history_bytes = 64u << 20;
    churn_prepare(&work_seed);
    empty_and_under_load();
    reuse();
    another_state();
    killed();
    refused();
    impossible();
    hostile();
    kept();
    gaps(false);
    gaps(true);
    old_goes_on(false);
    old_goes_on(true);
    incomplete();
    refused_at_the_end();
    refused_everywhere();
    miscounted();
    begun_in_vain();
    split_in_vain();
    half_a_row();
    dead_and_used();
    return 0;
}
