#include "share_writer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_EVERY = 10, STEP = 7919 }; // a prime: older records are read in no order

static volatile sig_atomic_t ending;
static uint64_t current;

static void on_term(int signal) {
    (void)signal;
    ending = 1;
    alarm(WRITER_END_SECONDS);
}

int64_t writer_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

bool writer_error(const char *what, int status) {
    printf("error %" PRIu64 " %s %d\n", current, what, status);
    return false;
}

bool writer_reach(const char *address, uint16_t port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
    socklen_t length = sizeof error;
    if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return false;
    bool there = connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    if (!there && errno == EINPROGRESS)
        there = poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, WRITER_CONNECT_MS) == 1 &&
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
    close(fd);
    return there;
}

static void fill(char record[WRITER_RECORD + 1], uint64_t number) {
    snprintf(record, WRITER_RECORD + 1, "%-*" PRIu64 "\n", WRITER_RECORD - 1, number);
}

static void read_back(const struct writer_ways *ways, uint64_t number) {
    char wanted[WRITER_RECORD + 1], seen[WRITER_RECORD];
    fill(wanted, number);
    if (ways->read(number, seen) && memcmp(seen, wanted, WRITER_RECORD) != 0)
        printf("wrong %" PRIu64 "\n", number);
}

int writer_run(const struct writer_ways *ways, int milliseconds) {
    char record[WRITER_RECORD + 1];
    int64_t every = milliseconds * INT64_C(1000000);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term}, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; !ending; current++) {
        int64_t begin = writer_now();
        fill(record, current);
        if (ways->write(current, record))
            printf("ack %" PRIu64 " %" PRId64 " %" PRId64 "\n", current, begin, writer_now());
        if (current % READ_EVERY == 0) {
            read_back(ways, current);
            read_back(ways, current * STEP % (current + 1));
        }
        int64_t left = begin + every - writer_now();
        if (left > 0)
            nanosleep(&(struct timespec){.tv_nsec = left % 1000000000, .tv_sec = left / 1000000000}, NULL);
    }
    return 0;
}
