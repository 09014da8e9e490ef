/* The store without operations on top: records made by hand, closed and killed and opened again, undone, trimmed. */
#include "fs/store_internal.h"
#include "tests/handmade.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <xxhash.h>

static struct store *fresh(const char *name) {
    format_store(name);
    return must_open();
}

static void test_open_again(void) {
    struct store *store = fresh("again");
    struct position before, after;
    store_lock(store);
    is_int(-EROFS, store_admit(store, SPACE_GROW), "no changes without an epoch");
    store_unlock(store);
    is_int(0, store_start_epoch(store, EPOCH_MAKE(1, 7), "a"), "an epoch starts");
    is_int(-ERANGE, store_start_epoch(store, EPOCH_MAKE(1, 9), "b"), "not twice the same counter");
    uint64_t ino = create_file(store, "one");
    ok(ino == (1ull << 40 | 2), "the inode number carries the epoch");
    ok(write_blocks(store, ino, 0, 3, 1) != 0, "a small write");
    ok(write_blocks(store, ino, 1, 200, 5) != 0, "a large write");
    struct store *second = NULL;
    is_int(-EBUSY, store_open(path, NULL, &options, &second, why, sizeof why), "a second open is refused");
    store_position(store, &before);
    store_close(store);
    store = must_open();
    store_position(store, &after);
    is_int((int64_t)before.lsn, (int64_t)after.lsn, "closed and opened: same LSN");
    is_blob(before.chain, after.chain, CHAIN_SIZE, "same chain");
    is_int((int64_t)after.lsn, (int64_t)after.durable, "all of it durable");
    struct entry *entry = NULL;
    is_int(0, store_read(store, after.lsn, &entry), "a record is read from the journal");
    uint8_t *data = malloc(200 * BATON_BLOCK);
    is_int(0, entry ? entry_payload(store, entry, data) : -1, "with its data");
    ok(data[0] == 5 && data[199 * BATON_BLOCK] == (uint8_t)(5 + 199), "the right data");
    free(data);
    entry_put(entry);
    store_close(store);
    uint8_t other[STORE_ID_SIZE] = "another volume.";
    is_int(-EXDEV, store_open(path, other, &options, &store, why, sizeof why), "another volume's store is refused");
}

static void test_killed(void) {
    struct store *store = fresh("killed");
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    store_close(store);
    for (int round = 0; round < 5; round++) {
        int pipes[2];
        if (pipe(pipes))
            bail("pipe");
        pid_t child = fork();
        if (child == 0) {
            struct store *mine = must_open();
            struct position position;
            store_start_epoch(mine, EPOCH_MAKE(round + 2, 7), "a");
            for (int i = 0; i < 300; i++) {
                char name[32];
                snprintf(name, sizeof name, "%d-%d", round, i);
                uint64_t ino = create_file(mine, name);
                write_blocks(mine, ino, 0, 1 + (uint32_t)(i % 40), (uint8_t)i);
            }
            store_position(mine, &position);
            if (write(pipes[1], &position, sizeof position) != sizeof position)
                _exit(2);
            _exit(0); /* no close: as if killed */
        }
        close(pipes[1]);
        struct position said = {0}, seen;
        ssize_t n = read(pipes[0], &said, sizeof said);
        close(pipes[0]);
        int status;
        waitpid(child, &status, 0);
        is_int(sizeof said, n, "the child worked");
        store = must_open();
        store_position(store, &seen);
        is_int((int64_t)said.lsn, (int64_t)seen.lsn, "everything appended is there after a kill");
        is_blob(said.chain, seen.chain, CHAIN_SIZE, "with the same chain");
        store_close(store);
    }
}

static int give(struct store *store, const struct taken *taken) {
    return store_receive(store, taken->entry->bytes, taken->entry->length, taken->payload, taken->payload_length);
}

