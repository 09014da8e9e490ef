/* A node of the volume that is let in and lies: a real replicator on one side, over real sockets, and on the other frames
 * out of a script, as standby, as primary, as provider of a copy. Sessions, epochs, numbers of questions and checksums are
 * the right ones, where the script wants that, so that what is behind those comparisons is reached.
 *
 * An input: steps (see `step`). What comes of one goes on into the next input, for making a replicator takes long; after
 * INPUTS of them there is a new one. At the end of each the replicator has to answer still; at its end the store has to be
 * whole, whatever it was told.
 */
#include "fs/check.h"
#include "fs/import.h"
#include "fs/ops.h"
#include "replication/parts.h"
#include "replication/verify.h"
#include "tests/fuzz/fuzz.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <xxhash.h>

#define INPUTS 100u
#define STEPS_MAX 40u
#define ANSWER_SECONDS 120 /* the machine may be busy */

static struct volume volume;
static struct config config;
static char secrets[2][KEY_TEXT];
static struct link *liar; /* node b */
static void *dialled[LINK_PORTS];
static unsigned inputs;

/* What the liar has heard of the other one. */
static struct {
    struct wire_position position;
    struct register_value value;
    uint64_t login;    /* session of its login */
    uint64_t session;  /* of the liar's own login */
    struct wire_ask_copy ask;
    uint8_t ranges[COPY_RANGES_BYTES]; /* of it */
    struct link_route control, copy;
    uint64_t beats;
    uint8_t incarnation[16];
} heard;

/* ---- Both sides ---- */

