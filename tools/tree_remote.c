#include "tools/tree_remote.h"

#include "fs/control.h"
#include "fs/tree_wire.h"

#include <stdio.h>

static int broken(struct tree_remote *remote, int error) {
    remote->ended = true;
    snprintf(remote->why, sizeof remote->why, "batond ended the connection (%s); see its log and: baton status",
             error == -EBADMSG ? "its answer makes no sense" : strerror(-error));
    return error;
}

/* The answer's bytes are in the buffer then. */
static int ask(struct tree_remote *remote, enum tree_question_kind kind, uint64_t ino, uint64_t at, const char *name,
               struct tree_answer *answer) {
    struct {
        struct tree_question head;
        char name[BATON_NAME_MAX];
    } question = {{.ino = ino, .at = at, .kind = kind, .length = (uint32_t)strlen(name)}, ""};

    if (remote->ended)
        return -EPIPE;
    if (question.head.length > BATON_NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(question.name, name, question.head.length);
    int error = control_send_bytes(remote->fd, &question, sizeof question.head + question.head.length);
    if (error == 0)
        error = control_receive_bytes(remote->fd, answer, sizeof *answer, -1);
    if (error == 0 && (answer->length > TREE_DATA_MAX || answer->error > 0))
        error = -EBADMSG;
    if (error == 0)
        error = control_receive_bytes(remote->fd, remote->buffer, answer->length, -1);
    if (error)
        return broken(remote, error);
    if (answer->error && answer->ended) {
        remote->ended = true;
        snprintf(remote->why, sizeof remote->why, "%.*s", (int)MIN(answer->length, 512u), (const char *)remote->buffer);
    }
    return answer->error;
}

/* `count` entries fill the answer. */
static int unpack(struct tree_remote *remote, const struct tree_answer *answer, struct tree_entry *entries,
                  unsigned room) {
    const uint8_t *at = remote->buffer, *end = at + answer->length;
    struct tree_wire_entry head;

    if (answer->count > room)
        return broken(remote, -EBADMSG);
    for (uint32_t i = 0; i < answer->count; i++) {
        if ((size_t)(end - at) < sizeof head)
            return broken(remote, -EBADMSG);
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        if ((size_t)(end - at) < head.name_length)
            return broken(remote, -EBADMSG);
        entries[i].cookie = head.cookie;
        entries[i].ino = head.ino;
        entries[i].row = head.row;
        entries[i].flags = head.flags;
        memcpy(entries[i].name, at, head.name_length);
        entries[i].name[head.name_length] = '\0';
        at += head.name_length;
    }
    return at == end ? 0 : broken(remote, -EBADMSG);
}

static int look(void *context, uint64_t directory, const char *name, struct tree_entry *entry) {
    struct tree_answer answer;
    int error = ask(context, TREE_LOOK, directory, 0, name, &answer);
    if (error == 0 && answer.count != 1)
        error = broken(context, -EBADMSG);
    return error ? error : unpack(context, &answer, entry, 1);
}

static int list(void *context, uint64_t directory, uint64_t cookie, struct tree_entry entries[TREE_LIST_MAX],
                unsigned *count) {
    struct tree_answer answer;
    int error = ask(context, TREE_LIST, directory, cookie, "", &answer);
    *count = answer.count;
    return error ? error : unpack(context, &answer, entries, TREE_LIST_MAX);
}

static int data(void *context, uint64_t ino, uint64_t offset, uint8_t buffer[TREE_DATA_MAX], struct tree_data *data) {
    struct tree_remote *remote = context;
    struct tree_answer answer;
    int error = ask(remote, TREE_DATA, ino, offset, "", &answer);
    if (error)
        return error;
    if (answer.bad > TREE_DATA_MAX || (answer.bad && answer.length) || answer.from < offset)
        return broken(remote, -EBADMSG);
    *data = (struct tree_data){answer.from, answer.bad ? answer.bad : answer.length, answer.bad != 0};
    memcpy(buffer, remote->buffer, answer.length);
    return 0;
}

static int target(void *context, uint64_t ino, char target[BATON_SYMLINK_MAX + 1]) {
    struct tree_remote *remote = context;
    struct tree_answer answer;
    int error = ask(remote, TREE_TARGET, ino, 0, "", &answer);
    if (error)
        return error;
    if (answer.length > BATON_SYMLINK_MAX)
        return broken(remote, -EBADMSG);
    memcpy(target, remote->buffer, answer.length);
    target[answer.length] = '\0';
    return 0;
}

static int xattr(void *context, uint64_t ino, char name[BATON_NAME_MAX + 1], uint8_t value[BATON_XATTR_VALUE_MAX],
                 uint32_t *length) {
    struct tree_remote *remote = context;
    struct tree_answer answer;
    int error = ask(remote, TREE_XATTR, ino, 0, name, &answer);
    if (error)
        return error;
    if (answer.count > BATON_NAME_MAX || answer.count > answer.length ||
        answer.length - answer.count > BATON_XATTR_VALUE_MAX)
        return broken(remote, -EBADMSG);
    *length = answer.length - answer.count;
    memcpy(name, remote->buffer, answer.count);
    name[answer.count] = '\0';
    memcpy(value, remote->buffer + answer.count, *length);
    return 0;
}

static int removed(void *context, uint64_t *at, char line[TREE_LINE_MAX]) {
    struct tree_remote *remote = context;
    struct tree_answer answer;
    int error = ask(remote, TREE_REMOVED, 0, *at, "", &answer);
    if (error)
        return error;
    if (answer.length >= TREE_LINE_MAX || answer.from <= *at)
        return broken(remote, -EBADMSG);
    *at = answer.from;
    memcpy(line, remote->buffer, answer.length);
    line[answer.length] = '\0';
    return 0;
}

static bool ended(void *context, char *why, size_t why_room) {
    struct tree_remote *remote = context;
    if (remote->ended)
        snprintf(why, why_room, "%s", remote->why);
    return remote->ended;
}

int tree_remote_begin(struct tree_remote *remote, int fd, struct tree *tree) {
    *remote = (struct tree_remote){.fd = fd, .buffer = malloc(TREE_DATA_MAX)};
    *tree = (struct tree){remote, look, list, data, target, xattr, removed, ended};
    return remote->buffer ? 0 : -ENOMEM;
}

void tree_remote_end(struct tree_remote *remote) {
    free(remote->buffer);
    remote->buffer = NULL;
}
