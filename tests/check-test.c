/* baton check: nothing to say of a whole store; every kind of contradiction is found; random bytes in any file end in
 * findings, never in a crash or a hang. */
#include "fs/apply.h"
#include "fs/check.h"
#include "fs/store_internal.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

static uint64_t seed, dir_ino, file_ino, link_ino, orphan_ino, lsn;
static char last[2000], wanted[200];
static bool seen;
static unsigned copies;

static void note(void *context, const char *sentence) {
    (void)context;
    snprintf(last, sizeof last, "%s", sentence);
    if (wanted[0] && strstr(sentence, wanted))
        seen = true;
    if (getenv("BATON_VERBOSE"))
        diag("%s", sentence);
}

static int check_it(const char *name, const char *want) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    snprintf(wanted, sizeof wanted, "%s", want);
    last[0] = 0;
    seen = false;
    return check_store(path, CHECK_DATA, note, NULL);
}

/* A store with some of everything. */
static void populate(void) {
    static uint8_t bytes[600000];
    struct store *store = fixture_store("base", 1);
    struct attributes out;
    uint32_t left;
    char name[20];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)test_random(&seed);
    dir_ino = make(store, ROOT_INO, "dir", S_IFDIR | 0755);
    file_ino = make(store, dir_ino, "file", S_IFREG | 0644);
    link_ino = make(store, dir_ino, "symlink", S_IFLNK);
    op_link(store, file_ino, ROOT_INO, "hard", &out, &lsn);
    op_write(store, file_ino, bytes, sizeof bytes, 0, 0, &lsn);
    op_write(store, file_ino, bytes, 9000, 20000, 0, &lsn);
    op_fallocate(store, file_ino, 0, 600000, 100000, &lsn);
    op_setxattr(store, &root_caller, file_ino, "user.a", "b", 1, 0, false, &lsn);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "f%d", i);
        uint64_t ino = make(store, dir_ino, name, i % 10 ? S_IFREG | 0600 : S_IFDIR | 0700);
        if (i % 10)
            op_write(store, ino, bytes + i, 100 * (size_t)i, 0, 0, &lsn);
    }
    make(store, ROOT_INO, "gone", S_IFREG | 0600);
    op_unlink(store, ROOT_INO, "gone", &orphan_ino, &left, &lsn);
    store_close(store);
}

static const char *copy(void) {
    static char name[40];
    char command[1500];
    snprintf(name, sizeof name, "copy%u", ++copies);
    snprintf(command, sizeof command, "cd '%s' && rm -rf copy%u && cp -a base %s", test_directory(), copies - 1, name);
    if (system(command) != 0)
        bail("%s", command);
    return name;
}

/* ---- planted contradictions ---- */

static struct store *plant;

static void put(enum table table, struct key key, const void *value, size_t length) {
    if (table_put_raw(plant, table, &key, value, length) != 0)
        bail("table_put_raw");
}

static void take_out(enum table table, struct key key) {
    if (table_remove_raw(plant, table, &key) != 0)
        bail("table_remove_raw");
}

static struct inode_row row(uint64_t ino) {
    struct inode_row found;
    if (inode_get(plant, ino, &found) != 0)
        bail("inode_get");
    return found;
}

static void put_row(uint64_t ino, struct inode_row changed) {
    put(TABLE_INODE, key_u64(ino), &changed, sizeof changed);
}

static struct key name_key(uint64_t parent, const char *name) {
    return key_u64_name(parent, name, strlen(name));
}

