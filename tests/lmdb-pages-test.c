/* lmdb_pages_verify: what liblmdb has written is whole, at every commit of a random life; each kind of damage is found;
 * and where none is found, liblmdb reads and writes without dying, whatever has been done to the file. */
#include "fs/lmdb_pages.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TABLES 3u
#define COMMITS 400u
#define DAMAGES 600u
#define SECONDS_MAX 20u /* of a child */

static const char *const names[TABLES] = {"journal", "map", "inodes"};
static char folder[600], file[700];
static uint64_t seed;

static MDB_env *environment(void) {
    MDB_env *env;
    if (mdb_env_create(&env) != 0 || mdb_env_set_maxdbs(env, TABLES) != 0 ||
        mdb_env_set_mapsize(env, 256u << 20) != 0 || mdb_env_open(env, folder, MDB_NOSYNC | MDB_NOTLS, 0600) != 0)
        bail("LMDB does not open %s", folder);
    return env;
}

static uint64_t below(uint64_t n) {
    return test_random(&seed) % n;
}

/* Short rows and long ones, in few places and in many; some go again. -1: liblmdb refused something. */
static int change(MDB_env *env, unsigned rows) {
    static uint8_t value[30000];
    MDB_txn *txn;
    MDB_dbi dbi[TABLES];
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc)
        return -1;
    for (unsigned i = 0; rc == 0 && i < TABLES; i++)
        rc = mdb_dbi_open(txn, names[i], MDB_CREATE, &dbi[i]);
    for (unsigned i = 0; rc == 0 && i < rows; i++) {
        uint8_t bytes[300];
        uint64_t number = __builtin_bswap64(below(below(3) ? 3000 : 60));
        size_t length = below(8) ? 8 + number % 5 : 8 + below(sizeof bytes - 8);
        memset(bytes, (int)below(4), sizeof bytes);
        memcpy(bytes, &number, sizeof number);
        MDB_val key = {length, bytes}, data = {below(9) ? below(200) : below(sizeof value), value};
        unsigned table = (unsigned)below(TABLES);
        rc = below(5) < 2 ? mdb_del(txn, dbi[table], &key, NULL) : mdb_put(txn, dbi[table], &key, &data, 0);
        if (rc == MDB_NOTFOUND)
            rc = 0;
    }
    if (rc) {
        mdb_txn_abort(txn);
        return -1;
    }
    return mdb_txn_commit(txn) == 0 ? 0 : -1;
}

static int read_all(MDB_env *env) {
    MDB_txn *txn;
    uint64_t sum = 0;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return -1;
    for (unsigned i = 0; i < TABLES; i++) {
        MDB_dbi dbi;
        MDB_cursor *cursor;
        MDB_val key, data;
        if (mdb_dbi_open(txn, names[i], 0, &dbi) != 0 || mdb_cursor_open(txn, dbi, &cursor) != 0)
            continue;
        for (rc = mdb_cursor_get(cursor, &key, &data, MDB_FIRST); rc == 0;
             rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT))
            for (size_t j = 0; j < data.mv_size; j += 512)
                sum += ((const uint8_t *)data.mv_data)[j];
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return sum == UINT64_MAX; /* it is read */
}

/* The meta page that LMDB would choose. */
static void newest_meta(int fd, uint8_t meta[LMDB_PAGE]) {
    uint8_t pages[2][LMDB_PAGE];
    uint64_t txnid[2];
    if (pread_all(fd, pages, sizeof pages, 0) != 0)
        bail("the meta pages cannot be read");
    for (unsigned i = 0; i < 2; i++)
        memcpy(&txnid[i], pages[i] + 144, sizeof txnid[i]);
    memcpy(meta, pages[txnid[1] > txnid[0]], LMDB_PAGE);
}

static int verify(int fd, char *why, size_t why_room) {
    uint8_t meta[LMDB_PAGE];
    newest_meta(fd, meta);
    return lmdb_pages_verify(fd, meta, why, why_room);
}

/* Readers pin old states, so that free pages become many: their list has overflow pages of its own. */
static void test_what_lmdb_writes(void) {
    MDB_env *env = environment();
    MDB_txn *reader = NULL;
    char why[400] = "";
    unsigned refused = 0;
    AUTO_CLOSE int fd = open(file, O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < COMMITS; i++) {
        if (i % 40 == 5 && mdb_txn_begin(env, NULL, MDB_RDONLY, &reader) != 0)
            bail("mdb_txn_begin");
        if (i % 40 == 35)
            mdb_txn_abort(reader);
        if (change(env, 1 + (unsigned)below(i % 50 == 49 ? 3000 : 100)) != 0)
            bail("LMDB refuses a change");
        if (verify(fd, why, sizeof why) != 0) {
            diag("commit %u: %s", i, why);
            refused++;
        }
    }
    mdb_env_close(env);
    is_int(0, refused, "%u commits of a random life: each is whole", COMMITS);
    is_string("", why, "and nothing is said of it");
}

