/* The list of voters: who they are when a volume is born, and how the primary changes it, one voter at a time. */
#include "membership/voters_parts.h"

#include <stdarg.h>
#include <stdio.h>

unsigned voters_at_birth(const struct config *config, const char *names[REGISTER_VOTERS_MAX]) {
    _Static_assert(CONFIG_NODES_MAX <= REGISTER_VOTERS_MAX, "an even number of them leaves room for the witness");
    unsigned count = 0;
    for (unsigned i = 0; i < config->node_count; i++)
        if (!config_is_spare(config, &config->nodes[i]))
            names[count++] = config->nodes[i].name;
    if (config->has_witness && count % 2 == 0 && count < REGISTER_VOTERS_MAX)
        names[count++] = config->witness.name;
    return count;
}

void list_at_birth(const struct voters *v, const struct look *look, struct register_value *value) {
    const char *names[REGISTER_VOTERS_MAX];
    memset(value, 0, sizeof *value);
    value->voter_count = voters_at_birth(v->config, names);
    for (unsigned i = 0; i < value->voter_count; i++) {
        int seat = seat_named(v, names[i]);
        snprintf(value->voters[i].name, sizeof value->voters[i].name, "%s", names[i]);
        if (seat >= 0 && (look->have & 1u << seat))
            memcpy(value->voters[i].id, look->answers[seat].id, sizeof value->voters[i].id);
    }
}

int voters_birth(struct voters *v, struct register_value *value, int64_t deadline) {
    struct look look;
    int rc = -ENOTCONN;
    voters_enter(v);
    list_at_birth(v, &(struct look){.have = 0}, value);
    unsigned all = seats_of(v, value->voters, value->voter_count);
    look_begin(v, &look, all);
    while (v->known.version == 0 && (look.have & all) != all && voters_wait(v, deadline))
        ;
    round_end(v, &look.round);
    list_at_birth(v, &look, value);
    if (v->known.version)
        rc = -ESTALE;
    else if ((look.have & all) == all)
        rc = 0;
    voters_leave(v);
    if (rc == -ESTALE && voters_read(&v->reg, value) != 0)
        log_debug("the value was found by one voter, and no majority of its list answers");
    return rc;
}

/* ---- Changing it ----------------------------------------------------------------------------------------------------- */

static int refuse(int rc, char *why, size_t why_room, const char *format, ...) __attribute__((format(printf, 4, 5)));
static int refuse(int rc, char *why, size_t why_room, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, why_room, format, arguments);
    va_end(arguments);
    return rc;
}

