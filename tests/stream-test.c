/* Feed and follow against each other in one process, on virtual time, over links that lose, delay and keep old frames:
 * the standby's history is always a prefix of the primary's, positions learned are true, and it ends equal.
 */
#include "replication/feed.h"
#include "replication/follow.h"
#include "tests/tap.h"

#include <stdio.h>

enum { WIRES = 4096 };
#define MS 1000000ll
#define EPOCH EPOCH_MAKE(1, 9)

struct letter {
    int64_t due;
    enum wire_type type;
    uint64_t session, first, count, received, durable;
    uint32_t verdict;
};

struct world {
    uint64_t state;
    int64_t now;
    unsigned loss; /* of 1000 */
    struct feed feed;
    struct follow follow;
    struct letter letters[WIRES];
    unsigned letter_count;
    uint64_t head;                 /* primary's last record */
    uint64_t received, durable;    /* the standby's truth */
    uint64_t highest;              /* received at any time: what a power cut took may have been acknowledged */
    uint64_t sessions;
    bool broken;
};

static uint64_t pick(struct world *world, uint64_t below) {
    return test_random(&world->state) % below;
}

static void chain_of(uint64_t lsn, uint8_t chain[CHAIN_SIZE]) {
    memset(chain, 0, CHAIN_SIZE);
    be64_put(chain, lsn * 0x9e3779b97f4a7c15ull);
}

static void post(struct world *world, struct letter letter) {
    if (world->letter_count == WIRES || pick(world, 1000) < world->loss)
        return;
    letter.due = world->now + (int64_t)pick(world, (uint64_t)(pick(world, 50) ? MS : 400 * MS));
    world->letters[world->letter_count++] = letter;
}

static void primary_sends(struct world *world) {
    struct feed *feed = &world->feed;
    while (feed->state == FEED_STREAMING && feed->next <= world->head) {
        uint64_t count = 1 + pick(world, 8);
        count = MIN(count, world->head - feed->next + 1);
        if (!feed_may_send(feed, count << 16))
            break;
        post(world, (struct letter){.type = WIRE_RECORDS, .session = feed->session, .first = feed->next, .count = count});
        feed_sent(feed, feed->next + count - 1, count << 16);
    }
    /* Somebody waits for a disk, and there are no records to go with that. */
    if (feed->state == FEED_STREAMING && feed->next > world->head && pick(world, 4) == 0)
        post(world, (struct letter){.type = WIRE_RECORDS, .session = feed->session, .first = feed->next});
}

static void primary_hears(struct world *world, const struct letter *letter) {
    if (letter->type == WIRE_LOGIN) {
        uint8_t chain[CHAIN_SIZE];
        struct wire_login login = {.position = {.lsn = letter->received, .durable = letter->durable}, .window = 4 << 20};
        struct feed_ground ground = {.own = {.lsn = world->head, .first = 1}, .chain_at = chain};
        struct wire_answer answer;
        chain_of(letter->received, chain);
        chain_of(letter->received, login.position.chain);
        feed_login(&world->feed, letter->session, &login, &ground, world->now, &answer);
        post(world, (struct letter){.type = WIRE_ANSWER, .session = letter->session, .verdict = answer.verdict});
    } else {
        struct wire_ack ack = {.received = letter->received, .durable = letter->durable};
        int rc = feed_ack(&world->feed, letter->session, &ack, world->now);
        if (rc == 0 && (world->feed.received > world->highest || world->feed.durable > world->durable))
            world->broken = true; /* it believes what is not so */
        if (rc == 0 && world->feed.in_flight > FEED_WINDOW_BYTES)
            world->broken = true;
    }
}

static void standby_acks(struct world *world) {
    post(world, (struct letter){.type = WIRE_ACK, .session = world->follow.session, .received = world->received,
                                .durable = world->durable});
}

static void standby_hears(struct world *world, const struct letter *letter) {
    if (letter->type == WIRE_ANSWER) {
        struct wire_answer answer = {.verdict = letter->verdict};
        follow_answer(&world->follow, 0, letter->session, &answer, world->now);
        return;
    }
    struct wire_records records = {.first = letter->first, .count = (uint32_t)letter->count};
    uint32_t skip;
    if (follow_records(&world->follow, letter->session, EPOCH, &records, &skip, world->now))
        return;
    if (letter->first + skip != world->received + 1 && skip < letter->count)
        world->broken = true; /* a gap, or the same again */
    world->received += letter->count - skip;
    world->highest = MAX(world->highest, world->received);
    if (letter->count)
        follow_received(&world->follow, world->received, true);
    if (world->follow.next != world->received + 1)
        world->broken = true; /* it waits for other records than the store does */
    standby_acks(world);
}

