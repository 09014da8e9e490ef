#include "fs/base.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define LINE_MOST 2048u

static char prefix[160] = "baton";
static atomic_bool verbose, never_waits;
static atomic_uint lost; /* lines, since one was written */

void log_identify(const char *text) {
    snprintf(prefix, sizeof prefix, "%s", text);
}

void log_verbose(bool on) {
    atomic_store(&verbose, on);
}

void log_never_waits(void) {
    atomic_store(&never_waits, true);
}

/* One write a line, so that threads and processes do not mix theirs. A log that cannot be written has nowhere to be reported. */
static bool write_line(const char *line, size_t length) {
    return write(STDERR_FILENO, line, length) == (ssize_t)length;
}

/* False: there is no room now. O_NONBLOCK on standard error itself would be everybody's who has the same pipe or terminal open; a
 * pipe is opened once more for it, by which way a line (at most PIPE_BUF) goes whole or not at all. */
static bool write_now(const char *line, size_t length) {
    struct stat status;
    _Static_assert(LINE_MOST <= PIPE_BUF, "a line goes into a pipe at once");
    if (fstat(STDERR_FILENO, &status) < 0)
        return false;
    if (S_ISSOCK(status.st_mode))
        return send(STDERR_FILENO, line, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length;
    if (S_ISFIFO(status.st_mode)) {
        AUTO_CLOSE int pipe = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (pipe >= 0)
            return write(pipe, line, length) == (ssize_t)length;
    }
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT}; /* true of a file, always */
    return poll(&room, 1, 0) == 1 && write_line(line, length);
}

static void write_or_count(const char *line, size_t length) {
    char note[sizeof prefix + 80];
    unsigned count = atomic_exchange(&lost, 0);
    if (count) {
        int head = snprintf(note, sizeof note, "%s: %u line%s of this log found no room, and are lost\n", prefix, count,
                            count == 1 ? "" : "s");
        if (write_now(note, (size_t)head))
            count = 0;
    }
    if (count || !write_now(line, length))
        atomic_fetch_add(&lost, count + 1);
}

void log_write(enum log_level level, const char *format, ...) {
    char line[LINE_MOST];
    va_list arguments;

    if (level == LOG_LEVEL_DEBUG && !atomic_load(&verbose))
        return;
    int head = snprintf(line, sizeof line, "%s: ", prefix);
    va_start(arguments, format);
    int body = vsnprintf(line + head, sizeof line - (size_t)head - 1, format, arguments);
    va_end(arguments);
    size_t length = MIN((size_t)head + (size_t)MAX(body, 0), sizeof line - 2);
    line[length++] = '\n';
    if (!atomic_load(&never_waits))
        write_line(line, length);
    else
        write_or_count(line, length);
}

void broken_promise(const char *file, int line, const char *what) {
    log_error("internal error at %s:%d: \"%s\" does not hold; stopping before anything is damaged", file, line, what);
    abort();
}

void cleanup_free(void *pointer) {
    free(*(void **)pointer);
}

void cleanup_close(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static int64_t clock_read(clockid_t id) {
    struct timespec now;
    PROMISE(clock_gettime(id, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_now(void) {
    return clock_read(CLOCK_REALTIME);
}

int64_t clock_boot(void) {
    return clock_read(CLOCK_BOOTTIME);
}

int pread_all(int fd, void *buffer, size_t length, uint64_t offset) {
    uint8_t *at = buffer;
    while (length > 0) {
        ssize_t n = pread(fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        at += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

int pwrite_all(int fd, const void *buffer, size_t length, uint64_t offset) {
    const uint8_t *at = buffer;
    while (length > 0) {
        ssize_t n = pwrite(fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

int fsync_dir(const char *path) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}
