/* File locks through the mount. The kernel would keep them by itself, and would grant them on a standby, and on a primary
 * without its lease, too; so they are asked for here, and locks.c keeps them. They are not replicated: who holds one on a
 * primary that ceases has lost it, with the right to write.
 *
 * The kernel tells of the close of a file that was opened for writing (FLUSH), and of the last close of every one (RELEASE).
 * So a process that closes one of several descriptors of a file that it has open for reading only keeps its locks until the last
 * one is closed; the price of the other way would be a request more for every file that is read. RELEASE comes after close()
 * has returned: so whoever asks without waiting is answered "no" only after a moment in which it may come.
 */
#include "fs/front_private.h"

#include "fs/locks.h"

#include <fcntl.h>
#include <sys/file.h>

#define MOMENT_NS (10 * INT64_C(1000000))

struct lock_desk {
    struct locks *locks;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread; /* answers those whose moment is over */
    bool started, stopping, asked;
};

struct lock_wait {
    struct lock_waiter waiter;
    struct reply reply;
};

static void send_answer(const struct reply *reply, int error) {
    int before = note.fd;
    note.fd = reply->fd;
    fuse_reply_err(reply->request, -error);
    note.fd = before;
}

static void answered(struct lock_waiter *waiter, int error) {
    struct lock_wait *wait = (struct lock_wait *)waiter;
    send_answer(&wait->reply, error);
    free(wait);
}

static void ask_moment(struct lock_desk *desk) {
    pthread_mutex_lock(&desk->mutex);
    desk->asked = true;
    pthread_cond_signal(&desk->changed);
    pthread_mutex_unlock(&desk->mutex);
}

static void set(fuse_req_t request, const struct lock_ask *ask, bool waits) {
    struct front *front = front_of(request);
    struct lock_wait *wait = NULL;

    if (!atomic_load(&front->writable)) { /* a standby has none to take back either */
        reply_error(request, ask->type == LOCK_TYPE_NONE ? 0 : -ENOLCK);
        return;
    }
    if (ask->type != LOCK_TYPE_NONE) {
        wait = malloc(sizeof *wait);
        if (!wait) {
            reply_error(request, -ENOLCK);
            return;
        }
        *wait = (struct lock_wait){.waiter = {.key = note.unique,
                                              .until = waits ? INT64_MAX : clock_boot() + MOMENT_NS,
                                              .done = answered},
                                   .reply = reply_to(request, REPLY_OK)};
    }
    int rc = wait && waits && fuse_req_interrupted(request) ? -EINTR : locks_set(front->locks->locks, ask, wait ? &wait->waiter : NULL);
    if (rc == -EINPROGRESS) { /* and perhaps answered already */
        if (!waits)
            ask_moment(front->locks);
        return;
    }
    free(wait);
    reply_error(request, rc);
}

static enum lock_type type_of(int type) {
    return type == F_WRLCK ? LOCK_TYPE_WRITE : type == F_RDLCK ? LOCK_TYPE_READ : LOCK_TYPE_NONE;
}

/* A range without an end has length 0. False: it is none. */
static bool range_of(uint64_t ino, const struct fuse_file_info *file, const struct flock *lock, struct lock_ask *ask) {
    if (lock->l_start < 0 || lock->l_len < 0 || (lock->l_len > 0 && lock->l_start > INT64_MAX - (lock->l_len - 1)))
        return false;
    *ask = (struct lock_ask){
        .ino = ino,
        .owner = file->lock_owner,
        .handle = file->fh,
        .pid = (uint32_t)lock->l_pid,
        .type = type_of(lock->l_type),
        .first = (uint64_t)lock->l_start,
        .last = lock->l_len ? (uint64_t)(lock->l_start + (lock->l_len - 1)) : UINT64_MAX,
    };
    return true;
}

