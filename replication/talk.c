/* Control: one thread, one socket bound and one to every other node. Every node sends every other one a heartbeat that
 * asks for one back; so each knows who lives, who is primary, in which epoch, how far, and which register value is the
 * newest. Logins, their answers and the switchover's two words travel here too.
 */
#include "fs/front.h"
#include "replication/parts.h"

#include <config.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#define TICK_MS 20

void talk_wake(struct replicator *r) {
    uint64_t one = 1;
    ssize_t done = write(r->wake, &one, sizeof one); /* full only when it is readable already */
    (void)done;
}

void talk_post(struct replicator *r, unsigned node, const struct frame *frame) {
    if (r->outbox_count == OUTBOX) /* what it says is said again by a retry or by a heartbeat */
        return;
    struct letter *letter = &r->outbox[r->outbox_count++];
    letter->node = node;
    letter->frame = *frame;
    talk_wake(r);
}

void talk_beat(struct replicator *r, struct frame *frame, uint64_t session) {
    memset(frame, 0, sizeof *frame);
    atomic_fetch_add(&r->beats, 1);
    frame->head.type = WIRE_BEAT;
    frame->head.session = session;
    frame->head.epoch = r->value.epoch;
    frame->beat.role = r->changing || !candidate_holds(r) ? ROLE_STANDBY : r->role;
    frame->beat.position = r->position;
    roles_hold(r, &frame->beat.hold);
    frame->beat.sent = clock_boot();
    frame->beat.value = r->value;
    memcpy(frame->beat.incarnation, r->incarnation, 16);
    frame->beat.flags = (r->stays ? BEAT_STAYS : 0) | (r->leaving || r->lacks_disk ? BEAT_LEAVES : 0) | (r->unsure ? BEAT_UNSURE : 0) |
                        (r->service_broken ? BEAT_BROKEN : 0) | (store_stalled(r->store, MAX(r->lease, SICK_LEAST)) ? BEAT_SICK : 0);
    snprintf(frame->beat.program, sizeof frame->beat.program, "%s", PACKAGE_VERSION);
}

/* Over the connection on which the node was heard last, if it is there, else over our own to it (which may be waiting
 * to be made again). Questions of a standby go over its own alone: who is asked looks for them on its bound socket.
 * lock held */
static void send_to(struct replicator *r, unsigned node, struct frame *frame) {
    struct peer *peer = &r->peers[node];
    if (frame->head.type != WIRE_LOGIN) {
        void *bound = link_bound(r->link, LINK_CONTROL);
        if (peer->route.length && link_send_frame(r->link, bound, &peer->route, frame) == 0)
            return;
        peer->route.length = 0;
    }
    link_send_frame(r->link, peer->dealer, NULL, frame);
}

static bool in_session(const struct follow *follow) {
    return follow->state == FOLLOW_LOGIN || follow->state == FOLLOW_STREAMING;
}

/* The session that this node and that one share, whichever feeds. */
static uint64_t session_with(const struct replicator *r, unsigned node) {
    if (in_session(&r->follow) && r->follow.primary == node)
        return r->follow.session;
    return r->peers[node].feed.state == FEED_STREAMING ? r->peers[node].feed.session : 0;
}

/* ---- What arrives ---------------------------------------------------------------------------------------------------- */

static void send_login(struct replicator *r) { /* lock held */
    struct frame frame = {.head = {.type = WIRE_LOGIN, .session = r->follow.session, .epoch = r->value.epoch},
                          .login = {.position = r->position, .window = FEED_WINDOW_BYTES}};
    memcpy(frame.login.incarnation, r->incarnation, 16);
    link_send_frame(r->link, r->peers[r->follow.primary].dealer, NULL, &frame);
}

static void begin_session(struct replicator *r, unsigned node, epoch_t epoch) { /* lock held */
    uint64_t session = 0;
    while (session == 0)
        PROMISE(getrandom(&session, sizeof session, 0) == sizeof session);
    follow_login(&r->follow, node, epoch, session, r->position.lsn + 1, clock_boot());
    standby_kick(r);
    send_login(r);
}

/* While the receiver still works for an older session, the position is not final. */
static bool receiver_idle(const struct replicator *r) {
    return r->receiving == 0;
}

