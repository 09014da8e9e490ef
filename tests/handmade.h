/* Records made by hand, for tests of the store without the operations on top. */
#ifndef BATON_TESTS_HANDMADE_H
#define BATON_TESTS_HANDMADE_H

#include "fs/store.h"

/* A file in the root directory. Its inode number, or 0. */
uint64_t create_file(struct store *store, const char *name);
/* Overwrites `blocks` blocks from `first` on with bytes made of `fill`. Its LSN, or 0. */
uint64_t write_blocks(struct store *store, uint64_t ino, uint64_t first, uint32_t blocks, uint8_t fill);

#endif
