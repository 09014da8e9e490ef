/* The register in a file: changes by compare-and-set, survives reopening, refuses a damaged file. */
#include "membership/register.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

static char path[512];
static char why[512];

static struct register_value value_of(uint64_t version, epoch_t epoch, const char *primary) {
    struct register_value value = {.version = version, .epoch = epoch, .member_count = 1, .start_lsn = 12};
    snprintf(value.primary, sizeof value.primary, "%s", primary);
    snprintf(value.members[0].node, sizeof value.members[0].node, "%s", primary);
    memset(value.members[0].incarnation, 0x5c, 16);
    memset(value.start_chain, 0xe1, 16);
    return value;
}

static void changes_and_survives(void) {
    struct reg *reg;
    struct register_value seen, next = value_of(1, EPOCH_MAKE(1, 77), "a");
    is_int(0, register_file_open(path, &reg, why, sizeof why), "an absent file opens");
    is_int(0, reg->engine->read(reg, &seen), "and is read");
    is_int(0, seen.version, "as version 0");
    struct register_value nothing = seen;
    is_int(0, reg->engine->change(reg, &seen, &next), "the first value is taken");
    is_int(-ESTALE, reg->engine->change(reg, &nothing, &next), "a proposal over an older value is refused");
    is_int(1, nothing.version, "and is told the one that is there");
    is_int(-EINVAL, reg->engine->change(reg, &nothing, &next), "a value must be above the one before");
    reg->engine->close(reg);
    is_int(0, register_file_open(path, &reg, why, sizeof why), "opened again");
    reg->engine->read(reg, &seen);
    is_blob(&next, &seen, sizeof seen, "it has the value");
    ok(register_is_member(&seen, "a", next.members[0].incarnation), "a is a member");
    uint8_t other[16] = {0};
    ok(!register_is_member(&seen, "a", other), "a's emptied store is none");
    struct register_value forced = value_of(1, EPOCH_MAKE(2, 78), "b");
    is_int(0, reg->engine->change(reg, &seen, &forced), "a higher epoch counts more than the version");
    reg->engine->close(reg);
}

static void damage_is_found(void) {
    uint8_t good[4096];
    int fd = open(path, O_RDWR);
    ssize_t length = pread(fd, good, sizeof good, 0);
    unsigned taken = 0;
    for (ssize_t i = 0; i < length; i++) {
        struct reg *reg;
        uint8_t bad = good[i] ^ (uint8_t)(1u << (i % 7));
        pwrite_all(fd, &bad, 1, (uint64_t)i);
        if (register_file_open(path, &reg, why, sizeof why) == 0) {
            taken++;
            reg->engine->close(reg);
        }
        pwrite_all(fd, &good[i], 1, (uint64_t)i);
    }
    is_int(0, taken, "a changed bit anywhere is refused");
    ok(strstr(why, "damaged") != NULL, "with a sentence: %s", why);
    close(fd);
}

static void first_value(void) {
    struct reg *reg;
    struct register_value seen;
    char beside[600];
    register_file_path("/srv/baton/projects/", beside, sizeof beside);
    is_string("/srv/baton/projects.register", beside, "it lies beside the store");
    is_int(0, register_file_first(path, "a", why, sizeof why), "format writes a first value");
    is_int(0, register_file_open(path, &reg, why, sizeof why), "that opens");
    reg->engine->read(reg, &seen);
    ok(seen.version == 1 && seen.epoch == 0 && seen.member_count == 0, "version 1, no epoch, no members");
    is_string("a", seen.primary, "a is to be primary");
    reg->engine->close(reg);
}

/* Whoever fills the disk does not keep a primary from going on alone. */
static void full_disk(void) {
    struct reg *reg;
    struct register_value seen, next = value_of(2, EPOCH_MAKE(1, 77), "a");
    char disk[600], on_disk[700], ballast[700];
    static uint8_t page[4096];
    snprintf(disk, sizeof disk, "%s/disk", test_directory());
    snprintf(on_disk, sizeof on_disk, "%s/store.register", disk);
    snprintf(ballast, sizeof ballast, "%s/ballast", disk);
    if (geteuid() != 0 || mkdir(disk, 0755) < 0 || mount("none", disk, "tmpfs", 0, "size=64k") < 0) {
        skip(4, "needs root and tmpfs");
        return;
    }
    is_int(0, register_file_first(on_disk, "a", why, sizeof why), "a first value");
    is_int(0, register_file_open(on_disk, &reg, why, sizeof why), "opened");
    int fd = open(ballast, O_WRONLY | O_CREAT, 0600);
    while (write(fd, page, sizeof page) > 0)
        ;
    close(fd);
    int rc = 0;
    reg->engine->read(reg, &seen);
    for (uint64_t version = 2; version < 12 && rc == 0; version++) {
        next.version = version;
        rc = reg->engine->change(reg, &seen, &next);
        seen = next;
    }
    is_int(0, rc, "ten changes on a full disk");
    reg->engine->close(reg);
    rc = register_file_open(on_disk, &reg, why, sizeof why);
    if (rc == 0) {
        reg->engine->read(reg, &seen);
        reg->engine->close(reg);
    }
    ok(rc == 0 && seen.version == 11, "the last one is there");
    umount(disk);
}

int main(void) {
    plan_lazy();
    snprintf(path, sizeof path, "%s/store.register", test_directory());
    changes_and_survives();
    damage_is_found();
    first_value();
    full_disk();
    return 0;
}
