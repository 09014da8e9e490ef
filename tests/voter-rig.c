#include "tests/voter-rig.h"

#include "membership/voters.h"
#include "tests/tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include <zmq.h>

#define MS INT64_C(1000000)
#define LETTERS 256

struct letter { /* an answer on its way */
    int64_t due;
    size_t route_length, length;
    uint8_t route[64], bytes[ASK_BYTES];
};

struct desk { /* what a thread has */
    struct rig *rig;
    struct rig_voter *rv;
    void *socket;
    unsigned count;
    struct letter letters[LETTERS];
};

static void draw(void *bytes, size_t length) {
    if (getrandom(bytes, length, 0) != (ssize_t)length)
        bail("getrandom");
}

static bool chance(struct rig_voter *rv, unsigned percent) {
    return test_random(&rv->random) % 100 < percent;
}

static void answer_question(struct rig_voter *rv, const struct ask_question *question, struct ask_answer *answer) {
    struct voter *voter = &rv->voter;
    struct voter_answer *given = &answer->answer;
    int64_t now = clock_boot();
    answer->number = question->number;
    answer->type = question->type;
    answer->status = ASK_ANSWERED;
    memcpy(answer->volume, question->volume, sizeof answer->volume);
    snprintf(answer->voter, sizeof answer->voter, "%s", rv->name);
    switch (question->type) {
    case ASK_PREPARE:
        voter_prepare(voter, question->from, question->ballot, question->birth, now, given);
        break;
    case ASK_ACCEPT:
        voter_accept(voter, question->from, question->ballot, &question->value, &question->known, now, given);
        break;
    case ASK_RENEW:
        voter_renew(voter, question->from, question->epoch, question->session, now, given);
        break;
    case ASK_RELEASE:
        voter_release(voter, question->from, question->epoch, question->session, now, given);
        break;
    case ASK_LEARN:
        voter_learn(voter, &question->value, given);
        break;
    default:
        voter_query(voter, question->from, now, given);
    }
    if (given->durable)
        rv->disk = voter->state;
}

static void post(struct desk *desk, const struct letter *question, const uint8_t *bytes, size_t length, int64_t delay) {
    if (desk->count == LETTERS)
        return;
    struct letter *letter = &desk->letters[desk->count++];
    letter->due = clock_boot() + delay;
    letter->route_length = question->route_length;
    memcpy(letter->route, question->route, question->route_length);
    letter->length = length;
    memcpy(letter->bytes, bytes, length);
}

/* What nobody may be taken in by: another number, another voter, another id, another volume, and bytes. */
static void post_strange(struct desk *desk, const struct letter *question, const struct ask_answer *real) {
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer = *real;
    switch (test_random(&desk->rv->random) % 6) {
    case 0:
        answer.number += 1 + test_random(&desk->rv->random) % 3;
        break;
    case 1:
        snprintf(answer.voter, sizeof answer.voter, "nobody");
        break;
    case 2:
        answer.answer.id[3] ^= 1;
        answer.number ^= UINT64_C(1) << 60;
        break;
    case 3:
        answer.volume[0] ^= 1;
        break;
    case 4:
        answer.type = answer.type == ASK_RENEW ? ASK_ACCEPT : ASK_RENEW;
        answer.answer.promised.counter++;
        break;
    default:
        draw(bytes, 60);
        post(desk, question, bytes, 60, 0);
        return;
    }
    answer.answer.verdict = VOTER_YES;
    post(desk, question, bytes, ask_encode_answer(&answer, bytes), 0);
}

static void take_in(struct desk *desk) {
    struct rig_voter *rv = desk->rv;
    struct letter question = {0};
    uint8_t bytes[ASK_BYTES];
    struct ask_question asked;
    struct ask_answer answer = {0};
    int n = zmq_recv(desk->socket, question.route, sizeof question.route, ZMQ_DONTWAIT);
    if (n < 0)
        return;
    question.route_length = (size_t)n;
    n = zmq_recv(desk->socket, bytes, sizeof bytes, ZMQ_DONTWAIT);
    if (n < 0 || ask_decode_question(bytes, (size_t)n, &asked) != 0)
        bail("%s: a question that is none", rv->name);
    pthread_mutex_lock(&rv->lock);
    if (rv->before)
        rv->before(rv->before_context, &asked);
    if (!rv->deaf && strcmp(rv->deaf_from, asked.from) != 0 && !(rv->deaf_to & 1u << asked.type) && !chance(rv, rv->loss)) {
        rv->asked[asked.type]++;
        if (memcmp(asked.volume, desk->rig->config.volume_id, sizeof asked.volume) != 0) {
            answer = (struct ask_answer){.number = asked.number, .type = asked.type, .status = ASK_UNKNOWN};
            memcpy(answer.volume, asked.volume, sizeof answer.volume);
        } else {
            answer_question(rv, &asked, &answer);
        }
        size_t length = ask_encode_answer(&answer, bytes);
        if (chance(rv, rv->strangers))
            post_strange(desk, &question, &answer);
        int64_t delay = rv->delay_ms ? (int64_t)(test_random(&rv->random) % (rv->delay_ms * 1000)) * 1000 : 0;
        if (!(rv->lose_answers_of & 1u << asked.type) && !chance(rv, rv->loss)) {
            post(desk, &question, bytes, length, delay);
            if (chance(rv, rv->twice))
                post(desk, &question, bytes, length, 2 * delay);
        }
    }
    pthread_mutex_unlock(&rv->lock);
}

