/* A small disk that runs full: new work gets ENOSPC, what was acknowledged stays, history yields first, deletes go
 * through, and after them work goes on without a restart. And a read-only disk: a sentence.
 */
#include "fs/ops.h"
#include "tests/tap.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

static const uint8_t volume[STORE_ID_SIZE] = "a volume's id...";
static struct store_options options = {.segment_blocks = 4096, .tail_size = 1u << 20, .checkpoint_ms = 100,
                                       .history_bytes = 1ull << 40, .reserve_bytes = 16u << 20};
static const struct caller caller = {0};
static char path[600];
static char why[512];
static uint8_t chunk[1 << 20];

static void run(const char *format, const char *a, const char *b) {
    char command[1200];
    snprintf(command, sizeof command, format, a, b);
    if (system(command) != 0)
        bail("failed: %s", command);
}

static void fill(uint64_t number) {
    uint64_t state = number * 77 + 1;
    for (size_t i = 0; i < sizeof chunk; i += 8) {
        uint64_t value = test_random(&state);
        memcpy(chunk + i, &value, 8);
    }
}

/* A file of 1 MiB; 0 or the error. */
static int make(struct store *store, unsigned number) {
    char name[32];
    struct attributes made;
    uint64_t lsn;
    snprintf(name, sizeof name, "f%u", number);
    int rc = op_create(store, &caller, ROOT_INO, name, 0100644, 0, NULL, &made, &lsn);
    if (rc == -EEXIST)
        rc = op_lookup(store, ROOT_INO, name, &made);
    if (rc)
        return rc;
    fill(number);
    return op_write(store, made.ino, chunk, sizeof chunk, 0, 0, &lsn);
}

static bool is_whole(struct store *store, unsigned number) {
    static uint8_t seen[1 << 20];
    char name[32];
    struct attributes at;
    snprintf(name, sizeof name, "f%u", number);
    if (op_lookup(store, ROOT_INO, name, &at) != 0 ||
        op_read(store, at.ino, seen, sizeof seen, 0) != (ssize_t)sizeof seen)
        return false;
    fill(number);
    return memcmp(seen, chunk, sizeof chunk) == 0;
}

static int drop(struct store *store, unsigned number) {
    char name[32];
    uint64_t ino, lsn;
    uint32_t left;
    snprintf(name, sizeof name, "f%u", number);
    int rc = op_unlink(store, ROOT_INO, name, &ino, &left, &lsn);
    return rc ? rc : op_reclaim(store, &ino, 1);
}

static struct store *must_open(void) {
    struct store *store = NULL;
    if (store_open(path, volume, &options, &store, why, sizeof why) != 0)
        bail("store_open: %s", why);
    return store;
}

static void disk_make(char *mount_point, size_t room) {
    char image[600];
    snprintf(image, sizeof image, "%s/image", test_directory());
    snprintf(mount_point, room, "%s/disk", test_directory());
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skip_all("cannot make a mount namespace: %s", strerror(errno));
    if (mkdir(mount_point, 0700) != 0)
        bail("mkdir: %s", strerror(errno));
    run("truncate -s 600M %s && mkfs.ext4 -q -m 0 %s", image, image);
    run("mount -o loop %s %s", image, mount_point);
}

int main(void) {
    char disk[560];
    plan_lazy();
    if (geteuid() != 0)
        skip_all("needs root: it mounts a small disk");
    disk_make(disk, sizeof disk);
    snprintf(path, sizeof path, "%s/store", disk);
    if (store_format(path, volume, "test", 1, &options, why, sizeof why) != 0)
        bail("store_format: %s", why);
    struct store *store = must_open();
    is_int(0, store_start_epoch(store, EPOCH_MAKE(1, 7), "a"), "an epoch starts");

    unsigned made = 0;
    int rc = 0;
    while (made < 2000 && (rc = make(store, made)) == 0)
        made++;
    is_int(-ENOSPC, rc, "the disk runs full after %u files", made);
    ok(made > 200, "most of it could be used");
    is_int(0, store_checkpoint(store), "a checkpoint succeeds on the full disk");
    struct store_space space;
    store_space(store, &space);
    ok(space.free < 2u << 20, "%llu bytes are said to be free", (unsigned long long)space.free);
    unsigned whole = 0;
    for (unsigned i = 0; i < made; i++)
        whole += is_whole(store, i);
    is_int(made, whole, "every acknowledged file is whole");

    unsigned dropped = 0;
    for (unsigned i = 0; i < made / 2; i++)
        dropped += drop(store, i) == 0;
    is_int(made / 2, dropped, "half of them can be deleted");
    unsigned again = 0;
    while (again < made / 3 && (rc = make(store, 10000 + again)) == 0)
        again++;
    is_int(made / 3, again, "and others made in their place, without a restart (%d)", rc);

    /* Three times the disk's size, over the same files: old versions yield. */
    unsigned overwritten = 0;
    for (unsigned i = 0; i < 1800; i++)
        overwritten += make(store, 10000 + i % again) == 0;
    is_int(1800, overwritten, "overwriting goes on for ever: history yields");
    store_close(store);

    store = must_open();
    whole = 0;
    for (unsigned i = made / 2; i < made; i++)
        whole += is_whole(store, i);
    for (unsigned i = 0; i < again; i++)
        whole += is_whole(store, 10000 + i);
    is_int(made - made / 2 + again, whole, "all is whole when it is opened again");
    store_close(store);

    run("mount -o remount,ro %s%s", disk, "");
    is_int(-EROFS, store_open(path, volume, &options, &store, why, sizeof why), "a read-only disk: %s", why);
    run("umount %s%s", disk, "");
    return 0;
}
