/* The in-sync set: who leaves it, who comes into it. DESIGN.md "The set shrinks … The set grows".
 *
 * Shrinking: a member's session has been silent for the lease time (or it said goodbye, or came back as another
 * incarnation, or lives and acknowledges nothing of what it lacks, or logs in again and again and takes nothing). Both sets count from the proposal on; everything acknowledged
 * so far is made durable here; then the register is written; then this node goes on without it.
 *
 * Growing: a streaming peer that is nearly up to date, in records and in the time that they take it, is proposed: from that
 * moment every acknowledgement needs it too. When its durable position has reached what the log was then, the register is
 * written. So nothing acknowledged is missing on it, whatever keeps arriving meanwhile. If it does not get there, or its
 * session ends, the proposal, which nobody has written, is withdrawn, and not made again at once.
 *
 * A proposal that has been handed to the register (`writing`) may have been chosen, whatever the answer was: it is never
 * withdrawn, but written again until its outcome is known.
 */
#include "fs/events.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

static const char ACKNOWLEDGES_NOTHING[] = "it lives, and has acknowledged nothing for the lease time";

static const struct register_member *member_named(const struct register_value *value, const char *name) {
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, name) == 0)
            return &value->members[i];
    return NULL;
}

static void remove_member(struct register_value *value, const char *name) {
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, name) == 0)
            value->members[i--] = value->members[--value->member_count];
}

static void add_member(struct register_value *value, const char *name, const uint8_t incarnation[16]) {
    remove_member(value, name);
    PROMISE(value->member_count < REGISTER_MEMBERS_MAX);
    struct register_member *member = &value->members[value->member_count++];
    memset(member, 0, sizeof *member);
    snprintf(member->node, sizeof member->node, "%s", name);
    memcpy(member->incarnation, incarnation, 16);
}

void set_add_self(const struct replicator *r, struct register_value *value) {
    /* Names that the config no longer has make room. */
    for (unsigned i = 0; i < value->member_count; i++)
        if (!config_node(r->config, value->members[i].node)) {
            value->members[i] = value->members[--value->member_count];
            i--;
        }
    add_member(value, r->config->nodes[r->self].name, r->incarnation);
}

void set_keep(const struct replicator *r, uint32_t keep, struct register_value *value) {
    for (unsigned i = 0; i < r->count; i++)
        if (!(keep & 1u << i))
            remove_member(value, r->config->nodes[i].name);
}

uint32_t set_bits(const struct replicator *r, const struct register_value *value) {
    uint32_t bits = 1u << r->self;
    for (unsigned i = 0; i < r->count; i++)
        if (member_named(value, r->config->nodes[i].name))
            bits |= 1u << i;
    return bits;
}

bool roles_in_set(const struct replicator *r, unsigned node) {
    const struct register_member *member = member_named(&r->value, r->config->nodes[node].name);
    const struct peer *peer = &r->peers[node];
    if (!member)
        return false;
    if (node == r->self)
        return memcmp(member->incarnation, r->incarnation, 16) == 0;
    return peer->feed.state != FEED_STREAMING || memcmp(member->incarnation, peer->feed.incarnation, 16) == 0;
}

/* The set has this node, but another store of it. */
static bool another_store(const struct replicator *r, const struct register_value *value, unsigned node) {
    const struct register_member *member = member_named(value, r->config->nodes[node].name);
    return member && memcmp(member->incarnation, r->peers[node].feed.incarnation, 16) != 0;
}

void roles_count_ack(struct replicator *r, unsigned node) {
    const struct feed *feed = &r->peers[node].feed;
    if (another_store(r, &r->value, node) || (r->acks.pending && another_store(r, &r->proposal, node)))
        acks_forget(&r->acks, node);
    else
        acks_peer(&r->acks, node, feed->received, feed->durable);
}

/* Each session may be young, and heartbeats come: but what it lacks does not get less. */
static bool takes_nothing(const struct replicator *r, const struct peer *peer, int64_t now) {
    return peer->sessions_since > 1 && peer->feed.received < r->position.lsn &&
           now - MAX(peer->took_at, r->primary_since) > IN_VAIN_LEASES * r->lease;
}

/* It lives, but what it lacks does not come to it, or not to its disk. A primary whose own disk keeps it waiting is not the one
 * to judge that: if both wait, the cause may be the same, and if only the peer's is well, it is the better primary. */
static bool owes(const struct replicator *r, const struct peer *peer, int64_t now) {
    return feed_owes(&peer->feed, now) > r->lease && now - r->own_at <= r->lease / 2;
}

