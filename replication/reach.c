#include "replication/reach.h"

/* Slowed work that stays below this part of its quota by itself is let go. */
#define EASY(quota) ((quota) - (quota) / 4)
/* How many bytes of the journal a byte of records makes: deletes many, writes of new data few. */
#define RATIO_MOST 64u

void reach_begin(struct reach *reach, uint64_t need, uint64_t made) {
    *reach = (struct reach){.active = true, .need = need, .begun = made, .left_ms = REACH_UNKNOWN_MS};
}

void reach_end(struct reach *reach) {
    *reach = (struct reach){0};
}

uint64_t reach_need(const struct reach *reach, uint64_t made) {
    return reach->active ? reach->need + (made - reach->begun) : 0;
}

uint64_t reach_quota(const struct reach *reach) {
    return reach->active && reach->slows ? reach->quota : REACH_NEVER;
}

static uint64_t times(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t rate_of(uint64_t bytes, int64_t ns) {
    return times(bytes, 1000) / (uint64_t)MAX(ns / 1000000, 1);
}

/* In bytes of records, which are what is paced. */
static uint64_t in_records(uint64_t quota, uint64_t made_rate, uint64_t total_rate) {
    if (made_rate == 0 || total_rate == 0)
        return quota;
    if (total_rate / made_rate >= RATIO_MOST)
        return times(quota, RATIO_MOST);
    if (made_rate / total_rate >= RATIO_MOST)
        return quota / RATIO_MOST;
    return (uint64_t)((double)quota * (double)total_rate / (double)made_rate);
}

static void judge(struct reach *reach, const struct reach_rule *rule, const struct reach_sight *sight, uint64_t total_rate) {
    uint64_t need = reach_need(reach, sight->made), room = rule->limit - MIN(need, rule->limit);
    uint64_t lasts = times(room, 1000) / reach->left_ms; /* so much a second until it is there */
    bool sure = reach->count > REACH_SURE || need > rule->limit / REACH_EARLY;
    if (reach->slows)
        reach->slows = sight->held || reach->made_rate > EASY(lasts);
    else
        reach->slows = sure && reach->made_rate > lasts;
    reach->quota = MAX(in_records(lasts, reach->made_rate, total_rate), rule->floor);
}

void reach_look(struct reach *reach, const struct reach_rule *rule, const struct reach_sight *sight, int64_t now) {
    const unsigned room = REACH_STEPS + 1;
    if (!reach->active)
        return;
    if (sight->away) {
        reach->count = 0;
        reach->slows = false;
        return;
    }
    const struct reach_mark *last = &reach->marks[(reach->first + reach->count + room - 1) % room];
    if (reach->count && now - last->time < REACH_STEP)
        return;
    if (reach->count == room) {
        reach->first = (reach->first + 1) % room;
        reach->count--;
    }
    reach->marks[(reach->first + reach->count++) % room] = (struct reach_mark){now, sight->given, sight->made, sight->total};
    const struct reach_mark *oldest = &reach->marks[reach->first];
    if (reach->count == 1)
        return;
    int64_t ns = now - oldest->time;
    uint64_t given_rate = rate_of(sight->given - oldest->given, ns);
    reach->made_rate = rate_of(sight->made - oldest->made, ns);
    if (given_rate)
        reach->left_ms = times(sight->left, 1000) / given_rate;
    else
        reach->left_ms = sight->left ? REACH_UNKNOWN_MS : 0;
    reach->left_ms = MIN(reach->left_ms, REACH_MOST_MS) + REACH_END_MS;
    judge(reach, rule, sight, rate_of(sight->total - oldest->total, ns));
}
