/* Catching up: what is left is counted, rates are measured, new work is slowed where a peer would never be there and only
 * there; slowed, it is there in time; a peer that stalls slows nobody. Pacing keeps its rate whatever comes when.
 */
#include "replication/catchup.h"
#include "tests/tap.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define MIB (1u << 20)

static const struct catchup_rule half = {.share = 50, .floor = 64u << 10};

/* A primary whose users would make `demand` bytes a second, a peer that takes `capacity`, on a clock that ticks. */
struct model {
    struct catchup catchup;
    struct pace pace;
    struct catchup_rule rule;
    double demand, capacity, made, taken, backlog;
    int64_t now;
    bool slowed, held;
};

static struct model begin(double demand, double capacity, double backlog) {
    struct model model = {.rule = half, .demand = demand, .capacity = capacity, .backlog = backlog, .now = SECOND};
    catchup_begin(&model.catchup, 1000, (uint64_t)backlog / 1000, 0);
    return model;
}

static double left(const struct model *model) {
    return model->backlog + model->made - model->taken;
}

static void step(struct model *model, bool stalled) {
    const int64_t tick = 20 * MS;
    uint64_t limit = catchup_limit(&model->catchup, &model->rule);
    double rate = limit == CATCHUP_NEVER ? model->demand : MIN(model->demand, (double)limit);
    model->slowed = model->slowed || rate < model->demand;
    model->now += tick;
    model->made += rate * (double)tick / 1e9;
    if (!stalled)
        model->taken += MIN(model->capacity * (double)tick / 1e9, left(model));
    catchup_look(&model->catchup, &model->rule, (uint64_t)model->taken, (uint64_t)model->made, stalled, model->held,
                 model->now);
}

/* Seconds until nothing is left; -1: not within the hour. */
static double arrive(struct model *model) {
    int64_t start = model->now;
    while (left(model) > 1000 && model->now - start < 3600 * SECOND)
        step(model, false);
    return left(model) > 1000 ? -1 : (double)(model->now - start) / 1e9;
}

