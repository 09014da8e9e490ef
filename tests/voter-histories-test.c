/* Histories that had broken the register's voters and its lease, one by one: voters, proposers and holders without sockets and
 * disks. (Random schedules of them: voter-test.c.)
 */
#include "membership/change.h"
#include "membership/lease.h"
#include "tests/tap.h"

#include <stdio.h>

#define MS INT64_C(1000000)
#define LEASE (1000 * MS)
#define MARGIN (100 * MS)

static struct register_value value_with(uint64_t version, uint64_t counter, const char *primary, const char *voters) {
    struct register_value value = {.version = version, .epoch = EPOCH_MAKE(counter, primary[0])};
    snprintf(value.primary, sizeof value.primary, "%s", primary);
    for (; *voters; voters++) { /* one letter each, their ids made of it */
        struct register_voter *voter = &value.voters[value.voter_count++];
        voter->name[0] = *voters;
        memset(voter->id, *voters, sizeof voter->id);
    }
    return value;
}

static void begin_voter(struct voter *voter, char name, int64_t now) {
    struct voter_state state = {.promised = {.counter = 0}};
    char text[2] = {name};
    memset(state.id, name, sizeof state.id);
    voter_start(voter, text, &state, LEASE, MARGIN, now);
}

/* It leaves the list and comes back: with another one that has not granted it could let a challenger in. */
static void voter_that_is_one_again(void) {
    struct voter x;
    struct voter_answer answer;
    struct register_value none = {.version = 0}, with = value_with(1, 1, "a", "abx"), without = value_with(2, 1, "a", "ab"),
                          again = value_with(3, 1, "a", "abx"), after = value_with(4, 1, "a", "abx");
    int64_t now = 100 * LEASE;
    begin_voter(&x, 'x', 0);
    voter_accept(&x, "a", (struct ballot){1, 1}, &with, &none, now, &answer);
    now += 2 * LEASE;
    voter_accept(&x, "a", (struct ballot){2, 1}, &without, &with, now, &answer);
    voter_query(&x, "b", now, &answer);
    is_int(VOTER_YES, answer.verdict, "who is no voter any more holds nobody up");
    voter_accept(&x, "a", (struct ballot){3, 1}, &again, &without, now, &answer);
    voter_prepare(&x, "b", (struct ballot){4, 2}, false, now + LEASE, &answer);
    is_int(VOTER_QUIET, answer.verdict, "made a voter again, it keeps silent for as long as others' grants may last");
    voter_prepare(&x, "b", (struct ballot){5, 2}, false, now + LEASE + MARGIN, &answer);
    is_int(VOTER_YES, answer.verdict, "and no longer");
    voter_accept(&x, "a", (struct ballot){6, 1}, &after, &again, now + 2 * LEASE, &answer);
    voter_query(&x, "b", now + 2 * LEASE, &answer);
    is_int(VOTER_YES, answer.verdict, "other values do not make it silent");
}

static void voter_that_missed_the_successor(void) {
    struct voter x;
    struct voter_answer answer;
    struct register_value none = {.version = 0}, old = value_with(1, 1, "a", "abx"), newer = value_with(2, 2, "b", "abx");
    begin_voter(&x, 'x', 0);
    voter_accept(&x, "a", (struct ballot){1, 1}, &old, &none, 0, &answer);
    voter_renew(&x, "a", old.epoch, 1, 0, &answer);
    is_int(VOTER_YES, answer.verdict, "a voter grants the holder that its value names");
    voter_learn(&x, &newer, &answer);
    voter_renew(&x, "a", old.epoch, 1, 1, &answer);
    is_int(VOTER_STALE, answer.verdict, "until it is told that another one was chosen");
}

