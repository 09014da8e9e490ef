/* The control socket: requests and answers, streams, damage, crowds, and its end while clients are there. */
#include "fs/control.h"
#include "fs/volume.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct volume volume;
static struct node_config self;
static struct control *control;
static char why[256];

static void echo(struct volume *given, const json_t *request, struct control_reply *reply) {
    json_t *line = json_deep_copy(request);
    json_object_set_new(line, "mine", json_boolean(given == &volume));
    json_object_set_new(line, "end", json_true());
    control_send(reply, line);
}

static void count(struct volume *given, const json_t *request, struct control_reply *reply) {
    json_int_t to = json_integer_value(json_object_get(request, "to"));
    (void)given;
    for (json_int_t i = 0; i < to && !reply->failed; i++)
        control_send(reply, json_pack("{s:I}", "number", i));
    control_error(reply, -EDOM, "no more than %d", (int)to);
}

static void follow(struct volume *given, const json_t *request, struct control_reply *reply) {
    (void)given;
    (void)request;
    control_send(reply, json_pack("{s:b}", "begun", 1));
    while (!control_gone(reply, 1000))
        ;
}

static json_t *ask(int fd, const char *raw) {
    json_t *line = NULL;
    if (raw != NULL && send(fd, raw, strlen(raw), MSG_NOSIGNAL) != (ssize_t)strlen(raw))
        bail("send failed");
    int error = control_receive(fd, &line, 10000);
    if (error)
        diag("control_receive: %s", strerror(-error));
    return error ? NULL : line;
}

static int connected(void) {
    int fd = -1;
    if (control_connect(self.store, &fd) != 0)
        bail("no connection");
    return fd;
}

static bool says(json_t *line, const char *key, const char *part) {
    const char *text = json_string_value(json_object_get(line, key));
    bool found = text != NULL && strstr(text, part) != NULL;
    if (!found)
        diag("%s", text != NULL ? text : "(nothing)");
    json_decref(line);
    return found;
}

static void requests(void) {
    int fd = connected();
    json_t *request = json_pack("{s:s, s:s}", "command", "echo", "text", "ä\n\"");
    json_t *line = NULL;

    is_int(0, control_request(fd, request), "a request");
    is_int(0, control_receive(fd, &line, 10000), "an answer");
    ok(json_is_true(json_object_get(line, "mine")), "the handler got its volume");
    is_string("ä\n\"", json_string_value(json_object_get(line, "text")), "text comes through");
    json_decref(request);
    json_decref(line);

    ok(says(ask(fd, "{\"command\":\"dance\"}\n"), "error", "does not know the command \"dance\""), "unknown command");
    ok(says(ask(fd, "nonsense\n"), "error", "one line of JSON"), "no JSON");
    ok(says(ask(fd, "[1]\n"), "error", "one line of JSON"), "no object");
    ok(says(ask(fd, "\n"), "error", "one line of JSON"), "an empty line");

    line = ask(fd, "{\"command\":\"count\",\"to\":20000}\n{\"command\":\"echo\"}\n");
    json_int_t lines = 0;
    for (; line != NULL && json_object_get(line, "end") == NULL; line = ask(fd, NULL)) {
        lines += json_integer_value(json_object_get(line, "number")) == lines;
        json_decref(line);
    }
    is_int(20000, lines, "a stream, in order");
    is_int(EDOM, json_integer_value(json_object_get(line, "errno")), "... ended by an error");
    json_decref(line);
    line = ask(fd, NULL);
    ok(json_object_get(line, "mine") != NULL, "the request behind it is answered too");
    json_decref(line);
    is_int(-ETIMEDOUT, control_receive(fd, &line, 50), "nothing more comes");
    close(fd);
}

static void damage(void) {
    static char big[80 << 10];
    int fd = connected();

    memset(big, ' ', sizeof big - 1);
    ok(says(ask(fd, big), "error", "at most"), "a request that is too long");
    close(fd);

    memset(big, '[', 60 << 10);
    big[60 << 10] = '\n';
    big[(60 << 10) + 1] = '\0';
    fd = connected();
    ok(says(ask(fd, big), "error", "one line of JSON"), "a request that is too deep");
    close(fd);
}

static void crowd(void) {
    int fds[65];
    int64_t refused = 0;

    for (unsigned i = 0; i < 65; i++) {
        fds[i] = connected();
        json_t *line = ask(fds[i], i < 64 ? "{\"command\":\"follow\"}\n" : NULL);
        refused += json_object_get(line, "error") != NULL;
        json_decref(line);
    }
    is_int(1, refused, "of 65 clients one is refused");
    for (unsigned i = 0; i < 65; i++)
        close(fds[i]);
    json_t *line = NULL;
    for (int64_t end = clock_boot() + 10000000000; clock_boot() < end && json_object_get(line, "mine") == NULL;) {
        json_decref(line);
        int fd = connected();
        line = ask(fd, "{\"command\":\"echo\"}\n");
        close(fd);
    }
    ok(json_object_get(line, "mine") != NULL, "when they have gone, others are served");
    json_decref(line);
}

int main(void) {
    struct stat status;
    char path[1100];

    plan_lazy();
    /* longer than a socket's address */
    snprintf(self.store, sizeof self.store, "%s/%0150d", test_directory(), 7);
    mkdir(self.store, 0700);
    volume.self = &self;
    control_register("echo", echo);
    control_register("count", count);
    control_register("follow", follow);

    int fd = -1;
    is_int(-ENOENT, control_connect(self.store, &fd), "no daemon");
    is_int(0, control_start(&volume, &control, why, sizeof why), "start") || (diag("%s", why), 0);
    snprintf(path, sizeof path, "%s/control", self.store);
    ok(stat(path, &status) == 0 && (status.st_mode & 07777) == 0600, "the socket is root's alone");
    requests();
    damage();
    crowd();

    fd = connected();
    json_decref(ask(fd, "{\"command\":\"follow\"}\n"));
    control_stop(control);
    json_t *line;
    is_int(-EPIPE, control_receive(fd, &line, 10000), "stopping ends the streams");
    close(fd);
    ok(stat(path, &status) != 0, "the socket is gone");
    is_int(0, control_start(&volume, &control, why, sizeof why), "it starts again");
    control_stop(control);
    return 0;
}
