/* Files in a real mount: what goes beyond pjdfstest (O_TMPFILE, birth times, holes, appends, copies, mmap, direct and
 * synchronous I/O), through the kernel and with its caches dropped. */
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int make(const char *name, int flags) {
    int fd = open(rig_path(name), O_CREAT | O_RDWR | flags, 0644);
    if (fd < 0)
        bail("%s: %s", name, strerror(errno));
    return fd;
}

static off_t size_of(const char *name) {
    struct stat about;
    return stat(rig_path(name), &about) < 0 ? -errno : about.st_size;
}

static void test_tmpfile(void) {
    struct stat about;
    char link_path[64];
    int fd = open(rig_path("."), O_TMPFILE | O_RDWR, 0600);

    if (!ok(fd >= 0, "O_TMPFILE makes a file without a name"))
        return;
    is_int(3, write(fd, "abc", 3), "it can be written");
    fstat(fd, &about);
    is_int(0, about.st_nlink, "it has no links");
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    is_int(0, linkat(AT_FDCWD, link_path, AT_FDCWD, rig_path("named"), AT_SYMLINK_FOLLOW), "it can be given a name");
    fstat(fd, &about);
    is_int(1, about.st_nlink, "then it has a link");
    close(fd);
    rig_drop_caches();
    is_int(3, size_of("named"), "and stays");
}

static void test_birth(void) {
    struct statx a, b;

    close(make("born", 0));
    is_int(0, statx(AT_FDCWD, rig_path("born"), 0, STATX_BASIC_STATS | STATX_BTIME, &a), "statx");
    ok(a.stx_mask & STATX_BTIME, "gives a birth time");
    usleep(2000);
    chmod(rig_path("born"), 0600);
    statx(AT_FDCWD, rig_path("born"), 0, STATX_BASIC_STATS | STATX_BTIME, &b);
    ok(a.stx_btime.tv_sec == b.stx_btime.tv_sec && a.stx_btime.tv_nsec == b.stx_btime.tv_nsec,
       "which stays when the inode changes");
    ok(b.stx_ctime.tv_sec > a.stx_ctime.tv_sec || b.stx_ctime.tv_nsec > a.stx_ctime.tv_nsec, "unlike the ctime");
    is_int(0600 | S_IFREG, b.stx_mode, "the rest of statx is right, too");
}

static void test_holes(void) {
    int fd = make("holes", 0);
    char buffer[4096] = "x";
    const off_t far = (off_t)5 << 40;

    is_int(1, pwrite(fd, "x", 1, far), "a byte behind 5 TiB");
    is_int(far + 1, lseek(fd, 0, SEEK_END), "the size says so");
    is_int(far, lseek(fd, 0, SEEK_DATA), "SEEK_DATA finds it");
    is_int(0, lseek(fd, 0, SEEK_HOLE), "SEEK_HOLE finds the hole before");
    is_int(1, pread(fd, buffer, 1, 12345), "holes are read");
    is_int(0, buffer[0], "as zeros");
    is_int(0, ftruncate(fd, 0), "truncated");
    is_int(-1, lseek(fd, 0, SEEK_DATA), "nothing is left");
    for (int i = 0; i < 8; i++)
        pwrite(fd, memset(buffer, 'a' + i, sizeof buffer), sizeof buffer, i * 4096);
    is_int(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096 + 100, 8192), "a hole is punched");
    pread(fd, buffer, 4096, 4096);
    ok(buffer[99] == 'b' && buffer[100] == 0, "up to its very bytes");
    is_int(0, fallocate(fd, FALLOC_FL_ZERO_RANGE, 5 * 4096, 4096), "a range is zeroed");
    is_int(1, pread(fd, buffer, 1, 5 * 4096), "and read");
    is_int(0, buffer[0], "as zero");
    is_int(0, fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20), "space is set aside");
    is_int(8 * 4096, size_of("holes"), "without changing the size");
    is_int(-1, fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), "a range cannot be collapsed");
    is_int(EOPNOTSUPP, errno, "and it says so");
    close(fd);
}

static void test_whiteout(void) {
    struct stat about;

    close(make("moved", 0));
    is_int(0, renameat2(AT_FDCWD, rig_path("moved"), AT_FDCWD, rig_path("away"), RENAME_WHITEOUT), "RENAME_WHITEOUT");
    is_int(0, lstat(rig_path("moved"), &about), "leaves something");
    is_int(S_IFCHR, about.st_mode, "a character device");
    is_int(0, (int64_t)about.st_rdev, "0:0");
    is_int(0, size_of("away"), "the file has the new name");
    rig_drop_caches();
    is_int(0, lstat(rig_path("moved"), &about), "the whiteout is still there");
    is_int(0, renameat2(AT_FDCWD, rig_path("away"), AT_FDCWD, rig_path("moved"), 0), "it can be renamed over");
    is_int(0, size_of("moved"), "the file is back");
    is_int(-ENOENT, size_of("away"), "with one name");
}

static void test_append(void) {
    int a = make("append", O_APPEND), b = make("append", O_APPEND);

    for (int i = 0; i < 100; i++) {
        write(a, "aa", 2);
        write(b, "b", 1);
    }
    is_int(300, size_of("append"), "two appenders lose nothing");
    close(a);
    close(b);
}

static void test_copy(void) {
    int from = make("from", 0), to = make("to", 0);
    static char out[300000], in[300000];
    off_t at = 1000, to_at = 77;

    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)(i * 7 + i / 4096);
    write(from, out, sizeof out);
    is_int(200000, copy_file_range(from, &at, to, &to_at, 200000, 0), "copy_file_range");
    is_int(200000, pread(to, in, 200000, 77), "what was copied can be read");
    ok(memcmp(in, out + 1000, 200000) == 0, "and is the same");
    close(from);
    close(to);
}

