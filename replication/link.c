#include "replication/link.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define DISCARD_MAX 8192 /* message parts thrown away in one go */
#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define BIND_PATIENCE 10000000000ll
#define LOG_EVERY 5000000000ll /* at most one line about strangers and garbage in so many ns */
#define COPIES_WAITING 16      /* answers of a megabyte on their way to one who asks; one more is dropped */
#define QUESTIONS_WAITING 64   /* for copies, of one who asks: beyond that TCP holds it back */
#define KEEPALIVE_S 10         /* of connections on which nothing is said; a probe each costs more than all else does */
#define IO_BULK 1u             /* bits of ZMQ_AFFINITY */
#define IO_CONTROL 2u

struct link {
    const struct config *config;
    unsigned self;
    char secret[KEY_TEXT];
    uint8_t keys[CONFIG_NODES_MAX][32]; /* public ones, binary */
    void *context;
    void *bound[LINK_PORTS];
    pthread_t zap;
    void *zap_socket; /* the thread's own from its start on */
    bool zap_runs;
    atomic_int_fast64_t complained_garbage;
    atomic_uint dial_fails[CONFIG_NODES_MAX]; /* bits: ports that could not be dialled the last time */
    int64_t complained_stranger; /* the ZAP thread's */
    uint64_t strangers;          /* since the last line */
    atomic_uint_fast64_t garbage;
};

static bool secured(const struct link *link) {
    return link->config->transport == TRANSPORT_CURVE;
}

/* ---- ZAP: who may connect (rfc.zeromq.org/spec/27) ------------------------------------------------------------------- */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY, ZAP_PARTS };

static int node_of_key(const struct link *link, const uint8_t key[32]) {
    for (unsigned i = 0; i < link->config->node_count; i++)
        if (i != link->self && memcmp(link->keys[i], key, 32) == 0)
            return (int)i;
    return -1;
}

/* In the clear, what a node says of itself proves nothing; but nobody who has another address gets that far. */
static int node_of_address(const struct link *link, const char *address) {
    char host[64];
    uint8_t here[16] = {0}, there[16];
    uint16_t port;
    int family = strchr(address, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, address, here) != 1)
        return -1;
    for (unsigned i = 0; i < link->config->node_count; i++) {
        memset(there, 0, sizeof there);
        if (config_address(link->config->nodes[i].address, host, &port) == 0 && inet_pton(family, host, there) == 1 &&
            memcmp(here, there, sizeof here) == 0)
            return (int)i;
    }
    return -1;
}

static void complain_stranger(struct link *link, const char *address, const uint8_t *key) {
    char text[KEY_TEXT] = "none";
    link->strangers++;
    int64_t now = clock_boot();
    if (link->complained_stranger && now - link->complained_stranger < LOG_EVERY)
        return;
    if (key)
        zmq_z85_encode(text, key, 32);
    if (secured(link))
        log_warning("refused a connection from %s: its key %s is none of this volume's nodes (%llu refused since the last "
                    "such line)", address, text, (unsigned long long)link->strangers);
    else
        log_warning("refused a connection from %s: that is no address of this volume's nodes (%llu refused since the last "
                    "such line)", address, (unsigned long long)link->strangers);
    link->complained_stranger = now;
    link->strangers = 0;
}

