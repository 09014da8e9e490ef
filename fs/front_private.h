/* What the files of the front share: the session, the request being processed, replies. Included by fs/front*.c only.
 *
 * A request is processed in the worker thread that read it, under the gate (shared); a change of role takes the gate
 * for itself, so it sees no request half done. Replies that wait for an acknowledgement are sent later, by whoever
 * advances the park.
 */
#ifndef BATON_FS_FRONT_PRIVATE_H
#define BATON_FS_FRONT_PRIVATE_H

#include "fs/front.h"
#include "fs/front_ring.h"
#include "fs/nodes.h"
#include "fs/notify.h"
#include "fs/ops.h"
#include "fs/reclaim.h"
#include "fs/volume.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/queue.h>
#include <sys/mount.h>

#define TRANSFER_MAX (1u << 20) /* bytes of one READ or WRITE */
#define WORKERS_MAX 16u

struct worker {
    struct front *front;
    pthread_t thread;
    int fd;              /* a clone of the device: requests read here are answered here */
    uint8_t *buffer;     /* TRANSFER_MAX bytes for what a reply carries */
    uint8_t *own_buffer; /* of a ring's thread: `buffer` when it is not the request's own payload */
};

struct front {
    struct volume *volume;
    struct store *store;
    struct fuse_session *session;
    int fd;              /* /dev/fuse */
    struct rings *rings; /* NULL: all requests come through /dev/fuse */
    bool rings_agreed;   /* the kernel takes them */
    int ended_fd;        /* eventfd: readable when the session has ended */
    char mount[1024];
    bool mounted;
    unsigned connection; /* its number, in fusectl */
    bool over_dead; /* a dead daemon's mount is there, and is to be replaced */
    unsigned long mount_flags; /* MS_… */
    struct nodes *nodes;
    struct notify *notify;
    struct reclaim *reclaim;
    struct lock_desk *locks; /* front_locks.c */
    struct lapse *lapse; /* what waits while the lease is not held: front_lease.c; NULL: no lease is needed */
    struct worker workers[WORKERS_MAX];
    unsigned worker_count, worker_started;
    atomic_uint worker_running;
    pthread_rwlock_t gate;
    atomic_bool writable;       /* primary: changes are let in, and the kernel may cache */
    _Atomic uint64_t names_lsn; /* the last change of names: fsync of a file includes it */
    atomic_uint term; /* grows when this mount ceases to be the primary's; a file's handle has that of its open: opened_in */
    _Atomic uint64_t opens;
    atomic_uint names_doubt; /* the last term at whose end names_lsn was not acknowledged; 0: none */
    double entry_timeout;    /* on the primary, seconds */
    uint64_t kernel_flags;   /* of the INIT request */
    pthread_mutex_t directories_mutex;
    LIST_HEAD(, open_directory) directories; /* open ones: the kernel may go without a RELEASEDIR (front_dir.c) */
    pthread_mutex_t held_mutex;
    struct held *held, **held_end; /* changes that arrived during a hold, in their order */
    atomic_bool holding;
    /* Replies that are parked, or being given by whoever advances the park, and one for the front itself. The last one
     * says that it has gone. */
    atomic_size_t parked;
    sem_t none_parked;
    _Atomic uint64_t requests; /* that came, of all kinds */
};

/* What goes with an answer, and is to be taken back when it does not arrive: an inode that the kernel knows from then on,
 * those of a READDIRPLUS, an open directory. SENDS_ALWAYS: it tells nothing, and needs no lease. */
enum sends { SENDS_PLAIN, SENDS_ENTRY, SENDS_LISTING, SENDS_DIRECTORY, SENDS_ALWAYS };

/* ---- The request that this thread is processing: what libfuse 3.14 does not hand on ---- */
struct note {
    uint32_t opcode;
    uint64_t unique;    /* the kernel's number of it */
    int fd;             /* where it came from and its reply goes: a device, or a place in a ring (front_ring.h) */
    bool past_cache;    /* READ, WRITE: not of pages that the kernel caches, which hold it up until it is answered */
    bool kill_priv;     /* WRITE, OPEN, CREATE, SETATTR: clear set-id bits and capability */
    bool tmpfile;       /* CREATE: it was a TMPFILE */
    bool acl_kill_sgid; /* SETXATTR */
    enum sends sends;   /* what the next answer of this thread is */
};
extern _Thread_local struct note note;
extern _Thread_local struct worker *this_worker;

