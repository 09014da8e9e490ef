/* The spare: a node that is not fed, and has no part in set and votes, while all others are in sync. When one of those has been
 * away for the time that the config names, the primary feeds the spare, which comes into the set as any node does, and takes the
 * missing one's vote. When that one is back in sync, the spare goes out of both again. What it holds by then stays there, and
 * is brought up to date the next time.
 */
#include "replication/parts.h"

#include <stdio.h>

/* -1: there is none, or it is this node. */
static int spare_of(const struct replicator *r) {
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && config_is_spare(r->config, &r->config->nodes[i]))
            return (int)i;
    return -1;
}

static bool listed(const struct register_value *value, const char *name) {
    for (unsigned i = 0; i < value->voter_count; i++)
        if (strcmp(value->voters[i].name, name) == 0)
            return true;
    return false;
}

bool spare_refused(const struct replicator *r, unsigned node) {
    return r->elects && (int)node == spare_of(r) && !r->spare_wanted;
}

/* Another node has been away for long enough; or the spare has been taken in before, and one is away still. */
void spare_consider(struct replicator *r, int64_t now) {
    int spare = spare_of(r);
    if (!r->elects || spare < 0 || r->role != ROLE_PRIMARY)
        return;
    bool in_set = false, long_away = false, away = false;
    for (unsigned i = 0; i < r->value.member_count; i++)
        in_set = in_set || strcmp(r->value.members[i].node, r->config->nodes[spare].name) == 0;
    for (unsigned i = 0; i < r->count; i++) {
        struct peer *peer = &r->peers[i];
        if (i == r->self || (int)i == spare)
            continue;
        if (duty_in_sync(r, i)) {
            peer->away_since = 0;
            continue;
        }
        if (!peer->away_since)
            peer->away_since = now;
        away = true;
        long_away = long_away || now - peer->away_since >= (int64_t)r->config->spare_ms * MS;
    }
    bool wanted = away && (long_away || in_set || r->spare_wanted);
    if (wanted == r->spare_wanted)
        return;
    r->spare_wanted = wanted;
    log_info(wanted ? "node %s, the spare, is taken in: another node has been away for long"
                    : "node %s, the spare, is not needed any more", r->config->nodes[spare].name);
    if (!wanted)
        primary_end_session(r, (unsigned)spare, "it is the spare, and all others are in sync");
}

const char *spare_why_out(const struct replicator *r, unsigned node) {
    return spare_refused(r, node) ? "it is the spare, and all others are in sync" : NULL;
}

/* One step: the vote of a node that is away goes to the spare, or back. Back: first the node votes again, then the spare goes, so
 * that in between the loss of any one voter is borne. */
void spare_voters(struct replicator *r, const struct lease_view *view) {
    char why[WIRE_TEXT] = "", name[64] = "";
    int64_t now = clock_boot();
    enum voters_edit edit = VOTERS_ADD;
    repl_lock(r);
    int spare = spare_of(r);
    bool due = spare >= 0 && r->role == ROLE_PRIMARY && r->value.voter_count && now >= r->voters_again && !r->acks.pending;
    const char *other = due ? r->config->nodes[spare].name : "";
    bool votes = listed(&r->value, other), takes_part = due && r->spare_wanted && duty_in_sync(r, (unsigned)spare);
    bool odd = r->value.voter_count % 2, even = false;
    for (unsigned i = 0; due && i < r->count && !name[0]; i++) {
        const struct node_config *node = &r->config->nodes[i];
        bool away = i != r->self && !duty_in_sync(r, i);
        if ((int)i == spare)
            continue;
        if (takes_part && votes != odd && away && listed(&r->value, node->name)) {
            edit = VOTERS_REMOVE; /* its vote is free for the spare, which comes with the next step, or votes already */
            even = odd;
            snprintf(name, sizeof name, "%s", node->name);
        } else if (!r->spare_wanted && votes == odd && !away && !listed(&r->value, node->name)) {
            even = odd; /* the spare goes with the next step, or has gone */
            snprintf(name, sizeof name, "%s", node->name);
        }
    }
    if (due && !name[0] && takes_part && !votes && !odd) {
        snprintf(name, sizeof name, "%s", other);
    } else if (due && !name[0] && !r->spare_wanted && votes && !odd) {
        edit = VOTERS_REMOVE;
        snprintf(name, sizeof name, "%s", other);
    }
    for (unsigned i = 0; i < view->count && name[0] && edit == VOTERS_REMOVE; i++)
        if (takes_part && strcmp(view->voters[i].name, name) == 0 && view->voters[i].answers)
            name[0] = 0; /* only its copy is away: it votes on */
    if (name[0])
        r->voters_again = now + 2 * r->lease;
    repl_unlock(r);
    if (name[0] && duty_edit_voters(r, edit, name, even, why, sizeof why))
        log_warning("the vote of a node that is away could not be given on: %s", why);
}
