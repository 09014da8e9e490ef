#include "exporters/runner.h"

#include "exporters/action.h"
#include "exporters/address.h"

#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define MS INT64_C(1000000)
#define VIP_START (15000 * MS) /* another one's address is waited for: it may be about to let go */
#define VIP_STOP (2000 * MS)
#define VIP_MONITOR (2000 * MS)
#define VIP_MONITOR_EVERY (10000 * MS)
#define ADDRESS_LATE (100 * MS) /* nobody may serve any more, and the script has not taken the address off: done without it */
#define LOOK_EVERY (500 * MS)   /* while exporters run: the supervisor sees by that whether this process lives */
#define SWEEP_EVERY (1000 * MS) /* while none may run */
#define LINK_PATIENCE (3000 * MS) /* a link that is back by then was not gone */
#define AFTER_RESTART (1000 * MS) /* whether it has helped */
#define CONNECTED_EVERY (2000 * MS)
#define CHECK_PATIENCE (15000 * MS)
#define HOOK_PATIENCE (10000 * MS)
#define GONE_PATIENCE (5000 * MS)  /* servers that were killed; one that hangs in the mount dies when that is answered */
#define GONE_EVERY (50 * MS)
#define PROVEN (60000 * MS)        /* served so long, a failure is a new one */
#define HOOKS_MAX 32u

/* One that is started and stopped: an exporter of the config, or the address, which is the last. */
struct item {
    const struct export_config *export; /* NULL: the address */
    struct export_shared *shared;
    int64_t start, stop, monitor, every; /* ns */
    int64_t due;                         /* the next look at it, or try */
    int64_t restarted;                   /* INT64_MIN: not in this epoch */
};

struct runner {
    const struct config *config;
    const struct node_config *self;
    struct supervision *supervision;
    struct exports_shared *shared;
    struct item items[EXPORTS_ALL];
    unsigned count;
    int signals;
    pid_t parent;
    bool ending;
    uint64_t over;      /* the epoch whose lease has ended: nothing is started in it again */
    int64_t gone_until; /* servers may be there still: looked at until then; 0: they are gone */
    int64_t gone_due;
    int64_t address_due;
    int64_t address_off_at; /* while the address's stop runs: when it is taken off in any case; 0: it has been */
    bool address_missing;
    int64_t unlinked_since; /* the cable of its interface is out, say; 0: it has a link; -1: the exporter has been asked already */
    uint64_t connected; /* a digest of who is, when the exporter vip was last told to look */
    int64_t connected_due;
    const char *told;   /* the role that hooks have been told */
};

/* ---- What is wanted -------------------------------------------------------------------------------------------------- */

static int64_t lease_until(const struct runner *r) {
    return atomic_load(&r->supervision->lease.until);
}

/* The epoch in which exporters are to run now; 0: in none. */
static uint64_t wanted(struct runner *r) {
    uint64_t epoch = atomic_load(&r->shared->wanted);
    atomic_fetch_add(&r->shared->looked, 1);
    if (r->ending || getppid() != r->parent)
        return 0;
    if (epoch && lease_until(r) <= clock_boot())
        r->over = epoch;
    return epoch == r->over ? 0 : epoch;
}

static void keep_address(struct runner *r);

static bool no_more(void *context) {
    struct runner *r = context;
    keep_address(r);
    struct signalfd_siginfo info;
    struct pollfd signals = {.fd = r->signals, .events = POLLIN};
    while (poll(&signals, 1, 0) > 0 && read(r->signals, &info, sizeof info) == (ssize_t)sizeof info)
        r->ending = r->ending || info.ssi_signo != SIGCHLD;
    return wanted(r) != atomic_load(&r->shared->on);
}

static void set_state(struct item *item, enum export_state state) {
    if (atomic_exchange(&item->shared->state, (int)state) != (int)state)
        atomic_store(&item->shared->since, clock_boot());
}

static const char *name_of(const struct item *item) {
    return item->export ? item->export->name : "address";
}

/* ---- Actions --------------------------------------------------------------------------------------------------------- */

static struct action action_of(const struct runner *r, const struct item *item, const char *verb, int64_t timeout) {
    uint64_t epoch = atomic_load(&r->shared->on);
    return (struct action){.config = r->config, .self = r->self, .export = item->export, .verb = verb, .timeout = timeout,
                           .epoch = epoch, .wake = -1};
}

