/* The register's file under power cuts. A program makes it and changes it, is killed at a random instant, is started again and
 * goes on, and sometimes a flush fails. Then the power is cut after each event of that, and what an image has must be the
 * newest value that the program was told to be chosen or was shown, or one that it was trying since: never an older one, and
 * never a damaged one.
 *
 * BATON_POWERCUT_ROUNDS=n: so many such histories (default 12). */
#include "membership/register.h"
#include "tests/powercut/model.h"
#include "tests/powercut/run.h"
#include "tests/tap.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define RUNS 3u     /* of the program, one after the other */
#define CHANGES 8u  /* in each */
#define IMAGES 4u   /* of each cut */
#define MARKS 1024u

/* Values of different lengths: a file that was written over, and not cut, would show. */
static struct register_value value_of(uint64_t version) {
    struct register_value value = {.version = version, .epoch = EPOCH_MAKE(version / 3 + 1, 1), .start_lsn = 1000 - version};
    snprintf(value.primary, sizeof value.primary, "node-%" PRIu64, version % 5);
    value.member_count = (unsigned)(version * 3 % (REGISTER_MEMBERS_MAX + 1));
    for (unsigned i = 0; i < value.member_count; i++) {
        memset(value.members[i].node, (int)('a' + i), 1 + version * 11 % 60);
        memset(value.members[i].incarnation, (int)(version + i), 16);
    }
    return value;
}

static void path_in(const char *directory, char path[600]) {
    snprintf(path, 600, "%s/store.register", directory);
}

/* ---- The program, recorded ------------------------------------------------------------------------------------------- */

static void look(struct reg *reg, struct register_value *value) {
    for (unsigned tries = 0; reg->engine->read(reg, value) != 0; tries++)
        if (tries == 10)
            exit(3);
    recorded_mark("told %" PRIu64, value->version);
}

static int program(const char *directory) {
    char path[600], why[512];
    struct register_value value;
    struct reg *reg;
    struct stat status;
    path_in(directory, path);
    if (stat(path, &status) < 0) {
        recorded_mark("tries 1");
        if (register_file_first(path, "a", why, sizeof why) != 0)
            return 0;
        recorded_mark("told 1");
    }
    int rc = register_file_open(path, &reg, why, sizeof why);
    if (rc)
        return rc == -EIO ? 0 : 4; /* of the flush that failed */
    look(reg, &value);
    for (unsigned i = 0; i < CHANGES; i++) {
        struct register_value next = value_of(value.version + 1);
        recorded_mark("tries %" PRIu64, next.version);
        if (reg->engine->change(reg, &value, &next) == 0)
            recorded_mark("told %" PRIu64, next.version);
        look(reg, &value);
    }
    reg->engine->close(reg);
    return 0;
}

/* Images are looked at, not kept: flushing them would take most of the time. */
static bool judging;
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd) {
    return judging ? 0 : __real_fsync(fd);
}

/* ---- The judgement --------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t event, version;
    bool told;
} marks[MARKS];
static unsigned mark_count;

static void note(void *context, uint64_t event, const char *text) {
    uint64_t version;
    (void)context;
    bool told = sscanf(text, "told %" SCNu64, &version) == 1;
    if ((told || sscanf(text, "tries %" SCNu64, &version) == 1) && mark_count < MARKS) {
        marks[mark_count].event = event;
        marks[mark_count].version = version;
        marks[mark_count++].told = told;
    }
}

/* What it may have at that cut. */
static void bounds(uint64_t cut, uint64_t *least, uint64_t *most) {
    *least = *most = 0;
    for (unsigned i = 0; i < mark_count && marks[i].event <= cut; i++) {
        if (marks[i].told)
            *least = MAX(*least, marks[i].version);
        *most = MAX(*most, marks[i].version);
    }
}

static bool is_right(const char *directory, uint64_t least, uint64_t most, char *wrong, size_t room) {
    char path[600];
    struct register_value value, expected;
    struct reg *reg;
    path_in(directory, path);
    int rc = register_file_open(path, &reg, wrong, room);
    if (rc)
        return false;
    rc = reg->engine->read(reg, &value);
    reg->engine->close(reg);
    snprintf(wrong, room, "it has version %" PRIu64 ", of %" PRIu64 " to %" PRIu64 " (read: %d)", value.version, least, most, rc);
    if (rc || value.version < least || value.version > most)
        return false;
    expected = value_of(value.version);
    return value.version < 2 || memcmp(&expected, &value, sizeof value) == 0;
}

/* Counts the images that are wrong. */
static unsigned judge(const char *log, const char *image, uint64_t *random, unsigned *images) {
    char why[512], wrong[800];
    unsigned bad = 0;
    struct model *model = model_open(log, why, sizeof why);
    if (!model)
        bail("%s", why);
    judging = true;
    mark_count = 0;
    model_marks(model, note, NULL);
    for (uint64_t cut = 1; cut <= model_events(model); cut++) {
        uint64_t least, most;
        bounds(cut, &least, &most);
        if (model_advance(model, cut) != 0)
            bail("event %" PRIu64, cut);
        for (unsigned i = 0; i < IMAGES; i++, (*images)++) {
            mkdir(image, 0700);
            if (model_write(model, test_random(random), false, image) != 0)
                bail("the image at event %" PRIu64, cut);
            if (!is_right(image, least, most, wrong, sizeof wrong) && bad++ < 5)
                diag("cut at event %" PRIu64 " of %" PRIu64 ": %s", cut, model_events(model), wrong);
            remove_tree(image);
        }
    }
    model_close(model);
    judging = false;
    return bad;
}

static void one_history(unsigned round, uint64_t *random) {
    char directory[400], log[400], image[400];
    unsigned images = 0;
    int status = 0;
    snprintf(directory, sizeof directory, "%s/files", test_directory());
    snprintf(log, sizeof log, "%s/log", test_directory());
    snprintf(image, sizeof image, "%s/image", test_directory());
    mkdir(directory, 0700);
    for (unsigned i = 0; i < RUNS && (status == 0 || status == 137); i++) {
        uint64_t kill_at = i + 1 < RUNS && round % 4 != 3 ? 1 + test_random(random) % 90 : 0;
        uint64_t fail_sync = round % 2 ? 1 + test_random(random) % 20 : 0;
        status = recorded_run(directory, log, kill_at, fail_sync, (const char *[]){"program", directory, NULL});
    }
    ok(status == 0, "history %u: the program ran (%d)", round, status);
    unsigned bad = judge(log, image, random, &images);
    ok(bad == 0 && images > 0, "history %u: of %u images %u are wrong", round, images, bad);
    remove_tree(directory);
    unlink(log);
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "program") == 0)
        return program(arguments[2]);
    const char *rounds = getenv("BATON_POWERCUT_ROUNDS");
    plan_lazy();
    uint64_t random = test_seed();
    for (unsigned i = 0; i < (rounds ? strtoul(rounds, NULL, 10) : 12); i++)
        one_history(i, &random);
    return 0;
}
