/* Starting, stopping, showing. What the threads do: parts.h. */
#include "fs/history.h"
#include "fs/text.h"
#include "replication/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

#define LOOK_PATIENCE (200 * MS) /* a status takes no second, whatever hangs */
#define LOOK_AGAIN (2000 * MS)

/* ---- Waiting --------------------------------------------------------------------------------------------------------- */

/* pthread conditions have no CLOCK_BOOTTIME: the distance is taken over to CLOCK_MONOTONIC. */
static void wait_for(struct replicator *r, pthread_cond_t *cond, int64_t ns) {
    struct timespec until;
    PROMISE(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    ns += until.tv_nsec;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    int rc = pthread_cond_timedwait(cond, &r->lock, &until);
    PROMISE(rc == 0 || rc == ETIMEDOUT);
}

void repl_sleep(struct replicator *r, pthread_cond_t *cond, int64_t ns) {
    if (!atomic_load(&r->stopping))
        wait_for(r, cond, ns);
}

bool repl_wait(struct replicator *r, pthread_cond_t *cond, int64_t deadline) {
    int64_t left = deadline - clock_boot();
    if (left <= 0 || atomic_load(&r->stopping))
        return false;
    wait_for(r, cond, left);
    return true;
}

static void make_condition(pthread_cond_t *cond) {
    pthread_condattr_t attributes;
    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(cond, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
}

/* ---- Start ----------------------------------------------------------------------------------------------------------- */

static struct replicator *make(struct volume *volume) {
    struct replicator *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->volume = volume;
    r->store = volume->store;
    r->ring = calloc(RING_ENTRIES, sizeof *r->ring);
    r->verify = r->ring ? verify_create(r) : NULL;
    if (!r->verify) {
        free(r->ring);
        free(r);
        return NULL;
    }
    r->config = &volume->config;
    r->count = r->config->node_count;
    r->self = (unsigned)(volume->self - r->config->nodes);
    PROMISE(r->count <= CONFIG_NODES_MAX && r->self < r->count);
    r->lease = (int64_t)r->config->lease_ms * MS;
    r->beat_every = MIN(MAX(r->lease / 8, 20 * MS), 500 * MS);
    r->wake = r->receive_wake = -1;
    r->join_records = JOIN_LAG_RECORDS;
    r->join_bytes = JOIN_LAG_BYTES;
    r->copy_idle = PROVIDE_IDLE;
    r->copy_bytes = PROVIDE_BYTES;
    r->compare_rows = COMPARE_ROWS;
    r->verify_renew = VERIFY_RENEW;
    r->compare_opens = COMPARE_OPENS;
    r->sync_blocks = COPY_BLOCKS_MAX;
    r->ring_first = 1; /* empty, until the position is known: unmake may come before */
    memcpy(r->incarnation, store_incarnation(r->store), sizeof r->incarnation);
    r->acks.self = r->self;
    for (unsigned i = 0; i < r->count; i++) {
        r->peers[i].node = &r->config->nodes[i];
        snprintf(r->peers[i].feed.why, WIRE_TEXT, "it has not logged in yet");
    }
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->role_lock, NULL);
    pthread_mutex_init(&r->ack_lock, NULL);
    make_condition(&r->feed_work);
    make_condition(&r->keep_work);
    make_condition(&r->receive_work);
    make_condition(&r->sync_work);
    make_condition(&r->mend_work);
    make_condition(&r->open_work);
    make_condition(&r->pace_work);
    make_condition(&r->mend_news);
    make_condition(&r->verify_work);
    make_condition(&r->news);
    return r;
}

static void unmake(struct replicator *r) {
    repl_lock(r);
    struct link *link = r->link;
    primary_ring_clear(r);
    r->calm = false;
    r->role = ROLE_STANDBY; /* who applies a record meanwhile, in a thread of the store's or the mount's, sends nothing */
    r->link = NULL;
    repl_unlock(r);
    for (unsigned i = 0; i < r->count; i++)
        link_hang_up(r->peers[i].dealer);
    if (link)
        link_close(link);
    if (r->wake >= 0)
        close(r->wake);
    if (r->receive_wake >= 0)
        close(r->receive_wake);
}

/* The store's threads may be in a call of its watch: the structure stays for them, until the next one of this volume's
 * goes or the process ends. */
static void retire(struct replicator *r) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct replicator *retired[16];
    static unsigned count;
    pthread_mutex_lock(&lock);
    struct replicator **slot = &retired[count++ % 16];
    if (*slot) {
        verify_free((*slot)->verify);
        free((*slot)->ring);
        free(*slot);
    }
    *slot = r;
    pthread_mutex_unlock(&lock);
}

