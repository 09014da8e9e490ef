#include "membership/register.h"

int register_compare(const struct register_value *a, const struct register_value *b) {
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->version != b->version)
        return a->version < b->version ? -1 : 1;
    return 0;
}

int register_settle(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    struct register_value seen;
    int rc = reg->engine->change(reg, expected, next);
    if (rc == -ESTALE && register_compare(expected, next) == 0)
        return 0; /* chosen at an earlier try */
    if (rc == 0 || rc == -ESTALE || rc == -EINVAL)
        return rc;
    if (reg->engine->read(reg, &seen) != 0)
        return -EINPROGRESS;
    if (register_compare(&seen, next) == 0)
        return 0;
    if (register_compare(&seen, expected) == 0)
        return rc == -EINPROGRESS ? -EIO : rc;
    *expected = seen;
    return -ESTALE;
}

bool register_is_member(const struct register_value *value, const char *node, const uint8_t incarnation[16]) {
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, node) == 0 && memcmp(value->members[i].incarnation, incarnation, 16) == 0)
            return true;
    return false;
}
