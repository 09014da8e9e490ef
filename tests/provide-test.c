/* The provider (replication/provide.c), asked over real sockets: all rows of a state, and the blocks that it names, while
 * the store goes on; blocks of files; after a restart; what is refused; hostile questions; what is kept, and until when.
 */
#include "fs/apply.h"
#include "fs/extent.h"
#include "replication/parts.h"
#include "tests/churn.h"
#include "tests/pair.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

static uint64_t seed;
/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

struct asker {
    struct link *link;
    void *socket;
    unsigned of;
    uint64_t number;
    struct link_message message;
    bool answered;
    unsigned others, refusals; /* answers to questions that nobody waits for; those of them with an error */
};

static void dial(struct asker *asker, struct pair *pair, unsigned from, unsigned of) {
    *asker = (struct asker){.link = pair->nodes[from].replicator->link, .of = of, .number = asker->number};
    asker->socket = link_dial(asker->link, of, LINK_COPY, 0, 100);
    if (!asker->socket)
        bail("no socket");
}

static void done(struct asker *asker) {
    if (asker->answered)
        link_message_done(&asker->message);
    asker->answered = false;
}

static void hang_up(struct asker *asker) {
    done(asker);
    link_hang_up(asker->socket);
}

/* Asks until the answer is there. It stays until the next question. */
static const struct wire_copy *ask_again(struct asker *asker, const struct wire_ask_copy *ask) {
    struct frame frame = {.head = {.type = WIRE_ASK_COPY}, .ask = *ask};
    int64_t deadline = clock_boot() + 30000 * MS, again = 0;
    done(asker);
    while (clock_boot() < deadline) {
        if (clock_boot() > again && link_send_frame(asker->link, asker->socket, NULL, &frame) == 0)
            again = clock_boot() + 1000 * MS;
        if (link_receive(asker->link, asker->socket, (int)asker->of, false, &asker->message))
            continue;
        const struct wire_copy *copy = &asker->message.frame.copy;
        asker->answered = true;
        if (asker->message.frame.head.type == WIRE_COPY && copy->number == ask->number && copy->kind == ask->kind) {
            if (copy->error != EBUSY)
                return copy;
            again = clock_boot() + 100 * MS; /* it reads its journal */
            done(asker);
            continue;
        }
        asker->others++;
        asker->refusals += copy->error != 0;
        done(asker);
    }
    bail("question %llu (kind %u) is not answered", (unsigned long long)ask->number, ask->kind);
}

static const struct wire_copy *ask(struct asker *asker, struct wire_ask_copy question) {
    question.number = ++asker->number;
    return ask_again(asker, &question);
}

struct state { /* that was opened */
    uint64_t lsn;
    uint8_t chain[CHAIN_SIZE], incarnation[16];
};

static struct wire_ask_copy about(const struct state *state, enum copy_kind kind) {
    struct wire_ask_copy ask = {.kind = kind, .lsn = state->lsn};
    memcpy(ask.chain, state->chain, CHAIN_SIZE);
    memcpy(ask.incarnation, state->incarnation, 16);
    return ask;
}

static struct state state_of(const struct wire_copy *copy) {
    struct state state = {.lsn = copy->lsn};
    memcpy(state.chain, copy->chain, CHAIN_SIZE);
    memcpy(state.incarnation, copy->incarnation, 16);
    return state;
}

static struct state open_newest(struct asker *asker) {
    const struct wire_copy *copy = ask(asker, (struct wire_ask_copy){.kind = COPY_OPEN});
    if (!is_int(0, copy->error, "the newest state is opened"))
        diag("%s", copy->text);
    return state_of(copy);
}

static bool refused(struct asker *asker, struct wire_ask_copy question, int error, const char *what) {
    const struct wire_copy *copy = ask(asker, question);
    ok(copy->text[0] || !copy->error, "%s: %s", what, copy->text);
    return is_int(error, -(int)copy->error, "%s: its error", what);
}

/* ---- Copying --------------------------------------------------------------------------------------------------------- */

struct copying {
    struct asker *asker;
    struct state state;
    struct tables *tables;
    uint32_t table;
    struct key after;
    unsigned answers, large; /* large: with more than one row and more bytes than were asked for */
    uint32_t enough;
    struct place places[COPY_PLACES_MAX]; /* of extents whose blocks are still to be asked for */
    uint8_t sums[COPY_BLOCKS_MAX][8];
    uint32_t place_count, blocks;
    uint64_t checked, wrong;
};

