#include "membership/voter_host.h"

#include "membership/voter_door.h"
#include "membership/voter_saver.h"

#include <stdio.h>
#include <sys/eventfd.h>

struct voter_host {
    struct desk *desk;
    struct saver *saver;
    struct door *door;
    int wake;
};

int voter_address(const struct config *config, const char *voter, char address[VOTER_ADDRESS]) {
    char host[64];
    uint16_t port;
    bool witness = config->has_witness && strcmp(voter, config->witness.name) == 0;
    const struct node_config *node = witness ? &config->witness : config_node(config, voter);
    if (!node || config_address(node->address, host, &port) != 0)
        return -EINVAL;
    snprintf(address, VOTER_ADDRESS, strchr(host, ':') ? "tcp://[%s]:%u" : "tcp://%s:%u", host,
             (unsigned)port + (witness ? 0 : VOTER_PORT));
    return 0;
}

void voter_directory(const char *store_path, char *path, size_t room) {
    snprintf(path, room, "%s.voter", store_path);
}

static void deliver(void *context, struct desk_waiting *waiting) {
    struct voter_host *host = context;
    for (struct desk_waiting *next; waiting; waiting = next) {
        next = waiting->next;
        if (waiting->reply.answered)
            waiting->reply.answered(waiting->reply.context, &waiting->answer);
        else if (host->door)
            door_send(host->door, &waiting->reply, &waiting->answer);
        free(waiting);
    }
}

int voter_host_open(const struct voter_host_options *options, struct voter_host **out, char *why, size_t why_room) {
    struct voter_host *host = calloc(1, sizeof *host);
    snprintf(why, why_room, "no memory for a voter");
    if (!host)
        return -ENOMEM;
    host->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = host->wake < 0 ? -errno : 0;
    if (rc == 0 && !(host->desk = desk_open(options->transport, host->wake)))
        rc = -ENOMEM;
    if (rc == 0)
        rc = saver_open(options->directory, host->desk, deliver, host, &host->saver, why, why_room);
    if (rc == 0)
        rc = door_open(options, host->desk, host->wake, &host->door, why, why_room);
    if (rc) {
        voter_host_close(host);
        return rc;
    }
    *out = host;
    return 0;
}

int voter_host_serve(struct voter_host *host, const struct config *config, const char *voter,
                     const struct register_watch *watch, char *why, size_t why_room) {
    return saver_serve(host->saver, config, voter, watch, why, why_room);
}

int voter_host_drop(struct voter_host *host, const uint8_t volume[16]) {
    struct desk_waiting *waiting;
    int rc = desk_drop(host->desk, volume, &waiting);
    deliver(host, waiting);
    return rc;
}

int voter_host_ask(struct voter_host *host, const struct ask_question *question, voter_host_answered *answered, void *context) {
    struct desk_reply reply = {.answered = answered, .context = context};
    struct ask_answer answer;
    enum desk_fate fate = desk_ask(host->desk, question, NULL, &reply, &answer);
    if (fate == DESK_ANSWERED)
        answered(context, &answer);
    return fate == DESK_DROPPED ? -EBUSY : 0;
}

unsigned voter_host_view(struct voter_host *host, struct voter_host_view *views, unsigned room) {
    return desk_view(host->desk, views, room);
}

void voter_host_counts(struct voter_host *host, struct voter_host_counts *counts) {
    desk_counts(host->desk, counts);
    door_counts(host->door, counts);
}

void voter_host_close(struct voter_host *host) {
    /* The saver first: what it has made durable still goes. */
    if (host->saver)
        saver_close(host->saver);
    if (host->door)
        door_close(host->door);
    host->door = NULL;
    if (host->desk)
        deliver(host, desk_close(host->desk));
    if (host->wake >= 0)
        close(host->wake);
    free(host);
}
