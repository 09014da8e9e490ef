/* Frames as they come from the network: everything that wire.c decodes, and what is walked inside.
 *
 * An input: a byte of flags, then the frame. Bit 0: magic, version, length and checksum are made right.
 */
#include "replication/wire.h"
#include "tests/fuzz/fuzz.h"

#include <xxhash.h>

#define RIGHT 1u

/* As wire.c sums a frame: all of it, its checksum counting as zero, but for the bulk of RECORDS. */
static void make_right(uint8_t *bytes, size_t length) {
    struct wire_head head;
    if (length < sizeof head)
        return;
    memcpy(&head, bytes, sizeof head);
    head.magic = WIRE_MAGIC;
    head.version_min = head.version_max = WIRE_VERSION_MAX;
    head.features &= ~WIRE_REQUIRED_MASK;
    head.type = (uint8_t)(head.type % (WIRE_TYPE_END + 1));
    head.flags &= WIRE_ASK | WIRE_PROBE;
    head.length = (uint32_t)length;
    head.checksum = 0;
    size_t covered = head.type == WIRE_RECORDS ? MIN(length, WIRE_RECORDS_HEAD) : length;
    uint64_t sum = XXH3_64bits(&head, sizeof head);
    head.checksum = XXH3_64bits_withSeed(bytes + sizeof head, covered - sizeof head, sum);
    memcpy(bytes, &head, sizeof head);
}

static void touch(struct span span) { /* reads it all: it has to lie inside the frame */
    static volatile uint8_t sum;
    for (uint32_t i = 0; i < span.length; i++)
        sum = (uint8_t)(sum + span.data[i]);
}

static void walk_records(const struct wire_records *records) {
    struct wire_record each;
    uint32_t at = 0;
    int rc;
    while ((rc = wire_record_next(records, &at, &each)) == 1) {
        struct record record;
        touch(each.bytes);
        touch(each.payload);
        if (record_decode(each.bytes.data, each.bytes.length, &record, NULL) == 0) {
            record_check_payload(&record, each.payload.data, each.payload.length);
            record_release(&record);
        }
    }
    FUZZ_MUST(rc == 0); /* wire_decode has walked it already */
}

static void walk_copy(const struct wire_copy *copy) {
    struct span key, value;
    uint32_t at = 0, count = 0;
    int rc = 0, error;
    bool rows = copy->kind == COPY_ROWS || copy->kind == COPY_RANGE;
    if (copy->error)
        return;
    if (copy->kind == COPY_HASHES)
        for (; count < copy->count; count++)
            FUZZ_MUST(wire_copy_hash(copy, count).over <= UINT32_MAX);
    if (!rows && copy->kind != COPY_PLACES && copy->kind != COPY_DATA)
        return;
    while ((rc = rows ? wire_copy_row_next(copy, &at, &key, &value) : wire_copy_blocks_next(copy, &at, &error, &value)) == 1) {
        if (rows) {
            touch(key);
            FUZZ_MUST(key.length <= KEY_MAX);
        } else {
            FUZZ_MUST(error <= 0 && (error == 0 || value.length == 0) && value.length % BATON_BLOCK == 0);
        }
        touch(value);
        count++;
    }
    FUZZ_MUST(rc == 0 && count == copy->count);
}

static void walk_ranges(const struct wire_ask_copy *ask) {
    struct range range;
    uint32_t at = 0;
    int rc;
    while ((rc = wire_range_next(&ask->ranges, &at, &range)) == 1)
        FUZZ_MUST(range_valid(&range) && range.from.length <= KEY_MAX && range.to.length <= KEY_MAX);
    FUZZ_MUST(rc == 0);
}

/* What was let in can be said again, and means the same. */
static void say_again(const struct frame *frame) {
    static struct frame first, second;
    static uint8_t bytes[WIRE_CONTROL_MAX], again[WIRE_CONTROL_MAX];
    first = *frame;
    size_t length = wire_encode(&first, bytes);
    FUZZ_MUST(length <= sizeof bytes && wire_decode(bytes, length, &second) == 0);
    FUZZ_MUST(wire_encode(&second, again) == length && memcmp(bytes, again, length) == 0);
}

