#include "fs/launch.h"

#include "fs/front.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>

#define KEEPER_END_MS 1000
#define KEEPER_PATIENCE_MS 5000
#define KEEPER_LAST_US 100000
#define KEEPER_DESCRIPTORS 1024

struct parent {
    const struct launch *launch;
    struct supervisor supervisor;
    pid_t child, after, companion; /* 0: none */
    int64_t companion_at;          /* it is started again then */
    int64_t companion_due;         /* the next look at whether it lives, and what was seen at the last */
    uint64_t companion_looked;
    unsigned companion_silent; /* looks at which it had not moved */
    int signals;
    int ready; /* the child says so there; -1: it has */
    bool said; /* ready, to whoever has started us */
    bool overdue;
    int held[SUPERVISION_DESCRIPTORS]; /* copies of the child's, of its mount: while exporters' servers are ended nobody hears of its death */
    unsigned held_count;
    int keeper; /* a socket to the process that has such copies too; -1: there is none */
    int64_t began; /* of the child, CLOCK_BOOTTIME; from its being ready on: that moment */
};

struct supervision *launch_share(void) {
    struct supervision *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    page->exports.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    PROMISE(page->exports.wake >= 0);
    return page;
}

void launch_ready(int ready) {
    if (write(ready, "r", 1) != 1)
        log_warning("the supervisor does not hear that this process is ready: %s", strerror(errno));
    close(ready);
}

static void watched_signals(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGCHLD);
}

/* In a process that has just been forked: they are the parent's. */
static void forget_held(struct parent *parent) {
    while (parent->held_count > 0)
        close(parent->held[--parent->held_count]);
    if (parent->keeper >= 0)
        close(parent->keeper);
    parent->keeper = -1;
}

static void let_go(struct parent *parent) {
    struct pollfd ended = {.fd = parent->keeper, .events = POLLIN};
    /* it answers by its end */
    if (parent->keeper >= 0 && send(parent->keeper, "x", 1, MSG_NOSIGNAL) == 1 && poll(&ended, 1, KEEPER_END_MS) == 0)
        log_warning("the process that keeps the mount's descriptors does not end");
    forget_held(parent);
}

/* ---- The keeper ---- */

/* Has the copies when this parent is killed too: servers in the mount then hear nothing until the runner has ended, which stops
 * them, or whose end is SIGKILL for them, from the kernel (server_start in exporters/lib.sh); and a little longer, because
 * children of theirs get theirs when their namespace's first process has ended. */
static void keep(const struct supervision *shared, int word) {
    char byte;
    ssize_t length;
    while ((length = read(word, &byte, 1)) < 0 && errno == EINTR)
        ;
    if (length != 0)
        _exit(EXIT_SUCCESS);
    pid_t runner = atomic_load(&shared->exports.runner);
    int process = runner > 0 ? (int)syscall(SYS_pidfd_open, runner, 0) : -1;
    if (process >= 0)
        poll(&(struct pollfd){.fd = process, .events = POLLIN}, 1, KEEPER_PATIENCE_MS);
    usleep(KEEPER_LAST_US);
    _exit(EXIT_SUCCESS);
}

static bool is_kept(const struct parent *parent, int fd) {
    for (unsigned i = 0; i < parent->held_count; i++)
        if (parent->held[i] == fd)
            return true;
    return false;
}

/* Nobody's child: whoever ends this process and its children does not end it. */
static void start_keeper(struct parent *parent) {
    int ends[2], status = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        log_warning("a process that keeps the mount's descriptors cannot be started: %s", strerror(errno));
        return;
    }
    fflush(NULL);
    pid_t process = fork();
    if (process == 0) {
        pid_t keeper = fork();
        if (keeper != 0)
            _exit(keeper < 0 ? errno : 0);
        prctl(PR_SET_NAME, "batond-keeper");
        for (int fd = 0; fd < KEEPER_DESCRIPTORS; fd++)
            if (fd != ends[1] && !is_kept(parent, fd))
                close(fd);
        close_range(KEEPER_DESCRIPTORS, ~0u, 0);
        keep(parent->launch->shared, ends[1]);
    }
    close(ends[1]);
    parent->keeper = ends[0];
    int error = process < 0 ? errno : 0;
    if (process > 0 && waitpid(process, &status, 0) == process && WIFEXITED(status))
        error = WEXITSTATUS(status);
    if (error)
        log_warning("a process that keeps the mount's descriptors cannot be started: %s", strerror(error));
}

