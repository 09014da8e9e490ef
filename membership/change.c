#include "membership/change.h"

static int voter_in(const struct change_list *list, const char *name, const uint8_t id[16]) {
    for (unsigned i = 0; i < list->count; i++)
        if (strcmp(list->voters[i].name, name) == 0 && memcmp(list->voters[i].id, id, 16) == 0)
            return (int)i;
    return -1;
}

static bool enough(const struct change *change, const bool *flags, unsigned of) {
    unsigned set = 0;
    for (unsigned i = 0; i < of; i++)
        set += flags[i];
    return change->birth ? set == of : set > of / 2;
}

static void add_list(struct change *change, const struct register_value *value) {
    struct change_list *list = &change->lists[change->list_count++];
    memset(list, 0, sizeof *list);
    list->count = value->voter_count;
    memcpy(list->voters, value->voters, sizeof list->voters);
    for (unsigned i = 0; i < change->promise_count; i++) {
        int voter = voter_in(list, change->promises[i].voter.name, change->promises[i].voter.id);
        if (voter >= 0)
            list->promised[voter] = true;
    }
}

static bool has_list(const struct change *change, const struct register_value *value) {
    for (unsigned i = 0; i < change->list_count; i++) {
        const struct change_list *list = &change->lists[i];
        bool same = list->count == value->voter_count;
        for (unsigned j = 0; same && j < list->count; j++)
            same = register_voter_of(value, list->voters[j].name, list->voters[j].id) >= 0;
        if (same)
            return true;
    }
    return false;
}

void change_begin(struct change *change, const struct register_value *known, struct ballot seen, uint16_t node) {
    struct register_value asked = *known; /* may be the change's own */
    memset(change, 0, sizeof *change);
    change->state = CHANGE_PREPARE;
    change->birth = asked.version == 0;
    change->known = asked;
    change->seen = seen;
    change->ballot = (struct ballot){.counter = seen.counter + 1, .node = node};
    add_list(change, &asked);
}

void change_again(struct change *change) {
    change_begin(change, &change->known, change->seen, change->ballot.node);
}

static void look_at_promises(struct change *change) {
    for (;;) {
        for (unsigned i = 0; i < change->list_count; i++)
            if (!enough(change, change->lists[i].promised, change->lists[i].count))
                return;
        if (change->present.version == 0 || has_list(change, &change->present)) {
            /* One that is known may have been chosen after these promises, by a higher ballot. */
            change->state = change->present.version < change->known.version ? CHANGE_ANEW : CHANGE_READ;
            return;
        }
        if (change->list_count == CHANGE_LISTS) { /* lists change seldom: somebody is far behind */
            change->state = CHANGE_ANEW;
            return;
        }
        change->birth = false; /* there is a value, whose list counts */
        add_list(change, &change->present);
    }
}

static void note_promise(struct change *change, const char *voter, const struct voter_answer *answer) {
    bool listed = false;
    for (unsigned i = 0; i < change->list_count; i++) {
        int number = voter_in(&change->lists[i], voter, answer->id);
        if (number < 0)
            continue;
        if (change->lists[i].promised[number])
            return; /* told before */
        listed = true;
        change->lists[i].promised[number] = true;
    }
    if (!listed || change->promise_count == sizeof change->promises / sizeof change->promises[0])
        return;
    struct register_voter *noted = &change->promises[change->promise_count++].voter;
    memset(noted, 0, sizeof *noted);
    memcpy(noted->name, voter, strnlen(voter, sizeof noted->name - 1));
    memcpy(noted->id, answer->id, sizeof noted->id);
    if (ballot_compare(answer->accepted, change->present_ballot) > 0) {
        change->present = answer->value;
        change->present_ballot = answer->accepted;
    }
    look_at_promises(change);
}

static void note_acceptance(struct change *change, const char *voter, const struct voter_answer *answer) {
    bool chosen = true;
    for (unsigned i = 0; i <= change->list_count; i++) {
        struct change_list *list = &change->lists[i];
        int number = voter_in(list, voter, answer->id);
        if (number >= 0)
            list->accepted[number] = true;
        chosen = chosen && enough(change, list->accepted, list->count);
    }
    if (!chosen)
        return;
    change->state = CHANGE_CHOSEN;
    if (change->next.version > change->known.version)
        change->known = change->next;
}

static void note_refusal(struct change *change, const struct voter_answer *answer) {
    if (answer->verdict == VOTER_HELD || answer->verdict == VOTER_QUIET) {
        change->refused++;
        change->wait = MAX(change->wait, answer->wait);
        if (answer->verdict == VOTER_HELD)
            memcpy(change->holder, answer->holder, sizeof change->holder);
    }
    if (ballot_compare(answer->promised, change->seen) > 0)
        change->seen = answer->promised;
    if (answer->verdict == VOTER_STALE && (change->birth || ballot_compare(answer->promised, change->ballot) > 0))
        change->state = CHANGE_ANEW;
}

static bool known_voter(const struct change *change, const char *voter, const uint8_t id[16], bool to_accept) {
    for (unsigned i = 0; i < change->list_count + to_accept; i++)
        if (voter_in(&change->lists[i], voter, id) >= 0)
            return true;
    return false;
}

enum change_state change_answer(struct change *change, const char *voter, const struct voter_answer *answer, bool to_accept) {
    if (change->state != (to_accept ? CHANGE_ACCEPT : CHANGE_PREPARE))
        return change->state;
    if (answer->known.version > change->known.version) { /* whoever tells it: of the lists here too many may be gone */
        change->known = answer->known;
        if (!to_accept && (change->birth || !has_list(change, &change->known))) {
            change->state = CHANGE_ANEW;
            return change->state;
        }
    }
    if (!known_voter(change, voter, answer->id, to_accept))
        return change->state;
    if (answer->verdict != VOTER_YES)
        note_refusal(change, answer);
    else if (to_accept && ballot_compare(answer->accepted, change->ballot) == 0)
        note_acceptance(change, voter, answer);
    else if (!to_accept && ballot_compare(answer->promised, change->ballot) == 0)
        note_promise(change, voter, answer);
    return change->state;
}

void change_next(struct change *change, const struct register_value *next) {
    PROMISE(change->state == CHANGE_READ);
    change->next = next ? *next : change->present;
    if (change->next.version > change->present.version && change->present.version > change->known.version)
        change->known = change->present; /* as the caller says */
    PROMISE(change->known.version > 0 || change->next.version == 1);
    unsigned lists = change->list_count;
    add_list(change, &change->next);
    change->list_count = lists; /* the next value's stands behind them, and is asked for acceptance alone */
    change->state = CHANGE_ACCEPT;
}

const struct register_voter *change_voter(const struct change *change, unsigned i) {
    unsigned lists = change->list_count + (change->state == CHANGE_ACCEPT);
    for (unsigned j = 0; j < lists; j++)
        for (unsigned k = 0; k < change->lists[j].count; k++) {
            const struct register_voter *voter = &change->lists[j].voters[k];
            bool before = false;
            for (unsigned l = 0; l < j; l++)
                before = before || voter_in(&change->lists[l], voter->name, voter->id) >= 0;
            if (!before && i-- == 0)
                return voter;
        }
    return NULL;
}
