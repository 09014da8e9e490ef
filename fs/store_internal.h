/* What the store's own files share. Nobody else includes this (fs/check.c, which looks at a store at rest, excepted).
 */
#ifndef BATON_FS_STORE_INTERNAL_H
#define BATON_FS_STORE_INTERNAL_H

#include "fs/mark.h"
#include "fs/mend.h"
#include "fs/segment.h"
#include "fs/store.h"
#include "fs/tail.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#define META_PAGE 4096u /* LMDB's page size here; checked at open */

/* Entries that are kept in memory: at least all that are not committed. A power of two. */
#define RECENT_ENTRIES 65536u
#define RECENT_BYTES (16u << 20)
/* A batch is committed early when it has so many changed rows or bytes, so that LMDB's headroom holds it. */
#define BATCH_ROWS 6000u
#define BATCH_ROWS_MAX (2 * BATCH_ROWS) /* who comes then waits for the commit */
#define BATCH_BYTES (8u << 20)
#define META_HEADROOM (96u << 20)      /* allocated behind LMDB's last page: the largest batch */
#define META_HEADROOM_MIN (56u << 20)  /* below this new work is refused: a whole batch must fit */

/* One slot of the file `checkpoint`. */
struct checkpoint {
    char magic[8]; /* "BATONCP1" */
    uint32_t format;
    uint32_t segment_blocks;
    uint32_t tail_size;
    uint32_t features; /* STORE_FEATURES */
    uint64_t number; /* grows by one; slot = number mod 2 */
    uint64_t txnid;
    uint64_t tail_seq; /* the tail file whose records follow this state */
    uint64_t lsn;
    uint8_t volume[STORE_ID_SIZE];
    uint8_t incarnation[STORE_ID_SIZE];
    uint8_t boot[STORE_ID_SIZE]; /* with device and inode: is this the same life of the same folder? */
    uint64_t device;
    uint64_t directory;
    char name[64];
    uint8_t page[META_PAGE]; /* LMDB's meta page of txnid */
    uint64_t check;          /* XXH3-64 of all before */
} __attribute__((packed));

/* Row "position" of table meta: written with each commit. */
struct position_row {
    uint64_t lsn;
    epoch_t epoch;
    int64_t time;
    uint8_t chain[CHAIN_SIZE];
    uint64_t first;         /* oldest record in the journal */
    uint64_t journal_bytes; /* of its rows */
    uint64_t kept_blocks;   /* dropped from the map, named by the journal */
    uint64_t live_blocks;   /* in the map */
    uint64_t inodes;
} __attribute__((packed));

/* Head of a journal row's value; the record, the undo images, the places and the dropped places follow. */
struct journal_head {
    uint32_t record_length;
    uint32_t undo_length;
    uint32_t place_count;
    uint32_t dropped_count;
    uint64_t previous_epoch; /* the position before this record, so that undo can go back to it */
    int64_t previous_time;
    uint8_t previous_chain[CHAIN_SIZE];
} __attribute__((packed));

struct dead_row {
    uint32_t count;
    uint64_t txnid; /* the transaction that made it dead */
} __attribute__((packed));

struct local_value {
    struct local_value *next;
    struct key key;
    size_t length;
    uint8_t value[];
};

struct snapshot {
    struct store *store;
    MDB_txn *txn;
    uint64_t txnid;
    uint64_t lsn;
    struct snapshot *next, *previous;
};

/* Nothing above `lsn` is trimmed, unless space is short or the journal at its limit, or, if it is `firm`, a quarter beyond. */
struct history_hold {
    struct history_hold *next;
    uint64_t lsn;
    bool firm;
};

/* What is asked of the disk at a time, by whom: see store_stalled. */
enum disk_work { DISK_TAIL = 0, DISK_COMMIT, DISK_CHECKPOINT, DISK_SYNCER, DISK_WORKS };

struct store {
    struct history *history; /* not a store but a past one, read through history.c; else NULL */
    char *path; /* the store's folder: lock, control socket, undone/ */
    char *base; /* the folder of its generation: everything else (fs/generation.h) */
    int directory_fd /* of base */, lock_fd, meta_fd, checkpoint_fd;
    struct store_options options;
    struct checkpoint last_checkpoint; /* the newest one on disk */
    uint64_t previous_txnid; /* of the one before, to which an open goes back if the newest one's slot has rotted */
    uint8_t volume[STORE_ID_SIZE], incarnation[STORE_ID_SIZE], boot[STORE_ID_SIZE];
    char name[64];
    struct mark mark; /* of the incarnation, in this boot: its last record */

