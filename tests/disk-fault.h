/* A disk that fails, for tests: with this in it a program defines libc's reading, writing and flushing of files itself,
 * and asks a function of the test before each call (liblmdb's calls come by here too; what it maps does not). */
#ifndef BATON_TESTS_DISK_FAULT_H
#define BATON_TESTS_DISK_FAULT_H

#include <stddef.h>

enum disk_call { DISK_READ, DISK_WRITE, DISK_SYNC };

/* Any thread. `path` is the file's; `length` bytes are to be read or written. 0: the call is made; an errno: it fails with
 * that. What the function itself does with files is not asked about. NULL: all is well. */
typedef int disk_fault_fn(enum disk_call call, const char *path, size_t length);
void disk_fault_set(disk_fault_fn *fn);

#endif
