/* The provider: answers other nodes that build, mend or compare their stores. They ask (WIRE_ASK_COPY) for rows as they were at
 * an LSN and for data blocks; each question stands for itself, may come again, and a cut or a kill on either side costs
 * nothing but the question under way.
 *
 * All that is kept is, for each node that asks, one state of the past (fs/history.h), which holds the journal above it
 * and so the blocks that it names. It goes with a word of that node's, with its long silence, and with this node's role.
 * What a restart of this process has lost is opened again by the next question that names it.
 *
 * One thread, one question at a time; ZeroMQ hands them out in turn by connection. Rows are read in a short read
 * transaction, blocks without any lock of the store's. A state of long ago takes long to open: another thread does that, one
 * at a time, and who asks meanwhile is told to come again.
 */
#include "replication/parts.h"

#include "fs/apply.h"
#include "fs/history.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define READ_TRIES 3u /* of a block that may have moved since the map was looked at */

struct copied { /* what is kept for a node */
    struct store *past; /* NULL: nothing */
    struct position state;
    uint64_t number; /* of the question that opened it */
    uint64_t gone;   /* this state could not be opened again */
    int64_t asked;
    int failure; /* of the last opening, until it has been told; 0: none */
    uint64_t failed;
    char why[WIRE_TEXT];
};

enum opening_state { OPENING_FREE, OPENING_ASKED, OPENING_UNDER_WAY, OPENING_DONE };
struct opening { /* guarded by the replicator's lock */
    enum opening_state state;
    bool in_vain; /* nobody wants it any more */
    unsigned node;
    uint64_t lsn, number;
    bool has_chain;
    uint8_t chain[CHAIN_SIZE];
    struct store *past;
    int result;
    char why[WIRE_TEXT];
};

struct provider {
    struct replicator *r;
    pthread_t opener;
    struct opening opening;
    struct copied copied[CONFIG_NODES_MAX];
    int64_t told[CONFIG_NODES_MAX]; /* the log, of what is kept for a node */
    struct compared *compared; /* what is kept for comparing: compare.c */
    uint8_t *buffer; /* of WIRE_COPY_BYTES, from the first question on */
};

void provide_refuse(struct wire_copy *answer, int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(answer->text, sizeof answer->text, format, arguments);
    va_end(arguments);
    answer->error = (uint32_t)-error;
    answer->count = 0;
    answer->bulk.length = 0;
}

static const char *own_name(const struct provider *p) {
    return p->r->config->nodes[p->r->self].name;
}

static const char *name_of(const struct provider *p, unsigned node) {
    return p->r->config->nodes[node].name;
}

/* However often a node asks for this and that: a line now and then. */
#define TELL_EVERY (5000 * MS)
static enum log_level level(struct provider *p, unsigned node) {
    int64_t now = clock_boot();
    if (p->told[node] && now - p->told[node] < TELL_EVERY)
        return LOG_LEVEL_DEBUG;
    p->told[node] = now;
    return LOG_LEVEL_INFO;
}

static bool is_primary(struct replicator *r) {
    repl_lock(r);
    bool primary = r->role == ROLE_PRIMARY && !r->changing;
    repl_unlock(r);
    return primary;
}

/* ---- States ---------------------------------------------------------------------------------------------------------- */

static bool is_state(const struct copied *copied, const struct wire_ask_copy *ask) {
    return copied->past && copied->state.lsn == ask->lsn && memcmp(copied->state.chain, ask->chain, CHAIN_SIZE) == 0;
}

static void close_past(struct provider *p, unsigned node, const char *why) {
    struct copied *copied = &p->copied[node];
    if (!copied->past)
        return;
    history_close(copied->past);
    log_write(level(p, node), "the state at record %" PRIu64 " is no longer kept for node %s: %s", copied->state.lsn,
              name_of(p, node), why);
    *copied = (struct copied){0};
    repl_lock(p->r);
    p->r->copies[node].open = false;
    repl_unlock(p->r);
}

