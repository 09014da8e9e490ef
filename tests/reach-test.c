/* Does the journal reach until a copy is complete? Played on virtual time: users that make as much as they may, a node that
 * copies at its own pace, and a journal with a limit.
 */
#include "replication/parts.h"
#include "tests/tap.h"

#define MIB (1ull << 20)

struct played {
    struct reach reach;
    struct reach_rule rule;
    uint64_t users;   /* bytes of records a second that they would make */
    uint64_t journal; /* percent: bytes of the journal for a byte of records */
    uint64_t node;    /* bytes a second that it takes */
    uint64_t size;    /* of what it copies */
    uint64_t given, made, total;
    uint64_t slowest; /* what users got at least, where they were slowed */
    int64_t now, done;
};

/* Until it is complete, and 5 s of replacing its store; or the journal is a quarter beyond its limit. */
static bool play(struct played *p) {
    reach_begin(&p->reach, 0, 0);
    p->slowest = UINT64_MAX;
    for (; p->now < 10000000 * MS; p->now += 20 * MS) {
        uint64_t quota = reach_quota(&p->reach), records = MIN(p->users, quota);
        if (quota != REACH_NEVER)
            p->slowest = MIN(p->slowest, records);
        p->total += records / 50;
        p->made += records / 50 * p->journal / 100;
        p->given = MIN(p->given + p->node / 50, p->size);
        if (p->given == p->size && p->done == 0)
            p->done = p->now;
        if (p->done && p->now - p->done > 5000 * MS)
            return true;
        if (reach_need(&p->reach, p->made) > p->rule.limit + p->rule.limit / 4)
            return false;
        struct reach_sight sight = {.left = p->size - p->given, .given = p->given, .made = p->made, .total = p->total};
        reach_look(&p->reach, &p->rule, &sight, p->now);
    }
    return false;
}

static void copies(void) {
    struct played easy = {.rule = {1024 * MIB, MIB}, .users = 10 * MIB, .journal = 100, .node = 100 * MIB, .size = 4096 * MIB};
    ok(play(&easy), "a copy of 40 s, and 400 MiB of work: it ends");
    is_int(UINT64_MAX, easy.slowest, "and nobody was slowed");
    struct played hard = {.rule = {1024 * MIB, MIB}, .users = 100 * MIB, .journal = 100, .node = 100 * MIB, .size = 40960 * MIB};
    ok(play(&hard), "a copy of 400 s, and work that would fill the journal in 10 s: it ends");
    ok(hard.slowest >= MIB && hard.slowest < 10 * MIB, "work got %llu KiB a second at least",
       (unsigned long long)hard.slowest >> 10);
    ok(reach_need(&hard.reach, hard.made) <= 1024 * MIB, "the journal had %llu MiB of 1024 in the end",
       (unsigned long long)(reach_need(&hard.reach, hard.made) / MIB));
    struct played small = {.rule = {16 * MIB, 64 << 10}, .users = 40 * MIB, .journal = 100, .node = 10 * MIB, .size = 300 * MIB};
    ok(play(&small), "a journal that would be full in less than a second");
    struct played deletes = {.rule = {64 * MIB, 1 << 10}, .users = MIB, .journal = 6400, .node = 10 * MIB, .size = 300 * MIB};
    ok(play(&deletes), "deletes, of which each keeps much data");
    struct played writes = {.rule = {64 * MIB, MIB}, .users = 200 * MIB, .journal = 2, .node = 10 * MIB, .size = 300 * MIB};
    ok(play(&writes), "writes of new data, which the journal has not");
    ok(writes.slowest < 200 * MIB && writes.slowest > 20 * MIB, "are slowed by that little: %llu KiB a second at least", (unsigned long long)writes.slowest >> 10);
    struct played vain = {.rule = {16 * MIB, 4 * MIB}, .users = 40 * MIB, .journal = 100, .node = 10 * MIB, .size = 300 * MIB};
    ok(!play(&vain), "a floor that fills the journal all the same: the copy is in vain");
    is_int(4 * MIB, vain.slowest, "and work got the floor");
}

static void when_nothing_is_slowed(void) {
    struct reach reach = {0};
    struct reach_rule rule = {100 * MIB, MIB};
    struct reach_sight sight = {.left = 1000 * MIB};
    is_int(REACH_NEVER, reach_quota(&reach), "nobody copies: no quota");
    is_int(0, reach_need(&reach, 5 * MIB), "and nothing is needed");
    reach_begin(&reach, 7 * MIB, 5 * MIB);
    is_int(9 * MIB, reach_need(&reach, 7 * MIB), "what was there before the copy counts");
    for (int64_t now = MS; now < 10000 * MS; now += 20 * MS) {
        sight.made += 200 << 10;
        sight.total += 200 << 10;
        sight.given += 100 << 10;
        reach_look(&reach, &rule, &sight, now);
    }
    ok(reach_quota(&reach) < REACH_NEVER, "it would not reach: work is slowed");
    sight.held = true;
    for (int64_t now = 10000 * MS; now < 13000 * MS; now += 20 * MS)
        reach_look(&reach, &rule, &sight, now);
    ok(reach_quota(&reach) < REACH_NEVER, "whoever waits pays for what came before: nothing is made, and they still want more");
    sight.away = true;
    sight.held = false;
    reach_look(&reach, &rule, &sight, 13001 * MS);
    is_int(REACH_NEVER, reach_quota(&reach), "for a node that is away nothing is");
    sight.away = false;
    reach_look(&reach, &rule, &sight, 13300 * MS);
    reach_look(&reach, &rule, &sight, 14000 * MS);
    is_int(REACH_NEVER, reach_quota(&reach), "users who are content with less are not, either");
    reach_end(&reach);
    is_int(0, reach_need(&reach, sight.made), "it is over");
}

/* What is known of the copy stays, as the node was killed before it said that it needs no more. */
static void once_it_was_fed(void) {
    static struct config config = {.catchup_share = 50, .catchup_floor = 1000};
    struct replicator *r = calloc(1, sizeof *r);
    r->config = &config;
    r->lease = 2000 * MS;
    r->journal.limit = 16 * MIB;
    struct copy_note *copy = &r->copies[1];
    struct peer *peer = &r->peers[1];
    *copy = (struct copy_note){.open = true, .blocks_of = 100000, .wanted = UINT64_MAX};
    reach_begin(&copy->reach, 0, 0);
    int64_t now = 1000 * MS;
    uint64_t limit = REACH_NEVER;
    for (; now < 5000 * MS; now += 20 * MS) {
        r->journal.made += MIB / 10;
        r->total += MIB / 10;
        copy->bytes += BATON_BLOCK;
        peer->heard = copy->last = now;
        limit = reaching_limit(r, 1, now);
    }
    ok(limit < REACH_NEVER, "the journal does not reach: work is slowed");
    peer->feed.state = FEED_STREAMING;
    is_int(REACH_NEVER, reaching_limit(r, 1, now), "it is fed: no more");
    peer->feed.state = FEED_ABSENT;
    for (int64_t end = now + 4000 * MS; now < end; now += 20 * MS) {
        r->journal.made += MIB / 10;
        r->total += MIB / 10;
        peer->heard = now;
        limit = reaching_limit(r, 1, now);
    }
    is_int(REACH_NEVER, limit, "nor when it is fed no longer: the copy was complete");
    free(r);
}

int main(void) {
    plan_lazy();
    copies();
    when_nothing_is_slowed();
    once_it_was_fed();
    return 0;
}
