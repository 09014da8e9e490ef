/* The volume's addresses on this host, by netlink: looked at, renewed, taken off, and who is connected to them. Which interface they are on, and how they came
 * there, is the exporter vip's. No process is started, and nothing waits for the network. One thread.
 */
#ifndef BATON_EXPORTERS_ADDRESS_H
#define BATON_EXPORTERS_ADDRESS_H

#include "fs/base.h"

/* `addresses` is a config's: ADDRESS/BITS[@INTERFACE], separated by spaces. */

/* Those that are on this host have so many seconds from now on: whoever dies, the kernel takes them off then.
 * Returns how many of them are not here, or a negative errno. */
int address_renew(const char *addresses, uint32_t seconds);
/* 0: each of those that are here is on an interface that has a link. -ENOLINK: one is not; or another errno. */
int address_linked(const char *addresses);
/* Takes off those that are here, wherever, and however often. Returns how many there were, or a negative errno (some may be here still). */
int address_remove(const char *addresses);

/* Who is connected to them on this host (TCP, established): a number that stays the same while these stay the same. 0, or a
 * negative errno. */
int address_connections(const char *addresses, uint64_t *digest);

#endif
