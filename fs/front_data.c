#include "fs/front_private.h"

void front_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    struct reply reply = reply_to(request, REPLY_OPEN);
    struct front *front = reply.front;
    uint64_t lsn = 0;
    int error = 0;

    if (file->flags & O_TRUNC) { /* FUSE_CAP_ATOMIC_O_TRUNC */
        if (reply_refused(request))
            return;
        error = op_truncate(front->store, ino, 0, note.kill_priv, &lsn);
        if (!error && lsn)
            nodes_change(front->nodes, ino, lsn);
    } else if (!atomic_load(&front->writable)) {
        /* The primary may have reclaimed it since it was looked up here. */
        struct attributes attributes;
        if ((file->flags & O_ACCMODE) != O_RDONLY) {
            reply_error(request, -EROFS);
            return;
        }
        error = op_getattr(front->store, ino, &attributes);
    }
    if (error) {
        reply_inode_error(request, error);
        return;
    }
    reply.file = *file;
    open_flags(front, &reply.file);
    reply_after(&reply, WAIT_CHANGE, lsn);
}

void front_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    front_locks_released(front_of(request), ino, file->fh);
    note.sends = SENDS_ALWAYS;
    fuse_reply_err(request, 0);
    note.sends = SENDS_PLAIN;
}

void front_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    struct front *front = front_of(request);
    uint8_t *buffer = this_worker->buffer;

    if (offset < 0) {
        reply_error(request, -EINVAL);
        return;
    }
    if (!note.past_cache)
        nodes_cached(front->nodes, ino); /* before it is read: see direct_written */
    ssize_t length = op_read(front->store, ino, buffer, MIN(size, TRANSFER_MAX), (uint64_t)offset);
    if (length < 0) {
        reply_inode_error(request, (int)length);
        return;
    }
    if (!(file->flags & O_NOATIME))
        touch_atime(front, ino, false);
    fuse_reply_buf(request, (const char *)buffer, (size_t)length);
}

/* A write that went past the kernel's page cache: what that holds of the range is old. The kernel drops it before the
 * write only, so a read in between may have brought it back. It is dropped once more before the answer, by the
 * notifier, because a worker that waited for a page whose READ is to be answered might be the last one. */
struct direct_write {
    struct told told;
    struct reply reply;
    uint64_t lsn;
};

static void direct_dropped(struct told *told) {
    struct direct_write *write = (struct direct_write *)told;
    reply_after(&write->reply, WAIT_WRITE, write->lsn);
    free(write);
}

static void direct_written(const struct reply *reply, uint64_t ino, uint64_t offset, uint64_t lsn) {
    struct direct_write *write = malloc(sizeof *write);

    if (!write) {
        reply_error(reply->request, -ENOMEM);
        return;
    }
    *write = (struct direct_write){.told.done = direct_dropped, .reply = *reply, .lsn = lsn};
    notify_data_then(reply->front->notify, ino, offset, reply->written, &write->told);
}

void front_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
                 struct fuse_file_info *file) {
    struct reply reply = reply_to(request, REPLY_WRITE);
    bool from_cache = file->writepage; /* its place was settled when the page became dirty */
    unsigned flags =
        (note.kill_priv ? WRITE_KILL_PRIV : 0) | (!from_cache && (file->flags & O_APPEND) ? WRITE_APPEND : 0);
    uint64_t lsn = 0;

    if (reply_refused(request))
        return;
    if (offset < 0) {
        reply_error(request, -EINVAL);
        return;
    }
    int error = op_write(reply.front->store, ino, bytes, size, (uint64_t)offset, flags, &lsn);
    if (error) {
        reply_inode_error(request, error);
        return;
    }
    if (lsn)
        nodes_change(reply.front->nodes, ino, lsn);
    if (!note.past_cache)
        nodes_cached(reply.front->nodes, ino);
    reply.written = size;
    if (from_cache) /* never parked: a few of them would stop all reading through the page cache */
        reply_now(&reply);
    else if (note.past_cache && nodes_is_cached(reply.front->nodes, ino))
        direct_written(&reply, ino, (uint64_t)offset, lsn);
    else
        reply_after(&reply, WAIT_WRITE, lsn);
}

void front_flush(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    struct reply reply = reply_to(request, REPLY_OK);

    nodes_closed(reply.front->nodes, ino);
    front_locks_flushed(reply.front, ino, file->lock_owner);
    if (nodes_doubtful(reply.front->nodes, ino, opened_in(file->fh), false))
        reply_error(request, -EIO);
    else if (atomic_load(&reply.front->writable))
        reply_after(&reply, WAIT_CLOSE, nodes_changed(reply.front->nodes, ino));
    else
        reply_now(&reply);
}

void fsync_opened(fuse_req_t request, uint64_t ino, bool data_only, uint64_t term) {
    struct reply reply = reply_to(request, REPLY_OK);
    struct front *front = reply.front;
    uint64_t lsn = nodes_changed(front->nodes, ino);
    bool doubtful = nodes_doubtful(front->nodes, ino, term, true);

    if (!data_only) {
        lsn = MAX(lsn, atomic_load(&front->names_lsn));
        doubtful = doubtful || atomic_load(&front->names_doubt) >= MAX(term, 1);
    }
    if (doubtful)
        reply_error(request, -EIO);
    else if (atomic_load(&front->writable))
        reply_after(&reply, WAIT_FSYNC, lsn);
    else
        reply_now(&reply);
}

void front_fsync(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file) {
    fsync_opened(request, ino, data_only != 0, opened_in(file->fh));
}

void front_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
                     struct fuse_file_info *file) {
    struct reply reply = reply_to(request, REPLY_OK);
    uint64_t lsn = 0;

    (void)file;
    if (reply_refused(request))
        return;
    if (offset < 0 || length <= 0) {
        reply_error(request, -EINVAL);
        return;
    }
    int error = op_fallocate(reply.front->store, ino, mode, (uint64_t)offset, (uint64_t)length, &lsn);
    if (error) {
        reply_inode_error(request, error);
        return;
    }
    if (lsn)
        nodes_change(reply.front->nodes, ino, lsn);
    reply_after(&reply, WAIT_WRITE, lsn);
}

void front_lseek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *file) {
    (void)file;
    if (offset < 0) {
        reply_error(request, -ENXIO);
        return;
    }
    int64_t found = op_seek(front_of(request)->store, ino, (uint64_t)offset, whence);
    if (found < 0)
        reply_inode_error(request, (int)found);
    else
        fuse_reply_lseek(request, found);
}

void front_copy(fuse_req_t request, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_file, fuse_ino_t to,
                off_t to_offset, struct fuse_file_info *to_file, size_t length, int flags) {
    struct reply reply = reply_to(request, REPLY_WRITE);
    uint64_t lsn = 0;

    (void)from_file;
    (void)to_file;
    if (reply_refused(request))
        return;
    if (from_offset < 0 || to_offset < 0 || flags) {
        reply_error(request, -EINVAL);
        return;
    }
    /* The reply has 32 bits for the length; callers ask again for the rest. */
    length = MIN(length, (size_t)1 << 30);
    int64_t copied = op_copy(reply.front->store, from, (uint64_t)from_offset, to, (uint64_t)to_offset, length, &lsn);
    if (copied < 0) {
        reply_inode_error(request, (int)copied);
        return;
    }
    if (lsn)
        nodes_change(reply.front->nodes, to, lsn);
    reply.written = (size_t)copied;
    reply_after(&reply, WAIT_WRITE, lsn);
}