static void fetch_places(struct copying *c) {
    struct wire_ask_copy question = about(&c->state, COPY_PLACES);
    struct span bytes;
    uint32_t at = 0, item = 0, sum = 0;
    int error;
    question.place_count = c->place_count;
    memcpy(question.places, c->places, sizeof c->places);
    const struct wire_copy *copy = ask(c->asker, question);
    if (copy->error || copy->count != c->place_count)
        bail("places: %s", copy->text);
    for (; wire_copy_blocks_next(copy, &at, &error, &bytes) > 0; item++)
        for (uint32_t i = 0; i < c->places[item].count; i++, sum++, c->checked++) {
            uint64_t seen = error ? 0 : block_checksum(bytes.data + (size_t)i * BATON_BLOCK);
            if (error || memcmp(&seen, c->sums[sum], 8) != 0)
                c->wrong++;
        }
    c->place_count = c->blocks = 0;
}

static void add_place(struct copying *c, struct span key, struct span value) {
    struct extent extent;
    if (extent_parse(key, value, &extent))
        bail("an extent row is damaged");
    if (!extent.checksums)
        return;
    memcpy(c->sums[c->blocks], extent.checksums, extent.place.count * 8);
    c->places[c->place_count++] = extent.place;
    c->blocks += extent.place.count;
}

/* The next rows; of extents the blocks, too. */
static void fetch_rows(struct copying *c) {
    struct wire_ask_copy question = about(&c->state, COPY_ROWS);
    struct span key, value;
    uint32_t at = 0;
    question.table = c->table;
    question.after = c->after;
    const struct wire_copy *copy = ask(c->asker, question);
    if (copy->error)
        bail("rows of table %u: %s", c->table, copy->text);
    c->answers++;
    c->large += copy->count > 1 && copy->bulk.length > c->enough;
    struct link_message kept = c->asker->message; /* while places are asked for */
    c->asker->answered = false;
    copy = &kept.frame.copy;
    while (wire_copy_row_next(copy, &at, &key, &value) > 0) {
        tables_add(c->tables, (enum table)c->table, key, value);
        c->after.length = (uint16_t)key.length;
        memcpy(c->after.bytes, key.data, key.length);
        if (c->table == TABLE_EXTENT) {
            add_place(c, key, value);
            if (c->place_count == COPY_PLACES_MAX || c->blocks + EXTENT_BLOCKS_MAX > COPY_BLOCKS_MAX)
                fetch_places(c);
        }
    }
    if (c->place_count)
        fetch_places(c);
    if (copy->done) {
        c->table++;
        c->after.length = 0;
    }
    link_message_done(&kept);
}

static void same_rows(const struct tables *expected, const struct tables *seen, const char *what) {
    char why[1200] = "";
    if (!ok(tables_equal(expected, seen, why, sizeof why), "%s: %zu rows", what, tables_rows(seen)))
        diag("%s", why);
}

/* ---- While the store goes on ----------------------------------------------------------------------------------------- */

static struct {
    struct store *store;
    uint64_t directories[2];
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t mutex; /* held over one change */
    uint64_t seed;
    atomic_uint changes;
} busy = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *change(void *unused) {
    (void)unused;
    while (!atomic_load(&busy.stop)) {
        pthread_mutex_lock(&busy.mutex);
        int error = churn(busy.store, busy.directories, &busy.seed);
        if (error)
            bail("churn: %s", strerror(-error));
        if (atomic_fetch_add(&busy.changes, 1) % 64 == 0)
            op_reclaim_some(busy.store);
        pthread_mutex_unlock(&busy.mutex);
        usleep(100);
    }
    return NULL;
}

static void wait_changes(unsigned count) {
    for (unsigned until = atomic_load(&busy.changes) + count; atomic_load(&busy.changes) < until;)
        usleep(1000);
}

static void busy_start(struct store *store) {
    static unsigned times;
    char one[16], two[16];
    snprintf(one, sizeof one, "one-%u", times);
    snprintf(two, sizeof two, "two-%u", times++);
    busy.store = store;
    busy.seed = test_random(&seed);
    busy.directories[0] = make(store, ROOT_INO, one, S_IFDIR | 0755);
    busy.directories[1] = make(store, ROOT_INO, two, S_IFDIR | 0755);
    atomic_store(&busy.stop, false);
    if (pthread_create(&busy.thread, NULL, change, NULL) != 0)
        bail("no thread");
}

static void busy_stop(void) {
    atomic_store(&busy.stop, true);
    pthread_join(busy.thread, NULL);
}

/* Rows in such portions. */
static void set_provider(struct pair *pair, unsigned node, uint32_t bytes, int64_t idle) {
    struct replicator *r = pair->nodes[node].replicator;
    repl_lock(r);
    r->copy_bytes = bytes;
    r->copy_idle = idle;
    repl_unlock(r);
}

