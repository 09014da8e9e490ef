/* Roles: who this node is at its start, promotion, handing over, stepping down; and the keeper, the thread in which all
 * that happens unasked.
 *
 * Order, always: a new primary first stops its receiver (what it acknowledged is applied by then), then the register
 * names it, then its store begins the epoch, then changes are let in. An old one stops acknowledging, then its store
 * ends the epoch, then the register names another one, then that one is told.
 */
#include "fs/front.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define ASK_PATIENCE (500 * MS)     /* for peers' answers when it matters whether they live */
#define START_PATIENCE (3000 * MS)  /* the same at a start: links may be coming up with us */
#define DRAIN_PATIENCE (10000 * MS) /* of a switchover */
#define SWITCH_PATIENCE (5000 * MS)
#define SWITCH_AGAIN (400 * MS) /* word or answer may be lost on the way */
#define KEEPER_TICK (50 * MS)
#define HOLD_SAVE (1000 * MS) /* how often the position that every node has is noted in the store */

static const char *own_name(const struct replicator *r) {
    return r->config->nodes[r->self].name;
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

static bool all_heard_since(const struct replicator *r, int64_t since) {
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && r->peers[i].heard < since)
            return false;
    return true;
}

/* Asks every node and waits for the answers, for a moment. Returns with the lock. */
static void ask_peers_locked(struct replicator *r, int64_t patience) {
    int64_t since = clock_boot();
    repl_lock(r);
    r->beat_now = true;
    talk_kick(r);
    while (!all_heard_since(r, since) && repl_wait(r, &r->news, since + patience))
        ;
}

/* A node that says that it is primary now, in an epoch that is not behind ours; -1: none. lock held */
static int answering_primary(const struct replicator *r, int64_t since) {
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        if (i != r->self && peer->heard >= since && peer->beat.role == ROLE_PRIMARY &&
            peer->beat.value.epoch >= r->value.epoch)
            return (int)i;
    }
    return -1;
}

/* ---- Becoming primary ------------------------------------------------------------------------------------------------ */

static void resume_standby(struct replicator *r) {
    repl_lock(r);
    follow_start(&r->follow, r->lease, clock_boot());
    r->changing = r->unsure = false;
    r->beat_now = true;
    repl_unlock(r);
    talk_kick(r);
}

/* The register has another value than this node knew. */
static void adopt(struct replicator *r, const struct register_value *found) {
    repl_lock(r);
    if (register_compare(found, &r->value) > 0)
        r->value = *found;
    repl_unlock(r);
}

/* A proposal whose outcome stayed unknown: what the register has when it answers again is what became of it. The keeper's,
 * role_lock held. */
static void look_again(struct replicator *r) {
    struct register_value found;
    repl_lock(r);
    bool unsure = r->unsure;
    repl_unlock(r);
    if (!unsure || r->volume->reg->engine->read(r->volume->reg, &found) != 0)
        return;
    adopt(r, &found);
    resume_standby(r);
}

/* A promotion takes the counter after the next one: the primary that it did not hear of may be handing over to this very
 * node, and the value that it makes for that has the next one. Two values of one epoch would hide each other's set. */
static void next_epoch(struct replicator *r, const struct position *position, unsigned node, bool promoted,
                       struct register_value *next) {
    uint64_t counter = MAX(EPOCH_COUNTER(r->value.epoch), EPOCH_COUNTER(position->epoch));
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].known)
            counter = MAX(counter, EPOCH_COUNTER(r->peers[i].beat.value.epoch));
    next->epoch = EPOCH_MAKE(counter + (promoted ? 2 : 1), r->config->nodes[node].number);
    next->version = r->value.version + 1;
    snprintf(next->primary, sizeof next->primary, "%s", r->config->nodes[node].name);
    next->start_lsn = position->lsn;
    memcpy(next->start_chain, position->chain, CHAIN_SIZE);
}

enum start { START_ANEW, START_PROMOTED, START_HANDED_OVER, START_AGAIN };

/* How far this node knows that the whole set has everything on its disk, at the start of an epoch. What lies beyond, older
 * than the epoch or not, is acknowledged when the members have told that they have it, or when they are out of the set. */
static uint64_t known_line(struct replicator *r, enum start start, const struct position *position) {
    repl_lock(r);
    uint64_t hold = MIN(r->hold_told, position->durable);
    repl_unlock(r);
    return start == START_HANDED_OVER ? position->lsn : hold; /* a handover is drained before */
}

