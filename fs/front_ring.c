#include "fs/front_ring.h"

#include "fs/front_private.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* Requests that a queue may have under way. Parked ones keep their place, and reads need some: more places are made
 * when fewer than ENTRIES_FREE are left. The kernel takes the one that was free last, so the memory of the others is
 * not touched. Once ENTRIES_MAX callers of one processor wait for the peer, who reads there waits, too. */
#define ENTRIES_FIRST 64u
#define ENTRIES_FREE 24u
#define ENTRIES_STEP 64u
#define ENTRIES_MAX 1024u
#define PROCESSORS_MAX 64
#define WAKE_TAG UINT64_MAX
#define GUARD 4096u /* room before the payload, for the head: libfuse wants both in one piece */
#define POSSIBLE "/sys/devices/system/cpu/possible"
/* The first kernel that Baton's tests ran on over io_uring; the interface is there since 6.14. */
#define TRIED_VERSION 6u
#define TRIED_PATCH 18u
#define PARAMETER "/sys/module/fuse/parameters/enable_uring"

/* The kernel's interface (include/uapi/linux/fuse.h, 7.42); Debian 12's headers are older. */
#define COMMAND_REGISTER 1
#define COMMAND_COMMIT_AND_FETCH 2
struct ring_in_out {
    uint64_t flags;
    uint64_t commit_id;
    uint32_t payload_size;
    uint32_t padding;
    uint64_t reserved;
};
struct ring_header {
    uint8_t in_out[128]; /* struct fuse_in_header, then struct fuse_out_header */
    uint8_t operation[128];
    struct ring_in_out entry;
};
struct ring_command {
    uint64_t flags;
    uint64_t commit_id;
    uint16_t queue;
    uint8_t padding[6];
};

struct ring_entry {
    struct ring *ring;
    struct ring_header *header;
    uint8_t *payload; /* GUARD bytes lie before it */
    struct iovec parts[2];
    struct ring_entry *next; /* answered by another thread */
    _Atomic bool asked;      /* a request is here and has no answer yet */
    uint64_t unique;
};

struct ring {
    struct rings *rings;
    struct io_uring uring;
    unsigned queue;
    pthread_t thread;
    bool started;
    bool used; /* a request has come through it: it is registered */
    struct worker worker; /* for this_worker: the buffer for what a reply carries */
    struct ring_entry entries[ENTRIES_MAX];
    unsigned made; /* … of them */
    atomic_uint held; /* … have a request that is not answered */
    int wake_fd;
    uint64_t wake_count;
    pthread_mutex_t mutex;
    struct ring_entry *answered;
    bool ended;
    unsigned lost; /* entries that the kernel does not take any more */
};

struct rings {
    struct front *front;
    unsigned count;
    struct ring *list;
    atomic_int error;
};

static _Thread_local struct ring *this_ring;

unsigned processors_listed(const char *list) {
    unsigned count = 0;

    while (*list && *list != '\n') {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        if (end == list)
            return 0;
        if (*end == '-') {
            list = end + 1;
            last = strtoul(list, &end, 10);
            if (end == list || last < first || last > UINT16_MAX)
                return 0;
        }
        count += (unsigned)(last - first + 1);
        list = *end == ',' ? end + 1 : end;
        if (*end && *end != ',' && *end != '\n')
            return 0;
    }
    return count;
}

/* The kernel has a queue for each processor that may ever be there, plugged in or not. */
static unsigned processors_possible(void) {
    char list[256] = "";
    AUTO_CLOSE int fd = open(POSSIBLE, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && read(fd, list, sizeof list - 1) > 0 ? processors_listed(list) : 0;
}

bool rings_tried_out(void) {
    struct utsname name;
    unsigned version, patch;

    return uname(&name) == 0 && sscanf(name.release, "%u.%u", &version, &patch) == 2 &&
           (version > TRIED_VERSION || (version == TRIED_VERSION && patch >= TRIED_PATCH));
}

bool rings_possible(bool enable) {
    char state = 'N';
    unsigned processors = processors_possible();
    if (processors < 1 || processors > PROCESSORS_MAX)
        return false;
    /* The kernel sends through the rings only what fits a command of 80 bytes: SQE128, since 5.19. */
    struct io_uring ring;
    if (io_uring_queue_init(2, &ring, IORING_SETUP_SQE128) < 0)
        return false;
    io_uring_queue_exit(&ring);
    AUTO_CLOSE int fd = open(PARAMETER, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, &state, 1, 0) != 1)
        return false;
    if (state == 'Y' || !enable)
        return state == 'Y';
    AUTO_CLOSE int writing = open(PARAMETER, O_WRONLY | O_CLOEXEC);
    return writing >= 0 && pwrite(writing, "Y", 1, 0) == 1 && pread(fd, &state, 1, 0) == 1 && state == 'Y';
}

