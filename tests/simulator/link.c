/* replication/link.h, the few calls of ZeroMQ that replication/ makes itself, and the talker's event descriptor. */
#include "tests/simulator/network.h"
#include "tests/simulator/voting.h"

#define WAKES 2048u
#define WAKE_FIRST 1000000

struct wake {
    bool open, set;
    unsigned node;
    struct fiber *waiter;
};

static struct wake wakes[WAKES];
static unsigned wake_count;

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
    if (network_link(self))
        sim_fail("node %u listens twice", self);
    network_set_link(self, link);
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
        socket_close(link->bound[port]);
    network_set_link(link->self, NULL);
    sim_point();
}

void link_address(const struct link *link, unsigned node, enum link_port port, char *text, size_t room) {
    (void)link;
    snprintf(text, room, "played://%u:%u", node, (unsigned)port);
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
    connection_begin(socket);
    sim_point();
    return socket;
}

void link_hang_up(void *socket) {
    socket_close(socket);
    sim_point();
}

static int wait_for_message(struct socket *socket, bool now, struct message **message) {
    int64_t deadline = sim_now() + (now ? 0 : socket->timeout_ms * SIM_MS);
    for (;;) {
        if (socket->closed)
            sim_fail("node %u receives from a socket that it closed", socket->node);
        if (socket->link->down)
            return -ETERM;
        if ((*message = queue_take(&socket->inbox)))
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
    check_follow(sim_node_here());
}

int link_send(void *to, const struct link_route *route, const void *bytes, size_t length) {
    struct socket *socket = to;
    sim_point();
    if (socket->closed)
        sim_fail("node %u sends on a socket that it closed", socket->node);
    if (socket->link->down)
        return -ETERM;
    struct connection *c = route ? connection_find(socket, route) : socket->connections;
    return connection_send(c, socket->bound ? ROUTER : DEALER, bytes, length);
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
    queue_empty(&socket->inbox);
}

/* ---- What replication/ calls of ZeroMQ itself ------------------------------------------------------------------------ */

int zmq_msg_init_size(zmq_msg_t *message, size_t size) {
    *(struct body *)message = (struct body){sim_alloc(size), size};
    return 0;
}

void *zmq_msg_data(zmq_msg_t *message) {
    return ((struct body *)message)->data;
}

size_t zmq_msg_size(const zmq_msg_t *message) {
    return ((const struct body *)message)->size;
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

/* Only ever a route, on a bound socket; or a question to a voter. */
int zmq_send(void *to, const void *bytes, size_t length, int flags) {
    if (mailbox_is(to))
        return mailbox_send(to, bytes, length);
    struct socket *socket = to;
    struct link_route route = {.length = (uint8_t)length};
    if (flags != (ZMQ_SNDMORE | ZMQ_DONTWAIT) || length > LINK_ROUTE_MAX || !socket->bound)
        sim_fail("zmq_send is used in a way that is not played");
    memcpy(route.bytes, bytes, length);
    if (socket->link->down)
        return failed(-ETERM);
    struct connection *c = connection_find(socket, &route);
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
        connection_send(socket->sending_to, ROUTER, body->data, body->size);
    socket->sending_to = NULL;
    int size = (int)body->size;
    zmq_msg_close(message);
    sim_point();
    return size;
}

static bool ready(zmq_pollitem_t *item) {
    const struct socket *socket = item->socket;
    if (mailbox_is(socket))
        return mailbox_ready(socket, item->events, &item->revents);
    bool found = socket ? socket->inbox.count > 0 : wakes[item->fd - WAKE_FIRST].set;
    item->revents = found ? ZMQ_POLLIN : 0;
    return found;
}

static void set_waiters(zmq_pollitem_t *items, int count, struct fiber *fiber) {
    for (int i = 0; i < count; i++) {
        struct socket *socket = items[i].socket;
        if (mailbox_is(socket))
            mailbox_wait(socket, fiber);
        else if (socket)
            socket->waiter = fiber;
        else
            wakes[items[i].fd - WAKE_FIRST].waiter = fiber;
    }
}

int zmq_poll(zmq_pollitem_t *items, int count, long timeout_ms) {
    int64_t deadline = timeout_ms < 0 ? SIM_FOREVER : sim_now() + timeout_ms * SIM_MS;
    sim_point();
    for (;;) {
        int found = 0;
        for (int i = 0; i < count; i++) {
            const struct socket *socket = items[i].socket;
            if (socket && !mailbox_is(socket) && socket->link->down)
                return failed(-ETERM);
            found += ready(&items[i]);
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
    unsigned i = wake_count++;
    if (i >= WAKES)
        sim_fail("more and more event descriptors");
    wakes[i] = (struct wake){.open = true, .node = sim_node_here()};
    return WAKE_FIRST + (int)i;
}

bool wake_is(int fd) {
    return fd >= WAKE_FIRST && fd < WAKE_FIRST + (int)WAKES;
}

static struct wake *wake_of(int fd) {
    struct wake *wake = &wakes[fd - WAKE_FIRST];
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

void wake_forget(unsigned node) {
    for (unsigned i = 0; i < wake_count; i++)
        if (wakes[i].node == node)
            wakes[i].waiter = NULL;
}
