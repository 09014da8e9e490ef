/* The log of a daemon whose standard error nobody reads: no line waits, and what is lost is counted. */
#include "fs/base.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

static int old_stderr;

static void fill(int fd) {
    static const char noise[512];
    PROMISE(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    while (write(fd, noise, sizeof noise) > 0)
        ;
    while (write(fd, noise, 1) > 0)
        ;
    PROMISE(errno == EAGAIN && fcntl(fd, F_SETFL, 0) == 0);
}

static void drain(int fd) {
    char noise[4096];
    PROMISE(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    while (read(fd, noise, sizeof noise) > 0)
        ;
    PROMISE(errno == EAGAIN);
}

/* What stands there after three lines without room, and one with. */
static void without_room(int ends[2], const char *what) {
    char text[4096];
    fill(ends[1]);
    PROMISE(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
    for (unsigned i = 0; i < 3; i++)
        log_warning("line %u", i);
    int flags = fcntl(ends[1], F_GETFL);
    drain(ends[0]);
    log_warning("line %u", 3);
    log_warning("line %u", 4);
    PROMISE(dup2(old_stderr, STDERR_FILENO) == STDERR_FILENO);
    ok((flags & O_NONBLOCK) == 0, "%s: others who write there wait as before", what);
    ssize_t length = read(ends[0], text, sizeof text - 1);
    text[MAX(length, 0)] = '\0';
    is_string("test: 3 lines of this log found no room, and are lost\ntest: line 3\ntest: line 4\n", text,
              "%s: what was lost is counted, what comes later is there", what);
    close(ends[0]);
    close(ends[1]);
}

static void a_file(void) {
    char path[1100], text[200];
    snprintf(path, sizeof path, "%s/log", test_directory());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    PROMISE(fd >= 0 && dup2(fd, STDERR_FILENO) == STDERR_FILENO);
    log_warning("one");
    PROMISE(write(fd, "another's\n", 10) == 10);
    log_warning("two");
    PROMISE(dup2(old_stderr, STDERR_FILENO) == STDERR_FILENO);
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    text[MAX(length, 0)] = '\0';
    is_string("test: one\nanother's\ntest: two\n", text, "in a file that others write, too, all lines stand after each other");
    close(fd);
}

int main(void) {
    int ends[2];
    plan_lazy();
    log_identify("test");
    log_never_waits();
    old_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    PROMISE(old_stderr >= 0 && pipe2(ends, O_CLOEXEC) == 0);
    without_room(ends, "a pipe");
    PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    without_room(ends, "a socket");
    a_file();
    return 0;
}
