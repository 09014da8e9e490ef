/* The ring of events: order, what falls out, who waits, two who write at once. */
#include "fs/events.h"
#include "tests/tap.h"

#include <pthread.h>

static uint64_t number_of(const json_t *event) {
    return (uint64_t)json_integer_value(json_object_get(event, "number"));
}

static void *put_many(void *argument) {
    for (int i = 0; i < 1000; i++)
        events_put(argument, "role", json_pack("{s:i}", "i", i), "number %d", i);
    return NULL;
}

static void *put_late(void *argument) {
    usleep(50000);
    events_put(argument, "lease", NULL, "late");
    return NULL;
}

int main(void) {
    struct events *events = events_create();
    ok(events_last(events) == 0 && events_next(events, 0, 0) == NULL, "nothing yet");
    events_put(events, "role", json_pack("{s:s, s:s}", "role", "primary", "event", "forged"), "this node is %s", "primary");
    json_t *event = events_next(events, 0, 0);
    ok(number_of(event) == 1, "the first one");
    is_string("role", json_string_value(json_object_get(event, "event")), "its name is not its maker's to replace");
    is_string("this node is primary", json_string_value(json_object_get(event, "text")), "its sentence");
    is_string("primary", json_string_value(json_object_get(event, "role")), "what was added");
    ok(json_integer_value(json_object_get(event, "time")) > INT64_C(1600000000000000000), "its time");
    json_decref(event);
    ok(events_next(events, 1, 0) == NULL, "none after it");

    pthread_t thread;
    PROMISE(pthread_create(&thread, NULL, put_late, events) == 0);
    event = events_next(events, 1, 60000);
    ok(event && number_of(event) == 2, "who waits gets the next one");
    json_decref(event);
    pthread_join(thread, NULL);

    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        PROMISE(pthread_create(&threads[i], NULL, put_many, events) == 0);
    uint64_t after = 2, seen = 0;
    bool order = true;
    while (after < 4002 && (event = events_next(events, after, 60000))) {
        order = order && number_of(event) > after;
        after = number_of(event);
        seen++;
        json_decref(event);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ok(order && after == 4002, "in order up to the last one");
    ok(seen >= EVENTS_KEPT / 2, "many of them (%llu)", (unsigned long long)seen);
    event = events_next(events, 0, 0);
    is_int(4002 - EVENTS_KEPT + 1, number_of(event), "the oldest ones have gone");
    json_decref(event);
    events_free(events);
    events_put(NULL, "role", json_object(), "nobody listens");
    return 0;
}
