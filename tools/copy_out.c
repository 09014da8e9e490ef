#include "tools/copy_out.h"

#include "fs/journal_names.h"
#include "tools/tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define PATHS_MAX 4096u
#define SHOW_NS 200000000

struct link {     /* a file with several names: the first path it was copied to */
    uint64_t ino; /* 0: an empty slot */
    char *path;
};

struct made { /* a directory above a path that was asked for: its attributes are set at the end */
    char *path;
    struct tree_entry entry;
};

struct copy_out {
    struct tree tree;
    int root; /* the directory that everything goes into */
    uint8_t *buffer;
    uint8_t *value;
    struct link *links;
    size_t link_room, link_count;
    struct made *made;
    size_t made_count;
    char path[PATH_MAX]; /* of what is being copied, below `root` */
    size_t path_length;
    bool stopped; /* the tree gives nothing more; that has been told */
    struct copy_counts counts;
    void (*partial)(void *context, const char *path);
    void *partial_context;

    bool shows;                    /* on a terminal */
    uint64_t all_files, all_bytes; /* to be copied */
    int64_t begun, shown;
};

/* ---- how far, on a terminal
 * --------------------------------------------------------------------------------------------- */

static void show(struct copy_out *copy, bool now) {
    const struct copy_counts *counts = &copy->counts;
    char files[32], all[32], bytes[32], all_bytes[32], rate[32], left[32] = "";
    int64_t time = clock_boot();

    if (!copy->shows || (!now && time - copy->shown < SHOW_NS))
        return;
    copy->shown = time;
    double spent = (double)(time - copy->begun) / 1e9;
    /* A file costs about as much as 64 KiB. */
    double work = (double)counts->bytes + 65536.0 * (double)counts->files;
    double whole = (double)copy->all_bytes + 65536.0 * (double)copy->all_files;
    if (spent > 1 && work > 0 && whole >= work)
        age_text((int64_t)(spent * (whole - work) / work * 1e9), left, sizeof left);
    count_text(counts->files, files, sizeof files);
    count_text(copy->all_files, all, sizeof all);
    size_text(counts->bytes, bytes, sizeof bytes);
    size_text(copy->all_bytes, all_bytes, sizeof all_bytes);
    size_text(spent > 0 ? (uint64_t)((double)counts->bytes / spent) : 0, rate, sizeof rate);
    fprintf(stderr, "\r\033[K%s of %s files, %s of %s, %s/s%s%s", files, all, bytes, all_bytes, rate,
            *left ? ", left: " : "", left);
    fflush(stderr);
}

static void clear_shown(struct copy_out *copy) {
    if (copy->shows && copy->shown > 0)
        fputs("\r\033[K", stderr);
    copy->shown = 0;
}

static void problem(struct copy_out *copy, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct copy_out *copy, const char *format, ...) {
    char text[1024], path[4 * 300];
    va_list arguments;
    size_t tail = copy->path_length > 250 ? copy->path_length - 250 : 0;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    clear_shown(copy);
    text_escape(copy->path + tail, copy->path_length - tail, path, sizeof path);
    fail("%s%s: %s", tail > 0 ? "…" : "", copy->path_length > 0 ? path : ".", text);
    copy->counts.problems++;
}

/* What the tree says instead of data: the thing's own trouble, or the end of all. */
static void tree_problem(struct copy_out *copy, const char *what, int error) {
    char why[600] = "";
    if (copy->stopped)
        return;
    if (!copy->tree.ended(copy->tree.context, why, sizeof why)) {
        problem(copy, "%s: %s", what, strerror(-error));
        return;
    }
    copy->stopped = true;
    clear_shown(copy);
    fail("%s", why);
    copy->counts.problems++;
}

/* ---- hard links
 * ------------------------------------------------------------------------------------------------------- */

static struct link *link_slot(struct link *links, size_t room, uint64_t ino) {
    for (size_t at = (ino * 0x9e3779b97f4a7c15u) >> 32;; at++) {
        struct link *slot = &links[at % room];
        if (slot->ino == ino || slot->ino == 0)
            return slot;
    }
}

