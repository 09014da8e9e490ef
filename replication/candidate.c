/* Standing for primary, where the register's engine has a lease: what elect.c decides is asked and done here. The keeper's.
 *
 * Order: register and voters (is the lease free?), the other nodes (how far are they?), then, if this node goes first,
 * roles_become_primary: the receiver stops, the ballot, the lease, the epoch. Nothing is asked while a primary is heard.
 */
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#define TAKE_MORE (1500 * MS) /* beyond two lease times a majority has to grant; a connection that a cut has spoiled is given up after a second */
#define GO_LEAST (30000 * MS) /* after-power-cut = go: the others have so long to come back */

/* ---- The lease ------------------------------------------------------------------------------------------------------- */

bool candidate_holds(const struct replicator *r) {
    return !r->elects || atomic_load(&r->volume->lease->until) > clock_boot();
}

void candidate_give_up(struct replicator *r) {
    if (r->elects)
        r->elects->give_up(r->volume->reg);
}

int candidate_take_lease(struct replicator *r, const struct register_value *value, char *why, size_t why_room) {
    if (!r->elects)
        return 0;
    int rc = r->elects->take(r->volume->reg, value);
    int64_t deadline = clock_boot() + 2 * r->lease + TAKE_MORE;
    while (rc == 0 && !candidate_holds(r)) {
        repl_lock(r);
        bool overtaken = r->lease_lost >= value->epoch || (r->value_heard && r->heard_value.epoch > value->epoch);
        repl_unlock(r);
        if (overtaken)
            rc = -ESTALE;
        else if (atomic_load(&r->stopping))
            rc = -ESHUTDOWN;
        else if (clock_boot() >= deadline)
            rc = -ETIMEDOUT;
        else
            usleep(500);
    }
    if (rc == 0)
        return 0;
    snprintf(why, why_room, "the register names this node, but the lease was not granted: %s", strerror(-rc));
    r->elects->give_up(r->volume->reg);
    return rc;
}

/* ---- Looking around -------------------------------------------------------------------------------------------------- */

/* What the file beside the store says, if that names this node. */
static bool named_by_file(struct replicator *r, struct register_value *value) {
    char path[1100], why[WIRE_TEXT];
    struct reg *file = NULL;
    register_file_path(store_path(r->store), path, sizeof path);
    if (access(path, F_OK) < 0)
        return false;
    if (register_file_open(path, &file, why, sizeof why) != 0) {
        log_warning("%s", why);
        return false;
    }
    bool own = file->engine->read(file, value) == 0 && strcmp(value->primary, roles_own_name(r)) == 0;
    file->engine->close(file);
    return own;
}

/* Once the engine has a value, the file's is an old one: it is to name nobody, should the voters ever lose theirs. */
static void retire_file(struct replicator *r) {
    char path[1100], why[WIRE_TEXT];
    struct register_value value;
    register_file_path(store_path(r->store), path, sizeof path);
    if (named_by_file(r, &value) && register_file_first(path, NULL, why, sizeof why) != 0)
        log_warning("%s", why);
}

void candidate_start(struct replicator *r) {
    struct register_value born;
    elect_start(&r->elect, r->lease, clock_boot());
    r->go_after = MAX(5 * r->lease, GO_LEAST);
    if (r->value.version)
        retire_file(r);
    else if (named_by_file(r, &born) &&
             (born.member_count == 0 || register_is_member(&born, roles_own_name(r), r->incarnation)))
        r->born = born; /* a volume without a register in its engine may have been used without one */
}

static int node_named(const struct replicator *r, const char *name) {
    const struct node_config *node = name[0] ? config_node(r->config, name) : NULL;
    return node ? (int)(node - r->config->nodes) : -1;
}

static bool named(const struct replicator *r, const char *name) {
    for (unsigned i = 0; i < r->value.member_count; i++)
        if (strcmp(r->value.members[i].node, name) == 0)
            return true;
    return false;
}

