/* Ranges of rows compared with the other node's, and narrowed to rows where they differ. */
#include "replication/verify_internal.h"

#include <stdio.h>

#define BYTES_AT_ONCE (1u << 20) /* in a range, and no more than for a quarter of a second */
#define BYTES_AT_LEAST (16u << 10)
#define PARTS 8u

/* ---- Hashes ---------------------------------------------------------------------------------------------------------- */

int verify_hashes(struct verifying *v, const struct range *ranges, uint8_t (*hashes)[RANGE_HASH], unsigned count,
                  enum verify_hash *seen) {
    for (unsigned done = 0; done < count;) {
        struct wire_ask_copy *ask = verify_question(v, COPY_HASHES);
        struct link_message answer;
        uint32_t used = 0, more;
        unsigned asked = 0;
        for (; done + asked < count && asked < COPY_RANGES_MAX; asked++, used = more)
            if ((more = wire_range_put(v->ranges, used, &ranges[done + asked])) == 0)
                break;
        ask->ranges = (struct span){v->ranges, used};
        int rc = verify_ask(v, &answer);
        if (rc)
            return rc;
        const struct wire_copy *copy = &answer.frame.copy;
        if (copy->count == 0 || copy->count > asked)
            rc = verify_say(v, -EBADMSG, "node %s answers something else than was asked",
                            v->r->config->nodes[v->request.node].name);
        for (unsigned i = 0; rc == 0 && i < copy->count; i++) {
            struct wire_copy_hash hash = wire_copy_hash(copy, i);
            seen[done + i] = hash.over                                                 ? HASH_UNKNOWN
                             : memcmp(hash.hash, hashes[done + i], RANGE_HASH) == 0 ? HASH_SAME
                                                                                     : HASH_OTHER;
        }
        done += copy->count;
        link_message_done(&answer);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- Rows ------------------------------------------------------------------------------------------------------------ */

static int put_row(void *verifying, struct span key, struct span value) {
    struct verifying *v = verifying;
    if (v->rows_length + WIRE_COPY_ROW_HEAD + key.length + value.length > WIRE_COPY_BYTES)
        return -E2BIG;
    v->rows_length = (uint32_t)(wire_copy_put_row(v->rows + v->rows_length, key, value) - v->rows);
    return 0;
}

struct packed_rows {
    struct wire_copy copy;
    uint32_t at;
};

static int next_row(void *packed, struct span *key, struct span *value) {
    struct packed_rows *rows = packed;
    return wire_copy_row_next(&rows->copy, &rows->at, key, value);
}

/* Where the other one's rows of this answer end: further than they began, and not beyond what was asked for, or the next
 * question would be none. */
static int end_of(const struct wire_copy *copy, const struct range *leaf, struct range *range) {
    struct packed_rows rows = {.copy = *copy};
    struct span key = {0}, value = {0};
    while (next_row(&rows, &key, &value) == 1)
        ;
    if (copy->done)
        return 0;
    int rc = copy->count ? range_behind(range->table, key, value, &range->to) : -EBADMSG;
    struct range rest = {.table = range->table, .from = range->to, .to = leaf->to};
    bool stays = range->to.length == range->from.length && memcmp(range->to.bytes, range->from.bytes, range->to.length) == 0;
    if (rc == 0 && (stays || !range_valid(range) || !range_valid(&rest)))
        rc = -EBADMSG;
    return rc;
}

static int compare_answer(struct verifying *v, const struct range *range, const struct wire_copy *copy) {
    const struct config *config = v->r->config;
    struct packed_rows own = {.copy.kind = COPY_RANGE}, others = {.copy = *copy};
    v->rows_length = 0;
    store_lock(v->past);
    int rc = range_rows(v->past, range, put_row, v);
    store_unlock(v->past);
    if (rc)
        return verify_own_error(v, rc);
    own.copy.bulk = (struct span){v->rows, v->rows_length};
    struct row_source here = {next_row, &own, config->nodes[v->r->self].name},
                      there = {next_row, &others, config->nodes[v->request.node].name};
    rc = rows_compare(range->table, &here, &there, verify_found, v);
    return rc == -EBADMSG ? verify_say(v, rc, "a row has an impossible form on node %s or %s; run baton check on both", here.node,
                                       there.node)
                          : rc;
}

static int compare_leaf(struct verifying *v, const struct range *leaf) {
    struct range range = *leaf;
    bool done = false;
    int rc = 0;
    while (rc == 0 && !done) {
        struct link_message answer;
        struct wire_ask_copy *ask = verify_question(v, COPY_RANGE);
        range.to = leaf->to;
        ask->ranges = (struct span){v->ranges, wire_range_put(v->ranges, 0, &range)};
        rc = verify_ask(v, &answer);
        if (rc)
            return rc;
        const struct wire_copy *copy = &answer.frame.copy;
        done = copy->done;
        rc = end_of(copy, leaf, &range);
        if (rc)
            verify_say(v, rc, "node %s answers something else than was asked", v->r->config->nodes[v->request.node].name);
        else
            rc = compare_answer(v, &range, copy);
        range.from = range.to;
        link_message_done(&answer);
    }
    return rc;
}

/* ---- Narrowing ------------------------------------------------------------------------------------------------------- */

static int narrow(struct verifying *v, const struct range *range, uint32_t rows) {
    struct range parts[PARTS];
    uint8_t hashes[PARTS][RANGE_HASH];
    uint32_t counts[PARTS];
    enum verify_hash seen[PARTS];
    if (rows <= VERIFY_LEAF)
        return compare_leaf(v, range);
    store_lock(v->past);
    int count = range_split(v->past, range, (rows + PARTS - 1) / PARTS, parts, PARTS), rc = MIN(count, 0);
    for (int i = 0; rc == 0 && i < count; i++)
        rc = range_hash(v->past, &parts[i], UINT32_MAX, hashes[i], &counts[i]);
    store_unlock(v->past);
    if (rc)
        return verify_own_error(v, rc);
    rc = verify_hashes(v, parts, hashes, (unsigned)count, seen);
    for (int i = 0; rc == 0 && i < count; i++)
        if (seen[i] != HASH_SAME)
            rc = narrow(v, &parts[i], counts[i]);
    return rc;
}

int verify_narrow(struct verifying *v, const struct range *range, uint32_t rows, enum verify_hash seen) {
    uint64_t before = v->result.differences;
    int rc = seen == HASH_SAME ? 0 : narrow(v, range, rows);
    /* Never said to be equal, whatever made the hashes differ. */
    if (rc == 0 && seen == HASH_OTHER && v->result.differences == before)
        return verify_say(v, -EIO, "hashes of table \"%s\" differ, but no row does: the two nodes run versions that do not "
                          "understand each other, or one of them has bad memory", table_names[range->table]);
    return rc;
}

int verify_range(struct verifying *v, const struct range *range) {
    struct range part = *range;
    int rc = 0;
    for (bool more = true; rc == 0 && more;) {
        uint8_t hash[1][RANGE_HASH];
        uint32_t rows, bytes, at_once, bytes_at_once;
        enum verify_hash seen;
        verify_portion(v, &at_once, &bytes_at_once);
        bytes_at_once = MAX(MIN(bytes_at_once, BYTES_AT_ONCE), BYTES_AT_LEAST);
        part.to = range->to;
        store_lock(v->past);
        rc = range_cut(v->past, &part, at_once, bytes_at_once, hash[0], &rows, &bytes);
        store_unlock(v->past);
        more = rc == 0;
        if (rc && rc != -ENOENT)
            return verify_own_error(v, rc);
        v->result.rows += rows;
        v->result.bytes += bytes;
        rc = verify_hashes(v, &part, hash, 1, &seen);
        if (rc == 0)
            rc = verify_narrow(v, &part, rows, seen);
        part.from = part.to;
        verify_pace(v, bytes);
        if (rc == 0 && !verify_goes_on(v))
            rc = -ECANCELED;
        if (rc == 0 && more && v->request.path_count == 0)
            rc = verify_renew(v);
    }
    return rc;
}