/* Values that are longer than any room that is free, and go in the same transaction: the file ends before the last
 * page. */
static void test_not_written(void) {
    static uint8_t value[4000000];
    char why[400] = "";
    uint8_t meta[LMDB_PAGE];
    uint64_t last_page;
    struct stat st;
    MDB_env *env = environment();
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = {4, "long"}, data = {sizeof value, value};
    AUTO_CLOSE int fd = open(file, O_RDWR | O_CLOEXEC);
    bool done = fd >= 0 && mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, names[0], 0, &dbi) == 0 &&
                mdb_put(txn, dbi, &key, &data, 0) == 0 && mdb_del(txn, dbi, &key, NULL) == 0 &&
                mdb_txn_commit(txn) == 0;
    if (!done || fstat(fd, &st) < 0)
        bail("LMDB refuses a change");
    newest_meta(fd, meta);
    memcpy(&last_page, meta + 136, sizeof last_page);
    ok((uint64_t)st.st_size < last_page * LMDB_PAGE, "the last page is %llu, the file ends before it",
       (unsigned long long)last_page);
    ok(verify(fd, why, sizeof why) == 0, "that is whole: those pages are free");
    diag("%s", why);
    mdb_env_close(env);
}

/* ---- Damage ---- */

static uint8_t *whole;
static size_t whole_length;

static void keep_whole(void) {
    struct stat st;
    AUTO_CLOSE int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        bail("%s cannot be read", file);
    whole_length = (size_t)st.st_size;
    whole = malloc(whole_length);
    if (!whole || pread_all(fd, whole, whole_length, 0) != 0)
        bail("%s cannot be read", file);
}

static void put_back(int fd) {
    if (ftruncate(fd, (off_t)whole_length) < 0 || pwrite_all(fd, whole, whole_length, 0) != 0)
        bail("%s cannot be written", file);
}

struct db { /* MDB_db, the record of a table */
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
};

static uint64_t number_at(const uint8_t *page, size_t at) {
    uint64_t value;
    memcpy(&value, page + at, sizeof value);
    return value;
}

static uint16_t short_at(const uint8_t *page, size_t at) {
    uint16_t value;
    memcpy(&value, page + at, sizeof value);
    return value;
}

static uint8_t *page_of(uint8_t *bytes, uint64_t number) {
    return bytes + number * LMDB_PAGE;
}

/* Of the first table: a branch above leaves, a leaf below it that has a row on overflow pages, those pages, and the
 * table's record. */
static void find_pages(uint8_t *bytes, uint64_t *branch_page, uint64_t *leaf, uint64_t *overflow, size_t *record) {
    uint8_t *meta = page_of(bytes, number_at(bytes, 144) < number_at(bytes, LMDB_PAGE + 144));
    uint8_t *list = page_of(bytes, number_at(meta, 88 + 40));
    uint8_t *node = list + short_at(list, 16); /* the first table's */
    struct db db;
    *record = (size_t)(node + 8 + short_at(node, 6) - bytes);
    memcpy(&db, bytes + *record, sizeof db);
    *branch_page = db.root;
    *overflow = *leaf = 0;
    for (unsigned depth = db.depth; depth > 2; depth--) { /* down to the first branch above leaves */
        uint8_t *page = page_of(bytes, *branch_page), *child = page + short_at(page, 16);
        *branch_page = short_at(child, 0) | (uint64_t)short_at(child, 2) << 16;
    }
    if (db.depth < 2)
        bail("a table of one page");
    uint8_t *branch = page_of(bytes, *branch_page);
    for (unsigned i = 0; i < (short_at(branch, 12) - 16u) / 2 && !*overflow; i++) {
        uint8_t *child = branch + short_at(branch, 16 + 2 * i);
        *leaf = short_at(child, 0) | (uint64_t)short_at(child, 2) << 16;
        uint8_t *page = page_of(bytes, *leaf);
        for (unsigned j = 0; j < (short_at(page, 12) - 16u) / 2; j++) {
            uint8_t *row = page + short_at(page, 16 + 2 * j);
            if (short_at(row, 4) & 1)
                *overflow = number_at(row, 8u + short_at(row, 6));
        }
    }
    if (!*overflow)
        bail("no row on overflow pages");
}

static void put_short(uint8_t *page, size_t at, uint16_t value) {
    memcpy(page + at, &value, sizeof value);
}

