/* Random changes of every kind to a few files in two directories. Any thread. */
#ifndef BATON_TESTS_CHURN_H
#define BATON_TESTS_CHURN_H

#include "tests/fixture.h"

void churn_prepare(uint64_t *seed); /* once: what is written */
/* One change, whatever comes of it. 0, or an error that no operation of these may give: not ENOSPC, not what is wrong
 * with names. */
int churn(struct store *store, const uint64_t directories[2], uint64_t *seed);

#endif
