#include "replication/awake.h"

#include <fcntl.h>
#include <unistd.h>

#define DEVICE "/dev/cpu_dma_latency"

void awake_start(struct awake *awake) {
    *awake = (struct awake){.fd = -1};
}

void awake_stop(struct awake *awake) {
    if (awake->fd >= 0)
        close(awake->fd); /* the request lives as long as the descriptor */
    awake->fd = -1;
}

static void ask(struct awake *awake) {
    int32_t microseconds = 0;
    awake->fd = open(DEVICE, O_WRONLY | O_CLOEXEC);
    if (awake->fd >= 0 && write(awake->fd, &microseconds, sizeof microseconds) == sizeof microseconds)
        return;
    log_info("processors may fall asleep between two steps of an operation, which makes it slower: %s: %s", DEVICE,
             strerror(errno));
    awake_stop(awake);
    awake->given_up = true;
}

bool awake_tick(struct awake *awake, uint64_t work, int64_t now) {
    /* Shorter than this a rate says little: whoever kicks the ticking thread makes it tick early. */
    if (awake->given_up || now - awake->last_at < 10 * 1000000)
        return awake->fd >= 0;
    uint64_t since = work > awake->last ? work - awake->last : 0; /* after a rollback there are fewer */
    bool busy = awake->last_at > 0 && since >= (uint64_t)(now - awake->last_at) / (1000000000 / AWAKE_RATE);
    awake->last = work;
    awake->last_at = now;
    awake->calm = busy ? 0 : MIN(awake->calm + 1, AWAKE_CALM);
    if (busy && since > 0 && awake->fd < 0)
        ask(awake);
    else if (awake->calm >= AWAKE_CALM)
        awake_stop(awake);
    return awake->fd >= 0;
}