/* Of a child that has just got ready. */
static void hold(struct parent *parent) {
    const struct supervision *shared = parent->launch->shared;
    AUTO_CLOSE int process = (int)syscall(SYS_pidfd_open, parent->child, 0);
    let_go(parent);
    for (unsigned i = 0; i < shared->descriptor_count && process >= 0; i++) {
        int copy = (int)syscall(SYS_pidfd_getfd, process, shared->descriptors[i], 0);
        if (copy >= 0)
            parent->held[parent->held_count++] = copy;
    }
    if (parent->held_count != shared->descriptor_count) {
        log_warning("the mount's descriptors cannot be copied: %s; when the process that serves dies, clients may see an error",
                    strerror(errno));
        let_go(parent);
    } else if (parent->held_count > 0) {
        start_keeper(parent);
    }
}

/* In a process that has just been forked. One that serves is told to stop by signals that it reads itself: none may end it
 * before it does. */
static void leave_parent(struct parent *parent, bool serves) {
    sigset_t set;
    forget_held(parent);
    watched_signals(&set);
    close(parent->signals);
    if (serves) {
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- The child ---- */

static void reset_shared(struct supervision *shared, bool leased) {
    atomic_store(&shared->lease.until, leased ? INT64_MIN : INT64_MAX);
    atomic_store(&shared->lease.epoch, 0);
    atomic_store(&shared->lease.session, 0);
    atomic_store(&shared->lsn, 0);
    atomic_store(&shared->epoch, 0);
    atomic_store(&shared->serving, false);
    atomic_store(&shared->exports.wanted, 0);
    atomic_store(&shared->exports.hurry, false);
}

/* It ends in order when its parent is killed. */
static int serve(const struct launch *launch, pid_t parent, int ready) {
    prctl(PR_SET_NAME, "batond");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        log_error("the supervisor has ended already");
        return EXIT_FAILURE;
    }
    return launch->serve(launch->context, ready);
}

/* 1: this is the child, and *status its exit status. */
static int start(struct parent *parent, int *status) {
    const struct launch *launch = parent->launch;
    pid_t self = getpid();
    int ends[2];

    reset_shared(launch->shared, launch->patience > 0);
    PROMISE(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        leave_parent(parent, true);
        close(ends[0]);
        *status = serve(launch, self, ends[1]);
        return 1;
    }
    close(ends[1]);
    supervisor_started(&parent->supervisor, clock_boot());
    parent->began = clock_boot();
    parent->overdue = false;
    if (child < 0) {
        log_error("the process that serves cannot be started: %s", strerror(errno));
        close(ends[0]);
        supervisor_died(&parent->supervisor, EXIT_FAILURE << 8, clock_boot());
        return 0;
    }
    parent->child = child;
    parent->ready = ends[0];
    return 0;
}

/* TracerPid: somebody's debugger has it. */
static bool traced(pid_t process) {
    char path[64], line[256];
    bool found = false;

    snprintf(path, sizeof path, "/proc/%d/status", (int)process);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "TracerPid:", 10) == 0)
            found = strtol(line + 10, NULL, 10) != 0;
    if (file)
        fclose(file);
    return found;
}

/* ---- The companion ---- */

#define COMPANION_AGAIN INT64_C(200000000)
#define COMPANION_LOOK INT64_C(1000000000)
#define COMPANION_SILENT 5u /* looks; more than one, as a machine's sleep stops both */
#define COMPANION_END_MS 20000u

/* 1: this is it, and *status its exit status. */
static int start_companion(struct parent *parent, int *status) {
    const struct launch *launch = parent->launch;
    pid_t self = getpid();
    fflush(NULL);
    pid_t process = fork();
    if (process == 0) {
        close(parent->signals);
        forget_held(parent);
        *status = launch->companion(launch->context, self);
        return 1;
    }
    if (process < 0) {
        log_error("the process that runs the exporters cannot be started: %s; trying again", strerror(errno));
        parent->companion_at = clock_boot() + COMPANION_AGAIN;
        return 0;
    }
    parent->companion = process;
    return 0;
}

/* One that neither looks after what it has started nor stops it: stopped (SIGSTOP) or stuck. Another one does better. */
static void look_at_companion(struct parent *parent, int64_t now) {
    const struct exports_shared *exports = &parent->launch->shared->exports;
    uint64_t looked = atomic_load(&exports->looked);
    if (!parent->companion || now < parent->companion_due)
        return;
    bool idle = atomic_load(&exports->on) == 0 && atomic_load(&exports->wanted) == 0;
    parent->companion_due = now + COMPANION_LOOK;
    parent->companion_silent = idle || looked != parent->companion_looked ? 0 : parent->companion_silent + 1;
    parent->companion_looked = looked;
    if (parent->companion_silent < COMPANION_SILENT || traced(parent->companion))
        return;
    log_error("the process that runs the exporters does not move: it is killed");
    parent->companion_silent = 0;
    kill(parent->companion, SIGKILL);
}

