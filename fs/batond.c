/* batond: serves one volume on this node. Opens the store, mounts, replicates, answers the tools, until it is told to
 * stop or its mount goes away. That is the child's work; the parent supervises it (launch.h). */
#include "fs/control.h"
#include "fs/events.h"
#include "fs/front.h"
#include "fs/generation.h"
#include "fs/history.h"
#include "fs/import.h"
#include "exporters/runner.h"
#include "fs/launch.h"
#include "fs/scrub.h"
#include "fs/volume.h"
#include "membership/supervisor.h"
#include "replication/replicator.h"
#include "replication/verify.h"

#include <config.h>

#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

/* A daemon that is ending lets go of the store within this time: mount right after umount works. */
#define STORE_WAIT_NS (INT64_C(15) * 1000000000)

/* To hand over at the end, or to give the lease back. */
#define LEAVE_NS (INT64_C(1500) * 1000000)

/* Orphans of earlier epochs may still be open at a client of the primary before: as long as its server's grace time. */
#define ORPHAN_GRACE_MS 90000

static const char usage[] =
    "usage: batond --config FILE --node NAME [options]\n"
    "Serves a volume on this node: its store, its mount, its replication. Runs until SIGTERM or until it is "
    "unmounted.\n"
    "  -c, --config FILE      the volume's config file, the same on every node\n"
    "  -n, --node NAME        which of its nodes this is\n"
    "  -k, --secret-key FILE  this node's secret key (FILE.NAME.key beside the config file)\n"
    "  -m, --mount DIR        mount here instead of where the config says; \"none\": do not mount\n"
    "  -o, --options LIST     mount options instead of the config's\n"
    "      --orphan-grace TIME  how long files that were unlinked in earlier epochs are kept for clients that have "
    "them\n"
    "                         open (90s)\n"
    "  -b, --background       return when the mount answers, log to the system's journal\n"
    "  -S, --no-supervisor    serve in this one process: nobody gives the lease back or starts it again when it dies\n"
    "  -v, --verbose          log more\n"
    "  -h, --help, -V, --version\n";

struct options {
    const char *config, *node, *secret_key, *mount, *mount_options, *orphan_grace;
    bool background, verbose, alone;
};

/* What both processes need. */
struct run {
    struct volume volume;
    struct options options;
    int background; /* whoever has started us waits there for a byte; -1: nobody */
};

