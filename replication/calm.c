/* Calm: nothing is under way between this node and the others, and nothing has been for the lease time, so that nothing comes
 * due but what has a known time. The talker and the keeper look at everything many times a second else, and heartbeats and
 * acknowledgements are told twice as often: an idle volume is to cost next to nothing. The talker alone says that it is calm;
 * that ends, for both, in the moment in which there is something to do.
 *
 * What is measured by the talker's ticks (who owes what, and since when) is brought up to date when calm ends: until then
 * nobody owed anything.
 */
#include "replication/parts.h"

static bool peer_is_calm(const struct replicator *r, unsigned node) {
    const struct peer *peer = &r->peers[node];
    const struct feed *feed = &peer->feed;
    if (peer->joining || peer->busy || peer->blocked || r->copies[node].open || (peer->beat.flags & BEAT_UNSURE))
        return false;
    if (feed->state != FEED_STREAMING) /* a member that is away is waited for, or put out of the set */
        return spare_refused(r, node) || !(set_bits(r, &r->value) & 1u << node);
    return duty_in_sync(r, node) && feed->sent_count == 0 && feed->received >= r->position.lsn &&
           feed->durable >= r->position.lsn && feed->want <= feed->want_sent;
}

static bool primary_is_calm(const struct replicator *r) {
    if (!r->acks.active || r->acks.pending || r->writing || r->pace.rate || (r->elects && r->lease_lost >= r->value.epoch))
        return false;
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && !peer_is_calm(r, i))
            return false;
    return true;
}

static bool standby_is_calm(const struct replicator *r) {
    return r->follow.state == FOLLOW_STREAMING && r->receiving == r->follow.session && !r->sync.wanted && !r->lacks_room &&
           r->follow.next == r->position.lsn + 1 && r->follow.behind == 0 &&
           (!r->elects || (r->elect.state == ELECT_FOLLOWS && !r->elect.freed && !r->elect.vacant && !r->elect.word_until));
}

bool calm_lasts(const struct replicator *r) {
    if (r->changing || r->unsure || r->leaving || r->behind || r->value_heard || r->switch_heard || r->outbox_count ||
        r->beat_now || atomic_load(&r->fencing.state) != FENCING_IDLE ||
        r->position.durable < r->position.lsn)
        return false;
    return r->role == ROLE_PRIMARY ? primary_is_calm(r) : standby_is_calm(r);
}

void calm_look(struct replicator *r, int64_t now, bool busy) {
    if (busy || r->position.lsn != r->calm_lsn || !calm_lasts(r)) {
        calm_end(r, now);
        r->calm_lsn = r->position.lsn;
        r->busy_at = now;
    } else if (!r->calm && now - r->busy_at >= r->lease) {
        r->calm = true;
        r->ack_due = now; /* the last word before the pauses grow longer */
    }
}

void calm_end(struct replicator *r, int64_t now) {
    if (!r->calm)
        return;
    r->calm = false;
    r->busy_at = r->looked = r->own_at = now;
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        if (peer->feed.state == FEED_STREAMING)
            peer->feed.received_at = peer->feed.durable_at = peer->feed.progress = peer->took_at = now;
    }
    talk_wake(r);
    keep_wake(r);
}

int64_t calm_beats(const struct replicator *r) {
    if (r->follow.state == FOLLOW_SEARCHING)
        return MIN(r->beat_every, 100 * MS);
    return r->calm ? MAX(MIN(2 * r->beat_every, r->lease / 4), r->beat_every) : r->beat_every;
}

int64_t calm_until(const struct replicator *r, int64_t now) {
    int64_t next = MIN(r->role == ROLE_STANDBY ? r->ack_due : INT64_MAX, now + calm_beats(r));
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        if (i == r->self)
            continue;
        next = MIN(next, peer->beat_due);
        if (r->role == ROLE_PRIMARY && peer->feed.state == FEED_STREAMING)
            next = MIN(next, peer->feed.heard + r->lease + 1);
    }
    if (r->follow.state == FOLLOW_STREAMING)
        next = MIN(next, r->follow.heard + r->follow.patience + 1);
    return next;
}
