/* The control socket: what a tool, or somebody who is no tool, sends to batond. A real socket, the real commands, a
 * volume of one node without a mount.
 *
 * An input: a byte of flags, then the bytes that are sent. PATIENT: the sender takes the answers before it hangs up.
 */
#include "fs/control.h"
#include "fs/scrub.h"
#include "fs/tree_wire.h"
#include "fs/volume.h"
#include "replication/replicator.h"
#include "replication/verify.h"
#include "tests/fuzz/fuzz.h"

#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/sockios.h>

#define PATIENT 1u
#define PATIENCE_MS 2000
#define ANSWER_MS 20000

static struct volume volume;
static struct control *control;

static void start(void) {
    struct store_options options = fuzz_options();
    struct scrub_options scrub = {.rate = 1u << 30};
    char why[600] = "";
    volume.config.node_count = 1;
    strcpy(volume.config.volume, "fuzz");
    strcpy(volume.config.nodes[0].name, "a");
    volume.config.nodes[0].number = 7;
    snprintf(volume.config.nodes[0].store, sizeof volume.config.nodes[0].store, "%s/control", fuzz_directory());
    volume.self = &volume.config.nodes[0];
    image_write(fuzz_template(), volume.self->store);
    PROMISE(store_open(volume.self->store, fuzz_volume, &options, &volume.store, why, sizeof why) == 0);
    volume.park = park_create();
    volume.local = park_create();
    volume_watch(&volume);
    PROMISE(volume.park && volume.local && scrub_open(volume.store, &scrub, &volume.scrub) == 0);
    control_status();
    control_journal();
    control_history();
    control_scrub();
    replicator_control();
    verify_control();
    PROMISE(control_start(&volume, &control, why, sizeof why) == 0);
}

static bool any, errors;

static ssize_t take(int fd) {
    static char bytes[1u << 16];
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    any = any || n > 0;
    errors = errors || (n > 0 && memmem(bytes, (size_t)n, "\"error\"", 7));
    return n;
}

static bool readable(int fd, int ms) {
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    int count;
    while ((count = poll(&poller, 1, ms)) < 0)
        PROMISE(errno == EINTR); /* the fuzzer's own timer */
    return count == 1;
}

/* Until nothing comes any more: all has been taken, and answered. A whole line is, but for what follows the journal. */
static void wait_for_quiet(int fd, bool line) {
    int left = 1;
    if (line)
        readable(fd, PATIENCE_MS);
    for (unsigned i = 0; i < 400; i++) {
        if (readable(fd, 5)) {
            if (take(fd) <= 0)
                return;
        } else if (ioctl(fd, SIOCOUTQ, &left) == 0 && left == 0) {
            return;
        }
    }
}

static bool one(const uint8_t *bytes, size_t length) {
    int fd = -1;
    if (length == 0)
        return false;
    any = errors = false;
    PROMISE(control_connect(volume.self->store, &fd) == 0);
    bool sent = send(fd, bytes + 1, length - 1, MSG_NOSIGNAL) == (ssize_t)length - 1;
    if (bytes[0] & PATIENT)
        wait_for_quiet(fd, memchr(bytes + 1, '\n', length - 1));
    shutdown(fd, SHUT_WR);
    for (ssize_t n = 1; n > 0;) {
        FUZZ_MUST(readable(fd, ANSWER_MS)); /* it answers, and hangs up */
        n = take(fd);
    }
    close(fd);
    return sent && any && !errors;
}

static void give(const char *name, const char *text, const void *behind, size_t length) {
    uint8_t seed[1000] = {PATIENT};
    size_t used = 1 + (size_t)snprintf((char *)seed + 1, 500, "%s\n", text);
    if (length)
        memcpy(seed + used, behind, length);
    fuzz_give(name, seed, used + length);
}

static void seeds(void) {
    const struct tree_question questions[] = {
        {.kind = TREE_LIST, .ino = 1},   {.kind = TREE_TARGET, .ino = 1}, {.kind = TREE_DATA, .ino = (1ull << 40) + 6},
        {.kind = TREE_LOOK, .ino = 1},   {.kind = TREE_XATTR, .ino = 1},  {.kind = TREE_REMOVED},
    };
    give("status", "{\"command\":\"status\"}", NULL, 0);
    give("list", "{\"command\":\"journal\",\"action\":\"list\",\"path\":\"folder\",\"last\":5,\"type\":\"write\"}", NULL, 0);
    give("show", "{\"command\":\"journal\",\"action\":\"show\",\"lsn\":3}", NULL, 0);
    give("verify", "{\"command\":\"journal\",\"action\":\"verify\",\"from\":2,\"to\":9,\"data\":false}", NULL, 0);
    give("stat", "{\"command\":\"journal\",\"action\":\"stat\"}", NULL, 0);
    give("follow", "{\"command\":\"journal\",\"action\":\"follow\",\"last\":2}", NULL, 0);
    give("scrub", "{\"command\":\"scrub\",\"action\":\"status\"}", NULL, 0);
    give("history", "{\"command\":\"history\",\"lsn\":9}", questions, sizeof questions);
}

const struct fuzz_harness fuzz_control = {.name = "control", .start = start, .one = one, .seeds = seeds};
