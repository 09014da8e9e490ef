/* The exports of a volume: what the process that serves and the runner (runner.h), which starts and stops exporters, tell each
 * other through memory that they share, and the serving process's side of it.
 *
 * The serving process says in which epoch it is primary and wants to be exported (`wanted`); the runner says for which epoch
 * exporters run, or may run (`on`). Who ceases to be primary takes `wanted` away and waits until `on` is 0: from then on
 * nothing answers clients, and operations that were held may fail without a client seeing it.
 */
#ifndef BATON_EXPORTERS_EXPORTS_H
#define BATON_EXPORTERS_EXPORTS_H

#include "fs/config.h"

#include <jansson.h>
#include <stdatomic.h>

#define EXPORT_TEXT 200u
#define EXPORTS_ALL (EXPORTS_MAX + 1) /* those of the config, and the address */

enum export_state {
    EXPORT_OFF,      /* not wanted here */
    EXPORT_STARTING,
    EXPORT_ON,
    EXPORT_FAILED,   /* it does not serve, and a restart has not helped; it is tried again */
    EXPORT_STOPPING
};
const char *export_state_name(enum export_state state);

/* One sentence that one process writes and others read. */
struct export_words {
    _Atomic uint32_t turn; /* odd: it is being written */
    char text[EXPORT_TEXT];
};

struct export_shared {
    _Atomic int state;
    _Atomic int64_t since; /* CLOCK_BOOTTIME */
    _Atomic uint32_t restarts;
    struct export_words words; /* why it has failed; empty: it has not */
};

struct exports_shared {
    int wake;                /* eventfd: the runner's */
    _Atomic uint64_t wanted; /* the epoch; 0: none */
    atomic_bool hurry;       /* nobody answers for the mount any more: no goodbyes */
    _Atomic uint64_t on;     /* the runner's: the epoch; 0: nothing serves, and no address is here */
    atomic_bool broken;      /* the runner's: an export has failed, and another node may do better */
    _Atomic int32_t runner;  /* its process; 0: there is none */
    struct export_shared all[EXPORTS_ALL]; /* those of the config in its order; then the address */
};

struct volume;

/* Has it exports, or an address, or hooks? */
bool exports_any(const struct config *config);
/* Wakes the runner: something has changed. Any process. */
void exports_wake(struct exports_shared *shared);

/* Both processes': takes `wanted` away and returns when nothing serves any more, or after the exporters' own time limits: then it
 * says so in the log. `hurry`: the lease has ended, or nobody answers for the mount. Any thread, again at will. */
void exports_stop(struct exports_shared *shared, const struct config *config, bool hurry);

/* ---- The serving process's. Nothing happens where there is no runner. ---- */

/* The mount is writable in that epoch. */
void exports_begin(struct volume *volume, uint64_t epoch);
/* exports_stop() */
void exports_end(struct volume *volume, bool hurry);
/* The sentence of the first export that has failed; false: none. */
bool exports_broken(const struct volume *volume, char why[EXPORT_TEXT]);
json_t *exports_status(const struct volume *volume); /* an array; NULL: the volume has none */

void export_words_write(struct export_words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
void export_words_read(const struct export_words *words, char text[EXPORT_TEXT]);

#endif