void candidate_view(struct replicator *r, int64_t since, struct elect_view *view) {
    *view = (struct elect_view){.self = r->self,
                                .count = r->count,
                                .preferred = node_named(r, r->config->preferred),
                                .last_primary = node_named(r, r->value.primary),
                                .fit = true,
                                .reaches_start = true,
                                .version = r->value.version,
                                .first = r->born.version > 0};
    for (unsigned i = 0; i < r->count; i++) {
        const struct peer *peer = &r->peers[i];
        bool own = i == r->self;
        const struct wire_position *position = own ? &r->position : &peer->beat.position;
        const uint8_t *incarnation = own ? r->incarnation : peer->beat.incarnation;
        view->nodes[i] = (struct elect_node){.name = peer->node->name,
                                             .named = named(r, peer->node->name),
                                             .member = (own || peer->known) &&
                                                       register_is_member(&r->value, peer->node->name, incarnation),
                                             .answered = own || peer->heard >= since,
                                             .heard = own || peer->known,
                                             .stays = own ? r->stays : (peer->beat.flags & BEAT_STAYS) != 0,
                                             .broken = own ? r->service_broken : (peer->beat.flags & BEAT_BROKEN) != 0,
                                             .sick = !own && (peer->beat.flags & BEAT_SICK) != 0,
                                             .primary = !own && peer->known && peer->beat.role == ROLE_PRIMARY,
                                             .epoch = position->epoch,
                                             .lsn = position->lsn};
        if (!own && !config_is_spare(r->config, peer->node))
            view->birth |= 1u << i;
    }
}

/* Whose answers are waited for: members, and at a birth all; of the last primary only what has said that it is none. */
static uint32_t worth_waiting(const struct replicator *r, const struct elect_view *view, int64_t now) {
    uint32_t bits = 0;
    for (unsigned i = 0; i < view->count; i++) {
        const struct elect_node *node = &view->nodes[i];
        bool lost = (int)i == view->last_primary && node->heard && (node->primary || now - r->peers[i].heard > r->lease);
        if (i != view->self && !lost && (view->version ? node->named : (view->birth >> i & 1)))
            bits |= 1u << i;
    }
    return bits;
}

bool candidate_reaches_start(struct replicator *r) {
    uint8_t chain[CHAIN_SIZE];
    struct position own;
    store_position(r->store, &own);
    repl_lock(r);
    struct register_value value = r->value;
    repl_unlock(r);
    if (own.lsn < value.start_lsn)
        return false;
    if (value.start_lsn == 0)
        return true;
    int rc = store_chain_at(r->store, value.start_lsn, chain);
    return rc == -ENOENT || (rc == 0 && memcmp(chain, value.start_chain, CHAIN_SIZE) == 0); /* trimmed: every node had it */
}

/* ---- Standing -------------------------------------------------------------------------------------------------------- */

/* What it says is told once. lock held */
static void tell(struct replicator *r) {
    const struct elect *elect = &r->elect;
    const char *why = elect->why_count ? elect->why[0] : "";
    bool quiet = elect->state == ELECT_FOLLOWS || elect->state == ELECT_HELD || elect->state == ELECT_SILENT;
    if (quiet || r->elect_told == elect->state)
        return;
    r->elect_told = elect->state;
    if (elect->state == ELECT_RUNS)
        log_info("this node proposes itself as primary");
    else if (why[0])
        log_warning("not primary: %s", why);
}

/* The newest value is known, and the voters let a challenger in. */
static bool ask_register(struct replicator *r) {
    struct reg *reg = r->volume->reg;
    struct register_value found;
    char holder[64] = "";
    int64_t wait = 0;
    int rc = reg->engine->read(reg, &found);
    if (rc == 0) {
        roles_adopt(r, &found);
        repl_lock(r);
        const char *primary = r->value.primary;
        bool due = elect_due(&r->elect, !primary[0] || strcmp(primary, roles_own_name(r)) == 0, clock_boot());
        repl_unlock(r);
        if (!due)
            return false; /* there is a newer one: its primary has time to begin */
        rc = found.version ? r->elects->free(reg, holder, &wait) : 0;
    }
    repl_lock(r);
    bool go_on = elect_voters(&r->elect, rc, holder, wait, clock_boot());
    tell(r);
    repl_unlock(r);
    roles_takeover_mark(r, TAKEOVER_VOTERS);
    return go_on;
}

