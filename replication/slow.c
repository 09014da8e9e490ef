/* Slowing: peers that are being fed and not in the set are measured (catchup.h); where one would never be there, answers to
 * new work wait a little, in the park and not in a thread. The record is applied and sent before that; reads, lookups and
 * what has made no record never wait here.
 *
 * Nothing is slowed for a peer that is away, or from which nothing has come for the lease time. Likewise for one that copies
 * this store whole, for which the journal has to reach (reach.h).
 */
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define AVERAGE_OF 32u            /* records that are looked at */
#define PACER_STEP (5 * MS)       /* answers are given at most so late; shorter than PACE_BURST */
#define LATECOMERS (1000 * MS)    /* who was given a time before slowing ended is in the park by then */
#define TELL_SLOW (10000 * MS)    /* the log hears of it at most so often */

static struct catchup_rule rule_of(const struct replicator *r) {
    return (struct catchup_rule){.share = r->config->catchup_share, .floor = r->config->catchup_floor};
}

uint64_t slow_average(struct replicator *r, uint64_t from, uint64_t to) {
    uint64_t bytes = 0, count = 0;
    if (from > to)
        return 0;
    uint64_t step = (to - from) / AVERAGE_OF + 1;
    for (uint64_t lsn = from; lsn <= to; lsn += step) {
        struct entry *entry;
        struct record_head head;
        if (store_read(r->store, lsn, &entry))
            continue; /* trimmed just now: then it is not fed either */
        memcpy(&head, entry->bytes, sizeof head);
        bytes += WIRE_RECORD_HEAD + head.length + head.payload;
        count++;
        entry_put(entry);
    }
    return count ? bytes / count : 0;
}

static bool catches_up(const struct replicator *r, unsigned node) {
    return r->role == ROLE_PRIMARY && r->peers[node].feed.state == FEED_STREAMING &&
           !((r->acks.set & 1u << node) && roles_in_set(r, node));
}

void slow_begin(struct replicator *r, unsigned node, uint64_t average) {
    struct catchup *catchup = &r->peers[node].catchup;
    catchup_begin(catchup, r->position.lsn, average, r->total);
    /* Who has just copied this store, with work slowed for it, comes to a journal that is near its limit. */
    catchup->losing = r->copies[node].open && r->copies[node].reach.slows;
}

static void look_at(struct replicator *r, unsigned node, int64_t now) {
    struct peer *peer = &r->peers[node];
    const struct feed *feed = &peer->feed;
    struct catchup_rule rule = rule_of(r);
    if (!catches_up(r, node)) {
        catchup_end(&peer->catchup);
        return;
    }
    if (!peer->catchup.active) /* it was in the set, and is not any more */
        slow_begin(r, node, 0);
    if (feed->next > r->position.lsn)
        catchup_sent_all(&peer->catchup, r->total);
    bool stalled = feed->sent_count && now - feed->progress > r->lease;
    catchup_look(&peer->catchup, &rule, feed_taken(feed), r->total, stalled, pace_holds(&r->pace, now), now);
}

static void tell(struct replicator *r, uint64_t rate, int64_t now) {
    if (now - r->slow_told < TELL_SLOW && r->slow_told)
        return;
    r->slow_told = now;
    if (rate)
        log_warning(r->slow_copy ? "new work is slowed to %" PRIu64 " KiB a second, or the journal would be at its limit before node %s "
                                   "has copied this store"
                                 : "new work is slowed to %" PRIu64 " KiB a second, or node %s would never catch up",
                    rate >> 10, r->peers[r->slow_for].node->name);
    else
        log_info("new work is slowed no more");
}

void slow_consider(struct replicator *r, int64_t now) {
    struct catchup_rule rule = rule_of(r);
    uint64_t rate = CATCHUP_NEVER;
    for (unsigned i = 0; i < r->count; i++) {
        if (i == r->self)
            continue;
        look_at(r, i, now);
        uint64_t limit = catchup_limit(&r->peers[i].catchup, &rule), reaches = reaching_limit(r, i, now);
        if (MIN(limit, reaches) < rate) {
            r->slow_for = i;
            r->slow_copy = reaches < limit;
        }
        rate = MIN(rate, MIN(limit, reaches));
    }
    rate = rate == CATCHUP_NEVER ? 0 : rate;
    bool change = (rate == 0) != (r->pace.rate == 0);
    pace_set(&r->pace, rate, r->total, now);
    if (!change)
        return;
    atomic_store(&r->slowing, rate > 0);
    if (rate) {
        r->slow_since = now;
        r->slowed = 0;
    } else {
        r->slow_until = now;
    }
    tell(r, rate, now);
    pthread_cond_signal(&r->pace_work);
}

