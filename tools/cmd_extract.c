/* baton extract: files out of a store at rest, without mounting it. */
#include "fs/journal_names.h"
#include "fs/ops.h"
#include "tools/tool.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define COPY_ROOM (1u << 20)
#define BATCH 512u /* directory entries read at once */

struct link { /* a file with several names: the first path it was copied to */
    uint64_t ino; /* 0: an empty slot */
    char *path;
};

struct extraction {
    struct tool tool;
    struct store *store;
    int root; /* the directory that everything goes into */
    uint8_t *buffer;
    struct link *links;
    size_t link_room, link_count;
    char path[PATH_MAX]; /* of what is being copied, below `root` */
    size_t path_length;
    uint64_t files, directories, others, bytes, problems;
};

static void problem(struct extraction *x, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct extraction *x, const char *format, ...) {
    char text[1024], path[4 * 300];
    va_list arguments;
    size_t tail = x->path_length > 250 ? x->path_length - 250 : 0;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    text_escape(x->path + tail, x->path_length - tail, path, sizeof path);
    fail("%s%s: %s", tail > 0 ? "…" : "", x->path_length > 0 ? path : ".", text);
    x->problems++;
}

/* ---- hard links ------------------------------------------------------------------------------------------------------- */

static struct link *link_slot(struct link *links, size_t room, uint64_t ino) {
    for (size_t at = (ino * 0x9e3779b97f4a7c15u) >> 32;; at++) {
        struct link *slot = &links[at % room];
        if (slot->ino == ino || slot->ino == 0)
            return slot;
    }
}

static bool links_grow(struct extraction *x) {
    size_t room = MAX(x->link_room * 2, (size_t)1024);
    struct link *links = calloc(room, sizeof *links);
    if (links == NULL)
        return false;
    for (size_t i = 0; i < x->link_room; i++) {
        if (x->links[i].ino != 0)
            *link_slot(links, room, x->links[i].ino) = x->links[i];
    }
    free(x->links);
    x->links = links;
    x->link_room = room;
    return true;
}

/* The first path of the inode; NULL if there was none: this one is remembered then. */
static const char *link_find(struct extraction *x, uint64_t ino) {
    if (x->link_count * 2 >= x->link_room && !links_grow(x))
        return NULL;
    struct link *slot = link_slot(x->links, x->link_room, ino);
    if (slot->ino != 0)
        return slot->path;
    slot->path = strdup(x->path);
    if (slot->path != NULL) {
        slot->ino = ino;
        x->link_count++;
    }
    return NULL;
}

/* ---- attributes --------------------------------------------------------------------------------------------------------- */

/* `path`: through /proc, so that a name is looked up once and never followed. */
static void copy_xattrs(struct extraction *x, uint64_t ino, const char *path, bool follow) {
    AUTO_FREE char *names = malloc(BATON_XATTR_VALUE_MAX);
    AUTO_FREE char *value = malloc(BATON_XATTR_VALUE_MAX);
    if (names == NULL || value == NULL) {
        problem(x, "out of memory");
        return;
    }
    int length = op_listxattr(x->store, ino, true, names, BATON_XATTR_VALUE_MAX);
    if (length < 0) {
        problem(x, "its extended attributes cannot be listed: %s", strerror(-length));
        return;
    }
    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        int size = op_getxattr(x->store, ino, name, value, BATON_XATTR_VALUE_MAX);
        if (size < 0) {
            problem(x, "attribute %s cannot be read: %s", name, strerror(-size));
            continue;
        }
        int done = follow ? setxattr(path, name, value, (size_t)size, 0) : lsetxattr(path, name, value, (size_t)size, 0);
        if (done != 0)
            problem(x, "attribute %s cannot be set here: %s", name, strerror(errno));
    }
}

static void set_times(struct extraction *x, int directory, const char *name, const struct inode_row *row) {
    const struct timespec times[2] = {{row->atime.seconds, row->atime.nanoseconds},
                                      {row->mtime.seconds, row->mtime.nanoseconds}};
    if (utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW) != 0)
        problem(x, "its times cannot be set: %s", strerror(errno));
}

