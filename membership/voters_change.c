/* Proposing a value: change.h with questions and answers, from the caller's thread, until the value is chosen, another one is,
 * or time is up.
 *
 * What is met half done is completed before anything else can be said about what was wanted (DESIGN.md, traps 23 and 24): this
 * node's lease ends before such a value, or one of its own that names another primary or another epoch, is sent for acceptance.
 */
#include "membership/voters_parts.h"

#include <sys/random.h>

#define BACK_OFF_LEAST (4 * MS)
#define BACK_OFF_MOST (250 * MS)

struct proposal {
    struct round round; /* the first: struct round's functions get it as that */
    struct voters *v;
    struct change change;
    bool to_accept;
    bool lost;          /* a voter has promised this very ballot before, and the answer did not arrive */
    unsigned refused;   /* set of seats whose voter is held up by somebody's lease, or may be */
    bool sent;          /* `next`, for acceptance: it may become the value at any time */
    bool refused_all;   /* the last attempt ended because of `refused` */
    bool unguarded;     /* the last attempt met a list that is not guarded (lease.h) */
};

int64_t voters_patience(const struct voters *v) {
    return MIN(MAX(v->duration, VOTERS_CHANGE_LEAST), VOTERS_CHANGE_MOST);
}

/* Written by two proposers, two values of one version differ in something. */
static bool same_value(const struct register_value *a, const struct register_value *b) {
    uint8_t bytes_a[REGISTER_BYTES], bytes_b[REGISTER_BYTES];
    size_t length = register_encode(a, bytes_a);
    return length == register_encode(b, bytes_b) && memcmp(bytes_a, bytes_b, length) == 0;
}

/* ---- Questions and answers ------------------------------------------------------------------------------------------- */

static unsigned seats_asked(const struct proposal *p) {
    const struct register_voter *voter;
    unsigned seats = 0;
    for (unsigned i = 0; (voter = change_voter(&p->change, i)) != NULL; i++)
        seats |= seats_of(p->v, voter, 1);
    return seats;
}

static void take_answer(struct round *round, unsigned seat, const struct ask_answer *answer) {
    struct proposal *p = (struct proposal *)round;
    struct change *change = &p->change;
    const struct voter_answer *given = &answer->answer;
    if (given->verdict == VOTER_HELD || given->verdict == VOTER_QUIET)
        p->refused |= 1u << seat;
    if (!p->to_accept && given->verdict == VOTER_STALE && ballot_compare(given->promised, change->ballot) == 0)
        p->lost = true;
    unsigned lists = change->list_count;
    change_answer(change, p->v->seats[seat].name, given, p->to_accept);
    if (change->state == CHANGE_PREPARE && change->list_count != lists)
        round_more(p->v, round, seats_asked(p));
}

/* Whether enough of each list may still say yes. */
static bool possible(const struct proposal *p) {
    const struct change *change = &p->change;
    for (unsigned i = 0; i < change->list_count + p->to_accept; i++) {
        const struct change_list *list = &change->lists[i];
        unsigned may = 0;
        for (unsigned j = 0; j < list->count; j++) {
            bool has = p->to_accept ? list->accepted[j] : list->promised[j];
            may += has || (seats_of(p->v, &list->voters[j], 1) & ~p->refused) != 0;
        }
        if (change->birth ? may < list->count : may <= list->count / 2)
            return false;
    }
    return true;
}

/* Asks, until the state is another one. False: it cannot be, or not in time. */
static bool ask(struct proposal *p, enum ask_type type, int64_t deadline) {
    struct change *change = &p->change;
    enum change_state before = change->state;
    p->to_accept = type == ASK_ACCEPT;
    p->refused = 0;
    p->lost = false;
    memset(&p->round, 0, sizeof p->round);
    p->round.question.type = type;
    p->round.question.ballot = change->ballot;
    p->round.question.birth = change->birth;
    p->round.question.value = change->next;
    p->round.question.known = change->known;
    p->round.answer = take_answer;
    round_begin(p->v, &p->round, seats_asked(p));
    bool go_on = true;
    while (change->state == before && !p->lost && (go_on = possible(p)) && voters_wait(p->v, deadline))
        ;
    round_end(p->v, &p->round);
    p->refused_all = !go_on;
    return change->state != before || p->lost;
}

