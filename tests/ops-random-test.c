/* Tens of thousands of random operations against a model in memory: every answer is the model's, the tree is the
 * model's, undo to a random earlier point gives the bit-equal tables of that point, a past of such a point (fs/history.h)
 * shows them and all contents while operations go on, and a second store that is fed the same records says the same. BATON_STEPS: how many operations (20000). */
#include "fs/check.h"
#include "fs/history.h"
#include "fs/ops_parts.h"
#include "tests/fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#define RENAME_WHITEOUT 4u
#endif

#define NODES 64
#define NAMES 10
#define XATTRS 5
#define FILE_MAX (300u * 1024)
#define SAVES 4

struct mxattr {
    bool set;
    uint32_t length;
    uint8_t fill;
};

struct mnode {
    bool used;
    uint64_t ino;
    uint32_t mode, uid, gid, nlink;
    int parent; /* of a directory */
    uint64_t size;
    uint8_t *data; /* a file's, FILE_MAX bytes */
    struct mxattr xattrs[XATTRS];
    int entries[NAMES]; /* a directory's: node + 1, 0 for none */
};

struct model {
    struct mnode nodes[NODES];
};

static struct model now;
static struct store *store, *mirror;
static uint64_t seed;
static unsigned counter = 1, mismatches, step_number;

static const char *const xattr_names[XATTRS] = {"user.a", "user.b", "trusted.c", "security.capability", "user.long"};

static uint64_t below(uint64_t n) {
    return test_random(&seed) % n;
}

static void name_text(int name, char text[300]) {
    if (name == 0) {
        memset(text, 'n', 255);
        text[255] = 0;
    } else {
        snprintf(text, 300, "name-%d", name);
    }
}

static void expect(int expected, int64_t seen, const char *what) {
    if (expected == seen)
        return;
    if (mismatches++ < 20)
        diag("step %u: %s: expected %d, saw %lld", step_number, what, expected, (long long)seen);
}

/* ---- the model ---- */

static void node_free(struct mnode *node) {
    free(node->data);
    memset(node, 0, sizeof *node);
}

static void model_copy(struct model *to, const struct model *from) {
    for (int i = 0; i < NODES; i++) {
        free(to->nodes[i].data);
        to->nodes[i] = from->nodes[i];
        if (from->nodes[i].data) {
            to->nodes[i].data = malloc(FILE_MAX);
            memcpy(to->nodes[i].data, from->nodes[i].data, FILE_MAX);
        }
    }
}

static int free_node(void) {
    for (int i = 1; i < NODES; i++)
        if (!now.nodes[i].used)
            return i;
    return -1;
}

static bool is_dir(int node) {
    return S_ISDIR(now.nodes[node].mode);
}

static int pick(bool (*fits)(int)) {
    int start = (int)below(NODES);
    for (int i = 0; i < NODES; i++) {
        int node = (start + i) % NODES;
        if (now.nodes[node].used && fits(node))
            return node;
    }
    return -1;
}

static bool live_dir(int node) {
    return is_dir(node) && now.nodes[node].nlink > 0;
}

static bool any(int node) {
    (void)node;
    return true;
}

static bool file(int node) {
    return S_ISREG(now.nodes[node].mode);
}

static bool empty(int node) {
    for (int i = 0; i < NAMES; i++)
        if (now.nodes[node].entries[i])
            return false;
    return true;
}

static int entry(int dir, int name) {
    return now.nodes[dir].entries[name] - 1;
}

static void lose_link(int node) {
    now.nodes[node].nlink = is_dir(node) ? 0 : now.nodes[node].nlink - 1;
}

static bool inside(int node, int top) {
    while (node != top && node != 0)
        node = now.nodes[node].parent;
    return node == top;
}

/* ---- operations on both ---- */

