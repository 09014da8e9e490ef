/* What a person asks of history, as JSON: {"lsn": N}, {"time": nanoseconds} or {"undone": FILE}. The same in batond and
 * over a store at rest.
 */
#ifndef BATON_FS_HISTORY_REQUEST_H
#define BATON_FS_HISTORY_REQUEST_H

#include "fs/history.h"

#include <jansson.h>

/* Opens the past that is asked for. *ready, a new reference, tells about it: "lsn"; of an undone tail what struct
 * undone_report has.
 * 0 or a negative errno with a sentence in `why`. */
int history_request(struct store *store, const json_t *request, history_progress *progress, void *context,
                    struct store **past, json_t **ready, char *why, size_t why_room);

#endif