/* START_AGAIN is after a handover that came to nothing. What waits for an acknowledgement goes on waiting: the lines stay
 * where they were. */
static void open_epoch(struct replicator *r, const struct register_value *next, const struct position *position,
                       enum start start, uint64_t line) {
    repl_lock(r);
    uint64_t lines[PARK_LINES] = {r->acks.lines[0], r->acks.lines[1]};
    if (start != START_AGAIN)
        lines[0] = lines[1] = line;
    r->value = *next;
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && r->peers[i].feed.state != FEED_ABSENT)
            feed_end(&r->peers[i].feed, "this node has just become primary");
    r->position.durable = position->durable;
    r->acks.durable[r->self] = position->durable;
    acks_start(&r->acks, r->self, set_bits(r, next), position->lsn);
    acks_own_durable(&r->acks, position->durable);
    memcpy(r->acks.lines, lines, sizeof lines);
    r->ring_first = position->lsn + 1;
    r->primary_since = clock_boot();
    r->role = ROLE_PRIMARY;
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].feed.state == FEED_ABSENT)
            feed_end(&r->peers[i].feed, "it has not logged in since this node became primary");
    r->set_heard = true;
    repl_unlock(r);
}

static void close_epoch(struct replicator *r) { /* lock held */
    acks_stop(&r->acks);
    primary_ring_clear(r);
    r->role = ROLE_STANDBY;
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].feed.state != FEED_ABSENT)
            feed_end(&r->peers[i].feed, "this node is not primary");
    if (r->acks.pending)
        acks_settle(&r->acks, false);
    r->writing = false;
    for (unsigned i = 0; i < r->count; i++)
        r->peers[i].joining = false;
}

/* `given`: the value that makes it primary (START_HANDED_OVER), else one is made; a promotion begins with this store as
 * the only member, another start keeps the set. role_lock held. */
static int become_primary(struct replicator *r, enum start start, const struct register_value *given, char *why,
                          size_t why_room) {
    struct reg *reg = r->volume->reg;
    struct position position;
    repl_lock(r);
    r->changing = true;
    repl_unlock(r);
    standby_quiesce(r);
    store_position(r->store, &position);
    /* Alone in the set it answers for all that was acknowledged: with its disk, as when a set shrinks. */
    if (start == START_PROMOTED && store_sync(r->store, position.lsn)) {
        snprintf(why, why_room, "what this store has cannot be brought to its disk");
        resume_standby(r);
        return -EIO;
    }
    store_position(r->store, &position);

    repl_lock(r);
    struct register_value expected = r->value, next = given ? *given : r->value;
    if (!given) {
        next_epoch(r, &position, r->self, start == START_PROMOTED, &next);
        if (start == START_PROMOTED)
            next.member_count = 0;
        set_add_self(r, &next);
    }
    repl_unlock(r);
    int rc = EPOCH_COUNTER(next.epoch) > EPOCH_COUNTER_MAX ? -ERANGE : 0;
    if (rc == 0 && register_compare(&next, &expected) != 0) /* a given value may have arrived by heartbeat before */
        rc = register_settle(reg, &expected, &next);
    if (rc) {
        snprintf(why, why_room, "the register could not be changed: %s%s", strerror(-rc),
                 rc == -ESTALE ? " (it has moved on; look at the status, and try again)" : "");
        if (rc == -EINPROGRESS) { /* it may be chosen at any time: until it is known, this node acknowledges to nobody */
            repl_lock(r);
            r->unsure = true;
            repl_unlock(r);
            return rc;
        }
        if (rc == -ESTALE)
            adopt(r, &expected);
        resume_standby(r);
        return rc;
    }
    uint64_t line = known_line(r, start, &position);
    if (start != START_AGAIN)
        park_reset(r->volume->park, line);
    open_epoch(r, &next, &position, start, line);
    rc = store_start_epoch(r->store, next.epoch, own_name(r));
    if (rc) {
        snprintf(why, why_room, "the store cannot begin epoch %" PRIu64 ": %s", EPOCH_COUNTER(next.epoch), strerror(-rc));
        repl_lock(r);
        close_epoch(r);
        repl_unlock(r);
        resume_standby(r);
        return rc;
    }
    atomic_store(&r->volume->role, ROLE_PRIMARY);
    if (r->volume->front)
        front_become_primary(r->volume->front);
    repl_lock(r);
    r->changing = r->unsure = false;
    r->trouble[0] = 0;
    r->beat_now = true;
    pthread_cond_broadcast(&r->news);
    pthread_cond_signal(&r->keep_work);
    repl_unlock(r);
    talk_kick(r);
    log_info("primary in epoch %" PRIu64 " from LSN %" PRIu64, EPOCH_COUNTER(next.epoch), position.lsn + 1);
    return 0;
}

