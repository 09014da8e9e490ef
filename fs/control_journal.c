/* "journal" on the control socket: fs/journal_view.h over a connection. */
#include "fs/control.h"
#include "fs/journal_view.h"
#include "fs/volume.h"

static int send_line(void *context, json_t *line) {
    return control_send(context, line);
}

static bool gone(void *context, int timeout_ms) {
    return control_gone(context, timeout_ms);
}

static void handle(struct volume *volume, const json_t *request, struct control_reply *reply) {
    const struct journal_sink sink = {.context = reply, .send = send_line, .gone = gone};
    char why[512] = "";
    int error = journal_view(volume->store, &volume->config, request, &sink, why, sizeof why);
    if (error)
        control_error(reply, error, "%s", why);
}

void control_journal(void) {
    control_register("journal", handle);
}
