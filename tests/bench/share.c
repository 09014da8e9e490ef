/* share [-s MiB] [-n files] nfs|smb SERVER SHARE — measures a share by what programs do on it, over NFS version 3
 * (libnfs) or SMB (libsmbclient; the user and the password stand in BENCH_USER and BENCH_PASSWORD), one request of 1
 * MiB at a time, as one thread.
 *
 * Prints a line for each measure: name, figure, unit. Every figure is a rate: more is better. What it made is removed.
 *
 * What is read cold: the page cache and the inodes of the whole machine are dropped before, so the server has to be on
 * it, and this needs root. Servers keep what they keep in their own memory. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <nfsc/libnfs.h>

#ifdef HAVE_SMBCLIENT
#include <libsmbclient.h>
#endif

enum { REQUEST = 1 << 20, BLOCK = 4096, FILES_IN_DIRECTORY = 100 };

static uint64_t size_mib = 256, files = 1000;
static uint8_t buffer[REQUEST];

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "share: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* ---- What a client does; each returns 0 or dies with the reason ---- */
struct client {
    const char *name;
    void (*attach)(const char *server, const char *share);
    void (*make)(const char *path); /* a directory */
    void (*open)(const char *path, bool create);
    void (*write)(const void *bytes, uint64_t count, uint64_t offset);
    uint64_t (*read)(void *bytes, uint64_t count, uint64_t offset);
    void (*sync)(void); /* may be NULL */
    void (*close)(void);
    void (*stat)(const char *path);
    void (*unlink)(const char *path);
    void (*remove)(const char *path); /* a directory */
};

static struct nfs_context *nfs;
static struct nfsfh *nfs_file;
static void nfs_check(int result, const char *what, const char *path) {
    if (result < 0)
        die("%s %s: %s", what, path, nfs_get_error(nfs));
}
static void over_nfs_attach(const char *server, const char *share) {
    nfs = nfs_init_context();
    if (!nfs)
        die("no memory");
    nfs_check(nfs_mount(nfs, server, share), "mounting", share);
}
static void over_nfs_make(const char *path) {
    nfs_check(nfs_mkdir(nfs, path), "making", path);
}
static void over_nfs_open(const char *path, bool create) {
    nfs_check(create ? nfs_creat(nfs, path, 0644, &nfs_file) : nfs_open(nfs, path, O_RDONLY, &nfs_file), "opening",
              path);
}
static void over_nfs_write(const void *bytes, uint64_t count, uint64_t offset) {
    int result = nfs_pwrite(nfs, nfs_file, offset, count, bytes);
    nfs_check(result, "writing", "");
    if ((uint64_t)result != count)
        die("a short write");
}
static uint64_t over_nfs_read(void *bytes, uint64_t count, uint64_t offset) {
    int result = nfs_pread(nfs, nfs_file, offset, count, bytes);
    nfs_check(result, "reading", "");
    return (uint64_t)result;
}
static void over_nfs_sync(void) {
    nfs_check(nfs_fsync(nfs, nfs_file), "committing", "");
}
static void over_nfs_close(void) {
    nfs_check(nfs_close(nfs, nfs_file), "closing", "");
}
static void over_nfs_stat(const char *path) {
    struct nfs_stat_64 status;
    nfs_check(nfs_lstat64(nfs, path, &status), "looking at", path);
}
static void over_nfs_unlink(const char *path) {
    nfs_check(nfs_unlink(nfs, path), "unlinking", path);
}
static void over_nfs_remove(const char *path) {
    nfs_check(nfs_rmdir(nfs, path), "removing", path);
}

#ifdef HAVE_SMBCLIENT
static char smb_root[256], smb_url[4096];
static int smb_file;
static void smb_account(const char *server, const char *share, char *group, int group_size, char *user, int user_size,
                        char *password, int password_size) {
    const char *name = getenv("BENCH_USER"), *word = getenv("BENCH_PASSWORD");
    (void)server, (void)share, (void)group, (void)group_size;
    snprintf(user, (size_t)user_size, "%s", name ? name : "");
    snprintf(password, (size_t)password_size, "%s", word ? word : "");
}
static const char *smb_at(const char *path) {
    snprintf(smb_url, sizeof(smb_url), "%s%s", smb_root, path);
    return smb_url;
}
static void smb_check(int result, const char *what, const char *path) {
    if (result < 0)
        die("%s %s: %s", what, path, strerror(errno));
}
static void over_smb_attach(const char *server, const char *share) {
    snprintf(smb_root, sizeof(smb_root), "smb://%s/%s", server, share);
    smb_check(smbc_init(smb_account, 0), "starting", "libsmbclient");
}
static void over_smb_make(const char *path) {
    smb_check(smbc_mkdir(smb_at(path), 0755), "making", path);
}
static void over_smb_open(const char *path, bool create) {
    smb_file = smbc_open(smb_at(path), create ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY, 0644);
    smb_check(smb_file, "opening", path);
}
static void over_smb_write(const void *bytes, uint64_t count, uint64_t offset) {
    (void)offset; /* in order always */
    if (smbc_write(smb_file, bytes, count) != (ssize_t)count)
        die("writing: %s", strerror(errno));
}
static uint64_t over_smb_read(void *bytes, uint64_t count, uint64_t offset) {
    (void)offset;
    ssize_t result = smbc_read(smb_file, bytes, count);
    smb_check((int)result, "reading", "");
    return (uint64_t)result;
}
static void over_smb_close(void) {
    smb_check(smbc_close(smb_file), "closing", "");
}
static void over_smb_stat(const char *path) {
    struct stat status;
    smb_check(smbc_stat(smb_at(path), &status), "looking at", path);
}
static void over_smb_unlink(const char *path) {
    smb_check(smbc_unlink(smb_at(path)), "unlinking", path);
}
static void over_smb_remove(const char *path) {
    smb_check(smbc_rmdir(smb_at(path)), "removing", path);
}
#endif

