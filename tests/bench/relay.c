/* relay DELAY_US NAMESPACE_A NAMESPACE_B — a line with a delay between two network namespaces. Makes a device "line" in
 * each and carries packets between them, each DELAY_US after it came; what comes faster than it can be kept is dropped,
 * as a router does. Says "ready" when the devices are there, goes when it is ended, and they with it.
 *
 * Netem does this in kernels that have it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 16384u
#define PACKET 9100u

struct packet {
    int64_t due;
    ssize_t length;
    uint8_t bytes[PACKET];
};
struct way {
    int from, to;
    struct packet *ring;
    unsigned head, tail; /* read at head, written at tail */
    pthread_mutex_t lock;
    pthread_cond_t more;
};
static int64_t delay;

static void die(const char *what) {
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int device_in(const char *space) {
    char path[300];
    snprintf(path, sizeof path, "/run/netns/%s", space);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        die(path);
    close(fd);
    int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(request.ifr_name, sizeof request.ifr_name, "line");
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0)
        die("/dev/net/tun");
    return tun;
}

static void *take(void *argument) {
    struct way *way = argument;
    static _Thread_local uint8_t spill[PACKET];
    for (;;) {
        pthread_mutex_lock(&way->lock);
        int full = way->head - way->tail == SLOTS;
        pthread_mutex_unlock(&way->lock);
        struct packet *packet = &way->ring[way->head % SLOTS];
        ssize_t length = read(way->from, full ? spill : packet->bytes, PACKET);
        if (length <= 0 && errno != EINTR)
            die("read");
        if (length <= 0 || full)
            continue;
        packet->length = length;
        packet->due = now() + delay;
        pthread_mutex_lock(&way->lock);
        way->head++;
        pthread_cond_signal(&way->more);
        pthread_mutex_unlock(&way->lock);
    }
    return NULL;
}

static void *give(void *argument) {
    struct way *way = argument;
    for (;;) {
        pthread_mutex_lock(&way->lock);
        while (way->head == way->tail)
            pthread_cond_wait(&way->more, &way->lock);
        pthread_mutex_unlock(&way->lock);
        struct packet *packet = &way->ring[way->tail % SLOTS];
        struct timespec due = {packet->due / 1000000000, packet->due % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        if (write(way->to, packet->bytes, (size_t)packet->length) < 0 && errno != EIO && errno != EINVAL) /* device down */
            die("write");
        pthread_mutex_lock(&way->lock);
        way->tail++;
        pthread_mutex_unlock(&way->lock);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4 || (delay = atoll(argv[1]) * 1000) < 0) {
        fprintf(stderr, "usage: relay DELAY_US NAMESPACE_A NAMESPACE_B\n");
        return 2;
    }
    int a = device_in(argv[2]), b = device_in(argv[3]);
    struct way ways[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
    pthread_t threads[4];
    for (unsigned i = 0; i < 2; i++) {
        ways[i].ring = calloc(SLOTS, sizeof *ways[i].ring);
        if (!ways[i].ring)
            die("memory");
        pthread_mutex_init(&ways[i].lock, NULL);
        pthread_cond_init(&ways[i].more, NULL);
        if (pthread_create(&threads[2 * i], NULL, take, &ways[i]) || pthread_create(&threads[2 * i + 1], NULL, give, &ways[i]))
            die("threads");
    }
    puts("ready");
    fflush(stdout);
    pthread_join(threads[0], NULL);
    return 0;
}
