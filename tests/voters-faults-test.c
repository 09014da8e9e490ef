/* What the register with voters bears: births left half done, voters that are away, restart, lose their disk, come and go,
 * outcomes that are unknown, bad lines and wrong answers. The contract of all engines is in voters-contract-test.
 */
#include "membership/voters.h"
#include "tests/voter-rig.h"

#include <pthread.h>
#include <unistd.h>

#define MS INT64_C(1000000)

static struct rig *rig;
static struct contract contract;

enum { A = 0, B = 1, C = 2, D = 3 };
#define LONG_LEASE 120000u
#define SHORT_LEASE 1000u
#define STEADY_LEASE 3000u /* where it has to last, on a machine that has much else to do */
#define BIT(type) (1u << (type))

static void open_two(struct contract_node *a, struct contract_node *b, uint32_t lease_ms) {
    rig->config.node_count = 2;
    contract.fresh(rig, lease_ms);
    node_open(a, &contract, A);
    node_open(b, &contract, B);
}

static const char *why_of(const struct lease_view *view, const char *voter) {
    for (unsigned i = 0; i < view->count; i++)
        if (strcmp(view->voters[i].name, voter) == 0)
            return view->voters[i].why;
    return "it is not there";
}

static int settle(struct contract_node *n, int to, uint64_t mark) {
    struct register_value next = value_after(n, to, mark);
    int rc = register_settle(n->reg, &n->value, &next);
    if (rc == 0)
        n->value = next;
    return rc;
}

/* ---- Birth ----------------------------------------------------------------------------------------------------------- */

static void who_votes_at_birth(void) {
    struct config config = {.node_count = 2, .has_witness = true};
    const char *names[REGISTER_VOTERS_MAX];
    for (unsigned i = 0; i < 4; i++)
        snprintf(config.nodes[i].name, sizeof config.nodes[i].name, "n%u", i);
    snprintf(config.witness.name, sizeof config.witness.name, "witness");
    ok(voters_at_birth(&config, names) == 3 && strcmp(names[2], "witness") == 0, "two nodes and the witness vote");
    config.node_count = 3;
    ok(voters_at_birth(&config, names) == 3 && strcmp(names[2], "n2") == 0, "of three nodes and a witness, the nodes");
    snprintf(config.spare, sizeof config.spare, "n1");
    ok(voters_at_birth(&config, names) == 3 && strcmp(names[1], "n2") == 0 && strcmp(names[2], "witness") == 0, "a spare does not");
    config.node_count = 4;
    config.spare[0] = '\0';
    is_int(5, voters_at_birth(&config, names), "four nodes and the witness are five");
}

static void birth_needs_everybody(void) {
    struct contract_node a, b;
    open_two(&a, &b, SHORT_LEASE);
    rig_end(rig, RIG_WITNESS);
    struct register_value next = value_after(&a, A, 1), expected = a.value;
    is_int(-ENOTCONN, a.engine->change(a.reg, &expected, &next), "without the witness a volume is not born");
    is_int(0, a.engine->read(a.reg, &a.value), "the others answer");
    is_int(0, a.value.version, "that there is no value");
    rig_start(rig, RIG_WITNESS);
    ok(WITHIN(60, settle(&a, A, 1) == 0), "with it, it is");
    is_int(0, a.engine->read(a.reg, &a.value), "read back");
    ok(a.value.voter_count == 3 && register_voter_of(&a.value, "witness", rig_state(rig, RIG_WITNESS).id) >= 0, "with the three voters in the value");
    node_close(&a);
    node_close(&b);
}

