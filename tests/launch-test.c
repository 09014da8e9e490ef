/* batond's parent at work, with a child of the test's own: what it does after a death and in which order, whom it kills, and
 * what becomes of both when either is told to stop. */
#include "fs/launch.h"
#include "tests/tap.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define MS INT64_C(1000000)
#define PATIENCE (200 * MS)
#define SECONDS 60

enum mode { MODE_END, MODE_FAIL, MODE_CRASH, MODE_STANDS_STILL, MODE_SERVE, MODE_CRASH_FIRST };
struct seen { /* by all processes */
    _Atomic int mode;
    _Atomic int starts, readies, given_up, afters, terms;
    _Atomic int order; /* a count of what happened */
    _Atomic int ended_at, given_up_at, started_again_at;
    _Atomic int child, after_overdue, after_status;
    _Atomic uint64_t after_lsn, after_epoch, after_session;
};
static struct seen *seen;
static struct supervision *shared;

static bool until_count(_Atomic int *count, int least) {
    for (int64_t until = clock_boot() + SECONDS * 1000 * MS; clock_boot() < until; usleep(5000))
        if (atomic_load(count) >= least)
            return true;
    return false;
}

static int next(void) {
    return atomic_fetch_add(&seen->order, 1) + 1;
}

static void *wait_for_term(void) {
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigwait(&set, &number);
    atomic_fetch_add(&seen->terms, 1);
    return NULL;
}

static int serve(void *context, int ready) {
    int start = atomic_fetch_add(&seen->starts, 1) + 1, mode = atomic_load(&seen->mode);
    (void)context;
    if (start == 2)
        atomic_store(&seen->started_again_at, next());
    atomic_store(&seen->child, getpid());
    if (mode == MODE_FAIL)
        return 2;
    if (mode == MODE_CRASH_FIRST)
        abort();
    atomic_store(&shared->lsn, 4711);
    atomic_store(&shared->epoch, EPOCH_MAKE(7, 1));
    atomic_store(&shared->serving, true);
    launch_ready(ready);
    if (mode == MODE_END)
        return 0;
    if (start == 1 && (mode == MODE_CRASH || mode == MODE_STANDS_STILL)) {
        atomic_store(&shared->lease.epoch, EPOCH_MAKE(7, 1));
        atomic_store(&shared->lease.session, 99);
        if (mode == MODE_CRASH)
            abort();
        atomic_store(&shared->lease.until, clock_boot() + 100 * MS);
        raise(SIGSTOP);
    }
    wait_for_term();
    return 0;
}

static void is_ready(void *context) {
    (void)context;
    atomic_fetch_add(&seen->readies, 1);
}

static void giving_up(void *context) {
    (void)context;
    atomic_fetch_add(&seen->given_up, 1);
    atomic_store(&seen->given_up_at, next());
}

static void after(void *context, const struct died *died, epoch_t epoch, uint64_t session) {
    (void)context;
    if (atomic_load(&seen->mode) != MODE_CRASH_FIRST)
        until_count(&seen->starts, 2); /* the next one has begun: what is told here is the dead one's */
    atomic_store(&seen->after_overdue, died->overdue);
    atomic_store(&seen->after_status, died->wait_status);
    atomic_store(&seen->after_lsn, died->lsn);
    atomic_store(&seen->after_epoch, epoch);
    atomic_store(&seen->after_session, session);
    atomic_fetch_add(&seen->afters, 1);
}

static pid_t run(enum mode mode) {
    memset(seen, 0, sizeof *seen);
    atomic_store(&seen->mode, (int)mode);
    atomic_store(&shared->restarts, 0);
    fflush(stdout);
    pid_t parent = fork();
    if (parent == 0) {
        struct launch how = {.shared = shared,
                             .patience = PATIENCE,
                             .source = "test",
                             .serve = serve,
                             .ready = is_ready,
                             .giving_up = giving_up,
                             .after = after};
        _exit(launch(&how));
    }
    return parent;
}

static int end_of(pid_t parent) {
    int status = -1;
    for (int64_t until = clock_boot() + SECONDS * 1000 * MS; clock_boot() < until; usleep(5000))
        if (waitpid(parent, &status, WNOHANG) == parent)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    kill(parent, SIGKILL);
    waitpid(parent, &status, 0);
    return 2000;
}

