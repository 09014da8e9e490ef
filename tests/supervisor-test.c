/* What batond's parent decides: when its child is started again, and when not any more; whom it kills, and whom it leaves
 * alone. On a clock of the test's own. */
#include "membership/supervisor.h"
#include "tests/tap.h"

#include <signal.h>
#include <sys/wait.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define PATIENCE (2 * SECOND)

static int exited(int status) {
    return W_EXITCODE(status, 0);
}

static int killed(int number) {
    return W_EXITCODE(0, number);
}

/* A child that has served. */
static struct supervisor serving(int64_t now) {
    struct supervisor s;
    supervisor_begin(&s, PATIENCE);
    supervisor_started(&s, now);
    supervisor_ready(&s, now);
    return s;
}

static void test_start(void) {
    struct supervisor s;
    supervisor_begin(&s, PATIENCE);
    is_int(SUPERVISOR_START, supervisor_tick(&s, 5, INT64_MAX, false), "the first child is started at once");
    supervisor_started(&s, 5);
    is_string("starting", supervisor_state_name(s.state), "it starts");
    supervisor_ready(&s, 6);
    is_string("serving", supervisor_state_name(s.state), "it serves");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, 1000 * SECOND, INT64_MAX, false), "nothing is to be done");
    supervisor_died(&s, exited(0), 1000 * SECOND);
    is_string("ended", supervisor_state_name(s.state), "unmounted by somebody: that is the end");
    is_int(0, s.exit_status, "in order");
}

static void test_errors(void) {
    for (int status = 1; status <= 2; status++) {
        struct supervisor s;
        supervisor_begin(&s, PATIENCE);
        supervisor_started(&s, 0);
        supervisor_died(&s, exited(status), MS);
        is_int(SUPERVISOR_ENDED, s.state, "an error before anything was served is the end");
        is_int(status, s.exit_status, "with exit status %d", status);
    }
}

static void test_back_off(void) {
    static const int64_t expected[] = {100, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000};
    int64_t now = SECOND;
    struct supervisor s = serving(now);
    for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++) {
        supervisor_died(&s, i % 2 ? exited(1) : killed(SIGSEGV), now);
        is_int(expected[i] * MS, s.restart_at - now, "death %u: how long until the next start", i + 1);
        is_int(s.restart_at, supervisor_next(&s, now, INT64_MIN), "that is the next thing to do");
        is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, s.restart_at - 1, INT64_MIN, false), "not before");
        now = s.restart_at;
        is_int(SUPERVISOR_START, supervisor_tick(&s, now, INT64_MIN, false), "but then");
        supervisor_started(&s, now);
        if (i < 4)
            supervisor_ready(&s, now);
    }
    supervisor_ready(&s, now);
    now += 60 * SECOND;
    supervisor_died(&s, killed(SIGKILL), now);
    is_int(100 * MS, s.restart_at - now, "one that has served for a minute is started again at once");
}

static void test_never_served(void) {
    struct supervisor s;
    int64_t now = 0;
    supervisor_begin(&s, PATIENCE);
    unsigned starts = 0;
    while (s.state != SUPERVISOR_ENDED && starts < 100) {
        supervisor_started(&s, now);
        starts++;
        supervisor_died(&s, killed(SIGSEGV), now);
        now = s.restart_at;
    }
    is_int(SUPERVISOR_TRIES, starts, "one that crashes before it ever served is given up");
    is_int(EXIT_FAILURE, s.exit_status, "as a failure");
}

static void test_stop(void) {
    struct supervisor s = serving(0);
    is_int(SUPERVISOR_TERMINATE, supervisor_stop(&s, SECOND), "told to stop, it tells the child");
    is_int(SUPERVISOR_NOTHING, supervisor_stop(&s, 2 * SECOND), "once");
    is_int(SECOND + SUPERVISOR_STOP_PATIENCE, supervisor_next(&s, 2 * SECOND, 0), "and waits");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, SUPERVISOR_STOP_PATIENCE, INT64_MIN, false), "with patience");
    is_int(SUPERVISOR_KILL, supervisor_tick(&s, SECOND + SUPERVISOR_STOP_PATIENCE, INT64_MIN, false), "that ends");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, 1000 * SECOND, INT64_MIN, false), "once");
    is_int(INT64_MAX, supervisor_next(&s, 1000 * SECOND, INT64_MIN), "then there is only the death to wait for");
    supervisor_died(&s, killed(SIGKILL), 1000 * SECOND);
    is_int(SUPERVISOR_ENDED, s.state, "it is not started again");
    is_int(EXIT_FAILURE, s.exit_status, "and that was no orderly end");

    s = serving(0);
    supervisor_stop(&s, 0);
    supervisor_died(&s, exited(0), MS);
    ok(s.state == SUPERVISOR_ENDED && s.exit_status == 0, "an orderly end");
    s = serving(0);
    supervisor_stop(&s, 0);
    supervisor_died(&s, exited(1), MS);
    ok(s.state == SUPERVISOR_ENDED && s.exit_status == 1, "one with an error");
    s = serving(0);
    supervisor_died(&s, killed(SIGKILL), MS);
    is_int(SUPERVISOR_NOTHING, supervisor_stop(&s, 2 * MS), "told to stop while none runs");
    ok(s.state == SUPERVISOR_ENDED && s.exit_status == 0, "it just ends");
}

