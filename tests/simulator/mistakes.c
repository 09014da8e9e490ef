/* Mistakes that are planted into the real code, one at a time, where one of its files calls another (Makefile.am: --wrap),
 * or into what is played. Without one everything is as it is.
 */
#include "membership/change.h"
#include "membership/lease.h"
#include "replication/elect.h"
#include "tests/simulator/mistakes.h"

enum mistake mistake;

static const struct {
    const char *name, *finds[2]; /* part of what a schedule then says */
} mistakes[MISTAKES] = {
    [MISTAKE_NONE] = {"none", {0}},
    [MISTAKE_UNSAVED] = {"a voter answers before its disk has what it says", {"two values", "is chosen after"}},
    [MISTAKE_LOUD] = {"a voter that has just started lets challengers in", {"the lease", "has begun epoch"}},
    [MISTAKE_FORGETS_GRANT] = {"a voter lets challengers in while its grant lasts", {"the lease", "has begun epoch"}},
    [MISTAKE_LOST_DISK] = {"a voter that has lost its disk votes at once", {"two values", "is chosen after"}},
    [MISTAKE_FROM_ARRIVAL] = {"the holder counts from the arrival of grants", {"the lease", "has begun epoch"}},
    [MISTAKE_WRONG_LIST] = {"the holder counts a majority of another list", {"the lease", "has begun epoch"}},
    [MISTAKE_HALF_DONE] = {"a proposer does not complete what it finds half done", {"two values", "is chosen after"}},
    [MISTAKE_UNCHECKED] = {"the lease is not looked at after the waiting", {" answers"}},
    [MISTAKE_FAST_CLOCK] = {"clocks run apart by more than the margin", {"the lease", "has begun epoch"}},
    [MISTAKE_ANYBODY_RUNS] = {"a node stands that is no member", {"was acknowledged"}},
};

const char *mistake_name(enum mistake which) {
    return mistakes[which].name;
}

bool mistake_explains(enum mistake which, const char *why) {
    for (unsigned i = 0; i < 2; i++)
        if (mistakes[which].finds[i] && strstr(why, mistakes[which].finds[i]))
            return true;
    return false;
}

#define WRAPPED(type, name, ...) \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

WRAPPED(void, voter_start, struct voter *voter, const char *name, const struct voter_state *state, int64_t lease,
        int64_t margin, int64_t now) {
    __real_voter_start(voter, name, state, lease, margin, now);
    if (mistake == MISTAKE_LOUD)
        voter->quiet_until = now;
}

WRAPPED(void, voter_renew, struct voter *voter, const char *from, epoch_t epoch, uint64_t session, int64_t now,
        struct voter_answer *answer) {
    __real_voter_renew(voter, from, epoch, session, now, answer);
    if (mistake == MISTAKE_FORGETS_GRANT)
        voter->grant.until = now;
}

WRAPPED(void, lease_granted, struct lease *lease, const char *voter, const uint8_t id[16], int64_t sent) {
    __real_lease_granted(lease, voter, id, mistake == MISTAKE_FROM_ARRIVAL ? clock_boot() : sent);
}

static struct register_value own_list(const struct register_value *value) {
    struct register_value own = *value;
    for (unsigned i = 0; i < value->voter_count; i++)
        if (strcmp(value->voters[i].name, value->primary) == 0) {
            own.voters[0] = value->voters[i];
            own.voter_count = 1;
        }
    return own;
}

WRAPPED(void, lease_begin, struct lease *lease, const struct register_value *value, uint64_t session, int64_t duration) {
    struct register_value own = own_list(value);
    __real_lease_begin(lease, mistake == MISTAKE_WRONG_LIST ? &own : value, session, duration);
}

WRAPPED(void, lease_voters, struct lease *lease, const struct register_value *value) {
    struct register_value own = own_list(value);
    __real_lease_voters(lease, mistake == MISTAKE_WRONG_LIST ? &own : value);
}

WRAPPED(enum change_state, change_answer, struct change *change, const char *voter, const struct voter_answer *answer,
        bool to_accept) {
    enum change_state state = __real_change_answer(change, voter, answer, to_accept);
    if (mistake == MISTAKE_HALF_DONE && state == CHANGE_READ)
        change->present = change->known;
    return state;
}

WRAPPED(bool, elect_judge, struct elect *elect, const struct elect_view *view, int64_t now) {
    struct elect_view other = *view;
    if (mistake == MISTAKE_ANYBODY_RUNS)
        other.nodes[view->self].member = true;
    return __real_elect_judge(elect, &other, now);
}
