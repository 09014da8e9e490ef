/* What the clients for tests share that write to a share of a volume for ever (nfs-writer, smb-writer, iscsi-writer): a
 * record every so many milliseconds, number N at N * WRITER_RECORD, each until its protocol says that it is safe. Every
 * tenth time that record and an older one are read back. A line of output for each that was acknowledged, and for
 * whatever a program that uses the share would have noticed:
 *
 *   ack N BEGIN END          nanoseconds, CLOCK_BOOTTIME
 *   error N WHAT STATUS      an answer of the protocol's that does not mean "later"; what broke is tried again
 *   wrong N                  an acknowledged record reads otherwise
 *
 * SIGTERM: what is under way is finished first, if it is within WRITER_END_SECONDS.
 */
#ifndef TESTS_SHARE_WRITER_H
#define TESTS_SHARE_WRITER_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WRITER_RECORD = 512,      // also a block of a disk
    WRITER_CONNECT_MS = 1000, // a connection that is not there by then is tried anew
    WRITER_ANSWER_MS = 20000, // the same for an answer
    WRITER_AGAIN_MS = 10,
    WRITER_END_SECONDS = 30
};

/* A protocol. Both try again until they have been answered, and return false for an error, when they have told it. */
struct writer_ways {
    /* Returns when it is safe, as the protocol means it. */
    bool (*write)(uint64_t number, const char record[WRITER_RECORD]);
    bool (*read)(uint64_t number, char record[WRITER_RECORD]);
};

/* For main: until SIGTERM. The program's exit status. */
int writer_run(const struct writer_ways *ways, int milliseconds);
/* The line about an error; before the first record its number is 0. Returns false. */
bool writer_error(const char *what, int status);
/* Whether somebody accepts a connection at this IPv4 address, within WRITER_CONNECT_MS: for libraries that wait longer.
 */
bool writer_reach(const char *address, uint16_t port);
int64_t writer_now(void); // ns, CLOCK_BOOTTIME

#endif