/* No change between what is saved and the state that is opened. */
static void begin(struct copying *c, struct asker *asker, struct store *store, struct tables **then, uint32_t enough) {
    struct position position;
    pthread_mutex_lock(&busy.mutex);
    if (store_checkpoint(store))
        bail("no checkpoint");
    store_position(store, &position);
    *then = tables_take(store, TABLES_EXACT);
    *c = (struct copying){.asker = asker, .state = open_newest(asker), .tables = tables_empty(), .enough = enough};
    const struct wire_copy *copy = &asker->message.frame.copy;
    is_int((int64_t)position.lsn, (int64_t)copy->lsn, "it is that of the last record");
    is_blob(position.chain, copy->chain, CHAIN_SIZE, "with its chain value");
    ok(position.epoch == copy->epoch && position.time == copy->time, "its epoch and time");
    uint64_t rows = 0;
    for (unsigned i = 0; i < TABLE_SHARED_END; i++)
        rows += copy->rows[i];
    is_int((int64_t)tables_rows(*then), (int64_t)rows, "and how many rows there are");
    pthread_mutex_unlock(&busy.mutex);
}

static json_int_t shown(struct pair *pair, unsigned node, const char *key) {
    json_t *status = replicator_status(pair->nodes[node].replicator);
    json_t *copies = json_object_get(status, "copies"), *first = json_array_get(copies, 0);
    json_int_t value = first ? json_integer_value(json_object_get(first, key)) : -1;
    if (json_array_size(copies) > 1)
        value = -2;
    json_decref(status);
    return value;
}

/* Without a window the journal goes as far as it may: what is not held is trimmed, and its blocks are punched. */
static void whole_while_busy(struct pair *pair, struct asker *asker) {
    struct store *store = pair->nodes[0].store;
    struct tables *then;
    struct copying c;
    uint64_t lsn, ino = make(store, ROOT_INO, "large attribute", S_IFREG | 0644);
    static uint8_t value[BATON_XATTR_VALUE_MAX];
    memset(value, 7, sizeof value);
    is_int(0, op_setxattr(store, &root_caller, ino, "user.large", value, sizeof value, 0, false, &lsn), "a large row");
    busy_start(store);
    wait_changes(1500);
    set_provider(pair, 0, 2000, PROVIDE_IDLE);
    begin(&c, asker, store, &then, 2000);
    while (c.table < TABLE_SHARED_END) {
        fetch_rows(&c);
        if (c.answers % 8 == 0)
            wait_changes(20);
        if (c.answers % 16 == 0)
            store_checkpoint(store);
    }
    busy_stop();
    same_rows(then, c.tables, "all that was there then");
    ok(c.answers > 50 && c.large == 0, "in %u small answers", c.answers);
    ok(c.checked > 1000 && c.wrong == 0, "%llu blocks are as their checksums say, %llu are not",
       (unsigned long long)c.checked, (unsigned long long)c.wrong);
    is_int((int64_t)c.state.lsn, shown(pair, 0, "lsn"), "status shows which state is copied");
    ok(shown(pair, 0, "rows") >= (json_int_t)tables_rows(then) && shown(pair, 0, "blocks") >= (json_int_t)c.checked &&
           shown(pair, 0, "bytes") >= (json_int_t)c.checked * BATON_BLOCK,
       "and how much of it");
    ok(shown(pair, 0, "last_ms") < 30000, "and when it was asked for last");
    tables_free(then);
    tables_free(c.tables);
}

/* ---- What is kept ---------------------------------------------------------------------------------------------------- */

/* Changes and checkpoints, so that what may be trimmed is. The first record that is left. */
static uint64_t trimmed(struct pair *pair, uint64_t beyond, unsigned rounds) {
    struct position position;
    static unsigned number;
    do {
        char name[32];
        snprintf(name, sizeof name, "trim-%u", number++);
        make(pair->nodes[0].store, ROOT_INO, name, S_IFREG | 0600);
        pair_wait_equal(pair, 60);
        store_checkpoint(pair->nodes[1].store); /* durable there, and so not needed for it */
        usleep(60000); /* until a heartbeat has said so: not waited for, only looked at again */
        store_checkpoint(pair->nodes[0].store);
        store_position(pair->nodes[0].store, &position);
    } while (position.first <= beyond && --rounds > 0);
    return position.first;
}

static bool wait_closed(struct pair *pair, unsigned node) {
    for (int64_t until = clock_boot() + 10000 * MS; clock_boot() < until; usleep(5000))
        if (shown(pair, node, "lsn") == -1)
            return true;
    return false;
}

