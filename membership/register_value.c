#include "fs/config.h"
#include "membership/register.h"

#include <stdlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are little-endian, and so is this machine");

struct out {
    uint8_t *at;
    size_t left;
};
struct in {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static void put(struct out *out, const void *bytes, size_t length) {
    PROMISE(length <= out->left);
    memcpy(out->at, bytes, length);
    out->at += length;
    out->left -= length;
}

static void put_name(struct out *out, const char *name) {
    uint8_t length = (uint8_t)strnlen(name, 63);
    put(out, &length, 1);
    put(out, name, length);
}

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

static void get_name(struct in *in, char name[64], bool may_be_empty) {
    uint8_t length;
    get(in, &length, 1);
    if (length > 63) {
        in->bad = true;
        length = 0;
    }
    memset(name, 0, 64);
    get(in, name, length);
    if (length ? strlen(name) != length || !config_name_valid(name) : !may_be_empty)
        in->bad = true;
}

size_t register_encode(const struct register_value *value, uint8_t bytes[REGISTER_BYTES]) {
    _Static_assert(8 + 8 + 64 + 2 + (REGISTER_MEMBERS_MAX + REGISTER_VOTERS_MAX) * (64 + 16) + 8 + CHAIN_SIZE <= REGISTER_BYTES,
                   "any value fits");
    struct out out = {bytes, REGISTER_BYTES};
    uint8_t count = (uint8_t)value->member_count;
    put(&out, &value->version, sizeof value->version);
    put(&out, &value->epoch, sizeof value->epoch);
    put_name(&out, value->primary);
    put(&out, &count, 1);
    for (unsigned i = 0; i < value->member_count; i++) {
        put_name(&out, value->members[i].node);
        put(&out, value->members[i].incarnation, sizeof value->members[i].incarnation);
    }
    put(&out, &value->start_lsn, sizeof value->start_lsn);
    put(&out, value->start_chain, CHAIN_SIZE);
    count = (uint8_t)value->voter_count;
    put(&out, &count, 1);
    for (unsigned i = 0; i < value->voter_count; i++) {
        put_name(&out, value->voters[i].name);
        put(&out, value->voters[i].id, sizeof value->voters[i].id);
    }
    return REGISTER_BYTES - out.left;
}

static uint8_t get_count(struct in *in, unsigned most) {
    uint8_t count;
    get(in, &count, 1);
    if (count > most) {
        in->bad = true;
        count = 0;
    }
    return count;
}

bool register_no_name_twice(const struct register_value *value) {
    for (unsigned i = 0; i < value->member_count; i++)
        for (unsigned j = 0; j < i; j++)
            if (strcmp(value->members[i].node, value->members[j].node) == 0)
                return false;
    for (unsigned i = 0; i < value->voter_count; i++)
        for (unsigned j = 0; j < i; j++)
            if (strcmp(value->voters[i].name, value->voters[j].name) == 0 ||
                memcmp(value->voters[i].id, value->voters[j].id, sizeof value->voters[i].id) == 0)
                return false;
    return true;
}

int register_decode(const void *bytes, size_t length, struct register_value *value) {
    struct in in = {bytes, length, false};
    memset(value, 0, sizeof *value);
    get(&in, &value->version, sizeof value->version);
    get(&in, &value->epoch, sizeof value->epoch);
    get_name(&in, value->primary, true);
    value->member_count = get_count(&in, REGISTER_MEMBERS_MAX);
    for (unsigned i = 0; i < value->member_count; i++) {
        get_name(&in, value->members[i].node, false);
        get(&in, value->members[i].incarnation, sizeof value->members[i].incarnation);
    }
    get(&in, &value->start_lsn, sizeof value->start_lsn);
    get(&in, value->start_chain, CHAIN_SIZE);
    value->voter_count = get_count(&in, REGISTER_VOTERS_MAX);
    for (unsigned i = 0; i < value->voter_count; i++) {
        get_name(&in, value->voters[i].name, false);
        get(&in, value->voters[i].id, sizeof value->voters[i].id);
    }
    epoch_t epoch = value->epoch;
    bool epoch_good = EPOCH_COUNTER(epoch) <= EPOCH_COUNTER_MAX && (!epoch || (EPOCH_NODE(epoch) && EPOCH_COUNTER(epoch)));
    bool good = !in.bad && !in.left && epoch_good && value->version < UINT64_MAX / 2 && value->start_lsn < UINT64_MAX / 2 &&
                register_no_name_twice(value);
    if (!good)
        memset(value, 0, sizeof *value);
    return good ? 0 : -EBADMSG;
}

int register_voter_of(const struct register_value *value, const char *name, const uint8_t id[16]) {
    for (unsigned i = 0; i < value->voter_count; i++)
        if (strcmp(value->voters[i].name, name) == 0 && memcmp(value->voters[i].id, id, 16) == 0)
            return (int)i;
    return -1;
}
