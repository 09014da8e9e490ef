/* The contents of a store's shared tables, taken out, so that two states can be compared: bit by bit (after an undo),
 * or in what they say (two nodes: where blocks lie and how the map is cut into rows differs). Takes the lock.
 */
#ifndef BATON_TESTS_TABLES_H
#define BATON_TESTS_TABLES_H

#include "fs/store.h"

enum tables_view {
    TABLES_EXACT,  /* all bytes of all rows */
    TABLES_LOGICAL /* the map as block → checksum, unwritten ranges joined */
};

struct tables; /* free with tables_free */
struct tables *tables_take(struct store *store, enum tables_view view);
/* Of rows that come from elsewhere, in the order of tables and keys: as TABLES_EXACT has them. */
struct tables *tables_empty(void);
void tables_add(struct tables *tables, enum table table, struct span key, struct span value);
void tables_free(struct tables *tables);
/* True if equal. Else `why` says the first difference. Both of the same view. */
bool tables_equal(const struct tables *a, const struct tables *b, char *why, size_t why_room);
size_t tables_rows(const struct tables *tables);

#endif
