/* A disk goes and comes back within one boot, without what the page cache had of it, as if by an older copy: device and
 * folder are the same, but the store lacks records that it may have acknowledged. So it counts as another incarnation, also
 * when a tool opens it first; and it does not when nothing is lacking. */
#include "tests/handmade.h"
#include "tests/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

static int device_fd;
static char image[512], disk[512], device[64];
static uint8_t first[STORE_ID_SIZE], second[STORE_ID_SIZE];

static void run(const char *format, const char *a, const char *b) {
    char command[1200];
    snprintf(command, sizeof command, format, a, b);
    if (system(command) != 0)
        bail("failed: %s", command);
}

static void attach(void) {
    if (mount(device, disk, "ext4", 0, NULL) != 0)
        bail("mount: %s", strerror(errno));
}

static void detach(void) {
    if (umount(disk) != 0)
        bail("umount: %s", strerror(errno));
    if (ioctl(device_fd, BLKFLSBUF, 0) != 0) /* what is read next is what the image has then */
        bail("BLKFLSBUF: %s", strerror(errno));
}

static void disk_make(void) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        skip_all("cannot make a mount namespace: %s", strerror(errno));
    snprintf(image, sizeof image, "%s/image", test_directory());
    snprintf(disk, sizeof disk, "%s/disk", test_directory());
    run("mkdir %s && truncate -s 512M %s", disk, image);
    run("mkfs.ext4 -q -m 0 %s%s", image, "");
    char command[600];
    snprintf(command, sizeof command, "losetup --find --show %s", image);
    FILE *pipe = popen(command, "r");
    if (!pipe || fscanf(pipe, "%63s", device) != 1)
        skip_all("there is no loop device");
    pclose(pipe);
    device_fd = open(device, O_RDWR | O_CLOEXEC);
    run("losetup --detach %s%s", device, ""); /* when nobody has it open any more: it goes with this process */
}

static struct store *must_open_as(const char *what, uint8_t incarnation[STORE_ID_SIZE], uint64_t lsn) {
    struct position position;
    struct store *store = must_open();
    memcpy(incarnation, store_incarnation(store), STORE_ID_SIZE);
    store_position(store, &position);
    is_int((int64_t)lsn, (int64_t)position.lsn, "%s: opened at LSN %d", what, (int)lsn);
    return store;
}

/* All that it does is in its tail, as anything that is acknowledged as received. */
static unsigned epoch = 1;

static void work_and_die(void) {
    struct store *store = must_open();
    if (store_start_epoch(store, EPOCH_MAKE(epoch, 7), "a") != 0)
        _exit(1);
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof name, "%u-%d", epoch, i);
        if (!create_file(store, name))
            _exit(2);
    }
    _exit(0);
}

static void look_and_die(void) {
    must_open();
    _exit(0);
}

static void tests(void) {
    struct stat before, after;
    attach();
    snprintf(path, sizeof path, "%.400s/store", disk);
    if (store_format(path, volume, "test", 1, &options, why, sizeof why) != 0)
        bail("store_format: %s", why);
    struct store *store = must_open_as("new", first, 0);
    store_start_epoch(store, EPOCH_MAKE(1, 7), "a");
    create_file(store, "kept");
    store_close(store);
    stat(path, &before);

    detach();
    attach();
    stat(path, &after);
    ok(before.st_dev == after.st_dev && before.st_ino == after.st_ino, "attached again it is the same disk and folder");
    store = must_open_as("nothing lost", second, 2);
    is_blob(first, second, sizeof first, "nothing lost: the same incarnation");
    store_close(store);

    epoch = 2;
    is_int(0, child_run(work_and_die), "a process makes ten files more and is killed");
    store = must_open_as("killed", second, 13);
    is_blob(first, second, sizeof first, "killed: the same incarnation");
    is_int(0, store_undo(store, 8), "some of that is undone");
    store_close(store);
    store = must_open_as("undone", second, 8);
    is_blob(first, second, sizeof first, "undone: the same incarnation");
    store_close(store);

    detach();
    run("cp --sparse=always %s %s.old", image, image);
    attach();
    epoch = 3;
    is_int(0, child_run(work_and_die), "a process makes ten files more and is killed, and the disk goes");
    detach();
    run("cp --sparse=always %s.old %s", image, image);
    attach();
    stat(path, &after);
    ok(before.st_dev == after.st_dev && before.st_ino == after.st_ino, "without that it is the same disk and folder");
    is_int(0, child_run(look_and_die), "a tool opens it first");
    store = must_open_as("some lost", second, 8);
    ok(memcmp(first, second, sizeof first) != 0, "some lost: another incarnation");
    store_close(store);
    store = must_open_as("again", first, 8);
    is_blob(second, first, sizeof first, "again: which it stays");
    store_close(store);
    detach();
}

int main(void) {
    plan_lazy();
    if (geteuid() != 0)
        skip_all("needs root: it mounts a disk");
    disk_make();
    tests();
    return 0;
}
