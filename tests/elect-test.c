/* Who stands, who goes first, who may not: replication/elect.c, in virtual time. */
#include "replication/elect.h"
#include "tests/tap.h"

#include <string.h>

#define MS ((int64_t)1000000)
#define LEASE (2000 * MS)

static struct elect_view make_view(unsigned count) {
    static const char *const names[] = {"a", "b", "c"};
    struct elect_view view = {.self = 0, .count = count, .preferred = -1, .last_primary = -1, .fit = true, .reaches_start = true,
                              .version = 7};
    for (unsigned i = 0; i < count; i++) {
        view.nodes[i] = (struct elect_node){.name = names[i], .named = true, .member = true, .answered = true, .heard = true,
                                            .epoch = EPOCH_MAKE(3, 1), .lsn = 100};
        view.birth |= i ? 1u << i : 0;
    }
    return view;
}

static bool why_has(const struct elect *elect, const char *word) {
    for (unsigned i = 0; i < elect->why_count; i++)
        if (strstr(elect->why[i], word))
            return true;
    return false;
}

static void silence(void) {
    struct elect elect;
    int64_t now = 1000 * MS;
    elect_start(&elect, LEASE, now);
    ok(!elect_due(&elect, false, now), "a node that has just started does not look at once");
    elect_heard(&elect, now);
    ok(elect.state == ELECT_FOLLOWS && elect.why_count == 0, "a primary is heard");
    ok(!elect_due(&elect, false, now + LEASE - 1), "before the lease time nothing is asked");
    is_int(ELECT_SILENT, elect.state, "but it is said that the primary is silent");
    ok(elect_due(&elect, false, now + LEASE), "after it, the voters are");
    elect_heard(&elect, now);
    ok(elect_due(&elect, true, now + 1), "whom the register names need not wait");
    elect_freed(&elect);
    ok(elect_due(&elect, false, now + 1), "a lease that was given back is looked at once");
    elect_heard(&elect, now + 2);
    ok(elect_due(&elect, false, now + 2), "also when the last word of its holder comes after that");
    elect_value(&elect, false, false, now + 3);
    ok(!elect_due(&elect, false, now + 3), "a newer value: its primary has time to begin");
    elect_freed(&elect);
    ok(elect_due(&elect, false, now + 3), "in an epoch that has begun, a lease that is given back is looked at");
    elect_value(&elect, true, true, now + 4);
    ok(!elect_due(&elect, true, now + 4), "it names this node: a handover's word is on its way");
    elect_freed(&elect);
    ok(!elect_due(&elect, true, now + 5), "also when the lease is given back to it");
    ok(elect_due(&elect, true, now + 4 + LEASE / 2), "which is not waited for for ever");
    elect_value(&elect, false, true, now + 5);
    elect_freed(&elect);
    ok(!elect_due(&elect, false, now + 5 + LEASE / 2), "it names another node: what is given back is the lease before");
    ok(elect_due(&elect, false, now + 5 + LEASE), "that node's time to begin has an end, too");
    elect_value(&elect, false, true, now + 6);
    elect_freed(&elect);
    elect_heard(&elect, now + 7);
    ok(!elect_due(&elect, false, now + 8), "it has begun: it is followed");
    elect_freed(&elect);
    ok(elect_due(&elect, false, now + 8), "and what is given back is its lease");
    elect_ceased(&elect, "its disk has gone", now);
    ok(elect.why_count == 1 && strstr(elect.why[0], "its disk has gone"), "who has ceased says why");
    elect_freed(&elect);
    ok(!elect_due(&elect, true, now + LEASE - 1), "who has just lost the lease lets others go first");
    ok(elect_due(&elect, true, now + LEASE), "for a lease time");
}