static void new_node(int at, const struct attributes *out, int parent) {
    struct mnode *node = &now.nodes[at];
    memset(node, 0, sizeof *node);
    node->used = true;
    node->ino = out->ino;
    node->mode = out->row.mode;
    node->nlink = S_ISDIR(node->mode) ? 2 : 1;
    node->parent = parent;
    if (S_ISREG(node->mode))
        node->data = calloc(1, FILE_MAX);
}

static void do_create(void) {
    static const uint32_t kinds[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO};
    int dir = pick(is_dir), name = (int)below(NAMES), at = free_node();
    uint32_t kind = kinds[below(7)];
    struct attributes out;
    uint64_t lsn;
    char text[300];
    if (at < 0)
        return;
    name_text(name, text);
    int expected = now.nodes[dir].nlink == 0 ? -ENOENT : entry(dir, name) >= 0 ? -EEXIST : 0;
    int error = op_create(store, &root_caller, now.nodes[dir].ino, text, kind | 0644, 0, "some/where", &out, &lsn);
    expect(expected, error, "create");
    if (error)
        return;
    new_node(at, &out, dir);
    now.nodes[dir].entries[name] = at + 1;
    now.nodes[dir].nlink += kind == S_IFDIR;
}

static void do_tmpfile(void) {
    int dir = pick(live_dir), at = free_node();
    struct attributes out;
    uint64_t lsn;
    if (at < 0)
        return;
    int error = op_tmpfile(store, &root_caller, now.nodes[dir].ino, 0600, &out, &lsn);
    expect(0, error, "tmpfile");
    if (error)
        return;
    new_node(at, &out, dir);
    now.nodes[at].nlink = 0;
}

static void do_link(void) {
    int node = pick(any), dir = pick(is_dir), name = (int)below(NAMES);
    struct attributes out;
    uint64_t lsn;
    char text[300];
    name_text(name, text);
    int expected = is_dir(node) ? -EPERM : now.nodes[dir].nlink == 0 ? -ENOENT : entry(dir, name) >= 0 ? -EEXIST : 0;
    int error = op_link(store, now.nodes[node].ino, now.nodes[dir].ino, text, &out, &lsn);
    expect(expected, error, "link");
    if (error)
        return;
    now.nodes[dir].entries[name] = node + 1;
    now.nodes[node].nlink++;
    expect((int)now.nodes[node].nlink, out.row.nlink, "links after link");
}

static void do_unlink(void) {
    int dir = pick(is_dir), name = (int)below(NAMES), node = entry(dir, name);
    bool as_dir = node >= 0 && below(10) ? is_dir(node) : below(2) != 0;
    uint64_t ino, lsn;
    uint32_t left = 0;
    char text[300];
    name_text(name, text);
    int expected = node < 0                  ? -ENOENT
                   : as_dir && !is_dir(node) ? -ENOTDIR
                   : as_dir && !empty(node)  ? -ENOTEMPTY
                   : !as_dir && is_dir(node) ? -EISDIR
                                             : 0;
    int error = as_dir ? op_rmdir(store, now.nodes[dir].ino, text, &ino, &lsn)
                       : op_unlink(store, now.nodes[dir].ino, text, &ino, &left, &lsn);
    expect(expected, error, as_dir ? "rmdir" : "unlink");
    if (error)
        return;
    now.nodes[dir].entries[name] = 0;
    now.nodes[dir].nlink -= is_dir(node);
    lose_link(node);
    expect((int)now.nodes[node].nlink, left, "links left");
}

static int expect_rename(int dir, int node, int to, int victim, unsigned flags) {
    if (now.nodes[to].nlink == 0 || node < 0)
        return -ENOENT;
    if (victim < 0 && flags & RENAME_EXCHANGE)
        return -ENOENT;
    if (victim >= 0 && flags & RENAME_NOREPLACE)
        return -EEXIST;
    if (dir != to && is_dir(node) && inside(to, node))
        return -EINVAL;
    if (flags & RENAME_EXCHANGE)
        return dir != to && is_dir(victim) && inside(dir, victim) ? -EINVAL : 0;
    if (victim < 0 || victim == node)
        return 0;
    if (is_dir(node) && !is_dir(victim))
        return -ENOTDIR;
    if (!is_dir(node) && is_dir(victim))
        return -EISDIR;
    return is_dir(victim) && !empty(victim) ? -ENOTEMPTY : 0;
}

