#include "fs/generation.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define CURRENT "current"
#define PREFIX "generation."
#define KEEP "keep" /* holds "NUMBER.NAME": that generation, when it is no longer current, goes to NAME */

/* The number in a name of ours; 0: it is none. */
static unsigned number_in(const char *name) {
    unsigned number = 0;
    char again[32];
    if (sscanf(name, PREFIX "%9u", &number) != 1)
        return 0;
    snprintf(again, sizeof again, PREFIX "%u", number);
    return strcmp(again, name) == 0 ? number : 0;
}

/* ---- Files of one line ---- */

/* The line; -ENOENT if there is no such file. */
static int line_read(const char *store, const char *name, char line[NAME_MAX]) {
    char path[PATH_MAX];
    if (strlen(store) + 32 > PATH_MAX)
        return -ENAMETOOLONG;
    snprintf(path, sizeof path, "%s/%s", store, name);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOTDIR ? -ENOENT : -errno;
    ssize_t length = read(fd, line, NAME_MAX - 1);
    if (length < 0)
        return -errno;
    line[length] = 0;
    if (length == 0 || line[length - 1] != '\n')
        return -EIO;
    line[length - 1] = 0;
    return 0;
}

/* In one step, and durable on return. */
static int line_write(const char *store, const char *name, const char *line) {
    char path[PATH_MAX], new_path[PATH_MAX], text[NAME_MAX];
    if (strlen(store) + 32 > PATH_MAX)
        return -ENAMETOOLONG;
    snprintf(path, sizeof path, "%s/%s", store, name);
    snprintf(new_path, sizeof new_path, "%s/%s.new", store, name);
    int length = snprintf(text, sizeof text, "%s\n", line);
    if (length < 0 || (size_t)length >= sizeof text)
        return -ENAMETOOLONG;
    AUTO_CLOSE int fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = pwrite_all(fd, text, (size_t)length, 0);
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    if (rc == 0 && rename(new_path, path) < 0)
        rc = -errno;
    return rc ? rc : fsync_dir(store);
}

/* ---- Which ---- */

void generation_base(const char *store, unsigned number, char base[PATH_MAX]) {
    if (number)
        snprintf(base, PATH_MAX, "%s/" PREFIX "%u", store, number);
    else
        snprintf(base, PATH_MAX, "%s", store);
}

int generation_current(const char *store, char base[PATH_MAX], unsigned *number) {
    char name[NAME_MAX];
    unsigned current = 0;
    int rc = line_read(store, CURRENT, name);
    if (rc && rc != -ENOENT)
        return rc;
    if (rc == 0) {
        current = number_in(name);
        if (current == 0)
            return -EIO;
    }
    generation_base(store, current, base);
    if (number)
        *number = current;
    return 0;
}

static bool has(const char *store, unsigned number, const char *name) {
    char base[PATH_MAX], file[PATH_MAX + 16];
    struct stat st;
    generation_base(store, number, base);
    snprintf(file, sizeof file, "%s/%s", base, name);
    return stat(file, &st) == 0;
}

static bool is_building(const char *store, unsigned number) {
    return has(store, number, GENERATION_BUILDING) || has(store, number, GENERATION_COMPLETE);
}

int generation_begin(const char *store, unsigned number, const char *line) {
    char base[PATH_MAX];
    generation_base(store, number, base);
    int rc = mkdir(base, 0700) < 0 ? -errno : line_write(base, GENERATION_BUILDING, line);
    return rc ? rc : fsync_dir(store);
}

int generation_complete(const char *store, unsigned number) {
    char base[PATH_MAX], from[PATH_MAX + 16], to[PATH_MAX + 16];
    generation_base(store, number, base);
    snprintf(from, sizeof from, "%s/" GENERATION_BUILDING, base);
    snprintf(to, sizeof to, "%s/" GENERATION_COMPLETE, base);
    if (rename(from, to) < 0 && (errno != ENOENT || !has(store, number, GENERATION_COMPLETE)))
        return -errno;
    return fsync_dir(base);
}

/* Calls `each` for every generation's number. */
static int for_each(const char *store, int (*each)(void *context, unsigned number), void *context) {
    DIR *directory = opendir(store);
    struct dirent *entry;
    int rc = 0;
    if (!directory)
        return -errno;
    while (rc == 0 && (entry = readdir(directory)) != NULL) {
        unsigned number = number_in(entry->d_name);
        if (number)
            rc = each(context, number);
    }
    closedir(directory);
    return rc;
}

struct looking {
    const char *store;
    unsigned current, found;
    bool keep_building, complete;
};

static int look_building(void *context, unsigned number) {
    struct looking *looking = context;
    if (number != looking->current && (looking->complete ? has(looking->store, number, GENERATION_COMPLETE)
                                                         : is_building(looking->store, number)))
        looking->found = MAX(looking->found, number);
    return 0;
}

static int find(struct looking *looking) {
    char base[PATH_MAX];
    int rc = generation_current(looking->store, base, &looking->current);
    if (rc == 0)
        rc = for_each(looking->store, look_building, looking);
    return rc ? rc : looking->found ? 0 : -ENOENT;
}

int generation_building(const char *store, unsigned *number, char line[NAME_MAX]) {
    struct looking looking = {.store = store};
    char base[PATH_MAX];
    int rc = find(&looking);
    if (rc)
        return rc;
    *number = looking.found;
    generation_base(store, looking.found, base);
    rc = line_read(base, has(store, looking.found, GENERATION_COMPLETE) ? GENERATION_COMPLETE : GENERATION_BUILDING, line);
    if (rc == -EIO || rc == -ENOENT) { /* cut from power at its first instant */
        line[0] = 0;
        rc = 0;
    }
    return rc;
}

