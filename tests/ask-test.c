/* What is asked of voters and answered: what is encoded comes back; whatever else arrives is refused without a crash. */
#include "tests/asking.h"
#include "tests/tap.h"

#include <stdio.h>

static struct cast cast;
static uint64_t seed;

static struct register_value largest(void) {
    struct register_value value = value_of(&cast, UINT64_MAX / 2 - 1, "a", 4);
    value.member_count = REGISTER_MEMBERS_MAX;
    value.voter_count = REGISTER_VOTERS_MAX;
    for (unsigned i = 0; i < REGISTER_VOTERS_MAX; i++) {
        memset(value.members[i].node, 'a' + (int)i, 63);
        memset(value.voters[i].name, 'a' + (int)i, 63);
        memset(value.voters[i].id, 1 + (int)i, 16);
    }
    return value;
}

static struct ask_question question(enum ask_type type) {
    struct register_value value = largest();
    struct ask_question question = question_of(&cast, "a", type);
    memset(question.from, 'f', 63);
    if (type == ASK_PREPARE || type == ASK_ACCEPT)
        question.ballot = (struct ballot){99, 7};
    if (type == ASK_PREPARE)
        question.birth = true;
    if (type == ASK_ACCEPT || type == ASK_LEARN)
        question.value = value;
    if (type == ASK_ACCEPT)
        question.known = value;
    if (type == ASK_RENEW || type == ASK_RELEASE) {
        question.epoch = value.epoch;
        question.session = 0x1122334455667788;
    }
    if (type == ASK_RENEW)
        question.lease_ms = 2000;
    return question;
}

static struct ask_answer answer(enum ask_status status) {
    struct ask_answer answer = {.number = 5, .type = ASK_ACCEPT, .status = status, .voter = "witness"};
    memcpy(answer.volume, cast.config.volume_id, 16);
    memset(answer.why, 'w', sizeof answer.why - 1);
    if (status != ASK_ANSWERED)
        return answer;
    answer.answer = (struct voter_answer){.verdict = VOTER_HELD, .id = "an id", .promised = {9, 1}, .accepted = {8, 2},
                                          .value = largest(), .known = largest(), .holder = "b", .wait = 123456789};
    return answer;
}

/* ---- Questions and answers alike ---- */

union message {
    struct ask_question question;
    struct ask_answer answer;
};

static bool of_questions; /* which of the two is tried */

static int decode(const uint8_t *bytes, size_t length, union message *message) {
    uint8_t *copy = malloc(length ? length : 1); /* reading beyond its end is noticed by a sanitizer */
    memcpy(copy, bytes, length);
    int rc = of_questions ? ask_decode_question(copy, length, &message->question)
                          : ask_decode_answer(copy, length, &message->answer);
    free(copy);
    return rc;
}

static size_t encode(const union message *message, uint8_t bytes[ASK_BYTES]) {
    return of_questions ? ask_encode_question(&message->question, bytes) : ask_encode_answer(&message->answer, bytes);
}

/* What is let in can be said again, and means the same. */
static bool stable(const union message *message) {
    static union message again;
    uint8_t first[ASK_BYTES], second[ASK_BYTES];
    size_t length = encode(message, first);
    return decode(first, length, &again) == 0 && encode(&again, second) == length && memcmp(first, second, length) == 0;
}

static void harmed(const uint8_t *bytes, size_t length, const char *what) {
    static union message message;
    static uint8_t changed[ASK_BYTES + 1];
    unsigned let_in = 0, unstable = 0, version = 0;
    for (size_t cut = 0; cut < length; cut++)
        let_in += decode(bytes, cut, &message) == 0;
    memcpy(changed, bytes, length);
    changed[length] = 0;
    let_in += decode(changed, length + 1, &message) == 0;
    is_int(0, let_in, "%s: every truncation, and a byte more, is refused", what);
    for (size_t at = 0; at < length; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(changed, bytes, length);
            changed[at] ^= (uint8_t)(1u << bit);
            int rc = decode(changed, length, &message);
            unstable += rc == 0 && !stable(&message);
            version += rc == -EPROTO;
            if (rc != 0 && rc != -EBADMSG && rc != -EPROTO)
                unstable++;
            if (at < 5 && rc == 0) /* magic, version, kind */
                unstable++;
        }
    is_int(0, unstable, "%s: any bit damaged is refused, or says something that can be said", what);
    is_int(8, version, "%s: another version is told from garbage", what);
}

