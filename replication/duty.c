/* What a primary does beside, where the cluster decides: it hands back to the preferred node, or to any other one if a person
 * wants this one to stay standby; it lets voters in again that have lost their disk. And whether a node may be stopped.
 */
#include "fs/events.h"
#include "replication/parts.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define LOOK_PATIENCE (500 * MS) /* for the voters' answers */
#define STEADY 5                    /* lease times: so long a node is in sync before it is handed to… */
#define STEADY_LEAST (2000 * MS)    /* …and this */
#define AGAIN_LEAST (10000 * MS)    /* between attempts */
#define VOTER_STEADY 3              /* lease times: so long another voter answers under a listed name */
#define HANDOVER_PATIENCE (5000 * MS)

static int64_t steady(const struct replicator *r) {
    return MAX(STEADY * r->lease, STEADY_LEAST);
}

bool duty_in_sync(const struct replicator *r, unsigned node) {
    return r->peers[node].feed.state == FEED_STREAMING && (r->acks.set & 1u << node) && roles_in_set(r, node);
}

/* ---- To stay standby ------------------------------------------------------------------------------------------------- */

static void mark_path(const struct replicator *r, char *path, size_t room) {
    register_file_path(store_path(r->store), path, room);
    char *end = strrchr(path, '.');
    snprintf(end, room - (size_t)(end - path), ".standby");
}

void duty_start(struct replicator *r) {
    char path[1100];
    mark_path(r, path, sizeof path);
    r->stays = access(path, F_OK) == 0;
}

static int write_mark(const struct replicator *r, bool stays) {
    char path[1100], *slash;
    int rc = 0;
    mark_path(r, path, sizeof path);
    if (stays) {
        AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0 || fsync(fd) < 0)
            rc = -errno;
    } else if (unlink(path) < 0 && errno != ENOENT) {
        rc = -errno;
    }
    slash = strrchr(path, '/');
    if (rc || !slash)
        return rc;
    slash[slash == path] = 0;
    return fsync_dir(path);
}

static int set_stays(struct replicator *r, bool stays, char *why, size_t room) {
    int rc = write_mark(r, stays);
    if (rc) {
        snprintf(why, room, "the mark beside the store could not be %s: %s", stays ? "written" : "removed", strerror(-rc));
        return rc;
    }
    repl_lock(r);
    r->stays = stays;
    r->beat_now = true;
    repl_unlock(r);
    talk_wake(r);
    return 0;
}

/* The command failed. Who goes on as primary is not kept as standby, or it would hand over later by itself; who is primary no
 * more is, as was asked for. */
static void after_failure(struct replicator *r, char *why, size_t room) {
    char reason[WIRE_TEXT] = "";
    size_t said = strnlen(why, room - 1);
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY;
    repl_unlock(r);
    if (!primary)
        snprintf(why + said, room - said, "; it is primary no more, and kept as standby");
    else if (set_stays(r, false, reason, sizeof reason))
        snprintf(why + said, room - said, "; but it hands over by itself when it can, until \"baton standby --end\": %s", reason);
}

static int stay_standby(struct replicator *r, bool *handed_over, char *why, size_t room) {
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY;
    repl_unlock(r);
    int node = primary ? handover_successor(r) : -1;
    if (primary && node < 0) {
        snprintf(why, room, "this node is primary, and no other node is in sync and may take over: see \"baton status --why\"");
        return -ENOTCONN;
    }
    int rc = set_stays(r, true, why, room);
    if (rc || !primary)
        return rc;
    rc = handover_to(r, (unsigned)node, HANDOVER_PATIENCE, why, room);
    if (rc)
        after_failure(r, why, room);
    *handed_over = rc == 0;
    return rc;
}

int replicator_standby(struct replicator *r, bool end, bool *handed_over, char *why, size_t room) {
    *handed_over = false;
    if (!r->elects) {
        snprintf(why, room, "the volume has neither a witness nor etcd: a person decides which node is primary, and it stays so");
        return -ENOTSUP;
    }
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    int rc = end ? set_stays(r, false, why, room) : stay_standby(r, handed_over, why, room);
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    if (rc == 0)
        volume_event(r->volume, end ? "standby-ended" : "standby-kept", NULL,
                     end ? "this node may be primary again" : "this node is kept as standby, until that is ended");
    return rc;
}

/* ---- May it be stopped? ---------------------------------------------------------------------------------------------- */