static void hear_beat(struct replicator *r, const struct link_message *message) { /* lock held */
    const struct wire_beat *beat = &message->frame.beat;
    uint64_t session = message->frame.head.session;
    struct peer *peer = &r->peers[message->node];
    int64_t now = clock_boot();
    peer->known = true;
    peer->heard = now;
    fencing_heard(r, message->node);
    if (beat->role == ROLE_PRIMARY)
        r->primary_left = false;
    if (beat->flags != peer->beat.flags)
        keep_wake(r);
    peer->beat = *beat;
    if (peer->feed.state == FEED_STREAMING && session != peer->feed.session) /* said before it logged in */
        peer->beat.flags &= ~BEAT_LEAVES;
    peer->features = message->frame.head.features;
    peer->version = message->frame.head.version_max;
    peer->unfit[0] = '\0';
    feed_heard(&peer->feed, session, now);
    bool present = follow_heard(&r->follow, message->node, session, now);
    bool word = present && beat->role == ROLE_PRIMARY;
    if (word && register_compare(&beat->value, &r->value) == 0)
        r->set_heard = true;
    if (beat->role == ROLE_PRIMARY && beat->value.epoch >= r->value.epoch)
        elect_heard(&r->elect, now);
    if (present)
        follow_behind(&r->follow, beat->position.lsn, now);
    if (register_compare(&beat->value, &r->value) > 0 &&
        (!r->value_heard || register_compare(&beat->value, &r->heard_value) > 0)) {
        /* A primary's own set in its own epoch is nobody else's to change. */
        if (r->role == ROLE_STANDBY || beat->value.epoch > r->value.epoch) {
            r->heard_value = beat->value;
            r->heard_from = message->node;
            r->heard_word = word;
            r->value_heard = true;
            if (r->role == ROLE_PRIMARY)
                acks_stop(&r->acks); /* at once; the rest of stepping down is the keeper's */
            keep_wake(r);
        }
    }
    /* First the session that is void now ends; the next one begins when the receiver has let go of it, at the primary's
     * next word (which the receiver asks for). */
    if (r->role == ROLE_STANDBY && !r->changing && !r->leaving && !r->lacks_room && !r->lacks_disk &&
        beat->role == ROLE_PRIMARY && beat->value.epoch >= r->value.epoch &&
        follow_primary(&r->follow, message->node, beat->value.epoch, now)) {
        if (receiver_idle(r))
            begin_session(r, message->node, beat->value.epoch);
        else
            standby_kick(r);
    }
    pthread_cond_broadcast(&r->news);
}

static void hear_bye(struct replicator *r, const struct link_message *message) { /* lock held */
    uint64_t session = message->frame.head.session;
    struct peer *peer = &r->peers[message->node];
    if (peer->feed.state == FEED_STREAMING && peer->feed.session == session && session) {
        peer->left = clock_boot();
        primary_end_session(r, message->node, "it said: %s", message->frame.bye.text);
    } else if (in_session(&r->follow) && r->follow.session == session && r->follow.primary == message->node) {
        follow_end(&r->follow, clock_boot(), "the primary said: %s", message->frame.bye.text);
        elect_freed(&r->elect);
        r->primary_left = true;
        keep_wake(r);
    }
}

static void hear_stranger(struct replicator *r, const struct link_message *message) {
    struct peer *peer = &r->peers[message->node];
    repl_lock(r);
    peer->version = message->frame.head.version_max;
    wire_why_unfit(&message->frame.head, peer->unfit, sizeof peer->unfit);
    repl_unlock(r);
}

/* As long as that node asks in time, this one need not: each has the other's word, in one question and one answer. */
static void answered(struct replicator *r, unsigned node) { /* lock held */
    int64_t every = calm_beats(r), later = clock_boot() + every + every / 4;
    if (r->follow.state != FOLLOW_SEARCHING)
        r->peers[node].beat_due = MAX(r->peers[node].beat_due, later);
}

