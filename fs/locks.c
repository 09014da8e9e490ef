#include "fs/locks.h"

#include <pthread.h>
#include <stdatomic.h>

#define BUCKETS 1024u
#define CHAIN_MAX 16u /* how far a circle of waiting owners is followed, as in the kernel */
#define EARLY 256u    /* interrupts that came before their request: the newest */

struct held {
    struct held *next; /* in the bucket */
    struct lock_ask lock;
};

struct locks {
    pthread_mutex_t mutex;
    struct held *buckets[BUCKETS];
    _Atomic size_t count; /* read without the lock: nearly always there is none */
    struct lock_waiter *waiting, **waiting_end;
    size_t waiters;
    uint64_t early[EARLY];
    unsigned early_count;
};

struct locks *locks_create(void) {
    struct locks *locks = calloc(1, sizeof *locks);
    if (locks) {
        PROMISE(pthread_mutex_init(&locks->mutex, NULL) == 0);
        locks->waiting_end = &locks->waiting;
    }
    return locks;
}

static void lock_table(struct locks *locks) {
    PROMISE(pthread_mutex_lock(&locks->mutex) == 0);
}

static void unlock_table(struct locks *locks) {
    PROMISE(pthread_mutex_unlock(&locks->mutex) == 0);
}

static struct held **bucket_of(struct locks *locks, uint64_t ino) {
    return &locks->buckets[(ino * UINT64_C(0x9E3779B97F4A7C15)) >> 54];
}

/* ---- What is held. Locked. ---- */

static bool same_kind(const struct lock_ask *a, const struct lock_ask *b) {
    return a->ino == b->ino && a->whole == b->whole;
}

static bool overlaps(const struct lock_ask *a, const struct lock_ask *b) {
    return a->whole || (a->first <= b->last && b->first <= a->last);
}

static bool conflicts(const struct lock_ask *held, const struct lock_ask *ask) {
    return same_kind(held, ask) && held->owner != ask->owner && ask->type != LOCK_TYPE_NONE &&
           (held->type == LOCK_TYPE_WRITE || ask->type == LOCK_TYPE_WRITE) && overlaps(held, ask);
}

static const struct lock_ask *in_the_way(struct locks *locks, const struct lock_ask *ask) {
    for (struct held *held = *bucket_of(locks, ask->ino); held; held = held->next)
        if (conflicts(&held->lock, ask))
            return &held->lock;
    return NULL;
}

static void put(struct locks *locks, struct held *held) {
    struct held **bucket = bucket_of(locks, held->lock.ino);
    held->next = *bucket;
    *bucket = held;
    atomic_fetch_add(&locks->count, 1);
}

static void take_out(struct locks *locks, struct held **at) {
    struct held *held = *at;
    *at = held->next;
    free(held);
    atomic_fetch_sub(&locks->count, 1);
}

/* The owner's ranges of that kind make room for `ask`, which swallows those of its own type that touch it. `spare` becomes
 * the second part of a range that is cut in two. */
static void cut_out(struct locks *locks, struct lock_ask *ask, struct held **spare) {
    uint64_t first = ask->first, last = ask->last;
    for (struct held **at = bucket_of(locks, ask->ino); *at;) {
        struct lock_ask *own = &(*at)->lock;
        bool mine = same_kind(own, ask) && own->owner == ask->owner;
        bool touches = mine && own->type == ask->type && !own->whole && (last == UINT64_MAX || own->first <= last + 1) &&
                       (own->last == UINT64_MAX || own->last + 1 >= first);
        if (touches) {
            ask->first = MIN(ask->first, own->first);
            ask->last = MAX(ask->last, own->last);
            take_out(locks, at);
        } else if (!mine || !overlaps(own, ask) || (!own->whole && (own->first > last || own->last < first))) {
            at = &(*at)->next;
        } else if (own->whole || (own->first >= first && own->last <= last)) {
            take_out(locks, at);
        } else if (own->first < first && own->last > last) {
            struct held *rest = *spare;
            *spare = NULL;
            rest->lock = *own;
            rest->lock.first = last + 1;
            own->last = first - 1;
            at = &(*at)->next;
            put(locks, rest); /* before `at`, or it is `at`'s: it is not looked at again, or does not overlap */
        } else {
            if (own->first < first)
                own->last = first - 1;
            else
                own->first = last + 1;
            at = &(*at)->next;
        }
    }
}