/* Who had tried dies when some had accepted. */
static void birth_left_half_done(unsigned accepted) {
    struct contract_node a, b;
    open_two(&a, &b, SHORT_LEASE);
    rig_types(rig, RIG_WITNESS, BIT(ASK_ACCEPT), 0);
    for (unsigned i = accepted; i < 2; i++)
        rig_types(rig, i, BIT(ASK_ACCEPT), 0);
    struct register_value next = value_after(&a, A, 31), expected = a.value;
    is_int(-EINPROGRESS, a.engine->change(a.reg, &expected, &next), "a birth that %u of 3 voters have accepted is unknown", accepted);
    node_close(&a);
    rig_types(rig, RIG_WITNESS, 0, 0);
    rig_types(rig, A, 0, 0);
    rig_types(rig, B, 0, 0);
    int rc = 0;
    ok(WITHIN(60, (rc = settle(&b, B, 32)) == 0 || rc == -ESTALE), "the other node settles it");
    is_int(accepted ? -ESTALE : 0, rc, "%s", accepted ? "by completing it" : "with its own");
    is_int(0, b.engine->read(b.reg, &b.value), "read back");
    ok(b.value.version == 1 && b.value.start_lsn == (accepted ? 31 : 32), "the one that was begun, if anybody had it");
    node_open(&a, &contract, A);
    a.value = (struct register_value){.version = 0};
    rc = register_settle(a.reg, &a.value, &next);
    is_int(accepted ? 0 : -ESTALE, rc, "and the first one, back, is told the same");
    node_close(&a);
    node_close(&b);
}

/* ---- Voters that are away, restart, lose their disk ------------------------------------------------------------------ */

static void one_dead_then_restarted(void) {
    struct contract_node a, b;
    struct lease_view view;
    char holder[64];
    int64_t wait = 0;
    open_two(&a, &b, STEADY_LEASE);
    if (!node_rises(&a))
        return;
    rig_end(rig, RIG_WITNESS);
    int64_t until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + STEADY_LEASE * MS), "with one of three voters dead the lease goes on");
    is_int(0, settle(&a, -1, 41), "and so do changes");
    is_int(0, b.engine->read(b.reg, &b.value), "and reads");
    ok(b.value.start_lsn == 41, "of the newest value");
    ok(WITHIN(60, (a.lease->view(a.reg, &view), strcmp(why_of(&view, "witness"), "it does not answer") == 0)), "status says who does not answer");
    rig_end(rig, B);
    rig_start(rig, B);
    until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + STEADY_LEASE * MS), "a voter that starts anew serves the holder at once");
    is_int(0, atomic_load(&a.lost), "and nothing was lost");
    rig_end(rig, A);
    ok(WITHIN(60, atomic_load(&a.lost) == 1), "with two of three dead, it is");
    is_int(INT64_MIN, atomic_load(&a.shared.until), "and not held");
    is_int(-ENOTCONN, a.engine->read(a.reg, &a.value), "nobody can read");
    ok(a.value.start_lsn == 41, "more than what is known here");
    ok(settle(&b, B, 42) != 0, "or change");
    rig_start(rig, A);
    int64_t asked = 0;
    ok(WITHIN(60, (asked = clock_boot(), b.lease->free(b.reg, holder, &wait) == -EBUSY)) && wait > 0, "a voter that has just started lets nobody in yet");
    int64_t quiet = asked + wait; /* it answered later than that */
    ok(WITHIN(60, b.lease->free(b.reg, holder, &wait) == 0) && clock_boot() >= quiet, "until a lease that it forgot has run out");
    ok(node_rises(&b), "then the other node gets it");
    node_close(&a);
    node_close(&b);
}

