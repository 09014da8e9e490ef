/* Promotion, asked for by a person. */
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- Promotion ------------------------------------------------------------------------------------------------------- */

static int may_promote(struct replicator *r, char *why, size_t room) {
    int64_t since = clock_boot();
    roles_ask_locked(r, ~0u, ASK_PATIENCE);
    int primary = roles_answering_primary(r, since), rc = 0;
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
    } else if (!register_is_member(&r->value, roles_own_name(r), r->incarnation)) {
        snprintf(why, room, "this store is not in the in-sync set (it may lack what was acknowledged since LSN %" PRIu64
                 "); promote a member of the set, or this one with --force if that loss is accepted", r->position.lsn);
        rc = -ESTALE;
    } else if (!r->set_heard) {
        snprintf(why, room, "this node has not heard from a primary since it started, or since it refused one's record, so "
                 "another one may have gone on without it (this store ends at LSN %" PRIu64 "); start the other node, or promote "
                 "this one with --force if it is sure that nothing newer exists, or if that loss is accepted", r->position.lsn);
        rc = -ESTALE;
    }
    repl_unlock(r);
    return rc;
}

int promote_fenced(struct replicator *r, char *why, size_t room) {
    int rc = may_promote(r, why, room);
    if (rc)
        return rc;
    roles_takeover_begin(r, "the other node was powered off");
    return roles_become_primary(r, &(struct beginning){.start = START_PROMOTED}, why, room);
}

/* ---- With a lease: as an election, but at once, and refused in words --------------------------------------------------- */

/* The newest value that can be had, and nobody who is primary. */
static int ask_nodes(struct replicator *r, char *why, size_t room) {
    struct reg *reg = r->volume->reg;
    struct register_value found;
    int64_t since = clock_boot();
    if (reg->engine->read(reg, &found) == 0)
        roles_adopt(r, &found);
    roles_ask_locked(r, ~0u, ASK_PATIENCE);
    int primary = roles_answering_primary(r, since);
    bool own = r->role == ROLE_PRIMARY;
    repl_unlock(r);
    if (own)
        snprintf(why, room, "this node is primary already");
    else if (primary >= 0)
        snprintf(why, room, "node %s is primary and answers; use \"baton switchover\", which loses nothing",
                 r->config->nodes[primary].name);
    return own ? -EALREADY : primary >= 0 ? -EBUSY : 0;
}

/* A majority lets this node in. By force the lease of one that does not answer is waited for: voters let nobody in before. */
static int ask_voters(struct replicator *r, bool force, char *why, size_t room) {
    struct reg *reg = r->volume->reg;
    int64_t deadline = clock_boot() + 3 * r->lease + 1000 * MS;
    for (;;) {
        struct register_value found;
        char holder[64] = "";
        int64_t wait = 0;
        int rc = reg->engine->read(reg, &found);
        if (rc == 0 && found.version)
            rc = r->elects->free(reg, holder, &wait);
        if (rc == 0)
            return 0;
        if (rc != -EBUSY) {
            snprintf(why, room, rc == -ENOTCONN ? "no majority of the voters answers, and without one nobody becomes primary; see "
                                                  "which of them are down or cut off"
                                                : "the voters cannot be asked: %s", strerror(-rc));
            return rc;
        }
        if (!force || clock_boot() >= deadline) {
            snprintf(why, room, "%s%s holds the lease, or did a moment ago: the voters let nobody else in for %" PRId64 " ms more",
                     holder[0] ? "node " : "somebody", holder, MAX(wait, 0) / MS);
            return -EBUSY;
        }
        usleep((useconds_t)(MIN(MAX(wait, 10 * MS), 200 * MS) / 1000));
    }
}

/* May this node be primary, and who stays in the set beside it? Words if not. */
static bool judge(struct replicator *r, struct elect_view *view, char *why, size_t room) {
    bool reaches = candidate_reaches_start(r);
    repl_lock(r);
    struct elect elect = r->elect;
    int64_t now = clock_boot();
    candidate_view(r, now - ASK_PATIENCE, view);
    view->reaches_start = reaches;
    view->fit = !store_stalled(r->store, MAX(r->lease, SICK_LEAST));
    elect.yields_until = now; /* whoever would go first, a person has decided */
    bool may = elect_judge(&elect, view, now);
    repl_unlock(r);
    if (!may)
        snprintf(why, room, "%s", elect.why[0]);
    return may;
}

static int promote_elected(struct replicator *r, bool force, char *why, size_t room) {
    struct elect_view view;
    char reason[WIRE_TEXT] = "";
    int rc = ask_nodes(r, why, room);
    if (rc)
        return rc;
    bool may = judge(r, &view, reason, sizeof reason);
    if (!force && (!may || r->stays)) {
        snprintf(why, room, "%s", may ? "this node is kept as standby; \"baton standby --end\" ends that" : reason);
        return may ? -EPERM : -ESTALE;
    }
    rc = ask_voters(r, force, why, room);
    if (rc)
        return rc;
    if (!may)
        log_warning("promoted by force, although: %s", reason);
    roles_takeover_begin(r, may ? "promoted" : "promoted by force");
    struct beginning beginning = {.start = may ? START_ELECTED : START_PROMOTED, .keep = elect_keeps(&view)};
    return roles_become_primary(r, &beginning, why, room);
}

int replicator_promote(struct replicator *r, bool force, char *why, size_t room) {
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    if (r->elects) {
        int rc = promote_elected(r, force, why, room);
        PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
        return rc;
    }
    int rc = may_promote(r, why, room);
    if (rc == -ESTALE) { /* what the others said just now may not be in the register here yet */
        roles_take_over_value(r);
        rc = may_promote(r, why, room);
    }
    if (rc == 0 || (force && rc != -EALREADY)) {
        roles_takeover_begin(r, rc ? "promoted by force" : "promoted");
        if (rc)
            log_warning("promoted by force, although: %s", why);
        rc = roles_become_primary(r, &(struct beginning){.start = START_PROMOTED}, why, room);
    }
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    return rc;
}