/* Reading a long journal takes its time. */
static bool opens_in_vain(void *provider, uint64_t done, uint64_t of) {
    struct provider *p = provider;
    (void)done, (void)of;
    repl_lock(p->r);
    bool in_vain = p->opening.in_vain;
    repl_unlock(p->r);
    return in_vain || atomic_load(&p->r->stopping) || !is_primary(p->r);
}

static void *opener_thread(void *provider) {
    struct provider *p = provider;
    struct opening *opening = &p->opening;
    struct replicator *r = p->r;
    repl_lock(r);
    while (!atomic_load(&r->stopping)) {
        if (opening->state != OPENING_ASKED) {
            repl_sleep(r, &r->open_work, 10000 * MS);
            continue;
        }
        opening->state = OPENING_UNDER_WAY;
        repl_unlock(r);
        struct store *past = NULL;
        char why[WIRE_TEXT] = "";
        int rc = history_open(r->store, opening->lsn, opening->has_chain ? opening->chain : NULL, opens_in_vain, p, &past, why,
                              sizeof why);
        repl_lock(r);
        opening->past = rc ? NULL : past;
        opening->result = rc;
        memcpy(opening->why, why, sizeof why);
        opening->state = OPENING_DONE;
        PROMISE(pthread_cond_broadcast(&r->open_work) == 0);
    }
    repl_unlock(r);
    return NULL;
}

/* What the opener has got, if it is done. */
static void take_opened(struct provider *p) {
    struct replicator *r = p->r;
    repl_lock(r);
    struct opening got = p->opening;
    if (got.state == OPENING_DONE)
        p->opening = (struct opening){0};
    repl_unlock(r);
    struct copied *copied = &p->copied[got.node];
    if (got.state != OPENING_DONE)
        return;
    if (got.in_vain) {
        if (got.past)
            history_close(got.past);
        return;
    }
    copied->asked = clock_boot();
    if (got.result) {
        copied->failure = got.result;
        copied->failed = got.lsn;
        memcpy(copied->why, got.why, sizeof copied->why);
        return;
    }
    copied->past = got.past;
    history_keep(copied->past);
    copied->number = got.number;
    history_position(copied->past, &copied->state);
    log_write(level(p, got.node), "node %s copies this store as it was at record %" PRIu64, name_of(p, got.node), got.lsn);
    repl_lock(r);
    r->copies[got.node] = (struct copy_note){
        .open = true, .lsn = got.lsn, .last = copied->asked, .mark = copied->asked, .wanted = UINT64_MAX};
    repl_unlock(r);
    reaching_begin(r, got.node);
}

/* Is it being opened for this node? Another one that is being opened for it is wanted no more. Lock held. */
static bool is_opening(struct opening *opening, unsigned node, uint64_t lsn, const uint8_t *chain) {
    if (opening->state == OPENING_FREE || opening->node != node || opening->in_vain)
        return false;
    if (opening->lsn == lsn && opening->has_chain == (chain != NULL) &&
        (!chain || memcmp(opening->chain, chain, CHAIN_SIZE) == 0))
        return true;
    opening->in_vain = true;
    return false;
}

/* The newest one, if it is being opened for this question: then it is the one that was the newest when it came first. */
static void opening_lsn(struct provider *p, unsigned node, uint64_t number, uint64_t *lsn) {
    const struct opening *opening = &p->opening;
    repl_lock(p->r);
    if (opening->state != OPENING_FREE && opening->node == node && opening->number == number && !opening->has_chain)
        *lsn = opening->lsn;
    repl_unlock(p->r);
}

#define OPEN_AT_ONCE (50 * MS) /* who asks first, and all others, wait so long; most states are opened in less */

