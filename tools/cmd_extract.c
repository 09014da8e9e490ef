/* baton extract: files out of a store at rest, without mounting it. */
#include "tools/copy_out.h"
#include "tools/tool.h"

static int extract(const struct tool *tool, const char *path, const char *target) {
    json_t *line = tool->json ? json_object() : NULL;
    struct store *store;

    int status = tool_open(tool, &store);
    if (status) {
        json_decref(line);
        return status;
    }
    struct tree tree = tree_of_store(store);
    struct copy_out *copy = copy_out_begin(&tree, target);
    status = copy != NULL ? copy_out_content(copy, path) : EXIT_FAILURE;
    if (status == 0) {
        status = copy_out_report(copy, target, line);
        if (line != NULL)
            print_json(line);
    }
    if (copy != NULL)
        copy_out_free(copy);
    store_close(store);
    json_decref(line);
    return status;
}

static int run(int argc, char **argv) {
    enum { OPTION_PATH = OPTION_OWN };
    static const struct option options[] = {
        TOOL_OPTIONS, TOOL_STORE_OPTION, {"path", required_argument, NULL, OPTION_PATH}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    const char *path = "/";
    int option;

    tool.command = &command_extract;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_PATH)
            path = optarg;
        else
            tool_option(&tool, option, optarg);
    }
    if (optind + 1 != argc)
        return usage(&command_extract, "name one directory to copy to");
    return tool_load(&tool) == 0 ? extract(&tool, path, argv[optind]) : EXIT_FAILURE;
}

const struct command command_extract = {
    "extract", "copy files out of a store at rest, without mounting it",
    "usage: baton extract [--path PATH] DIRECTORY\n"
    "\n"
    "Copies what is in the store into DIRECTORY, which must be new or empty: with modes, owners, times, links, holes,\n"
    "extended attributes and ACLs. Every block is checked; a damaged one is told and becomes zeros in the copy. batond\n"
    "must not run on the store.\n"
    "\n"
    "  --path PATH     only this file or directory of the volume; a directory's content goes into DIRECTORY\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --store DIR     instead of both: the store's directory\n"
    "  --json          print numbers as JSON\n"
    "\n"
    "Exit status: 0 all was copied; 1 not all, see the messages.\n",
    run};
