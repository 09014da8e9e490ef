#include "membership/register_etcd.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define CALL_TURNS 8u /* of a change that meets another one each time */

static const struct etcd_limit call_limit = {SECOND, 3 * SECOND}, free_limit = {700 * MS, 2 * SECOND};

/* ---- Both keys ------------------------------------------------------------------------------------------------------- */

void etcd_wake_watcher(struct reg_etcd *etcd) {
    if (etcd->stream)
        etcd_stream_wake(etcd->stream);
}

/* What etcd has shown is what counts from now on. */
static void observe(struct reg_etcd *etcd, const struct etcd_seen *seen) {
    int64_t now = clock_boot();
    bool other = seen->register_mod != etcd->seen.register_mod || seen->holder_mod != etcd->seen.holder_mod;
    etcd->seen_at = now;
    if (seen->revision < etcd->seen.revision)
        return; /* another thread was told something newer meanwhile */
    etcd->seen = *seen;
    etcd_absence_note(&etcd->absence, seen, now);
    if (etcd->pending.is && (seen->register_mod != etcd->pending.register_mod || seen->holder_mod != etcd->pending.holder_mod))
        etcd->pending.is = false; /* it is made, or never will be */
    if (other)
        etcd_wake_watcher(etcd);
}

struct look {
    struct reg_etcd *etcd;
    struct etcd_seen known; /* when it was asked */
    bool written;
    struct etcd_seen seen;
};

static int accept_look(void *context, const char *text, size_t length, char *why, size_t why_room) {
    struct look *look = context;
    const struct etcd_seen *known = &look->known, *seen = &look->seen;
    int rc = etcd_read_answer(&look->etcd->keys, text, length, &look->written, &look->seen, why, why_room);
    if (rc || !known->revision)
        return rc;
    if (seen->cluster != known->cluster) {
        snprintf(why, why_room, "it is of another cluster (%016" PRIx64 ") than the one that was asked before (%016" PRIx64 "); "
                 "if etcd was restored from a backup, restart batond", seen->cluster, known->cluster);
        return -EBADMSG;
    }
    if (seen->revision < known->revision || register_compare(&seen->value, &known->value) < 0) {
        snprintf(why, why_room, "it has gone back: revision %" PRId64 " and a register of version %" PRIu64 ", after revision "
                 "%" PRId64 " and version %" PRIu64 "; if etcd was restored from a backup, restart batond", seen->revision,
                 seen->value.version, known->revision, known->value.version);
        return -EBADMSG;
    }
    return 0;
}

static int ask_keys(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, char *body, struct look *look,
                    int64_t *sent, bool *maybe, char *why, size_t why_room) {
    look->etcd = etcd;
    pthread_mutex_lock(&etcd->lock);
    look->known = etcd->seen;
    pthread_mutex_unlock(&etcd->lock);
    struct etcd_ask ask = {.path = ETCD_PATH_TXN, .body = body, .attempt = limit.attempt, .deadline = clock_boot() + limit.all,
                           .accept = accept_look, .context = look};
    int rc = etcd_client_ask(client, &ask, why, why_room);
    free(body);
    if (rc == 0) {
        pthread_mutex_lock(&etcd->lock);
        observe(etcd, &look->seen);
        pthread_mutex_unlock(&etcd->lock);
    }
    if (sent)
        *sent = ask.sent;
    if (maybe)
        *maybe = ask.maybe;
    return rc;
}

int etcd_look(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, struct etcd_seen *seen, int64_t *sent,
              char *why, size_t why_room) {
    struct look look = {0};
    int rc = ask_keys(etcd, client, limit, etcd_ask_look(&etcd->keys), &look, sent, NULL, why, why_room);
    *seen = look.seen;
    return rc;
}

int etcd_write_keys(struct reg_etcd *etcd, struct etcd_client *client, struct etcd_limit limit, const struct etcd_write *write,
                    bool *written, struct etcd_seen *seen, int64_t *sent, bool *maybe, char *why, size_t why_room) {
    struct look look = {0};
    int rc = ask_keys(etcd, client, limit, etcd_ask_write(&etcd->keys, write), &look, sent, maybe, why, why_room);
    *written = rc == 0 && look.written;
    *seen = look.seen;
    return rc;
}

/* A write of unknown outcome is made impossible, by a change of what it compares, unless it has been made. Else what is read now
 * might not stay. 0: nothing is pending any more. */
static bool is_pending(struct reg_etcd *etcd) {
    pthread_mutex_lock(&etcd->lock);
    bool pending = etcd->pending.is;
    pthread_mutex_unlock(&etcd->lock);
    return pending;
}