static bool port_free(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

static uint16_t free_ports(uint16_t from) {
    for (uint16_t port = from;; port += NODE_PORTS) {
        unsigned free = 0;
        while (free < NODE_PORTS && port_free((uint16_t)(port + free)))
            free++;
        if (free == NODE_PORTS)
            return port;
    }
}

static void configure(void) {
    uint16_t port = (uint16_t)(30000 + getpid() % 1000 * 20);
    memset(&config, 0, sizeof config);
    strcpy(config.volume, "fuzz");
    memcpy(config.volume_id, fuzz_volume, 16);
    config.transport = TRANSPORT_CLEAR;
    config.cpu_idle = CPU_IDLE_SLEEP;
    config.history_bytes = 1ull << 30;
    config.lease_ms = 500;
    config.verify_rate = 1u << 30;
    config.node_count = 2;
    for (unsigned i = 0; i < 2; i++, port += NODE_PORTS) {
        struct node_config *node = &config.nodes[i];
        snprintf(node->name, sizeof node->name, "%c", 'a' + (int)i);
        node->number = (uint16_t)(100 + i);
        port = free_ports(port);
        snprintf(node->address, sizeof node->address, "tcp://127.0.0.1:%u", port);
        snprintf(node->store, sizeof node->store, "%s/peer", fuzz_directory());
    }
}

static void begin(void) {
    struct store_options options = fuzz_options();
    char why[1400] = "", path[1100];
    options.commit_ms = 20;
    options.checkpoint_ms = 200;
    memset(&volume, 0, sizeof volume);
    memset(&heard, 0, sizeof heard);
    volume.config = config;
    volume.self = &volume.config.nodes[0];
    image_write(fuzz_template(), volume.self->store);
    register_file_path(volume.self->store, path, sizeof path);
    unlink(path);
    PROMISE(register_file_first(path, NULL, why, sizeof why) == 0);
    PROMISE(store_open(volume.self->store, fuzz_volume, &options, &volume.store, why, sizeof why) == 0);
    volume.park = park_create();
    volume.local = park_create();
    volume_watch(&volume);
    PROMISE(link_open(&config, 1, secrets[1], &liar, why, sizeof why) == 0);
    PROMISE(replicator_start(&volume, why, sizeof why) == 0);
    for (unsigned port = 0; port < LINK_PORTS; port++)
        PROMISE((dialled[port] = link_dial(liar, 0, port, 0, 0)) != NULL);
    inputs = 0;
}

static void say(void *context, const char *sentence) {
    (void)context;
    fprintf(stderr, "finding: %s\n", sentence);
}

static void end(void) {
    for (unsigned port = 0; port < LINK_PORTS; port++)
        link_hang_up(dialled[port]);
    replicator_stop(volume.replicator);
    store_close(volume.store);
    park_free(volume.park);
    park_free(volume.local);
    link_shutdown(liar);
    link_close(liar);
    FUZZ_MUST(check_store(volume.self->store, CHECK_DATA, say, NULL) == 0);
    fuzz_remove(volume.self->store);
}

static void start(void) {
    configure();
    begin();
}

/* ---- Hearing ---- */

static void hear(const struct link_message *message, bool bound, enum link_port port) {
    const struct frame *frame = &message->frame;
    switch (frame->head.type) {
    case WIRE_BEAT:
        heard.position = frame->beat.position;
        heard.value = frame->beat.value;
        memcpy(heard.incarnation, frame->beat.incarnation, 16);
        heard.beats++;
        break;
    case WIRE_LOGIN:
        heard.login = frame->head.session;
        break;
    case WIRE_ASK_COPY:
        heard.ask = frame->ask;
        if (frame->ask.ranges.length)
            memcpy(heard.ranges, frame->ask.ranges.data, frame->ask.ranges.length);
        heard.ask.ranges.data = heard.ranges;
        break;
    default:
        break;
    }
    if (bound && port == LINK_CONTROL)
        heard.control = message->route;
    if (bound && port == LINK_COPY)
        heard.copy = message->route;
}

static void hear_all(void) {
    for (unsigned port = 0; port < LINK_PORTS; port++)
        for (unsigned bound = 0; bound < 2; bound++) {
            struct link_message message;
            int rc;
            for (unsigned i = 0; i < 100; i++) {
                rc = link_receive(liar, bound ? link_bound(liar, port) : dialled[port], bound ? -1 : 0, true, &message);
                if (rc)
                    break;
                hear(&message, bound, port);
                link_message_done(&message);
            }
        }
}

/* ---- Saying ---- */

static void pass(enum link_port port, bool answer, uint64_t session, const uint8_t *bytes, size_t length) {
    struct link_route route = port == LINK_COPY ? heard.copy : port == LINK_RECORDS ? link_route_of(session) : heard.control;
    if (!answer)
        link_send(dialled[port], NULL, bytes, length);
    else if (route.length)
        link_send(link_bound(liar, port), &route, bytes, length);
}

static uint64_t lsn_of(struct script *script) {
    uint32_t choice = script_below(script, 8);
    return choice < 6 ? heard.position.lsn + choice - 2 : choice == 6 ? script_u8(script) : script_number(script);
}

static uint64_t session_of(struct script *script) {
    uint32_t choice = script_below(script, 8);
    return choice < 4 ? heard.login : choice < 7 ? heard.session : script_number(script);
}

static epoch_t epoch_of(struct script *script) {
    uint32_t choice = script_below(script, 8);
    if (choice < 5)
        return heard.value.epoch;
    return choice < 7 ? EPOCH_MAKE(EPOCH_COUNTER(heard.value.epoch) + choice - 4, 101) : script_number(script);
}

static struct wire_position position_of(struct script *script) {
    struct wire_position position = heard.position;
    position.lsn = lsn_of(script);
    if (script_below(script, 4) == 3)
        position.epoch = epoch_of(script);
    if (script_below(script, 2))
        position.chain[0] ^= script_u8(script);
    position.durable = MIN(position.lsn, lsn_of(script));
    position.first = MIN(position.lsn + 1, script_u8(script));
    return position;
}

static struct register_value value_of(struct script *script) {
    struct register_value value = heard.value;
    uint32_t choice = script_below(script, 4);
    if (choice == 0)
        return value;
    value.version += script_below(script, 3);
    value.epoch = epoch_of(script);
    snprintf(value.primary, sizeof value.primary, "%s", choice == 1 ? "b" : choice == 2 ? "a" : "stranger");
    value.member_count = script_below(script, REGISTER_MEMBERS_MAX + 1);
    for (unsigned i = 0; i < value.member_count; i++) {
        struct register_member *member = &value.members[i];
        memset(member, 0, sizeof *member);
        snprintf(member->node, sizeof member->node, "%c", 'a' + (int)script_below(script, 3));
        memcpy(member->incarnation, heard.incarnation, 16);
        member->incarnation[15] ^= script_u8(script) & 1;
    }
    return value;
}

static void text_of(struct script *script, char text[WIRE_TEXT]) {
    struct span bytes = script_bytes(script, script_u16(script) % WIRE_TEXT);
    for (uint32_t i = 0; i < bytes.length && i < WIRE_TEXT - 1; i++)
        text[i] = (char)(' ' + bytes.data[i] % 90);
}

static void ask_of(struct script *script, struct wire_ask_copy *ask) {
    static uint8_t ranges[COPY_RANGES_BYTES];
    *ask = (struct wire_ask_copy){.number = script_u8(script), .kind = 1 + script_below(script, COPY_KIND_END - 1),
                                  .lsn = script_below(script, 2) ? lsn_of(script) : 0};
    memcpy(ask->chain, heard.position.chain, CHAIN_SIZE);
    if (script_below(script, 4))
        memcpy(ask->incarnation, heard.incarnation, 16);
    ask->table = script_below(script, TABLE_SHARED_END + 1);
    struct span key = script_bytes(script, script_below(script, KEY_MAX));
    ask->after.length = (uint16_t)key.length;
    if (key.length)
        memcpy(ask->after.bytes, key.data, key.length);
    ask->place_count = script_below(script, COPY_PLACES_MAX);
    for (unsigned i = 0; i < ask->place_count; i++)
        ask->places[i] = (struct place){(uint32_t)script_number(script), (uint32_t)script_number(script), 1 + script_below(script, 4)};
    ask->data = script_below(script, 2) ? (1ull << 40) + script_u8(script) : script_number(script);
    ask->first = script_number(script);
    ask->count = 1 + script_below(script, COPY_BLOCKS_MAX);
    ask->ranges = (struct span){ranges, 0};
    for (unsigned i = ask->kind == COPY_RANGE ? 1 : ask->kind == COPY_HASHES ? 1 + script_below(script, 8) : 0; i > 0; i--) {
        struct range range = range_of(script_below(script, TABLE_SHARED_END), (1ull << 40) + script_u8(script));
        if (script_below(script, 2))
            range.from.length = range.to.length = 0;
        ask->ranges.length = wire_range_put(ranges, ask->ranges.length, &range);
    }
}

/* A control frame of any type. */
static void say_control(struct script *script, uint8_t type) {
    struct frame frame = {.head = {.type = type, .flags = script_u8(script) & (WIRE_ASK | WIRE_PROBE)}};
    uint8_t bytes[WIRE_CONTROL_MAX];
    frame.head.session = session_of(script);
    frame.head.epoch = epoch_of(script);
    switch (type) {
    case WIRE_LOGIN:
        heard.session = frame.head.session = 1 + script_u8(script);
        frame.login = (struct wire_login){.position = position_of(script), .window = script_number(script)};
        frame.login.incarnation[0] = script_u8(script);
        break;
    case WIRE_ANSWER:
        frame.answer = (struct wire_answer){.verdict = 1 + script_below(script, VERDICT_END - 1), .from = lsn_of(script),
                                            .position = position_of(script), .fork = lsn_of(script)};
        memcpy(frame.answer.fork_chain, heard.position.chain, CHAIN_SIZE);
        text_of(script, frame.answer.text);
        break;
    case WIRE_BEAT:
        frame.beat = (struct wire_beat){.role = script_below(script, 2), .position = position_of(script),
                                        .hold = lsn_of(script), .sent = (int64_t)script_number(script), .value = value_of(script)};
        frame.beat.incarnation[0] = script_u8(script);
        break;
    case WIRE_ACK:
        frame.ack.received = lsn_of(script);
        frame.ack.durable = script_below(script, 2) ? frame.ack.received : MIN(frame.ack.received, lsn_of(script));
        break;
    case WIRE_SWITCH:
        frame.change = (struct wire_switch){.lsn = lsn_of(script), .value = value_of(script)};
        memcpy(frame.change.chain, heard.position.chain, CHAIN_SIZE);
        break;
    case WIRE_ASK_COPY:
        ask_of(script, &frame.ask);
        break;
    default:
        frame.head.type = type == WIRE_SWITCHED ? WIRE_SWITCHED : WIRE_BYE;
        frame.bye.error = script_below(script, 2) ? script_u8(script) : 0;
        text_of(script, frame.bye.text);
    }
    link_fill_head(liar, &frame.head);
    size_t length = wire_encode(&frame, bytes);
    bool answer = script_below(script, 2);
    enum link_port port = type == WIRE_ACK ? LINK_ACKS : type == WIRE_ASK_COPY ? LINK_COPY : LINK_CONTROL;
    if (script_below(script, 16) == 15) {
        port = script_below(script, LINK_PORTS);
        bytes[script_u16(script) % length] ^= script_u8(script); /* garbage, too */
    }
    pass(port, answer && port != LINK_ACKS, frame.head.session, bytes, length);
}

/* Records that follow on what the other one has, and make no sense. */
static void say_records(struct script *script) {
    static uint8_t bytes[64u << 10], record[8192];
    struct frame frame = {.head = {.type = WIRE_RECORDS}, .records = {.first = heard.position.lsn + 1}};
    uint8_t chain[CHAIN_SIZE], *at = bytes + WIRE_RECORDS_HEAD;
    memcpy(chain, heard.position.chain, CHAIN_SIZE);
    frame.head.session = session_of(script);
    frame.head.epoch = epoch_of(script);
    frame.records.want = lsn_of(script);
    if (script_below(script, 8) == 7)
        frame.records.first = lsn_of(script);
    uint32_t count = script_below(script, 5);
    for (; frame.records.count < count; frame.records.count++) {
        static const uint8_t name[] = "abcdefgh";
        struct record made = {.head = {.type = RECORD_EPOCH, .lsn = frame.records.first + frame.records.count,
                                       .epoch = frame.head.epoch, .time = clock_now(), .ino = 0},
                              .name = {name, 1 + script_below(script, 8)}};
        if (script_below(script, 2)) {
            made.head.type = RECORD_CREATE;
            made.head.ino = made.new_data = made.cookie = (EPOCH_COUNTER(frame.head.epoch) << 40) + script_u16(script);
            made.parent = ROOT_INO;
            made.mode = S_IFREG | 0644;
        }
        int length = record_encode(&made, chain, record, sizeof record);
        if (length < 0)
            break;
        memcpy(chain, made.head.chain, CHAIN_SIZE);
        at = wire_record_put(at, (uint32_t)length, 0);
        memcpy(at, record, (size_t)length);
        at += length;
    }
    link_fill_head(liar, &frame.head);
    wire_records_begin(bytes, sizeof bytes, &frame, (size_t)(at - bytes));
    if (script_below(script, 8) == 7 && at > bytes + WIRE_RECORDS_HEAD)
        bytes[WIRE_RECORDS_HEAD + script_u16(script) % (size_t)(at - bytes - (ptrdiff_t)WIRE_RECORDS_HEAD)] ^= script_u8(script);
    pass(LINK_RECORDS, true, frame.head.session, bytes, (size_t)(at - bytes));
}

/* Rows of its own, from where it has asked; one of them changed, perhaps. All of the table: *done. */
struct putting {
    uint8_t *at;
    uint32_t count, damaged;
    struct script *script;
};

static int put_row(void *context, struct span key, struct span value) {
    struct putting *putting = context;
    uint8_t *row = putting->at;
    putting->at = wire_copy_put_row(row, key, value);
    if (putting->count++ == putting->damaged)
        row[WIRE_COPY_ROW_HEAD + script_u16(putting->script) % (key.length + value.length)] ^= script_u8(putting->script);
    return putting->count >= 40;
}

/* The rows of the range that it has asked for, one of them changed, perhaps. */
static uint8_t *range_answer(struct script *script, uint8_t *to, uint32_t *count, bool *done) {
    struct putting putting = {to, 0, script_below(script, 4) == 3 ? script_below(script, 30) : UINT32_MAX, script};
    struct range range;
    uint32_t at = 0;
    if (wire_range_next(&heard.ask.ranges, &at, &range) != 1)
        return to;
    store_lock(volume.store);
    *done = range_rows(volume.store, &range, put_row, &putting) == 0;
    store_unlock(volume.store);
    *count = putting.count;
    return putting.at;
}

static uint8_t *own_rows(struct script *script, uint8_t *at, uint32_t *count, bool *done) {
    struct cursor cursor;
    struct key from = heard.ask.after;
    uint32_t damaged = script_below(script, 4) == 3 ? script_below(script, 30) : UINT32_MAX;
    if (from.length)
        from.bytes[from.length++] = 0;
    store_lock(volume.store);
    int rc = cursor_open(&cursor, volume.store, NULL, heard.ask.table);
    if (rc == 0) {
        for (rc = cursor_seek(&cursor, &from); rc == 0 && *count < 40; rc = cursor_next(&cursor)) {
            uint8_t *row = at;
            at = wire_copy_put_row(at, cursor.key, cursor.value);
            if ((*count)++ == damaged)
                row[WIRE_COPY_ROW_HEAD + script_u16(script) % (cursor.key.length + cursor.value.length)] ^= script_u8(script);
        }
        cursor_close(&cursor);
    }
    store_unlock(volume.store);
    *done = rc == -ENOENT;
    return at;
}

/* An answer to the question that it has asked last. */
static void say_copy(struct script *script) {
    static uint8_t bytes[WIRE_COPY_BYTES];
    struct frame frame = {.head = {.type = WIRE_COPY, .epoch = heard.value.epoch}};
    struct wire_copy *copy = &frame.copy;
    uint8_t *at = bytes + WIRE_COPY_HEAD;
    *copy = (struct wire_copy){.number = heard.ask.number, .kind = heard.ask.kind, .table = heard.ask.table,
                               .lsn = heard.ask.lsn ? heard.ask.lsn : heard.position.lsn + script_u8(script),
                               .epoch = heard.value.epoch, .time = 1};
    if (heard.ask.number == 0)
        return;
    memcpy(copy->chain, heard.ask.lsn ? heard.ask.chain : heard.position.chain, CHAIN_SIZE);
    copy->incarnation[3] = 9;
    if (script_below(script, 8) == 7)
        copy->error = 1 + script_below(script, 140);
    if (script_below(script, 8) == 7)
        copy->lsn = lsn_of(script);
    if (script_below(script, 16) == 15)
        copy->kind = 1 + script_below(script, COPY_KIND_END - 1);
    if (copy->error) {
        text_of(script, copy->text);
    } else if (copy->kind == COPY_ROWS && heard.ask.after.length < KEY_MAX && script_below(script, 8) != 7) {
        at = own_rows(script, at, &copy->count, &copy->done);
        if (copy->done && copy->table == TABLE_EPOCH) { /* and its own epoch */
            struct epoch_row row = {.first = heard.position.lsn + 1};
            struct key key = key_u64(heard.value.epoch);
            memcpy(row.chain, heard.position.chain, CHAIN_SIZE);
            at = wire_copy_put_row(at, (struct span){key.bytes, key.length}, (struct span){(uint8_t *)&row, sizeof row});
            copy->count++;
        }
    } else if (copy->kind == COPY_ROWS) {
        copy->done = script_below(script, 4) != 3;
        for (copy->count = 0; copy->count < 30 && script_below(script, 3); copy->count++) {
            struct key key = script_below(script, 2) ? key_u64(script_number(script)) : key_u64_u64(script_number(script), script_number(script));
            struct span value = script_bytes(script, script_below(script, 130));
            at = wire_copy_put_row(at, (struct span){key.bytes, key.length}, value);
        }
    } else if (copy->kind == COPY_RANGE) {
        at = range_answer(script, at, &copy->count, &copy->done);
    } else if (copy->kind == COPY_HASHES) {
        uint32_t where = 0;
        struct range range;
        for (; copy->count < 100 && wire_range_next(&heard.ask.ranges, &where, &range) == 1; copy->count++) {
            struct wire_copy_hash hash = {.over = script_below(script, 8) == 7};
            uint32_t rows;
            store_lock(volume.store);
            range_hash(volume.store, &range, 100000, hash.hash, &rows);
            store_unlock(volume.store);
            hash.hash[0] ^= script_below(script, 3) == 2; /* they differ: rows are asked for */
            memcpy(at, &hash, sizeof hash);
            at += sizeof hash;
        }
    } else if (copy->kind == COPY_PLACES || copy->kind == COPY_DATA) {
        for (copy->count = 0; copy->count < 8 && script_below(script, 3); copy->count++) {
            bool error = script_below(script, 2);
            uint32_t blocks = error ? 0 : 1 + script_below(script, 4);
            memset(at + WIRE_COPY_BLOCKS_HEAD, script_u8(script), blocks * BATON_BLOCK);
            at = wire_copy_put_blocks(at, error ? -EIO : 0, blocks * BATON_BLOCK);
        }
    }
    copy->bulk = (struct span){bytes + WIRE_COPY_HEAD, (uint32_t)(at - bytes - WIRE_COPY_HEAD)};
    link_fill_head(liar, &frame.head);
    if (copy->kind == COPY_COMPARE) { /* of the state that is there, with its chain */
        copy->lsn = heard.ask.lsn;
        memcpy(copy->chain, heard.ask.chain, CHAIN_SIZE);
    }
    size_t length = wire_copy_finish(bytes, &frame);
    pass(LINK_COPY, script_below(script, 8) != 7, 0, bytes, length);
}

/* ---- Leading it on ---- */

static void send_frame(enum link_port port, bool answer, struct frame *frame) {
    uint8_t bytes[WIRE_CONTROL_MAX];
    link_fill_head(liar, &frame->head);
    pass(port, answer, frame->head.session, bytes, wire_encode(frame, bytes));
}

/* Until `*what` has changed, some ms. */
static bool hear_until_new(const uint64_t *what, uint64_t before, unsigned ms) {
    for (unsigned i = 0; i < ms && *what == before; i++) {
        usleep(1000);
        hear_all();
    }
    return *what != before;
}

/* Says that it is primary in the next epoch; the login that comes is answered, with a verdict of the script's. */
static void lead(struct script *script) {
    uint64_t before = heard.login;
    struct frame beat = {.head = {.type = WIRE_BEAT, .flags = WIRE_ASK}, .beat = {.role = ROLE_PRIMARY, .value = heard.value}};
    struct register_value *value = &beat.beat.value;
    if (EPOCH_COUNTER(value->epoch) >= EPOCH_COUNTER_MAX)
        return;
    value->epoch = beat.head.epoch = EPOCH_MAKE(EPOCH_COUNTER(MAX(value->epoch, heard.position.epoch)) + 1, 101);
    value->version = value->member_count = 1;
    strcpy(value->primary, "b");
    value->members[0] = (struct register_member){.node = "b"};
    beat.beat.position = heard.position;
    beat.beat.position.lsn += script_u8(script);
    send_frame(LINK_CONTROL, false, &beat);
    if (!hear_until_new(&heard.login, before, 100))
        return;
    struct frame answer = {.head = {.type = WIRE_ANSWER, .session = heard.login, .epoch = value->epoch}};
    answer.answer.verdict = 1 + script_below(script, VERDICT_END - 1);
    answer.answer.from = heard.position.lsn + 1;
    answer.answer.position = beat.beat.position;
    answer.answer.fork = answer.answer.verdict == VERDICT_DIVERGED ? lsn_of(script) : 0;
    memcpy(answer.answer.fork_chain, heard.position.chain, CHAIN_SIZE);
    send_frame(LINK_CONTROL, true, &answer);
}

/* What it asks for a full synchronization is answered. */
static void provide(struct script *script) {
    for (unsigned i = script_below(script, 16); i > 0; i--) {
        uint64_t before = heard.ask.number;
        hear_until_new(&heard.ask.number, before, 10);
        say_copy(script);
    }
}

/* ---- The run ---- */

static void work(struct script *script) {
    static const struct caller root = {.umask = 022};
    struct attributes out;
    char name[20], why[WIRE_TEXT];
    uint64_t lsn;
    if (atomic_load(&volume.role) != ROLE_PRIMARY) {
        if (script_below(script, 2))
            replicator_promote(volume.replicator, true, why, sizeof why);
        return;
    }
    if (script_below(script, 4) == 3) {
        struct verify_request request = {.node = 1};
        uint64_t ticket;
        verify_start(volume.replicator, &request, &ticket, why, sizeof why);
    }
    snprintf(name, sizeof name, "made %u", script_u8(script));
    op_create(volume.store, &root, ROOT_INO, name, S_IFREG | 0600, 0, NULL, &out, &lsn);
    store_sync(volume.store, lsn);
}

static void ask_beat(unsigned ms) {
    uint64_t before = heard.beats;
    struct frame frame = {.head = {.type = WIRE_BEAT, .flags = WIRE_ASK}, .beat = {.position = {.first = 1}}};
    send_frame(LINK_CONTROL, false, &frame);
    hear_until_new(&heard.beats, before, ms);
}

/* Logs in where the other one's history ends, as primary, is fed, and acknowledges what the script says. */
static void log_in(struct script *script) {
    char why[WIRE_TEXT];
    if (atomic_load(&volume.role) != ROLE_PRIMARY)
        replicator_promote(volume.replicator, true, why, sizeof why);
    ask_beat(50);
    struct frame login = {.head = {.type = WIRE_LOGIN, .epoch = heard.value.epoch},
                          .login = {.position = heard.position, .window = 1u << 20}};
    login.login.incarnation[0] = 1 + script_u8(script);
    heard.session = login.head.session = 1 + script_u16(script);
    send_frame(LINK_CONTROL, false, &login);
    for (unsigned i = script_below(script, 6); i > 0; i--) {
        work(script);
        ask_beat(20);
        struct frame ack = {.head = {.type = WIRE_ACK, .session = heard.session, .epoch = heard.value.epoch},
                            .ack = {.received = heard.position.lsn}};
        if (script_below(script, 4) == 3)
            ack.ack.received = lsn_of(script);
        ack.ack.durable = script_below(script, 2) ? ack.ack.received : 0;
        send_frame(LINK_ACKS, false, &ack);
    }
}

static void step(struct script *script) {
    uint32_t what = script_below(script, 20);
    if (what == 0)
        work(script);
    else if (what == 16)
        lead(script);
    else if (what == 17)
        provide(script);
    else if (what > 17)
        log_in(script);
    else if (what == 1)
        usleep(script_below(script, 10) * 1000u);
    else if (what < 5)
        say_records(script);
    else if (what < 8)
        say_copy(script);
    else
        say_control(script, (uint8_t)(1 + script_below(script, WIRE_TYPE_END - 1)));
    usleep(200);
    hear_all();
}

/* It answers still. */
static bool answers(void) {
    int64_t deadline = clock_boot() + ANSWER_SECONDS * 1000 * MS;
    for (uint64_t before = heard.beats; heard.beats == before; usleep(500), hear_all()) {
        struct frame frame = {.head = {.type = WIRE_BEAT, .flags = WIRE_ASK}, .beat = {.position = {.first = 1}}};
        if (clock_boot() > deadline)
            return false;
        link_send_frame(liar, dialled[LINK_CONTROL], NULL, &frame);
    }
    return true;
}

static bool one(const uint8_t *bytes, size_t length) {
    struct script script = {bytes, length};
    FUZZ_MUST(answers());
    for (unsigned i = 0; i < STEPS_MAX && script.left > 0; i++)
        step(&script);
    bool good = answers();
    FUZZ_MUST(good);
    if (++inputs >= INPUTS || atomic_load(&volume.renewal.due)) {
        end();
        begin();
    }
    return good;
}

static void seeds(void) {
    static const uint8_t nothing[] = {1, 1}, promote[] = {0, 1, 0, 3};
    static const uint8_t copy[] = {16, 200, VERDICT_TRIMMED - 1, 17, 15}, stream[] = {16, 0, VERDICT_STREAM - 1, 2, 0, 0, 0, 0, 1},
                         rollback[] = {0, 1, 0, 3, 16, 0, VERDICT_DIVERGED - 1, 1}, fed[] = {18, 1, 5, 0, 5, 1, 2, 0, 1, 1, 3, 0, 1};
    fuzz_give("nothing", nothing, sizeof nothing);
    fuzz_give("copy", copy, sizeof copy);
    fuzz_give("stream", stream, sizeof stream);
    fuzz_give("rollback", rollback, sizeof rollback);
    fuzz_give("fed", fed, sizeof fed);
    fuzz_give("promote", promote, sizeof promote);
}

const struct fuzz_harness fuzz_peer = {.name = "peer", .start = start, .one = one, .seeds = seeds};
