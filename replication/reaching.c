/* For nodes that copy this store whole: does the journal reach until they are fed (reach.h)? What is known of them here, and
 * how much they have still to be given. What new work may make for their sake goes into slow.c with the rest.
 */
#include "replication/parts.h"

#define REACHING_PATIENCE (30000 * MS) /* who asks nothing for so long has other troubles: completing takes less */
#define ROW_BYTES 160u                 /* of a row, before there were any */

static bool somebody_copies(const struct replicator *r) {
    for (unsigned i = 0; i < r->count; i++)
        if (r->copies[i].open)
            return true;
    return false;
}

/* Records are of about one size. */
static uint64_t bytes_above(const struct store_journal *journal, uint64_t lsn) {
    if (lsn >= journal->last || journal->last < journal->first)
        return 0;
    uint64_t records = journal->last - journal->first + 1;
    return journal->bytes / records * MIN(journal->last - lsn, records);
}

void reaching_begin(struct replicator *r, unsigned node) {
    struct store_journal journal;
    store_journal(r->store, &journal);
    repl_lock(r);
    struct copy_note *copy = &r->copies[node];
    r->journal = journal;
    if (copy->open)
        reach_begin(&copy->reach, bytes_above(&journal, copy->lsn), journal.made);
    repl_unlock(r);
}

void reaching_measure(struct replicator *r) {
    struct store_journal journal;
    repl_lock(r);
    bool copies = somebody_copies(r);
    repl_unlock(r);
    if (!copies)
        return;
    store_journal(r->store, &journal);
    repl_lock(r);
    r->journal = journal;
    repl_unlock(r);
}

/* About. What it will want of the map that it has not seen yet is as much as of the rest. */
static uint64_t bytes_left(const struct copy_note *copy) {
    uint64_t blocks = copy->wanted, rows = copy->has_rows ? 0 : copy->rows_of - MIN(copy->rows, copy->rows_of);
    uint64_t of_rows = copy->bytes - MIN(copy->blocks * BATON_BLOCK, copy->bytes);
    if (blocks == UINT64_MAX)
        blocks = copy->blocks_of - MIN(copy->blocks, copy->blocks_of);
    else if (rows)
        blocks = MIN(copy->rows ? blocks + blocks / copy->rows * rows : copy->blocks_of, MAX(copy->blocks_of, blocks));
    return rows * (copy->rows ? of_rows / copy->rows : ROW_BYTES) + blocks * BATON_BLOCK;
}

uint64_t reaching_limit(struct replicator *r, unsigned node, int64_t now) {
    struct copy_note *copy = &r->copies[node];
    const struct peer *peer = &r->peers[node];
    if (!copy->open)
        return REACH_NEVER;
    if (peer->feed.state == FEED_STREAMING) { /* nothing is trimmed that it lacks; and the copy is complete */
        reach_end(&copy->reach);
        return REACH_NEVER;
    }
    bool away = now - peer->heard > MAX(2 * r->lease, 5000 * MS) || now - copy->last > REACHING_PATIENCE;
    struct reach_rule rule = {.limit = r->journal.limit, .floor = r->config->catchup_floor};
    struct reach_sight sight = {.left = bytes_left(copy),
                                .given = copy->bytes,
                                .made = r->journal.made,
                                .total = r->total,
                                .away = away || r->config->catchup_share == 0,
                                .held = pace_holds(&r->pace, now)};
    reach_look(&copy->reach, &rule, &sight, now);
    return reach_quota(&copy->reach);
}

void reaching_show(const struct replicator *r, unsigned node, json_t *shown) {
    const struct copy_note *copy = &r->copies[node];
    json_object_set_new(shown, "journal_bytes", json_integer((json_int_t)reach_need(&copy->reach, r->journal.made)));
    json_object_set_new(shown, "journal_limit", json_integer((json_int_t)r->journal.limit));
    json_object_set_new(shown, "seconds_left", json_integer((json_int_t)(copy->reach.left_ms / 1000)));
    json_object_set_new(shown, "slows", json_boolean(copy->reach.slows));
}
