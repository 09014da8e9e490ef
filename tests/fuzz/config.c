/* The config file, and the small forms of text in it. An input is the file. */
#include "fs/config.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

static int file = -1;

static void start(void) {
    file = memfd_create("config", MFD_CLOEXEC);
    PROMISE(file >= 0);
}

static void words(const uint8_t *bytes, size_t length) {
    char text[300], host[64];
    uint64_t number;
    uint16_t port;
    size_t used = MIN(length, sizeof text - 1);
    if (used)
        memcpy(text, bytes, used);
    text[used] = 0;
    parse_duration(text, &number);
    parse_size(text, &number);
    config_name_valid(text);
    config_key_valid(text);
    if (config_address(text, host, &port) == 0)
        FUZZ_MUST(strlen(host) < sizeof host);
}

static bool one(const uint8_t *bytes, size_t length) {
    static struct config config;
    char path[64], why[600] = "";
    PROMISE(ftruncate(file, 0) == 0 && pwrite_all(file, bytes, length, 0) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    words(bytes, length);
    int rc = config_load(path, &config, why, sizeof why);
    FUZZ_MUST(rc == 0 || why[0]);
    if (rc)
        return false;
    FUZZ_MUST(config.node_count >= 1 && config.node_count <= CONFIG_NODES_MAX);
    for (unsigned i = 0; i < config.node_count; i++) {
        const struct node_config *node = &config.nodes[i];
        FUZZ_MUST(config_name_valid(node->name) && config_node(&config, node->name) && node->number != 0);
        for (unsigned j = 0; j < i; j++)
            FUZZ_MUST(config.nodes[j].number != node->number);
    }
    return true;
}

static void seeds(void) {
    static const char text[] =
        "[volume]\nname = projects\nid = 00112233445566778899aabbccddeeff\ncreated = 1700000000123456789\n"
        "acknowledge = close\nfsync = disk\ntransport = curve\n\n"
        "[node a]\naddress = tcp://10.0.0.1:7400\npublic-key = 0123456789012345678901234567890123456789\n"
        "store = /srv/baton/projects\nmount = /projects\n\n"
        "[node b]\naddress = tcp://[fd00::2]:7400\npublic-key = abcdefghijabcdefghijabcdefghijabcdefghij\n"
        "store = /srv/baton/projects\n\n"
        "[journal]\nhistory = 1h\nlimit = 8GiB\nsize = 1GiB\n\n[scrub]\nrate = 32MiB\nevery = 7d\n\n"
        "[lease]\nduration = 2s\n";
    fuzz_give("two-nodes", text, sizeof text - 1);
}

const struct fuzz_harness fuzz_config = {.name = "config", .start = start, .one = one, .seeds = seeds};
