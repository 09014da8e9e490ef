#include "tests/etcd_proxy.h"
#include "fs/base.h"
#include "tests/etcd_cluster.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#define REQUEST_MAX 65536u

struct connection {
    struct etcd_proxy *proxy;
    int fd;
};

static bool send_all(int fd, const char *text, size_t length) {
    while (length > 0) {
        ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        text += n;
        length -= (size_t)n;
    }
    return true;
}

static bool say(int fd, const char *text) {
    return send_all(fd, text, strlen(text));
}

/* One request, whole. Its length; 0: none comes any more. */
static size_t take_request(struct connection *connection, char *text, size_t *body) {
    size_t length = 0, whole = SIZE_MAX;
    while (length < whole && length < REQUEST_MAX - 1 && !atomic_load(&connection->proxy->ended)) {
        struct pollfd poll_for = {.fd = connection->fd, .events = POLLIN};
        if (poll(&poll_for, 1, 50) <= 0)
            continue;
        ssize_t n = recv(connection->fd, text + length, REQUEST_MAX - 1 - length, 0);
        if (n <= 0)
            return 0;
        length += (size_t)n;
        text[length] = 0;
        const char *end = strstr(text, "\r\n\r\n"), *size = strcasestr(text, "\r\nContent-Length: ");
        if (end) {
            *body = (size_t)(end - text) + 4;
            whole = *body + (size && size < end ? strtoul(size + 18, NULL, 10) : 0);
        }
    }
    return length >= whole ? length : 0;
}

/* To the etcd behind, and what it answers; the watch is not for this. */
static void forward(struct connection *connection, char *request, size_t body, bool answered, bool other) {
    char path[128] = "", header[160], *answer = malloc(REQUEST_MAX);
    PROMISE(answer != NULL);
    sscanf(request, "POST %127s", path);
    long status = etcd_post(connection->proxy->target, path, request + body, NULL, answer, REQUEST_MAX);
    char *cluster = other ? strstr(answer, "\"cluster_id\":\"") : NULL;
    if (cluster) { /* the last digit: the number stays within 64 bits */
        cluster += 14 + strspn(cluster + 14, "0123456789") - 1;
        *cluster = *cluster == '1' ? '2' : '1';
    }
    if (answered && status > 0) {
        snprintf(header, sizeof header, "HTTP/1.1 %ld X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status,
                 strlen(answer));
        say(connection->fd, header);
        say(connection->fd, answer);
    }
    free(answer);
}

static void until_closed(struct connection *connection, const char *text, unsigned each_ms) {
    while (!atomic_load(&connection->proxy->ended) && (!text || say(connection->fd, text))) {
        struct pollfd poll_for = {.fd = connection->fd, .events = POLLIN};
        char byte;
        if (poll(&poll_for, 1, (int)each_ms) > 0 && recv(connection->fd, &byte, 1, MSG_DONTWAIT) == 0)
            return;
    }
}

/* False: the connection is to be closed. */
static bool serve(struct connection *connection, enum proxy_mode mode, char *request, size_t body) {
    struct etcd_proxy *proxy = connection->proxy;
    switch (mode) {
    case PROXY_LOSE_ANSWER:
        forward(connection, request, body, false, false);
        return false;
    case PROXY_HOLD:
        while (!atomic_load(&proxy->send_held) && !atomic_load(&proxy->ended))
            usleep(2000);
        if (!atomic_load(&proxy->ended))
            forward(connection, request, body, false, false);
        return false;
    case PROXY_OTHER:
        forward(connection, request, body, true, true);
        return true;
    case PROXY_RUBBISH:
        return say(connection->fd, "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html>no</html");
    case PROXY_UNWILLING:
        return say(connection->fd, "HTTP/1.1 400 Bad Request\r\nContent-Length: 35\r\n\r\n{\"code\":3,\"message\":\"is too large\"}");
    case PROXY_NOISE:
        say(connection->fd, "\x01\x02\x03 what?\n\n\xff\xff");
        return false;
    case PROXY_REDIRECT:
        return say(connection->fd, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    case PROXY_ENDLESS:
        say(connection->fd, "HTTP/1.1 200 OK\r\n\r\n");
        until_closed(connection, "{\"header\":{\"x\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}\n", 0);
        return false;
    case PROXY_HEADERS:
        say(connection->fd, "HTTP/1.1 200 OK\r\n");
        until_closed(connection, "X-More: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 0);
        return false;
    case PROXY_SLOW:
        say(connection->fd, "HTTP/1.1 200 OK\r\n\r\n");
        until_closed(connection, "{", 100);
        return false;
    case PROXY_SILENT:
        until_closed(connection, NULL, 100);
        return false;
    case PROXY_PASS:
        if (strstr(request, "POST /v3/watch"))
            return false; /* the engine looks without it as well */
        forward(connection, request, body, true, false);
        return true;
    case PROXY_REFUSE:
    case PROXY_MODES:
        break;
    }
    return false;
}

static void *converse(void *context) {
    struct connection *connection = context;
    struct etcd_proxy *proxy = connection->proxy;
    char *request = malloc(REQUEST_MAX);
    size_t body = 0, length;
    PROMISE(request != NULL);
    while ((length = take_request(connection, request, &body)) > 0) {
        enum proxy_mode mode = (enum proxy_mode)atomic_load(&proxy->mode);
        if (mode != PROXY_PASS && proxy->only && !strstr(request, proxy->only))
            mode = PROXY_PASS;
        if (mode != PROXY_PASS)
            atomic_fetch_add(&proxy->requests, 1);
        bool more = serve(connection, mode, request, body);
        if (mode != PROXY_PASS)
            atomic_fetch_add(&proxy->done, 1);
        if (!more)
            break;
    }
    free(request);
    close(connection->fd);
    atomic_fetch_sub(&proxy->connections, 1);
    free(connection);
    return NULL;
}

static void *listen_for(void *context) {
    struct etcd_proxy *proxy = context;
    while (!atomic_load(&proxy->ended)) {
        struct pollfd poll_for = {.fd = proxy->listener, .events = POLLIN};
        if (poll(&poll_for, 1, 50) <= 0)
            continue;
        int fd = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        struct connection *connection = malloc(sizeof *connection);
        pthread_t thread;
        PROMISE(connection != NULL);
        *connection = (struct connection){proxy, fd};
        atomic_fetch_add(&proxy->connections, 1);
        PROMISE(pthread_create(&thread, NULL, converse, connection) == 0);
        pthread_detach(thread);
    }
    return NULL;
}

void etcd_proxy_start(struct etcd_proxy *proxy, const char *target) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    memset(proxy, 0, sizeof *proxy);
    snprintf(proxy->target, sizeof proxy->target, "%s", target);
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    PROMISE(bind(proxy->listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(proxy->listener, 50) == 0 &&
            getsockname(proxy->listener, (struct sockaddr *)&address, &length) == 0);
    snprintf(proxy->url, sizeof proxy->url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    PROMISE(pthread_create(&proxy->thread, NULL, listen_for, proxy) == 0);
}

void etcd_proxy_end(struct etcd_proxy *proxy) {
    atomic_store(&proxy->ended, true);
    pthread_join(proxy->thread, NULL);
    while (atomic_load(&proxy->connections))
        usleep(2000);
    close(proxy->listener);
}
