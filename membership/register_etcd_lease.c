/* The keeper: takes this node's lease, renews it, gives it back. See etcd_rules.h for what makes it safe. */
#include "membership/register_etcd.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define AGAIN (100 * MS) /* after what has failed */

static struct etcd_limit keeper_limit(const struct reg_etcd *etcd) {
    int64_t attempt = MIN(MAX(etcd->lease / 4, 150 * MS), 2 * SECOND);
    return (struct etcd_limit){attempt, 3 * attempt};
}

/* ---- What may be called from anywhere -------------------------------------------------------------------------------- */

void etcd_lease_end(struct reg_etcd *etcd, bool give_back) {
    atomic_store(&etcd->shared->until, INT64_MIN);
    etcd->mine.asked = etcd->mine.held = false;
    etcd->giving_back.is = give_back;
    etcd->giving_back.epoch = etcd->mine.epoch;
    etcd->giving_back.session = etcd->mine.session;
    etcd->giving_back.id = etcd->mine.id;
    etcd->giving_back.until = clock_boot() + etcd_absence_wait(etcd->lease) + etcd_ttl(etcd->lease) * SECOND;
    pthread_cond_signal(&etcd->keeper_wake);
}

int etcd_lease_take(struct reg *reg, const struct register_value *value) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    uint64_t session = 0;
    if (value->epoch == 0 || strcmp(value->primary, etcd->self->name) != 0)
        return -EINVAL;
    while (session == 0)
        PROMISE(getrandom(&session, sizeof session, 0) == sizeof session);
    pthread_mutex_lock(&etcd->lock);
    int rc = value->epoch <= etcd->mine.taken ? -EALREADY : 0;
    if (rc == 0) {
        atomic_store(&etcd->shared->until, INT64_MIN);
        atomic_store(&etcd->shared->session, session);
        atomic_store(&etcd->shared->epoch, value->epoch);
        memset(&etcd->mine, 0, sizeof etcd->mine);
        etcd->mine.asked = true;
        etcd->mine.epoch = etcd->mine.taken = value->epoch;
        etcd->mine.session = session;
        /* An earlier lease of this node: the new key takes the place of the old one. */
        memset(&etcd->giving_back, 0, sizeof etcd->giving_back);
        pthread_cond_signal(&etcd->keeper_wake);
    }
    pthread_mutex_unlock(&etcd->lock);
    return rc;
}

void etcd_lease_give_up(struct reg *reg) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    pthread_mutex_lock(&etcd->lock);
    if (etcd->mine.asked)
        etcd_lease_end(etcd, true);
    pthread_mutex_unlock(&etcd->lock);
}

/* ---- Small questions ------------------------------------------------------------------------------------------------- */

struct number { /* of an answer */
    int64_t lease, ttl;
};

static int accept_grant(void *context, const char *text, size_t length, char *why, size_t why_room) {
    struct number *number = context;
    return etcd_read_grant(text, length, &number->lease, &number->ttl, why, why_room);
}

static int accept_keep_alive(void *context, const char *text, size_t length, char *why, size_t why_room) {
    struct number *number = context;
    return etcd_read_keep_alive(text, length, number->lease, &number->ttl, why, why_room);
}

static int accept_any(void *context, const char *text, size_t length, char *why, size_t why_room) {
    (void)context;
    return etcd_read_any(text, length, why, why_room);
}

static int ask(struct etcd_client *client, struct etcd_limit limit, const char *path, char *body,
               int (*accept)(void *, const char *, size_t, char *, size_t), struct number *number, char *why, size_t why_room) {
    struct etcd_ask question = {.path = path, .body = body, .attempt = limit.attempt, .deadline = clock_boot() + limit.all,
                                .accept = accept, .context = number};
    int rc = etcd_client_ask(client, &question, why, why_room);
    free(body);
    return rc;
}

