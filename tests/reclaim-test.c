/* Unlinked files that are queued to be freed: one that somebody comes back to in that moment, by its file handle, is kept
 * and freed when it is forgotten. When the mount goes, nothing more is freed. */
#include "fs/reclaim.h"
#include "tests/fixture.h"

#include <sys/stat.h>

#define LONG_GRACE (INT64_C(3600) * 1000000000) /* what is not queued is not found by looking through the store */

static uint64_t orphan(struct store *store, const char *name) {
    uint64_t made = make(store, ROOT_INO, name, S_IFREG | 0644), ino, lsn;
    uint32_t left;

    if (op_unlink(store, ROOT_INO, name, &ino, &left, &lsn) || ino != made || left)
        bail("unlink %s", name);
    return ino;
}

static bool gone(struct store *store, uint64_t ino) {
    struct attributes attributes;
    int error = op_getattr(store, ino, &attributes);
    return error == -ENOENT || error == -ESTALE;
}

static bool goes(struct store *store, uint64_t ino) {
    int64_t until = clock_boot() + INT64_C(20) * 1000000000;
    while (!gone(store, ino) && clock_boot() < until)
        usleep(1000);
    return gone(store, ino);
}

int main(void) {
    plan_lazy();
    struct store *store = fixture_store("store", 1);
    struct nodes *nodes = nodes_create();
    struct reclaim *reclaim;

    if (reclaim_start(store, nodes, &reclaim))
        bail("reclaim_start");
    reclaim_resume(reclaim, LONG_GRACE);
    uint64_t came_back = orphan(store, "a"), free_one = orphan(store, "b");
    nodes_look(nodes, came_back);
    reclaim_queue(reclaim, free_one); /* the last of the queue is taken first */
    reclaim_queue(reclaim, came_back);
    ok(goes(store, free_one), "an orphan that nobody uses goes");
    ok(!gone(store, came_back), "one that is in use again stays");
    if (ok(nodes_forget(nodes, came_back, 1), "forgotten, it is known to be an orphan"))
        reclaim_queue(reclaim, came_back);
    ok(goes(store, came_back), "and goes");
    reclaim_close(reclaim);
    reclaim_resume(reclaim, 0);
    uint64_t late = orphan(store, "c");
    reclaim_queue(reclaim, late);
    usleep(100000); /* time enough for a wrong reclaim */
    ok(!gone(store, late), "when it is closed nothing goes, whoever resumes it");
    reclaim_stop(reclaim);
    nodes_free(nodes);
    store_close(store);
    return 0;
}
