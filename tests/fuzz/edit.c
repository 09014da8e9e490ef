#include "tests/fuzz/edit.h"

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
