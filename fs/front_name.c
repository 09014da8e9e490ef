#include "fs/front_private.h"

#include <stdio.h>
#include <sys/stat.h>

/* Entries that are gone, and a number that this process never saw, come from file handles: ESTALE. An orphan that
 * nobody uses is as good as gone, but for the grace time in which a client of the primary before may come back. */
static int lookup_handle(struct front *front, uint64_t ino, struct attributes *found) {
    int error = op_getattr(front->store, ino, found);

    if (!error && found->row.nlink == 0 && atomic_load(&front->writable) && reclaim_grace_over(front->reclaim) &&
        !nodes_known(front->nodes, ino))
        error = -ESTALE;
    return error == -ENOENT ? -ESTALE : error;
}

/* The inode of an entry is known to the kernel from the reply on. */
static void reply_entry(struct reply *reply, enum volume_wait wait, uint64_t lsn) {
    int error = nodes_look(reply->front->nodes, reply->attributes.ino);
    if (error)
        reply_error(reply->request, error);
    else
        reply_after(reply, wait, lsn);
}

static bool too_long(fuse_req_t request, const char *name) {
    if (strnlen(name, BATON_NAME_MAX + 1) <= BATON_NAME_MAX)
        return false;
    reply_error(request, -ENAMETOOLONG);
    return true;
}

void front_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct front *front = front_of(request);
    struct reply reply = reply_to(request, REPLY_ENTRY);
    int error;

    if (too_long(request, name))
        return;
    if (strcmp(name, ".") == 0) {
        error = lookup_handle(front, parent, &reply.attributes);
    } else if (strcmp(name, "..") == 0) {
        error = op_lookup_parent(front->store, parent, &reply.attributes);
        if (error == -ENOENT)
            error = -ESTALE;
    } else {
        error = op_lookup(front->store, parent, name, &reply.attributes);
    }
    if (error == -ENOENT && entry_timeout(front) > 0) {
        /* The kernel may remember that there is none. */
        struct fuse_entry_param none = {.entry_timeout = entry_timeout(front)};
        fuse_reply_entry(request, &none);
    } else if (error) {
        reply_error(request, error);
    } else {
        reply_entry(&reply, WAIT_CHANGE, 0);
    }
}

void front_forget(fuse_req_t request, fuse_ino_t ino, uint64_t count) {
    struct front *front = front_of(request);

    if (nodes_forget(front->nodes, ino, count))
        reclaim_queue(front->reclaim, ino);
    fuse_reply_none(request);
}

void front_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *list) {
    struct front *front = front_of(request);

    for (size_t i = 0; i < count; i++)
        if (nodes_forget(front->nodes, list[i].ino, list[i].nlookup))
            reclaim_queue(front->reclaim, list[i].ino);
    fuse_reply_none(request);
}

/* A new name in `parent` for reply->attributes. close_waits: it is open, and its close will be a request. */
static void reply_new(struct reply *reply, uint64_t parent, uint64_t lsn, bool close_waits) {
    struct front *front = reply->front;

    nodes_change(front->nodes, parent, lsn);
    names_changed(front, lsn);
    int error = nodes_look(front->nodes, reply->attributes.ino);
    if (error) {
        reply_error(reply->request, error);
        return;
    }
    nodes_change(front->nodes, reply->attributes.ino, lsn);
    if (close_waits)
        nodes_made(front->nodes, reply->attributes.ino, (uint32_t)fuse_req_ctx(reply->request)->pid);
    reply_after(reply, WAIT_CHANGE, lsn);
}

/* CREATE of a name that has come into being since the kernel looked: open what it names. */
static void open_existing(struct reply *reply, uint64_t parent, const char *name) {
    struct front *front = reply->front;
    uint64_t lsn = 0;
    int error = op_lookup(front->store, parent, name, &reply->attributes);

    if (!error && !S_ISREG(reply->attributes.row.mode))
        error = -ESTALE; /* the kernel looks again, and finds what it is */
    if (!error && (reply->file.flags & O_TRUNC)) {
        error = op_truncate(front->store, reply->attributes.ino, 0, note.kill_priv, &lsn);
        if (!error)
            nodes_change(front->nodes, reply->attributes.ino, lsn);
        if (!error)
            error = op_getattr(front->store, reply->attributes.ino, &reply->attributes);
    }
    if (error)
        reply_error(reply->request, error);
    else
        reply_entry(reply, WAIT_CHANGE, lsn);
}

static void create_tmpfile(struct reply *reply, const struct caller *caller, uint64_t parent, uint32_t mode) {
    struct front *front = reply->front;
    uint64_t lsn = 0;
    int error = op_tmpfile(front->store, caller, parent, mode, &reply->attributes, &lsn);

    if (!error)
        error = nodes_look(front->nodes, reply->attributes.ino);
    if (error) {
        reply_error(reply->request, error);
        return;
    }
    nodes_orphan(front->nodes, reply->attributes.ino);
    nodes_change(front->nodes, reply->attributes.ino, lsn);
    reply_after(reply, WAIT_CHANGE, lsn);
}

