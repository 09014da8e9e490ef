/* What every engine of the register that has a lease keeps to (membership/register.h), as cases for a test program: it says how
 * an engine is opened, and runs them all.
 *
 * contract_children() comes first in main(), before there are threads: some cases need a holder that is killed or stopped.
 */
#ifndef BATON_TESTS_REGISTER_CONTRACT_H
#define BATON_TESTS_REGISTER_CONTRACT_H

#include "membership/register.h"
#include "tests/tap.h"

#include <stdio.h>
#include <sys/types.h>

/* Waits by condition; false when it does not come true. */
#define WITHIN(seconds, condition) \
    ({ \
        int64_t within_ = clock_boot() + (seconds) * INT64_C(1000000000); \
        bool came_ = false; \
        while (!(came_ = (condition)) && clock_boot() < within_) \
            usleep(2000); \
        came_; \
    })

struct contract {
    void *context; /* in memory that children share, or the same in them for good */
    const char *(*node)(void *context, unsigned node); /* 0 and 1 at least */
    uint16_t (*number)(void *context, unsigned node);
    /* A volume without a value, whose lease has this length; children see it, too. */
    void (*fresh)(void *context, uint32_t lease_ms);
    int (*open)(void *context, unsigned node, const struct register_watch *watch, struct lease_shared *shared, struct reg **reg);
    int (*release)(void *context, unsigned node, epoch_t epoch, uint64_t session, int64_t patience);
};

struct contract_node { /* an open engine, and what it has told */
    const struct contract *contract;
    unsigned node;
    struct reg *reg;
    const struct register_engine *engine;
    const struct lease_engine *lease;
    struct lease_shared shared;
    atomic_bool unfit;
    atomic_uint news, lost;
    atomic_uint_fast64_t news_version, lost_epoch;
    struct register_value value; /* what it read or had chosen last */
};

void contract_children(const struct contract *contract);
void register_contract(const struct contract *contract);

/* Also for tests of one engine alone. */
void node_open(struct contract_node *n, const struct contract *contract, unsigned node);
void node_close(struct contract_node *n);
bool node_holds(struct contract_node *n);
/* The value after n->value: of this epoch, or, with `to` >= 0, of the next one with that node as primary. `mark` makes it
 * differ from others. */
struct register_value value_after(const struct contract_node *n, int to, uint64_t mark);
/* Nodes 0 and 1 race for the value of a volume that has none, until each has had `races` of its own chosen. */
void contract_two_at_once(const struct contract *contract, unsigned races);
/* Tries until it is this node's in a new epoch, and the lease is held. False, with a failed test: it does not come to that. */
bool node_rises(struct contract_node *n);

struct contract_child { /* in shared memory: a process that rises, and answers as long as it may */
    pid_t pid;
    unsigned node;
    atomic_bool hold;               /* begin */
    atomic_int_fast64_t answered;   /* CLOCK_BOOTTIME of its last answer */
    struct contract_node n;
};
/* It holds when this returns. NULL, with a failed test, when it does not come to that. */
struct contract_child *child_holds(const struct contract *contract, unsigned node);
void child_kill(struct contract_child *child);

#endif
