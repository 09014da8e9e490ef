#include "tests/pair.h"
#include "membership/register.h"
#include "replication/parts.h"
#include "tests/tap.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zmq.h>

static bool port_free(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

static uint16_t free_ports(void) {
    uint64_t state = (uint64_t)getpid() * 7919 + (uint64_t)clock_boot();
    for (;;) {
        uint16_t port = (uint16_t)(20000 + test_random(&state) % 10000 * 3 / 3);
        if (port_free(port) && port_free(port + 1) && port_free(port + 2) && port_free(port + 3))
            return port;
    }
}

void pair_make(struct pair *pair, enum transport transport) {
    static unsigned number;
    char why[512];
    memset(pair, 0, sizeof *pair);
    struct config *config = &pair->config;
    strcpy(config->volume, "pair");
    memcpy(config->volume_id, "the pair's volume", 16);
    config->created = 1700000000000000000;
    config->transport = transport;
    config->history_bytes = 1ull << 30;
    config->history_seconds = 3600;
    config->lease_ms = 1000;
    config->node_count = 2;
    number++;
    for (unsigned i = 0; i < 2; i++) {
        struct node_config *node = &config->nodes[i];
        snprintf(node->name, sizeof node->name, "%c", 'a' + (int)i);
        node->number = (uint16_t)(100 + i);
        uint16_t port = free_ports();
        if (i == 1 && strlen(config->nodes[0].address)) {
            char host[64];
            uint16_t other;
            config_address(config->nodes[0].address, host, &other);
            while (port < other + NODE_PORTS && port + NODE_PORTS > other)
                port = free_ports();
        }
        snprintf(node->address, sizeof node->address, "tcp://127.0.0.1:%u", port);
        zmq_curve_keypair(node->public_key, pair->secrets[i]);
        snprintf(node->store, sizeof node->store, "%s/pair%u.%s", test_directory(), number, node->name);
        struct store_options options = {.history_bytes = 1ull << 30};
        if (store_format(node->store, config->volume_id, config->volume, config->created, &options, why, sizeof why))
            bail("format: %s", why);
        char path[1100];
        register_file_path(node->store, path, sizeof path);
        if (register_file_first(path, i == 0 ? node->name : NULL, why, sizeof why))
            bail("register: %s", why);
    }
}

void pair_start(struct pair *pair, unsigned node) {
    char why[512] = "";
    struct volume *volume = &pair->nodes[node];
    memset(volume, 0, sizeof *volume);
    volume->config = pair->config;
    volume->self = &volume->config.nodes[node];
    memcpy(volume->secret, pair->secrets[node], KEY_TEXT);
    struct store_options options = {.history_bytes = pair->config.history_bytes,
                                    .history_seconds = pair->config.history_seconds};
    if (store_open(volume->self->store, volume->config.volume_id, &options, &volume->store, why, sizeof why))
        bail("open: %s", why);
    volume->park = park_create();
    volume->local = park_create();
    volume_watch(volume);
    if (pair->played)
        pair->open_register(pair->played, node, volume);
    if (replicator_start(volume, why, sizeof why))
        bail("node %s: %s", volume->self->name, why);
}

void pair_stop(struct pair *pair, unsigned node) {
    struct volume *volume = &pair->nodes[node];
    if (!volume->store)
        return;
    replicator_stop(volume->replicator);
    if (pair->played)
        pair->close_register(pair->played, node, volume);
    store_close(volume->store);
    park_free(volume->park);
    park_free(volume->local);
    memset(volume, 0, sizeof *volume);
}

void pair_leave(struct pair *pair, unsigned node) {
    replicator_leave(pair->nodes[node].replicator, 5000000000);
    pair_stop(pair, node);
}

void pair_silence(struct pair *pair, unsigned node) {
    struct replicator *r = atomic_load(&pair->nodes[node].replicator);
    link_shutdown(r->link);
}

bool pair_wait_link(struct pair *pair, unsigned node, const char *state, int seconds) {
    int64_t deadline = clock_boot() + seconds * 1000000000ll;
    for (;;) {
        json_t *status = replicator_status(pair->nodes[node].replicator);
        bool reached = strcmp(json_string_value(json_object_get(status, "link")), state) == 0;
        bool over = clock_boot() > deadline;
        if (!reached && over) {
            char *text = json_dumps(status, 0);
            diag("node %u is not %s: %s", node, state, text);
            free(text);
        }
        json_decref(status);
        if (reached || over)
            return reached;
        usleep(2000);
    }
}

bool pair_wait_role(struct pair *pair, unsigned node, enum role role, int seconds) {
    int64_t deadline = clock_boot() + seconds * 1000000000ll;
    while (clock_boot() < deadline) {
        if (atomic_load(&pair->nodes[node].role) == (int)role)
            return true;
        usleep(2000);
    }
    return false;
}

bool pair_wait_equal(struct pair *pair, int seconds) {
    int64_t deadline = clock_boot() + seconds * 1000000000ll;
    struct position a, b;
    do {
        store_position(pair->nodes[0].store, &a);
        store_position(pair->nodes[1].store, &b);
        if (a.lsn == b.lsn && memcmp(a.chain, b.chain, CHAIN_SIZE) == 0)
            return true;
        usleep(2000);
    } while (clock_boot() < deadline);
    diag("a is at LSN %llu, b at %llu", (unsigned long long)a.lsn, (unsigned long long)b.lsn);
    return false;
}

uint64_t pair_state(struct store *store) {
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    store_lock(store);
    for (enum table table = 0; table < TABLE_SHARED_END; table++) {
        struct cursor cursor;
        struct key start = {.length = 0};
        if (cursor_open(&cursor, store, NULL, table))
            continue;
        for (int rc = cursor_seek(&cursor, &start); rc == 0; rc = cursor_next(&cursor)) {
            XXH3_64bits_update(state, cursor.key.data, cursor.key.length);
            if (table == TABLE_EXTENT && cursor.value.length > 12) /* where the blocks lie is each node's own */
                XXH3_64bits_update(state, cursor.value.data + 8, cursor.value.length - 8);
            else
                XXH3_64bits_update(state, cursor.value.data, cursor.value.length);
        }
        cursor_close(&cursor);
    }
    store_unlock(store);
    uint64_t sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return sum;
}

/* ---- Waiting as a mount's thread would, were it one that waits --------------------------------------------------------- */

struct waiter {
    struct parked parked;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done, left; /* whoever comes last frees it */
    int error;
};

static void waited(struct parked *parked, int error) {
    struct waiter *waiter = (struct waiter *)parked;
    pthread_mutex_lock(&waiter->lock);
    waiter->done = true;
    waiter->error = error;
    bool left = waiter->left;
    pthread_cond_signal(&waiter->cond);
    pthread_mutex_unlock(&waiter->lock);
    if (left)
        free(waiter);
}

int pair_wait_for(struct pair *pair, unsigned node, enum volume_wait kind, uint64_t lsn, int seconds) {
    struct waiter *waiter = calloc(1, sizeof *waiter);
    struct timespec until;
    waiter->parked.done = waited;
    pthread_mutex_init(&waiter->lock, NULL);
    pthread_cond_init(&waiter->cond, NULL);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    volume_wait(&pair->nodes[node], kind, lsn, &waiter->parked);
    pthread_mutex_lock(&waiter->lock);
    int rc = 0;
    while (!waiter->done && rc == 0)
        rc = pthread_cond_timedwait(&waiter->cond, &waiter->lock, &until);
    bool done = waiter->done;
    rc = done ? waiter->error : -ETIMEDOUT;
    waiter->left = true; /* it is still parked, unless it is done */
    pthread_mutex_unlock(&waiter->lock);
    if (done)
        free(waiter);
    return rc;
}

int pair_create_file(struct pair *pair, unsigned node, const char *name, uint64_t *ino) {
    struct caller caller = {0};
    struct attributes attributes;
    uint64_t lsn;
    int rc = op_create(pair->nodes[node].store, &caller, ROOT_INO, name, S_IFREG | 0644, 0, NULL, &attributes, &lsn);
    if (rc)
        return rc;
    if (ino)
        *ino = attributes.ino;
    return pair_wait_for(pair, node, WAIT_CHANGE, lsn, 60);
}
