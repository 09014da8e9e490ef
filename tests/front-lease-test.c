/* While the lease is not held, the primary's mount answers nothing: what was begun and what comes later waits for the next
 * role. A standby then gives errors for what was done under the lost lease, and takes back what the kernel was to have
 * known from it; if the lease is held again, the answers are sent. Batond's own stop does not wait for any of it.
 * The mount is a real one, in this process; those who use it are other processes. Both ways of the requests. */
#include "fs/front_private.h"
#include "membership/register.h"
#include "tests/tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SECONDS 60          /* for what must come */
#define QUIET_MS 150        /* for what must not */
#define READERS 80          /* of 1 MiB each: more than is kept */
#define READS_LEAST 66
#define READ_SIZE (1u << 20)

static struct volume volume;
static struct lease_shared lease;
static char store_at[600], mount_at[600];

/* ---- The lease runs out just when an operation has been done: after the look at it that lets the request in ---- */

static atomic_bool armed;       /* it runs out when the next operation on the store ends */
static atomic_bool only_answers; /* operations are let in and answers are not */
static _Thread_local bool answering;
static atomic_bool acknowledges = true; /* the other node of two */
static atomic_int reads_done;

static void lease_out(void) {
    atomic_store(&lease.until, INT64_MIN);
}

static void lease_held(void) {
    atomic_store(&lease.until, INT64_MAX);
}

static void operation_done(void) {
    answering = atomic_load(&only_answers);
    if (atomic_exchange(&armed, false))
        lease_out();
}

bool __real_volume_lease_holds(const struct volume *of);
bool __wrap_volume_lease_holds(const struct volume *of);
bool __wrap_volume_lease_holds(const struct volume *of) {
    if (!atomic_load(&only_answers))
        return __real_volume_lease_holds(of);
    bool was = answering;
    answering = false;
    return this_worker && !was;
}

int __real_op_lookup(struct store *store, uint64_t parent, const char *name, struct attributes *out);
int __wrap_op_lookup(struct store *store, uint64_t parent, const char *name, struct attributes *out);
int __wrap_op_lookup(struct store *store, uint64_t parent, const char *name, struct attributes *out) {
    int rc = __real_op_lookup(store, parent, name, out);
    if (strcmp(name, "armed") == 0)
        operation_done();
    return rc;
}

int __real_op_readdir(struct store *store, uint64_t directory, uint64_t cookie, bool with_attributes,
                      int (*each)(void *context, const struct directory_entry *entry), void *context);
int __wrap_op_readdir(struct store *store, uint64_t directory, uint64_t cookie, bool with_attributes,
                      int (*each)(void *context, const struct directory_entry *entry), void *context);
int __wrap_op_readdir(struct store *store, uint64_t directory, uint64_t cookie, bool with_attributes,
                      int (*each)(void *context, const struct directory_entry *entry), void *context) {
    int rc = __real_op_readdir(store, directory, cookie, with_attributes, each, context);
    operation_done();
    return rc;
}

ssize_t __real_op_read(struct store *store, uint64_t ino, void *buffer, size_t length, uint64_t offset);
ssize_t __wrap_op_read(struct store *store, uint64_t ino, void *buffer, size_t length, uint64_t offset);
ssize_t __wrap_op_read(struct store *store, uint64_t ino, void *buffer, size_t length, uint64_t offset) {
    ssize_t rc = __real_op_read(store, ino, buffer, length, offset);
    operation_done();
    atomic_fetch_add(&reads_done, 1);
    return rc;
}

/* ---- Those who use the mount ---- */

enum act { ACT_CREATE, ACT_WRITE, ACT_STAT, ACT_READ, ACT_LIST, ACT_OPENDIR, ACT_MKDIR, ACT_UNLINK, ACT_READ_ALL, ACT_MAP, ACT_LOCK, ACT_LOCK_WAIT };
struct order {
    enum act act;
    char name[64];
};
struct result {
    int error;     /* 0 or a negative errno */
    int bad, good; /* ACT_READ_ALL */
};
struct user {
    pid_t pid;
    int orders, results;
};
#define USERS 6
static struct user users[USERS];

