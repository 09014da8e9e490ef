/* The table of file locks against a model that knows, for each byte of a small file, who has it: what is granted, what is in
 * the way, what is given back by a close. And those who wait: in their order, in circles, interrupted, out of time. */
#include "fs/locks.h"
#include "tests/tap.h"

enum { OWNERS = 4, HANDLES = 6, BYTES = 24, INODES = 2 };

struct cell {
    enum lock_type type;
    uint64_t handle;
};
static struct cell model[INODES][OWNERS][BYTES + 1]; /* ranges; the last one: all behind */
static struct cell whole[INODES][HANDLES];       /* of flock the owner is an open file */

static struct locks *locks;
static uint64_t seed;

static unsigned pick(unsigned below) {
    return (unsigned)(test_random(&seed) % below);
}

static struct lock_ask range(uint64_t ino, uint64_t owner, enum lock_type type, uint64_t first, uint64_t last) {
    return (struct lock_ask){.ino = ino, .owner = owner, .handle = owner, .type = type, .first = first, .last = last};
}

static bool model_blocks(const struct lock_ask *ask) {
    for (unsigned owner = 0; owner < OWNERS; owner++)
        for (uint64_t at = ask->first; owner != ask->owner && at <= MIN(ask->last, BYTES); at++) {
            enum lock_type type = model[ask->ino][owner][at].type;
            if (type == LOCK_TYPE_WRITE || (type == LOCK_TYPE_READ && ask->type == LOCK_TYPE_WRITE))
                return true;
        }
    return false;
}

static bool whole_blocks(const struct lock_ask *ask) {
    for (unsigned handle = 0; handle < HANDLES; handle++) {
        enum lock_type type = whole[ask->ino][handle].type;
        if (handle != ask->owner && (type == LOCK_TYPE_WRITE || (type == LOCK_TYPE_READ && ask->type == LOCK_TYPE_WRITE)))
            return true;
    }
    return false;
}

static unsigned step_range(void) {
    struct lock_ask ask = {.ino = pick(INODES), .owner = pick(OWNERS), .type = (enum lock_type)pick(3), .first = pick(BYTES)};
    ask.handle = ask.owner; /* one open file each: what is merged has one handle */
    uint64_t last = ask.first + pick(8);
    ask.last = pick(4) ? MIN(last, BYTES - 1) : UINT64_MAX;
    bool blocked = ask.type != LOCK_TYPE_NONE && model_blocks(&ask);
    struct lock_ask found;
    unsigned wrong = locks_find(locks, &ask, &found) != blocked;
    wrong += blocked && (found.owner == ask.owner || found.first > ask.last || found.last < ask.first);
    wrong += locks_set(locks, &ask, NULL) != (blocked ? -EAGAIN : 0);
    for (uint64_t at = ask.first; !blocked && at <= MIN(ask.last, BYTES); at++)
        model[ask.ino][ask.owner][at] = (struct cell){ask.type, ask.handle};
    return wrong;
}

static unsigned step_whole(void) {
    struct lock_ask ask = {.ino = pick(INODES), .owner = pick(HANDLES), .type = (enum lock_type)pick(3), .whole = true,
                           .last = UINT64_MAX};
    ask.handle = ask.owner;
    bool blocked = ask.type != LOCK_TYPE_NONE && whole_blocks(&ask);
    unsigned wrong = locks_set(locks, &ask, NULL) != (blocked ? -EAGAIN : 0);
    if (!blocked)
        whole[ask.ino][ask.owner] = (struct cell){ask.type, ask.handle};
    else if (whole[ask.ino][ask.owner].type != ask.type) /* it has lost what it had */
        whole[ask.ino][ask.owner].type = LOCK_TYPE_NONE;
    return wrong;
}

static void step_close(void) {
    uint64_t ino = pick(INODES), which = pick(OWNERS);
    if (pick(2)) {
        locks_flushed(locks, ino, which);
        memset(model[ino][which], 0, sizeof model[ino][which]);
    } else {
        locks_released(locks, ino, which);
        memset(model[ino][which], 0, sizeof model[ino][which]);
        whole[ino][which].type = LOCK_TYPE_NONE;
    }
}

