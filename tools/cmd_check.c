/* baton check: is a store at rest whole? */
#include "fs/check.h"
#include "tools/tool.h"

#include <stdio.h>

struct findings {
    bool json;
    unsigned count;
};

static void take(void *context, const char *sentence) {
    struct findings *findings = context;

    findings->count++;
    if (!findings->json) {
        puts(sentence);
        return;
    }
    json_t *text = json_string(sentence);
    json_t *line = json_pack("{s:o}", "finding", text != NULL ? text : json_string("a finding that is no text"));
    print_json(line);
    json_decref(line);
}

static int run(int argc, char **argv) {
    enum { OPTION_DATA = OPTION_OWN };
    static const struct option options[] = {
        TOOL_OPTIONS, TOOL_STORE_OPTION, {"data", no_argument, NULL, OPTION_DATA}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    struct findings findings = {0};
    unsigned flags = 0;
    int option;

    tool.command = &command_check;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_DATA)
            flags |= CHECK_DATA;
        else
            tool_option(&tool, option, optarg);
    }
    if (optind < argc)
        return usage(&command_check, "\"%s\" is too much; a store is named by --store DIR", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    findings.json = tool.json;
    fflush(stdout); /* the check forks */
    int found = check_store(tool_store(&tool), flags, take, &findings);
    if (tool.json) {
        json_t *line = json_pack("{s:b, s:s, s:i, s:b}", "end", 1, "store", tool_store(&tool), "findings",
                                 found < 0 ? (int)findings.count : found, "whole", found == 0);
        print_json(line);
        json_decref(line);
    } else if (found == 0) {
        printf("The store %s is whole.\n", tool_store(&tool));
    }
    if (found < 0)
        return fail("the store %s could not be examined: %s", tool_store(&tool), strerror(-found));
    if (found > 0)
        return fail("%d findings in %s; take the other node's copy, and save with \"baton extract\" what only this one has",
                    found, tool_store(&tool));
    return EXIT_SUCCESS;
}

const struct command command_check = {
    "check", "examine a store at rest",
    "usage: baton check [--data]\n"
    "\n"
    "Looks at all tables, the map, the segments, the journal, the tail and the checkpoint of a store, and says everything\n"
    "that does not fit, with what it means. batond must not run on the store. Nothing is repaired: the other node has\n"
    "a good copy.\n"
    "\n"
    "  --data          read all data, too, and compare it with its checksums\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --store DIR     instead of both: the store's directory\n"
    "  --json          one JSON object a line\n"
    "\n"
    "Exit status: 0 the store is whole; 1 it is not, or could not be examined.\n",
    run};
