/* The register with voters, asked by its own engine: the contract that all engines keep to, and what is its alone. */
#include "membership/ask.h"
#include "membership/voters.h"
#include "tests/register-contract.h"
#include "tests/voter-rig.h"

#define MS INT64_C(1000000)

static struct rig *rig;

static const char *node_name(void *context, unsigned node) {
    return ((struct rig *)context)->config.nodes[node].name;
}
static uint16_t node_number(void *context, unsigned node) {
    return ((struct rig *)context)->config.nodes[node].number;
}
static void fresh(void *context, uint32_t lease_ms) {
    ((struct rig *)context)->config.lease_ms = lease_ms;
    rig_fresh(context);
}
static int open_apart(void *context, unsigned node, const struct register_watch *watch, struct lease_shared *shared,
                      struct reg **reg) {
    struct rig *r = context;
    char why[300];
    return voters_open_apart(&r->config, &r->config.nodes[node], "", watch, shared, reg, why, sizeof why);
}
static int release(void *context, unsigned node, epoch_t epoch, uint64_t session, int64_t patience) {
    struct rig *r = context;
    return register_voters_release(&r->config, &r->config.nodes[node], "", epoch, session, patience);
}

static struct contract contract = {
    .node = node_name, .number = node_number, .fresh = fresh, .open = open_apart, .release = release};

int main(void) {
    rig = rig_new(2, 1000);
    contract.context = rig;
    contract_children(&contract);
    plan_lazy();
    register_contract(&contract);
    rig_end_all(rig);
    return 0;
}
