/* The requests as the kernel sends them. libfuse 3.14 knows the protocol up to 7.37 and does not hand on some of its
 * flags; here they are noted for the thread, requests that it does not know are rewritten or answered, and the reply to
 * INIT gets the capabilities that it cannot ask for. */
#include "fs/front_private.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/uio.h>

#define OPCODE_TMPFILE 51
#define OPCODE_STATX 52
#define INIT_OVER_IO_URING (UINT64_C(1) << 41)

_Thread_local struct note note = {.fd = -1};
_Thread_local struct worker *this_worker;

static bool body_has(const struct fuse_in_header *head, size_t length, size_t body) {
    return length >= sizeof *head + body;
}

/* A SETXATTR with its extension: libfuse expects the shorter body of old. */
static size_t shorten_setxattr(uint8_t *request, size_t length) {
    struct fuse_in_header *head = (struct fuse_in_header *)request;
    struct fuse_setxattr_in *body = (struct fuse_setxattr_in *)(head + 1);
    size_t extension = sizeof *body - FUSE_COMPAT_SETXATTR_IN_SIZE;

    note.acl_kill_sgid = (body->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
    memmove((uint8_t *)body + FUSE_COMPAT_SETXATTR_IN_SIZE, body + 1, length - sizeof *head - sizeof *body);
    head->len -= (uint32_t)extension;
    return length - extension;
}

/* Notes what libfuse drops. Returns the length of the request that libfuse is to see. */
static size_t look_at(struct front *front, uint8_t *request, size_t length) {
    struct fuse_in_header *head = (struct fuse_in_header *)request;
    void *body = head + 1;

    atomic_fetch_add_explicit(&front->requests, 1, memory_order_relaxed);
    note.opcode = head->opcode;
    note.unique = head->unique;
    note.past_cache = note.kill_priv = note.tmpfile = note.acl_kill_sgid = false;
    switch (head->opcode) {
    case FUSE_INIT:
        if (body_has(head, length, sizeof(struct fuse_init_in)))
            front->kernel_flags = ((struct fuse_init_in *)body)->flags | (uint64_t)((struct fuse_init_in *)body)->flags2
                                                                             << 32;
        break;
    /* Only what goes past the page cache names a lock owner. O_DIRECT among the file's flags does not tell: fcntl() may
     * have changed it since the kernel took its way. */
    case FUSE_READ:
        if (body_has(head, length, sizeof(struct fuse_read_in)))
            note.past_cache = (((struct fuse_read_in *)body)->read_flags & FUSE_READ_LOCKOWNER) != 0;
        break;
    case FUSE_WRITE:
        if (body_has(head, length, sizeof(struct fuse_write_in))) {
            note.past_cache = (((struct fuse_write_in *)body)->write_flags & FUSE_WRITE_LOCKOWNER) != 0;
            note.kill_priv = (((struct fuse_write_in *)body)->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
        }
        break;
    case FUSE_OPEN:
        if (body_has(head, length, sizeof(struct fuse_open_in)))
            note.kill_priv = (((struct fuse_open_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
        break;
    case OPCODE_TMPFILE:
        /* The same request and reply as CREATE's, but for the name, which means nothing. */
        head->opcode = FUSE_CREATE;
        note.tmpfile = true;
        /* fall through */
    case FUSE_CREATE:
        if (body_has(head, length, sizeof(struct fuse_create_in)))
            note.kill_priv = (((struct fuse_create_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
        break;
    case FUSE_SETATTR:
        if (body_has(head, length, sizeof(struct fuse_setattr_in)))
            note.kill_priv = (((struct fuse_setattr_in *)body)->valid & FATTR_KILL_SUIDGID) != 0;
        break;
    case FUSE_SETXATTR:
        if ((front->kernel_flags & FUSE_SETXATTR_EXT) && body_has(head, length, sizeof(struct fuse_setxattr_in)))
            return shorten_setxattr(request, length);
        break;
    case FUSE_INTERRUPT:
        if (body_has(head, length, sizeof(struct fuse_interrupt_in)))
            front_locks_interrupted(front, ((struct fuse_interrupt_in *)body)->unique);
        break;
    default:
        break;
    }
    return length;
}

bool raw_is_statx(const void *request) {
    return ((const struct fuse_in_header *)request)->opcode == OPCODE_STATX;
}

bool raw_needs_lease(const void *request) {
    switch (((const struct fuse_in_header *)request)->opcode) {
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
    case FUSE_NOTIFY_REPLY:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return false;
    default:
        return true;
    }
}

bool raw_changes(const void *request) {
    const struct fuse_in_header *head = request;

    switch (head->opcode) {
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_CREATE:
    case FUSE_WRITE:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
        return true;
    case FUSE_SETLK:
    case FUSE_SETLKW:
        return ((const struct fuse_lk_in *)(head + 1))->lk.type != F_UNLCK;
    case FUSE_OPEN:
        return (((const struct fuse_open_in *)(head + 1))->flags & O_TRUNC) != 0;
    default:
        return false;
    }
}

static ssize_t raw_read(int fd, void *buffer, size_t room, void *userdata) {
    if (this_worker)
        fd = this_worker->fd;
    note.fd = fd;
    ssize_t length = read(fd, buffer, room);
    if (length < (ssize_t)sizeof(struct fuse_in_header))
        return length;
    return (ssize_t)look_at(userdata, buffer, (size_t)length);
}

/* Capabilities that libfuse 3.14 cannot ask for, or forgets to (PARALLEL_DIROPS). */
static void extend_init(struct front *front, struct iovec *parts, int count) {
    const uint32_t wanted = FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_PARALLEL_DIROPS;
    struct fuse_out_header *head = parts[0].iov_base;

    if (count != 2 || head->error || parts[1].iov_len < offsetof(struct fuse_init_out, flags2)) {
        front->kernel_flags = 0;
        return;
    }
    struct fuse_init_out *init = parts[1].iov_base;
    init->flags |= wanted & (uint32_t)front->kernel_flags;
    if (front->rings && (front->kernel_flags & INIT_OVER_IO_URING) && parts[1].iov_len >= sizeof *init) {
        init->flags |= FUSE_INIT_EXT;
        init->flags2 |= (uint32_t)(INIT_OVER_IO_URING >> 32);
        front->rings_agreed = true;
    }
}

static ssize_t raw_writev(int fd, struct iovec *parts, int count, void *userdata) {
    if (note.fd >= 0)
        fd = note.fd;
    if (note.opcode != FUSE_INIT)
        return raw_send(userdata, fd, parts, count);
    note.opcode = 0;
    struct front *front = userdata;
    extend_init(front, parts, count);
    ssize_t done = writev(fd, parts, count);
    /* From here on the kernel holds all requests back until every queue has registered. */
    if (done >= 0 && front->rings_agreed)
        rings_start(front->rings);
    return done;
}

/* Of a request of its own number, or an answer to an INTERRUPT (its number is odd), which only says "not yet". */
static bool tells(const struct iovec *parts) {
    struct fuse_out_header head;
    memcpy(&head, parts[0].iov_base, sizeof head);
    return head.unique != 0 && !(head.unique & 1);
}

ssize_t raw_send(struct front *front, int fd, struct iovec *parts, int count) {
    enum sends sends = note.sends;
    note.sends = SENDS_PLAIN;
    if (sends != SENDS_ALWAYS && lapse_now(front) && tells(parts))
        return lapse_keep(front, fd, sends, parts, count);
    return raw_send_now(front, fd, parts, count);
}

ssize_t raw_send_now(struct front *front, int fd, struct iovec *parts, int count) {
    return fd >= RING_FD ? ring_answer(front->rings, fd, parts, count) : writev(fd, parts, count);
}

void raw_process(struct front *front, uint8_t *request, size_t length) {
    front_process(front, request, look_at(front, request, length));
}

const struct fuse_custom_io raw_io = {.read = raw_read, .writev = raw_writev};
