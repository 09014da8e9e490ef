/* The voters of a process as those see them who ask over sockets: nodes, strangers, liars, and who sends what is no question. */
#include "membership/register.h"
#include "tests/asking.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <zmq.h>

#define S INT64_C(1000000000)
#define VOLUMES 200u
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define GROWTH_KIB (512u << 10) /* their own: what was freed is kept for a while */
#else
#define GROWTH_KIB (8u << 10)
#endif

static struct cast cast;
static uint64_t seed;

static const char *directory(const char *name) {
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    return path;
}

static struct ask_answer ask(struct caller *caller, struct ask_question question) {
    struct ask_answer answer;
    caller_ask(caller, &question, &answer);
    return answer;
}

static bool says(const struct ask_answer *answer, enum voter_verdict verdict) {
    return answer->status == ASK_ANSWERED && answer->answer.verdict == verdict;
}

static bool come_true(bool (*condition)(void *), void *context) {
    for (int64_t until = clock_boot() + 60 * S; clock_boot() < until; usleep(10000))
        if (condition(context))
            return true;
    return false;
}

/* ---- What is asked and answered ---- */

static void two_nodes_ask(void) {
    struct voter_host *host = host_must_open(&cast, directory("two"));
    struct caller *a = caller_of(&cast, 0), *b = caller_of(&cast, 1);
    struct register_value first = value_of(&cast, 1, "a", 1), second = value_of(&cast, 2, "b", 2);
    host_must_serve(host, &cast, NULL);
    struct ask_answer answer = ask(a, question_of(&cast, "a", ASK_QUERY)), again;
    ok(says(&answer, VOTER_YES) && answer.answer.value.version == 0, "a query: it is free and has no value");
    is_string("witness", answer.voter, "it says its name");
    again = ask(b, question_of(&cast, "b", ASK_QUERY));
    is_blob(answer.answer.id, again.answer.id, 16, "and one id to all");
    answer = ask(a, prepare_of(&cast, "a", 5));
    ok(says(&answer, VOTER_YES) && answer.answer.promised.counter == 5, "a prepare is promised");
    answer = ask(b, prepare_of(&cast, "b", 4));
    ok(says(&answer, VOTER_STALE) && answer.answer.promised.counter == 5, "a lower one is not");
    answer = ask(a, accept_of(&cast, "a", 5, &first));
    ok(says(&answer, VOTER_YES), "a value is accepted");
    answer = ask(a, renew_of(&cast, &first, 77));
    ok(says(&answer, VOTER_YES), "the lease is granted");
    answer = ask(b, question_of(&cast, "b", ASK_QUERY));
    ok(says(&answer, VOTER_HELD) && strcmp(answer.answer.holder, "a") == 0 && answer.answer.wait > 0 &&
           answer.answer.wait <= 2 * S + ask_margin(2 * S), "to others it is held, for so long");
    ok(answer.answer.value.version == 1 && answer.answer.accepted.counter == 5, "they are told the value");
    answer = ask(b, prepare_of(&cast, "b", 9));
    ok(says(&answer, VOTER_HELD), "nobody else is let in");
    answer = ask(a, accept_of(&cast, "a", 5, &second));
    ok(says(&answer, VOTER_YES), "the holder hands over");
    answer = ask(b, renew_of(&cast, &second, 78));
    ok(says(&answer, VOTER_YES), "the other one has it at once");
    answer = ask(a, renew_of(&cast, &first, 77));
    ok(says(&answer, VOTER_STALE), "the old one no more");
    struct ask_question learn = question_of(&cast, "b", ASK_LEARN);
    learn.value = second;
    answer = ask(b, learn);
    ok(says(&answer, VOTER_YES), "it is told what is chosen");
    learn.number++;
    answer = ask(b, learn);
    ok(says(&answer, VOTER_YES) && answer.answer.known.version == 2, "twice");
    answer = ask(b, release_of(&cast, &second, 78));
    ok(says(&answer, VOTER_YES), "b gives it back");
    answer = ask(a, question_of(&cast, "a", ASK_QUERY));
    ok(says(&answer, VOTER_YES), "and a is free to come");
    struct voter_host_view view;
    is_int(1, voter_host_view(host, &view, 1), "one volume is shown");
    ok(strcmp(view.name, "volume1") == 0 && view.version == 2 && strcmp(view.primary, "b") == 0 && !view.holder[0] &&
           view.asked > 10 && view.refused == 0 && view.failed == 0, "as it is");
    caller_hang_up(a);
    caller_hang_up(b);
    voter_host_close(host);
}