/* Voters that hear the renewals, and whose grants do not arrive. */
static void lease_that_nobody_grants(void) {
    struct contract_node a, b;
    open_two(&a, &b, SHORT_LEASE);
    ok(WITHIN(60, settle(&a, A, 44) == 0), "a value names a");
    for (unsigned i = 0; i < RIG_VOTERS; i++)
        rig_types(rig, i, 0, BIT(ASK_RENEW));
    unsigned before = rig_asked(rig, RIG_WITNESS, ASK_RENEW);
    int64_t taken = clock_boot();
    is_int(0, a.lease->take(a.reg, &a.value), "which asks for the lease");
    bool held = false;
    ok(WITHIN(60, (held = held || node_holds(&a), atomic_load(&a.lost) == 1)) && !held, "that nobody grants");
    int64_t took = clock_boot() - taken, least = 2 * SHORT_LEASE * MS + VOTERS_TAKE_MORE;
    ok(took >= least, "for twice its time and two seconds (%lld ms)", (long long)(took / MS));
    unsigned asked = rig_asked(rig, RIG_WITNESS, ASK_RENEW) - before;
    ok(asked > 4 && asked <= 8 + (unsigned)(took / (SHORT_LEASE / 4 * MS)), "less and less often (%u times)", asked);
    is_int(-EALREADY, a.lease->take(a.reg, &a.value), "and not again in this epoch");
    usleep(SHORT_LEASE * 1000); /* what is on its way arrives */
    asked = rig_asked(rig, RIG_WITNESS, ASK_RENEW);
    usleep(SHORT_LEASE * 1000);
    is_int(asked, rig_asked(rig, RIG_WITNESS, ASK_RENEW), "nor asked for any more");
    node_close(&a);
    node_close(&b);
}

/* The holder is cut from a majority, which lets another one in: not before the holder has stopped. */
static void cut_from_the_majority(void) {
    struct contract_node a, b;
    open_two(&a, &b, SHORT_LEASE);
    if (!node_rises(&a))
        return;
    struct register_value old = a.value;
    rig_cut(rig, B, "a");
    rig_cut(rig, RIG_WITNESS, "a");
    int64_t last = INT64_MIN, risen = INT64_MAX, deadline = clock_boot() + 60000 * MS;
    while (risen == INT64_MAX && clock_boot() < deadline) {
        int64_t until = atomic_load(&a.shared.until);
        last = MAX(last, until);
        if (b.engine->read(b.reg, &b.value) == 0 && settle(&b, B, 43) == 0)
            risen = clock_boot();
    }
    ok(risen != INT64_MAX && risen >= last, "a challenger gets in when the lease of one who is cut off has run out, and not before");
    ok(WITHIN(60, atomic_load(&a.lost) == 1) && !node_holds(&a), "which that one knows");
    is_int(-ENOTCONN, a.engine->read(a.reg, &a.value), "it does not see the majority");
    is_int(-EALREADY, a.lease->take(a.reg, &old), "nor takes the lease again");
    is_int(0, b.lease->take(b.reg, &b.value), "the other one takes it");
    ok(WITHIN(60, node_holds(&b)), "and holds");
    rig_cut(rig, B, "");
    rig_cut(rig, RIG_WITNESS, "");
    ok(WITHIN(60, a.engine->read(a.reg, &a.value) == 0) && strcmp(a.value.primary, "b") == 0, "back, it reads who is primary");
    is_int(1, atomic_load(&a.lost), "and was told of its loss once");
    node_close(&a);
    node_close(&b);
}

static bool answers(struct contract_node *n, const char *voter) {
    struct lease_view view;
    n->lease->view(n->reg, &view);
    for (unsigned i = 0; i < view.count; i++)
        if (strcmp(view.voters[i].name, voter) == 0)
            return view.voters[i].answers;
    return false;
}

/* A standby asks its voters when it has to take over: the connection is then not to be one that a cut has spoiled. */
static void reached_again_before_it_is_asked(void) {
    struct contract_node a, b;
    open_two(&a, &b, STEADY_LEASE);
    if (!node_rises(&a))
        return;
    is_int(0, b.engine->read(b.reg, &b.value), "the other one reads");
    ok(WITHIN(60, answers(&b, "witness")), "and the witness answers it");
    rig_cut(rig, RIG_WITNESS, "b");
    ok(WITHIN(60, b.engine->read(b.reg, &b.value) == 0 && !answers(&b, "witness")), "which is cut off then");
    rig_cut(rig, RIG_WITNESS, "");
    ok(WITHIN(60, answers(&b, "witness")), "and answers again when it can, though nobody asks it");
    node_close(&a);
    node_close(&b);
}

