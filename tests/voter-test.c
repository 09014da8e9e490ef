/* The register and its lease without sockets and disks: proposers, voters and holders over a network that loses, delays and
 * repeats, with clocks that run apart, processes that end and stand still, and disks that are lost. All the time: one value
 * for each version, each made from the one before; an older epoch never acknowledges after a newer one has. In the end, when
 * all is mended: somebody gets the lease.
 */
#include "membership/change.h"
#include "membership/lease.h"
#include "tests/tap.h"

#include <stdio.h>
#include <stdlib.h>

#define MS INT64_C(1000000)
#define LEASE (1000 * MS)
#define MARGIN (100 * MS)
enum { NODES = 3, VOTERS = 6, LETTERS = 4000, VERSIONS = 20000 };
enum letter_type { PREPARE, ACCEPT, RENEW, RELEASE, LEARN };
enum purpose { NOTHING, PROMOTE, MEMBERS, REPLACE, HAND_OVER };

struct letter {
    bool reply;
    int64_t due;
    enum letter_type type;
    unsigned node, voter, life; /* life: of the node's process that sent it */
    uint64_t change;            /* of that process */
    struct ballot ballot;
    struct register_value value, known;
    bool birth;
    epoch_t epoch;
    uint64_t session;
    int64_t sent;
    uint8_t id[16];
    struct voter_answer answer;
};

struct node {
    char name[8];
    double pace; /* of its clock */
    int64_t offset;
    bool up;
    int64_t still_until; /* stands still */
    unsigned life;
    struct register_value known;
    struct lease lease;
    uint64_t sessions;
    struct change change;
    enum purpose purpose;
    enum change_state told; /* for which the letters were sent */
    uint64_t changes;
    unsigned lists_told;
    int64_t change_since, next_renewal, next_act;
};

struct seat { /* of a voter */
    char name[8];
    double pace;
    int64_t offset;
    bool up, lost; /* lost: its disk, and it has not been let in again */
    struct voter voter;
    struct voter_state disk;
};

static struct world {
    uint64_t state;
    int64_t now;
    struct letter letters[LETTERS];
    unsigned letter_count;
    struct node nodes[NODES];
    struct seat seats[VOTERS];
    bool mended;
    unsigned loss; /* percent of letters */
    uint8_t cut[NODES][VOTERS]; /* bits of types that are lost between these two, one way or the other */
    uint64_t newest; /* version that is known to be chosen */
    epoch_t acknowledged; /* the newest epoch in which something was */
    unsigned leases, handovers, replaced, completed, unguarded;
    const char *broken;
} *w;
static struct register_value *chosen; /* by version */

static uint64_t pick(uint64_t below) {
    return test_random(&w->state) % below;
}
static bool chance(unsigned percent) {
    return pick(100) < percent;
}
static int64_t clock_of(double pace, int64_t offset) {
    return offset + (int64_t)((double)w->now * pace);
}
static int64_t node_clock(const struct node *node) {
    return clock_of(node->pace, node->offset);
}
static int64_t seat_clock(const struct seat *seat) {
    return clock_of(seat->pace, seat->offset);
}

static void post(const struct letter *letter) {
    bool lost = (w->cut[letter->node][letter->voter] & 1u << letter->type) != 0 || chance(w->loss);
    unsigned copies = w->mended ? 1 : lost ? 0 : chance(5) ? 2 : 1;
    for (; copies && w->letter_count < LETTERS; copies--) {
        struct letter *posted = &w->letters[w->letter_count++];
        *posted = *letter;
        posted->due = w->now + (int64_t)(1 + pick(w->mended ? 5 : chance(5) ? 3000 : 40)) * MS;
    }
}

/* ---- Nodes ----------------------------------------------------------------------------------------------------------- */

static int seat_named(const char *name) {
    for (int i = 0; i < VOTERS; i++)
        if (strcmp(w->seats[i].name, name) == 0)
            return i;
    bail("no voter of that name");
    return -1;
}

static void send_change(struct node *node) {
    const struct register_voter *voter;
    for (unsigned i = 0; (voter = change_voter(&node->change, i)) != NULL; i++) {
        struct letter letter = {.type = node->change.state == CHANGE_ACCEPT ? ACCEPT : PREPARE, .node = (unsigned)(node - w->nodes),
                                .voter = (unsigned)seat_named(voter->name), .life = node->life, .change = node->changes,
                                .ballot = node->change.ballot, .value = node->change.next, .known = node->change.known, .birth = node->change.birth};
        memcpy(letter.id, voter->id, sizeof letter.id);
        post(&letter);
    }
    node->told = node->change.state;
    node->lists_told = node->change.list_count;
}