/* What can be given up when it is not wanted any more. */
static int run_wanted(struct runner *r, const struct item *item, const char *verb, int64_t timeout, char words[ACTION_WORDS]) {
    struct action action = action_of(r, item, verb, timeout);
    action.cancelled = no_more;
    action.context = r;
    action.wake = r->shared->wake;
    return action_run(&action, words);
}

static int start_one(struct runner *r, struct item *item) {
    char words[ACTION_WORDS];
    set_state(item, EXPORT_STARTING);
    int64_t begun = clock_boot();
    int rc = run_wanted(r, item, "start", item->start, words);
    item->due = clock_boot() + item->every;
    if (rc == 0) {
        set_state(item, EXPORT_ON);
        export_words_write(&item->shared->words, "%s", "");
        log_info("export %s serves, started in %" PRId64 " ms", name_of(item), (clock_boot() - begun) / MS);
    } else if (rc != -ECANCELED) {
        log_error("export %s does not start: %s", name_of(item), words);
        export_words_write(&item->shared->words, "%.180s", words);
    }
    return rc;
}

/* ---- The address ----------------------------------------------------------------------------------------------------- */

/* The exporter writes down who is connected, for the node that serves next: when that has changed. Not in an endless row of looks
 * where clients come and go all the time; but a client that comes back makes several connections, and the first look may fall
 * between them, so that a second one follows at once. */
static void look_who_is_connected(struct runner *r, struct item *item, int64_t now) {
    uint64_t digest;
    if (now < r->connected_due || address_connections(r->config->addresses, &digest) != 0 || digest == r->connected)
        return;
    r->connected = digest;
    r->connected_due = now - r->connected_due >= CONNECTED_EVERY ? now : now + CONNECTED_EVERY;
    item->due = now;
}

/* What the lease has left, in the kernel's seconds: all of it where the engine has none. Of a very short one it has two: less than
 * that is over between two looks. */
static uint32_t address_seconds(const struct runner *r, int64_t now) {
    int64_t lease = (int64_t)r->config->lease_ms * MS, left = MIN(lease, lease_until(r) - now);
    return (uint32_t)MAX((left + 1000 * MS - 1) / (1000 * MS), lease < 2000 * MS ? 2 : 1);
}

/* Also while an action runs. */
static void keep_address(struct runner *r) {
    int64_t now = clock_boot();
    struct item *item = r->count ? &r->items[r->count - 1] : NULL;
    if (!item || item->export || now < r->address_due || atomic_load(&item->shared->state) != EXPORT_ON)
        return;
    r->address_due = now + RUNNER_ADDRESS_EVERY;
    if (wanted(r) == 0 || wanted(r) != atomic_load(&r->shared->on))
        return;
    int missing = address_renew(r->config->addresses, address_seconds(r, now));
    if (missing < 0)
        log_warning("the addresses of volume %s cannot be looked at: %s", r->config->volume, strerror(-missing));
    r->address_missing = missing > 0;
    if (address_linked(r->config->addresses) != -ENOLINK) {
        r->unlinked_since = 0;
    } else if (r->unlinked_since == 0) {
        r->unlinked_since = now;
    } else if (r->unlinked_since > 0 && now - r->unlinked_since >= LINK_PATIENCE) {
        r->unlinked_since = -1;
        item->due = now;
    }
    look_who_is_connected(r, item, now);
}

/* None of the volume's addresses is on this host, whatever became of the script. */
static void sweep_addresses(const struct runner *r) {
    int found = address_remove(r->config->addresses);
    if (found > 0)
        log_warning("%d of the addresses of volume %s were here, where it is not served: they are taken off", found, r->config->volume);
    else if (found < 0)
        log_error("whether an address of volume %s is here still cannot be seen: %s", r->config->volume, strerror(-found));
}

/* Somebody may put one here by hand, where it is not to be. */
static void keep_away(struct runner *r) {
    int64_t now = clock_boot();
    if (!r->config->addresses[0] || now < r->address_due || atomic_load(&r->shared->on))
        return;
    r->address_due = now + SWEEP_EVERY;
    sweep_addresses(r);
}

