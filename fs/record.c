#include "fs/record.h"

#define XXH_STATIC_LINKING_ONLY
#include <sys/stat.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian; this host needs conversions");
_Static_assert(sizeof(struct record_head) == 64, "the head's form is part of the format");
_Static_assert(sizeof(struct file_time) == 12, "the time's form is part of the format");

/* The body of a record is its type's fields, one behind the other. One table serves encoding and decoding, so that the
 * two cannot differ. */
enum kind {
    KIND_U32,
    KIND_U64,
    KIND_TIME,
    KIND_NAME,      /* u8 length, bytes */
    KIND_BYTES,     /* u32 length, bytes */
    KIND_WHITEOUT,  /* u32, only in a rename that leaves a whiteout */
    KIND_CHECKSUMS, /* 8 bytes for each of head.blocks */
    KIND_STEPS      /* u32 count, steps */
};

struct field {
    enum kind kind;
    size_t offset;
};
#define FIELD(kind, member)                                                                                            \
    { kind, offsetof(struct record, member) }
#define FIELDS_MAX 10

static const struct type {
    const char *name;
    unsigned count;
    struct field fields[FIELDS_MAX];
} types[RECORD_TYPE_END] = {
    [RECORD_CREATE] = {"create",
                       10,
                       {FIELD(KIND_U64, parent), FIELD(KIND_U64, cookie), FIELD(KIND_U32, mode), FIELD(KIND_U32, uid),
                        FIELD(KIND_U32, gid), FIELD(KIND_U64, rdev), FIELD(KIND_U64, new_data), FIELD(KIND_NAME, name),
                        FIELD(KIND_BYTES, value), FIELD(KIND_BYTES, xattrs)}},
    [RECORD_LINK] = {"link", 3, {FIELD(KIND_U64, parent), FIELD(KIND_U64, cookie), FIELD(KIND_NAME, name)}},
    [RECORD_UNLINK] = {"unlink", 3, {FIELD(KIND_U64, parent), FIELD(KIND_U32, flags), FIELD(KIND_NAME, name)}},
    [RECORD_RENAME] = {"rename",
                       10,
                       {FIELD(KIND_U64, parent), FIELD(KIND_U64, new_parent), FIELD(KIND_U64, cookie),
                        FIELD(KIND_U64, old_cookie), FIELD(KIND_U64, victim), FIELD(KIND_U32, flags),
                        FIELD(KIND_NAME, name), FIELD(KIND_NAME, new_name), FIELD(KIND_WHITEOUT, uid),
                        FIELD(KIND_WHITEOUT, gid)}},
    [RECORD_SETATTR] = {"setattr",
                        7,
                        {FIELD(KIND_U32, flags), FIELD(KIND_U32, mode), FIELD(KIND_U32, uid), FIELD(KIND_U32, gid),
                         FIELD(KIND_TIME, atime), FIELD(KIND_TIME, mtime), FIELD(KIND_BYTES, value)}},
    [RECORD_WRITE] = {"write",
                      5,
                      {FIELD(KIND_U32, flags), FIELD(KIND_U32, mode), FIELD(KIND_U64, first), FIELD(KIND_U64, size),
                       FIELD(KIND_CHECKSUMS, checksums)}},
    [RECORD_TRUNCATE] = {"truncate",
                         7,
                         {FIELD(KIND_U32, flags), FIELD(KIND_U32, mode), FIELD(KIND_U64, first), FIELD(KIND_U64, last),
                          FIELD(KIND_U64, size), FIELD(KIND_U64, new_data), FIELD(KIND_CHECKSUMS, checksums)}},
    [RECORD_ALLOCATE] = {"allocate",
                         5,
                         {FIELD(KIND_U32, flags), FIELD(KIND_U32, mode), FIELD(KIND_U64, first), FIELD(KIND_U64, count),
                          FIELD(KIND_U64, size)}},
    [RECORD_PUNCH] = {"punch",
                      5,
                      {FIELD(KIND_U32, flags), FIELD(KIND_U32, mode), FIELD(KIND_U64, first), FIELD(KIND_U64, count),
                       FIELD(KIND_U64, size)}},
    [RECORD_XATTR] =
        {"xattr", 4, {FIELD(KIND_U32, flags), FIELD(KIND_U32, mode), FIELD(KIND_NAME, name), FIELD(KIND_BYTES, value)}},
    [RECORD_RECLAIM] = {"reclaim", 1, {FIELD(KIND_STEPS, steps)}},
    [RECORD_EPOCH] = {"epoch", 1, {FIELD(KIND_NAME, name)}},
};

