/* This node's lease. What is published (lease_shared.until) only grows, until it has run out or was given up; after that it is
 * over for ever in its epoch. lease.h counts, and says what changes of the list of voters mean to it.
 */
#include "membership/voters_parts.h"

#include <stdio.h>
#include <sys/random.h>

#define PAUSE_UNHELD_FIRST (50 * MS) /* what is not held yet is waited for by users */
#define PAUSE_UNHELD_MOST (1000 * MS)

void holding_init(struct voters *v) {
    for (unsigned i = 0; i < RENEWALS; i++)
        v->holding.renewals[i].sent = INT64_MIN;
    atomic_store(&v->shared->until, INT64_MIN);
    atomic_store(&v->shared->epoch, 0);
    atomic_store(&v->shared->session, 0);
}

static void publish(struct voters *v, int64_t now) {
    struct holding *holding = &v->holding;
    int64_t until = lease_until(&holding->lease);
    if (!holding->asked || until <= now || until <= atomic_load(&v->shared->until))
        return;
    holding->held = true;
    atomic_store(&v->shared->until, until);
}

static void end(struct voters *v) {
    v->holding.asked = v->holding.held = false;
    lease_give_up(&v->holding.lease);
    atomic_store(&v->shared->until, INT64_MIN);
    PROMISE(pthread_cond_broadcast(&v->changed) == 0);
}

static void lose(struct voters *v) {
    end(v);
    voters_tell_lost(v, v->holding.lease.epoch);
}

/* What a majority does not grant for so long is asked for no more: some voters may grant it, and hold others up by that. */
static int64_t asked_until(const struct voters *v) {
    return v->holding.taken + 2 * v->duration + VOTERS_TAKE_MORE;
}

int64_t holding_pause(struct voters *v) {
    struct holding *holding = &v->holding;
    if (holding->held)
        return v->duration / 4;
    int64_t pause = holding->pause;
    holding->pause = MIN(2 * pause, MIN(v->duration / 4, PAUSE_UNHELD_MOST));
    return pause;
}

void holding_look(struct voters *v, int64_t now) {
    const struct holding *holding = &v->holding;
    if (holding->asked && now >= (holding->held ? atomic_load(&v->shared->until) : asked_until(v)))
        lose(v);
}

/* ---- Which voters count ---------------------------------------------------------------------------------------------- */

unsigned holding_seats(const struct voters *v) {
    const struct lease *lease = &v->holding.lease;
    unsigned seats = seats_of(v, lease->list.voters, lease->list.count);
    return lease->proposed_version ? seats | seats_of(v, lease->proposed.voters, lease->proposed.count) : seats;
}

static bool names_this_lease(const struct voters *v, const struct register_value *value) {
    return value->epoch == v->holding.lease.epoch && strcmp(value->primary, v->self->name) == 0;
}

bool holding_before_accept(struct voters *v, const struct register_value *value, bool foreign) {
    struct holding *holding = &v->holding;
    bool own_known = v->known.version > 0 && strcmp(v->known.primary, v->self->name) == 0;
    if (own_known && (value->epoch != v->known.epoch || strcmp(value->primary, v->self->name) != 0))
        holding->barred = MAX(holding->barred, v->known.epoch);
    if (!holding->asked)
        return true;
    if (!names_this_lease(v, value)) {
        if (foreign)
            lose(v);
        else
            end(v);
        return true;
    }
    if (!lease_may_propose(&holding->lease, value))
        return false;
    lease_proposed(&holding->lease, value);
    if (lease_unsettled(&holding->lease))
        holding->next_renewal = 0; /* from the new one as well, at once */
    return true;
}

void holding_follow(struct voters *v) {
    struct holding *holding = &v->holding;
    if (!holding->asked || v->known.epoch < holding->lease.epoch)
        return; /* it is news of before */
    if (!names_this_lease(v, &v->known)) {
        lose(v);
        return;
    }
    lease_voters(&holding->lease, &v->known);
    publish(v, clock_boot());
}

bool holding_backed(const struct voters *v, int64_t now) {
    return v->holding.asked && v->holding.held && lease_backed(&v->holding.lease, now);
}

/* ---- Renewals -------------------------------------------------------------------------------------------------------- */

void holding_renewal(struct voters *v, uint64_t number, int64_t now) {
    struct holding *holding = &v->holding;
    holding->renewals[holding->renewal_next].number = number;
    holding->renewals[holding->renewal_next].sent = now;
    holding->renewal_next = (holding->renewal_next + 1) % RENEWALS;
}