static bool gone(pid_t process) {
    for (int64_t until = clock_boot() + SECONDS * 1000 * MS; clock_boot() < until; usleep(5000))
        if (waitpid(process, NULL, WNOHANG) == process || (kill(process, 0) < 0 && errno == ESRCH))
            return true;
    return false;
}

static void test_ends(void) {
    is_int(0, end_of(run(MODE_END)), "a child that ends in order ends all");
    is_int(1, atomic_load(&seen->readies), "it was ready");
    is_int(0, atomic_load(&seen->afters), "there is nothing to clean up after");
    is_int(2, end_of(run(MODE_FAIL)), "one that cannot start ends all with its status");
    is_int(1, atomic_load(&seen->starts), "at its first try");
    is_int(0, atomic_load(&seen->readies) + atomic_load(&seen->afters), "it was not ready, and has cleaned up");
}

static void test_crash(void) {
    pid_t parent = run(MODE_CRASH);
    ok(until_count(&seen->starts, 2), "a child that crashes is started again");
    ok(until_count(&seen->afters, 1), "and cleaned up after");
    ok(WIFSIGNALED(atomic_load(&seen->after_status)) && WTERMSIG(atomic_load(&seen->after_status)) == SIGABRT, "it is told how");
    is_int(4711, atomic_load(&seen->after_lsn), "at which record");
    ok(atomic_load(&seen->after_epoch) == EPOCH_MAKE(7, 1) && atomic_load(&seen->after_session) == 99,
       "and which lease was held, although another child runs");
    is_int(1, atomic_load(&seen->given_up), "servers have been ended");
    ok(atomic_load(&seen->given_up_at) < atomic_load(&seen->started_again_at), "before it was started again");
    kill(parent, SIGTERM);
    is_int(0, end_of(parent), "told to stop, all end in order");
    is_int(1, atomic_load(&seen->terms), "the child was told");
    is_int(1, atomic_load(&seen->readies), "ready was said once");
    is_int(1, atomic_load(&shared->restarts), "one start was one again");
}

static void test_never_ready(void) {
    is_int(1, end_of(run(MODE_CRASH_FIRST)), "a child that crashes before it was ever ready is given up");
    is_int(SUPERVISOR_TRIES, atomic_load(&seen->starts), "after some tries");
}

static void test_stands_still(void) {
    pid_t parent = run(MODE_STANDS_STILL);
    ok(until_count(&seen->starts, 2), "a child that stands still beyond its lease is killed and started again");
    ok(until_count(&seen->afters, 1) && atomic_load(&seen->after_overdue), "with a note that says so");
    ok(atomic_load(&seen->given_up_at) < atomic_load(&seen->started_again_at), "servers have been ended before");
    kill(parent, SIGINT);
    is_int(0, end_of(parent), "the next one is an orderly one");
}

static void test_traced(void) {
    pid_t parent = run(MODE_SERVE);
    ok(until_count(&seen->readies, 1), "a child serves");
    pid_t child = atomic_load(&seen->child);
    if (ptrace(PTRACE_SEIZE, child, NULL, NULL) < 0) {
        skip(2, "no debugging here: %s", strerror(errno));
    } else {
        kill(child, SIGSTOP);
        atomic_store(&shared->lease.until, clock_boot());
        usleep(2000000); /* ten times the patience and more than one look: it must not happen */
        ok(kill(child, 0) == 0 && atomic_load(&seen->starts) == 1, "in a debugger's hands it is left alone");
        ptrace(PTRACE_DETACH, child, NULL, NULL);
        kill(child, SIGSTOP);
        ok(until_count(&seen->starts, 2), "no longer");
    }
    kill(parent, SIGTERM);
    is_int(0, end_of(parent), "and ends");
}

static void test_parent_killed(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t parent = run(MODE_SERVE);
    ok(until_count(&seen->readies, 1), "a child serves");
    pid_t child = atomic_load(&seen->child);
    kill(parent, SIGKILL);
    ok(end_of(parent) == 1000 + SIGKILL && gone(child), "its parent killed, it ends");
    is_int(1, atomic_load(&seen->terms), "in order");
}

int main(void) {
    plan_lazy();
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared = launch_share();
    if (seen == MAP_FAILED || !shared)
        bail("no memory");
    test_ends();
    test_crash();
    test_never_ready();
    test_stands_still();
    test_traced();
    test_parent_killed();
    return 0;
}
