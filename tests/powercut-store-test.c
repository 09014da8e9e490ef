/* The store under power cuts. A random workload runs on a store, recorded; it is killed, started again, killed again
 * before its first checkpoint; now and then a flush fails instead. Then the power is cut at random instants of all
 * that, and from each image the store must open, at an exact prefix: nothing that was called durable is missing, the
 * chain is the one that the workload saw at that LSN, every file is as it was then, and the store can be worked with.
 *
 * BATON_POWERCUTS=n: so many cuts (default 60); BATON_POWERCUT_ROUNDS=n: so many workloads (default 2).
 * BATON_POWERCUT_KEEP=directory: failing images and their logs are kept there. */
#include "fs/check.h"
#include "fs/ops.h"
#include "tests/powercut/model.h"
#include "tests/powercut/run.h"
#include "tests/powercut/world.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define THREADS 3u
#define GENERATIONS 3u /* starts of the store in one round */
#define WORLDS (THREADS * GENERATIONS)
#define VOLUME_TIME 1700000000000000000

static const uint8_t volume_id[STORE_ID_SIZE] = "powercut volume";

/* Small files, so that tails and segments are changed often, and little history, so that blocks are punched. */
static struct store_options options_of(unsigned generation) {
    return (struct store_options){
        .map_size = 1u << 30,
        .segment_blocks = 512,
        .tail_size = 1u << 20,
        .commit_ms = generation == 1 ? 2 : 5,
        .checkpoint_ms = generation == 1 ? 3600000 : 20, /* see the top: before its first checkpoint */
        .history_bytes = 1u << 20,
        .reserve_bytes = 1u << 20,
        .no_history = generation == 2,
    };
}

static struct world *world_of(uint64_t seed, unsigned generation, unsigned thread) {
    char name[32];
    uint64_t state = seed + generation * 1000 + thread;

    snprintf(name, sizeof name, "world %u.%u", generation, thread);
    return world_create(test_random(&state), name);
}

/* ---- The workload, recorded ---------------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    struct store *store;
    uint64_t seed;
    unsigned generation, number, steps;
};

static void *work(void *context) {
    struct worker *worker = context;
    struct world *world = world_of(worker->seed, worker->generation, worker->number);
    uint64_t lsn, last = 0, random = worker->seed ^ worker->number;
    char why[512];

    for (unsigned i = 0; i < worker->steps; i++) {
        if (!world_step(world, worker->store, &lsn, why, sizeof why)) {
            recorded_mark("wrong %s", why);
            fprintf(stderr, "# %s\n", why);
            _exit(4);
        }
        recorded_mark("step %u %" PRIu64, worker->generation * THREADS + worker->number, lsn);
        last = MAX(last, lsn);
        if (test_random(&random) % 8 == 0) {
            if (store_sync(worker->store, last) != 0)
                _exit(5);
            recorded_mark("durable %" PRIu64, last);
        }
    }
    world_free(world);
    return NULL;
}

static void watch_applied(void *context, const struct record *record, struct entry *entry) {
    char chain[2 * CHAIN_SIZE + 1];

    (void)context, (void)entry;
    for (unsigned i = 0; i < CHAIN_SIZE; i++)
        snprintf(chain + 2 * i, 3, "%02x", record->head.chain[i]);
    recorded_mark("chain %" PRIu64 " %s", record->head.lsn, chain);
}

static void watch_durable(void *context, uint64_t lsn) {
    (void)context;
    recorded_mark("durable %" PRIu64, lsn);
}

static int workload(const char *path, uint64_t seed, unsigned generation, unsigned steps) {
    static const struct store_watch watch = {.applied = watch_applied, .durable = watch_durable};
    struct store_options options = options_of(generation);
    struct worker workers[THREADS];
    struct store *store;
    char why[512];

    if (generation == 0 && store_format(path, volume_id, "cut", VOLUME_TIME, &options, why, sizeof why) != 0) {
        fprintf(stderr, "# format: %s\n", why);
        return 3;
    }
    recorded_mark("start %u", generation);
    if (store_open(path, volume_id, &options, &store, why, sizeof why) != 0) {
        fprintf(stderr, "# open: %s\n", why);
        return 3;
    }
    recorded_mark("opened %u", generation);
    store_set_watch(store, &watch);
    int result = store_start_epoch(store, EPOCH_MAKE(generation + 1, 1), "a");
    if (result != 0) {
        fprintf(stderr, "# epoch: %s\n", strerror(-result));
        return 3;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.store = store, .seed = seed, .generation = generation, .number = i, .steps = steps};
        PROMISE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    store_close(store);
    return 0;
}

/* ---- What the log says ---------------------------------------------------------------------------------------------- */

