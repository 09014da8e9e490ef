/* Blocks that are bad here are had from other nodes, whoever is primary: who reads one waits here while a thread asks for it,
 * by what the other's present map says (COPY_DATA, provide.c). Only bytes that fit the checksum asked for are given, so it
 * does not matter how far the other node is. A node that is not heard is not waited for.
 *
 * One question at a time; its sockets are kept while there are questions.
 */
#include "replication/parts.h"

#include <stdio.h>

#define ASK_AGAIN (300 * MS) /* without an answer */
#define PATIENCE (5000 * MS) /* at most, where the lease time is longer */
#define KEEP_SOCKETS (5000 * MS)
#define RECEIVE_TIMEOUT_MS 50

struct asking {
    struct replicator *r;
    void *sockets[CONFIG_NODES_MAX]; /* dialled when they are first needed */
    uint64_t number;                 /* of the last question */
    uint64_t data, block, checksum;  /* that is asked for now */
    int64_t deadline;
    uint8_t bytes[BATON_BLOCK];
};

/* ---- Who waits ------------------------------------------------------------------------------------------------------- */

static struct mend_question *find(struct replicator *r, enum mend_question_state state) {
    for (unsigned i = 0; i < MEND_QUESTIONS; i++)
        if (r->mends[i].state == state)
            return &r->mends[i];
    return NULL;
}

