/* A state as it was (fs/history.h): its rows are made when it is opened. As long as it is open the journal is kept from there
 * on, unless that has reached its limit; then it is over, and so are its blocks. */
#include "fs/history.h"
#include "tests/simulator/sim.h"

#include <stdio.h>

struct sim_past {
    struct sim_past *next; /* of the store's */
    struct store *base;
    struct sim_record *last;
    uint64_t lsn;
    bool kept; /* until the journal is a quarter beyond its limit */
    struct sim_rows rows;
    int error;
};

uint64_t pasts_lowest(struct sim_past *pasts, bool kept) {
    uint64_t lowest = UINT64_MAX;
    for (; pasts; pasts = pasts->next)
        if (pasts->kept || !kept)
            lowest = MIN(lowest, pasts->lsn);
    return lowest;
}

void history_end_all(struct store *store, bool end) {
    (void)store, (void)end;
}

void history_keep(struct store *store) {
    (*store_past(store))->kept = true;
}

/* Of the base, whose lock is held. */
static int reach(const struct disk *disk, uint64_t lsn, const struct sim_record *last) {
    if (lsn > disk->lsn || lsn + 1 < disk->first)
        return -ENOENT;
    return last == (lsn ? disk->records[lsn - 1] : NULL) ? 0 : -ESTALE;
}

static int look(struct sim_past *past) {
    if (!past->error)
        past->error = reach(store_disk(past->base), past->lsn, past->last);
    if (past->error == -ENOENT && store_disk(past->base)->lsn < past->lsn)
        past->error = -ESTALE;
    return past->error;
}

const struct sim_rows *past_rows(struct sim_past *past, int *error) {
    *error = look(past);
    return &past->rows;
}

/* Reading the journal takes its time. */
static int read_journal(history_progress *progress, void *context) {
    int64_t left = sim_chance(4) ? sim_between(10 * SIM_MS, 4000 * SIM_MS) : sim_between(10 * US, 10 * SIM_MS);
    for (; left > 0; left -= 100 * SIM_MS) {
        sim_sleep(MIN(left, 100 * SIM_MS));
        if (progress && progress(context, 1, 2))
            return -ECANCELED;
    }
    return 0;
}

static void forget(struct sim_past *past) {
    struct sim_past **at = store_pasts(past->base);
    while (*at != past)
        at = &(*at)->next;
    *at = past->next;
}

int history_open(struct store *store, uint64_t lsn, const uint8_t *chain, history_progress *progress, void *context,
                 struct store **out, char *why, size_t room) {
    static const uint8_t none[CHAIN_SIZE];
    struct disk *disk = store_disk(store);
    struct sim_past *past = sim_alloc(sizeof *past);
    struct sim_state state;
    if (strcmp(sim_fiber_name(), "repl-provide") == 0)
        sim_fail("node %u reads its journal and lets others wait", store_node(store));
    store_lock(store);
    int rc = lsn > disk->lsn || lsn + 1 < disk->first ? -ENOENT : 0;
    if (rc == 0) {
        *past = (struct sim_past){.base = store, .lsn = lsn, .last = lsn ? disk->records[lsn - 1] : NULL};
        if (chain && memcmp(chain, past->last ? past->last->chain : none, CHAIN_SIZE) != 0)
            rc = -ESTALE;
    }
    if (rc == 0) {
        state_at(past->last, &state);
        rows_of_state(&state, disk->places, UINT32_MAX, &past->rows);
        past->next = *store_pasts(store);
        *store_pasts(store) = past;
    }
    store_unlock(store);
    if (rc == 0 && (rc = read_journal(progress, context)) != 0)
        forget(past);
    if (rc) {
        snprintf(why, room, "the state at record %llu cannot be read", (unsigned long long)lsn);
        return rc;
    }
    *out = store_model_make(disk, store_node(store));
    *store_past(*out) = past;
    return 0;
}

void history_close(struct store *store) {
    struct sim_past *past = *store_past(store);
    store_lock(past->base);
    forget(past);
    store_unlock(past->base);
    sim_free(past);
    sim_free(store);
}

int history_error(const struct store *store, char *why, size_t room) {
    int error = look(*store_past((struct store *)(uintptr_t)store));
    if (error)
        snprintf(why, room, "the state is over");
    return error;
}

void history_position(const struct store *store, struct position *position) {
    const struct sim_past *past = *store_past((struct store *)(uintptr_t)store);
    *position = (struct position){.lsn = past->lsn};
    if (!past->last)
        return;
    position->epoch = past->last->epoch;
    position->time = past->last->time;
    memcpy(position->chain, past->last->chain, CHAIN_SIZE);
}
