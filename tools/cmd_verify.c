/* baton verify: has batond compare this node's copy with another one's. */
#include "fs/control.h"
#include "tools/journal_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define ANSWER_MS 30000
#define EXIT_DIFFERENT 1
#define EXIT_FAILED 2

enum { OPTION_WITH = OPTION_OWN, OPTION_RATE, OPTION_STOP, OPTION_STATUS };

static uint64_t number_of(const json_t *object, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "?";
}

/* ---- for people ---- */

static void show_difference(const json_t *found) {
    const json_t *paths = json_object_get(found, "paths");
    size_t count = json_array_size(paths);
    uint64_t ino = number_of(found, "inode");

    fputs("  ", stdout);
    for (size_t i = 0; i < count; i++)
        printf("%s%s", i ? " = " : "", json_string_value(json_array_get(paths, i)));
    if (count == 0 && ino)
        printf("inode %" PRIu64, ino);
    else if (count == 0 && json_object_get(found, "data"))
        printf("data %" PRIu64 " of no file", number_of(found, "data"));
    else if (count == 0)
        fputs("the volume", stdout);
    printf(": %s", text_of(found, "text"));
    if (count > 0 && ino)
        printf(" (%s %" PRIu64 ")", strncmp(text_of(found, "table"), "dir", 3) == 0 ? "directory inode" : "inode", ino);
    putchar('\n');
}

static void show_records(const json_t *result) {
    uint64_t first = number_of(result, "first_lsn"), last = number_of(result, "lsn");
    if (first == last)
        printf("at record %" PRIu64, last);
    else
        printf("at records %" PRIu64 " to %" PRIu64 ", a range of rows at each", first, last);
}

static void show_result(const json_t *result, const char *node) {
    const char *outcome = text_of(result, "outcome"), *peer = text_of(result, "peer");
    uint64_t differences = number_of(result, "differences");
    const json_t *found = json_object_get(result, "found");
    char rows[32];

    count_text(number_of(result, "rows"), rows, sizeof rows);
    if (strcmp(outcome, "equal") == 0)
        printf("Nodes %s and %s are equal%s ", node, peer,
               json_is_true(json_object_get(result, "paths_only")) ? " below these paths" : "");
    else if (strcmp(outcome, "different") == 0)
        printf("Nodes %s and %s differ in %s%" PRIu64 " place%s ", node, peer,
               found && !json_is_true(json_object_get(result, "found_all")) ? "more than " : "", differences,
               differences == 1 ? "" : "s");
    else
        printf("Nodes %s and %s could not be compared%s, ", node, peer, number_of(result, "lsn") ? " to the end" : "");
    if (number_of(result, "lsn"))
        show_records(result);
    else
        fputs("not begun", stdout);
    printf(" (%s rows).\n", rows);
    if (json_object_get(result, "why"))
        printf("  %s\n", text_of(result, "why"));
    for (size_t i = 0; i < json_array_size(found); i++)
        show_difference(json_array_get(found, i));
    if (differences > 0)
        puts("  See \"The copies differ\" in FAILURES.md for which side to keep, and how.");
}

static void show_progress(const json_t *now) {
    char rows[32], of[32], rate[32], left[32];
    uint64_t done = number_of(now, "rows"), total = number_of(now, "rows_of"), bytes = number_of(now, "bytes");
    int64_t spent = clock_now() - (int64_t)number_of(now, "begun");
    uint64_t speed = spent > 0 ? (uint64_t)((double)bytes * 1e9 / (double)spent) : 0;

    count_text(done, rows, sizeof rows);
    count_text(total, of, sizeof of);
    size_text(speed, rate, sizeof rate);
    fputs("\r\033[K", stdout);
    if (total && done && bytes && speed) {
        double each = (double)bytes / (double)done;
        age_text((int64_t)((double)(total - MIN(done, total)) * each / (double)speed * 1e9), left, sizeof left);
        printf("%s of about %s rows, %s/s, about %s left, %" PRIu64 " differences", rows, of, rate, left,
               number_of(now, "differences"));
    } else {
        printf("%s rows, %s/s, %" PRIu64 " differences", rows, rate, number_of(now, "differences"));
    }
    fflush(stdout);
}

