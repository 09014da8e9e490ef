/* Encoded records and what else lies in a journal row: decoding, encoding again, and what people and tools are shown.
 *
 * An input: a byte of flags, then the record, or (ROW) the value of a journal row. Bit 0 (RIGHT): the record's length is
 * made right.
 */
#include "fs/acl.h"
#include "fs/journal_text.h"
#include "fs/store_internal.h"
#include "tests/fuzz/fuzz.h"

#include <sys/stat.h>

#define RIGHT 1u
#define ROW 2u

static uint8_t buffer[RECORD_LENGTH_MAX];
static const uint8_t chain[CHAIN_SIZE];

static void walk_xattrs(const struct record *record) {
    struct span name, value;
    uint32_t at = 0;
    while (record->xattrs.length && xattr_unpack(&record->xattrs, &at, &name, &value) == 1) {
        uint32_t mode = 0644;
        if (acl_check(value.data, value.length) != 0)
            continue;
        uint8_t *acl = fuzz_copy(value.data, value.length);
        acl_mode(acl, value.length, &mode);
        acl_chmod(acl, value.length, 0777);
        acl_inherit(acl, value.length, &mode);
        fuzz_free(acl, value.length);
    }
}

#define NAMES_FOR 500u /* records: making the table of names takes a millisecond */

static void show(const struct record *record) {
    static struct names *names;
    static unsigned used;
    uint64_t inos[RECORD_INODES_MAX];
    char text[9000];
    if (used++ % NAMES_FOR == 0) {
        names_free(names);
        names = names_create(NULL);
    }
    PROMISE(names);
    names_learn_new(names, record);
    record_text(record, names, text, sizeof text);
    json_t *json = record_json(record, names, NULL);
    char *dumped = json_dumps(json, JSON_COMPACT);
    FUZZ_MUST(json && dumped && strlen(text) < sizeof text);
    FUZZ_MUST(record_inodes(record, inos) <= RECORD_INODES_MAX);
    free(dumped);
    json_decref(json);
    names_learn(names, record);
    record_text(record, names, text, sizeof text);
}

static bool decode(uint8_t *bytes, size_t length, bool right) {
    struct record record;
    const char *why = NULL;
    uint32_t whole = (uint32_t)length;
    if (right && length >= sizeof whole)
        memcpy(bytes, &whole, sizeof whole);
    if (record_decode(bytes, length, &record, &why) != 0) {
        FUZZ_MUST(why);
        return false;
    }
    /* A record that decodes encodes to the same bytes, but for its chain. */
    struct record again = record;
    FUZZ_MUST(record_encode(&again, chain, buffer, sizeof buffer) == (int)length);
    memcpy(buffer + offsetof(struct record_head, chain), bytes + offsetof(struct record_head, chain), CHAIN_SIZE);
    FUZZ_MUST(memcmp(buffer, bytes, length) == 0);
    uint8_t *payload = calloc(1, record.head.payload + 1u);
    PROMISE(payload);
    record_check_payload(&record, payload, record.head.payload);
    free(payload);
    walk_xattrs(&record);
    show(&record);
    record_release(&record);
    return true;
}

static bool row(const uint8_t *bytes, size_t length) {
    struct journal_row row;
    struct undo_image image;
    struct record_head head;
    uint32_t at = 0, places = 0;
    int rc;
    if (journal_row_parse((struct span){bytes, (uint32_t)length}, &row) != 0)
        return false;
    FUZZ_MUST(row.record.length >= sizeof head && row.record.length <= RECORD_LENGTH_MAX &&
              row.record.length + row.undo.length <= length);
    memcpy(&head, row.record.data, sizeof head);
    FUZZ_MUST(head.payload <= RECORD_PAYLOAD_MAX); /* readers have buffers of that size */
    while ((rc = undo_next(&row.undo, &at, &image)) == 1)
        FUZZ_MUST(image.key.length <= KEY_MAX && image.table < TABLE_SHARED_END);
    for (uint32_t i = 0; i < row.place_count; i++)
        places += row.places[i].count;
    for (uint32_t i = 0; i < row.dropped_count; i++)
        places += row.dropped[i].count;
    uint8_t *record = fuzz_copy(row.record.data, row.record.length);
    bool good = decode(record, row.record.length, false) && rc == 0;
    fuzz_free(record, row.record.length);
    return good && places < UINT32_MAX;
}

static bool one(const uint8_t *input, size_t length) {
    if (length == 0 || length > RECORD_LENGTH_MAX)
        return false;
    uint8_t flags = input[0];
    uint8_t *bytes = fuzz_copy(input + 1, --length);
    bool good = flags & ROW ? row(bytes, length) : decode(bytes, length, flags & RIGHT);
    fuzz_free(bytes, length);
    return good;
}

/* ---- Seeds ---- */

