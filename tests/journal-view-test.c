/* What `baton journal` says about each type of record, its filters, following, undoing, trimming; and that `baton extract`
 * and `baton journal` work on the store at rest. */
#include "fs/journal_names.h"
#include "fs/journal_view.h"
#include "fs/ops.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static struct store *store;
static char path[512], why[512];
static const struct caller root = {0};
static const uint8_t volume[STORE_ID_SIZE] = {1};

static void open_store(void) {
    if (store_open(path, volume, NULL, &store, why, sizeof why) != 0)
        bail("store_open: %s", why);
}

static uint64_t make(uint64_t parent, const char *name, uint32_t mode, const char *target) {
    struct attributes made;
    uint64_t lsn;
    int error = op_create(store, &root, parent, name, mode, 0, target, &made, &lsn);
    if (error)
        bail("op_create %s: %s", name, strerror(-error));
    return made.ino;
}

static void done(int error, const char *what) {
    if (error < 0)
        bail("%s: %s", what, strerror(-error));
}

struct collected {
    char text[8192];
    json_t *end;
    unsigned lines;
    unsigned enough; /* gone after so many */
};

static atomic_uint arrived; /* lines, for another thread to look at */

static int collect(void *context, json_t *line) {
    struct collected *c = context;
    const json_t *record = json_object_get(line, "record");
    size_t used = strlen(c->text);

    c->lines++;
    atomic_fetch_add(&arrived, 1);
    if (record != NULL)
        snprintf(c->text + used, sizeof c->text - used, "%s\n", json_string_value(json_object_get(record, "text")));
    else if (json_object_get(line, "end") == NULL) {
        AUTO_FREE char *dump = json_dumps(line, JSON_COMPACT);
        snprintf(c->text + used, sizeof c->text - used, "%s\n", dump);
    } else {
        c->end = json_incref(line);
    }
    json_decref(line);
    return 0;
}

static bool gone(void *context, int ms) {
    struct collected *c = context;
    usleep((useconds_t)ms * 1000);
    return c->enough > 0 && c->lines >= c->enough;
}

static struct collected seen;

static int ask(json_t *request) {
    const struct journal_sink sink = {.context = &seen, .send = collect, .gone = gone};
    unsigned enough = seen.enough;
    json_decref(seen.end);
    memset(&seen, 0, sizeof seen);
    seen.enough = enough;
    why[0] = '\0';
    int error = journal_view(store, NULL, request, &sink, why, sizeof why);
    json_decref(request);
    return error;
}

static uint64_t file, directory;

static void make_history(void) {
    struct set_attributes set = {.mask = SET_MODE | SET_UID | SET_MTIME, .mode = 0600, .uid = 7, .mtime = {1, 500}};
    struct attributes out;
    uint64_t lsn, ino;
    uint32_t left;
    char block[10000];

    memset(block, 'x', sizeof block);
    directory = make(ROOT_INO, "projects", S_IFDIR | 0755, NULL);
    file = make(directory, "x.c", S_IFREG | 0644, NULL);
    make(directory, "to", S_IFLNK | 0777, "x.c");
    done(op_write(store, file, block, sizeof block, 0, 0, &lsn), "write");
    done(op_setattr(store, &root, file, &set, &out, &lsn), "setattr");
    done(op_setxattr(store, &root, file, "user.colour", "red", 3, 0, false, &lsn), "setxattr");
    done(op_removexattr(store, file, "user.colour", &lsn), "removexattr");
    done(op_setxattr(store, &root, file, "user.taste", "sour", 4, 0, false, &lsn), "setxattr");
    done(op_link(store, file, ROOT_INO, "a\xff\\b\n", &out, &lsn), "link");
    done(op_rename(store, &root, directory, "x.c", directory, "y.c", 0, &ino, &left, &lsn), "rename");
    done(op_rename(store, &root, ROOT_INO, "a\xff\\b\n", directory, "to", RENAME_EXCHANGE, &ino, &left, &lsn),
         "exchange");
    done(op_rename(store, &root, directory, "to", directory, "on", RENAME_WHITEOUT, &ino, &left, &lsn), "whiteout");
    done(op_rename(store, &root, directory, "on", directory, "to", 0, &ino, &left, &lsn), "back");
    done(op_truncate(store, file, 5000, false, &lsn), "truncate");
    done(op_fallocate(store, file, 0, 1 << 20, 8192, &lsn), "fallocate");
    done(op_fallocate(store, file, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, 4096, &lsn), "punch");
    make(ROOT_INO, "gone", S_IFDIR | 0700, NULL);
    done(op_rmdir(store, ROOT_INO, "gone", &ino, &lsn), "rmdir");
}

