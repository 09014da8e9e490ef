/* Two nodes compare their copies (replication/verify.c) over real sockets, in ranges of few rows, so that there are many:
 * equal while one works; then rows of one are changed at random, and just those are found; a copy that lacks much, or has
 * much more; a node that gives other rows than were asked for; who asks wrongly.
 */
#include "fs/compare.h"
#include "fs/extent.h"
#include "fs/store_internal.h"
#include "replication/parts.h"
#include "replication/verify_internal.h"
#include "tests/churn.h"
#include "tests/pair.h"

#include <stdio.h>
#include <sys/stat.h>

static uint64_t seed;

/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

static json_t *verify_slowly(struct pair *pair, unsigned node, const char *path, uint64_t rate) {
    struct replicator *r = pair->nodes[node].replicator;
    struct verify_request request = {.node = 1 - node, .rate = rate};
    int64_t deadline = clock_boot() + 60000 * MS;
    char why[WIRE_TEXT];
    uint64_t ticket;
    bool running = true;
    json_t *line = NULL;
    if (path)
        request.paths[request.path_count++] = strdup(path);
    int rc = verify_start(r, &request, &ticket, why, sizeof why);
    if (rc)
        bail("no comparison: %s", why);
    while (running && clock_boot() < deadline) {
        json_decref(line);
        usleep(1000);
        line = verify_look(r, ticket, &running);
    }
    if (running)
        bail("a comparison does not end");
    return line;
}

static json_t *verify(struct pair *pair, unsigned node, const char *path) {
    return verify_slowly(pair, node, path, 1ull << 30);
}

static json_t *of(json_t *line, const char *key) {
    return json_object_get(json_object_get(line, "last"), key);
}

static bool outcome_is(json_t *line, const char *expected, const char *what) {
    bool right = is_string(expected, json_string_value(of(line, "outcome")), "%s: %s", what, expected);
    if (!right) {
        char *text = json_dumps(line, 0);
        diag("%.4000s", text);
        free(text);
    }
    return right;
}

static void expect(struct pair *pair, unsigned node, const char *expected, const char *what) {
    json_t *line = verify(pair, node, NULL);
    outcome_is(line, expected, what);
    json_decref(line);
}

static void set_rows(struct pair *pair, uint32_t rows, int64_t renew) {
    for (unsigned node = 0; node < 2; node++) {
        pair->nodes[node].replicator->verify_renew = renew; /* none runs now */
        repl_lock(pair->nodes[node].replicator);
        pair->nodes[node].replicator->compare_rows = rows;
        pair->nodes[node].replicator->copy_bytes = 700; /* of rows in an answer */
        repl_unlock(pair->nodes[node].replicator);
    }
}

/* ---- While one works ------------------------------------------------------------------------------------------------- */

static struct {
    struct store *store;
    uint64_t directories[2];
    pthread_t thread;
    atomic_bool stop;
    atomic_uint changes;
    uint64_t seed;
} busy;

static void *change(void *unused) {
    (void)unused;
    while (!atomic_load(&busy.stop)) {
        int error = churn(busy.store, busy.directories, &busy.seed);
        if (error)
            bail("churn: %s", strerror(-error));
        if (atomic_fetch_add(&busy.changes, 1) % 64 == 0)
            op_reclaim_some(busy.store);
        usleep(200);
    }
    return NULL;
}

static void equal_while_busy(struct pair *pair) {
    if (pthread_create(&busy.thread, NULL, change, NULL) != 0)
        bail("no thread");
    while (atomic_load(&busy.changes) < 1000)
        usleep(1000);
    unsigned meanwhile = 0;
    for (unsigned i = 0; i < 8; i++) {
        set_rows(pair, i % 2 ? 7 : 300, i % 4 == 3 ? 20 * MS : VERIFY_RENEW);
        unsigned before = atomic_load(&busy.changes);
        json_t *line = verify_slowly(pair, i / 2 % 2, NULL, 1 << 20);
        outcome_is(line, "equal", "while one works");
        ok(json_integer_value(of(line, "rows")) > 300, "%lld rows were compared",
           (long long)json_integer_value(of(line, "rows")));
        meanwhile += atomic_load(&busy.changes) - before;
        bool renewed = json_integer_value(of(line, "first_lsn")) < json_integer_value(of(line, "lsn"));
        is_int(i % 4 == 3, renewed, i % 4 == 3 ? "it went on at newer records" : "all at one record");
        json_decref(line);
    }
    ok(meanwhile > 20, "%u changes were made meanwhile", meanwhile);
    atomic_store(&busy.stop, true);
    pthread_join(busy.thread, NULL);
}

