/* A register that fails, while two nodes run: what was written without an answer is looked up, and a node whose register
 * does not say who is primary does not go on as if it were.
 */
#include "membership/register.h"
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <stdatomic.h>

/* In front of the real one. */
static struct {
    struct reg reg;
    struct reg *real;
    atomic_bool write, fail_change, fail_read; /* write: although it fails */
} faulty;

static int faulty_read(struct reg *reg, struct register_value *value) {
    (void)reg;
    return atomic_load(&faulty.fail_read) ? -EIO : faulty.real->engine->read(faulty.real, value);
}
static int faulty_change(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    (void)reg;
    if (!atomic_load(&faulty.fail_change))
        return faulty.real->engine->change(faulty.real, expected, next);
    if (atomic_load(&faulty.write)) {
        struct register_value before = *expected;
        faulty.real->engine->change(faulty.real, &before, next);
    }
    return -EIO;
}
static void faulty_close(struct reg *reg) {
    (void)reg;
    faulty.real->engine->close(faulty.real);
}
static const struct register_engine engine = {
    .name = "faulty", .read = faulty_read, .change = faulty_change, .close = faulty_close};

static void fail(bool change, bool write, bool read) {
    atomic_store(&faulty.write, write);
    atomic_store(&faulty.fail_read, read);
    atomic_store(&faulty.fail_change, change);
}

static unsigned members(struct pair *pair, unsigned node) {
    json_t *status = replicator_status(pair->nodes[node].replicator);
    unsigned count = (unsigned)json_array_size(json_object_get(json_object_get(status, "register"), "members"));
    json_decref(status);
    return count;
}

static void set_changes(struct pair *pair) {
    fail(true, true, false);
    pair_stop(pair, 1);
    is_int(0, pair_create_file(pair, 0, "written, no answer", NULL), "a shrunk set that was written without an answer is used");
    is_int(1, members(pair, 0), "it is what the register has");
    fail(true, true, true);
    pair_start(pair, 1);
    pair_wait_link(pair, 1, "pending", 10);
    usleep(300000);
    is_int(1, members(pair, 0), "while nobody knows what was written, the set is the old one");
    is_int(0, pair_create_file(pair, 0, "both sets", NULL), "a change that both sets have is acknowledged");
    fail(false, false, false);
    ok(pair_wait_link(pair, 0, "working", 60), "when the register answers, the grown set is found");
    is_int(2, members(pair, 0), "with both");
}

static void handovers(struct pair *pair) {
    char why[512] = "";
    fail(true, false, false);
    ok(replicator_switchover(pair->nodes[0].replicator, "b", why, sizeof why) < 0, "no handover: %s", why);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[0].role), "a register that takes nothing: no new epoch either");
    fail(false, false, false);
    is_int(0, replicator_promote(pair->nodes[0].replicator, false, why, sizeof why), "a is promoted again %s", why);
    ok(pair_wait_link(pair, 0, "working", 60), "in sync");

    fail(true, true, true);
    is_int(-EINPROGRESS, replicator_switchover(pair->nodes[0].replicator, "b", why, sizeof why), "unknown: %s", why);
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[0].role), "a is primary no more");
    is_int(-EROFS, pair_create_file(pair, 0, "no", NULL), "it takes no changes");
    is_int(ROLE_STANDBY, atomic_load(&pair->nodes[1].role), "and b has not been told");
    fail(false, false, false);
    int rc = replicator_promote(pair->nodes[0].replicator, false, why, sizeof why);
    is_int(-ESTALE, rc, "the register has moved on: %s", why);
    is_int(0, replicator_promote(pair->nodes[1].replicator, false, why, sizeof why), "b is promoted %s", why);
    ok(pair_wait_link(pair, 1, "working", 60), "in sync");
    is_int(0, pair_create_file(pair, 1, "on b", NULL), "and works");

    ok(pair_wait_equal(pair, 60), "both are equal");
}

int main(void) {
    plan_lazy();
    struct pair *pair = calloc(1, sizeof *pair);
    pair_make(pair, TRANSPORT_CLEAR);
    pair_start(pair, 0);
    pair_start(pair, 1);
    ok(pair_wait_link(pair, 0, "working", 60), "in sync");
    /* The next change goes through it. Who reads the register while a role or the set changes holds this lock. */
    struct replicator *first = atomic_load(&pair->nodes[0].replicator);
    PROMISE(pthread_mutex_lock(&first->role_lock) == 0);
    faulty.reg.engine = &engine;
    faulty.real = pair->nodes[0].reg;
    pair->nodes[0].reg = &faulty.reg;
    PROMISE(pthread_mutex_unlock(&first->role_lock) == 0);
    set_changes(pair);
    handovers(pair);
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    free(pair);
    return 0;
}
