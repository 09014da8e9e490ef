/* An NFSv3 client for tests: keeps file handles, a write verifier and a directory cookie over connections that break,
 * as a kernel's client does. Commands come on standard input, a line each; each is answered by a line "ok …" or "failed
 * …".
 *
 *   mount PATH       the export's handle, by rpcbind and mountd
 *   create NAME      in the export; its handle is kept as the file's
 *   lookup NAME      the same for one that is there
 *   handle           the file's handle in hex
 *   write TEXT       unstable, at the end of what was written; "again" instead of "ok" if the verifier has changed
 *   commit           "again" instead of "ok" if the verifier is not that of the writes
 *   read             the file's content
 *   getattr          of the file: its size and inode number
 *   list COUNT       the next entries of the export (so many bytes of answer), from where the last one ended; "end" at
 * the end null             asks nothing
 */
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nfsc/libnfs.h> // the others need it before them

#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw-nlm.h>
#include <nfsc/libnfs-raw.h>

enum { LINE = 4096, PATIENCE_MS = 60000 };

static struct {
    const char *server;
    struct rpc_context *rpc;
    char export_handle[FHSIZE3], file_handle[NFS3_FHSIZE];
    unsigned export_length, file_length;
    uint64_t size, cookie;
    writeverf3 verifier;
    cookieverf3 cookie_verifier;
    bool have_verifier;
} client;

/* One answer: filled in by the callback, which also copies what is wanted, because it is freed afterwards. */
struct answer {
    bool done;
    int status; // RPC_STATUS_…
    int error;  // NFS3ERR_…
    char text[LINE];
};

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool serve_until(struct answer *answer, int64_t deadline) {
    while (!answer->done) {
        int64_t left = deadline - now_ms();
        struct pollfd wait = {.fd = rpc_get_fd(client.rpc), .events = (short)rpc_which_events(client.rpc)};
        if (left <= 0)
            return false;
        if (poll(&wait, 1, (int)(left < 100 ? left : 100)) < 0 || rpc_service(client.rpc, wait.revents) < 0)
            return false;
    }
    return answer->status == RPC_STATUS_SUCCESS;
}

static void connected(struct rpc_context *rpc, int status, void *data, void *private) {
    struct answer *answer = private;
    (void)rpc, (void)data;
    answer->done = true, answer->status = status;
}

static void leave(void) {
    if (client.rpc)
        rpc_destroy_context(client.rpc);
    client.rpc = NULL;
}

static bool reach(int program, int version, int64_t deadline) {
    struct answer answer = {0};
    leave();
    client.rpc = rpc_init_context();
    int failed = program == NFS_PROGRAM
                     ? rpc_connect_port_async(client.rpc, client.server, 2049, program, version, connected, &answer)
                     : rpc_connect_program_async(client.rpc, client.server, program, version, connected, &answer);
    if (failed == 0 && serve_until(&answer, deadline))
        return true;
    leave();
    return false;
}

/* Sends it, again on a new connection whenever one breaks, until it is answered. */
static bool ask(int (*send)(struct answer *), struct answer *answer) {
    int64_t deadline = now_ms() + PATIENCE_MS;
    while (now_ms() < deadline) {
        *answer = (struct answer){0};
        if (!client.rpc && !reach(NFS_PROGRAM, NFS_V3, now_ms() + 1000)) {
            poll(NULL, 0, 20);
            continue;
        }
        if (send(answer) == 0 && serve_until(answer, now_ms() + 20000))
            return answer->error == 0;
        leave();
    }
    answer->error = -1;
    return false;
}

static struct answer *arrived(int status, void *data, void *private) {
    struct answer *answer = private;
    answer->done = true, answer->status = status;
    if (status == RPC_STATUS_SUCCESS)
        answer->error = *(int *)data; // every result begins with its status
    return status == RPC_STATUS_SUCCESS && answer->error == 0 ? answer : NULL;
}
#define CALLBACK(name) static void name(struct rpc_context *rpc, int status, void *data, void *private)
static nfs_fh3 file(void) {
    return (nfs_fh3){{client.file_length, client.file_handle}};
}
static nfs_fh3 export(void) {
    return (nfs_fh3){{client.export_length, client.export_handle}};
}