/* Why this member has to go, or NULL. */
static const char *why_out(const struct replicator *r, const struct register_member *member, int64_t now) {
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        if (strcmp(peer->node->name, member->node) != 0)
            continue;
        if (i == r->self)
            return NULL;
        if (spare_refused(r, i))
            return spare_why_out(r, i);
        if (peer->feed.state == FEED_STREAMING && memcmp(peer->feed.incarnation, member->incarnation, 16) != 0)
            return "it came back with another store";
        if (peer->feed.state == FEED_STREAMING)
            return !fencing_lets_go(r, i)      ? NULL
                   : takes_nothing(r, peer, now) ? "it logs in again and again, and takes nothing"
                   : owes(r, peer, now)          ? ACKNOWLEDGES_NOTHING
                                                 : NULL;
        /* Who hands over as its last act may be gone before it has a session here in which to say goodbye. */
        if ((peer->left && peer->left >= r->primary_since) || (peer->beat.flags & BEAT_LEAVES))
            return "it left";
        int64_t heard = MAX(peer->feed.heard, r->primary_since);
        return now - heard > r->lease && fencing_lets_go(r, i) ? "it has been silent for the lease time" : NULL;
    }
    return "the config has no such node any more";
}

/* Another value than this node knew is in the register. One of its own epoch says what the set is; one of another epoch
 * says that this node is primary no more: it acknowledges nothing from here on, the rest is the keeper's. lock held */
static void obey(struct replicator *r, const struct register_value *found) {
    if (r->role == ROLE_PRIMARY && found->epoch == r->value.epoch) {
        r->value = *found;
        acks_adopt(&r->acks, set_bits(r, found));
    } else if (register_compare(found, &r->value) > 0) {
        acks_stop(&r->acks);
        r->heard_value = *found;
        r->value_heard = true;
        keep_wake(r);
    }
}

/* Writes r->proposal, which is pending. The outcome may stay unknown: then it stays pending, and is tried again. */
static void write_proposal(struct replicator *r) {
    struct register_value expected = r->value, proposal = r->proposal;
    uint64_t lines[PARK_LINES];
    int rc = register_settle(r->volume->reg, &expected, &proposal);
    bool chosen = rc == 0;
    repl_lock(r);
    if (!chosen && rc != -ESTALE && rc != -EINVAL) {
        if (!r->trouble[0])
            log_error("the register cannot be written: %s; trying again", strerror(-rc));
        snprintf(r->trouble, sizeof r->trouble, "the register cannot be written: %s", strerror(-rc));
        repl_unlock(r);
        return;
    }
    r->trouble[0] = 0;
    if (chosen)
        r->value = proposal;
    acks_settle(&r->acks, chosen);
    if (rc == -ESTALE)
        obey(r, &expected);
    r->writing = false;
    for (unsigned i = 0; i < r->count; i++) {
        if (r->peers[i].joining && chosen)
            r->peers[i].joined = clock_boot();
        r->peers[i].joining = false;
    }
    bool alone = acks_alone(&r->acks);
    uint64_t last = r->position.lsn;
    primary_lines(r, lines);
    r->beat_now = true;
    pthread_cond_broadcast(&r->news);
    repl_unlock(r);
    talk_wake(r);
    primary_advance(r, lines);
    if (alone)
        store_want_durable(r->store, last);
}

static void propose(struct replicator *r, const struct register_value *next) { /* lock held */
    r->proposal = *next;
    r->proposal.version = r->value.version + 1;
    r->writing = false;
    acks_propose(&r->acks, set_bits(r, next));
}

/* Everybody waits for a peer that is proposed or in the set: not again at once. */
static void put_off_join(struct peer *peer) {
    int64_t now = clock_boot();
    if (peer->joined && now - peer->joined > JOIN_PROVED)
        peer->join_wait = 0;
    peer->joined = 0;
    peer->join_wait = MIN(MAX(2 * peer->join_wait, JOIN_AGAIN), JOIN_AGAIN_MOST);
    peer->join_again = now + peer->join_wait;
}

static void put_off_member(struct replicator *r, const struct register_member *member) {
    for (unsigned i = 0; i < r->count; i++)
        if (strcmp(r->peers[i].node->name, member->node) == 0)
            put_off_join(&r->peers[i]);
}

void set_withdraw(struct replicator *r) {
    if (!r->acks.pending || r->writing)
        return;
    acks_settle(&r->acks, false);
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        if (!peer->joining)
            continue;
        peer->joining = false;
        put_off_join(peer);
    }
}

bool set_puts_out(const struct replicator *r, unsigned node) {
    const char *name = r->config->nodes[node].name;
    return r->acks.pending && member_named(&r->value, name) && !member_named(&r->proposal, name);
}

static int joining_node(const struct replicator *r) {
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].joining)
            return (int)i;
    return -1;
}

/* True if the register is to be written now. lock held. */
static bool shrink(struct replicator *r, int64_t now) {
    struct register_value next = r->value;
    if (r->elects && store_stalled(r->store, SICK_LEAST / 2))
        return false; /* it is this node that is sick: its lease will end, and a member of the set takes over */
    for (unsigned i = 0; i < r->value.member_count; i++) {
        const char *why = why_out(r, &r->value.members[i], now);
        if (!why)
            continue;
        log_warning("node %s leaves the in-sync set: %s", r->value.members[i].node, why);
        volume_event(r->volume, "set-shrinks", json_pack("{s:s, s:s}", "node", r->value.members[i].node, "why", why),
                     "node %s leaves the in-sync set: %s", r->value.members[i].node, why);
        if (why == ACKNOWLEDGES_NOTHING)
            put_off_member(r, &r->value.members[i]);
        remove_member(&next, r->value.members[i].node);
    }
    if (next.member_count == r->value.member_count)
        return false;
    set_withdraw(r);
    propose(r, &next);
    return true;
}

