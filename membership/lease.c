#include "membership/lease.h"

static int place_of(const struct lease_list *list, const char *voter, const uint8_t id[16]) {
    for (unsigned i = 0; i < list->count; i++)
        if (strcmp(list->voters[i].name, voter) == 0 && memcmp(list->voters[i].id, id, 16) == 0)
            return (int)i;
    return -1;
}

static int64_t sent_by(const struct lease_list *list, const struct register_voter *voter) {
    int place = place_of(list, voter->name, voter->id);
    return place < 0 ? INT64_MIN : list->sent[place];
}

/* The voters of that value, with what they have granted as members of either list. */
static struct lease_list list_of(const struct lease *lease, const struct register_value *value) {
    struct lease_list list = {.count = value->voter_count};
    memcpy(list.voters, value->voters, sizeof list.voters);
    for (unsigned i = 0; i < list.count; i++) {
        list.sent[i] = sent_by(&lease->list, &list.voters[i]);
        if (lease->proposed_version)
            list.sent[i] = MAX(list.sent[i], sent_by(&lease->proposed, &list.voters[i]));
    }
    return list;
}

/* The latest that so many of it have granted. */
static int64_t granted_by(const struct lease_list *list, unsigned needed, int64_t duration) {
    int64_t until = INT64_MIN;
    for (unsigned i = 0; i < list->count; i++) {
        unsigned as_late = 0;
        for (unsigned j = 0; j < list->count; j++)
            as_late += list->sent[j] != INT64_MIN && list->sent[j] >= list->sent[i];
        if (list->sent[i] != INT64_MIN && as_late >= needed)
            until = MAX(until, list->sent[i] + duration);
    }
    return until;
}

static int64_t reached(const struct lease_list *list, int64_t duration) {
    return granted_by(list, list->count / 2 + 1, duration);
}

/* No majority is left without one of those. */
static int64_t guarded(const struct lease_list *list, int64_t duration) {
    return granted_by(list, list->count - list->count / 2, duration);
}

static void count(struct lease *lease) {
    int64_t until = reached(&lease->list, lease->duration);
    if (lease->proposed_version)
        until = MIN(until, reached(&lease->proposed, lease->duration));
    lease->until = MAX(lease->until, until);
}

void lease_begin(struct lease *lease, const struct register_value *value, uint64_t session, int64_t duration) {
    memset(lease, 0, sizeof *lease);
    lease->held = true;
    lease->epoch = value->epoch;
    lease->session = session;
    lease->duration = duration;
    lease->until = INT64_MIN;
    lease->list = list_of(lease, value);
}

static bool same_voters(const struct lease_list *list, const struct register_value *value) {
    bool same = list->count == value->voter_count;
    for (unsigned i = 0; same && i < list->count; i++)
        same = register_voter_of(value, list->voters[i].name, list->voters[i].id) >= 0;
    return same;
}

bool lease_may_propose(const struct lease *lease, const struct register_value *value) {
    if (!lease->held || same_voters(&lease->list, value))
        return true;
    if (lease_unsettled(lease))
        return same_voters(&lease->proposed, value);
    struct lease_list list = list_of(lease, value);
    return guarded(&list, lease->duration) >= lease->until;
}

void lease_proposed(struct lease *lease, const struct register_value *value) {
    PROMISE(lease_may_propose(lease, value));
    if (same_voters(&lease->list, value))
        return;
    lease->proposed = list_of(lease, value);
    lease->proposed_version = value->version;
}

bool lease_unsettled(const struct lease *lease) {
    return lease->proposed_version > 0;
}

void lease_voters(struct lease *lease, const struct register_value *value) {
    lease->list = list_of(lease, value);
    if (value->version >= lease->proposed_version)
        lease->proposed_version = 0;
    count(lease);
}

void lease_granted(struct lease *lease, const char *voter, const uint8_t id[16], int64_t sent) {
    int place = place_of(&lease->list, voter, id);
    if (place >= 0)
        lease->list.sent[place] = MAX(lease->list.sent[place], sent);
    place = lease->proposed_version ? place_of(&lease->proposed, voter, id) : -1;
    if (place >= 0)
        lease->proposed.sent[place] = MAX(lease->proposed.sent[place], sent);
    count(lease);
}

int64_t lease_until(const struct lease *lease) {
    return lease->held ? lease->until : INT64_MIN;
}

bool lease_holds(struct lease *lease, int64_t now) {
    int64_t until = lease_until(lease);
    if (until == INT64_MIN)
        return false;
    if (now >= until)
        lease->held = false;
    return lease->held;
}

bool lease_backed(const struct lease *lease, int64_t now) {
    return now < lease_until(lease) && reached(&lease->list, lease->duration) >= lease->until;
}

void lease_give_up(struct lease *lease) {
    lease->held = false;
}
