/* Sockets: ZeroMQ over TCP, CURVE with a ZAP handler (transport = curve) or plain (transport = clear).
 *
 * Every node binds four sockets on its address, whatever its role: records (PORT), acknowledgements (PORT + 1), control
 * (PORT + 2) and copies (PORT + 3), and dials the same four of others. Records and copies have an I/O thread of their own,
 * so that encrypting bulk data never delays an acknowledgement or a heartbeat. Sockets are lossy: nothing here waits for a peer, a message
 * that cannot go now is refused (-EAGAIN), one to a peer that has gone is -EHOSTUNREACH.
 *
 * With CURVE only the public keys of the config's nodes are let in; others are refused and logged, and a frame must
 * carry the number of the node whose key the connection has. In the clear, only the addresses of the config's nodes are
 * let in, and the number must be one of the config's. What is left to those who are let in: a message of endless parts,
 * each within its bound, is gathered by ZeroMQ in memory before it is handed out.
 *
 * A socket is used by one thread at a time (the caller's lock, or one owner).
 */
#ifndef BATON_REPLICATION_LINK_H
#define BATON_REPLICATION_LINK_H

#include "fs/config.h"
#include "replication/wire.h"

#include <zmq.h>

enum link_port { LINK_RECORDS = 0, LINK_ACKS = 1, LINK_CONTROL = 2, LINK_COPY = 3, LINK_PORTS = VOTER_PORT };

/* Frames of records that ZeroMQ takes in before they are asked for; beyond that TCP holds them back. It has no bound in bytes:
 * the receiver counts what it takes out (standby.c), and between two looks, while it takes in a frame, this is all there is. */
#define LINK_RECORDS_WAITING 256u

struct link;
#define LINK_ROUTE_MAX 64u
struct link_route { /* where a message came from: a connection of a bound socket */
    uint8_t length;
    uint8_t bytes[LINK_ROUTE_MAX];
};

struct link_message {
    zmq_msg_t body; /* `frame` points into it: link_message_done() */
    struct link_route route;
    unsigned node;  /* index of the sender */
    struct frame frame;
};

/* Binds. Waits up to 10 s for a predecessor to let go of the ports. */
int link_open(const struct config *config, unsigned self, const char *secret, struct link **link, char *why,
              size_t why_room);
/* All sockets of link_dial are closed already. */
void link_close(struct link *link);
/* Makes every blocking receive return -ETERM from now on: the first step of stopping. */
void link_shutdown(struct link *link);

/* Where a node listens for that, as a person would write it. */
void link_address(const struct link *link, unsigned node, enum link_port port, char *text, size_t room);
void *link_bound(struct link *link, enum link_port port);
/* A socket to that port of a node. `session`, if not 0, becomes its route (link_route_of) at the other end. NULL with
 * errno, and a line in the log unless the last time was like that. */
void *link_dial(struct link *link, unsigned node, enum link_port port, uint64_t session, int receive_timeout_ms);
void link_hang_up(void *socket);
struct link_route link_route_of(uint64_t session);

/* 0; -EAGAIN: nothing (within the socket's timeout, or at once with `now`); -ETERM: stopping; -EBADMSG: something came
 * that is no frame of a node of this volume: dropped, counted, logged now and then; -EPROTO, likewise: it is from
 * message->node, which speaks versions of the protocol that this program does not (wire_why_unfit). expected: index of the node that was
 * dialled; for bound sockets -1. */
int link_receive(struct link *link, void *socket, int expected, bool now, struct link_message *message);
void link_message_done(struct link_message *message);

/* Sends an encoded control frame. route NULL: a dialled socket. */
int link_send(void *socket, const struct link_route *route, const void *bytes, size_t length);
/* Fills head.node and head.volume, encodes, sends. */
int link_send_frame(struct link *link, void *socket, const struct link_route *route, struct frame *frame);
void link_fill_head(const struct link *link, struct wire_head *head);

/* Throws away what came in on a socket that is only for sending. Under the lock that guards the socket. */
void link_discard(void *socket);

#endif
