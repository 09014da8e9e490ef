#include "fs/front_private.h"

#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

void front_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    struct reply reply = reply_to(request, REPLY_ATTRIBUTES);

    (void)file;
    int error = op_getattr(reply.front->store, ino, &reply.attributes);
    if (error)
        reply_inode_error(request, error);
    else
        reply_now(&reply);
}

static struct set_attributes wanted(const struct stat *to, int mask) {
    struct set_attributes set = {
        .mode = to->st_mode & 07777,
        .uid = to->st_uid,
        .gid = to->st_gid,
        .size = (uint64_t)to->st_size,
        .atime = {to->st_atim.tv_sec, (uint32_t)to->st_atim.tv_nsec},
        .mtime = {to->st_mtim.tv_sec, (uint32_t)to->st_mtim.tv_nsec},
        .atime_now = (mask & FUSE_SET_ATTR_ATIME_NOW) != 0,
        .mtime_now = (mask & FUSE_SET_ATTR_MTIME_NOW) != 0,
    };
    set.mask = (mask & FUSE_SET_ATTR_MODE ? SET_MODE : 0) | (mask & FUSE_SET_ATTR_UID ? SET_UID : 0) |
               (mask & FUSE_SET_ATTR_GID ? SET_GID : 0) | (mask & FUSE_SET_ATTR_SIZE ? SET_SIZE : 0) |
               (mask & FUSE_SET_ATTR_ATIME ? SET_ATIME : 0) | (mask & FUSE_SET_ATTR_MTIME ? SET_MTIME : 0) |
               (note.kill_priv ? SET_KILL_PRIV : 0);
    return set;
}

/* Before a fallocate by one who may not keep set-id bits the kernel sends a change that sets nothing, and leaves it to
 * us that set-gid without group execution goes too if the caller is not in the group. */
static bool outside_group(fuse_req_t request, const struct caller *caller, uint64_t ino) {
    struct attributes attributes;
    gid_t groups[256];

    if (caller->uid == 0 || op_getattr(front_of(request)->store, ino, &attributes) != 0 ||
        !S_ISREG(attributes.row.mode) || (attributes.row.mode & (S_ISGID | S_IXGRP)) != S_ISGID ||
        attributes.row.gid == caller->gid)
        return false;
    int count = fuse_req_getgroups(request, (int)(sizeof groups / sizeof *groups), groups);
    for (int i = 0; i < MIN(count, (int)(sizeof groups / sizeof *groups)); i++)
        if (groups[i] == attributes.row.gid)
            return false;
    return true;
}

void front_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *to, int mask, struct fuse_file_info *file) {
    struct reply reply = reply_to(request, REPLY_ATTRIBUTES);
    struct set_attributes set = wanted(to, mask);
    struct caller caller = caller_of(request);
    uint64_t lsn = 0;

    (void)file;
    if (reply_refused(request))
        return;
    if ((set.mask & SET_SIZE) && to->st_size < 0) {
        reply_error(request, -EFBIG);
        return;
    }
    if (set.mask == 0 && outside_group(request, &caller, ino))
        set.mask = SET_KILL_SGID;
    int error = op_setattr(reply.front->store, &caller, ino, &set, &reply.attributes, &lsn);
    if (error) {
        reply_inode_error(request, error);
        return;
    }
    if (lsn)
        nodes_change(reply.front->nodes, ino, lsn);
    reply_after(&reply, attributes_wait(request, ino), (set.mask & ~SET_KILL_PRIV) == SET_ATIME ? 0 : lsn);
}

void front_statfs(fuse_req_t request, fuse_ino_t ino) {
    struct front *front = front_of(request);
    struct store_space space;
    int error = store_space(front->store, &space);

    (void)ino;
    if (error) {
        reply_error(request, error);
        return;
    }
    /* Inodes have no limit of their own: each takes about this much of LMDB's file. */
    const uint64_t inode_bytes = 512;
    struct statvfs to = {
        .f_bsize = BATON_BLOCK,
        .f_frsize = BATON_BLOCK,
        .f_blocks = space.total / BATON_BLOCK,
        .f_bfree = space.free / BATON_BLOCK,
        .f_bavail = space.free / BATON_BLOCK,
        .f_files = space.inodes + space.free / inode_bytes,
        .f_ffree = space.free / inode_bytes,
        .f_favail = space.free / inode_bytes,
        .f_namemax = BATON_NAME_MAX,
    };
    fuse_reply_statfs(request, &to);
}

/* STATX came with protocol 7.39; libfuse 3.14's headers end before it. */
struct sx_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};
struct sx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec;
    uint32_t flags;
    uint64_t spare[2];
    struct {
        uint32_t mask;
        uint32_t blksize;
        uint64_t attributes;
        uint32_t nlink;
        uint32_t uid;
        uint32_t gid;
        uint16_t mode;
        uint16_t spare0;
        uint64_t ino;
        uint64_t size;
        uint64_t blocks;
        uint64_t attributes_mask;
        struct sx_time atime, btime, ctime, mtime;
        uint32_t rdev_major;
        uint32_t rdev_minor;
        uint32_t dev_major;
        uint32_t dev_minor;
        uint64_t spare2[14];
    } stat;
};
_Static_assert(sizeof(struct sx_out) == 32 + 256, "as in the kernel's fuse.h");

static struct sx_time sx_time_of(struct file_time time) {
    return (struct sx_time){.seconds = time.seconds, .nanoseconds = time.nanoseconds};
}

int front_statx(struct front *front, uint64_t ino, uint64_t unique, int fd) {
    struct attributes attributes;
    struct sx_out out = {0};
    struct {
        uint32_t length;
        int32_t error;
        uint64_t unique;
    } head = {.length = sizeof head, .unique = unique};
    struct iovec parts[] = {{&head, sizeof head}, {&out, sizeof out}};

    int error = op_getattr(front->store, ino, &attributes);
    if (!error) {
        const struct inode_row *row = &attributes.row;
        out.attr_valid = (uint64_t)attribute_timeout(front);
        out.stat.mask = STATX_BASIC_STATS | STATX_BTIME;
        out.stat.blksize = BATON_BLOCK;
        out.stat.nlink = row->nlink;
        out.stat.uid = row->uid;
        out.stat.gid = row->gid;
        out.stat.mode = (uint16_t)row->mode;
        out.stat.ino = ino;
        out.stat.size = row->size;
        out.stat.blocks = row->blocks * (BATON_BLOCK / 512);
        out.stat.atime = sx_time_of(row->atime);
        out.stat.btime = sx_time_of(row->btime);
        out.stat.ctime = sx_time_of(row->ctime);
        out.stat.mtime = sx_time_of(row->mtime);
        out.stat.rdev_major = major(row->rdev);
        out.stat.rdev_minor = minor(row->rdev);
        head.length += (uint32_t)sizeof out;
    } else {
        head.error = error == -ENOENT ? -ESTALE : error;
    }
    return raw_send(front, fd, parts, error ? 1 : 2) < 0 ? -errno : 0;
}
