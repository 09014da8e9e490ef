#include "replication/verify_internal.h"

#include "fs/history.h"
#include "fs/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>

#define VALUE "verify" /* the local value: a result for each node */
#define ASK_AGAIN (2000 * MS)
#define CONNECT_AGAIN (20 * MS) /* the connection is not there yet, or its queue is full */
#define ANSWER_PATIENCE (15000 * MS) /* then the other node has gone */
#define OPEN_PATIENCE (60000 * MS)   /* until it has the record */
#define OPEN_AGAIN (200 * MS)
#define BEHIND_MAX (500 * MS)     /* what could not be read in time is not made good by reading faster */
#define LOOK_EVERY (1000 * MS)
#define FAILED_AGAIN (600000 * MS) /* of those that nobody asked for */
#define RECEIVE_TIMEOUT_MS 50

struct verify { /* under the replicator's lock */
    uint64_t ticket; /* of the last one that was begun */
    bool asked, running, stop;
    struct verify_request request;
    struct verify_result now; /* of the running one, as it was last shown */
    uint64_t rows_of;
    uint64_t rate;
    json_t *report; /* of the last one that ended in this process */
    uint64_t reported; /* its ticket */
    struct verify_result results[CONFIG_NODES_MAX];
    int64_t tried[CONFIG_NODES_MAX]; /* clock_boot(), by itself */
};

static const char *peer_name(const struct verifying *v) {
    return v->r->config->nodes[v->request.node].name;
}

/* ---- What is noted --------------------------------------------------------------------------------------------------- */

static void load(struct replicator *r, struct verify *verify) {
    struct verify_result results[CONFIG_NODES_MAX];
    size_t length;
    store_lock(r->store);
    int rc = store_meta_get(r->store, VALUE, results, sizeof results, &length);
    store_unlock(r->store);
    if (rc == 0 && length == sizeof results)
        memcpy(verify->results, results, sizeof results);
    else if (rc != -ENOENT)
        log_warning("what comparisons found cannot be read: it is forgotten");
    for (unsigned i = 0; i < CONFIG_NODES_MAX; i++)
        verify->results[i].why[WIRE_TEXT - 1] = '\0';
}

static void save(struct replicator *r) {
    struct verify_result results[CONFIG_NODES_MAX];
    repl_lock(r);
    memcpy(results, r->verify->results, sizeof results);
    repl_unlock(r);
    store_lock(r->store);
    int rc = store_meta_put(r->store, VALUE, results, sizeof results);
    store_unlock(r->store);
    if (rc)
        log_warning("what the comparison found cannot be noted: %s", strerror(-rc));
}

/* Slot of a node's result: its own, else a free one, else the oldest. */
static struct verify_result *slot_of(struct verify *verify, uint16_t number) {
    struct verify_result *best = &verify->results[0];
    for (unsigned i = 0; i < CONFIG_NODES_MAX; i++)
        if (verify->results[i].node == number)
            return &verify->results[i];
    for (unsigned i = 1; i < CONFIG_NODES_MAX; i++)
        if (verify->results[i].begun < best->begun)
            best = &verify->results[i];
    return best;
}

/* ---- For the other files --------------------------------------------------------------------------------------------- */

bool verify_goes_on(struct verifying *v) {
    struct replicator *r = v->r;
    repl_lock(r);
    bool on = !atomic_load(&r->stopping) && !r->verify->stop;
    r->verify->now = v->result;
    repl_unlock(r);
    return on;
}

int verify_say(struct verifying *v, int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->result.why, sizeof v->result.why, format, arguments);
    va_end(arguments);
    text_mend(v->result.why);
    return error;
}

int verify_own_error(struct verifying *v, int error) {
    char why[WIRE_TEXT] = "";
    if (history_error(v->past, why, sizeof why))
        return verify_say(v, error, "this node's state at record %" PRIu64 " is no longer there: %.300s", v->state.lsn, why);
    return verify_say(v, error, "a row of this node's store cannot be read (%s): stop batond and run baton check on it",
                      strerror(-error));
}