/* After a start it lets only the primary of its value in, to which it may have granted. */
static void voter_that_was_away(void) {
    struct voter x;
    struct voter_state saved;
    struct voter_answer answer;
    struct register_value none = {.version = 0}, old = value_with(1, 1, "a", "abx"), set = value_with(2, 1, "a", "abx"),
                          newer = value_with(3, 2, "b", "abx");
    begin_voter(&x, 'x', 0);
    voter_accept(&x, "a", (struct ballot){1, 1}, &old, &none, 0, &answer);
    saved = x.state;
    voter_start(&x, "x", &saved, LEASE, MARGIN, 10 * LEASE);
    voter_query(&x, "b", 10 * LEASE + 1, &answer);
    is_int(VOTER_QUIET, answer.verdict, "a voter that has just started is silent");
    voter_learn(&x, &set, &answer);
    voter_accept(&x, "b", (struct ballot){5, 2}, &newer, &set, 10 * LEASE + 2, &answer);
    is_int(VOTER_QUIET, answer.verdict, "also when it hears of another value of that epoch");
    voter_accept(&x, "b", (struct ballot){5, 2}, &newer, &newer, 10 * LEASE + 3, &answer);
    is_int(VOTER_YES, answer.verdict, "but not when one of a newer epoch is chosen: the lease that it may have granted has ended");
    ok(answer.durable && register_compare(&x.state.value, &newer) == 0, "which it accepts");
    voter_renew(&x, "b", newer.epoch, 1, 10 * LEASE + 4, &answer);
    is_int(VOTER_YES, answer.verdict, "and whose lease it grants");
    voter_start(&x, "x", &saved, LEASE, MARGIN, 20 * LEASE);
    snprintf(x.grant.node, sizeof x.grant.node, "a");
    x.grant.until = 21 * LEASE;
    voter_accept(&x, "b", (struct ballot){5, 2}, &newer, &newer, 20 * LEASE, &answer);
    is_int(VOTER_HELD, answer.verdict, "a grant that lasts holds others up");
    ok(answer.durable && answer.known.version == 3 && x.state.value.version == 1, "what is chosen it notes all the same");
}

static void grant(struct lease *lease, const char *voters, int64_t sent) {
    for (; *voters; voters++) {
        char name[2] = {*voters};
        uint8_t id[16];
        memset(id, *voters, sizeof id);
        lease_granted(lease, name, id, sent);
    }
}

/* The new list may be chosen, and a majority of it found free, before the holder hears of it. */
static void lease_between_two_lists(void) {
    struct lease lease;
    struct register_value old = value_with(1, 1, "a", "abw"), new = value_with(2, 1, "a", "bwx"), four = value_with(3, 1, "a", "bwxy"),
                          other = value_with(2, 1, "a", "awy"), same = value_with(2, 1, "a", "abw");
    lease_begin(&lease, &old, 7, LEASE);
    grant(&lease, "ab", 100);
    is_int(100 + LEASE, lease_until(&lease), "a majority has granted it");
    ok(lease_backed(&lease, 200), "so the list may change");
    ok(!lease_may_propose(&lease, &new), "not to one of which one voter of three guards it");
    grant(&lease, "w", 99);
    ok(!lease_may_propose(&lease, &new), "nor when the second has granted less than was reached");
    grant(&lease, "w", 100);
    ok(lease_may_propose(&lease, &new), "but when two of three have granted all of it");
    lease_proposed(&lease, &new);
    is_int(100 + LEASE, lease_until(&lease), "what was reached stays");
    grant(&lease, "aw", 150);
    grant(&lease, "b", 120);
    is_int(120 + LEASE, lease_until(&lease), "more is what majorities of both lists have granted");
    grant(&lease, "ab", 200);
    is_int(150 + LEASE, lease_until(&lease), "one of the old list alone adds nothing while another one may be chosen");
    grant(&lease, "x", 200);
    is_int(200 + LEASE, lease_until(&lease), "one of the new one does, together with it");
    grant(&lease, "wx", 300);
    is_int(200 + LEASE, lease_until(&lease), "but not alone");
    /* The new list may have been left with some voters, and be completed by another node that nobody holds up for a moment. */
    ok(lease_unsettled(&lease) && !lease_may_propose(&lease, &other), "a third list waits until that is known");
    ok(lease_may_propose(&lease, &new) && lease_may_propose(&lease, &same), "either of these two does not");
    lease_voters(&lease, &new);
    is_int(300 + LEASE, lease_until(&lease), "until it is chosen");
    ok(!lease_unsettled(&lease) && lease_may_propose(&lease, &four), "then another one may follow: two of four keep the others from a majority");
    lease_proposed(&lease, &four);
    lease_voters(&lease, &four);
    is_int(300 + LEASE, lease_until(&lease), "a longer list takes nothing away");
    ok(!lease_backed(&lease, 400), "but the next one has to wait");
    grant(&lease, "y", 400);
    ok(lease_backed(&lease, 500) && lease_until(&lease) == 300 + LEASE, "until a majority of this one has granted as much");
    ok(lease_holds(&lease, 299 + LEASE) && !lease_holds(&lease, 300 + LEASE) && lease_until(&lease) == INT64_MIN, "it ends for ever");
}

