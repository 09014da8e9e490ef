/* Threads as fibers. One runs until it blocks, or until a call of it (`sim_point`) is chosen as the place where another
 * one goes on. When none can run, the clock jumps to whatever comes next.
 *
 * Switching is _setjmp and _longjmp (without system calls); a context is only made to begin on a stack of its own.
 */
#undef _FORTIFY_SOURCE /* its longjmp takes a jump to another stack for a mistake */
#include "tests/simulator/sim.h"
#include "tests/simulator/wraps.h"
#include "tests/tap.h"

#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#define FIBERS 160u
#define STACK (128u << 10)
#define CALL_TIME 200 /* ns that pass with a call */
#define NEVER_ENDS 200000000ull /* switches after which a schedule is called endless */

enum fiber_state { FIBER_NONE, FIBER_READY, FIBER_BLOCKED, FIBER_ENDED };

struct fiber {
    enum fiber_state state;
    bool begun, joined_by_nobody;
    unsigned node;
    const char *name;
    void *(*run)(void *);
    void *argument;
    int64_t until;  /* BLOCKED: runs again at this time */
    bool woken;     /* …or because it was woken */
    void *waits_at; /* BLOCKED: a condition or mutex */
    jmp_buf at;
    ucontext_t context;
};

struct event {
    int64_t time;
    uint64_t order;
    void (*run)(void *argument, uint64_t number);
    void *argument;
    uint64_t number;
};

struct scheduler {
    struct fiber fibers[FIBERS];
    unsigned used; /* fibers[0 … used - 1] may be in use */
    struct fiber *ready[FIBERS];
    unsigned ready_count;
    struct fiber *current;
    int64_t next_due; /* no fiber that is blocked is due before */
    int64_t paused[SIM_PLACES];
    unsigned calls_left;
    struct event *events; /* a heap */
    unsigned event_count, event_room;
    uint64_t event_order;
    jmp_buf at;     /* where the running fiber was entered */
    jmp_buf failed; /* the end of sim_run */
};

static struct scheduler *s; /* made anew with each schedule */
static uint8_t *stacks;

/* ---- Chance ---------------------------------------------------------------------------------------------------------- */

uint64_t sim_random(void) {
    return test_random(&world->random);
}

uint64_t sim_below(uint64_t end) {
    return end ? (uint64_t)(((unsigned __int128)sim_random() * end) >> 64) : 0;
}

bool sim_chance(unsigned one_in) {
    return one_in && sim_below(one_in) == 0;
}

int64_t sim_between(int64_t low, int64_t high) {
    if (high <= low)
        return low;
    unsigned octaves = 63u - (unsigned)__builtin_clzll((uint64_t)(high / low));
    int64_t from = low << sim_below(octaves + 1u);
    return MIN(high, from + (int64_t)sim_below((uint64_t)from));
}

/* ---- Events ---------------------------------------------------------------------------------------------------------- */