/* Of an action that is not given up. The address's own: it has so long, and no longer, when nobody may serve any more. */
static bool never(void *context) {
    struct runner *r = context;
    int64_t now = clock_boot();
    atomic_fetch_add(&r->shared->looked, 1);
    keep_address(r);
    if (r->address_off_at && now >= r->address_off_at) {
        r->address_off_at = 0;
        sweep_addresses(r);
    }
    return false;
}

/* ---- Starting and stopping all --------------------------------------------------------------------------------------- */

static int64_t address_must_go(const struct runner *r, bool hurry) {
    int64_t now = clock_boot(), until = hurry ? now : MAX(lease_until(r), now);
    return MIN(until, now + VIP_STOP) + ADDRESS_LATE;
}

static void stop_one(struct runner *r, struct item *item, bool hurry) {
    char words[ACTION_WORDS];
    struct action action = action_of(r, item, "stop", item->stop);
    action.hurry = hurry;
    action.cancelled = never;
    action.context = r;
    set_state(item, EXPORT_STOPPING);
    if (!item->export)
        r->address_off_at = address_must_go(r, hurry);
    int rc = action_run(&action, words);
    r->address_off_at = 0;
    if (rc)
        log_error("export %s does not stop in order: %s; the address is taken off all the same", name_of(item), words);
    set_state(item, EXPORT_OFF);
    export_words_write(&item->shared->words, "%s", "");
}

/* When it returns nothing answers clients. */
static void stop_all(struct runner *r, bool hurry) {
    int64_t begun = clock_boot();
    for (unsigned i = r->count; i-- > 0;) {
        stop_one(r, &r->items[i], hurry);
        if (!r->items[i].export)
            sweep_addresses(r);
    }
    atomic_store(&r->shared->on, 0);
    atomic_store(&r->shared->broken, false);
    r->gone_until = clock_boot() + GONE_PATIENCE;
    r->gone_due = 0;
    log_debug("exports of volume %s stopped in %" PRId64 " ms", r->config->volume, (clock_boot() - begun) / MS);
}

/* Something else is to be done than what is nobody's need. */
static bool not_now(void *context) {
    struct runner *r = context;
    return no_more(r) || r->ending;
}

static bool all_gone(struct runner *r) {
    char words[ACTION_WORDS];
    for (unsigned i = 0; i < r->count; i++) {
        struct action action = action_of(r, &r->items[i], "status", VIP_MONITOR);
        action.quiet = true;
        action.cancelled = not_now; /* it is primary again */
        action.context = r;
        action.wake = r->shared->wake;
        int rc = action_run(&action, words);
        if (rc != ACTION_NOT_RUNNING && rc != -ENOENT)
            return false;
    }
    return true;
}

static void look_whether_gone(struct runner *r) {
    int64_t now = clock_boot();
    if (!r->gone_until || now < r->gone_due)
        return;
    r->gone_due = now + GONE_EVERY;
    if (all_gone(r)) {
        r->gone_until = 0;
    } else if (now >= r->gone_until) {
        log_warning("servers of volume %s have been killed and are there still: they hang, perhaps in the mount", r->config->volume);
        r->gone_until = 0;
    }
}

static void has_failed(struct runner *r, struct item *item, const char *words) {
    char text[EXPORT_TEXT];
    bool news = atomic_load(&item->shared->state) != EXPORT_FAILED;
    set_state(item, EXPORT_FAILED);
    export_words_write(&item->shared->words, "export %s does not serve: %.150s", name_of(item), words);
    export_words_read(&item->shared->words, text);
    if (news)
        log_error("%s; another node takes over, if one is in sync", text);
    item->due = clock_boot() + RUNNER_AGAIN;
    atomic_store(&r->shared->broken, true);
}

/* One more try, from nothing. */
static void restart(struct runner *r, struct item *item, const char *words) {
    char stopped[ACTION_WORDS];
    log_warning("export %s is started again: %s", name_of(item), words);
    atomic_fetch_add(&item->shared->restarts, 1);
    item->restarted = clock_boot();
    struct action stop = action_of(r, item, "stop", item->stop);
    stop.cancelled = never;
    stop.context = r;
    action_run(&stop, stopped);
    int rc = start_one(r, item);
    if (rc == 0)
        item->due = MIN(item->due, clock_boot() + AFTER_RESTART);
    if (rc && rc != -ECANCELED) {
        char why[EXPORT_TEXT];
        export_words_read(&item->shared->words, why);
        has_failed(r, item, why);
    }
}

