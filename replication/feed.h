/* The primary's view of one peer that it feeds: which session, what has been sent, what has come back, what may be on
 * its way. Decisions only; who sends, and over what, is the caller's.
 *
 *   FEED_ABSENT --login--> FEED_STREAMING --silence, bye, lost--> FEED_ABSENT
 *        \--login, refused--> FEED_REFUSED --login--> …
 *
 * Positions count only inside the session in which they were told. Acknowledgements that do not fit (another session,
 * beyond what was sent, going back) are -EBADMSG and end the session: a peer that says such things is not understood.
 *
 * Pure: time comes in as clock_boot() nanoseconds. The caller locks.
 */
#ifndef BATON_REPLICATION_FEED_H
#define BATON_REPLICATION_FEED_H

#include "replication/wire.h"

#define FEED_WINDOW_BYTES (16u << 20) /* at most so much is on its way to a peer */
#define FEED_WINDOW_FRAMES 2048u
#define FEED_LINE_RATE (128u << 10) /* bytes a second: the slowest line on which a frame is waited for */

enum feed_state { FEED_ABSENT = 0, FEED_REFUSED = 1, FEED_STREAMING = 2 };

struct feed_sent {
    uint64_t first, last; /* the frame's LSNs */
    uint64_t bytes;
};

struct feed {
    enum feed_state state;
    uint64_t session;
    uint8_t incarnation[16];
    uint64_t next;     /* the first LSN that has not been sent */
    uint64_t received; /* learned in this session */
    uint64_t durable;
    uint64_t want;     /* the peer has been told, or will be with the next frame, to make this durable */
    uint64_t want_sent;
    uint64_t window;
    uint64_t in_flight; /* bytes */
    int64_t login_time;
    int64_t heard; /* the last frame of this session */
    int64_t progress; /* when it last acknowledged something, or nothing was asked of it */
    int64_t received_at, durable_at; /* when it last had more of the log; when it last had more, or all that is wanted, on disk */
    uint64_t total_bytes; /* sent in this session */
    struct feed_sent sent[FEED_WINDOW_FRAMES]; /* a ring */
    unsigned sent_first, sent_count;
    char why[WIRE_TEXT]; /* ABSENT, REFUSED: a sentence */
};

/* What the primary knows when a login arrives. `chain_at`: its chain at the peer's LSN, NULL if it has none there. */
struct feed_ground {
    struct wire_position own;
    const uint8_t *chain_at;
};

/* Judges a login and, if it is to be streamed, opens the session. A login repeated in its session changes nothing and
 * gets the same answer. Fills verdict, from, text; fork and position are the caller's. */
void feed_login(struct feed *feed, uint64_t session, const struct wire_login *login, const struct feed_ground *ground,
                int64_t now, struct wire_answer *answer);

/* May a frame of `bytes` go now? One frame may always be on its way, whatever its size. */
bool feed_may_send(const struct feed *feed, uint64_t bytes);
/* A frame with records next … last has gone. */
void feed_sent(struct feed *feed, uint64_t last, uint64_t bytes);
/* 0 or -EBADMSG. */
int feed_ack(struct feed *feed, uint64_t session, const struct wire_ack *ack, int64_t now);
/* Bytes that it has acknowledged in this session; of a frame that it has not acknowledged whole, in proportion. */
uint64_t feed_taken(const struct feed *feed);
/* A heartbeat or another sign of life in `session`: true if that is the present one. */
bool feed_heard(struct feed *feed, uint64_t session, int64_t now);
/* It lives but has not acknowledged anything of what was sent, or made nothing durable of what was wanted, for so long.
 * To be called now and then: it also notes when nothing is asked of the peer. */
bool feed_stuck(struct feed *feed, int64_t now, int64_t patience);
/* Notes when it lacks nothing of the log up to `last`, or of what is wanted on its disk. To be called now and then. */
void feed_look(struct feed *feed, uint64_t last, int64_t now);
/* This process stood still for so long: that is not the peer's fault. */
void feed_stood_still(struct feed *feed, int64_t ns, int64_t now);
/* For so long (ns) has it acknowledged nothing of what it lacks, beyond what a slow line may need for the frame that is under
 * way first. Of a peer that takes things, however slowly, it is short. */
int64_t feed_owes(const struct feed *feed, int64_t now);
/* Ends the session with a sentence. */
void feed_end(struct feed *feed, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *feed_state_name(enum feed_state state);

#endif
