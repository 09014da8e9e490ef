/* One call of an exporter, or of a hook: a program run as baton-exporter(7) says, with a time limit, its output line by line
 * in the log. One thread; the caller reaps nobody else's children meanwhile.
 */
#ifndef BATON_EXPORTERS_ACTION_H
#define BATON_EXPORTERS_ACTION_H

#include "fs/config.h"

#define ACTION_WORDS 200u
#define ACTION_NOT_RUNNING 3 /* `status`: nothing of it is left */

struct action {
    const struct config *config;
    const struct node_config *self;
    const struct export_config *export; /* NULL: the address (type vip), or a hook */
    const char *program;                /* of a hook; NULL: the exporter's */
    const char *verb;
    uint64_t epoch;
    bool hurry;
    int64_t timeout; /* ns */
    /* Looked at while it runs, NULL: never: true ends it (SIGKILL to its group). `wake`, or -1: a descriptor that is readable
     * when it may have become true; what is read from it is the caller's. */
    bool (*cancelled)(void *context);
    void *context;
    int wake;
    bool quiet; /* nothing of its output, and of how it ended, goes to the log */
};

/* 0: it ended with status 0. Positive: its exit status. Negative: -ECANCELED, -ETIMEDOUT (then it was killed), or another
 * errno. `words`: the last line that it printed, or what went wrong. */
int action_run(const struct action *action, char words[ACTION_WORDS]);

/* The exporter's name in the log and in status. */
const char *action_name(const struct action *action);
/* Where the exporter is: $BATON_EXPORTERS (tests), /etc/baton/exporters, or where it is installed. 0; -ENOENT; -EACCES: the first
 * that there is, `path`, is not executable. */
int action_find(const char *type, char *path, size_t room);

#endif
