/* Frames: what is encoded comes back; whatever else arrives is refused without a crash. */
#include "replication/wire.h"
#include "tests/tap.h"

#include <xxhash.h>

static uint64_t state;
static uint64_t pick(uint64_t below) {
    return test_random(&state) % below;
}

static void fill_head(struct frame *frame, uint8_t type) {
    memset(frame, 0, sizeof *frame);
    frame->head.type = type;
    frame->head.node = 7;
    frame->head.session = 0x1122334455667788;
    frame->head.epoch = EPOCH_MAKE(3, 7);
    memset(frame->head.volume, 0xab, 16);
}

static void fill_value(struct register_value *value) {
    value->version = 9;
    value->epoch = EPOCH_MAKE(3, 7);
    strcpy(value->primary, "alpha");
    value->member_count = REGISTER_MEMBERS_MAX;
    for (unsigned i = 0; i < REGISTER_MEMBERS_MAX; i++)
        memset(value->members[i].node, 'a' + (int)i, 63);
    value->start_lsn = 77;
    value->voter_count = REGISTER_VOTERS_MAX;
    for (unsigned i = 0; i < REGISTER_VOTERS_MAX; i++) {
        memset(value->voters[i].name, 'p' + (int)i, 63);
        memset(value->voters[i].id, (int)i, 16);
    }
}

static void fill(struct frame *frame, uint8_t type) {
    fill_head(frame, type);
    struct wire_position position = {.lsn = 50, .epoch = EPOCH_MAKE(2, 7), .durable = 40, .first = 3};
    switch (type) {
    case WIRE_LOGIN:
        frame->login = (struct wire_login){.position = position, .window = 1 << 20};
        break;
    case WIRE_ANSWER:
        frame->answer = (struct wire_answer){.verdict = VERDICT_DIVERGED, .position = position, .fork = 12};
        memset(frame->answer.text, 'x', WIRE_TEXT - 1);
        break;
    case WIRE_BEAT:
        frame->beat = (struct wire_beat){.role = 1, .position = position, .hold = 30, .flags = BEAT_STAYS};
        fill_value(&frame->beat.value);
        break;
    case WIRE_ACK:
        frame->ack = (struct wire_ack){.received = 51, .durable = 40};
        break;
    case WIRE_SWITCH:
        frame->change.lsn = 51;
        fill_value(&frame->change.value);
        break;
    case WIRE_ASK_COPY:
        frame->ask = (struct wire_ask_copy){.number = 4, .kind = COPY_PLACES, .lsn = 50, .table = TABLE_EXTENT,
                                            .after = key_u64_u64(9, 128), .place_count = COPY_PLACES_MAX, .data = 9,
                                            .first = 1 << 20, .count = COPY_BLOCKS_MAX};
        memset(frame->ask.incarnation, 0xcd, 16);
        for (uint32_t i = 0; i < COPY_PLACES_MAX; i++)
            frame->ask.places[i] = (struct place){1 + i, 100 * i, COPY_BLOCKS_MAX / COPY_PLACES_MAX};
        break;
    default:
        strcpy(frame->bye.text, "stopping");
    }
}

static void every_type_comes_back(void) {
    for (uint8_t type = WIRE_LOGIN; type < WIRE_TYPE_END; type++) {
        if (type == WIRE_RECORDS || type == WIRE_COPY)
            continue;
        struct frame frame, back = {0};
        uint8_t buffer[WIRE_CONTROL_MAX], again[WIRE_CONTROL_MAX];
        fill(&frame, type);
        size_t length = wire_encode(&frame, buffer);
        is_int(0, wire_decode(buffer, length, &back), "%s is understood", wire_type_name(type));
        is_int(length, wire_encode(&back, again), "%s has the same length again", wire_type_name(type));
        is_blob(buffer, again, length, "%s is the same again", wire_type_name(type));
        bool refused = true;
        for (size_t shorter = 0; shorter < length; shorter++)
            refused = refused && wire_decode(buffer, shorter, &back) == -EBADMSG;
        ok(refused, "every cut of %s is refused", wire_type_name(type));
    }
}

