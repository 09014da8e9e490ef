/* A volume's nodes in one process, on virtual time, decided by a seed. The code of replication/ is the real one; threads,
 * clock, network, store, register and mount are played here:
 *
 *   fibers.c    threads as fibers, mutexes and conditions, the clock, who runs next
 *   wraps.c     the calls of the program that end here (linked with --wrap)
 *   memory.c    memory that goes with the schedule, and static variables that are as they were before it
 *   network.c   lines and connections
 *   link.c      replication/link.h and the few calls of ZeroMQ that replication/ makes itself
 *   disk.c      what is on a disk: records, and what survives
 *   space.c     segments and their blocks
 *   tables.c    rows: of a state, of a store that is being built
 *   store.c     fs/store.h as far as replication/ uses it
 *   past.c      fs/history.h: a state as it was
 *   built.c     a store that is being built by the real fs/import*.c, and fs/generation.h
 *   registry.c  membership/register.h: one value for all, one on each node, or what voters keep (voting.h)
 *   node.c      a node's life; the mount and its users
 *   checks.c    what must hold, always
 *   schedule.c  what happens, and the end at which everything is well again
 *
 * One schedule runs at a time, in one thread. What belongs to it lies in `world`. Every choice comes from one random
 * sequence: a seed is the whole schedule.
 */
#ifndef BATON_TESTS_SIMULATOR_SIM_H
#define BATON_TESTS_SIMULATOR_SIM_H

#include "fs/volume.h"
#include "membership/register.h"
#include "replication/replicator.h"
#include "tests/simulator/mistakes.h"

#include <limits.h>
#include <stdarg.h>

#define SIM_NODES 3u
#define SIM_NOBODY SIM_NODES /* a fiber that belongs to no node */
#define SIM_WITNESS (SIM_NODES + 1u)
#define SIM_PLACES (SIM_NODES + 2u) /* nodes, nobody and the witness */
#define US ((int64_t)1000)
#define SIM_MS ((int64_t)1000000)
#define SIM_FOREVER INT64_MAX
#define SIM_USER_WAITS 8u /* operations of one user that wait at once, at most */

/* ---- Chance (fibers.c) ---- */
uint64_t sim_random(void);
uint64_t sim_below(uint64_t end);             /* 0 … end - 1 */
bool sim_chance(unsigned one_in);             /* 0: never */
int64_t sim_between(int64_t low, int64_t high); /* small values as often as large ones: uniform in the logarithm; low > 0 */

/* ---- Fibers (fibers.c) ---- */
struct fiber;
struct fiber *sim_spawn(unsigned node, const char *name, void *(*run)(void *), void *argument);
/* Ends all fibers of a node where they are. Does not return if the caller is one. */
void sim_discard(unsigned node);
bool sim_in_fiber(void);
unsigned sim_node_here(void); /* of the running fiber */
int64_t sim_now(void);
void sim_point(void);        /* here another fiber may run */
void sim_sleep(int64_t ns);
/* Until sim_wake, or `until` (false). */
bool sim_block(int64_t until);
void sim_wake(struct fiber *fiber); /* NULL: no-op */
void sim_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until); /* by the time of the schedule */
struct fiber *sim_self(void);
const char *sim_fiber_name(void);
/* Calls run(argument, number) at that time, between fibers. */
void sim_at(int64_t time, void (*run)(void *argument, uint64_t number), void *argument, uint64_t number);
void sim_pause(unsigned place, int64_t until); /* as SIGSTOP does */
void sim_suspend(unsigned place, int64_t until); /* the machine sleeps, and CLOCK_MONOTONIC with it */
void sim_prepare(void); /* once */
/* Runs fibers until the schedule is over. */
void sim_run(void);

/* ---- Clocks (clocks.c) ---- */
void clocks_begin(bool apart); /* else all show the time of the schedule */
void clocks_suspend(unsigned place, int64_t ns);
int64_t clock_of(unsigned place, bool monotonic);             /* else CLOCK_BOOTTIME */
int64_t clock_until(unsigned place, int64_t monotonic);       /* when is it so late there? */

