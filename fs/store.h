/* The store of one volume on one node: a directory with meta/ (LMDB), data/ (segments), tail/ (redo log), checkpoint,
 * lock. It knows nothing of the network, of FUSE or of roles: it appends records and applies them (the one door), reads,
 * undoes, recovers.
 *
 * Threads. One engine lock (store_lock) guards the open LMDB write transaction and everything applied in it. A thread
 * of the store's own begins and commits transactions, makes checkpoints, trims and punches; another one syncs the tail.
 * Callers apply in their own threads, under the lock, and see each other's uncommitted results. Data blocks are read
 * and written outside the lock.
 *
 * A store that meets an error it cannot undo (failed fsync, failed tail write, rows that are wrong) ends the process
 * after a sentence: the next open recovers an exact prefix that has everything that was durable.
 */
#ifndef BATON_FS_STORE_H
#define BATON_FS_STORE_H

#include "fs/record.h"
#include "fs/table.h"

/* The format is the layout of everything in the directory; it changes when no program could read both. What is added to
 * a format is a feature: a bit that the store carries from the day on which it is used first. A program that does not know
 * a required one refuses the store, one that does not know another one leaves that bit, and what it stands for, as it is. */
#define STORE_FORMAT 1u
#define STORE_FEATURES 0u /* that this program knows */
#define STORE_FEATURES_REQUIRED 0xffff0000u
#define STORE_ID_SIZE 16

struct store;

struct store_options {
    uint64_t map_size;         /* LMDB map; 0: 1 TiB (256 GiB under address sanitizer) */
    uint32_t segment_blocks;   /* at format: blocks of a segment file; 0: 65536 (256 MiB) */
    uint32_t tail_size;        /* at format: bytes of one tail file; 0: 16 MiB */
    uint32_t commit_ms;        /* 0: 100 */
    uint32_t checkpoint_ms;    /* 0: 1000 */
    uint64_t history_seconds;  /* history window: records older than this are trimmed… */
    uint64_t history_bytes;    /* …and those beyond this much of journal and kept data; 0: 1 GiB */
    uint64_t limit_bytes;      /* of journal and kept data for nodes that are away; 0: 8 GiB. A quarter more: history_keep */
    uint64_t reserve_bytes;    /* disk space that only deletes and trims may use; 0: 64 MiB */
    bool no_history;           /* trim as soon as every node has it durably */
    bool hold_all;             /* trim nothing before store_set_hold: others may lack it */
};

/* A new, empty store in `path` (created if absent, must be empty) with its root directory (mode 0755, uid, gid).
 * `volume` is the id that every store of one volume shares, `name` the volume's name. The root's times come from
 * `time`, the same on every node, so that all stores of a volume begin bit-equal. 0 or a negative errno with a sentence
 * in `why`. */
int store_format(const char *path, const uint8_t volume[STORE_ID_SIZE], const char *name, int64_t time,
                 const struct store_options *options, char *why, size_t why_room);

/* Opens under an exclusive lock (-EBUSY: somebody has it), puts the checkpoint back, replays the tail, starts the
 * threads. One path after a crash or not. `volume`, if not NULL, must match. */
int store_open(const char *path, const uint8_t *volume, const struct store_options *options, struct store **store,
               char *why, size_t why_room);

/* Commits, makes a checkpoint, stops the threads, frees. */
void store_close(struct store *store);

const uint8_t *store_volume(const struct store *store);      /* volume id */
const uint8_t *store_incarnation(const struct store *store); /* this store's id, 16 bytes; see DESIGN.md "incarnation" */
const char *store_path(const struct store *store);

/* A note of the replicator's that outlives this process if the store is the same incarnation after it (fs/mark.h, where the
 * limit stands); length 0: none. One thread at a time, no lock. */
void store_put_note(struct store *store, const void *bytes, size_t length);
size_t store_get_note(const struct store *store, void *bytes, size_t room);

struct position {
    uint64_t lsn; /* last record; 0: none yet */
    epoch_t epoch; /* of that record */
    uint8_t chain[CHAIN_SIZE];
    uint64_t committed; /* last one committed in LMDB */
    uint64_t durable;   /* last one that survives a power cut */
    uint64_t first;     /* oldest record in the journal; lsn + 1 if it is empty */
    int64_t time;       /* of the last record */
};
void store_position(struct store *store, struct position *position); /* takes the lock */
uint64_t store_durable(const struct store *store); /* its `durable`, without the lock */
void store_position_locked(struct store *store, struct position *position);

void store_lock(struct store *store);
void store_unlock(struct store *store);

/* ---- The primary's side: settle, then append. All under the lock. ------------------------------------------------ */

/* The epoch that new records carry; set by becoming primary, which also appends the EPOCH record. 0: appends are
 * refused with -EROFS (this node is not primary). -ERANGE if the epoch is not above every one in the store. */
