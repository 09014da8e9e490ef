#include "fs/mark.h"

#include "fs/base.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct mark_page {
    char magic[8];
    uint8_t incarnation[MARK_ID_SIZE];
    _Atomic uint64_t lsn;
};
static const char mark_magic[8] = "BATONMK1";
_Static_assert(sizeof(struct mark_page) == 32, "as it lies in the file");

static const char *mark_directory(void) {
    const char *given = getenv("BATON_RUN");
    return given && given[0] ? given : "/run/baton";
}

static int mark_path(const struct stat *folder, char *path, size_t room) {
    int length = snprintf(path, room, "%s/%llx-%llx.mark", mark_directory(), (unsigned long long)folder->st_dev,
                          (unsigned long long)folder->st_ino);
    return length >= 0 && (size_t)length < room ? 0 : -ENAMETOOLONG;
}

/* The file's descriptor, its content checked; or a negative errno. */
static int mark_file(const char *path, int flags, struct mark_page *page) {
    struct stat st;
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : 0;
    if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_uid != geteuid()))
        rc = -ENOENT;
    if (rc == 0 && flags == 0 &&
        (pread_all(fd, page, sizeof *page, 0) != 0 || memcmp(page->magic, mark_magic, sizeof mark_magic) != 0))
        rc = -ENOENT;
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

int mark_read(const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t *lsn) {
    char path[4096];
    struct mark_page page;
    int rc = mark_path(folder, path, sizeof path);
    if (rc)
        return rc;
    AUTO_CLOSE int fd = mark_file(path, 0, &page);
    if (fd < 0)
        return fd;
    if (memcmp(page.incarnation, incarnation, MARK_ID_SIZE) != 0)
        return -ENOENT;
    *lsn = atomic_load(&page.lsn);
    return 0;
}

int mark_open(struct mark *mark, const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn) {
    char path[4096];
    struct mark_page page = {.lsn = lsn};
    memcpy(page.magic, mark_magic, sizeof mark_magic);
    memcpy(page.incarnation, incarnation, MARK_ID_SIZE);
    mark->page = NULL;
    int rc = mark_path(folder, path, sizeof path);
    if (rc)
        return rc;
    if (mkdir(mark_directory(), 0700) < 0 && errno != EEXIST)
        return -errno;
    AUTO_CLOSE int fd = mark_file(path, O_CREAT, &page);
    if (fd < 0)
        return fd;
    /* Written before it is mapped: a page that a full file system has no memory for would be a SIGBUS. */
    rc = pwrite_all(fd, &page, sizeof page, 0);
    if (rc)
        return rc;
    void *mapped = mmap(NULL, sizeof page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    mark->page = mapped;
    return 0;
}

void mark_set(struct mark *mark, uint64_t lsn) {
    if (mark->page)
        atomic_store_explicit(&mark->page->lsn, lsn, memory_order_relaxed);
}

void mark_close(struct mark *mark) {
    if (mark->page)
        munmap(mark->page, sizeof *mark->page);
    mark->page = NULL;
}
