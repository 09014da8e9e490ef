#include "exporters/exports.h"
#include "fs/front_private.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>

/* What the kernel knows of names, on the primary. A kernel that cannot drop all entries at once at a change of role
 * gets them for a second only, and the change of role waits so long. */
#define ENTRY_TIMEOUT 86400.0
#define ENTRY_TIMEOUT_SHORT 1.0

#define BACKGROUND_MAX 256 /* readahead, mmap's writeback, asynchronous direct I/O under way at once */

static const struct fuse_lowlevel_ops operations = {
    .init = front_init,
    .lookup = front_lookup,
    .forget = front_forget,
    .forget_multi = front_forget_multi,
    .getattr = front_getattr,
    .setattr = front_setattr,
    .readlink = front_readlink,
    .mknod = front_mknod,
    .mkdir = front_mkdir,
    .unlink = front_unlink,
    .rmdir = front_rmdir,
    .symlink = front_symlink,
    .rename = front_rename,
    .link = front_link,
    .open = front_open,
    .read = front_read,
    .write = front_write,
    .flush = front_flush,
    .release = front_release,
    .fsync = front_fsync,
    .getlk = front_getlk,
    .setlk = front_setlk,
    .flock = front_flock,
    .opendir = front_opendir,
    .readdir = front_readdir,
    .readdirplus = front_readdirplus,
    .releasedir = front_releasedir,
    .fsyncdir = front_fsyncdir,
    .statfs = front_statfs,
    .setxattr = front_setxattr,
    .getxattr = front_getxattr,
    .listxattr = front_listxattr,
    .removexattr = front_removexattr,
    .create = front_create,
    .fallocate = front_fallocate,
    .copy_file_range = front_copy,
    .lseek = front_lseek,
};

void front_init(void *userdata, struct fuse_conn_info *connection) {
    const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_EXPORT_SUPPORT |
                            FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                            FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS |
                            FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS;
    /* Pages are dropped when records say so (notify.c), not when a time looks different: on the primary it does after
     * each write of one's own. No ioctls: without the capability the kernel answers ENOTTY by itself. */
    const unsigned unwanted = FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_IOCTL_DIR | FUSE_CAP_HANDLE_KILLPRIV;

    (void)userdata;
    connection->want = (connection->want | (wanted & connection->capable)) & ~unwanted;
    connection->max_write = TRANSFER_MAX;
    connection->max_read = TRANSFER_MAX;
    connection->max_background = BACKGROUND_MAX;
    connection->congestion_threshold = BACKGROUND_MAX * 3 / 4;
}

/* ---- Changes that arrive during a hold, and all that arrives while the lease is not held, wait here as they came, and no
 * thread waits with them. ---- */
struct held {
    struct held *next;
    struct note note;
    size_t length;
    uint8_t request[];
};

/* The gate is not closed before it has been put in: so a change of the role finds what the lease holds. */
static bool hold(struct front *front, const struct fuse_buf *buffer) {
    bool kept = false, lapsed = raw_needs_lease(buffer->mem) && lapse_now(front);

    if (!lapsed && (!atomic_load(&front->holding) || !raw_changes(buffer->mem)))
        return false;
    struct held *held = malloc(sizeof *held + buffer->size);
    if (!held)
        return false; /* it is refused or goes on, as the role says; its answer needs the lease */
    *held = (struct held){.note = note, .length = buffer->size};
    memcpy(held->request, buffer->mem, buffer->size);
    pthread_mutex_lock(&front->held_mutex);
    if (lapsed || atomic_load(&front->holding)) {
        *front->held_end = held;
        front->held_end = &held->next;
        kept = true;
    }
    pthread_mutex_unlock(&front->held_mutex);
    if (!kept)
        free(held);
    else if (lapsed)
        lapse_waits(front);
    return kept;
}

/* There is no store any more (front_replace_store failed), batond is about to end; or it is lapse_refuses() that says so. */
static void refuse(struct front *front, const struct fuse_buf *buffer) {
    const struct fuse_in_header *head = buffer->mem;
    struct fuse_out_header answer = {.len = sizeof answer, .error = -EIO, .unique = head->unique};
    struct iovec part = {&answer, sizeof answer};
    if (head->opcode != FUSE_FORGET && head->opcode != FUSE_BATCH_FORGET && head->opcode != FUSE_INTERRUPT)
        raw_send_now(front, note.fd, &part, 1);
}

