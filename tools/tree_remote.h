/* A past that batond reads for us, over its control socket (fs/tree_wire.h). One thread. */
#ifndef BATON_TOOLS_TREE_REMOTE_H
#define BATON_TOOLS_TREE_REMOTE_H

#include "fs/tree.h"

struct tree_remote {
    int fd; /* after the ready line; not closed here */
    uint8_t *buffer;
    bool ended;
    char why[600];
};

/* 0 or -ENOMEM. tree_remote_end() frees. */
int tree_remote_begin(struct tree_remote *remote, int fd, struct tree *tree);
void tree_remote_end(struct tree_remote *remote);

#endif
