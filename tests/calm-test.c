/* A volume that nobody uses: how often talker and keeper wake and how many heartbeats go, that a change ends that at once, and
 * that a node that vanishes meanwhile is missed as soon as ever. */
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <inttypes.h>
#include <stdio.h>

#define MEASURED 3 /* seconds */

static struct replicator *of(struct pair *pair, unsigned node) {
    return atomic_load(&pair->nodes[node].replicator);
}

static bool is_calm(struct pair *pair, unsigned node) {
    struct replicator *r = of(pair, node);
    repl_lock(r);
    bool calm = r->calm;
    repl_unlock(r);
    return calm;
}

static bool wait_calm(struct pair *pair, int seconds) {
    int64_t deadline = clock_boot() + seconds * 1000 * MS;
    while (!is_calm(pair, 0) || !is_calm(pair, 1)) {
        if (clock_boot() > deadline)
            return false;
        usleep(5000);
    }
    return true;
}

static uint64_t records(struct pair *pair, unsigned node) {
    struct position position;
    store_position(pair->nodes[node].store, &position);
    return position.lsn;
}

static void costs_little(struct pair *pair) {
    uint64_t looks[2], beats = 0;
    for (unsigned i = 0; i < 2; i++) {
        looks[i] = atomic_load(&of(pair, i)->looks);
        beats -= atomic_load(&of(pair, i)->beats);
    }
    usleep(MEASURED * 1000000);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t woken = atomic_load(&of(pair, i)->looks) - looks[i];
        beats += atomic_load(&of(pair, i)->beats);
        ok(woken <= MEASURED * 25, "%s: talker and keeper have woken %" PRIu64 " times in %d s", pair->config.nodes[i].name, woken,
           MEASURED);
    }
    /* Every quarter of the lease time a question and its answer. */
    ok(beats <= MEASURED * 12, "%" PRIu64 " heartbeats", beats);
    ok(beats >= MEASURED * 2, "but there are some");
    ok(is_calm(pair, 0) && is_calm(pair, 1), "both are calm still");
    ok(pair_wait_link(pair, 0, "working", 0) && pair_wait_link(pair, 1, "working", 0), "and in sync");
}

static void ends_at_once(struct pair *pair) {
    struct replicator *r = of(pair, 0);
    uint64_t before = records(pair, 0);
    is_int(0, pair_create_file(pair, 0, "news", NULL), "a change is acknowledged");
    ok(records(pair, 0) > before, "it has made a record");
    ok(!is_calm(pair, 0) && !is_calm(pair, 1), "neither node is calm any more");
    ok(pair_wait_equal(pair, 10) && wait_calm(pair, 30), "after a while both are again");
    /* What the talker has not looked at meanwhile was not owed. */
    repl_lock(r);
    struct feed *feed = &r->peers[1].feed;
    int64_t now = clock_boot();
    feed->received_at = feed->durable_at = feed->progress = r->peers[1].took_at = r->own_at = r->looked = now - 60000 * MS;
    bool was = r->calm;
    calm_end(r, now);
    int64_t owed = feed_owes(feed, now);
    bool own = r->own_at == now && r->looked == now && r->peers[1].took_at == now && feed->progress == now;
    repl_unlock(r);
    ok(was && owed == 0 && own, "nobody owes anything from before: %" PRId64 " ms", owed / MS);
}

static void missed_as_ever(struct pair *pair) {
    struct replicator *r = of(pair, 0);
    ok(wait_calm(pair, 30), "calm again");
    pair_silence(pair, 1);
    int64_t began = clock_boot();
    bool away = false;
    while (!away && clock_boot() - began < 20000 * MS) {
        repl_lock(r);
        away = r->peers[1].feed.state != FEED_STREAMING;
        repl_unlock(r);
        usleep(1000);
    }
    int64_t took = clock_boot() - began;
    /* The lease time is a second, and the last word was up to a quarter of it before. */
    ok(away && took < 1500 * MS, "a misses b after %" PRId64 " ms", took / MS);
    ok(pair_wait_link(pair, 0, "failed", 10), "and says so");
    is_int(0, pair_create_file(pair, 0, "alone", NULL), "and goes on alone");
}

int main(void) {
    struct pair pair;
    pair_make(&pair, TRANSPORT_CURVE);
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    ok(pair_wait_link(&pair, 0, "working", 60), "in sync");
    is_int(0, pair_create_file(&pair, 0, "something", NULL), "a change");
    ok(!is_calm(&pair, 0), "is no calm");
    if (!ok(wait_calm(&pair, 60), "but then it comes"))
        bail("there is no calm");
    costs_little(&pair);
    ends_at_once(&pair);
    missed_as_ever(&pair);
    pair_stop(&pair, 1);
    pair_stop(&pair, 0);
    return 0;
}
