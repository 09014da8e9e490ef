/* baton events: what has happened to the volume on this node, and what happens. */
#include "fs/control.h"
#include "tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum { OPTION_FOLLOW = OPTION_OWN, OPTION_LAST };

static void print_time(int64_t ns) {
    struct tm parts;
    time_t seconds = (time_t)(ns / 1000000000);
    char text[40] = "?";
    if (localtime_r(&seconds, &parts) != NULL)
        strftime(text, sizeof text, "%F %T", &parts);
    printf("%s.%03d", text, (int)(ns / 1000000 % 1000));
}

static void print_event(const struct tool *tool, const json_t *event) {
    const char *key;
    json_t *value;
    if (tool->json) {
        print_json(event);
        fflush(stdout);
        return;
    }
    print_time((int64_t)json_integer_value(json_object_get(event, "time")));
    printf("  %s", json_string_value(json_object_get(event, "event")));
    const char *text = json_string_value(json_object_get(event, "text"));
    if (text != NULL) {
        printf(": %s", text);
    } else {
        json_object_foreach((json_t *)event, key, value) {
            if (strcmp(key, "time") == 0 || strcmp(key, "event") == 0 || strcmp(key, "number") == 0)
                continue;
            char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            printf(" %s=%s", key, json_is_string(value) ? json_string_value(value) : shown != NULL ? shown : "?");
            free(shown);
        }
    }
    putchar('\n');
    fflush(stdout);
}

static int stream(const struct tool *tool, json_t *request) {
    int fd;
    int error = control_connect(tool_store(tool), &fd);
    if (error == 0) {
        error = control_request(fd, request);
    } else {
        json_decref(request);
        if (error == -ENOENT || error == -ECONNREFUSED)
            return fail("batond does not run on node %s; start it: batond --config %s --node %s", tool->self->name,
                        tool->config.path, tool->self->name);
        return fail("batond on node %s cannot be asked: %s", tool->self->name, strerror(-error));
    }
    json_decref(request);
    for (bool end = false; error == 0 && !end;) {
        json_t *line;
        error = control_receive(fd, &line, -1);
        if (error)
            break;
        const char *sentence = json_string_value(json_object_get(line, "error"));
        end = sentence != NULL || json_is_true(json_object_get(line, "end"));
        if (sentence != NULL)
            error = -fail("%s", sentence);
        else if (json_object_get(line, "event") != NULL)
            print_event(tool, line);
        json_decref(line);
    }
    close(fd);
    if (error == -1)
        return EXIT_FAILURE;
    return error ? fail("batond on node %s ended the connection: %s", tool->self->name, strerror(-error)) : EXIT_SUCCESS;
}

static int run(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS,
                                            {"follow", no_argument, NULL, OPTION_FOLLOW},
                                            {"last", required_argument, NULL, OPTION_LAST},
                                            {NULL, 0, NULL, 0}};
    static struct tool tool;
    bool follow = false;
    long last = 0;
    int option;

    tool.command = &command_events;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        char *end = NULL;
        if (option == OPTION_FOLLOW)
            follow = true;
        else if (option == OPTION_LAST)
            last = strtol(optarg, &end, 10);
        else
            tool_option(&tool, option, optarg);
        if (option == OPTION_LAST && (end == optarg || *end != '\0' || last < 1 || last > 1000000))
            return usage(&command_events, "--last wants a number, not \"%s\"", optarg);
    }
    if (optind < argc)
        return usage(&command_events, "\"%s\" is too much", argv[optind]);
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    return stream(&tool, json_pack("{s:s, s:b, s:I}", "command", "events", "follow", follow ? 1 : 0, "last", (json_int_t)last));
}

const struct command command_events = {
    "events", "what has happened to the volume on this node",
    "usage: baton events [--follow] [--last N] [--json]\n"
    "\n"
    "Lists what batond on this node remembers since its start (the last 256): roles taken and given up, the lease, peers that\n"
    "came and went, who is in sync, elections, synchronizations. The log has the same, and more.\n"
    "\n"
    "  --follow        go on with what happens\n"
    "  --last N        only the last N of what has been\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --json          a line of JSON for each\n",
    run};
