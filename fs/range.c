/* What of ranges needs no store. */
#include "fs/compare.h"

static bool in_order(const struct key *a, const struct key *b) {
    int order = memcmp(a->bytes, b->bytes, MIN(a->length, b->length));
    return order < 0 || (order == 0 && a->length <= b->length);
}

bool range_valid(const struct range *range) {
    if (range->table >= TABLE_SHARED_END || range->from.length > KEY_MAX || range->to.length > KEY_MAX)
        return false;
    if (range->table == TABLE_EXTENT && (range->from.length % 8 || range->from.length > 16 || range->to.length % 8 ||
                                         range->to.length > 16))
        return false;
    return range->to.length == 0 || in_order(&range->from, &range->to);
}

struct range range_of(enum table table, uint64_t prefix) {
    struct range range = {.table = table, .from = key_u64(prefix), .to = key_u64(prefix + 1)};
    if (prefix == UINT64_MAX)
        range.to.length = 0;
    return range;
}
