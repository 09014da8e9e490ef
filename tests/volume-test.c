/* Who speaks for the in-sync set: the only node of a volume for itself; of several nodes only the replicator, so that
 * before it starts and after it has stopped nothing is acknowledged by this node's disk alone. And how long what waits while
 * new work is slowed. */
#include "fs/volume.h"
#include "tests/fixture.h"

static struct volume volume;

struct waiter {
    struct parked parked;
    bool answered;
    int error;
};

static void answered(struct parked *parked, int error) {
    struct waiter *waiter = (struct waiter *)parked;
    waiter->answered = true;
    waiter->error = error;
}

/* A replicator that slows new work: everything is due in five seconds. */
static int64_t all_due;

int64_t __wrap_replicator_due(struct replicator *replicator);
int64_t __wrap_replicator_due(struct replicator *replicator) {
    (void)replicator;
    return all_due;
}

bool __wrap_replicator_slows(struct replicator *replicator);
bool __wrap_replicator_slows(struct replicator *replicator) {
    (void)replicator;
    return all_due != 0;
}

static void slowed(uint64_t lsn) {
    static int any;
    struct waiter write = {.parked = {.done = answered}}, name = write, closing = write;
    int64_t begin = clock_boot();
    volume.park = park_create();
    park_advance(volume.park, PARK_RECEIVED, lsn);
    atomic_store(&volume.replicator, (struct replicator *)&any);
    all_due = begin + INT64_C(5000000000);
    volume_wait(&volume, WAIT_WRITE, lsn, &write.parked);
    volume_wait(&volume, WAIT_CHANGE, lsn, &name.parked);
    volume_wait(&volume, WAIT_CLOSE, lsn, &closing.parked);
    ok(closing.answered, "a close is not slowed");
    ok(!volume_settled(&volume, WAIT_CHANGE, lsn) && !name.answered, "a change of a name is");
    park_pass(volume.park, clock_boot() + VOLUME_NAMES_SLOWED);
    ok(name.answered, "but not longer than others can do without its directory");
    ok(!write.answered, "a write, which came before it, is slowed longer");
    park_pass(volume.park, all_due);
    ok(write.answered && write.error == 0, "until it is due");
    all_due = 0;
    atomic_store(&volume.replicator, NULL);
    park_free(volume.park);
}

int main(void) {
    plan_lazy();
    struct position position;
    struct waiter waiter = {.parked = {.done = answered}}, own_disk = {.parked = {.done = answered}};

    volume.store = fixture_store("store", 1);
    volume.park = park_create();
    volume.local = park_create();
    volume.config.acknowledge = ACKNOWLEDGE_CLOSE;
    make(volume.store, ROOT_INO, "file", 0100644);
    store_position(volume.store, &position);
    is_int(0, store_sync(volume.store, position.lsn), "a record is on this disk");

    volume.config.node_count = 2;
    volume_wait(&volume, WAIT_FSYNC, position.lsn, &waiter.parked);
    own_disk.parked.lsn = position.lsn;
    park_wait(volume.local, PARK_DURABLE, &own_disk.parked);
    volume_durable(&volume, position.lsn);
    ok(own_disk.answered, "who waits for this disk is answered");
    ok(!waiter.answered, "who waits for the other node, too, is not");
    park_give_up(volume.park, -EIO);
    is_int(-EIO, waiter.error, "but hears that nobody knows");

    waiter = (struct waiter){.parked = {.done = answered}};
    volume.config.node_count = 1;
    volume_wait(&volume, WAIT_FSYNC, position.lsn, &waiter.parked);
    volume_durable(&volume, position.lsn);
    ok(waiter.answered && waiter.error == 0, "the only node of a volume answers for itself");
    park_free(volume.park);
    slowed(position.lsn);
    park_free(volume.local);
    store_close(volume.store);
    return 0;
}
