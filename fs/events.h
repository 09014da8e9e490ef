/* What has happened to a volume on this node: a ring of the last EVENTS_KEPT events, for `baton events` and for whoever
 * follows it over the control socket. The log has the same for people; here programs get it with names and numbers.
 *
 * An event is an object: "number" (1, 2, 3, … since the daemon's start), "time" (nanoseconds since 1970), "event" (a name that
 * stays: ARCHITECTURE.md lists them), "text" (a sentence), and what else its maker adds. Any thread; no lock of others is taken.
 */
#ifndef BATON_FS_EVENTS_H
#define BATON_FS_EVENTS_H

#include "fs/base.h"

#include <jansson.h>

#define EVENTS_KEPT 256u

struct events;
struct volume;

struct events *events_create(void); /* NULL: no memory */
void events_free(struct events *events);
/* `detail` is stolen; an object, or NULL. Never waits for readers; an event that there is no memory for is lost, and a later one's
 * number tells so. */
void events_put(struct events *events, const char *event, json_t *detail, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The oldest event with a number above `after`, as a new reference; waits up to `timeout_ms` for one. NULL: none came. */
json_t *events_next(struct events *events, uint64_t after, int timeout_ms);
uint64_t events_last(struct events *events); /* the newest one's number; 0: none yet */

/* events_put for a volume; does nothing where volume->events is NULL (tests). */
#define volume_event(volume, event, detail, ...) \
    events_put((volume)->events, event, detail, __VA_ARGS__)

/* Registers "events" {"follow": bool, "last": N} on the control socket: a line for each event, then {"end": true}. */
void control_events(void);

#endif
