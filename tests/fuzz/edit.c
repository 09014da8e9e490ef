#include "tests/fuzz/edit.h"

#include "fs/store.h"

enum row_edit { ROW_NUMBER, ROW_XOR, ROW_ADD, ROW_CUT, ROW_GROW, ROW_REMOVE, ROW_KEY, ROW_COPY, ROW_NEW, ROW_NONE, ROW_EDITS };

/* A number of 2, 4 or 8 bytes, at a place where one may well begin; it is replaced, or moved a little. */
static void edit_number(struct script *script, uint8_t *bytes, size_t length) {
    static const size_t widths[] = {4, 8, 8, 2};
    size_t width = widths[script_below(script, 4)], at = script_u16(script);
    uint64_t value = 0, given = script_number(script);
    bool moved = script_below(script, 2);
    if (length < width)
        return;
    at %= length - width + 1;
    memcpy(&value, bytes + at, width);
    value = moved ? value + given : given;
    memcpy(bytes + at, &value, width);
}

static void edit_key(struct script *script, struct key *key) {
    uint32_t at = script_below(script, 300);
    switch (script_below(script, 4)) {
    case 0: /* a part of it */
        key->length = (uint16_t)(at % (key->length + 1u));
        break;
    case 1: { /* longer */
        struct span more = script_bytes(script, script_below(script, KEY_MAX + 1 - key->length));
        if (more.length)
            memcpy(key->bytes + key->length, more.data, more.length);
        key->length = (uint16_t)(key->length + more.length);
        break;
    }
    case 2: /* one of its numbers, big-endian */
        if (key->length >= 8)
            be64_put(key->bytes + (key->length >= 16 && at % 2 ? 8 : 0), script_number(script));
        break;
    default:
        if (key->length)
            key->bytes[at % key->length] = script_u8(script);
    }
}

enum edit_effect edit_row(struct script *script, struct edited_row *row) {
    enum row_edit what = script_below(script, ROW_EDITS);
    struct span bytes;
    size_t at;
    switch (what) {
    case ROW_NUMBER:
        edit_number(script, row->value, row->length);
        return EDIT_REPLACE;
    case ROW_XOR:
    case ROW_ADD:
        at = script_u16(script);
        bytes = script_bytes(script, 1 + script_below(script, 16));
        for (size_t i = 0; i < bytes.length && row->length; i++) {
            uint8_t *byte = &row->value[(at + i) % row->length];
            *byte = (uint8_t)(what == ROW_XOR ? *byte ^ bytes.data[i] : *byte + bytes.data[i]);
        }
        return EDIT_REPLACE;
    case ROW_CUT:
        row->length = row->length ? script_u16(script) % row->length : 0;
        return EDIT_REPLACE;
    case ROW_GROW:
        bytes = script_bytes(script, script_below(script, 32));
        if (bytes.length)
            memcpy(row->value + row->length, bytes.data, bytes.length);
        row->length += bytes.length;
        return EDIT_REPLACE;
    case ROW_REMOVE:
        return EDIT_REMOVE;
    case ROW_KEY:
        edit_key(script, &row->key);
        return EDIT_REPLACE;
    case ROW_COPY:
        edit_key(script, &row->key);
        if (script_below(script, 2))
            edit_number(script, row->value, row->length);
        return EDIT_ADD;
    case ROW_NEW:
        bytes = script_bytes(script, script_below(script, 40));
        row->key.length = (uint16_t)bytes.length;
        if (bytes.length)
            memcpy(row->key.bytes, bytes.data, bytes.length);
        bytes = script_bytes(script, script_below(script, 120));
        row->length = bytes.length;
        if (bytes.length)
            memcpy(row->value, bytes.data, bytes.length);
        return EDIT_ADD;
    default:
        return EDIT_REPLACE;
    }
}

/* ---- The rows of a store ---- */

void given_load(struct given_rows *rows, struct store *store) {
    const struct key first = {.length = 0};
    store_lock(store);
    for (enum table table = 0; table < TABLE_SHARED_END; table++) {
        struct cursor cursor;
        PROMISE(cursor_open(&cursor, store, NULL, table) == 0);
        for (int rc = cursor_seek(&cursor, &first); rc == 0; rc = cursor_next(&cursor)) {
            struct given_row *row = &rows->rows[rows->count++];
            PROMISE(rows->count + GIVEN_EDITS_MAX < GIVEN_ROWS_MAX && cursor.key.length <= KEY_MAX);
            row->table = table;
            row->key.length = (uint16_t)cursor.key.length;
            memcpy(row->key.bytes, cursor.key.data, cursor.key.length);
            row->length = cursor.value.length;
            row->value = fuzz_copy(cursor.value.data, cursor.value.length);
        }
        cursor_close(&cursor);
    }
    store_unlock(store);
}

static struct given_row *nth_of(struct given_rows *rows, enum table table, uint32_t nth) {
    uint32_t seen = 0, of = 0;
    for (unsigned i = 0; i < rows->count; i++)
        of += rows->rows[i].table == table;
    for (unsigned i = 0; of > 0 && i < rows->count; i++)
        if (rows->rows[i].table == table && seen++ == nth % of)
            return &rows->rows[i];
    return &rows->rows[nth % rows->count];
}

void given_edit(struct given_rows *rows, struct script *script, unsigned edits) {
    static uint8_t *values[GIVEN_EDITS_MAX];
    static size_t lengths[GIVEN_EDITS_MAX];
    static struct edited_row edited;
    enum table table = script_below(script, TABLE_SHARED_END);
    struct given_row *row = nth_of(rows, table, script_u8(script));
    if (row->table == TABLE_END)
        return;
    edited.table = row->table;
    edited.key = row->key;
    edited.length = row->length;
    memcpy(edited.value, row->value, row->length);
    enum edit_effect effect = edit_row(script, &edited);
    if (effect == EDIT_REMOVE) {
        row->table = TABLE_END;
        return;
    }
    if (effect == EDIT_ADD)
        row = &rows->rows[rows->count++];
    fuzz_free(values[edits], lengths[edits]);
    lengths[edits] = edited.length;
    values[edits] = fuzz_copy(edited.value, edited.length);
    *row = (struct given_row){edited.table, edited.key, values[edits], (uint32_t)edited.length};
}

static int by_key(const void *a, const void *b) {
    const struct given_row *x = a, *y = b;
    if (x->table != y->table)
        return x->table < y->table ? -1 : 1;
    int order = memcmp(x->key.bytes, y->key.bytes, MIN(x->key.length, y->key.length));
    return order ? order : (int)x->key.length - (int)y->key.length;
}

void given_sort(struct given_rows *rows) {
    qsort(rows->rows, rows->count, sizeof *rows->rows, by_key);
}
