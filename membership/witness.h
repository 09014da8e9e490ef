/* The volumes of a witness: config files of any number of them, read at the start and at every SIGHUP, and their voters
 * (voter_host.h). One thread, but for witness_status().
 */
#ifndef BATON_MEMBERSHIP_WITNESS_H
#define BATON_MEMBERSHIP_WITNESS_H

#include "fs/base.h"

#include <jansson.h>

#define WITNESS_CONFIGS_MAX 256u /* arguments */

struct witness;

struct witness_options {
    const char *state;      /* directory of the voters' states */
    const char *secret_key; /* NULL: FILE.witness.key beside one of the config files */
    unsigned count;
    char **configs;         /* files, and directories whose *.conf are meant */
};

/* Reads the files, listens where the first good one says, and serves all good ones. A file that is bad is logged and, by
 * status, shown. 0, or a negative errno and a sentence: there is no good one, the key does not fit, the port or the state is
 * in use. */
int witness_open(const struct witness_options *options, struct witness **witness, char *why, size_t why_room);
/* Reads the files again: new volumes are served, those whose files are gone are dropped (a file that was named itself and is
 * gone is an error). As long as a file is bad, its volume is served as before. Every error is logged. */
void witness_reload(struct witness *witness);
unsigned witness_count(const struct witness *witness); /* of volumes that are served */
const char *witness_address(const struct witness *witness);
/* What it serves, and what it cannot, as `baton-witness --status --json` prints it. Any thread. NULL: no memory. */
json_t *witness_status(struct witness *witness);
void witness_close(struct witness *witness);

#endif
