/* The forms that rows of the shared tables can have, whoever made them. A row's checksum only says that it is what somebody
 * wrote; rows of another node (fs/import.h) are looked at here before they are taken, and what else reads rows may rely on
 * nothing that it has not looked at itself.
 *
 * Pure functions; any thread.
 */
#ifndef BATON_FS_ROW_H
#define BATON_FS_ROW_H

#include "fs/table.h"

/* Lengths of key and value, names, kinds, times and sizes are possible. What a row says of others is not looked at. */
bool row_is_possible(enum table table, struct span key, struct span value);

#endif