void front_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file) {
    struct caller caller = caller_of(request);
    struct reply reply = reply_to(request, REPLY_CREATE);
    uint64_t lsn = 0;

    if (reply_refused(request))
        return;
    open_flags(reply.front, file);
    reply.file = *file;
    mode = (mode & 07777) | S_IFREG;
    if (note.tmpfile) {
        create_tmpfile(&reply, &caller, parent, mode);
        return;
    }
    if (too_long(request, name))
        return;
    int error = op_create(reply.front->store, &caller, parent, name, mode, 0, NULL, &reply.attributes, &lsn);
    if (error == -EEXIST && !(file->flags & O_EXCL))
        open_existing(&reply, parent, name);
    else if (error)
        reply_error(request, error);
    else
        reply_new(&reply, parent, lsn, !file->noflush);
}

static void make(fuse_req_t request, uint64_t parent, const char *name, uint32_t mode, uint64_t rdev,
                 const char *target) {
    struct caller caller = caller_of(request);
    struct reply reply = reply_to(request, REPLY_ENTRY);
    uint64_t lsn = 0;

    if (reply_refused(request) || too_long(request, name))
        return;
    int error = op_create(reply.front->store, &caller, parent, name, mode, rdev, target, &reply.attributes, &lsn);
    if (error)
        reply_error(request, error);
    else
        reply_new(&reply, parent, lsn, false);
}

void front_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev) {
    make(request, parent, name, mode, rdev, NULL);
}

void front_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    make(request, parent, name, (mode & 07777) | S_IFDIR, 0, NULL);
}

void front_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name) {
    make(request, parent, name, S_IFLNK | 0777, 0, target);
}

void front_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char *name) {
    struct reply reply = reply_to(request, REPLY_ENTRY);
    uint64_t lsn = 0;

    if (reply_refused(request) || too_long(request, name))
        return;
    int error = op_link(reply.front->store, ino, parent, name, &reply.attributes, &lsn);
    if (error) {
        reply_error(request, error);
        return;
    }
    nodes_adopt(reply.front->nodes, ino);
    reply_new(&reply, parent, lsn, false);
}

static void reply_removed(fuse_req_t request, uint64_t parent, uint64_t ino, bool last, uint64_t lsn) {
    struct reply reply = reply_to(request, REPLY_OK);

    nodes_change(reply.front->nodes, parent, lsn);
    nodes_change(reply.front->nodes, ino, lsn);
    names_changed(reply.front, lsn);
    if (last)
        lost_last_name(reply.front, ino);
    reply_after(&reply, WAIT_CHANGE, lsn);
}

void front_unlink(fuse_req_t request, fuse_ino_t parent, const char *name) {
    uint64_t ino = 0, lsn = 0;
    uint32_t left = 0;

    if (reply_refused(request) || too_long(request, name))
        return;
    int error = op_unlink(front_of(request)->store, parent, name, &ino, &left, &lsn);
    if (error)
        reply_error(request, error);
    else
        reply_removed(request, parent, ino, left == 0, lsn);
}

void front_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name) {
    uint64_t ino = 0, lsn = 0;

    if (reply_refused(request) || too_long(request, name))
        return;
    int error = op_rmdir(front_of(request)->store, parent, name, &ino, &lsn);
    if (error)
        reply_error(request, error);
    else
        reply_removed(request, parent, ino, true, lsn);
}

void front_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                  unsigned flags) {
    struct front *front = front_of(request);
    struct caller caller = caller_of(request);
    struct reply reply = reply_to(request, REPLY_OK);
    uint64_t victim = 0, lsn = 0;
    uint32_t left = 1;

    if (reply_refused(request) || too_long(request, name) || too_long(request, new_name))
        return;
    int error = op_rename(front->store, &caller, parent, name, new_parent, new_name, flags, &victim, &left, &lsn);
    if (error) {
        reply_error(request, error);
        return;
    }
    if (lsn) {
        nodes_change(front->nodes, parent, lsn);
        nodes_change(front->nodes, new_parent, lsn);
        names_changed(front, lsn);
    }
    if (victim && !(flags & RENAME_EXCHANGE)) {
        nodes_change(front->nodes, victim, lsn);
        if (left == 0)
            lost_last_name(front, victim);
    }
    reply_after(&reply, WAIT_CHANGE, lsn);
}

void front_readlink(fuse_req_t request, fuse_ino_t ino) {
    struct front *front = front_of(request);
    char target[BATON_SYMLINK_MAX + 1];
    int length = op_readlink(front->store, ino, target, sizeof target);

    if (length < 0) {
        reply_inode_error(request, length);
        return;
    }
    touch_atime(front, ino, false);
    fuse_reply_buf(request, target, (size_t)length);
}
