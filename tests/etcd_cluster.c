#include "tests/etcd_cluster.h"
#include "membership/etcd_message.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- Requests of the test's own -------------------------------------------------------------------------------------- */

struct body {
    char *text;
    size_t length, room;
};

static size_t take(char *bytes, size_t size, size_t count, void *context) {
    struct body *body = context;
    size_t length = MIN(size * count, body->room - 1 - body->length);
    memcpy(body->text + body->length, bytes, length);
    body->length += length;
    body->text[body->length] = 0;
    return size * count;
}

long etcd_post(const char *url, const char *path, const char *body, const char *token, char *answer, size_t room) {
    char whole[512], header[ETCD_TOKEN_MAX + 32], certificates[600];
    struct body got = {answer, 0, room};
    long status = -1;
    CURL *easy = curl_easy_init();
    PROMISE(easy != NULL);
    snprintf(whole, sizeof whole, "%s%s", url, path);
    snprintf(header, sizeof header, "Authorization: %s", token ? token : "");
    struct curl_slist *headers = token ? curl_slist_append(NULL, header) : NULL;
    answer[0] = 0;
    curl_easy_setopt(easy, CURLOPT_URL, whole);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 3000L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &got);
    if (headers)
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    if (strncmp(url, "https", 5) == 0) {
        snprintf(certificates, sizeof certificates, "%s/tls/ca.crt", test_directory());
        curl_easy_setopt(easy, CURLOPT_CAINFO, certificates);
        snprintf(certificates, sizeof certificates, "%s/tls/client.crt", test_directory());
        curl_easy_setopt(easy, CURLOPT_SSLCERT, certificates);
        snprintf(certificates, sizeof certificates, "%s/tls/client.key", test_directory());
        curl_easy_setopt(easy, CURLOPT_SSLKEY, certificates);
    }
    if (curl_easy_perform(easy) == CURLE_OK)
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    return status;
}

/* ---- Members --------------------------------------------------------------------------------------------------------- */

/* Different ones, free a moment ago. */
static void free_ports(unsigned *ports, unsigned count) {
    int sockets[8];
    PROMISE(count <= 8);
    for (unsigned i = 0; i < count; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        PROMISE(bind(sockets[i], (struct sockaddr *)&address, sizeof address) == 0 &&
                getsockname(sockets[i], (struct sockaddr *)&address, &length) == 0);
        ports[i] = ntohs(address.sin_port);
    }
    for (unsigned i = 0; i < count; i++)
        close(sockets[i]);
}