static int edit(struct contract_node *n, enum voters_edit what, const char *name, bool even, char why[300]) {
    why[0] = '\0';
    int rc = n->lease->edit(n->reg, &n->value, what, name, even, why, 300);
    if (rc == -ESTALE)
        rc = n->lease->edit(n->reg, &n->value, what, name, even, why, 300);
    return rc;
}

static void disk_lost_and_let_in_again(void) {
    struct contract_node a, b;
    struct lease_view view;
    char why[300];
    open_two(&a, &b, STEADY_LEASE);
    if (!node_rises(&a))
        return;
    is_int(-EEXIST, edit(&a, VOTERS_REPLACE, "witness", false, why), "who is in the list is not replaced by itself (%s)", why);
    is_int(-EEXIST, edit(&a, VOTERS_ADD, "witness", false, why), "nor added (%s)", why);
    is_int(-ENOENT, edit(&a, VOTERS_REMOVE, "c", false, why), "who is not in it is not removed (%s)", why);
    is_int(-ENOENT, edit(&a, VOTERS_ADD, "nobody", true, why), "who is not in the config is not added (%s)", why);
    is_int(-EINVAL, edit(&a, VOTERS_REMOVE, "witness", false, why), "two voters are worse than three (%s)", why);
    is_int(0, b.engine->read(b.reg, &b.value), "the other node reads");
    is_int(-EPERM, edit(&b, VOTERS_REMOVE, "witness", true, why), "and may not change the list (%s)", why);
    rig_lose_disk(rig, RIG_WITNESS);
    ok(WITHIN(60, (a.lease->view(a.reg, &view), strstr(why_of(&view, "witness"), "lost its state") != NULL)), "a voter that has lost its disk is seen");
    ok(WITHIN(60, (a.lease->view(a.reg, &view), !view.voters[2].grants)), "and grants no more");
    is_int(-EAGAIN, edit(&a, VOTERS_REMOVE, "b", true, why), "what would leave no majority that answers is refused (%s)", why);
    rig_end(rig, B);
    ok(WITHIN(60, atomic_load(&a.lost) == 1), "it does not count: with another one dead, the lease is lost");
    rig_start(rig, B);
    if (!node_rises(&a))
        return;
    int rc = 0;
    ok(WITHIN(60, (rc = edit(&a, VOTERS_REPLACE, "witness", false, why)) != -EAGAIN) && rc == 0, "the primary lets it in again (%s)", why);
    ok(register_voter_of(&a.value, "witness", rig_state(rig, RIG_WITNESS).id) >= 0 && a.value.voter_count == 3, "with its new id");
    ok(WITHIN(60, (a.lease->view(a.reg, &view), view.voters[2].listed && view.voters[2].grants)), "it grants");
    rig_end(rig, B);
    int64_t until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + STEADY_LEASE * MS), "and counts");
    is_int(1, atomic_load(&a.lost), "nothing was lost by that");
    node_close(&a);
    node_close(&b);
}

/* Knows nothing but `old`, and the voters that live. */
static void finds_the_newest(const struct register_value *old, const struct register_value *newest, const char *how) {
    struct contract_node d;
    node_open(&d, &contract, D);
    d.engine->learn(d.reg, old);
    ok(WITHIN(60, d.engine->read(d.reg, &d.value) == 0) && d.value.version == newest->version, "who knows the first list finds the newest value %s", how);
    node_close(&d);
}

