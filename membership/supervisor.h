/* The supervisor: batond's parent, which starts the process that serves (its child), gives the lease back when that has died,
 * and starts it again. Here is what it decides, and what both share; fs/launch.c does it.
 *
 * A child that has served is started again however it dies, but for its orderly end (status 0: told to stop, or unmounted):
 * after 0.1 s, 0.5 s, 1 s, 2 s, … 30 s, from the beginning once it has served for a minute. One that ends with an error
 * before the first time that it serves has told what is wrong: the parent ends with its status. One that keeps being
 * killed before it ever served is given up after some tries.
 *
 * A child that holds the lease renews it, or notices that it has run out; lease_shared.until says which. One that does
 * neither for a while after the deadline is stopped (SIGSTOP) or stuck, and is killed, unless somebody debugs it.
 *
 * Pure: the caller gives the time (CLOCK_BOOTTIME, ns). One thread.
 */
#ifndef BATON_MEMBERSHIP_SUPERVISOR_H
#define BATON_MEMBERSHIP_SUPERVISOR_H

#include "exporters/exports.h"
#include "membership/register.h"

#define SUPERVISOR_STOP_PATIENCE (INT64_C(60) * 1000000000) /* from SIGTERM to SIGKILL */
#define SUPERVISOR_LOOK (INT64_C(1) * 1000000000) /* how often the parent looks whether a lease is held now */
#define SUPERVISOR_TRIES 5u                       /* of a child that is killed before any has ever served */

#define SUPERVISION_DESCRIPTORS 65u

/* What parent and child share; the child writes, but for what is said to be the parent's. It is there after its death. */
struct supervision {
    struct lease_shared lease; /* at each start not held, or INT64_MAX if the engine has none; then the engine's */
    _Atomic uint64_t lsn;      /* of the newest record in the store, and its epoch */
    _Atomic uint64_t epoch;
    atomic_bool serving;       /* it has been ready */
    char mount[1024];          /* where it has mounted, and as which device; complete before `serving` */
    char device[24];
    int descriptors[SUPERVISION_DESCRIPTORS]; /* the child's, of that mount (front_descriptors) */
    unsigned descriptor_count;
    _Atomic uint32_t restarts; /* the parent's: how often a child has been started anew */
    _Atomic int32_t parent;    /* the parent's process; 0: none */
    struct exports_shared exports;
};

enum supervisor_state {
    SUPERVISOR_STARTING, /* a child runs, and is not ready yet */
    SUPERVISOR_SERVING,  /* … and is */
    SUPERVISOR_WAITING,  /* it has died: until the next start */
    SUPERVISOR_STOPPING, /* it has been told to stop */
    SUPERVISOR_ENDED     /* there is none, and there will be none */
};

enum supervisor_act { SUPERVISOR_NOTHING, SUPERVISOR_START, SUPERVISOR_TERMINATE, SUPERVISOR_KILL };

struct supervisor {
    enum supervisor_state state;
    int64_t patience;      /* after the lease's deadline; 0: its engine has no lease */
    bool has_served;       /* some child */
    unsigned failures;     /* one after the other */
    int64_t began;         /* the child's start, or when it got ready */
    int64_t restart_at;    /* WAITING */
    int64_t kill_at;       /* STOPPING */
    int64_t overdue;       /* the deadline that has passed; INT64_MIN: none */
    int64_t overdue_since; /* when this was seen: a machine that sleeps stops the parent, too */
    bool killed;           /* the child was killed by its parent, for whatever reason */
    int exit_status;       /* ENDED: the parent's own */
};

const char *supervisor_state_name(enum supervisor_state state);
void supervisor_begin(struct supervisor *supervisor, int64_t patience);
/* A child has been started. */
void supervisor_started(struct supervisor *supervisor, int64_t now);
void supervisor_ready(struct supervisor *supervisor, int64_t now);
/* It has ended, with that wait status. */
void supervisor_died(struct supervisor *supervisor, int wait_status, int64_t now);
/* Somebody wants the end. TERMINATE: send it to the child. */
enum supervisor_act supervisor_stop(struct supervisor *supervisor, int64_t now);
/* What is due now. `until`: lease_shared.until. `traced`: a debugger has the child. KILL is said once. */
enum supervisor_act supervisor_tick(struct supervisor *supervisor, int64_t now, int64_t until, bool traced);
/* When to ask next at the latest; INT64_MAX: not before something happens. */
int64_t supervisor_next(const struct supervisor *supervisor, int64_t now, int64_t until);

#endif
