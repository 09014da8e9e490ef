#include "fs/front_private.h"

#include <linux/fuse.h>

/* Offsets: 0 the start, 1 behind ".", 2 behind "..", then the cookies of op_readdir, which are larger. */
#define BEHIND_DOT 1u
#define BEHIND_DOTS 2u

/* What was named after a listing began is not in it: a renamed entry gets a new cookie, behind all others, and one who
 * renames what it reads would never come to an end. */
struct open_directory {
    _Atomic uint64_t end; /* cookie */
    unsigned term;
    LIST_ENTRY(open_directory) others;
};

struct listing {
    struct front *front;
    uint64_t end;
    uint8_t *buffer;
    size_t used, room;
    bool plus;
};

static size_t head_size(const struct listing *listing) {
    return listing->plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
}

/* The entry's dirent, zeroed, in the buffer; NULL if it is full. */
static struct fuse_dirent *add(struct listing *listing, const struct directory_entry *entry) {
    size_t length = FUSE_DIRENT_ALIGN(head_size(listing) + entry->name_length);

    if (listing->room - listing->used < length)
        return NULL;
    uint8_t *at = listing->buffer + listing->used;
    memset(at, 0, length);
    struct fuse_dirent *dirent = (struct fuse_dirent *)(at + head_size(listing) - FUSE_NAME_OFFSET);
    dirent->ino = entry->ino;
    dirent->off = entry->cookie;
    dirent->namelen = entry->name_length;
    dirent->type = (entry->type & S_IFMT) >> 12;
    memcpy(dirent->name, entry->name, entry->name_length);
    listing->used += length;
    return dirent;
}

static void fill_attributes(struct front *front, const struct attributes *from, struct fuse_entry_out *to) {
    const struct inode_row *row = &from->row;

    to->nodeid = from->ino;
    to->generation = 1;
    to->entry_valid = (uint64_t)entry_timeout(front);
    to->attr_valid = (uint64_t)attribute_timeout(front);
    to->attr = (struct fuse_attr){
        .ino = from->ino,
        .size = row->size,
        .blocks = row->blocks * (BATON_BLOCK / 512),
        .atime = (uint64_t)row->atime.seconds,
        .mtime = (uint64_t)row->mtime.seconds,
        .ctime = (uint64_t)row->ctime.seconds,
        .atimensec = row->atime.nanoseconds,
        .mtimensec = row->mtime.nanoseconds,
        .ctimensec = row->ctime.nanoseconds,
        .mode = row->mode,
        .nlink = row->nlink,
        .uid = row->uid,
        .gid = row->gid,
        .rdev = (uint32_t)row->rdev,
        .blksize = BATON_BLOCK,
    };
}

/* Called under the engine lock. */
static int add_entry(void *context, const struct directory_entry *entry) {
    struct listing *listing = context;
    if (entry->cookie >= listing->end)
        return 1;
    struct fuse_dirent *dirent = add(listing, entry);
    if (!dirent)
        return 1;
    if (listing->plus && entry->attributes && nodes_look(listing->front->nodes, entry->ino) == 0) {
        /* Without a node number the kernel takes it for a plain entry. */
        struct fuse_direntplus *plus =
            (struct fuse_direntplus *)((uint8_t *)dirent - offsetof(struct fuse_direntplus, dirent));
        fill_attributes(listing->front, entry->attributes, &plus->entry_out);
    }
    return 0;
}

/* "." and "..": never looked up by a listing. False: no room. */
static bool add_dots(struct listing *listing, uint64_t ino, uint64_t offset) {
    struct attributes parent;

    if (offset < BEHIND_DOT &&
        !add(listing, &(struct directory_entry){
                          .cookie = BEHIND_DOT, .ino = ino, .type = S_IFDIR, .name = ".", .name_length = 1}))
        return false;
    if (offset >= BEHIND_DOTS)
        return true;
    if (op_lookup_parent(listing->front->store, ino, &parent))
        parent.ino = ino; /* a directory that has been removed */
    return add(listing,
               &(struct directory_entry){
                   .cookie = BEHIND_DOTS, .ino = parent.ino, .type = S_IFDIR, .name = "..", .name_length = 2}) != NULL;
}

