/* Full synchronization, the receiving end: a store that the primary's journal no longer reaches is built anew beside the old
 * one, from the primary's rows as of one LSN and from those of its blocks that the old store does not have (fs/import.h).
 * Everything is asked for (provide.c), a question may be lost and is asked again, and how far it has got is in the new
 * store; so it goes on after whatever interrupts it, with the same primary, as long as that has the state still.
 *
 * What the old store has beyond the last common point is kept first: as a file of undone records, or, if its own journal does
 * not reach back so far, or cannot be read whole, with the whole store. Then batond replaces the store (volume->renewal) and
 * starts the replicator again, which logs in at the new store's position and catches up from the journal.
 */
#include "fs/generation.h"
#include "fs/import.h"
#include "fs/text.h"
#include "fs/undone.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>

#define QUESTIONS 8u               /* for blocks, under way at the same time */
#define ASK_AGAIN (2000 * MS)      /* without an answer; for blocks, twice as long each time, up to… */
#define ASK_AGAIN_MAX (32000 * MS) /* …this */
#define OPEN_AGAIN (10000 * MS)    /* likewise: the provider may have to read a long journal */
#define AFTER_FAILURE (1000 * MS)
#define BUSY_PAUSE (300 * MS)
#define RECEIVE_TIMEOUT_MS 100
#define SILENCE (10000 * MS) /* after this status says that nothing is answered */
#define PASS_PAUSE (500 * MS)
#define PASSES 3u /* through what is wanted, before what the provider cannot give counts as unreadable */

struct question {
    uint64_t number; /* 0: free */
    int64_t sent, patience;
    struct import_want wants[COPY_PLACES_MAX];
    unsigned count;
};

struct syncing {
    struct replicator *r;
    unsigned node;
    void *socket;
    struct import *import;
    struct import_state state;
    uint64_t number; /* of the last question */
    uint64_t pieces; /* of blocks that have been asked for */
    struct question questions[QUESTIONS];
    unsigned pass;
    bool unreadable; /* what only the old store has can be kept with the whole store only */
    struct frame frame; /* the question that is being made: large */
    char *why;
    size_t room;
};

/* ---- Is it wanted still? --------------------------------------------------------------------------------------------- */

void sync_want(struct replicator *r, unsigned node) {
    if (r->role != ROLE_STANDBY || (r->sync.given_up && r->sync.node == node && r->sync.epoch == r->follow.epoch))
        return;
    if (r->sync.given_up) /* because of another one */
        r->sync.why[0] = 0;
    r->sync.given_up = false;
    r->sync.epoch = r->follow.epoch;
    if (!r->sync.wanted || r->sync.node != node) {
        r->sync.wanted = true;
        r->sync.node = node;
        r->sync.since = clock_boot();
        r->sync.silent_since = 0;
        log_warning("node %s cannot feed this store from its journal any more; the store is built anew from it",
                    r->config->nodes[node].name);
    }
    pthread_cond_signal(&r->sync_work);
}

void sync_unwant(struct replicator *r) {
    if (r->sync.phase == SYNC_DONE)
        return; /* batond is at it */
    if (r->follow.state == FOLLOW_STREAMING && r->sync.given_up) { /* by one that has all that is here */
        r->sync.given_up = false;
        r->sync.why[0] = 0;
    }
    r->sync.wanted = false;
    r->sync.phase = SYNC_IDLE;
    r->sync.silent_since = 0;
}

static bool still_wanted(const struct syncing *s) {
    struct replicator *r = s->r;
    repl_lock(r);
    bool wanted = !atomic_load(&r->stopping) && r->role == ROLE_STANDBY && !r->changing && r->sync.wanted &&
                  r->sync.node == s->node;
    repl_unlock(r);
    return wanted;
}

