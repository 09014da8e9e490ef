#include "tests/asking.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <zmq.h>

struct caller {
    void *context, *socket;
};

unsigned free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        bail("no free port: %s", strerror(errno));
    return ntohs(address.sin_port);
}

void cast_make(struct cast *cast, unsigned number, enum transport transport) {
    struct config *config = &cast->config;
    memset(cast, 0, sizeof *cast);
    snprintf(config->volume, sizeof config->volume, "volume%u", number);
    memcpy(config->volume_id, &number, sizeof number);
    config->volume_id[15] = 7;
    config->transport = transport;
    config->lease_ms = 2000;
    config->node_count = 2;
    for (unsigned i = 0; i < config->node_count; i++) {
        struct node_config *node = &config->nodes[i];
        snprintf(node->name, sizeof node->name, "%c", 'a' + (int)i);
        snprintf(node->address, sizeof node->address, "tcp://127.0.0.%u:7400", i + 1);
        node->number = (uint16_t)(i + 1);
        PROMISE(zmq_curve_keypair(node->public_key, cast->secrets[i]) == 0);
    }
    config->has_witness = true;
    strcpy(config->witness.name, "witness");
    snprintf(config->witness.address, sizeof config->witness.address, "tcp://127.0.0.1:%u", free_port());
    PROMISE(zmq_curve_keypair(config->witness.public_key, cast->witness_secret) == 0);
}

struct voter_host *host_must_open(const struct cast *cast, const char *directory) {
    char why[512], address[VOTER_ADDRESS];
    struct voter_host *host;
    PROMISE(voter_address(&cast->config, "witness", address) == 0);
    struct voter_host_options options = {address, cast->config.transport, cast->witness_secret, directory};
    if (voter_host_open(&options, &host, why, sizeof why))
        bail("voter_host_open: %s", why);
    return host;
}

void host_must_serve(struct voter_host *host, const struct cast *cast, const struct register_watch *watch) {
    char why[512];
    if (voter_host_serve(host, &cast->config, "witness", watch, why, sizeof why))
        bail("voter_host_serve: %s", why);
}

struct caller *caller_dial(const struct config *config, const char *public_key, const char *secret, const char *from) {
    struct caller *caller = calloc(1, sizeof *caller);
    char to[2 * VOTER_ADDRESS];
    int zero = 0, patience = 100;
    caller->context = zmq_ctx_new();
    caller->socket = zmq_socket(caller->context, ZMQ_DEALER);
    PROMISE(caller->socket && zmq_setsockopt(caller->socket, ZMQ_LINGER, &zero, sizeof zero) == 0 &&
            zmq_setsockopt(caller->socket, ZMQ_RECONNECT_IVL, &patience, sizeof patience) == 0);
    if (public_key)
        PROMISE(zmq_setsockopt(caller->socket, ZMQ_CURVE_SERVERKEY, config->witness.public_key, KEY_TEXT) == 0 &&
                zmq_setsockopt(caller->socket, ZMQ_CURVE_PUBLICKEY, public_key, KEY_TEXT) == 0 &&
                zmq_setsockopt(caller->socket, ZMQ_CURVE_SECRETKEY, secret, KEY_TEXT) == 0);
    snprintf(to, sizeof to, from ? "tcp://%s:0;%s" : "%s%s", from ? from : "",
             config->witness.address + (from ? strlen("tcp://") : 0));
    if (zmq_connect(caller->socket, to) < 0)
        bail("cannot dial %s: %s", to, zmq_strerror(errno));
    return caller;
}

struct caller *caller_of(const struct cast *cast, unsigned node) {
    return caller_dial(&cast->config, cast->config.nodes[node].public_key, cast->secrets[node], NULL);
}

void caller_send(struct caller *caller, const void *bytes, size_t length, bool more) {
    zmq_send(caller->socket, bytes, length, more ? ZMQ_SNDMORE : 0);
}

int caller_receive(struct caller *caller, struct ask_answer *answer, int ms) {
    uint8_t bytes[ASK_BYTES + 1];
    PROMISE(zmq_setsockopt(caller->socket, ZMQ_RCVTIMEO, &ms, sizeof ms) == 0);
    int n = zmq_recv(caller->socket, bytes, sizeof bytes, 0);
    if (n < 0)
        return -ETIMEDOUT;
    return ask_decode_answer(bytes, MIN((size_t)n, sizeof bytes), answer);
}

int caller_await(struct caller *caller, const struct ask_question *question, struct ask_answer *answer, int ms) {
    for (int64_t until = clock_boot() + (int64_t)ms * 1000000; clock_boot() < until;)
        if (caller_receive(caller, answer, 20) == 0 && answer->number == question->number)
            return 0;
    return -ETIMEDOUT;
}

void caller_ask(struct caller *caller, struct ask_question *question, struct ask_answer *answer) {
    uint8_t bytes[ASK_BYTES];
    size_t length = ask_encode_question(question, bytes);
    for (unsigned second = 0; second < 60; second++) {
        caller_send(caller, bytes, length, false);
        if (caller_await(caller, question, answer, 1000) == 0)
            return;
    }
    bail("no answer to a question of %s for a minute", question->from);
}

void caller_hang_up(struct caller *caller) {
    zmq_close(caller->socket);
    zmq_ctx_term(caller->context);
    free(caller);
}

struct ask_question question_of(const struct cast *cast, const char *from, enum ask_type type) {
    static atomic_uint_fast64_t number;
    struct ask_question question = {.type = type, .number = atomic_fetch_add(&number, 1) + 1};
    memcpy(question.volume, cast->config.volume_id, 16);
    snprintf(question.from, sizeof question.from, "%s", from);
    return question;
}

struct register_value value_of(const struct cast *cast, uint64_t version, const char *primary, uint32_t counter) {
    struct register_value value = {.version = version, .epoch = EPOCH_MAKE(counter, config_node(&cast->config, primary)->number),
                                   .member_count = 2, .start_lsn = 9, .voter_count = 3};
    snprintf(value.primary, sizeof value.primary, "%s", primary);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(value.voters[i].name, sizeof value.voters[i].name, "%s", i < 2 ? cast->config.nodes[i].name : "witness");
        memset(value.voters[i].id, 'A' + (int)i, 16);
    }
    for (unsigned i = 0; i < 2; i++)
        snprintf(value.members[i].node, sizeof value.members[i].node, "%s", cast->config.nodes[i].name);
    return value;
}

struct ask_question prepare_of(const struct cast *cast, const char *from, uint64_t ballot) {
    struct ask_question question = question_of(cast, from, ASK_PREPARE);
    question.ballot = (struct ballot){ballot, config_node(&cast->config, from)->number};
    return question;
}

struct ask_question accept_of(const struct cast *cast, const char *from, uint64_t ballot, const struct register_value *value) {
    struct ask_question question = question_of(cast, from, ASK_ACCEPT);
    question.ballot = (struct ballot){ballot, config_node(&cast->config, from)->number};
    question.value = *value;
    return question;
}

static struct ask_question of_lease(const struct cast *cast, enum ask_type type, const struct register_value *value, uint64_t session) {
    struct ask_question question = question_of(cast, value->primary, type);
    question.epoch = value->epoch;
    question.session = session;
    return question;
}

struct ask_question renew_of(const struct cast *cast, const struct register_value *value, uint64_t session) {
    struct ask_question question = of_lease(cast, ASK_RENEW, value, session);
    question.lease_ms = cast->config.lease_ms;
    return question;
}

struct ask_question release_of(const struct cast *cast, const struct register_value *value, uint64_t session) {
    return of_lease(cast, ASK_RELEASE, value, session);
}
