/* The network, as ZeroMQ over TCP makes it look: a dialled socket has a connection or waits to make one again; frames of
 * one connection stay in order, those of two do not; a connection that breaks loses what is under way, and its two ends
 * notice at different times; a cut line holds frames back, for TCP sends them again, until it is mended or the
 * connection is given up. Beyond what TCP does, a frame may come to the same process once more, later.
 */
#include "tests/simulator/sim.h"
#include "replication/link.h"

#include <stdio.h>

#define NOTICE_LOW (1 * SIM_MS) /* a broken connection is noticed after so long … */
#define NOTICE_HIGH (1000 * SIM_MS)
#define GIVE_UP_LOW (500 * SIM_MS) /* a connection over a cut line breaks after so long … */
#define GIVE_UP_HIGH (10000 * SIM_MS)
#define AGAIN_LOW (10 * SIM_MS) /* a connection is tried again */
#define AGAIN_HIGH (200 * SIM_MS)
#define WAKES 64u
#define WAKE_FIRST 1000000

struct message {
    struct message *next;
    int64_t at; /* it arrives */
    const struct link *again; /* at that process, if it still runs */
    struct link_route route;
    size_t length;
    uint8_t bytes[];
};

struct queue {
    struct message *first, *last;
    unsigned count;
};

enum side { DEALER = 0, ROUTER = 1 };
struct socket;
struct connection {
    struct socket *ends[2];
    bool open[2]; /* that end believes that it is there */
    bool broken;
    struct link_route route;
    struct queue pipes[2]; /* by the sending side */
    bool under_way[2];     /* an event stands for the first frame */
    struct connection *next; /* of the bound socket */
    struct connection *next_all;
};

struct socket {
    struct link *link;
    unsigned node, peer; /* peer: of a dialled one */
    enum link_port port;
    bool bound, closed;
    struct link_route route;
    int timeout_ms;
    struct queue inbox;
    struct fiber *waiter;
    struct connection *connections; /* of a bound one; a dialled one has one or none */
    struct connection *sending_to;  /* its route has been sent, the body follows */
};

struct link {
    const struct config *config;
    unsigned self;
    bool down;
    struct socket *bound[LINK_PORTS];
    struct socket *sockets[64]; /* dialled, to be closed with the process */
    unsigned socket_count;
    uint64_t next_route;
};

struct wake {
    bool open, set;
    struct fiber *waiter;
};

struct network {
    struct link *links[SIM_NODES]; /* of the processes that run */
    bool cut[SIM_NODES][SIM_NODES];
    int64_t slow[SIM_NODES][SIM_NODES];
    struct connection *all;
    struct wake wakes[WAKES];
    unsigned wake_count;
};
/* One of each schedule; it lies in the schedule's memory. */
static struct network *net;

static struct network *network(void) {
    if (!net)
        net = sim_alloc(sizeof *net);
    return net;
}

static unsigned sender(const struct connection *c, enum side side) {
    return side == DEALER ? c->ends[DEALER]->node : c->ends[DEALER]->peer;
}
static unsigned receiver(const struct connection *c, enum side side) {
    return sender(c, !side);
}

/* ---- Queues ---------------------------------------------------------------------------------------------------------- */

static void put(struct queue *queue, struct message *message) {
    message->next = NULL;
    if (queue->last)
        queue->last->next = message;
    else
        queue->first = message;
    queue->last = message;
    queue->count++;
}

static struct message *take(struct queue *queue) {
    struct message *message = queue->first;
    if (!message)
        return NULL;
    queue->first = message->next;
    if (!queue->first)
        queue->last = NULL;
    queue->count--;
    return message;
}

static void empty(struct queue *queue) {
    for (struct message *message; (message = take(queue));)
        sim_free(message);
}

static void wake_waiter(struct fiber **waiter) {
    struct fiber *fiber = *waiter;
    *waiter = NULL;
    sim_wake(fiber);
}

/* ---- Under way ------------------------------------------------------------------------------------------------------- */

