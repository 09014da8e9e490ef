/* Running a program under record.so, for tests that then cut its power. One thread. */
#ifndef BATON_POWERCUT_RUN_H
#define BATON_POWERCUT_RUN_H

#include <stdint.h>

/* Runs this test program again, recorded, with `arguments` (NULL at the end; the program's path is put before them).
 * `kill_at`: SIGKILL after so many events; `fail_sync`: that flush fails; 0: neither. Returns the exit status, or
 * 128 + the signal. Bails out of the test if record.so cannot be found. */
int recorded_run(const char *directory, const char *log, uint64_t kill_at, uint64_t fail_sync,
                 const char *const *arguments);

/* In the recorded program: a mark in the log; nothing when it is not recorded. */
void recorded_mark(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Empties and removes a directory tree made by model_write or by the program. */
void remove_tree(const char *path);

#endif
