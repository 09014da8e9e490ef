#include "membership/ask.h"

#include "fs/config.h"

#include <stdio.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "messages are little-endian, and so is this machine");

static const uint8_t magic[4] = {'B', 'v', 't', ASK_VERSION};
enum { KIND_QUESTION = 1, KIND_ANSWER };

/* ---- Writing --------------------------------------------------------------------------------------------------------- */

struct out {
    uint8_t *at;
    size_t left;
};

static void put(struct out *out, const void *bytes, size_t length) {
    PROMISE(length <= out->left);
    memcpy(out->at, bytes, length);
    out->at += length;
    out->left -= length;
}

static void put_byte(struct out *out, unsigned number) {
    uint8_t byte = (uint8_t)number;
    put(out, &byte, 1);
}

static void put_text(struct out *out, const char *text, size_t room) {
    size_t length = strnlen(text, room - 1);
    put_byte(out, (unsigned)length);
    put(out, text, length);
}

static void put_ballot(struct out *out, struct ballot ballot) {
    put(out, &ballot.counter, sizeof ballot.counter);
    put(out, &ballot.node, sizeof ballot.node);
}

static void put_value(struct out *out, const struct register_value *value) {
    uint8_t bytes[REGISTER_BYTES];
    uint16_t length = (uint16_t)register_encode(value, bytes);
    put(out, &length, sizeof length);
    put(out, bytes, length);
}

static void put_head(struct out *out, unsigned kind, enum ask_type type, const uint8_t volume[16], uint64_t number) {
    put(out, magic, sizeof magic);
    put_byte(out, kind);
    put_byte(out, type);
    put(out, volume, 16);
    put(out, &number, sizeof number);
}

size_t ask_encode_question(const struct ask_question *question, uint8_t bytes[ASK_BYTES]) {
    struct out out = {bytes, ASK_BYTES};
    put_head(&out, KIND_QUESTION, question->type, question->volume, question->number);
    put_text(&out, question->from, sizeof question->from);
    switch (question->type) {
    case ASK_PREPARE:
        put_ballot(&out, question->ballot);
        put_byte(&out, question->birth);
        break;
    case ASK_ACCEPT:
        put_ballot(&out, question->ballot);
        put_value(&out, &question->value);
        put_value(&out, &question->known);
        break;
    case ASK_RENEW:
    case ASK_RELEASE:
        put(&out, &question->epoch, sizeof question->epoch);
        put(&out, &question->session, sizeof question->session);
        if (question->type == ASK_RENEW)
            put(&out, &question->lease_ms, sizeof question->lease_ms);
        break;
    case ASK_LEARN:
        put_value(&out, &question->value);
        break;
    default:
        break;
    }
    return ASK_BYTES - out.left;
}

size_t ask_encode_answer(const struct ask_answer *answer, uint8_t bytes[ASK_BYTES]) {
    struct out out = {bytes, ASK_BYTES};
    const struct voter_answer *given = &answer->answer;
    put_head(&out, KIND_ANSWER, answer->type, answer->volume, answer->number);
    put_byte(&out, answer->status);
    put_text(&out, answer->voter, sizeof answer->voter);
    put_text(&out, answer->why, sizeof answer->why);
    if (answer->status != ASK_ANSWERED)
        return ASK_BYTES - out.left;
    put_byte(&out, given->verdict);
    put(&out, given->id, sizeof given->id);
    put_ballot(&out, given->promised);
    put_ballot(&out, given->accepted);
    put_value(&out, &given->value);
    put_value(&out, &given->known);
    put_text(&out, given->holder, sizeof given->holder);
    put(&out, &given->wait, sizeof given->wait);
    return ASK_BYTES - out.left;
}

/* ---- Reading --------------------------------------------------------------------------------------------------------- */

