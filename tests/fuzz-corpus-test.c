/* The corpora of tests/fuzz, and some seconds of random changes to them, through each harness: none crashes, hangs or finds
 * what must not be; and inputs that are good are taken, so that a harness that refuses everything shows.
 *
 *   fuzz-corpus-test                 the test; BATON_FUZZ_MS: of random changes, for each harness
 *   fuzz-corpus-test NAME FILE…      one harness over these files
 *   fuzz-corpus-test --random NAME MS         one harness over random changes for that long; BATON_SEED
 *   fuzz-corpus-test --seeds NAME DIRECTORY   writes its good inputs there, for a fuzzer to begin with
 */
#include "tests/fuzz/fuzz.h"
#include "tests/tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const struct fuzz_harness *const harnesses[] = {&fuzz_wire,  &fuzz_record, &fuzz_apply,  &fuzz_config,
                                                       &fuzz_files, &fuzz_store,  &fuzz_import, &fuzz_compare,
                                                       &fuzz_control, &fuzz_peer,   &fuzz_ask};
#define HARNESSES (sizeof harnesses / sizeof *harnesses)
#define INPUT_MAX (256u << 10)
#define INPUTS_MAX 2000u
#define TRIES 3u /* of a good input: an answer over a socket may be late */
#define ONE_SECONDS 300u /* an input that takes longer hangs: more than a child may (FUZZ_SECONDS_MAX) */

struct input {
    char name[300];
    uint8_t *bytes;
    size_t length;
};

static struct input inputs[INPUTS_MAX];
static unsigned input_count;
static struct progress { /* of the child, for its parent */
    unsigned refused, replayed, changed;
    char at[300]; /* the input that is being run */
    uint8_t bytes[INPUT_MAX];
    size_t length;
} *progress;

static void take(const char *name, const void *bytes, size_t length) {
    struct input *input = &inputs[input_count++];
    PROMISE(input_count <= INPUTS_MAX && length <= INPUT_MAX);
    snprintf(input->name, sizeof input->name, "%s", name);
    input->bytes = fuzz_copy(bytes, length);
    input->length = length;
}

static void load(const char *path, const char *name) {
    static uint8_t bytes[INPUT_MAX];
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (length < 0)
        bail("%s cannot be read", path);
    take(name, bytes, (size_t)length);
}

static void load_corpus(const char *name) {
    char folder[1024], path[1400];
    struct dirent **names;
    const char *source = getenv("BATON_SRC");
    snprintf(folder, sizeof folder, "%s/tests/fuzz/corpus/%s", source ? source : ".", name);
    int count = scandir(folder, &names, NULL, alphasort);
    if (count < 0)
        bail("no corpus %s", folder);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            load(path, names[i]->d_name);
        free(names[i]);
    }
    free(names);
}

static bool run(const struct fuzz_harness *harness, const char *name, const uint8_t *bytes, size_t length) {
    snprintf(progress->at, sizeof progress->at, "%s", name);
    memcpy(progress->bytes, bytes, length);
    progress->length = length;
    alarm(ONE_SECONDS);
    bool good = harness->one(bytes, length);
    alarm(0);
    return good;
}

/* ---- Random changes ---- */

static size_t change_once(uint8_t *bytes, size_t length, uint64_t *seed) {
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0xfe, '\n', '0'};
    size_t at = length ? test_random(seed) % length : 0, count = 1 + test_random(seed) % 16;
    count = MIN(count, length - at);
    switch (test_random(seed) % 6) {
    case 0: /* bits */
        if (length)
            bytes[at] ^= (uint8_t)(1u << test_random(seed) % 8);
        return length;
    case 1: /* edges of numbers */
        memset(bytes + at, edges[test_random(seed) % sizeof edges], count);
        return length;
    case 2: /* gone */
        memmove(bytes + at, bytes + at + count, length - at - count);
        return length - count;
    case 3: /* more */
        count = 1 + test_random(seed) % 8;
        if (length + count > INPUT_MAX)
            return length;
        memmove(bytes + at + count, bytes + at, length - at);
        for (size_t i = 0; i < count; i++)
            bytes[at + i] = (uint8_t)test_random(seed);
        return length + count;
    case 4: /* moved */
        if (length)
            memmove(bytes + test_random(seed) % (length - count + 1), bytes + at, count);
        return length;
    default:
        if (length)
            bytes[at] = (uint8_t)test_random(seed);
        return length;
    }
}

