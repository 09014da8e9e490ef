/* Names: what each operation answers, and what it does to links, sizes, times and cookies. */
#include "tests/fixture.h"

#include <stdio.h>
#include <sys/stat.h>

#define NOREPLACE 1u
#define EXCHANGE 2u
#define WHITEOUT 4u

static struct store *store;
static struct attributes out;
static uint64_t ino, lsn;
static uint32_t left;

static int rename_at(uint64_t a, const char *from, uint64_t b, const char *to, unsigned flags) {
    return op_rename(store, &root_caller, a, from, b, to, flags, &ino, &left, &lsn);
}

static int create(uint64_t parent, const char *name, uint32_t mode, const char *target) {
    return op_create(store, &root_caller, parent, name, mode, 0, target, &out, &lsn);
}

static bool is_later(struct file_time a, struct file_time b) {
    return file_time_compare(a, b) > 0;
}

static void test_create(void) {
    struct inode_row before = row_of(store, ROOT_INO);
    uint64_t dir = make(store, ROOT_INO, "d", S_IFDIR | 0777), file;
    struct inode_row root = row_of(store, ROOT_INO), row = row_of(store, dir);
    is_int(before.nlink + 1, root.nlink, "mkdir: its parent has a link more");
    is_int(before.size + 1, root.size, "and an entry more");
    ok(is_later(root.mtime, before.mtime) && is_later(root.ctime, before.ctime), "and later times");
    is_int(2, row.nlink, "a new directory has two links");
    is_int(S_IFDIR | 0755, row.mode, "the umask counts");
    is_int(0, file_time_compare(row.btime, row.ctime), "born when changed");
    is_int(0, create(dir, "f", S_IFREG | 0666, NULL), "create");
    ok(lsn > 0, "makes a record");
    file = out.ino;
    is_int(1, out.row.nlink, "one link");
    is_int(-EEXIST, create(dir, "f", S_IFREG | 0666, NULL), "not twice");
    is_int(-EEXIST, create(dir, "..", S_IFREG | 0666, NULL), "\"..\" exists");
    is_int(-ENOTDIR, create(file, "f", S_IFREG | 0666, NULL), "not in a file");
    is_int(-ESTALE, create(999999, "f", S_IFREG | 0666, NULL), "not in what never was");
    is_int(-EINVAL, create(dir, "odd", 0170000 | 0666, NULL), "not of an unknown kind");
    is_int(0, op_create(store, &root_caller, dir, "null", S_IFCHR | 0666, 0x103, NULL, &out, &lsn), "mknod");
    is_int(0x103, out.row.rdev, "keeps the device number");
    is_int(0, create(dir, "l", S_IFLNK, "to/where"), "symlink");
    is_int(S_IFLNK | 0777, out.row.mode, "has all permissions");
    is_int(8, out.row.size, "and the target's length as size");
    char text[20] = "";
    is_int(8, op_readlink(store, out.ino, text, sizeof text), "readlink");
    is_string("to/where", text, "gives the target");
    is_int(-EINVAL, op_readlink(store, file, text, sizeof text), "but of symlinks only");
    is_int(-ENOENT, create(dir, "l2", S_IFLNK, ""), "an empty target is none");
}

static void test_long_names(void) {
    char name[300], target[4200];
    memset(name, 'x', sizeof name);
    memset(target, 't', sizeof target);
    name[256] = 0;
    is_int(-ENAMETOOLONG, create(ROOT_INO, name, S_IFREG | 0600, NULL), "256 bytes are too many");
    is_int(-ENAMETOOLONG, op_lookup(store, ROOT_INO, name, &out), "for a lookup too");
    is_int(-ENAMETOOLONG, op_unlink(store, ROOT_INO, name, &ino, &left, &lsn), "and for unlink");
    is_int(-ENAMETOOLONG, rename_at(ROOT_INO, "d", ROOT_INO, name, 0), "and rename");
    name[255] = 0;
    is_int(0, create(ROOT_INO, name, S_IFREG | 0600, NULL), "255 are not");
    is_int(0, op_lookup(store, ROOT_INO, name, &out), "such a name is found");
    is_int(0, op_unlink(store, ROOT_INO, name, &ino, &left, &lsn), "and removed");
    target[4096] = 0;
    is_int(-ENAMETOOLONG, create(ROOT_INO, "long", S_IFLNK, target), "a target of 4096 bytes is too long");
    target[4095] = 0;
    is_int(0, create(ROOT_INO, "long", S_IFLNK, target), "one of 4095 is not");
    static char seen[5000];
    is_int(4095, op_readlink(store, out.ino, seen, sizeof seen), "it comes back whole");
    is_blob(target, seen, 4095, "as it was");
    struct set_attributes set = {.mask = SET_UID, .uid = 5};
    is_int(0, op_setattr(store, &root_caller, out.ino, &set, &out, &lsn), "its owner changes");
    is_int(4095, op_readlink(store, out.ino, seen, sizeof seen), "the target stays");
}