/* ---- Who may ask ---- */

struct strangers {
    struct voter_host *host;
    uint64_t more_than;
};

static bool strangers_seen(void *context) {
    struct strangers *strangers = context;
    struct voter_host_counts counts;
    voter_host_counts(strangers->host, &counts);
    return counts.strangers > strangers->more_than;
}

static void strangers_wait_outside(void) {
    struct voter_host *host = host_must_open(&cast, directory("strangers"));
    struct cast other = cast; /* node b has got a new key, which the voter has not heard of yet */
    struct ask_answer answer;
    PROMISE(zmq_curve_keypair(other.config.nodes[1].public_key, other.secrets[1]) == 0);
    host_must_serve(host, &cast, NULL);
    struct caller *stranger = caller_of(&other, 1), *liar = caller_of(&cast, 0);
    struct strangers strangers = {host, 0};
    struct ask_question question = question_of(&cast, "b", ASK_QUERY);
    uint8_t bytes[ASK_BYTES];
    caller_send(stranger, bytes, ask_encode_question(&question, bytes), false);
    ok(come_true(strangers_seen, &strangers), "a connection with an unknown key is refused");
    is_int(-ETIMEDOUT, caller_receive(stranger, &answer, 300), "and gets no answer");
    strangers.more_than = 2;
    ok(come_true(strangers_seen, &strangers), "it dials again");
    host_must_serve(host, &other, NULL);
    answer = ask(stranger, question_of(&cast, "b", ASK_QUERY));
    ok(says(&answer, VOTER_YES), "and is let in when its key has become a node's");
    answer = ask(liar, question_of(&cast, "b", ASK_QUERY));
    is_int(ASK_UNKNOWN, answer.status, "a cannot ask as b");
    ok(answer.why[0] && answer.answer.value.version == 0, "... and is told nothing but: %s", answer.why);
    answer = ask(liar, accept_of(&cast, "b", 5, &(struct register_value){.version = 1}));
    is_int(ASK_UNKNOWN, answer.status, "nor make it accept something");
    question = question_of(&cast, "c", ASK_QUERY);
    caller_ask(liar, &question, &answer);
    is_int(ASK_UNKNOWN, answer.status, "nor as somebody who is no node");
    struct voter_host_view view;
    voter_host_view(host, &view, 1);
    ok(view.refused >= 3 && view.version == 0, "which is counted (%llu)", (unsigned long long)view.refused);
    caller_hang_up(stranger);
    caller_hang_up(liar);
    voter_host_close(host);
}

static void volumes_are_apart(void) {
    static struct cast second;
    struct voter_host *host = host_must_open(&cast, directory("apart"));
    cast_make(&second, 2, TRANSPORT_CURVE);
    second.config.witness = cast.config.witness;
    host_must_serve(host, &cast, NULL);
    struct caller *a = caller_of(&cast, 0), *other = caller_of(&second, 0);
    struct ask_answer answer = ask(a, question_of(&second, "a", ASK_QUERY));
    is_int(ASK_UNKNOWN, answer.status, "a volume that is not served is unknown: %s", answer.why);
    host_must_serve(host, &second, NULL);
    answer = ask(other, question_of(&second, "a", ASK_QUERY));
    ok(says(&answer, VOTER_YES), "until it is served");
    answer = ask(a, question_of(&second, "a", ASK_QUERY));
    is_int(ASK_UNKNOWN, answer.status, "node a of one volume is nobody in the other one");
    is_int(0, voter_host_drop(host, second.config.volume_id), "it is dropped");
    is_int(-ENOENT, voter_host_drop(host, second.config.volume_id), "once");
    answer = ask(other, question_of(&second, "a", ASK_QUERY));
    is_int(ASK_UNKNOWN, answer.status, "and unknown again");
    answer = ask(a, question_of(&cast, "a", ASK_QUERY));
    ok(says(&answer, VOTER_YES), "which the first one does not notice");
    caller_hang_up(a);
    caller_hang_up(other);
    voter_host_close(host);
}

