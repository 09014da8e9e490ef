/* A watch of a volume's keys in etcd, which stays open and tells that something has changed, and now and then a question to
 * each member, how it is. It waits for both, and to be woken; what has changed is then looked at with etcd_client.h.
 *
 * One thread at a time, but for etcd_stream_wake().
 */
#ifndef BATON_MEMBERSHIP_ETCD_STREAM_H
#define BATON_MEMBERSHIP_ETCD_STREAM_H

#include "membership/etcd_access.h"

enum { ETCD_STREAM_LOOK = 1, /* the watch has begun, or something has changed */
       ETCD_STREAM_ENDED = 2 /* it has failed; it is not begun again by itself */ };

struct etcd_stream;
struct etcd_stream *etcd_stream_open(struct etcd_access *access, const struct etcd_keys *keys);
void etcd_stream_close(struct etcd_stream *stream);
bool etcd_stream_runs(const struct etcd_stream *stream);
/* Begins the watch, at the endpoint that answered last. */
void etcd_stream_begin(struct etcd_stream *stream);
void etcd_stream_end(struct etcd_stream *stream);
/* The member at which the watch is, or was last. */
unsigned etcd_stream_endpoint(const struct etcd_stream *stream);
/* Asks a member how it is, unless another one is being asked; etcd_access_heard() is told. */
void etcd_stream_probe(struct etcd_stream *stream, unsigned endpoint);
/* Up to `timeout` ns. Flags, and after ENDED a sentence; 0: nothing, or woken. */
unsigned etcd_stream_wait(struct etcd_stream *stream, int64_t timeout, char *why, size_t why_room);
void etcd_stream_wake(struct etcd_stream *stream);

#endif