static void test_set_gid(void) {
    struct caller other = {1000, 1000, 1, 0};
    struct set_attributes set = {.mask = SET_MODE | SET_GID, .mode = 02777, .gid = 77};
    uint64_t dir = make(store, ROOT_INO, "sgid", S_IFDIR | 0777);
    op_setattr(store, &root_caller, dir, &set, &out, &lsn);
    op_create(store, &other, dir, "f", S_IFREG | 0666, 0, NULL, &out, &lsn);
    is_int(77, out.row.gid, "a file takes a set-gid directory's group");
    is_int(1000, out.row.uid, "not its owner");
    is_int(S_IFREG | 0666, out.row.mode, "nor its bit");
    op_create(store, &other, dir, "d", S_IFDIR | 0777, 0, NULL, &out, &lsn);
    is_int(S_IFDIR | 02777, out.row.mode, "a directory takes the bit too");
}

static void test_links(void) {
    uint64_t dir = make(store, ROOT_INO, "links", S_IFDIR | 0755), file = make(store, dir, "a", S_IFREG | 0644);
    struct inode_row before = row_of(store, file);
    uint64_t inos[4];
    int orphans = op_orphans(store, 0, inos, 4);
    is_int(0, op_reclaim(store, inos, (size_t)MAX(orphans, 0)), "earlier orphans go");
    is_int(0, op_link(store, file, dir, "b", &out, &lsn), "link");
    is_int(2, out.row.nlink, "two links");
    ok(is_later(out.row.ctime, before.ctime), "a later ctime");
    is_int(-EEXIST, op_link(store, file, dir, "a", &out, &lsn), "not over a name");
    is_int(-EPERM, op_link(store, dir, dir, "c", &out, &lsn), "not to a directory");
    is_int(0, op_unlink(store, dir, "a", &ino, &left, &lsn), "unlink");
    is_int(1, left, "one is left");
    is_int(0, op_unlink(store, dir, "b", &ino, &left, &lsn), "unlink the last");
    is_int(0, left, "none is left");
    is_int(0, row_of(store, file).nlink, "the inode stays, without links");
    is_int(1, op_orphans(store, 0, inos, 4), "as an orphan");
    ok(inos[0] == file, "that one");
    is_int(0, op_reclaim(store, inos, 1), "reclaim");
    is_int(-ESTALE, op_getattr(store, file, &out), "then it is gone");
    is_int(0, op_reclaim(store, inos, 1), "reclaim again is nothing");
    is_int(0, op_tmpfile(store, &root_caller, dir, 0600, &out, &lsn), "a file without a name");
    is_int(0, out.row.nlink, "has no link");
    ino = out.ino;
    is_int(0, op_link(store, ino, dir, "named", &out, &lsn), "it can be given one");
    is_int(0, op_orphans(store, 0, inos, 4), "and is no orphan then");
    is_int(0, op_reclaim(store, &ino, 1), "what has a name is not reclaimed");
    is_int(1, row_of(store, out.ino).nlink, "it is still there");
}

