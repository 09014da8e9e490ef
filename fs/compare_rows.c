/* What differs between the rows of two nodes, in words. */
#include "fs/compare.h"
#include "fs/extent.h"
#include "fs/journal_text.h"
#include "fs/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct side {
    const struct row_source *source;
    struct span key, value;
    bool there; /* there is a row */
    struct extent extent; /* of the map: what is left of it */
};

struct comparing {
    enum table table;
    struct side here, other;
    int (*found)(void *context, const struct difference *difference);
    void *context;
    struct difference difference;
};

/* ---- Text ---- */

static void say(struct difference *difference, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct difference *difference, const char *format, ...) {
    size_t used = strlen(difference->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(difference->text + used, sizeof difference->text - used, format, arguments);
    va_end(arguments);
}

static const char *comma(const struct difference *difference) {
    return difference->text[0] ? "; " : "";
}

static void say_number(struct comparing *c, const char *what, uint64_t here, uint64_t other) {
    if (here != other)
        say(&c->difference, "%s%s %" PRIu64 " on %s, %" PRIu64 " on %s", comma(&c->difference), what, here,
            c->here.source->node, other, c->other.source->node);
}

static void say_time(struct comparing *c, const char *what, struct file_time here, struct file_time other) {
    char a[64], b[64];
    if (file_time_compare(here, other) == 0)
        return;
    time_text(here, a, sizeof a);
    time_text(other, b, sizeof b);
    say(&c->difference, "%s%s %s on %s, %s on %s", comma(&c->difference), what, a, c->here.source->node, b,
        c->other.source->node);
}

/* ---- Tables ---- */

static int say_inode(struct comparing *c) {
    struct inode_row a, b;
    if (c->here.value.length < sizeof a || c->other.value.length < sizeof b)
        return -EBADMSG;
    memcpy(&a, c->here.value.data, sizeof a);
    memcpy(&b, c->other.value.data, sizeof b);
    if (a.mode != b.mode)
        say(&c->difference, "mode %06o on %s, %06o on %s", a.mode, c->here.source->node, b.mode, c->other.source->node);
    say_number(c, "owner", a.uid, b.uid);
    say_number(c, "group", a.gid, b.gid);
    say_number(c, "links", a.nlink, b.nlink);
    say_number(c, "size", a.size, b.size);
    say_number(c, "blocks", a.blocks, b.blocks);
    say_number(c, "device", a.rdev, b.rdev);
    say_number(c, "data id", a.data, b.data);
    say_number(c, "directory", a.parent, b.parent);
    say_number(c, "pending trim", a.trim, b.trim);
    say_number(c, "flags", a.flags, b.flags);
    say_number(c, "attributes", a.xattrs, b.xattrs);
    say_time(c, "atime", a.atime, b.atime);
    say_time(c, "mtime", a.mtime, b.mtime);
    say_time(c, "ctime", a.ctime, b.ctime);
    say_time(c, "made", a.btime, b.btime);
    struct span target = {c->here.value.data + sizeof a, c->here.value.length - (uint32_t)sizeof a},
                other = {c->other.value.data + sizeof b, c->other.value.length - (uint32_t)sizeof b};
    if (target.length != other.length || memcmp(target.data, other.data, target.length) != 0)
        say(&c->difference, "%sanother target of the symbolic link", comma(&c->difference));
    return 0;
}

static int say_entry(struct comparing *c) {
    struct dirent_row a, b;
    if (c->here.value.length != sizeof a || c->other.value.length != sizeof b)
        return -EBADMSG;
    memcpy(&a, c->here.value.data, sizeof a);
    memcpy(&b, c->other.value.data, sizeof b);
    say_number(c, "the name's inode", a.ino, b.ino);
    say_number(c, "the name's cookie", a.cookie, b.cookie);
    if (a.type != b.type)
        say(&c->difference, "%sthe name's type %06o on %s, %06o on %s", comma(&c->difference), a.type,
            c->here.source->node, b.type, c->other.source->node);
    return 0;
}

static int say_epoch(struct comparing *c) {
    struct epoch_row a, b;
    if (c->here.value.length != sizeof a || c->other.value.length != sizeof b)
        return -EBADMSG;
    memcpy(&a, c->here.value.data, sizeof a);
    memcpy(&b, c->other.value.data, sizeof b);
    say_number(c, "begins at record", a.first, b.first);
    if (memcmp(a.chain, b.chain, CHAIN_SIZE) != 0)
        say(&c->difference, "%sanother chain value", comma(&c->difference));
    return 0;
}

/* Whose row it is. */
static int say_whose(struct comparing *c, const struct side *side) {
    struct difference *difference = &c->difference;
    struct span key = side->key;
    struct dircookie_row cookie;
    struct dirent_row entry;
    struct orphan_row orphan;
    char name[4 * BATON_NAME_MAX + 1];
    uint64_t prefix = key.length >= 8 ? be64_get(key.data) : 0;
    switch (c->table) {
    case TABLE_INODE:
        difference->ino = prefix;
        return key.length == 8 ? 0 : -EBADMSG;
    case TABLE_DIRENT:
        if (key.length <= 8 || key.length > 8 + BATON_NAME_MAX || side->value.length != sizeof entry)
            return -EBADMSG;
        difference->ino = prefix;
        difference->entry = key_u64_name(prefix, key.data + 8, key.length - 8);
        if (c->other.there && difference->differs != DIFFERS_HERE) {
            if (c->other.value.length != sizeof entry)
                return -EBADMSG;
            memcpy(&entry, c->other.value.data, sizeof entry);
            difference->there = entry.ino;
        }
        if (difference->differs != DIFFERS_BOTH)
            say(difference, "the name");
        return 0;
    case TABLE_DIRCOOKIE:
        if (key.length != 16 || side->value.length <= sizeof cookie ||
            side->value.length > sizeof cookie + BATON_NAME_MAX)
            return -EBADMSG;
        difference->ino = prefix;
        difference->entry =
            key_u64_name(prefix, side->value.data + sizeof cookie, side->value.length - sizeof cookie);
        say(difference, "the place %" PRIu64 " in its directory", be64_get(key.data + 8));
        return 0;
    case TABLE_XATTR:
        if (key.length <= 8)
            return -EBADMSG;
        difference->ino = prefix;
        text_escape(key.data + 8, key.length - 8, name, sizeof name);
        say(difference, "attribute %.200s", name);
        return 0;
    case TABLE_ORPHAN:
        if (key.length != 9 || side->value.length != sizeof orphan)
            return -EBADMSG;
        memcpy(&orphan, side->value.data, sizeof orphan);
        difference->ino = key.data[0] == ORPHAN_INODE ? be64_get(key.data + 1) : orphan.ino;
        say(difference, "%s", key.data[0] == ORPHAN_INODE ? "the note that it is unlinked"
                                                          : "the note that blocks are to be freed");
        return 0;
    default: /* the map has a way of its own */
        say(difference, "epoch %" PRIu64 ".%u", EPOCH_COUNTER(prefix), EPOCH_NODE(prefix));
        return key.length == 8 ? 0 : -EBADMSG;
    }
}

static int say_both(struct comparing *c) {
    switch (c->table) {
    case TABLE_INODE:
        return say_inode(c);
    case TABLE_DIRENT:
        return say_entry(c);
    case TABLE_EPOCH:
        return say_epoch(c);
    case TABLE_XATTR:
        say(&c->difference, ": %" PRIu32 " bytes on %s, %" PRIu32 " bytes on %s, not the same", c->here.value.length,
            c->here.source->node, c->other.value.length, c->other.source->node);
        return 0;
    default:
        say(&c->difference, ": not the same on both");
        return 0;
    }
}

static int report(struct comparing *c, enum differs differs) {
    struct difference *difference = &c->difference;
    const struct side *side = differs == DIFFERS_THERE ? &c->other : &c->here;
    *difference = (struct difference){.table = c->table, .differs = differs};
    int rc = say_whose(c, side);
    if (rc)
        return rc;
    if (differs == DIFFERS_BOTH)
        rc = say_both(c);
    else
        say(difference, "%sonly on %s", difference->text[0] ? " is " : "", side->source->node);
    text_mend(difference->text); /* a name may have been cut */
    return rc ? rc : c->found(c->context, difference);
}

static int take(struct side *side) {
    int rc = side->source->next(side->source->context, &side->key, &side->value);
    side->there = rc == 1;
    return rc < 0 ? rc : 0;
}

static int compare_rows(struct comparing *c) {
    int rc = take(&c->here);
    if (rc == 0)
        rc = take(&c->other);
    while (rc == 0 && (c->here.there || c->other.there)) {
        struct span a = c->here.key, b = c->other.key;
        int order = !c->other.there ? -1 : !c->here.there ? 1 : memcmp(a.data, b.data, MIN(a.length, b.length));
        if (order == 0)
            order = (a.length > b.length) - (a.length < b.length);
        bool same = order == 0 && c->here.value.length == c->other.value.length &&
                    memcmp(c->here.value.data, c->other.value.data, c->here.value.length) == 0;
        if (!same)
            rc = report(c, order < 0 ? DIFFERS_HERE : order > 0 ? DIFFERS_THERE : DIFFERS_BOTH);
        if (rc == 0 && order <= 0)
            rc = take(&c->here);
        if (rc == 0 && order >= 0)
            rc = take(&c->other);
    }
    return rc;
}

/* ---- The map ---- */

enum content { CONTENT_HOLE, CONTENT_UNWRITTEN, CONTENT_DATA };
static const char *const content_names[] = {"a hole", "unwritten", "data"};

static int take_piece(struct side *side) {
    int rc = take(side);
    if (rc == 0 && side->there && extent_parse(side->key, side->value, &side->extent))
        rc = -EBADMSG;
    return rc;
}

static enum content content_of(const struct side *side) {
    return side->extent.checksums ? CONTENT_DATA : CONTENT_UNWRITTEN;
}

/* So many blocks of the piece have been looked at. */
static int advance(struct side *side, uint32_t blocks) {
    struct extent *extent = &side->extent;
    extent->first += blocks;
    extent->place.count -= blocks;
    if (extent->checksums)
        extent->checksums += (size_t)blocks * 8;
    return extent->place.count ? 0 : take_piece(side);
}

static int report_blocks(struct comparing *c, uint64_t data, uint64_t first, uint64_t count, enum content here,
                         enum content other) {
    struct difference *difference = &c->difference;
    *difference = (struct difference){.table = TABLE_EXTENT, .differs = DIFFERS_BOTH, .data = data, .first = first,
                                      .count = count};
    if (count == 1)
        say(difference, "block %" PRIu64 ": ", first);
    else
        say(difference, "blocks %" PRIu64 " to %" PRIu64 ": ", first, first + count - 1);
    if (here == other)
        say(difference, "other content (checksums differ)");
    else
        say(difference, "%s on %s, %s on %s", content_names[here], c->here.source->node, content_names[other],
            c->other.source->node);
    return c->found(c->context, difference);
}

/* Both have blocks here, `count` of one kind each. */
static int compare_blocks(struct comparing *c, uint32_t count) {
    const struct extent *a = &c->here.extent, *b = &c->other.extent;
    enum content here = content_of(&c->here), other = content_of(&c->other);
    if (here != other)
        return report_blocks(c, a->data, a->first, count, here, other);
    for (uint32_t i = 0, end; here == CONTENT_DATA && i < count; i = end + 1) {
        uint32_t from = i;
        while (from < count && memcmp(a->checksums + from * 8ull, b->checksums + from * 8ull, 8) == 0)
            from++;
        for (end = from; end < count && memcmp(a->checksums + end * 8ull, b->checksums + end * 8ull, 8) != 0;)
            end++;
        int rc = end > from ? report_blocks(c, a->data, a->first + from, end - from, here, other) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* Blocks of `side` up to where the other one begins, which has a hole there. 0: there are none. */
static uint32_t alone(const struct side *side, const struct side *other) {
    const struct extent *a = &side->extent, *b = &other->extent;
    if (!side->there)
        return 0;
    if (!other->there || a->data < b->data)
        return a->place.count;
    if (a->data > b->data || a->first >= b->first)
        return 0;
    return (uint32_t)MIN(b->first - a->first, a->place.count);
}

static int compare_map(struct comparing *c) {
    struct side *here = &c->here, *other = &c->other;
    int rc = take_piece(here);
    if (rc == 0)
        rc = take_piece(other);
    while (rc == 0 && (here->there || other->there)) {
        uint32_t count;
        if ((count = alone(here, other))) {
            rc = report_blocks(c, here->extent.data, here->extent.first, count, content_of(here), CONTENT_HOLE);
            rc = rc ? rc : advance(here, count);
        } else if ((count = alone(other, here))) {
            rc = report_blocks(c, other->extent.data, other->extent.first, count, CONTENT_HOLE, content_of(other));
            rc = rc ? rc : advance(other, count);
        } else { /* side by side */
            count = MIN(here->extent.place.count, other->extent.place.count);
            rc = compare_blocks(c, count);
            rc = rc ? rc : advance(here, count);
            rc = rc ? rc : advance(other, count);
        }
    }
    return rc;
}

int rows_compare(enum table table, const struct row_source *here, const struct row_source *there,
                 int (*found)(void *context, const struct difference *difference), void *context) {
    struct comparing c = {
        .table = table, .here.source = here, .other.source = there, .found = found, .context = context};
    return table == TABLE_EXTENT ? compare_map(&c) : compare_rows(&c);
}