/* ---- An attempt ------------------------------------------------------------------------------------------------------ */

static void note_known(struct proposal *p) {
    voters_note(p->v, &p->change.known, true);
    if (p->v->known.version > p->change.known.version)
        p->change.known = p->v->known;
}

/* What may be proposed over what the promises tell. 0: change_next() was called. -ESTALE: the value is another one than was
 * expected, and known to be chosen. -EAGAIN: somebody has gone on meanwhile. */
static int decide(struct proposal *p, const struct register_value *expected, const struct register_value *next, bool lists) {
    struct change *change = &p->change;
    struct register_value wanted = *next;
    if (change->present.version == 0 && change->known.version == 0 && expected->version == 0) {
        wanted.voter_count = change->known.voter_count;
        memcpy(wanted.voters, change->known.voters, sizeof wanted.voters);
        change_next(change, &wanted);
        return 0;
    }
    if (change->present.version == expected->version) { /* which is chosen, as the caller says */
        if (!lists) {
            wanted.voter_count = change->present.voter_count;
            memcpy(wanted.voters, change->present.voters, sizeof wanted.voters);
        }
        change_next(change, &wanted);
        return 0;
    }
    if (change->present.version == change->known.version)
        return -ESTALE;
    change_next(change, NULL); /* it may have been left half done */
    return 0;
}

static void noted(struct round *round, unsigned seat, const struct ask_answer *answer) {
    struct notice *notice = (struct notice *)round;
    const struct voters *v = (struct voters *)((char *)notice - offsetof(struct voters, notice));
    if (register_voter_of(&notice->value, v->seats[seat].name, answer->answer.id) >= 0)
        notice->noted |= 1u << seat;
    if ((unsigned)__builtin_popcount(notice->noted) > notice->value.voter_count / 2)
        round->until = INT64_MIN;
}

/* To the voters of the value that was proposed and of those before. */
static void spread(struct proposal *p, unsigned to) {
    struct voters *v = p->v;
    round_end(v, &v->notice.round);
    v->notice.value = p->change.next;
    v->notice.noted = 0;
    v->notice.round = (struct round){.question = {.type = ASK_LEARN, .value = p->change.next}, .answer = noted};
    round_begin(v, &v->notice.round, to);
    v->notice.round.until = clock_boot() + 10000 * MS;
}

/* The wanted value without its list, unless it brings one. */
static bool is_wanted(const struct register_value *value, const struct register_value *next, bool lists) {
    struct register_value wanted = *next;
    if (!lists) {
        wanted.voter_count = value->voter_count;
        memcpy(wanted.voters, value->voters, sizeof wanted.voters);
    }
    return same_value(value, &wanted);
}

/* One ballot. 0 or -ESTALE: the value of that version is chosen, and known; -EAGAIN: another ballot is needed, or another moment;
 * -ETIMEDOUT. */
static int attempt(struct proposal *p, const struct register_value *expected, const struct register_value *next, bool lists,
                   int64_t deadline) {
    struct voters *v = p->v;
    struct change *change = &p->change;
    p->unguarded = false;
    if (!ask(p, ASK_PREPARE, deadline))
        return -ETIMEDOUT;
    note_known(p);
    if (change->state != CHANGE_READ)
        return -EAGAIN;
    int rc = decide(p, expected, next, lists);
    if (rc)
        return rc;
    voters_note(v, &change->known, false);
    bool own = is_wanted(&change->next, next, lists);
    p->unguarded = !holding_before_accept(v, &change->next, !own);
    if (p->unguarded)
        return -EAGAIN;
    p->sent = p->sent || own;
    unsigned to = seats_asked(p);
    if (!ask(p, ASK_ACCEPT, deadline))
        return -ETIMEDOUT;
    if (change->state != CHANGE_CHOSEN) {
        note_known(p);
        return -EAGAIN;
    }
    voters_note(v, &change->next, !own);
    spread(p, to);
    return own ? 0 : -ESTALE;
}

static void back_off(struct voters *v, unsigned tries, int64_t deadline) {
    uint32_t random;
    PROMISE(getrandom(&random, sizeof random, 0) == sizeof random);
    int64_t most = MIN(BACK_OFF_LEAST << MIN(tries, 16u), BACK_OFF_MOST), until = clock_boot() + most * (random % 1024) / 1024;
    while (clock_boot() < until && voters_wait(v, MIN(until, deadline)))
        ;
}