void holding_granted(struct voters *v, const char *voter, const uint8_t id[16], uint64_t number, int64_t now) {
    struct holding *holding = &v->holding;
    holding_look(v, now); /* what has run out while this process stood still is not revived by what waited for it */
    if (!holding->asked)
        return;
    for (unsigned i = 0; i < RENEWALS; i++)
        if (holding->renewals[i].number == number && holding->renewals[i].sent != INT64_MIN)
            lease_granted(&holding->lease, voter, id, holding->renewals[i].sent);
    publish(v, now);
}

/* ---- Taking and giving up -------------------------------------------------------------------------------------------- */

static int take(struct voters *v, const struct register_value *value) {
    struct holding *holding = &v->holding;
    uint64_t session = 0;
    if (value->epoch == 0 || strcmp(value->primary, v->self->name) != 0)
        return -EINVAL;
    if (value->epoch <= holding->barred || v->stopping)
        return -EALREADY;
    voters_note(v, value, false);
    if (v->known.epoch != value->epoch || strcmp(v->known.primary, value->primary) != 0)
        return v->known.epoch > value->epoch ? -ESTALE : -EINVAL;
    while (session == 0)
        PROMISE(getrandom(&session, sizeof session, 0) == sizeof session);
    if (holding->asked)
        end(v); /* of an older epoch */
    round_end(v, &v->release);
    lease_begin(&holding->lease, &v->known, session, v->duration);
    holding->asked = true;
    holding->held = holding->unfit = false;
    holding->barred = value->epoch;
    holding->next_renewal = 0;
    holding->taken = clock_boot();
    holding->pause = MIN(v->duration / 8, PAUSE_UNHELD_FIRST);
    for (unsigned i = 0; i < RENEWALS; i++)
        holding->renewals[i].sent = INT64_MIN;
    atomic_store(&v->shared->until, INT64_MIN);
    atomic_store(&v->shared->session, session);
    atomic_store(&v->shared->epoch, value->epoch);
    asker_kick(v);
    return 0;
}

int voters_take(struct reg *reg, const struct register_value *value) {
    struct voters *v = (struct voters *)reg;
    voters_lock(v);
    int rc = take(v, value);
    voters_unlock(v);
    return rc;
}

static void released(struct round *round, unsigned seat, const struct ask_answer *answer) {
    (void)seat, (void)answer; /* whatever it says: it holds nobody up for this lease any more */
    struct voters *v = (struct voters *)((char *)round - offsetof(struct voters, release));
    if (v->holding.asked)
        return;
    atomic_store(&v->shared->epoch, 0);
    atomic_store(&v->shared->session, 0);
}

void holding_give_up(struct voters *v) {
    struct lease *lease = &v->holding.lease;
    unsigned to = holding_seats(v) | seats_of(v, v->known.voters, v->known.voter_count);
    if (v->holding.asked)
        end(v);
    if (lease->epoch == 0)
        return;
    round_end(v, &v->release);
    v->release = (struct round){.question = {.type = ASK_RELEASE, .epoch = lease->epoch, .session = lease->session},
                                .answer = released};
    round_begin(v, &v->release, to);
    v->release.until = clock_boot() + MAX(v->duration, 500 * MS); /* then the grants have run out, or nearly */
    lease->epoch = 0; /* once is enough */
}

void voters_give_up(struct reg *reg) {
    struct voters *v = (struct voters *)reg;
    voters_lock(v);
    holding_give_up(v);
    voters_unlock(v);
}

/* ---- Whether somebody holds it --------------------------------------------------------------------------------------- */

#define FREE_STRAGGLERS (30 * MS) /* a majority has answered: so long the answers of others are waited for */

/* 0, -EBUSY (then `holder` and `wait` are set), or -EAGAIN: not enough answers yet. `*enough`: a majority has answered, and those
 * that have not may yet let this node in; that is -EBUSY as well if they do not. */
static int judge_free(const struct voters *v, const struct look *look, const struct register_value *value, char holder[64],
                      int64_t *wait, bool *enough) {
    unsigned needed = value->voter_count / 2 + 1, yes = 0, no = 0;
    int64_t waits[REGISTER_VOTERS_MAX];
    for (unsigned i = 0; i < value->voter_count; i++) {
        const struct voter_answer *answer = look_of(v, look, &value->voters[i]);
        if (!answer)
            continue;
        if (answer->verdict == VOTER_HELD || answer->verdict == VOTER_QUIET) {
            unsigned at = no++; /* sorted */
            for (; at > 0 && waits[at - 1] > answer->wait; at--)
                waits[at] = waits[at - 1];
            waits[at] = answer->wait;
            if (answer->verdict == VOTER_HELD)
                memcpy(holder, answer->holder, 64);
        } else {
            yes++;
        }
    }
    if (yes >= needed)
        return 0;
    *enough = yes + no >= needed;
    if (*enough)
        *wait = waits[needed - yes - 1];
    return !*enough || no <= value->voter_count - needed ? -EAGAIN : -EBUSY;
}