/* ---- the queue's own thread ---- */

static struct io_uring_sqe *submission(struct ring *ring) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe) { /* it is full */
        io_uring_submit(&ring->uring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    PROMISE(sqe != NULL);
    memset(sqe, 0, 128);
    return sqe;
}

static struct io_uring_sqe *command(struct ring *ring, struct ring_entry *entry, unsigned operation) {
    struct io_uring_sqe *sqe = submission(ring);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = ring->rings->front->fd;
    sqe->cmd_op = operation;
    sqe->user_data = (uint64_t)(entry - ring->entries);
    ((struct ring_command *)sqe->cmd)->queue = (uint16_t)ring->queue;
    return sqe;
}

static void ask_register(struct ring *ring, struct ring_entry *entry) {
    struct io_uring_sqe *sqe = command(ring, entry, COMMAND_REGISTER);
    sqe->addr = (uint64_t)(uintptr_t)entry->parts;
    sqe->len = 2;
}

static void ask_commit(struct ring *ring, struct ring_entry *entry) {
    struct io_uring_sqe *sqe = command(ring, entry, COMMAND_COMMIT_AND_FETCH);
    ((struct ring_command *)sqe->cmd)->commit_id = entry->header->entry.commit_id;
}

static void ask_wake(struct ring *ring) {
    struct io_uring_sqe *sqe = submission(ring);
    io_uring_prep_read(sqe, ring->wake_fd, &ring->wake_count, sizeof ring->wake_count, 0);
    sqe->user_data = WAKE_TAG;
}

static void commit_answered(struct ring *ring) {
    pthread_mutex_lock(&ring->mutex);
    struct ring_entry *entry = ring->answered;
    ring->answered = NULL;
    pthread_mutex_unlock(&ring->mutex);
    while (entry) {
        struct ring_entry *next = entry->next;
        ask_commit(ring, entry);
        entry = next;
    }
}

/* Head, operation and payload in one piece, as they come from the device. */
static void request_take(struct ring *ring, struct ring_entry *entry) {
    struct front *front = ring->rings->front;
    struct fuse_in_header head;
    memcpy(&head, entry->header->in_out, sizeof head);
    size_t payload = entry->header->entry.payload_size;
    PROMISE(head.len >= sizeof head + payload && payload <= TRANSFER_MAX);
    size_t operation = head.len - sizeof head - payload;
    PROMISE(operation <= sizeof entry->header->operation);
    uint8_t *start = entry->payload - operation - sizeof head;
    memcpy(start, &head, sizeof head);
    memcpy(start + sizeof head, entry->header->operation, operation);
    uint8_t *copy = NULL;
    if ((uintptr_t)start % 8 != 0) { /* libfuse reads structures in place */
        copy = malloc(head.len);
        PROMISE(copy != NULL);
        memcpy(copy, start, head.len);
        start = copy;
    }
    entry->unique = head.unique;
    atomic_fetch_add(&ring->held, 1);
    atomic_store(&entry->asked, true);
    /* What a READ answers can be read straight into the place where the kernel takes it. */
    ring->worker.buffer = head.opcode == FUSE_READ ? entry->payload : ring->worker.own_buffer;
    note.fd = RING_FD + (int)(ring->queue * ENTRIES_MAX + (unsigned)(entry - ring->entries));
    raw_process(front, start, head.len);
    note.fd = -1;
    free(copy);
}

/* Who waits in the mount would wait for ever. */
static void fail(struct rings *rings, int error) {
    int none = 0;

    if (!atomic_compare_exchange_strong(&rings->error, &none, error))
        return;
    log_error("the mount %s: a queue of it cannot be served: %s", rings->front->mount, strerror(-error));
    umount2(rings->front->mount, MNT_FORCE); /* ends the connection, also where it cannot unmount */
}

int rings_error(const struct rings *rings) {
    return atomic_load(&rings->error);
}

/* False if there is none left, or it was to register first. */
static bool lost(struct ring *ring, int error) {
    log_warning("a queue of the mount %s lost a place: %s", ring->rings->front->mount, strerror(-error));
    if (ring->used && ++ring->lost < ring->made)
        return true;
    fail(ring->rings, error);
    return false;
}

static int entry_create(struct ring *ring) {
    struct ring_entry *entry = &ring->entries[ring->made];
    uint8_t *memory = mmap(NULL, 2 * GUARD + TRANSFER_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    entry->ring = ring;
    entry->header = (struct ring_header *)memory;
    entry->payload = memory + 2 * GUARD;
    entry->parts[0] = (struct iovec){entry->header, sizeof *entry->header};
    entry->parts[1] = (struct iovec){entry->payload, TRANSFER_MAX};
    ring->made++;
    return 0;
}

/* More places. Without memory it goes on with those that are there. */
static void grow(struct ring *ring, unsigned count) {
    for (unsigned i = 0; i < count && ring->made < ENTRIES_MAX; i++) {
        if (entry_create(ring))
            return;
        ask_register(ring, &ring->entries[ring->made - 1]);
    }
}

static bool completions(struct ring *ring) {
    struct io_uring_cqe *cqe;
    bool ended = false;
    /* One at a time: processing may use the ring's submission side, but never waits on its completions. */
    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        uint64_t tag = cqe->user_data;
        int result = cqe->res;
        io_uring_cqe_seen(&ring->uring, cqe);
        if (tag == WAKE_TAG) {
            commit_answered(ring);
            ask_wake(ring);
        } else if (result == 0) {
            ring->used = true;
            request_take(ring, &ring->entries[tag]);
            if (ring->made < atomic_load(&ring->held) + ENTRIES_FREE)
                grow(ring, ENTRIES_STEP);
        } else if (result == -ENOTCONN || result == -ECONNABORTED || result == -ECANCELED || result == -ENODEV) {
            ended = true;
        } else if (result == -EAGAIN || result == -EINTR) {
            ask_register(ring, &ring->entries[tag]);
        } else if (!lost(ring, result)) {
            ended = true;
        }
    }
    return !ended;
}

static void serve(struct ring *ring) {
    for (unsigned i = 0; i < ring->made; i++)
        ask_register(ring, &ring->entries[i]);
    ask_wake(ring);
    do {
        int rc = io_uring_submit_and_wait(&ring->uring, 1);
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
            fail(ring->rings, rc);
            return;
        }
    } while (completions(ring));
}