static void keep(const nfs_fh3 *handle) {
    client.file_length = handle->data.data_len;
    memcpy(client.file_handle, handle->data.data_val, client.file_length);
    client.size = 0;
}

CALLBACK(mounted) {
    (void)rpc;
    if (!arrived(status, data, private))
        return;
    fhandle3 *handle = &((mountres3 *)data)->mountres3_u.mountinfo.fhandle;
    client.export_length = handle->fhandle3_len;
    memcpy(client.export_handle, handle->fhandle3_val, client.export_length);
}
CALLBACK(created) {
    (void)rpc;
    if (arrived(status, data, private))
        keep(&((CREATE3res *)data)->CREATE3res_u.resok.obj.post_op_fh3_u.handle);
}
CALLBACK(found) {
    (void)rpc;
    if (arrived(status, data, private))
        keep(&((LOOKUP3res *)data)->LOOKUP3res_u.resok.object);
}
static void verify(struct answer *answer, const char *verifier) {
    bool again = client.have_verifier && memcmp(verifier, client.verifier, sizeof(writeverf3)) != 0;
    memcpy(client.verifier, verifier, sizeof(writeverf3));
    client.have_verifier = true;
    strcpy(answer->text, again ? "again" : "");
}
CALLBACK(written) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (!answer)
        return;
    client.size += ((WRITE3res *)data)->WRITE3res_u.resok.count;
    verify(answer, ((WRITE3res *)data)->WRITE3res_u.resok.verf);
}
CALLBACK(committed) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (answer)
        verify(answer, ((COMMIT3res *)data)->COMMIT3res_u.resok.verf);
}
CALLBACK(contents) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (!answer)
        return;
    READ3resok *result = &((READ3res *)data)->READ3res_u.resok;
    snprintf(answer->text, LINE, "%.*s", (int)result->data.data_len, result->data.data_val);
}
CALLBACK(attributes) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (!answer)
        return;
    fattr3 *a = &((GETATTR3res *)data)->GETATTR3res_u.resok.obj_attributes;
    snprintf(answer->text, LINE, "%" PRIu64 " %" PRIu64, a->size, a->fileid);
}
CALLBACK(listed) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (!answer)
        return;
    READDIR3resok *result = &((READDIR3res *)data)->READDIR3res_u.resok;
    size_t used = 0;
    for (entry3 *e = result->reply.entries; e; e = e->nextentry) {
        used += (size_t)snprintf(answer->text + used, LINE - used, "%s ", e->name);
        client.cookie = e->cookie;
        if (used > LINE / 2)
            break;
    }
    memcpy(client.cookie_verifier, result->cookieverf, sizeof(cookieverf3));
    if (result->reply.eof)
        snprintf(answer->text + used, LINE - used, "end");
}

