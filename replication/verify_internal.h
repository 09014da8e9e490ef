/* What the files of verify share. */
#ifndef BATON_REPLICATION_VERIFY_INTERNAL_H
#define BATON_REPLICATION_VERIFY_INTERNAL_H

#include "fs/compare.h"
#include "replication/parts.h"
#include "replication/verify.h"

#define VERIFY_LEAF 8u /* rows that are compared one by one */

/* One comparison; the thread's. */
struct verifying {
    struct replicator *r;
    struct verify_request request;
    void *socket;
    uint64_t number; /* of the last question */
    struct store *past;
    struct position state; /* of both, now */
    int64_t opened;
    uint8_t incarnation[16]; /* of the other one's store */
    int64_t due;
    struct frame frame; /* the question that is being made */
    uint8_t ranges[COPY_RANGES_BYTES];
    uint8_t *rows; /* of this node, in the form of answers: WIRE_COPY_BYTES */
    uint32_t rows_length;
    struct verify_result result;
    struct difference *found;
    uint32_t found_room;
};

/* verify.c */
bool verify_goes_on(struct verifying *v);
int verify_say(struct verifying *v, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What is wrong with reading this node's state, in words. */
int verify_own_error(struct verifying *v, int error);
void verify_pace(struct verifying *v, uint64_t bytes);
/* How many rows to compare by one hash, and how many bytes are read in a quarter of a second. */
void verify_portion(struct verifying *v, uint32_t *rows, uint32_t *bytes);
/* Counts; 1: there are too many. */
int verify_found(void *verifying, const struct difference *difference);
/* Opens both states anew at a newer record if they have been open for long; between ranges. */
int verify_renew(struct verifying *v);
/* An empty question, in v->frame. */
struct wire_ask_copy *verify_question(struct verifying *v, enum copy_kind kind);
/* Sends it until it is answered; an answer that is an error is one here. 0: `answer` is to be given back. */
int verify_ask(struct verifying *v, struct link_message *answer);

/* verify_ranges.c: 0, 1 (too many differences), or an error with a sentence */
int verify_range(struct verifying *v, const struct range *range); /* of any size */
enum verify_hash { HASH_SAME, HASH_OTHER, HASH_UNKNOWN /* too many rows there */ };
/* Ranges of few rows, with their hashes here. */
int verify_hashes(struct verifying *v, const struct range *ranges, uint8_t (*hashes)[RANGE_HASH], unsigned count,
                  enum verify_hash *seen);
/* Finds what differs in a range of so many rows; if it is the same, nothing. */
int verify_narrow(struct verifying *v, const struct range *range, uint32_t rows, enum verify_hash seen);

/* verify_paths.c */
int verify_paths(struct verifying *v);

/* verify_report.c: names what was found, by the state that is open */
json_t *verify_report(struct verifying *v);
const char *verify_outcome_name(enum verify_outcome outcome);
json_t *verify_result_json(const struct replicator *r, const struct verify_result *result);

#endif