static bool links_grow(struct copy_out *copy) {
    size_t room = MAX(copy->link_room * 2, (size_t)1024);
    struct link *links = calloc(room, sizeof *links);
    if (links == NULL)
        return false;
    for (size_t i = 0; i < copy->link_room; i++) {
        if (copy->links[i].ino != 0)
            *link_slot(links, room, copy->links[i].ino) = copy->links[i];
    }
    free(copy->links);
    copy->links = links;
    copy->link_room = room;
    return true;
}

/* The first path of the inode; NULL if there was none: this one is remembered then. */
static const char *link_find(struct copy_out *copy, uint64_t ino) {
    if (copy->link_count * 2 >= copy->link_room && !links_grow(copy))
        return NULL;
    struct link *slot = link_slot(copy->links, copy->link_room, ino);
    if (slot->ino != 0)
        return slot->path;
    slot->path = strdup(copy->path);
    if (slot->path != NULL) {
        slot->ino = ino;
        copy->link_count++;
    }
    return NULL;
}

/* ---- attributes
 * --------------------------------------------------------------------------------------------------------- */

/* `path`: through /proc, so that a name is looked up once and never followed. */
static void copy_xattrs(struct copy_out *copy, uint64_t ino, const char *path) {
    char name[BATON_NAME_MAX + 1] = "";
    uint32_t length;
    int error;

    while ((error = copy->tree.xattr(copy->tree.context, ino, name, copy->value, &length)) == 0) {
        if (lsetxattr(path, name, copy->value, length, 0) != 0)
            problem(copy, "attribute %s cannot be set here: %s", name, strerror(errno));
    }
    if (error != -ENOENT)
        tree_problem(copy, "its extended attributes cannot be read", error);
}

static void set_times(struct copy_out *copy, int directory, const char *name, const struct inode_row *row) {
    const struct timespec times[2] = {{row->atime.seconds, row->atime.nanoseconds},
                                      {row->mtime.seconds, row->mtime.nanoseconds}};
    if (utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW) != 0)
        problem(copy, "its times cannot be set: %s", strerror(errno));
}

/* Owner before mode: chown clears set-id bits, and capabilities among the attributes. */
static void set_attributes(struct copy_out *copy, int directory, const char *name, const struct tree_entry *from) {
    const struct inode_row *row = &from->row;
    char path[PATH_MAX];

    if (fchownat(directory, name, row->uid, row->gid, AT_SYMLINK_NOFOLLOW) != 0)
        problem(copy, "its owner cannot be set to %u:%u: %s", row->uid, row->gid, strerror(errno));
    if (!S_ISLNK(row->mode) && fchmodat(directory, name, row->mode & 07777, 0) != 0)
        problem(copy, "its mode cannot be set to %04o: %s", row->mode & 07777, strerror(errno));
    if (row->xattrs > 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
        copy_xattrs(copy, from->ino, path);
    }
    set_times(copy, directory, name, row);
}

/* The directory that is open as `fd`. */
static void set_attributes_of(struct copy_out *copy, int fd, const struct tree_entry *from) {
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d/.", fd);
    const struct inode_row *row = &from->row;
    if (fchown(fd, row->uid, row->gid) != 0)
        problem(copy, "its owner cannot be set to %u:%u: %s", row->uid, row->gid, strerror(errno));
    if (fchmod(fd, row->mode & 07777) != 0)
        problem(copy, "its mode cannot be set to %04o: %s", row->mode & 07777, strerror(errno));
    if (row->xattrs > 0)
        copy_xattrs(copy, from->ino, self);
    set_times(copy, AT_FDCWD, self, row);
}

/* ---- kinds
 * ---------------------------------------------------------------------------------------------------------------- */

