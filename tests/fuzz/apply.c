/* Records of a hostile primary, received and applied: each is refused with the tables as they were, or does something
 * that can be undone to the bit.
 *
 * An input: a byte of flags, then a script that makes records, field by field (`some_record`), each right in LSN,
 * epoch, chain and length, so that the fuzzer is behind what store_receive() compares first. CHECK: a check of the store
 * follows, before all is undone.
 */
#include "fs/apply.h"
#include "fs/check.h"
#include "fs/ops.h"
#include "tests/fuzz/fuzz.h"
#include "tests/tables.h"

#include <stdio.h>
#include <sys/stat.h>

#define CHECK 1u
#define RECORDS_MAX 40u

static char folder[600];
static struct store *store;
static struct position base, at;
static struct tables *before;

static void open_store(void) {
    struct store_options options = fuzz_options();
    char why[600] = "";
    FUZZ_MUST(store_open(folder, fuzz_volume, &options, &store, why, sizeof why) == 0);
}

static void start(void) {
    snprintf(folder, sizeof folder, "%s/apply", fuzz_directory());
    image_write(fuzz_template(), folder);
    open_store();
    store_position(store, &base);
    before = tables_take(store, TABLES_EXACT);
}

/* ---- Making records ---- */

static struct span name_of(struct script *script) {
    static const char *const names[] = {"new", "folder", "large", "second name", "below", "holes", "link", "moved",
                                        "file 5", "a", "b", "c"};
    uint32_t choice = script_below(script, 14);
    if (choice >= 12)
        return script_bytes(script, script_below(script, 300));
    return (struct span){(const uint8_t *)names[choice], (uint32_t)strlen(names[choice])};
}

/* 0: the root; the template's inodes; those that an input makes; any. */
static uint64_t ino_of(struct script *script) {
    uint32_t choice = script_u8(script);
    if (choice == 0)
        return ROOT_INO;
    if (choice < 120) /* of epoch 1 */
        return (1ull << 40) + choice;
    if (choice < 140)
        return (2ull << 40) + choice - 120;
    return choice < 250 ? (EPOCH_COUNTER(at.epoch) << 40) + 2 * (at.lsn + 1 - (choice - 140)) : script_number(script);
}

/* As a primary gives them (store_next_id). */
static uint64_t next_id(unsigned which) {
    struct key key = key_u64(at.epoch);
    struct epoch_row row;
    struct span value;
    if (table_get(store, TABLE_EPOCH, &key, &value) != 0 || value.length != sizeof row)
        return 0;
    memcpy(&row, value.data, sizeof row);
    return EPOCH_COUNTER(at.epoch) << 40 | ((at.lsn + 1 - row.first) * 2 + which);
}

static uint64_t new_id(struct script *script) {
    uint32_t choice = script_below(script, 8);
    return choice < 7 ? next_id(choice & 1) : ino_of(script);
}

static uint64_t entry_of(struct script *script, uint64_t parent, struct span name) {
    struct dirent_row row;
    if (name.length <= BATON_NAME_MAX && script_below(script, 8) != 7 &&
        dirent_get(store, parent, name.data, name.length, &row) == 0)
        return row.ino;
    return ino_of(script);
}

struct making {
    struct record record;
    struct reclaim_step steps[8];
    uint8_t sums[16 * 8];
    uint8_t payload[16 * BATON_BLOCK];
};

static void some_name(struct script *script, struct record *r) {
    static const uint32_t kinds[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFCHR, S_IFSOCK, S_IFBLK, 0};
    r->parent = ino_of(script);
    r->name = name_of(script);
    switch (r->head.type) {
    case RECORD_CREATE:
        r->mode = kinds[script_below(script, 8)] | (script_u16(script) & 07777);
        r->head.ino = next_id(0);
        r->cookie = script_below(script, 8) == 7 ? script_number(script) : r->head.ino;
        r->new_data = S_ISREG(r->mode) ? r->head.ino : 0;
        if (script_below(script, 8) == 7)
            r->new_data = r->head.ino = ino_of(script);
        if (S_ISLNK(r->mode))
            r->value = script_bytes(script, 1 + script_below(script, 40));
        if (script_below(script, 8) == 7)
            r->xattrs = script_bytes(script, script_below(script, 100));
        if (script_below(script, 16) == 15)
            r->parent = 0;
        break;
    case RECORD_LINK:
        r->head.ino = ino_of(script);
        r->cookie = new_id(script);
        break;
    case RECORD_UNLINK:
        r->head.ino = entry_of(script, r->parent, r->name);
        r->flags = script_below(script, 2);
        break;
    default:
        r->head.ino = entry_of(script, r->parent, r->name);
        r->new_parent = ino_of(script);
        r->new_name = name_of(script);
        r->victim = script_below(script, 3) ? entry_of(script, r->new_parent, r->new_name) : 0;
        r->flags = script_below(script, 3);
        r->cookie = new_id(script);
        r->old_cookie = r->flags ? new_id(script) : 0;
        r->uid = r->gid = r->flags == RENAME_LEFT_WHITEOUT ? script_u16(script) : 0;
    }
}