static char *argument;
static int send_create(struct answer *a) {
    CREATE3args args = {.where = {export(), argument}, .how = {.mode = UNCHECKED}};
    args.how.createhow3_u.obj_attributes.mode = (set_mode3){.set_it = 1, .set_mode3_u.mode = 0644};
    return rpc_nfs3_create_async(client.rpc, created, &args, a);
}
static int send_lookup(struct answer *a) {
    LOOKUP3args args = {.what = {export(), argument}};
    return rpc_nfs3_lookup_async(client.rpc, found, &args, a);
}
static int send_write(struct answer *a) {
    unsigned length = (unsigned)strlen(argument);
    WRITE3args args = {file(), client.size, length, UNSTABLE, {length, argument}};
    return rpc_nfs3_write_async(client.rpc, written, &args, a);
}
static int send_commit(struct answer *a) {
    COMMIT3args args = {file(), 0, 0};
    return rpc_nfs3_commit_async(client.rpc, committed, &args, a);
}
static int send_read(struct answer *a) {
    READ3args args = {file(), 0, LINE - 1};
    return rpc_nfs3_read_async(client.rpc, contents, &args, a);
}
static int send_getattr(struct answer *a) {
    GETATTR3args args = {file()};
    return rpc_nfs3_getattr_async(client.rpc, attributes, &args, a);
}
static int send_list(struct answer *a) {
    READDIR3args args = {.dir = export(), .cookie = client.cookie, .count = (count3)atoi(argument)};
    memcpy(args.cookieverf, client.cookie_verifier, sizeof(cookieverf3));
    return rpc_nfs3_readdir_async(client.rpc, listed, &args, a);
}
static void emptied(struct rpc_context *rpc, int status, void *data, void *private) {
    connected(rpc, status, data, private);
}
static int send_null(struct answer *a) {
    return rpc_nfs3_null_async(client.rpc, emptied, a);
}

static bool mount_export(struct answer *answer) {
    int64_t deadline = now_ms() + 10000;
    bool right = reach(MOUNT_PROGRAM, MOUNT_V3, deadline) &&
                 rpc_mount3_mnt_async(client.rpc, mounted, argument, answer) == 0 && serve_until(answer, deadline) &&
                 answer->error == 0;
    leave();
    return right;
}

CALLBACK(decided) {
    struct answer *answer = private;
    (void)rpc;
    answer->done = true, answer->status = status;
    if (status == RPC_STATUS_SUCCESS)
        answer->error = (int)((NLM4_LOCKres *)data)->status;
}
static bool lock_file(struct answer *answer, bool reclaim) {
    int64_t deadline = now_ms() + 10000;
    NLM4_LOCKargs args = {
        .cookie = {{4, "1234"}},
        .exclusive = 1,
        .lock = {.caller_name = "client", .fh = {{client.file_length, client.file_handle}}, .oh = argument},
        .reclaim = reclaim,
        .state = 1};
    args.lock.svid = (u_int)atoi(argument);
    bool right = reach(NLM_PROGRAM, NLM_V4, deadline) && rpc_nlm4_lock_async(client.rpc, decided, &args, answer) == 0 &&
                 serve_until(answer, deadline) && answer->error == 0;
    leave();
    return right;
}

static bool hex(struct answer *answer) {
    for (unsigned i = 0; i < client.file_length; i++)
        sprintf(answer->text + 2 * i, "%02x", (unsigned char)client.file_handle[i]);
    return true;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*send)(struct answer *);
    } commands[] = {{"create", send_create}, {"lookup", send_lookup},   {"write", send_write}, {"commit", send_commit},
                    {"read", send_read},     {"getattr", send_getattr}, {"list", send_list},   {"null", send_null}};
    static char line[LINE];
    if (argc != 2)
        return fprintf(stderr, "usage: nfs-client SERVER\n"), 2;
    client.server = argv[1];
    while (fgets(line, sizeof(line), stdin)) {
        struct answer answer = {.error = -1};
        bool right = false;
        line[strcspn(line, "\n")] = 0;
        argument = line + strcspn(line, " ");
        if (*argument)
            *argument++ = 0;
        if (strcmp(line, "mount") == 0)
            right = mount_export(&answer);
        else if (strcmp(line, "lock") == 0 || strcmp(line, "reclaim") == 0)
            right = lock_file(&answer, *line == 'r');
        else if (strcmp(line, "handle") == 0)
            right = hex(&answer);
        for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
            if (strcmp(line, commands[i].name) == 0)
                right = ask(commands[i].send, &answer);
        if (right && strcmp(answer.text, "again") == 0)
            printf("again\n");
        else if (right)
            printf("ok %s\n", answer.text);
        else
            printf("failed %d\n", answer.error);
        fflush(stdout);
    }
    leave();
    return 0;
}
