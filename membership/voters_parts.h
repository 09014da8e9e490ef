/* The inside of the engine of voters.h. Not for other parts of Baton.
 *
 *   voters.c         opening and closing, reading, learning, who is told what
 *   voters_talk.c    the thread with the sockets: rounds of questions and their answers, renewals
 *   voters_change.c  proposing a value
 *   voters_lease.c   this node's lease: taken, renewed, lost, given up
 *   voters_list.c    the list of voters: at birth, and how it is changed
 *
 * `lock` guards everything below it in struct voters. It is held for microseconds, nothing is waited for under it but by
 * voters_wait(), and nothing of the watch is called.
 */
#ifndef BATON_MEMBERSHIP_VOTERS_PARTS_H
#define BATON_MEMBERSHIP_VOTERS_PARTS_H

#include "membership/ask.h"
#include "membership/change.h"
#include "membership/lease.h"
#include "membership/voter_host.h"
#include "membership/voters.h"

#include <pthread.h>

#define MS INT64_C(1000000)
#define SEATS_MAX (CONFIG_NODES_MAX + 1u)
#define OWN_QUESTIONS 16u /* at once, to this process's own voter */
#define RENEWALS 32u /* of which answers still count: at least eight quarters of the lease time */

/* Where a voter may sit: a node of the config, or its witness. Number i is a bit in sets of seats. */
#define SEAT_SILENT 3u
struct seat {
    char name[64];
    const struct node_config *at;
    void *socket;          /* the talker's; NULL: not dialled */
    bool missed;           /* the talker's: something could not be sent, the connection is not there yet */
    int64_t silent_since;  /* when it was asked first of what it has not answered anything of; INT64_MAX: it has answered */
    int64_t dialled;
    unsigned redials;      /* since it has answered */
    unsigned unanswered;   /* rounds and renewals since it has answered; SEAT_SILENT: it counts as one that does not answer */
    int64_t heard;         /* INT64_MIN: never */
    enum ask_status status;
    enum voter_verdict verdict; /* what it answered last: ANSWERED */
    uint8_t id[16];
    char holder[64];
    int64_t free_at;       /* HELD, QUIET: until then at most */
    char why[128];
};

/* One question to some seats, and again to those that have not answered it. In the caller's memory, which stays until
 * round_end(). */
struct round {
    struct round *next;
    struct ask_question question;
    unsigned to, answered; /* sets of seats */
    unsigned fresh;        /* those that it has not been sent to once */
    int64_t due, pause;    /* when it is sent again, and how long after that */
    int64_t until;         /* INT64_MAX: whoever began it ends it */
    /* Under the lock, by the talker; once for each seat. NULL: what all answers are looked at for is enough. */
    void (*answer)(struct round *round, unsigned seat, const struct ask_answer *answer);
};

struct look { /* a query, and what each seat answered */
    struct round round;
    unsigned have;
    struct voter_answer answers[SEATS_MAX];
};

struct notice { /* a value that is told to voters until a majority of its list has noted it */
    struct round round;
    struct register_value value;
    unsigned noted; /* set of seats */
};

struct holding { /* this node's lease; see voters_lease.c */
    bool asked;           /* taken, and nothing has ended it */
    int64_t taken;        /* when */
    bool held;            /* a majority has granted it once: what was published may run out */
    struct lease lease;
    epoch_t barred;       /* epochs up to this one have had their lease, or may have none */
    bool unfit;           /* it was not renewed because of the watch */
    struct { uint64_t number; int64_t sent; } renewals[RENEWALS];
    unsigned renewal_next;
    int64_t next_renewal;
    int64_t pause; /* until the one after, as long as it is not held */
};

struct voters {
    struct reg reg;
    const struct config *config;
    const struct node_config *self;
    char secret[KEY_TEXT];
    struct register_watch watch;
    struct lease_shared *shared;
    int64_t duration; /* of a lease */
    unsigned seat_count;
    struct voter_host *host; /* of this node's own voter, in this process; NULL: it is asked like others */
    struct register_watch own_watch;
    int own;       /* its seat; -1 */
    struct ask_question own_questions[OWN_QUESTIONS]; /* the talker's: asked when it has given the lock back */
    unsigned own_count;
    void *context; /* ZeroMQ's */
    int wake;      /* eventfd: the talker has something to do */
    pthread_t talker, teller;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* an answer came, or something ended */
    pthread_cond_t tells;   /* the watch is to be told something, or the engine has ended */
    struct seat seats[SEATS_MAX];
    struct register_value known; /* the newest that is known to be chosen */
    struct ballot seen;          /* the highest that anybody has answered with, or this node has used */
    uint64_t number;             /* of the next question */
    struct round *rounds;
    struct round release, glance; /* in the background: a lease that is given back; a look for what is new */
    int64_t glance_again;         /* at those that do not answer */
    struct notice notice;
    struct holding holding;
    bool proposing, editing;
    unsigned inside;      /* calls that wait */
    bool stopping;        /* they end */
    bool ended;           /* the threads do */
    bool tell_news, tell_lost, tell_freed;
    epoch_t lost;
};