    pthread_mutex_t lock;
    MDB_env *env;
    MDB_dbi dbi[TABLE_END];
    MDB_txn *txn;  /* the open write transaction: made and ended by the committer only */
    MDB_txn *pin;  /* read transaction at the newest checkpoint's state */
    bool txn_broken; /* LMDB refused a change: the committer makes a new transaction and applies the batch again */
    bool replaying, undoing;
    bool importing;       /* rows and blocks come from another node (fs/import.h): no entries in memory, nothing is punched */
    bool restoring;       /* accounting_restore is at work; with the lock only */
    uint64_t undone;      /* records that have been undone: a sync that was under way meanwhile made others durable */
    uint32_t batch_rows, batch_bytes;

    struct position_row position;
    uint64_t committed;
    _Atomic uint64_t durable;
    epoch_t epoch;        /* of new records; 0: not primary */
    uint64_t epoch_first; /* LSN of its EPOCH record */
    uint64_t hold, hold_absent; /* see store_set_hold */
    struct history_hold *history_holds;
    atomic_bool pasts_end; /* history_end_all */

    struct change change; /* buffers reused from record to record */
    uint8_t *record_buffer;
    struct entry **recent; /* ring by LSN mod RECENT_ENTRIES */
    uint64_t recent_first; /* oldest LSN in it */
    uint64_t recent_bytes;
    struct store_watch watch;

    struct tail tail;
    struct segments segments;
    struct mend mend;
    /* Accounting as it was when the transaction began: a failed commit goes back to it. */
    struct position_row saved_position;
    struct segment *saved_segments;
    struct place *saved_reserved;
    uint32_t saved_segment_count, saved_current, saved_reserved_count;

    struct snapshot *snapshots;
    struct local_value *local_values; /* put since the last commit: no record has them */

    pthread_t committer, syncer;
    bool threads_running;
    pthread_cond_t work;      /* committer: something to do before its time */
    pthread_cond_t committed_cond; /* a commit, a checkpoint, a trim pass has ended */
    bool stop, commit_wanted, begun;
    bool commit_refused; /* the last one, by a full disk */
    uint64_t mends;   /* batches that were refused: what no record has was lost with them */
    uint64_t settled; /* grows when a batch has been committed, and when a refused one has been taken back */
    uint64_t undo_target; /* while undoing: its records stay in the journal */
    int64_t refused_told;
    bool unsaved; /* something was committed since the last checkpoint */
    uint64_t checkpoint_wanted, checkpoint_done; /* tickets */
    uint64_t passes;          /* trim-and-punch passes so far */
    uint64_t journal_made;    /* bytes of rows and kept data that the journal has got since the open */
    bool dead_waits;          /* blocks or files are dead that only a further checkpoint lets go */
    int64_t last_commit, last_checkpoint_time;

    pthread_mutex_t sync_lock;
    pthread_cond_t sync_work, sync_done;
    _Atomic uint64_t sync_wanted;
    bool sync_stop;

    _Atomic int64_t disk_since[DISK_WORKS]; /* clock_boot; 0: nothing is asked */
    _Atomic int64_t disk_flushed;           /* when a flush came back last */

    uint64_t meta_allocated; /* bytes of data.mdb with blocks behind them */
    bool space_short;
    int64_t space_checked, space_told;
    uint64_t disk_free, disk_total;
};