static void show_status(const struct tool *tool, const json_t *answer) {
    const json_t *now = json_object_get(answer, "now"), *results = json_object_get(answer, "results"),
                 *last = json_object_get(answer, "last");
    size_t i;
    json_t *result;

    if (now) {
        char rows[32], of[32];
        count_text(number_of(now, "rows"), rows, sizeof rows);
        count_text(number_of(now, "rows_of"), of, sizeof of);
        printf("A comparison with node %s is running: %s of about %s rows, %" PRIu64 " differences.\n", text_of(now, "peer"),
               rows, of, number_of(now, "differences"));
    }
    json_array_foreach(results, i, result) {
        char when[64] = "?";
        time_t at = (time_t)(number_of(result, "ended") / 1000000000);
        struct tm local;
        if (localtime_r(&at, &local))
            strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
        bool has_report = last && number_of(last, "ended") == number_of(result, "ended");
        printf("%s: ", when);
        show_result(has_report ? last : result, tool->self->name);
        if (!has_report && number_of(result, "differences"))
            puts("  batond was restarted since: \"baton verify\" names them again.");
    }
    if (!now && json_array_size(results) == 0)
        puts("The copies have not been compared yet; \"baton verify\" does it.");
}

/* ---- asking ---- */

static int exit_of(const json_t *result) {
    const char *outcome = text_of(result, "outcome");
    return strcmp(outcome, "equal") == 0 ? EXIT_SUCCESS : strcmp(outcome, "different") == 0 ? EXIT_DIFFERENT : EXIT_FAILED;
}

/* Until its last line. An exit status; *answer: that line. */
static int follow(const struct tool *tool, int fd, json_t **answer) {
    bool terminal = isatty(STDOUT_FILENO) && !tool->json, shown = false;
    int rc;

    while ((rc = control_receive(fd, answer, ANSWER_MS)) == 0) {
        const json_t *now = json_object_get(*answer, "now");
        if (!now)
            break;
        if (terminal)
            show_progress(now);
        shown = true;
        json_decref(*answer);
    }
    if (terminal && shown)
        fputs("\r\033[K", stdout);
    if (rc) {
        fail("batond on node %s %s; nothing is known about the copies: verify again when it runs", tool->self->name,
             rc == -EPIPE ? "has stopped" : "does not answer");
        return EXIT_FAILED;
    }
    if (json_object_get(*answer, "error")) {
        fail("%s", text_of(*answer, "error"));
        json_decref(*answer);
        return EXIT_FAILED;
    }
    return EXIT_SUCCESS;
}

static int verify_with(const struct tool *tool, const char *peer, const json_t *paths, uint64_t rate, json_t *reports) {
    json_t *answer, *request = json_pack("{s:s, s:s, s:s, s:I, s:O}", "command", "verify", "action", "start", "peer", peer,
                                         "rate", (json_int_t)rate, "paths", paths);
    int fd, rc = control_connect(tool_store(tool), &fd);
    if (rc == 0) {
        rc = control_request(fd, request);
        if (rc)
            close(fd);
    }
    json_decref(request);
    if (rc) {
        fail("batond on node %s cannot be asked: %s; start it", tool->self->name, strerror(-rc));
        return EXIT_FAILED;
    }
    int status = follow(tool, fd, &answer);
    close(fd);
    if (status)
        return status;
    const json_t *last = json_object_get(answer, "last");
    status = exit_of(last);
    if (tool->json)
        json_array_append(reports, json_object_get(answer, "last"));
    else
        show_result(last, tool->self->name);
    json_decref(answer);
    return status;
}

