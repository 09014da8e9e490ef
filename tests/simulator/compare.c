/* Comparing copies is not played: nobody asks for it. */
#include "fs/apply.h"
#include "fs/compare.h"
#include "fs/paths.h"
#include "tests/simulator/sim.h"

const char *const table_names[TABLE_END] = {"inode", "dirent", "dircookie", "xattr", "extent", "orphan", "epoch"};

/* Never called. */
#define NOT_PLAYED(type, name, value, ...) \
    type name(__VA_ARGS__) { \
        sim_fail("%s is not played", #name); \
        return value; \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
NOT_PLAYED(int, range_hash, 0, struct store *state, const struct range *range, uint32_t rows_max, uint8_t hash[RANGE_HASH],
           uint32_t *rows)
NOT_PLAYED(int, range_cut, 0, struct store *state, struct range *range, uint32_t rows_max, uint32_t bytes_max,
           uint8_t hash[RANGE_HASH], uint32_t *rows, uint32_t *bytes)
NOT_PLAYED(int, range_split, 0, struct store *state, const struct range *range, uint32_t each, struct range *parts,
           unsigned room)
NOT_PLAYED(int, range_rows, 0, struct store *state, const struct range *range,
           int (*row)(void *context, struct span key, struct span value), void *context)
NOT_PLAYED(int, range_behind, 0, enum table table, struct span key, struct span value, struct key *behind)
NOT_PLAYED(int, rows_compare, 0, enum table table, const struct row_source *here, const struct row_source *there,
           int (*found)(void *context, const struct difference *difference), void *context)
NOT_PLAYED(int, inode_get, 0, struct store *store, uint64_t ino, struct inode_row *row)
NOT_PLAYED(int, dirent_get, 0, struct store *store, uint64_t parent, const void *name, size_t length, struct dirent_row *row)
NOT_PLAYED(struct paths *, paths_create, NULL, struct store *state)
NOT_PLAYED(int, paths_tell, 0, struct paths *paths, uint64_t ino, uint64_t directory, struct span name)
NOT_PLAYED(int, paths_search, 0, struct paths *paths, const uint64_t *inos, const uint64_t *datas, size_t count,
           paths_pause *pause, void *context)
NOT_PLAYED(uint64_t, paths_owner, 0, const struct paths *paths, uint64_t data)
NOT_PLAYED(bool, paths_text, false, struct paths *paths, uint64_t ino, unsigned which, char *path, size_t room)
#pragma GCC diagnostic pop
void paths_free(struct paths *paths) {
    (void)paths;
    sim_fail("paths_free is not played");
}
void paths_entry(struct paths *paths, uint64_t directory, struct span name, char *path, size_t room) {
    (void)paths, (void)directory, (void)name, (void)path, (void)room;
    sim_fail("paths_entry is not played");
}
