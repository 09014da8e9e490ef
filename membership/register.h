/* The register of a volume: who is primary, in which epoch, and which stores are in sync. One small value that changes
 * only by compare-and-set; every engine (file, CASPaxos, etcd) stands behind this interface.
 *
 * The file engine keeps it on this node, in a file of its own outside the store (STORE.register), fully synced, and
 * leaves it to a person to decide who is primary.
 */
#ifndef BATON_MEMBERSHIP_REGISTER_H
#define BATON_MEMBERSHIP_REGISTER_H

#include "fs/record.h"

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

struct reg;
struct register_engine {
    const char *name;
    /* Reads the newest value that this node can see. 0 or a negative errno. */
    int (*read)(struct reg *reg, struct register_value *value);
    /* Proposes `next` in place of `expected` (by version). 0: chosen and durable; -ESTALE: another one was chosen,
     * `*expected` is updated; other errors: the outcome is unknown. */
    int (*change)(struct reg *reg, struct register_value *expected, const struct register_value *next);
    void (*close)(struct reg *reg);
};
struct reg {
    const struct register_engine *engine;
};

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

/* The value's number of the voter with that name and id, or -1. */
int register_voter_of(const struct register_value *value, const char *name, const uint8_t id[16]);

/* A value as bytes, for voters' disks and frames. Returns the length; at most REGISTER_BYTES. */
#define REGISTER_BYTES 2048u
size_t register_encode(const struct register_value *value, uint8_t bytes[REGISTER_BYTES]);
/* 0, or -EBADMSG: not all of it is a value within its limits (counts, names, epochs, no name twice). */
int register_decode(const void *bytes, size_t length, struct register_value *value);

bool register_is_member(const struct register_value *value, const char *node, const uint8_t incarnation[16]);

#endif
