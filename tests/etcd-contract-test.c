/* The register in etcd: the contract that all engines keep to. */
#include "tests/etcd_cluster.h"
#include "tests/register-contract.h"

#include <sys/mman.h>

static struct shared { /* with the children */
    struct config config;
} *shared;

static const char *node_name(void *context, unsigned node) {
    return ((struct shared *)context)->config.nodes[node].name;
}

static uint16_t node_number(void *context, unsigned node) {
    return ((struct shared *)context)->config.nodes[node].number;
}

static void fresh(void *context, uint32_t lease_ms) {
    struct config *config = &((struct shared *)context)->config;
    config->lease_ms = lease_ms;
    for (unsigned i = 0; i < 16 && ++config->volume_id[i] == 0; i++)
        ;
}

static int open_engine(void *context, unsigned node, const struct register_watch *watch, struct lease_shared *lease,
                       struct reg **reg) {
    const struct config *config = &((struct shared *)context)->config;
    char why[400];
    return register_etcd_open(config, &config->nodes[node], watch, lease, reg, why, sizeof why);
}

static int release(void *context, unsigned node, epoch_t epoch, uint64_t session, int64_t patience) {
    const struct config *config = &((struct shared *)context)->config;
    return register_etcd_release(config, &config->nodes[node], epoch, session, patience);
}

static struct contract contract = {
    .node = node_name, .number = node_number, .fresh = fresh, .open = open_engine, .release = release};

int main(void) {
    struct etcd_cluster cluster = {0};
    struct etcd_node node;
    plan_lazy();
    etcd_cluster_start(&cluster, "three", 3, true);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    PROMISE(shared != MAP_FAILED);
    etcd_node_config(&node, &cluster, "a", 1000);
    shared->config = node.config;
    contract.context = shared;
    contract_children(&contract);
    register_contract(&contract);
    etcd_cluster_end(&cluster);
    return 0;
}