const char *record_type_name(uint16_t type) {
    return type > 0 && type < RECORD_TYPE_END ? types[type].name : "unknown";
}

static bool leaves_whiteout(const struct record *r) {
    return r->head.type == RECORD_RENAME && r->flags & RENAME_LEFT_WHITEOUT;
}

uint64_t record_new_inode(const struct record *r) {
    return r->head.type == RECORD_CREATE ? r->head.ino : leaves_whiteout(r) ? r->old_cookie : 0;
}

/* ---- Checks: the same for what is made here and for what comes from outside ---- */

bool entry_name_is_valid(struct span name) {
    if (name.length == 0 || name.length > BATON_NAME_MAX)
        return false;
    if (memchr(name.data, '/', name.length) || memchr(name.data, 0, name.length))
        return false;
    return !(name.data[0] == '.' && (name.length == 1 || (name.length == 2 && name.data[1] == '.')));
}

bool xattr_name_is_valid(struct span name) {
    return name.length > 0 && name.length <= BATON_NAME_MAX && !memchr(name.data, 0, name.length);
}

static bool time_is_valid(const struct file_time *time) {
    return time->nanoseconds < 1000000000u;
}

static const char *check_create(const struct record *r) {
    uint32_t kind = r->mode & S_IFMT;
    struct span name, value;
    uint32_t at = 0;
    int more;

    if (r->mode & ~(uint32_t)(S_IFMT | 07777))
        return "a mode with unknown bits";
    if (kind != S_IFREG && kind != S_IFDIR && kind != S_IFLNK && kind != S_IFCHR && kind != S_IFBLK &&
        kind != S_IFIFO && kind != S_IFSOCK)
        return "an unknown kind of file";
    if (r->parent == 0 ? r->name.length != 0 || r->cookie != 0 || kind == S_IFDIR
                       : !entry_name_is_valid(r->name) || r->cookie == 0)
        return "a bad name";
    if (r->new_data != (kind == S_IFREG ? r->head.ino : 0))
        return "a bad data id"; /* a new file's is its inode number: new as that is */
    if (kind != S_IFCHR && kind != S_IFBLK && r->rdev != 0)
        return "a device number of what is no device";
    if (kind == S_IFLNK
            ? r->value.length == 0 || r->value.length > BATON_SYMLINK_MAX || memchr(r->value.data, 0, r->value.length)
            : r->value.length != 0)
        return "a bad symlink target";
    while ((more = xattr_unpack(&r->xattrs, &at, &name, &value)) == 1)
        ;
    return more < 0 ? "bad inherited attributes" : NULL;
}

static const char *check_link(const struct record *r) {
    return r->parent == 0 || r->cookie == 0 || !entry_name_is_valid(r->name) ? "a bad name" : NULL;
}

static const char *check_unlink(const struct record *r) {
    if (r->flags & ~UNLINK_RMDIR)
        return "unknown flags";
    return r->parent == 0 || !entry_name_is_valid(r->name) ? "a bad name" : NULL;
}

static const char *check_rename(const struct record *r) {
    if (r->flags & ~(RENAME_EXCHANGED | RENAME_LEFT_WHITEOUT) || r->flags == (RENAME_EXCHANGED | RENAME_LEFT_WHITEOUT))
        return "unknown flags";
    if (!leaves_whiteout(r) && (r->uid || r->gid))
        return "an owner of no whiteout";
    if (r->parent == 0 || r->new_parent == 0 || !entry_name_is_valid(r->name) || !entry_name_is_valid(r->new_name))
        return "a bad name";
    if (r->cookie == 0 || (r->flags != 0) != (r->old_cookie != 0))
        return "a bad cookie";
    if (r->flags & RENAME_EXCHANGED && r->victim == 0)
        return "an exchange with nothing";
    if (r->victim == r->head.ino)
        return "a rename onto itself";
    return NULL;
}