static void test_receive(void) {
    struct store *a = fresh("ra");
    char path_a[512];
    memcpy(path_a, path, sizeof path);
    struct store *b = fresh("rb");
    store_start_epoch(a, EPOCH_MAKE(1, 7), "a");
    uint64_t ino = create_file(a, "f");
    write_blocks(a, ino, 0, 5, 9);
    write_blocks(a, ino, 2, 100, 77);
    struct position pa, pb;
    store_position(a, &pa);
    int bad = 0;
    for (uint64_t lsn = 1; lsn <= pa.lsn; lsn++) {
        struct taken taken = take_record(a, lsn);
        bad += taken.error != 0;
        if (taken.payload_length) {
            taken.payload[3] ^= 1;
            bad += give(b, &taken) != -EBADMSG;
            taken.payload[3] ^= 1;
        }
        bad += give(b, &taken) != 0;
        bad += give(b, &taken) != -EEXIST;
        take_back(&taken);
    }
    is_int(0, bad, "a second store takes all records once, and none whose data is wrong");
    store_position(b, &pb);
    is_int((int64_t)pa.lsn, (int64_t)pb.lsn, "it stands where the first one stands");
    is_blob(pa.chain, pb.chain, CHAIN_SIZE, "with the same chain");
    store_close(a);
    store_close(b);
}

static void test_undo(void) {
    struct store *store = fresh("undo");
    struct position middle, end;
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    uint64_t ino = create_file(store, "f");
    write_blocks(store, ino, 0, 50, 1);
    store_position(store, &middle);
    for (int i = 0; i < 1000; i++)
        write_blocks(store, ino, (uint64_t)(i % 60), 1 + (uint32_t)(i % 3), (uint8_t)i);
    is_int(-EBUSY, store_undo(store, middle.lsn), "a primary is not undone");
    store_stop_epoch(store);
    is_int(0, store_undo(store, middle.lsn), "undone");
    store_position(store, &end);
    is_int((int64_t)middle.lsn, (int64_t)end.lsn, "back at the LSN");
    is_blob(middle.chain, end.chain, CHAIN_SIZE, "and its chain");
    store_close(store);
    store = must_open();
    store_position(store, &end);
    is_int((int64_t)middle.lsn, (int64_t)end.lsn, "and still after opening again");
    is_int(-ERANGE, store_start_epoch(store, EPOCH_MAKE(1, 7), "a"), "the old epoch is not started again");
    is_int(0, store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "a new one is");
    ok(write_blocks(store, ino, 0, 2, 3) != 0, "and writes go on");
    store_close(store);
}

static void test_incarnation(void) {
    struct store *store = fresh("one");
    uint8_t first[STORE_ID_SIZE];
    char command[1400];
    memcpy(first, store_incarnation(store), sizeof first);
    store_close(store);
    store = must_open();
    is_blob(first, store_incarnation(store), sizeof first, "opened again: the same incarnation");
    store_close(store);
    snprintf(command, sizeof command, "cp -a %s %s-copy", path, path);
    if (system(command) != 0)
        bail("cp");
    strcat(path, "-copy");
    store = must_open();
    ok(memcmp(first, store_incarnation(store), sizeof first) != 0, "a copy is another incarnation");
    memcpy(first, store_incarnation(store), sizeof first);
    store_close(store);
    store = must_open();
    is_blob(first, store_incarnation(store), sizeof first, "and stays that");
    store_close(store);
    snprintf(command, sizeof command, "rm -r %s", getenv("BATON_RUN"));
    if (system(command) != 0)
        bail("rm");
    store = must_open();
    ok(memcmp(first, store_incarnation(store), sizeof first) != 0, "without a mark nobody knows: another incarnation");
    memcpy(first, store_incarnation(store), sizeof first);
    store_close(store);
    store = must_open();
    is_blob(first, store_incarnation(store), sizeof first, "which it stays");
    store_close(store);
}

/* Both slots of the checkpoint, as if the store had been used last in another boot, on another disk or in another
 * folder: a byte of the field changes. */
