/* An NFSv3 client for tests that writes for ever, as a program on a hard mount does: what is not answered is sent
 * again, on a new connection where one has broken, until it is. What it prints: share_writer.h.
 *
 *   nfs-writer SERVER EXPORT FILE MILLISECONDS
 *
 * Makes FILE in the export. Even records are written stable; odd ones not, then committed, and written again if the
 * verifier says that the server is another. The status of an error is an NFS3ERR_…
 */
#include "nfs_rpc.h"
#include "share_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t place;
static stable_how how;
static char bytes[WRITER_RECORD];
static char *argument;

NFS_CALLBACK(written) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (!answer)
        return;
    WRITE3resok *result = &((WRITE3res *)data)->WRITE3res_u.resok;
    answer->stable = result->committed != UNSTABLE;
    answer->length = result->count;
    memcpy(answer->verifier, result->verf, sizeof(writeverf3));
}
NFS_CALLBACK(committed) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (answer)
        memcpy(answer->verifier, ((COMMIT3res *)data)->COMMIT3res_u.resok.verf, sizeof(writeverf3));
}
NFS_CALLBACK(contents) {
    (void)rpc;
    struct nfs_answer *answer = nfs_arrived(status, data, private);
    if (!answer)
        return;
    READ3resok *result = &((READ3res *)data)->READ3res_u.resok;
    answer->length = result->data.data_len < NFS_TEXT ? result->data.data_len : NFS_TEXT;
    memcpy(answer->text, result->data.data_val, answer->length);
}

static int send_mount(struct nfs_answer *a) {
    return nfs_send_mount(argument, a);
}
static int send_create(struct nfs_answer *a) {
    return nfs_send_create(argument, a);
}
static int send_write(struct nfs_answer *a) {
    WRITE3args args = {nfs_fh(&nfs_rpc.file), place, WRITER_RECORD, how, {WRITER_RECORD, bytes}};
    return rpc_nfs3_write_async(nfs_rpc.context, written, &args, a);
}
static int send_commit(struct nfs_answer *a) {
    COMMIT3args args = {nfs_fh(&nfs_rpc.file), 0, 0};
    return rpc_nfs3_commit_async(nfs_rpc.context, committed, &args, a);
}
static int send_read(struct nfs_answer *a) {
    READ3args args = {nfs_fh(&nfs_rpc.file), place, WRITER_RECORD};
    return rpc_nfs3_read_async(nfs_rpc.context, contents, &args, a);
}

/* Until it is answered, with anything but "later". Its NFS3ERR_… */
static int ask(int program, int version, int (*send)(struct nfs_answer *), struct nfs_answer *answer) {
    while (!nfs_ask(program, version, send, answer, INT64_MAX) || answer->error == NFS3ERR_JUKEBOX)
        nanosleep(&(struct timespec){.tv_nsec = WRITER_AGAIN_MS * 1000000}, NULL);
    return answer->error;
}
static int ask_nfs(int (*send)(struct nfs_answer *), struct nfs_answer *answer) {
    return ask(NFS_PROGRAM, NFS_V3, send, answer);
}

static bool write_one(uint64_t number, const char record[WRITER_RECORD]) {
    static struct nfs_answer wrote, kept;
    int error;
    place = number * WRITER_RECORD;
    how = number % 2 ? UNSTABLE : FILE_SYNC;
    memcpy(bytes, record, WRITER_RECORD);
    for (;;) {
        if ((error = ask_nfs(send_write, &wrote)) != 0)
            return writer_error("write", error);
        if (wrote.length != WRITER_RECORD)
            return writer_error("write-short", (int)wrote.length);
        if (wrote.stable)
            return true;
        if ((error = ask_nfs(send_commit, &kept)) != 0)
            return writer_error("commit", error);
        if (memcmp(wrote.verifier, kept.verifier, sizeof(writeverf3)) == 0)
            return true;
    }
}

static bool read_one(uint64_t number, char record[WRITER_RECORD]) {
    static struct nfs_answer answer;
    place = number * WRITER_RECORD;
    int error = ask_nfs(send_read, &answer);
    if (error)
        return writer_error("read", error);
    if (answer.length != WRITER_RECORD)
        return writer_error("read-short", (int)answer.length);
    memcpy(record, answer.text, WRITER_RECORD);
    return true;
}

int main(int argc, char **argv) {
    static struct nfs_answer answer;
    int error;
    if (argc != 5 || atoi(argv[4]) <= 0)
        return fprintf(stderr, "usage: nfs-writer SERVER EXPORT FILE MILLISECONDS\n"), 2;
    nfs_rpc.server = argv[1];
    argument = argv[2];
    if ((error = ask(MOUNT_PROGRAM, MOUNT_V3, send_mount, &answer)) != 0)
        return writer_error("mount", error), 1;
    nfs_leave();
    argument = argv[3];
    if ((error = ask_nfs(send_create, &answer)) != 0)
        return writer_error("create", error), 1;
    error = writer_run(&(struct writer_ways){write_one, read_one}, atoi(argv[4]));
    nfs_leave();
    return error;
}