static void companion_died(struct parent *parent, int wait_status) {
    parent->companion = 0;
    parent->companion_at = clock_boot() + COMPANION_AGAIN;
    atomic_store(&parent->launch->shared->exports.runner, 0);
    log_error("the process that runs the exporters has died (%s %d): it is started again, and stops and starts them",
              WIFSIGNALED(wait_status) ? "signal" : "status", WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status));
}

static void end_companion(struct parent *parent) {
    if (!parent->companion)
        return;
    kill(parent->companion, SIGTERM);
    for (unsigned i = 0; i < COMPANION_END_MS; i++) {
        pid_t done = waitpid(parent->companion, NULL, WNOHANG);
        if (done == parent->companion || (done < 0 && errno != EINTR))
            return;
        usleep(1000);
    }
    log_error("the process that runs the exporters does not end: it is killed");
    kill(parent->companion, SIGKILL);
    waitpid(parent->companion, NULL, 0);
}

/* ---- After a death ---- */

/* The child's word may be on its way still. */
static bool heard_ready(struct parent *parent) {
    char byte;
    if (parent->ready < 0)
        return false;
    ssize_t length = read(parent->ready, &byte, 1);
    if (length < 0 && errno == EINTR)
        return false;
    close(parent->ready);
    parent->ready = -1;
    return length == 1;
}

static void is_ready(struct parent *parent) {
    parent->began = clock_boot();
    supervisor_ready(&parent->supervisor, parent->began);
    if (parent->child && parent->launch->companion)
        hold(parent);
    if (!parent->said && parent->launch->ready)
        parent->launch->ready(parent->launch->context);
    parent->said = true;
}

static struct died death(const struct parent *parent, int wait_status) {
    const struct supervision *shared = parent->launch->shared;
    return (struct died){.when = clock_now(),
                         .wait_status = wait_status,
                         .overdue = parent->overdue,
                         .never_served = !atomic_load(&shared->serving),
                         .lasted = clock_boot() - parent->began,
                         .lsn = atomic_load(&shared->lsn),
                         .epoch = atomic_load(&shared->epoch),
                         .restarts = atomic_load(&shared->restarts)};
}

/* In a process of its own: whatever hangs there, a disk or a voter, holds up neither the next start nor the end. */
static void clean_up_after(struct parent *parent, const struct died *died) {
    const struct lease_shared *lease = &parent->launch->shared->lease;
    epoch_t epoch = atomic_load(&lease->epoch);
    uint64_t session = atomic_load(&lease->session);

    if (!parent->launch->after)
        return;
    fflush(NULL);
    parent->after = fork();
    if (parent->after < 0) {
        log_warning("the lease cannot be given back, others wait until it has run out: %s", strerror(errno));
        parent->after = 0;
        return;
    }
    if (parent->after > 0)
        return;
    leave_parent(parent, false);
    prctl(PR_SET_NAME, "batond-after");
    alarm(LAUNCH_AFTER_SECONDS);
    parent->launch->after(parent->launch->context, died, epoch, session);
    fflush(NULL);
    _exit(EXIT_SUCCESS);
}

static void buried(struct parent *parent, int wait_status) {
    const struct launch *launch = parent->launch;
    struct supervisor *supervisor = &parent->supervisor;
    char text[DIED_TEXT];

    parent->child = 0;
    if (heard_ready(parent))
        is_ready(parent);
    int64_t now = clock_boot();
    supervisor_died(supervisor, wait_status, now);
    if (wait_status == 0) {
        let_go(parent);
        return;
    }
    struct died died = death(parent, wait_status);
    /* With an error before anything was served: it has said why, and has cleaned up. */
    if (WIFEXITED(wait_status) && died.never_served && !supervisor->has_served) {
        let_go(parent);
        return;
    }
    if (launch->giving_up)
        launch->giving_up(launch->context);
    let_go(parent);
    if (launch->shared->mount[0] && supervisor->state == SUPERVISOR_WAITING)
        front_replace_dead(launch->shared->mount, launch->shared->device, launch->source);
    else if (launch->shared->mount[0])
        front_clear_dead(launch->shared->mount, launch->shared->device);
    died_text(&died, text);
    clean_up_after(parent, &died);
    log_error("the process that serves has died: %s", text);
    if (supervisor->state == SUPERVISOR_WAITING) {
        int64_t ms = (supervisor->restart_at - now) / 1000000;
        log_info("it is started again in %lld.%lld s", (long long)ms / 1000, (long long)ms / 100 % 10);
    }
}