static void voters(void) {
    struct elect elect;
    elect_start(&elect, LEASE, 0);
    elect_freed(&elect);
    ok(!elect_voters(&elect, -EBUSY, "b", 300 * MS, 0), "somebody holds the lease: nothing is proposed");
    ok(elect.state == ELECT_HELD && why_has(&elect, "node b holds the lease"), "and it is said who");
    ok(elect_due(&elect, false, 20 * MS), "voters hear one after the other that it was given back: it is asked again soon");
    for (unsigned i = 0; i < 100; i++)
        elect_voters(&elect, -EBUSY, "b", 300 * MS, 0);
    ok(!elect_due(&elect, false, 300 * MS - 1), "but not for ever: the voters say how long");
    ok(!elect_due(&elect, false, 300 * MS), "what was freed is forgotten then");
    ok(elect_due(&elect, false, LEASE), "silence counts");
    elect_voters(&elect, -EBUSY, "", INT64_MAX / 2, 0);
    ok(why_has(&elect, "just started"), "voters that have just started");
    ok(elect_due(&elect, true, LEASE / 2), "however long they say, it is asked again");
    ok(!elect_voters(&elect, -ENOTCONN, "", 0, LEASE), "no majority");
    ok(elect.state == ELECT_ALONE && why_has(&elect, "no majority"), "is said");
    ok(elect_voters(&elect, 0, "", 0, LEASE), "nobody holds it: go on");
}

static void who_is_first(void) {
    struct elect elect;
    struct elect_view view = make_view(3);
    elect_start(&elect, LEASE, 0);
    ok(elect_judge(&elect, &view, 0), "of equals, the first one in the config runs");
    is_int(6, elect_keeps(&view), "who has answered stays in the set");
    view.nodes[1].lsn = 101;
    ok(!elect_judge(&elect, &view, 0), "who has more goes first");
    ok(elect.state == ELECT_YIELDS && why_has(&elect, "node b goes first: it has more records"), "and that is said");
    ok(!elect_due(&elect, false, 99 * MS), "for a moment");
    ok(elect_due(&elect, false, LEASE) && elect_judge(&elect, &view, LEASE), "if nothing comes of it, this one runs");
    view.nodes[1].epoch = EPOCH_MAKE(2, 9);
    ok(elect_judge(&elect, &view, 0), "records of an older epoch are not more, however many");
    view.nodes[1].epoch = view.nodes[0].epoch;
    view.nodes[1].answered = false;
    ok(elect_judge(&elect, &view, 0), "who does not answer is not waited for");
    is_int(4, elect_keeps(&view), "and leaves the set");
    view.nodes[1].answered = true;
    view.nodes[1].member = false;
    ok(elect_judge(&elect, &view, 0), "nor is another store than the set's");
    is_int(4, elect_keeps(&view), "which is not kept");
    view.nodes[1].member = true;
    view.nodes[1].primary = true;
    view.last_primary = 1;
    ok(elect_judge(&elect, &view, 0), "nor is one that does not know yet that its lease has ended");
    is_int(4, elect_keeps(&view), "which is not kept, either");
    view = make_view(3);
    view.nodes[1].lsn = 101;
    view.nodes[1].sick = true;
    ok(elect_judge(&elect, &view, 0), "nor is one whose disk does not answer");
    is_int(4, elect_keeps(&view), "which is not kept, either");
    view = make_view(3);
    view.preferred = 2;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "node c goes first: it is the preferred one"), "of equals, the preferred one");
    view.nodes[0].lsn = 101;
    elect_start(&elect, LEASE, 0);
    ok(elect_judge(&elect, &view, 0), "of others, not");
    view = make_view(2);
    view.nodes[0].stays = true;
    view.nodes[0].lsn = 200;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "stay standby"), "one that shall stay standby lets another one go first");
    ok(!elect_due(&elect, true, 2 * LEASE - 1) && elect_due(&elect, true, 2 * LEASE), "for two lease times");
    view.nodes[1].answered = false;
    elect_start(&elect, LEASE, 0);
    ok(elect_judge(&elect, &view, 0), "if there is another one");
    view.fit = false;
    ok(!elect_judge(&elect, &view, 0) && elect.state == ELECT_BARRED && why_has(&elect, "disk"), "a sick store does not run");
}

