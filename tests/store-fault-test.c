/* A disk that fails: writes and flushes of the store's files are refused for a while.
 *
 * A refused commit is made good from memory; a refused fsync or tail write ends the process, and the next open has
 * everything that was said to be durable.
 */
#include "fs/check.h"
#include "fs/store_internal.h"
#include "tests/disk-fault.h"
#include "tests/handmade.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define FILES 12000 /* several batches */

static const char *_Atomic refuse_file; /* part of the path; NULL: all is well */
static atomic_int refuse_writes, refuse_syncs; /* errno to give, 0: none */
static atomic_int refused;

static const char *_Atomic counted_file; /* part of the path */
static _Atomic uint64_t counted; /* bytes written to it */

static int refuse(enum disk_call call, const char *file, size_t length) {
    const char *wanted = counted_file, *part = refuse_file;
    int error = call == DISK_WRITE ? atomic_load(&refuse_writes) : call == DISK_SYNC ? atomic_load(&refuse_syncs) : 0;
    if (call == DISK_WRITE && wanted && strstr(file, wanted))
        counted += length;
    if (!error || !part || !strstr(file, part))
        return 0;
    atomic_fetch_add(&refused, 1);
    return error;
}

static atomic_bool end_at_punch, no_room;
int fallocate(int fd, int mode, off_t offset, off_t length) {
    if (mode == 0 && atomic_load(&no_room)) {
        errno = ENOSPC;
        return -1;
    }
    int rc = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode & FALLOC_FL_PUNCH_HOLE && atomic_load(&end_at_punch))
        _exit(0);
    return rc;
}

static void test_commit_refused(void) {
    format_store("commit");
    struct store *store = must_open();
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    int made = 0, written = 0;
    struct position before, after;
    struct place held[STORE_PLACES_MAX];
    uint32_t held_count = 0;
    refuse_file = "/commit/meta/data.mdb";
    for (int i = 0; i < 400; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%d", i);
        if (i == 100)
            atomic_store(&refuse_writes, ENOSPC);
        if (i == 101) { /* somebody is about to write data when a commit is refused */
            store_lock(store);
            int before_that = atomic_load(&refused);
            if (store_allocate(store, 10, held, &held_count) != 0)
                bail("store_allocate");
            store_unlock(store);
            int64_t deadline = clock_boot() + 10000000000;
            while (atomic_load(&refused) == before_that && clock_boot() < deadline)
                usleep(1000); /* poll interval */
            atomic_store(&refuse_writes, 0);
        }
        if (i == 110) {
            store_lock(store);
            store_release(store, held, held_count);
            store_unlock(store);
        }
        uint64_t ino = create_file(store, name);
        made += ino != 0;
        written += ino && write_blocks(store, ino, 0, 1 + (uint32_t)i % 9, (uint8_t)i) != 0;
    }
    refuse_file = NULL;
    ok(atomic_load(&refused) > 0, "%d writes of the database were refused", atomic_load(&refused));
    is_int(400, made, "every file was made");
    is_int(400, written, "and written");
    store_position(store, &before);
    is_int(801, (int64_t)before.lsn, "nothing was numbered twice or left out");
    struct store_space space;
    store_space(store, &space);
    uint64_t live = space.live;
    store_close(store);
    store = must_open();
    store_position(store, &after);
    is_int(801, (int64_t)after.lsn, "all is there when it is opened again");
    is_blob(before.chain, after.chain, CHAIN_SIZE, "with the same chain");
    store_space(store, &space);
    is_int((int64_t)live, (int64_t)space.live, "and the same data in the map");
    is_int(0, (int64_t)space.kept, "no block is counted twice");
    store_close(store);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "and none belongs to nobody");
}

/* Works in a child until the disk refuses; gives the last LSN that was said to be durable, and how the child ended. */
static uint64_t work_until_refused(const char *file, atomic_int *which, int error, int *status) {
    int pipes[2];
    uint64_t durable = 0, said;
    if (pipe(pipes))
        bail("pipe");
    pid_t child = fork();
    if (child == 0) {
        struct store *store = must_open();
        store_start_epoch(store, EPOCH_MAKE(5, 7), "a");
        for (int i = 0; i < 2000; i++) {
            char name[32];
            snprintf(name, sizeof name, "w%d", i);
            if (i == 200) {
                refuse_file = file;
                atomic_store(which, error);
            }
            uint64_t ino = create_file(store, name);
            uint64_t lsn = write_blocks(store, ino, 0, 20, (uint8_t)i);
            if (i % 10 == 0 && store_sync(store, lsn) == 0 && write(pipes[1], &lsn, sizeof lsn) != sizeof lsn)
                _exit(3);
        }
        _exit(4);
    }
    close(pipes[1]);
    while (read(pipes[0], &said, sizeof said) == sizeof said)
        durable = said;
    close(pipes[0]);
    waitpid(child, status, 0);
    return durable;
}