static void handle(struct replicator *r, struct link_message *message, bool bound) {
    const struct frame *frame = &message->frame;
    if (frame->head.type == WIRE_LOGIN) {
        if (bound && (frame->head.flags & WIRE_PROBE))
            rollback_probe(r, message);
        else if (bound)
            primary_login(r, message);
        return;
    }
    repl_lock(r);
    if (bound)
        r->peers[message->node].route = message->route;
    switch (frame->head.type) {
    case WIRE_BEAT:
        hear_beat(r, message);
        if (frame->head.flags & WIRE_ASK) {
            struct frame reply;
            talk_beat(r, &reply, session_with(r, message->node));
            int rc = bound ? link_send_frame(r->link, link_bound(r->link, LINK_CONTROL), &message->route, &reply)
                           : link_send_frame(r->link, r->peers[message->node].dealer, NULL, &reply);
            if (rc == 0)
                answered(r, message->node);
        }
        break;
    case WIRE_ANSWER:
        if (frame->head.flags & WIRE_PROBE) {
            rollback_answer(r, frame);
        } else if (follow_answer(&r->follow, message->node, frame->head.session, &frame->answer, clock_boot()) == 0) {
            if (r->follow.state == FOLLOW_REFUSED && strcmp(r->refusal, r->follow.why) != 0) {
                log_warning("node %s does not feed this store: %s", r->peers[message->node].node->name, r->follow.why);
                memcpy(r->refusal, r->follow.why, sizeof r->refusal);
            }
            if (r->follow.state == FOLLOW_REFUSED && r->follow.verdict == VERDICT_TRIMMED)
                sync_want(r, message->node);
            else if (r->follow.state != FOLLOW_REFUSED || r->follow.verdict != VERDICT_DIVERGED)
                sync_unwant(r);
            if (r->follow.state == FOLLOW_REFUSED)
                keep_wake(r);
            pthread_cond_broadcast(&r->news);
        }
        break;
    case WIRE_BYE:
        hear_bye(r, message);
        break;
    case WIRE_SWITCH:
        r->switch_asked = frame->change;
        r->switch_from = message->node;
        r->switch_heard = true;
        keep_wake(r);
        break;
    case WIRE_SWITCHED:
        if (r->switch_told && frame->head.epoch == r->switch_told && message->node == r->switch_to) {
            r->switch_answer = frame->switched;
            r->switch_answered = true;
            pthread_cond_broadcast(&r->news);
        }
        break;
    default:
        break;
    }
    repl_unlock(r);
}

/* Everything that waits at one socket, but not for ever. */
static void drain(struct replicator *r, void *socket, int expected) {
    for (unsigned i = 0; i < 64; i++) {
        struct link_message message;
        int rc = link_receive(r->link, socket, expected, true, &message);
        if (rc == -EPROTO)
            hear_stranger(r, &message);
        if (rc == -EBADMSG || rc == -EPROTO)
            continue;
        if (rc)
            break;
        handle(r, &message, expected < 0);
        link_message_done(&message);
    }
}

/* ---- What goes out --------------------------------------------------------------------------------------------------- */

static void send_letters(struct replicator *r) { /* lock held */
    for (unsigned i = 0; i < r->outbox_count; i++)
        send_to(r, r->outbox[i].node, &r->outbox[i].frame);
    r->outbox_count = 0;
    pthread_cond_broadcast(&r->news);
}

static void send_beats(struct replicator *r, int64_t now) { /* lock held */
    int64_t every = calm_beats(r), most = r->follow.state == FOLLOW_SEARCHING ? every : every + every / 4;
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        peer->beat_due = MIN(peer->beat_due, now + most); /* the last one may have been of calmer times */
        if (i == r->self || (!r->beat_now && now < peer->beat_due))
            continue;
        struct frame frame;
        talk_beat(r, &frame, session_with(r, i));
        frame.head.flags = WIRE_ASK;
        send_to(r, i, &frame);
        peer->beat_due = now + every;
    }
    r->beat_now = false;
}

/* What a peer owes counts while this process runs and its own store works. */
static void look_at_feeds(struct replicator *r, int64_t now) {
    int64_t still = now - r->looked > r->lease / 4 ? now - r->looked : 0;
    r->looked = now;
    r->own_at = MIN(r->own_at + still, now);
    if (r->position.durable >= MIN(r->own_wanted, r->position.lsn) || r->position.durable > r->own_had)
        r->own_at = now;
    r->own_had = r->position.durable;
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        if (peer->feed.state != FEED_STREAMING)
            continue;
        feed_stood_still(&peer->feed, still, now);
        if (peer->busy && peer->feed.sent_count == 0) /* this node reads, and it has nothing to acknowledge */
            peer->feed.received_at = now;
        feed_look(&peer->feed, r->position.lsn, now);
    }
}

