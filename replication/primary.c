/* The primary's side. In the good case a record goes out in the thread that applied it: replicator_applied() puts it
 * into the ring and sends it at once, still under the engine lock (about 2 µs; waking a thread for it costs more and
 * adds its own delay). Who falls behind is fed in larger frames from the ring, then by the feeder from the journal.
 */
#include "replication/parts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static uint32_t payload_of(const struct entry *entry) {
    struct record_head head;
    memcpy(&head, entry->bytes, sizeof head);
    return head.payload;
}

static size_t room_for(const struct entry *entry) {
    return WIRE_RECORD_HEAD + entry->length + payload_of(entry);
}

/* ---- The ring -------------------------------------------------------------------------------------------------------- */

static struct entry *ring_at(const struct replicator *r, uint64_t lsn) {
    return lsn >= r->ring_first && lsn <= r->position.lsn ? r->ring[lsn % RING_ENTRIES] : NULL;
}

static void ring_drop_first(struct replicator *r) {
    struct entry **slot = &r->ring[r->ring_first % RING_ENTRIES];
    r->ring_bytes -= (*slot)->length + ((*slot)->payload ? payload_of(*slot) : 0);
    entry_put(*slot);
    *slot = NULL;
    r->ring_first++;
}

void primary_ring_clear(struct replicator *r) {
    while (r->ring_first <= r->position.lsn)
        ring_drop_first(r);
}

/* What every peer that is being fed has been sent is not needed any more. */
static void ring_trim(struct replicator *r) {
    uint64_t needed = r->position.lsn + 1;
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].feed.state == FEED_STREAMING)
            needed = MIN(needed, r->peers[i].feed.next);
    while (r->ring_first < needed)
        ring_drop_first(r);
}

static void ring_push(struct replicator *r, struct entry *entry) {
    uint64_t bytes = entry->length + (entry->payload ? payload_of(entry) : 0);
    while (r->ring_first < entry->lsn &&
           (entry->lsn - r->ring_first >= RING_ENTRIES || r->ring_bytes + bytes > RING_BYTES))
        ring_drop_first(r);
    r->ring[entry->lsn % RING_ENTRIES] = entry_get(entry);
    r->ring_bytes += bytes;
}

/* ---- Sending --------------------------------------------------------------------------------------------------------- */