/* ---- Memory (memory.c) ---- */
void sim_memory_begin(void);
void sim_memory_end(void);
void *sim_alloc(size_t size); /* zeroed; goes with the schedule */
void sim_free(void *memory);
bool sim_owns(const void *memory);
size_t sim_size(const void *memory);

/* ---- Outcome and trace (simulator-test.c) ---- */
enum sim_tracing { SIM_SILENT, SIM_LAST_LINES, SIM_ALOUD };
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_trace_list(const char *format, va_list arguments);
/* The schedule fails here. Does not return to a fiber. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void sim_fail_list(const char *format, va_list arguments);
bool sim_tells(void); /* somebody reads the trace */

/* ---- Network (network.c) ---- */
void network_kill(unsigned node);  /* the process is gone: its sockets close */
void network_cut(unsigned from, unsigned to);
void network_mend(unsigned from, unsigned to);
void network_slow(unsigned from, unsigned to, int64_t delay); /* from now on; 0: as it was */
void network_break(void);          /* one connection, any, breaks */
bool network_lose_records(void);   /* one breaks on which records are under way; false: there is none */
int wake_open(void);
bool wake_is(int fd);
void wake_write(int fd);
void wake_read(int fd);
void wake_close(int fd);
bool network_is_cut(unsigned from, unsigned to);
#define SIM_LOCK 3000000 /* the descriptor of a lock: none of this process */

/* ---- Disks (disk.c) ---- */
#define SIM_INODES 16u
#define SIM_FILES 3u
#define SIM_FILE_BLOCKS 16u
#define SIM_SLOTS (SIM_INODES + SIM_FILES * SIM_FILE_BLOCKS)
struct sim_record { /* one for all stores that have it */
    uint64_t lsn;
    struct sim_record *before;
    struct sim_record *begins;   /* the EPOCH record of its epoch */
    struct sim_record *replaced; /* what its slot said before; NULL: nothing */
    unsigned slot;               /* a record sets one inode or one block; EPOCH: SIM_SLOTS */
    uint64_t checksum;           /* of its block */
    bool damaged;                /* a disk has had its block damaged: others may not get it from there */
    epoch_t epoch;
    int64_t time;
    uint8_t previous[CHAIN_SIZE], chain[CHAIN_SIZE];
    uint32_t length, payload_length;
    uint8_t *bytes, *payload;
    bool big;     /* its data is not kept in memory with it */
    bool starts;  /* EPOCH */
    bool acknowledged, durable; /* to a user; as on every disk */
    int64_t made, told; /* when: on its first node, to a user */
    bool excused; /* lost by a forced promotion or, if it was not durable, by power cuts of all that had it */
};
/* What a store says at a record: the one that set each slot. */
struct sim_state {
    struct sim_record *last, *slots[SIM_SLOTS];
};

#define SIM_SEGMENT_BLOCKS 16u
struct sim_block { /* without the zeros at its end */
    uint32_t length;
    uint8_t bytes[];
};
struct sim_file { /* of a segment; several stores of one disk may have it */
    struct sim_block *blocks[SIM_SEGMENT_BLOCKS]; /* NULL: zeros */
    bool synced[SIM_SEGMENT_BLOCKS];
};
struct sim_segment {
    uint32_t number, head;
    uint32_t imported; /* blocks that no record brought */
    bool adopted;
    struct sim_file *file;
};
struct sim_space {
    struct sim_segment *list; /* ascending */
    uint32_t count, room;
    uint32_t current; /* number of the one that is being filled */
};

