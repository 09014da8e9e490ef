/* Records that change names: create, link, unlink, rename. */
#include "fs/apply_parts.h"

#include <sys/stat.h>

struct node {
    uint64_t ino;
    struct inode_row row;
};

static int node_get(struct change *change, uint64_t ino, struct node *node) {
    node->ino = ino;
    return contradiction(inode_get(change->store, ino, &node->row));
}

static int node_put(struct change *change, const struct node *node) {
    return inode_put(change, node->ino, &node->row);
}

/* A directory that entries may come to or go from; its times become the record's. */
static int directory_get(struct change *change, uint64_t ino, const struct record *r, struct node *directory) {
    int error = node_get(change, ino, directory);
    if (error)
        return error;
    if (!S_ISDIR(directory->row.mode) || directory->row.nlink == 0)
        return -EBADMSG;
    error = inode_touch(&directory->row, r);
    directory->row.mtime = directory->row.ctime;
    return error;
}

static int entry_get_ino(struct change *change, uint64_t parent, struct span name, uint64_t ino,
                         struct dirent_row *entry) {
    int error = contradiction(dirent_get(change->store, parent, name.data, name.length, entry));
    return !error && entry->ino != ino ? -EBADMSG : error;
}

static int entry_is_absent(struct change *change, uint64_t parent, struct span name) {
    struct dirent_row entry;
    int error = dirent_get(change->store, parent, name.data, name.length, &entry);
    return error == -ENOENT ? 0 : error ? error : -EBADMSG;
}

static int cookie_is_new(struct change *change, uint64_t parent, uint64_t cookie) {
    struct key key = key_u64_u64(parent, cookie);
    struct span value;
    int error = table_get(change->store, TABLE_DIRCOOKIE, &key, &value);
    return error == -ENOENT ? 0 : error ? error : -EBADMSG;
}

static int entry_put(struct change *change, uint64_t parent, struct span name, uint64_t cookie,
                     const struct node *subject) {
    struct {
        struct dircookie_row row;
        uint8_t name[BATON_NAME_MAX];
    } __attribute__((packed)) value;
    uint32_t type = subject->row.mode & S_IFMT;
    struct dirent_row entry = {subject->ino, cookie, type};
    struct key key = key_u64_name(parent, name.data, name.length);
    int error = table_put(change, TABLE_DIRENT, &key, &entry, sizeof entry);
    if (error)
        return error;
    value.row = (struct dircookie_row){subject->ino, type};
    memcpy(value.name, name.data, name.length);
    key = key_u64_u64(parent, cookie);
    return table_put(change, TABLE_DIRCOOKIE, &key, &value, sizeof value.row + name.length);
}

static int entry_remove(struct change *change, uint64_t parent, struct span name, uint64_t cookie) {
    struct key key = key_u64_name(parent, name.data, name.length);
    int error = table_remove(change, TABLE_DIRENT, &key);
    if (error)
        return error;
    key = key_u64_u64(parent, cookie);
    error = table_remove(change, TABLE_DIRCOOKIE, &key);
    if (error == -ENOENT) {
        log_error("directory %llu lacks the cookie of an entry; run baton check on this store",
                  (unsigned long long)parent);
        error = -EIO;
    }
    return error;
}

/* ---- Create, link ---- */

static int inherit_xattrs(struct change *change, const struct record *r, struct node *node) {
    struct span name, value;
    uint32_t at = 0;
    int more;

    while ((more = xattr_unpack(&r->xattrs, &at, &name, &value)) == 1) {
        int error = xattr_change(change, node->ino, &node->row, name, value, false);
        if (error)
            return error;
    }
    return more;
}

static int put_new_inode(struct change *change, const struct record *r, struct node *node) {
    uint8_t buffer[sizeof node->row + BATON_SYMLINK_MAX];
    int error = inherit_xattrs(change, r, node);
    if (error)
        return error;
    memcpy(buffer, &node->row, sizeof node->row);
    if (r->value.length)
        memcpy(buffer + sizeof node->row, r->value.data, r->value.length);
    struct key key = key_u64(node->ino);
    return table_put(change, TABLE_INODE, &key, buffer, sizeof node->row + r->value.length);
}

