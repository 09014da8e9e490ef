/* Exports that fail on this node (exporters/exports.h): the volume goes to another node, and this one lets others go first
 * from then on, until it has served as primary again without a fault, or is started anew. The keeper's.
 */
#include "exporters/exports.h"
#include "fs/events.h"
#include "replication/parts.h"

#include <stdio.h>

#define AGAIN (10000 * MS) /* between attempts to hand over */
#define PATIENCE (5000 * MS)

static void hand_over(struct replicator *r, const char *why_broken) {
    char why[WIRE_TEXT] = "";
    int node = handover_successor(r);
    if (node < 0) {
        log_warning("%s; no other node is in sync and may take over, so this one goes on", why_broken);
        return;
    }
    log_warning("%s: handing over to node %s", why_broken, r->config->nodes[node].name);
    volume_event(r->volume, "exports-failed", json_pack("{s:s, s:s}", "why", why_broken, "to", r->config->nodes[node].name), "%s: handing over to node %s",
                 why_broken, r->config->nodes[node].name);
    int rc = handover_to(r, (unsigned)node, PATIENCE, why, sizeof why);
    if (rc)
        log_warning("it was not handed over: %s", why);
}

void service_consider(struct replicator *r) {
    char why[EXPORT_TEXT];
    int64_t now = clock_boot();
    bool broken = exports_broken(r->volume, why);
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY && !r->changing;
    bool news = primary && broken != r->service_broken;
    if (news) { /* what is known of exports comes from a time as primary */
        r->service_broken = broken;
        r->beat_now = true;
    }
    if (primary)
        snprintf(r->service_why, sizeof r->service_why, "%s", why);
    bool due = primary && broken && !r->leaving && now >= r->service_again;
    if (due)
        r->service_again = now + AGAIN;
    repl_unlock(r);
    if (news)
        talk_wake(r);
    if (due)
        hand_over(r, why);
}
