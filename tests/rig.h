/* A volume of a single node for tests in C: its store, its config file and a real batond that mounts it, below
 * test_directory(), in one process. Needs root and /dev/fuse: without them the whole test is skipped. What is still running or mounted
 * at exit is ended and unmounted.
 */
#ifndef BATON_TESTS_RIG_H
#define BATON_TESTS_RIG_H

#include "tests/tap.h"

#include <sys/types.h>

#define RIG_MOUNT "mount"
#define RIG_STORE "store"

/* Formats the store. `settings`: lines for the [volume] section, may be "". */
void rig_create(const char *settings);
/* Other settings for the next start. RIG_REQUEST_LOOP in the environment is another one, unless they have it. */
void rig_settings(const char *settings);
/* Is FUSE over io_uring switched on in this kernel? If so, "request-loop = auto" uses it. */
bool rig_has_rings(void);
/* Starts batond and waits until it is ready; its log goes to `log` below the directory. False if it ended before.
 * `options`: more words for its command line, with single blanks between. */
bool rig_start(const char *options);
/* Sends the signal and waits for its end. Returns its wait status. */
int rig_stop(int signal_number);
bool rig_ended(int timeout_ms, int *status); /* has batond ended by itself? */
pid_t rig_pid(void);

/* "mount/NAME" below the directory, in one of several static buffers of this thread. */
const char *rig_path(const char *name);
/* A path below the directory, outside the mount. */
const char *rig_outside(const char *name);
/* Dentries, inodes and pages leave the kernel as far as they can. */
void rig_drop_caches(void);
/* Does the log contain the text? */
bool rig_logged(const char *text);
/* Waits until condition(context) holds; false after so many seconds. */
bool rig_until(int seconds, bool (*condition)(void *context), void *context);

#endif
