#include "tests/disk-fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static disk_fault_fn *_Atomic asked;
static __thread bool inside;

void disk_fault_set(disk_fault_fn *fn) {
    atomic_store(&asked, fn);
}

static bool refused(int fd, enum disk_call call, size_t length) {
    char link[64], path[4096];
    disk_fault_fn *fn = atomic_load(&asked);
    if (!fn || inside)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    inside = true;
    int error = fn(call, path, length);
    inside = false;
    errno = error;
    return error != 0;
}

ssize_t pread(int fd, void *buffer, size_t length, off_t offset) {
    return refused(fd, DISK_READ, length) ? -1 : syscall(SYS_pread64, fd, buffer, length, offset);
}
ssize_t pread64(int fd, void *buffer, size_t length, off64_t offset) {
    return pread(fd, buffer, length, offset);
}
ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset) {
    return refused(fd, DISK_WRITE, length) ? -1 : syscall(SYS_pwrite64, fd, buffer, length, offset);
}
ssize_t pwrite64(int fd, const void *buffer, size_t length, off64_t offset) {
    return pwrite(fd, buffer, length, offset);
}
static size_t bytes_of(const struct iovec *iov, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}
ssize_t writev(int fd, const struct iovec *iov, int count) {
    return refused(fd, DISK_WRITE, bytes_of(iov, count)) ? -1 : syscall(SYS_writev, fd, iov, count);
}
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset) {
    return refused(fd, DISK_WRITE, bytes_of(iov, count)) ? -1 : syscall(SYS_pwritev, fd, iov, count, offset, 0);
}
int fdatasync(int fd) {
    return refused(fd, DISK_SYNC, 0) ? -1 : (int)syscall(SYS_fdatasync, fd);
}
int fsync(int fd) {
    return refused(fd, DISK_SYNC, 0) ? -1 : (int)syscall(SYS_fsync, fd);
}