/* First the route, so that nothing is copied for a peer that is not there. False: blocked. */
static bool send_route(struct replicator *r, struct peer *peer) {
    struct link_route route = link_route_of(peer->feed.session);
    void *socket = link_bound(r->link, LINK_RECORDS);
    if (zmq_send(socket, route.bytes, route.length, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        return true;
    peer->blocked = true;
    return false;
}

static void fill_frame(struct replicator *r, const struct peer *peer, struct frame *frame, uint64_t first,
                       uint32_t count) {
    memset(&frame->head, 0, sizeof frame->head);
    link_fill_head(r->link, &frame->head);
    frame->head.session = peer->feed.session;
    frame->head.epoch = r->value.epoch;
    frame->records = (struct wire_records){.first = first, .count = count, .want = peer->feed.want};
}

static void send_body(struct replicator *r, zmq_msg_t *message) {
    /* Its route has been taken: the body cannot be refused. */
    while (zmq_msg_send(message, link_bound(r->link, LINK_RECORDS), ZMQ_DONTWAIT) < 0)
        if (errno != EINTR) {
            zmq_msg_close(message);
            break;
        }
}

/* Sends a frame of records first … first + count - 1, all in the ring with their data in memory. */
static bool send_from_ring(struct replicator *r, struct peer *peer, uint64_t first, uint32_t count, size_t total) {
    if (!send_route(r, peer))
        return false;
    zmq_msg_t message;
    PROMISE(zmq_msg_init_size(&message, total) == 0);
    struct frame frame;
    uint8_t *at = zmq_msg_data(&message);
    fill_frame(r, peer, &frame, first, count);
    wire_records_begin(at, total, &frame, total);
    at += WIRE_RECORDS_HEAD;
    for (uint32_t i = 0; i < count; i++) {
        const struct entry *entry = r->ring[(first + i) % RING_ENTRIES];
        uint32_t payload = payload_of(entry);
        at = wire_record_put(at, entry->length, payload);
        memcpy(at, entry->bytes, entry->length);
        if (payload)
            memcpy(at + entry->length, entry->payload, payload);
        at += entry->length + payload;
    }
    send_body(r, &message);
    peer->feed.want_sent = peer->feed.want;
    if (count) {
        feed_sent(&peer->feed, first + count - 1, total);
        catchup_sent(&peer->catchup, first, first + count - 1, total - WIRE_RECORDS_HEAD);
    }
    return true;
}

/* How many records from the ring make the next frame; 0: the next one is not there, or its data is not. */
static uint32_t measure_batch(const struct replicator *r, uint64_t first, size_t *total) {
    uint32_t count = 0;
    *total = WIRE_RECORDS_HEAD;
    while (count < WIRE_RECORDS_MAX && *total < SEND_NOW_BYTES) {
        const struct entry *entry = ring_at(r, first + count);
        if (!entry || (!entry->payload && payload_of(entry) > 0))
            break;
        *total += room_for(entry);
        count++;
    }
    return count;
}

static void pump_peer(struct replicator *r, struct peer *peer) {
    struct feed *feed = &peer->feed;
    while (feed->state == FEED_STREAMING && !peer->busy && !peer->blocked) {
        size_t total = WIRE_RECORDS_HEAD;
        uint32_t count = 0;
        if (feed->next <= r->position.lsn) {
            count = measure_batch(r, feed->next, &total);
            if (count == 0 && feed_may_send(feed, WIRE_BATCH_BYTES)) {
                pthread_cond_signal(&r->feed_work);
                return;
            }
            if (count > 0 && !feed_may_send(feed, total))
                count = 0;
            if (total < SEND_NOW_BYTES && feed->sent_count >= FRAMES_AT_ONCE && feed->want <= feed->want_sent)
                return; /* the next acknowledgement sends it, with what has come together by then */
        }
        if (count == 0 && feed->want <= feed->want_sent)
            return;
        if (count == 0)
            total = WIRE_RECORDS_HEAD;
        if (!send_from_ring(r, peer, feed->next, count, total))
            return;
    }
}

void primary_pump(struct replicator *r) {
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].feed.state == FEED_STREAMING)
            pump_peer(r, &r->peers[i]);
    ring_trim(r);
}

void replicator_applied(struct replicator *r, struct entry *entry) {
    struct record_head head;
    memcpy(&head, entry->bytes, sizeof head);
    repl_lock(r);
    if (r->calm)
        calm_end(r, clock_boot());
    if (r->role == ROLE_PRIMARY)
        ring_push(r, entry);
    r->position.lsn = head.lsn;
    r->position.epoch = head.epoch;
    memcpy(r->position.chain, head.chain, CHAIN_SIZE);
    r->total += room_for(entry);
    if (r->role == ROLE_PRIMARY) {
        acks_own_received(&r->acks, head.lsn);
        primary_pump(r);
    } else {
        r->ring_first = head.lsn + 1;
    }
    repl_unlock(r);
}

void replicator_need(struct replicator *r, enum park_line line, uint64_t lsn) {
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY, own_disk = line == PARK_DURABLE || acks_alone(&r->acks);
    bool news = false;
    if (r->calm && r->position.durable < lsn)
        calm_end(r, clock_boot());
    if (primary && line == PARK_DURABLE)
        for (unsigned i = 0; i < r->count; i++) {
            struct feed *feed = &r->peers[i].feed;
            if (feed->state == FEED_STREAMING && feed->want < lsn) {
                feed->want = lsn;
                news = true;
            }
        }
    if (news)
        primary_pump(r);
    if (primary && own_disk)
        r->own_wanted = MAX(r->own_wanted, lsn);
    repl_unlock(r);
    if (primary && own_disk)
        store_want_durable(r->store, lsn);
}

/* ---- The feeder ------------------------------------------------------------------------------------------------------ */

struct batch {
    struct entry *entries[WIRE_RECORDS_MAX];
    uint32_t count;
    size_t total;
};

static void batch_free(struct batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++)
        entry_put(batch->entries[i]);
    batch->count = 0;
}

static int fetch(struct replicator *r, uint64_t lsn, struct entry **entry) {
    repl_lock(r);
    struct entry *found = ring_at(r, lsn);
    if (found)
        entry_get(found);
    repl_unlock(r);
    *entry = found;
    return found ? 0 : store_read(r->store, lsn, entry);
}

