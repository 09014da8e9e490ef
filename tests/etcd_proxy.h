/* An HTTP server on loopback for tests, in threads of its own: between an engine and its etcd, where it loses answers or holds
 * requests back, or in the place of an etcd, which it is not.
 */
#ifndef BATON_TESTS_ETCD_PROXY_H
#define BATON_TESTS_ETCD_PROXY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum proxy_mode {
    PROXY_PASS = 0,
    PROXY_LOSE_ANSWER, /* the request is done, nobody hears of it */
    PROXY_HOLD,        /* the request is kept until proxy_send_held() */
    PROXY_REFUSE,      /* the connection is closed */
    PROXY_RUBBISH,     /* an answer of HTTP, no word of etcd */
    PROXY_NOISE,       /* no HTTP */
    PROXY_REDIRECT,
    PROXY_ENDLESS,     /* an answer that does not end */
    PROXY_HEADERS,     /* headers that do not end */
    PROXY_SLOW,        /* a byte now and then */
    PROXY_SILENT,      /* takes the request, says nothing */
    PROXY_OTHER,       /* etcd's answer of another cluster */
    PROXY_UNWILLING,   /* an error of etcd's: it does not like the request */
    PROXY_MODES
};

struct etcd_proxy {
    char url[64], target[64]; /* target: of the etcd behind it */
    atomic_int mode;
    const char *only;          /* of requests with this in them; NULL: of all. Others pass. Set it before the mode. */
    atomic_uint requests, done; /* those that the mode was for */
    atomic_bool send_held, ended;
    atomic_uint connections;
    int listener;
    pthread_t thread;
};

void etcd_proxy_start(struct etcd_proxy *proxy, const char *target);
void etcd_proxy_end(struct etcd_proxy *proxy);

#endif
