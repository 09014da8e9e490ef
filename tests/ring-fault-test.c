/* FUSE over io_uring whose queues cannot be registered: the start fails with a sentence, it does not hang, and no mount is
 * left. And how many queues there have to be. */
#include "fs/front_ring.h"
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_count(void) {
    is_int(1, processors_listed("0\n"), "one processor");
    is_int(4, processors_listed("0-3\n"), "a range of them");
    is_int(7, processors_listed("0-3,8,10-11\n"), "several ranges");
    is_int(0, processors_listed(""), "an empty list");
    is_int(0, processors_listed("3-1"), "a range that goes backwards");
    is_int(0, processors_listed("0-3,x"), "a list that is none");
}

static dev_t device(const char *path) {
    struct stat about;
    return stat(path, &about) < 0 ? 0 : about.st_dev;
}

int main(void) {
    const char *build = getenv("BATON_BUILD");
    char shim[1200];

    plan_lazy();
    test_count();
    rig_create("request-loop = io_uring");
    if (!rig_has_rings()) {
        skip(3, "FUSE over io_uring is not switched on in this kernel");
        return 0;
    }
    snprintf(shim, sizeof shim, "%s/tests/ring-fault.so", build ? build : ".");
    setenv("LD_PRELOAD", shim, 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    ok(!rig_start(""), "batond does not start when the queues cannot be registered");
    unsetenv("LD_PRELOAD");
    ok(rig_logged("set request-loop = device"), "and says what to do");
    ok(device(rig_outside(RIG_MOUNT)) == device(test_directory()), "nothing is mounted");
    return 0;
}
