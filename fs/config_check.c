/* The config file as a whole: what is missing, and what does not go together. */
#include "fs/config_parts.h"

#include <arpa/inet.h>

static bool lack(struct parse *parse, const char *section, const char *name, const char *remedy) {
    parse->failed = true;
    snprintf(parse->why, parse->why_room, "%s: [%s%s%s] has no %s", parse->config->path, section,
             *name != '\0' ? " " : "", name, remedy);
    return false;
}

static bool inside(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static bool check_peer(struct parse *parse, const char *section, const struct node_config *node) {
    const char *name = node == &parse->config->witness ? "" : node->name;
    if (node->address[0] == '\0')
        return lack(parse, section, name, "address; add: address = tcp://IP:PORT");
    if (node->public_key[0] == '\0' && parse->config->transport == TRANSPORT_CURVE)
        return lack(parse, section, name, "public-key; take the one that `baton create` wrote");
    return true;
}

static bool check_addresses(struct parse *parse) {
    const struct node_config *all[CONFIG_NODES_MAX + 1];
    const struct config *config = parse->config;
    unsigned count = 0;

    for (unsigned i = 0; i < config->node_count; i++)
        all[count++] = &config->nodes[i];
    if (config->has_witness)
        all[count++] = &config->witness;
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < i; j++) {
            char a[64], b[64];
            uint16_t port_a, port_b;
            PROMISE(config_address(all[i]->address, a, &port_a) == 0 && config_address(all[j]->address, b, &port_b) == 0);
            /* the witness comes last, and has one port */
            int below = port_b - port_a, ports = all[i] == &config->witness ? 1 : NODE_PORTS;
            if (strcmp(a, b) == 0 && below < ports && -below < NODE_PORTS) {
                parse->failed = true;
                snprintf(parse->why, parse->why_room,
                         "%s: addresses of %s and %s collide; a node uses PORT to PORT + 4, a witness PORT", config->path,
                         all[j]->name, all[i]->name);
                return false;
            }
        }
    }
    return true;
}

static bool same_address(const char *a, const char *b) {
    uint8_t left[16], right[16];
    int family = strchr(a, ':') ? AF_INET6 : AF_INET;
    return inet_pton(family, a, left) == 1 && inet_pton(family, b, right) == 1 && memcmp(left, right, family == AF_INET ? 4 : 16) == 0;
}

/* An address that moves is taken off a node that is not primary: it must not be the one that a node lives on. */
static bool check_export_addresses(struct parse *parse) {
    const struct config *config = parse->config;
    for (const char *at = config->addresses; *at; at += strspn(at, " ")) {
        char one[64], host[64];
        uint16_t port;
        snprintf(one, sizeof one, "%.*s", (int)strcspn(at, "/@ "), at);
        at += strcspn(at, " ");
        for (unsigned i = 0; i <= config->node_count; i++) {
            const struct node_config *node = i < config->node_count ? &config->nodes[i] : &config->witness;
            if ((node == &config->witness && !config->has_witness) || config_address(node->address, host, &port) != 0 || !same_address(one, host))
                continue;
            parse->failed = true;
            snprintf(parse->why, parse->why_room, "%s: %s is the address of %s; shares need one of their own, which moves with the volume",
                     config->path, one, node == &config->witness ? "the witness" : node->name);
            return false;
        }
    }
    return true;
}

bool config_wrong(struct parse *parse, const char *sentence) {
    parse->failed = true;
    snprintf(parse->why, parse->why_room, "%s: %s", parse->config->path, sentence);
    return false;
}

static bool check_membership(struct parse *parse) {
    const struct config *config = parse->config;
    const struct etcd_config *etcd = &config->etcd;
    if (config->preferred[0] && !config_node(config, config->preferred))
        return config_wrong(parse, "[volume] preferred names no node of the volume");
    if (config->failback == FAILBACK_AUTO && !config->preferred[0])
        return config_wrong(parse, "failback = auto needs preferred = NODE in [volume]");
    if (parse->spare_seen && !config->spare[0])
        return lack(parse, "spare", "", "node; add: node = NAME");
    if (config->spare[0] && (!config_node(config, config->spare) || config->node_count < 3))
        return config_wrong(parse, "[spare] node has to be one of at least three nodes");
    if (config->spare[0] && strcmp(config->spare, config->preferred) == 0)
        return config_wrong(parse, "the spare cannot be the preferred node");
    if (parse->fence_seen && !config->fence[0])
        return lack(parse, "fence", "", "program; add: program = PATH");
    if (config->fence[0] && (config->has_witness || etcd->endpoint_count))
        return config_wrong(parse, "[fence] is for two nodes alone: a witness or etcd decides better; remove one of them");
    if (config->fence[0] && config->node_count != 2)
        return config_wrong(parse, "[fence] is for a volume of two nodes");
    if (parse->etcd_seen && etcd->endpoint_count == 0)
        return lack(parse, "etcd", "", "endpoints; add: endpoints = http://HOST:2379,…");
    if (etcd->endpoint_count && config->has_witness)
        return config_wrong(parse, "[etcd] and [witness]: either decides who is primary; remove one of them");
    if (etcd->certificate[0] ? !etcd->key[0] : etcd->key[0] != 0)
        return config_wrong(parse, "[etcd] certificate and key belong together; give both or none");
    if (etcd->user[0] ? !etcd->password_file[0] : etcd->password_file[0] != 0)
        return config_wrong(parse, "[etcd] user and password-file belong together; give both or none");
    return true;
}

bool config_check(struct parse *parse) {
    const struct config *config = parse->config;

    if (config->volume[0] == '\0')
        return lack(parse, "volume", "", "name; add: name = …");
    if (!(parse->volume_seen & (1u << 1)))
        return lack(parse, "volume", "", "id; `baton create` makes a config file that has one");
    if (config->created == 0)
        return lack(parse, "volume", "", "created; `baton create` makes a config file that has it");
    if (config->node_count == 0)
        return lack(parse, "node", "…", "place in it; add a section [node NAME] for each node");
    for (unsigned i = 0; i < config->node_count; i++) {
        const struct node_config *node = &config->nodes[i];
        if (!check_peer(parse, "node", node))
            return false;
        if (node->store[0] == '\0')
            return lack(parse, "node", node->name, "store; add: store = DIRECTORY");
        if (node->mount[0] != '\0' && (inside(node->mount, node->store) || inside(node->store, node->mount))) {
            parse->failed = true;
            snprintf(parse->why, parse->why_room,
                     "%s: [node %s]: store and mount lie inside each other; take separate directories", config->path,
                     node->name);
            return false;
        }
    }
    if (config->has_witness && !check_peer(parse, "witness", &config->witness))
        return false;
    return check_addresses(parse) && check_export_addresses(parse) && check_membership(parse);
}