static void zap_reply(void *socket, const char *request, size_t request_length, const char *user) {
    zmq_send(socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(socket, request, request_length, ZMQ_SNDMORE);
    zmq_send(socket, user ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(socket, user ? "OK" : "unknown key", user ? 2 : 11, ZMQ_SNDMORE);
    zmq_send(socket, user ? user : "", user ? strlen(user) : 0, ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0);
}

static void *zap_thread(void *argument) {
    struct link *link = argument;
    void *socket = link->zap_socket;
    for (;;) {
        char parts[ZAP_PARTS][256];
        size_t lengths[ZAP_PARTS] = {0};
        int part = 0, more = 1;
        while (more) {
            char rest[256];
            int n = zmq_recv(socket, part < ZAP_PARTS ? parts[part] : rest, 255, 0);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                goto out; /* the context ends */
            if (part < ZAP_PARTS) {
                lengths[part] = MIN((size_t)n, 255u);
                parts[part][lengths[part]] = 0;
            }
            part++;
            size_t size = sizeof more;
            zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
        }
        bool curve = part == ZAP_PARTS && strcmp(parts[ZAP_MECHANISM], "CURVE") == 0 && lengths[ZAP_KEY] == 32;
        const uint8_t *key = curve ? (const uint8_t *)parts[ZAP_KEY] : NULL;
        int node = curve ? node_of_key(link, key) : -1;
        if (!secured(link) && part > ZAP_MECHANISM && strcmp(parts[ZAP_MECHANISM], "NULL") == 0)
            node = node_of_address(link, parts[ZAP_ADDRESS]);
        if (node < 0)
            complain_stranger(link, part > ZAP_ADDRESS ? parts[ZAP_ADDRESS] : "somewhere", key);
        zap_reply(socket, parts[ZAP_REQUEST], lengths[ZAP_REQUEST], node < 0 ? NULL : link->config->nodes[node].name);
    }
out:
    zmq_close(socket);
    return NULL;
}

/* Nobody sends records to a primary: what comes there is thrown away. */
void link_discard(void *socket) {
    uint8_t nothing[64];
    for (unsigned i = 0; i < DISCARD_MAX && zmq_recv(socket, nothing, sizeof nothing, ZMQ_DONTWAIT) >= 0; i++)
        ;
}

/* ---- Sockets --------------------------------------------------------------------------------------------------------- */

static void set_int(void *socket, int option, int value) {
    PROMISE(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}
static void set_u64(void *socket, int option, uint64_t value) {
    PROMISE(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}

static void *make_socket(struct link *link, int type, enum link_port port) {
    void *socket = zmq_socket(link->context, type);
    if (!socket)
        return NULL;
    bool dialled = type == ZMQ_DEALER, copies = port == LINK_COPY, records = port == LINK_RECORDS;
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_SNDHWM, copies ? dialled ? QUESTIONS_WAITING : COPIES_WAITING : 4096); /* credit keeps below that */
    set_int(socket, ZMQ_RCVHWM, copies ? dialled ? COPIES_WAITING : QUESTIONS_WAITING
                                : records && dialled ? (int)LINK_RECORDS_WAITING
                                                     : 1024);
    int64_t most = dialled && copies    ? (int64_t)WIRE_COPY_BYTES
                   : dialled && records ? (int64_t)WIRE_RECORDS_BYTES
                                        : WIRE_CONTROL_MAX;
    PROMISE(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0);
    set_u64(socket, ZMQ_AFFINITY, records || copies ? IO_BULK : IO_CONTROL);
    /* A peer that vanishes without a word leaves a connection behind: TCP drops it after this; the sessions' own
     * heartbeats are what counts. Not ZeroMQ's: libzmq 4.3.4 aborts ("!_io_error", stream_engine_base.cpp) when one is
     * due on a connection that was lost while its queue here was full. */
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, 2);
    set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 4);
    set_int(socket, ZMQ_TCP_MAXRT, 10000);
    set_int(socket, ZMQ_HANDSHAKE_IVL, 5000);
    set_int(socket, ZMQ_RECONNECT_IVL, 100);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, 200);
    return socket;
}

static bool is_ipv6(const struct node_config *node) {
    return strchr(node->address, '[') != NULL;
}

static int endpoint(const struct node_config *node, enum link_port port, char text[160]) {
    char host[64];
    uint16_t first;
    int rc = config_address(node->address, host, &first);
    if (rc || first > UINT16_MAX - (LINK_PORTS - 1))
        return -EINVAL;
    snprintf(text, 160, strchr(host, ':') ? "tcp://[%s]:%u" : "tcp://%s:%u", host, first + (unsigned)port);
    return 0;
}

static int bind_port(struct link *link, enum link_port port, int64_t deadline, char *why, size_t why_room) {
    char text[160];
    const struct node_config *node = &link->config->nodes[link->self];
    if (endpoint(node, port, text)) {
        snprintf(why, why_room, "node %s: the address %s is not tcp://IP:PORT with a port of at most %d", node->name,
                 node->address, UINT16_MAX - (LINK_PORTS - 1));
        return -EINVAL;
    }
    void *socket = make_socket(link, ZMQ_ROUTER, port);
    if (!socket)
        return -errno;
    link->bound[port] = socket;
    set_int(socket, ZMQ_IPV6, is_ipv6(node));
    set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    set_int(socket, ZMQ_RCVTIMEO, port == LINK_COPY ? 1000 : 10000); /* the end of the context ends it at once */
    PROMISE(zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "baton", 5) == 0);
    if (secured(link)) {
        set_int(socket, ZMQ_CURVE_SERVER, 1);
        if (zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, link->secret, KEY_TEXT) < 0) {
            snprintf(why, why_room, "node %s: its secret key is no CURVE key", node->name);
            return -EINVAL;
        }
    }
    while (zmq_bind(socket, text) < 0) {
        if (errno != EADDRINUSE || clock_boot() > deadline) {
            int error = errno;
            snprintf(why, why_room, "node %s cannot listen on %s: %s", node->name, text, zmq_strerror(error));
            return error < 0 || error > 4095 ? -EADDRNOTAVAIL : -error;
        }
        usleep(50000);
    }
    return 0;
}