static void deliver(struct world *world) {
    for (unsigned i = 0; i < world->letter_count;) {
        if (world->letters[i].due > world->now) {
            i++;
            continue;
        }
        struct letter letter = world->letters[i];
        memmove(&world->letters[i], &world->letters[i + 1], (--world->letter_count - i) * sizeof letter);
        if (letter.type == WIRE_ANSWER || letter.type == WIRE_RECORDS)
            standby_hears(world, &letter);
        else
            primary_hears(world, &letter);
    }
}

static void standby_ticks(struct world *world) {
    enum follow_todo todo = follow_tick(&world->follow, world->now);
    if (todo == FOLLOW_ASK && follow_primary(&world->follow, 0, EPOCH, world->now)) {
        if (pick(world, 20) == 0) /* it comes back from a power cut */
            world->received = world->durable;
        follow_login(&world->follow, 0, EPOCH, ++world->sessions, world->received + 1, world->now);
        todo = FOLLOW_SEND_LOGIN;
    }
    if (todo == FOLLOW_SEND_LOGIN)
        post(world, (struct letter){.type = WIRE_LOGIN, .session = world->follow.session, .received = world->received,
                                    .durable = world->durable});
}

static bool run(struct world *world, unsigned loss) {
    world->loss = loss;
    follow_start(&world->follow, 300 * MS, world->now);
    for (unsigned i = 0; i < 20000 && !world->broken; i++) {
        world->now += MS;
        if (i == 15000)
            world->loss = 0;
        if (i < 15000)
            world->head += pick(world, 5);
        world->durable += pick(world, 4) ? 0 : world->received - world->durable;
        deliver(world);
        primary_sends(world);
        standby_ticks(world);
        if (i % 100 == 0)
            standby_acks(world);
        if (world->feed.state == FEED_STREAMING && world->now - world->feed.heard > 300 * MS)
            feed_end(&world->feed, "silent");
    }
    return !world->broken;
}

static void links_that_lose(void) {
    uint64_t state = test_seed();
    unsigned losses[] = {0, 1, 20, 200, 500};
    for (unsigned i = 0; i < sizeof losses / sizeof *losses; i++) {
        struct world *world = calloc(1, sizeof *world);
        world->state = state + i;
        ok(run(world, losses[i]), "%u of 1000 frames lost: no gap, nothing believed that is not so", losses[i]);
        is_int(world->head, world->received, "ends equal, after %llu sessions", (unsigned long long)world->sessions);
        free(world);
    }
}

static void refusals(void) {
    struct feed feed = {0};
    uint8_t chain[CHAIN_SIZE], other[CHAIN_SIZE];
    chain_of(50, chain);
    chain_of(51, other);
    struct wire_login login = {.position = {.lsn = 50}, .window = 1 << 20};
    struct feed_ground ground = {.own = {.lsn = 80, .first = 20}, .chain_at = chain};
    struct wire_answer answer;
    memcpy(login.position.chain, other, CHAIN_SIZE);
    feed_login(&feed, 1, &login, &ground, 0, &answer);
    is_int(VERDICT_DIVERGED, answer.verdict, "another chain at its end: %s", answer.text);
    is_int(FEED_REFUSED, feed.state, "it is not fed");
    login.position.lsn = 81;
    feed_login(&feed, 2, &login, &ground, 0, &answer);
    is_int(VERDICT_DIVERGED, answer.verdict, "a longer history: %s", answer.text);
    login.position.lsn = 18;
    feed_login(&feed, 3, &login, &ground, 0, &answer);
    is_int(VERDICT_TRIMMED, answer.verdict, "the journal begins later: %s", answer.text);
    login.position.lsn = 50;
    memcpy(login.position.chain, chain, CHAIN_SIZE);
    feed_login(&feed, 4, &login, &ground, 0, &answer);
    is_int(VERDICT_STREAM, answer.verdict, "a prefix is streamed");
    is_int(51, answer.from, "from the record after its last");
    struct wire_ack ack = {.received = 51, .durable = 50};
    is_int(-EBADMSG, feed_ack(&feed, 4, &ack, 0), "what was not sent cannot be acknowledged");
    ack.received = 50;
    is_int(-ESTALE, feed_ack(&feed, 3, &ack, 0), "an older session's acknowledgement is not believed");
    is_int(0, feed_ack(&feed, 4, &ack, 0), "this one's is");
    ack.durable = 49;
    is_int(-EBADMSG, feed_ack(&feed, 4, &ack, 0), "it cannot go back");
}

