/* Full synchronization is not played: a store that would need one stays as it is. */
#include "fs/import.h"
#include "fs/undone.h"
#include "tests/simulator/sim.h"

#include <stdio.h>

int import_open(struct store *old, struct import **import, char *why, size_t why_room) {
    (void)old, (void)import;
    snprintf(why, why_room, "full synchronization is not played");
    return -EOPNOTSUPP;
}

/* Never called without one. */
#define NOT_PLAYED(type, name, value, ...) \
    type name(__VA_ARGS__) { \
        sim_fail("%s is not played", #name); \
        return value; \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
void import_close(struct import *import) {
    if (import)
        sim_fail("import_close is not played");
}
NOT_PLAYED(int, import_discard, 0, struct import *import)
NOT_PLAYED(enum import_phase, import_phase, IMPORT_ROWS, const struct import *import)
NOT_PLAYED(bool, import_state, false, const struct import *import, struct import_state *state)
NOT_PLAYED(struct import_progress, import_progress, (struct import_progress){0}, const struct import *import)
NOT_PLAYED(int, import_begin, 0, struct import *import, const struct import_state *state)
NOT_PLAYED(int, import_next_rows, 0, const struct import *import, enum table *table, struct key *after)
NOT_PLAYED(int, import_common_point, 0, struct import *import, uint64_t *lsn)
NOT_PLAYED(int, import_keep_old, 0, struct import *import)
NOT_PLAYED(int, import_rows, 0, struct import *import, enum table table, const struct key *after,
           int (*each)(void *context, struct span *key, struct span *value), void *context, bool done)
NOT_PLAYED(int, import_wanted, 0, struct import *import, const struct import_want *after, struct import_want *wants,
           unsigned max, unsigned *count)
NOT_PLAYED(int, import_blocks, 0, struct import *import, const struct import_want *want, const uint8_t *bytes)
NOT_PLAYED(int, import_finish, 0, struct import *import)
NOT_PLAYED(int, undone_save, 0, struct store *store, uint64_t lsn, char *path, size_t room)
#pragma GCC diagnostic pop
void import_position(const struct import *import, struct position *position) {
    (void)import, (void)position;
    sim_fail("import_position is not played");
}
