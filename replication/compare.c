/* Comparing copies, the end that answers: hashes of ranges of this node's rows as they were at one LSN, and the rows where a
 * hash was not the asker's (verify.c). For each node that asks one state of the past is kept (fs/history.h): its rows are
 * read in looks of so many, each in a short read transaction, so nothing pins LMDB's pages; what is held is the journal above
 * that LSN, which the volume's limit bounds. It goes with that node's word and with its silence. Primary or standby.
 *
 * The provider's thread; nothing that it does takes long: readers that wait for a block to be mended come next.
 */
#include "replication/parts.h"

#include "fs/compare.h"
#include "fs/history.h"

#include <inttypes.h>
#include <stdio.h>

#define ROWS_AT_ONCE 16384u /* hashed for one question */

struct kept {
    struct store *past; /* NULL: nothing */
    struct position state;
    int64_t asked;
};

struct compared {
    struct replicator *r;
    struct kept kept[CONFIG_NODES_MAX];
};

struct compared *compared_create(struct replicator *r) {
    struct compared *compared = calloc(1, sizeof *compared);
    PROMISE(compared);
    compared->r = r;
    return compared;
}

static const char *name_of(const struct compared *compared, unsigned node) {
    return compared->r->config->nodes[node].name;
}

static const char *own_name(const struct compared *compared) {
    return name_of(compared, compared->r->self);
}

/* ---- States ---------------------------------------------------------------------------------------------------------- */

static void close_past(struct compared *compared, unsigned node) {
    struct replicator *r = compared->r;
    struct kept *kept = &compared->kept[node];
    if (!kept->past)
        return;
    history_close(kept->past);
    *kept = (struct kept){0};
    repl_lock(r);
    r->compares[node].open = false;
    repl_unlock(r);
}

static bool is_state(const struct kept *kept, const struct wire_ask_copy *ask) {
    return kept->past && kept->state.lsn == ask->lsn && memcmp(kept->state.chain, ask->chain, CHAIN_SIZE) == 0;
}

struct patience {
    struct replicator *r;
    int64_t until;
};

/* Others wait for this thread meanwhile, among them readers of a block that is to be mended. */
static bool opens_in_vain(void *context, uint64_t done, uint64_t of) {
    const struct patience *patience = context;
    (void)done, (void)of;
    return atomic_load(&patience->r->stopping) || clock_boot() >= patience->until;
}

static void answer_open(struct compared *compared, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *answer) {
    struct replicator *r = compared->r;
    struct kept *kept = &compared->kept[node];
    struct position own;
    char why[WIRE_TEXT] = "";
    store_position(r->store, &own);
    if (own.lsn < ask->lsn) {
        provide_refuse(answer, -EAGAIN, "it is still at record %" PRIu64 "; verify again when it is in sync", own.lsn);
        return;
    }
    if (!is_state(kept, ask)) {
        close_past(compared, node);
        repl_lock(r);
        struct patience patience = {r, clock_boot() + r->compare_opens};
        repl_unlock(r);
        int rc = history_open(r->store, ask->lsn, ask->chain, opens_in_vain, &patience, &kept->past, why, sizeof why);
        if (rc == -ECANCELED)
            provide_refuse(answer, -ETIME, "it is %" PRIu64 " records further, too many to read back; verify again when both "
                           "are in sync", own.lsn - ask->lsn);
        else if (rc)
            provide_refuse(answer, rc, "%s", why);
        if (rc)
            return;
        history_position(kept->past, &kept->state);
        log_debug("node %s compares its copy with this one as it was at record %" PRIu64, name_of(compared, node), ask->lsn);
    }
    answer->epoch = kept->state.epoch;
    answer->time = kept->state.time;
}

/* ---- Hashes, rows ---------------------------------------------------------------------------------------------------- */

/* As many ranges as may be, the first one in any case. */
static int put_hashes(struct store *past, const struct wire_ask_copy *ask, uint8_t *to, uint32_t *count) {
    struct range range;
    uint32_t at = 0, left = ROWS_AT_ONCE, rows;
    int rc = 0;
    *count = 0;
    while (rc == 0 && wire_range_next(&ask->ranges, &at, &range) == 1) {
        struct wire_copy_hash item = {.over = 0};
        rc = range_hash(past, &range, left, item.hash, &rows);
        if (rc == -E2BIG && *count > 0)
            return 0; /* asked for again, alone */
        if (rc == -E2BIG) {
            item = (struct wire_copy_hash){.over = 1};
            rc = 0;
        }
        if (rc)
            return rc;
        memcpy(to + *count * sizeof item, &item, sizeof item);
        ++*count;
        left -= MIN(left, rows);
    }
    return rc;
}

