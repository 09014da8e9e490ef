/* A primary that does not count what is on its way: the standby ends the session when more waits here than it has granted. */
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <stdio.h>

#define PIECE (1u << 20)

static uint8_t content[PIECE];

static uint64_t write_pieces(struct pair *pair, uint64_t ino, unsigned count) {
    uint64_t lsn = 0;
    for (unsigned i = 0; i < count; i++) {
        memset(content, (int)i + 1, sizeof content);
        if (op_write(pair->nodes[0].store, ino, content, sizeof content, (uint64_t)i * PIECE, 0, &lsn))
            bail("a write fails");
    }
    return lsn;
}

static uint64_t sent_in_session(struct replicator *a, uint64_t *session) {
    repl_lock(a);
    uint64_t sent = a->peers[1].feed.total_bytes;
    *session = a->peers[1].feed.session;
    repl_unlock(a);
    return sent;
}

/* While b takes nothing in, a sends: so much within its window, or without regard to it. */
static void hold_back(struct pair *pair, uint64_t ino, uint64_t window, unsigned pieces) {
    struct replicator *a = atomic_load(&pair->nodes[0].replicator);
    uint64_t before, now, session, same;
    before = sent_in_session(a, &session);
    repl_lock(a);
    a->peers[1].feed.window = window;
    repl_unlock(a);
    store_lock(pair->nodes[1].store);
    write_pieces(pair, ino, pieces);
    uint64_t most = MIN(window, (uint64_t)pieces * PIECE) - 2 * PIECE;
    int64_t deadline = clock_boot() + 60000 * MS;
    do {
        usleep(1000);
        now = sent_in_session(a, &same);
    } while (same == session && now - before < most && clock_boot() < deadline);
    ok(same == session && now - before >= most, "%llu bytes were sent in the session", (unsigned long long)(now - before));
    store_unlock(pair->nodes[1].store);
}

static bool trouble_since(struct pair *pair, uint64_t session) {
    struct replicator *b = atomic_load(&pair->nodes[1].replicator);
    bool seen = false;
    int64_t deadline = clock_boot() + 60000 * MS;
    repl_lock(b);
    while (!(seen = b->follow.session != session) && clock_boot() < deadline)
        repl_wait(b, &b->news, clock_boot() + 10 * MS);
    seen = seen && strstr(b->trouble, "sent more than it may");
    diag("b says: %s", b->trouble);
    repl_unlock(b);
    return seen;
}

int main(void) {
    static struct pair pair;
    uint64_t ino, session;
    plan_lazy();
    pair_make(&pair, TRANSPORT_CLEAR);
    pair.config.lease_ms = 30000; /* b is silent for a while */
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    ok(pair_wait_link(&pair, 1, "working", 60), "b is in sync");
    PROMISE(pair_create_file(&pair, 0, "file", &ino) == 0);
    struct replicator *b = atomic_load(&pair.nodes[1].replicator);
    repl_lock(b);
    session = b->follow.session;
    repl_unlock(b);

    hold_back(&pair, ino, FEED_WINDOW_BYTES, 48);
    ok(pair_wait_equal(&pair, 60), "a primary that counts is taken from");
    repl_lock(b);
    ok(b->follow.session == session && b->trouble[0] == 0, "in one session");
    repl_unlock(b);

    hold_back(&pair, ino, 1ull << 40, 48);
    ok(trouble_since(&pair, session), "from one that does not, the session is ended with a sentence");
    ok(pair_wait_equal(&pair, 60), "and the next one goes on");
    ok(pair_wait_link(&pair, 1, "working", 60), "b is in sync again");
    pair_stop(&pair, 1);
    pair_stop(&pair, 0);
    return 0;
}
