/* Does the journal reach? A node that copies this store whole (provide.c) needs the journal from the copied state on until it
 * is fed. If users make more in that time than the journal may keep for it ([journal] limit), the copy is in vain and begins
 * anew, for ever where they go on. So what it needs is followed, and where it would outgrow the limit before the copy is
 * complete, new work gets a quota: what is left of the limit, spread over the time that the copy still takes.
 *
 * Bounded on both sides: new work never gets less than a floor; and the journal is kept for a copy a quarter beyond the limit
 * (history_keep), for answers that are slowed come after their record. Where that is not enough, the copy loses. Nothing is slowed
 * while the node is away or does not ask.
 *
 * Pure: time comes in as clock_boot() nanoseconds; counters of bytes only grow. The caller locks.
 */
#ifndef BATON_REPLICATION_REACH_H
#define BATON_REPLICATION_REACH_H

#include "fs/base.h"

#define REACH_STEP INT64_C(250000000) /* ns between two looks */
#define REACH_STEPS 8u                /* of a window: 2 s */
#define REACH_SURE 4u                 /* steps after which rates are believed, or… */
#define REACH_EARLY 4u                /* …when this part of the limit is gone */
#define REACH_END_MS 5000u            /* completing the copy, replacing the store, logging in */
#define REACH_UNKNOWN_MS 60000u       /* so long does a copy take whose rate is not known */
#define REACH_MOST_MS 604800000u
#define REACH_NEVER UINT64_MAX

struct reach_rule {
    uint64_t limit; /* bytes of the journal, as `made` counts them */
    uint64_t floor; /* bytes of records a second that new work may make in any case */
};

struct reach_sight {
    uint64_t left;  /* bytes that the node has still to be given, about */
    uint64_t given; /* that it has been given, */
    uint64_t made;  /* that the journal has got, */
    uint64_t total; /* of the records alone */
    bool away;      /* nothing is slowed for it now */
    bool held;      /* answers are waiting for a quota at the moment: what is made says nothing of what users would make */
};

struct reach {
    bool active, slows;
    uint64_t need, begun; /* what it needed when the counter `made` was at `begun` */
    struct reach_mark {
        int64_t time;
        uint64_t given, made, total;
    } marks[REACH_STEPS + 1]; /* a ring */
    unsigned first, count;
    uint64_t made_rate;
    uint64_t left_ms; /* until it is fed, about */
    uint64_t quota;   /* while it slows: bytes of records a second */
};

/* A state is copied from which on the journal has `need` bytes by now. */
void reach_begin(struct reach *reach, uint64_t need, uint64_t made);
void reach_end(struct reach *reach);
/* Bytes of the journal that it needs now; 0: nothing is copied. */
uint64_t reach_need(const struct reach *reach, uint64_t made);
/* To be called often; does something every REACH_STEP. */
void reach_look(struct reach *reach, const struct reach_rule *rule, const struct reach_sight *sight, int64_t now);
/* Bytes of records a second that new work may make for its sake; REACH_NEVER: as many as it likes. */
uint64_t reach_quota(const struct reach *reach);

#endif
