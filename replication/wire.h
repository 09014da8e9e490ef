/* Frames: what nodes say to each other. A frame is one ZeroMQ message part; everything is little-endian.
 *
 * Every frame begins with a head: magic, protocol range, feature bits, volume, sender's node number, session, epoch,
 * checksum (XXH3-64 over all of the frame but the bulk of RECORDS, which the records' own chain and block checksums
 * cover; that of COPY is in it). wire_decode() is the one place that looks at bytes from the network; it checks all of them, and whatever it
 * lets through is inside its limits. It does not know which session, epoch or node is the right one: that is the
 * caller's to compare, frame by frame.
 *
 * Sockets (see DESIGN.md: bulk data never delays control): RECORDS go from primary to standby on PORT, ACK back on
 * PORT + 1, ASK_COPY and COPY go over PORT + 3, everything else over PORT + 2.
 *
 * Versions. Nodes are upgraded one after the other, so programs of neighbouring versions talk to each other, in either
 * role. Every head says which versions its sender speaks, and a body has the fields of the newest one of these: fields are
 * only ever added, at the end of a body. Who reads an older node's frame gives the fields that are missing their empty
 * values; who reads a newer one's leaves out what it does not know at the end. RECORDS, ASK_COPY and COPY end in bulk and stay as
 * they are. A new type of frame, kind of question or record goes only to nodes that know it: by version, or by a bit of
 * `features`, as their heads say. Programs whose ranges do not meet refuse each other with a sentence.
 *
 * Pure functions; any thread.
 */
#ifndef BATON_REPLICATION_WIRE_H
#define BATON_REPLICATION_WIRE_H

#include "fs/compare.h"
#include "membership/register.h"

#ifndef WIRE_VERSION_MAX /* tests build programs of other versions */
#define WIRE_VERSION_MIN 1u /* protocol versions that this program speaks */
#define WIRE_VERSION_MAX 3u /* 2: BEAT tells the program; 3: BEAT has flags, it and SWITCH the register's voters */
#define WIRE_FEATURES WIRE_COMPARES /* optional parts of the protocol that it offers */
#endif
#define WIRE_COMPARES 1u /* feature: answers COPY_COMPARE, COPY_HASHES and COPY_RANGE */
#define WIRE_REQUIRED_MASK 0xffff0000u /* a feature bit up here that we do not know makes a node unfit for us */

#define WIRE_PROGRAM 32u            /* bytes of a program's version, with NUL */
#define WIRE_TEXT 400u              /* bytes of a sentence, with NUL */
#define WIRE_CONTROL_MAX 4096u      /* bytes of any frame but RECORDS and COPY */
#define WIRE_RECORDS_MAX 1024u      /* records in one frame */
#define WIRE_BATCH_BYTES (256u << 10) /* a sender closes a frame that holds this much */
#define WIRE_RECORDS_BYTES (WIRE_BATCH_BYTES + RECORD_LENGTH_MAX + RECORD_PAYLOAD_MAX + 4096u)
#define COPY_PLACES_MAX 64u
#define COPY_BLOCKS_MAX 256u /* asked for in one question */
#define COPY_RANGES_MAX 128u
#define COPY_RANGES_BYTES 2560u
#define WIRE_COPY_BYTES (COPY_BLOCKS_MAX * BATON_BLOCK + (64u << 10))

enum wire_type {
    WIRE_LOGIN = 1,    /* standby: feed me from here */
    WIRE_ANSWER = 2,   /* primary: yes, or a sentence why not */
    WIRE_BEAT = 3,     /* either: I live, this is where I am; with WIRE_ASK: say the same */
    WIRE_RECORDS = 4,  /* primary: records, and what is to be made durable */
    WIRE_ACK = 5,      /* standby: received, durable */
    WIRE_BYE = 6,      /* either: this session ends, and why */
    WIRE_SWITCH = 7,   /* primary: be the primary; the register says so */
    WIRE_SWITCHED = 8, /* the new primary: done, or a sentence; head.epoch: of the value that it was asked to take */
    WIRE_ASK_COPY = 9, /* any node, to build, mend or compare its store: rows, blocks or hashes of the other one's, please */
    WIRE_COPY = 10,    /* the answer */
    WIRE_TYPE_END
};

#define WIRE_ASK 1u   /* flag of BEAT */
#define WIRE_PROBE 2u /* flag of LOGIN and ANSWER: only whether the chain at that LSN is the same; no session */

enum wire_verdict {
    VERDICT_STREAM = 1,
    VERDICT_NOT_PRIMARY = 2, /* ask somebody else */
    VERDICT_DIVERGED = 3,    /* your history is no prefix of mine; `fork` says where mine parts at the latest */
    VERDICT_TRIMMED = 4,     /* my journal no longer reaches back to you */
    VERDICT_REFUSED = 5,     /* other reasons: protocol, volume, node */
    VERDICT_END
};