/* Owner before mode: chown clears set-id bits, and capabilities among the attributes. */
static void set_attributes(struct extraction *x, int directory, const char *name, const struct attributes *from) {
    const struct inode_row *row = &from->row;
    char path[PATH_MAX];

    if (fchownat(directory, name, row->uid, row->gid, AT_SYMLINK_NOFOLLOW) != 0)
        problem(x, "its owner cannot be set to %u:%u: %s", row->uid, row->gid, strerror(errno));
    if (!S_ISLNK(row->mode) && fchmodat(directory, name, row->mode & 07777, 0) != 0)
        problem(x, "its mode cannot be set to %04o: %s", row->mode & 07777, strerror(errno));
    if (row->xattrs > 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
        copy_xattrs(x, from->ino, path, false);
    }
    set_times(x, directory, name, row);
}

/* ---- kinds ---------------------------------------------------------------------------------------------------------------- */

/* One stretch of data. A bad block becomes a hole and is told. */
static void copy_stretch(struct extraction *x, int fd, uint64_t ino, uint64_t from, uint64_t to) {
    unsigned told = 0;

    while (from < to) {
        size_t want = (size_t)MIN(to - from, (uint64_t)COPY_ROOM);
        ssize_t length = op_read(x->store, ino, x->buffer, want, from);
        if (length == -EIO && want > BATON_BLOCK) { /* find the bad block */
            want = BATON_BLOCK - (size_t)(from % BATON_BLOCK);
            length = op_read(x->store, ino, x->buffer, want, from);
        }
        if (length == -EIO) {
            if (told++ == 0)
                problem(x, "bytes %" PRIu64 " and following are damaged; they are zeros in the copy (the other node has them)",
                        from);
            x->problems += told > 1;
            from += want;
            continue;
        }
        if (length <= 0) {
            problem(x, "cannot be read at byte %" PRIu64 ": %s", from, length < 0 ? strerror((int)-length) : "it ends there");
            return;
        }
        int error = pwrite_all(fd, x->buffer, (size_t)length, from);
        if (error) {
            problem(x, "the copy cannot be written: %s", strerror(-error));
            return;
        }
        from += (uint64_t)length;
        x->bytes += (uint64_t)length;
    }
}

static void copy_file(struct extraction *x, int directory, const char *name, const struct attributes *from) {
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        problem(x, "cannot be made: %s", strerror(errno));
        return;
    }
    for (uint64_t at = 0; at < from->row.size;) {
        int64_t data = op_seek(x->store, from->ino, at, SEEK_DATA);
        if (data == -ENXIO)
            break;
        int64_t hole = data < 0 ? data : op_seek(x->store, from->ino, (uint64_t)data, SEEK_HOLE);
        if (hole < 0) {
            problem(x, "its map cannot be read: %s", strerror((int)-hole));
            break;
        }
        copy_stretch(x, fd, from->ino, (uint64_t)data, (uint64_t)hole);
        at = (uint64_t)hole;
    }
    if (ftruncate(fd, (off_t)from->row.size) != 0)
        problem(x, "its size cannot be set: %s", strerror(errno));
    if (close(fd) != 0)
        problem(x, "the copy cannot be written: %s", strerror(errno));
    x->files++;
}

static void copy_symlink(struct extraction *x, int directory, const char *name, const struct attributes *from) {
    char target[BATON_SYMLINK_MAX + 1];
    int length = op_readlink(x->store, from->ino, target, sizeof target - 1);
    if (length < 0) {
        problem(x, "cannot be read: %s", strerror(-length));
        return;
    }
    target[length] = '\0';
    if (symlinkat(target, directory, name) != 0)
        problem(x, "cannot be made: %s", strerror(errno));
    x->others++;
}

/* ---- directories ------------------------------------------------------------------------------------------------------------ */

struct batch {
    uint64_t cookie[BATCH], ino[BATCH];
    char name[BATCH][BATON_NAME_MAX + 1];
    unsigned count;
};

static int take_entry(void *context, const struct directory_entry *entry) {
    struct batch *batch = context;
    if (batch->count == BATCH)
        return 1;
    size_t length = MIN(entry->name_length, BATON_NAME_MAX);
    batch->cookie[batch->count] = entry->cookie;
    batch->ino[batch->count] = entry->ino;
    memcpy(batch->name[batch->count], entry->name, length);
    batch->name[batch->count++][length] = '\0';
    return 0;
}

