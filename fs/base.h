/* Small things that every part uses: logging, byte order, checked sums, cleanup by attribute.
 *
 * Any thread may call anything here.
 */
#ifndef BATON_FS_BASE_H
#define BATON_FS_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATON_BLOCK 4096u /* bytes of a data block */
#define BATON_NAME_MAX 255u
#define BATON_LINK_MAX 65000u
#define BATON_XATTR_VALUE_MAX 65536u
#define BATON_SYMLINK_MAX 4095u

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* One sentence for a person on standard error: "batond[volume.node]: sentence". The prefix is set once by
 * log_identify(); debug lines appear only after log_verbose(true). After log_never_waits() a line for which a pipe, socket or
 * terminal has no room now is lost, and counted in the next one that is written: for daemons, which log under locks that others
 * need in time. A file's line waits as the file system does. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_identify(const char *prefix);
void log_verbose(bool on);
void log_never_waits(void);
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* A broken promise of our own: says what, and aborts. */
void broken_promise(const char *file, int line, const char *what) __attribute__((noreturn));
#define PROMISE(condition) \
    do { \
        if (!(condition)) \
            broken_promise(__FILE__, __LINE__, #condition); \
    } while (0)

/* Big-endian keys sort as numbers. */
static inline void be64_put(uint8_t *to, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof value);
}
static inline uint64_t be64_get(const uint8_t *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap64(value);
}
static inline void be32_put(uint8_t *to, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof value);
}
static inline uint32_t be32_get(const uint8_t *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap32(value);
}

/* True when the sum overflows; *sum is then undefined. */
#define ADD_OVERFLOWS(a, b, sum) __builtin_add_overflow((a), (b), (sum))
#define MUL_OVERFLOWS(a, b, product) __builtin_mul_overflow((a), (b), (product))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

void cleanup_free(void *pointer);
void cleanup_close(int *descriptor);
#define AUTO_FREE __attribute__((cleanup(cleanup_free)))
#define AUTO_CLOSE __attribute__((cleanup(cleanup_close)))

/* Nanoseconds. clock_now(): CLOCK_REALTIME, for times in inodes and records. clock_boot(): CLOCK_BOOTTIME, for waits. */
int64_t clock_now(void);
int64_t clock_boot(void);

/* read/write until all is done. 0 or a negative errno; a short read is -EIO ("file ends here"). */
int pread_all(int fd, void *buffer, size_t length, uint64_t offset);
int pwrite_all(int fd, const void *buffer, size_t length, uint64_t offset);

/* fsync of the directory that holds a new or removed name. */
int fsync_dir(const char *path);

#endif
