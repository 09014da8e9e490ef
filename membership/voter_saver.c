#include "membership/voter_saver.h"

#include <pthread.h>
#include <stdio.h>

#define OPEN_PATIENCE INT64_C(10000000000)
#define LOG_EVERY INT64_C(5000000000)

struct saver {
    struct desk *desk;
    struct voter_store *store;
    pthread_mutex_t lock; /* of the store; while it is held, the desk does not learn of other states than the store's */
    pthread_t thread;
    saver_deliver *deliver;
    void *context;
    struct desk_batch batch;
    char directory[1024];
    bool failing;
    int64_t complained;
};

static void complain(struct saver *saver, int rc) {
    int64_t now = clock_boot();
    if (rc && (!saver->failing || now - saver->complained >= LOG_EVERY)) {
        saver->complained = now;
        log_error("what the voter promises cannot be saved in %s: %s; it promises nothing as long as this lasts", saver->directory,
                  strerror(-rc));
    } else if (rc == 0 && saver->failing) {
        log_info("what the voter promises can be saved in %s again", saver->directory);
    }
    saver->failing = rc != 0;
}

static void *saver_thread(void *argument) {
    struct saver *saver = argument;
    while (desk_wait(saver->desk)) {
        int rc = 0;
        pthread_mutex_lock(&saver->lock);
        desk_take(saver->desk, &saver->batch);
        unsigned count = saver->batch.count;
        if (count)
            rc = voter_store_save_all(saver->store, saver->batch.rows, count);
        struct desk_waiting *go = desk_saved(saver->desk, &saver->batch, rc);
        pthread_mutex_unlock(&saver->lock);
        saver->deliver(saver->context, go);
        if (count)
            complain(saver, rc);
    }
    return NULL;
}

int saver_open(const char *directory, struct desk *desk, saver_deliver *deliver, void *context, struct saver **out, char *why,
               size_t why_room) {
    int64_t deadline = clock_boot() + OPEN_PATIENCE;
    struct saver *saver = calloc(1, sizeof *saver);
    if (!saver)
        return -ENOMEM;
    saver->desk = desk;
    saver->deliver = deliver;
    saver->context = context;
    snprintf(saver->directory, sizeof saver->directory, "%s", directory);
    int rc;
    while ((rc = voter_store_open(directory, &saver->store, why, why_room)) == -EBUSY && clock_boot() < deadline)
        usleep(50000);
    if (rc) {
        free(saver);
        return rc;
    }
    PROMISE(pthread_mutex_init(&saver->lock, NULL) == 0);
    PROMISE(pthread_create(&saver->thread, NULL, saver_thread, saver) == 0);
    *out = saver;
    return 0;
}

static int state_for(struct saver *saver, const struct config *config, struct voter_state *state, char *why, size_t why_room) {
    char reason[256] = "no memory";
    int rc = 0;
    if (!desk_durable(saver->desk, config->volume_id, state))
        rc = voter_store_load(saver->store, config->volume_id, state, reason, sizeof reason);
    /* Before anything is granted for so long. */
    if (rc == 0 && state->lease_ms < config->lease_ms) {
        state->lease_ms = config->lease_ms;
        rc = voter_store_save(saver->store, config->volume_id, state);
        if (rc)
            snprintf(reason, sizeof reason, "it cannot be written: %s", strerror(-rc));
    }
    if (rc)
        snprintf(why, why_room, "volume %s: the voter's state in %s: %s", config->volume, saver->directory, reason);
    return rc;
}

int saver_serve(struct saver *saver, const struct config *config, const char *voter, const struct register_watch *watch, char *why,
                size_t why_room) {
    struct voter_state state;
    pthread_mutex_lock(&saver->lock);
    int rc = state_for(saver, config, &state, why, why_room);
    if (rc == 0)
        rc = desk_serve(saver->desk, config, voter, watch, &state, why, why_room);
    pthread_mutex_unlock(&saver->lock);
    return rc;
}

void saver_close(struct saver *saver) {
    desk_stop(saver->desk);
    pthread_join(saver->thread, NULL);
    voter_store_close(saver->store);
    pthread_mutex_destroy(&saver->lock);
    free(saver);
}