static void no_dirent(void) {
    take_out(TABLE_DIRENT, name_key(dir_ino, "file"));
}
static void no_inode(void) {
    take_out(TABLE_INODE, key_u64(file_ino));
}
static void wrong_links(void) {
    struct inode_row r = row(file_ino);
    r.nlink = 7;
    put_row(file_ino, r);
}
static void wrong_dir_links(void) {
    struct inode_row r = row(dir_ino);
    r.nlink++;
    put_row(dir_ino, r);
}
static void wrong_dir_size(void) {
    struct inode_row r = row(dir_ino);
    r.size--;
    put_row(dir_ino, r);
}
static void wrong_blocks(void) {
    struct inode_row r = row(file_ino);
    r.blocks++;
    put_row(file_ino, r);
}
static void wrong_parent(void) {
    struct inode_row r = row(dir_ino);
    r.parent = file_ino;
    put_row(dir_ino, r);
}
static void wrong_xattrs(void) {
    struct inode_row r = row(file_ino);
    r.xattrs = 9;
    put_row(file_ino, r);
}
static void wrong_flags(void) {
    struct inode_row r = row(file_ino);
    r.flags |= INODE_ACL;
    put_row(file_ino, r);
}
static void short_file(void) {
    struct inode_row r = row(file_ino);
    r.size = 10000;
    put_row(file_ino, r);
}
static void same_data(void) {
    struct inode_row r = row(orphan_ino);
    r.data = row(file_ino).data;
    put_row(orphan_ino, r);
}
static void trim_unlisted(void) {
    struct inode_row r = row(file_ino);
    r.trim = 1000;
    put_row(file_ino, r);
}
static void no_orphan(void) {
    take_out(TABLE_ORPHAN, key_orphan(ORPHAN_INODE, orphan_ino));
}
static void false_orphan(void) {
    struct orphan_row r = {0, 0};
    put(TABLE_ORPHAN, key_orphan(ORPHAN_INODE, file_ino), &r, sizeof r);
}
static void wrong_type(void) {
    struct dirent_row entry;
    if (dirent_get(plant, dir_ino, "file", 4, &entry) != 0)
        bail("dirent_get");
    entry.type = S_IFIFO;
    put(TABLE_DIRENT, name_key(dir_ino, "file"), &entry, sizeof entry);
}
static void no_cookie(void) {
    struct dirent_row entry;
    if (dirent_get(plant, dir_ino, "file", 4, &entry) != 0)
        bail("dirent_get");
    take_out(TABLE_DIRCOOKIE, key_u64_u64(dir_ino, entry.cookie));
}
static void stray_cookie(void) {
    struct {
        struct dircookie_row row;
        char name[4];
    } __attribute__((packed)) value = {{file_ino, S_IFREG}, "nope"};
    put(TABLE_DIRCOOKIE, key_u64_u64(dir_ino, 5), &value, sizeof value);
}
static void stray_xattr(void) {
    put(TABLE_XATTR, name_key(123456789, "user.x"), "v", 1);
}
static void bad_acl(void) {
    put(TABLE_XATTR, name_key(file_ino, "system.posix_acl_access"), "nonsense", 8);
}
static void stray_extent(void) {
    struct extent_row r = {SEGMENT_NONE, 0, 5};
    put(TABLE_EXTENT, key_u64_u64(424242, 0), &r, sizeof r);
}
static void overlap(void) {
    struct extent_row r = {SEGMENT_NONE, 0, 50};
    put(TABLE_EXTENT, key_u64_u64(file_ino, 1), &r, sizeof r);
}
static void copy_place(uint32_t move) {
    struct key key = key_u64_u64(file_ino, 0);
    struct span value;
    uint8_t bytes[2000];
    struct extent_row r;
    if (table_get(plant, TABLE_EXTENT, &key, &value) != 0 || value.length > sizeof bytes)
        bail("table_get");
    memcpy(bytes, value.data, value.length);
    memcpy(&r, bytes, sizeof r);
    r.position += move;
    memcpy(bytes, &r, sizeof r);
    put(TABLE_EXTENT, key_u64_u64(file_ino, 100000), bytes, value.length);
}
static void used_twice(void) {
    copy_place(0);
}
static void beyond_head(void) {
    copy_place(4000);
}
static void wrong_live(void) {
    struct key key = {.length = 4};
    struct segment_row r;
    struct span value;
    be32_put(key.bytes, 1);
    if (table_get(plant, TABLE_SEGMENT, &key, &value) != 0)
        bail("table_get");
    memcpy(&r, value.data, sizeof r);
    r.live--;
    put(TABLE_SEGMENT, key, &r, sizeof r);
}
static void stray_dead(void) {
    struct dead_row r = {2, 1};
    struct key key = {.length = 8};
    be32_put(key.bytes, 1);
    be32_put(key.bytes + 4, 10);
    put(TABLE_DEAD, key, &r, sizeof r);
}
static void no_record(void) {
    take_out(TABLE_JOURNAL, key_u64(10));
}
static void changed_record(void) {
    struct key key = key_u64(10);
    struct span value;
    static uint8_t bytes[100000];
    if (table_get(plant, TABLE_JOURNAL, &key, &value) != 0)
        bail("table_get");
    memcpy(bytes, value.data, value.length);
    bytes[sizeof(struct journal_head) + 24] ^= 1; /* its time */
    put(TABLE_JOURNAL, key, bytes, value.length);
}
/* An attribute goes, and the inode's count with it: the state alone is whole. */
static void forgotten_attribute(void) {
    struct inode_row r = row(file_ino);
    take_out(TABLE_XATTR, name_key(file_ino, "user.a"));
    r.xattrs--;
    put_row(file_ino, r);
}
/* What a record replaced: an inode without a kind. */
static void impossible_image(void) {
    static uint8_t bytes[100000];
    for (uint64_t number = lsn; number > 0; number--) {
        struct key key = key_u64(number);
        struct span value;
        struct journal_row journal;
        struct undo_image image;
        uint32_t at = 0;
        if (table_get(plant, TABLE_JOURNAL, &key, &value) != 0)
            bail("table_get");
        memcpy(bytes, value.data, value.length);
        if (journal_row_parse((struct span){bytes, value.length}, &journal) != 0)
            bail("journal_row_parse");
        while (undo_next(&journal.undo, &at, &image) == 1)
            if (image.table == TABLE_INODE && image.existed) {
                struct inode_row changed;
                memcpy(&changed, image.value.data, sizeof changed);
                changed.mode = 0644;
                memcpy((uint8_t *)image.value.data, &changed, sizeof changed);
                put(TABLE_JOURNAL, key, bytes, value.length);
                return;
            }
    }
    bail("no record has replaced an inode");
}
static void odd_attribute(void) {
    struct inode_row r = row(dir_ino);
    put(TABLE_XATTR, key_u64_name(dir_ino, "a\0b", 3), "", 0);
    r.xattrs++;
    put_row(dir_ino, r);
}
static void no_epoch(void) {
    take_out(TABLE_EPOCH, key_u64(EPOCH_MAKE(1, 7)));
}
static void directory_loop(void) { /* two directories in each other, none below the root */
    struct inode_row r = row(dir_ino);
    uint64_t a = r.parent;
    struct dirent_row entry;
    struct span name = {(const uint8_t *)"f0", 2};
    (void)a;
    if (dirent_get(plant, dir_ino, name.data, name.length, &entry) != 0)
        bail("dirent_get");
    r.parent = entry.ino;
    put_row(dir_ino, r);
}
static void stray_link_target(void) {
    struct inode_row r = row(link_ino);
    put_row(link_ino, r); /* without its target */
}

