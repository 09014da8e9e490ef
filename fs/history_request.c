#include "fs/history_request.h"

#include "fs/history_undone.h"

#include <stdio.h>

static int settle(struct store *store, const json_t *request, uint64_t *lsn, char *why, size_t why_room) {
    const json_t *number = json_object_get(request, "lsn"), *time = json_object_get(request, "time");
    if (json_is_integer(time))
        return history_find(store, json_integer_value(time), lsn, why, why_room);
    *lsn = (uint64_t)json_integer_value(number);
    if (json_is_integer(number) && json_integer_value(number) >= 0)
        return 0;
    snprintf(why, why_room, "say \"lsn\" or \"time\"");
    return -EINVAL;
}

static json_t *report_json(const struct undone_report *report) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "first", (json_int_t)report->first, "last",
                     (json_int_t)report->last, "reached", (json_int_t)report->reached, "refused",
                     (json_int_t)report->refused, "removed", (json_int_t)report->removed, "passing",
                     (json_int_t)report->passing, "blank", report->blank, "damage", report->damage);
}

int history_request(struct store *store, const json_t *request, history_progress *progress, void *context,
                    struct store **past, json_t **ready, char *why, size_t why_room) {
    const char *undone = json_string_value(json_object_get(request, "undone"));
    struct undone_report report;
    uint64_t lsn;
    int error;

    if (undone) {
        error = history_open_undone(store, undone, progress, context, past, &report, why, why_room);
        if (error == 0)
            *ready = report_json(&report);
        return error;
    }
    error = settle(store, request, &lsn, why, why_room);
    if (error == 0)
        error = history_open(store, lsn, NULL, progress, context, past, why, why_room);
    if (error == 0)
        *ready = json_pack("{s:I}", "lsn", (json_int_t)lsn);
    return error;
}
