/* An NFSv3 client for tests that writes for ever, as a program on a hard mount does: what is not answered is sent again, on a new
 * connection where one has broken, until it is.
 *
 *   nfs-writer SERVER EXPORT FILE MILLISECONDS
 *
 * Makes FILE in the export and writes a record to it every so many milliseconds: number N, at N * 64. Even ones are written stable;
 * odd ones not, then committed, and written again if the verifier says that the server is another. Every tenth is read back. A line
 * of output for each that was acknowledged, and for whatever a program on the mount would have noticed:
 *
 *   ack N BEGIN END          nanoseconds, CLOCK_BOOTTIME
 *   error N WHAT STATUS      an NFS3ERR_…, except those that mean "later"
 *   wrong N                  an acknowledged record reads otherwise
 *
 * SIGTERM: what is under way is finished first.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nfsc/libnfs.h> // the others need it before them

#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>

enum { RECORD = 64, CONNECT_MS = 1000, ANSWER_MS = 20000, AGAIN_MS = 10, READ_EVERY = 10 };

struct answer {
    bool done;
    int status; // RPC_STATUS_…
    int error;  // NFS3ERR_…
    bool stable;
    writeverf3 verifier;
    char bytes[RECORD];
    unsigned length;
};

static struct {
    const char *server;
    char *path;
    struct rpc_context *rpc;
    char export_handle[FHSIZE3], file_handle[NFS3_FHSIZE];
    unsigned export_length, file_length;
    char *name;
    uint64_t number;
    stable_how how;
    char bytes[RECORD + 1];
} writer;
static volatile sig_atomic_t ending;

static void on_term(int signal) {
    (void)signal;
    ending = 1;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- Answers --------------------------------------------------------------------------------------------------------- */

#define CALLBACK(name) static void name(struct rpc_context *rpc, int status, void *data, void *private)
static struct answer *arrived(int status, void *data, void *private) {
    struct answer *answer = private;
    answer->done = true, answer->status = status;
    if (status == RPC_STATUS_SUCCESS)
        answer->error = *(int *)data; // every result begins with its status
    return status == RPC_STATUS_SUCCESS && answer->error == 0 ? answer : NULL;
}
CALLBACK(connected) {
    struct answer *answer = private;
    (void)rpc, (void)data;
    answer->done = true, answer->status = status;
}
CALLBACK(mounted) {
    (void)rpc;
    if (!arrived(status, data, private))
        return;
    fhandle3 *handle = &((mountres3 *)data)->mountres3_u.mountinfo.fhandle;
    writer.export_length = handle->fhandle3_len;
    memcpy(writer.export_handle, handle->fhandle3_val, writer.export_length);
}
CALLBACK(created) {
    (void)rpc;
    if (!arrived(status, data, private))
        return;
    nfs_fh3 *handle = &((CREATE3res *)data)->CREATE3res_u.resok.obj.post_op_fh3_u.handle;
    writer.file_length = handle->data.data_len;
    memcpy(writer.file_handle, handle->data.data_val, writer.file_length);
}
CALLBACK(written) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (!answer)
        return;
    WRITE3resok *result = &((WRITE3res *)data)->WRITE3res_u.resok;
    answer->stable = result->committed != UNSTABLE;
    answer->length = result->count;
    memcpy(answer->verifier, result->verf, sizeof(writeverf3));
}
CALLBACK(committed) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (answer)
        memcpy(answer->verifier, ((COMMIT3res *)data)->COMMIT3res_u.resok.verf, sizeof(writeverf3));
}
CALLBACK(contents) {
    (void)rpc;
    struct answer *answer = arrived(status, data, private);
    if (!answer)
        return;
    READ3resok *result = &((READ3res *)data)->READ3res_u.resok;
    answer->length = result->data.data_len < RECORD ? result->data.data_len : RECORD;
    memcpy(answer->bytes, result->data.data_val, answer->length);
}

/* ---- Asking for ever ------------------------------------------------------------------------------------------------- */

static void leave(void) {
    if (writer.rpc)
        rpc_destroy_context(writer.rpc);
    writer.rpc = NULL;
}

static bool serve_until(struct answer *answer, int64_t milliseconds) {
    int64_t deadline = now_ns() + milliseconds * 1000000;
    while (!answer->done) {
        int64_t left = (deadline - now_ns()) / 1000000;
        struct pollfd wait = {.fd = rpc_get_fd(writer.rpc), .events = (short)rpc_which_events(writer.rpc)};
        if (left <= 0)
            return false;
        if (poll(&wait, 1, (int)(left < 100 ? left : 100)) < 0)
            wait.revents = 0;
        if (rpc_service(writer.rpc, wait.revents) < 0)
            return false;
    }
    return answer->status == RPC_STATUS_SUCCESS;
}

