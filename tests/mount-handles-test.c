/* File handles (open_by_handle_at, as NFS servers use them) work after the kernel's caches were dropped and after the
 * daemon was killed and started again; a handle of a file that is gone is ESTALE. */
#include "tests/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct file_handle *handle_of(const char *path) {
    struct file_handle *handle = calloc(1, sizeof *handle + MAX_HANDLE_SZ);
    int mount_id;

    handle->handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(AT_FDCWD, path, handle, &mount_id, 0) < 0)
        bail("name_to_handle_at %s: %s", path, strerror(errno));
    return handle;
}

static int open_handle(struct file_handle *handle, int flags) {
    int mount = open(rig_path("."), O_RDONLY | O_DIRECTORY);
    int fd = open_by_handle_at(mount, handle, flags);
    int error = errno;
    close(mount);
    return fd < 0 ? -error : fd;
}

static void is_content(struct file_handle *handle, const char *content, const char *what) {
    char seen[64] = "";
    int fd = open_handle(handle, O_RDONLY);

    if (fd < 0 || read(fd, seen, sizeof seen - 1) < 0)
        diag("open_by_handle_at: %s", strerror(fd < 0 ? -fd : errno));
    is_string(content, seen, "%s", what);
    if (fd >= 0)
        close(fd);
}

static void put(const char *name, const char *content) {
    int fd = open(rig_path(name), O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0 || write(fd, content, strlen(content)) < 0 || fsync(fd) < 0)
        bail("%s: %s", name, strerror(errno));
    close(fd);
}

static bool stale(void *handle) {
    rig_drop_caches();
    int fd = open_handle(handle, O_RDONLY);
    if (fd >= 0)
        close(fd);
    return fd == -ESTALE;
}

int main(void) {
    plan_lazy();
    rig_create("acknowledge = close");
    if (!rig_start("--orphan-grace 1s"))
        bail("batond does not start");

    mkdir(rig_path("d"), 0755);
    mkdir(rig_path("d/e"), 0755);
    put("d/e/file", "content");
    put("gone", "soon");
    struct file_handle *file = handle_of(rig_path("d/e/file")), *directory = handle_of(rig_path("d/e")),
                       *gone = handle_of(rig_path("gone"));
    is_content(file, "content", "a handle works");
    rig_drop_caches();
    is_content(file, "content", "after the caches were dropped");
    rename(rig_path("d/e/file"), rig_path("elsewhere"));
    rig_drop_caches();
    is_content(file, "content", "after a rename");
    int fd = open_handle(directory, O_RDONLY | O_DIRECTORY);
    ok(fd >= 0, "a directory's handle works");
    ok(faccessat(fd, "../../elsewhere", F_OK, 0) == 0, "and its parents are found");
    close(fd);

    rig_stop(SIGKILL);
    ok(rig_start("--orphan-grace 1s"), "the daemon is killed and started again");
    is_content(file, "content", "the handle works still");
    rig_drop_caches();
    fd = open_handle(directory, O_RDONLY | O_DIRECTORY);
    ok(fd >= 0 && faccessat(fd, "../../elsewhere", F_OK, 0) == 0, "the directory's, too");
    close(fd);

    unlink(rig_path("gone"));
    ok(rig_until(60, stale, gone), "a handle of a removed file becomes stale");
    put("gone", "another");
    is_int(-ESTALE, open_handle(gone, O_RDONLY), "and stays so when the name is used again");
    fd = open(rig_path("d"), O_RDONLY | O_DIRECTORY);
    is_int(0, rig_stop(SIGTERM), "batond ends cleanly, with a directory still open"); /* LeakSanitizer looks, too */
    close(fd);
    free(file);
    free(directory);
    free(gone);
    return 0;
}
