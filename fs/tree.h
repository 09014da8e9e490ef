/* A tree of files to be read by somebody who copies it: a store's, a past's (fs/history.h), or one that batond reads for a
 * tool (tools/tree_remote.h). One thread.
 */
#ifndef BATON_FS_TREE_H
#define BATON_FS_TREE_H

#include "fs/ops.h"

#define TREE_LIST_MAX 128u         /* entries in one answer */
#define TREE_DATA_MAX (1u << 20)   /* bytes in one answer */

#define TREE_LINE_MAX 10000u

#define TREE_PARTIAL 1u /* what the file held before is not known: see fs/history_undone.h */

struct tree_entry {
    uint64_t cookie; /* where the list goes on */
    uint64_t ino;
    struct inode_row row;
    uint32_t flags; /* TREE_… */
    char name[BATON_NAME_MAX + 1];
};

struct tree_data {
    uint64_t from;   /* the first written byte at or after the offset */
    uint32_t length; /* bytes from there on; 0: there are no more */
    bool bad;        /* they cannot be read, or fail their checksum */
};

/* 0 or a negative errno. */
struct tree {
    void *context;
    /* The root for an empty name. */
    int (*look)(void *context, uint64_t directory, const char *name, struct tree_entry *entry);
    int (*list)(void *context, uint64_t directory, uint64_t cookie, struct tree_entry entries[TREE_LIST_MAX],
                unsigned *count);
    int (*data)(void *context, uint64_t ino, uint64_t offset, uint8_t buffer[TREE_DATA_MAX], struct tree_data *data);
    int (*target)(void *context, uint64_t ino, char target[BATON_SYMLINK_MAX + 1]);
    /* The attribute whose name comes after `name` (at first the empty one), which is replaced. -ENOENT: no more. */
    int (*xattr)(void *context, uint64_t ino, char name[BATON_NAME_MAX + 1], uint8_t value[BATON_XATTR_VALUE_MAX],
                 uint32_t *length);
    /* Of an undone tail: the next line of what it removed and renamed; *at begins with 0. -ENOENT: no more. */
    int (*removed)(void *context, uint64_t *at, char line[TREE_LINE_MAX]);
    /* True, with a sentence, if nothing more can be had. */
    bool (*ended)(void *context, char *why, size_t why_room);
};

/* Of a store or a past, which is the context of the table's functions. */
struct tree tree_of_store(struct store *store);

#endif