struct wire_head {
    uint32_t magic;
    uint8_t version_min, version_max;
    uint8_t type;
    uint8_t flags;
    uint32_t length; /* of the whole frame */
    uint32_t features;
    uint16_t node; /* the sender's number (config.h) */
    uint16_t reserved[3];
    uint8_t volume[16];
    uint64_t session; /* drawn by the standby for each login; 0: none */
    epoch_t epoch;    /* the newest that the sender knows; in RECORDS and ACK: the one that it works in */
    uint64_t checksum;
} __attribute__((packed));
#define WIRE_MAGIC 0x57544142u /* "BATW" */

struct wire_position {
    uint64_t lsn;
    epoch_t epoch; /* of the record at lsn */
    uint8_t chain[CHAIN_SIZE];
    uint64_t durable;
    uint64_t first; /* oldest record in the journal */
};

struct wire_login {
    uint8_t incarnation[16];
    struct wire_position position;
    uint64_t window; /* bytes that may be on their way to it */
};
struct wire_answer {
    uint32_t verdict;
    uint64_t from; /* STREAM: the first LSN that will come */
    struct wire_position position;
    uint64_t fork; /* DIVERGED: the histories part at or before this LSN, where the chain was: */
    uint8_t fork_chain[CHAIN_SIZE];
    char text[WIRE_TEXT];
};
#define BEAT_STAYS 1u /* a person wants this node to stay standby */
#define BEAT_BROKEN 16u /* its exports did not serve when it was primary */
#define BEAT_SICK 2u  /* its store makes no progress */
#define BEAT_LEAVES 4u /* it stops, or its disk hangs: it takes no role and logs in nowhere while it says this */
#define BEAT_UNSURE 8u /* it may have the register's value replaced by one of its own yet, and waits for a newer one */
struct wire_beat {
    uint32_t role; /* enum role */
    uint8_t incarnation[16];
    struct wire_position position;
    uint64_t hold; /* from the primary: every node that counts has this much durably */
    int64_t sent;  /* the sender's clock_boot() */
    struct register_value value;
    char program[WIRE_PROGRAM]; /* its version; empty: from before version 2 */
    uint32_t flags;             /* BEAT_…; 0: from before version 3 */
};
struct wire_ack {
    uint64_t received;
    uint64_t durable;
};
struct wire_text {
    uint32_t error; /* errno, 0: done */
    char text[WIRE_TEXT];
};
struct wire_switch {
    uint64_t lsn; /* the last record of the old primary */
    uint8_t chain[CHAIN_SIZE];
    struct register_value value;
};
struct wire_records {
    uint64_t first; /* LSN of the first record; without records: of the next one to come */
    uint32_t count;
    uint64_t want;  /* make this durable as soon as it is there */
    struct span bulk; /* walk with wire_record_next */
};

/* What may be asked of a provider (provide.c). Each question stands for itself and may be asked again. */
enum copy_kind {
    COPY_OPEN = 1,   /* keep the state at `lsn` for me; the answer says what it is */
    COPY_ROWS = 2,   /* rows of a table of that state, in the order of their keys */
    COPY_PLACES = 3, /* blocks by where they lie in your segments */
    COPY_DATA = 4,   /* blocks of a data id, by your present map */
    COPY_CLOSE = 5,  /* I am done with that state */
    COPY_COMPARE = 6, /* keep the state at `lsn`, of either role's, for comparing; another one than OPEN's */
    COPY_HASHES = 7,  /* of ranges of that state's rows */
    COPY_RANGE = 8,   /* the rows of one range of it, their places left out (fs/compare.h) */
    COPY_COMPARED = 9, /* I am done with that state */
    COPY_KIND_END
};
struct wire_ask_copy {
    uint64_t number; /* of the question; its answer carries it */
    uint32_t kind;   /* enum copy_kind */
    uint64_t lsn;    /* the state that is meant; 0 in OPEN: the newest */
    uint8_t chain[CHAIN_SIZE];
    uint8_t incarnation[16]; /* of the provider's store that is meant; zeros in OPEN, DATA and CLOSE: any */
    uint32_t table;          /* ROWS: from the first row behind this key on; length 0: from the first one */
    struct key after;
    uint32_t place_count; /* PLACES: COPY_BLOCKS_MAX blocks in all at most, none of them empty */
    struct place places[COPY_PLACES_MAX];
    uint64_t data, first; /* DATA: COPY_BLOCKS_MAX at most. ROWS, PLACES: `data` tells how many blocks are wanted still, as far as
                             the asker knows, plus 1; 0: it does not say */
    uint32_t count;
    struct span ranges; /* HASHES: COPY_RANGES_MAX at most; RANGE: one. Walk with wire_range_next */
};
struct wire_copy {
    uint64_t number;
    uint32_t kind;  /* of the question: says what `bulk` is */
    uint32_t error; /* errno, then only `text` counts; 0: done */
    char text[WIRE_TEXT];
    uint8_t incarnation[16]; /* of the provider's store */
    uint64_t lsn;            /* the state that the answer is from: OPEN, ROWS, CLOSE; else as asked */
    epoch_t epoch;
    uint8_t chain[CHAIN_SIZE];
    int64_t time; /* of the record at lsn */
    uint64_t rows[TABLE_SHARED_END]; /* OPEN: about how many there are */
    uint64_t blocks, inodes;         /* OPEN: about how many; blocks: of data, in the map */
    uint32_t table;
    bool done;        /* ROWS: no row of this table follows; RANGE: of this range */
    uint32_t count;   /* rows, items of blocks, or hashes, in bulk */
    struct span bulk; /* walk with wire_copy_row_next (ROWS, RANGE), wire_copy_blocks_next (PLACES, DATA), wire_copy_hash */
};

