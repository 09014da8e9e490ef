/* baton exporter: what there is to share a volume with; and a trial of one against its contract, baton-exporter(7). */
#include "exporters/action.h"
#include "exporters/exports.h"
#include "fs/control.h"
#include "tools/exporter_handles.h"
#include "tools/tool.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define MS INT64_C(1000000)
#define GONE_PATIENCE (10000 * MS)
#define STOP_SHOULD (1000 * MS)

enum { OPTION_MOUNT = OPTION_OWN };

/* ---- A trial --------------------------------------------------------------------------------------------------------- */

struct trial {
    struct tool *tool;
    struct node_config self;
    const struct export_config *export;
    unsigned done, failed;
};

static int call(const struct trial *trial, const char *verb, int64_t timeout, int64_t *took, char words[ACTION_WORDS]) {
    struct action action = {.config = &trial->tool->config, .self = &trial->self, .export = trial->export, .verb = verb, .timeout = timeout,
                            .epoch = 1, .wake = -1, .quiet = true};
    int64_t begun = clock_boot();
    int rc = action_run(&action, words);
    *took = clock_boot() - begun;
    return rc;
}

static bool report(struct trial *trial, bool good, const char *what, int64_t took, const char *words) {
    trial->done++;
    trial->failed += !good;
    if (trial->tool->json) {
        json_t *line = json_pack("{s:s, s:b, s:I, s:s}", "step", what, "good", good, "ms", (json_int_t)(took / MS), "said", words);
        print_json(line);
        json_decref(line);
    } else {
        printf("%-6s %-44s %6" PRId64 " ms%s%s\n", good ? "ok" : "WRONG", what, took / MS, words[0] ? "  " : "", words);
    }
    fflush(stdout);
    return good;
}

/* `least`, `most`: the exit statuses that are right. */
static bool step(struct trial *trial, const char *verb, const char *what, int least, int most) {
    char words[ACTION_WORDS];
    int64_t took;
    const struct export_config *export = trial->export;
    bool starts = strcmp(verb, "start") == 0, stops = strcmp(verb, "stop") == 0;
    uint64_t limit = !export ? 15000 : starts ? export->start_ms : stops ? export->stop_ms : export->monitor_ms;
    int rc = call(trial, verb, (int64_t)limit * MS, &took, words);
    return report(trial, rc >= least && rc <= most, what, took, words);
}

static void gone(struct trial *trial) {
    char words[ACTION_WORDS];
    int64_t took, begun = clock_boot();
    int rc;
    while ((rc = call(trial, "status", 10000 * MS, &took, words)) != ACTION_NOT_RUNNING && clock_boot() - begun < GONE_PATIENCE)
        usleep(20000);
    report(trial, rc == ACTION_NOT_RUNNING, "status: nothing of it is left (3)", clock_boot() - begun, words);
}

