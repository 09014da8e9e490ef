#include "tests/tap.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define DESCRIPTION_ROOM 512

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned tests, failures;
static pid_t owner;
static bool planned, ended;
static char directory[PATH_MAX];
static void (*end_others)(void);

/* Runs in signal handlers too, so: no stdio, no malloc, and _Fork(), which runs no handlers of others. */
static void remove_directory(void) {
    if (directory[0] == '\0' || getpid() != owner || getenv("BATON_TEST_KEEP") != NULL)
        return;
    pid_t child = _Fork();
    if (child == 0) {
        execl("/bin/rm", "rm", "-rf", "--one-file-system", directory, (char *)NULL);
        _exit(127);
    }
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    directory[0] = '\0';
}

static void at_exit(void) {
    if (getpid() != owner)
        return;
    if (!ended)
        printf("1..%u\n", tests);
    if (failures > 0)
        printf("# %u of %u tests failed\n", failures, tests);
    fflush(stdout);
    remove_directory();
}

static void say(const char *text) {
    ssize_t done = write(STDOUT_FILENO, text, strlen(text));
    (void)done;
}

static void at_signal(int number) {
    if (getpid() == owner) {
        if (number == SIGALRM)
            say("\nBail out! the test took longer than its time (BATON_TEST_TIMEOUT)\n");
        if (end_others)
            end_others();
        remove_directory();
    }
    signal(number == SIGALRM ? SIGTERM : number, SIG_DFL);
    raise(number == SIGALRM ? SIGTERM : number);
}

void test_at_signal(void (*end)(void)) {
    end_others = end;
}

void plan_lazy(void) {
    static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGABRT, SIGALRM};
    struct sigaction action = {.sa_handler = at_signal, .sa_flags = SA_NODEFER};
    const char *timeout = getenv("BATON_TEST_TIMEOUT");

    if (planned) /* by what needed it before, or by the process that this one was forked from */
        return;
    owner = getpid();
    planned = true;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        sigaction(deadly[i], &action, NULL);
    alarm(timeout != NULL ? (unsigned)strtoul(timeout, NULL, 10) : 600);
    atexit(at_exit);
}

void skip_all(const char *format, ...) {
    char text[DESCRIPTION_ROOM];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("1..0 # SKIP %s\n", text);
    ended = true;
    exit(0);
}

static bool report(bool success, const char *file, int line, const char *format, va_list arguments) {
    char text[DESCRIPTION_ROOM] = "";

    if (!planned)
        plan_lazy();
    if (format != NULL)
        vsnprintf(text, sizeof text, format, arguments);
    /* '#' would begin a directive, a newline another line of the protocol. */
    for (char *at = text; *at != '\0'; at++) {
        if (*at == '#' || *at == '\n')
            *at = ' ';
    }
    tests++;
    printf("%sok %u%s%s\n", success ? "" : "not ", tests, text[0] != '\0' ? " - " : "", text);
    if (!success) {
        failures++;
        printf("#   failed at %s:%d\n", file, line);
    }
    return success;
}

bool tap_ok(bool success, const char *file, int line, const char *format, ...) {
    va_list arguments;

    pthread_mutex_lock(&mutex);
    va_start(arguments, format);
    report(success, file, line, format, arguments);
    va_end(arguments);
    pthread_mutex_unlock(&mutex);
    return success;
}

bool tap_is_int(int64_t expected, int64_t seen, const char *file, int line, const char *format, ...) {
    va_list arguments;

    pthread_mutex_lock(&mutex);
    va_start(arguments, format);
    if (!report(expected == seen, file, line, format, arguments))
        printf("#   expected: %" PRId64 "\n#       seen: %" PRId64 "\n", expected, seen);
    va_end(arguments);
    pthread_mutex_unlock(&mutex);
    return expected == seen;
}

static void print_string(const char *label, const char *text) {
    printf("#   %s: ", label);
    if (text == NULL)
        printf("(null)");
    for (; text != NULL && *text != '\0'; text++) {
        putchar(*text);
        if (*text == '\n')
            printf("#             ");
    }
    putchar('\n');
}

bool tap_is_string(const char *expected, const char *seen, const char *file, int line, const char *format, ...) {
    bool same = expected == NULL || seen == NULL ? expected == seen : strcmp(expected, seen) == 0;
    va_list arguments;

    pthread_mutex_lock(&mutex);
    va_start(arguments, format);
    if (!report(same, file, line, format, arguments)) {
        print_string("expected", expected);
        print_string("    seen", seen);
    }
    va_end(arguments);
    pthread_mutex_unlock(&mutex);
    return same;
}

static void print_bytes(const char *label, const uint8_t *bytes, size_t from, size_t length) {
    printf("#   %s:", label);
    for (size_t i = from; i < length && i < from + 16; i++)
        printf(" %02x", bytes[i]);
    putchar('\n');
}

bool tap_is_blob(const void *expected, const void *seen, size_t length, const char *file, int line,
                 const char *format, ...) {
    const uint8_t *a = expected, *b = seen;
    size_t at = 0;
    va_list arguments;

    while (at < length && a[at] == b[at])
        at++;
    pthread_mutex_lock(&mutex);
    va_start(arguments, format);
    if (!report(at == length, file, line, format, arguments)) {
        printf("#   the first of %zu bytes that differs is number %zu\n", length, at);
        print_bytes("expected", a, at, length);
        print_bytes("    seen", b, at, length);
    }
    va_end(arguments);
    pthread_mutex_unlock(&mutex);
    return at == length;
}

void skip(unsigned count, const char *format, ...) {
    char text[DESCRIPTION_ROOM];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&mutex);
    while (count-- > 0)
        printf("ok %u # SKIP %s\n", ++tests, text);
    pthread_mutex_unlock(&mutex);
}

void bail(const char *format, ...) {
    char text[DESCRIPTION_ROOM];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("Bail out! %s\n", text);
    ended = true;
    exit(255);
}

void diag(const char *format, ...) {
    char text[4096];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&mutex);
    for (char *line = text, *end; line != NULL; line = end) {
        end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        printf("# %s\n", line);
    }
    pthread_mutex_unlock(&mutex);
}

const char *test_directory(void) {
    const char *base = getenv("TMPDIR");

    if (!planned)
        plan_lazy();
    if (directory[0] != '\0')
        return directory;
    char path[sizeof directory];
    int length = snprintf(path, sizeof path - 8, "%s/baton-test.XXXXXX", base != NULL ? base : "/tmp");
    if (length < 0 || (size_t)length >= sizeof path - 8 || mkdtemp(path) == NULL)
        bail("no temporary directory %s: %s", path, strerror(errno));
    memcpy(directory, path, sizeof directory);
    strcat(path, "/.run"); /* the marks of the stores in it (fs/mark.h) */
    setenv("BATON_RUN", path, 1);
    return directory;
}

uint64_t test_seed(void) {
    const char *given = getenv("BATON_SEED");
    uint64_t seed;

    if (given != NULL)
        seed = strtoull(given, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        bail("no random numbers: %s", strerror(errno));
    diag("BATON_SEED=%" PRIu64 " runs this again", seed);
    return seed;
}

uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