static int say(struct syncing *s, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int say(struct syncing *s, int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(s->why, s->room, format, arguments);
    va_end(arguments);
    text_mend(s->why);
    return error;
}

static void show(struct syncing *s, enum sync_phase phase) {
    struct import_progress progress = import_progress(s->import);
    repl_lock(s->r);
    if (s->r->sync.wanted) {
        if (s->r->sync.phase != phase) {
            s->r->sync.phase = phase;
            s->r->sync.phase_since = clock_boot();
            s->r->sync.fetched_before = progress.fetched;
        }
        s->r->sync.progress = progress;
        s->r->sync.lsn = s->state.lsn;
    }
    repl_unlock(s->r);
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

static struct wire_ask_copy *question(struct syncing *s, enum copy_kind kind) {
    memset(&s->frame, 0, sizeof s->frame);
    s->frame.head.type = WIRE_ASK_COPY;
    struct wire_ask_copy *ask = &s->frame.ask;
    ask->number = ++s->number;
    ask->kind = kind;
    ask->lsn = s->state.lsn;
    memcpy(ask->chain, s->state.chain, CHAIN_SIZE);
    memcpy(ask->incarnation, s->state.incarnation, sizeof ask->incarnation);
    return ask;
}

/* False: something was answered lately, or nothing has been asked. Lock held. */
static bool silence(const struct replicator *r, char *text, size_t room) {
    char address[160];
    int64_t ns = r->sync.silent_since ? clock_boot() - r->sync.silent_since : 0;
    if (ns < SILENCE)
        return false;
    link_address(r->link, r->sync.node, LINK_COPY, address, sizeof address);
    snprintf(text, room,
             "node %.60s has answered nothing for %" PRId64 " s at %.60s, its port for copies: look whether a firewall lets "
             "this node through to that port, too, and at that node's log; it is asked again and again",
             r->config->nodes[r->sync.node].name, ns / (1000 * MS), address);
    return true;
}

static void send(struct syncing *s) {
    struct replicator *r = s->r;
    char text[WIRE_TEXT];
    repl_lock(r);
    s->frame.head.epoch = r->value.epoch;
    if (r->sync.wanted && r->sync.silent_since == 0) {
        r->sync.silent_since = clock_boot();
        r->sync.silence_told = false;
    } else if (r->sync.wanted && !r->sync.silence_told && silence(r, text, sizeof text)) {
        r->sync.silence_told = true;
        log_warning("%s", text);
    }
    repl_unlock(r);
    link_send_frame(s->r->link, s->socket, NULL, &s->frame); /* what does not go is asked again */
}

static int receive(struct syncing *s, struct link_message *message) {
    int rc = link_receive(s->r->link, s->socket, (int)s->node, false, message);
    if (rc == 0) {
        repl_lock(s->r);
        s->r->sync.silent_since = 0;
        repl_unlock(s->r);
    }
    return rc;
}

/* It reads a long journal, for this node or another. */
static void wait_for_provider(struct syncing *s, const char *text) {
    repl_lock(s->r);
    snprintf(s->r->sync.why, sizeof s->r->sync.why, "%s", text);
    repl_sleep(s->r, &s->r->sync_work, BUSY_PAUSE);
    s->r->sync.why[0] = 0;
    repl_unlock(s->r);
}

/* Sends the question until it is answered. 0: `answer` is to be given back; -ECANCELED: not wanted any more. */
static int ask(struct syncing *s, int64_t again, struct link_message *answer) {
    uint64_t number = s->frame.ask.number;
    while (still_wanted(s)) {
        send(s);
        int64_t until = clock_boot() + again;
        while (clock_boot() < until && still_wanted(s)) {
            int rc = receive(s, answer);
            if (rc == -ETERM)
                return -ECANCELED;
            if (rc)
                continue;
            bool fits = answer->frame.head.type == WIRE_COPY && answer->frame.copy.number == number;
            if (fits && answer->frame.copy.error != EBUSY)
                return 0;
            if (fits) {
                until = clock_boot();
                wait_for_provider(s, answer->frame.copy.text);
            }
            link_message_done(answer);
        }
    }
    return -ECANCELED;
}

/* ---- The beginning --------------------------------------------------------------------------------------------------- */

static int wait_for_space(struct syncing *s) {
    repl_lock(s->r);
    snprintf(s->r->sync.why, sizeof s->r->sync.why, "the disk is full: it goes on when there is space");
    repl_sleep(s->r, &s->r->sync_work, AFTER_FAILURE);
    s->r->sync.why[0] = 0;
    repl_unlock(s->r);
    return still_wanted(s) ? 0 : -ECANCELED;
}

/* With what has been fetched, if `keep` and if that can be. */
static int begin_again(struct syncing *s, bool keep) {
    int rc = keep ? import_again(s->import) : -EBUSY;
    while (rc == -ENOSPC || rc == -EAGAIN) {
        rc = wait_for_space(s);
        rc = rc ? rc : import_again(s->import);
    }
    if (rc == 0 || rc == -ECANCELED)
        return rc;
    rc = import_discard(s->import);
    s->import = NULL;
    if (rc)
        return say(s, rc, "what had been built cannot be removed: %s", strerror(-rc));
    return import_open(s->r->store, &s->import, s->why, s->room);
}

/* What the new store, built so far or complete, is the state of. False: nothing has been begun. */
static bool begun_state(struct syncing *s) {
    struct position position;
    memset(&s->state, 0, sizeof s->state);
    if (import_phase(s->import) != IMPORT_COMPLETE)
        return import_state(s->import, &s->state);
    import_position(s->import, &position); /* whose it was does not matter any more */
    s->state = (struct import_state){.lsn = position.lsn, .epoch = position.epoch, .time = position.time};
    memcpy(s->state.chain, position.chain, CHAIN_SIZE);
    return true;
}

static void take_totals(struct syncing *s, const struct wire_copy *copy) {
    repl_lock(s->r);
    s->r->sync.rows = 0;
    for (unsigned i = 0; i < TABLE_SHARED_END; i++)
        s->r->sync.rows += copy->rows[i];
    s->r->sync.blocks = copy->blocks;
    repl_unlock(s->r);
}

/* -EAGAIN: a commit was refused, and there may be another state now. */
static int begin_state(struct syncing *s) {
    int rc = import_begin(s->import, &s->state);
    if (rc == -ENOSPC || rc == -EAGAIN || rc == -EEXIST)
        return wait_for_space(s) ? -ECANCELED : -EAGAIN;
    return rc ? say(s, rc, "the new store cannot be begun: %s", strerror(-rc)) : 0;
}

/* The provider keeps the state that has been begun, or its newest one. 1: what has been built is of no use, begin again;
 * -EAGAIN: look again. */
static int open_state(struct syncing *s) {
    struct link_message answer;
    bool begun = begun_state(s);
    question(s, COPY_OPEN);
    int rc = ask(s, OPEN_AGAIN, &answer);
    if (rc)
        return rc;
    const struct wire_copy *copy = &answer.frame.copy;
    if (begun && (copy->error == ENOENT || copy->error == ESTALE)) {
        rc = 1;
    } else if (copy->error) {
        rc = say(s, -(int)copy->error, "node %s: %.300s", s->r->config->nodes[s->node].name, copy->text);
    } else if (begun && (copy->lsn != s->state.lsn || memcmp(copy->chain, s->state.chain, CHAIN_SIZE) != 0)) {
        rc = say(s, -EBADMSG, "node %s keeps another state than the one that was asked for",
                 s->r->config->nodes[s->node].name);
    } else {
        take_totals(s, copy);
        s->state = (struct import_state){.lsn = copy->lsn, .epoch = copy->epoch, .time = copy->time};
        memcpy(s->state.chain, copy->chain, CHAIN_SIZE);
        memcpy(s->state.incarnation, copy->incarnation, sizeof s->state.incarnation);
        if (!begun)
            rc = begin_state(s);
    }
    link_message_done(&answer);
    return rc;
}

/* ---- Rows ------------------------------------------------------------------------------------------------------------ */

struct walk {
    const struct wire_copy *copy;
    uint32_t at;
};

static int next_row(void *context, struct span *key, struct span *value) {
    struct walk *walk = context;
    return wire_copy_row_next(walk->copy, &walk->at, key, value);
}

static int fetch_rows_once(struct syncing *s) {
    enum table table;
    struct link_message answer;
    struct key after;
    import_next_rows(s->import, &table, &after);
    struct wire_ask_copy *asked = question(s, COPY_ROWS);
    asked->table = table;
    asked->after = after;
    asked->data = import_progress(s->import).wanted + 1;
    int rc = ask(s, ASK_AGAIN, &answer);
    if (rc)
        return rc;
    const struct wire_copy *copy = &answer.frame.copy;
    if (copy->error) {
        rc = say(s, -(int)copy->error, "node %s: %.300s", s->r->config->nodes[s->node].name, copy->text);
    } else if (copy->kind != COPY_ROWS || copy->table != table || copy->lsn != s->state.lsn ||
               memcmp(copy->chain, s->state.chain, CHAIN_SIZE) != 0) {
        rc = say(s, -EBADMSG, "node %s answers with rows of another state", s->r->config->nodes[s->node].name);
    } else {
        struct walk walk = {.copy = copy};
        rc = import_rows(s->import, table, &after, next_row, &walk, copy->done);
        if (rc == -EAGAIN)
            rc = 0; /* a commit was refused meanwhile: something else is wanted now */
        if (rc && rc != -ENOSPC)
            say(s, rc, "rows of node %s cannot be taken: %s", s->r->config->nodes[s->node].name, strerror(-rc));
    }
    link_message_done(&answer);
    return rc;
}

static int judge_tail(struct syncing *s, bool *aside, uint64_t *common);

static int fetch_rows(struct syncing *s) {
    enum table table;
    struct key after;
    bool judged = false, aside;
    uint64_t common;
    int rc = 0;
    while (rc == 0 && import_next_rows(s->import, &table, &after) == 0) {
        if (!still_wanted(s))
            return -ECANCELED;
        if (!judged && import_common_point(s->import, &common) == 0) { /* before anything is taken over */
            rc = judge_tail(s, &aside, &common);
            if (rc == 0 && !aside && undone_check(s->r->store, common) == -EBADMSG)
                s->unreadable = aside = true;
            if (rc == 0 && aside)
                rc = import_keep_old(s->import);
            judged = true;
        }
        if (rc == 0)
            rc = fetch_rows_once(s);
        if (rc == -ENOSPC)
            rc = wait_for_space(s);
        show(s, SYNC_ROWS);
    }
    return rc;
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------------- */

static struct question *question_of(struct syncing *s, uint64_t number) {
    for (unsigned i = 0; i < QUESTIONS; i++)
        if (s->questions[i].number == number)
            return &s->questions[i];
    return NULL;
}

/* The next question's pieces; *after goes on. False: there are no more behind it. */
static int fill_question(struct syncing *s, struct question *q, struct import_want *after, bool *has_after) {
    struct import_want wants[COPY_PLACES_MAX]; /* the first fits into any question */
    unsigned count, blocks = 0, most = s->r->sync_blocks;
    int rc = import_wanted(s->import, *has_after ? after : NULL, wants, COPY_PLACES_MAX, &count);
    q->count = 0;
    for (unsigned i = 0; rc == 0 && i < count && (i == 0 || blocks + wants[i].place.count <= most); i++) {
        blocks += wants[i].place.count;
        q->wants[q->count++] = wants[i];
        s->pieces++;
        *after = wants[i];
        *has_after = true;
    }
    return rc;
}

/* Again under the same number: the first answer counts, however late it is. */
static void send_question(struct syncing *s, struct question *q) {
    struct wire_ask_copy *asked = question(s, COPY_PLACES);
    if (q->number) {
        asked->number = q->number;
        q->patience = MIN(2 * q->patience, ASK_AGAIN_MAX);
    } else {
        q->patience = ASK_AGAIN;
    }
    asked->place_count = q->count;
    asked->data = import_progress(s->import).wanted + 1;
    for (unsigned i = 0; i < q->count; i++)
        asked->places[i] = q->wants[i].place;
    q->number = asked->number;
    q->sent = clock_boot();
    send(s);
}

static int take_piece(struct syncing *s, const struct import_want *want, int error, struct span blocks) {
    int rc;
    if (error && error != -EIO)
        return 0; /* it may be able to in a moment: asked for again in the next pass */
    if (error || blocks.length != want->place.count * BATON_BLOCK)
        rc = -EBADMSG;
    else
        rc = import_blocks(s->import, want, blocks.data);
    if (rc == -EBADMSG && s->pass >= PASSES && want->place.count > 1) {
        rc = import_split(s->import, want); /* all but one may be good */
    } else if (rc == -EBADMSG && s->pass >= PASSES) {
        log_error("data %" PRIu64 ", blocks %" PRIu64 " to %" PRIu64 ": node %s cannot read them either; they stay unreadable "
                  "here", want->data, want->first, want->first + want->place.count - 1, s->r->config->nodes[s->node].name);
        rc = import_blocks(s->import, want, NULL);
    }
    if (rc == -ENOSPC)
        return wait_for_space(s); /* asked for again in the next pass */
    return rc == -EBADMSG || rc == -ENOENT ? 0 : rc;
}

static int take_blocks(struct syncing *s, const struct link_message *answer) {
    const struct wire_copy *copy = &answer->frame.copy;
    struct question *q = answer->frame.head.type == WIRE_COPY ? question_of(s, copy->number) : NULL;
    uint32_t at = 0;
    int rc = 0, error;
    if (!q || copy->number == 0)
        return 0;
    q->number = 0;
    if (copy->error)
        return say(s, -(int)copy->error, "node %s: %.300s", s->r->config->nodes[s->node].name, copy->text);
    for (unsigned i = 0; rc == 0 && i < q->count; i++) {
        struct span blocks;
        if (wire_copy_blocks_next(copy, &at, &error, &blocks) != 1)
            break;
        rc = take_piece(s, &q->wants[i], error, blocks);
    }
    if (rc && rc != -ECANCELED)
        say(s, rc, "blocks of node %s cannot be written: %s", s->r->config->nodes[s->node].name, strerror(-rc));
    return rc;
}

/* One way through what is wanted. *asked: how many pieces. */
static int blocks_pass(struct syncing *s, uint64_t *asked) {
    struct import_want after;
    bool has_after = false, more = true;
    unsigned under_way = 0;
    int rc = 0;
    memset(s->questions, 0, sizeof s->questions);
    *asked = 0;
    while (rc == 0 && (more || under_way > 0)) {
        if (!still_wanted(s))
            return -ECANCELED;
        under_way = 0;
        for (unsigned i = 0; rc == 0 && i < QUESTIONS; i++) {
            struct question *q = &s->questions[i];
            if (q->number == 0 && more) {
                rc = fill_question(s, q, &after, &has_after);
                more = rc == 0 && q->count > 0;
                *asked += q->count;
                if (more)
                    send_question(s, q);
            } else if (q->number && clock_boot() - q->sent > q->patience) {
                send_question(s, q);
            }
            under_way += q->number != 0;
        }
        struct link_message answer;
        int received = under_way ? receive(s, &answer) : -EAGAIN;
        if (received == -ETERM)
            return -ECANCELED;
        if (received == 0) {
            if (rc == 0)
                rc = take_blocks(s, &answer);
            link_message_done(&answer);
            show(s, SYNC_BLOCKS);
        }
    }
    return rc;
}

static int fetch_blocks(struct syncing *s) {
    uint64_t asked = 1;
    int rc = 0;
    for (s->pass = 1; rc == 0 && asked > 0; s->pass++) {
        if (s->pass > 1) { /* something could not be had: does the provider have the state still, and with it the blocks? */
            repl_lock(s->r);
            repl_sleep(s->r, &s->r->sync_work, PASS_PAUSE);
            repl_unlock(s->r);
            rc = open_state(s);
        }
        if (rc == 0)
            rc = blocks_pass(s, &asked);
    }
    return rc;
}

/* ---- The end --------------------------------------------------------------------------------------------------------- */

/* What the old store has beyond the common point: nothing, or records to be kept: in a file, or with the whole store. */
static int judge_tail(struct syncing *s, bool *aside, uint64_t *common) {
    struct replicator *r = s->r;
    struct position own;
    int rc = import_common_point(s->import, common);
    *aside = false;
    if (rc)
        return say(s, rc, "the last common point with node %s cannot be found: %s", r->config->nodes[s->node].name,
                   strerror(-rc));
    store_position(r->store, &own);
    if (*common >= own.lsn)
        return 0;
    if (s->state.epoch <= own.epoch || rollback_had_by_all(r, *common)) {
        repl_lock(r);
        r->sync.given_up = r->sync.node == s->node; /* until a person has decided: the next start, another primary */
        repl_unlock(r);
        return say(s, -EPERM, "node %s lacks records %" PRIu64 " to %" PRIu64 " of this store, which every node had or which "
                   "are newer than its own: nothing is replaced. If this copy is to stay, stop node %s and promote this one "
                   "with --force; if the other, move this store away and format anew", r->config->nodes[s->node].name,
                   *common + 1, own.lsn, r->config->nodes[s->node].name);
    }
    *aside = s->unreadable || own.first > *common + 1;
    return 0;
}

/* -EBUSY: it can only be kept with the whole store, from which nothing may have been taken over then. */
static int keep_tail(struct syncing *s, uint64_t common, bool aside) {
    struct replicator *r = s->r;
    struct position own;
    char path[1400] = "";
    store_position(r->store, &own);
    r->volume->renewal.lsn = own.lsn;
    r->volume->renewal.epoch = own.epoch;
    memcpy(r->volume->renewal.chain, own.chain, CHAIN_SIZE);
    r->volume->renewal.aside[0] = 0;
    if (common >= own.lsn)
        return 0;
    if (aside) {
        snprintf(r->volume->renewal.aside, sizeof r->volume->renewal.aside, "aside.%" PRIu64 "-%02x%02x%02x%02x", own.lsn,
                 own.chain[0], own.chain[1], own.chain[2], own.chain[3]);
        log_warning("records %" PRIu64 " to %" PRIu64 " were only here, and %s: the old store is kept whole in %s/%s", common + 1,
                    own.lsn, s->unreadable ? "not all of them can be read"
                                           : "the journal does not reach back to where they begin",
                    store_path(r->store), r->volume->renewal.aside);
        return 0;
    }
    int rc = undone_save(r->store, common, path, sizeof path);
    if (rc == -EBADMSG) {
        s->unreadable = true;
        return -EBUSY;
    }
    if (rc)
        return say(s, rc, "the records that are only here cannot be kept in a file: %s", strerror(-rc));
    log_warning("records %" PRIu64 " to %" PRIu64 " were only here and are kept in %s", common + 1, own.lsn, path);
    return 0;
}

static int moved_on(struct syncing *s) {
    return say(s, -ESTALE, "the old store has moved on meanwhile; the new one is begun again");
}

static int build(struct syncing *s) {
    unsigned vain = 0;
    int rc = -EAGAIN;
    while (rc) {
        uint64_t pieces = s->pieces;
        rc = fetch_rows(s);
        if (rc == 0 && import_phase(s->import) == IMPORT_BLOCKS)
            rc = fetch_blocks(s);
        if (rc)
            return rc;
        show(s, SYNC_FINISH);
        rc = import_finish(s->import);
        if (rc == -ENOSPC && wait_for_space(s) != 0)
            return -ECANCELED;
        /* Something is wanted still: what a refused commit took back, which is fetched again; or it cannot be found. */
        bool rows = import_state(s->import, &s->state) && import_phase(s->import) == IMPORT_ROWS;
        vain = rc == -EBUSY && !rows && s->pieces == pieces ? vain + 1 : 0;
        if (vain == 3)
            return rc;
        if (rc == -ESTALE)
            return moved_on(s);
        if (rc && rc != -ENOSPC && rc != -EAGAIN && rc != -EBUSY)
            return say(s, rc, "the new store cannot be completed: %s", strerror(-rc));
    }
    return 0;
}

static int synchronize(struct syncing *s) {
    uint64_t common;
    bool aside;
    int rc = import_open(s->r->store, &s->import, s->why, s->room);
    if (rc)
        return rc;
    show(s, SYNC_ASKING);
    do { /* 1: of a state that is not to be had any more; -EBUSY: of no use, or it takes from a store that has to be kept */
        rc = open_state(s);
        if (rc == 0)
            rc = build(s);
        if (rc == 0)
            rc = open_state(s); /* complete, and the provider can feed it from there on */
        if (rc == 0)
            rc = judge_tail(s, &aside, &common);
        if (rc == 0 && aside)
            rc = import_keep_old(s->import);
        if (rc == 0)
            rc = still_wanted(s) ? keep_tail(s, common, aside) : -ECANCELED;
        if (rc == 1 || rc == -EBUSY) {
            rc = begin_again(s, rc == 1);
            rc = rc ? rc : 1;
        }
    } while (rc == 1 || rc == -EAGAIN);
    if (rc == 0 && !import_is_beside(s->import)) /* from here on batond looks at what was noted (volume_renewal_holds) */
        rc = moved_on(s);
    return rc;
}

/* batond takes it from here. */
static void hand_over_store(struct replicator *r, unsigned node) {
    struct volume *volume = r->volume;
    volume->renewal.from = node + 1;
    repl_lock(r);
    r->sync.phase = SYNC_DONE;
    repl_unlock(r);
    atomic_store(&volume->renewal.due, true);
    if (volume->renewal.fd > 0) {
        uint64_t one = 1;
        ssize_t done = write(volume->renewal.fd, &one, sizeof one);
        (void)done;
    }
}

/* The state need not be kept any longer: this store is being fed. */
static void close_state(struct replicator *r, struct syncing *s) {
    s->node = r->volume->renewal.from - 1;
    s->socket = link_dial(r->link, s->node, LINK_COPY, 0, RECEIVE_TIMEOUT_MS);
    question(s, COPY_CLOSE);
    for (int tries = 0; s->socket && tries < 20 && !atomic_load(&r->stopping); tries++) {
        struct link_message answer;
        send(s);
        if (link_receive(r->link, s->socket, (int)s->node, false, &answer) == 0) {
            link_message_done(&answer);
            break;
        }
    }
    link_hang_up(s->socket);
    r->volume->renewal.from = 0;
}

static bool renewed_and_fed(struct replicator *r) { /* lock held */
    return r->volume->renewal.from > 0 && !atomic_load(&r->volume->renewal.due) && r->follow.state == FOLLOW_STREAMING;
}

static void sync_once(struct replicator *r) {
    char why[WIRE_TEXT] = "";
    struct syncing *s = calloc(1, sizeof *s);
    PROMISE(s);
    *s = (struct syncing){.r = r, .why = why, .room = sizeof why};
    repl_lock(r);
    bool close_now = renewed_and_fed(r);
    s->node = r->sync.node;
    repl_unlock(r);
    if (close_now) {
        close_state(r, s);
        free(s);
        return;
    }
    int rc = -ENOMEM;
    s->socket = link_dial(r->link, s->node, LINK_COPY, 0, RECEIVE_TIMEOUT_MS);
    if (s->socket)
        rc = synchronize(s);
    else
        say(s, rc, "node %s cannot be dialled: %s", r->config->nodes[s->node].name, zmq_strerror(errno));
    link_hang_up(s->socket);
    repl_lock(r);
    if (rc && rc != -ECANCELED && strcmp(r->sync.why, why) != 0) {
        snprintf(r->sync.why, sizeof r->sync.why, "%s", why);
        log_warning("the store is not built anew: %s", why);
    }
    repl_unlock(r);
    import_close(s->import);
    if (rc == 0)
        hand_over_store(r, s->node);
    free(s);
}

void *sync_thread(void *argument) {
    struct replicator *r = argument;
    bool swept = false;
    repl_lock(r);
    while (!atomic_load(&r->stopping)) {
        if (r->role == ROLE_PRIMARY && !swept && !atomic_load(&r->volume->renewal.due)) {
            /* This store goes on by itself: what was being built beside it is of no use. */
            repl_unlock(r);
            int rc = generation_sweep(store_path(r->store), false);
            if (rc)
                log_warning("what was being built beside this store cannot be removed: %s", strerror(-rc));
            repl_lock(r);
        }
        swept = r->role == ROLE_PRIMARY;
        bool work = renewed_and_fed(r) || (r->sync.wanted && r->role == ROLE_STANDBY && !r->sync.given_up &&
                                           r->sync.phase != SYNC_DONE && !atomic_load(&r->volume->renewal.due));
        if (!work) {
            repl_sleep(r, &r->sync_work, AFTER_FAILURE);
            continue;
        }
        repl_unlock(r);
        sync_once(r);
        repl_lock(r);
        if (r->sync.wanted && r->sync.phase != SYNC_DONE)
            repl_sleep(r, &r->sync_work, AFTER_FAILURE);
    }
    repl_unlock(r);
    return NULL;
}

/* ---- Status ---------------------------------------------------------------------------------------------------------- */

json_t *sync_status(const struct replicator *r) {
    static const char *const phases[] = {"asking", "asking", "rows", "blocks", "completing", "replacing"};
    const struct sync *sync = &r->sync;
    if (!sync->wanted && !sync->given_up)
        return NULL;
    uint64_t there = sync->progress.reused + sync->progress.fetched + sync->progress.bad;
    json_t *shown = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "from", r->config->nodes[sync->node].name,
                              "phase", phases[sync->phase], "lsn", (json_int_t)sync->lsn, "rows",
                              (json_int_t)sync->progress.rows, "rows_of", (json_int_t)sync->rows, "bytes",
                              (json_int_t)(there * BATON_BLOCK), "bytes_of", (json_int_t)(sync->blocks * BATON_BLOCK),
                              "reused_bytes", (json_int_t)(sync->progress.reused * BATON_BLOCK), "unreadable_bytes",
                              (json_int_t)(sync->progress.bad * BATON_BLOCK));
    int64_t spent = clock_boot() - sync->phase_since;
    if (sync->phase == SYNC_BLOCKS && spent > 0 && sync->progress.fetched > sync->fetched_before) {
        double rate = (double)(sync->progress.fetched - sync->fetched_before) * BATON_BLOCK * 1e9 / (double)spent;
        json_object_set_new(shown, "bytes_per_second", json_integer((json_int_t)rate));
        json_object_set_new(shown, "seconds_left",
                            json_integer((json_int_t)((double)sync->progress.wanted * BATON_BLOCK / rate)));
    }
    char text[WIRE_TEXT];
    if (sync->why[0] || (sync->wanted && silence(r, text, sizeof text)))
        json_object_set_new(shown, "why", json_string(sync->why[0] ? sync->why : text));
    return shown;
}
