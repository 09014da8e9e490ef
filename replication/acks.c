#include "replication/acks.h"

#define BIT(node) (1u << (node))

void acks_start(struct acks *acks, unsigned self, uint32_t set, uint64_t lsn) {
    PROMISE(self < CONFIG_NODES_MAX && (set & BIT(self)));
    uint64_t durable = acks->durable[self];
    *acks = (struct acks){.active = true, .self = self, .set = set, .lines = {lsn, lsn}};
    acks->received[self] = lsn;
    acks->durable[self] = durable;
}

void acks_stop(struct acks *acks) {
    acks->active = false;
}

void acks_own_received(struct acks *acks, uint64_t lsn) {
    acks->received[acks->self] = lsn;
}

void acks_own_durable(struct acks *acks, uint64_t lsn) {
    acks->durable[acks->self] = lsn;
}

void acks_peer(struct acks *acks, unsigned node, uint64_t received, uint64_t durable) {
    PROMISE(node < CONFIG_NODES_MAX && node != acks->self && durable <= received);
    acks->received[node] = received;
    acks->durable[node] = durable;
}

void acks_forget(struct acks *acks, unsigned node) {
    PROMISE(node < CONFIG_NODES_MAX && node != acks->self);
    acks->received[node] = acks->durable[node] = 0;
}

void acks_propose(struct acks *acks, uint32_t set) {
    PROMISE(!acks->pending && (set & BIT(acks->self)));
    acks->proposed = set;
    acks->pending = true;
}

void acks_settle(struct acks *acks, bool chosen) {
    PROMISE(acks->pending);
    if (chosen)
        acks->set = acks->proposed;
    acks->pending = false;
}

void acks_adopt(struct acks *acks, uint32_t set) {
    PROMISE(set & BIT(acks->self));
    acks->set = set;
    acks->pending = false;
}

static uint64_t line_of(const struct acks *acks, uint32_t set, enum park_line line) {
    bool alone = set == BIT(acks->self);
    const uint64_t *positions = line == PARK_DURABLE || alone ? acks->durable : acks->received;
    uint64_t least = UINT64_MAX;
    for (unsigned node = 0; node < CONFIG_NODES_MAX; node++)
        if (set & BIT(node))
            least = MIN(least, positions[node]);
    return least;
}

uint64_t acks_line(struct acks *acks, enum park_line line) {
    if (acks->active) {
        uint64_t lsn = line_of(acks, acks->set, line);
        if (acks->pending)
            lsn = MIN(lsn, line_of(acks, acks->proposed, line));
        acks->lines[line] = MAX(acks->lines[line], lsn);
    }
    return acks->lines[line];
}

bool acks_alone(const struct acks *acks) {
    return acks->set == BIT(acks->self) || (acks->pending && acks->proposed == BIT(acks->self));
}