static void start_all(struct runner *r, uint64_t epoch) {
    int64_t begun = clock_boot();
    atomic_store(&r->shared->on, epoch);
    r->gone_until = 0;
    r->address_due = 0;
    r->unlinked_since = 0;
    r->connected = 0;
    r->connected_due = 0;
    for (unsigned i = 0; i < r->count; i++)
        r->items[i].restarted = INT64_MIN;
    for (unsigned i = 0; i < r->count && !no_more(r); i++) {
        int rc = start_one(r, &r->items[i]);
        if (rc && rc != -ECANCELED) {
            char why[EXPORT_TEXT];
            export_words_read(&r->items[i].shared->words, why);
            restart(r, &r->items[i], why);
        }
    }
    if (!no_more(r))
        log_info("exports of volume %s serve after %" PRId64 " ms", r->config->volume, (clock_boot() - begun) / MS);
}

static void look_at(struct runner *r, struct item *item) {
    char words[ACTION_WORDS];
    int64_t now = clock_boot();
    enum export_state state = atomic_load(&item->shared->state);
    if (!item->export && r->address_missing && state == EXPORT_ON) {
        r->address_missing = false;
        restart(r, item, "an address of the volume is not here any more");
        return;
    }
    if (now < item->due || (!item->every && state != EXPORT_FAILED))
        return;
    item->due = now + item->every;
    if (state == EXPORT_FAILED) {
        restart(r, item, "another try");
    } else if (state == EXPORT_ON) {
        int rc = run_wanted(r, item, "monitor", item->monitor, words);
        if (rc == 0 || rc == -ECANCELED)
            return;
        if (item->restarted != INT64_MIN && now - item->restarted < PROVEN)
            has_failed(r, item, words);
        else
            restart(r, item, words);
    }
    bool failed = false;
    for (unsigned i = 0; i < r->count; i++)
        failed = failed || atomic_load(&r->items[i].shared->state) == EXPORT_FAILED;
    atomic_store(&r->shared->broken, failed);
}

/* ---- Hooks ----------------------------------------------------------------------------------------------------------- */

static int is_hook(const struct dirent *entry) {
    return entry->d_name[0] != '.' && !strchr(entry->d_name, '~');
}

static void run_hooks(struct runner *r, const char *role) {
    struct dirent **names;
    bool given_up = false;
    if (!r->config->hooks[0] || r->told == role)
        return;
    r->told = role;
    int count = scandir(r->config->hooks, &names, is_hook, alphasort);
    if (count < 0) {
        log_warning("the hooks in %s cannot be read: %s", r->config->hooks, strerror(errno));
        return;
    }
    for (int i = 0; i < count; i++) {
        char path[1400], words[ACTION_WORDS];
        snprintf(path, sizeof path, "%s/%s", r->config->hooks, names[i]->d_name);
        struct action action = {.config = r->config, .self = r->self, .program = path, .verb = role, .timeout = HOOK_PATIENCE,
                                .epoch = atomic_load(&r->shared->on), .cancelled = not_now, .context = r, .wake = r->shared->wake};
        given_up = given_up || not_now(r); /* when the role is another one already */
        if (i < (int)HOOKS_MAX && !given_up && access(path, X_OK) == 0) {
            int rc = action_run(&action, words);
            given_up = rc == -ECANCELED;
            if (given_up)
                log_warning("the hook %s is ended: the role is another one already", path);
            else if (rc != 0)
                log_warning("the hook %s has failed: %s", path, words);
        }
        free(names[i]);
    }
    free(names);
    if (count > (int)HOOKS_MAX)
        log_warning("there are more than %u hooks in %s: the rest are not run", HOOKS_MAX, r->config->hooks);
    if (given_up)
        r->told = NULL;
}

/* ---- The loop -------------------------------------------------------------------------------------------------------- */

