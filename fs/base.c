#include "fs/base.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static char prefix[160] = "baton";
static atomic_bool verbose;

void log_identify(const char *text) {
    snprintf(prefix, sizeof prefix, "%s", text);
}

void log_verbose(bool on) {
    atomic_store(&verbose, on);
}

void log_write(enum log_level level, const char *format, ...) {
    char line[2048];
    va_list arguments;

    if (level == LOG_LEVEL_DEBUG && !atomic_load(&verbose))
        return;
    int head = snprintf(line, sizeof line, "%s: ", prefix);
    va_start(arguments, format);
    int body = vsnprintf(line + head, sizeof line - (size_t)head - 1, format, arguments);
    va_end(arguments);
    size_t length = MIN((size_t)head + (size_t)MAX(body, 0), sizeof line - 2);
    line[length++] = '\n';
    /* One write a line, so that threads and processes do not mix theirs. A log that cannot be written has nowhere to
     * be reported. */
    ssize_t done = write(STDERR_FILENO, line, length);
    (void)done;
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
