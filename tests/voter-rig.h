/* Voters for tests of those that ask them: each a thread with a ROUTER socket around voter.h, in the clear, on an address of
 * 127/8 that is this test program's alone, with state that lies in memory as if it were a disk. They can be ended and started
 * again, lose that disk, stand still, and have lines that lose, delay and repeat.
 *
 * The rig lies in memory that is shared with children: make it before they are forked. Voters run in the process that starts
 * them.
 */
#ifndef BATON_TESTS_VOTER_RIG_H
#define BATON_TESTS_VOTER_RIG_H

#include "fs/config.h"
#include "membership/ask.h"
#include "tests/register-contract.h"

#include <pthread.h>
#include <stdatomic.h>

#define RIG_VOTERS 6u /* nodes a to e, and the witness, which is the last one */
#define RIG_WITNESS (RIG_VOTERS - 1)

struct rig_voter {
    const char *name;
    const struct node_config *at;
    pthread_t thread;
    bool up;
    atomic_bool ends;
    pthread_mutex_t lock; /* guards: */
    struct voter voter;
    struct voter_state disk;
    bool still;          /* nothing is taken in, as with SIGSTOP */
    bool deaf;           /* all that comes is lost */
    unsigned loss;       /* percent of questions, and of answers */
    unsigned delay_ms;   /* of answers: up to */
    unsigned twice;      /* percent of answers that come once more */
    uint64_t random;
    unsigned asked[8];   /* questions by their type */
    unsigned lose_answers_of, deaf_to; /* bits of types */
    unsigned strangers;  /* percent of answers before which wrong ones come */
    char deaf_from[64];  /* whatever this node asks is lost */
    /* Called before a question is decided, in the voter's thread. */
    void (*before)(void *context, const struct ask_question *question);
    void *before_context;
};

struct rig {
    struct config config;
    struct rig_voter voters[RIG_VOTERS];
};

/* `nodes` of the config are nodes a, b, …; at least two. More may be counted in later: all have addresses. */
struct rig *rig_new(unsigned nodes, uint32_t lease_ms);
/* How its nodes open their engines (voters_open_apart). */
struct contract rig_contract(struct rig *rig);
/* Another volume, with new voters; all of them run. Ends those that do. */
void rig_fresh(struct rig *rig);
void rig_start(struct rig *rig, unsigned voter);
void rig_end(struct rig *rig, unsigned voter);
/* Ended, its disk lost, and started again. */
void rig_lose_disk(struct rig *rig, unsigned voter);
void rig_end_all(struct rig *rig);
/* Of all of them. */
void rig_line(struct rig *rig, unsigned loss, unsigned delay_ms, unsigned twice);
void rig_set(struct rig *rig, unsigned voter, bool *flag, bool value);
void rig_types(struct rig *rig, unsigned voter, unsigned deaf_to, unsigned lose_answers_of);
void rig_cut(struct rig *rig, unsigned voter, const char *node); /* from what that node asks; "": no more */
void rig_before(struct rig *rig, unsigned voter, void (*before)(void *, const struct ask_question *), void *context);
/* What is on its disk now. */
struct voter_state rig_state(struct rig *rig, unsigned voter);
unsigned rig_asked(struct rig *rig, unsigned voter, unsigned type);

#endif
