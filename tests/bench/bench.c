/* bench [-s MiB] [-n files] [-t tiny-operations] DIRECTORY [MEASURE…] — measures a file system by what programs do.
 *
 * Prints a line for each measure: name, figure, unit. Every figure is a rate: more is better. Without measures: all, in
 * an order in which each finds what it needs (files that one makes are read by later ones). What they made is removed.
 *
 * Page cache and inodes of the whole machine are dropped before what is said to run without them: it needs root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REQUEST (1u << 20)
#define BLOCK 4096u
#define FILES_IN_DIRECTORY 500u
#define THREADS 4u

static const char *where;
static uint64_t size_mib = 1024;
static unsigned files = 10000, tiny = 400;
static uint8_t *buffer;

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *format, ...) {
    va_list arguments;
    int error = errno;

    va_start(arguments, format);
    fprintf(stderr, "bench: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(error));
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t random_next(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Several times: a name that was used lately outlives the first. */
static void drop_caches(void) {
    sync();
    for (unsigned i = 0; i < 3; i++) {
        int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
        if (fd < 0 || write(fd, "3", 1) != 1)
            die("dropping caches");
        close(fd);
    }
}

/* What was written before is on its way to the disk still, below the kernel too: a measure is not to pay for the one
 * before it (seen: reading 1 GiB just written 480 to 980 MiB/s, after 6 s 1.5 GiB/s, ext4 alike). */
static void settle(void) {
    sync();
    sleep(5);
}

static void report(const char *name, double count, double seconds, const char *unit) {
    printf("%s\t%.1f\t%s\n", name, count / seconds, unit);
    fflush(stdout);
}