int generation_switch(const char *store) {
    struct looking looking = {.store = store, .complete = true};
    char name[64];
    int rc = find(&looking);
    if (rc)
        return rc;
    snprintf(name, sizeof name, PREFIX "%u", looking.found);
    rc = fsync_dir(store); /* what will be named is there after a power cut */
    return rc ? rc : line_write(store, CURRENT, name);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where) {
    (void)st;
    (void)where;
    return (kind == FTW_DP ? rmdir(path) : unlink(path)) < 0 && errno != ENOENT ? errno : 0;
}

static int remove_tree(const char *path) {
    int rc = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return rc < 0 ? (errno == ENOENT ? 0 : -errno) : -rc;
}

static int sweep_one(void *context, unsigned number) {
    const struct looking *looking = context;
    char base[PATH_MAX];
    if (number == looking->current || (looking->keep_building && is_building(looking->store, number)))
        return 0;
    generation_base(looking->store, number, base);
    return remove_tree(base);
}

static const char *const parts[] = {"checkpoint", "tail", "meta", "data"};

/* Files that were the store's before its first full synchronization. */
static int sweep_own(const char *store) {
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < sizeof parts / sizeof *parts; i++) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s/%s", store, parts[i]);
        rc = remove_tree(path);
    }
    return rc;
}

/* ---- Keeping ---- */

int generation_lock(const char *store) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", store);
    int lock = open(path, O_RDWR | O_CLOEXEC);
    if (lock < 0)
        return -errno;
    if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
        int error = errno;
        close(lock);
        return error == EWOULDBLOCK ? -EBUSY : -error;
    }
    return lock;
}

int generation_keep(const char *store, const char *name) {
    char base[PATH_MAX], line[NAME_MAX];
    unsigned number;
    int rc = generation_current(store, base, &number);
    if (rc)
        return rc;
    if (!name) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof path, "%s/" KEEP, store);
        return unlink(path) < 0 ? (errno == ENOENT ? 0 : -errno) : fsync_dir(store);
    }
    if (strncmp(name, GENERATION_ASIDE, strlen(GENERATION_ASIDE)) != 0 || strchr(name, '/') ||
        (size_t)snprintf(line, sizeof line, "%u.%s", number, name) >= sizeof line)
        return -EINVAL;
    return line_write(store, KEEP, line);
}

static int move(const char *from, const char *to, const char *name) {
    char old[PATH_MAX + 16], new[PATH_MAX + 16];
    snprintf(old, sizeof old, "%s/%s", from, name);
    snprintf(new, sizeof new, "%s/%s", to, name);
    return rename(old, new) < 0 && errno != ENOENT ? -errno : 0; /* there already: interrupted before */
}

/* Does what was left to be done, if its generation is no longer current. Each step may have been made before. */
static int keep_now(const char *store, unsigned current) {
    char path[PATH_MAX + 16], target[NAME_MAX], base[PATH_MAX], to[PATH_MAX], lock[PATH_MAX + 16];
    unsigned number;
    int at = 0, rc = line_read(store, KEEP, target);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    if (sscanf(target, "%9u.%n", &number, &at) != 1 || at == 0 || strchr(target + at, '/') ||
        strncmp(target + at, GENERATION_ASIDE, strlen(GENERATION_ASIDE)) != 0)
        return -EIO;
    if (number == current)
        return 0;
    generation_base(store, number, base);
    if ((size_t)snprintf(to, sizeof to, "%s/%s", store, target + at) >= sizeof to - 16)
        return -ENAMETOOLONG;
    rc = mkdir(to, 0700) < 0 && errno != EEXIST ? -errno : 0;
    for (unsigned i = 0; rc == 0 && i < sizeof parts / sizeof *parts; i++)
        rc = move(base, to, parts[i]);
    snprintf(lock, sizeof lock, "%s/lock", to);
    int fd = rc ? -1 : open(lock, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (rc == 0 && fd < 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    rc = rc ? rc : fsync_dir(to);
    rc = rc ? rc : fsync_dir(store);
    snprintf(path, sizeof path, "%s/" KEEP, store);
    if (rc == 0 && unlink(path) < 0)
        rc = -errno;
    return rc ? rc : fsync_dir(store);
}

int generation_kept(const char *store, void (*each)(void *context, const char *name), void *context) {
    DIR *directory = opendir(store);
    struct dirent *entry;
    if (!directory)
        return -errno;
    while ((entry = readdir(directory)) != NULL)
        if (strncmp(entry->d_name, GENERATION_ASIDE, strlen(GENERATION_ASIDE)) == 0)
            each(context, entry->d_name);
    closedir(directory);
    return 0;
}

int generation_sweep(const char *store, bool keep_building) {
    struct looking looking = {.store = store, .keep_building = keep_building};
    char base[PATH_MAX], file[PATH_MAX + 16];
    int rc = generation_current(store, base, &looking.current);
    if (rc == 0)
        rc = keep_now(store, looking.current);
    if (rc)
        return rc;
    if (looking.current) { /* complete: the file says so */
        snprintf(file, sizeof file, "%s/" GENERATION_COMPLETE, base);
        if (unlink(file) < 0 && errno != ENOENT)
            return -errno;
        rc = sweep_own(store);
    }
    return rc ? rc : for_each(store, sweep_one, &looking);
}