int apply_create(struct change *change, const struct record *r) {
    struct file_time time = file_time_of(r->head.time);
    bool is_directory = S_ISDIR(r->mode);
    struct node parent, node = {.ino = r->head.ino};
    int error = inode_get(change->store, r->head.ino, &node.row);

    if (error != -ENOENT)
        return error ? error : -EBADMSG;
    memset(&node.row, 0, sizeof node.row);
    node.row.mode = r->mode;
    node.row.uid = r->uid;
    node.row.gid = r->gid;
    node.row.nlink = is_directory ? 2 : r->parent ? 1 : 0;
    node.row.rdev = r->rdev;
    node.row.size = r->value.length;
    node.row.data = r->new_data;
    node.row.parent = is_directory ? r->parent : 0;
    node.row.atime = node.row.mtime = node.row.ctime = node.row.btime = time;
    if (!r->parent) {
        error = put_new_inode(change, r, &node);
        return error ? error : orphan_put(change, ORPHAN_INODE, node.ino, 0, r->head.time);
    }
    error = directory_get(change, r->parent, r, &parent);
    if (!error)
        error = entry_is_absent(change, r->parent, r->name);
    if (!error)
        error = cookie_is_new(change, r->parent, r->cookie);
    if (!error)
        error = put_new_inode(change, r, &node);
    if (!error)
        error = entry_put(change, r->parent, r->name, r->cookie, &node);
    parent.row.size++;
    parent.row.nlink += is_directory;
    return error ? error : node_put(change, &parent);
}

int apply_link(struct change *change, const struct record *r) {
    struct node parent, node;
    int error = directory_get(change, r->parent, r, &parent);
    if (!error)
        error = node_get(change, r->head.ino, &node);
    if (!error)
        error = inode_touch(&node.row, r);
    if (!error && (S_ISDIR(node.row.mode) || node.row.nlink >= BATON_LINK_MAX))
        error = -EBADMSG;
    if (!error)
        error = entry_is_absent(change, r->parent, r->name);
    if (!error)
        error = cookie_is_new(change, r->parent, r->cookie);
    if (!error && node.row.nlink == 0)
        error = orphan_remove(change, ORPHAN_INODE, node.ino);
    if (error)
        return error;
    node.row.nlink++;
    parent.row.size++;
    error = entry_put(change, r->parent, r->name, r->cookie, &node);
    if (!error)
        error = node_put(change, &node);
    return error ? error : node_put(change, &parent);
}

/* ---- Unlink, rename ---- */

/* The node loses a name (a directory: its only one). Without a link left it is an orphan. */
static int lose_link(struct change *change, const struct record *r, struct node *node) {
    node->row.nlink = S_ISDIR(node->row.mode) ? 0 : node->row.nlink - 1;
    if (node->row.nlink > 0)
        return 0;
    return orphan_put(change, ORPHAN_INODE, node->ino, 0, r->head.time);
}

static bool may_lose_link(const struct node *node) {
    return S_ISDIR(node->row.mode) ? node->row.size == 0 && node->row.nlink == 2 : node->row.nlink > 0;
}

int apply_unlink(struct change *change, const struct record *r) {
    struct dirent_row entry;
    struct node parent, node;
    int error = directory_get(change, r->parent, r, &parent);
    if (!error)
        error = entry_get_ino(change, r->parent, r->name, r->head.ino, &entry);
    if (!error)
        error = node_get(change, r->head.ino, &node);
    if (!error)
        error = inode_touch(&node.row, r);
    if (error)
        return error;
    bool is_directory = S_ISDIR(node.row.mode);
    if (is_directory != ((r->flags & UNLINK_RMDIR) != 0) || !may_lose_link(&node) || parent.row.size == 0 ||
        parent.row.nlink < 2u + is_directory)
        return -EBADMSG;
    parent.row.size--;
    parent.row.nlink -= is_directory;
    error = lose_link(change, r, &node);
    if (!error)
        error = entry_remove(change, r->parent, r->name, entry.cookie);
    if (!error)
        error = node_put(change, &node);
    return error ? error : node_put(change, &parent);
}

/* Does `directory` lie in `top` or is it the same? 1, 0, or an error. */
int directory_is_inside(struct store *store, uint64_t directory, uint64_t top) {
    /* A path is no longer than what a client can name step by step; damage must not make a loop of this. */
    for (unsigned steps = 0; steps < 10000000; steps++) {
        struct inode_row row;
        if (directory == top)
            return 1;
        int error = inode_get(store, directory, &row);
        if (error)
            return error;
        if (row.parent == directory || row.parent == 0)
            return 0;
        directory = row.parent;
    }
    log_error("the parents of directory %llu form a loop; run baton check on this store",
              (unsigned long long)directory);
    return -EIO;
}

struct renaming {
    const struct record *r;
    struct dirent_row old_entry, new_entry;
    struct node parent, new_parent, subject, victim, whiteout;
    bool same_parent, exchange, whites_out;
};