/* Nothing is in the way. 0 or -ENOLCK. */
static int apply(struct locks *locks, const struct lock_ask *ask) {
    struct lock_ask now = *ask;
    struct held *fresh = malloc(sizeof *fresh), *spare = malloc(sizeof *spare);
    bool frees = ask->type == LOCK_TYPE_NONE && ask->first == 0 && ask->last == UINT64_MAX;
    int rc = 0;

    /* What takes back a part may need one more; what takes back all does not. */
    if ((!fresh || !spare || atomic_load(&locks->count) + 2 > LOCKS_MAX) && !frees && !ask->whole)
        rc = -ENOLCK;
    else if (ask->type != LOCK_TYPE_NONE && (!fresh || atomic_load(&locks->count) + 2 > LOCKS_MAX))
        rc = -ENOLCK;
    if (!rc) {
        cut_out(locks, &now, &spare);
        if (now.type != LOCK_TYPE_NONE) {
            fresh->lock = now;
            put(locks, fresh);
            fresh = NULL;
        }
    }
    free(fresh);
    free(spare);
    return rc;
}

/* ---- Who waits. Locked. ---- */

static struct lock_waiter *remove_waiter(struct locks *locks, struct lock_waiter **at) {
    struct lock_waiter *waiter = *at;
    *at = waiter->next;
    if (locks->waiting_end == &waiter->next)
        locks->waiting_end = at;
    locks->waiters--;
    return waiter;
}

/* Those for whom there is a way now, in the order in which they came; to be answered without the lock. */
struct answers {
    struct lock_waiter *first, **end;
};

static void grant(struct locks *locks, struct answers *granted) {
    for (struct lock_waiter **at = &locks->waiting; *at;) {
        struct lock_waiter *waiter = *at;
        if (in_the_way(locks, &waiter->ask) || apply(locks, &waiter->ask)) {
            at = &waiter->next;
            continue;
        }
        remove_waiter(locks, at);
        *granted->end = waiter;
        granted->end = &waiter->next;
        waiter->next = NULL;
    }
}

static void answer_all(struct lock_waiter *waiter, int error) {
    while (waiter) {
        struct lock_waiter *next = waiter->next;
        waiter->done(waiter, error);
        waiter = next;
    }
}

/* Who is in the way of `ask` waits, perhaps through others, for its owner. */
static bool is_circle(struct locks *locks, const struct lock_ask *ask) {
    const struct lock_ask *blocker = in_the_way(locks, ask);
    for (unsigned depth = 0; blocker && depth < CHAIN_MAX; depth++) {
        uint64_t owner = blocker->owner;
        if (owner == ask->owner)
            return true;
        blocker = NULL;
        for (const struct lock_waiter *waiter = locks->waiting; waiter && !blocker; waiter = waiter->next)
            if (waiter->ask.owner == owner && !waiter->ask.whole && waiter->until == INT64_MAX)
                blocker = in_the_way(locks, &waiter->ask);
    }
    return false;
}

/* ---- ---- */

/* flock: what it has as another type goes, whatever becomes of what it asks for. */
static void give_up_other(struct locks *locks, const struct lock_ask *ask) {
    for (struct held **at = bucket_of(locks, ask->ino); *at;) {
        const struct lock_ask *own = &(*at)->lock;
        if (same_kind(own, ask) && own->owner == ask->owner && own->type != ask->type)
            take_out(locks, at);
        else
            at = &(*at)->next;
    }
}

