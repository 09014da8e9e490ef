/* The engine: opening and closing, reading, learning, and who is told what. */
#include "membership/voters_parts.h"

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

/* ---- The lock, and waiting ------------------------------------------------------------------------------------------- */

void voters_lock(struct voters *v) {
    PROMISE(pthread_mutex_lock(&v->lock) == 0);
}

void voters_unlock(struct voters *v) {
    PROMISE(pthread_mutex_unlock(&v->lock) == 0);
}

bool voters_wait(struct voters *v, int64_t deadline) {
    struct timespec until;
    int64_t left = deadline - clock_boot();
    if (v->stopping || left <= 0)
        return false;
    PROMISE(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    int64_t ns = until.tv_nsec + left;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    int rc = pthread_cond_timedwait(&v->changed, &v->lock, &until);
    PROMISE(rc == 0 || rc == ETIMEDOUT);
    return !v->stopping;
}

void voters_enter(struct voters *v) {
    voters_lock(v);
    v->inside++;
}

void voters_leave(struct voters *v) {
    v->inside--;
    if (v->stopping)
        PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    voters_unlock(v);
}

/* ---- Who is told ----------------------------------------------------------------------------------------------------- */

void voters_note(struct voters *v, const struct register_value *value, bool tell) {
    if (value->version <= v->known.version || value->voter_count == 0)
        return;
    v->known = *value;
    v->tell_news = v->tell_news || tell;
    holding_follow(v);
    PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    PROMISE(pthread_cond_signal(&v->tells) == 0);
}

void voters_tell_lost(struct voters *v, epoch_t epoch) {
    v->tell_lost = true;
    v->lost = epoch;
    PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    PROMISE(pthread_cond_signal(&v->tells) == 0);
}

static void freed_here(void *context) { /* by a thread of this node's voter */
    struct voters *v = context;
    voters_lock(v);
    v->tell_freed = true;
    PROMISE(pthread_cond_signal(&v->tells) == 0);
    voters_unlock(v);
}

static void *tell(void *argument) {
    struct voters *v = argument;
    const struct register_watch *watch = &v->watch;
    voters_lock(v);
    while (!v->ended) {
        bool news = v->tell_news, lost = v->tell_lost, freed = v->tell_freed;
        struct register_value value = v->known;
        epoch_t epoch = v->lost;
        v->tell_news = v->tell_lost = v->tell_freed = false;
        if (!news && !lost && !freed) {
            PROMISE(pthread_cond_wait(&v->tells, &v->lock) == 0);
            continue;
        }
        voters_unlock(v);
        if (lost && watch->lost)
            watch->lost(watch->context, epoch);
        if (news && watch->news)
            watch->news(watch->context, &value);
        if (freed && watch->freed)
            watch->freed(watch->context);
        voters_lock(v);
    }
    voters_unlock(v);
    return NULL;
}

/* ---- Looking --------------------------------------------------------------------------------------------------------- */

static void seen(struct round *round, unsigned seat, const struct ask_answer *answer) {
    struct look *look = (struct look *)round;
    look->answers[seat] = answer->answer;
    look->have |= 1u << seat;
}

void look_begin(struct voters *v, struct look *look, unsigned to) {
    memset(&look->round, 0, sizeof look->round);
    look->have = 0;
    look->round.question.type = ASK_QUERY;
    look->round.answer = seen;
    round_begin(v, &look->round, to);
}

const struct voter_answer *look_of(const struct voters *v, const struct look *look, const struct register_voter *voter) {
    int seat = seat_named(v, voter->name);
    if (seat < 0 || !(look->have & 1u << seat) || memcmp(look->answers[seat].id, voter->id, sizeof voter->id) != 0)
        return NULL;
    return &look->answers[seat];
}

unsigned look_everybody(const struct voters *v) {
    return (1u << v->seat_count) - 1;
}

static unsigned accepted_by(const struct voters *v, const struct look *look, const struct register_value *list,
                            struct ballot ballot) {
    unsigned count = 0;
    for (unsigned i = 0; i < list->voter_count; i++) {
        const struct voter_answer *answer = look_of(v, look, &list->voters[i]);
        count += answer && ballot_compare(answer->accepted, ballot) == 0;
    }
    return count;
}

/* A value is chosen when a majority of its own list and one of the list before it have accepted it with one ballot; the first
 * one, when all have. Its own list alone would not do: those who know only the one before may be choosing another. */
static bool is_chosen(const struct voters *v, const struct look *look, const struct voter_answer *answer) {
    const struct register_value *value = &answer->value;
    unsigned own = accepted_by(v, look, value, answer->accepted);
    if (v->known.version == 0)
        return value->voter_count > 0 && own == value->voter_count;
    return own > value->voter_count / 2 &&
           accepted_by(v, look, &v->known, answer->accepted) > v->known.voter_count / 2;
}

static unsigned answered(const struct voters *v, const struct look *look, const struct register_value *list) {
    unsigned count = 0;
    for (unsigned i = 0; i < list->voter_count; i++)
        count += look_of(v, look, &list->voters[i]) != NULL;
    return count;
}

/* What the answers tell. `*clear`: nothing newer is half done. 0, or -ENOTCONN as long as a majority is missing. */
static int judge_read(struct voters *v, struct look *look, bool *clear) {
    for (bool newer = true; newer;) {
        newer = false;
        for (unsigned i = 0; i < v->seat_count && !newer; i++) {
            const struct voter_answer *answer = &look->answers[i];
            newer = (look->have & 1u << i) && answer->value.version == v->known.version + 1 && is_chosen(v, look, answer);
            if (newer)
                voters_note(v, &answer->value, true);
        }
    }
    struct register_value list = v->known;
    if (list.version == 0)
        list_at_birth(v, look, &list);
    int rc = answered(v, look, &list) > list.voter_count / 2 ? 0 : -ENOTCONN;
    unsigned more = seats_of(v, list.voters, list.voter_count);
    *clear = true;
    for (unsigned i = 0; i < v->seat_count; i++) {
        const struct voter_answer *answer = &look->answers[i];
        if (!(look->have & 1u << i) || answer->value.version <= v->known.version)
            continue;
        *clear = false;
        more |= seats_of(v, answer->value.voters, answer->value.voter_count);
        if (v->known.version && answered(v, look, &answer->value) <= answer->value.voter_count / 2)
            rc = -ENOTCONN; /* if it is chosen, its list is the one that counts */
    }
    round_more(v, &look->round, more);
    return rc;
}

int voters_read(struct reg *reg, struct register_value *value) {
    struct voters *v = (struct voters *)reg;
    struct look *look = calloc(1, sizeof *look);
    int64_t deadline = clock_boot() + VOTERS_READ_PATIENCE;
    bool clear, all;
    int rc;
    if (!look)
        return -ENOMEM;
    voters_enter(v);
    look_begin(v, look, v->known.version ? seats_of(v, v->known.voters, v->known.voter_count) : look_everybody(v));
    do {
        rc = judge_read(v, look, &clear);
        all = (look->round.to & ~look->have) == 0;
        if (rc == 0 && !clear && !all) /* who else has accepted it? A moment, for one that is away does not answer at all */
            deadline = MIN(deadline, clock_boot() + MAX(v->duration / 4, VOTERS_FREE_LEAST));
    } while ((rc != 0 || (!clear && !all)) && voters_wait(v, deadline));
    round_end(v, &look->round);
    *value = v->known;
    voters_leave(v);
    free(look);
    return rc;
}

void voters_look(struct reg *reg, int64_t patience) {
    struct voters *v = (struct voters *)reg;
    struct look look;
    int64_t deadline = clock_boot() + patience;
    voters_enter(v);
    look_begin(v, &look, look_everybody(v));
    while ((look.round.to & ~look.have) && voters_wait(v, deadline))
        ;
    round_end(v, &look.round);
    for (unsigned i = 0; i < v->seat_count; i++)
        if (!(look.have & 1u << i))
            v->seats[i].unanswered = MAX(v->seats[i].unanswered, SEAT_SILENT);
    voters_leave(v);
}

/* ---- The engine ------------------------------------------------------------------------------------------------------ */

static int voters_change(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    return voters_propose((struct voters *)reg, expected, next, false);
}

void voters_glance(struct voters *v, unsigned to) {
    round_end(v, &v->glance);
    v->glance = (struct round){.question = {.type = ASK_QUERY}};
    round_begin(v, &v->glance, to);
    v->glance.until = clock_boot() + VOTERS_READ_PATIENCE;
}

static void voters_learn(struct reg *reg, const struct register_value *value) {
    struct voters *v = (struct voters *)reg;
    voters_lock(v);
    if (value->version > v->known.version && value->voter_count == 0)
        voters_glance(v, look_everybody(v));
    voters_note(v, value, true);
    voters_unlock(v);
}

/* Its threads are gone, or were never begun. */
static void dispose(struct voters *v) {
    if (v->host)
        voter_host_close(v->host); /* may answer still, to nobody */
    pthread_cond_destroy(&v->changed);
    pthread_cond_destroy(&v->tells);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static void voters_close(struct reg *reg) {
    struct voters *v = (struct voters *)reg;
    int64_t deadline = clock_boot() + VOTERS_CLOSE_PATIENCE;
    voters_lock(v);
    bool giving_back = v->holding.lease.epoch != 0;
    holding_give_up(v);
    while (giving_back && __builtin_popcount(v->release.answered) <= __builtin_popcount(v->release.to) / 2 &&
           voters_wait(v, deadline))
        ;
    v->stopping = true;
    PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    while (v->inside)
        PROMISE(pthread_cond_wait(&v->changed, &v->lock) == 0);
    v->ended = true;
    PROMISE(pthread_cond_broadcast(&v->changed) == 0);
    PROMISE(pthread_cond_signal(&v->tells) == 0);
    voters_unlock(v);
    asker_stop(v);
    PROMISE(pthread_join(v->teller, NULL) == 0);
    dispose(v);
}

static const struct lease_engine voters_lease = {
    .take = voters_take, .give_up = voters_give_up, .free = voters_free, .view = voters_view, .look = voters_look, .edit = voters_edit,
                                                .refresh = voters_refresh};
static const struct register_engine voters_engine = {.name = "voters", .lease = &voters_lease, .read = voters_read,
                                                     .change = voters_change, .learn = voters_learn, .close = voters_close};

/* ---- Opening --------------------------------------------------------------------------------------------------------- */

static void add_seat(struct voters *v, const struct node_config *at) {
    struct seat *seat = &v->seats[v->seat_count++];
    snprintf(seat->name, sizeof seat->name, "%s", at->name);
    seat->at = at;
    seat->silent_since = INT64_MAX;
    seat->dialled = seat->heard = INT64_MIN;
}

static void init_lock(struct voters *v) {
    pthread_condattr_t monotonic;
    PROMISE(pthread_mutex_init(&v->lock, NULL) == 0);
    PROMISE(pthread_condattr_init(&monotonic) == 0);
    PROMISE(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&v->changed, &monotonic) == 0);
    PROMISE(pthread_cond_init(&v->tells, NULL) == 0);
    pthread_condattr_destroy(&monotonic);
}

static struct voters *make(const struct config *config, const struct node_config *self, const char *secret,
                           const struct register_watch *watch, struct lease_shared *shared) {
    struct voters *v = calloc(1, sizeof *v);
    if (!v || getrandom(&v->number, sizeof v->number, 0) != sizeof v->number) {
        free(v);
        return NULL;
    }
    v->reg.engine = &voters_engine;
    v->config = config;
    v->self = self;
    snprintf(v->secret, sizeof v->secret, "%s", secret);
    if (watch)
        v->watch = *watch;
    v->own_watch = (struct register_watch){.context = v, .freed = freed_here};
    v->own = -1;
    v->shared = shared;
    v->duration = (int64_t)config->lease_ms * MS;
    for (unsigned i = 0; i < config->node_count; i++)
        add_seat(v, &config->nodes[i]);
    if (config->has_witness)
        add_seat(v, &config->witness);
    holding_init(v);
    init_lock(v);
    return v;
}

static void begin(struct voters *v) {
    asker_start(v);
    PROMISE(pthread_create(&v->teller, NULL, tell, v) == 0);
    pthread_setname_np(v->teller, "voters-watch");
    voters_lock(v);
    voters_glance(v, look_everybody(v));
    voters_unlock(v);
}

int voters_open_apart(const struct config *config, const struct node_config *self, const char *secret,
                      const struct register_watch *watch, struct lease_shared *shared, struct reg **reg, char *why,
                      size_t why_room) {
    struct voters *v = make(config, self, secret, watch, shared);
    if (!v) {
        snprintf(why, why_room, "no memory, or no random numbers, for the register");
        return -ENOMEM;
    }
    begin(v);
    *reg = &v->reg;
    return 0;
}

static int open_own_voter(struct voters *v, char *why, size_t why_room) {
    char address[VOTER_ADDRESS], directory[sizeof v->self->store + 16];
    voter_directory(v->self->store, directory, sizeof directory);
    if (voter_address(v->config, v->self->name, address) != 0) {
        snprintf(why, why_room, "node %s: its address %s leaves no port for its voter", v->self->name, v->self->address);
        return -EINVAL;
    }
    struct voter_host_options options = {.address = address, .transport = v->config->transport, .secret = v->secret,
                                         .directory = directory};
    int rc = voter_host_open(&options, &v->host, why, why_room);
    if (rc)
        return rc;
    v->own = seat_named(v, v->self->name);
    return voter_host_serve(v->host, v->config, v->self->name, &v->own_watch, why, why_room);
}

int register_voters_open(const struct config *config, const struct node_config *self, const char *secret,
                         const struct register_watch *watch, struct lease_shared *shared, struct reg **reg, char *why,
                         size_t why_room) {
    struct voters *v = make(config, self, secret, watch, shared);
    if (!v) {
        snprintf(why, why_room, "no memory, or no random numbers, for the register");
        return -ENOMEM;
    }
    int rc = open_own_voter(v, why, why_room);
    if (rc) {
        dispose(v);
        return rc;
    }
    begin(v);
    *reg = &v->reg;
    return 0;
}