bool replicator_slows(struct replicator *r) {
    return atomic_load(&r->slowing);
}

int64_t replicator_due(struct replicator *r) {
    if (!atomic_load(&r->slowing))
        return 0;
    repl_lock(r);
    int64_t due = pace_due(&r->pace, r->total, clock_boot());
    r->slowed += due != 0;
    repl_unlock(r);
    return due;
}

static int64_t pass(struct replicator *r, int64_t now) {
    int64_t one = park_pass(r->volume->park, now), other = park_pass(r->volume->local, now);
    return MIN(one, other);
}

void slow_end(struct replicator *r) {
    struct catchup_rule rule = rule_of(r);
    int64_t now = clock_boot();
    repl_lock(r);
    for (unsigned i = 0; i < r->count; i++) /* another window begins */
        catchup_look(&r->peers[i].catchup, &rule, 0, r->total, true, false, now);
    if (r->pace.rate)
        r->slow_until = now;
    pace_set(&r->pace, 0, r->total, now);
    atomic_store(&r->slowing, false);
    repl_unlock(r);
    pass(r, INT64_MAX);
}

void *slow_thread(void *argument) {
    struct replicator *r = argument;
    while (!atomic_load(&r->stopping)) {
        int64_t next = pass(r, atomic_load(&r->slowing) ? clock_boot() : INT64_MAX), now = clock_boot();
        repl_lock(r);
        if (r->pace.rate)
            repl_sleep(r, &r->pace_work, MIN(MAX(next - now, MS), PACER_STEP));
        else if (r->slow_until && now - r->slow_until < LATECOMERS)
            repl_sleep(r, &r->pace_work, PACER_STEP);
        else
            repl_sleep(r, &r->pace_work, 10000 * MS);
        repl_unlock(r);
    }
    pass(r, INT64_MAX);
    return NULL;
}

/* ---- Joining --------------------------------------------------------------------------------------------------------- */

static uint64_t bytes_left(const struct replicator *r, unsigned node) {
    const struct peer *peer = &r->peers[node];
    bool all = peer->feed.next > r->position.lsn;
    return peer->feed.total_bytes - feed_taken(&peer->feed) + (all ? 0 : catchup_unsent(&peer->catchup, peer->feed.next, r->total));
}

/* From the proposal on every acknowledgement waits for it: not longer than for one that has gone away. */
bool slow_may_join(const struct replicator *r, unsigned node) {
    const struct catchup *catchup = &r->peers[node].catchup;
    return !catchup->active || catchup_is_near(catchup, bytes_left(r, node), r->join_bytes, r->lease);
}

/* ---- Status ---------------------------------------------------------------------------------------------------------- */

json_t *slow_status_peer(const struct replicator *r, unsigned node) {
    const struct peer *peer = &r->peers[node];
    if (node == r->self || !catches_up(r, node) || !peer->catchup.active)
        return NULL;
    uint64_t bytes = bytes_left(r, node), seconds = catchup_seconds(&peer->catchup, bytes);
    json_t *shown = json_pack("{s:I, s:I, s:I, s:I, s:b}", "records_left",
                              (json_int_t)(r->position.lsn - peer->feed.received), "bytes_left", (json_int_t)bytes,
                              "bytes_per_second", (json_int_t)peer->catchup.taken_rate, "new_bytes_per_second",
                              (json_int_t)peer->catchup.made_rate, "loses_ground", peer->catchup.losing);
    if (seconds != CATCHUP_NEVER)
        json_object_set_new(shown, "seconds_left", json_integer((json_int_t)seconds));
    return shown;
}

json_t *slow_status(const struct replicator *r) {
    if (r->pace.rate == 0)
        return NULL;
    int64_t since = (clock_boot() - r->slow_since) / MS;
    return json_pack("{s:I, s:s, s:s, s:I, s:I}", "bytes_per_second", (json_int_t)r->pace.rate, "for",
                     r->peers[r->slow_for].node->name, "because", r->slow_copy ? "it copies" : "it catches up", "since_ms",
                     (json_int_t)since, "answers_delayed", (json_int_t)r->slowed);
}
