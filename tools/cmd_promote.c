/* baton promote and baton switchover: who is primary. */
#include "fs/journal_text.h"
#include "tools/tool.h"

#include <stdio.h>

#define PROMOTE_MS 120000
#define SWITCHOVER_MS 300000

enum { OPTION_FORCE = OPTION_OWN, OPTION_TO };

/* batond says "3.29782", counter and number of a node; people know names. */
static void name_epoch(const struct tool *tool, const char *given, char *text, size_t room) {
    unsigned long long counter;
    unsigned number;

    if (sscanf(given, "%llu.%u", &counter, &number) == 2 && number <= UINT16_MAX)
        epoch_text(&tool->config, EPOCH_MAKE(counter, number), text, room);
    else
        snprintf(text, room, "%s", given);
}

static int report(const struct tool *tool, const char *node, json_t *answer) {
    const char *given = json_string_value(json_object_get(answer, "epoch"));
    char epoch[96] = "?";

    if (given != NULL)
        name_epoch(tool, given, epoch, sizeof epoch);

    if (tool->json)
        print_json(answer);
    else
        printf("Node %s is primary of volume %s now, epoch %s.\n", node, tool->config.volume, epoch);
    json_decref(answer);
    return EXIT_SUCCESS;
}

static int run_promote(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"force", no_argument, NULL, OPTION_FORCE}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    bool force = false;
    json_t *answer;
    int option;

    tool.command = &command_promote;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_FORCE)
            force = true;
        else
            tool_option(&tool, option, optarg);
    }
    if (optind < argc)
        return usage(&command_promote, "\"%s\" is too much; the node to promote is --node NAME", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    json_t *request = json_pack("{s:s, s:b}", "command", "promote", "force", force ? 1 : 0);
    int status = tool_ask(&tool, request, PROMOTE_MS, &answer);
    return status ? status : report(&tool, tool.self->name, answer);
}

const struct command command_promote = {
    "promote", "make this standby the primary, when the primary is gone",
    "usage: baton promote [--force]\n"
    "\n"
    "Makes this node primary: its mount, which was read-only, takes changes from now on. Refused while the primary\n"
    "answers (use switchover then), and if this node may lack something that was acknowledged.\n"
    "\n"
    "  --force         promote all the same. What only the other node has is not in the volume any more then; make sure\n"
    "                  first that the other node does not serve.\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     this node; without it the one that has this host's name\n"
    "  --json          print the result as JSON\n",
    run_promote};

/* The other node, if there is just one. */
static const char *other_node(const struct tool *tool) {
    if (tool->config.node_count != 2)
        return NULL;
    return tool->self == &tool->config.nodes[0] ? tool->config.nodes[1].name : tool->config.nodes[0].name;
}

static int run_switchover(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"to", required_argument, NULL, OPTION_TO}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    const char *to = NULL;
    json_t *answer;
    int option;

    tool.command = &command_switchover;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_TO)
            to = optarg;
        else
            tool_option(&tool, option, optarg);
    }
    if (optind < argc)
        return usage(&command_switchover, "\"%s\" is too much; the node to hand over to is --to NAME", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    if (to == NULL)
        to = other_node(&tool);
    if (to == NULL)
        return usage(&command_switchover, "to which node? Say --to NAME");
    if (config_node(&tool.config, to) == NULL)
        return fail("%s has no [node %s]", tool.config.path, to);
    int status = tool_ask(&tool, json_pack("{s:s, s:s}", "command", "switchover", "node", to), SWITCHOVER_MS, &answer);
    return status ? status : report(&tool, to, answer);
}

const struct command command_switchover = {
    "switchover", "hand the volume over to the other node, while it is in use",
    "usage: baton switchover [--to NAME]\n"
    "\n"
    "Run on the primary: lets the other node be primary. Both must be in sync. Programs that use the mount wait for a\n"
    "moment; nothing that was acknowledged is lost. If it cannot be done, this node stays primary.\n"
    "\n"
    "  --to NAME       the node to hand over to; without it the other one of two\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     this node; without it the one that has this host's name\n"
    "  --json          print the result as JSON\n",
    run_switchover};
