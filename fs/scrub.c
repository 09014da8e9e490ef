#include "fs/scrub.h"

#include "fs/apply.h"
#include "fs/extent.h"
#include "fs/ops_parts.h"
#include "fs/store_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#define VALUE "scrub" /* the local value */
#define ROWS 256u     /* of the map looked at in one snapshot… */
#define PORTION 2048u /* …or blocks, if that is less */
#define CHUNK 32u     /* blocks in one read */
#define INODES 4096u  /* looked at in one snapshot */
#define NOTE_EVERY 3000000000ll /* ns */
#define LOOK_EVERY 1000000000ll /* while nothing is to be done */
#define COMMIT_WAIT 3000000000ll
#define A_MOMENT 50000000ll
#define BEHIND_MAX 500000000ll  /* what could not be read in time is not made good by reading faster */

struct span_of_blocks { /* blocks that lie side by side */
    uint64_t data, first;
    struct place place;
    uint32_t checksum; /* index of the first one's */
};

struct scrub {
    struct store *store;
    struct scrub_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
    struct scrub_state state; /* under the lock */
    unsigned begun; /* passes, of this process; under the lock */
    unsigned at;    /* the one that the thread is at: it may have been ended, and another begun */

    /* The thread's. */
    struct span_of_blocks *spans; /* ROWS */
    uint64_t *checksums;          /* PORTION and what is over in the last row */
    uint32_t count;
    bool at_end; /* no row follows */
    uint8_t *buffer; /* CHUNK blocks, aligned */
    int fd; /* of segment `segment`; -1: none */
    uint32_t segment;
    bool direct; /* past the page cache */
    bool no_direct; /* the file system has no such thing */
    int64_t due, noted;
    uint64_t last_data, last_ino;
};

static void scrub_lock(struct scrub *scrub) {
    PROMISE(pthread_mutex_lock(&scrub->lock) == 0);
}

static void scrub_unlock(struct scrub *scrub) {
    PROMISE(pthread_mutex_unlock(&scrub->lock) == 0);
}

/* ---- What is noted --------------------------------------------------------------------------------------------------- */

static void note(struct scrub *scrub) {
    struct store *store = scrub->store;
    struct scrub_state state;
    store_lock(store);
    scrub_get(scrub, &state);
    int rc = store_meta_put(store, VALUE, &state, sizeof state);
    if (rc)
        log_warning("store %s: how far the scrub is cannot be noted: %s", store->path, strerror(-rc));
    store->unsaved = true;
    store_unlock(store);
    scrub->noted = clock_boot();
}

static void load(struct scrub *scrub) {
    struct scrub_state state;
    size_t length;
    store_lock(scrub->store);
    int rc = store_meta_get(scrub->store, VALUE, &state, sizeof state, &length);
    store_unlock(scrub->store);
    if (rc || length != sizeof state || state.now.file_count > SCRUB_FILES ||
        state.last.file_count > SCRUB_FILES) {
        if (rc != -ENOENT)
            log_warning("store %s: what scrubs found cannot be read; it begins anew", scrub->store->path);
        return;
    }
    scrub->state = state;
    if (!state.running)
        return;
    scrub->state.now.resumed++;
    if (scrub->state.now.rate == 0)
        scrub->state.now.rate = scrub->options.rate;
    log_info("the scrub goes on where it was interrupted, after %llu MiB of about %llu",
             (unsigned long long)(state.now.blocks * BATON_BLOCK >> 20),
             (unsigned long long)(state.now.of * BATON_BLOCK >> 20));
}

void scrub_get(struct scrub *scrub, struct scrub_state *state) {
    scrub_lock(scrub);
    *state = scrub->state;
    scrub_unlock(scrub);
}

/* ---- Waiting --------------------------------------------------------------------------------------------------------- */

static void wait_until(struct scrub *scrub, int64_t at) { /* lock held */
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t left = at - clock_boot();
    if (left <= 0)
        return;
    int64_t then = (int64_t)until.tv_sec * 1000000000 + until.tv_nsec + left;
    until.tv_sec = then / 1000000000;
    until.tv_nsec = then % 1000000000;
    pthread_cond_timedwait(&scrub->changed, &scrub->lock, &until);
}

static bool goes_on(const struct scrub *scrub) { /* lock held */
    return !scrub->stop && scrub->state.running && scrub->at == scrub->begun;
}