static void begin(struct node *node, enum purpose purpose) {
    change_begin(&node->change, &node->known, node->change.seen, (uint16_t)(1 + (node - w->nodes)));
    node->purpose = purpose;
    node->changes++;
    node->change_since = w->now;
    send_change(node);
}

/* Somebody's name and id that are not in the list any more, or not as they are. */
static void replace_voter(struct register_value *next) {
    for (unsigned i = 0; i < next->voter_count; i++) { /* one that has lost its disk first */
        const struct seat *seat = &w->seats[seat_named(next->voters[i].name)];
        if (memcmp(seat->disk.id, next->voters[i].id, 16) != 0) {
            memcpy(next->voters[i].id, seat->disk.id, 16);
            return;
        }
    }
    unsigned spare = (unsigned)pick(VOTERS), place = (unsigned)pick(next->voter_count);
    for (unsigned i = 0; i < next->voter_count; i++)
        if (strcmp(next->voters[i].name, w->seats[spare].name) == 0)
            return;
    memset(&next->voters[place], 0, sizeof next->voters[place]);
    memcpy(next->voters[place].name, w->seats[spare].name, sizeof w->seats[spare].name);
    memcpy(next->voters[place].id, w->seats[spare].disk.id, 16);
}

static void propose(struct node *node) {
    unsigned self = (unsigned)(node - w->nodes);
    struct register_value next = node->change.present;
    bool expected = next.version == node->known.version;
    if (node->change.known.version > node->known.version)
        node->known = node->change.known;
    if (next.version == 0)
        memcpy(&next, &node->known, sizeof next); /* birth: the voters there are to be */
    next.version++;
    bool first = node->known.version == 0 && node->change.known.version == 0;
    bool known = node->change.present.version == node->change.known.version; /* else it may be half done */
    bool may = first ? node->change.present.version == 0 : known && (expected || node->purpose == PROMOTE);
    switch (may ? node->purpose : NOTHING) {
    case PROMOTE:
        next.epoch = EPOCH_MAKE(EPOCH_COUNTER(next.epoch) + 1, self + 1);
        snprintf(next.primary, sizeof next.primary, "%s", node->name);
        break;
    case MEMBERS:
        next.member_count = 1;
        snprintf(next.members[0].node, sizeof next.members[0].node, "%s", node->name);
        next.start_lsn++;
        break;
    case REPLACE:
        replace_voter(&next);
        break;
    case HAND_OVER: {
        unsigned other = (self + 1 + (unsigned)pick(NODES - 1)) % NODES;
        next.epoch = EPOCH_MAKE(EPOCH_COUNTER(next.epoch) + 1, other + 1);
        snprintf(next.primary, sizeof next.primary, "%s", w->nodes[other].name);
        break;
    }
    default:
        next = node->change.present; /* not what was expected: it may be half done */
        w->completed++;
    }
    if (strcmp(next.primary, node->name) != 0 || next.epoch != node->lease.epoch) {
        lease_give_up(&node->lease);
    } else if (!lease_may_propose(&node->lease, &next)) {
        w->unguarded++;
        node->purpose = NOTHING;
        return;
    } else {
        lease_proposed(&node->lease, &next);
    }
    change_next(&node->change, &next);
}

static void tell(const struct node *node, const struct register_value *value) {
    for (unsigned i = 0; i < value->voter_count; i++) {
        struct letter letter = {.type = LEARN, .node = (unsigned)(node - w->nodes), .voter = (unsigned)seat_named(value->voters[i].name),
                                .value = *value};
        post(&letter);
    }
}

static void note_chosen(const struct node *node) {
    const struct register_value *value = &node->change.next;
    if (value->version >= VERSIONS)
        return;
    struct register_value *noted = &chosen[value->version];
    if (noted->version && memcmp(noted, value, sizeof *value) != 0)
        w->broken = "two values of one version are chosen";
    *noted = *value;
    w->newest = MAX(w->newest, value->version);
}