static size_t make_records(uint8_t *buffer, unsigned count) {
    struct frame frame;
    fill_head(&frame, WIRE_RECORDS);
    size_t total = WIRE_RECORDS_HEAD;
    for (unsigned i = 0; i < count; i++)
        total += WIRE_RECORD_HEAD + 80 + i + 100 * i;
    frame.records = (struct wire_records){.first = 5, .count = count, .want = 6};
    wire_records_begin(buffer, total, &frame, total);
    uint8_t *at = buffer + WIRE_RECORDS_HEAD;
    for (unsigned i = 0; i < count; i++) {
        at = wire_record_put(at, 80 + i, 100 * i);
        memset(at, (int)i, 80 + i + 100 * i);
        memcpy(at + offsetof(struct record_head, lsn), &(uint64_t){5 + i}, 8);
        at += 80 + i + 100 * i;
    }
    return total;
}

static void records_come_back(void) {
    static uint8_t buffer[1 << 20];
    struct frame frame;
    size_t length = make_records(buffer, 20);
    is_int(0, wire_decode(buffer, length, &frame), "records are understood");
    struct wire_record record;
    uint32_t at = 0, count = 0;
    bool right = true;
    while (wire_record_next(&frame.records, &at, &record) > 0) {
        right = right && record.bytes.length == 80 + count && record.payload.length == 100 * count &&
                (record.payload.length == 0 || record.payload.data[0] == count);
        count++;
    }
    ok(right && count == 20, "twenty records with their payloads");
    is_int(6, frame.records.want, "and what is to be durable");
    uint8_t *second = buffer + WIRE_RECORDS_HEAD + WIRE_RECORD_HEAD + 80 + WIRE_RECORD_HEAD + offsetof(struct record_head, lsn);
    memcpy(second, &(uint64_t){5}, 8);
    is_int(-EBADMSG, wire_decode(buffer, length, &frame), "one with another number than its place says is refused");
    memcpy(second, &(uint64_t){6}, 8);
    is_int(0, wire_decode(buffer, length, &frame), "with its own it is understood");
    buffer[offsetof(struct wire_head, session)] ^= 1;
    is_int(-EBADMSG, wire_decode(buffer, length, &frame), "another session number breaks the checksum");
}

static struct span span_of(const void *data, size_t length) {
    return (struct span){data, (uint32_t)length};
}

static void fill_copy(struct frame *frame, enum copy_kind kind) {
    fill_head(frame, WIRE_COPY);
    frame->copy = (struct wire_copy){.number = 77, .kind = kind, .lsn = 50, .epoch = EPOCH_MAKE(2, 7), .time = -5};
    memset(frame->copy.chain, 0xee, CHAIN_SIZE);
    memset(frame->copy.incarnation, 0xcd, 16);
}

static size_t make_rows(uint8_t *buffer, struct frame *frame, unsigned count) {
    uint8_t *at = buffer + WIRE_COPY_HEAD, bytes[3000];
    fill_copy(frame, COPY_ROWS);
    for (unsigned i = 0; i < count; i++) {
        memset(bytes, (int)i, sizeof bytes);
        at = wire_copy_put_row(at, span_of(bytes, 1 + i * 13 % KEY_MAX), span_of(bytes, i * 100));
    }
    frame->copy.table = TABLE_XATTR;
    frame->copy.done = true;
    frame->copy.count = count;
    frame->copy.bulk.length = (uint32_t)(at - buffer - WIRE_COPY_HEAD);
    return wire_copy_finish(buffer, frame);
}

static size_t make_blocks(uint8_t *buffer, struct frame *frame, unsigned count) {
    uint8_t *at = buffer + WIRE_COPY_HEAD;
    fill_copy(frame, COPY_PLACES);
    for (unsigned i = 0; i < count; i++) {
        uint32_t bytes = i % 4 == 3 ? 0 : (i % 4 + 1) * BATON_BLOCK;
        memset(at + WIRE_COPY_BLOCKS_HEAD, (int)i, bytes);
        at = wire_copy_put_blocks(at, bytes ? 0 : -ENOENT, bytes);
    }
    frame->copy.count = count;
    frame->copy.bulk.length = (uint32_t)(at - buffer - WIRE_COPY_HEAD);
    return wire_copy_finish(buffer, frame);
}

