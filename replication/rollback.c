/* Rollback: this store's history has parted from the primary's. The last point that both share is looked for, what lies
 * beyond is written to a file (fs/undone.h) and taken back record by record; then the primary is asked again. If it cannot be
 * read whole, it cannot be kept so, and nobody else has it: the store is built anew, and the old one kept as it is (sync.c).
 *
 * Where they part: nearly always where the primary's epoch began, which its answer names. Else by halving the interval:
 * equal chains at one LSN mean equal histories up to it, so log2(n) questions find it in n records.
 */
#include "fs/undone.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#define PROBE_PATIENCE (2000 * MS)

/* Is the primary's chain at `lsn` ours? 0 with *same; -ENOENT: one of both does not reach back so far; -ETIMEDOUT. */
static int probe(struct replicator *r, unsigned node, uint64_t lsn, bool *same) {
    struct frame frame = {.head = {.type = WIRE_LOGIN, .flags = WIRE_PROBE}, .login = {.position = {.lsn = lsn}}};
    int rc = store_chain_at(r->store, lsn, frame.login.position.chain);
    if (rc)
        return rc;
    memcpy(frame.login.incarnation, r->incarnation, 16);
    while (frame.head.session == 0)
        PROMISE(getrandom(&frame.head.session, sizeof frame.head.session, 0) == sizeof frame.head.session);
    repl_lock(r);
    r->probe_session = frame.head.session;
    r->probe_verdict = 0;
    frame.head.epoch = r->value.epoch;
    talk_post(r, node, &frame);
    int64_t deadline = clock_boot() + PROBE_PATIENCE;
    while (!r->probe_verdict && repl_wait(r, &r->news, deadline))
        ;
    uint32_t verdict = r->probe_verdict;
    r->probe_session = 0;
    repl_unlock(r);
    *same = verdict == VERDICT_STREAM;
    if (verdict == VERDICT_STREAM || verdict == VERDICT_DIVERGED)
        return 0;
    return verdict == VERDICT_TRIMMED ? -ENOENT : -ETIMEDOUT;
}

void rollback_answer(struct replicator *r, const struct frame *frame) {
    if (frame->head.session && frame->head.session == r->probe_session) {
        r->probe_verdict = frame->answer.verdict;
        pthread_cond_broadcast(&r->news);
    }
}

void rollback_probe(struct replicator *r, struct link_message *message) {
    const struct wire_position *asked = &message->frame.login.position;
    struct frame reply = {
        .head = {.type = WIRE_ANSWER, .flags = WIRE_PROBE, .session = message->frame.head.session}};
    uint8_t chain[CHAIN_SIZE];
    int rc = store_chain_at(r->store, asked->lsn, chain);
    struct position own;
    store_position(r->store, &own);
    repl_lock(r);
    reply.head.epoch = r->value.epoch;
    reply.answer.position = r->position;
    if (r->role != ROLE_PRIMARY || r->changing)
        reply.answer.verdict = VERDICT_NOT_PRIMARY;
    else if (asked->lsn > own.lsn)
        reply.answer.verdict = VERDICT_DIVERGED;
    else if (rc)
        reply.answer.verdict = VERDICT_TRIMMED;
    else
        reply.answer.verdict = memcmp(chain, asked->chain, CHAIN_SIZE) == 0 ? VERDICT_STREAM : VERDICT_DIVERGED;
    link_send_frame(r->link, link_bound(r->link, LINK_CONTROL), &message->route, &reply);
    repl_unlock(r);
}

/* Every node had the records up to here on its disk once: whoever lacks one of them now is not this volume's newest copy,
 * but a store that was emptied, restored or replaced, whatever epoch it has come to. */
bool rollback_had_by_all(struct replicator *r, uint64_t fork) {
    repl_lock(r);
    bool had = fork < r->hold_told;
    repl_unlock(r);
    return had;
}

/* The last LSN at which both histories are one. */
static int find_fork(struct replicator *r, unsigned node, uint64_t hint, const uint8_t hint_chain[CHAIN_SIZE],
                     const struct position *own, uint64_t *fork) {
    uint8_t chain[CHAIN_SIZE];
    if (hint < own->lsn && store_chain_at(r->store, hint, chain) == 0 && memcmp(chain, hint_chain, CHAIN_SIZE) == 0) {
        *fork = hint;
        return 0;
    }
    uint64_t low = own->first - 1, high = own->lsn;
    bool same = false;
    int rc = probe(r, node, low, &same);
    bool known = rc == 0; /* else the primary's journal begins later: the point may lie there all the same */
    if (known && !same)
        return -ENOENT;
    while ((rc == 0 || rc == -ENOENT) && high - low > 1) { /* same or trimmed at low, another one at high */
        uint64_t middle = low + (high - low) / 2;
        rc = probe(r, node, middle, &same);
        if (rc == 0 && !same) {
            high = middle;
        } else {
            known = rc == 0;
            low = middle;
        }
    }
    *fork = low;
    return rc == 0 && !known ? -ENOENT : rc;
}