static void path_of(char path[800], const char *name) {
    snprintf(path, 800, "%s/%s", mount_at, name);
}

static int list(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return -errno;
    errno = 0;
    while (readdir(directory))
        ;
    int error = -errno;
    closedir(directory);
    return error;
}

static int use_file(const char *path, int flags, int (*use)(int fd)) {
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int error = use ? use(fd) : 0;
    if (close(fd) < 0 && !error)
        error = -errno;
    return error;
}

static int put(int fd) {
    return write(fd, "content", 7) == 7 ? 0 : -errno;
}

/* Past the kernel's cache, which would ask again after an error. */
static int get(int fd) {
    _Alignas(4096) static char bytes[4096];
    return read(fd, bytes, sizeof bytes) < 0 ? -errno : 0;
}

static int change_page(int fd) {
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    page[0] = 'x';
    return munmap(page, 4096) ? -errno : 0;
}

/* It stays locked until the next one of this user. */
static int lock_file(const char *path, bool waits) {
    static int locked = -1;
    struct flock lock = {.l_type = F_RDLCK};
    if (locked >= 0)
        close(locked);
    locked = open(path, O_RDONLY | O_CLOEXEC);
    if (locked < 0)
        return -errno;
    return flock(locked, waits ? LOCK_EX : LOCK_EX | LOCK_NB) < 0 || fcntl(locked, F_SETLK, &lock) < 0 ? -errno : 0;
}

static _Atomic int reads_good, reads_bad;
static void *read_much(void *path) {
    void *buffer = aligned_alloc(4096, READ_SIZE);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (read(fd, buffer, READ_SIZE) == READ_SIZE)
        atomic_fetch_add(&reads_good, 1);
    else
        atomic_fetch_add(&reads_bad, errno == EIO);
    close(fd);
    free(buffer);
    return NULL;
}

static int read_all(char *path, struct result *result) {
    pthread_t threads[READERS];
    atomic_store(&reads_good, 0);
    atomic_store(&reads_bad, 0);
    for (int i = 0; i < READERS; i++)
        if (pthread_create(&threads[i], NULL, read_much, path))
            return -EAGAIN;
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    result->good = atomic_load(&reads_good);
    result->bad = atomic_load(&reads_bad);
    return 0;
}

static void act(const struct order *order, struct result *result) {
    char path[800];
    struct stat about;
    path_of(path, order->name);
    switch (order->act) {
    case ACT_CREATE:
        result->error = use_file(path, O_CREAT | O_EXCL | O_WRONLY, NULL);
        break;
    case ACT_WRITE:
        result->error = use_file(path, O_CREAT | O_WRONLY, put);
        break;
    case ACT_STAT:
        result->error = stat(path, &about) < 0 ? -errno : 0;
        break;
    case ACT_READ:
        result->error = use_file(path, O_RDONLY | O_DIRECT, get);
        break;
    case ACT_LIST:
        result->error = list(path);
        break;
    case ACT_OPENDIR:
        result->error = use_file(path, O_RDONLY | O_DIRECTORY, NULL);
        break;
    case ACT_MKDIR:
        result->error = mkdir(path, 0755) < 0 ? -errno : 0;
        break;
    case ACT_UNLINK:
        result->error = unlink(path) < 0 ? -errno : 0;
        break;
    case ACT_READ_ALL:
        result->error = read_all(path, result);
        break;
    case ACT_LOCK:
    case ACT_LOCK_WAIT:
        result->error = lock_file(path, order->act == ACT_LOCK_WAIT);
        break;
    case ACT_MAP:
        result->error = use_file(path, O_RDWR, change_page);
        break;
    }
}

