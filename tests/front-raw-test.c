/* Flags of requests that libfuse 3.14 drops: set-id bits and capabilities are to go with this WRITE, OPEN, CREATE or
 * SETATTR, set-gid with this ACL. They are noted for the thread while it reads the request, and the kernel is asked for
 * them in the reply to INIT. (Through a mount most of them cannot be seen: the kernel often sends a SETATTR before.) */
#include "fs/front_private.h"
#include "tests/tap.h"

#include <linux/fuse.h>
#include <sys/uio.h>

static struct front front;
static int pipes[2];
static uint8_t seen[4096];

/* The request goes the way of one from the kernel. The length that libfuse sees. */
static size_t arrives(uint32_t opcode, const void *body, size_t length, const char *rest) {
    struct fuse_in_header head = {.len = (uint32_t)(sizeof head + length + strlen(rest) + 1), .opcode = opcode};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)(uintptr_t)body, length},
                            {(void *)(uintptr_t)rest, strlen(rest) + 1}};
    if (writev(pipes[1], parts, 3) != (ssize_t)head.len)
        bail("writev");
    ssize_t got = raw_io.read(pipes[0], seen, sizeof seen, &front);
    return got < 0 ? 0 : (size_t)got;
}

static void test_kill_priv(void) {
    struct fuse_write_in write = {.size = 1};
    struct fuse_open_in open = {.flags = 1};
    struct fuse_create_in create = {.mode = 0100644};
    struct fuse_setattr_in setattr = {.valid = FATTR_SIZE};

    for (int wanted = 1; wanted >= 0; wanted--) { /* the other way round it could be left over */
        const char *what = wanted ? "set-id bits are to go" : "they are to stay";
        write.write_flags = wanted ? FUSE_WRITE_KILL_SUIDGID : FUSE_WRITE_LOCKOWNER;
        arrives(FUSE_WRITE, &write, sizeof write, "x");
        is_int(wanted, note.kill_priv, "WRITE: %s", what);
        open.open_flags = wanted ? FUSE_OPEN_KILL_SUIDGID : 0;
        arrives(FUSE_OPEN, &open, sizeof open, "");
        is_int(wanted, note.kill_priv, "OPEN: %s", what);
        create.open_flags = open.open_flags;
        arrives(FUSE_CREATE, &create, sizeof create, "name");
        is_int(wanted, note.kill_priv, "CREATE: %s", what);
        setattr.valid = FATTR_SIZE | (wanted ? FATTR_KILL_SUIDGID : 0);
        arrives(FUSE_SETATTR, &setattr, sizeof setattr, "");
        is_int(wanted, note.kill_priv, "SETATTR: %s", what);
    }
    write.write_flags = FUSE_WRITE_KILL_SUIDGID;
    arrives(FUSE_WRITE, &write, sizeof write, "x");
    arrives(FUSE_GETATTR, &(struct fuse_getattr_in){0}, sizeof(struct fuse_getattr_in), "");
    ok(!note.kill_priv, "another request does not inherit it");
}

static void test_setxattr(void) {
    struct fuse_setxattr_in body = {.size = 3, .setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID};
    struct fuse_in_header head;

    front.kernel_flags = FUSE_SETXATTR_EXT;
    size_t length = arrives(FUSE_SETXATTR, &body, sizeof body, "name");
    ok(note.acl_kill_sgid, "SETXATTR: set-gid is to go");
    memcpy(&head, seen, sizeof head);
    is_int(sizeof head + FUSE_COMPAT_SETXATTR_IN_SIZE + 5, length, "libfuse sees the shorter request");
    is_int(length, head.len, "which says so");
    is_string("name", (char *)seen + sizeof head + FUSE_COMPAT_SETXATTR_IN_SIZE, "with what follows");
    body.setxattr_flags = 0;
    arrives(FUSE_SETXATTR, &body, sizeof body, "name");
    ok(!note.acl_kill_sgid, "SETXATTR: it is to stay");
}

static void test_init(void) {
    struct fuse_init_in in = {.major = 7, .minor = 38, .flags = FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT};
    struct fuse_init_out out = {.major = 7, .minor = 38};
    struct fuse_out_header head = {.len = sizeof head + sizeof out};
    struct iovec parts[] = {{&head, sizeof head}, {&out, sizeof out}};

    arrives(FUSE_INIT, &in, sizeof in, "");
    note.fd = pipes[1];
    is_int(sizeof head + sizeof out, raw_io.writev(pipes[1], parts, 2, &front), "INIT is answered");
    if (read(pipes[0], seen, sizeof seen) != sizeof head + sizeof out)
        bail("read");
    memcpy(&out, seen + sizeof head, sizeof out);
    ok(out.flags & FUSE_HANDLE_KILLPRIV_V2, "and asks for the flags of set-id bits");
    ok(out.flags & FUSE_SETXATTR_EXT, "and of ACLs");
    note.fd = -1;
}

int main(void) {
    plan_lazy();
    if (pipe(pipes))
        bail("pipe");
    test_kill_priv();
    test_setxattr();
    test_init();
    return 0;
}