static void arrive(void *argument, uint64_t side);

static void start_first(struct connection *c, enum side side) {
    struct message *first = c->pipes[side].first;
    if (first && !c->under_way[side] && !network()->cut[sender(c, side)][receiver(c, side)]) {
        c->under_way[side] = true;
        sim_at(MAX(first->at, sim_now()), arrive, c, side);
    }
}

static void hand_in(struct socket *socket, struct message *message) {
    put(&socket->inbox, message);
    wake_waiter(&socket->waiter);
}

/* A frame that came comes once more, though its connection may have ended by then. */
static void come_again(void *argument, uint64_t number) {
    struct message *message = argument;
    unsigned node = (unsigned)(number / LINK_PORTS);
    struct link *link = network()->links[node];
    if (world->calm || link != message->again || link->down || !link->bound[number % LINK_PORTS]) {
        sim_free(message);
        return;
    }
    sim_trace("a frame comes to node %u once more", node);
    hand_in(link->bound[number % LINK_PORTS], message);
}

static void repeat_later(const struct socket *socket, const struct message *message) {
    struct message *copy = sim_alloc(sizeof *copy + message->length);
    memcpy(copy, message, sizeof *copy + message->length);
    copy->again = socket->link;
    sim_at(sim_now() + sim_between(1 * SIM_MS, 4000 * SIM_MS), come_again, copy,
           socket->node * LINK_PORTS + socket->port);
}

static void arrive(void *argument, uint64_t number) {
    struct connection *c = argument;
    enum side side = (enum side)number;
    c->under_way[side] = false;
    if (network()->cut[sender(c, side)][receiver(c, side)])
        return; /* held back until the line is mended */
    struct message *message = take(&c->pipes[side]);
    if (!message)
        return;
    struct socket *socket = c->ends[!side];
    if (c->open[!side] && !socket->closed) {
        if (side == DEALER)
            message->route = c->route;
        if (socket->bound && !world->calm && sim_chance(world->repeats))
            repeat_later(socket, message);
        hand_in(socket, message);
    } else {
        sim_free(message);
    }
    start_first(c, side);
}

static int send_message(struct connection *c, enum side side, const void *bytes, size_t length) {
    if (!c || !c->open[side])
        return side == ROUTER ? -EHOSTUNREACH : -EAGAIN;
    if (c->pipes[side].count >= world->network_limit)
        return -EAGAIN;
    world->counts.frames++;
    if (c->broken)
        return 0; /* it goes nowhere */
    struct message *message = sim_alloc(sizeof *message + length);
    message->length = length;
    memcpy(message->bytes, bytes, length);
    int64_t delay = sim_between(world->network_low, world->network_high) + network()->slow[sender(c, side)][receiver(c, side)];
    message->at = sim_now() + delay;
    if (c->pipes[side].last)
        message->at = MAX(message->at, c->pipes[side].last->at);
    put(&c->pipes[side], message);
    start_first(c, side);
    return 0;
}

/* ---- Connections ----------------------------------------------------------------------------------------------------- */

static void try_to_connect(void *argument, uint64_t nothing);

static void remove_from_bound(struct socket *bound, struct connection *c) {
    for (struct connection **at = &bound->connections; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            return;
        }
}

static void end_side(void *argument, uint64_t number) {
    struct connection *c = argument;
    enum side side = (enum side)number;
    struct socket *socket = c->ends[side];
    if (!c->open[side])
        return;
    c->open[side] = false;
    if (socket->closed)
        return;
    if (side == ROUTER) {
        remove_from_bound(socket, c);
        if (socket->sending_to == c)
            socket->sending_to = NULL;
        return;
    }
    socket->connections = NULL;
    sim_at(sim_now() + sim_between(AGAIN_LOW, AGAIN_HIGH), try_to_connect, socket, 0);
}

static int64_t notice_time(void) {
    return sim_chance(3) ? sim_between(NOTICE_LOW, NOTICE_HIGH) : sim_between(10 * US, 2 * SIM_MS);
}