static const struct planted {
    void (*plant)(void);
    const char *what, *says;
} planted[] = {
    {no_dirent, "a missing entry", "counts 2 links and has 1 names"},
    {no_inode, "a missing inode", "which does not exist: the file is lost"},
    {wrong_links, "a wrong number of links", "counts 7 links"},
    {wrong_dir_links, "a wrong number of a directory's links", "links and should have"},
    {wrong_dir_size, "a wrong number of entries", "entries and has"},
    {wrong_blocks, "a wrong number of blocks", "du shows a wrong number"},
    {wrong_parent, "a wrong \"..\"", "but its \"..\" is"},
    {wrong_xattrs, "a wrong number of attributes", "extended attributes and has"},
    {wrong_flags, "wrong flags", "its flags do not say"},
    {short_file, "data behind the end", "has data behind its end"},
    {same_data, "a map of two files", "belongs to two files"},
    {trim_unlisted, "an unlisted trim", "is not listed for that"},
    {no_orphan, "an unlisted orphan", "is not listed as unlinked"},
    {false_orphan, "an orphan with names", "but has names"},
    {wrong_type, "an entry of another kind", "another kind of file"},
    {no_cookie, "a missing cookie", "missing in the order of reading"},
    {stray_cookie, "a cookie without an entry", "has no such entry"},
    {stray_xattr, "an attribute of nothing", "belongs to inode 123456789"},
    {bad_acl, "a malformed access list", "is malformed: permissions may be wrong"},
    {stray_extent, "a map of nothing", "belongs to no file"},
    {overlap, "a block mapped twice", "is mapped twice"},
    {used_twice, "a place used twice", "are also named elsewhere"},
    {beyond_head, "a place that never was", "were never handed out"},
    {wrong_live, "a wrong number of live blocks", "live blocks,"},
    {stray_dead, "live blocks listed as dead", "are also named elsewhere"},
    {no_record, "a missing record", "lacks records 10 to 10"},
    {changed_record, "a changed record", "fails its chain"},
    {forgotten_attribute, "a row that a record made and that is gone", "made a row of table \"xattr\" that is not there"},
    {impossible_image, "an image of a row that cannot be", "what it replaced cannot be read"},
    {odd_attribute, "a row that cannot be", "says what none can say"},
    {no_epoch, "a missing epoch", "epoch is missing"},
    {directory_loop, "a loop of directories", "does not lie below the root"},
    {stray_link_target, "a symlink without its target", "does not fit its kind"},
};

