/* Stores to be damaged, as files in memory, and everything that can be read of a store. */
#include "fs/history_undone.h"
#include "fs/journal_view.h"
#include "fs/ops.h"
#include "fs/tree.h"
#include "fs/undone.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

const uint8_t fuzz_volume[16] = "a volume's id...";

struct store_options fuzz_options(void) {
    return (struct store_options){.map_size = 1ull << 30, .segment_blocks = 2048, .tail_size = 1u << 20,
                                  .commit_ms = 3600000, .checkpoint_ms = 3600000, .history_bytes = 1ull << 30,
                                  .history_seconds = 86400, .reserve_bytes = 1u << 20};
}

/* ---- Images ---- */

static struct image *taking;
static size_t taking_prefix;

/* Where the last bytes that were written end: much of the database's file is room that was set aside. */
static size_t data_end(int fd) {
    off_t end = 0;
    for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0; at = lseek(fd, end, SEEK_DATA))
        end = lseek(fd, at, SEEK_HOLE);
    return (size_t)end;
}

static int take_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)ftw;
    if (kind != FTW_F || !S_ISREG(st->st_mode) || strstr(path, "/lock.mdb"))
        return 0;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct image_file file = {.name = strdup(path + taking_prefix), .size = (size_t)st->st_size, .length = data_end(fd)};
    file.bytes = malloc(file.length + 1);
    PROMISE(file.name && file.bytes && fd >= 0 && pread_all(fd, file.bytes, file.length, 0) == 0);
    while (file.length && file.bytes[file.length - 1] == 0)
        file.length--;
    file.bytes = realloc(file.bytes, file.length + 1);
    taking->files = realloc(taking->files, (taking->count + 1) * sizeof *taking->files);
    PROMISE(file.bytes && taking->files);
    taking->files[taking->count++] = file;
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct image_file *)a)->name, ((const struct image_file *)b)->name);
}

void image_take(struct image *image, const char *path) {
    taking = image;
    taking_prefix = strlen(path) + 1;
    PROMISE(nftw(path, take_one, 16, FTW_PHYS) == 0);
    qsort(image->files, image->count, sizeof *image->files, by_name);
}