static const char *path_of(char *path, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
static const char *path_of(char *path, size_t room, const char *format, ...) {
    va_list arguments;
    int at = snprintf(path, room, "%s/", where);
    va_start(arguments, format);
    vsnprintf(path + at, room - (size_t)at, format, arguments);
    va_end(arguments);
    return path;
}

/* ---- One large file -------------------------------------------------------------------------------------------------- */

static int large_open(int flags) {
    char path[4096];
    int fd = open(path_of(path, sizeof path, "large"), flags | O_CLOEXEC, 0600);
    if (fd < 0)
        die("%s", path);
    return fd;
}

static void sequential_write(const char *name) {
    int fd = large_open(O_WRONLY | O_CREAT | O_TRUNC);
    double begin = now();
    for (uint64_t i = 0; i < size_mib; i++) {
        memcpy(buffer, &i, sizeof i);
        if (write(fd, buffer, REQUEST) != REQUEST)
            die("writing");
    }
    if (fsync(fd) != 0)
        die("fsync");
    report(name, (double)size_mib, now() - begin, "MiB/s");
    close(fd);
}

static void sequential_read(const char *name) {
    settle();
    drop_caches();
    int fd = large_open(O_RDONLY);
    double begin = now();
    for (uint64_t i = 0; i < size_mib; i++)
        if (read(fd, buffer, REQUEST) != REQUEST)
            die("reading");
    report(name, (double)size_mib, now() - begin, "MiB/s");
    close(fd);
}

static void random_read(const char *name) {
    drop_caches();
    int fd = large_open(O_RDONLY);
    uint64_t state = 1, count = 10ull * tiny;
    double begin = now();
    for (uint64_t i = 0; i < count; i++)
        if (pread(fd, buffer, BLOCK, (off_t)(random_next(&state) % (size_mib * 256) * BLOCK)) != BLOCK)
            die("reading");
    report(name, (double)count, now() - begin, "/s");
    close(fd);
}

static void random_write(const char *name, bool each) {
    int fd = large_open(O_WRONLY);
    uint64_t state = each ? 2 : 3, count = each ? tiny : 20ull * tiny;
    settle();
    double begin = now();
    for (uint64_t i = 0; i < count; i++) {
        memcpy(buffer, &state, sizeof state);
        if (pwrite(fd, buffer, BLOCK, (off_t)(random_next(&state) % (size_mib * 256) * BLOCK)) != BLOCK ||
            (each && fdatasync(fd) != 0))
            die("writing");
    }
    if (!each && fsync(fd) != 0)
        die("fsync");
    report(name, (double)count, now() - begin, "/s");
    close(fd);
}

static void random_write_once(const char *name) {
    random_write(name, false);
}
static void random_write_each(const char *name) {
    random_write(name, true);
}

/* ---- Many small files ------------------------------------------------------------------------------------------------ */

struct share { /* of one thread */
    pthread_t thread;
    const char *set;
    unsigned first, last;
    void (*each)(const char *path, const char *other);
};

static void *share_run(void *context) {
    const struct share *share = context;
    char path[4096], other[4096];

    for (unsigned i = share->first; i < share->last; i++) {
        path_of(path, sizeof path, "%s/%u/file.%u", share->set, i / FILES_IN_DIRECTORY, i);
        path_of(other, sizeof other, "%s/%u/other.%u", share->set, i / FILES_IN_DIRECTORY, i);
        share->each(path, other);
    }
    return NULL;
}

static void many(const char *name, const char *set, unsigned threads, void (*each)(const char *, const char *)) {
    struct share shares[THREADS];
    double begin = now();

    for (unsigned i = 0; i < threads; i++) {
        /* By whole directories, so that no two threads work in one. */
        unsigned directories = (files + FILES_IN_DIRECTORY - 1) / FILES_IN_DIRECTORY;
        unsigned first = directories * i / threads * FILES_IN_DIRECTORY;
        unsigned last = directories * (i + 1) / threads * FILES_IN_DIRECTORY;
        shares[i] = (struct share){.set = set, .first = first, .last = last < files ? last : files, .each = each};
        if (pthread_create(&shares[i].thread, NULL, share_run, &shares[i]) != 0)
            die("a thread");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(shares[i].thread, NULL);
    report(name, files, now() - begin, "/s");
}

static void make_directories(const char *set) {
    char path[4096];

    if (mkdir(path_of(path, sizeof path, "%s", set), 0755) != 0 && errno != EEXIST)
        die("%s", path);
    for (unsigned i = 0; i * FILES_IN_DIRECTORY < files; i++)
        if (mkdir(path_of(path, sizeof path, "%s/%u", set, i), 0755) != 0 && errno != EEXIST)
            die("%s", path);
}

static void file_create(const char *path, const char *other) {
    static const uint8_t bytes[BLOCK] = {1, 2, 3};
    (void)other;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes || close(fd) != 0)
        die("%s", path);
}
static void file_stat(const char *path, const char *other) {
    struct stat status;
    (void)other;
    if (lstat(path, &status) != 0)
        die("%s", path);
}
static void file_read(const char *path, const char *other) {
    uint8_t bytes[BLOCK];
    (void)other;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes || close(fd) != 0)
        die("%s", path);
}
static void file_rename(const char *path, const char *other) {
    if (rename(path, other) != 0)
        die("%s", path);
}
static void file_unlink(const char *path, const char *other) {
    (void)path;
    if (unlink(other) != 0)
        die("%s", other);
}
static void file_unlink_first(const char *path, const char *other) {
    (void)other;
    if (unlink(path) != 0)
        die("%s", path);
}

static void create_one(const char *name) {
    make_directories("one");
    many(name, "one", 1, file_create);
}
static void create_four(const char *name) {
    make_directories("four");
    drop_caches(); /* libfuse's passthrough holds a descriptor for each inode that the kernel remembers */
    many(name, "four", THREADS, file_create);
}
static void stat_cold(const char *name) {
    drop_caches();
    many(name, "one", 1, file_stat);
}
static void stat_warm(const char *name) {
    many(name, "one", 1, file_stat);
}
static void read_small(const char *name) {
    drop_caches();
    many(name, "one", 1, file_read);
}
static void rename_all(const char *name) {
    many(name, "one", 1, file_rename);
}
static void unlink_one(const char *name) {
    many(name, "one", 1, file_unlink);
}
static void unlink_four(const char *name) {
    many(name, "four", THREADS, file_unlink_first);
}