int etcd_give_back(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, epoch_t epoch, uint64_t session,
                   int64_t id, char *why, size_t why_room) {
    struct etcd_seen seen;
    struct etcd_holder free_now = {.state = ETCD_HOLDER_FREE, .epoch = epoch, .session = session};
    bool written = true;
    snprintf(free_now.node, sizeof free_now.node, "%s", etcd->self->name);
    int rc = etcd_look(etcd, client, limit, &seen, NULL, why, why_room);
    if (rc)
        return rc;
    bool ours = seen.holder.state == ETCD_HOLDER_HELD && strcmp(seen.holder.node, etcd->self->name) == 0 &&
                seen.holder.epoch == epoch && seen.holder.session == session;
    /* A key that is gone already would make others wait as well. */
    bool vacant = seen.holder.state == ETCD_HOLDER_ABSENT && !etcd_ends_reign(&seen.value, etcd->self->name, epoch);
    if (ours || vacant) {
        struct etcd_write write = {.register_mod = seen.register_mod, .holder_mod = seen.holder_mod,
                                   .holder_write = ETCD_HOLDER_PUT, .holder = &free_now};
        rc = etcd_write_keys(etcd, client, limit, &write, &written, &seen, NULL, NULL, why, why_room);
    }
    if (rc == 0 && !written) {
        snprintf(why, why_room, "the register was changed meanwhile");
        return -EAGAIN;
    }
    if (rc == 0 && (id || ours)) { /* else it goes in its time, with no key */
        char unused[300];
        struct number number = {0};
        int64_t lease = id ? id : seen.holder_lease;
        if (lease)
            ask(client, limit, ETCD_PATH_REVOKE, etcd_ask_lease(lease), accept_any, &number, unused, sizeof unused);
    }
    return rc;
}

/* ---- Renewal --------------------------------------------------------------------------------------------------------- */

struct round { /* what the keeper knows when it begins, and where it goes on */
    epoch_t epoch;
    uint64_t session;
    int64_t id, ttl, kept;
    bool held;
};

/* False: the lease that the round was about has ended meanwhile. */
static bool begin_round(struct reg_etcd *etcd, struct round *round) {
    pthread_mutex_lock(&etcd->lock);
    bool asked = etcd->mine.asked;
    *round = (struct round){etcd->mine.epoch, etcd->mine.session, etcd->mine.id, etcd->mine.ttl, etcd->mine.kept,
                            etcd->mine.held};
    pthread_mutex_unlock(&etcd->lock);
    return asked;
}

static void lose(struct reg_etcd *etcd, const struct round *round, const char *reason) {
    pthread_mutex_lock(&etcd->lock);
    bool mine = etcd->mine.asked && etcd->mine.session == round->session;
    if (mine)
        etcd_lease_end(etcd, true);
    pthread_mutex_unlock(&etcd->lock);
    if (!mine)
        return;
    log_warning("the lease of epoch %" PRIu64 " is lost: %s", EPOCH_COUNTER(round->epoch), reason);
    if (etcd->watch.lost)
        etcd->watch.lost(etcd->watch.context, round->epoch);
}

enum judgement { JUDGE_OVER, JUDGE_HELD, JUDGE_WAIT, JUDGE_CREATE, JUDGE_LOST };

/* Both keys were so at some moment after `sent`: what does that mean for this node's lease? */
static enum judgement judge(struct reg_etcd *etcd, const struct round *round, const struct etcd_seen *seen, int64_t sent,
                            char *why, size_t why_room) {
    const struct etcd_holder *holder = &seen->holder;
    bool node = strcmp(holder->node, etcd->self->name) == 0;
    bool ours = node && holder->epoch == round->epoch;
    if (etcd_ends_reign(&seen->value, etcd->self->name, round->epoch)) {
        snprintf(why, why_room, "the register names %s in epoch %" PRIu64,
                 seen->value.primary[0] ? seen->value.primary : "nobody", EPOCH_COUNTER(seen->value.epoch));
        return JUDGE_LOST;
    }
    if (holder->state == ETCD_HOLDER_HELD && ours && holder->session == round->session) {
        pthread_mutex_lock(&etcd->lock);
        enum judgement judgement = etcd->mine.asked && etcd->mine.session == round->session ? JUDGE_HELD : JUDGE_OVER;
        int64_t now = clock_boot(), until = sent + etcd->lease;
        if (judgement == JUDGE_HELD && etcd->mine.held && atomic_load(&etcd->shared->until) <= now) {
            snprintf(why, why_room, "it has run out before an answer came");
            judgement = JUDGE_LOST;
        } else if (judgement == JUDGE_HELD && until > now) {
            etcd->mine.held = true;
            if (until > atomic_load(&etcd->shared->until))
                atomic_store(&etcd->shared->until, until);
        }
        pthread_mutex_unlock(&etcd->lock);
        return judgement;
    }
    if (round->held || (holder->state == ETCD_HOLDER_FREE && ours)) {
        snprintf(why, why_room, "%s", round->held ? "its key in etcd is gone" : "it was given back in this node's name");
        return JUDGE_LOST;
    }
    return holder->state == ETCD_HOLDER_HELD && !node ? JUDGE_WAIT : JUDGE_CREATE;
}