/* ---- Ceasing --------------------------------------------------------------------------------------------------------- */

/* A higher epoch has been heard of: this node acknowledges nothing more. role_lock held. */
static void step_down(struct replicator *r) {
    repl_lock(r);
    r->changing = true;
    acks_stop(&r->acks);
    repl_unlock(r);
    log_warning("a higher epoch exists: this node is no longer primary");
    slow_end(r);
    store_stop_epoch(r->store);
    repl_lock(r);
    close_epoch(r);
    repl_unlock(r);
    park_give_up(r->volume->park, -EIO);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    if (r->volume->front)
        front_become_standby(r->volume->front);
    park_give_up(r->volume->park, -EIO);
    resume_standby(r);
}

static void take_over_value(struct replicator *r) {
    repl_lock(r);
    struct register_value expected = r->value, next = r->heard_value;
    bool news = r->value_heard && register_compare(&next, &expected) > 0, primary = r->role == ROLE_PRIMARY;
    bool word = r->heard_word;
    r->value_heard = false;
    repl_unlock(r);
    if (!news)
        return;
    if (primary)
        step_down(r);
    bool knew_none = !expected.primary[0];
    int rc = register_settle(r->volume->reg, &expected, &next);
    repl_lock(r);
    if (rc == 0 || rc == -ESTALE) {
        if (knew_none || r->behind)
            r->trouble[0] = 0;
        r->behind = false;
        r->value = rc ? expected : next;
        if (rc == 0 && word)
            r->set_heard = true;
    } else { /* until then nobody promotes this node by what it had before: may_promote */
        if (!r->behind)
            log_error("the register could not be brought up to date: %s; trying again", strerror(-rc));
        snprintf(r->trouble, sizeof r->trouble, "the register could not be brought up to date: %s", strerror(-rc));
        r->behind = r->value_heard = true;
    }
    pthread_cond_broadcast(&r->news);
    repl_unlock(r);
}

/* ---- Switchover: the new primary's side ------------------------------------------------------------------------------ */

static int judge_switch(struct replicator *r, const struct wire_switch *asked, char *why, size_t room) {
    const struct register_value *value = &asked->value;
    int rc = -EINVAL;
    repl_lock(r);
    bool newer = value->epoch > r->value.epoch || register_compare(value, &r->value) == 0;
    if (r->role == ROLE_PRIMARY && value->epoch == r->value.epoch)
        rc = 0; /* asked again: done already */
    else if (value->epoch <= r->switch_refused)
        snprintf(why, room, "it has said no to this handover before");
    else if (r->role == ROLE_PRIMARY || !newer)
        snprintf(why, room, "the register here has moved on");
    else if (strcmp(value->primary, own_name(r)) != 0 || EPOCH_NODE(value->epoch) != r->config->nodes[r->self].number ||
             !register_is_member(value, own_name(r), r->incarnation))
        snprintf(why, room, "another store is meant");
    else if (asked->lsn != r->position.lsn || memcmp(asked->chain, r->position.chain, CHAIN_SIZE) != 0)
        snprintf(why, room, "this store is at LSN %" PRIu64 ", not at %" PRIu64, r->position.lsn, asked->lsn);
    else
        rc = 1;
    repl_unlock(r);
    return rc;
}

static void take_switch(struct replicator *r) {
    repl_lock(r);
    bool heard = r->switch_heard;
    struct wire_switch asked = r->switch_asked;
    unsigned from = r->switch_from;
    r->switch_heard = false;
    repl_unlock(r);
    if (!heard)
        return;
    struct frame reply = {.head = {.type = WIRE_SWITCHED}};
    int rc = judge_switch(r, &asked, reply.switched.text, WIRE_TEXT);
    if (rc > 0)
        rc = become_primary(r, START_HANDED_OVER, &asked.value, reply.switched.text, WIRE_TEXT);
    reply.switched.error = (uint32_t)-rc;
    repl_lock(r);
    if (rc) /* the one that asked goes on by itself now: no later word may change this answer */
        r->switch_refused = MAX(r->switch_refused, asked.value.epoch);
    reply.head.epoch = asked.value.epoch;
    talk_post(r, from, &reply);
    repl_unlock(r);
}