/* The list that was proposed is not the one that is chosen; and lists of one and two. */
static void lease_of_few(void) {
    struct lease lease;
    struct register_value one = value_with(1, 1, "a", "a"), another = value_with(2, 1, "a", "x"), two = value_with(2, 1, "a", "ax"),
                          kept = value_with(2, 1, "a", "a"), gone = value_with(3, 1, "a", "x");
    lease_begin(&lease, &one, 7, LEASE);
    grant(&lease, "a", 100);
    ok(!lease_may_propose(&lease, &another), "the only voter is not replaced");
    lease_proposed(&lease, &two);
    lease_voters(&lease, &kept);
    ok(!lease_unsettled(&lease), "another value of the same version settles that a list was not chosen");
    two.version = 3;
    gone.version = 4;
    lease_proposed(&lease, &two);
    lease_voters(&lease, &two);
    ok(!lease_may_propose(&lease, &gone), "who was added has to grant");
    grant(&lease, "x", 100);
    ok(lease_may_propose(&lease, &gone), "before the other one can go");
}

/* ---- Two holders ----------------------------------------------------------------------------------------------------- */

static struct voter cast[5];
#define CAST "abwxy"

static struct voter *voter_of(char name) {
    return &cast[strchr(CAST, name) - CAST];
}

/* Asks those in `reach`, until no more of them is asked. */
static void ask_voters(struct change *change, const char *from, const char *reach, int64_t now) {
    bool to_accept = change->state == CHANGE_ACCEPT;
    const struct register_voter *listed;
    struct voter_answer answer;
    enum change_state before = change->state;
    for (unsigned i = 0; change->state == before && (listed = change_voter(change, i)) != NULL; i++) {
        if (!strchr(reach, listed->name[0]))
            continue;
        if (to_accept)
            voter_accept(voter_of(listed->name[0]), from, change->ballot, &change->next, &change->known, now, &answer);
        else
            voter_prepare(voter_of(listed->name[0]), from, change->ballot, change->birth, now, &answer);
        change_answer(change, listed->name, &answer, to_accept);
    }
}

/* Grants of those for the lease. */
static void renew_by(struct lease *lease, const char *holder, const char *voters, int64_t now) {
    for (; *voters; voters++) {
        struct voter_answer answer;
        char name[2] = {*voters};
        voter_renew(voter_of(*voters), holder, lease->epoch, lease->session, now, &answer);
        if (answer.verdict == VOTER_YES)
            lease_granted(lease, name, answer.id, now);
    }
}

/* Becomes primary with those voters, if they let it, knowing that value; what is half done is completed first. */
static bool rise(struct lease *lease, const char *node, const struct register_value *known, const char *reach, int64_t now) {
    static uint64_t ballots = 100;
    struct change change;
    change_begin(&change, known, (struct ballot){ballots += 10, 0}, 2);
    for (unsigned tries = 0; tries < 5; tries++) {
        ask_voters(&change, node, reach, now);
        if (change.state == CHANGE_READ) {
            struct register_value next = change.present;
            bool done = change.present.version == change.known.version;
            next.version++;
            next.epoch = EPOCH_MAKE(EPOCH_COUNTER(next.epoch) + 1, node[0]);
            snprintf(next.primary, sizeof next.primary, "%s", node);
            change_next(&change, done ? &next : NULL);
            ask_voters(&change, node, reach, now);
            if (change.state == CHANGE_CHOSEN && done) {
                lease_begin(lease, &change.next, 1, LEASE);
                renew_by(lease, node, reach, now);
                return lease_holds(lease, now);
            }
        }
        if (change.state != CHANGE_CHOSEN && change.state != CHANGE_ANEW)
            return false;
        change_again(&change);
    }
    return false;
}

/* The third version is chosen, among a, b and w; x has been a voter before, or never. */
static void begin_cast(struct register_value *first, bool was_voter, int64_t now) {
    struct voter_answer answer;
    struct register_value none = {.version = 0}, long_ago = value_with(1, 1, "a", "abx");
    *first = value_with(3, 1, "a", "abw");
    for (unsigned i = 0; i < sizeof cast / sizeof *cast; i++)
        begin_voter(&cast[i], CAST[i], now);
    for (const char *at = "abx"; was_voter && *at; at++)
        voter_accept(voter_of(*at), "a", (struct ballot){1, 1}, &long_ago, &none, now, &answer);
    for (const char *at = "abw"; *at; at++)
        voter_accept(voter_of(*at), "a", (struct ballot){3, 1}, first, &none, now, &answer);
}