static void model_move(int node, int from, int to) {
    if (!is_dir(node))
        return;
    now.nodes[node].parent = to;
    now.nodes[from].nlink--;
    now.nodes[to].nlink++;
}

static void do_rename(void) {
    int dir = pick(is_dir), to = below(3) ? pick(is_dir) : dir, a = (int)below(NAMES), b = (int)below(NAMES);
    unsigned flags = below(3) ? 0 : below(2) ? RENAME_NOREPLACE : RENAME_EXCHANGE;
    int node = entry(dir, a), victim = entry(to, b), whiteout = -1;
    if (!(flags & RENAME_EXCHANGE) && below(4) == 0) {
        whiteout = free_node();
        flags |= whiteout >= 0 ? RENAME_WHITEOUT : 0;
    }
    uint64_t gone, lsn;
    uint32_t left;
    char from_text[300], to_text[300];
    name_text(a, from_text);
    name_text(b, to_text);
    int expected = expect_rename(dir, node, to, victim, flags);
    int error = op_rename(store, &root_caller, now.nodes[dir].ino, from_text, now.nodes[to].ino, to_text, flags, &gone,
                          &left, &lsn);
    expect(expected, error, "rename");
    if (error || node == victim)
        return;
    now.nodes[dir].entries[a] = flags & RENAME_EXCHANGE ? victim + 1 : 0;
    now.nodes[to].entries[b] = node + 1;
    if (flags & RENAME_EXCHANGE) {
        model_move(victim, to, dir);
    } else if (victim >= 0) {
        now.nodes[to].nlink -= is_dir(victim);
        lose_link(victim);
    }
    model_move(node, dir, to);
    if (whiteout >= 0) {
        struct attributes out;
        expect(0, op_lookup(store, now.nodes[dir].ino, from_text, &out), "lookup of a whiteout");
        expect(S_IFCHR, out.row.mode, "a whiteout's mode");
        new_node(whiteout, &out, dir);
        now.nodes[dir].entries[a] = whiteout + 1;
    }
}

static uint64_t random_offset(void) {
    uint64_t at = below(4) ? below(FILE_MAX) : below(FILE_MAX / 8);
    return below(3) ? at : at / BATON_BLOCK * BATON_BLOCK;
}

static uint64_t random_length(uint64_t offset) {
    uint64_t most = below(8) ? 9000 : FILE_MAX;
    uint64_t length = 1 + below(most);
    if (below(3) == 0)
        length = (length + BATON_BLOCK - 1) / BATON_BLOCK * BATON_BLOCK;
    return MIN(length, FILE_MAX - offset);
}

static void do_write(void) {
    static uint8_t bytes[FILE_MAX];
    int at = pick(file);
    uint64_t offset = random_offset(), lsn;
    if (at < 0)
        return;
    struct mnode *node = &now.nodes[at];
    bool append = below(5) == 0;
    if (append)
        offset = node->size;
    uint64_t length = random_length(offset);
    if (length == 0)
        return;
    memset(bytes, (int)below(4) ? (int)(step_number & 255) : 0, length);
    for (int i = 0; i < 20; i++)
        bytes[below(length)] = (uint8_t)below(256);
    int error = op_write(store, node->ino, bytes, length, append ? 12345 : offset, append ? WRITE_APPEND : 0, &lsn);
    expect(0, error, "write");
    memcpy(node->data + offset, bytes, length);
    node->size = MAX(node->size, offset + length);
}

static void do_truncate(void) {
    int at = pick(file);
    uint64_t lsn;
    if (at < 0)
        return;
    struct mnode *node = &now.nodes[at];
    uint64_t size = below(5) ? random_offset() : 0;
    expect(0, op_truncate(store, node->ino, size, false, &lsn), "truncate");
    if (size < node->size)
        memset(node->data + size, 0, node->size - size);
    node->size = size;
}

