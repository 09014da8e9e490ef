/* Roles: who this node is at its start, becoming primary, stepping down; and the keeper, the thread in which all that happens
 * unasked. handover.c hands over, promote.c is asked by a person, candidate.c stands for primary by itself.
 *
 * Order, always: a new primary first stops its receiver (what it acknowledged is applied by then), then the register
 * names it, then it has the lease (where there is one), then its store begins the epoch, then changes are let in. An old one stops acknowledging, then its store
 * ends the epoch, then the register names another one, then that one is told.
 */
#include "exporters/exports.h"
#include "fs/events.h"
#include "fs/front.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define START_PATIENCE (3000 * MS)  /* the same at a start: links may be coming up with us */
#define KEEPER_TICK (50 * MS)
#define KEEPER_CALM (500 * MS)
#define HOLD_SAVE (1000 * MS) /* how often the position that every node has is noted in the store */

const char *roles_own_name(const struct replicator *r) {
    return r->config->nodes[r->self].name;
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

static bool all_heard_since(const struct replicator *r, uint32_t bits, int64_t since) {
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && (bits & 1u << i) && r->peers[i].heard < since)
            return false;
    return true;
}

void roles_ask_locked(struct replicator *r, uint32_t bits, int64_t patience) {
    int64_t since = clock_boot();
    repl_lock(r);
    r->beat_now = true;
    talk_wake(r);
    while (!all_heard_since(r, bits, since) && repl_wait(r, &r->news, since + patience))
        ;
}

int roles_answering_primary(const struct replicator *r, int64_t since) {
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        if (i != r->self && peer->heard >= since && peer->beat.role == ROLE_PRIMARY &&
            peer->beat.value.epoch >= r->value.epoch)
            return (int)i;
    }
    return -1;
}

/* ---- Becoming primary ------------------------------------------------------------------------------------------------ */

void roles_resume_standby(struct replicator *r) {
    repl_lock(r);
    if (!r->unsure) {
        follow_start(&r->follow, r->lease, clock_boot());
        r->changing = false;
    }
    r->beat_now = true;
    repl_unlock(r);
    talk_wake(r);
}

void roles_adopt(struct replicator *r, const struct register_value *found) {
    repl_lock(r);
    if (register_compare(found, &r->value) > 0) {
        bool began = found->epoch != r->value.epoch;
        r->value = *found;
        elect_value(&r->elect, strcmp(found->primary, roles_own_name(r)) == 0, began, clock_boot());
    }
    repl_unlock(r);
}

/* A promotion takes the counter after the next one: the primary that it did not hear of may be handing over to this very
 * node, and the value that it makes for that has the next one. Two values of one epoch would hide each other's set. */
void roles_next_epoch(struct replicator *r, const struct position *position, unsigned node, bool promoted,
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
    /* A store whose epoch before was never ended may have gone on. */
    r->ring_first = MAX(position->lsn, r->position.lsn) + 1;
    r->primary_since = clock_boot();
    r->role = ROLE_PRIMARY;
    for (unsigned i = 0; i < r->count; i++)
        if (r->peers[i].feed.state == FEED_ABSENT)
            feed_end(&r->peers[i].feed, "it has not logged in since this node became primary");
    r->set_heard = true;
    repl_unlock(r);
}

