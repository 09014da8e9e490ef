/* "scrub" on the control socket. */
#include "fs/control.h"
#include "fs/journal_names.h"
#include "fs/scrub.h"
#include "fs/volume.h"

static json_t *files(struct volume *volume, const struct scrub_pass *pass) {
    uint64_t inos[SCRUB_FILES];
    char path[4200];
    json_t *list = json_array();
    struct names *names = pass->file_count ? names_create(volume->store) : NULL;
    for (uint32_t i = 0; i < pass->file_count; i++)
        inos[i] = pass->files[i].ino;
    if (names)
        names_search(names, inos, pass->file_count);
    for (uint32_t i = 0; i < pass->file_count; i++) {
        json_t *file = json_pack("{s:I, s:I}", "inode", (json_int_t)inos[i], "block", (json_int_t)pass->files[i].block);
        if (names && names_path(names, inos[i], path, sizeof path))
            json_object_set_new(file, "path", json_string(path));
        json_array_append_new(list, file);
    }
    if (names)
        names_free(names);
    return list;
}

static json_t *show_pass(struct volume *volume, const struct scrub_pass *pass) {
    return json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:o}", "begun", (json_int_t)pass->begun, "ended",
                     (json_int_t)pass->ended, "seconds", (double)pass->spent / 1e9, "bytes",
                     (json_int_t)(pass->blocks * BATON_BLOCK), "bytes_of", (json_int_t)(pass->of * BATON_BLOCK), "found",
                     (json_int_t)pass->found, "mended", (json_int_t)pass->mended, "unmended", (json_int_t)pass->unmended,
                     "rate", (json_int_t)pass->rate, "resumed", (json_int_t)pass->resumed, "stopped", (int)pass->stopped,
                     "files", files(volume, pass));
}

static void show(struct volume *volume, struct control_reply *reply) {
    struct scrub_state state;
    scrub_get(volume->scrub, &state);
    json_t *line = json_pack("{s:b, s:b}", "running", (int)state.running, "end", 1);
    if (state.running)
        json_object_set_new(line, "now", show_pass(volume, &state.now));
    if (state.last.begun)
        json_object_set_new(line, "last", show_pass(volume, &state.last));
    control_send(reply, line);
}

static void handle(struct volume *volume, const json_t *request, struct control_reply *reply) {
    const char *action = json_string_value(json_object_get(request, "action"));
    json_int_t rate = json_integer_value(json_object_get(request, "rate"));
    int rc = 0;
    if (action && rate >= 0 && strcmp(action, "start") == 0)
        rc = scrub_start(volume->scrub, (uint64_t)rate);
    else if (action && strcmp(action, "stop") == 0)
        rc = scrub_stop(volume->scrub);
    else if (!action || strcmp(action, "status") != 0)
        rc = -EINVAL;
    if (rc == -EINVAL)
        control_error(reply, rc, "say what to do: start, stop or status; the rate is a number of bytes a second");
    else if (rc == -EALREADY && rate == 0)
        control_error(reply, rc, "a scrub is running already; \"baton scrub --status\" shows how far it is");
    else if (rc == -ENOENT)
        control_error(reply, rc, "no scrub is running");
    else
        show(volume, reply);
}

void control_scrub(void) {
    control_register("scrub", handle);
}