static void do_fallocate(void) {
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    int at = pick(file), mode = modes[below(5)];
    uint64_t offset = random_offset(), length = random_length(offset), lsn;
    if (at < 0 || length == 0)
        return;
    struct mnode *node = &now.nodes[at];
    expect(0, op_fallocate(store, node->ino, mode, offset, length, &lsn), "fallocate");
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < node->size)
        memset(node->data + offset, 0, MIN(length, node->size - offset));
    if (!(mode & FALLOC_FL_KEEP_SIZE))
        node->size = MAX(node->size, offset + length);
}

static void do_copy(void) {
    int a = pick(file), b = pick(file);
    uint64_t from = random_offset(), to = random_offset(), lsn;
    if (a < 0 || b < 0 || a == b)
        return;
    struct mnode *x = &now.nodes[a], *y = &now.nodes[b];
    uint64_t length = random_length(from);
    length = MIN(length, FILE_MAX - to);
    uint64_t copied = from < x->size ? MIN(length, x->size - from) : 0;
    expect((int)copied, op_copy(store, x->ino, from, y->ino, to, length, &lsn), "copy");
    memcpy(y->data + to, x->data + from, copied);
    if (copied)
        y->size = MAX(y->size, to + copied);
}

static void do_seek(void) {
    int at = pick(file);
    if (at < 0)
        return;
    struct mnode *node = &now.nodes[at];
    uint64_t offset = random_offset();
    int64_t data = op_seek(store, node->ino, offset, SEEK_DATA), hole = op_seek(store, node->ino, offset, SEEK_HOLE);
    if (offset >= node->size) {
        expect(-ENXIO, data, "seek data beyond the end");
        expect(-ENXIO, hole, "seek hole beyond the end");
        return;
    }
    expect(true, hole >= (int64_t)offset && hole <= (int64_t)node->size, "a hole within the file");
    expect(true, data == -ENXIO || data >= (int64_t)offset, "data behind the offset");
    uint64_t end = data < 0 ? node->size : (uint64_t)data;
    for (uint64_t i = offset; i < end; i++)
        if (node->data[i]) {
            expect(0, (int64_t)i, "seek data skipped data");
            break;
        }
}

static void do_setattr(void) {
    int at = pick(any);
    struct mnode *node = &now.nodes[at];
    struct set_attributes set = {0};
    struct attributes out;
    uint64_t lsn;
    switch (below(3)) {
    case 0:
        set.mask = SET_MODE;
        set.mode = (uint32_t)below(010000);
        node->mode = (node->mode & S_IFMT) | set.mode;
        break;
    case 1:
        set.mask = SET_UID | SET_GID;
        set.uid = (uint32_t)below(100);
        set.gid = (uint32_t)below(100);
        node->uid = set.uid;
        node->gid = set.gid;
        if (!is_dir(at)) {
            node->mode &= ~(uint32_t)S_ISUID;
            if (node->mode & S_IXGRP)
                node->mode &= ~(uint32_t)S_ISGID;
        }
        if (S_ISREG(node->mode))
            node->xattrs[3].set = false;
        break;
    default:
        set.mask = SET_MTIME | SET_ATIME;
        set.mtime = (struct file_time){(int64_t)below(2000000000) - 1000000000, (uint32_t)below(1000000000)};
        set.atime_now = true;
    }
    expect(0, op_setattr(store, &root_caller, node->ino, &set, &out, &lsn), "setattr");
    expect((int)node->mode, out.row.mode, "mode");
}

