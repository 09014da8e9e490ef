/* Mounts that have died, and others that take their place without the directory below being seen. A mount dies with the last
 * process that has its device open. Then all is ENOTCONN but for what the kernel has cached: so nobody asks it for a stat.
 */
#include "fs/front_private.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/statvfs.h>

#define LAYERS_MAX 16
#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x200 /* Linux 6.5 */
#endif

static bool is_dead(const char *path) {
    struct statvfs ignored;
    return statvfs(path, &ignored) < 0 && (errno == ENOTCONN || errno == ECONNABORTED || errno == ECONNREFUSED);
}

/* One of those that are mounted there. */
struct layer {
    unsigned number, parent;
    char device[24];
    bool ours;
};

/* A line of mountinfo: number, parent, device, root, where, … It writes blanks as \040. */
static bool read_layer(char *line, const char *escaped, struct layer *layer) {
    char *rest = line, *fields[5] = {0};
    for (int i = 0; i < 5; i++)
        fields[i] = strsep(&rest, " ");
    if (!fields[4] || !rest || strcmp(fields[4], escaped) != 0)
        return false;
    layer->number = (unsigned)strtoul(fields[0], NULL, 10);
    layer->parent = (unsigned)strtoul(fields[1], NULL, 10);
    layer->ours = strstr(rest, " - fuse.baton ") != NULL;
    snprintf(layer->device, sizeof layer->device, "%s", fields[2]);
    return true;
}

static unsigned read_layers(const char *path, struct layer layers[LAYERS_MAX]) {
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[4 * PATH_MAX], escaped[4 * PATH_MAX], *to = escaped;
    unsigned count = 0;

    if (!file)
        return 0;
    for (const char *at = path; *at && to < escaped + sizeof escaped - 5; at++)
        to += strchr(" \t\n\\", *at) ? sprintf(to, "\\%03o", (unsigned char)*at) : (*to = *at, 1);
    *to = 0;
    while (count < LAYERS_MAX && fgets(line, sizeof line, file))
        count += read_layer(line, escaped, &layers[count]);
    fclose(file);
    return count;
}

/* Seen is the one that no other one there is mounted on. */
unsigned front_device(const char *path, char device[24]) {
    struct layer layers[LAYERS_MAX];
    unsigned count = read_layers(path, layers), ours = 0;

    device[0] = 0;
    for (unsigned i = 0; i < count; i++) {
        bool covered = false;
        for (unsigned j = 0; j < count; j++)
            covered = covered || layers[j].parent == layers[i].number;
        ours += layers[i].ours;
        if (!covered && layers[i].ours)
            memcpy(device, layers[i].device, sizeof layers[i].device);
    }
    return ours;
}

void dead_clear(const char *path) {
    for (int tries = 0; tries < LAYERS_MAX && is_dead(path) && umount2(path, MNT_DETACH) == 0; tries++)
        log_info("cleared the mount that a dead daemon had left at %s", path);
}

bool dead_one_left(const char *path) {
    char device[24];
    for (int tries = 0; tries < LAYERS_MAX && is_dead(path); tries++) {
        if (front_device(path, device) == 1)
            return true;
        if (umount2(path, MNT_DETACH) < 0)
            break;
    }
    return false;
}

int mount_new(const struct mounting *what, const char *path) {
    char data[160];
    snprintf(data, sizeof data, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%u%s", what->fd, TRANSFER_MAX,
             what->serves ? ",default_permissions" : "");
    return mount(what->source, path, "fuse.baton", what->flags, data) < 0 ? -errno : 0;
}

static bool set_number(int context, const char *key, unsigned value) {
    char text[16];
    snprintf(text, sizeof text, "%u", value);
    return fsconfig(context, FSCONFIG_SET_STRING, key, text, 0) == 0;
}

static bool set_flags(int context, unsigned long flags) {
    return (!(flags & MS_RDONLY) || fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) == 0) &&
           (!(flags & MS_SYNCHRONOUS) || fsconfig(context, FSCONFIG_SET_FLAG, "sync", NULL, 0) == 0) &&
           (!(flags & MS_DIRSYNC) || fsconfig(context, FSCONFIG_SET_FLAG, "dirsync", NULL, 0) == 0);
}