static bool accepted_by(const char *voters, const struct register_value *value, const struct register_value *known, int64_t now) {
    struct voter_answer answer;
    unsigned own = 0, before = 0;
    for (; *voters; voters++) {
        struct voter *voter = voter_of(*voters);
        voter_accept(voter, "a", (struct ballot){4, 1}, value, known, now, &answer);
        own += register_voter_of(value, voter->name, voter->state.id) >= 0;
        before += register_voter_of(known, voter->name, voter->state.id) >= 0;
    }
    return own > value->voter_count / 2 && before > known->voter_count / 2;
}

/* a's lease is granted by itself and w, whom x replaces, and x misses that. b misses the renewals: it and x are a majority of the
 * new list, and hold nobody up. */
static void replaced_by_one_that_hears_nothing(void) {
    for (unsigned was_voter = 0; was_voter < 2; was_voter++) {
        struct lease a, b;
        struct register_value first, second = value_with(4, 1, "a", "abx");
        int64_t now = 100 * LEASE;
        begin_cast(&first, was_voter, 0);
        lease_begin(&a, &first, 1, LEASE);
        renew_by(&a, "a", "aw", now);
        ok(lease_holds(&a, now) && !lease_may_propose(&a, &second), "a list of which one in three guards the lease is not proposed");
        accepted_by("ab", &second, &first, now);
        ok(rise(&b, "b", &second, "bx", now + 10), "for if it were, another one would get in by those that hold nobody up");
    }
}

/* x's list was left with w and x, and y's with y. Another node completes x's, with voters that are free one after the other,
 * while a and w, who are no majority of it, grant the lease. */
static void third_list_while_one_is_half_done(void) {
    struct lease a, b;
    struct change change;
    struct voter_answer answer;
    struct register_value first, second = value_with(4, 1, "a", "abx"), third = value_with(4, 1, "a", "awy");
    begin_cast(&first, false, -10 * LEASE);
    lease_begin(&a, &first, 1, LEASE);
    renew_by(&a, "a", "abw", 0);
    lease_proposed(&a, &second);
    accepted_by("wx", &second, &first, 0);
    bool may = lease_may_propose(&a, &third);
    ok(!may, "a third list is not proposed while the second may be chosen");
    if (may)
        lease_proposed(&a, &third);
    voter_accept(voter_of('y'), "a", (struct ballot){5, 1}, &third, &first, 0, &answer);
    renew_by(&a, "a", "aw", LEASE * 9 / 10);
    change_begin(&change, &first, (struct ballot){50, 0}, 2);
    ask_voters(&change, "b", "b", LEASE * 115 / 100);
    renew_by(&a, "a", "aby", LEASE * 12 / 10);
    ask_voters(&change, "b", "wx", LEASE * 205 / 100);
    is_int(CHANGE_READ, change.state, "another node reads what was left half done");
    change_next(&change, NULL);
    ask_voters(&change, "b", "wx", LEASE * 205 / 100);
    renew_by(&a, "a", "aw", LEASE * 21 / 10);
    ask_voters(&change, "b", "b", LEASE * 235 / 100);
    is_int(CHANGE_CHOSEN, change.state, "and completes it");
    renew_by(&a, "a", "aw", LEASE * 30 / 10);
    ok(rise(&b, "b", &change.next, "bx", LEASE * 32 / 10), "which lets it in, when x is silent no more");
    ok(lease_until(&a) < LEASE * 32 / 10, "the lease had ended, though the holder has not heard of that");
}

static const char *subset(unsigned of, const char *voters, char text[8]) {
    unsigned length = 0;
    for (; *voters; voters++, of >>= 1)
        if (of & 1)
            text[length++] = *voters;
    text[length] = '\0';
    return text;
}

/* All of these: who has granted, how the list changes, who accepts that, whether the holder hears of it and renews by whom,
 * what the challenger knows and whom it reaches. */