/* -EBUSY: it takes longer, or that for another node does. */
static int open_past(struct provider *p, unsigned node, uint64_t number, uint64_t lsn, const uint8_t *chain, char *why,
                     size_t room) {
    struct copied *copied = &p->copied[node];
    struct opening *opening = &p->opening;
    struct replicator *r = p->r;
    close_past(p, node, "it asks for another one");
    bool failed = copied->failure && copied->failed == lsn; /* it is told now */
    repl_lock(r);
    if (!failed && !is_opening(opening, node, lsn, chain) && opening->state == OPENING_FREE) {
        int64_t until = clock_boot() + OPEN_AT_ONCE;
        *opening = (struct opening){.state = OPENING_ASKED, .node = node, .lsn = lsn, .number = number, .has_chain = chain};
        if (chain)
            memcpy(opening->chain, chain, CHAIN_SIZE);
        PROMISE(pthread_cond_broadcast(&r->open_work) == 0);
        while (opening->state != OPENING_DONE && repl_wait(r, &r->open_work, until))
            ;
    }
    repl_unlock(r);
    take_opened(p);
    int rc = copied->failed == lsn ? copied->failure : 0;
    copied->failure = 0;
    if (rc)
        snprintf(why, room, "%s", copied->why);
    if (rc || (copied->past && copied->state.lsn == lsn))
        return rc;
    snprintf(why, room, "node %s reads its journal, which takes a while: come again", own_name(p));
    return -EBUSY;
}

static void tell_state(struct wire_copy *answer, const struct position *state) {
    answer->lsn = state->lsn;
    answer->epoch = state->epoch;
    answer->time = state->time;
    memcpy(answer->chain, state->chain, CHAIN_SIZE);
}

/* Of a past that has failed for good, nothing more can be had. */
static void forget_failed(struct provider *p, unsigned node) {
    char why[WIRE_TEXT];
    if (p->copied[node].past && history_error(p->copied[node].past, why, sizeof why))
        close_past(p, node, why);
}

static void close_idle(struct provider *p) {
    struct replicator *r = p->r;
    repl_lock(r);
    int64_t idle = r->copy_idle;
    bool primary = r->role == ROLE_PRIMARY;
    repl_unlock(r);
    for (unsigned node = 0; node < r->count; node++) {
        if (!primary)
            close_past(p, node, "this node is not primary any more");
        else if (clock_boot() - p->copied[node].asked > idle)
            close_past(p, node, "it has not asked for long");
    }
}

/* ---- Opening, closing ------------------------------------------------------------------------------------------------ */

static void answer_open(struct provider *p, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *answer) {
    struct copied *copied = &p->copied[node];
    const uint8_t *chain = ask->lsn ? ask->chain : NULL;
    struct store_space space = {0};
    struct position newest;
    char why[WIRE_TEXT] = "";
    if (!is_primary(p->r)) {
        provide_refuse(answer, -EROFS, "node %s is not primary: a store is copied from the primary's", own_name(p));
        return;
    }
    /* The newest, asked for once more, is what it was the first time. */
    if (ask->lsn ? !is_state(copied, ask) : !copied->past || copied->number != ask->number) {
        store_position(p->r->store, &newest);
        uint64_t lsn = ask->lsn ? ask->lsn : newest.committed ? newest.committed : newest.lsn;
        if (!ask->lsn)
            opening_lsn(p, node, ask->number, &lsn);
        int rc = open_past(p, node, ask->number, lsn, chain, why, sizeof why);
        if (rc) {
            provide_refuse(answer, rc, "%s", why);
            return;
        }
    }
    copied->number = ask->number;
    store_space(p->r->store, &space);
    tell_state(answer, &copied->state);
    memcpy(answer->rows, space.rows, sizeof answer->rows);
    answer->blocks = space.live / BATON_BLOCK;
    answer->inodes = space.inodes;
    repl_lock(p->r);
    struct copy_note *noted = &p->r->copies[node];
    noted->rows_of = 0;
    for (unsigned i = 0; i < TABLE_SHARED_END; i++)
        noted->rows_of += space.rows[i];
    noted->blocks_of = answer->blocks;
    repl_unlock(p->r);
}

static void answer_close(struct provider *p, unsigned node, const struct wire_ask_copy *ask) {
    repl_lock(p->r);
    if (p->opening.node == node && (ask->lsn == 0 || p->opening.lsn == ask->lsn))
        p->opening.in_vain = true;
    repl_unlock(p->r);
    if (ask->lsn == 0 || is_state(&p->copied[node], ask)) /* else it is an old question that comes late */
        close_past(p, node, "it says so");
}