static void test_mmap(void) {
    int fd = make("mapped", 0);
    char seen[5] = "";

    ftruncate(fd, 1 << 20);
    char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!ok(map != MAP_FAILED, "a file is mapped, shared and writable"))
        return;
    memcpy(map + 70000, "there", 5);
    pread(fd, seen, 5, 70000);
    ok(memcmp(seen, "there", 5) == 0, "read shows what was stored");
    pwrite(fd, "THERE", 5, 70000);
    ok(memcmp(map + 70000, "THERE", 5) == 0, "the map shows what was written");
    memcpy(map + 200000, "later", 5);
    is_int(0, msync(map, 1 << 20, MS_SYNC), "msync");
    munmap(map, 1 << 20);
    close(fd);
    rig_drop_caches();
    fd = open(rig_path("mapped"), O_RDONLY);
    pread(fd, seen, 5, 200000);
    ok(memcmp(seen, "later", 5) == 0, "what was stored is there after the caches were dropped");
    const char *private = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, fd, 0);
    ok(private != MAP_FAILED && memcmp(private + 70000, "THERE", 5) == 0, "a private map shows it, too");
    close(fd);
}

static void test_direct(void) {
    int fd = make("direct", O_DIRECT | O_SYNC);
    void *block;

    if (posix_memalign(&block, 4096, 65536))
        bail("no memory");
    memset(block, 'd', 65536);
    is_int(65536, pwrite(fd, block, 65536, 4096), "O_DIRECT writes");
    memset(block, 0, 65536);
    is_int(65536, pread(fd, block, 65536, 4096), "and reads");
    ok(((char *)block)[65535] == 'd', "the same");
    close(fd);
    free(block);
}

static void test_limits(void) {
    char name[300];
    struct statvfs space;
    static char value[65537];

    memset(name, 'n', sizeof name);
    name[255] = 0;
    close(make(name, 0));
    is_int(0, size_of(name), "a name of 255 bytes");
    name[255] = 'n';
    name[256] = 0;
    ok(open(rig_path(name), O_CREAT | O_RDWR, 0600) < 0 && errno == ENAMETOOLONG, "256 are too long");
    is_int(-ENAMETOOLONG, size_of(name), "also to look for");
    is_int(0, statvfs(rig_path("."), &space), "statfs");
    is_int(255, space.f_namemax, "tells the longest name");
    ok(space.f_bavail <= space.f_blocks && space.f_blocks > 0, "and plausible sizes");
    close(make("attributes", 0));
    is_int(0, setxattr(rig_path("attributes"), "user.large", value, 60000, 0), "an attribute of 60,000 bytes");
    is_int(60000, getxattr(rig_path("attributes"), "user.large", value, sizeof value), "can be read");
    ok(setxattr(rig_path("attributes"), "user.huge", value, 65537, 0) < 0 && errno == E2BIG, "64 KiB are the limit");
    ok(getxattr(rig_path("attributes"), "user.large", value, 10) < 0 && errno == ERANGE, "ERANGE for a small buffer");
    ok(setxattr(rig_path("attributes"), "user.large", value, 1, XATTR_CREATE) < 0 && errno == EEXIST, "XATTR_CREATE");
}

/* The way to the mount is not open to others. */
static void become_nobody(void) {
    if (chdir(rig_path(".")) || setgid(4321) || setuid(4321))
        _exit(2);
}

/* Set-id bits go when somebody who may not keep them writes (FUSE_HANDLE_KILLPRIV_V2). */
static void test_set_id(void) {
    struct stat about;
    int fd = make("setid", 0), status = 1;

    fchmod(fd, 06777);
    close(fd);
    pid_t child = fork();
    if (child == 0) {
        become_nobody();
        int own = open("setid", O_WRONLY);
        _exit(own >= 0 && write(own, "x", 1) == 1 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    is_int(0, status, "an unprivileged user writes a set-id file");
    stat(rig_path("setid"), &about);
    is_int(0777, about.st_mode & 07777, "set-id bits are gone");
    chmod(rig_path("setid"), 06777);
    child = fork();
    if (child == 0) {
        become_nobody();
        _exit(truncate("setid", 0) ? 1 : 0);
    }
    waitpid(child, &status, 0);
    stat(rig_path("setid"), &about);
    is_int(0777, about.st_mode & 07777, "also after a truncate");
    chmod(rig_path("setid"), 06777);
    child = fork();
    if (child == 0) {
        become_nobody();
        _exit(open("setid", O_WRONLY | O_TRUNC) < 0 ? 1 : 0);
    }
    waitpid(child, &status, 0);
    stat(rig_path("setid"), &about);
    is_int(0777, about.st_mode & 07777, "and after an open with O_TRUNC");
    chmod(rig_path("setid"), 06777);
    fd = open(rig_path("setid"), O_WRONLY);
    write(fd, "y", 1);
    close(fd);
    stat(rig_path("setid"), &about);
    is_int(06777, about.st_mode & 07777, "root keeps them");
}

int main(void) {
    plan_lazy();
    rig_create("acknowledge = never");
    if (!rig_start(""))
        bail("batond does not start");
    umask(0);
    test_tmpfile();
    test_birth();
    test_holes();
    test_whiteout();
    test_append();
    test_copy();
    test_mmap();
    test_direct();
    test_limits();
    test_set_id();
    is_int(0, rig_stop(SIGTERM), "batond ends cleanly");
    return 0;
}