void verify_pace(struct verifying *v, uint64_t bytes) {
    struct replicator *r = v->r;
    repl_lock(r);
    v->due = MAX(v->due, clock_boot() - BEHIND_MAX) + (int64_t)((double)bytes * 1e9 / (double)r->verify->rate);
    while (!atomic_load(&r->stopping) && !r->verify->stop && clock_boot() < v->due)
        repl_wait(r, &r->verify_work, MIN(v->due, clock_boot() + 500 * MS));
    repl_unlock(r);
}

void verify_portion(struct verifying *v, uint32_t *rows, uint32_t *bytes) {
    repl_lock(v->r);
    *rows = v->r->compare_rows;
    *bytes = (uint32_t)MIN(v->r->verify->rate / 4, UINT32_MAX);
    repl_unlock(v->r);
}

int verify_found(void *verifying, const struct difference *difference) {
    struct verifying *v = verifying;
    if (v->result.differences == v->found_room) {
        uint32_t room = v->found_room * 2 + 16;
        struct difference *bigger = realloc(v->found, room * sizeof *bigger);
        if (!bigger)
            return verify_say(v, -ENOMEM, "out of memory");
        v->found = bigger;
        v->found_room = room;
    }
    v->found[v->result.differences++] = *difference;
    return v->result.differences == VERIFY_FOUND_MAX;
}

/* ---- Asking ---------------------------------------------------------------------------------------------------------- */

struct wire_ask_copy *verify_question(struct verifying *v, enum copy_kind kind) {
    memset(&v->frame, 0, sizeof v->frame);
    v->frame.head.type = WIRE_ASK_COPY;
    struct wire_ask_copy *ask = &v->frame.ask;
    ask->number = ++v->number;
    ask->kind = kind;
    ask->lsn = v->state.lsn;
    memcpy(ask->chain, v->state.chain, CHAIN_SIZE);
    memcpy(ask->incarnation, v->incarnation, sizeof ask->incarnation);
    return ask;
}

/* When to send it again, should no answer come. */
static int64_t send(struct verifying *v) {
    repl_lock(v->r);
    v->frame.head.epoch = v->r->value.epoch;
    repl_unlock(v->r);
    int rc = link_send_frame(v->r->link, v->socket, NULL, &v->frame);
    return clock_boot() + (rc ? CONNECT_AGAIN : ASK_AGAIN);
}

/* 0, with whatever it answers. */
static int ask_any(struct verifying *v, struct link_message *answer) {
    uint64_t number = v->frame.ask.number;
    int64_t patience = clock_boot() + ANSWER_PATIENCE, again = 0;
    while (verify_goes_on(v) && clock_boot() < patience) {
        if (clock_boot() >= again)
            again = send(v);
        int rc = link_receive(v->r->link, v->socket, (int)v->request.node, false, answer);
        if (rc == -ETERM)
            return -ECANCELED;
        if (rc)
            continue;
        if (answer->frame.head.type == WIRE_COPY && answer->frame.copy.number == number &&
            answer->frame.copy.kind == v->frame.ask.kind)
            return 0;
        link_message_done(answer);
    }
    if (!verify_goes_on(v))
        return -ECANCELED;
    return verify_say(v, -ETIMEDOUT, "node %s does not answer; verify again when \"baton status\" says that it is there",
                      peer_name(v));
}

int verify_ask(struct verifying *v, struct link_message *answer) {
    int rc = ask_any(v, answer);
    if (rc == 0 && answer->frame.copy.error) {
        rc = verify_say(v, -(int)answer->frame.copy.error, "node %s: %.330s", peer_name(v), answer->frame.copy.text);
        link_message_done(answer);
    }
    return rc;
}

/* ---- States ---------------------------------------------------------------------------------------------------------- */

static bool opens_in_vain(void *verifying, uint64_t done, uint64_t of) {
    (void)done, (void)of;
    return !verify_goes_on(verifying);
}

/* The newest one here, so that all that was done before is compared; the other one will have it in a moment, or is far behind
 * and as far as was heard. */
static uint64_t common_lsn(struct verifying *v) {
    struct replicator *r = v->r;
    struct position own;
    store_position(r->store, &own);
    uint64_t lsn = own.lsn;
    repl_lock(r);
    const struct peer *peer = &r->peers[v->request.node];
    uint64_t there = peer->feed.state == FEED_STREAMING ? peer->feed.received : peer->known ? peer->beat.position.lsn : lsn;
    if (there + JOIN_LAG_RECORDS < lsn)
        lsn = there;
    repl_unlock(r);
    return MAX(lsn, own.first - 1);
}

