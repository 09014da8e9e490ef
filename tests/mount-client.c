/* What a program on a mount of a client does, and how it goes on: for the clients of tests/linux-client.sh, which have
 * a Linux kernel and little else.
 *
 *   mount-client write FILE MILLISECONDS
 *       Makes FILE and writes a record to it every so many milliseconds: number N, at N * 64, followed by fsync(2). Every
 *       tenth is read back from the server. A line for each that fsync has acknowledged, and for what went wrong:
 *           ack N BEGIN END      nanoseconds, CLOCK_BOOTTIME of the client
 *           error N WHAT ERRNO   it is tried again
 *           wrong N              a record that was acknowledged reads otherwise
 *       SIGTERM: everything is read once more, and "end COUNT" is the last line.
 *
 *   mount-client files DIRECTORY MILLISECONDS
 *       The same with a new file for each record, which must not be there yet (O_EXCL), closed again; nothing is read.
 *
 *   mount-client lock FILE
 *       Opens FILE and does what the lines of standard input say, with a line of answer to each, "ok" or why not:
 *           take, wait, drop     a lock of fcntl on all of it: without waiting, waiting, no more
 *           flock, unflock
 *           put TEXT, get        written at the beginning, and fsync
 *           end
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 64, READ_EVERY = 10, LINE = 256, PAGE = 4096 };

static volatile sig_atomic_t ending;

static void on_term(int signal) {
    (void)signal;
    ending = 1;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void pause_until(int64_t when) {
    struct timespec until = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};
    while (!ending && clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

static void record_of(uint64_t number, char *record) {
    snprintf(record, RECORD + 1, "%-63" PRIu64 "\n", number);
}

// What did not work, or NULL; then errno says why.
static const char *write_record(int fd, uint64_t number) {
    char record[RECORD + 1];
    record_of(number, record);
    errno = 0;
    if (pwrite(fd, record, RECORD, (off_t)number * RECORD) != RECORD)
        return "write";
    return fsync(fd) == 0 ? NULL : "fsync";
}

// From the server, not from this client's memory, where only whole pages are dropped: done for each page's first record,
// and for one that is read alone.
static bool read_right(int fd, uint64_t number, bool alone) {
    char record[RECORD + 1], seen[RECORD];
    record_of(number, record);
    if (alone || number % (PAGE / RECORD) == 0)
        (void)posix_fadvise(fd, (off_t)(number * RECORD / PAGE * PAGE), PAGE, POSIX_FADV_DONTNEED);
    ssize_t got = pread(fd, seen, RECORD, (off_t)number * RECORD);
    if (got < 0) {
        printf("error %" PRIu64 " read %s\n", number, strerror(errno));
        return true;
    }
    return got == RECORD && memcmp(record, seen, RECORD) == 0;
}

static const char *make_file(const char *directory, uint64_t number) {
    char path[4096], record[RECORD + 1];
    snprintf(path, sizeof path, "%s/%" PRIu64, directory, number);
    record_of(number, record);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        return "open";
    const char *what = write(fd, record, RECORD) != RECORD ? "write" : fsync(fd) != 0 ? "fsync" : NULL;
    int why = errno;
    if (close(fd) != 0 && !what)
        return "close";
    errno = why;
    return what;
}

static int files_for_ever(const char *directory, int64_t interval_ns) {
    uint64_t number = 0;
    for (; !ending; number++) {
        int64_t begin = now_ns();
        const char *what = make_file(directory, number);
        if (what)
            printf("error %" PRIu64 " %s %s\n", number, what, strerror(errno));
        else
            printf("ack %" PRIu64 " %" PRId64 " %" PRId64 "\n", number, begin, now_ns());
        fflush(stdout);
        pause_until(begin + interval_ns);
    }
    printf("end %" PRIu64 "\n", number);
    return 0;
}

static int write_for_ever(const char *path, int64_t interval_ns) {
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    if (fd < 0) {
        printf("error 0 open %s\n", strerror(errno));
        return 1;
    }
    uint64_t number = 0;
    while (!ending) {
        int64_t begin = now_ns();
        const char *what = write_record(fd, number);
        if (what) {
            printf("error %" PRIu64 " %s %s\n", number, what, strerror(errno));
        } else {
            printf("ack %" PRIu64 " %" PRId64 " %" PRId64 "\n", number, begin, now_ns());
            if (number % READ_EVERY == 0 && !read_right(fd, number, true))
                printf("wrong %" PRIu64 "\n", number);
            number++;
        }
        fflush(stdout);
        pause_until(begin + interval_ns);
    }
    for (uint64_t n = 0; n < number; n++)
        if (!read_right(fd, n, false))
            printf("wrong %" PRIu64 "\n", n);
    if (close(fd) != 0)
        printf("error %" PRIu64 " close %s\n", number, strerror(errno));
    printf("end %" PRIu64 "\n", number);
    return 0;
}

static int lock_all(int fd, int command, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(fd, command, &lock);
}

static int do_line(int fd, const char *line, char *text) {
    if (strcmp(line, "take") == 0)
        return lock_all(fd, F_SETLK, F_WRLCK);
    if (strcmp(line, "wait") == 0)
        return lock_all(fd, F_SETLKW, F_WRLCK);
    if (strcmp(line, "drop") == 0)
        return lock_all(fd, F_SETLK, F_UNLCK);
    if (strcmp(line, "flock") == 0)
        return flock(fd, LOCK_EX | LOCK_NB);
    if (strcmp(line, "unflock") == 0)
        return flock(fd, LOCK_UN);
    if (strncmp(line, "put ", 4) == 0)
        return pwrite(fd, line + 4, strlen(line + 4), 0) == (ssize_t)strlen(line + 4) ? fsync(fd) : -1;
    if (strcmp(line, "get") == 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        ssize_t got = pread(fd, text, LINE - 1, 0);
        text[got > 0 ? got : 0] = 0;
        return got < 0 ? -1 : 0;
    }
    errno = ENOSYS;
    return -1;
}

static int lock_as_told(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    printf("%s\n", fd >= 0 ? "ok" : strerror(errno));
    fflush(stdout);
    char line[LINE], text[LINE];
    while (fd >= 0 && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "end") == 0)
            break;
        text[0] = 0;
        if (do_line(fd, line, text) == 0)
            printf("ok%s%s\n", text[0] ? " " : "", text);
        else
            printf("no: %s\n", strerror(errno));
        fflush(stdout);
    }
    return fd < 0 || close(fd) != 0;
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    if (argc == 4 && strcmp(argv[1], "files") == 0)
        return files_for_ever(argv[2], (int64_t)strtol(argv[3], NULL, 10) * 1000000);
    if (argc == 4 && strcmp(argv[1], "write") == 0)
        return write_for_ever(argv[2], (int64_t)strtol(argv[3], NULL, 10) * 1000000);
    if (argc == 3 && strcmp(argv[1], "lock") == 0)
        return lock_as_told(argv[2]);
    fprintf(stderr, "usage: mount-client write FILE MILLISECONDS | files DIRECTORY MILLISECONDS | lock FILE\n");
    return 2;
}
