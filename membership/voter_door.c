#include "membership/voter_door.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define BIND_PATIENCE INT64_C(10000000000)
#define LOG_EVERY INT64_C(5000000000) /* at most one line about strangers and garbage in so many ns */
#define MESSAGES_WAITING 64           /* of one connection, each way */
#define TURN 256u                     /* questions in a row, before answers that wait are sent */
#define PARTS_MAX 8192u

struct out { /* an answer on its way */
    struct out *next;
    uint8_t route_length, route[DESK_ROUTE];
    size_t length;
    uint8_t bytes[];
};

struct door {
    struct desk *desk;
    enum transport transport;
    void *context, *socket, *zap_socket; /* each socket is its thread's from that one's start on */
    int wake;
    bool zap_runs, runs;
    pthread_t zap, thread;
    atomic_bool stop;
    pthread_mutex_t lock; /* of outs */
    struct out *outs, **outs_end;
    atomic_uint_fast64_t strangers, garbage;
    uint64_t strangers_told, garbage_told;   /* of the ZAP thread, of the door's */
    int64_t told_of_stranger, told_of_garbage;
};

/* ---- ZAP: who may connect (rfc.zeromq.org/spec/27) ------------------------------------------------------------------- */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY, ZAP_PARTS };
#define ZAP_PART 256u

static void complain_stranger(struct door *door, const char *address, const char *key) {
    uint64_t count = atomic_fetch_add(&door->strangers, 1) + 1;
    int64_t now = clock_boot();
    if (door->told_of_stranger && now - door->told_of_stranger < LOG_EVERY)
        return;
    log_warning("the voter refused a connection from %s: %s%s belongs to no node that may ask here (%llu refused since the last "
                "such line)", address, door->transport == TRANSPORT_CURVE ? "its key " : "that address",
                door->transport == TRANSPORT_CURVE ? key : "", (unsigned long long)(count - door->strangers_told));
    door->told_of_stranger = now;
    door->strangers_told = count;
}