int voters_free(struct reg *reg, char holder[64], int64_t *wait) {
    struct voters *v = (struct voters *)reg;
    struct look look;
    int64_t patience = MIN(MAX(v->duration / 4, VOTERS_FREE_LEAST), VOTERS_FREE_MOST), deadline = clock_boot() + patience;
    holder[0] = '\0';
    *wait = 0;
    voters_enter(v);
    look_begin(v, &look, v->known.version ? seats_of(v, v->known.voters, v->known.voter_count) : look_everybody(v));
    bool enough = false;
    int rc;
    do {
        struct register_value list = v->known;
        if (list.version == 0) /* then nobody holds anything: it is enough that they answer */
            list_at_birth(v, &look, &list);
        round_more(v, &look.round, seats_of(v, list.voters, list.voter_count));
        bool had_enough = enough;
        rc = judge_free(v, &look, &list, holder, wait, &enough);
        if (enough && !had_enough)
            deadline = MIN(deadline, clock_boot() + FREE_STRAGGLERS);
    } while (rc == -EAGAIN && voters_wait(v, deadline));
    round_end(v, &look.round);
    voters_leave(v);
    return rc == -EAGAIN ? (enough ? -EBUSY : -ENOTCONN) : rc;
}

/* ---- What status shows ----------------------------------------------------------------------------------------------- */

static void view_voter(const struct voters *v, const struct register_voter *voter, int64_t now, struct lease_view *view) {
    const struct holding *holding = &v->holding;
    const struct lease_list *list = &holding->lease.list;
    int number = seat_named(v, voter->name);
    unsigned at = view->count++;
    char *why = view->voters[at].why;
    snprintf(view->voters[at].name, sizeof view->voters[at].name, "%s", voter->name);
    view->voters[at].listed = v->known.version > 0;
    view->voters[at].heard = INT64_MIN;
    if (number < 0) {
        snprintf(why, sizeof view->voters[at].why, "the config file has no node, and no witness, of that name");
        return;
    }
    const struct seat *seat = &v->seats[number];
    bool other = v->known.version && seat->status == ASK_ANSWERED && memcmp(seat->id, voter->id, sizeof seat->id) != 0;
    view->voters[at].heard = seat->heard;
    view->voters[at].answers = seat->heard != INT64_MIN && seat->unanswered < SEAT_SILENT;
    for (unsigned i = 0; holding->asked && i < list->count; i++)
        if (strcmp(list->voters[i].name, voter->name) == 0 && list->sent[i] != INT64_MIN)
            view->voters[at].grants = list->sent[i] + v->duration > now;
    view->voters[at].holds = view->voters[at].answers && seat->verdict == VOTER_HELD;
    view->voters[at].behind = holding->asked && !other && view->voters[at].answers && !view->voters[at].grants &&
                              seat->verdict == VOTER_STALE;
    if (other) {
        view->voters[at].listed = false;
        snprintf(why, sizeof view->voters[at].why, "it has another id than the one in the list, so it has lost its state: baton voters replace lets it in again");
    } else if (!view->voters[at].answers) {
        snprintf(why, sizeof view->voters[at].why, seat->heard == INT64_MIN ? "it has not been heard yet" : "it does not answer");
    } else if (!view->voters[at].grants) {
        snprintf(why, sizeof view->voters[at].why, "%s", seat->why);
    }
}

void voters_view(struct reg *reg, struct lease_view *view) {
    struct voters *v = (struct voters *)reg;
    memset(view, 0, sizeof *view);
    voters_lock(v);
    int64_t now = clock_boot(), until = atomic_load(&v->shared->until);
    view->asked = v->holding.asked;
    view->held = now < until;
    view->left = view->held ? until - now : 0;
    if (v->known.version) {
        for (unsigned i = 0; i < v->known.voter_count; i++)
            view_voter(v, &v->known.voters[i], now, view);
    } else {
        const char *names[REGISTER_VOTERS_MAX];
        unsigned count = voters_at_birth(v->config, names);
        for (unsigned i = 0; i < count; i++) {
            struct register_voter voter = {.name = ""};
            snprintf(voter.name, sizeof voter.name, "%s", names[i]);
            view_voter(v, &voter, now, view);
        }
    }
    view->needed = view->count / 2 + 1;
    voters_unlock(v);
}