/* ---- Rows ------------------------------------------------------------------------------------------------------------ */

/* From the row behind `after` on, until the answer is large enough. -ENOENT: these were the last ones. */
static int put_rows(struct provider *p, struct store *past, const struct wire_ask_copy *ask, struct wire_copy *answer,
                    size_t enough) {
    uint8_t *begin = p->buffer + WIRE_COPY_HEAD, *at = begin;
    struct cursor cursor;
    int rc = cursor_open(&cursor, past, NULL, (enum table)ask->table);
    if (rc)
        return rc;
    rc = cursor_seek(&cursor, &ask->after);
    if (rc == 0 && cursor.key.length == ask->after.length &&
        memcmp(cursor.key.data, ask->after.bytes, cursor.key.length) == 0)
        rc = cursor_next(&cursor);
    for (; rc == 0; rc = cursor_next(&cursor)) {
        size_t after = (size_t)(at - begin) + WIRE_COPY_ROW_HEAD + cursor.key.length + cursor.value.length;
        if (answer->count && after > enough)
            break;
        if (WIRE_COPY_HEAD + after > WIRE_COPY_BYTES || cursor.key.length == 0 || cursor.key.length > KEY_MAX) {
            rc = -EIO; /* no row of ours */
            break;
        }
        at = wire_copy_put_row(at, cursor.key, cursor.value);
        answer->count++;
    }
    cursor_close(&cursor);
    answer->bulk.length = (uint32_t)(at - begin);
    return rc;
}

static int find_state(struct provider *p, unsigned node, const struct wire_ask_copy *ask, char *why, size_t room) {
    const struct copied *copied = &p->copied[node];
    if (!is_primary(p->r)) {
        snprintf(why, room, "node %s is not primary: a store is copied from the primary's", own_name(p));
        return -EROFS;
    }
    if (ask->lsn == 0) {
        snprintf(why, room, "rows are those of a state that was opened");
        return -EINVAL;
    }
    if (is_state(copied, ask))
        return 0;
    if (copied->past) {
        snprintf(why, room, "another state is kept for node %s, that at record %" PRIu64, name_of(p, node),
                 copied->state.lsn);
        return -ESTALE;
    }
    return open_past(p, node, ask->number, ask->lsn, ask->chain, why, room);
}