static const struct client clients[] = {
    {"nfs", over_nfs_attach, over_nfs_make, over_nfs_open, over_nfs_write, over_nfs_read, over_nfs_sync, over_nfs_close,
     over_nfs_stat, over_nfs_unlink, over_nfs_remove},
#ifdef HAVE_SMBCLIENT
    {"smb", over_smb_attach, over_smb_make, over_smb_open, over_smb_write, over_smb_read, NULL, over_smb_close,
     over_smb_stat, over_smb_unlink, over_smb_remove},
#endif
};
static const struct client *client;

/* ---- Measures ---- */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static void report(const char *name, double amount, double begin, const char *unit) {
    printf("%s, %s\t%.1f\t%s\n", client->name, name, amount / (now() - begin), unit);
    fflush(stdout);
}
static void drop_caches(void) {
    sync();
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1)
        die("the caches cannot be dropped: %s", strerror(errno));
    close(fd);
}

static void sequential(void) {
    double begin = now();
    client->open("/large", true);
    for (uint64_t i = 0; i < size_mib; i++) {
        memcpy(buffer, &i, sizeof(i));
        client->write(buffer, REQUEST, i * REQUEST);
    }
    if (client->sync)
        client->sync();
    client->close();
    report(client->sync ? "sequential write and commit" : "sequential write and close", (double)size_mib, begin,
           "MiB/s");

    drop_caches();
    begin = now();
    client->open("/large", false);
    for (uint64_t i = 0; i < size_mib; i++) {
        uint64_t number;
        for (uint64_t got = 0, more; got < REQUEST; got += more)
            if ((more = client->read(buffer + got, REQUEST - got, i * REQUEST + got)) == 0)
                die("the file ends too early");
        memcpy(&number, buffer, sizeof(number));
        if (number != i)
            die("MiB %" PRIu64 " reads as %" PRIu64, i, number);
    }
    client->close();
    report("sequential read, cold", (double)size_mib, begin, "MiB/s");
    client->unlink("/large");
}

static const char *file_of(uint64_t i) {
    static char path[64];
    snprintf(path, sizeof(path), "/small/%" PRIu64 "/file.%" PRIu64, i / FILES_IN_DIRECTORY, i);
    return path;
}
static const char *directory_of(uint64_t i) {
    static char path[64];
    snprintf(path, sizeof(path), "/small/%" PRIu64, i / FILES_IN_DIRECTORY);
    return path;
}
static void create_one(const char *path) {
    client->open(path, true);
    client->write(buffer, BLOCK, 0);
    client->close();
}
static void read_one(const char *path) {
    static uint8_t bytes[BLOCK];
    client->open(path, false);
    if (client->read(bytes, BLOCK, 0) != BLOCK)
        die("%s is short", path);
    client->close();
}
static void many(const char *name, bool cold, void (*each)(const char *)) {
    if (cold)
        drop_caches();
    double begin = now();
    for (uint64_t i = 0; i < files; i++)
        each(file_of(i));
    report(name, (double)files, begin, "/s");
}
static void small(void) {
    client->make("/small");
    for (uint64_t i = 0; i < files; i += FILES_IN_DIRECTORY)
        client->make(directory_of(i));
    many("create + write 4 KiB + close", false, create_one);
    many("stat", false, client->stat);
    many("read small files", false, read_one);
    many("stat, cold", true, client->stat);
    many("read small files, cold", true, read_one);
    many("unlink", false, client->unlink);
    for (uint64_t i = 0; i < files; i += FILES_IN_DIRECTORY)
        client->remove(directory_of(i));
    client->remove("/small");
}

static uint64_t number(const char *text) {
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*end != '\0' || value == 0 || value > 1u << 24)
        die("\"%s\" is no number from 1 to %u", text, 1u << 24);
    return value;
}

int main(int count, char **arguments) {
    int option;

    while ((option = getopt(count, arguments, "s:n:")) != -1) {
        if (option == 's')
            size_mib = number(optarg);
        else if (option == 'n')
            files = number(optarg);
        else
            return 2;
    }
    if (count - optind != 3)
        return fprintf(stderr, "usage: share [-s MiB] [-n files] nfs|smb SERVER SHARE\n"), 2;
    for (size_t i = 0; i < sizeof(clients) / sizeof(*clients); i++)
        if (strcmp(arguments[optind], clients[i].name) == 0)
            client = &clients[i];
    if (!client)
        die("%s is no protocol that this was built for", arguments[optind]);
    uint64_t state = 4;
    for (unsigned i = 0; i < REQUEST; i += 8) { /* not compressible */
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(buffer + i, &state, sizeof(state));
    }
    client->attach(arguments[optind + 1], arguments[optind + 2]);
    sequential();
    small();
    return 0;
}
