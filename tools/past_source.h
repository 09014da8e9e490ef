/* A past for a command: batond's, read over its socket, or one of the store at rest. */
#ifndef BATON_TOOLS_PAST_SOURCE_H
#define BATON_TOOLS_PAST_SOURCE_H

#include "fs/tree.h"
#include "tools/tool.h"

/* `request`: see fs/history_request.h. Calls `use` with the tree and with what is told about it; returns its exit status,
 * or one of its own when it has said why. On a terminal it shows how far the way back is. */
int with_past(const struct tool *tool, json_t *request,
              int (*use)(void *context, const struct tree *tree, const json_t *ready), void *context);

#endif