static void three_five_three(void) {
    struct contract_node a, b;
    char why[300];
    open_two(&a, &b, STEADY_LEASE);
    if (!node_rises(&a))
        return;
    struct register_value first;
    is_int(0, a.engine->read(a.reg, &first), "the first list is known");
    node_close(&a);
    node_close(&b);
    rig->config.node_count = 4; /* c and d have been set up meanwhile */
    rig_start(rig, C);
    rig_start(rig, D);
    node_open(&a, &contract, A);
    if (!node_rises(&a))
        return;
    is_int(-EINVAL, edit(&a, VOTERS_ADD, "c", false, why), "four voters are no better than three");
    is_int(0, edit(&a, VOTERS_ADD, "c", true, why), "unless a fifth one follows (%s)", why);
    is_int(0, edit(&a, VOTERS_ADD, "d", false, why), "as it does (%s)", why);
    is_int(5, a.value.voter_count, "there are five");
    struct register_value five = a.value;
    ok(node_holds(&a) && atomic_load(&a.lost) == 0, "the lease was never lost");
    rig_end(rig, A);
    rig_end(rig, RIG_WITNESS);
    int64_t until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + STEADY_LEASE * MS), "nor is it when two of them die");
    finds_the_newest(&first, &five, "though most of the first list is gone");
    rig_start(rig, A);
    rig_start(rig, RIG_WITNESS);
    is_int(0, edit(&a, VOTERS_REMOVE, "a", true, why), "one goes (%s)", why);
    is_int(0, edit(&a, VOTERS_REMOVE, "witness", false, why), "and another one (%s)", why);
    is_int(3, a.value.voter_count, "three are left");
    rig_end(rig, A);
    rig_end(rig, RIG_WITNESS);
    until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + STEADY_LEASE * MS), "the lease goes on without those that have left");
    is_int(0, settle(&a, -1, 51), "so do changes");
    finds_the_newest(&first, &a.value, "though only one of the first list is left");
    finds_the_newest(&five, &a.value, "who knows that of five, too");
    struct contract_node c;
    node_open(&c, &contract, C);
    c.engine->learn(c.reg, &first);
    a.lease->give_up(a.reg);
    ok(node_rises(&c), "a proposer that knows the first list alone becomes primary");
    is_int(a.value.version + 1, c.value.version, "over the newest value");
    node_close(&c);
    node_close(&a);
    rig_end(rig, C);
    rig_end(rig, D);
}

/* The witness, which has granted the lease together with a, is to be replaced; b would be left, and has not granted it: with the
 * new witness, which may not hear that it votes, it could let another one in. */
static void replaced_while_another_does_not_grant(void) {
    struct contract_node a, b;
    char why[300];
    int rc = 0;
    open_two(&a, &b, 30000); /* renewed every 7.5 s */
    rig_types(rig, B, BIT(ASK_RENEW), 0);
    if (!node_rises(&a))
        return;
    rig_lose_disk(rig, RIG_WITNESS);
    is_int(-EAGAIN, edit(&a, VOTERS_REPLACE, "witness", false, why), "not enough of those that stay grant the lease (%s)", why);
    is_int(0, rig_state(rig, RIG_WITNESS).value.version, "so nothing was sent to the new one");
    ok(node_holds(&a), "the lease goes on");
    rig_types(rig, B, 0, 0);
    ok(WITHIN(60, (rc = edit(&a, VOTERS_REPLACE, "witness", false, why)) != -EAGAIN) && rc == 0, "when they do, the list changes (%s)", why);
    ok(node_holds(&a) && atomic_load(&a.lost) == 0, "and the lease was never lost");
    node_close(&a);
    node_close(&b);
}

static void list_left_half_done(void) {
    struct contract_node a, b;
    char why[300];
    open_two(&a, &b, LONG_LEASE);
    if (!node_rises(&a))
        return;
    node_close(&a);
    node_close(&b);
    rig->config.node_count = 3; /* c has been set up meanwhile */
    rig_start(rig, C);
    node_open(&a, &contract, A);
    if (!node_rises(&a))
        return;
    rig_types(rig, A, BIT(ASK_ACCEPT), 0);
    rig_types(rig, B, BIT(ASK_ACCEPT), 0);
    is_int(-EINPROGRESS, edit(&a, VOTERS_REMOVE, "witness", true, why), "one voter has accepted a list (%s)", why);
    rig_types(rig, A, 0, 0);
    rig_types(rig, B, 0, 0);
    uint64_t version = a.value.version;
    is_int(-ESTALE, a.lease->edit(a.reg, &a.value, VOTERS_ADD, "c", true, why, sizeof why), "before another one is proposed (%s)", why);
    ok(a.value.version == version + 1 && strcmp(a.value.primary, "a") == 0, "it is settled");
    unsigned voters = a.value.voter_count;
    why[0] = '\0';
    is_int(0, a.lease->edit(a.reg, &a.value, VOTERS_ADD, "c", true, why, sizeof why), "then the other one follows (%s)", why);
    is_int(voters + 1, a.value.voter_count, "with one voter more");
    ok(node_holds(&a) && atomic_load(&a.lost) == 0, "the lease was never lost");
    node_close(&a);
    rig_end(rig, C);
}