void replicator_read_position(struct replicator *r) {
    struct position position;
    store_position(r->store, &position);
    repl_lock(r);
    r->position = (struct wire_position){.lsn = position.lsn, .epoch = position.epoch, .durable = position.durable,
                                         .first = position.first};
    memcpy(r->position.chain, position.chain, CHAIN_SIZE);
    r->ring_first = position.lsn + 1;
    for (unsigned i = 0; i < r->count; i++) /* beyond it they had another history */
        r->peers[i].last_durable = MIN(r->peers[i].last_durable, position.lsn);
    atomic_store(&r->durable, position.durable);
    repl_unlock(r);
}

static int open_register(struct replicator *r, char *why, size_t room) {
    char path[1100];
    struct volume *volume = r->volume;
    int rc = 0;
    if (!volume->reg) {
        register_file_path(store_path(r->store), path, sizeof path);
        rc = register_file_open(path, &volume->reg, why, room);
    }
    if (rc == 0)
        r->elects = volume->reg->engine->lease;
    if (rc == 0 && (rc = volume->reg->engine->read(volume->reg, &r->value)) && !r->elects)
        snprintf(why, room, "the register cannot be read: %s", strerror(-rc));
    return r->elects ? 0 : rc; /* a majority of others may answer later */
}

static int dial_peers(struct replicator *r, char *why, size_t room) {
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self && !(r->peers[i].dealer = link_dial(r->link, i, LINK_CONTROL, 0, 0))) {
            snprintf(why, room, "node %s has an address or key that cannot be used", r->peers[i].node->name);
            return -EINVAL;
        }
    return 0;
}

static void start_threads(struct replicator *r) {
    struct {
        pthread_t *thread;
        void *(*run)(void *);
        const char *name;
    } all[] = {{&r->feeder, primary_feeder, "repl-feed"},
               {&r->acknowledger, primary_acknowledger, "repl-acks"},
               {&r->receiver, standby_receiver, "repl-receive"},
               {&r->talker, talk_thread, "repl-talk"},
               {&r->keeper, keeper_thread, "repl-keep"},
               {&r->provider, provide_thread, "repl-provide"},
               {&r->synchronizer, sync_thread, "repl-sync"},
               {&r->mender, mend_thread, "repl-mend"},
               {&r->verifier, verify_thread, "repl-verify"},
               {&r->pacer, slow_thread, "repl-pace"}};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        PROMISE(pthread_create(all[i].thread, NULL, all[i].run, r) == 0);
        pthread_setname_np(*all[i].thread, all[i].name);
    }
    r->threads = sizeof all / sizeof *all;
}