static bool one(const uint8_t *input, size_t length) {
    static struct frame frame;
    if (length == 0)
        return false;
    uint8_t flags = input[0];
    uint8_t *bytes = fuzz_copy(input + 1, --length);
    if (flags & RIGHT)
        make_right(bytes, length);
    int rc = wire_decode(bytes, length, &frame);
    if (rc == 0) {
        if (frame.head.type == WIRE_RECORDS)
            walk_records(&frame.records);
        else if (frame.head.type == WIRE_COPY)
            walk_copy(&frame.copy);
        else
            say_again(&frame);
        if (frame.head.type == WIRE_ASK_COPY)
            walk_ranges(&frame.ask);
        FUZZ_MUST(wire_type_name(frame.head.type));
    }
    fuzz_free(bytes, length);
    return rc == 0;
}

/* ---- Seeds ---- */

static uint8_t seed[1 + (64u << 10)];

static struct wire_position position(void) {
    return (struct wire_position){.lsn = 70, .epoch = EPOCH_MAKE(3, 100), .chain = "chain", .durable = 60, .first = 2};
}

static struct register_value value(void) {
    struct register_value value = {.version = 4, .epoch = EPOCH_MAKE(3, 100), .primary = "a", .member_count = 2,
                                   .start_lsn = 9};
    strcpy(value.members[0].node, "a");
    strcpy(value.members[1].node, "b");
    return value;
}

static void give_control(enum wire_type type, struct frame frame) {
    frame.head.type = (uint8_t)type;
    frame.head.node = 100;
    frame.head.session = 7;
    frame.head.epoch = EPOCH_MAKE(3, 100);
    memcpy(frame.head.volume, "the pair's volume", 16);
    seed[0] = RIGHT;
    fuzz_give(wire_type_name((uint8_t)type), seed, 1 + wire_encode(&frame, seed + 1));
}

static void give_ranges(void) {
    uint8_t bytes[COPY_RANGES_BYTES];
    struct range range = {.table = TABLE_EXTENT, .from = key_u64_u64(9, 0), .to = key_u64_u64(9, 70)};
    uint32_t used = wire_range_put(bytes, 0, &range);
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 6, .kind = COPY_COMPARE, .lsn = 70}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 7, .kind = COPY_RANGE, .lsn = 70, .ranges = {bytes, used}}});
    range = range_of(TABLE_DIRENT, 1);
    used = wire_range_put(bytes, used, &range);
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 8, .kind = COPY_HASHES, .lsn = 70, .ranges = {bytes, used}}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 9, .kind = COPY_COMPARED, .lsn = 70}});
}

static void give_records(void) {
    static const uint8_t chain[CHAIN_SIZE], name[] = "name";
    struct frame frame = {.head = {.type = WIRE_RECORDS, .node = 100, .session = 7, .epoch = EPOCH_MAKE(3, 100)},
                          .records = {.first = 71, .count = 2, .want = 71}};
    uint8_t *at = seed + 1 + WIRE_RECORDS_HEAD, record[400];
    for (unsigned i = 0; i < 2; i++) {
        struct record made = {.head = {.type = RECORD_UNLINK, .lsn = 71 + i, .epoch = EPOCH_MAKE(3, 100), .ino = 5,
                                       .time = 1700000000123456789},
                              .parent = 1, .name = {name, 4}};
        int length = record_encode(&made, chain, record, sizeof record);
        PROMISE(length > 0);
        uint8_t *to = wire_record_put(at, (uint32_t)length, 0);
        memcpy(to, record, (size_t)length);
        at = to + length;
    }
    seed[0] = RIGHT;
    wire_records_begin(seed + 1, sizeof seed - 1, &frame, (size_t)(at - seed - 1));
    fuzz_give("records", seed, (size_t)(at - seed));
}