struct sim_row { /* never changed once made */
    uint8_t table, key_length, key[24];
    uint32_t length;
    uint8_t value[];
};
struct sim_rows {
    struct sim_row **list; /* by table and key */
    unsigned count, room;
};
/* What a transaction of LMDB's and the accounting of segments hold. */
struct sim_image {
    struct sim_rows rows;
    struct sim_space space;
    struct position position;
    uint64_t live_blocks, inodes;
};
/* A generation that is being built, or complete. */
struct sim_built {
    bool there, formatted, complete;
    unsigned number;
    char line[NAME_MAX];
    uint8_t incarnation[STORE_ID_SIZE];
    struct sim_image saved; /* its last checkpoint */
    uint64_t rows, blocks;           /* that were put into it: of inodes and epochs; that were fetched, … */
    uint64_t lost_rows, lost_blocks; /* …and those that a crash or a refused commit took back */
};
/* A store that another one has replaced: until it is swept away, or kept aside for good. */
struct sim_former {
    struct sim_former *next;
    unsigned number;
    struct sim_record *last;
    uint64_t first, hold;
    struct place *places;
    struct sim_space space;
};
struct disk {
    uint8_t incarnation[STORE_ID_SIZE];
    struct sim_record **records; /* LSN - 1 */
    struct place *places;        /* where their blocks lie here */
    struct sim_space space;
    unsigned generation, keep_number;
    bool keep; /* generation keep_number is to be kept when it is not current */
    struct sim_built built;
    struct sim_former *former, *aside;
    struct sim_rows dead; /* blocks that are punched when it serves */
    unsigned last_block; /* that was written */
    struct store *building; /* the process has it open */
    uint64_t room, lsn, durable, first;
    uint64_t hold, hold_synced; /* meta "hold" */
    bool undoing;
    uint64_t undo_synced; /* a crash in an undo brings back what lies up to here */
    struct sim_record **kept; /* in files of undone records */
    unsigned kept_count, kept_room;
    int64_t drawn; /* when the incarnation was */
    uint8_t note[4096]; /* beside it (store_put_note) */
    size_t note_length;
    bool unreadable; /* something of the tail was, once */
    bool full, slow, dies; /* dies: the next fsync fails, and with it the process */
    bool hangs, hangs_all; /* no fsync returns; nor does taking a record in */
};
void disk_make(struct disk *disk);
void disk_kill(struct disk *disk);
void disk_power_cut(struct disk *disk);
bool disk_has(const struct disk *disk, const struct sim_record *record);
struct sim_record *disk_last(const struct disk *disk); /* NULL: none */
void disk_add(struct disk *disk, struct sim_record *record);
void disk_cut(struct disk *disk, uint64_t lsn); /* what is above goes */
/* The record that these bytes are. Two records of one LSN and epoch are one record, on every node. */
struct sim_record *disk_record(const void *bytes, size_t length, struct sim_record *before, const void *payload,
                               size_t payload_length, bool big);
struct sim_record *disk_known(uint64_t lsn, epoch_t epoch); /* NULL: never made */
void disk_copy(struct disk *to, const struct disk *from); /* as a person copies a store's folder at rest */
void state_at(struct sim_record *last, struct sim_state *state);
/* The journal up to there is given up: blocks that only it named are gone. */
void disk_trim(struct disk *disk, uint64_t first);
/* Is every block of what a store says there, and right? */
void disk_check_blocks(struct sim_record *last, const struct place *places, const struct sim_space *space, unsigned node);
void disk_keep(struct disk *disk, struct sim_record *record); /* in a file of undone records */
bool disk_keeps(const struct disk *disk, const struct sim_record *record);

/* ---- Blocks (space.c) ---- */
struct sim_segment *space_find(const struct sim_space *space, uint32_t number); /* NULL: there is none */
struct sim_segment *space_add(struct sim_space *space, uint32_t number, struct sim_file *file); /* behind the others */
struct place space_take(struct sim_space *space, uint32_t most); /* blocks that lie side by side: at least one */
void space_copy(struct sim_space *to, const struct sim_space *from); /* the same files */
void space_own(struct sim_space *space);                             /* files of its own, with the same blocks */
struct sim_block **space_block(const struct sim_space *space, struct place place); /* its first; NULL: no such segment */
void space_write(const struct sim_space *space, struct place place, const void *bytes, size_t length, bool synced);
/* Does the block lie there, readable? */
bool space_holds(const struct sim_space *space, struct place place, uint64_t checksum);