static int collect(struct replicator *r, uint64_t first, uint64_t last, struct batch *batch) {
    batch->count = 0;
    batch->total = WIRE_RECORDS_HEAD;
    while (batch->count < WIRE_RECORDS_MAX && batch->total < WIRE_BATCH_BYTES && first + batch->count <= last) {
        struct entry *entry;
        int rc = fetch(r, first + batch->count, &entry);
        if (rc)
            return batch->count ? 0 : rc;
        batch->entries[batch->count++] = entry;
        batch->total += room_for(entry);
    }
    return 0;
}

/* Data is read straight into the message. */
static int make_message(struct replicator *r, const struct batch *batch, zmq_msg_t *message) {
    if (zmq_msg_init_size(message, batch->total) < 0)
        return -ENOMEM;
    uint8_t *at = (uint8_t *)zmq_msg_data(message) + WIRE_RECORDS_HEAD;
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct entry *entry = batch->entries[i];
        uint32_t payload = payload_of(entry);
        at = wire_record_put(at, entry->length, payload);
        memcpy(at, entry->bytes, entry->length);
        int rc = entry_payload(r->store, entry, at + entry->length);
        if (rc) {
            zmq_msg_close(message);
            return rc;
        }
        at += entry->length + payload;
    }
    return 0;
}

/* One frame for one peer; called with the lock, which is let go meanwhile (`busy` keeps others from sending). */
static void feed_one(struct replicator *r, unsigned node, struct batch *batch) {
    struct peer *peer = &r->peers[node];
    uint64_t session = peer->feed.session, first = peer->feed.next, last = r->position.lsn;
    zmq_msg_t message;
    peer->busy = true;
    repl_unlock(r);
    int rc = collect(r, first, last, batch);
    if (rc == 0)
        rc = make_message(r, batch, &message);
    repl_lock(r);
    peer->busy = false;
    bool same = peer->feed.state == FEED_STREAMING && peer->feed.session == session;
    if (rc && same)
        primary_end_session(r, node, "record %" PRIu64 " cannot be read for it: %s", first, strerror(-rc));
    if (rc == 0 && same && send_route(r, peer)) {
        struct frame frame;
        fill_frame(r, peer, &frame, first, batch->count);
        wire_records_begin(zmq_msg_data(&message), batch->total, &frame, batch->total);
        send_body(r, &message);
        peer->feed.want_sent = peer->feed.want;
        feed_sent(&peer->feed, first + batch->count - 1, batch->total);
        catchup_sent(&peer->catchup, first, first + batch->count - 1, batch->total - WIRE_RECORDS_HEAD);
    } else if (rc == 0) {
        zmq_msg_close(&message);
    }
    batch_free(batch);
}

static int next_to_feed(const struct replicator *r, unsigned after) {
    for (unsigned step = 1; step <= r->count; step++) {
        unsigned node = (after + step) % r->count;
        const struct peer *peer = &r->peers[node];
        size_t total;
        if (peer->feed.state == FEED_STREAMING && !peer->busy && !peer->blocked &&
            peer->feed.next <= r->position.lsn && feed_may_send(&peer->feed, WIRE_BATCH_BYTES) &&
            measure_batch(r, peer->feed.next, &total) == 0)
            return (int)node;
    }
    return -1;
}

void *primary_feeder(void *argument) {
    struct replicator *r = argument;
    struct batch *batch = calloc(1, sizeof *batch);
    unsigned last = 0;
    PROMISE(batch);
    repl_lock(r);
    while (!atomic_load(&r->stopping)) {
        int node = r->role == ROLE_PRIMARY ? next_to_feed(r, last) : -1;
        if (node < 0) {
            repl_sleep(r, &r->feed_work, 10000 * MS);
            continue;
        }
        last = (unsigned)node;
        feed_one(r, last, batch);
        primary_pump(r);
    }
    repl_unlock(r);
    free(batch);
    return NULL;
}

/* ---- Acknowledgements ------------------------------------------------------------------------------------------------ */

void primary_lines(struct replicator *r, uint64_t lines[PARK_LINES]) {
    lines[PARK_RECEIVED] = acks_line(&r->acks, PARK_RECEIVED);
    lines[PARK_DURABLE] = acks_line(&r->acks, PARK_DURABLE);
}

