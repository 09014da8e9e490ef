/* Building a store anew (fs/import.h) on a disk that refuses: a commit at any place of it, a link, all writes for a while; and
 * beside an old store that goes on meanwhile. Nothing is counted wrong, lost, or left behind. */
#include "fs/check.h"
#include "fs/history.h"
#include "fs/import_internal.h"
#include "tests/churn.h"
#include "tests/disk-fault.h"
#include "tests/importing.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

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
    for (int i = 0; i < 6000 && atomic_load(&refuse) > 0; i++)
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

/* The same without a new beginning: a rollback comes while the new store is completed, and what was taken over is punched. */
static void old_goes_back(bool complete) {
    static uint8_t bytes[1 << 20];
    const char *name = complete ? "back" : "back-half";
    uint64_t lsn;
    struct position before;
    struct store *provider = busy_store(complete ? "back-provider" : "back-half-provider"), *old = fixture_store(name, 0);
    work(provider, 300);
    uint64_t ino = make(provider, ROOT_INO, "file", S_IFREG | 0644);
    store_position(provider, &before);
    memset(bytes, 'p', sizeof bytes);
    PROMISE(op_write(provider, ino, bytes, sizeof bytes, 0, 0, &lsn) == 0);
    PROMISE(fixture_feed(provider, old));
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0 && fetch_rows(import, &source) == 0);
    ok(import_progress(import).reused >= sizeof bytes / BATON_BLOCK, "the old store's blocks are taken over");
    if (complete)
        PROMISE(import_all(import, &source) == 0);
    PROMISE(store_undo(old, before.lsn) == 0);
    for (int i = 0; i < 8; i++)
        store_checkpoint(old);
    is_int(-ESTALE, import_finish(import), "a store is not completed with blocks of one that has taken them back");
    import_close(import);
    import = open_import(old);
    is_int(IMPORT_ROWS, import_phase(import), "it is begun anew");
    PROMISE(import_begin(import, &source.state) == 0);
    is_int(0, import_all(import, &source), "and built");
    struct store *new = replace(import, old, name);
    is_then(new, &source, "beside a store that went back");
    is_in_order(new, "beside a store that went back");
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

/* A refused commit takes back that a segment was taken over, but not the link to its file. Blocks that were asked for before come
 * then, and go into a segment of that number: not into the old store's. */
static void blocks_beside_a_link(void) {
    static uint8_t bytes[8 * BATON_BLOCK], again[8 * BATON_BLOCK], other[8 * BATON_BLOCK];
    struct store *provider = busy_store("link-provider"), *old = fixture_store("link", 0);
    uint64_t lsn, wanted = make(provider, ROOT_INO, "wanted", S_IFREG | 0644);
    uint64_t reused = make(provider, ROOT_INO, "reused", S_IFREG | 0644);
    enum table table;
    struct key after;
    struct import_want want;
    unsigned count;
    memset(bytes, 'p', sizeof bytes);
    memset(other, 'q', sizeof other);
    PROMISE(op_write(provider, wanted, bytes, sizeof bytes, 0, 0, &lsn) == 0 &&
            op_write(provider, reused, other, sizeof other, 0, 0, &lsn) == 0 && fixture_feed(provider, old));
    memset(again, 'r', sizeof again);
    PROMISE(op_write(provider, wanted, again, sizeof again, 0, 0, &lsn) == 0);
    struct source source = source_at_end(provider);
    struct import *import = open_import(old);
    PROMISE(import_begin(import, &source.state) == 0);
    rows_bytes = 1; /* one row in an answer */
    while (import_progress(import).wanted == 0 && import_next_rows(import, &table, &after) == 0) {
        answer_rows(&source, table, &after, &last_answer);
        PROMISE(import_rows(import, table, &after, answer_next, &last_answer, last_answer.done) == 0);
    }
    PROMISE(store_checkpoint(import->store) == 0 && import_wanted(import, NULL, &want, 1, &count) == 0 && count == 1);
    disk_fault_set(refuse_commits);
    atomic_store(&refuse, 1);
    PROMISE(fetch_rows(import, &source) == 0);
    rows_bytes = ROWS_BYTES;
    PROMISE(store_checkpoint(import->store) == 0);
    is_int(0, atomic_load(&refuse), "a commit is refused");
    is_int(0, import_blocks(import, &want, again), "blocks that were asked for before come");
    is_int(IMPORT_ROWS, import_phase(import), "when the segment that was taken over has been taken back");
    PROMISE(store_checkpoint(import->store) == 0);
    is_int(sizeof bytes, op_read(old, wanted, again, sizeof again, 0), "the old store is read");
    is_blob(bytes, again, sizeof bytes, "and has what it had");
    is_int(0, import_all(import, &source), "all is fetched");
    disk_fault_set(NULL);
    struct store *new = replace(import, old, "link");
    is_then(new, &source, "beside a link");
    is_int(sizeof other, op_read(new, reused, again, sizeof again, 0), "what was taken over is read");
    is_blob(other, again, sizeof other, "and is what it was");
    is_in_order(new, "beside a link");
    source_done(&source);
    store_close(provider);
}

int main(void) {
    fixture_options.history_bytes = 64u << 20;
    churn_prepare(&work_seed);
    refused();
    gaps(false);
    gaps(true);
    old_goes_on(false);
    old_goes_on(true);
    old_goes_back(false);
    old_goes_back(true);
    refused_at_the_end();
    refused_everywhere();
    miscounted();
    begun_in_vain();
    split_in_vain();
    half_a_row();
    dead_and_used();
    blocks_beside_a_link();
    return 0;
}