static int settle_pending(struct reg_etcd *etcd, char *why, size_t why_room) {
    struct etcd_holder nobody = {.state = ETCD_HOLDER_FREE};
    snprintf(nobody.node, sizeof nobody.node, "%s", etcd->self->name);
    for (unsigned turn = 0; turn < CALL_TURNS; turn++) {
        struct etcd_seen seen;
        bool written;
        if (!is_pending(etcd))
            return 0;
        int rc = etcd_look(etcd, etcd->caller, call_limit, &seen, NULL, why, why_room);
        if (rc || !is_pending(etcd)) /* a look may find that it has been made */
            return rc;
        struct register_value value = seen.value;
        struct etcd_write write = {.register_mod = seen.register_mod, .holder_mod = seen.holder_mod};
        if (seen.register_mod) {
            write.value = &value;
        } else { /* a register that is not there is not to be made for this */
            write.holder_write = ETCD_HOLDER_PUT;
            write.holder = &nobody;
        }
        rc = etcd_write_keys(etcd, etcd->caller, call_limit, &write, &written, &seen, NULL, NULL, why, why_room);
        if (rc)
            return rc;
    }
    snprintf(why, why_room, "others change the register all the time");
    return -EAGAIN;
}

/* ---- The engine ------------------------------------------------------------------------------------------------------ */

static int engine_read(struct reg *reg, struct register_value *value) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    struct etcd_seen seen;
    char why[400];
    pthread_mutex_lock(&etcd->call_lock);
    int rc = settle_pending(etcd, why, sizeof why);
    if (rc == 0)
        rc = etcd_look(etcd, etcd->caller, call_limit, &seen, NULL, why, sizeof why);
    pthread_mutex_unlock(&etcd->call_lock);
    if (rc) {
        log_debug("the register cannot be read: %s", why);
        pthread_mutex_lock(&etcd->lock);
        seen = etcd->seen;
        pthread_mutex_unlock(&etcd->lock);
    }
    *value = seen.value;
    return rc ? -ENOTCONN : 0;
}

static bool same_bytes(const struct register_value *a, const struct register_value *b) {
    uint8_t one[REGISTER_BYTES], other[REGISTER_BYTES];
    size_t length = register_encode(a, one);
    return register_encode(b, other) == length && memcmp(one, other, length) == 0;
}

/* May `next` be written upon `seen`? If so, and it ends this node's own reign, nothing is answered from now on. */
static int prepare_write(struct reg_etcd *etcd, const struct etcd_seen *seen, const struct register_value *next,
                         struct etcd_write *write) {
    bool ends = etcd_ends_reign(next, seen->value.primary, seen->value.epoch);
    pthread_mutex_lock(&etcd->lock);
    int rc = etcd_may_change(seen, &etcd->absence, etcd->self->name, next, etcd->lease, clock_boot());
    if (rc == 0 && etcd->mine.asked && etcd_ends_reign(next, etcd->self->name, etcd->mine.epoch))
        etcd_lease_end(etcd, false); /* `next` takes the holder's key away with it */
    pthread_mutex_unlock(&etcd->lock);
    *write = (struct etcd_write){.register_mod = seen->register_mod, .holder_mod = seen->holder_mod, .value = next,
                                 .holder_write = ends && seen->holder_mod ? ETCD_HOLDER_DELETE : ETCD_HOLDER_KEEP};
    return rc;
}

static void note_pending(struct reg_etcd *etcd, const struct etcd_write *write) {
    pthread_mutex_lock(&etcd->lock);
    etcd->pending.is = true;
    etcd->pending.register_mod = write->register_mod;
    etcd->pending.holder_mod = write->holder_mod;
    pthread_mutex_unlock(&etcd->lock);
}

/* One try upon what was seen. 0, -EBUSY, -EAGAIN: look again; others: the outcome is unknown. */
static int write_next(struct reg_etcd *etcd, const struct etcd_seen *seen, const struct register_value *next, char *why,
                      size_t why_room) {
    struct etcd_write write;
    struct etcd_seen after;
    bool written, maybe;
    int rc = prepare_write(etcd, seen, next, &write);
    if (rc)
        return rc;
    rc = etcd_write_keys(etcd, etcd->caller, call_limit, &write, &written, &after, NULL, &maybe, why, why_room);
    if (rc == 0 && written)
        return 0;
    /* One member may have taken it and be slow about it, while another one answers that it is not written. */
    if (maybe && (rc || (after.register_mod == write.register_mod && after.holder_mod == write.holder_mod)))
        note_pending(etcd, &write);
    return rc ? rc : -EAGAIN;
}

