/* Changing the map from file blocks to places. Reading it is in fs/apply.h (extent_walk, extent_rows).
 *
 * Called by apply alone, under the engine lock. How rows are cut and joined depends on where blocks lie and so differs
 * between nodes; what they say, block by block, does not.
 */
#ifndef BATON_FS_EXTENT_H
#define BATON_FS_EXTENT_H

#include "fs/table.h"

/* Blocks [first, to) become a hole. Rows that reach over an edge are cut; what was written is dropped from the map.
 * *freed: mapped blocks that went. */
int extent_clear(struct change *change, uint64_t data, uint64_t first, uint64_t to, uint64_t *freed);

/* Maps blocks from `first` on to the places, in order. Nothing may be mapped there. 8 bytes of checksum a block. */
int extent_put(struct change *change, uint64_t data, uint64_t first, const struct place *places, uint32_t place_count,
               const uint8_t *checksums);

/* Holes in [first, to) become unwritten blocks. *added: how many blocks. */
int extent_fill(struct change *change, uint64_t data, uint64_t first, uint64_t to, uint64_t *added);

/* An extent row taken apart. 0 or -EIO, with a sentence in the log. */
struct extent {
    uint64_t data;
    uint64_t first;
    struct place place;
    const uint8_t *checksums; /* NULL: unwritten */
};
int extent_parse(struct span key, struct span value, struct extent *extent);

#endif