/* ---- Switchover: the old primary's side ------------------------------------------------------------------------------ */

/* Everything up to the last record is received and durable in the whole set. */
static int drain(struct replicator *r, unsigned node, int64_t deadline) {
    struct position position;
    store_position(r->store, &position);
    replicator_need(r, PARK_DURABLE, position.lsn);
    store_want_durable(r->store, position.lsn);
    repl_lock(r);
    int rc = 0;
    while (rc == 0 && (acks_line(&r->acks, PARK_DURABLE) < position.lsn || r->peers[node].feed.durable < position.lsn))
        if (!r->acks.active || r->peers[node].feed.state != FEED_STREAMING)
            rc = -ENOTCONN;
        else if (atomic_load(&r->stopping))
            rc = -ESHUTDOWN;
        else if (!repl_wait(r, &r->news, MIN(deadline, clock_boot() + 100 * MS)) && clock_boot() >= deadline)
            rc = -ETIMEDOUT;
    repl_unlock(r);
    return rc;
}

static int tell_switch(struct replicator *r, unsigned node, const struct wire_switch *change, char *why, size_t room) {
    int64_t deadline = clock_boot() + SWITCH_PATIENCE;
    struct frame frame = {.head = {.type = WIRE_SWITCH, .epoch = change->value.epoch}, .change = *change};
    int rc = -ETIMEDOUT;
    repl_lock(r);
    r->switch_answered = false;
    r->switch_told = change->value.epoch;
    r->switch_to = node;
    while (clock_boot() < deadline && !r->switch_answered && !atomic_load(&r->stopping)) {
        int64_t again = MIN(deadline, clock_boot() + SWITCH_AGAIN);
        talk_post(r, node, &frame);
        while (!r->switch_answered && repl_wait(r, &r->news, again))
            ;
    }
    if (r->switch_answered) {
        rc = -(int)r->switch_answer.error;
        snprintf(why, room, "node %s did not take over: %.200s", r->peers[node].node->name, r->switch_answer.text);
    } else {
        snprintf(why, room, "node %s has been named primary but has not said that it is; see its status, or promote one",
                 r->peers[node].node->name);
    }
    r->switch_told = 0;
    repl_unlock(r);
    return rc;
}

/* After store_stop_epoch, when it did not come to a handover: the same node again, in a new epoch. */
static void go_on_as_primary(struct replicator *r) {
    char why[WIRE_TEXT];
    repl_lock(r);
    close_epoch(r);
    repl_unlock(r);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    if (become_primary(r, START_AGAIN, NULL, why, sizeof why)) {
        log_error("this node could not go on as primary: %s", why);
        if (r->volume->front)
            front_become_standby(r->volume->front);
        park_give_up(r->volume->park, -EIO);
    }
}

/* The register did not take the handover. Only if it surely still names this node may this node go on. */
static void handover_failed(struct replicator *r, int rc, const struct register_value *found, char *why, size_t room) {
    bool own = rc != -EINPROGRESS && strcmp(found->primary, own_name(r)) == 0;
    snprintf(why, room, "the register could not be changed: %s; this node %s", strerror(-rc),
             own ? "goes on" : "is primary no more; when the register answers, promote the one that shall be it");
    if (rc == -ESTALE)
        adopt(r, found);
    if (own) {
        go_on_as_primary(r);
        return;
    }
    repl_lock(r);
    close_epoch(r);
    repl_unlock(r);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    if (r->volume->front)
        front_become_standby(r->volume->front);
    park_give_up(r->volume->park, -EIO);
    resume_standby(r);
}