static void some_attributes(struct script *script, struct record *r) {
    static const char *const names[] = {"user.x", "user.colour", "system.posix_acl_access", "system.posix_acl_default",
                                        "security.capability", "trusted.y"};
    r->head.ino = ino_of(script);
    r->flags = script_u8(script);
    if (r->head.type == RECORD_SETATTR) {
        r->mode = r->flags & SET_MODE ? script_u16(script) & 07777 : 0;
        r->uid = r->flags & SET_UID ? script_u16(script) : 0;
        r->gid = r->flags & SET_GID ? script_u16(script) : 0;
        if (r->flags & SET_ATIME)
            r->atime = (struct file_time){(int64_t)script_number(script), script_u16(script)};
        if (r->flags & SET_MTIME)
            r->mtime = (struct file_time){(int64_t)script_number(script), script_u16(script)};
        if (r->flags & SET_ACL)
            r->value = script_bytes(script, script_below(script, 60));
    } else {
        const char *name = names[script_below(script, 6)];
        r->flags &= 3;
        r->name = (struct span){(const uint8_t *)name, (uint32_t)strlen(name)};
        r->mode = r->flags & XATTR_SET_MODE ? script_u16(script) & 07777 : 0;
        r->value = r->flags & XATTR_REMOVE ? (struct span){0} : script_bytes(script, script_below(script, 200));
    }
}

static uint64_t some_block(struct script *script) {
    return script_below(script, 4) ? script_u8(script) : script_number(script);
}

static void some_data(struct script *script, struct making *made) {
    struct record *r = &made->record;
    struct inode_row row = {0};
    r->head.ino = ino_of(script);
    inode_get(store, r->head.ino, &row);
    r->first = some_block(script);
    r->count = r->head.type == RECORD_WRITE || r->head.type == RECORD_TRUNCATE ? 0 : some_block(script);
    r->size = row.size;
    if (r->head.type == RECORD_WRITE) {
        r->head.blocks = 1 + script_below(script, 16);
        if (script_below(script, 2))
            r->size = MAX(row.size, (r->first + r->head.blocks) * BATON_BLOCK - script_below(script, BATON_BLOCK));
    } else if (r->head.type == RECORD_TRUNCATE) {
        r->size = script_below(script, 4) ? script_u16(script) * 100ull : script_below(script, 4) ? 0 : script_number(script);
        r->first = FILE_BLOCKS(r->size);
        r->last = script_below(script, 2) ? r->first + script_u8(script) : UINT64_MAX;
        if (r->size > row.size && script_below(script, 4))
            r->last = r->first;
        r->head.blocks = r->size % BATON_BLOCK ? script_below(script, 2) : 0;
        if (r->size == 0 && r->last == UINT64_MAX && script_below(script, 2))
            r->new_data = new_id(script);
    } else if (script_below(script, 2)) {
        r->size = script_below(script, 4) ? (r->first + r->count) * BATON_BLOCK : script_number(script);
    }
    uint32_t bytes = r->head.blocks * BATON_BLOCK, used = script_below(script, 65536) % (bytes + 1);
    memset(made->payload, 0, sizeof made->payload);
    memset(made->payload, script_u8(script), used);
    while (used && made->payload[used - 1] == 0)
        used--;
    r->head.payload = used;
    for (uint32_t i = 0; i < r->head.blocks; i++) {
        uint64_t sum = block_checksum(made->payload + (size_t)i * BATON_BLOCK);
        memcpy(made->sums + i * 8, &sum, sizeof sum);
    }
    r->checksums = (struct span){made->sums, r->head.blocks * 8};
}

