#include "replication/wire.h"
#include "fs/config.h"

#include <stdio.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian, and so is this machine");
_Static_assert(sizeof(struct wire_head) == 64, "the head's layout is the protocol");

/* ---- Writing and reading with a bound: after the first overrun everything is refused --------------------------------- */

struct cursor_out {
    uint8_t *at;
    size_t left;
};
struct cursor_in {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static void put(struct cursor_out *out, const void *value, size_t length) {
    PROMISE(length <= out->left);
    memcpy(out->at, value, length);
    out->at += length;
    out->left -= length;
}
static void put_u32(struct cursor_out *out, uint32_t value) {
    put(out, &value, sizeof value);
}
static void put_u64(struct cursor_out *out, uint64_t value) {
    put(out, &value, sizeof value);
}
static void put_text(struct cursor_out *out, const char *text, size_t room) {
    size_t length = strnlen(text, room - 1);
    put_u32(out, (uint32_t)length);
    put(out, text, length);
}

static void get(struct cursor_in *in, void *value, size_t length) {
    if (in->bad || length > in->left) {
        in->bad = true;
        memset(value, 0, length);
        return;
    }
    memcpy(value, in->at, length);
    in->at += length;
    in->left -= length;
}
static uint32_t get_u32(struct cursor_in *in) {
    uint32_t value;
    get(in, &value, sizeof value);
    return value;
}
static uint64_t get_u64(struct cursor_in *in) {
    uint64_t value;
    get(in, &value, sizeof value);
    return value;
}
/* Printable text only: it goes into logs and status. */
static void get_text(struct cursor_in *in, char *text, size_t room) {
    uint32_t length = get_u32(in);
    if (length >= room) {
        in->bad = true;
        length = 0;
    }
    get(in, text, length);
    text[length] = 0;
    for (uint32_t i = 0; i < length; i++)
        if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            in->bad = true;
}
static void get_node_name(struct cursor_in *in, char name[64], bool may_be_empty) {
    get_text(in, name, 64);
    if (name[0] ? !config_name_valid(name) : !may_be_empty)
        in->bad = true;
}
static epoch_t get_epoch(struct cursor_in *in) {
    epoch_t epoch = get_u64(in);
    if (EPOCH_COUNTER(epoch) > EPOCH_COUNTER_MAX || (epoch && (!EPOCH_NODE(epoch) || !EPOCH_COUNTER(epoch))))
        in->bad = true;
    return epoch;
}

/* ---- Parts that several frames share ------------------------------------------------------------------------------- */

static void put_position(struct cursor_out *out, const struct wire_position *position) {
    put_u64(out, position->lsn);
    put_u64(out, position->epoch);
    put(out, position->chain, CHAIN_SIZE);
    put_u64(out, position->durable);
    put_u64(out, position->first);
}
static void get_position(struct cursor_in *in, struct wire_position *position) {
    position->lsn = get_u64(in);
    position->epoch = get_epoch(in);
    get(in, position->chain, CHAIN_SIZE);
    position->durable = get_u64(in);
    position->first = get_u64(in);
    if (position->lsn >= UINT64_MAX / 2 || position->durable > position->lsn || position->first > position->lsn + 1)
        in->bad = true;
}

static void put_value(struct cursor_out *out, const struct register_value *value) {
    put_u64(out, value->version);
    put_u64(out, value->epoch);
    put_text(out, value->primary, sizeof value->primary);
    put_u32(out, value->member_count);
    for (unsigned i = 0; i < value->member_count; i++) {
        put_text(out, value->members[i].node, sizeof value->members[i].node);
        put(out, value->members[i].incarnation, 16);
    }
    put_u64(out, value->start_lsn);
    put(out, value->start_chain, CHAIN_SIZE);
}
static void get_value(struct cursor_in *in, struct register_value *value) {
    value->version = get_u64(in);
    value->epoch = get_epoch(in);
    get_node_name(in, value->primary, true);
    value->member_count = get_u32(in);
    if (value->member_count > REGISTER_MEMBERS_MAX) {
        in->bad = true;
        value->member_count = 0;
    }
    for (unsigned i = 0; i < value->member_count; i++) {
        get_node_name(in, value->members[i].node, false);
        get(in, value->members[i].incarnation, 16);
    }
    value->start_lsn = get_u64(in);
    get(in, value->start_chain, CHAIN_SIZE);
    if (value->version >= UINT64_MAX / 2 || value->start_lsn >= UINT64_MAX / 2)
        in->bad = true;
}

/* Since version 3: behind all that was there before. */
static void put_voters(struct cursor_out *out, const struct register_value *value) {
    if (WIRE_VERSION_MAX < 3)
        return;
    put_u32(out, value->voter_count);
    for (unsigned i = 0; i < value->voter_count; i++) {
        put_text(out, value->voters[i].name, sizeof value->voters[i].name);
        put(out, value->voters[i].id, 16);
    }
}
static void get_voters(struct cursor_in *in, const struct wire_head *head, struct register_value *value) {
    value->voter_count = 0;
    if (WIRE_VERSION_MAX < 3 || head->version_max < 3)
        return;
    value->voter_count = get_u32(in);
    if (value->voter_count > REGISTER_VOTERS_MAX) {
        in->bad = true;
        value->voter_count = 0;
    }
    for (unsigned i = 0; i < value->voter_count; i++) {
        get_node_name(in, value->voters[i].name, false);
        get(in, value->voters[i].id, 16);
    }
}

/* All of it has been read. */
static void look_at_value(struct cursor_in *in, const struct register_value *value) {
    if (!in->bad && !register_no_name_twice(value))
        in->bad = true;
}

/* Questions have all fields, whatever their kind. */
static void put_ask_copy(struct cursor_out *out, const struct wire_ask_copy *ask) {
    PROMISE(ask->after.length <= KEY_MAX && ask->place_count <= COPY_PLACES_MAX);
    put_u64(out, ask->number);
    put_u32(out, ask->kind);
    put_u64(out, ask->lsn);
    put(out, ask->chain, CHAIN_SIZE);
    put(out, ask->incarnation, 16);
    put_u32(out, ask->table);
    put_u32(out, ask->after.length);
    put(out, ask->after.bytes, ask->after.length);
    put_u32(out, ask->place_count);
    put(out, ask->places, ask->place_count * sizeof ask->places[0]);
    put_u64(out, ask->data);
    put_u64(out, ask->first);
    put_u32(out, ask->count);
    PROMISE(ask->ranges.length <= COPY_RANGES_BYTES);
    if (ask->ranges.length)
        put(out, ask->ranges.data, ask->ranges.length);
}
/* They are what is left of the frame. */
static void get_ranges(struct cursor_in *in, struct wire_ask_copy *ask) {
    uint32_t at = 0, count = 0;
    struct range range;
    int rc;
    ask->ranges = (struct span){.data = in->at, .length = in->bad ? 0 : (uint32_t)in->left};
    if (in->left > COPY_RANGES_BYTES)
        in->bad = true;
    in->left = 0;
    while ((rc = in->bad ? 0 : wire_range_next(&ask->ranges, &at, &range)) == 1)
        count++;
    if (rc < 0 || count > (ask->kind == COPY_HASHES ? COPY_RANGES_MAX : ask->kind == COPY_RANGE) ||
        (count == 0 && (ask->kind == COPY_HASHES || ask->kind == COPY_RANGE)))
        in->bad = true;
}
static void get_ask_copy(struct cursor_in *in, struct wire_ask_copy *ask) {
    uint64_t blocks = 0, end;
    ask->number = get_u64(in);
    ask->kind = get_u32(in);
    ask->lsn = get_u64(in);
    get(in, ask->chain, CHAIN_SIZE);
    get(in, ask->incarnation, 16);
    ask->table = get_u32(in);
    uint32_t length = get_u32(in);
    in->bad = in->bad || length > KEY_MAX;
    ask->after.length = in->bad ? 0 : (uint16_t)length;
    get(in, ask->after.bytes, ask->after.length);
    ask->place_count = get_u32(in);
    in->bad = in->bad || ask->place_count > COPY_PLACES_MAX;
    if (in->bad)
        ask->place_count = 0;
    get(in, ask->places, ask->place_count * sizeof ask->places[0]);
    for (uint32_t i = 0; i < ask->place_count; i++) {
        blocks += ask->places[i].count;
        in->bad = in->bad || ask->places[i].count == 0;
    }
    ask->data = get_u64(in);
    ask->first = get_u64(in);
    ask->count = get_u32(in);
    if (ask->kind == 0 || ask->kind >= COPY_KIND_END || ask->lsn >= UINT64_MAX / 2 || ask->table >= TABLE_SHARED_END ||
        blocks > COPY_BLOCKS_MAX || ask->count > COPY_BLOCKS_MAX || ADD_OVERFLOWS(ask->first, ask->count, &end))
        in->bad = true;
    get_ranges(in, ask);
}

/* ---- Bodies -------------------------------------------------------------------------------------------------------- */

static void put_body(struct cursor_out *out, const struct frame *frame) {
    switch (frame->head.type) {
    case WIRE_LOGIN:
        put(out, frame->login.incarnation, 16);
        put_position(out, &frame->login.position);
        put_u64(out, frame->login.window);
        break;
    case WIRE_ANSWER:
        put_u32(out, frame->answer.verdict);
        put_u64(out, frame->answer.from);
        put_position(out, &frame->answer.position);
        put_u64(out, frame->answer.fork);
        put(out, frame->answer.fork_chain, CHAIN_SIZE);
        put_text(out, frame->answer.text, WIRE_TEXT);
        break;
    case WIRE_BEAT:
        put_u32(out, frame->beat.role);
        put(out, frame->beat.incarnation, 16);
        put_position(out, &frame->beat.position);
        put_u64(out, frame->beat.hold);
        put_u64(out, (uint64_t)frame->beat.sent);
        put_value(out, &frame->beat.value);
        if (WIRE_VERSION_MAX >= 2)
            put_text(out, frame->beat.program, WIRE_PROGRAM);
        if (WIRE_VERSION_MAX >= 3)
            put_u32(out, frame->beat.flags);
        put_voters(out, &frame->beat.value);
        break;
    case WIRE_ACK:
        put_u64(out, frame->ack.received);
        put_u64(out, frame->ack.durable);
        break;
    case WIRE_BYE:
    case WIRE_SWITCHED:
        put_u32(out, frame->bye.error);
        put_text(out, frame->bye.text, WIRE_TEXT);
        break;
    case WIRE_SWITCH:
        put_u64(out, frame->change.lsn);
        put(out, frame->change.chain, CHAIN_SIZE);
        put_value(out, &frame->change.value);
        put_voters(out, &frame->change.value);
        break;
    case WIRE_ASK_COPY:
        put_ask_copy(out, &frame->ask);
        break;
    default:
        PROMISE(false && "a frame that is made by wire_encode");
    }
}

static void get_records(struct cursor_in *in, struct wire_records *records) {
    records->first = get_u64(in);
    records->count = get_u32(in);
    records->want = get_u64(in);
    records->bulk = (struct span){.data = in->at, .length = (uint32_t)in->left};
    if (records->count > WIRE_RECORDS_MAX || records->first == 0 || records->first >= UINT64_MAX / 2)
        in->bad = true;
    in->left = 0;
    if (in->bad)
        return;
    /* All of it is walked here, so that nobody acts on the first half of a broken frame. */
    struct wire_record record;
    struct record_head head;
    uint32_t at = 0, count = 0;
    int rc;
    while ((rc = wire_record_next(records, &at, &record)) > 0) {
        memcpy(&head, record.bytes.data, sizeof head);
        if (head.lsn != records->first + count++) /* what is acknowledged is counted from `first` */
            in->bad = true;
    }
    if (rc < 0 || count != records->count)
        in->bad = true;
}

/* How many items there are; all are looked at. Negative: one of them is broken. */
static int64_t count_copies(const struct wire_copy *copy) {
    uint32_t at = 0;
    int64_t count = 0;
    bool rows = copy->kind == COPY_ROWS || copy->kind == COPY_RANGE;
    if (copy->kind == COPY_HASHES)
        return copy->bulk.length % sizeof(struct wire_copy_hash)
                   ? -EBADMSG
                   : (int64_t)(copy->bulk.length / sizeof(struct wire_copy_hash));
    for (;; count++) {
        struct span key, value;
        int error, rc = rows ? wire_copy_row_next(copy, &at, &key, &value)
                             : wire_copy_blocks_next(copy, &at, &error, &value);
        if (rc <= 0)
            return rc ? rc : count;
    }
}

static void get_copy(struct cursor_in *in, struct wire_copy *copy) {
    copy->number = get_u64(in);
    copy->kind = get_u32(in);
    copy->error = get_u32(in);
    get(in, copy->incarnation, 16);
    copy->lsn = get_u64(in);
    copy->epoch = get_epoch(in);
    get(in, copy->chain, CHAIN_SIZE);
    copy->time = (int64_t)get_u64(in);
    for (unsigned i = 0; i < TABLE_SHARED_END; i++)
        copy->rows[i] = get_u64(in);
    copy->blocks = get_u64(in);
    copy->inodes = get_u64(in);
    copy->table = get_u32(in);
    uint32_t done = get_u32(in);
    copy->done = done == 1;
    copy->count = get_u32(in);
    get_text(in, copy->text, WIRE_TEXT);
    copy->bulk = (struct span){.data = in->at, .length = (uint32_t)in->left};
    in->left = 0;
    bool bulky = copy->error == 0 && copy->kind != COPY_OPEN && copy->kind != COPY_CLOSE && copy->kind != COPY_COMPARE &&
                 copy->kind != COPY_COMPARED;
    if (in->bad || copy->kind == 0 || copy->kind >= COPY_KIND_END || copy->error > 4095 || done > 1 ||
        copy->lsn >= UINT64_MAX / 2 || copy->table >= TABLE_SHARED_END || (copy->error == 0 && copy->text[0]))
        in->bad = true;
    else if (!bulky)
        in->bad = copy->bulk.length || copy->count;
    else
        in->bad = count_copies(copy) != copy->count;
}

static void get_body(struct cursor_in *in, struct frame *frame) {
    switch (frame->head.type) {
    case WIRE_LOGIN:
        get(in, frame->login.incarnation, 16);
        get_position(in, &frame->login.position);
        frame->login.window = get_u64(in);
        break;
    case WIRE_ANSWER:
        frame->answer.verdict = get_u32(in);
        frame->answer.from = get_u64(in);
        get_position(in, &frame->answer.position);
        frame->answer.fork = get_u64(in);
        get(in, frame->answer.fork_chain, CHAIN_SIZE);
        get_text(in, frame->answer.text, WIRE_TEXT);
        if (frame->answer.verdict == 0 || frame->answer.verdict >= VERDICT_END)
            in->bad = true;
        break;
    case WIRE_BEAT:
        frame->beat.role = get_u32(in);
        get(in, frame->beat.incarnation, 16);
        get_position(in, &frame->beat.position);
        frame->beat.hold = get_u64(in);
        frame->beat.sent = (int64_t)get_u64(in);
        get_value(in, &frame->beat.value);
        frame->beat.program[0] = '\0';
        if (WIRE_VERSION_MAX >= 2 && frame->head.version_max >= 2)
            get_text(in, frame->beat.program, WIRE_PROGRAM);
        frame->beat.flags = WIRE_VERSION_MAX >= 3 && frame->head.version_max >= 3 ? get_u32(in) : 0;
        get_voters(in, &frame->head, &frame->beat.value);
        look_at_value(in, &frame->beat.value);
        if (frame->beat.role > 1)
            in->bad = true;
        break;
    case WIRE_RECORDS:
        get_records(in, &frame->records);
        break;
    case WIRE_ACK:
        frame->ack.received = get_u64(in);
        frame->ack.durable = get_u64(in);
        if (frame->ack.durable > frame->ack.received)
            in->bad = true;
        break;
    case WIRE_BYE:
    case WIRE_SWITCHED:
        frame->bye.error = get_u32(in);
        get_text(in, frame->bye.text, WIRE_TEXT);
        if (frame->bye.error > 4095)
            in->bad = true;
        break;
    case WIRE_SWITCH:
        frame->change.lsn = get_u64(in);
        get(in, frame->change.chain, CHAIN_SIZE);
        get_value(in, &frame->change.value);
        get_voters(in, &frame->head, &frame->change.value);
        look_at_value(in, &frame->change.value);
        break;
    case WIRE_ASK_COPY:
        get_ask_copy(in, &frame->ask);
        break;
    case WIRE_COPY:
        get_copy(in, &frame->copy);
        break;
    default:
        in->bad = true;
    }
    if (in->left && frame->head.version_max <= WIRE_VERSION_MAX)
        in->bad = true; /* nothing may follow but what a newer version has added */
}

/* ---- Frames -------------------------------------------------------------------------------------------------------- */

static size_t summed_length(const struct wire_head *head) {
    return head->type == WIRE_RECORDS ? WIRE_RECORDS_HEAD : head->length;
}

/* The sum over a frame whose checksum field counts as zero. */
static uint64_t checksum(const struct wire_head *head, const uint8_t *bytes) {
    struct wire_head zeroed = *head;
    zeroed.checksum = 0;
    uint64_t seed = XXH3_64bits(&zeroed, sizeof zeroed);
    return XXH3_64bits_withSeed(bytes + sizeof zeroed, summed_length(head) - sizeof zeroed, seed);
}

static void complete_head(struct wire_head *head, size_t length) {
    head->magic = WIRE_MAGIC;
    head->version_min = WIRE_VERSION_MIN;
    head->version_max = WIRE_VERSION_MAX;
    head->features = WIRE_FEATURES;
    head->length = (uint32_t)length;
    memset(head->reserved, 0, sizeof head->reserved);
}

size_t wire_encode(struct frame *frame, uint8_t buffer[WIRE_CONTROL_MAX]) {
    struct cursor_out out = {buffer + sizeof frame->head, WIRE_CONTROL_MAX - sizeof frame->head};
    put_body(&out, frame);
    size_t length = WIRE_CONTROL_MAX - out.left;
    complete_head(&frame->head, length);
    frame->head.checksum = checksum(&frame->head, buffer);
    memcpy(buffer, &frame->head, sizeof frame->head);
    return length;
}

int wire_decode(const void *bytes, size_t length, struct frame *frame) {
    if (length < sizeof frame->head)
        return -EBADMSG;
    struct wire_head *head = &frame->head;
    memcpy(head, bytes, sizeof *head);
    if (head->magic != WIRE_MAGIC || head->version_min == 0 || head->version_min > head->version_max)
        return -EBADMSG;
    if (head->version_min > WIRE_VERSION_MAX || head->version_max < WIRE_VERSION_MIN ||
        (head->features & WIRE_REQUIRED_MASK & ~WIRE_FEATURES))
        return -EPROTO;
    if (head->length != length || head->type == 0 || head->type >= WIRE_TYPE_END || (head->flags & ~(WIRE_ASK | WIRE_PROBE)))
        return -EBADMSG;
    size_t most = head->type == WIRE_RECORDS ? WIRE_RECORDS_BYTES
                : head->type == WIRE_COPY    ? WIRE_COPY_BYTES
                                             : WIRE_CONTROL_MAX;
    if (length > most || length < summed_length(head) || checksum(head, bytes) != head->checksum)
        return -EBADMSG;
    if (EPOCH_COUNTER(head->epoch) > EPOCH_COUNTER_MAX)
        return -EBADMSG;
    struct cursor_in in = {(const uint8_t *)bytes + sizeof *head, length - sizeof *head, false};
    get_body(&in, frame);
    return in.bad ? -EBADMSG : 0;
}

/* Here, not where they are used: only this file is compiled with the versions that a test wants. */
unsigned wire_version(void) {
    return WIRE_VERSION_MAX;
}

void wire_why_unfit(const struct wire_head *head, char *why, size_t room) {
    if (head->version_min > WIRE_VERSION_MAX || head->version_max < WIRE_VERSION_MIN)
        snprintf(why, room, "it speaks versions %u to %u of the protocol, this program %u to %u; upgrade the node with the older program",
                 head->version_min, head->version_max, WIRE_VERSION_MIN, WIRE_VERSION_MAX);
    else
        snprintf(why, room, "it requires features of the protocol (%#x) that this program does not have; upgrade this node",
                 head->features & WIRE_REQUIRED_MASK & ~WIRE_FEATURES);
}

void wire_records_begin(uint8_t *buffer, size_t room, const struct frame *frame, size_t total) {
    struct wire_head head = frame->head;
    struct cursor_out out = {buffer + sizeof head, room - sizeof head};
    PROMISE(room >= WIRE_RECORDS_HEAD && total <= WIRE_RECORDS_BYTES);
    put_u64(&out, frame->records.first);
    put_u32(&out, frame->records.count);
    put_u64(&out, frame->records.want);
    complete_head(&head, total);
    head.type = WIRE_RECORDS;
    head.checksum = checksum(&head, buffer);
    memcpy(buffer, &head, sizeof head);
}

uint8_t *wire_record_put(uint8_t *at, uint32_t length, uint32_t payload) {
    memcpy(at, &length, sizeof length);
    memcpy(at + sizeof length, &payload, sizeof payload);
    return at + WIRE_RECORD_HEAD;
}

int wire_record_next(const struct wire_records *records, uint32_t *at, struct wire_record *record) {
    const struct span *bulk = &records->bulk;
    uint32_t left = bulk->length - *at, length, payload;
    if (left == 0)
        return 0;
    if (left < WIRE_RECORD_HEAD)
        return -EBADMSG;
    memcpy(&length, bulk->data + *at, sizeof length);
    memcpy(&payload, bulk->data + *at + sizeof length, sizeof payload);
    left -= WIRE_RECORD_HEAD;
    if (length < sizeof(struct record_head) || length > RECORD_LENGTH_MAX || length > left)
        return -EBADMSG;
    if (payload > RECORD_PAYLOAD_MAX || payload > left - length)
        return -EBADMSG;
    const uint8_t *bytes = bulk->data + *at + WIRE_RECORD_HEAD;
    record->bytes = (struct span){.data = bytes, .length = length};
    record->payload = (struct span){.data = bytes + length, .length = payload};
    *at += WIRE_RECORD_HEAD + length + payload;
    return 1;
}

uint8_t *wire_copy_put_row(uint8_t *at, struct span key, struct span value) {
    uint16_t key_length = (uint16_t)key.length;
    memcpy(at, &key_length, sizeof key_length);
    memcpy(at + sizeof key_length, &value.length, sizeof value.length);
    at += WIRE_COPY_ROW_HEAD;
    memcpy(at, key.data, key.length);
    if (value.length)
        memcpy(at + key.length, value.data, value.length);
    return at + key.length + value.length;
}

uint8_t *wire_copy_put_blocks(uint8_t *at, int error, uint32_t bytes) {
    int32_t number = error;
    memcpy(at, &number, sizeof number);
    memcpy(at + sizeof number, &bytes, sizeof bytes);
    return at + WIRE_COPY_BLOCKS_HEAD + bytes;
}

size_t wire_copy_finish(uint8_t *buffer, struct frame *frame) {
    const struct wire_copy *copy = &frame->copy;
    struct cursor_out out = {buffer + sizeof frame->head, WIRE_COPY_BYTES - sizeof frame->head};
    PROMISE(copy->error ? copy->bulk.length == 0 : copy->text[0] == 0);
    put_u64(&out, copy->number);
    put_u32(&out, copy->kind);
    put_u32(&out, copy->error);
    put(&out, copy->incarnation, 16);
    put_u64(&out, copy->lsn);
    put_u64(&out, copy->epoch);
    put(&out, copy->chain, CHAIN_SIZE);
    put_u64(&out, (uint64_t)copy->time);
    for (unsigned i = 0; i < TABLE_SHARED_END; i++)
        put_u64(&out, copy->rows[i]);
    put_u64(&out, copy->blocks);
    put_u64(&out, copy->inodes);
    put_u32(&out, copy->table);
    put_u32(&out, copy->done);
    put_u32(&out, copy->count);
    put_text(&out, copy->text, WIRE_TEXT);
    PROMISE((copy->error || out.at == buffer + WIRE_COPY_HEAD) && copy->bulk.length <= out.left);
    size_t length = (size_t)(out.at - buffer) + copy->bulk.length;
    frame->head.type = WIRE_COPY;
    complete_head(&frame->head, length);
    frame->head.checksum = checksum(&frame->head, buffer);
    memcpy(buffer, &frame->head, sizeof frame->head);
    return length;
}

int wire_copy_row_next(const struct wire_copy *copy, uint32_t *at, struct span *key, struct span *value) {
    const struct span *bulk = &copy->bulk;
    uint32_t left = bulk->length - *at, length;
    uint16_t key_length;
    if (left == 0)
        return 0;
    if (left < WIRE_COPY_ROW_HEAD)
        return -EBADMSG;
    memcpy(&key_length, bulk->data + *at, sizeof key_length);
    memcpy(&length, bulk->data + *at + sizeof key_length, sizeof length);
    left -= WIRE_COPY_ROW_HEAD;
    if (key_length == 0 || key_length > KEY_MAX || key_length > left || length > left - key_length)
        return -EBADMSG;
    *key = (struct span){.data = bulk->data + *at + WIRE_COPY_ROW_HEAD, .length = key_length};
    *value = (struct span){.data = key->data + key_length, .length = length};
    *at += WIRE_COPY_ROW_HEAD + key_length + length;
    return 1;
}

int wire_copy_blocks_next(const struct wire_copy *copy, uint32_t *at, int *error, struct span *blocks) {
    const struct span *bulk = &copy->bulk;
    uint32_t left = bulk->length - *at, length;
    int32_t number;
    if (left == 0)
        return 0;
    if (left < WIRE_COPY_BLOCKS_HEAD)
        return -EBADMSG;
    memcpy(&number, bulk->data + *at, sizeof number);
    memcpy(&length, bulk->data + *at + sizeof number, sizeof length);
    left -= WIRE_COPY_BLOCKS_HEAD;
    if (number > 0 || number < -4095 || length > left || length % BATON_BLOCK || (number == 0) != (length > 0))
        return -EBADMSG;
    *error = number;
    *blocks = (struct span){.data = bulk->data + *at + WIRE_COPY_BLOCKS_HEAD, .length = length};
    *at += WIRE_COPY_BLOCKS_HEAD + length;
    return 1;
}

struct wire_copy_hash wire_copy_hash(const struct wire_copy *copy, uint32_t which) {
    struct wire_copy_hash hash;
    PROMISE(which < copy->count && copy->kind == COPY_HASHES);
    memcpy(&hash, copy->bulk.data + which * sizeof hash, sizeof hash);
    return hash;
}

static uint32_t put_key(uint8_t *buffer, uint32_t used, const struct key *key) {
    memcpy(buffer + used, &key->length, sizeof key->length);
    memcpy(buffer + used + sizeof key->length, key->bytes, key->length);
    return used + (uint32_t)sizeof key->length + key->length;
}

uint32_t wire_range_put(uint8_t buffer[COPY_RANGES_BYTES], uint32_t used, const struct range *range) {
    PROMISE(range_valid(range));
    if (used + 1 + 2 * sizeof range->from.length + range->from.length + range->to.length > COPY_RANGES_BYTES)
        return 0;
    buffer[used] = (uint8_t)range->table;
    return put_key(buffer, put_key(buffer, used + 1, &range->from), &range->to);
}

static bool get_key(const struct span *ranges, uint32_t *at, struct key *key) {
    uint32_t left = ranges->length - *at;
    if (left < sizeof key->length)
        return false;
    memcpy(&key->length, ranges->data + *at, sizeof key->length);
    if (key->length > KEY_MAX || key->length > left - sizeof key->length)
        return false;
    memcpy(key->bytes, ranges->data + *at + sizeof key->length, key->length);
    *at += (uint32_t)sizeof key->length + key->length;
    return true;
}

int wire_range_next(const struct span *ranges, uint32_t *at, struct range *range) {
    if (*at == ranges->length)
        return 0;
    range->table = ranges->data[*at];
    ++*at;
    return get_key(ranges, at, &range->from) && get_key(ranges, at, &range->to) && range_valid(range) ? 1 : -EBADMSG;
}

const char *wire_type_name(uint8_t type) {
    static const char *const names[WIRE_TYPE_END] = {"unknown", "login", "answer", "beat",     "records", "ack",
                                                     "bye",     "switch", "switched", "ask copy", "copy"};
    return names[type < WIRE_TYPE_END ? type : 0];
}
