/* The network, as ZeroMQ over TCP makes it look: a dialled socket has a connection or waits to make one again; frames of
 * one connection stay in order, those of two do not; a connection that breaks loses what is under way, and its two ends
 * notice at different times; a cut line holds frames back, for TCP sends them again, until it is mended or the
 * connection is given up. Beyond what TCP does, a frame may come to the same process once more, later.
 */
#include "tests/simulator/network.h"

#define NOTICE_LOW (1 * SIM_MS) /* a broken connection is noticed after so long … */
#define NOTICE_HIGH (1000 * SIM_MS)
#define GIVE_UP_LOW (500 * SIM_MS) /* a connection over a cut line breaks after so long … */
#define GIVE_UP_HIGH (10000 * SIM_MS)
#define AGAIN_LOW (10 * SIM_MS) /* a connection is tried again */
#define AGAIN_HIGH (200 * SIM_MS)

struct network {
    struct link *links[SIM_NODES]; /* of the processes that run */
    bool cut[SIM_NODES][SIM_NODES];
    int64_t slow[SIM_NODES][SIM_NODES];
    struct connection *all;
};
/* One of each schedule; it lies in the schedule's memory. */
static struct network *net;

static struct network *network(void) {
    if (!net)
        net = sim_alloc(sizeof *net);
    return net;
}

struct link *network_link(unsigned node) {
    return network()->links[node];
}

void network_set_link(unsigned node, struct link *link) {
    network()->links[node] = link;
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

struct message *queue_take(struct queue *queue) {
    struct message *message = queue->first;
    if (!message)
        return NULL;
    queue->first = message->next;
    if (!queue->first)
        queue->last = NULL;
    queue->count--;
    return message;
}

void queue_empty(struct queue *queue) {
    for (struct message *message; (message = queue_take(queue));)
        sim_free(message);
}

void wake_waiter(struct fiber **waiter) {
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
    struct message *message = queue_take(&c->pipes[side]);
    if (!message)
        return;
    struct socket *socket = c->ends[!side];
    if (c->open[!side] && !socket->closed) {
        if (side == DEALER)
            message->route = c->route;
        unsigned repeats = socket->port == LINK_ACKS ? (world->repeats + 7) / 8 : world->repeats;
        if (socket->bound && !world->calm && sim_chance(repeats))
            repeat_later(socket, message);
        hand_in(socket, message);
    } else {
        sim_free(message);
    }
    start_first(c, side);
}

int connection_send(struct connection *c, enum side side, const void *bytes, size_t length) {
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
    int64_t slow = network()->slow[sender(c, side)][receiver(c, side)];
    message->at = sim_now() + sim_between(world->network_low, world->network_high) + slow;
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
    queue_empty(&c->pipes[DEALER]);
    queue_empty(&c->pipes[ROUTER]);
    for (enum side side = DEALER; side <= ROUTER; side++)
        if (c->open[side] && !c->ends[side]->closed)
            sim_at(sim_now() + notice_time(), end_side, c, side);
}

static bool same_route(const struct link_route *a, const struct link_route *b) {
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

struct connection *connection_find(const struct socket *bound, const struct link_route *route) {
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
    if (!bound || !whole || (socket->route.length && connection_find(bound, &socket->route))) {
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

void connection_begin(struct socket *socket) {
    sim_at(sim_now() + 3 * world->network_low, try_to_connect, socket, 0);
}

void socket_close(struct socket *socket) {
    if (!socket || socket->closed)
        return;
    socket->closed = true;
    queue_empty(&socket->inbox);
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

bool network_is_cut(unsigned from, unsigned to) {
    return network()->cut[from][to];
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

bool network_lose_records(void) {
    for (struct connection *c = network()->all; c; c = c->next_all)
        if (!c->broken && c->ends[DEALER]->port == LINK_RECORDS && c->pipes[ROUTER].count) {
            sim_trace("node %u's connection for records breaks, and %u frames are lost", c->ends[DEALER]->node,
                      c->pipes[ROUTER].count);
            break_connection(c);
            return true;
        }
    return false;
}

void network_kill(unsigned node) {
    struct link *link = network()->links[node];
    network()->links[node] = NULL;
    wake_forget(node);
    if (!link)
        return;
    link->down = true;
    for (unsigned port = 0; port < LINK_PORTS; port++)
        socket_close(link->bound[port]);
    for (unsigned i = 0; i < link->socket_count; i++)
        socket_close(link->sockets[i]);
}