static int open_own(struct verifying *v) {
    char why[WIRE_TEXT] = "";
    uint64_t lsn = common_lsn(v);
    int rc = history_open(v->r->store, lsn, NULL, opens_in_vain, v, &v->past, why, sizeof why);
    if (rc)
        return rc == -ECANCELED
                   ? rc
                   : verify_say(v, rc, "this node's state at record %" PRIu64 " cannot be read: %.300s", lsn, why);
    history_position(v->past, &v->state);
    v->opened = clock_boot();
    return 0;
}

static int open_other(struct verifying *v) {
    int64_t until = clock_boot() + OPEN_PATIENCE;
    memset(v->incarnation, 0, sizeof v->incarnation);
    for (;;) {
        struct link_message answer;
        verify_question(v, COPY_COMPARE);
        int rc = ask_any(v, &answer);
        if (rc)
            return rc;
        uint32_t error = answer.frame.copy.error;
        memcpy(v->incarnation, answer.frame.copy.incarnation, sizeof v->incarnation);
        if (error == ESTALE)
            rc = verify_say(v, -ESTALE, "node %s has another history at record %" PRIu64 ": one of the two has to be rolled back "
                            "or built anew first; verify again when \"baton status\" says that they are in sync", peer_name(v),
                            v->state.lsn);
        else if (error)
            rc = verify_say(v, -(int)error, "node %s: %.330s", peer_name(v), answer.frame.copy.text);
        link_message_done(&answer);
        if (error != EAGAIN || clock_boot() > until)
            return rc;
        v->result.why[0] = '\0';
        repl_lock(v->r);
        repl_sleep(v->r, &v->r->verify_work, OPEN_AGAIN);
        repl_unlock(v->r);
    }
}

/* The other one need not keep it any longer. If this word is lost, it notices the silence. */
static void close_states(struct verifying *v) {
    if (v->past) {
        history_close(v->past);
        verify_question(v, COPY_COMPARED);
        send(v);
    }
    v->past = NULL;
}

static int open_states(struct verifying *v) {
    int rc = open_own(v);
    if (rc == 0)
        rc = open_other(v);
    if (rc == 0 && v->result.first_lsn == 0)
        v->result.first_lsn = v->state.lsn;
    if (rc == 0)
        v->result.lsn = v->state.lsn;
    return rc;
}

int verify_renew(struct verifying *v) {
    repl_lock(v->r);
    bool due = clock_boot() - v->opened >= v->r->verify_renew;
    repl_unlock(v->r);
    if (!due)
        return 0;
    close_states(v);
    return open_states(v);
}

/* ---- A comparison ---------------------------------------------------------------------------------------------------- */

static int compare_all(struct verifying *v) {
    int rc = 0;
    for (int table = 0; rc == 0 && table < TABLE_SHARED_END; table++)
        rc = verify_range(v, &(struct range){.table = (enum table)table});
    return rc;
}

static int compare(struct verifying *v) {
    v->rows = malloc(WIRE_COPY_BYTES);
    v->socket = link_dial(v->r->link, v->request.node, LINK_COPY, 0, RECEIVE_TIMEOUT_MS);
    if (!v->rows || !v->socket)
        return verify_say(v, -ENOMEM, "no connection to node %s can be made", peer_name(v));
    int rc = open_states(v);
    if (rc == 0)
        rc = v->request.path_count ? verify_paths(v) : compare_all(v);
    return rc;
}

static enum verify_outcome outcome_of(const struct verifying *v, int rc) {
    if (rc == -ECANCELED)
        return VERIFY_STOPPED;
    if (rc < 0)
        return VERIFY_FAILED;
    return v->result.differences ? VERIFY_DIFFERENT : VERIFY_EQUAL;
}

