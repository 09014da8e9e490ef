#include "exporters/keep.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SUPERVISOR_MS 500 /* after the runner's death: if the supervisor lives then, it has started another runner */

/* Copies of the serving process's, which is there, or its supervisor holds it. */
static bool copied(const struct supervision *supervision) {
    AUTO_CLOSE int process = (int)syscall(SYS_pidfd_open, atomic_load(&supervision->exports.serving), 0);
    if (process < 0)
        return false;
    for (unsigned i = 0; i < supervision->descriptor_count; i++)
        if (syscall(SYS_pidfd_getfd, process, supervision->descriptors[i], 0) < 0)
            return false;
    return true;
}

/* Until the runner dies. True: the supervisor has died as well. */
static bool outlived(const struct supervision *supervision, pid_t supervisor, pid_t runner) {
    struct pollfd its_end = {.fd = (int)syscall(SYS_pidfd_open, supervisor, 0), .events = POLLIN};
    sigset_t set;
    int number;
    if (!copied(supervision))
        log_warning("the mount's descriptors cannot be kept: %s; when all of batond's processes are killed, clients may see an error",
                    strerror(errno));
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    while (getppid() == runner)
        sigwait(&set, &number);
    return its_end.fd < 0 || poll(&its_end, 1, SUPERVISOR_MS) != 0;
}

pid_t keep_start(const struct supervision *supervision, pid_t supervisor, void (*last)(void *), void *context) {
    pid_t runner = getpid();
    fflush(NULL);
    pid_t keeper = fork();
    if (keeper == 0) {
        sigset_t set;
        sigfillset(&set);
        sigprocmask(SIG_BLOCK, &set, NULL);
        prctl(PR_SET_NAME, "batond-keeper");
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (outlived(supervision, supervisor, runner))
            last(context);
        fflush(NULL);
        _exit(EXIT_SUCCESS);
    }
    if (keeper < 0)
        log_warning("no process can be made that keeps the mount's descriptors: %s", strerror(errno));
    return keeper < 0 ? 0 : keeper;
}

void keep_end(pid_t keeper) {
    if (!keeper)
        return;
    kill(keeper, SIGKILL);
    while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
        ;
}
