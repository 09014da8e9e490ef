#include "fs/front_private.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define READ_AHEAD_KIB 1024
#define COPIES_TRIES 100u /* of a millisecond */

static const struct mount_option {
    const char *name;
    unsigned long set, clear;
} options[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"dev", 0, MS_NODEV},
    {"nodev", MS_NODEV, 0},
    {"suid", 0, MS_NOSUID},
    {"nosuid", MS_NOSUID, 0},
    {"exec", 0, MS_NOEXEC},
    {"noexec", MS_NOEXEC, 0},
    {"atime", 0, MS_NOATIME},
    {"noatime", MS_NOATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, MS_NOATIME | MS_RELATIME},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"lazytime", 0, 0}, /* times are written lazily anyway: with the next batch */
    {"nolazytime", 0, 0},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
    {"defaults", 0, 0},
    {"allow_other", 0, 0}, /* always */
    {"default_permissions", 0, 0},
};

static int parse_options(struct front *front, char *why, size_t why_room) {
    char list[sizeof front->volume->config.options], *rest = list;

    snprintf(list, sizeof list, "%s", front->volume->config.options);
    for (char *word; (word = strsep(&rest, ", "));) {
        size_t i = 0, count = sizeof options / sizeof *options;
        while (*word && i < count && strcmp(options[i].name, word) != 0)
            i++;
        if (i == count) {
            snprintf(why, why_room,
                     "mount option \"%s\" is unknown; known are ro, dev, suid, exec, atime, diratime, sync, "
                     "their opposites with \"no\", relatime and strictatime",
                     word);
            return -EINVAL;
        }
        if (*word)
            front->mount_flags = (front->mount_flags & ~options[i].clear) | options[i].set;
    }
    return 0;
}

static bool lies_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 &&
           (path[length] == '/' || path[length] == 0 || strcmp(directory, "/") == 0);
}

#define DYING_TRIES 60u
#define DYING_PAUSE_US 100000u

int mount_prepare(struct front *front, char *why, size_t why_room) {
    const char *wanted = front->volume->self->mount;
    char store[PATH_MAX], mount[PATH_MAX], device[24];
    struct stat about;
    bool usable;

    int error = parse_options(front, why, why_room);
    if (error)
        return error;
    errno = 0;
    usable = realpath(wanted, mount) != NULL;
    /* One that was killed just now may not have let go of its mount yet: the store's lock is free before that. */
    for (unsigned i = 0; usable && !(front->over_dead = dead_one_left(mount)) && front_device(mount, device) > 0 && i < DYING_TRIES; i++)
        usleep(DYING_PAUSE_US);
    if (!usable || (!front->over_dead && (stat(mount, &about) < 0 || !S_ISDIR(about.st_mode)))) {
        error = errno ? -errno : -ENOTDIR;
        snprintf(why, why_room, "the mount point %s cannot be used: %s; make the directory", wanted, strerror(-error));
        return error;
    }
    if (!realpath(store_path(front->store), store)) {
        error = -errno;
        snprintf(why, why_room, "the store %s is not there: %s", store_path(front->store), strerror(-error));
        return error;
    }
    if (lies_in(store, mount) || lies_in(mount, store)) {
        snprintf(why, why_room, "the store %s and the mount point %s lie in each other; choose another mount point",
                 store, mount);
        return -EINVAL;
    }
    if ((!front->over_dead && front_device(mount, device) > 0) || strlen(mount) >= sizeof front->mount) {
        snprintf(why, why_room, "a volume is mounted at %s already; unmount it, or choose another mount point", mount);
        return -EBUSY;
    }
    strcpy(front->mount, mount);
    return 0;
}

int mount_attach(struct front *front, char *why, size_t why_room) {
    front->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (front->fd < 0) {
        int error = -errno;
        snprintf(why, why_room, "/dev/fuse cannot be opened: %s; load the kernel's fuse module, and run as root",
                 strerror(-error));
        return error;
    }
    struct mounting what = {front->volume->config.volume, front->fd, front->mount_flags, true};
    int error = front->over_dead ? mount_replace(&what, front->mount) : mount_new(&what, front->mount);
    if (error) {
        snprintf(why, why_room, "cannot mount at %s: %s", front->mount, strerror(-error));
        return error;
    }
    front->mounted = true;
    return 0;
}

/* What was written through mmap is in the kernel only; a umount of an idle mount brings it here by itself. */
void mount_flush(struct front *front) {
    AUTO_CLOSE int fd = open(front->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && syncfs(fd) < 0)
        log_warning("what was written through mmap could not all be taken over from the kernel: %s", strerror(errno));
}

/* Ends a connection by its number, wherever the mount may be still. */
static int abort_connection(unsigned number) {
    char path[32];
    AUTO_CLOSE int context = fsopen("fusectl", FSOPEN_CLOEXEC);
    if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    AUTO_CLOSE int control = fsmount(context, FSMOUNT_CLOEXEC, 0);
    snprintf(path, sizeof path, "%u/abort", number);
    AUTO_CLOSE int fd = control < 0 ? -1 : openat(control, path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, "1", 1) != 1 ? -errno : 0;
}

/* A mount is copied with each new mount namespace (a service with PrivateTmp, a container), and the connection lives until the last
 * copy has gone: nobody waits for that. */
static void end_copies(struct front *front) {
    for (unsigned i = 0; i < COPIES_TRIES && front->worker_started > 0 && !front_ended(front); i++)
        usleep(1000);
    if (front->worker_started == 0 || front_ended(front))
        return;
    log_info("another mount namespace has a copy of %s; who uses it gets errors from now on", front->mount);
    int error = abort_connection(front->connection);
    if (error)
        log_error("the connection of %s cannot be ended: %s; it ends when that namespace does", front->mount, strerror(-error));
}

void mount_detach(struct front *front) {
    front->mounted = false;
    if (front_ended(front)) { /* unmounted from outside, or the connection failed and left a dead mount */
        dead_clear(front->mount);
        return;
    }
    if (front->worker_started > 0)
        mount_flush(front);
    if (umount2(front->mount, 0) == 0) {
        end_copies(front);
        return;
    }
    if (errno == EINVAL || errno == ENOENT)
        return;
    log_info("%s is in use; who uses it gets errors from now on", front->mount);
    umount2(front->mount, MNT_FORCE); /* ends the connection */
    umount2(front->mount, MNT_DETACH);
}

/* The kernel's readahead, 128 KiB by default for FUSE, makes sequential reading wait for many round trips. Without
 * sysfs it stays so. */
void mount_tune(struct front *front) {
    struct stat about;
    char path[64], text[16];

    if (stat(front->mount, &about) < 0)
        return;
    front->connection = minor(about.st_dev);
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(about.st_dev), minor(about.st_dev));
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    int length = snprintf(text, sizeof text, "%d\n", READ_AHEAD_KIB);
    if (fd < 0 || write(fd, text, (size_t)length) < 0)
        log_debug("readahead stays as it is: %s: %s", path, strerror(errno));
}