static void go_on(struct node *node) {
    if (node->change.state == CHANGE_READ)
        propose(node);
    if (node->change.state == CHANGE_PREPARE ? node->lists_told != node->change.list_count : node->change.state == CHANGE_ACCEPT && node->told != CHANGE_ACCEPT)
        send_change(node);
    if (node->change.state == CHANGE_CHOSEN) {
        note_chosen(node);
        tell(node, &node->change.next);
        bool own = strcmp(node->change.next.primary, node->name) == 0;
        bool new_epoch = node->change.next.epoch != node->known.epoch;
        if (node->purpose == HAND_OVER && new_epoch)
            w->handovers++;
        if (node->purpose == REPLACE && node->change.next.version > node->known.version)
            w->replaced++;
        node->known = node->change.next;
        if (own && new_epoch && node->purpose == PROMOTE && EPOCH_NODE(node->known.epoch) == (uint16_t)(1 + (node - w->nodes)) &&
            node->lease.epoch != node->known.epoch) {
            lease_begin(&node->lease, &node->known, ++node->sessions + 1000 * node->life, LEASE);
            node->next_renewal = node_clock(node);
            w->leases++;
        } else if (own && node->lease.epoch == node->known.epoch) {
            lease_voters(&node->lease, &node->known);
        }
        node->purpose = NOTHING;
    } else if (node->change.state == CHANGE_ANEW) {
        if (chance(50)) {
            node->purpose = NOTHING;
        } else {
            if (node->change.known.version > node->known.version)
                node->known = node->change.known;
            change_again(&node->change);
            node->changes++;
            send_change(node);
        }
    }
}

static void renew(struct node *node, enum letter_type type) {
    const struct lease *lease = &node->lease;
    unsigned to = 0; /* set of seats */
    for (unsigned i = 0; i < node->known.voter_count; i++)
        to |= 1u << seat_named(node->known.voters[i].name);
    for (unsigned i = 0; lease_unsettled(lease) && i < lease->proposed.count; i++)
        to |= 1u << seat_named(lease->proposed.voters[i].name);
    for (unsigned i = 0; i < VOTERS; i++) {
        struct letter letter = {.type = type, .node = (unsigned)(node - w->nodes), .voter = i, .life = node->life,
                                .epoch = lease->epoch, .session = lease->session, .sent = node_clock(node)};
        if (to & 1u << i)
            post(&letter);
    }
}

static void acknowledge(struct node *node) {
    if (!lease_holds(&node->lease, node_clock(node)))
        return;
    if (node->lease.epoch < w->acknowledged)
        w->broken = "an older epoch acknowledges after a newer one";
    w->acknowledged = MAX(w->acknowledged, node->lease.epoch);
}

static void act(struct node *node) {
    if (!node->up || w->now < node->still_until || w->now < node->next_act)
        return;
    node->next_act = w->now + (int64_t)(5 + pick(40)) * MS;
    acknowledge(node);
    bool has = node->lease.held && node->lease.epoch == node->known.epoch && node->known.version;
    if (has && node_clock(node) >= node->next_renewal) {
        renew(node, RENEW);
        node->next_renewal = node_clock(node) + LEASE / 4;
    }
    if (node->purpose != NOTHING) {
        if (w->now - node->change_since > (int64_t)(300 + pick(1000)) * MS)
            node->purpose = NOTHING; /* its outcome stays unknown */
        else if (w->now - node->change_since > 200 * MS && chance(30))
            send_change(node); /* once more */
        return;
    }
    if (lease_holds(&node->lease, node_clock(node))) {
        if (w->mended)
            return;
        if (chance(3))
            begin(node, MEMBERS);
        else if (chance(3) && lease_backed(&node->lease, node_clock(node)))
            begin(node, REPLACE);
        else if (chance(1))
            begin(node, HAND_OVER);
        else if (chance(1)) {
            lease_give_up(&node->lease);
            renew(node, RELEASE);
        }
    } else if (chance(10)) {
        begin(node, PROMOTE);
    }
}

/* ---- Voters ---------------------------------------------------------------------------------------------------------- */

static void deliver_to_voter(struct letter *letter) {
    struct seat *seat = &w->seats[letter->voter];
    const char *from = w->nodes[letter->node].name;
    struct letter reply = *letter;
    int64_t now = seat_clock(seat);
    if (!seat->up)
        return;
    switch (letter->type) {
    case PREPARE:
        voter_prepare(&seat->voter, from, letter->ballot, letter->birth, now, &reply.answer);
        break;
    case ACCEPT:
        voter_accept(&seat->voter, from, letter->ballot, &letter->value, &letter->known, now, &reply.answer);
        break;
    case RENEW:
        voter_renew(&seat->voter, from, letter->epoch, letter->session, now, &reply.answer);
        break;
    case RELEASE:
        voter_release(&seat->voter, from, letter->epoch, letter->session, now, &reply.answer);
        return;
    case LEARN:
        voter_learn(&seat->voter, &letter->value, &reply.answer);
        seat->disk = seat->voter.state;
        return;
    }
    if (reply.answer.durable)
        seat->disk = seat->voter.state;
    else if (memcmp(&seat->disk, &seat->voter.state, sizeof seat->disk) != 0)
        w->broken = "the state changed, and the answer does not say so";
    reply.reply = true;
    post(&reply);
}

