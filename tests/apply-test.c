/* Records that are well formed and make no sense: a peer's mistake or malice. Each is refused with the tables as they
 * were, or does something consistent: afterwards everything can be undone, and check has nothing to say. */
#include "fs/check.h"
#include "fs/ops_parts.h"
#include "tests/fixture.h"

#include <stdio.h>
#include <sys/stat.h>

static struct store *store;
static uint64_t seed, epoch_first;
static uint64_t inos[40];
static unsigned ino_count, taken[RECORD_TYPE_END], refused[RECORD_TYPE_END], odd;
static uint8_t payload[8 * BATON_BLOCK];
static uint64_t sums[8];
static struct reclaim_step steps[4];
static struct position at;

static uint64_t below(uint64_t n) {
    return test_random(&seed) % n;
}

static uint64_t some_ino(void) {
    return below(20) ? inos[below(ino_count)] : below(100000);
}

static uint64_t new_id(void) {
    return EPOCH_COUNTER(at.epoch) << 40 | ((at.lsn + 1 - epoch_first) * 2 + below(2));
}

static struct span some_name(void) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    return span_of(names[below(6)]);
}

static uint64_t ino_of(uint64_t parent, struct span name) {
    struct dirent_row entry;
    return dirent_get(store, parent, name.data, name.length, &entry) == 0 && below(10) ? entry.ino : some_ino();
}

static void fill_name(struct record *r) {
    static const uint32_t kinds[] = {S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO};
    r->parent = some_ino();
    r->name = some_name();
    switch (r->head.type) {
    case RECORD_CREATE:
        r->head.ino = below(10) ? new_id() : some_ino();
        r->mode = kinds[below(6)] | 0644;
        r->new_data = S_ISREG(r->mode) ? r->head.ino : 0;
        r->cookie = below(10) ? r->head.ino : below(10);
        if (S_ISLNK(r->mode))
            r->value = span_of("target");
        break;
    case RECORD_LINK:
        r->head.ino = some_ino();
        r->cookie = new_id();
        break;
    case RECORD_UNLINK:
        r->head.ino = ino_of(r->parent, r->name);
        r->flags = (uint32_t)below(2);
        break;
    default:
        r->head.ino = ino_of(r->parent, r->name);
        r->new_parent = below(2) ? r->parent : some_ino();
        r->new_name = some_name();
        r->victim = below(3) ? ino_of(r->new_parent, r->new_name) : 0;
        r->flags = (uint32_t)below(3); /* none, EXCHANGED, LEFT_WHITEOUT */
        r->cookie = new_id();
        r->old_cookie = !r->flags ? 0 : below(10) ? new_id() : some_ino();
    }
}

static void fill_attributes(struct record *r) {
    static const char *const names[] = {"user.x", "security.capability", "system.posix_acl_access",
                                        "system.posix_acl_default"};
    r->head.ino = some_ino();
    if (r->head.type == RECORD_SETATTR) {
        r->flags = (uint32_t)below(256);
        r->mode = r->flags & SET_MODE ? (uint32_t)below(010000) : 0;
        r->value = r->flags & SET_ACL && below(2) ? span_of("nonsense") : (struct span){NULL, 0};
    } else {
        r->name = span_of(names[below(4)]);
        r->flags = (uint32_t)below(4);
        r->mode = r->flags & XATTR_SET_MODE ? (uint32_t)below(010000) : 0;
        r->value = r->flags & XATTR_REMOVE ? (struct span){NULL, 0} : span_of("value");
    }
}

static void fill_data(struct record *r) {
    struct inode_row row = {0};
    r->head.ino = some_ino();
    inode_get(store, r->head.ino, &row);
    r->first = below(40);
    r->count = 1 + below(40);
    r->size = below(4) ? row.size : below(200000);
    if (r->head.type == RECORD_WRITE) {
        r->head.blocks = 1 + (uint32_t)below(8);
        if (below(2))
            r->size = MAX(row.size, (r->first + r->head.blocks) * BATON_BLOCK);
    } else if (r->head.type == RECORD_TRUNCATE) {
        r->size = below(3) ? below(200000) : 0;
        r->first = FILE_BLOCKS(r->size);
        r->last = below(2) ? UINT64_MAX : r->first + below(20);
        if (r->size > row.size && below(4))
            r->last = r->first;
        r->head.blocks = r->size % BATON_BLOCK ? (uint32_t)below(2) : 0;
        if (r->size == 0 && r->last == UINT64_MAX && below(2))
            r->new_data = below(2) ? new_id() : some_ino();
    } else if (r->head.type == RECORD_ALLOCATE && below(2)) {
        r->size = MAX(row.size, (r->first + r->count) * BATON_BLOCK - below(BATON_BLOCK));
    }
    r->head.payload = r->head.blocks * BATON_BLOCK;
    for (uint32_t i = 0; i < r->head.blocks; i++) {
        payload[i * BATON_BLOCK] = (uint8_t)below(256);
        sums[i] = block_checksum(payload + (size_t)i * BATON_BLOCK);
    }
    r->checksums = (struct span){(uint8_t *)sums, r->head.blocks * 8};
}

