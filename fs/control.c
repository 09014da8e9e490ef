#include "fs/control.h"
#include "fs/volume.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define COMMANDS_MAX 16
#define CONNECTIONS_MAX 64
#define REQUEST_MAX (64u << 10)
#define LINE_MAX_BYTES (16u << 20)
#define IDLE_MS 60000
#define CONNECT_MS 500

static struct {
    const char *name;
    control_handler *handler;
} commands[COMMANDS_MAX];
static unsigned command_count;

struct connection {
    struct control *control;
    struct connection *next;
    int fd;
};

struct control {
    struct volume *volume;
    char socket_path[1100];
    int listener;
    int wake; /* eventfd: stop */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t empty;
    struct connection *connections; /* each has a thread */
    unsigned connection_count;
};

/* ---- lines ----------------------------------------------------------------------------------------------------------- */

static int send_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -EPIPE;
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

static int send_json(int fd, const json_t *line) {
    AUTO_FREE char *text = json_dumps(line, JSON_COMPACT);
    char *with_end;

    if (text == NULL)
        return -ENOMEM;
    size_t length = strlen(text);
    with_end = realloc(text, length + 1);
    if (with_end == NULL)
        return -ENOMEM;
    text = with_end;
    text[length] = '\n';
    return send_all(fd, text, length + 1);
}

int control_send(struct control_reply *reply, json_t *line) {
    int error = line == NULL ? -ENOMEM : send_json(reply->fd, line);
    json_decref(line);
    if (error == -ENOMEM)
        log_warning("an answer to a tool did not fit into memory");
    if (error)
        reply->failed = true;
    return error ? -EPIPE : 0;
}

int control_error(struct control_reply *reply, int error, const char *format, ...) {
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_t *sentence = json_string(text);
    if (sentence == NULL) /* not UTF-8: a path, say */
        sentence = json_string("the request failed; the reason cannot be shown as text");
    return control_send(reply, json_pack("{s:o, s:i, s:b}", "error", sentence, "errno", error < 0 ? -error : error,
                                         "end", 1));
}