static int grant(struct reg_etcd *etcd, struct round *round, char *why, size_t why_room) {
    struct number number = {0};
    int rc = ask(etcd->keeper_client, keeper_limit(etcd), ETCD_PATH_GRANT, etcd_ask_grant(etcd_ttl(etcd->lease)), accept_grant,
                 &number, why, why_room);
    if (rc)
        return rc;
    round->id = number.lease;
    round->ttl = number.ttl;
    round->kept = clock_boot();
    pthread_mutex_lock(&etcd->lock);
    if (etcd->mine.session == round->session) {
        etcd->mine.id = number.lease;
        etcd->mine.ttl = number.ttl;
        etcd->mine.kept = round->kept;
    }
    pthread_mutex_unlock(&etcd->lock);
    return 0;
}

/* The holder's key, and the register once more: its modification tells that there is a new holder. */
static int create(struct reg_etcd *etcd, struct round *round, struct etcd_seen *seen, int64_t *sent, char *why, size_t why_room) {
    struct etcd_holder held = {.state = ETCD_HOLDER_HELD, .epoch = round->epoch, .session = round->session};
    struct register_value value = seen->value;
    bool written;
    int rc = round->id ? 0 : grant(etcd, round, why, why_room);
    if (rc)
        return rc;
    snprintf(held.node, sizeof held.node, "%s", etcd->self->name);
    struct etcd_write write = {.register_mod = seen->register_mod, .holder_mod = seen->holder_mod, .value = &value,
                               .holder_write = ETCD_HOLDER_PUT, .holder = &held, .lease = round->id};
    rc = etcd_write_keys(etcd, etcd->keeper_client, keeper_limit(etcd), &write, &written, seen, sent, NULL, why, why_room);
    if (rc == -ENOENT) { /* the lease has run out before it was used */
        pthread_mutex_lock(&etcd->lock);
        if (etcd->mine.session == round->session)
            etcd->mine.id = 0;
        pthread_mutex_unlock(&etcd->lock);
    }
    return rc;
}

static void keep_alive(struct reg_etcd *etcd, const struct round *round) {
    struct number number = {.lease = round->id};
    char why[300];
    int64_t now = clock_boot();
    if (!round->id || now - round->kept < round->ttl * SECOND / 4 - 50 * MS)
        return;
    int rc = ask(etcd->keeper_client, keeper_limit(etcd), ETCD_PATH_KEEP_ALIVE, etcd_ask_lease(round->id), accept_keep_alive,
                 &number, why, sizeof why);
    if (rc == 0 && number.ttl == 0)
        log_debug("etcd knows nothing of this node's lease any more");
    if (rc)
        return; /* the next look tells what comes of it */
    pthread_mutex_lock(&etcd->lock);
    if (etcd->mine.session == round->session)
        etcd->mine.kept = now;
    pthread_mutex_unlock(&etcd->lock);
}

