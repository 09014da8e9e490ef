/* The daemon's life: killed it loses nothing that was acknowledged and leaves a dead mount that the next start clears;
 * unmounting from outside ends it; a second one on the store, or a mount inside the store, is refused. */
#include "fs/base.h"
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int put(const char *name, const char *content, bool sync) {
    int fd = open(rig_path(name), O_CREAT | O_WRONLY | O_TRUNC, 0644);
    int error = fd < 0 || write(fd, content, strlen(content)) < 0 || (sync && fsync(fd) < 0) ? -errno : 0;
    if (fd >= 0 && close(fd) < 0 && !error)
        error = -errno;
    return error;
}

/* Writes files one after the other and counts those acknowledged in shared memory, until the mount dies. */
static pid_t writer(const char *prefix, int pipe_end) {
    pid_t child = fork();
    if (child != 0)
        return child;
    for (int i = 0;; i++) {
        char name[64], content[64];
        snprintf(name, sizeof name, "%s%d", prefix, i);
        snprintf(content, sizeof content, "content of %d", i);
        if (put(name, content, false) != 0)
            _exit(0);
        if (write(pipe_end, &i, sizeof i) != sizeof i)
            _exit(1);
    }
}

static void test_kill(int round) {
    char prefix[32], name[64], expected[64], seen[64];
    int ends[2], count = 0, wrong = 0, i;

    if (pipe(ends) < 0)
        bail("pipe: %s", strerror(errno));
    snprintf(prefix, sizeof prefix, "round%d.", round);
    pid_t child = writer(prefix, ends[1]);
    close(ends[1]);
    while (count < 200 * round && read(ends[0], &i, sizeof i) == sizeof i)
        count = i + 1;
    rig_stop(SIGKILL);
    while (read(ends[0], &i, sizeof i) == sizeof i)
        count = i + 1;
    close(ends[0]);
    waitpid(child, NULL, 0);
    if (!ok(rig_start(""), "killed after %d files, started again over the dead mount", count))
        bail("no daemon");
    for (i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s%d", prefix, i);
        snprintf(expected, sizeof expected, "content of %d", i);
        memset(seen, 0, sizeof seen);
        int fd = open(rig_path(name), O_RDONLY);
        if (fd < 0 || read(fd, seen, sizeof seen - 1) < 0 || strcmp(seen, expected) != 0)
            wrong++;
        if (fd >= 0)
            close(fd);
    }
    is_int(0, wrong, "every file whose close was acknowledged is there and whole");
}

static void test_refusals(void) {
    char options[1300];

    rig_stop(SIGTERM);
    snprintf(options, sizeof options, "--mount %s/data", rig_outside(RIG_STORE));
    ok(!rig_start(options), "a mount inside the store is refused");
    ok(rig_logged("lie in each other"), "with a sentence");
    snprintf(options, sizeof options, "--mount %s", test_directory());
    ok(!rig_start(options), "a store inside the mount is refused");
    ok(!rig_start("--mount /nonexistent/baton"), "a mount point that is not there is refused");
    ok(!rig_start("--options nonsense"), "an unknown mount option is refused");
    ok(rig_logged("\"nonsense\" is unknown"), "with a sentence");
    ok(rig_start("--options noatime,nosuid"), "known ones are taken");
}

static bool option_shown(const char *option) {
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[4096];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, rig_outside(RIG_MOUNT)) && strstr(line, option);
    if (file)
        fclose(file);
    return found;
}

static void test_descriptors(void) {
    struct rlimit limit;

    is_int(0, prlimit(rig_pid(), RLIMIT_NOFILE, NULL, &limit), "batond's limit of open files");
    ok(limit.rlim_cur == limit.rlim_max, "is as high as it may be");
}

int main(void) {
    int status = -1;

    struct rlimit low;

    plan_lazy();
    if (getrlimit(RLIMIT_NOFILE, &low) < 0)
        bail("getrlimit: %s", strerror(errno));
    low.rlim_cur = MIN(low.rlim_max, 512);
    setrlimit(RLIMIT_NOFILE, &low);
    rig_create("acknowledge = close");
    if (!rig_start(""))
        bail("batond does not start");
    test_descriptors();
    ok(option_shown(" fuse.baton rig "), "the mount's source shows the volume's name");
    for (int round = 1; round <= 3; round++)
        test_kill(round);
    test_refusals();
    ok(option_shown("nosuid"), "mount options are in force");
    is_int(0, mount(NULL, rig_outside(RIG_MOUNT), NULL, MS_REMOUNT | MS_RDONLY, NULL), "it is remounted read-only");
    is_int(-EROFS, put("readonly", "x", false), "and is");
    is_int(0, mount(NULL, rig_outside(RIG_MOUNT), NULL, MS_REMOUNT, NULL), "and remounted writable");
    is_int(0, put("writable", "x", true), "and is");

    is_int(0, umount2(rig_outside(RIG_MOUNT), 0), "unmounted from outside");
    pid_t old = rig_pid();
    ok(rig_start(""), "a start right afterwards waits for the old daemon and succeeds");
    ok(waitpid(old, &status, 0) == old && status == 0, "which has ended cleanly");
    is_int(0, put("again", "x", true), "the mount works");
    int busy = open(rig_path("again"), O_RDONLY);
    is_int(0, rig_stop(SIGTERM), "a busy mount does not keep the daemon from ending");
    char byte;
    ok(read(busy, &byte, 1) < 0 || rig_start(""), "who used it gets an error");
    close(busy);
    return 0;
}
