/* Acknowledgement lines: whatever the order of records, acknowledgements, losses and changes of the set, what is below a
 * line is on every store of the set (both sets while a change is open), and a node alone acknowledges its disk only.
 */
#include "replication/acks.h"
#include "tests/tap.h"

enum { NODES = 3, SELF = 0 };

struct node {
    uint64_t received, durable; /* the truth */
    bool session;
};

struct model {
    struct acks acks;
    struct node nodes[NODES];
    uint64_t state;
    uint64_t moved[PARK_LINES];
};

static uint64_t pick(struct model *model, uint64_t below) {
    return test_random(&model->state) % below;
}

static bool set_has(const struct model *model, uint32_t set, enum park_line line, uint64_t lsn) {
    if (line == PARK_RECEIVED && set == 1u << SELF)
        return model->nodes[SELF].durable >= lsn;
    for (unsigned i = 0; i < NODES; i++)
        if (set & 1u << i && (line == PARK_DURABLE ? model->nodes[i].durable : model->nodes[i].received) < lsn)
            return false;
    return true;
}

/* A line that moved must be true at this moment; one that stays may rest on a set that has gone since. */
static bool lines_hold(struct model *model) {
    for (enum park_line line = 0; line < PARK_LINES; line++) {
        uint64_t before = model->moved[line], lsn = acks_line(&model->acks, line);
        if (lsn < before)
            return false;
        if (lsn > before && !set_has(model, model->acks.set, line, lsn))
            return false;
        if (lsn > before && model->acks.pending && !set_has(model, model->acks.proposed, line, lsn))
            return false;
        model->moved[line] = lsn;
    }
    return true;
}

static void step(struct model *model) {
    unsigned peer = 1 + (unsigned)pick(model, NODES - 1);
    struct node *node = &model->nodes[peer], *own = &model->nodes[SELF];
    switch (pick(model, 9)) {
    case 0:
        acks_own_received(&model->acks, ++own->received);
        break;
    case 1:
        own->durable += pick(model, own->received - own->durable + 1);
        acks_own_durable(&model->acks, own->durable);
        break;
    case 2:
        node->received += node->session ? pick(model, own->received - node->received + 1) : 0;
        break;
    case 3:
        node->durable += pick(model, node->received - node->durable + 1);
        break;
    case 4: /* an acknowledgement that is somewhat old */
        if (node->session) {
            uint64_t durable = node->durable - pick(model, node->durable + 1) / 4;
            uint64_t received = node->received - pick(model, node->received + 1) / 4;
            received = MAX(durable, received);
            acks_peer(&model->acks, peer, received, durable);
        }
        break;
    case 5: /* power cut at the peer: what was not durable is gone, and so is the session */
        node->received = node->durable;
        node->session = false;
        acks_forget(&model->acks, peer);
        break;
    case 6:
        if (!node->session)
            node->session = true;
        break;
    case 7:
        if (!model->acks.pending)
            acks_propose(&model->acks, (uint32_t)(1 | pick(model, 4) << 1));
        break;
    default:
        if (model->acks.pending)
            acks_settle(&model->acks, pick(model, 2));
    }
}

static void random_schedules(void) {
    struct model model = {.state = test_seed()};
    bool held = true;
    uint64_t moves = 0;
    for (unsigned run = 0; held && run < 2000; run++) {
        uint64_t state = model.state;
        model = (struct model){.state = state};
        acks_start(&model.acks, SELF, 1, 0);
        for (unsigned i = 0; held && i < 500; i++) {
            step(&model);
            held = lines_hold(&model);
        }
        moves += model.moved[0] + model.moved[1];
    }
    ok(held, "a million random steps: every line that moved was true");
    ok(moves > 10000, "and lines did move (%llu)", (unsigned long long)moves);
}

static void growing_set_needs_both(void) { /* TRAPS 20 */
    struct acks acks = {0};
    acks_start(&acks, 0, 1, 100);
    acks_own_received(&acks, 101);
    acks_own_durable(&acks, 101);
    acks_peer(&acks, 1, 100, 100);
    acks_propose(&acks, 3);
    is_int(100, acks_line(&acks, PARK_RECEIVED), "while {a, b} is proposed, 101 waits for b");
    acks_peer(&acks, 1, 101, 100);
    is_int(101, acks_line(&acks, PARK_RECEIVED), "b has received it");
    is_int(100, acks_line(&acks, PARK_DURABLE), "but not on its disk");
}

static void shrinking_set_needs_the_disk(void) { /* TRAPS 22 */
    struct acks acks = {0};
    acks_start(&acks, 0, 3, 100);
    acks_own_durable(&acks, 100);
    acks_own_received(&acks, 110);
    acks_peer(&acks, 1, 105, 100);
    is_int(105, acks_line(&acks, PARK_RECEIVED), "both have received 105");
    acks_propose(&acks, 1);
    acks_peer(&acks, 1, 107, 100);
    is_int(105, acks_line(&acks, PARK_RECEIVED), "the smaller set is proposed: its disk counts too");
    acks_settle(&acks, true);
    is_int(105, acks_line(&acks, PARK_RECEIVED), "alone: nothing that is only in memory");
    acks_own_durable(&acks, 110);
    is_int(110, acks_line(&acks, PARK_RECEIVED), "what is on the disk");
}

static void a_set_that_was_found_counts(void) {
    struct acks acks = {0};
    acks_start(&acks, 0, 1, 100);
    acks_propose(&acks, 3);
    acks_settle(&acks, false); /* given up, but it had been chosen: */
    acks_adopt(&acks, 3);
    acks_own_received(&acks, 101);
    acks_own_durable(&acks, 101);
    is_int(100, acks_line(&acks, PARK_DURABLE), "a set that the register has counts, whoever proposed it");
    acks_peer(&acks, 1, 101, 101);
    is_int(101, acks_line(&acks, PARK_DURABLE), "as soon as its other member has it, too, it is acknowledged");
}

static void no_role_no_line(void) {
    struct acks acks = {0};
    acks_start(&acks, 0, 1, 5);
    acks_stop(&acks);
    acks_own_received(&acks, 9);
    acks_own_durable(&acks, 9);
    is_int(5, acks_line(&acks, PARK_DURABLE), "a node that is no longer primary acknowledges nothing more");
}

int main(void) {
    plan_lazy();
    growing_set_needs_both();
    shrinking_set_needs_the_disk();
    a_set_that_was_found_counts();
    no_role_no_line();
    random_schedules();
    return 0;
}
