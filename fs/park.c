#include "fs/park.h"

#include <pthread.h>
#include <stdatomic.h>

struct line {
    _Atomic uint64_t position;
    struct parked *first, *last; /* in order of LSN; those of one LSN in order of arrival */
};

struct park {
    pthread_mutex_t mutex;
    struct line lines[PARK_LINES];
    struct parked *paced, *last_paced; /* not due yet; in order of times, those of one time in order of arrival */
    size_t count;
};

struct park *park_create(void) {
    struct park *park = calloc(1, sizeof *park);
    if (park)
        PROMISE(pthread_mutex_init(&park->mutex, NULL) == 0);
    return park;
}

void park_free(struct park *park) {
    if (!park)
        return;
    park_give_up(park, -EIO);
    pthread_mutex_destroy(&park->mutex);
    free(park);
}

static void park_lock(struct park *park) {
    PROMISE(pthread_mutex_lock(&park->mutex) == 0);
}

static void park_unlock(struct park *park) {
    PROMISE(pthread_mutex_unlock(&park->mutex) == 0);
}

/* Nearly always at the end: LSNs are given out in order, and waited for soon after. */
static void insert(struct line *line, struct parked *parked) {
    struct parked *before = line->last;

    if (before && before->lsn > parked->lsn) {
        before = NULL;
        for (struct parked *at = line->first; at && at->lsn <= parked->lsn; at = at->next)
            before = at;
    }
    parked->next = before ? before->next : line->first;
    if (before)
        before->next = parked;
    else
        line->first = parked;
    if (!parked->next)
        line->last = parked;
}

/* Takes off what waits for an LSN up to `lsn`. */
static struct parked *take(struct park *park, struct line *line, uint64_t lsn) {
    struct parked *first = line->first, *last = NULL;

    for (struct parked *at = first; at && at->lsn <= lsn; at = at->next) {
        last = at;
        park->count--;
    }
    if (!last)
        return NULL;
    line->first = last->next;
    if (!line->first)
        line->last = NULL;
    last->next = NULL;
    return first;
}

static void answer(struct parked *parked, int error) {
    while (parked) {
        struct parked *next = parked->next; /* done() may free its own */
        parked->done(parked, error);
        parked = next;
    }
}

void park_wait(struct park *park, enum park_line line, struct parked *parked) {
    struct line *at = &park->lines[line];

    if (atomic_load(&at->position) < parked->lsn) {
        park_lock(park);
        if (atomic_load(&at->position) < parked->lsn) {
            insert(at, parked);
            park->count++;
            park_unlock(park);
            return;
        }
        park_unlock(park);
    }
    parked->done(parked, 0);
}

void park_wait_until(struct park *park, enum park_line line, struct parked *parked, int64_t due) {
    struct parked **at;
    parked->due = due;
    parked->line = line;
    park_lock(park);
    bool behind_all = park->paced && park->last_paced->due <= due; /* nearly always */
    for (at = behind_all ? &park->last_paced->next : &park->paced; *at && (*at)->due <= due;)
        at = &(*at)->next;
    parked->next = *at;
    *at = parked;
    if (!parked->next)
        park->last_paced = parked;
    park->count++;
    park_unlock(park);
}

/* Takes off those of the paced that are due. Locked. */
static struct parked *take_paced(struct park *park, int64_t now) {
    struct parked *first = park->paced, *last = NULL;

    for (struct parked *at = first; at && at->due <= now; at = at->next) {
        last = at;
        park->count--;
    }
    if (!last)
        return NULL;
    park->paced = last->next;
    last->next = NULL;
    return first;
}

int64_t park_pass(struct park *park, int64_t now) {
    park_lock(park);
    struct parked *due = take_paced(park, now);
    int64_t next = park->paced ? park->paced->due : INT64_MAX;
    park_unlock(park);
    while (due) {
        struct parked *after = due->next;
        park_wait(park, due->line, due);
        due = after;
    }
    return next;
}