/* Says the sentence and ends the process: the state on disk is an exact prefix, the next open finds it. */
void store_fail(const struct store *store, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* store_commit.c: around each of them; of one kind there is one at a time. */
void disk_begin(struct store *store, enum disk_work work);
void disk_end(struct store *store, enum disk_work work);

/* table.c */
/* The checksum that stands behind a row's value. */
uint64_t table_row_check(enum table table, const struct key *key, const void *value, size_t length);
int table_open_all(struct store *store, MDB_txn *txn, bool create);
int table_put_raw(struct store *store, enum table table, const struct key *key, const void *value, size_t length);
int table_remove_raw(struct store *store, enum table table, const struct key *key);
void change_reset(struct change *change, struct store *store);
/* Puts the images back, newest first. A failure breaks the transaction. */
int undo_restore(struct store *store, const uint8_t *undo, uint32_t length);

/* journal.c */
int journal_put(struct store *store, const struct entry *entry, const struct change *change,
                const struct position_row *previous);
int journal_trim_some(struct store *store, uint64_t horizon, unsigned limit); /* rows trimmed, or error; lock held */
uint64_t journal_horizon(struct store *store); /* last LSN that may be trimmed now; lock held */
int dead_add(struct store *store, struct place place); /* lock held, or while opening */
/* Punches what may be; takes the lock for its row work only. Committer. */
int dead_punch(struct store *store);

/* store.c */
/* A generation that is being built, by who has the store's lock. */
int store_format_generation(const char *path, const char *base, const uint8_t volume[STORE_ID_SIZE], const char *name,
                            const struct store_options *options, char *why, size_t why_room);
int store_open_generation(const char *path, const char *base, const struct store_options *options, struct store **store,
                          char *why, size_t why_room);

/* store_append.c */
struct entry *entry_make(const void *bytes, uint32_t length, const void *payload, uint32_t payload_length,
                         const struct place *places, uint32_t place_count);
/* Applies, journals, counts; no tail. Lock held. Also used to apply a batch again and by replay. */
int store_apply_entry(struct store *store, const struct record *record, struct entry *entry, bool again);
void recent_add(struct store *store, struct entry *entry);
struct entry *recent_get(struct store *store, uint64_t lsn);
void recent_evict(struct store *store);
void recent_cut(struct store *store, uint64_t lsn); /* forgets those above */

int chain_at(struct store *store, uint64_t lsn, uint8_t chain[CHAIN_SIZE]); /* lock held */
/* store_append, in an epoch that is not the store's (yet). */
int append_in_epoch(struct store *store, epoch_t epoch, struct record *record, const void *payload,
                    const struct place *places, uint32_t place_count);

/* store_state.c */
void store_hold_history(struct store *store, struct history_hold *hold, uint64_t lsn); /* lock held */
void store_release_history(struct store *store, struct history_hold *hold); /* takes the lock; of one not held: nothing */
/* store_state.c; lock held */
/* The epoch to which the record at `lsn` belongs, however long ago it was trimmed. -ENOENT: before every epoch. */
int epoch_at(struct store *store, uint64_t lsn, epoch_t *epoch);
int local_values_put_again(struct store *store); /* after a refused commit */
void local_values_forget(struct store *store);   /* they are committed */

/* store_commit.c */
void *store_committer(void *store);
void *store_syncer(void *store);
/* The next three: the committer, or the opening thread; lock held. Commits the open transaction; none is open then. */
int store_commit_txn(struct store *store);
int store_begin_txn(struct store *store);
/* Commits, makes a checkpoint, begins the next transaction; gives up the lock while it waits for the disk. */
void store_checkpoint_now(struct store *store);
/* Waits (lock given up meanwhile) until the committer has made a broken transaction anew. */
void store_wait_mended(struct store *store);

/* checkpoint.c */
int checkpoint_read(struct store *store, struct checkpoint *newest, struct checkpoint *older, bool *newest_suspect,
                    char *why, size_t why_room);
int checkpoint_write(struct store *store, struct checkpoint *checkpoint);
/* Is LMDB's file as long as the checkpoint says? */
bool checkpoint_fits(struct store *store, const struct checkpoint *checkpoint);
/* Makes it so, before the checkpoint is written: no data, so no space. */
int checkpoint_stretch(struct store *store, const struct checkpoint *checkpoint);
int checkpoint_restore_pages(struct store *store, const struct checkpoint *checkpoint, char *why, size_t why_room);
int checkpoint_copy_page(struct store *store, uint64_t txnid, uint8_t page[META_PAGE]);

/* store_space.c */
void space_refresh(struct store *store, bool force); /* lock held */
int space_meta_headroom(struct store *store);        /* committer, lock held */
bool space_low(const struct store *store); /* history yields; lock held */
int admit_space(struct store *store, enum space_class class); /* store_admit, in either role */

#endif