static bool before(const struct event *a, const struct event *b) {
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

void sim_at(int64_t time, void (*run)(void *, uint64_t), void *argument, uint64_t number) {
    if (s->event_count == s->event_room) {
        unsigned room = MAX(256u, s->event_room * 2);
        struct event *larger = sim_alloc(room * sizeof *larger);
        if (s->events) {
            memcpy(larger, s->events, s->event_count * sizeof *larger);
            sim_free(s->events);
        }
        s->events = larger;
        s->event_room = room;
    }
    struct event event = {time, s->event_order++, run, argument, number};
    unsigned at = s->event_count++;
    for (; at > 0 && before(&event, &s->events[(at - 1) / 2]); at = (at - 1) / 2)
        s->events[at] = s->events[(at - 1) / 2];
    s->events[at] = event;
}

static struct event take_event(void) {
    struct event first = s->events[0], last = s->events[--s->event_count];
    unsigned at = 0, child;
    while ((child = 2 * at + 1) < s->event_count) {
        child += child + 1 < s->event_count && before(&s->events[child + 1], &s->events[child]);
        if (!before(&s->events[child], &last))
            break;
        s->events[at] = s->events[child];
        at = child;
    }
    if (s->event_count)
        s->events[at] = last;
    return first;
}

/* ---- Switching ------------------------------------------------------------------------------------------------------- */

void sim_prepare(void) {
    size_t each = STACK + 4096;
    stacks = mmap(NULL, FIBERS * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED)
        bail("no memory for stacks");
    for (unsigned i = 0; i < FIBERS; i++)
        if (mprotect(stacks + i * each, 4096, PROT_NONE) < 0)
            bail("no guard pages for stacks");
}

static void make_ready(struct fiber *fiber) {
    fiber->state = FIBER_READY;
    s->ready[s->ready_count++] = fiber;
}

static void leave_for_good(void) {
    _longjmp(s->at, 1);
}

static void leave(void) {
    if (_setjmp(s->current->at) == 0)
        leave_for_good();
}

static void fiber_main(void) {
    struct fiber *fiber = s->current;
    fiber->run(fiber->argument);
    fiber->state = fiber->joined_by_nobody ? FIBER_NONE : FIBER_ENDED;
    for (unsigned i = 0; i < s->used; i++)
        if (s->fibers[i].state == FIBER_BLOCKED && s->fibers[i].waits_at == fiber)
            sim_wake(&s->fibers[i]);
    leave_for_good();
}

static void enter(struct fiber *fiber) {
    s->current = fiber;
    if (_setjmp(s->at) == 0) {
        if (fiber->begun)
            _longjmp(fiber->at, 1);
        fiber->begun = true;
        setcontext(&fiber->context);
    }
    s->current = NULL;
}

static struct fiber *make_fiber(unsigned node, const char *name, void *(*run)(void *), void *argument) {
    unsigned i = 0;
    while (i < FIBERS && s->fibers[i].state != FIBER_NONE)
        i++;
    if (i == FIBERS)
        sim_fail("too many threads");
    s->used = MAX(s->used, i + 1);
    struct fiber *fiber = &s->fibers[i];
    *fiber = (struct fiber){.node = node, .name = name, .run = run, .argument = argument};
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stacks + i * (size_t)(STACK + 4096) + 4096;
    fiber->context.uc_stack.ss_size = STACK;
    makecontext(&fiber->context, fiber_main, 0);
    make_ready(fiber);
    return fiber;
}

struct fiber *sim_spawn(unsigned node, const char *name, void *(*run)(void *), void *argument) {
    struct fiber *fiber = make_fiber(node, name, run, argument);
    fiber->joined_by_nobody = true;
    return fiber;
}

void sim_discard(unsigned node) {
    unsigned kept = 0;
    for (unsigned i = 0; i < s->used; i++)
        if (s->fibers[i].state != FIBER_NONE && s->fibers[i].node == node)
            s->fibers[i].state = FIBER_NONE;
    for (unsigned i = 0; i < s->ready_count; i++)
        if (s->ready[i]->state == FIBER_READY)
            s->ready[kept++] = s->ready[i];
    s->ready_count = kept;
    s->paused[node] = 0;
    if (s->current && s->current->node == node)
        leave_for_good();
}

bool sim_in_fiber(void) {
    return s && s->current;
}

unsigned sim_node_here(void) {
    return s && s->current ? s->current->node : SIM_NOBODY;
}

struct fiber *sim_self(void) {
    return s->current;
}

const char *sim_fiber_name(void) {
    return s && s->current ? s->current->name : "";
}

int64_t sim_now(void) {
    return world->now;
}

/* ---- Blocking -------------------------------------------------------------------------------------------------------- */

static bool block_at(void *place, int64_t until) {
    struct fiber *fiber = s->current;
    fiber->state = FIBER_BLOCKED;
    fiber->until = until;
    fiber->woken = false;
    fiber->waits_at = place;
    s->next_due = MIN(s->next_due, until);
    leave();
    fiber->waits_at = NULL;
    return fiber->woken;
}

bool sim_block(int64_t until) {
    return block_at(NULL, until);
}

void sim_sleep(int64_t ns) {
    block_at(NULL, world->now + MAX(ns, 1));
}

void sim_wake(struct fiber *fiber) {
    if (!fiber || fiber->state != FIBER_BLOCKED)
        return;
    fiber->woken = true;
    fiber->waits_at = NULL;
    make_ready(fiber);
}

static void yield(void) {
    make_ready(s->current);
    leave();
}

void sim_point(void) {
    if (!s || !s->current)
        return;
    world->now += CALL_TIME;
    if (s->calls_left-- > 0)
        return;
    s->calls_left = (unsigned)sim_below(2 * world->calls);
    if (sim_chance(world->stalls))
        sim_sleep(sim_between(1 * US, 64 * SIM_MS));
    else
        yield();
}

void sim_pause(unsigned place, int64_t until) {
    s->paused[place] = until;
    world->awake = MAX(world->awake, until);
}

void sim_suspend(unsigned place, int64_t until) {
    sim_pause(place, until);
    clocks_suspend(place, until - world->now);
    for (unsigned i = 0; i < s->used; i++) {
        struct fiber *fiber = &s->fibers[i];
        if (fiber->node == place && fiber->state == FIBER_BLOCKED && fiber->until != SIM_FOREVER)
            fiber->until += until - world->now;
    }
}

/* ---- Running --------------------------------------------------------------------------------------------------------- */

static void pass_time(void) {
    while (s->event_count && s->events[0].time <= world->now && !world->over) {
        struct event event = take_event();
        event.run(event.argument, event.number);
    }
    if (s->next_due > world->now)
        return;
    s->next_due = SIM_FOREVER;
    for (unsigned i = 0; i < s->used; i++) {
        struct fiber *fiber = &s->fibers[i];
        if (fiber->state != FIBER_BLOCKED)
            continue;
        if (fiber->until <= world->now)
            make_ready(fiber);
        else
            s->next_due = MIN(s->next_due, fiber->until);
    }
}

static struct fiber *choose(void) {
    unsigned i = s->ready_count > 1 ? (unsigned)sim_below(s->ready_count) : 0;
    struct fiber *fiber = s->ready[i];
    s->ready[i] = s->ready[--s->ready_count];
    if (s->paused[fiber->node] <= world->now)
        return fiber;
    /* Whatever woke it has done so: it only runs later. */
    fiber->state = FIBER_BLOCKED;
    fiber->until = s->paused[fiber->node];
    s->next_due = MIN(s->next_due, fiber->until);
    return NULL;
}

void sim_run(void) {
    s = sim_alloc(sizeof *s);
    s->next_due = SIM_FOREVER;
    if (_setjmp(s->failed)) {
        s = NULL;
        return;
    }
    sim_spawn(SIM_NOBODY, "schedule", schedule_run, NULL);
    while (!world->over) {
        pass_time();
        if (world->over)
            break;
        if (s->ready_count) {
            struct fiber *fiber = choose();
            world->now += (int64_t)sim_below(2 * US);
            if (fiber)
                enter(fiber);
            if (++world->counts.switches > NEVER_ENDS)
                sim_fail("the schedule does not end");
            continue;
        }
        int64_t next = s->event_count ? MIN(s->events[0].time, s->next_due) : s->next_due;
        if (next == SIM_FOREVER)
            sim_fail("every thread waits for another one");
        world->now = MAX(world->now, next);
    }
    s = NULL;
}

void sim_fail_list(const char *format, va_list arguments) {
    if (!world->failed) {
        world->failed = true;
        vsnprintf(world->why, sizeof world->why, format, arguments);
        sim_trace("FAILED: %s", world->why);
    }
    world->over = true;
}

void sim_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    sim_fail_list(format, arguments);
    va_end(arguments);
    if (!s)
        bail("%s", world->why);
    _longjmp(s->failed, 1);
}