static void kept_and_let_go(struct pair *pair, struct asker *asker) {
    ask(asker, (struct wire_ask_copy){.kind = COPY_CLOSE});
    is_int(-1, shown(pair, 0, "lsn"), "it is closed: status shows none");
    struct state state = open_newest(asker);
    is_int((int64_t)state.lsn + 1, (int64_t)trimmed(pair, state.lsn + 1, 20), "the journal is kept above an open state");
    struct wire_ask_copy other = about(&state, COPY_CLOSE);
    other.chain[0] ^= 1;
    ask(asker, other);
    is_int((int64_t)state.lsn, shown(pair, 0, "lsn"), "a word to close another one does not close it");
    is_int(0, ask(asker, about(&state, COPY_CLOSE))->error, "it is closed");
    ok(trimmed(pair, state.lsn + 1, 100) > state.lsn + 1, "and the journal is trimmed");
    refused(asker, about(&state, COPY_ROWS), -ENOENT, "its rows are gone");
    refused(asker, about(&state, COPY_OPEN), -ENOENT, "it is not opened again");

    state = open_newest(asker);
    set_provider(pair, 0, PROVIDE_BYTES, 1500 * MS);
    json_int_t rows = 0;
    for (unsigned i = 0; i < 30; i++) {
        const struct wire_copy *copy = ask(asker, about(&state, COPY_ROWS));
        if (copy->error)
            bail("no rows");
        rows += copy->count;
        usleep(100000); /* 3 s in all, twice the idle time */
    }
    is_int(rows, shown(pair, 0, "rows"), "it is kept while it is asked for, and not opened anew");
    ok(wait_closed(pair, 0), "and let go some time after the last question");
    ok(trimmed(pair, state.lsn + 1, 100) > state.lsn + 1, "with its journal");
    set_provider(pair, 0, PROVIDE_BYTES, PROVIDE_IDLE);
}

static void which_state(struct asker *asker, struct store *store) {
    struct wire_ask_copy open = {.kind = COPY_OPEN, .number = ++asker->number};
    struct state first = state_of(ask_again(asker, &open));
    make(store, ROOT_INO, "meanwhile", S_IFREG | 0600);
    store_checkpoint(store);
    struct state again = state_of(ask_again(asker, &open));
    is_int((int64_t)first.lsn, (int64_t)again.lsn, "the same question has the same answer");
    struct state second = open_newest(asker);
    is_int((int64_t)first.lsn + 1, (int64_t)second.lsn, "another one the state of now");
    refused(asker, about(&first, COPY_ROWS), -ESTALE, "rows of the older one, which is open no more");
    is_int(0, ask(asker, about(&second, COPY_ROWS))->error, "the open one stays open");
    is_int((int64_t)first.lsn, (int64_t)ask(asker, about(&first, COPY_OPEN))->lsn, "the older one is opened by its number");
    struct wire_ask_copy wrong = about(&first, COPY_OPEN);
    wrong.chain[3] ^= 1;
    refused(asker, wrong, -ESTALE, "one that this store never had");
    wrong = about(&second, COPY_OPEN);
    wrong.lsn += 1000;
    refused(asker, wrong, -ENOENT, "one of the future");
    wrong = about(&second, COPY_ROWS);
    wrong.lsn = 0;
    refused(asker, wrong, -EINVAL, "rows of no state");
}