static const char *check_setattr(const struct record *r) {
    const uint32_t known =
        SET_MODE | SET_UID | SET_GID | SET_ATIME | SET_MTIME | SET_KEEP_CTIME | SET_ACL | SET_NO_CAPABILITY;
    if (r->flags & ~known)
        return "unknown flags";
    if (r->flags & SET_MODE ? r->mode & ~07777u : r->mode != 0)
        return "a bad mode";
    if ((!(r->flags & SET_UID) && r->uid) || (!(r->flags & SET_GID) && r->gid))
        return "an owner that is not set";
    if (!time_is_valid(&r->atime) || !time_is_valid(&r->mtime))
        return "a time with more than a second of nanoseconds";
    if ((!(r->flags & SET_ATIME) && (r->atime.seconds || r->atime.nanoseconds)) ||
        (!(r->flags & SET_MTIME) && (r->mtime.seconds || r->mtime.nanoseconds)))
        return "a time that is not set";
    if (r->value.length > BATON_XATTR_VALUE_MAX || (r->value.length && !(r->flags & SET_ACL)))
        return "a bad access control list";
    return NULL;
}

static const char *check_data_flags(const struct record *r) {
    if (r->flags & ~(WRITE_SET_MODE | WRITE_NO_CAPABILITY))
        return "unknown flags";
    if (r->flags & WRITE_SET_MODE ? r->mode & ~07777u : r->mode != 0)
        return "a bad mode";
    return r->size > FILE_SIZE_MAX ? "a size above the limit" : NULL;
}

static const char *check_write(const struct record *r) {
    const char *why = check_data_flags(r);
    if (why)
        return why;
    if (r->head.blocks == 0)
        return "a write without blocks";
    if (r->first > FILE_BLOCKS_MAX || r->first + r->head.blocks > FILE_BLOCKS(r->size))
        return "a write beyond the file's end";
    return NULL;
}

static const char *check_truncate(const struct record *r) {
    const char *why = check_data_flags(r);
    if (why)
        return why;
    if (r->first != FILE_BLOCKS(r->size) || r->last < r->first || (r->last > FILE_BLOCKS_MAX && r->last != UINT64_MAX))
        return "a bad range";
    if (r->head.blocks > 1 || (r->head.blocks == 1 && r->size % BATON_BLOCK == 0))
        return "a last block that is not one";
    if (r->new_data && (r->size || r->last != UINT64_MAX))
        return "a new data id for a file that keeps data";
    return NULL;
}

static const char *check_range(const struct record *r) {
    const char *why = check_data_flags(r);
    if (why)
        return why;
    if (r->count == 0 || r->first > FILE_BLOCKS_MAX || r->count > FILE_BLOCKS_MAX - r->first)
        return "a bad range";
    return NULL;
}

static const char *check_xattr(const struct record *r) {
    if (r->flags & ~(XATTR_REMOVE | XATTR_SET_MODE))
        return "unknown flags";
    if (!xattr_name_is_valid(r->name))
        return "a bad attribute name";
    if (r->flags & XATTR_SET_MODE ? r->mode & ~07777u : r->mode != 0)
        return "a bad mode";
    if (r->value.length > BATON_XATTR_VALUE_MAX || (r->value.length && r->flags & XATTR_REMOVE))
        return "a bad attribute value";
    return NULL;
}

static const char *check_step(const struct reclaim_step *step) {
    if (step->kind < RECLAIM_DROP || step->kind > RECLAIM_TRIM || step->id == 0)
        return "an unknown step";
    if (step->kind != RECLAIM_DROP)
        return step->ino || step->from || step->to ? "a step with a range that it does not take" : NULL;
    return step->from >= step->to ? "a step with an empty range" : NULL;
}

