/* baton format: a new, empty store for a node, and its first register. */
#include "membership/register.h"
#include "tools/tool.h"

#include <stdio.h>
#include <sys/stat.h>

static int make_parents(const char *path) {
    char part[1024];

    for (size_t i = 1; path[i] != '\0' && i < sizeof part; i++) {
        part[i - 1] = path[i - 1];
        part[i] = '\0';
        if (path[i] == '/' && mkdir(part, 0755) != 0 && errno != EEXIST)
            return fail("%s cannot be made: %s", part, strerror(errno));
    }
    return 0;
}

static int run(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"first", no_argument, NULL, OPTION_OWN}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    char path[1100], why[1024] = "";
    bool first = false;
    int option;

    tool.command = &command_format;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == OPTION_OWN)
            first = true;
        else
            tool_option(&tool, option, optarg);
    if (optind < argc)
        return usage(&command_format, "\"%s\" is too much", argv[optind]);
    if (tool_load(&tool) != 0 || make_parents(tool.self->store) != 0)
        return EXIT_FAILURE;
    if (store_format(tool.self->store, tool.config.volume_id, tool.config.volume, tool.config.created, NULL, why,
                     sizeof why) != 0)
        return fail("%s", why);
    register_file_path(tool.self->store, path, sizeof path);
    first = first || tool.config.node_count == 1;
    if (register_file_first(path, first ? tool.self->name : NULL, why, sizeof why) != 0)
        return fail("%s", why);
    if (tool.json) {
        json_t *line = json_pack("{s:s, s:s, s:s, s:b}", "volume", tool.config.volume, "node", tool.self->name, "store",
                                 tool.self->store, "first", first);
        print_json(line);
        json_decref(line);
    } else {
        printf("Made an empty store for node %s of volume %s in %s.\n%s\n", tool.self->name, tool.config.volume,
               tool.self->store,
               first ? "It begins the volume: this node starts as primary."
               : config_register(&tool.config) == REGISTER_FILE
                   ? "It waits for a primary to fill it from (for a new volume, one node is formatted with --first)."
                   : "It is filled by the volume's primary; of a new volume, one of its nodes begins as that when all are there.");
    }
    return EXIT_SUCCESS;
}

const struct command command_format = {
    "format", "make a node's empty store",
    "usage: baton format --config FILE --node NAME [--first]\n"
    "\n"
    "Makes an empty store in the directory that the config file names for the node; it must be empty or absent. All\n"
    "stores of a volume begin equal. Do it once on each node, before batond starts there for the first time.\n"
    "\n"
    "  --first         for a new volume, on one node: it starts as primary. Never for a node of a volume that has data\n"
    "                  elsewhere, say after its disk was replaced: without --first it waits for a primary to feed it\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --json          print what was made as JSON\n",
    run};
