/* Who becomes primary, where the register's engine has a lease and a majority decides: when this node looks for itself, who
 * goes first, and who may not. Decisions only; who asks voters and nodes, and proposes, is the caller (candidate.c).
 *
 *   ELECT_FOLLOWS   a primary is there, or this node is it
 *   ELECT_SILENT    the primary has said nothing for a while, not yet for the lease time
 *   ELECT_HELD      the voters say that somebody holds the lease still, or may hold it
 *   ELECT_ALONE     no majority of the voters answers
 *   ELECT_BARRED    the lease is free, but this store may not be primary
 *   ELECT_YIELDS    another node is to go first; for a moment
 *   ELECT_RUNS      proposes itself
 *   ELECT_PAUSES    that came to nothing: a random pause, so that two do not chase each other
 *
 * What keeps the volume whole does not rest on any of this: a value is changed from the one that is expected, only members of
 * its set are let in, and voters let nobody in while somebody else's lease lasts.
 *
 * Pure: time comes in as clock_boot() nanoseconds. The caller locks.
 */
#ifndef BATON_REPLICATION_ELECT_H
#define BATON_REPLICATION_ELECT_H

#include "fs/config.h"
#include "membership/register.h"

#define ELECT_WHY 240u
#define ELECT_REASONS 6u

enum elect_state {
    ELECT_FOLLOWS = 0,
    ELECT_SILENT,
    ELECT_HELD,
    ELECT_ALONE,
    ELECT_BARRED,
    ELECT_YIELDS,
    ELECT_RUNS,
    ELECT_PAUSES
};

struct elect {
    enum elect_state state;
    int64_t lease;      /* ns */
    int64_t started;    /* this process */
    int64_t heard;      /* a primary that is not behind, or of a newer value */
    bool freed;         /* a holder has given its lease back, or said goodbye; not looked at yet */
    unsigned hurry;     /* looks that follow soon: voters hear of a lease that is given back one after the other */
    bool vacant;        /* the voters let a challenger in when they were asked last */
    int64_t not_before; /* nothing is asked before… */
    int64_t word_until; /* nor before this, whatever is given back: a new epoch's primary is about to begin */
    int64_t ceased_until; /* …nor before this, whatever happens */
    int64_t yields_until; /* 0: has not yielded since the lease became free */
    char why[ELECT_REASONS][ELECT_WHY]; /* why this node is not primary, since it was judged last */
    unsigned why_count;
};

/* A node, as far as this one knows. */
struct elect_node {
    const char *name;
    bool named;    /* the set has its name… */
    bool member;   /* …and this store of it */
    bool answered; /* the question that has just been asked */
    bool heard;    /* ever, in this process */
    bool stays;    /* a person wants it to stay standby */
    bool broken;   /* its exports did not serve when it was primary */
    bool sick;     /* its store makes no progress */
    bool primary;  /* it says that it is primary */
    epoch_t epoch; /* of its last record */
    uint64_t lsn;
};

struct elect_view {
    unsigned self, count;
    int preferred;          /* node, or -1 */
    int last_primary;       /* whom the register names, or -1 */
    bool fit;               /* the own store makes progress */
    bool reaches_start;     /* it has what the value's epoch began with */
    bool go;                /* after-power-cut = go, and the others had time to come back */
    uint64_t version;       /* of the value; 0: the volume has none yet */
    bool first;             /* version 0: a person has said that this node begins the volume, or it was primary before */
    uint32_t birth;         /* version 0: the nodes that have to answer */
    struct elect_node nodes[CONFIG_NODES_MAX];
};

void elect_start(struct elect *elect, int64_t lease, int64_t now);
/* A primary that is not behind has said something. */
void elect_heard(struct elect *elect, int64_t now);
/* A newer value is known: its primary has time to begin. `own`: that is this node, and the one before is about to say so.
 * `began`: its epoch is new, too. Then a lease that is given back is the one before: nobody stands because of that until its primary
 * has been heard, or has had time to. */
void elect_value(struct elect *elect, bool own, bool began, int64_t now);
/* A holder has given its lease back, or stops. */
void elect_freed(struct elect *elect);
/* This node was primary and is not any more, because of `why`: for a lease time others go first. */
void elect_ceased(struct elect *elect, const char *why, int64_t now);
/* This node is primary. */
void elect_serves(struct elect *elect);

/* Time passes. True: ask the register, the voters and the nodes now. `own`: the newest value names this node, or nobody. */
bool elect_due(struct elect *elect, bool own, int64_t now);
/* How long the nodes' answers are worth waiting for. */
int64_t elect_patience(const struct elect *elect, const struct elect_view *view, int64_t now);
/* What the voters said (lease_engine.free). True: go on, and judge. */
bool elect_voters(struct elect *elect, int error, const char *holder, int64_t wait, int64_t now);
/* True: propose yourself (or, in version 0, the first value). */
bool elect_judge(struct elect *elect, const struct elect_view *view, int64_t now);
/* Those who stay in the set beside this node: bits. */
uint32_t elect_keeps(const struct elect_view *view);
/* The proposal came to nothing. `random`: any number. */
void elect_failed(struct elect *elect, uint64_t random, int64_t now);

const char *elect_state_name(enum elect_state state);

#endif
