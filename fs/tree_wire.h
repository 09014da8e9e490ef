/* How a tool reads a past through batond: after the request {"command": "history", …} and its answer, a line with "ready",
 * the connection carries these, one answer for each question, until the tool closes it. Both ends are on one machine, of
 * one version (the ready line has TREE_WIRE_VERSION).
 */
#ifndef BATON_FS_TREE_WIRE_H
#define BATON_FS_TREE_WIRE_H

#include "fs/tree.h"

#define TREE_WIRE_VERSION 1

enum tree_question_kind { TREE_LOOK = 1, TREE_LIST, TREE_DATA, TREE_TARGET, TREE_XATTR, TREE_REMOVED };

struct tree_question { /* a name of `length` bytes follows */
    uint64_t ino;
    uint64_t at;     /* LIST: cookie; DATA: offset; REMOVED */
    uint32_t kind;
    uint32_t length; /* LOOK and XATTR: at most BATON_NAME_MAX; else 0 */
};

struct tree_answer { /* `length` bytes follow */
    uint64_t from;   /* DATA, REMOVED */
    int32_t error;   /* 0 or a negative errno */
    uint32_t ended;  /* nothing more can be had; the bytes are a sentence */
    uint32_t bad;    /* DATA: there are no bytes, but so many are bad */
    uint32_t count;  /* LOOK, LIST: entries; XATTR: of the bytes, so many are the name's */
    uint32_t length;
    uint32_t unused; /* 0: no padding */
};

struct tree_wire_entry { /* the name follows */
    uint64_t cookie, ino;
    struct inode_row row;
    uint32_t flags;
    uint8_t name_length;
} __attribute__((packed));

#define TREE_ANSWER_MAX (TREE_LIST_MAX * (sizeof(struct tree_wire_entry) + BATON_NAME_MAX))
_Static_assert(TREE_ANSWER_MAX <= TREE_DATA_MAX && BATON_NAME_MAX + BATON_XATTR_VALUE_MAX <= TREE_DATA_MAX,
               "every answer fits into a buffer for data");

#endif
