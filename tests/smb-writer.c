/* An SMB client for tests (libsmbclient) that writes for ever. It does what clients of SMB do when a connection breaks:
 * a new one, a new login, the file is opened again, and what was not answered is sent again. What it prints:
 * share_writer.h.
 *
 *   smb-writer SERVER SHARE SAFE-SHARE FILE MILLISECONDS
 *
 * Both shares are the same directory, in which it makes FILE. Odd records are written through SHARE, and are safe when
 * the file has been closed; even ones through SAFE-SHARE, whose option is sync=always: they are safe when the write is
 * answered, after the fsync that an SMB FLUSH makes. (libsmbclient has no call that sends a FLUSH.) The status of an
 * error is an errno. It is a guest. $SMB_CONF_PATH: Samba's smb.conf, which may be empty.
 */
#include "share_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <libsmbclient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SMB_PORT = 445 };

static const char *server;
static char url[2][1024]; // of the file: [0] closed after each write, [1] written through
static SMBCCTX *context;
static SMBCFILE *through;

static void credentials(SMBCCTX *c, const char *host, const char *share, char *group, int group_room, char *user,
                        int user_room, char *password, int password_room) {
    (void)c, (void)host, (void)share;
    snprintf(group, (size_t)group_room, "WORKGROUP");
    snprintf(user, (size_t)user_room, "nobody-of-here"); // a guest
    snprintf(password, (size_t)password_room, "%s", "");
}

static void leave(void) {
    if (context)
        smbc_free_context(context, 1);
    context = NULL;
    through = NULL;
}

/* What a client of SMB takes for a connection that is no more; it never tells its program before its patience is over.
 */
static bool is_broken(int error) {
    static const int broken[] = {ECONNRESET, ECONNABORTED, ECONNREFUSED, EPIPE,     ENOTCONN, ETIMEDOUT,
                                 ENETRESET,  ENETUNREACH,  EHOSTUNREACH, EHOSTDOWN, ENETDOWN, EAGAIN};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        if (error == broken[i])
            return true;
    return false;
}

/* 0 or an errno. */
static int reach(void) {
    if (context)
        return 0;
    if (!writer_reach(server, SMB_PORT))
        return ECONNREFUSED;
    if (!(context = smbc_new_context()))
        return ENOMEM;
    smbc_setFunctionAuthDataWithContext(context, credentials);
    smbc_setTimeout(context, WRITER_ANSWER_MS);
    smbc_setOptionUseKerberos(context, 0);
    smbc_setPort(context, SMB_PORT);
    return smbc_init_context(context) ? 0 : errno;
}

static SMBCFILE *open_file(unsigned which) {
    return smbc_getFunctionOpen(context)(context, url[which], O_RDWR | O_CREAT, 0644);
}
/* One try of each; 0 or an errno. */
static int write_to(SMBCFILE *file, uint64_t number, const char *record) {
    if (smbc_getFunctionLseek(context)(context, file, (off_t)(number * WRITER_RECORD), SEEK_SET) < 0)
        return errno;
    ssize_t length = smbc_getFunctionWrite(context)(context, file, record, WRITER_RECORD);
    return length == WRITER_RECORD ? 0 : length < 0 ? errno : EIO;
}
static int try_write(uint64_t number, char *record) {
    SMBCFILE *file = number % 2 ? open_file(0) : through;
    if (!file)
        return errno;
    int error = write_to(file, number, record);
    if (!error && file != through && smbc_getFunctionClose(context)(context, file) != 0)
        error = errno;
    return error;
}
static int try_read(uint64_t number, char *record) {
    if (smbc_getFunctionLseek(context)(context, through, (off_t)(number * WRITER_RECORD), SEEK_SET) < 0)
        return errno;
    ssize_t length = smbc_getFunctionRead(context)(context, through, record, WRITER_RECORD);
    return length == WRITER_RECORD ? 0 : length < 0 ? errno : EIO;
}

static bool until_answered(const char *what, int (*try)(uint64_t, char *), uint64_t number, char *record) {
    for (;; nanosleep(&(struct timespec){.tv_nsec = WRITER_AGAIN_MS * 1000000}, NULL)) {
        int error = reach();
        if (!error && !through && !(through = open_file(1)))
            error = errno;
        if (!error)
            error = try(number, record);
        if (!error)
            return true;
        leave();
        if (!is_broken(error))
            return writer_error(what, error);
    }
}
static bool write_one(uint64_t number, const char record[WRITER_RECORD]) {
    return until_answered("write", try_write, number, (char *)record);
}
static bool read_one(uint64_t number, char record[WRITER_RECORD]) {
    return until_answered("read", try_read, number, record);
}

int main(int argc, char **argv) {
    if (argc != 6 || atoi(argv[5]) <= 0)
        return fprintf(stderr, "usage: smb-writer SERVER SHARE SAFE-SHARE FILE MILLISECONDS\n"), 2;
    server = argv[1];
    for (unsigned i = 0; i < 2; i++)
        snprintf(url[i], sizeof url[i], "smb://%s/%s/%s", server, argv[2 + i], argv[4]);
    int status = writer_run(&(struct writer_ways){write_one, read_one}, atoi(argv[5]));
    leave();
    fflush(stdout);
    _exit(status); // the library leaves 116 bytes of each context behind, which a leak checker would report
}