void primary_advance(struct replicator *r, const uint64_t lines[PARK_LINES]) {
    for (enum park_line line = 0; line < PARK_LINES; line++)
        if (lines[line] > park_position(r->volume->park, line))
            park_advance(r->volume->park, line, lines[line]);
}

void replicator_durable(struct replicator *r) {
    uint64_t lines[PARK_LINES];
    repl_lock(r);
    /* The store's word now, not what was true when this call was made: two threads tell it, in any order. */
    uint64_t lsn = store_durable(r->store);
    if (lsn > r->position.lsn) { /* told before a rollback, heard after it */
        repl_unlock(r);
        return;
    }
    atomic_store(&r->durable, lsn);
    r->position.durable = lsn;
    bool primary = r->role == ROLE_PRIMARY;
    if (primary) {
        acks_own_durable(&r->acks, lsn);
        primary_lines(r, lines);
    }
    repl_unlock(r);
    if (primary)
        primary_advance(r, lines);
    else
        standby_ack(r);
}

void primary_end_session(struct replicator *r, unsigned node, const char *format, ...) {
    struct peer *peer = &r->peers[node];
    char why[WIRE_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    if (peer->feed.state == FEED_STREAMING)
        log_info("node %s is no longer fed: %s", peer->node->name, why);
    feed_end(&peer->feed, "%s", why);
    catchup_end(&peer->catchup);
    acks_forget(&r->acks, node);
    if (peer->joining) /* what it had of the log counts in its session only */
        set_withdraw(r);
    peer->joining = peer->blocked = false;
    ring_trim(r);
    keep_wake(r);
    pthread_cond_broadcast(&r->news);
}

static void take_ack(struct replicator *r, const struct link_message *message) {
    const struct frame *frame = &message->frame;
    uint64_t lines[PARK_LINES];
    repl_lock(r);
    struct peer *peer = &r->peers[message->node];
    if (r->role != ROLE_PRIMARY || frame->head.epoch != r->value.epoch || frame->head.type != WIRE_ACK) {
        repl_unlock(r);
        return;
    }
    int rc = feed_ack(&peer->feed, frame->head.session, &frame->ack, clock_boot());
    if (rc == -EBADMSG)
        primary_end_session(r, message->node, "it acknowledged what it cannot have (LSN %" PRIu64 ")",
                            frame->ack.received);
    if (rc) {
        repl_unlock(r);
        return;
    }
    if (peer->feed.received > peer->took) {
        peer->took = peer->feed.received;
        peer->took_at = clock_boot();
        peer->sessions_since = 0;
    }
    roles_count_ack(r, message->node);
    primary_lines(r, lines);
    if (peer->feed.next <= r->position.lsn)
        primary_pump(r);
    if (peer->joining && peer->feed.durable >= peer->join_lsn)
        keep_wake(r);
    pthread_cond_broadcast(&r->news);
    repl_unlock(r);
    primary_advance(r, lines);
}

void *primary_acknowledger(void *argument) {
    struct replicator *r = argument;
    void *socket = link_bound(r->link, LINK_ACKS);
    while (!atomic_load(&r->stopping)) {
        struct link_message message;
        int rc = link_receive(r->link, socket, -1, false, &message);
        if (rc == -ETERM)
            break;
        if (rc)
            continue;
        take_ack(r, &message);
        link_message_done(&message);
    }
    return NULL;
}

/* ---- Logins ---------------------------------------------------------------------------------------------------------- */

/* Where the histories part at the latest: before the first epoch of ours that is newer than the peer's last record. Takes
 * the engine lock. 0: there is none. */
static uint64_t find_fork(struct replicator *r, epoch_t epoch, uint8_t chain[CHAIN_SIZE]) {
    struct cursor cursor;
    struct epoch_row row = {0};
    struct key after = key_u64(epoch + 1);
    store_lock(r->store);
    if (cursor_open(&cursor, r->store, NULL, TABLE_EPOCH) == 0) {
        if (cursor_seek(&cursor, &after) == 0 && cursor.value.length == sizeof row)
            memcpy(&row, cursor.value.data, sizeof row);
        cursor_close(&cursor);
    }
    store_unlock(r->store);
    memcpy(chain, row.chain, CHAIN_SIZE);
    return row.first ? row.first - 1 : 0;
}

void primary_look_for_login(struct replicator *r, const struct wire_login *login, struct login_ground *ground) {
    *ground = (struct login_ground){0};
    repl_lock(r);
    ground->primary = r->role == ROLE_PRIMARY && !r->changing;
    ground->epoch = r->value.epoch;
    repl_unlock(r);
    struct position own;
    store_position(r->store, &own);
    ground->known = login->position.lsn <= own.lsn && store_chain_at(r->store, login->position.lsn, ground->chain) == 0;
    ground->own = (struct wire_position){.lsn = own.lsn, .epoch = own.epoch, .durable = own.durable, .first = own.first};
    memcpy(ground->own.chain, own.chain, CHAIN_SIZE);
    ground->fork = find_fork(r, login->position.epoch, ground->fork_chain);
    ground->average = ground->known ? slow_average(r, login->position.lsn + 1, own.lsn) : 0;
}

static void let_in(struct replicator *r, const struct link_message *message, const struct login_ground *ground,
                   struct wire_answer *answer) { /* lock held */
    struct peer *peer = &r->peers[message->node];
    enum feed_state before = peer->feed.state;
    uint64_t session = peer->feed.session;
    struct feed_ground of_feed = {.chain_at = ground->known ? ground->chain : NULL, .own = ground->own};
    if (before == FEED_STREAMING && session != message->frame.head.session)
        primary_end_session(r, message->node, "it logs in anew");
    feed_login(&peer->feed, message->frame.head.session, &message->frame.login, &of_feed, clock_boot(), answer);
    if (answer->verdict == VERDICT_DIVERGED) {
        answer->fork = ground->fork;
        memcpy(answer->fork_chain, ground->fork_chain, CHAIN_SIZE);
    }
    peer->route = message->route;
    peer->left = 0;
    peer->beat.flags &= ~BEAT_LEAVES;
    peer->blocked = false;
    if (peer->feed.state == FEED_STREAMING && session != peer->feed.session) {
        peer->took = MIN(peer->took, peer->feed.received); /* undone there, or another store */
        peer->sessions_since++;
        roles_count_ack(r, message->node);
        slow_begin(r, message->node, ground->average);
        log_info("node %s is fed from LSN %" PRIu64, peer->node->name, peer->feed.next);
    } else if (peer->feed.state == FEED_REFUSED && before != FEED_REFUSED) {
        log_warning("node %s cannot be fed: %s", peer->node->name, peer->feed.why);
    }
}

void primary_answer_login(struct replicator *r, const struct link_message *message, const struct login_ground *ground) {
    struct frame reply = {.head = {.type = WIRE_ANSWER, .session = message->frame.head.session}};
    repl_lock(r);
    reply.head.epoch = r->value.epoch;
    /* In another epoch the store may have another history than the one that was looked at. */
    if (r->role != ROLE_PRIMARY || r->changing || !ground->primary || ground->epoch != r->value.epoch ||
        message->frame.head.session == 0) {
        reply.answer.verdict = VERDICT_NOT_PRIMARY;
        snprintf(reply.answer.text, WIRE_TEXT, "node %s is not primary", r->config->nodes[r->self].name);
    } else if (set_puts_out(r, message->node)) {
        /* What is said of the set in this session would be over in a moment, and it may be cut off before it hears that. */
        reply.answer.verdict = VERDICT_NOT_PRIMARY;
        snprintf(reply.answer.text, WIRE_TEXT, "this store is being put out of the set; after that it is fed");
    } else if (spare_refused(r, message->node)) {
        reply.answer.verdict = VERDICT_REFUSED;
        snprintf(reply.answer.text, WIRE_TEXT, "it is the spare, and is fed when another node has been away for long");
    } else {
        let_in(r, message, ground, &reply.answer);
    }
    reply.answer.position = r->position;
    reply.answer.position.first = MIN(ground->own.first, reply.answer.position.lsn + 1);
    link_send_frame(r->link, link_bound(r->link, LINK_CONTROL), &message->route, &reply);
    pthread_cond_broadcast(&r->news);
    keep_wake(r);
    primary_pump(r);
    repl_unlock(r);
}

void primary_login(struct replicator *r, struct link_message *message) {
    struct login_ground ground;
    primary_look_for_login(r, &message->frame.login, &ground);
    primary_answer_login(r, message, &ground);
}