static void a_peer_that_does_nothing(void) {
    struct feed *feed = calloc(1, sizeof *feed);
    uint8_t chain[CHAIN_SIZE];
    struct wire_login login = {.window = 1 << 20};
    struct feed_ground ground = {.own = {.lsn = 9, .first = 1}, .chain_at = chain};
    struct wire_answer answer;
    chain_of(0, chain);
    memcpy(login.position.chain, chain, CHAIN_SIZE);
    feed_login(feed, 1, &login, &ground, 0, &answer);
    ok(!feed_stuck(feed, 100000 * MS, 1000 * MS), "nothing is asked of it: it is not stuck");
    feed_sent(feed, 9, 1000);
    ok(!feed_stuck(feed, 100500 * MS, 1000 * MS), "it has a second for an answer");
    ok(feed_stuck(feed, 101500 * MS, 1000 * MS), "none came");
    struct wire_ack ack = {.received = 9};
    feed_ack(feed, 1, &ack, 101600 * MS);
    feed->want_sent = 9;
    ok(!feed_stuck(feed, 102000 * MS, 1000 * MS), "it has received all, and has a second to sync it");
    ok(feed_stuck(feed, 103000 * MS, 1000 * MS), "it did not");
    free(feed);
}

static void what_a_peer_owes(void) {
    struct feed *feed = calloc(1, sizeof *feed);
    uint8_t chain[CHAIN_SIZE];
    struct wire_login login = {.window = 4 << 20};
    struct feed_ground ground = {.own = {.lsn = 9, .first = 1}, .chain_at = chain};
    struct wire_answer answer;
    chain_of(0, chain);
    memcpy(login.position.chain, chain, CHAIN_SIZE);
    feed_login(feed, 1, &login, &ground, 0, &answer);
    feed_look(feed, 0, 5000 * MS);
    is_int(0, feed_owes(feed, 5000 * MS), "who lacks nothing owes nothing");
    feed_look(feed, 9, 5500 * MS);
    is_int(500 * MS, feed_owes(feed, 5500 * MS), "what cannot be sent to it counts as well");
    feed_sent(feed, 8, 1 << 20);
    feed_sent(feed, 9, 1000);
    feed_look(feed, 9, 13000 * MS);
    is_int(0, feed_owes(feed, 13000 * MS), "a large frame may be under way for long");
    feed_look(feed, 9, 14000 * MS);
    is_int(1000 * MS, feed_owes(feed, 14000 * MS), "but not for ever");
    struct wire_ack ack = {.received = 3};
    feed_ack(feed, 1, &ack, 15000 * MS);
    feed_look(feed, 9, 15100 * MS);
    is_int(0, feed_owes(feed, 15100 * MS), "who takes a part of it does not owe it");
    ack.received = 8;
    feed_ack(feed, 1, &ack, 16000 * MS);
    feed_look(feed, 9, 17000 * MS);
    is_int(1000 * MS, feed_owes(feed, 17000 * MS) / (100 * MS) * (100 * MS) + 100 * MS, "the next frame is a small one");
    feed_stood_still(feed, 600 * MS, 17000 * MS);
    ok(feed_owes(feed, 17000 * MS) < 400 * MS, "while the primary stood still, nobody could acknowledge");
    feed_stood_still(feed, 60000 * MS, 17000 * MS);
    is_int(0, feed_owes(feed, 17000 * MS), "it never owes less than nothing");
    feed->want = 8;
    for (int64_t now = 18000 * MS; now <= 20000 * MS; now += 500 * MS) { /* records come, and nothing gets to its disk */
        feed_sent(feed, feed->next, 100);
        ack.received++;
        feed_ack(feed, 1, &ack, now);
        feed_look(feed, ack.received + 5, now);
    }
    is_int(3000 * MS, feed_owes(feed, 20000 * MS), "what is wanted on its disk counts by itself");
    ack.durable = 1;
    feed_ack(feed, 1, &ack, 20000 * MS);
    ok(feed_owes(feed, 20000 * MS) == 0, "some of it is enough");
    feed_end(feed, "over");
    is_int(0, feed_owes(feed, 99000 * MS), "without a session it owes nothing");
    free(feed);
}

