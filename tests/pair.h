/* Two nodes of one volume in this process: real stores, real sockets on the loopback, no mount. For tests and
 * measurements of replication.
 */
#ifndef BATON_TESTS_PAIR_H
#define BATON_TESTS_PAIR_H

#include "fs/ops.h"
#include "fs/volume.h"
#include "replication/replicator.h"

struct played_register;

struct pair {
    struct played_register *played; /* the register of both, with a lease (played_pair); NULL: a file on each */
    void (*open_register)(struct played_register *played, unsigned node, struct volume *volume);
    void (*close_register)(struct played_register *played, unsigned node, struct volume *volume);
    struct config config;
    char secrets[2][KEY_TEXT];
    struct volume nodes[2];
};

/* Config (ports are free ones), keys, formatted stores under test_directory(). */
void pair_make(struct pair *pair, enum transport transport);
void pair_start(struct pair *pair, unsigned node); /* bails out if it does not start */
void pair_stop(struct pair *pair, unsigned node); /* without leaving: as if it died, but for the goodbye */
void pair_leave(struct pair *pair, unsigned node); /* orderly */
/* Nothing comes from this node any more, and no other node hears it: no goodbye either. pair_stop is to follow. */
void pair_silence(struct pair *pair, unsigned node);
/* Waits up to `seconds` until `link` of the node's status is this state; false with a diag of the status. */
bool pair_wait_link(struct pair *pair, unsigned node, const char *state, int seconds);
bool pair_wait_role(struct pair *pair, unsigned node, enum role role, int seconds);
/* Waits until both stores have the same last record. */
bool pair_wait_equal(struct pair *pair, int seconds);
/* Rows of all replicated tables, folded into a number. */
uint64_t pair_state(struct store *store);
/* A change and its acknowledgement, as a mount would wait for it. 0 or the error. */
int pair_create_file(struct pair *pair, unsigned node, const char *name, uint64_t *ino);
int pair_wait_for(struct pair *pair, unsigned node, enum volume_wait kind, uint64_t lsn, int seconds);

#endif
