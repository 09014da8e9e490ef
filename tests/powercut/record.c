/* record.so: an LD_PRELOAD layer that writes down every change to files below one directory, and every flush.
 *
 *   POWERCUT_DIR=dir POWERCUT_LOG=file LD_PRELOAD=record.so program …
 *
 * The log then says what a power cut could have left at any instant: see model.h. What the directory holds when the
 * first process starts counts as durable; a later process with the same log goes on where the last one ended.
 *
 * A change and its line in the log are made under one lock, so the log's order is the true order; a flush is two lines,
 * its begin and its end, and runs outside the lock. Two more switches:
 *   POWERCUT_KILL_AT=n  SIGKILL, under the lock, when this process has logged n events
 *   POWERCUT_FAIL_SYNC=n  the nth flush fails with EIO (and the kernel's pages are clean afterwards: see model.h)
 *
 * Not followed: stores through a shared mapping, stdio, copy_file_range and the like: those that touch a recorded
 * directory are logged as unsupported, and model.c refuses the log. One process at a time.
 */
#include "tests/powercut/log.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#undef open
#undef open64
#undef openat
#undef openat64
#undef creat
#undef creat64

void powercut_mark(const char *text);

#define KNOWN_ROOM 65536u /* files seen in one run */
#define NAME_ROOM 256u
#define IOV_ROOM 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static dev_t device;
static struct file_key known[KNOWN_ROOM];
static unsigned known_count;
static uint64_t logged, kill_at, syncs, fail_sync, token;

/* The real function `name`, found once. */
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL && (real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)) == NULL) \
        abort()

static ssize_t real_pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t);
    return real(fd, parts, count, offset);
}

static ssize_t real_writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return real(fd, parts, count);
}

static int real_openat(int directory, const char *path, int flags, mode_t mode) {
    REAL(int, "openat64", int, const char *, int, ...);
    return real(directory, path, flags, mode);
}

static int real_close(int fd) {
    REAL(int, "close", int);
    return real(fd);
}

/* A log that cannot be written would prove nothing: the program ends. */
static void log_event(struct event *event, const void *text, size_t text_length, const struct iovec *data, int parts,
                      size_t length) {
    struct iovec all[IOV_ROOM + 2];
    size_t want = sizeof *event + text_length + length;

    if (parts > IOV_ROOM)
        abort();
    event->magic = EVENT_MAGIC;
    event->text = (uint32_t)text_length;
    event->data = (uint32_t)length;
    all[0] = (struct iovec){event, sizeof *event};
    all[1] = (struct iovec){(void *)(uintptr_t)text, text_length};
    int count = 2;
    for (int i = 0; i < parts && length > 0; i++) {
        size_t take = data[i].iov_len < length ? data[i].iov_len : length;
        all[count++] = (struct iovec){data[i].iov_base, take};
        length -= take;
    }
    if (real_writev(log_fd, all, count) != (ssize_t)want)
        abort();
    if (++logged == kill_at)
        kill(getpid(), SIGKILL);
}

static void log_plain(struct event *event) {
    log_event(event, NULL, 0, NULL, 0, 0);
}

static void unsupported(const char *what) {
    struct event event = {.type = EVENT_UNSUPPORTED};
    log_event(&event, what, strlen(what), NULL, 0, 0);
}

void powercut_mark(const char *text) {
    struct event event = {.type = EVENT_MARK};
    if (log_fd < 0)
        return;
    pthread_mutex_lock(&lock);
    log_event(&event, text, strlen(text), NULL, 0, 0);
    pthread_mutex_unlock(&lock);
}

static struct file_key key_of(int fd, const struct stat *status) {
    int generation = 0;
    if (ioctl(fd, FS_IOC_GETVERSION, &generation) != 0)
        generation = 0;
    return (struct file_key){status->st_ino, (uint32_t)generation, S_ISDIR(status->st_mode) ? 1 : 0};
}

static bool known_ino(uint64_t ino) {
    for (unsigned i = 0; i < known_count; i++)
        if (known[i].ino == ino)
            return true;
    return false;
}

