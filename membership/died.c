#include "membership/died.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define READ_MAX (DIED_NOTES * DIED_TEXT)

void died_path(const char *store_path, char *path, size_t room) {
    size_t length = strlen(store_path);
    while (length > 1 && store_path[length - 1] == '/')
        length--;
    snprintf(path, room, "%.*s.died", (int)MIN(length, (size_t)INT_MAX), store_path);
}

static void how(const struct died *died, char *text, size_t room) {
    int status = died->wait_status;
    if (died->overdue)
        snprintf(text, room, "stopped answering: its lease had run out, and it neither renewed nor gave it up; was killed");
    else if (WIFSIGNALED(status))
        snprintf(text, room, "killed by signal %d (%s)%s", WTERMSIG(status),
                 sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?", WCOREDUMP(status) ? ", core dumped" : "");
    else
        snprintf(text, room, "ended with exit status %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

void died_text(const struct died *died, char text[DIED_TEXT]) {
    time_t seconds = (time_t)(died->when / 1000000000);
    struct tm when = {0};
    char what[128], where[80] = "", stamp[32] = "?";

    if (gmtime_r(&seconds, &when))
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &when);
    how(died, what, sizeof what);
    if (died->lsn)
        snprintf(where, sizeof where, ", at LSN %" PRIu64 " of epoch %" PRIu64, died->lsn, EPOCH_COUNTER(died->epoch));
    snprintf(text, DIED_TEXT, "%s %s after %s %" PRId64 ".%" PRId64 " s%s; %" PRIu32 " restart%s before", stamp, what,
             died->never_served ? "starting for" : "serving", died->lasted / 1000000000, died->lasted / 100000000 % 10, where,
             died->restarts, died->restarts == 1 ? "" : "s");
}

/* The file's end: whole lines, READ_MAX bytes at most. The length or a negative errno. */
static ssize_t read_end(const char *path, char bytes[READ_MAX]) {
    struct stat about;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fstat(fd, &about) < 0)
        return -errno;
    if (!S_ISREG(about.st_mode))
        return -EINVAL;
    off_t from = MAX(about.st_size - (off_t)READ_MAX, 0);
    ssize_t length = pread(fd, bytes, READ_MAX, from);
    if (length <= 0)
        return length < 0 ? -errno : 0;
    char *first = from ? memchr(bytes, '\n', (size_t)length) : NULL;
    if (from && !first)
        return 0;
    size_t cut = first ? (size_t)(first + 1 - bytes) : 0;
    memmove(bytes, bytes + cut, (size_t)length - cut);
    return length - (ssize_t)cut;
}

static bool is_text(const char *line, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (line[i] < ' ' || line[i] > '~')
            return false;
    return length > 0 && length < DIED_TEXT;
}

int died_each(const char *store_path, void (*each)(void *context, const char *text), void *context) {
    char path[PATH_MAX], bytes[READ_MAX], line[DIED_TEXT];

    died_path(store_path, path, sizeof path);
    ssize_t length = read_end(path, bytes);
    if (length < 0)
        return (int)length;
    for (char *at = bytes, *end; (end = memchr(at, '\n', (size_t)(bytes + length - at))) != NULL; at = end + 1) {
        if (!is_text(at, (size_t)(end - at)))
            continue;
        memcpy(line, at, (size_t)(end - at));
        line[end - at] = 0;
        each(context, line);
    }
    return 0;
}

struct kept {
    unsigned count; /* ever */
    char lines[DIED_NOTES][DIED_TEXT];
};

static void keep(void *context, const char *text) {
    struct kept *kept = context;
    snprintf(kept->lines[kept->count++ % DIED_NOTES], DIED_TEXT, "%s", text);
}

int died_add(const char *store_path, const struct died *died) {
    static struct kept kept;
    char path[PATH_MAX], newer[PATH_MAX + 4], text[DIED_TEXT];

    kept.count = 0;
    int error = died_each(store_path, keep, &kept);
    if (error) /* not a file of ours */
        return error;
    died_text(died, text);
    keep(&kept, text);
    died_path(store_path, path, sizeof path);
    snprintf(newer, sizeof newer, "%s.new", path);
    unlink(newer);
    FILE *file = fopen(newer, "wxe");
    if (!file)
        return -errno;
    unsigned first = kept.count > DIED_NOTES ? kept.count - DIED_NOTES : 0;
    for (unsigned i = first; i < kept.count; i++)
        if (fprintf(file, "%s\n", kept.lines[i % DIED_NOTES]) < 0)
            error = -EIO;
    if (fclose(file) != 0 && !error)
        error = -errno;
    if (!error && rename(newer, path) < 0)
        error = -errno;
    if (error)
        unlink(newer);
    return error;
}