static void some_reclaim(struct script *script, struct making *made) {
    made->record.step_count = 1 + script_below(script, 8);
    for (uint32_t i = 0; i < made->record.step_count; i++) {
        struct reclaim_step *step = &made->steps[i];
        *step = (struct reclaim_step){.kind = 1 + script_below(script, 4), .id = ino_of(script)};
        if (step->kind == RECLAIM_DROP) {
            step->ino = script_below(script, 4) ? step->id : script_below(script, 2) ? ino_of(script) : 0;
            step->from = script_below(script, 2) ? some_block(script) : 0;
            step->to = script_below(script, 2) ? step->from + some_block(script) : UINT64_MAX;
        }
    }
    made->record.steps = made->steps;
}

static void some_record(struct script *script, struct making *made) {
    struct record *r = &made->record;
    *r = (struct record){.head = {.type = (uint16_t)(1 + script_below(script, RECORD_TYPE_END - 1)), .lsn = at.lsn + 1,
                                  .epoch = at.epoch, .time = at.time + script_u16(script)}};
    store_lock(store);
    if (r->head.type <= RECORD_RENAME) {
        some_name(script, r);
    } else if (r->head.type == RECORD_SETATTR || r->head.type == RECORD_XATTR) {
        some_attributes(script, r);
    } else if (r->head.type == RECORD_RECLAIM) {
        some_reclaim(script, made);
    } else if (r->head.type == RECORD_EPOCH) {
        r->head.epoch = EPOCH_MAKE(EPOCH_COUNTER(at.epoch) + script_below(script, 3), 7 + script_below(script, 2));
        r->name = name_of(script);
    } else {
        some_data(script, made);
    }
    store_unlock(store);
}

/* ---- The run ---- */

static int offer(struct script *script, bool *new_state) {
    static struct making made;
    static uint8_t bytes[RECORD_LENGTH_MAX];
    store_position(store, &at);
    some_record(script, &made);
    int length = record_encode(&made.record, at.chain, bytes, sizeof bytes);
    if (length < 0)
        return length; /* not well formed */
    if (script_below(script, 8) == 7) { /* and damaged: the chain is right again */
        uint32_t where = (uint32_t)offsetof(struct record_head, payload) + script_below(script, 500) % ((uint32_t)length - 36);
        bytes[where] ^= script_u8(script);
        uint8_t chain[CHAIN_SIZE];
        record_chain(at.chain, bytes, (size_t)length, chain);
        memcpy(bytes + offsetof(struct record_head, chain), chain, CHAIN_SIZE);
    }
    uint8_t *copy = fuzz_copy(bytes, (size_t)length), *payload = fuzz_copy(made.payload, made.record.head.payload);
    int rc = store_receive(store, copy, (size_t)length, payload, made.record.head.payload);
    fuzz_free(copy, (size_t)length);
    fuzz_free(payload, made.record.head.payload);
    FUZZ_MUST(rc == 0 || rc == -EBADMSG || rc == -ESTALE || rc == -ENOSPC);
    *new_state = *new_state || rc == 0;
    return rc;
}

static void say(void *context, const char *sentence) {
    (void)context;
    fprintf(stderr, "finding: %s\n", sentence);
}

static bool one(const uint8_t *input, size_t length) {
    struct script script = {input, length};
    uint8_t flags = script_u8(&script);
    bool good = true, changed = false;
    char why[1200] = "";
    for (unsigned i = 0; i < RECORDS_MAX && script.left > 0; i++)
        good = offer(&script, &changed) == 0 && good;
    if (flags & CHECK) {
        store_close(store);
        FUZZ_MUST(check_store(folder, CHECK_DATA, say, NULL) == 0);
        open_store();
    }
    if (changed)
        FUZZ_MUST(store_undo(store, base.lsn) == 0);
    struct tables *after = tables_take(store, TABLES_EXACT);
    bool equal = tables_equal(before, after, why, sizeof why);
    tables_free(after);
    if (!equal)
        fprintf(stderr, "%s\n", why);
    FUZZ_MUST(equal);
    return good;
}

/* ---- Seeds ---- */

static void seeds(void) {
    static const uint8_t create[] = {CHECK, RECORD_CREATE - 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t setattr[] = {0, RECORD_SETATTR - 1, 0, 0, 0, SET_MODE, 0, 0};
    static const uint8_t epoch[] = {0, RECORD_EPOCH - 1, 0, 0, 1, 0, 0};
    fuzz_give("create", create, sizeof create);
    fuzz_give("setattr", setattr, sizeof setattr);
    fuzz_give("epoch", epoch, sizeof epoch);
}

const struct fuzz_harness fuzz_apply = {.name = "apply", .start = start, .one = one, .seeds = seeds};