struct in {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static void get(struct in *in, void *bytes, size_t length) {
    if (in->bad || length > in->left) {
        in->bad = true;
        memset(bytes, 0, length);
        return;
    }
    memcpy(bytes, in->at, length);
    in->at += length;
    in->left -= length;
}

static unsigned get_byte(struct in *in, unsigned most) {
    uint8_t byte;
    get(in, &byte, 1);
    if (byte > most)
        in->bad = true;
    return in->bad ? 0 : byte;
}

static void get_text(struct in *in, char *text, size_t room) {
    size_t length = get_byte(in, (unsigned)room - 1);
    memset(text, 0, room);
    get(in, text, length);
    if (strlen(text) != length)
        in->bad = true;
}

static void get_name(struct in *in, char name[64], bool may_be_empty) {
    get_text(in, name, 64);
    if (name[0] ? !config_name_valid(name) : !may_be_empty)
        in->bad = true;
}

/* Counters stay far from where adding to them could go round. */
static struct ballot get_ballot(struct in *in) {
    struct ballot ballot;
    memset(&ballot, 0, sizeof ballot);
    get(in, &ballot.counter, sizeof ballot.counter);
    get(in, &ballot.node, sizeof ballot.node);
    if (ballot.counter > UINT64_MAX / 2)
        in->bad = true;
    return ballot;
}

static void get_value(struct in *in, struct register_value *value) {
    uint16_t length;
    get(in, &length, sizeof length);
    if (in->bad || length > in->left || register_decode(in->at, length, value) != 0) {
        in->bad = true;
        memset(value, 0, sizeof *value);
        return;
    }
    in->at += length;
    in->left -= length;
}

/* 0, or what is wrong */
static int get_head(struct in *in, unsigned kind, enum ask_type *type, uint8_t volume[16], uint64_t *number) {
    uint8_t found[sizeof magic];
    get(in, found, sizeof found);
    if (in->bad || memcmp(found, magic, 3) != 0)
        return -EBADMSG;
    if (found[3] != magic[3])
        return -EPROTO;
    if (get_byte(in, KIND_ANSWER) != kind)
        in->bad = true;
    *type = (enum ask_type)get_byte(in, ASK_TYPE_END - 1);
    get(in, volume, 16);
    get(in, number, sizeof *number);
    return in->bad || *type == 0 ? -EBADMSG : 0;
}

int ask_decode_question(const void *bytes, size_t length, struct ask_question *question) {
    struct in in = {bytes, length, false};
    memset(question, 0, sizeof *question);
    int rc = get_head(&in, KIND_QUESTION, &question->type, question->volume, &question->number);
    if (rc)
        return rc;
    get_name(&in, question->from, false);
    switch (question->type) {
    case ASK_PREPARE:
        question->ballot = get_ballot(&in);
        question->birth = get_byte(&in, 1) != 0;
        break;
    case ASK_ACCEPT:
        question->ballot = get_ballot(&in);
        get_value(&in, &question->value);
        get_value(&in, &question->known);
        break;
    case ASK_RENEW:
    case ASK_RELEASE:
        get(&in, &question->epoch, sizeof question->epoch);
        get(&in, &question->session, sizeof question->session);
        if (question->type == ASK_RENEW)
            get(&in, &question->lease_ms, sizeof question->lease_ms);
        break;
    case ASK_LEARN:
        get_value(&in, &question->value);
        break;
    default:
        break;
    }
    bool ballot = question->type == ASK_PREPARE || question->type == ASK_ACCEPT;
    bool value = question->type == ASK_ACCEPT || question->type == ASK_LEARN;
    if ((ballot && (question->ballot.counter == 0 || question->ballot.node == 0)) || (value && question->value.version == 0))
        in.bad = true;
    return in.bad || in.left ? -EBADMSG : 0;
}

int ask_decode_answer(const void *bytes, size_t length, struct ask_answer *answer) {
    struct in in = {bytes, length, false};
    struct voter_answer *given = &answer->answer;
    memset(answer, 0, sizeof *answer);
    int rc = get_head(&in, KIND_ANSWER, &answer->type, answer->volume, &answer->number);
    if (rc)
        return rc;
    answer->status = (enum ask_status)get_byte(&in, ASK_STATUS_END - 1);
    get_name(&in, answer->voter, true);
    get_text(&in, answer->why, sizeof answer->why);
    if (answer->status == 0)
        in.bad = true;
    if (answer->status == ASK_ANSWERED) {
        given->verdict = (enum voter_verdict)get_byte(&in, VOTER_VERDICT_END - 1);
        get(&in, given->id, sizeof given->id);
        given->promised = get_ballot(&in);
        given->accepted = get_ballot(&in);
        get_value(&in, &given->value);
        get_value(&in, &given->known);
        get_name(&in, given->holder, true);
        get(&in, &given->wait, sizeof given->wait);
        if (given->verdict == 0 || given->wait < 0 || given->wait > INT64_MAX / 4)
            in.bad = true;
    }
    return in.bad || in.left ? -EBADMSG : 0;
}

int64_t ask_margin(int64_t lease) {
    return lease / 16 + INT64_C(20000000);
}
