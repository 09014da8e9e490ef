/* Scrub: reads all data of a store's map against its checksums, past the page cache, so much a second, and has what is bad
 * mended (fs/mend.h). Blocks that only history still names are not read.
 *
 * A thread of its own, of low priority, in the order of the map; it holds no lock while it reads. How far it is is noted
 * every few seconds in the store: a pass that was interrupted by the end of the process goes on at the next start.
 */
#ifndef BATON_FS_SCRUB_H
#define BATON_FS_SCRUB_H

#include "fs/mend.h"

struct scrub;

#define SCRUB_FILES 16u
struct scrub_file { /* with a block that stays bad */
    uint64_t ino;   /* 0: not known */
    uint64_t data, block;
} __attribute__((packed));

struct scrub_pass {
    int64_t begun, ended; /* clock_now(); 0: never, not yet */
    int64_t spent;        /* ns at work; not while no batond ran */
    uint64_t blocks;      /* read */
    uint64_t of;          /* in the map when it began */
    uint64_t found, mended, unmended;
    uint64_t rate;        /* bytes a second at most */
    uint32_t resumed;     /* how often it went on after an interruption */
    uint8_t stopped;      /* by a person */
    uint32_t file_count;  /* in `files`: the first ones */
    struct scrub_file files[SCRUB_FILES];
} __attribute__((packed));

struct scrub_state { /* a local value of the store */
    uint8_t running;
    uint64_t data, block; /* the present pass goes on here */
    struct scrub_pass now, last; /* now: of the one that is running; last: that ended */
} __attribute__((packed));

struct scrub_options {
    uint64_t rate;  /* bytes a second, where nothing else is said */
    uint64_t every; /* seconds from one begin to the next; 0: only when asked */
};

/* Starts the thread; a pass that was interrupted goes on. 0 or a negative errno. */
int scrub_open(struct store *store, const struct scrub_options *options, struct scrub **scrub);
/* Notes how far it is, ends the thread. Before the replicator and the store go. NULL is none. */
void scrub_close(struct scrub *scrub);

/* Begins a pass, `rate` 0: as configured. -EALREADY: one is running; its rate is the new one, if one was given. */
int scrub_start(struct scrub *scrub, uint64_t rate);
/* Ends the one that is running. -ENOENT: there is none. */
int scrub_stop(struct scrub *scrub);
void scrub_get(struct scrub *scrub, struct scrub_state *state);

/* The control command "scrub" (fs/control_scrub.c): {"action": "start" | "stop" | "status", "rate": bytes}. Before control_start. */
void control_scrub(void);

#endif
