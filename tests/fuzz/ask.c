/* Questions to voters and their answers, as they come from the network; a question that is good is asked.
 *
 * An input: a byte, then the message. The byte's bit 0: a question, else an answer; bit 1: magic, version and kind are made
 * right; bit 2: the question is of the voter's volume and of one of its nodes.
 */
#include "membership/ask.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#define QUESTION 1u
#define RIGHT 2u
#define KNOWN 4u

static const uint8_t volume[16] = "a volume of two";

static void make_right(uint8_t *bytes, size_t length, bool question) {
    static const uint8_t head[] = {'B', 'v', 't', ASK_VERSION};
    memcpy(bytes, head, MIN(length, sizeof head));
    if (length > sizeof head)
        bytes[sizeof head] = question ? 1 : 2;
}

/* What was let in can be said again, and means the same. */
static void say_question_again(const struct ask_question *question) {
    static struct ask_question again;
    static uint8_t first[ASK_BYTES], second[ASK_BYTES];
    size_t length = ask_encode_question(question, first);
    FUZZ_MUST(length <= sizeof first && ask_decode_question(first, length, &again) == 0);
    FUZZ_MUST(ask_encode_question(&again, second) == length && memcmp(first, second, length) == 0);
}

static void say_answer_again(const struct ask_answer *answer) {
    static struct ask_answer again;
    static uint8_t first[ASK_BYTES], second[ASK_BYTES];
    size_t length = ask_encode_answer(answer, first);
    FUZZ_MUST(length <= sizeof first && ask_decode_answer(first, length, &again) == 0);
    FUZZ_MUST(ask_encode_answer(&again, second) == length && memcmp(first, second, length) == 0);
}

/* One that was asked holds to what it has promised, and its state and answer can be written down. */
static void ask(const struct ask_question *question) {
    static struct voter_state state;
    static struct voter voter;
    static struct ask_answer answer;
    struct ballot before;
    state = (struct voter_state){.id = "the voter's id", .promised = {7, 1}, .accepted = {6, 1}};
    state.value = (struct register_value){.version = 3, .epoch = EPOCH_MAKE(2, 1), .primary = "a"};
    voter_start(&voter, "witness", &state, 2000000000, 1000000, 0);
    answer = (struct ask_answer){.type = question->type, .status = ASK_ANSWERED, .voter = "witness"};
    for (int64_t now = 0; now <= 5000000000; now += 2500000000) {
        before = voter.state.promised;
        switch (question->type) {
        case ASK_PREPARE:
            voter_prepare(&voter, question->from, question->ballot, question->birth, now, &answer.answer);
            break;
        case ASK_ACCEPT:
            voter_accept(&voter, question->from, question->ballot, &question->value, &question->known, now, &answer.answer);
            break;
        case ASK_RENEW:
            voter_renew(&voter, question->from, question->epoch, question->session, now, &answer.answer);
            break;
        case ASK_RELEASE:
            voter_release(&voter, question->from, question->epoch, question->session, now, &answer.answer);
            break;
        case ASK_LEARN:
            voter_learn(&voter, &question->value, &answer.answer);
            break;
        default:
            voter_query(&voter, question->from, now, &answer.answer);
        }
        FUZZ_MUST(ballot_compare(voter.state.promised, before) >= 0);
        FUZZ_MUST(voter.grant.until <= now + 2001000000);
        say_answer_again(&answer);
    }
}

static bool one(const uint8_t *input, size_t length) {
    static struct ask_question question;
    static struct ask_answer answer;
    if (length == 0)
        return false;
    uint8_t flags = input[0];
    uint8_t *bytes = fuzz_copy(input + 1, --length);
    if (flags & RIGHT)
        make_right(bytes, length, flags & QUESTION);
    int rc = flags & QUESTION ? ask_decode_question(bytes, length, &question) : ask_decode_answer(bytes, length, &answer);
    FUZZ_MUST(rc == 0 || rc == -EBADMSG || rc == -EPROTO);
    FUZZ_MUST(length <= ASK_BYTES || rc != 0);
    if (rc == 0 && !(flags & QUESTION))
        say_answer_again(&answer);
    if (rc == 0 && flags & QUESTION) {
        say_question_again(&question);
        if (flags & KNOWN)
            snprintf(question.from, sizeof question.from, "%s", question.from[0] & 1 ? "a" : "b");
        ask(&question);
    }
    fuzz_free(bytes, length);
    return rc == 0;
}

/* ---- Seeds ---- */

static struct register_value value(unsigned members) {
    struct register_value value = {.version = 4, .epoch = EPOCH_MAKE(3, 1), .primary = "a", .member_count = members, .start_lsn = 9,
                                   .voter_count = members};
    for (unsigned i = 0; i < members; i++) {
        snprintf(value.members[i].node, sizeof value.members[i].node, "%c", 'a' + (int)i);
        snprintf(value.voters[i].name, sizeof value.voters[i].name, "%c", 'a' + (int)i);
        value.voters[i].id[0] = (uint8_t)i;
    }
    return value;
}

static void give_question(const char *name, enum ask_type type) {
    static struct ask_question question;
    static uint8_t seed[1 + ASK_BYTES];
    question = (struct ask_question){.type = type, .number = 12, .from = "a", .ballot = {9, 1}, .epoch = EPOCH_MAKE(2, 1), .session = 5,
                                     .lease_ms = 2000, .value = value(2), .known = value(7)};
    memcpy(question.volume, volume, sizeof volume);
    seed[0] = QUESTION | RIGHT | KNOWN;
    fuzz_give(name, seed, 1 + ask_encode_question(&question, seed + 1));
}

static void give_answer(const char *name, enum ask_status status) {
    static struct ask_answer answer;
    static uint8_t seed[1 + ASK_BYTES];
    answer = (struct ask_answer){.number = 12, .type = ASK_ACCEPT, .status = status, .voter = "witness", .why = "it says why"};
    answer.answer = (struct voter_answer){.verdict = VOTER_HELD, .promised = {9, 1}, .accepted = {8, 2}, .value = value(2),
                                          .known = value(7), .holder = "b", .wait = 1000};
    memcpy(answer.volume, volume, sizeof volume);
    seed[0] = RIGHT;
    fuzz_give(name, seed, 1 + ask_encode_answer(&answer, seed + 1));
}

static void seeds(void) {
    give_question("prepare", ASK_PREPARE);
    give_question("accept", ASK_ACCEPT);
    give_question("renew", ASK_RENEW);
    give_question("release", ASK_RELEASE);
    give_question("learn", ASK_LEARN);
    give_question("query", ASK_QUERY);
    give_answer("answered", ASK_ANSWERED);
    give_answer("unknown", ASK_UNKNOWN);
    give_answer("failed", ASK_FAILED);
}

const struct fuzz_harness fuzz_ask = {.name = "ask", .one = one, .seeds = seeds};