static const char *check_reclaim(const struct record *r) {
    if (r->step_count == 0 || r->step_count > RECORD_RECLAIM_MAX)
        return "too few or too many steps";
    for (uint32_t i = 0; i < r->step_count; i++) {
        const char *why = check_step(&r->steps[i]);
        if (why)
            return why;
    }
    return NULL;
}

static const char *check_epoch(const struct record *r) {
    if (r->head.ino != 0 || r->name.length == 0 || r->name.length > 63 || memchr(r->name.data, 0, r->name.length))
        return "a bad node name";
    return NULL;
}

static const char *check_record(const struct record *r) {
    static const char *(*const checks[RECORD_TYPE_END])(const struct record *) = {
        [RECORD_CREATE] = check_create,     [RECORD_LINK] = check_link,       [RECORD_UNLINK] = check_unlink,
        [RECORD_RENAME] = check_rename,     [RECORD_SETATTR] = check_setattr, [RECORD_WRITE] = check_write,
        [RECORD_TRUNCATE] = check_truncate, [RECORD_ALLOCATE] = check_range,  [RECORD_PUNCH] = check_range,
        [RECORD_XATTR] = check_xattr,       [RECORD_RECLAIM] = check_reclaim, [RECORD_EPOCH] = check_epoch,
    };
    const struct record_head *head = &r->head;

    if (head->type == 0 || head->type >= RECORD_TYPE_END)
        return "an unknown type";
    if (head->flags)
        return "unknown flags";
    if (head->time < 0)
        return "a time before 1970";
    if (head->lsn == 0 || EPOCH_COUNTER(head->epoch) == 0 || EPOCH_COUNTER(head->epoch) > EPOCH_COUNTER_MAX)
        return "an impossible LSN or epoch";
    if ((head->ino == 0) != (head->type == RECORD_EPOCH || head->type == RECORD_RECLAIM))
        return "a bad inode number";
    if (head->blocks > RECORD_BLOCKS_MAX || head->payload > head->blocks * BATON_BLOCK)
        return "a payload beyond the limit";
    if (head->blocks && head->type != RECORD_WRITE && head->type != RECORD_TRUNCATE)
        return "a payload of a type that has none";
    return checks[head->type](r);
}

/* ---- Encoding ---- */

struct writer {
    uint8_t *at;
    size_t left;
    bool full;
};

static void put(struct writer *w, const void *bytes, size_t length) {
    if (length > w->left) {
        w->full = true;
        return;
    }
    if (length)
        memcpy(w->at, bytes, length);
    w->at += length;
    w->left -= length;
}

static void put_steps(struct writer *w, const struct record *r) {
    put(w, &r->step_count, 4);
    for (uint32_t i = 0; i < r->step_count; i++) {
        const struct reclaim_step *step = &r->steps[i];
        put(w, &step->kind, 4);
        put(w, &step->id, 8);
        put(w, &step->ino, 8);
        put(w, &step->from, 8);
        put(w, &step->to, 8);
    }
}

static void put_field(struct writer *w, const struct record *r, const struct field *field) {
    const void *member = (const uint8_t *)r + field->offset;
    const struct span *span = member;
    uint8_t short_length;

    switch (field->kind) {
    case KIND_U32:
        put(w, member, 4);
        break;
    case KIND_U64:
        put(w, member, 8);
        break;
    case KIND_WHITEOUT:
        if (leaves_whiteout(r))
            put(w, member, 4);
        break;
    case KIND_TIME:
        put(w, member, sizeof(struct file_time));
        break;
    case KIND_NAME:
        short_length = (uint8_t)span->length;
        put(w, &short_length, 1);
        put(w, span->data, span->length);
        break;
    case KIND_BYTES:
        put(w, &span->length, 4);
        put(w, span->data, span->length);
        break;
    case KIND_CHECKSUMS:
        put(w, span->data, span->length);
        break;
    case KIND_STEPS:
        put_steps(w, r);
        break;
    }
}