static int set(struct locks *locks, const struct lock_ask *ask, struct lock_waiter *waiter) {
    if (ask->whole)
        give_up_other(locks, ask);
    if (!in_the_way(locks, ask))
        return apply(locks, ask);
    if (!waiter)
        return -EAGAIN;
    if (!ask->whole && waiter->until == INT64_MAX && is_circle(locks, ask))
        return -EDEADLK;
    if (locks->waiters == LOCKS_WAITERS)
        return -ENOLCK;
    for (unsigned i = 0; i < EARLY; i++)
        if (waiter->key && locks->early[i] == waiter->key)
            return -EINTR;
    waiter->ask = *ask;
    waiter->next = NULL;
    *locks->waiting_end = waiter;
    locks->waiting_end = &waiter->next;
    locks->waiters++;
    return -EINPROGRESS;
}

int locks_set(struct locks *locks, const struct lock_ask *ask, struct lock_waiter *waiter) {
    struct answers granted = {.end = &granted.first};

    lock_table(locks);
    int rc = set(locks, ask, waiter);
    grant(locks, &granted); /* less may be held than before */
    unlock_table(locks);
    answer_all(granted.first, 0);
    return rc;
}

bool locks_find(struct locks *locks, const struct lock_ask *ask, struct lock_ask *found) {
    lock_table(locks);
    const struct lock_ask *held = in_the_way(locks, ask);
    if (held)
        *found = *held;
    unlock_table(locks);
    return held != NULL;
}

/* Those of an inode go of which goes() says so. */
static void remove_some(struct locks *locks, uint64_t ino, bool by_handle, uint64_t which) {
    struct answers granted = {.end = &granted.first};

    if (atomic_load(&locks->count) == 0)
        return;
    lock_table(locks);
    for (struct held **at = bucket_of(locks, ino); *at;) {
        const struct lock_ask *lock = &(*at)->lock;
        if (lock->ino == ino && (by_handle ? lock->handle == which : !lock->whole && lock->owner == which))
            take_out(locks, at);
        else
            at = &(*at)->next;
    }
    grant(locks, &granted);
    unlock_table(locks);
    answer_all(granted.first, 0);
}

void locks_flushed(struct locks *locks, uint64_t ino, uint64_t owner) {
    remove_some(locks, ino, false, owner);
}

void locks_released(struct locks *locks, uint64_t ino, uint64_t handle) {
    remove_some(locks, ino, true, handle);
}

bool locks_interrupt(struct locks *locks, uint64_t key) {
    struct lock_waiter *found = NULL;

    lock_table(locks);
    for (struct lock_waiter **at = &locks->waiting; *at && !found; at = &(*at)->next)
        if ((*at)->key == key) {
            found = remove_waiter(locks, at);
            break;
        }
    if (!found)
        locks->early[locks->early_count++ % EARLY] = key;
    unlock_table(locks);
    if (found)
        found->done(found, -EINTR);
    return found != NULL;
}

void locks_drop(struct locks *locks, int error) {
    lock_table(locks);
    struct lock_waiter *waiting = locks->waiting;
    locks->waiting = NULL;
    locks->waiting_end = &locks->waiting;
    locks->waiters = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        while (locks->buckets[i])
            take_out(locks, &locks->buckets[i]);
    unlock_table(locks);
    answer_all(waiting, error);
}

int64_t locks_pass(struct locks *locks, int64_t now) {
    struct answers over = {.end = &over.first};
    int64_t next = INT64_MAX;

    lock_table(locks);
    for (struct lock_waiter **at = &locks->waiting; *at;) {
        if ((*at)->until > now) {
            next = MIN(next, (*at)->until);
            at = &(*at)->next;
            continue;
        }
        struct lock_waiter *waiter = remove_waiter(locks, at);
        *over.end = waiter;
        over.end = &waiter->next;
        waiter->next = NULL;
    }
    unlock_table(locks);
    answer_all(over.first, -EAGAIN);
    return next;
}

void locks_count(struct locks *locks, size_t *held, size_t *waiting) {
    lock_table(locks);
    *held = atomic_load(&locks->count);
    *waiting = locks->waiters;
    unlock_table(locks);
}

void locks_free(struct locks *locks) {
    if (!locks)
        return;
    locks_drop(locks, -EIO);
    pthread_mutex_destroy(&locks->mutex);
    free(locks);
}