static void change_slots(size_t field) {
    struct checkpoint slot;
    char file[600];
    snprintf(file, sizeof file, "%s/checkpoint", path);
    AUTO_CLOSE int fd = open(file, O_RDWR);
    for (off_t at = 0; at <= 8192; at += 8192) {
        if (pread(fd, &slot, sizeof slot, at) != sizeof slot)
            bail("pread");
        ((uint8_t *)&slot)[field] ^= 1;
        slot.check = XXH3_64bits(&slot, offsetof(struct checkpoint, check));
        if (pwrite(fd, &slot, sizeof slot, at) != sizeof slot)
            bail("pwrite");
    }
}

/* What a newer program has used in the store. */
static void test_features(void) {
    char said[400] = "";
    struct store *store = fresh("features");
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    store_close(store);
    change_slots(offsetof(struct checkpoint, features)); /* the lowest bit */
    for (unsigned i = 0; i < 3; i++) { /* each open makes checkpoints in both slots */
        store = must_open();
        create_file(store, "file");
        store_close(store);
    }
    change_slots(offsetof(struct checkpoint, features));
    struct checkpoint slot;
    char file[600];
    snprintf(file, sizeof file, "%s/checkpoint", path);
    AUTO_CLOSE int fd = open(file, O_RDONLY);
    is_int(sizeof slot, pread(fd, &slot, sizeof slot, 0), "the checkpoint is read");
    is_int(0, slot.features, "an optional feature that is not known stays noted");
    change_slots(offsetof(struct checkpoint, features) + 3);
    is_int(-EPROTONOSUPPORT, store_open(path, NULL, &options, &store, said, sizeof said), "a required one is refused");
    ok(strstr(said, "upgrade this node") != NULL, "with what to do: %s", said);
    change_slots(offsetof(struct checkpoint, features) + 3);
    store = must_open();
    store_close(store);
}

/* In doubt whether a store has all that it acknowledged it is another incarnation. Whoever opens it first notes that,
 * were it a tool that only looks: the next one sees a new incarnation, not an old one in the boot of its last user. */
static void test_other_life(void) {
    static const struct {
        const char *what;
        size_t field;
    } lives[] = {{"another boot", offsetof(struct checkpoint, boot)},
                 {"another disk", offsetof(struct checkpoint, device)},
                 {"another folder", offsetof(struct checkpoint, directory)}};
    uint8_t first[STORE_ID_SIZE], second[STORE_ID_SIZE];
    struct store *store = fresh("life");
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    for (unsigned i = 0; i < 3; i++) {
        memcpy(first, store_incarnation(store), sizeof first);
        store_close(store);
        change_slots(lives[i].field);
        pid_t child = fork();
        if (child == 0) { /* looks, and is killed */
            store = must_open();
            _exit(0);
        }
        int status = -1;
        waitpid(child, &status, 0);
        is_int(0, status, "%s: opened first by somebody else", lives[i].what);
        store = must_open();
        memcpy(second, store_incarnation(store), sizeof second);
        ok(memcmp(first, second, sizeof first) != 0, "%s: another incarnation", lives[i].what);
        store_close(store);
        store = must_open();
        is_blob(second, store_incarnation(store), sizeof second, "%s: which it stays", lives[i].what);
    }
    store_close(store);
}

static int feed(struct store *from, struct store *to) {
    struct position have, end;
    int rc = 0;
    store_position(to, &have);
    store_position(from, &end);
    for (uint64_t lsn = have.lsn + 1; rc == 0 && lsn <= end.lsn; lsn++) {
        struct taken taken = take_record(from, lsn);
        rc = taken.error ? taken.error : give(to, &taken);
        take_back(&taken);
    }
    return rc;
}