static void after_a_loss(void) {
    struct elect elect;
    struct elect_view view = make_view(2);
    elect_start(&elect, LEASE, 0);
    view.nodes[0].named = view.nodes[0].member = false;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "not in the in-sync set"), "who is not in the set does not run");
    view.nodes[0].named = true;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "node b has them"), "another store of a member: not while a member is there");
    view.nodes[1].member = false;
    elect_start(&elect, LEASE, 0);
    ok(elect_judge(&elect, &view, 0), "all of the set are other stores, and all are there: the first one runs");
    is_int(0, elect_keeps(&view), "with nobody beside it");
    view.nodes[1].lsn = 101;
    ok(!elect_judge(&elect, &view, 0) && !elect.yields_until, "not if another one has more, however long that one waits");
    view.nodes[1].lsn = 100;
    view.nodes[1].answered = false;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "node b, which may have them, does not answer"), "not if one is away");
    view.go = true;
    ok(elect_judge(&elect, &view, 0), "but where a person has said so");
    view.reaches_start = false;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "lacks what the present epoch began with"), "never an emptied store");
}

static void birth(void) {
    struct elect elect;
    struct elect_view view = make_view(2);
    elect_start(&elect, LEASE, 0);
    view.version = 0;
    for (unsigned i = 0; i < 2; i++) {
        view.nodes[i].named = view.nodes[i].member = false;
        view.nodes[i].lsn = 0;
        view.nodes[i].epoch = 0;
    }
    ok(elect_judge(&elect, &view, 0), "two new nodes: the first one begins the volume");
    view.self = 1;
    view.birth = 1;
    ok(!elect_judge(&elect, &view, 0) && elect.state == ELECT_YIELDS, "the other one waits for it");
    view.first = true;
    elect_start(&elect, LEASE, 0);
    ok(elect_judge(&elect, &view, 0), "but if a person has said that it is to begin");
    view.nodes[0].answered = false;
    ok(elect_judge(&elect, &view, 0), "that one need not wait for others");
    view.first = false;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "node a does not answer yet"), "else all have to be there");
    view.nodes[0].answered = true;
    view.nodes[0].lsn = 5;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "node a has data"), "an empty store begins nothing over another one's data");
    view.nodes[1].lsn = 5;
    ok(!elect_judge(&elect, &view, 0) && why_has(&elect, "was not primary"), "nor does one with data that was not primary");
    view.first = true;
    ok(elect_judge(&elect, &view, 0), "one that was does");
}

static void patience(void) {
    struct elect elect;
    struct elect_view view = make_view(2);
    elect_start(&elect, LEASE, 0);
    is_int(150, elect_patience(&elect, &view, 5000 * MS) / MS, "nodes that were there a moment ago answer soon");
    view.nodes[1].heard = false;
    is_int(2000, elect_patience(&elect, &view, 0) / MS, "one that was never heard may be starting, as this one is");
    is_int(150, elect_patience(&elect, &view, 5000 * MS) / MS, "but not for ever");
}

static void pauses(void) {
    struct elect elect;
    elect_start(&elect, LEASE, 0);
    elect_voters(&elect, 0, "", 0, 0);
    int64_t least = INT64_MAX, most = 0;
    for (uint64_t random = 0; random < 100; random++) {
        elect_failed(&elect, random * 0x9e3779b97f4a7c15u, 0);
        least = MIN(least, elect.not_before);
        most = MAX(most, elect.not_before);
    }
    ok(least > 0 && most <= LEASE / 2 && most - least > LEASE / 8, "pauses differ: %lld to %lld ms", (long long)(least / MS),
       (long long)(most / MS));
    ok(!elect_due(&elect, false, elect.not_before - 1) && elect_due(&elect, false, elect.not_before), "then it is tried again");
}

int main(void) {
    plan_lazy();
    silence();
    voters();
    who_is_first();
    after_a_loss();
    birth();
    patience();
    pauses();
    return 0;
}