int link_open(const struct config *config, unsigned self, const char *secret, struct link **out, char *why,
              size_t why_room) {
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return -ENOMEM;
    link->config = config;
    link->self = self;
    snprintf(link->secret, sizeof link->secret, "%s", secret);
    link->context = zmq_ctx_new();
    PROMISE(link->context);
    zmq_ctx_set(link->context, ZMQ_IO_THREADS, 2);
    int rc = 0;
    if (secured(link))
        for (unsigned i = 0; i < config->node_count; i++)
            if (!zmq_z85_decode(link->keys[i], config->nodes[i].public_key)) {
                snprintf(why, why_room, "node %s: its public-key is no CURVE key", config->nodes[i].name);
                rc = -EINVAL;
            }
    if (rc == 0) {
        /* Bound before anything listens: without a handler ZeroMQ would let everybody in. */
        link->zap_socket = zmq_socket(link->context, ZMQ_REP);
        PROMISE(link->zap_socket && zmq_bind(link->zap_socket, ZAP_ENDPOINT) == 0);
        PROMISE(pthread_create(&link->zap, NULL, zap_thread, link) == 0);
        link->zap_runs = true;
    }
    int64_t deadline = clock_boot() + BIND_PATIENCE;
    for (enum link_port port = 0; rc == 0 && port < LINK_PORTS; port++)
        rc = bind_port(link, port, deadline, why, why_room);
    if (rc) {
        link_shutdown(link);
        link_close(link);
        return rc;
    }
    *out = link;
    return 0;
}

void link_shutdown(struct link *link) {
    zmq_ctx_shutdown(link->context);
}

void link_close(struct link *link) {
    for (enum link_port port = 0; port < LINK_PORTS; port++)
        if (link->bound[port])
            zmq_close(link->bound[port]);
    if (link->zap_runs)
        pthread_join(link->zap, NULL);
    while (zmq_ctx_term(link->context) < 0 && errno == EINTR)
        ;
    free(link);
}

void link_address(const struct link *link, unsigned node, enum link_port port, char *text, size_t room) {
    char full[160] = "an address that cannot be";
    (void)endpoint(&link->config->nodes[node], port, full);
    snprintf(text, room, "%s", full);
}

void *link_bound(struct link *link, enum link_port port) {
    return link->bound[port];
}

struct link_route link_route_of(uint64_t session) {
    struct link_route route = {.length = 9, .bytes = "S"};
    be64_put(route.bytes + 1, session);
    return route;
}

/* One line, until it can be again. Leaves errno. */
static void *cannot_dial(struct link *link, unsigned node, enum link_port port, const char *text) {
    int error = errno;
    if (!(atomic_fetch_or(&link->dial_fails[node], 1u << port) & 1u << port))
        log_error("node %s cannot be dialled at %s: %s", link->config->nodes[node].name, text, zmq_strerror(error));
    errno = error;
    return NULL;
}

void *link_dial(struct link *link, unsigned node, enum link_port port, uint64_t session, int receive_timeout_ms) {
    const struct node_config *peer = &link->config->nodes[node], *self = &link->config->nodes[link->self];
    char text[160] = "", via[320], host[64];
    uint16_t ignored;
    errno = EINVAL;
    void *socket = endpoint(peer, port, text) == 0 ? make_socket(link, ZMQ_DEALER, port) : NULL;
    if (!socket)
        return cannot_dial(link, node, port, text);
    set_int(socket, ZMQ_IPV6, is_ipv6(peer));
    set_int(socket, ZMQ_IMMEDIATE, 1); /* nothing piles up for a node that is away */
    set_int(socket, ZMQ_RCVTIMEO, receive_timeout_ms);
    if (session) {
        struct link_route route = link_route_of(session);
        PROMISE(zmq_setsockopt(socket, ZMQ_ROUTING_ID, route.bytes, route.length) == 0);
    }
    int rc = 0;
    if (secured(link)) {
        const char *public_key = link->config->nodes[link->self].public_key;
        rc = zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, peer->public_key, KEY_TEXT) < 0 ||
             zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_key, KEY_TEXT) < 0 ||
             zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, link->secret, KEY_TEXT) < 0;
    }
    /* From the address that the other end expects. */
    if (!secured(link) && is_ipv6(self) == is_ipv6(peer) && config_address(self->address, host, &ignored) == 0) {
        snprintf(via, sizeof via, is_ipv6(self) ? "tcp://[%s]:0;%s" : "tcp://%s:0;%s", host, text + strlen("tcp://"));
    } else {
        snprintf(via, sizeof via, "%s", text);
    }
    if (rc || zmq_connect(socket, via) < 0) {
        cannot_dial(link, node, port, text);
        int error = errno;
        zmq_close(socket);
        errno = error;
        return NULL;
    }
    atomic_fetch_and(&link->dial_fails[node], ~(1u << port));
    return socket;
}

