#include "tests/churn.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>

#define FILES 40
#define LONGEST 900000u

static uint8_t bytes[LONGEST + 1000];

void churn_prepare(uint64_t *seed) {
    for (size_t i = 0; i < sizeof bytes; i += 8) {
        uint64_t word = test_random(seed);
        memcpy(bytes + i, &word, MIN(sizeof word, sizeof bytes - i));
    }
}

static int unexpected(int error) {
    switch (error) {
    case -ENOENT:
    case -EEXIST:
    case -ENOTDIR:
    case -EISDIR:
    case -ENOTEMPTY:
    case -ESTALE:
    case -EINVAL:
    case -EPERM:
    case -ENOSPC:
        return 0;
    default:
        return MIN(error, 0);
    }
}

static int remove_some(struct store *store, uint64_t dir, const char *name, uint64_t *seed) {
    uint64_t victim, lsn;
    uint32_t left;
    int error = op_unlink(store, dir, name, &victim, &left, &lsn);
    if (error == -EISDIR)
        error = op_rmdir(store, dir, name, &victim, &lsn);
    else if (error == 0 && left == 0 && test_random(seed) % 2)
        error = op_reclaim(store, &victim, 1);
    return error;
}

static int change(struct store *store, uint64_t ino, const char *name, uint64_t dir, uint64_t to, uint64_t *seed) {
    uint64_t offset = test_random(seed) % 400000, lsn, victim;
    uint64_t length = 1 + test_random(seed) % (test_random(seed) % 8 ? 9000 : LONGEST);
    static __thread uint8_t seen[300000];
    struct attributes out;
    char other[40];
    uint32_t left;
    snprintf(other, sizeof other, "f%llu", (unsigned long long)(test_random(seed) % FILES));
    switch (test_random(seed) % 12) {
    case 0:
        return remove_some(store, dir, name, seed);
    case 1:
        /* none, NOREPLACE, EXCHANGE, WHITEOUT */
        return op_rename(store, &root_caller, dir, name, to, other, 1u << (test_random(seed) % 4) >> 1, &victim, &left,
                         &lsn);
    case 2:
        return op_link(store, ino, to, other, &out, &lsn);
    case 3:
        return op_truncate(store, ino, test_random(seed) % 3 ? offset : 0, false, &lsn);
    case 4:
        return op_fallocate(store, ino, test_random(seed) % 2 ? 0 : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                            length, &lsn);
    case 5:
        return op_setxattr(store, &root_caller, ino, "user.x", bytes, length % 3000, 0, false, &lsn);
    case 6:
        return test_random(seed) % 20 ? op_reclaim_some(store) : store_sync(store, UINT64_MAX);
    case 7:
        return (int)op_read(store, ino, seen, sizeof seen, offset / 2);
    default:
        return op_write(store, ino, bytes + length % 1000, length, offset, 0, &lsn);
    }
}

int churn(struct store *store, const uint64_t directories[2], uint64_t *seed) {
    uint64_t dir = directories[test_random(seed) % 2], to = directories[test_random(seed) % 2], lsn;
    struct attributes out;
    char name[40];
    snprintf(name, sizeof name, "f%llu", (unsigned long long)(test_random(seed) % FILES));
    int error = op_lookup(store, dir, name, &out);
    if (error == -ENOENT)
        error = op_create(store, &root_caller, dir, name, test_random(seed) % 8 ? S_IFREG | 0600 : S_IFDIR | 0700, 0,
                          NULL, &out, &lsn);
    else if (error == 0)
        error = change(store, out.ino, name, dir, to, seed);
    return unexpected(error);
}
