/* Opening a store on a disk that refuses, one call after the other, and opening it while processes die in the middle of
 * that, again and again: a sentence, or the end of the process; no crash; and with the disk whole again everything is
 * there. */
#include "fs/check.h"
#include "fs/store_internal.h"
#include "tests/disk-fault.h"
#include "tests/handmade.h"
#include "tests/tap.h"

#include <glob.h>
#include <stdio.h>
#include <unistd.h>

#define DEATHS 20
#define FILES 60
#define RECORDS (1 + 2 * FILES)

static struct position position; /* how far the store is */

/* Small and large data, the last of it in the tail only: the process ends as if killed. */
static void work_and_die(void) {
    struct store *store = must_open();
    uint64_t lsn = 0;
    if (store_start_epoch(store, EPOCH_MAKE(1, 7), "a") != 0)
        _exit(1);
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%d", i);
        lsn = write_blocks(store, create_file(store, name), 0, i % 20 ? 1 + (uint32_t)i % 5 : 100, (uint8_t)i);
        if (i == 10 || i == 20 || i == 30)
            store_checkpoint(store);
    }
    _exit(lsn != 0 && store_sync(store, lsn) == 0 ? 0 : 1);
}

static void fresh(const char *name) {
    options.checkpoint_ms = 3600000;
    format_store(name);
    is_int(0, child_run(work_and_die), "a process worked and died");
    options.checkpoint_ms = 0;
}

static void all_is_there(void) {
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say");
    struct store *store = must_open();
    store_position(store, &position);
    is_int(RECORDS, (int64_t)position.lsn, "it opens, with all that was synced");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "an epoch starts");
    ok(create_file(store, "later") != 0, "work goes on");
    store_close(store);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say of that");
}

static int die(enum disk_call call, const char *file, size_t length) {
    (void)length;
    if (call == DISK_SYNC && strstr(file, "/meta/data.mdb"))
        _exit(9);
    return 0;
}

static void open_and_die(void) {
    disk_fault_set(die);
    must_open();
}

static void test_deaths(void) {
    int died = 0, status = 9;
    fresh("deaths");
    for (int i = 0; i < DEATHS && status == 9; i++)
        died += (status = child_run(open_and_die)) == 9;
    is_int(DEATHS, died, "so many opens died in the middle of their first checkpoint (the last: %d)", status);
    all_is_there();
}

static int countdown;
static enum disk_call refused_call;
static char refused_path[512];

static int refuse_one(enum disk_call call, const char *file, size_t length) {
    (void)length;
    if (strncmp(file, path, strlen(path)) != 0 || __atomic_sub_fetch(&countdown, 1, __ATOMIC_RELAXED) != 0)
        return 0;
    refused_call = call;
    snprintf(refused_path, sizeof refused_path, "%s", file + strlen(path));
    return EIO;
}

static void open_refused(void) {
    static const char *const calls[] = {"reading", "writing", "flushing"};
    struct store *store = NULL;
    if (freopen("/dev/null", "w", stderr) == NULL) /* it says why, a hundred times */
        _exit(5);
    disk_fault_set(refuse_one);
    int rc = store_open(path, volume, &options, &store, why, sizeof why);
    disk_fault_set(NULL);
    if (rc && !why[0])
        printf("# no sentence after %s %s failed\n", calls[refused_call], refused_path);
    if (rc == 0 && refused_path[0]) {
        store_position(store, &position);
        printf("# opened though %s %s failed, at LSN %llu\n", calls[refused_call], refused_path,
               (unsigned long long)position.lsn);
        /* With one slot of the checkpoint unreadable the other one serves. */
        rc = strcmp(refused_path, "/checkpoint") == 0 && position.lsn == RECORDS ? -EIO : 0;
        snprintf(why, sizeof why, "it opened");
    }
    fflush(stdout);
    if (rc)
        _exit(why[0] ? 1 : 2);
    _exit(refused_path[0] ? 3 : 0);
}

/* The first call that the open makes fails, then the second one, and so on until there is none. */
static void test_refused(void) {
    int ways[4] = {0}, status = 1, tries = 0;
    fresh("refused");
    for (; tries < 2000 && status != 0; tries++) {
        countdown = tries + 1;
        status = child_run(open_refused);
        if (status >= 0 && status < 4)
            ways[status]++;
        else if (status != 70)
            break;
    }
    is_int(0, status, "the disk refused one of the first %d calls of an open", tries - 1);
    ok(ways[1] > 10, "%d of these opens said why, or lacked nothing", ways[1]);
    is_int(0, ways[2], "none without a sentence");
    is_int(0, ways[3], "none opened as if nothing was");
    all_is_there();
}

/* Checkpoints, with tail files full of records before and after them; the last of them only in the tail. */
static uint64_t seed;
static int ends;

static void fill_and_die(void) {
    struct store *store = must_open();
    if (store_start_epoch(store, EPOCH_MAKE(1, 7), "a") != 0)
        _exit(1);
    uint64_t ino = create_file(store, "f"), lsn = 0;
    for (int checkpoints = 0; checkpoints < 4; checkpoints++) {
        if (checkpoints)
            store_checkpoint(store);
        for (uint64_t left = 1 + test_random(&seed) % 80; left > 0; left--)
            lsn = write_blocks(store, ino, 0, 8, (uint8_t)left);
    }
    _exit(lsn != 0 && store_sync(store, lsn) == 0 && write(ends, &lsn, sizeof lsn) == sizeof lsn ? 0 : 1);
}

