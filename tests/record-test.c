/* Records: every type comes back as it went in; damaged bytes are refused or harmless, never a crash; the chain. */
#include "fs/record.h"
#include "tests/tap.h"

#include <stdio.h>
#include <sys/stat.h>

static uint64_t seed;
static uint8_t sums[RECORD_BLOCKS_MAX * 8];
static struct reclaim_step steps[RECORD_RECLAIM_MAX];
static char names[2][256];
static uint8_t bytes[70000], packed[4000];

static uint64_t below(uint64_t n) {
    return test_random(&seed) % n;
}

static struct span random_name(unsigned which) {
    uint32_t length = (uint32_t)(1 + below(255));
    for (uint32_t i = 0; i < length; i++)
        names[which][i] = (char)('a' + below(26));
    return (struct span){(uint8_t *)names[which], length};
}

static struct span random_bytes(uint32_t length) {
    for (uint32_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(1 + below(255));
    return (struct span){bytes, length};
}

static struct file_time random_time(void) {
    return (struct file_time){(int64_t)test_random(&seed), (uint32_t)below(1000000000)};
}

static void fill_create(struct record *r) {
    static const uint32_t kinds[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
    uint32_t kind = kinds[below(7)];
    r->mode = kind | (uint32_t)below(010000);
    if (kind == S_IFDIR || below(4)) {
        r->parent = 1 + below(1000);
        r->cookie = 1 + test_random(&seed) / 2;
        r->name = random_name(0);
    }
    r->uid = (uint32_t)below(70000);
    r->gid = (uint32_t)below(70000);
    r->new_data = kind == S_IFREG ? r->head.ino : 0;
    r->rdev = kind == S_IFCHR ? below(70000) : 0;
    if (kind == S_IFLNK)
        r->value = random_bytes((uint32_t)(1 + below(BATON_SYMLINK_MAX)));
    if (below(3) == 0) {
        size_t n = xattr_pack(packed, sizeof packed, "system.posix_acl_default", "some bytes", 10);
        n += xattr_pack(packed + n, sizeof packed - n, "user.empty", NULL, 0);
        r->xattrs = (struct span){packed, (uint32_t)n};
    }
}

static void fill_setattr(struct record *r) {
    r->flags = (uint32_t)below(256);
    r->mode = r->flags & SET_MODE ? (uint32_t)below(010000) : 0;
    r->uid = r->flags & SET_UID ? (uint32_t)test_random(&seed) : 0;
    r->gid = r->flags & SET_GID ? (uint32_t)test_random(&seed) : 0;
    if (r->flags & SET_ATIME)
        r->atime = random_time();
    if (r->flags & SET_MTIME)
        r->mtime = random_time();
    if (r->flags & SET_ACL)
        r->value = random_bytes((uint32_t)below(3000));
}

static void fill_data(struct record *r) {
    r->flags = (uint32_t)below(4);
    r->mode = r->flags & WRITE_SET_MODE ? (uint32_t)below(010000) : 0;
    if (r->head.type == RECORD_WRITE) {
        r->head.blocks = (uint32_t)(1 + below(RECORD_BLOCKS_MAX));
        r->head.payload = (uint32_t)below(r->head.blocks * BATON_BLOCK + 1);
        r->first = below(FILE_BLOCKS_MAX - RECORD_BLOCKS_MAX);
        r->size = (r->first + r->head.blocks) * BATON_BLOCK - below(BATON_BLOCK);
    } else if (r->head.type == RECORD_TRUNCATE) {
        r->size = below(3) ? below(FILE_SIZE_MAX) : 0;
        r->first = FILE_BLOCKS(r->size);
        r->head.blocks = r->size % BATON_BLOCK ? (uint32_t)below(2) : 0;
        r->head.payload = r->head.blocks ? (uint32_t)below(BATON_BLOCK + 1) : 0;
        r->last = below(2) ? UINT64_MAX : r->first + below(FILE_BLOCKS_MAX - r->first + 1);
        if (r->size == 0 && r->last == UINT64_MAX)
            r->new_data = below(2) ? test_random(&seed) : 0;
    } else {
        r->first = below(FILE_BLOCKS_MAX);
        r->count = 1 + below(FILE_BLOCKS_MAX - r->first);
        r->size = below(FILE_SIZE_MAX + 1);
    }
    for (size_t i = 0; i < r->head.blocks * 8; i++)
        sums[i] = (uint8_t)below(256);
    r->checksums = (struct span){sums, r->head.blocks * 8};
}

static void fill_reclaim(struct record *r) {
    r->head.ino = 0;
    r->step_count = (uint32_t)(1 + below(RECORD_RECLAIM_MAX));
    for (uint32_t i = 0; i < r->step_count; i++) {
        steps[i] = (struct reclaim_step){.kind = (uint32_t)(1 + below(4)), .id = 1 + below(1u << 30)};
        if (steps[i].kind == RECLAIM_DROP) {
            steps[i].ino = below(2) ? steps[i].id : 0;
            steps[i].from = below(1000);
            steps[i].to = below(2) ? UINT64_MAX : steps[i].from + 1 + below(1000);
        }
    }
    r->steps = steps;
}

static void fill_rename(struct record *r) {
    r->parent = 1 + below(100);
    r->new_parent = 1 + below(100);
    r->name = random_name(0);
    r->new_name = random_name(1);
    r->flags = (uint32_t)below(3); /* none, EXCHANGED, LEFT_WHITEOUT */
    r->cookie = 1 + below(1000);
    r->old_cookie = r->flags ? 2000 : 0;
    r->uid = r->flags & RENAME_LEFT_WHITEOUT ? (uint32_t)below(5) : 0;
    r->gid = r->flags & RENAME_LEFT_WHITEOUT ? (uint32_t)below(5) : 0;
    r->victim = r->flags & RENAME_EXCHANGED || below(2) ? r->head.ino + 1 : 0;
}

static void fill(struct record *r, uint16_t type) {
    memset(r, 0, sizeof *r);
    r->head.type = type;
    r->head.lsn = 1 + below(1ull << 40);
    r->head.epoch = EPOCH_MAKE(1 + below(1000), below(65536));
    r->head.time = (int64_t)(test_random(&seed) >> 1);
    r->head.ino = 1 + below(1ull << 50);
    switch (type) {
    case RECORD_CREATE:
        fill_create(r);
        break;
    case RECORD_LINK:
    case RECORD_UNLINK:
        r->parent = 1 + below(100);
        r->name = random_name(0);
        r->cookie = type == RECORD_LINK ? 1 + below(100) : 0;
        r->flags = type == RECORD_UNLINK ? (uint32_t)below(2) : 0;
        break;
    case RECORD_RENAME:
        fill_rename(r);
        break;
    case RECORD_SETATTR:
        fill_setattr(r);
        break;
    case RECORD_XATTR:
        r->flags = (uint32_t)below(4);
        r->mode = r->flags & XATTR_SET_MODE ? (uint32_t)below(010000) : 0;
        r->name = random_name(0);
        r->value = r->flags & XATTR_REMOVE ? (struct span){NULL, 0} : random_bytes((uint32_t)below(65537));
        break;
    case RECORD_RECLAIM:
        fill_reclaim(r);
        break;
    case RECORD_EPOCH:
        r->head.ino = 0;
        r->name = (struct span){(const uint8_t *)"node-a", 6};
        break;
    default:
        fill_data(r);
    }
}

static bool same_span(struct span a, struct span b) {
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

static bool same(const struct record *a, const struct record *b) {
    if (a->step_count != b->step_count)
        return false;
    for (uint32_t i = 0; i < a->step_count; i++) {
        const struct reclaim_step *x = &a->steps[i], *y = &b->steps[i];
        if (x->kind != y->kind || x->id != y->id || x->ino != y->ino || x->from != y->from || x->to != y->to)
            return false;
    }
    return memcmp(&a->head, &b->head, sizeof a->head) == 0 && a->parent == b->parent && same_span(a->name, b->name) &&
           a->cookie == b->cookie && a->new_parent == b->new_parent && same_span(a->new_name, b->new_name) &&
           a->old_cookie == b->old_cookie && a->victim == b->victim && a->flags == b->flags && a->mode == b->mode &&
           a->uid == b->uid && a->gid == b->gid && a->rdev == b->rdev && file_time_compare(a->atime, b->atime) == 0 &&
           file_time_compare(a->mtime, b->mtime) == 0 && same_span(a->value, b->value) &&
           same_span(a->xattrs, b->xattrs) && a->first == b->first && a->count == b->count && a->size == b->size &&
           a->new_data == b->new_data && a->last == b->last && same_span(a->checksums, b->checksums);
}

static uint8_t encoded[RECORD_LENGTH_MAX], damaged[RECORD_LENGTH_MAX + 16];

static void test_round_trip(uint16_t type) {
    unsigned bad = 0;
    for (int i = 0; i < 300; i++) {
        uint8_t chain[CHAIN_SIZE] = {(uint8_t)i}, again[CHAIN_SIZE];
        struct record record, decoded;
        const char *why = NULL;
        fill(&record, type);
        int length = record_encode(&record, chain, encoded, sizeof encoded);
        if (length < 0) {
            bad++;
            diag("%s: encode: %d", record_type_name(type), length);
            continue;
        }
        if (record_decode(encoded, (size_t)length, &decoded, &why) != 0 || !same(&record, &decoded)) {
            bad++;
            diag("%s: decode: %s", record_type_name(type), why ? why : "another record");
        }
        record_release(&decoded);
        record_chain(chain, encoded, (size_t)length, again);
        bad += memcmp(again, record.head.chain, CHAIN_SIZE) != 0;
        chain[1] ^= 1;
        record_chain(chain, encoded, (size_t)length, again);
        bad += memcmp(again, record.head.chain, CHAIN_SIZE) == 0;
    }
    is_int(0, bad, "%s comes back as it went in", record_type_name(type));
}

/* What decode takes must be what encode could have made. */
static bool is_sound(const uint8_t *from, size_t length) {
    struct record decoded;
    uint8_t chain[CHAIN_SIZE] = {0};
    static uint8_t again[RECORD_LENGTH_MAX];
    if (record_decode(from, length, &decoded, NULL) != 0)
        return true;
    int n = record_encode(&decoded, chain, again, sizeof again);
    size_t at = sizeof(struct record_head);
    bool sound = n == (int)length && memcmp(again + at, from + at, length - at) == 0;
    record_release(&decoded);
    return sound;
}

static void test_damage(uint16_t type) {
    unsigned bad = 0, taken = 0;
    for (int i = 0; i < 60; i++) {
        uint8_t chain[CHAIN_SIZE] = {0};
        struct record record, decoded;
        fill(&record, type);
        int length = record_encode(&record, chain, encoded, sizeof encoded);
        if (length < 0)
            continue;
        for (int j = 0; j < 200; j++) {
            size_t n = (size_t)length;
            /* Its own allocation, so that a sanitizer sees a step beyond it. */
            unsigned kind = (unsigned)below(4);
            if (kind == 0)
                n = below(n);
            uint8_t *copy = malloc(n + 1);
            memcpy(copy, encoded, n);
            if (kind == 0 && n >= 4 && below(2)) {
                uint32_t says = (uint32_t)n;
                memcpy(copy, &says, 4);
            }
            for (unsigned flips = kind ? 1 + (unsigned)below(4) : 0; flips > 0; flips--)
                copy[kind == 2 ? below(MIN(n, 160)) : below(n)] ^= (uint8_t)(1u << below(8));
            if (kind == 0 && record_decode(copy, n, &decoded, NULL) == 0) {
                bad++;
                record_release(&decoded);
            }
            taken += record_decode(copy, n, &decoded, NULL) == 0;
            record_release(&decoded);
            bad += !is_sound(copy, n);
            free(copy);
        }
    }
    is_int(0, bad, "%s: damaged bytes are refused, or are another sound record (%u)", record_type_name(type), taken);
}

static void test_noise(void) {
    for (int i = 0; i < 20000; i++) {
        size_t n = below(400);
        struct record decoded;
        for (size_t j = 0; j < n; j++)
            damaged[j] = (uint8_t)below(256);
        if (n >= sizeof(struct record_head)) {
            uint32_t length = (uint32_t)n;
            memcpy(damaged, &length, 4);
            damaged[4] = (uint8_t)below(14);
            damaged[5] = damaged[6] = damaged[7] = 0;
        }
        record_decode(damaged, n, &decoded, NULL);
        record_release(&decoded);
    }
    ok(true, "noise is no harm");
    struct record_head newer = {.length = sizeof newer, .type = RECORD_TYPE_END};
    struct record decoded;
    is_int(-EPROTONOSUPPORT, record_decode(&newer, sizeof newer, &decoded, NULL), "a type of a newer program is refused as such");
    record_release(&decoded);
}

static void refuses(const char *what, struct record *record) {
    uint8_t chain[CHAIN_SIZE] = {0};
    is_int(-EINVAL, record_encode(record, chain, encoded, sizeof encoded), "refused: %s", what);
}

static void test_limits(void) {
    struct record r;
    uint8_t chain[CHAIN_SIZE] = {0};
    static const char *const bad_names[] = {".", "..", "a/b", ""};
    for (int i = 0; i < 4; i++) {
        fill(&r, RECORD_LINK);
        r.name = (struct span){(const uint8_t *)bad_names[i], (uint32_t)strlen(bad_names[i])};
        refuses(bad_names[i], &r);
    }
    fill(&r, RECORD_LINK);
    r.name = (struct span){(const uint8_t *)"a\0b", 3};
    refuses("a name with NUL", &r);
    r.name = (struct span){bytes, 256};
    memset(bytes, 'x', 256);
    refuses("a name of 256 bytes", &r);
    fill(&r, RECORD_WRITE);
    r.size = r.first * BATON_BLOCK;
    refuses("a write beyond the end", &r);
    fill(&r, RECORD_WRITE);
    r.head.payload = r.head.blocks * BATON_BLOCK + 1;
    refuses("more payload than blocks", &r);
    fill(&r, RECORD_TRUNCATE);
    r.size = FILE_SIZE_MAX + 1;
    refuses("a size above the limit", &r);
    fill(&r, RECORD_SETATTR);
    r.flags = SET_ATIME;
    r.atime = (struct file_time){0, 1000000000};
    refuses("a time with a second of nanoseconds", &r);
    fill(&r, RECORD_XATTR);
    int length = record_encode(&r, chain, encoded, sizeof encoded);
    is_int(-E2BIG, record_encode(&r, chain, encoded, (size_t)length - 1), "a buffer that is one byte short");
}

/* Records from before there were whiteouts stay as they are; the others say what is new behind all that. */
static void test_rename(void) {
    struct record r, decoded;
    uint8_t chain[CHAIN_SIZE] = {0};
    do
        fill(&r, RECORD_RENAME);
    while (r.flags);
    int plain = record_encode(&r, chain, encoded, sizeof encoded);
    is_int(64 + 5 * 8 + 4 + 1 + (int)r.name.length + 1 + (int)r.new_name.length, plain, "the length of a plain rename");
    r.uid = 1;
    refuses("an owner without a whiteout", &r);
    r.flags = RENAME_LEFT_WHITEOUT;
    refuses("a whiteout without a number", &r);
    r.flags |= RENAME_EXCHANGED;
    r.old_cookie = 2000;
    refuses("a whiteout where an entry was exchanged", &r);
    r.flags = RENAME_LEFT_WHITEOUT;
    int whiteout = record_encode(&r, chain, encoded, sizeof encoded);
    is_int(plain + 8, whiteout, "a whiteout adds its owner and group");
    is_int(0, record_decode(encoded, (size_t)whiteout, &decoded, NULL), "which are read again");
    ok(decoded.uid == 1 && record_new_inode(&decoded) == 2000, "with the number of the new inode");
    record_release(&decoded);
}

static void test_payload(void) {
    static uint8_t payload[3 * BATON_BLOCK];
    uint64_t checksums[3];
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)below(256);
    size_t length = 2 * BATON_BLOCK + 100;
    memset(payload + length, 0, sizeof payload - length);
    for (int i = 0; i < 3; i++)
        checksums[i] = block_checksum(payload + (size_t)i * BATON_BLOCK);
    ok(block_checksum_part(payload + (size_t)2 * BATON_BLOCK, 100) == checksums[2],
       "the checksum of a part is that of the whole");
    struct record r = {.head.blocks = 3, .head.payload = (uint32_t)length, .checksums = {(uint8_t *)checksums, 24}};
    is_int(0, record_check_payload(&r, payload, length), "a payload fits its checksums");
    is_int(-EBADMSG, record_check_payload(&r, payload, length - 1), "not with another length");
    payload[BATON_BLOCK + 5] ^= 4;
    is_int(-EBADMSG, record_check_payload(&r, payload, length), "not with another bit");
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    for (uint16_t type = 1; type < RECORD_TYPE_END; type++) {
        test_round_trip(type);
        test_damage(type);
    }
    test_noise();
    test_limits();
    test_rename();
    test_payload();
    return 0;
}
