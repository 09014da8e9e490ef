/* A full synchronization under power cuts: a store is built anew beside the old one and takes its place, recorded; then the
 * power is cut at random instants of that. From each image there is a store: the old one, whole, as it was, from which the
 * building goes on and comes to its end; or the new one, whole, as the provider was. Never anything between.
 *
 * BATON_POWERCUTS=n: so many cuts (default 40). */
#include "fs/check.h"
#include "fs/generation.h"
#include "fs/import.h"
#include "tests/churn.h"
#include "tests/importing.h"
#include "tests/powercut/model.h"
#include "tests/powercut/run.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char why[600];

static void options(void) {
    fixture_options.map_size = 1u << 30;
    fixture_options.segment_blocks = 1024;
    fixture_options.tail_size = 1u << 20;
    fixture_options.commit_ms = 5;
    fixture_options.checkpoint_ms = 20;
    fixture_options.reserve_bytes = 1u << 20;
}

static struct store *open_at(const char *path) {
    struct store *store;
    int rc = store_open(path, fixture_volume, &fixture_options, &store, why, sizeof why);
    if (rc) {
        fprintf(stderr, "%s does not open: %s\n", path, why);
        _exit(10);
    }
    return store;
}

/* ---- What is recorded ---- */

static int workload(const char *path, const char *provider, uint64_t common) {
    struct import *import;
    options();
    struct store *from = open_at(provider);
    if (store_format(path, fixture_volume, "test", 1700000000123456789, &fixture_options, why, sizeof why) != 0)
        return 3;
    struct store *old = open_at(path);
    if (!fixture_feed_until(from, old, common))
        return 4;
    store_checkpoint(old);
    recorded_mark("fed");
    struct source source = source_at_end(from);
    if (import_open(old, &import, why, sizeof why) != 0 || import_begin(import, &source.state) != 0)
        return 5;
    pace = 3000; /* so that there are checkpoints on the way */
    if (import_all(import, &source) != 0)
        return 6;
    import_close(import);
    store_close(old);
    recorded_mark("complete");
    if (import_switch(path, NULL) != 0)
        return 7;
    if (generation_sweep(path, true) != 0)
        return 8;
    recorded_mark("switched");
    struct store *new = open_at(path);
    for (int i = 0; i < 4; i++) { /* what was taken over and is not used is punched */
        usleep(30000);
        store_checkpoint(new);
    }
    store_close(new);
    source_done(&source);
    store_close(from);
    return 0;
}

/* ---- What is there after a cut ---- */

static void fail(const char *what) {
    fprintf(stderr, "%s (%s)\n", what, why);
    _exit(11);
}

struct expected {
    struct tables *old, *new;
    uint64_t old_lsn, new_lsn;
    uint64_t fed, complete, switched; /* events */
    const char *provider;
};

static bool is_state(struct store *store, const struct tables *tables) {
    struct tables *now = tables_take(store, TABLES_LOGICAL);
    bool equal = tables_equal(tables, now, why, sizeof why);
    tables_free(now);
    return equal;
}

static void judge_new(const struct expected *expected, const char *image) {
    struct store *store = open_at(image);
    struct position position;
    store_position(store, &position);
    if (position.lsn != expected->new_lsn || !is_state(store, expected->new))
        fail("the new store is not what the provider was");
    store_close(store);
    if (check_store(image, CHECK_DATA, tell, NULL) != 0)
        fail("the new store is not in order");
}

static void judge_image(const struct expected *expected, const char *image, uint64_t cut) {
    char base[PATH_MAX];
    unsigned generation;
    alarm(120);
    if (generation_current(image, base, &generation) != 0)
        fail("no generation");
    struct store *store = open_at(image);
    struct position position;
    store_position(store, &position);
    if (generation_sweep(image, true) != 0)
        fail("sweeping");
    if (generation > 0) {
        if (cut < expected->complete)
            fail("the new store is there too early");
        store_close(store);
        judge_new(expected, image);
        return;
    }
    if (cut >= expected->switched)
        fail("the new store has been forgotten");
    if (position.lsn != expected->old_lsn || !is_state(store, expected->old))
        fail("the old store is not what it was");
    store_close(store);
    if (check_store(image, CHECK_DATA, tell, NULL) != 0)
        fail("the old store is not in order");
    /* It goes on. */
    struct import *import;
    struct import_state state;
    store = open_at(image);
    struct store *from = open_at(expected->provider);
    struct source source = source_at_end(from);
    if (import_open(store, &import, why, sizeof why) != 0)
        fail("import_open");
    if (import_phase(import) != IMPORT_COMPLETE && !import_state(import, &state) && import_begin(import, &source.state) != 0)
        fail("import_begin");
    if (import_all(import, &source) != 0)
        fail("it does not come to its end");
    import_close(import);
    store_close(store);
    if (import_switch(image, NULL) != 0 || generation_sweep(image, true) != 0)
        fail("import_switch");
    source_done(&source);
    store_close(from);
    judge_new(expected, image);
}

