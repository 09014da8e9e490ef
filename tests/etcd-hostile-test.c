/* The register in etcd when what answers is no etcd, or another one: beside good members it does no harm, alone it is not
 * believed. */
#include "tests/etcd_cluster.h"
#include "tests/etcd_proxy.h"
#include "tests/tap.h"

#include <stdio.h>

static struct etcd_cluster cluster = {0};
static uint8_t volume = 1;

static void open_at(struct etcd_node *node, const char *url, bool alone, const char *name, uint32_t lease_ms) {
    etcd_node_config(node, &cluster, name, lease_ms);
    memset(node->config.volume_id, volume, sizeof node->config.volume_id);
    snprintf(node->config.etcd.endpoints[0], sizeof node->config.etcd.endpoints[0], "%s", url);
    if (alone)
        node->config.etcd.endpoint_count = 1;
    else
        snprintf(node->config.etcd.endpoints[node->config.etcd.endpoint_count++], sizeof node->config.etcd.endpoints[0], "%s",
                 cluster.members[0].url);
    if (etcd_node_open_as(node) != 0)
        bail("the register cannot be opened: %s", node->why);
}

static void begin(struct etcd_node *node) {
    struct register_value none = {0}, value = etcd_next(&none, node->self->name, true);
    is_int(0, register_settle(node->reg, &none, &value), "%s is the first primary", node->self->name);
    is_int(0, node->reg->engine->lease->take(node->reg, &value), "it takes the lease");
    ok(AWAIT(etcd_holds(node)), "and has it");
}

static bool reads(struct etcd_node *node, uint64_t version) {
    struct register_value value;
    return node->reg->engine->read(node->reg, &value) == 0 && value.version == version;
}

static const char *const mode_names[PROXY_MODES] = {
    [PROXY_REFUSE] = "closes connections", [PROXY_RUBBISH] = "answers rubbish", [PROXY_NOISE] = "speaks no HTTP",
    [PROXY_REDIRECT] = "sends elsewhere", [PROXY_ENDLESS] = "answers without end", [PROXY_HEADERS] = "has headers without end",
    [PROXY_SLOW] = "answers a byte at a time", [PROXY_SILENT] = "is silent", [PROXY_OTHER] = "is another cluster's", [PROXY_UNWILLING] = "likes no request"};

static void test_mode(enum proxy_mode mode) {
    static struct etcd_node a, b;
    struct etcd_proxy proxy;
    struct register_value seen;
    struct lease_view view;
    volume++;
    etcd_proxy_start(&proxy, cluster.members[0].url);
    if (mode != PROXY_OTHER)
        atomic_store(&proxy.mode, (int)mode);
    open_at(&a, proxy.url, false, "a", 10000);
    begin(&a);
    atomic_store(&proxy.mode, (int)mode);
    int64_t until = clock_boot() + 10 * SECOND + 500 * MS;
    ok(AWAIT(atomic_load(&a.shared->until) > until && (mode == PROXY_OTHER || atomic_load(&proxy.requests) > 0)),
       "with a member that %s the lease is renewed by others", mode_names[mode]);
    open_at(&b, proxy.url, true, "b", 500);
    if (mode == PROXY_OTHER) {
        ok(AWAIT(reads(&b, 1)), "a node that knows no other believes it");
        atomic_store(&proxy.mode, PROXY_PASS);
        is_int(-ENOTCONN, b.reg->engine->read(b.reg, &seen), "but not when it is of another cluster than before");
        is_int(1, seen.version, "what was known stays");
    } else {
        is_int(-ENOTCONN, b.reg->engine->read(b.reg, &seen), "alone it says nothing");
        is_int(0, seen.version, "and nothing is believed");
    }
    ok(AWAIT((b.reg->engine->lease->view(b.reg, &view), view.voters[0].why[0])), "status tells why");
    diag("%s", view.voters[0].why);
    etcd_node_close(&a);
    etcd_node_close(&b);
    etcd_proxy_end(&proxy);
}

/* etcd goes back to what it was: its data was restored from a backup, or somebody has deleted keys. */
static void test_gone_back(void) {
    static struct etcd_node a, b;
    struct register_value value, seen, next;
    char answer[2048];
    volume = 0; /* as the key below has it */
    open_at(&a, cluster.members[0].url, true, "a", 1000);
    open_at(&b, cluster.members[0].url, true, "b", 1000);
    begin(&a);
    ok(AWAIT(reads(&b, 1)), "b reads");
    /* baton/00000000000000000000000000000000/register */
    is_int(200, etcd_post(cluster.members[0].url, "/v3/kv/deleterange",
                          "{\"key\":\"YmF0b24vMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAvcmVnaXN0ZXI=\"}", NULL, answer, sizeof answer),
           "somebody deletes the register");
    ok(AWAIT(atomic_load(&a.lost) == 1), "the primary answers nothing any more");
    is_int(-ENOTCONN, b.reg->engine->read(b.reg, &seen), "nobody takes the volume for unborn who has known better");
    is_int(1, seen.version, "what was known stays");
    memset(&value, 0, sizeof value);
    next = etcd_next(&value, "b", true);
    ok(register_settle(b.reg, &value, &next) != 0, "and makes it anew");
    etcd_node_close(&a);
    etcd_node_close(&b);
}

int main(void) {
    plan_lazy();
    etcd_cluster_start(&cluster, "one", 1, true);
    for (enum proxy_mode mode = PROXY_REFUSE; mode < PROXY_MODES; mode++)
        test_mode(mode);
    test_gone_back();
    etcd_cluster_end(&cluster);
    return 0;
}
