/* Schedules in which voters keep the register and the lease (those with odd seeds).
 *
 * Real are membership/voter.c, change.c and lease.c, and all that stands around them: the engine of the nodes (voters*.c),
 * the table of a process's voters and its saver (voter_host.c, voter_desk*.c, voter_saver.c), messages as bytes (ask.c); and
 * replication/ as it stands for primary by itself (candidate.c, elect.c, duty.c). Played are the sockets between nodes and
 * voters, the voters' disks, and baton-witness as a process that has nothing but a voter.
 *
 *   ballots.c   messages between nodes and voters: late, lost, twice, in another order, held back by cut lines
 *   seats.c     the voters' disks, the witness, and what happens to lines, clocks and voters
 *   chosen.c    what must hold: of values that are chosen, of leases, of answers
 *   mistakes.c  mistakes that the test plants, to see that they are found
 */
#ifndef BATON_TESTS_SIMULATOR_VOTING_H
#define BATON_TESTS_SIMULATOR_VOTING_H

#include "membership/voter.h"
#include "tests/simulator/sim.h"

#include <zmq.h>

/* ---- Messages (ballots.c) ---- */

struct mailbox; /* what zmq_poll and its kin are given here: a dialled socket, or a door */
bool mailbox_is(const void *socket);
bool mailbox_ready(const void *socket, short events, short *found);
void mailbox_wait(void *socket, struct fiber *fiber);   /* NULL: nobody waits */
int mailbox_send(void *socket, const void *bytes, size_t length);

void ballots_begin(void);
void ballots_kill(unsigned place); /* its process is gone */
void ballots_cut(unsigned from, unsigned to, bool cut);
void ballots_slow(unsigned from, unsigned to, int64_t ns); /* each takes so much longer */
void ballots_trouble(unsigned loss, unsigned lateness); /* one message in so many is lost; late; 0: none */

/* ---- What must hold (chosen.c) ---- */

void chosen_begin(void);
const struct register_value *chosen_newest(void); /* version 0: nothing yet */
void chosen_saved(unsigned place, const struct voter_state *state); /* is on its disk */
void chosen_look(void); /* who holds the lease? */

#endif
