/* The notes on how the process that served has died: sentences, the newest twenty of them, and files that are none. */
#include "membership/died.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char store[600], path[PATH_MAX];

struct seen {
    unsigned count;
    char first[DIED_TEXT], last[DIED_TEXT];
};

static void see(void *context, const char *text) {
    struct seen *seen = context;
    if (seen->count++ == 0)
        snprintf(seen->first, sizeof seen->first, "%s", text);
    snprintf(seen->last, sizeof seen->last, "%s", text);
}

static struct seen look(void) {
    struct seen seen = {0};
    is_int(0, died_each(store, see, &seen), "the notes are read");
    return seen;
}

static void put(const void *bytes, size_t length) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
        bail("%s: %s", path, strerror(errno));
    close(fd);
}

static void test_text(void) {
    char text[DIED_TEXT];
    struct died died = {.when = INT64_C(1772366400000000000),
                        .wait_status = W_EXITCODE(0, SIGKILL),
                        .lasted = INT64_C(12345678901),
                        .lsn = 4711,
                        .epoch = EPOCH_MAKE(3, 100)};
    died_text(&died, text);
    is_string("2026-03-01T12:00:00Z killed by signal 9 (KILL) after serving 12.3 s, at LSN 4711 of epoch 3; 0 restarts before",
              text, "killed");
    died.wait_status = W_EXITCODE(0, SIGSEGV) | WCOREFLAG;
    died.never_served = true;
    died.lsn = 0;
    died.restarts = 1;
    died_text(&died, text);
    is_string("2026-03-01T12:00:00Z killed by signal 11 (SEGV), core dumped after starting for 12.3 s; 1 restart before", text,
              "crashed at its start");
    died.wait_status = W_EXITCODE(1, 0);
    died_text(&died, text);
    is_string("2026-03-01T12:00:00Z ended with exit status 1 after starting for 12.3 s; 1 restart before", text, "an error");
    died.overdue = true;
    died.never_served = false;
    died_text(&died, text);
    ok(strstr(text, "stopped answering: its lease had run out") != NULL, "one that stood still");
    died = (struct died){.when = INT64_MAX, .wait_status = W_EXITCODE(0, 64), .lasted = INT64_MAX, .lsn = UINT64_MAX,
                         .epoch = UINT64_MAX, .restarts = UINT32_MAX, .overdue = true};
    died_text(&died, text);
    ok(strlen(text) < DIED_TEXT - 1, "the longest one has room");
}

static void test_notes(void) {
    struct died died = {.when = INT64_C(1772366400000000000), .wait_status = W_EXITCODE(1, 0)};
    is_int(0, look().count, "there is none");
    for (died.lsn = 1; died.lsn <= DIED_NOTES + 5; died.lsn++)
        if (died_add(store, &died) != 0)
            ok(false, "note %u", (unsigned)died.lsn);
    struct seen seen = look();
    is_int(DIED_NOTES, seen.count, "the newest are kept");
    ok(strstr(seen.first, "at LSN 6 of") && strstr(seen.last, "at LSN 25 of"), "in their order");
    char other[700];
    snprintf(other, sizeof other, "%s.died.new", store);
    ok(access(other, F_OK) < 0, "nothing else is left");
}

static void test_damaged(void) {
    struct died died = {.when = INT64_C(1772366400000000000), .wait_status = W_EXITCODE(1, 0), .lsn = 7};
    static char much[1 << 20];

    static const char text[] = "one\ntw\x01o\n\xff\xfe\n\nthree\nno end";
    put(text, sizeof text - 1);
    struct seen seen = look();
    is_int(2, seen.count, "lines that are no text are passed over");
    is_string("three", seen.last, "and so is one without an end");
    memset(much, 'x', sizeof much);
    put(much, sizeof much);
    is_int(0, look().count, "a line that is too long");
    memcpy(much + sizeof much - 6, "\nlast\n", 6);
    put(much, sizeof much);
    is_string("last", look().last, "of a long file its end");
    is_int(0, died_add(store, &died), "a note is added to that");
    seen = look();
    ok(seen.count == 2 && strstr(seen.last, "at LSN 7 of"), "and is the newest");
    unlink(path);
    if (mkdir(path, 0755) < 0)
        bail("mkdir");
    ok(died_each(store, see, &seen) < 0 && died_add(store, &died) < 0, "what is no file is an error");
    rmdir(path);
    if (symlink("/etc/passwd", path) < 0)
        bail("symlink");
    ok(died_each(store, see, &seen) < 0 && died_add(store, &died) < 0, "so is a link");
    unlink(path);
}

int main(void) {
    plan_lazy();
    snprintf(store, sizeof store, "%s/store", test_directory());
    died_path(store, path, sizeof path);
    char with_slash[700], same[PATH_MAX];
    snprintf(with_slash, sizeof with_slash, "%s/", store);
    died_path(with_slash, same, sizeof same);
    is_string(path, same, "the file lies beside the store");
    test_text();
    test_notes();
    test_damaged();
    return 0;
}
