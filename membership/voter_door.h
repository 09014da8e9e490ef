/* The door of a process's voters (voter_host.h): a bound ROUTER socket in a ZeroMQ context of its own, its thread, and the ZAP
 * thread that lets in whom the desk admits. Nothing here waits for a disk.
 */
#ifndef BATON_MEMBERSHIP_VOTER_DOOR_H
#define BATON_MEMBERSHIP_VOTER_DOOR_H

#include "membership/voter_desk.h"

struct door;

/* `wake`: the eventfd of the desk (desk_open); the door reads it. 0, or a negative errno and a sentence. */
int door_open(const struct voter_host_options *options, struct desk *desk, int wake, struct door **door, char *why, size_t why_room);
/* Sends an answer to its route, soon. Any thread. */
void door_send(struct door *door, const struct desk_reply *reply, const struct ask_answer *answer);
void door_counts(struct door *door, struct voter_host_counts *counts); /* strangers and garbage */
void door_close(struct door *door);

#endif
