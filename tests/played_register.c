#include "tests/played_register.h"
#include "replication/replicator.h"
#include "tests/pair.h"

#include <stdio.h>

static struct played_node *node_of(struct reg *reg) {
    return (struct played_node *)reg;
}

static void lock(struct played_register *all) {
    PROMISE(pthread_mutex_lock(&all->lock) == 0);
}
static void unlock(struct played_register *all) {
    PROMISE(pthread_mutex_unlock(&all->lock) == 0);
}

static int number(const struct played_node *node) {
    return (int)(node - node->all->nodes);
}

static bool granted(const struct played_register *all, int64_t now) {
    return all->grant.node >= 0 && now < all->grant.until;
}

static void tell_freed(struct played_register *all, int but) { /* locked */
    for (int i = 0; i < PLAYED_NODES; i++)
        if (i != but)
            all->nodes[i].freed = true;
}

/* ---- The register ---- */

static int played_read(struct reg *reg, struct register_value *value) {
    struct played_node *node = node_of(reg);
    lock(node->all);
    *value = node->all->value;
    bool silent = atomic_load(&node->unreachable) || atomic_load(&node->unanswered);
    unlock(node->all);
    return silent ? -ENOTCONN : 0;
}

static void end_lease(struct played_node *node) { /* locked */
    atomic_store(&node->lease.until, INT64_MIN);
    node->asked = false;
}

static void choose(struct played_register *all, const struct register_value *next) { /* locked */
    all->value = *next;
    all->changes++;
    all->half.there = false;
    if (all->grant.node >= 0 &&
        (all->grant.epoch != next->epoch || strcmp(all->nodes[all->grant.node].name, next->primary) != 0))
        all->grant.node = -1;
    for (int i = 0; i < PLAYED_NODES; i++)
        all->nodes[i].news = true;
}

/* Another one's value is completed before anything else; a holder whom it does not name has stopped before. Locked. */
static int complete(struct played_node *node, struct register_value *expected, const struct register_value *next) {
    struct played_register *all = node->all;
    bool own = register_compare(&all->half.next, next) == 0 && strcmp(all->half.next.primary, next->primary) == 0;
    if (strcmp(all->half.next.primary, node->name) != 0)
        end_lease(node);
    choose(all, &all->half.next);
    if (!own)
        *expected = all->value;
    return own ? 0 : -ESTALE;
}

static int played_change(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    struct played_node *node = node_of(reg);
    struct played_register *all = node->all;
    if (atomic_load(&node->unreachable)) {
        usleep(20000);
        return -ENOTCONN;
    }
    lock(all);
    int rc = 0, self = number(node);
    if (strcmp(next->primary, node->name) != 0)
        end_lease(node);
    if (register_compare(&all->value, expected) == 0 && atomic_exchange(&node->half, false)) {
        all->half.there = true;
        all->half.next = *next;
        rc = -EINPROGRESS;
    } else if (granted(all, clock_boot()) && all->grant.node != self) {
        rc = -EBUSY;
    } else if (all->half.there && atomic_load(&all->half.seen)) {
        rc = complete(node, expected, next);
    } else if (register_compare(&all->value, expected) != 0) {
        *expected = all->value;
        rc = -ESTALE;
    } else if (register_compare(next, expected) <= 0) {
        rc = -EINVAL;
    } else {
        choose(all, next);
    }
    if (rc == 0 && atomic_load(&node->unanswered))
        rc = -ETIMEDOUT;
    unlock(all);
    return rc;
}

static void played_learn(struct reg *reg, const struct register_value *value) {
    (void)reg, (void)value;
}

/* ---- The lease ---- */

static void renew(struct played_node *node, int64_t now) { /* locked */
    struct played_register *all = node->all;
    bool named = all->value.epoch == node->taken && strcmp(all->value.primary, node->name) == 0;
    if (!named || (granted(all, now) && all->grant.node != number(node)))
        return;
    all->grant.node = number(node);
    all->grant.epoch = node->taken;
    all->grant.until = now + all->duration + all->margin;
    atomic_store(&node->lease.until, now + all->duration);
}

static int played_take(struct reg *reg, const struct register_value *value) {
    struct played_node *node = node_of(reg);
    lock(node->all);
    int rc = value->epoch <= node->taken ? -EALREADY : 0;
    if (rc == 0) {
        node->taken = value->epoch;
        node->asked = true;
        atomic_store(&node->lease.epoch, value->epoch);
        if (!atomic_load(&node->unreachable))
            renew(node, clock_boot());
    }
    unlock(node->all);
    return rc;
}

static void played_give_up(struct reg *reg) {
    struct played_node *node = node_of(reg);
    struct played_register *all = node->all;
    lock(all);
    end_lease(node);
    if (all->grant.node == number(node) && !atomic_load(&node->unreachable)) {
        all->grant.node = -1;
        tell_freed(all, number(node));
    }
    unlock(all);
}

