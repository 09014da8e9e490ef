/* Small files beside a store: the register, the line that names a generation, a secret key, a mark, a file of undone records.
 *
 * An input: which file (low three bits) and whether its checksums are made right (RIGHT), then its bytes.
 */
#include "fs/config.h"
#include "fs/generation.h"
#include "fs/mark.h"
#include "fs/undone.h"
#include "membership/register.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

enum file { FILE_REGISTER, FILE_CURRENT, FILE_BUILDING, FILE_SECRET, FILE_MARK, FILE_UNDONE, FILE_KEEP, FILE_END };
#define RIGHT 0x80u

static char folder[512], path[600];

static void start(void) {
    snprintf(folder, sizeof folder, "%s/files", fuzz_directory());
    PROMISE(mkdir(folder, 0700) == 0);
    snprintf(path, sizeof path, "%s/generation.3", folder);
    PROMISE(mkdir(path, 0700) == 0);
}

static void put(const char *name, const uint8_t *bytes, size_t length) {
    snprintf(path, sizeof path, "%s/%s", folder, name);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    PROMISE(fd >= 0 && pwrite_all(fd, bytes, length, 0) == 0);
}

static bool take_register(uint8_t *bytes, size_t length, bool right) {
    struct register_value value, next;
    struct reg *reg;
    char why[600] = "";
    AUTO_FREE char *text = malloc(length + 40);
    PROMISE(text);
    memcpy(text, bytes, length);
    char *sum = right ? memmem(text, length, "\nchecksum ", 10) : NULL;
    if (sum)
        length = (size_t)(sum + 1 - text) + (size_t)sprintf(sum + 1, "checksum %016" PRIx64 "\n",
                                                            (uint64_t)XXH3_64bits(text, (size_t)(sum + 1 - text)));
    put("register", (uint8_t *)text, length);
    int rc = register_file_open(path, &reg, why, sizeof why);
    FUZZ_MUST(rc == 0 || why[0]);
    if (rc)
        return false;
    FUZZ_MUST(reg->engine->read(reg, &value) == 0 && value.member_count <= REGISTER_MEMBERS_MAX);
    FUZZ_MUST(memchr(value.primary, 0, sizeof value.primary));
    next = value;
    next.version++;
    rc = reg->engine->change(reg, &value, &next); /* what was read can be written */
    FUZZ_MUST(rc == 0 || next.version == 0);
    reg->engine->close(reg);
    if (rc == 0) {
        FUZZ_MUST(register_file_open(path, &reg, why, sizeof why) == 0 && reg->engine->read(reg, &value) == 0 &&
                  register_compare(&value, &next) == 0);
        reg->engine->close(reg);
    }
    return true;
}

static void drop_kept(void *context, const char *name) {
    char kept[1200];
    (void)context;
    snprintf(kept, sizeof kept, "%s/%s", folder, name);
    fuzz_remove(kept);
}

static bool take_generation(enum file which, const uint8_t *bytes, size_t length) {
    char base[PATH_MAX], line[NAME_MAX];
    unsigned number = 0;
    put(which == FILE_CURRENT ? "current" : which == FILE_KEEP ? "keep" : "generation.3/building", bytes, length);
    bool good = generation_current(folder, base, &number) == 0 && (which != FILE_CURRENT || number == 3);
    if (which == FILE_BUILDING)
        good = generation_building(folder, &number, line) == 0 && strlen(line) < sizeof line;
    if (which == FILE_KEEP) {
        put("current", (const uint8_t *)"generation.3\n", 13);
        good = generation_sweep(folder, true) == 0;
        generation_kept(folder, drop_kept, NULL);
        snprintf(path, sizeof path, "%s/current", folder);
        unlink(path);
        snprintf(path, sizeof path, "%s/keep", folder);
    }
    unlink(path);
    return good;
}

static bool take_secret(const uint8_t *bytes, size_t length) {
    static const struct config config;
    char secret[KEY_TEXT], why[1400] = "";
    put("key", bytes, length);
    int rc = config_secret(&config, "a", path, secret, why, sizeof why);
    FUZZ_MUST(rc ? why[0] != 0 : strlen(secret) == KEY_TEXT - 1);
    return rc == 0;
}

