/* Giving back the lease of a process that is dead: for the supervisor, with sockets of its own that live as long as the call. */
#include "membership/voters_parts.h"

#include <stdio.h>
#include <sys/random.h>
#include <zmq.h>

#define REPEAT (100 * MS)

struct release {
    const struct config *config;
    struct ask_question question;
    unsigned count;
    const struct node_config *at[SEATS_MAX];
    void *sockets[SEATS_MAX];
    bool sent[SEATS_MAX], answered[SEATS_MAX];
    uint8_t ids[SEATS_MAX][16];
    struct register_value known; /* the newest that they know to be chosen: whose voters count */
};

/* What does not go now is sent when the connection is there. */
static void send_to(struct release *release, unsigned to) {
    uint8_t bytes[ASK_BYTES];
    size_t length = ask_encode_question(&release->question, bytes);
    if (!release->answered[to])
        release->sent[to] = zmq_send(release->sockets[to], bytes, length, ZMQ_DONTWAIT) >= 0;
}

static void take_in(struct release *release, unsigned from) {
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer;
    int n = zmq_recv(release->sockets[from], bytes, sizeof bytes, ZMQ_DONTWAIT);
    if (n < 0 || (size_t)n > sizeof bytes || ask_decode_answer(bytes, (size_t)n, &answer) != 0 ||
        answer.number != release->question.number || answer.type != ASK_RELEASE || answer.status != ASK_ANSWERED ||
        memcmp(answer.volume, release->config->volume_id, sizeof answer.volume) != 0 ||
        strcmp(answer.voter, release->at[from]->name) != 0)
        return;
    release->answered[from] = true;
    memcpy(release->ids[from], answer.answer.id, sizeof release->ids[from]);
    if (answer.answer.known.version > release->known.version)
        release->known = answer.answer.known;
    /* Of the epoch that is given back, chosen or not: its list is that one's or an older one's. */
    if (answer.answer.value.version > release->known.version && answer.answer.value.epoch == release->question.epoch)
        release->known = answer.answer.value;
}

static bool enough(const struct release *release) {
    unsigned voters = 0;
    for (unsigned i = 0; i < release->count; i++)
        voters += release->answered[i] && register_voter_of(&release->known, release->at[i]->name, release->ids[i]) >= 0;
    return voters > release->known.voter_count / 2;
}

static int wait_for(struct release *release, int64_t deadline) {
    int64_t again = INT64_MIN;
    while (!enough(release)) {
        int64_t now = clock_boot();
        if (now >= deadline)
            return -ETIMEDOUT;
        for (unsigned i = 0; now >= again && i < release->count; i++)
            send_to(release, i);
        again = now >= again ? now + REPEAT : again;
        zmq_pollitem_t items[SEATS_MAX];
        for (unsigned i = 0; i < release->count; i++)
            items[i] = (zmq_pollitem_t){.socket = release->sockets[i],
                                        .events = (short)(ZMQ_POLLIN | (release->sent[i] ? 0 : ZMQ_POLLOUT))};
        zmq_poll(items, (int)release->count, (long)MAX((MIN(again, deadline) - now) / MS, 1));
        for (unsigned i = 0; i < release->count; i++) {
            if (items[i].revents & ZMQ_POLLOUT)
                send_to(release, i);
            if (items[i].revents & ZMQ_POLLIN)
                take_in(release, i);
        }
    }
    return 0;
}

static void dial_all(struct release *release, const struct node_config *self, const char *secret, void *context) {
    const struct config *config = release->config;
    for (unsigned i = 0; i < config->node_count + config->has_witness; i++) {
        const struct node_config *at = i == config->node_count ? &config->witness : &config->nodes[i];
        void *socket = voters_dial(config, self, secret, context, at);
        if (!socket)
            continue; /* the log says why; it is one that does not answer */
        release->at[release->count] = at;
        release->sockets[release->count++] = socket;
    }
}

int register_voters_release(const struct config *config, const struct node_config *self, const char *secret, epoch_t epoch,
                            uint64_t session, int64_t patience) {
    struct release release = {.config = config, .question = {.type = ASK_RELEASE, .epoch = epoch, .session = session}};
    int64_t deadline = clock_boot() + patience;
    memcpy(release.question.volume, config->volume_id, sizeof release.question.volume);
    snprintf(release.question.from, sizeof release.question.from, "%s", self->name);
    void *context = zmq_ctx_new();
    if (!context || getrandom(&release.question.number, sizeof release.question.number, 0) < 0) {
        int rc = -errno;
        if (context)
            zmq_ctx_term(context);
        return rc;
    }
    dial_all(&release, self, secret, context);
    int rc = wait_for(&release, deadline);
    for (unsigned i = 0; i < release.count; i++)
        zmq_close(release.sockets[i]);
    while (zmq_ctx_term(context) < 0 && errno == EINTR)
        ;
    return rc;
}