/* Every byte, asked for by somebody else: what is in the way is what the model has. */
static unsigned compare(void) {
    unsigned wrong = 0;
    for (uint64_t ino = 0; ino < INODES; ino++)
        for (uint64_t at = 0; at <= BYTES; at++)
            for (int type = LOCK_TYPE_READ; type <= LOCK_TYPE_WRITE; type++) {
                struct lock_ask ask = range(ino, OWNERS, (enum lock_type)type, at, at), found;
                wrong += locks_find(locks, &ask, &found) != model_blocks(&ask);
            }
    return wrong;
}

static void test_model(void) {
    unsigned wrong = 0;
    size_t held, waiting;
    for (unsigned i = 0; i < 200000 && !wrong; i++) {
        unsigned what = pick(16);
        if (what == 0)
            step_close();
        else
            wrong += what < 12 ? step_range() : step_whole();
        if (i % 64 == 0)
            wrong += compare();
        if (wrong)
            diag("step %u", i);
    }
    is_int(0, wrong, "granted and refused as the model says");
    locks_drop(locks, -EIO);
    locks_count(locks, &held, &waiting);
    ok(held == 0 && waiting == 0, "dropped, there is none");
    memset(model, 0, sizeof model);
}

/* ---- Waiting ---- */

struct waiter {
    struct lock_waiter waiter;
    int error; /* 1: none yet */
    unsigned place;
};
static unsigned places;

static void told(struct lock_waiter *waiter, int error) {
    struct waiter *own = (struct waiter *)waiter;
    own->error = error;
    own->place = ++places;
}

static int wait_for(struct waiter *waiter, struct lock_ask ask, uint64_t key, int64_t until) {
    *waiter = (struct waiter){.waiter = {.key = key, .until = until, .done = told}, .error = 1};
    return locks_set(locks, &ask, &waiter->waiter);
}

static void test_order(void) {
    struct waiter first, second, third, reader;
    struct lock_ask ask = range(1, 1, LOCK_TYPE_WRITE, 0, 9);
    places = 0;
    is_int(0, locks_set(locks, &ask, NULL), "one has a range");
    is_int(-EINPROGRESS, wait_for(&first, range(1, 2, LOCK_TYPE_WRITE, 5, 7), 2, INT64_MAX), "another one waits for a part of it");
    is_int(-EINPROGRESS, wait_for(&second, range(1, 3, LOCK_TYPE_WRITE, 6, 20), 4, INT64_MAX), "so does a third one");
    is_int(-EINPROGRESS, wait_for(&third, range(1, 4, LOCK_TYPE_WRITE, 0, 1), 6, INT64_MAX), "and one, for the beginning");
    is_int(0, wait_for(&reader, range(1, 5, LOCK_TYPE_READ, 30, 40), 8, INT64_MAX), "what is free is had at once");
    ask = range(1, 1, LOCK_TYPE_NONE, 4, 9);
    is_int(0, locks_set(locks, &ask, NULL), "the end of the range is given back");
    ok(first.error == 0 && second.error == 1 && third.error == 1, "whoever waited for that longest has it");
    locks_flushed(locks, 1, 1);
    ok(third.error == 0 && second.error == 1, "the file closed, the one at the beginning has its part");
    locks_released(locks, 1, 2);
    is_int(0, second.error, "then the last one");
    locks_drop(locks, -EIO);
}

static void test_circle(void) {
    struct waiter a, b, c;
    struct lock_ask ask;
    for (uint64_t owner = 1; owner <= 3; owner++) {
        ask = range(1, owner, LOCK_TYPE_WRITE, owner, owner);
        locks_set(locks, &ask, NULL);
    }
    is_int(-EINPROGRESS, wait_for(&a, range(1, 1, LOCK_TYPE_WRITE, 2, 2), 2, INT64_MAX), "a waits for b");
    is_int(-EINPROGRESS, wait_for(&b, range(1, 2, LOCK_TYPE_WRITE, 3, 3), 4, INT64_MAX), "b for c");
    is_int(-EDEADLK, wait_for(&c, range(1, 3, LOCK_TYPE_WRITE, 1, 1), 6, INT64_MAX), "c may not wait for a");
    ask = range(1, 3, LOCK_TYPE_NONE, 0, UINT64_MAX);
    locks_set(locks, &ask, NULL);
    ok(b.error == 0 && a.error == 1, "it gives back what it has, and b goes on");
    locks_drop(locks, -ENOLCK);
    is_int(-ENOLCK, a.error, "all dropped: who waits is told");
}