static void in_child(struct etcd_cluster *cluster, unsigned member, pid_t parent) {
    char name[16], data[600], client[64], peer[64], initial[512] = "", log[620], tls[4][600];
    char *arguments[48];
    unsigned count = 0;
    snprintf(name, sizeof name, "m%u", member);
    snprintf(data, sizeof data, "%s/%s/%s", test_directory(), cluster->name, name);
    snprintf(log, sizeof log, "%s.log", data);
    snprintf(client, sizeof client, "%s", cluster->members[member].url);
    snprintf(peer, sizeof peer, "http://127.0.0.1:%u", cluster->members[member].peer_port);
    for (unsigned i = 0; i < cluster->count; i++)
        snprintf(initial + strlen(initial), sizeof initial - strlen(initial), "%sm%u=http://127.0.0.1:%u", i ? "," : "", i,
                 cluster->members[i].peer_port);
    char *usual[] = {ETCD_PATH, "--name", name, "--data-dir", data, "--listen-client-urls", client, "--advertise-client-urls",
                     client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", initial,
                     "--initial-cluster-token", cluster->name, "--log-level", "warn"};
    for (unsigned i = 0; i < sizeof usual / sizeof *usual; i++)
        arguments[count++] = usual[i];
    if (cluster->tls) {
        const char *files[] = {"ca.crt", "server.crt", "server.key"};
        char *options[] = {"--trusted-ca-file", "--cert-file", "--key-file"};
        arguments[count++] = "--client-cert-auth";
        for (unsigned i = 0; i < 3; i++) {
            snprintf(tls[i], sizeof tls[i], "%s/tls/%s", test_directory(), files[i]);
            arguments[count++] = options[i];
            arguments[count++] = tls[i];
        }
    }
    for (unsigned i = 0; i < 7 && cluster->more[i]; i++)
        arguments[count++] = (char *)cluster->more[i];
    arguments[count] = NULL;
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), in = open("/dev/null", O_RDONLY);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    closefrom(3);
    /* Whatever becomes of the test, the member goes with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGALRM, SIG_DFL);
    if (getppid() == parent)
        execv(ETCD_PATH, arguments);
    _exit(127);
}

void etcd_member_start(struct etcd_cluster *cluster, unsigned member) {
    pid_t parent = getpid(), pid = fork();
    PROMISE(pid >= 0);
    if (pid == 0)
        in_child(cluster, member, parent);
    cluster->members[member].pid = pid;
}

void etcd_member_signal(struct etcd_cluster *cluster, unsigned member, int number) {
    if (cluster->members[member].pid)
        kill(cluster->members[member].pid, number);
}

void etcd_member_kill(struct etcd_cluster *cluster, unsigned member) {
    pid_t pid = cluster->members[member].pid;
    if (!pid)
        return;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    cluster->members[member].pid = 0;
}

void etcd_cluster_end(struct etcd_cluster *cluster) {
    for (unsigned i = 0; i < cluster->count; i++)
        etcd_member_kill(cluster, i);
}

static bool member_leads(struct etcd_cluster *cluster, unsigned member, bool *any) {
    char answer[2048];
    *any = false;
    if (!cluster->members[member].pid ||
        etcd_post(cluster->members[member].url, ETCD_PATH_STATUS, "{}", NULL, answer, sizeof answer) != 200)
        return false;
    json_t *json = json_loads(answer, 0, NULL);
    const char *leader = json_string_value(json_object_get(json, "leader"));
    const char *self = json_string_value(json_object_get(json_object_get(json, "header"), "member_id"));
    *any = leader && strcmp(leader, "0") != 0;
    bool leads = *any && self && strcmp(leader, self) == 0;
    json_decref(json);
    return leads;
}

int etcd_cluster_leader(struct etcd_cluster *cluster) {
    bool any;
    for (unsigned i = 0; i < cluster->count; i++)
        if (member_leads(cluster, i, &any))
            return (int)i;
    return -1;
}

static bool all_know_a_leader(struct etcd_cluster *cluster) {
    for (unsigned i = 0; i < cluster->count; i++) {
        bool any;
        member_leads(cluster, i, &any);
        if (!any)
            return false;
    }
    return true;
}

static bool one_has_died(struct etcd_cluster *cluster) {
    for (unsigned i = 0; i < cluster->count; i++)
        if (waitpid(cluster->members[i].pid, NULL, WNOHANG) == cluster->members[i].pid) {
            cluster->members[i].pid = 0;
            return true;
        }
    return false;
}

void etcd_cluster_start(struct etcd_cluster *cluster, const char *name, unsigned count, bool await) {
    char path[600];
    if (access(ETCD_PATH, X_OK) < 0)
        skip_all("%s is not here; install etcd-server", ETCD_PATH);
    snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    PROMISE(count <= 3 && mkdir(path, 0755) == 0);
    snprintf(cluster->name, sizeof cluster->name, "%s", name);
    cluster->count = count;
    /* A port may be taken by another process in between. */
    for (unsigned attempt = 0; attempt < 5; attempt++) {
        unsigned ports[6];
        free_ports(ports, 2 * count);
        for (unsigned i = 0; i < count; i++) {
            cluster->members[i].port = ports[2 * i];
            cluster->members[i].peer_port = ports[2 * i + 1];
            snprintf(cluster->members[i].url, sizeof cluster->members[i].url, "%s://127.0.0.1:%u",
                     cluster->tls ? "https" : "http", ports[2 * i]);
        }
        for (unsigned i = 0; i < count; i++) {
            snprintf(path, sizeof path, "rm -rf '%s/%s/m%u'", test_directory(), name, i);
            PROMISE(system(path) == 0);
            etcd_member_start(cluster, i);
        }
        bool died = false;
        if (!await || AWAIT((died = one_has_died(cluster)) || all_know_a_leader(cluster))) {
            if (!died)
                return;
        }
        etcd_cluster_end(cluster);
    }
    bail("etcd does not start; see %s/%s", test_directory(), name);
}