/* False: not any more. */
static bool wait_a_moment(struct scrub *scrub) {
    scrub_lock(scrub);
    if (goes_on(scrub))
        wait_until(scrub, clock_boot() + A_MOMENT);
    bool on = goes_on(scrub);
    scrub_unlock(scrub);
    return on;
}

/* `blocks` are about to be read: waits for their time. False: not any more. */
static bool pace(struct scrub *scrub, uint32_t blocks) {
    scrub_lock(scrub);
    scrub->due = MAX(scrub->due, clock_boot() - BEHIND_MAX);
    while (goes_on(scrub) && clock_boot() < scrub->due)
        wait_until(scrub, scrub->due);
    bool on = goes_on(scrub);
    if (on)
        scrub->due += (int64_t)((double)blocks * BATON_BLOCK * 1e9 / (double)scrub->state.now.rate);
    scrub_unlock(scrub);
    return on;
}

/* ---- The map --------------------------------------------------------------------------------------------------------- */

/* The row that has (data, block), or the first one behind it. */
static int seek(struct cursor *cursor, uint64_t data, uint64_t block) {
    struct key key = key_u64_u64(data, block + 1);
    struct extent extent;
    int rc = cursor_seek_before(cursor, &key);
    if (rc == 0)
        rc = extent_parse(cursor->key, cursor->value, &extent);
    if (rc == 0 && extent.data == data && extent.first + extent.place.count > block)
        return 0;
    if (rc && rc != -ENOENT)
        return rc;
    key = key_u64_u64(data, block);
    return cursor_seek(cursor, &key);
}

static void take_row(struct scrub *scrub, const struct extent *extent, uint32_t *blocks) {
    if (!extent->checksums)
        return;
    scrub->spans[scrub->count++] = (struct span_of_blocks){extent->data, extent->first, extent->place, *blocks};
    memcpy(scrub->checksums + *blocks, extent->checksums, extent->place.count * sizeof *scrub->checksums);
    *blocks += extent->place.count;
}