static void add(json_t *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(json_t *why, const char *format, ...) {
    char text[WIRE_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_array_append_new(why, json_string(text));
}

static void ready_as_primary(struct replicator *r, int successor, json_t *why) {
    if (!r->elects)
        add(why, "it is primary, and no node takes over by itself: hand over with \"baton switchover\" first");
    else if (successor < 0)
        add(why, "it is primary, and no other node is in sync that may take over");
}

static void ready_as_standby(struct replicator *r, json_t *why) { /* lock held */
    int64_t now = clock_boot();
    int primary = -1;
    unsigned others = 0;
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && r->peers[i].known && now - r->peers[i].heard <= r->lease && r->peers[i].beat.role == ROLE_PRIMARY &&
            r->peers[i].beat.value.epoch >= r->value.epoch)
            primary = (int)i;
    if (primary < 0)
        add(why, "no node is primary, as far as this one knows, and it may be the one that is needed");
    for (unsigned i = 0; i < r->value.member_count; i++)
        others += strcmp(r->value.members[i].node, roles_own_name(r)) != 0;
    if (others == 0)
        add(why, "it is the only one in the in-sync set: the others lack something that was acknowledged");
}

/* To whom this primary hands over they will grant; the primary that this standby leaves they have to have granted already. */
static void ready_voters(const struct replicator *r, const struct lease_view *view, bool primary, json_t *why) {
    unsigned without = 0, listed = 0;
    for (unsigned i = 0; i < view->count && i < REGISTER_VOTERS_MAX; i++) {
        listed += view->voters[i].listed;
        without += view->voters[i].listed && (primary || !r->elects->look ? view->voters[i].answers : view->voters[i].holds) &&
                   strcmp(view->voters[i].name, roles_own_name(r)) != 0;
    }
    if (listed && without < view->needed)
        add(why, "%u of the %u voters would be left, and %u are needed: without it nobody could become primary, or stay it",
            without, listed, view->needed);
}

json_t *replicator_ready_to_stop(struct replicator *r) {
    json_t *why = json_array();
    struct lease_view view;
    int successor = handover_successor(r);
    if (r->elects && r->elects->look)
        r->elects->look(r->volume->reg, LOOK_PATIENCE);
    if (r->elects)
        r->elects->view(r->volume->reg, &view);
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY;
    if (primary)
        ready_as_primary(r, successor, why);
    else
        ready_as_standby(r, why);
    repl_unlock(r);
    if (r->elects)
        ready_voters(r, &view, primary, why);
    return json_pack("{s:b, s:o, s:b}", "ready", json_array_size(why) == 0, "why", why, "end", 1);
}

/* ---- Handing back ---------------------------------------------------------------------------------------------------- */

/* To whom this primary is to hand over, or -1. lock held */
static int hand_back_to(const struct replicator *r, int64_t now) {
    int found = -1;
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        bool preferred = strcmp(peer->node->name, r->config->preferred) == 0;
        bool wanted = r->stays || config_is_spare(r->config, &r->config->nodes[r->self]) ||
                      (preferred && r->config->failback == FAILBACK_AUTO);
        if (i == r->self || !wanted || !peer->synced_since || now - peer->synced_since < steady(r) ||
            (peer->beat.flags & (BEAT_STAYS | BEAT_SICK | BEAT_LEAVES | BEAT_BROKEN)) || config_is_spare(r->config, peer->node))
            continue;
        if (found < 0 || preferred)
            found = (int)i;
    }
    return found;
}

static void hand_back(struct replicator *r) {
    char why[WIRE_TEXT] = "";
    int64_t now = clock_boot();
    repl_lock(r);
    int node = r->role == ROLE_PRIMARY && !r->leaving && now >= r->hand_back_again ? hand_back_to(r, now) : -1;
    repl_unlock(r);
    if (node < 0)
        return;
    log_info("handing over to node %s%s", r->config->nodes[node].name,
             r->stays ? ": this one is kept as standby" : ", the preferred one, which is in sync");
    int rc = handover_to(r, (unsigned)node, HANDOVER_PATIENCE, why, sizeof why);
    if (rc)
        log_warning("it was not handed over: %s", why);
    repl_lock(r);
    r->hand_back_again = clock_boot() + MAX(10 * r->lease, AGAIN_LEAST);
    repl_unlock(r);
}

/* ---- Voters ---------------------------------------------------------------------------------------------------------- */

int duty_edit_voters(struct replicator *r, enum voters_edit edit, const char *name, bool even, char *why, size_t room) {
    repl_lock(r);
    struct register_value expected = r->value;
    bool primary = r->role == ROLE_PRIMARY, busy = r->acks.pending;
    repl_unlock(r);
    if (!primary || busy) {
        snprintf(why, room, primary ? "the in-sync set is being changed; try again" : "this node is not primary; ask the primary");
        return primary ? -EBUSY : -EROFS;
    }
    int rc = r->elects->edit(r->volume->reg, &expected, edit, name, even, why, room);
    if (rc && rc != -ESTALE && r->volume->reg->engine->read(r->volume->reg, &expected) != 0)
        return rc; /* if it has changed all the same, that is news */
    repl_lock(r);
    if (r->role == ROLE_PRIMARY && register_compare(&expected, &r->value) > 0 && expected.epoch == r->value.epoch) {
        r->value = expected;
        acks_adopt(&r->acks, set_bits(r, &expected));
    }
    repl_unlock(r);
    if (rc)
        return rc;
    const char *what = edit == VOTERS_ADD ? "votes from now on" : edit == VOTERS_REMOVE ? "votes no more" : "votes again, with another state";
    volume_event(r->volume, "voters", json_pack("{s:s}", "voter", name), "%s %s", name, what);
    log_info("the voters have changed: %s %s", name, what);
    return 0;
}

