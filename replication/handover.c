/* A planned handover: everything is drained onto the other node's disk, this node stops acknowledging, its store ends the
 * epoch, the register names the other one, then that one is told and begins. With a lease, the register's change ends this
 * node's before it is sent, and the other one takes it.
 */
#include "exporters/exports.h"
#include "fs/events.h"
#include "fs/front.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define DRAIN_PATIENCE (10000 * MS) /* of a switchover */
#define SWITCH_PATIENCE (5000 * MS)
#define LEAVE_PATIENCE (700 * MS) /* the same, of a process that ends: the register names the other one already */
#define SWITCH_AGAIN (400 * MS) /* word or answer may be lost on the way */

/* ---- Switchover: the new primary's side ------------------------------------------------------------------------------ */

static int judge_switch(struct replicator *r, const struct wire_switch *asked, char *why, size_t room) {
    const struct register_value *value = &asked->value;
    int rc = -EINVAL;
    repl_lock(r);
    bool newer = value->epoch > r->value.epoch || register_compare(value, &r->value) == 0;
    if (r->leaving)
        snprintf(why, room, "it is about to stop");
    else if (r->role == ROLE_PRIMARY && value->epoch == r->value.epoch)
        rc = 0; /* asked again: done already */
    else if (r->unsure) /* it may be chosen in that one's place, or be newer */
        snprintf(why, room, "what this node has proposed to the register itself may still be chosen");
    else if (value->epoch <= r->switch_refused)
        snprintf(why, room, "it has said no to this handover before");
    else if (r->role == ROLE_PRIMARY || !newer)
        rc = -ESTALE, snprintf(why, room, "the register has moved on: node %s is primary", r->value.primary);
    else if (strcmp(value->primary, roles_own_name(r)) != 0 || EPOCH_NODE(value->epoch) != r->config->nodes[r->self].number ||
             !register_is_member(value, roles_own_name(r), r->incarnation))
        snprintf(why, room, "another store is meant");
    else if (asked->lsn != r->position.lsn || memcmp(asked->chain, r->position.chain, CHAIN_SIZE) != 0)
        snprintf(why, room, "this store is at LSN %" PRIu64 ", not at %" PRIu64, r->position.lsn, asked->lsn);
    else
        rc = 1;
    repl_unlock(r);
    return rc;
}

void handover_take(struct replicator *r) {
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
        roles_takeover_begin(r, "handed over");
    if (rc > 0)
        rc = roles_become_primary(r, &(struct beginning){.start = START_HANDED_OVER, .given = &asked.value}, reply.switched.text,
                                  WIRE_TEXT);
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
    int64_t deadline = clock_boot() + (r->leaving ? LEAVE_PATIENCE : SWITCH_PATIENCE);
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

/* The mount's gate. At the end of this process the mount has gone before. */
static struct front *gate(const struct replicator *r) {
    return atomic_load(&r->volume->stopping) ? NULL : r->volume->front;
}

/* A standby, whatever becomes of the handover. */
static void cease(struct replicator *r) {
    repl_lock(r);
    roles_close_epoch(r);
    repl_unlock(r);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    if (gate(r))
        front_become_standby(gate(r));
    park_give_up(r->volume->park, -EIO);
}

/* After store_stop_epoch, when it did not come to a handover: the same node again, in a new epoch. */
static void go_on_as_primary(struct replicator *r) {
    char why[WIRE_TEXT];
    if (r->leaving) {
        cease(r);
        roles_resume_standby(r);
        return;
    }
    repl_lock(r);
    roles_close_epoch(r);
    repl_unlock(r);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    roles_takeover_begin(r, "went on after a handover that came to nothing");
    if (roles_become_primary(r, &(struct beginning){.start = START_AGAIN}, why, sizeof why)) {
        log_error("this node could not go on as primary: %s", why);
        if (gate(r))
            front_become_standby(gate(r));
        park_give_up(r->volume->park, -EIO);
    }
}

/* The register did not take the handover. Only if it surely still names this node may this node go on. */
static void handover_failed(struct replicator *r, int rc, const struct register_value *found, char *why, size_t room) {
    bool own = rc != -EINPROGRESS && strcmp(found->primary, roles_own_name(r)) == 0;
    snprintf(why, room, "the register could not be changed: %s; this node %s", strerror(-rc),
             own         ? "goes on"
             : r->elects ? "is primary no more; when the register answers, a member of the set becomes it"
                         : "is primary no more; when the register answers, promote the one that shall be it");
    if (rc == -ESTALE)
        roles_adopt(r, found);
    if (own) {
        go_on_as_primary(r);
        return;
    }
    cease(r);
    candidate_give_up(r);
    roles_resume_standby(r);
}

static int hand_over(struct replicator *r, unsigned node, char *why, size_t room) {
    struct position position;
    uint64_t lines[PARK_LINES];
    store_position(r->store, &position);
    repl_lock(r);
    r->changing = true; /* no login, no heartbeat as primary from here on */
    struct register_value expected = r->value, next = r->value;
    roles_next_epoch(r, &position, node, false, &next);
    struct wire_switch change = {.lsn = position.lsn, .value = next};
    memcpy(change.chain, position.chain, CHAIN_SIZE);
    primary_lines(r, lines); /* the drain saw them move; who waits there has heard nothing yet */
    acks_stop(&r->acks);
    repl_unlock(r);
    primary_advance(r, lines);
    int rc = proposed_write(r, &expected, &next);
    if (rc) {
        handover_failed(r, rc, &expected, why, room);
        return rc;
    }
    repl_lock(r);
    r->value = next;
    elect_value(&r->elect, false, true, clock_boot());
    roles_close_epoch(r);
    repl_unlock(r);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    rc = tell_switch(r, node, &change, why, room);
    if (rc < 0 && rc != -ETIMEDOUT) { /* it said no: it has not begun and will not */
        go_on_as_primary(r);
        return rc;
    }
    if (gate(r))
        front_become_standby(gate(r));
    park_give_up(r->volume->park, -EIO); /* what came to wait since */
    roles_resume_standby(r);
    if (rc == 0) {
        log_info("handed over to node %s", r->peers[node].node->name);
        volume_event(r->volume, "handed-over", json_pack("{s:s}", "to", r->peers[node].node->name), "handed over to node %s",
                     r->peers[node].node->name);
    }
    return rc;
}

int handover_to(struct replicator *r, unsigned node, int64_t patience, char *why, size_t room) {
    const char *name = r->peers[node].node->name;
    repl_lock(r);
    const struct peer *peer = &r->peers[node];
    bool primary = r->role == ROLE_PRIMARY, stays = peer->beat.flags & BEAT_STAYS, fit = peer->feed.state == FEED_STREAMING && roles_in_set(r, node);
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
    if (stays) {
        snprintf(why, room, "node %s is kept as standby; \"baton standby --end\" there ends that", name);
        return -EPERM;
    }
    exports_end(r->volume, false); /* while operations are answered still */
    if (gate(r))
        front_hold(gate(r));
    slow_end(r);
    int rc = drain(r, node, clock_boot() + patience);
    if (rc) {
        snprintf(why, room, "node %s did not get everything onto its disk: %s; this node goes on as primary", name,
                 strerror(-rc));
        if (gate(r))
            front_become_primary(gate(r));
        if (gate(r))
            exports_begin(r->volume, r->value.epoch);
        return rc;
    }
    store_stop_epoch(r->store);
    rc = drain(r, node, clock_boot() + patience);
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
        int rc = handover_to(r, i, DRAIN_PATIENCE, why, room);
        PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
        return rc;
    }
    snprintf(why, room, strcmp(node, roles_own_name(r)) == 0 ? "node %s is this one" : "the volume has no node %s", node);
    return -EINVAL;
}