/* True: this node is the one to propose itself, with *keep in the set beside it. */
static bool ask_nodes(struct replicator *r, uint32_t *keep) {
    struct elect_view view;
    int64_t since = clock_boot();
    repl_lock(r);
    candidate_view(r, since, &view);
    uint32_t worth = worth_waiting(r, &view, since);
    int64_t patience = elect_patience(&r->elect, &view, since);
    bool member = view.nodes[r->self].member;
    repl_unlock(r);
    bool reaches = member || candidate_reaches_start(r);
    roles_ask_locked(r, worth, patience);
    int64_t now = clock_boot();
    candidate_view(r, since, &view);
    view.fit = !store_stalled(r->store, MAX(r->lease, SICK_LEAST));
    view.reaches_start = reaches;
    view.go = r->config->after_power_cut == AFTER_POWER_CUT_GO && now - r->elect.started > r->go_after;
    bool runs = elect_judge(&r->elect, &view, now);
    *keep = elect_keeps(&view);
    tell(r);
    repl_unlock(r);
    roles_takeover_mark(r, TAKEOVER_NODES);
    return runs;
}

static void stand(struct replicator *r) {
    char why[WIRE_TEXT] = "";
    uint32_t keep;
    roles_takeover_begin(r, "elected");
    repl_lock(r);
    r->taking.phases[TAKEOVER_SILENCE] = r->taking.mark - r->elect.heard;
    repl_unlock(r);
    if (!ask_register(r) || !ask_nodes(r, &keep))
        return;
    bool birth = r->value.version == 0;
    int rc = roles_become_primary(r, &(struct beginning){.start = START_ELECTED, .keep = keep}, why, sizeof why);
    if (rc == 0) {
        if (birth)
            retire_file(r);
        return;
    }
    uint64_t random = 0;
    PROMISE(getrandom(&random, sizeof random, 0) == sizeof random);
    log_info("this node did not become primary: %s", why);
    repl_lock(r);
    elect_failed(&r->elect, random, clock_boot());
    repl_unlock(r);
}

static void consider_lost(struct replicator *r) {
    repl_lock(r);
    bool lost = r->role == ROLE_PRIMARY && !r->changing && (r->lease_lost >= r->value.epoch || !candidate_holds(r));
    repl_unlock(r);
    if (!lost)
        return;
    const char *why = store_stalled(r->store, MAX(r->lease, SICK_LEAST))
                          ? "the disk of this store does not answer, and the lease has ended"
                          : "the lease could not be renewed in time";
    roles_step_down(r, why);
    repl_lock(r);
    elect_ceased(&r->elect, why, clock_boot());
    repl_unlock(r);
}

void candidate_consider(struct replicator *r) {
    if (!r->elects)
        return;
    consider_lost(r);
    repl_lock(r);
    int64_t now = clock_boot();
    bool stands = r->role == ROLE_STANDBY && !r->changing && !r->unsure && !r->leaving && !r->value_heard && !r->switch_heard;
    bool own = !r->value.primary[0] || strcmp(r->value.primary, roles_own_name(r)) == 0;
    if (r->follow.state == FOLLOW_STREAMING && r->follow.epoch >= r->value.epoch && r->follow.heard > r->elect.heard)
        elect_heard(&r->elect, r->follow.heard);
    bool due = stands && elect_due(&r->elect, own, now);
    if (r->elect.state == ELECT_FOLLOWS)
        r->elect_told = ELECT_FOLLOWS;
    repl_unlock(r);
    if (due)
        stand(r);
}

/* ---- What the engine says, in its threads ----------------------------------------------------------------------------- */

static struct replicator *of_volume(void *context) {
    struct volume *volume = context;
    return atomic_load(&volume->replicator); /* one that has stopped stays allocated */
}

static bool fit(void *context) {
    struct replicator *r = of_volume(context);
    if (!r)
        return true;
    repl_lock(r);
    /* One that stops is none: its store may be closed by now. */
    bool sick = r->role == ROLE_PRIMARY && store_stalled(r->store, MAX(r->lease, SICK_LEAST));
    repl_unlock(r);
    return !sick;
}