int store_start_epoch(struct store *store, epoch_t epoch, const char *node);
void store_stop_epoch(struct store *store);

enum space_class {
    SPACE_GROW, /* creates, writes, attributes: stays out of the reserve */
    SPACE_FREE  /* deletes, trims, times: may use the reserve */
};
/* 0, -ENOSPC, -EROFS (not primary) or -EIO (store failed). */
int store_admit(struct store *store, enum space_class class);

/* Time for the next record: max(now, last record's time, floor + 1 ns); pass the largest ctime it will touch. */
int64_t store_next_time(struct store *store, struct file_time floor);
/* Numbers that no other record of any history uses: inode numbers, data ids, cookies of the next record; which 0 or 1. */
uint64_t store_next_id(struct store *store, unsigned which);
/* Above all numbers given so far, not above any of a later record; UINT64_MAX on a standby. Takes the lock. */
uint64_t store_ids_end(struct store *store);

/* Gives head.lsn, head.epoch; encodes, applies, journals, writes the tail. head.type, head.time, head.ino and the
 * fields of the type are the caller's. `payload` (payload_length = record->head.payload) may be NULL when there is none or when the blocks
 * at `places` are already written; small payloads are given in any case, because the tail carries them. On return
 * record->head.lsn is the LSN. An error means that nothing has changed and the places are the caller's still. */
int store_append(struct store *store, struct record *record, const void *payload, const struct place *places,
                 uint32_t place_count);

/* ---- The standby's side --------------------------------------------------------------------------------------------- */

/* A record made elsewhere: checks LSN, chain, epoch (not below the last one), payload; puts the data away, writes the
 * tail, applies. Takes the lock. 0; -EEXIST: had it already (same chain); -ESTALE: chain or LSN or epoch does not
 * follow; -EBADMSG: malformed, or contradicts the state; -ENOSPC. */
int store_receive(struct store *store, const void *bytes, size_t length, const void *payload, size_t payload_length);

/* Undoes the records above `lsn`, newest first, each to bit-equal tables, in bounded transactions, and makes a
 * checkpoint. -ENOENT if the journal does not reach back that far. No appends meanwhile. Takes the lock. */
int store_undo(struct store *store, uint64_t lsn);
/* The same, but first `before`, when nobody appends any more and nothing above the target is trimmed; without the lock. If it
 * returns an error, that is returned and nothing is undone. */
int store_undo_after(struct store *store, uint64_t lsn, int (*before)(void *context, struct store *store), void *context);

/* ---- Data blocks ------------------------------------------------------------------------------------------------- */

#define STORE_PLACES_MAX 8u
/* Reserves places for `blocks` (≤ RECORD_BLOCKS_MAX) under the lock. Each reservation ends in store_append or
 * store_release. -ENOSPC. */
int store_allocate(struct store *store, uint32_t blocks, struct place places[STORE_PLACES_MAX], uint32_t *count);
void store_release(struct store *store, const struct place *places, uint32_t count);
/* Without the lock. Writes `length` bytes and zeros to the end of the last block. */
int store_write_blocks(struct store *store, const struct place *places, uint32_t count, const void *payload,
                       size_t length);
/* Without the lock. Reads whole blocks. No checking: compare with the checksums of the map. -EIO, -ENOENT (segment
 * gone: look at the map again). */
int store_read_blocks(struct store *store, struct place place, void *buffer);

/* Without the lock. A block of the map that is bad is overwritten where it lies: `place` (one block) and `checksum` are what
 * the map said when it was looked at, `bytes` fit the checksum (-EINVAL). Durable with the next checkpoint. -ESTALE: the map
 * says something else by now, nothing was written. Errors of the disk. */
int store_mend(struct store *store, uint64_t data, uint64_t block, struct place place, uint64_t checksum,
               const uint8_t *bytes);

/* Could these blocks be one of this store's segments'? For a place that somebody else names. Without the lock. */
bool store_place_valid(const struct store *store, struct place place);

/* Payloads up to this many bytes also go into the tail; fsync then needs no segment. */
#define STORE_INLINE_MAX (32u << 10)

/* ---- Durability ---------------------------------------------------------------------------------------------------- */

/* Asks for `lsn` to become durable soon; returns at once. */
void store_want_durable(struct store *store, uint64_t lsn);
/* Waits for it. 0 or -EIO. */
int store_sync(struct store *store, uint64_t lsn);
/* Commits and makes a checkpoint now; waits. */
int store_checkpoint(struct store *store);

/* What the store asked of its disk has not come back for `patience` ns: a commit, a write of the tail, or a flush while no other
 * flush has come back either (one of much data takes its time). Waiting for somebody else is not that. Any thread, no locks. */
bool store_stalled(const struct store *store, int64_t patience);