static bool reach(int program, int version) {
    struct answer answer = {0};
    leave();
    writer.rpc = rpc_init_context();
    int failed = program == NFS_PROGRAM
                     ? rpc_connect_port_async(writer.rpc, writer.server, 2049, program, version, connected, &answer)
                     : rpc_connect_program_async(writer.rpc, writer.server, program, version, connected, &answer);
    if (failed == 0 && serve_until(&answer, CONNECT_MS))
        return true;
    leave();
    return false;
}

/* Until it is answered, with anything but "later". */
static int ask(int program, int version, int (*send)(struct answer *), struct answer *answer) {
    for (;; poll(NULL, 0, AGAIN_MS)) {
        *answer = (struct answer){0};
        if (!writer.rpc && !reach(program, version))
            continue;
        if (send(answer) != 0 || !serve_until(answer, ANSWER_MS))
            leave();
        else if (answer->error != NFS3ERR_JUKEBOX)
            return answer->error;
    }
}
static int ask_nfs(int (*send)(struct answer *), struct answer *answer) {
    return ask(NFS_PROGRAM, NFS_V3, send, answer);
}

static nfs_fh3 file(void) {
    return (nfs_fh3){{writer.file_length, writer.file_handle}};
}
static uint64_t place(void) {
    return writer.number * RECORD;
}
static int send_mount(struct answer *a) {
    return rpc_mount3_mnt_async(writer.rpc, mounted, writer.path, a);
}
static int send_create(struct answer *a) {
    CREATE3args args = {.where = {{{writer.export_length, writer.export_handle}}, writer.name}, .how = {.mode = UNCHECKED}};
    args.how.createhow3_u.obj_attributes.mode = (set_mode3){.set_it = 1, .set_mode3_u.mode = 0644};
    return rpc_nfs3_create_async(writer.rpc, created, &args, a);
}
static int send_write(struct answer *a) {
    WRITE3args args = {file(), place(), RECORD, writer.how, {RECORD, writer.bytes}};
    return rpc_nfs3_write_async(writer.rpc, written, &args, a);
}
static int send_commit(struct answer *a) {
    COMMIT3args args = {file(), 0, 0};
    return rpc_nfs3_commit_async(writer.rpc, committed, &args, a);
}
static int send_read(struct answer *a) {
    READ3args args = {file(), place(), RECORD};
    return rpc_nfs3_read_async(writer.rpc, contents, &args, a);
}

/* ---- Records --------------------------------------------------------------------------------------------------------- */

static void noticed(const char *what, int error) {
    printf("error %" PRIu64 " %s %d\n", writer.number, what, error);
}

static bool write_one(void) {
    struct answer wrote, kept;
    int error;
    snprintf(writer.bytes, sizeof(writer.bytes), "%-*" PRIu64 "\n", RECORD - 1, writer.number);
    for (;;) {
        if ((error = ask_nfs(send_write, &wrote)) != 0)
            return noticed("write", error), false;
        if (wrote.length != RECORD)
            return noticed("write-short", (int)wrote.length), false;
        if (wrote.stable)
            return true;
        if ((error = ask_nfs(send_commit, &kept)) != 0)
            return noticed("commit", error), false;
        if (memcmp(wrote.verifier, kept.verifier, sizeof(writeverf3)) == 0)
            return true;
    }
}

static void read_one(void) {
    struct answer answer;
    int error = ask_nfs(send_read, &answer);
    if (error)
        noticed("read", error);
    else if (answer.length != RECORD || memcmp(answer.bytes, writer.bytes, RECORD) != 0)
        printf("wrong %" PRIu64 "\n", writer.number);
}

int main(int argc, char **argv) {
    struct answer answer;
    int error;
    if (argc != 5 || atoi(argv[4]) <= 0)
        return fprintf(stderr, "usage: nfs-writer SERVER EXPORT FILE MILLISECONDS\n"), 2;
    writer.server = argv[1], writer.path = argv[2], writer.name = argv[3];
    int64_t every = atoi(argv[4]) * INT64_C(1000000);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term}, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if ((error = ask(MOUNT_PROGRAM, MOUNT_V3, send_mount, &answer)) != 0)
        return noticed("mount", error), 1;
    leave();
    if ((error = ask_nfs(send_create, &answer)) != 0)
        return noticed("create", error), 1;
    for (; !ending; writer.number++) {
        int64_t begin = now_ns();
        writer.how = writer.number % 2 ? UNSTABLE : FILE_SYNC;
        if (write_one())
            printf("ack %" PRIu64 " %" PRId64 " %" PRId64 "\n", writer.number, begin, now_ns());
        if (writer.number % READ_EVERY == 0)
            read_one();
        int64_t left = begin + every - now_ns();
        if (left > 0)
            nanosleep(&(struct timespec){.tv_nsec = left % 1000000000, .tv_sec = left / 1000000000}, NULL);
    }
    leave();
    return 0;
}