static void test_link_limit(void) {
    uint64_t dir = make(store, ROOT_INO, "many", S_IFDIR | 0755), file = make(store, dir, "f", S_IFREG | 0644);
    char name[20];
    int error = 0;
    unsigned count = 1;
    for (; !error; count++) {
        snprintf(name, sizeof name, "%u", count);
        error = op_link(store, file, dir, name, &out, &lsn);
    }
    is_int(-EMLINK, error, "links have a limit");
    is_int(BATON_LINK_MAX, row_of(store, file).nlink, "of 65,000");
}

static void test_remove(void) {
    uint64_t dir = make(store, ROOT_INO, "rm", S_IFDIR | 0755), sub = make(store, dir, "s", S_IFDIR | 0755);
    make(store, sub, "f", S_IFREG | 0644);
    is_int(-EISDIR, op_unlink(store, dir, "s", &ino, &left, &lsn), "unlink is not for directories");
    is_int(-ENOTDIR, op_rmdir(store, sub, "f", &ino, &lsn), "rmdir is not for files");
    is_int(-ENOTEMPTY, op_rmdir(store, dir, "s", &ino, &lsn), "nor for what is not empty");
    is_int(-ENOENT, op_rmdir(store, dir, "none", &ino, &lsn), "nor for nothing");
    is_int(-EINVAL, op_rmdir(store, dir, ".", &ino, &lsn), "nor for \".\"");
    is_int(-ENOTEMPTY, op_rmdir(store, dir, "..", &ino, &lsn), "nor for \"..\"");
    is_int(0, op_unlink(store, sub, "f", &ino, &left, &lsn), "emptied");
    is_int(0, op_rmdir(store, dir, "s", &ino, &lsn), "rmdir");
    is_int(2, row_of(store, dir).nlink, "the parent has a link less");
    is_int(0, row_of(store, sub).nlink, "a removed directory has no links");
    is_int(-ENOENT, create(sub, "x", S_IFREG | 0644, NULL), "nothing is created in it");
    is_int(-ENOENT, op_lookup(store, sub, "x", &out), "nothing found");
    is_int(-ENOENT, rename_at(ROOT_INO, "d", sub, "d", 0), "nothing moved to it");
    is_int(-ENOENT, op_tmpfile(store, &root_caller, sub, 0600, &out, &lsn), "not even without a name");
}

static void test_rename(void) {
    uint64_t a = make(store, ROOT_INO, "ra", S_IFDIR | 0755), b = make(store, ROOT_INO, "rb", S_IFDIR | 0755);
    uint64_t file = make(store, a, "f", S_IFREG | 0644), sub = make(store, a, "s", S_IFDIR | 0755);
    struct inode_row before = row_of(store, file);
    is_int(0, rename_at(a, "f", b, "g", 0), "rename to another directory");
    ok(ino == 0, "nothing was replaced");
    ok(is_later(row_of(store, file).ctime, before.ctime), "the file's ctime is later");
    is_int(-ENOENT, rename_at(a, "f", b, "g", 0), "the old name is gone");
    is_int(0, rename_at(a, "s", b, "s", 0), "a directory moves");
    is_int(2, row_of(store, a).nlink, "links move with it");
    is_int(3, row_of(store, b).nlink, "to its new parent");
    is_int(0, op_lookup_parent(store, sub, &out), "\"..\" is asked");
    ok(out.ino == b, "and is the new parent");
    uint64_t deep = make(store, sub, "deep", S_IFDIR | 0755);
    is_int(-EINVAL, rename_at(ROOT_INO, "rb", deep, "x", 0), "not into itself");
    is_int(-ENOENT, rename_at(ROOT_INO, "rb", deep, "x", EXCHANGE), "EXCHANGE needs two");
    is_int(-EINVAL, rename_at(sub, "deep", ROOT_INO, "rb", EXCHANGE), "nor by exchange with its ancestor");
    is_int(-ENOTEMPTY, rename_at(sub, "deep", ROOT_INO, "rb", 0), "not over its ancestor");
    is_int(-ENOTDIR, rename_at(b, "s", b, "g", 0), "no directory over a file");
    is_int(-EISDIR, rename_at(b, "g", b, "s", 0), "no file over a directory");
    is_int(-EEXIST, rename_at(b, "g", b, "s", NOREPLACE), "NOREPLACE replaces nothing");
    is_int(-EINVAL, rename_at(b, "g", b, "s", NOREPLACE | EXCHANGE), "not with EXCHANGE");
    is_int(-EINVAL, rename_at(b, "g", b, "s", WHITEOUT | EXCHANGE), "nor WHITEOUT");
    is_int(-EINVAL, rename_at(b, "g", b, "s", 8), "nothing else is known");
    is_int(0, rename_at(b, "g", b, "s", EXCHANGE), "EXCHANGE of file and directory");
    is_int(0, op_lookup(store, b, "g", &out), "the name of the file");
    ok(out.ino == sub, "is the directory's");
    is_int(3, row_of(store, b).nlink, "links stay");
    is_int(0, rename_at(b, "s", a, "s", 0), "file back");
    is_int(0, rename_at(b, "g", a, "s", EXCHANGE), "EXCHANGE across parents");
    is_int(3, row_of(store, a).nlink, "a has the directory");
    is_int(2, row_of(store, b).nlink, "b the file");
    is_int(0, op_lookup_parent(store, sub, &out), "\"..\" again");
    ok(out.ino == a, "is a");
    make(store, b, "victim", S_IFREG | 0644);
    is_int(0, op_link(store, file, b, "other", &out, &lsn), "a second name");
    is_int(0, rename_at(b, "g", b, "other", 0), "rename of two names of one inode");
    ok(lsn == 0, "does nothing");
    is_int(0, op_lookup(store, b, "g", &out), "both are there");
    is_int(0, rename_at(b, "g", b, "victim", 0), "rename over a file");
    is_int(0, left, "it has no link left");
    ok(ino != 0 && row_of(store, ino).nlink == 0, "and is an orphan");
}