static uint32_t place_of(struct store *store, uint64_t lsn) {
    struct entry *entry = NULL;
    if (store_read(store, lsn, &entry) != 0 || entry->place_count == 0)
        bail("store_read");
    uint32_t position = entry->places[0].position;
    entry_put(entry);
    return position;
}

/* Where a block lies is each node's own business: places differ, chains do not. A node that has its last records in its
 * tail only is killed after the other one, promoted, has written at the places where those lie here. */
static void test_places_differ(void) {
    char path_a[512];
    options.checkpoint_ms = 3600000;
    struct store *a = fresh("pa");
    memcpy(path_a, path, sizeof path);
    struct store *b = fresh("pb");
    struct position pa, pb;
    struct place places[STORE_PLACES_MAX];
    uint32_t count = 0;
    store_lock(b);
    int rc = store_allocate(b, 70, places, &count);
    if (rc == 0)
        store_release(b, places, count);
    store_unlock(b);
    is_int(0, rc, "b has used a part of its segment already");
    store_start_epoch(a, EPOCH_MAKE(1, 7), "a");
    uint64_t ino = create_file(a, "f"), small = write_blocks(a, ino, 0, 5, 1), large = write_blocks(a, ino, 5, 100, 7);
    is_int(0, feed(a, b), "b takes a's records");
    ok(place_of(a, small) != place_of(b, small) && place_of(a, large) != place_of(b, large), "data lies elsewhere");
    store_position(a, &pa);
    store_position(b, &pb);
    is_blob(pa.chain, pb.chain, CHAIN_SIZE, "the chains are equal");
    store_stop_epoch(a);
    is_int(0, store_start_epoch(b, EPOCH_MAKE(2, 8), "b"), "b is promoted");
    ok(write_blocks(b, ino, 50, 90, 30) != 0 && write_blocks(b, ino, 0, 3, 60) != 0, "and writes");
    store_position(b, &pb);
    store_close(a);
    memcpy(path, path_a, sizeof path);
    pid_t child = fork();
    if (child == 0) {
        a = must_open();
        _exit(feed(b, a) == 0 ? 0 : 1); /* killed, with all of that in its tail only */
    }
    int status = -1;
    waitpid(child, &status, 0);
    is_int(0, status, "a takes b's records and is killed");
    a = must_open();
    store_position(a, &pa);
    is_int((int64_t)pb.lsn, (int64_t)pa.lsn, "a has all of them");
    is_blob(pb.chain, pa.chain, CHAIN_SIZE, "with the same chain");
    is_int(0, records_without_data(a) + records_without_data(b), "all data is right on both");
    store_close(a);
    store_close(b);
    options.checkpoint_ms = 0;
}

/* The newest checkpoint's slot is torn, as a power cut may leave it: the one before serves. Both: a sentence. */
static void test_torn_slot(void) {
    struct store *store = fresh("torn");
    struct position position;
    char file[600];
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    create_file(store, "f");
    store_close(store);
    snprintf(file, sizeof file, "%s/checkpoint", path);
    for (int both = 0; both < 2; both++) {
        if (!both) {
            rot_newest_slot();
            store = must_open();
            store_position(store, &position);
            is_int(2, (int64_t)position.lsn, "with a torn newest slot everything is there");
            store_close(store);
        } else {
            AUTO_CLOSE int fd = open(file, O_RDWR);
            if (pwrite(fd, "xxxx", 4, 200) != 4 || pwrite(fd, "xxxx", 4, 8192 + 200) != 4)
                bail("pwrite");
            is_int(-EIO, store_open(path, NULL, &options, &store, why, sizeof why), "with both: %s", why);
        }
    }
}

/* A place that is reserved while a checkpoint is made, given back, and followed by another write: replay meets a record
 * that lies partly below the head which the checkpoint knows. */