static void open_rotten(void) {
    struct store *store = NULL;
    int rc = store_open(path, volume, &options, &store, why, sizeof why);
    if (rc)
        _exit(10);
    store_position(store, &position);
    uint64_t lsn = position.lsn;
    _exit(write(ends, &lsn, sizeof lsn) == sizeof lsn ? 0 : 1);
}

/* The newest slot of the checkpoint was whole once and rots: the store opens with everything, or not at all. */
static void test_rotten_slot(void) {
    int opened = 0, refused = 0, lost = 0, pipes[2];
    options.checkpoint_ms = options.commit_ms = 3600000;
    seed = test_seed();
    if (pipe(pipes) != 0)
        bail("pipe");
    ends = pipes[1];
    for (int round = 0; round < 20; round++) {
        uint64_t end = 0, seen = 0;
        char name[32];
        snprintf(name, sizeof name, "rotten-%d", round);
        format_store(name);
        test_random(&seed);
        if (child_run(fill_and_die) != 0 || read(pipes[0], &end, sizeof end) != sizeof end)
            bail("the store could not be filled");
        rot_newest_slot();
        int status = child_run(open_rotten);
        if (status == 0 && read(pipes[0], &seen, sizeof seen) == sizeof seen) {
            opened++;
            lost += seen != end;
            if (seen != end)
                diag("round %d: it opens at record %llu of %llu", round, (unsigned long long)seen,
                     (unsigned long long)end);
        } else if (status == 10)
            refused++;
        else
            diag("round %d: the open ended with %d", round, status);
    }
    is_int(20, opened + refused, "rotten slots: %d stores opened, %d refused", opened, refused);
    is_int(0, lost, "none without its newest records");
    options.checkpoint_ms = options.commit_ms = 0;
}

/* A checkpoint, and the pass that follows it: trimming, punching, unlinking. */
static void checkpoint_and_pass(struct store *store) {
    uint64_t before, passes;
    store_lock(store);
    before = passes = store->passes;
    store_unlock(store);
    store_checkpoint(store);
    while (passes == before) {
        usleep(1000); /* poll interval */
        store_lock(store);
        passes = store->passes;
        store_unlock(store);
    }
}

/* What was overwritten dies, is trimmed, is punched, and its segments are unlinked, each with a checkpoint of its own. */
static int checkpoints;

static void overwrite_and_die(void) {
    struct store *store = must_open();
    if (store_start_epoch(store, EPOCH_MAKE(1, 7), "a") != 0)
        _exit(1);
    uint64_t ino = create_file(store, "f"), lsn = 0;
    for (int round = 0; round < 2; round++)
        for (uint32_t at = 0; at < 4096; at += 128) /* 16 MiB, four segments; none of it goes through the tail */
            lsn = write_blocks(store, ino, at, 128, (uint8_t)(at + (uint32_t)round));
    for (int i = 0; i < checkpoints; i++)
        checkpoint_and_pass(store);
    _exit(lsn != 0 ? 0 : 1);
}

static void look_at_rotten(void) {
    struct store *store = NULL;
    if (store_open(path, volume, &options, &store, why, sizeof why) != 0) {
        diag("%s", why);
        _exit(10);
    }
    unsigned without = records_without_data(store);
    store_position(store, &position);
    store_close(store);
    if (without)
        diag("%u records lack their data", without);
    _exit(without ? 11 : position.lsn != 2 + 2 * 32 ? 12 : check_store(path, CHECK_DATA, tell, NULL) ? 13 : 0);
}

static unsigned segment_files(void) {
    char pattern[600];
    glob_t found = {0};
    snprintf(pattern, sizeof pattern, "%s/data/*.seg", path);
    glob(pattern, 0, NULL, &found);
    unsigned count = (unsigned)found.gl_pathc;
    globfree(&found);
    return count;
}

/* The newest slot rots when blocks have been punched and segments unlinked: whatever the state before it names is there. */
static void test_rotten_after_punch(void) {
    unsigned files = 0;
    options.checkpoint_ms = options.commit_ms = 3600000;
    options.no_history = true;
    for (checkpoints = 1; checkpoints <= 7; checkpoints++) {
        char name[32];
        snprintf(name, sizeof name, "punched-%d", checkpoints);
        format_store(name);
        is_int(0, child_run(overwrite_and_die), "a process dies after %d checkpoints", checkpoints);
        files = segment_files();
        rot_newest_slot();
        is_int(0, child_run(look_at_rotten), "opened at the last but one: all that it names is there (%u segments)", files);
    }
    ok(files <= 5, "in the end the dead segments were gone");
    options.checkpoint_ms = options.commit_ms = 0;
    options.no_history = false;
}

int main(void) {
    plan_lazy();
    test_deaths();
    test_refused();
    test_rotten_slot();
    test_rotten_after_punch();
    return 0;
}