static void changed_while_held(void) {
    static const char *const lists[] = {"abx", "axw", "xbw", "abwx", "ab", "aw", "bw"};
    unsigned refused = 0, proposed = 0, second_holders = 0, successors = 0, runs = 0;
    for (unsigned list = 0; list < sizeof lists / sizeof *lists; list++)
        for (unsigned way = 0; way < 1u << 17; way++) {
            unsigned grants = way & 7, accepts = way >> 3 & 15, heard = way >> 7 & 1, again = way >> 8 & 15, reach = way >> 12 & 15,
                     knows = way >> 16 & 1, was_voter = (way ^ way >> 4 ^ way >> 8) & 1;
            struct lease a, b;
            struct register_value first, second = value_with(4, 1, "a", lists[list]);
            char text[8];
            int64_t now = 100 * LEASE;
            begin_cast(&first, was_voter, 0);
            lease_begin(&a, &first, 1, LEASE);
            renew_by(&a, "a", subset(grants, "abw", text), now);
            if (!lease_holds(&a, now))
                continue;
            now += LEASE / 2;
            bool may = lease_may_propose(&a, &second);
            refused += !may;
            proposed += may;
            if (!may)
                continue;
            lease_proposed(&a, &second);
            bool chosen_now = accepted_by(subset(accepts, "abwx", text), &second, &first, now);
            if (chosen_now && heard)
                lease_voters(&a, &second);
            renew_by(&a, "a", subset(again, "abwx", text), now + 1);
            runs++;
            int64_t until = lease_until(&a);
            for (int64_t at = now + 2; at < until && second_holders == 0; at += LEASE / 4)
                second_holders += rise(&b, "b", chosen_now && knows ? &second : &first, subset(reach, "abwx", text), at);
            if (second_holders == 1)
                diag("list %s, way %x", lists[list], way);
            if (second_holders)
                goto out;
            successors += rise(&b, "b", chosen_now && knows ? &second : &first, subset(reach, "abwx", text), now + 5 * LEASE);
        }
out:
    ok(second_holders == 0, "in %u histories of a list that changes nobody gets in while the lease is held", runs);
    ok(successors > runs / 8, "after it, others do (%u)", successors);
    ok(refused > 0 && proposed > 0, "some lists were proposed (%u), some were not (%u)", proposed, refused);
}

static void promise(struct change *change, char voter, const struct register_value *accepted, struct ballot ballot,
                    const struct register_value *known) {
    struct voter_answer answer = {.verdict = VOTER_YES, .promised = change->ballot, .accepted = ballot, .value = *accepted, .known = *known};
    char name[2] = {voter};
    memset(answer.id, voter, sizeof answer.id);
    change_answer(change, name, &answer, false);
}

/* The list that a proposer knows is that of a value left half done, and there was another one between. */
static void half_done_back_to_an_old_list(void) {
    struct change change;
    struct register_value first = value_with(4, 1, "a", "abw"), between = value_with(6, 1, "a", "xbw"), half = value_with(7, 1, "a", "abw"),
                          before = value_with(5, 1, "a", "xbw");
    change_begin(&change, &first, (struct ballot){7, 1}, 2);
    promise(&change, 'a', &before, (struct ballot){5, 1}, &first);
    is_int(CHANGE_PREPARE, change.state, "one of three has promised");
    promise(&change, 'b', &half, (struct ballot){7, 1}, &between);
    is_int(CHANGE_ANEW, change.state, "who is told of a list between begins anew");
    change_again(&change);
    is_int(6, change.known.version, "from that one");
    promise(&change, 'b', &half, (struct ballot){7, 1}, &between);
    promise(&change, 'w', &between, (struct ballot){6, 1}, &before);
    is_int(CHANGE_READ, change.state, "of whose list, and of that of what is half done, a majority promises");
    is_int(7, change.present.version, "and what is half done is proposed");
    ok(change.known.version < change.present.version, "as it is, for nobody knows that it is chosen");
}

/* Of the list that is known nobody is left; somebody who is in none of it tells of the newest. */
static void known_list_is_gone(void) {
    struct change change;
    struct register_value old = value_with(3, 1, "a", "abw"), new = value_with(9, 1, "a", "xyz");
    struct voter_answer answer = {.verdict = VOTER_YES, .known = new, .value = new, .accepted = {9, 1}};
    memset(answer.id, 'x', sizeof answer.id);
    change_begin(&change, &old, (struct ballot){0, 0}, 2);
    answer.promised = change.ballot;
    is_int(CHANGE_ANEW, change_answer(&change, "x", &answer, false), "a voter of no list that is known tells of the newest one");
    change_again(&change);
    is_int(9, change.known.version, "which is where to ask");
}

int main(void) {
    plan_lazy();
    voter_that_is_one_again();
    voter_that_missed_the_successor();
    voter_that_was_away();
    lease_between_two_lists();
    lease_of_few();
    half_done_back_to_an_old_list();
    replaced_by_one_that_hears_nothing();
    third_list_while_one_is_half_done();
    changed_while_held();
    known_list_is_gone();
    return 0;
}