/* ---- Values left half done, and outcomes that are unknown ------------------------------------------------------------ */

struct held_seen { /* what the holder's lease says when a value that names another one comes in */
    struct contract_node *holder;
    atomic_uint accepts, held;
};

static void look_at_holder(void *context, const struct ask_question *question) {
    struct held_seen *seen = context;
    if (question->type != ASK_ACCEPT || strcmp(question->from, "a") != 0 || strcmp(question->value.primary, "a") == 0)
        return;
    atomic_fetch_add(&seen->accepts, 1);
    atomic_fetch_add(&seen->held, atomic_load(&seen->holder->shared.until) != INT64_MIN);
}

/* Trap 24. */
static void handover_with_unknown_outcome(bool accepted) {
    struct contract_node a, b;
    struct held_seen seen = {.holder = &a};
    open_two(&a, &b, LONG_LEASE);
    if (!node_rises(&a))
        return;
    struct register_value old = a.value;
    const unsigned voters[] = {A, B, RIG_WITNESS};
    for (unsigned i = 0; i < 3; i++) {
        rig_types(rig, voters[i], accepted ? 0 : BIT(ASK_ACCEPT), accepted ? BIT(ASK_ACCEPT) : 0);
        rig_before(rig, voters[i], look_at_holder, &seen);
    }
    struct register_value next = value_after(&a, B, 61), expected = a.value;
    is_int(-EINPROGRESS, a.engine->change(a.reg, &expected, &next), "a handover of which nobody answers is unknown");
    ok(atomic_load(&seen.accepts) > 0, "it was sent");
    is_int(0, atomic_load(&seen.held), "after the lease had ended");
    is_int(INT64_MIN, atomic_load(&a.shared.until), "which it has for ever");
    is_int(-EALREADY, a.lease->take(a.reg, &old), "in its epoch");
    for (unsigned i = 0; i < 3; i++)
        rig_types(rig, voters[i], 0, 0);
    ok(WITHIN(60, b.engine->read(b.reg, &b.value) == 0), "the other one reads");
    is_string(accepted ? "b" : "a", b.value.primary, "what the voters have");
    expected = old;
    ok(WITHIN(60, register_settle(a.reg, &expected, &next) == 0), "when it is asked again, the handover is chosen");
    ok(WITHIN(60, b.engine->read(b.reg, &b.value) == 0 && b.lease->take(b.reg, &b.value) == 0), "the other one takes the lease");
    ok(WITHIN(60, node_holds(&b)), "and holds it");
    is_int(0, atomic_load(&a.lost), "nobody told of a loss what was its own doing");
    rig_fresh(rig); /* before `seen` goes */
    node_close(&a);
    node_close(&b);
}

static bool is_behind(struct contract_node *n, const char *voter, bool *grants) {
    struct lease_view view;
    bool behind = *grants = false;
    n->lease->view(n->reg, &view);
    for (unsigned i = 0; i < view.count; i++)
        if (strcmp(view.voters[i].name, voter) == 0) {
            behind = view.voters[i].behind;
            *grants = view.voters[i].grants;
        }
    return behind;
}