/* ---- Rows changed at random ------------------------------------------------------------------------------------------ */

#define CHANGES_MAX 12u
struct changed {
    enum table table;
    struct key key;
    bool existed;
    uint8_t old[70000];
    size_t old_length;
};
static struct changed changed[CHANGES_MAX];
static unsigned changed_count;

static void put(struct store *store, enum table table, const struct key *key, const void *value, size_t length) {
    int rc = value ? table_put_raw(store, table, key, value, length) : table_remove_raw(store, table, key);
    if (rc)
        bail("a row is not changed: %s", strerror(-rc));
}

static bool is_changed(enum table table, const struct key *key) {
    for (unsigned i = 0; i < changed_count; i++)
        if (changed[i].table == table && changed[i].key.length == key->length &&
            memcmp(changed[i].key.bytes, key->bytes, key->length) == 0)
            return true;
    return false;
}

/* A row of the table; lock held. False: it is empty. */
static bool pick(struct store *store, enum table table, struct key *key, uint8_t *value, size_t *length) {
    struct cursor cursor;
    struct key start = {.length = 0};
    uint64_t count = 0;
    if (cursor_open(&cursor, store, NULL, table))
        bail("no cursor");
    for (int rc = cursor_seek(&cursor, &start); rc == 0; rc = cursor_next(&cursor))
        if (test_random(&seed) % ++count == 0) { /* each with the same chance */
            key->length = (uint16_t)cursor.key.length;
            memcpy(key->bytes, cursor.key.data, cursor.key.length);
            memcpy(value, cursor.value.data, cursor.value.length);
            *length = cursor.value.length;
        }
    cursor_close(&cursor);
    return count > 0;
}

/* Changed, removed, or another one beside it. */
static void plant_one(struct store *store) {
    static const enum table tables[] = {TABLE_INODE, TABLE_DIRENT, TABLE_DIRCOOKIE, TABLE_XATTR, TABLE_EXTENT};
    enum table table = tables[test_random(&seed) % 5];
    struct key key, beside;
    static uint8_t value[70000];
    size_t length = 0;
    struct changed *c = &changed[changed_count];
    if (!pick(store, table, &key, value, &length) || is_changed(table, &key))
        return;
    *c = (struct changed){.table = table, .key = key, .existed = true, .old_length = length};
    memcpy(c->old, value, length);
    beside = key;
    if (table == TABLE_DIRENT || table == TABLE_XATTR)
        beside.bytes[beside.length++] = 'x';
    else
        beside.bytes[7]++; /* another inode, directory or data id: they are not used one after the other to the end */
    struct span there;
    switch (test_random(&seed) % 3) {
    case 0:
        if (length > 0 && (table != TABLE_EXTENT || length > sizeof(struct extent_row))) {
            value[length - 1] ^= 1;
            put(store, table, &key, value, length);
            break;
        } /* fall through */
    case 1:
        put(store, table, &key, NULL, 0);
        break;
    default:
        if (beside.length >= KEY_MAX - 20 || table == TABLE_EXTENT || is_changed(table, &beside) ||
            table_get(store, table, &beside, &there) == 0)
            return;
        c->key = beside;
        c->existed = false;
        put(store, table, &beside, value, length);
    }
    changed_count++;
}

static void put_back(struct store *store) {
    store_lock(store);
    for (unsigned i = 0; i < changed_count; i++)
        put(store, changed[i].table, &changed[i].key, changed[i].existed ? changed[i].old : NULL, changed[i].old_length);
    store->unsaved = true;
    store_unlock(store);
    store_checkpoint(store);
}

/* Is this found difference one of those planted? */
static bool is_planted(const json_t *found, bool *seen) {
    const char *table = json_string_value(json_object_get(found, "table"));
    uint64_t prefix = (uint64_t)json_integer_value(json_object_get(
        found, strcmp(table, "extent") == 0 ? "data" : "inode"));
    for (unsigned i = 0; i < changed_count; i++)
        if (!seen[i] && strcmp(table, table_names[changed[i].table]) == 0 && be64_get(changed[i].key.bytes) == prefix) {
            seen[i] = true;
            return true;
        }
    return false;
}