/* With each other node. What could not be compared counts more than a difference: the rest may differ, too. */
static int verify_all(const struct tool *tool, const char *with, const json_t *paths, uint64_t rate) {
    json_t *reports = json_array();
    int status = EXIT_SUCCESS;
    for (unsigned i = 0; i < tool->config.node_count; i++) {
        const struct node_config *node = &tool->config.nodes[i];
        if (node == tool->self || (with && strcmp(with, node->name) != 0))
            continue;
        int each = verify_with(tool, node->name, paths, rate, reports);
        status = MAX(status, each);
    }
    if (tool->json) {
        json_t *line = json_pack("{s:s, s:O}", "node", tool->self->name, "reports", reports);
        print_json(line);
        json_decref(line);
    }
    json_decref(reports);
    return status;
}

static int ask_once(const struct tool *tool, const char *action) {
    json_t *answer;
    int status = tool_ask(tool, json_pack("{s:s, s:s}", "command", "verify", "action", action), ANSWER_MS, &answer);
    if (status)
        return EXIT_FAILED;
    if (tool->json)
        print_json(answer);
    else
        show_status(tool, answer);
    json_decref(answer);
    return EXIT_SUCCESS;
}

static int run_verify(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS,
                                            {"with", required_argument, NULL, OPTION_WITH},
                                            {"rate", required_argument, NULL, OPTION_RATE},
                                            {"stop", no_argument, NULL, OPTION_STOP},
                                            {"status", no_argument, NULL, OPTION_STATUS},
                                            {NULL, 0, NULL, 0}};
    static struct tool tool;
    const char *with = NULL;
    bool stop = false, look = false;
    uint64_t rate = 0;
    int option;

    tool.command = &command_verify;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_RATE && (parse_size(optarg, &rate) != 0 || rate < 64u << 10 || rate > INT64_MAX))
            return usage(&command_verify, "--rate %s is not a size like 8MiB (a second); at least 64KiB", optarg);
        else if (option == OPTION_WITH)
            with = optarg;
        else if (option == OPTION_STOP)
            stop = true;
        else if (option == OPTION_STATUS)
            look = true;
        else if (option != OPTION_RATE)
            tool_option(&tool, option, optarg);
    }
    if ((stop || look) && (rate || with || optind < argc || (stop && look)))
        return usage(&command_verify, "--stop and --status stand alone");
    if (tool_load(&tool) != 0)
        return EXIT_FAILED;
    if (stop || look)
        return ask_once(&tool, stop ? "stop" : "status");
    if (tool.config.node_count < 2)
        return usage(&command_verify, "the volume has one node: there is no other copy");
    if (with && (!config_node(&tool.config, with) || config_node(&tool.config, with) == tool.self))
        return usage(&command_verify, "--with %s is no other node of the volume", with);
    json_t *paths = json_array();
    for (int i = optind; i < argc; i++)
        json_array_append_new(paths, json_string(path_in_volume(&tool, argv[i])));
    int status = json_array_size(paths) == (size_t)(argc - optind)
                     ? verify_all(&tool, with, paths, rate)
                     : usage(&command_verify, "paths are text in UTF-8 here; name a directory above instead");
    json_decref(paths);
    return status;
}

const struct command command_verify = {
    "verify", "compare the copies with each other while work goes on",
    "usage: baton verify [--with NODE] [--rate SIZE] [PATH...]\n"
    "       baton verify --status | --stop\n"
    "\n"
    "Lets this node's batond compare names, metadata, extended attributes and the checksums of all blocks with the other\n"
    "node's, as both were at one record, while work goes on, and names what differs, with the path. With PATHs (in the\n"
    "volume, or below its mount point) only what lies there. It compares what the nodes have noted, not the data\n"
    "themselves: when it finds the copies equal and \"baton scrub --wait\" finds nothing on either node, the data are equal.\n"
    "Ctrl-C ends it.\n"
    "\n"
    "  --with NODE     with that one; without it with every other node, one after the other\n"
    "  --rate SIZE     read at most so much a second, of the tables; without it what the config file says ([verify] rate)\n"
    "  --status        what the last ones found, and how far one that runs is\n"
    "  --stop          end the one that is running\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     this node; without it the one that has this host's name\n"
    "  --json          print the result as JSON\n"
    "\n"
    "Exit status: 0 equal; 1 there are differences; 2 it could not be done to the end, or wrong usage.\n",
    run_verify};
