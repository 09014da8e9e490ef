#include "nfs_rpc.h"

#include <poll.h>
#include <string.h>
#include <time.h>

struct nfs_rpc nfs_rpc;

int64_t nfs_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct nfs_answer *nfs_arrived(int status, void *data, void *private) {
    struct nfs_answer *answer = private;
    answer->done = true, answer->status = status;
    if (status == RPC_STATUS_SUCCESS)
        answer->error = *(int *)data; // every result begins with its status
    return status == RPC_STATUS_SUCCESS && answer->error == 0 ? answer : NULL;
}

/* ---- The connection ---- */

void nfs_leave(void) {
    if (nfs_rpc.context)
        rpc_destroy_context(nfs_rpc.context);
    nfs_rpc.context = NULL;
}

bool nfs_serve(struct nfs_answer *answer, int64_t milliseconds) {
    int64_t deadline = nfs_now() + milliseconds;
    while (!answer->done) {
        int64_t left = deadline - nfs_now();
        struct pollfd wait = {.fd = rpc_get_fd(nfs_rpc.context), .events = (short)rpc_which_events(nfs_rpc.context)};
        if (left <= 0)
            return false;
        if (poll(&wait, 1, (int)(left < 100 ? left : 100)) < 0)
            wait.revents = 0;
        if (rpc_service(nfs_rpc.context, wait.revents) < 0)
            return false;
    }
    return answer->status == RPC_STATUS_SUCCESS;
}

NFS_CALLBACK(connected) {
    struct nfs_answer *answer = private;
    (void)rpc, (void)data;
    answer->done = true, answer->status = status;
}

bool nfs_reach(int program, int version, int64_t milliseconds) {
    static struct nfs_answer answer;
    answer = (struct nfs_answer){0};
    nfs_leave();
    nfs_rpc.context = rpc_init_context();
    int failed =
        program == NFS_PROGRAM
            ? rpc_connect_port_async(nfs_rpc.context, nfs_rpc.server, 2049, program, version, connected, &answer)
            : rpc_connect_program_async(nfs_rpc.context, nfs_rpc.server, program, version, connected, &answer);
    if (failed == 0 && nfs_serve(&answer, milliseconds))
        return true;
    nfs_leave();
    return false;
}

bool nfs_ask(int program, int version, int (*send)(struct nfs_answer *), struct nfs_answer *answer, int64_t deadline) {
    for (; nfs_now() < deadline; poll(NULL, 0, NFS_AGAIN_MS)) {
        *answer = (struct nfs_answer){0};
        if (!nfs_rpc.context && !nfs_reach(program, version, NFS_CONNECT_MS))
            continue;
        if (send(answer) == 0 && nfs_serve(answer, NFS_ANSWER_MS))
            return true;
        nfs_leave();
    }
    return false;
}

/* ---- Handles ---- */

nfs_fh3 nfs_fh(struct nfs_handle *handle) {
    return (nfs_fh3){{handle->length, handle->bytes}};
}
void nfs_keep(struct nfs_handle *handle, const nfs_fh3 *from) {
    handle->length = from->data.data_len;
    memcpy(handle->bytes, from->data.data_val, handle->length);
}

NFS_CALLBACK(mounted) {
    (void)rpc;
    if (!nfs_arrived(status, data, private))
        return;
    fhandle3 *handle = &((mountres3 *)data)->mountres3_u.mountinfo.fhandle;
    nfs_keep(&nfs_rpc.export, &(nfs_fh3){{handle->fhandle3_len, handle->fhandle3_val}});
}
NFS_CALLBACK(created) {
    (void)rpc;
    if (nfs_arrived(status, data, private))
        nfs_keep(&nfs_rpc.file, &((CREATE3res *)data)->CREATE3res_u.resok.obj.post_op_fh3_u.handle);
}

int nfs_send_mount(char *path, struct nfs_answer *answer) {
    return rpc_mount3_mnt_async(nfs_rpc.context, mounted, path, answer);
}
int nfs_send_create(char *name, struct nfs_answer *answer) {
    CREATE3args args = {.where = {nfs_fh(&nfs_rpc.export), name}, .how = {.mode = UNCHECKED}};
    args.how.createhow3_u.obj_attributes.mode = (set_mode3){.set_it = 1, .set_mode3_u.mode = 0644};
    return rpc_nfs3_create_async(nfs_rpc.context, created, &args, answer);
}
