/* Two nodes alone, with a program that powers the other one off ([fence]): each may go on without the other only when that is
 * off. The primary does not put a silent standby out of the set before, or it would acknowledge what nobody else has while that
 * one takes over; the standby does not become primary before. The primary goes first.
 *
 * Only silence is fenced. A node that has said goodbye was stopped by a person, who decides who serves.
 */
#include "fs/events.h"
#include "membership/fence.h"
#include "replication/parts.h"

#include <stdio.h>

#define AGAIN (10000 * MS)

static void *run(void *argument) {
    struct replicator *r = argument;
    struct fencing *fencing = &r->fencing;
    const struct config *config = r->config;
    int rc = fence_run(config->fence, config->volume, config->nodes[fencing->node].name, (int64_t)config->fence_ms * MS, &r->stopping,
                       fencing->why, sizeof fencing->why);
    atomic_store(&fencing->state, rc ? FENCING_FAILED : FENCING_DONE);
    repl_lock(r);
    keep_wake(r);
    repl_unlock(r);
    return NULL;
}

static void begin(struct replicator *r, unsigned node) {
    struct fencing *fencing = &r->fencing;
    fencing->node = node;
    fencing->since = clock_boot();
    atomic_store(&fencing->state, FENCING_RUNS);
    log_error("node %s is silent: the fence program %s is run, to power it off", r->config->nodes[node].name, r->config->fence);
    volume_event(r->volume, "fencing", json_pack("{s:s}", "node", r->config->nodes[node].name),
                 "node %s is silent: the fence program is run, to power it off", r->config->nodes[node].name);
    PROMISE(pthread_create(&fencing->thread, NULL, run, r) == 0);
}

/* When anything came from it last. lock held */
static int64_t heard(const struct replicator *r, unsigned node) {
    const struct peer *peer = &r->peers[node];
    int64_t last = MAX(peer->heard, peer->feed.state == FEED_STREAMING ? peer->feed.heard : 0);
    if (r->follow.state == FOLLOW_STREAMING && r->follow.primary == node)
        last = MAX(last, r->follow.heard);
    return last;
}

/* The node that has to be off before this one may go on, or -1. lock held */
static int whom(const struct replicator *r, int64_t now) {
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        bool member = set_bits(r, &r->value) & 1u << i;
        int64_t silent = now - heard(r, i);
        if (i == r->self || (r->fencing.off & 1u << i))
            continue;
        if (r->role == ROLE_PRIMARY && member && !peer->left && now - r->primary_since > r->lease && silent > r->lease)
            return (int)i;
        if (r->role == ROLE_STANDBY && r->set_heard && !r->value_heard && !r->primary_left &&
            strcmp(r->value.primary, peer->node->name) == 0 &&
            register_is_member(&r->value, roles_own_name(r), r->incarnation) && silent > r->lease + r->lease / 2)
            return (int)i;
    }
    return -1;
}

static void fenced(struct replicator *r) {
    char why[WIRE_TEXT] = "";
    const char *name = r->config->nodes[r->fencing.node].name;
    log_error("node %s is off, says the fence program", name);
    volume_event(r->volume, "fenced", json_pack("{s:s}", "node", name), "node %s is off, says the fence program", name);
    repl_lock(r);
    bool standby = r->role == ROLE_STANDBY, back = heard(r, r->fencing.node) > r->fencing.since;
    if (!back)
        r->fencing.off |= 1u << r->fencing.node;
    repl_unlock(r);
    if (back)
        log_error("but node %s has been heard since: this node does not go on without it", name);
    else if (standby && promote_fenced(r, why, sizeof why))
        log_error("this node does not become primary all the same: %s", why);
}

bool fencing_lets_go(const struct replicator *r, unsigned node) {
    return r->elects || !r->config->fence[0] || (r->fencing.off & 1u << node);
}

/* A member that holds up the primary and lives: nobody powers it off, and without it nobody goes on. One whose disk hangs has
 * left before (standby_look_at_disk). lock held */
static bool holds_up(const struct replicator *r, unsigned node, int64_t now) {
    const struct peer *peer = &r->peers[node];
    bool member = set_bits(r, &r->value) & 1u << node, fed = peer->feed.state == FEED_STREAMING;
    int64_t since = MAX(peer->feed.heard, r->primary_since), patience = r->lease + MAX(r->lease, SICK_LEAST);
    return r->role == ROLE_PRIMARY && node != r->self && member && !fencing_lets_go(r, node) &&
           now - heard(r, node) <= r->lease / 2 &&
           (fed ? feed_owes(&peer->feed, now) > patience : now - since > 2 * r->lease && !peer->left);
}

static void tell_of_the_living(struct replicator *r, int64_t now) { /* lock held */
    static const char sentence[] = "it lives, and what waits for it waits on: only who is silent is powered off. Stop it, or its "
                                   "machine, and this node goes on";
    bool told = strstr(r->trouble, sentence) != NULL;
    for (unsigned i = 0; i < r->count; i++)
        if (holds_up(r, i, now)) {
            if (!told && !r->trouble[0]) {
                snprintf(r->trouble, sizeof r->trouble, "node %.60s acknowledges nothing: %s", r->config->nodes[i].name,
                         sentence);
                log_error("%s", r->trouble);
            }
            return;
        }
    if (told)
        r->trouble[0] = 0;
}

void fencing_heard(struct replicator *r, unsigned node) {
    r->fencing.off &= ~(1u << node);
}

void fencing_consider(struct replicator *r) {
    struct fencing *fencing = &r->fencing;
    if (r->elects || !r->config->fence[0])
        return;
    enum fencing_state state = atomic_load(&fencing->state);
    if (state == FENCING_DONE || state == FENCING_FAILED) {
        pthread_join(fencing->thread, NULL);
        atomic_store(&fencing->state, FENCING_IDLE);
        fencing->again = clock_boot() + AGAIN;
        if (state == FENCING_DONE) {
            fenced(r);
            return;
        }
        log_error("%s: nobody goes on without that node; it is tried again", fencing->why);
        repl_lock(r);
        snprintf(r->trouble, sizeof r->trouble, "%.200s: nobody goes on without node %.60s; it is tried again", fencing->why,
                 r->config->nodes[fencing->node].name);
        repl_unlock(r);
    }
    repl_lock(r);
    int64_t now = clock_boot();
    tell_of_the_living(r, now);
    bool due = atomic_load(&fencing->state) == FENCING_IDLE && !r->changing && !r->unsure && now >= fencing->again;
    int node = due ? whom(r, now) : -1;
    repl_unlock(r);
    if (node >= 0)
        begin(r, (unsigned)node);
}

void fencing_stop(struct replicator *r) {
    if (atomic_load(&r->fencing.state) != FENCING_IDLE)
        pthread_join(r->fencing.thread, NULL);
}
