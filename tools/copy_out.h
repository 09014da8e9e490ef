/* Copies a tree (fs/tree.h) into a directory: contents with holes, modes, owners, times, links, extended attributes, ACLs.
 * What cannot be copied as it is is told on standard error and counted, and the rest is copied. On a terminal, standard
 * error shows how far it is.
 */
#ifndef BATON_TOOLS_COPY_OUT_H
#define BATON_TOOLS_COPY_OUT_H

#include "fs/tree.h"

#include <jansson.h>

struct copy_out;

struct copy_counts {
    uint64_t files, directories, others, bytes, problems;
};

/* Makes the directory if there is none. False, having said why, if it is not empty or cannot be made. */
bool empty_directory(const char *path);

/* `target` must be empty or absent; its parent must exist. NULL: it has said why. */
struct copy_out *copy_out_begin(const struct tree *tree, const char *target);
/* What lies at `path` goes into the target directory; of a directory, its content. An exit status. */
int copy_out_content(struct copy_out *copy, const char *path);
/* Each path goes to the same path below the target; none: the whole tree. An exit status. */
int copy_out_paths(struct copy_out *copy, char *const *paths, size_t count);
/* Called for each file of which only a part is known (TREE_PARTIAL), with its path. */
void copy_out_on_partial(struct copy_out *copy, void (*partial)(void *context, const char *path), void *context);
const struct copy_counts *copy_out_counts(const struct copy_out *copy);
void copy_out_free(struct copy_out *copy);

/* "Copied 12 files (3 KiB), …", or the same as a member of `line` if that is not NULL. An exit status: 1 if there were
 * problems. */
int copy_out_report(const struct copy_out *copy, const char *target, json_t *line);

#endif
