#include "membership/fence.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#define LOOK_US 20000

extern char **environ;

/* The present environment and two more; NULL: no memory. The strings are the caller's. */
static char **environment(char *volume, char *node) {
    size_t count = 0, used = 0;
    while (environ[count])
        count++;
    char **all = calloc(count + 3, sizeof *all);
    if (!all)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "BATON_VOLUME=", 13) != 0 && strncmp(environ[i], "BATON_NODE=", 11) != 0)
            all[used++] = environ[i];
    all[used++] = volume;
    all[used] = node;
    return all;
}

/* A group of its own, signals as usual, nothing to read. */
static int start(const char *program, char **arguments, char **variables, pid_t *pid) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int rc = posix_spawn_file_actions_init(&files);
    if (rc)
        return -rc;
    rc = posix_spawnattr_init(&attributes);
    if (rc == 0) {
        posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        rc = posix_spawn(pid, program, &files, &attributes, arguments, variables);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return -rc;
}

int fence_run(const char *program, const char *volume, const char *node, int64_t timeout, atomic_bool *cancelled, char *why,
              size_t why_room) {
    char volume_is[96], node_is[96];
    char *arguments[] = {(char *)program, (char *)volume, (char *)node, NULL};
    pid_t pid, done;
    int status = 0;
    snprintf(volume_is, sizeof volume_is, "BATON_VOLUME=%s", volume);
    snprintf(node_is, sizeof node_is, "BATON_NODE=%s", node);
    char **variables = environment(volume_is, node_is);
    int rc = variables ? start(program, arguments, variables, &pid) : -ENOMEM;
    free(variables);
    if (rc) {
        snprintf(why, why_room, "the fence program %s cannot be run: %s", program, strerror(-rc));
        return rc;
    }
    int64_t deadline = clock_boot() + timeout;
    while ((done = waitpid(pid, &status, WNOHANG)) == 0 && clock_boot() < deadline && !(cancelled && atomic_load(cancelled)))
        usleep(LOOK_US);
    if (done == 0) {
        kill(-pid, SIGKILL);
        waitpid(pid, &status, 0);
        snprintf(why, why_room, "the fence program %s did not end within %" PRId64 " ms and was killed", program, timeout / 1000000);
        return -ETIMEDOUT;
    }
    if (done < 0) {
        snprintf(why, why_room, "the end of the fence program %s was not seen: %s", program, strerror(errno));
        return -ECHILD;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status))
        snprintf(why, why_room, "the fence program %s says by status %d that node %s is not off", program, WEXITSTATUS(status), node);
    else
        snprintf(why, why_room, "the fence program %s was ended by signal %d", program, WTERMSIG(status));
    return -EIO;
}