static int64_t next_look(const struct runner *r) {
    int64_t next = r->gone_until ? r->gone_due : INT64_MAX;
    if (r->config->addresses[0])
        next = MIN(next, r->address_due);
    if (!atomic_load(&r->shared->on))
        return next;
    next = MIN(next, MIN(lease_until(r), clock_boot() + LOOK_EVERY));
    for (unsigned i = 0; i < r->count; i++)
        if (r->items[i].every || atomic_load(&r->items[i].shared->state) == EXPORT_FAILED)
            next = MIN(next, r->items[i].due);
    return next;
}

static void wait_for_news(struct runner *r) {
    struct pollfd events[2] = {{.fd = r->shared->wake, .events = POLLIN}, {.fd = r->signals, .events = POLLIN}};
    struct signalfd_siginfo info;
    uint64_t count;
    int64_t next = next_look(r), now = clock_boot();
    int wait = next == INT64_MAX ? -1 : next <= now ? 0 : (int)MIN((next - now) / MS + 1, 60000);
    if (poll(events, 2, wait) < 0)
        PROMISE(errno == EINTR);
    if (events[0].revents && read(r->shared->wake, &count, sizeof count) < 0)
        PROMISE(errno == EAGAIN);
    if (events[1].revents && read(r->signals, &info, sizeof info) == (ssize_t)sizeof info)
        r->ending = r->ending || info.ssi_signo != SIGCHLD;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ; /* servers that exporters have left behind */
}

static void step(struct runner *r) {
    uint64_t want = wanted(r), on = atomic_load(&r->shared->on);
    if (on && want != on) {
        bool hurry = atomic_load(&r->shared->hurry) || atomic_load(&r->shared->wanted) != 0;
        stop_all(r, hurry);
        return;
    }
    if (want && !on) {
        start_all(r, want);
        if (!no_more(r))
            run_hooks(r, "primary");
        return;
    }
    if (!want && !on && atomic_load(&r->supervision->serving))
        run_hooks(r, "standby");
    look_whether_gone(r);
    keep_address(r);
    keep_away(r);
    for (unsigned i = 0; on && i < r->count && !no_more(r); i++)
        look_at(r, &r->items[i]);
}

static void add(struct runner *r, const struct export_config *export) {
    struct item *item = &r->items[r->count];
    *item = export ? (struct item){.export = export, .start = (int64_t)export->start_ms * MS, .stop = (int64_t)export->stop_ms * MS,
                                   .monitor = (int64_t)export->monitor_ms * MS, .every = (int64_t)export->every_ms * MS}
                   : (struct item){.start = VIP_START, .stop = VIP_STOP, .monitor = VIP_MONITOR, .every = VIP_MONITOR_EVERY};
    item->shared = &r->shared->all[r->count++];
    item->restarted = INT64_MIN;
}

static void set_up(struct runner *r, const struct config *config, const struct node_config *self) {
    r->config = config;
    r->self = self;
    for (unsigned i = 0; i < config->export_count; i++)
        add(r, &config->exports[i]);
    if (config->addresses[0])
        add(r, NULL);
}

int runner_check(const struct config *config, const struct node_config *self, char *why, size_t why_room) {
    static struct exports_shared none;
    struct runner r = {.shared = &none};
    char words[ACTION_WORDS];
    set_up(&r, config, self);
    for (unsigned i = 0; i < r.count; i++) {
        struct action action = action_of(&r, &r.items[i], "check", CHECK_PATIENCE);
        if (action_run(&action, words) != 0) {
            snprintf(why, why_room, "%s: [export %s] is not right: %s", config->path, name_of(&r.items[i]), words);
            return -EINVAL;
        }
    }
    return 0;
}

int runner_run(const struct config *config, const struct node_config *self, struct supervision *shared, pid_t parent) {
    struct runner r = {.supervision = shared, .shared = &shared->exports, .parent = parent};
    sigset_t set;
    prctl(PR_SET_NAME, "batond-exports");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* servers that have lost their script's shell */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    r.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    PROMISE(r.signals >= 0);
    set_up(&r, config, self);
    atomic_store(&r.shared->supervisor, (int32_t)parent);
    atomic_store(&r.shared->runner, (int32_t)getpid());
    stop_all(&r, true);
    while (!r.ending && getppid() == parent) {
        step(&r);
        if (!r.ending)
            wait_for_news(&r);
    }
    if (atomic_load(&r.shared->on))
        stop_all(&r, true);
    close(r.signals);
    return EXIT_SUCCESS;
}
