#include "exporters/keep.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define SERVERS_NS 500000000 /* until servers that the kernel has sent SIGKILL are gone, but for those that wait in the mount */

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

static void keep(const struct supervision *supervision, pid_t runner) {
    struct timespec while_servers_end = {.tv_nsec = SERVERS_NS};
    sigset_t set;
    int number;
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    prctl(PR_SET_NAME, "batond-keeper");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (!copied(supervision))
        log_warning("the mount's descriptors cannot be kept: %s; when all of batond's processes are killed, clients may see an error",
                    strerror(errno));
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    while (getppid() == runner)
        sigwait(&set, &number);
    nanosleep(&while_servers_end, NULL);
}

pid_t keep_start(const struct supervision *supervision) {
    pid_t runner = getpid();
    fflush(NULL);
    pid_t keeper = fork();
    if (keeper == 0) {
        keep(supervision, runner);
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