/* ---- Watching, reading history --------------------------------------------------------------------------------------- */

/* A record as it stands in memory: shared, counted. */
struct entry {
    uint64_t lsn;
    uint32_t references; /* atomic; entry_get, entry_put */
    uint32_t length;     /* of `bytes`: the encoded record */
    uint8_t *bytes;
    const uint8_t *payload; /* if it is in memory, head.payload bytes, else NULL: read it with entry_payload */
    uint32_t place_count;
    struct place places[STORE_PLACES_MAX];
    struct entry *next; /* the store's own */
};
struct entry *entry_get(struct entry *entry);
void entry_put(struct entry *entry);
/* Fills buffer with the record's payload (head.payload bytes) from memory or segments, checked. */
int entry_payload(struct store *store, const struct entry *entry, void *buffer);

struct store_watch {
    /* After each applied record, in order of LSN, under the lock: be quick. record: decoded, for this call only. */
    void (*applied)(void *context, const struct record *record, struct entry *entry);
    /* The durable LSN has grown (or shrunk, by undo). Any thread, without the lock. */
    void (*durable)(void *context, uint64_t lsn);
    /* Undone. Under the lock. */
    void (*undone)(void *context, const struct record *record);
    /* A block here is bad: have it from another node. Any thread that reads, without locks; may wait, but not for ever. 0
     * with bytes that fit the checksum; -ENOTSUP: there is no other node, -ENOTCONN: none is reached, -ETIMEDOUT, another
     * error: none has it. NULL: there is no other node. */
    int (*fetch)(void *context, uint64_t data, uint64_t block, uint64_t checksum, uint8_t bytes[BATON_BLOCK]);
    void *context;
};
void store_set_watch(struct store *store, const struct store_watch *watch); /* before other threads use it */

/* The entry at `lsn`, from memory or journal; counted, put it back. -ENOENT: trimmed or not there yet. Takes the lock. */
int store_read(struct store *store, uint64_t lsn, struct entry **entry);

/* Trimming may go so far. `fed`: what every node that is in the set or being fed has durably; never trimmed further.
 * `absent` (≤ fed): what the others had when they were last heard; kept for them until the journal and the data that it
 * keeps exceed options.limit_bytes, or the disk is nearly full. UINT64_MAX, as at start-up, means: nobody else. */
void store_set_hold(struct store *store, uint64_t fed, uint64_t absent);

/* The chain value at `lsn`, if journal or epoch table knows it; -ENOENT. Takes the lock. */
int store_chain_at(struct store *store, uint64_t lsn, uint8_t chain[CHAIN_SIZE]);

/* A read transaction at the newest commit. Short: it pins pages. */
struct snapshot;
int store_snapshot(struct store *store, struct snapshot **snapshot);
void snapshot_close(struct snapshot *snapshot);
uint64_t snapshot_lsn(const struct snapshot *snapshot);

struct store_space {
    uint64_t total;     /* bytes of the disk that can be this volume's */
    uint64_t free;      /* bytes that a writer may still use; the reserve is not among them */
    uint64_t live;      /* bytes of data blocks in the map */
    uint64_t kept;      /* bytes of blocks that only history still names */
    uint64_t dead;      /* bytes waiting to be punched */
    uint64_t meta;      /* bytes of LMDB's file in use */
    uint64_t inodes;
    uint64_t rows[TABLE_SHARED_END];
};
int store_space(struct store *store, struct store_space *space); /* takes the lock */

/* The journal, with the data that only it names. */
struct store_journal {
    uint64_t bytes; /* of it now */
    uint64_t limit; /* options.limit_bytes */
    uint64_t made;  /* bytes that it has got since the store was opened */
    uint64_t first, last;
};
void store_journal(struct store *store, struct store_journal *journal); /* takes the lock */

/* Local values (not replicated), in the meta table, durable with the next checkpoint: names up to 60 bytes. */
int store_meta_get(struct store *store, const char *name, void *value, size_t room, size_t *length); /* lock held */
int store_meta_put(struct store *store, const char *name, const void *value, size_t length);         /* lock held */

/* ---- A journal row taken apart (tools) ---------------------------------------------------------------------------- */
struct journal_row {
    struct span record;  /* encoded */
    struct span undo;    /* row images: walk with undo_next */
    const struct place *places;
    uint32_t place_count;
    const struct place *dropped;
    uint32_t dropped_count;
};
/* 0 or -EBADMSG. Of the record only its lengths are looked at: a head is there, and no more payload than a record may have. */
int journal_row_parse(struct span value, struct journal_row *row);
struct undo_image {
    enum table table;
    struct span key;
    bool existed; /* before the record; then value is what it was */
    struct span value;
};
int undo_next(const struct span *undo, uint32_t *at, struct undo_image *image); /* 1, 0 at the end, -EBADMSG */

#endif