static void is_whiteout(uint64_t parent, const char *name, uint32_t gid) {
    is_int(0, op_lookup(store, parent, name, &out), "the old name is there");
    is_int(S_IFCHR, out.row.mode, "a character device without permissions");
    is_int(0, out.row.rdev, "0:0");
    is_int(1, out.row.nlink, "of one link");
    is_int(7, out.row.uid, "the caller's");
    is_int(gid, out.row.gid, "in the group of what is created there");
}

static int rename_whiteout(uint64_t a, const char *from, uint64_t b, const char *to, unsigned flags) {
    const struct caller caller = {.uid = 7, .gid = 8, .umask = 022};
    return op_rename(store, &caller, a, from, b, to, WHITEOUT | flags, &ino, &left, &lsn);
}

static void test_whiteout(void) {
    struct set_attributes set_gid = {.mask = SET_MODE | SET_GID, .mode = 02755, .gid = 9};
    struct attributes changed;
    uint64_t a = make(store, ROOT_INO, "wa", S_IFDIR | 0755), b = make(store, ROOT_INO, "wb", S_IFDIR | 0755), moved;
    uint64_t file = make(store, a, "f", S_IFREG | 0644), sub = make(store, a, "s", S_IFDIR | 0755), first;
    is_int(0, rename_whiteout(a, "f", a, "g", 0), "WHITEOUT within a directory");
    is_whiteout(a, "f", 8);
    first = out.ino;
    is_int(0, op_lookup(store, a, "g", &out), "the new name");
    ok(out.ino == file, "is the file's");
    is_int(3, (int64_t)row_of(store, a).size, "the directory has an entry more");
    is_int(0, rename_whiteout(a, "g", b, "g", 0), "to another directory");
    is_whiteout(a, "g", 8);
    ok(out.ino != first, "another one");
    is_int(3, (int64_t)row_of(store, a).size, "the old directory has as many entries");
    is_int(1, (int64_t)row_of(store, b).size, "the new one has one more");
    is_int(-EEXIST, rename_whiteout(a, "g", a, "f", NOREPLACE), "NOREPLACE counts");
    is_int(0, rename_whiteout(b, "g", a, "f", 0), "over a whiteout");
    ok(ino == first && left == 0, "which is an orphan then");
    is_int(0, op_setattr(store, &root_caller, a, &set_gid, &changed, &lsn), "a set-gid directory");
    is_int(0, rename_whiteout(a, "s", b, "s", NOREPLACE), "a directory moves");
    is_whiteout(a, "s", 9);
    moved = out.ino;
    is_int(2, row_of(store, a).nlink, "links go with it");
    is_int(3, row_of(store, b).nlink, "to the new parent");
    is_int(0, op_lookup_parent(store, sub, &out), "\"..\"");
    ok(out.ino == b, "is the new parent");
    is_int(0, op_unlink(store, a, "s", &ino, &left, &lsn), "a whiteout can be removed");
    ok(ino == moved && left == 0, "and is gone");
    is_int(-EISDIR, rename_whiteout(a, "g", b, "s", 0), "not over a directory");
    is_int(-ENOENT, rename_whiteout(a, "none", b, "x", 0), "nothing leaves nothing");
    is_int(-ENOENT, op_lookup(store, a, "none", &out), "really");
}