static void test_planted(void) {
    for (size_t i = 0; i < sizeof planted / sizeof *planted; i++) {
        const char *name = copy();
        plant = fixture_open(name);
        store_lock(plant);
        planted[i].plant();
        store_unlock(plant);
        store_close(plant);
        int count = check_it(name, planted[i].says);
        ok(count > 0 && seen, "%s is found", planted[i].what);
        if (!seen)
            diag("%d findings, the last: %s", count, last);
    }
}

/* ---- damaged files ---- */

static off_t file_size(const char *path) {
    struct stat st;
    if (stat(path, &st) < 0)
        bail("%s", path);
    return st.st_size;
}

/* Writes random bytes at `pieces` random places below `limit`. */
static void damage(const char *path, off_t limit, unsigned pieces, size_t most) {
    static uint8_t bytes[65536];
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        bail("%s", path);
    for (unsigned i = 0; i < pieces; i++) {
        size_t length = 1 + test_random(&seed) % most;
        off_t at = (off_t)(test_random(&seed) % (uint64_t)limit);
        for (size_t j = 0; j < length; j++)
            bytes[j] = (uint8_t)test_random(&seed);
        if (pwrite(fd, bytes, MIN(length, (size_t)(limit - at)), at) < 0)
            bail("%s", path);
    }
    close(fd);
}

static void damaged(const char *file, unsigned rounds, unsigned pieces, size_t most, bool must) {
    unsigned silent = 0, failed = 0, died = 0;
    for (unsigned i = 0; i < rounds; i++) {
        char path[700];
        const char *name = copy();
        snprintf(path, sizeof path, "%s/%s/%s", test_directory(), name, file);
        off_t limit = strstr(file, "tail/") ? 48 : file_size(path);
        limit = strstr(file, "data.mdb") ? MIN(limit, 600 << 10) : limit; /* the rest is headroom */
        damage(path, limit, pieces, most);
        int count = check_it(name, "the database library died");
        silent += count == 0;
        failed += count < 0;
        died += seen;
    }
    is_int(0, failed, "%s damaged %u times in %u places: always looked at", file, rounds, pieces);
    if (must)
        is_int(0, silent, "and always found (LMDB died %u times)", died);
    else
        diag("%u of %u rounds had nothing to be found, LMDB died %u times", silent, rounds, died);
}

static void test_damaged(void) {
    const char *text = getenv("BATON_ROUNDS");
    unsigned rounds = text ? (unsigned)atoi(text) : 12;
    damaged("meta/data.mdb", rounds, 200, 2000, true);
    damaged("meta/data.mdb", rounds, 3, 50, false);
    damaged("checkpoint", rounds, 40, 4000, true);
    damaged("data/00000001.seg", rounds, 30, 60000, true);
    for (char file[] = "tail/0"; file[5] < '4'; file[5]++) /* one of them is in use */
        damaged(file, 2, 5, 4000, false);
}

