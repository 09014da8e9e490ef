/* Fencing: a program of the operator's powers another node off. For two nodes without a third voter it is the only way to be sure
 * that the other one does not serve any more.
 */
#ifndef BATON_MEMBERSHIP_FENCE_H
#define BATON_MEMBERSHIP_FENCE_H

#include "fs/base.h"

#include <stdatomic.h>

/* Runs `program VOLUME NODE`, with both in the environment, too (BATON_VOLUME, BATON_NODE), and waits for its end; its output goes
 * to this process's standard error. After `timeout` ns it is killed, with all that it has started. 0: it ended with status 0, and
 * only then is NODE off. Else a negative errno with a sentence. When `*cancelled` (which may be NULL) becomes true, it is killed
 * as well. */
int fence_run(const char *program, const char *volume, const char *node, int64_t timeout, atomic_bool *cancelled, char *why,
              size_t why_room);

#endif