int record_encode(struct record *record, const uint8_t chain[CHAIN_SIZE], uint8_t *buffer, size_t room) {
    struct writer w = {buffer, MIN(room, RECORD_LENGTH_MAX), false};
    struct record_head *head = &record->head;

    memset(head->chain, 0, CHAIN_SIZE);
    if (check_record(record) || record->checksums.length != head->blocks * 8)
        return -EINVAL;
    put(&w, head, sizeof *head);
    const struct type *type = &types[head->type];
    for (unsigned i = 0; i < type->count; i++)
        put_field(&w, record, &type->fields[i]);
    if (w.full)
        return -E2BIG;
    head->length = (uint32_t)(w.at - buffer);
    memcpy(buffer, head, sizeof *head);
    record_chain(chain, buffer, head->length, head->chain);
    memcpy(buffer + offsetof(struct record_head, chain), head->chain, CHAIN_SIZE);
    return (int)head->length;
}

/* ---- Decoding: the bytes may be anything ---- */

struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct reader *in, size_t length) {
    if (in->bad || length > in->left) {
        in->bad = true;
        return NULL;
    }
    const uint8_t *at = in->at;
    in->at += length;
    in->left -= length;
    return at;
}

static void take_into(struct reader *in, void *to, size_t length) {
    const uint8_t *from = take(in, length);
    if (from)
        memcpy(to, from, length);
}

static void take_span(struct reader *in, struct span *span, uint32_t length) {
    span->data = take(in, length);
    span->length = span->data ? length : 0;
}

static int take_steps(struct reader *in, struct record *r) {
    uint32_t count = 0;

    take_into(in, &count, 4);
    if (in->bad || count == 0 || count > RECORD_RECLAIM_MAX) {
        in->bad = true;
        return 0;
    }
    r->step_room = calloc(count, sizeof *r->step_room);
    if (!r->step_room)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct reclaim_step *step = &r->step_room[i];
        take_into(in, &step->kind, 4);
        take_into(in, &step->id, 8);
        take_into(in, &step->ino, 8);
        take_into(in, &step->from, 8);
        take_into(in, &step->to, 8);
    }
    r->steps = r->step_room;
    r->step_count = count;
    return 0;
}

static int take_field(struct reader *in, struct record *r, const struct field *field) {
    void *member = (uint8_t *)r + field->offset;
    uint8_t short_length = 0;
    uint32_t length = 0;

    switch (field->kind) {
    case KIND_U32:
        take_into(in, member, 4);
        break;
    case KIND_U64:
        take_into(in, member, 8);
        break;
    case KIND_WHITEOUT:
        if (leaves_whiteout(r))
            take_into(in, member, 4);
        break;
    case KIND_TIME:
        take_into(in, member, sizeof(struct file_time));
        break;
    case KIND_NAME:
        take_into(in, &short_length, 1);
        take_span(in, member, short_length);
        break;
    case KIND_BYTES:
        take_into(in, &length, 4);
        take_span(in, member, length);
        break;
    case KIND_CHECKSUMS:
        if (r->head.blocks > RECORD_BLOCKS_MAX)
            in->bad = true;
        take_span(in, member, in->bad ? 0 : r->head.blocks * 8);
        break;
    case KIND_STEPS:
        return take_steps(in, r);
    }
    return 0;
}

int record_decode(const void *bytes, size_t length, struct record *record, const char **why) {
    struct reader in = {bytes, length, false};
    const char *unused;
    int error = 0;

    if (!why)
        why = &unused;
    *why = NULL;
    memset(record, 0, sizeof *record);
    take_into(&in, &record->head, sizeof record->head);
    if (in.bad || length > RECORD_LENGTH_MAX || record->head.length != length)
        *why = "a length that does not fit";
    if (*why)
        return -EBADMSG;
    if (record->head.type == 0 || record->head.type >= RECORD_TYPE_END) {
        *why = "an unknown type";
        return record->head.type ? -EPROTONOSUPPORT : -EBADMSG;
    }
    const struct type *type = &types[record->head.type];
    for (unsigned i = 0; i < type->count && !error; i++)
        error = take_field(&in, record, &type->fields[i]);
    if (error)
        *why = "no memory";
    else if (in.bad)
        *why = "it ends in the middle of a field";
    else if (in.left)
        *why = "bytes behind its end";
    else
        *why = check_record(record);
    if (!*why)
        return 0;
    record_release(record);
    return error ? error : -EBADMSG;
}

