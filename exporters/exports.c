#include "exporters/exports.h"

#include "fs/volume.h"
#include "membership/supervisor.h"

#include <stdarg.h>
#include <stdio.h>

#define MS INT64_C(1000000)
#define END_MORE (2000 * MS) /* beyond the exporters' own limits: their scripts have to be started */
#define READ_TRIES 100u

const char *export_state_name(enum export_state state) {
    static const char *const names[] = {"off", "starting", "on", "failed", "stopping"};
    return names[state];
}

bool exports_any(const struct config *config) {
    return config->export_count > 0 || config->hooks[0];
}

void exports_wake(struct exports_shared *shared) {
    uint64_t one = 1;
    ssize_t done = write(shared->wake, &one, sizeof one); /* full only when it is readable already */
    (void)done;
}

/* ---- Sentences ------------------------------------------------------------------------------------------------------- */

void export_words_write(struct export_words *words, const char *format, ...) {
    va_list arguments;
    atomic_fetch_or(&words->turn, 1u); /* it may have been left odd by one that died here */
    va_start(arguments, format);
    vsnprintf(words->text, sizeof words->text, format, arguments);
    va_end(arguments);
    atomic_fetch_add(&words->turn, 1);
}

void export_words_read(const struct export_words *words, char text[EXPORT_TEXT]) {
    for (unsigned i = 0; i < READ_TRIES; i++) {
        uint32_t turn = atomic_load(&words->turn);
        memcpy(text, words->text, EXPORT_TEXT);
        atomic_thread_fence(memory_order_acquire);
        if (turn % 2 == 0 && atomic_load(&words->turn) == turn)
            break;
    }
    text[EXPORT_TEXT - 1] = '\0';
}

/* ---- The serving process --------------------------------------------------------------------------------------------- */

static struct exports_shared *shared_of(const struct volume *volume) {
    if (!volume->supervision || !exports_any(&volume->config))
        return NULL;
    struct exports_shared *shared = &volume->supervision->exports;
    return atomic_load(&volume->supervision->parent) ? shared : NULL;
}

void exports_begin(struct volume *volume, uint64_t epoch) {
    struct exports_shared *shared = shared_of(volume);
    if (!shared || !volume->front)
        return;
    atomic_store(&shared->hurry, false);
    atomic_store(&shared->wanted, epoch);
    exports_wake(shared);
}

static int64_t end_patience(const struct config *config) {
    int64_t patience = END_MORE;
    for (unsigned i = 0; i < config->export_count; i++)
        patience += (int64_t)config->exports[i].stop_ms * MS;
    return patience;
}

void exports_stop(struct exports_shared *shared, const struct config *config, bool hurry) {
    if (atomic_load(&shared->wanted) == 0 && atomic_load(&shared->on) == 0)
        return;
    int64_t begun = clock_boot();
    if (hurry)
        atomic_store(&shared->hurry, true);
    atomic_store(&shared->wanted, 0);
    exports_wake(shared);
    while (atomic_load(&shared->on) != 0) {
        if (clock_boot() - begun > end_patience(config)) {
            log_error("the exports of volume %s do not end; nothing waits for them any more: see what the log says of each", config->volume);
            return;
        }
        usleep(500);
    }
}

void exports_end(struct volume *volume, bool hurry) {
    struct exports_shared *shared = shared_of(volume);
    if (shared)
        exports_stop(shared, &volume->config, hurry);
}

bool exports_broken(const struct volume *volume, char why[EXPORT_TEXT]) {
    const struct exports_shared *shared = shared_of(volume);
    why[0] = '\0';
    if (!shared || !atomic_load(&shared->broken))
        return false;
    for (unsigned i = 0; i < EXPORTS_ALL && !why[0]; i++)
        if (atomic_load(&shared->all[i].state) == EXPORT_FAILED)
            export_words_read(&shared->all[i].words, why);
    if (!why[0])
        snprintf(why, EXPORT_TEXT, "an export does not serve");
    return true;
}

static json_t *status_of(const struct export_shared *shared, const char *name, const char *type) {
    char why[EXPORT_TEXT];
    enum export_state state = atomic_load(&shared->state);
    export_words_read(&shared->words, why);
    json_t *shown = json_pack("{s:s, s:s, s:s, s:I, s:I}", "name", name, "type", type, "state", export_state_name(state), "since_ms",
                              (json_int_t)((clock_boot() - atomic_load(&shared->since)) / MS), "restarts",
                              (json_int_t)atomic_load(&shared->restarts));
    if (why[0])
        json_object_set_new(shown, "why", json_string(why));
    return shown;
}

json_t *exports_status(const struct volume *volume) {
    const struct exports_shared *shared = shared_of(volume);
    const struct config *config = &volume->config;
    if (!shared || config->export_count == 0)
        return NULL;
    json_t *all = json_array();
    for (unsigned i = 0; i < config->export_count; i++)
        json_array_append_new(all, status_of(&shared->all[i], config->exports[i].name, config->exports[i].type));
    if (config->addresses[0])
        json_array_append_new(all, status_of(&shared->all[config->export_count], config->addresses, "address"));
    return all;
}
