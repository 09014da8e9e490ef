/* The standby's view of its primary: whom to dial, whether a frame belongs to the present session, whether records
 * follow without a gap. Decisions only.
 *
 *   FOLLOW_IDLE       this node is primary
 *   FOLLOW_SEARCHING  asking every node who is primary
 *   FOLLOW_LOGIN      a primary is known: a session is drawn, its login sent until it is answered
 *   FOLLOW_STREAMING  records come
 *   FOLLOW_REFUSED    the primary says why not; asked again after a while
 *
 * Every loss (a gap, silence, a frame that does not fit) ends the session; the next one begins with a new number at the
 * position that the store then has.
 *
 * Pure: time comes in as clock_boot() nanoseconds. The caller locks.
 */
#ifndef BATON_REPLICATION_FOLLOW_H
#define BATON_REPLICATION_FOLLOW_H

#include "fs/config.h"
#include "replication/wire.h"

enum follow_state { FOLLOW_IDLE = 0, FOLLOW_SEARCHING, FOLLOW_LOGIN, FOLLOW_STREAMING, FOLLOW_REFUSED };

struct follow {
    enum follow_state state;
    unsigned primary; /* node index; from LOGIN on */
    epoch_t epoch;    /* of that primary */
    uint64_t session;
    uint64_t next;    /* LOGIN, STREAMING: the LSN that comes next */
    uint64_t want;    /* the primary wants this to be durable */
    int64_t since;    /* in this state */
    int64_t heard;    /* last frame from the primary in this session */
    int64_t login_sent;
    int64_t patience; /* nanoseconds of silence that end a session */
    bool taking;      /* records are being taken in */
    uint64_t behind;  /* the LSN that has been missing since … */
    int64_t behind_since;
    int64_t behind_patience; /* FOLLOW_BEHIND_MAX, longer after each time that it was not enough for this LSN */
    uint64_t behind_in_vain;
    uint32_t verdict; /* REFUSED: the primary's; 0: this node ended the session itself */
    uint64_t fork;    /* DIVERGED: see wire.h */
    uint8_t fork_chain[CHAIN_SIZE];
    char why[WIRE_TEXT];
};

#define FOLLOW_LOGIN_EVERY 100000000ll    /* ns: a login is repeated while it is not answered */
#define FOLLOW_BEHIND_MAX 2000000000ll  /* ns: so long may a record that the primary has be on its way, at first… */
#define FOLLOW_BEHIND_MOST 64000000000ll /* …and at last: one of 1 MiB takes its time on a slow line */
#define FOLLOW_REFUSED_AGAIN 1000000000ll /* ns: a refused login is tried again */

void follow_start(struct follow *follow, int64_t patience, int64_t now); /* → SEARCHING */
void follow_stop(struct follow *follow);                                 /* → IDLE */

/* Somebody says that it is primary in `epoch`. True if a session with it is to be begun: call follow_login then. Our
 * primary's own word in the present session counts as a sign of life. */
bool follow_primary(struct follow *follow, unsigned node, epoch_t epoch, int64_t now);
/* A session is drawn and a login from `next` is about to be sent. */
void follow_login(struct follow *follow, unsigned node, epoch_t epoch, uint64_t session, uint64_t next, int64_t now);
/* Its answer. -ESTALE: not of this session. */
int follow_answer(struct follow *follow, unsigned node, uint64_t session, const struct wire_answer *answer, int64_t now);

/* Records. 0: use them (`*skip` of them are here already), and tell follow_received in between and at the end, unless there
 * are none: a frame that only tells what is wanted moves nothing; -ESTALE: not of this session, drop the frame; -EPIPE: a gap or another epoch, the session has ended. */
int follow_records(struct follow *follow, uint64_t session, epoch_t epoch, const struct wire_records *records,
                   uint32_t *skip, int64_t now);
/* The store has them up to here; `end`: it was the last one of the frame. */
void follow_received(struct follow *follow, uint64_t lsn, bool end);

bool follow_heard(struct follow *follow, unsigned node, uint64_t session, int64_t now);
/* In the present session the primary said that its last record is `lsn`. Frames that were lost with a connection are
 * noticed by the next one, but nothing may come any more, when all that could change something waits for them: if what
 * is missing does not come for a while, the session ends and a login says from where. */
void follow_behind(struct follow *follow, uint64_t lsn, int64_t now);
/* Ends the session, back to SEARCHING, with a sentence. */
void follow_end(struct follow *follow, int64_t now, const char *format, ...) __attribute__((format(printf, 3, 4)));

enum follow_todo { FOLLOW_NOTHING, FOLLOW_ASK, FOLLOW_SEND_LOGIN };
/* Time passes. May end a session (see state). */
enum follow_todo follow_tick(struct follow *follow, int64_t now);

const char *follow_state_name(enum follow_state state);

#endif