void image_write(const struct image *image, const char *path) {
    static const char *const folders[] = {"", "/meta", "/tail", "/data", "/undone"};
    char full[1200];
    for (unsigned i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(full, sizeof full, "%s%s", path, folders[i]);
        PROMISE(mkdir(full, 0700) == 0 || errno == EEXIST);
    }
    for (unsigned i = 0; i < image->count; i++) {
        const struct image_file *file = &image->files[i];
        snprintf(full, sizeof full, "%s/%s", path, file->name);
        AUTO_CLOSE int fd = open(full, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        PROMISE(fd >= 0 && pwrite_all(fd, file->bytes, file->length, 0) == 0 && ftruncate(fd, (off_t)file->size) == 0);
    }
}

/* ---- The template ---- */

static const struct caller root = {.umask = 022};

static void done(int64_t rc) {
    if (rc < 0)
        fprintf(stderr, "making a store: %s\n", strerror((int)-rc));
    PROMISE(rc >= 0);
}

static struct store *make_store(const char *name, char path[600]) {
    struct store_options options = fuzz_options();
    struct store *store;
    char why[600] = "";
    snprintf(path, 600, "%s/%s", fuzz_directory(), name);
    done(store_format(path, fuzz_volume, "fuzz", 1700000000123456789, &options, why, sizeof why));
    done(store_open(path, fuzz_volume, &options, &store, why, sizeof why));
    return store;
}

static uint64_t make(struct store *store, uint64_t parent, const char *name, uint32_t mode) {
    struct attributes out;
    uint64_t lsn;
    done(op_create(store, &root, parent, name, mode, 0, "a target", &out, &lsn));
    return out.ino;
}

static void fill(struct store *store, uint64_t ino, size_t length, uint64_t offset, uint8_t byte) {
    uint64_t lsn;
    uint8_t *bytes = malloc(length);
    PROMISE(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(byte + i / 512);
    done(op_write(store, ino, bytes, length, offset, 0, &lsn));
    free(bytes);
}

static const uint8_t acl[] = "\2\0\0\0\1\0\6\0\377\377\377\377\2\0\6\0\7\0\0\0\4\0\4\0\377\377\377\377"
                             "\20\0\6\0\377\377\377\377\40\0\4\0\377\377\377\377";

static void make_tree(struct store *store) {
    uint64_t lsn, ino, victim;
    uint32_t left;
    struct attributes out;
    uint64_t folder = make(store, ROOT_INO, "folder", S_IFDIR | 0755);
    uint64_t below = make(store, folder, "below", S_IFDIR | 0700);
    for (unsigned i = 0; i < 12; i++) {
        char name[20];
        snprintf(name, sizeof name, "file %u", i);
        ino = make(store, below, name, S_IFREG | 0644);
        fill(store, ino, 1 + i * 700, 0, (uint8_t)i);
    }
    ino = make(store, folder, "holes", S_IFREG | 0600);
    fill(store, ino, 5000, 0, 1);
    fill(store, ino, 100, 200000, 2);
    done(op_fallocate(store, ino, 0, 50000, 60000, &lsn));
    fill(store, ino, 3000, 4000, 3); /* replaced */
    done(op_setxattr(store, &root, ino, "user.colour", "red", 3, 0, false, &lsn));
    done(op_setxattr(store, &root, ino, "system.posix_acl_access", acl, sizeof acl - 1, 0, false, &lsn));
    done(op_setxattr(store, &root, folder, "system.posix_acl_default", acl, sizeof acl - 1, 0, false, &lsn));
    done(op_link(store, ino, ROOT_INO, "second name", &out, &lsn));
    ino = make(store, ROOT_INO, "large", S_IFREG | 0644);
    for (unsigned i = 0; i < 3; i++)
        fill(store, ino, 300000, i * 300000, (uint8_t)(i * 50));
    done(op_truncate(store, ino, 600000, false, &lsn));
    make(store, folder, "link", S_IFLNK | 0777);
    make(store, folder, "fifo", S_IFIFO | 0600);
    ino = make(store, ROOT_INO, "unlinked", S_IFREG | 0644);
    fill(store, ino, 70000, 0, 9);
    done(op_unlink(store, ROOT_INO, "unlinked", &victim, &left, &lsn));
    done(op_rename(store, &root, below, "file 1", folder, "moved", 0, &victim, &left, &lsn));
    done(op_rename(store, &root, below, "file 2", below, "file 3", 0, &victim, &left, &lsn));
    done(op_reclaim(store, &victim, 1));
}

static void make_undone(struct store *store) {
    struct position before;
    char path[1400];
    store_position(store, &before);
    uint64_t ino = make(store, ROOT_INO, "taken back", S_IFREG | 0644);
    fill(store, ino, 9000, 0, 77);
    make(store, ROOT_INO, "taken back too", S_IFDIR | 0755);
    store_stop_epoch(store);
    done(store_rollback(store, before.lsn, path, sizeof path));
}

static void make_tail(struct store *store) { /* after the last checkpoint */
    uint64_t lsn, ino = make(store, ROOT_INO, "only in the tail", S_IFREG | 0644);
    fill(store, ino, 6000, 0, 5);
    fill(store, ino, 100000, 8192, 6); /* in a segment */
    done(op_setxattr(store, &root, ino, "user.x", "y", 1, 0, false, &lsn));
    done(op_truncate(store, ino, 7000, false, &lsn));
}

const struct image *fuzz_template(void) {
    static struct image image;
    char path[600];
    if (image.count)
        return &image;
    struct store *store = make_store("template", path);
    done(store_start_epoch(store, EPOCH_MAKE(1, 7), "a"));
    make_tree(store);
    make_undone(store);
    done(store_start_epoch(store, EPOCH_MAKE(2, 9), "b"));
    make(store, ROOT_INO, "of the second epoch", S_IFREG | 0644);
    done(store_checkpoint(store));
    make_tail(store);
    image_take(&image, path); /* as a killed process leaves it */
    store_close(store);
    fuzz_remove(path);
    return &image;
}

const struct image *fuzz_empty(void) {
    static struct image image;
    char path[600];
    if (image.count)
        return &image;
    store_close(make_store("empty", path));
    image_take(&image, path);
    fuzz_remove(path);
    return &image;
}

/* ---- Reading everything ---- */

#define ENTRIES_MAX 3000u
#define DEPTH_MAX 24u
#define PIECES_MAX 64u /* of a file */

struct reader {
    struct tree tree;
    unsigned errors, entries;
};

static void failed(struct reader *reader, const char *what, uint64_t ino, int rc) {
    reader->errors++;
    if (getenv("FUZZ_LOG"))
        fprintf(stderr, "%s of inode %llx: %d\n", what, (unsigned long long)ino, rc);
}

static void read_data(struct reader *reader, uint64_t ino) {
    static uint8_t buffer[TREE_DATA_MAX];
    struct tree_data data = {0};
    uint64_t at = 0;
    for (unsigned i = 0; i < PIECES_MAX; i++) {
        int rc = reader->tree.data(reader->tree.context, ino, at, buffer, &data);
        if (rc || data.bad)
            failed(reader, "data", ino, rc ? rc : -EIO);
        if (rc || data.length == 0)
            return;
        FUZZ_MUST(data.from >= at && data.length <= TREE_DATA_MAX);
        at = data.from + data.length;
    }
}

static void read_xattrs(struct reader *reader, uint64_t ino) {
    static uint8_t value[BATON_XATTR_VALUE_MAX];
    char name[BATON_NAME_MAX + 1] = "";
    uint32_t length;
    int rc;
    for (unsigned i = 0; (rc = reader->tree.xattr(reader->tree.context, ino, name, value, &length)) == 0; i++)
        FUZZ_MUST(i < 1000); /* names go up, and end */
    if (rc != -ENOENT)
        failed(reader, "attributes", ino, rc);
}

static void read_target(struct reader *reader, uint64_t ino) {
    char target[BATON_SYMLINK_MAX + 1];
    int rc = reader->tree.target(reader->tree.context, ino, target);
    if (rc)
        failed(reader, "target", ino, rc);
}

static void read_directory(struct reader *reader, uint64_t directory, unsigned depth) {
    struct tree_entry *entries = calloc(TREE_LIST_MAX, sizeof *entries);
    uint64_t cookie = 0;
    unsigned count = 0;
    PROMISE(entries);
    do {
        int rc = reader->tree.list(reader->tree.context, directory, cookie, entries, &count);
        if (rc) {
            failed(reader, "list", directory, rc);
            break;
        }
        for (unsigned i = 0; i < count && reader->entries++ < ENTRIES_MAX; i++) {
            const struct tree_entry *entry = &entries[i];
            read_xattrs(reader, entry->ino);
            if (S_ISREG(entry->row.mode))
                read_data(reader, entry->ino);
            else if (S_ISLNK(entry->row.mode))
                read_target(reader, entry->ino);
            else if (S_ISDIR(entry->row.mode) && depth < DEPTH_MAX)
                read_directory(reader, entry->ino, depth + 1);
        }
        if (count) {
            FUZZ_MUST(entries[count - 1].cookie > cookie);
            cookie = entries[count - 1].cookie;
        }
    } while (count && reader->entries < ENTRIES_MAX);
    free(entries);
}

static unsigned read_tree(struct store *store) {
    struct reader reader = {.tree = tree_of_store(store)};
    struct tree_entry top;
    char line[TREE_LINE_MAX];
    uint64_t at = 0;
    int rc = reader.tree.look(reader.tree.context, 0, "", &top);
    if (rc)
        return 1;
    read_directory(&reader, ROOT_INO, 0);
    for (unsigned i = 0; history_is(store) && reader.tree.removed(reader.tree.context, &at, line) == 0; i++)
        FUZZ_MUST(i < 1000);
    return reader.errors;
}

static int swallow(void *context, json_t *line) {
    unsigned *bad = context;
    char *text = json_dumps(line, JSON_COMPACT);
    FUZZ_MUST(text);
    *bad += json_is_object(json_object_get(line, "bad")); /* a number: how many in all */
    free(text);
    json_decref(line);
    return 0;
}

static bool nobody(void *context, int timeout_ms) {
    (void)context;
    (void)timeout_ms;
    return true;
}

static unsigned read_journal(struct store *store) {
    static const char *const requests[] = {"{\"action\":\"list\"}", "{\"action\":\"stat\"}",
                                           "{\"action\":\"verify\",\"data\":false}", "{\"action\":\"verify\"}"};
    char why[600];
    unsigned bad = 0, before = 0;
    for (unsigned i = 0; i < sizeof requests / sizeof *requests; i++) {
        before = bad;
        json_t *request = json_loads(requests[i], 0, NULL);
        const struct journal_sink sink = {.context = &bad, .send = swallow, .gone = nobody};
        int rc = journal_view(store, NULL, request, &sink, why, sizeof why);
        if (rc && getenv("FUZZ_LOG"))
            fprintf(stderr, "%s: %d: %s\n", requests[i], rc, why);
        bad += rc != 0;
        json_decref(request);
    }
    return before; /* without the last one's: blocks that only history names are nothing that check reads */
}

static void read_undone(void *context, const char *path, uint64_t bytes) {
    struct store *store = context, *past;
    struct undone_report report;
    char why[600];
    (void)bytes;
    if (history_open_undone(store, path, NULL, NULL, &past, &report, why, sizeof why) == 0) {
        read_tree(past);
        history_close(past);
    }
}

static unsigned read_pasts(struct store *store) {
    struct position now;
    struct store *past;
    char why[600];
    unsigned bad = 0;
    store_position(store, &now);
    uint64_t span = now.lsn - MIN(now.first, now.lsn);
    for (unsigned i = 0; i < 3; i++) { /* the oldest, one between, the newest */
        int rc = history_open(store, now.lsn - span * i / 2, NULL, NULL, NULL, &past, why, sizeof why);
        bad += rc != 0;
        if (rc)
            continue;
        read_tree(past); /* likewise */
        history_close(past);
    }
    undone_list(store_path(store), read_undone, store);
    return bad;
}

unsigned fuzz_read_all(struct store *store, bool history) {
    uint64_t inos[64];
    struct store_space space;
    unsigned bad = read_tree(store);
    op_orphans(store, 0, inos, 64);
    bad += store_space(store, &space) != 0;
    return history ? bad + read_journal(store) + read_pasts(store) : bad;
}