/* Returns when the next round is due. */
static int64_t renew(struct reg_etcd *etcd, bool *fit) {
    struct etcd_seen seen;
    struct round round;
    int64_t sent;
    char why[400] = "it has run out";
    if (!begin_round(etcd, &round))
        return clock_boot();
    if (round.held && atomic_load(&etcd->shared->until) <= clock_boot()) {
        lose(etcd, &round, *fit ? "it has run out, no answer of etcd came in time" : "this node's store makes no progress");
        return clock_boot();
    }
    bool was_fit = *fit;
    *fit = !etcd->watch.fit || etcd->watch.fit(etcd->watch.context);
    if (!*fit) {
        if (was_fit)
            log_warning("the lease is not renewed: this node's store makes no progress");
        return clock_boot() + etcd_interval(etcd->lease);
    }
    int rc = etcd_look(etcd, etcd->keeper_client, keeper_limit(etcd), &seen, &sent, why, sizeof why);
    enum judgement judgement = rc ? JUDGE_WAIT : judge(etcd, &round, &seen, sent, why, sizeof why);
    if (judgement == JUDGE_CREATE) {
        rc = create(etcd, &round, &seen, &sent, why, sizeof why);
        judgement = rc ? JUDGE_WAIT : judge(etcd, &round, &seen, sent, why, sizeof why);
    }
    if (judgement == JUDGE_LOST)
        lose(etcd, &round, why);
    if (judgement == JUDGE_HELD)
        keep_alive(etcd, &round);
    if (rc)
        log_debug("the lease is not renewed: %s", why);
    return clock_boot() + (judgement == JUDGE_HELD ? etcd_interval(etcd->lease) : MIN(AGAIN, etcd_interval(etcd->lease)));
}

/* ---- The thread ------------------------------------------------------------------------------------------------------ */

/* With the lock held. */
static void sleep_until(struct reg_etcd *etcd, int64_t due) {
    struct timespec at;
    int64_t left = due - clock_boot();
    if (left <= 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &at);
    left += at.tv_nsec;
    at.tv_sec += left / SECOND;
    at.tv_nsec = left % SECOND;
    pthread_cond_timedwait(&etcd->keeper_wake, &etcd->lock, &at);
}

/* With the lock held, which it gives away meanwhile. */
static void give_back(struct reg_etcd *etcd) {
    epoch_t epoch = etcd->giving_back.epoch;
    uint64_t session = etcd->giving_back.session;
    int64_t id = etcd->giving_back.id;
    char why[400];
    pthread_mutex_unlock(&etcd->lock);
    int rc = etcd_give_back(etcd, etcd->keeper_client, keeper_limit(etcd), epoch, session, id, why, sizeof why);
    pthread_mutex_lock(&etcd->lock);
    if (etcd->giving_back.session != session)
        return; /* another one is asked for */
    if (rc == 0 || clock_boot() >= etcd->giving_back.until) {
        if (rc)
            log_debug("the lease could not be given back: %s", why);
        memset(&etcd->giving_back, 0, sizeof etcd->giving_back);
        atomic_store(&etcd->shared->epoch, 0);
        atomic_store(&etcd->shared->session, 0);
    } else {
        sleep_until(etcd, clock_boot() + AGAIN);
    }
}

void *etcd_keeper(void *context) {
    struct reg_etcd *etcd = context;
    bool fit = true;
    pthread_mutex_lock(&etcd->lock);
    while (!etcd->closing || etcd->giving_back.is) {
        if (etcd->mine.asked) {
            uint64_t session = etcd->mine.session;
            pthread_mutex_unlock(&etcd->lock);
            int64_t due = renew(etcd, &fit);
            pthread_mutex_lock(&etcd->lock);
            if (etcd->mine.held) /* that it has run out is found out when it does */
                due = MIN(due, atomic_load(&etcd->shared->until));
            if (etcd->mine.asked && etcd->mine.session == session)
                sleep_until(etcd, due);
        } else if (etcd->giving_back.is) {
            give_back(etcd);
        } else {
            fit = true;
            pthread_cond_wait(&etcd->keeper_wake, &etcd->lock);
        }
    }
    etcd->keeper_ended = true;
    pthread_cond_signal(&etcd->keeper_gone);
    pthread_mutex_unlock(&etcd->lock);
    return NULL;
}
