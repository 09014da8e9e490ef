/* Replies wait for their LSN and no longer: order, the two lines, giving up, timeouts, many threads. */
#include "fs/park.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdatomic.h>

struct waiter {
    struct parked parked;
    int answers;
    int error;
    int order;
};

static int order;

static void answered(struct parked *parked, int error) {
    struct waiter *waiter = (struct waiter *)parked;
    waiter->answers++;
    waiter->error = error;
    waiter->order = ++order;
}

static void wait_until_due(struct park *park, struct waiter *waiter, uint64_t lsn, int64_t due) {
    *waiter = (struct waiter){.parked = {.lsn = lsn, .done = answered}};
    park_wait_until(park, PARK_RECEIVED, &waiter->parked, due);
}

static void test_due(void) {
    struct park *park = park_create();
    struct waiter a, b, c, d, e;

    park_advance(park, PARK_RECEIVED, 5);
    wait_until_due(park, &a, 5, 100);
    wait_until_due(park, &b, 9, 200);
    wait_until_due(park, &c, 5, 300);
    wait_until_due(park, &d, 5, 400);
    is_int(4, park_count(park), "four wait for their time");
    is_int(100, park_pass(park, 99), "the first one's comes next");
    is_int(0, a.answers, "not before it is due");
    wait_until_due(park, &e, 5, 150);
    is_int(200, park_pass(park, 150), "one that came later is due earlier");
    is_int(1, e.answers, "and is let go then");
    is_int(300, park_pass(park, 200), "two are due");
    ok(a.answers == 1 && a.error == 0, "one is answered");
    is_int(0, b.answers, "the other one waits for its LSN now");
    park_advance(park, PARK_RECEIVED, 9);
    ok(b.answers == 1 && b.error == 0, "and is answered with it");
    is_int(0, c.answers, "a line does not let go what is not due");
    is_int(INT64_MAX, park_pass(park, INT64_MAX), "all can be let go");
    ok(c.answers == 1 && d.answers == 1 && park_count(park) == 0, "and are answered");
    wait_until_due(park, &a, 5, 500);
    park_give_up(park, -EROFS);
    is_int(-EROFS, a.error, "giving up answers what is not due");
    wait_until_due(park, &a, 5, 500);
    wait_until_due(park, &b, 5, 500);
    park_reset(park, 3);
    ok(a.error == -EIO && b.error == -EIO, "so does a reset");
    park_free(park);
}

static void wait_for(struct park *park, enum park_line line, struct waiter *waiter, uint64_t lsn) {
    *waiter = (struct waiter){.parked = {.lsn = lsn, .done = answered}};
    park_wait(park, line, &waiter->parked);
}

static void test_order(void) {
    struct park *park = park_create();
    struct waiter a, b, c, d, e;

    order = 0;
    wait_for(park, PARK_RECEIVED, &a, 0);
    is_int(1, a.answers, "LSN 0 needs no waiting");
    wait_for(park, PARK_RECEIVED, &b, 5);
    wait_for(park, PARK_RECEIVED, &c, 3);
    wait_for(park, PARK_RECEIVED, &d, 9);
    wait_for(park, PARK_DURABLE, &e, 3);
    is_int(4, park_count(park), "four wait");
    park_advance(park, PARK_RECEIVED, 2);
    is_int(0, b.answers + c.answers + d.answers, "nobody is answered early");
    park_advance(park, PARK_RECEIVED, 5);
    is_int(2, c.order, "3 is answered first, though it came second");
    is_int(3, b.order, "then 5");
    is_int(0, d.answers, "9 waits on");
    is_int(0, e.answers, "the other line waits on");
    park_advance(park, PARK_RECEIVED, 4);
    is_int(5, park_position(park, PARK_RECEIVED), "a line does not go back");
    park_give_up(park, -EROFS);
    is_int(-EROFS, d.error, "giving up answers with the error");
    is_int(-EROFS, e.error, "on both lines");
    is_int(0, park_count(park), "then nobody waits");
    park_reset(park, 3);
    is_int(3, park_position(park, PARK_RECEIVED), "a reset may go back");
    is_int(3, park_position(park, PARK_DURABLE), "on both lines");
    wait_for(park, PARK_RECEIVED, &a, 4);
    is_int(0, a.answers, "and waiting goes by the new position");
    park_free(park);
    is_int(-EIO, a.error, "freeing gives up");
}

static void test_reset(void) {
    struct park *park = park_create();
    struct waiter received, durable;

    wait_for(park, PARK_RECEIVED, &received, 5);
    wait_for(park, PARK_DURABLE, &durable, 9);
    park_reset(park, 7);
    ok(received.answers == 1 && durable.answers == 1, "a reset answers who waits, once");
    is_int(-EIO, received.error, "with an error, although its new position is beyond one's LSN");
    is_int(-EIO, durable.error, "both of them");
    is_int(0, park_count(park), "nobody waits");
    is_int(7, park_position(park, PARK_DURABLE), "it stands where it was told");
    park_free(park);
}

static void *advance_later(void *context) {
    for (uint64_t lsn = 1; lsn <= 100; lsn++)
        park_advance(context, PARK_DURABLE, lsn);
    return NULL;
}

static void test_sync(void) {
    struct park *park = park_create();
    pthread_t thread;
    struct waiter other;

    wait_for(park, PARK_DURABLE, &other, 200);
    is_int(-ETIMEDOUT, park_sync(park, PARK_DURABLE, 100, 1000000), "a wait in a thread times out");
    is_int(1, park_count(park), "and is withdrawn, others are not");
    pthread_create(&thread, NULL, advance_later, park);
    is_int(0, park_sync(park, PARK_DURABLE, 100, INT64_C(60000000000)), "and ends when the LSN is reached");
    pthread_join(thread, NULL);
    park_free(park);
    is_int(1, other.answers, "the other waiter was answered once");
}

enum { THREADS = 4, EACH = 20000 };
static struct park *shared;
static _Atomic uint64_t next_lsn, answered_early;
static _Atomic uint64_t answers;

static void count_answer(struct parked *parked, int error) {
    if (error || park_position(shared, PARK_RECEIVED) < parked->lsn)
        atomic_fetch_add(&answered_early, 1);
    atomic_fetch_add(&answers, 1);
    free(parked);
}

static void *wait_many(void *unused) {
    for (int i = 0; i < EACH; i++) {
        struct parked *parked = malloc(sizeof *parked);
        *parked = (struct parked){.lsn = atomic_fetch_add(&next_lsn, 1) + 1, .done = count_answer};
        park_wait(shared, PARK_RECEIVED, parked);
    }
    return unused;
}

static void test_threads(void) {
    pthread_t threads[THREADS];

    shared = park_create();
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, wait_many, NULL);
    while (park_position(shared, PARK_RECEIVED) < THREADS * EACH)
        park_advance(shared, PARK_RECEIVED, atomic_load(&next_lsn));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    is_int(THREADS * EACH, atomic_load(&answers), "under threads everyone is answered once");
    is_int(0, atomic_load(&answered_early), "and nobody early");
    is_int(0, park_count(shared), "and nobody is left");
    park_free(shared);
}

int main(void) {
    plan_lazy();
    test_order();
    test_due();
    test_reset();
    test_sync();
    test_threads();
    return 0;
}