/* No part of the usual list: so many empty files, for measuring beside them. */
static void file_empty(const char *path, const char *other) {
    (void)other;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || close(fd) != 0)
        die("%s", path);
}
static void fill(const char *name) {
    make_directories("filled");
    many(name, "filled", THREADS, file_empty);
}

static unsigned walk(const char *path) {
    DIR *stream = opendir(path);
    struct dirent *entry;
    unsigned seen = 0;

    if (stream == NULL)
        die("%s", path);
    while ((entry = readdir(stream)) != NULL) {
        struct stat status;
        char child[4096];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            die("%s/%s", path, entry->d_name);
        seen++;
        if (S_ISDIR(status.st_mode) && (size_t)snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < sizeof child)
            seen += walk(child);
    }
    closedir(stream);
    return seen;
}

static void directory_walk(const char *name) {
    drop_caches();
    double begin = now();
    unsigned seen = walk(where);
    report(name, seen, now() - begin, "/s");
}

/* ---- The list -------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(const char *name);
} measures[] = {
    {"sequential write", sequential_write},
    {"sequential read, cold", sequential_read},
    {"random 4 KiB read, cold", random_read},
    {"random 4 KiB write, one fsync", random_write_once},
    {"4 KiB write + fdatasync each", random_write_each},
    {"create + write 4 KiB + close", create_one},
    {"the same by four threads", create_four},
    {"stat, cold", stat_cold},
    {"stat, warm", stat_warm},
    {"directory walk, cold", directory_walk},
    {"read small files, cold", read_small},
    {"rename", rename_all},
    {"unlink", unlink_one},
    {"unlink by four threads", unlink_four},
    {"fill", fill},
};

static void remove_rest(void) {
    char path[4096];

    unlink(path_of(path, sizeof path, "large"));
    for (unsigned i = 0; i * FILES_IN_DIRECTORY < files; i++) {
        rmdir(path_of(path, sizeof path, "one/%u", i));
        rmdir(path_of(path, sizeof path, "four/%u", i));
    }
    rmdir(path_of(path, sizeof path, "one"));
    rmdir(path_of(path, sizeof path, "four"));
}

static uint64_t number(const char *text) {
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*end != '\0' || value == 0 || value > 1u << 24) {
        fprintf(stderr, "bench: \"%s\" is no number from 1 to %u\n", text, 1u << 24);
        exit(2);
    }
    return value;
}

int main(int count, char **arguments) {
    int option;

    while ((option = getopt(count, arguments, "s:n:t:")) != -1) {
        if (option == 's')
            size_mib = number(optarg);
        else if (option == 'n')
            files = (unsigned)number(optarg);
        else if (option == 't')
            tiny = (unsigned)number(optarg);
        else
            return 2;
    }
    if (optind == count) {
        fprintf(stderr, "usage: bench [-s MiB] [-n files] [-t tiny-operations] DIRECTORY [MEASURE…]\n");
        return 2;
    }
    where = arguments[optind++];
    if (posix_memalign((void **)&buffer, BLOCK, REQUEST) != 0)
        die("memory");
    uint64_t state = 4;
    for (unsigned i = 0; i < REQUEST; i += 8) { /* not compressible */
        uint64_t value = random_next(&state);
        memcpy(buffer + i, &value, sizeof value);
    }
    for (unsigned i = 0; i < sizeof measures / sizeof *measures; i++) {
        bool wanted = optind == count && measures[i].run != fill;
        for (int a = optind; a < count; a++)
            wanted = wanted || strcmp(arguments[a], measures[i].name) == 0;
        if (wanted)
            measures[i].run(measures[i].name);
    }
    if (optind == count)
        remove_rest();
    free(buffer);
    return 0;
}