/* A bad block becomes a hole and is told: the first of a file with its place, all in the number of problems. */
static void copy_data(struct copy_out *copy, int fd, const struct tree_entry *from) {
    struct tree_data data;
    bool told = false;

    for (uint64_t at = 0; at < from->row.size && !copy->stopped; at = data.from + data.length) {
        int error = copy->tree.data(copy->tree.context, from->ino, at, copy->buffer, &data);
        if (error) {
            tree_problem(copy, "its data cannot be read", error);
            return;
        }
        if (data.length == 0)
            return;
        if (data.bad && !told)
            problem(copy,
                    "bytes %" PRIu64 " and following are damaged; they are zeros in the copy (the other node has them)",
                    data.from);
        else
            copy->counts.problems += data.bad;
        told |= data.bad;
        if (data.bad)
            continue;
        error = pwrite_all(fd, copy->buffer, data.length, data.from);
        if (error) {
            problem(copy, "the copy cannot be written: %s", strerror(-error));
            return;
        }
        copy->counts.bytes += data.length;
        show(copy, false);
    }
}

static void copy_file(struct copy_out *copy, int directory, const char *name, const struct tree_entry *from) {
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        problem(copy, "cannot be made: %s", strerror(errno));
        return;
    }
    copy_data(copy, fd, from);
    if (ftruncate(fd, (off_t)from->row.size) != 0)
        problem(copy, "its size cannot be set: %s", strerror(errno));
    if (close(fd) != 0)
        problem(copy, "the copy cannot be written: %s", strerror(errno));
    copy->counts.files++;
    if ((from->flags & TREE_PARTIAL) && copy->partial)
        copy->partial(copy->partial_context, copy->path);
    show(copy, false);
}

static void copy_symlink(struct copy_out *copy, int directory, const char *name, const struct tree_entry *from) {
    char target[BATON_SYMLINK_MAX + 1];
    int error = copy->tree.target(copy->tree.context, from->ino, target);
    if (error) {
        tree_problem(copy, "cannot be read", error);
        return;
    }
    if (symlinkat(target, directory, name) != 0)
        problem(copy, "cannot be made: %s", strerror(errno));
    copy->counts.others++;
}

/* ---- directories
 * ------------------------------------------------------------------------------------------------------------ */

static void copy_entry(struct copy_out *copy, int directory, const struct tree_entry *from);

static void copy_children(struct copy_out *copy, int directory, uint64_t ino) {
    AUTO_FREE struct tree_entry *entries = malloc(TREE_LIST_MAX * sizeof *entries);
    uint64_t cookie = 0;
    unsigned count = 0;

    if (entries == NULL) {
        problem(copy, "out of memory");
        return;
    }
    do {
        int error = copy->tree.list(copy->tree.context, ino, cookie, entries, &count);
        if (error) {
            tree_problem(copy, "the directory cannot be read", error);
            return;
        }
        for (unsigned i = 0; i < count && !copy->stopped; i++)
            copy_entry(copy, directory, &entries[i]);
        if (count > 0)
            cookie = entries[count - 1].cookie;
    } while (count > 0 && !copy->stopped);
}