static void test_interrupts(void) {
    struct waiter waiter;
    struct lock_ask ask = range(1, 1, LOCK_TYPE_WRITE, 0, 9);
    locks_set(locks, &ask, NULL);
    wait_for(&waiter, range(1, 2, LOCK_TYPE_READ, 0, 0), 42, INT64_MAX);
    ok(!locks_interrupt(locks, 44), "somebody else is interrupted");
    is_int(1, waiter.error, "this one waits on");
    ok(locks_interrupt(locks, 42), "it is interrupted");
    is_int(-EINTR, waiter.error, "and told");
    is_int(-EINTR, wait_for(&waiter, range(1, 2, LOCK_TYPE_READ, 0, 0), 44, INT64_MAX), "one whose interrupt came first");
    is_int(-EINPROGRESS, wait_for(&waiter, range(1, 2, LOCK_TYPE_READ, 0, 0), 46, INT64_MAX), "others are not concerned");
    locks_drop(locks, -EIO);
}

static void test_moments(void) {
    struct waiter brief, longer;
    struct lock_ask ask = range(1, 1, LOCK_TYPE_WRITE, 0, 9);
    locks_set(locks, &ask, NULL);
    wait_for(&brief, range(1, 2, LOCK_TYPE_WRITE, 0, 0), 2, 100);
    wait_for(&longer, range(1, 3, LOCK_TYPE_WRITE, 0, 0), 4, 200);
    is_int(100, locks_pass(locks, 99), "the first one's time is up next");
    ok(brief.error == 1, "not yet");
    is_int(200, locks_pass(locks, 100), "then the second one's");
    ok(brief.error == -EAGAIN && longer.error == 1, "it hears that it is not to be had");
    locks_released(locks, 1, 1);
    is_int(0, longer.error, "released in time, the other one has it");
    is_int(INT64_MAX, locks_pass(locks, 1000), "nobody waits");
    locks_drop(locks, -EIO);
}

static void test_bounds(void) {
    unsigned granted = 0;
    int rc = 0;
    for (uint64_t at = 0; at < 2 * LOCKS_MAX && rc == 0; at++) {
        struct lock_ask ask = range(1, 1, LOCK_TYPE_WRITE, 2 * at, 2 * at);
        rc = locks_set(locks, &ask, NULL);
        granted += rc == 0;
    }
    is_int(-ENOLCK, rc, "there is an end to it");
    ok(granted >= LOCKS_MAX - 2 && granted <= LOCKS_MAX, "at the bound");
    struct lock_ask all = range(1, 1, LOCK_TYPE_NONE, 0, UINT64_MAX);
    is_int(0, locks_set(locks, &all, NULL), "all can be given back");
    size_t held, waiting;
    locks_count(locks, &held, &waiting);
    is_int(0, held, "and then there is none");
    struct lock_ask last = range(1, 1, LOCK_TYPE_WRITE, UINT64_MAX, UINT64_MAX);
    struct lock_ask before = range(1, 1, LOCK_TYPE_WRITE, 0, UINT64_MAX - 1);
    ok(locks_set(locks, &last, NULL) == 0 && locks_set(locks, &before, NULL) == 0, "at the end of the range");
    locks_count(locks, &held, &waiting);
    is_int(1, held, "two that touch are one");
    locks_drop(locks, -EIO);
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    locks = locks_create();
    test_model();
    test_order();
    test_circle();
    test_interrupts();
    test_moments();
    test_bounds();
    locks_free(locks);
    return 0;
}
