#include "fs/nodes.h"

#include "fs/ops.h"

#include <pthread.h>

/* A million cached inodes are usual: so a table without pointers, 24 bytes a slot, linear probing, no tombstones (what
 * follows a removed slot moves up). In shards, so that a table that grows holds up few. */
#define SHARDS 16u
#define SLOTS_LEAST 64u

struct node {
    uint64_t ino; /* 0: free slot */
    uint64_t lsn;
    uint32_t lookups;
    uint16_t flags;
    uint16_t doubt; /* the last term at whose end it had changes that were not acknowledged; 0: none */
};
#define NODE_ORPHAN 1u
#define NODE_READ 2u /* its access time is up to date */
#define NODE_LOST 4u /* the doubt is whether anybody else has them, not only whether on disk */
#define NODE_CACHED 8u

struct shard {
    pthread_mutex_t mutex;
    struct node *slots;
    size_t size; /* a power of two */
    size_t used;
    uint64_t floor; /* for those that come: records up to here may have concerned them when they were not known */
};

#define MAKING 256u
struct making {
    uint64_t ino; /* 0: none */
    uint32_t maker;
};

struct nodes {
    struct shard shards[SHARDS];
    pthread_mutex_t making_mutex;
    struct making making[MAKING]; /* by the inode's low bits */
};

/* Inode numbers count up from an epoch's start: mix them. The low bits choose the slot, high ones the shard. */
static uint64_t mix(uint64_t ino) {
    ino *= UINT64_C(0x9E3779B97F4A7C15);
    return ino ^ (ino >> 29);
}

static struct shard *shard_lock(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = &nodes->shards[mix(ino) >> 60];
    PROMISE(pthread_mutex_lock(&shard->mutex) == 0);
    return shard;
}

static void shard_unlock(struct shard *shard) {
    PROMISE(pthread_mutex_unlock(&shard->mutex) == 0);
}

/* The slot that holds it, or the free one where it belongs. */
static struct node *slot_of(const struct shard *shard, uint64_t ino) {
    size_t at = mix(ino) & (shard->size - 1);
    while (shard->slots[at].ino != 0 && shard->slots[at].ino != ino)
        at = (at + 1) & (shard->size - 1);
    return &shard->slots[at];
}

static struct node *find(const struct shard *shard, uint64_t ino) {
    struct node *node = slot_of(shard, ino);
    return node->ino ? node : NULL;
}

static int resize(struct shard *shard, size_t size) {
    struct shard larger = {.size = size};

    larger.slots = calloc(size, sizeof *larger.slots);
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < shard->size; i++)
        if (shard->slots[i].ino)
            *slot_of(&larger, shard->slots[i].ino) = shard->slots[i];
    free(shard->slots);
    shard->slots = larger.slots;
    shard->size = size;
    return 0;
}

static void remove_node(struct shard *shard, struct node *node) {
    size_t mask = shard->size - 1, hole = (size_t)(node - shard->slots);

    shard->floor = MAX(shard->floor, node->lsn);
    shard->used--;
    for (size_t at = (hole + 1) & mask; shard->slots[at].ino; at = (at + 1) & mask) {
        size_t home = mix(shard->slots[at].ino) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) { /* it may lie in the hole */
            shard->slots[hole] = shard->slots[at];
            hole = at;
        }
    }
    shard->slots[hole] = (struct node){0};
    if (shard->size > SLOTS_LEAST && shard->used < shard->size / 8)
        resize(shard, shard->size / 2); /* without memory it stays as it is */
}

struct nodes *nodes_create(void) {
    struct nodes *nodes = calloc(1, sizeof *nodes);

    if (!nodes)
        return NULL;
    PROMISE(pthread_mutex_init(&nodes->making_mutex, NULL) == 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &nodes->shards[i];
        PROMISE(pthread_mutex_init(&shard->mutex, NULL) == 0);
        if (resize(shard, SLOTS_LEAST)) {
            nodes_free(nodes);
            return NULL;
        }
    }
    nodes_look(nodes, ROOT_INO); /* the kernel neither looks it up nor forgets it */
    return nodes;
}

void nodes_free(struct nodes *nodes) {
    if (!nodes)
        return;
    for (unsigned i = 0; i < SHARDS; i++)
        free(nodes->shards[i].slots);
    pthread_mutex_destroy(&nodes->making_mutex);
    free(nodes);
}

int nodes_look(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = slot_of(shard, ino);
    int error = 0;

    if (!node->ino) {
        if (shard->used >= shard->size / 4 * 3) {
            error = resize(shard, shard->size * 2);
            node = slot_of(shard, ino);
        }
        if (!error) {
            *node = (struct node){.ino = ino, .lsn = shard->floor};
            shard->used++;
        }
    }
    if (!error)
        node->lookups++;
    shard_unlock(shard);
    return error;
}