/* ---- All of them ----------------------------------------------------------------------------------------------------- */

/* What is known by now may settle it. 1: it does not. */
static int settled(struct voters *v, struct register_value *expected, const struct register_value *next, bool lists) {
    if (v->known.version <= expected->version)
        return 1;
    if (is_wanted(&v->known, next, lists))
        return 0;
    *expected = v->known;
    return -ESTALE;
}

static int run(struct proposal *p, struct register_value *known, struct register_value *expected,
               const struct register_value *next, bool lists, int64_t deadline) {
    struct voters *v = p->v;
    int rc = settled(v, expected, next, lists);
    for (unsigned tries = 0; rc == 1; tries++) {
        if (v->known.version)
            *known = v->known;
        change_begin(&p->change, known, v->seen, v->self->number);
        v->seen = p->change.ballot;
        rc = attempt(p, expected, next, lists, deadline);
        if (ballot_compare(p->change.seen, v->seen) > 0)
            v->seen = p->change.seen;
        if (rc == 0)
            return 0;
        int now = settled(v, expected, next, lists);
        if (now != 1)
            return now;
        if (rc == -ESTALE) { /* what was expected is not there at all */
            *expected = v->known;
            return rc;
        }
        rc = rc == -EAGAIN && !v->stopping && clock_boot() < deadline ? 1 : -ETIMEDOUT;
        if (rc == 1 && !p->lost)
            back_off(v, tries, deadline);
    }
    if (rc != -ETIMEDOUT)
        return rc;
    if (p->sent)
        return -EINPROGRESS;
    return v->stopping ? -ESHUTDOWN : p->unguarded ? -EAGAIN : p->refused_all ? -EBUSY : -ENOTCONN;
}

/* Turn by turn. */
static int propose(struct voters *v, struct register_value *known, struct register_value *expected,
                   const struct register_value *next, bool lists, int64_t deadline) {
    struct proposal *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->v = v;
    int rc = 0;
    voters_enter(v);
    while (rc == 0 && v->proposing)
        rc = voters_wait(v, deadline) ? 0 : -EBUSY;
    if (rc == 0) {
        v->proposing = true;
        rc = run(p, known, expected, next, lists, deadline);
        v->proposing = false;
        PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    }
    voters_leave(v);
    free(p);
    return rc;
}

static bool good_value(const struct register_value *next) {
    uint8_t bytes[REGISTER_BYTES];
    struct register_value back;
    return next->member_count <= REGISTER_MEMBERS_MAX && next->voter_count <= REGISTER_VOTERS_MAX &&
           register_decode(bytes, register_encode(next, bytes), &back) == 0;
}

int voters_propose(struct voters *v, struct register_value *expected, const struct register_value *next, bool lists) {
    int64_t deadline = clock_boot() + voters_patience(v);
    struct register_value known;
    if (next->version != expected->version + 1 || !good_value(next) || (expected->version && next->epoch < expected->epoch))
        return -EINVAL;
    voters_lock(v);
    if (expected->voter_count)
        voters_note(v, expected, false);
    known = v->known;
    voters_unlock(v);
    int rc = 0;
    if (known.version == 0 && expected->version) { /* this process has just begun */
        rc = voters_read(&v->reg, &known);
        rc = rc == 0 && known.version == 0 ? -ENOTCONN : rc;
    } else if (known.version == 0) {
        rc = voters_birth(v, &known, deadline);
        if (rc == -ESTALE)
            *expected = known;
    }
    if (rc)
        return rc;
    return propose(v, &known, expected, next, lists, deadline);
}

int voters_refresh(struct reg *reg, const struct register_value *expected) {
    struct voters *v = (struct voters *)reg;
    struct register_value known, found = *expected;
    voters_lock(v);
    known = v->known;
    bool held = v->holding.asked && v->holding.held;
    voters_unlock(v);
    if (!held)
        return -EPERM;
    if (register_compare(&known, expected) != 0)
        return -ESTALE;
    return propose(v, &known, &found, &known, true, clock_boot() + voters_patience(v));
}
