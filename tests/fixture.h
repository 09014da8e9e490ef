/* Stores for tests of operations: made in the test's directory, small, primary at once; a second one that is fed. */
#ifndef BATON_TESTS_FIXTURE_H
#define BATON_TESTS_FIXTURE_H

#include "fs/ops.h"
#include "tests/tables.h"
#include "tests/tap.h"

extern const struct caller root_caller;

/* Formats and opens `name` in test_directory(); with an epoch if `counter` is not 0. Bails out on errors. */
struct store *fixture_store(const char *name, unsigned counter);
struct store *fixture_open(const char *name);
/* The options both use. */
extern struct store_options fixture_options;
extern const uint8_t fixture_volume[STORE_ID_SIZE];

/* Gives `to` every record of `from` that it does not have. False, with a diagnosis, if it refuses one. */
bool fixture_feed(struct store *from, struct store *to);
bool fixture_feed_until(struct store *from, struct store *to, uint64_t last); /* not beyond that one */
/* ok() that both say the same. */
bool fixture_same(struct store *a, struct store *b, const char *what);

/* Shorthands that bail out on errors. */
uint64_t make(struct store *store, uint64_t parent, const char *name, uint32_t mode);
struct inode_row row_of(struct store *store, uint64_t ino);

void tell(void *context, const char *sentence); /* for check_store: a diag() */

#endif
