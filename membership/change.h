/* One change of the register, as its proposer sees it: CASPaxos (Rystsov 2018) with the voters in the value.
 *
 * Prepare at a majority of the voters of a value that is known to be chosen. The value of the highest accepted ballot among
 * the promises is the present one. If that has another list, a majority of that list has to promise, too, and so on: a value
 * needs a majority of the list before it and of its own, so whoever knows an old list meets somebody who knows the next, and
 * comes to the newest step by step. (A list alone that was only met is not enough: its value may not be chosen.) The list of the
 * newest value that is known has to be among them: who has accepted a value knows the one before it, and without a majority of
 * that one's list, others who know it may be choosing another value than the present one. So whoever is told of a value that is
 * newer than what he began with, and has another list, begins anew. Then accept, until a majority of each of these lists and of
 * the next value's have. The first value of all (birth) needs every voter that it names, as none of them can tell whether a
 * majority of the others has had one.
 *
 * A present value that is not what the caller expected is proposed again as it is: it may have been left half done, and
 * becomes the value by this. A holder of the lease whom that value does not name has to stop before: see change_next().
 *
 * Pure: the caller sends, and locks. Answers to other ballots, of those in no list, and second ones do no harm.
 */
#ifndef BATON_MEMBERSHIP_CHANGE_H
#define BATON_MEMBERSHIP_CHANGE_H

#include "membership/voter.h"

#define CHANGE_LISTS 4u

enum change_state {
    CHANGE_PREPARE = 1, /* send a prepare with `ballot` to every voter of `lists` */
    CHANGE_READ,        /* `present` is known: change_next() */
    CHANGE_ACCEPT,      /* send an accept with `ballot` and `next` to every voter of `lists` and of `next` */
    CHANGE_CHOSEN,      /* `next` is the value, durably */
    CHANGE_ANEW,        /* somebody has a higher ballot, or the list of voters is another: change_again(), after a random pause */
    CHANGE_STATE_END
};

struct change_list { /* of voters, and who of them has answered */
    unsigned count;
    struct register_voter voters[REGISTER_VOTERS_MAX];
    bool promised[REGISTER_VOTERS_MAX], accepted[REGISTER_VOTERS_MAX];
};

struct change {
    enum change_state state;
    bool birth;
    struct ballot ballot, seen; /* seen: the highest that anybody has answered with */
    struct register_value known;   /* the newest that is known to be chosen; of version 0: with the voters there are to be */
    struct register_value present; /* what the promises tell */
    struct ballot present_ballot;
    struct register_value next;
    unsigned list_count;
    struct change_list lists[CHANGE_LISTS + 1]; /* the last one, in ACCEPT: of next */
    struct {                  /* who has promised, with what: a list may be found to matter only later */
        struct register_voter voter;
    } promises[REGISTER_VOTERS_MAX * CHANGE_LISTS];
    unsigned promise_count;
    unsigned refused; /* answers that somebody else's lease lasts (`holder`), or may last; for `wait` more */
    char holder[64];
    int64_t wait;
};

/* `known`: the newest value that the proposer knows to be chosen; of version 0 for a birth: then its voters are the ones there
 * are to be, with their ids. The ballot is above `seen` and of this node. */
void change_begin(struct change *change, const struct register_value *known, struct ballot seen, uint16_t node);
/* The same once more, with a ballot above all that were met. */
void change_again(struct change *change);
/* An answer to the prepare (`to_accept` false) or to the accept, from that voter. Returns the state. */
enum change_state change_answer(struct change *change, const char *voter, const struct voter_answer *answer, bool to_accept);
/* In CHANGE_READ: what is proposed. NULL: the present value as it is. Another one may only be put in place of a present value
 * that is known to be chosen: what was left half done is proposed as it is first. The first value, of version 1, has to be chosen before
 * there is a second: as long as `known` has version 0, nothing but that one may be proposed. After this, and before an accept is sent, a holder of
 * the lease whom the value does not name has to stop acknowledging, for ever in its epoch. */
void change_next(struct change *change, const struct register_value *next);
/* Voters to send to: number `i` of all of `lists`, each once; NULL: no more. */
const struct register_voter *change_voter(const struct change *change, unsigned i);

#endif