static void in_the_clear(void) {
    static struct cast open;
    cast_make(&open, 3, TRANSPORT_CLEAR);
    struct voter_host *host = host_must_open(&open, directory("clear"));
    host_must_serve(host, &open, NULL);
    struct caller *a = caller_dial(&open.config, NULL, NULL, "127.0.0.1"), *b = caller_dial(&open.config, NULL, NULL, "127.0.0.2");
    struct caller *stranger = caller_dial(&open.config, NULL, NULL, "127.0.0.3");
    struct ask_question question = question_of(&open, "a", ASK_QUERY);
    struct strangers strangers = {host, 0};
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer = ask(a, question);
    ok(says(&answer, VOTER_YES), "in the clear a node is known by its address");
    answer = ask(b, question_of(&open, "b", ASK_QUERY));
    ok(says(&answer, VOTER_YES), "the other one as well");
    answer = ask(b, question_of(&open, "a", ASK_QUERY));
    is_int(ASK_UNKNOWN, answer.status, "b is not taken for a");
    caller_send(stranger, bytes, ask_encode_question(&question, bytes), false);
    ok(come_true(strangers_seen, &strangers), "another address is refused");
    is_int(-ETIMEDOUT, caller_receive(stranger, &answer, 300), "and gets no answer");
    caller_hang_up(a);
    caller_hang_up(b);
    caller_hang_up(stranger);
    voter_host_close(host);
}

/* ---- What is no question ---- */

static uint64_t memory_kib(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[200];
    unsigned long long kib = 0;
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "VmRSS: %llu", &kib);
    if (file)
        fclose(file);
    return kib;
}

static size_t hostile(uint8_t *bytes) {
    struct register_value value = value_of(&cast, 3, "a", 4);
    struct ask_question question = accept_of(&cast, "a", 1 + test_random(&seed) % 4, &value);
    if (test_random(&seed) % 4 == 0)
        question = prepare_of(&cast, "a", 1 + test_random(&seed) % 4);
    question.volume[0] = (uint8_t)(question.volume[0] + (test_random(&seed) % 3 == 0));
    size_t length = ask_encode_question(&question, bytes);
    switch (test_random(&seed) % 4) {
    case 0: /* noise */
        length = test_random(&seed) % ASK_BYTES;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)test_random(&seed);
        return length;
    case 1: /* cut */
        return test_random(&seed) % length;
    default: /* damaged behind the head */
        bytes[30 + test_random(&seed) % (length - 30)] ^= (uint8_t)(1u << test_random(&seed) % 8);
        return length;
    }
}

static void flood(struct caller *caller, unsigned count) {
    uint8_t bytes[ASK_BYTES];
    struct ask_answer answer;
    for (unsigned i = 0; i < count; i++) {
        unsigned parts = test_random(&seed) % 50 == 0 ? 2 + (unsigned)(test_random(&seed) % 5) : 1;
        while (parts-- > 0)
            caller_send(caller, bytes, hostile(bytes), parts > 0);
        while (i % 16 == 0 && caller_receive(caller, &answer, 0) == 0)
            ;
    }
}

static void bare_tcp(unsigned port, unsigned count) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    for (unsigned i = 0; i < count; i++) {
        uint8_t bytes[3000] = "\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE";
        size_t head = test_random(&seed) % 70, length = head + test_random(&seed) % (sizeof bytes - head);
        for (size_t k = test_random(&seed) % 2 ? head : 0; k < length; k++)
            bytes[k] = (uint8_t)test_random(&seed);
        AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            bail("cannot connect: %s", strerror(errno));
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        (void)n; /* it may have hung up already */
    }
}