void front_getlk(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file, struct flock *lock) {
    struct front *front = front_of(request);
    struct lock_ask ask, found;

    if (!atomic_load(&front->writable)) {
        reply_error(request, -ENOLCK);
    } else if (!range_of(ino, file, lock, &ask)) {
        reply_error(request, -EINVAL);
    } else if (!locks_find(front->locks->locks, &ask, &found)) {
        lock->l_type = F_UNLCK;
        fuse_reply_lock(request, lock);
    } else {
        lock->l_type = found.type == LOCK_TYPE_WRITE ? F_WRLCK : F_RDLCK;
        lock->l_whence = SEEK_SET;
        lock->l_start = (off_t)found.first;
        lock->l_len = found.last == UINT64_MAX ? 0 : (off_t)(found.last - found.first + 1);
        lock->l_pid = (pid_t)found.pid;
        fuse_reply_lock(request, lock);
    }
}

void front_setlk(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file, struct flock *lock, int waits) {
    struct lock_ask ask;

    if (range_of(ino, file, lock, &ask))
        set(request, &ask, waits != 0);
    else
        reply_error(request, -EINVAL);
}

void front_flock(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file, int operation) {
    struct lock_ask ask = {.ino = ino,
                           .owner = file->lock_owner,
                           .handle = file->fh,
                           .whole = true,
                           .type = operation & LOCK_EX   ? LOCK_TYPE_WRITE
                                   : operation & LOCK_SH ? LOCK_TYPE_READ
                                                         : LOCK_TYPE_NONE,
                           .last = UINT64_MAX};
    set(request, &ask, !(operation & LOCK_NB));
}

/* ---- What others of the front say ---- */

void front_locks_flushed(struct front *front, uint64_t ino, uint64_t owner) {
    locks_flushed(front->locks->locks, ino, owner);
}

void front_locks_released(struct front *front, uint64_t ino, uint64_t handle) {
    locks_released(front->locks->locks, ino, handle);
}

bool front_locks_interrupted(struct front *front, uint64_t unique) {
    return front->locks && locks_interrupt(front->locks->locks, unique);
}

void front_locks_drop(struct front *front, int error) {
    locks_drop(front->locks->locks, error);
}

static void *desk_main(void *context) {
    struct lock_desk *desk = context;

    pthread_mutex_lock(&desk->mutex);
    while (!desk->stopping) {
        desk->asked = false;
        pthread_mutex_unlock(&desk->mutex);
        int64_t next = locks_pass(desk->locks, clock_boot());
        pthread_mutex_lock(&desk->mutex);
        if (desk->asked || desk->stopping)
            continue;
        if (next == INT64_MAX) {
            pthread_cond_wait(&desk->changed, &desk->mutex);
        } else {
            struct timespec until;
            int64_t left = MAX(next - clock_boot(), 0);
            PROMISE(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
            until.tv_nsec += (long)(left % 1000000000);
            until.tv_sec += (time_t)(left / 1000000000) + until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&desk->changed, &desk->mutex, &until);
        }
    }
    pthread_mutex_unlock(&desk->mutex);
    return NULL;
}

int front_locks_start(struct front *front) {
    pthread_condattr_t attributes;
    struct lock_desk *desk = calloc(1, sizeof *desk);

    if (!desk)
        return -ENOMEM;
    desk->locks = locks_create();
    if (!desk->locks) {
        free(desk);
        return -ENOMEM;
    }
    PROMISE(pthread_mutex_init(&desk->mutex, NULL) == 0);
    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&desk->changed, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    front->locks = desk;
    pthread_mutex_lock(&desk->mutex);
    int error = pthread_create(&desk->thread, NULL, desk_main, desk);
    desk->started = error == 0;
    pthread_mutex_unlock(&desk->mutex);
    return -error;
}

void front_locks_stop(struct front *front) {
    struct lock_desk *desk = front->locks;

    if (!desk)
        return;
    pthread_mutex_lock(&desk->mutex);
    desk->stopping = true;
    pthread_cond_signal(&desk->changed);
    pthread_mutex_unlock(&desk->mutex);
    if (desk->started)
        pthread_join(desk->thread, NULL);
    locks_free(desk->locks);
    pthread_cond_destroy(&desk->changed);
    pthread_mutex_destroy(&desk->mutex);
    front->locks = NULL;
    free(desk);
}