/* It hears that there is a newer value, but never accepted it; with no other change the lease would hang on the two others. */
static void one_misses_a_handover(void) {
    struct contract_node a, b;
    bool grants;
    open_two(&a, &b, STEADY_LEASE);
    if (!node_rises(&a))
        return;
    rig_types(rig, RIG_WITNESS, BIT(ASK_ACCEPT), 0);
    is_int(0, settle(&a, B, 71), "a handover is chosen by two of three voters");
    ok(WITHIN(60, b.engine->read(b.reg, &b.value) == 0 && b.lease->take(b.reg, &b.value) == 0), "the other one takes the lease");
    ok(WITHIN(60, node_holds(&b)), "and holds it");
    rig_types(rig, RIG_WITNESS, 0, 0);
    ok(WITHIN(60, is_behind(&b, "witness", &grants)), "the third one hears of it, and refuses the lease");
    ok(!grants && !is_behind(&b, "b", &grants) && grants && !is_behind(&b, "a", &grants) && grants, "it alone");
    is_int(-EPERM, a.lease->refresh(a.reg, &b.value), "who does not hold the lease does not offer its value again");
    struct register_value other = b.value;
    other.version--;
    is_int(-ESTALE, b.lease->refresh(b.reg, &other), "nor is an older value offered");
    is_int(0, b.lease->refresh(b.reg, &b.value), "the holder does");
    bool granted = false;
    for (int64_t until = clock_boot() + 60000 * MS; !granted && clock_boot() < until; granted = grants) {
        if (is_behind(&b, "witness", &grants))
            b.lease->refresh(b.reg, &b.value);
        usleep(10000);
    }
    ok(granted, "as soon as the former one's grant has run out, it grants");
    struct register_value seen;
    ok(b.engine->read(b.reg, &seen) == 0 && register_compare(&seen, &b.value) == 0, "the value is the same");
    rig_end(rig, A);
    int64_t until = atomic_load(&b.shared.until);
    ok(WITHIN(60, atomic_load(&b.shared.until) > until + STEADY_LEASE * MS), "so another one may go");
    is_int(0, settle(&b, -1, 72), "and changes go on");
    is_int(0, atomic_load(&b.lost), "the lease was never lost");
    node_close(&a);
    node_close(&b);
}

/* Trap 23: voters whose grants have ended too early (they are told of a shorter lease here) let a challenger's value in, half. */
static void holder_meets_a_challenge_half_done(void) {
    struct contract_node a, b;
    struct held_seen seen = {.holder = &a};
    rig->config.node_count = 2;
    contract.fresh(rig, 100);
    rig->config.lease_ms = LONG_LEASE; /* the nodes' */
    node_open(&a, &contract, A);
    node_open(&b, &contract, B);
    if (!node_rises(&a))
        return;
    rig_types(rig, A, BIT(ASK_ACCEPT), 0);
    rig_types(rig, B, BIT(ASK_ACCEPT), 0);
    is_int(0, b.engine->read(b.reg, &b.value), "a challenger reads");
    struct register_value next = value_after(&b, B, 62);
    int rc = 0;
    ok(WITHIN(60, (rc = b.engine->change(b.reg, &b.value, &next)) == -EINPROGRESS), "what it proposes is accepted by one voter");
    is_string("b", rig_state(rig, RIG_WITNESS).value.primary, "the witness");
    node_close(&b);
    ok(node_holds(&a), "the holder does not know");
    rig_types(rig, A, 0, 0);
    rig_types(rig, B, 0, 0);
    rig_set(rig, A, &rig->voters[A].deaf, true);
    rig_before(rig, B, look_at_holder, &seen);
    rig_before(rig, RIG_WITNESS, look_at_holder, &seen);
    ok(WITHIN(60, settle(&a, -1, 63) == -ESTALE), "until it proposes something itself, and completes what it finds");
    is_string("b", a.value.primary, "which is the challenger's");
    ok(atomic_load(&seen.accepts) > 0 && atomic_load(&seen.held) == 0, "after its own lease had ended");
    ok(WITHIN(60, atomic_load(&a.lost) == 1) && !node_holds(&a), "of which it was told");
    rig_fresh(rig);
    node_close(&a);
}