static unsigned attributes_of(unsigned long flags) {
    return (flags & MS_RDONLY ? MOUNT_ATTR_RDONLY : 0) | (flags & MS_NOSUID ? MOUNT_ATTR_NOSUID : 0) |
           (flags & MS_NODEV ? MOUNT_ATTR_NODEV : 0) | (flags & MS_NOEXEC ? MOUNT_ATTR_NOEXEC : 0) |
           (flags & MS_NOATIME ? MOUNT_ATTR_NOATIME : flags & MS_STRICTATIME ? MOUNT_ATTR_STRICTATIME : 0) |
           (flags & MS_NODIRATIME ? MOUNT_ATTR_NODIRATIME : 0);
}

/* Not attached anywhere. A descriptor or a negative errno. */
static int mount_detached(const struct mounting *what) {
    AUTO_CLOSE int context = fsopen("fuse", FSOPEN_CLOEXEC);
    if (context < 0)
        return -errno;
    if (fsconfig(context, FSCONFIG_SET_STRING, "source", what->source, 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "subtype", "baton", 0) < 0 || !set_number(context, "fd", (unsigned)what->fd) ||
        fsconfig(context, FSCONFIG_SET_STRING, "rootmode", "40000", 0) < 0 || !set_number(context, "user_id", 0) ||
        !set_number(context, "group_id", 0) || fsconfig(context, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) < 0 ||
        !set_number(context, "max_read", TRANSFER_MAX) ||
        (what->serves && fsconfig(context, FSCONFIG_SET_FLAG, "default_permissions", NULL, 0) < 0) ||
        !set_flags(context, what->flags) || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int mounted = fsmount(context, FSMOUNT_CLOEXEC, attributes_of(what->flags));
    return mounted < 0 ? -errno : mounted;
}

/* Beneath the dead one, which then goes. Older kernels cannot: the directory below is seen for a moment there. */
int mount_replace(const struct mounting *what, const char *path) {
    AUTO_CLOSE int mounted = mount_detached(what);
    int error = mounted < 0 ? mounted : 0;

    if (!error && move_mount(mounted, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH) < 0)
        error = -errno;
    if (umount2(path, MNT_DETACH) < 0)
        return -errno;
    if (!error)
        return 0;
    log_debug("%s is seen empty for a moment: this kernel mounts nothing beneath a mount: %s", path, strerror(-error));
    if (mounted >= 0) /* the device belongs to that mount */
        error = move_mount(mounted, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
    else
        error = mount_new(what, path);
    return error;
}

static bool is_seen(const char *path, const char *device) {
    char now[24];
    front_device(path, now);
    return device[0] && strcmp(now, device) == 0;
}

/* It has ended with its process, but for what the kernel still does for that (io_uring takes down its queues later): then this
 * ends it, if fusectl is mounted. */
static void end_connection(const char *device) {
    char path[80];
    const char *minor = strchr(device, ':');

    snprintf(path, sizeof path, "/sys/fs/fuse/connections/%.20s/abort", minor ? minor + 1 : "");
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) != 1)
        log_debug("%s: %s", path, strerror(errno));
}

void front_clear_dead(const char *path, const char *device) {
    if (!is_seen(path, device))
        return;
    end_connection(device);
    if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL)
        log_warning("the mount that the dead process has left at %s cannot be taken away: %s", path, strerror(errno));
}

/* What takes its place is a connection that has ended before it began. */
void front_replace_dead(const char *path, char device[24], const char *source) {
    AUTO_CLOSE int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (!is_seen(path, device))
        return;
    end_connection(device);
    int error = fd < 0 ? -errno : mount_replace(&(struct mounting){source, fd, MS_RDONLY, false}, path);
    if (error)
        log_warning("%s: what the dead process has left cannot be replaced by a mount that gives errors: %s", path,
                    strerror(-error));
    if (error)
        front_clear_dead(path, device);
    front_device(path, device);
}