static void changed_rows_are_found(struct pair *pair, unsigned rounds) {
    struct store *store = pair->nodes[1].store;
    unsigned wrong = 0, missed = 0, planted = 0;
    for (unsigned round = 0; round < rounds; round++) {
        bool seen[CHANGES_MAX] = {false};
        changed_count = 0;
        unsigned wanted = 1 + (unsigned)(test_random(&seed) % CHANGES_MAX);
        store_lock(store);
        for (unsigned tries = 0; changed_count < wanted && tries < 50; tries++)
            plant_one(store);
        store->unsaved = true;
        store_unlock(store);
        store_checkpoint(store);
        set_rows(pair, round % 3 ? 20 : 5000, round % 5 ? VERIFY_RENEW : 5 * MS);
        json_t *line = verify(pair, round % 2, NULL), *found = of(line, "found");
        for (size_t i = 0; i < json_array_size(found); i++)
            wrong += !is_planted(json_array_get(found, i), seen);
        for (unsigned i = 0; i < changed_count; i++) {
            planted++;
            missed += !seen[i];
            if (!seen[i])
                diag("not found: a row of table %s, %s", table_names[changed[i].table], changed[i].existed ? "changed" : "added");
        }
        json_decref(line);
        put_back(store);
    }
    is_int(0, missed, "each of %u changed rows is found", planted);
    is_int(0, wrong, "and nothing else");
    expect(pair, 0, "equal", "put back");
}

/* ---- Much ------------------------------------------------------------------------------------------------------------ */

static void much_differs(struct pair *pair) {
    struct store *store = pair->nodes[1].store;
    struct inode_row row = row_of(store, ROOT_INO);
    const uint64_t first = 1ull << 60;
    set_rows(pair, 20, VERIFY_RENEW);
    for (unsigned add = 0; add < 2; add++) {
        store_lock(store);
        for (uint64_t ino = first; ino < first + 1200; ino++) {
            struct key key = key_u64(ino);
            put(store, TABLE_INODE, &key, add == 0 ? &row : NULL, sizeof row);
        }
        store->unsaved = true;
        store_unlock(store);
        store_checkpoint(store);
        for (unsigned node = 0; add == 0 && node < 2; node++) {
            json_t *line = verify(pair, node, NULL);
            outcome_is(line, "different", node ? "1200 rows that only this node has" : "1200 rows that only the other one has");
            is_int(VERIFY_FOUND_MAX, json_array_size(of(line, "found")), "are named up to a bound");
            ok(!json_is_true(of(line, "found_all")), "which is said");
            json_decref(line);
        }
    }
    expect(pair, 1, "equal", "when they have gone");
}

/* ---- Paths ----------------------------------------------------------------------------------------------------------- */

static void path_is(struct pair *pair, const char *path, const char *expected) {
    json_t *line = verify(pair, 0, path);
    outcome_is(line, expected, path);
    json_decref(line);
}

static void below_paths(struct pair *pair) {
    struct store *store = pair->nodes[0].store, *other = pair->nodes[1].store;
    uint64_t top = make(store, ROOT_INO, "top", S_IFDIR | 0755), large = make(store, top, "large", S_IFDIR | 0755);
    uint64_t ino = 0;
    for (unsigned i = 0; i < 5000; i++) { /* more than one range, and than one portion */
        char name[32];
        snprintf(name, sizeof name, "file-%u", i);
        uint64_t made = make(store, large, name, S_IFREG | 0644);
        ino = i == 4321 ? made : ino;
    }
    if (!pair_wait_equal(pair, 60))
        bail("not equal");
    set_rows(pair, 1000, VERIFY_RENEW);
    path_is(pair, "/", "equal");
    struct inode_row row = row_of(other, ino);
    struct key key = key_u64(ino);
    row.gid = 77;
    store_lock(other);
    put(other, TABLE_INODE, &key, &row, sizeof row);
    other->unsaved = true;
    store_unlock(other);
    store_checkpoint(other);
    path_is(pair, "/", "different");
    path_is(pair, "top", "different");
    path_is(pair, "/top//large/file-4321/", "different");
    path_is(pair, "top/large/file-4320", "equal");
    path_is(pair, "one", "equal");
    path_is(pair, "top/other", "failed");
    json_t *line = verify(pair, 0, "top");
    json_t *found = json_array_get(of(line, "found"), 0);
    is_int(1, json_array_size(of(line, "found")), "one difference");
    is_string("top/large/file-4321", json_string_value(json_array_get(json_object_get(found, "paths"), 0)), "with its path");
    json_decref(line);
}

