/* What this node has proposed to the register as the next primary, or itself, and whose outcome it does not know.
 *
 * Voters may have accepted it, or may have it on the way: then it is chosen when somebody completes it, however long after,
 * and though a majority still shows the value before. If this node followed that one's primary meanwhile, it would
 * acknowledge to a set that is another one when the proposal is chosen, without what has to be done before (everything on
 * the disk, where fewer answer for it). So it follows nobody until the proposal is known to be chosen, or void: by a ballot
 * of its own that chooses that value or meets another one, or by a newer value that somebody else has had chosen. (Whoever
 * made that one had a higher ballot, or this one would have met it. So an accept that is still on its way is refused by
 * all who have accepted the newer value, or one made from it, and ends no grant that rests on such. tests/model/lease.pml
 * knows no such news: there a node waits for its own ballot, and takes handovers of epochs above that one's only.)
 *
 * No such ballot while somebody holds the lease: voters would refuse it. The holder hears of it with a heartbeat, and writes
 * its value once more (set.c); one that does not know that word puts this node out of the set after the lease time.
 *
 * The next process has to know that, too, if its acknowledgements count: that is, if the store is the same incarnation to
 * it. So it is noted where that is (store_put_note). After a power cut neither is there: then nothing that it acknowledges
 * counts before a newer value has taken it into the set.
 *
 * Changes of the set in a primary's own epoch need none of this: set.c keeps them until they are settled, and when the
 * primary ceases, nobody else is primary before a newer value.
 *
 * A register without a lease is this node's own file, and what it reads there stays.
 */
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define AGAIN_LEAST (50 * MS)
#define AGAIN_MOST (500 * MS)

#define TROUBLE "what this node has proposed to the register may still be chosen; until that is known it follows nobody"

static int compare_over(const struct register_value *value, const struct proposed *proposed) {
    struct register_value over = {.version = proposed->over_version, .epoch = proposed->over_epoch};
    return register_compare(value, &over);
}

/* ---- The note -------------------------------------------------------------------------------------------------------- */

struct note {
    uint64_t version, epoch;
    uint8_t next[REGISTER_BYTES];
};
_Static_assert(sizeof(struct note) <= 4096, "it has room in the mark");

static void put_note(struct replicator *r) {
    struct note note = {.version = r->proposed.over_version, .epoch = r->proposed.over_epoch};
    if (r->elects)
        store_put_note(r->store, &note, offsetof(struct note, next) + register_encode(&r->proposed.next, note.next));
}

static bool get_note(struct replicator *r) {
    struct note note;
    size_t length = r->elects ? store_get_note(r->store, &note, sizeof note) : 0;
    if (length <= offsetof(struct note, next) ||
        register_decode(note.next, length - offsetof(struct note, next), &r->proposed.next) != 0)
        return false;
    r->proposed.over_version = note.version;
    r->proposed.over_epoch = note.epoch;
    return true;
}

static void drop_note(struct replicator *r) {
    if (r->elects)
        store_put_note(r->store, NULL, 0);
}

/* ---- Open and settled ------------------------------------------------------------------------------------------------ */

static void be_unsure(struct replicator *r) {
    repl_lock(r);
    if (!r->unsure)
        log_warning("%s", TROUBLE);
    r->changing = r->unsure = true;
    snprintf(r->trouble, sizeof r->trouble, "%s", TROUBLE);
    repl_unlock(r);
    r->proposed.again = clock_boot() + AGAIN_LEAST;
}

static void be_sure(struct replicator *r) {
    repl_lock(r);
    if (strcmp(r->trouble, TROUBLE) == 0)
        r->trouble[0] = 0;
    r->unsure = false;
    repl_unlock(r);
    drop_note(r);
}

int proposed_write(struct replicator *r, struct register_value *expected, const struct register_value *next) {
    struct proposed before = r->proposed;
    repl_lock(r);
    bool open = r->unsure;
    repl_unlock(r);
    r->proposed = (struct proposed){.over_version = expected->version, .over_epoch = expected->epoch, .next = *next};
    put_note(r);
    int rc = register_settle(r->volume->reg, expected, next);
    if (rc == -EINPROGRESS) {
        be_unsure(r);
    } else if (rc == 0 || rc == -ESTALE || !open) { /* of what was proposed in place of one value only one is ever chosen */
        be_sure(r);
    } else {
        r->proposed = before;
        put_note(r);
    }
    return rc;
}

/* The present value, if it is newer than what was to be replaced; -EAGAIN: not yet. */
static int settle(struct replicator *r, struct register_value *found) {
    struct reg *reg = r->volume->reg;
    const struct proposed *proposed = &r->proposed;
    char holder[64];
    int64_t wait;
    repl_lock(r);
    *found = r->value; /* somebody may have told it */
    repl_unlock(r);
    if (compare_over(found, proposed) > 0)
        return 0;
    int rc = reg->engine->read(reg, found);
    if (rc || compare_over(found, proposed) > 0)
        return rc;
    if (!r->elects)
        return 0;
    if (compare_over(found, proposed) < 0 || (found->version && r->elects->free(reg, holder, &wait) != 0))
        return -EAGAIN;
    rc = register_settle(reg, found, &proposed->next);
    if (rc == 0 && reg->engine->read(reg, found) != 0) /* with its voters, if it is the first one */
        return -EAGAIN;
    return rc == -ESTALE ? 0 : rc;
}

void proposed_look_again(struct replicator *r) {
    struct register_value found;
    int64_t now = clock_boot();
    repl_lock(r);
    bool due = r->unsure && (now >= r->proposed.again || r->switch_heard || r->value_heard);
    repl_unlock(r);
    if (!due)
        return;
    if (settle(r, &found) != 0) {
        r->proposed.again = clock_boot() + MIN(MAX(r->lease / 8, AGAIN_LEAST), AGAIN_MOST);
        return;
    }
    log_info("what this node has proposed to the register is settled: version %" PRIu64 " names %s", found.version,
             found.primary[0] ? found.primary : "nobody");
    roles_adopt(r, &found);
    be_sure(r);
    roles_resume_standby(r);
}

void proposed_load(struct replicator *r) {
    if (!get_note(r))
        return;
    if (compare_over(&r->value, &r->proposed) > 0)
        be_sure(r);
    else
        be_unsure(r);
}
