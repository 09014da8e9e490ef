#include "membership/voter.h"

#include <stdio.h>

int ballot_compare(struct ballot a, struct ballot b) {
    if (a.counter != b.counter)
        return a.counter < b.counter ? -1 : 1;
    return a.node < b.node ? -1 : a.node > b.node;
}

void voter_start(struct voter *voter, const char *name, const struct voter_state *state, int64_t lease, int64_t margin, int64_t now) {
    memset(voter, 0, sizeof *voter);
    snprintf(voter->name, sizeof voter->name, "%s", name);
    voter->state = *state;
    voter->lease = lease;
    voter->margin = margin;
    voter->quiet_until = now + lease + margin;
}

static bool has_value(const struct voter *voter) {
    return voter->state.value.version > 0;
}

static bool granted(const struct voter *voter, int64_t now) {
    return voter->grant.node[0] && now < voter->grant.until;
}

static void answer_with(const struct voter *voter, enum voter_verdict verdict, struct voter_answer *answer) {
    memset(answer, 0, sizeof *answer);
    answer->verdict = verdict;
    memcpy(answer->id, voter->state.id, sizeof answer->id);
    answer->promised = voter->state.promised;
    answer->accepted = voter->state.accepted;
    answer->value = voter->state.value;
    answer->known = voter->state.known;
}

/* A voter grants leases of the epoch of the value that it has accepted. One of a newer epoch is chosen when they have ended. */
static bool may_have_forgotten(const struct voter *voter) {
    return has_value(voter) && voter->state.known.epoch <= voter->state.value.epoch;
}

/* A lease that somebody else may hold; false: `answer` says which. */
static bool free_for(const struct voter *voter, const char *from, int64_t now, struct voter_answer *answer) {
    if (granted(voter, now) && strcmp(voter->grant.node, from) != 0) {
        answer_with(voter, VOTER_HELD, answer);
        memcpy(answer->holder, voter->grant.node, sizeof answer->holder);
        answer->wait = voter->grant.until - now;
        return false;
    }
    if (may_have_forgotten(voter) && now < voter->quiet_until && strcmp(voter->state.value.primary, from) != 0) {
        answer_with(voter, VOTER_QUIET, answer);
        answer->wait = voter->quiet_until - now;
        return false;
    }
    return true;
}

void voter_prepare(struct voter *voter, const char *from, struct ballot ballot, bool birth, int64_t now, struct voter_answer *answer) {
    if (birth && voter->state.value.version > 1) {
        answer_with(voter, VOTER_STALE, answer);
        return;
    }
    if (!free_for(voter, from, now, answer))
        return;
    if (ballot_compare(ballot, voter->state.promised) <= 0) {
        answer_with(voter, VOTER_STALE, answer);
        return;
    }
    voter->state.promised = ballot;
    answer_with(voter, VOTER_YES, answer);
    answer->durable = true;
}

void voter_accept(struct voter *voter, const char *from, struct ballot ballot, const struct register_value *value,
                  const struct register_value *known, int64_t now, struct voter_answer *answer) {
    bool was_voter = has_value(voter) && known->version + 1 == value->version &&
                     register_voter_of(known, voter->name, voter->state.id) >= 0;
    bool news = known->version > voter->state.known.version; /* true whatever becomes of this ballot, and durable before it is told */
    if (news)
        voter->state.known = *known;
    bool free = free_for(voter, from, now, answer);
    if (free && ballot_compare(ballot, voter->state.promised) < 0) {
        answer_with(voter, VOTER_STALE, answer);
        free = false;
    }
    if (!free) {
        answer->durable = news;
        return;
    }
    bool other_holder = strcmp(value->primary, voter->grant.node) != 0 || value->epoch != voter->grant.epoch;
    voter->state.promised = voter->state.accepted = ballot;
    voter->state.value = *value;
    if (other_holder) /* its own word, before which it has stopped acknowledging */
        voter->grant.node[0] = '\0';
    /* Made a voter by this value, for the first time or again: others of the list before may have granted the lease, and it
     * must not make a majority with those that have not. Who misses the accept keeps no silence, so the holder does not count
     * on it (lease.h). */
    if (!was_voter && register_voter_of(value, voter->name, voter->state.id) >= 0)
        voter->quiet_until = now + voter->lease + voter->margin;
    answer_with(voter, VOTER_YES, answer);
    answer->durable = true;
}

void voter_renew(struct voter *voter, const char *from, epoch_t epoch, uint64_t session, int64_t now, struct voter_answer *answer) {
    const struct register_value *value = &voter->state.value;
    const struct register_value *known = &voter->state.known;
    bool given_back = voter->released == epoch && voter->released_session == session;
    bool succeeded = known->version > value->version && known->epoch != epoch; /* here it was missed, elsewhere it was chosen */
    if (value->epoch != epoch || strcmp(value->primary, from) != 0 || given_back || succeeded) {
        answer_with(voter, VOTER_STALE, answer);
        return;
    }
    snprintf(voter->grant.node, sizeof voter->grant.node, "%s", from);
    voter->grant.epoch = epoch;
    voter->grant.session = session;
    voter->grant.until = now + voter->lease + voter->margin;
    answer_with(voter, VOTER_YES, answer);
}

void voter_release(struct voter *voter, const char *from, epoch_t epoch, uint64_t session, int64_t now, struct voter_answer *answer) {
    const struct register_value *value = &voter->state.value;
    bool of_value = value->epoch == epoch && strcmp(value->primary, from) == 0;
    bool of_grant = granted(voter, now) && voter->grant.epoch == epoch && voter->grant.session == session &&
                    strcmp(voter->grant.node, from) == 0;
    if (!of_value || (granted(voter, now) && !of_grant)) {
        answer_with(voter, VOTER_STALE, answer);
        return;
    }
    /* It is the only one whom a grant that this voter has forgotten can have been for: who accepts a value while another
     * one's grant lasts breaks the rule above. */
    voter->grant.node[0] = '\0';
    voter->quiet_until = now;
    voter->released = epoch;
    voter->released_session = session;
    answer_with(voter, VOTER_YES, answer);
}

void voter_learn(struct voter *voter, const struct register_value *value, struct voter_answer *answer) {
    bool newer = value->version > voter->state.known.version;
    if (newer)
        voter->state.known = *value;
    answer_with(voter, VOTER_YES, answer);
    answer->durable = newer;
}

void voter_query(const struct voter *voter, const char *from, int64_t now, struct voter_answer *answer) {
    if (free_for(voter, from, now, answer))
        answer_with(voter, VOTER_YES, answer);
}