static void test_cut(void) {
    static const char *const files[] = {"meta/data.mdb", "checkpoint", "data/00000001.seg"};
    static const off_t lengths[] = {100000, 3000, 100000};
    for (int i = 0; i < 3; i++) {
        char path[700];
        for (int remove = 0; remove < 2; remove++) {
            const char *name = copy();
            snprintf(path, sizeof path, "%s/%s/%s", test_directory(), name, files[i]);
            if (remove ? unlink(path) : truncate(path, lengths[i]))
                bail("%s", path);
            ok(check_it(name, "") > 0, "%s %s is found", files[i], remove ? "removed" : "cut off");
        }
    }
}

/* In LMDB's node of a row: how many bytes its value has (two halves), flags, the key's length, the key. */
struct mdb_node {
    uint16_t low, high, flags, key_length;
};

/* Lets each copy of the row claim `bytes` for its value. Returns how many there are. */
static unsigned claim(const char *path, const struct key *key, size_t was, uint32_t bytes) {
    off_t size = MIN(file_size(path), (off_t)8 << 20);
    uint8_t *all = malloc((size_t)size), *at = all;
    unsigned found = 0;
    int fd = open(path, O_RDWR);
    if (fd < 0 || !all || pread(fd, all, (size_t)size, 0) != size)
        bail("%s", path);
    while ((at = memmem(at, (size_t)(all + size - at), key->bytes, key->length))) {
        struct mdb_node node;
        memcpy(&node, at - sizeof node, sizeof node);
        if (node.key_length == key->length && node.high == 0 && node.low == was + 8) {
            node.low = (uint16_t)bytes;
            node.high = (uint16_t)(bytes >> 16);
            if (pwrite(fd, &node, sizeof node, at - sizeof node - all) != sizeof node)
                bail("%s", path);
            found++;
        }
        at += key->length;
    }
    close(fd);
    free(all);
    return found;
}

/* A page says that a row is longer than any can be: it is not read so far, behind the end of the file. */
static void test_too_long(void) {
    static const uint32_t claims[] = {0xfffffff0u, 0x40000000u, 5000};
    struct key key = name_key(dir_ino, "file");
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        struct attributes out;
        const char *name = copy();
        char path[700];
        snprintf(path, sizeof path, "%s/%s/meta/data.mdb", test_directory(), name);
        ok(claim(path, &key, sizeof(struct dirent_row), claims[i]) > 0, "an entry claims %u bytes", claims[i]);
        check_it(name, "\"dirent\": row");
        ok(seen, "check finds it, and does not die of it") || (diag("%s", last), 0);
        struct store *store = fixture_open(name);
        is_int(-EIO, op_lookup(store, dir_ino, "file", &out), "who looks it up gets an error");
        is_int(0, op_lookup(store, dir_ino, "symlink", &out), "its neighbours are there");
        store_close(store);
    }
}

static void nothing(int number) {
    (void)number;
}

/* Signals that this program handles interrupt its waiting for the child. */
static void test_signals(void) {
    struct sigaction action = {.sa_handler = nothing};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    const struct itimerspec often = {.it_value.tv_nsec = 200000, .it_interval.tv_nsec = 200000}, never = {0};
    timer_t timer;
    int findings = 0;
    sigaction(SIGUSR1, &action, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 || timer_settime(timer, 0, &often, NULL) != 0)
        bail("timer");
    for (int i = 0; i < 10; i++)
        findings += check_it("base", "");
    timer_settime(timer, 0, &never, NULL);
    timer_delete(timer);
    is_int(0, findings, "signals are not taken for the end of the child") || (diag("%s", last), 0);
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    populate();
    is_int(0, check_it("base", ""), "nothing to say of a whole store");
    if (last[0])
        diag("%s", last);
    struct store *store = fixture_open("base");
    is_int(-EBUSY, check_it("base", ""), "a store in use is refused");
    store_close(store);
    is_int(-ENOENT, check_it("none", ""), "what is not there too");
    test_signals();
    test_planted();
    test_damaged();
    test_cut();
    test_too_long();
    return 0;
}