static void answer_statx(struct front *front, const struct fuse_in_header *head) {
    front_statx(front, head->nodeid, head->unique, note.fd);
}

static void process(struct front *front, const struct fuse_buf *buffer) {
    pthread_rwlock_rdlock(&front->gate);
    if (!front->store || (raw_needs_lease(buffer->mem) && lapse_refuses(front)))
        refuse(front, buffer);
    else if (hold(front, buffer))
        ;
    else if (raw_is_statx(buffer->mem))
        answer_statx(front, buffer->mem);
    else
        fuse_session_process_buf(front->session, buffer);
    pthread_rwlock_unlock(&front->gate);
}

void front_process(struct front *front, void *request, size_t length) {
    struct fuse_buf buffer = {.mem = request, .size = length};
    process(front, &buffer);
}

static struct held *take_held(struct front *front, bool end) {
    pthread_mutex_lock(&front->held_mutex);
    struct held *held = front->held;
    front->held = NULL;
    front->held_end = &front->held;
    if (end)
        atomic_store(&front->holding, false);
    pthread_mutex_unlock(&front->held_mutex);
    return held;
}

/* Reads need a worker's buffer, and this is any thread. */
static void process_held(struct front *front, struct held *held) {
    struct worker *before = this_worker, own = {.front = front, .fd = -1};

    own.buffer = held ? aligned_alloc(BATON_BLOCK, TRANSFER_MAX) : NULL;
    this_worker = &own;
    while (held) {
        struct held *next = held->next;
        struct fuse_buf buffer = {.mem = held->request, .size = held->length};
        note = held->note;
        if (own.buffer)
            process(front, &buffer);
        else
            refuse(front, &buffer);
        free(held);
        held = next;
    }
    note.fd = -1;
    this_worker = before;
    free(own.buffer);
}

static void end_hold(struct front *front) {
    process_held(front, take_held(front, true));
}

void front_held_again(struct front *front) {
    process_held(front, take_held(front, false));
}

/* ---- Workers ---- */
static void *worker_main(void *context) {
    struct worker *worker = context;
    struct front *front = worker->front;
    struct fuse_buf buffer = {0};

    this_worker = worker;
    while (!fuse_session_exited(front->session)) {
        int length = fuse_session_receive_buf(front->session, &buffer);
        if (length == -EINTR || length == -EAGAIN)
            continue;
        if (length <= 0)
            break;
        process(front, &buffer);
    }
    free(buffer.mem);
    /* One sees the end and tells the others, which may be blocked in read() still: the kernel wakes them when the
     * connection is gone, which it is. */
    fuse_session_exit(front->session);
    if (atomic_fetch_sub(&front->worker_running, 1) == 1) {
        uint64_t one = 1;
        ssize_t done = write(front->ended_fd, &one, sizeof one);
        (void)done;
    }
    return NULL;
}

static int worker_open(struct front *front, struct worker *worker) {
    uint32_t master = (uint32_t)front->fd;

    worker->front = front;
    worker->buffer = aligned_alloc(BATON_BLOCK, TRANSFER_MAX);
    if (!worker->buffer)
        return -ENOMEM;
    worker->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (worker->fd < 0)
        return -errno;
    return ioctl(worker->fd, FUSE_DEV_IOC_CLONE, &master) < 0 ? -errno : 0;
}

static int workers_start(struct front *front, char *why, size_t why_room) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    front->worker_count = (unsigned)MIN(MAX(processors * 2, 4), (long)WORKERS_MAX);
    atomic_store(&front->worker_running, front->worker_count);
    for (unsigned i = 0; i < front->worker_count; i++) {
        int error = worker_open(front, &front->workers[i]);
        if (!error)
            error = -pthread_create(&front->workers[i].thread, NULL, worker_main, &front->workers[i]);
        if (error) {
            snprintf(why, why_room, "cannot start the threads that serve %s: %s", front->mount, strerror(-error));
            return error;
        }
        front->worker_started++;
    }
    return 0;
}

