/* A node: batond as a process that starts, serves a mount, is asked to change roles, stops, is killed. The mount has no
 * files, only users whose operations append a record and wait as the volume's settings say.
 */
#include "fs/apply.h"
#include "fs/front.h"
#include "fs/generation.h"
#include "replication/parts.h"
#include "tests/simulator/sim.h"

#include <stdio.h>
#include <sys/eventfd.h>

#define LEAVE (1500 * SIM_MS)

struct front { /* the gate of the mount: fs/front.c */
    struct volume *volume;
    unsigned node;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool writable, holding, ended;
    bool replacing; /* the store: readers wait, too */
    unsigned running, reading, users;
    unsigned freed; /* by users' operations: so much there is to reclaim */
};

/* ---- The mount ------------------------------------------------------------------------------------------------------- */

void front_applied(struct front *front, const struct record *record) {
    (void)front, (void)record;
}
void front_undone(struct front *front, const struct record *record) {
    (void)front, (void)record;
}
uint64_t front_requests(const struct front *front) {
    (void)front;
    return 0;
}

static void wait_for_running(struct front *front) {
    while (front->running)
        pthread_cond_wait(&front->changed, &front->mutex);
}

void front_hold(struct front *front) {
    pthread_mutex_lock(&front->mutex);
    front->holding = true;
    wait_for_running(front);
    pthread_mutex_unlock(&front->mutex);
}

static void set_writable(struct front *front, bool writable) {
    pthread_mutex_lock(&front->mutex);
    front->writable = writable;
    if (!writable)
        wait_for_running(front);
    front->holding = false;
    pthread_cond_broadcast(&front->changed);
    pthread_mutex_unlock(&front->mutex);
}

void front_become_primary(struct front *front) {
    if (!front->writable) {
        struct position position;
        store_position(front->volume->store, &position);
        park_reset(front->volume->local, position.durable);
    }
    set_writable(front, true);
}

void front_become_standby(struct front *front) {
    set_writable(front, false);
    park_give_up(front->volume->local, -EIO);
}

static bool enter(struct front *front) {
    pthread_mutex_lock(&front->mutex);
    while (front->holding && !front->ended)
        pthread_cond_wait(&front->changed, &front->mutex);
    bool let_in = front->writable && !front->ended;
    front->running += let_in;
    pthread_mutex_unlock(&front->mutex);
    return let_in;
}

static void leave(struct front *front) {
    pthread_mutex_lock(&front->mutex);
    if (--front->running == 0)
        pthread_cond_broadcast(&front->changed);
    pthread_mutex_unlock(&front->mutex);
}

/* ---- Its users ------------------------------------------------------------------------------------------------------- */

struct operation {
    struct parked parked;
    struct front *front;
    struct sim_record *record;
    bool waits, durable; /* for this record; for the disks */
    unsigned *waiting;
};

static void answered(struct parked *parked, int error) {
    struct operation *operation = (struct operation *)parked;
    (*operation->waiting)--;
    bool may = volume_lease_holds(operation->front->volume);
    if (error == 0 && !may) /* the mount keeps it, until the role changes */
        world->counts.late_answers++;
    if (error == 0 && operation->waits && (may || mistake == MISTAKE_UNCHECKED))
        check_acknowledged(operation->front->node, operation->record, operation->durable);
    free(operation);
}

/* What a user does: a record of his own, or an fsync of what was written before, which makes none. False: nothing. */
static bool find_record(struct front *front, enum volume_wait *kind, struct sim_record **record) {
    struct store *store = front->volume->store;
    *record = disk_last(store_disk(store));
    bool own = *record && !(*record)->starts && EPOCH_NODE((*record)->epoch) == front->volume->self->number;
    *kind = WAIT_FSYNC;
    if (own && sim_chance(8))
        return true;
    *kind = (enum volume_wait)sim_below(WAIT_FSYNC + 1);
    return store_model_append(store, sim_chance(16), record) == 0;
}