/* ---- pthread --------------------------------------------------------------------------------------------------------- */

struct mutex {
    struct fiber *owner;
    unsigned waiting;
};
struct condition {
    unsigned waiting; /* at most so many: those that timed out count until the next signal */
};
_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t) && sizeof(struct condition) <= sizeof(pthread_cond_t),
               "a mutex is played in its own memory");

/* Wakes one of those who wait there, any, or all. */
static unsigned wake_waiting(void *place, bool all) {
    struct fiber *found[FIBERS];
    unsigned count = 0;
    for (unsigned i = 0; i < s->used; i++)
        if (s->fibers[i].state == FIBER_BLOCKED && s->fibers[i].waits_at == place)
            found[count++] = &s->fibers[i];
    if (!all && count > 1)
        found[0] = found[sim_below(count)];
    for (unsigned i = 0; i < count && (all || i == 0); i++)
        sim_wake(found[i]);
    return all || !count ? 0 : count - 1;
}

static void lock(struct mutex *mutex) {
    while (mutex->owner) {
        if (mutex->owner == s->current)
            sim_fail("a mutex is locked twice by one thread");
        mutex->waiting++;
        block_at(mutex, SIM_FOREVER);
    }
    mutex->owner = s->current;
}

static void unlock(struct mutex *mutex) {
    if (mutex->owner != s->current)
        sim_fail("a mutex is unlocked by a thread that does not have it");
    mutex->owner = NULL;
    if (mutex->waiting)
        mutex->waiting = wake_waiting(mutex, false);
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
    if (!sim_in_fiber())
        return __real_pthread_mutex_init(mutex, attributes);
    memset(mutex, 0, sizeof *mutex);
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex) {
    if (sim_in_fiber() && ((struct mutex *)mutex)->owner)
        sim_fail("a mutex that is locked is destroyed");
    return sim_in_fiber() ? 0 : __real_pthread_mutex_destroy(mutex);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (!sim_in_fiber())
        return __real_pthread_mutex_lock(mutex);
    sim_point();
    lock((struct mutex *)mutex);
    return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex) {
    if (!sim_in_fiber())
        return __real_pthread_mutex_trylock(mutex);
    sim_point();
    struct mutex *played = (struct mutex *)mutex;
    if (played->owner)
        return EBUSY;
    played->owner = s->current;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex) {
    if (!sim_in_fiber())
        return __real_pthread_mutex_unlock(mutex);
    unlock((struct mutex *)mutex);
    sim_point();
    return 0;
}

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes) {
    if (!sim_in_fiber())
        return __real_pthread_cond_init(cond, attributes);
    memset(cond, 0, sizeof *cond);
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *cond) {
    return sim_in_fiber() ? 0 : __real_pthread_cond_destroy(cond);
}

