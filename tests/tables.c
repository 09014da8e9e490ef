#include "tests/tables.h"
#include "fs/extent.h"
#include "tests/tap.h"

#include <stdio.h>

struct row { /* in `bytes`: key, then value */
    uint8_t table;
    uint32_t key_length, value_length;
    size_t at;
};

struct tables {
    struct row *rows;
    size_t count, room;
    uint8_t *bytes;
    size_t used, bytes_room;
};

static void *grown(void *old, size_t *room, size_t need, size_t size) {
    if (need <= *room)
        return old;
    *room = need * 2 + 1024;
    void *bigger = realloc(old, *room * size);
    if (!bigger)
        bail("no memory");
    return bigger;
}

static void add(struct tables *t, enum table table, struct span key, struct span value) {
    t->rows = grown(t->rows, &t->room, t->count + 1, sizeof *t->rows);
    t->bytes = grown(t->bytes, &t->bytes_room, t->used + key.length + value.length, 1);
    t->rows[t->count++] = (struct row){(uint8_t)table, key.length, value.length, t->used};
    memcpy(t->bytes + t->used, key.data, key.length);
    t->used += key.length;
    if (value.length)
        memcpy(t->bytes + t->used, value.data, value.length);
    t->used += value.length;
}

/* A run of unwritten blocks that may go on. */
struct run {
    uint64_t data, first, count;
};

static void end_run(struct tables *t, struct run *run) {
    if (run->count) {
        struct key key = key_u64_u64(run->data, run->first);
        add(t, TABLE_EXTENT, (struct span){key.bytes, key.length}, (struct span){(uint8_t *)&run->count, 8});
    }
    run->count = 0;
}

static void add_extent(struct tables *t, struct run *run, const struct extent *extent) {
    if (!extent->checksums && run->count && run->data == extent->data && run->first + run->count == extent->first) {
        run->count += extent->place.count;
        return;
    }
    end_run(t, run);
    if (!extent->checksums) {
        *run = (struct run){extent->data, extent->first, extent->place.count};
        return;
    }
    for (uint32_t i = 0; i < extent->place.count; i++) {
        struct key key = key_u64_u64(extent->data, extent->first + i);
        uint8_t value[9] = "w";
        memcpy(value + 1, extent->checksums + i * 8, 8);
        add(t, TABLE_EXTENT, (struct span){key.bytes, key.length}, (struct span){value, sizeof value});
    }
}

struct tables *tables_empty(void) {
    struct tables *t = calloc(1, sizeof *t);
    if (!t)
        bail("no memory");
    return t;
}

void tables_add(struct tables *tables, enum table table, struct span key, struct span value) {
    add(tables, table, key, value);
}

struct tables *tables_take(struct store *store, enum tables_view view) {
    struct tables *t = tables_empty();
    struct key start = {.length = 0};
    struct run run = {0};

    store_lock(store);
    for (int table = 0; table < TABLE_SHARED_END; table++) {
        struct cursor cursor;
        struct extent extent;
        if (cursor_open(&cursor, store, NULL, (enum table)table) != 0)
            bail("a table cannot be opened");
        int error = cursor_seek(&cursor, &start);
        for (; !error; error = cursor_next(&cursor)) {
            if (table != TABLE_EXTENT || view == TABLES_EXACT) {
                add(t, (enum table)table, cursor.key, cursor.value);
                continue;
            }
            if (extent_parse(cursor.key, cursor.value, &extent) != 0)
                bail("an extent row is damaged");
            add_extent(t, &run, &extent);
        }
        end_run(t, &run);
        cursor_close(&cursor);
        if (error != -ENOENT)
            bail("reading table %s: %d", table_names[table], error);
    }
    store_unlock(store);
    return t;
}

void tables_free(struct tables *tables) {
    if (!tables)
        return;
    free(tables->rows);
    free(tables->bytes);
    free(tables);
}

size_t tables_rows(const struct tables *tables) {
    return tables->count;
}

static void hex(char *to, size_t room, const uint8_t *bytes, size_t length) {
    size_t n = 0;
    for (size_t i = 0; i < length && n + 3 < room; i++)
        n += (size_t)snprintf(to + n, room - n, "%02x", bytes[i]);
}

bool tables_equal(const struct tables *a, const struct tables *b, char *why, size_t why_room) {
    char key[80] = "", left[300] = "", right[300] = "";
    for (size_t i = 0; i < MAX(a->count, b->count); i++) {
        const struct row *x = i < a->count ? &a->rows[i] : NULL, *y = i < b->count ? &b->rows[i] : NULL;
        if (x && y && x->table == y->table && x->key_length == y->key_length && x->value_length == y->value_length &&
            memcmp(a->bytes + x->at, b->bytes + y->at, x->key_length + x->value_length) == 0)
            continue;
        const struct row *z = x ? x : y;
        const struct tables *of = x ? a : b;
        hex(key, sizeof key, of->bytes + z->at, z->key_length);
        if (x)
            hex(left, sizeof left, a->bytes + x->at + x->key_length, x->value_length);
        if (y)
            hex(right, sizeof right, b->bytes + y->at + y->key_length, y->value_length);
        snprintf(why, why_room, "row %zu of %zu and %zu, table %s, key %s: %s against %s%s", i, a->count, b->count,
                 table_names[z->table], key, x ? left : "nothing", y ? right : "nothing",
                 x && y && x->key_length == y->key_length && memcmp(a->bytes + x->at, b->bytes + y->at, x->key_length)
                     ? " (of another key)"
                     : "");
        return false;
    }
    return true;
}