static int change(struct reg_etcd *etcd, struct register_value *expected, const struct register_value *next, char *why,
                  size_t why_room) {
    int rc = -EAGAIN;
    for (unsigned turn = 0; rc == -EAGAIN && turn < CALL_TURNS; turn++) {
        struct etcd_seen seen;
        rc = settle_pending(etcd, why, why_room);
        if (rc == 0)
            rc = etcd_look(etcd, etcd->caller, call_limit, &seen, NULL, why, why_room);
        if (rc)
            return rc;
        if (same_bytes(&seen.value, next))
            return 0; /* an earlier turn's, of which no answer came */
        if (register_compare(&seen.value, expected) != 0) {
            *expected = seen.value;
            return -ESTALE;
        }
        rc = write_next(etcd, &seen, next, why, why_room);
    }
    return rc;
}

static int engine_change(struct reg *reg, struct register_value *expected, const struct register_value *next) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    struct register_value own = *next;
    char why[400] = "";
    own.voter_count = 0;
    memset(own.voters, 0, sizeof own.voters);
    if (own.member_count > REGISTER_MEMBERS_MAX || EPOCH_COUNTER(own.epoch) > EPOCH_COUNTER_MAX || own.version == 0 ||
        (own.version == 1) != (expected->version == 0) || register_compare(&own, expected) <= 0)
        return -EINVAL;
    pthread_mutex_lock(&etcd->call_lock);
    int rc = change(etcd, expected, &own, why, sizeof why);
    pthread_mutex_unlock(&etcd->call_lock);
    pthread_mutex_lock(&etcd->lock);
    if (rc == 0 && register_compare(&own, &etcd->told) > 0)
        etcd->told = own;
    etcd->giving_back.is = etcd->giving_back.epoch != 0; /* whatever has come of it */
    pthread_cond_signal(&etcd->keeper_wake);
    pthread_mutex_unlock(&etcd->lock);
    if (rc && rc != -ESTALE && rc != -EBUSY)
        log_info("whether the register was changed is not known: %s", why);
    /* -EINVAL is a value that nobody was asked about; what a member says of a request is another matter: an earlier one may have
     * done it. */
    return rc == -EAGAIN || rc == -EINVAL ? -EIO : rc;
}

static void engine_learn(struct reg *reg, const struct register_value *value) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    pthread_mutex_lock(&etcd->lock);
    if (register_compare(value, &etcd->seen.value) > 0) { /* etcd knows best whether it is chosen */
        etcd->looking = true;
        etcd_wake_watcher(etcd);
    }
    pthread_mutex_unlock(&etcd->lock);
}

/* ---- The lease, as others ask for it --------------------------------------------------------------------------------- */

static int lease_free(struct reg *reg, char holder[64], int64_t *wait) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    struct etcd_seen seen;
    char why[400];
    holder[0] = 0;
    *wait = 0;
    pthread_mutex_lock(&etcd->call_lock);
    int rc = etcd_look(etcd, etcd->caller, free_limit, &seen, NULL, why, sizeof why);
    pthread_mutex_unlock(&etcd->call_lock);
    if (rc) {
        log_debug("nobody can say whether the lease is free: %s", why);
        return -ENOTCONN;
    }
    pthread_mutex_lock(&etcd->lock);
    rc = etcd_let_in(&seen, &etcd->absence, etcd->self->name, etcd->lease, clock_boot(), holder, wait);
    pthread_mutex_unlock(&etcd->lock);
    return rc;
}

static void lease_look(struct reg *reg, struct lease_view *view) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    const struct etcd_config *config = &etcd->config->etcd;
    int64_t now = clock_boot(), until = atomic_load(&etcd->shared->until);
    memset(view, 0, sizeof *view);
    pthread_mutex_lock(&etcd->lock);
    view->asked = etcd->mine.asked;
    pthread_mutex_unlock(&etcd->lock);
    view->held = until > now;
    view->left = view->held ? until - now : 0;
    view->count = config->endpoint_count;
    view->needed = view->count / 2 + 1;
    for (unsigned i = 0; i < view->count; i++) {
        struct etcd_member member;
        etcd_access_member(etcd->access, i, &member);
        const char *name = strstr(config->endpoints[i], "://");
        snprintf(view->voters[i].name, sizeof view->voters[i].name, "%.63s", name ? name + 3 : config->endpoints[i]);
        view->voters[i].listed = true;
        view->voters[i].heard = member.heard;
        view->voters[i].answers = member.heard != INT64_MIN && now - member.heard < ETCD_HEARD_LASTS && !member.why[0];
        view->voters[i].grants = view->held && view->voters[i].answers;
        snprintf(view->voters[i].why, sizeof view->voters[i].why, "%.127s", member.why);
    }
}

/* ---- Begin and end --------------------------------------------------------------------------------------------------- */

