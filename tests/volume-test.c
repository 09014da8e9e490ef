/* Who speaks for the in-sync set: the only node of a volume for itself; of several nodes only the replicator, so that
 * before it starts and after it has stopped nothing is acknowledged by this node's disk alone. */
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
    park_free(volume.local);
    store_close(volume.store);
    return 0;
}
