/* baton ready-to-stop: by its exit status, whether this node may be stopped. baton standby: empties it for that. */
#include "tools/tool.h"

#include <stdio.h>

#define ASK_MS 30000
#define STANDBY_MS 300000
#define EXIT_NOT_READY 3

enum { OPTION_END = OPTION_OWN };

static void print_reasons(const json_t *reasons) {
    size_t i;
    json_t *reason;
    json_array_foreach(reasons, i, reason)
        printf("  %s\n", json_string_value(reason) != NULL ? json_string_value(reason) : "?");
}

static int run_ready(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {NULL, 0, NULL, 0}};
    static struct tool tool;
    json_t *answer;
    int option;

    tool.command = &command_ready_to_stop;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        tool_option(&tool, option, optarg);
    if (optind < argc)
        return usage(&command_ready_to_stop, "\"%s\" is too much", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    int status = tool_ask(&tool, json_pack("{s:s}", "command", "ready-to-stop"), ASK_MS, &answer);
    if (status)
        return status;
    bool ready = json_is_true(json_object_get(answer, "ready"));
    if (tool.json) {
        print_json(answer);
    } else {
        printf(ready ? "Node %s can be stopped: volume %s stays served and redundant as far as it can be without it.\n"
                     : "Node %s of volume %s should not be stopped now:\n",
               tool.self->name, tool.config.volume);
        print_reasons(json_object_get(answer, "why"));
    }
    json_decref(answer);
    return ready ? EXIT_SUCCESS : EXIT_NOT_READY;
}

const struct command command_ready_to_stop = {
    "ready-to-stop", "may this node be stopped?",
    "usage: baton ready-to-stop\n"
    "\n"
    "Says, by its exit status too, whether this node can be stopped without the volume's users losing anything but a\n"
    "moment: another node serves or takes over, it has everything, and a majority of voters stays. Names what is\n"
    "against it, else.\n"
    "\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --json          print the answer as JSON\n"
    "\n"
    "Exit status: 0 it can be stopped; 3 better not; 1 it could not be found out.\n",
    run_ready};

static int run_standby(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"end", no_argument, NULL, OPTION_END}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    bool end = false;
    json_t *answer;
    int option;

    tool.command = &command_standby;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_END)
            end = true;
        else
            tool_option(&tool, option, optarg);
    }
    if (optind < argc && tool.node == NULL)
        tool.node = argv[optind++];
    if (optind < argc)
        return usage(&command_standby, "\"%s\" is too much", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    int status = tool_ask(&tool, json_pack("{s:s, s:b}", "command", "standby", "end", end ? 1 : 0), STANDBY_MS, &answer);
    if (status)
        return status;
    if (tool.json)
        print_json(answer);
    else if (end)
        printf("Node %s may be primary of volume %s again.\n", tool.self->name, tool.config.volume);
    else
        printf("Node %s is kept as standby of volume %s, also after a restart, until \"baton standby --end\"%s.\n",
               tool.self->name, tool.config.volume,
               json_is_true(json_object_get(answer, "handed_over")) ? "; it has handed over" : "");
    json_decref(answer);
    return EXIT_SUCCESS;
}

const struct command command_standby = {
    "standby", "keep a node from being primary, for maintenance",
    "usage: baton standby [NODE] [--end]\n"
    "\n"
    "Hands the volume over if this node is primary, and keeps the node from becoming primary again as long as another\n"
    "one can be, also after a restart. It goes on as a standby that is in sync. Refused if no other node is in sync.\n"
    "Run it on the node that is meant. A volume that has neither a witness nor etcd does not know it.\n"
    "\n"
    "  --end           the node may be primary again\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --json          print the result as JSON\n",
    run_standby};
