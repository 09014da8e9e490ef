/* baton journal: what changed, when. Asks the daemon if one runs, else opens the store. */
#include "fs/control.h"
#include "fs/journal_text.h"
#include "fs/journal_view.h"
#include "fs/undone.h"
#include "tools/journal_parts.h"

#include <inttypes.h>
#include <stdio.h>

enum { OPTION_FROM = OPTION_OWN, OPTION_TO, OPTION_SINCE, OPTION_UNTIL, OPTION_PATH, OPTION_INODE, OPTION_TYPE, OPTION_LAST,
       OPTION_NO_DATA, OPTION_UNDONE, OPTION_AT };

struct viewer {
    struct tool tool;
    bool ended;
    uint64_t bad;
    const char *undone; /* a file */
    const char *at;     /* restore: a time or an LSN */
    json_t *result; /* the last line */
};

/* ---- arguments ----------------------------------------------------------------------------------------------------------- */

static int set_number(const struct command *command, json_t *request, const char *key, const char *text) {
    json_int_t value;
    if (parse_number(text, &value) != 0)
        return usage(command, "--%s %s: a number is expected", key, text);
    json_object_set_new(request, key, json_integer(value));
    return 0;
}

static int set_time(const struct command *command, json_t *request, const char *key, const char *text) {
    json_int_t value;
    if (parse_time(text, &value) != 0)
        return usage(command, "--%s \"%s\" is no time; say 2026-11-21 00:50, 00:50, 10min (ago) or @SECONDS", key, text);
    json_object_set_new(request, key, json_integer(value));
    return 0;
}

/* Inside the volume: a path below the mount point is taken as one, too. */
static int set_path(const struct tool *tool, json_t *request, const char *text) {
    char path[4100];
    size_t mount = tool->self != NULL ? strlen(tool->self->mount) : 0;

    if (mount > 0 && strncmp(text, tool->self->mount, mount) == 0 && (text[mount] == '/' || text[mount] == '\0'))
        text += mount;
    while (*text == '/')
        text++;
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '/')
        length--;
    text_escape(text, length, path, sizeof path);
    json_object_set_new(request, "path", json_string(path));
    return 0;
}

/* ---- output --------------------------------------------------------------------------------------------------------------- */

static void print_record(const json_t *record) {
    const char *time = json_string_value(json_object_get(record, "time"));
    const char *text = json_string_value(json_object_get(record, "text"));
    const char *epoch = json_string_value(json_object_get(record, "epoch"));

    printf("%8" JSON_INTEGER_FORMAT "  %s  %s by epoch %s\n", json_integer_value(json_object_get(record, "lsn")),
           time != NULL ? time : "?", text != NULL ? text : "?", epoch != NULL ? epoch : "?");
}

static int take_line(void *context, json_t *line) {
    struct viewer *viewer = context;
    const json_t *record = json_object_get(line, "record"), *bad = json_object_get(line, "bad");

    if (json_is_true(json_object_get(line, "end"))) {
        json_decref(viewer->result);
        viewer->result = line;
        viewer->ended = true;
        return 0;
    }
    if (bad != NULL)
        viewer->bad++;
    if (viewer->tool.json)
        print_json(record != NULL ? record : line);
    else if (record != NULL)
        print_record(record);
    else if (bad != NULL)
        printf("record %" JSON_INTEGER_FORMAT ": %s\n", json_integer_value(json_object_get(bad, "lsn")),
               json_string_value(json_object_get(bad, "what")));
    else if (json_object_get(line, "undone") != NULL)
        printf("          -- the records above %" JSON_INTEGER_FORMAT " were taken back --\n",
               json_integer_value(json_object_get(line, "undone")));
    else if (json_object_get(line, "trimmed") != NULL)
        printf("          -- the records up to %" JSON_INTEGER_FORMAT " are no longer in the journal --\n",
               json_integer_value(json_object_get(line, "trimmed")));
    json_decref(line);
    /* Whoever reads through a pipe wants a line when it happens; a terminal's stdout does so anyway. */
    return fflush(stdout) == 0 ? 0 : -EPIPE;
}