static void hostile_messages(void) {
    struct voter_host *host = host_must_open(&cast, directory("hostile"));
    char ip[64];
    uint16_t port;
    host_must_serve(host, &cast, NULL);
    struct caller *a = caller_of(&cast, 0), *b = caller_of(&cast, 1);
    struct ask_answer answer = ask(b, question_of(&cast, "b", ASK_QUERY));
    flood(a, 20000);
    uint64_t before = memory_kib();
    flood(a, 100000);
    PROMISE(config_address(cast.config.witness.address, ip, &port) == 0);
    bare_tcp(port, 2000);
    uint64_t after = memory_kib();
    answer = ask(b, question_of(&cast, "b", ASK_QUERY));
    is_int(ASK_ANSWERED, answer.status, "after 120,000 hostile messages and 2,000 connections it answers");
    ok(after < before + GROWTH_KIB, "its memory has stayed: %llu KiB, then %llu", (unsigned long long)before, (unsigned long long)after);
    struct voter_host_counts counts;
    voter_host_counts(host, &counts);
    ok(counts.garbage > 20000 && counts.unknown > 100, "it has counted %llu that are no questions, %llu of no volume",
       (unsigned long long)counts.garbage, (unsigned long long)counts.unknown);
    uint8_t large[ASK_BYTES + 1] = {0};
    caller_send(a, large, sizeof large, false); /* the connection ends */
    answer = ask(a, question_of(&cast, "a", ASK_QUERY));
    is_int(ASK_ANSWERED, answer.status, "one that is too large ends the connection, and a comes again");
    caller_hang_up(a);
    caller_hang_up(b);
    voter_host_close(host);
}

/* ---- Many volumes, watches, the node's own questions ---- */

static void many_volumes(void) {
    static struct cast each;
    struct voter_host *host = host_must_open(&cast, directory("many"));
    struct caller *a = caller_of(&cast, 0);
    uint8_t bytes[ASK_BYTES];
    each = cast;
    for (unsigned i = 0; i < VOLUMES; i++) {
        memcpy(each.config.volume_id, &i, sizeof i);
        snprintf(each.config.volume, sizeof each.config.volume, "many%u", i);
        host_must_serve(host, &each, NULL);
    }
    unsigned yes = 0;
    bool answered[VOLUMES] = {false};
    for (unsigned round = 0; round < 60 && yes < VOLUMES; round++) {
        struct ask_answer answer;
        for (unsigned i = 0; i < VOLUMES; i++) {
            memcpy(each.config.volume_id, &i, sizeof i);
            struct ask_question question = prepare_of(&each, "a", 1 + round);
            question.number = i;
            if (!answered[i])
                caller_send(a, bytes, ask_encode_question(&question, bytes), false);
        }
        while (caller_receive(a, &answer, 1000) == 0)
            if (says(&answer, VOTER_YES) && answer.number < VOLUMES && !answered[answer.number]) {
                answered[answer.number] = true;
                yes++;
            }
    }
    is_int(VOLUMES, yes, "each of %u volumes promises", VOLUMES);
    static struct voter_host_view views[VOLUMES];
    is_int(VOLUMES, voter_host_view(host, views, VOLUMES), "all are shown");
    for (unsigned i = 0; i < VOLUMES; i += 2)
        voter_host_drop(host, views[i].volume);
    is_int(VOLUMES / 2, voter_host_view(host, views, 1), "half of them go");
    caller_hang_up(a);
    voter_host_close(host);
}

static atomic_uint freed;

static void note_freed(void *context) {
    (void)context;
    atomic_fetch_add(&freed, 1);
}

static bool freed_more(void *context) {
    return atomic_load(&freed) > *(unsigned *)context;
}

struct own_answer {
    struct ask_answer answer;
    atomic_bool there;
};

static void take_answer(void *context, const struct ask_answer *answer) {
    struct own_answer *own = context;
    own->answer = *answer;
    atomic_store(&own->there, true);
}

static bool has_answer(void *context) {
    return atomic_load(&((struct own_answer *)context)->there);
}

