#include "replication/feed.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static void refuse(struct feed *feed, struct wire_answer *answer, enum wire_verdict verdict) {
    answer->verdict = verdict;
    feed->state = FEED_REFUSED;
    feed->session = 0;
    snprintf(feed->why, sizeof feed->why, "%s", answer->text);
}

static void open_session(struct feed *feed, uint64_t session, const struct wire_login *login, int64_t now) {
    *feed = (struct feed){.state = FEED_STREAMING,
                          .session = session,
                          .next = login->position.lsn + 1,
                          .received = login->position.lsn,
                          .durable = login->position.durable,
                          .window = MIN(login->window, FEED_WINDOW_BYTES),
                          .login_time = now,
                          .heard = now,
                          .progress = now,
                          .received_at = now,
                          .durable_at = now};
    memcpy(feed->incarnation, login->incarnation, sizeof feed->incarnation);
}

void feed_login(struct feed *feed, uint64_t session, const struct wire_login *login, const struct feed_ground *ground,
                int64_t now, struct wire_answer *answer) {
    const struct wire_position *peer = &login->position, *own = &ground->own;
    *answer = (struct wire_answer){.verdict = VERDICT_STREAM};
    if (feed->state == FEED_STREAMING && feed->session == session) {
        answer->from = feed->next;
        feed->heard = now;
        return;
    }
    if (peer->lsn > own->lsn) {
        snprintf(answer->text, sizeof answer->text,
                 "its history is longer (LSN %" PRIu64 ") than this primary's (LSN %" PRIu64 ")", peer->lsn, own->lsn);
        refuse(feed, answer, VERDICT_DIVERGED);
    } else if (peer->lsn + 1 < own->first) {
        snprintf(answer->text, sizeof answer->text,
                 "it ends at LSN %" PRIu64 " and this primary's journal begins at LSN %" PRIu64, peer->lsn, own->first);
        refuse(feed, answer, VERDICT_TRIMMED);
    } else if (!ground->chain_at) {
        snprintf(answer->text, sizeof answer->text, "the chain at its end, LSN %" PRIu64 ", is not known here", peer->lsn);
        refuse(feed, answer, VERDICT_TRIMMED);
    } else if (memcmp(ground->chain_at, peer->chain, CHAIN_SIZE) != 0) {
        snprintf(answer->text, sizeof answer->text,
                 "its history up to LSN %" PRIu64 " is another one than this primary's", peer->lsn);
        refuse(feed, answer, VERDICT_DIVERGED);
    } else {
        open_session(feed, session, login, now);
        answer->from = feed->next;
    }
}

bool feed_may_send(const struct feed *feed, uint64_t bytes) {
    if (feed->state != FEED_STREAMING)
        return false;
    if (feed->sent_count == 0)
        return true;
    return feed->sent_count < FEED_WINDOW_FRAMES && feed->in_flight + bytes <= feed->window;
}

void feed_sent(struct feed *feed, uint64_t last, uint64_t bytes) {
    PROMISE(feed->state == FEED_STREAMING && last >= feed->next && feed->sent_count < FEED_WINDOW_FRAMES);
    unsigned slot = (feed->sent_first + feed->sent_count++) % FEED_WINDOW_FRAMES;
    feed->sent[slot] = (struct feed_sent){.first = feed->next, .last = last, .bytes = bytes};
    feed->in_flight += bytes;
    feed->total_bytes += bytes;
    feed->next = last + 1;
}

int feed_ack(struct feed *feed, uint64_t session, const struct wire_ack *ack, int64_t now) {
    if (!feed_heard(feed, session, now))
        return -ESTALE;
    if (ack->received >= feed->next || ack->received < feed->received || ack->durable < feed->durable ||
        ack->durable > ack->received)
        return -EBADMSG;
    if (ack->received > feed->received || ack->durable > feed->durable)
        feed->progress = now;
    if (ack->received > feed->received)
        feed->received_at = now;
    if (ack->durable > feed->durable)
        feed->durable_at = now;
    feed->received = ack->received;
    feed->durable = ack->durable;
    while (feed->sent_count && feed->sent[feed->sent_first].last <= ack->received) {
        feed->in_flight -= feed->sent[feed->sent_first].bytes;
        feed->sent_first = (feed->sent_first + 1) % FEED_WINDOW_FRAMES;
        feed->sent_count--;
    }
    return 0;
}

uint64_t feed_taken(const struct feed *feed) {
    uint64_t taken = feed->total_bytes - feed->in_flight;
    const struct feed_sent *frame = &feed->sent[feed->sent_first];
    if (feed->sent_count && feed->received >= frame->first)
        taken += frame->bytes / (frame->last - frame->first + 1) * (feed->received - frame->first + 1);
    return taken;
}

bool feed_heard(struct feed *feed, uint64_t session, int64_t now) {
    if (feed->state != FEED_STREAMING || feed->session != session)
        return false;
    feed->heard = now;
    return true;
}

bool feed_stuck(struct feed *feed, int64_t now, int64_t patience) {
    bool asked = feed->sent_count > 0 || MIN(feed->want_sent, feed->received) > feed->durable;
    if (feed->state != FEED_STREAMING || !asked)
        feed->progress = now;
    return now - feed->progress > patience;
}

void feed_look(struct feed *feed, uint64_t last, int64_t now) {
    if (feed->received >= last)
        feed->received_at = now;
    if (feed->durable >= MIN(feed->want, feed->received))
        feed->durable_at = now;
}

void feed_stood_still(struct feed *feed, int64_t ns, int64_t now) {
    feed->received_at = MIN(feed->received_at + ns, now);
    feed->durable_at = MIN(feed->durable_at + ns, now);
}

int64_t feed_owes(const struct feed *feed, int64_t now) {
    if (feed->state != FEED_STREAMING)
        return 0;
    uint64_t bytes = feed->sent_count ? feed->sent[feed->sent_first].bytes : 0;
    int64_t line = (int64_t)(bytes * 1000000 / FEED_LINE_RATE) * 1000;
    return MAX(MAX(now - feed->received_at - line, now - feed->durable_at), 0);
}

void feed_end(struct feed *feed, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(feed->why, sizeof feed->why, format, arguments);
    va_end(arguments);
    feed->state = FEED_ABSENT;
    feed->session = 0;
    feed->received = feed->durable = 0;
    feed->in_flight = 0;
    feed->sent_count = 0;
}

const char *feed_state_name(enum feed_state state) {
    static const char *const names[] = {"absent", "refused", "streaming"};
    return names[state];
}