/* ---- Nodes ----------------------------------------------------------------------------------------------------------- */

static bool fit(void *context) {
    struct etcd_node *node = context;
    return !atomic_load(&node->unfit);
}

static void news(void *context, const struct register_value *value) {
    struct etcd_node *node = context;
    atomic_store(&node->news_version, value->version);
    atomic_fetch_add(&node->news, 1);
}

static void freed(void *context) {
    struct etcd_node *node = context;
    atomic_fetch_add(&node->freed, 1);
}

static void lost(void *context, epoch_t epoch) {
    struct etcd_node *node = context;
    atomic_store(&node->lost_epoch, epoch);
    atomic_fetch_add(&node->lost, 1);
}

void etcd_node_config(struct etcd_node *node, const struct etcd_cluster *cluster, const char *name, uint32_t lease_ms) {
    memset(node, 0, sizeof *node);
    struct config *config = &node->config;
    snprintf(config->volume, sizeof config->volume, "v");
    memset(config->volume_id, 0x5a, sizeof config->volume_id);
    config->lease_ms = lease_ms;
    config->node_count = 3;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(config->nodes[i].name, sizeof config->nodes[i].name, "%c", 'a' + i);
        config->nodes[i].number = (uint16_t)(i + 1);
    }
    snprintf(config->etcd.prefix, sizeof config->etcd.prefix, "baton");
    config->etcd.endpoint_count = cluster->count;
    for (unsigned i = 0; i < cluster->count; i++)
        snprintf(config->etcd.endpoints[i], sizeof config->etcd.endpoints[i], "%s", cluster->members[i].url);
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(config->nodes[i].name, name) == 0)
            node->self = &config->nodes[i];
    node->shared = &node->shared_own;
}

int etcd_node_open_as(struct etcd_node *node) {
    struct register_watch watch = {.context = node, .fit = fit, .news = news, .freed = freed, .lost = lost};
    return register_etcd_open(&node->config, node->self, &watch, node->shared, &node->reg, node->why, sizeof node->why);
}

void etcd_node_open(struct etcd_node *node, const struct etcd_cluster *cluster, const char *name, uint32_t lease_ms) {
    etcd_node_config(node, cluster, name, lease_ms);
    if (etcd_node_open_as(node) != 0)
        bail("node %s cannot open its register: %s", name, node->why);
}

void etcd_node_close(struct etcd_node *node) {
    if (node->reg)
        node->reg->engine->close(node->reg);
    node->reg = NULL;
}

struct register_value etcd_next(const struct register_value *before, const char *primary, bool reign) {
    struct register_value next = *before;
    next.version++;
    snprintf(next.primary, sizeof next.primary, "%s", primary);
    if (reign) {
        next.epoch = EPOCH_MAKE(EPOCH_COUNTER(before->epoch) + 1, (uint16_t)(primary[0] - 'a' + 1));
        next.start_lsn = before->start_lsn + 100;
        memset(next.start_chain, (int)next.version & 255, sizeof next.start_chain);
    }
    next.member_count = 2;
    for (unsigned i = 0; i < 2; i++) {
        snprintf(next.members[i].node, sizeof next.members[i].node, "%c", 'a' + i);
        memset(next.members[i].incarnation, 0x11 * (int)(i + 1), sizeof next.members[i].incarnation);
    }
    return next;
}

bool etcd_holds(const struct etcd_node *node) {
    return atomic_load(&node->shared->until) > clock_boot();
}