/* Is it one of ours? Then *key is its name. */
static bool find(int fd, struct file_key *key) {
    struct stat status;

    if (log_fd < 0 || fd == log_fd || fstat(fd, &status) != 0 || status.st_dev != device || !known_ino(status.st_ino))
        return false;
    *key = key_of(fd, &status);
    for (unsigned i = 0; i < known_count; i++)
        if (known[i].ino == key->ino && known[i].generation == key->generation)
            return true;
    return false;
}

static struct file_key learn(int fd) {
    struct stat status;
    struct file_key key;

    if (find(fd, &key))
        return key;
    if (fstat(fd, &status) != 0 || known_count == KNOWN_ROOM)
        abort();
    key = key_of(fd, &status);
    known[known_count++] = key;
    return key;
}

/* Splits a path; true if its directory is recorded. */
static bool parent_of(int at, const char *path, struct file_key *parent, char name[NAME_ROOM]) {
    char directory[4096];
    const char *slash = path == NULL ? NULL : strrchr(path, '/');
    const char *last = slash == NULL ? path : slash + 1;
    int saved = errno;

    if (log_fd < 0 || path == NULL || strlen(last) == 0 || strlen(last) >= NAME_ROOM ||
        strlen(path) >= sizeof directory)
        return false;
    snprintf(directory, sizeof directory, "%.*s", slash == NULL ? 0 : (int)(slash - path) + 1, path);
    int fd = real_openat(at, slash == NULL ? "." : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    bool ours = fd >= 0 && find(fd, parent);
    if (fd >= 0)
        real_close(fd);
    snprintf(name, NAME_ROOM, "%s", last);
    errno = saved;
    return ours;
}

static void log_name(enum event_type type, struct file_key parent, const char *name, struct file_key file) {
    struct event event = {.type = (uint16_t)type, .parent = parent, .file = file};
    log_event(&event, name, strlen(name), NULL, 0, 0);
}

static void log_truncate(struct file_key file, uint64_t size) {
    struct event event = {.type = EVENT_TRUNCATE, .file = file, .length = size};
    log_plain(&event);
}

/* ---- What is there at the start ------------------------------------------------------------------------------------ */

static void walk_data(int fd, struct file_key key) {
    static uint8_t buffer[1 << 20];
    struct stat status;
    off_t at = 0;

    if (fstat(fd, &status) != 0)
        abort();
    while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
        off_t end = lseek(fd, at, SEEK_HOLE);
        while (at < end) {
            ssize_t got = pread(fd, buffer, (size_t)(end - at) < sizeof buffer ? (size_t)(end - at) : sizeof buffer, at);
            if (got <= 0)
                abort();
            struct event event = {.type = EVENT_WRITE, .file = key, .offset = (uint64_t)at};
            log_event(&event, NULL, 0, &(struct iovec){buffer, (size_t)got}, 1, (size_t)got);
            at += got;
        }
    }
    log_truncate(key, (uint64_t)status.st_size);
}

static void walk(int directory, struct file_key parent, bool write_down) {
    DIR *stream = fdopendir(directory);
    struct dirent *entry;

    if (stream == NULL)
        abort();
    while ((entry = readdir(stream)) != NULL) {
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
            (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)))
            continue;
        int fd = real_openat(directory, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
        if (fd < 0)
            abort();
        struct file_key key = learn(fd);
        if (write_down)
            log_name(EVENT_CREATE, parent, entry->d_name, key);
        if (key.directory)
            walk(fd, key, write_down); /* closes it */
        else {
            if (write_down)
                walk_data(fd, key);
            real_close(fd);
        }
    }
    closedir(stream);
}

static void log_sync_all(void) {
    struct event event = {.type = EVENT_SYNC_BEGIN};
    log_plain(&event);
    event.type = EVENT_SYNC_END;
    log_plain(&event);
}