static void put_number(uint8_t *page, size_t at, uint64_t value) {
    memcpy(page + at, &value, sizeof value);
}

static uint64_t branch, leaf, overflow;
static size_t record;

static void damage_number(uint8_t *bytes) {
    put_number(page_of(bytes, leaf), 0, leaf + 1);
}
static void damage_kind(uint8_t *bytes) {
    put_short(page_of(bytes, leaf), 10, 1);
}
static void damage_dirty(uint8_t *bytes) {
    put_short(page_of(bytes, leaf), 10, 2 | 16);
}
static void damage_lower(uint8_t *bytes) {
    put_short(page_of(bytes, leaf), 12, (uint16_t)(short_at(page_of(bytes, leaf), 12) - 2));
}
static void damage_none(uint8_t *bytes) {
    put_short(page_of(bytes, leaf), 12, 16);
}
static void damage_upper(uint8_t *bytes) {
    put_short(page_of(bytes, leaf), 14, (uint16_t)(short_at(page_of(bytes, leaf), 14) - 2));
}
static void damage_offset(uint8_t *bytes) {
    put_short(page_of(bytes, leaf), 16, short_at(page_of(bytes, leaf), 18));
}
static void damage_order(uint8_t *bytes) {
    uint8_t *page = page_of(bytes, leaf);
    uint16_t first = short_at(page, 16);
    put_short(page, 16, short_at(page, 18));
    put_short(page, 18, first);
}
static void damage_length(uint8_t *bytes) {
    uint8_t *page = page_of(bytes, leaf), *node = page + short_at(page, 16);
    if (short_at(node, 4) & 1) /* its length is not of this page; its key's is */
        put_short(node, 6, (uint16_t)(short_at(node, 6) + 2));
    else
        put_short(node, 0, (uint16_t)(short_at(node, 0) + 2));
}
static void damage_child(uint8_t *bytes) {
    uint8_t *page = page_of(bytes, branch), *node = page + short_at(page, 16);
    put_short(node, 0, short_at(page + short_at(page, 18), 0));
    put_short(node, 2, short_at(page + short_at(page, 18), 2));
}
static void damage_bounds(uint8_t *bytes) { /* two children change places */
    uint8_t *page = page_of(bytes, branch), *a = page + short_at(page, 18), *b = page + short_at(page, 20);
    uint8_t child[4];
    memcpy(child, a, sizeof child);
    memcpy(a, b, sizeof child);
    memcpy(b, child, sizeof child);
}
static void damage_overflow(uint8_t *bytes) {
    put_number(page_of(bytes, overflow), 0, overflow + 1);
}
static void damage_run(uint8_t *bytes) {
    put_short(page_of(bytes, overflow), 12, 0);
}
static void damage_long_run(uint8_t *bytes) {
    put_short(page_of(bytes, overflow), 14, 0xffff);
}
static void damage_entries(uint8_t *bytes) {
    put_number(bytes, record + 32, number_at(bytes, record + 32) + 1);
}
static void damage_depth(uint8_t *bytes) {
    put_short(bytes, record + 6, (uint16_t)(short_at(bytes, record + 6) + 1));
}
static void damage_flags(uint8_t *bytes) {
    put_short(bytes, record + 4, 4);
}
static void damage_root(uint8_t *bytes) {
    put_number(bytes, record + 40, 1);
}
static void damage_far(uint8_t *bytes) {
    put_number(bytes, record + 40, 1ull << 60);
}

/* The first row of the list of free pages: it names a page that is in use, or is longer than it is. */
static uint8_t *free_row(uint8_t *bytes) {
    uint8_t *meta = page_of(bytes, number_at(bytes, 144) < number_at(bytes, LMDB_PAGE + 144));
    uint8_t *page = page_of(bytes, number_at(meta, 40 + 40));
    while (short_at(page, 10) == 1)
        page = page_of(bytes, short_at(page + short_at(page, 16), 0) | (uint64_t)short_at(page + short_at(page, 16), 2)
                                                                           << 16);
    for (unsigned i = 0; i < (short_at(page, 12) - 16u) / 2; i++) {
        uint8_t *node = page + short_at(page, 16 + 2 * i);
        uint8_t *row = short_at(node, 4) & 1 ? page_of(bytes, number_at(node, 16)) + 16 : node + 16;
        if (number_at(row, 0) >= 2)
            return row;
    }
    bail("no row of the list of free pages has two");
}
static void damage_free_used(uint8_t *bytes) {
    put_number(free_row(bytes), 8, leaf);
}
static void damage_free_twice(uint8_t *bytes) {
    put_number(free_row(bytes), 8, number_at(free_row(bytes), 16));
}
static void damage_free_count(uint8_t *bytes) {
    put_number(free_row(bytes), 0, 1u << 20);
}
static void damage_free_meta(uint8_t *bytes) {
    put_number(free_row(bytes), 8 * number_at(free_row(bytes), 0), 1);
}