static void copy_entry(struct extraction *x, int directory, const char *name, uint64_t ino);

static void copy_children(struct extraction *x, int directory, uint64_t ino) {
    AUTO_FREE struct batch *batch = malloc(sizeof *batch);
    uint64_t cookie = 0;

    if (batch == NULL) {
        problem(x, "out of memory");
        return;
    }
    do {
        batch->count = 0;
        int error = op_readdir(x->store, ino, cookie, false, take_entry, batch);
        if (error < 0) {
            problem(x, "the directory cannot be read: %s", strerror(-error));
            return;
        }
        for (unsigned i = 0; i < batch->count; i++)
            copy_entry(x, directory, batch->name[i], batch->ino[i]);
        if (batch->count > 0)
            cookie = batch->cookie[batch->count - 1];
    } while (batch->count == BATCH);
}

static void copy_directory(struct extraction *x, int directory, const char *name, const struct attributes *from) {
    AUTO_CLOSE int fd = -1;
    if (mkdirat(directory, name, 0700) != 0) {
        problem(x, "cannot be made: %s", strerror(errno));
        return;
    }
    fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        problem(x, "cannot be opened: %s", strerror(errno));
        return;
    }
    x->directories++;
    copy_children(x, fd, from->ino);
}

static void copy_kind(struct extraction *x, int directory, const char *name, const struct attributes *from) {
    switch (from->row.mode & S_IFMT) {
    case S_IFDIR:
        copy_directory(x, directory, name, from);
        break;
    case S_IFREG:
        copy_file(x, directory, name, from);
        break;
    case S_IFLNK:
        copy_symlink(x, directory, name, from);
        break;
    default:
        if (mknodat(directory, name, from->row.mode & S_IFMT, from->row.rdev) != 0)
            problem(x, "cannot be made: %s", strerror(errno));
        x->others++;
    }
    set_attributes(x, directory, name, from);
}

static void copy_entry(struct extraction *x, int directory, const char *name, uint64_t ino) {
    size_t length = strlen(name), before = x->path_length;
    struct attributes from;

    if (before + length + 2 > sizeof x->path) {
        problem(x, "\"%s\" lies too deep to be copied; take it with --path", name);
        return;
    }
    if (before > 0)
        x->path[x->path_length++] = '/';
    memcpy(x->path + x->path_length, name, length + 1);
    x->path_length += length;
    int error = op_getattr(x->store, ino, &from);
    if (error) {
        problem(x, "cannot be read: %s", strerror(-error));
    } else {
        const char *first = !S_ISDIR(from.row.mode) && from.row.nlink > 1 ? link_find(x, ino) : NULL;
        if (first == NULL)
            copy_kind(x, directory, name, &from);
        else if (linkat(x->root, first, directory, name, 0) != 0)
            problem(x, "cannot be linked to %s: %s", first, strerror(errno));
    }
    x->path_length = before;
    x->path[before] = '\0';
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

/* The inode at `path` in the volume, and its last name. */
static int find(struct extraction *x, const char *path, struct attributes *found, char name[BATON_NAME_MAX + 1]) {
    char part[BATON_NAME_MAX + 1];
    int error = op_getattr(x->store, ROOT_INO, found);

    name[0] = '\0';
    for (const char *at = path; error == 0;) {
        at += strspn(at, "/");
        size_t length = strcspn(at, "/");
        if (length == 0)
            break;
        if (length > BATON_NAME_MAX)
            return fail("%s: a name in it is too long", path);
        memcpy(part, at, length);
        part[length] = '\0';
        memcpy(name, part, length + 1);
        at += length;
        error = S_ISDIR(found->row.mode) ? op_lookup(x->store, found->ino, part, found) : -ENOTDIR;
    }
    return error ? fail("%s in the volume: %s", path, strerror(-error)) : 0;
}

static int open_target(struct extraction *x, const char *target) {
    struct stat status;

    if (mkdir(target, 0700) != 0 && errno != EEXIST)
        return fail("%s cannot be made: %s", target, strerror(errno));
    x->root = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (x->root < 0 || fstat(x->root, &status) != 0)
        return fail("%s cannot be opened: %s", target, strerror(errno));
    /* rmdir of a directory fails exactly if it is not empty, and it is ours to make anew. */
    if (rmdir(target) != 0 && errno != EBUSY && errno != EINVAL)
        return fail("%s is not empty; name a new directory", target);
    close(x->root);
    if (mkdir(target, 0700) != 0 && errno != EEXIST)
        return fail("%s cannot be made: %s", target, strerror(errno));
    x->root = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return x->root < 0 ? fail("%s cannot be opened: %s", target, strerror(errno)) : 0;
}

static int extract(struct extraction *x, const char *path, const char *target) {
    char name[BATON_NAME_MAX + 1];
    struct attributes from;

    int status = find(x, path, &from, name);
    if (status == 0)
        status = open_target(x, target);
    if (status)
        return status;
    if (S_ISDIR(from.row.mode)) {
        copy_children(x, x->root, from.ino);
        char self[64];
        snprintf(self, sizeof self, "/proc/self/fd/%d/.", x->root);
        set_attributes(x, AT_FDCWD, self, &from);
        x->directories++;
    } else {
        copy_entry(x, x->root, name, from.ino);
    }
    return 0;
}

static int report(const struct extraction *x, const char *target) {
    char size[32], files[32];

    if (x->tool.json) {
        json_t *line = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "directory", target, "files", (json_int_t)x->files,
                                 "directories", (json_int_t)x->directories, "others", (json_int_t)x->others, "bytes",
                                 (json_int_t)x->bytes, "problems", (json_int_t)x->problems);
        print_json(line);
        json_decref(line);
    } else {
        size_text(x->bytes, size, sizeof size);
        count_text(x->files, files, sizeof files);
        printf("Copied %s files (%s), %" PRIu64 " directories and %" PRIu64 " others to %s.\n", files, size, x->directories,
               x->others, target);
    }
    return x->problems > 0 ? fail("%" PRIu64 " things could not be copied as they are; see above", x->problems) : EXIT_SUCCESS;
}

