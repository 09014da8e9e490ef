/* Makes what the voters of a process (voter_host.h) promise durable, in a thread of its own: what waits together is flushed
 * together.
 */
#ifndef BATON_MEMBERSHIP_VOTER_SAVER_H
#define BATON_MEMBERSHIP_VOTER_SAVER_H

#include "membership/voter_desk.h"

struct saver;

/* Carries answers away, in the saver's thread or a caller's: frees `waiting`. */
typedef void saver_deliver(void *context, struct desk_waiting *waiting);

/* Opens the voters' states there; waits up to 10 s for another process to let go of them. 0, or a negative errno and a sentence. */
int saver_open(const char *directory, struct desk *desk, saver_deliver *deliver, void *context, struct saver **saver, char *why,
               size_t why_room);
/* desk_serve(), with the state that the disk has, in which the lease time is noted. Waits for the disk. */
int saver_serve(struct saver *saver, const struct config *config, const char *voter, const struct register_watch *watch, char *why,
                size_t why_room);
void saver_close(struct saver *saver);

#endif
