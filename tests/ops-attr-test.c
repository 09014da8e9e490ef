/* Attributes, extended attributes and access control lists. */
#include "fs/acl.h"
#include "tests/fixture.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

static struct store *store;
static struct attributes out;
static uint64_t lsn;

struct acl {
    uint32_t version;
    struct {
        uint16_t tag, permissions;
        uint32_t id;
    } entries[8];
} __attribute__((packed));

/* user::, user:1000:, group::, mask::, other:: */
static size_t full_acl(struct acl *acl, uint16_t owner, uint16_t named, uint16_t group, uint16_t mask, uint16_t other) {
    *acl = (struct acl){2,
                        {{1, owner, UINT32_MAX},
                         {2, named, 1000},
                         {4, group, UINT32_MAX},
                         {16, mask, UINT32_MAX},
                         {32, other, UINT32_MAX}}};
    return 4 + 5 * 8;
}

static int set_mode(uint64_t ino, uint32_t mode) {
    struct set_attributes set = {.mask = SET_MODE, .mode = mode};
    return op_setattr(store, &root_caller, ino, &set, &out, &lsn);
}

static int set_owner(uint64_t ino, uint32_t uid) {
    struct set_attributes set = {.mask = SET_UID, .uid = uid};
    return op_setattr(store, &root_caller, ino, &set, &out, &lsn);
}

static int put(uint64_t ino, const char *name, const void *value, size_t length, int flags) {
    return op_setxattr(store, &root_caller, ino, name, value, length, flags, false, &lsn);
}

static void test_times(void) {
    uint64_t file = make(store, ROOT_INO, "times", S_IFREG | 0644);
    struct inode_row before = row_of(store, file);
    struct set_attributes set = {.mask = SET_ATIME | SET_MTIME, .atime = {-5, 7}, .mtime = {1ll << 33, 999999999}};
    is_int(0, op_setattr(store, &root_caller, file, &set, &out, &lsn), "utimens");
    is_int(-5, out.row.atime.seconds, "before 1970");
    is_int(999999999, out.row.mtime.nanoseconds, "in nanoseconds");
    ok(file_time_compare(out.row.ctime, before.ctime) > 0, "the ctime is later");
    is_int(0, file_time_compare(out.row.btime, before.btime), "the birth time stays");
    set.mtime.nanoseconds = 1000000000;
    is_int(-EINVAL, op_setattr(store, &root_caller, file, &set, &out, &lsn), "not a second of nanoseconds");
    set = (struct set_attributes){.mask = SET_MTIME, .mtime_now = true};
    is_int(0, op_setattr(store, &root_caller, file, &set, &out, &lsn), "UTIME_NOW");
    is_int(0, file_time_compare(out.row.mtime, out.row.ctime), "is the change's time");
    is_int(-5, out.row.atime.seconds, "UTIME_OMIT leaves the other");
    before = out.row;
    is_int(0, op_touch_atime(store, file, false), "a read touches an old access time");
    struct inode_row after = row_of(store, file);
    ok(file_time_compare(after.atime, before.atime) > 0, "it is new");
    is_int(0, file_time_compare(after.ctime, before.ctime), "the ctime stays");
    struct position a, b;
    store_position(store, &a);
    is_int(0, op_touch_atime(store, file, false), "a second read");
    store_position(store, &b);
    ok(a.lsn == b.lsn, "makes no record");
    set = (struct set_attributes){0};
    is_int(0, op_setattr(store, &root_caller, file, &set, &out, &lsn), "chown that changes nothing");
    ok(file_time_compare(out.row.ctime, before.ctime) > 0, "still sets the ctime");
}