static void *ring_main(void *context) {
    struct ring *ring = context;
    cpu_set_t processor;

    CPU_ZERO(&processor);
    CPU_SET(ring->queue, &processor);
    /* Of a processor that is not there: the queue is served from any other one. */
    pthread_setaffinity_np(pthread_self(), sizeof processor, &processor);
    this_ring = ring;
    this_worker = &ring->worker;
    /* Made disabled, so that this thread becomes the only submitter. */
    if (syscall(SYS_io_uring_register, ring->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
        fail(ring->rings, -errno);
    else
        serve(ring);
    pthread_mutex_lock(&ring->mutex);
    ring->ended = true;
    pthread_mutex_unlock(&ring->mutex);
    this_worker = NULL;
    this_ring = NULL;
    return NULL;
}

/* ---- answers ---- */

ssize_t ring_answer(struct rings *rings, int place, const struct iovec *parts, int count) {
    unsigned index = (unsigned)(place - RING_FD);
    PROMISE(index < rings->count * ENTRIES_MAX);
    struct ring *ring = &rings->list[index / ENTRIES_MAX];
    struct ring_entry *entry = &ring->entries[index % ENTRIES_MAX];
    struct fuse_out_header head;
    size_t length = 0;

    PROMISE(count >= 1 && parts[0].iov_len == sizeof head);
    memcpy(&head, parts[0].iov_base, sizeof head);
    /* First the number: libfuse also answers an INTERRUPT that came too early (EAGAIN) whenever the next request is
     * there, and that must not pass for the answer to the one that this place holds. */
    if (head.unique != entry->unique || !atomic_exchange(&entry->asked, false)) {
        errno = ENOENT;
        return -1;
    }
    atomic_fetch_sub(&ring->held, 1);
    for (int i = 1; i < count; i++) {
        PROMISE(length + parts[i].iov_len <= TRANSFER_MAX);
        if (parts[i].iov_base != entry->payload + length)
            memcpy(entry->payload + length, parts[i].iov_base, parts[i].iov_len);
        length += parts[i].iov_len;
    }
    memcpy(entry->header->in_out, &head, sizeof head);
    entry->header->entry.payload_size = (uint32_t)length;
    if (ring == this_ring) {
        ask_commit(ring, entry); /* goes out with the wait for the next one */
        return (ssize_t)(sizeof head + length);
    }
    pthread_mutex_lock(&ring->mutex);
    bool ended = ring->ended, first = ring->answered == NULL;
    entry->next = ring->answered;
    ring->answered = entry;
    pthread_mutex_unlock(&ring->mutex);
    if (ended) {
        errno = ENOENT;
        return -1;
    }
    uint64_t one = 1;
    if (first && write(ring->wake_fd, &one, sizeof one) != sizeof one)
        log_error("waking a queue of the mount failed: %s", strerror(errno));
    return (ssize_t)(sizeof head + length);
}

/* ---- life ---- */

static int ring_create(struct rings *rings, unsigned queue) {
    struct ring *ring = &rings->list[queue];
    ring->rings = rings;
    ring->queue = queue;
    ring->worker.front = rings->front;
    ring->wake_fd = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&ring->mutex, NULL);
    if (ring->wake_fd < 0)
        return -errno;
    ring->worker.own_buffer = aligned_alloc(BATON_BLOCK, TRANSFER_MAX);
    if (!ring->worker.own_buffer)
        return -ENOMEM;
    struct io_uring_params parameters = {.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER |
                                                  IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
                                                  IORING_SETUP_CQSIZE,
                                         .cq_entries = 2 * ENTRIES_MAX};
    int rc = io_uring_queue_init_params(2 * ENTRIES_FIRST, &ring->uring, &parameters);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; rc == 0 && i < ENTRIES_FIRST; i++)
        rc = entry_create(ring);
    return rc;
}