static void answer_rows(struct provider *p, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *answer) {
    struct copied *copied = &p->copied[node];
    char why[WIRE_TEXT] = "";
    int rc = find_state(p, node, ask, why, sizeof why);
    if (rc) {
        provide_refuse(answer, rc, "%s", why);
        return;
    }
    repl_lock(p->r);
    size_t enough = p->r->copy_bytes;
    repl_unlock(p->r);
    tell_state(answer, &copied->state);
    answer->table = ask->table;
    store_lock(copied->past);
    rc = put_rows(p, copied->past, ask, answer, enough);
    store_unlock(copied->past);
    answer->done = rc == -ENOENT && !history_error(copied->past, why, sizeof why);
    if (rc && !answer->done) {
        int error = history_error(copied->past, why, sizeof why);
        provide_refuse(answer, error ? error : rc, "%s", error ? why : "the store cannot be read; run baton check on it");
    }
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------------- */

/* Blocks are there as long as their state is kept. It is opened again if this process did not know of it; if that
 * cannot be, what is left of the blocks is given all the same: the asker has their checksums. */
static void keep_state(struct provider *p, unsigned node, const struct wire_ask_copy *ask) {
    struct copied *copied = &p->copied[node];
    char why[WIRE_TEXT] = "";
    if (copied->past || ask->lsn == 0 || copied->gone == ask->lsn || !is_primary(p->r))
        return;
    int rc = open_past(p, node, ask->number, ask->lsn, ask->chain, why, sizeof why);
    if (rc && rc != -EBUSY) {
        log_write(level(p, node), "the state at record %" PRIu64 " cannot be kept for node %s again: %s", ask->lsn,
                  name_of(p, node), why);
        copied->gone = ask->lsn;
    }
}

static void answer_places(struct provider *p, const struct wire_ask_copy *ask, struct wire_copy *answer) {
    uint8_t *begin = p->buffer + WIRE_COPY_HEAD, *at = begin;
    for (uint32_t i = 0; i < ask->place_count; i++) {
        struct place place = ask->places[i];
        int rc = store_place_valid(p->r->store, place)
                     ? store_read_blocks(p->r->store, place, at + WIRE_COPY_BLOCKS_HEAD)
                     : -ENOENT;
        at = wire_copy_put_blocks(at, rc, rc ? 0 : place.count * BATON_BLOCK);
    }
    answer->count = ask->place_count;
    answer->bulk.length = (uint32_t)(at - begin);
}

struct found {
    struct place place; /* count 0: a hole, or unwritten */
    uint64_t checksum;
};

static int note_block(void *context, const struct extent_part *part) {
    struct found *found = context;
    if (part->checksums) {
        found->place = (struct place){part->place.segment, part->place.position, 1};
        memcpy(&found->checksum, part->checksums, sizeof found->checksum);
    }
    return 1;
}

static int read_checked(struct store *store, uint64_t data, uint64_t block, uint8_t *to) {
    for (unsigned tries = 0; tries < READ_TRIES; tries++) {
        struct found found = {0};
        store_lock(store);
        int rc = extent_walk(store, data, block, 1, note_block, &found);
        store_unlock(store);
        if (rc < 0)
            return rc;
        if (found.place.count == 0)
            return -ENOENT;
        rc = store_read_blocks(store, found.place, to);
        if (rc == 0 && block_checksum(to) == found.checksum)
            return 0;
        if (rc && rc != -EIO && rc != -ENOENT)
            return rc;
    }
    return -EIO;
}

static void answer_data(struct provider *p, const struct wire_ask_copy *ask, struct wire_copy *answer) {
    uint8_t *begin = p->buffer + WIRE_COPY_HEAD, *at = begin;
    for (uint32_t i = 0; i < ask->count; i++) {
        int rc = read_checked(p->r->store, ask->data, ask->first + i, at + WIRE_COPY_BLOCKS_HEAD);
        at = wire_copy_put_blocks(at, rc, rc ? 0 : BATON_BLOCK);
    }
    answer->count = ask->count;
    answer->bulk.length = (uint32_t)(at - begin);
}

/* ---- Questions ------------------------------------------------------------------------------------------------------- */

static bool is_meant(const struct replicator *r, const struct wire_ask_copy *ask) {
    static const uint8_t any[16];
    bool may_be_any = ask->kind == COPY_OPEN || ask->kind == COPY_DATA || ask->kind == COPY_CLOSE ||
                      ask->kind == COPY_COMPARE || ask->kind == COPY_COMPARED;
    return memcmp(ask->incarnation, r->incarnation, 16) == 0 || (may_be_any && memcmp(ask->incarnation, any, 16) == 0);
}

static void answer(struct provider *p, unsigned node, const struct wire_ask_copy *ask, struct wire_copy *reply) {
    if (!is_meant(p->r, ask)) {
        provide_refuse(reply, -ESTALE, "node %s has another store than the one that is meant", own_name(p));
        return;
    }
    if (ask->kind >= COPY_COMPARE) {
        compared_answer(p->compared, node, ask, reply, p->buffer);
        return;
    }
    p->copied[node].asked = clock_boot();
    switch ((enum copy_kind)ask->kind) {
    case COPY_OPEN:
        answer_open(p, node, ask, reply);
        break;
    case COPY_ROWS:
        answer_rows(p, node, ask, reply);
        break;
    case COPY_PLACES:
        keep_state(p, node, ask);
        answer_places(p, ask, reply);
        break;
    case COPY_DATA:
        answer_data(p, ask, reply);
        break;
    default: /* COPY_CLOSE: wire_decode lets nothing else through */
        answer_close(p, node, ask);
    }
}

#define RATE_EVERY (1000 * MS)

static void note(struct replicator *r, unsigned node, const struct wire_ask_copy *ask, const struct wire_copy *reply) {
    struct copy_note *noted = &r->copies[node];
    int64_t now = clock_boot();
    repl_lock(r);
    noted->last = now;
    if (ask->kind == COPY_ROWS || ask->kind == COPY_PLACES) {
        noted->has_rows = ask->kind == COPY_PLACES;
        noted->wanted = ask->data - 1; /* 0: it does not say */
    }
    noted->bytes += reply->bulk.length;
    if (reply->kind == COPY_ROWS)
        noted->rows += reply->count;
    else
        noted->blocks += reply->bulk.length / BATON_BLOCK;
    if (now - noted->mark >= RATE_EVERY) {
        noted->rate = (uint64_t)((double)(noted->bytes - noted->mark_bytes) * 1e9 / (double)(now - noted->mark));
        noted->mark = now;
        noted->mark_bytes = noted->bytes;
    }
    repl_unlock(r);
}

static void take_question(struct provider *p, const struct link_message *message) {
    const struct wire_ask_copy *ask = &message->frame.ask;
    struct replicator *r = p->r;
    struct frame frame = {.head = {.type = WIRE_COPY}};
    struct wire_copy *reply = &frame.copy;
    if (!p->buffer && !(p->buffer = malloc(WIRE_COPY_BYTES)))
        return; /* it asks again */
    reply->number = ask->number;
    reply->kind = ask->kind;
    reply->lsn = ask->lsn;
    memcpy(reply->chain, ask->chain, CHAIN_SIZE);
    memcpy(reply->incarnation, r->incarnation, sizeof reply->incarnation);
    answer(p, message->node, ask, reply);
    forget_failed(p, message->node);
    if (ask->kind < COPY_COMPARE)
        note(r, message->node, ask, reply);
    repl_lock(r);
    frame.head.epoch = r->value.epoch;
    repl_unlock(r);
    link_fill_head(r->link, &frame.head);
    /* Whose queue is full or who has gone asks again. */
    link_send(link_bound(r->link, LINK_COPY), &message->route, p->buffer, wire_copy_finish(p->buffer, &frame));
}

void *provide_thread(void *argument) {
    struct provider *p = calloc(1, sizeof *p);
    PROMISE(p);
    p->r = argument;
    p->compared = compared_create(p->r);
    void *socket = link_bound(p->r->link, LINK_COPY);
    PROMISE(pthread_create(&p->opener, NULL, opener_thread, p) == 0);
    pthread_setname_np(p->opener, "repl-open");
    while (!atomic_load(&p->r->stopping)) {
        struct link_message message;
        int rc = link_receive(p->r->link, socket, -1, false, &message);
        if (rc == -ETERM)
            break;
        if (rc == 0 && message.frame.head.type == WIRE_ASK_COPY)
            take_question(p, &message);
        if (rc == 0)
            link_message_done(&message);
        take_opened(p);
        close_idle(p);
        compared_close_idle(p->compared);
    }
    pthread_join(p->opener, NULL);
    take_opened(p);
    compared_free(p->compared);
    for (unsigned node = 0; node < p->r->count; node++)
        close_past(p, node, "this node stops");
    free(p->buffer);
    free(p);
    return NULL;
}

json_t *provide_status(const struct replicator *r) {
    json_t *copies = json_array();
    int64_t now = clock_boot();
    for (unsigned node = 0; node < r->count; node++) {
        const struct copy_note *noted = &r->copies[node];
        if (!noted->open)
            continue;
        uint64_t rate = now - noted->last > 3 * RATE_EVERY ? 0 : noted->rate;
        json_t *shown = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "node", r->config->nodes[node].name, "lsn",
                                  (json_int_t)noted->lsn, "rows", (json_int_t)noted->rows, "blocks", (json_int_t)noted->blocks,
                                  "bytes", (json_int_t)noted->bytes, "bytes_per_second", (json_int_t)rate, "last_ms",
                                  (json_int_t)((now - noted->last) / MS));
        reaching_show(r, node, shown);
        json_array_append_new(copies, shown);
    }
    return copies;
}
