/* The tail: the redo log of the newest records, in tail/0 … tail/15, preallocated files that are used again and again.
 *
 * A file begins with a page that names its sequence number and the position before its first entry. Entries carry the
 * sequence number inside their checksum, so what an earlier use left is never taken for an entry. A checkpoint starts a
 * new file; files older than the newest checkpoint's are free.
 *
 * Writing needs the engine lock. Files are written with zeros once, so that fdatasync has no metadata to write.
 */
#ifndef BATON_FS_TAIL_H
#define BATON_FS_TAIL_H

#include "fs/record.h"
#include "fs/table.h"

#define TAIL_FILES_MAX 16u
#define TAIL_FILES_MIN 4u
#define TAIL_PAGE 4096u

struct tail_file {
    int fd;
    uint64_t seq; /* 0: never used */
    bool unsynced;
};

struct tail {
    int directory_fd;
    uint32_t size; /* of a file */
    uint32_t count;
    struct tail_file files[TAIL_FILES_MAX];
    uint32_t current;
    uint64_t seq;
    uint32_t offset;
    uint64_t oldest_needed; /* files below this sequence number are free */
    uint8_t *buffer;        /* one entry */
};

struct tail_entry { /* as read back */
    const uint8_t *record;
    uint32_t record_length;
    const uint8_t *payload; /* NULL if it is only in the segments */
    uint32_t payload_length;
    struct place places[8];
    uint32_t place_count;
};

struct entry;

int tail_format(int store_directory_fd, uint32_t size);
int tail_open(struct tail *tail, int store_directory_fd, uint32_t size);
void tail_close(struct tail *tail);
/* Calls `each` for every whole entry from file `seq` on, in order. `each` returns 0 to go on, 1 to stop, or an error.
 * -ENODATA: file `seq` is missing. Files behind the last entry are free afterwards. */
int tail_replay(struct tail *tail, uint64_t seq, uint64_t lsn, const uint8_t chain[CHAIN_SIZE],
                int (*each)(void *context, const struct tail_entry *entry), void *context);
/* Starts the next file. Two files are always left for checkpoints: only those may take them. -EAGAIN: none is free (wait
 * for a checkpoint, or for the committer to make another file). */
int tail_rotate(struct tail *tail, uint64_t lsn, const uint8_t chain[CHAIN_SIZE], bool for_checkpoint);
bool tail_can_rotate(const struct tail *tail);
bool tail_used_up(const struct tail *tail); /* not even a checkpoint can */
/* Another file, made in time: does the tail want one (lock held)? Make it (without the lock; its number is tail->count as
 * it was under the lock, and one thread only does this): a descriptor or an error. Add it (lock held). */
bool tail_wants_file(const struct tail *tail);
int tail_make_file(const struct tail *tail, unsigned index);
void tail_add_file(struct tail *tail, int fd);
/* Bytes that this entry would take. */
uint32_t tail_need(uint32_t record_length, uint32_t payload_length, uint32_t place_count);
bool tail_fits(const struct tail *tail, uint32_t need);
int tail_write(struct tail *tail, const struct entry *entry, const uint8_t *payload, uint32_t payload_length);
/* Bytes written since the checkpoint's file began. */
uint64_t tail_used(const struct tail *tail);

#endif
