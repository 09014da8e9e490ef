/* File locks through the mount do what the kernel's own do: at random, by several processes, on the mount and on another file
 * system beside it; closes, forks, locks of open files, flock; who waits is woken, and interrupted. Both ways of the requests. */
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 3, STEPS = 400, BYTES = 16, SECONDS = 60 };

/* Does what it is told to two files, one on the mount and one beside it, and answers with both results. */
enum what { SET, FIND, FLOCK, CLOSE, SET_OPEN, END };
struct order {
    int what, type, first, length, operation, fd;
};
struct result {
    int there, here; /* 0 or an errno; FIND: 1000: one is in the way */
};
struct process {
    pid_t pid;
    int orders, results;
    int fds[2][2]; /* on the mount, beside it; two open files each */
};
static struct process processes[PROCESSES];

static int act(const struct order *order, int fd) {
    struct flock lock = {.l_type = (short)order->type, .l_whence = SEEK_SET, .l_start = order->first, .l_len = order->length};
    switch (order->what) {
    case SET:
        return fcntl(fd, F_SETLK, &lock) < 0 ? errno : 0;
    case SET_OPEN:
        return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
    case FIND:
        if (fcntl(fd, F_GETLK, &lock) < 0)
            return errno;
        return lock.l_type == F_UNLCK ? 0 : 1000; /* which one of several is found is not said */
    case FLOCK:
        return flock(fd, order->operation) < 0 ? errno : 0;
    default:
        return 0;
    }
}

static void open_both(struct process *own, int which) {
    own->fds[0][which] = open(rig_path("locked"), O_RDWR | O_CLOEXEC);
    own->fds[1][which] = open(rig_outside("locked"), O_RDWR | O_CLOEXEC);
    if (own->fds[0][which] < 0 || own->fds[1][which] < 0)
        _exit(2);
}

static void obey(struct process *own, int orders, int results) {
    struct order order;
    open_both(own, 0);
    open_both(own, 1);
    while (read(orders, &order, sizeof order) == sizeof order && order.what != END) {
        struct result result;
        if (order.what == CLOSE) {
            close(own->fds[0][order.fd]);
            close(own->fds[1][order.fd]);
            open_both(own, order.fd);
        }
        result.there = act(&order, own->fds[0][order.fd]);
        result.here = act(&order, own->fds[1][order.fd]);
        if (write(results, &result, sizeof result) != sizeof result)
            _exit(1);
    }
    _exit(0);
}

static void start(struct process *process) {
    int orders[2], results[2];
    if (pipe2(orders, O_CLOEXEC) < 0 || pipe2(results, O_CLOEXEC) < 0)
        bail("pipe: %s", strerror(errno));
    process->pid = fork();
    if (process->pid == 0)
        obey(process, orders[0], results[1]);
    close(orders[0]);
    close(results[1]);
    process->orders = orders[1];
    process->results = results[0];
}

static struct result tell(struct process *process, struct order order) {
    struct result result = {-1, -2};
    struct pollfd event = {.fd = process->results, .events = POLLIN};
    if (write(process->orders, &order, sizeof order) != sizeof order || poll(&event, 1, SECONDS * 1000) <= 0 ||
        read(process->results, &result, sizeof result) != (ssize_t)sizeof result)
        diag("no answer");
    return result;
}

static void end(struct process *process) {
    struct order order = {.what = END};
    if (write(process->orders, &order, sizeof order) != sizeof order)
        diag("process %d has ended already", (int)process->pid);
    close(process->orders);
    close(process->results);
    waitpid(process->pid, NULL, 0);
}

static int file(const char *path) {
    return open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
}

static uint64_t below(uint64_t *seed, unsigned limit) {
    return test_random(seed) % limit;
}

