#include "replication/catchup.h"

/* New work that leaves less than an eighth of what the peer takes makes it lose ground: the time left then falls so slowly,
 * if at all, that measuring errors are larger. */
#define GROUND 8
/* Slowed work that stays below this part of its quota by itself is let go. */
#define EASY(quota) ((quota) - (quota) / 4)

void catchup_begin(struct catchup *catchup, uint64_t end, uint64_t average, uint64_t made) {
    *catchup = (struct catchup){.active = true, .end = end, .average = average, .made = made};
}

void catchup_end(struct catchup *catchup) {
    *catchup = (struct catchup){0};
}

void catchup_sent(struct catchup *catchup, uint64_t first, uint64_t last, uint64_t bytes) {
    if (last <= catchup->end)
        return;
    uint64_t count = last - first + 1, beyond = last - MAX(catchup->end, first - 1);
    catchup->beyond += bytes / count * beyond + bytes % count * beyond / count;
}

void catchup_sent_all(struct catchup *catchup, uint64_t made) {
    catchup->beyond = made - catchup->made;
}

static uint64_t quota(const struct catchup *catchup, const struct catchup_rule *rule) {
    return MAX(catchup->taken_rate / 100 * (100 - rule->share), rule->floor);
}

static void judge(struct catchup *catchup, const struct catchup_rule *rule, bool held) {
    uint64_t taken = catchup->taken_rate, made = catchup->made_rate;
    if (taken == 0 || rule->share == 0)
        catchup->losing = false;
    else if (catchup->losing)
        catchup->losing = held || made > EASY(quota(catchup, rule));
    else
        catchup->losing = made > taken - taken / GROUND;
}

static uint64_t rate_of(uint64_t bytes, int64_t ns) {
    return (uint64_t)((double)bytes * 1e9 / (double)ns);
}

void catchup_look(struct catchup *catchup, const struct catchup_rule *rule, uint64_t taken, uint64_t made, bool stalled,
                  bool held, int64_t now) {
    if (!catchup->active)
        return;
    if (stalled) {
        catchup->count = 0;
        catchup->taken_rate = catchup->made_rate = 0;
        catchup->losing = false;
        return;
    }
    const unsigned room = CATCHUP_STEPS + 1;
    const struct catchup_mark *last = &catchup->marks[(catchup->first + catchup->count + room - 1) % room];
    if (catchup->count && now - last->time < CATCHUP_STEP)
        return;
    if (catchup->count == room) {
        catchup->first = (catchup->first + 1) % room;
        catchup->count--;
    }
    catchup->marks[(catchup->first + catchup->count++) % room] = (struct catchup_mark){now, taken, made};
    const struct catchup_mark *oldest = &catchup->marks[catchup->first];
    if (catchup->count == 1)
        return;
    catchup->taken_rate = rate_of(taken - oldest->taken, now - oldest->time);
    catchup->made_rate = rate_of(made - oldest->made, now - oldest->time);
    if (catchup->count == room)
        judge(catchup, rule, held);
}

uint64_t catchup_limit(const struct catchup *catchup, const struct catchup_rule *rule) {
    return catchup->active && catchup->losing ? quota(catchup, rule) : CATCHUP_NEVER;
}

uint64_t catchup_unsent(const struct catchup *catchup, uint64_t next, uint64_t made) {
    uint64_t before = next <= catchup->end ? (catchup->end - next + 1) * catchup->average : 0;
    uint64_t since = made - catchup->made;
    return before + since - MIN(since, catchup->beyond);
}

uint64_t catchup_seconds(const struct catchup *catchup, uint64_t bytes) {
    if (bytes == 0)
        return 0;
    if (catchup->taken_rate <= catchup->made_rate)
        return CATCHUP_NEVER;
    return bytes / (catchup->taken_rate - catchup->made_rate);
}

bool catchup_is_near(const struct catchup *catchup, uint64_t bytes, uint64_t few, int64_t ns) {
    return bytes <= few || (double)bytes * 1e9 <= (double)catchup->taken_rate * (double)ns;
}

void pace_set(struct pace *pace, uint64_t rate, uint64_t made, int64_t now) {
    if (pace->rate == 0) { /* what was made before is paid for */
        pace->paid = made;
        pace->free = now;
    }
    pace->rate = rate;
}

int64_t pace_due(struct pace *pace, uint64_t made, int64_t now) {
    if (pace->rate == 0 || made <= pace->paid)
        return 0;
    double cost = (double)(made - pace->paid) * 1e9 / (double)pace->rate;
    pace->paid = made;
    pace->free = MAX(pace->free, now) + (int64_t)MIN(cost, (double)PACE_LONGEST);
    pace->free = MIN(pace->free, now + PACE_LONGEST);
    int64_t due = pace->free - PACE_BURST;
    return due > now ? due : 0;
}

bool pace_holds(const struct pace *pace, int64_t now) {
    return pace->rate != 0 && pace->free - PACE_BURST > now;
}
