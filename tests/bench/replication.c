/* What replication costs, without a mount: two nodes in this process, real stores in TMPDIR, the loopback between.
 *
 * For both transports: ZeroMQ's own round trip (a ROUTER and a DEALER that echo 200 bytes); create → acknowledged, one
 * thread and four; 4 KiB write → on both disks; 1 MiB writes, until both have them.
 */
#include "tests/pair.h"
#include "tests/tap.h"

#include <pthread.h>
#include <stdio.h>
#include <zmq.h>

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *what, int64_t *times, unsigned count) {
    qsort(times, count, sizeof *times, compare);
    int64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += times[i];
    printf("  %-44s median %6.1f µs   mean %6.1f µs   99 %% %7.1f µs\n", what, (double)times[count / 2] / 1e3,
           (double)sum / count / 1e3, (double)times[count * 99 / 100] / 1e3);
    fflush(stdout);
}

/* ---- ZeroMQ's floor --------------------------------------------------------------------------------------------------- */

static void *echo(void *socket) {
    for (;;) {
        zmq_msg_t route, body;
        zmq_msg_init(&route);
        zmq_msg_init(&body);
        if (zmq_msg_recv(&route, socket, 0) < 0 || zmq_msg_recv(&body, socket, 0) < 0)
            break;
        bool last = zmq_msg_size(&body) == 1;
        zmq_msg_send(&route, socket, ZMQ_SNDMORE);
        zmq_msg_send(&body, socket, 0);
        if (last)
            break;
    }
    return NULL;
}

static void zmq_floor(bool curve) {
    void *context = zmq_ctx_new(), *server = zmq_socket(context, ZMQ_ROUTER), *client = zmq_socket(context, ZMQ_DEALER);
    char public_key[41], secret_key[41], endpoint[100];
    size_t size = sizeof endpoint;
    zmq_curve_keypair(public_key, secret_key);
    if (curve) {
        int one = 1;
        zmq_setsockopt(server, ZMQ_CURVE_SERVER, &one, sizeof one);
        zmq_setsockopt(server, ZMQ_CURVE_SECRETKEY, secret_key, 41);
        zmq_setsockopt(client, ZMQ_CURVE_SERVERKEY, public_key, 41);
        zmq_setsockopt(client, ZMQ_CURVE_PUBLICKEY, public_key, 41);
        zmq_setsockopt(client, ZMQ_CURVE_SECRETKEY, secret_key, 41);
    }
    zmq_bind(server, "tcp://127.0.0.1:*");
    zmq_getsockopt(server, ZMQ_LAST_ENDPOINT, endpoint, &size);
    zmq_connect(client, endpoint);
    pthread_t thread;
    pthread_create(&thread, NULL, echo, server);
    enum { COUNT = 10000 };
    static int64_t times[COUNT];
    char bytes[200] = "x";
    for (unsigned i = 0; i < COUNT; i++) {
        int64_t before = clock_boot();
        zmq_send(client, bytes, sizeof bytes, 0);
        zmq_recv(client, bytes, sizeof bytes, 0);
        times[i] = clock_boot() - before;
    }
    zmq_send(client, bytes, 1, 0);
    zmq_recv(client, bytes, sizeof bytes, 0);
    pthread_join(thread, NULL);
    zmq_close(client);
    zmq_close(server);
    zmq_ctx_term(context);
    report("ZeroMQ: there and back", times, COUNT);
}

/* ---- Replication ------------------------------------------------------------------------------------------------------ */

static struct pair *pair;

static void creates(void) {
    enum { COUNT = 20000 };
    static int64_t times[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "one-%u", i);
        int64_t before = clock_boot();
        if (pair_create_file(pair, 0, name, NULL))
            bail("create");
        times[i] = clock_boot() - before;
    }
    report("create, acknowledged, one thread", times, COUNT);
}

static void *creates_of_four(void *argument) {
    for (unsigned i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "four-%c-%u", *(char *)argument, i);
        if (pair_create_file(pair, 0, name, NULL))
            bail("create");
    }
    return NULL;
}

static void creates_by_four(void) {
    pthread_t threads[4];
    int64_t before = clock_boot();
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, creates_of_four, &"abcd"[i]);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("  %-44s %.0f a second\n", "create, acknowledged, four threads", 80000 / ((double)(clock_boot() - before) / 1e9));
}

static void small_syncs(uint64_t ino) {
    enum { COUNT = 2000 };
    static int64_t times[COUNT];
    char data[4096] = "x";
    for (unsigned i = 0; i < COUNT; i++) {
        uint64_t lsn;
        int64_t before = clock_boot();
        if (op_write(pair->nodes[0].store, ino, data, sizeof data, i * 4096ull, 0, &lsn) ||
            pair_wait_for(pair, 0, WAIT_FSYNC, lsn, 20))
            bail("write");
        times[i] = clock_boot() - before;
    }
    report("4 KiB write, on both disks", times, COUNT);
}

static void stream(uint64_t ino) {
    enum { MIB = 1024 };
    char *data = malloc(1 << 20);
    memset(data, 'x', 1 << 20);
    uint64_t lsn = 0;
    int64_t before = clock_boot();
    for (unsigned i = 0; i < MIB; i++)
        if (op_write(pair->nodes[0].store, ino, data, 1 << 20, (uint64_t)i << 20, 0, &lsn) ||
            pair_wait_for(pair, 0, WAIT_WRITE, lsn, 60))
            bail("write");
    double written = (double)(clock_boot() - before) / 1e9;
    if (pair_wait_for(pair, 0, WAIT_CLOSE, lsn, 60))
        bail("not received");
    double received = (double)(clock_boot() - before) / 1e9;
    if (pair_wait_for(pair, 0, WAIT_FSYNC, lsn, 60))
        bail("not durable");
    printf("  %-44s written %.0f MiB/s, received %.0f MiB/s, on both disks %.0f MiB/s\n", "1 MiB writes, 1 GiB",
           MIB / written, MIB / received, MIB / ((double)(clock_boot() - before) / 1e9));
    free(data);
}

static void measure(enum transport transport) {
    printf("transport = %s\n", transport == TRANSPORT_CURVE ? "curve" : "clear");
    zmq_floor(transport == TRANSPORT_CURVE);
    pair = calloc(1, sizeof *pair);
    pair_make(pair, transport);
    pair_start(pair, 0);
    pair_start(pair, 1);
    if (!pair_wait_link(pair, 0, "working", 20))
        bail("not in sync");
    uint64_t ino;
    creates();
    creates_by_four();
    pair_create_file(pair, 0, "data", &ino);
    small_syncs(ino);
    stream(ino);
    pair_wait_equal(pair, 60);
    pair_stop(pair, 0);
    pair_stop(pair, 1);
    free(pair);
}

int main(void) {
    measure(TRANSPORT_CLEAR);
    measure(TRANSPORT_CURVE);
    return 0;
}