static void news(void *context, const struct register_value *value) {
    struct replicator *r = of_volume(context);
    if (!r)
        return; /* it reads the register when it starts */
    repl_lock(r);
    if (register_compare(value, &r->value) > 0 &&
        (!r->value_heard || register_compare(value, &r->heard_value) > 0)) {
        r->heard_value = *value;
        r->heard_word = false;
        r->value_heard = true;
        if (r->role == ROLE_PRIMARY && value->epoch > r->value.epoch)
            acks_stop(&r->acks);
        keep_wake(r);
    }
    repl_unlock(r);
}

static void freed(void *context) {
    struct replicator *r = of_volume(context);
    if (!r)
        return;
    repl_lock(r);
    if (r->role == ROLE_STANDBY)
        elect_freed(&r->elect);
    keep_wake(r);
    repl_unlock(r);
}

static void lost(void *context, epoch_t epoch) {
    struct replicator *r = of_volume(context);
    if (!r)
        return;
    repl_lock(r);
    r->lease_lost = MAX(r->lease_lost, epoch);
    if (r->role == ROLE_PRIMARY && epoch >= r->value.epoch)
        acks_stop(&r->acks); /* at once; the rest of stepping down is the keeper's */
    keep_wake(r);
    repl_unlock(r);
}

struct register_watch replicator_watch(struct volume *volume) {
    return (struct register_watch){.context = volume, .fit = fit, .news = news, .freed = freed, .lost = lost};
}

/* ---- Status ---------------------------------------------------------------------------------------------------------- */

json_t *candidate_lease_status(struct replicator *r, const struct lease_view *lease) {
    int64_t now = clock_boot();
    json_t *voters = json_array();
    for (unsigned i = 0; i < lease->count && i < REGISTER_VOTERS_MAX; i++) {
        json_t *voter = json_pack("{s:s, s:b, s:b, s:b}", "name", lease->voters[i].name, "listed", lease->voters[i].listed,
                                  "answers", lease->voters[i].answers, "grants", lease->voters[i].grants);
        if (lease->voters[i].heard != INT64_MIN)
            json_object_set_new(voter, "last_contact_ms", json_integer((now - lease->voters[i].heard) / MS));
        if (lease->voters[i].why[0])
            json_object_set_new(voter, "why", json_string(lease->voters[i].why));
        json_array_append_new(voters, voter);
    }
    return json_pack("{s:s, s:b, s:b, s:I, s:I, s:I, s:o}", "engine", r->volume->reg->engine->name, "asked", lease->asked, "held",
                     lease->held, "left_ms", (json_int_t)(lease->left / MS), "duration_ms", (json_int_t)(r->lease / MS),
                     "needed", (json_int_t)lease->needed, "voters", voters);
}

static const char *const phase_names[] = {"silence", "voters", "nodes",  "receiver", "disk",
                                          "ballot",  "lease",  "epoch", "mount"};

json_t *candidate_takeover(const struct replicator *r) {
    const struct takeover *takeover = &r->takeover;
    char epoch[40];
    json_t *phases = json_object();
    int64_t total = 0;
    snprintf(epoch, sizeof epoch, "%" PRIu64 ".%u", EPOCH_COUNTER(takeover->epoch), EPOCH_NODE(takeover->epoch));
    for (enum takeover_phase phase = 0; phase < TAKEOVER_PHASES; phase++) {
        json_object_set_new(phases, phase_names[phase], json_integer(takeover->phases[phase] / MS));
        total += takeover->phases[phase];
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:o}", "epoch", epoch, "how", takeover->how, "time", (json_int_t)takeover->at,
                     "total_ms", (json_int_t)(total / MS), "phases", phases);
}

json_t *candidate_status(struct replicator *r, json_t *shown) {
    json_t *why = json_array();
    for (unsigned i = 0; r->role == ROLE_STANDBY && i < r->elect.why_count; i++)
        json_array_append_new(why, json_string(r->elect.why[i]));
    json_object_set_new(shown, "election", json_pack("{s:s, s:b, s:o}", "state", elect_state_name(r->elect.state), "stays", r->stays,
                                                     "why", why));
    if (r->service_broken)
        json_object_set_new(shown, "exports_failed", json_string(r->service_why));
    if (r->takeover.epoch)
        json_object_set_new(shown, "takeover", candidate_takeover(r));
    return shown;
}