static void give(struct record record) {
    static uint8_t seed[1 + 8192];
    record.head.lsn = 70;
    record.head.epoch = EPOCH_MAKE(3, 100);
    record.head.time = 1700000000123456789;
    int length = record_encode(&record, chain, seed + 1, sizeof seed - 1);
    PROMISE(length > 0);
    seed[0] = RIGHT;
    fuzz_give(record_type_name(record.head.type), seed, 1 + (size_t)length);
}

/* A journal row: the record, an image of a row that was not there and one of a row that was, two places and one dropped. */
static void give_row(void) {
    static const uint8_t name[] = "a", images[] = "\0\0\10\0\0\0\0\0" "inode  1" "\1\1\11\0\3\0\0\0" "parentnam" "row";
    struct record record = {.head = {.type = RECORD_EPOCH, .lsn = 70, .epoch = EPOCH_MAKE(3, 100), .time = 1}, .name = {name, 1}};
    const struct place places[] = {{1, 2, 3}, {1, 9, 1}, {2, 4, 4}};
    uint8_t seed[1000] = {ROW}, *at = seed + 1 + sizeof(struct journal_head);
    int length = record_encode(&record, chain, at, 500);
    PROMISE(length > 0);
    struct journal_head head = {.record_length = (uint32_t)length, .undo_length = sizeof images - 1, .place_count = 2,
                                .dropped_count = 1, .previous_epoch = EPOCH_MAKE(2, 100)};
    memcpy(seed + 1, &head, sizeof head);
    at += length;
    memcpy(at, images, sizeof images - 1);
    at += sizeof images - 1;
    memcpy(at, places, sizeof places);
    fuzz_give("row", seed, (size_t)(at - seed) + sizeof places);
}

#define SPAN(text) ((struct span){(const uint8_t *)(text), sizeof(text) - 1})

static void seeds(void) {
    static const uint8_t sums[2 * 8];
    static const uint8_t acl[] = "\2\0\0\0\1\0\6\0\377\377\377\377\4\0\4\0\377\377\377\377\40\0\4\0\377\377\377\377";
    static const struct reclaim_step steps[] = {{.kind = RECLAIM_DROP, .id = 9, .ino = 9, .to = UINT64_MAX},
                                                {.kind = RECLAIM_INODE, .id = 9}};
    uint8_t packed[200];
    struct span xattrs = {packed, (uint32_t)xattr_pack(packed, sizeof packed, "system.posix_acl_access", acl, 28)};
    give((struct record){.head = {.type = RECORD_CREATE, .ino = 5}, .parent = 1, .name = SPAN("file"), .cookie = 6,
                         .mode = S_IFREG | 0644, .new_data = 5, .xattrs = xattrs});
    give((struct record){.head = {.type = RECORD_CREATE, .ino = 5}, .parent = 1, .name = SPAN("to"), .cookie = 6,
                         .mode = S_IFLNK | 0777, .value = SPAN("target")});
    give((struct record){.head = {.type = RECORD_LINK, .ino = 5}, .parent = 1, .name = SPAN("second"), .cookie = 7});
    give((struct record){.head = {.type = RECORD_UNLINK, .ino = 5}, .parent = 1, .name = SPAN("second")});
    give((struct record){.head = {.type = RECORD_RENAME, .ino = 5}, .parent = 1, .name = SPAN("a"), .new_parent = 2,
                         .new_name = SPAN("b"), .victim = 8, .flags = RENAME_EXCHANGED, .cookie = 9, .old_cookie = 10});
    give((struct record){.head = {.type = RECORD_SETATTR, .ino = 5}, .flags = SET_MODE | SET_UID, .mode = 0600, .uid = 7});
    give((struct record){.head = {.type = RECORD_WRITE, .ino = 5, .blocks = 2, .payload = 5000}, .first = 3,
                         .size = 5 * BATON_BLOCK, .checksums = {sums, sizeof sums}});
    give((struct record){.head = {.type = RECORD_TRUNCATE, .ino = 5}, .first = 3, .size = 3 * BATON_BLOCK, .last = UINT64_MAX});
    give((struct record){.head = {.type = RECORD_ALLOCATE, .ino = 5}, .first = 3, .count = 9, .size = 12 * BATON_BLOCK});
    give((struct record){.head = {.type = RECORD_PUNCH, .ino = 5}, .first = 3, .count = 9, .size = 12 * BATON_BLOCK});
    give((struct record){.head = {.type = RECORD_XATTR, .ino = 5}, .name = SPAN("user.colour"), .value = SPAN("red")});
    give((struct record){.head = {.type = RECORD_RECLAIM}, .steps = steps, .step_count = 2});
    give((struct record){.head = {.type = RECORD_EPOCH}, .name = SPAN("a")});
    give_row();
}

const struct fuzz_harness fuzz_record = {.name = "record", .one = one, .seeds = seeds};
