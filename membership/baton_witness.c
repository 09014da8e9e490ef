/* baton-witness: a voter without a copy, for any number of volumes. */
#include "fs/config.h"
#include "fs/control.h"
#include "membership/witness.h"

#include <config.h>

#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>

#define ANSWER_MS 900
#define EXIT_NOT_RUNNING 3

static const char usage[] =
    "usage: baton-witness [options] [CONFIG]...\n"
    "       baton-witness --status [--state DIR] [--json]\n"
    "Votes on who may be primary, for the volumes of these config files; has no copy. CONFIG: a volume's config file, or a\n"
    "directory of such, *.conf (" BATON_CONFIG_DIRECTORY ").\n"
    "  -s, --state DIR        what it has promised (" BATON_WITNESS_STATE ")\n"
    "  -k, --secret-key FILE  its secret key (FILE.witness.key beside one of the config files)\n"
    "      --status           what it serves; exit status 3: it does not run\n"
    "      --json             as JSON\n"
    "  -v, --verbose          log more\n"
    "  -h, --help, -V, --version\n"
    "SIGHUP: read the config files again.\n";

enum { OPTION_STATUS = 256, OPTION_JSON };

struct options {
    struct witness_options witness;
    bool status, json, verbose;
};

static int parse_arguments(int argc, char **argv, struct options *options) {
    static const struct option known[] = {{"state", required_argument, NULL, 's'},      {"secret-key", required_argument, NULL, 'k'},
                                          {"status", no_argument, NULL, OPTION_STATUS}, {"json", no_argument, NULL, OPTION_JSON},
                                          {"verbose", no_argument, NULL, 'v'},          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},          {0}};
    static char directory[] = BATON_CONFIG_DIRECTORY, *standard[] = {directory};
    int option;

    options->witness.state = BATON_WITNESS_STATE;
    while ((option = getopt_long(argc, argv, "s:k:vhV", known, NULL)) != -1) {
        switch (option) {
        case 's':
            options->witness.state = optarg;
            break;
        case 'k':
            options->witness.secret_key = optarg;
            break;
        case OPTION_STATUS:
            options->status = true;
            break;
        case OPTION_JSON:
            options->json = true;
            break;
        case 'v':
            options->verbose = true;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        case 'V':
            puts("baton-witness " PACKAGE_VERSION);
            exit(EXIT_SUCCESS);
        default:
            return -EINVAL;
        }
    }
    options->witness.configs = optind < argc ? argv + optind : standard;
    options->witness.count = optind < argc ? (unsigned)(argc - optind) : 1;
    if (options->status && optind < argc)
        fprintf(stderr, "baton-witness: --status takes no config file; give --state if it is not the usual one\n");
    else if (options->json && !options->status)
        fprintf(stderr, "baton-witness: --json goes with --status\n");
    else if (options->witness.count > WITNESS_CONFIGS_MAX)
        fprintf(stderr, "baton-witness: more than %u config files; put them into a directory\n", WITNESS_CONFIGS_MAX);
    else
        return 0;
    return -EINVAL;
}