extern const struct fuse_custom_io raw_io;
/* Processes a request that came in at note.fd some other way than by raw_read. */
void raw_process(struct front *front, uint8_t *request, size_t length);
/* Sends a whole reply to where the request came from; or keeps it, while the lease is not held (it counts as sent then). */
ssize_t raw_send(struct front *front, int fd, struct iovec *parts, int count);
ssize_t raw_send_now(struct front *front, int fd, struct iovec *parts, int count); /* whether the lease is held or not */
/* Waits for a hold and processes what libfuse is to see: front.c. */
void front_process(struct front *front, void *request, size_t length);
bool raw_changes(const void *request); /* is it one that front_hold() holds? */
bool raw_is_statx(const void *request);
/* Does it ask for anything that this node may say only as a standby, or as the holder of the lease? */
bool raw_needs_lease(const void *request);

/* ---- While the lease is not held: front_lease.c. Any thread, unless it says otherwise. ---- */
int lapse_start(struct front *front); /* when the volume has a lease */
void lapse_stop(struct front *front); /* when nobody answers any more: errors for what is kept */
/* The mount is the primary's, and the lease has run out, or is not there yet. Changes of role wait for those who ask under
 * the gate. */
bool lapse_now(const struct front *front);
/* The same, and nobody waits for the next role: errors at once. */
bool lapse_refuses(const struct front *front);
/* A thread of batond's own is about to wait in the mount, which might have to change the role. */
void lapse_hurry(struct front *front, bool on);
void lapse_waits(struct front *front); /* a request is held */
/* Takes the answer over, and what goes with it. Its length, as if it was sent. */
ssize_t lapse_keep(struct front *front, int fd, enum sends sends, const struct iovec *parts, int count);
/* The role has changed (errors for all that is kept), or the lease is held again. */
void lapse_end(struct front *front, bool held_again);
/* What was held because of the lease is processed, unless front_hold() has it held: front.c. */
void front_held_again(struct front *front);

/* ---- Replies: front_reply.c ---- */
enum reply_kind { REPLY_OK, REPLY_ENTRY, REPLY_CREATE, REPLY_ATTRIBUTES, REPLY_WRITE, REPLY_OPEN };
struct reply {
    struct parked parked;
    struct front *front;
    fuse_req_t request;
    int fd;
    enum reply_kind kind;
    struct attributes attributes; /* ENTRY, CREATE, ATTRIBUTES */
    struct fuse_file_info file;   /* CREATE, OPEN */
    size_t written;               /* WRITE */
};

struct front *front_of(fuse_req_t request);
struct caller caller_of(fuse_req_t request);
struct reply reply_to(fuse_req_t request, enum reply_kind kind);
/* Sends it once the acknowledgements that `wait` needs for `lsn` are there. ENTRY and CREATE: the inode has been looked
 * up in nodes; that is taken back if the reply does not arrive. */
void reply_after(struct reply *reply, enum volume_wait wait, uint64_t lsn);
void reply_now(struct reply *reply);
/* One that counts in front->parked has been given. */
void reply_done(struct front *front);
void reply_error(fuse_req_t request, int error);       /* a negative errno, or 0 */
void reply_inode_error(fuse_req_t request, int error); /* the same, of an operation by number: -ENOENT is ESTALE */
/* Answers with EROFS and returns true if changes are not let in. */
bool reply_refused(fuse_req_t request);

void attributes_stat(const struct attributes *attributes, struct stat *to);
double entry_timeout(struct front *front);
double attribute_timeout(struct front *front);
/* A looked-up inode's reply did not arrive. */
void lookup_undone(struct front *front, uint64_t ino);
/* Nor did a READDIRPLUS's, or an OPENDIR's. */
void listing_undone(struct front *front, const uint8_t *listing, size_t length);
void directory_undone(struct front *front, uint64_t handle);
/* An inode has no name any more. */
void lost_last_name(struct front *front, uint64_t ino);
void names_changed(struct front *front, uint64_t lsn);
/* What a change of this inode's attributes waits for. Those that a program makes to a file that it has just created and
 * still has open for writing (tar and cp do: times, owner, mode) wait with its close, as what it writes does. */