struct steps { /* of one world: the LSN of each */
    uint64_t *lsns;
    unsigned count, room;
};

struct chain_mark {
    bool known;
    uint64_t event;
    char text[2 * CHAIN_SIZE + 1];
};

struct story {
    uint64_t seed;
    struct steps steps[WORLDS];
    struct chain_mark *chains; /* by LSN */
    uint64_t chain_room, last;
    struct {
        uint64_t event, lsn;
    } *durable;
    unsigned durable_count, durable_room;
    uint64_t starts[GENERATIONS], opened[GENERATIONS]; /* events; 0: not begun */
    char wrong[512];
};

static void *grown(void *array, uint64_t room, size_t item) {
    array = realloc(array, room * item);
    PROMISE(array != NULL);
    return array;
}

static void story_chain(struct story *story, uint64_t lsn, uint64_t event, const char *text) {
    if (lsn >= story->chain_room) {
        uint64_t room = 2 * lsn + 1024;
        story->chains = grown(story->chains, room, sizeof *story->chains);
        memset(story->chains + story->chain_room, 0, (room - story->chain_room) * sizeof *story->chains);
        story->chain_room = room;
    }
    story->chains[lsn].known = true;
    story->chains[lsn].event = event;
    snprintf(story->chains[lsn].text, sizeof story->chains[lsn].text, "%.32s", text);
    story->last = MAX(story->last, lsn);
}

static void story_mark(void *context, uint64_t event, const char *text) {
    struct story *story = context;
    uint64_t lsn;
    unsigned number;
    char chain[64];

    if (sscanf(text, "step %u %" SCNu64, &number, &lsn) == 2 && number < WORLDS) {
        struct steps *steps = &story->steps[number];
        if (steps->count == steps->room) {
            steps->room = 2 * steps->room + 64;
            steps->lsns = grown(steps->lsns, steps->room, sizeof *steps->lsns);
        }
        steps->lsns[steps->count++] = lsn;
    } else if (sscanf(text, "chain %" SCNu64 " %63s", &lsn, chain) == 2)
        story_chain(story, lsn, event, chain);
    else if (sscanf(text, "durable %" SCNu64, &lsn) == 1) {
        if (story->durable_count == story->durable_room) {
            story->durable_room = 2 * story->durable_room + 64;
            story->durable = grown(story->durable, story->durable_room, sizeof *story->durable);
        }
        story->durable[story->durable_count].event = event;
        story->durable[story->durable_count++].lsn = lsn;
    } else if (sscanf(text, "start %u", &number) == 1 && number < GENERATIONS)
        story->starts[number] = event;
    else if (sscanf(text, "opened %u", &number) == 1 && number < GENERATIONS)
        story->opened[number] = event;
    else if (strncmp(text, "wrong ", 6) == 0)
        snprintf(story->wrong, sizeof story->wrong, "%s", text);
}

static void story_free(struct story *story) {
    for (unsigned i = 0; i < WORLDS; i++)
        free(story->steps[i].lsns);
    free(story->chains);
    free(story->durable);
    memset(story, 0, sizeof *story);
}

static uint64_t story_durable(const struct story *story, uint64_t event) {
    uint64_t lsn = 0;
    for (unsigned i = 0; i < story->durable_count && story->durable[i].event <= event; i++)
        lsn = MAX(lsn, story->durable[i].lsn);
    return lsn;
}

/* ---- The judgement: runs in a process of its own, because a store may end it ----------------------------------------- */

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...) {
    va_list arguments;
    char text[1024];

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "# %s\n", text);
    _exit(1);
}

static void judge_world(const struct story *story, struct store *store, unsigned number, uint64_t lsn) {
    const struct steps *steps = &story->steps[number];
    struct world *world = world_of(story->seed, number / THREADS, number % THREADS);
    unsigned done = 0;
    char why[512];

    while (done < steps->count && steps->lsns[done] <= lsn) {
        world_step(world, NULL, NULL, NULL, 0);
        done++;
    }
    bool same = world_compare(world, store, why, sizeof why);
    /* The last step before a SIGKILL may be in the store and its mark not in the log; steps without a record (refused
     * ones) may stand between. */
    for (unsigned more = 0; !same && done == steps->count && more < 8; more++) {
        char again[512];
        world_step(world, NULL, NULL, NULL, 0);
        same = world_compare(world, store, again, sizeof again);
    }
    if (!same)
        fail("LSN %" PRIu64 ", %s", lsn, why);
    world_free(world);
}