/* The way requests come: by io_uring where the kernel has it, else through the device. */
static int rings_prepare(struct front *front, char *why, size_t why_room) {
    enum request_loop loop = front->volume->config.request_loop;

    if (loop == REQUEST_LOOP_AUTO && exports_any(&front->volume->config))
        loop = REQUEST_LOOP_DEVICE; /* servers are to wait when this process dies: front_descriptors() */
    if (loop == REQUEST_LOOP_DEVICE || !rings_possible(loop == REQUEST_LOOP_IO_URING || rings_tried_out())) {
        if (loop != REQUEST_LOOP_IO_URING)
            return 0;
        snprintf(why, why_room, "request-loop = io_uring: this kernel has no FUSE over io_uring; set it to auto");
        return -EOPNOTSUPP;
    }
    int error = rings_create(front, &front->rings);
    if (error && loop == REQUEST_LOOP_AUTO) {
        log_info("the mount %s is served through /dev/fuse: its queues cannot be made: %s", front->mount, strerror(-error));
        return 0;
    }
    if (error)
        snprintf(why, why_room, "cannot make the queues of the mount %s: %s; set request-loop = device", front->mount,
                 strerror(-error));
    return error;
}

static int session_start(struct front *front, char *why, size_t why_room) {
    char max_read[32];
    char *list[] = {(char *)"batond", (char *)"-o", max_read, NULL};
    struct fuse_args arguments = {.argc = 3, .argv = list};

    snprintf(max_read, sizeof max_read, "max_read=%u", TRANSFER_MAX);
    front->session = fuse_session_new(&arguments, &operations, sizeof operations, front);
    fuse_opt_free_args(&arguments);
    if (!front->session || fuse_session_custom_io(front->session, &raw_io, front->fd)) {
        snprintf(why, why_room, "libfuse does not start a session for %s", front->mount);
        return -EIO;
    }
    int error = rings_prepare(front, why, why_room);
    return error ? error : workers_start(front, why, why_room);
}

static int parts_create(struct front *front) {
    pthread_rwlockattr_t attributes;

    front->nodes = nodes_create();
    front->ended_fd = eventfd(0, EFD_CLOEXEC);
    front->held_end = &front->held;
    atomic_store(&front->parked, 1);
    PROMISE(sem_init(&front->none_parked, 0, 0) == 0);
    PROMISE(pthread_mutex_init(&front->held_mutex, NULL) == 0);
    LIST_INIT(&front->directories);
    PROMISE(pthread_mutex_init(&front->directories_mutex, NULL) == 0);
    PROMISE(pthread_rwlockattr_init(&attributes) == 0);
    /* A change of role does not wait for ever behind requests that keep coming. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    PROMISE(pthread_rwlock_init(&front->gate, &attributes) == 0);
    pthread_rwlockattr_destroy(&attributes);
    if (!front->nodes)
        return -ENOMEM;
    if (front->ended_fd < 0)
        return -errno;
    int error = front_locks_start(front);
    return error ? error : reclaim_start(front->store, front->nodes, &front->reclaim);
}

static void front_free(struct front *front) {
    for (unsigned i = 0; i < front->worker_count; i++) {
        free(front->workers[i].buffer);
        if (front->workers[i].fd > 0)
            close(front->workers[i].fd);
    }
    if (front->session)
        fuse_session_destroy(front->session); /* closes the device */
    else if (front->fd >= 0)
        close(front->fd);
    if (front->ended_fd >= 0)
        close(front->ended_fd);
    rings_free(front->rings);
    nodes_free(front->nodes);
    directories_free(front);
    pthread_rwlock_destroy(&front->gate);
    pthread_mutex_destroy(&front->held_mutex);
    pthread_mutex_destroy(&front->directories_mutex);
    sem_destroy(&front->none_parked);
    free(front);
}

