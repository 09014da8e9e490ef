/* For tests of fs/import.h: a provider in the same process, asked without a network; stores with random content. */
#ifndef BATON_TESTS_IMPORTING_H
#define BATON_TESTS_IMPORTING_H

#include "fs/history.h"
#include "fs/import.h"
#include "tests/churn.h"

#define ROWS_BYTES (32u << 10)
#define WANTS 64u /* pieces that are asked for at once */

struct source {
    struct store *store, *past;
    struct import_state state;
    struct tables *then;
};

/* The state at the store's end; bails out on errors. source_done: what it holds goes, not the store. */
struct source source_at_end(struct store *store);
void source_done(struct source *source);

struct answer { /* rows copied out, as a frame would hold them */
    uint8_t bytes[ROWS_BYTES + KEY_MAX + (70u << 10)];
    uint32_t length, at;
    bool done;
};

extern uint32_t rows_bytes; /* in one answer, ROWS_BYTES at most */
extern struct answer last_answer;
void answer_rows(struct source *source, enum table table, const struct key *after, struct answer *answer);
int answer_next(void *answer, struct span *key, struct span *value); /* for import_rows */

extern useconds_t pace; /* a pause before each answer */
/* Until there are none wanted; 0 or an error that is not of a full disk. The first `unreadable` pieces cannot be read. */
int fetch_rows(struct import *import, struct source *source);
int fetch_blocks(struct import *import, struct source *source, unsigned unreadable);
/* From wherever it is to its end. */
int import_all(struct import *import, struct source *source);

extern uint64_t directories[2], work_seed;
struct store *busy_store(const char *name); /* with an epoch and the two directories */
void work(struct store *store, unsigned changes);

extern const struct key none;
extern const char *aside;                     /* the next old store is kept as that */
struct import *open_import(struct store *old); /* or bails out */
/* The new store takes the old one's place; returns it, open. The import and the old store are closed. */
struct store *replace(struct import *import, struct store *old, const char *name);
void is_then(struct store *store, const struct source *source, const char *what); /* the source's state, and no more */
void is_in_order(struct store *store, const char *what);                          /* closes and checks it */

#endif
