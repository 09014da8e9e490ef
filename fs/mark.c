#include "fs/mark.h"

#include "fs/base.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mark_head {
    char magic[8];
    uint8_t incarnation[MARK_ID_SIZE];
    _Atomic uint64_t lsn;
};
struct mark_page { /* the head alone is a mark, too: there was nothing else once */
    struct mark_head head;
    _Atomic uint64_t newest; /* of `notes`: the one that counts */
    struct {
        uint64_t length;
        uint8_t bytes[MARK_NOTE_MAX];
    } notes[2];
};
static const char mark_magic[8] = "BATONMK1";
_Static_assert(sizeof(struct mark_head) == 32, "as it lies in the file");
_Static_assert(sizeof(struct mark_page) == 40 + 2 * (8 + MARK_NOTE_MAX), "likewise");

static const char *mark_directory(void) {
    const char *given = getenv("BATON_RUN");
    return given && given[0] ? given : "/run/baton";
}

static int mark_path(const struct stat *folder, char *path, size_t room) {
    int length = snprintf(path, room, "%s/%llx-%llx.mark", mark_directory(), (unsigned long long)folder->st_dev,
                          (unsigned long long)folder->st_ino);
    return length >= 0 && (size_t)length < room ? 0 : -ENAMETOOLONG;
}

/* The file's descriptor, its head checked; or a negative errno. */
static int mark_file(const char *path, int flags, struct mark_head *head) {
    struct stat st;
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : 0;
    if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_uid != geteuid()))
        rc = -ENOENT;
    if (rc == 0 && flags == 0 &&
        (pread_all(fd, head, sizeof *head, 0) != 0 || memcmp(head->magic, mark_magic, sizeof mark_magic) != 0))
        rc = -ENOENT;
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

int mark_read(const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t *lsn) {
    char path[4096];
    struct mark_head head;
    int rc = mark_path(folder, path, sizeof path);
    if (rc)
        return rc;
    AUTO_CLOSE int fd = mark_file(path, 0, &head);
    if (fd < 0)
        return fd;
    if (memcmp(head.incarnation, incarnation, MARK_ID_SIZE) != 0)
        return -ENOENT;
    *lsn = atomic_load(&head.lsn);
    return 0;
}

/* What the process before has left there, if it is of this incarnation, and whole. */
static void keep_note(int fd, struct mark_page *page) {
    struct mark_page found;
    if (pread_all(fd, &found, sizeof found, 0) != 0 ||
        memcmp(&found.head, &page->head, offsetof(struct mark_head, lsn)) != 0)
        return;
    uint64_t newest = atomic_load(&found.newest);
    if (newest > 1 || found.notes[newest].length > MARK_NOTE_MAX)
        return;
    atomic_store(&page->newest, newest);
    memcpy(page->notes, found.notes, sizeof page->notes);
}

static int make(struct mark *mark, const char *path, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn) {
    struct mark_page page = {.head = {.lsn = lsn}};
    memcpy(page.head.magic, mark_magic, sizeof mark_magic);
    memcpy(page.head.incarnation, incarnation, MARK_ID_SIZE);
    if (mkdir(mark_directory(), 0700) < 0 && errno != EEXIST)
        return -errno;
    AUTO_CLOSE int fd = mark_file(path, O_CREAT, &page.head);
    if (fd < 0)
        return fd;
    keep_note(fd, &page);
    /* Written before it is mapped: a page that a full file system has no memory for would be a SIGBUS. */
    int rc = pwrite_all(fd, &page, sizeof page, 0);
    if (rc)
        return rc;
    void *mapped = mmap(NULL, sizeof page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    mark->page = mapped;
    return 0;
}

int mark_open(struct mark *mark, const struct stat *folder, const uint8_t incarnation[MARK_ID_SIZE], uint64_t lsn) {
    char path[4096];
    mark->page = NULL;
    int rc = mark_path(folder, path, sizeof path);
    if (rc == 0 && (rc = make(mark, path, incarnation, lsn)) != 0)
        unlink(path); /* what the process before has left would be taken for this one's */
    return rc;
}

void mark_set(struct mark *mark, uint64_t lsn) {
    if (mark->page)
        atomic_store_explicit(&mark->page->head.lsn, lsn, memory_order_relaxed);
}

void mark_put_note(struct mark *mark, const void *bytes, size_t length) {
    PROMISE(length <= MARK_NOTE_MAX);
    if (!mark->page)
        return;
    uint64_t other = 1 - atomic_load(&mark->page->newest);
    mark->page->notes[other].length = length;
    if (length)
        memcpy(mark->page->notes[other].bytes, bytes, length);
    atomic_store(&mark->page->newest, other);
}

size_t mark_get_note(const struct mark *mark, void *bytes, size_t room) {
    if (!mark->page)
        return 0;
    uint64_t newest = atomic_load(&mark->page->newest);
    size_t length = mark->page->notes[newest].length;
    if (length > room)
        return 0;
    memcpy(bytes, mark->page->notes[newest].bytes, length);
    return length;
}

void mark_close(struct mark *mark) {
    if (mark->page)
        munmap(mark->page, sizeof *mark->page);
    mark->page = NULL;
}