/* One row of the other node is another one: compared from here. */
static void plant_group(struct store *store, uint64_t ino, uint32_t group) {
    struct inode_row row = row_of(store, ino);
    struct key key = key_u64(ino);
    row.gid = group;
    store_lock(store);
    put(store, TABLE_INODE, &key, &row, sizeof row);
    store->unsaved = true;
    store_unlock(store);
    store_checkpoint(store);
}

static void plant_attribute(struct store *store, const struct key *key, const void *value, size_t length) {
    store_lock(store);
    put(store, TABLE_XATTR, key, value, length);
    store->unsaved = true;
    store_unlock(store);
    store_checkpoint(store);
}

/* How much is read between two words to the other node, which keeps its state for COMPARE_IDLE without one. */
static _Atomic uint64_t most_paced;

void __real_verify_pace(struct verifying *v, uint64_t bytes);
void __wrap_verify_pace(struct verifying *v, uint64_t bytes);
void __wrap_verify_pace(struct verifying *v, uint64_t bytes) {
    if (bytes > atomic_load(&most_paced))
        atomic_store(&most_paced, bytes);
    __real_verify_pace(v, bytes);
}

static void large_rows_below_a_path(struct pair *pair) {
    static uint8_t value[60000];
    struct store *store = pair->nodes[0].store;
    uint64_t directory = make(store, ROOT_INO, "attributes", S_IFDIR | 0755), lsn;
    for (unsigned i = 0; i < 80; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%u", i);
        uint64_t ino = make(store, directory, name, S_IFREG | 0644);
        if (op_setxattr(store, &root_caller, ino, "user.large", value, sizeof value, 0, false, &lsn))
            bail("no attribute");
    }
    if (!pair_wait_equal(pair, 60))
        bail("not equal");
    atomic_store(&most_paced, 0);
    path_is(pair, "attributes", "equal");
    uint64_t most = atomic_load(&most_paced);
    ok(most > 100000 && most <= 2u << 20, "%llu bytes are read at most between two questions", (unsigned long long)most);
}

/* ---- What is said ---------------------------------------------------------------------------------------------------- */

static void texts_are_cut(struct pair *pair) {
    struct store *store = pair->nodes[1].store;
    char name[256] = "user.x", path[512];
    uint8_t one = 1;
    struct key key;
    while (strlen(name) < 250)
        strcat(name, "\xe2\x82\xac"); /* three bytes: 200 and 300 are within one */
    key = key_u64_name(ROOT_INO, name, strlen(name));
    plant_attribute(store, &key, &one, 1);
    json_t *line = verify(pair, 0, NULL);
    is_int(1, json_array_size(of(line, "found")), "a difference in an attribute with a long name is named");
    json_decref(line);
    plant_attribute(store, &key, NULL, 0);
    strcpy(path, "a");
    while (strlen(path) < 400)
        strcat(path, strlen(path) == 181 ? "/" : "\xe2\x82\xac");
    line = verify(pair, 0, path);
    outcome_is(line, "failed", "a long path that is not there");
    ok(json_string_value(of(line, "why")), "and why");
    json_decref(line);
    struct replicator *r = pair->nodes[0].replicator;
    repl_lock(r);
    strcpy(r->trouble, "it is \xe2\x82");
    repl_unlock(r);
    json_t *status = replicator_status(r);
    is_string("it is ??", json_string_value(json_object_get(status, "trouble")), "status, too, says what was cut");
    json_decref(status);
    repl_lock(r);
    r->trouble[0] = '\0';
    repl_unlock(r);
}

/* ---- A node that lies ------------------------------------------------------------------------------------------------ */

static _Atomic int lie; /* the provider gives one row with this at each of its key's bytes, and says that more follow; 0: it does not */
int __real_range_rows(struct store *state, const struct range *range,
                      int (*row)(void *context, struct span key, struct span value), void *context);
int __wrap_range_rows(struct store *state, const struct range *range,
                      int (*row)(void *context, struct span key, struct span value), void *context);