static void serve_orders(int orders, int results) {
    struct order order;
    while (read(orders, &order, sizeof order) == sizeof order) {
        struct result result = {0};
        act(&order, &result);
        if (write(results, &result, sizeof result) != sizeof result)
            _exit(1);
    }
    _exit(0);
}

static void users_start(void) {
    for (unsigned i = 0; i < USERS; i++) {
        int orders[2], results[2];
        if (pipe2(orders, O_CLOEXEC) < 0 || pipe2(results, O_CLOEXEC) < 0)
            bail("pipe: %s", strerror(errno));
        users[i].pid = fork();
        if (users[i].pid == 0) {
            close(orders[1]);
            close(results[0]);
            for (unsigned j = 0; j < i; j++) {
                close(users[j].orders);
                close(users[j].results);
            }
            serve_orders(orders[0], results[1]);
        }
        close(orders[0]);
        close(results[1]);
        users[i].orders = orders[1];
        users[i].results = results[0];
    }
}

static void users_end(void) {
    for (unsigned i = 0; i < USERS; i++) {
        close(users[i].orders);
        waitpid(users[i].pid, NULL, 0);
        close(users[i].results);
    }
}

static void begin(unsigned user, enum act what, const char *name) {
    struct order order = {.act = what};
    snprintf(order.name, sizeof order.name, "%s", name);
    if (write(users[user].orders, &order, sizeof order) != sizeof order)
        bail("user %u: %s", user, strerror(errno));
}

static bool answered_within(unsigned user, int ms) {
    struct pollfd event = {.fd = users[user].results, .events = POLLIN};
    return poll(&event, 1, ms) > 0;
}

static struct result answer(unsigned user) {
    struct result result = {.error = 1};
    if (!answered_within(user, SECONDS * 1000) ||
        read(users[user].results, &result, sizeof result) != (ssize_t)sizeof result)
        diag("user %u gets no answer", user);
    return result;
}

static int done(enum act what, const char *name) {
    begin(0, what, name);
    return answer(0).error;
}

/* ---- The volume ---- */

/* The other node, while it acknowledges; else what waits, waits for acknowledge_all(). */
static void applied_here(void *context, const struct record *record, struct entry *entry) {
    struct volume *here = context;
    volume_applied(here, record, entry);
    if (atomic_load(&acknowledges)) {
        park_advance(here->park, PARK_RECEIVED, record->head.lsn);
        park_advance(here->park, PARK_DURABLE, record->head.lsn);
    }
}

static void volume_start(enum request_loop loop) {
    char why[1024] = "";
    struct store_options options = {.history_bytes = 1ull << 30};

    memset(&volume, 0, sizeof volume);
    atomic_store(&acknowledges, true);
    struct config *config = &volume.config;
    strcpy(config->volume, "lease");
    memcpy(config->volume_id, "a volume's lease", 16);
    config->request_loop = loop;
    config->node_count = 2;
    strcpy(config->nodes[0].name, "a");
    config->nodes[0].number = 1;
    strcpy(config->nodes[0].store, store_at);
    strcpy(config->nodes[0].mount, mount_at);
    volume.self = &config->nodes[0];
    volume.lease = &lease;
    lease_held();
    if (store_open(store_at, config->volume_id, &options, &volume.store, why, sizeof why))
        bail("%s", why);
    volume.park = park_create();
    volume.local = park_create();
    volume_watch(&volume);
    struct store_watch watch = {.applied = applied_here, .durable = volume_durable, .undone = volume_undone, .context = &volume};
    store_set_watch(volume.store, &watch);
    struct position position;
    store_position(volume.store, &position);
    volume_durable(&volume, position.durable);
    if (front_start(&volume, &volume.front, why, sizeof why) || volume_serve_alone(&volume, why, sizeof why))
        bail("%s", why);
}

static void volume_stop(void) {
    front_unmount(volume.front);
    front_stop(volume.front);
    store_set_watch(volume.store, &(struct store_watch){0});
    store_close(volume.store);
    park_free(volume.local);
    park_free(volume.park);
}