/* ---- --status ---------------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static void print_seconds(const char *before, long long ms, const char *after) {
    printf("%s%lld.%lld s%s", before, ms / 1000, ms % 1000 / 100, after);
}

static void print_volume(const json_t *volume) {
    const char *holder = text_of(volume, "holder"), *primary = text_of(volume, "primary");
    printf("  %-20s ", text_of(volume, "volume"));
    if (number_of(volume, "version") == 0)
        printf("has no value yet");
    else if (*holder)
        print_seconds("", number_of(volume, "grant_left_ms"), " more held by ");
    else if (number_of(volume, "quiet_left_ms"))
        print_seconds("silent after a start for ", number_of(volume, "quiet_left_ms"), " more");
    else
        printf("held by nobody");
    fputs(holder, stdout);
    if (number_of(volume, "version"))
        printf("; primary %s in epoch %lld, version %lld", *primary ? primary : "nobody", number_of(volume, "epoch"),
               number_of(volume, "version"));
    if (number_of(volume, "version") && !json_is_true(json_object_get(volume, "listed")))
        printf("; not in the list of voters: see \"baton voters\"");
    if (number_of(volume, "refused"))
        printf("; %lld questions refused", number_of(volume, "refused"));
    if (*text_of(volume, "why"))
        printf("\n%24s%s", "", text_of(volume, "why"));
    putchar('\n');
}

static void print_status(const json_t *status) {
    size_t i;
    json_t *each;
    printf("witness at %s, state in %s: %zu volume%s\n", text_of(status, "address"), text_of(status, "state"),
           json_array_size(json_object_get(status, "volumes")), json_array_size(json_object_get(status, "volumes")) == 1 ? "" : "s");
    json_array_foreach(json_object_get(status, "volumes"), i, each) print_volume(each);
    json_array_foreach(json_object_get(status, "bad_files"), i, each)
        printf("  bad file%s: %s\n", json_is_true(json_object_get(each, "served")) ? ", its volume is served as before" : "",
               text_of(each, "why"));
    if (number_of(status, "strangers") + number_of(status, "unknown") + number_of(status, "garbage"))
        printf("  refused: %lld connections, %lld questions about other volumes, %lld messages that are none\n",
               number_of(status, "strangers"), number_of(status, "unknown"), number_of(status, "garbage"));
}

static int ask_status(const struct options *options) {
    json_t *answer = NULL, *request = json_pack("{s:s}", "command", "status");
    int fd = -1, rc = control_connect(options->witness.state, &fd);
    if (rc == 0)
        rc = control_request(fd, request);
    if (rc == 0)
        rc = control_receive(fd, &answer, ANSWER_MS);
    json_decref(request);
    if (fd >= 0)
        close(fd);
    if (rc) {
        bool none = rc == -ENOENT || rc == -ECONNREFUSED;
        fprintf(stderr, "baton-witness: the one with its state in %s %s: %s\n", options->witness.state,
                none ? "does not run" : "does not answer", strerror(-rc));
        return none ? EXIT_NOT_RUNNING : EXIT_FAILURE;
    }
    if (*text_of(answer, "error"))
        fprintf(stderr, "baton-witness: %s\n", text_of(answer, "error"));
    else if (options->json)
        json_dumpf(answer, stdout, JSON_COMPACT), putchar('\n');
    else
        print_status(answer);
    int status = *text_of(answer, "error") ? EXIT_FAILURE : EXIT_SUCCESS;
    json_decref(answer);
    return status;
}

/* ---- The daemon -------------------------------------------------------------------------------------------------------- */

static struct witness *served;

static void answer_status(struct volume *none, const json_t *request, struct control_reply *reply) {
    (void)none;
    (void)request;
    json_t *status = witness_status(served);
    if (!status || json_object_set_new(status, "end", json_true())) {
        json_decref(status);
        control_error(reply, ENOMEM, "there is no memory for the status");
        return;
    }
    control_send(reply, status);
}

static int block_signals(void) {
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    PROMISE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0); /* for the threads to come, too */
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    PROMISE(fd >= 0);
    return fd;
}

static void raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warning("the limit of open files stays as it is: %s", strerror(errno));
}

static void serve(int signals) {
    struct signalfd_siginfo info;
    for (;;) {
        ssize_t length = read(signals, &info, sizeof info);
        PROMISE(length == (ssize_t)sizeof info || errno == EINTR);
        if (length < 0)
            continue;
        if (info.ssi_signo != SIGHUP)
            break;
        sd_notify(0, "RELOADING=1");
        witness_reload(served);
        log_info("has read its config files again; volumes: %u", witness_count(served));
        sd_notify(0, "READY=1");
    }
    log_info("stopping: signal %s", sigabbrev_np((int)info.ssi_signo));
    sd_notify(0, "STOPPING=1");
}

static int run(const struct options *options) {
    char why[2048];
    struct control *control;
    int signals = block_signals();
    raise_descriptors();
    int rc = witness_open(&options->witness, &served, why, sizeof why);
    if (rc) {
        log_error("%s", why);
        return EXIT_FAILURE;
    }
    control_register("status", answer_status);
    rc = control_start_in(options->witness.state, NULL, &control, why, sizeof why);
    if (rc == 0) {
        log_info("listens at %s; volumes: %u", witness_address(served), witness_count(served));
        puts("ready");
        fflush(stdout);
        sd_notify(0, "READY=1");
        serve(signals);
        control_stop(control);
    } else {
        log_error("%s", why);
    }
    witness_close(served);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    struct options options = {0};
    log_identify("baton-witness");
    mallopt(M_ARENA_MAX, 1); /* a few MiB, however many threads */
    mallopt(M_TRIM_THRESHOLD, 128 << 10);
    if (parse_arguments(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    log_verbose(options.verbose);
    log_never_waits();
    return options.status ? ask_status(&options) : run(&options);
}