bool nodes_forget(struct nodes *nodes, uint64_t ino, uint64_t count) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);
    bool orphan = false;

    if (!node || node->lookups < count) {
        /* The kernel forgets what it got. Should our count be wrong, a file is reclaimed later than it might be. */
        log_warning("the kernel forgets inode %llu %llu times, but was told of it %u times", (unsigned long long)ino,
                    (unsigned long long)count, node ? node->lookups : 0);
        count = node ? node->lookups : 0;
    }
    if (node) {
        node->lookups -= (uint32_t)count;
        if (node->lookups == 0 && ino != ROOT_INO) {
            orphan = (node->flags & NODE_ORPHAN) != 0;
            remove_node(shard, node);
        }
    }
    shard_unlock(shard);
    return orphan;
}

bool nodes_orphan(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);

    if (node)
        node->flags = (uint16_t)(node->flags | NODE_ORPHAN);
    shard_unlock(shard);
    return !node;
}

void nodes_adopt(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);

    if (node)
        node->flags = (uint16_t)(node->flags & ~NODE_ORPHAN);
    shard_unlock(shard);
}

bool nodes_known(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    bool known = find(shard, ino) != NULL;

    shard_unlock(shard);
    return known;
}

void nodes_change(struct nodes *nodes, uint64_t ino, uint64_t lsn) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);

    if (node) {
        node->lsn = MAX(node->lsn, lsn);
        node->flags = (uint16_t)(node->flags & ~NODE_READ);
    } else {
        shard->floor = MAX(shard->floor, lsn);
    }
    shard_unlock(shard);
}

uint64_t nodes_changed(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);
    uint64_t lsn = node ? node->lsn : shard->floor;

    shard_unlock(shard);
    return lsn;
}

void nodes_restart(struct nodes *nodes, uint64_t lsn) {
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &nodes->shards[i];
        PROMISE(pthread_mutex_lock(&shard->mutex) == 0);
        shard->floor = lsn;
        for (size_t at = 0; at < shard->size; at++)
            shard->slots[at].lsn = lsn;
        shard_unlock(shard);
    }
}

/* Those that the kernel has forgotten are open nowhere. */
void nodes_doubt(struct nodes *nodes, uint64_t received, uint64_t durable, unsigned term) {
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &nodes->shards[i];
        PROMISE(pthread_mutex_lock(&shard->mutex) == 0);
        for (size_t at = 0; at < shard->size; at++) {
            struct node *node = &shard->slots[at];
            if (!node->ino || node->lsn <= MIN(received, durable))
                continue;
            node->doubt = (uint16_t)MIN(term, UINT16_MAX);
            if (node->lsn > received)
                node->flags = (uint16_t)(node->flags | NODE_LOST);
        }
        shard_unlock(shard);
    }
}

bool nodes_doubtful(struct nodes *nodes, uint64_t ino, uint64_t opened, bool durable) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);
    bool doubtful = node && node->doubt >= MAX(opened, 1) && (durable || (node->flags & NODE_LOST));

    shard_unlock(shard);
    return doubtful;
}

bool nodes_first_read(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);
    bool first = !node || !(node->flags & NODE_READ);

    if (node)
        node->flags = (uint16_t)(node->flags | NODE_READ);
    shard_unlock(shard);
    return first;
}

void nodes_cached(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);

    if (node)
        node->flags |= NODE_CACHED;
    shard_unlock(shard);
}

bool nodes_is_cached(struct nodes *nodes, uint64_t ino) {
    struct shard *shard = shard_lock(nodes, ino);
    struct node *node = find(shard, ino);
    bool cached = node && (node->flags & NODE_CACHED);

    shard_unlock(shard);
    return cached;
}

uint64_t *nodes_list(struct nodes *nodes, int64_t *count) {
    uint64_t *list = NULL;
    size_t used = 0, room = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &nodes->shards[i];
        PROMISE(pthread_mutex_lock(&shard->mutex) == 0);
        if (used + shard->used > room) {
            room = used + shard->used + 1024;
            uint64_t *more = realloc(list, room * sizeof *list);
            if (!more) {
                shard_unlock(shard);
                free(list);
                *count = -ENOMEM;
                return NULL;
            }
            list = more;
        }
        for (size_t at = 0; at < shard->size; at++)
            if (shard->slots[at].ino)
                list[used++] = shard->slots[at].ino;
        shard_unlock(shard);
    }
    *count = (int64_t)used;
    return list;
}

void nodes_made(struct nodes *nodes, uint64_t ino, uint32_t maker) {
    PROMISE(pthread_mutex_lock(&nodes->making_mutex) == 0);
    nodes->making[ino % MAKING] = (struct making){ino, maker};
    PROMISE(pthread_mutex_unlock(&nodes->making_mutex) == 0);
}

bool nodes_made_by(struct nodes *nodes, uint64_t ino, uint32_t maker) {
    PROMISE(pthread_mutex_lock(&nodes->making_mutex) == 0);
    const struct making *making = &nodes->making[ino % MAKING];
    bool same = making->ino == ino && making->maker == maker && maker != 0; /* 0: of another namespace */
    PROMISE(pthread_mutex_unlock(&nodes->making_mutex) == 0);
    return same;
}

void nodes_closed(struct nodes *nodes, uint64_t ino) {
    PROMISE(pthread_mutex_lock(&nodes->making_mutex) == 0);
    struct making *making = &nodes->making[ino % MAKING];
    if (making->ino == ino)
        *making = (struct making){0};
    PROMISE(pthread_mutex_unlock(&nodes->making_mutex) == 0);
}