static void test_set_id(void) {
    uint64_t file = make(store, ROOT_INO, "suid", S_IFREG | 0755), dir = make(store, ROOT_INO, "sdir", S_IFDIR | 0755);
    set_mode(file, 06755);
    put(file, "security.capability", "caps", 4, 0);
    is_int(0, set_owner(file, 5), "chown");
    is_int(S_IFREG | 0755, out.row.mode, "clears the set-id bits");
    is_int(-ENODATA, op_getxattr(store, file, "security.capability", NULL, 0), "and the capability");
    set_mode(file, 02745);
    set_owner(file, 6);
    is_int(S_IFREG | 02745, out.row.mode, "set-gid without execute is locking: it stays");
    set_mode(dir, 06755);
    set_owner(dir, 5);
    is_int(S_IFDIR | 06755, out.row.mode, "a directory keeps its bits");
    set_mode(file, 06755);
    struct set_attributes set = {.mask = SET_UID | SET_MODE, .uid = 9, .mode = 04711};
    op_setattr(store, &root_caller, file, &set, &out, &lsn);
    is_int(S_IFREG | 04711, out.row.mode, "a mode that comes with the owner counts");
    put(file, "security.capability", "caps", 4, 0);
    is_int(0, op_write(store, file, "x", 1, 0, 0, &lsn), "a write of root");
    is_int(S_IFREG | 04711, row_of(store, file).mode, "leaves the bits");
    is_int(0, op_write(store, file, "x", 1, 0, WRITE_KILL_PRIV, &lsn), "a write of another");
    is_int(S_IFREG | 0711, row_of(store, file).mode, "clears them");
    is_int(-ENODATA, op_getxattr(store, file, "security.capability", NULL, 0), "and the capability");
    set_mode(file, 06711);
    set = (struct set_attributes){.mask = SET_SIZE | SET_KILL_PRIV, .size = 0};
    op_setattr(store, &root_caller, file, &set, &out, &lsn);
    is_int(S_IFREG | 0711, out.row.mode, "so does a truncate");
    set = (struct set_attributes){.mask = SET_KILL_PRIV};
    op_setattr(store, &root_caller, file, &set, &out, &lsn);
    ok(lsn == 0, "nothing to clear makes no record");
    set_mode(file, 06755);
    set = (struct set_attributes){0};
    op_setattr(store, &root_caller, file, &set, &out, &lsn);
    is_int(S_IFREG | 0755, out.row.mode, "chown(-1, -1) clears them too");
    set_mode(dir, 06755);
    op_setattr(store, &root_caller, dir, &set, &out, &lsn);
    is_int(S_IFDIR | 06755, out.row.mode, "but not a directory's");
}