static int wait_at(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until) {
    ((struct condition *)cond)->waiting++;
    unlock((struct mutex *)mutex);
    bool spurious = sim_chance(500); /* POSIX allows it */
    bool woken = block_at(cond, spurious ? MIN(until, world->now + sim_between(1 * US, 1 * SIM_MS)) : until);
    bool late = !woken && world->now >= until;
    lock((struct mutex *)mutex);
    return late ? ETIMEDOUT : 0;
}

void sim_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until) {
    wait_at(cond, mutex, until);
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex) {
    return sim_in_fiber() ? wait_at(cond, mutex, SIM_FOREVER) : __real_pthread_cond_wait(cond, mutex);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    if (!sim_in_fiber())
        return __real_pthread_cond_timedwait(cond, mutex, until);
    return wait_at(cond, mutex, clock_until(s->current->node, until->tv_sec * 1000000000 + until->tv_nsec));
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond) {
    if (!sim_in_fiber())
        return __real_pthread_cond_signal(cond);
    struct condition *played = (struct condition *)cond;
    if (played->waiting)
        played->waiting = wake_waiting(cond, false);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond) {
    if (!sim_in_fiber())
        return __real_pthread_cond_broadcast(cond);
    struct condition *played = (struct condition *)cond;
    if (played->waiting)
        played->waiting = wake_waiting(cond, true);
    return 0;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    if (!sim_in_fiber())
        return __real_pthread_create(thread, attributes, run, argument);
    *thread = (pthread_t)(uintptr_t)make_fiber(s->current->node, "thread", run, argument);
    sim_point();
    return 0;
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name) {
    if (!sim_in_fiber())
        return __real_pthread_setname_np(thread, name);
    ((struct fiber *)(uintptr_t)thread)->name = name;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result) {
    if (!sim_in_fiber())
        return __real_pthread_join(thread, result);
    struct fiber *fiber = (struct fiber *)(uintptr_t)thread;
    while (fiber->state != FIBER_ENDED)
        block_at(fiber, SIM_FOREVER);
    fiber->state = FIBER_NONE;
    return 0;
}
