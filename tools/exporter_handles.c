#include "tools/exporter_handles.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#define FILES_MAX 500u
#define DEPTH_MAX 16u
#define HEAD "baton handles 1, device major "

struct handle {
    struct file_handle head;
    unsigned char room[MAX_HANDLE_SZ];
};

/* The kernel's: they begin where `head` ends. */
static unsigned char *bytes_of(struct handle *handle) {
    return (unsigned char *)handle + offsetof(struct file_handle, f_handle);
}

struct note {
    int mount;      /* descriptor */
    unsigned major; /* of its device: part of a handle of ganesha's (fsid_type = Major64) */
    FILE *file;
    unsigned count;
};

static void says(struct handles_result *result, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void says(struct handles_result *result, const char *format, ...) {
    va_list arguments;
    if (result->words[0])
        return; /* the first counts */
    va_start(arguments, format);
    vsnprintf(result->words, sizeof result->words, format, arguments);
    va_end(arguments);
}

static bool handle_of(int mount, const char *path, struct handle *handle) {
    int id;
    handle->head.handle_bytes = MAX_HANDLE_SZ;
    return name_to_handle_at(mount, path, &handle->head, &id, 0) == 0;
}

static bool same_times(const struct stat *a, int64_t seconds, long nanoseconds) {
    return a->st_ctim.tv_sec == seconds && a->st_ctim.tv_nsec == nanoseconds;
}

/* ---- Noting ---------------------------------------------------------------------------------------------------------- */

static void note_one(struct note *note, const char *path) {
    struct handle handle;
    struct stat is;
    if (fstatat(note->mount, path, &is, AT_SYMLINK_NOFOLLOW) < 0 || !handle_of(note->mount, path, &handle))
        return;
    fprintf(note->file, "%d ", handle.head.handle_type);
    for (unsigned i = 0; i < handle.head.handle_bytes; i++)
        fprintf(note->file, "%02x", bytes_of(&handle)[i]);
    fprintf(note->file, " %" PRId64 " %ld %ju %s\n", (int64_t)is.st_ctim.tv_sec, is.st_ctim.tv_nsec, (uintmax_t)is.st_ino, path);
    note->count++;
}

static void note_folder(struct note *note, const char *path, unsigned depth) {
    int fd = openat(note->mount, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    if (!folder && fd >= 0)
        close(fd);
    while (folder && note->count < FILES_MAX && (entry = readdir(folder)) != NULL) {
        char below[PATH_MAX];
        bool root = strcmp(path, ".") == 0, dots = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        int length = snprintf(below, sizeof below, "%s%s%s", root ? "" : path, root ? "" : "/", entry->d_name);
        /* .baton changes as servers work, and with this note */
        if (dots || (root && strcmp(entry->d_name, ".baton") == 0) || length >= (int)sizeof below || strchr(entry->d_name, '\n'))
            continue;
        note_one(note, below);
        if (entry->d_type == DT_DIR && depth < DEPTH_MAX)
            note_folder(note, below, depth + 1);
    }
    if (folder)
        closedir(folder);
}

static int write_note(struct note *note, const char *node) {
    char name[128], made[160];
    snprintf(name, sizeof name, ".baton/handles.%s", node);
    snprintf(made, sizeof made, "%s.new", name);
    if (mkdirat(note->mount, ".baton", 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = openat(note->mount, made, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    note->file = fdopen(fd, "w");
    PROMISE(note->file != NULL);
    fprintf(note->file, HEAD "%u\n", note->major);
    note_one(note, ".");
    note_folder(note, ".", 0);
    bool failed = fflush(note->file) != 0 || fsync(fd) < 0;
    int rc = failed ? -errno : 0;
    fclose(note->file);
    if (rc == 0 && renameat(note->mount, made, note->mount, name) < 0)
        rc = -errno;
    return rc;
}

/* ---- Comparing ------------------------------------------------------------------------------------------------------- */

/* "TYPE HEX SECONDS NANOSECONDS INO PATH" */
static bool parse(char *line, struct handle *handle, int64_t *seconds, long *nanoseconds, uintmax_t *ino, const char **path) {
    char hex[2 * MAX_HANDLE_SZ + 1];
    int used = 0;
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%d %256s %" SCNd64 " %ld %ju %n", &handle->head.handle_type, hex, seconds, nanoseconds, ino, &used) != 5 || used == 0)
        return false;
    size_t length = strlen(hex) / 2;
    if (strlen(hex) % 2 || length > MAX_HANDLE_SZ || strspn(hex, "0123456789abcdef") != strlen(hex))
        return false;
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes_of(handle)[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    handle->head.handle_bytes = (unsigned)length;
    *path = line + used;
    return **path != '\0' && **path != '/';
}

/* Of one file that was noted on `node`. */
static void compare_one(const struct note *note, char *line, const char *node, struct handles_result *result) {
    struct handle noted, here;
    struct stat is, led;
    int64_t seconds;
    long nanoseconds;
    uintmax_t ino;
    const char *path;
    if (!parse(line, &noted, &seconds, &nanoseconds, &ino, &path)) {
        result->wrong++;
        says(result, "what node %s has noted cannot be read; remove .baton/handles.%s of the volume", node, node);
        return;
    }
    /* no two states of a file have one ctime, whichever node it was given by */
    if (fstatat(note->mount, path, &is, AT_SYMLINK_NOFOLLOW) < 0 || !same_times(&is, seconds, nanoseconds)) {
        result->changed++;
        return;
    }
    bool equal = handle_of(note->mount, path, &here) && here.head.handle_type == noted.head.handle_type &&
                 here.head.handle_bytes == noted.head.handle_bytes &&
                 memcmp(bytes_of(&here), bytes_of(&noted), here.head.handle_bytes) == 0;
    AUTO_CLOSE int fd = open_by_handle_at(note->mount, &noted.head, O_PATH | O_CLOEXEC);
    int error = errno;
    bool leads = fd >= 0 && fstat(fd, &led) == 0 && led.st_ino == is.st_ino && led.st_ino == ino && same_times(&led, seconds, nanoseconds);
    if (equal && leads) {
        result->compared++;
        return;
    }
    result->wrong++;
    if (!equal)
        says(result, "%.200s has another handle than on node %s", path, node);
    else
        says(result, "the handle of %.200s from node %s leads %s here%s%s", path, node, fd < 0 ? "nowhere" : "to another file",
             fd < 0 ? ": " : "", fd < 0 ? strerror(error) : "");
}

static int compare_with(const struct note *note, const char *node, struct handles_result *result) {
    char name[128], line[PATH_MAX + 512];
    unsigned major, lines = 0;
    snprintf(name, sizeof name, ".baton/handles.%s", node);
    int fd = openat(note->mount, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    FILE *file = fdopen(fd, "r");
    PROMISE(file != NULL);
    if (!fgets(line, sizeof line, file) || sscanf(line, HEAD "%u", &major) != 1) {
        result->wrong++;
        says(result, "what node %s has noted cannot be read; remove .baton/handles.%s of the volume", node, node);
    } else if (major != note->major) {
        result->wrong++;
        says(result, "the mount's device has the major number %u here and %u on node %s: handles of nfs-ganesha differ", note->major, major, node);
    }
    while (lines++ <= FILES_MAX && fgets(line, sizeof line, file))
        compare_one(note, line, node, result);
    fclose(file);
    return 0;
}

int handles_compare(const struct config *config, const struct node_config *self, struct handles_result *result) {
    struct note note = {.count = 0};
    struct statfs system;
    struct stat is;
    char names[CONFIG_NODES_MAX * 65 + 1] = "", wanting[CONFIG_NODES_MAX * 65 + 1] = "";

    *result = (struct handles_result){.compared = 0};
    AUTO_CLOSE int mount = open(self->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mount < 0 || fstatfs(mount, &system) < 0 || fstat(mount, &is) < 0) {
        int error = errno;
        says(result, "%s: %s", self->mount, strerror(error));
        return -error;
    }
    if (system.f_type != FUSE_SUPER_MAGIC) {
        says(result, "the volume is not mounted at %s: is batond running?", self->mount);
        return -ENOTCONN;
    }
    note.mount = mount;
    note.major = major(is.st_dev);
    for (unsigned i = 0; i < config->node_count; i++) {
        const char *node = config->nodes[i].name;
        bool found = compare_with(&note, node, result) == 0, other = strcmp(node, self->name) != 0;
        char *list = found ? names : wanting;
        if (found || other)
            snprintf(list + strlen(list), sizeof names - strlen(list), "%s%s", list[0] ? " " : "", node);
    }
    if (result->wrong)
        return -EBADMSG;
    int rc = write_note(&note, self->name);
    result->noted = rc ? 0 : note.count;
    if (rc && rc != -EROFS) {
        says(result, "handles cannot be noted in %s/.baton: %s", self->mount, strerror(-rc));
        return rc;
    }
    if (names[0])
        says(result, "of %u files as on %s; %u have changed since", result->compared, names, result->changed);
    else if (rc)
        says(result, "nobody has noted any: run this on the primary, then here again");
    else
        says(result, "of %u files noted; now run this on %s", note.count, wanting[0] ? wanting : "the other node");
    return 0;
}