/* ---- Lines and strangers --------------------------------------------------------------------------------------------- */

static void bad_lines(void) {
    struct contract_node a, b;
    rig->config.node_count = 2;
    contract.fresh(rig, 100);
    rig_line(rig, 15, 20, 25);
    contract_two_at_once(&contract, 15);
    open_two(&a, &b, STEADY_LEASE);
    rig_line(rig, 15, 20, 25);
    if (!node_rises(&a))
        return;
    int64_t until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + STEADY_LEASE * MS), "a lease lives on a line that loses, delays and repeats");
    a.lease->give_up(a.reg);
    ok(node_rises(&b), "and is handed on over it");
    node_close(&a);
    node_close(&b);
}

static void strange_answers(void) {
    struct contract_node a, b;
    open_two(&a, &b, LONG_LEASE);
    for (unsigned i = 0; i < RIG_VOTERS; i++) {
        pthread_mutex_lock(&rig->voters[i].lock);
        rig->voters[i].strangers = 100;
        pthread_mutex_unlock(&rig->voters[i].lock);
    }
    struct register_value next = value_after(&a, A, 71), expected = a.value;
    is_int(0, a.engine->change(a.reg, &expected, &next), "answers that nobody asked for, or of others, do not disturb");
    if (!node_rises(&a))
        return;
    ok(settle(&b, B, 72) != 0, "and let nobody in");
    rig_set(rig, B, &rig->voters[B].deaf, true);
    rig_set(rig, RIG_WITNESS, &rig->voters[RIG_WITNESS].deaf, true);
    ok(settle(&a, -1, 73) != 0, "nor make up for those that do not answer");
    node_close(&a);
    node_close(&b);
}

/* ---- Stopping -------------------------------------------------------------------------------------------------------- */

static void *change_slowly(void *argument) {
    struct contract_node *n = argument;
    struct register_value next = value_after(n, -1, 81), expected = n->value;
    return (void *)(intptr_t)n->engine->change(n->reg, &expected, &next);
}

static void stops_while_voters_hang(void) {
    struct contract_node a, b;
    pthread_t thread;
    void *result;
    open_two(&a, &b, LONG_LEASE);
    if (!node_rises(&a))
        return;
    for (unsigned i = 0; i < RIG_VOTERS; i++)
        rig_types(rig, i, ~0u, 0);
    pthread_create(&thread, NULL, change_slowly, &a);
    struct register_value value;
    int64_t begun = clock_boot();
    is_int(-ENOTCONN, a.engine->read(a.reg, &value), "a read of voters that hang comes back");
    ok(value.version == a.value.version, "with what is known here");
    node_close(&a);
    pthread_join(thread, &result);
    int rc = (int)(intptr_t)result;
    ok(rc == -ESHUTDOWN || rc == -ENOTCONN, "closing ends what waits (%s)", strerror(-rc));
    ok(clock_boot() - begun < 30000 * MS && atomic_load(&a.shared.until) == INT64_MIN, "and the lease, though nobody hears of it");
    node_close(&b);
}

int main(void) {
    rig = rig_new(2, 1000);
    contract = rig_contract(rig);
    plan_lazy();
    who_votes_at_birth();
    birth_needs_everybody();
    for (unsigned accepted = 0; accepted < 3; accepted++)
        birth_left_half_done(accepted);
    one_dead_then_restarted();
    lease_that_nobody_grants();
    cut_from_the_majority();
    reached_again_before_it_is_asked();
    disk_lost_and_let_in_again();
    three_five_three();
    replaced_while_another_does_not_grant();
    list_left_half_done();
    handover_with_unknown_outcome(true);
    handover_with_unknown_outcome(false);
    one_misses_a_handover();
    holder_meets_a_challenge_half_done();
    bad_lines();
    strange_answers();
    stops_while_voters_hang();
    rig_end_all(rig);
    return 0;
}
