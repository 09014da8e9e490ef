#include "membership/voter_desk_parts.h"

#include <stdio.h>

#define AGAIN_AFTER INT64_C(1000000000) /* after a save that failed, where renewals depend on the next one */

/* ---- The saver --------------------------------------------------------------------------------------------------------- */

/* When something is to be saved: 0: now; INT64_MAX: nobody knows. */
static int64_t due(const struct desk *desk) {
    int64_t next = INT64_MAX;
    for (unsigned i = 0; i < desk->count && next; i++) {
        const struct entry *entry = desk->entries[i];
        if (entry->to_save)
            next = 0;
        else if (entry->again_at)
            next = MIN(next, entry->again_at);
    }
    return next;
}

bool desk_wait(struct desk *desk) {
    int64_t next;
    pthread_mutex_lock(&desk->lock);
    while (!desk->stop && (next = due(desk)) > clock_boot()) {
        struct timespec until;
        if (next == INT64_MAX) {
            pthread_cond_wait(&desk->work, &desk->lock);
            continue;
        }
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t at = until.tv_nsec + (next - clock_boot());
        until.tv_sec += at / 1000000000;
        until.tv_nsec = at % 1000000000;
        if (until.tv_nsec >= 0)
            pthread_cond_timedwait(&desk->work, &desk->lock, &until);
    }
    bool go_on = !desk->stop;
    pthread_mutex_unlock(&desk->lock);
    return go_on;
}

void desk_stop(struct desk *desk) {
    pthread_mutex_lock(&desk->lock);
    desk->stop = true;
    pthread_cond_broadcast(&desk->work);
    pthread_mutex_unlock(&desk->lock);
}

void desk_take(struct desk *desk, struct desk_batch *batch) {
    batch->count = 0;
    pthread_mutex_lock(&desk->lock);
    int64_t now = clock_boot();
    unsigned seen = 0;
    for (; seen < desk->count && batch->count < DESK_BATCH; seen++) {
        struct entry *entry = desk->entries[(desk->turn + seen) % desk->count];
        bool again = entry->again_at && now >= entry->again_at;
        if (!entry->to_save && !again)
            continue;
        if (!entry->to_save)
            entry->changed++; /* as it is: whatever the disk has will be overwritten */
        entry->to_save = false;
        entry->again_at = 0;
        if (now >= entry->older_until)
            entry->voter.state.lease_ms = (uint32_t)(entry->lease / 1000000);
        memcpy(batch->rows[batch->count].volume, entry->volume, 16);
        batch->rows[batch->count].state = entry->voter.state;
        batch->upto[batch->count++] = entry->changed;
    }
    desk->turn = desk->count ? (desk->turn + seen) % desk->count : 0;
    pthread_mutex_unlock(&desk->lock);
}

static void renew_again(const struct desk *desk, struct entry *entry, struct desk_waiting *waiting) {
    struct voter_answer *given = &waiting->answer.answer;
    voter_renew(&entry->voter, waiting->renewal.from, waiting->renewal.epoch, waiting->renewal.session, clock_boot(), given);
    entry_as_durable(entry, given);
    entry_note_free_at(desk, entry);
}

/* Those that may go, in their order. */
static struct desk_waiting *release_saved(const struct desk *desk, struct entry *entry) {
    struct desk_waiting *go = NULL, **go_end = &go, **at = &entry->first;
    while (*at) {
        struct desk_waiting *each = *at;
        if (each->needs > entry->saved || (each->again && entry->unsure)) {
            at = &each->next;
            continue;
        }
        *at = each->next;
        each->next = NULL;
        if (each->node < CONFIG_NODES_MAX)
            entry->nodes[each->node].waiting--;
        if (each->again)
            renew_again(desk, entry, each);
        *go_end = each;
        go_end = &each->next;
    }
    entry->end = at;
    return go;
}

/* The voter goes on as if nobody had asked; what the disk has, nobody knows until a save succeeds. */
static struct desk_waiting *forget(struct entry *entry, int rc) {
    snprintf(entry->why, sizeof entry->why, "this voter's state cannot be written: %s", strerror(-rc));
    uint32_t lease_ms = MAX(entry->durable.lease_ms, entry->voter.state.lease_ms);
    entry->voter.state = entry->durable;
    entry->voter.state.lease_ms = entry->durable.lease_ms = lease_ms;
    entry->changed = entry->saved;
    entry->to_save = false;
    entry->again_at = entry->unsure ? clock_boot() + AGAIN_AFTER : 0;
    return entry_refuse_all(entry, entry->why);
}

static struct desk_waiting *settle(const struct desk *desk, struct entry *entry, const struct voter_state *state, uint64_t upto, int rc) {
    if (rc)
        return forget(entry, rc);
    entry->durable = *state;
    entry->saved = upto;
    entry->why[0] = '\0';
    if (entry->saved == entry->changed)
        entry->unsure = false;
    return release_saved(desk, entry);
}

struct desk_waiting *desk_saved(struct desk *desk, const struct desk_batch *batch, int rc) {
    struct desk_waiting *go = NULL, **end = &go;
    pthread_mutex_lock(&desk->lock);
    for (unsigned i = 0; i < batch->count; i++) {
        struct entry *entry = entry_find(desk, batch->rows[i].volume);
        if (!entry) /* dropped meanwhile */
            continue;
        *end = settle(desk, entry, &batch->rows[i].state, batch->upto[i], rc);
        while (*end)
            end = &(*end)->next;
    }
    pthread_mutex_unlock(&desk->lock);
    return go;
}