static void give_copies(void) {
    struct frame frame = {.head = {.type = WIRE_COPY, .node = 100, .epoch = EPOCH_MAKE(3, 100)},
                          .copy = {.number = 3, .kind = COPY_ROWS, .lsn = 70, .epoch = EPOCH_MAKE(3, 100), .count = 2,
                                   .done = true}};
    uint8_t *begin = seed + 1 + WIRE_COPY_HEAD, *at = begin;
    seed[0] = RIGHT;
    at = wire_copy_put_row(at, (struct span){(const uint8_t *)"key one", 7}, (struct span){(const uint8_t *)"value", 5});
    at = wire_copy_put_row(at, (struct span){(const uint8_t *)"key two", 7}, (struct span){(const uint8_t *)"", 0});
    frame.copy.bulk = (struct span){begin, (uint32_t)(at - begin)};
    fuzz_give("copy-rows", seed, 1 + wire_copy_finish(seed + 1, &frame));
    frame.copy.kind = COPY_PLACES;
    frame.copy.done = false;
    at = wire_copy_put_blocks(begin, 0, BATON_BLOCK);
    memset(begin + WIRE_COPY_BLOCKS_HEAD, 7, BATON_BLOCK);
    at = wire_copy_put_blocks(begin + WIRE_COPY_BLOCKS_HEAD + BATON_BLOCK, -EIO, 0);
    frame.copy.bulk = (struct span){begin, (uint32_t)(at - begin)};
    fuzz_give("copy-blocks", seed, 1 + wire_copy_finish(seed + 1, &frame));
    frame.copy = (struct wire_copy){.number = 5, .kind = COPY_HASHES, .lsn = 70, .count = 2, .bulk = {begin, 2 * sizeof(struct wire_copy_hash)}};
    memset(begin, 0, 2 * sizeof(struct wire_copy_hash));
    fuzz_give("copy-hashes", seed, 1 + wire_copy_finish(seed + 1, &frame));
    frame.copy = (struct wire_copy){.number = 4, .kind = COPY_OPEN, .error = ENOENT, .text = "no such state"};
    fuzz_give("copy-error", seed, 1 + wire_copy_finish(seed + 1, &frame));
}

static void seeds(void) {
    give_control(WIRE_LOGIN, (struct frame){.login = {.position = position(), .window = 1u << 20}});
    give_control(WIRE_ANSWER, (struct frame){.answer = {.verdict = VERDICT_DIVERGED, .from = 71, .position = position(),
                                                        .fork = 60, .text = "the histories part"}});
    give_control(WIRE_BEAT, (struct frame){.beat = {.role = 1, .position = position(), .hold = 50, .sent = 12345,
                                                    .value = value()}});
    give_control(WIRE_ACK, (struct frame){.ack = {.received = 70, .durable = 60}});
    give_control(WIRE_BYE, (struct frame){.bye = {.error = EIO, .text = "stopping"}});
    give_control(WIRE_SWITCHED, (struct frame){.switched = {.text = ""}});
    give_control(WIRE_SWITCH, (struct frame){.change = {.lsn = 70, .value = value()}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 1, .kind = COPY_OPEN}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 2, .kind = COPY_ROWS, .lsn = 70, .table = TABLE_DIRENT,
                                                       .after = {.length = 9, .bytes = "somewhere"}}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 3, .kind = COPY_PLACES, .lsn = 70, .place_count = 2,
                                                       .places = {{1, 2, 3}, {1, 9, 1}}}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 4, .kind = COPY_DATA, .data = 9, .first = 3, .count = 1}});
    give_control(WIRE_ASK_COPY, (struct frame){.ask = {.number = 5, .kind = COPY_CLOSE, .lsn = 70}});
    give_ranges();
    give_records();
    give_copies();
}

const struct fuzz_harness fuzz_wire = {.name = "wire", .one = one, .seeds = seeds};