static int make_directory(struct copy_out *copy, int directory, const char *name) {
    int fd = -1;
    if (mkdirat(directory, name, 0700) != 0)
        problem(copy, "cannot be made: %s", strerror(errno));
    else if ((fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        problem(copy, "cannot be opened: %s", strerror(errno));
    else
        copy->counts.directories++;
    return fd;
}

static void copy_directory(struct copy_out *copy, int directory, const char *name, const struct tree_entry *from) {
    AUTO_CLOSE int fd = make_directory(copy, directory, name);
    if (fd >= 0)
        copy_children(copy, fd, from->ino);
}

static void copy_kind(struct copy_out *copy, int directory, const char *name, const struct tree_entry *from) {
    switch (from->row.mode & S_IFMT) {
    case S_IFDIR:
        copy_directory(copy, directory, name, from);
        break;
    case S_IFREG:
        copy_file(copy, directory, name, from);
        break;
    case S_IFLNK:
        copy_symlink(copy, directory, name, from);
        break;
    default:
        if (mknodat(directory, name, from->row.mode & S_IFMT, from->row.rdev) != 0)
            problem(copy, "cannot be made: %s", strerror(errno));
        copy->counts.others++;
    }
    if (!copy->stopped)
        set_attributes(copy, directory, name, from);
}

/* Appends a name to the path that problems are told with. False: it would be too long. */
static bool path_push(struct copy_out *copy, const char *name) {
    size_t length = strlen(name);
    if (copy->path_length + length + 2 > sizeof copy->path)
        return false;
    if (copy->path_length > 0)
        copy->path[copy->path_length++] = '/';
    memcpy(copy->path + copy->path_length, name, length + 1);
    copy->path_length += length;
    return true;
}

static void path_cut(struct copy_out *copy, size_t length) {
    copy->path_length = length;
    copy->path[length] = '\0';
}

static bool name_is_safe(const char *name) {
    return *name != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static void copy_entry(struct copy_out *copy, int directory, const struct tree_entry *from) {
    size_t before = copy->path_length;

    if (!name_is_safe(from->name)) {
        problem(copy, "a name in it cannot be one; run baton check on the store");
        return;
    }
    if (!path_push(copy, from->name)) {
        problem(copy, "\"%s\" lies too deep to be copied; ask for its path alone", from->name);
        return;
    }
    const char *first = !S_ISDIR(from->row.mode) && from->row.nlink > 1 ? link_find(copy, from->ino) : NULL;
    if (first == NULL)
        copy_kind(copy, directory, from->name, from);
    else if (linkat(copy->root, first, directory, from->name, 0) != 0)
        problem(copy, "cannot be linked to %s: %s", first, strerror(errno));
    path_cut(copy, before);
}

/* ---- how much there is
 * --------------------------------------------------------------------------------------------------------- */

/* Counts what lies below, for the terminal. What cannot be read is told when it is copied. */
static void count_below(struct copy_out *copy, uint64_t ino, unsigned depth) {
    AUTO_FREE struct tree_entry *entries = malloc(TREE_LIST_MAX * sizeof *entries);
    uint64_t cookie = 0;
    unsigned count = 1;

    while (entries != NULL && depth < PATH_MAX / 2 && count > 0 &&
           copy->tree.list(copy->tree.context, ino, cookie, entries, &count) == 0) {
        for (unsigned i = 0; i < count; i++) {
            const struct inode_row *row = &entries[i].row;
            if (S_ISDIR(row->mode))
                count_below(copy, entries[i].ino, depth + 1);
            else if (S_ISREG(row->mode)) {
                copy->all_files++;
                copy->all_bytes += MIN(row->blocks * BATON_BLOCK, row->size);
            }
            cookie = entries[i].cookie;
        }
    }
}

static void count_first(struct copy_out *copy, const struct tree_entry *from) {
    if (!copy->shows)
        return;
    if (S_ISDIR(from->row.mode)) {
        fputs("\r\033[Kcounting…", stderr);
        fflush(stderr);
        copy->shown = 1;
        count_below(copy, from->ino, 0);
    } else {
        copy->all_files++;
        copy->all_bytes += MIN(from->row.blocks * BATON_BLOCK, from->row.size);
    }
}

/* ---- the whole
 * ---------------------------------------------------------------------------------------------------------------- */

/* The next part of a path, "." left out; NULL at the end. */
static const char *next_part(const char **at, char part[BATON_NAME_MAX + 1], int *error) {
    do {
        *at += strspn(*at, "/");
        size_t length = strcspn(*at, "/");
        if (length == 0)
            return NULL;
        if (length > BATON_NAME_MAX) {
            *error = -ENAMETOOLONG;
            return NULL;
        }
        memcpy(part, *at, length);
        part[length] = '\0';
        *at += length;
    } while (strcmp(part, ".") == 0);
    if (strcmp(part, "..") == 0)
        *error = -EINVAL;
    return *error ? NULL : part;
}

static int look_failed(struct copy_out *copy, const char *path, int error) {
    char why[600];
    copy->counts.problems++;
    if (!copy->tree.ended(copy->tree.context, why, sizeof why))
        return fail("%s in the volume: %s", path, strerror(-error));
    copy->stopped = true;
    return fail("%s", why);
}

int copy_out_content(struct copy_out *copy, const char *path) {
    char part[BATON_NAME_MAX + 1];
    struct tree_entry from;
    const char *at = path;

    int error = copy->tree.look(copy->tree.context, 0, "", &from);
    while (error == 0 && next_part(&at, part, &error) != NULL)
        error = S_ISDIR(from.row.mode) ? copy->tree.look(copy->tree.context, from.ino, part, &from) : -ENOTDIR;
    if (error)
        return look_failed(copy, path, error);
    count_first(copy, &from);
    copy->begun = clock_boot();
    if (S_ISDIR(from.row.mode)) {
        copy_children(copy, copy->root, from.ino);
        set_attributes_of(copy, copy->root, &from);
        copy->counts.directories++;
    } else {
        copy_entry(copy, copy->root, &from);
    }
    clear_shown(copy);
    return 0;
}

/* Opens the directory at copy->path, which `part` was just appended to; makes it if no path before did. */
static int open_parent(struct copy_out *copy, int directory, const char *part, const struct tree_entry *from) {
    int fd = openat(directory, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    struct made *made = realloc(copy->made, (copy->made_count + 1) * sizeof *made);
    if (made == NULL)
        return -1;
    copy->made = made;
    made[copy->made_count] = (struct made){strdup(copy->path), *from};
    fd = make_directory(copy, directory, part);
    if (fd < 0 || made[copy->made_count].path == NULL)
        free(made[copy->made_count].path);
    else
        copy->made_count++;
    return fd;
}

static void copy_path(struct copy_out *copy, const char *path) {
    char part[BATON_NAME_MAX + 1], next[BATON_NAME_MAX + 1];
    struct tree_entry from;
    const char *at = path;
    int directory = dup(copy->root), error = 0;

    path_cut(copy, 0);
    const char *have = next_part(&at, part, &error);
    uint64_t parent = ROOT_INO;
    while (have != NULL && error == 0) {
        error = copy->tree.look(copy->tree.context, parent, part, &from);
        if (error || next_part(&at, next, &error) == NULL || error)
            break;
        if (!S_ISDIR(from.row.mode) || !path_push(copy, part)) {
            error = S_ISDIR(from.row.mode) ? -ENAMETOOLONG : -ENOTDIR;
            break;
        }
        int fd = open_parent(copy, directory, part, &from);
        error = fd < 0 ? -errno : 0;
        close(directory);
        directory = fd;
        parent = from.ino;
        memcpy(part, next, sizeof part);
    }
    if (error)
        look_failed(copy, path, error);
    else {
        count_first(copy, &from);
        copy->begun = copy->begun ? copy->begun : clock_boot();
        copy_entry(copy, directory, &from);
    }
    if (directory >= 0)
        close(directory);
    path_cut(copy, 0);
}

/* Without slashes at both ends, doubled ones and "." parts. NULL: no memory. */
static char *normalized(const char *path) {
    char part[BATON_NAME_MAX + 1];
    int error = 0;
    char *text = malloc(strlen(path) + 1);
    size_t used = 0;
    if (text == NULL)
        return NULL;
    const char *at = path;
    while (next_part(&at, part, &error) != NULL)
        used += (size_t)sprintf(text + used, "%s%s", used > 0 ? "/" : "", part);
    if (error) /* it is told when the path is looked for */
        strcpy(text, path);
    else
        text[used] = '\0';
    return text;
}

static bool is_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (length == 0 || path[length] == '\0' || path[length] == '/');
}

static int each_path(struct copy_out *copy, char **paths, size_t count) {
    for (size_t i = 0; i < count && !copy->stopped; i++) {
        bool covered = false;
        for (size_t j = 0; j < count; j++) /* of two equal ones the first */
            covered |= j != i && is_below(paths[i], paths[j]) && (j < i || strcmp(paths[i], paths[j]) != 0);
        if (!covered)
            copy_path(copy, paths[i]);
    }
    for (size_t i = copy->made_count; i-- > 0 && !copy->stopped;) {
        AUTO_CLOSE int fd = openat(copy->root, copy->made[i].path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        snprintf(copy->path, sizeof copy->path, "%s", copy->made[i].path);
        copy->path_length = strlen(copy->path);
        if (fd >= 0)
            set_attributes_of(copy, fd, &copy->made[i].entry);
        path_cut(copy, 0);
    }
    return 0;
}

int copy_out_paths(struct copy_out *copy, char *const *paths, size_t count) {
    char **each = calloc(count + 1, sizeof *each);
    bool whole = count == 0;
    int status = 0;

    if (each == NULL || count > PATHS_MAX) {
        free(each);
        return fail("so many paths are too many; name the directory that they are in");
    }
    for (size_t i = 0; i < count && status == 0; i++) {
        each[i] = normalized(paths[i]);
        if (each[i] == NULL)
            status = fail("out of memory");
        else
            whole |= each[i][0] == '\0';
    }
    if (status == 0)
        status = whole ? copy_out_content(copy, "/") : each_path(copy, each, count);
    for (size_t i = 0; i < count; i++)
        free(each[i]);
    free(each);
    clear_shown(copy);
    return status;
}

bool empty_directory(const char *path) {
    if (mkdir(path, 0700) == 0)
        return true;
    DIR *directory = errno == EEXIST ? opendir(path) : NULL;
    if (directory == NULL) {
        fail("%s cannot be made: %s", path, strerror(errno));
        return false;
    }
    unsigned entries = 0;
    while (entries <= 2 && readdir(directory) != NULL) /* "." and ".." */
        entries++;
    closedir(directory);
    if (entries > 2)
        fail("%s is not empty; name a new directory", path);
    return entries <= 2;
}

static bool open_target(struct copy_out *copy, const char *target) {
    if (!empty_directory(target))
        return false;
    copy->root = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy->root < 0)
        fail("%s cannot be opened: %s", target, strerror(errno));
    return copy->root >= 0;
}

struct copy_out *copy_out_begin(const struct tree *tree, const char *target) {
    struct copy_out *copy = calloc(1, sizeof *copy);
    struct rlimit limit;

    if (copy == NULL) {
        fail("out of memory");
        return NULL;
    }
    copy->tree = *tree;
    copy->root = -1;
    copy->shows = isatty(STDERR_FILENO) == 1;
    copy->buffer = malloc(TREE_DATA_MAX);
    copy->value = malloc(BATON_XATTR_VALUE_MAX);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* one descriptor for each level of directories */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    umask(0);
    if (copy->buffer == NULL || copy->value == NULL)
        fail("out of memory");
    else if (open_target(copy, target))
        return copy;
    copy_out_free(copy);
    return NULL;
}

void copy_out_on_partial(struct copy_out *copy, void (*partial)(void *context, const char *path), void *context) {
    copy->partial = partial;
    copy->partial_context = context;
}

const struct copy_counts *copy_out_counts(const struct copy_out *copy) {
    return &copy->counts;
}

void copy_out_free(struct copy_out *copy) {
    for (size_t i = 0; i < copy->link_room; i++)
        free(copy->links[i].path);
    for (size_t i = 0; i < copy->made_count; i++)
        free(copy->made[i].path);
    free(copy->made);
    free(copy->links);
    free(copy->buffer);
    free(copy->value);
    if (copy->root >= 0)
        close(copy->root);
    free(copy);
}

int copy_out_report(const struct copy_out *copy, const char *target, json_t *line) {
    const struct copy_counts *counts = &copy->counts;
    char size[32], files[32];

    if (line != NULL) {
        json_object_update_new(
            line, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "directory", target, "files", (json_int_t)counts->files,
                            "directories", (json_int_t)counts->directories, "others", (json_int_t)counts->others,
                            "bytes", (json_int_t)counts->bytes, "problems", (json_int_t)counts->problems));
    } else {
        size_text(counts->bytes, size, sizeof size);
        count_text(counts->files, files, sizeof files);
        printf("Copied %s files (%s), %" PRIu64 " directories and %" PRIu64 " others to %s.\n", files, size,
               counts->directories, counts->others, target);
    }
    if (counts->problems == 0)
        return EXIT_SUCCESS;
    return fail("%" PRIu64 " things could not be copied as they are; see above", counts->problems);
}
