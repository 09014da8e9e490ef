/* Random schedules of load, cuts, crashes, power cuts, full disks and changes of role over the real code of replication/,
 * on virtual time (simulator/sim.h); in those with odd numbers voters keep the register (simulator/voting.h). A schedule is a
 * number: BATON_SEED=n runs one, with -v telling all that happens; BATON_SCHEDULES=n runs so many (BATON_VOTERS=1: of those
 * with voters alone), else as many as fit into 20 seconds, and each mistake of simulator/mistakes.h is planted and has to be
 * found; BATON_MISTAKE=n plants one of them.
 */
#include "tests/simulator/sim.h"
#include "tests/tap.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#define SECONDS 20
#define LINES 120u
#define LINE 400u
#define FAILURES_SHOWN 5u

struct world *world;
static struct { /* lives longer than a schedule */
    char lines[LINES][LINE];
    unsigned count;
} *trace;

/* ---- Trace ----------------------------------------------------------------------------------------------------------- */

bool sim_tells(void) {
    return world->tracing != SIM_SILENT;
}

void sim_trace_list(const char *format, va_list arguments) {
    world->digest = (world->digest ^ world->random ^ (uint64_t)world->now) * 0x9e3779b97f4a7c15u;
    world->digest ^= world->digest >> 29;
    if (!sim_tells())
        return;
    char text[LINE], node = sim_node_here() < SIM_PLACES ? "abc-w"[sim_node_here()] : '-';
    int length = snprintf(text, sizeof text, "%10.6f %c %-12s ", (double)world->now / 1e9, node, sim_fiber_name());
    vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
    if (world->tracing == SIM_ALOUD)
        printf("# %s\n", text);
    else
        memcpy(trace->lines[trace->count++ % LINES], text, LINE);
}

void sim_trace(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    sim_trace_list(format, arguments);
    va_end(arguments);
}

/* ---- One schedule ---------------------------------------------------------------------------------------------------- */

static uint64_t running;

static void run(uint64_t seed, enum sim_tracing tracing) {
    memset(world, 0, sizeof *world);
    world->random = running = seed;
    world->voting = seed % 2 == 1;
    world->tracing = tracing;
    trace->count = 0;
    sim_memory_begin();
    sim_run();
    sim_memory_end();
}

static void died(int number) {
    char text[160];
    int length = snprintf(text, sizeof text, "\nBail out! signal %d in the schedule of BATON_SEED=%" PRIu64 " at %" PRId64
                          " ns\n", number, running, world->now);
    ssize_t done = write(STDOUT_FILENO, text, (size_t)length);
    (void)done;
    _exit(1);
}

static void catch_signals(void) {
    static uint8_t stack[65536];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = died, .sa_flags = SA_ONSTACK};
    sigaltstack(&other, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
}

static void show_failure(uint64_t seed) {
    run(seed, SIM_LAST_LINES);
    for (unsigned i = trace->count > LINES ? trace->count - LINES : 0; i < trace->count; i++)
        diag("%s", trace->lines[i % LINES]);
    diag("BATON_SEED=%" PRIu64 ": %s", seed, world->why);
}

/* ---- Many ------------------------------------------------------------------------------------------------------------ */

static struct sim_counts total;

static void add_counts(void) {
    uint64_t *sum = (uint64_t *)&total;
    const uint64_t *one = (const uint64_t *)&world->counts;
    for (unsigned i = 0; i < sizeof total / sizeof *sum; i++)
        sum[i] += one[i];
    total.schedules++;
}

static void show_counts(void) {
    const struct sim_counts *t = &total;
#define SHOW(what) (unsigned long long)t->what
    diag("%llu schedules, %llu s of virtual time, %llu switches of threads, %llu frames", SHOW(schedules),
         SHOW(virtual_ns) / 1000000000, SHOW(switches), SHOW(frames));
    diag("%llu records, %llu acknowledgements, %llu of them durable, %llu lost where that was allowed", SHOW(records),
         SHOW(acknowledged), SHOW(durable), SHOW(excused));
    diag("%llu starts (%llu refused), %llu kills, %llu power cuts, %llu stops", SHOW(restarts), SHOW(refused), SHOW(kills),
         SHOW(power_cuts), SHOW(stops));
    diag("%llu promotions, %llu by force, %llu switchovers, %llu records undone, set grown %llu and shrunk %llu times; "
         "new work slowed in %llu schedules, and in %llu for a copy",
         SHOW(promoted), SHOW(forced), SHOW(switched), SHOW(undone), SHOW(grown), SHOW(shrunk), SHOW(slowed),
         SHOW(reached));
    diag("%llu answers of the register stayed away, journals trimmed %llu times; %llu schedules needed force at the end",
         SHOW(unknown), SHOW(trimmed), SHOW(last_resort));
    diag("%llu stores begun anew, %llu times gone on with, %llu in an old one's place: %llu rows and %llu blocks fetched, %llu "
         "segments taken over; %llu old ones kept", SHOW(begun), SHOW(resumed), SHOW(rebuilt), SHOW(rows), SHOW(fetched),
         SHOW(adopted), SHOW(aside));
    diag("%llu pieces of one state kept for the next, %llu commits refused; %llu other stores put in, %llu of them by a person's decision; %llu blocks mended",
         SHOW(kept_blocks), SHOW(taken_back), SHOW(replaced), SHOW(decided), SHOW(mended));
    diag("voters in %llu of them: %llu messages, %llu values chosen, %llu epochs begun, %llu reads, %llu answers too late for the lease, %llu voters "
         "lost their disks, %llu let in, lists changed %llu times; machines slept %llu times; %llu leases of dead processes given back", SHOW(voting), SHOW(ballots),
         SHOW(chosen), SHOW(elected), SHOW(reads), SHOW(late_answers), SHOW(lost_voters), SHOW(let_in), SHOW(edited), SHOW(slept),
         SHOW(released));
#undef SHOW
}

