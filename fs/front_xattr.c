#include "fs/front_private.h"

void front_setxattr(fuse_req_t request, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags) {
    struct reply reply = reply_to(request, REPLY_OK);
    struct caller caller = caller_of(request);
    uint64_t lsn = 0;

    if (reply_refused(request))
        return;
    if (size > BATON_XATTR_VALUE_MAX) {
        reply_error(request, -E2BIG);
        return;
    }
    int error = op_setxattr(reply.front->store, &caller, ino, name, value, size, flags, note.acl_kill_sgid, &lsn);
    if (error) {
        reply_inode_error(request, error);
        return;
    }
    if (lsn)
        nodes_change(reply.front->nodes, ino, lsn);
    reply_after(&reply, attributes_wait(request, ino), lsn);
}

/* Both kinds of question: how long (room 0), and what. */
static void reply_value(fuse_req_t request, int length, const void *value, size_t room) {
    if (length < 0)
        reply_inode_error(request, length);
    else if (room == 0)
        fuse_reply_xattr(request, (size_t)length);
    else
        fuse_reply_buf(request, value, (size_t)length);
}

void front_getxattr(fuse_req_t request, fuse_ino_t ino, const char *name, size_t room) {
    uint8_t *value = this_worker->buffer;

    room = MIN(room, TRANSFER_MAX);
    reply_value(request, op_getxattr(front_of(request)->store, ino, name, value, room), value, room);
}

void front_listxattr(fuse_req_t request, fuse_ino_t ino, size_t room) {
    uint8_t *value = this_worker->buffer;
    bool trusted = fuse_req_ctx(request)->uid == 0; /* the kernel does not filter the list */

    room = MIN(room, TRANSFER_MAX);
    reply_value(request, op_listxattr(front_of(request)->store, ino, trusted, value, room), value, room);
}

void front_removexattr(fuse_req_t request, fuse_ino_t ino, const char *name) {
    struct reply reply = reply_to(request, REPLY_OK);
    uint64_t lsn = 0;

    if (reply_refused(request))
        return;
    int error = op_removexattr(reply.front->store, ino, name, &lsn);
    if (error) {
        reply_inode_error(request, error);
        return;
    }
    if (lsn)
        nodes_change(reply.front->nodes, ino, lsn);
    reply_after(&reply, attributes_wait(request, ino), lsn);
}
