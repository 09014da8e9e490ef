/* The voters of a process: those of any number of volumes, behind one ROUTER socket that nothing else uses. batond has one
 * for its volume (the voter is named like its node, listens on PORT + VOTER_PORT, and its state lies in STORE.voter);
 * baton-witness serves with it the volumes of many clusters.
 *
 * What was promised or accepted is on the disk before it is answered; saves that wait for each other share a flush. Renewals,
 * releases and queries are answered at once, also while the disk hangs; but a grant rests on what is on the disk, so the
 * renewal of a holder whose value is being saved is answered when it has been. What cannot be saved is answered with
 * ASK_FAILED and forgotten; as long as nobody knows which of two holders the disk names, nobody's lease is renewed.
 *
 * Who may ask: with CURVE the keys of the nodes of all volumes here are let in, others are refused (for now: they may come
 * again, and get in once their volume is served); `from` has to be a node of the volume with the key of the connection. In the
 * clear, with the node's address. Whoever may not is answered with ASK_UNKNOWN. What is no question is dropped, counted and
 * now and then logged. An answer that cannot be sent now is lost, and so are questions beyond some that wait for the disk:
 * who asks asks again.
 *
 * Asked from a DEALER (CURVE: with the node's keys; in the clear: from the node's address, as link_dial does): one part each
 * way, ask_encode_question() there, ask_encode_answer() back. No routing id is set: ZeroMQ gives each connection its own.
 */
#ifndef BATON_MEMBERSHIP_VOTER_HOST_H
#define BATON_MEMBERSHIP_VOTER_HOST_H

#include "fs/config.h"
#include "membership/ask.h"

#define VOTER_HOST_VOLUMES_MAX 4096u
#define VOTER_ADDRESS 160u
#define VOTER_KEEPALIVE_S 6 /* of TCP: a standby asks nothing, but is to know before it has to that a voter is gone */

/* Threads: any; serve, drop and close one at a time. */
struct voter_host;

struct voter_host_options {
    const char *address;   /* tcp://IP:PORT to listen on: see voter_address() */
    enum transport transport;
    const char *secret;    /* CURVE: the secret key of this node or witness, Z85 */
    const char *directory; /* of voter_store.h: STORE.voter, or the witness's */
};

/* Where the voter of that name ("witness", or a node's) listens. 0, or -EINVAL: there is none of that name. */
int voter_address(const struct config *config, const char *voter, char address[VOTER_ADDRESS]);
/* STORE.voter */
void voter_directory(const char *store_path, char *path, size_t room);

/* Listens, and answers everybody with ASK_UNKNOWN until something is served. Waits up to 10 s for a predecessor to let go of
 * the port, and of the directory. 0, or a negative errno and a sentence. */
int voter_host_open(const struct voter_host_options *options, struct voter_host **host, char *why, size_t why_room);

/* Serves the volume of that config as `voter` from now on: its nodes may ask, and grants last for its lease time and
 * ask_margin(). Again for a volume that is served: nodes and a longer lease time are taken over, grants go on (a shorter lease
 * time counts after a restart). Nothing of `config` is kept. Waits for the disk. 0, or a negative errno and a sentence, and
 * what was served before stays; -EBADMSG: what it had promised is damaged; -ENOSPC: VOTER_HOST_VOLUMES_MAX.
 *
 * `watch`, which may be NULL and outlives the volume here: its freed() is called, by a thread of the host, when a holder's
 * release arrives (also of an epoch that this voter has missed, if it grants nothing), when a grant has run out, and when the
 * silence after a start is over. Nothing else of it is called. */
struct register_watch;
int voter_host_serve(struct voter_host *host, const struct config *config, const char *voter,
                     const struct register_watch *watch, char *why, size_t why_room);
/* Serves it no more; its state stays on the disk, and is found when it is served again (as after a start: its grants are
 * forgotten). When this returns, `watch` is not called any more. 0, or -ENOENT. */
int voter_host_drop(struct voter_host *host, const uint8_t volume[16]);

/* A question of this process's own node to a voter here, past the network: so that a node's own vote depends on no address
 * that goes with its cable. `answered` is called once: for renewals, releases and queries nearly always before this returns,
 * by the caller; else by a thread of the host, when the disk has it (hold no lock here that `answered` takes). It may not call
 * voter_host_serve, _drop or _close. -EBUSY: too many wait for the disk; `answered` is not called. */
typedef void voter_host_answered(void *context, const struct ask_answer *answer);
int voter_host_ask(struct voter_host *host, const struct ask_question *question, voter_host_answered *answered, void *context);

struct voter_host_view { /* of one volume, for status */
    uint8_t volume[16];
    char name[64];          /* of the volume */
    char voter[64];
    uint8_t id[16];         /* the voter's: drawn when its state was made */
    char holder[64];        /* whose grant lasts; empty: nobody's */
    int64_t grant_left;     /* ns */
    int64_t quiet_left;     /* ns; 0: it lets others in */
    int64_t lease;          /* ns, without the margin */
    uint64_t version;       /* of the last value that it accepted; 0: none */
    epoch_t epoch;
    char primary[64];
    bool listed;            /* in the list of voters of that value, with this id */
    uint64_t asked;         /* questions of its nodes */
    uint64_t refused;       /* of others: ASK_UNKNOWN */
    uint64_t failed;        /* ASK_FAILED */
    char why[128];          /* its state cannot be written: why; empty: it can */
};
/* Fills up to `room` and returns how many volumes there are. Never waits for the disk. */
unsigned voter_host_view(struct voter_host *host, struct voter_host_view *views, unsigned room);
struct voter_host_counts {
    uint64_t strangers; /* connections that were refused */
    uint64_t unknown;   /* questions about volumes that are not served */
    uint64_t garbage;   /* messages that are no questions */
    uint64_t dropped;   /* questions that too many others waited before */
};
void voter_host_counts(struct voter_host *host, struct voter_host_counts *counts);

/* Ends all of it. Who waits in voter_host_ask is answered with ASK_FAILED before this returns. */
void voter_host_close(struct voter_host *host);

#endif
