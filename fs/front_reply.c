#include "fs/front_private.h"

/* On the primary every change passes through this mount, so the kernel may keep what it knows. On a standby records
 * change it from the other side: entries and attributes are asked for each time. */
#define ATTRIBUTE_TIMEOUT 86400.0

struct front *front_of(fuse_req_t request) {
    return fuse_req_userdata(request);
}

struct caller caller_of(fuse_req_t request) {
    const struct fuse_ctx *context = fuse_req_ctx(request);
    return (struct caller){
        .uid = context->uid, .gid = context->gid, .pid = (uint32_t)context->pid, .umask = context->umask};
}

double entry_timeout(struct front *front) {
    return atomic_load(&front->writable) ? front->entry_timeout : 0;
}

double attribute_timeout(struct front *front) {
    return atomic_load(&front->writable) ? ATTRIBUTE_TIMEOUT : 0;
}

void attributes_stat(const struct attributes *attributes, struct stat *to) {
    const struct inode_row *row = &attributes->row;

    *to = (struct stat){
        .st_ino = attributes->ino,
        .st_mode = row->mode,
        .st_nlink = row->nlink,
        .st_uid = row->uid,
        .st_gid = row->gid,
        .st_rdev = row->rdev,
        .st_size = (off_t)row->size,
        .st_blksize = BATON_BLOCK,
        .st_blocks = (blkcnt_t)(row->blocks * (BATON_BLOCK / 512)),
        .st_atim = {row->atime.seconds, row->atime.nanoseconds},
        .st_mtim = {row->mtime.seconds, row->mtime.nanoseconds},
        .st_ctim = {row->ctime.seconds, row->ctime.nanoseconds},
    };
}

struct reply reply_to(fuse_req_t request, enum reply_kind kind) {
    return (struct reply){.front = front_of(request), .request = request, .fd = note.fd, .kind = kind};
}

static struct fuse_entry_param entry_of(const struct reply *reply) {
    struct fuse_entry_param entry = {
        .ino = reply->attributes.ino,
        .generation = 1, /* inode numbers are never used again */
        .entry_timeout = entry_timeout(reply->front),
        .attr_timeout = attribute_timeout(reply->front),
    };
    attributes_stat(&reply->attributes, &entry.attr);
    return entry;
}

void lookup_undone(struct front *front, uint64_t ino) {
    if (nodes_forget(front->nodes, ino, 1))
        reclaim_queue(front->reclaim, ino);
}

static void send_entry(struct reply *reply) {
    struct fuse_entry_param entry = entry_of(reply);
    note.sends = SENDS_ENTRY;
    int error = reply->kind == REPLY_ENTRY ? fuse_reply_entry(reply->request, &entry)
                                           : fuse_reply_create(reply->request, &entry, &reply->file);
    note.sends = SENDS_PLAIN;
    if (error)
        lookup_undone(reply->front, reply->attributes.ino);
}

static void send_attributes(struct reply *reply) {
    struct stat attributes;
    attributes_stat(&reply->attributes, &attributes);
    fuse_reply_attr(reply->request, &attributes, attribute_timeout(reply->front));
}

void reply_now(struct reply *reply) {
    int before = note.fd;

    note.fd = reply->fd;
    switch (reply->kind) {
    case REPLY_OK:
        fuse_reply_err(reply->request, 0);
        break;
    case REPLY_ENTRY:
    case REPLY_CREATE:
        send_entry(reply);
        break;
    case REPLY_ATTRIBUTES:
        send_attributes(reply);
        break;
    case REPLY_WRITE:
        fuse_reply_write(reply->request, reply->written);
        break;
    case REPLY_OPEN:
        fuse_reply_open(reply->request, &reply->file);
        break;
    }
    note.fd = before;
}

/* The change was made, but nobody can say whether it lasts: the caller gets an error. */
static void reply_failed(struct reply *reply, int error) {
    int before = note.fd;

    if (reply->kind == REPLY_ENTRY || reply->kind == REPLY_CREATE)
        lookup_undone(reply->front, reply->attributes.ino);
    note.fd = reply->fd;
    fuse_reply_err(reply->request, -error);
    note.fd = before;
}

void reply_done(struct front *front) {
    if (atomic_fetch_sub(&front->parked, 1) == 1)
        sem_post(&front->none_parked);
}

static void acknowledged(struct parked *parked, int error) {
    struct reply *reply = (struct reply *)parked;
    struct front *front = reply->front;

    if (error)
        reply_failed(reply, error);
    else
        reply_now(reply);
    free(reply);
    reply_done(front);
}

void reply_after(struct reply *reply, enum volume_wait wait, uint64_t lsn) {
    struct volume *volume = reply->front->volume;

    if (lsn == 0 || volume_settled(volume, wait, lsn)) {
        reply_now(reply);
        return;
    }
    struct reply *later = malloc(sizeof *later);
    if (!later) {
        reply_failed(reply, -ENOMEM);
        return;
    }
    *later = *reply;
    later->parked.done = acknowledged;
    atomic_fetch_add(&reply->front->parked, 1);
    volume_wait(volume, wait, lsn, &later->parked);
}

void reply_error(fuse_req_t request, int error) {
    PROMISE(error <= 0);
    fuse_reply_err(request, -error);
}

void reply_inode_error(fuse_req_t request, int error) {
    reply_error(request, error == -ENOENT ? -ESTALE : error);
}

bool reply_refused(fuse_req_t request) {
    if (atomic_load(&front_of(request)->writable))
        return false;
    fuse_reply_err(request, EROFS);
    return true;
}

void lost_last_name(struct front *front, uint64_t ino) {
    if (nodes_orphan(front->nodes, ino))
        reclaim_queue(front->reclaim, ino);
}

void names_changed(struct front *front, uint64_t lsn) {
    uint64_t before = atomic_load(&front->names_lsn);
    while (before < lsn && !atomic_compare_exchange_weak(&front->names_lsn, &before, lsn))
        ;
}

enum volume_wait attributes_wait(fuse_req_t request, uint64_t ino) {
    return nodes_made_by(front_of(request)->nodes, ino, (uint32_t)fuse_req_ctx(request)->pid) ? WAIT_WRITE : WAIT_CHANGE;
}

void touch_atime(struct front *front, uint64_t ino, bool directory) {
    bool always = (front->mount_flags & MS_STRICTATIME) != 0;

    if ((front->mount_flags & MS_NOATIME) || (directory && (front->mount_flags & MS_NODIRATIME)))
        return;
    /* An access time that cannot be noted is no reason to fail a read. */
    if (atomic_load(&front->writable) && (nodes_first_read(front->nodes, ino) || always))
        op_touch_atime(front->store, ino, always);
}

void open_flags(struct front *front, struct fuse_file_info *file) {
    bool primary = atomic_load(&front->writable);

    file->fh = (atomic_fetch_add(&front->opens, 1) + 1) << 16 | MIN(atomic_load(&front->term), UINT16_MAX);
    file->keep_cache = primary && !(front->mount_flags & MS_STRICTATIME); /* what the cache gives is not seen here */
    /* close has to wait for what was written through this file; nobody else's close does. */
    file->noflush =
        (file->flags & O_ACCMODE) == O_RDONLY || !primary || front->volume->config.acknowledge == ACKNOWLEDGE_NEVER;
}