static void reap(struct parent *parent) {
    int status;
    pid_t process;

    while ((process = waitpid(-1, &status, WNOHANG)) > 0) {
        if (process == parent->child)
            buried(parent, status);
        else if (process == parent->after)
            parent->after = 0;
        else if (process == parent->companion)
            companion_died(parent, status);
    }
}

/* ---- The loop ---- */

static void act(struct parent *parent, enum supervisor_act what) {
    if (what == SUPERVISOR_TERMINATE) {
        kill(parent->child, SIGTERM);
    } else if (what == SUPERVISOR_KILL) {
        parent->overdue = parent->supervisor.state != SUPERVISOR_STOPPING;
        if (parent->overdue)
            log_error("the process that serves neither renews its lease nor gives it up: it is killed");
        else
            log_error("the process that serves does not end: it is killed");
        if (parent->overdue && parent->launch->giving_up)
            parent->launch->giving_up(parent->launch->context);
        kill(parent->child, SIGKILL);
    }
}

static void take_signal(struct parent *parent) {
    struct signalfd_siginfo info;

    if (read(parent->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (info.ssi_signo == SIGCHLD) {
        reap(parent);
        return;
    }
    if (parent->supervisor.state != SUPERVISOR_STOPPING)
        sd_notify(0, "STOPPING=1");
    act(parent, supervisor_stop(&parent->supervisor, clock_boot()));
}

/* Milliseconds, rounded up: -1 is for ever. A machine's sleep does not count here; what is due is done at the next look. */
static int poll_time(int64_t next) {
    if (next == INT64_MAX)
        return -1;
    int64_t now = clock_boot();
    return next <= now ? 0 : (int)MIN((next - now) / 1000000 + 1, 3600000);
}

static void wait_for_news(struct parent *parent) {
    int64_t until = atomic_load(&parent->launch->shared->lease.until);
    struct pollfd events[2] = {{.fd = parent->signals, .events = POLLIN}, {.fd = parent->ready, .events = POLLIN}};

    int64_t next = supervisor_next(&parent->supervisor, clock_boot(), until);
    if (parent->launch->companion)
        next = MIN(next, parent->companion ? parent->companion_due : parent->companion_at);
    if (poll(events, 2, poll_time(next)) < 0)
        PROMISE(errno == EINTR);
    if (events[1].revents && heard_ready(parent))
        is_ready(parent);
    if (events[0].revents)
        take_signal(parent);
}

/* 1: this is a child. */
static int supervise(struct parent *parent, int *status) {
    struct supervisor *supervisor = &parent->supervisor;
    struct supervision *shared = parent->launch->shared;

    while (supervisor->state != SUPERVISOR_ENDED) {
        if (parent->launch->companion && !parent->companion && clock_boot() >= parent->companion_at && start_companion(parent, status))
            return 1;
        look_at_companion(parent, clock_boot());
        int64_t until = atomic_load(&shared->lease.until), now = clock_boot();
        bool debugged = supervisor->overdue != INT64_MIN && parent->child && traced(parent->child);
        enum supervisor_act what = supervisor_tick(supervisor, now, until, debugged);
        if (what == SUPERVISOR_START) {
            if (supervisor->failures)
                atomic_fetch_add(&shared->restarts, 1);
            if (start(parent, status))
                return 1;
        } else {
            act(parent, what);
        }
        if (supervisor->state != SUPERVISOR_ENDED)
            wait_for_news(parent);
    }
    *status = supervisor->exit_status;
    return 0;
}

int launch(const struct launch *launch) {
    struct parent parent = {.launch = launch, .ready = -1, .keeper = -1};
    sigset_t set;
    int status = EXIT_FAILURE;

    watched_signals(&set);
    PROMISE(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    parent.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    PROMISE(parent.signals >= 0);
    atomic_store(&launch->shared->parent, (int32_t)getpid());
    prctl(PR_SET_NAME, "batond-parent");
    supervisor_begin(&parent.supervisor, launch->patience);
    if (supervise(&parent, &status))
        return status;
    end_companion(&parent);
    /* It ended between two starts: what gives errors in place of the mount goes. */
    if (launch->shared->mount[0])
        front_clear_dead(launch->shared->mount, launch->shared->device);
    /* The lease is being given back: whoever waits for this process's end may rely on it. */
    while (parent.after > 0 && waitpid(parent.after, NULL, 0) < 0 && errno == EINTR)
        ;
    return status;
}