static int place_of(const struct register_value *value, const char *name) {
    for (unsigned i = 0; i < value->voter_count; i++)
        if (strcmp(value->voters[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* The id of the voter that answers under that name. Lock held, and given away meanwhile. */
static int ask_id(struct voters *v, const char *name, uint8_t id[16], int64_t deadline) {
    struct look look;
    int seat = seat_named(v, name);
    look_begin(v, &look, 1u << seat);
    while (!look.have && voters_wait(v, deadline))
        ;
    round_end(v, &look.round);
    if (!look.have)
        return -ENOTCONN;
    memcpy(id, look.answers[seat].id, 16);
    return 0;
}

/* Makes `next` from what is known. */
static int edit_list(struct voters *v, enum voters_edit edit, const char *name, int64_t deadline, struct register_value *next,
                     char *why, size_t why_room) {
    uint8_t id[16];
    int place = place_of(next, name), rc = 0;
    if (edit == VOTERS_ADD && place >= 0)
        return refuse(-EEXIST, why, why_room, "%s is a voter already; if it has lost its state, replace it", name);
    if (edit != VOTERS_ADD && place < 0)
        return refuse(-ENOENT, why, why_room, "%s is no voter; baton status shows who is", name);
    if (edit == VOTERS_ADD && next->voter_count == REGISTER_VOTERS_MAX)
        return refuse(-ENOSPC, why, why_room, "there are %u voters already, and cannot be more", REGISTER_VOTERS_MAX);
    if (edit == VOTERS_REMOVE && next->voter_count == 1)
        return refuse(-EINVAL, why, why_room, "%s is the only voter", name);
    if (edit == VOTERS_REPLACE && next->voter_count == 1)
        return refuse(-EINVAL, why, why_room, "%s is the only voter; add another one, then remove it", name);
    if (edit == VOTERS_REMOVE) {
        memmove(&next->voters[place], &next->voters[place + 1], (next->voter_count - (unsigned)place - 1) * sizeof next->voters[0]);
        memset(&next->voters[--next->voter_count], 0, sizeof next->voters[0]);
        return 0;
    }
    if (seat_named(v, name) < 0)
        return refuse(-ENOENT, why, why_room, "the config file has no node %s, and a voter is a node of it or its witness", name);
    rc = ask_id(v, name, id, deadline);
    if (rc)
        return refuse(rc, why, why_room, "the voter %s does not answer; see that it runs and serves this volume", name);
    if (edit == VOTERS_REPLACE && memcmp(id, next->voters[place].id, sizeof id) == 0)
        return refuse(-EEXIST, why, why_room, "the voter %s that answers is the one that is in the list", name);
    if (edit == VOTERS_ADD)
        place = (int)next->voter_count++;
    memset(&next->voters[place], 0, sizeof next->voters[place]);
    snprintf(next->voters[place].name, sizeof next->voters[place].name, "%s", name);
    memcpy(next->voters[place].id, id, sizeof id);
    return 0;
}

#define UNGUARDED "too few of the voters that stay grant the lease as far as it has been counted on; see baton status, and try again"

/* A majority of the new list has to grant the lease, or it is lost by the change. `name` has just answered. */
static int would_hold(const struct voters *v, const struct register_value *next, const char *name, int64_t now, char *why,
                      size_t why_room) {
    unsigned grant = 0;
    for (unsigned i = 0; i < next->voter_count; i++) {
        const struct lease_list *list = &v->holding.lease.list;
        bool grants = strcmp(next->voters[i].name, name) == 0;
        for (unsigned j = 0; j < list->count; j++)
            grants = grants || (memcmp(list->voters[j].id, next->voters[i].id, 16) == 0 && list->sent[j] != INT64_MIN &&
                                list->sent[j] + v->duration > now);
        grant += grants;
    }
    return grant > next->voter_count / 2 ? 0 : refuse(-EAGAIN, why, why_room, "of the %u voters that there would be only %u answer; "
                                                      "the volume would stop", next->voter_count, grant);
}

/* The next renewals bring it about, if those that stay grant them. */
static int wait_for_guards(struct voters *v, const struct register_value *next, int64_t deadline, char *why, size_t why_room) {
    while (v->holding.asked && !lease_may_propose(&v->holding.lease, next) && voters_wait(v, deadline))
        ;
    if (!v->holding.asked)
        return refuse(-EPERM, why, why_room, "this node has lost the lease; the primary changes the list of voters");
    return lease_may_propose(&v->holding.lease, next) ? 0 : refuse(-EAGAIN, why, why_room, UNGUARDED);
}

static int prepare_edit(struct voters *v, struct register_value *expected, enum voters_edit edit, const char *name, bool even,
                        struct register_value *next, char *why, size_t why_room) {
    int64_t deadline = clock_boot() + voters_patience(v);
    while (v->holding.asked && !holding_backed(v, clock_boot()) && voters_wait(v, deadline))
        ;
    if (!v->holding.asked)
        return refuse(-EPERM, why, why_room, "this node does not hold the lease; the primary changes the list of voters");
    if (!holding_backed(v, clock_boot()))
        return refuse(-EAGAIN, why, why_room, "a majority of the voters has not renewed the lease since the last change; try again");
    if (v->known.version != expected->version) {
        *expected = v->known;
        return refuse(-ESTALE, why, why_room, "the register has changed meanwhile; try again");
    }
    *next = v->known;
    next->version++;
    int rc = edit_list(v, edit, name, deadline, next, why, why_room);
    if (rc)
        return rc;
    if (next->voter_count % 2 == 0 && !even && edit != VOTERS_REPLACE)
        return refuse(-EINVAL, why, why_room, "%u voters would bear no more failures than %u, and there would be more that can "
                      "fail; say --even if another change follows", next->voter_count, next->voter_count - 1);
    rc = would_hold(v, next, name, clock_boot(), why, why_room);
    return rc ? rc : wait_for_guards(v, next, deadline, why, why_room);
}

/* An earlier list may be chosen still: a value that changes nothing settles that, or completes it. */
static int settle(struct voters *v, struct register_value *expected, char *why, size_t why_room) {
    voters_lock(v);
    struct register_value known = v->known, next = known;
    bool unsettled = v->holding.asked && lease_unsettled(&v->holding.lease);
    voters_unlock(v);
    if (!unsettled)
        return 0;
    next.version++;
    int rc = voters_propose(v, &known, &next, false);
    if (rc && rc != -ESTALE)
        return refuse(rc, why, why_room, "it is not known yet whether the last change of the list was made: %s", strerror(-rc));
    voters_lock(v);
    *expected = v->known; /* of either list */
    voters_unlock(v);
    return refuse(-ESTALE, why, why_room, "the last change of the list is settled now; try again");
}

int voters_edit(struct reg *reg, struct register_value *expected, enum voters_edit edit, const char *name, bool even, char *why,
                size_t why_room) {
    struct voters *v = (struct voters *)reg;
    struct register_value next;
    voters_enter(v);
    if (v->editing) {
        voters_leave(v);
        return refuse(-EBUSY, why, why_room, "the list of voters is being changed already");
    }
    v->editing = true;
    voters_unlock(v);
    int rc = settle(v, expected, why, why_room);
    if (rc == 0) {
        voters_lock(v);
        rc = prepare_edit(v, expected, edit, name, even, &next, why, why_room);
        voters_unlock(v);
    }
    if (rc == 0) {
        rc = voters_propose(v, expected, &next, true);
        if (rc == 0)
            *expected = next;
        else if (rc == -ESTALE)
            refuse(rc, why, why_room, "the register has changed meanwhile; try again");
        else if (rc == -EAGAIN)
            refuse(rc, why, why_room, UNGUARDED);
        else
            refuse(rc, why, why_room, rc == -EINPROGRESS ? "not enough voters have answered in time; the list may have changed or "
                                                           "not: see baton status"
                                                         : "the list was not changed: %s", strerror(-rc));
    }
    voters_lock(v);
    v->editing = false;
    voters_leave(v);
    return rc;
}