static void copies_come_back(void) {
    static uint8_t buffer[WIRE_COPY_BYTES];
    struct frame frame, back;
    struct span key, value;
    uint32_t at = 0, count = 0;
    int error;
    size_t length = make_rows(buffer, &frame, 25);
    is_int(0, wire_decode(buffer, length, &back), "rows are understood");
    bool right = true;
    for (; wire_copy_row_next(&back.copy, &at, &key, &value) > 0; count++)
        right = right && key.length == 1 + count * 13 % KEY_MAX && value.length == count * 100 &&
                key.data[key.length - 1] == count && (count == 0 || value.data[value.length - 1] == count);
    ok(right && count == 25, "25 rows with their keys");
    ok(back.copy.done && back.copy.table == TABLE_XATTR && back.copy.lsn == 50 && back.copy.time == -5 &&
           back.copy.number == 77 && memcmp(back.copy.chain, frame.copy.chain, CHAIN_SIZE) == 0,
       "and what is said of them");
    buffer[WIRE_COPY_HEAD + 500] ^= 1;
    is_int(-EBADMSG, wire_decode(buffer, length, &back), "a changed bit in a row breaks the checksum");

    length = make_blocks(buffer, &frame, 30);
    is_int(0, wire_decode(buffer, length, &back), "blocks are understood");
    for (at = count = 0; wire_copy_blocks_next(&back.copy, &at, &error, &value) > 0; count++)
        right = right && (count % 4 == 3 ? error == -ENOENT && value.length == 0
                                         : error == 0 && value.length == (count % 4 + 1) * BATON_BLOCK &&
                                               value.data[value.length - 1] == count);
    ok(right && count == 30, "30 items, some of them errors");
    buffer[length - 1] ^= 1;
    is_int(-EBADMSG, wire_decode(buffer, length, &back), "a changed bit in a block breaks the checksum");

    fill_copy(&frame, COPY_OPEN);
    for (unsigned i = 0; i < TABLE_SHARED_END; i++)
        frame.copy.rows[i] = 1000 + i;
    frame.copy.blocks = 5;
    frame.copy.inodes = 6;
    length = wire_copy_finish(buffer, &frame);
    is_int(0, wire_decode(buffer, length, &back), "a state is understood");
    ok(back.copy.rows[TABLE_SHARED_END - 1] == 1000 + TABLE_SHARED_END - 1 && back.copy.blocks == 5 && back.copy.inodes == 6,
       "and how much it is");

    fill_copy(&frame, COPY_ROWS);
    frame.copy.error = ESTALE;
    strcpy(frame.copy.text, "another state is kept");
    length = wire_copy_finish(buffer, &frame);
    is_int(0, wire_decode(buffer, length, &back), "a refusal is understood");
    is_int(ESTALE, back.copy.error, "with its error");
    is_string("another state is kept", back.copy.text, "and why");
}

static void limits_of_questions(void) {
    uint8_t buffer[WIRE_CONTROL_MAX];
    struct frame frame, back;
    static const char *const what[] = {"no kind",          "a kind that is not there", "a table of the node's own",
                                       "an empty place",   "too many blocks by place", "too many blocks of a file",
                                       "beyond all blocks", "an LSN beyond all"};
    for (unsigned i = 0; i < sizeof what / sizeof *what; i++) {
        fill(&frame, WIRE_ASK_COPY);
        struct wire_ask_copy *ask = &frame.ask;
        ask->kind = i == 0 ? 0 : i == 1 ? COPY_KIND_END : ask->kind;
        ask->table = i == 2 ? TABLE_META : ask->table;
        ask->places[5].count = i == 3 ? 0 : i == 4 ? COPY_BLOCKS_MAX : ask->places[5].count;
        ask->count = i == 5 ? COPY_BLOCKS_MAX + 1 : ask->count;
        ask->first = i == 6 ? UINT64_MAX - 5 : ask->first;
        ask->lsn = i == 7 ? UINT64_MAX : ask->lsn;
        is_int(-EBADMSG, wire_decode(buffer, wire_encode(&frame, buffer), &back), "%s is refused", what[i]);
    }
}

