/* baton journal restore: files as they were. */
#include "tools/copy_out.h"
#include "tools/journal_parts.h"
#include "tools/past_source.h"

#include <stdio.h>

struct restoring {
    const struct tool *tool;
    const char *target;
    char *const *paths;
    size_t path_count;
};

static int copy_all(void *context, const struct tree *tree, const json_t *ready) {
    const struct restoring *restoring = context;
    json_t *lsn = json_object_get(ready, "lsn");
    struct copy_out *copy = copy_out_begin(tree, restoring->target);
    if (copy == NULL)
        return EXIT_FAILURE;
    json_t *line = restoring->tool->json ? json_pack("{s:O}", "lsn", lsn) : NULL;
    int refused = copy_out_paths(copy, restoring->paths, restoring->path_count);
    if (line == NULL && !refused)
        printf("As it was after record %" JSON_INTEGER_FORMAT ": ", json_integer_value(lsn));
    int status = refused ? refused : copy_out_report(copy, restoring->target, line);
    if (line != NULL && !refused)
        print_json(line);
    copy_out_free(copy);
    json_decref(line);
    return status;
}

char *path_in_volume(const struct tool *tool, char *path) {
    size_t mount = tool->self != NULL ? strlen(tool->self->mount) : 0;
    bool below =
        mount > 0 && strncmp(path, tool->self->mount, mount) == 0 && (path[mount] == '/' || path[mount] == '\0');
    return below ? path + mount : path;
}

static json_t *request_of(const char *at) {
    json_int_t value;
    if (parse_number(at, &value) == 0)
        return json_pack("{s:I}", "lsn", value);
    if (parse_time(at, &value) == 0)
        return json_pack("{s:I}", "time", value);
    return NULL;
}

int journal_restore(struct tool *tool, const char *at, char **arguments, int count) {
    struct restoring restoring = {.tool = tool, .paths = arguments};

    if (at == NULL)
        return usage(tool->command, "as of when? Say --at TIME or --at LSN");
    if (count < 1)
        return usage(tool->command, "name a directory to restore to");
    json_t *request = request_of(at);
    if (request == NULL)
        return usage(tool->command,
                     "--at \"%s\" is neither an LSN nor a time; say 2026-11-21 00:50, 00:50, 10min (ago) or @SECONDS",
                     at);
    int status = EXIT_SUCCESS;
    if (json_integer_value(json_object_get(request, "time")) > clock_now())
        status = usage(tool->command, "--at \"%s\" lies in the future", at);
    if (status == 0)
        status = tool_load(tool);
    for (int i = 0; status == 0 && i < count - 1; i++)
        arguments[i] = path_in_volume(tool, arguments[i]);
    restoring.target = arguments[count - 1];
    restoring.path_count = (size_t)count - 1;
    if (status == 0)
        status = with_past(tool, request, copy_all, &restoring);
    json_decref(request);
    return status;
}