/* ---- The end --------------------------------------------------------------------------------------------------------- */

static bool better_successor(const struct replicator *r, unsigned node, unsigned than) {
    bool broken = r->peers[node].beat.flags & BEAT_BROKEN, than_broken = r->peers[than].beat.flags & BEAT_BROKEN;
    return broken != than_broken ? than_broken : strcmp(r->peers[node].node->name, r->config->preferred) == 0;
}

int handover_successor(struct replicator *r) {
    int found = -1;
    int64_t now = clock_boot();
    repl_lock(r);
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        bool fit = i != r->self && peer->feed.state == FEED_STREAMING && roles_in_set(r, i) && now - peer->heard < r->lease &&
                   !(peer->beat.flags & (BEAT_STAYS | BEAT_SICK | BEAT_LEAVES)) && (!(peer->beat.flags & BEAT_BROKEN) || r->leaving);
        if (fit && (found < 0 || better_successor(r, i, (unsigned)found)))
            found = (int)i;
    }
    repl_unlock(r);
    return found;
}

/* Nobody is there to go on: everything is on disk, then nothing is acknowledged any more. */
static void end_epoch(struct replicator *r) {
    struct position position;
    uint64_t lines[PARK_LINES];
    exports_end(r->volume, false);
    slow_end(r);
    store_stop_epoch(r->store);
    store_position(r->store, &position);
    if (store_sync(r->store, position.lsn))
        log_error("what this store has cannot be brought to its disk");
    repl_lock(r);
    r->changing = true;
    primary_lines(r, lines);
    acks_stop(&r->acks);
    repl_unlock(r);
    primary_advance(r, lines);
    cease(r);
    roles_resume_standby(r);
}

static void leave(struct replicator *r, int64_t patience) {
    char why[WIRE_TEXT] = "";
    int64_t deadline = clock_boot() + patience;
    bool locked = false;
    repl_lock(r);
    r->leaving = true;
    r->beat_now = true;
    repl_unlock(r);
    talk_wake(r);
    while (!(locked = pthread_mutex_trylock(&r->role_lock) == 0) && clock_boot() < deadline)
        usleep(1000);
    if (!locked) { /* the keeper hangs with the disk, or with the register: the lease ends all the same */
        candidate_give_up(r);
        return;
    }
    if (atomic_load(&r->volume->role) == ROLE_PRIMARY) {
        int node = handover_successor(r);
        if (node >= 0 && handover_to(r, (unsigned)node, (deadline - clock_boot()) / 3, why, sizeof why) != 0)
            log_warning("nothing was handed over at the end: %s", why);
    }
    if (atomic_load(&r->volume->role) == ROLE_PRIMARY)
        end_epoch(r);
    candidate_give_up(r);
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
}

void replicator_leave(struct replicator *r, int64_t patience) {
    if (r && r->elects)
        leave(r, patience);
}
