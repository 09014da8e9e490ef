/* The register with voters, asked by its own engine over CURVE, of the voters that processes have: the contract that all
 * engines keep to. */
#include "membership/voter_host.h"
#include "membership/voters.h"
#include "tests/register-contract.h"

#include <sys/mman.h>
#include <zmq.h>

#define VOTERS 3u /* nodes a and b, and the witness */

static struct volume { /* shared with children */
    struct config config;
    char secrets[VOTERS][KEY_TEXT];
    unsigned number;
} *volume;
static struct voter_host *hosts[VOTERS];

static const char *node_name(void *context, unsigned node) {
    (void)context;
    return volume->config.nodes[node].name;
}
static uint16_t node_number(void *context, unsigned node) {
    (void)context;
    return volume->config.nodes[node].number;
}

static void end_all(void) {
    for (unsigned i = 0; i < VOTERS; i++) {
        if (hosts[i])
            voter_host_close(hosts[i]);
        hosts[i] = NULL;
    }
}

static const char *name_of(unsigned voter) {
    return voter < 2 ? volume->config.nodes[voter].name : "witness";
}

static void fresh(void *context, uint32_t lease_ms) {
    char why[600], address[VOTER_ADDRESS], directory[400];
    (void)context;
    end_all();
    volume->config.lease_ms = lease_ms;
    volume->number++;
    memcpy(volume->config.volume_id, &volume->number, sizeof volume->number);
    for (unsigned i = 0; i < VOTERS; i++) {
        snprintf(directory, sizeof directory, "%s/%s%u", test_directory(), name_of(i), volume->number);
        PROMISE(voter_address(&volume->config, name_of(i), address) == 0);
        struct voter_host_options options = {address, TRANSPORT_CURVE, volume->secrets[i], directory};
        if (voter_host_open(&options, &hosts[i], why, sizeof why) ||
            voter_host_serve(hosts[i], &volume->config, name_of(i), NULL, why, sizeof why))
            bail("%s", why);
    }
}

static int open_apart(void *context, unsigned node, const struct register_watch *watch, struct lease_shared *shared,
                      struct reg **reg) {
    char why[300];
    (void)context;
    return voters_open_apart(&volume->config, &volume->config.nodes[node], volume->secrets[node], watch, shared, reg, why, sizeof why);
}

static int release(void *context, unsigned node, epoch_t epoch, uint64_t session, int64_t patience) {
    (void)context;
    return register_voters_release(&volume->config, &volume->config.nodes[node], volume->secrets[node], epoch, session, patience);
}

static void make_volume(void) {
    unsigned pid = (unsigned)getpid();
    volume = mmap(NULL, sizeof *volume, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (volume == MAP_FAILED)
        bail("mmap");
    struct config *config = &volume->config;
    config->transport = TRANSPORT_CURVE;
    config->node_count = 2;
    config->has_witness = true;
    snprintf(config->volume, sizeof config->volume, "contract");
    for (unsigned i = 0; i < VOTERS; i++) {
        struct node_config *node = i == 2 ? &config->witness : &config->nodes[i];
        snprintf(node->name, sizeof node->name, "%s", i == 2 ? "witness" : i == 1 ? "b" : "a");
        node->number = (uint16_t)(i + 1);
        /* this program's alone */
        snprintf(node->address, sizeof node->address, "tcp://127.%u.%u.%u:%u", 128 + (pid >> 16 & 63), pid >> 8 & 255, pid & 255,
                 20000 + 10 * i);
        PROMISE(zmq_curve_keypair(node->public_key, volume->secrets[i]) == 0);
    }
}

static struct contract contract = {
    .node = node_name, .number = node_number, .fresh = fresh, .open = open_apart, .release = release};

int main(void) {
    make_volume();
    contract_children(&contract);
    plan_lazy();
    register_contract(&contract);
    end_all();
    return 0;
}
