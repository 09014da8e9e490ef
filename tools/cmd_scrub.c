/* baton scrub: has batond read all data against its checksums and mend what is bad. */
#include "tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define ASK_MS 30000
#define LOOK_MS 500

enum { OPTION_RATE = OPTION_OWN, OPTION_WAIT, OPTION_STOP, OPTION_STATUS };

static uint64_t number_of(const json_t *object, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static int ask(const struct tool *tool, const char *action, uint64_t rate, json_t **answer) {
    return tool_ask(tool, json_pack("{s:s, s:s, s:I}", "command", "scrub", "action", action, "rate", (json_int_t)rate), ASK_MS,
                    answer);
}

/* ---- for people ---- */

static void show_bad(const json_t *pass) {
    const json_t *files = json_object_get(pass, "files");
    uint64_t found = number_of(pass, "found"), unmended = number_of(pass, "unmended");
    size_t count = json_array_size(files);

    if (found == 0) {
        puts("  no bad block found");
        return;
    }
    printf("  %" PRIu64 " bad block%s found, %" PRIu64 " mended from another node, %" PRIu64 " not mended\n", found,
           found == 1 ? "" : "s", number_of(pass, "mended"), unmended);
    for (size_t i = 0; i < count; i++) {
        const json_t *file = json_array_get(files, i);
        const char *path = json_string_value(json_object_get(file, "path"));
        printf("  not mended: block %" PRIu64 " (of 4096 bytes) of ", number_of(file, "block"));
        if (path)
            printf("\"%s\"\n", path);
        else
            printf("inode %" PRIu64 "\n", number_of(file, "inode"));
    }
    if (unmended > count)
        printf("  and %" PRIu64 " others\n", unmended - count);
    if (unmended > 0)
        puts("  Scrub again when the other node is there and in sync; what it does not have either, restore from a backup.");
}

static void show_running(const json_t *pass) {
    char done[32], of[32], rate[32], left[32];
    uint64_t bytes = number_of(pass, "bytes"), total = number_of(pass, "bytes_of");
    uint64_t limit = number_of(pass, "rate");

    size_text(bytes, done, sizeof done);
    size_text(total, of, sizeof of);
    size_text(limit, rate, sizeof rate);
    age_text((int64_t)((total - MIN(bytes, total)) / (limit ? limit : 1)) * 1000000000, left, sizeof left);
    printf("A scrub is running: %s of about %s read, at most %s a second, at least %s left%s.\n", done, of, rate, left,
           number_of(pass, "resumed") ? "; it was interrupted and went on" : "");
    show_bad(pass);
}

static void show_ended(const json_t *pass) {
    char when[64] = "?", done[32], took[32];
    time_t at = (time_t)(number_of(pass, "ended") / 1000000000);
    struct tm local;

    if (localtime_r(&at, &local))
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
    size_text(number_of(pass, "bytes"), done, sizeof done);
    age_text((int64_t)(json_number_value(json_object_get(pass, "seconds")) * 1e9), took, sizeof took);
    printf("The last scrub %s at %s: %s read in %s.\n", json_is_true(json_object_get(pass, "stopped")) ? "was stopped" : "ended",
           when, done, took);
    show_bad(pass);
}

static void show(const struct tool *tool, const json_t *answer) {
    const json_t *now = json_object_get(answer, "now"), *last = json_object_get(answer, "last");
    if (tool->json) {
        print_json(answer);
        return;
    }
    if (now)
        show_running(now);
    if (last)
        show_ended(last);
    if (!now && !last)
        puts("No scrub has been made yet; \"baton scrub\" begins one.");
}

/* ---- waiting ---- */

static void show_progress(const json_t *pass, uint64_t before) {
    char done[32], of[32], rate[32], left[32];
    uint64_t bytes = number_of(pass, "bytes"), total = number_of(pass, "bytes_of");
    uint64_t speed = (bytes - MIN(before, bytes)) * 1000 / LOOK_MS;

    size_text(bytes, done, sizeof done);
    size_text(total, of, sizeof of);
    size_text(speed, rate, sizeof rate);
    age_text((int64_t)((total - MIN(bytes, total)) / (speed ? speed : 1)) * 1000000000, left, sizeof left);
    printf("\r\033[K%s of about %s, %s/s, about %s left, %" PRIu64 " bad blocks", done, of, rate, left,
           number_of(pass, "found"));
    fflush(stdout);
}

/* Until it has ended; then the exit status says whether all is well. */
static int wait_for_end(const struct tool *tool, json_t *answer) {
    bool terminal = isatty(STDOUT_FILENO) && !tool->json, shown = false;
    uint64_t before = 0;
    while (json_is_true(json_object_get(answer, "running"))) {
        const json_t *now = json_object_get(answer, "now");
        if (terminal)
            show_progress(now, shown ? before : number_of(now, "bytes"));
        before = number_of(now, "bytes");
        shown = true;
        json_decref(answer);
        usleep(LOOK_MS * 1000);
        int status = ask(tool, "status", 0, &answer);
        if (status)
            return status;
    }
    if (terminal)
        fputs("\r\033[K", stdout);
    show(tool, answer);
    const json_t *last = json_object_get(answer, "last");
    bool well = number_of(last, "unmended") == 0 && !json_is_true(json_object_get(last, "stopped"));
    json_decref(answer);
    return well ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run_scrub(int argc, char **argv) {
    static const struct option options[] = {TOOL_OPTIONS,
                                            {"rate", required_argument, NULL, OPTION_RATE},
                                            {"wait", no_argument, NULL, OPTION_WAIT},
                                            {"stop", no_argument, NULL, OPTION_STOP},
                                            {"status", no_argument, NULL, OPTION_STATUS},
                                            {NULL, 0, NULL, 0}};
    static struct tool tool;
    bool wait = false, stop = false, look = false;
    uint64_t rate = 0;
    json_t *answer;
    int option;

    tool.command = &command_scrub;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_RATE && (parse_size(optarg, &rate) != 0 || rate < 64u << 10 || rate > INT64_MAX))
            return usage(&command_scrub, "--rate %s is not a size like 32MiB (a second); at least 64KiB", optarg);
        else if (option == OPTION_WAIT)
            wait = true;
        else if (option == OPTION_STOP)
            stop = true;
        else if (option == OPTION_STATUS)
            look = true;
        else if (option != OPTION_RATE)
            tool_option(&tool, option, optarg);
    }
    if (optind < argc)
        return usage(&command_scrub, "\"%s\" is too much", argv[optind]);
    if ((stop || look) && (rate || wait || (stop && look)))
        return usage(&command_scrub, "--stop and --status stand alone");
    if (tool_load(&tool) != 0)
        return EXIT_FAILURE;
    int status = ask(&tool, stop ? "stop" : look ? "status" : "start", rate, &answer);
    if (status)
        return status;
    if (wait)
        return wait_for_end(&tool, answer);
    show(&tool, answer);
    json_decref(answer);
    return EXIT_SUCCESS;
}

const struct command command_scrub = {
    "scrub", "read all data against its checksums, mend what is bad from the other node",
    "usage: baton scrub [--rate SIZE] [--wait]\n"
    "       baton scrub --status | --stop\n"
    "\n"
    "Lets this node's batond read all data of the files, whatever the page cache holds, and mend blocks that cannot be\n"
    "read or fail their checksum from another node. It goes on in the background, behind all other work, and after a\n"
    "restart of batond where it was. Data that only the history still holds is not read. Each node has its own disk:\n"
    "scrub on each.\n"
    "\n"
    "  --rate SIZE     read at most so much a second, like 100MiB; without it what the config file says ([scrub] rate).\n"
    "                  A scrub that is running takes the new rate.\n"
    "  --wait          wait for its end and show how far it is; exit status 1 if a block could not be mended\n"
    "  --status        how far it is, and what the last one found\n"
    "  --stop          end the one that is running\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     this node; without it the one that has this host's name\n"
    "  --json          print the result as JSON\n",
    run_scrub};
