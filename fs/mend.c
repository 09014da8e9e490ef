#include "fs/mend.h"

#include "fs/history.h"
#include "fs/ops_parts.h"
#include "fs/store_internal.h"

#define VALUE "mend" /* the local value with the counts */

void mend_open(struct mend *mend) {
    memset(mend, 0, sizeof *mend);
    PROMISE(pthread_mutex_init(&mend->lock, NULL) == 0);
    PROMISE(pthread_cond_init(&mend->changed, NULL) == 0);
}

void mend_close(struct mend *mend) {
    pthread_mutex_destroy(&mend->lock);
    pthread_cond_destroy(&mend->changed);
}

static void mend_lock(struct mend *mend) {
    PROMISE(pthread_mutex_lock(&mend->lock) == 0);
}

static void mend_unlock(struct mend *mend) {
    PROMISE(pthread_mutex_unlock(&mend->lock) == 0);
}

/* ---- Counts ---------------------------------------------------------------------------------------------------------- */

void mend_load(struct store *store) {
    struct mend_counts counts;
    size_t length;
    int rc = store_meta_get(store, VALUE, &counts, sizeof counts, &length);
    if (rc == 0 && length == sizeof counts && counts.count <= MEND_NOTED)
        store->mend.counts = counts;
    else if (rc != -ENOENT)
        log_warning("store %s: how many blocks were bad cannot be read; it is counted anew", store->path);
}

void mend_counts(struct store *store, struct mend_counts *counts) {
    mend_lock(&store->mend);
    *counts = store->mend.counts;
    mend_unlock(&store->mend);
}

/* With a checkpoint soon, also if nothing else happens: the mended block becomes durable with it, too. */
static void save(struct store *store) {
    struct mend_counts counts;
    store_lock(store);
    mend_counts(store, &counts);
    int rc = store_meta_put(store, VALUE, &counts, sizeof counts);
    if (rc)
        log_warning("store %s: how many blocks were bad cannot be noted: %s", store->path, strerror(-rc));
    store->unsaved = true;
    store_unlock(store);
}

static uint32_t find_note(const struct mend_counts *counts, const struct mend_note *note) {
    uint32_t at = 0;
    while (at < counts->count && (counts->notes[at].data != note->data || counts->notes[at].block != note->block ||
                                  counts->notes[at].checksum != note->checksum))
        at++;
    return at;
}

static void remove_note(struct mend_counts *counts, uint32_t at) {
    counts->count--;
    memmove(&counts->notes[at], &counts->notes[at + 1], (counts->count - at) * sizeof counts->notes[0]);
}

/* Is it what the map says still? Lock held. */
static bool note_holds(struct store *store, const struct mend_note *note) {
    struct edge edge;
    struct edge noted = {.block = note->block, .written = true, .place = note->place, .checksum = note->checksum};
    return edge_look(store, note->data, note->block, &edge) != 0 || edge_is_same(&edge, &noted);
}

void mend_counts_now(struct store *store, struct mend_counts *counts) {
    struct mend *mend = &store->mend;
    store_lock(store);
    mend_lock(mend);
    uint32_t before = mend->counts.count;
    for (uint32_t at = before; at-- > 0;) {
        if (note_holds(store, &mend->counts.notes[at]))
            continue;
        remove_note(&mend->counts, at);
        mend->counts.unmended -= mend->counts.unmended > 0;
    }
    *counts = mend->counts;
    mend_unlock(mend);
    store_unlock(store);
    if (counts->count < before)
        save(store);
}

void mend_settle(struct store *store, uint64_t unmended) {
    struct mend_counts *counts = &store->mend.counts;
    mend_lock(&store->mend);
    uint64_t before = counts->unmended;
    counts->unmended = MIN(before, MAX(unmended, (uint64_t)counts->count));
    bool changed = counts->unmended != before;
    mend_unlock(&store->mend);
    if (changed)
        save(store);
}

static void count(struct store *store, const struct mend_note *note, bool mended) {
    struct mend_counts *counts = &store->mend.counts;
    mend_lock(&store->mend);
    uint32_t at = find_note(counts, note);
    bool known = at < counts->count;
    counts->found += !known;
    counts->mended += mended;
    if (known && mended) {
        counts->unmended -= counts->unmended > 0;
        remove_note(counts, at);
    } else if (!known && !mended) {
        counts->unmended++;
        if (counts->count == MEND_NOTED)
            remove_note(counts, 0);
        counts->notes[counts->count++] = *note;
    }
    mend_unlock(&store->mend);
    if (!known || mended)
        save(store);
}

/* ---- Mending --------------------------------------------------------------------------------------------------------- */

struct bad { /* what the map said of it */
    uint64_t ino, data;
    struct edge edge;
};

/* Lock held. 0, -ESTALE, or an error of the tables. */
static int look_again(struct store *store, uint64_t data, const struct edge *seen) {
    struct edge edge;
    int rc = edge_look(store, data, seen->block, &edge);
    return rc ? rc : edge_is_same(&edge, seen) ? 0 : -ESTALE;
}

static int still_mapped(struct store *store, const struct bad *bad) {
    store_lock(store);
    int rc = look_again(store, bad->data, &bad->edge);
    store_unlock(store);
    return rc;
}

int store_mend(struct store *store, uint64_t data, uint64_t block, struct place place, uint64_t checksum,
               const uint8_t *bytes) {
    struct edge edge = {.block = block, .written = true, .place = place, .checksum = checksum};
    if (place.count != 1 || block_checksum(bytes) != checksum)
        return -EINVAL;
    store_lock(store);
    int rc = look_again(store, data, &edge);
    if (rc == 0)
        rc = segment_overwrite(store, place, bytes);
    if (rc == 0) {
        segment_mark(store, place, false);
        store->unsaved = true;
    }
    store_unlock(store);
    return rc;
}