struct putting {
    uint8_t *begin, *at;
    uint32_t count;
    size_t enough;
};

/* 1: no more. */
static int put_row(void *context, struct span key, struct span value) {
    struct putting *putting = context;
    size_t after = (size_t)(putting->at - putting->begin) + WIRE_COPY_ROW_HEAD + key.length + value.length;
    if (putting->count && after > putting->enough)
        return 1;
    if (WIRE_COPY_HEAD + after > WIRE_COPY_BYTES || key.length == 0 || key.length > KEY_MAX)
        return -EIO; /* no row of ours */
    putting->at = wire_copy_put_row(putting->at, key, value);
    putting->count++;
    return 0;
}

static int answer_from(struct compared *compared, struct kept *kept, const struct wire_ask_copy *ask, struct wire_copy *answer,
                       uint8_t *buffer) {
    struct replicator *r = compared->r;
    struct putting putting = {.begin = buffer + WIRE_COPY_HEAD, .at = buffer + WIRE_COPY_HEAD};
    struct range range;
    uint32_t at = 0;
    int rc = 0;
    if (ask->kind == COPY_HASHES) {
        rc = put_hashes(kept->past, ask, putting.begin, &answer->count);
        answer->bulk.length = answer->count * (uint32_t)sizeof(struct wire_copy_hash);
        return rc;
    }
    repl_lock(r);
    putting.enough = r->copy_bytes;
    repl_unlock(r);
    PROMISE(wire_range_next(&ask->ranges, &at, &range) == 1); /* wire_decode has seen to that */
    rc = range_rows(kept->past, &range, put_row, &putting);
    answer->table = range.table;
    answer->count = putting.count;
    answer->bulk.length = (uint32_t)(putting.at - putting.begin);
    answer->done = rc == 0;
    return rc < 0 ? rc : 0;
}

static void answer_rows(struct compared *compared, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *answer,
                        uint8_t *buffer) {
    struct kept *kept = &compared->kept[node];
    char why[WIRE_TEXT] = "";
    if (!is_state(kept, ask)) {
        provide_refuse(answer, -ESTALE, "node %s does not keep the state at record %" PRIu64 " (any more): it was restarted, or "
                       "was not asked for long", own_name(compared), ask->lsn);
        return;
    }
    store_lock(kept->past);
    int rc = history_error(kept->past, why, sizeof why);
    if (rc == 0)
        rc = answer_from(compared, kept, ask, answer, buffer);
    int error = history_error(kept->past, why, sizeof why);
    store_unlock(kept->past);
    if (error || rc)
        provide_refuse(answer, error ? error : rc, "%s",
                       error ? why : "a row of the store cannot be read; run baton check on it");
    if (error)
        close_past(compared, node);
}

/* ---- Questions ------------------------------------------------------------------------------------------------------- */

void compared_answer(struct compared *compared, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *answer,
                     uint8_t *buffer) {
    struct replicator *r = compared->r;
    struct kept *kept = &compared->kept[node];
    if (ask->kind == COPY_COMPARE)
        answer_open(compared, node, ask, answer);
    else if (ask->kind == COPY_COMPARED)
        close_past(compared, node);
    else
        answer_rows(compared, node, ask, answer, buffer);
    kept->asked = clock_boot();
    repl_lock(r);
    r->compares[node] = (struct compare_note){.open = kept->past != NULL, .lsn = kept->state.lsn, .last = kept->asked};
    repl_unlock(r);
}

void compared_close_idle(struct compared *compared) {
    for (unsigned node = 0; node < compared->r->count; node++)
        if (compared->kept[node].past && clock_boot() - compared->kept[node].asked > COMPARE_IDLE) {
            log_info("the state at record %" PRIu64 " is no longer kept for node %s, which compared its copy with it: it has "
                     "not asked for long", compared->kept[node].state.lsn, name_of(compared, node));
            close_past(compared, node);
        }
}

void compared_free(struct compared *compared) {
    for (unsigned node = 0; node < compared->r->count; node++)
        close_past(compared, node);
    free(compared);
}

json_t *compared_status(const struct replicator *r) {
    json_t *list = json_array();
    int64_t now = clock_boot();
    for (unsigned node = 0; node < r->count; node++)
        if (r->compares[node].open)
            json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "node", r->config->nodes[node].name, "lsn",
                                                  (json_int_t)r->compares[node].lsn, "last_ms",
                                                  (json_int_t)((now - r->compares[node].last) / MS)));
    return list;
}
