#include "tests/powercut/run.h"

#include "tests/tap.h"

#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Beside the test program: TESTS/powercut/record.so. */
static void find_recorder(const char *self, char *path, size_t room) {
    const char *slash = strrchr(self, '/');
    snprintf(path, room, "%.*s/powercut/record.so", slash == NULL ? 1 : (int)(slash - self), slash == NULL ? "." : self);
    if (access(path, R_OK) != 0)
        bail("%s: %s; \"make check\" builds it", path, strerror(errno));
}

int recorded_run(const char *directory, const char *log, uint64_t kill_at, uint64_t fail_sync,
                 const char *const *arguments) {
    char self[4096] = "", recorder[4200], number[32];
    const char *vector[16] = {self};
    int status;

    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        bail("/proc/self/exe: %s", strerror(errno));
    find_recorder(self, recorder, sizeof recorder);
    for (unsigned i = 0; arguments[i] != NULL && i < 14; i++)
        vector[i + 1] = arguments[i];
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setenv("POWERCUT_DIR", directory, 1);
        setenv("POWERCUT_LOG", log, 1);
        setenv("LD_PRELOAD", recorder, 1);
        /* The address sanitizer insists on being first; the recorder has no need to be behind it. */
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
        snprintf(number, sizeof number, "%llu", (unsigned long long)kill_at);
        if (kill_at > 0)
            setenv("POWERCUT_KILL_AT", number, 1);
        snprintf(number, sizeof number, "%llu", (unsigned long long)fail_sync);
        if (fail_sync > 0)
            setenv("POWERCUT_FAIL_SYNC", number, 1);
        execv(self, (char *const *)(uintptr_t)vector);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        bail("running %s: %s", self, strerror(errno));
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void recorded_mark(const char *format, ...) {
    static void (*mark)(const char *);
    static bool looked;
    char text[512];
    va_list arguments;

    if (!looked) {
        *(void **)&mark = dlsym(RTLD_DEFAULT, "powercut_mark");
        looked = true;
    }
    if (mark == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mark(text);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

void remove_tree(const char *path) {
    nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}