static void test_released_over_checkpoint(void) {
    options.checkpoint_ms = 3600000;
    struct store *store = fresh("released");
    store_close(store);
    pid_t child = fork();
    if (child == 0) {
        struct store *mine = must_open();
        struct place places[STORE_PLACES_MAX];
        uint32_t count = 0;
        store_start_epoch(mine, EPOCH_MAKE(1, 7), "a");
        uint64_t ino = create_file(mine, "f");
        store_lock(mine);
        int rc = store_allocate(mine, 10, places, &count);
        store_unlock(mine);
        rc = rc ? rc : store_checkpoint(mine);
        store_lock(mine);
        store_release(mine, places, count);
        store_unlock(mine);
        uint64_t lsn = write_blocks(mine, ino, 0, 20, 3);
        _exit(rc == 0 && lsn && store_sync(mine, lsn) == 0 ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    is_int(0, status, "the child worked");
    child = fork(); /* an open that fails may end its process */
    if (child == 0) {
        struct position position;
        struct store *mine = must_open();
        store_position(mine, &position);
        _exit(position.lsn == 3 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    is_int(0, status, "killed and opened: the record over a place that was given back is there");
    options.checkpoint_ms = 0;
}

/* Killed while a further tail file was being written with zeros: the short file serves like any other. */
static void test_short_tail_file(void) {
    struct store *store = fresh("short");
    char file[640];
    struct position position;
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    uint64_t ino = create_file(store, "f");
    store_close(store);
    snprintf(file, sizeof file, "%s/tail/4", path);
    unlink(file);
    int fd = open(file, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 10000) != 0)
        bail("cannot make a short tail file");
    close(fd);
    store = must_open();
    struct stat st;
    ok(stat(file, &st) == 0 && st.st_size == (off_t)options.tail_size, "the short file is made whole");
    store_start_epoch(store, EPOCH_MAKE(2, 7), "a");
    uint64_t lsn = write_blocks(store, ino, 0, 5, 1);
    is_int(0, store_sync(store, lsn), "work goes on");
    store_close(store);
    store = must_open();
    store_position(store, &position);
    is_int((int64_t)lsn, (int64_t)position.lsn, "and is there when it is opened again");
    store_close(store);
}

/* The newest slot is unreadable and pages of the state before are not what they were: that is found out without the
 * death of the process (liblmdb dies of most damaged pages). */
static void test_torn_and_damaged(void) {
    struct store *store = fresh("damaged");
    uint64_t random = test_seed();
    char base[520], file[600], command[2200], name[32];
    unsigned refused = 0, died = 0;
    memcpy(base, path, sizeof path);
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "f%d", i);
        create_file(store, name);
    }
    store_close(store);
    snprintf(path, sizeof path, "%.400s-copy", base);
    for (int round = 0; round < 30; round++) {
        snprintf(command, sizeof command, "rm -rf %s && cp -a %s %s", path, base, path);
        if (system(command) != 0)
            bail("cp");
        snprintf(file, sizeof file, "%s/checkpoint", path);
        int fd = open(file, O_RDWR);
        struct checkpoint slots[2];
        for (int slot = 0; slot < 2; slot++)
            if (pread(fd, &slots[slot], sizeof slots[slot], slot * 8192) != sizeof slots[slot])
                bail("pread");
        int newest = slots[1].number > slots[0].number;
        uint64_t last_page;
        memcpy(&last_page, slots[!newest].page + 136, sizeof last_page);
        if (pwrite(fd, "xxxx", 4, newest * 8192 + 200) != 4)
            bail("pwrite");
        close(fd);
        snprintf(file, sizeof file, "%s/meta/data.mdb", path);
        fd = open(file, O_RDWR);
        for (int i = 0; i < 40; i++) { /* few and small: much damage is seen through at once */
            uint64_t bytes[4];
            for (int j = 0; j < 4; j++)
                bytes[j] = test_random(&random);
            if (pwrite(fd, bytes, sizeof bytes, 8192 + (off_t)(test_random(&random) % (last_page * 4096 - 8192))) !=
                sizeof bytes)
                bail("pwrite");
        }
        close(fd);
        pid_t child = fork();
        if (child == 0) {
            if (store_open(path, NULL, &options, &store, why, sizeof why) == -EIO)
                _exit(1);
            store_start_epoch(store, EPOCH_MAKE(2, 7), "a"); /* else it was whole: it can be changed, too */
            for (int i = 0; i < 300; i++) {
                snprintf(name, sizeof name, "g%d", i);
                create_file(store, name);
            }
            store_close(store);
            _exit(0);
        }
        int status = -1;
        waitpid(child, &status, 0);
        refused += WIFEXITED(status) && WEXITSTATUS(status) == 1;
        died += !WIFEXITED(status) || WEXITSTATUS(status) > 1;
    }
    ok(refused >= 5, "a torn slot and a damaged database: refused %u times of 30", refused);
    is_int(0, died, "what is not refused can be opened and changed");
}

static uint64_t disk_used(void) {
    char command[1100];
    unsigned long long kib = 0;
    snprintf(command, sizeof command, "du -sk %s/data", path);
    FILE *pipe = popen(command, "r");
    if (!pipe || fscanf(pipe, "%llu", &kib) != 1)
        bail("du");
    pclose(pipe);
    return kib << 10;
}

static void test_space_comes_back(void) {
    options.history_bytes = 4u << 20;
    options.checkpoint_ms = 100;
    struct store *store = fresh("punch");
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    uint64_t ino = create_file(store, "f");
    for (int round = 0; round < 10; round++)
        for (uint32_t at = 0; at < 8192; at += 256) /* 32 MiB */
            if (!write_blocks(store, ino, at, 256, (uint8_t)round))
                bail("write");
    struct store_space space = {0};
    int64_t deadline = clock_boot() + 20000000000;
    do {
        store_checkpoint(store);
        store_space(store, &space);
    } while ((space.dead > 0 || space.kept > 4u << 20) && clock_boot() < deadline);
    is_int(32 << 20, (int64_t)space.live, "32 MiB are live");
    is_int(0, (int64_t)space.dead, "nothing waits to be punched");
    uint64_t used = disk_used();
    ok(used < 52u << 20, "ten overwrites leave %llu MiB on disk", (unsigned long long)(used >> 20));
    store_close(store);
    store = must_open();
    store_space(store, &space);
    is_int(32 << 20, (int64_t)space.live, "and after opening again 32 MiB are live");
    store_close(store);
    options.history_bytes = 1ull << 30;
    options.checkpoint_ms = 0;
}

/* Between its open and the first word about other nodes a store must not trim what those may lack, however little history is
 * wanted. */
static void test_holds_until_told(void) {
    struct store_options before = options;
    struct position position;
    options.no_history = options.hold_all = true;
    struct store *store = fresh("holds");
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    create_file(store, "f");
    for (int i = 0; i < 4; i++)
        store_checkpoint(store);
    store_close(store);
    store = must_open();
    for (int i = 0; i < 4; i++)
        store_checkpoint(store);
    store_position(store, &position);
    is_int(1, (int64_t)position.first, "nothing is trimmed before it is said what others have");
    store_set_hold(store, UINT64_MAX, UINT64_MAX);
    for (int i = 0; i < 50 && position.first <= position.lsn; i++) {
        create_file(store, (char[]){'g', (char)('a' + i % 26), (char)('a' + i / 26), 0});
        store_checkpoint(store);
        usleep(10000);
        store_position(store, &position);
    }
    ok(position.first > 1, "then it is");
    store_close(store);
    options = before;
}

int main(void) {
    plan_lazy();
    test_open_again();
    test_killed();
    test_receive();
    test_undo();
    test_incarnation();
    test_other_life();
    test_features();
    test_places_differ();
    test_torn_slot();
    test_torn_and_damaged();
    test_released_over_checkpoint();
    test_short_tail_file();
    test_space_comes_back();
    test_holds_until_told();
    return 0;
}