static void test_xattrs(void) {
    uint64_t file = make(store, ROOT_INO, "x", S_IFREG | 0644), link = make(store, ROOT_INO, "xl", S_IFLNK);
    static char big[BATON_XATTR_VALUE_MAX + 1], buffer[BATON_XATTR_VALUE_MAX];
    char name[300];
    memset(big, 'b', sizeof big);
    is_int(0, put(file, "user.one", "value", 5, 0), "set");
    is_int(5, op_getxattr(store, file, "user.one", NULL, 0), "its length");
    is_int(-ERANGE, op_getxattr(store, file, "user.one", buffer, 4), "a short buffer");
    is_int(5, op_getxattr(store, file, "user.one", buffer, 5), "its value");
    is_blob("value", buffer, 5, "as set");
    is_int(-EEXIST, put(file, "user.one", "v", 1, XATTR_CREATE), "XATTR_CREATE of what is");
    is_int(-ENODATA, put(file, "user.two", "v", 1, XATTR_REPLACE), "XATTR_REPLACE of what is not");
    is_int(-ENODATA, op_getxattr(store, file, "user.two", buffer, 5), "get what is not");
    is_int(-ENODATA, op_removexattr(store, file, "user.two", &lsn), "remove what is not");
    is_int(0, put(file, "user.empty", "", 0, 0), "an empty value");
    is_int(0, op_getxattr(store, file, "user.empty", buffer, 5), "is there");
    is_int(0, put(file, "user.big", big, BATON_XATTR_VALUE_MAX, 0), "64 KiB");
    is_int(BATON_XATTR_VALUE_MAX, op_getxattr(store, file, "user.big", buffer, sizeof buffer), "come back");
    is_blob(big, buffer, sizeof buffer, "as they were");
    is_int(-E2BIG, put(file, "user.big", big, BATON_XATTR_VALUE_MAX + 1, 0), "more is too big");
    is_int(-EOPNOTSUPP, put(file, "system.other", "v", 1, 0), "no other namespace");
    is_int(-EOPNOTSUPP, put(file, "plain", "v", 1, 0), "nor none");
    is_int(-EOPNOTSUPP, op_getxattr(store, file, "plain", NULL, 0), "for reading too");
    is_int(-EPERM, put(link, "user.one", "v", 1, 0), "user.* is for files and directories");
    is_int(0, put(link, "trusted.one", "v", 1, 0), "trusted.* for all");
    memset(name, 'n', sizeof name);
    memcpy(name, "user.", 5);
    name[256] = 0;
    is_int(-ERANGE, put(file, name, "v", 1, 0), "a name of 256 bytes");
    name[255] = 0;
    is_int(0, put(file, name, "v", 1, 0), "one of 255");
    is_int(0, put(file, "trusted.t", "v", 1, 0), "a trusted one");
    int all = op_listxattr(store, file, true, NULL, 0), some = op_listxattr(store, file, false, NULL, 0);
    is_int(strlen("trusted.t") + 1, all - some, "is listed to the trusted only");
    is_int(-ERANGE, op_listxattr(store, file, true, buffer, (size_t)all - 1), "a short buffer for the list");
    is_int(all, op_listxattr(store, file, true, buffer, (size_t)all), "a fitting one");
    is_int(6, row_of(store, file).xattrs - 0u + 1, "five attributes");
    int error = 0;
    for (int i = 0; !error && i < 1000; i++) {
        snprintf(name + 5, 10, "%09d", i);
        name[14] = 'n';
        error = put(file, name, "", 0, 0);
    }
    is_int(-ENOSPC, error, "names have 64 KiB in all");
    ok(op_listxattr(store, file, true, NULL, 0) <= 65536, "which the list keeps");
    uint64_t ino;
    uint32_t left;
    op_unlink(store, ROOT_INO, "x", &ino, &left, &lsn);
    is_int(0, op_reclaim(store, &ino, 1), "a file with so many attributes is reclaimed");
    is_int(-ESTALE, op_getattr(store, ino, &out), "and gone");
}

static void test_acl_check(void) {
    struct acl acl;
    size_t length = full_acl(&acl, 7, 5, 5, 5, 0);
    is_int(0, acl_check(&acl, length), "a sound list");
    is_int(-EINVAL, acl_check(&acl, length - 1), "a length that is none");
    is_int(-EINVAL, acl_check(&acl, length - 8), "no entry for others");
    acl.version = 3;
    is_int(-EINVAL, acl_check(&acl, length), "another version");
    full_acl(&acl, 8, 5, 5, 5, 0);
    is_int(-EINVAL, acl_check(&acl, length), "an unknown permission");
    full_acl(&acl, 7, 5, 5, 5, 0);
    acl.entries[3].tag = 8;
    is_int(-EINVAL, acl_check(&acl, length), "named entries without a mask");
    full_acl(&acl, 7, 5, 5, 5, 0);
    acl.entries[1].tag = 4;
    is_int(-EINVAL, acl_check(&acl, length), "a wrong order");
    acl.entries[1].tag = 64;
    is_int(-EINVAL, acl_check(&acl, length), "an unknown tag");
    is_int(-EINVAL, acl_check("abc", 3), "three bytes");
}

