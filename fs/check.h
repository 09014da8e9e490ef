/* baton check: is a store at rest whole? Looks at tables, map, segments, journal, tail and checkpoint and says every
 * contradiction in a sentence with what it means. Changes nothing but LMDB's meta pages, as every open does, and those
 * only if the last process did not end in order.
 *
 * liblmdb dies on damaged pages, so all of it runs in a child process, whose death is a finding. The calling process
 * should have one thread.
 */
#ifndef BATON_FS_CHECK_H
#define BATON_FS_CHECK_H

#include "fs/base.h"

#define CHECK_DATA 1u /* reads every block of the map too and compares it with its checksum */

/* Calls `finding` with each one. The number of findings; 0: the store is whole; or a negative errno, with one sentence
 * given, if it could not be looked at: -EBUSY (in use), -ENOENT (no store), … */
int check_store(const char *path, unsigned flags, void (*finding)(void *context, const char *sentence), void *context);

#endif
