/* The lease, asked at every answer of the mount: while it is not held and the mount is the primary's still, nothing is
 * answered. Two things wait then: answers that were made when it had run out (copies of their bytes), and requests that
 * came later (nobody has looked at them). What becomes of them the next change of role says. A standby gives errors for the
 * answers, because what they tell may be true no more, and takes what went with them back, and it looks at the requests
 * with its own eyes. If the lease is held again before (the same node, in a new epoch), all goes on.
 *
 * The look at the clock is the last thing before the answer leaves, so a process that was stopped, or a machine that slept,
 * finds out in time. What remains is a stop between the look and the write. What was answered was true when it was looked
 * at, and whoever gets it has asked before and waits until now: for him it is as if all had happened at the look. Only what
 * the kernel keeps of such an answer is older than it believes, until all that it knows is dropped, which is the first thing
 * that follows; that is what the voters' margin is for.
 */
#include "fs/front_private.h"

#include <linux/fuse.h>
#include <sys/uio.h>

#define KEPT_BYTES_MAX (64u << 20) /* of answers; beyond it only the fact that there was one is kept */
#define LOOK_AGAIN_NS (2 * INT64_C(1000000))
/* Nobody has changed the role for so long: rather errors than to wait for ever. Exporters' servers are gone by then. */
#define PATIENCE_NS (60 * INT64_C(1000000000))

struct kept {
    struct kept *next;
    int fd;
    unsigned term;
    uint64_t unique;
    enum sends sends;
    size_t length; /* 0: only the error can be sent */
    _Alignas(8) uint8_t bytes[];
};

struct lapse {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    bool started, stopping;
    struct kept *first, **end;
    size_t bytes;
    int64_t since; /* the first of what waits came then; INT64_MAX: nothing waits */
    atomic_uint hurry;       /* threads of batond's own wait in the mount: errors at once */
    atomic_uint overdue;     /* errors at once in this term of the front; 0: none */
};

static bool lease_lapsed(const struct front *front) {
    return atomic_load(&front->writable) && !volume_lease_holds(front->volume);
}

bool lapse_now(const struct front *front) {
    return front->lapse && lease_lapsed(front);
}

bool lapse_refuses(const struct front *front) {
    const struct lapse *lapse = front->lapse;
    return lapse && (atomic_load(&lapse->hurry) > 0 || atomic_load(&lapse->overdue) == atomic_load(&front->term)) &&
           lease_lapsed(front);
}

void lapse_hurry(struct front *front, bool on) {
    struct lapse *lapse = front->lapse;
    if (!lapse)
        return;
    if (on)
        atomic_fetch_add(&lapse->hurry, 1);
    else
        atomic_fetch_sub(&lapse->hurry, 1);
    pthread_mutex_lock(&lapse->mutex);
    pthread_cond_signal(&lapse->changed);
    pthread_mutex_unlock(&lapse->mutex);
}

/* Something waits from now on. */
static void begin_waiting(struct lapse *lapse) { /* locked */
    if (lapse->since == INT64_MAX)
        lapse->since = clock_boot();
    pthread_cond_signal(&lapse->changed);
}

void lapse_waits(struct front *front) {
    struct lapse *lapse = front->lapse;
    pthread_mutex_lock(&lapse->mutex);
    begin_waiting(lapse);
    pthread_mutex_unlock(&lapse->mutex);
}

/* ---- What went with an answer that does not arrive ---- */

static void take_back(struct front *front, enum sends sends, const uint8_t *body, size_t length) {
    struct fuse_open_out open;

    switch (sends) {
    case SENDS_ENTRY: {
        struct fuse_entry_out entry;
        memcpy(&entry, body, sizeof entry);
        lookup_undone(front, entry.nodeid);
        break;
    }
    case SENDS_LISTING:
        listing_undone(front, body, length);
        break;
    case SENDS_DIRECTORY:
        memcpy(&open, body, sizeof open);
        directory_undone(front, open.fh);
        break;
    case SENDS_PLAIN:
    case SENDS_ALWAYS:
        break;
    }
}

static void send_error(struct front *front, int fd, uint64_t unique) {
    struct fuse_out_header head = {.len = sizeof head, .error = -EIO, .unique = unique};
    struct iovec part = {&head, sizeof head};
    raw_send_now(front, fd, &part, 1); /* ENOENT: the caller has gone */
}

static void fail_kept(struct front *front, struct kept *kept) {
    if (kept->length)
        take_back(front, kept->sends, kept->bytes + sizeof(struct fuse_out_header),
                  kept->length - sizeof(struct fuse_out_header));
    send_error(front, kept->fd, kept->unique);
}

static void send_kept(struct front *front, struct kept *kept) {
    struct iovec parts[] = {{kept->bytes, sizeof(struct fuse_out_header)},
                            {kept->bytes + sizeof(struct fuse_out_header), kept->length - sizeof(struct fuse_out_header)}};
    if (raw_send_now(front, kept->fd, parts, parts[1].iov_len ? 2 : 1) < 0)
        take_back(front, kept->sends, parts[1].iov_base, parts[1].iov_len);
}

static struct kept *take_kept(struct lapse *lapse) {
    pthread_mutex_lock(&lapse->mutex);
    struct kept *list = lapse->first;
    lapse->first = NULL;
    lapse->end = &lapse->first;
    lapse->bytes = 0;
    lapse->since = INT64_MAX;
    pthread_mutex_unlock(&lapse->mutex);
    return list;
}