/* A process that was killed may have left its last event half written: cut off, or what follows could not be read. */
static void cut_torn(int fd) {
    struct event event;
    off_t at = 0, end = lseek(fd, 0, SEEK_END);
    while (at + (off_t)sizeof event <= end && pread(fd, &event, sizeof event, at) == (ssize_t)sizeof event) {
        off_t next = at + (off_t)sizeof event + (off_t)event.text + (off_t)event.data;
        if (event.magic != EVENT_MAGIC || next > end)
            break;
        at = next;
    }
    REAL(int, "ftruncate64", int, off_t);
    if (at < end && real(fd, at) != 0)
        abort();
}


__attribute__((constructor)) static void start(void) {
    const char *directory = getenv("POWERCUT_DIR"), *log = getenv("POWERCUT_LOG"), *number;
    struct stat status;

    if (directory == NULL || log == NULL)
        return;
    int root = real_openat(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int fd = real_openat(AT_FDCWD, log, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (root < 0 || fd < 0 || fstat(root, &status) != 0) {
        fprintf(stderr, "record.so: %s and %s: %s\n", directory, log, strerror(errno));
        _exit(99);
    }
    device = status.st_dev;
    cut_torn(fd);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
    real_close(fd);
    if ((number = getenv("POWERCUT_FAIL_SYNC")) != NULL)
        fail_sync = strtoull(number, NULL, 10);
    token = (uint64_t)getpid() << 32;
    struct file_key key = learn(root);
    struct event event = {.type = EVENT_START, .file = key};
    bool first = fstat(log_fd, &status) == 0 && status.st_size == 0;
    log_plain(&event);
    walk(root, key, first);
    if (first)
        log_sync_all();
    logged = 0;
    if ((number = getenv("POWERCUT_KILL_AT")) != NULL)
        kill_at = strtoull(number, NULL, 10);
}

/* ---- Names --------------------------------------------------------------------------------------------------------- */

static int record_open(int at, const char *path, int flags, mode_t mode) {
    struct file_key parent, key;
    char name[NAME_ROOM];
    struct stat status;

    if (!parent_of(at, path, &parent, name))
        return real_openat(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    bool there = fstatat(at, path, &status, 0) == 0;
    int fd = real_openat(at, path, flags, mode);
    int saved = errno;
    if (fd >= 0 && (flags & O_PATH) == 0) {
        key = learn(fd);
        if ((flags & O_TMPFILE) == O_TMPFILE)
            unsupported("O_TMPFILE");
        else if (!there)
            log_name(EVENT_CREATE, parent, name, key);
        else if ((flags & O_TRUNC) != 0 && status.st_size > 0)
            log_truncate(key, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define MODE_ARGUMENT(flags) \
    mode_t mode = 0; \
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments); \
    }

int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    return record_open(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    return record_open(AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    return record_open(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    return record_open(at, path, flags, mode);
}
int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags) {
    return record_open(AT_FDCWD, path, flags, 0);
}
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags) {
    return record_open(AT_FDCWD, path, flags, 0);
}
int creat(const char *path, mode_t mode) {
    return record_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) {
    return record_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

static void refuse_stdio(const char *path, const char *mode) {
    struct file_key parent;
    char name[NAME_ROOM];
    if (strpbrk(mode, "wa+") != NULL && parent_of(AT_FDCWD, path, &parent, name)) {
        pthread_mutex_lock(&lock);
        unsupported("fopen for writing");
        pthread_mutex_unlock(&lock);
    }
}
FILE *fopen(const char *path, const char *mode) {
    REAL(FILE *, "fopen", const char *, const char *);
    refuse_stdio(path, mode);
    return real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    REAL(FILE *, "fopen64", const char *, const char *);
    refuse_stdio(path, mode);
    return real(path, mode);
}

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    struct file_key parent;
    char name[NAME_ROOM];

    if (!parent_of(at, path, &parent, name))
        return real(at, path, mode);
    pthread_mutex_lock(&lock);
    int result = real(at, path, mode), saved = errno;
    if (result == 0) {
        int fd = real_openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        if (fd < 0)
            abort();
        log_name(EVENT_CREATE, parent, name, learn(fd));
        real_close(fd);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int mkdir(const char *path, mode_t mode) {
    return mkdirat(AT_FDCWD, path, mode);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    struct file_key parent;
    char name[NAME_ROOM];

    if (!parent_of(at, path, &parent, name))
        return real(at, path, flags);
    pthread_mutex_lock(&lock);
    int result = real(at, path, flags), saved = errno;
    if (result == 0)
        log_name(EVENT_UNLINK, parent, name, (struct file_key){0});
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}
int rmdir(const char *path) {
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
int remove(const char *path) {
    int result = unlinkat(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : result;
}

int renameat2(int at, const char *path, int to_at, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    struct event event = {.type = EVENT_RENAME, .flags = (uint16_t)flags};
    char names[2 * NAME_ROOM], to_name[NAME_ROOM];
    bool from_ours = parent_of(at, path, &event.parent, names);
    bool to_ours = parent_of(to_at, to, &event.to_parent, to_name);

    if (!from_ours && !to_ours)
        return real(at, path, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int result = real(at, path, to_at, to, flags), saved = errno;
    if (result == 0 && from_ours != to_ours)
        unsupported("rename across the edge of the directory");
    else if (result == 0) {
        size_t first = strlen(names) + 1;
        memcpy(names + first, to_name, strlen(to_name) + 1);
        log_event(&event, names, first + strlen(to_name) + 1, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int renameat(int at, const char *path, int to_at, const char *to) {
    return renameat2(at, path, to_at, to, 0);
}
int rename(const char *path, const char *to) {
    return renameat2(AT_FDCWD, path, AT_FDCWD, to, 0);
}

int linkat(int at, const char *path, int to_at, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    struct file_key parent;
    char name[NAME_ROOM];

    if (!parent_of(to_at, to, &parent, name))
        return real(at, path, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int result = real(at, path, to_at, to, flags), saved = errno;
    if (result == 0) {
        int fd = real_openat(to_at, to, O_RDONLY | O_CLOEXEC, 0);
        if (fd < 0)
            abort();
        log_name(EVENT_LINK, parent, name, learn(fd));
        real_close(fd);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int link(const char *path, const char *to) {
    return linkat(AT_FDCWD, path, AT_FDCWD, to, 0);
}

int symlinkat(const char *target, int at, const char *path) {
    REAL(int, "symlinkat", const char *, int, const char *);
    struct file_key parent;
    char name[NAME_ROOM];
    if (parent_of(at, path, &parent, name)) {
        pthread_mutex_lock(&lock);
        unsupported("symlink");
        pthread_mutex_unlock(&lock);
    }
    return real(target, at, path);
}
int symlink(const char *target, const char *path) {
    return symlinkat(target, AT_FDCWD, path);
}

/* ---- Data ---------------------------------------------------------------------------------------------------------- */

/* offset -1: at the file's own position */
static ssize_t record_write(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    struct event event = {.type = EVENT_WRITE};
    struct stat status;

    if (log_fd < 0 || !find(fd, &event.file))
        return offset < 0 ? real_writev(fd, parts, count) : real_pwritev(fd, parts, count, offset);
    pthread_mutex_lock(&lock);
    int mode = fcntl(fd, F_GETFL);
    if ((mode & O_APPEND) != 0 && fstat(fd, &status) == 0)
        event.offset = (uint64_t)status.st_size;
    else
        event.offset = offset < 0 ? (uint64_t)lseek(fd, 0, SEEK_CUR) : (uint64_t)offset;
    if ((mode & O_DSYNC) != 0 || (flags & (RWF_DSYNC | RWF_SYNC)) != 0)
        event.flags = EVENT_DSYNC;
    if ((flags & RWF_APPEND) != 0)
        unsupported("RWF_APPEND");
    ssize_t done = offset < 0 ? real_writev(fd, parts, count) : real_pwritev(fd, parts, count, offset);
    int saved = errno;
    if (done > 0)
        log_event(&event, NULL, 0, parts, count, (size_t)done);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return record_write(fd, &(struct iovec){(void *)(uintptr_t)bytes, length}, 1, -1, 0);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return record_write(fd, parts, count, -1, 0);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return record_write(fd, &(struct iovec){(void *)(uintptr_t)bytes, length}, 1, offset, 0);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return record_write(fd, &(struct iovec){(void *)(uintptr_t)bytes, length}, 1, offset, 0);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return record_write(fd, parts, count, offset, 0);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return record_write(fd, parts, count, offset, 0);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return record_write(fd, parts, count, offset, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags);
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    return record_write(fd, parts, count, offset, flags);
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    struct file_key key;

    if (!find(fd, &key))
        return real(fd, size);
    pthread_mutex_lock(&lock);
    int result = real(fd, size), saved = errno;
    if (result == 0)
        log_truncate(key, (uint64_t)size);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int ftruncate64(int fd, off64_t size) {
    return ftruncate(fd, size);
}
int truncate(const char *path, off_t size) {
    int fd = record_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int result = ftruncate(fd, size), saved = errno;
    real_close(fd);
    errno = saved;
    return result;
}
int truncate64(const char *path, off64_t size) {
    return truncate(path, size);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    REAL(int, "fallocate", int, int, off_t, off_t);
    struct event event = {.type = EVENT_ZERO, .offset = (uint64_t)offset, .length = (uint64_t)length};
    struct stat before, after;

    if (!find(fd, &event.file))
        return real(fd, mode, offset, length);
    pthread_mutex_lock(&lock);
    bool sized = fstat(fd, &before) == 0;
    int result = real(fd, mode, offset, length), saved = errno;
    if (result == 0) {
        if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
            unsupported("fallocate that moves data");
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
            log_plain(&event);
        if (sized && fstat(fd, &after) == 0 && after.st_size != before.st_size)
            log_truncate(event.file, (uint64_t)after.st_size);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    return fallocate(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length) {
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    return posix_fallocate(fd, offset, length);
}

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    struct file_key key;
    if (find(to, &key)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return real(from, from_offset, to, to_offset, length, flags);
}

static void note_mapping(int protection, int flags, int fd) {
    struct file_key key;
    char link[64], path[4096];

    if ((protection & PROT_WRITE) == 0 || (flags & MAP_SHARED) == 0 || fd < 0 || !find(fd, &key))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    /* LMDB's lock file: no part of the data, every open makes it anew. */
    if (length > 9 && memcmp(path + length - 9, "/lock.mdb", 9) == 0)
        return;
    pthread_mutex_lock(&lock);
    unsupported("a writable shared mapping");
    pthread_mutex_unlock(&lock);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    REAL(void *, "mmap", void *, size_t, int, int, int, off_t);
    note_mapping(protection, flags, fd);
    return real(address, length, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    return mmap(address, length, protection, flags, fd, offset);
}

/* ---- Flushes ------------------------------------------------------------------------------------------------------- */

static int record_sync(struct file_key key, int (*flush)(int), int fd) {
    struct event event = {.type = EVENT_SYNC_BEGIN, .file = key};

    pthread_mutex_lock(&lock);
    event.offset = ++token;
    bool fail = ++syncs == fail_sync;
    log_plain(&event);
    pthread_mutex_unlock(&lock);
    int result = fail ? -1 : flush(fd);
    int error = fail ? EIO : errno;
    pthread_mutex_lock(&lock);
    event.type = EVENT_SYNC_END;
    event.length = result == 0 ? 0 : (uint64_t)error;
    log_plain(&event);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static int real_fsync(int fd) {
    REAL(int, "fsync", int);
    return real(fd);
}
static int real_fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return real(fd);
}
static int real_syncfs(int fd) {
    REAL(int, "syncfs", int);
    return real(fd);
}

int fsync(int fd) {
    struct file_key key;
    return find(fd, &key) ? record_sync(key, real_fsync, fd) : real_fsync(fd);
}
int fdatasync(int fd) {
    struct file_key key;
    return find(fd, &key) ? record_sync(key, real_fdatasync, fd) : real_fdatasync(fd);
}
int syncfs(int fd) {
    struct file_key key;
    return find(fd, &key) ? record_sync((struct file_key){0}, real_syncfs, fd) : real_syncfs(fd);
}