static void show_progress(uint64_t done, uint64_t all, unsigned failures) {
    if (done % 4096 == 0 && done && all < UINT64_MAX) /* what ends early has said how far it was */
        diag("%" PRIu64 " of %" PRIu64 " schedules, %u failed", done, all, failures);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " schedules, %u failed ", done, all, failures);
}

static void run_many(uint64_t seed, uint64_t most, int64_t deadline) {
    unsigned failures = 0, step = getenv("BATON_VOTERS") ? 2 : 1;
    uint64_t done = 0;
    seed |= step - 1;
    for (; done < most && clock_boot() < deadline && failures < FAILURES_SHOWN; done++) {
        run(seed + step * done, SIM_SILENT);
        add_counts();
        if (world->failed) {
            failures++;
            show_failure(seed + step * done);
        }
        if (done % 256 == 0)
            show_progress(done, most, failures);
    }
    if (isatty(STDERR_FILENO))
        fputc('\n', stderr);
    show_counts();
    is_int(0, failures, "random schedules");
    ok(total.acknowledged > 0 && total.undone > 0 && total.grown > 0 && total.shrunk > 0 && total.promoted > 0 &&
           total.switched > 0 && total.slowed > 0,
       "they had acknowledgements, changes of the set and of roles, undone records, and slowed work");
    ok(total.rebuilt > 0 && total.resumed > 0 && total.fetched > 0 && total.adopted > 0,
       "stores were built anew, in several attempts, with blocks of the old one and of others");
    ok(total.elected > 0 && total.reads > 0 && total.late_answers > 0 && total.let_in > 0 && total.slept > 0,
       "nodes were elected, leases ran out before an answer, voters that had lost their disks were let in, machines slept");
}

static void run_twice(uint64_t seed) {
    for (unsigned i = 0; i < 20; i++) {
        run(seed + i, SIM_SILENT);
        uint64_t digest = world->digest;
        int64_t now = world->now;
        run(seed + i, SIM_LAST_LINES);
        if (digest != world->digest || now != world->now) {
            ok(false, "the same seed gives the same schedule: %" PRIu64, seed + i);
            return;
        }
    }
    ok(true, "the same seed gives the same schedule");
}

/* Each mistake is found, in schedules with voters from a number of its own on. */
#define MISTAKE_WITHIN 1000u

static void find_mistake(enum mistake which) {
    unsigned tried = 0;
    bool found = false;
    mistake = which;
    for (; tried < MISTAKE_WITHIN && !found; tried++) {
        run(2 * tried + 1, SIM_SILENT);
        found = world->failed && mistake_explains(which, world->why);
    }
    mistake = MISTAKE_NONE;
    ok(found, "%s: found", mistake_name(which));
    diag("in schedule %u: %s", tried, world->why);
}

static void *map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bail("no memory");
    return memory;
}

int main(int argc, char **argv) {
    const char *given = getenv("BATON_SEED"), *schedules = getenv("BATON_SCHEDULES");
    bool aloud = argc > 1 && strcmp(argv[1], "-v") == 0;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip_all("sanitizers do not follow fibers");
#endif
    plan_lazy();
    world = map(sizeof *world);
    trace = map(sizeof *trace);
    catch_signals();
    sim_prepare();
    uint64_t seed = test_seed();
    if (getenv("BATON_MISTAKE"))
        mistake = (enum mistake)strtoul(getenv("BATON_MISTAKE"), NULL, 0);
    if (given && !schedules) {
        run(seed, aloud ? SIM_ALOUD : SIM_SILENT);
        if (world->failed && !aloud)
            show_failure(seed);
        ok(!world->failed, "the schedule %" PRIu64 "%s%s", seed, world->failed ? ": " : "", world->why);
        return 0;
    }
    run_twice(seed);
    for (enum mistake each = MISTAKE_NONE + 1; !schedules && each < MISTAKES; each++)
        find_mistake(each);
    if (schedules)
        run_many(seed, strtoull(schedules, NULL, 0), INT64_MAX);
    else
        run_many(seed, UINT64_MAX, clock_boot() + SECONDS * 1000000000ll);
    return 0;
}