int replicator_voters(struct replicator *r, enum voters_edit edit, const char *name, bool even, char *why, size_t room) {
    if (!r->elects || !r->elects->edit) {
        snprintf(why, room, r->elects ? "etcd keeps this volume's register: its members are changed with etcdctl"
                                      : "the volume has neither a witness nor etcd: it has no voters");
        return -ENOTSUP;
    }
    PROMISE(pthread_mutex_lock(&r->role_lock) == 0);
    int rc = duty_edit_voters(r, edit, name, even, why, room);
    PROMISE(pthread_mutex_unlock(&r->role_lock) == 0);
    return rc;
}

/* A voter whose name is listed answers with another id: it has lost its disk. For a while, so that it is no old process. */
static int voter_without_disk(struct replicator *r, const struct lease_view *view, int64_t now) {
    int found = -1;
    for (unsigned i = 0; i < view->count && i < REGISTER_VOTERS_MAX; i++) {
        bool named = false;
        for (unsigned j = 0; j < r->value.voter_count; j++)
            named = named || strcmp(r->value.voters[j].name, view->voters[i].name) == 0;
        bool another = named && !view->voters[i].listed && view->voters[i].answers;
        if (!another)
            r->voter_since[i] = 0;
        else if (!r->voter_since[i])
            r->voter_since[i] = now;
        else if (now - r->voter_since[i] >= VOTER_STEADY * r->lease)
            found = (int)i;
    }
    return found;
}

static void let_voter_in(struct replicator *r, struct lease_view *view) {
    char why[WIRE_TEXT] = "";
    int64_t now = clock_boot();
    repl_lock(r);
    int which = r->role == ROLE_PRIMARY && r->value.voter_count ? voter_without_disk(r, view, now) : -1;
    bool due = which >= 0 && now >= r->voters_again;
    if (due)
        r->voters_again = now + MAX(5 * r->lease, AGAIN_LEAST);
    repl_unlock(r);
    if (!due)
        return;
    if (duty_edit_voters(r, VOTERS_REPLACE, view->voters[which].name, false, why, sizeof why))
        log_warning("the voter %s, which has lost its state, could not be let in again: %s", view->voters[which].name, why);
}

/* A voter was away when the present value was chosen, and refuses the lease that goes with it: without another change it would do
 * that for ever, and the lease hang on the others. */
static void catch_voters_up(struct replicator *r, const struct lease_view *view) {
    const char *behind = NULL;
    int64_t now = clock_boot();
    for (unsigned i = 0; i < view->count && i < REGISTER_VOTERS_MAX; i++)
        if (view->voters[i].behind)
            behind = view->voters[i].name;
    repl_lock(r);
    r->behind_since = !behind || r->role != ROLE_PRIMARY ? 0 : r->behind_since ? r->behind_since : now;
    bool due = r->behind_since && now - r->behind_since >= r->lease / 8 && now >= r->refresh_again && !r->acks.pending;
    struct register_value value = r->value;
    if (due)
        r->refresh_again = now + r->lease;
    repl_unlock(r);
    if (!due)
        return;
    int rc = r->elects->refresh(r->volume->reg, &value);
    if (rc)
        log_info("the voter %s has missed the present value, which could not be offered again: %s; trying again", behind, strerror(-rc));
    else
        log_info("the voter %s has missed the present value: it is offered it again", behind);
}

/* ---- The keeper's ---------------------------------------------------------------------------------------------------- */

void duty_consider(struct replicator *r) {
    int64_t now = clock_boot();
    if (!r->elects)
        return;
    repl_lock(r);
    for (unsigned i = 0; i < r->count; i++) {
        bool synced = r->role == ROLE_PRIMARY && i != r->self && duty_in_sync(r, i);
        r->peers[i].synced_since = !synced ? 0 : r->peers[i].synced_since ? r->peers[i].synced_since : now;
    }
    bool due = r->role == ROLE_PRIMARY && !r->changing && now >= r->duty_again;
    if (due)
        r->duty_again = now + MIN(r->lease / 4, 500 * MS);
    if (due)
        spare_consider(r, now);
    repl_unlock(r);
    if (!due)
        return;
    hand_back(r);
    if (r->elects->edit) {
        struct lease_view view;
        r->elects->view(r->volume->reg, &view);
        let_voter_in(r, &view);
        catch_voters_up(r, &view);
        spare_voters(r, &view);
    }
}
