/* The control commands "promote" and "switchover". */
#include "fs/control.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

static void answer_role(struct replicator *r, struct control_reply *reply) {
    char epoch[40];
    repl_lock(r);
    snprintf(epoch, sizeof epoch, "%" PRIu64 ".%u", EPOCH_COUNTER(r->value.epoch), EPOCH_NODE(r->value.epoch));
    json_t *line = json_pack("{s:s, s:s, s:s, s:b}", "role", r->role == ROLE_PRIMARY ? "primary" : "standby", "primary",
                             r->value.primary, "epoch", epoch, "end", true);
    repl_unlock(r);
    control_send(reply, line);
}

static void promote(struct volume *volume, const json_t *request, struct control_reply *reply) {
    char why[WIRE_TEXT] = "";
    if (!volume->replicator) {
        control_error(reply, -EALREADY, "the volume has one node: it is primary");
        return;
    }
    int rc = replicator_promote(volume->replicator, json_is_true(json_object_get(request, "force")), why, sizeof why);
    if (rc)
        control_error(reply, rc, "%s", why);
    else
        answer_role(volume->replicator, reply);
}

/* Without a node: to the only other one. */
static const char *wanted_node(const struct volume *volume, const json_t *request) {
    const char *node = json_string_value(json_object_get(request, "node"));
    const struct config *config = &volume->config;
    if (node || config->node_count != 2)
        return node;
    return config->nodes[volume->self == &config->nodes[0]].name;
}

static void switchover(struct volume *volume, const json_t *request, struct control_reply *reply) {
    char why[WIRE_TEXT] = "";
    const char *node = wanted_node(volume, request);
    if (!volume->replicator || !node) {
        control_error(reply, -EINVAL, volume->replicator ? "say to which node" : "the volume has no other node");
        return;
    }
    int rc = replicator_switchover(volume->replicator, node, why, sizeof why);
    if (rc)
        control_error(reply, rc, "%s", why);
    else
        answer_role(volume->replicator, reply);
}

void replicator_control(void) {
    control_register("promote", promote);
    control_register("switchover", switchover);
}
