/* The file handles that NFS servers give out, of the same files on every node: a client that has one goes on with it after a
 * failover. Each node notes them on the volume when it is primary, in .baton/handles.NODE; every node, also as standby, looks
 * whether its mount gives the same ones, and whether the noted ones lead to the same files there.
 */
#ifndef BATON_TOOLS_EXPORTER_HANDLES_H
#define BATON_TOOLS_EXPORTER_HANDLES_H

#include "fs/config.h"

#define HANDLES_WORDS 400u

struct handles_result {
    unsigned compared; /* of the files that were noted and have not changed since: equal ones */
    unsigned changed;  /* noted, and changed or removed since */
    unsigned wrong;
    unsigned noted; /* now; 0: it cannot be written to here */
    char words[HANDLES_WORDS];
};

/* 0: no handle is wrong. -EBADMSG: one is, or what is noted cannot be read. -ENOTCONN: the volume is not mounted here. Or another
 * errno. `words` say it in any case. As root. */
int handles_compare(const struct config *config, const struct node_config *self, struct handles_result *result);

#endif