static void test_ends(const char *name, const char *file, atomic_int *which, int error, unsigned checkpoint_ms) {
    format_store(name);
    int status = 0;
    char part[64];
    options.checkpoint_ms = checkpoint_ms;
    snprintf(part, sizeof part, "/%s/%s", name, file);
    uint64_t durable = work_until_refused(part, which, error, &status);
    ok(durable > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 70,
       "%s: the process ended by itself (status %x, durable %llu)", name, (unsigned)status,
       (unsigned long long)durable);
    struct store *store = must_open();
    struct position position;
    store_position(store, &position);
    ok(position.lsn >= durable, "%s: opened again, LSN %llu has all up to %llu", name,
       (unsigned long long)position.lsn, (unsigned long long)durable);
    is_int(0, store_start_epoch(store, EPOCH_MAKE(6, 7), "a"), "%s: and work goes on", name);
    ok(create_file(store, "later") != 0, "%s: a file is made", name);
    store_close(store);
    options.checkpoint_ms = 50;
}

/* A flush of `file` fails, which the kernel tells once. What was to be flushed is in the page cache still, and nothing
 * says that the disk lacks it: so the next open writes again what it takes over from there, and the flush that follows
 * means it. */
static void test_written_again(const char *name, const char *file, uint64_t least) {
    char part[64];
    int status = -1;
    format_store(name);
    options.checkpoint_ms = 3600000;
    snprintf(part, sizeof part, "/%s/%s", name, file);
    pid_t child = fork();
    if (child == 0) {
        struct store *store = must_open();
        store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
        uint64_t ino = create_file(store, "f"), lsn = write_blocks(store, ino, 0, 100, 1);
        refuse_file = part;
        atomic_store(&refuse_syncs, EIO);
        store_sync(store, lsn);
        store_checkpoint(store);
        _exit(1);
    }
    waitpid(child, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 70, "%s: a failed flush ends the process (status %x)", name,
       (unsigned)status);
    counted_file = part;
    counted = 0;
    struct store *store = must_open();
    counted_file = NULL;
    ok(counted >= least, "%s: the next open writes %llu bytes of it again", name, (unsigned long long)counted);
    store_close(store);
    options.checkpoint_ms = 50;
}

/* A store whose tail holds more than one batch is opened after a kill; the new process is killed in its turn, before its
 * first checkpoint is made, but after it has committed some of the tail. What the older checkpoint names is still whole. */
