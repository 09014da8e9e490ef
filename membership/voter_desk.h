/* The table of a process's voters (voter_host.h): who asks what of which, and what is answered when. The door brings questions
 * and carries answers away, the saver makes states durable; neither is waited for here. Any thread; the desk has a lock of
 * its own, under which nobody waits.
 */
#ifndef BATON_MEMBERSHIP_VOTER_DESK_H
#define BATON_MEMBERSHIP_VOTER_DESK_H

#include "membership/voter_host.h"
#include "membership/voter_store.h"

#define DESK_BATCH 32u /* volumes whose states are made durable by one flush */
#define DESK_ROUTE 255u

struct desk_reply { /* where an answer goes */
    voter_host_answered *answered; /* NULL: to the route */
    void *context;
    uint8_t route_length;
    uint8_t route[DESK_ROUTE];
};

struct desk_waiting { /* an answer that waits for the disk */
    struct desk_waiting *next;
    uint64_t needs;      /* the change of its volume that has to be durable */
    unsigned node;       /* who asked; CONFIG_NODES_MAX: is no node any more */
    struct desk_reply reply;
    struct ask_answer answer;
    bool again;          /* a renewal: it is decided when the disk has the value */
    struct {
        char from[64];
        epoch_t epoch;
        uint64_t session;
    } renewal;
};

enum desk_fate { DESK_ANSWERED = 1, DESK_LATER, DESK_DROPPED };

struct desk;
/* `wake`: an eventfd that counts up when desk_tell() should be called before its time. NULL: no memory. */
struct desk *desk_open(enum transport transport, int wake);
/* Nobody uses it any more. Returns what still waits, with ASK_FAILED. */
struct desk_waiting *desk_close(struct desk *desk);

/* ---- Volumes: serve and drop are of one thread at a time ---- */

/* What the disk has of that volume. False: it is not served. */
bool desk_durable(struct desk *desk, const uint8_t volume[16], struct voter_state *state);
/* Serves it, or takes over the config and the watch. `state` is durable, and says the config's lease time or a longer one.
 * 0 or a negative errno and a sentence. The caller holds what keeps saves away. */
int desk_serve(struct desk *desk, const struct config *config, const char *voter, const struct register_watch *watch,
               const struct voter_state *state, char *why, size_t why_room);
/* 0 or -ENOENT. `waiting`: with ASK_FAILED. */
int desk_drop(struct desk *desk, const uint8_t volume[16], struct desk_waiting **waiting);
unsigned desk_view(struct desk *desk, struct voter_host_view *views, unsigned room);

/* ---- Questions ---- */

/* `who`: the connection's key (Z85) or, in the clear, its address; is a node's of any volume? */
bool desk_admits(struct desk *desk, const char *who);
/* ANSWERED: `answer` holds. LATER: desk_saved() has it. `who` NULL: this process itself. */
enum desk_fate desk_ask(struct desk *desk, const struct ask_question *question, const char *who, const struct desk_reply *reply,
                        struct ask_answer *answer);
void desk_counts(struct desk *desk, struct voter_host_counts *counts); /* unknown and dropped */
/* Tells a watch what is due. When the next is: CLOCK_BOOTTIME, 0: now, INT64_MAX: not by time. Of one thread. */
int64_t desk_tell(struct desk *desk);

/* ---- The saver ---- */

struct desk_batch {
    unsigned count;
    struct voter_store_row rows[DESK_BATCH];
    uint64_t upto[DESK_BATCH];
};
/* Waits until something is to be saved. False: desk_stop() was called. */
bool desk_wait(struct desk *desk);
void desk_stop(struct desk *desk);
/* What is to be saved now, none perhaps. */
void desk_take(struct desk *desk, struct desk_batch *batch);
/* It is durable, or (a negative errno) nobody knows. Returns the answers that go now. */
struct desk_waiting *desk_saved(struct desk *desk, const struct desk_batch *batch, int rc);

#endif