int replicator_fetch(struct replicator *r, uint64_t data, uint64_t block, uint64_t checksum, uint8_t bytes[BATON_BLOCK]) {
    struct mend_question *q;
    int64_t deadline = clock_boot() + MIN(r->lease, PATIENCE);
    repl_lock(r);
    while (!(q = find(r, MEND_FREE)))
        if (!repl_wait(r, &r->mend_news, deadline))
            break;
    if (!q || atomic_load(&r->stopping)) {
        repl_unlock(r);
        return q ? -ENOTCONN : -ETIMEDOUT;
    }
    *q = (struct mend_question){.state = MEND_ASKED, .data = data, .block = block, .checksum = checksum, .deadline = deadline};
    PROMISE(pthread_cond_signal(&r->mend_work) == 0);
    while (q->state != MEND_ANSWERED && repl_wait(r, &r->mend_news, deadline + ASK_AGAIN))
        ;
    int rc = q->state == MEND_ANSWERED ? q->result : atomic_load(&r->stopping) ? -ENOTCONN : -ETIMEDOUT;
    if (rc == 0)
        memcpy(bytes, q->bytes, BATON_BLOCK);
    if (q->state == MEND_UNDER_WAY)
        q->state = MEND_LEFT; /* the thread gives it back */
    else
        q->state = MEND_FREE;
    PROMISE(pthread_cond_broadcast(&r->mend_news) == 0);
    repl_unlock(r);
    return rc;
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

/* One answer, to this question: 0, or an error; -EAGAIN: something else came. */
static int take_answer(struct asking *a, const struct frame *frame) {
    const struct wire_copy *copy = &frame->copy;
    struct span block;
    uint32_t at = 0;
    int error;
    if (frame->head.type != WIRE_COPY || copy->number != a->number)
        return -EAGAIN;
    if (copy->error || copy->kind != COPY_DATA || wire_copy_blocks_next(copy, &at, &error, &block) != 1)
        return -EIO;
    if (error || block.length != BATON_BLOCK || block_checksum(block.data) != a->checksum)
        return -ENOENT;
    memcpy(a->bytes, block.data, BATON_BLOCK);
    return 0;
}

static void send_question(struct asking *a, void *socket) {
    struct replicator *r = a->r;
    struct frame frame = {.head = {.type = WIRE_ASK_COPY}};
    frame.ask = (struct wire_ask_copy){
        .number = a->number, .kind = COPY_DATA, .data = a->data, .first = a->block, .count = 1};
    repl_lock(r);
    frame.head.epoch = r->value.epoch;
    repl_unlock(r);
    link_send_frame(r->link, socket, NULL, &frame); /* what does not go is asked again */
}

static int ask_node(struct asking *a, unsigned node) {
    struct replicator *r = a->r;
    if (!a->sockets[node])
        a->sockets[node] = link_dial(r->link, node, LINK_COPY, 0, RECEIVE_TIMEOUT_MS);
    if (!a->sockets[node])
        return -ENOTCONN;
    int64_t again = 0;
    a->number++;
    while (clock_boot() < a->deadline && !atomic_load(&r->stopping)) {
        struct link_message answer;
        if (clock_boot() >= again) {
            send_question(a, a->sockets[node]);
            again = clock_boot() + ASK_AGAIN;
        }
        int rc = link_receive(r->link, a->sockets[node], (int)node, false, &answer);
        if (rc == -ETERM)
            return -ENOTCONN;
        if (rc)
            continue;
        rc = take_answer(a, &answer.frame);
        link_message_done(&answer);
        if (rc != -EAGAIN)
            return rc;
    }
    return -ETIMEDOUT;
}

static bool is_heard(const struct replicator *r, unsigned node, int64_t now) { /* lock held */
    const struct peer *peer = &r->peers[node];
    return peer->feed.state == FEED_STREAMING || (r->follow.state == FOLLOW_STREAMING && r->follow.primary == node) ||
           (peer->known && peer->heard > peer->left && now - peer->heard < r->lease);
}

static uint64_t position_of(const struct replicator *r, unsigned node) { /* lock held */
    const struct peer *peer = &r->peers[node];
    return peer->feed.state == FEED_STREAMING ? peer->feed.received : peer->beat.position.lsn;
}

/* The best of those not asked yet: in the set, then most advanced. False: there is none. */
static bool next_node(struct replicator *r, uint32_t asked, unsigned *node) {
    bool found = false;
    int64_t now = clock_boot();
    repl_lock(r);
    for (unsigned i = 0; i < r->count; i++) {
        if (i == r->self || asked & 1u << i || !is_heard(r, i, now))
            continue;
        bool in_set = roles_in_set(r, i), best_in_set = found && roles_in_set(r, *node);
        if (!found || (in_set && !best_in_set) || (in_set == best_in_set && position_of(r, i) > position_of(r, *node)))
            *node = i;
        found = true;
    }
    repl_unlock(r);
    return found;
}

static int ask_all(struct asking *a) {
    uint32_t asked = 0;
    unsigned node = 0;
    int rc = -ENOTCONN;
    while (rc && next_node(a->r, asked, &node)) {
        rc = ask_node(a, node);
        asked |= 1u << node;
    }
    return rc;
}

/* ---- The thread ------------------------------------------------------------------------------------------------------ */

static void hang_up(struct asking *a) {
    for (unsigned i = 0; i < a->r->count; i++) {
        link_hang_up(a->sockets[i]);
        a->sockets[i] = NULL;
    }
}

/* Lock held, given up meanwhile. */
static void answer_one(struct asking *a, struct mend_question *q) {
    struct replicator *r = a->r;
    q->state = MEND_UNDER_WAY;
    a->data = q->data;
    a->block = q->block;
    a->checksum = q->checksum;
    a->deadline = q->deadline;
    repl_unlock(r);
    int rc = ask_all(a);
    repl_lock(r);
    q->result = rc;
    if (rc == 0)
        memcpy(q->bytes, a->bytes, BATON_BLOCK);
    q->state = q->state == MEND_LEFT ? MEND_FREE : MEND_ANSWERED;
    PROMISE(pthread_cond_broadcast(&r->mend_news) == 0);
}

void *mend_thread(void *argument) {
    struct replicator *r = argument;
    struct asking *a = calloc(1, sizeof *a);
    PROMISE(a);
    a->r = r;
    int64_t used = clock_boot();
    repl_lock(r);
    while (!atomic_load(&r->stopping)) {
        struct mend_question *q = find(r, MEND_ASKED);
        if (q) {
            answer_one(a, q);
            used = clock_boot();
            continue;
        }
        if (clock_boot() - used > KEEP_SOCKETS) {
            repl_unlock(r);
            hang_up(a);
            repl_lock(r);
            used = clock_boot();
        }
        if (!find(r, MEND_ASKED))
            repl_sleep(r, &r->mend_work, KEEP_SOCKETS);
    }
    repl_unlock(r);
    hang_up(a);
    free(a);
    return NULL;
}
