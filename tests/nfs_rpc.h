/* What the NFSv3 clients for tests share, over libnfs: one connection to a server, made anew when it has broken, the
 * handles of an export and of a file in it, and questions that are sent again until they are answered. One of it in a
 * process; one thread. */
#ifndef TESTS_NFS_RPC_H
#define TESTS_NFS_RPC_H

#include <stdbool.h>
#include <stdint.h>

#include <nfsc/libnfs.h> // the others need it before them

#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw-nlm.h>
#include <nfsc/libnfs-raw.h>

enum { NFS_TEXT = 4096, NFS_CONNECT_MS = 1000, NFS_ANSWER_MS = 20000, NFS_AGAIN_MS = 10 };

struct nfs_handle {
    unsigned length;
    char bytes[NFS3_FHSIZE];
};

extern struct nfs_rpc {
    const char *server;          // set by the program
    struct rpc_context *context; // NULL: no connection
    struct nfs_handle export, file;
} nfs_rpc;

/* One answer: filled in by the callback, which also copies what is wanted, because it is freed afterwards. */
struct nfs_answer {
    bool done;
    int status;      // RPC_STATUS_…
    int error;       // NFS3ERR_…
    bool stable;     // of a write
    unsigned length; // of what was written, or of the text
    writeverf3 verifier;
    char text[NFS_TEXT]; // what was read, and what else a program wants
};

#define NFS_CALLBACK(name) static void name(struct rpc_context *rpc, int status, void *data, void *private)

/* For every callback: notes status and error in the answer, which it returns if the call has succeeded, else NULL. */
struct nfs_answer *nfs_arrived(int status, void *data, void *private);

/* A connection to the program, instead of the one before: NFS at its port, others by rpcbind. False: none within so
 * long. */
bool nfs_reach(int program, int version, int64_t milliseconds);
void nfs_leave(void);
/* Until the answer is there; false: not within so long, or the connection has broken. */
bool nfs_serve(struct nfs_answer *answer, int64_t milliseconds);
/* Sends it, again on a new connection whenever one breaks or is silent for NFS_ANSWER_MS, until it is answered, with
 * whatever error. False: not by the deadline (nfs_now). */
bool nfs_ask(int program, int version, int (*send)(struct nfs_answer *), struct nfs_answer *answer, int64_t deadline);
int64_t nfs_now(void); // ms, CLOCK_MONOTONIC

nfs_fh3 nfs_fh(struct nfs_handle *handle);
void nfs_keep(struct nfs_handle *handle, const nfs_fh3 *from);
/* Questions whose answers put handles into nfs_rpc; 0 if they could be sent. */
int nfs_send_mount(char *path, struct nfs_answer *answer);
int nfs_send_create(char *name, struct nfs_answer *answer);

#endif