static void tell(const struct verifying *v) {
    const struct verify_result *result = &v->result;
    const char *peer = peer_name(v);
    switch ((enum verify_outcome)result->outcome) {
    case VERIFY_EQUAL:
        log_info("verify: equal with node %s at record %" PRIu64 ", %" PRIu64 " rows", peer, result->lsn, result->rows);
        break;
    case VERIFY_DIFFERENT:
        log_error("verify: %" PRIu64 " differences from node %s at record %" PRIu64 "; \"baton verify\" names them",
                  result->differences, peer, result->lsn);
        break;
    case VERIFY_FAILED:
        log_warning("verify: the copies could not be compared: %s%s", result->why,
                    result->differences ? "; there are differences" : "");
        break;
    default:
        log_info("verify: stopped");
    }
}

static void run(struct replicator *r, struct verifying *v) {
    v->result = (struct verify_result){.node = r->config->nodes[v->request.node].number, .begun = clock_now(),
                                       .paths = v->request.path_count > 0};
    v->due = clock_boot();
    setpriority(PRIO_PROCESS, (id_t)gettid(), 10); /* this thread: behind those who serve */
    int rc = compare(v);
    v->result.ended = clock_now();
    v->result.outcome = (uint8_t)outcome_of(v, rc);
    if (rc == -ECANCELED)
        verify_say(v, rc, "it was stopped");
    /* What was found equal below some paths says nothing of the rest. */
    bool noted = v->result.outcome == VERIFY_DIFFERENT || (v->result.outcome != VERIFY_STOPPED && !v->result.paths);
    json_t *report = verify_report(v);
    close_states(v);
    link_hang_up(v->socket);
    tell(v);
    repl_lock(r);
    if (noted)
        *slot_of(r->verify, v->result.node) = v->result;
    json_decref(r->verify->report);
    r->verify->report = report;
    r->verify->reported = r->verify->ticket;
    r->verify->running = false;
    repl_unlock(r);
    if (noted)
        save(r);
}

static void free_request(struct verify_request *request) {
    for (unsigned i = 0; i < request->path_count; i++)
        free(request->paths[i]);
    request->path_count = 0;
}

static void run_once(struct replicator *r) {
    struct verifying *v = calloc(1, sizeof *v);
    PROMISE(v);
    v->r = r;
    repl_lock(r);
    v->request = r->verify->request;
    r->verify->request.path_count = 0;
    repl_unlock(r);
    struct store_space space = {0};
    int rc = store_space(r->store, &space);
    repl_lock(r);
    for (unsigned i = 0; rc == 0 && v->request.path_count == 0 && i < TABLE_SHARED_END; i++)
        r->verify->rows_of += space.rows[i];
    repl_unlock(r);
    run(r, v);
    free_request(&v->request);
    free(v->found);
    free(v->rows);
    free(v);
}

/* ---- The thread ------------------------------------------------------------------------------------------------------ */

static void begin(struct replicator *r, const struct verify_request *request) { /* lock held */
    struct verify *verify = r->verify;
    verify->request = *request;
    verify->rate = request->rate ? request->rate : MAX(r->config->verify_rate, 1);
    verify->rows_of = 0;
    verify->now = (struct verify_result){.node = r->config->nodes[request->node].number, .begun = clock_now()};
    verify->ticket++;
    verify->asked = verify->running = true;
    verify->stop = false;
}

/* When nobody has asked: the primary, with each node that it feeds. */
static void begin_by_itself(struct replicator *r) { /* lock held */
    int64_t every = (int64_t)r->config->verify_seconds * 1000000000, now = clock_boot();
    if (every == 0 || r->role != ROLE_PRIMARY || r->changing)
        return;
    for (unsigned node = 0; node < r->count; node++) {
        const struct verify_result *last = slot_of(r->verify, r->config->nodes[node].number);
        bool known = last->node == r->config->nodes[node].number;
        int64_t *tried = &r->verify->tried[node];
        if (node == r->self || r->peers[node].feed.state != FEED_STREAMING || !roles_in_set(r, node) ||
            (known && !last->paths && last->outcome != VERIFY_FAILED && clock_now() - last->begun < every) ||
            (*tried && now - *tried < MIN(every, FAILED_AGAIN)))
            continue;
        *tried = now;
        begin(r, &(struct verify_request){.node = node});
        return;
    }
}

void *verify_thread(void *argument) {
    struct replicator *r = argument;
    repl_lock(r);
    while (!atomic_load(&r->stopping)) {
        if (!r->verify->asked)
            begin_by_itself(r);
        if (!r->verify->asked) {
            repl_sleep(r, &r->verify_work, LOOK_EVERY);
            continue;
        }
        r->verify->asked = false;
        repl_unlock(r);
        run_once(r);
        repl_lock(r);
    }
    repl_unlock(r);
    return NULL;
}