struct listing {
    uint64_t cookies[2000];
    int count, limit;
};

static int list(void *context, const struct directory_entry *entry) {
    struct listing *listing = context;
    if (listing->count == listing->limit)
        return 1;
    listing->cookies[listing->count++] = entry->cookie;
    return 0;
}

static void test_readdir(void) {
    static struct listing whole = {.limit = 2000}, part = {.limit = 10};
    uint64_t dir = make(store, ROOT_INO, "list", S_IFDIR | 0755);
    char name[20];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "e%d", i);
        make(store, dir, name, S_IFREG | 0600);
    }
    is_int(0, op_readdir(store, dir, 0, true, list, &whole), "readdir");
    is_int(1000, whole.count, "gives every entry once");
    is_int(0, op_readdir(store, dir, whole.cookies[499], false, list, &part), "readdir from the middle");
    is_int(10, part.count, "stops when told");
    ok(part.cookies[0] == whole.cookies[500], "goes on behind its cookie");
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "e%d", i);
        op_unlink(store, dir, name, &ino, &left, &lsn);
    }
    part.count = 0;
    part.limit = 2000;
    op_readdir(store, dir, whole.cookies[499], false, list, &part);
    is_int(500, part.count, "entries that go do not disturb what is left");
    uint64_t file = make(store, dir, "f", S_IFREG | 0600);
    is_int(-ENOTDIR, op_readdir(store, file, 0, false, list, &part), "not of a file");
    is_int(-ESTALE, op_readdir(store, 999999, 0, false, list, &part), "nor of what never was");
}

static void test_lookup(void) {
    uint64_t dir = make(store, ROOT_INO, "look", S_IFDIR | 0755), file = make(store, dir, "f", S_IFREG | 0600);
    is_int(0, op_lookup(store, file, ".", &out), "\".\" of a file");
    ok(out.ino == file, "is the file");
    is_int(0, op_lookup(store, dir, "..", &out), "\"..\" of a directory");
    ok(out.ino == ROOT_INO, "is its parent");
    is_int(0, op_lookup(store, ROOT_INO, "..", &out), "\"..\" of the root");
    ok(out.ino == ROOT_INO, "is the root");
    is_int(-ESTALE, op_lookup(store, 999999, ".", &out), "\".\" of what never was is stale");
    is_int(-ENOTDIR, op_lookup(store, file, "x", &out), "nothing lies in a file");
    is_int(-ENOENT, op_lookup(store, dir, "x", &out), "what is not there");
}

static void test_not_primary(void) {
    store_stop_epoch(store);
    is_int(-EROFS, create(ROOT_INO, "ro", S_IFREG | 0600, NULL), "without an epoch nothing changes");
    is_int(-EROFS, rename_at(ROOT_INO, "d", ROOT_INO, "e", 0), "nor moves");
    is_int(0, op_lookup(store, ROOT_INO, "d", &out), "but reads work");
}

int main(void) {
    plan_lazy();
    store = fixture_store("store", 1);
    test_create();
    test_long_names();
    test_set_gid();
    test_links();
    test_remove();
    test_rename();
    test_whiteout();
    test_readdir();
    test_lookup();
    test_link_limit();
    test_not_primary();
    store_close(store);
    return 0;
}