void lapse_end(struct front *front, bool held_again) {
    if (!front->lapse)
        return;
    struct kept *kept = take_kept(front->lapse);
    if (held_again)
        atomic_store(&front->lapse->overdue, 0);
    while (kept) {
        struct kept *next = kept->next;
        if (held_again && kept->length && kept->term == atomic_load(&front->term))
            send_kept(front, kept);
        else
            fail_kept(front, kept);
        free(kept);
        kept = next;
    }
}

/* ---- Keeping ---- */

static struct kept *copy_of(struct front *front, int fd, enum sends sends, const struct iovec *parts, int count,
                            size_t length) {
    struct fuse_out_header head;
    struct kept *kept = malloc(sizeof *kept + length);
    size_t at = 0;

    if (!kept)
        return NULL;
    memcpy(&head, parts[0].iov_base, sizeof head);
    *kept = (struct kept){
        .fd = fd, .term = atomic_load(&front->term), .unique = head.unique, .sends = sends, .length = length};
    for (int i = 0; length > 0 && i < count; i++) {
        memcpy(kept->bytes + at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    return kept;
}

static bool has_room(struct lapse *lapse, size_t length) {
    pthread_mutex_lock(&lapse->mutex);
    bool room = lapse->bytes + length <= KEPT_BYTES_MAX;
    if (room)
        lapse->bytes += length;
    pthread_mutex_unlock(&lapse->mutex);
    return room;
}

/* The bytes of what follows the head, in one piece. Replies have it so, but for those whose buffer libfuse splits. */
static void take_back_parts(struct front *front, enum sends sends, const struct iovec *parts, int count) {
    if (count > 1 && sends != SENDS_PLAIN)
        take_back(front, sends, parts[1].iov_base, parts[1].iov_len);
}

ssize_t lapse_keep(struct front *front, int fd, enum sends sends, const struct iovec *parts, int count) {
    struct lapse *lapse = front->lapse;
    struct fuse_out_header head;
    size_t length = 0;

    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    memcpy(&head, parts[0].iov_base, sizeof head);
    bool whole = !lapse_refuses(front) && has_room(lapse, length);
    struct kept *kept = lapse_refuses(front) ? NULL : copy_of(front, fd, sends, parts, count, whole ? length : 0);
    if (!kept || !whole)
        take_back_parts(front, sends, parts, count);
    if (!kept) {
        send_error(front, fd, head.unique);
        return (ssize_t)length;
    }
    pthread_mutex_lock(&lapse->mutex);
    *lapse->end = kept;
    lapse->end = &kept->next;
    begin_waiting(lapse);
    pthread_mutex_unlock(&lapse->mutex);
    return (ssize_t)length;
}

/* ---- The thread that looks whether it is over ---- */

static void sleep_until(struct lapse *lapse, int64_t when) { /* locked */
    struct timespec at = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};
    pthread_cond_timedwait(&lapse->changed, &lapse->mutex, &at);
}

static int64_t clock_monotonic(void) {
    struct timespec now;
    PROMISE(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *lapse_main(void *context) {
    struct front *front = context;
    struct lapse *lapse = front->lapse;

    pthread_mutex_lock(&lapse->mutex);
    while (!lapse->stopping) {
        if (lapse->since == INT64_MAX) {
            pthread_cond_wait(&lapse->changed, &lapse->mutex);
            continue;
        }
        bool lapsed = lease_lapsed(front);
        if (lapsed && !lapse_refuses(front) && clock_boot() - lapse->since > PATIENCE_NS) {
            atomic_store(&lapse->overdue, atomic_load(&front->term));
            log_warning("the lease has run out and the role has not changed for %d s: what waits in the mount gets an error",
                        (int)(PATIENCE_NS / 1000000000));
        }
        if (lapsed && !lapse_refuses(front)) {
            sleep_until(lapse, clock_monotonic() + LOOK_AGAIN_NS);
            continue;
        }
        pthread_mutex_unlock(&lapse->mutex);
        lapse_end(front, !lapsed && atomic_load(&front->writable));
        front_held_again(front);
        pthread_mutex_lock(&lapse->mutex);
    }
    pthread_mutex_unlock(&lapse->mutex);
    return NULL;
}

int lapse_start(struct front *front) {
    pthread_condattr_t attributes;
    struct lapse *lapse = calloc(1, sizeof *lapse);

    if (!lapse)
        return -ENOMEM;
    lapse->end = &lapse->first;
    lapse->since = INT64_MAX;
    PROMISE(pthread_mutex_init(&lapse->mutex, NULL) == 0);
    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&lapse->changed, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    front->lapse = lapse;
    int error = pthread_create(&lapse->thread, NULL, lapse_main, front);
    lapse->started = error == 0;
    return -error;
}

void lapse_stop(struct front *front) {
    struct lapse *lapse = front->lapse;

    if (!lapse)
        return;
    pthread_mutex_lock(&lapse->mutex);
    lapse->stopping = true;
    pthread_cond_signal(&lapse->changed);
    pthread_mutex_unlock(&lapse->mutex);
    if (lapse->started)
        pthread_join(lapse->thread, NULL);
    lapse_end(front, false);
    pthread_cond_destroy(&lapse->changed);
    pthread_mutex_destroy(&lapse->mutex);
    front->lapse = NULL;
    free(lapse);
}
