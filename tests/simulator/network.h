/* The inside of the network: what network.c (lines and connections) and link.c (sockets as the program sees them) share. */
#ifndef BATON_TESTS_SIMULATOR_NETWORK_H
#define BATON_TESTS_SIMULATOR_NETWORK_H

#include "replication/link.h"
#include "tests/simulator/sim.h"

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

/* The link of the process that runs at a node. */
struct link *network_link(unsigned node);
void network_set_link(unsigned node, struct link *link); /* NULL: none */

/* The first message of a queue, or NULL. */
struct message *queue_take(struct queue *queue);
void queue_empty(struct queue *queue);
void wake_waiter(struct fiber **waiter);

/* Gives a dialled socket its first connection, after a moment. */
void connection_begin(struct socket *socket);
struct connection *connection_find(const struct socket *bound, const struct link_route *route);
/* 0; -EAGAIN: it takes no more, or (dialled) is not there; -EHOSTUNREACH: (bound) is not there. */
int connection_send(struct connection *c, enum side side, const void *bytes, size_t length);
void socket_close(struct socket *socket); /* NULL or closed: no-op */
void wake_forget(unsigned node);          /* its process has gone: nobody of it waits any more */

#endif
