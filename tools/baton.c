/* baton: the command for people. Each command is a file, tools/cmd_NAME.c. */
#include <config.h>

#include "fs/control.h"
#include "tools/tool.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef BATON_CONFIG_DIRECTORY
#define BATON_CONFIG_DIRECTORY "/etc/baton"
#endif

static const struct command *const commands[] = {&command_create,     &command_format,  &command_status,
                                                 &command_promote,    &command_switchover, &command_standby,
                                                 &command_ready_to_stop, &command_voters, &command_exporter, &command_events,
                                                 &command_journal,
                                                 &command_check,      &command_scrub,   &command_verify,
                                                 &command_extract};
static const char *current = "";

/* ---- messages ---------------------------------------------------------------------------------------------------------- */

int fail(const char *format, ...) {
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "baton%s%s: ", *current != '\0' ? " " : "", current);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return EXIT_FAILURE;
}

int usage(const struct command *command, const char *format, ...) {
    va_list arguments;

    fprintf(stderr, "baton %s: ", command->name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see: baton %s --help\n", command->name);
    return EXIT_USAGE;
}

void print_json(const json_t *value) {
    json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
}

void size_text(uint64_t bytes, char *text, size_t room) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    int unit = -1;

    for (; value >= 1024 && unit < 5; unit++)
        value /= 1024;
    if (unit < 0)
        snprintf(text, room, "%" PRIu64 " bytes", bytes);
    else
        snprintf(text, room, value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void count_text(uint64_t number, char *text, size_t room) {
    char digits[24], grouped[40];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, number), used = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            grouped[used++] = ',';
        grouped[used++] = digits[i];
    }
    grouped[used] = '\0';
    snprintf(text, room, "%s", grouped);
}

void age_text(int64_t nanoseconds, char *text, size_t room) {
    int64_t seconds = MAX(nanoseconds, (int64_t)0) / 1000000000;

    if (seconds < 1)
        snprintf(text, room, "%d ms", (int)(MAX(nanoseconds, (int64_t)0) / 1000000));
    else if (seconds < 120)
        snprintf(text, room, "%d s", (int)seconds);
    else if (seconds < 7200)
        snprintf(text, room, "%d min", (int)(seconds / 60));
    else if (seconds < 172800)
        snprintf(text, room, "%d h", (int)(seconds / 3600));
    else
        snprintf(text, room, "%" PRId64 " days", seconds / 86400);
}

/* ---- which volume, which node -------------------------------------------------------------------------------------------- */

void tool_option(struct tool *tool, int option, const char *value) {
    switch (option) {
    case OPTION_CONFIG:
        tool->config_path = value;
        break;
    case OPTION_VOLUME:
        tool->volume = value;
        break;
    case OPTION_NODE:
        tool->node = value;
        break;
    case OPTION_STORE:
        tool->store_path = value;
        break;
    case OPTION_JSON:
        tool->json = true;
        break;
    case OPTION_HELP:
        fputs(tool->command->help, stdout);
        exit(EXIT_SUCCESS);
    default: /* getopt_long has said what is wrong */
        fprintf(stderr, "see: baton %s --help\n", tool->command->name);
        exit(EXIT_USAGE);
    }
}

/* The only config file in /etc/baton. */
static int find_config(char *path, size_t room) {
    DIR *directory = opendir(BATON_CONFIG_DIRECTORY);
    unsigned count = 0;

    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (length <= 5 || strcmp(entry->d_name + length - 5, ".conf") != 0 || entry->d_name[0] == '.')
            continue;
        count++;
        snprintf(path, room, "%s/%s", BATON_CONFIG_DIRECTORY, entry->d_name);
    }
    if (directory != NULL)
        closedir(directory);
    if (count == 1)
        return 0;
    return fail("which volume? Say --config FILE (or set BATON_CONFIG), or --volume NAME for %s/NAME.conf",
                BATON_CONFIG_DIRECTORY);
}