int replicator_start(struct volume *volume, char *why, size_t room) {
    struct replicator *r = make(volume);
    if (!r)
        return -ENOMEM;
    int rc = open_register(r, why, room);
    if (rc == 0)
        rc = link_open(r->config, r->self, volume->secret, &r->link, why, room);
    if (rc == 0)
        rc = dial_peers(r, why, room);
    if (rc == 0 && ((r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
                    (r->receive_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0))
        rc = -errno;
    if (rc) {
        if (r->link)
            link_shutdown(r->link);
        unmake(r);
        retire(r);
        return rc;
    }
    store_set_hold(r->store, 0, 0);
    replicator_read_position(r);
    roles_hold_load(r);
    follow_start(&r->follow, r->lease, clock_boot());
    if (r->elects) {
        candidate_start(r);
        duty_start(r);
        proposed_load(r);
    }
    atomic_store(&volume->replicator, r); /* the epoch's record is applied before this returns */
    start_threads(r);
    rc = roles_start(r, why, room);
    if (rc)
        replicator_stop(r);
    return rc;
}

/* ---- Stop ------------------------------------------------------------------------------------------------------------ */

/* Peers need not wait for the lease time. */
static void say_goodbye(struct replicator *r) {
    struct frame bye = {.head = {.type = WIRE_BYE}};
    snprintf(bye.bye.text, WIRE_TEXT, "node %s stops", r->config->nodes[r->self].name);
    repl_lock(r);
    bye.head.epoch = r->value.epoch;
    r->changing = true; /* no login, and no heartbeat as primary, that would take it back */
    for (unsigned i = 0; i < r->count; i++) {
        bool follows = (r->follow.state == FOLLOW_LOGIN || r->follow.state == FOLLOW_STREAMING) && r->follow.primary == i;
        bye.head.session = follows ? r->follow.session : r->peers[i].feed.session;
        if (i != r->self && bye.head.session)
            talk_post(r, i, &bye);
    }
    int64_t deadline = clock_boot() + 200 * MS;
    while (r->outbox_count && clock_boot() < deadline)
        repl_wait(r, &r->news, clock_boot() + 5 * MS);
    repl_unlock(r);
    usleep(20000); /* LINGER is 0: ZeroMQ's I/O thread gets a moment to send it */
}

void replicator_stop(struct replicator *r) {
    if (!r)
        return;
    slow_end(r);
    say_goodbye(r);
    atomic_store(&r->stopping, true);
    history_end_all(r->store, true);
    repl_lock(r);
    acks_stop(&r->acks);
    pthread_cond_broadcast(&r->feed_work);
    pthread_cond_broadcast(&r->keep_work);
    standby_kick(r);
    pthread_cond_broadcast(&r->sync_work);
    pthread_cond_broadcast(&r->mend_work);
    pthread_cond_broadcast(&r->open_work);
    pthread_cond_broadcast(&r->pace_work);
    pthread_cond_broadcast(&r->mend_news);
    pthread_cond_broadcast(&r->verify_work);
    pthread_cond_broadcast(&r->news);
    repl_unlock(r);
    talk_wake(r);
    link_shutdown(r->link);
    pthread_t all[] = {r->feeder, r->acknowledger, r->receiver, r->talker, r->keeper, r->provider, r->synchronizer, r->mender,
                       r->verifier, r->pacer};
    for (unsigned i = 0; i < r->threads; i++)
        pthread_join(all[i], NULL);
    history_end_all(r->store, false); /* it may go on */
    fencing_stop(r);
    if (r->volume->reg && !r->elects) {
        r->volume->reg->engine->close(r->volume->reg);
        r->volume->reg = NULL;
    }
    atomic_store(&r->volume->replicator, NULL);
    unmake(r);
    retire(r);
}

/* ---- Status ---------------------------------------------------------------------------------------------------------- */

static const char *link_state(const struct replicator *r) {
    if (r->role == ROLE_STANDBY) {
        if (r->sync.wanted)
            return "pending";
        if (r->follow.state != FOLLOW_STREAMING)
            return "failed";
        return roles_in_set(r, r->self) ? "working" : "pending";
    }
    bool all = true, feeds = false;
    for (unsigned i = 0; i < r->count; i++) {
        if (i == r->self)
            continue;
        if (spare_refused(r, i))
            continue;
        bool streaming = r->peers[i].feed.state == FEED_STREAMING;
        bool in_sync = streaming && (r->acks.set & 1u << i) && roles_in_set(r, i);
        all = all && in_sync;
        feeds = feeds || (streaming && !in_sync) || r->copies[i].open;
    }
    return all ? "working" : feeds ? "synchronizing" : "failed";
}

/* Sentences are cut, and some are another node's. */
static void set_text(json_t *object, const char *key, const char *text) {
    char shown[WIRE_TEXT];
    snprintf(shown, sizeof shown, "%s", text);
    text_mend(shown);
    if (shown[0])
        json_object_set_new(object, key, json_string(shown));
}

static json_t *show_peer(const struct replicator *r, unsigned node, int64_t now) {
    const struct peer *peer = &r->peers[node];
    const struct feed *feed = &peer->feed;
    bool fed = feed->state == FEED_STREAMING;
    bool follows = r->follow.state == FOLLOW_STREAMING && r->follow.primary == node;
    uint64_t received = fed ? feed->received : peer->beat.position.lsn;
    json_t *catchup = slow_status_peer(r, node);
    json_t *shown = json_pack("{s:s, s:b, s:b, s:s}", "node", peer->node->name, "connected", fed || follows, "in_set",
                              roles_in_set(r, node), "state",
                              catchup ? "catching up" : fed ? "fed" : follows ? "feeds" : feed_state_name(feed->state));
    if (peer->known) {
        json_object_set_new(shown, "role", json_string(peer->beat.role == ROLE_PRIMARY ? "primary" : "standby"));
        json_object_set_new(shown, "received", json_integer((json_int_t)received));
        json_object_set_new(shown, "durable",
                            json_integer((json_int_t)(fed ? feed->durable : peer->beat.position.durable)));
        json_object_set_new(shown, "last_contact_ms", json_integer((now - MAX(peer->heard, fed ? feed->heard : 0)) / MS));
    }
    if (fed) {
        json_object_set_new(shown, "lag_records", json_integer((json_int_t)(r->position.lsn - feed->received)));
        json_object_set_new(shown, "in_flight_bytes", json_integer((json_int_t)feed->in_flight));
        json_object_set_new(shown, "sent_bytes", json_integer((json_int_t)feed->total_bytes));
        json_object_set_new(shown, "owes_ms", json_integer(feed_owes(feed, now) / MS));
    } else if (peer->known && r->role == ROLE_STANDBY && peer->beat.role == ROLE_PRIMARY) {
        uint64_t lag = peer->beat.position.lsn - MIN(r->position.lsn, peer->beat.position.lsn);
        json_object_set_new(shown, "lag_records", json_integer((json_int_t)lag));
    }
    if (catchup)
        json_object_set_new(shown, "catch_up", catchup);
    if (r->role == ROLE_PRIMARY && !fed) /* the journal is kept for it from there on, if its limit allows */
        json_object_set_new(shown, "lacks_from", json_integer((json_int_t)MAX(peer->last_durable, r->hold_told) + 1));
    if (!fed && !follows)
        set_text(shown, "why", peer->unfit[0] ? peer->unfit : r->role == ROLE_PRIMARY ? feed->why : r->follow.why);
    if (peer->version)
        json_object_set_new(shown, "protocol", json_integer(peer->version));
    set_text(shown, "program", peer->beat.program);
    return shown;
}

static json_t *show_register(const struct replicator *r) {
    json_t *members = json_array();
    for (unsigned i = 0; i < r->value.member_count; i++)
        json_array_append_new(members, json_string(r->value.members[i].node));
    return json_pack("{s:I, s:s, s:o}", "version", (json_int_t)r->value.version, "primary", r->value.primary, "members",
                     members);
}

/* A standby asks the voters when somebody wants to know, and then not again for a moment. */
static bool look_is_due(struct replicator *r) {
    int64_t now = clock_boot(), looked = atomic_load(&r->voters_looked);
    return now - looked >= LOOK_AGAIN && atomic_compare_exchange_strong(&r->voters_looked, &looked, now);
}

json_t *replicator_status(struct replicator *r) {
    struct lease_view lease;
    char epoch[40];
    if (r->elects && r->elects->look && atomic_load(&r->volume->role) != ROLE_PRIMARY && look_is_due(r))
        r->elects->look(r->volume->reg, LOOK_PATIENCE);
    if (r->elects)
        r->elects->view(r->volume->reg, &lease);
    int64_t now = clock_boot();
    json_t *peers = json_array();
    repl_lock(r);
    snprintf(epoch, sizeof epoch, "%" PRIu64 ".%u", EPOCH_COUNTER(r->value.epoch), EPOCH_NODE(r->value.epoch));
    for (unsigned i = 0; i < r->count; i++)
        if (i != r->self)
            json_array_append_new(peers, show_peer(r, i, now));
    json_t *shown = json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:s, s:o, s:o, s:o, s:o, s:o}", "link", link_state(r), "role",
                              r->role == ROLE_PRIMARY ? "primary" : "standby", "epoch", epoch, "lsn",
                              (json_int_t)r->position.lsn, "durable", (json_int_t)MIN(atomic_load(&r->durable), r->position.lsn),
                              "in_set", roles_in_set(r, r->self), "follows", follow_state_name(r->follow.state), "register",
                              show_register(r), "peers", peers, "copies", provide_status(r), "compares",
                              compared_status(r), "verify", verify_status(r));
    json_object_set_new(shown, "protocol", json_integer(wire_version()));
    json_t *sync = sync_status(r);
    if (sync)
        json_object_set_new(shown, "synchronization", sync);
    json_t *slowing = slow_status(r);
    if (slowing)
        json_object_set_new(shown, "slowing", slowing);
    if (r->elects)
        candidate_status(r, shown);
    bool barred = r->elects && r->elect.why_count && (r->elect.state == ELECT_ALONE || r->elect.state == ELECT_BARRED);
    set_text(shown, "trouble", r->trouble[0] || !barred ? r->trouble : r->elect.why[0]);
    repl_unlock(r);
    if (r->elects)
        json_object_set_new(shown, "lease", candidate_lease_status(r, &lease));
    return shown;
}