static void deliver_to_node(struct letter *letter) {
    struct node *node = &w->nodes[letter->node];
    if (!node->up || letter->life != node->life || w->now < node->still_until)
        return;
    const char *voter = w->seats[letter->voter].name;
    if (letter->type == RENEW) {
        if (letter->answer.known.version > node->known.version) { /* a holder who is told of its successor stops asking */
            node->known = letter->answer.known;
            if (strcmp(node->known.primary, node->name) != 0 || node->known.epoch != node->lease.epoch)
                lease_give_up(&node->lease);
            else
                lease_voters(&node->lease, &node->known);
        }
        if (letter->answer.verdict == VOTER_YES && letter->epoch == node->lease.epoch && letter->session == node->lease.session)
            lease_granted(&node->lease, voter, letter->answer.id, letter->sent);
    } else if (node->purpose != NOTHING && letter->change == node->changes) {
        change_answer(&node->change, voter, &letter->answer, letter->type == ACCEPT);
        go_on(node);
    }
}

/* ---- Faults ---------------------------------------------------------------------------------------------------------- */

static void node_starts(struct node *node) {
    uint64_t newest = w->newest;
    node->up = true;
    node->life++;
    node->purpose = NOTHING;
    memset(&node->lease, 0, sizeof node->lease);
    memset(&node->change, 0, sizeof node->change);
    /* What it read on its disk may be old. */
    uint64_t back = pick(4), version = newest > back ? newest - back : newest;
    while (version && !chosen[version].version)
        version--;
    if (version)
        node->known = chosen[version];
}

/* It is listed and has accepted, and most of those that are listed with it know. */
static bool noted_by_a_majority(const struct seat *seat) {
    const struct register_value *value = &chosen[w->newest];
    unsigned noted = 0;
    for (unsigned i = 0; i < value->voter_count; i++) {
        const struct seat *other = &w->seats[seat_named(value->voters[i].name)];
        noted += other->disk.known.version == value->version && memcmp(other->disk.id, value->voters[i].id, 16) == 0;
    }
    return seat->disk.value.version && register_voter_of(value, seat->name, seat->disk.id) >= 0 && noted > value->voter_count / 2;
}

static void faults(void) {
    struct node *node = &w->nodes[pick(NODES)];
    struct seat *seat = &w->seats[pick(VOTERS)];
    switch (pick(8)) {
    case 0:
        node->up = !node->up;
        if (node->up)
            node_starts(node);
        break;
    case 1:
        node->still_until = w->now + (int64_t)pick(4000) * MS;
        break;
    case 2:
        seat->up = false;
        break;
    case 3:
        if (!seat->up) {
            voter_start(&seat->voter, seat->name, &seat->disk, LEASE, MARGIN, seat_clock(seat));
            seat->up = true;
        }
        break;
    case 4: { /* a disk is lost: one at a time, until that voter has been let in again, and has accepted a value */
        bool any = false;
        for (unsigned i = 0; i < VOTERS; i++) {
            struct seat *other = &w->seats[i];
            if (other->lost && noted_by_a_majority(other))
                other->lost = false;
            any = any || other->lost;
        }
        if (any || !w->newest || !chance(10) || register_voter_of(&chosen[w->newest], seat->name, seat->disk.id) < 0)
            break;
        memset(&seat->disk, 0, sizeof seat->disk);
        for (unsigned i = 0; i < 16; i++)
            seat->disk.id[i] = (uint8_t)pick(256);
        seat->lost = true;
        voter_start(&seat->voter, seat->name, &seat->disk, LEASE, MARGIN, seat_clock(seat));
        break;
    }
    case 5:
    case 6: {
        const uint8_t cuts[] = {0, 0, 1u << RENEW, 1u << ACCEPT, 1u << RENEW | 1u << ACCEPT, (uint8_t)pick(1u << (LEARN + 1))};
        w->cut[pick(NODES)][pick(VOTERS)] = cuts[pick(sizeof cuts)];
        break;
    }
    default:
        w->loss = (unsigned)pick(4) * 12;
    }
}