void park_advance(struct park *park, enum park_line line, uint64_t lsn) {
    struct line *at = &park->lines[line];
    struct parked *ready = NULL;

    if (atomic_load(&at->position) >= lsn)
        return;
    park_lock(park);
    if (atomic_load(&at->position) < lsn) {
        atomic_store(&at->position, lsn);
        ready = take(park, at, lsn);
    }
    park_unlock(park);
    answer(ready, 0);
}

void park_reset(struct park *park, uint64_t lsn) {
    struct parked *waiting[PARK_LINES];

    park_lock(park);
    struct parked *paced = take_paced(park, INT64_MAX);
    for (unsigned line = 0; line < PARK_LINES; line++) {
        waiting[line] = take(park, &park->lines[line], UINT64_MAX);
        atomic_store(&park->lines[line].position, lsn);
    }
    park_unlock(park);
    for (unsigned line = 0; line < PARK_LINES; line++)
        answer(waiting[line], -EIO);
    answer(paced, -EIO);
}

void park_give_up(struct park *park, int error) {
    park_lock(park);
    struct parked *paced = take_paced(park, INT64_MAX);
    park_unlock(park);
    answer(paced, error);
    for (unsigned line = 0; line < PARK_LINES; line++) {
        park_lock(park);
        struct parked *all = take(park, &park->lines[line], UINT64_MAX);
        park_unlock(park);
        answer(all, error);
    }
}

struct sync_wait {
    struct parked parked;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done;
    int error;
};

static void sync_done(struct parked *parked, int error) {
    struct sync_wait *wait = (struct sync_wait *)parked;

    pthread_mutex_lock(&wait->mutex);
    wait->done = true;
    wait->error = error;
    pthread_cond_signal(&wait->changed);
    pthread_mutex_unlock(&wait->mutex);
}

/* False if it is not there any more: then done() has been called or is about to be. */
static bool withdraw(struct park *park, struct line *line, struct parked *parked) {
    struct parked *before = NULL, *at;
    bool found = false;

    park_lock(park);
    for (at = line->first; at && at != parked; at = at->next)
        before = at;
    if (at) {
        if (before)
            before->next = at->next;
        else
            line->first = at->next;
        if (line->last == at)
            line->last = before;
        park->count--;
        found = true;
    }
    park_unlock(park);
    return found;
}

int park_sync(struct park *park, enum park_line line, uint64_t lsn, int64_t timeout_ns) {
    struct sync_wait wait = {.parked = {.lsn = lsn, .done = sync_done}};
    pthread_condattr_t attributes;

    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&wait.changed, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    PROMISE(pthread_mutex_init(&wait.mutex, NULL) == 0);

    struct timespec until;
    PROMISE(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    int64_t nanoseconds = until.tv_nsec + MAX(timeout_ns, 0) % 1000000000;
    until.tv_sec += MAX(timeout_ns, 0) / 1000000000 + nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;

    park_wait(park, line, &wait.parked);
    pthread_mutex_lock(&wait.mutex);
    while (!wait.done) {
        if (pthread_cond_timedwait(&wait.changed, &wait.mutex, &until) != ETIMEDOUT || wait.done)
            continue;
        pthread_mutex_unlock(&wait.mutex);
        bool found = withdraw(park, &park->lines[line], &wait.parked);
        pthread_mutex_lock(&wait.mutex);
        if (found) {
            wait.done = true;
            wait.error = -ETIMEDOUT;
        }
        while (!wait.done)
            pthread_cond_wait(&wait.changed, &wait.mutex);
    }
    pthread_mutex_unlock(&wait.mutex);
    pthread_cond_destroy(&wait.changed);
    pthread_mutex_destroy(&wait.mutex);
    return wait.error;
}

uint64_t park_position(struct park *park, enum park_line line) {
    return atomic_load(&park->lines[line].position);
}

size_t park_count(struct park *park) {
    park_lock(park);
    size_t count = park->count;
    park_unlock(park);
    return count;
}