static void do_xattr(void) {
    static uint8_t value[BATON_XATTR_VALUE_MAX];
    int at = pick(any), which = (int)below(XATTRS);
    struct mnode *node = &now.nodes[at];
    struct mxattr *xattr = &node->xattrs[which];
    uint64_t lsn;
    bool user = memcmp(xattr_names[which], "user.", 5) == 0;
    int expected = 0;
    if (below(3) == 0) {
        expected = xattr->set ? 0 : -ENODATA;
        expect(expected, op_removexattr(store, node->ino, xattr_names[which], &lsn), "removexattr");
        xattr->set = false;
        return;
    }
    int flags = below(2) ? 0 : below(2) ? XATTR_CREATE : XATTR_REPLACE;
    uint32_t length = (uint32_t)(which == 4 ? below(20000) : below(100));
    memset(value, (int)(step_number & 255), length);
    if (user && !S_ISREG(node->mode) && !S_ISDIR(node->mode))
        expected = -EPERM;
    else if (flags == XATTR_CREATE && xattr->set)
        expected = -EEXIST;
    else if (flags == XATTR_REPLACE && !xattr->set)
        expected = -ENODATA;
    int error = op_setxattr(store, &root_caller, node->ino, xattr_names[which], value, length, flags, false, &lsn);
    expect(expected, error, "setxattr");
    if (!error)
        *xattr = (struct mxattr){true, length, (uint8_t)(step_number & 255)};
}

/* Orphans of both sides go together. */
static void do_reclaim(void) {
    uint64_t inos[NODES];
    size_t count = 0;
    for (int i = 1; i < NODES; i++)
        if (now.nodes[i].used && now.nodes[i].nlink == 0 && below(2)) {
            inos[count++] = now.nodes[i].ino;
            node_free(&now.nodes[i]);
        }
    expect(0, op_reclaim(store, inos, count), "reclaim");
    int more = 1;
    while (below(8) && (more = op_reclaim_some(store)) == 1)
        ;
    expect(true, more >= 0, "reclaim some");
}

/* ---- comparing ---- */

static void compare_file(const struct mnode *node) {
    static uint8_t buffer[FILE_MAX + 8192];
    uint64_t offset = below(2) ? 0 : below(FILE_MAX), length = below(2) ? sizeof buffer : 1 + below(20000);
    memset(buffer, 0xee, sizeof buffer);
    uint64_t expected = offset < node->size ? MIN(length, node->size - offset) : 0;
    ssize_t n = op_read(store, node->ino, buffer, length, offset);
    expect((int)expected, n, "read length");
    if (n > 0 && memcmp(buffer, node->data + offset, (size_t)n) != 0)
        expect(0, 1, "content");
}

static int count_part(void *context, const struct extent_part *part) {
    *(uint64_t *)context += part->place.count;
    return 0;
}

static void compare_node(int at) {
    const struct mnode *node = &now.nodes[at];
    uint8_t value[20001];
    struct inode_row row = row_of(store, node->ino);
    expect((int)node->mode, row.mode, "mode");
    expect((int)node->nlink, row.nlink, "links");
    expect((int)node->uid, row.uid, "owner");
    unsigned xattrs = 0;
    for (int i = 0; i < XATTRS; i++) {
        const struct mxattr *xattr = &node->xattrs[i];
        int n = op_getxattr(store, node->ino, xattr_names[i], value, sizeof value);
        expect(xattr->set ? (int)xattr->length : -ENODATA, n, "attribute");
        if (n > 0)
            expect(xattr->fill, value[n - 1], "attribute's value");
        xattrs += xattr->set;
    }
    expect((int)xattrs, row.xattrs, "number of attributes");
    if (S_ISDIR(node->mode)) {
        uint64_t count = 0;
        for (int i = 0; i < NAMES; i++)
            count += node->entries[i] != 0;
        expect((int)count, (int64_t)row.size, "directory size");
    } else if (node->data) {
        uint64_t blocks = 0;
        expect((int)node->size, (int64_t)row.size, "size");
        store_lock(store);
        extent_walk(store, row.data, 0, UINT64_MAX, count_part, &blocks);
        store_unlock(store);
        expect((int)blocks, (int64_t)row.blocks, "blocks");
        compare_file(node);
    }
}

struct dir_check {
    int dir;
    int seen;
    uint64_t cookie;
};

