/* TAP for test programs in C: call plan_lazy() first, then ok() and its kin; the plan is printed at exit.
 *
 * Expected values come first. A description is a format and may be NULL. Any thread may call anything here. A test
 * that hangs is ended: after BATON_TEST_TIMEOUT seconds (600) it bails out.
 */
#ifndef BATON_TESTS_TAP_H
#define BATON_TESTS_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAP_FORMAT(at) __attribute__((format(printf, at, at + 1)))

/* Once in a program and in all that it forks, whoever calls it how often: the process that is first prints the plan. */
void plan_lazy(void);
/* The whole program is skipped: prints why and exits with 0. */
void skip_all(const char *format, ...) TAP_FORMAT(1) __attribute__((noreturn));

/* Each returns whether the test passed. A failure prints file and line of the check, what was expected and what was
 * seen. */
#define ok(success, ...) tap_ok((success), __FILE__, __LINE__, __VA_ARGS__)
#define is_int(expected, seen, ...) tap_is_int((int64_t)(expected), (int64_t)(seen), __FILE__, __LINE__, __VA_ARGS__)
#define is_string(expected, seen, ...) tap_is_string((expected), (seen), __FILE__, __LINE__, __VA_ARGS__)
#define is_blob(expected, seen, length, ...) \
    tap_is_blob((expected), (seen), (length), __FILE__, __LINE__, __VA_ARGS__)
bool tap_ok(bool success, const char *file, int line, const char *format, ...) TAP_FORMAT(4);
bool tap_is_int(int64_t expected, int64_t seen, const char *file, int line, const char *format, ...) TAP_FORMAT(5);
bool tap_is_string(const char *expected, const char *seen, const char *file, int line, const char *format, ...)
    TAP_FORMAT(5);
bool tap_is_blob(const void *expected, const void *seen, size_t length, const char *file, int line,
                 const char *format, ...) TAP_FORMAT(6);

/* Counts as `count` tests that were skipped, with the reason. */
void skip(unsigned count, const char *format, ...) TAP_FORMAT(2);
/* Ends the test program: nothing more can be tested. */
void bail(const char *format, ...) TAP_FORMAT(1) __attribute__((noreturn));
void diag(const char *format, ...) TAP_FORMAT(1);

/* A fresh directory for this program (under TMPDIR or /tmp), the same at every call. Removed with all that is in it at
 * exit, at SIGINT, SIGTERM, SIGHUP and SIGABRT, and after a timeout; kept if BATON_TEST_KEEP is set. Children that the
 * test forks do not remove it. */
const char *test_directory(void);

/* Called first at a signal that ends the program: ends and undoes what would outlive it. Calls what may be called in a signal
 * handler, and no more. */
void test_at_signal(void (*end)(void));

/* The seed of this run: BATON_SEED if that is set, else a new one. Printed, so that a failure can be had again. */
uint64_t test_seed(void);
/* The next number of a sequence made from *state (splitmix64): random enough for tests, the same everywhere. */
uint64_t test_random(uint64_t *state);

#endif