static int run(int argc, char **argv) {
    enum { OPTION_PATH = OPTION_OWN };
    static const struct option options[] = {
        TOOL_OPTIONS, TOOL_STORE_OPTION, {"path", required_argument, NULL, OPTION_PATH}, {NULL, 0, NULL, 0}};
    static struct extraction x = {.root = -1};
    struct rlimit limit;
    const char *path = "/";
    int option;

    x.tool.command = &command_extract;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == OPTION_PATH)
            path = optarg;
        else
            tool_option(&x.tool, option, optarg);
    }
    if (optind + 1 != argc)
        return usage(&command_extract, "name one directory to copy to");
    if (tool_load(&x.tool) != 0)
        return EXIT_FAILURE;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* one descriptor for each level of directories */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    umask(0);
    x.buffer = malloc(COPY_ROOM);
    if (x.buffer == NULL)
        return fail("out of memory");
    int status = tool_open(&x.tool, &x.store);
    if (status == 0) {
        status = extract(&x, path, argv[optind]);
        store_close(x.store);
    }
    if (status == 0)
        status = report(&x, argv[optind]);
    for (size_t i = 0; i < x.link_room; i++)
        free(x.links[i].path);
    free(x.links);
    free(x.buffer);
    if (x.root >= 0)
        close(x.root);
    return status;
}

const struct command command_extract = {
    "extract", "copy files out of a store at rest, without mounting it",
    "usage: baton extract [--path PATH] DIRECTORY\n"
    "\n"
    "Copies what is in the store into DIRECTORY, which must be new or empty: with modes, owners, times, links, holes,\n"
    "extended attributes and ACLs. Every block is checked; a damaged one is told and becomes zeros in the copy. batond\n"
    "must not run on the store.\n"
    "\n"
    "  --path PATH     only this file or directory of the volume; a directory's content goes into DIRECTORY\n"
    "  --config FILE   the volume's config file; without it /etc/baton/VOLUME.conf (--volume), or the only one there\n"
    "  --node NAME     the node; without it the one that has this host's name\n"
    "  --store DIR     instead of both: the store's directory\n"
    "  --json          print numbers as JSON\n"
    "\n"
    "Exit status: 0 all was copied; 1 not all, see the messages.\n",
    run};