static struct ask_answer ask_own(struct voter_host *host, struct ask_question question) {
    static struct own_answer own;
    atomic_store(&own.there, false);
    is_int(0, voter_host_ask(host, &question, take_answer, &own), "this process asks its voter");
    if (!ok(come_true(has_answer, &own), "which answers"))
        bail("the answer may come yet");
    return own.answer;
}

static void watched(void) {
    struct register_watch watch = {.freed = note_freed};
    struct voter_host *host = host_must_open(&cast, directory("watched"));
    struct register_value value = value_of(&cast, 1, "a", 1);
    cast.config.lease_ms = 300;
    host_must_serve(host, &cast, &watch);
    unsigned none = 0;
    ok(come_true(freed_more, &none), "its watch is told when the silence after a start is over");
    struct ask_answer answer = ask_own(host, accept_of(&cast, "a", 3, &value));
    ok(says(&answer, VOTER_YES), "yes to an accept");
    atomic_store(&freed, 0);
    int64_t begin = clock_boot();
    answer = ask_own(host, renew_of(&cast, &value, 5));
    ok(says(&answer, VOTER_YES), "yes to a renewal");
    ok(come_true(freed_more, &none), "its watch is told when a grant has run out");
    ok(clock_boot() - begin >= 300 * S / 1000 + ask_margin(300 * S / 1000), "and not before");
    cast.config.lease_ms = 60000;
    host_must_serve(host, &cast, &watch);
    answer = ask_own(host, renew_of(&cast, &value, 5));
    struct voter_host_view view;
    voter_host_view(host, &view, 1);
    ok(view.grant_left > 50 * S, "a longer lease counts when it is served again");
    unsigned before = atomic_load(&freed);
    answer = ask_own(host, release_of(&cast, &value, 5));
    ok(says(&answer, VOTER_YES), "yes to a release");
    ok(come_true(freed_more, &before), "its watch is told of that at once");
    struct register_value missed = value_of(&cast, 2, "b", 2);
    before = atomic_load(&freed);
    answer = ask_own(host, release_of(&cast, &missed, 7));
    ok(says(&answer, VOTER_STALE), "a lease whose value it has missed is none that it knows");
    ok(come_true(freed_more, &before), "its watch is told all the same that it was given back");
    struct ask_question longer = renew_of(&cast, &value, 6);
    longer.lease_ms = 60001;
    answer = ask_own(host, longer);
    ok(answer.status == ASK_FAILED && strstr(answer.why, "lease duration"), "a holder that counts for longer is refused: %s", answer.why);
    voter_host_drop(host, cast.config.volume_id);
    answer = ask_own(host, question_of(&cast, "a", ASK_QUERY));
    is_int(ASK_UNKNOWN, answer.status, "a volume that was dropped is unknown to its own node, too");
    voter_host_close(host);
}

/* ---- Opening ---- */

static void openings(void) {
    char why[512] = "", address[VOTER_ADDRESS];
    struct voter_host *host;
    is_int(0, voter_address(&cast.config, "a", address), "a node's voter");
    is_string("tcp://127.0.0.1:7404", address, "listens on its fifth port");
    is_int(-EINVAL, voter_address(&cast.config, "c", address), "there is no c");
    struct voter_host_options options = {"tcp://203.0.113.7:7999", TRANSPORT_CURVE, cast.witness_secret, directory("open")};
    ok(voter_host_open(&options, &host, why, sizeof why) < 0 && strstr(why, "203.0.113.7"), "an address of another host: %s", why);
    options.address = cast.config.witness.address;
    options.secret = "short";
    ok(voter_host_open(&options, &host, why, sizeof why) < 0 && strstr(why, "secret key"), "no key: %s", why);
    options.secret = cast.witness_secret;
    options.directory = "/proc/none/voter";
    ok(voter_host_open(&options, &host, why, sizeof why) < 0 && strstr(why, "/proc/none/voter"), "no directory: %s", why);
}

int main(void) {
    plan_lazy();
    seed = test_seed();
    cast_make(&cast, 1, TRANSPORT_CURVE);
    two_nodes_ask();
    strangers_wait_outside();
    volumes_are_apart();
    in_the_clear();
    hostile_messages();
    many_volumes();
    watched();
    openings();
    return 0;
}