static void change(const struct fuzz_harness *harness, uint64_t seed, int64_t ms) {
    static uint8_t bytes[INPUT_MAX];
    for (int64_t end = clock_boot() + ms * 1000000; clock_boot() < end; progress->changed++) {
        const struct input *input = &inputs[test_random(&seed) % input_count];
        size_t length = input->length;
        memcpy(bytes, input->bytes, length);
        for (uint64_t i = 1 + test_random(&seed) % 6; i > 0; i--)
            length = change_once(bytes, length, &seed);
        run(harness, "a random change", bytes, length);
    }
}

/* ---- The test ---- */

static void child(const struct fuzz_harness *harness, uint64_t seed, int64_t ms) {
    if (harness->start)
        harness->start();
    harness->seeds();
    for (unsigned i = 0; i < input_count; i++) {
        bool good = false;
        for (unsigned tries = 0; !good && tries < TRIES; tries++)
            good = run(harness, inputs[i].name, inputs[i].bytes, inputs[i].length);
        if (!good)
            diag("%s: %s is refused", harness->name, inputs[i].name);
        progress->refused += !good;
    }
    unsigned good = input_count;
    load_corpus(harness->name);
    for (unsigned i = good; i < input_count; i++, progress->replayed++)
        run(harness, inputs[i].name, inputs[i].bytes, inputs[i].length);
    change(harness, seed, ms);
    fflush(NULL);
    _exit(progress->refused ? 1 : 0);
}

static void keep_input(const struct fuzz_harness *harness) {
    char path[1024];
    const char *build = getenv("BATON_BUILD");
    snprintf(path, sizeof path, "%s/tests/fuzz-%s.failed", build ? build : ".", harness->name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && pwrite_all(fd, progress->bytes, progress->length, 0) == 0)
        diag("it is in %s; tests/fuzz-corpus-test %s %s runs it again", path, harness->name, path);
}

static void test(const struct fuzz_harness *harness, uint64_t seed, int64_t ms) {
    int status;
    memset(progress, 0, sizeof *progress);
    fflush(NULL);
    pid_t pid = fork();
    PROMISE(pid >= 0);
    if (pid == 0)
        child(harness, seed, ms);
    PROMISE(waitpid(pid, &status, 0) == pid);
    bool ended = WIFEXITED(status) && WEXITSTATUS(status) <= 1;
    if (!ok(ended, "%s: %u inputs of its corpus and %u random ones do no harm", harness->name, progress->replayed,
            progress->changed)) {
        diag("it died (status 0x%x) of: %s", status, progress->at);
        keep_input(harness);
    }
    ok(ended && progress->refused == 0, "%s: what is good is taken", harness->name);
}

static void write_seed(const char *name, const void *bytes, size_t length) {
    static unsigned number;
    char path[300];
    snprintf(path, sizeof path, "seed-%02u-%s", number++, name);
    for (char *at = path; (at = strchr(at, ' ')) != NULL;)
        *at = '-';
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    PROMISE(fd >= 0 && pwrite_all(fd, bytes, length, 0) == 0);
}

static const struct fuzz_harness *named(const char *name) {
    for (unsigned i = 0; i < HARNESSES; i++)
        if (strcmp(harnesses[i]->name, name) == 0)
            return harnesses[i];
    fprintf(stderr, "there is no harness \"%s\"\n", name);
    exit(2);
}

static int by_hand(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--seeds") == 0) {
        const struct fuzz_harness *harness = named(argv[2]);
        PROMISE(chdir(argv[3]) == 0);
        fuzz_taker = write_seed;
        harness->seeds();
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "--random") == 0) {
        fuzz_directory();
        test(named(argv[2]), test_seed(), atoll(argv[3]));
        return 0;
    }
    const struct fuzz_harness *harness = named(argv[1]);
    fuzz_directory();
    if (harness->start)
        harness->start();
    for (int i = 2; i < argc; i++)
        load(argv[i], argv[i]);
    for (unsigned i = 0; i < input_count; i++)
        diag("%s: %s", inputs[i].name, run(harness, inputs[i].name, inputs[i].bytes, inputs[i].length) ? "taken" : "refused");
    return 0;
}

int main(int argc, char **argv) {
    const char *given = getenv("BATON_FUZZ_MS");
    progress = mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PROMISE(progress != MAP_FAILED);
    fuzz_taker = take;
    if (argc > 1)
        return by_hand(argc, argv);
    plan_lazy();
    uint64_t seed = test_seed();
    fuzz_directory(); /* this process's, which removes it */
    for (unsigned i = 0; i < HARNESSES; i++)
        test(harnesses[i], seed + i, given ? atoll(given) : 1300);
    return 0;
}
