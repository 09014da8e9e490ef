/* Calls of the program that end here instead of in libc (Makefile.am: --wrap): outside of fibers they are libc's. */
#include "tests/simulator/sim.h"
#include "tests/simulator/wraps.h"

#include <stdio.h>

/* ---- Clock ---- */

#define START_OF_TIME (1700000000ll * 1000000000)

int __wrap_clock_gettime(clockid_t clock, struct timespec *time) {
    if (!sim_in_fiber())
        return __real_clock_gettime(clock, time);
    int64_t now = clock == CLOCK_REALTIME ? sim_now() + START_OF_TIME : clock_of(sim_node_here(), clock == CLOCK_MONOTONIC);
    *time = (struct timespec){.tv_sec = now / 1000000000, .tv_nsec = now % 1000000000};
    return 0;
}

int __wrap_usleep(useconds_t us) {
    if (!sim_in_fiber())
        return __real_usleep(us);
    sim_sleep(us * US);
    return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t length, unsigned flags) {
    if (!sim_in_fiber())
        return __real_getrandom(buffer, length, flags);
    for (size_t done = 0; done < length; done += 8) {
        uint64_t value = sim_random();
        memcpy((uint8_t *)buffer + done, &value, MIN(length - done, sizeof value));
    }
    return (ssize_t)length;
}

/* ---- The talker's descriptor ---- */

int __wrap_eventfd(unsigned count, int flags) {
    return sim_in_fiber() ? wake_open() : __real_eventfd(count, flags);
}

ssize_t __wrap_read(int fd, void *buffer, size_t length) {
    if (!wake_is(fd))
        return __real_read(fd, buffer, length);
    wake_read(fd);
    return (ssize_t)length;
}

ssize_t __wrap_write(int fd, const void *buffer, size_t length) {
    if (!wake_is(fd))
        return __real_write(fd, buffer, length);
    wake_write(fd);
    return (ssize_t)length;
}

int __wrap_close(int fd) {
    if (fd >= SIM_LOCK)
        return 0;
    if (!wake_is(fd))
        return __real_close(fd);
    wake_close(fd);
    return 0;
}

/* ---- Memory ---- */

void *__wrap_malloc(size_t size) {
    return sim_in_fiber() ? sim_alloc(size) : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    size_t bytes;
    if (!sim_in_fiber())
        return __real_calloc(count, size);
    return MUL_OVERFLOWS(count, size, &bytes) ? NULL : sim_alloc(bytes);
}

void *__wrap_realloc(void *memory, size_t size) {
    if (!sim_in_fiber() || (memory && !sim_owns(memory)))
        return __real_realloc(memory, size);
    void *larger = sim_alloc(size);
    if (memory) {
        memcpy(larger, memory, MIN(size, sim_size(memory)));
        sim_free(memory);
    }
    return larger;
}

void __wrap_free(void *memory) {
    if (sim_owns(memory))
        sim_free(memory);
    else
        __real_free(memory);
}

/* ---- What the code says ---- */

void __wrap_log_write(enum log_level level, const char *format, ...) {
    (void)level;
    va_list arguments;
    va_start(arguments, format);
    sim_trace_list(format, arguments);
    va_end(arguments);
}

void __wrap_broken_promise(const char *file, int line, const char *what) {
    sim_fail("a broken promise at %s:%d: \"%s\"", file, line, what);
}
