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

/* NULL: answered already. */
static struct replicator *asked(struct volume *volume, struct control_reply *reply) {
    struct replicator *r = atomic_load(&volume->replicator);
    if (!r)
        control_error(reply, -EINVAL, "the volume has one node: it is primary, and nobody can take its place");
    return r;
}

static void standby(struct volume *volume, const json_t *request, struct control_reply *reply) {
    char why[WIRE_TEXT] = "";
    bool handed_over;
    struct replicator *r = asked(volume, reply);
    if (!r)
        return;
    int rc = replicator_standby(r, json_is_true(json_object_get(request, "end")), &handed_over, why, sizeof why);
    if (rc)
        control_error(reply, rc, "%s", why);
    else
        control_send(reply, json_pack("{s:b, s:b}", "handed_over", handed_over, "end", true));
}

static void ready_to_stop(struct volume *volume, const json_t *request, struct control_reply *reply) {
    (void)request;
    struct replicator *r = asked(volume, reply);
    if (r)
        control_send(reply, replicator_ready_to_stop(r));
}

static void voters(struct volume *volume, const json_t *request, struct control_reply *reply) {
    static const struct {
        const char *word;
        enum voters_edit edit;
    } edits[] = {{"add", VOTERS_ADD}, {"remove", VOTERS_REMOVE}, {"replace", VOTERS_REPLACE}};
    char why[WIRE_TEXT] = "";
    const char *word = json_string_value(json_object_get(request, "edit")), *name = json_string_value(json_object_get(request, "name"));
    enum voters_edit edit = 0;
    for (unsigned i = 0; word && i < sizeof edits / sizeof *edits; i++)
        if (strcmp(edits[i].word, word) == 0)
            edit = edits[i].edit;
    if (!edit || !name || !config_name_valid(name)) {
        control_error(reply, -EINVAL, "say add, remove or replace, and which voter: a node, or witness");
        return;
    }
    struct replicator *r = asked(volume, reply);
    if (!r)
        return;
    int rc = replicator_voters(r, edit, name, json_is_true(json_object_get(request, "even")), why, sizeof why);
    if (rc)
        control_error(reply, rc, "%s", why);
    else
        control_send(reply, json_pack("{s:b}", "end", true));
}

void replicator_control(void) {
    control_register("standby", standby);
    control_register("ready-to-stop", ready_to_stop);
    control_register("voters", voters);
    control_register("promote", promote);
    control_register("switchover", switchover);
}