bool control_gone(struct control_reply *reply, int timeout_ms) {
    struct pollfd poller = {.fd = reply->fd, .events = POLLRDHUP};

    if (reply->failed)
        return true;
    int count = poll(&poller, 1, timeout_ms);
    if (count > 0 && (poller.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
        reply->failed = true;
    return reply->failed;
}

/* Takes one line off the socket, and nothing behind it, so that no buffer needs to outlive the call. */
static int receive_line(int fd, size_t limit, int timeout_ms, char **line, size_t *length) {
    int64_t deadline = clock_boot() + (int64_t)timeout_ms * 1000000;
    char *text = NULL;
    size_t used = 0;
    int error = 0;

    for (;;) {
        char chunk[8192];
        int64_t left = (deadline - clock_boot() + 999999) / 1000000;
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        int count = poll(&poller, 1, timeout_ms < 0 ? -1 : (int)MAX(left, (int64_t)0));
        if (count < 0 && errno == EINTR)
            continue;
        error = count == 0 ? -ETIMEDOUT : -EPIPE;
        if (count <= 0)
            break;
        ssize_t seen = recv(fd, chunk, sizeof chunk, MSG_PEEK);
        if (seen < 0 && errno == EINTR)
            continue;
        if (seen <= 0)
            break;
        const char *end = memchr(chunk, '\n', (size_t)seen);
        size_t take = end != NULL ? (size_t)(end - chunk) + 1 : (size_t)seen;
        error = -EMSGSIZE;
        if (used + take > limit)
            break;
        char *more = realloc(text, used + take);
        error = -ENOMEM;
        if (more == NULL)
            break;
        text = more;
        ssize_t taken = recv(fd, text + used, take, 0);
        error = -EPIPE;
        if (taken != (ssize_t)take)
            break;
        used += take;
        if (end != NULL) {
            *line = text;
            *length = used - 1;
            return 0;
        }
    }
    free(text);
    return error;
}

int control_send_bytes(int fd, const void *bytes, size_t length) {
    return send_all(fd, bytes, length);
}

int control_receive_bytes(int fd, void *bytes, size_t length, int timeout_ms) {
    uint8_t *at = bytes;
    while (length > 0) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        int count = poll(&poller, 1, timeout_ms);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count == 0 ? -ETIMEDOUT : -EPIPE;
        ssize_t n = recv(fd, at, length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -EPIPE;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

/* ---- the daemon's side ------------------------------------------------------------------------------------------------- */

void control_register(const char *command, control_handler *handler) {
    PROMISE(command_count < COMMANDS_MAX);
    commands[command_count].name = command;
    commands[command_count++].handler = handler;
}

static void answer(struct control *control, struct control_reply *reply, const char *line, size_t length) {
    json_error_t where;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &where);
    const char *command = json_string_value(json_object_get(request, "command"));

    if (command == NULL) {
        control_error(reply, EBADMSG, "a request must be one line of JSON with a \"command\"");
        json_decref(request);
        return;
    }
    for (unsigned i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, command) == 0) {
            commands[i].handler(control->volume, request, reply);
            json_decref(request);
            return;
        }
    }
    control_error(reply, ENOSYS, "batond does not know the command \"%.40s\"; are baton and batond of one version?",
                  command);
    json_decref(request);
}

static void *serve(void *argument) {
    struct connection *connection = argument;
    struct control *control = connection->control;
    struct control_reply reply = {.fd = connection->fd};

    while (!reply.failed) {
        char *line;
        size_t length;
        int error = receive_line(connection->fd, REQUEST_MAX, IDLE_MS, &line, &length);
        if (error == -EMSGSIZE)
            control_error(&reply, EMSGSIZE, "a request may have at most %u bytes", REQUEST_MAX);
        if (error)
            break;
        answer(control, &reply, line, length);
        free(line);
    }
    pthread_mutex_lock(&control->mutex);
    struct connection **at = &control->connections;
    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
    control->connection_count--;
    close(connection->fd); /* under the mutex: control_stop() shuts down descriptors of the list */
    pthread_cond_signal(&control->empty);
    pthread_mutex_unlock(&control->mutex);
    free(connection);
    return NULL;
}

/* Root and the daemon's own user; the mode of the socket says the same, but a mode is easily changed. */
static bool permitted(int fd) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static void welcome(struct control *control, int fd) {
    struct control_reply reply = {.fd = fd};
    struct connection *connection = NULL;
    pthread_attr_t attributes;
    pthread_t thread;

    if (!permitted(fd)) {
        control_error(&reply, EPERM, "only root may ask batond; run baton with sudo");
        close(fd);
        return;
    }
    pthread_mutex_lock(&control->mutex);
    if (control->connection_count < CONNECTIONS_MAX)
        connection = malloc(sizeof *connection);
    if (connection != NULL) {
        *connection = (struct connection){.control = control, .next = control->connections, .fd = fd};
        control->connections = connection;
        control->connection_count++;
        PROMISE(pthread_attr_init(&attributes) == 0);
        PROMISE(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
        if (pthread_create(&thread, &attributes, serve, connection) != 0) {
            control->connections = connection->next;
            control->connection_count--;
            free(connection);
            connection = NULL;
        }
        pthread_attr_destroy(&attributes);
    }
    pthread_mutex_unlock(&control->mutex);
    if (connection == NULL) {
        control_error(&reply, EBUSY, "batond has too many connections of tools (%u); end some", CONNECTIONS_MAX);
        close(fd);
    }
}

static void *accept_loop(void *argument) {
    struct control *control = argument;

    for (;;) {
        struct pollfd pollers[2] = {{.fd = control->listener, .events = POLLIN}, {.fd = control->wake, .events = POLLIN}};
        if (poll(pollers, 2, -1) < 0)
            continue;
        if (pollers[1].revents != 0)
            return NULL;
        int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            welcome(control, fd);
        else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            poll(&pollers[1], 1, 100); /* no descriptors just now; the client waits in the queue */
    }
}

/* A socket's address has room for 107 bytes; a store's path may be longer. So the directory is opened and the socket
 * named through /proc. */
static int socket_address(const char *store_path, struct sockaddr_un *address, int *directory) {
    *directory = open(store_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*directory < 0)
        return -errno;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/control", *directory);
    return 0;
}

static int listen_at(const char *store_path) {
    struct sockaddr_un address;
    AUTO_CLOSE int directory = -1;
    int error = socket_address(store_path, &address, &directory);

    if (error)
        return error;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* The store's lock is ours, so a socket that lies there is a dead daemon's. */
    unlinkat(directory, "control", 0);
    if (fchmod(fd, 0600) != 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, CONNECTIONS_MAX) != 0) {
        error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

int control_start(struct volume *volume, struct control **out, char *why, size_t why_room) {
    return control_start_in(volume->self->store, volume, out, why, why_room);
}

int control_start_in(const char *directory, struct volume *volume, struct control **out, char *why, size_t why_room) {
    struct control *control = calloc(1, sizeof *control);
    int error = -ENOMEM;

    *out = NULL;
    if (control == NULL)
        goto out;
    control->volume = volume;
    snprintf(control->socket_path, sizeof control->socket_path, "%s/control", directory);
    pthread_mutex_init(&control->mutex, NULL);
    pthread_cond_init(&control->empty, NULL);
    control->wake = eventfd(0, EFD_CLOEXEC);
    control->listener = control->wake < 0 ? -errno : listen_at(directory);
    error = control->listener < 0 ? control->listener : -pthread_create(&control->thread, NULL, accept_loop, control);
    if (error == 0) {
        *out = control;
        return 0;
    }
    if (control->listener >= 0)
        close(control->listener);
    if (control->wake >= 0)
        close(control->wake);
out:
    snprintf(why, why_room, "the control socket %s/control cannot be made: %s", directory, strerror(-error));
    free(control);
    return error;
}

void control_stop(struct control *control) {
    uint64_t one = 1;

    if (control == NULL)
        return;
    PROMISE(write(control->wake, &one, sizeof one) == (ssize_t)sizeof one);
    pthread_join(control->thread, NULL);
    unlink(control->socket_path);
    close(control->listener);
    pthread_mutex_lock(&control->mutex);
    for (struct connection *each = control->connections; each != NULL; each = each->next)
        shutdown(each->fd, SHUT_RDWR); /* their handlers see the client gone */
    while (control->connections != NULL)
        pthread_cond_wait(&control->empty, &control->mutex);
    pthread_mutex_unlock(&control->mutex);
    pthread_cond_destroy(&control->empty);
    pthread_mutex_destroy(&control->mutex);
    close(control->wake);
    free(control);
}

/* ---- the tools' side --------------------------------------------------------------------------------------------------- */

int control_connect(const char *store_path, int *out) {
    const struct timeval patience = {.tv_usec = CONNECT_MS * 1000};
    struct sockaddr_un address;
    AUTO_CLOSE int directory = -1;
    int error = socket_address(store_path, &address, &directory);

    if (error)
        return error;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        error = errno == EAGAIN ? -ETIMEDOUT : -errno;
        close(fd);
        return error;
    }
    *out = fd;
    return 0;
}

int control_request(int fd, const json_t *request) {
    return send_json(fd, request);
}

int control_receive(int fd, json_t **line, int timeout_ms) {
    json_error_t where;
    char *text;
    size_t length;
    int error = receive_line(fd, LINE_MAX_BYTES, timeout_ms, &text, &length);

    if (error)
        return error;
    *line = json_loadb(text, length, 0, &where);
    free(text);
    return json_is_object(*line) ? 0 : (json_decref(*line), -EBADMSG);
}