static bool judge(const struct expected *expected, const char *image, uint64_t cut) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        judge_image(expected, image, cut);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        bail("a judge");
    if (status)
        diag("the judge ended with %d", status);
    return status == 0;
}

/* ---- Rounds ---- */

static void mark(void *context, uint64_t event, const char *text) {
    struct expected *expected = context;
    uint64_t *at = strcmp(text, "fed") == 0        ? &expected->fed
                   : strcmp(text, "complete") == 0 ? &expected->complete
                   : strcmp(text, "switched") == 0 ? &expected->switched
                                                   : NULL;
    if (at)
        *at = event;
}

static int rising(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void cuts(struct expected *expected, const char *log, unsigned count, uint64_t *random) {
    struct model *model = model_open(log, why, sizeof why);
    char image[512];
    unsigned good = 0;
    if (!model)
        bail("%s", why);
    model_marks(model, mark, expected);
    uint64_t events = model_events(model), *at = calloc(count, sizeof *at);
    snprintf(image, sizeof image, "%s/image", test_directory());
    ok(expected->fed && expected->complete > expected->fed && expected->switched > expected->complete,
       "%" PRIu64 " events: fed at %" PRIu64 ", complete at %" PRIu64 ", switched at %" PRIu64, events, expected->fed,
       expected->complete, expected->switched);
    for (unsigned i = 0; i < count; i++) { /* every third one about the change, or behind it */
        uint64_t from = i % 3 == 0 ? expected->complete - 20 : expected->fed;
        uint64_t to = i % 3 == 0 ? MIN(expected->switched + 40, events) : i % 3 == 1 ? expected->complete : events;
        at[i] = from + test_random(random) % (to - from);
    }
    qsort(at, count, sizeof *at, rising);
    for (unsigned i = 0; i < count; i++) {
        uint64_t seed = test_random(random);
        if (mkdir(image, 0700) != 0 || model_advance(model, at[i]) != 0 || model_write(model, seed, false, image) != 0)
            bail("the image at event %" PRIu64, at[i]);
        bool one = judge(expected, image, at[i]);
        if (!one)
            diag("that was the image at event %" PRIu64 " with seed %" PRIu64, at[i], seed);
        good += one;
        remove_tree(image);
    }
    is_int(count, good, "%u cuts: each time the old store or the new one, whole", count);
    free(at);
    model_close(model);
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "workload") == 0)
        return workload(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    uint64_t random = test_seed();
    const char *setting = getenv("BATON_POWERCUTS");
    unsigned count = setting ? (unsigned)strtoul(setting, NULL, 10) : 40;
    struct expected expected = {0};
    char path[512], log[512], provider[512], number[32];
    struct position position;
    options();
    churn_prepare(&random);
    struct store *from = busy_store("provider");
    work(from, 900);
    store_position(from, &position);
    expected.old_lsn = position.lsn;
    expected.old = tables_take(from, TABLES_LOGICAL);
    work(from, 500);
    store_position(from, &position);
    expected.new_lsn = position.lsn;
    expected.new = tables_take(from, TABLES_LOGICAL);
    snprintf(provider, sizeof provider, "%s", store_path(from));
    expected.provider = provider;
    store_close(from);
    snprintf(path, sizeof path, "%s/store", test_directory());
    snprintf(log, sizeof log, "%s/log", test_directory());
    snprintf(number, sizeof number, "%" PRIu64, expected.old_lsn);
    PROMISE(mkdir(path, 0700) == 0);
    is_int(0, recorded_run(path, log, 0, 0, (const char *[]){"workload", path, provider, number, NULL}),
           "a store is built anew and takes its place");
    cuts(&expected, log, count, &random);
    tables_free(expected.old);
    tables_free(expected.new);
    return 0;
}