static void judge_position(const struct story *story, struct store *store, uint64_t cut, uint64_t *lsn) {
    struct position position;
    char chain[2 * CHAIN_SIZE + 1];
    uint64_t durable = story_durable(story, cut);

    store_position(store, &position);
    *lsn = position.lsn;
    if (position.lsn < durable)
        fail("recovered up to LSN %" PRIu64 ", but %" PRIu64 " was called durable", position.lsn, durable);
    if (position.lsn > story->last + 1)
        fail("recovered up to LSN %" PRIu64 ", but only %" PRIu64 " was made", position.lsn, story->last);
    for (unsigned i = 0; i < CHAIN_SIZE; i++)
        snprintf(chain + 2 * i, 3, "%02x", position.chain[i]);
    if (position.lsn > 0 && story->chains[position.lsn].known &&
        strcmp(chain, story->chains[position.lsn].text) != 0)
        fail("the chain at LSN %" PRIu64 " is %s, was %s", position.lsn, chain, story->chains[position.lsn].text);
}

static struct store *judge_open(const char *image) {
    struct store_options options = options_of(0);
    struct store *store;
    char why[512];

    if (store_open(image, volume_id, &options, &store, why, sizeof why) != 0)
        fail("the store does not open: %s", why);
    return store;
}

static int torn; /* findings of judge_check that a cut explains */

static void judge_finding(void *context, const char *sentence) {
    /* A cut may tear the slot that was being written; check cannot tell that from rot and says so. */
    if (strncmp(sentence, "one of the two slots", 20) == 0 && strcmp(context, "after the cut") == 0)
        torn++;
    else
        fprintf(stderr, "# check %s: %s\n", (const char *)context, sentence);
}

static void judge_check(const char *image, const char *when) {
    torn = 0;
    int found = check_store(image, CHECK_DATA, judge_finding, (void *)(uintptr_t)when) - torn;
    if (found != 0)
        fail("check %s: %d", when, found);
}

static void judge_image(const struct story *story, const char *image, uint64_t cut) {
    uint64_t lsn, made = 0;
    struct position position;
    char why[512];

    alarm(120);
    judge_check(image, "after the cut");
    struct store *store = judge_open(image);
    judge_position(story, store, cut, &lsn);
    for (unsigned i = 0; i < WORLDS; i++)
        judge_world(story, store, i, lsn);
    int result = store_start_epoch(store, EPOCH_MAKE(100, 1), "a");
    if (result != 0)
        fail("no new epoch: %s", strerror(-result));
    struct world *world = world_create(cut, "after the cut");
    for (unsigned i = 0; i < 30; i++)
        if (!world_step(world, store, &made, why, sizeof why))
            fail("working on after the cut: %s", why);
    store_close(store);
    store = judge_open(image);
    store_position(store, &position);
    if (position.lsn < made)
        fail("closed at LSN %" PRIu64 ", opened at %" PRIu64, made, position.lsn);
    if (!world_compare(world, store, why, sizeof why))
        fail("closed and opened after the cut: %s", why);
    world_free(world);
    store_close(store);
    judge_check(image, "at the end");
}

static void show(const char *path) {
    FILE *file = fopen(path, "r");
    char line[1024];

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        diag("%s", line);
    }
    if (file != NULL)
        fclose(file);
}

