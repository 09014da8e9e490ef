#include "membership/supervisor.h"

#include <sys/wait.h>

#define MS INT64_C(1000000)
#define WELL (60000 * MS) /* who has served for so long has not failed at once */

const char *supervisor_state_name(enum supervisor_state state) {
    static const char *const names[] = {"starting", "serving", "waiting", "stopping", "ended"};
    return names[state];
}

void supervisor_begin(struct supervisor *supervisor, int64_t patience) {
    *supervisor = (struct supervisor){.state = SUPERVISOR_WAITING, .patience = patience, .restart_at = INT64_MIN,
                                      .overdue = INT64_MIN};
}

void supervisor_started(struct supervisor *supervisor, int64_t now) {
    supervisor->state = SUPERVISOR_STARTING;
    supervisor->began = now;
    supervisor->overdue = INT64_MIN;
    supervisor->killed = false;
}

void supervisor_ready(struct supervisor *supervisor, int64_t now) {
    supervisor->has_served = true;
    if (supervisor->state != SUPERVISOR_STARTING)
        return;
    supervisor->state = SUPERVISOR_SERVING;
    supervisor->began = now;
}

static void end(struct supervisor *supervisor, int exit_status) {
    supervisor->state = SUPERVISOR_ENDED;
    supervisor->exit_status = exit_status;
}

static int64_t delay(unsigned failures) {
    static const int64_t delays[] = {100 * MS, 500 * MS, 1000 * MS, 2000 * MS, 4000 * MS, 8000 * MS, 16000 * MS, 30000 * MS};
    return delays[MIN(MAX(failures, 1), sizeof delays / sizeof *delays) - 1];
}

void supervisor_died(struct supervisor *supervisor, int wait_status, int64_t now) {
    bool exited = WIFEXITED(wait_status);
    int status = exited ? WEXITSTATUS(wait_status) : EXIT_FAILURE;

    if (supervisor->state == SUPERVISOR_STOPPING || status == EXIT_SUCCESS || (exited && !supervisor->has_served)) {
        end(supervisor, status);
        return;
    }
    if (supervisor->state == SUPERVISOR_SERVING && now - supervisor->began >= WELL)
        supervisor->failures = 0;
    supervisor->failures++;
    if (!supervisor->has_served && supervisor->failures >= SUPERVISOR_TRIES) {
        end(supervisor, EXIT_FAILURE);
        return;
    }
    supervisor->state = SUPERVISOR_WAITING;
    supervisor->restart_at = now + delay(supervisor->failures);
}

enum supervisor_act supervisor_stop(struct supervisor *supervisor, int64_t now) {
    switch (supervisor->state) {
    case SUPERVISOR_STARTING:
    case SUPERVISOR_SERVING:
        supervisor->state = SUPERVISOR_STOPPING;
        supervisor->kill_at = now + SUPERVISOR_STOP_PATIENCE;
        return SUPERVISOR_TERMINATE;
    case SUPERVISOR_WAITING:
        end(supervisor, EXIT_SUCCESS);
        break;
    case SUPERVISOR_STOPPING:
    case SUPERVISOR_ENDED:
        break;
    }
    return SUPERVISOR_NOTHING;
}

/* INT64_MIN: it holds none. INT64_MAX: its engine has none. */
static bool has_deadline(int64_t until) {
    return until != INT64_MIN && until != INT64_MAX;
}

static enum supervisor_act look_at_lease(struct supervisor *supervisor, int64_t now, int64_t until, bool traced) {
    if (supervisor->killed || !supervisor->patience)
        return SUPERVISOR_NOTHING;
    if (!has_deadline(until) || now < until) {
        supervisor->overdue = INT64_MIN;
        return SUPERVISOR_NOTHING;
    }
    if (supervisor->overdue != until || traced) {
        supervisor->overdue = until;
        supervisor->overdue_since = now;
    }
    if (now - supervisor->overdue_since < supervisor->patience)
        return SUPERVISOR_NOTHING;
    supervisor->killed = true;
    return SUPERVISOR_KILL;
}

enum supervisor_act supervisor_tick(struct supervisor *supervisor, int64_t now, int64_t until, bool traced) {
    switch (supervisor->state) {
    case SUPERVISOR_WAITING:
        return now >= supervisor->restart_at ? SUPERVISOR_START : SUPERVISOR_NOTHING;
    case SUPERVISOR_STARTING:
    case SUPERVISOR_SERVING:
        return look_at_lease(supervisor, now, until, traced);
    case SUPERVISOR_STOPPING:
        if (supervisor->killed || now < supervisor->kill_at)
            return SUPERVISOR_NOTHING;
        supervisor->killed = true;
        return SUPERVISOR_KILL;
    case SUPERVISOR_ENDED:
        break;
    }
    return SUPERVISOR_NOTHING;
}

int64_t supervisor_next(const struct supervisor *supervisor, int64_t now, int64_t until) {
    switch (supervisor->state) {
    case SUPERVISOR_WAITING:
        return supervisor->restart_at;
    case SUPERVISOR_STOPPING:
        return supervisor->killed ? INT64_MAX : supervisor->kill_at;
    case SUPERVISOR_STARTING:
    case SUPERVISOR_SERVING:
        if (supervisor->killed || !supervisor->patience)
            return INT64_MAX;
        if (!has_deadline(until))
            return now + SUPERVISOR_LOOK;
        return now < until ? until : MAX(supervisor->overdue_since + supervisor->patience, now + 10 * MS);
    case SUPERVISOR_ENDED:
        break;
    }
    return INT64_MAX;
}