static int hand_over(struct replicator *r, unsigned node, char *why, size_t room) {
    struct reg *reg = r->volume->reg;
    struct position position;
    uint64_t lines[PARK_LINES];
    store_position(r->store, &position);
    repl_lock(r);
    r->changing = true; /* no login, no heartbeat as primary from here on */
    struct register_value expected = r->value, next = r->value;
    next_epoch(r, &position, node, false, &next);
    struct wire_switch change = {.lsn = position.lsn, .value = next};
    memcpy(change.chain, position.chain, CHAIN_SIZE);
    primary_lines(r, lines); /* the drain saw them move; who waits there has heard nothing yet */
    acks_stop(&r->acks);
    repl_unlock(r);
    primary_advance(r, lines);
    int rc = register_settle(reg, &expected, &next);
    if (rc) {
        handover_failed(r, rc, &expected, why, room);
        return rc;
    }
    repl_lock(r);
    r->value = next;
    close_epoch(r);
    repl_unlock(r);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    rc = tell_switch(r, node, &change, why, room);
    if (rc < 0 && rc != -ETIMEDOUT) { /* it said no: it has not begun and will not */
        go_on_as_primary(r);
        return rc;
    }
    if (r->volume->front)
        front_become_standby(r->volume->front);
    park_give_up(r->volume->park, -EIO); /* what came to wait since */
    resume_standby(r);
    if (rc == 0)
        log_info("handed over to node %s", r->peers[node].node->name);
    return rc;
}

static int switchover(struct replicator *r, unsigned node, char *why, size_t room) {
    const char *name = r->peers[node].node->name;
    repl_lock(r);
    const struct peer *peer = &r->peers[node];
    bool primary = r->role == ROLE_PRIMARY, fit = peer->feed.state == FEED_STREAMING && roles_in_set(r, node);
    if (primary && !fit)
        snprintf(why, room, "node %s is not in sync with this one%s%.200s", name, peer->feed.why[0] ? ": " : "",
                 peer->feed.why);
    repl_unlock(r);
    if (!primary) {
        snprintf(why, room, "this node is not primary; ask the primary for the switchover");
        return -EROFS;
    }
    if (!fit)
        return -ENOTCONN;
    if (r->volume->front)
        front_hold(r->volume->front);
    slow_end(r);
    int rc = drain(r, node, clock_boot() + DRAIN_PATIENCE);
    if (rc) {
        snprintf(why, room, "node %s did not get everything onto its disk: %s; this node goes on as primary", name,
                 strerror(-rc));
        if (r->volume->front)
            front_become_primary(r->volume->front);
        return rc;
    }
    store_stop_epoch(r->store);
    rc = drain(r, node, clock_boot() + DRAIN_PATIENCE);
    if (rc) {
        snprintf(why, room, "node %s did not get everything onto its disk: %s; this node goes on as primary", name,
                 strerror(-rc));
        go_on_as_primary(r);
        return rc;
    }
    return hand_over(r, node, why, room);
}

int replicator_switchover(struct replicator *r, const char *node, char *why, size_t room) {
    for (unsigned i = 0; i < r->count; i++) {
        if (i == r->self || strcmp(r->config->nodes[i].name, node) != 0)
            continue;
        PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
        int rc = switchover(r, i, why, room);
        PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
        return rc;
    }
    snprintf(why, room, strcmp(node, own_name(r)) == 0 ? "node %s is this one" : "the volume has no node %s", node);
    return -EINVAL;
}

/* ---- Promotion ------------------------------------------------------------------------------------------------------- */

static int may_promote(struct replicator *r, char *why, size_t room) {
    int64_t since = clock_boot();
    ask_peers_locked(r, ASK_PATIENCE);
    int primary = answering_primary(r, since), rc = 0;
    if (r->role == ROLE_PRIMARY) {
        snprintf(why, room, "this node is primary already");
        rc = -EALREADY;
    } else if (primary >= 0) {
        snprintf(why, room, "node %s is primary and answers; use \"baton switchover\", which loses nothing",
                 r->config->nodes[primary].name);
        rc = -EBUSY;
    } else if (r->value_heard && register_compare(&r->heard_value, &r->value) > 0) {
        snprintf(why, room, "the register has moved on, and this node has not been able to write that down%s%.200s; try again, "
                 "or promote a member of the set", r->trouble[0] ? ": " : "", r->trouble);
        rc = -ESTALE;
    } else if (!register_is_member(&r->value, own_name(r), r->incarnation)) {
        snprintf(why, room, "this store is not in the in-sync set (it may lack what was acknowledged since LSN %" PRIu64
                 "); promote a member of the set, or this one with --force if that loss is accepted", r->position.lsn);
        rc = -ESTALE;
    } else if (!r->set_heard) {
        snprintf(why, room, "this node has not heard from a primary since it started, so another one may have gone on "
                 "without it (this store ends at LSN %" PRIu64 "); start the other node, or promote this one with --force "
                 "if it is sure that nothing newer exists, or if that loss is accepted", r->position.lsn);
        rc = -ESTALE;
    }
    repl_unlock(r);
    return rc;
}