static void test_against_kernel(uint64_t *seed) {
    static const int types[] = {F_RDLCK, F_WRLCK, F_UNLCK}, operations[] = {LOCK_SH, LOCK_EX, LOCK_UN};
    unsigned wrong = 0;
    close(file(rig_path("locked")));
    close(file(rig_outside("locked")));
    fflush(stdout);
    for (unsigned i = 0; i < PROCESSES; i++)
        start(&processes[i]);
    for (unsigned step = 0; step < STEPS && !wrong; step++) {
        unsigned dice = (unsigned)below(seed, 16);
        struct order order = {.what = dice < 7 ? SET : dice < 10 ? FIND : dice < 13 ? FLOCK : dice < 14 ? CLOSE : SET_OPEN,
                              .type = types[below(seed, dice >= 7 && dice < 10 ? 2 : 3)],
                              .first = (int)below(seed, BYTES),
                              .length = (int)below(seed, 6),
                              .operation = operations[below(seed, 3)] | LOCK_NB,
                              .fd = (int)below(seed, 2)};
        unsigned who = (unsigned)below(seed, PROCESSES);
        struct result result = tell(&processes[who], order);
        wrong += result.there != result.here;
        if (result.there != result.here)
            diag("step %u: process %u, what %d, type %d, %d+%d, operation %d, file %d: %d on the mount, %d beside it", step, who,
                 order.what, order.type, order.first, order.length, order.operation, order.fd, result.there, result.here);
    }
    is_int(0, wrong, "what is granted and refused is what the kernel's own locks grant and refuse");
    for (unsigned i = 0; i < PROCESSES; i++)
        end(&processes[i]);
}

/* ---- Others take it; what comes of that ---- */

static int try_lock(const char *name, int type) {
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct flock lock = {.l_type = (short)type};
        int fd = open(rig_path(name), O_RDWR | O_CLOEXEC);
        _exit(fd < 0 ? 200 : fcntl(fd, F_SETLK, &lock) < 0 ? errno : 0);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int try_flock(const char *name, int operation) {
    int fd = open(rig_path(name), O_RDONLY | O_CLOEXEC);
    int error = flock(fd, operation | LOCK_NB) < 0 ? errno : 0;
    close(fd);
    return error;
}

static void ignore(int number) {
    (void)number;
}

/* A process that waits for the lock: what it got, on the pipe. */
static pid_t waiting(const char *name, bool whole, int *result) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        bail("pipe: %s", strerror(errno));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct sigaction action = {.sa_handler = ignore};
        struct flock lock = {.l_type = F_WRLCK};
        sigaction(SIGUSR1, &action, NULL);
        int fd = open(rig_path(name), O_RDWR | O_CLOEXEC), error;
        if (write(ends[1], "x", 1) != 1)
            _exit(1);
        error = (whole ? flock(fd, LOCK_EX) : fcntl(fd, F_SETLKW, &lock)) < 0 ? errno : 0;
        _exit(write(ends[1], &error, sizeof error) == sizeof error ? 0 : 1);
    }
    close(ends[1]);
    char byte;
    if (read(ends[0], &byte, 1) != 1)
        bail("no waiter");
    *result = ends[0];
    return child;
}

static int outcome(pid_t child, int result, int ms) {
    struct pollfd event = {.fd = result, .events = POLLIN};
    int error = -1;
    if (poll(&event, 1, ms) <= 0)
        return -2;
    if (read(result, &error, sizeof error) != (ssize_t)sizeof error)
        error = -3;
    close(result);
    waitpid(child, NULL, 0);
    return error;
}

static void test_waiting(bool whole) {
    const char *kind = whole ? "flock" : "range";
    struct flock lock = {.l_type = F_WRLCK};
    int fd = file(rig_path("waited")), result;
    is_int(0, whole ? flock(fd, LOCK_EX) : fcntl(fd, F_SETLK, &lock), "%s: one has it", kind);
    pid_t child = waiting("waited", whole, &result);
    is_int(-2, outcome(child, result, 200), "another one waits");
    lock.l_type = F_UNLCK;
    is_int(0, whole ? flock(fd, LOCK_UN) : fcntl(fd, F_SETLK, &lock), "it is given back");
    is_int(0, outcome(child, result, SECONDS * 1000), "and the other one has it");

    lock.l_type = F_WRLCK;
    /* It may be the dead one's for a moment: its last close is told later. */
    is_int(0, whole ? flock(fd, LOCK_EX) : fcntl(fd, F_SETLKW, &lock), "taken again");
    child = waiting("waited", whole, &result);
    int error;
    for (int i = 0; (error = outcome(child, result, 100)) == -2 && i < SECONDS * 10; i++)
        kill(child, SIGUSR1); /* before it waits, it is in vain */
    is_int(EINTR, error, "a signal interrupts who waits");
    child = waiting("waited", whole, &result);
    is_int(-2, outcome(child, result, 100), "a third one waits");
    kill(child, SIGKILL);
    is_int(-3, outcome(child, result, SECONDS * 1000), "it can be killed");
    close(fd);
    is_int(0, try_lock("waited", F_WRLCK), "what was waited for is left over nowhere");
}

