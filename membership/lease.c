#include "membership/lease.h"

void lease_begin(struct lease *lease, const struct register_value *value, uint64_t session, int64_t duration) {
    memset(lease, 0, sizeof *lease);
    lease->held = true;
    lease->epoch = value->epoch;
    lease->session = session;
    lease->duration = duration;
    lease_voters(lease, value);
}

void lease_voters(struct lease *lease, const struct register_value *value) {
    int64_t sent[REGISTER_VOTERS_MAX];
    for (unsigned i = 0; i < value->voter_count; i++) {
        sent[i] = INT64_MIN;
        for (unsigned j = 0; j < lease->voter_count; j++)
            if (register_voter_of(value, lease->voters[j].name, lease->voters[j].id) == (int)i)
                sent[i] = lease->sent[j];
    }
    lease->voter_count = value->voter_count;
    memcpy(lease->voters, value->voters, sizeof lease->voters);
    memcpy(lease->sent, sent, value->voter_count * sizeof sent[0]);
}

void lease_granted(struct lease *lease, const char *voter, const uint8_t id[16], int64_t sent) {
    for (unsigned i = 0; i < lease->voter_count; i++)
        if (strcmp(lease->voters[i].name, voter) == 0 && memcmp(lease->voters[i].id, id, 16) == 0)
            lease->sent[i] = MAX(lease->sent[i], sent);
}

int64_t lease_until(const struct lease *lease) {
    int64_t until = INT64_MIN;
    if (!lease->held)
        return INT64_MIN;
    for (unsigned i = 0; i < lease->voter_count; i++) { /* the latest that a majority reaches */
        unsigned as_late = 0;
        for (unsigned j = 0; j < lease->voter_count; j++)
            as_late += lease->sent[j] != INT64_MIN && lease->sent[j] >= lease->sent[i];
        if (lease->sent[i] != INT64_MIN && as_late > lease->voter_count / 2)
            until = MAX(until, lease->sent[i] + lease->duration);
    }
    return until;
}

bool lease_holds(struct lease *lease, int64_t now) {
    int64_t until = lease_until(lease);
    if (until == INT64_MIN)
        return false;
    if (now >= until)
        lease->held = false;
    return lease->held;
}

void lease_give_up(struct lease *lease) {
    lease->held = false;
}
