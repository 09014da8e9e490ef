/* The parts of baton status. All print for a person, from the daemon's answer. */
#ifndef BATON_TOOLS_STATUS_PARTS_H
#define BATON_TOOLS_STATUS_PARTS_H

#include "tools/tool.h"

void status_lease(const json_t *replication);    /* nothing, if the volume has no lease */
void status_takeover(const json_t *replication); /* nothing, if this node took nothing over since its start */
void status_exports(const json_t *exports);        /* NULL: nothing */
void status_why(const json_t *answer);

#endif
