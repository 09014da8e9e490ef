/* The journal for people: what `baton journal` shows, of a store in use (through fs/control_journal.c) and at rest.
 *
 * Reads record by record through store_read(), so the engine lock is held for one record at a time. One thread a view.
 */
#ifndef BATON_FS_JOURNAL_VIEW_H
#define BATON_FS_JOURNAL_VIEW_H

#include "fs/config.h"
#include "fs/store.h"

#include <jansson.h>

struct journal_sink {
    void *context;
    int (*send)(void *context, json_t *line); /* steals the reference; not 0: nobody listens any more */
    bool (*gone)(void *context, int timeout_ms); /* waits as long; true: nobody listens any more */
};

/* The request: {"action": "list" | "show" | "follow" | "verify" | "stat", …} with, as filters of list and follow,
 * "from", "to" (LSN), "since", "until" (nanoseconds since 1970), "path", "inode", "type" (a name), "last" (so many
 * records before the end; follow: 10 is usual); of show "lsn"; of verify "from", "to", "data" (false: checksums of the
 * data are not recomputed).
 *
 * Sends lines: {"record": {…}} (see record_json()); of verify {"bad": {"lsn", "what"}}; of follow also {"undone": LSN}
 * when records above LSN were taken back, and {"trimmed": LSN} when the journal no longer has what should come next; and
 * at the end {"end": true, …}: "records" shown, or the result of verify or stat. An error returns a negative errno and a
 * sentence, and no end was sent. */
int journal_view(struct store *store, const struct config *config_or_null, const json_t *request,
                 const struct journal_sink *sink, char *why, size_t why_room);

#endif