static bool never_gone(void *context, int timeout_ms) {
    (void)context;
    if (timeout_ms > 0)
        usleep((useconds_t)timeout_ms * 1000);
    return false;
}

static json_int_t number_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static int finish_verify(const struct viewer *viewer) {
    const json_t *end = viewer->result;
    json_int_t bad = number_of(end, "bad"), count = number_of(end, "records");

    if (viewer->tool.json)
        print_json(end);
    else if (count == 0)
        puts("The journal is empty: nothing to verify.");
    else if (bad == 0)
        printf("Records %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT
               ": chain%s good. The last chain value is %s.\n",
               number_of(end, "from"), number_of(end, "to"),
               json_is_true(json_object_get(end, "data")) ? " and data are" : " is",
               json_string_value(json_object_get(end, "chain")));
    if (bad > 0)
        return fail("%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT " records are bad; run \"baton check\" on the store "
                    "at rest, and take the other node's copy",
                    bad, count);
    return EXIT_SUCCESS;
}

static void print_stat(const json_t *end) {
    char from[64], to[64], bytes[32], payload[32];
    const char *key;
    json_t *value;
    size_t i;

    if (number_of(end, "from") > number_of(end, "to")) {
        puts("The journal is empty.");
        return;
    }
    time_text(file_time_of(number_of(end, "first_time")), from, sizeof from);
    time_text(file_time_of(number_of(end, "last_time")), to, sizeof to);
    size_text((uint64_t)number_of(end, "bytes"), bytes, sizeof bytes);
    size_text((uint64_t)number_of(end, "payload"), payload, sizeof payload);
    printf("records   %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT "\n", number_of(end, "from"), number_of(end, "to"));
    printf("time      %s to %s\n", from, to);
    printf("size      %s, and %s of data\n", bytes, payload);
    json_object_foreach(json_object_get(end, "types"), key, value) {
        if (json_integer_value(value) > 0)
            printf("%-9s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
    }
    json_array_foreach(json_object_get(end, "epochs"), i, value)
        printf("epoch     %s from record %" JSON_INTEGER_FORMAT "\n", json_string_value(json_object_get(value, "epoch")),
               number_of(value, "from"));
}

/* ---- the daemon, or the store at rest ------------------------------------------------------------------------------------- */

static int ask_daemon(struct viewer *viewer, int fd, const json_t *request) {
    int error = control_request(fd, request);

    while (error == 0 && !viewer->ended) {
        json_t *line;
        error = control_receive(fd, &line, -1);
        if (error)
            break;
        const char *sentence = json_string_value(json_object_get(line, "error"));
        if (sentence != NULL) {
            int status = fail("%s", sentence);
            json_decref(line);
            return status;
        }
        error = take_line(viewer, line);
    }
    if (error)
        return fail("batond ended the connection (%s); see its log and: baton status", strerror(-error));
    return EXIT_SUCCESS;
}

static int look(struct viewer *viewer, const json_t *request) {
    const struct journal_sink sink = {.context = viewer, .send = take_line, .gone = never_gone};
    struct store *store;
    char why[1024] = "";

    int status = tool_open(&viewer->tool, &store);
    if (status)
        return status;
    int error =
        journal_view(store, viewer->tool.self != NULL ? &viewer->tool.config : NULL, request, &sink, why, sizeof why);
    store_close(store);
    return error ? fail("%s", why) : EXIT_SUCCESS;
}

/* The records of a file that a rollback left. */
static int look_undone(struct viewer *viewer, const char *path) {
    struct undone *undone;
    struct span bytes, payload;
    struct record record;
    char why[1600] = "";
    int error = undone_open(path, &undone, why, sizeof why);
    if (error)
        return fail("%s", why);
    struct names *names = names_create(NULL);
    while (names && (error = undone_next(undone, &bytes, &payload)) == 1) {
        if (record_decode(bytes.data, bytes.length, &record, NULL) != 0) {
            error = -EBADMSG;
            break;
        }
        json_t *told = record_json(&record, names, viewer->tool.self != NULL ? &viewer->tool.config : NULL);
        names_learn(names, &record);
        record_release(&record);
        take_line(viewer, json_pack("{s:o}", "record", told));
    }
    undone_close(undone);
    if (!names)
        error = -ENOMEM;
    names_free(names);
    return error ? fail("%s cannot be read further: %s", path, strerror(-error)) : EXIT_SUCCESS;
}

static int view(struct viewer *viewer, const char *action, const json_t *request) {
    int fd, status;
    int error = control_connect(tool_store(&viewer->tool), &fd);

    if (error == 0) {
        status = ask_daemon(viewer, fd, request);
        close(fd);
    } else if (error != -ECONNREFUSED && error != -ENOENT) {
        return fail("batond cannot be asked: %s", strerror(-error));
    } else if (strcmp(action, "follow") == 0) {
        return fail("batond does not run here, so nothing will be added to this journal; see it with: baton journal list");
    } else {
        status = look(viewer, request);
    }
    if (status || viewer->result == NULL)
        return status;
    if (strcmp(action, "verify") == 0)
        return finish_verify(viewer);
    if (strcmp(action, "stat") == 0 && viewer->tool.json)
        print_json(viewer->result);
    else if (strcmp(action, "stat") == 0)
        print_stat(viewer->result);
    return status;
}

static int take_options(struct viewer *viewer, int argc, char **argv, json_t *request, const char **path) {
    static const struct option options[] = {TOOL_OPTIONS,
                                            TOOL_STORE_OPTION,
                                            {"from", required_argument, NULL, OPTION_FROM},
                                            {"to", required_argument, NULL, OPTION_TO},
                                            {"since", required_argument, NULL, OPTION_SINCE},
                                            {"until", required_argument, NULL, OPTION_UNTIL},
                                            {"path", required_argument, NULL, OPTION_PATH},
                                            {"inode", required_argument, NULL, OPTION_INODE},
                                            {"type", required_argument, NULL, OPTION_TYPE},
                                            {"last", required_argument, NULL, OPTION_LAST},
                                            {"undone", required_argument, NULL, OPTION_UNDONE},
                                            {"at", required_argument, NULL, OPTION_AT},
                                            {"no-data", no_argument, NULL, OPTION_NO_DATA},
                                            {NULL, 0, NULL, 0}};
    const struct command *command = &command_journal;
    int option, status = 0;

    while (status == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case OPTION_FROM:
            status = set_number(command, request, "from", optarg);
            break;
        case OPTION_TO:
            status = set_number(command, request, "to", optarg);
            break;
        case OPTION_SINCE:
            status = set_time(command, request, "since", optarg);
            break;
        case OPTION_UNTIL:
            status = set_time(command, request, "until", optarg);
            break;
        case OPTION_INODE:
            status = set_number(command, request, "inode", optarg);
            break;
        case OPTION_LAST:
            status = set_number(command, request, "last", optarg);
            break;
        case OPTION_PATH:
            *path = optarg;
            break;
        case OPTION_TYPE:
            json_object_set_new(request, "type", json_string(optarg));
            break;
        case OPTION_UNDONE:
            viewer->undone = optarg;
            break;
        case OPTION_AT:
            viewer->at = optarg;
            break;
        case OPTION_NO_DATA:
            json_object_set_new(request, "data", json_false());
            break;
        default:
            tool_option(&viewer->tool, option, optarg);
        }
    }
    return status;
}

static int get_back(struct viewer *viewer, const char *action, const json_t *request, const char *path, char **arguments,
                    int count) {
    bool restores = strcmp(action, "restore") == 0;

    if (path != NULL)
        return usage(&command_journal, "%s: name paths without --path, before the directory", action);
    if (json_object_size(request) > 1)
        return usage(&command_journal, "%s takes no filters", action);
    if (restores ? viewer->undone != NULL : viewer->at != NULL)
        return usage(&command_journal, "--undone goes with extract and list, --at with restore");
    return restores ? journal_restore(&viewer->tool, viewer->at, arguments, count)
                    : journal_extract(&viewer->tool, viewer->undone, arguments, count);
}

static int run(int argc, char **argv) {
    static struct viewer viewer;
    json_t *request = json_pack("{s:s}", "command", "journal");
    const char *path = NULL;

    viewer.tool.command = &command_journal;
    int status = take_options(&viewer, argc, argv, request, &path);
    if (status)
        goto out;
    const char *action = optind < argc ? argv[optind++] : "";
    if (strcmp(action, "restore") == 0 || strcmp(action, "extract") == 0) {
        status = get_back(&viewer, action, request, path, argv + optind, argc - optind);
        goto out;
    }
    if (viewer.at != NULL) {
        status = usage(&command_journal, "--at goes with restore");
        goto out;
    }
    if (strcmp(action, "list") != 0 && strcmp(action, "show") != 0 && strcmp(action, "follow") != 0 &&
        strcmp(action, "verify") != 0 && strcmp(action, "stat") != 0) {
        status = usage(&command_journal, "say list, show, follow, verify, stat, restore or extract");
        goto out;
    }
    json_object_set_new(request, "action", json_string(action));
    if (strcmp(action, "show") == 0)
        status = optind < argc ? set_number(&command_journal, request, "lsn", argv[optind++])
                               : usage(&command_journal, "which record? Say its LSN");
    if (status == 0 && optind < argc)
        status = usage(&command_journal, "\"%s\" is too much", argv[optind]);
    if (status == 0 && strcmp(action, "follow") == 0 && json_object_get(request, "last") == NULL &&
        json_object_get(request, "from") == NULL && json_object_get(request, "since") == NULL)
        json_object_set_new(request, "last", json_integer(10));
    if (status == 0)
        status = tool_load(&viewer.tool);
    if (status == 0 && path != NULL)
        status = set_path(&viewer.tool, request, path);
    if (status == 0 && viewer.undone != NULL)
        status = strcmp(action, "list") == 0 ? look_undone(&viewer, viewer.undone)
                                             : usage(&command_journal, "--undone goes with extract and list");
    else if (status == 0)
        status = view(&viewer, action, request);
out:
    json_decref(request);
    json_decref(viewer.result);
    return status;
}

const struct command command_journal = {
    "journal", "what changed, when: list, show, follow, verify, stat; get files back: restore, extract",
    "usage: baton journal list|show LSN|follow|verify|stat [OPTION…]\n"
    "       baton journal restore --at TIME|LSN [PATH…] DIRECTORY\n"
    "       baton journal extract --undone FILE [PATH…] DIRECTORY\n"
    "\n"
    "Reads the history of the volume, on the primary and on the standby, from batond or, if none runs, from the store.\n"
    "\n"
    "  list      the records, oldest first\n"
    "  show LSN  one record\n"
    "  follow    the last ten and then what comes, until you press Ctrl-C\n"
    "  verify    recomputes the chain of the records and the checksums of their data\n"
    "  stat      numbers\n"
    "  restore   copies files as they were into DIRECTORY, which must be new or empty; the volume is not touched\n"
    "  extract   copies what a rollback took back (changed and new files, as they were then) into DIRECTORY/files, and lists\n"
    "            what had been removed and renamed in DIRECTORY/report.txt\n"
    "\n"
    "  --from LSN, --to LSN        records of this range\n"
    "  --since TIME, --until TIME  2026-11-21, \"2026-11-21 00:50\", 00:50, 10min (ago), @SECONDS\n"
    "  --at TIME|LSN               restore: as it was then, or after this record; a TIME may also have an offset from UTC,\n"
    "                              2026-11-21T00:50:12+01:00\n"
    "  --path PATH                 what happened to PATH in the volume, and below it\n"
    "  --inode NUMBER              what happened to an inode\n"
    "  --type TYPE                 create, link, unlink, rename, setattr, write, truncate, allocate, punch, xattr, reclaim\n"
    "                              or epoch\n"
    "  --last NUMBER               only the last so many records are looked at\n"
    "  --undone FILE               list, extract: a file that a rollback left (status names it)\n"
    "  --no-data                   verify: the chain only, which is quicker\n"
    "  --config FILE               the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one\n"
    "  --node NAME                 the node; without it the one that has this host's name\n"
    "  --store DIR                 instead of both: a store at rest\n"
    "  --json                      one JSON object a line\n"
    "\n"
    "Names are those that files had then, as far as the journal tells, else those they have now.\n"
    "A PATH to restore is one that the file had then, in the volume; it keeps its place below DIRECTORY. Without one all is\n"
    "restored.\n",
    run};