static int rename_gather(struct change *change, struct renaming *n) {
    const struct record *r = n->r;
    int error = directory_get(change, r->parent, r, &n->parent);
    if (!error && !n->same_parent)
        error = directory_get(change, r->new_parent, r, &n->new_parent);
    if (!error)
        error = entry_get_ino(change, r->parent, r->name, r->head.ino, &n->old_entry);
    if (!error)
        error = node_get(change, r->head.ino, &n->subject);
    if (!error)
        error = inode_touch(&n->subject.row, r);
    if (error)
        return error;
    if (!r->victim)
        return entry_is_absent(change, r->new_parent, r->new_name);
    error = entry_get_ino(change, r->new_parent, r->new_name, r->victim, &n->new_entry);
    if (!error)
        error = node_get(change, r->victim, &n->victim);
    return error ? error : inode_touch(&n->victim.row, r);
}

static int rename_check(struct change *change, const struct renaming *n) {
    const struct record *r = n->r;
    bool subject_dir = S_ISDIR(n->subject.row.mode), victim_dir = r->victim && S_ISDIR(n->victim.row.mode);
    int inside = 0;

    if (r->victim && !n->exchange && (subject_dir != victim_dir || !may_lose_link(&n->victim)))
        return -EBADMSG;
    if (subject_dir && !n->same_parent)
        inside = directory_is_inside(change->store, r->new_parent, r->head.ino);
    if (inside == 0 && victim_dir && n->exchange && !n->same_parent)
        inside = directory_is_inside(change->store, r->parent, r->victim);
    if (inside != 0)
        return inside < 0 ? contradiction(inside) : -EBADMSG;
    int error = cookie_is_new(change, r->new_parent, r->cookie);
    if (!error && r->old_cookie)
        error =
            r->cookie == r->old_cookie && n->same_parent ? -EBADMSG : cookie_is_new(change, r->parent, r->old_cookie);
    return error;
}

/* Tells those who look through layers that the old name is gone. It permits nobody anything: no ACL is inherited. */
static int whiteout_put(struct change *change, const struct record *r, struct node *whiteout) {
    struct inode_row *row = &whiteout->row;
    whiteout->ino = record_new_inode(r);
    int error = inode_get(change->store, whiteout->ino, row);

    if (error != -ENOENT)
        return error ? error : -EBADMSG;
    memset(row, 0, sizeof *row);
    row->mode = S_IFCHR;
    row->uid = r->uid;
    row->gid = r->gid;
    row->nlink = 1;
    row->atime = row->mtime = row->ctime = row->btime = file_time_of(r->head.time);
    return node_put(change, whiteout);
}

/* A directory comes to another parent: its "..", and the links of both. */
static void move_up(struct node *directory, struct node *from, struct node *to) {
    if (!S_ISDIR(directory->row.mode))
        return;
    directory->row.parent = to->ino;
    from->row.nlink--;
    to->row.nlink++;
}

static int rename_entries(struct change *change, struct renaming *n) {
    const struct record *r = n->r;
    int error = entry_remove(change, r->parent, r->name, n->old_entry.cookie);
    if (!error && r->victim)
        error = entry_remove(change, r->new_parent, r->new_name, n->new_entry.cookie);
    if (!error)
        error = entry_put(change, r->new_parent, r->new_name, r->cookie, &n->subject);
    if (!error && (n->exchange || n->whites_out))
        error = entry_put(change, r->parent, r->name, r->old_cookie, n->exchange ? &n->victim : &n->whiteout);
    return error;
}

int apply_rename(struct change *change, const struct record *r) {
    struct renaming n = {.r = r,
                         .same_parent = r->parent == r->new_parent,
                         .exchange = (r->flags & RENAME_EXCHANGED) != 0,
                         .whites_out = (r->flags & RENAME_LEFT_WHITEOUT) != 0};
    struct node *to = n.same_parent ? &n.parent : &n.new_parent;
    int error = rename_gather(change, &n);
    if (!error)
        error = rename_check(change, &n);
    if (!error && n.whites_out)
        error = whiteout_put(change, r, &n.whiteout);
    if (!error)
        error = rename_entries(change, &n);
    if (error)
        return error;
    if (n.exchange) {
        move_up(&n.victim, to, &n.parent);
    } else {
        n.parent.row.size -= !n.whites_out;
        to->row.size += r->victim ? 0 : 1;
        if (r->victim) {
            to->row.nlink -= S_ISDIR(n.victim.row.mode);
            error = lose_link(change, r, &n.victim);
        }
    }
    move_up(&n.subject, &n.parent, to);
    if (!error)
        error = node_put(change, &n.subject);
    if (!error && r->victim)
        error = node_put(change, &n.victim);
    if (!error)
        error = node_put(change, &n.parent);
    return error || n.same_parent ? error : node_put(change, &n.new_parent);
}
