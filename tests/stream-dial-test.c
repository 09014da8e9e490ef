/* A standby that has no descriptors left for its connections tries again after a while, says so once, and goes on when it can. */
#include "replication/parts.h"
#include "tests/pair.h"
#include "tests/tap.h"

#include <stdarg.h>
#include <stdio.h>

static atomic_bool lacking;
static atomic_uint tried, said;

void *__real_zmq_socket(void *context, int type);
void *__wrap_zmq_socket(void *context, int type);
void *__wrap_zmq_socket(void *context, int type) {
    if (!atomic_load(&lacking) || type != ZMQ_DEALER)
        return __real_zmq_socket(context, type);
    atomic_fetch_add(&tried, 1);
    errno = EMFILE;
    return NULL;
}

void __wrap_log_write(enum log_level level, const char *format, ...);
void __wrap_log_write(enum log_level level, const char *format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "# %d %s\n", level, text);
    if (strstr(text, "cannot be dialled"))
        atomic_fetch_add(&said, 1);
}

int main(void) {
    static struct pair pair;
    char trouble[WIRE_TEXT] = "";
    plan_lazy();
    pair_make(&pair, TRANSPORT_CLEAR);
    pair_start(&pair, 0);
    pair_start(&pair, 1);
    ok(pair_wait_link(&pair, 1, "working", 60), "b is in sync");
    struct replicator *b = atomic_load(&pair.nodes[1].replicator);

    atomic_store(&lacking, true);
    int64_t begin = clock_boot(), deadline = begin + 60000 * MS;
    repl_lock(b);
    follow_end(&b->follow, clock_boot(), "a test");
    standby_kick(b);
    repl_unlock(b);
    while (atomic_load(&tried) < 4 && clock_boot() < deadline)
        usleep(1000);
    ok(atomic_load(&tried) >= 4, "b tries to dial again and again");
    ok(clock_boot() - begin > 2000 * MS, "a second after each failure at the earliest");
    is_int(1, atomic_load(&said), "the log says once that it cannot");
    repl_lock(b);
    snprintf(trouble, sizeof trouble, "%s", b->trouble);
    repl_unlock(b);
    ok(strstr(trouble, "node a cannot be dialled: Too many open files"), "status says why: %s", trouble);

    atomic_store(&lacking, false);
    repl_lock(b);
    for (deadline = clock_boot() + 60000 * MS; b->trouble[0] && clock_boot() < deadline;)
        repl_wait(b, &b->news, clock_boot() + 10 * MS);
    is_string("", b->trouble, "when it can it has no trouble any more");
    repl_unlock(b);
    ok(pair_wait_link(&pair, 0, "working", 60), "b is in sync");
    ok(pair_create_file(&pair, 0, "file", NULL) == 0 && pair_wait_equal(&pair, 60), "it is fed");
    pair_stop(&pair, 1);
    pair_stop(&pair, 0);
    return 0;
}
