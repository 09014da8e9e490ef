/* File locks that programs take through this mount: byte ranges (fcntl, and those of open files), and whole files (flock).
 * Two kinds that know nothing of each other, as in the kernel. They live in this process's memory: only the primary grants
 * any, and they go when it ceases.
 *
 * A lock goes when it is taken back, when its owner closes the file (ranges: locks_flushed), when the open file through which
 * it was taken is closed for the last time (locks_released), or all at once.
 *
 * Any thread; one lock inside. Callbacks run without it, in the thread that made way.
 */
#ifndef BATON_FS_LOCKS_H
#define BATON_FS_LOCKS_H

#include "fs/base.h"

#define LOCKS_MAX 65536u   /* held; more are ENOLCK */
#define LOCKS_WAITERS 8192u

struct locks;

enum lock_type { LOCK_TYPE_NONE, LOCK_TYPE_READ, LOCK_TYPE_WRITE };

struct lock_ask {
    uint64_t ino;
    uint64_t owner;  /* as the kernel says: a process's files, or an open file */
    uint64_t handle; /* of the open file */
    uint32_t pid;    /* for F_GETLK */
    bool whole;      /* flock: the range does not matter */
    enum lock_type type; /* NONE: takes back */
    uint64_t first, last;
};

/* Embedded in the waiter's own structure, which it owns again when `done` is called. */
struct lock_waiter {
    struct lock_ask ask;
    uint64_t key;     /* its request's number, for locks_interrupt */
    int64_t until;    /* clock_boot(): then the answer is -EAGAIN; INT64_MAX: it waits */
    void (*done)(struct lock_waiter *waiter, int error);
    struct lock_waiter *next; /* the table's, all that wait in their order */
};

struct locks *locks_create(void);
void locks_free(struct locks *locks); /* nobody waits */
/* 0: granted, or taken back. Else, without a waiter, -EAGAIN: another one has it. With one: -EINPROGRESS, and done() says what
 * became of it. -EDEADLK: whoever has it waits for this owner. -ENOLCK: too many. A whole file's lock that is asked for
 * again as another type is given up first, as flock(2) says. */
int locks_set(struct locks *locks, const struct lock_ask *ask, struct lock_waiter *waiter);
/* A lock that is in the way; false: none is. */
bool locks_find(struct locks *locks, const struct lock_ask *ask, struct lock_ask *found);
void locks_flushed(struct locks *locks, uint64_t ino, uint64_t owner);
void locks_released(struct locks *locks, uint64_t ino, uint64_t handle);
/* The caller of the request with that key is interrupted: its waiter waits no more, done(…, -EINTR). False: none waits yet;
 * should it come in the next moments, locks_set says -EINTR to it. */
bool locks_interrupt(struct locks *locks, uint64_t key);
/* All go; those who wait get the error. */
void locks_drop(struct locks *locks, int error);
/* Those whose time is over are answered. When the next one's is; INT64_MAX: nobody's. */
int64_t locks_pass(struct locks *locks, int64_t now);
void locks_count(struct locks *locks, size_t *held, size_t *waiting);

#endif
