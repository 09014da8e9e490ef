#include "membership/etcd_rules.h"
#include "fs/config.h"
#include "membership/ask.h"

#include <inttypes.h>
#include <stdio.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

void etcd_holder_print(const struct etcd_holder *holder, char text[ETCD_HOLDER_TEXT]) {
    snprintf(text, ETCD_HOLDER_TEXT, "%s %.63s %" PRIu64 ".%u %016" PRIx64, holder->state == ETCD_HOLDER_HELD ? "held" : "free",
             holder->node, EPOCH_COUNTER(holder->epoch), EPOCH_NODE(holder->epoch), holder->session);
}

int etcd_holder_parse(const char *text, size_t length, struct etcd_holder *holder) {
    char copy[ETCD_HOLDER_TEXT], again[ETCD_HOLDER_TEXT], word[8];
    uint64_t counter;
    unsigned number;
    memset(holder, 0, sizeof *holder);
    if (length >= sizeof copy || memchr(text, 0, length))
        return -EBADMSG;
    memcpy(copy, text, length);
    copy[length] = 0;
    struct etcd_holder read = {0};
    if (sscanf(copy, "%7s %63s %20" SCNu64 ".%5u %16" SCNx64, word, read.node, &counter, &number, &read.session) != 5 ||
        counter > EPOCH_COUNTER_MAX || number > UINT16_MAX || !config_name_valid(read.node))
        return -EBADMSG;
    read.state = strcmp(word, "held") == 0 ? ETCD_HOLDER_HELD : ETCD_HOLDER_FREE;
    read.epoch = EPOCH_MAKE(counter, number);
    /* One way to write each: spaces, signs and leading zeros are nobody's of ours. */
    etcd_holder_print(&read, again);
    if (strcmp(again, copy) != 0)
        return -EBADMSG;
    *holder = read;
    return 0;
}

void etcd_absence_note(struct etcd_absence *absence, const struct etcd_seen *seen, int64_t now) {
    /* A key of an earlier reign is none that the present primary answers by. */
    if (seen->holder.state == ETCD_HOLDER_HELD && !etcd_ends_reign(&seen->value, seen->holder.node, seen->holder.epoch)) {
        absence->gone = false;
    } else if (!absence->gone || absence->register_mod != seen->register_mod) {
        *absence = (struct etcd_absence){.gone = true, .register_mod = seen->register_mod, .since = now};
    }
}

int64_t etcd_absence_wait(int64_t lease) {
    return lease + ask_margin(lease);
}

bool etcd_ends_reign(const struct register_value *value, const char *primary, epoch_t epoch) {
    return value->epoch != epoch || strcmp(value->primary, primary) != 0;
}

int etcd_let_in(const struct etcd_seen *seen, const struct etcd_absence *absence, const char *self, int64_t lease, int64_t now,
                char holder[64], int64_t *wait) {
    holder[0] = 0;
    *wait = 0;
    if (seen->holder.state == ETCD_HOLDER_HELD && strcmp(seen->holder.node, self) != 0) {
        memcpy(holder, seen->holder.node, 64);
        *wait = etcd_ttl(lease) * SECOND + etcd_absence_wait(lease);
        return -EBUSY;
    }
    /* Only the node that the register names can have become the holder: nobody, or this one, is none that others answer by. */
    if (!seen->value.version || !seen->value.primary[0] || strcmp(seen->value.primary, self) == 0)
        return 0;
    if (seen->holder.state == ETCD_HOLDER_FREE && !etcd_ends_reign(&seen->value, seen->holder.node, seen->holder.epoch))
        return 0;
    int64_t left = etcd_absence_wait(lease);
    if (absence->gone && absence->register_mod == seen->register_mod)
        left = absence->since + left - now;
    if (left <= 0)
        return 0;
    memcpy(holder, seen->value.primary, 64);
    *wait = MAX(left, 1);
    return -EBUSY;
}

int etcd_may_change(const struct etcd_seen *seen, const struct etcd_absence *absence, const char *self,
                    const struct register_value *next, int64_t lease, int64_t now) {
    char holder[64];
    int64_t wait;
    if (etcd_ends_reign(next, seen->value.primary, seen->value.epoch))
        return etcd_let_in(seen, absence, self, lease, now, holder, &wait);
    return seen->holder.state == ETCD_HOLDER_HELD && strcmp(seen->holder.node, self) != 0 ? -EBUSY : 0;
}

int64_t etcd_ttl(int64_t lease) {
    return MAX((lease / 2 + SECOND - 1) / SECOND, 2);
}

int64_t etcd_interval(int64_t lease) {
    return MIN(MAX(lease / 4, 250 * MS), lease / 2);
}