int __wrap_range_rows(struct store *state, const struct range *range,
                      int (*row)(void *context, struct span key, struct span value), void *context) {
    char thread[16] = "";
    pthread_getname_np(pthread_self(), thread, sizeof thread);
    if (!atomic_load(&lie) || strcmp(thread, "repl-provide") != 0)
        return __real_range_rows(state, range, row, context);
    uint8_t bytes[8];
    struct inode_row value = {.nlink = 1};
    memset(bytes, atomic_load(&lie), sizeof bytes);
    int rc = row(context, (struct span){bytes, sizeof bytes}, (struct span){(const uint8_t *)&value, sizeof value});
    return rc ? rc : 1;
}

static void rows_out_of_range(struct pair *pair) {
    struct store *other = pair->nodes[1].store;
    uint64_t ino = 0;
    char name[32];
    for (unsigned i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "lie-%u", i);
        uint64_t made = make(pair->nodes[0].store, ROOT_INO, name, S_IFREG | 0644);
        ino = i == 15 ? made : ino;
    }
    if (!pair_wait_equal(pair, 60))
        bail("not equal");
    set_rows(pair, 1000, VERIFY_RENEW);
    plant_group(other, ino, 99);
    for (int i = 0; i < 2; i++) {
        atomic_store(&lie, i ? 0xff : 1);
        json_t *line = verify(pair, 0, NULL);
        outcome_is(line, "failed", i ? "rows behind those asked for" : "rows before those asked for");
        json_decref(line);
    }
    atomic_store(&lie, 0);
    expect(pair, 0, "different", "the truth");
    plant_group(other, ino, 0);
    expect(pair, 0, "equal", "put back");
}

/* ---- Wrong, or at the wrong time ------------------------------------------------------------------------------------- */

static void refusals(struct pair *pair) {
    struct replicator *r = pair->nodes[0].replicator;
    char why[WIRE_TEXT] = "";
    uint64_t ticket, second;
    struct verify_request request = {.node = 0};
    is_int(-EINVAL, verify_start(r, &request, &ticket, why, sizeof why), "with itself");
    request.node = 1;
    request.rate = 1000; /* slowly */
    is_int(0, verify_start(r, &request, &ticket, why, sizeof why), "slowly");
    is_int(-EALREADY, verify_start(r, &request, &second, why, sizeof why), "one at a time");
    is_int(-ENOENT, verify_stop(r, ticket + 1), "another one is not stopped");
    is_int(0, verify_stop(r, ticket), "it is");
    bool running = true;
    for (int64_t until = clock_boot() + 10000 * MS; running && clock_boot() < until; usleep(1000))
        json_decref(verify_look(r, ticket, &running));
    ok(!running, "and ends");
    repl_lock(r);
    uint32_t features = r->peers[1].features;
    r->peers[1].features = 0;
    repl_unlock(r);
    int rc = verify_start(r, &request, &ticket, why, sizeof why);
    bool said_again = r->peers[1].features == features; /* by a heartbeat meanwhile */
    ok(rc == -EPROTO || said_again, "a node that cannot: %s", why);
    if (rc == 0)
        verify_stop(r, ticket);
    repl_lock(r);
    r->peers[1].features = features;
    repl_unlock(r);
    pair_stop(pair, 1);
    for (int64_t until = clock_boot() + 10000 * MS; r->verify && clock_boot() < until; usleep(10000)) {
        repl_lock(r);
        r->peers[1].heard -= 60000 * MS; /* as if it were long ago */
        r->peers[1].feed.heard -= 60000 * MS;
        repl_unlock(r);
        rc = verify_start(r, &request, &ticket, why, sizeof why);
        if (rc != -EALREADY)
            break;
    }
    is_int(-ENOTCONN, rc, "a node that is away: %s", why);
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    churn_prepare(&seed);
    struct pair pair;
    pair_make(&pair, TRANSPORT_CURVE);
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    if (!pair_wait_link(&pair, 0, "working", 60))
        bail("not in sync");
    busy.store = pair.nodes[0].store;
    busy.seed = test_random(&seed);
    busy.directories[0] = make(busy.store, ROOT_INO, "one", S_IFDIR | 0755);
    busy.directories[1] = make(busy.store, ROOT_INO, "two", S_IFDIR | 0755);
    equal_while_busy(&pair);
    if (!pair_wait_equal(&pair, 60))
        bail("not equal");
    changed_rows_are_found(&pair, 40);
    much_differs(&pair);
    texts_are_cut(&pair);
    rows_out_of_range(&pair);
    below_paths(&pair);
    large_rows_below_a_path(&pair);
    refusals(&pair);
    pair_stop(&pair, 1);
    pair_stop(&pair, 0);
    return 0;
}