/* Frames that are under way are lost. Each end that is still there notices at some time. */
static void break_connection(struct connection *c) {
    if (c->broken)
        return;
    c->broken = true;
    empty(&c->pipes[DEALER]);
    empty(&c->pipes[ROUTER]);
    for (enum side side = DEALER; side <= ROUTER; side++)
        if (c->open[side] && !c->ends[side]->closed)
            sim_at(sim_now() + notice_time(), end_side, c, side);
}

static bool same_route(const struct link_route *a, const struct link_route *b) {
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static struct connection *find_route(const struct socket *bound, const struct link_route *route) {
    for (struct connection *c = bound->connections; c; c = c->next)
        if (same_route(&c->route, route))
            return c;
    return NULL;
}

static void try_to_connect(void *argument, uint64_t nothing) {
    struct socket *socket = argument;
    (void)nothing;
    if (socket->closed || socket->connections || socket->link->down)
        return;
    struct link *there = network()->links[socket->peer];
    struct socket *bound = there && !there->down ? there->bound[socket->port] : NULL;
    bool whole = !network()->cut[socket->node][socket->peer] && !network()->cut[socket->peer][socket->node];
    if (!bound || !whole || (socket->route.length && find_route(bound, &socket->route))) {
        sim_at(sim_now() + sim_between(AGAIN_LOW, AGAIN_HIGH), try_to_connect, socket, 0);
        return;
    }
    struct connection *c = sim_alloc(sizeof *c);
    c->ends[DEALER] = socket;
    c->ends[ROUTER] = bound;
    c->open[DEALER] = c->open[ROUTER] = true;
    c->route = socket->route;
    if (!c->route.length) {
        c->route.length = 9;
        be64_put(c->route.bytes + 1, there->next_route++);
    }
    c->next = bound->connections;
    bound->connections = c;
    c->next_all = network()->all;
    network()->all = c;
    socket->connections = c;
}

static void close_socket(struct socket *socket) {
    if (!socket || socket->closed)
        return;
    socket->closed = true;
    empty(&socket->inbox);
    for (struct connection *c = socket->connections, *next; c; c = next) {
        next = c->next;
        enum side side = socket->bound ? ROUTER : DEALER;
        c->open[side] = false;
        /* What was sent last may arrive all the same: then the connection breaks when that is through. */
        if (c->pipes[side].count && sim_chance(2))
            sim_at(MAX(c->pipes[side].last->at, sim_now()) + 1, end_side, c, !side);
        else
            break_connection(c);
        if (!socket->bound)
            break;
    }
    socket->connections = NULL;
}

/* ---- What happens to it ---------------------------------------------------------------------------------------------- */

static bool between(const struct connection *c, unsigned a, unsigned b) {
    unsigned dealer = c->ends[DEALER]->node, router = c->ends[DEALER]->peer;
    return (dealer == a && router == b) || (dealer == b && router == a);
}

static void give_up(void *argument, uint64_t number) {
    struct connection *c = argument;
    (void)number;
    unsigned a = c->ends[DEALER]->node, b = c->ends[DEALER]->peer;
    if (network()->cut[a][b] || network()->cut[b][a])
        break_connection(c);
}

void network_cut(unsigned from, unsigned to) {
    network()->cut[from][to] = true;
    for (struct connection *c = network()->all; c; c = c->next_all)
        if (!c->broken && between(c, from, to) && sim_chance(2))
            sim_at(sim_now() + sim_between(GIVE_UP_LOW, GIVE_UP_HIGH), give_up, c, 0);
}

void network_mend(unsigned from, unsigned to) {
    network()->cut[from][to] = false;
    for (struct connection *c = network()->all; c; c = c->next_all) {
        if (c->broken || !between(c, from, to))
            continue;
        start_first(c, DEALER);
        start_first(c, ROUTER);
    }
}

void network_slow(unsigned from, unsigned to, int64_t delay) {
    network()->slow[from][to] = delay;
}

void network_break(void) {
    unsigned open = 0;
    for (struct connection *c = network()->all; c; c = c->next_all)
        open += !c->broken;
    if (!open)
        return;
    uint64_t chosen = sim_below(open);
    for (struct connection *c = network()->all; c; c = c->next_all)
        if (!c->broken && chosen-- == 0) {
            sim_trace("a connection of node %u to node %u, port %d, breaks", c->ends[DEALER]->node, c->ends[DEALER]->peer,
                      (int)c->ends[DEALER]->port);
            break_connection(c);
            return;
        }
}

void network_kill(unsigned node) {
    struct link *link = network()->links[node];
    network()->links[node] = NULL;
    for (unsigned i = 0; i < WAKES; i++)
        network()->wakes[i].waiter = NULL; /* who lives looks again */
    if (!link)
        return;
    link->down = true;
    for (unsigned port = 0; port < LINK_PORTS; port++)
        close_socket(link->bound[port]);
    for (unsigned i = 0; i < link->socket_count; i++)
        close_socket(link->sockets[i]);
}

/* ---- replication/link.h ---------------------------------------------------------------------------------------------- */

static struct socket *make_socket(struct link *link, enum link_port port) {
    struct socket *socket = sim_alloc(sizeof *socket);
    socket->link = link;
    socket->node = link->self;
    socket->port = port;
    return socket;
}

int link_open(const struct config *config, unsigned self, const char *secret, struct link **out, char *why, size_t room) {
    (void)secret, (void)why, (void)room;
    struct link *link = sim_alloc(sizeof *link);
    link->config = config;
    link->self = self;
    link->next_route = sim_below(1000000) + 1;
    for (enum link_port port = 0; port < LINK_PORTS; port++) {
        link->bound[port] = make_socket(link, port);
        link->bound[port]->bound = true;
        link->bound[port]->timeout_ms = port == LINK_COPY ? 1000 : 100;
    }
    if (network()->links[self])
        sim_fail("node %u listens twice", self);
    network()->links[self] = link;
    sim_point();
    *out = link;
    return 0;
}

void link_shutdown(struct link *link) {
    link->down = true;
    for (enum link_port port = 0; port < LINK_PORTS; port++)
        wake_waiter(&link->bound[port]->waiter);
    for (unsigned i = 0; i < link->socket_count; i++)
        wake_waiter(&link->sockets[i]->waiter);
    sim_point();
}

void link_close(struct link *link) {
    for (unsigned i = 0; i < link->socket_count; i++)
        if (!link->sockets[i]->closed)
            sim_fail("node %u closes its link before a socket of it", link->self);
    for (enum link_port port = 0; port < LINK_PORTS; port++)
        close_socket(link->bound[port]);
    network()->links[link->self] = NULL;
    sim_point();
}

void *link_bound(struct link *link, enum link_port port) {
    return link->bound[port];
}

struct link_route link_route_of(uint64_t session) {
    struct link_route route = {.length = 9, .bytes = "S"};
    be64_put(route.bytes + 1, session);
    return route;
}

void *link_dial(struct link *link, unsigned node, enum link_port port, uint64_t session, int receive_timeout_ms) {
    struct socket *socket = make_socket(link, port);
    unsigned slot = 0;
    while (slot < link->socket_count && !link->sockets[slot]->closed)
        slot++;
    if (slot == sizeof link->sockets / sizeof *link->sockets)
        sim_fail("node %u dials more and more and hangs up nothing", link->self);
    link->socket_count = MAX(link->socket_count, slot + 1);
    link->sockets[slot] = socket;
    socket->peer = node;
    socket->timeout_ms = receive_timeout_ms;
    if (session)
        socket->route = link_route_of(session);
    sim_at(sim_now() + 3 * world->network_low, try_to_connect, socket, 0);
    sim_point();
    return socket;
}

void link_hang_up(void *socket) {
    close_socket(socket);
    sim_point();
}

static int wait_for_message(struct socket *socket, bool now, struct message **message) {
    int64_t deadline = sim_now() + (now ? 0 : socket->timeout_ms * SIM_MS);
    for (;;) {
        if (socket->closed)
            sim_fail("node %u receives from a socket that it closed", socket->node);
        if (socket->link->down)
            return -ETERM;
        if ((*message = take(&socket->inbox)))
            return 0;
        if (now || sim_now() >= deadline)
            return -EAGAIN;
        if (socket->waiter && socket->waiter != sim_self())
            sim_fail("two threads of node %u receive from one socket", socket->node);
        socket->waiter = sim_self();
        sim_block(deadline);
        socket->waiter = NULL;
    }
}

static int sender_of(const struct link *link, const struct wire_head *head, int expected) {
    for (unsigned i = 0; i < link->config->node_count; i++)
        if (i != link->self && link->config->nodes[i].number == head->node)
            return expected < 0 || expected == (int)i ? (int)i : -1;
    return -1;
}

struct body { /* what a zmq_msg_t holds here */
    uint8_t *data;
    size_t size;
};
_Static_assert(sizeof(struct body) <= sizeof(zmq_msg_t), "it fits");

int link_receive(struct link *link, void *from, int expected, bool now, struct link_message *received) {
    struct message *message;
    sim_point();
    int rc = wait_for_message(from, now, &message);
    if (rc)
        return rc;
    if (zmq_msg_init_size(&received->body, message->length))
        return -ENOMEM;
    struct body *body = (struct body *)&received->body;
    memcpy(body->data, message->bytes, message->length);
    received->route = message->route;
    size_t length = message->length;
    sim_free(message);
    rc = wire_decode(body->data, length, &received->frame);
    int node = rc ? -1 : sender_of(link, &received->frame.head, expected);
    if (rc || node < 0)
        sim_fail("node %u was sent a frame that cannot be: %d", link->self, rc);
    received->node = (unsigned)node;
    if (received->frame.head.type != WIRE_BEAT)
        sim_trace("%s from node %d, epoch %llu", wire_type_name(received->frame.head.type), node,
                  (unsigned long long)EPOCH_COUNTER(received->frame.head.epoch));
    return 0;
}

void link_message_done(struct link_message *message) {
    zmq_msg_close(&message->body);
}

int link_send(void *to, const struct link_route *route, const void *bytes, size_t length) {
    struct socket *socket = to;
    sim_point();
    if (socket->closed)
        sim_fail("node %u sends on a socket that it closed", socket->node);
    if (socket->link->down)
        return -ETERM;
    struct connection *c = route ? find_route(socket, route) : socket->connections;
    return send_message(c, socket->bound ? ROUTER : DEALER, bytes, length);
}

void link_fill_head(const struct link *link, struct wire_head *head) {
    head->node = link->config->nodes[link->self].number;
    memcpy(head->volume, link->config->volume_id, 16);
}

int link_send_frame(struct link *link, void *socket, const struct link_route *route, struct frame *frame) {
    uint8_t buffer[WIRE_CONTROL_MAX];
    link_fill_head(link, &frame->head);
    if (frame->head.type == WIRE_ACK)
        check_ack_frame(link->self, frame->ack.received, frame->ack.durable);
    if (frame->head.type != WIRE_BEAT)
        sim_trace("sends %s, epoch %llu", wire_type_name(frame->head.type),
                  (unsigned long long)EPOCH_COUNTER(frame->head.epoch));
    size_t length = wire_encode(frame, buffer);
    return link_send(socket, route, buffer, length);
}

void link_discard(void *of) {
    struct socket *socket = of;
    empty(&socket->inbox);
}

/* ---- What replication/ calls of ZeroMQ itself ------------------------------------------------------------------------ */

int zmq_msg_init_size(zmq_msg_t *message, size_t size) {
    *(struct body *)message = (struct body){sim_alloc(size), size};
    return 0;
}

void *zmq_msg_data(zmq_msg_t *message) {
    return ((struct body *)message)->data;
}

int zmq_msg_close(zmq_msg_t *message) {
    struct body *body = (struct body *)message;
    if (!body->data)
        sim_fail("a message is closed twice");
    sim_free(body->data);
    body->data = NULL;
    return 0;
}

static int failed(int rc) {
    if (rc == 0)
        return 0;
    errno = -rc;
    return -1;
}

/* Only ever a route, on a bound socket. */
int zmq_send(void *to, const void *bytes, size_t length, int flags) {
    struct socket *socket = to;
    struct link_route route = {.length = (uint8_t)length};
    if (flags != (ZMQ_SNDMORE | ZMQ_DONTWAIT) || length > LINK_ROUTE_MAX || !socket->bound)
        sim_fail("zmq_send is used in a way that is not played");
    memcpy(route.bytes, bytes, length);
    if (socket->link->down)
        return failed(-ETERM);
    struct connection *c = find_route(socket, &route);
    if (!c)
        return failed(-EHOSTUNREACH);
    if (c->pipes[ROUTER].count >= world->network_limit)
        return failed(-EAGAIN);
    socket->sending_to = c;
    sim_point();
    return (int)length;
}

int zmq_msg_send(zmq_msg_t *message, void *to, int flags) {
    struct socket *socket = to;
    struct body *body = (struct body *)message;
    (void)flags;
    if (socket->link->down)
        return failed(-ETERM);
    if (socket->sending_to) /* else it goes nowhere, like its connection */
        send_message(socket->sending_to, ROUTER, body->data, body->size);
    socket->sending_to = NULL;
    int size = (int)body->size;
    zmq_msg_close(message);
    sim_point();
    return size;
}

static bool ready(const zmq_pollitem_t *item) {
    const struct socket *socket = item->socket;
    return socket ? socket->inbox.count > 0 : network()->wakes[item->fd - WAKE_FIRST].set;
}

static void set_waiters(zmq_pollitem_t *items, int count, struct fiber *fiber) {
    for (int i = 0; i < count; i++) {
        struct socket *socket = items[i].socket;
        if (socket)
            socket->waiter = fiber;
        else
            network()->wakes[items[i].fd - WAKE_FIRST].waiter = fiber;
    }
}

int zmq_poll(zmq_pollitem_t *items, int count, long timeout_ms) {
    int64_t deadline = sim_now() + timeout_ms * SIM_MS;
    sim_point();
    for (;;) {
        int found = 0;
        for (int i = 0; i < count; i++) {
            const struct socket *socket = items[i].socket;
            if (socket && socket->link->down)
                return failed(-ETERM);
            items[i].revents = ready(&items[i]) ? ZMQ_POLLIN : 0;
            found += items[i].revents != 0;
        }
        if (found || sim_now() >= deadline)
            return found;
        set_waiters(items, count, sim_self());
        sim_block(deadline);
        set_waiters(items, count, NULL);
    }
}

/* ---- The talker's descriptor ----------------------------------------------------------------------------------------- */

int wake_open(void) {
    unsigned i = network()->wake_count++;
    if (i >= WAKES)
        sim_fail("more and more event descriptors");
    network()->wakes[i] = (struct wake){.open = true};
    return WAKE_FIRST + (int)i;
}

bool wake_is(int fd) {
    return fd >= WAKE_FIRST;
}

static struct wake *wake_of(int fd) {
    struct wake *wake = &network()->wakes[fd - WAKE_FIRST];
    if (!wake->open)
        sim_fail("a descriptor is used after it was closed");
    return wake;
}

void wake_write(int fd) {
    struct wake *wake = wake_of(fd);
    wake->set = true;
    wake_waiter(&wake->waiter);
    sim_point();
}

void wake_read(int fd) {
    wake_of(fd)->set = false;
}

void wake_close(int fd) {
    wake_of(fd)->open = false;
}
