/* The register of a volume: who is primary, in which epoch, and which stores are in sync. One small value that changes
 * only by compare-and-set; every engine (file, CASPaxos, etcd) stands behind this interface.
 *
 * The file engine keeps it on this node, in a file of its own outside the store (STORE.register), fully synced, and
 * leaves it to a person to decide who is primary.
 */
#ifndef BATON_MEMBERSHIP_REGISTER_H
#define BATON_MEMBERSHIP_REGISTER_H

#include "fs/record.h"

#include <stdatomic.h>

#define REGISTER_MEMBERS_MAX 7
#define REGISTER_VOTERS_MAX 7

struct register_member {
    char node[64];
    uint8_t incarnation[16];
};

struct register_voter {
    char name[64];  /* of the node, or "witness" */
    uint8_t id[16]; /* drawn when its state was made: one that has lost its disk is another voter */
};

struct register_value {
    uint64_t version; /* 0: nothing chosen yet; grows by 1 */
    epoch_t epoch;
    char primary[64]; /* node name; empty: nobody */
    unsigned member_count;
    struct register_member members[REGISTER_MEMBERS_MAX]; /* the in-sync set */
    uint64_t start_lsn; /* at the epoch's start: last LSN before it, and its chain */
    uint8_t start_chain[CHAIN_SIZE];
    unsigned voter_count; /* of the engine with voters; the file engine has none */
    struct register_voter voters[REGISTER_VOTERS_MAX];
};

/* ---- What an engine is, and tells ---- */

/* Shared with the supervisor (membership/supervisor.h), which reads it when this process is stopped, stuck or dead. The
 * engine writes it. An operation may be answered while clock_boot() < until: no clock of anybody else is part of that. */
struct lease_shared {
    _Atomic int64_t until;    /* CLOCK_BOOTTIME; INT64_MIN: not held; INT64_MAX: an engine without a lease */
    _Atomic uint64_t epoch;   /* (epoch_t) of the lease that is asked for or held; 0: none */
    _Atomic uint64_t session; /* of it (voter.h) */
};

/* What an engine says to its node, in threads of its own: be quick, take no lock that is held while the engine is called,
 * call nothing of it. Any of them may be NULL. */
struct register_watch {
    void *context;
    /* Asked before each renewal: false, and the lease is not renewed (the store has made no progress for the lease time). */
    bool (*fit)(void *context);
    /* A value that is newer than all before is chosen. */
    void (*news)(void *context, const struct register_value *value);
    /* A holder has given its lease back, or the voter of this node has seen one run out: a challenger may look now. */
    void (*freed)(void *context);
    /* This node's lease of that epoch has ended, unasked (it is not called after give_up); or it was taken, and a majority has
     * not granted it in twice its time and two seconds. */
    void (*lost)(void *context, epoch_t epoch);
};

struct lease_view { /* for status; what was last heard, nothing is asked (look() does) */
    bool asked;              /* take() was called, and nothing has ended it */
    bool held;
    int64_t left;            /* ns; 0: not held */
    unsigned count, needed;  /* voters (etcd: endpoints), and how many of them are a majority */
    struct {
        char name[64];
        bool listed;         /* in the register's list, with this id */
        bool answers;        /* within the last three renewals or looks */
        bool grants;         /* its grant to this node lasts */
        bool holds;          /* its grant to another node lasts, as it said when it was last asked */
        bool behind;         /* it refuses this node's lease, as it has not accepted the value that the lease is of */
        int64_t heard;       /* CLOCK_BOOTTIME; INT64_MIN: never */
        char why[128];       /* why it does not answer or grant; empty: nothing to say */
    } voters[REGISTER_VOTERS_MAX];
};

enum voters_edit { VOTERS_ADD = 1, VOTERS_REMOVE, VOTERS_REPLACE };

struct reg;

/* The lease of an engine that has one. Threads: any; give_up and view never wait. */
struct lease_engine {
    /* `value` is chosen and names this node in an epoch in which it has not held the lease yet: from now on it is asked for,
     * and renewed. Held is it when lease_shared.until says so. -EALREADY: it was taken in this epoch before. */
    int (*take)(struct reg *reg, const struct register_value *value);
    /* This node answers nothing any more: `until` falls at once, and voters are told, so that others need not wait. */
    void (*give_up)(struct reg *reg);
    /* Would a challenger be let in? 0: a majority says that nobody holds the lease; -EBUSY: `holder` does (may be empty), or
     * voters are silent after a start, for `wait` ns more at most; -ENOTCONN: no majority answers. Waits for answers, a moment. */
    int (*free)(struct reg *reg, char holder[64], int64_t *wait);
    void (*view)(struct reg *reg, struct lease_view *view);
    /* Asks every voter, and waits for their answers, up to `patience` ns: what view() says then is of now. Who does not hold the
     * lease asks nobody otherwise. NULL: the engine hears of changes anyway. */
    void (*look)(struct reg *reg, int64_t patience);
    /* The primary changes the list of voters, one at a time. REPLACE and REMOVE name a listed one; ADD and REPLACE let in the
     * voter that answers under that name now. Keeps its number odd unless `even`. 0, or a negative errno with a sentence; -ESTALE: another value
     * was chosen, it stands in `expected`. NULL: the engine has no voters of its own. */
    int (*edit)(struct reg *reg, struct register_value *expected, enum voters_edit edit, const char *name, bool even,
                char *why, size_t why_room);
    /* The holder has the present value, `expected`, accepted once more, with a new ballot: voters that were away when it was
     * chosen accept it then, and grant its lease. Waits for a majority. 0 or a negative errno, as of change(). NULL: not needed. */
    int (*refresh)(struct reg *reg, const struct register_value *expected);
};

