/* The register with voters as batond has it: each node's voter in its own process behind the engine, with its promises on disk,
 * a witness beside them, and CURVE. The contract of all engines holds; so do two nodes whose third voter is away.
 */
#include "membership/voter_host.h"
#include "membership/voters.h"
#include "tests/register-contract.h"
#include "tests/voter-rig.h"

#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define MS INT64_C(1000000)

struct hosted { /* shared with children */
    struct config config;
    char secrets[3][KEY_TEXT];
    unsigned volume; /* each has a directory of its own */
};
#define LEASE 3000u
static struct voter_host *witness;

static struct hosted *hosted_of(void *context) {
    return context;
}
static const char *node_name(void *context, unsigned node) {
    return hosted_of(context)->config.nodes[node].name;
}
static uint16_t node_number(void *context, unsigned node) {
    return hosted_of(context)->config.nodes[node].number;
}

static void open_witness(struct hosted *h) {
    char address[VOTER_ADDRESS], directory[700], why[300];
    if (voter_address(&h->config, "witness", address) != 0)
        bail("the witness has no address");
    snprintf(directory, sizeof directory, "%s/witness-%u", test_directory(), h->volume);
    struct voter_host_options options = {.address = address, .transport = h->config.transport, .secret = h->secrets[2],
                                         .directory = directory};
    if (voter_host_open(&options, &witness, why, sizeof why) != 0 ||
        voter_host_serve(witness, &h->config, "witness", NULL, why, sizeof why) != 0)
        bail("%s", why);
}

static void fresh(void *context, uint32_t lease_ms) {
    struct hosted *h = context;
    if (witness)
        voter_host_close(witness);
    h->volume++;
    h->config.lease_ms = lease_ms;
    if (getrandom(h->config.volume_id, sizeof h->config.volume_id, 0) != sizeof h->config.volume_id)
        bail("getrandom");
    for (unsigned i = 0; i < 2; i++)
        snprintf(h->config.nodes[i].store, sizeof h->config.nodes[i].store, "%s/%s-%u", test_directory(), h->config.nodes[i].name, h->volume);
    open_witness(h);
}

static int open_node(void *context, unsigned node, const struct register_watch *watch, struct lease_shared *shared,
                     struct reg **reg) {
    struct hosted *h = context;
    char why[300] = "";
    int rc = register_voters_open(&h->config, &h->config.nodes[node], h->secrets[node], watch, shared, reg, why, sizeof why);
    if (rc)
        diag("%s", why);
    return rc;
}

static int release(void *context, unsigned node, epoch_t epoch, uint64_t session, int64_t patience) {
    struct hosted *h = context;
    return register_voters_release(&h->config, &h->config.nodes[node], h->secrets[node], epoch, session, patience);
}

static struct contract contract = {
    .node = node_name, .number = node_number, .fresh = fresh, .open = open_node, .release = release};

static void without_a_witness(struct hosted *h) {
    struct contract_node a, b;
    fresh(h, LEASE);
    node_open(&a, &contract, 0);
    node_open(&b, &contract, 1);
    if (!node_rises(&a))
        return;
    voter_host_close(witness);
    witness = NULL;
    int64_t until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + LEASE * MS), "two voters of three keep the lease");
    struct register_value next = value_after(&a, -1, 11);
    is_int(0, register_settle(a.reg, &a.value, &next), "and change the register");
    struct lease_view view;
    bool seen = WITHIN(60, (a.lease->view(a.reg, &view), !view.voters[2].answers && view.voters[2].why[0]));
    ok(seen && strcmp(view.voters[2].name, "witness") == 0, "status names the one that is away (%s: %s)", view.voters[2].name, view.voters[2].why);
    open_witness(h);
    node_close(&b); /* its voter goes with it */
    ok(WITHIN(60, (a.lease->view(a.reg, &view), view.voters[2].grants)), "it comes back, and grants at once");
    until = atomic_load(&a.shared.until);
    ok(WITHIN(60, atomic_load(&a.shared.until) > until + LEASE * MS), "so the other node may go");
    is_int(0, atomic_load(&a.lost), "and the lease was never lost");
    node_close(&a);
}

int main(void) {
    struct rig *rig = rig_new(2, 1000); /* for its addresses */
    struct hosted *h = (struct hosted *)rig;
    _Static_assert(sizeof *h <= sizeof *rig, "it is shared memory");
    struct config config = rig->config;
    memset(rig, 0, sizeof *rig);
    h->config = config;
    h->config.transport = TRANSPORT_CURVE;
    for (unsigned i = 0; i < 3; i++)
        zmq_curve_keypair(i == 2 ? h->config.witness.public_key : h->config.nodes[i].public_key, h->secrets[i]);
    test_directory();
    contract.context = h;
    contract_children(&contract);
    plan_lazy();
    register_contract(&contract);
    without_a_witness(h);
    if (witness)
        voter_host_close(witness);
    return 0;
}