static void test_acl(void) {
    uint64_t file = make(store, ROOT_INO, "acl", S_IFREG | 0644);
    struct acl acl, seen;
    size_t length = full_acl(&acl, 7, 5, 4, 5, 1);
    is_int(-EINVAL, put(file, ACCESS, "nonsense", 8, 0), "not a list");
    is_int(-EACCES, put(file, DEFAULT, &acl, length, 0), "no default list for a file");
    is_int(0, put(file, ACCESS, &acl, length, 0), "an access list");
    is_int(S_IFREG | 0751, row_of(store, file).mode, "sets the mode, the mask as group");
    ok(row_of(store, file).flags & INODE_ACL, "and a flag");
    is_int(0, set_mode(file, 0620), "chmod");
    is_int((int)length, op_getxattr(store, file, ACCESS, &seen, sizeof seen), "the list stays");
    is_int(6, seen.entries[0].permissions, "follows in the owner");
    is_int(2, seen.entries[3].permissions, "in the mask");
    is_int(4, seen.entries[2].permissions, "not in the group");
    is_int(0, seen.entries[4].permissions, "and in the others");
    struct acl plain = {2, {{1, 6, UINT32_MAX}, {4, 4, UINT32_MAX}, {32, 0, UINT32_MAX}}};
    is_int(0, put(file, ACCESS, &plain, 4 + 3 * 8, 0), "a list that is a mode");
    is_int(S_IFREG | 0640, row_of(store, file).mode, "is the mode");
    is_int(-ENODATA, op_getxattr(store, file, ACCESS, &seen, sizeof seen), "and no list");
    is_int(0, op_removexattr(store, file, ACCESS, &lsn), "removing none is no error");
    is_int(0, put(file, ACCESS, &acl, length, 0), "a list again");
    is_int(0, op_removexattr(store, file, ACCESS, &lsn), "removed");
    is_int(S_IFREG | 0751, row_of(store, file).mode, "leaves the mode");
    set_mode(file, 02755);
    op_setxattr(store, &root_caller, file, ACCESS, &acl, length, 0, true, &lsn);
    is_int(S_IFREG | 0751, row_of(store, file).mode, "kill_sgid clears set-gid");
}

static void test_inherit(void) {
    struct caller caller = {0, 0, 1, 077};
    uint64_t dir = make(store, ROOT_INO, "def", S_IFDIR | 0755);
    struct acl acl, seen;
    size_t length = full_acl(&acl, 7, 6, 5, 7, 5);
    is_int(0, put(dir, DEFAULT, &acl, length, 0), "a default list");
    is_int(S_IFDIR | 0755, row_of(store, dir).mode, "does not change the mode");
    op_create(store, &caller, dir, "f", S_IFREG | 0664, 0, NULL, &out, &lsn);
    is_int(S_IFREG | 0664, out.row.mode, "a new file: mode by the list, no umask");
    is_int((int)length, op_getxattr(store, out.ino, ACCESS, &seen, sizeof seen), "has an access list");
    is_int(6, seen.entries[0].permissions, "its owner masked by the mode");
    is_int(6, seen.entries[3].permissions, "its mask too");
    is_int(4, seen.entries[4].permissions, "and others");
    is_int(-ENODATA, op_getxattr(store, out.ino, DEFAULT, NULL, 0), "but no default list");
    op_create(store, &caller, dir, "d", S_IFDIR | 0777, 0, NULL, &out, &lsn);
    is_int(S_IFDIR | 0775, out.row.mode, "a new directory");
    is_int((int)length, op_getxattr(store, out.ino, DEFAULT, &seen, sizeof seen), "has the default list");
    is_blob(&acl, &seen, length, "as its parent has it");
    is_int((int)length, op_getxattr(store, out.ino, ACCESS, NULL, 0), "and an access list");
    op_create(store, &caller, dir, "l", S_IFLNK, 0, "t", &out, &lsn);
    is_int(0, out.row.xattrs, "a symlink has none");
    struct acl plain = {2, {{1, 7, UINT32_MAX}, {4, 5, UINT32_MAX}, {32, 0, UINT32_MAX}}};
    put(dir, DEFAULT, &plain, 4 + 3 * 8, 0);
    op_create(store, &caller, dir, "p", S_IFREG | 0666, 0, NULL, &out, &lsn);
    is_int(S_IFREG | 0640, out.row.mode, "a default list that is a mode masks");
    is_int(0, out.row.xattrs, "and leaves no list");
}

int main(void) {
    plan_lazy();
    store = fixture_store("store", 1);
    test_times();
    test_set_id();
    test_xattrs();
    test_acl_check();
    test_acl();
    test_inherit();
    store_close(store);
    return 0;
}
