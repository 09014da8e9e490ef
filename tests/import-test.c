/* Building a store anew from another one's rows (fs/import.h): it says what the other one said at that LSN, whatever the
 * old store had; what the old store has is taken over without copying and not hurt; killed at any moment, it goes on. What a
 * full disk refuses: import-fault-test.c. */
#include "fs/check.h"
#include "fs/history.h"
#include "fs/import_internal.h"
#include "tests/churn.h"
#include "tests/importing.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char why[600];

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

/* Killed at any moment, again and again. On a busy machine lives may be too short to get to the end: the last one is not. */
#define LIVES 40u
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
    for (unsigned life = 0; !complete && life <= LIVES; life++) {
        int ends[2];
        char begun;
        PROMISE(pipe2(ends, O_CLOEXEC) == 0);
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
            PROMISE(write(ends[1], "", 1) == 1);
            int rc = import_all(import, &source);
            _exit(rc ? 5 : 3);
        }
        close(ends[1]);
        bool goes_on = read(ends[0], &begun, 1) == 1;
        close(ends[0]);
        if (goes_on && life < LIVES) {
            usleep(20000 + (useconds_t)(test_random(&work_seed) % 1500) * 1000);
            kill(child, SIGKILL);
        }
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
    impossible();
    hostile();
    kept();
    incomplete();
    return 0;
}
