/* A volume's nodes in one process, on virtual time, decided by a seed. The code of replication/ is the real one; threads,
 * clock, network, store, register and mount are played here:
 *
 *   fibers.c    threads as fibers, mutexes and conditions, the clock, who runs next
 *   wraps.c     the calls of the program that end here (linked with --wrap)
 *   memory.c    memory that goes with the schedule, and static variables that are as they were before it
 *   network.c   lines and connections
 *   link.c      replication/link.h and the few calls of ZeroMQ that replication/ makes itself
 *   disk.c      what is on a disk: records, and what survives
 *   store.c     fs/store.h as far as replication/ uses it
 *   registry.c  membership/register.h: one value for all, or one on each node
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

#include <stdarg.h>

#define SIM_NODES 3u
#define SIM_NOBODY SIM_NODES /* a fiber that belongs to no node */
#define US ((int64_t)1000)
#define SIM_MS ((int64_t)1000000)
#define SIM_FOREVER INT64_MAX

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
struct fiber *sim_self(void);
const char *sim_fiber_name(void);
/* Calls run(argument, number) at that time, between fibers. */
void sim_at(int64_t time, void (*run)(void *argument, uint64_t number), void *argument, uint64_t number);
void sim_pause(unsigned node, int64_t until); /* as SIGSTOP does */
void sim_prepare(void); /* once */
/* Runs fibers until the schedule is over. */
void sim_run(void);

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
int wake_open(void);
bool wake_is(int fd);
void wake_write(int fd);
void wake_read(int fd);
void wake_close(int fd);

/* ---- Disks (disk.c) ---- */
struct sim_record { /* one for all stores that have it */
    uint64_t lsn;
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
struct disk {
    uint8_t incarnation[STORE_ID_SIZE];
    struct sim_record **records; /* LSN - 1 */
    uint64_t room, lsn, durable, first;
    uint64_t hold, hold_synced; /* meta "hold" */
    bool undoing;
    uint64_t undo_synced; /* a crash in an undo brings back what lies up to here */
    struct sim_record **kept; /* in files of undone records */
    unsigned kept_count, kept_room;
    int64_t drawn; /* when the incarnation was */
    bool full, slow, dies; /* dies: the next fsync fails, and with it the process */
};
void disk_make(struct disk *disk);
void disk_kill(struct disk *disk);
void disk_power_cut(struct disk *disk);
bool disk_has(const struct disk *disk, const struct sim_record *record);
struct sim_record *disk_last(const struct disk *disk); /* NULL: none */
void disk_add(struct disk *disk, struct sim_record *record);
void disk_cut(struct disk *disk, uint64_t lsn); /* what is above goes */
/* The record that these bytes are. Two records of one LSN and epoch are one record, on every node. */
struct sim_record *disk_record(const void *bytes, size_t length, const uint8_t previous[CHAIN_SIZE], const void *payload,
                               size_t payload_length, bool big);
void disk_keep(struct disk *disk, struct sim_record *record); /* in a file of undone records */
bool disk_keeps(const struct disk *disk, const struct sim_record *record);

/* ---- Stores (store.c) ---- */
int store_model_open(struct disk *disk, unsigned node, struct store **store);
void store_model_close(struct store *store);
int store_model_append(struct store *store, bool big, struct sim_record **record);

/* ---- Register (registry.c) ---- */
void registry_make(void);
struct reg *registry_open(unsigned node);
const struct register_value *registry_of(unsigned node); /* what stands there now */

/* ---- Nodes (node.c) ---- */
enum node_state { NODE_DOWN, NODE_STARTING, NODE_UP, NODE_STOPPING };
struct sim_node {
    enum node_state state;
    struct disk disk;
    struct volume *volume;
    struct front *front;
    unsigned operators; /* commands under way */
    bool forcing;       /* a promotion by force is under way */
    bool promoting;     /* …and one without */
    int switched;       /* how the last handover ended */
    int64_t since;
};
void node_start(unsigned node);
void node_stop(unsigned node);
void node_kill(unsigned node, bool power);
void node_promote(unsigned node, bool force);
void node_switchover(unsigned node, unsigned to);
bool node_is_primary(unsigned node);
bool node_works(unsigned node, char *state, size_t room); /* its link is "working", and nothing waits */

/* ---- Checks (checks.c) ---- */
void check_acknowledged(unsigned node, struct sim_record *record, bool durable);
void check_started(unsigned node, epoch_t epoch);
void check_registered(const struct register_value *value, bool forced);
void check_undone(unsigned node, const struct sim_record *record);
void check_power_cut(void);
void check_ack_frame(unsigned node, uint64_t received, uint64_t durable);
void check_bounds(unsigned node);
bool check_equal(char *why, size_t room);
void check_end(void);

/* ---- The schedule (schedule.c) ---- */
void *schedule_run(void *nothing);

struct sim_counts {
    uint64_t schedules, acknowledged, durable, promoted, forced, switched, undone, kills, power_cuts, stops, records, shrunk,
        grown, excused, frames, unknown, refused, last_resort, apart, virtual_ns, switches, restarts, trimmed;
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
    unsigned calls; /* a fiber may be interrupted at one call in so many */
    unsigned stalls;
    bool trims;
    bool reclaims;  /* records are made that no user waits for, and that a mount's gate does not hold up */
    bool calm;      /* the end: no faults … */
    bool idle;      /* … and no users */
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
    uint64_t digest;
    enum sim_tracing tracing;
    struct sim_counts counts;
};
extern struct world *world;

#endif