static void operate(struct front *front, unsigned *waiting) {
    struct volume *volume = front->volume;
    const struct config *config = &volume->config;
    struct sim_record *record;
    enum volume_wait kind;
    if (!enter(front))
        return;
    if (!find_record(front, &kind, &record)) {
        leave(front);
        return;
    }
    struct operation *operation = calloc(1, sizeof *operation);
    PROMISE(operation);
    front->freed = MIN(front->freed + 1, 64u); /* a record frees many */
    operation->parked.done = answered;
    operation->front = front;
    operation->record = record;
    operation->waits = kind != WAIT_WRITE || config->acknowledge == ACKNOWLEDGE_WRITE;
    operation->durable = kind == WAIT_FSYNC && config->fsync == FSYNC_DISK;
    operation->waiting = waiting;
    (*waiting)++;
    volume_wait(volume, kind, record->lsn, &operation->parked);
    leave(front); /* parked, it does not run any more */
}

/* ---- Reading: a block that is bad is had from another node ----------------------------------------------------------- */

struct looked {
    struct place place;
    uint64_t checksum;
};

static int look_at(void *context, const struct extent_part *part) {
    struct looked *looked = context;
    if (part->checksums) {
        looked->place = (struct place){part->place.segment, part->place.position, 1};
        memcpy(&looked->checksum, part->checksums, sizeof looked->checksum);
    }
    return 1;
}

/* As fs/mend.c: only if the map still says the same. */
static void mend(struct volume *volume, uint64_t data, uint64_t first, const struct looked *bad) {
    uint8_t bytes[BATON_BLOCK];
    struct looked now = {0};
    if (volume_fetch(volume, data, first, bad->checksum, bytes) != 0)
        return;
    if (block_checksum(bytes) != bad->checksum)
        sim_fail("a block was mended with another one");
    store_lock(volume->store);
    extent_walk(volume->store, data, first, 1, look_at, &now);
    if (memcmp(&now, bad, sizeof now) == 0) {
        space_write(&store_disk(volume->store)->space, now.place, bytes, sizeof bytes, true);
        world->counts.mended++;
    }
    store_unlock(volume->store);
}

static void read_block(struct front *front) {
    struct volume *volume = front->volume;
    struct looked looked = {0};
    uint64_t data = 1 + sim_below(SIM_FILES), first = sim_below(SIM_FILE_BLOCKS);
    pthread_mutex_lock(&front->mutex);
    while (front->replacing && !front->ended)
        pthread_cond_wait(&front->changed, &front->mutex);
    front->reading++;
    pthread_mutex_unlock(&front->mutex);
    store_lock(volume->store);
    extent_walk(volume->store, data, first, 1, look_at, &looked);
    bool bad = looked.place.count && !space_holds(&store_disk(volume->store)->space, looked.place, looked.checksum);
    store_unlock(volume->store);
    if (bad)
        mend(volume, data, first, &looked);
    pthread_mutex_lock(&front->mutex);
    if (--front->reading == 0)
        pthread_cond_broadcast(&front->changed);
    pthread_mutex_unlock(&front->mutex);
}

/* Nobody waits for anything: the lease alone says that it is true. */
static void look_at_file(struct front *front) {
    if (!enter(front))
        return;
    if (volume_lease_holds(front->volume) || mistake == MISTAKE_UNCHECKED) {
        world->counts.reads++;
        check_answered(front->node);
    }
    leave(front);
}

static void *user_thread(void *argument) {
    struct front *front = argument;
    unsigned *waiting = sim_alloc(sizeof *waiting), most = 1 + (unsigned)sim_below(SIM_USER_WAITS);
    while (!front->ended) {
        sim_sleep(sim_between(world->think_low, world->think_high));
        if (world->damages && sim_chance(4))
            read_block(front);
        if (world->voting)
            look_at_file(front);
        if (*waiting < most && !world->idle)
            operate(front, waiting);
    }
    front->users--;
    return NULL;
}