static void test_lease(void) {
    struct supervisor s = serving(0);
    int64_t until = 10 * SECOND;
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, 9 * SECOND, until, false), "a lease that lasts");
    is_int(until, supervisor_next(&s, 9 * SECOND, until), "is looked at when it ends");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until, until, false), "its deadline has passed: the child has a while");
    is_int(until + PATIENCE, supervisor_next(&s, until, until), "that is bounded");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + PATIENCE - 1, until, false), "until then it may stir");
    is_int(SUPERVISOR_KILL, supervisor_tick(&s, until + PATIENCE, until, false), "after it, it is killed");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + PATIENCE + MS, until, false), "once");
    supervisor_died(&s, killed(SIGKILL), until + PATIENCE + MS);
    is_int(SUPERVISOR_WAITING, s.state, "and started again");

    s = serving(0);
    supervisor_tick(&s, until, until, false);
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + PATIENCE, INT64_MIN, false), "it has noticed by itself");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, 1000 * SECOND, INT64_MIN, false), "who holds none is left alone");
    is_int(1000 * SECOND + SUPERVISOR_LOOK, supervisor_next(&s, 1000 * SECOND, INT64_MIN), "and looked at now and then");
    s = serving(0);
    supervisor_tick(&s, until, until, false);
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + PATIENCE, until + PATIENCE + SECOND, false), "it has renewed");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + 2 * PATIENCE, until + PATIENCE + SECOND, false),
           "another deadline, another patience");

    /* The machine has slept: the parent sees the deadline long after it, and the child has not run either. */
    s = serving(0);
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, 1000 * SECOND, until, false), "after a machine's sleep it has its while");
    is_int(SUPERVISOR_KILL, supervisor_tick(&s, 1000 * SECOND + PATIENCE, until, false), "no more than that");

    s = serving(0);
    supervisor_tick(&s, until, until, false);
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + 100 * PATIENCE, until, true), "a debugger's child is left alone");
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, until + 101 * PATIENCE - 1, until, false), "let go, it has its while");
    is_int(SUPERVISOR_KILL, supervisor_tick(&s, until + 101 * PATIENCE, until, false), "and no more");

    s = serving(0);
    s.patience = 0;
    is_int(SUPERVISOR_NOTHING, supervisor_tick(&s, 1000 * SECOND, until, false), "without leases nobody is killed");
    is_int(INT64_MAX, supervisor_next(&s, 0, INT64_MAX), "and nobody is looked at");
}

/* Whatever happens: what is to be done next lies ahead, and a child is started only when there is none. */
static void test_schedules(void) {
    uint64_t state = test_seed();
    unsigned wrong = 0, ends = 0;
    for (unsigned run = 0; run < 2000; run++) {
        struct supervisor s;
        bool lives = false;
        int64_t now = 0, until = INT64_MIN;
        supervisor_begin(&s, run % 3 ? PATIENCE : 0);
        for (unsigned step = 0; step < 200 && s.state != SUPERVISOR_ENDED; step++) {
            now += (int64_t)(test_random(&state) % (uint64_t)(4 * SECOND));
            if (test_random(&state) % 3 == 0)
                until = test_random(&state) % 2 ? INT64_MIN : now + (int64_t)(test_random(&state) % (uint64_t)PATIENCE);
            enum supervisor_act act = supervisor_tick(&s, now, until, test_random(&state) % 16 == 0);
            if (act == SUPERVISOR_START) {
                wrong += lives;
                lives = true;
                supervisor_started(&s, now);
            }
            if (act == SUPERVISOR_KILL)
                wrong += !lives;
            if (lives && test_random(&state) % 2)
                supervisor_ready(&s, now);
            if (lives && (act == SUPERVISOR_KILL || test_random(&state) % 8 == 0)) {
                lives = false;
                supervisor_died(&s, test_random(&state) % 2 ? killed(SIGKILL) : exited((int)(test_random(&state) % 3)), now);
            }
            if (test_random(&state) % 64 == 0) {
                act = supervisor_stop(&s, now);
                wrong += act == SUPERVISOR_TERMINATE && !lives;
            }
            if (s.state != SUPERVISOR_ENDED)
                wrong += lives == (s.state == SUPERVISOR_WAITING);
            if (s.state == SUPERVISOR_STARTING || s.state == SUPERVISOR_SERVING)
                wrong += supervisor_tick(&s, now, until, false) == SUPERVISOR_NOTHING && supervisor_next(&s, now, until) <= now;
        }
        ends += s.state == SUPERVISOR_ENDED;
        wrong += s.state == SUPERVISOR_ENDED && lives;
    }
    is_int(0, wrong, "whatever comes, a child is started when there is none, and looks lie ahead");
    ok(ends > 0, "and there is an end");
}

int main(void) {
    plan_lazy();
    test_start();
    test_errors();
    test_back_off();
    test_never_served();
    test_stop();
    test_lease();
    test_schedules();
    return 0;
}
