/* Catching up: how fast a peer that is behind takes what it lacks, how fast new work makes more, when it will be there;
 * and, where it would never be, how much new work may make a second, so that it will.
 *
 * Control law. Flow control by quota, as in MySQL Group Replication (Flow_control_module::flow_control_step in
 * plugin/group_replication/src/pipeline_stats.cc; WL#9838): the quota of new work is the measured capacity of the slowest
 * member, less a share that is held for its backlog (…_flow_control_hold_percent), and never below a minimum
 * (…_min_quota). So a backlog of B bytes at a peer that takes A bytes a second is gone after B / (share · A), whatever is
 * being done meanwhile, as long as the floor is below (1 - share) · A. That a joiner may slow all others but not stop them
 * is Galera's gcs.max_throttle (gcs/src/gcs_fc.cpp), there 0.25. Unlike both, nothing is slowed before a whole window has
 * shown that the backlog does not shrink by itself: most do. As with DRBD's c-plan-ahead (drbd_rs_controller), the window is
 * longer than the way of a decision through both nodes, so that a decision is judged by its own effect.
 *
 * Pure: time comes in as clock_boot() nanoseconds, `made` and `taken` as counters of bytes that only grow. The caller locks.
 */
#ifndef BATON_REPLICATION_CATCHUP_H
#define BATON_REPLICATION_CATCHUP_H

#include "fs/base.h"

#define CATCHUP_STEP INT64_C(250000000) /* ns between two looks */
#define CATCHUP_STEPS 20u               /* of a window: 5 s */
#define CATCHUP_NEVER UINT64_MAX

struct catchup_rule {
    unsigned share; /* percent of what the peer takes that new work leaves it for its backlog; 0: nothing is slowed */
    uint64_t floor; /* bytes a second that new work may make in any case */
};

struct catchup {
    bool active;       /* begun, and not yet ended */
    uint64_t end;      /* the newest record when it began… */
    uint64_t average;  /* …bytes of a record up to there, about: only the journal knows… */
    uint64_t made;     /* …and the counter then */
    uint64_t beyond;   /* bytes of records after `end` that have been sent */
    struct catchup_mark {
        int64_t time;
        uint64_t taken, made;
    } marks[CATCHUP_STEPS + 1]; /* a ring */
    unsigned first, count;
    uint64_t taken_rate, made_rate; /* bytes a second, over the marks */
    bool losing; /* new work has to be slowed for it */
};

/* A session begins in which the records up to `end` are lacking, of `average` bytes each. */
void catchup_begin(struct catchup *catchup, uint64_t end, uint64_t average, uint64_t made);
/* It is there, or its session is over. */
void catchup_end(struct catchup *catchup);
/* A frame with records `first` … `last` has gone. */
void catchup_sent(struct catchup *catchup, uint64_t first, uint64_t last, uint64_t bytes);
/* To be called often; does something every CATCHUP_STEP. `taken`: bytes that it has acknowledged in this session. `stalled`: it
 * has acknowledged nothing for too long: nothing is slowed for it before it has gone on for a whole window. `held`: answers
 * are being delayed, so that little is made shows nothing: whoever waits pays for what came before, up to PACE_LONGEST. */
void catchup_look(struct catchup *catchup, const struct catchup_rule *rule, uint64_t taken, uint64_t made, bool stalled,
                  bool held, int64_t now);
/* Bytes a second that new work may make for its sake; CATCHUP_NEVER: as many as it likes. */
uint64_t catchup_limit(const struct catchup *catchup, const struct catchup_rule *rule);
/* Everything has been sent: what the counts of frames with old and new records are wrong by is put right. */
void catchup_sent_all(struct catchup *catchup, uint64_t made);
/* Bytes of the records from `next` on, about. */
uint64_t catchup_unsent(const struct catchup *catchup, uint64_t next, uint64_t made);
/* Seconds until `bytes` are gone, at the present rates; CATCHUP_NEVER: they do not get fewer, or that is not known yet. */
uint64_t catchup_seconds(const struct catchup *catchup, uint64_t bytes);
/* It would take `bytes` within `ns` if no more came, or nobody has to wait long for so few: they are not above `few`. */
bool catchup_is_near(const struct catchup *catchup, uint64_t bytes, uint64_t few, int64_t ns);

/* ---- Pacing: who makes a record gets the answer later (the generic cell rate algorithm, ITU-T I.371) ---------------- */

#define PACE_BURST INT64_C(20000000)     /* ns of work that pass at once; longer than answers are late by */
#define PACE_LONGEST INT64_C(5000000000) /* ns: no answer waits longer, whatever was made: it is not to look like a hang */

struct pace {
    uint64_t rate; /* bytes a second; 0: nothing waits */
    uint64_t paid; /* the counter up to which somebody has waited */
    int64_t free;  /* when everything up to there is paid for */
};

/* rate 0: off. */
void pace_set(struct pace *pace, uint64_t rate, uint64_t made, int64_t now);
/* When the answer to whoever made the newest of these bytes may go; 0: now. Never less than at the call before. */
int64_t pace_due(struct pace *pace, uint64_t made, int64_t now);
/* The next one would wait. */
bool pace_holds(const struct pace *pace, int64_t now);

#endif