/* ---- voters.c ---- */

void voters_lock(struct voters *v);
void voters_unlock(struct voters *v);
/* Under the lock, which it gives away meanwhile: until `changed`, or `deadline`. False: that is over, or the engine stops. */
bool voters_wait(struct voters *v, int64_t deadline);
/* Calls that wait stand between these; the lock is taken by the one and given back by the other. */
void voters_enter(struct voters *v);
void voters_leave(struct voters *v);

/* Lock held. The value is chosen; `tell`: the watch may not know it yet. */
void voters_note(struct voters *v, const struct register_value *value, bool tell);
void voters_tell_lost(struct voters *v, epoch_t epoch);

/* ---- voters_talk.c ---- */

void asker_start(struct voters *v);
void asker_stop(struct voters *v); /* waits for it; without the lock */
void asker_kick(struct voters *v);

/* Lock held. The seat of that name, -1: the config has none. */
int seat_named(const struct voters *v, const char *name);
unsigned seats_of(const struct voters *v, const struct register_voter *voters, unsigned count);
/* Lock held. `type` and its fields are set in round->question; the rest is filled in. */
void round_begin(struct voters *v, struct round *round, unsigned to);
void round_more(struct voters *v, struct round *round, unsigned to); /* to these as well */
void round_end(struct voters *v, struct round *round);               /* also one that was not begun, or has ended */

/* An answer of that seat, decoded. Any thread, without the lock. */
void asker_answer(struct voters *v, unsigned seat, const struct ask_answer *answer);

/* A socket to that voter of the config, set up like all others. NULL with a line in the log. */
void *voters_dial(const struct config *config, const struct node_config *self, const char *secret, void *context,
                  const struct node_config *to);

/* ---- voters_change.c ---- */

/* As register_engine's change(); `lists`: next has its own list of voters, and -EAGAIN: that was never guarded (lease.h). No
 * lock held. */
int voters_propose(struct voters *v, struct register_value *expected, const struct register_value *next, bool lists);
int64_t voters_patience(const struct voters *v); /* of a change, ns */

/* ---- voters_lease.c ---- lock held, but where it says otherwise */

void holding_init(struct voters *v);
/* Before an accept of that value is sent. `foreign`: it is not what the caller wanted. False: its list is not guarded (yet), so
 * it must not be sent (lease.h). */
bool holding_before_accept(struct voters *v, const struct register_value *value, bool foreign);
/* `known` has changed. */
void holding_follow(struct voters *v);
/* That renewal is sent now, and what voters are asked for by it. */
void holding_renewal(struct voters *v, uint64_t number, int64_t now);
/* A renewal is sent now: how long until the next one. Of a lease that nobody grants it doubles. */
int64_t holding_pause(struct voters *v);
unsigned holding_seats(const struct voters *v);
void holding_granted(struct voters *v, const char *voter, const uint8_t id[16], uint64_t number, int64_t now);
/* Ends it if it has run out. */
void holding_look(struct voters *v, int64_t now);
/* Ends it, and begins to tell the voters. */
void holding_give_up(struct voters *v);
/* Whether the list that is known to be chosen grants all that was published, so that the next list may be proposed. */
bool holding_backed(const struct voters *v, int64_t now);
/* Of the engine: no lock held. */
int voters_take(struct reg *reg, const struct register_value *value);
void voters_give_up(struct reg *reg);
int voters_free(struct reg *reg, char holder[64], int64_t *wait);
void voters_view(struct reg *reg, struct lease_view *view);

/* ---- voters_list.c ---- */

/* A value of version 0 with the voters there are to be, when each of them has said its id; no lock held. 0; -ESTALE: there is
 * a value, in `value`; -ENOTCONN: not all answer. */
int voters_birth(struct voters *v, struct register_value *value, int64_t deadline);
/* Lock held. Their names, and the ids of those that have answered. */
void list_at_birth(const struct voters *v, const struct look *look, struct register_value *value);
void voters_look(struct reg *reg, int64_t patience);
int voters_refresh(struct reg *reg, const struct register_value *expected);
int voters_edit(struct reg *reg, struct register_value *expected, enum voters_edit edit, const char *name, bool even,
                char *why, size_t why_room);

/* ---- voters.c, of looks ---- */

/* Lock held. Begun to these; round_end() ends it. */
void look_begin(struct voters *v, struct look *look, unsigned to);
/* The answer of that voter, by name and id; NULL: none. */
const struct voter_answer *look_of(const struct voters *v, const struct look *look, const struct register_voter *voter);
/* Whom to ask as long as nothing is known: everybody in the config. */
unsigned look_everybody(const struct voters *v);
/* Asks those for what is new, and waits for nothing: whatever is asked, an answer tells it. */
void voters_glance(struct voters *v, unsigned to);
int voters_read(struct reg *reg, struct register_value *value);

#endif