void link_hang_up(void *socket) {
    if (socket)
        zmq_close(socket);
}

/* ---- Messages -------------------------------------------------------------------------------------------------------- */

static void complain_garbage(struct link *link, const char *what, const struct link_message *message) {
    uint64_t count = atomic_fetch_add(&link->garbage, 1) + 1;
    int_fast64_t last = atomic_load(&link->complained_garbage);
    int64_t now = clock_boot();
    if ((last && now - last < LOG_EVERY) || !atomic_compare_exchange_strong(&link->complained_garbage, &last, now))
        return;
    const char *address = zmq_msg_gets((zmq_msg_t *)&message->body, "Peer-Address");
    log_warning("dropped a frame from %s: %s (%llu dropped so far)", address ? address : "somewhere", what,
                (unsigned long long)count);
}

/* One whole message: for bound sockets route and body; whatever follows is thrown away. */
static int receive_parts(void *socket, bool routed, int flags, struct link_message *message) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    message->route.length = 0;
    int rc;
    while ((rc = zmq_msg_recv(routed ? &part : &message->body, socket, flags)) < 0 && errno == EINTR)
        ;
    if (rc < 0) {
        rc = -errno;
        zmq_msg_close(&part);
        return rc;
    }
    bool good = true, more = zmq_msg_more(routed ? &part : &message->body);
    if (routed) {
        good = more && zmq_msg_size(&part) <= LINK_ROUTE_MAX;
        if (good) {
            message->route.length = (uint8_t)zmq_msg_size(&part);
            memcpy(message->route.bytes, zmq_msg_data(&part), message->route.length);
            good = zmq_msg_recv(&message->body, socket, ZMQ_DONTWAIT) >= 0;
            more = good && zmq_msg_more(&message->body);
        }
    }
    for (; more; good = false) {
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more(&part);
    }
    zmq_msg_close(&part);
    return good ? 0 : -EBADMSG;
}

/* The sender's index, or -1. */
static int judge_sender(const struct link *link, const struct link_message *message, int expected) {
    const struct wire_head *head = &message->frame.head;
    if (memcmp(head->volume, link->config->volume_id, 16) != 0)
        return -1;
    for (unsigned i = 0; i < link->config->node_count; i++) {
        const struct node_config *node = &link->config->nodes[i];
        if (node->number != head->node || i == link->self)
            continue;
        if (expected >= 0)
            return (int)i == expected ? (int)i : -1;
        if (secured(link)) {
            const char *user = zmq_msg_gets((zmq_msg_t *)&message->body, "User-Id");
            return user && strcmp(user, node->name) == 0 ? (int)i : -1;
        }
        return (int)i;
    }
    return -1;
}

int link_receive(struct link *link, void *socket, int expected, bool now, struct link_message *message) {
    zmq_msg_init(&message->body);
    int rc = receive_parts(socket, expected < 0, now ? ZMQ_DONTWAIT : 0, message);
    if (rc == 0) {
        rc = wire_decode(zmq_msg_data(&message->body), zmq_msg_size(&message->body), &message->frame);
        int node = rc == -EBADMSG ? -1 : judge_sender(link, message, expected);
        char why[WIRE_TEXT];
        if (rc == -EPROTO)
            wire_why_unfit(&message->frame.head, why, sizeof why);
        if (rc)
            complain_garbage(link, rc == -EPROTO ? why : "it is malformed", message);
        else if (node < 0)
            complain_garbage(link, "it is of another volume or names a node that the sender is not", message);
        message->node = (unsigned)node;
        rc = node < 0 ? -EBADMSG : rc;
    } else if (rc == -EBADMSG) {
        complain_garbage(link, "it is no message of Baton's", message);
    }
    if (rc)
        zmq_msg_close(&message->body);
    return rc;
}

void link_message_done(struct link_message *message) {
    zmq_msg_close(&message->body);
}

int link_send(void *socket, const struct link_route *route, const void *bytes, size_t length) {
    if (route && zmq_send(socket, route->bytes, route->length, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return -errno;
    if (zmq_send(socket, bytes, length, ZMQ_DONTWAIT) < 0)
        return -errno;
    return 0;
}

void link_fill_head(const struct link *link, struct wire_head *head) {
    head->node = link->config->nodes[link->self].number;
    memcpy(head->volume, link->config->volume_id, 16);
}

int link_send_frame(struct link *link, void *socket, const struct link_route *route, struct frame *frame) {
    uint8_t buffer[WIRE_CONTROL_MAX];
    link_fill_head(link, &frame->head);
    return link_send(socket, route, buffer, wire_encode(frame, buffer));
}
