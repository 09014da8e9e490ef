/* baton journal extract: what a rollback took back. */
#include "fs/journal_names.h"
#include "tools/copy_out.h"
#include "tools/journal_parts.h"
#include "tools/past_source.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

struct extracting {
    const struct tool *tool;
    const char *undone, *target;
    char *const *paths;
    size_t path_count;
    FILE *report;
    uint64_t partial;
};

static json_int_t number_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static void note_partial(void *context, const char *path) {
    struct extracting *x = context;
    char text[4 * PATH_MAX];
    text_escape(path, strlen(path), text, sizeof text);
    fprintf(x->report, "partial   %s\n", text);
    x->partial++;
}

static void write_head(const struct extracting *x, const json_t *ready) {
    fprintf(x->report,
            "Records %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT " of %s, which a rollback took back.\n"
            "files/ has what they made and changed, as it was after record %" JSON_INTEGER_FORMAT ".\n",
            number_of(ready, "first"), number_of(ready, "last"), x->undone, number_of(ready, "reached"));
    if (json_is_true(json_object_get(ready, "blank")))
        fprintf(x->report,
                "The journal no longer reaches back to record %" JSON_INTEGER_FORMAT
                ": of files that were older only what the\n"
                "records hold is there, and zeros elsewhere (\"partial\" below). Owners, modes and names that the "
                "records do not\n"
                "tell are those that the store has today. %" JSON_INTEGER_FORMAT
                " records made no sense without what was before.\n",
                number_of(ready, "first") - 1, number_of(ready, "refused"));
    if (number_of(ready, "reached") < number_of(ready, "last"))
        fprintf(x->report, "The file is damaged %s.\n", json_string_value(json_object_get(ready, "damage")));
    fputc('\n', x->report);
}

static int write_removed(const struct extracting *x, const struct tree *tree) {
    AUTO_FREE char *line = malloc(TREE_LINE_MAX);
    uint64_t at = 0;
    int error = line == NULL ? -ENOMEM : 0;
    while (error == 0) {
        error = tree->removed(tree->context, &at, line);
        if (error == 0)
            fprintf(x->report, "%s\n", line);
    }
    return error == -ENOENT ? 0 : fail("what was removed cannot be read: %s", strerror(-error));
}

/* What was said in the report's head, for those who do not open it. */
static int say(const struct extracting *x, const json_t *ready) {
    bool damaged = number_of(ready, "reached") < number_of(ready, "last");
    if (!x->tool->json) {
        printf("%" JSON_INTEGER_FORMAT " names had been removed or renamed; see %s/report.txt.\n",
               number_of(ready, "removed"), x->target);
        if (x->partial > 0)
            printf("%" PRIu64 " files are partial: the journal no longer reaches back to record %" JSON_INTEGER_FORMAT
                   ", so what they held before is missing (zeros); the report names them.\n",
                   x->partial, number_of(ready, "first") - 1);
    }
    return damaged ? fail("%s is damaged %s; what lies before it was extracted", x->undone,
                          json_string_value(json_object_get(ready, "damage")))
                   : EXIT_SUCCESS;
}

static int copy_files(struct extracting *x, const struct tree *tree, const json_t *ready) {
    char files[PATH_MAX];
    json_t *line = x->tool->json ? json_copy((json_t *)ready) : NULL;

    snprintf(files, sizeof files, "%s/files", x->target);
    struct copy_out *copy = copy_out_begin(tree, files);
    int status = copy != NULL ? EXIT_SUCCESS : EXIT_FAILURE;
    if (copy != NULL) {
        copy_out_on_partial(copy, note_partial, x);
        status = copy_out_paths(copy, x->paths, x->path_count);
        int problems = status ? status : copy_out_report(copy, files, line);
        int told = say(x, ready);
        status = problems ? problems : told;
        copy_out_free(copy);
    }
    if (line != NULL) {
        json_object_del(line, "ready");
        json_object_del(line, "version");
        json_object_set_new(line, "partial", json_integer((json_int_t)x->partial));
        print_json(line);
        json_decref(line);
    }
    return status;
}

static int extract(void *context, const struct tree *tree, const json_t *ready) {
    struct extracting *x = context;
    char path[PATH_MAX];

    if (!empty_directory(x->target))
        return EXIT_FAILURE;
    snprintf(path, sizeof path, "%s/report.txt", x->target);
    x->report = fopen(path, "wxe");
    if (x->report == NULL)
        return fail("%s cannot be made: %s", path, strerror(errno));
    write_head(x, ready);
    int listed = write_removed(x, tree);
    int status = copy_files(x, tree, ready);
    bool bad = ferror(x->report) != 0;
    if (fclose(x->report) != 0 || bad)
        return fail("%s cannot be written", path);
    return status ? status : listed;
}

int journal_extract(struct tool *tool, const char *undone, char **arguments, int count) {
    struct extracting x = {.tool = tool, .paths = arguments};
    char file[PATH_MAX];

    if (undone == NULL)
        return usage(tool->command,
                     "out of which file? Say --undone FILE; baton status names those that rollbacks left");
    if (count < 1)
        return usage(tool->command, "name a directory to extract to");
    if (realpath(undone, file) == NULL)
        return fail("%s cannot be opened: %s", undone, strerror(errno));
    json_t *request = json_pack("{s:s}", "undone", file);
    if (request == NULL)
        return fail("%s cannot be asked for: its name is not UTF-8; rename it", undone);
    int status = tool_load(tool);
    for (int i = 0; status == 0 && i < count - 1; i++)
        arguments[i] = path_in_volume(tool, arguments[i]);
    x.undone = file;
    x.target = arguments[count - 1];
    x.path_count = (size_t)count - 1;
    if (status == 0)
        status = with_past(tool, request, extract, &x);
    json_decref(request);
    return status;
}