static void says(const char *part) {
    if (!ok(strstr(seen.text, part) != NULL, "told: %s", part))
        diag("%s", seen.text);
}

static void sentences(void) {
    char expected[256];

    is_int(0, ask(json_pack("{s:s}", "action", "list")), "list") || (diag("%s", why), 0);
    says("node \\xc3 became primary\n");
    snprintf(expected, sizeof expected, "created directory projects (inode %llu) mode 0755 owner 0:0\n",
             (unsigned long long)directory);
    says(expected);
    snprintf(expected, sizeof expected, "created file projects/x.c (inode %llu) mode 0644 owner 0:0\n",
             (unsigned long long)file);
    says(expected);
    says("created symbolic link projects/to (inode ");
    says(") to x.c owner 0:0\n");
    says("wrote bytes 0 to 10000 of projects/x.c, whose size is 10000\n");
    says("set mode 0600, owner 7, modification time 1970-01-01 ");
    says("set attribute user.colour of projects/x.c (3 bytes)\n");
    says("removed attribute user.colour of projects/x.c\n");
    says("linked a\\xff\\\\b\\x0a to inode ");
    says("renamed projects/x.c to projects/y.c (inode ");
    says("exchanged a\\xff\\\\b\\x0a and projects/to (inodes ");
    says("renamed projects/to to projects/on (inode ");
    says(", and left a whiteout (inode ");
    says(") owner 0:0\nrenamed projects/on to projects/to (inode ");
    says("set the size of projects/to to 5000\n");
    says("reserved space from byte 1048576 to 1056768 of projects/to\n");
    says("made a hole from byte 0 to 4096 of projects/to\n");
    says("removed directory gone (inode ");
}

static unsigned count_of(json_t *request) {
    json_object_set_new(request, "action", json_string("list"));
    if (ask(request) != 0)
        return UINT32_MAX;
    return seen.lines - 1;
}

static void filters(void) {
    struct position position;
    store_position(store, &position);

    is_int(position.lsn, count_of(json_object()), "all records");
    is_int(3, count_of(json_pack("{s:i, s:i}", "from", 2, "to", 4)), "by LSN");
    is_int(4, count_of(json_pack("{s:i}", "last", 4)), "the last four");
    is_int(4, count_of(json_pack("{s:s}", "type", "create")), "by type");
    is_int(2, count_of(json_pack("{s:s}", "path", "gone")), "by path");
    is_int(position.lsn - 3, count_of(json_pack("{s:s}", "path", "projects")), "by path, below a directory");
    is_int(0, count_of(json_pack("{s:s}", "path", "project")), "... which is no prefix of a name");
    is_int(13 + 1, count_of(json_pack("{s:I}", "inode", (json_int_t)file)), "by inode");
    is_int(0, count_of(json_pack("{s:I}", "since", (json_int_t)position.time + 1)), "since");
    is_int(position.lsn, count_of(json_pack("{s:I}", "until", (json_int_t)position.time)), "until");
    is_int(-EINVAL, ask(json_pack("{s:s, s:s}", "action", "list", "type", "jump")), "an unknown type");
    is_int(-EINVAL, ask(json_pack("{s:s, s:s}", "action", "list", "from", "1")), "a text instead of a number");
    is_int(-EINVAL, ask(json_pack("{s:s}", "action", "burn")), "an unknown action");
    is_int(-ENOENT, ask(json_pack("{s:s, s:i}", "action", "show", "lsn", 4000)), "no such record");
    ok(strstr(why, "the journal has 1 to ") != NULL, "... says what there is");
    is_int(0, ask(json_pack("{s:s, s:i}", "action", "show", "lsn", 3)), "one record");
    is_int(2, seen.lines, "... alone");
}

static void *write_later(void *argument) {
    (void)argument;
    for (unsigned i = 0; atomic_load(&arrived) < 2 && i < 6000; i++)
        usleep(10000);
    make(ROOT_INO, "later", S_IFREG | 0644, NULL);
    return NULL;
}

static void following(void) {
    pthread_t thread;
    struct position position;

    seen.enough = 3;
    atomic_store(&arrived, 0);
    pthread_create(&thread, NULL, write_later, NULL);
    is_int(0, ask(json_pack("{s:s, s:i}", "action", "follow", "last", 2)), "follow");
    pthread_join(thread, NULL);
    says("removed directory gone");
    says("created file later");
    seen.enough = 0;
    store_position(store, &position);
    store_stop_epoch(store);
    done(store_undo(store, position.lsn - 1), "undo");
}

