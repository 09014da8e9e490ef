/* Processors are kept awake while records come at a rate, and only then. */
#include "replication/awake.h"
#include "tests/tap.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define TICK (20 * MS)

/* How many descriptors of this process ask for it. */
static int asking(void) {
    char path[300], target[PATH_MAX];
    int count = 0;
    DIR *all = opendir("/proc/self/fd");
    for (struct dirent *each; all && (each = readdir(all));) {
        snprintf(path, sizeof path, "/proc/self/fd/%s", each->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[MAX(length, 0)] = 0;
        count += strcmp(target, "/dev/cpu_dma_latency") == 0;
    }
    if (all)
        closedir(all);
    return count;
}

int main(void) {
    struct awake awake;
    int64_t now = 1000 * MS;
    uint64_t records = 5000;

    plan_lazy();
    if (access("/dev/cpu_dma_latency", W_OK) < 0)
        skip_all("/dev/cpu_dma_latency cannot be written here");
    awake_start(&awake);
    ok(!awake_tick(&awake, records, now), "the first tick knows no rate");
    ok(!awake_tick(&awake, records += 9, now += TICK), "450 records a second are no reason");
    is_int(0, asking(), "nothing is asked of the kernel");
    ok(awake_tick(&awake, records += 10, now += TICK), "500 are");
    is_int(1, asking(), "the kernel is asked");
    ok(awake_tick(&awake, records, now += MS), "a tick that comes early changes nothing");
    for (int i = 1; i < AWAKE_CALM; i++)
        awake_tick(&awake, records, now += TICK);
    is_int(1, asking(), "it stays so through a short calm");
    ok(!awake_tick(&awake, records, now += TICK), "and ends with a longer one");
    is_int(0, asking(), "the kernel is asked no more");
    ok(awake_tick(&awake, records += 1000, now += TICK), "it comes again");
    ok(awake_tick(&awake, records - 900, now += TICK), "fewer records than before (a rollback) are a calm");
    awake_stop(&awake);
    is_int(0, asking(), "stopping lets go");
    awake_stop(&awake);
    return 0;
}
