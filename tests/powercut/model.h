/* What a disk might hold after a power cut: replays a log of record.so up to a cut and builds such a directory.
 *
 * The rules, where POSIX and Linux file systems leave room, the unkind reading:
 * - Data whose file had an fsync or fdatasync begun after the write, and ended well before the cut, is there.
 * - Other writes are there or not for each page (4 KiB; in some images each 512 bytes) on its own, in any of the
 *   versions that the page had since it was last durable.
 * - A file's size and what truncation and punching did come in their order, up to a random one, at least up to the last
 *   flush. Inside the size, what was not written reads as zeros.
 * - A name (create, link, unlink, rename) is durable after an fsync of its directory, not by one of the file. Other
 *   changes of names are there up to a random one, or, in some images, each on its own.
 * - A flush that failed leaves pages that count as clean: a later flush does not bring them to the disk.
 *
 * One thread. Cuts must come in rising order.
 */
#ifndef BATON_POWERCUT_MODEL_H
#define BATON_POWERCUT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model;

/* Reads the log. NULL with a sentence in `why`; also for a log with calls that the rig does not follow. */
struct model *model_open(const char *log, char *why, size_t room);
void model_close(struct model *model);
uint64_t model_events(const struct model *model);

/* Calls `mark` for every mark of the whole log, with the number of the event. */
void model_marks(const struct model *model, void (*mark)(void *context, uint64_t event, const char *text),
                 void *context);

/* Moves on to the instant after `events` events. 0, -EINVAL for going back or beyond the end. */
int model_advance(struct model *model, uint64_t events);

/* Builds one of the possible directories, as chosen by `seed`, in `directory`, which must be empty. `newest` instead:
 * the directory as the program saw it. 0 or a negative errno. */
int model_write(const struct model *model, uint64_t seed, bool newest, const char *directory);

#endif