static int played_lease_free(struct reg *reg, char holder[64], int64_t *wait) {
    struct played_node *node = node_of(reg);
    struct played_register *all = node->all;
    int rc = 0;
    if (atomic_load(&node->unreachable))
        return -ENOTCONN;
    lock(all);
    int64_t now = clock_boot();
    if (granted(all, now) && all->grant.node != number(node)) {
        snprintf(holder, 64, "%s", all->nodes[all->grant.node].name);
        *wait = all->grant.until - now;
        rc = -EBUSY;
    }
    unlock(all);
    return rc;
}

static void played_view(struct reg *reg, struct lease_view *view) {
    struct played_node *node = node_of(reg);
    memset(view, 0, sizeof *view);
    lock(node->all);
    int64_t until = atomic_load(&node->lease.until), now = clock_boot();
    view->asked = node->asked;
    view->held = until > now;
    view->left = view->held ? until - now : 0;
    view->count = view->needed = 1;
    strcpy(view->voters[0].name, "played");
    view->voters[0].listed = true;
    view->voters[0].answers = !atomic_load(&node->unreachable);
    view->voters[0].grants = view->held;
    view->voters[0].heard = now;
    unlock(node->all);
}

static void nothing_to_close(struct reg *reg) {
    (void)reg;
}

static const struct lease_engine lease_engine = {
    .take = played_take, .give_up = played_give_up, .free = played_lease_free, .view = played_view};
static const struct register_engine engine = {.name = "played",
                                              .lease = &lease_engine,
                                              .read = played_read,
                                              .change = played_change,
                                              .learn = played_learn,
                                              .close = nothing_to_close};

/* ---- The thread ---- */

/* What there is to be told to one node; nothing is locked while it is told. */
static void tell(struct played_register *all, struct played_node *node) {
    struct register_watch watch;
    struct register_value value;
    bool lost = false, news = false, freed = false, renews = false;
    lock(all);
    int64_t now = clock_boot();
    bool open = node->open, cut = atomic_load(&node->unreachable);
    watch = node->watch;
    value = all->value;
    if (open && node->asked && atomic_load(&node->lease.until) != INT64_MIN && atomic_load(&node->lease.until) <= now) {
        end_lease(node);
        lost = true;
    }
    if (open && !cut) {
        renews = node->asked && !(atomic_load(&node->unrenewed) && atomic_load(&node->lease.until) != INT64_MIN);
        news = node->news;
        freed = node->freed;
        node->news = node->freed = false;
    }
    epoch_t epoch = node->taken;
    unlock(all);
    if (renews && watch.fit(watch.context)) {
        lock(all);
        if (node->asked)
            renew(node, clock_boot());
        unlock(all);
    }
    if (lost)
        watch.lost(watch.context, epoch);
    if (news)
        watch.news(watch.context, &value);
    if (freed)
        watch.freed(watch.context);
}

static void *run(void *argument) {
    struct played_register *all = argument;
    for (bool stop = false; !stop;) {
        usleep(2000);
        lock(all);
        if (all->grant.node >= 0 && clock_boot() >= all->grant.until) {
            tell_freed(all, -1);
            all->grant.node = -1;
        }
        stop = all->stop;
        unlock(all);
        for (unsigned i = 0; i < PLAYED_NODES && !stop; i++)
            tell(all, &all->nodes[i]);
    }
    return NULL;
}

struct played_register *played_make(int64_t duration) {
    struct played_register *all = calloc(1, sizeof *all);
    PROMISE(all && pthread_mutex_init(&all->lock, NULL) == 0);
    all->duration = duration;
    all->margin = duration / 16;
    all->grant.node = -1;
    PROMISE(pthread_create(&all->thread, NULL, run, all) == 0);
    return all;
}

void played_free(struct played_register *all) {
    lock(all);
    all->stop = true;
    unlock(all);
    pthread_join(all->thread, NULL);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

void played_open(struct played_register *all, unsigned index, struct volume *volume) {
    struct played_node *node = &all->nodes[index];
    lock(all);
    node->reg.engine = &engine;
    node->all = all;
    snprintf(node->name, sizeof node->name, "%s", volume->self->name);
    node->watch = replicator_watch(volume);
    end_lease(node);
    node->news = node->freed = false;
    node->open = true;
    unlock(all);
    volume->reg = &node->reg;
    volume->lease = &node->lease;
}

void played_close(struct played_register *all, unsigned index, struct volume *volume) {
    lock(all);
    all->nodes[index].open = false;
    end_lease(&all->nodes[index]); /* its process has ended: nobody renews; a grant lasts until its time is over */
    unlock(all);
    volume->reg = NULL;
    volume->lease = NULL;
}

void played_pair(struct pair *pair, int64_t duration) {
    pair->played = played_make(duration);
    pair->open_register = played_open;
    pair->close_register = played_close;
}

void played_silence(struct pair *pair, unsigned node) {
    atomic_store(&pair->played->nodes[node].unreachable, true);
    pair_silence(pair, node);
}

struct register_value played_value(struct played_register *all) {
    lock(all);
    struct register_value value = all->value;
    unlock(all);
    return value;
}