static void records_of_another_epoch(void) {
    struct follow follow;
    struct wire_records records = {.first = 11, .count = 1};
    uint32_t skip;
    follow_start(&follow, 300 * MS, 0);
    ok(follow_primary(&follow, 1, EPOCH, 0), "somebody is primary");
    follow_login(&follow, 1, EPOCH, 5, 11, 0);
    is_int(-ESTALE, follow_records(&follow, 4, EPOCH, &records, &skip, 0), "records of an older session are dropped");
    is_int(0, follow_records(&follow, 5, EPOCH, &records, &skip, 0), "those of this one are used");
    follow_behind(&follow, 14, 1 * MS);
    follow_behind(&follow, 14, 9000 * MS);
    is_int(FOLLOW_STREAMING, follow.state, "while some are being taken in none is missing");
    follow_received(&follow, 10, true);
    follow_behind(&follow, 14, 1 * MS);
    follow_behind(&follow, 14, 1900 * MS);
    is_int(FOLLOW_STREAMING, follow.state, "records may be on their way for a while");
    follow_received(&follow, 12, true);
    follow_behind(&follow, 14, 2100 * MS);
    follow_behind(&follow, 14, 4000 * MS);
    is_int(FOLLOW_STREAMING, follow.state, "as long as some come");
    follow_behind(&follow, 14, 4200 * MS);
    is_int(FOLLOW_SEARCHING, follow.state, "if none come, they were lost: the session ends");
    follow_login(&follow, 1, EPOCH, 5, 13, 0);
    is_int(0, follow_records(&follow, 5, EPOCH, &records, &skip, 0), "and another one begins");
    follow_received(&follow, 12, true);
    follow_behind(&follow, 14, 1 * MS);
    follow_behind(&follow, 14, 3900 * MS);
    is_int(FOLLOW_STREAMING, follow.state, "in which the same record gets more time: it may be a large one");
    follow_behind(&follow, 14, 4100 * MS);
    is_int(FOLLOW_SEARCHING, follow.state, "but not for ever");
    follow_login(&follow, 1, EPOCH, 5, 13, 0);
    is_int(0, follow_records(&follow, 5, EPOCH, &records, &skip, 0), "and so on");
    is_int(-EPIPE, follow_records(&follow, 5, EPOCH_MAKE(1, 8), &records, &skip, 0), "another epoch ends the session");
    is_int(FOLLOW_SEARCHING, follow.state, "and it searches again");
}

static void frames_without_records(void) {
    struct follow follow;
    struct wire_records empty = {.first = 11, .want = 10};
    uint32_t skip = 7;
    follow_start(&follow, 300 * MS, 0);
    follow_login(&follow, 1, EPOCH, 5, 11, 0);
    is_int(0, follow_records(&follow, 5, EPOCH, &empty, &skip, 0), "a frame without records is used");
    ok(skip == 0 && follow.next == 11 && follow.want == 10 && !follow.taking, "it says what is wanted, and moves nothing");
    empty = (struct wire_records){.first = 9, .want = 8};
    is_int(0, follow_records(&follow, 5, EPOCH, &empty, &skip, 0), "one that names what is here already likewise");
    ok(skip == 0 && follow.next == 11 && follow.want == 10, "neither goes back");
    empty = (struct wire_records){.first = 14, .want = 13};
    is_int(-EPIPE, follow_records(&follow, 5, EPOCH, &empty, &skip, 0), "one that names a later record shows that some were lost");
    ok(follow.state == FOLLOW_SEARCHING && follow.next == 11 && strstr(follow.why, "from LSN 11 were lost"),
       "the session ends: %s", follow.why);
}

/* A refusal is of its session: in the next one, which ends for another reason, it says nothing. */
static void an_old_refusal(void) {
    struct follow follow;
    struct wire_answer diverged = {.verdict = VERDICT_DIVERGED, .fork = 3}, stream = {.verdict = VERDICT_STREAM};
    follow_start(&follow, 300 * MS, 0);
    follow_login(&follow, 1, EPOCH, 5, 11, 0);
    is_int(0, follow_answer(&follow, 1, 5, &diverged, 0), "a login is answered");
    ok(follow.state == FOLLOW_REFUSED && follow.verdict == VERDICT_DIVERGED && follow.fork == 3, "histories have parted");
    ok(follow_primary(&follow, 2, EPOCH_MAKE(9, 1), 1), "another node becomes primary");
    follow_login(&follow, 2, EPOCH_MAKE(9, 1), 6, 11, 1);
    is_int(0, follow_answer(&follow, 2, 6, &stream, 1), "which has the same history");
    ok(follow.state == FOLLOW_STREAMING && follow.verdict == 0, "so they have not parted");
}

int main(void) {
    plan_lazy();
    an_old_refusal();
    refusals();
    frames_without_records();
    records_of_another_epoch();
    a_peer_that_does_nothing();
    what_a_peer_owes();
    links_that_lose();
    return 0;
}