static void become_standby(void) {
    atomic_store(&volume.role, ROLE_STANDBY);
    store_stop_epoch(volume.store);
    front_become_standby(volume.front);
}

static void become_primary(void) {
    char why[512];
    lease_held();
    if (volume_serve_alone(&volume, why, sizeof why))
        bail("%s", why);
}

static void acknowledge_all(void) {
    struct position position;
    store_position(volume.store, &position);
    park_advance(volume.park, PARK_RECEIVED, position.lsn);
    park_advance(volume.park, PARK_DURABLE, position.lsn);
}

static bool waits_parked(void *count) {
    return park_count(volume.park) >= *(size_t *)count;
}

static bool until(bool (*condition)(void *context), void *context) {
    int64_t end = clock_boot() + SECONDS * INT64_C(1000000000);
    while (!condition(context)) {
        if (clock_boot() > end)
            return false;
        usleep(2000);
    }
    return true;
}

static bool all_read(void *context) {
    (void)context;
    return atomic_load(&reads_done) >= READS_LEAST;
}

static bool lease_is_out(void *context) {
    (void)context;
    return atomic_load(&lease.until) == INT64_MIN;
}

static void drop_caches(void) {
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1)
        diag("caches cannot be dropped: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

static uint64_t number_of(const char *name) {
    struct attributes found = {0};
    return __real_op_lookup(volume.store, ROOT_INO, name, &found) == 0 ? found.ino : 0;
}

/* The number of the inode if a count of lookups is left for it once the kernel has forgotten it. */
static bool known(void *ino) {
    return nodes_known(volume.front->nodes, *(uint64_t *)ino);
}
static bool unknown(void *ino) {
    return !known(ino);
}

static bool is_there(void *name) {
    return done(ACT_STAT, name) == 0;
}

/* ---- Tests ---- */

static void test_held(void) {
    is_int(0, done(ACT_WRITE, "file"), "with the lease all is answered");
    is_int(0, done(ACT_MKDIR, "directory"), "changes");
    is_int(0, done(ACT_LIST, "."), "and reads");
}

/* A change that waits for its acknowledgement when the lease runs out. */
static void test_parked(void) {
    size_t two = 2;
    atomic_store(&armed, false);
    atomic_store(&acknowledges, false);
    begin(0, ACT_CREATE, "created");
    begin(1, ACT_MKDIR, "directory/made");
    ok(until(waits_parked, &two), "two changes wait for the other node");
    lease_out();
    acknowledge_all();
    atomic_store(&acknowledges, true);
    ok(!answered_within(0, QUIET_MS) && !answered_within(1, 0), "acknowledged after the lease, they are not answered");
    uint64_t created = number_of("created");
    ok(created && known(&created), "the new file is there, and its answer would have made it known");
    become_standby();
    is_int(-EIO, answer(0).error, "the role changes: the creator hears an error");
    is_int(-EIO, answer(1).error, "so does the other one");
    ok(until(unknown, &created), "what the kernel has not heard of is not counted as known");
    is_int(-EROFS, done(ACT_CREATE, "late"), "the mount is read-only now");
    ok(until(is_there, (void *)(uintptr_t)"created"), "and shows what this node has, as soon as the kernel has forgotten what it knew");
    become_primary();
    is_int(0, done(ACT_UNLINK, "created"), "primary again, in a new epoch: all goes on");
}

/* Reads whose answer is under way when it runs out. */
static void test_reads(void) {
    static const struct {
        enum act act;
        const char *name, *what;
    } reads[] = {{ACT_STAT, "armed", "a lookup"}, {ACT_READ, "file", "a read"}, {ACT_LIST, "directory", "a listing"}};

    is_int(0, done(ACT_WRITE, "armed"), "a file is there");
    is_int(0, done(ACT_WRITE, "directory/entry"), "another one, in a directory");
    uint64_t ino = number_of("armed");
    for (unsigned i = 0; i < sizeof reads / sizeof *reads; i++) {
        drop_caches();
        ok(until(unknown, &ino), "the kernel has forgotten the file");
        atomic_store(&armed, true);
        begin(0, reads[i].act, reads[i].name);
        ok(until(lease_is_out, NULL), "%s was done when the lease ran out", reads[i].what);
        begin(1, ACT_STAT, "directory/entry");
        begin(2, ACT_WRITE, "never");
        ok(!answered_within(0, QUIET_MS) && !answered_within(1, 0) && !answered_within(2, 0),
           "neither it nor what came later is answered");
        become_standby();
        is_int(-EIO, answer(0).error, "the role changes: %s gets an error", reads[i].what);
        is_int(0, answer(1).error, "what came later is looked at with the eyes of a standby");
        is_int(-EROFS, answer(2).error, "and changes are refused");
        drop_caches();
        ok(until(unknown, &ino), "no lookup count is left over");
        become_primary();
    }
    ok(LIST_EMPTY(&volume.front->directories), "no directory is open");
}

/* Held again before the role changed: this node in a new epoch. Then what is kept is sent. */
static void test_held_again(void) {
    size_t one = 1;
    atomic_store(&acknowledges, false);
    begin(0, ACT_CREATE, "again");
    ok(until(waits_parked, &one), "a change waits for the other node");
    lease_out();
    acknowledge_all();
    begin(1, ACT_STAT, "file");
    begin(2, ACT_LIST, ".");
    ok(!answered_within(0, QUIET_MS) && !answered_within(1, 0), "nothing is answered without the lease");
    lease_held();
    is_int(0, answer(0).error, "held again: what was kept is sent");
    is_int(0, answer(1).error, "what came later goes on");
    is_int(0, answer(2).error, "all of it");
    atomic_store(&acknowledges, true);
    uint64_t ino = number_of("again");
    ok(known(&ino), "the kernel knows the new file");
    drop_caches();
    ok(until(unknown, &ino), "and forgets it as often as it was told");
    is_int(0, done(ACT_UNLINK, "again"), "it is removed");
}

static void make_large(const char *name) {
    char path[800], *bytes = calloc(1, READ_SIZE);
    path_of(path, name);
    uint64_t ino = 0, lsn = 0;
    is_int(0, done(ACT_CREATE, name), "a large file");
    ino = number_of(name);
    memset(bytes, 'b', READ_SIZE);
    is_int(0, op_write(volume.store, ino, bytes, READ_SIZE, 0, 0, &lsn), "is filled");
    free(bytes);
}

/* More answers than are kept: the others become errors, now known to nobody. */
static void test_bound(void) {
    make_large("large");
    become_standby(); /* so that the kernel asks for its size */
    become_primary();
    is_int(0, done(ACT_STAT, "large"), "the kernel knows it");
    atomic_store(&only_answers, true);
    atomic_store(&reads_done, 0);
    begin(0, ACT_READ_ALL, "large");
    ok(until(all_read, NULL) && !answered_within(0, QUIET_MS), "%d reads of 1 MiB and more are done and not answered",
       READS_LEAST);
    atomic_store(&only_answers, false);
    struct result result = answer(0);
    is_int(READERS, result.good + result.bad, "with the lease they are: %d, and %d errors", result.good, result.bad);
    ok(result.bad >= READS_LEAST - 64 && result.good > 0, "64 MiB were kept, not more");
    is_int(0, done(ACT_UNLINK, "large"), "it is removed");
}

/* A hold waits in the mount for what the kernel writes back; it is not kept waiting. */
static void test_hold(void) {
    is_int(0, done(ACT_MAP, "file"), "a page is changed through mmap");
    lease_out();
    int64_t began = clock_boot();
    front_hold(volume.front);
    ok(clock_boot() - began < SECONDS * INT64_C(1000000000), "a switchover begins although the lease has run out");
    begin(0, ACT_STAT, "file");
    ok(!answered_within(0, QUIET_MS), "nothing is answered");
    become_standby();
    is_int(0, answer(0).error, "until the role changes");
    become_primary();
    is_int(0, done(ACT_WRITE, "file"), "it is primary again");
}

/* Locks are the primary's to grant, under its lease, and end with its term. */
static void test_locks(void) {
    is_int(0, done(ACT_LOCK, "file"), "the primary grants a lock");
    begin(1, ACT_LOCK, "file");
    is_int(-EWOULDBLOCK, answer(1).error, "once");
    begin(1, ACT_LOCK_WAIT, "file");
    ok(!answered_within(1, QUIET_MS), "another one waits for it");
    lease_out();
    begin(2, ACT_LOCK, "armed");
    ok(!answered_within(2, QUIET_MS), "without the lease none is granted");
    become_standby();
    is_int(-ENOLCK, answer(1).error, "the role changes: who waited hears that there are none");
    is_int(-ENOLCK, answer(2).error, "so does who came later");
    is_int(-ENOLCK, done(ACT_LOCK, "file"), "a standby grants none");
    become_primary();
    begin(1, ACT_LOCK, "file");
    is_int(0, answer(1).error, "primary again: what was locked then is free");
}

static void test_stop(void) {
    size_t one = 1;
    atomic_store(&acknowledges, false);
    begin(0, ACT_CREATE, "last");
    ok(until(waits_parked, &one), "a change waits for the other node");
    lease_out();
    acknowledge_all();
    begin(1, ACT_STAT, "unknown"); /* what the kernel does not know already */
    begin(2, ACT_OPENDIR, ".");
    ok(!answered_within(0, QUIET_MS) && !answered_within(1, 0), "nothing is answered without the lease");
    volume_stop();
    ok(answer(0).error != 0, "the mount ends: who waits for an answer hears an error");
    ok(answer(1).error != 1 && answer(2).error != 1, "and nobody hangs");
}

static void test_loop(enum request_loop loop, const char *name) {
    char why[512];
    diag("request-loop = %s", name);
    snprintf(store_at, sizeof store_at, "%s/%s", test_directory(), name);
    if (store_format(store_at, (const uint8_t *)"a volume's lease", "lease", 1700000000000000000, &(struct store_options){0}, why,
                     sizeof why))
        bail("%s", why);
    users_start();
    volume_start(loop);
    ok((volume.front->rings != NULL) == (loop == REQUEST_LOOP_IO_URING), "requests come by %s", name);
    test_held();
    test_parked();
    test_reads();
    test_held_again();
    if (loop == REQUEST_LOOP_DEVICE) /* a queue has no place for so many at one moment */
        test_bound();
    test_hold();
    test_locks();
    test_stop();
    users_end();
}

static pid_t owner;
static void unmount_at_exit(void) {
    if (getpid() != owner)
        return;
    for (unsigned i = 0; i < USERS; i++)
        if (users[i].pid > 0)
            kill(users[i].pid, SIGKILL);
    umount2(mount_at, MNT_FORCE);
    umount2(mount_at, MNT_DETACH);
}

int main(void) {
    plan_lazy();
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0)
        skip_all("needs root and /dev/fuse");
    signal(SIGPIPE, SIG_IGN);
    snprintf(mount_at, sizeof mount_at, "%s/mount", test_directory());
    owner = getpid();
    atexit(unmount_at_exit);
    if (mkdir(mount_at, 0755) < 0)
        bail("cannot set up %s", test_directory());
    test_loop(REQUEST_LOOP_DEVICE, "device");
    if (rings_possible(false))
        test_loop(REQUEST_LOOP_IO_URING, "io_uring");
    else
        skip(1, "FUSE over io_uring is not switched on in this kernel");
    return 0;
}