static int make(const struct config *config, const struct node_config *self, struct reg_etcd **made, char *why, size_t why_room) {
    pthread_condattr_t attributes;
    struct reg_etcd *etcd = calloc(1, sizeof *etcd);
    PROMISE(etcd != NULL);
    etcd->config = config;
    etcd->self = self;
    etcd->lease = (int64_t)config->lease_ms * MS;
    etcd->seen_at = INT64_MIN;
    etcd_keys_make(config->etcd.prefix, config->volume_id, &etcd->keys);
    int rc = etcd_access_open(&config->etcd, &etcd->access, why, why_room);
    if (rc) {
        free(etcd);
        return rc;
    }
    pthread_mutex_init(&etcd->lock, NULL);
    pthread_mutex_init(&etcd->call_lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&etcd->keeper_wake, &attributes);
    pthread_cond_init(&etcd->keeper_gone, &attributes);
    pthread_condattr_destroy(&attributes);
    etcd->caller = etcd_client_open(etcd->access);
    *made = etcd;
    return 0;
}

static void unmake(struct reg_etcd *etcd) {
    etcd_client_close(etcd->caller);
    etcd_client_close(etcd->keeper_client);
    etcd_client_close(etcd->watcher_client);
    if (etcd->stream)
        etcd_stream_close(etcd->stream);
    etcd_access_close(etcd->access);
    pthread_cond_destroy(&etcd->keeper_wake);
    pthread_cond_destroy(&etcd->keeper_gone);
    pthread_mutex_destroy(&etcd->call_lock);
    pthread_mutex_destroy(&etcd->lock);
    free(etcd);
}

/* The lease is given back, but nobody's end waits for an etcd that does not answer. */
static void engine_close(struct reg *reg) {
    struct reg_etcd *etcd = (struct reg_etcd *)reg;
    struct timespec at;
    etcd_lease_give_up(reg);
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec++;
    pthread_mutex_lock(&etcd->lock);
    etcd->closing = true;
    etcd->giving_back.until = MIN(etcd->giving_back.until, clock_boot() + SECOND);
    pthread_cond_signal(&etcd->keeper_wake);
    etcd_client_stop(etcd->watcher_client);
    etcd_wake_watcher(etcd);
    while (!etcd->keeper_ended && pthread_cond_timedwait(&etcd->keeper_gone, &etcd->lock, &at) == 0)
        ;
    etcd_client_stop(etcd->keeper_client);
    pthread_mutex_unlock(&etcd->lock);
    pthread_join(etcd->keeper, NULL);
    pthread_join(etcd->watcher, NULL);
    unmake(etcd);
}

static const struct lease_engine lease = {
    .take = etcd_lease_take, .give_up = etcd_lease_give_up, .free = lease_free, .view = lease_look};
static const struct register_engine engine = {
    .name = "etcd", .lease = &lease, .read = engine_read, .change = engine_change, .learn = engine_learn, .close = engine_close};

int register_etcd_open(const struct config *config, const struct node_config *self, const struct register_watch *watch,
                       struct lease_shared *shared, struct reg **reg, char *why, size_t why_room) {
    struct reg_etcd *etcd;
    int rc = make(config, self, &etcd, why, why_room);
    if (rc)
        return rc;
    etcd->reg.engine = &engine;
    etcd->watch = *watch;
    etcd->shared = shared;
    atomic_store(&shared->until, INT64_MIN);
    atomic_store(&shared->epoch, 0);
    atomic_store(&shared->session, 0);
    etcd->keeper_client = etcd_client_open(etcd->access);
    etcd->watcher_client = etcd_client_open(etcd->access);
    etcd->stream = etcd_stream_open(etcd->access, &etcd->keys);
    PROMISE(pthread_create(&etcd->keeper, NULL, etcd_keeper, etcd) == 0);
    PROMISE(pthread_create(&etcd->watcher, NULL, etcd_watcher, etcd) == 0);
    *reg = &etcd->reg;
    return 0;
}

int register_etcd_release(const struct config *config, const struct node_config *self, epoch_t epoch, uint64_t session,
                          int64_t patience) {
    struct reg_etcd *etcd;
    char why[400];
    int64_t end = clock_boot() + patience, left = patience;
    int rc = make(config, self, &etcd, why, sizeof why);
    if (rc == 0) {
        do {
            struct etcd_limit limit = {MAX(left / 3, 50 * MS), MAX(left, 50 * MS)};
            rc = etcd_give_back(etcd, etcd->caller, limit, epoch, session, 0, why, sizeof why);
            if (rc == -ENOTCONN)
                usleep(50000); /* refused at once by all */
            left = end - clock_boot();
        } while ((rc == -EAGAIN || rc == -ENOTCONN) && left > 0);
        unmake(etcd);
    }
    if (rc)
        log_warning("the lease could not be given back, others wait until it has run out: %s", why);
    return rc;
}