int replicator_promote(struct replicator *r, bool force, char *why, size_t room) {
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    int rc = may_promote(r, why, room);
    if (rc == -ESTALE) { /* what the others said just now may not be in the register here yet */
        take_over_value(r);
        rc = may_promote(r, why, room);
    }
    if (rc == 0 || (force && rc != -EALREADY)) {
        if (rc)
            log_warning("promoted by force, although: %s", why);
        rc = become_primary(r, START_PROMOTED, NULL, why, room);
    }
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    return rc;
}

/* ---- The start ------------------------------------------------------------------------------------------------------- */

static bool ahead_of_us(const struct replicator *r, const struct wire_position *position) {
    if (position->epoch != r->position.epoch)
        return position->epoch > r->position.epoch;
    return position->lsn > r->position.lsn;
}

/* Another member may have what this store lacks: this node is not to begin an epoch over its head. lock held. */
static bool unfit_to_start(struct replicator *r, int64_t since) {
    bool own = r->value.member_count == 0 || register_is_member(&r->value, own_name(r), r->incarnation), all = true;
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        if (i == r->self)
            continue;
        bool member = set_bits(r, &r->value) & 1u << i;
        if (member && peer->heard < since)
            all = false;
        if (peer->heard >= since && ahead_of_us(r, &peer->beat.position)) {
            snprintf(r->trouble, sizeof r->trouble, "node %s has records beyond this store's last one (LSN %" PRIu64
                     "); promote node %s, or this one with --force if losing them is accepted", peer->node->name,
                     r->position.lsn, peer->node->name);
            return true;
        }
    }
    if (own || all)
        return false;
    snprintf(r->trouble, sizeof r->trouble, "this store may lack records that it had acknowledged (its incarnation is not "
             "in the in-sync set) and not all of the set answers; promote a member, or this one with --force");
    return true;
}

int roles_start(struct replicator *r, char *why, size_t room) {
    repl_lock(r);
    bool named = strcmp(r->value.primary, own_name(r)) == 0;
    if (!r->value.primary[0])
        snprintf(r->trouble, sizeof r->trouble, "this node has not heard who is primary since its store was made");
    repl_unlock(r);
    if (!named)
        return 0;
    int64_t since = clock_boot();
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    /* A primary that was lost and comes back must not miss that another one was made meanwhile. */
    ask_peers_locked(r, r->position.lsn ? START_PATIENCE : ASK_PATIENCE);
    bool other = (r->value_heard && r->heard_value.epoch > r->value.epoch) || answering_primary(r, since) >= 0;
    bool fit = !other && !unfit_to_start(r, since);
    if (!fit && r->trouble[0])
        log_warning("%s", r->trouble);
    repl_unlock(r);
    int rc = fit ? become_primary(r, START_ANEW, NULL, why, room) : 0;
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    return rc;
}

/* ---- The keeper ------------------------------------------------------------------------------------------------------ */

static void tell_hold(struct replicator *r, uint64_t told[2]) {
    uint64_t absent = 0;
    repl_lock(r);
    uint64_t hold = roles_hold(r, &absent), all = r->hold_told;
    repl_unlock(r);
    if (hold != told[0] || absent != told[1])
        store_set_hold(r->store, hold, absent);
    told[0] = hold;
    told[1] = absent;
    int64_t now = clock_boot();
    if (all == r->hold_saved || now - r->hold_saved_at < HOLD_SAVE)
        return;
    r->hold_saved = all;
    r->hold_saved_at = now;
    store_lock(r->store);
    if (store_meta_put(r->store, "hold", &all, sizeof all) != 0)
        log_warning("the position that every node has could not be noted; it is told again");
    store_unlock(r->store);
}

void *keeper_thread(void *argument) {
    struct replicator *r = argument;
    uint64_t told[2] = {0, 0};
    while (!atomic_load(&r->stopping)) {
        /* Somebody else changes the role: what there is to do is done after that. */
        if (pthread_mutex_trylock(&r->role_lock) == 0) {
            look_again(r);
            take_over_value(r);
            take_switch(r);
            rollback_consider(r);
            set_consider(r);
            PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
        }
        tell_hold(r, told);
        standby_look_for_room(r);
        repl_lock(r);
        repl_sleep(r, &r->keep_work, KEEPER_TICK);
        repl_unlock(r);
    }
    return NULL;
}