static void noise(const uint8_t *bytes, size_t length, const char *what) {
    static union message message;
    static uint8_t changed[ASK_BYTES];
    unsigned unstable = 0, let_in = 0;
    for (unsigned round = 0; round < 20000; round++) {
        size_t size = test_random(&seed) % ASK_BYTES;
        for (size_t i = 0; i < size; i++)
            changed[i] = (uint8_t)test_random(&seed);
        let_in += decode(changed, size, &message) == 0;
        memcpy(changed, bytes, length);
        for (uint64_t count = 1 + test_random(&seed) % 6; count > 0; count--)
            changed[test_random(&seed) % length] = (uint8_t)test_random(&seed);
        unstable += decode(changed, length, &message) == 0 && !stable(&message);
    }
    is_int(0, let_in, "%s: random bytes are refused", what);
    is_int(0, unstable, "%s: random changes do no harm", what);
}

static void try(const union message *message, const char *what) {
    static union message back;
    uint8_t bytes[ASK_BYTES];
    size_t length = encode(message, bytes);
    is_int(0, decode(bytes, length, &back), "%s: %zu bytes are read", what, length);
    ok(stable(&back) && encode(&back, bytes) == length, "%s: and say the same", what);
    if (of_questions)
        is_blob(&message->question, &back.question, sizeof back.question, "%s: to the byte", what);
    else
        ok(memcmp(&message->answer.answer.value, &back.answer.answer.value, sizeof back.answer.answer.value) == 0 &&
               back.answer.answer.wait == message->answer.answer.wait && strcmp(back.answer.why, message->answer.why) == 0 &&
               strcmp(back.answer.answer.holder, message->answer.answer.holder) == 0, "%s: all of it", what);
    encode(message, bytes);
    harmed(bytes, length, what);
    noise(bytes, length, what);
    of_questions = !of_questions;
    is_int(-EBADMSG, decode(bytes, length, &back), "%s: it is not taken for the other kind", what);
    of_questions = !of_questions;
}

static void limits(void) {
    uint8_t bytes[ASK_BYTES];
    struct ask_question question = prepare_of(&cast, "a", 1), back;
    question.ballot.counter = UINT64_MAX;
    is_int(-EBADMSG, ask_decode_question(bytes, ask_encode_question(&question, bytes), &back), "a ballot that could go round");
    question.ballot = (struct ballot){1, 0};
    is_int(-EBADMSG, ask_decode_question(bytes, ask_encode_question(&question, bytes), &back), "a ballot of nobody");
    question = prepare_of(&cast, "a", 1);
    strcpy(question.from, "../a");
    is_int(-EBADMSG, ask_decode_question(bytes, ask_encode_question(&question, bytes), &back), "a name that is none");
    question.from[0] = '\0';
    is_int(-EBADMSG, ask_decode_question(bytes, ask_encode_question(&question, bytes), &back), "no name");
    question = accept_of(&cast, "a", 1, &(struct register_value){0});
    is_int(-EBADMSG, ask_decode_question(bytes, ask_encode_question(&question, bytes), &back), "nothing to accept");
    struct ask_answer given = answer(ASK_ANSWERED), read;
    given.answer.wait = -1;
    is_int(-EBADMSG, ask_decode_answer(bytes, ask_encode_answer(&given, bytes), &read), "a wait into the past");
    given.answer.wait = INT64_MAX;
    is_int(-EBADMSG, ask_decode_answer(bytes, ask_encode_answer(&given, bytes), &read), "one for ever, to which no time can be added");
    ok(ask_margin(INT64_C(2000000000)) > INT64_C(2000000000) / 1000, "the margin covers a clock that is slower by a thousandth");
}

int main(void) {
    static const char *const names[] = {"", "prepare", "accept", "renew", "release", "learn", "query"};
    static const char *const statuses[] = {"", "answered", "unknown", "failed"};
    plan_lazy();
    seed = test_seed();
    cast_make(&cast, 1, TRANSPORT_CURVE);
    of_questions = true;
    for (enum ask_type type = ASK_PREPARE; type < ASK_TYPE_END; type++)
        try(&(union message){.question = question(type)}, names[type]);
    of_questions = false;
    for (enum ask_status status = ASK_ANSWERED; status < ASK_STATUS_END; status++)
        try(&(union message){.answer = answer(status)}, statuses[status]);
    limits();
    return 0;
}
