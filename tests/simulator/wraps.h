/* The linker's names: __wrap_X is called where the program calls X, __real_X is the one that it would have been. */
#ifndef BATON_TESTS_SIMULATOR_WRAPS_H
#define BATON_TESTS_SIMULATOR_WRAPS_H

#include "fs/base.h"

#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#define WRAP(type, name, ...) \
    type __wrap_##name(__VA_ARGS__); \
    type __real_##name(__VA_ARGS__)

WRAP(int, clock_gettime, clockid_t clock, struct timespec *time);
WRAP(int, usleep, useconds_t us);
WRAP(ssize_t, getrandom, void *buffer, size_t length, unsigned flags);
WRAP(int, eventfd, unsigned count, int flags);
WRAP(ssize_t, read, int fd, void *buffer, size_t length);
WRAP(ssize_t, write, int fd, const void *buffer, size_t length);
WRAP(int, close, int fd);
WRAP(void *, malloc, size_t size);
WRAP(void *, calloc, size_t count, size_t size);
WRAP(void *, realloc, void *memory, size_t size);
WRAP(void, free, void *memory);
void __wrap_log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void __wrap_broken_promise(const char *file, int line, const char *what) __attribute__((noreturn));

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
WRAP(int, pthread_join, pthread_t thread, void **result);
WRAP(int, pthread_setname_np, pthread_t thread, const char *name);
WRAP(int, pthread_mutex_init, pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
WRAP(int, pthread_mutex_destroy, pthread_mutex_t *mutex);
WRAP(int, pthread_mutex_lock, pthread_mutex_t *mutex);
WRAP(int, pthread_mutex_trylock, pthread_mutex_t *mutex);
WRAP(int, pthread_mutex_unlock, pthread_mutex_t *mutex);
WRAP(int, pthread_cond_init, pthread_cond_t *cond, const pthread_condattr_t *attributes);
WRAP(int, pthread_cond_destroy, pthread_cond_t *cond);
WRAP(int, pthread_cond_wait, pthread_cond_t *cond, pthread_mutex_t *mutex);
WRAP(int, pthread_cond_timedwait, pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until);
WRAP(int, pthread_cond_signal, pthread_cond_t *cond);
WRAP(int, pthread_cond_broadcast, pthread_cond_t *cond);

#endif