/* As fs/reclaim.c: it makes records of its own, and stops only when the epoch does. */
static void *reclaim_thread(void *argument) {
    struct front *front = argument;
    struct sim_record *record;
    while (!front->ended) {
        sim_sleep(sim_between(world->think_low, 4 * world->think_high));
        if (!world->idle && !front->replacing && front->freed &&
            store_model_append(front->volume->store, false, &record) == 0)
            front->freed--;
    }
    front->users--;
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------------------------------ */

static void start_service(struct sim_node *node) {
    char why[WIRE_TEXT] = "";
    unsigned index = (unsigned)(node - world->nodes);
    if (!node->volume->reg)
        node->volume->reg = registry_open(node->volume);
    int rc = replicator_start(node->volume, why, sizeof why);
    if (rc) {
        world->counts.refused++;
        sim_trace("node %u does not start: %s", index, why);
        node_kill(index, false);
    }
    struct replicator *r = atomic_load(&node->volume->replicator);
    r->copy_bytes = world->copy_bytes;
    r->copy_idle = world->copy_idle;
    r->sync_blocks = world->sync_blocks;
    if (world->join_records) {
        r->join_records = world->join_records;
        r->join_bytes = world->join_bytes;
    }
}

/* As batond.c does it. */
static void replace_store(struct sim_node *node) {
    struct volume *volume = node->volume;
    const char *aside = volume->renewal.aside;
    char path[32];
    unsigned index = (unsigned)(node - world->nodes);
    disk_path(index, path);
    store_set_watch(volume->store, &(struct store_watch){0});
    store_model_close(volume->store);
    volume->store = NULL;
    int rc = import_switch(path, aside[0] ? aside : NULL);
    if (rc)
        sim_trace("the store of node %u is not replaced: %d", index, rc);
    PROMISE(store_model_open(&node->disk, index, &volume->store) == 0);
}

static void renew(struct sim_node *node) {
    struct volume *volume = node->volume;
    struct front *front = node->front;
    struct position position;
    char path[32];
    disk_path((unsigned)(node - world->nodes), path);
    node->state = NODE_RENEWING;
    while (node->operators) /* the control socket goes first */
        sim_sleep(1 * SIM_MS);
    if (atomic_load(&volume->role) == ROLE_PRIMARY) /* it has become that meanwhile */
        replicator_leave(atomic_load(&volume->replicator), LEAVE);
    replicator_stop(atomic_load(&volume->replicator));
    bool holds = volume_renewal_holds(volume);
    if (holds) {
        pthread_mutex_lock(&front->mutex);
        front->replacing = true;
        while (front->reading)
            pthread_cond_wait(&front->changed, &front->mutex);
        pthread_mutex_unlock(&front->mutex);
        replace_store(node);
        pthread_mutex_lock(&front->mutex);
        front->replacing = false;
        pthread_cond_broadcast(&front->changed);
        pthread_mutex_unlock(&front->mutex);
    }
    volume->renewal.aside[0] = 0;
    atomic_store(&volume->renewal.due, false);
    if (holds) {
        volume_watch(volume);
        store_position(volume->store, &position);
        volume_durable(volume, position.durable);
    }
    start_service(node);
    generation_sweep(path, true);
    node->state = NODE_UP;
}

static void *main_thread(void *argument) {
    struct sim_node *node = argument;
    char path[32];
    unsigned index = (unsigned)(node - world->nodes);
    disk_path(index, path);
    struct volume *volume = calloc(1, sizeof *volume);
    struct front *front = calloc(1, sizeof *front);
    PROMISE(volume && front);
    volume->config = world->config;
    volume->self = &volume->config.nodes[index];
    PROMISE(store_model_open(&node->disk, index, &volume->store) == 0);
    generation_sweep(path, true);
    volume->park = park_create();
    volume->local = park_create();
    volume->renewal.fd = eventfd(0, 0);
    volume_watch(volume);
    *front = (struct front){.volume = volume, .node = index};
    volume->front = front;
    node->volume = volume;
    node->front = front;
    front->users = world->users + world->reclaims;
    front->freed = (unsigned)sim_below(64); /* in epochs before */
    if (world->voting)
        volume->lease = sim_alloc(sizeof *volume->lease);
    if (world->reclaims)
        sim_spawn(index, "reclaim", reclaim_thread, front);
    for (unsigned i = 0; i < world->users; i++)
        sim_spawn(index, "user", user_thread, front);
    start_service(node);
    node->state = NODE_UP;
    for (;;) { /* until it is killed, or the one who stops it has come to the end */
        zmq_pollitem_t due = {.fd = volume->renewal.fd, .events = ZMQ_POLLIN};
        uint64_t count;
        zmq_poll(&due, 1, 10000);
        if (due.revents && read(volume->renewal.fd, &count, sizeof count) > 0 && node->state == NODE_UP)
            renew(node);
    }
}

void node_start(unsigned index) {
    struct sim_node *node = &world->nodes[index];
    if (node->state != NODE_DOWN)
        return;
    sim_trace("node %u starts", index);
    node->state = NODE_STARTING;
    node->since = sim_now();
    world->counts.restarts++;
    sim_spawn(index, "main", main_thread, node);
}

static void forget_process(unsigned index) {
    struct sim_node *node = &world->nodes[index];
    node->state = NODE_DOWN;
    node->volume = NULL;
    node->front = NULL;
    node->operators = 0;
    node->forcing = node->promoting = false;
    node->since = sim_now();
    voting_killed(index);
}

void node_kill(unsigned index, bool power) {
    struct sim_node *node = &world->nodes[index];
    if (node->state == NODE_DOWN && !power)
        return;
    sim_trace(power ? "node %u loses power" : "node %u is killed", index);
    if (power)
        world->counts.power_cuts++;
    else
        world->counts.kills++;
    if (!power)
        voting_supervise(index);
    forget_process(index);
    network_kill(index);
    if (power) {
        node->forced_open = false;
        disk_power_cut(&node->disk);
        check_power_cut();
    } else {
        disk_kill(&node->disk);
    }
    sim_discard(index); /* may be the caller's end */
}

static void *stop_thread(void *argument) {
    struct sim_node *node = argument;
    unsigned index = (unsigned)(node - world->nodes);
    struct volume *volume = node->volume;
    while (node->operators) /* the control socket goes first */
        sim_sleep(1 * SIM_MS);
    node->front->ended = true;
    pthread_mutex_lock(&node->front->mutex);
    pthread_cond_broadcast(&node->front->changed);
    pthread_mutex_unlock(&node->front->mutex);
    while (node->front->users)
        sim_sleep(1 * SIM_MS);
    replicator_leave(atomic_load(&volume->replicator), LEAVE);
    replicator_stop(atomic_load(&volume->replicator));
    store_model_close(volume->store);
    if (world->voting)
        volume->reg->engine->close(volume->reg);
    park_free(volume->park);
    park_free(volume->local);
    sim_trace("node %u has stopped", index);
    forget_process(index);
    network_kill(index);
    sim_discard(index);
    return NULL;
}

void node_stop(unsigned index) {
    struct sim_node *node = &world->nodes[index];
    if (node->state != NODE_UP)
        return;
    sim_trace("node %u is asked to stop", index);
    node->state = NODE_STOPPING;
    world->counts.stops++;
    sim_spawn(index, "stop", stop_thread, node);
}

/* ---- What a person asks of it ---------------------------------------------------------------------------------------- */

static void *promote_thread(void *argument) {
    struct sim_node *node = argument;
    char why[WIRE_TEXT] = "";
    unsigned index = (unsigned)(node - world->nodes);
    node->promoting = true;
    int rc = replicator_promote(atomic_load(&node->volume->replicator), false, why, sizeof why);
    node->promoting = false;
    sim_trace("promotion of node %u: %d %s", index, rc, why);
    world->counts.promoted += rc == 0;
    node->operators--;
    return NULL;
}

static void *force_thread(void *argument) {
    struct sim_node *node = argument;
    char why[WIRE_TEXT] = "";
    unsigned index = (unsigned)(node - world->nodes);
    int rc = replicator_promote(atomic_load(&node->volume->replicator), true, why, sizeof why);
    sim_trace("promotion of node %u by force: %d %s", index, rc, why);
    node->forcing = false;
    node->forced_open = rc == -EINPROGRESS;
    node->operators--;
    return NULL;
}

void node_promote(unsigned index, bool force) {
    struct sim_node *node = &world->nodes[index];
    if (node->state != NODE_UP || node->forcing || (force && node->operators))
        return;
    sim_trace("node %u is to be promoted%s", index, force ? " by force" : "");
    node->operators++;
    node->forcing = force;
    sim_spawn(index, "operator", force ? force_thread : promote_thread, node);
}

struct handover {
    struct sim_node *node;
    unsigned to;
};

static void *switch_thread(void *argument) {
    struct handover *handover = argument;
    struct sim_node *node = handover->node;
    char why[WIRE_TEXT] = "";
    int rc = replicator_switchover(atomic_load(&node->volume->replicator), world->config.nodes[handover->to].name, why,
                                   sizeof why);
    sim_trace("switchover from node %u to node %u: %d %s", (unsigned)(node - world->nodes), handover->to, rc, why);
    world->counts.switched += rc == 0;
    node->switched = rc;
    node->operators--;
    return NULL;
}

void node_switchover(unsigned index, unsigned to) {
    struct sim_node *node = &world->nodes[index];
    if (node->state != NODE_UP || node->forcing)
        return;
    struct handover *handover = sim_alloc(sizeof *handover);
    *handover = (struct handover){node, to};
    sim_trace("node %u is to hand over to node %u", index, to);
    node->operators++;
    sim_spawn(index, "operator", switch_thread, handover);
}

struct edit {
    struct sim_node *node;
    enum voters_edit what;
    const char *name;
};

static void *voters_thread(void *argument) {
    const struct edit *edit = argument;
    char why[WIRE_TEXT] = "";
    int rc = replicator_voters(atomic_load(&edit->node->volume->replicator), edit->what, edit->name, true, why, sizeof why);
    sim_trace("change of the voters, %d %s: %d %s", (int)edit->what, edit->name, rc, why);
    world->counts.edited += rc == 0;
    edit->node->operators--;
    return NULL;
}

void node_voters(unsigned index, enum voters_edit what, const char *name) {
    struct sim_node *node = &world->nodes[index];
    if (node->state != NODE_UP || node->forcing)
        return;
    struct edit *edit = sim_alloc(sizeof *edit);
    *edit = (struct edit){node, what, name};
    node->operators++;
    sim_spawn(index, "operator", voters_thread, edit);
}

/* ---- How it is ------------------------------------------------------------------------------------------------------- */

bool node_is_primary(unsigned index) {
    const struct sim_node *node = &world->nodes[index];
    return node->state == NODE_UP && node->front->writable &&
           (!world->voting || atomic_load(&node->volume->lease->until) > clock_of(index, false));
}

bool node_works(unsigned index, char *state, size_t room) {
    const struct sim_node *node = &world->nodes[index];
    snprintf(state, room, "down");
    if (node->state != NODE_UP)
        return false;
    json_t *status = replicator_status(atomic_load(&node->volume->replicator));
    const char *link = json_string_value(json_object_get(status, "link"));
    bool works = strcmp(link, "working") == 0;
    if (!works) {
        char *text = json_dumps(status, 0);
        snprintf(state, room, "%s", text ? text : link);
        free(text);
    }
    json_decref(status);
    if (!works)
        return false;
    /* Nothing is left over: every user has been answered, and nothing lies in memory for peers that have it. */
    const struct replicator *r = atomic_load(&node->volume->replicator);
    size_t waiting = park_count(node->volume->park) + park_count(node->volume->local);
    snprintf(state, room, "node %u: %zu users wait, records from LSN %llu to %llu are in memory", index, waiting,
             (unsigned long long)r->ring_first, (unsigned long long)r->position.lsn);
    return !world->idle || (waiting == 0 && r->ring_first > r->position.lsn);
}