/* A block of exactly this length, so that a sanitizer sees a byte read beyond it. */
static void answer_is(int expected, enum copy_kind kind, uint32_t count, const void *bulk, size_t length, const char *what) {
    struct frame frame, back;
    uint8_t *buffer = malloc(WIRE_COPY_HEAD + length);
    fill_copy(&frame, kind);
    frame.copy.count = count;
    frame.copy.bulk.length = (uint32_t)length;
    if (length)
        memcpy(buffer + WIRE_COPY_HEAD, bulk, length);
    size_t total = wire_copy_finish(buffer, &frame);
    is_int(expected, wire_decode(buffer, total, &back), "%s", what);
    free(buffer);
}

static void limits_of_answers(void) {
    static uint8_t bulk[2 * BATON_BLOCK + 100];
    const uint8_t key[KEY_MAX + 1] = "key";
    size_t row = (size_t)(wire_copy_put_row(bulk, span_of(key, 3), span_of("value", 5)) - bulk);
    answer_is(0, COPY_ROWS, 1, bulk, row, "one row");
    answer_is(-EBADMSG, COPY_ROWS, 2, bulk, row, "one row that is called two");
    answer_is(-EBADMSG, COPY_OPEN, 1, bulk, row, "a row in the answer to another question");
    answer_is(-EBADMSG, COPY_ROWS, 1, bulk, row - 1, "a row that is cut off");
    for (unsigned i = 1; i < WIRE_COPY_ROW_HEAD; i++)
        answer_is(-EBADMSG, COPY_ROWS, 1, bulk, row + i, "a row and the beginning of another one");
    row = (size_t)(wire_copy_put_row(bulk, span_of(key, KEY_MAX), span_of("", 0)) - bulk);
    answer_is(0, COPY_ROWS, 1, bulk, row, "the longest key");
    row = (size_t)(wire_copy_put_row(bulk, span_of(key, KEY_MAX + 1), span_of("", 0)) - bulk);
    answer_is(-EBADMSG, COPY_ROWS, 1, bulk, row, "a longer one");
    row = (size_t)(wire_copy_put_row(bulk, span_of(key, 0), span_of("value", 5)) - bulk);
    answer_is(-EBADMSG, COPY_ROWS, 1, bulk, row, "a row without a key");

    memset(bulk, 0, sizeof bulk);
    wire_copy_put_blocks(bulk, 0, BATON_BLOCK);
    answer_is(0, COPY_DATA, 1, bulk, WIRE_COPY_BLOCKS_HEAD + BATON_BLOCK, "one block");
    answer_is(-EBADMSG, COPY_DATA, 1, bulk, WIRE_COPY_BLOCKS_HEAD + BATON_BLOCK - 1, "a block that is cut off");
    for (unsigned i = 1; i < WIRE_COPY_BLOCKS_HEAD; i++)
        answer_is(-EBADMSG, COPY_DATA, 1, bulk, WIRE_COPY_BLOCKS_HEAD + BATON_BLOCK + i, "and the beginning of another one");
    wire_copy_put_blocks(bulk, 0, 100);
    answer_is(-EBADMSG, COPY_PLACES, 1, bulk, WIRE_COPY_BLOCKS_HEAD + 100, "a part of a block");
    wire_copy_put_blocks(bulk, 0, 0);
    answer_is(-EBADMSG, COPY_PLACES, 1, bulk, WIRE_COPY_BLOCKS_HEAD, "no blocks and no error");
    wire_copy_put_blocks(bulk, -EIO, BATON_BLOCK);
    answer_is(-EBADMSG, COPY_PLACES, 1, bulk, WIRE_COPY_BLOCKS_HEAD + BATON_BLOCK, "a block with an error");
    wire_copy_put_blocks(bulk, 5, 0);
    answer_is(-EBADMSG, COPY_PLACES, 1, bulk, WIRE_COPY_BLOCKS_HEAD, "an error that is none");
}

/* ---- Comparing ---- */