void roles_close_epoch(struct replicator *r) { /* lock held */
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

/* The value that makes this node primary, and the one that it is made from. */
static void make_value(struct replicator *r, const struct beginning *beginning, const struct position *position,
                       struct register_value *expected, struct register_value *next) {
    bool promoted = beginning->start == START_PROMOTED || beginning->start == START_ELECTED;
    repl_lock(r);
    *expected = r->value;
    *next = beginning->given ? *beginning->given : r->value;
    if (!beginning->given) {
        if (r->elects && r->value.version == 0 && r->born.version) { /* what the volume was until now */
            next->member_count = r->born.member_count;
            memcpy(next->members, r->born.members, sizeof next->members);
        }
        roles_next_epoch(r, position, r->self, promoted, next);
        if (beginning->start == START_PROMOTED)
            next->member_count = 0;
        if (beginning->start == START_ELECTED && r->value.version)
            set_keep(r, beginning->keep, next);
        set_add_self(r, next);
    }
    repl_unlock(r);
}

/* Fewer answer for what was acknowledged, or this node alone: then with the disk, as when a set shrinks. And a value that names
 * where its epoch begins is to find that there after a power cut of all, or nobody may be primary (may_after_loss); what is
 * handed over was drained before. */
static bool answers_with_disk(const struct replicator *r, enum start start) {
    return start == START_PROMOTED || (r->elects && (start == START_ELECTED || start == START_AGAIN));
}

/* The first value got its voters from the engine, which knows it, also when no majority answers any more (-ENOTCONN). */
static void fill_voters(struct replicator *r, struct register_value *next) {
    struct register_value found = {.version = 0};
    if (!r->elects || next->version != 1)
        return;
    int rc = r->volume->reg->engine->read(r->volume->reg, &found);
    if ((rc == 0 || rc == -ENOTCONN) && register_compare(&found, next) == 0) {
        next->voter_count = found.voter_count;
        memcpy(next->voters, found.voters, sizeof next->voters);
    }
}

/* The value is chosen, or found to be: 0. */
static int choose(struct replicator *r, const struct beginning *beginning, struct register_value *expected,
                  struct register_value *next) {
    struct reg *reg = r->volume->reg;
    if (EPOCH_COUNTER(next->epoch) > EPOCH_COUNTER_MAX)
        return -ERANGE;
    if (register_compare(next, expected) == 0) /* a given value may have arrived by heartbeat before */
        return 0;
    if (!beginning->given || !r->elects) {
        int rc = proposed_write(r, expected, next);
        if (rc == 0)
            fill_voters(r, next);
        return rc;
    }
    if (register_compare(next, expected) < 0)
        return -ESTALE;
    if (reg->engine->learn) /* who gives it has had it chosen */
        reg->engine->learn(reg, next);
    return 0;
}

static int not_chosen(struct replicator *r, int rc, const struct register_value *found, char *why, size_t why_room) {
    snprintf(why, why_room, "the register could not be changed: %s%s", strerror(-rc),
             rc == -ESTALE ? " (it has moved on; look at the status, and try again)" : "");
    if (rc == -ESTALE)
        roles_adopt(r, found);
    roles_resume_standby(r);
    return rc;
}

static void tell_primary(struct replicator *r, const struct register_value *next, const struct position *position) {
    char epoch[40];
    snprintf(epoch, sizeof epoch, "%" PRIu64 ".%u", EPOCH_COUNTER(next->epoch), EPOCH_NODE(next->epoch));
    json_t *detail = json_pack("{s:s, s:I}", "epoch", epoch, "lsn", (json_int_t)position->lsn);
    repl_lock(r);
    if (r->takeover.how)
        json_object_set_new(detail, "takeover", candidate_takeover(r));
    repl_unlock(r);
    volume_event(r->volume, "primary", detail, "this node is primary, from LSN %" PRIu64 " on", position->lsn + 1);
}

static void serve(struct replicator *r, const struct register_value *next, const struct position *position) {
    atomic_store(&r->volume->role, ROLE_PRIMARY);
    if (r->volume->front)
        front_become_primary(r->volume->front);
    exports_begin(r->volume, next->epoch);
    roles_takeover_mark(r, TAKEOVER_MOUNT);
    repl_lock(r);
    r->changing = false;
    r->trouble[0] = 0;
    r->beat_now = true;
    elect_serves(&r->elect);
    r->taking.epoch = next->epoch;
    r->taking.at = clock_now();
    r->takeover = r->taking;
    pthread_cond_broadcast(&r->news);
    keep_wake(r);
    repl_unlock(r);
    talk_wake(r);
    log_info("primary in epoch %" PRIu64 " from LSN %" PRIu64, EPOCH_COUNTER(next->epoch), position->lsn + 1);
    tell_primary(r, next, position);
}

int roles_become_primary(struct replicator *r, const struct beginning *beginning, char *why, size_t why_room) {
    enum start start = beginning->start;
    struct position position;
    struct register_value expected, next;
    repl_lock(r);
    r->changing = true;
    repl_unlock(r);
    standby_quiesce(r);
    roles_takeover_mark(r, TAKEOVER_RECEIVER);
    store_position(r->store, &position);
    if (answers_with_disk(r, start) && store_sync(r->store, position.lsn)) {
        snprintf(why, why_room, "what this store has cannot be brought to its disk");
        roles_resume_standby(r);
        return -EIO;
    }
    store_position(r->store, &position);
    roles_takeover_mark(r, TAKEOVER_DISK);
    make_value(r, beginning, &position, &expected, &next);
    int rc = choose(r, beginning, &expected, &next);
    if (rc)
        return not_chosen(r, rc, &expected, why, why_room);
    roles_takeover_mark(r, TAKEOVER_BALLOT);
    rc = candidate_take_lease(r, &next, why, why_room);
    if (rc) {
        roles_adopt(r, &next);
        roles_resume_standby(r);
        return rc;
    }
    roles_takeover_mark(r, TAKEOVER_LEASE);
    uint64_t line = known_line(r, start, &position);
    if (start != START_AGAIN)
        park_reset(r->volume->park, line);
    open_epoch(r, &next, &position, start, line);
    rc = store_start_epoch(r->store, next.epoch, roles_own_name(r));
    if (rc) {
        snprintf(why, why_room, "the store cannot begin epoch %" PRIu64 ": %s", EPOCH_COUNTER(next.epoch), strerror(-rc));
        repl_lock(r);
        roles_close_epoch(r);
        repl_unlock(r);
        candidate_give_up(r);
        roles_resume_standby(r);
        return rc;
    }
    roles_takeover_mark(r, TAKEOVER_EPOCH);
    serve(r, &next, &position);
    return 0;
}

void roles_takeover_begin(struct replicator *r, const char *how) {
    repl_lock(r);
    r->taking = (struct takeover){.how = how, .mark = clock_boot()};
    repl_unlock(r);
}

void roles_takeover_mark(struct replicator *r, enum takeover_phase phase) {
    int64_t now = clock_boot();
    repl_lock(r);
    r->taking.phases[phase] += now - r->taking.mark;
    r->taking.mark = now;
    repl_unlock(r);
}

/* ---- Ceasing --------------------------------------------------------------------------------------------------------- */

void roles_step_down(struct replicator *r, const char *why) {
    repl_lock(r);
    r->changing = true;
    acks_stop(&r->acks);
    repl_unlock(r);
    log_warning("%s: this node is no longer primary", why);
    volume_event(r->volume, "standby", json_pack("{s:s}", "why", why), "%s: this node is no longer primary", why);
    slow_end(r);
    exports_end(r->volume, true); /* before anybody who waits in the mount is told of an error */
    if (r->elects) /* the store may be what hangs: nobody who waits hangs with it */
        park_give_up(r->volume->park, -EIO);
    store_stop_epoch(r->store);
    repl_lock(r);
    roles_close_epoch(r);
    repl_unlock(r);
    park_give_up(r->volume->park, -EIO);
    atomic_store(&r->volume->role, ROLE_STANDBY);
    if (r->volume->front)
        front_become_standby(r->volume->front);
    park_give_up(r->volume->park, -EIO);
    candidate_give_up(r);
    roles_resume_standby(r);
}

/* What an engine that decides has chosen is not this node's to write down. */
static void learn_value(struct replicator *r, const struct register_value *next) {
    struct reg *reg = r->volume->reg;
    struct register_value value = *next;
    if (value.voter_count == 0 && r->value.voter_count && reg->engine->read(reg, &value) != 0)
        return; /* from a node that does not know of voters */
    if (reg->engine->learn)
        reg->engine->learn(reg, &value);
    repl_lock(r);
    if (r->role == ROLE_PRIMARY && value.epoch == r->value.epoch) { /* its voters have changed, or it is what it proposed */
        set_withdraw(r);
        if (!r->acks.pending) { /* else the one who proposed finds it */
            r->value = value;
            acks_adopt(&r->acks, set_bits(r, &value));
        }
        repl_unlock(r);
        return;
    }
    repl_unlock(r);
    roles_adopt(r, &value);
}

void roles_take_over_value(struct replicator *r) {
    repl_lock(r);
    struct register_value expected = r->value, next = r->heard_value;
    bool news = r->value_heard && register_compare(&next, &expected) > 0, primary = r->role == ROLE_PRIMARY;
    bool word = r->heard_word;
    r->value_heard = false;
    repl_unlock(r);
    if (!news)
        return;
    if (primary && !(r->elects && next.epoch == expected.epoch))
        roles_step_down(r, "a higher epoch exists");
    if (r->elects) {
        learn_value(r, &next);
        return;
    }
    bool knew_none = !expected.primary[0];
    int rc = register_settle(r->volume->reg, &expected, &next);
    repl_lock(r);
    if (rc == 0 || rc == -ESTALE) {
        if (knew_none || r->behind)
            r->trouble[0] = 0;
        r->behind = false;
        r->value = rc ? expected : next;
        if (rc == 0 && word && r->heard_word) /* no record was refused meanwhile */
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

/* ---- The start ------------------------------------------------------------------------------------------------------- */

static bool ahead_of_us(const struct replicator *r, const struct wire_position *position) {
    if (position->epoch != r->position.epoch)
        return position->epoch > r->position.epoch;
    return position->lsn > r->position.lsn;
}

/* Another member may have what this store lacks: this node is not to begin an epoch over its head. lock held. */
static bool unfit_to_start(struct replicator *r, int64_t since) {
    bool own = r->value.member_count == 0 || register_is_member(&r->value, roles_own_name(r), r->incarnation), all = true;
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
    bool named = strcmp(r->value.primary, roles_own_name(r)) == 0;
    if (!r->elects && !r->value.primary[0])
        snprintf(r->trouble, sizeof r->trouble, "this node has not heard who is primary since its store was made");
    repl_unlock(r);
    if (r->elects) /* as any standby */
        return 0;
    if (!named)
        return 0;
    int64_t since = clock_boot();
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    /* A primary that was lost and comes back must not miss that another one was made meanwhile. */
    roles_ask_locked(r, ~0u, r->position.lsn ? START_PATIENCE : ASK_PATIENCE);
    bool other = (r->value_heard && r->heard_value.epoch > r->value.epoch) || roles_answering_primary(r, since) >= 0;
    bool fit = !other && !unfit_to_start(r, since);
    if (!fit && r->trouble[0])
        log_warning("%s", r->trouble);
    repl_unlock(r);
    roles_takeover_begin(r, "started");
    int rc = fit ? roles_become_primary(r, &(struct beginning){.start = START_ANEW}, why, room) : 0;
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

void keep_wake(struct replicator *r) {
    r->keep_asked = true;
    pthread_cond_signal(&r->keep_work);
}

/* While it is calm, only what duty.c looks at now and then; whatever else there may be to do wakes the keeper. */
static void keeper_sleep(struct replicator *r, bool looked) {
    repl_lock(r);
    bool calm = looked && r->calm && calm_lasts(r);
    if (!r->keep_asked)
        repl_sleep(r, &r->keep_work, calm ? MAX(MIN(r->lease / 4, KEEPER_CALM), KEEPER_TICK) : KEEPER_TICK);
    r->keep_asked = false;
    repl_unlock(r);
}

void *keeper_thread(void *argument) {
    struct replicator *r = argument;
    uint64_t told[2] = {0, 0};
    while (!atomic_load(&r->stopping)) {
        /* Somebody else changes the role: what there is to do is done after that. */
        bool looked = pthread_mutex_trylock(&r->role_lock) == 0;
        atomic_fetch_add(&r->looks, 1);
        if (looked) {
            proposed_look_again(r);
            roles_take_over_value(r);
            handover_take(r);
            rollback_consider(r);
            candidate_consider(r);
            set_consider(r);
            duty_consider(r);
            service_consider(r);
            fencing_consider(r);
            PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
        }
        tell_hold(r, told);
        standby_look_for_room(r);
        keeper_sleep(r, looked);
    }
    return NULL;
}