static void check_feeds(struct replicator *r, int64_t now) { /* lock held */
    look_at_feeds(r, now);
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        if (peer->feed.state != FEED_STREAMING)
            continue;
        if (peer->feed.received >= r->position.lsn) {
            peer->took_at = now;
            peer->sessions_since = 0;
        }
        if (now - peer->feed.heard > r->lease)
            primary_end_session(r, i, "it was silent for %" PRId64 " ms", (now - peer->feed.heard) / MS);
        else if (feed_stuck(&peer->feed, now, STUCK_LEASES * r->lease))
            primary_end_session(r, i, "it lives, but has acknowledged nothing for %" PRId64 " s",
                                (now - peer->feed.progress) / (1000 * MS));
        peer->blocked = false; /* tried again */
    }
    slow_consider(r, now);
    primary_pump(r);
}

static void tick(struct replicator *r) {
    int64_t now = clock_boot();
    repl_lock(r);
    link_discard(link_bound(r->link, LINK_RECORDS));
    standby_look_at_disk(r);
    send_letters(r);
    if (r->role == ROLE_PRIMARY)
        check_feeds(r, now);
    enum follow_todo todo = follow_tick(&r->follow, now);
    if (todo == FOLLOW_SEND_LOGIN)
        send_login(r);
    uint64_t work = r->position.lsn + (r->volume->front ? front_requests(r->volume->front) : 0);
    send_beats(r, now);
    calm_look(r, now, r->awake.fd >= 0);
    bool ack = now >= r->ack_due;
    if (ack)
        r->ack_due = now + (r->calm ? r->lease / 2 : r->beat_every);
    repl_unlock(r);
    if (r->config->cpu_idle == CPU_IDLE_AUTO)
        awake_tick(&r->awake, work, now);
    if (ack) { /* durable positions are told now and then, whoever waits for them or not; one that was lost is told again */
        PROMISE(pthread_mutex_lock(&r->ack_lock) == 0);
        r->ack_wanted = MAX(r->ack_wanted, r->ack_durable_told + 1);
        PROMISE(pthread_mutex_unlock(&r->ack_lock) == 0);
        standby_ack(r);
    }
}

/* When the next tick is to come, if no message comes before. */
static int64_t next_tick(struct replicator *r, int64_t ticked) {
    int64_t now = clock_boot();
    repl_lock(r);
    if (r->receiving && !(in_session(&r->follow) && r->follow.session == r->receiving))
        standby_kick(r);
    if (r->calm && !calm_lasts(r))
        calm_end(r, now);
    int64_t next = r->calm ? calm_until(r, now) : ticked + TICK_MS * MS;
    repl_unlock(r);
    return next;
}

void *talk_thread(void *argument) {
    struct replicator *r = argument;
    zmq_pollitem_t items[CONFIG_NODES_MAX + 2];
    int nodes[CONFIG_NODES_MAX + 2], count = 0;
    items[count] = (zmq_pollitem_t){.fd = r->wake, .events = ZMQ_POLLIN};
    nodes[count++] = -2;
    items[count] = (zmq_pollitem_t){.socket = link_bound(r->link, LINK_CONTROL), .events = ZMQ_POLLIN};
    nodes[count++] = -1;
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self) {
            items[count] = (zmq_pollitem_t){.socket = r->peers[i].dealer, .events = ZMQ_POLLIN};
            nodes[count++] = (int)i;
        }
    int64_t ticked = 0, next = 0;
    awake_start(&r->awake);
    while (!atomic_load(&r->stopping)) {
        int64_t left = MAX(next - clock_boot(), 0);
        if (zmq_poll(items, count, (long)((left + MS - 1) / MS)) < 0 && errno == ETERM)
            break;
        bool woken = false;
        atomic_fetch_add(&r->looks, 1);
        for (int i = 0; i < count; i++) {
            uint64_t wakes;
            if (!(items[i].revents & ZMQ_POLLIN))
                continue;
            if (nodes[i] == -2) {
                ssize_t done = read(r->wake, &wakes, sizeof wakes);
                (void)done;
                woken = true;
            } else {
                drain(r, items[i].socket, nodes[i]);
            }
        }
        if (woken || clock_boot() >= next) {
            ticked = clock_boot();
            tick(r);
        }
        next = next_tick(r, ticked);
    }
    awake_stop(&r->awake);
    return NULL;
}