/* 300, for now: after a 400 libzmq would never dial again, but the volume of this node may be served any moment. */
static void zap_reply(void *socket, const char *request, size_t request_length, const char *user) {
    zmq_send(socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(socket, request, request_length, ZMQ_SNDMORE);
    zmq_send(socket, user ? "200" : "300", 3, ZMQ_SNDMORE);
    zmq_send(socket, user ? "OK" : "unknown", user ? 2 : 7, ZMQ_SNDMORE);
    zmq_send(socket, user ? user : "", user ? strlen(user) : 0, ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0);
}

/* The number of parts, or -1: the context ends. */
static int zap_receive(void *socket, char parts[ZAP_PARTS][ZAP_PART], size_t lengths[ZAP_PARTS]) {
    int part = 0, more = 1;
    while (more) {
        char rest[ZAP_PART];
        int n = zmq_recv(socket, part < ZAP_PARTS ? parts[part] : rest, ZAP_PART - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (part < ZAP_PARTS) {
            lengths[part] = MIN((size_t)n, (size_t)ZAP_PART - 1);
            parts[part][lengths[part]] = 0;
        }
        part++;
        size_t size = sizeof more;
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    }
    return part;
}

/* As desk_admits() and messages have it: the key's text, or the address. NULL: neither. */
static const char *identity_of(const struct door *door, int count, char parts[ZAP_PARTS][ZAP_PART], const size_t *lengths,
                               char text[64]) {
    uint8_t binary[16];
    if (count <= ZAP_MECHANISM)
        return NULL;
    if (door->transport == TRANSPORT_CURVE)
        return count == ZAP_PARTS && strcmp(parts[ZAP_MECHANISM], "CURVE") == 0 && lengths[ZAP_KEY] == 32
                   ? zmq_z85_encode(text, (const uint8_t *)parts[ZAP_KEY], 32)
                   : NULL;
    int family = strchr(parts[ZAP_ADDRESS], ':') ? AF_INET6 : AF_INET;
    return strcmp(parts[ZAP_MECHANISM], "NULL") == 0 && inet_pton(family, parts[ZAP_ADDRESS], binary) == 1
               ? inet_ntop(family, binary, text, 64)
               : NULL;
}

static void *zap_thread(void *argument) {
    struct door *door = argument;
    char parts[ZAP_PARTS][ZAP_PART], text[64];
    size_t lengths[ZAP_PARTS] = {0};
    int count;
    while ((count = zap_receive(door->zap_socket, parts, lengths)) >= 0) {
        const char *user = identity_of(door, count, parts, lengths, text);
        bool admitted = user && desk_admits(door->desk, user);
        if (!admitted)
            complain_stranger(door, count > ZAP_ADDRESS ? parts[ZAP_ADDRESS] : "somewhere", user ? user : "none");
        zap_reply(door->zap_socket, parts[ZAP_REQUEST], count > ZAP_REQUEST ? lengths[ZAP_REQUEST] : 0, admitted ? user : NULL);
    }
    zmq_close(door->zap_socket);
    return NULL;
}

/* ---- Answers ----------------------------------------------------------------------------------------------------------- */

static void wake(struct door *door) {
    uint64_t one = 1;
    PROMISE(write(door->wake, &one, sizeof one) == sizeof one || errno == EAGAIN);
}

void door_send(struct door *door, const struct desk_reply *reply, const struct ask_answer *answer) {
    uint8_t bytes[ASK_BYTES];
    size_t length = ask_encode_answer(answer, bytes);
    struct out *out = malloc(sizeof *out + length);
    if (!out) /* lost, as on a line */
        return;
    *out = (struct out){.route_length = reply->route_length, .length = length};
    memcpy(out->route, reply->route, reply->route_length);
    memcpy(out->bytes, bytes, length);
    pthread_mutex_lock(&door->lock);
    *door->outs_end = out;
    door->outs_end = &out->next;
    pthread_mutex_unlock(&door->lock);
    wake(door);
}

static struct out *take_outs(struct door *door) {
    pthread_mutex_lock(&door->lock);
    struct out *outs = door->outs;
    door->outs = NULL;
    door->outs_end = &door->outs;
    pthread_mutex_unlock(&door->lock);
    return outs;
}

static void send_now(struct door *door, const uint8_t *route, size_t route_length, const uint8_t *bytes, size_t length) {
    if (zmq_send(door->socket, route, route_length, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
        zmq_send(door->socket, bytes, length, ZMQ_DONTWAIT); /* one that cannot go is lost */
}

static void send_outs(struct door *door) {
    for (struct out *out = take_outs(door), *next; out; out = next) {
        next = out->next;
        if (!atomic_load(&door->stop))
            send_now(door, out->route, out->route_length, out->bytes, out->length);
        free(out);
    }
}

/* ---- Questions --------------------------------------------------------------------------------------------------------- */

static void complain_garbage(struct door *door, const char *what, zmq_msg_t *body) {
    uint64_t count = atomic_fetch_add(&door->garbage, 1) + 1;
    int64_t now = clock_boot();
    if (door->told_of_garbage && now - door->told_of_garbage < LOG_EVERY)
        return;
    const char *address = zmq_msg_gets(body, "Peer-Address");
    log_warning("the voter dropped a message from %s: %s (%llu dropped since the last such line)", address ? address : "somewhere",
                what, (unsigned long long)(count - door->garbage_told));
    door->told_of_garbage = now;
    door->garbage_told = count;
}

/* One message of two parts. False: nothing is there. `good`: it is one. */
static bool receive(struct door *door, struct desk_reply *reply, zmq_msg_t *body, bool *good) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    int n;
    while ((n = zmq_msg_recv(&part, door->socket, ZMQ_DONTWAIT)) < 0 && errno == EINTR)
        ;
    if (n < 0) {
        zmq_msg_close(&part);
        return false;
    }
    bool more = zmq_msg_more(&part);
    *good = more && n <= (int)sizeof reply->route;
    if (*good) {
        reply->route_length = (uint8_t)n;
        memcpy(reply->route, zmq_msg_data(&part), (size_t)n);
        *good = zmq_msg_recv(body, door->socket, ZMQ_DONTWAIT) >= 0;
        more = *good && zmq_msg_more(body);
    }
    for (unsigned i = 0; more && i < PARTS_MAX; i++, *good = false)
        more = zmq_msg_recv(&part, door->socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&part);
    zmq_msg_close(&part);
    return true;
}

static void answer_one(struct door *door, const struct desk_reply *reply, zmq_msg_t *body) {
    struct ask_question question;
    struct ask_answer answer;
    uint8_t bytes[ASK_BYTES];
    int rc = ask_decode_question(zmq_msg_data(body), zmq_msg_size(body), &question);
    const char *who = zmq_msg_gets(body, "User-Id");
    if (rc || !who) {
        complain_garbage(door, rc == -EPROTO ? "it is of another version of Baton" : "it is no question", body);
        return;
    }
    if (desk_ask(door->desk, &question, who, reply, &answer) == DESK_ANSWERED)
        send_now(door, reply->route, reply->route_length, bytes, ask_encode_answer(&answer, bytes));
}

/* False: there is nothing more. */
static bool one_question(struct door *door) {
    struct desk_reply reply = {0};
    zmq_msg_t body;
    bool good;
    zmq_msg_init(&body);
    bool came = receive(door, &reply, &body, &good);
    if (came && good)
        answer_one(door, &reply, &body);
    else if (came)
        complain_garbage(door, "it is no message of Baton's", &body);
    zmq_msg_close(&body);
    return came;
}

static long patience(struct door *door) {
    int64_t next;
    while ((next = desk_tell(door->desk)) == 0)
        ;
    if (next == INT64_MAX)
        return -1;
    int64_t ms = (next - clock_boot()) / 1000000 + 1;
    return (long)MAX(MIN(ms, INT64_C(3600000)), INT64_C(0));
}

static void *door_thread(void *argument) {
    struct door *door = argument;
    while (!atomic_load(&door->stop)) {
        zmq_pollitem_t items[2] = {{.socket = door->socket, .events = ZMQ_POLLIN}, {.fd = door->wake, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, 2, patience(door)) < 0 && errno != EINTR)
            PROMISE(errno == EINTR);
        uint64_t count;
        if (read(door->wake, &count, sizeof count) < 0)
            PROMISE(errno == EAGAIN || errno == EINTR);
        send_outs(door);
        for (unsigned i = 0; i < TURN && one_question(door); i++)
            ;
    }
    send_outs(door);
    zmq_close(door->socket);
    return NULL;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------------- */

static void set_int(void *socket, int option, int value) {
    PROMISE(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}

static int set_up(struct door *door, const struct voter_host_options *options, char *why, size_t why_room) {
    int64_t most = ASK_BYTES;
    door->socket = zmq_socket(door->context, ZMQ_ROUTER);
    if (!door->socket)
        return -errno;
    set_int(door->socket, ZMQ_LINGER, 0);
    set_int(door->socket, ZMQ_SNDHWM, MESSAGES_WAITING);
    set_int(door->socket, ZMQ_RCVHWM, MESSAGES_WAITING);
    PROMISE(zmq_setsockopt(door->socket, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0);
    /* TCP's, not ZeroMQ's: see replication/link.c */
    set_int(door->socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(door->socket, ZMQ_TCP_KEEPALIVE_IDLE, VOTER_KEEPALIVE_S);
    set_int(door->socket, ZMQ_TCP_KEEPALIVE_INTVL, 2);
    set_int(door->socket, ZMQ_TCP_KEEPALIVE_CNT, 4);
    set_int(door->socket, ZMQ_TCP_MAXRT, 10000);
    set_int(door->socket, ZMQ_HANDSHAKE_IVL, 2000); /* who was refused for now waits for so long, too */
    set_int(door->socket, ZMQ_IPV6, strchr(options->address, '[') != NULL);
    PROMISE(zmq_setsockopt(door->socket, ZMQ_ZAP_DOMAIN, "baton", 5) == 0);
    if (door->transport == TRANSPORT_CLEAR)
        return 0;
    set_int(door->socket, ZMQ_CURVE_SERVER, 1);
    if (!options->secret || !config_key_valid(options->secret) ||
        zmq_setsockopt(door->socket, ZMQ_CURVE_SECRETKEY, options->secret, KEY_TEXT) < 0) {
        snprintf(why, why_room, "the voter at %s has no secret key, or it is no CURVE key", options->address);
        return -EINVAL;
    }
    return 0;
}

static int bind_to(struct door *door, const char *address, char *why, size_t why_room) {
    int64_t deadline = clock_boot() + BIND_PATIENCE;
    while (zmq_bind(door->socket, address) < 0) {
        int error = errno;
        if (error != EADDRINUSE || clock_boot() > deadline) {
            snprintf(why, why_room, "the voter cannot listen on %s: %s", address, zmq_strerror(error));
            return error <= 0 || error > 4095 ? -EADDRNOTAVAIL : -error;
        }
        usleep(50000);
    }
    return 0;
}

int door_open(const struct voter_host_options *options, struct desk *desk, int wake_fd, struct door **out, char *why,
              size_t why_room) {
    struct door *door = calloc(1, sizeof *door);
    if (!door)
        return -ENOMEM;
    door->desk = desk;
    door->wake = wake_fd;
    door->transport = options->transport;
    door->outs_end = &door->outs;
    PROMISE(pthread_mutex_init(&door->lock, NULL) == 0);
    door->context = zmq_ctx_new();
    PROMISE(door->context);
    /* Bound before anything listens: without a handler ZeroMQ would let everybody in. */
    door->zap_socket = zmq_socket(door->context, ZMQ_REP);
    PROMISE(door->zap_socket && zmq_bind(door->zap_socket, ZAP_ENDPOINT) == 0);
    PROMISE(pthread_create(&door->zap, NULL, zap_thread, door) == 0);
    int rc = set_up(door, options, why, why_room);
    if (rc == 0)
        rc = bind_to(door, options->address, why, why_room);
    if (rc == 0) {
        PROMISE(pthread_create(&door->thread, NULL, door_thread, door) == 0);
        door->runs = true;
        *out = door;
    } else {
        door_close(door);
    }
    return rc;
}

void door_counts(struct door *door, struct voter_host_counts *counts) {
    counts->strangers = atomic_load(&door->strangers);
    counts->garbage = atomic_load(&door->garbage);
}

void door_close(struct door *door) {
    atomic_store(&door->stop, true);
    if (door->runs) {
        wake(door);
        pthread_join(door->thread, NULL); /* closes the socket */
    } else if (door->socket) {
        zmq_close(door->socket);
    }
    zmq_ctx_shutdown(door->context);
    pthread_join(door->zap, NULL);
    while (zmq_ctx_term(door->context) < 0 && errno == EINTR)
        ;
    pthread_mutex_destroy(&door->lock);
    free(door);
}
