#include "membership/register.h"

int register_compare(const struct register_value *a, const struct register_value *b) {
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->version != b->version)
        return a->version < b->version ? -1 : 1;
    return 0;
}

bool register_is_member(const struct register_value *value, const char *node, const uint8_t incarnation[16]) {
    for (unsigned i = 0; i < value->member_count; i++)
        if (strcmp(value->members[i].node, node) == 0 && memcmp(value->members[i].incarnation, incarnation, 16) == 0)
            return true;
    return false;
}
