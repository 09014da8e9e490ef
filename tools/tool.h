/* What the commands of `baton` share: options that all have, errors, the store at rest.
 *
 * Exit status: 0 done; 1 it failed, and standard error says why and what to do; 2 wrong usage; others as the command's
 * help says.
 */
#ifndef BATON_TOOLS_TOOL_H
#define BATON_TOOLS_TOOL_H

#include "fs/config.h"
#include "fs/store.h"

#include <getopt.h>
#include <jansson.h>

#define EXIT_USAGE 2

struct command {
    const char *name;
    const char *summary; /* one line for the list of commands */
    const char *help;    /* all of --help */
    int (*run)(int argc, char **argv);
};

extern const struct command command_create, command_format, command_status, command_promote, command_switchover,
    command_standby, command_ready_to_stop,
    command_voters, command_exporter, command_events, command_journal, command_check, command_scrub, command_verify, command_extract;

/* Options that choose volume and node; every command's table of long options contains TOOL_OPTIONS. */
struct tool {
    const struct command *command;
    const char *config_path, *volume, *node, *store_path;
    bool json;
    struct config config;
    const struct node_config *self; /* NULL if only --store was given */
};
enum { OPTION_CONFIG = 256, OPTION_VOLUME, OPTION_NODE, OPTION_STORE, OPTION_JSON, OPTION_HELP, OPTION_OWN };
#define TOOL_OPTIONS                                                                                                     \
    {"config", required_argument, NULL, OPTION_CONFIG}, {"volume", required_argument, NULL, OPTION_VOLUME},              \
        {"node", required_argument, NULL, OPTION_NODE}, {"json", no_argument, NULL, OPTION_JSON},                        \
        {"help", no_argument, NULL, OPTION_HELP}
#define TOOL_STORE_OPTION {"store", required_argument, NULL, OPTION_STORE}

/* Takes an option that all commands have. Wrong usage and --help end the program. */
void tool_option(struct tool *tool, int option, const char *value);
/* Reads the config file and finds out which node this is: --config or BATON_CONFIG, or --volume NAME for
 * /etc/baton/NAME.conf, or the only file there; --node or BATON_NODE, or the node that has this host's name, or the only
 * one whose store is here. With --store alone there is nothing to read. Returns an exit status; it has said why. */
int tool_load(struct tool *tool);
const char *tool_store(const struct tool *tool);
/* Opens the store at rest. An exit status. */
int tool_open(const struct tool *tool, struct store **store);
/* Sends a request to the daemon and prints the answer's error, if it is one. An exit status; *answer is a new reference. */
int tool_ask(const struct tool *tool, json_t *request, int timeout_ms, json_t **answer);

/* "baton COMMAND: sentence"; returns 1. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Points at --help; returns EXIT_USAGE. */
int usage(const struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

void print_json(const json_t *value); /* one line */
void size_text(uint64_t bytes, char *text, size_t room);     /* "1.5 GiB" */
void count_text(uint64_t number, char *text, size_t room);   /* "41,234" */
void age_text(int64_t nanoseconds, char *text, size_t room); /* "2 s" */

#endif
