/* Verify: compares this node's copy with another one's, row by row, as both were at one record (LSN), while work goes on.
 *
 * Both nodes open that state of the past (fs/history.h); equal chain values there say that they have the same history, the
 * comparison that they have made the same of it. This node hashes a range of its rows, the other one the same range, and
 * where hashes differ the range is cut and asked for again, down to rows. A comparison that takes long goes on at a newer
 * record after a while, with the range where it was, so that what is held of the journal stays bounded: each range is
 * compared at one record, `first_lsn` to `lsn` in all.
 *
 * A thread of its own; one comparison at a time.
 */
#ifndef BATON_REPLICATION_VERIFY_H
#define BATON_REPLICATION_VERIFY_H

#include "replication/replicator.h"
#include "replication/wire.h"

#define VERIFY_FOUND_MAX 1000u /* differences, then it ends */
#define VERIFY_PATHS_MAX 64u

enum verify_outcome {
    VERIFY_NONE, /* never, or under way */
    VERIFY_EQUAL,
    VERIFY_DIFFERENT,
    VERIFY_FAILED,  /* it could not be done, or not to its end: `why` */
    VERIFY_STOPPED, /* by who asked for it, or because this node stops */
};

struct verify_result { /* the last one with a node: a local value of the store */
    uint16_t node; /* its number; 0: none */
    uint8_t outcome;
    uint8_t paths; /* of some paths only */
    int64_t begun, ended; /* clock_now() */
    uint64_t first_lsn, lsn;
    uint64_t rows, bytes; /* of this node, read */
    uint64_t differences;
    char why[WIRE_TEXT];
} __attribute__((packed));

struct verify_request {
    unsigned node;      /* index */
    uint64_t rate;      /* bytes of rows a second; 0: as configured */
    unsigned path_count; /* 0: all */
    char *paths[VERIFY_PATHS_MAX]; /* below the volume's root; freed by verify_start's taker in any case */
};

/* Begins one. -EALREADY: one is running; -ENOTCONN, -EPROTO and others with a sentence. */
int verify_start(struct replicator *r, struct verify_request *request, uint64_t *ticket, char *why, size_t room);
/* How far it is, or its report: {"running": …}. A new reference. *running: not ended yet. */
json_t *verify_look(struct replicator *r, uint64_t ticket, bool *running);
/* The one with this ticket ends; 0: whichever. -ENOENT: there is none. */
int verify_stop(struct replicator *r, uint64_t ticket);
/* The running one or the last one of each node, and the last report, if this process made one. */
json_t *verify_show(struct replicator *r);

/* The control command "verify": {"action": "start" (then a line each half second until its end; it stops when the client
 * goes) | "stop" | "status", "peer": NAME, "rate": bytes, "paths": […]}. Before control_start. */
void verify_control(void);

#endif