static void send_due(struct desk *desk) {
    int64_t now = clock_boot();
    for (unsigned i = 0; i < desk->count;) {
        struct letter *letter = &desk->letters[i];
        if (letter->due > now) {
            i++;
            continue;
        }
        if (zmq_send(desk->socket, letter->route, letter->route_length, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0)
            zmq_send(desk->socket, letter->bytes, letter->length, ZMQ_DONTWAIT);
        *letter = desk->letters[--desk->count];
    }
}

static void *serve(void *argument) {
    struct desk *desk = argument;
    struct rig_voter *rv = desk->rv;
    char text[160], host[64];
    uint16_t port;
    void *context = zmq_ctx_new();
    desk->socket = zmq_socket(context, ZMQ_ROUTER);
    int none = 0;
    zmq_setsockopt(desk->socket, ZMQ_LINGER, &none, sizeof none);
    config_address(rv->at->address, host, &port);
    snprintf(text, sizeof text, "tcp://%s:%u", host, port + (rv->at == &desk->rig->config.witness ? 0 : VOTER_PORT));
    for (int64_t deadline = clock_boot() + 30000 * MS; zmq_bind(desk->socket, text) < 0; usleep(10000))
        if (clock_boot() > deadline)
            bail("%s cannot listen on %s: %s", rv->name, text, zmq_strerror(zmq_errno()));
    while (!atomic_load(&rv->ends)) {
        zmq_pollitem_t item = {.socket = desk->socket, .events = ZMQ_POLLIN};
        pthread_mutex_lock(&rv->lock);
        bool still = rv->still;
        pthread_mutex_unlock(&rv->lock);
        if (still) {
            usleep(2000);
            continue;
        }
        zmq_poll(&item, 1, desk->count ? 1 : 5);
        if (item.revents & ZMQ_POLLIN)
            take_in(desk);
        send_due(desk);
    }
    zmq_close(desk->socket);
    zmq_ctx_term(context);
    free(desk);
    return NULL;
}

void rig_start(struct rig *rig, unsigned voter) {
    struct rig_voter *rv = &rig->voters[voter];
    struct desk *desk = calloc(1, sizeof *desk);
    if (rv->up || !desk)
        bail("%s is started twice", rv->name);
    *desk = (struct desk){.rig = rig, .rv = rv};
    int64_t lease = (int64_t)rig->config.lease_ms * MS;
    voter_start(&rv->voter, rv->name, &rv->disk, lease, ask_margin(lease), clock_boot());
    atomic_store(&rv->ends, false);
    rv->up = true;
    if (pthread_create(&rv->thread, NULL, serve, desk) != 0)
        bail("pthread_create");
}

void rig_end(struct rig *rig, unsigned voter) {
    struct rig_voter *rv = &rig->voters[voter];
    if (!rv->up)
        return;
    atomic_store(&rv->ends, true);
    pthread_join(rv->thread, NULL);
    rv->up = false;
}

void rig_end_all(struct rig *rig) {
    for (unsigned i = 0; i < RIG_VOTERS; i++)
        rig_end(rig, i);
}

static void new_disk(struct rig_voter *rv) {
    memset(&rv->disk, 0, sizeof rv->disk);
    draw(rv->disk.id, sizeof rv->disk.id);
}

void rig_lose_disk(struct rig *rig, unsigned voter) {
    rig_end(rig, voter);
    new_disk(&rig->voters[voter]);
    rig_start(rig, voter);
}

void rig_line(struct rig *rig, unsigned loss, unsigned delay_ms, unsigned twice) {
    for (unsigned i = 0; i < RIG_VOTERS; i++) {
        struct rig_voter *rv = &rig->voters[i];
        pthread_mutex_lock(&rv->lock);
        rv->loss = loss;
        rv->delay_ms = delay_ms;
        rv->twice = twice;
        pthread_mutex_unlock(&rv->lock);
    }
}

void rig_set(struct rig *rig, unsigned voter, bool *flag, bool value) {
    pthread_mutex_lock(&rig->voters[voter].lock);
    *flag = value;
    pthread_mutex_unlock(&rig->voters[voter].lock);
}

void rig_types(struct rig *rig, unsigned voter, unsigned deaf_to, unsigned lose_answers_of) {
    pthread_mutex_lock(&rig->voters[voter].lock);
    rig->voters[voter].deaf_to = deaf_to;
    rig->voters[voter].lose_answers_of = lose_answers_of;
    pthread_mutex_unlock(&rig->voters[voter].lock);
}

void rig_cut(struct rig *rig, unsigned voter, const char *node) {
    pthread_mutex_lock(&rig->voters[voter].lock);
    snprintf(rig->voters[voter].deaf_from, sizeof rig->voters[voter].deaf_from, "%s", node);
    pthread_mutex_unlock(&rig->voters[voter].lock);
}

void rig_before(struct rig *rig, unsigned voter, void (*before)(void *, const struct ask_question *), void *context) {
    pthread_mutex_lock(&rig->voters[voter].lock);
    rig->voters[voter].before = before;
    rig->voters[voter].before_context = context;
    pthread_mutex_unlock(&rig->voters[voter].lock);
}

struct voter_state rig_state(struct rig *rig, unsigned voter) {
    pthread_mutex_lock(&rig->voters[voter].lock);
    struct voter_state state = rig->voters[voter].disk;
    pthread_mutex_unlock(&rig->voters[voter].lock);
    return state;
}

unsigned rig_asked(struct rig *rig, unsigned voter, unsigned type) {
    pthread_mutex_lock(&rig->voters[voter].lock);
    unsigned asked = rig->voters[voter].asked[type];
    pthread_mutex_unlock(&rig->voters[voter].lock);
    return asked;
}

void rig_fresh(struct rig *rig) {
    rig_end_all(rig);
    draw(rig->config.volume_id, sizeof rig->config.volume_id);
    for (unsigned i = 0; i < RIG_VOTERS; i++) {
        struct rig_voter *rv = &rig->voters[i];
        rv->still = rv->deaf = false;
        rv->lose_answers_of = rv->deaf_to = rv->strangers = 0;
        rv->deaf_from[0] = '\0';
        rv->before = NULL;
        memset(rv->asked, 0, sizeof rv->asked);
        new_disk(rv);
        draw(&rv->random, sizeof rv->random);
    }
    rig_line(rig, 0, 0, 0);
    for (unsigned i = 0; i < RIG_VOTERS; i++)
        if (i == RIG_WITNESS || i < rig->config.node_count)
            rig_start(rig, i);
}

struct rig *rig_new(unsigned nodes, uint32_t lease_ms) {
    struct rig *rig = mmap(NULL, sizeof *rig, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rig == MAP_FAILED)
        bail("mmap");
    static const char *const names[RIG_VOTERS] = {"a", "b", "c", "d", "e", "witness"};
    unsigned pid = (unsigned)getpid();
    struct config *config = &rig->config;
    config->transport = TRANSPORT_CLEAR;
    config->lease_ms = lease_ms;
    config->node_count = nodes;
    config->has_witness = true;
    snprintf(config->volume, sizeof config->volume, "contract");
    for (unsigned i = 0; i < RIG_VOTERS; i++) {
        struct node_config *node = i == RIG_WITNESS ? &config->witness : &config->nodes[i];
        snprintf(node->name, sizeof node->name, "%s", names[i]);
        node->number = (uint16_t)(i + 1);
        snprintf(node->address, sizeof node->address, "tcp://127.%u.%u.%u:%u", 64 + (pid >> 16 & 63), pid >> 8 & 255, pid & 255,
                 20000 + 10 * i);
        rig->voters[i].name = names[i];
        rig->voters[i].at = node;
        pthread_mutex_init(&rig->voters[i].lock, NULL);
    }
    return rig;
}

/* ---- As a contract of engines ---------------------------------------------------------------------------------------- */

static const char *node_name(void *context, unsigned node) {
    return ((struct rig *)context)->config.nodes[node].name;
}

static uint16_t node_number(void *context, unsigned node) {
    return ((struct rig *)context)->config.nodes[node].number;
}

static void fresh(void *context, uint32_t lease_ms) {
    ((struct rig *)context)->config.lease_ms = lease_ms;
    rig_fresh(context);
}

static int open_node(void *context, unsigned node, const struct register_watch *watch, struct lease_shared *shared,
                     struct reg **reg) {
    struct rig *rig = context;
    char why[300];
    return voters_open_apart(&rig->config, &rig->config.nodes[node], "", watch, shared, reg, why, sizeof why);
}

static int release(void *context, unsigned node, epoch_t epoch, uint64_t session, int64_t patience) {
    struct rig *rig = context;
    return register_voters_release(&rig->config, &rig->config.nodes[node], "", epoch, session, patience);
}

struct contract rig_contract(struct rig *rig) {
    return (struct contract){
        .context = rig, .node = node_name, .number = node_number, .fresh = fresh, .open = open_node, .release = release};
}