static void verifying(void) {
    is_int(0, ask(json_pack("{s:s}", "action", "verify")), "verify");
    is_int(0, json_integer_value(json_object_get(seen.end, "bad")), "no record is bad");
    ok(json_integer_value(json_object_get(seen.end, "records")) > 15, "all were looked at");
    is_int(0, ask(json_pack("{s:s}", "action", "stat")), "stat");
    is_int(4, json_integer_value(json_object_get(json_object_get(seen.end, "types"), "create")), "numbers by type");
}

/* The records that named them are gone: the state knows the names. */
static void trimmed(void) {
    const struct store_options options = {.no_history = true};
    struct position position;
    uint64_t lsn;
    char name[64];

    store_close(store);
    if (store_open(path, volume, &options, &store, why, sizeof why) != 0)
        bail("store_open: %s", why);
    done(store_start_epoch(store, EPOCH_MAKE(2, 7), "a"), "epoch");
    for (unsigned i = 0; i < 30000; i++) { /* more than one snapshot reads */
        snprintf(name, sizeof name, "filler %u", i);
        make(ROOT_INO, name, S_IFREG | 0644, NULL);
    }
    store_position(store, &position);
    lsn = position.lsn;
    for (unsigned i = 0; position.first <= lsn && i < 600; i++) {
        usleep(50000);
        done(store_checkpoint(store), "checkpoint");
        store_position(store, &position);
    }
    if (!ok(position.first > lsn, "the journal is trimmed"))
        return;
    done(op_write(store, file, "x", 1, 0, 0, &lsn), "write");
    is_int(0, ask(json_pack("{s:s, s:I}", "action", "list", "from", (json_int_t)lsn)), "list") || (diag("%s", why), 0);
    says("wrote bytes 0 to 4096 of projects/to, whose size is 1056768\n");
}

static const char *program(void) {
    static char name[1024];
    const char *build = getenv("BATON_BUILD");
    snprintf(name, sizeof name, "%s/baton", build != NULL ? build : ".");
    return name;
}

static int run(const char *arguments, const char *where) {
    char command[4096];
    snprintf(command, sizeof command, "%s %s --store %s %s", program(), arguments, path, where);
    int status = system(command);
    return status < 0 ? status : WEXITSTATUS(status);
}

static void at_rest(void) {
    char target[600], at[2000], text[16] = "";
    struct stat status, other;

    snprintf(target, sizeof target, "%s/out", test_directory());
    is_int(0, run("journal list >/dev/null", ""), "baton journal list");
    is_int(0, run("journal verify >/dev/null", ""), "baton journal verify");
    is_int(1, run("journal follow 2>/dev/null", ""), "nothing to follow");
    is_int(0, run("extract >/dev/null", target), "baton extract");
    is_int(1, run("extract 2>/dev/null", target), "... refuses a directory that is not empty");
    snprintf(at, sizeof at, "%s/projects/to", target);
    if (!ok(stat(at, &status) == 0, "the file is there"))
        return;
    is_int(1056768, status.st_size, "its size");
    is_int(S_IFREG | 0600, status.st_mode, "its mode");
    is_int(7, status.st_uid, "its owner");
    is_int(2, status.st_nlink, "its links");
    ok(status.st_blocks < 64, "its holes");
    is_int(4, getxattr(at, "user.taste", text, sizeof text), "its attribute");
    is_string("sour", text, "... and the value");
    snprintf(at, sizeof at, "%s/projects/y.c", target);
    ok(stat(at, &other) == 0 && other.st_ino == status.st_ino, "the other name");
    int fd = open(at, O_RDONLY);
    ok(pread(fd, text, 2, 4998) == 2 && text[0] == 'x' && text[1] == 'x', "data");
    ok(pread(fd, text, 2, 5000) == 2 && text[0] == 0 && text[1] == 0, "zeros behind the truncation");
    close(fd);
    snprintf(at, sizeof at, "%s/a\xff\\b\n", target);
    ok(readlink(at, text, sizeof text) == 3 && memcmp(text, "x.c", 3) == 0, "the symbolic link");
    snprintf(at, sizeof at, "--path projects/to %s/one", test_directory());
    is_int(0, run("extract >/dev/null", at), "one file alone");
    is_int(1, run("extract --path no/where 2>/dev/null", target), "a path that is not there");
}

int main(void) {
    plan_lazy();
    snprintf(path, sizeof path, "%s/store", test_directory());
    if (store_format(path, volume, "test", 1000000000, NULL, why, sizeof why) != 0)
        bail("store_format: %s", why);
    open_store();
    done(store_start_epoch(store, EPOCH_MAKE(1, 7), "\xc3"), "epoch");
    make_history();
    sentences();
    filters();
    following();
    verifying();
    store_close(store);
    at_rest();
    open_store();
    trimmed();
    store_close(store);
    return 0;
}
