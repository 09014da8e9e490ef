#include "fs/events.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

struct events {
    pthread_mutex_t lock;
    pthread_cond_t news;
    uint64_t last;
    json_t *ring[EVENTS_KEPT]; /* slot: number % EVENTS_KEPT; NULL: none */
};

struct events *events_create(void) {
    struct events *events = calloc(1, sizeof *events);
    pthread_condattr_t attributes;
    if (!events)
        return NULL;
    pthread_mutex_init(&events->lock, NULL);
    PROMISE(pthread_condattr_init(&attributes) == 0);
    PROMISE(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    PROMISE(pthread_cond_init(&events->news, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    return events;
}

void events_free(struct events *events) {
    if (!events)
        return;
    for (unsigned i = 0; i < EVENTS_KEPT; i++)
        json_decref(events->ring[i]);
    pthread_cond_destroy(&events->news);
    pthread_mutex_destroy(&events->lock);
    free(events);
}

void events_put(struct events *events, const char *event, json_t *detail, const char *format, ...) {
    char text[512];
    va_list arguments;
    if (!events) {
        json_decref(detail);
        return;
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_t *line = json_pack("{s:I, s:s, s:s}", "time", (json_int_t)clock_now(), "event", event, "text", text);
    if (line && detail)
        json_object_update_missing(line, detail);
    json_decref(detail);
    pthread_mutex_lock(&events->lock);
    uint64_t number = ++events->last;
    json_t **slot = &events->ring[number % EVENTS_KEPT];
    json_decref(*slot);
    *slot = line;
    if (line)
        json_object_set_new(line, "number", json_integer((json_int_t)number));
    pthread_cond_broadcast(&events->news);
    pthread_mutex_unlock(&events->lock);
}

static json_t *look(struct events *events, uint64_t after) {
    uint64_t first = events->last > EVENTS_KEPT ? events->last - EVENTS_KEPT + 1 : 1;
    for (uint64_t number = MAX(after + 1, first); number <= events->last; number++)
        if (events->ring[number % EVENTS_KEPT])
            return json_deep_copy(events->ring[number % EVENTS_KEPT]); /* reference counts are not for two threads */
    return NULL;
}

json_t *events_next(struct events *events, uint64_t after, int timeout_ms) {
    struct timespec until;
    PROMISE(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    int64_t ns = until.tv_nsec + timeout_ms * INT64_C(1000000);
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&events->lock);
    json_t *found;
    while (!(found = look(events, after)) && pthread_cond_timedwait(&events->news, &events->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&events->lock);
    return found;
}

uint64_t events_last(struct events *events) {
    pthread_mutex_lock(&events->lock);
    uint64_t last = events->last;
    pthread_mutex_unlock(&events->lock);
    return last;
}
