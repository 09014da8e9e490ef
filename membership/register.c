#include "membership/register.h"

int register_compare(const struct register_value *a, const struct register_value *b) {
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->version != b->version)
        return a->version < b->version ? -1 : 1;
    return 0;
}

/* Of one epoch and version two values may exist, made by two nodes: only one of them is what was proposed. */
static bool same_value(const struct register_value *a, const struct register_value *b) {
    if (register_compare(a, b) != 0 || strcmp(a->primary, b->primary) != 0 || a->member_count != b->member_count ||
        a->start_lsn != b->start_lsn || memcmp(a->start_chain, b->start_chain, CHAIN_SIZE) != 0)
        return false;
    for (unsigned i = 0; i < a->member_count; i++)
        if (!register_is_member(b, a->members[i].node, a->members[i].incarnation))
            return false;
    return true;
}

int register_settle(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    struct register_value seen;
    int rc = reg->engine->change(reg, expected, next);
    if (rc == -ESTALE && same_value(expected, next))
        return 0; /* chosen at an earlier try */
    if (rc == 0 || rc == -ESTALE || rc == -EINVAL)
        return rc;
    if (reg->engine->read(reg, &seen) != 0)
        return -EINPROGRESS;
    if (same_value(&seen, next))
        return 0;
    if (same_value(&seen, expected))
        return rc; /* -EINPROGRESS: voters may have accepted `next`, and then whoever comes later completes it */
    *expected = seen;
    return -ESTALE;
}

bool register_is_member(const struct register_value *value, const char *node, const uint8_t incarnation[16]) {
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, node) == 0 && memcmp(value->members[i].incarnation, incarnation, 16) == 0)
            return true;
    return false;
}