static void trouble(struct replicator *r, const char *text) {
    repl_lock(r);
    if (strcmp(r->trouble, text) != 0)
        log_warning("%s", text);
    snprintf(r->trouble, sizeof r->trouble, "%s", text);
    repl_unlock(r);
}

/* This primary, in this epoch, was asked, and a full synchronization is what there is to do. Lock held. */
static bool is_settled(const struct replicator *r) {
    return (r->sync.wanted || r->sync.given_up) && r->sync.node == r->follow.primary && r->sync.epoch == r->follow.epoch;
}

/* Lock held. */
static bool is_due(const struct replicator *r) {
    return !is_settled(r) && r->role == ROLE_STANDBY && !r->changing && r->follow.state == FOLLOW_REFUSED &&
           r->follow.verdict == VERDICT_DIVERGED && r->receiving == 0;
}

/* …by the same primary's word: looking for the fork took a while, in which another one may have begun to feed this store.
 * Lock held. */
static bool is_due_still(const struct replicator *r, unsigned node, epoch_t epoch) {
    return is_due(r) && r->follow.primary == node && r->follow.epoch == epoch;
}

static const char *what_to_do(int error) {
    if (error == -ENOSPC)
        return "it goes on when there is room on the disk";
    return "it is tried again";
}

/* What only this store has cannot be written to a file: see judge_tail in sync.c. */
static void say_kept_whole(struct replicator *r, unsigned node, uint64_t fork, const struct position *own) {
    char text[WIRE_TEXT];
    snprintf(text, sizeof text, "of records %" PRIu64 " to %" PRIu64 ", which node %.60s never had, not all can be read here "
             "(a bad block, say): they are not taken back. This store is built anew, and kept whole as it is, beside the new one",
             fork + 1, own->lsn, r->config->nodes[node].name);
    trouble(r, text);
}

static void roll_back(struct replicator *r, unsigned node, epoch_t epoch, uint64_t fork, const struct position *own) {
    char path[1400] = "", text[WIRE_TEXT];
    const char *name = r->config->nodes[node].name;
    repl_lock(r);
    bool due = is_due_still(r, node, epoch);
    if (due) {
        follow_stop(&r->follow); /* no login from a position that is about to go */
        primary_ring_clear(r);
    }
    repl_unlock(r);
    if (!due)
        return;
    log_info("rolling back records %" PRIu64 " to %" PRIu64 ", which node %s never had", fork + 1, own->lsn, name);
    int rc = store_rollback(r->store, fork, path, sizeof path);
    replicator_read_position(r);
    repl_lock(r);
    follow_start(&r->follow, r->lease, clock_boot());
    if (rc == -EBADMSG) { /* by this primary's word */
        r->follow.primary = node;
        r->follow.epoch = epoch;
        sync_want(r, node);
    }
    repl_unlock(r);
    if (rc == -EBADMSG) {
        say_kept_whole(r, node, fork, own);
        return;
    }
    if (rc)
        snprintf(text, sizeof text, "the records after LSN %" PRIu64 ", which node %.60s never had, cannot be taken back: %s; %s",
                 fork, name, strerror(-rc), what_to_do(rc));
    else
        snprintf(text, sizeof text, "records %" PRIu64 " to %" PRIu64 " were only here and are kept in %.300s", fork + 1,
                 own->lsn, path);
    if (rc)
        trouble(r, text);
    else
        log_warning("%s", text);
}

static void refuse(struct replicator *r, unsigned node, uint64_t fork, const struct position *own) {
    char text[WIRE_TEXT];
    const char *name = r->config->nodes[node].name;
    snprintf(text, sizeof text, "node %.60s is primary but lacks records %" PRIu64 " to %" PRIu64 " of this store, some of "
             "which every node had: nothing is taken back. If this copy is to stay, stop node %.60s and promote this one "
             "with --force; if the other, move this store away and format anew", name, fork + 1, own->lsn, name);
    trouble(r, text);
}

void rollback_consider(struct replicator *r) {
    struct position own;
    uint8_t hint_chain[CHAIN_SIZE];
    uint64_t fork = 0;
    repl_lock(r);
    bool due = is_due(r);
    unsigned node = r->follow.primary;
    epoch_t epoch = r->follow.epoch;
    uint64_t hint = r->follow.fork;
    memcpy(hint_chain, r->follow.fork_chain, CHAIN_SIZE);
    repl_unlock(r);
    if (!due)
        return;
    store_position(r->store, &own);
    if (epoch <= own.epoch) {
        trouble(r, "the primary's epoch is not newer than this store's last record: a person has to decide which copy "
                   "stays; nothing was taken back");
        return;
    }
    int rc = find_fork(r, node, hint, hint_chain, &own, &fork);
    if (rc == 0 && (fork == 0 || rollback_had_by_all(r, fork))) {
        refuse(r, node, fork, &own);
    } else if (rc == -ENOENT || (rc == 0 && fork + 1 < own.first)) {
        /* No common point that both journals still know (the epochs will tell), or none that this store can go back to. */
        repl_lock(r);
        if (is_due_still(r, node, epoch))
            sync_want(r, node);
        repl_unlock(r);
    } else if (rc == 0 && fork < own.lsn) {
        roll_back(r, node, epoch, fork, &own);
    }
}
