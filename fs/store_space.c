/* Space: what is left, what new work may use, and LMDB's headroom. When space is short, history yields first; then new
 * work gets ENOSPC; deletes and trims go on in what was allocated ahead.
 */
#include "fs/store_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#define REFRESH_NS 200000000 /* how old a look at the disk may be */
#define TELL_NS 10000000000  /* the log hears of a change at most so often */
#define REFUSED_WAIT_NS 1000000000
#define PASSES_WAIT_NS 3000000000

static uint64_t meta_used(struct store *store) {
    MDB_envinfo info;
    mdb_env_info(store->env, &info);
    return ((uint64_t)info.me_last_pgno + 1) * META_PAGE;
}

int space_meta_headroom(struct store *store) {
    uint64_t used = meta_used(store);
    if (used + META_HEADROOM <= store->meta_allocated)
        return 0;
    for (uint64_t step = META_HEADROOM + (META_HEADROOM / 2); step >= (4u << 20); step /= 2) {
        uint64_t target = used + step;
        if (target <= store->meta_allocated)
            break;
        if (fallocate(store->meta_fd, 0, 0, (off_t)target) == 0 ||
            (errno == EOPNOTSUPP && ftruncate(store->meta_fd, (off_t)target) == 0)) {
            store->meta_allocated = target;
            break;
        }
        if (errno != ENOSPC && errno != EDQUOT)
            store_fail(store, "allocating space for the database failed: %s", strerror(errno));
    }
    if (store->meta_allocated < used + META_HEADROOM_MIN) {
        store->space_short = true;
        return -ENOSPC;
    }
    return 0;
}

/* Short when less than the reserve is left; no longer when there is clearly more. */
static void space_judge(struct store *store) {
    uint64_t reserve = store->options.reserve_bytes;
    uint64_t enough = store->space_short ? reserve + reserve / 4 : reserve;
    bool full = store->disk_free < enough || store->meta_allocated < meta_used(store) + META_HEADROOM_MIN;
    int64_t now = clock_boot();
    if (full != store->space_short && now - store->space_told > TELL_NS) {
        store->space_told = now;
        if (full && store->disk_free >= enough)
            log_warning("store %s: no room can be allocated ahead for the database: history is given up, and if that is "
                        "not enough new work gets ENOSPC until space is freed",
                        store->path);
        else if (full)
            log_warning("store %s: the disk is nearly full (%llu MiB left, the reserve is %llu MiB): history is given "
                        "up, and if that is not enough new work gets ENOSPC until space is freed",
                        store->path, (unsigned long long)(store->disk_free >> 20),
                        (unsigned long long)(reserve >> 20));
        else
            log_info("store %s: there is space again", store->path);
    }
    store->space_short = full;
}

bool space_low(const struct store *store) {
    return store->space_short || store->disk_free < 2 * store->options.reserve_bytes;
}

void space_refresh(struct store *store, bool force) {
    int64_t now = clock_boot();
    if (!force && now - store->space_checked < REFRESH_NS)
        return;
    struct statvfs fs;
    if (fstatvfs(store->directory_fd, &fs) < 0)
        return; /* the last look stands; real trouble shows at the next write */
    store->space_checked = now;
    store->disk_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    store->disk_total = (uint64_t)fs.f_blocks * fs.f_frsize;
    space_judge(store);
}

/* Lets the committer trim and punch, at most a few seconds. Lock given up meanwhile. */
static void wait_for_pass(struct store *store) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PASSES_WAIT_NS / 1000000000;
    /* Three passes, and one that may be under way: what the first one trims is punched when two checkpoints have it. */
    uint64_t passes = store->passes + 4;
    while (store->passes < passes && store->space_short) {
        store->checkpoint_wanted++;
        pthread_cond_signal(&store->work);
        if (pthread_cond_timedwait(&store->committed_cond, &store->lock, &until) == ETIMEDOUT)
            break;
    }
}

/* Rows stand for pages: as many as the headroom that is always there can hold. */
static bool batch_is_full(const struct store *store) {
    return store->position.lsn - store->committed > RECENT_ENTRIES / 2 || store->batch_bytes > 4 * BATCH_BYTES ||
           store->batch_rows > BATCH_ROWS_MAX;
}

static bool tail_is_full(const struct store *store) {
    return !tail_fits(&store->tail, RECORD_LENGTH_MAX + STORE_INLINE_MAX + 4096) && !tail_can_rotate(&store->tail);
}

int admit_space(struct store *store, enum space_class class) {
    int64_t began = clock_boot();
    bool primary = store->epoch != 0;
    if (store->txn_broken)
        store_wait_mended(store);
    while (batch_is_full(store) || tail_is_full(store)) { /* the disk is slower than its users: they wait */
        PROMISE(store->threads_running);
        /* The disk refuses what there is: nothing more can be taken on. Space may be freed in a moment. */
        if (store->commit_refused && clock_boot() - began > REFUSED_WAIT_NS)
            return -ENOSPC;
        if (tail_is_full(store) && store->checkpoint_wanted == store->checkpoint_done)
            store->checkpoint_wanted++;
        store->commit_wanted = true;
        pthread_cond_signal(&store->work);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&store->committed_cond, &store->lock, &until);
        if (primary && !store->epoch)
            return -EROFS; /* not in vain until a slow disk is done */
    }
    space_refresh(store, false);
    if (!store->space_short && store->disk_free < store->options.reserve_bytes)
        space_judge(store);
    if (class == SPACE_FREE || !store->space_short)
        return 0;
    if (store->threads_running)
        wait_for_pass(store);
    return store->space_short ? -ENOSPC : 0;
}

int store_admit(struct store *store, enum space_class class) {
    int rc = store->epoch ? admit_space(store, class) : -EROFS;
    return rc ? rc : (store->epoch ? 0 : -EROFS); /* the lock may have been given up, and the epoch ended, meanwhile */
}

void store_journal(struct store *store, struct store_journal *journal) {
    store_lock(store);
    const struct position_row *position = &store->position;
    *journal = (struct store_journal){.bytes = position->journal_bytes + position->kept_blocks * BATON_BLOCK,
                                      .limit = store->options.limit_bytes,
                                      .made = store->journal_made,
                                      .first = position->first,
                                      .last = position->lsn};
    store_unlock(store);
}

int store_space(struct store *store, struct store_space *space) {
    store_lock(store);
    space_refresh(store, false);
    uint64_t reserve = store->options.reserve_bytes;
    uint64_t held = 0;
    for (uint32_t i = 0; i < store->segments.count; i++)
        held += store->segments.list[i].live;
    *space = (struct store_space){.total = store->disk_total,
                                  .free = store->space_short || store->disk_free < reserve
                                              ? 0
                                              : store->disk_free - reserve,
                                  .live = store->position.live_blocks * BATON_BLOCK,
                                  .kept = store->position.kept_blocks * BATON_BLOCK,
                                  .meta = meta_used(store),
                                  .inodes = store->position.inodes};
    uint64_t known = store->position.live_blocks + store->position.kept_blocks;
    space->dead = held > known ? (held - known) * BATON_BLOCK : 0;
    for (int table = 0; table < TABLE_SHARED_END; table++) {
        MDB_stat stat;
        if (mdb_stat(store->txn, store->dbi[table], &stat) == 0)
            space->rows[table] = stat.ms_entries;
    }
    store_unlock(store);
    return 0;
}