static const char *why_not(int error) {
    switch (error) {
    case -ENOTSUP:
        return "this volume has no other node to mend it from";
    case -ENOTCONN:
        return "no other node is there to mend it from; it is mended when it is read again and one is";
    case -ETIMEDOUT:
        return "no other node gave it in time; it is tried again when it is read again";
    default:
        return "no other node has a good copy of it either: restore the file from a backup";
    }
}

static int fetch(struct store *store, const struct bad *bad, uint8_t bytes[BATON_BLOCK]) {
    const struct store_watch *watch = &store->watch;
    if (!watch->fetch)
        return -ENOTSUP;
    int rc = watch->fetch(watch->context, bad->data, bad->edge.block, bad->edge.checksum, bytes);
    return rc == 0 && block_checksum(bytes) != bad->edge.checksum ? -EBADMSG : rc;
}

/* A disk may have millions of them. */
#define TELL_MAX 20u
#define TELL_EVERY 10000000000ll /* ns */
static enum log_level level(struct mend *mend, enum log_level wanted) {
    int64_t now = clock_boot();
    mend_lock(mend);
    if (mend->told == 0 || now - mend->told_since > TELL_EVERY) {
        mend->told_since = now;
        mend->told = 0;
    }
    bool last = mend->told == TELL_MAX;
    bool tells = mend->told++ < TELL_MAX;
    mend_unlock(mend);
    if (last)
        log_warning("more blocks are bad; \"baton status\" counts them");
    return tells ? wanted : LOG_LEVEL_DEBUG;
}

static int mend_one(struct store *store, const struct bad *bad, uint8_t bytes[BATON_BLOCK], enum mend_found *found) {
    const struct edge *edge = &bad->edge;
    struct mend_note note = {bad->ino, bad->data, edge->block, edge->place, edge->checksum, clock_now()};
    int rc = still_mapped(store, bad);
    if (rc == 0 && edge_read(store, edge, bytes) == 0)
        return 0;
    if (rc)
        return rc;
    int fetched = fetch(store, bad, bytes);
    rc = fetched ? still_mapped(store, bad)
                 : store_mend(store, bad->data, edge->block, edge->place, edge->checksum, bytes);
    if (rc == -ESTALE)
        return rc;
    bool mended = fetched == 0 && rc == 0;
    count(store, &note, mended);
    if (found)
        *found = mended ? FOUND_MENDED : FOUND_BAD;
    if (fetched) {
        log_write(level(&store->mend, LOG_LEVEL_ERROR),
                  "inode %llu: block %llu (of %u bytes) cannot be read or fails its checksum, and %s",
                  (unsigned long long)bad->ino, (unsigned long long)edge->block, BATON_BLOCK, why_not(fetched));
        return -EIO;
    }
    if (rc)
        log_write(level(&store->mend, LOG_LEVEL_ERROR),
                  "inode %llu: block %llu is bad here and was read from another node, but cannot be mended: %s",
                  (unsigned long long)bad->ino, (unsigned long long)edge->block, strerror(-rc));
    else
        log_write(level(&store->mend, LOG_LEVEL_WARNING),
                  "inode %llu: block %llu was bad here and has been mended from another node",
                  (unsigned long long)bad->ino, (unsigned long long)edge->block);
    return 0;
}

/* ---- One at a time for each block ------------------------------------------------------------------------------------ */

/* Who does the same already, and is not done; or room for who begins; else NULL. Lock held. */
static struct mending *find_mending(struct mend *mend, const struct bad *bad) {
    struct mending *room = NULL;
    for (unsigned i = 0; i < MEND_AT_ONCE; i++) {
        struct mending *one = &mend->under_way[i];
        if (one->used && !one->done && one->data == bad->data && one->block == bad->edge.block &&
            one->checksum == bad->edge.checksum)
            return one;
        if (!one->used)
            room = one;
    }
    return room;
}

static void leave(struct mend *mend, struct mending *one) {
    if (one->waiting == 0)
        one->used = false;
    PROMISE(pthread_cond_broadcast(&mend->changed) == 0);
}

static int join(struct mend *mend, struct mending *one, uint8_t bytes[BATON_BLOCK]) {
    one->waiting++;
    while (!one->done)
        PROMISE(pthread_cond_wait(&mend->changed, &mend->lock) == 0);
    int rc = one->result;
    if (rc == 0)
        memcpy(bytes, one->bytes, BATON_BLOCK);
    one->waiting--;
    leave(mend, one);
    return rc;
}

int mend_read(struct store *store, uint64_t ino, uint64_t data, uint64_t block, struct place place, uint64_t checksum,
              uint8_t bytes[BATON_BLOCK], enum mend_found *found) {
    struct bad bad = {ino, data, {.block = block, .written = true, .place = place, .checksum = checksum}};
    struct mend *mend = &store->mend;
    struct mending *one;
    int rc;

    if (history_is(store)) /* who reads the past tells what is wrong with it */
        return -EIO;
    mend_lock(mend);
    while (!(one = find_mending(mend, &bad)))
        PROMISE(pthread_cond_wait(&mend->changed, &mend->lock) == 0);
    if (one->used) {
        rc = join(mend, one, bytes);
        mend_unlock(mend);
        return rc;
    }
    *one = (struct mending){.used = true, .data = data, .block = block, .checksum = checksum};
    mend_unlock(mend);
    rc = mend_one(store, &bad, bytes, found);
    mend_lock(mend);
    one->done = true;
    one->result = rc;
    if (rc == 0)
        memcpy(one->bytes, bytes, BATON_BLOCK);
    leave(mend, one);
    mend_unlock(mend);
    return rc;
}