static struct range some_range(enum table table, unsigned i) {
    return (struct range){.table = table, .from = key_u64_u64(i, 0), .to = key_u64_u64(i, 100)};
}

static void ranges_come_back(void) {
    uint8_t buffer[WIRE_CONTROL_MAX], packed[COPY_RANGES_BYTES];
    struct frame frame, back;
    struct range range;
    uint32_t used = 0, at = 0, more, count = 0;
    fill(&frame, WIRE_ASK_COPY);
    frame.ask.kind = COPY_HASHES;
    for (; (more = wire_range_put(packed, used, &(struct range[]){some_range(count % TABLE_SHARED_END, count)}[0])); count++)
        used = more;
    ok(used > COPY_RANGES_BYTES - 100 && count > 50, "%u ranges have room in a question", count);
    frame.ask.ranges = span_of(packed, used);
    is_int(0, wire_decode(buffer, wire_encode(&frame, buffer), &back), "the fullest question is understood");
    uint32_t right = 0;
    for (uint32_t i = 0; wire_range_next(&back.ask.ranges, &at, &range) == 1; i++) {
        struct range expected = some_range(i % TABLE_SHARED_END, i);
        right += range.table == expected.table && range.from.length == 16 && range.to.length == 16 &&
                 memcmp(range.from.bytes, expected.from.bytes, 16) == 0 && memcmp(range.to.bytes, expected.to.bytes, 16) == 0;
    }
    is_int(count, right, "with its ranges");
    frame.ask.kind = COPY_RANGE;
    is_int(-EBADMSG, wire_decode(buffer, wire_encode(&frame, buffer), &back), "rows of several ranges are refused");
    used = wire_range_put(packed, 0, &range);
    frame.ask.ranges = span_of(packed, used);
    is_int(0, wire_decode(buffer, wire_encode(&frame, buffer), &back), "rows of one are not");
    frame.ask.kind = COPY_PLACES;
    is_int(-EBADMSG, wire_decode(buffer, wire_encode(&frame, buffer), &back), "a range in another question is");
    frame.ask.ranges.length = 0;
    frame.ask.kind = COPY_HASHES;
    is_int(-EBADMSG, wire_decode(buffer, wire_encode(&frame, buffer), &back), "hashes of nothing are");
}

/* Bytes as they may come; `length` of them. */
static void range_is(int expected, const uint8_t *packed, uint32_t length, const char *what) {
    uint8_t buffer[WIRE_CONTROL_MAX], *exact = malloc(length);
    struct frame frame, back;
    fill(&frame, WIRE_ASK_COPY);
    frame.ask.kind = COPY_RANGE;
    memcpy(exact, packed, length);
    frame.ask.ranges = span_of(exact, length);
    is_int(expected, wire_decode(buffer, wire_encode(&frame, buffer), &back), "%s", what);
    free(exact);
}

static void limits_of_ranges(void) {
    uint8_t packed[COPY_RANGES_BYTES];
    uint32_t used = wire_range_put(packed, 0, &(struct range[]){some_range(TABLE_EXTENT, 5)}[0]);
    range_is(0, packed, used, "a range of the map");
    for (uint32_t cut = 1; cut < used; cut++)
        range_is(-EBADMSG, packed, cut, "one that is cut off");
    packed[0] = TABLE_META;
    range_is(-EBADMSG, packed, used, "of a table of the node's own");
    packed[0] = TABLE_EXTENT;
    packed[used - 16] = 0;
    packed[used - 9] = 4;
    range_is(-EBADMSG, packed, used, "one that ends before it begins");
    struct range odd = {.table = TABLE_DIRENT, .from = key_u64_name(1, "name", 4)};
    used = wire_range_put(packed, 0, &odd);
    range_is(0, packed, used, "a range of names, to the end");
    packed[0] = TABLE_EXTENT;
    range_is(-EBADMSG, packed, used, "a range of the map by a name");
    packed[0] = TABLE_DIRENT;
    packed[1] = (KEY_MAX + 1) & 0xff;
    packed[2] = (KEY_MAX + 1) >> 8;
    memset(packed + 3, 1, KEY_MAX + 1);
    memset(packed + 3 + KEY_MAX + 1, 0, 2);
    range_is(-EBADMSG, packed, 3 + KEY_MAX + 1 + 2, "a key that is too long");
}