/* Rows of the newest commit, from (data, block) on; *data and *block are where the next portion begins. */
static int look(struct scrub *scrub, uint64_t *data, uint64_t *block) {
    struct snapshot *snapshot;
    struct cursor cursor;
    struct extent extent;
    uint32_t blocks = 0, rows = 0;
    int rc = store_snapshot(scrub->store, &snapshot);
    scrub->count = 0;
    if (rc)
        return rc;
    rc = cursor_open(&cursor, scrub->store, snapshot, TABLE_EXTENT);
    if (rc) {
        snapshot_close(snapshot);
        return rc;
    }
    for (rc = seek(&cursor, *data, *block); rc == 0 && rows < ROWS; rc = cursor_next(&cursor), rows++) {
        rc = extent_parse(cursor.key, cursor.value, &extent);
        if (rc || (extent.checksums && extent.place.count > PORTION - blocks && blocks > 0))
            break;
        if (extent.checksums && extent.place.count > PORTION) {
            rc = -EIO; /* no row of ours */
            break;
        }
        take_row(scrub, &extent, &blocks);
        *data = extent.data;
        *block = extent.first + extent.place.count;
    }
    scrub->at_end = rc == -ENOENT;
    cursor_close(&cursor);
    snapshot_close(snapshot);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- Whose block is it ----------------------------------------------------------------------------------------------- */

/* 1: found. *after goes on. */
static int look_for_data(struct store *store, uint64_t data, uint64_t *after, uint64_t *ino) {
    struct snapshot *snapshot;
    struct cursor cursor;
    struct key key = key_u64(*after + 1);
    int rc = store_snapshot(store, &snapshot);
    if (rc)
        return rc;
    rc = cursor_open(&cursor, store, snapshot, TABLE_INODE);
    if (rc == 0) {
        rc = cursor_seek(&cursor, &key);
        for (uint32_t rows = 0; rc == 0 && rows < INODES; rc = cursor_next(&cursor), rows++) {
            struct inode_row row;
            if (cursor.key.length != 8 || cursor.value.length < sizeof row)
                continue;
            memcpy(&row, cursor.value.data, sizeof row);
            *after = be64_get(cursor.key.data);
            if (row.data == data) {
                *ino = *after;
                rc = 1;
                break;
            }
        }
        cursor_close(&cursor);
    }
    snapshot_close(snapshot);
    return rc;
}

/* 0: not known. All inodes are looked at, in short snapshots: blocks are not bad often. */
static uint64_t inode_of(struct scrub *scrub, uint64_t data) {
    uint64_t after = 0, ino = 0;
    if (scrub->last_data == data)
        return scrub->last_ino;
    while (look_for_data(scrub->store, data, &after, &ino) == 0)
        ;
    scrub->last_data = data;
    scrub->last_ino = ino;
    return ino;
}

/* ---- Reading --------------------------------------------------------------------------------------------------------- */

static void close_segment(struct scrub *scrub) {
    if (scrub->fd >= 0)
        close(scrub->fd);
    scrub->fd = -1;
}

static int open_segment(struct scrub *scrub, uint32_t segment) {
    char name[16];
    if (scrub->fd >= 0 && scrub->segment == segment)
        return 0;
    close_segment(scrub);
    segment_name(segment, name);
    scrub->direct = !scrub->no_direct;
    scrub->fd = openat(scrub->store->segments.directory_fd, name, O_RDONLY | O_CLOEXEC | (scrub->direct ? O_DIRECT : 0));
    scrub->segment = segment;
    return scrub->fd < 0 ? -errno : 0;
}

static void forget_pages(const struct scrub *scrub, struct place place) {
    writeback_drop(scrub->fd, place);
}

/* What was read once may be right in memory, and wrong on the disk. The kernel drops its large pages as a whole only. */
#define LARGE_PAGE (512u) /* blocks */
static void forget_around(const struct scrub *scrub, struct place place) {
    forget_pages(scrub, (struct place){place.segment, place.position - place.position % LARGE_PAGE, LARGE_PAGE});
}

static int read_chunk(struct scrub *scrub, struct place place) {
    int rc = open_segment(scrub, place.segment);
    if (rc == 0)
        rc = pread_all(scrub->fd, scrub->buffer, (size_t)place.count * BATON_BLOCK, (uint64_t)place.position * BATON_BLOCK);
    if (rc == -EINVAL && scrub->direct) { /* said when it is opened, or when it is read */
        close_segment(scrub);
        scrub->no_direct = true;
        return read_chunk(scrub, place);
    }
    if (rc == 0 && !scrub->direct)
        forget_pages(scrub, place);
    return rc;
}

static void count_bad(struct scrub *scrub, uint64_t ino, uint64_t data, uint64_t block, bool mended) {
    struct scrub_pass *pass = &scrub->state.now;
    scrub_lock(scrub);
    if (scrub->at == scrub->begun) {
        pass->found++;
        pass->mended += mended;
        pass->unmended += !mended;
        if (!mended && pass->file_count < SCRUB_FILES)
            pass->files[pass->file_count++] = (struct scrub_file){ino, data, block};
    }
    scrub_unlock(scrub);
}

/* Is it there still, and wrong when a reader reads it? Whose it is takes longer to find. */
static bool is_bad(struct store *store, uint64_t data, const struct edge *seen) {
    uint8_t bytes[BATON_BLOCK];
    struct edge edge;
    store_lock(store);
    int rc = edge_look(store, data, seen->block, &edge);
    store_unlock(store);
    return rc == 0 && edge_is_same(&edge, seen) && edge_read(store, seen, bytes) != 0;
}

/* It did not read right from the disk: looked at again with the map, as a reader would, and mended. What is in memory only
 * yet, was overwritten or has gone is not bad. */
static void judge(struct scrub *scrub, uint64_t data, uint64_t block, struct place place, uint64_t checksum) {
    const struct edge seen = {.block = block, .written = true, .place = place, .checksum = checksum};
    uint8_t bytes[BATON_BLOCK];
    enum mend_found found = FOUND_RIGHT;
    if (scrub->fd >= 0)
        forget_around(scrub, place);
    close_segment(scrub); /* its number may be another's by now */
    if (!is_bad(scrub->store, data, &seen))
        return;
    uint64_t ino = inode_of(scrub, data);
    int rc = mend_read(scrub->store, ino, data, block, place, checksum, bytes, &found);
    if (rc == -EIO || found != FOUND_RIGHT)
        count_bad(scrub, ino, data, block, found == FOUND_MENDED);
}

static bool read_span(struct scrub *scrub, const struct span_of_blocks *span) {
    for (uint32_t at = 0; at < span->place.count; at += CHUNK) {
        struct place place = {span->place.segment, span->place.position + at, MIN(CHUNK, span->place.count - at)};
        if (!pace(scrub, place.count))
            return false;
        int rc = read_chunk(scrub, place);
        for (uint32_t i = 0; i < place.count; i++) {
            uint64_t checksum = scrub->checksums[span->checksum + at + i];
            if (rc || block_checksum(scrub->buffer + (size_t)i * BATON_BLOCK) != checksum)
                judge(scrub, span->data, span->first + at + i, (struct place){place.segment, place.position + i, 1},
                      checksum);
        }
        scrub_lock(scrub);
        if (scrub->at == scrub->begun)
            scrub->state.now.blocks += place.count;
        scrub_unlock(scrub);
    }
    return true;
}

/* ---- A pass ---------------------------------------------------------------------------------------------------------- */

static void begin(struct scrub *scrub, uint64_t rate) { /* lock held */
    scrub->state.now = (struct scrub_pass){.begun = clock_now(), .rate = rate ? rate : scrub->options.rate};
    scrub->state.data = scrub->state.block = 0;
    scrub->state.running = 1;
    scrub->begun++;
    PROMISE(pthread_cond_broadcast(&scrub->changed) == 0);
}

static void end(struct scrub *scrub, bool stopped) { /* lock held */
    scrub->state.now.ended = clock_now();
    scrub->state.now.stopped = stopped;
    scrub->state.last = scrub->state.now;
    scrub->state.running = 0;
    PROMISE(pthread_cond_broadcast(&scrub->changed) == 0);
}

static void tell(struct scrub *scrub) {
    struct scrub_state state;
    scrub_get(scrub, &state);
    log_write(state.last.unmended ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO,
              "scrub: %llu MiB read, %llu bad blocks found, %llu mended, %llu not mended%s",
              (unsigned long long)(state.last.blocks * BATON_BLOCK >> 20), (unsigned long long)state.last.found,
              (unsigned long long)state.last.mended, (unsigned long long)state.last.unmended,
              state.last.unmended ? "; \"baton scrub --status\" says of which files" : "");
}

static void advance(struct scrub *scrub, const struct span_of_blocks *span) {
    scrub_lock(scrub);
    if (goes_on(scrub)) {
        scrub->state.data = span->data;
        scrub->state.block = span->first + span->place.count;
    }
    scrub_unlock(scrub);
    if (clock_boot() - scrub->noted > NOTE_EVERY)
        note(scrub);
}

/* One portion. False: the pass has ended or is not to go on. */
static bool step(struct scrub *scrub) {
    struct scrub_state state;
    scrub_get(scrub, &state);
    int64_t begun = clock_boot();
    uint64_t data = state.data, block = state.block;
    int rc = look(scrub, &data, &block);
    if (rc == -EAGAIN) /* too many read at the same time */
        return wait_a_moment(scrub);
    bool on = rc == 0;
    for (uint32_t i = 0; on && i < scrub->count; i++) {
        on = read_span(scrub, &scrub->spans[i]);
        if (on)
            advance(scrub, &scrub->spans[i]);
    }
    scrub_lock(scrub);
    if (scrub->at == scrub->begun)
        scrub->state.now.spent += clock_boot() - begun;
    on = on && goes_on(scrub);
    if (on) {
        scrub->state.data = data;
        scrub->state.block = block;
    }
    uint64_t unmended = scrub->state.now.unmended;
    bool ended = (on && scrub->at_end) || (rc && goes_on(scrub));
    if (ended)
        end(scrub, rc != 0);
    scrub_unlock(scrub);
    if (rc)
        log_error("the scrub ends: the map cannot be read (%s); run baton check on this store", strerror(-rc));
    if (ended && rc == 0)
        mend_settle(scrub->store, unmended);
    if (ended)
        tell(scrub);
    return on && !ended;
}

static void count_map(struct scrub *scrub) {
    struct store_space space;
    if (store_space(scrub->store, &space) != 0)
        return;
    scrub_lock(scrub);
    scrub->state.now.of = space.live / BATON_BLOCK;
    scrub_unlock(scrub);
}

/* Snapshots show what is committed. What a full disk keeps from being committed is not waited for. */
static void wait_for_commit(struct scrub *scrub) {
    struct position begun, now;
    int64_t until = clock_boot() + COMMIT_WAIT;
    store_position(scrub->store, &begun);
    do
        store_position(scrub->store, &now);
    while (now.committed < begun.lsn && clock_boot() < until && wait_a_moment(scrub));
}

static void pass(struct scrub *scrub) {
    scrub->last_data = 0;
    scrub->due = clock_boot();
    wait_for_commit(scrub);
    count_map(scrub);
    note(scrub);
    while (step(scrub))
        ;
    close_segment(scrub);
    note(scrub);
}

/* When nobody has asked. */
static bool is_time(const struct scrub *scrub) {
    return scrub->options.every > 0 &&
           clock_now() - scrub->state.last.begun >= (int64_t)scrub->options.every * 1000000000;
}

/* Behind all others at the disk, and at the processor behind those who serve. */
static void be_humble(void) {
    syscall(SYS_ioprio_set, 1 /* of a thread */, 0 /* this one */, 3 << 13 /* idle */);
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
}

static void *run(void *argument) {
    struct scrub *scrub = argument;
    be_humble();
    scrub_lock(scrub);
    while (!scrub->stop) {
        if (!scrub->state.running && is_time(scrub))
            begin(scrub, 0);
        if (!scrub->state.running) {
            wait_until(scrub, clock_boot() + LOOK_EVERY);
            continue;
        }
        scrub->at = scrub->begun;
        scrub_unlock(scrub);
        pass(scrub);
        scrub_lock(scrub);
    }
    scrub_unlock(scrub);
    return NULL;
}

/* ---- From outside ---------------------------------------------------------------------------------------------------- */

static void scrub_free(struct scrub *scrub) {
    free(scrub->spans);
    free(scrub->checksums);
    free(scrub->buffer);
    free(scrub);
}

int scrub_open(struct store *store, const struct scrub_options *options, struct scrub **out) {
    struct scrub *scrub = calloc(1, sizeof *scrub);
    if (!scrub)
        return -ENOMEM;
    *scrub = (struct scrub){.store = store, .options = *options, .fd = -1};
    scrub->spans = calloc(ROWS, sizeof *scrub->spans);
    scrub->checksums = calloc(PORTION, sizeof *scrub->checksums);
    scrub->buffer = aligned_alloc(BATON_BLOCK, CHUNK * BATON_BLOCK);
    if (!scrub->spans || !scrub->checksums || !scrub->buffer) {
        scrub_free(scrub);
        return -ENOMEM;
    }
    pthread_condattr_t monotonic;
    PROMISE(pthread_condattr_init(&monotonic) == 0);
    PROMISE(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&scrub->changed, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
    PROMISE(pthread_mutex_init(&scrub->lock, NULL) == 0);
    load(scrub);
    int rc = -pthread_create(&scrub->thread, NULL, run, scrub);
    if (rc) {
        scrub_free(scrub);
        return rc;
    }
    pthread_setname_np(scrub->thread, "scrub");
    *out = scrub;
    return 0;
}

void scrub_close(struct scrub *scrub) {
    if (!scrub)
        return;
    scrub_lock(scrub);
    scrub->stop = true;
    PROMISE(pthread_cond_broadcast(&scrub->changed) == 0);
    scrub_unlock(scrub);
    pthread_join(scrub->thread, NULL);
    pthread_mutex_destroy(&scrub->lock);
    pthread_cond_destroy(&scrub->changed);
    scrub_free(scrub);
}

int scrub_start(struct scrub *scrub, uint64_t rate) {
    int rc = 0;
    scrub_lock(scrub);
    if (!scrub->state.running)
        begin(scrub, rate);
    else
        rc = -EALREADY;
    if (rc && rate) {
        scrub->state.now.rate = rate;
        scrub->due = clock_boot();
        PROMISE(pthread_cond_broadcast(&scrub->changed) == 0);
    }
    scrub_unlock(scrub);
    return rc;
}

int scrub_stop(struct scrub *scrub) {
    scrub_lock(scrub);
    bool running = scrub->state.running;
    if (running)
        end(scrub, true);
    scrub_unlock(scrub);
    return running ? 0 : -ENOENT;
}
