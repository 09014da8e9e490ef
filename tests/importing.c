#include "tests/importing.h"

#include "fs/check.h"
#include "fs/generation.h"

#include <stdio.h>
#include <sys/stat.h>

static char why[600];

struct answer last_answer;
uint32_t rows_bytes = ROWS_BYTES;

/* ---- The provider ---- */

struct source source_at_end(struct store *store) {
    struct source source = {.store = store};
    struct position position;
    store_position(store, &position);
    if (history_open(store, position.lsn, NULL, NULL, NULL, &source.past, why, sizeof why) != 0)
        bail("the past: %s", why);
    source.state = (struct import_state){.lsn = position.lsn, .epoch = position.epoch, .time = position.time};
    memcpy(source.state.chain, position.chain, CHAIN_SIZE);
    memcpy(source.state.incarnation, store_incarnation(store), STORE_ID_SIZE);
    source.then = tables_take(store, TABLES_LOGICAL);
    return source;
}

void source_done(struct source *source) {
    history_close(source->past);
    tables_free(source->then);
}

void answer_rows(struct source *source, enum table table, const struct key *after, struct answer *answer) {
    struct cursor cursor;
    struct key from = *after;
    answer->length = answer->at = 0;
    if (from.length)
        from.bytes[from.length++] = 0; /* the first key behind it */
    store_lock(source->past);
    PROMISE(cursor_open(&cursor, source->past, NULL, table) == 0);
    int rc = cursor_seek(&cursor, &from);
    for (; rc == 0 && answer->length < rows_bytes; rc = cursor_next(&cursor)) {
        uint32_t lengths[2] = {cursor.key.length, cursor.value.length};
        memcpy(answer->bytes + answer->length, lengths, sizeof lengths);
        memcpy(answer->bytes + answer->length + 8, cursor.key.data, lengths[0]);
        memcpy(answer->bytes + answer->length + 8 + lengths[0], cursor.value.data, lengths[1]);
        answer->length += 8 + lengths[0] + lengths[1];
    }
    PROMISE(rc == 0 || rc == -ENOENT);
    answer->done = rc == -ENOENT;
    cursor_close(&cursor);
    store_unlock(source->past);
}

int answer_next(void *context, struct span *key, struct span *value) {
    struct answer *answer = context;
    uint32_t lengths[2];
    if (answer->at == answer->length)
        return 0;
    memcpy(lengths, answer->bytes + answer->at, sizeof lengths);
    *key = (struct span){answer->bytes + answer->at + 8, lengths[0]};
    *value = (struct span){key->data + lengths[0], lengths[1]};
    answer->at += 8 + lengths[0] + lengths[1];
    return 1;
}

/* ---- Importing ---- */

useconds_t pace;

int fetch_rows(struct import *import, struct source *source) {
    enum table table;
    struct key after;
    int rc = 0;
    while (rc == 0 && import_next_rows(import, &table, &after) == 0) {
        usleep(pace);
        answer_rows(source, table, &after, &last_answer);
        rc = import_rows(import, table, &after, answer_next, &last_answer, last_answer.done);
        if (rc == -ENOSPC || rc == -EAGAIN)
            rc = 0; /* asked for again */
    }
    return rc;
}

int fetch_blocks(struct import *import, struct source *source, unsigned unreadable) {
    static uint8_t bytes[EXTENT_BLOCKS_MAX * BATON_BLOCK];
    struct import_want wants[WANTS], *after = NULL, last;
    unsigned count;
    for (;;) {
        int rc = import_wanted(import, after, wants, WANTS, &count);
        if (rc || (count == 0 && !after))
            return rc;
        for (unsigned i = 0; i < count; i++) {
            usleep(pace / 16);
            bool bad = unreadable > 0 && unreadable-- > 0;
            PROMISE(bad || store_read_blocks(source->store, wants[i].place, bytes) == 0);
            rc = import_blocks(import, &wants[i], bad ? NULL : bytes);
            if (rc && rc != -ENOSPC)
                return rc;
        }
        if (count)
            last = wants[count - 1];
        after = count ? &last : NULL; /* from the beginning: what was refused is there again */
    }
}

int import_all(struct import *import, struct source *source) {
    int rc = import_phase(import) == IMPORT_ROWS ? fetch_rows(import, source) : 0;
    if (rc == 0 && import_phase(import) == IMPORT_BLOCKS)
        rc = fetch_blocks(import, source, 0);
    for (int tries = 0; rc == 0 && import_phase(import) != IMPORT_COMPLETE && tries < 20; tries++) {
        rc = import_finish(import);
        if (rc == -EAGAIN || rc == -ENOSPC)
            rc = fetch_rows(import, source);
        if (rc == 0 && import_phase(import) == IMPORT_BLOCKS)
            rc = fetch_blocks(import, source, 0);
    }
    return rc ? rc : import_finish(import); /* of a complete one: what a kill left to be done */
}

/* ---- Content ---- */

uint64_t directories[2], work_seed = 20261121;

struct store *busy_store(const char *name) {
    struct store *store = fixture_store(name, 1);
    directories[0] = make(store, ROOT_INO, "one", S_IFDIR | 0755);
    directories[1] = make(store, ROOT_INO, "two", S_IFDIR | 0755);
    return store;
}

void work(struct store *store, unsigned changes) {
    for (unsigned i = 0; i < changes; i++) {
        int rc = churn(store, directories, &work_seed);
        if (rc)
            bail("churn: %s", strerror(-rc));
    }
}

/* ---- Beginning and end ---- */

const struct key none = {0};
const char *aside;

struct import *open_import(struct store *old) {
    struct import *import;
    if (import_open(old, &import, why, sizeof why) != 0)
        bail("import_open: %s", why);
    return import;
}

struct store *replace(struct import *import, struct store *old, const char *name) {
    import_close(import);
    char path[512];
    snprintf(path, sizeof path, "%s", store_path(old));
    store_close(old);
    is_int(0, import_switch(path, aside), "the new store takes the old one's place");
    PROMISE(generation_sweep(path, true) == 0);
    return fixture_open(name);
}

void is_then(struct store *store, const struct source *source, const char *what) {
    struct position position;
    struct tables *now = tables_take(store, TABLES_LOGICAL);
    store_position(store, &position);
    if (!ok(tables_equal(source->then, now, why, sizeof why), "%s: the tables are those of then", what))
        diag("%s", why);
    tables_free(now);
    is_int((int64_t)source->state.lsn, (int64_t)position.lsn, "%s: at its LSN", what);
    is_blob(source->state.chain, position.chain, CHAIN_SIZE, "%s: with its chain", what);
    is_int((int64_t)source->state.lsn + 1, (int64_t)position.first, "%s: the journal begins behind it", what);
}

void is_in_order(struct store *store, const char *what) {
    char path[512];
    snprintf(path, sizeof path, "%s", store_path(store));
    store_close(store);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "%s: check finds nothing", what);
}