static const struct node_config *find_node(const struct config *config) {
    const struct node_config *found = NULL;
    struct stat status;
    char host[256] = "";

    gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = '\0';
    if (config_node(config, host) != NULL)
        return config_node(config, host);
    for (unsigned i = 0; i < config->node_count; i++) {
        if (stat(config->nodes[i].store, &status) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = &config->nodes[i];
    }
    return found;
}

static void node_names(const struct config *config, char *text, size_t room) {
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < config->node_count && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%s", i > 0 ? ", " : "", config->nodes[i].name);
}

int tool_load(struct tool *tool) {
    char path[1024], why[1024], names[512];
    const char *node = tool->node != NULL ? tool->node : getenv("BATON_NODE");

    if (tool->store_path != NULL)
        return 0;
    if (tool->config_path == NULL && tool->volume == NULL)
        tool->config_path = getenv("BATON_CONFIG");
    if (tool->config_path == NULL && tool->volume != NULL) {
        if (!config_name_valid(tool->volume))
            return fail("\"%s\" cannot name a volume", tool->volume);
        snprintf(path, sizeof path, "%s/%s.conf", BATON_CONFIG_DIRECTORY, tool->volume);
        tool->config_path = path;
    } else if (tool->config_path == NULL) {
        if (find_config(path, sizeof path) != 0)
            return EXIT_FAILURE;
        tool->config_path = path;
    }
    int error = config_load(tool->config_path, &tool->config, why, sizeof why);
    tool->config_path = tool->config.path;
    if (error)
        return fail("%s", why);
    tool->self = node != NULL ? config_node(&tool->config, node) : find_node(&tool->config);
    if (tool->self != NULL)
        return 0;
    node_names(&tool->config, names, sizeof names);
    if (node != NULL)
        return fail("%s has no [node %s]; its nodes are %s", tool->config.path, node, names);
    return fail("which node is this? Say --node NAME (or set BATON_NODE); the nodes are %s", names);
}

const char *tool_store(const struct tool *tool) {
    return tool->store_path != NULL ? tool->store_path : tool->self->store;
}

int tool_open(const struct tool *tool, struct store **store) {
    /* A look must not trim what a peer or a person may want: no end of the window. */
    struct store_options options = {.history_seconds = 0, .history_bytes = UINT64_MAX};
    char why[1024] = "";

    int error = store_open(tool_store(tool), tool->self != NULL ? tool->config.volume_id : NULL, &options, store, why,
                           sizeof why);
    return error == 0 ? 0 : fail("%s", why);
}

int tool_ask(const struct tool *tool, json_t *request, int timeout_ms, json_t **answer) {
    int fd;
    int error = control_connect(tool_store(tool), &fd);

    if (error) {
        json_decref(request);
        if (error == -ENOENT || error == -ECONNREFUSED)
            return fail("batond does not run on node %s; start it: batond --config %s --node %s", tool->self->name,
                        tool->config.path, tool->self->name);
        return fail("batond on node %s cannot be asked: %s", tool->self->name, strerror(-error));
    }
    error = control_request(fd, request);
    json_decref(request);
    if (error == 0)
        error = control_receive(fd, answer, timeout_ms);
    close(fd);
    if (error == -ETIMEDOUT)
        return fail("batond on node %s did not answer within %d s; see: baton status", tool->self->name,
                    timeout_ms / 1000);
    if (error)
        return fail("batond on node %s ended the connection: %s; see its log", tool->self->name, strerror(-error));
    const char *sentence = json_string_value(json_object_get(*answer, "error"));
    if (sentence == NULL)
        return 0;
    int status = fail("%s", sentence);
    json_decref(*answer);
    return status;
}

/* ---- main ---------------------------------------------------------------------------------------------------------------- */

static void list_commands(FILE *to) {
    fputs("usage: baton COMMAND [OPTION…]\n\n"
          "Baton keeps a file system on two nodes, the same on both.\n\n",
          to);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-13s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n`baton COMMAND --help` tells the rest. The daemon is batond.\n", to);
}

int main(int argc, char **argv) {
    log_identify("baton");
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        list_commands(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts(PACKAGE_STRING);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i]->name, argv[1]) != 0)
            continue;
        current = commands[i]->name;
        int status = commands[i]->run(argc - 1, argv + 1);
        if (fflush(stdout) != 0 || ferror(stdout))
            return fail("the output could not be written: %s", strerror(errno));
        return status;
    }
    fail("there is no command \"%s\"; see: baton --help", argv[1]);
    return EXIT_USAGE;
}