static void test_open_killed(void) {
    format_store("open");
    options.checkpoint_ms = 3600000;
    options.tail_size = 16u << 20;
    store_close(must_open());
    pid_t child = fork();
    if (child == 0) {
        struct store *store = must_open();
        store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
        bool made = true;
        for (int i = 0; i < FILES; i++) {
            char name[32];
            snprintf(name, sizeof name, "f%d", i);
            made = made && create_file(store, name) != 0;
        }
        _exit(made ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    is_int(0, status, "open: files are made, and the process is killed");
    child = fork();
    if (child == 0) { /* ends when it flushes the database for its checkpoint */
        refuse_file = "/open/meta/data.mdb";
        atomic_store(&refuse_syncs, EIO);
        must_open();
        _exit(1);
    }
    waitpid(child, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 70, "open: the next one ends before its checkpoint (status %x)",
       (unsigned)status);
    child = fork(); /* a database that is not whole may end its process */
    if (child == 0) {
        struct position position;
        struct store *store = must_open();
        store_position(store, &position);
        store_close(store);
        _exit(position.lsn == FILES + 1 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    is_int(0, status, "open: the one after that has all files");
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "open: and check has nothing to say");
}

static unsigned data_mib(void) {
    char command[600];
    unsigned kib = 0;
    snprintf(command, sizeof command, "du -sk %s/data", path);
    FILE *pipe = popen(command, "r");
    if (!pipe || fscanf(pipe, "%u", &kib) != 1)
        bail("du");
    pclose(pipe);
    return kib >> 10;
}

/* Killed when the first dead blocks have been punched: a checkpoint has the trim that made them dead, so no record in the
 * journal lacks its data, and the next process frees the rest. */
static void test_killed_at_punch(void) {
    struct store_space space = {0};
    format_store("punch");
    options.checkpoint_ms = 3600000;
    options.history_bytes = 1u << 20;
    pid_t child = fork();
    if (child == 0) {
        struct store *store = must_open();
        store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
        uint64_t ino = create_file(store, "f");
        for (uint32_t at = 0; at < 8192; at += 64) /* 32 MiB */
            write_blocks(store, ino, at, 64, 1);
        for (uint32_t at = 0; at < 8192; at += 128) /* half of it, in all segments */
            write_blocks(store, ino, at, 64, 2);
        atomic_store(&end_at_punch, true);
        for (int i = 0; i < 10; i++)
            store_checkpoint(store);
        sleep(10); /* the punch comes after the checkpoint */
        _exit(1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    is_int(0, status, "punch: killed at the first one");
    unsigned before = data_mib();
    struct store *store = must_open();
    is_int(0, records_without_data(store), "punch: every record that is left has its data");
    int64_t deadline = clock_boot() + 20000000000;
    do {
        store_checkpoint(store);
        store_space(store, &space);
    } while ((space.dead > 0 || space.kept > 1u << 20) && clock_boot() < deadline);
    is_int(32 << 20, (int64_t)space.live, "punch: 32 MiB are live");
    is_int(0, (int64_t)space.dead, "punch: nothing waits");
    unsigned after = data_mib();
    ok(after < 42, "punch: %u MiB on disk, then %u", before, after);
    store_close(store);
    options.checkpoint_ms = 50;
    options.history_bytes = 0;
}

/* Nothing is set aside behind the database, and a long row that goes in the batch that it came in was given pages at the end:
 * LMDB counts them, and never writes them. */
static void test_pages_not_written(void) {
    static uint8_t value[60000];
    struct key key = {.length = 4};
    memcpy(key.bytes, "long", 4);
    char file[600];
    uint64_t last_page;
    struct stat st;
    format_store("not-written");
    struct store *store = must_open();
    store_checkpoint(store);
    memcpy(&last_page, store->last_checkpoint.page + 136, sizeof last_page);
    store_close(store);
    snprintf(file, sizeof file, "%s/meta/data.mdb", path);
    if (truncate(file, (off_t)((last_page + 4) * META_PAGE)) < 0) /* what an earlier life set aside */
        bail("truncate");
    atomic_store(&no_room, true);
    store = must_open();
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%d", i);
        create_file(store, name);
        store_checkpoint(store);
    }
    store_lock(store);
    int rc = table_put_raw(store, TABLE_META, &key, value, sizeof value);
    if (rc == 0)
        rc = table_remove_raw(store, TABLE_META, &key);
    store_unlock(store);
    is_int(0, rc, "not written: a long row comes and goes");
    store_checkpoint(store);
    memcpy(&last_page, store->last_checkpoint.page + 136, sizeof last_page);
    if (fstat(store->meta_fd, &st) < 0)
        bail("fstat");
    ok((uint64_t)st.st_size > last_page * META_PAGE,
       "not written: the file (%llu bytes) has its last page, %llu", (unsigned long long)st.st_size, (unsigned long long)last_page);
    store_close(store);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "not written: check finds nothing");
    store_close(must_open());
    atomic_store(&no_room, false);
}

int main(void) {
    plan_lazy();
    options.commit_ms = 10;
    options.checkpoint_ms = 50;
    disk_fault_set(refuse);
    test_commit_refused();
    /* A checkpoint flushes tail and segments too: without one, it is those who wait in fsync that must not hear of success. */
    test_ends("tail-sync", "tail/", &refuse_syncs, EIO, 3600000);
    test_ends("tail-write", "tail/", &refuse_writes, EIO, 50);
    test_ends("segment-sync", "data/", &refuse_syncs, EIO, 3600000);
    test_ends("checkpoint-sync", "checkpoint", &refuse_syncs, EIO, 50);
    test_ends("database-sync", "meta/data.mdb", &refuse_syncs, EIO, 50);
    test_ends("database-write", "meta/data.mdb", &refuse_writes, EIO, 50);
    test_written_again("again-data", "data/", 100 * BATON_BLOCK);
    test_written_again("again-slot", "checkpoint", 2 * 8192); /* the one that it came from, and its own */
    test_killed_at_punch();
    test_pages_not_written();
    test_open_killed();
    return 0;
}