static void mend(void) {
    w->mended = true;
    for (unsigned i = 0; i < NODES; i++) {
        w->nodes[i].still_until = 0;
        if (!w->nodes[i].up)
            node_starts(&w->nodes[i]);
    }
    for (unsigned i = 0; i < VOTERS; i++)
        if (!w->seats[i].up) {
            voter_start(&w->seats[i].voter, w->seats[i].name, &w->seats[i].disk, LEASE, MARGIN, seat_clock(&w->seats[i]));
            w->seats[i].up = true;
        }
}

static void prepare_world(uint64_t seed) {
    static const char *const names[VOTERS] = {"a", "b", "witness", "x", "y", "z"};
    memset(w, 0, sizeof *w);
    memset(chosen, 0, VERSIONS * sizeof *chosen);
    w->state = seed;
    struct register_value first = {.voter_count = 3};
    for (unsigned i = 0; i < VOTERS; i++) {
        struct seat *seat = &w->seats[i];
        snprintf(seat->name, sizeof seat->name, "%s", names[i]);
        seat->pace = 0.98 + (double)pick(41) / 1000;
        seat->offset = (int64_t)pick(1000000) * MS;
        seat->up = true;
        for (unsigned j = 0; j < 16; j++)
            seat->disk.id[j] = (uint8_t)pick(256);
        voter_start(&seat->voter, seat->name, &seat->disk, LEASE, MARGIN, seat_clock(seat));
        if (i < 3) {
            memcpy(first.voters[i].name, seat->name, sizeof seat->name);
            memcpy(first.voters[i].id, seat->disk.id, 16);
        }
    }
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &w->nodes[i];
        node->name[0] = (char)('a' + i);
        node->pace = 0.98 + (double)pick(41) / 1000;
        node->offset = (int64_t)pick(1000000) * MS;
        node->up = true;
        node->known = first;
    }
}

static bool leased(void) {
    for (unsigned i = 0; i < NODES; i++)
        if (w->nodes[i].up && lease_holds(&w->nodes[i].lease, node_clock(&w->nodes[i])))
            return true;
    return false;
}

static void run(int64_t until, bool with_faults) {
    for (; w->now < until && !w->broken; w->now += MS) {
        for (unsigned i = w->letter_count; i-- > 0;) {
            if (w->letters[i].due > w->now)
                continue;
            struct letter letter = w->letters[i];
            w->letters[i] = w->letters[--w->letter_count];
            if (letter.reply)
                deliver_to_node(&letter);
            else
                deliver_to_voter(&letter);
        }
        for (unsigned i = 0; i < NODES; i++)
            act(&w->nodes[i]);
        if (with_faults && pick(400) == 0)
            faults();
    }
}

static void random_schedules(uint64_t seed, unsigned schedules) {
    unsigned leases = 0, handovers = 0, replaced = 0, completed = 0, unguarded = 0;
    const char *broken = NULL;
    uint64_t where = 0;
    for (unsigned i = 0; i < schedules && !broken; i++) {
        prepare_world(seed + i);
        run(40000 * MS, true);
        mend();
        run(w->now + 15000 * MS, false);
        where = seed + i;
        broken = w->broken;
        if (!broken && !leased())
            broken = "nobody has the lease in the end";
        leases += w->leases;
        handovers += w->handovers;
        replaced += w->replaced;
        completed += w->completed;
        unguarded += w->unguarded;
    }
    ok(!broken, "%u schedules from seed %llu on%s%s", schedules, (unsigned long long)seed, broken ? ": " : "", broken ? broken : "");
    if (broken)
        diag("seed %llu, at %lld ms", (unsigned long long)where, (long long)(w->now / MS));
    ok(leases > 3 * schedules, "leases were taken (%u)", leases);
    ok(handovers > schedules / 10, "and handed over (%u)", handovers);
    ok(replaced > schedules / 2, "voters were replaced (%u)", replaced);
    ok(completed > 0, "half-done values were completed (%u)", completed);
    ok(unguarded > 0, "and lists that are not guarded were not sent (%u)", unguarded);
}

/* ---- Histories that had broken it ------------------------------------------------------------------------------------ */

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
    w = calloc(1, sizeof *w);
    chosen = calloc(VERSIONS, sizeof *chosen);
    if (!w || !chosen)
        bail("memory");
    const char *schedules = getenv("BATON_SCHEDULES");
    random_schedules(test_seed(), schedules ? (unsigned)atoi(schedules) : 1000);
    free(w);
    free(chosen);
    return 0;
}
