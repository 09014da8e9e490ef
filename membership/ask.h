/* What proposers and holders ask of voters, and what those answer, as bytes: one message each way, over ZeroMQ with CURVE on
 * sockets that nothing else uses (PORT + VOTER_PORT of a node, PORT of a witness). Every field is checked when it is read.
 *
 * All numbers are little-endian. A question: head, then what its type needs; an answer: head, then the voter's answer.
 * `number` is drawn by who asks and comes back: an answer counts for the question that it was given to.
 */
#ifndef BATON_MEMBERSHIP_ASK_H
#define BATON_MEMBERSHIP_ASK_H

#include "membership/voter.h"

#define ASK_VERSION 1u
#define ASK_BYTES (64u + 3u * REGISTER_BYTES) /* no message is longer */

enum ask_type {
    ASK_PREPARE = 1, /* ballot, birth */
    ASK_ACCEPT,      /* ballot, value, known */
    ASK_RENEW,       /* epoch, session, lease_ms */
    ASK_RELEASE,     /* epoch, session */
    ASK_LEARN,       /* value */
    ASK_QUERY,       /* nothing: looks only, and tells the voter's id */
    ASK_TYPE_END
};

struct ask_question {
    enum ask_type type;
    uint8_t volume[16];
    uint64_t number;
    char from[64]; /* the node that asks: the voter's door checks it against the connection's key */
    struct ballot ballot;
    bool birth;
    epoch_t epoch;
    uint64_t session;
    uint32_t lease_ms; /* that the holder counts with; a voter whose own config says less does not grant. 0: not told */
    struct register_value value, known;
};

enum ask_status {
    ASK_ANSWERED = 1, /* `answer` holds */
    ASK_UNKNOWN,      /* the voter does not serve this volume, or does not let this node ask */
    ASK_FAILED,       /* its state cannot be read or written: `why` */
    ASK_STATUS_END
};

struct ask_answer {
    uint8_t volume[16];
    uint64_t number;
    enum ask_type type; /* of the question */
    enum ask_status status;
    char voter[64];
    struct voter_answer answer; /* ANSWERED; `durable` is not sent */
    char why[128];
};

/* The length, at most ASK_BYTES. */
size_t ask_encode_question(const struct ask_question *question, uint8_t bytes[ASK_BYTES]);
size_t ask_encode_answer(const struct ask_answer *answer, uint8_t bytes[ASK_BYTES]);
/* 0; -EBADMSG: not all of it is a message within its limits; -EPROTO: it is of another version. */
int ask_decode_question(const void *bytes, size_t length, struct ask_question *question);
int ask_decode_answer(const void *bytes, size_t length, struct ask_answer *answer);

/* A voter's margin over the lease time: its clock may be slower than the holder's by a thousandth, services are taken down in
 * it, and the kernel may be late. ns. */
int64_t ask_margin(int64_t lease);

#endif