/* ---- Rows (tables.c) ---- */
unsigned rows_seek(const struct sim_rows *rows, unsigned table, const void *key, size_t length); /* at or behind */
struct sim_row *rows_get(const struct sim_rows *rows, unsigned table, const void *key, size_t length);
void rows_put(struct sim_rows *rows, unsigned table, const void *key, size_t key_length, const void *value, size_t length);
bool rows_remove(struct sim_rows *rows, unsigned table, const void *key, size_t length);
void rows_copy(struct sim_rows *to, const struct sim_rows *from);
void rows_of_state(const struct sim_state *state, const struct place *places, unsigned tables, struct sim_rows *rows);
#define SIM_TABLE(table) (1u << (table))

/* ---- Stores (store.c) ---- */
struct sim_past;
struct sim_builder;
struct store *store_model_make(struct disk *disk, unsigned node);
int store_model_open(struct disk *disk, unsigned node, struct store **store);
void store_model_close(struct store *store);
int store_model_append(struct store *store, bool big, struct sim_record **record);
struct disk *store_disk(const struct store *store);
unsigned store_node(const struct store *store);
struct sim_builder **store_builder(struct store *store); /* of one that is being built (built.c); else NULL */
struct sim_past **store_pasts(struct store *store); /* that are open (past.c) */
struct sim_past **store_past(struct store *store);  /* of what is a past */
int64_t store_sync_time(const struct disk *disk);

/* ---- Stores that are being built (built.c) ---- */
struct sim_rows *built_rows(struct sim_builder *builder);
struct sim_space *built_space(struct sim_builder *builder);
int built_change(struct store *store); /* a row is about to be changed */
int built_checkpoint(struct store *store);
void built_wait_mended(struct store *store);
void built_kill(struct disk *disk);
struct disk *disk_of(const char *path);
void disk_path(unsigned node, char path[32]);

/* ---- Pasts (past.c) ---- */
const struct sim_rows *past_rows(struct sim_past *past, int *error);
/* `kept`: of those alone that are kept beyond the journal's limit. UINT64_MAX: none */
uint64_t pasts_lowest(struct sim_past *pasts, bool kept);

/* ---- Voters (seats.c) ---- */
void voting_begin(void);    /* voters keep the register of this schedule */
void voting_happens(void);  /* something, to them or between them */
void voting_mend(void);
void voting_start(void);    /* who is down */
void voting_killed(unsigned place);
void voting_supervise(unsigned node); /* it is about to die: its parent gives its lease back, perhaps */
bool voting_is_whole(char *why, size_t room); /* every listed voter is there */
bool voting_must_elect(void); /* a majority votes, and a node of the in-sync set is up */

/* ---- Register (registry.c) ---- */
void registry_make(void);
struct reg *registry_open(struct volume *volume);
const struct register_value *registry_of(unsigned node); /* what stands there now */
void registry_forget(unsigned node); /* its file goes, if it has one of its own */

/* ---- Nodes (node.c) ---- */
enum node_state { NODE_DOWN, NODE_STARTING, NODE_UP, NODE_RENEWING, NODE_STOPPING };
struct sim_node {
    enum node_state state;
    struct disk disk;
    struct volume *volume;
    struct front *front;
    unsigned operators; /* commands under way */
    bool forcing;       /* a promotion by force is under way */
    bool forced_open;   /* …and has ended: the node settles what it proposed, until another epoch has begun */
    bool promoting;     /* …and one without */
    int switched;       /* how the last handover ended */
    int64_t since;
};
void node_start(unsigned node);
void node_stop(unsigned node);
void node_kill(unsigned node, bool power);
void node_promote(unsigned node, bool force);
void node_switchover(unsigned node, unsigned to);
void node_voters(unsigned node, enum voters_edit edit, const char *name);
bool node_is_primary(unsigned node);
bool node_works(unsigned node, char *state, size_t room); /* its link is "working", and nothing waits */