static bool judge(const struct story *story, const char *image, uint64_t cut) {
    char said[4096];
    int status;

    snprintf(said, sizeof said, "%s/said", test_directory());
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(said, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
            _exit(2);
        judge_image(story, image, cut);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        bail("a judge: %s", strerror(errno));
    if (WIFSIGNALED(status))
        diag("the judging process died of signal %d", WTERMSIG(status));
    if (status != 0)
        show(said);
    return status == 0;
}

/* ---- Rounds --------------------------------------------------------------------------------------------------------- */

struct paths {
    char store[4096], log[4096], image[4096];
};

/* The image as it was before the judge opened it, and the log for tests/powercut/materialize. */
static void keep(const struct model *model, const struct paths *paths, uint64_t seed, bool newest, unsigned number) {
    const char *to = getenv("BATON_POWERCUT_KEEP");
    char path[4096];

    if (to == NULL)
        return;
    snprintf(path, sizeof path, "%s/image.%u", to, number);
    if (mkdir(path, 0700) == 0 && model_write(model, seed, newest, path) == 0)
        diag("the image is kept as %s", path);
    snprintf(path, sizeof path, "%s/log.%u", to, number);
    if (link(paths->log, path) == 0)
        diag("the log is kept as %s", path);
}

static bool cut_once(const struct story *story, struct model *model, const struct paths *paths, uint64_t cut,
                     uint64_t seed, bool newest) {
    static unsigned number;

    if (mkdir(paths->image, 0700) != 0 || model_advance(model, cut) != 0 ||
        model_write(model, seed, newest, paths->image) != 0)
        bail("the image at event %" PRIu64, cut);
    bool good = judge(story, paths->image, cut);
    if (!good) {
        diag("that was the image at event %" PRIu64 " of %" PRIu64 " with seed %" PRIu64 "%s", cut,
             model_events(model), seed, newest ? ", newest" : "");
        keep(model, paths, seed, newest, number++);
    }
    remove_tree(paths->image);
    return good;
}

static int rising(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void cuts(struct story *story, const struct paths *paths, unsigned count, uint64_t *random) {
    uint64_t *at = grown(NULL, count, sizeof *at);
    unsigned good = 0;
    char why[512];
    struct model *model = model_open(paths->log, why, sizeof why);

    if (model == NULL)
        bail("%s", why);
    model_marks(model, story_mark, story);
    uint64_t events = model_events(model), first = story->starts[0];
    ok(story->wrong[0] == '\0', "every operation was answered as expected %s", story->wrong);
    for (unsigned i = 0; i < count; i++) {
        /* A third of the cuts while the second start has not made a checkpoint yet, a third while a start after a kill
         * opens the store: it writes then, and the pages of the checkpoint that it came from are still needed. */
        uint64_t from = first, to = events;
        if (i % 3 == 0) {
            from = story->starts[1];
            to = story->starts[2];
        } else if (i % 3 == 1) {
            from = story->starts[1 + i % 2];
            to = story->opened[1 + i % 2];
        }
        at[i] = from >= to ? events : from + test_random(random) % (to - from);
    }
    qsort(at, count, sizeof *at, rising);
    for (unsigned i = 0; i < count; i++)
        good += cut_once(story, model, paths, at[i], test_random(random), false);
    is_int(count, good, "%u cuts at random among %" PRIu64 " events, %" PRIu64 " records: each opens as it should",
           count, events, story->last);
    ok(cut_once(story, model, paths, events, 0, true), "killed, without a power cut: all is there");
    free(at);
    model_close(model);
}

static void round_of_cuts(unsigned count, uint64_t *random) {
    struct paths paths;
    struct story story = {.seed = test_random(random)};
    char seed[32], generation[8], steps[8];

    snprintf(paths.store, sizeof paths.store, "%s/store", test_directory());
    snprintf(paths.log, sizeof paths.log, "%s/log", test_directory());
    snprintf(paths.image, sizeof paths.image, "%s/image", test_directory());
    mkdir(paths.store, 0700);
    snprintf(seed, sizeof seed, "%" PRIu64, story.seed);
    for (unsigned i = 0; i < GENERATIONS; i++) {
        bool last = i + 1 == GENERATIONS, refuse = !last && test_random(random) % 3 == 0;
        uint64_t kill_at = last || refuse ? 0 : 500 + test_random(random) % 4000;
        uint64_t fail_sync = refuse ? 20 + test_random(random) % 60 : 0;
        snprintf(generation, sizeof generation, "%u", i);
        snprintf(steps, sizeof steps, "%u", last ? 400 : 5000);
        int status = recorded_run(paths.store, paths.log, kill_at, fail_sync,
                                  (const char *[]){"workload", paths.store, seed, generation, steps, NULL});
        if (refuse)
            ok(status != 0 && status < 126, "start %u ended itself when flush %" PRIu64 " failed (status %d)", i, fail_sync,
               status);
        else
            is_int(last ? 0 : 137, status, "start %u %s", i, last ? "ended its work" : "was killed at work");
    }
    cuts(&story, &paths, count, random);
    story_free(&story);
    remove_tree(paths.store);
    unlink(paths.log);
}

static unsigned setting(const char *name, unsigned otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : (unsigned)strtoul(text, NULL, 10);
}

int main(int count, char **arguments) {
    if (count == 6 && strcmp(arguments[1], "workload") == 0)
        return workload(arguments[2], strtoull(arguments[3], NULL, 10), (unsigned)strtoul(arguments[4], NULL, 10),
                        (unsigned)strtoul(arguments[5], NULL, 10));
    plan_lazy();
    uint64_t random = test_seed();
    unsigned rounds = MAX(setting("BATON_POWERCUT_ROUNDS", 2), 1), all = setting("BATON_POWERCUTS", 60);
    for (unsigned i = 0; i < rounds; i++)
        round_of_cuts(MAX(all / rounds, 1), &random);
    return 0;
}
