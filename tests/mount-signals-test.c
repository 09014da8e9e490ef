/* Callers that are interrupted by signals all the time: the kernel sends INTERRUPT for requests that wait, before,
 * while and after they are answered. Nobody hangs and no answer goes astray, whichever way requests come. */
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLERS = 4, FILES = 400, SECONDS = 120 };

static void ignore(int number) {
    (void)number;
}

static int busy(const char *loop, int caller) {
    struct sigaction action = {.sa_handler = ignore}; /* without SA_RESTART */
    struct itimerval often = {{0, 150 + caller * 10}, {0, 150}};
    struct statvfs space;
    char name[64];

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%s.%d.%d", loop, caller, i);
        int fd = open(rig_path(name), O_CREAT | O_RDWR | O_EXCL, 0644);
        if (fd < 0)
            return errno == EINTR ? 100 : 1;
        if (write(fd, name, strlen(name)) != (ssize_t)strlen(name) || (fsync(fd) < 0 && errno != EINTR))
            return 2;
        if (statvfs(rig_path("."), &space) < 0 || (close(fd) < 0 && errno != EINTR))
            return 3;
        if (unlink(rig_path(name)) < 0 || symlink(name, rig_path(name)) < 0)
            return 4;
    }
    return 0;
}

static bool all_ended(void *count) {
    int status;
    while (*(int *)count > 0 && waitpid(-1, &status, WNOHANG) > 0) {
        is_int(0, WIFEXITED(status) ? WEXITSTATUS(status) : 200, "a caller got what it asked for");
        --*(int *)count;
    }
    return *(int *)count == 0;
}

static void test_loop(const char *loop) {
    pid_t callers[CALLERS];
    int count = CALLERS;

    fflush(stdout);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = fork();
        if (callers[i] == 0)
            _exit(busy(loop, i));
    }
    if (!ok(rig_until(SECONDS, all_ended, &count), "nobody hangs with request-loop = %s", loop))
        for (int i = 0; i < CALLERS; i++)
            kill(callers[i], SIGKILL);
    is_int(0, rig_stop(SIGTERM), "batond ends cleanly");
}

int main(void) {
    plan_lazy();
    rig_create("acknowledge = close\nrequest-loop = device");
    if (!rig_start(""))
        bail("batond does not start");
    test_loop("device");
    if (!rig_has_rings()) {
        skip(6, "FUSE over io_uring is not switched on in this kernel");
        return 0;
    }
    rig_settings("acknowledge = close\nrequest-loop = io_uring");
    if (!rig_start(""))
        bail("batond does not start with io_uring");
    test_loop("io_uring");
    return 0;
}