static void stale_incarnation(struct asker *asker, struct store *store) {
    struct state state = open_newest(asker);
    is_blob(store_incarnation(store), state.incarnation, 16, "the answer names the store");
    state.incarnation[5] ^= 1;
    refused(asker, about(&state, COPY_OPEN), -ESTALE, "a state of another store");
    refused(asker, about(&state, COPY_ROWS), -ESTALE, "rows of another store");
    refused(asker, about(&state, COPY_PLACES), -ESTALE, "places of another store");
    refused(asker, about(&state, COPY_DATA), -ESTALE, "data of another store");
    memset(state.incarnation, 0, 16);
    refused(asker, about(&state, COPY_PLACES), -ESTALE, "places of any store");
    is_int(0, ask(asker, about(&state, COPY_DATA))->error, "data may be any store's");
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------------- */

#define FILE_BLOCKS_HERE 40u
static uint8_t content[FILE_BLOCKS_HERE * BATON_BLOCK];

static int first_place(void *context, const struct extent_part *part) {
    *(struct place *)context = part->place;
    return 1;
}

static struct place place_of(struct store *store, uint64_t data, uint64_t block) {
    struct place place = {0};
    store_lock(store);
    extent_walk(store, data, block, 1, first_place, &place);
    store_unlock(store);
    return place;
}

static int item(const struct wire_copy *copy, unsigned which, struct span *bytes) {
    uint32_t at = 0;
    int error = -EINVAL;
    for (unsigned i = 0; i <= which; i++)
        if (wire_copy_blocks_next(copy, &at, &error, bytes) <= 0)
            return -ERANGE;
    return error;
}

/* A file with a hole in blocks 10 … 12 and an unwritten block behind its end. */
static uint64_t make_file(struct store *store, const char *name) {
    uint64_t ino = make(store, ROOT_INO, name, S_IFREG | 0644), lsn;
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (uint8_t)test_random(&seed);
    if (op_write(store, ino, content, 10 * BATON_BLOCK, 0, 0, &lsn) ||
        op_write(store, ino, content + 13 * BATON_BLOCK, sizeof content - 13 * BATON_BLOCK, 13 * BATON_BLOCK, 0, &lsn) ||
        op_fallocate(store, ino, 0, sizeof content, BATON_BLOCK, &lsn) || store_checkpoint(store))
        bail("the file cannot be written");
    return row_of(store, ino).data;
}

static void blocks_by_data(struct asker *asker, struct store *store) {
    uint64_t data = make_file(store, "data");
    struct wire_ask_copy question = {.kind = COPY_DATA, .data = data, .first = 0, .count = FILE_BLOCKS_HERE + 2};
    struct span bytes;
    unsigned right = 0, holes = 0;
    const struct wire_copy *copy = ask(asker, question);
    is_int(FILE_BLOCKS_HERE + 2, copy->count, "an item for each block");
    for (unsigned i = 0; i < copy->count; i++) {
        int error = item(copy, i, &bytes);
        holes += error == -ENOENT;
        right += error == 0 && bytes.length == BATON_BLOCK && memcmp(bytes.data, content + i * BATON_BLOCK, BATON_BLOCK) == 0;
    }
    is_int(FILE_BLOCKS_HERE - 3, right, "all that is written");
    is_int(3 + 2, holes, "and none of what is not");
    question.first = UINT64_MAX - 9;
    question.count = 9;
    copy = ask(asker, question);
    ok(copy->count == 9 && item(copy, 8, &bytes) == -ENOENT, "at the end of all numbers there is nothing");

    char path[1200];
    struct place bad = place_of(store, data, 20);
    snprintf(path, sizeof path, "%s/data/%08x.seg", store_path(store), bad.segment);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (pwrite_all(fd, "rot", 3, (uint64_t)bad.position * BATON_BLOCK + 77))
        bail("%s cannot be damaged", path);
    question.first = 19;
    question.count = 3;
    copy = ask(asker, question);
    ok(item(copy, 0, &bytes) == 0 && item(copy, 2, &bytes) == 0, "beside a block that has rotted all is well");
    is_int(-EIO, item(copy, 1, &bytes), "what has rotted is not given as good");
}

static void blocks_by_place(struct asker *asker, struct store *store) {
    struct state state = open_newest(asker);
    struct wire_ask_copy question = about(&state, COPY_PLACES);
    uint64_t data = make_file(store, "places");
    struct place good = place_of(store, data, 13);
    struct span bytes;
    good.count = 3;
    if (place_of(store, data, 15).position != good.position + 2)
        bail("the file does not lie in one piece");
    const struct place places[] = {good,
                                   {good.segment, UINT32_MAX, 1},
                                   {good.segment, UINT32_MAX - 1, 200},
                                   {good.segment, 65535, 2},
                                   {good.segment + 1000, 0, 1},
                                   {UINT32_MAX, 0, 1},
                                   {0, 0, 1},
                                   good};
    question.place_count = sizeof places / sizeof *places;
    memcpy(question.places, places, sizeof places);
    const struct wire_copy *copy = ask(asker, question);
    is_int(question.place_count, copy->count, "an item for each place");
    for (unsigned i = 0; i < copy->count; i++) {
        bool there = i == 0 || i == copy->count - 1;
        is_int(there ? 0 : -ENOENT, item(copy, i, &bytes), "place %u is %sthere", i, there ? "" : "not ");
        if (there)
            is_blob(content + 13 * BATON_BLOCK, bytes.data, bytes.length, "with its three blocks");
    }
    question.place_count = 1;
    question.places[0] = (struct place){good.segment, 40000, 5};
    is_int(-EIO, item(ask(asker, question), 0, &bytes), "blocks that were never handed out");
}

/* ---- Hostile questions ----------------------------------------------------------------------------------------------- */

static uint64_t word(void) {
    static const uint64_t words[] = {0, 1, 2, 5, 64, 255, 256, 4096, 65535, 1u << 31, UINT32_MAX, 1ull << 62, UINT64_MAX};
    return test_random(&seed) % 4 ? words[test_random(&seed) % (sizeof words / sizeof *words)] : test_random(&seed);
}

static void mend(uint8_t *buffer, size_t length) {
    struct wire_head *head = (struct wire_head *)buffer;
    head->checksum = 0;
    uint64_t sum = XXH3_64bits(buffer, sizeof *head);
    head->checksum = XXH3_64bits_withSeed(buffer + sizeof *head, length - sizeof *head, sum);
}

static struct span some_ranges(uint64_t count) {
    static uint8_t packed[COPY_RANGES_BYTES];
    struct span ranges = {packed, 0};
    for (uint64_t i = 0; i < count; i++) {
        struct range range = {.table = (enum table)(test_random(&seed) % TABLE_SHARED_END)};
        range.from = test_random(&seed) % 4 ? key_u64_u64(word(), word()) : (struct key){.length = 0};
        range.to = test_random(&seed) % 4 ? key_u64_u64(word(), word()) : (struct key){.length = 0};
        uint32_t used = range_valid(&range) ? wire_range_put(packed, ranges.length, &range) : 0;
        ranges.length = used ? used : ranges.length;
    }
    if (ranges.length == 0)
        ranges.length = wire_range_put(packed, 0, &(struct range){.table = TABLE_INODE});
    return ranges;
}

static void fill_hostile(struct wire_ask_copy *ask, const struct state *state) {
    *ask = about(state, (enum copy_kind)(1 + test_random(&seed) % (COPY_KIND_END - 1)));
    if (test_random(&seed) % 4 == 0)
        ask->lsn = word();
    if (test_random(&seed) % 8 == 0)
        ask->chain[0] ^= 1;
    if (ask->kind == COPY_CLOSE && test_random(&seed) % 8)
        ask->kind = COPY_ROWS;
    ask->table = (uint32_t)(test_random(&seed) % 4 ? test_random(&seed) % TABLE_SHARED_END : word());
    ask->after.length = (uint16_t)(test_random(&seed) % (KEY_MAX + 1));
    for (unsigned i = 0; i < ask->after.length; i++)
        ask->after.bytes[i] = (uint8_t)(test_random(&seed) % 4 ? 0 : test_random(&seed));
    ask->place_count = (uint32_t)(test_random(&seed) % (COPY_PLACES_MAX + 1));
    for (unsigned i = 0; i < ask->place_count; i++)
        ask->places[i] = (struct place){(uint32_t)(test_random(&seed) % 2 ? 1 : word()), (uint32_t)word(),
                                        (uint32_t)(test_random(&seed) % 16 ? 1 + test_random(&seed) % 4 : word())};
    if (ask->kind == COPY_COMPARED && test_random(&seed) % 8)
        ask->kind = COPY_HASHES;
    if (ask->kind == COPY_HASHES || ask->kind == COPY_RANGE)
        ask->ranges = some_ranges(ask->kind == COPY_RANGE ? 1 : 1 + test_random(&seed) % 20);
    ask->data = test_random(&seed) % 2 ? word() : EPOCH_MAKE(1, 100);
    ask->first = word();
    ask->count = (uint32_t)(test_random(&seed) % 16 ? test_random(&seed) % 20 : word());
}

static void hostile(struct asker *asker, struct pair *pair) {
    struct state state = open_newest(asker);
    unsigned sent = 0;
    asker->others = asker->refusals = 0;
    for (unsigned round = 0; round < 4000; round++) {
        uint8_t buffer[WIRE_CONTROL_MAX];
        struct frame frame = {.head = {.type = WIRE_ASK_COPY}};
        link_fill_head(asker->link, &frame.head);
        fill_hostile(&frame.ask, &state);
        size_t length = wire_encode(&frame, buffer);
        for (uint64_t changes = test_random(&seed) % 3; changes > 0; changes--)
            buffer[sizeof frame.head + test_random(&seed) % (length - sizeof frame.head)] = (uint8_t)word();
        mend(buffer, length);
        sent += link_send(asker->socket, NULL, buffer, length) == 0;
        if (round % 32 == 0) /* connections hold thousands of them: not more than can be answered soon */
            ask(asker, (struct wire_ask_copy){.kind = COPY_DATA});
    }
    diag("%u hostile questions, %u answers, %u of them refusals", sent, asker->others, asker->refusals);
    ok(asker->others > 200 && asker->refusals > 40 && asker->refusals < asker->others, "hostile questions are answered or refused");
    ask(asker, (struct wire_ask_copy){.kind = COPY_CLOSE});
    state = open_newest(asker);
    is_int(0, ask(asker, about(&state, COPY_ROWS))->error, "and afterwards good ones are answered");
    is_int(0, pair_create_file(pair, 0, "after the hostile ones", NULL), "the volume goes on");
}

/* ---- Comparing ------------------------------------------------------------------------------------------------------- */

static json_int_t compared(struct pair *pair, unsigned node, const char *key) {
    json_t *status = replicator_status(pair->nodes[node].replicator);
    json_t *first = json_array_get(json_object_get(status, "compares"), 0);
    json_int_t value = first ? json_integer_value(json_object_get(first, key)) : -1;
    json_decref(status);
    return value;
}

static struct wire_ask_copy ranges_of(const struct state *state, enum copy_kind kind, const struct range *range) {
    static uint8_t packed[COPY_RANGES_BYTES];
    struct wire_ask_copy question = about(state, kind);
    question.ranges = (struct span){packed, wire_range_put(packed, 0, range)};
    return question;
}

static struct wire_copy_hash hash_of(struct asker *asker, const struct state *state, const struct range *range) {
    const struct wire_copy *copy = ask(asker, ranges_of(state, COPY_HASHES, range));
    if (copy->error || copy->count != 1)
        bail("no hash: %s", copy->text);
    return wire_copy_hash(copy, 0);
}

static struct state newest_of(struct store *store) {
    struct position position;
    struct state state;
    store_position(store, &position);
    state.lsn = position.lsn;
    memcpy(state.chain, position.chain, CHAIN_SIZE);
    memcpy(state.incarnation, store_incarnation(store), 16);
    return state;
}

/* The provider's thread does it, for which others wait. */
static void state_of_long_ago(struct asker *of_b, struct pair *pair, const struct state *then) {
    struct replicator *r = pair->nodes[1].replicator;
    char name[32];
    for (unsigned i = 0; i < 9000; i++) { /* more than are read back at once */
        snprintf(name, sizeof name, "since-%u", i);
        make(pair->nodes[0].store, ROOT_INO, name, S_IFREG | 0600);
    }
    ok(pair_wait_equal(pair, 60), "many changes");
    is_int(0, store_checkpoint(pair->nodes[1].store), "that are committed: only those are read back");
    struct state now = newest_of(pair->nodes[1].store);
    repl_lock(r);
    r->compare_opens = 0;
    repl_unlock(r);
    refused(of_b, about(then, COPY_COMPARE), -ETIME, "a state that takes too long to open");
    is_int(-1, compared(pair, 1, "lsn"), "is not kept");
    is_int(0, ask(of_b, about(&now, COPY_COMPARE))->error, "the newest one always can be");
    repl_lock(r);
    r->compare_opens = COMPARE_OPENS;
    repl_unlock(r);
    is_int(0, ask(of_b, about(then, COPY_COMPARE))->error, "the other one with more time");
    is_int(0, ask(of_b, about(then, COPY_COMPARED))->error, "it is given back");
}

/* Of the standby, which gives no rows for copying. */
static void comparing(struct pair *pair) {
    struct asker of_b = {0};
    struct store *store = pair->nodes[0].store;
    const struct range inodes = {.table = TABLE_INODE}, small = range_of(TABLE_INODE, ROOT_INO);
    uint8_t expected[RANGE_HASH];
    uint32_t rows;
    make(store, ROOT_INO, "compared", S_IFREG | 0600);
    ok(pair_wait_equal(pair, 60), "both are equal");
    dial(&of_b, pair, 0, 1);
    struct state state = newest_of(pair->nodes[1].store);
    refused(&of_b, ranges_of(&state, COPY_HASHES, &inodes), -ESTALE, "hashes of a state that is not kept");
    struct wire_ask_copy wrong = about(&state, COPY_COMPARE);
    wrong.lsn += 10;
    refused(&of_b, wrong, -EAGAIN, "a state that is still to come");
    wrong = about(&state, COPY_COMPARE);
    wrong.chain[0] ^= 1;
    refused(&of_b, wrong, -ESTALE, "one of another history");
    is_int(0, ask(&of_b, about(&state, COPY_COMPARE))->error, "the standby keeps its newest");
    is_int((int64_t)state.lsn, compared(pair, 1, "lsn"), "which status shows");
    store_lock(store);
    int rc = range_hash(store, &inodes, UINT32_MAX, expected, &rows);
    store_unlock(store);
    struct wire_copy_hash hash = hash_of(&of_b, &state, &inodes), root = hash_of(&of_b, &state, &small);
    ok(rc == 0 && hash.over == 0 && memcmp(hash.hash, expected, RANGE_HASH) == 0, "and hashes it as the primary does");

    make(store, ROOT_INO, "later", S_IFREG | 0600);
    ok(pair_wait_equal(pair, 60), "a change");
    struct wire_copy_hash again = hash_of(&of_b, &state, &inodes);
    is_blob(&hash, &again, sizeof hash, "does not change what was");
    struct state later = newest_of(pair->nodes[1].store);
    refused(&of_b, ranges_of(&later, COPY_HASHES, &inodes), -ESTALE, "another state than the one that is kept");
    is_int(0, ask(&of_b, about(&later, COPY_COMPARE))->error, "which is kept instead, when asked for");
    again = hash_of(&of_b, &later, &inodes);
    ok(memcmp(&hash, &again, sizeof hash) != 0, "and has another hash");
    again = hash_of(&of_b, &later, &small);
    ok(memcmp(&root, &again, sizeof root) != 0, "in the directory, too");
    refused(&of_b, ranges_of(&state, COPY_RANGE, &inodes), -ESTALE, "rows of the older one");
    const struct wire_copy *copy = ask(&of_b, ranges_of(&later, COPY_RANGE, &small));
    ok(copy->error == 0 && copy->count == 1 && copy->done, "rows of this one: one inode");
    struct state other = later;
    other.incarnation[3] ^= 1;
    refused(&of_b, ranges_of(&other, COPY_HASHES, &inodes), -ESTALE, "hashes of another store");
    is_int(0, ask(&of_b, about(&later, COPY_COMPARED))->error, "it is given back");
    is_int(-1, compared(pair, 1, "lsn"), "status shows none");
    refused(&of_b, ranges_of(&later, COPY_HASHES, &inodes), -ESTALE, "and it is kept no longer");
    state_of_long_ago(&of_b, pair, &later);
    hang_up(&of_b);
}

/* ---- Restarts and roles ---------------------------------------------------------------------------------------------- */

static void restart_in_the_middle(struct pair *pair, struct asker *asker) {
    struct store *store = pair->nodes[0].store;
    struct tables *then;
    struct copying c;
    busy_start(store);
    wait_changes(800);
    set_provider(pair, 0, 2000, PROVIDE_IDLE);
    begin(&c, asker, store, &then, 2000);
    while (c.table < TABLE_DIRCOOKIE || c.answers < 5)
        fetch_rows(&c);
    busy_stop();
    pair_stop(pair, 0);
    pair_start(pair, 0);
    set_provider(pair, 0, 2000, PROVIDE_IDLE);
    is_int(-1, shown(pair, 0, "lsn"), "a new process knows nothing of it");
    while (c.table < TABLE_SHARED_END)
        fetch_rows(&c);
    same_rows(then, c.tables, "all that was there before the restart");
    is_int(1, (int64_t)c.wrong, "with all blocks but the one that has rotted");
    is_int((int64_t)c.state.lsn, shown(pair, 0, "lsn"), "and it is kept again");
    tables_free(then);
    tables_free(c.tables);

    pair_stop(pair, 0);
    pair_start(pair, 0);
    ask(asker, about(&c.state, COPY_PLACES));
    is_int((int64_t)c.state.lsn, shown(pair, 0, "lsn"), "so it is by a question for its blocks");
}

static void standby(struct pair *pair, struct asker *asker) {
    char why[512] = "";
    struct asker of_b = {0};
    uint64_t data = make_file(pair->nodes[0].store, "on the standby");
    ok(pair_wait_link(pair, 0, "working", 60) && pair_wait_equal(pair, 60), "in sync");
    struct state state = open_newest(asker);
    dial(&of_b, pair, 0, 1);
    refused(&of_b, (struct wire_ask_copy){.kind = COPY_OPEN}, -EROFS, "a standby opens no state");
    struct state same = state;
    memcpy(same.incarnation, store_incarnation(pair->nodes[1].store), 16);
    refused(&of_b, about(&same, COPY_ROWS), -EROFS, "and gives no rows");
    struct wire_ask_copy question = {.kind = COPY_DATA, .data = data, .first = 5, .count = 1};
    struct span bytes;
    is_int(0, item(ask(&of_b, question), 0, &bytes), "but blocks");
    is_blob(content + 5 * BATON_BLOCK, bytes.data, BATON_BLOCK, "which are right");
    hang_up(&of_b);

    is_int((int64_t)state.lsn, shown(pair, 0, "lsn"), "the primary keeps a state");
    is_int(0, replicator_switchover(pair->nodes[0].replicator, "b", why, sizeof why), "it hands over %s", why);
    ok(wait_closed(pair, 0), "and keeps it no longer");
    refused(asker, about(&state, COPY_ROWS), -EROFS, "the old primary gives no rows");
    refused(asker, about(&state, COPY_OPEN), -EROFS, "and opens no state");
}

static void small_window(void) {
    struct pair pair;
    struct asker asker = {0};
    pair_make(&pair, TRANSPORT_CLEAR);
    pair.config.history_bytes = 1;
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    ok(pair_wait_link(&pair, 0, "working", 60), "two nodes, no history");
    dial(&asker, &pair, 1, 0);
    whole_while_busy(&pair, &asker);
    kept_and_let_go(&pair, &asker);
    hang_up(&asker);
    pair_stop(&pair, 1);
    pair_stop(&pair, 0);
}

static void large_window(void) {
    struct pair pair;
    struct asker asker = {0};
    pair_make(&pair, TRANSPORT_CURVE);
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    ok(pair_wait_link(&pair, 0, "working", 60), "two nodes, with history");
    dial(&asker, &pair, 1, 0);
    which_state(&asker, pair.nodes[0].store);
    stale_incarnation(&asker, pair.nodes[0].store);
    blocks_by_data(&asker, pair.nodes[0].store);
    blocks_by_place(&asker, pair.nodes[0].store);
    hostile(&asker, &pair);
    restart_in_the_middle(&pair, &asker);
    comparing(&pair);
    standby(&pair, &asker);
    hang_up(&asker);
    pair_stop(&pair, 0);
    pair_stop(&pair, 1);
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    churn_prepare(&seed);
    large_window();
    small_window();
    return 0;
}
