/* "history" on the control socket: a past, read by a tool. The past lives as long as the connection. */
#include "fs/control.h"
#include "fs/history_request.h"
#include "fs/tree_wire.h"
#include "fs/volume.h"

#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>

#define PASTS_MAX 4    /* at a time: each has an overlay on the store's disk */
#define IDLE_MS 600000 /* of a tool that asks nothing, or does not read its answer: it is stopped, or its disk hangs   \
                        */
#define TELL_NS 200000000

static atomic_uint pasts;

struct serving {
    struct control_reply *reply;
    struct tree tree;
    int64_t told;
    uint8_t *buffer;
    struct tree_entry *entries;
};

static bool progress(void *context, uint64_t done, uint64_t of) {
    struct serving *serving = context;
    if (clock_boot() - serving->told > TELL_NS) {
        serving->told = clock_boot();
        control_send(serving->reply, json_pack("{s:I, s:I}", "done", (json_int_t)done, "of", (json_int_t)of));
    }
    return control_gone(serving->reply, 0);
}

static uint32_t pack(uint8_t *to, const struct tree_entry *entries, unsigned count) {
    uint8_t *at = to;
    for (unsigned i = 0; i < count; i++) {
        const struct tree_entry *entry = &entries[i];
        struct tree_wire_entry head = {entry->cookie, entry->ino, entry->row, entry->flags,
                                       (uint8_t)strlen(entry->name)};
        memcpy(at, &head, sizeof head);
        at += sizeof head;
        memcpy(at, entry->name, head.name_length);
        at += head.name_length;
    }
    return (uint32_t)(at - to);
}

static void answer(struct serving *serving, const struct tree_question *question, char name[BATON_NAME_MAX + 1],
                   struct tree_answer *answer) {
    const struct tree *tree = &serving->tree;
    void *context = tree->context;
    uint8_t *to = serving->buffer;
    struct tree_data data = {0};

    switch (question->kind) {
    case TREE_LOOK:
        answer->error = tree->look(context, question->ino, name, serving->entries);
        answer->count = 1;
        answer->length = answer->error ? 0 : pack(to, serving->entries, 1);
        break;
    case TREE_LIST:
        answer->error = tree->list(context, question->ino, question->at, serving->entries, &answer->count);
        answer->length = answer->error ? 0 : pack(to, serving->entries, answer->count);
        break;
    case TREE_DATA:
        answer->error = tree->data(context, question->ino, question->at, to, &data);
        answer->from = data.from;
        answer->bad = data.bad ? data.length : 0;
        answer->length = data.bad ? 0 : data.length;
        break;
    case TREE_TARGET:
        answer->error = tree->target(context, question->ino, (char *)to);
        answer->length = answer->error ? 0 : (uint32_t)strlen((char *)to);
        break;
    case TREE_XATTR:
        answer->error = tree->xattr(context, question->ino, name, to + BATON_NAME_MAX, &answer->length);
        if (answer->error == 0) {
            answer->count = (uint32_t)strlen(name);
            memmove(to + answer->count, to + BATON_NAME_MAX, answer->length);
            memcpy(to, name, answer->count);
            answer->length += answer->count;
        }
        break;
    case TREE_REMOVED:
        answer->from = question->at;
        answer->error = tree->removed(context, &answer->from, (char *)to);
        answer->length = answer->error ? 0 : (uint32_t)strlen((char *)to);
        break;
    default:
        answer->error = -ENOSYS;
    }
    if (answer->error) {
        answer->count = answer->length = answer->bad = 0;
        answer->ended = tree->ended(context, (char *)to, 512);
        answer->length = answer->ended ? (uint32_t)strlen((char *)to) : 0;
    }
}

/* Until the tool goes away, or hangs. */
static void serve(struct serving *serving) {
    struct tree_question question;
    int fd = serving->reply->fd;
    const struct timeval patience = {.tv_sec = IDLE_MS / 1000};

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    while (control_receive_bytes(fd, &question, sizeof question, IDLE_MS) == 0) {
        struct tree_answer head = {0};
        char name[BATON_NAME_MAX + 1];
        if (question.length > BATON_NAME_MAX || control_receive_bytes(fd, name, question.length, IDLE_MS) != 0)
            break;
        name[question.length] = '\0';
        answer(serving, &question, name, &head);
        if (control_send_bytes(fd, &head, sizeof head) != 0 ||
            control_send_bytes(fd, serving->buffer, head.length) != 0)
            break;
    }
    serving->reply->failed = true; /* what follows on this connection would be no line */
}

static int open_and_serve(struct volume *volume, const json_t *request, struct serving *serving, char *why,
                          size_t why_room) {
    struct store *past = NULL;
    json_t *ready = NULL;

    int error = history_request(volume->store, request, progress, serving, &past, &ready, why, why_room);
    if (error)
        return error;
    serving->tree = tree_of_store(past);
    json_object_set_new(ready, "ready", json_true());
    json_object_set_new(ready, "version", json_integer(TREE_WIRE_VERSION));
    if (control_send(serving->reply, ready) == 0)
        serve(serving);
    history_close(past);
    return 0;
}

static void handle(struct volume *volume, const json_t *request, struct control_reply *reply) {
    struct serving serving = {
        .reply = reply, .buffer = malloc(TREE_DATA_MAX), .entries = malloc(TREE_LIST_MAX * sizeof *serving.entries)};
    char why[512] = "out of memory";
    int error = -ENOMEM;

    if (atomic_fetch_add(&pasts, 1) >= PASTS_MAX) {
        error = -EBUSY;
        snprintf(why, sizeof why, "%u tools are reading the history already; wait for one to end", PASTS_MAX);
    } else if (serving.buffer && serving.entries) {
        error = open_and_serve(volume, request, &serving, why, sizeof why);
    }
    free(serving.buffer);
    free(serving.entries);
    atomic_fetch_sub(&pasts, 1); /* whoever hears of the end may begin anew at once */
    if (error)
        control_error(reply, error, "%s", why);
}

void control_history(void) {
    control_register("history", handle);
}