/* ---- Checks (checks.c) ---- */
void check_acknowledged(unsigned node, struct sim_record *record, bool durable);
void check_started(unsigned node, epoch_t epoch);
void check_answered(unsigned node); /* it says what only a primary may say */
void check_registered(const struct register_value *value, bool forced);
/* `hold`: up to there every node had it durably. */
void check_undone(unsigned node, const struct sim_record *record, uint64_t hold);
void check_power_cut(void);
void check_ack_frame(unsigned node, uint64_t received, uint64_t durable);
void check_follow(unsigned node); /* after every frame that it has taken */
void check_built(unsigned node, const struct sim_built *built);          /* it is about to become the store */
void check_needed(unsigned node);                                        /* a store is about to be built anew … */
void check_begun_anew(unsigned node);                                    /* …and what was built before goes */
void check_replaced(unsigned node, const struct sim_former *former, bool kept); /* the old one goes, or is kept */
void check_bounds(unsigned node);
bool check_equal(char *why, size_t room);
void check_end(void);

/* ---- The schedule (schedule.c) ---- */
void *schedule_run(void *nothing);

struct sim_counts {
    uint64_t schedules, acknowledged, durable, promoted, forced, switched, undone, kills, power_cuts, stops, records, shrunk,
        grown, slowed, reached, excused, frames, unknown, refused, last_resort, virtual_ns, switches, restarts, trimmed, begun, resumed, taken_back, kept_blocks,
        rebuilt, aside, adopted, fetched, rows, mended, replaced, decided, voting, ballots, chosen, leases, reads, late_answers,
        lost_voters, elected, let_in, edited, slept, released;
};

struct world {
    uint64_t random;
    int64_t now;
    bool over, failed;
    char why[600];
    unsigned node_count;
    struct config config;
    struct sim_node nodes[SIM_NODES];
    bool shared;    /* one register for all, else a file on each node */
    bool voting;    /* …which voters keep; then it is shared, too */
    unsigned calls; /* a fiber may be interrupted at one call in so many */
    unsigned stalls;
    bool trims;
    uint64_t journal_limit; /* records; 0: kept for who is away however many there are */
    bool limited;           /* …at the end, too, when all is calm */
    bool links;             /* segments may have further links */
    bool copying;           /* full synchronization is the theme: much of it, in small portions */
    unsigned refusals;      /* LMDB refuses one change in so many of a store that is being built; 0: none */
    bool damages;           /* blocks go bad */
    uint32_t copy_bytes, sync_blocks;
    int64_t copy_idle;
    bool replaced;          /* somebody has put another store in a store's place */
    bool reclaims;  /* records are made that no user waits for and no gate holds up; not more than users make */
    bool calm;      /* the end: no faults … */
    bool idle;      /* … and no users */
    int64_t takes[SIM_NODES]; /* so long does a standby need for each record */
    uint64_t join_records, join_bytes; /* 0: as they are */
    int64_t awake;  /* from then on no process stands still, and no machine sleeps */
    int64_t quiet;  /* nothing has been wrong with lines or processors since */
    int64_t think_low, think_high; /* of the users, between two operations */
    unsigned users;
    bool register_fails[SIM_NODES];
    unsigned register_trouble, repeats;
    int64_t network_low, network_high;
    unsigned network_limit;
    struct sim_record **acknowledged;
    unsigned acknowledged_count, acknowledged_room;
    epoch_t forced; /* the newest epoch that was begun by force */
    epoch_t begun[SIM_NODES]; /* the newest that each has begun */
    uint64_t digest;
    enum sim_tracing tracing;
    struct sim_counts counts;
};
extern struct world *world;

#endif