int rings_create(struct front *front, struct rings **out) {
    struct rings *rings = calloc(1, sizeof *rings);
    if (!rings)
        return -ENOMEM;
    unsigned count = processors_possible();
    rings->front = front;
    rings->list = calloc(count, sizeof *rings->list);
    int rc = rings->list ? 0 : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        rings->count = i + 1;
        rc = ring_create(rings, i);
    }
    if (rc) {
        rings_free(rings);
        return rc;
    }
    *out = rings;
    return 0;
}

void rings_start(struct rings *rings) {
    for (unsigned i = 0; i < rings->count; i++) {
        int rc = pthread_create(&rings->list[i].thread, NULL, ring_main, &rings->list[i]);
        if (rc) {
            fail(rings, -rc);
            return;
        }
        rings->list[i].started = true;
    }
}

void rings_stop(struct rings *rings) {
    for (unsigned i = 0; i < rings->count; i++)
        if (rings->list[i].started) {
            pthread_join(rings->list[i].thread, NULL);
            rings->list[i].started = false;
        }
}

void rings_free(struct rings *rings) {
    if (!rings)
        return;
    for (unsigned i = 0; i < rings->count; i++) {
        struct ring *ring = &rings->list[i];
        if (ring->uring.ring_fd > 0)
            io_uring_queue_exit(&ring->uring);
        for (unsigned e = 0; e < ring->made; e++)
            munmap(ring->entries[e].header, 2 * GUARD + TRANSFER_MAX);
        free(ring->worker.own_buffer);
        if (ring->wake_fd >= 0)
            close(ring->wake_fd);
        pthread_mutex_destroy(&ring->mutex);
    }
    free(rings->list);
    free(rings);
}