struct frame {
    struct wire_head head;
    union {
        struct wire_login login;
        struct wire_answer answer;
        struct wire_beat beat;
        struct wire_records records;
        struct wire_ack ack;
        struct wire_text bye, switched;
        struct wire_switch change;
        struct wire_ask_copy ask;
        struct wire_copy copy;
    };
};

/* Encodes any type but RECORDS and COPY. head: type, flags, node, volume, session and epoch are the caller's. The length. */
size_t wire_encode(struct frame *frame, uint8_t buffer[WIRE_CONTROL_MAX]);

/* 0; -EBADMSG; -EPROTO: no common protocol version, or it requires a feature that we do not have: of the frame only
 * head's volume, node, versions and features mean something then, and nobody has checked them. Spans point into `bytes`. */
int wire_decode(const void *bytes, size_t length, struct frame *frame);

/* The newest version that this program speaks. */
unsigned wire_version(void);
/* After -EPROTO: what does not fit, and what to do. */
void wire_why_unfit(const struct wire_head *head, char *why, size_t room);

/* RECORDS are made in place, in the message that will be sent: */
#define WIRE_RECORDS_HEAD (sizeof(struct wire_head) + 20u)
#define WIRE_RECORD_HEAD 8u /* before each record: length, payload length */
void wire_records_begin(uint8_t *buffer, size_t room, const struct frame *frame, size_t total);
/* Where the next record goes: returns its bytes' place, and the payload's behind it. */
uint8_t *wire_record_put(uint8_t *at, uint32_t length, uint32_t payload);

struct wire_record {
    struct span bytes;
    struct span payload;
};
/* 1, 0 at the end, -EBADMSG. */
int wire_record_next(const struct wire_records *records, uint32_t *at, struct wire_record *record);

/* COPY is made in place, too: rows or items from buffer + WIRE_COPY_HEAD on, then the head in front of them. An answer
 * with an error has a text and nothing else. */
#define WIRE_COPY_HEAD (sizeof(struct wire_head) + 72u + CHAIN_SIZE + 8u * (TABLE_SHARED_END + 2u))
#define WIRE_COPY_ROW_HEAD 6u    /* before each row: key length (2 bytes), value length */
#define WIRE_COPY_BLOCKS_HEAD 8u /* before each item: 0 or a negative errno, bytes */
/* Each puts one behind `at` and returns where the next one goes. The caller has seen to it that there is room. */
uint8_t *wire_copy_put_row(uint8_t *at, struct span key, struct span value);
uint8_t *wire_copy_put_blocks(uint8_t *at, int error, uint32_t bytes); /* the blocks are there already, or follow */
/* Writes the head; frame->copy.bulk.length says how much there is behind it. The length of all. */
size_t wire_copy_finish(uint8_t *buffer, struct frame *frame);

/* 1, 0 at the end, -EBADMSG. *at begins as 0. */
int wire_copy_row_next(const struct wire_copy *copy, uint32_t *at, struct span *key, struct span *value);
/* One item for each place asked for (PLACES) or each block (DATA), in their order. *error: 0 or a negative errno, then
 * there are no bytes. */
int wire_copy_blocks_next(const struct wire_copy *copy, uint32_t *at, int *error, struct span *blocks);

/* Hashes of the ranges that were asked for, in their order, of the first ones at least. */
struct wire_copy_hash {
    uint8_t hash[RANGE_HASH];
    uint32_t over; /* 1: it has more rows than are hashed at a time; there is no hash */
} __attribute__((packed));
struct wire_copy_hash wire_copy_hash(const struct wire_copy *copy, uint32_t which);

/* Ranges in a question: puts one behind the `used` bytes. What is used then, or 0: there is no room for it. */
uint32_t wire_range_put(uint8_t buffer[COPY_RANGES_BYTES], uint32_t used, const struct range *range);
/* 1, 0 at the end, -EBADMSG. *at begins as 0. */
int wire_range_next(const struct span *ranges, uint32_t *at, struct range *range);

const char *wire_type_name(uint8_t type);

#endif