/* The listing did not reach the kernel: it does not know those inodes. */
void listing_undone(struct front *front, const uint8_t *listing, size_t length) {
    for (size_t at = 0; at < length;) {
        const struct fuse_direntplus *plus = (const struct fuse_direntplus *)(listing + at);
        if (plus->entry_out.nodeid)
            lookup_undone(front, plus->entry_out.nodeid);
        at += FUSE_DIRENTPLUS_SIZE(plus);
    }
}

static void forget_listing(struct listing *listing) {
    listing_undone(listing->front, listing->buffer, listing->used);
}

static void list(fuse_req_t request, uint64_t ino, size_t size, off_t offset, const struct fuse_file_info *file,
                 bool plus) {
    struct front *front = front_of(request);
    struct open_directory *open = (struct open_directory *)(uintptr_t)file->fh;
    if (offset == 0) /* also after rewinddir */
        atomic_store(&open->end, store_ids_end(front->store));
    struct listing listing = {.front = front,
                              .end = atomic_load(&open->end),
                              .buffer = this_worker->buffer,
                              .room = MIN(size, TRANSFER_MAX),
                              .plus = plus};
    uint64_t from = (uint64_t)offset;
    int error = 0;

    if (offset < 0) {
        reply_error(request, -EINVAL);
        return;
    }
    if (add_dots(&listing, ino, from))
        error = op_readdir(front->store, ino, from <= BEHIND_DOTS ? 0 : from, plus, add_entry, &listing);
    if (error < 0) {
        if (plus)
            forget_listing(&listing);
        reply_inode_error(request, error);
        return;
    }
    if (from == 0)
        touch_atime(front, ino, true);
    note.sends = plus ? SENDS_LISTING : SENDS_PLAIN;
    if (fuse_reply_buf(request, (const char *)listing.buffer, listing.used) && plus)
        forget_listing(&listing);
    note.sends = SENDS_PLAIN;
}

void front_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    list(request, ino, size, offset, file, false);
}

void front_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    list(request, ino, size, offset, file, true);
}

static void close_directory(struct front *front, struct open_directory *open) {
    pthread_mutex_lock(&front->directories_mutex);
    LIST_REMOVE(open, others);
    pthread_mutex_unlock(&front->directories_mutex);
    free(open);
}

void directories_free(struct front *front) {
    struct open_directory *open;

    while ((open = LIST_FIRST(&front->directories)) != NULL)
        close_directory(front, open);
}

void front_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    struct front *front = front_of(request);
    bool primary = atomic_load(&front->writable);
    struct open_directory *open = malloc(sizeof *open);

    (void)ino;
    if (!open) {
        reply_error(request, -ENOMEM);
        return;
    }
    atomic_init(&open->end, UINT64_MAX); /* an exporter may go on where another open had come to */
    file->fh = (uint64_t)(uintptr_t)open;
    open->term = atomic_load(&front->term);
    pthread_mutex_lock(&front->directories_mutex);
    LIST_INSERT_HEAD(&front->directories, open, others);
    pthread_mutex_unlock(&front->directories_mutex);
    file->cache_readdir = file->keep_cache = primary && !(front->mount_flags & MS_STRICTATIME);
    note.sends = SENDS_DIRECTORY;
    if (fuse_reply_open(request, file)) /* interrupted: no RELEASEDIR will come */
        close_directory(front, open);
    note.sends = SENDS_PLAIN;
}

void directory_undone(struct front *front, uint64_t handle) {
    close_directory(front, (struct open_directory *)(uintptr_t)handle);
}

void front_fsyncdir(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file) {
    fsync_opened(request, ino, data_only != 0, ((const struct open_directory *)(uintptr_t)file->fh)->term);
}

void front_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    (void)ino;
    close_directory(front_of(request), (struct open_directory *)(uintptr_t)file->fh);
    note.sends = SENDS_ALWAYS;
    fuse_reply_err(request, 0);
    note.sends = SENDS_PLAIN;
}