static void test_closes(void) {
    struct flock lock = {.l_type = F_WRLCK};
    int fd = file(rig_path("closed")), other = file(rig_path("closed"));
    is_int(0, fcntl(fd, F_SETLK, &lock), "a range of a file");
    is_int(EAGAIN, try_lock("closed", F_RDLCK), "is not to be had by another process");
    close(other);
    is_int(0, try_lock("closed", F_WRLCK), "its process closes another descriptor of that file: it is");
    is_int(0, fcntl(fd, F_OFD_SETLK, &lock), "a range of an open file");
    other = file(rig_path("closed"));
    close(other);
    is_int(EAGAIN, try_lock("closed", F_RDLCK), "stays when another one is closed");
    close(fd);
    is_int(0, try_lock("closed", F_WRLCK), "and goes with it");

    fd = open(rig_path("closed"), O_RDONLY | O_CLOEXEC);
    lock.l_type = F_RDLCK;
    is_int(0, fcntl(fd, F_SETLK, &lock), "a range of one that is open for reading");
    is_int(EAGAIN, try_lock("closed", F_WRLCK), "keeps writers off");
    close(fd);
    is_int(0, try_lock("closed", F_WRLCK), "until it is closed");

    unsigned refused = 0;
    for (unsigned i = 0; i < 200; i++)
        refused += try_flock("closed", LOCK_EX) != 0;
    is_int(0, refused, "flock, close and flock again: what was closed is in nobody's way");
    fd = open(rig_path("closed"), O_RDONLY | O_CLOEXEC);
    is_int(0, flock(fd, LOCK_SH), "shared");
    is_int(0, try_flock("closed", LOCK_SH), "by two");
    is_int(EAGAIN, try_flock("closed", LOCK_EX), "and by none alone");
    is_int(0, try_lock("closed", F_WRLCK), "ranges are not concerned");
    int copy = dup(fd);
    close(fd);
    is_int(EAGAIN, try_flock("closed", LOCK_EX), "it stays as long as the file is open");
    close(copy);
    is_int(0, try_flock("closed", LOCK_EX), "and no longer");
}

static void test_circle(void) {
    struct flock low = {.l_type = F_WRLCK, .l_start = 0, .l_len = 1}, high = {.l_type = F_WRLCK, .l_start = 10, .l_len = 1};
    int fd = file(rig_path("circle")), ends[2], status = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        bail("pipe");
    fcntl(fd, F_SETLK, &low);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int own = file(rig_path("circle"));
        if (fcntl(own, F_SETLK, &high) < 0 || write(ends[1], "x", 1) != 1)
            _exit(1);
        alarm(SECONDS);
        _exit(fcntl(own, F_SETLKW, &low) < 0 ? 2 : 0);
    }
    char byte;
    if (read(ends[0], &byte, 1) != 1)
        bail("no child");
    int error;
    struct flock both = high;
    /* Until the other one waits, there is no circle; then the one or the other hears of it. */
    alarm(SECONDS);
    error = fcntl(fd, F_SETLKW, &both) < 0 ? errno : 0;
    alarm(0);
    close(fd);
    waitpid(child, &status, 0);
    ok(WIFEXITED(status) && (error == EDEADLK || WEXITSTATUS(status) == 2), "two that wait for each other: one hears of it");
    close(ends[0]);
    close(ends[1]);
}

static void test_loop(const char *loop, uint64_t *seed) {
    diag("request-loop = %s", loop);
    if (!rig_start(""))
        bail("batond does not start");
    test_against_kernel(seed);
    test_waiting(false);
    test_waiting(true);
    test_closes();
    test_circle();
    is_int(0, rig_stop(SIGTERM), "batond ends cleanly");
}

int main(void) {
    uint64_t seed;
    plan_lazy();
    rig_create("request-loop = device");
    seed = test_seed();
    test_loop("device", &seed);
    if (!rig_has_rings()) {
        skip(1, "FUSE over io_uring is not switched on in this kernel");
        return 0;
    }
    rig_settings("request-loop = io_uring");
    test_loop("io_uring", &seed);
    return 0;
}