static int check_entry(void *context, const struct directory_entry *entry_seen) {
    struct dir_check *check = context;
    char text[300];
    for (int name = 0; name < NAMES; name++) {
        int node = entry(check->dir, name);
        name_text(name, text);
        if (strlen(text) != entry_seen->name_length || memcmp(text, entry_seen->name, entry_seen->name_length))
            continue;
        check->seen += node >= 0 && now.nodes[node].ino == entry_seen->ino;
    }
    expect(true, entry_seen->cookie > check->cookie, "cookies grow");
    check->cookie = entry_seen->cookie;
    return 0;
}

static void compare_all(void) {
    for (int i = 0; i < NODES; i++) {
        if (!now.nodes[i].used)
            continue;
        compare_node(i);
        if (!is_dir(i))
            continue;
        struct dir_check check = {i, 0, 0};
        int count = 0;
        expect(0, op_readdir(store, now.nodes[i].ino, 0, below(2) != 0, check_entry, &check), "readdir");
        for (int name = 0; name < NAMES; name++)
            count += entry(i, name) >= 0;
        expect(count, check.seen, "entries");
    }
}

/* ---- saved points ---- */

struct save {
    uint64_t lsn;
    struct tables *tables;
    struct model model;
};
static struct save saves[SAVES];
static int save_count;

static void drop_save(int at) {
    tables_free(saves[at].tables);
    for (int i = 0; i < NODES; i++)
        node_free(&saves[at].model.nodes[i]);
    struct save empty_save = {0};
    for (int i = at; i + 1 < save_count; i++)
        saves[i] = saves[i + 1];
    saves[--save_count] = empty_save;
}

static void save(void) {
    struct position position;
    if (save_count == SAVES)
        drop_save((int)below(SAVES));
    store_position(store, &position);
    saves[save_count].lsn = position.lsn;
    saves[save_count].tables = tables_take(store, TABLES_EXACT);
    model_copy(&saves[save_count].model, &now);
    save_count++;
}

/* ---- the past ---- */

static struct {
    struct store *store;
    uint64_t lsn;
    struct tables *tables;
    struct model model;
} past;

/* compare_all() of the past: it looks at `store` and `now`. */
static void compare_past(void) {
    static struct model present;
    struct store *real = store;
    char why[1200];
    if (!past.store)
        return;
    struct tables *tables = tables_take(past.store, TABLES_EXACT);
    bool equal = tables_equal(past.tables, tables, why, sizeof why);
    ok(equal, "step %u: the past shows LSN %llu, %zu rows", step_number, (unsigned long long)past.lsn,
       tables_rows(tables));
    if (!equal)
        diag("%s", why);
    tables_free(tables);
    present = now;
    now = past.model;
    store = past.store;
    compare_all();
    now = present;
    store = real;
}

static void close_past(void) {
    if (!past.store)
        return;
    compare_past();
    history_close(past.store);
    tables_free(past.tables);
    for (int i = 0; i < NODES; i++)
        node_free(&past.model.nodes[i]);
    past.store = NULL;
}

static void open_past(void) {
    char why[300] = "";
    if (!save_count)
        return;
    const struct save *save = &saves[below((uint64_t)save_count)];
    close_past();
    is_int(0, history_open(store, save->lsn, NULL, NULL, NULL, &past.store, why, sizeof why), "history_open: %s", why);
    if (!past.store)
        return;
    past.lsn = save->lsn;
    past.tables = tables_take(past.store, TABLES_EXACT);
    model_copy(&past.model, &save->model);
    bool equal = tables_equal(save->tables, past.tables, why, sizeof why);
    ok(equal, "step %u: a past of LSN %llu has the rows of then", step_number, (unsigned long long)past.lsn);
    if (!equal)
        diag("%s", why);
    compare_past();
}

