/* The watcher: sees what others change in etcd, and tells this node. Whatever its watch says, it looks for itself; and from
 * time to time without being told, for a member that is cut off says nothing. */
#include "membership/register_etcd.h"

#include <inttypes.h>
#include <stdio.h>

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define AGAIN (300 * MS)           /* after a look that has failed */
#define APART (20 * MS)            /* from one look to the next, however much the watch tells */
#define REFRESH (60 * SECOND)      /* of certificates and passwords */
#define REFRESH_SOON (5 * SECOND)  /* when something is refused */

struct watching {
    int64_t look_at, refresh_at, begin_at, probe_at; /* CLOCK_BOOTTIME: not before */
    int64_t pause;       /* before a watch that has failed is begun again */
    unsigned probe;      /* the endpoint that is next */
    bool answered, said; /* the last look was; it is in the log that it was not */
    int64_t freed_register, freed_holder; /* the modifications of both keys that freed() was called about */
};

static struct etcd_limit watcher_limit(const struct reg_etcd *etcd) {
    int64_t attempt = MIN(MAX(etcd->lease / 4, 500 * MS), 2 * SECOND);
    return (struct etcd_limit){attempt, 3 * attempt};
}

static int64_t look_interval(const struct reg_etcd *etcd) {
    return MIN(MAX(etcd->lease, SECOND), 5 * SECOND);
}

static void refresh(struct reg_etcd *etcd, struct watching *watching, bool refused) {
    char why[400];
    if (etcd_access_refresh(etcd->access, why, sizeof why) != 0)
        log_warning("%s; what was read before is used on", why);
    watching->refresh_at = clock_boot() + (refused ? REFRESH_SOON : REFRESH);
}

static void look(struct reg_etcd *etcd, struct watching *watching) {
    struct etcd_seen before, seen;
    char why[400];
    pthread_mutex_lock(&etcd->lock);
    bool told = etcd->looking;
    etcd->looking = false;
    before = etcd->seen;
    pthread_mutex_unlock(&etcd->lock);
    int rc = etcd_look(etcd, etcd->watcher_client, watcher_limit(etcd), &seen, NULL, why, sizeof why);
    int64_t now = clock_boot();
    watching->look_at = now + (rc ? AGAIN : APART);
    watching->answered = rc == 0;
    if (rc == -ECANCELED)
        return;
    if (rc && !watching->said)
        log_warning("etcd cannot say who is primary: %s", why);
    if (rc == 0 && watching->said)
        log_info("etcd answers again");
    watching->said = rc != 0;
    if (rc)
        watching->refresh_at = MIN(watching->refresh_at, now + REFRESH_SOON);
    /* Nothing has told of what is new: the member of the watch knows nothing of it. */
    if (rc == 0 && !told && before.revision && (seen.register_mod != before.register_mod || seen.holder_mod != before.holder_mod))
        etcd_stream_end(etcd->stream);
}

/* When somebody else's reign may be ended. INT64_MAX: not by waiting. With the lock held. */
static int64_t free_at(struct reg_etcd *etcd, struct watching *watching, bool *now_free) {
    char holder[64];
    int64_t wait, now = clock_boot();
    const struct etcd_seen *seen = &etcd->seen;
    *now_free = false;
    if (!seen->value.version || !seen->value.primary[0] || strcmp(seen->value.primary, etcd->self->name) == 0 ||
        (watching->freed_register == seen->register_mod && watching->freed_holder == seen->holder_mod))
        return INT64_MAX;
    if (etcd_let_in(seen, &etcd->absence, etcd->self->name, etcd->lease, now, holder, &wait) != 0)
        return etcd->absence.gone ? now + wait : INT64_MAX;
    watching->freed_register = seen->register_mod;
    watching->freed_holder = seen->holder_mod;
    *now_free = true;
    return INT64_MAX;
}

/* Returns when the next thing is to be told. */
static int64_t tell(struct reg_etcd *etcd, struct watching *watching) {
    bool news, now_free;
    pthread_mutex_lock(&etcd->lock);
    struct register_value value = etcd->seen.value;
    news = register_compare(&value, &etcd->told) > 0;
    if (news)
        etcd->told = value;
    int64_t due = free_at(etcd, watching, &now_free);
    pthread_mutex_unlock(&etcd->lock);
    if (news && etcd->watch.news)
        etcd->watch.news(etcd->watch.context, &value);
    if (now_free && etcd->watch.freed)
        etcd->watch.freed(etcd->watch.context);
    return due;
}

static void serve_stream(struct reg_etcd *etcd, struct watching *watching, int64_t timeout) {
    char why[300];
    unsigned flags = etcd_stream_wait(etcd->stream, timeout, why, sizeof why);
    if (flags & ETCD_STREAM_LOOK) {
        watching->pause = 0;
        pthread_mutex_lock(&etcd->lock);
        etcd->looking = true;
        pthread_mutex_unlock(&etcd->lock);
    }
    if (flags & ETCD_STREAM_ENDED) {
        log_debug("the watch has ended: %s", why);
        etcd_access_heard(etcd->access, etcd_stream_endpoint(etcd->stream), why);
        watching->pause = MIN(MAX(2 * watching->pause, 250 * MS), 5 * SECOND);
        watching->begin_at = clock_boot() + watching->pause;
        watching->look_at = MIN(watching->look_at, clock_boot() + APART);
        pthread_mutex_lock(&etcd->lock);
        etcd->looking = true;
        pthread_mutex_unlock(&etcd->lock);
    }
}

void *etcd_watcher(void *context) {
    struct reg_etcd *etcd = context;
    struct watching watching = {.refresh_at = clock_boot() + REFRESH, .look_at = INT64_MIN, .begin_at = INT64_MIN,
                                .probe_at = clock_boot() + SECOND};
    unsigned endpoints = etcd->config->etcd.endpoint_count;
    for (;;) {
        pthread_mutex_lock(&etcd->lock);
        bool closing = etcd->closing;
        int64_t look_at = etcd->looking ? watching.look_at : watching.answered ? etcd->seen_at + look_interval(etcd)
                                                                              : watching.look_at;
        pthread_mutex_unlock(&etcd->lock);
        if (closing)
            break;
        int64_t now = clock_boot();
        if (now >= watching.refresh_at)
            refresh(etcd, &watching, !watching.answered);
        if (now >= look_at) {
            look(etcd, &watching);
            look_at = now;
        }
        int64_t due = MIN(tell(etcd, &watching), MIN(look_at, watching.refresh_at));
        if (!etcd_stream_runs(etcd->stream) && watching.answered && now >= watching.begin_at)
            etcd_stream_begin(etcd->stream);
        if (now >= watching.probe_at) {
            etcd_stream_probe(etcd->stream, watching.probe++ % endpoints);
            watching.probe_at = now + (watching.probe < endpoints ? 100 * MS : ETCD_PROBE_ALL / endpoints);
        }
        due = MIN(due, watching.probe_at);
        if (!etcd_stream_runs(etcd->stream) && watching.answered)
            due = MIN(due, watching.begin_at);
        serve_stream(etcd, &watching, due - clock_boot());
    }
    return NULL;
}