int front_start(struct volume *volume, struct front **out, char *why, size_t why_room) {
    struct front *front = calloc(1, sizeof *front);
    struct statvfs space;

    if (!front) {
        snprintf(why, why_room, "no memory for the mount");
        return -ENOMEM;
    }
    front->volume = volume;
    front->store = volume->store;
    front->fd = -1;
    front->entry_timeout = ENTRY_TIMEOUT_SHORT;
    atomic_store(&front->term, 1);
    int error = parts_create(front);
    if (!error && volume->lease)
        error = lapse_start(front);
    if (error)
        snprintf(why, why_room, "cannot start the mount: %s", strerror(-error));
    if (!error)
        error = mount_prepare(front, why, why_room);
    if (!error)
        error = mount_attach(front, why, why_room);
    if (!error)
        error = session_start(front, why, why_room);
    if (!error && (error = notify_start(front->fd, front->nodes, &front->notify)))
        snprintf(why, why_room, "cannot start the thread that tells the kernel of changes: %s", strerror(-error));
    if (!error && statvfs(front->mount, &space) < 0) { /* the first request: the mount answers */
        error = -errno;
        snprintf(why, why_room, "the mount at %s does not answer: %s", front->mount, strerror(-error));
    }
    if (front->rings && rings_error(front->rings)) { /* unmounted perhaps, so that something else has answered */
        error = rings_error(front->rings);
        snprintf(why, why_room, "the mount at %s cannot be served by io_uring: %s; set request-loop = device",
                 front->mount, strerror(-error));
    }
    if (error) {
        front_unmount(front);
        front_stop(front);
        return error;
    }
    if (notify_drops_entries(front->fd))
        front->entry_timeout = ENTRY_TIMEOUT;
    mount_tune(front);
    *out = front;
    return 0;
}

void front_unmount(struct front *front) {
    if (front->mounted) {
        lapse_hurry(front, true); /* and stays so: nobody changes the role any more */
        mount_detach(front);
    }
    if (front->reclaim)
        reclaim_close(front->reclaim); /* the replicator goes next, and could not hand on its records */
}

void front_stop(struct front *front) {
    front_unmount(front);
    pthread_rwlock_wrlock(&front->gate);
    atomic_store(&front->writable, false); /* nothing replicates any more */
    pthread_rwlock_unlock(&front->gate);
    end_hold(front);
    lapse_end(front, false);
    if (front->locks)
        front_locks_drop(front, -EIO);
    park_give_up(front->volume->park, -EIO);
    park_give_up(front->volume->local, -EIO);
    for (unsigned i = 0; i < front->worker_started; i++)
        pthread_join(front->workers[i].thread, NULL);
    if (front->rings)
        rings_stop(front->rings);
    notify_stop(front->notify);
    /* What the last requests parked. */
    park_give_up(front->volume->park, -EIO);
    park_give_up(front->volume->local, -EIO);
    /* What the store's or the replicator's threads took off before is on its way still. */
    reply_done(front);
    while (sem_wait(&front->none_parked) < 0)
        PROMISE(errno == EINTR);
    lapse_stop(front);
    front_locks_stop(front);
    reclaim_stop(front->reclaim);
    front_free(front);
}

bool front_ended(const struct front *front) {
    struct pollfd ended = {.fd = front->ended_fd, .events = POLLIN};
    return poll(&ended, 1, 0) > 0;
}

const char *front_path(const struct front *front) {
    return front->mount;
}

unsigned front_descriptors(const struct front *front, int *descriptors, unsigned room) {
    unsigned count = 0;
    if (front->rings || room < front->worker_count + 1)
        return 0;
    descriptors[count++] = front->fd;
    for (unsigned i = 0; i < front->worker_count; i++)
        descriptors[count++] = front->workers[i].fd;
    return count;
}

int front_ended_fd(const struct front *front) {
    return front->ended_fd;
}

/* ---- Roles ---- */
/* Who opened a directory here while this was the primary's mount has its listing cached for as long as it is open. */
static void listings_changed(struct front *front, const struct record *record) {
    if (atomic_load(&front->term) == 1)
        return; /* never primary */
    switch (record->head.type) {
    case RECORD_RENAME:
        notify_data(front->notify, record->new_parent, 0, 0);
        /* fall through */
    case RECORD_CREATE:
    case RECORD_LINK:
    case RECORD_UNLINK:
        notify_data(front->notify, record->parent, 0, 0);
        break;
    default:
        break;
    }
}

