/* The power-cut rig judges others, so here it is judged: a small program that keeps its promises over a power cut
 * passes every cut, and for each flush that is left out, or failed and tried again, some cut shows the loss. */
#include "fs/base.h"
#include "tests/powercut/model.h"
#include "tests/powercut/run.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEPS 60u
#define CUTS 150u

/* ---- The victim: counts up, and says "acknowledged N" when N is safe ------------------------------------------------
 * Most numbers go into a log, in place. Every tenth one goes into `value`, by a new file and a rename, and begins a new
 * log. */

struct line {
    uint64_t number;
    uint64_t check;
};

static const char *fault;

static bool is_fault(const char *name) {
    return strcmp(fault, name) == 0;
}

static void flush(int fd, const char *name) {
    if (is_fault(name))
        return;
    if (fsync(fd) != 0 && !(is_fault("retry") && fsync(fd) == 0))
        exit(3);
}

static void flush_directory(int directory) {
    flush(directory, "names");
}

static void put(int fd, uint64_t number, off_t at) {
    struct line line = {number, ~number};
    if (pwrite(fd, &line, sizeof line, at) != (ssize_t)sizeof line)
        exit(3);
}

static int victim(const char *path) {
    int directory = open(path, O_RDONLY | O_DIRECTORY), log = -1;
    char name[32];

    for (uint64_t number = 1; number <= STEPS; number++) {
        if (number % 10 == 1) {
            int fd = openat(directory, "value.new", O_RDWR | O_CREAT | O_TRUNC, 0600);
            put(fd, number, 0);
            flush(fd, "renamed data");
            close(fd);
            if (renameat(directory, "value.new", directory, "value") != 0)
                exit(3);
            flush_directory(directory);
            recorded_mark("acknowledged %llu", (unsigned long long)number);
            if (log >= 0)
                close(log);
            snprintf(name, sizeof name, "log.%llu", (unsigned long long)number);
            log = openat(directory, name, O_RDWR | O_CREAT | O_EXCL, 0600);
            if (fallocate(log, 0, 0, 8192) != 0)
                exit(3);
            flush(log, "size");
            flush_directory(directory);
        } else {
            put(log, number, (off_t)(number % 10) * 700);
            flush(log, "data");
            recorded_mark("acknowledged %llu", (unsigned long long)number);
        }
    }
    return 0;
}

static uint64_t get(int fd, off_t at) {
    struct line line;
    return pread(fd, &line, sizeof line, at) == (ssize_t)sizeof line && line.check == ~line.number ? line.number : 0;
}

/* What is there: the highest number. */
static uint64_t recovered(const char *path) {
    int directory = open(path, O_RDONLY | O_DIRECTORY);
    uint64_t best = 0;
    char name[32];

    int fd = openat(directory, "value", O_RDONLY);
    if (fd >= 0) {
        best = get(fd, 0);
        close(fd);
    }
    snprintf(name, sizeof name, "log.%llu", (unsigned long long)best);
    fd = openat(directory, name, O_RDONLY);
    for (uint64_t i = 2; fd >= 0 && i <= 10; i++) {
        uint64_t number = get(fd, (off_t)(i % 10) * 700);
        if (number > best)
            best = number;
    }
    if (fd >= 0)
        close(fd);
    close(directory);
    return best;
}

/* ---- The judgement ------------------------------------------------------------------------------------------------- */

static uint64_t acknowledged_at[STEPS + 1];

static void note(void *context, uint64_t event, const char *text) {
    unsigned long long number;
    (void)context;
    if (sscanf(text, "acknowledged %llu", &number) == 1 && number <= STEPS)
        acknowledged_at[number] = event;
}

static unsigned losses(const char *log, const char *image, uint64_t *random) {
    char why[512];
    unsigned lost = 0;
    struct model *model = model_open(log, why, sizeof why);

    if (model == NULL)
        bail("%s", why);
    memset(acknowledged_at, 0xff, sizeof acknowledged_at);
    model_marks(model, note, NULL);
    uint64_t events = model_events(model);
    for (unsigned i = 1; i <= CUTS; i++) {
        uint64_t cut = i == CUTS ? events : MAX(events * i / CUTS, 1), acknowledged = 0;
        for (unsigned number = 1; number <= STEPS; number++)
            if (acknowledged_at[number] <= cut)
                acknowledged = number;
        mkdir(image, 0700);
        if (model_advance(model, cut) != 0 || model_write(model, test_random(random), false, image) != 0)
            bail("the image at event %llu", (unsigned long long)cut);
        lost += recovered(image) < acknowledged;
        remove_tree(image);
    }
    mkdir(image, 0700);
    if (model_write(model, 0, true, image) != 0)
        bail("the newest image");
    is_int(recovered(image), acknowledged_at[STEPS] <= events ? STEPS : recovered(image),
           "what the program saw last is what it wrote");
    remove_tree(image);
    model_close(model);
    return lost;
}

static unsigned judge(const char *mode, uint64_t kill_at, uint64_t fail_sync, uint64_t *random) {
    char directory[4096], log[4096], image[4096];

    snprintf(directory, sizeof directory, "%s/files", test_directory());
    snprintf(log, sizeof log, "%s/log", test_directory());
    snprintf(image, sizeof image, "%s/image", test_directory());
    mkdir(directory, 0700);
    int status = recorded_run(directory, log, kill_at, fail_sync,
                              (const char *[]){"victim", mode, directory, NULL});
    is_int(kill_at > 0 ? 137 : 0, status, "%s: the program ran", mode);
    unsigned lost = losses(log, image, random);
    diag("%s: %u of %u cuts lost something that was acknowledged", mode, lost, CUTS);
    remove_tree(directory);
    unlink(log);
    return lost;
}

int main(int count, char **arguments) {
    static const char *const faults[] = {"data", "renamed data", "names"};

    if (count == 4 && strcmp(arguments[1], "victim") == 0) {
        fault = arguments[2];
        return victim(arguments[3]);
    }
    plan_lazy();
    uint64_t random = test_seed();
    is_int(0, judge("correct", 0, 0, &random), "a program with every flush in place loses nothing");
    is_int(0, judge("correct", 100, 0, &random), "nor when it was killed before the cut");
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
        ok(judge(faults[i], 0, 0, &random) > 0, "without the flush of %s, some cut shows a loss", faults[i]);
    unsigned lost = 0;
    for (uint64_t flush_number = 5; flush_number < 15; flush_number++)
        lost += judge("retry", 0, flush_number, &random);
    ok(lost > 0, "a failed flush that is tried again until it succeeds is seen as a loss");
    return 0;
}
