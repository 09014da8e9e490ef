/* Asks an etcd cluster, and gets one answer: from the member that answered last, or, if that one fails, from the others in
 * turn. Logs in where there is a user, and again when its token is refused.
 *
 * One thread at a time, but for etcd_client_stop(). It waits for the network, up to the limits that it is given, and for no disk.
 */
#ifndef BATON_MEMBERSHIP_ETCD_CLIENT_H
#define BATON_MEMBERSHIP_ETCD_CLIENT_H

#include "membership/etcd_access.h"

struct etcd_ask {
    const char *path, *body;
    int64_t attempt;  /* ns: for one member */
    int64_t deadline; /* CLOCK_BOOTTIME: for all of them */
    /* Reads an answer: 0, or a negative errno and a sentence: it is none, and another member is asked. */
    int (*accept)(void *context, const char *text, size_t length, char *why, size_t why_room);
    void *context;
    /* Out: */
    int64_t sent; /* CLOCK_BOOTTIME, from before the request that was answered was sent */
    bool maybe;   /* what was asked may have been done by a member that was asked earlier, or may yet be */
};

struct etcd_client;
struct etcd_client *etcd_client_open(struct etcd_access *access);
void etcd_client_close(struct etcd_client *client);
/* What it does ends at once, with -ECANCELED, and so does whatever it is asked after that. Any thread. */
void etcd_client_stop(struct etcd_client *client);

/* 0: answered. -ENOENT: there is no such lease. -EACCES: this user may not do that, or is not let in. -EINVAL: the last one that
 * was asked has refused it for good. -ENOTCONN: it has not answered. -ECANCELED: stopped. Errors have a sentence. */
int etcd_client_ask(struct etcd_client *client, struct etcd_ask *ask, char *why, size_t why_room);

#endif