/* Also where batond exports the volume: it touches no server. */
static int compare_handles(struct trial *trial, bool among_others) {
    struct handles_result result;
    int64_t begun = clock_boot();
    int rc = handles_compare(&trial->tool->config, &trial->self, &result);
    if (rc == -ENOTCONN && among_others)
        return EXIT_SUCCESS; /* the rest can be tried without batond */
    report(trial, rc == 0, "file handles are the same on every node", clock_boot() - begun, result.words);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int try_out(struct trial *trial) {
    if (!step(trial, "check", "check: its section and the programs it needs", 0, 0))
        return EXIT_FAILURE;
    step(trial, "stop", "stop, where nothing runs", 0, 0);
    gone(trial);
    step(trial, "monitor", "monitor says that it does not serve", 1, 125);
    if (step(trial, "start", "start", 0, 0)) {
        step(trial, "status", "status: it runs", 0, 0);
        step(trial, "monitor", "monitor: it serves", 0, 0);
        step(trial, "start", "start again changes nothing", 0, 0);
        step(trial, "monitor", "monitor: it serves still", 0, 0);
    }
    step(trial, "stop", "stop", 0, 0);
    gone(trial);
    step(trial, "stop", "stop again", 0, 0);
    step(trial, "no-such-verb", "a verb that it does not know is an error", 1, 125);
    if (!trial->tool->json)
        printf("%u of %u as baton-exporter(7) says\n", trial->done - trial->failed, trial->done);
    return trial->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- Which one ------------------------------------------------------------------------------------------------------- */

/* The section of the config, or one without keys for an exporter of that name. */
static const struct export_config *find(struct config *config, const char *name) {
    for (unsigned i = 0; i < config->export_count; i++)
        if (strcmp(config->exports[i].name, name) == 0)
            return &config->exports[i];
    if (config->export_count == EXPORTS_MAX || strlen(name) >= sizeof config->exports[0].name)
        return NULL;
    struct export_config *made = &config->exports[config->export_count++];
    *made = (struct export_config){.start_ms = 30000, .stop_ms = 5000, .monitor_ms = 10000};
    memcpy(made->name, name, strlen(name) + 1);
    memcpy(made->type, name, strlen(name) + 1);
    return made;
}

/* Also when the daemon is there and does not answer. */
static bool in_use(const struct tool *tool) {
    json_t *answer = NULL, *one, *request = json_pack("{s:s}", "command", "status");
    bool used = false;
    size_t i;
    int fd;
    if (control_connect(tool->self->store, &fd) != 0) {
        json_decref(request);
        return false;
    }
    bool answered = control_request(fd, request) == 0 && control_receive(fd, &answer, 5000) == 0;
    close(fd);
    json_decref(request);
    json_array_foreach(json_object_get(answer, "exports"), i, one) {
        const char *state = json_string_value(json_object_get(one, "state"));
        used = used || !state || strcmp(state, export_state_name(EXPORT_OFF)) != 0;
    }
    json_decref(answer);
    return used || !answered;
}

static int list(void) {
    const char *given = getenv("BATON_EXPORTERS");
    const char *const folders[] = {given && given[0] ? given : "/etc/baton/exporters", BATON_LIBEXEC "/exporters"};
    for (unsigned i = 0; i < 2; i++) {
        struct dirent **names;
        int count = scandir(folders[i], &names, NULL, alphasort);
        for (int j = 0; j < count; j++) {
            char path[1400];
            struct stat is;
            snprintf(path, sizeof path, "%s/%s", folders[i], names[j]->d_name);
            if (names[j]->d_name[0] != '.' && !strchr(names[j]->d_name, '.') && strncmp(names[j]->d_name, "baton-", 6) != 0 &&
                stat(path, &is) == 0 && S_ISREG(is.st_mode) && (is.st_mode & 0111))
                printf("%-12s %s\n", names[j]->d_name, path);
            free(names[j]);
        }
        if (count >= 0)
            free(names);
    }
    return EXIT_SUCCESS;
}

static int run(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS, {"mount", required_argument, NULL, OPTION_MOUNT}, {NULL, 0, NULL, 0}};
    static struct tool tool;
    static struct trial trial;
    const char *mount = NULL;
    int option;

    tool.command = &command_exporter;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_MOUNT)
            mount = optarg;
        else
            tool_option(&tool, option, optarg);
    }
    if (argc - optind == 1 && strcmp(argv[optind], "list") == 0)
        return list();
    bool handles = argc - optind == 1 && strcmp(argv[optind], "handles") == 0;
    if (!handles && (argc - optind != 2 || strcmp(argv[optind], "test") != 0))
        return usage(&command_exporter, "say \"list\", \"handles\", or \"test\" and which one");
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    if (!tool.self)
        return fail("it needs the volume's config file: --config");
    trial = (struct trial){.tool = &tool, .self = *tool.self};
    if (mount && snprintf(trial.self.mount, sizeof trial.self.mount, "%s", mount) >= (int)sizeof trial.self.mount)
        return fail("the path %s is too long", mount);
    if (handles)
        return compare_handles(&trial, false);
    const char *name = argv[optind + 1];
    if (strcmp(name, "vip") != 0 && !(trial.export = find(&tool.config, name)))
        return fail("there is no room for an export %s beside those of %s", name, tool.config.path);
    if (strcmp(name, "vip") == 0 && !tool.config.addresses[0])
        return fail("%s has no address; add: address = ADDRESS/BITS to an [export NAME]", tool.config.path);
    if (trial.export && strcmp(trial.export->type, "nfs") == 0 && !mount)
        compare_handles(&trial, true);
    if (in_use(&tool))
        return fail("volume %s is being exported from here: a trial would stop its exports; take another volume, or the standby",
                    tool.config.volume);
    return try_out(&trial);
}

const struct command command_exporter = {
    "exporter", "try out what shares the volume (NFS, SMB, iSCSI, your own)",
    "usage: baton exporter list\n"
    "       baton exporter test NAME [--mount DIR]\n"
    "       baton exporter handles\n"
    "\n"
    "test starts and stops the export of the section [export NAME] (or, without such a section, the exporter of that\n"
    "name) in all ways that baton-exporter(7) demands, and says what it did wrong. It does so for real, but not where\n"
    "batond exports the volume. NAME vip: the volume's addresses. list shows the exporters that there are.\n"
    "\n"
    "handles, which is the first step of the trial of an nfs, and harmless: the primary notes file handles on the volume, and\n"
    "each node, also the standby, looks whether those that others have noted are its own, and lead to the same files.\n"
    "\n"
    "  --mount DIR     what it is told of as the mount, and writes its folder to; without it the node's mount\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --json          print a line of JSON for each step\n"
    "\n"
    "Exit status: 0 it does all that; 1 it does not, or could not be tried.\n",
    run};
