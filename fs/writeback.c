#include "fs/writeback.h"

#include <fcntl.h>

void writeback_open(struct writeback *writeback) {
    memset(writeback, 0, sizeof *writeback);
    PROMISE(pthread_mutex_init(&writeback->lock, NULL) == 0);
}

void writeback_close(struct writeback *writeback) {
    pthread_mutex_destroy(&writeback->lock);
}

void writeback_begin(int fd, struct place place) {
    (void)sync_file_range(fd, (off_t)place.position * BATON_BLOCK, (off_t)place.count * BATON_BLOCK,
                          SYNC_FILE_RANGE_WRITE);
}

static void take_first(struct writeback *writeback, struct place *oldest) {
    *oldest = writeback->places[writeback->first];
    writeback->first = (writeback->first + 1) % WRITEBACK_PLACES;
    writeback->count--;
    writeback->blocks -= oldest->count;
}

void writeback_add(struct writeback *writeback, struct place place) {
    pthread_mutex_lock(&writeback->lock);
    if (writeback->count == WRITEBACK_PLACES) { /* several threads add, none has taken yet: it just stays cached */
        struct place forgotten;
        take_first(writeback, &forgotten);
    }
    writeback->places[(writeback->first + writeback->count++) % WRITEBACK_PLACES] = place;
    writeback->blocks += place.count;
    pthread_mutex_unlock(&writeback->lock);
}

bool writeback_take(struct writeback *writeback, struct place *oldest) {
    pthread_mutex_lock(&writeback->lock);
    bool more = writeback->blocks > WRITEBACK_KEPT / BATON_BLOCK || writeback->count == WRITEBACK_PLACES;
    if (more)
        take_first(writeback, oldest);
    pthread_mutex_unlock(&writeback->lock);
    return more;
}

void writeback_drop(int fd, struct place place) {
    (void)posix_fadvise(fd, (off_t)place.position * BATON_BLOCK, (off_t)place.count * BATON_BLOCK, POSIX_FADV_DONTNEED);
}