static const struct damage {
    const char *name;
    void (*make)(uint8_t *bytes);
} damages[] = {{"a page's number", damage_number},
               {"a page's kind", damage_kind},
               {"a page that was being changed", damage_dirty},
               {"one node less", damage_lower},
               {"no node", damage_none},
               {"more room than the nodes leave", damage_upper},
               {"two nodes at one place", damage_offset},
               {"keys out of order", damage_order},
               {"a longer row", damage_length},
               {"one child twice", damage_child},
               {"children that have changed places", damage_bounds},
               {"an overflow page's number", damage_overflow},
               {"an overflow that is too short", damage_run},
               {"an overflow behind the end", damage_long_run},
               {"the number of rows", damage_entries},
               {"the depth", damage_depth},
               {"what kind of table it is", damage_flags},
               {"a root on a meta page", damage_root},
               {"a root behind the end", damage_far},
               {"a free page that is in use", damage_free_used},
               {"a page that is free twice", damage_free_twice},
               {"more free pages than the row has", damage_free_count},
               {"a meta page that is free", damage_free_meta}};

static void test_kinds(void) {
    char why[400];
    AUTO_CLOSE int fd = open(file, O_RDWR | O_CLOEXEC);
    AUTO_FREE uint8_t *bytes = malloc(whole_length);
    if (!bytes)
        bail("malloc");
    find_pages(whole, &branch, &leaf, &overflow, &record);
    for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
        memcpy(bytes, whole, whole_length);
        damages[i].make(bytes);
        if (memcmp(bytes, whole, whole_length) == 0)
            bail("%s: nothing has changed", damages[i].name);
        if (pwrite_all(fd, bytes, whole_length, 0) != 0)
            bail("pwrite_all");
        why[0] = '\0';
        int rc = verify(fd, why, sizeof why);
        if (ok(rc == -EBADMSG && why[0], "found: %s", damages[i].name))
            diag("%s", why);
    }
    put_back(fd);
    if (ftruncate(fd, (off_t)(leaf * LMDB_PAGE)) < 0)
        bail("ftruncate");
    is_int(-EBADMSG, verify(fd, why, sizeof why), "found: a file that ends before a page");
    put_back(fd);
    is_int(0, verify(fd, why, sizeof why), "and the whole one is whole again");
}

/* Whatever is done to it: what is called whole can be read and changed. */
static void test_promise(void) {
    unsigned passed = 0, died = 0, refused = 0;
    char why[400];
    AUTO_CLOSE int fd = open(file, O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < DAMAGES; i++) {
        put_back(fd);
        for (uint64_t edits = 1 + below(3); edits > 0; edits--) {
            uint8_t bytes[8];
            uint64_t page = 2 + below(whole_length / LMDB_PAGE - 2), at = below(3) ? below(40) : below(LMDB_PAGE - 8);
            for (unsigned j = 0; j < sizeof bytes; j++)
                bytes[j] = (uint8_t)below(256);
            if (pwrite_all(fd, bytes, 1 + below(sizeof bytes), page * LMDB_PAGE + at) != 0)
                bail("pwrite_all");
        }
        if (verify(fd, why, sizeof why) != 0) {
            refused++;
            continue;
        }
        passed++;
        pid_t child = fork();
        if (child == 0) {
            alarm(SECONDS_MAX);
            MDB_env *env = environment();
            int rc = read_all(env);
            for (unsigned j = 0; j < 5 && rc == 0; j++)
                rc = change(env, 400);
            mdb_env_close(env);
            _exit(rc || verify(fd, why, sizeof why) != 0 ? 1 : 0);
        }
        int status = -1;
        if (child < 0 || waitpid(child, &status, 0) != child)
            bail("fork");
        if (status != 0)
            diag("round %u: status %#x", i, (unsigned)status);
        died += status != 0;
    }
    put_back(fd);
    diag("%u of %u were called whole", passed, DAMAGES);
    ok(passed >= 10 && refused >= 10, "some damage hurts nobody (%u), some does (%u)", passed, refused);
    is_int(0, died, "what is called whole can be read and changed, and is whole afterwards");
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    snprintf(folder, sizeof folder, "%s/env", test_directory());
    snprintf(file, sizeof file, "%s/data.mdb", folder);
    if (mkdir(folder, 0700) < 0)
        bail("mkdir");
    test_what_lmdb_writes();
    test_not_written();
    keep_whole();
    test_kinds();
    test_promise();
    free(whole);
    return 0;
}
