#include "fs/segment.h"

#include "fs/history_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define ALLOCATE_AHEAD 2048u /* blocks: disk space is taken in steps of 8 MiB */

void segment_name(uint32_t number, char name[16]) {
    snprintf(name, 16, "%08x.seg", number);
}

int segments_open(struct segments *segments, int store_directory_fd, uint32_t blocks) {
    memset(segments, 0, sizeof *segments);
    for (unsigned i = 0; i < SEGMENT_FDS; i++)
        segments->fds[i].fd = -1;
    pthread_mutex_init(&segments->fd_lock, NULL);
    behind_open(&segments->behind);
    writeback_open(&segments->writeback);
    segments->blocks = blocks;
    segments->directory_fd = openat(store_directory_fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return segments->directory_fd < 0 ? -errno : 0;
}

void segments_close(struct segments *segments) {
    for (unsigned i = 0; i < SEGMENT_FDS; i++)
        if (segments->fds[i].fd >= 0)
            close(segments->fds[i].fd);
    if (segments->directory_fd >= 0)
        close(segments->directory_fd);
    free(segments->list);
    free(segments->reserved);
    pthread_mutex_destroy(&segments->fd_lock);
    behind_close(&segments->behind);
    writeback_close(&segments->writeback);
}

struct segment *segment_find(struct segments *segments, uint32_t number) {
    uint32_t low = 0, high = segments->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (segments->list[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < segments->count && segments->list[low].number == number)
        return &segments->list[low];
    return NULL;
}

static struct segment *segment_add(struct segments *segments, uint32_t number) {
    if (segments->count == segments->room) {
        uint32_t room = segments->room * 2 + 16;
        struct segment *bigger = realloc(segments->list, room * sizeof *bigger);
        if (!bigger)
            return NULL;
        segments->list = bigger;
        segments->room = room;
    }
    uint32_t at = segments->count;
    while (at > 0 && segments->list[at - 1].number > number)
        at--;
    memmove(&segments->list[at + 1], &segments->list[at], (segments->count - at) * sizeof *segments->list);
    segments->list[at] = (struct segment){.number = number, .row_dirty = true};
    segments->count++;
    return &segments->list[at];
}

void segment_remove(struct store *store, uint32_t number) {
    struct segments *segments = &store->segments;
    struct segment *segment = segment_find(segments, number);
    if (!segment)
        return;
    uint32_t at = (uint32_t)(segment - segments->list);
    memmove(segment, segment + 1, (segments->count - at - 1) * sizeof *segment);
    segments->count--;
    if (segments->current == number)
        segments->current = 0;
}

/* ---- descriptors: at most SEGMENT_FDS open, the least recently used one goes ---- */

int segment_fd_get(struct segments *segments, uint32_t number, bool create) {
    char name[16];
    pthread_mutex_lock(&segments->fd_lock);
    struct segment_fd *free_one = NULL;
    for (unsigned probe = 0; probe < 8; probe++) { /* eight places a number may stand in */
        struct segment_fd *at = &segments->fds[(number * 8 + probe) % SEGMENT_FDS];
        if (at->fd >= 0 && at->number == number) {
            at->users++;
            at->used = ++segments->fd_clock;
            pthread_mutex_unlock(&segments->fd_lock);
            return at->fd;
        }
        if (at->users == 0 && (!free_one || (free_one->fd >= 0 && (at->fd < 0 || at->used < free_one->used))))
            free_one = at;
    }
    segment_name(number, name);
    int fd = openat(segments->directory_fd, name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        fd = -errno;
    else if (free_one) {
        if (free_one->fd >= 0)
            close(free_one->fd);
        *free_one =
            (struct segment_fd){.number = number, .fd = fd, .users = 1, .used = ++segments->fd_clock};
    } /* else: all eight are busy; this one lives until it is put back */
    pthread_mutex_unlock(&segments->fd_lock);
    return fd;
}

void segment_fd_put(struct segments *segments, int fd) {
    pthread_mutex_lock(&segments->fd_lock);
    for (unsigned i = 0; i < SEGMENT_FDS; i++)
        if (segments->fds[i].fd == fd) {
            PROMISE(segments->fds[i].users > 0);
            segments->fds[i].users--;
            fd = -1;
            break;
        }
    pthread_mutex_unlock(&segments->fd_lock);
    if (fd >= 0)
        close(fd);
}

void segment_fd_drop(struct segments *segments, uint32_t number) {
    pthread_mutex_lock(&segments->fd_lock);
    for (unsigned i = 0; i < SEGMENT_FDS; i++)
        if (segments->fds[i].fd >= 0 && segments->fds[i].number == number) {
            if (segments->fds[i].users == 0) {
                close(segments->fds[i].fd);
                segments->fds[i].fd = -1;
            } else
                segments->fds[i].number = UINT32_MAX; /* a reader has it: nobody finds it any more, then it ages out */
        }
    pthread_mutex_unlock(&segments->fd_lock);
}

int segment_unlink(struct segments *segments, uint32_t number) {
    char name[16];
    segment_name(number, name);
    segment_fd_drop(segments, number);
    if (unlinkat(segments->directory_fd, name, 0) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

/* ---- handing out blocks (lock held) ---- */

/* The file's name goes first, then its descriptor: segment_prepare_next may open one at any moment. */
static int segment_clear(struct segments *segments, uint32_t number) {
    char name[16];
    segment_name(number, name);
    if (unlinkat(segments->directory_fd, name, 0) < 0 && errno != ENOENT)
        return -errno;
    segment_fd_drop(segments, number);
    return 0;
}

static int segment_create(struct store *store, uint32_t number) {
    /* Of an import, what a refused commit left under this number may be a link to the old store's segment. */
    int rc = store->importing ? segment_clear(&store->segments, number) : 0;
    if (rc)
        return rc;
    int fd = segment_fd_get(&store->segments, number, true);
    if (fd < 0)
        return fd;
    segment_fd_put(&store->segments, fd);
    if (fsync(store->segments.directory_fd) < 0)
        store_fail(store, "fsync of the folder of segments failed: %s", strerror(errno));
    return 0;
}

/* Disk space behind blocks [0, until) of the segment, so that writing them cannot fail for lack of it. */
static int segment_back(struct store *store, struct segment *segment, uint32_t until) {
    if (until <= segment->allocated)
        return 0;
    uint32_t target = MIN(until + ALLOCATE_AHEAD, store->segments.blocks);
    int fd = segment_fd_get(&store->segments, segment->number, true);
    if (fd < 0)
        return fd;
    int rc = 0;
    off_t from = (off_t)segment->allocated * BATON_BLOCK;
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, from, (off_t)target * BATON_BLOCK - from) < 0) {
        rc = -errno;
        if (rc == -ENOSPC && target > until) { /* perhaps just enough */
            target = until;
            rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, from, (off_t)target * BATON_BLOCK - from) < 0 ? -errno : 0;
        }
    }
    segment_fd_put(&store->segments, fd);
    if (rc == -EOPNOTSUPP) {
        rc = 0; /* a file system without fallocate: a full disk shows at the write, so that is not put off */
        atomic_store(&store->segments.unbacked, true);
    }
    if (rc == 0) { /* the next look at the disk is a while away: count along */
        uint64_t taken = (uint64_t)(target - segment->allocated) * BATON_BLOCK;
        store->disk_free -= MIN(taken, store->disk_free);
        segment->allocated = target;
    }
    return rc;
}

static struct segment *segment_current(struct store *store, int *error) {
    struct segments *segments = &store->segments;
    struct segment *segment = segments->current ? segment_find(segments, segments->current) : NULL;
    if (segment && segment->head < segments->blocks)
        return segment;
    uint32_t number = segments->count ? segments->list[segments->count - 1].number + 1 : 1;
    if (number <= segments->current)
        number = segments->current + 1;
    if (number >= SEGMENT_NONE) {
        *error = -ENOSPC;
        return NULL;
    }
    *error = segment_create(store, number);
    if (*error)
        return NULL;
    segment = segment_add(segments, number);
    if (!segment) {
        *error = -ENOMEM;
        return NULL;
    }
    segments->current = number;
    return segment;
}

static int reserved_add(struct segments *segments, struct place place) {
    if (segments->reserved_count == segments->reserved_room) {
        uint32_t room = segments->reserved_room * 2 + 16;
        struct place *bigger = realloc(segments->reserved, room * sizeof *bigger);
        if (!bigger)
            return -ENOMEM;
        segments->reserved = bigger;
        segments->reserved_room = room;
    }
    segments->reserved[segments->reserved_count++] = place;
    return 0;
}

/* Takes whatever part of [place) is reserved out of the reservations. */
static void reserved_cut(struct segments *segments, struct place place) {
    for (uint32_t i = 0; i < segments->reserved_count;) {
        struct place at = segments->reserved[i];
        uint32_t first = MAX(at.position, place.position);
        uint32_t end = MIN(at.position + at.count, place.position + place.count);
        if (at.segment != place.segment || first >= end) {
            i++;
            continue;
        }
        segments->reserved[i] = segments->reserved[--segments->reserved_count];
        if (at.position < first)
            PROMISE(reserved_add(segments, (struct place){at.segment, at.position, first - at.position}) == 0);
        if (end < at.position + at.count)
            PROMISE(reserved_add(segments, (struct place){at.segment, end, at.position + at.count - end}) == 0);
    }
}

/* Takes [place) out of the reservations, cutting one in two if need be. False if it is not reserved. */
static bool reserved_take(struct segments *segments, struct place place) {
    for (uint32_t i = 0; i < segments->reserved_count; i++) {
        struct place *at = &segments->reserved[i];
        if (at->segment != place.segment || place.position < at->position ||
            place.position + place.count > at->position + at->count)
            continue;
        uint32_t before = place.position - at->position;
        uint32_t after = at->position + at->count - (place.position + place.count);
        if (before && after) {
            struct place rest = {place.segment, place.position + place.count, after};
            at->count = before;
            PROMISE(reserved_add(segments, rest) == 0);
        } else if (before) {
            at->count = before;
        } else if (after) {
            at->position = place.position + place.count;
            at->count = after;
        } else {
            *at = segments->reserved[--segments->reserved_count];
        }
        return true;
    }
    return false;
}

int store_allocate(struct store *store, uint32_t blocks, struct place places[STORE_PLACES_MAX], uint32_t *count) {
    uint32_t n = 0;
    int rc = 0;
    PROMISE(blocks > 0 && blocks <= RECORD_BLOCKS_MAX);
    while (blocks > 0) {
        struct segment *segment = n < STORE_PLACES_MAX ? segment_current(store, &rc) : NULL;
        if (!segment) {
            rc = rc ? rc : -ENOSPC;
            break;
        }
        uint32_t take = MIN(blocks, store->segments.blocks - segment->head);
        rc = segment_back(store, segment, segment->head + take);
        if (rc == 0)
            rc = reserved_add(&store->segments, (struct place){segment->number, segment->head, take});
        if (rc)
            break;
        places[n++] = (struct place){segment->number, segment->head, take};
        segment->head += take;
        segment->live += take;
        segment->row_dirty = true;
        blocks -= take;
    }
    if (rc) {
        store_release(store, places, n);
        if (rc == -ENOSPC)
            store->space_short = true;
        return rc;
    }
    *count = n;
    return 0;
}

void store_release(struct store *store, const struct place *places, uint32_t count) {
    for (uint32_t i = count; i-- > 0;) {
        struct place place = places[i];
        PROMISE(reserved_take(&store->segments, place));
        struct segment *segment = segment_find(&store->segments, place.segment);
        PROMISE(segment != NULL);
        /* The head never goes back: a checkpoint may have it, and replay would meet the place twice. */
        if (dead_add(store, place) != 0)
            /* The transaction is broken and will be made anew: keep it reserved, the next open frees it. */
            PROMISE(reserved_add(&store->segments, place) == 0);
    }
}

int segment_claim(struct store *store, struct place place) {
    struct segments *segments = &store->segments;
    if (place.count == 0 || place.position >= segments->blocks || place.count > segments->blocks - place.position ||
        place.segment == 0 || place.segment == SEGMENT_NONE)
        return -EBADMSG;
    if (reserved_take(segments, place))
        return 0;
    /* Replay: the checkpoint does not know it yet. */
    if (!store->replaying && !store->restoring)
        return -EBADMSG;
    struct segment *segment = segment_find(segments, place.segment);
    if (!segment) {
        segment = segment_add(segments, place.segment);
        if (!segment)
            return -ENOMEM;
        segments->current = MAX(segments->current, place.segment);
    }
    if (place.position < segment->head) {
        /* Reserved by somebody who gave it back: partly below the head that the checkpoint knows. */
        reserved_cut(segments, place);
        if (place.position + place.count <= segment->head)
            return 0;
        segment->live += place.position + place.count - segment->head;
        segment->head = place.position + place.count;
        segment->row_dirty = true;
        return 0;
    }
    if (place.position > segment->head) {
        int rc = reserved_add(segments, (struct place){place.segment, segment->head, place.position - segment->head});
        if (rc)
            return rc;
    }
    segment->live += place.position + place.count - segment->head;
    segment->head = place.position + place.count;
    segment->row_dirty = true;
    return 0;
}

int segment_reserve_again(struct store *store, struct place place) {
    int rc = segment_claim(store, place);
    return rc ? rc : reserved_add(&store->segments, place);
}

void segment_mark(struct store *store, struct place place, bool big) {
    struct segment *segment = segment_find(&store->segments, place.segment);
    if (segment) {
        segment->unsynced = true;
        segment->unsynced_big |= big;
    }
}

int segment_freed(struct store *store, struct place place) {
    struct segment *segment = segment_find(&store->segments, place.segment);
    if (!segment || segment->live < place.count)
        return -EIO;
    segment->live -= place.count;
    segment->row_dirty = true;
    return 0;
}

int segment_adopt(struct store *store, const struct segments *others, uint32_t from, uint32_t *number) {
    struct segments *segments = &store->segments;
    char name[16], name_here[16];
    uint32_t next = segments->count ? segments->list[segments->count - 1].number + 1 : 1;
    next = MAX(next, segments->current + 1);
    if (next >= SEGMENT_NONE - 1)
        return -ENOSPC;
    segment_name(from, name);
    segment_name(next, name_here);
    int rc = segment_clear(segments, next); /* made in time for new blocks, or left by a batch that was refused */
    if (rc)
        return rc;
    if (linkat(others->directory_fd, name, segments->directory_fd, name_here, 0) < 0)
        return -errno;
    if (fsync(segments->directory_fd) < 0)
        store_fail(store, "fsync of the folder of segments failed: %s", strerror(errno));
    struct stat st;
    if (fstatat(segments->directory_fd, name_here, &st, 0) < 0)
        return -errno;
    struct segment *segment = segment_add(segments, next);
    if (!segment)
        return -ENOMEM;
    uint64_t head = ((uint64_t)st.st_size + BATON_BLOCK - 1) / BATON_BLOCK;
    segment->head = segment->live = segment->allocated = (uint32_t)MIN(head, segments->blocks);
    *number = next;
    return 0;
}

bool segments_shared(const struct segments *segments) {
    for (uint32_t i = 0; i < segments->count; i++) {
        char name[16];
        struct stat st;
        segment_name(segments->list[i].number, name);
        if (fstatat(segments->directory_fd, name, &st, 0) == 0 && st.st_nlink > 1)
            return true;
    }
    return false;
}

void segment_prepare_next(struct store *store) {
    /* The file only: its row comes with its first block. A file without a row is unlinked at the next open. */
    struct segments *segments = &store->segments;
    store_lock(store);
    struct segment *segment = segments->current ? segment_find(segments, segments->current) : NULL;
    uint32_t next = segment && segment->head > segments->blocks / 2 ? segment->number + 1 : 0;
    store_unlock(store);
    if (!next)
        return;
    char name[16];
    struct stat st;
    segment_name(next, name);
    if (fstatat(segments->directory_fd, name, &st, 0) < 0 && errno == ENOENT) {
        int fd = segment_fd_get(segments, next, true);
        if (fd >= 0)
            segment_fd_put(segments, fd);
    }
}

/* ---- rows ---- */

static struct key segment_key(uint32_t number) {
    struct key key = {.length = 4};
    be32_put(key.bytes, number);
    return key;
}

static struct key meta_key(const char *name) {
    struct key key = {.length = (uint16_t)strlen(name)};
    memcpy(key.bytes, name, key.length);
    return key;
}

int segments_save(struct store *store) {
    struct segments *segments = &store->segments;
    int rc;
    for (uint32_t i = 0; i < segments->count; i++) {
        struct segment *segment = &segments->list[i];
        if (!segment->row_dirty)
            continue;
        struct segment_row row = {segment->head, segment->live};
        struct key key = segment_key(segment->number);
        rc = table_put_raw(store, TABLE_SEGMENT, &key, &row, sizeof row);
        if (rc)
            return rc;
    }
    struct key key = meta_key("reserved");
    struct span old;
    rc = table_get(store, TABLE_META, &key, &old);
    if (rc && rc != -ENOENT)
        return rc;
    size_t length = segments->reserved_count * sizeof *segments->reserved;
    if (rc == 0 && old.length == length && (length == 0 || memcmp(old.data, segments->reserved, length) == 0))
        return 0;
    return table_put_raw(store, TABLE_META, &key, segments->reserved_count ? (void *)segments->reserved : "", length);
}

int segments_load(struct store *store) {
    struct segments *segments = &store->segments;
    struct cursor cursor;
    struct key start = {.length = 0};
    int rc = cursor_open(&cursor, store, NULL, TABLE_SEGMENT);
    if (rc)
        return rc;
    for (rc = cursor_seek(&cursor, &start); rc == 0; rc = cursor_next(&cursor)) {
        struct segment_row row;
        if (cursor.key.length != 4 || cursor.value.length != sizeof row) {
            rc = -EIO;
            break;
        }
        memcpy(&row, cursor.value.data, sizeof row);
        struct segment *segment = segment_add(segments, be32_get(cursor.key.data));
        if (!segment || row.head > segments->blocks || row.live > row.head) {
            rc = segment ? -EIO : -ENOMEM;
            break;
        }
        segment->head = row.head;
        segment->live = row.live;
        segment->row_dirty = false;
        segments->current = segment->number;
    }
    cursor_close(&cursor);
    if (rc != -ENOENT)
        return rc;
    struct key key = meta_key("reserved");
    struct span value;
    rc = table_get(store, TABLE_META, &key, &value);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    for (uint32_t at = 0; at + sizeof(struct place) <= value.length; at += sizeof(struct place)) {
        struct place place;
        memcpy(&place, value.data + at, sizeof place);
        rc = reserved_add(segments, place);
        if (rc)
            return rc;
    }
    return 0;
}

int segments_trim_files(struct store *store) {
    struct segments *segments = &store->segments;
    int rc;
    while (segments->reserved_count > 0) { /* handed out before the crash, used by no record */
        struct place place = segments->reserved[segments->reserved_count - 1];
        rc = dead_add(store, place);
        if (rc)
            return rc;
        segments->reserved_count--;
    }
    int fd = openat(segments->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return -errno;
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        char name[16];
        unsigned long number = strtoul(entry->d_name, NULL, 16);
        segment_name((uint32_t)number, name);
        if (number == 0 || number > UINT32_MAX || strcmp(name, entry->d_name) != 0)
            continue;
        /* With its descriptor, if the replay looked into it: the next segment may get this number. */
        if (!segment_find(segments, (uint32_t)number) && segment_unlink(segments, (uint32_t)number) != 0)
            log_warning("store %s: data/%s, which no record uses, cannot be removed", store->path, name);
    }
    closedir(directory);
    for (uint32_t i = 0; i < segments->count; i++) {
        struct segment *segment = &segments->list[i];
        struct stat st;
        char name[16];
        segment_name(segment->number, name);
        if (fstatat(segments->directory_fd, name, &st, 0) < 0) {
            log_error("store %s: data/%s is missing; run \"baton check\"", store->path, name);
            return -EIO;
        }
        bool shared = store->importing && st.st_nlink > 1; /* with the store that this one will replace */
        if (!shared &&
            ((uint64_t)st.st_size > (uint64_t)segment->head * BATON_BLOCK || segment->number == segments->current)) {
            fd = segment_fd_get(segments, segment->number, false);
            if (fd < 0)
                return fd;
            rc = ftruncate(fd, (off_t)segment->head * BATON_BLOCK) < 0 ? -errno : 0;
            segment_fd_put(segments, fd);
            if (rc)
                return rc;
        }
        segment->allocated = segment->head;
    }
    return 0;
}

/* ---- blocks (no lock) ---- */

static int write_directly(struct store *store, struct place place, const uint8_t *bytes, size_t length) {
    static const uint8_t zeros[BATON_BLOCK];
    size_t whole = (size_t)place.count * BATON_BLOCK;
    uint64_t offset = (uint64_t)place.position * BATON_BLOCK;
    int fd = segment_fd_get(&store->segments, place.segment, store->replaying);
    if (fd < 0)
        return fd;
    int rc = length ? pwrite_all(fd, bytes, length, offset) : 0;
    for (size_t done = length; rc == 0 && done < whole;) {
        size_t zero = MIN(whole - done, BATON_BLOCK - done % BATON_BLOCK);
        rc = pwrite_all(fd, zeros, zero, offset + done);
        done += zero;
    }
    segment_fd_put(&store->segments, fd);
    return rc;
}

int segment_overwrite(struct store *store, struct place place, const uint8_t bytes[BATON_BLOCK]) {
    return write_directly(store, place, bytes, BATON_BLOCK);
}

static void write_back(struct segments *segments, struct place place) {
    int fd = segment_fd_get(segments, place.segment, false);
    if (fd >= 0) {
        writeback_begin(fd, place);
        segment_fd_put(segments, fd);
        writeback_add(&segments->writeback, place);
    }
    while (writeback_take(&segments->writeback, &place)) {
        fd = segment_fd_get(segments, place.segment, false);
        if (fd >= 0) { /* else freed meanwhile and unlinked */
            writeback_drop(fd, place);
            segment_fd_put(segments, fd);
        }
    }
}

int store_write_blocks(struct store *store, const struct place *places, uint32_t count, const void *payload,
                       size_t length) {
    const uint8_t *at = payload ? payload : (const uint8_t *)""; /* all zeros: there may be none */
    /* The tail will carry it. (While an open replays the tail nobody is there yet to write it later.) */
    bool later = length <= STORE_INLINE_MAX && !store->replaying &&
                 !atomic_load(&store->segments.unbacked);
    for (uint32_t i = 0; i < count; i++) {
        struct place place = places[i];
        size_t take = MIN((size_t)place.count * BATON_BLOCK, length);
        uint32_t taken =
            later ? behind_put(&store->segments.behind, place.segment, place.position, place.count, at, take) : 0;
        size_t gone = MIN((size_t)taken * BATON_BLOCK, take);
        place.position += taken;
        place.count -= taken;
        int rc = place.count ? write_directly(store, place, at + gone, take - gone) : 0;
        if (rc)
            return rc;
        if (place.count >= WRITEBACK_MIN / BATON_BLOCK)
            write_back(&store->segments, place);
        at += take;
        length -= take;
    }
    return length ? -EINVAL : 0;
}

bool store_place_valid(const struct store *store, struct place place) {
    uint32_t blocks = store->segments.blocks;
    return place.segment > 0 && place.segment < SEGMENT_NONE && place.position < blocks &&
           place.count <= blocks - place.position;
}

int store_read_blocks(struct store *store, struct place place, void *buffer) {
    uint8_t *to = buffer;
    if (store->history)
        return history_read_blocks(store, place, buffer);
    int rc = 0;
    while (place.count > 0 && rc == 0) {
        uint32_t step;
        uint32_t here = behind_get(&store->segments.behind, place.segment, place.position, place.count, to, &step);
        if (here == 0) {
            int fd = segment_fd_get(&store->segments, place.segment, false);
            if (fd < 0)
                return fd;
            rc = pread_all(fd, to, (size_t)step * BATON_BLOCK, (uint64_t)place.position * BATON_BLOCK);
            segment_fd_put(&store->segments, fd);
            here = step;
        }
        place.position += here;
        place.count -= here;
        to += (size_t)here * BATON_BLOCK;
    }
    return rc;
}

static int write_behind(void *context, uint32_t segment, uint32_t first, uint32_t count, const uint8_t *bytes) {
    return write_directly(context, (struct place){segment, first, count}, bytes, (size_t)count * BATON_BLOCK);
}

int segments_flush(struct store *store) {
    return behind_flush(&store->segments.behind, write_behind, store);
}