struct register_engine {
    const char *name; /* file, voters, etcd */
    const struct lease_engine *lease; /* NULL: who is primary is a person's decision */
    /* Reads the newest value that this node can see. 0 or a negative errno; of voters: -ENOTCONN if no majority answers (the
     * value is the newest that is known here). Version 0: the volume has none yet. */
    int (*read)(struct reg *reg, struct register_value *value);
    /* Proposes `next` in place of `expected` (by version). 0: chosen and durable; -ESTALE: another one was chosen,
     * `*expected` is updated; -EINVAL: no such value can be, and none was proposed; other errors: the outcome is unknown.
     * -EINPROGRESS: `next` may become the value at any time, also when a read still shows `expected`. */
    int (*change)(struct reg *reg, struct register_value *expected, const struct register_value *next);
    /* Somebody says that `value` is chosen, and it is newer than what is known here. NULL: it is written down by change(). */
    void (*learn)(struct reg *reg, const struct register_value *value);
    void (*close)(struct reg *reg);
};
struct reg {
    const struct register_engine *engine;
};

/* With an engine that has a lease: a change() by this node that names another primary, and one that finds another one's value
 * half done, end this node's lease before anything is sent that could make it so (trap 23); for ever in its epoch. The
 * first value of all (version 1 for version 0) is chosen at most once, whoever proposes it; of voters, it needs each of them
 * (-ENOTCONN: not all answer; -ESTALE: there is a value). The engine fills in its voters; other values keep those of `expected`. */

/* change(), and a look when the outcome is unknown. 0: `next` is chosen; -ESTALE: another one is, and stands in `expected`;
 * -EINPROGRESS: unknown still, `next` may become the value at any time; other errors: `expected` is the value still. */
int register_settle(struct reg *reg, struct register_value *expected, const struct register_value *next);

/* Values are ordered by (epoch, version): a forced promotion on one side starts a higher epoch, and every node that hears
 * of it takes that value over. <0, 0, >0. */
int register_compare(const struct register_value *a, const struct register_value *b);

/* The file engine. An absent file reads as version 0; a damaged one is an error with a sentence. change() wants `next`
 * to be above `expected`. */
int register_file_open(const char *path, struct reg **reg, char *why, size_t why_room);
/* What `baton format` writes beside a new store (an older register there goes): version 1, epoch 0. `primary` is to start
 * as primary; NULL: nobody, the node waits until it hears of one. */
int register_file_first(const char *path, const char *primary, char *why, size_t why_room);
/* STORE.register */
void register_file_path(const char *store_path, char *path, size_t room);

/* The engines with a lease (config_register says which). They are open from before the volume's store is used until after it
 * is closed, also while another store takes its place. `shared` and what `config` points to outlive them. */
struct config;
struct node_config;
/* The voters' (membership/voters.h): this node's own voter runs in this process, and its state lies in STORE.voter. */
int register_voters_open(const struct config *config, const struct node_config *self, const char *secret,
                         const struct register_watch *watch, struct lease_shared *shared, struct reg **reg, char *why,
                         size_t why_room);
/* etcd's (membership/register_etcd.h). */
int register_etcd_open(const struct config *config, const struct node_config *self, const struct register_watch *watch,
                       struct lease_shared *shared, struct reg **reg, char *why, size_t why_room);
/* For the supervisor, when the process that held the lease is dead: gives it back. Waits for answers of a majority, up to
 * `patience` ns. 0 or a negative errno. */
int register_voters_release(const struct config *config, const struct node_config *self, const char *secret, epoch_t epoch,
                            uint64_t session, int64_t patience);
int register_etcd_release(const struct config *config, const struct node_config *self, epoch_t epoch, uint64_t session,
                          int64_t patience);

/* The value's number of the voter with that name and id, or -1. */
int register_voter_of(const struct register_value *value, const char *name, const uint8_t id[16]);

/* A value as bytes, for voters' disks and frames. Returns the length; at most REGISTER_BYTES. */
#define REGISTER_BYTES 2048u
size_t register_encode(const struct register_value *value, uint8_t bytes[REGISTER_BYTES]);
/* 0, or -EBADMSG: not all of it is a value within its limits (counts, names, epochs, no name twice). */
int register_decode(const void *bytes, size_t length, struct register_value *value);

/* No member's name, voter's name or voter's id stands in it twice: who reads a value from elsewhere looks. */
bool register_no_name_twice(const struct register_value *value);

bool register_is_member(const struct register_value *value, const char *node, const uint8_t incarnation[16]);

#endif
