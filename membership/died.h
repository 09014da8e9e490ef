/* How the process that served has died: notes in STORE.died, one line each, the newest last. The supervisor writes them
 * (fs/launch.c), status shows them. They outlive the store's lock and whatever is wrong with the store.
 *
 * No locks: one writer, the volume's supervisor; who reads sees the file before or after a note.
 */
#ifndef BATON_MEMBERSHIP_DIED_H
#define BATON_MEMBERSHIP_DIED_H

#include "fs/record.h"

#define DIED_NOTES 20u /* the newest that are kept */
#define DIED_TEXT 256u

struct died {
    int64_t when;      /* CLOCK_REALTIME */
    int wait_status;   /* as from waitpid() */
    bool overdue;      /* its parent killed it: the lease had run out, and it did not stir */
    bool never_served; /* it was not ready yet */
    int64_t lasted;    /* ns that it ran, or served */
    uint64_t lsn;      /* of the newest record in the store; 0: not known */
    epoch_t epoch;
    uint32_t restarts; /* that came before */
};

/* STORE.died */
void died_path(const char *store_path, char *path, size_t room);
/* "2026-03-01T12:00:00Z killed by signal 9 (KILL) after serving 12 s, at LSN 4711 of epoch 3; 2 restarts before". */
void died_text(const struct died *died, char text[DIED_TEXT]);
/* Adds a note, and drops those beyond the limit. 0 or a negative errno. */
int died_add(const char *store_path, const struct died *died);
/* Calls each(…, text) for every note, oldest first. 0, also when there is none, or a negative errno. Lines that are no text
 * are passed over, and of a file that is too long the beginning. */
int died_each(const char *store_path, void (*each)(void *context, const char *text), void *context);

#endif