/* An undo to an earlier record takes the past with it; one to a later record, or to its own, does not. */
static void past_after_undo(uint64_t lsn) {
    struct attributes root;
    char why[300] = "";
    if (!past.store)
        return;
    if (lsn >= past.lsn) {
        compare_past();
        return;
    }
    expect(true, op_getattr(past.store, ROOT_INO, &root) < 0, "a past that was undone shows nothing");
    expect(-ESTALE, history_error(past.store, why, sizeof why), "and says so");
    history_close(past.store);
    tables_free(past.tables);
    for (int i = 0; i < NODES; i++)
        node_free(&past.model.nodes[i]);
    past.store = NULL;
}

static void undo(void) {
    char why[1200];
    if (!save_count)
        return;
    int at = (int)below((uint64_t)save_count);
    if (!fixture_feed(store, mirror))
        mismatches++;
    store_stop_epoch(store);
    expect(0, store_undo(store, saves[at].lsn), "undo");
    past_after_undo(saves[at].lsn);
    struct tables *tables = tables_take(store, TABLES_EXACT);
    bool equal = tables_equal(saves[at].tables, tables, why, sizeof why);
    ok(equal, "step %u: undone to LSN %llu, %zu rows as they were", step_number, (unsigned long long)saves[at].lsn,
       tables_rows(tables));
    if (!equal)
        diag("%s", why);
    tables_free(tables);
    model_copy(&now, &saves[at].model);
    expect(0, store_undo(mirror, saves[at].lsn), "undo of the mirror");
    fixture_same(store, mirror, "the second store, undone too, says the same");
    while (save_count > at + 1)
        drop_save(save_count - 1);
    if (store_start_epoch(store, EPOCH_MAKE(++counter, 7), "a") != 0)
        bail("store_start_epoch");
}

static void step(void) {
    static void (*const operations[])(void) = {
        do_create,    do_create, do_create, do_tmpfile, do_link,  do_unlink, do_rename,   do_rename,
        do_rename,    do_write,  do_write,  do_write,   do_write, do_write,  do_truncate, do_fallocate,
        do_fallocate, do_copy,   do_seek,   do_setattr, do_xattr, do_reclaim};
    operations[below(sizeof operations / sizeof *operations)]();
}

static void check_closed(const char *name) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    is_int(0, check_store(path, CHECK_DATA, tell, NULL), "baton check has nothing to say of store %s", name);
}

int main(void) {
    const char *text = getenv("BATON_STEPS");
    unsigned steps = text ? (unsigned)atoi(text) : 20000;

    plan_lazy();
    seed = test_seed();
    if (below(2))
        ops_rows_max = 1 + (uint32_t)below(8); /* pending trims, orphan data, records in pieces */
    diag("at most %u rows in a record", ops_rows_max);
    store = fixture_store("a", counter);
    mirror = fixture_store("b", 0);
    now.nodes[0] = (struct mnode){.used = true, .ino = ROOT_INO, .mode = row_of(store, ROOT_INO).mode, .nlink = 2};
    for (step_number = 1; step_number <= steps && mismatches < 20; step_number++) {
        step();
        if (below(300) == 0)
            compare_all();
        if (below(800) == 0)
            save();
        if (below(1000) == 0)
            open_past();
        if (below(1000) == 0)
            compare_past();
        if (below(2000) == 0)
            undo();
        if (below(2000) == 0 && !fixture_feed(store, mirror))
            mismatches++;
    }
    close_past();
    compare_all();
    ok(mismatches == 0, "%u operations: the model agrees (%u differences)", steps, mismatches);
    fixture_feed(store, mirror);
    fixture_same(store, mirror, "the second store says the same");
    store_close(mirror);
    store_close(store);
    check_closed("a");
    check_closed("b");
    store = fixture_open("a");
    mirror = fixture_open("b");
    compare_all();
    ok(mismatches == 0, "so it does after both were closed and opened");
    fixture_same(store, mirror, "and both still say the same");
    store_close(mirror);
    store_close(store);
    while (save_count)
        drop_save(save_count - 1);
    for (int i = 0; i < NODES; i++)
        node_free(&now.nodes[i]);
    return 0;
}