static void test_arrival(void) {
    struct model model = begin(10.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    double seconds = arrive(&model);
    ok(seconds > 99 && seconds < 101, "who gains ground is there in time: %.1f s of 100", seconds);
    ok(!model.slowed, "and nobody is slowed");

    model = begin(40.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    seconds = arrive(&model);
    ok(seconds > 100 && seconds < 125, "twice as much is made as it takes: it is there in %.1f s, of 100 that half of it takes",
       seconds);
    ok(model.slowed, "new work was slowed");

    model = begin(20.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    seconds = arrive(&model);
    ok(seconds > 0 && seconds < 115, "as much: there in %.1f s", seconds);

    model = begin(40.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    model.rule.share = 0;
    ok(arrive(&model) < 0 && !model.slowed, "share 0: never slowed, never there");

    model = begin(40.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    model.rule.share = 90;
    seconds = arrive(&model);
    ok(seconds > 55 && seconds < 75, "share 90 %%: there in %.1f s of 56", seconds);

    model = begin(40.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    model.rule.floor = 30u << 20;
    ok(arrive(&model) < 0 && model.slowed, "a floor above what it takes is kept, and it is never there");
    is_int(30 << 20, catchup_limit(&model.catchup, &model.rule), "the limit is the floor");
    is_int(-1, (int64_t)catchup_seconds(&model.catchup, 1000), "no time is promised");
}

static void test_window(void) {
    struct model model = begin(40.0 * MIB, 20.0 * MIB, 1000.0 * MIB);
    while (model.now < SECOND + 4900 * MS)
        step(&model, false);
    ok(!model.slowed, "nothing is slowed before a window has passed");
    while (model.now < 7 * SECOND)
        step(&model, false);
    ok(model.slowed, "then it is");
    uint64_t limit = catchup_limit(&model.catchup, &model.rule);
    ok(limit > 9u * MIB && limit < 11u * MIB, "to half of what the peer takes: %.1f MiB", (double)limit / MIB);

    model.demand = 1.0 * MIB;
    model.held = true;
    while (model.now < 16 * SECOND)
        step(&model, false);
    ok(catchup_limit(&model.catchup, &model.rule) != CATCHUP_NEVER,
       "little, because answers are delayed: that changes nothing");
    model.held = false;
    while (model.now < 17 * SECOND)
        step(&model, false);
    is_int(-1, (int64_t)catchup_limit(&model.catchup, &model.rule), "who makes little of his own accord is let go");
    model.demand = 40.0 * MIB;
    while (model.now < 26 * SECOND)
        step(&model, false);
    ok(catchup_limit(&model.catchup, &model.rule) != CATCHUP_NEVER, "and slowed again when he makes much");

    step(&model, true);
    is_int(-1, (int64_t)catchup_limit(&model.catchup, &model.rule), "a peer that stalls slows nobody");
    int64_t from = model.now;
    while (model.now < from + 4900 * MS)
        step(&model, false);
    is_int(-1, (int64_t)catchup_limit(&model.catchup, &model.rule), "nor before it has gone on for a window");
    while (model.now < from + 6000 * MS)
        step(&model, false);
    ok(catchup_limit(&model.catchup, &model.rule) != CATCHUP_NEVER, "then it does");
    catchup_end(&model.catchup);
    is_int(-1, (int64_t)catchup_limit(&model.catchup, &model.rule), "nor one that has gone");

    model = begin(1.0 * MIB, 0, 1000.0 * MIB); /* it acknowledges, but nothing */
    while (model.now < 20 * SECOND)
        step(&model, false);
    ok(!model.slowed, "nor one that takes nothing");
}

static void test_left(void) {
    struct catchup catchup;
    catchup_begin(&catchup, 100, 50, 7000);
    is_int(2500, catchup_unsent(&catchup, 51, 7000), "fifty old records");
    is_int(2800, catchup_unsent(&catchup, 51, 7300), "and new ones");
    catchup_sent(&catchup, 51, 90, 1900);
    is_int(800, catchup_unsent(&catchup, 91, 7300), "old ones go");
    catchup_sent(&catchup, 91, 105, 750);
    is_int(50, catchup_unsent(&catchup, 106, 7300), "a frame with old and new ones");
    catchup_sent(&catchup, 106, 106, 50);
    is_int(0, catchup_unsent(&catchup, 107, 7300), "nothing is left");
    catchup_sent(&catchup, 107, 107, 50);
    is_int(0, catchup_unsent(&catchup, 108, 7320), "never less than that");
    catchup_sent_all(&catchup, 7320);
    is_int(80, catchup_unsent(&catchup, 108, 7400), "the count is put right where nothing is left");

    catchup_begin(&catchup, 100, 50, 0);
    ok(catchup_is_near(&catchup, 1000, 1000, 0), "a little is near in any case");
    ok(!catchup_is_near(&catchup, 10u * MIB, 1000, SECOND), "much is not while nothing is known of the peer");
    for (int i = 0; i <= 8; i++)
        catchup_look(&catchup, &half, (uint64_t)i * MIB, 0, false, false, i * 250 * MS); /* 4 MiB a second */
    ok(catchup_is_near(&catchup, 4u * MIB, 1000, SECOND) && !catchup_is_near(&catchup, 5u * MIB, 1000, SECOND), "then it is measured");
    is_int(2, catchup_seconds(&catchup, 8u * MIB), "8 MiB take two seconds");
}

static void test_pace(void) {
    struct pace pace = {0};
    int64_t now = 5 * SECOND, due = 0;
    uint64_t made = 1000;
    is_int(0, pace_due(&pace, made, now), "off, nothing waits");
    pace_set(&pace, MIB, made, now);
    is_int(0, pace_due(&pace, made, now), "what was made before is paid for");
    /* One after the other, each after the answer to the one before. */
    for (int i = 0; i < 1000; i++) {
        made += 4096;
        due = pace_due(&pace, made, now);
        now = MAX(now + 10000, due + 3 * MS * (due != 0)); /* answers come a little late */
    }
    double rate = 1000 * 4096 / ((double)(now - 5 * SECOND) / 1e9);
    ok(rate > 0.97 * MIB && rate < 1.03 * MIB, "one user: %.0f bytes a second of %u", rate, MIB);
    /* A hundred at once, then silence: no credit is saved up. */
    now += 3600 * SECOND;
    for (int i = 0; i < 100; i++) {
        made += 65536;
        int64_t last = due;
        due = pace_due(&pace, made, now);
        if (due && due < last)
            break;
    }
    is_int(now + PACE_LONGEST - PACE_BURST, due, "nobody waits longer than PACE_LONGEST");
    now = due + SECOND;
    made += 4096;
    ok(pace_holds(&pace, due - 1) && !pace_holds(&pace, now), "until he has his answer, the next one would wait");
    is_int(0, pace_due(&pace, made, now), "a little after a pause does not wait");
    pace_set(&pace, 0, made, now);
    is_int(0, pace_due(&pace, made + 100 * MIB, now), "off again");
}

int main(void) {
    plan_lazy();
    test_arrival();
    test_window();
    test_left();
    test_pace();
    return 0;
}