static void hashes_come_back(void) {
    static uint8_t buffer[WIRE_COPY_BYTES];
    struct wire_copy_hash hashes[3] = {{.hash = "first"}, {.over = 1}, {.hash = "third"}};
    struct frame frame, back;
    fill_copy(&frame, COPY_HASHES);
    frame.copy.count = 3;
    frame.copy.bulk.length = sizeof hashes;
    memcpy(buffer + WIRE_COPY_HEAD, hashes, sizeof hashes);
    is_int(0, wire_decode(buffer, wire_copy_finish(buffer, &frame), &back), "hashes are understood");
    for (uint32_t i = 0; i < 3; i++) {
        struct wire_copy_hash hash = wire_copy_hash(&back.copy, i);
        is_blob(&hashes[i], &hash, sizeof hash, "each comes back");
    }
    answer_is(-EBADMSG, COPY_HASHES, 2, hashes, sizeof hashes, "three that are called two");
    answer_is(-EBADMSG, COPY_HASHES, 3, hashes, sizeof hashes - 1, "one that is cut off");
    answer_is(-EBADMSG, COPY_COMPARE, 3, hashes, sizeof hashes, "hashes in another answer");
}

static void other_protocols_are_refused(void) {
    uint8_t buffer[WIRE_CONTROL_MAX];
    struct frame frame;
    fill(&frame, WIRE_ACK);
    size_t length = wire_encode(&frame, buffer);
    struct wire_head *head = (struct wire_head *)buffer;
    head->version_min = head->version_max = WIRE_VERSION_MAX + 1;
    is_int(-EPROTO, wire_decode(buffer, length, &frame), "a newer protocol is refused as such");
    head->version_min = WIRE_VERSION_MIN;
    head->features |= 0x80000000u;
    is_int(-EPROTO, wire_decode(buffer, length, &frame), "an unknown feature that is required, too");
}

static void mend(uint8_t *buffer, size_t length);

/* Fields are only ever added at the end of a body: a newer node's are passed over, an older one's are empty. */
static void neighbours_are_understood(void) {
    uint8_t buffer[WIRE_CONTROL_MAX];
    struct wire_head *head = (struct wire_head *)buffer;
    struct frame frame, back;
    for (uint8_t type = WIRE_LOGIN; type < WIRE_TYPE_END; type++) {
        if (type == WIRE_RECORDS || type == WIRE_ASK_COPY || type == WIRE_COPY)
            continue;
        fill(&frame, type);
        size_t length = wire_encode(&frame, buffer);
        memset(buffer + length, 0x5a, 12);
        head->length = (uint32_t)length + 12;
        mend(buffer, length + 12);
        is_int(-EBADMSG, wire_decode(buffer, length + 12, &back), "%s with more than this version has", wire_type_name(type));
        head->version_max++;
        mend(buffer, length + 12);
        is_int(0, wire_decode(buffer, length + 12, &back), "... is understood from a newer node");
    }
    fill(&frame, WIRE_BEAT);
    strcpy(frame.beat.program, "9.9");
    size_t length = wire_encode(&frame, buffer), program = sizeof(uint32_t) + strlen("9.9"),
           third = 2 * sizeof(uint32_t) + REGISTER_VOTERS_MAX * (sizeof(uint32_t) + 63 + 16), added = program + third;
    is_int(0, wire_decode(buffer, length, &back), "a beat is understood");
    is_string("9.9", back.beat.program, "with the program's version");
    is_int(BEAT_STAYS, back.beat.flags, "its flags");
    is_int(REGISTER_VOTERS_MAX, back.beat.value.voter_count, "and the register's voters");
    head->version_max = 2;
    head->length = (uint32_t)(length - third);
    mend(buffer, length - third);
    is_int(0, wire_decode(buffer, length - third, &back), "so is one of version 2");
    is_string("9.9", back.beat.program, "with the program's version");
    ok(back.beat.flags == 0 && back.beat.value.voter_count == 0, "without flags and voters");
    head->version_max = 1;
    head->length = (uint32_t)(length - added);
    mend(buffer, length - added);
    is_int(0, wire_decode(buffer, length - added, &back), "so is one of version 1");
    is_string("", back.beat.program, "without it");
    ok(back.beat.value.version == frame.beat.value.version, "all else is there");
    head->version_max = WIRE_VERSION_MAX;
    mend(buffer, length - added);
    is_int(-EBADMSG, wire_decode(buffer, length - added, &back), "a field may not be missing from a node that has it");
}