enum volume_wait attributes_wait(fuse_req_t request, uint64_t ino);
void directories_free(struct front *front); /* at the end: those that nobody has closed */
void touch_atime(struct front *front, uint64_t ino, bool directory);
void open_flags(struct front *front, struct fuse_file_info *file);
/* The term in which the file with that handle was opened. */
static inline unsigned opened_in(uint64_t handle) {
    return (unsigned)(handle & UINT16_MAX);
}
/* fsync through a file or directory that was opened in that term. */
void fsync_opened(fuse_req_t request, uint64_t ino, bool data_only, uint64_t term);

/* ---- Locks: front_locks.c ---- */
int front_locks_start(struct front *front);
void front_locks_stop(struct front *front); /* nobody asks any more */
void front_locks_flushed(struct front *front, uint64_t ino, uint64_t owner);
void front_locks_released(struct front *front, uint64_t ino, uint64_t handle);
/* INTERRUPT of a request: did that wait for a lock? It is answered then. */
bool front_locks_interrupted(struct front *front, uint64_t unique);
void front_locks_drop(struct front *front, int error); /* the role has changed */

/* ---- Dead mounts, and what takes their place: front_dead.c. Paths are real ones. ---- */
struct mounting {
    const char *source;
    int fd; /* the device */
    unsigned long flags; /* MS_… */
    bool serves; /* false: one that gives errors */
};
int mount_new(const struct mounting *what, const char *path);
/* In place of the dead mount that is seen at `path`. */
int mount_replace(const struct mounting *what, const char *path);
void dead_clear(const char *path); /* dead mounts there go */
/* … but for the last one, if that is a Baton's; is it there? */
bool dead_one_left(const char *path);

/* ---- The mount: front_mount.c ---- */
int mount_prepare(struct front *front, char *why, size_t why_room);
int mount_attach(struct front *front, char *why, size_t why_room); /* opens the device, mounts */
void mount_detach(struct front *front);
void mount_flush(struct front *front); /* the kernel writes back what it holds; bounded by its memory */
void mount_tune(struct front *front);

/* ---- Operations ---- */
void front_init(void *userdata, struct fuse_conn_info *connection);
void front_lookup(fuse_req_t request, fuse_ino_t parent, const char *name);
void front_forget(fuse_req_t request, fuse_ino_t ino, uint64_t count);
void front_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *list);
void front_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file);
void front_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void front_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode);
void front_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name);
void front_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void front_unlink(fuse_req_t request, fuse_ino_t parent, const char *name);
void front_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name);
void front_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                  unsigned flags);
void front_readlink(fuse_req_t request, fuse_ino_t ino);

void front_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file);
void front_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *to, int mask, struct fuse_file_info *file);
void front_statfs(fuse_req_t request, fuse_ino_t ino);
int front_statx(struct front *front, uint64_t ino, uint64_t unique, int fd); /* raw: replies itself */

void front_setxattr(fuse_req_t request, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void front_getxattr(fuse_req_t request, fuse_ino_t ino, const char *name, size_t room);
void front_listxattr(fuse_req_t request, fuse_ino_t ino, size_t room);
void front_removexattr(fuse_req_t request, fuse_ino_t ino, const char *name);

void front_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file);
void front_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file);
void front_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
                 struct fuse_file_info *file);
void front_flush(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file);
void front_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file);
void front_fsync(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file);
void front_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
                     struct fuse_file_info *file);
void front_lseek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *file);
void front_copy(fuse_req_t request, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_file, fuse_ino_t to,
                off_t to_offset, struct fuse_file_info *to_file, size_t length, int flags);

void front_getlk(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file, struct flock *lock);
void front_setlk(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file, struct flock *lock, int waits);
void front_flock(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file, int operation);

void front_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file);
void front_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file);
void front_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file);
void front_fsyncdir(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file);
void front_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file);

#endif
