/* An iSCSI initiator for tests (libiscsi) that writes to a disk for ever, as Linux' does for a file system on it: when
 * the session breaks it logs in again and sends again what was not answered, and that alone. What it prints:
 * share_writer.h.
 *
 *   iscsi-writer iscsi://ADDRESS/TARGET/LUN MILLISECONDS
 *
 * Even records are written with FUA, odd ones without, then SYNCHRONIZE CACHE follows. A write that has been answered
 * is not sent again if the session breaks before the SYNCHRONIZE CACHE: no initiator does. The status of an error is
 * SCSI's, or for a CHECK CONDITION 1000000 + the sense key * 10000 + ASC and ASCQ.
 */
#include "share_writer.h"

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ISCSI_PORT = 3260, CHECKED = 1000000, KEY = 10000 };

struct answer {
    bool done;
    int status;
    int sense; // of a CHECK CONDITION: key * KEY + ASC, ASCQ
    char bytes[WRITER_RECORD];
    int length;
};

static struct iscsi_context *iscsi;
static struct iscsi_url *disk;
static const char *address;

static void answered(struct iscsi_context *context, int status, void *data, void *private) {
    struct answer *answer = private;
    struct scsi_task *task = data;
    (void)context;
    answer->done = true;
    answer->status = status;
    if (!task)
        return;
    if (status == SCSI_STATUS_CHECK_CONDITION)
        answer->sense = (int)task->sense.key * KEY + task->sense.ascq;
    answer->length = task->datain.size < WRITER_RECORD ? task->datain.size : WRITER_RECORD;
    if (answer->length > 0)
        memcpy(answer->bytes, task->datain.data, (size_t)answer->length);
    scsi_free_scsi_task(task);
}
static void connected(struct iscsi_context *context, int status, void *data, void *private) {
    struct answer *answer = private;
    (void)context, (void)data;
    answer->done = true;
    answer->status = status;
}

static void leave(void) {
    if (iscsi)
        iscsi_destroy_context(iscsi); // what is under way is called back, as cancelled
    iscsi = NULL;
}

/* False: no answer, or the session is broken. */
static bool serve(const struct answer *answer, int64_t milliseconds) {
    int64_t deadline = writer_now() + milliseconds * 1000000;
    while (!answer->done) {
        int64_t left = (deadline - writer_now()) / 1000000;
        struct pollfd wait = {.fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi)};
        if (left <= 0)
            return false;
        if (poll(&wait, 1, (int)(left < 100 ? left : 100)) < 0)
            wait.revents = 0;
        if (iscsi_service(iscsi, wait.revents) < 0)
            return false;
    }
    return answer->status != SCSI_STATUS_CANCELLED && answer->status != SCSI_STATUS_ERROR &&
           answer->status != SCSI_STATUS_TIMEOUT;
}

static bool reach(void) {
    struct answer answer = {0};
    if (!writer_reach(address, ISCSI_PORT) || !(iscsi = iscsi_create_context("iqn.2026-01.invalid.test:writer")))
        return false;
    iscsi_set_targetname(iscsi, disk->target);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_noautoreconnect(iscsi, 1);
    if (iscsi_full_connect_async(iscsi, disk->portal, disk->lun, connected, &answer) == 0 &&
        serve(&answer, WRITER_ANSWER_MS) && answer.status == SCSI_STATUS_GOOD)
        return true;
    leave();
    return false;
}

enum what { WRITE, WRITE_THROUGH, SYNCHRONIZE, READ };

static bool send(enum what what, uint64_t number, const char *record, struct answer *answer) {
    uint32_t block = (uint32_t)number;
    if (what == SYNCHRONIZE)
        return iscsi_synchronizecache10_task(iscsi, disk->lun, 0, 0, 0, 0, answered, answer);
    if (what == READ)
        return iscsi_read10_task(iscsi, disk->lun, block, WRITER_RECORD, WRITER_RECORD, 0, 0, 0, 0, 0, answered,
                                 answer);
    return iscsi_write10_task(iscsi, disk->lun, block, (unsigned char *)record, WRITER_RECORD, WRITER_RECORD, 0, 0,
                              what == WRITE_THROUGH, 0, 0, answered, answer);
}

static bool is_later(const struct answer *answer) {
    return answer->status == SCSI_STATUS_BUSY || answer->status == SCSI_STATUS_TASK_SET_FULL ||
           (answer->status == SCSI_STATUS_CHECK_CONDITION && answer->sense / KEY == SCSI_SENSE_UNIT_ATTENTION);
}

/* Until it is answered, with anything but "later". */
static bool ask(enum what what, uint64_t number, const char *record, struct answer *answer) {
    static const char *const names[] = {"write", "write-fua", "synchronize", "read"};
    for (;; nanosleep(&(struct timespec){.tv_nsec = WRITER_AGAIN_MS * 1000000}, NULL)) {
        *answer = (struct answer){0};
        if (!iscsi && !reach())
            continue;
        if (!send(what, number, record, answer) || !serve(answer, WRITER_ANSWER_MS))
            leave();
        else if (answer->status == SCSI_STATUS_GOOD)
            return true;
        else if (!is_later(answer))
            return writer_error(names[what], answer->sense ? CHECKED + answer->sense : answer->status);
    }
}

static bool write_one(uint64_t number, const char record[WRITER_RECORD]) {
    static struct answer answer;
    if (number % 2 == 0)
        return ask(WRITE_THROUGH, number, record, &answer);
    return ask(WRITE, number, record, &answer) && ask(SYNCHRONIZE, number, NULL, &answer);
}

static bool read_one(uint64_t number, char record[WRITER_RECORD]) {
    static struct answer answer;
    if (!ask(READ, number, NULL, &answer))
        return false;
    if (answer.length != WRITER_RECORD)
        return writer_error("read-short", answer.length);
    memcpy(record, answer.bytes, WRITER_RECORD);
    return true;
}

int main(int argc, char **argv) {
    struct iscsi_context *parser = iscsi_create_context("iqn.2026-01.invalid.test:writer");
    if (argc != 3 || atoi(argv[2]) <= 0 || !parser)
        return fprintf(stderr, "usage: iscsi-writer iscsi://ADDRESS/TARGET/LUN MILLISECONDS\n"), 2;
    if (!(disk = iscsi_parse_full_url(parser, argv[1])))
        return fprintf(stderr, "%s is no URL of a disk: %s\n", argv[1], iscsi_get_error(parser)), 2;
    address = strndup(disk->portal, strcspn(disk->portal, ":"));
    int status = writer_run(&(struct writer_ways){write_one, read_one}, atoi(argv[2]));
    leave();
    iscsi_destroy_url(disk);
    iscsi_destroy_context(parser);
    free((char *)address);
    return status;
}
