/* "events" on the control socket: those that are remembered, and with "follow" those that come. */
#include "fs/control.h"
#include "fs/events.h"
#include "fs/volume.h"

#define LOOK_MS 200 /* how soon a client that has gone, or a daemon that stops, is noticed */

static void handle(struct volume *volume, const json_t *request, struct control_reply *reply) {
    bool follow = json_is_true(json_object_get(request, "follow"));
    json_int_t last = json_integer_value(json_object_get(request, "last"));
    struct events *events = volume->events;
    if (!events) {
        control_error(reply, -ENOTSUP, "nothing is remembered here");
        return;
    }
    uint64_t newest = events_last(events), after = last > 0 && (uint64_t)last < newest ? newest - (uint64_t)last : 0;
    while (follow || after < newest) {
        json_t *event = events_next(events, after, follow ? LOOK_MS : 0);
        if (!event && !follow)
            break;
        if (event) {
            after = (uint64_t)json_integer_value(json_object_get(event, "number"));
            if (control_send(reply, event) != 0)
                return;
        } else if (control_gone(reply, 0)) {
            return;
        }
    }
    control_send(reply, json_pack("{s:b}", "end", 1));
}

void control_events(void) {
    control_register("events", handle);
}
