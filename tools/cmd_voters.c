/* baton voters: who votes about the register and the lease, and changes of that list. */
#include "tools/tool.h"

#include <stdio.h>

#define ASK_MS 60000
#define STATUS_MS 5000

enum { OPTION_EVEN = OPTION_OWN };

static int show(const struct tool *tool) {
    json_t *answer;
    int status = tool_ask(tool, json_pack("{s:s}", "command", "status"), STATUS_MS, &answer);
    if (status)
        return status;
    const json_t *lease = json_object_get(json_object_get(answer, "replication"), "lease");
    const json_t *voters = json_object_get(lease, "voters");
    size_t i;
    json_t *voter;
    if (voters == NULL) {
        json_decref(answer);
        return fail("volume %s has no voters: its config file names neither a witness nor etcd; a person decides there who is "
                    "primary", tool->config.volume);
    }
    if (tool->json)
        print_json(lease);
    json_array_foreach(voters, i, voter) {
        const char *why = json_string_value(json_object_get(voter, "why"));
        if (tool->json)
            break;
        printf("  %-12s %s, %s%s%s%s\n", json_string_value(json_object_get(voter, "name")),
               json_is_true(json_object_get(voter, "listed")) ? "votes" : "does not vote",
               json_is_true(json_object_get(voter, "answers")) ? "answers" : "does not answer",
               json_is_true(json_object_get(voter, "grants")) ? ", grants the lease to this node" : "",
               why != NULL && *why != '\0' ? ": " : "", why != NULL ? why : "");
    }
    json_decref(answer);
    return EXIT_SUCCESS;
}

static int edit(const struct tool *tool, const char *verb, const char *name, bool even) {
    json_t *answer;
    int status = tool_ask(tool, json_pack("{s:s, s:s, s:s, s:b}", "command", "voters", "edit", verb, "name", name, "even",
                                          even ? 1 : 0), ASK_MS, &answer);
    if (status)
        return status;
    if (tool->json)
        print_json(answer);
    else if (strcmp(verb, "remove") == 0)
        printf("%s votes no more for volume %s.\n", name, tool->config.volume);
    else
        printf("%s votes for volume %s now.\n", name, tool->config.volume);
    json_decref(answer);
    return EXIT_SUCCESS;
}

static int run(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"even", no_argument, NULL, OPTION_EVEN}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    bool even = false;
    int option;

    tool.command = &command_voters;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_EVEN)
            even = true;
        else
            tool_option(&tool, option, optarg);
    }
    const char *verb = optind < argc ? argv[optind++] : "list", *name = optind < argc ? argv[optind++] : NULL;
    bool list = strcmp(verb, "list") == 0;
    if (optind < argc || (list && name != NULL))
        return usage(&command_voters, "\"%s\" is too much", optind < argc ? argv[optind] : name);
    if (!list && strcmp(verb, "add") != 0 && strcmp(verb, "remove") != 0 && strcmp(verb, "replace") != 0)
        return usage(&command_voters, "there is list, add, remove and replace, not \"%s\"", verb);
    if (!list && name == NULL)
        return usage(&command_voters, "%s whom? A node's name, or witness", verb);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    if (!list && strcmp(name, "witness") != 0 && config_node(&tool.config, name) == NULL)
        return fail("%s has no [node %s]; a voter is a node of the volume, or witness", tool.config.path, name);
    return list ? show(&tool) : edit(&tool, verb, name, even);
}

const struct command command_voters = {
    "voters", "who votes about the lease; add, remove, replace one",
    "usage: baton voters [list]\n"
    "       baton voters add|remove|replace NAME [--even]\n"
    "\n"
    "Lists who votes about who is primary, or changes the list by one, on the primary. A voter is a node of the volume, or\n"
    "the witness (NAME \"witness\"). replace lets in the voter that answers under the name now, in place of the one that\n"
    "had it: after its disk was lost, say. The next change can be made when a majority of the new list answers.\n"
    "\n"
    "  --even          let the list have an even number for now: add or remove another one soon\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     this node; without it the one that has this host's name\n"
    "  --json          print the result as JSON\n",
    run};