static void begin_join(struct replicator *r, unsigned node, int64_t now) { /* lock held */
    struct peer *peer = &r->peers[node];
    struct register_value next = r->value;
    add_member(&next, peer->node->name, peer->feed.incarnation);
    propose(r, &next);
    peer->joining = true;
    peer->join_since = now;
    peer->join_lsn = r->position.lsn;
    peer->feed.want = MAX(peer->feed.want, peer->join_lsn);
    primary_pump(r);
}

/* lock held; true if the register is to be written now */
static bool grow(struct replicator *r, int64_t now) {
    int node = joining_node(r);
    if (node >= 0) {
        struct peer *peer = &r->peers[node];
        if (peer->feed.state == FEED_STREAMING && peer->feed.durable >= peer->join_lsn) {
            log_info("node %s comes into the in-sync set at LSN %" PRIu64, peer->node->name, peer->join_lsn);
            volume_event(r->volume, "set-grows", json_pack("{s:s, s:I}", "node", peer->node->name, "lsn", (json_int_t)peer->join_lsn),
                         "node %s comes into the in-sync set at LSN %" PRIu64, peer->node->name, peer->join_lsn);
            return true;
        }
        if (peer->feed.state != FEED_STREAMING || now - peer->join_since > JOIN_PATIENCE || owes(r, peer, now))
            set_withdraw(r);
        return false;
    }
    for (unsigned i = 0; i < r->count && !r->acks.pending; i++) {
        const struct peer *peer = &r->peers[i];
        if (i != r->self && peer->feed.state == FEED_STREAMING && !member_named(&r->value, peer->node->name) && !(peer->beat.flags & BEAT_LEAVES) &&
            peer->feed.received + r->join_records >= r->position.lsn && slow_may_join(r, i) &&
            now >= peer->join_again && feed_owes(&peer->feed, now) <= r->lease / 2)
            begin_join(r, i, now);
    }
    node = joining_node(r);
    return node >= 0 && r->peers[node].feed.durable >= r->peers[node].join_lsn;
}

/* A node waits for a value that is newer than what it proposed (proposed.c): the present one once more will do. True if the
 * register is to be written now. lock held */
static bool reassure(struct replicator *r, int64_t now) {
    bool asked = false;
    for (unsigned i = 0; i < r->count; i++)
        asked = asked || (i != r->self && (r->peers[i].beat.flags & BEAT_UNSURE) && now - r->peers[i].heard < r->lease);
    if (!r->elects || !asked || r->acks.pending || now < r->reassure_again)
        return false;
    r->reassure_again = now + r->lease;
    propose(r, &r->value);
    return true;
}

void set_consider(struct replicator *r) {
    reaching_measure(r); /* whoever copies becomes a member in the end */
    int64_t now = clock_boot();
    uint64_t lines[PARK_LINES];
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY && r->acks.active;
    if (primary) /* the first one: its outcome is unknown still */
        r->writing = r->writing || shrink(r, now) || grow(r, now) || reassure(r, now);
    bool write = primary && r->writing;
    primary_lines(r, lines); /* a withdrawn proposal may have been all that they waited for */
    uint64_t last = r->position.lsn;
    repl_unlock(r);
    if (primary)
        primary_advance(r, lines);
    /* All of it, not up to the line: what was acknowledged before this epoch the line does not know. */
    if (write && store_sync(r->store, last) == 0)
        write_proposal(r);
}

uint64_t roles_hold(struct replicator *r, uint64_t *absent) {
    if (r->role != ROLE_PRIMARY) {
        const struct peer *peer = &r->peers[r->follow.primary];
        bool follows = r->follow.state == FOLLOW_STREAMING && peer->known;
        uint64_t hold = follows ? MIN(peer->beat.hold, r->position.durable) : 0;
        r->hold_told = MAX(r->hold_told, hold);
        *absent = r->hold_told;
        return r->hold_told;
    }
    uint64_t fed = r->position.durable, all = fed;
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        if (i == r->self)
            continue;
        if (peer->feed.state == FEED_STREAMING) {
            peer->last_durable = peer->feed.durable;
            fed = MIN(fed, peer->feed.durable);
            all = MIN(all, peer->feed.durable);
        } else {
            all = MIN(all, MAX(peer->last_durable, r->hold_told));
            if (member_named(&r->value, peer->node->name))
                fed = MIN(fed, all);
        }
    }
    r->hold_told = MAX(r->hold_told, MIN(all, fed));
    *absent = MIN(all, fed);
    return fed;
}

void roles_hold_load(struct replicator *r) {
    uint64_t saved = 0;
    size_t length = 0;
    store_lock(r->store);
    if (store_meta_get(r->store, "hold", &saved, sizeof saved, &length) == 0 && length == sizeof saved)
        r->hold_told = r->hold_saved = MIN(saved, r->position.lsn);
    store_unlock(r->store);
}