void front_applied(struct front *front, const struct record *record) {
    const struct record_head *head = &record->head;

    if (atomic_load(&front->writable))
        return; /* it came through this mount */
    switch (head->type) {
    case RECORD_WRITE:
        notify_data(front->notify, head->ino, record->first * BATON_BLOCK, (uint64_t)head->blocks * BATON_BLOCK);
        break;
    case RECORD_PUNCH:
    case RECORD_ALLOCATE:
        notify_data(front->notify, head->ino, record->first * BATON_BLOCK, record->count * BATON_BLOCK);
        break;
    case RECORD_TRUNCATE:
        notify_data(front->notify, head->ino, 0, 0);
        break;
    case RECORD_SETATTR:
    case RECORD_XATTR:
        notify_attributes(front->notify, head->ino); /* the kernel keeps ACLs */
        break;
    default: /* entries and attributes are asked for each time */
        listings_changed(front, record);
        break;
    }
}

void front_undone(struct front *front, const struct record *record) {
    notify_data(front->notify, record->head.ino, 0, 0);
    listings_changed(front, record);
}

void front_hold(struct front *front) {
    lapse_hurry(front, true); /* whoever calls keeps others from changing the role */
    mount_flush(front); /* pages written through mmap could not be written back later */
    lapse_hurry(front, false);
    pthread_rwlock_wrlock(&front->gate);
    atomic_store(&front->holding, true);
    pthread_rwlock_unlock(&front->gate);
}

int front_replace_store(struct front *front, int (*replace)(void *context), void *context) {
    PROMISE(!atomic_load(&front->writable));
    pthread_rwlock_wrlock(&front->gate);
    reclaim_stop(front->reclaim);
    front->reclaim = NULL;
    int error = replace(context);
    front->store = front->volume->store;
    if (!error)
        error = reclaim_start(front->store, front->nodes, &front->reclaim);
    pthread_rwlock_unlock(&front->gate);
    if (!error)
        notify_everything(front->notify);
    return error;
}

void front_become_primary(struct front *front) {
    if (!atomic_load(&front->writable)) {
        struct position position;
        store_position(front->store, &position);
        park_reset(front->volume->local, position.durable);
        /* What became durable in between was told before the reset. */
        store_position(front->store, &position);
        park_advance(front->volume->local, PARK_DURABLE, position.durable);
        nodes_restart(front->nodes, position.lsn);
        atomic_store(&front->names_lsn, position.lsn);
        /* Until now nothing was answered with a lifetime, so what is dropped here does not come back. */
        notify_everything(front->notify);
        notify_drain(front->notify);
        reclaim_resume(front->reclaim, front->volume->orphan_grace);
        pthread_rwlock_wrlock(&front->gate);
        atomic_store(&front->writable, true);
        pthread_rwlock_unlock(&front->gate);
    }
    end_hold(front);
}

/* The lines stand still when a primary ceases: what lies beyond them nobody answers for, whatever the next primary has
 * of it. Who has such a file open must not hear later that it is safe. The gate is closed. */
static void doubt_unacknowledged(struct front *front) {
    struct volume *volume = front->volume;
    bool to_disk = volume->config.acknowledge != ACKNOWLEDGE_NEVER && volume->config.fsync == FSYNC_DISK;
    uint64_t received = park_position(volume->park, PARK_RECEIVED);
    uint64_t durable = to_disk ? park_position(volume->park, PARK_DURABLE) : received;
    unsigned term = atomic_load(&front->term);

    nodes_doubt(front->nodes, received, durable, term);
    if (atomic_load(&front->names_lsn) > durable)
        atomic_store(&front->names_doubt, term);
    atomic_store(&front->term, MIN(term + 1, UINT16_MAX));
}

void front_become_standby(struct front *front) {
    reclaim_pause(front->reclaim);
    pthread_rwlock_wrlock(&front->gate);
    bool was = atomic_exchange(&front->writable, false);
    if (was)
        doubt_unacknowledged(front);
    pthread_rwlock_unlock(&front->gate);
    if (was)
        front_locks_drop(front, -ENOLCK);
    end_hold(front);
    lapse_end(front, false); /* before the kernel is told: it waits for answers then */
    if (was) {
        if (front->entry_timeout < ENTRY_TIMEOUT)
            usleep((useconds_t)(ENTRY_TIMEOUT_SHORT * 1e6)); /* the entries that cannot be dropped are old then */
        notify_everything(front->notify); /* not waited for: the kernel may hold it up until parked replies are sent */
        park_give_up(front->volume->local, -EIO); /* what waits for the disk here may be undone before */
    }
}

uint64_t front_requests(const struct front *front) {
    return atomic_load_explicit(&front->requests, memory_order_relaxed);
}