static bool take_mark(const uint8_t *bytes, size_t length) {
    static const uint8_t id[MARK_ID_SIZE] = "an incarnation..";
    struct stat st;
    struct mark mark;
    char name[80];
    uint64_t lsn;
    setenv("BATON_RUN", folder, 1);
    PROMISE(stat(folder, &st) == 0);
    snprintf(name, sizeof name, "%llx-%llx.mark", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    put(name, bytes, length);
    bool good = mark_read(&st, id, &lsn) == 0;
    FUZZ_MUST(mark_open(&mark, &st, id, 77) == 0);
    mark_set(&mark, 78);
    mark_close(&mark);
    FUZZ_MUST(mark_read(&st, id, &lsn) == 0 && lsn == 78);
    return good;
}

struct undone_head { /* as undone.c has them */
    char magic[8];
    uint8_t volume[16];
    uint64_t first, last;
    uint8_t chain[CHAIN_SIZE];
    uint64_t check;
} __attribute__((packed));
struct undone_record {
    uint32_t length, payload;
    uint64_t check;
} __attribute__((packed));

static void make_undone_right(uint8_t *bytes, size_t length) {
    struct undone_record record;
    if (length < sizeof(struct undone_head))
        return;
    uint64_t check = XXH3_64bits(bytes, offsetof(struct undone_head, check));
    memcpy(bytes + offsetof(struct undone_head, check), &check, sizeof check);
    for (size_t at = sizeof(struct undone_head); length - at >= sizeof record;) {
        memcpy(&record, bytes + at, sizeof record);
        uint64_t whole = (uint64_t)record.length + record.payload;
        if (whole > length - at - sizeof record)
            return;
        record.check = XXH3_64bits_withSeed(bytes + at + sizeof record, whole,
                                            (uint64_t)record.length << 32 | record.payload);
        memcpy(bytes + at, &record, sizeof record);
        at += sizeof record + whole;
    }
}

static bool take_undone(uint8_t *bytes, size_t length, bool right) {
    struct undone *undone;
    struct span record, payload;
    uint64_t first, last;
    uint8_t chain[CHAIN_SIZE];
    char why[800] = "";
    int rc;
    if (right)
        make_undone_right(bytes, length);
    put("1-2.records", bytes, length);
    rc = undone_open(path, &undone, why, sizeof why);
    FUZZ_MUST(rc == 0 || why[0]);
    if (rc)
        return false;
    undone_range(undone, &first, &last, chain);
    FUZZ_MUST(first > 0 && first <= last);
    while ((rc = undone_next(undone, &record, &payload)) == 1) {
        struct record decoded;
        FUZZ_MUST(undone_payload_at(undone) + payload.length <= length);
        if (record_decode(record.data, record.length, &decoded, NULL) == 0) {
            record_check_payload(&decoded, payload.data, payload.length);
            record_release(&decoded);
        }
    }
    undone_close(undone);
    return rc == 0;
}

static bool take(uint8_t which, uint8_t *bytes, size_t length) {
    bool right = which & RIGHT;
    switch ((which & 7) % FILE_END) {
    case FILE_REGISTER:
        return take_register(bytes, length, right);
    case FILE_CURRENT:
    case FILE_BUILDING:
    case FILE_KEEP:
        return take_generation((which & 7) % FILE_END, bytes, length);
    case FILE_SECRET:
        return take_secret(bytes, length);
    case FILE_MARK:
        return take_mark(bytes, length);
    default:
        return take_undone(bytes, length, right);
    }
}

static bool one(const uint8_t *input, size_t length) {
    if (length == 0)
        return false;
    uint8_t *bytes = fuzz_copy(input + 1, --length);
    bool good = take(input[0], bytes, length);
    fuzz_free(bytes, length);
    return good;
}

/* ---- Seeds ---- */

static uint8_t seed[4096];

static void give(const char *name, enum file file, const void *bytes, size_t length) {
    seed[0] = (uint8_t)(file | RIGHT);
    memcpy(seed + 1, bytes, length);
    fuzz_give(name, seed, 1 + length);
}

static void give_undone(void) {
    static const uint8_t name[] = "a";
    uint8_t bytes[1000];
    struct undone_head head = {.magic = "BATONUN1", .first = 1, .last = 1};
    struct record record = {.head = {.type = RECORD_EPOCH, .lsn = 1, .epoch = EPOCH_MAKE(1, 7), .time = 1}, .name = {name, 1}};
    struct undone_record before = {0};
    size_t at = sizeof head + sizeof before;
    int length = record_encode(&record, head.chain, bytes + at, sizeof bytes - at);
    PROMISE(length > 0);
    before.length = (uint32_t)length;
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, &before, sizeof before);
    give("undone", FILE_UNDONE, bytes, at + (size_t)length);
}

static void seeds(void) {
    static const char reg[] = "baton register 1\nversion 3\nepoch 2.100\nprimary a\n"
                              "member a 00112233445566778899aabbccddeeff\nmember b ffeeddccbbaa99887766554433221100\n"
                              "start 7 000102030405060708090a0b0c0d0e0f\nchecksum 0\n";
    give("register", FILE_REGISTER, reg, sizeof reg - 1);
    give("current", FILE_CURRENT, "generation.3\n", 13);
    give("building", FILE_BUILDING, "beside 7\n", 9);
    give("keep", FILE_KEEP, "9.aside.7\n", 10);
    give("secret", FILE_SECRET, "0123456789012345678901234567890123456789\n", 41);
    give("mark", FILE_MARK, "BATONMK1an incarnation..\7\0\0\0\0\0\0\0", 32);
    give_undone();
}

const struct fuzz_harness fuzz_files = {.name = "files", .start = start, .one = one, .seeds = seeds};