struct verify *verify_create(struct replicator *r) {
    struct verify *verify = calloc(1, sizeof *verify);
    if (verify)
        load(r, verify);
    return verify;
}

void verify_free(struct verify *verify) {
    if (!verify)
        return;
    json_decref(verify->report);
    free_request(&verify->request);
    free(verify);
}

/* ---- From outside ---------------------------------------------------------------------------------------------------- */

static int refuse(const struct replicator *r, const struct verify_request *request, char *why, size_t room) { /* lock held */
    const struct peer *peer = &r->peers[request->node];
    const char *name = r->config->nodes[request->node].name;
    int64_t heard = MAX(peer->heard, peer->feed.state == FEED_STREAMING ? peer->feed.heard : 0);
    int rc = 0;
    if (r->verify->running) {
        rc = -EALREADY;
        snprintf(why, room, "a comparison is running already; \"baton verify --status\" shows how far it is, \"--stop\" ends it");
    } else if (request->node == r->self) {
        rc = -EINVAL;
        snprintf(why, room, "%s is this node; name another one", name);
    } else if (!peer->known || clock_boot() - heard > MAX(r->lease, ANSWER_PATIENCE)) {
        rc = -ENOTCONN;
        snprintf(why, room, "node %s is not heard; \"baton status\" says since when", name);
    } else if (!(peer->features & WIRE_COMPARES)) {
        rc = -EPROTO;
        snprintf(why, room, "node %s runs an older version that cannot compare; upgrade it first", name);
    }
    return rc;
}

int verify_start(struct replicator *r, struct verify_request *request, uint64_t *ticket, char *why, size_t room) {
    repl_lock(r);
    int rc = refuse(r, request, why, room);
    if (rc == 0) {
        begin(r, request);
        *ticket = r->verify->ticket;
        PROMISE(pthread_cond_signal(&r->verify_work) == 0);
    }
    repl_unlock(r);
    if (rc)
        free_request(request);
    return rc;
}

int verify_stop(struct replicator *r, uint64_t ticket) {
    repl_lock(r);
    bool running = r->verify->running && (ticket == 0 || ticket == r->verify->ticket);
    if (running) {
        r->verify->stop = true;
        PROMISE(pthread_cond_signal(&r->verify_work) == 0);
    }
    repl_unlock(r);
    return running ? 0 : -ENOENT;
}

static json_t *running_json(const struct replicator *r) { /* lock held */
    const struct verify *verify = r->verify;
    json_t *now = verify_result_json(r, &verify->now);
    json_object_set_new(now, "rows_of", json_integer((json_int_t)verify->rows_of));
    json_object_set_new(now, "rate", json_integer((json_int_t)verify->rate));
    return now;
}

json_t *verify_look(struct replicator *r, uint64_t ticket, bool *running) {
    json_t *line = NULL;
    repl_lock(r);
    const struct verify *verify = r->verify;
    *running = verify->running && verify->ticket == ticket;
    if (*running)
        line = json_pack("{s:b, s:o}", "running", 1, "now", running_json(r));
    else if (verify->reported == ticket)
        line = json_pack("{s:b, s:O}", "running", 0, "last", verify->report);
    repl_unlock(r);
    return line;
}

json_t *verify_status(const struct replicator *r) {
    const struct verify *verify = r->verify;
    json_t *results = json_array();
    for (unsigned node = 0; node < r->count; node++)
        for (unsigned i = 0; i < CONFIG_NODES_MAX; i++)
            if (verify->results[i].begun && verify->results[i].node == r->config->nodes[node].number)
                json_array_append_new(results, verify_result_json(r, &verify->results[i]));
    json_t *shown = json_pack("{s:b, s:o}", "running", (int)verify->running, "results", results);
    if (verify->running)
        json_object_set_new(shown, "now", running_json(r));
    return shown;
}

json_t *verify_show(struct replicator *r) {
    repl_lock(r);
    json_t *line = verify_status(r);
    if (r->verify->report)
        json_object_set(line, "last", r->verify->report);
    repl_unlock(r);
    return line;
}
