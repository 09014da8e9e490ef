/* For tests of the store without the operations on top: records made by hand, and one store after the other in `path`. */
#ifndef BATON_TESTS_HANDMADE_H
#define BATON_TESTS_HANDMADE_H

#include "fs/store.h"

/* The store that the functions below mean. */
extern char path[512];
extern struct store_options options; /* small segments and tail files; a test may change what it likes */
extern const uint8_t volume[STORE_ID_SIZE];
extern char why[512]; /* what the last call had to say */

void format_store(const char *name); /* `path` becomes test_directory()/name, a new store; bails out on errors */
struct store *must_open(void);       /* bails out on errors */
void tell(void *context, const char *sentence); /* for check_store: a diag() */
/* Runs it in a child, which ends then, or before by itself: its exit status, or a signal's number below zero. */
int child_run(void (*run)(void));

/* A file in the root directory. Its inode number, or 0. */
uint64_t create_file(struct store *store, const char *name);
/* Overwrites `blocks` blocks from `first` on with bytes made of `fill`. Its LSN, or 0. */
uint64_t write_blocks(struct store *store, uint64_t ino, uint64_t first, uint32_t blocks, uint8_t fill);

/* The record `lsn` with its data, which is malloc()ed; bails out if there is none. Give both back: take_back(). */
struct taken {
    struct entry *entry;
    uint8_t *payload;
    uint32_t payload_length;
    int error; /* of entry_payload: the data is not to be had */
};
struct taken take_record(struct store *store, uint64_t lsn);
void take_back(struct taken *taken);
/* Records of the journal whose data is not to be had. */
unsigned records_without_data(struct store *store);
/* The slot of the checkpoint that was written last becomes unreadable. */
void rot_newest_slot(void);

#endif