void record_release(struct record *record) {
    free(record->step_room);
    record->step_room = NULL;
    record->steps = NULL;
    record->step_count = 0;
}

/* ---- Chain and checksums ---- */

void record_chain(const uint8_t previous[CHAIN_SIZE], const void *bytes, size_t length, uint8_t chain[CHAIN_SIZE]) {
    static const uint8_t zero[CHAIN_SIZE];
    const size_t at = offsetof(struct record_head, chain);
    XXH3_state_t state;
    XXH128_canonical_t canonical;

    PROMISE(length >= sizeof(struct record_head));
    XXH3_INITSTATE(&state);
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, previous, CHAIN_SIZE);
    XXH3_128bits_update(&state, bytes, at);
    XXH3_128bits_update(&state, zero, CHAIN_SIZE);
    XXH3_128bits_update(&state, (const uint8_t *)bytes + at + CHAIN_SIZE, length - at - CHAIN_SIZE);
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(chain, canonical.digest, CHAIN_SIZE);
}

uint64_t block_checksum(const void *block) {
    return XXH3_64bits(block, BATON_BLOCK);
}

uint64_t block_checksum_part(const void *bytes, size_t length) {
    uint8_t block[BATON_BLOCK];

    PROMISE(length <= BATON_BLOCK);
    if (length == BATON_BLOCK)
        return block_checksum(bytes);
    if (length)
        memcpy(block, bytes, length);
    memset(block + length, 0, BATON_BLOCK - length);
    return block_checksum(block);
}

int record_check_payload(const struct record *record, const void *payload, size_t length) {
    if (length != record->head.payload || record->checksums.length != record->head.blocks * 8)
        return -EBADMSG;
    const uint8_t *at = payload;
    for (uint32_t i = 0; i < record->head.blocks; i++) {
        size_t here = MIN(length, BATON_BLOCK);
        uint64_t expected;
        memcpy(&expected, record->checksums.data + i * 8, 8);
        if (block_checksum_part(at, here) != expected)
            return -EBADMSG;
        at += here;
        length -= here;
    }
    return 0;
}

/* ---- Inherited attributes ---- */

size_t xattr_pack(uint8_t *to, size_t room, const char *name, const void *value, size_t length) {
    size_t name_length = strlen(name);

    PROMISE(name_length <= BATON_NAME_MAX && length <= BATON_XATTR_VALUE_MAX);
    uint16_t n = (uint16_t)name_length;
    uint32_t v = (uint32_t)length;
    size_t all = 2 + 4 + name_length + length;
    if (all > room)
        return 0;
    memcpy(to, &n, 2);
    memcpy(to + 2, &v, 4);
    memcpy(to + 6, name, name_length);
    if (length)
        memcpy(to + 6 + name_length, value, length);
    return all;
}

int xattr_unpack(const struct span *packed, uint32_t *at, struct span *name, struct span *value) {
    uint16_t n;
    uint32_t v;

    if (*at == packed->length)
        return 0;
    if (*at > packed->length || packed->length - *at < 6)
        return -EBADMSG;
    memcpy(&n, packed->data + *at, 2);
    memcpy(&v, packed->data + *at + 2, 4);
    uint32_t left = packed->length - *at - 6;
    if (n > left || v > left - n || v > BATON_XATTR_VALUE_MAX)
        return -EBADMSG;
    *name = (struct span){packed->data + *at + 6, n};
    *value = (struct span){name->data + n, v};
    if (!xattr_name_is_valid(*name))
        return -EBADMSG;
    *at += 6u + n + v;
    return 1;
}