static void fill_reclaim(struct record *r) {
    r->step_count = 1 + (uint32_t)below(4);
    for (uint32_t i = 0; i < r->step_count; i++) {
        steps[i] = (struct reclaim_step){.kind = 1 + (uint32_t)below(4), .id = some_ino()};
        if (steps[i].kind == RECLAIM_DROP) {
            steps[i].ino = below(4) ? steps[i].id : 0;
            steps[i].from = below(2) ? 0 : below(50);
            steps[i].to = below(2) ? UINT64_MAX : steps[i].from + 1 + below(50);
        }
    }
    r->steps = steps;
}

static void offer(void) {
    static uint8_t bytes[RECORD_LENGTH_MAX];
    struct record r = {.head.type = (uint16_t)(1 + below(RECORD_RECLAIM))};
    store_position(store, &at);
    r.head.lsn = at.lsn + 1;
    r.head.epoch = at.epoch;
    r.head.time = at.time + (int64_t)below(20);
    store_lock(store); /* looks into the tables to be plausible */
    if (r.head.type <= RECORD_RENAME)
        fill_name(&r);
    else if (r.head.type == RECORD_SETATTR || r.head.type == RECORD_XATTR)
        fill_attributes(&r);
    else if (r.head.type == RECORD_RECLAIM)
        fill_reclaim(&r);
    else
        fill_data(&r);
    store_unlock(store);
    int length = record_encode(&r, at.chain, bytes, sizeof bytes);
    if (length < 0)
        return; /* not well formed */
    int error = store_receive(store, bytes, (size_t)length, payload, r.head.payload);
    if (error == 0) {
        taken[r.head.type]++;
        if (record_new_inode(&r))
            inos[ino_count < 40 ? ino_count++ : 1 + below(39)] = record_new_inode(&r);
    } else {
        refused[r.head.type]++;
        if (error != -EBADMSG && odd++ < 10)
            diag("record %s: %d", record_type_name(r.head.type), error);
    }
}

static void start(void) {
    uint8_t bytes[400];
    struct record r = {.head = {.type = RECORD_EPOCH, .lsn = 1, .epoch = EPOCH_MAKE(1, 7), .time = clock_now()},
                       .name = span_of("a")};
    store_position(store, &at);
    int length = record_encode(&r, at.chain, bytes, sizeof bytes);
    is_int(0, store_receive(store, bytes, (size_t)length, NULL, 0), "an epoch");
    epoch_first = 1;
}

int main(void) {
    const char *text = getenv("BATON_STEPS");
    unsigned count = text ? (unsigned)atoi(text) : 40000;
    char path[600], why[1200];
    plan_lazy();
    seed = test_seed();
    store = fixture_store("store", 0);
    inos[ino_count++] = ROOT_INO;
    start();
    struct tables *saved = tables_take(store, TABLES_EXACT), *before = NULL;
    for (unsigned i = 0; i < count; i++) {
        bool look = below(200) == 0;
        struct position old = at, seen;
        if (look) {
            before = tables_take(store, TABLES_EXACT);
            store_position(store, &old);
        }
        offer();
        store_position(store, &seen);
        if (look) {
            struct tables *after = tables_take(store, TABLES_EXACT);
            if (seen.lsn == old.lsn && !tables_equal(before, after, why, sizeof why))
                ok(false, "a refused record leaves the tables as they were: %s", why);
            tables_free(after);
            tables_free(before);
        }
    }
    for (uint16_t type = 1; type < RECORD_EPOCH; type++)
        ok(taken[type] && refused[type], "%s: %u taken, %u refused", record_type_name(type), taken[type],
           refused[type]);
    is_int(0, odd, "a contradiction is -EBADMSG");
    store_close(store);
    snprintf(path, sizeof path, "%s/store", test_directory());
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "check has nothing to say");
    store = fixture_open("store");
    is_int(0, store_undo(store, 1), "all of it is undone");
    struct tables *after = tables_take(store, TABLES_EXACT);
    ok(tables_equal(saved, after, why, sizeof why), "to the very beginning");
    tables_free(after);
    tables_free(saved);
    store_close(store);
    return 0;
}
