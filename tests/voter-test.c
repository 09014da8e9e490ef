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

int main(void) {
    plan_lazy();
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