static int parse_arguments(int argc, char **argv, struct options *options) {
    static const struct option known[] = {{"config", required_argument, NULL, 'c'},
                                          {"node", required_argument, NULL, 'n'},
                                          {"secret-key", required_argument, NULL, 'k'},
                                          {"mount", required_argument, NULL, 'm'},
                                          {"options", required_argument, NULL, 'o'},
                                          {"background", no_argument, NULL, 'b'},
                                          {"no-supervisor", no_argument, NULL, 'S'},
                                          {"verbose", no_argument, NULL, 'v'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"orphan-grace", required_argument, NULL, 'g'},
                                          {0}};
    int option;

    while ((option = getopt_long(argc, argv, "c:n:k:m:o:bSvhV", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->config = optarg;
            break;
        case 'n':
            options->node = optarg;
            break;
        case 'k':
            options->secret_key = optarg;
            break;
        case 'm':
            options->mount = optarg;
            break;
        case 'o':
            options->mount_options = optarg;
            break;
        case 'g':
            options->orphan_grace = optarg;
            break;
        case 'b':
            options->background = true;
            break;
        case 'S':
            options->alone = true;
            break;
        case 'v':
            options->verbose = true;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        case 'V':
            puts("batond " PACKAGE_VERSION);
            exit(EXIT_SUCCESS);
        default:
            return -EINVAL;
        }
    }
    if (optind < argc)
        fprintf(stderr, "batond: \"%s\" is not expected here\n", argv[optind]);
    else if (!options->config)
        fputs("batond: --config is missing\n", stderr);
    else if (!options->node)
        fputs("batond: --node is missing\n", stderr);
    else
        return 0;
    return -EINVAL;
}

static int copy_text(char *to, size_t room, const char *text, const char *option) {
    if ((size_t)snprintf(to, room, "%s", text) < room)
        return 0;
    log_error("the argument of %s is too long", option);
    return -ENAMETOOLONG;
}

static int configure(struct volume *volume, const struct options *options) {
    char why[1024], prefix[160];
    uint64_t grace_ms = ORPHAN_GRACE_MS;
    struct config *config = &volume->config;

    if (options->orphan_grace && (parse_duration(options->orphan_grace, &grace_ms) || grace_ms > INT64_MAX / 1000000)) {
        log_error("--orphan-grace wants a time like 90s or 2m, not \"%s\"", options->orphan_grace);
        return -EINVAL;
    }
    volume->orphan_grace = (int64_t)grace_ms * 1000000;
    int error = config_load(options->config, config, why, sizeof why);
    if (error) {
        log_error("%s", why);
        return error;
    }
    volume->self = config_node(config, options->node);
    if (!volume->self) {
        log_error("%s has no section [node %s]; --node names one of its nodes", options->config, options->node);
        return -ENOENT;
    }
    snprintf(prefix, sizeof prefix, "batond[%s.%s]", config->volume, volume->self->name);
    log_identify(prefix);
    struct node_config *self = &config->nodes[volume->self - config->nodes];
    if (options->mount)
        error =
            copy_text(self->mount, sizeof self->mount, strcmp(options->mount, "none") ? options->mount : "", "--mount");
    if (!error && options->mount_options)
        error = copy_text(config->options, sizeof config->options, options->mount_options, "--options");
    if (!error && config->node_count > 1 && config->transport == TRANSPORT_CURVE) {
        error = config_secret(config, self->name, options->secret_key, volume->secret, why, sizeof why);
        if (error)
            log_error("%s", why);
    }
    return error;
}

static int open_store(struct volume *volume) {
    char why[1024];
    struct store_options options = {
        .history_seconds = volume->config.history_seconds,
        .history_bytes = volume->config.history_bytes,
        .limit_bytes = volume->config.limit_bytes,
        .no_history = volume->config.history_seconds == 0 || volume->config.history_bytes == 0,
        .hold_all = volume->config.node_count > 1,
    };
    int64_t until = clock_boot() + STORE_WAIT_NS;
    int error;

    while ((error = store_open(volume->self->store, volume->config.volume_id, &options, &volume->store, why,
                               sizeof why)) == -EBUSY &&
           clock_boot() < until)
        usleep(50000);
    if (error) {
        log_error("%s", why);
        return error;
    }
    return 0;
}

/* Under the store's lock, which is held while it is open. */
static void sweep(struct volume *volume) {
    int error = generation_sweep(volume->self->store, true);
    if (error)
        log_warning("what an earlier synchronization left in %s cannot be removed: %s", volume->self->store, strerror(-error));
}

/* What a record in the log says of the store when it was opened: it is all on disk. */
static void watch_store(struct volume *volume) {
    struct position position;

    volume_watch(volume);
    store_position(volume->store, &position);
    volume_durable(volume, position.durable);
}

/* Replicator, scrub and control: what comes and goes with the store. */
static int start_service(struct volume *volume, char *why, size_t why_room) {
    int error = 0;
    if (volume->config.node_count > 1)
        error = replicator_start(volume, why, why_room);
    else
        error = volume_serve_alone(volume, why, why_room);
    if (!error) {
        struct scrub_options options = {volume->config.scrub_rate, volume->config.scrub_seconds};
        error = scrub_open(volume->store, &options, &volume->scrub);
        if (error)
            snprintf(why, why_room, "the scrub cannot be started: %s", strerror(-error));
    }
    return error ? error : control_start(volume, &volume->control, why, why_room);
}

static int start(struct volume *volume) {
    char why[1024] = "";
    int error = open_store(volume);

    if (error)
        return error;
    volume->park = park_create();
    volume->local = park_create();
    volume->events = events_create();
    if (config_register(&volume->config) != REGISTER_FILE)
        volume->lease = &volume->supervision->lease;
    if (!volume->park || !volume->local || !volume->events) {
        log_error("no memory for a start");
        return -ENOMEM;
    }
    sweep(volume);
    watch_store(volume);
    if (volume->config.node_count > 1)
        error = replicator_open_register(volume, why, sizeof why);
    if (!error && volume->self->mount[0])
        error = front_start(volume, &volume->front, why, sizeof why);
    control_status();
    control_journal();
    control_history();
    control_scrub();
    control_events();
    replicator_control();
    verify_control();
    if (!error)
        error = start_service(volume, why, sizeof why);
    if (error)
        log_error("%s", why);
    return error;
}

/* While the replicator still runs, what waits for the peer may be acknowledged and who waits in the mount gets on. */
static void stop(struct volume *volume) {
    exports_end(volume, false);
    atomic_store(&volume->stopping, true);
    if (volume->front)
        front_unmount(volume->front);
    if (volume->replicator)
        replicator_leave(volume->replicator, LEAVE_NS);
    if (volume->store)
        history_end_all(volume->store, true);
    if (volume->control)
        control_stop(volume->control);
    scrub_close(volume->scrub);
    if (volume->replicator)
        replicator_stop(volume->replicator);
    if (volume->front)
        front_stop(volume->front);
    /* Records that the store writes while it closes concern nobody any more. */
    if (volume->store)
        store_set_watch(volume->store, &(struct store_watch){0});
    if (volume->store)
        store_close(volume->store);
    replicator_close_register(volume);
    park_free(volume->local);
    park_free(volume->park);
    events_free(volume->events);
}

/* ---- Another store takes this one's place ---- */

static int replace_store(void *context) {
    struct volume *volume = context;
    const char *aside = volume->renewal.aside;
    store_set_watch(volume->store, &(struct store_watch){0});
    store_close(volume->store);
    volume->store = NULL;
    int error, tries = 0;
    while ((error = import_switch(volume->self->store, aside[0] ? aside : NULL)) == -EBUSY && tries++ < 100)
        usleep(100000); /* a tool that looks at the store */
    if (error)
        log_error("the store that was built anew in %s cannot take the old one's place: %s", volume->self->store,
                  strerror(-error));
    return open_store(volume); /* whichever it is */
}

/* The mount stays; who reads there waits meanwhile. */
static int renew(struct volume *volume) {
    char why[1024] = "";
    int error = 0;
    history_end_all(volume->store, true); /* until the replicator has stopped */
    control_stop(volume->control);
    volume->control = NULL;
    scrub_close(volume->scrub);
    volume->scrub = NULL;
    if (atomic_load(&volume->role) == ROLE_PRIMARY) /* it has become that meanwhile */
        replicator_leave(volume->replicator, LEAVE_NS);
    replicator_stop(volume->replicator);
    bool holds = volume_renewal_holds(volume);
    if (holds)
        error = volume->front ? front_replace_store(volume->front, replace_store, volume) : replace_store(volume);
    if (error)
        return error;
    volume->renewal.aside[0] = '\0';
    atomic_store(&volume->renewal.due, false);
    if (holds)
        watch_store(volume);
    error = start_service(volume, why, sizeof why);
    if (error)
        log_error("%s", why);
    else if (holds)
        log_info("the store that was built anew has taken the old one's place");
    else
        log_info("the old store has moved on meanwhile and stays");
    if (!error)
        sweep(volume);
    return error;
}

/* Until a signal, or until somebody unmounts, or an error. */
static int serve(struct volume *volume, int signals) {
    struct pollfd events[3] = {{.fd = signals, .events = POLLIN},
                               {.fd = volume->front ? front_ended_fd(volume->front) : -1, .events = POLLIN},
                               {.fd = volume->renewal.fd, .events = POLLIN}};
    struct signalfd_siginfo info;
    uint64_t count;
    int error = 0;

    while (!error) {
        if (poll(events, 3, -1) < 0) {
            PROMISE(errno == EINTR);
            continue;
        }
        if (events[0].revents && read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
            log_info("stopping: signal %s", sigabbrev_np((int)info.ssi_signo));
            break;
        }
        if (events[1].revents) {
            log_info("stopping: %s is no longer mounted", volume->self->mount);
            break;
        }
        if (events[2].revents && read(volume->renewal.fd, &count, sizeof count) == (ssize_t)sizeof count)
            error = renew(volume);
    }
    return error;
}

/* Every peer, and every stranger that knocks, takes descriptors; shells give 1024. */
static void raise_descriptors(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warning("the limit of open files stays as it is: %s", strerror(errno));
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

/* The parent returns when the child says that it is ready, or has ended. */
static int go_background(void) {
    int ends[2];
    char ready = 0;

    PROMISE(pipe2(ends, O_CLOEXEC) == 0);
    pid_t child = fork();
    if (child < 0) {
        log_error("cannot go into the background: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    if (child == 0) {
        close(ends[0]);
        setsid();
        return ends[1];
    }
    close(ends[1]);
    ssize_t length;
    while ((length = read(ends[0], &ready, 1)) < 0 && errno == EINTR)
        ;
    _exit(length == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* Of the process that serves, and of its parent. */
static void detach(void) {
    if (chdir("/") < 0) /* so as not to keep a mount busy; paths have been used by now */
        log_warning("cannot change to /: %s", strerror(errno));
    int journal = sd_journal_stream_fd("batond", LOG_LEVEL_INFO, 0);
    AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    AUTO_CLOSE int log = journal < 0 ? -1 : journal;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(log >= 0 ? log : null, STDERR_FILENO);
}

/* To whoever has started this process. Once, by the parent if there is one. */
static void say_ready(void *context) {
    struct run *run = context;

    if (run->background >= 0) {
        ssize_t done = write(run->background, "r", 1);
        (void)done;
        close(run->background);
    } else {
        puts("ready");
        fflush(stdout);
    }
    sd_notifyf(0, "READY=1\nMAINPID=%ld", (long)getpid());
}

static void parent_ready(void *context) {
    struct run *run = context;
    if (run->background >= 0)
        detach();
    say_ready(run);
}

/* `parent`: the supervisor, which passes it on; -1: there is none. */
static void is_ready(struct run *run, int parent) {
    struct volume *volume = &run->volume;
    log_info("%s serves volume %s%s%s as %s", volume->self->name, volume->config.volume,
             volume->front ? " at " : ", not mounted", volume->front ? front_path(volume->front) : "",
             atomic_load(&volume->role) == ROLE_PRIMARY ? "primary" : "standby");
    if (volume->front) {
        snprintf(volume->supervision->mount, sizeof volume->supervision->mount, "%s", front_path(volume->front));
        front_device(front_path(volume->front), volume->supervision->device);
        volume->supervision->descriptor_count = front_descriptors(volume->front, volume->supervision->descriptors, SUPERVISION_DESCRIPTORS);
    }
    atomic_store(&volume->supervision->serving, true);
    exports_wake(&volume->supervision->exports); /* hooks are told what role this is */
    if (run->background >= 0)
        detach();
    if (parent >= 0)
        launch_ready(parent);
    else
        say_ready(run);
}

/* Buffers of a megabyte come and go with every large write. Given back to the kernel each time, their pages would have to
 * be cleared each time (a fifth of the speed of sequential writing, measured with 32 and 128 MiB here); so a few of them
 * are kept. */
static void keep_buffers(void) {
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

static int serve_volume(void *context, int parent) {
    struct run *run = context;
    struct volume *volume = &run->volume;
    int signals = block_signals();

    raise_descriptors();
    volume->renewal.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    PROMISE(volume->renewal.fd > 0);
    int error = start(volume);
    if (!error) {
        is_ready(run, parent);
        error = serve(volume, signals);
        if (parent < 0)
            sd_notify(0, "STOPPING=1");
    }
    stop(volume);
    return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- After its death, in a process for that ---- */

/* Others need not wait until it has run out: nobody answers for it any more. */
static void give_back(const struct volume *volume, epoch_t epoch, uint64_t session) {
    int64_t patience = (int64_t)volume->config.lease_ms * 1000000;
    int error = 0;

    if (!epoch)
        return;
    switch (config_register(&volume->config)) {
    case REGISTER_FILE:
        return;
    case REGISTER_VOTERS:
        error = register_voters_release(&volume->config, volume->self, volume->secret, epoch, session, patience);
        break;
    case REGISTER_ETCD:
        error = register_etcd_release(&volume->config, volume->self, epoch, session, patience);
        break;
    }
    if (error)
        log_warning("the lease could not be given back, others wait until it has run out: %s", strerror(-error));
    else
        log_info("its lease is given back");
}

static void after_death(void *context, const struct died *died, epoch_t epoch, uint64_t session) {
    const struct run *run = context;
    give_back(&run->volume, epoch, session);
    int error = died_add(run->volume.self->store, died);
    if (error)
        log_warning("the note of how it died cannot be left beside %s: %s", run->volume.self->store, strerror(-error));
}

/* ---- Its exports ---- */

static int run_exports(void *context, pid_t parent) {
    struct run *run = context;
    return runner_run(&run->volume.config, run->volume.self, run->volume.supervision, parent);
}

static void stop_exports(void *context) {
    const struct run *run = context;
    exports_stop(&run->volume.supervision->exports, &run->volume.config, true);
}

static int supervised(struct run *run) {
    const struct config *config = &run->volume.config;
    struct launch how = {.context = run,
                         .shared = run->volume.supervision,
                         .patience = config_register(config) == REGISTER_FILE ? 0 : MAX(config->lease_ms, 1000u) * INT64_C(1000000),
                         .source = config->volume,
                         .serve = serve_volume,
                         .ready = parent_ready,
                         .after = after_death};
    if (exports_any(config) && run->volume.self->mount[0]) {
        char why[1024];
        if (runner_check(config, run->volume.self, why, sizeof why) != 0) {
            log_error("%s", why);
            return EXIT_FAILURE;
        }
        how.companion = run_exports;
        how.giving_up = stop_exports;
    }
    return launch(&how);
}

int main(int argc, char **argv) {
    static struct run run = {.background = -1};

    log_identify("batond");
    keep_buffers();
    if (parse_arguments(argc, argv, &run.options)) {
        fputs(usage, stderr);
        return 2;
    }
    log_verbose(run.options.verbose);
    if (configure(&run.volume, &run.options))
        return EXIT_FAILURE;
    log_never_waits();
    run.volume.supervision = launch_share();
    if (!run.volume.supervision) {
        log_error("no memory for a start: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    atomic_store(&run.volume.supervision->lease.until, INT64_MIN);
    if (run.options.background)
        run.background = go_background();
    return run.options.alone ? serve_volume(&run, -1) : supervised(&run);
}
