#include "fs/reclaim.h"

#include "fs/ops.h"

#include <pthread.h>
#include <stdatomic.h>

#define BATCH 64u
#define QUEUE_MAX (1u << 20)
#define GATHER_MS 20 /* an rm -rf gives many in that time */
#define IDLE_MS 1000 /* pending trims are looked for so often */

struct reclaim {
    struct store *store;
    struct nodes *nodes;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t *queue;
    size_t count, room;
    bool scan; /* look through the store's orphans: after the grace time, and when the queue was full */
    bool active, busy, closed, stopping;
    _Atomic int64_t grace_until; /* clock_boot() */
};

static void wait_ms(struct reclaim *reclaim, int64_t ms) {
    struct timespec until;

    PROMISE(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    int64_t nanoseconds = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;
    pthread_cond_timedwait(&reclaim->changed, &reclaim->mutex, &until);
}

/* Takes a batch off the queue, but for what is in use again: that is marked, so that it is queued when it is forgotten.
 * Mutex held. */
static size_t take(struct reclaim *reclaim, uint64_t *batch) {
    size_t count = 0;

    while (count < BATCH && reclaim->count > 0) {
        uint64_t ino = reclaim->queue[--reclaim->count];
        if (nodes_orphan(reclaim->nodes, ino))
            batch[count++] = ino;
    }
    return count;
}

static bool goes_on(struct reclaim *reclaim) {
    pthread_mutex_lock(&reclaim->mutex);
    bool on = reclaim->active && !reclaim->stopping;
    pthread_mutex_unlock(&reclaim->mutex);
    return on;
}

/* All orphans of the store. Those in use are marked, so that they are queued when they are forgotten. */
static int scan(struct reclaim *reclaim) {
    uint64_t inos[BATCH], after = 0;

    while (goes_on(reclaim)) {
        int found = op_orphans(reclaim->store, after, inos, BATCH);
        if (found <= 0)
            return found;
        after = inos[found - 1];
        size_t free_count = 0;
        for (int i = 0; i < found; i++)
            if (nodes_orphan(reclaim->nodes, inos[i]))
                inos[free_count++] = inos[i];
        int error = free_count ? op_reclaim(reclaim->store, inos, free_count) : 0;
        if (error)
            return error;
    }
    return 0;
}

/* A round of work, without the mutex. */
static int work(struct reclaim *reclaim, const uint64_t *batch, size_t count, bool all) {
    int error = count ? op_reclaim(reclaim->store, batch, count) : 0;

    if (!error && all)
        error = scan(reclaim);
    while (!error && goes_on(reclaim)) {
        int more = op_reclaim_some(reclaim->store);
        if (more <= 0)
            return more;
    }
    return error;
}

static void *reclaim_main(void *context) {
    struct reclaim *reclaim = context;
    uint64_t batch[BATCH];

    pthread_mutex_lock(&reclaim->mutex);
    while (!reclaim->stopping) {
        if (!reclaim->active) {
            pthread_cond_wait(&reclaim->changed, &reclaim->mutex);
            continue;
        }
        if (reclaim->count == 0)
            wait_ms(reclaim, IDLE_MS);
        if (reclaim->count > 0 && reclaim->count < BATCH)
            wait_ms(reclaim, GATHER_MS);
        if (!reclaim->active || reclaim->stopping)
            continue;
        bool more;
        do {
            bool all = reclaim->scan && clock_boot() >= atomic_load(&reclaim->grace_until);
            size_t count = take(reclaim, batch);
            if (all)
                reclaim->scan = false;
            reclaim->busy = true;
            pthread_mutex_unlock(&reclaim->mutex);
            int error = work(reclaim, batch, count, all);
            pthread_mutex_lock(&reclaim->mutex);
            reclaim->busy = false;
            pthread_cond_broadcast(&reclaim->changed);
            if (error && error != -EROFS)
                log_warning("unlinked files could not be freed, trying again later: %s", strerror(-error));
            if (error)
                reclaim->scan = true; /* finds again what was in the batch */
            more = !error && reclaim->count > 0 && reclaim->active && !reclaim->stopping;
        } while (more);
    }
    pthread_mutex_unlock(&reclaim->mutex);
    return NULL;
}

int reclaim_start(struct store *store, struct nodes *nodes, struct reclaim **out) {
    struct reclaim *reclaim = calloc(1, sizeof *reclaim);
    pthread_condattr_t attributes;

    if (!reclaim)
        return -ENOMEM;
    reclaim->store = store;
    reclaim->nodes = nodes;
    PROMISE(pthread_mutex_init(&reclaim->mutex, NULL) == 0);
    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&reclaim->changed, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    int error = pthread_create(&reclaim->thread, NULL, reclaim_main, reclaim);
    if (error) {
        free(reclaim);
        return -error;
    }
    *out = reclaim;
    return 0;
}

void reclaim_stop(struct reclaim *reclaim) {
    if (!reclaim)
        return;
    pthread_mutex_lock(&reclaim->mutex);
    reclaim->stopping = true;
    pthread_cond_broadcast(&reclaim->changed);
    pthread_mutex_unlock(&reclaim->mutex);
    pthread_join(reclaim->thread, NULL);
    pthread_cond_destroy(&reclaim->changed);
    pthread_mutex_destroy(&reclaim->mutex);
    free(reclaim->queue);
    free(reclaim);
}

void reclaim_resume(struct reclaim *reclaim, int64_t grace_ns) {
    pthread_mutex_lock(&reclaim->mutex);
    atomic_store(&reclaim->grace_until, clock_boot() + grace_ns);
    reclaim->active = !reclaim->closed;
    reclaim->scan = true;
    pthread_cond_broadcast(&reclaim->changed);
    pthread_mutex_unlock(&reclaim->mutex);
}

static void pause_locked(struct reclaim *reclaim) {
    reclaim->active = false;
    reclaim->count = 0; /* whoever is primary next finds them in the store */
    pthread_cond_broadcast(&reclaim->changed);
    while (reclaim->busy)
        pthread_cond_wait(&reclaim->changed, &reclaim->mutex);
}

void reclaim_pause(struct reclaim *reclaim) {
    pthread_mutex_lock(&reclaim->mutex);
    pause_locked(reclaim);
    pthread_mutex_unlock(&reclaim->mutex);
}

void reclaim_close(struct reclaim *reclaim) {
    pthread_mutex_lock(&reclaim->mutex);
    reclaim->closed = true;
    pause_locked(reclaim);
    pthread_mutex_unlock(&reclaim->mutex);
}

void reclaim_queue(struct reclaim *reclaim, uint64_t ino) {
    pthread_mutex_lock(&reclaim->mutex);
    if (reclaim->active && reclaim->count == reclaim->room) {
        size_t room = MIN(MAX(reclaim->room * 2, 256), QUEUE_MAX);
        uint64_t *queue = room > reclaim->room ? realloc(reclaim->queue, room * sizeof *queue) : NULL;
        if (queue) {
            reclaim->queue = queue;
            reclaim->room = room;
        } else {
            reclaim->scan = true;
        }
    }
    if (reclaim->active && reclaim->count < reclaim->room) {
        reclaim->queue[reclaim->count++] = ino;
        if (reclaim->count == 1)
            pthread_cond_broadcast(&reclaim->changed);
    }
    pthread_mutex_unlock(&reclaim->mutex);
}

bool reclaim_grace_over(struct reclaim *reclaim) {
    return clock_boot() >= atomic_load(&reclaim->grace_until);
}
