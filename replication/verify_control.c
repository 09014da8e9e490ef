/* "verify" on the control socket. */
#include "fs/control.h"
#include "replication/parts.h"
#include "replication/verify.h"

#include <stdio.h>

#define LINE_EVERY_MS 500

/* -ENOENT: there is no such node, or it has to be named. */
static int peer_of(const struct volume *volume, const json_t *request, unsigned *node) {
    const char *name = json_string_value(json_object_get(request, "peer"));
    const struct config *config = &volume->config;
    const struct node_config *found = name ? config_node(config, name) : NULL;
    if (!name && config->node_count == 2)
        found = &config->nodes[volume->self == &config->nodes[0]];
    if (!found)
        return -ENOENT;
    *node = (unsigned)(found - config->nodes);
    return 0;
}

static int take_paths(const json_t *list, struct verify_request *request) {
    size_t count = json_array_size(list);
    if (count > VERIFY_PATHS_MAX)
        return -E2BIG;
    for (size_t i = 0; i < count; i++) {
        const char *path = json_string_value(json_array_get(list, i));
        if (path && (request->paths[i] = strdup(path)))
            request->path_count++;
        else
            break;
    }
    return request->path_count == count ? 0 : -EINVAL;
}

/* A line now and then until it has ended. Who asked goes: it ends, too. */
static void follow(struct replicator *r, uint64_t ticket, struct control_reply *reply) {
    bool running = true;
    for (;;) {
        json_t *line = verify_look(r, ticket, &running);
        if (!line) {
            control_error(reply, -ENOENT, "another comparison has been begun meanwhile");
            return;
        }
        if (!running)
            json_object_set_new(line, "end", json_true());
        int rc = control_send(reply, line);
        if (!running)
            return;
        if (rc || control_gone(reply, LINE_EVERY_MS)) {
            verify_stop(r, ticket);
            return;
        }
    }
}

static void start(struct volume *volume, const json_t *request, struct control_reply *reply) {
    struct verify_request wanted = {.rate = (uint64_t)json_integer_value(json_object_get(request, "rate"))};
    char why[WIRE_TEXT] = "";
    uint64_t ticket = 0;
    int rc = peer_of(volume, request, &wanted.node);
    if (rc) {
        control_error(reply, rc, "say with which other node of the volume to compare");
        return;
    }
    rc = take_paths(json_object_get(request, "paths"), &wanted);
    if (rc) {
        for (unsigned i = 0; i < wanted.path_count; i++)
            free(wanted.paths[i]);
        control_error(reply, rc, "name at most %u paths at a time", VERIFY_PATHS_MAX);
        return;
    }
    struct replicator *r = volume->replicator;
    rc = verify_start(r, &wanted, &ticket, why, sizeof why);
    if (rc)
        control_error(reply, rc, "%s", why);
    else
        follow(r, ticket, reply);
}

static void handle(struct volume *volume, const json_t *request, struct control_reply *reply) {
    const char *action = json_string_value(json_object_get(request, "action"));
    if (!volume->replicator) {
        control_error(reply, -ENOTSUP, "the volume has one node: there is no other copy");
    } else if (action && strcmp(action, "start") == 0 && json_integer_value(json_object_get(request, "rate")) >= 0) {
        start(volume, request, reply);
    } else if (action && (strcmp(action, "stop") == 0 || strcmp(action, "status") == 0)) {
        if (strcmp(action, "stop") == 0 && verify_stop(volume->replicator, 0) != 0) {
            control_error(reply, -ENOENT, "no comparison is running");
            return;
        }
        json_t *line = verify_show(volume->replicator);
        json_object_set_new(line, "end", json_true());
        control_send(reply, line);
    } else {
        control_error(reply, -EINVAL, "say what to do: start, stop or status; the rate is a number of bytes a second");
    }
}

void verify_control(void) {
    control_register("verify", handle);
}