/* Changed bytes with the checksum mended, so that the parsers behind it are reached. */
static void mend(uint8_t *buffer, size_t length) {
    struct wire_head *head = (struct wire_head *)buffer;
    size_t summed = head->type == WIRE_RECORDS ? MIN(WIRE_RECORDS_HEAD, length) : length;
    head->checksum = 0;
    uint64_t seed = XXH3_64bits(buffer, sizeof *head);
    head->checksum = XXH3_64bits_withSeed(buffer + sizeof *head, summed - sizeof *head, seed);
}

static void noise_is_refused(void) {
    static uint8_t buffer[WIRE_COPY_BYTES];
    struct frame frame;
    unsigned accepted = 0;
    for (unsigned round = 0; round < 300000; round++) {
        uint8_t type = (uint8_t)(1 + pick(WIRE_TYPE_END - 1));
        size_t length;
        if (type == WIRE_RECORDS) {
            length = make_records(buffer, (unsigned)pick(8));
        } else if (type == WIRE_COPY) {
            length = pick(2) ? make_rows(buffer, &frame, (unsigned)pick(8)) : make_blocks(buffer, &frame, (unsigned)pick(4));
        } else {
            fill(&frame, type);
            length = wire_encode(&frame, buffer);
        }
        unsigned changes = (unsigned)pick(4);
        for (unsigned i = 0; i < changes; i++)
            buffer[pick(4) ? sizeof(struct wire_head) + pick(length - sizeof(struct wire_head)) : pick(length)] =
                (uint8_t)(pick(3) ? test_random(&state) : 0xff);
        if (pick(2))
            mend(buffer, length);
        size_t given = pick(8) ? length : pick(length + 1);
        /* A block of exactly this length, so that a sanitizer sees a byte read beyond it. */
        uint8_t *exact = malloc(given ? given : 1);
        memcpy(exact, buffer, given);
        accepted += wire_decode(exact, given, &frame) == 0;
        free(exact);
    }
    ok(true, "300,000 damaged frames: none crashed it, %u were good", accepted);
}

/* As in a voter's answer. */
static void names_stand_in_a_value_once(void) {
    static const uint8_t types[] = {WIRE_BEAT, WIRE_SWITCH};
    for (unsigned i = 0; i < sizeof types; i++)
        for (unsigned which = 0; which < 4; which++) {
            static const char *const what[] = {"none", "a member's name", "a voter's name", "a voter's id"};
            static struct frame frame, back;
            uint8_t buffer[WIRE_CONTROL_MAX];
            fill(&frame, types[i]);
            struct register_value *value = types[i] == WIRE_BEAT ? &frame.beat.value : &frame.change.value;
            if (which == 1)
                memcpy(value->members[1].node, value->members[0].node, sizeof value->members[0].node);
            if (which == 2)
                memcpy(value->voters[1].name, value->voters[0].name, sizeof value->voters[0].name);
            if (which == 3)
                memcpy(value->voters[1].id, value->voters[0].id, sizeof value->voters[0].id);
            size_t length = wire_encode(&frame, buffer);
            is_int(which ? -EBADMSG : 0, wire_decode(buffer, length, &back), "%s with a value in which there is twice: %s",
                   wire_type_name(types[i]), what[which]);
        }
}

int main(void) {
    plan_lazy();
    state = test_seed();
    every_type_comes_back();
    records_come_back();
    copies_come_back();
    limits_of_questions();
    limits_of_answers();
    ranges_come_back();
    limits_of_ranges();
    hashes_come_back();
    names_stand_in_a_value_once();
    other_protocols_are_refused();
    neighbours_are_understood();
    noise_is_refused();
    return 0;
}
