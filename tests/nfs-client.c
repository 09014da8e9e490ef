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
#include "nfs_rpc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = NFS_TEXT, PATIENCE_MS = 60000, ONCE_MS = 10000 };
#define CALLBACK NFS_CALLBACK

static struct {
    uint64_t size, cookie;
    writeverf3 verifier;
    cookieverf3 cookie_verifier;
    bool have_verifier;
} client;

static bool ask(int (*send)(struct nfs_answer *), struct nfs_answer *answer) {
    if (nfs_ask(NFS_PROGRAM, NFS_V3, send, answer, nfs_now() + PATIENCE_MS))
        return answer->error == 0;
    answer->error = -1;
    return false;
}

CALLBACK(found) {
    (void)rpc;
    if (nfs_arrived(status, data, private))
        nfs_keep(&nfs_rpc.file, &((LOOKUP3res *)data)->LOOKUP3res_u.resok.object), client.size = 0;
}
static void verify(struct nfs_answer *answer, const char *verifier) {
    bool again = client.have_verifier && memcmp(verifier, client.verifier, sizeof(writeverf3)) != 0;
    memcpy(client.verifier, verifier, sizeof(writeverf3));
    client.have_verifier = true;
    strcpy(answer->text, again ? "again" : "");
}
CALLBACK(written) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (!answer)
        return;
    client.size += ((WRITE3res *)data)->WRITE3res_u.resok.count;
    verify(answer, ((WRITE3res *)data)->WRITE3res_u.resok.verf);
}
CALLBACK(committed) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (answer)
        verify(answer, ((COMMIT3res *)data)->COMMIT3res_u.resok.verf);
}
CALLBACK(contents) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (!answer)
        return;
    READ3resok *result = &((READ3res *)data)->READ3res_u.resok;
    snprintf(answer->text, LINE, "%.*s", (int)result->data.data_len, result->data.data_val);
}
CALLBACK(attributes) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (!answer)
        return;
    fattr3 *a = &((GETATTR3res *)data)->GETATTR3res_u.resok.obj_attributes;
    snprintf(answer->text, LINE, "%" PRIu64 " %" PRIu64, a->size, a->fileid);
}
CALLBACK(listed) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
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
static int send_create(struct nfs_answer *a) {
    client.size = 0;
    return nfs_send_create(argument, a);
}
static int send_lookup(struct nfs_answer *a) {
    LOOKUP3args args = {.what = {nfs_fh(&nfs_rpc.export), argument}};
    return rpc_nfs3_lookup_async(nfs_rpc.context, found, &args, a);
}
static int send_write(struct nfs_answer *a) {
    unsigned length = (unsigned)strlen(argument);
    WRITE3args args = {nfs_fh(&nfs_rpc.file), client.size, length, UNSTABLE, {length, argument}};
    return rpc_nfs3_write_async(nfs_rpc.context, written, &args, a);
}
static int send_commit(struct nfs_answer *a) {
    COMMIT3args args = {nfs_fh(&nfs_rpc.file), 0, 0};
    return rpc_nfs3_commit_async(nfs_rpc.context, committed, &args, a);
}
static int send_read(struct nfs_answer *a) {
    READ3args args = {nfs_fh(&nfs_rpc.file), 0, LINE - 1};
    return rpc_nfs3_read_async(nfs_rpc.context, contents, &args, a);
}
static int send_getattr(struct nfs_answer *a) {
    GETATTR3args args = {nfs_fh(&nfs_rpc.file)};
    return rpc_nfs3_getattr_async(nfs_rpc.context, attributes, &args, a);
}
static int send_list(struct nfs_answer *a) {
    READDIR3args args = {.dir = nfs_fh(&nfs_rpc.export), .cookie = client.cookie, .count = (count3)atoi(argument)};
    memcpy(args.cookieverf, client.cookie_verifier, sizeof(cookieverf3));
    return rpc_nfs3_readdir_async(nfs_rpc.context, listed, &args, a);
}
CALLBACK(emptied) {
    struct nfs_answer *answer = private;
    (void)rpc, (void)data;
    answer->done = true, answer->status = status;
}
static int send_null(struct nfs_answer *a) {
    return rpc_nfs3_null_async(nfs_rpc.context, emptied, a);
}

static bool mount_export(struct nfs_answer *answer) {
    bool right = nfs_reach(MOUNT_PROGRAM, MOUNT_V3, ONCE_MS) && nfs_send_mount(argument, answer) == 0 &&
                 nfs_serve(answer, ONCE_MS) && answer->error == 0;
    nfs_leave();
    return right;
}

CALLBACK(decided) {
    struct nfs_answer *answer = private;
    (void)rpc;
    answer->done = true, answer->status = status;
    if (status == RPC_STATUS_SUCCESS)
        answer->error = (int)((NLM4_LOCKres *)data)->status;
}
static bool lock_file(struct nfs_answer *answer, bool reclaim) {
    NLM4_LOCKargs args = {
        .cookie = {{4, "1234"}},
        .exclusive = 1,
        .lock = {.caller_name = "client", .fh = {{nfs_rpc.file.length, nfs_rpc.file.bytes}}, .oh = argument},
        .reclaim = reclaim,
        .state = 1};
    args.lock.svid = (u_int)atoi(argument);
    bool right = nfs_reach(NLM_PROGRAM, NLM_V4, ONCE_MS) &&
                 rpc_nlm4_lock_async(nfs_rpc.context, decided, &args, answer) == 0 && nfs_serve(answer, ONCE_MS) &&
                 answer->error == 0;
    nfs_leave();
    return right;
}

static bool hex(struct nfs_answer *answer) {
    for (unsigned i = 0; i < nfs_rpc.file.length; i++)
        sprintf(answer->text + 2 * i, "%02x", (unsigned char)nfs_rpc.file.bytes[i]);
    return true;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*send)(struct nfs_answer *);
    } commands[] = {{"create", send_create}, {"lookup", send_lookup},   {"write", send_write}, {"commit", send_commit},
                    {"read", send_read},     {"getattr", send_getattr}, {"list", send_list},   {"null", send_null}};
    static char line[LINE];
    if (argc != 2)
        return fprintf(stderr, "usage: nfs-client SERVER\n"), 2;
    nfs_rpc.server = argv[1];
    while (fgets(line, sizeof(line), stdin)) {
        struct nfs_answer answer = {.error = -1};
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
    nfs_leave();
    return 0;
}
