#include "fs/behind.h"

void behind_open(struct behind *behind) {
    memset(behind, 0, sizeof *behind);
    PROMISE(pthread_mutex_init(&behind->lock, NULL) == 0);
    PROMISE(pthread_mutex_init(&behind->flush_lock, NULL) == 0);
}

void behind_close(struct behind *behind) {
    for (unsigned i = 0; i < BEHIND_WINDOWS; i++)
        free(behind->windows[i].bytes);
    pthread_mutex_destroy(&behind->lock);
    pthread_mutex_destroy(&behind->flush_lock);
}

static bool is_there(const struct window *window, uint32_t index) {
    return window->there[index / 64] >> (index % 64) & 1;
}

static bool covers(const struct window *window, uint32_t segment, uint32_t position) {
    return window->state != WINDOW_FREE && window->segment == segment && position >= window->first &&
           position - window->first < BEHIND_BLOCKS;
}

/* The window that takes this block; NULL if there is none. */
static struct window *window_for(struct behind *behind, uint32_t segment, uint32_t position) {
    struct window *empty = NULL;
    for (unsigned i = 0; i < BEHIND_WINDOWS; i++) {
        struct window *window = &behind->windows[i];
        if (window->state == WINDOW_FILLING && covers(window, segment, position))
            return window;
        if (window->state == WINDOW_FREE && !empty)
            empty = window;
    }
    if (!empty)
        return NULL;
    if (!empty->bytes)
        empty->bytes = malloc((size_t)BEHIND_BLOCKS * BATON_BLOCK);
    if (!empty->bytes)
        return NULL;
    memset(empty->there, 0, sizeof empty->there);
    empty->segment = segment;
    empty->first = position - position % BEHIND_BLOCKS;
    empty->state = WINDOW_FILLING;
    atomic_fetch_add(&behind->used, 1);
    return empty;
}

uint32_t behind_put(struct behind *behind, uint32_t segment, uint32_t position, uint32_t count, const uint8_t *bytes,
                    size_t length) {
    uint32_t done = 0;
    PROMISE(pthread_mutex_lock(&behind->lock) == 0);
    while (done < count) {
        struct window *window = window_for(behind, segment, position + done);
        if (!window)
            break;
        uint32_t index = position + done - window->first;
        uint32_t take = MIN(count - done, BEHIND_BLOCKS - index);
        size_t whole = (size_t)take * BATON_BLOCK, given = MIN(whole, length);
        uint8_t *to = window->bytes + (size_t)index * BATON_BLOCK;
        if (given) {
            memcpy(to, bytes, given);
            bytes += given;
        }
        memset(to + given, 0, whole - given);
        for (uint32_t i = index; i < index + take; i++)
            window->there[i / 64] |= UINT64_C(1) << (i % 64);
        length -= given;
        done += take;
    }
    PROMISE(pthread_mutex_unlock(&behind->lock) == 0);
    return done;
}

uint32_t behind_get(struct behind *behind, uint32_t segment, uint32_t position, uint32_t count, uint8_t *bytes,
                    uint32_t *until) {
    uint32_t found = 0;
    *until = count;
    if (atomic_load(&behind->used) == 0)
        return 0;
    PROMISE(pthread_mutex_lock(&behind->lock) == 0);
    for (unsigned i = 0; i < BEHIND_WINDOWS && found == 0; i++) {
        const struct window *window = &behind->windows[i];
        if (covers(window, segment, position)) {
            uint32_t index = position - window->first;
            while (found < count && index + found < BEHIND_BLOCKS && is_there(window, index + found))
                found++;
            if (found)
                memcpy(bytes, window->bytes + (size_t)index * BATON_BLOCK, (size_t)found * BATON_BLOCK);
        }
        /* The first block that is here ends what comes from the file. */
        if (window->state != WINDOW_FREE && window->segment == segment && found == 0)
            for (uint32_t b = window->first > position ? 0 : MIN(position - window->first, BEHIND_BLOCKS);
                 b < BEHIND_BLOCKS && window->first + b < position + *until; b++)
                if (is_there(window, b) && window->first + b > position)
                    *until = window->first + b - position;
    }
    PROMISE(pthread_mutex_unlock(&behind->lock) == 0);
    return found;
}

bool behind_pressed(const struct behind *behind) {
    return atomic_load(&behind->used) > BEHIND_WINDOWS / 2;
}

static int write_window(const struct window *window,
                        int (*write)(void *context, uint32_t segment, uint32_t first, uint32_t count,
                                     const uint8_t *bytes),
                        void *context) {
    int rc = 0;
    for (uint32_t i = 0, end; i < BEHIND_BLOCKS && rc == 0; i = end) {
        end = i + 1;
        if (!is_there(window, i))
            continue;
        while (end < BEHIND_BLOCKS && is_there(window, end))
            end++;
        rc = write(context, window->segment, window->first + i, end - i, window->bytes + (size_t)i * BATON_BLOCK);
    }
    return rc;
}

int behind_flush(struct behind *behind,
                 int (*write)(void *context, uint32_t segment, uint32_t first, uint32_t count, const uint8_t *bytes),
                 void *context) {
    int rc = 0;
    PROMISE(pthread_mutex_lock(&behind->flush_lock) == 0);
    PROMISE(pthread_mutex_lock(&behind->lock) == 0);
    /* All at once: a window that is filled again meanwhile is not of this call's. */
    for (unsigned i = 0; i < BEHIND_WINDOWS; i++)
        if (behind->windows[i].state == WINDOW_FILLING)
            behind->windows[i].state = WINDOW_WRITING;
    for (unsigned i = 0; i < BEHIND_WINDOWS && rc == 0; i++) {
        struct window *window = &behind->windows[i];
        if (window->state != WINDOW_WRITING)
            continue;
        PROMISE(pthread_mutex_unlock(&behind->lock) == 0);
        rc = write_window(window, write, context);
        PROMISE(pthread_mutex_lock(&behind->lock) == 0);
        if (rc == 0) {
            window->state = WINDOW_FREE;
            atomic_fetch_sub(&behind->used, 1);
        }
    }
    PROMISE(pthread_mutex_unlock(&behind->lock) == 0);
    PROMISE(pthread_mutex_unlock(&behind->flush_lock) == 0);
    return rc;
}
