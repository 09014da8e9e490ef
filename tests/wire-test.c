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
        frame->beat = (struct wire_beat){.role = 1, .position = position, .hold = 30};
        fill_value(&frame->beat.value);
        break;
    case WIRE_ACK:
        frame->ack = (struct wire_ack){.received = 51, .durable = 40};
        break;
    case WIRE_SWITCH:
        frame->change.lsn = 51;
        fill_value(&frame->change.value);
        break;
    default:
        strcpy(frame->bye.text, "stopping");
    }
}

static void every_type_comes_back(void) {
    for (uint8_t type = WIRE_LOGIN; type < WIRE_TYPE_END; type++) {
        if (type == WIRE_RECORDS)
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
    buffer[offsetof(struct wire_head, session)] ^= 1;
    is_int(-EBADMSG, wire_decode(buffer, length, &frame), "another session number breaks the checksum");
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

/* Changed bytes with the checksum mended, so that the parsers behind it are reached. */
static void mend(uint8_t *buffer, size_t length) {
    struct wire_head *head = (struct wire_head *)buffer;
    size_t summed = head->type == WIRE_RECORDS ? MIN(WIRE_RECORDS_HEAD, length) : length;
    head->checksum = 0;
    uint64_t seed = XXH3_64bits(buffer, sizeof *head);
    head->checksum = XXH3_64bits_withSeed(buffer + sizeof *head, summed - sizeof *head, seed);
}

static void noise_is_refused(void) {
    static uint8_t buffer[1 << 16];
    struct frame frame;
    unsigned accepted = 0;
    for (unsigned round = 0; round < 300000; round++) {
        uint8_t type = (uint8_t)(1 + pick(WIRE_TYPE_END - 1));
        size_t length;
        if (type == WIRE_RECORDS) {
            length = make_records(buffer, (unsigned)pick(8));
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

int main(void) {
    plan_lazy();
    state = test_seed();
    every_type_comes_back();
    records_come_back();
    other_protocols_are_refused();
    noise_is_refused();
    return 0;
}
